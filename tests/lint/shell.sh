#!/bin/bash
# SPDX-License-Identifier: MIT
# Runs shellcheck over every shell script, which is known by its first line.
set -euo pipefail
cd "$(dirname "$0")"
python3 - <<'PYTHON' | (cd ../.. && xargs -0 shellcheck)
import sources
scripts = []
for name in sources.own_files():
    with open(sources.ROOT / name, "rb") as file:
        first = file.readline()
    if first.startswith(b"#!") and first.rstrip().endswith((b"sh", b"bash")):
        scripts.append(name)
print(*scripts, "src/completion.bash", sep="\0", end="")
PYTHON
