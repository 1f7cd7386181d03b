# SPDX-License-Identifier: MIT
"""A second count of a process's futex calls: by the kernel's tracer into a trace instance, not with perf."""

import collections
import os
import re

from harness import TRACEFS, poll

# Operations of futex(2) that wait (linux/futex.h), and the kernel's own error numbers (linux/errno.h).
FUTEX_CMD_MASK = 0x7F
WAIT_OPERATIONS = {0: "WAIT", 6: "LOCK_PI", 9: "WAIT_BITSET", 11: "WAIT_REQUEUE_PI", 13: "LOCK_PI2"}
SLEPT = {0, -110, -4, -512, -513, -514, -516}


class FutexTrace:
    """Counts a process's futex calls in a trace instance of its own: not with perf, so not as we do."""

    ENTER = re.compile(r"-(\d+)\s+\[\d+\].*: sys_futex\(uaddr: .*?, op: (?:0x)?([0-9a-f]+),")
    EXIT = re.compile(r"-(\d+)\s+\[\d+\].*: sys_futex -> 0x([0-9a-f]+)")

    def __init__(self, pid):
        self._path = os.path.join(TRACEFS, "instances", f"dp_test_{os.getpid()}_{pid}")
        os.mkdir(self._path)
        try:
            self._write("options/event-fork", "1")
            self._write("buffer_size_kb", "8192")
            for tid in os.listdir(f"/proc/{pid}/task"):
                self._write("set_event_pid", tid)
            for event in ("sys_enter_futex", "sys_exit_futex"):
                self._write("set_event", f"syscalls:{event}")
        except OSError:
            self.remove()
            raise

    def _write(self, name, text):
        # To append without seeking, which such a file does not allow.
        fd = os.open(os.path.join(self._path, name), os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def stop(self, cut=False):
        """The numbers of calls that slept and of those that did not, in {(operation, slept): n}.

        cut: calls may be under way at the beginning and at the end; they are not counted.
        """
        self._write("tracing_on", "0")
        with open(os.path.join(self._path, "trace"), encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
        written = [line for line in lines if line.startswith("# entries-in-buffer/entries-written:")]
        if len(set(re.findall(r"(\d+)/(\d+)", written[0])[0])) != 1:
            raise AssertionError(f"the trace has lost something: {written[0]}")
        self.remove()
        return self._count((line for line in lines if not line.startswith("#")), cut)

    def _count(self, lines, cut):
        under_way, counts = {}, collections.Counter()
        for line in lines:
            if match := self.ENTER.search(line):
                under_way[match[1]] = int(match[2], 16) & FUTEX_CMD_MASK
            elif match := self.EXIT.search(line):
                result = int(match[2], 16)
                result -= (result >> 63) << 64
                if cut and match[1] not in under_way:
                    continue
                operation = WAIT_OPERATIONS.get(under_way.pop(match[1]))
                if operation:
                    counts[operation, result in SLEPT] += 1
            else:
                raise AssertionError(f"the trace says {line!r}")
        if under_way and not cut:
            raise AssertionError(f"calls without a return: {under_way}")
        return counts

    def remove(self):
        if os.path.isdir(self._path):
            self._write("tracing_on", "0")
            poll(self._try_remove, "the trace instance to go")

    def _try_remove(self):
        try:
            os.rmdir(self._path)
            return True
        except OSError:
            return False


def n_slept(counts):
    """How many of the counted calls slept."""
    return sum(n for (_, slept), n in counts.items() if slept)
