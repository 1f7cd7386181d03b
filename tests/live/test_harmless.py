#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The target is never harmed: not when the profiler is killed, and not when the target itself goes."""

import glob
import json
import os
import signal
import subprocess
import time

from harness import (
    SAMPLER,
    LiveTest,
    changed_text,
    definitions_of,
    expected_stacks,
    main,
    poll,
    process_state,
)
from profiles import Raw, sum_comments, sum_stacks

EXACT = ("--heap-rate", "1", "-i", "300ms")


class KilledProfilerTest(LiveTest):
    def pairs_grow(self, target, n=2000):
        start = target.ask("report")["pairs"]
        poll(lambda: target.ask("report")["pairs"] > start + n, "the target to go on counting")

    def assert_swept(self):
        self.assertEqual([line for p in self.profilers for line in definitions_of(p.pid)], [])

    def bpf_programs(self):
        """The numbers of all BPF programs of our names that the kernel holds."""
        shown = subprocess.run(["bpftool", "-j", "prog", "show"], capture_output=True, text=True, check=True)
        names = {"session", "freed_link", "entered", "returned", "freed", "futex_exit", "wakes", "thread_exit"}
        return {program["id"] for program in json.loads(shown.stdout) if program.get("name") in names}

    def kill_and_check(self, name, n_rounds):
        before = self.bpf_programs()
        target = self.target(name, "--threads", "3")
        target.ask("go")
        for _ in range(n_rounds):
            profiler = self.profile(target, *EXACT)
            self.assertNotEqual(changed_text(target.pid), [], "no breakpoint while attached")
            if SAMPLER == "direct":
                self.assertNotEqual(definitions_of(profiler.pid), [], "no definition while attached")
            else:
                programs = self.bpf_programs() - before
                self.assertTrue(programs, "no BPF program while attached")
            self.pairs_grow(target)
            os.kill(profiler.pid, signal.SIGKILL)
            self.assertEqual(profiler.wait(), -signal.SIGKILL)
            self.assert_clean_text(target)
            if SAMPLER != "direct":
                poll(lambda p=programs: not self.bpf_programs() & p, "the BPF programs to go")
            self.pairs_grow(target)
            # Nothing half-written under a final name: every file that is there is whole.
            profiler.profiles()
        # The next start sweeps what the dead left, whoever they profiled.
        self.finish(self.profile(target, *EXACT))
        self.assert_swept()
        self.pairs_grow(target)
        target.ask("stop")
        self.assertEqual(target.quit(), 0)

    def test_a_killed_profiler_leaves_no_breakpoint_and_the_next_sweeps_its_definitions(self):
        self.kill_and_check("hammer", 4)

    def test_the_same_for_a_static_program(self):
        self.kill_and_check("hammer-static", 2)

    def has_begun(self, profiler):
        """Whether probes are being put in: by definitions, or by links of BPF programs."""
        if SAMPLER == "direct":
            return definitions_of(profiler.pid)
        for link in glob.glob(f"/proc/{profiler.pid}/fd/*"):
            try:
                if "bpf_link" in os.readlink(link):
                    return True
            except FileNotFoundError:
                pass
        return False

    def test_a_profiler_that_is_killed_while_it_attaches_leaves_no_breakpoint(self):
        target = self.target("hammer", "--threads", "2", "--idle", "100")
        target.ask("go")
        for _ in range(12):
            profiler = self.profile(target, *EXACT, attached=False)
            poll(lambda p=profiler: self.has_begun(p) or not p.running(), "the first probe",
                 every_s=0.001)  # fmt: skip
            self.assertTrue(profiler.running(), profiler.stderr)
            os.kill(profiler.pid, signal.SIGKILL)
            profiler.wait()
            self.assert_clean_text(target)
        self.pairs_grow(target)
        self.finish(self.profile(target, *EXACT))
        self.assert_swept()

    def test_two_profilers_on_one_process_do_not_disturb_one_another(self):
        target = self.target("truth")
        first = self.profile(target, *EXACT)
        second = self.profile(target, *EXACT)
        target.go_slowly(8000, 2000, first)
        second.wait_idle()
        self.finish_one(first)
        expected = expected_stacks(target.ask("report"))
        self.assert_stacks(sum_stacks(first.profiles(), "worker_main"), expected, "first")
        target.go_slowly(8000, 2000, second)
        report = target.ask("report")
        self.finish(second)
        self.assert_stacks(
            sum_stacks(second.profiles(), "worker_main"), expected_stacks(report), "second"
        )

    def finish_one(self, profiler):
        """Like finish(), while another profiler's breakpoints are still there."""
        self.assertEqual(profiler.stop(), 0, profiler.stderr)
        self.assertEqual(definitions_of(profiler.pid), [])

    def test_a_program_that_is_not_watched_but_maps_the_same_library_has_no_breakpoint(self):
        bystander, target = self.target("hammer"), self.target("hammer")
        bystander.ask("go")
        target.ask("go")
        profiler = self.profile(target, *EXACT)
        self.assertNotEqual(changed_text(target.pid), [])
        self.assertEqual(changed_text(bystander.pid), [])
        self.finish(profiler)


