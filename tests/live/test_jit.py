#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Code that a just-in-time compiler has made has the names that its perf map gives, wherever the process is."""

import glob
import os
import shutil
import subprocess
import tempfile
import time

from harness import LiveTest, in_own_mounts, main, poll
from profiles import sum_stacks

NODE = "/usr/bin/node"

# The functions are compiled at once, and each stays one: --always-sparkplug, --no-opt.
SCRIPT = """
function leafOfTheTest(n) {
	let sum = 0;
	for (let i = 0; i < n; i++)
		sum += Buffer.allocUnsafeSlow(100000 + i).length;
	return sum;
}
function callerOfTheTest(n) {
	return leafOfTheTest(n) + 1;
}
function turn() {
	callerOfTheTest(10);
	setTimeout(turn, 1);
}
console.log('ready');
turn();
"""
OPTIONS = ("--no-opt", "--always-sparkplug")


class Node:
    """node, running the script above; its process is the last of the prefix's children."""

    def __init__(self, *options, directory, prefix=()):
        script = os.path.join(directory, "script.js")
        with open(script, "w", encoding="utf-8") as file:
            file.write(SCRIPT)
        self.path = NODE
        self._process = subprocess.Popen(
            [*prefix, NODE, *options, script], cwd=directory, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        self.ready = self._process.stdout.readline()
        self.pid = self._process.pid
        if os.path.realpath(f"/proc/{self.pid}/exe") != os.path.realpath(NODE):
            with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="utf-8") as file:
                (self.pid,) = map(int, file.read().split())

    def inner_pid(self):
        """Its number to itself."""
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as file:
            (line,) = (line for line in file if line.startswith("NSpid:"))
        return int(line.split()[-1])

    def alive(self):
        return self._process.poll() is None

    def kill(self):
        if self.alive():
            os.kill(self.pid, 9)
        self._process.wait()
        self._process.stdout.close()


class GeneratedTest(LiveTest):
    """Code that a target of ours makes: one known stack, every allocation counted."""

    def start(self, how):
        target = self.target("generated", how)
        self.addCleanup(lambda: os.path.exists(self.map) and os.unlink(self.map))
        self.map = f"/tmp/perf-{target.pid}.map"
        return target, self.profile(target, "--heap-rate", "1", "-i", "300ms")

    def go(self, target, profiler, n):
        """What the next allocations are called by the profiles that they are in."""
        began = time.time_ns()
        target.ask(f"go {n}")
        profiles = profiler.wait_covered()
        sums = sum_stacks([p for p in profiles if p.end_nanos > began], "main")
        return {stack[1]: values[0] for stack, values in sums.items() if stack[0] == "leaf_generated"}

    def check_names(self, how, unnamed):
        target, profiler = self.start(how)
        (name,) = self.go(target, profiler, 5)
        self.assertRegex(name, unnamed)
        # A map that came late; a name that is no C identifier.
        target.ask("name first name @ 1:2 <lambda>")
        self.assertEqual(self.go(target, profiler, 7), {"first name @ 1:2 <lambda>": 7})
        # Other code at the same place.
        target.ask("name second")
        self.assertEqual(self.go(target, profiler, 11), {"second": 11})
        self.finish(profiler)

    def test_anonymous_memory(self):
        self.check_names("anon", "^0x[0-9a-f]+$")

    def test_memory_that_is_mapped_twice(self):
        self.check_names("memfd", r"^memfd:doublemapper\+0x10f$")


