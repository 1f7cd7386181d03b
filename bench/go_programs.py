# SPDX-License-Identifier: MIT
"""The section "go": what a Go program pays for its heap profile, and how long reading takes."""

import glob
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from harness import BenchError, median, number, print_table

TARGETS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "targets", "go")
SERVER_TITLE = "an HTTP server in Go that allocates all the time, under its own clients"
READING_TITLE = "reading the heap profile of a Go program with many stacks"


def build(program, directory):
    """The program of tests/targets/go, as the system's Go builds it."""
    path = f"{directory}/{program}"
    environment = dict(os.environ, GO111MODULE="off", GOTOOLCHAIN="local", GOFLAGS="",
                       GOCACHE=f"{directory}/go-cache", CGO_ENABLED="0")
    done = subprocess.run(["go", "build", "-o", path, "."], cwd=f"{TARGETS}/{program}", check=False,
                          env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise BenchError(f"building {program}: {done.stderr.strip()}")
    return path


class Child:
    """A program that obeys lines, or whatever else is written to it."""

    def __init__(self, *argv, **settings):
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=os.environ | settings)
        self.ready = self.process.stdout.readline().split()
        if not self.ready or self.ready[0] != "ready":
            raise BenchError(f"{argv[0]} did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()

    @property
    def pid(self):
        return self.process.pid

    def measure(self, seconds):
        """Requests a second."""
        self.process.stdin.write(f"measure {seconds}\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["requests"] / answer["seconds"]


class Nobody:
    name = "nobody"

    def attach(self, server):
        pass

    def detach(self):
        pass


class Ours:
    def __init__(self, bench, profiles, name):
        self.command, self.profiles, self.name = bench.deltaprof, profiles, name
        self.directory = tempfile.mkdtemp(dir=bench.directory)
        self.process = None

    def attach(self, server):
        self.process = subprocess.Popen(
            [self.command, "-v", "-i", "1s", "-e", self.profiles, "-o", self.directory, "-p",
             str(server.pid)], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if line.endswith("attached\n"):
                return
        raise BenchError(f"{self.name}: did not attach")

    def detach(self):
        """Returns the paths of what was written."""
        self.process.send_signal(signal.SIGINT)
        if self.process.wait(60) != 0:
            raise BenchError(f"{self.name}: {self.process.stderr.read()}")
        self.process.stderr.close()
        paths = sorted(glob.glob(f"{self.directory}/*.pb.gz"))
        if not paths:
            raise BenchError(f"{self.name}: wrote nothing")
        return paths


class Scrape:
    """The same profile, made by the program itself, fetched every second."""

    name = "net/http/pprof, heap every second"

    def __init__(self, binary):
        self.binary, self.process = binary, None

    def attach(self, server):
        self.process = subprocess.Popen(
            [self.binary, "-scrape", f"http://{server.ready[2]}/debug/pprof/heap", "-duration",
             "1h"])

    def detach(self):
        self.process.kill()
        self.process.wait()


def server_table(bench):
    binary = build("server", bench.directory)
    seconds = 1 if bench.quick else 6
    tools = [Nobody(), Ours(bench, "heap", "deltaprof-perf -e heap -i 1s"), Scrape(binary),
             Ours(bench, "block,mutex", "deltaprof-perf -e block,mutex -i 1s (its own are off)")]
    rates = {tool.name: [] for tool in tools}
    with Child(binary) as server:
        server.measure(seconds)  # warm
        for _ in range(1 if bench.quick else 2 * bench.repeats + 1):
            for tool in tools:
                tool.attach(server)
                try:
                    rates[tool.name].append(server.measure(seconds))
                finally:
                    tool.detach()
            tools = tools[1:] + tools[:1]
    bench.results["go server"] = rates
    bare = rates[Nobody.name]
    print_table(SERVER_TITLE, ["attached", "requests/s", "min..max", "x nobody, each its round's"],
                [[name, number(median(its)), f"{number(min(its))}..{number(max(its))}",
                  f"{median([rate / free for rate, free in zip(its, bare)]):.3f}"]
                 for name, its in rates.items()])


def reading_us(path):
    """(buckets, microseconds), as the profile's comments say."""
    text = subprocess.run(["go", "tool", "pprof", "-comments", path], check=True,
                          capture_output=True, text=True, timeout=60).stdout
    found = re.search(r"buckets: known (\d+), read in (\d+) us", text)
    if not found:
        raise BenchError(f"no line of buckets in {path}")
    return int(found[1]), int(found[2])


def reading_table(bench):
    binary = build("buckets", bench.directory)
    tool = Ours(bench, "heap", "deltaprof-perf -e heap -i 1s")
    with Child(binary, BUCKETS_RATE="1") as target:
        target.process.stdin.write("mqg")
        target.process.stdin.flush()
        for _ in range(3):
            while target.process.stdout.readline() != "end\n":
                pass
        tool.attach(target)
        time.sleep(2 if bench.quick else 10)
        found = [reading_us(path) for path in tool.detach()]
    bench.results["go reading"] = found
    us = [us for _, us in found]
    print_table(READING_TITLE, ["stacks", "readings", "median ms", "min..max"],
                [[found[-1][0], len(us), f"{median(us) / 1000:.1f}",
                  f"{min(us) / 1000:.1f}..{max(us) / 1000:.1f}"]])


def go_tables(bench):
    if not shutil.which("go"):
        print_table(SERVER_TITLE, ["attached"], [["go is not installed"]])
        return
    server_table(bench)
    reading_table(bench)
