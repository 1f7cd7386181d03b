#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Stacks of stripped programs, frame by frame, beside those that the process itself sees.

A preloaded library (targets/reference.c) unwinds every allocation from within and counts it by stack. The
program is stopped while both begin and while both end, at moments when all of its threads sleep in the
kernel: so both count the same calls, and every stack must have the same count and bytes in both.
"""

import mmap
import os
import signal
import struct
import subprocess

import test_servers
from harness import PATIENCE_S, TARGETS, LineReader, code_mappings, main, poll, process_state
from profiles import MARKS, impossible_frames

# struct reference.
N_SLOTS, N_FRAMES = 65536, 8 << 20
SLOTS_AT = 32
FRAMES_AT = SLOTS_AT + 32 * N_SLOTS
FILE_BYTES = FRAMES_AT + 8 * N_FRAMES

LIBRARY = os.path.join(TARGETS, "reference.so")

ALLOCATORS = {
    "malloc", "calloc", "realloc", "reallocarray", "memalign", "aligned_alloc", "posix_memalign", "valloc",
}  # fmt: skip

# read, poll, select, nanosleep, futex, clock_nanosleep, epoll_wait, pselect6, ppoll, epoll_pwait. Source:
# asm/unistd_64.h.
SLEEPS = {"0", "7", "23", "35", "202", "230", "232", "270", "271", "281"}


class Reference:
    """The file that the preloaded library counts in."""

    def __init__(self, path):
        self.path = path
        self.environment = {"LD_PRELOAD": LIBRARY, "DP_REFERENCE": path}
        with open(path, "w+b") as file:
            file.truncate(FILE_BYTES)
            self._map = mmap.mmap(file.fileno(), FILE_BYTES)

    def enable(self, on):
        struct.pack_into("<Q", self._map, 0, on)

    def header(self):
        """pid, n_lost, n_frames"""
        return struct.unpack_from("<QQQ", self._map, 8)

    def stacks(self):
        """(count, bytes) by stack of addresses, innermost first."""
        found = {}
        for count, n_bytes, first, depth in struct.iter_unpack("<QQQQ", self._map[SLOTS_AT:FRAMES_AT]):
            if count:
                frames = struct.unpack_from(f"<{depth}Q", self._map, FRAMES_AT + 8 * first)
                found[frames] = (count, n_bytes)
        return found


class Program:
    """A program that reads its work from stdin and answers each piece of it with a line `done`."""

    def __init__(self, *command, environment):
        self.path = command[0]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env=dict(os.environ, **environment),
        )  # fmt: skip
        self._reader = LineReader(self._process.stdout)
        self._n_read = 0
        self.pid = self._process.pid

    def work(self, text):
        self._process.stdin.write(text)
        self._process.stdin.flush()
        self._n_read = 1 + self._reader.wait(lambda line: line == "done", text, self._n_read)

    def alive(self):
        return self._process.poll() is None

    def kill(self):
        self._process.kill()
        self._process.wait(PATIENCE_S)
        self._process.stdin.close()
        self._reader.close()


def is_asleep(pid):
    """Whether every thread of a stopped process had slept in the kernel, and not in an allocator."""
    for tid in os.listdir(f"/proc/{pid}/task"):
        if process_state(pid, tid) != "T":
            return None
        with open(f"/proc/{pid}/task/{tid}/syscall", encoding="utf-8") as file:
            if file.read().split()[0] not in SLEEPS:
                return False
    return True


def stop(pid):
    """Stops a process while all of its threads sleep."""

    def try_once():
        os.kill(pid, signal.SIGSTOP)
        asleep = None
        while asleep is None:
            asleep = is_asleep(pid)
        if not asleep:
            os.kill(pid, signal.SIGCONT)
        return asleep

    poll(try_once, f"process {pid} to sleep")


def place(address, mappings):
    """(file, offset) of an address, as the maps say."""
    for start, end, offset, path in mappings:
        if start <= address < end:
            return path, address - start + offset
    return "", address


def reference_stacks(reference, pid):
    mappings = list(code_mappings(pid))
    return {
        tuple(place(frame, mappings) for frame in frames): values
        for frames, values in reference.stacks().items()
    }


def place_of(profile, location):
    if location.mapping_id == 0:
        return "", location.address
    mapping = profile.mappings[location.mapping_id]
    return mapping.file, location.address - mapping.start + mapping.offset


def profile_stacks(profiles):
    """(count, bytes) by (stack, mark), without the allocation function and the library's own frame."""
    found = {}
    for profile in profiles:
        for sample in profile.samples:
            if not sample.values[0]:
                continue
            leaf, own, *rest = sample.locations
            if leaf.lines[0].function not in ALLOCATORS or place_of(profile, own)[0] != LIBRARY:
                raise AssertionError(f"not below {LIBRARY}: {profile.names(sample)}")
            mark = None
            if rest and rest[-1].mapping_id == 0 and rest[-1].lines[0].function in MARKS:
                mark = rest.pop().lines[0].function
            key = tuple(place_of(profile, location) for location in rest), mark
            count, n_bytes = found.get(key, (0, 0))
            found[key] = count + sample.values[0], n_bytes + sample.values[1]
    return found


