# SPDX-License-Identifier: MIT
"""What every part of the bench stands on: the measured process, probes, accounting, tables."""

import contextlib
import ctypes
import os
import re
import select
import signal
import statistics
import subprocess
import time
from dataclasses import dataclass

TRACEFS = "/sys/kernel/tracing"
BREAKPOINT = 0xCC  # int3: what a uprobe puts in place of the first byte of its instruction


class BenchError(Exception):
    """Something that keeps a row or a section from being measured; the text is printed."""


FAILURES = (BenchError, OSError, subprocess.SubprocessError)


# ---- processes ------------------------------------------------------------------------------


def cpu_seconds(pid):
    """CPU time of all live threads of a process; threads that have ended are not in it."""
    total_ns = 0
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{tid}/schedstat") as file:
                total_ns += int(file.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total_ns / 1e9


def n_descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def peak_kib(pid):
    """VmHWM; 0 once the process has let go of its memory."""
    try:
        with open(f"/proc/{pid}/status") as file:
            found = re.search(r"^VmHWM:\s+(\d+) kB", file.read(), re.M)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found.group(1)) if found else 0


def die_with_parent():
    """For preexec_fn: a child that nothing else would end must not outlive a killed bench."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def finish(process, timeout=60, insist_after=None):
    """Waits for a child. Returns (its CPU seconds in all, peak KiB while it was watched).

    Not ru_maxrss: that one remembers the size of the process that forked.
    insist_after: seconds after which it is interrupted once more.
    """
    peak = peak_kib(process.pid)
    start = time.monotonic()
    deadline = start + timeout
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_utime + usage.ru_stime, peak
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise BenchError(f"{process.args[0]} did not end within {timeout} s")
        if insist_after and time.monotonic() > start + insist_after:
            process.send_signal(signal.SIGINT)
            insist_after = None
        peak = max(peak, peak_kib(process.pid))
        time.sleep(0.005)


def read_line(stream, timeout):
    """One line of an unbuffered binary stream, or BenchError."""
    line = b""
    deadline = time.monotonic() + timeout
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([stream], [], [], max(0, deadline - time.monotonic()))
        byte = os.read(stream.fileno(), 1) if ready else b""
        if not byte:
            raise BenchError("no answer" if not ready else "ended early")
        line += byte
    return line.decode(errors="replace").rstrip("\n")


class Loop:
    """bench_loop, alive over many windows."""

    def __init__(self, binary, threads=1, wrapper=(), env=None, arguments=()):
        self.process = subprocess.Popen(
            [*wrapper, binary, "-t", str(threads), *arguments], stdin=subprocess.PIPE, bufsize=0,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL if wrapper else None, env=env)
        self.pid = int(self._answer("ready", 30)[0])

    def _answer(self, word, timeout):
        while True:  # a wrapper may talk first
            words = read_line(self.process.stdout, timeout).split()
            if words and words[0] == word:
                return words[1:]

    def run(self, ms, rate=0):
        """One window. Returns (pairs, thread-nanoseconds)."""
        self.process.stdin.write(f"run {ms} {rate}\n".encode())
        pairs, _, ns = self._answer("pairs", ms / 1000 + 60)
        return int(pairs), int(ns)

    @contextlib.contextmanager
    def watched(self):
        """A window as long as the body; the dict then has pairs, ns and stall_ns."""
        figures = {}
        self.process.stdin.write(b"watch\n")
        try:
            yield figures
        finally:
            self.process.stdin.write(b"\n")
            pairs, _, ns, _, stall = self._answer("pairs", 60)
            figures.update(pairs=int(pairs), ns=int(ns), stall_ns=int(stall))

    def create(self, ms):
        """Creates and joins threads. Returns (threads, nanoseconds)."""
        self.process.stdin.write(f"create {ms}\n".encode())
        created, _, ns = self._answer("creates", ms / 1000 + 60)
        return int(created), int(ns)

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- probes ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """One probed instruction."""
    path: str
    symbol: str
    offset: int  # in the file, of the function's first instruction
    skip: int  # bytes from there to the probed instruction

    def __str__(self):
        return f"{self.symbol}+{self.skip}"

    def moved(self, skip):
        return Site(self.path, self.symbol, self.offset, skip)


def executable_ranges(pid):
    """(start, end, file offset, path) of each executable mapping of a file."""
    with open(f"/proc/{pid}/maps") as file:
        for line in file:
            words = line.split(None, 5)
            if "x" in words[1] and len(words) == 6 and words[5].startswith("/"):
                start, end = (int(word, 16) for word in words[0].split("-"))
                yield start, end, int(words[2], 16), words[5].strip()


def libc_site(symbol):
    """Where a function of the C library starts, told by the dynamic linker of this process.

    Asked of the library itself: of the whole process a program that is no PIE answers with its own PLT.
    """
    address = ctypes.cast(getattr(ctypes.CDLL("libc.so.6"), symbol), ctypes.c_void_p).value
    for start, end, offset, path in executable_ranges("self"):
        if start <= address < end:
            return Site(path, symbol, address - start + offset, 0)
    raise BenchError(f"{symbol} is in no mapped file")


def memory_at(pid, site, n_bytes, skip=0):
    """What the process has in its text at a site."""
    where = site.offset + skip
    for start, end, offset, path in executable_ranges(pid):
        if path == site.path and offset <= where < offset + end - start:
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
                file.seek(start + where - offset)
                return file.read(n_bytes)
    raise BenchError(f"process {pid} does not map {site.path}")


def find_probe(pid, site, n_bytes=24):
    """Where in a function's first bytes a live process has a breakpoint that the file has not."""
    with open(site.path, "rb") as file:
        file.seek(site.offset)
        original = file.read(n_bytes)
    for i, byte in enumerate(memory_at(pid, site, n_bytes)):
        if byte == BREAKPOINT and original[i] != BREAKPOINT:
            return site.moved(i)
    return None


