# SPDX-License-Identifier: MIT
"""Everything that can be attached to the measured loop, each behind the same few calls."""

import glob
import gzip
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import Optional

from harness import BenchError, Loop, cpu_seconds, die_with_parent, find_probe, finish
from harness import interrupt, n_descriptors, peak_kib, read_line, wait_for_probes


@dataclass
class Spent:
    """What one attachment cost the tool, and what it says it saw."""
    seen: Optional[int] = None  # events
    lost: Optional[int] = None  # events
    cpu_s: Optional[float] = None  # from "attached" until it was told to stop
    end_cpu_s: Optional[float] = None  # from then on
    peak_kib: Optional[int] = None
    attach_s: Optional[float] = None  # from its start until every probe was in
    detach_s: Optional[float] = None  # from when it was told to stop until it was gone
    n_descriptors: Optional[int] = None  # open while attached


class Bare:
    """Nothing attached."""
    name = "bare"
    missing = None
    events_per_pair = 0

    def attach(self, pid):
        pass

    def detach(self):
        return Spent()


class Tool:
    """A child process that traps malloc's entry, its return and free in another process."""
    events_per_pair = 3
    missing = None
    insist_after = None  # seconds after which it must be interrupted again

    def __init__(self, sites):
        self.sites = sites
        self.process = None
        self.cpu_at_start = self.attach_s = 0.0

    def start(self, pid):
        raise NotImplementedError

    def seen(self, spent):
        pass

    def attach(self, pid):
        self.target = pid
        start = time.monotonic()
        try:
            self.start(pid)
            wait_for_probes(pid, self.sites, True, self.process)
            self.attach_s = time.monotonic() - start
            self.cpu_at_start = cpu_seconds(self.process.pid)
        except (BenchError, OSError) as error:
            self.abandon()
            raise BenchError(f"{self.name}: {error}") from error
        except BaseException:  # told to stop meanwhile
            self.abandon()
            raise

    def abandon(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self):
        interrupt(self.process)

    def detach(self):
        cpu_at_stop = cpu_seconds(self.process.pid)
        descriptors, start = n_descriptors(self.process.pid), time.monotonic()
        self.stop()
        cpu, peak = finish(self.process, insist_after=self.insist_after)
        spent = Spent(cpu_s=cpu_at_stop - self.cpu_at_start,
                      end_cpu_s=max(0.0, cpu - cpu_at_stop), peak_kib=peak,
                      attach_s=self.attach_s, detach_s=time.monotonic() - start,
                      n_descriptors=descriptors)
        self.seen(spent)
        if self.process.returncode not in (0, -2, 130):
            raise BenchError(f"{self.name}: exit status {self.process.returncode}")
        wait_for_probes(self.target, self.sites, False)
        return spent


class BareTraps(Tool):
    name = "bare traps"

    def __init__(self, binary, sites, events, name=name):
        super().__init__(sites)
        self.binary, self.events, self.name = binary, events, name
        self.events_per_pair = len(events)

    def start(self, pid):
        self.process = subprocess.Popen(
            [self.binary, "-p", str(pid), *self.events], bufsize=0, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)
        if read_line(self.process.stdout, 30) != "attached":
            raise BenchError("did not attach")

    def stop(self):
        self.process.stdin.close()

    def seen(self, spent):
        with self.process.stdout as stream:
            spent.seen = sum(int(line.split()[1]) for line in stream.read().decode().splitlines())
        spent.cpu_s = spent.end_cpu_s = spent.peak_kib = None  # nothing works there


def profile_comments(path):
    """The comments of a pprof file: its own small reader of two fields of profile.proto."""
    with gzip.open(path) as file:
        data = file.read()
    strings, comments, at = [], [], 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            value = varint()
            if tag >> 3 == 13:
                comments.append(value)
            continue
        if tag & 7 != 2:
            raise BenchError(f"{path}: unexpected wire type")
        length = varint()
        if tag >> 3 == 6:
            strings.append(data[at:at + length].decode(errors="replace"))
        elif tag >> 3 == 13:
            end = at + length
            while at < end:
                comments.append(varint())
            continue
        at += length
    return [strings[i] for i in comments]


