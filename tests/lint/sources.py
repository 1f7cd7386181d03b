# SPDX-License-Identifier: MIT
"""The repository's own files, for the lint tests."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def own_files():
    """Paths relative to ROOT of every file that git knows or would add; without git, of every file
    that is not in a build tree."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        names = listing.decode().rstrip("\0").split("\0")
    except (OSError, subprocess.CalledProcessError):
        paths = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
        names = [str(path) for path in paths
                 if not path.parts[0].startswith("build")
                 and not {".git", "__pycache__"} & set(path.parts)]
    return sorted(name for name in names if (ROOT / name).is_file())


def c_files(folders=("bench", "encode", "perf", "src", "symbolize", "tests"), suffixes=(".c", ".h")):
    """The C files in @folders."""
    return [name for name in own_files()
            if name.endswith(tuple(suffixes)) and name.split("/")[0] in folders]
