# SPDX-License-Identifier: MIT
"""The sections "sampler", "threads" and "ring": the ways to sample, against each other."""

import contextlib
import resource
import time

from harness import FAILURES, Loop, cpu_seconds, median, number, print_table
from tools import Bare, BareTraps, Deltaprof, EntriesOnly, PerfRecord

SAMPLERS = ("kernel", "direct")
IDLE_THREADS_AT_ATTACH = 1999
DIRECT_DESCRIPTORS = 5  # that --sampler direct wants for each thread and CPU before it begins


def why_not(bench, sampler):
    """Why our command does not sample in this way here, in its own words; None if it should."""
    if sampler != "kernel":  # direct works everywhere, and where it fails the bench does
        return None
    if sampler not in bench.samplers:
        tool = Deltaprof(bench.deltaprof, [bench.entry, bench.free], f"{bench.directory}/ours",
                         "not available", ("--sampler", sampler))
        bench.samplers[sampler] = tool.missing
        if not tool.missing:
            with Loop(bench.loop_binary) as loop:
                try:
                    tool.attach(loop.pid)
                    tool.detach()
                except FAILURES as error:
                    bench.samplers[sampler] = str(error)
    return bench.samplers[sampler]


def ours(bench, sampler, arguments=(), sites=None, **others):
    """Our command as the bench runs it, with a name that says which; missing where it refuses."""
    tool = Deltaprof(bench.deltaprof, [bench.entry, bench.free] if sites is None else sites,
                     f"{bench.directory}/ours", " ".join(["--sampler", sampler, *arguments]),
                     ("--sampler", sampler, *arguments), **others)
    tool.missing = tool.missing or why_not(bench, sampler)
    return tool


def allocation_only(bench):
    tool = EntriesOnly(bench.entries_binary, [bench.entry], f"{bench.directory}/ours",
                       "kernel, allocation only")
    tool.missing = tool.missing or why_not(bench, "kernel")
    return tool


def traps(bench, name=BareTraps.name, events=None):
    """What the traps alone cost. @events: 0 malloc's entry, 1 its return, 2 free (all)."""
    events = (0, 1, 2) if events is None else events
    sites = {0: bench.entry, 1: bench.entry, 2: bench.free}
    return BareTraps(bench.trap_binary, list({sites[i] for i in events}),
                     [bench.counted[i] for i in events], name)


def span(values):
    return f"{number(min(values))}..{number(max(values))}"


# ---- sampler: the price of a pair, and our own CPU -------------------------------------------


def sampler_tables(bench):
    tools = [
        Bare(),
        traps(bench),
        traps(bench, "bare traps, entry and free", (0, 2)),
        traps(bench, "bare trap, entry only", (0,)),
        allocation_only(bench),
        ours(bench, "kernel"),
        ours(bench, "kernel", ("--heap-rate", "1")),
        ours(bench, "direct"),
        ours(bench, "direct", ("--heap-rate", "1")),
        PerfRecord([bench.entry, bench.free], bench.with_arguments, bench.directory,
                   "perf record -g, same probes"),
        *bench.bpftraces(),
    ]
    with Loop(bench.loop_binary) as loop:
        loop.run(bench.window_ms)  # warm
        runs, broken = bench.interleave(tools, lambda tool: bench.measure_once(tool, loop))
    bench.results["sampler"] = runs
    bench.print_loop_table("malloc/free loop, each sampler", 1, runs, broken)
    allocation_table(bench, tools[3].name, tools[4].name, runs, broken)
    own_cpu_table(bench)


def allocation_table(bench, trap, only, runs, broken):
    """Allocation only against the one trap that it needs; window by window, as the machine sways."""
    columns = ["attached", "x bare trap, of medians", "of each round: median", "min..max"]
    title = f"allocation only, against malloc's entry counted bare, {bench.repeats} rounds"
    if only in broken or trap in broken:
        print_table(title, columns, [[only, broken.get(only) or broken[trap]]])
        return
    ns = {name: [run["ns_per_pair"] for run in runs[name]] for name in (trap, only)}
    ratios = [ours_ns / trap_ns for ours_ns, trap_ns in zip(ns[only], ns[trap])]
    bench.results["allocation only"] = ratios
    print_table(title, columns, [[only, number(median(ns[only]) / median(ns[trap])),
                                  number(median(ratios)), span(ratios)]])


