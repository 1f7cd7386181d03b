#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What cannot work says so: one clear sentence, the right exit status, and nothing left behind."""

import glob
import os
import random
import shutil
import subprocess
import tempfile

from harness import (
    BINARY,
    TARGETS,
    LiveTest,
    expected_stacks,
    has_capability,
    in_own_mounts,
    main,
    poll,
    process_state,
    run_profiler,
)
from profiles import FILE_NAME, Profile, Raw, sum_stacks

CAP_SYS_RESOURCE = 24
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")


HIDE_TRACEFS = "umount -l /sys/kernel/tracing; umount -l /sys/kernel/debug 2>/dev/null || true"


class BadInputTest(LiveTest):
    def setUp(self):
        super().setUp()
        self.directory = tempfile.mkdtemp(prefix="dp-live-")
        self.addCleanup(shutil.rmtree, self.directory)

    def fails(self, status, words, *args, **options):
        result = run_profiler(*args, **options)
        self.assert_one_sentence(result, status, *words)
        return result

    def attach(self, pid, *args):
        return ("-e", "heap", "-o", self.directory, "-d", "200ms", *args, "-p", str(pid))

    def public_copy(self, path):
        """A copy that every user may run; the build directory may be private."""
        os.chmod(self.directory, 0o755)
        copy = os.path.join(self.directory, os.path.basename(path))
        shutil.copy(path, copy)
        os.chmod(copy, 0o755)
        return copy

    def writable_directory(self):
        path = os.path.join(self.directory, "out")
        os.mkdir(path)
        os.chmod(path, 0o777)
        return path


class CommandLineTest(BadInputTest):
    def test_an_unknown_option_gives_this_line_and_status_2(self):
        result = self.fails(2, [], "--frobnicate", "-p", "1")
        self.assertEqual(
            result.stderr, "deltaprof-perf: unknown option '--frobnicate'; --help lists them all\n"
        )
        result = self.fails(2, [], "-Z")
        self.assertEqual(result.stderr, "deltaprof-perf: unknown option '-Z'; --help lists them all\n")

    def test_a_bad_duration(self):
        for value, word in (("10", "unit"), ("abc", "not a duration"), ("", "."), ("1ms", "range"),
                            ("-1s", "not a duration"), ("1e3s", "not a duration")):  # fmt: skip
            self.fails(2, ["--interval", word], "-i", value, "-p", "1")
        self.fails(2, ["--duration"], "-d", "soon", "-p", "1")
        self.fails(2, ["--block-rate"], "--block-rate", "x", "-p", "1")

    def test_other_bad_values(self):
        for args in (("--heap-rate", "0"), ("--heap-rate", "many"), ("-e", "cpu"), ("--stacks", "magic"),
                     ("--sampler", "x"), ("--max-overhead", "lots"), ("-o", "")):  # fmt: skip
            self.fails(2, [], *args, "-p", "1")
        for pid in ("x", "0", "-1", "1,,2", "99999999999"):
            self.fails(2, ["--pid"], "-p", pid)
        self.fails(2, [])
        self.fails(2, [], "-p")
        self.fails(2, ["word"], "-p", "1", "word")

    def test_what_this_version_cannot_do_is_said_in_one_sentence(self):
        for args in (("--max-overhead", "5"), ("--follow",), ("--comm", "x")):
            self.fails(2, ["not in this version"], *args, "-p", "1")

    def test_no_profiles_in_the_list(self):
        self.fails(2, ["--profiles"], "-e", "", "-p", "1")
        self.fails(2, ["--profiles"], "-e", "heap,", "-p", "1")


