#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Exact truth where threads come and go, with each sampler: to the object, the byte and the sleep."""

import os

from futex_trace import FutexTrace, n_slept
from harness import LiveTest, expected_stacks, main, poll, process_state
from profiles import Profile, sum_comments, sum_stacks
from test_contention import of_profile

EXACT = ("--heap-rate", "1", "-i", "1h")
# Where many allocate at once and the stacks are not what is tested: the rings hold more of these.
CHAINS = ("--stacks", "fp")
N_THREADS = 64
# Operations of a thread; then another one takes its place.
LIFE = 25
# As in test_truth: a slice that the rings hold whole, even if the profiler does not run meanwhile.
N_SLICE = 1500


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class ExactTests:
    """What is checked of each sampler."""

    def heap_of(self, profiler):
        return [Profile(p) for p in profiler.paths() if "-heap-" in os.path.basename(p)]

    def check_heap(self, profiles, report):
        found = sum_stacks(profiles, "worker_main")
        # What pthread_create() and the C library's own start of a thread allocate the target does not count.
        found = {key: values for key, values in found.items() if key and key[0].startswith("leaf_")}
        self.assert_stacks(found, expected_stacks(report))

    def run_churn(self, *args):
        """64 threads that live for 25 operations each and free each other's objects."""
        target = self.target("truth", "--threads", str(N_THREADS), "--life", str(LIFE))
        profiler = self.profile(target, *EXACT, *args)
        target.go_slowly(60_000, N_SLICE, profiler)
        report = target.ask("report")
        self.assertGreater(report["succeeded"], 1000)
        self.assertGreater(report["freed_elsewhere"], 1000)
        self.finish(profiler)
        self.assertEqual(target.quit(), 0)
        return profiler, report

    def test_allocations_of_threads_that_come_and_go(self):
        profiler, report = self.run_churn()
        self.check_heap(profiler.profiles(), report)
        self.assert_nothing_odd(profiler.profiles())

    def test_allocations_that_are_stopped_and_watched_again(self):
        """A second attach begins with what the first one left: no object of before is in it."""
        target = self.target("truth", "--threads", str(N_THREADS), "--life", str(LIFE))
        totals = [{}, {}]
        for i in range(2):
            profiler = self.profile(target, *EXACT)
            target.go_slowly(15_000, N_SLICE, profiler)
            self.finish(profiler)
            totals[i] = expected_stacks(target.ask("report"))
            found = sum_stacks(profiler.profiles(), "worker_main")
            for key, values in totals[i].items():
                made = [a - b for a, b in zip(values[:2], totals[i - 1].get(key, [0, 0])[:2])]
                self.assertEqual(found.get(key, [0, 0])[:2], made if i else values[:2], key)
                self.assertLessEqual(found.get(key, [0] * 4)[2], values[2], key)
            self.assert_nothing_odd(profiler.profiles())
        self.assertEqual(target.quit(), 0)

    def test_sleeps_of_threads_that_come_and_go(self):
        """Every sleep that the kernel traced is in block, while allocations are followed as well."""
        for _ in range(3):
            target = self.target("truth", "--threads", str(N_THREADS), "--life", str(LIFE))
            profiler = self.profile(target, *EXACT, "-e", "heap,mutex,block", "--block-rate", "1ns")
            trace = FutexTrace(target.pid)
            try:
                target.go_slowly(15_000, N_SLICE, profiler)
                traced = trace.stop(cut=True)
            finally:
                trace.remove()
            report = target.ask("report")
            self.finish(profiler)
            self.assertEqual(target.quit(), 0)
            (block,), (heap,) = of_profile(profiler, "block"), self.heap_of(profiler)
            if sum_comments([block], "records")["lost"] > 0:
                continue
            self.check_heap([heap], report)
            entries = heap.comment().numbers("entries since attach")
            self.assertEqual(entries.pop("hit"), sum(entries.values()), entries)
            waits = sum_comments([block], "waits")
            self.assertEqual(block.totals()[0], n_slept(traced), (waits, traced))
            self.assertGreater(block.totals()[0], 1000)
            for word in ("skipped", "forgotten", "noroom"):
                self.assertEqual(waits[word], 0, waits)
            return
        self.fail("records were lost three times")

    # ---- the main thread ends by pthread_exit() ----

    def check_orphans(self, target, profiler):
        """Two rounds of allocations by the threads that are left."""
        for _ in range(2):
            expected = expected_stacks(target.ask("go"))
        self.finish(profiler)
        found = sum_stacks(profiler.profiles(), "life_run")
        found.pop(None, None)
        self.assert_stacks(found, expected)
        self.assert_nothing_odd(profiler.profiles())
        self.assert_clean_text(target)

    def wait_left(self, target):
        self.assertTrue(target.answer()["left"])
        poll(lambda: process_state(target.pid, target.pid) == "Z", "the main thread to end")

    def test_the_main_thread_exits_before_the_attach(self):
        target = self.target("lifecycle", "mainexit")
        target.say("leave")
        self.wait_left(target)
        self.check_orphans(target, self.profile(target, *EXACT, *CHAINS))

    def test_the_main_thread_exits_during_the_attach(self):
        for n_open in (3, 6, 12, 24, 36):
            target = self.target("lifecycle", "mainexit")
            profiler = self.profile(target, *EXACT, *CHAINS, attached=False)
            poll(lambda p=profiler, n=n_open: open_files(p.pid) > n, "the attach", every_s=0.0005)
            target.say("leave")
            profiler.wait_attached()
            self.wait_left(target)
            self.check_orphans(target, profiler)

    def test_the_main_thread_exits_after_the_attach(self):
        target = self.target("lifecycle", "mainexit")
        profiler = self.profile(target, *EXACT, *CHAINS)
        target.say("leave")
        self.wait_left(target)
        self.check_orphans(target, profiler)

    # ---- many threads ----

    N_MANY = 2000

    def attach_to_many(self, n):
        """Attaches to a process of n threads; returns the number of descriptors that it took."""
        target = self.target("churn")
        self.assertEqual(target.ask(f"spawn {n}")["spawned"], n)
        profiler = self.profile(target, *EXACT, *CHAINS)
        n_open = open_files(profiler.pid)
        for _ in range(2):
            answer = target.ask("work")
            profiler.wait_idle()
        self.finish(profiler)
        found = sum_stacks(profiler.profiles(), "stay_main")
        found = {(key[0], key[-1]): v for key, v in found.items() if key and key[0] == "leaf_churn"}
        lost = sum_comments(profiler.profiles(), "records")["lost"]
        if lost == 0:
            self.assert_stacks(found, expected_stacks(answer))
        self.assert_accounted(profiler.profiles()[-1])
        return n_open, lost

    def test_two_thousand_threads(self):
        for _ in range(3):
            if self.attach_to_many(self.N_MANY)[1] == 0:
                return
        self.fail("records were lost three times")


class DirectTest(ExactTests, LiveTest):
    SAMPLER = "direct"


class KernelTest(ExactTests, LiveTest):
    SAMPLER = "kernel"

    def test_descriptors_do_not_depend_on_the_number_of_threads(self):
        few, many = (self.attach_to_many(n)[0] for n in (4, self.N_MANY))
        self.assertEqual(few, many)


if __name__ == "__main__":
    main()
