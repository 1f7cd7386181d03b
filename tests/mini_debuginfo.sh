#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes $2 of the program $1: stripped, and what is in its .symtab but not in its .dynsym compressed
# in the section .gnu_debugdata (GDB manual, "MiniDebugInfo").
set -e
nm --dynamic --format=posix --defined-only "$1" | sed 's/[@ ].*//' | sort >"$2.dynamic"
nm --format=posix --defined-only "$1" | awk '$2 ~ /[tTwW]/ { print $1 }' | sort >"$2.all"
comm -13 "$2.dynamic" "$2.all" >"$2.keep"
objcopy --only-keep-debug "$1" "$2.debug"
objcopy --strip-all --remove-section=.comment --keep-symbols="$2.keep" "$2.debug" "$2.mini"
xz --force "$2.mini"
strip -o "$2.new" "$1"
objcopy --add-section=.gnu_debugdata="$2.mini.xz" "$2.new"
mv "$2.new" "$2"
