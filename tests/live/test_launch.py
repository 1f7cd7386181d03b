#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`deltaprof-perf -- COMMAND`: all that it allocates from its first constructor on, and its own end as ours."""

import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from harness import BINARY, TARGETS, definitions_of, main
from profiles import Profile


class LaunchTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="dp-live-")
        self.addCleanup(shutil.rmtree, self.directory)

    def start(self, *command, options=("-e", "heap", "--heap-rate", "1"), **popen):
        popen = {"stdin": subprocess.DEVNULL, **popen}
        return subprocess.Popen(
            [BINARY, "-o", self.directory, *options, "--", *command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen,
        )  # fmt: skip

    def run_command(self, *command, text=None, **options):
        """Runs it to its end: (status, stdout, stderr)."""
        if text is not None:
            options["stdin"] = subprocess.PIPE
        process = self.start(*command, **options)
        stdout, stderr = process.communicate(text, timeout=60)
        self.assertEqual(definitions_of(process.pid), [])
        return process.returncode, stdout, stderr

    def profiles(self, kind="heap"):
        return [Profile(path) for path in sorted(glob.glob(f"{self.directory}/*-{kind}-*.pb.gz"))]

    def made_by(self, profile, leaf):
        """Objects and bytes of stacks that @leaf is on."""
        samples = [s for s in profile.samples if leaf in profile.names(s)]
        return [sum(s.values[i] for s in samples) for i in range(2)]

    def check_early(self, program):
        status, stdout, stderr = self.run_command(os.path.join(TARGETS, program), "5", text="through\n")
        self.assertEqual((status, stdout, stderr), (5, "through\n", ""))
        first = self.profiles()[0]
        self.assertEqual(self.made_by(first, "leaf_early"), [700, 700 * 33])
        self.assertEqual(self.made_by(first, "leaf_main"), [300, 300 * 77])

    def test_what_constructors_allocate_is_in_the_first_file(self):
        self.check_early("early")

    def test_what_constructors_allocate_in_a_static_program_is_in_the_first_file(self):
        self.check_early("early-static")

    def test_a_program_of_the_distribution(self):
        status, stdout, stderr = self.run_command("/usr/bin/python3", "-c", "print(6 * 7)", options=())
        self.assertEqual((status, stdout, stderr), (0, "42\n", ""))
        for kind in ("heap", "mutex", "block"):
            self.assertEqual(len(self.profiles(kind)), 1)

    def test_its_exit_status_is_ours(self):
        for status in (0, 1, 2, 77, 255):
            self.assertEqual(self.run_command("/bin/sh", "-c", f"exit {status}")[0], status)

    def test_the_signal_that_ends_it_ends_us(self):
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1):
            self.assertEqual(self.run_command("/bin/sh", "-c", f"kill -{int(number)} $$")[0], -number)

    def test_a_signal_that_is_sent_to_us_reaches_it(self):
        process = self.start("/bin/sh", "-c", "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.1; done")
        self.assertEqual(process.stdout.readline(), "ready\n")
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
        self.assertEqual((process.returncode, stdout), (9, "got it\n"), stderr)
        self.assertTrue(self.profiles())

    def test_an_interrupt_at_the_terminal_is_the_commands_to_answer(self):
        script = "trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.1; done"
        process = self.start("/bin/sh", "-c", script, start_new_session=True)
        self.assertEqual(process.stdout.readline(), "ready\n")
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        self.assertEqual((process.returncode, stdout), (4, "interrupted\n"), stderr)

    def test_after_the_duration_it_runs_on_unprofiled(self):
        began = time.monotonic()
        status, stdout, stderr = self.run_command(
            "/bin/sh", "-c", "sleep 1.5; echo done; exit 3", options=("-e", "heap", "-d", "300ms")
        )
        self.assertEqual((status, stdout), (3, "done\n"), stderr)
        self.assertGreater(time.monotonic() - began, 1.4)
        self.assertEqual(len(self.profiles()), 1)

    def check_failure(self, status, words, *command, **options):
        got, stdout, stderr = self.run_command(*command, **options)
        self.assertEqual((got, stdout), (status, ""), stderr)
        self.assertEqual(len(stderr.splitlines()), 1, stderr)
        self.assertRegex(stderr, f"^deltaprof-perf: .*{words}")

    def test_a_command_that_cannot_be_run(self):
        self.check_failure(127, "not found", "no-such-command-here")
        self.check_failure(126, "/etc/passwd", "/etc/passwd")
        self.check_failure(126, "/tmp", "/tmp")

    def test_a_command_that_cannot_be_profiled_is_not_run(self):
        self.check_failure(125, "none of its", os.path.join(TARGETS, "noalloc"))

    def test_a_directory_that_cannot_be_written_to(self):
        process = subprocess.run(
            [BINARY, "-o", "/nonexistent/directory", "--", "/bin/echo", "ran"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.assertEqual((process.returncode, process.stdout), (125, ""))


if __name__ == "__main__":
    main()