class ProcessTest(BadInputTest):
    def test_there_is_no_such_process(self):
        gone = subprocess.Popen(["true"])
        gone.wait()
        self.fails(1, [f"pid {gone.pid}: no such process"], *self.attach(gone.pid))
        self.assertEqual(os.listdir(self.directory), [])

    def test_a_thread_is_no_process(self):
        target = self.target("hammer")
        (thread,) = [tid for tid in os.listdir(f"/proc/{target.pid}/task") if int(tid) != target.pid]
        self.fails(1, [f"pid {thread}", "thread", str(target.pid)], *self.attach(thread))

    def test_a_kernel_thread(self):
        for path in glob.glob("/proc/[0-9]*/stat"):
            pid = int(path.split("/")[2])
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    flags = int(file.read().rpartition(")")[2].split()[6])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if flags & 0x00200000:
                break
        else:
            self.skipTest("no kernel thread is visible in this PID namespace")
        self.fails(1, [f"pid {pid}", "kernel thread"], *self.attach(pid))

    def test_a_zombie(self):
        zombie = subprocess.Popen(["true"])
        try:
            poll(lambda: process_state(zombie.pid) == "Z", "the child to end")
            self.fails(1, [f"pid {zombie.pid}", "zombie|ended"], *self.attach(zombie.pid))
        finally:
            zombie.wait()

    def test_a_process_without_an_allocator(self):
        target = self.target("noalloc")
        self.fails(1, [f"pid {target.pid}", "malloc"], *self.attach(target.pid))
        self.assert_clean_text(target)

    def test_a_stripped_static_program(self):
        path = os.path.join(self.directory, "stripped")
        subprocess.run(["strip", "-o", path, os.path.join(TARGETS, "truth-static")], check=True)
        target = self.target("stripped", path=path)
        self.fails(1, [f"pid {target.pid}", "malloc"], *self.attach(target.pid))

    def test_someone_elses_process_without_privilege(self):
        target = self.target("truth")
        binary = self.public_copy(BINARY)
        self.fails(
            1, [f"pid {target.pid}", "ermi", "root|CAP_"],
            "-o", self.writable_directory(), "-p", str(target.pid), prefix=NOBODY, binary=binary, cwd="/",
        )  # fmt: skip

    def test_ones_own_process_without_privilege(self):
        binary, path = self.public_copy(BINARY), self.public_copy(os.path.join(TARGETS, "truth"))
        target = self.target("truth", path=path, prefix=NOBODY)
        self.fails(
            1, ["ermi", "root|CAP_"],
            "-o", self.writable_directory(), "-p", str(target.pid), prefix=NOBODY, binary=binary, cwd="/",
        )  # fmt: skip


class TracefsTest(BadInputTest):
    def test_tracefs_is_mounted_where_it_is_not(self):
        target = self.target("truth")
        profiler = self.profile(
            target, "-i", "1h", "--heap-rate", "1", prefix=in_own_mounts(HIDE_TRACEFS)
        )
        target.ask("go 2000")
        expected = expected_stacks(target.ask("report"))
        self.finish(profiler)
        self.assert_stacks(sum_stacks(profiler.profiles(), "worker_main"), expected)

    def test_tracefs_that_may_not_be_mounted(self):
        target = self.target("truth")
        prefix = (*in_own_mounts(HIDE_TRACEFS), "setpriv", "--bounding-set=-sys_admin", "--")
        self.fails(1, ["tracefs", "not mounted", "mount -t tracefs"], "--sampler", "direct",
                   *self.attach(target.pid), prefix=prefix)  # fmt: skip
        self.assert_clean_text(target)


class DirectoryTest(BadInputTest):
    def check(self, directory, words, **options):
        target = self.target("truth")
        command = ("-e", "heap", "-d", "200ms", "-o", directory, "-p", str(target.pid))
        self.fails(1, words, *command, **options)
        self.assert_clean_text(target)

    def test_the_directory_is_not_there(self):
        path = os.path.join(self.directory, "missing")
        self.check(path, [path, "No such file or directory", "--output"])

    def test_the_directory_is_a_file(self):
        path = os.path.join(self.directory, "file")
        with open(path, "w", encoding="utf-8"):
            pass
        self.check(path, [path, "Not a directory", "--output"])

    def test_the_directory_may_not_be_written_to(self):
        os.chmod(self.directory, 0o755)
        binary = self.public_copy(BINARY)
        self.check(self.directory, [self.directory, "Permission denied"], prefix=NOBODY, binary=binary, cwd="/")

    def test_the_file_system_is_read_only(self):
        mount = in_own_mounts(f"mount -t tmpfs -o ro none {self.directory}")
        self.check(self.directory, [self.directory, "Read-only"], prefix=mount)

    def test_the_disk_is_full_at_the_start(self):
        mount = in_own_mounts(
            f"mount -t tmpfs -o size=64k none {self.directory}\n"
            f"head -c 1000000 /dev/zero >{self.directory}/filler 2>/dev/null || true"
        )
        self.check(self.directory, [self.directory, "No space left on device"], prefix=mount)


