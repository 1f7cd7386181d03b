# SPDX-License-Identifier: MIT
"""Profiles as the live tests read them. Two readers, neither of them ours: `go tool pprof -raw`, the
oracle, and a small decoder of the protocol buffer written from profile.proto, for what the oracle does
not print (exact times, what drop_frames hides).
"""

import collections
import gzip
import os
import re
import subprocess
import tempfile

FILE_NAME = re.compile(
    r"^(?P<comm>[A-Za-z0-9_+][A-Za-z0-9._+-]*)-(?P<pid>\d+)-(?P<profile>heap|cheap|mutex|block)-"
    r"(?P<start>\d{8}T\d{6}\.\d{3}Z)(-\d+)?\.pb\.gz$"
)
HEAP_TYPES = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
]

Line = collections.namedtuple("Line", "function system_name file line start_line")
Location = collections.namedtuple("Location", "id mapping_id address lines")
Mapping = collections.namedtuple(
    "Mapping", "id start limit offset file build_id functions filenames line_numbers inline_frames"
)
Sample = collections.namedtuple("Sample", "locations values labels")


def varint(data, i):
    value = shift = 0
    while True:
        byte = data[i]
        i += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, i
        shift += 7


def fields(data):
    """(number, value) of every field of a message; the value is an int or bytes."""
    i = 0
    while i < len(data):
        key, i = varint(data, i)
        kind = key & 7
        if kind == 0:
            value, i = varint(data, i)
        elif kind == 2:
            n, i = varint(data, i)
            if i + n > len(data):
                raise ValueError("a field reaches beyond its message")
            value = data[i : i + n]
            i += n
        else:
            raise ValueError(f"wire type {kind} is not in profile.proto")
        yield key >> 3, value


def signed(value):
    return value - (1 << 64) if value >> 63 else value


def repeated(value):
    """A repeated number: packed or not."""
    if isinstance(value, int):
        return [value]
    numbers, i = [], 0
    while i < len(value):
        number, i = varint(value, i)
        numbers.append(number)
    return numbers


class Profile:
    """A file as profile.proto says. Source: github.com/google/pprof, proto/profile.proto."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            self._read(gzip.decompress(file.read()))

    def _read(self, data):
        raw = collections.defaultdict(list)
        for number, value in fields(data):
            raw[number].append(value)
        self._strings = [value.decode("utf-8") for value in raw[6]]
        if self._strings[0] != "":
            raise ValueError("the first string is not empty")
        self.types = [self._type(value) for value in raw[1]]
        self.mappings = {m.id: m for m in map(self._mapping, raw[3])}
        self._functions = dict(map(self._function, raw[5]))
        self.locations = {loc.id: loc for loc in map(self._location, raw[4])}
        self.samples = [self._sample(value) for value in raw[2]]
        self.drop_frames = self._strings[raw[7][-1]] if raw[7] else ""
        self.time_nanos = signed(raw[9][-1]) if raw[9] else 0
        self.duration_nanos = signed(raw[10][-1]) if raw[10] else 0
        self.end_nanos = self.time_nanos + self.duration_nanos
        self.period_type = self._type(raw[11][-1]) if raw[11] else None
        self.period = signed(raw[12][-1]) if raw[12] else 0
        self.comments = [self._strings[i] for value in raw[13] for i in repeated(value)]
        self.default_type = self._strings[raw[14][-1]] if raw[14] else ""

    def _last(self, data):
        return collections.defaultdict(int, fields(data))

    def _type(self, data):
        f = self._last(data)
        return self._strings[f[1]], self._strings[f[2]]

    def _mapping(self, data):
        f = self._last(data)
        return Mapping(
            f[1], f[2], f[3], f[4], self._strings[f[5]], self._strings[f[6]],
            bool(f[7]), bool(f[8]), bool(f[9]), bool(f[10]),
        )  # fmt: skip

    def _function(self, data):
        f = self._last(data)
        return f[1], (self._strings[f[2]], self._strings[f[3]], self._strings[f[4]], signed(f[5]))

    def _location(self, data):
        lines = []
        f = collections.defaultdict(int)
        for number, value in fields(data):
            if number == 4:
                line = self._last(value)
                name, system_name, file, start_line = self._functions[line[1]]
                lines.append(Line(name, system_name, file, signed(line[2]), start_line))
            else:
                f[number] = value
        if f[2] and f[2] not in self.mappings:
            raise ValueError(f"location {f[1]} is in mapping {f[2]}, which there is not")
        return Location(f[1], f[2], f[3], lines)

    def _sample(self, data):
        locations, values, labels = [], [], []
        for number, value in fields(data):
            if number == 1:
                locations += [self.locations[i] for i in repeated(value)]
            elif number == 2:
                values += [signed(v) for v in repeated(value)]
            elif number == 3:
                labels.append(self._last(value))
        if len(values) != len(self.types):
            raise ValueError(f"a sample has {len(values)} values, there are {len(self.types)} types")
        return Sample(locations, values, labels)

    # What the tests ask for.

    def number_label(self, label):
        """(key, number) of a numeric label."""
        return self._strings[label[1]], signed(label[3])

    def names(self, sample):
        """Function names leaf first, inlined calls too, frames without a name as None."""
        names = []
        for location in sample.locations:
            names += [line.function for line in location.lines] or [None]
        return names

    def by_stack(self, root):
        """Sums of the values by the names from the allocation's caller to `root`; see cut_stack()."""
        sums = {}
        for sample in self.samples:
            add_values(sums, cut_stack(self._visible(sample), root), sample.values)
        return sums

    def _visible(self, sample):
        """The names that pprof shows: it drops the frame that drop_frames matches and all below."""
        names = self.names(sample)
        if self.drop_frames:
            for i in range(len(names) - 1, -1, -1):
                if names[i] and re.fullmatch(self.drop_frames, names[i]):
                    return names[i + 1 :]
        return names

    def totals(self):
        return [sum(column) for column in zip(*(s.values for s in self.samples))] or [0] * len(self.types)

    def comment(self):
        return Comments(self.comments)