class OverloadTest(LiveTest):
    """A profiler that does not keep up: made certain by stopping it until the rings are full."""

    def overrun(self, profiler, work):
        profiler.send_signal(signal.SIGSTOP)
        poll(lambda: process_state(profiler.pid) == "T", "the profiler to stop")
        work()
        profiler.send_signal(signal.SIGCONT)
        profiler.wait_idle()

    def test_calls_that_were_lost_are_counted(self):
        target = self.target("hammer", "--threads", "4")
        profiler = self.profile(target, *EXACT)
        start = target.ask("report")["pairs"]

        def work():
            end = target.ask("go")["pairs"] + 200_000
            poll(lambda: target.ask("report")["pairs"] > end, "200 000 pairs", timeout_s=120)
            target.ask("stop")

        self.overrun(profiler, work)
        work()
        made = target.ask("report")["pairs"] - start
        self.finish(profiler)
        profiles = profiler.profiles()
        self.assert_accounted(profiles[-1])
        allocations = sum_comments(profiles, "allocations")
        entries = profiles[-1].comment().numbers("entries since attach")
        # hammer calls malloc alone, so every entry is a call of its own.
        self.assertEqual(entries["hit"], made, entries)
        self.assertGreater(entries["lost"], 1000)
        self.assertGreater(sum_comments(profiles, "records")["lost"], entries["lost"])
        self.assertEqual(
            allocations["sampled"] + allocations["skipped"] + entries["lost"] + entries["noroom"], made
        )
        # A call whose return was lost may have failed: it is told apart and not counted.
        objects = sum(p.totals()[0] for p in profiles)
        unknown = sum(allocations[word] for word in ("abandoned", "forgotten"))
        self.assertEqual(objects, allocations["sampled"] - unknown)
        for profile in profiles:
            self.assertTrue(all(v >= 0 for s in profile.samples for v in s.values))

    def test_what_was_lost_does_not_spoil_what_comes_later(self):
        target = self.target("truth")
        profiler = self.profile(target, *EXACT)
        self.overrun(profiler, lambda: target.ask("go 100000"))

        def is_told():
            """The kernel tells of a loss with the next record on that CPU: it may be in no profile yet."""
            target.ask("go 500")
            profiles = profiler.wait_covered()
            total = profiles[-1].comment().numbers("records since attach")
            return sum_comments(profiles, "records")["lost"] >= total["lost"] > 1000

        poll(is_told, "the loss to be told")
        before = target.ask("report")
        found_before = sum_stacks(profiler.wait_covered(), "worker_main")
        target.go_slowly(20_000, 2000, profiler)
        after = expected_stacks(target.ask("report"))
        self.finish(profiler)
        profiles = profiler.profiles()
        self.assert_accounted(profiles[-1])
        found_after = sum_stacks(profiles, "worker_main")
        self.assert_stacks(
            grown(found_after, found_before), grown(after, expected_stacks(before)), "after the loss"
        )

    def test_a_stopped_profiler_does_not_stop_the_target(self):
        target = self.target("hammer", "--threads", "2")
        profiler = self.profile(target, *EXACT)

        def work():
            start = target.ask("go")["pairs"]
            poll(lambda: target.ask("report")["pairs"] > start + 50_000, "the target to go on")
            target.ask("stop")

        self.overrun(profiler, work)
        self.finish(profiler)


def grown(after, before):
    """How much alloc_* grew, by stack."""
    growth = {k: [a - b for a, b in zip(v[:2], before.get(k, [0, 0]))] for k, v in after.items()}
    return {key: values for key, values in growth.items() if any(values)}


