#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Heap profiles from entries alone: of Go programs, and of others as where returns must not be probed."""

import collections
import os
import subprocess
import tempfile

from harness import PATIENCE_S, SAMPLER, SAMPLERS, LineReader, LiveTest, Profiler, expected_stacks, main
from profiles import Profile, sum_stacks

ENTRIES_PROFILE = os.environ.get("DP_ENTRIES_PROFILE", "")

# A slice that the rings hold whole, with copies of the stack.
N_SLICE = 1500

# Their failed calls can be told: a product that overflows.
CERTAIN = ("leaf_calloc", "leaf_reallocarray")
RESIZES = ("leaf_realloc", "leaf_reallocarray")


class EntriesProfiler:
    """tests/entries_profile.c on one process, for the tests' own use of Profiler's waiting."""

    wait_idle = Profiler.wait_idle

    def __init__(self, pid, stacks, sampler):
        self._directory = tempfile.TemporaryDirectory(prefix="dp-entries-")
        self._process = subprocess.Popen(
            [ENTRIES_PROFILE, str(pid), self._directory.name, stacks, sampler, "1"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self._process.pid
        self._reader = LineReader(self._process.stdout)
        self._reader.wait(lambda line: line == "attached", "entries_profile to attach")

    def stop(self):
        """Its exit status and its profile."""
        self._process.stdin.close()
        status = self._process.wait(PATIENCE_S)
        self._reader.close()
        profile = Profile(os.path.join(self._directory.name, "entries.pb.gz")) if status == 0 else None
        self._directory.cleanup()
        return status, profile

    def end(self):
        if self._process.poll() is None:
            self._process.kill()
            self.stop()


class EntriesCase(LiveTest):
    def entries(self, target, stacks, sampler):
        profiler = EntriesProfiler(target.pid, stacks, sampler)
        self.addCleanup(profiler.end)
        return profiler

    def check_comments(self, profile, why):
        self.assertRegex(profile.comment().text("in use"), f"^not known, .*{why}")
        self.assertNotIn("live objects", profile.comment().texts)
        records = profile.comment().numbers("records since attach")
        self.assertEqual(records["hit"], records["delivered"] + records["duplicate"], records)
        self.assert_accounted(profile)

    def check_truth(self, profile, report):
        """Per stack for what cannot fail unseen; for the rest per function, with the failed calls."""
        found = sum_stacks([profile], "worker_main")
        expected = expected_stacks(report)
        by_leaf, made_by_leaf = collections.Counter(), collections.Counter(report["failed"])
        self.assertNotIn(None, found, [profile.names(sample) for sample in profile.samples
                                       if "worker_main" not in profile.names(sample)])  # fmt: skip
        for stack, values in found.items():
            self.assertEqual(values[2:], [0, 0], stack)
            by_leaf[stack[0]] += values[0]
        # A resize to nothing is taken to free; some allocators give an empty object for it.
        n_empty = report["to_zero"] - report["zeroed"]
        n_missed = 0
        for stack, values in expected.items():
            made_by_leaf[stack[0]] += values[0]
            if stack[0] in RESIZES:
                n_missed += max(values[0] - found[stack][0], 0)
            elif stack[0] in CERTAIN:
                self.assertEqual(found[stack][:2], values[:2], stack)
            else:
                self.assertGreaterEqual(found[stack][0], values[0], stack)
            self.assertGreaterEqual(found[stack][1], values[1], stack)
        self.assertLessEqual(n_missed, n_empty)
        for leaf in CERTAIN:
            made_by_leaf[leaf] -= report["failed"][leaf]
        resized = sum(made_by_leaf.pop(leaf) for leaf in RESIZES)
        self.assertEqual(sum(by_leaf.pop(leaf) for leaf in RESIZES), resized - n_empty)
        self.assertEqual(+by_leaf, +made_by_leaf)
        allocations = profile.comment().numbers("allocations")
        self.assertEqual(
            allocations["sampled"], made_by_leaf.total() + resized - n_empty, allocations
        )
        self.assertEqual(
            allocations["failed"],
            sum(report["failed"][leaf] for leaf in CERTAIN) + report["to_zero"],
            allocations,
        )

    def run_truth(self, target, stacks="copied", n=20_000, sampler=SAMPLER):
        profiler = self.entries(target, stacks, sampler)
        target.go_slowly(n, N_SLICE, profiler)
        report = target.ask("report")
        status, profile = profiler.stop()
        self.assertEqual(status, 0)
        self.check_comments(profile, "switched off")
        if not sampler:
            self.assertIn("kernel" if "kernel" in SAMPLERS else "direct", profile.comment().text("sampler"))
        self.check_truth(profile, report)
        self.assertEqual(profile.comment().numbers("allocations")["abandoned"], 0)
        self.assert_clean_text(target)
        self.assertEqual(target.quit(), 0)
        return profile


class EntriesTest(EntriesCase):
    def test_every_call_is_counted_once(self):
        profile = self.run_truth(self.target("truth"))
        # glibc's reallocarray jumps to realloc, and that to malloc.
        self.assertGreater(profile.comment().numbers("allocations")["nested"], 1000)

    def test_every_call_is_counted_once_with_callchains(self):
        self.run_truth(self.target("truth"), "callchain")

    def test_calls_of_a_static_program_are_counted(self):
        self.run_truth(self.target("truth-static"))

    def test_calls_of_a_static_musl_program_are_counted(self):
        self.run_truth(self.target("truth-musl"))

    def test_calls_of_preloaded_jemalloc_are_counted(self):
        target = self.target("truth", "--without", "pvalloc", preload="libjemalloc.so.2")
        self.run_truth(target)

    def test_calls_of_preloaded_tcmalloc_are_counted(self):
        self.run_truth(self.target("truth", preload="libtcmalloc_minimal.so.4"))

    def test_calls_of_preloaded_mimalloc_are_counted(self):
        self.run_truth(self.target("truth", preload="libmimalloc.so.2"))

    def test_a_go_programs_c_allocations_are_counted_and_its_stacks_may_move(self):
        target = self.target("cgo")
        target.ask("go 20")
        before = target.ask("report")
        profiler = self.profile(target, "-e", "cheap", "--heap-rate", "1", "-i", "500ms")
        profiler.wait_line(r"\(cgo\): it is a Go program", "the line about what is in use")
        for _ in range(20):
            target.ask("go 20")
            profiler.wait_idle()
        after = target.ask("report")
        self.finish(profiler)
        profiles = profiler.profiles()
        found = sum_stacks(profiles, "c_allocate")
        self.assertEqual(
            found[("c_allocate",)],
            [after["calls"] - before["calls"], after["bytes"] - before["bytes"], 0, 0],
        )
        self.check_comments(profiles[-1], "Go program")
        if not SAMPLER:
            self.assertIn("kernel" if "kernel" in SAMPLERS else "direct", profiles[-1].comment().text("sampler"))
        self.assertEqual(sum_stacks(profiles, "c_enter")[("c_allocate", "c_enter")], found[("c_allocate",)])
        target.ask("go 100")
        self.assertEqual(target.quit(), 0)

    def test_nothing_is_said_about_a_program_whose_returns_are_probed(self):
        target = self.target("truth")
        profiler = self.profile(target)
        self.finish(profiler)
        self.assertNotIn("in use", profiler.stderr)
        self.assertNotIn("in use", profiler.profiles()[-1].comment().texts)

    def test_quiet_says_nothing(self):
        target = self.target("cgo")
        profiler = self.profile(target, "-q", "-d", "200ms", verbose=False, attached=False)
        self.assertEqual(profiler.wait(), 0)
        self.assertEqual(profiler.stderr, "")


class EventsTest(EntriesCase):
    """As on kernels without sessions."""

    SAMPLER = "kernel"

    def test_every_call_is_counted_once(self):
        self.run_truth(self.target("truth"), sampler="kernel events")


if __name__ == "__main__":
    main()
