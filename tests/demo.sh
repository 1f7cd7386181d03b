#!/bin/bash
# SPDX-License-Identifier: MIT
# Profiles the demo workload live for a few short intervals and prints what was found.
# Usage: tests/demo.sh BUILD-DIRECTORY
set -euo pipefail

build=${1:?usage: tests/demo.sh BUILD-DIRECTORY}
out=$(mktemp -d -t deltaprof-demo-XXXXXX)
trap 'rm -rf "$out"' EXIT

# pprof prints a profile's comments above the table; here they come once, at the end.
top() {
	go tool pprof -top -nodecount=12 "$@" 2>/dev/null | sed '/^deltaprof-perf: version/,/^Type:/{/^Type:/!d}'
}

coproc demo { exec "$build/demo"; }
read -r _ pid <&"${demo[0]}"

echo "\$ deltaprof-perf -p $pid --interval 2s --duration 6s --heap-rate 4KiB -v"
"$build/src/deltaprof-perf" -p "$pid" --interval 2s --duration 6s --heap-rate 4KiB -v \
	--output "$out"

stdin=${demo[1]}
exec {stdin}>&- # which ends the workload
wait "$pid"

heap=("$out"/demo-*-heap-*.pb.gz)
mutex=("$out"/demo-*-mutex-*.pb.gz)
block=("$out"/demo-*-block-*.pb.gz)
echo
ls -l "$out"
echo
echo "\$ go tool pprof -top -sample_index=alloc_space demo-*-heap-*.pb.gz   # all intervals together"
top -sample_index=alloc_space "${heap[@]}"
echo
echo "\$ go tool pprof -top -sample_index=inuse_space ${heap[-1]##*/}   # what the last one left"
top -sample_index=inuse_space "${heap[-1]}"
echo
echo "\$ go tool pprof -top -cum demo-*-mutex-*.pb.gz   # who kept others waiting"
top -cum "${mutex[@]}"
echo
echo "\$ go tool pprof -traces ${block[-1]##*/}   # who waited, and for what"
go tool pprof -traces "${block[-1]}" 2>/dev/null | sed '/^deltaprof-perf: version/,/^Type:/{/^Type:/!d}'
echo
echo "\$ go tool pprof -comments ${heap[-1]##*/}   # how far it can be trusted"
go tool pprof -comments "${heap[-1]}" 2>/dev/null
