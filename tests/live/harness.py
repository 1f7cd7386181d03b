# SPDX-License-Identifier: MIT
"""What the live tests share: targets, the profiler, and the traces that must not stay behind.

A live test attaches the real profiler to a real process. It runs as root on a kernel with uprobes; where
that is not so it is skipped (exit status 77), and with DP_REQUIRE_PERF=1 it fails instead.
"""

import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from profiles import Profile, sum_comments

BINARY = os.environ.get("DP_BINARY", "")
SANITIZED = os.environ.get("DP_SANITIZED") == "1"
TARGETS = os.environ.get("DP_TARGETS", "")
# What --sampler is given where a test does not say: "direct", or "" for none.
SAMPLER = os.environ.get("DP_SAMPLER", "")
REQUIRED = os.environ.get("DP_REQUIRE_PERF") == "1"
# The samplers that this build has; a test class for another one is not run.
SAMPLERS = os.environ.get("DP_SAMPLERS", "direct").split()
TRACEFS = "/sys/kernel/tracing"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"

# For whatever must happen but has no reason to take long: generous, because the machine may be slow.
PATIENCE_S = 60


class TimedOut(AssertionError):
    """Something that must happen did not."""


def poll(condition, what, timeout_s=PATIENCE_S, every_s=0.01):
    """Returns the first true value of condition(); asks again every every_s seconds."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimedOut(f"{what}: not within {timeout_s} s")
        time.sleep(every_s)


def process_state(pid, tid=None):
    """The state letter of a process (or of one of its threads), or None when it is gone."""
    path = f"/proc/{pid}/stat" if tid is None else f"/proc/{pid}/task/{tid}/stat"
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def in_own_mounts(script):
    """A prefix that runs the command behind it after `script`, in a mount namespace of its own."""
    return ("unshare", "-m", "--propagation", "private", "sh", "-ec", script + '\nexec "$@"', "sh")


# ---- targets ---------------------------------------------------------------------------------------


class LineReader:
    """Reads a pipe line by line in a thread of its own, so that waiting for a line can end."""

    def __init__(self, pipe):
        self.lines = []
        self._pipe = pipe
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        for line in self._pipe:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, is_wanted, what, start=0, timeout_s=PATIENCE_S):
        """Index of the first line from number `start` on that is_wanted."""
        end = time.monotonic() + timeout_s
        i = start
        with self._changed:
            while True:
                while i < len(self.lines):
                    if is_wanted(self.lines[i]):
                        return i
                    i += 1
                if self._closed:
                    raise TimedOut(f"{what}: the output ended with {self.lines[-3:]}")
                if not self._changed.wait(end - time.monotonic()):
                    raise TimedOut(f"{what}: not within {timeout_s} s, last {self.lines[-3:]}")

    def close(self):
        self._thread.join(PATIENCE_S)
        self._pipe.close()


class Target:
    """A program of tests/targets that waits for commands."""

    def __init__(self, name, *args, preload=None, env=None, path=None, prefix=()):
        path = path or os.path.join(TARGETS, name)
        environment = dict(os.environ, **(env or {}))
        if preload:
            environment["LD_PRELOAD"] = os.path.join(LIBRARIES, preload)
        self.path = path
        self._process = subprocess.Popen(
            [*prefix, path, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=environment,
        )
        self._reader = LineReader(self._process.stdout)
        self._n_read = 0
        ready = self.line()
        if ready.split()[0] != "ready":
            raise AssertionError(f"{name} said {ready!r} instead of ready")
        # What the target calls itself is something else in a PID namespace, where it is our grandchild.
        self.pid = self._process.pid
        if int(ready.split()[1]) != self.pid:
            with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="utf-8") as file:
                (self.pid,) = map(int, file.read().split())

    def line(self):
        i = self._reader.wait(lambda line: True, "the target's answer", self._n_read)
        self._n_read = i + 1
        return self._reader.lines[i]

    def say(self, command):
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def answer(self):
        answer = json.loads(self.line())
        if "error" in answer:
            raise AssertionError(f"the target failed: {answer['error']}")
        return answer

    def ask(self, command):
        self.say(command)
        return self.answer()

    def go_slowly(self, n, n_slice, profiler):
        """`go N` in slices, each begun when the profiler has caught up: for runs without loss."""
        while n > 0:
            self.ask(f"go {min(n, n_slice)}")
            n -= n_slice
            profiler.wait_idle()

    def alive(self):
        return self._process.poll() is None

    def quit(self):
        """Ends the target in good order and returns its exit status."""
        self.say("quit")
        return self.wait()

    def wait(self):
        status = self._process.wait(PATIENCE_S)
        self._close()
        return status

    def kill(self):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
        self._close()

    def send_signal(self, number):
        self._process.send_signal(number)

    def _close(self):
        if not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass
        self._reader.close()


# ---- the profiler ----------------------------------------------------------------------------------


class Profiler:
    """One run of deltaprof-perf, for the heap profile unless the arguments say otherwise."""

    def __init__(self, pid, *args, directory=None, prefix=(), verbose=True, binary=None, **popen):
        # A sanitized profiler is some five times slower: where every allocation of a target at full speed is
        # to arrive, it gets them without copies of the stack. The other build proves that with them.
        if SANITIZED and "--stacks" not in args and ("--heap-rate", "1") in zip(args, args[1:]):
            args = ("--stacks", "fp", *args)
        self._own_directory = directory is None
        self.directory = directory or tempfile.mkdtemp(prefix="dp-live-")
        self.command = [
            *prefix,
            binary or BINARY,
            *(["-v"] if verbose else []),
            *(["-e", "heap"] if "-e" not in args else []),
            *(["--sampler", SAMPLER] if SAMPLER and "--sampler" not in args else []),
            "-o",
            self.directory,
            *args,
            "-p",
            str(pid),
        ]
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )
        self._stdout = LineReader(self._process.stdout)
        self._stderr = LineReader(self._process.stderr)

    @property
    def pid(self):
        return self._process.pid

    @property
    def stderr(self):
        return "\n".join(self._stderr.lines)

    @property
    def stdout(self):
        return "\n".join(self._stdout.lines)

    def wait_attached(self):
        self._stderr.wait(lambda line: line.endswith(": attached"), "the profiler's `attached`")
        return self

    def wait_line(self, pattern, what):
        return self._stderr.lines[
            self._stderr.wait(lambda line: re.search(pattern, line), what)
        ]

    def wait_idle(self):
        """Waits until the profiler has nothing to read: all of it sleeps and uses no CPU for a moment."""
        previous = None

        def is_idle():
            nonlocal previous
            states, on_cpu = set(), {}
            for task in glob.glob(f"/proc/{self.pid}/task/*"):
                states.add(process_state(self.pid, os.path.basename(task)))
                with open(f"{task}/schedstat", encoding="utf-8") as file:
                    on_cpu[task] = file.read().split()[0]
            idle = states == {"S"} and previous == on_cpu
            previous = on_cpu
            return idle

        poll(is_idle, "the profiler to catch up", every_s=0.002)

    def running(self):
        return self._process.poll() is None

    def send_signal(self, number):
        self._process.send_signal(number)

    def stop(self, number=signal.SIGINT):
        """Ends the profiler in good order and returns its exit status."""
        if self.running():
            self._process.send_signal(number)
        return self.wait()

    def wait(self, timeout_s=PATIENCE_S):
        status = self._process.wait(timeout_s)
        self._stdout.close()
        self._stderr.close()
        return status

    def kill(self):
        if self.running():
            self._process.kill()
        self.wait()

    def end(self):
        """Ends it whatever state it is in; in good order if that is still possible."""
        if self.running():
            self._process.terminate()
        try:
            self.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def paths(self):
        """The finished files in the order of time."""
        return sorted(glob.glob(os.path.join(glob.escape(self.directory), "*.pb.gz")), key=file_order)

    def profiles(self):
        return [Profile(path) for path in self.paths()]

    def wait_profiles(self, is_enough, what):
        """The profiles as soon as is_enough(profiles)."""
        known = {}

        def look():
            for path in self.paths():
                if path not in known:
                    known[path] = Profile(path)
            profiles = sorted(known.values(), key=lambda profile: profile.time_nanos)
            return profiles if is_enough(profiles) else None

        return poll(look, what, every_s=0.05)

    def wait_covered(self, now_ns=None):
        """The profiles as soon as one ends after `now_ns` (default: now): what was done is in them."""
        now_ns = now_ns or time.time_ns()
        return self.wait_profiles(
            lambda profiles: profiles and profiles[-1].end_nanos > now_ns,
            "a profile of an interval that ends after this moment",
        )

    def remove(self):
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)


def file_order(path):
    """Sorts like the glob in the manual does, with "-2" behind the name without it."""
    return os.path.basename(path).replace(".pb.gz", "")


def run_profiler(*args, prefix=(), binary=None, timeout_s=PATIENCE_S, **popen):
    """Runs the profiler to its end: for everything that must not start. No definition of it stays."""
    process = subprocess.Popen(
        [*prefix, binary or BINARY, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    left = definitions_of(process.pid)
    if left:
        raise AssertionError(f"{process.args}: {left} stay in tracefs")
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


# ---- traces that must not stay behind --------------------------------------------------------------


def tracefs_definitions():
    """The lines of uprobe_events."""
    with open(os.path.join(TRACEFS, "uprobe_events"), encoding="utf-8") as file:
        return file.read().splitlines()


def definitions_of(pid):
    """The definitions of the profiler with this pid: its name and the owner's pid are in theirs."""
    return [line for line in tracefs_definitions() if re.search(rf"deltaprof_{pid}(?!\d)", line)]


