# SPDX-License-Identifier: MIT
"""Goroutines' waits as seen by probes (tests/go_waits_tool), compared with Go's own block and mutex
profiles of the same time, which the target (targets/go_waits.go) has on at a rate of 1."""

import collections
import os
import re
import subprocess
import unittest

import harness
from harness import LiveTest, main

TOOL = os.environ.get("DP_GO_WAITS_TOOL", "")
# Programs to be looked at; several where there are several toolchains.
PROGRAMS = os.environ.get("DP_GO_WAITS_PROGRAMS", "").split()
# A record of the runtime's interface holds 32, some of which may be hidden here.
MAX_FRAMES = 28
# Not shown by every version alike: wrappers that the compiler makes, locks of the runtime.
HIDDEN = re.compile(r"runtime\.goexit:|internal/sync\.\(\*Mutex\)\.(Lock|Unlock):|\.gowrap\d+:|"
                    r"main\.(rwMutexes|grow)\.func2:")  # fmt: skip
RUNTIME_LOCKS = re.compile(r"runtime\._LostContendedRuntimeLock|runtime\.unlock|runtime\.gcBg")


class Lines:
    """A process that answers each command with lines up to one that says "done"."""

    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)  # fmt: skip

    def line(self):
        return self.process.stdout.readline().rstrip("\n")

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        lines = []
        while (line := self.line()) != "done":
            if not line and self.process.poll() is not None:
                raise AssertionError(f"{self.process.args} ended")
            lines.append(line)
        return lines

    def rest(self):
        self.process.stdin.close()
        lines = self.process.stdout.read().splitlines()
        self.process.stdout.close()
        self.process.wait()
        return lines


def rows(lines):
    """{(profile, stack): [contentions, nanoseconds]}; a stack's functions, and lines but the leaf's."""
    found = collections.defaultdict(lambda: [0, 0])
    for line in lines:
        kind, contentions, delay, stack = (line.split(" ", 3) + [""])[:4]
        frames = [frame for frame in stack.split(";") if frame and not HIDDEN.search(frame)]
        if not frames or RUNTIME_LOCKS.search(stack):
            continue
        # The runtime's own line is that of the call to blockevent(), not of gopark().
        frames[0] = frames[0].rpartition(":")[0]
        row = found[kind, ";".join(frames[:MAX_FRAMES])]
        row[0] += int(contentions)
        row[1] += int(delay)
    return found


def difference(after, before):
    changed = {}
    for key, (contentions, delay) in after.items():
        old = before.get(key, [0, 0])
        if contentions != old[0]:
            changed[key] = [contentions - old[0], delay - old[1]]
    return changed


class GoWaitsTests:
    def observe(self, program, *commands, rate_ns=1):
        """Returns Go's rows, ours, and the numbers that the tool counted."""
        target = Lines(program, "on")
        try:
            pid = int(target.line().split()[1])
            target.ask("run 3")
            tool = Lines(TOOL, str(pid), self.SAMPLER, str(rate_ns))
            self.assertEqual(tool.line(), "ready")
            before = rows(target.ask("dump"))
            for command in commands:
                target.ask(command)
            expected = difference(rows(target.ask("dump")), before)
            lines = tool.rest()
            ours = rows(x for x in lines if x.startswith(("block ", "mutex ")))
            harness.poll(lambda: not harness.changed_text(pid), "clean text", timeout_s=20)
            target.rest()
        finally:
            target.process.kill()
            target.process.wait()
        counts = {
            f"{line.split()[0]}.{name}": int(value)
            for line in lines
            for name, value in re.findall(r"(\w+)=(\d+)", line)
        }
        return expected, ours, counts

    def check_counts(self, expected, ours):
        """Each stack's contentions within 5 %, or two: the dump waits too."""
        for key in set(expected) | set(ours):
            go, found = expected.get(key, [0])[0], ours.get(key, [0])[0]
            self.assertLessEqual(abs(go - found), max(2, 0.05 * go), (self.program, key))

    def total(self, found, i):
        return sum(row[i] for (kind, _), row in found.items() if kind == "block")

    def each(self, *commands, **options):
        self.assertTrue(PROGRAMS, "no program was built")
        for program in PROGRAMS:
            self.program = os.path.basename(program)
            yield self.observe(program, *commands, **options)

    def test_every_sort_of_wait_counts_as_in_gos_own_profiles(self):
        for expected, ours, counts in self.each("run 60"):
            self.check_counts(expected, ours)
            self.assertGreater(self.total(expected, 0), 1000)
            # Single stacks are looser: in the runtime's figure is what a channel's own lock took,
            # which a trap makes longer.
            self.assertAlmostEqual(self.total(ours, 1) / self.total(expected, 1), 1, delta=0.25)
            self.assertEqual(counts["sampler.hits_lost"] + counts["stats.lost"], 0)

    def test_a_goroutine_whose_stack_grows_as_it_parks_parks_once(self):
        for expected, ours, _ in self.each("grow 300"):
            self.check_counts(expected, ours)
            self.assertAlmostEqual(self.total(ours, 1) / self.total(expected, 1), 1, delta=0.05)

    def test_ten_thousand_goroutines_that_wait(self):
        for expected, ours, counts in self.each("park 10000", "wake"):
            self.check_counts(expected, ours)
            self.assertEqual(counts["stats.no_room"] + counts["kernel.no_room"], 0)

    def test_each_park_and_each_wait_is_accounted_for(self):
        for expected, ours, counts in self.each("time 2000", rate_ns=1000000000):
            # Nearly nothing is kept, and what is counts for much.
            if self.SAMPLER == "direct":
                self.assertEqual(counts["stats.parks"], counts["stats.waits"]
                                 + counts["stats.forgotten"] + counts["stats.no_room"]
                                 + counts["stats.pending"])  # fmt: skip
                self.assertEqual(counts["stats.waits"], counts["stats.kept"]
                                 + counts["stats.skipped"] + counts["stats.internal"])  # fmt: skip
                waits = counts["stats.waits"]
            else:
                waits = counts["kernel.waits"]
                self.assertLess(counts["kernel.kept"], waits / 10)
            self.assertAlmostEqual(waits, self.total(expected, 0), delta=10)


class DirectTest(GoWaitsTests, LiveTest):
    SAMPLER = "direct"


@unittest.skipUnless("kernel" in harness.SAMPLERS, "built without the kernel sampler")
class KernelTest(GoWaitsTests, LiveTest):
    SAMPLER = "kernel"


if __name__ == "__main__":
    main()
