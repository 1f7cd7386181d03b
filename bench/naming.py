# SPDX-License-Identifier: MIT
"""The section "names": addresses of a large program named cold, beside those who do the same."""

import os
import shutil
import subprocess
import time

from harness import BenchError, median, number, print_table

TITLE = "functions, files, lines and inlined calls of addresses"
FEW, MANY = 1000, 20000
EU_ROUNDS = 3  # it takes half a minute each
OURS, BINUTILS, EU = "ours", "addr2line -i -f -C", "eu-addr2line -i -f -C"


class Namer:
    """A command that reads addresses and prints names."""

    def __init__(self, name, command, binary):
        self.name = name
        self.command = command + [binary]
        self.missing = "" if shutil.which(command[0]) else f"{command[0]} is not installed"

    def run(self, listing, output):
        """Returns this round's figures; what it printed is in @output."""
        with open(listing) as addresses, open(output, "w") as names:
            start = time.monotonic()
            process = subprocess.Popen(self.command, stdin=addresses, stdout=names,
                                       stderr=subprocess.PIPE, text=True)
            errors = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1):  # 1 is also eu-addr2line's for an unknown place
            raise BenchError(f"{self.command[0]} failed: {errors.strip()[:200]}")
        return {"seconds": seconds, "cpu_s": usage.ru_utime + usage.ru_stime,
                "peak_kib": usage.ru_maxrss, "said": errors.split()}


def spread(binary, n):
    """About @n addresses, evenly over the program's functions."""
    text = subprocess.run(["nm", "-S", "--defined-only", binary], capture_output=True, text=True,
                          timeout=60, check=True).stdout
    fields = (line.split() for line in text.splitlines())
    functions = sorted({(int(f[0], 16), int(f[1], 16)) for f in fields
                        if len(f) == 4 and f[2] in "tTwW"})
    step = max(1, sum(size for _, size in functions) // n)
    found, skip = [], 0
    for start, size in functions:
        found += range(start + skip, start + size, step)
        skip = (skip - size) % step
    return sorted(set(found))


def dwarf_bytes(binary):
    text = subprocess.run(["size", "-A", binary], capture_output=True, text=True, timeout=60,
                          check=True).stdout
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(".debug_"))


def places(output):
    """{address: the innermost file and line, "" where there is no line} of addr2line -a."""
    found, lines = {}, []
    with open(output, errors="replace") as file:
        for line in file.read().splitlines() + ["0x0"]:
            if line.startswith("0x"):
                if lines:
                    place = lines[2].split(" (discriminator")[0]
                    name, line_number = place.rsplit("/", 1)[-1].split(":")[:2]
                    known = line_number not in ("0", "?")
                    found[lines[0]] = f"{name}:{line_number}" if known else ""
                lines = []
            lines.append(line)
    return found


def measure(bench, tools, addresses):
    """Interleaved rounds. Returns ({tool: [figures]}, {tool: why not}, {tool: agreement})."""
    listing = f"{bench.directory}/names.addresses"
    with open(listing, "w") as file:
        file.writelines(f"{address:#x}\n" for address in addresses)
    runs = {tool.name: [] for tool in tools}
    broken = {tool.name: tool.missing for tool in tools if tool.missing}
    said = {}
    for i in range(bench.repeats):
        for tool in tools:
            if tool.name in broken or (tool.name == EU and i >= EU_ROUNDS):
                continue
            output = f"{bench.directory}/names.output"
            try:
                runs[tool.name].append(tool.run(listing, output))
            except (BenchError, OSError) as error:
                broken[tool.name] = str(error)
                if tool.name == OURS:
                    bench.failed.append(str(error))
                continue
            if tool.name not in said:
                said[tool.name] = places(output)
                if len(said[tool.name]) != len(addresses):
                    raise BenchError(f"{tool.name} did not answer for every address")
        tools = tools[1:] + tools[:1]
    ours = said.get(OURS, {})
    agree = {name: sum(place == ours.get(address) for address, place in its.items())
             for name, its in said.items()}
    return runs, broken, agree


def print_names(bench, binary, tools, n):
    addresses = spread(binary, n)
    runs, broken, agree = measure(bench, tools, addresses)
    bench.results[f"names, {len(addresses)} addresses"] = runs
    ours = median([run["seconds"] for run in runs[OURS]])
    rows = []
    for name, its in runs.items():
        if name in broken or not its:
            rows.append([name, broken.get(name, "not run")])
            continue
        seconds = [run["seconds"] for run in its]
        rows.append([name, number(1000 * median(seconds)),
                     f"{number(1000 * min(seconds))}..{number(1000 * max(seconds))}",
                     number(median(seconds) / ours) if ours else "-",
                     number(1e6 * median(seconds) / len(addresses)),
                     number(1000 * median([run["cpu_s"] for run in its])),
                     number(median([run["peak_kib"] for run in its]) / 1024),
                     f"{100 * agree[name] / len(addresses):.2f}"])
    notes = []
    if ours:
        n_named, slowest = (median([int(run["said"][i]) for run in runs[OURS]]) for i in (1, 3))
        notes.append(f"ours named {number(n_named)}; the slowest took {number(slowest / 1e6)} ms, "
                     "the first one, which opens the file")
    print_table(f"{TITLE}: {len(addresses)}, {dwarf_bytes(binary) / 1e6:.0f} MB of DWARF",
                ["one process each", "ms", "min..max", "x ours", "us/address", "CPU ms", "peak MiB",
                 "same line %"], rows, notes)


def names_table(bench):
    binary = bench.names_binary if bench.quick else f"{bench.options.build}/bench/names_program"
    for needed in (bench.names_binary, binary):
        if not os.access(needed, os.X_OK):
            print_table(TITLE, ["one process each"], [[f"{needed} is not built"]])
            return
    ours = Namer(OURS, [bench.names_binary], binary)
    binutils = Namer(BINUTILS, ["addr2line", "-a", "-i", "-f", "-C", "-e"], binary)
    elfutils = Namer(EU, ["eu-addr2line", "-a", "-i", "-f", "-C", "-e"], binary)
    print_names(bench, binary, [ours, binutils, elfutils], 100 if bench.quick else FEW)
    if not bench.quick:
        print_names(bench, binary, [ours, binutils], MANY)
