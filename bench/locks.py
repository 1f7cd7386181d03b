# SPDX-License-Identifier: MIT
"""The section "lock": what watching a process's waits costs one that takes locks all the time."""

import os
import re
import subprocess
import time
from dataclasses import dataclass

from harness import BenchError, Loop, die_with_parent, median, number, print_table
from sampling import SAMPLERS, ours, span
from tools import Bare, BareTraps, Bpftrace, Deltaprof, PerfRecord

FUTEX_CALLS = ("syscalls/sys_enter_futex", "syscalls/sys_exit_futex")
COUNTED = "futex calls counted only"


@dataclass(frozen=True)
class Workload:
    name: str
    threads: int
    spins: int  # turns of an empty loop with the lock held, and again without
    arguments: tuple = ()
    windows: int = 1  # of the bench's usual length, in one
    rivals: bool = True


WORKLOADS = (
    Workload("uncontended, 1 thread", 1, 0),
    Workload("contended, 4 threads", 4, 5000, windows=3),  # as it has slow and fast moments
    Workload("handed over, 4 threads", 4, 100, ("-y",), rivals=False),
)


class LockLoop(Loop):
    """bench_lock, alive over many windows."""

    def __init__(self, binary, workload):
        super().__init__(binary, workload.threads,
                         arguments=("-w", str(workload.spins), *workload.arguments))

    def run(self, ms, rate=0):
        """One window. Returns (locks taken, nanoseconds, voluntary sleeps)."""
        self.process.stdin.write(f"run {ms}\n".encode())
        locks, _, ns, _, sleeps = self._answer("locks", ms / 1000 + 60)
        return int(locks), int(ns), int(sleeps)


class BpftraceFutex(Bpftrace):
    """Count and delay of each stack's waits, in the kernel."""
    PROGRAM = """
tracepoint:syscalls:sys_enter_futex
/pid == {pid} && ((args->op & 127) == 0 || (args->op & 127) == 9)/ {{ @start[tid] = nsecs; }}
tracepoint:syscalls:sys_exit_futex /@start[tid]/ {{
    @calls[ustack] = count(); @delay[ustack] = sum(nsecs - @start[tid]); delete(@start[tid]); }}
interval:ms:200 {{ printf("attached\\n"); }}
"""

    def __init__(self, directory, name):
        super().__init__([], name)
        self.output = f"{directory}/bpftrace.txt"

    def start(self, pid):
        with open(self.output, "wb") as file:
            self.process = subprocess.Popen(
                ["bpftrace", "-B", "line", "-p", str(pid), "-e", self.PROGRAM.format(pid=pid)],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.DEVNULL,
                preexec_fn=die_with_parent)
        deadline = time.monotonic() + 30
        while "attached" not in self.text():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise BenchError("did not attach")
            time.sleep(0.02)

    def text(self):
        with open(self.output, errors="replace") as file:
            return file.read()

    def seen(self, spent):
        """Two of its events are one wait."""
        text = self.text()
        spent.seen = 2 * sum(
            int(n) for n in re.findall(r"^@calls\[.*?\]: (\d+)$", text, re.M | re.S))
        os.unlink(self.output)


def lock_tools(bench, workload):
    profiles = ("--profiles", "mutex,block")
    tools = [Bare(), BareTraps(bench.trap_binary, [], list(FUTEX_CALLS), COUNTED)]
    for sampler in SAMPLERS:
        tools.append(ours(bench, sampler, (*profiles, "--block-rate", "10us"), [], profile="block"))
        tools[-1].name = f"--sampler {sampler} --block-rate 10us"
    if workload.rivals:
        directory = f"{bench.directory}/ours"
        tools += [
            Deltaprof(bench.deltaprof, [], directory, "deltaprof-perf, mutex and block", profiles,
                      profile="block"),
            Deltaprof(bench.deltaprof, [], directory, "deltaprof-perf, --block-rate 1ns",
                      (*profiles, "--block-rate", "1ns"), profile="block"),
            PerfRecord([], FUTEX_CALLS, bench.directory, "perf record -g, futex calls"),
            BpftraceFutex(bench.directory, "bpftrace, delay by ustack")]
    return tools


def measure_once(tool, loop, ms):
    tool.attach(loop.pid)
    try:
        locks, ns, sleeps = loop.run(ms)
    finally:
        spent = tool.detach()
    return {"ns_per_lock": ns / locks, "locks_per_s": locks * 1e9 / ns,
            "sleeps_per_s": sleeps * 1e9 / ns, "lost": spent.lost, "peak_kib": spent.peak_kib,
            "seen_per_s": None if spent.seen is None else spent.seen * 1e9 / ns,
            "cpu_percent": None if spent.cpu_s is None else 100 * spent.cpu_s * 1e9 / ns,
            "end_cpu_ms": None if spent.end_cpu_s is None else 1000 * spent.end_cpu_s}


def rows_of(runs, broken):
    def middle(name, figure):
        return median([run[figure] for run in runs[name] if run[figure] is not None])

    bare = middle(Bare.name, "ns_per_lock")
    rows = []
    for name, its in runs.items():
        if name in broken:
            rows.append([name, broken[name]])
            continue
        ns = [run["ns_per_lock"] for run in its]
        peak = middle(name, "peak_kib")
        rows.append([name, number(median(ns)), span(ns),
                     number(100 * bare / median(ns)), number(middle(name, "locks_per_s")),
                     *(number(middle(name, figure)) for figure in
                       ("sleeps_per_s", "seen_per_s", "lost", "cpu_percent", "end_cpu_ms")),
                     "-" if peak is None else number(peak / 1024)])
    return rows


def lock_tables(bench):
    for workload in WORKLOADS:
        ms = workload.windows * bench.window_ms
        with LockLoop(bench.lock_binary, workload) as loop:
            loop.run(ms)  # warm
            runs, broken = bench.interleave(lock_tools(bench, workload),
                                            lambda tool: measure_once(tool, loop, ms))
        bench.results[f"lock, {workload.name}"] = runs
        counted = [run["seen_per_s"] / len(FUTEX_CALLS) for run in runs[COUNTED]]
        print_table(
            f"mutex lock and unlock, {workload.name}, {bench.repeats} interleaved windows of "
            f"{ms} ms",
            ["attached", "ns/lock", "min..max", "% of bare", "locks/s", "sleeps/s", "seen/s",
             "lost", "own CPU %", "end ms", "peak MiB"], rows_of(runs, broken),
            [f"futex calls/s, counted only: {number(median(counted))} ({span(counted)})"]
            if counted else ())