def own_cpu_once(bench, tool, loop):
    """A long window, begun when what an attach has to do is done."""
    tool.attach(loop.pid)
    try:
        if tool.process:
            loop.run(bench.window_ms)
            tool.cpu_at_start = cpu_seconds(tool.process.pid)
        pairs, ns = loop.run(4 * bench.window_ms)
    finally:
        spent = tool.detach()
    seconds, calls = ns / 1e9 / bench.n_cpus, 2 * pairs
    return {"calls_per_s": calls / seconds, "lost": spent.lost,
            "cpu_percent": None if spent.cpu_s is None else 100 * spent.cpu_s / seconds,
            "percent_per_million": None if spent.cpu_s is None else 100 * spent.cpu_s * 1e6 / calls}


def own_cpu_table(bench):
    tools = [traps(bench), *(ours(bench, sampler) for sampler in SAMPLERS)]
    with Loop(bench.loop_binary, bench.n_cpus) as loop:
        runs, broken = bench.interleave(tools, lambda tool: own_cpu_once(bench, tool, loop))
    bench.results["own CPU"] = runs
    rows = []
    for name, its in runs.items():
        if name in broken:
            rows.append([name, broken[name]])
            continue
        own = [run["percent_per_million"] for run in its if run["percent_per_million"] is not None]
        rows.append([name, *(number(median([run[key] for run in its if run[key] is not None]))
                             for key in ("calls_per_s", "cpu_percent", "percent_per_million")),
                     span(own) if own else "-", number(median([run["lost"] for run in its if
                                                               run["lost"] is not None]))])
    print_table(f"own CPU at the default rate, {bench.n_cpus} threads at full speed, "
                f"{bench.repeats} interleaved windows of {4 * bench.window_ms} ms",
                ["attached", "calls/s", "own CPU %", "% for 1 M calls/s", "min..max", "lost"], rows)


# ---- threads: the same price beside many ------------------------------------------------------


def threads_tables(bench):
    scale_table(bench)
    attach_table(bench)


def scale_table(bench):
    counts = (1, 10, 100) if bench.quick else sorted({1, bench.n_cpus, 10, 100, 1000})
    table = []
    with contextlib.ExitStack() as stack:
        loops, tools = {}, []
        for count in counts:
            busy = min(count, bench.n_cpus)
            loop = stack.enter_context(
                Loop(bench.loop_binary, busy, arguments=("-i", str(count - busy))))
            for tool in (Bare(), traps(bench), *(ours(bench, name) for name in SAMPLERS)):
                table.append((tool, count, busy, tool.name))
                tool.name = f"{count}: {tool.name}"
                loops[tool.name] = loop
                tools.append(tool)
            loop.run(bench.window_ms)  # warm
        runs, broken = bench.interleave(
            tools, lambda tool: bench.measure_once(tool, loops[tool.name]))
    bench.results["threads"] = runs
    rows, medians = [], {}
    for tool, count, busy, name in table:
        label = f"{count} thread{'s' * (count > 1)}, {busy} busy: {name}"
        if tool.name in broken:
            rows.append([label, broken[tool.name]])
            continue
        ns = [run["ns_per_pair"] for run in runs[tool.name]]
        medians[count, name] = median(ns)
        base = medians.get((count, BareTraps.name)), medians.get((count, Bare.name))
        rows.append([label, number(median(ns)), span(ns),
                     *(number(median(ns) / one) if one else "-" for one in base),
                     *(number(median([run[key] for run in runs[tool.name]
                                      if run[key] is not None]))
                       for key in ("attach_ms", "n_descriptors", "detach_ms"))])
    print_table(f"the price of a pair beside idle threads, {bench.repeats} interleaved windows of "
                f"{bench.window_ms} ms",
                ["attached", "ns/pair", "min..max", "x traps", "x bare", "attach ms",
                 "descriptors", "detach ms"], rows)


