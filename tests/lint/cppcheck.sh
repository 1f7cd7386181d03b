#!/bin/bash
# SPDX-License-Identifier: MIT
# Runs cppcheck over the product's sources. A finding that is wrong is answered in the code:
# "// cppcheck-suppress ID" with the reason. (readdir() on a DIR of one's own is safe in glibc, which
# deprecates readdir_r(). The BPF programs are left to clang and the kernel's verifier.)
set -euo pipefail
cd "$(dirname "$0")/../.."

exec cppcheck --quiet --std=c11 --language=c --library=posix -I . -D_GNU_SOURCE -D__x86_64__ \
	-DDP_VERSION='"0"' --enable=warning,portability,performance --inline-suppr \
	--suppress=missingIncludeSystem --suppress=readdirCalled --error-exitcode=1 -j "$(nproc)" \
	-i perf/kernel.bpf.c src perf symbolize encode