def settle_cut(found, expected):
    """Takes stacks that were cut short, and say so, for those that begin like them.

    Until the profiler has seen how deep a process's stacks are, its copies of them are too small; a cut
    stack must be the beginning of one that the process saw, as many times as are missing there. What
    lies beyond two equal beginnings cannot be told apart: their bytes are compared as one sum. Returns how
    many calls were cut, and by how much that sum differs.
    """
    cut = {stack: found.pop((stack, mark)) for stack, mark in list(found) if mark == "[stack cut short]"}
    missing = {stack: values[0] - found.get((stack, None), (0, 0))[0] for stack, values in expected.items()}
    n_bytes, touched = sum(values[1] for values in cut.values()), set()
    # The longest first: whatever another one could take is behind its own beginning too.
    for beginning in sorted(cut, key=len, reverse=True):
        n_left = cut[beginning][0]
        for stack in expected:
            if stack[: len(beginning)] == beginning and min(n_left, missing[stack]) > 0:
                n_taken = min(n_left, missing[stack])
                n_left -= n_taken
                missing[stack] -= n_taken
                touched.add(stack)
        if n_left:
            found[beginning, "[stack cut short]"] = n_left, 0
    for stack in touched:
        count, has_bytes = found.get((stack, None), (0, 0))
        n_bytes += has_bytes - expected[stack][1]
        found[stack, None] = expected[stack][0] - missing[stack], expected[stack][1]
    return sum(values[0] for values in cut.values()), n_bytes