class LifecycleTest(LiveTest):
    def watch(self, mode):
        target = self.target("lifecycle", mode)
        return target, self.profile(target, *EXACT)

    def check_files(self, profiler, expected):
        """All files whole by both readers, and in sum the stacks that are expected (others allowed)."""
        profiles = profiler.profiles()
        self.assertTrue(profiles, profiler.stderr)
        for profile in profiles:
            Raw(profile.path)
        self.assertEqual(
            [name for name in os.listdir(profiler.directory) if not name.endswith(".pb.gz")], []
        )
        found = sum_stacks(profiles, "life_run")
        found.pop(None, None)
        self.assert_stacks(found, expected)

    def test_the_target_exits(self):
        target, profiler = self.watch("exit")
        expected = expected_stacks(target.ask("go"))
        self.assertEqual(target.wait(), 0)
        self.assertEqual(profiler.wait(), 0, profiler.stderr)
        self.assert_no_trace(profiler)
        self.check_files(profiler, expected)

    def test_the_target_is_killed(self):
        target, profiler = self.watch("wait")
        expected = expected_stacks(target.ask("go"))
        target.send_signal(signal.SIGKILL)
        self.assertEqual(target.wait(), -signal.SIGKILL)
        self.assertEqual(profiler.wait(), 0, profiler.stderr)
        self.assert_no_trace(profiler)
        self.check_files(profiler, expected)

    def test_the_target_is_killed_while_all_threads_allocate(self):
        target = self.target("hammer", "--threads", "4")
        profiler = self.profile(target, *EXACT)
        target.ask("go")
        profiler.wait_profiles(lambda profiles: len(profiles) >= 2, "two profiles")
        target.send_signal(signal.SIGKILL)
        target.wait()
        self.assertEqual(profiler.wait(), 0, profiler.stderr)
        self.assert_no_trace(profiler)
        for profile in profiler.profiles():
            Raw(profile.path)

    def test_the_target_dies_of_a_stop_and_an_abort(self):
        target, profiler = self.watch("wait")
        expected = expected_stacks(target.ask("go"))
        target.send_signal(signal.SIGSTOP)
        poll(lambda: process_state(target.pid) == "T", "the target to stop")
        profiler.wait_covered()
        target.send_signal(signal.SIGABRT)
        target.send_signal(signal.SIGCONT)
        self.assertEqual(target.wait(), -signal.SIGABRT)
        self.assertEqual(profiler.wait(), 0, profiler.stderr)
        self.check_files(profiler, expected)

    def check_exec(self, profiler, expected):
        """The profile ends where the program ends; what the new one allocates is not this one's."""
        self.assertEqual(profiler.wait(), 0, profiler.stderr)
        self.assert_no_trace(profiler)
        self.check_files(profiler, expected)

    def test_an_end_at_any_moment_of_an_interval_is_noticed(self):
        """It may be taken in while a profile is being made, as well as between two."""
        for i in range(20):
            # The one goes on as another program, which wakes nobody; the other is gone at once.
            target = self.target("lifecycle", ("exec", "exit")[i % 2])
            profiler = self.profile(target, "-i", "100ms", "--heap-rate", "1")
            time.sleep(i * 0.005)  # another phase of the interval each time
            expected = expected_stacks(target.ask("go"))
            self.assertEqual(profiler.wait(), 0, profiler.stderr)
            self.check_files(profiler, expected)

    def test_the_target_executes_itself_again(self):
        target, profiler = self.watch("exec")
        expected = expected_stacks(target.ask("go"))
        self.assertEqual(list(expected_stacks(target.answer())), [("leaf_after", "life_run")])
        self.check_exec(profiler, expected)
        self.assertIn("executed another program", profiler.stderr)
        self.assertEqual(target.quit(), 0)

    def test_the_target_executes_another_program(self):
        target, profiler = self.watch("exec-true")
        expected = expected_stacks(target.ask("go"))
        self.assertEqual(target.wait(), 0)
        self.check_exec(profiler, expected)

    def check_children(self, mode):
        target, profiler = self.watch(mode)
        expected = expected_stacks(target.ask("go"))  # an answer says that all children ended well
        profiler.wait_covered()
        self.finish(profiler)
        self.check_files(profiler, expected)
        self.assertEqual(target.quit(), 0)

    def test_forked_children_allocate_and_are_not_counted(self):
        self.check_children("fork")

    def test_spawned_children_are_not_disturbed(self):
        self.check_children("spawn")

    def test_a_forked_child_outlives_the_profiler(self):
        """Its copy of the code has the breakpoints too; they go with the profiler's events."""
        target, profiler = self.watch("fork-wait")
        child = target.ask("go")["child"]
        self.finish(profiler)
        poll(lambda: not changed_text(child), "clean text of the child", timeout_s=20)
        self.assertEqual(target.ask("quit")["child_status"], 0)
        self.assertEqual(target.wait(), 0)

    def test_the_main_thread_alone_exits(self):
        target, profiler = self.watch("mainexit")
        self.assertTrue(target.ask("leave")["left"])
        poll(lambda: process_state(target.pid, target.pid) == "Z", "the main thread to end")
        for _ in range(2):
            # Whose detach makes the kernel ask again whom the breakpoints of the C library are for.
            other = self.target("hammer")
            self.assertEqual(self.profile(other, *EXACT).stop(), 0)
            expected = expected_stacks(target.ask("go"))
            found = sum_stacks(profiler.wait_covered(), "life_run")
            found.pop(None, None)
            self.assert_stacks(found, expected)
        target.say("quit")
        self.assertEqual(target.wait(), 0)
        self.assertEqual(profiler.wait(), 0, profiler.stderr)
        self.assert_no_trace(profiler)
        self.check_files(profiler, expected)

    def test_attaching_after_the_main_thread_exited(self):
        target = self.target("lifecycle", "mainexit")
        self.assertTrue(target.ask("leave")["left"])
        poll(lambda: process_state(target.pid, target.pid) == "Z", "the main thread to end")
        profiler = self.profile(target, *EXACT)
        expected = expected_stacks(target.ask("go"))
        self.finish(profiler)
        self.check_files(profiler, expected)

    def test_the_directory_of_the_profiler_holds_nothing_but_profiles(self):
        target, profiler = self.watch("wait")
        target.ask("go")
        profiler.wait_covered()
        self.finish(profiler)
        names = glob.glob(os.path.join(profiler.directory, ".*")) + os.listdir(profiler.directory)
        self.assertEqual([name for name in names if not name.endswith(".pb.gz")], [])


if __name__ == "__main__":
    main()
