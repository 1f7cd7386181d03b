# SPDX-License-Identifier: MIT
"""The section "write": how long the profile of one interval takes, and addr2line beside it."""

import glob
import os
import shutil
import subprocess
import tempfile
import time

from harness import BenchError, median, number, print_table

TITLE = "one interval's profile, every stack of it changed"


def addr2line_ms(directory, binary):
    """The same addresses, named by binutils: one process for each file, as it can do one only."""
    total = 0
    for listing in glob.glob(f"{directory}/*.addresses"):
        with open(listing) as file:
            path, *addresses = file.read().splitlines()
        if not addresses:
            continue
        path = binary if path == "/proc/self/exe" else path
        start = time.monotonic()
        done = subprocess.run(["addr2line", "-f", "-i", "-C", "-e", path], check=True, timeout=300,
                              input="\n".join(addresses) + "\n", capture_output=True, text=True)
        total += time.monotonic() - start
        if len(done.stdout.splitlines()) < 2 * len(addresses):
            raise BenchError(f"addr2line did not name every address of {path}")
    return 1000 * total


def measure(bench):
    """Returns ({stage: [(first ms, second ms)]}, [stacks, locations, bytes], [addr2line's ms])."""
    stages, sizes, rival = {}, None, []
    for _ in range(bench.repeats):
        directory = tempfile.mkdtemp(dir=bench.directory)
        text = subprocess.run([bench.write_binary, directory, "500" if bench.quick else "10000"],
                              capture_output=True, text=True, timeout=120, check=True).stdout
        for line in text.splitlines():
            name, *values = line.split()
            if name == "size":
                sizes = [int(value) for value in values]
            else:
                stages.setdefault(name, []).append(tuple(int(ns) / 1e6 for ns in values))
        if shutil.which("addr2line"):
            rival.append(addr2line_ms(directory, bench.write_binary))
        shutil.rmtree(directory)
    return stages, sizes, rival


def write_table(bench):
    if not os.access(bench.write_binary, os.X_OK):
        print_table(TITLE, ["stage"], [["bench_write is not built"]])
        return
    stages, (n_stacks, n_locations, n_bytes), rival = measure(bench)
    stages["in all"] = [tuple(map(sum, zip(*its))) for its in zip(*stages.values())]
    bench.results["write"] = {"stages": stages, "addr2line": rival}
    rows = []
    for name, its in stages.items():
        first, second = zip(*its)
        rows.append([name, number(median(first)), f"{number(min(first))}..{number(max(first))}",
                     number(median(second)), f"{number(min(second))}..{number(max(second))}"])
    if rival:
        names = median([first for first, _ in stages["names"]])
        rows.append(["addr2line -f -i -C, same addresses", number(median(rival)),
                     f"{number(min(rival))}..{number(max(rival))}", "-", "-"])
        note = f"addr2line takes {number(median(rival) / names)} times as long as our names"
    else:
        rows.append(["addr2line -f -i -C, same addresses", "addr2line is not installed"])
        note = ""
    print_table(f"{TITLE}, {bench.repeats} processes in turn",
                ["stage", "first ms", "min..max", "second ms", "min..max"], rows,
                [f"{n_stacks} stacks, {n_locations} locations, {n_bytes} bytes", note])
