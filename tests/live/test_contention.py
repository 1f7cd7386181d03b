#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Mutex and block profiles against threads that measured their own waits, and against the kernel's own trace.

The target is tests/targets/waits.c: of each kind of wait a pair of threads, the one in waiter_main, the other
in releaser_main, and a crowd that wants one mutex.
"""

import collections
import glob
import math
import os
import re
import shutil
import tempfile
import time

from futex_trace import FutexTrace, n_slept
from harness import LiveTest, Profiler, main, run_profiler
from profiles import FILE_NAME, HEAP_TYPES, Profile, Raw, sum_comments

CONTENTION = ("-e", "mutex,block")
EXACT = (*CONTENTION, "--block-rate", "1ns")
TYPES = [("contentions", "count"), ("delay", "nanoseconds")]

# kind → function that waits, C library's function that it calls, label, function that releases a lock, and
# what that calls.
Kind = collections.namedtuple("Kind", "waiter leaf label releaser releaser_leaf")
KINDS = {
    "mutex": Kind("wait_mutex", "pthread_mutex_lock", "mutex", "release_mutex", "pthread_mutex_unlock"),
    "priority": Kind(
        "wait_priority", "pthread_mutex_lock", "mutex", "release_priority", "pthread_mutex_unlock"
    ),
    "reader": Kind(
        "wait_reader", "pthread_rwlock_rdlock", "rwlock", "release_writing", "pthread_rwlock_unlock"
    ),
    "writer": Kind(
        "wait_writer", "pthread_rwlock_wrlock", "rwlock", "release_reading", "pthread_rwlock_unlock"
    ),
    "crowd": Kind("take_crowd", "pthread_mutex_lock", "mutex", "release_crowd", "pthread_mutex_unlock"),
    "lock_timeout": Kind("wait_lock_timeout", "pthread_mutex_timedlock", "mutex", None, None),
    "condvar": Kind("wait_condvar", "pthread_cond_wait", "condvar", None, None),
    "condvar_timeout": Kind("wait_condvar_timeout", "pthread_cond_timedwait", "condvar", None, None),
    "semaphore": Kind("wait_semaphore", "sem_wait", "semaphore", None, None),
    "barrier": Kind("wait_barrier", "pthread_barrier_wait", "barrier", None, None),
    "join": Kind("wait_join", "pthread_join", "join", None, None),
    "futex": Kind("wait_futex", "syscall", "futex", None, None),
}
LOCKS = [kind for kind, known in KINDS.items() if known.releaser]
TIMED_OUT = ["lock_timeout", "condvar_timeout"]
ROOTS = ("waiter_main", "releaser_main", "crowd_main")

# One function in two guises: the C library's own names show where it has a symbol table.
ALIKE = {
    "__pthread_mutex_lock": "pthread_mutex_lock",
    "__pthread_mutex_lock_full": "pthread_mutex_lock",
    "___pthread_mutex_lock": "pthread_mutex_lock",
    "__pthread_mutex_unlock": "pthread_mutex_unlock",
    "__pthread_mutex_unlock_usercnt": "pthread_mutex_unlock",
    "__pthread_mutex_unlock_full": "pthread_mutex_unlock",
    "___pthread_mutex_unlock": "pthread_mutex_unlock",
    "__pthread_mutex_clocklock_common": "pthread_mutex_timedlock",
    "___pthread_mutex_timedlock": "pthread_mutex_timedlock",
    "__pthread_rwlock_rdlock": "pthread_rwlock_rdlock",
    "___pthread_rwlock_rdlock": "pthread_rwlock_rdlock",
    "__pthread_rwlock_wrlock": "pthread_rwlock_wrlock",
    "___pthread_rwlock_wrlock": "pthread_rwlock_wrlock",
    "__pthread_rwlock_unlock": "pthread_rwlock_unlock",
    "___pthread_rwlock_unlock": "pthread_rwlock_unlock",
    "__pthread_cond_wait": "pthread_cond_wait",
    "___pthread_cond_wait": "pthread_cond_wait",
    "__pthread_cond_timedwait": "pthread_cond_timedwait",
    "___pthread_cond_timedwait": "pthread_cond_timedwait",
    "__new_sem_wait": "sem_wait",
    "__new_sem_wait_slow64": "sem_wait",
    "__new_sem_wait_slow64.constprop.0": "sem_wait",
    "__pthread_barrier_wait": "pthread_barrier_wait",
    "__pthread_join": "pthread_join",
    "___pthread_join": "pthread_join",
    "__pthread_timedjoin_ex": "pthread_join",
    "__pthread_clockjoin_ex": "pthread_join",
}

def sums(record, kind, which="waits"):
    """A kind's sum in nanoseconds by the target's report."""
    keys = [key for key in record if key == kind or (kind == "crowd" and key.startswith("crowd"))]
    return sum(sum(record[key][which]) for key in keys)


class WaitProfile(Profile):
    """A profile with the label of each sample."""

    def label(self, sample):
        """The value of a sample's label `wait`, None without one; no other may be there."""
        labels = [(self._strings[label[1]], self._strings[label[2]]) for label in sample.labels]
        if not labels:
            return None
        ((key, value),) = labels
        return value if key == "wait" else f"not wait but {key}"


