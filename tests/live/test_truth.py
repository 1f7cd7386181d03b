#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Exact truth: with --heap-rate 1 a profile equals the target's own count, to the object and the byte."""

import os
import subprocess

from harness import TARGETS, LiveTest, expected_stacks, main, poll
from profiles import HEAP_TYPES, Raw, sum_comments, sum_stacks

EXACT = ("--heap-rate", "1", "-i", "500ms")

# A slice that the rings hold whole, with copies of the stack, even if the profiler does not run meanwhile.
N_SLICE = 1500


class TruthTest(LiveTest):
    def check_balance(self, profiles, report):
        """sampled + skipped + lost = calls made, and every record accounted for."""
        # A product that overflows is refused before anything is drawn.
        overflowed = report["failed"]["leaf_calloc"] + report["failed"]["leaf_reallocarray"]
        failed = sum(report["failed"].values()) + report["zeroed"]
        calls = report["made"] + failed - overflowed
        allocations = sum_comments(profiles, "allocations")
        self.assertEqual(allocations["seen"], calls, allocations)
        self.assertEqual(allocations["sampled"], calls, allocations)
        self.assertEqual(allocations["skipped"], 0, allocations)
        self.assertEqual(allocations["failed"], failed, allocations)
        entries = profiles[-1].comment().numbers("entries since attach")
        self.assertEqual(entries["lost"], 0, "the run must be without loss")
        self.assertEqual(entries["returned"], report["made"], entries)
        self.assertEqual(entries["failed"], failed, entries)
        self.assert_nothing_odd(profiles)

    def check_profiles(self, profiles, report, untracked=(), alone=True):
        found = sum_stacks(profiles, "worker_main")
        if not alone:
            found.pop(None, None)
        expected = expected_stacks(report)
        for stack, held in expected.items():
            # Objects that cannot be followed: allocated yes, in use none of them or what is held.
            if stack[0] in untracked and found.get(stack, [0] * 4)[2:] == [0, 0]:
                expected[stack] = held[:2] + [0, 0]
        self.assert_stacks(found, {k: v for k, v in expected.items() if any(v)})

    def run_truth(self, target, rounds, per_round, **check):
        profiler = self.profile(target, *EXACT)
        for _ in range(rounds):
            target.go_slowly(per_round, N_SLICE, profiler)
            report = target.ask("report")
            self.check_profiles(profiler.wait_covered(), report, **check)
        self.finish(profiler)
        profiles = profiler.profiles()
        self.check_profiles(profiles, report, **check)
        self.check_balance(profiles, report)
        return profiles, report

    def test_a_million_allocations_of_eight_threads_are_counted_to_the_byte(self):
        target = self.target("truth")
        profiles, report = self.run_truth(target, rounds=4, per_round=250_000)
        self.assertEqual(report["made"], 1_000_000)
        for key in ("freed_elsewhere", "moved", "in_place", "to_zero", "free_null"):
            self.assertGreater(report[key], 100, key)
        self.assertGreater(min(report["failed"].values()), 100)
        self.assertGreater(len(profiles), 4)
        self.assertEqual(target.quit(), 0)
        self.check_oracle(profiles, report)

    def check_oracle(self, profiles, report):
        """The same by go tool pprof: each file alone, and all merged by it."""
        expected = expected_stacks(report)
        alloc, last = {}, {}
        for profile in profiles:
            raw = Raw(profile.path)
            self.assertEqual(raw.types, HEAP_TYPES)
            last = raw.by_stack("worker_main")
            self.assert_stacks(last, profile.by_stack("worker_main"), "pprof against our reading")
            for key, values in last.items():
                old = alloc.get(key, [0, 0])
                alloc[key] = [old[0] + values[0], old[1] + values[1]]
        found = {key: values + last.get(key, [0] * 4)[2:] for key, values in alloc.items()}
        self.assert_stacks(found, expected, "sum over the files")
        merged = Raw(*(profile.path for profile in profiles)).by_stack("worker_main")
        self.assert_stacks(
            {key: values[:2] for key, values in merged.items() if any(values[:2])},
            {key: values[:2] for key, values in expected.items() if any(values[:2])},
            "merged by pprof",
        )

    def test_a_program_at_a_fixed_address_is_counted(self):
        self.run_truth(self.target("truth-nopie"), 2, 40_000)

    def test_a_static_program_is_counted(self):
        self.run_truth(self.target("truth-static"), 2, 40_000)

    def test_a_static_position_independent_program_is_counted(self):
        self.run_truth(self.target("truth-static-pie"), 2, 40_000)

    def test_a_static_musl_program_is_counted(self):
        self.run_truth(self.target("truth-musl"), 2, 40_000)

    def test_a_static_program_with_jemalloc_is_counted(self):
        self.run_truth(
            self.target("truth-static-jemalloc"), 2, 40_000, untracked=["leaf_posix_memalign"]
        )

    def test_preloaded_jemalloc_is_counted(self):
        # It has no pvalloc: glibc's would hand out what jemalloc's free does not know.
        target = self.target("truth", "--without", "pvalloc", preload="libjemalloc.so.2")
        self.run_truth(target, 2, 40_000, untracked=["leaf_posix_memalign"])

    def test_preloaded_tcmalloc_is_counted(self):
        target = self.target("truth", preload="libtcmalloc_minimal.so.4")
        self.run_truth(target, 2, 40_000, untracked=["leaf_posix_memalign"])

    def test_preloaded_mimalloc_is_counted(self):
        target = self.target("truth", preload="libmimalloc.so.2")
        self.run_truth(target, 2, 40_000, untracked=["leaf_posix_memalign"])

    def test_in_use_is_what_was_allocated_since_the_attach(self):
        """Objects from before the attach are in no profile, not even when they are freed or resized."""
        target = self.target("truth")
        target.ask("go 50000")
        before = expected_stacks(target.ask("report"))
        profiler = self.profile(target, *EXACT)
        target.go_slowly(50_000, N_SLICE, profiler)
        after = expected_stacks(target.ask("report"))
        self.finish(profiler)
        found = sum_stacks(profiler.profiles(), "worker_main")
        for key, values in after.items():
            old = before.get(key, [0] * 4)
            self.assertEqual(found.get(key, [0] * 4)[:2], [a - b for a, b in zip(values, old)][:2], key)
            self.assertLessEqual(found.get(key, [0] * 4)[3], values[3], key)
            self.assertGreaterEqual(found.get(key, [0] * 4)[3], values[3] - old[3], key)

    def test_a_tail_call_shows_the_caller_of_the_wrapper(self):
        code = subprocess.run(
            ["objdump", "-d", "--disassemble=tail_wrapper", os.path.join(TARGETS, "tailcall")],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        self.assertRegex(code, r"jmp\s+\S+ <malloc@plt>", "the target's wrapper does not jump")
        target = self.target("tailcall")
        profiler = self.profile(target, *EXACT)
        answer = target.ask("go 5000")
        self.finish(profiler)
        profiles = profiler.profiles()
        self.assert_nothing_odd(profiles)
        found = sum_stacks(profiles, "main")
        self.assert_stacks(found, expected_stacks(answer))
        merged = Raw(*(p.path for p in profiles)).by_stack("main")
        self.assertNotIn("tail_wrapper", [name for stack in merged for name in stack or ()])

    def churn_stacks(self, profiles, root):
        """leaf_churn's own; what pthread_create allocates is not counted by the target."""
        found = sum_stacks(profiles, root)
        return {(key[0], key[-1]): v for key, v in found.items() if key and key[0] == "leaf_churn"}

    def test_threads_are_counted_from_their_first_allocation(self):
        target = self.target("churn")
        profiler = self.profile(target, *EXACT)
        for _ in range(3):
            answer = target.ask("go 400")
            found = self.churn_stacks(profiler.wait_covered(), "churn_main")
            self.assert_stacks(found, expected_stacks(answer))
        self.finish(profiler)
        self.assert_nothing_odd(profiler.profiles())
        found = self.churn_stacks(profiler.profiles(), "churn_main")
        self.assert_stacks(found, expected_stacks(answer))

    def test_short_threads_are_counted_when_the_attach_falls_among_them(self):
        target = self.target("churn")
        target.say("go 3000")
        profiler = self.profile(target, *EXACT)
        before = target.answer()
        after = target.ask("go 400")
        self.finish(profiler)
        found = self.churn_stacks(profiler.profiles(), "churn_main")["leaf_churn", "churn_main"]
        old, new = before["stacks"][0]["values"], after["stacks"][0]["values"]
        self.assertGreaterEqual(found[0], new[0] - old[0])
        self.assertLessEqual(found[0], new[0])
        self.assertEqual(found[1], found[0] * 100)
        # What stays of each thread: at most its 4, and of the later threads exactly these.
        self.assertGreaterEqual(found[2], new[2] - old[2])
        self.assertLessEqual(found[2], new[2])

    def test_threads_that_are_created_during_the_attach_are_counted_once(self):
        """Such a thread may have inherited events and be found in /proc as well: counted twice, or never."""
        n_twice = 0
        for n_before in (60, 60, 60, 300, 300):
            target = self.target("churn")
            # With many threads to open events on, the attach takes long enough to fall into the middle.
            target.ask(f"spawn {n_before}")
            profiler = self.profile(target, *EXACT, "--sampler", "direct", attached=False)
            poll(lambda p=profiler: len(os.listdir(f"/proc/{p.pid}/fd")) > 80, "events", every_s=0.001)
            target.ask(f"spawn {n_before}")
            profiler.wait_attached()
            target.ask("work")
            answer = target.ask("work")
            self.finish(profiler)
            found = self.churn_stacks(profiler.profiles(), "stay_main")
            self.assert_stacks(found, expected_stacks(answer))
            # A return without its entry is a call that was in flight at the attach; nothing else is odd.
            self.assertEqual(sum_comments(profiler.profiles(), "allocations")["abandoned"], 0)
            self.assert_accounted(profiler.profiles()[-1])
            self.assertEqual(target.quit(), 0)
            last = profiler.profiles()[-1].comment().numbers("records since attach")
            n_twice += last["duplicate"]
        self.assertGreater(n_twice, 0, "no thread was both found and inherited: nothing was tested")

    def test_the_allocation_function_itself_is_the_leaf_that_pprof_hides(self):
        target = self.target("truth")
        profiler = self.profile(target, *EXACT)
        target.go_slowly(8000, N_SLICE, profiler)
        report = target.ask("report")
        self.finish(profiler)
        function_of = {tuple(s["stack"]): s["function"] for s in report["stacks"]}
        # One address may carry two names: memalign and aligned_alloc are one function in glibc.
        alike = {"memalign": "aligned_alloc"}
        n_seen = 0
        for profile in profiler.profiles():
            self.assertTrue(profile.drop_frames)
            for sample in profile.samples:
                leaf, *rest = profile.names(sample)
                function = function_of[tuple(rest[: rest.index("worker_main") + 1])]
                self.assertEqual(alike.get(leaf, leaf), alike.get(function, function))
                n_seen += 1
        self.assertGreater(n_seen, 50)


if __name__ == "__main__":
    main()
