#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What is written: files, times, comments, names, and what is said on stderr."""

import datetime
import os
import pty
import re
import shutil
import signal
import subprocess
import tempfile
import time

from harness import (
    BINARY,
    SAMPLER,
    TARGETS,
    LiveTest,
    expected_stacks,
    in_own_mounts,
    main,
    poll,
    process_state,
    run_profiler,
)
from profiles import FILE_NAME, HEAP_TYPES, Profile, Raw, go_pprof, sum_stacks

MS = 1_000_000
# An interval ends when the profiler gets to run; on a busy machine that is late.
LATE_NS = 5_000 * MS
SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "targets")


class FilesTest(LiveTest):
    def check_times(self, profiles, interval_ms, began_ns, ended_ns):
        """Intervals follow one another without a gap, and all but the last have the full length."""
        self.assertGreaterEqual(profiles[0].time_nanos, began_ns - MS)
        self.assertLessEqual(profiles[-1].end_nanos, ended_ns + MS)
        for profile, following in zip(profiles, profiles[1:]):
            self.assertGreaterEqual(profile.duration_nanos, interval_ms * MS - MS)
            self.assertLess(profile.duration_nanos, interval_ms * MS + LATE_NS)
            self.assertLess(abs(following.time_nanos - profile.end_nanos), MS)
        self.assertGreaterEqual(profiles[-1].duration_nanos, 0)
        self.assertLess(profiles[-1].duration_nanos, interval_ms * MS + LATE_NS)

    def check_names(self, profiles, pid, comm):
        for profile in profiles:
            match = FILE_NAME.match(os.path.basename(profile.path))
            self.assertTrue(match, profile.path)
            self.assertEqual((match["comm"], match["pid"], match["profile"]), (comm, str(pid), "heap"))
            start = datetime.datetime.strptime(match["start"], "%Y%m%dT%H%M%S.%fZ")
            start = start.replace(tzinfo=datetime.timezone.utc).timestamp()
            self.assertLess(abs(start - profile.time_nanos / 1e9), 0.002, profile.path)

    def check_covered(self, profiles, duration_ms, n_intervals):
        """All of the time is in some file; fewer files than intervals only if the profiler was late."""
        covered = sum(profile.duration_nanos for profile in profiles)
        self.assertGreaterEqual(covered, duration_ms * MS - MS)
        self.assertLess(covered, duration_ms * MS + LATE_NS)
        self.assertLessEqual(len(profiles), n_intervals)
        self.assertGreaterEqual(len(profiles), 2)

    def check_empty(self, profile):
        self.assertEqual(profile.samples, [])
        self.assertEqual(profile.types, HEAP_TYPES)
        raw = Raw(profile.path)
        self.assertEqual((raw.types, raw.samples), (HEAP_TYPES, []))

    def test_an_interval_without_events_still_gives_a_valid_file(self):
        target = self.target("truth")
        began_ns = time.time_ns()
        profiler = self.profile(target, "-i", "250ms", "-d", "1s")
        self.assertEqual(profiler.wait(), 0, profiler.stderr)
        profiles = profiler.profiles()
        self.check_times(profiles, 250, began_ns, time.time_ns())
        self.check_names(profiles, target.pid, "truth")
        self.check_covered(profiles, 1000, 4)
        for profile in profiles:
            self.check_empty(profile)
        self.assert_no_trace(profiler)

    def test_each_interval_holds_exactly_what_happened_in_it(self):
        """Up to each interval's end: all that was done before it, nothing that was begun after it."""
        target = self.target("truth")
        began_ns = time.time_ns()
        # At full speed: without copies of the stack.
        profiler = self.profile(target, "-i", "150ms", "--heap-rate", "1", "--stacks", "fp")
        marks = []  # when a round began, when it had ended, what was made by then
        while time.time_ns() < began_ns + 2_500 * MS:
            begin_ns = time.time_ns()
            target.ask("go 40")
            marks.append((begin_ns, time.time_ns(), 40 * (len(marks) + 1)))
        self.finish(profiler)
        profiles = profiler.profiles()
        self.check_times(profiles, 150, began_ns, time.time_ns())
        self.assertGreater(len(profiles), 10)
        found = 0
        for profile in profiles:
            found += profile.totals()[0]
            done = [made for _, ended_ns, made in marks if ended_ns < profile.end_nanos - MS]
            begun = [made for begin_ns, _, made in marks if begin_ns < profile.end_nanos + MS]
            self.assertGreaterEqual(found, max(done, default=0))
            self.assertLessEqual(found, max(begun, default=0))
        self.assertEqual(found, marks[-1][2])

    def check_signal(self, number):
        target = self.target("truth")
        profiler = self.profile(target, "-i", "1h", "--heap-rate", "1")
        target.ask("go 3000")
        expected = expected_stacks(target.ask("report"))
        self.finish(profiler, number)
        profiles = profiler.profiles()
        self.assertEqual(len(profiles), 1)
        self.assert_stacks(sum_stacks(profiles, "worker_main"), expected)

    def test_sigint_finishes_the_running_interval(self):
        self.check_signal(signal.SIGINT)

    def test_sigterm_finishes_the_running_interval(self):
        self.check_signal(signal.SIGTERM)

    def test_duration_finishes_a_running_interval(self):
        target = self.target("truth")
        profiler = self.profile(target, "-i", "700ms", "-d", "1s", "--heap-rate", "1")
        target.ask("go 3000")
        expected = expected_stacks(target.ask("report"))
        self.assertEqual(profiler.wait(), 0, profiler.stderr)
        profiles = profiler.profiles()
        self.check_covered(profiles, 1000, 2)
        self.assert_stacks(sum_stacks(profiles, "worker_main"), expected)

    def test_the_current_directory_is_the_default(self):
        target = self.target("truth")
        directory = tempfile.mkdtemp(prefix="dp-live-")
        self.addCleanup(shutil.rmtree, directory)
        result = run_profiler("-e", "heap", "-d", "200ms", "-p", str(target.pid), cwd=directory)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))
        names = os.listdir(directory)
        self.assertEqual(len(names), 1)
        self.assertRegex(names[0], FILE_NAME)

    def test_a_strange_process_name_is_made_safe(self):
        directory = tempfile.mkdtemp(prefix="dp-live-")
        self.addCleanup(shutil.rmtree, directory)
        path = os.path.join(directory, "-we ird$%")
        shutil.copy(os.path.join(TARGETS, "truth"), path)
        target = self.target("truth", path=path)
        profiler = self.profile(target, "-i", "300ms", "--heap-rate", "1")
        target.ask("go 100")
        self.finish(profiler)
        profiles = profiler.profiles()
        self.check_names(profiles, target.pid, "_we_ird__")
        self.assertEqual(sum(p.totals()[0] for p in profiles), 100)

    def test_the_same_profile_twice_within_one_run_is_never_overwritten(self):
        """Two runs into one directory: every interval of both is there."""
        target = self.target("truth")
        directory = tempfile.mkdtemp(prefix="dp-live-")
        self.addCleanup(shutil.rmtree, directory)
        runs = [
            self.profile(target, "-i", "200ms", "-d", "600ms", directory=directory) for _ in range(2)
        ]
        for profiler in runs:
            self.assertEqual(profiler.wait(), 0, profiler.stderr)
        paths = sorted(os.path.join(directory, name) for name in os.listdir(directory))
        covered = sum(Profile(path).duration_nanos for path in paths)
        self.assertGreaterEqual(covered, 2 * (600 * MS - MS))


