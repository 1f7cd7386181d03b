#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails when a file includes what its layer must not see (ARCHITECTURE.md, "Layers").

With --self-test: fails unless every bad sample below is caught and every good one is let through.
"""

import re
import sys

import sources

# Layer -> the layers whose headers it may include.
MAY_INCLUDE = {
    "src/base": {"src/base"},
    "perf": {"src/base", "perf"},
    "symbolize": {"src/base", "symbolize"},
    "encode": {"src/base", "encode"},
    "src": {"src/base", "perf", "symbolize", "encode", "src"},
    "tests": {"src/base", "perf", "symbolize", "encode", "src", "tests", "tests/targets"},
    "tests/targets": {"tests/targets"},  # stand-alone programs, compiled where they lie
    "bench": {"src/base", "perf", "symbolize", "encode", "src", "tests", "bench"},
}

# Third-party header (a pattern of the whole name) -> the layers that may include it.
THIRD_PARTY = {
    r"libelf\.h|gelf\.h|dwarf\.h|elfutils/.*": {"symbolize"},
    r"libiberty/.*|demangle\.h|libiberty\.h": {"symbolize"},
    r"protobuf-c/.*|zlib\.h": {"encode"},
    r"Zydis/.*|Zycore/.*": {"perf"},
    r"bpf/.*": {"perf"},
    r"x86intrin\.h": {"perf"},
    r"cmocka\.h": {"tests"},
    r"deltaprof\.h": {"tests"},  # as installed
}

# The C library, the compiler and the kernel's user-space headers are everybody's.
SYSTEM = re.compile(
    r"(sys|linux|asm|asm-generic|arpa|gnu|net|netinet)/.*\.h"
    r"|(assert|byteswap|cpuid|ctype|dirent|dlfcn|elf|endian|errno|execinfo|fcntl|fenv|float|fnmatch|getopt|glob|inttypes|limits|link|locale|malloc|math"
    r"|poll|pthread|pwd|regex|sched|search|semaphore|setjmp|signal|spawn|stdalign|stdarg|stdatomic"
    r"|stdbool|stddef|stdint|stdio|stdlib|stdnoreturn|string|strings|syscall|termios|threads|time"
    r"|ucontext|unistd|unwind|wchar)\.h")

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:<([^>]+)>|"([^"]+)")', re.MULTILINE)


def layer_of(path):
    """The layer that file @path belongs to, or None."""
    for layer in ("src/base", "tests/targets"):
        if path.startswith(layer + "/"):
            return layer
    folder = path.split("/")[0]
    return folder if folder in MAY_INCLUDE and "/" in path else None


def check_system(layer, header):
    """What is wrong with `#include <header>` in @layer, or None."""
    for pattern, layers in THIRD_PARTY.items():
        if re.fullmatch(pattern, header):
            if layer in layers or (layer == "tests" and "cmocka" not in pattern):
                return None
            return f"<{header}> belongs to {' and '.join(sorted(layers))} only"
    if SYSTEM.fullmatch(header):
        return None
    return f"<{header}> is in no table of {sys.argv[0]}"


def check_own(layer, header, exists):
    """What is wrong with `#include "header"` in @layer, or None."""
    if layer == "tests/targets" and "/" not in header:
        header = f"{layer}/{header}"
    target = layer_of(header)
    if target is None or ".." in header:
        return f'"{header}" is not written from the root of the repository'
    if target not in MAY_INCLUDE[layer]:
        return f'"{header}": {layer}/ must not include {target}/'
    if not exists(header) and not header.endswith((".pb-c.h", ".skel.h", "/_cgo_export.h")):
        return f'"{header}" does not exist'
    return None


def check(path, text, exists):
    """All that is wrong with the includes of file @path, which contains @text."""
    layer = layer_of(path)
    if layer is None:
        return [f"{path}: is in no layer"]
    wrong = []
    for match in INCLUDE.finditer(text):
        system, own = match.groups()
        problem = check_system(layer, system) if system else check_own(layer, own, exists)
        if problem:
            line = text.count("\n", 0, match.start()) + 1
            wrong.append(f"{path}:{line}: {problem}")
    return wrong


BAD = [
    ("src/base/a.c", '#include "src/heap.h"'),
    ("src/base/a.c", '#include "perf/ring.h"'),
    ("perf/a.c", '#include "src/stack.h"'),
    ("perf/a.c", '#include "symbolize/space.h"'),
    ("symbolize/a.c", '#include "perf/record.h"'),
    ("encode/a.h", '  #  include "symbolize/symbolizer.h"'),
    ("src/a.c", '#include "tests/alloc_fail.h"'),
    ("src/a.c", '#include "bench/x.h"'),
    ("src/a.c", "#include <zlib.h>"),
    ("src/a.c", "#include <elfutils/libdw.h>"),
    ("encode/a.c", "#include <gelf.h>"),
    ("symbolize/a.c", "#include <protobuf-c/protobuf-c.h>"),
    ("symbolize/a.c", "#include <Zydis/Zydis.h>"),
    ("perf/a.c", "#include <cmocka.h>"),
    ("perf/a.c", "#include <glib.h>"),
    ("perf/a.c", '#include "ring.h"'),
    ("perf/a.c", '#include "../src/base/error.h"'),
    ("perf/a.c", '#include "perf/../src/stack.h"'),
    ("perf/a.c", "int x;\n\n#include <stdio.h>\n#include <zlib.h>\n"),
    ("other/a.c", "int x;"),
    ("tests/targets/a.c", '#include "src/base/error.h"'),
    ("tests/targets/a.c", "#include <cmocka.h>"),
]

GOOD = [
    ("src/base/a.c", '#include "src/base/error.h"\n#include <stdio.h>'),
    ("perf/a.c", '#include "perf/ring.h"\n#include <linux/perf_event.h>\n#include <Zydis/Zydis.h>'),
    ("symbolize/a.c", "#include <gelf.h>\n#include <elf.h>\n#include <elfutils/libdwfl.h>"),
    ("encode/a.c", '#include <zlib.h>\n#include "encode/profile.pb-c.h"'),
    ("src/a.c", '#include "perf/ring.h"\n#include "symbolize/space.h"\n#include "encode/sink.h"'),
    ("tests/a.c", '#include <cmocka.h>\n#include <zlib.h>\n#include "src/heap.h"'),
    ("perf/a.c", '// "src/heap.h" is not included'),
    ("tests/targets/a.c", '#include "target.h"'),
]


def self_test():
    """Whether the samples are told apart."""
    failed = [f"let through: {path}: {text!r}" for path, text in BAD
              if not check(path, text, lambda header: True)]
    failed += [f"refused: {path}: {text!r}" for path, text in GOOD
               if check(path, text, lambda header: True)]
    if not check("perf/a.c", '#include "perf/no.h"', lambda header: False):
        failed.append("let through: a header that does not exist")
    return failed


def main():
    """Returns the exit status."""
    if sys.argv[1:] == ["--self-test"]:
        wrong = self_test()
    else:
        wrong = []
        for path in sources.c_files():
            text = (sources.ROOT / path).read_text(encoding="utf-8")
            wrong += check(path, text, lambda header: (sources.ROOT / header).is_file())
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
