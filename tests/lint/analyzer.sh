#!/bin/bash
# SPDX-License-Identifier: MIT
# Compiles the libraries with gcc's static analyser; a finding is an error.
# Usage: analyzer.sh BUILD-DIRECTORY
set -euo pipefail
build=$(realpath -m "${1:?usage: analyzer.sh BUILD-DIRECTORY}")
cd "$(dirname "$0")/../.."
cmake --preset analyzer -B "$build" >/dev/null
exec cmake --build "$build" --target deltaprof-perf
