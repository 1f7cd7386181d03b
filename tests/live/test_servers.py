#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Real servers under their clients: nothing breaks, and the profiles are what pprof accepts."""

import concurrent.futures
import os
import re
import shutil
import socket
import subprocess
import tempfile

from harness import PATIENCE_S, LiveTest, main, poll, process_state
from profiles import HEAP_TYPES, Raw, go_pprof, impossible_frames, marked


def connect(path):
    """A connection to a UNIX socket, or None if nobody listens yet."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(PATIENCE_S)
    try:
        client.connect(path)
        return client
    except (FileNotFoundError, ConnectionRefusedError):
        client.close()
        return None


class Server:
    """A server that a test starts for itself, on a socket in its own directory."""

    def __init__(self, *command, directory):
        self.directory = directory
        self.socket = os.path.join(directory, "socket")
        self.path = command[0]
        with open(os.path.join(directory, "log"), "wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory
            )
        self.pid = self._process.pid

    def wait_listening(self):
        poll(lambda: self.alive() and connect(self.socket), f"{self.path} to listen").close()

    def log(self):
        with open(os.path.join(self.directory, "log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def alive(self):
        return self._process.poll() is None

    def kill(self):
        if self.alive():
            self._process.terminate()
        self._process.wait(PATIENCE_S)

    def quit(self):
        self._process.terminate()
        return self._process.wait(PATIENCE_S)


class ServerTest(LiveTest):
    """A directory for servers, and servers that end with the test."""

    def setUp(self):
        super().setUp()
        self.directory = tempfile.mkdtemp(prefix="dp-server-")

    def tearDown(self):
        super().tearDown()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, *command):
        server = Server(*command, directory=self.directory)
        self.targets.append(server)
        return server

    def assert_whole(self, profiles):
        """99.5 % of all samples reach the outermost frame, by count and by value; no frame is impossible."""
        for profile in profiles:
            self.assertEqual(impossible_frames(profile), [])
        for i in range(2):
            n_all = sum(profile.totals()[i] for profile in profiles)
            n_marked = sum(marked(profile)[i] for profile in profiles)
            self.assertLessEqual(n_marked, 0.005 * n_all, [profile.comments for profile in profiles])


class ServersTest(ServerTest):
    def check_files(self, profiler, n_least):
        """Every file alone, all together, and one against another, by pprof; returns the merged text."""
        profiles = profiler.profiles()
        paths = [profile.path for profile in profiles]
        self.assertGreaterEqual(len(paths), n_least)
        busy = [profile for profile in profiles if profile.totals()[1] > 0]
        self.assertGreaterEqual(len(busy), n_least - 1)
        self.assert_whole(profiles)
        for profile in profiles:
            self.assertEqual(profile.types, HEAP_TYPES)
            for sample in profile.samples:
                self.assertTrue(sample.locations)
                self.assertTrue(all(value >= 0 for value in sample.values), sample)
                self.assertTrue(any(sample.values), sample)
        for path in paths:
            self.assertIn("Type: alloc_space", go_pprof("-top", path))
            self.assertEqual(Raw(path).types, HEAP_TYPES)
        merged = go_pprof("-top", "-nodecount=100000", *paths)
        self.assertIn("alloc_space", merged)
        self.assertIn("flat%", go_pprof("-top", "-diff_base", busy[0].path, busy[-1].path))
        total = sum(Raw(*paths).by_stack("no such root")[None][i] for i in (0, 1))
        self.assertEqual(total, sum(sum(profile.totals()[:2]) for profile in profiles))
        return merged

    # ---- redis: jemalloc, stripped, no frame pointers ----

    def start_redis(self):
        server = self.start(
            "/usr/bin/redis-server", "--port", "0", "--unixsocket", os.path.join(self.directory, "socket"),
            "--save", "", "--appendonly", "no", "--dir", self.directory, "--daemonize", "no",
        )  # fmt: skip
        server.wait_listening()
        return server

    def redis_cli(self, *words):
        return subprocess.run(
            ["redis-cli", "-s", os.path.join(self.directory, "socket"), *words],
            capture_output=True, text=True, timeout=PATIENCE_S, check=True,
        ).stdout  # fmt: skip

    def redis_benchmark(self, n):
        """The rates by test name; anything that is no result line is a failure."""
        output = subprocess.run(
            ["redis-benchmark", "-s", os.path.join(self.directory, "socket"), "-n", str(n), "-r", "1000",
             "-d", "200", "-c", "20", "-t", "set,get,incr,lpush,lrange_100,sadd,hset,zadd", "--csv"],
            capture_output=True, text=True, timeout=180, check=True,
        )  # fmt: skip
        self.assertEqual(result_errors(output.stderr), "")
        lines = output.stdout.strip().splitlines()
        self.assertGreaterEqual(len(lines), 9, output.stdout)
        for line in lines[1:]:
            self.assertRegex(line, r'^"[^"]+","\d+\.\d+"')

    def test_redis_under_its_benchmark(self):
        server = self.start_redis()
        profiler = self.profile(server, "-i", "1s")
        for _ in range(2):
            self.redis_benchmark(6000)
        profiler.wait_covered()
        self.finish(profiler)
        self.check_redis_answers(server)
        merged = self.check_files(profiler, 3)
        # Debian's redis-server has no symbols of its own but is linked to export some; what has no name is
        # shown as file and offset.
        self.assertRegex(merged, r"redis-server\+0x[0-9a-f]+|redis-check-rdb\+0x[0-9a-f]+|zmalloc|sds")
        self.assertRegex(profiler.paths()[0], rf"/redis-server-{server.pid}-heap-[^/]*\.pb\.gz$")

    def check_redis_answers(self, server):
        self.assertTrue(server.alive())
        self.assertEqual(self.redis_cli("ping"), "PONG\n")
        info = self.redis_cli("info", "stats")
        self.assertEqual(re.search(r"^total_error_replies:(\d+)", info, re.M)[1], "0")
        self.assertEqual(self.redis_cli("set", "after", "the profile"), "OK\n")
        self.assertEqual(self.redis_cli("get", "after"), "the profile\n")

    def test_redis_with_every_allocation_delivered(self):
        server = self.start_redis()
        profiler = self.profile(server, "-i", "1s", "--heap-rate", "1", "--stacks", "auto")
        self.redis_benchmark(1500)
        profiler.wait_covered()
        self.finish(profiler)
        self.check_redis_answers(server)
        self.check_files(profiler, 2)

    def test_redis_that_is_attached_to_again_and_again(self):
        server = self.start_redis()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            client = pool.submit(self.redis_benchmark, 6000)
            n_attached = 0
            while n_attached < 4 or not client.done():
                profiler = self.profile(server, "-i", "10s")
                self.finish(profiler)
                n_attached += 1
            client.result()
        self.check_redis_answers(server)

    # ---- glibc's malloc ----

    def test_memcached_under_many_connections(self):
        server = self.start(
            "/usr/bin/memcached", "-u", "root", "-s", os.path.join(self.directory, "socket"), "-t", "4"
        )
        server.wait_listening()
        profiler = self.profile(server, "-i", "500ms", "--heap-rate", "1KiB")
        for round_number in range(3):
            self.memcached_client(server, round_number)
            profiler.wait_covered()
        self.finish(profiler)
        self.memcached_client(server, 9)
        self.check_files(profiler, 3)

    def memcached_client(self, server, round_number):
        def talk(number):
            client = connect(server.socket)
            answers = client.makefile("rb")
            for i in range(100):
                key, value = f"key-{round_number}-{number}-{i}".encode(), os.urandom(500).hex().encode()
                client.sendall(b"set %s 0 0 %d\r\n%s\r\nget %s\r\n" % (key, len(value), value, key))
                for expected in (b"STORED", b"VALUE %s 0 %d" % (key, len(value)), value, b"END"):
                    self.assertEqual(answers.readline(), expected + b"\r\n")
            client.close()

        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            list(pool.map(talk, range(40)))

    def test_nginx_under_requests(self):
        with open(os.path.join(self.directory, "conf"), "w", encoding="utf-8") as file:
            file.write(
                f"daemon off; master_process off; pid {self.directory}/pid; error_log stderr;\n"
                f"events {{}}\nhttp {{ access_log off; server {{ listen unix:{self.directory}/socket;\n"
                '  location / { return 200 "well done"; } } }\n'
            )
        server = self.start("/usr/sbin/nginx", "-p", self.directory, "-c", f"{self.directory}/conf")
        server.wait_listening()
        profiler = self.profile(server, "-i", "500ms", "--heap-rate", "1", "--stacks", "auto")
        for _ in range(3):
            self.nginx_client(server, 300)
            profiler.wait_covered()
        self.finish(profiler)
        self.nginx_client(server, 10)
        merged = self.check_files(profiler, 3)
        self.assertRegex(merged, r"nginx\+0x|ngx_")

    def nginx_client(self, server, n):
        for _ in range(n):
            client = connect(server.socket)
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with client.makefile("rb") as answer:
                text = answer.read()
            client.close()
            self.assertTrue(text.startswith(b"HTTP/1.1 200 OK\r\n"), text)
            self.assertTrue(text.endswith(b"well done"), text)

    def test_python_that_compiles_and_frees(self):
        """An interpreter of its own memory pools above malloc, driven line by line."""
        program = (
            "import sys, gc\n"
            "print('ready', __import__('os').getpid(), flush=True)\n"
            "for line in sys.stdin:\n"
            "    if line == 'quit\\n': break\n"
            "    data = [bytes(i % 5000) for i in range(20000)]\n"
            "    code = compile('x = [' + '1,' * 20000 + ']', 'f', 'exec')\n"
            "    print('{\"sum\":%d}' % sum(map(len, data)), flush=True)\n"
        )
        target = self.target("python3", "-c", program, path="/usr/bin/python3")
        profiler = self.profile(target, "-i", "300ms", "--heap-rate", "16KiB")
        for _ in range(4):
            self.assertEqual(target.ask("go")["sum"], sum(i % 5000 for i in range(20000)))
            profiler.wait_covered()
        self.finish(profiler)
        self.assertEqual(target.ask("go")["sum"], sum(i % 5000 for i in range(20000)))
        merged = self.check_files(profiler, 4)
        self.assertRegex(merged, r"Py|python3")
        self.assertEqual(target.quit(), 0)
        self.assertIsNone(process_state(target.pid))


def result_errors(text):
    """redis-benchmark's standard error without its warning that CONFIG may be renamed."""
    return "\n".join(line for line in text.splitlines() if line and "CONFIG" not in line)


if __name__ == "__main__":
    main()
