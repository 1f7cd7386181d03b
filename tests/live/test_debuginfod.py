#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Debug files from debuginfod: names get better when one comes, and no profile waits for one."""

import collections
import http.server
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from harness import PATIENCE_S, TARGETS, LiveTest, TimedOut, main, poll

# A profile is on the disk this soon after its interval's end, whatever the servers do.
SOON_S = 1.0


class Debuginfod:
    """A real server over a directory, in a network namespace of its own: nothing else reaches it."""

    def __init__(self, directory):
        self._process = subprocess.Popen(
            ["unshare", "-n", "sh", "-ec", 'ip link set lo up\nexec "$@"', "sh",
             "debuginfod", "-F", "-d", ":memory:", "-p", "8002", directory],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.inside = ("nsenter", f"--net=/proc/{self._process.pid}/ns/net")
        self.url = "http://127.0.0.1:8002/"

    def get(self, path):
        """Whether the server has it."""
        code = f"import urllib.request; urllib.request.urlopen({self.url + path!r}).read()"
        return subprocess.run([*self.inside, "/usr/bin/python3", "-c", code], capture_output=True,
                              check=False).returncode == 0  # fmt: skip

    def wait_serving(self, *build_ids):
        for build_id in build_ids:
            poll(lambda b=build_id: self.get(f"buildid/{b}/debuginfo"), "debuginfod to have read its files", every_s=0.2)

    def stop(self):
        self._process.terminate()
        self._process.wait(PATIENCE_S)


class Answers(http.server.ThreadingHTTPServer):
    """A server of ours that gives each build-id what `files` has for it, and counts the questions."""

    daemon_threads = True

    def __init__(self, files):
        self.files, self.asked = files, collections.Counter()
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        build_id = self.path.split("/")[2]
        self.server.asked[build_id] += 1
        content = self.server.files.get(build_id)
        self.send_response(200 if content else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_):
        pass


class Silence:
    """A server that takes every connection and says nothing."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"
        self.connections = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                self.connections.append(self._socket.accept()[0])
            except OSError:
                return

    def stop(self):
        self._socket.close()
        for connection in self.connections:
            connection.close()


def build_id_of(path):
    notes = subprocess.run(["readelf", "-n", path], capture_output=True, text=True, check=True).stdout
    return re.search(r"Build ID: ([0-9a-f]+)", notes)[1]


class DebuginfodTest(LiveTest):
    def setUp(self):
        super().setUp()
        self.directory = tempfile.mkdtemp(prefix="dp-live-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.served = os.path.join(self.directory, "served")
        os.mkdir(self.served)

    def strip(self, name):
        """A target without symbols, and its debug file: (path, path)."""
        original = os.path.join(TARGETS, name)
        stripped = os.path.join(self.directory, name)
        debug = os.path.join(self.served, f"{name}.debug")
        subprocess.run(["objcopy", "--only-keep-debug", original, debug], check=True)
        subprocess.run(["strip", "-o", stripped, original], check=True)
        return stripped, debug

    def environment(self, url, **more):
        cache = tempfile.mkdtemp(dir=self.directory)
        return dict(os.environ, DEBUGINFOD_URLS=url, DEBUGINFOD_CACHE_PATH=cache, **more)

    def attach(self, url, path, prefix=(), more=(), **environment):
        """A target that allocates all the time, profiled every half second."""
        target = self.target(os.path.basename(path), path=path)
        threading.Thread(target=self.go_on, args=(target,), daemon=True).start()
        return self.profile(target, "--heap-rate", "16KiB", "-i", "500ms", *more, prefix=prefix,
                            env=self.environment(url, **environment))  # fmt: skip

    def go_on(self, target):
        """Has it allocate, at a rate that leaves the machine time for the rest."""
        while target.alive():
            try:
                target.ask("go 500")
            except (OSError, TimedOut, ValueError):
                return
            time.sleep(0.02)

    def server(self, kind, *args):
        server = kind(*args)
        self.addCleanup(server.stop)
        return server

    def serve(self, *paths):
        server = self.server(Debuginfod, self.served)
        server.wait_serving(*map(build_id_of, paths))
        return server

    def lines(self, profile, file):
        """The function names of the lines in source file `file`."""
        return {line.function for location in profile.locations.values() for line in location.lines
                if os.path.basename(line.file) == file and line.line > 0}  # fmt: skip

    def debuginfod(self, profile):
        return profile.comment().numbers("debuginfod")

    def is_named(self, profile):
        return {"leaf_malloc", "travel", "worker_main"} <= self.lines(profile, "truth.c")

    def unnamed(self, profile, name):
        return [n for s in profile.samples for n in profile.names(s) if n.startswith(f"{name}+0x")]

    def assert_in_time(self, profiles):
        for profile in profiles:
            late_s = os.stat(profile.path).st_mtime - profile.end_nanos / 1e9
            self.assertLess(late_s, SOON_S, profile.path)

    def finish_in_time(self, profiler):
        began = time.monotonic()
        self.finish(profiler)
        self.assertLess(time.monotonic() - began, 10)

    def test_names_come_from_a_server(self):
        path, _ = self.strip("truth")
        server = self.serve(path)
        profiler = self.attach(server.url, path, server.inside)
        profiles = profiler.wait_profiles(lambda ps: ps and self.is_named(ps[-1]), "a profile with names")
        self.assertEqual(self.unnamed(profiles[-1], "truth"), [])
        self.assertGreaterEqual(self.debuginfod(profiles[-1])["found"], 1)
        self.finish_in_time(profiler)
        self.assert_in_time(profiler.profiles())

    def test_files_that_dwz_has_split_are_put_together(self):
        paths = [self.strip(name) for name in ("truth", "truth-nopie")]
        common = os.path.join(self.served, "common.debug")
        # Without symbols, names are in the common file and nowhere else.
        for _, debug in paths:
            subprocess.run(["objcopy", "--wildcard", "--strip-symbol=*", debug], check=True)
        subprocess.run(["dwz", "-m", common, "-M", "common.debug", *(debug for _, debug in paths)],
                       check=True)  # fmt: skip
        server = self.serve(paths[0][0], common)
        profiler = self.attach(server.url, paths[0][0], server.inside)
        profiler.wait_profiles(lambda ps: ps and self.is_named(ps[-1]), "a profile with names")
        self.finish_in_time(profiler)

    def test_without_servers_nobody_is_asked(self):
        path, _ = self.strip("truth")
        profiler = self.attach("", path)
        profiles = profiler.wait_profiles(lambda ps: len(ps) >= 2, "two profiles")
        self.assertTrue(self.unnamed(profiles[-1], "truth"))
        self.assertNotIn("debuginfod", profiles[-1].comment().texts)
        self.finish_in_time(profiler)

    def test_a_miss_is_asked_for_once(self):
        path, _ = self.strip("truth")
        server = self.server(Answers, {})
        profiler = self.attach(server.url, path)
        profiler.wait_profiles(lambda ps: ps and self.debuginfod(ps[-1])["missing"], "the miss")
        n = len(profiler.profiles())
        profiles = profiler.wait_profiles(lambda ps: len(ps) >= n + 4, "four more profiles")
        self.assertTrue(self.unnamed(profiles[-1], "truth"))
        self.assertEqual(server.asked[build_id_of(path)], 1)
        self.assertEqual(set(server.asked.values()), {1})
        self.finish_in_time(profiler)

    def test_a_file_that_is_not_the_one_is_not_used(self):
        path, debug = self.strip("truth")
        other, _ = self.strip("truth-nopie")
        with open(debug, "rb") as file:
            right = file.read()
        with open(os.path.join(self.served, "truth-nopie.debug"), "rb") as file:
            wrong = file.read()
        for content in (wrong, right[: len(right) // 2], b"<html>no</html>", os.urandom(1 << 16)):
            server = self.server(Answers, {build_id_of(path): content})
            profiler = self.attach(server.url, path)
            profiles = profiler.wait_profiles(
                lambda ps: ps and sum(self.debuginfod(ps[-1])[w] for w in ("failed", "found")), "the answer"
            )
            n = len(profiles)
            profiles = profiler.wait_profiles(lambda ps, n=n: len(ps) >= n + 1, "one more profile")
            self.assertFalse(self.is_named(profiles[-1]))
            self.finish_in_time(profiler)
        self.assertTrue(other)

    def test_a_server_that_never_answers_delays_nothing(self):
        path, _ = self.strip("truth")
        server = self.server(Silence)
        profiler = self.attach(server.url, path, DEBUGINFOD_TIMEOUT="600")
        profiles = profiler.wait_profiles(lambda ps: len(ps) >= 6, "six profiles")
        self.assertTrue(server.connections)
        self.assertGreaterEqual(self.debuginfod(profiles[-1])["pending"], 1)
        self.assertTrue(self.unnamed(profiles[-1], "truth"))
        self.finish_in_time(profiler)
        self.assert_in_time(profiler.profiles())

    def test_a_server_that_is_not_there_delays_nothing(self):
        path, _ = self.strip("truth")
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        profiler = self.attach(f"http://127.0.0.1:{port}/", path)
        profiles = profiler.wait_profiles(
            lambda ps: len(ps) >= 3 and self.debuginfod(ps[-1])["failed"], "the failure"
        )
        self.assertTrue(self.unnamed(profiles[-1], "truth"))
        self.finish_in_time(profiler)
        self.assert_in_time(profiler.profiles())


if __name__ == "__main__":
    main()
