#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs clang-tidy over the product's sources that are in a build directory's compile_commands.json.

Usage: tidy.py BUILD-DIRECTORY [SOURCE...]
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys

import sources

FOLDERS = ("encode", "perf", "src", "symbolize")


def sources_in(build):
    """Our sources that the build compiles; generated files are not under the source tree."""
    commands = json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))
    ours = set(sources.c_files(FOLDERS, (".c",)))
    built = {os.path.relpath(os.path.join(entry["directory"], entry["file"]), sources.ROOT)
             for entry in commands}
    return sorted(ours & built)


def tidy(build, path):
    """Runs clang-tidy on one file; its findings, or an empty string."""
    command = ["clang-tidy", "--quiet", "-p", str(build), path]
    result = subprocess.run(command, cwd=sources.ROOT, capture_output=True, text=True, check=False)
    return "" if result.returncode == 0 else result.stdout + result.stderr


def main(build, only):
    """Returns the exit status."""
    paths = only or sources_in(build)
    if not paths:
        print(f"{build} compiles none of our sources", file=sys.stderr)
        return 1
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = [text for text in pool.map(lambda path: tidy(build, path), paths) if text]
    print("".join(findings), end="")
    print(f"{len(paths)} files, {len(findings)} with findings")
    return 1 if findings else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]))