def attach_once(bench, tool, loop):
    with loop.watched() as attaching:
        tool.attach(loop.pid)
        if isinstance(tool, Bare):
            time.sleep(bench.window_ms / 1000)
    loop.run(bench.window_ms)
    with loop.watched() as detaching:
        spent = tool.detach()
        if isinstance(tool, Bare):
            time.sleep(bench.window_ms / 1000)
    return {"attach_ms": spent.attach_s and 1000 * spent.attach_s,
            "attach_stall_ms": attaching["stall_ns"] / 1e6,
            "n_descriptors": spent.n_descriptors,
            "detach_ms": spent.detach_s and 1000 * spent.detach_s,
            "detach_stall_ms": detaching["stall_ns"] / 1e6,
            "pairs_per_s": detaching["pairs"] * 1e9 / detaching["ns"]}


def attach_table(bench):
    idle = 99 if bench.quick else IDLE_THREADS_AT_ATTACH
    tools = [Bare(), traps(bench), *(ours(bench, sampler) for sampler in SAMPLERS)]
    wanted = DIRECT_DESCRIPTORS * (idle + 2) * bench.n_cpus
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != limit < wanted:
        tools[-1].missing = f"wants {wanted} descriptors; the hard limit is {limit} (ulimit -Hn)"
    with Loop(bench.loop_binary, arguments=("-i", str(idle))) as loop:
        runs, broken = bench.interleave(tools, lambda tool: attach_once(bench, tool, loop))
    bench.results["attach"] = runs
    figures = ("attach_ms", "attach_stall_ms", "n_descriptors", "detach_ms", "detach_stall_ms",
               "pairs_per_s")
    rows = [[name, broken[name]] if name in broken else
            [name, *(number(median([run[key] for run in its if run[key] is not None]))
                     for key in figures)] for name, its in runs.items()]
    print_table(f"attaching to {idle + 1} threads, one of them busy, {bench.repeats} rounds",
                ["attached", "attach ms", "stall ms", "descriptors", "detach ms", "stall ms",
                 "pairs/s meanwhile"], rows)


# ---- ring: how much gets through alive --------------------------------------------------------


def ring_once(bench, tool, loop, rate, ms):
    tool.attach(loop.pid)
    try:
        pairs, ns = loop.run(ms, rate)
    finally:
        spent = tool.detach()
    seconds = ns / 1e9 / bench.n_cpus
    return {"asked": rate, "pairs_per_s": pairs / seconds, "delivered_per_s": spent.seen / seconds,
            "per_pair": spent.seen / pairs, "lost": spent.lost, "cpu": spent.cpu_s / seconds,
            "peak_kib": spent.peak_kib}


def climb(bench, tool, loop):
    """A quarter more pairs a second each time, until two rates in a row lose some, or until the
    loop cannot make as many. Returns the steps; the last one is without a bound."""
    ms = 100 if bench.quick else 1500
    steps, rate = [], 8000
    while True:
        step = ring_once(bench, tool, loop, rate, ms)
        steps.append(step)
        lossy = len(steps) > 1 and all(it["lost"] for it in steps[-2:])
        if lossy or step["pairs_per_s"] < 0.9 * rate or (bench.quick and len(steps) == 2):
            return [*steps, ring_once(bench, tool, loop, 0, ms)]
        rate *= 1.25


def ring_table(bench):
    rows, notes = [], []
    for sampler in SAMPLERS:
        tool = ours(bench, sampler, ("--heap-rate", "1"))
        if tool.missing:
            rows.append([tool.name, tool.missing])
            continue
        with Loop(bench.loop_binary, bench.n_cpus) as loop:
            steps = climb(bench, tool, loop)
        bench.results[f"ring, {sampler}"] = steps
        for step in steps:
            asked = number(step["asked"]) if step["asked"] else "all it can"
            rows.append([f"--sampler {sampler}, {asked}",
                         *(number(step[key]) for key in ("pairs_per_s", "delivered_per_s")),
                         f"{step['per_pair']:.3f}", number(step["lost"]), number(step["cpu"]),
                         number(step["peak_kib"] / 1024)])
        whole = [step["delivered_per_s"] for step in steps if step["lost"] == 0]
        notes.append(f"--sampler {sampler}, highest rate without loss: "
                     f"{number(max(whole)) if whole else 'none'} delivered events/s")
    print_table("events per second through the live ring, --heap-rate 1",
                ["pairs/s asked", "pairs/s made", "delivered/s", "per pair", "lost",
                 "own CPU s/s", "peak MiB"], rows, notes)
