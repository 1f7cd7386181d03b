#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Builds a fuzzer, or runs one for some seconds and requires that it found new code.

Usage: fuzz_smoke.py build BUILD-DIRECTORY NAME...
       fuzz_smoke.py run BUILD-DIRECTORY NAME SECONDS

A fuzzer NAME may come with a program NAME_seeds, which writes inputs to begin with into the
directory that is its argument; without one it begins with nothing. Coverage that stays at a handful
means that the libraries were built without -fsanitize=fuzzer-no-link: that fails too.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIN_EDGES = 20
MIN_RUNS = 1000
PROGRESS = re.compile(r"^#(\d+)\s+(INITED|DONE)\s+cov: (\d+) ft: (\d+)", re.MULTILINE)


def build(directory, names):
    """Configures and builds fuzzers @names and what makes their seeds."""
    subprocess.run(["cmake", "--preset", "fuzz", "-B", directory], cwd=ROOT, check=True)
    targets = subprocess.run(["cmake", "--build", directory, "--target", "help"], check=True,
                             capture_output=True, text=True).stdout
    seeds = [f"{name}_seeds" for name in names if re.search(rf"\b{name}_seeds\b", targets)]
    subprocess.run(["cmake", "--build", directory, "--target", *names, *seeds], check=True)


def judge(log):
    """What is wrong with a fuzzer's run by its @log, or None."""
    seen = {kind: (int(runs), int(edges), int(features))
            for runs, kind, edges, features in PROGRESS.findall(log)}
    if "INITED" not in seen or "DONE" not in seen:
        return "did not run to its end"
    first, last = seen["INITED"], seen["DONE"]
    if last[0] < MIN_RUNS:
        return f"only {last[0]} inputs were tried"
    if last[1] < MIN_EDGES:
        return f"only {last[1]} edges are covered: is the library instrumented?"
    if last[1] <= first[1] and last[2] <= first[2]:
        return f"coverage did not grow beyond the seeds' ({first[1]} edges, {first[2]} features)"
    print(f"{last[0]} inputs, edges {first[1]} -> {last[1]}, features {first[2]} -> {last[2]}")
    return None


def run(directory, name, seconds):
    """Runs fuzzer @name. Returns the exit status."""
    program = pathlib.Path(directory) / "tests" / name
    seeds = program.with_name(f"{name}_seeds")
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as corpus:
        if seeds.exists():
            subprocess.run([seeds, corpus], check=True)
        result = subprocess.run(
            [program, f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=2048",
             f"-artifact_prefix={directory}/", corpus],
            stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    problem = judge(result.stderr)
    if result.returncode != 0 or problem:
        print(result.stderr[-20000:], file=sys.stderr)
        print(f"{name}: {problem or 'failed'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) >= 4 and sys.argv[1] == "build":
        build(sys.argv[2], sys.argv[3:])
    elif len(sys.argv) == 5 and sys.argv[1] == "run":
        sys.exit(run(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        sys.exit(__doc__)
