# SPDX-License-Identifier: MIT
"""Go targets, built by every toolchain that there is, when a test first wants them.

DP_GO_TOOLCHAINS is the directory that tests/go_toolchains.sh filled, DP_GO_BUILD where programs are put.
"""

import fcntl
import glob
import hashlib
import os
import re
import shutil
import subprocess

TOOLCHAINS = os.environ.get("DP_GO_TOOLCHAINS", "")
BUILD = os.environ.get("DP_GO_BUILD", "")
SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "targets", "go")

SYSTEM_VERSION = "1.19"  # of Debian 12
FLAVOURS = {
    "default": [],
    "stripped": ["-ldflags", "-s -w"],
    "pie": ["-buildmode=pie"],
    "cgo": ["-tags", "withcgo"],
}


def versions():
    """Of all toolchains, oldest first."""
    found = [name for name in os.listdir(TOOLCHAINS) if re.fullmatch(r"1\.\d+", name)]
    return sorted({SYSTEM_VERSION, *found}, key=lambda version: int(version.split(".")[1]))


def go_of(version):
    """The go command of a version."""
    if version == SYSTEM_VERSION:
        return f"/usr/lib/go-{version}/bin/go"
    return os.path.join(TOOLCHAINS, version, "usr", "lib", f"go-{version}", "bin", "go")


def build(program, version, flavour="default"):
    """The path of a program of tests/targets/go, named after itself, as this version builds it."""
    directory = os.path.join(BUILD, f"{program}-{version}-{flavour}")
    os.makedirs(directory, exist_ok=True)
    binary = os.path.join(directory, program)
    with open(os.path.join(directory, "lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = os.path.join(directory, "stamp")
        wanted = _stamp_of(program, version, flavour)
        if os.path.exists(binary) and _read(stamp) == wanted:
            return binary
        _compile(program, version, flavour, directory, binary)
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(wanted)
    return binary


def _read(path):
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return file.read()


def _sources_of(program):
    own = glob.glob(os.path.join(SOURCES, program, "*.go"))
    if program in ("profiles", "waits"):
        own += glob.glob(os.path.join(SOURCES, "shared", "*.go"))
    return sorted(own)


def _stamp_of(program, version, flavour):
    release = subprocess.run([go_of(version), "version"], check=True, capture_output=True, text=True,
                             env=dict(os.environ, GOTOOLCHAIN="local")).stdout  # fmt: skip
    digest = hashlib.sha256(repr((release, FLAVOURS[flavour])).encode())
    for path in _sources_of(program):
        with open(path, "rb") as file:
            digest.update(os.path.basename(path).encode() + b"\0" + file.read())
    return digest.hexdigest()


def _compile(program, version, flavour, directory, binary):
    # A module of its own says which language and which runtime's defaults are meant.
    source = os.path.join(directory, "source")
    shutil.rmtree(source, ignore_errors=True)
    os.makedirs(source)
    for path in _sources_of(program):
        shutil.copy(path, source)
    with open(os.path.join(source, "go.mod"), "w", encoding="utf-8") as file:
        file.write(f"module target\n\ngo {version}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GO")}
    environment.update(
        GO111MODULE="on", GOFLAGS="-mod=mod", GOPROXY="off", GOSUMDB="off", GOTOOLCHAIN="local", GOWORK="off",
        GOCACHE=os.path.join(BUILD, "cache"), GOPATH=os.path.join(BUILD, "path"), GOENV="off",
        CGO_ENABLED="1" if flavour == "cgo" else "0",
    )  # fmt: skip
    command = [go_of(version), "build", "-buildvcs=false", "-p", "2", *FLAVOURS[flavour], "-o", binary, "."]
    result = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {result.stderr}")
