# SPDX-License-Identifier: MIT
"""What a Go target says about itself (tests/targets/go/profiles), and a profile, as samples to compare.

A sample is (frames, object size, values); a frame is (function, file, line, line that the function
starts at). Two samples may have the same frames: their stacks differed in what is not shown.
"""

import collections

# Locks of the runtime's own, which it takes at any time, also when nothing is done.
RUNTIME_LOCKS = ("runtime.unlock", "runtime.unlockWithRank", "runtime._LostContendedRuntimeLock")


def read_dump(path):
    """The samples of a dump's text file (delta.go says what a line is)."""
    samples = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            values, size, *frames = line.rstrip("\n").split("\t")
            samples.append((tuple(map(_frame, frames)), int(size), tuple(map(int, values.split()))))
    return samples


def _frame(text):
    rest, line, start = text.rsplit(":", 2)
    function, _, file = rest.rpartition(" ")
    return function, file, int(line), int(start)


def samples_of(profile):
    """The samples of a Profile, those that are all zero left out."""
    samples = []
    for sample in profile.samples:
        if not any(sample.values):
            continue
        frames = tuple(
            (line.function, line.file, line.line, line.start_line)
            for location in sample.locations
            for line in location.lines or [_unnamed(location)]
        )
        samples.append((frames, _size(profile, sample), tuple(sample.values)))
    return samples


def _unnamed(location):
    return collections.namedtuple("Unnamed", "function file line start_line")(
        f"0x{location.address:x}", "", 0, 0
    )


def _size(profile, sample):
    sizes = [signed for key, signed in map(profile.number_label, sample.labels) if key == "bytes"]
    if len(sizes) != len(sample.labels):
        raise AssertionError(f"labels other than bytes: {sample.labels}")
    return sizes[0] if sizes else 0


def without_runtime_locks(samples):
    return [sample for sample in samples if not sample[0] or sample[0][0][0] not in RUNTIME_LOCKS]


def by_names(samples):
    """Sums of the values by the functions' names alone."""
    sums = {}
    for frames, _, values in samples:
        key = tuple(frame[0] for frame in frames)
        sums[key] = tuple(map(sum, zip(values, sums.get(key, (0,) * len(values)))))
    return sums


def ending_in(samples, function):
    """Those whose leaf is in `function`."""
    return [sample for sample in samples if sample[0] and sample[0][0][0] == function]


def going_through(samples, function):
    return [sample for sample in samples if any(frame[0] == function for frame in sample[0])]


def difference(found, expected):
    """What is wrong with the samples that were found, as text; "" if nothing is."""
    found, expected = collections.Counter(found), collections.Counter(expected)
    missing, extra = expected - found, found - expected
    if not missing and not extra:
        return ""
    extra_of = collections.defaultdict(list)
    for frames, size, values in extra.elements():
        extra_of[frames, size].append(values)
    lines = [f"{missing.total()} of {expected.total()} samples are missing, {extra.total()} are too many"]
    for frames, size, values in list(missing.elements())[:6]:
        lines.append(f"  missing {values} size {size}, found {extra_of.pop((frames, size), None)}: {_shown(frames)}")
    for (frames, size), values in list(extra_of.items())[:6]:
        lines.append(f"  found {values} size {size}: {_shown(frames)}")
    return "\n".join(lines)


def _shown(frames):
    shown = [f"{function} {file.rpartition('/')[2]}:{line}({start})" for function, file, line, start in frames]
    return " < ".join(shown if len(shown) <= 14 else shown[:10] + ["..."] + shown[-3:])