def of_profile(profiler, name):
    """The profiles of one kind (block, mutex, heap), of one profiler, in the order of time."""
    return [
        WaitProfile(path)
        for path in profiler.paths()
        if FILE_NAME.match(os.path.basename(path))["profile"] == name
    ]


class ContentionTest(LiveTest):
    def setUp(self):
        super().setUp()
        self.traces = []

    def tearDown(self):
        for trace in self.traces:
            trace.remove()
        super().tearDown()

    def trace(self, target):
        trace = FutexTrace(target.pid)
        self.traces.append(trace)
        return trace

    def run_exact(self, name, kinds, rounds, hold_us, *args):
        """Every wait of one `go`, in one interval: profiler, report, what the kernel traced.

        A busy machine may keep the profiler from its rings for too long; exact is only what lost nothing, so
        there are three tries for that.
        """
        for _ in range(3):
            target = self.target(name, *args)
            profiler = self.profile(target, *EXACT, "-i", "1h")
            trace = self.trace(target)
            target.ask(f"go {','.join(kinds)} {rounds} {hold_us}")
            traced = trace.stop()
            self.finish(profiler)
            report = target.ask("report")
            self.assertEqual(target.quit(), 0)
            if sum_comments(of_profile(profiler, "block"), "records")["lost"] == 0:
                return profiler, report, traced
        self.fail("records were lost three times")
        return None

    def by_function(self, profile, place):
        """[contentions, delay] by the named function that made the call, all of which must be known."""
        found = collections.defaultdict(lambda: [0, 0])
        for sample in profile.samples:
            # Where there are inlined calls the function itself is the last of a location's lines.
            names = [loc.lines[-1].function if loc.lines else None for loc in sample.locations]
            i_root = [i for i, name in enumerate(names) if name in ROOTS]
            self.assertTrue(i_root, f"{names} does not reach the thread's own function")
            leaf, caller = ALIKE.get(names[0], names[0]), names[1]
            self.assertEqual(i_root[0], 2, f"{names} is not leaf, caller, the thread's function")
            self.check_thread_start(names[i_root[0] + 1 :])
            found[leaf, caller, profile.label(sample)][0] += sample.values[0]
            found[leaf, caller, profile.label(sample)][1] += sample.values[1]
        self.assertEqual(profile.types, TYPES, place)
        return dict(found)

    def check_thread_start(self, names):
        """What is beyond the thread's own function: two functions of the C library, named or not."""
        known = ("start_thread", re.compile("clone3?|__clone3?"))
        self.assertEqual(len(names), 2, f"{names} is not start_thread and clone3")
        for name, wanted in zip(names, known):
            if name and not re.search(r"\+0x", name):
                self.assertRegex(name, wanted)

    def expected_block(self, kinds):
        return {(k.leaf, k.waiter, k.label) for k in (KINDS[kind] for kind in kinds)}

    def expected_mutex(self, kinds):
        return {
            (KINDS[kind].releaser_leaf, KINDS[kind].releaser, None) for kind in kinds if KINDS[kind].releaser
        }

    def assert_within(self, found, expected, share, what):
        self.assertLessEqual(abs(found - expected), share * expected, f"{what}: {found} for {expected}")

    def assert_nothing_lost(self, profiles):
        waits = sum_comments(profiles, "waits")
        for word in ("skipped", "unpaired", "forgotten", "noroom"):
            self.assertEqual(waits[word], 0, waits)
        records = sum_comments(profiles, "records")
        for word in ("lost", "dropped", "malformed", "late", "unknown"):
            self.assertEqual(records[word], 0, records)

    def assert_whole(self, profiles):
        """Every stack was unwound to where the thread began."""
        for profile in profiles:
            unwound = profile.comment().numbers("unwound")
            self.assertEqual(unwound["stacks"], unwound["whole"], unwound)
            self.assertEqual(profile.comment().numbers("unwinding")["registers"], 0)
            self.assertEqual(unwound["copy"], 0, unwound)

    # ---- truth ----

    def check_delays(self, found, report, kinds, lock_side):
        """Each function's delay, against what the target measured before and behind it."""
        for kind in kinds:
            known = KINDS[kind]
            key = (known.leaf, known.waiter, known.label)
            if lock_side:
                key = (known.releaser_leaf, known.releaser, None)
            delay = found[key][1]
            self.assert_within(delay, sums(report, kind), 0.05, key)
            # It ends when the waiter is woken: not after the waiter's return.
            self.assertLessEqual(delay, sums(report, kind), key)
            # And not before the release, but for the way into the system call.
            self.assertGreaterEqual(delay, 0.99 * sums(report, kind, "released"), key)

    def check_truth(self, name):
        kinds = list(KINDS)
        profiler, report, _ = self.run_exact(name, kinds, 50, 20_000)
        (block,), (mutex,) = of_profile(profiler, "block"), of_profile(profiler, "mutex")
        self.assert_nothing_lost([block])
        self.assert_whole([block])
        waited = self.by_function(block, "block")
        self.assertEqual(set(waited), self.expected_block(kinds))
        self.check_delays(waited, report, kinds, False)
        released = self.by_function(mutex, "mutex")
        self.assertEqual(set(released), self.expected_mutex(kinds))
        self.check_delays(released, report, LOCKS, True)
        self.check_both_sides(waited, released)
        return block, mutex, waited, released

    def check_both_sides(self, waited, released):
        """One wait, one delay: what is in mutex is to the nanosecond what its waiters have in block."""
        for kind in LOCKS:
            known = KINDS[kind]
            self.assertEqual(
                waited[known.leaf, known.waiter, known.label],
                released[known.releaser_leaf, known.releaser, None],
                kind,
            )

    def test_delays_are_those_that_the_threads_measured(self):
        block, mutex, waited, released = self.check_truth("waits")
        # The oracle reads the same.
        for profile, found in ((block, waited), (mutex, released)):
            raw = Raw(profile.path)
            self.assertEqual(raw.types, TYPES)
            self.assertEqual(raw.default_type, "delay")
            self.assertEqual(sum(values[1] for values, _ in raw.samples), sum(f[1] for f in found.values()))

    def test_delays_of_a_program_without_frame_pointers(self):
        self.check_truth("waits-bare")

    def test_delays_of_a_static_program(self):
        self.check_truth("waits-static")

    def test_a_static_musl_program_has_its_waits_if_not_their_stacks(self):
        """musl comes without unwind tables: what its functions were called by is not known."""
        kinds = [kind for kind in KINDS if kind != "crowd"]
        profiler, report, traced = self.run_exact("waits-musl", kinds, 50, 20_000)
        (block,) = of_profile(profiler, "block")
        self.assert_nothing_lost([block])
        self.assertEqual(block.totals()[0], n_slept(traced))
        self.assert_within(block.totals()[1], sum(sums(report, kind) for kind in kinds), 0.05, "all")
        self.assertEqual(sum_comments([block], "unwound")["whole"], 0)

    def test_contentions_are_the_sleeping_calls_that_the_kernel_traced(self):
        kinds = list(KINDS)
        profiler, _, traced = self.run_exact("waits", kinds, 60, 10_000)
        (block,) = of_profile(profiler, "block")
        self.assert_nothing_lost([block])
        slept = n_slept(traced)
        self.assertGreater(slept, 60 * (len(kinds) - 1))
        self.assertEqual(block.totals()[0], slept, traced)
        self.assertEqual(block.comment().numbers("waits")["ended"], slept)
        awake = sum(n for (_, slept), n in traced.items() if not slept)
        self.assertEqual(block.comment().numbers("waits")["slept"], awake)
        # A crowd's member may sleep more than once in one call; of a pair nobody is in its way.
        for (_, caller, _), (n, _) in self.by_function(block, "block").items():
            if caller != "take_crowd":
                self.assertLessEqual(n, 60, caller)

    def test_contentions_of_a_crowd_that_barges(self):
        """Many short holds: a woken thread finds the lock taken and sleeps again."""
        profiler, _, traced = self.run_exact("waits", ["crowd"], 400, 100, "--crowd", "8")
        (block,), (mutex,) = of_profile(profiler, "block"), of_profile(profiler, "mutex")
        self.assert_nothing_lost([block])
        slept = n_slept(traced)
        self.assertEqual(block.totals()[0], slept, traced)
        self.assertEqual(mutex.totals(), block.totals())
        self.assertEqual(set(self.by_function(mutex, "mutex")), self.expected_mutex(["crowd"]))

    def test_waits_that_time_out_are_in_block_only(self):
        profiler, report, _ = self.run_exact("waits", TIMED_OUT, 40, 5000)
        (block,) = of_profile(profiler, "block")
        (mutex,) = of_profile(profiler, "mutex")
        self.assertEqual(mutex.samples, [])
        waited = self.by_function(block, "block")
        self.assertEqual(set(waited), self.expected_block(TIMED_OUT))
        for kind in TIMED_OUT:
            known = KINDS[kind]
            n, delay = waited[known.leaf, known.waiter, known.label]
            self.assertEqual(n, 40)
            self.assertLessEqual(delay, sums(report, kind))
            self.assertGreater(delay, 0.9 * 40 * 5_000_000)
        self.check_ends([block], released=0, otherwise=80, for_a_lock=40)

    def check_ends(self, profiles, released, otherwise, for_a_lock):
        ends = sum_comments(profiles, "wait ends")
        found = ends["released"], ends["otherwise"], ends["lock"]
        self.assertEqual(found, (released, otherwise, for_a_lock))

    def test_mutex_says_how_many_waits_for_a_lock_nobody_released(self):
        profiler, _, _ = self.run_exact("waits", ["mutex", "semaphore", "join", "lock_timeout"], 30, 5000)
        (block,), (mutex,) = of_profile(profiler, "block"), of_profile(profiler, "mutex")
        n = {caller: values[0] for (_, caller, _), values in self.by_function(block, "block").items()}
        for profile in (block, mutex):
            self.check_ends(
                [profile],
                released=n["wait_mutex"] + n["wait_semaphore"],
                otherwise=n["wait_join"] + n["wait_lock_timeout"],
                for_a_lock=n["wait_lock_timeout"],
            )
        self.assertEqual(mutex.totals()[0], n["wait_mutex"])

    # ---- intervals ----

    def test_the_sum_over_intervals_is_the_whole(self):
        target = self.target("waits")
        whole = self.profile(target, *EXACT, "-i", "1h")
        parts = self.profile(target, *EXACT, "-i", "100ms")
        trace = self.trace(target)
        target.ask(f"go {','.join(KINDS)} 100 20000")
        traced = trace.stop()
        self.finish(parts)
        self.finish(whole)
        for name in ("block", "mutex"):
            profiles = of_profile(parts, name)
            self.assertGreater(len(profiles), 15)
            found = collections.defaultdict(lambda: [0, 0])
            for profile in profiles:
                for key, values in self.by_function(profile, name).items():
                    found[key] = [a + b for a, b in zip(found[key], values)]
            (profile,) = of_profile(whole, name)
            expected = self.by_function(profile, name)
            self.assertEqual(set(found), set(expected))
            for key, (n, delay) in expected.items():
                self.assertEqual(found[key][0], n, key)
                # Each of the two has its own time stamps.
                self.assert_within(found[key][1], delay, 0.01, key)
        self.check_waits_sum(of_profile(parts, "block"), traced)

    def check_waits_sum(self, profiles, traced):
        slept = n_slept(traced)
        self.assertEqual(sum(profile.totals()[0] for profile in profiles), slept)
        self.assertEqual(sum_comments(profiles, "waits")["ended"], slept)
        # No file between them is missing, and none overlaps the next.
        for before, after in zip(profiles, profiles[1:]):
            self.assertLessEqual(abs(before.end_nanos - after.time_nanos), 1_000_000)

    def test_waits_sampled_by_duration_are_unbiased(self):
        """A wait of d < rate is kept with probability d / rate and then counts for rate ns, rate / d waits."""
        rate = 20_000_000
        target = self.target("waits")
        profiler = self.profile(target, *CONTENTION, "--block-rate", "20ms", "-i", "100ms")
        kinds = ["mutex", "reader", "writer", "semaphore", "condvar", "futex"]
        target.ask(f"go {','.join(kinds)} 500 5000")
        self.finish(profiler)
        report = target.ask("report")
        waits = [d for kind in kinds for d in report[kind]["waits"] if d > 1_000_000]
        locks = [d for kind in kinds if kind in LOCKS for d in report[kind]["waits"] if d > 1_000_000]
        self.assertGreater(len(waits), 2500)
        self.assertGreater(len(of_profile(profiler, "block")), 20)
        self.check_estimate(of_profile(profiler, "block"), waits, rate)
        self.check_estimate(of_profile(profiler, "mutex"), locks, rate)
        counts = sum_comments(of_profile(profiler, "block"), "waits")
        self.assertEqual(counts["ended"], counts["sampled"] + counts["skipped"])
        self.assertGreater(counts["skipped"], 1000)

    def check_estimate(self, profiles, waits, rate):
        n, delay = (sum(profile.totals()[i] for profile in profiles) for i in (0, 1))
        short = [d for d in waits if d < rate]
        sigma = math.sqrt(sum(d * (rate - d) for d in short))
        self.assertLess(sigma, 0.05 * sum(waits), "too few waits to tell anything")
        # What the target measured is up to 2 % more than the wait: the ways into it and out of it.
        slack = 0.02 * sum(waits)
        self.assertLess(abs(delay - sum(waits)), 4.5 * sigma + slack, f"{sum(waits)}, sigma {sigma}")
        sigma = math.sqrt(sum(rate / d - 1 for d in short))
        self.assertLess(abs(n - len(waits)), 4.5 * sigma + len(profiles), f"{len(waits)}, sigma {sigma}")
        self.assertGreater(abs(n - len(waits)) + abs(delay - sum(waits)), 0, "nothing was sampled")

    # ---- one attach, several profiles; several processes ----

    def test_one_attach_gives_the_three_profiles_of_each_interval(self):
        target = self.target("waits")
        directory = tempfile.mkdtemp(prefix="dp-live-")
        self.addCleanup(shutil.rmtree, directory)
        target.say("go mutex,join 200 10000")
        # As it is called without any option that matters.
        options = ("-o", directory, "-i", "300ms", "-d", "1500ms", "--heap-rate", "1")
        result = run_profiler(*options, "-p", str(target.pid))
        self.assertEqual(result.returncode, 0, result.stderr)
        target.answer()
        by_start = collections.defaultdict(dict)
        for path in glob.glob(os.path.join(directory, "*.pb.gz")):
            match = FILE_NAME.match(os.path.basename(path))
            by_start[match["start"]][match["profile"]] = WaitProfile(path)
        self.assertGreaterEqual(len(by_start), 5)
        for start, profiles in by_start.items():
            self.assertEqual(set(profiles), {"heap", "mutex", "block"}, start)
            for name, profile in profiles.items():
                self.assertEqual(profile.types, HEAP_TYPES if name == "heap" else TYPES)
                # The same moments; a wall clock's nanosecond differs as it is adjusted.
                self.assertLess(abs(profile.time_nanos - profiles["heap"].time_nanos), 1000)
                self.assertEqual(profile.duration_nanos, profiles["heap"].duration_nanos)
                if name != "heap":
                    self.assertGreater(profile.totals()[1], 0, f"{name} {start}")
            # pthread_create allocates, and waits for nothing here: nothing of it is among the waits.
            waited = set(self.by_function(profiles["block"], "block"))
            self.assertEqual(waited, self.expected_block(["mutex", "join"]))

    def test_two_processes_have_a_series_each(self):
        first, second = self.target("waits"), self.target("waits-bare")
        profiler = Profiler(f"{first.pid},{second.pid}", *EXACT, "-i", "300ms")
        self.profilers.append(profiler)
        profiler.wait_line(rf"^deltaprof-perf: {first.pid} .*: attached$", "the first")
        profiler.wait_line(rf"^deltaprof-perf: {second.pid} .*: attached$", "the second")
        first.say("go mutex 60 10000")
        second.ask("go semaphore,reader 60 10000")
        first.answer()
        self.finish(profiler)
        wanted = {(first.pid, "waits"): ["mutex"], (second.pid, "waits-bare"): ["semaphore", "reader"]}
        for (pid, comm), kinds in wanted.items():
            paths = {path for path in profiler.paths() if f"/{comm}-{pid}-" in path}
            found = [p for p in of_profile(profiler, "block") if p.path in paths]
            self.assertGreater(len(found), 1)
            waited = set().union(*(self.by_function(p, "block") for p in found))
            self.assertEqual(waited, self.expected_block(kinds))
            found = [p for p in of_profile(profiler, "mutex") if p.path in paths]
            released = set().union(*(self.by_function(p, "mutex") for p in found))
            self.assertEqual(released, self.expected_mutex(kinds))

    # ---- at the edges of the attach ----

    def test_an_attach_that_falls_among_waits(self):
        """Of waits under way at the attach or the detach nothing is known: they are left out, and counted."""
        target = self.target("waits")
        target.say(f"go {','.join(KINDS)} 120 20000")
        n_unpaired = 0
        for _ in range(4):
            profiler = self.profile(target, *EXACT, "-i", "200ms")
            profiler.wait_profiles(lambda found: len(found) >= 2, "an interval")
            self.finish(profiler)
            for name, expected in (("block", self.expected_block), ("mutex", self.expected_mutex)):
                for profile in of_profile(profiler, name):
                    self.assertLessEqual(set(self.by_function(profile, name)), expected(KINDS), name)
                    # No wait began before the attach: none is longer than it.
                    for values in self.by_function(profile, name).values():
                        self.assertLess(values[1], 3 * 10_000_000_000)
            n_unpaired += sum_comments(of_profile(profiler, "block"), "waits")["unpaired"]
        target.answer()
        self.assertGreater(n_unpaired, 0)
        self.assertEqual(target.quit(), 0)

    def test_a_target_that_is_killed_while_its_threads_wait(self):
        target = self.target("waits")
        profiler = self.profile(target, *EXACT, "-i", "200ms")
        target.say(f"go {','.join(KINDS)} 1000 20000")
        profiler.wait_profiles(lambda found: len(found) >= 4, "two intervals")
        target.kill()
        self.assertEqual(profiler.wait(), 0, profiler.stderr)
        self.assert_no_trace(profiler)
        for profile in profiler.profiles():
            self.assertEqual(Raw(profile.path).types, TYPES)
            self.assertTrue(all(value >= 0 for s in profile.samples for value in s.values))

    def test_waits_inside_a_probed_allocation(self):
        """For the arena's lock; the kernel has replaced the return address of malloc meanwhile."""
        target = self.target("hammer", "--threads", "8", "--size", "5000", env={"MALLOC_ARENA_MAX": "1"})
        profiler = self.profile(target, "-e", "heap,mutex,block", "--block-rate", "1ns", "-i", "1h")
        # In bursts that the rings hold: of a call whose entry was lost the return address is not known.
        for _ in range(30):
            target.ask("go")
            time.sleep(0.02)
            target.ask("stop")
            time.sleep(0.08)
        self.finish(profiler)
        (block,) = of_profile(profiler, "block")
        self.assertEqual(sum_comments([block], "records")["lost"], 0)
        inside = [block.names(s) for s in block.samples if "leaf_hammer" in block.names(s)]
        self.assertTrue(inside)
        for names in inside:
            i_leaf = names.index("leaf_hammer")
            self.assertIn("malloc", names[:i_leaf])
            self.assertEqual(names[i_leaf + 1 : i_leaf + 4], ["hammer_run", "hammer_main", "start_thread"])
        self.assertEqual(sum_comments([block], "unwound")["broken"], 0)

    def test_a_target_that_nobody_waits_in_costs_no_record(self):
        target = self.target("waits")
        profiler = self.profile(target, *EXACT, "-i", "100ms")
        time.sleep(0.5)
        self.finish(profiler)
        profiles = of_profile(profiler, "block") or of_profile(profiler, "mutex")
        self.assertEqual(sum(sum(profile.totals()) for profile in profiles), 0)
        self.assertEqual(sum_comments(profiles, "waits")["ended"], 0)


if __name__ == "__main__":
    main()
