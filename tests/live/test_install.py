#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The library as it is installed: a program that finds it with pkg-config alone profiles itself."""

import glob
import os
import shutil
import subprocess
import tempfile
import unittest

from harness import definitions_of, main
from profiles import HEAP_TYPES, Profile

BUILD = os.environ.get("DP_BUILD", "")
SOURCE = os.environ.get("DP_SELF_PROFILE", "")
CC = os.environ.get("DP_CC", "cc")
CMAKE = os.environ.get("DP_CMAKE", "cmake")


def output_of(*command, **options):
    """What a command that must succeed says."""
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **options
    )
    if result.returncode != 0:
        raise AssertionError(f"{command}: {result.returncode}: {result.stdout}{result.stderr}")
    return result.stdout


class TestInstall(unittest.TestCase):
    """Each test looks at one installation in a prefix of its own."""

    @classmethod
    def setUpClass(cls):
        cls.prefix = tempfile.mkdtemp(prefix="dp-install-")
        cls.addClassCleanup(shutil.rmtree, cls.prefix)
        output_of(CMAKE, "--install", BUILD, "--prefix", cls.prefix)
        (pc,) = glob.glob(f"{cls.prefix}/lib/**/deltaprof.pc", recursive=True)
        cls.lib = os.path.dirname(os.path.dirname(pc))
        cls.pkg_path = os.path.dirname(pc)

    def pkg_config(self, *args):
        environment = {**os.environ, "PKG_CONFIG_PATH": self.pkg_path}
        return output_of("pkg-config", *args, "deltaprof", env=environment).split()

    def build(self, name, libs):
        path = os.path.join(self.prefix, name)
        output_of(
            CC, "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-O0", "-g", "-fno-omit-frame-pointer",
            *self.pkg_config("--cflags"), SOURCE, "-o", path, *libs,
        )  # fmt: skip
        return path

    def assert_profiles_itself(self, path, **environment):
        profile_path = f"{path}.pb.gz"
        process = subprocess.Popen(
            [path, profile_path],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        _, stderr = process.communicate(timeout=120)
        self.assertEqual((process.returncode, stderr), (0, ""))
        self.assertEqual(definitions_of(process.pid), [])
        profile = Profile(profile_path)
        self.assertEqual(profile.types, HEAP_TYPES)
        self.assertEqual(profile.by_stack("main").get(("main",)), [1000, 100000, 1000, 100000])
        raw = output_of("go", "tool", "pprof", "-symbolize=none", "-raw", profile_path)
        self.assertIn(" main ", raw)

    def test_a_program_with_the_shared_library_profiles_itself(self):
        path = self.build("shared", self.pkg_config("--libs"))
        self.assertIn("libdeltaprof.so.0", output_of("readelf", "-d", path))
        self.assert_profiles_itself(path, LD_LIBRARY_PATH=self.lib)

    def test_a_program_with_the_static_library_profiles_itself(self):
        # Ours alone is static: by the archive's name, because a linker prefers the shared library.
        libs = self.pkg_config("--static", "--libs")
        self.assertIn("-ldeltaprof", libs)
        path = self.build("static", ["-l:libdeltaprof.a" if lib == "-ldeltaprof" else lib for lib in libs])
        self.assertNotIn("libdeltaprof", output_of("readelf", "-d", path))
        self.assert_profiles_itself(path)

    def test_the_shared_library_shows_its_interface_only(self):
        shown = output_of("nm", "-D", "--defined-only", f"{self.lib}/libdeltaprof.so").splitlines()
        names = {line.split()[-1].split("@")[0] for line in shown} - {"DELTAPROF_0"}
        self.assertIn("deltaprof_attach", names)
        self.assertEqual({name for name in names if not name.startswith("deltaprof_")}, set())

    def test_every_name_of_the_shared_library_leads_to_one_file(self):
        names = ("libdeltaprof.so", "libdeltaprof.so.0")
        targets = {os.path.realpath(os.path.join(self.lib, name)) for name in names}
        self.assertEqual(len(targets), 1)
        dynamic = output_of("readelf", "-d", *targets)
        self.assertIn("Library soname: [libdeltaprof.so.0]", dynamic)
        self.assertTrue(os.path.exists(os.path.join(self.prefix, "include", "deltaprof.h")))

    def test_the_header_is_one_that_a_cxx_compiler_takes(self):
        output_of(
            "c++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++",
            *self.pkg_config("--cflags"), "-include", "deltaprof.h", "/dev/null",
        )  # fmt: skip


if __name__ == "__main__":
    main()
