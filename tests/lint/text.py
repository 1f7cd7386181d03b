#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails on what no file of the repository may contain: a source without an SPDX line, white space at
the end of a line, a missing last newline, or the path of the directory that it was written in."""

import re
import sys

import sources

# Files whose first lines carry the licence; the others are data, or prose under LICENSE.
SOURCE = re.compile(r"\.(c|h|cc|cpp|go|rs|py|sh|bash|cmake|1|proto|bt)$"
                    r"|(^|/)(CMakeLists\.txt|Makefile)$|^\.ci/")
BINARY = re.compile(r"\.(bin|data|gz|pb|o|so|elf|png)$|^tests/corpus/")
COMMON_FOLDERS = {"/", "/tmp", "/root", "/home", "/usr/src", "/srv", "/opt", "/build"}
PICTOGRAPH = re.compile("[\U0001F000-\U0001FAFF\u2600-\u27BF]")


def machine_path():
    """A pattern of absolute paths that lead to this checkout, or to its neighbours."""
    parent = str(sources.ROOT.parent)
    start = str(sources.ROOT) if parent in COMMON_FOLDERS else parent
    return re.compile(r"(?<![\w.})/-])" + re.escape(start) + r"(/|$)")


def check(path, text):
    """All that is wrong with file @path, which contains @text."""
    wrong = []
    if SOURCE.search(path) and "SPDX-License-Identifier:" not in "".join(text.splitlines(True)[:3]):
        wrong.append(f"{path}:1: no SPDX-License-Identifier in the first three lines")
    if text and not text.endswith("\n"):
        wrong.append(f"{path}: no newline at the end")
    machine = machine_path()
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            wrong.append(f"{path}:{number}: white space at the end of the line")
        if PICTOGRAPH.search(line):
            wrong.append(f"{path}:{number}: a pictograph")
        if machine.search(line):
            wrong.append(f"{path}:{number}: the path of this machine's checkout")
    return wrong


def main():
    """Returns the exit status."""
    wrong = []
    for path in sources.own_files():
        if not BINARY.search(path):
            wrong += check(path, (sources.ROOT / path).read_text(encoding="utf-8"))
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
