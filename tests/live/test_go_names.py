#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Names of Go code, compared with what the program's own runtime says of every stack that it has
recorded, and with the profiles that it writes. For each toolchain in DP_GO_COMMANDS (paths of `go`
programs, by colons; else the `go` in PATH), and each way to build.

Environment: DP_GO_NAMES, the program tests/go_names.c.
"""

import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import profiles

SOURCE = pathlib.Path(__file__).resolve().parent.parent / "targets" / "go"
FLAVOURS = {
    "default": ([], "", "0"),
    "stripped": ([], "-s -w", "0"),
    "pie": (["-buildmode=pie"], "", "0"),
    "pie-stripped": (["-buildmode=pie"], "-s -w", "0"),
    "sectionless": ([], "-s -w", "0"),
    "cgo": ([], "", "1"),
    "cgo-stripped": ([], "-s -w", "1"),
}
MAX_SHOWN = 10


def minor_of(go):
    """The MINOR of Go 1.MINOR."""
    text = subprocess.run([go, "version"], check=True, capture_output=True, text=True,
                          env=dict(os.environ, GOTOOLCHAIN="local")).stdout
    return int(re.search(r"go1\.(\d+)", text).group(1))


def forget_sections(path):
    """The sections stay, and nothing says where."""
    with open(path, "r+b") as file:
        file.seek(40)
        file.write(bytes(8))
        file.seek(60)
        file.write(bytes(4))


def build(go, minor, flavour, path):
    options, ldflags, cgo = FLAVOURS[flavour]
    if minor >= 23:
        ldflags += " -checklinkname=0"
    environment = dict(os.environ, GOTOOLCHAIN="local", GO111MODULE="off", GOFLAGS="",
                       CGO_ENABLED=cgo)
    subprocess.run([go, "build", *options, f"-ldflags={ldflags}", "-o", path, "."], cwd=SOURCE,
                   env=environment, check=True, capture_output=True)
    if flavour == "sectionless":
        forget_sections(path)


def read_frame(text):
    """(line, start line, file, function) of "LINE START FILE|FUNCTION"."""
    line, start, rest = text.split(" ", 2)
    file, function = rest.rsplit("|", 1) if rest.count("|") == 1 else rest.split("|", 1)
    return int(line), int(start), file, function


def read_listing(path):
    """The stacks of a listing: (kind, frames)."""
    stacks = []
    with open(path, encoding="utf-8") as file:
        for text in file:
            word, _, rest = text.rstrip("\n").partition(" ")
            if word == "stack":
                stacks.append((rest, []))
            elif word == "frame":
                stacks[-1][1].append(read_frame(rest.split(" ", 1)[1]))
    return stacks


def read_ours(text):
    """Ours of the same: (kind, calls), and what each frame is by itself."""
    stacks, singles = [], []
    for row in text.splitlines():
        word, _, rest = row.partition(" ")
        if word == "stack":
            stacks.append((rest, []))
        elif word == "call":
            stacks[-1][1].append(read_frame(rest))
        elif word == "at":
            singles.append(read_frame(rest))
    return stacks, singles


def is_same(theirs, ours):
    """Before Go 1.21 the program does not say the start lines. A file may be unknown."""
    if theirs[2] == "?":
        theirs = (0, theirs[1], "", theirs[3])
    return theirs == ours or (theirs[1] == 0 and theirs == (ours[0], 0, *ours[2:]))


def differs(theirs, ours):
    """A stack that was cut by its length may end within inlined calls, of which we show all."""
    is_whole = theirs and theirs[-1][3] == "runtime.goexit"
    if is_whole:
        theirs = theirs[:-1]
    return (len(ours) < len(theirs) or (is_whole and len(ours) != len(theirs)) or
            not all(map(is_same, theirs, ours)))


def compare_stacks(theirs, ours, singles, problems):
    n = 0
    for kind, frames in theirs:
        for frame in frames:
            if not is_same(frame, singles[n]):
                problems.append(("frame", frame, singles[n]))
            n += 1
    if n != len(singles):
        problems.append(("frames", n, len(singles)))
    ours = [stack for stack in ours if stack[0] != "trimmed"]
    if len(ours) != len(theirs):
        problems.append(("stacks", len(theirs), len(ours)))
    for (kind, frames), (_, calls) in zip(theirs, ours):
        if differs(frames, calls):
            problems.append((kind, frames, calls))
    return n


def compare_profile(path, kind, ours, has_starts, problems):
    """The samples of runtime/pprof's profile against ours, as often as each stack is there."""

    def key(line, start, file, function):
        return (line, start if has_starts else 0, file if file != "?" else "", function)

    theirs = collections.Counter(
        tuple(key(line.line, line.start_line, line.file, line.function)
              for location in sample.locations for line in location.lines)
        for sample in profiles.Profile(path).samples)
    mine = collections.Counter(
        tuple(key(*call) for call in calls) for name, calls in ours if name == kind)
    for stack in (theirs - mine).elements():
        problems.append((f"{kind} profile: only theirs", stack, None))
    for stack in (mine - theirs).elements():
        problems.append((f"{kind} profile: only ours", None, stack))
    return theirs.total()


def check(go, minor, flavour, directory):
    """Returns the number of differences."""
    program = directory / f"names-{minor}-{flavour}"
    listing, heap, block, mutex = (directory / name for name in ("listing", "heap", "block", "mutex"))
    build(go, minor, flavour, program)
    subprocess.run([program, listing, heap, block, mutex], check=True, timeout=60)
    output = subprocess.run([os.environ["DP_GO_NAMES"], program, listing, "2" if minor >= 24 else "1"],
                            check=True, capture_output=True, text=True).stdout
    theirs = read_listing(listing)
    ours, singles = read_ours(output)
    problems = []
    n_frames = compare_stacks(theirs, ours, singles, problems)
    kinds = collections.Counter(kind for kind, _ in theirs)
    n_samples = [compare_profile(path, kind, ours, minor >= 20, problems)
                 for path, kind in ((heap, "trimmed"), (block, "block"), (mutex, "mutex"))]
    if min(kinds["callers"], kinds["heap"], kinds["block"], kinds["mutex"], *n_samples) == 0:
        problems.append(("nothing to compare", dict(kinds), n_samples))
    print(f"Go 1.{minor} {flavour}: {dict(kinds)} stacks, {n_frames} frames, {n_samples} samples, "
          f"{len(problems)} differences", flush=True)
    for problem in problems[:MAX_SHOWN]:
        print(f"  {problem[0]}\n    theirs {problem[1]}\n    ours   {problem[2]}")
    program.unlink()
    return len(problems)


def main():
    toolchains = os.environ.get("DP_GO_COMMANDS") or shutil.which("go")
    if not toolchains:
        print("there is no Go toolchain")
        return 1 if os.environ.get("DP_REQUIRE_PERF") == "1" else 77
    flavours = sys.argv[1:] or FLAVOURS
    n = 0
    with tempfile.TemporaryDirectory(prefix="go-names-") as directory:
        os.environ.setdefault("GOCACHE", f"{directory}/cache")
        for go in toolchains.split(":"):
            for flavour in flavours:
                n += check(go, minor_of(go), flavour, pathlib.Path(directory))
    return 1 if n else 0


if __name__ == "__main__":
    sys.exit(main())