class FullDiskTest(BadInputTest):
    """A disk that fills up while the profiler runs: a tmpfs that only the profiler has mounted."""

    def start(self, target, *args):
        script = f"mount -t tmpfs -o size=256k none {self.directory}"
        profiler = self.profile(
            target, *args, "--heap-rate", "1", directory=self.directory, prefix=in_own_mounts(script)
        )
        # Held open, so that it can be looked at when the profiler has gone.
        self.disk_fd = os.open(f"/proc/{profiler.pid}/root{self.directory}", os.O_RDONLY | os.O_DIRECTORY)
        self.addCleanup(os.close, self.disk_fd)
        profiler.directory = f"/proc/self/fd/{self.disk_fd}"
        return profiler

    def fill(self, profiler):
        path = os.path.join(profiler.directory, "filler")
        with open(path, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError as error:
                self.assertEqual(error.strerror, "No space left on device")
        return path

    def test_what_could_not_be_written_comes_with_the_next_file(self):
        target = self.target("truth")
        profiler = self.start(target, "-i", "300ms")
        target.ask("go 2000")
        n_before = len(profiler.wait_covered())
        filler = self.fill(profiler)
        target.ask("go 2000")
        profiler.wait_line("No space left on device", "a warning")
        self.assertTrue(profiler.running())
        os.unlink(filler)
        expected = expected_stacks(target.ask("report"))
        profiles = profiler.wait_covered()
        self.assertGreater(len(profiles), n_before)
        self.assert_stacks(sum_stacks(profiles, "worker_main"), expected)
        # The file that was late covers the interval that was not written: no gap.
        for profile, following in zip(profiles, profiles[1:]):
            self.assertLess(abs(following.time_nanos - profile.end_nanos), 1_000_000)
        target.ask("go 2000")
        expected = expected_stacks(target.ask("report"))
        self.finish(profiler)
        self.assert_stacks(sum_stacks(profiler.profiles(), "worker_main"), expected)
        for line in profiler.stderr.splitlines():
            self.assertRegex(line, "^deltaprof-perf: ")
        self.check_whole(profiler)

    def check_whole(self, profiler):
        names = [name for name in os.listdir(profiler.directory) if name != "filler"]
        self.assertEqual([name for name in names if not name.endswith(".pb.gz")], [])
        for name in names:
            Profile(os.path.join(profiler.directory, name))

    def test_a_disk_that_stays_full_is_a_failure_at_the_end(self):
        target = self.target("truth")
        profiler = self.start(target, "-i", "300ms")
        self.fill(profiler)
        target.ask("go 2000")
        profiler.wait_line("No space left on device", "a warning")
        self.finish(profiler, status=1)
        for line in profiler.stderr.splitlines():
            self.assertRegex(line, "^deltaprof-perf: ")
        self.check_whole(profiler)

    def test_a_directory_that_went_away_and_came_back(self):
        target = self.target("truth")
        path = os.path.join(self.directory, "out")
        os.mkdir(path)
        profiler = self.profile(target, "-i", "300ms", "--heap-rate", "1", directory=path)
        os.rename(path, path + "-away")
        target.ask("go 2000")
        profiler.wait_line("No such file or directory", "a warning")
        os.rename(path + "-away", path)
        expected = expected_stacks(target.ask("report"))
        self.assert_stacks(sum_stacks(profiler.wait_covered(), "worker_main"), expected)
        self.finish(profiler)


class DescriptorLimitTest(BadInputTest):
    """The direct sampler needs descriptors for each thread."""

    N_IDLE = 200
    DIRECT = ("--sampler", "direct", "--heap-rate", "1")

    def limited(self, limits, *more):
        return ("prlimit", f"--nofile={limits}", *more, "--")

    def check_works(self, prefix):
        target = self.target("hammer", "--threads", "2", "--idle", str(self.N_IDLE))
        profiler = self.profile(target, "-i", "1h", *self.DIRECT, prefix=prefix)
        with open(f"/proc/{profiler.pid}/limits", encoding="utf-8") as file:
            (limit,) = [int(line.split()[3]) for line in file if line.startswith("Max open files")]
        self.assertGreater(limit, len(os.listdir(f"/proc/{profiler.pid}/fd")) - 1)
        self.assertGreater(limit, self.N_IDLE)
        self.finish(profiler)
        self.assertEqual(target.quit(), 0)

    def test_a_low_soft_limit_is_raised(self):
        self.check_works(self.limited("64:20000"))

    def test_a_low_hard_limit_is_raised_by_who_may(self):
        if has_capability(CAP_SYS_RESOURCE):
            self.check_works(self.limited("64:64"))
        else:
            self.check_refused(self.limited("64:64"))

    def test_a_limit_that_cannot_be_raised_is_said(self):
        self.check_refused(("prlimit", "--nofile=64:64", "setpriv", "--bounding-set=-sys_resource", "--"))

    def check_refused(self, prefix):
        target = self.target("hammer", "--threads", "2", "--idle", str(self.N_IDLE))
        self.fails(
            1, ["file descriptors|open files|RLIMIT_NOFILE", "ulimit|LimitNOFILE|raise"],
            *self.DIRECT, *self.attach(target.pid), prefix=prefix,
        )  # fmt: skip
        self.assert_clean_text(target)
        self.assertEqual(target.quit(), 0)

    def test_the_kernel_sampler_does_with_few(self):
        target = self.target("hammer", "--threads", "2", "--idle", str(self.N_IDLE))
        profiler = self.profile(target, "--sampler", "kernel", prefix=("prlimit", "--nofile=100:100",
                                "setpriv", "--bounding-set=-sys_resource", "--"))  # fmt: skip
        self.finish(profiler)
        self.assertEqual(target.quit(), 0)


class KernelSamplerTest(BadInputTest):
    """Who must not load BPF programs: the direct sampler does it, and says why it is the one."""

    NO_BPF = ("setpriv", "--bounding-set=-bpf,-sys_admin", "--inh-caps=-bpf,-sys_admin", "--")

    def test_without_the_right_to_bpf_the_direct_sampler_takes_its_place(self):
        target = self.target("hammer")
        profiler = self.profile(target, "--sampler", "auto", prefix=self.NO_BPF)
        self.assertRegex(profiler.stderr, "sampler: direct; loading BPF programs: .*CAP_BPF")
        self.finish(profiler)
        for profile in profiler.profiles():
            self.assertRegex(profile.comment().text("sampler"), "^direct ")
        self.assertEqual(target.quit(), 0)

    def test_the_kernel_sampler_alone_is_refused(self):
        target = self.target("hammer")
        self.fails(1, ["CAP_BPF", "--sampler direct"], "--sampler", "kernel",
                   *self.attach(target.pid), prefix=self.NO_BPF)  # fmt: skip
        self.assert_clean_text(target)
        self.assertEqual(target.quit(), 0)

    def test_it_is_the_one_that_is_taken(self):
        target = self.target("hammer")
        profiler = self.profile(target, "--sampler", "auto")
        self.assertRegex(profiler.stderr, r"\): sampler: kernel\b")
        self.finish(profiler)


class CorruptFileTest(BadInputTest):
    """A program that runs well, and whose file lies about itself in all that only others read."""

    SECTIONS = (".symtab", ".strtab", ".eh_frame", ".debug_info", ".debug_abbrev", ".debug_line", ".debug_str")

    def corrupt_copy(self, seed):
        path = os.path.join(self.directory, f"waits-{seed}")
        shutil.copy(os.path.join(TARGETS, "waits"), path)
        headers = subprocess.run(
            ["readelf", "-SW", path], check=True, capture_output=True, text=True
        ).stdout  # fmt: skip
        random_ = random.Random(seed)
        n_sections = 0
        with open(path, "r+b") as file:
            for line in headers.splitlines():
                words = line.partition("]")[2].split()
                if not words or words[0] not in self.SECTIONS:
                    continue
                start, size = int(words[3], 16), int(words[4], 16)
                n_sections += 1
                for _ in range(max(1, size // 40)):
                    file.seek(start + random_.randrange(size))
                    file.write(bytes([random_.randrange(256)]))
        self.assertEqual(n_sections, len(self.SECTIONS))
        return path

    def test_corrupt_elf_dwarf_and_cfi_cost_names_and_nothing_else(self):
        for seed in range(6):
            target = self.target("waits", path=self.corrupt_copy(seed))
            profiler = self.profile(target, "-e", "heap,mutex,block", "--block-rate", "1ns", "-i", "1h")
            target.ask("go mutex,crowd 20 2000")
            profiler.stop()
            self.assertEqual(profiler.wait(), 0, profiler.stderr)
            profiles = {FILE_NAME.match(os.path.basename(p.path))["profile"]: p for p in profiler.profiles()}
            self.assertEqual(sorted(profiles), ["block", "heap", "mutex"])
            for profile in profiles.values():
                Raw(profile.path)
            block = profiles["block"]
            self.assertGreaterEqual(block.totals()[0], 20)
            # The C library's names are as ever.
            names = {name for sample in block.samples for name in block.names(sample)}
            self.assertTrue({"pthread_mutex_lock", "__pthread_mutex_lock", "___pthread_mutex_lock"} & names, names)
            self.assertEqual(target.quit(), 0)


if __name__ == "__main__":
    main()
