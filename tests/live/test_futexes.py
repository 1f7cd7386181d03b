#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every way to wait for a futex and to end such a wait, call by call, with each sampler.

The target is tests/targets/futexes.c: in each of its scenes it is known how often every waiter sleeps and
which function ends each sleep.
"""

from harness import LiveTest, main
from profiles import sum_comments
from test_contention import TYPES, of_profile

EXACT = ("-e", "mutex,block", "--block-rate", "1ns", "-i", "1h")
ROUNDS = 20
HOLD_US = 20_000


class FutexTests:
    """What is checked, of the scenes that the sampler is expected to see."""

    def play(self, which, *args):
        """Plays the scenes of these sorts, all at once: block, mutex, {scene: its truth}.

        A busy machine may keep the profiler from its rings for too long; exact is only what lost nothing, so
        there are three tries for that.
        """
        for _ in range(3):
            target = self.target("futexes")
            names = target.ask("names")
            names = [name for sort in which for name in names[sort]]
            profiler = self.profile(target, *EXACT, *args)
            target.ask(f"go {','.join(which)} {ROUNDS} {HOLD_US}")
            self.finish(profiler)
            report = target.ask("report")
            self.assertEqual(target.quit(), 0)
            (block,), (mutex,) = of_profile(profiler, "block"), of_profile(profiler, "mutex")
            if sum_comments([block], "records")["lost"] == 0:
                return block, mutex, {name: report[name] for name in names}
        self.fail("records were lost three times")
        return None

    def by_function(self, profile, root):
        """[contentions, delay] by (function that made the call, label); every stack must be whole."""
        found = {}
        self.assertEqual(profile.types, TYPES)
        for sample in profile.samples:
            names = profile.names(sample)
            self.assertIn(root, names)
            names = names[: names.index(root)]
            # The functions that make the call, which are for locks as far as a profile shows.
            callers = [name for name in names if name and name.startswith(self.CALLERS)]
            self.assertTrue(callers, names)
            key = callers[0], profile.label(sample)
            old = found.get(key, [0, 0])
            found[key] = [a + b for a, b in zip(old, sample.values)]
        return found

    CALLERS = ("wait_", "release_", "move_", "disturb_", "miss_")

    def check_block(self, block, truth):
        found = self.by_function(block, "waiter_main")
        expected = {
            (scene["waiter"], scene["label"]): scene["sleeps"] for scene in truth.values() if scene["sleeps"]
        }
        self.assertEqual({key: values[0] for key, values in found.items()}, expected)
        for name, scene in truth.items():
            if scene["sleeps"] == 0:
                continue
            delay = found[scene["waiter"], scene["label"]][1]
            # What is around the call is measured by the target, and by it only.
            self.assertLessEqual(delay, scene["waited_ns"], name)
            self.assertGreaterEqual(delay, 0.95 * scene["waited_ns"], name)
            self.assertGreaterEqual(delay, scene["held_ns"], name)
        return found

    def check_mutex(self, mutex, truth, waited):
        found = self.by_function(mutex, "releaser_main")
        expected = {
            (function, None): n for scene in truth.values() for function, n in scene["charged"].items()
        }
        self.assertEqual({key: values[0] for key, values in found.items()}, expected)
        for name, scene in truth.items():
            n = sum(scene["charged"].values())
            delay = sum(found[function, None][1] for function in scene["charged"])
            if n == scene["sleeps"]:
                # One wait, one delay: the same on both sides.
                self.assertEqual(delay, waited[scene["waiter"], "mutex"][1] if n else 0, name)
            else:
                self.assertLessEqual(delay, scene["waited_ns"], name)
            self.assertGreaterEqual(delay, n * HOLD_US * 1000, name)

    def check_counts(self, profile, truth):
        waits, ends = (sum_comments([profile], key) for key in ("waits", "wait ends"))
        n = sum(scene["sleeps"] for scene in truth.values())
        for word, expected in (("ended", n), ("sampled", n), ("skipped", 0), ("forgotten", 0),
                               ("unpaired", 0), ("noroom", 0)):  # fmt: skip
            self.assertEqual(waits[word], expected, waits)
        self.assertEqual(waits["slept"], sum(scene["not_slept"] for scene in truth.values()), waits)
        locks = [scene for scene in truth.values() if scene["label"] == "mutex"]
        charged = sum(n for scene in locks for n in scene["charged"].values())
        self.assertEqual(ends["lock"], sum(scene["sleeps"] for scene in locks) - charged, ends)
        self.assertEqual(ends["released"] + ends["otherwise"], n, ends)

    def check_scenes(self, which, *args):
        block, mutex, truth = self.play(which, *args)
        self.assertEqual({scene["sleeps"] + scene["not_slept"] > 0 for scene in truth.values()}, {True})
        waited = self.check_block(block, truth)
        self.check_mutex(mutex, truth, waited)
        for profile in (block, mutex):
            self.check_counts(profile, truth)

    def test_sleeps_of_futex_are_charged_to_who_waits_and_to_who_wakes(self):
        self.check_scenes(["old"])

    def test_who_watches_another_process_sees_every_call(self):
        """Tracepoints are the whole machine's: a program on one that returns 0 hides the call from all others.

        Source: the kernel's perf_syscall_enter() and perf_trace_run_bpf_submit().
        """
        self.profile(self.target("waits"), *EXACT)
        self.check_scenes(["old"], "--sampler", "direct")


class DirectTest(FutexTests, LiveTest):
    SAMPLER = "direct"


class KernelTest(FutexTests, LiveTest):
    SAMPLER = "kernel"

    def test_sleeps_of_the_newer_calls_are_charged_alike(self):
        self.check_scenes(["newer"])

    def test_the_old_and_the_newer_calls_at_the_same_time(self):
        self.check_scenes(["old", "newer"])


if __name__ == "__main__":
    main()