def cut_stack(names, root):
    """The names up to the first `root` as a tuple; None where it does not occur.

    What lies beyond is libc's thread start, where a frame-pointer walk may end anywhere.
    """
    return tuple(names[: names.index(root) + 1]) if root in names else None


def add_values(sums, key, values):
    old = sums.get(key, [0] * len(values))
    sums[key] = [a + b for a, b in zip(old, values)]


class Comments:
    """The profile's comments: `key: word N, word N, ...`, some with text instead."""

    def __init__(self, lines):
        self.lines = lines
        self.texts = {}
        for line in lines:
            key, _, text = line.partition(": ")
            self.texts[key] = text

    def text(self, key):
        if key not in self.texts:
            raise AssertionError(f"no comment {key!r} in {self.lines}")
        return self.texts[key]

    def numbers(self, key):
        """Every `word N` of comment `key`."""
        return {word: int(n) for word, n in re.findall(r"([a-z-]+) (\d+)", self.text(key))}


def sum_comments(profiles, key):
    """The numbers of comment `key` summed over the profiles: for what counts per interval."""
    sums = collections.Counter()
    for profile in profiles:
        sums.update(profile.comment().numbers(key))
    return sums


def sum_stacks(profiles, root):
    """alloc_* summed over all the profiles, inuse_* of the last one, by stack."""
    sums = {}
    for i, profile in enumerate(profiles):
        for key, values in profile.by_stack(root).items():
            is_last = i == len(profiles) - 1
            add_values(sums, key, values if is_last else values[:2] + [0, 0])
    return {key: values for key, values in sums.items() if any(values)}


# ---- return addresses ------------------------------------------------------------------------------

# mov $15, %rax; syscall: where a signal handler returns to. Source: sigreturn(2), unistd_64.h.
SIGNAL_RETURN = bytes.fromhex("48c7c00f0000000f05")

Code = collections.namedtuple("Code", "segments returns data")
_codes = {}


def code_of(path):
    """An ELF file's executable segments (offset, address, size), the addresses behind its calls, its bytes."""
    if path not in _codes:
        headers = subprocess.run(["readelf", "-lW", path], check=True, capture_output=True, text=True)
        segments = []
        for words in map(str.split, headers.stdout.splitlines()):
            if words[:1] == ["LOAD"] and "E" in words[6:-1]:
                segments.append(tuple(int(words[i], 16) for i in (1, 2, 4)))
        with open(path, "rb") as file:
            _codes[path] = Code(segments, addresses_behind_calls(path), file.read())
    return _codes[path]


