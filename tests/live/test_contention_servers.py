#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Mutex and block profiles of real servers whose threads share work: nothing breaks, pprof accepts it."""

import concurrent.futures
import os
import re
import shutil
import subprocess
import time
import unittest

import test_servers
from harness import PATIENCE_S, main, poll
from profiles import FILE_NAME, HEAP_TYPES, Profile, Raw, go_pprof

TYPES = {
    "heap": HEAP_TYPES,
    "mutex": [("contentions", "count"), ("delay", "nanoseconds")],
    "block": [("contentions", "count"), ("delay", "nanoseconds")],
}
ALL = ("-e", "heap,mutex,block", "-i", "500ms", "--heap-rate", "16KiB")
EVERY_WAIT = ("--block-rate", "1ns")


class ContentionServersTest(test_servers.ServerTest):
    def start(self, *command):
        server = super().start(*command)
        server.wait_listening()
        return server

    def in_directory(self, name):
        return os.path.join(self.directory, name)

    def check_files(self, profiler, n_least):
        """Every file alone and all of a kind together, by pprof; the merged `-top` by kind."""
        paths = {name: [] for name in TYPES}
        for path in profiler.paths():
            paths[FILE_NAME.match(os.path.basename(path))["profile"]].append(path)
        tops = {}
        for name, files in paths.items():
            self.assertGreaterEqual(len(files), n_least, name)
            total = 0
            profiles = [Profile(path) for path in files]
            # In the first, copies of stacks grow to what the process needs.
            self.assert_whole(profiles[1:])
            for path, profile in zip(files, profiles):
                self.assertEqual(profile.types, TYPES[name])
                for sample in profile.samples:
                    self.assertTrue(all(value >= 0 for value in sample.values), sample)
                    self.assertTrue(any(sample.values), sample)
                self.assertIn("Type: ", go_pprof("-top", path))
                total += profile.totals()[1]
            tops[name] = go_pprof("-top", "-cum", "-nodecount=100000", "-nodefraction=0", *files)
            self.assertEqual(sum(values[1] for values, _ in Raw(*files).samples), total)
        return tops

    def profiles_of(self, profiler, name):
        return [Profile(path) for path in profiler.paths() if f"-{name}-" in os.path.basename(path)]

    def check_block_against_mutex(self, profiler, n_threads, seconds):
        """What is in mutex is in block too; no thread waits longer than the time there is."""
        block = sum(profile.totals()[1] for profile in self.profiles_of(profiler, "block"))
        mutex = sum(profile.totals()[1] for profile in self.profiles_of(profiler, "mutex"))
        self.assertGreaterEqual(block, mutex)
        self.assertLess(block, n_threads * seconds * 1_000_000_000)

    def check_unwound(self, profiler, *words):
        """Nine in ten stacks at least ended in one of these ways, by the comments' last words for them."""
        numbers = [profile.comment().numbers("unwound") for profile in self.profiles_of(profiler, "block")]
        n_stacks = sum(n["stacks"] for n in numbers)
        self.assertGreater(n_stacks, 10)
        self.assertGreaterEqual(sum(n[word] for n in numbers for word in words), 0.9 * n_stacks, numbers)

    # ---- redis with I/O threads: the main thread holds their mutexes while there is nothing to do ----

    def test_redis_with_io_threads(self):
        server = self.start(
            "/usr/bin/redis-server", "--port", "0", "--unixsocket", self.in_directory("socket"),
            "--save", "", "--appendonly", "no", "--dir", self.directory, "--daemonize", "no",
            "--io-threads", "4", "--io-threads-do-reads", "yes",
        )  # fmt: skip
        began = time.monotonic()
        profiler = self.profile(server, *ALL, *EVERY_WAIT)
        for _ in range(3):
            self.redis_benchmark()
        profiler.wait_covered()
        self.finish(profiler)
        seconds = time.monotonic() - began
        answer = subprocess.run(
            ["redis-cli", "-s", self.in_directory("socket"), "ping"],
            capture_output=True, text=True, timeout=PATIENCE_S, check=True,
        ).stdout  # fmt: skip
        self.assertEqual(answer, "PONG\n")
        tops = self.check_files(profiler, 3)
        self.assertRegex(tops["block"], "pthread_mutex_lock")
        self.assertRegex(tops["mutex"], "pthread_mutex_unlock")
        self.check_block_against_mutex(profiler, 8, seconds)
        self.check_unwound(profiler, "whole")

    def redis_benchmark(self):
        output = subprocess.run(
            ["redis-benchmark", "-s", self.in_directory("socket"), "-n", "4000", "-r", "1000", "-P", "16",
             "-c", "50", "-d", "200", "-t", "set,get,lpush", "--csv"],
            capture_output=True, text=True, timeout=180, check=True,
        )  # fmt: skip
        lines = output.stdout.strip().splitlines()
        self.assertGreaterEqual(len(lines), 4, output.stdout)
        for line in lines[1:]:
            self.assertRegex(line, r'^"[^"]+","\d+\.\d+"')

    # ---- memcached: worker threads over one table ----

    def test_memcached_with_worker_threads(self):
        server = self.start("/usr/bin/memcached", "-u", "root", "-s", self.in_directory("socket"), "-t", "4")
        profiler = self.profile(server, *ALL, *EVERY_WAIT)
        for _ in range(3):
            self.memcached_clients(server)
            profiler.wait_covered()
        self.finish(profiler)
        self.memcached_clients(server)
        tops = self.check_files(profiler, 3)
        # Its maintenance threads sleep in condition variables; who gets in whose way is luck.
        self.assertRegex(tops["block"], "pthread_cond|pthread_mutex")

    def memcached_clients(self, server):
        """Many connections that increment the same few keys."""

        def talk(number):
            client = test_servers.connect(server.socket)
            answers = client.makefile("rb")
            key = b"key-%d" % (number % 3)
            client.sendall(b"set %s 0 0 1\r\n0\r\n" % key)
            self.assertEqual(answers.readline(), b"STORED\r\n")
            for _ in range(20):
                client.sendall((b"incr %s 1\r\n" % key) * 50)
                for _ in range(50):
                    self.assertRegex(answers.readline(), rb"^\d+ *\r\n$")
            answers.close()
            client.close()

        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            list(pool.map(talk, range(24)))

    # ---- mariadb: a database with a thread for each connection ----

    @unittest.skipUnless(shutil.which("mariadbd", path="/usr/sbin"), "Debian: mariadb-server")
    def test_mariadb_whose_clients_write_the_same_rows(self):
        data = self.in_directory("data")
        subprocess.run(
            ["mysql_install_db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
             "--user=root", "--skip-test-db", "--force"],
            capture_output=True, timeout=120, check=True,
        )  # fmt: skip
        server = self.start(
            "/usr/sbin/mariadbd", "--no-defaults", "--user=root", "--skip-networking",
            f"--datadir={data}", f"--socket={self.in_directory('socket')}", "--innodb-buffer-pool-size=32M",
        )  # fmt: skip
        poll(lambda: "ready for connections" in server.log(), "mariadbd to be ready")
        began = time.monotonic()
        profiler = self.profile(server, *ALL, *EVERY_WAIT)
        for _ in range(2):
            self.slap()
        profiler.wait_covered()
        self.finish(profiler)
        seconds = time.monotonic() - began
        self.slap()
        self.assertTrue(server.alive())
        self.assertNotRegex(server.log(), r"\[ERROR\]")
        tops = self.check_files(profiler, 3)
        self.assertRegex(tops["block"], "pthread_cond_wait|pthread_cond_timedwait")
        self.assertRegex(tops["mutex"], "pthread_mutex_unlock|pthread_rwlock_unlock")
        self.check_block_against_mutex(profiler, 60, seconds)
        self.check_unwound(profiler, "whole")

    def slap(self):
        output = subprocess.run(
            ["mysqlslap", "--no-defaults", "-u", "root", f"--socket={self.in_directory('socket')}",
             "--concurrency=12", "--iterations=2", "--auto-generate-sql", "--auto-generate-sql-load-type=update",
             "--auto-generate-sql-execute-number=40", "--engine=innodb"],
            capture_output=True, text=True, timeout=180, check=True,
        ).stdout  # fmt: skip
        self.assertTrue(re.search(r"Average number of seconds", output), output)


if __name__ == "__main__":
    main()
