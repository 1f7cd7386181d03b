#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Go's profile buckets read from outside are those that the program's own profile shows, word for word.

The target prints its runtime's records as they are (tests/targets/go/buckets); tests/go_read.c reads
the same from its memory. Targets of more versions of Go: DP_GO_BUCKETS, paths separated by colons.
"""

import os
import subprocess
import unittest

from harness import TARGETS, main

READER = os.environ.get("DP_GO_READ", "")
BUILDS = ("default", "stripped", "pie", "pie-stripped", "cgo")
SENTINEL = (1 << 64) - 1
N_BUCKETS = 60000


def programs():
    found = [os.path.join(TARGETS, f"go-buckets-{build}") for build in BUILDS]
    found += filter(None, os.environ.get("DP_GO_BUCKETS", "").split(":"))
    return [path for path in found if os.path.exists(path)]


class Target:
    """A running target, which obeys one-letter commands."""

    def __init__(self, path, **settings):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env={**os.environ, **settings})
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def command(self, letters):
        """Obeys each letter. Returns the lines that the last one printed."""
        lines = []
        for letter in letters:
            self.process.stdin.write(letter)
            self.process.stdin.flush()
            lines = list(iter(self.process.stdout.readline, "end\n"))
        return lines


def records(lines):
    """kind -> [(size, two counters, stack)], without sentinels."""
    found = {"heap": [], "block": [], "mutex": []}
    for line in lines:
        kind, size, first, second, *pcs = line.split()
        if pcs and int(pcs[0], 16) == SENTINEL:
            pcs = pcs[1:]
        found[kind].append((int(size), int(first), int(second), tuple(pcs)))
    return found


def read(target):
    result = subprocess.run([READER, str(target.process.pid)], capture_output=True, text=True,
                            check=True)
    return records(result.stdout.splitlines()), result.stderr


class GoBucketsTest(unittest.TestCase):
    maxDiff = 2000

    def compare(self, target):
        """Equal in values, stacks and order."""
        before, _ = read(target)
        own = records(target.command("d"))
        after, _ = read(target)
        # The program's record has no size of its own: before the first object it is not known.
        sized = [(size if own_size else 0, *rest) for (size, *rest), (own_size, *_) in
                 zip(before["heap"], own["heap"])]
        self.assertEqual(sized, own["heap"])
        self.assertEqual(before["block"], own["block"])
        # Locks inside the runtime may be waited for at any moment (since Go 1.22): newer buckets,
        # which come first, and figures that grew between the readings.
        for ours, theirs, later in zip(*(reversed(rows["mutex"]) for rows in (before, own, after))):
            self.assertEqual((ours[3], theirs[3]), (theirs[3], later[3]))
            for k in (1, 2):
                self.assertTrue(ours[k] <= theirs[k] <= later[k], (ours, theirs, later))
        return len(own["heap"])

    def test_every_state_of_every_build_is_read_as_the_program_sees_it(self):
        self.assertTrue(programs())
        for path in programs():
            with self.subTest(path), Target(path, BUCKETS_RATE="512") as target:
                target.command("q")
                for state in ("", "w", "g", "w", "gw", "gg"):
                    target.command(state)
                    self.assertGreater(self.compare(target) if state else 1, 0)

    def test_what_was_found_is_said_of_every_build(self):
        for path in programs():
            with self.subTest(path), Target(path) as target:
                _, found = read(target)
                self.assertEqual("stripped" in path, " stripped " in found)
                self.assertEqual("cgo" in path, " cgo " in found)
                self.assertIn("cycle=1 buckets=111 locks=11 ticks=1", found)
                self.assertIn("heap 524288 block 1 mutex 1", found)

    def test_nothing_wrong_survives_while_goroutines_allocate_and_collections_run(self):
        for path in programs():
            settings = {"BUCKETS_RATE": "4096", "BUCKETS_BLOCK": "0", "BUCKETS_MUTEX": "0",
                        "GOGC": "10"}
            with self.subTest(path), Target(path, **settings) as target:
                target.command("s")
                with subprocess.Popen([READER, str(target.process.pid), "2000"],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True) as reader:
                    self.assertEqual(reader.stdout.readline(), "quiet?\n")
                    target.command("Sqg")
                    out, err = reader.communicate("\n")
                self.assertIn(" 0 wrong", err)
                own = records(target.command("d"))
                ours = [row[1:] for row in records(out.splitlines())["heap"]]
                self.assertEqual(ours, [row[1:] for row in own["heap"]])

    def test_sixty_thousand_buckets_are_all_read(self):
        path = programs()[0]
        with Target(path, BUCKETS_RATE="1") as target:
            target.command("mqg")
            self.assertGreaterEqual(self.compare(target), N_BUCKETS)


if __name__ == "__main__":
    main()