def has_capability(number):
    """Whether this process has a capability in effect; the numbers are those of linux/capability.h."""
    with open("/proc/self/status", encoding="utf-8") as file:
        (mask,) = [int(line.split()[1], 16) for line in file if line.startswith("CapEff:")]
    return bool(mask >> number & 1)


def living_thread(pid):
    """A thread of the process that has not ended: of a main thread that has, /proc shows no memory."""
    for tid in [pid, *map(int, os.listdir(f"/proc/{pid}/task"))]:
        if process_state(pid, tid) not in ("Z", "X", None):
            return tid
    raise ProcessLookupError(pid)


def code_mappings(pid):
    """(start, end, file offset, path) of each executable mapping of a file."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            parts = line.rstrip("\n").split(maxsplit=5)
            if "x" in parts[1] and len(parts) == 6 and parts[5].startswith("/"):
                start, end = (int(x, 16) for x in parts[0].split("-"))
                yield start, end, int(parts[2], 16), parts[5]


def changed_text(pid):
    """Addresses at which the code of process `pid` differs from its files: breakpoints, mostly."""
    changed = []
    pid = living_thread(pid)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end, offset, path in code_mappings(pid):
            with open(f"/proc/{pid}/map_files/{start:x}-{end:x}", "rb") as file:
                file.seek(offset)
                expected = file.read(end - start)
            memory.seek(start)
            found = memory.read(len(expected))
            if found != expected:
                changed += [(hex(start + i), path) for i, pair in enumerate(zip(found, expected))
                            if pair[0] != pair[1]]  # fmt: skip
    return changed


# ---- the test case ---------------------------------------------------------------------------------


def why_impossible():
    """Why live tests cannot run here, or None."""
    if os.geteuid() != 0:
        return "not root"
    if not os.path.exists(os.path.join(TRACEFS, "uprobe_events")):
        return f"no uprobe_events in {TRACEFS}"
    if not shutil.which("go"):
        return "no go (Debian: golang-go): the oracle is go tool pprof"
    return None


class LiveTest(unittest.TestCase):
    """Starts targets and profilers, and checks after each test that nothing of ours stays behind."""

    maxDiff = 4000

    # What every profiler of the class gets as --sampler: a word of SAMPLERS, or None for its own choice.
    SAMPLER = None

    def setUp(self):
        self.targets, self.profilers = [], []

    def target(self, name, *args, **options):
        target = Target(name, *args, **options)
        self.targets.append(target)
        return target

    def profile(self, target, *args, attached=True, **options):
        """Starts the profiler on a target (or a pid) and waits until it is attached."""
        pid = target if isinstance(target, int) else target.pid
        if self.SAMPLER:
            args = ("--sampler", self.SAMPLER, *args)
        profiler = Profiler(pid, *args, **options)
        self.profilers.append(profiler)
        if attached:
            profiler.wait_attached()
        return profiler

    def tearDown(self):
        for profiler in self.profilers:
            profiler.end()
        failed = any(error for _, error in getattr(self._outcome, "errors", []) or []) or any(
            test is self for test, _ in getattr(self._outcome.result, "failures", [])
            + getattr(self._outcome.result, "errors", [])
        )  # fmt: skip
        for profiler in self.profilers:
            if failed:
                print(f"{' '.join(profiler.command)}\n{profiler.stderr}", file=sys.stderr)
                for profile in profiler.profiles():
                    print("\n    ".join([profile.path, *profile.comments]), file=sys.stderr)
            if not (failed and os.environ.get("DP_KEEP_FILES")):
                profiler.remove()
        for target in self.targets:
            target.kill()

    def finish(self, profiler, number=signal.SIGINT, status=0):
        """Ends a profiler in good order: its exit status, and no trace of it stays."""
        self.assertEqual(profiler.stop(number), status, profiler.stderr)
        self.assert_no_trace(profiler)

    def assert_no_trace(self, profiler):
        self.assertEqual(definitions_of(profiler.pid), [])
        for target in self.targets:
            if target.alive():
                self.assert_clean_text(target)

    def assert_clean_text(self, target):
        # The last event's close takes a grace period; the text is clean as soon as it begins.
        try:
            poll(lambda: not changed_text(target.pid), "clean text", timeout_s=20)
        except TimedOut:
            self.fail(f"the code of {target.path} is still changed: {changed_text(target.pid)}")

    def assert_stacks(self, found, expected, what=""):
        """Both by stack; the first few differences make the message."""
        wrong = {
            key: (found.get(key), expected.get(key))
            for key in set(found) | set(expected)
            if found.get(key) != expected.get(key)
        }
        if wrong:
            shown = "\n".join(f"  {key}: found {f}, made {e}" for key, (f, e) in list(wrong.items())[:8])
            self.fail(f"{what}: {len(wrong)} of {len(expected)} stacks are wrong:\n{shown}")

    def assert_nothing_odd(self, profiles):
        """Of a run without loss: every hit and every record is accounted for, and none in an odd way."""
        allocations = sum_comments(profiles, "allocations")
        for word in ("abandoned", "unpaired", "forgotten", "noroom"):
            self.assertEqual(allocations[word], 0, allocations)
        objects = sum_comments(profiles, "live objects")
        for word in ("replaced", "overflowed"):
            self.assertEqual(objects[word], 0, objects)
        records = sum_comments(profiles, "records")
        for word in ("lost", "dropped", "malformed", "late", "unknown"):
            self.assertEqual(records[word], 0, records)
        self.assert_accounted(profiles[-1])
        self.assertEqual(profiles[-1].comment().numbers("records since attach")["pending"], 0)

    def assert_accounted(self, last):
        """What the kernel counted is the sum of what became of it, in the last profile of a run."""
        records = last.comment().numbers("records since attach")
        became = sum(n for word, n in records.items() if word not in ("hit", "pending"))
        self.assertEqual(records["hit"], became, records)
        entries = last.comment().numbers("entries since attach")
        became = sum(n for word, n in entries.items() if word != "hit")
        # Dropped records are not told apart by kind.
        self.assertLessEqual(became, entries["hit"], entries)
        self.assertLessEqual(entries["hit"], became + records["dropped"], entries)

    def assert_one_sentence(self, result, status, *words):
        """A failed run: its exit status, one line on stderr with these words, nothing on stdout."""
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertTrue(lines[0].startswith("deltaprof-perf: "), lines[0])
        for word in words:
            self.assertRegex(lines[0], word)
        self.assertEqual(result.returncode, status, lines[0])
        self.assertEqual(result.stdout, "")


def expected_stacks(report):
    """A target's report as by_stack() gives it."""
    return {tuple(s["stack"]): s["values"] for s in report["stacks"] if any(s["values"])}


class Loader(unittest.TestLoader):
    """Leaves out, and says so, the classes for samplers that this build does not have."""

    def loadTestsFromTestCase(self, testCaseClass):
        sampler = getattr(testCaseClass, "SAMPLER", None)
        if sampler and sampler not in SAMPLERS:
            print(f"{testCaseClass.__name__}: this build has no {sampler} sampler", file=sys.stderr)
            return self.suiteClass()
        return super().loadTestsFromTestCase(testCaseClass)


def main():
    """Runs the tests of the calling program. Exit status 77: something was skipped."""
    reason = why_impossible()
    if reason:
        print(f"live tests cannot run: {reason}", file=sys.stderr)
        sys.exit(1 if REQUIRED else 77)
    for name, value in (("DP_BINARY", BINARY), ("DP_TARGETS", TARGETS)):
        if not os.path.exists(value):
            sys.exit(f"{name} is {value!r}: no such file; run the tests with ctest")
    program = unittest.main(module="__main__", exit=False, verbosity=2, testLoader=Loader())
    if not program.result.wasSuccessful():
        sys.exit(1)
    if program.result.testsRun == 0:
        sys.exit("no test ran")
    if program.result.skipped:
        sys.exit(1 if REQUIRED else 77)