class ReferenceTest(test_servers.ServerTest):
    STACKS = "dwarf"

    def setUp(self):
        super().setUp()
        self.reference = Reference(os.path.join(self.directory, "reference"))

    def compare(self, pid, work):
        """Runs work(profiler) twice between two stops; the stacks of both must be the same.

        The work comes in pieces of about a thousand calls, each begun when the profiler has caught up: the
        rings hold them whole, with copies of the stack, even if it does not run meanwhile.
        """
        self.assertEqual(self.reference.header()[0], pid, "the library is not there")
        stop(pid)
        profiler = self.profile(pid, "--heap-rate", "1", "-i", "1s", "--stacks", self.STACKS)
        self.reference.enable(1)
        os.kill(pid, signal.SIGCONT)
        work(profiler)
        n_first = len(profiler.wait_covered())
        work(profiler)
        profiler.wait_idle()
        stop(pid)
        self.reference.enable(0)
        self.finish(profiler)
        expected = reference_stacks(self.reference, pid)
        os.kill(pid, signal.SIGCONT)
        profiles = profiler.profiles()
        self.assertEqual(self.reference.header()[1], 0, "the reference lost calls")
        self.assert_nothing_odd(profiles)
        for profile in profiles:
            self.assertEqual(impossible_frames(profile), [])
        found = profile_stacks(profiles)
        n_all = sum(count for count, _ in expected.values())
        self.assertEqual(sum(count for count, _ in found.values()), n_all)
        n_cut, n_bytes = settle_cut(found, expected)
        print(f"{n_all} calls, {len(expected)} stacks, {n_cut} calls' stacks cut short", flush=True)
        self.assert_stacks(found, {(stack, None): values for stack, values in expected.items()})
        self.assertEqual(n_bytes, 0, "bytes of the stacks that were cut short")
        self.check_whole(profile_stacks(profiles[n_first:]))

    def check_whole(self, found):
        """When the copies fit the process, 99.5 % of the stacks are whole, by count and by bytes."""
        for i in range(2):
            n_all = sum(values[i] for values in found.values())
            n_whole = sum(values[i] for (_, mark), values in found.items() if mark is None)
            self.assertGreater(n_all, 100)
            self.assertGreaterEqual(n_whole, 0.995 * n_all)

    def test_sqlite3(self):
        program = Program("/usr/bin/sqlite3", "-batch", environment=self.reference.environment)
        self.targets.append(program)
        done = ".print done\n"
        program.work("select 1;\n" + done)

        def work(profiler):
            for statement in (
                "create table t (i integer primary key, a text, b real);",
                *(
                    f"insert into t with recursive n(i) as (select {first} union all select i + 1 from n"
                    f" where i < {first + 299}) select i, 'name ' || (i * 7919 % 3001), i / 7.0 from n;"
                    for first in range(1, 3000, 300)
                ),
                "create index ta on t (a);",
                "create view v as select substr(a, 1, 6) g, count(*) n, avg(b) m from t group by g;",
                "select count(*), max(m) from v;",
                "select a.i, b.i from t a join t b on a.a = b.a where a.b > 420 order by b.b desc limit 5;",
                "select json_group_array(a) from (select a from t limit 500);",
                "select group_concat(upper(a)) from (select a from t order by a limit 300);",
                "begin; update t set a = a || '!' where i % 3 = 0; delete from t where i % 5 = 0; commit;",
                "select * from (select i, row_number() over (partition by i % 7 order by b) r from t) where r = 3;",
                "with recursive c(x) as (select 1 union select x * 2 % 1009 from c) select sum(x) from c;",
                "drop view v; drop table t; vacuum;",
            ):
                program.work(statement + "\n" + done)
                profiler.wait_idle()

        self.compare(program.pid, work)

    def test_python3(self):
        script = (
            "import sys\n"
            "for line in sys.stdin:\n"
            "    exec(line)\n"
            "    print('done', flush=True)\n"
        )
        program = Program("/usr/bin/python3", "-c", script, environment=self.reference.environment)
        self.targets.append(program)
        program.work("x = 1\n")

        def work(profiler):
            for line in (
                "import json, re, decimal, collections",
                "import zlib",
                "import sqlite3",
                "import lzma",
                "a = [bytes(600 + i) for i in range(300)]",
                "d = {str(i): [i] * 80 for i in range(300)}; s = json.dumps(d); e = json.loads(s)",
                "c = compile('x = [' + '1,' * 2000 + ']', 'f', 'exec')",
                "r = re.compile('(a|b)*c(d+)(?P<name>e{2,5})'); m = r.findall('abcdee' * 200)",
                "z = zlib.decompress(zlib.compress(s.encode()))",
                "exec('class A:\\n    def f(self): return sorted(map(str, range(2000)))'); A().f()",
                "f = lambda n: [bytes(700)] + (f(n - 1) if n else []); g = f(40)",
                "q = sqlite3.connect(':memory:').execute('select 1 + 1, group_concat(1)').fetchall()",
                "del a, d, e, g; import gc; n = gc.collect()",
            ):
                program.work(line + "\n")
                profiler.wait_idle()

        self.compare(program.pid, work)

    def start_server(self, *command):
        environment = (f"{key}={value}" for key, value in self.reference.environment.items())
        server = self.start("env", *environment, *command)
        server.wait_listening()
        return server

    def test_nginx(self):
        """Its pools are of posix_memalign()."""
        with open(os.path.join(self.directory, "conf"), "w", encoding="utf-8") as file:
            file.write(
                f"daemon off; master_process off; pid {self.directory}/pid; error_log stderr;\n"
                f"events {{}}\nhttp {{ access_log off; server {{ listen unix:{self.directory}/socket;\n"
                "  gzip on; gzip_min_length 1; gzip_types *;\n"
                "  location / { root /usr/share/common-licenses; } } }\n"
            )
        server = self.start_server(
            "/usr/sbin/nginx", "-p", self.directory, "-c", f"{self.directory}/conf"
        )

        def work(profiler):
            for i in range(60):
                client = test_servers.connect(server.socket)
                for path in ("GPL-2", "missing", "Artistic"):
                    client.sendall(
                        f"GET /{path} HTTP/1.1\r\nHost: x\r\nX-{i}: {'y' * i * 9}\r\n"
                        "Accept-Encoding: gzip\r\nConnection: close\r\n\r\n".encode()
                    )
                    with client.makefile("rb") as answer:
                        self.assertIn(answer.read()[:12], (b"HTTP/1.1 200", b"HTTP/1.1 404"))
                    client.close()
                    client = test_servers.connect(server.socket)
                client.close()
                if i % 20 == 0:
                    profiler.wait_idle()

        self.compare(server.pid, work)

    def test_memcached(self):
        """Its allocations are those of threads, whose stacks end at the thread's start."""
        server = self.start_server(
            "/usr/bin/memcached", "-u", "root", "-s", os.path.join(self.directory, "socket"), "-t", "4"
        )

        def talk(i):
            client = test_servers.connect(server.socket)
            with client.makefile("rb") as answers:
                keys = [f"key-{i}-{j}".encode() for j in range(30)]
                for key in keys:
                    client.sendall(b"set %s 0 0 2000\r\n%s\r\n" % (key, b"v" * 2000))
                    self.assertEqual(answers.readline(), b"STORED\r\n")
                client.sendall(b"get " + b" ".join(keys) + b"\r\nstats\r\n")
                lines = iter(answers.readline, b"END\r\n")
                self.assertEqual(sum(len(line) == 2002 for line in lines), len(keys))
                self.assertGreater(len(list(iter(answers.readline, b"END\r\n"))), 20)
            return client

        def work(profiler):
            clients = []
            for i in range(100):
                clients.append(talk(i))
                if i % 10 == 9:
                    profiler.wait_idle()
            for client in clients:
                client.close()

        self.compare(server.pid, work)

    def test_redis_server(self):
        server = self.start_server(
            "/usr/bin/redis-server", "--port", "0", "--unixsocket", os.path.join(self.directory, "socket"),
            "--save", "", "--appendonly", "no", "--dir", self.directory, "--daemonize", "no",
        )  # fmt: skip

        def cli(commands):
            result = subprocess.run(
                ["redis-cli", "-s", server.socket], input=commands, capture_output=True, text=True,
                timeout=PATIENCE_S, check=True,
            )  # fmt: skip
            return result.stdout

        def work(profiler):
            for i in range(20):
                commands = []
                for j in range(i * 10, i * 10 + 10):
                    commands += [
                        f"set key:{j} {'v' * (j * 7 + 1)}", f"append key:{j} tail", f"hset hash f{j} {j}",
                        f"lpush list {j} {j + 1}", f"sadd set m{j}", f"zadd zset {j} m{j}", f"xadd s * a {j}",
                        f"expire key:{j} 100", f"setrange key:{j} 900 x", f"get key:{j}",
                    ]  # fmt: skip
                commands += ["sort list", "eval 'return {1, 2, redis.call(\"get\", \"key:1\")}' 0", "info"]
                self.assertNotIn("ERR", cli("\n".join(commands) + "\n"))
                profiler.wait_idle()

        self.compare(server.pid, work)


class AutoReferenceTest(ReferenceTest):
    """The same by default: where code keeps frame pointers, they are followed."""

    STACKS = "auto"


if __name__ == "__main__":
    main()