class ContentTest(LiveTest):
    def run_truth(self, *args, n=3000, name="truth"):
        target = self.target(name)
        profiler = self.profile(target, "-i", "1h", *args)
        target.ask(f"go {n}")
        self.finish(profiler)
        return target, profiler, profiler.profiles()[0]

    def test_types_period_and_default(self):
        _, _, profile = self.run_truth("--heap-rate", "64KiB")
        self.assertEqual(profile.types, HEAP_TYPES)
        self.assertEqual(profile.period_type, ("space", "bytes"))
        self.assertEqual(profile.period, 65536)
        self.assertEqual(profile.default_type, "alloc_space")
        self.assertEqual(Raw(profile.path).default_type, "alloc_space")
        self.assertIn("Type: alloc_space", go_pprof("-top", profile.path))
        self.assertIn("Type: inuse_objects", go_pprof("-top", "-sample_index=inuse_objects", profile.path))

    def test_comments_say_how_it_was_made(self):
        target, _, profile = self.run_truth("--heap-rate", "64KiB")
        comment = profile.comment()
        version = run_profiler("--version").stdout.split()[1]
        self.assertEqual(comment.text("deltaprof-perf"), f"version {version}")
        self.assertEqual(comment.text("process"), f"pid {target.pid}, name truth")
        self.assertRegex(comment.text("sampler"), f"^{SAMPLER or 'kernel'} .*100 %")
        self.assertRegex(comment.text("stacks"), ".")
        self.assertRegex(comment.text("heap rate"), "^65536 bytes")
        for key, words in {
            "allocations": "seen sampled skipped failed nested",
            "records": "delivered lost dropped",
        }.items():
            self.assertLessEqual(set(words.split()), set(comment.numbers(key)), comment.lines)
        self.assertRegex("\n".join(comment.lines), "truncated")
        self.assertRegex("\n".join(comment.lines), "unresolved")
        # The oracle prints the same.
        self.assertEqual(Raw(profile.path).comments, profile.comments)

    def test_a_stack_beyond_the_kernels_limit_counts_as_truncated(self):
        with open("/proc/sys/kernel/perf_event_max_stack", encoding="ascii") as file:
            limit = int(file.read())
        for depth, n_truncated in ((0, 0), (limit + 10, 1)):
            target = self.target("hammer", "--depth", str(depth))
            profiler = self.profile(target, "-e", "heap", "--heap-rate", "1", "-i", "1h",
                                    "--stacks", "fp")  # fmt: skip
            target.ask("go")
            poll(lambda t=target: t.ask("report")["pairs"] > 0, "the first pair")
            target.ask("stop")
            profiler.stop()
            self.assertEqual(profiler.wait(), 0, profiler.stderr)
            (profile,) = profiler.profiles()
            self.assertEqual(profile.comment().numbers("stacks")["truncated"], n_truncated)
            roots = {profile.names(sample)[-1] for sample in profile.samples}
            self.assertEqual("[stack cut short]" in roots, bool(n_truncated), roots)
            self.assertEqual(target.quit(), 0)

    def test_mappings_carry_the_build_ids_of_their_files(self):
        target, _, profile = self.run_truth("--heap-rate", "1")
        paths = set()
        for mapping in profile.mappings.values():
            self.assertLess(mapping.start, mapping.limit)
            if not os.path.exists(mapping.file):
                continue
            notes = subprocess.run(
                ["readelf", "-n", mapping.file], capture_output=True, text=True, check=True
            ).stdout
            self.assertEqual(mapping.build_id, re.search(r"Build ID: ([0-9a-f]+)", notes)[1])
            paths.add(os.path.basename(mapping.file))
        self.assertIn("truth", paths)
        self.assertIn("libc.so.6", paths)
        self.assertGreater(target.pid, 0)

    def test_locations_lie_in_their_mappings(self):
        for name in ("truth", "truth-static"):
            _, _, profile = self.run_truth("--heap-rate", "1", name=name)
            for location in profile.locations.values():
                if not location.mapping_id:
                    continue
                mapping = profile.mappings[location.mapping_id]
                self.assertLessEqual(mapping.start, location.address)
                self.assertLess(location.address, mapping.limit)

    def test_names_and_lines_are_those_of_addr2line(self):
        for name in ("truth", "truth-nopie", "truth-static"):
            _, _, profile = self.run_truth("--heap-rate", "1", name=name)
            self.check_lines(profile, os.path.join(TARGETS, name))

    def check_lines(self, profile, path):
        """Every location in file `path` against binutils."""
        n_checked = 0
        by_mapping = {i: m for i, m in profile.mappings.items() if os.path.samefile(m.file, path)}
        locations = [loc for loc in profile.locations.values() if loc.mapping_id in by_mapping]
        addresses = []
        for location in locations:
            mapping = by_mapping[location.mapping_id]
            addresses.append(svma_of(path, location.address - mapping.start + mapping.offset))
        output = subprocess.run(
            ["addr2line", "-a", "-i", "-f", "-C", "-e", path, *map(hex, addresses)],
            capture_output=True, text=True, check=True,
        ).stdout.splitlines()  # fmt: skip
        expected = {}
        for line in output:
            if line.startswith("0x"):
                current = expected.setdefault(int(line, 16), [])
            else:
                current.append(line)
        for location, address in zip(locations, addresses):
            theirs = expected[address]
            functions, places = theirs[::2], theirs[1::2]
            if not places[0].rpartition("/")[2].startswith("truth.c:"):
                continue
            self.assertEqual([line.function for line in location.lines], functions)
            for line, place in zip(location.lines, places):
                file, _, number = place.split(" ")[0].rpartition(":")
                self.assertEqual(os.path.basename(line.file), os.path.basename(file))
                self.assertEqual(line.line, int(number), (hex(address), line, place))
            n_checked += 1
        self.assertGreater(n_checked, 20)

    def run_naming(self, name):
        target = self.target(name)
        profiler = self.profile(target, "-i", "1h", "--heap-rate", "1")
        target.ask("go 100")
        self.finish(profiler)
        profile = profiler.profiles()[0]
        return profile, {sample.values[1]: sample for sample in profile.samples}

    def test_inlined_calls_are_lines_of_one_location(self):
        profile, samples = self.run_naming("naming")
        _, location, *_ = samples[4000].locations
        names = ["inline_inner", "inline_middle", "inline_caller"]
        self.assertEqual([line.function for line in location.lines], names)
        with open(os.path.join(SOURCES, "naming.c"), encoding="utf-8") as file:
            source = file.read().splitlines()
        for line, mark in zip(location.lines, ("inner", "middle", "caller")):
            self.assertIn(f"/* line: {mark} */", source[line.line - 1])
            self.assertEqual(os.path.basename(line.file), "naming.c")
            self.assertIn(f"void {line.function}(", source[line.start_line - 1])
        self.assertTrue(profile.mappings[location.mapping_id].inline_frames)
        shown = Raw(profile.path).by_stack("main")
        self.assertIn((*names, "main"), shown)

    def check_mangled(self, name):
        profile, samples = self.run_naming(name)
        wanted = {
            1000: ("engine::pistons::Rod::forge(int)", "_ZN6engine7pistons3Rod5forgeEi"),
            2000: ("engine::pistons::weigh", "_ZN6engine7pistons5weigh17h0123456789abcdefE"),
            3000: ("engine::pistons::melt", "_RNvNtCs1234_6engine7pistons4melt"),
        }
        for size, (function, system_name) in wanted.items():
            line = samples[size].locations[1].lines[0]
            self.assertEqual((line.function, line.system_name), (function, system_name))
        self.assertTrue(profile.mappings[samples[1000].locations[1].mapping_id].functions)

    def test_mangled_names_of_the_symbol_table_are_demangled(self):
        self.check_mangled("naming-nodebug")

    def test_mangled_names_of_debug_information_are_demangled(self):
        self.check_mangled("naming")

    def test_without_debug_information_functions_have_no_lines(self):
        profile, samples = self.run_naming("naming-nodebug")
        location = samples[4000].locations[1]
        self.assertEqual([line.function for line in location.lines], ["inline_caller"])
        self.assertEqual((location.lines[0].file, location.lines[0].line), ("", 0))
        mapping = profile.mappings[location.mapping_id]
        self.assertFalse(mapping.line_numbers)

    def test_a_program_that_was_replaced_on_disk_keeps_its_names(self):
        directory = tempfile.mkdtemp(prefix="dp-live-")
        self.addCleanup(shutil.rmtree, directory)
        path = os.path.join(directory, "naming")
        shutil.copy(os.path.join(TARGETS, "naming"), path)
        target = self.target("naming", path=path)
        os.unlink(path)
        shutil.copy("/bin/true", path)
        profiler = self.profile(target, "-i", "1h", "--heap-rate", "1")
        target.ask("go 100")
        target.quit()
        self.assertEqual(profiler.wait(), 0, profiler.stderr)
        stacks = profiler.profiles()[0].by_stack("main")
        self.assertIn(("inline_inner", "inline_middle", "inline_caller", "main"), stacks)


    def check_named(self, target):
        profiler = self.profile(target, "-i", "1h", "--heap-rate", "1")
        target.ask("go 100")
        self.finish(profiler)
        stacks = profiler.profiles()[0].by_stack("main")
        stack = ("inline_inner", "inline_middle", "inline_caller", "main")
        self.assertEqual(stacks[stack], [100, 4000, 100, 4000])

    def test_a_program_of_another_mount_namespace_has_its_names(self):
        directory = tempfile.mkdtemp(prefix="dp-live-")
        self.addCleanup(shutil.rmtree, directory)
        source = os.path.join(TARGETS, "naming")
        script = f"mount -t tmpfs none {directory}\ncp {source} {directory}"
        path = os.path.join(directory, "naming")
        target = self.target("naming", path=path, prefix=in_own_mounts(script))
        self.assertFalse(os.path.exists(path))
        self.check_named(target)

    def test_a_program_of_another_pid_namespace_is_profiled_by_the_pid_that_we_see(self):
        target = self.target("naming", prefix=("unshare", "--pid", "--fork", "--kill-child"))
        self.check_named(target)