class Deltaprof(Tool):
    """Our own command; with no @arguments as a user starts it who changes nothing."""

    def __init__(self, binary, sites, directory, name, arguments=(), interval="1h",
                 profile="heap"):
        super().__init__(sites)
        self.binary, self.directory, self.name = binary, directory, name
        self.arguments = [*arguments, "--interval", interval]
        self.profile = profile  # the one whose comments are read
        if not os.access(binary, os.X_OK):
            self.missing = f"{os.path.basename(binary)} is not built"

    def start(self, pid):
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory)
        self.process = subprocess.Popen(
            [self.binary, "-v", *self.arguments, "-o", self.directory, "-p", str(pid)],
            bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        said = []
        try:
            while True:
                said.append(read_line(self.process.stderr, 30))
                if said[-1].endswith("attached"):
                    return
        except BenchError as error:
            raise BenchError(" | ".join(said) or str(error)) from error

    def files(self):
        return sorted(glob.glob(f"{self.directory}/*-{self.profile}-*.pb.gz"))

    def counts(self, topic):
        """The figures of the last file's comment "TOPIC: NAME N, NAME N, ..."."""
        for comment in profile_comments(self.files()[-1]):
            if comment.startswith(f"{topic}: "):
                return {name: int(value) for name, value in
                        re.findall(r"(\w+) (\d+)", comment.split(": ", 1)[1])}
        raise BenchError(f"{self.name}: its profile has no comment '{topic}'")

    def seen(self, spent):
        with self.process.stderr as stream:
            self.said = stream.read().decode(errors="replace").strip()
        if not self.files():
            raise BenchError(f"{self.name}: no profile was written: {self.said}")
        counts = self.counts("records since attach")
        spent.seen, spent.lost = counts["delivered"], counts["lost"] + counts["dropped"]


class EntriesOnly(Deltaprof):
    """Our kernel sampler as where returns must not be probed, by tests/entries_profile.c."""
    events_per_pair = 1
    RATE_BYTES = 512 * 1024

    def start(self, pid):
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory)
        self.process = subprocess.Popen(
            [self.binary, str(pid), self.directory, "copied", "kernel", str(self.RATE_BYTES)],
            bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            read_line(self.process.stdout, 30)
        except BenchError as error:
            raise BenchError(self.process.stderr.read().decode().strip() or str(error)) from error

    def stop(self):
        self.process.stdin.close()

    def files(self):
        return glob.glob(f"{self.directory}/entries.pb.gz")

    def seen(self, spent):
        self.process.stdout.close()
        super().seen(spent)


def probes_of(binary, loop_pid, functions, directory):
    """Where our command puts its probes in @functions: what the rivals are given, too."""
    tool = Deltaprof(binary, [], directory, "placement")
    if tool.missing:
        return None
    tool.attach(loop_pid)
    try:
        return [find_probe(loop_pid, site) for site in functions]
    finally:
        tool.detach()


class PerfRecord(Tool):
    def __init__(self, sites, events, directory, name="perf record -g"):
        super().__init__(sites)
        self.events, self.directory, self.name = events, directory, name
        self.output = f"{directory}/perf.data"
        if not shutil.which("perf"):
            self.missing = "perf is not installed (linux-perf)"

    def start(self, pid):
        control_read, self.control = os.pipe()
        self.ack, ack_write = os.pipe()
        selected = [word for event in self.events for word in ("-e", event.replace("/", ":"))]
        # -N: its cache of whole binaries is no part of recording. Disabled until told, and it
        # says when it is live.
        self.process = subprocess.Popen(
            ["perf", "record", "-g", "-N", "-D", "-1",
             "--control", f"fd:{control_read},{ack_write}", "-o", self.output, *selected,
             "-p", str(pid)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=(control_read, ack_write), cwd=self.directory, preexec_fn=die_with_parent)
        os.close(control_read)
        os.close(ack_write)
        os.write(self.control, b"enable\n")
        with os.fdopen(self.ack, "rb", buffering=0) as stream:
            if not read_line(stream, 30).startswith("ack"):
                raise BenchError("no ack")

    def seen(self, spent):
        os.close(self.control)  # not before its end: perf 6.1 gives up when that pipe hangs up
        text = subprocess.run(["perf", "report", "--stats", "-i", self.output],
                              capture_output=True, text=True, timeout=120, check=False).stdout
        found = re.search(r"SAMPLE events:\s+(\d+)", text)
        spent.seen = int(found.group(1)) if found else None
        os.unlink(self.output)


class Bpftrace(Tool):
    """Sums per stack and keeps the live objects in the kernel: memleak's job in three lines."""
    insist_after = 10  # it has been seen to miss the first signal on a busy machine
    PROGRAM = """
uprobe:{malloc} {{ @size[tid] = arg0; }}
uretprobe:{entry} /@size[tid]/ {{
    @alloc[ustack] = sum(@size[tid]); @live[retval] = @size[tid]; delete(@size[tid]); }}
uprobe:{free} {{ delete(@live[arg0]); }}
"""

    def __init__(self, sites, name="bpftrace"):
        super().__init__(sites)
        self.name = name
        if not shutil.which("bpftrace"):
            self.missing = "bpftrace is not installed"
        elif any(site.skip for site in sites) and not self.can_probe_inside():
            self.missing = "this bpftrace was built without probes inside a function"

    @staticmethod
    def can_probe_inside():
        done = subprocess.run(["bpftrace", "--info"], capture_output=True, text=True, timeout=30,
                              check=False)
        return re.search(r"^\s+bfd: yes", done.stdout + done.stderr, re.M)

    def start(self, pid):
        malloc, free = self.sites

        def where(site):
            return f"{site.path}:{site.symbol}" + (f"+{site.skip}" if site.skip else "")

        program = self.PROGRAM.format(malloc=where(malloc), free=where(free),
                                      entry=f"{malloc.path}:{malloc.symbol}")
        self.process = subprocess.Popen(
            ["bpftrace", "-p", str(pid), "-e", program], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)

    def attach(self, pid):
        super().attach(pid)
        time.sleep(0.3)  # malloc's entry and return share a breakpoint: the second is not seen
        self.cpu_at_start = cpu_seconds(self.process.pid)


class Heaptrack:
    """Loaded into a loop of its own: it cannot be taken out of a process again."""
    name = "heaptrack (LD_PRELOAD, own process)"
    events_per_pair = 2

    def __init__(self, loop_binary, threads, directory):
        self.loop_binary, self.threads, self.directory = loop_binary, threads, directory
        self.missing = None if shutil.which("heaptrack") else "heaptrack is not installed"

    def start_loop(self):
        self.loop = Loop(self.loop_binary, self.threads,
                         wrapper=["heaptrack", "-o", f"{self.directory}/heaptrack"])
        self.workers = self._workers()
        self.cpu_at_start = 0.0
        return self.loop

    def _workers(self):
        """Its interpreter and its compressor."""
        pids = []
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(path) as file:
                    pid, rest = file.read().split(" (", 1)
            except (FileNotFoundError, ProcessLookupError):
                continue
            parent = int(rest.rsplit(") ", 1)[1].split()[1])
            if parent == self.loop.process.pid and int(pid) != self.loop.pid:
                pids.append(int(pid))
        return pids

    def warmed(self):
        """From here on its CPU time counts."""
        self.cpu_at_start = sum(cpu_seconds(pid) for pid in self.workers)

    def end_loop(self):
        time.sleep(0.1)  # what is still in the pipe
        spent = Spent(cpu_s=sum(cpu_seconds(pid) for pid in self.workers) - self.cpu_at_start,
                      peak_kib=sum(peak_kib(pid) for pid in self.workers))
        self.loop.close()
        for path in glob.glob(f"{self.directory}/heaptrack*"):
            os.unlink(path)
        return spent
