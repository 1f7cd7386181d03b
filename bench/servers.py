# SPDX-License-Identifier: MIT
"""Real servers under their own clients: what a profiler costs where it matters."""

import csv
import io
import os
import re
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field

from harness import BenchError, die_with_parent


@dataclass
class Served:
    """One client run: requests a second and latencies, by kind of request."""
    per_second: dict = field(default_factory=dict)
    p50_ms: dict = field(default_factory=dict)
    p99_ms: dict = field(default_factory=dict)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    programs = ()

    def __init__(self, directory):
        self.directory = directory
        self.port = free_port()
        absent = [f"{program} ({package})" for program, package in self.programs
                  if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin")]
        self.missing = f"not installed: {', '.join(absent)}" if absent else None

    def command(self):
        raise NotImplementedError

    def client(self, quick):
        raise NotImplementedError

    def start(self):
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        preexec_fn=die_with_parent)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self.process.pid
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise BenchError(f"{self.name} does not start") from None
                time.sleep(0.05)

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run_client(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode:
        raise BenchError(f"{command[0]}: {done.stderr.strip()[:200]}")
    return done.stdout


class Redis(Server):
    name = "redis-server"
    programs = (("redis-server", "redis-server"), ("redis-benchmark", "redis-tools"))

    def command(self):
        return ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                "--appendonly", "no", "--dir", self.directory]

    def client(self, quick):
        text = run_client(["redis-benchmark", "-h", "127.0.0.1", "-p", str(self.port), "-t",
                           "set,get", "-n", "3000" if quick else "40000", "-r", "100000",
                           "-c", "50", "-d", "256", "--csv"])
        served = Served()
        for row in csv.DictReader(io.StringIO(text[text.index('"test"'):])):
            kind = row["test"]
            served.per_second[kind] = float(row["rps"])
            served.p50_ms[kind] = float(row["p50_latency_ms"])
            served.p99_ms[kind] = float(row["p99_latency_ms"])
        return served


class Nginx(Server):
    name = "nginx"
    programs = (("nginx", "nginx-light"), ("wrk", "wrk"))

    CONFIG = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log /dev/null crit;
events {{ worker_connections 256; }}
http {{
    access_log off; keepalive_requests 1000000;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{body}"; }} }}
}}
"""

    def command(self):
        path = f"{self.directory}/nginx.conf"
        with open(path, "w") as file:
            file.write(self.CONFIG.format(directory=self.directory, port=self.port,
                                          body="x" * 256))
        return [shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin"), "-c", path,
                "-p", self.directory]

    def client(self, quick):
        text = run_client(["wrk", "-t", "1", "-c", "16", "-d", "1s" if quick else "2s",
                           "--latency", f"http://127.0.0.1:{self.port}/"])
        rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
        if not rate or "Socket errors" in text:
            raise BenchError(f"wrk: {text.strip()[-200:]}")

        def percentile(which):
            value, unit = re.search(rf"^\s+{which}%\s+([\d.]+)(us|ms|s)$", text, re.M).groups()
            return float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]

        return Served({"GET": float(rate.group(1))}, {"GET": percentile(50)},
                      {"GET": percentile(99)})