class JitTest(LiveTest):
    def setUp(self):
        super().setUp()
        self.directory = tempfile.mkdtemp(prefix="dp-live-")
        self.addCleanup(shutil.rmtree, self.directory)

    def start(self, *options, prefix=()):
        node = Node(*OPTIONS, *options, directory=self.directory, prefix=prefix)
        self.targets.append(node)
        self.addCleanup(self.remove_map, f"/tmp/perf-{node.pid}.map")
        self.assertEqual(node.ready, "ready\n")
        return node

    def remove_map(self, path):
        if os.path.exists(path):
            os.unlink(path)

    def names(self, profiles):
        """All names on all stacks."""
        return {name for profile in profiles for sample in profile.samples for name in profile.names(sample)}

    def attach(self, node):
        return self.profile(node, "--heap-rate", "512KiB", "-i", "500ms")

    def is_named(self, profile):
        """Whether there is a stack as the script makes it, without an address that has no name."""
        for sample in profile.samples:
            names = [n.split()[0] for n in profile.names(sample)]
            wanted = ["JS:^leafOfTheTest", "JS:^callerOfTheTest", "JS:^turn"]
            if [n for n in names if n in wanted] == wanted:
                return not any(n.startswith("0x") for n in names)
        return False

    def test_functions_of_javascript_have_their_names(self):
        node = self.start("--perf-basic-prof")
        profiler = self.attach(node)
        profiler.wait_profiles(lambda ps: any(map(self.is_named, ps)), "a profile with the names")
        self.finish(profiler)
        comment = profiler.profiles()[-1].comment().numbers("perf map")
        self.assertGreater(comment["lines"], 100)
        self.assertEqual((comment["bad"], comment["without-room"], comment["refused"]), (0, 0, 0))

    def test_without_a_map_the_address_stays(self):
        node = self.start()
        profiler = self.attach(node)
        profiler.wait_profiles(
            lambda ps: any(name.startswith("0x") for name in self.names(ps)), "a profile of generated code"
        )
        self.finish(profiler)
        self.assertFalse(any(name.startswith("JS:") for name in self.names(profiler.profiles())))
        self.assertNotIn("perf map", profiler.profiles()[-1].comment().texts)

    def test_a_map_that_is_a_link_or_anothers_is_not_believed(self):
        node = self.start("--perf-basic-prof")
        path = f"/tmp/perf-{node.pid}.map"
        for spoil in (lambda: os.chown(path, 12345, 0), lambda: self.make_link(path)):
            spoil()
            profiler = self.attach(node)
            profiler.wait_profiles(lambda ps: len(ps) >= 2, "two profiles")
            self.finish(profiler)
            self.assertFalse(any(name.startswith("JS:") for name in self.names(profiler.profiles())))
            self.assertGreater(profiler.profiles()[-1].comment().numbers("perf map")["refused"], 0)

    def make_link(self, path):
        copy = os.path.join(self.directory, "copy.map")
        shutil.copyfile(path, copy)
        os.unlink(path)
        os.symlink(copy, path)

    def test_the_map_is_the_one_in_the_targets_own_namespaces(self):
        prefix = (*in_own_mounts("mount -t tmpfs none /tmp"), "unshare", "--pid", "--fork")
        # The script's own directory is not to be hidden.
        self.directory_elsewhere()
        node = self.start("--perf-basic-prof", prefix=prefix)
        self.assertEqual(node.inner_pid(), 1)
        # One that lies where ours would be must not be taken.
        with open(f"/tmp/perf-{node.pid}.map", "w", encoding="utf-8") as file:
            file.write("1000 ffffffff000 JS:from outside\n")
        self.assertEqual(glob.glob("/tmp/perf-1.map"), [])
        profiler = self.attach(node)
        profiler.wait_profiles(lambda ps: any(map(self.is_named, ps)), "a profile with the names")
        self.finish(profiler)
        self.assertNotIn("JS:from outside", self.names(profiler.profiles()))

    def directory_elsewhere(self):
        self.directory = tempfile.mkdtemp(prefix="dp-live-", dir="/var/tmp")
        self.addCleanup(shutil.rmtree, self.directory)

    def test_the_last_profile_of_a_process_that_is_gone_has_names(self):
        node = self.start("--perf-basic-prof")
        profiler = self.profile(node, "--heap-rate", "512KiB", "-i", "1h")
        poll(lambda: "leafOfTheTest" in self.map_of(node), "the function's line in the map")
        time.sleep(1)
        node.kill()
        self.assertEqual(profiler.wait(), 0, profiler.stderr)
        self.assertTrue(any(map(self.is_named, profiler.profiles())))

    def map_of(self, node):
        with open(f"/tmp/perf-{node.pid}.map", encoding="utf-8") as file:
            return file.read()


if __name__ == "__main__":
    main()
