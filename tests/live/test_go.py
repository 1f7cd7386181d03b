#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Go programs: the profiles equal what the program's own runtime and godeltaprof's rules give.

DP_GO_VERSIONS: the versions to test (default: all that there are). The targets write down at a quiet
moment what godeltaprof would (tests/targets/go/shared/delta.go); the profiler's interval that this moment
and the work before it are in must hold the same, sample by sample.
"""

import os
import re
import shutil
import tempfile
import time

import go_programs
from go_records import (
    by_names,
    difference,
    going_through,
    read_dump,
    samples_of,
    without_runtime_locks,
)
from harness import SANITIZED, LiveTest, main, poll, run_profiler
from profiles import FILE_NAME, HEAP_TYPES, Profile

COUNT_TYPES = [("contentions", "count"), ("delay", "nanoseconds")]
TYPES = {"heap": HEAP_TYPES, "block": COUNT_TYPES, "mutex": COUNT_TYPES}
# What sanitizers look at is the same for all of them.
FLAVOURS = ["default", "stripped"] if SANITIZED else list(go_programs.FLAVOURS)
INTERVAL_S = 2 if SANITIZED else 1


def minor(version):
    return int(version.split(".")[1])


class Straddled(Exception):
    """A round was not in one interval: nothing is wrong, and nothing can be said."""


class GoTest(LiveTest):
    VERSION = None
    kinds = ()
    interval_s = INTERVAL_S

    def setUp(self):
        super().setUp()
        self.dumps = tempfile.mkdtemp(prefix="dp-go-")
        self.n_dumps = 0
        self.addCleanup(shutil.rmtree, self.dumps, ignore_errors=True)

    def go_target(self, program, *args, flavour="default", version=None, **options):
        path = go_programs.build(program, version or self.VERSION, flavour)
        return self.target(program, *args, path=path, **options)

    def profiles_of(self, profiler, kind):
        """The finished profiles of a kind in the order of time."""
        paths = [path for path in profiler.paths() if FILE_NAME.match(os.path.basename(path))["profile"] == kind]
        return [Profile(path) for path in paths]

    def covering(self, profiler, kind, begin_ns, end_ns):
        """The profile of the interval that all of the time is in."""

        def look():
            profiles = self.profiles_of(profiler, kind)
            return profiles if profiles and profiles[-1].end_nanos >= end_ns else None

        for profile in poll(look, f"a {kind} profile of an interval that ends after this moment", every_s=0.05):
            if profile.time_nanos <= begin_ns and end_ns <= profile.end_nanos:
                return profile
        raise Straddled(f"{kind}: {begin_ns} to {end_ns}")

    def round(self, profiler, target, *commands):
        """Commands and a dump in one interval: {kind: (profile, its samples, the target's samples)}.

        The round before ended with the end of an interval, so there is most of one.
        """
        begin_ns = time.time_ns()
        for command in commands:
            target.ask(command)
        self.n_dumps += 1
        prefix = os.path.join(self.dumps, str(self.n_dumps))
        rate = target.ask(f"dump {prefix}")["rate"]
        end_ns = time.time_ns()
        result = {}
        for kind in self.kinds:
            profile = self.covering(profiler, kind, begin_ns, end_ns)
            self.assertEqual(profile.types, TYPES[kind])
            self.assertEqual(profile.period, rate if kind == "heap" else 1)
            result[kind] = (profile, samples_of(profile), read_dump(f"{prefix}.{kind}.txt"))
        return result

    def assert_round_is_equal(self, result, what):
        for kind, (_, found, expected) in result.items():
            if kind == "mutex":
                found, expected = without_runtime_locks(found), without_runtime_locks(expected)
            wrong = difference(found, expected)
            if wrong:
                self.fail(f"{what}, {kind}: {wrong}")

    def equal_round(self, profiler, target, *commands):
        result = self.round(profiler, target, *commands)
        self.assert_round_is_equal(result, str(commands))
        return result

    def attach(self, *args, flavour="default"):
        """A target of "profiles" with all that it did so far behind it, and the profiler on it.

        Profiled is what the target's runtime does: what it does not is another source's (see Waits).
        """
        target = self.go_target("profiles", *args, flavour=flavour)
        target.ask("work 3")
        target.ask("wait 1")
        target.ask("dump -")
        options = {"-heap-rate": "heap", "-block-rate": "block", "-mutex-fraction": "mutex"}
        self.kinds = [kind for option, kind in options.items() if option in args]
        wanted = self.kinds + (["cheap"] if flavour == "cgo" else [])
        return target, self.profile(target, "-i", f"{self.interval_s}s", "-e", ",".join(wanted))

    def until_not_straddled(self, run, n=5):
        """On a slow machine an interval may end in a round: then all begins anew, with longer ones."""
        for i in range(n):
            try:
                run()
                return
            except Straddled:
                if i == n - 1:
                    raise
                self.interval_s *= 2
                for profiler in self.profilers:
                    profiler.end()
                for target in self.targets:
                    target.kill()

    def values_through(self, result, kind, function, size=0):
        """The values of the one sample through a function, with objects of this size if one is given."""
        found = [s for s in going_through(result[kind][1], function) if not size or s[1] == size]
        self.assertLessEqual(len(found), 1, found)
        return list(found[0][2]) if found else None


class Equality:
    """Mixed into a class for every version."""

    def check_flavour(self, flavour):
        def run():
            target, profiler = self.attach("-heap-rate", "512", "-block-rate", "1", "-mutex-fraction", "2",
                                           flavour=flavour)  # fmt: skip
            first = self.equal_round(profiler, target, "work 20", "wait 3", "genericblock", "alloc deep200 9 640")
            self.assertGreater(len(first["heap"][1]), 40)
            self.assertGreater(len(first["block"][1]), 8)
            self.equal_round(profiler, target)
            self.equal_round(profiler, target, "drop", "work 5", "wait 1", "free deep200 4")
            if flavour == "cgo":
                self.assertTrue(self.profiles_of(profiler, "cheap"))
            self.finish(profiler)
            self.assertEqual(target.quit(), 0)

        self.until_not_straddled(run)


class Godelta:
    """godeltaprof's own tests, each done by a real program (compat/ in its repository)."""

    LARGE = 327680  # bytes

    def test_heap_deltas(self):
        """TestDeltaHeap: the difference of raw counts is scaled. All are sampled, and scaled as if not."""

        def run():
            target, profiler = self.attach("-heap-rate", "1")

            def step(*commands):
                result = self.equal_round(profiler, target, "rates 1 -1 -1", *commands, "rates 524288 -1 -1")
                return [self.values_through(result, "heap", f"main.site{s}", self.LARGE) for s in "AB"]

            def alloc(site, n):
                return f"alloc {site} {n} {self.LARGE}"

            self.assertEqual(step(), [None, None])
            self.assertEqual(step(alloc("a", 5)), [[10, 3525422, 10, 3525422], None])
            self.assertEqual(step(alloc("b", 3), "free b 3"), [[0, 0, 10, 3525422], [6, 2115253, 0, 0]])
            self.assertEqual(step(), [[0, 0, 10, 3525422], None])
            self.assertEqual(step("free a 5"), [None, None])
            self.assertEqual(step(alloc("a", 3)), [[6, 2115253, 6, 2115253], None])
            self.finish(profiler)

        self.until_not_straddled(run)

    def test_heap_stacks_sizes_and_names(self):
        """TestHeapDuplicates, TestScaleHeap, TestDeepStackHeap, TestGenerics… at rate 1."""

        def run():
            target, profiler = self.attach("-heap-rate", "1")
            result = self.equal_round(
                profiler, target, "alloc a 239 1024", "alloc a 7 2048", "alloc b 1024 65536",
                "alloc deep64 1 640", "alloc deep200 1 704", "alloc hash32 1 128", "alloc hash32 1 256",
                "alloc hash64 1 32", "alloc hash64 1 64", "alloc genericchain 1 16",
            )  # fmt: skip

            def values(function, size):
                return self.values_through(result, "heap", function, size)

            def both(n, size):
                return [n, n * size, n, n * size]

            self.assertEqual(values("main.siteA", 1024), both(239, 1024))
            self.assertEqual(values("main.siteA", 2048), both(7, 2048))
            self.assertEqual(values("main.siteB", 65536), both(1024, 65536))
            for function, size in (("uint32", 128), ("uint32", 256), ("uint64", 32), ("uint64", 64)):
                self.assertEqual(values(self.generic("main.genericAlloc", function), size), both(1, size))
            n_of = {s[1]: len(s[0]) for s in going_through(result["heap"][1], "main.siteDeep") if s[2][1] == s[1]}
            deep = minor(self.VERSION) >= 23
            self.assertGreaterEqual(n_of[640], 64 if deep else 30)
            self.assertGreaterEqual(n_of[704], 120 if deep else 30)
            self.check_inlined(result["heap"][0])
            self.finish(profiler)

        self.until_not_straddled(run)

    def generic(self, function, shape):
        """The name of an instance; old versions keep no types in names."""
        return f"{function}[...]" if minor(self.VERSION) < 21 else f"{function}[go.shape.{shape}]"

    def check_inlined(self, profile):
        """TestGenericsInlineLocations: a chain of inlined calls is one location."""
        chain = ["main.genericLeaf", "main.genericMiddle", "main.genericTop", "main.siteGenericChain"]
        for sample in profile.samples:
            names = [line.function.partition("[")[0] for line in sample.locations[0].lines]
            if names == chain and sample.values[1] == 16:
                self.assertEqual(sample.values, [1, 16, 1, 16])
                return
        self.fail("no location of a chain of inlined generic functions")

    def test_block_and_mutex_deltas(self):
        """TestDeltaBlockProfile, TestBlock, TestMutex, TestScaleMutex, TestScaleBlock."""

        def run():
            target, profiler = self.attach("-block-rate", "5", "-mutex-fraction", "1")
            result = self.equal_round(profiler, target, "genericblock")
            # Of 20 acquisitions the first needs not wait; one that comes late on a busy machine neither.
            name = self.generic("main.genericBlock", "int")
            for kind, leaf in (("block", "Lock"), ("mutex", "Unlock")):
                found = going_through(result[kind][1], name)
                self.assertTrue(all(s[0][0][0] == f"sync.(*Mutex).{leaf}" for s in found), found)
                n = sum(s[2][0] for s in found)
                self.assertTrue(14 <= n <= 19, n)
            empty = self.equal_round(profiler, target)
            self.assertEqual(going_through(empty["block"][1], "main.genericBlock"), [])
            self.finish(profiler)

        self.until_not_straddled(run)

    def test_scaled_mutex_and_block(self):
        """TestScaleMutex, TestScaleBlock: 2 workers, 1 ms each; fewer turns than the original's 10000."""

        def run():
            target, profiler = self.attach("-block-rate", "5", "-mutex-fraction", "5")
            result = self.equal_round(profiler, target, "contend 2 150 1000")
            for kind in ("block", "mutex"):
                found = by_names(going_through(result[kind][1], "main.contendWorker"))
                count, ns = map(sum, zip(*(v for key, v in found.items() if "sync.(*Mutex)" in key[0])))
                # A fifth of 300 is kept: three standard deviations are 40 %.
                self.assertTrue(300 * 0.5 <= count <= 300 * 1.5, (kind, count, ns))
                self.assertGreaterEqual(ns, 300e6 * 0.5)
            self.finish(profiler)

        self.until_not_straddled(run)


class Waits:
    """Rates 0, the usual case: what goroutines wait for comes from probes."""

    N_ROUNDS = 60

    def check_figures(self, kind, samples, figures):
        wrong = []
        for function, (count, ns) in figures.items():
            found = going_through(samples, function)
            n, found_ns = map(sum, zip(*(s[2] for s in found))) if found else (0, 0)
            # The scenes' own locks are now and then waited for too.
            if abs(n - count) > max(1, count * 0.05) or abs(found_ns - ns) > ns * 0.05:
                wrong.append(f"{kind} {function}: found {n}, {found_ns} ns; made {count}, {ns} ns")
        self.assertEqual(wrong, [])

    def check_samples(self, version_args, profile_args=()):
        target = self.go_target("waits", "-hold", "5000", *version_args)
        target.ask("dump -")
        profiler = self.profile(target, "-i", "1h", "-e", "block,mutex", *profile_args)
        figures = target.ask(f"run {self.N_ROUNDS}")
        prefix = os.path.join(self.dumps, "waits")
        target.ask(f"dump {prefix}")
        self.finish(profiler)
        for kind in ("block", "mutex"):
            (profile,) = self.profiles_of(profiler, kind)
            self.check_figures(kind, samples_of(profile), figures[kind])
            if version_args:
                self.check_figures(kind, read_dump(f"{prefix}.{kind}.txt"), figures[kind])

    def test_waits_with_rates_on(self):
        self.check_samples(("-block-rate", "1", "-mutex-fraction", "1"))

    def test_waits_with_rates_off(self):
        """From probes: within 5 % of what the runtime's own profile would be, of which the target knows."""
        self.check_samples(())


class Others:
    """What there is besides, with one version."""

    def test_profiling_disabled_by_the_linker(self):
        target = self.go_target("nopprof")
        result = run_profiler("-e", "heap", "-d", "300ms", "-o", self.dumps, "-p", str(target.pid))
        said = result.stdout + result.stderr
        self.assertRegex(said, r"linker|runtime\.MemProfile")
        self.assertRegex(said, r"runtime/pprof|net/http/pprof")
        self.assertTrue(target.alive())

    def test_exec_into_another_program(self):
        """The state of the program before must not be taken for the one after."""
        target = self.go_target("profiles", "-heap-rate", "512")
        target.ask("work 10")
        target.ask("quiet")
        profiler = self.profile(target, "-i", "500ms", "-e", "heap")
        other = go_programs.build("profiles", self.VERSION, "stripped")
        target.say(f"exec {other} -heap-rate 512")
        self.assertEqual(target.line().split()[0], "ready")
        target.ask("alloc a 2000 1024")
        target.ask("quiet")
        time.sleep(1.5)
        if profiler.running():
            self.finish(profiler)
        else:
            profiler.wait()
        self.assertTrue(target.alive())
        for profile in self.profiles_of(profiler, "heap"):
            self.assertTrue(all(v >= 0 for s in profile.samples for v in s.values), profile.path)
        target.ask("alloc a 1 1024")

    def patched(self, program, version):
        """A program that says it is made by another version."""
        path = go_programs.build(program, self.VERSION)
        with open(path, "rb") as file:
            code = file.read()
        (release,) = set(re.findall(rb"\xff Go buildinf:.{18}.(go1\.\d+(?:\.\d+)?)", code, re.DOTALL))
        wanted = version.encode()
        self.assertLessEqual(len(wanted), len(release))
        other = os.path.join(self.dumps, program)
        with open(other, "wb") as file:
            # As long as before: lengths stand beside the text.
            file.write(code.replace(release, wanted.ljust(len(release), b"0")))
        os.chmod(other, 0o755)
        return other

    def test_unknown_version(self):
        """Refused with one sentence, or read after the self-check, and then rightly."""
        target = self.target("profiles", "-heap-rate", "512", path=self.patched("profiles", "go1.99.1"))
        target.ask("work 10")
        target.ask("dump -")
        profiler = self.profile(target, "-i", "1h", "-e", "heap", attached=False)
        try:
            poll(lambda: "attached" in profiler.stderr or not profiler.running(), "the profiler to decide")
        finally:
            running = profiler.running()
        if not running:
            self.assertNotEqual(profiler.wait(), 0)
            self.assertRegex(profiler.stderr, r"1\.99")
            return
        target.ask("alloc a 2000 1024")
        prefix = os.path.join(self.dumps, "unknown")
        target.ask(f"dump {prefix}")
        self.finish(profiler)
        (profile,) = self.profiles_of(profiler, "heap")
        self.assertEqual(difference(samples_of(profile), read_dump(f"{prefix}.heap.txt")), "")


class TargetsThemselves:
    """The dump that all is compared with, itself compared with runtime/pprof: the first holds all."""

    def test_dumps(self):
        for flavour in FLAVOURS:
            target = self.go_target("profiles", "-heap-rate", "512", "-block-rate", "1", "-mutex-fraction", "2",
                                    flavour=flavour)  # fmt: skip
            for command in ("work 20", "wait 3", "genericblock", "alloc deep200 9 640"):
                target.ask(command)
            prefix = os.path.join(self.dumps, flavour)
            target.ask(f"dump {prefix} full")
            self.assertEqual(target.quit(), 0)
            for kind in ("heap", "block", "mutex"):
                theirs, ours = samples_of(Profile(f"{prefix}.{kind}.pb.gz")), read_dump(f"{prefix}.{kind}.txt")
                if kind == "mutex":
                    theirs, ours = without_runtime_locks(theirs), without_runtime_locks(ours)
                self.assertGreaterEqual(len(ours), {"heap": 40, "block": 8, "mutex": 1}[kind])
                self.assertEqual(difference(ours, theirs), "", f"{flavour} {kind}")


def test_of(flavour):
    return lambda self: self.check_flavour(flavour)


def make_tests():
    """A class for every version and subject, named after both."""
    wanted = os.environ.get("DP_GO_VERSIONS", "").split() or go_programs.versions()
    newest = go_programs.versions()[-1]
    for version in wanted:
        subjects = [TargetsThemselves, Equality, Waits]
        flavours = FLAVOURS[:2]
        # The first of each layout of records and table; the others are much as their neighbours.
        if minor(version) in (19, 22, 24, minor(newest)):
            subjects.append(Godelta)
            flavours = FLAVOURS
        if version == newest:
            subjects.append(Others)
        for subject in subjects:
            name = f"{subject.__name__}_{version.replace('.', '_')}"
            globals()[name] = type(name, (subject, GoTest), {"VERSION": version})
        # A test for each flavour that is built; one that was skipped would count as failed.
        for flavour in flavours:
            setattr(globals()[f"Equality_{version.replace('.', '_')}"], f"test_{flavour}", test_of(flavour))


make_tests()

if __name__ == "__main__":
    main()
