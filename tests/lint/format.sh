#!/bin/bash
# SPDX-License-Identifier: MIT
# Fails when clang-format would change a C file (`make fmt` does).
set -euo pipefail
cd "$(dirname "$0")"
python3 -c 'import sources; print(*sources.c_files(), sep="\0", end="")' |
	(cd ../.. && xargs -0 clang-format --dry-run -Werror)
