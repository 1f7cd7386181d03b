#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails unless --help, the manual page, the bash completion and the README name the same options.

Usage: options.py DELTAPROF-PERF
"""

import re
import subprocess
import sys

import sources

OPTION = r"-[a-z]\b|--[a-z][a-z-]*"


def from_help(program):
    """Options at the beginning of --help's indented lines."""
    text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    rows = re.findall(rf"^ {{2,6}}((?:{OPTION})(?:, (?:{OPTION}))?) ", text, re.MULTILINE)
    return set(re.findall(OPTION, " ".join(rows)))


def from_manual():
    """Options of the page's list items."""
    text = (sources.ROOT / "src/deltaprof-perf.1").read_text(encoding="utf-8")
    items = re.findall(r"^\.It (Fl .*)$", text, re.MULTILINE)
    return {"-" + name for name in re.findall(r"\bFl (\S+)", " ".join(items))}


def from_completion():
    """What the completion really offers for a word that begins with '-'."""
    script = ". src/completion.bash && _deltaprof_perf deltaprof-perf - deltaprof-perf && " \
        "echo \"${COMPREPLY[@]}\""
    return set(subprocess.run(["bash", "-c", script], cwd=sources.ROOT, capture_output=True,
                              text=True, check=True).stdout.split())


def from_readme():
    """Options in the first column of the README's tables."""
    text = (sources.ROOT / "README.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| *(`-[^|]*)\|", text, re.MULTILINE)
    return set(re.findall(rf"(?<![\w-])(?:{OPTION})", " ".join(cells)))


def main(program):
    """Returns the exit status."""
    expected = from_help(program)
    status = 0
    for name, found in {"the manual page": from_manual(), "the completion": from_completion(),
                        "the README": from_readme()}.items():
        for option in sorted(expected ^ found):
            status = 1
            where = f"only --help, not {name}" if option in expected else f"only {name}, not --help"
            print(f"{option}: {where} has it", file=sys.stderr)
    if len(expected) < 10:
        status = 1
        print(f"--help shows only {len(expected)} options", file=sys.stderr)
    return status


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
