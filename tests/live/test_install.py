#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What is installed: a program that is built with pkg-config, against the shared and the static library."""

import os
import shutil
import subprocess
import tempfile
import unittest

from harness import main
from profiles import Profile

BUILD = os.environ.get("DP_BUILD", "")
SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "self_profile.c")


def run(*command, env=None):
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **(env or {})}
    ).stdout


class InstallTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.prefix = tempfile.mkdtemp(prefix="dp-install-")
        run("cmake", "--install", BUILD, "--prefix", cls.prefix)
        ((cls.library_dir,)) = [
            directory
            for directory, _, names in os.walk(cls.prefix)
            if any(name.startswith("libdeltaprof.so") for name in names)
        ]

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.prefix)

    def flags(self, *args):
        path = os.path.join(self.library_dir, "pkgconfig")
        return run("pkg-config", *args, "deltaprof", env={"PKG_CONFIG_PATH": path}).split()

    def build(self, name, libraries):
        program = os.path.join(self.prefix, name)
        run("cc", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-fno-optimize-sibling-calls", "-o", program,
            SOURCE, *self.flags("--cflags"), *libraries)  # fmt: skip
        return program

    def check_self_profile(self, program):
        path = program + ".pb.gz"
        with open(path, "wb") as file:
            done = subprocess.run(
                [program], stdout=file, stderr=subprocess.PIPE, text=True, check=False,
                env={**os.environ, "LD_LIBRARY_PATH": self.library_dir},
            )  # fmt: skip
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        profile = Profile(path)
        leaks = [s for s in profile.samples if "leak" in profile.names(s)]
        sums = [sum(s.values[i] for s in leaks) for i in range(4)]
        self.assertEqual(sums, [1000, 100_000, 1000, 100_000])
        # The profiler's own thread, which allocates to make the profile, is left out.
        for sample in profile.samples:
            self.assertNotIn("start_thread", profile.names(sample))

    def test_a_program_with_the_shared_library_profiles_itself(self):
        program = self.build("shared", self.flags("--libs"))
        self.assertIn("libdeltaprof.so.0", run("ldd", program))
        self.check_self_profile(program)

    def test_a_program_with_the_static_library_profiles_itself(self):
        libraries = self.flags("--libs", "--static")
        self.assertIn("-ldeltaprof", libraries)
        libraries[libraries.index("-ldeltaprof")] = "-l:libdeltaprof.a"
        program = self.build("static", libraries)
        self.assertNotIn("libdeltaprof", run("ldd", program))
        self.check_self_profile(program)

    def test_the_shared_library_shows_its_interface_alone(self):
        names = [
            line.split()[-1].split("@")[0]
            for line in run(
                "nm", "-D", "--defined-only", os.path.join(self.library_dir, "libdeltaprof.so")
            ).splitlines()
        ]
        self.assertIn("deltaprof_attach", names)
        self.assertEqual([n for n in names if not n.startswith(("deltaprof_", "DELTAPROF_"))], [])

    def test_the_program_is_short(self):
        with open(SOURCE, encoding="utf-8") as file:
            code = [line for line in file if line.strip() and not line.startswith("/*")]
        self.assertLessEqual(len(code), 30)

    def test_the_command_and_its_manual_are_there(self):
        self.assertTrue(os.access(os.path.join(self.prefix, "bin", "deltaprof-perf"), os.X_OK))
        self.assertTrue(os.path.exists(os.path.join(self.prefix, "share", "man", "man1", "deltaprof-perf.1")))


if __name__ == "__main__":
    main()