def wait_for_probes(pid, sites, present, tool=None, timeout=30):
    """Waits until every site has its breakpoint (or none has): true for any tool, and exact.

    tool: the process that puts them in; no use waiting once it has ended.
    """
    deadline = time.monotonic() + timeout
    while any((memory_at(pid, site, 1, site.skip)[0] == BREAKPOINT) != present for site in sites):
        if time.monotonic() > deadline or (tool and tool.poll() is not None):
            raise BenchError("its probes did not appear" if present else "its probes stayed")
        time.sleep(0.02)


class Definitions:
    """Our tracefs uprobe definitions: made once, shared by the tools, removed at the end."""

    PREFIX = "dpbench_"

    def __init__(self):
        self.group = f"{self.PREFIX}{os.getpid()}"
        self.names = []
        self._sweep()

    @staticmethod
    def _write(text):
        fd = os.open(f"{TRACEFS}/uprobe_events", os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def _sweep(self):
        """Removes what a killed run of the bench left behind."""
        with open(f"{TRACEFS}/uprobe_events") as file:
            events = re.findall(rf"^[pr]:({self.PREFIX}(\d+)/\w+)", file.read(), re.M)
        for event, pid in events:
            if not os.path.exists(f"/proc/{pid}"):
                self._write(f"-:{event}\n")

    def add(self, kind, name, site, args=""):
        """kind: p (entry) or r (return). Returns GROUP/NAME."""
        event = f"{self.group}/{name}"
        self._write(f"{kind}:{event} {site.path}:{site.offset + site.skip:#x} {args}\n")
        self.names.append(event)
        return event

    def close(self):
        for event in self.names:
            for _ in range(50):  # busy until the last event's close is through
                try:
                    self._write(f"-:{event}\n")
                    break
                except OSError:
                    time.sleep(0.1)
        self.names.clear()


# ---- numbers --------------------------------------------------------------------------------


def median(values):
    return statistics.median(values) if values else None


def number(value, digits=3):
    """Three significant digits, thousands apart; '-' for what was not measured."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.{digits}g}"


def print_table(title, columns, rows, notes=()):
    """columns: headings; the first column is left-aligned, the others right."""
    cells = [list(columns)] + [[str(cell) for cell in row] for row in rows]
    whole = [row for row in cells if len(row) == len(columns)]  # a short row says why it is one
    widths = [max(len(row[i]) for row in whole) for i in range(len(columns))]
    widths[0] = max(len(row[0]) for row in cells)
    print(f"\n## {title}\n")
    for i, row in enumerate(cells):
        first = row[0].ljust(widths[0])
        if len(row) < len(columns):
            print("  ".join([first] + row[1:]))
            continue
        print("  ".join([first] + [c.rjust(w) for c, w in zip(row[1:], widths[1:])]))
        if i == 0:
            print("  ".join("-" * width for width in widths))
    for note in notes:
        print(f"  {note}")
    print(flush=True)


def interrupt(process):
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