def addresses_behind_calls(path):
    """Of every call instruction the address of the next one, as objdump finds them."""
    behind, after_call = set(), False
    with subprocess.Popen(
        ["objdump", "-d", "-w", "--no-show-raw-insn", path], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            address, separator, instruction = line.partition(":\t")
            if separator:
                if after_call:
                    behind.add(int(address, 16))
                after_call = "call" in instruction.split("<")[0]
    if process.returncode != 0:
        raise AssertionError(f"objdump {path}: exit status {process.returncode}")
    return behind


def impossible_frames(profile):
    """The frames that cannot be: their address is no return address, because no call is before it.

    As (file, file offset of the looked-up byte, name). A frame's address is the one that is looked up: of
    a return address the byte before, of the innermost frame and of one that a signal interrupted the
    instruction itself. Frames of generated code, which is in no file, are not looked at; what is in no
    mapping at all cannot be. Marks (see the manual) are no frames.
    """
    found = set()
    for sample in profile.samples:
        is_exact = True  # the innermost
        for location in sample.locations:
            name = location.lines[0].function if location.lines else None
            if location.mapping_id == 0:
                if location.address != 0:
                    found.add(("", location.address, name))
                continue
            mapping = profile.mappings[location.mapping_id]
            offset = location.address - mapping.start + mapping.offset
            if not mapping.file.startswith("/"):
                if mapping.file == "[vdso]":  # calls nobody
                    found.add((mapping.file, offset, name))
                is_exact = False
                continue
            code = code_of(mapping.file)
            is_return = code.data[offset : offset + len(SIGNAL_RETURN)] == SIGNAL_RETURN
            if not is_exact and not is_return and not is_behind_call(code, offset + 1):
                found.add((mapping.file, offset, name))
            is_exact = is_return
    return sorted(found, key=str)


# What stands outermost in a stack of which not all is known.
MARKS = {"[stack cut short]", "[frames guessed]", "[no unwind tables]", "[stack not understood]"}


def marked(profile):
    """The first two values (count; bytes or delay) of the samples whose stacks carry a mark."""
    sums = [0, 0]
    for sample in profile.samples:
        root = sample.locations[-1]
        if root.mapping_id == 0 and root.lines and root.lines[0].function in MARKS:
            sums = [total + value for total, value in zip(sums, sample.values)]
    return sums


def is_behind_call(code, offset):
    return any(
        offset - start + address in code.returns
        for start, address, size in code.segments
        if start < offset <= start + size
    )


# ---- the oracle ------------------------------------------------------------------------------------


def go_pprof(*args):
    """Output of `go tool pprof ARGS`; anything on its standard error but progress is a failure."""
    result = subprocess.run(
        ["go", "tool", "pprof", "-symbolize=none", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
        env=dict(os.environ, HOME="/nonexistent", PPROF_TMPDIR=tempfile.gettempdir(), GOFLAGS="",
                 GOCACHE="off"),
    )  # fmt: skip
    if result.returncode != 0:
        raise AssertionError(f"go tool pprof {args}: {result.stderr}")
    return result.stdout


class Raw:
    """What `go tool pprof -raw FILE...` says, parsed."""

    LINE = re.compile(r"^(?P<function>.*) (?P<file>\S*):(?P<line>\d+)(:\d+)? s=(?P<start>\d+)(\((?P<system>.*)\))?$")

    def __init__(self, *args):
        self.text = go_pprof("-raw", *args)
        self.header, self.comments, self.samples, self.locations, self.mappings = {}, [], [], {}, []
        self.types, self.default_type = [], None
        section = self._read_header
        for line in self.text.splitlines():
            if line == "Samples:":
                section = self._read_types
            elif line == "Locations":
                section = self._read_location
            elif line == "Mappings":
                section = self.mappings.append
            else:
                section = section(line) or section

    def _read_header(self, line):
        key, _, text = line.partition(": ")
        if key == "Comment":
            self.comments.append(text)
        else:
            self.header[key] = text

    def _read_types(self, line):
        for word in line.split():
            if word.endswith("[dflt]"):
                word = word[: -len("[dflt]")]
                self.default_type = word.split("/")[0]
            self.types.append(tuple(word.split("/")))
        return self._read_sample

    def _read_sample(self, line):
        match = re.fullmatch(r"\s*((?:-?\d+ *)+):((?: \d+)*)\s*", line)
        if match:
            self.samples.append(([int(v) for v in match[1].split()], [int(i) for i in match[2].split()]))

    def _read_location(self, line):
        match = re.fullmatch(r"\s*(\d+): 0x([0-9a-f]+) (?:M=\d+ )?(?:\[F\] )?(.*)", line)
        if match:
            self._location = int(match[1])
            self.locations[self._location] = []
            line = match[3]
        match = self.LINE.match(line.strip())
        self.locations[self._location].append(match["function"] if match else None)

    def by_stack(self, root):
        sums = {}
        for values, ids in self.samples:
            names = [name for i in ids for name in self.locations[i]]
            add_values(sums, cut_stack(names, root), values)
        return sums