def svma_of(path, file_off):
    """The address that the file itself gives to file offset `file_off`, from its program headers."""
    output = subprocess.run(["readelf", "-lW", path], capture_output=True, text=True, check=True).stdout
    for line in output.splitlines():
        parts = line.split()
        if parts[:1] == ["LOAD"]:
            offset, address, _, size = (int(x, 16) for x in parts[1:5])
            if offset <= file_off < offset + size:
                return address + file_off - offset
    raise AssertionError(f"{path} has no segment at {file_off:#x}")


class StderrTest(LiveTest):
    def run_for(self, *args):
        target = self.target("truth")
        directory = tempfile.mkdtemp(prefix="dp-live-")
        self.addCleanup(shutil.rmtree, directory)
        command = ("-e", "heap", "-o", directory, "-i", "200ms", "-d", "500ms", *args)
        return target, run_profiler(*command, "-p", str(target.pid))

    def test_nothing_is_said_when_stderr_is_no_terminal(self):
        for args in ((), ("-q",)):
            _, result = self.run_for(*args)
            self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))

    def test_verbose_says_attached_when_every_probe_is_live(self):
        target, result = self.run_for("-v")
        self.assertEqual(result.returncode, 0)
        lines = result.stderr.splitlines()
        self.assertEqual(lines.count(f"deltaprof-perf: {target.pid} (truth): attached"), 1, lines)
        self.assertTrue(all(line.startswith("deltaprof-perf: ") for line in lines), lines)

    def run_on_terminal(self, *args):
        target = self.target("truth")
        directory = tempfile.mkdtemp(prefix="dp-live-")
        self.addCleanup(shutil.rmtree, directory)
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [BINARY, "-e", "heap", "-o", directory, "-i", "200ms", "-d", "600ms", *args,
             "-p", str(target.pid)],
            stdin=subprocess.DEVNULL, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        text = b""
        try:
            while chunk := os.read(ours, 65536):
                text += chunk
        except OSError:
            pass  # EIO: the other side is closed
        os.close(ours)
        self.assertEqual(process.wait(), 0)
        self.assertIsNone(process_state(process.pid))
        return target, sorted(os.listdir(directory)), text.decode()

    def test_on_a_terminal_there_is_one_status_line_an_interval(self):
        target, names, text = self.run_on_terminal()
        lines = text.splitlines()
        self.assertEqual(len(lines), len(names), text)
        self.assertGreaterEqual(len(lines), 2, text)
        for line, name in zip(lines, names):
            self.assertTrue(line.startswith(f"deltaprof-perf: {target.pid} (truth): "), line)
            for pattern in (r"\d+ events", r"\d+ (of \d+ )?allocations", r"sampled", r"\d+ records lost",
                            r"CPU \d+\.\d %", re.escape(name) + r"|\d+ files?\b"):  # fmt: skip
                self.assertRegex(line, pattern)

    def test_quiet_says_nothing_on_a_terminal_either(self):
        _, names, text = self.run_on_terminal("-q")
        self.assertEqual(text, "")
        self.assertGreaterEqual(len(names), 2)


if __name__ == "__main__":
    main()
