# SPDX-License-Identifier: MIT
"""The section "unwind": stacks that perf record has copied, unwound by us and by perf script."""

import os
import shutil
import subprocess
import time

from harness import BenchError, die_with_parent, libc_site, median, number, print_table

TITLE = "stacks unwound from copies, of python3 without frame pointers"
# Calls malloc from C functions at many depths, for as long as it lives.
PROGRAM = """
import json, random, re
random.seed(1)
def deep(n):
    if n:
        return max([n], key=lambda x: len(str(deep(x - 1))))
    return json.dumps(json.loads(json.dumps({"k%d" % i: [str(i)] * 9 for i in range(300)})))
while True:
    deep(random.randrange(12))
    re.sub("a+", lambda m: m.group(0) * 1000, "baab" * 90)
    sorted(map(lambda i: "x" * (600 + i), range(100)))
"""
PYTHON = "/usr/bin/python3"
STACK_BYTES = 16384


def record(bench, pid, path, seconds):
    # -N: its cache of whole binaries is no part of it.
    subprocess.run(["perf", "record", "-N", "-q", "-c", "1", "-e",
                    bench.counted[0].replace("/", ":"), "--call-graph", f"dwarf,{STACK_BYTES}",
                    "-o", path, "-p", str(pid), "--", "sleep", str(seconds)], check=True,
                   timeout=120, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ours(bench, pid, path):
    """{"size": (samples, frames, whole), "cold": (ns,), "warm": (ns,), "peak": (KiB,)}"""
    text = subprocess.run([bench.unwind_binary, str(pid), path], check=True, timeout=300,
                          capture_output=True, text=True).stdout
    return {name: [int(value) for value in values]
            for name, *values in map(str.split, text.splitlines())}


def perf_script(path):
    """Seconds, and the frames that it printed: addresses alone, so that it looks up no names."""
    start = time.monotonic()
    done = subprocess.run(["perf", "script", "-i", path, "-F", "ip", "--no-inline"], check=True, timeout=900,
                          capture_output=True, text=True)
    seconds = time.monotonic() - start
    return seconds, sum(1 for line in done.stdout.splitlines() if line.strip())


def unwind_table(bench):
    for needed, path in (("bench_unwind", bench.unwind_binary), ("perf", shutil.which("perf"))):
        if not path or not os.access(path, os.X_OK):
            print_table(TITLE, ["tool"], [[f"{needed} is not there"]])
            return
    path = f"{bench.directory}/stacks.data"
    with subprocess.Popen([PYTHON, "-c", PROGRAM], preexec_fn=die_with_parent) as target:
        try:
            time.sleep(0.5)
            record(bench, target.pid, path, 0.1 if bench.quick else 0.6)
            runs = [(ours(bench, target.pid, path), perf_script(path))
                    for _ in range(min(3, bench.repeats))]
        finally:
            target.kill()
    bench.results["unwind"] = runs
    n_samples, n_frames, n_whole = runs[0][0]["size"]
    if n_samples == 0:
        raise BenchError("perf record took no samples")
    cold, warm = (median([run[name][0] for run, _ in runs]) / 1e9 for name in ("cold", "warm"))
    rival = median([seconds for _, (seconds, _) in runs])
    rows = [["ours, first time", number(1000 * cold), number(n_frames),
             number(n_frames / cold / 1e6), number(rival / cold)],
            ["ours, rules known", number(1000 * warm), number(n_frames),
             number(n_frames / warm / 1e6), number(rival / warm)],
            ["perf script -F ip --no-inline", number(1000 * rival), number(runs[0][1][1]),
             number(runs[0][1][1] / rival / 1e6), "1"]]
    print_table(f"{TITLE}, {len(runs)} times in turn",
                ["tool", "ms", "frames", "million frames/s", "x as fast"], rows,
                [f"{n_samples} samples with {STACK_BYTES} bytes of stack each, "
                 f"{n_whole} unwound whole; our peak memory "
                 f"{number(runs[0][0]['peak'][0] / 1024)} MiB, the samples included"])
    os.unlink(path)
