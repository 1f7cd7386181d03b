#!/bin/bash
# SPDX-License-Identifier: MIT
# Fails when mandoc or groff has anything to say about the manual page.
set -euo pipefail
cd "$(dirname "$0")/../.."
page=src/deltaprof-perf.1
# Whether other pages are installed says nothing about this one.
complaints=$(
	mandoc -Tlint -Wstyle "$page" 2>/dev/null | grep -v 'referenced manual not found' || true
	groff -mdoc -Tutf8 -ww -z "$page" 2>&1
)
if [ -n "$complaints" ]; then
	printf '%s\n' "$complaints" >&2
	exit 1
fi
