#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Code wherever it lies, and however short it stays: the right names or none, and every allocation counted."""

import os
import shutil
import subprocess
import tempfile

from harness import TARGETS, LiveTest, expected_stacks, in_own_mounts, main
from profiles import add_values

ROOTS = ("run_library", "run_direct")

# How stacks are taken: each test goes through all.
STACKS = ("fp", "dwarf", "auto")


def run(*command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def build_id(path):
    """The build-id of an ELF file, in hexadecimal."""
    text = subprocess.run(["readelf", "-n", path], check=True, capture_output=True, text=True).stdout
    (line,) = [line for line in text.splitlines() if "Build ID:" in line]
    return line.split()[-1]


def split_debug(path, debug_path):
    """Moves everything that names `path`'s functions to `debug_path`."""
    run("objcopy", "--only-keep-debug", path, debug_path)
    run("strip", "--strip-all", path)


def shared_objects(path):
    """The loader and libraries that a program needs."""
    text = subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout
    return [word for word in text.split() if word.startswith("/")]


class PlacesTest(LiveTest):
    def setUp(self):
        super().setUp()
        self.directory = tempfile.mkdtemp(prefix="dp-places-")

    def tearDown(self):
        super().tearDown()
        shutil.rmtree(self.directory, ignore_errors=True)

    def place(self, *names):
        """A path in this test's directory."""
        return os.path.join(self.directory, *names)

    def copy(self, name, to):
        """A copy of a target or library in this test's directory."""
        path = self.place(to)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copy(os.path.join(TARGETS, name), path)
        return path

    def replace(self, name, path):
        """What an upgrade does: a new file under the old name."""
        shutil.copy(os.path.join(TARGETS, name), path + ".new")
        os.rename(path + ".new", path)

    def stacks(self, profilers):
        """Stacks below one of ROOTS; others are what dlopen() and the program's start allocate."""
        sums = {}
        for profiler in profilers if isinstance(profilers, list) else [profilers]:
            profiles = profiler.profiles()
            self.assert_nothing_odd(profiles)
            for profile in profiles:
                last = profile is profiles[-1]
                for sample in profile.samples:
                    names = profile._visible(sample)  # pylint: disable=protected-access
                    root = next((i for i, name in enumerate(names) if name in ROOTS), None)
                    if root is not None:
                        key = tuple(names[: root + 1])
                        add_values(sums, key, sample.values if last else sample.values[:2] + [0, 0])
        return {key: values for key, values in sums.items() if any(values)}

    def check(self, target, profiler):
        """The profiles hold what the target has made since its start, under the right names."""
        expected = expected_stacks(target.ask("report"))
        self.finish(profiler)
        self.assert_stacks(self.stacks(profiler), expected)
        self.assertEqual(target.quit(), 0)

    def start(self, stacks, *target, interval="300ms", profiler=(), **options):
        """A target and its profiler."""
        target = self.target(*target, **options)
        return target, self.profile(
            target, "--heap-rate", "1", "-i", interval, "--stacks", stacks, *profiler
        )

    def each(self, test, *args):
        for stacks in STACKS:
            with self.subTest(stacks=stacks):
                test(stacks, *args)

    # ---- namespaces and file systems ---------------------------------------------------------------

    def in_namespace(self, script):
        """A prefix for a program that a tmpfs on `inside` is mounted for, and what `script` does there.

        Outside there are other files under the same names.
        """
        inside = self.place("inside")
        self.copy("place_b.so", "inside/places")
        split_debug(self.copy("place_c.so", "inside/place_a.so"), f"{inside}/place_a.so.debug")
        return inside, in_own_mounts(
            f"mount -t tmpfs dp-places {inside}\n"
            f"cp {TARGETS}/places {TARGETS}/place_a.so {inside}\n{script}"
        )

    def test_files_that_only_the_target_s_mount_namespace_has(self):
        def test(stacks):
            inside, prefix = self.in_namespace("")
            target, profiler = self.start(
                stacks, "places", path=f"{inside}/places", prefix=prefix
            )
            target.ask("direct 20")
            target.ask(f"open 0 {inside}/place_a.so")
            target.ask("run 0 30")
            self.check(target, profiler)

        self.each(test)

    def test_debug_files_that_only_the_target_s_root_has(self):
        """The program's under its build-id, the library's by .gnu_debuglink: neither is outside."""
        self.copy("places", "places")
        self.copy("place_a.so", "place_a.so")
        split_debug(self.place("places"), self.place("program.debug"))
        split_debug(self.place("place_a.so"), self.place("place_a.so.debug"))
        run("objcopy", f"--add-gnu-debuglink={self.place('place_a.so.debug')}", self.place("place_a.so"))
        identity = build_id(self.place("places"))
        os.makedirs(self.place("stage"))
        for name in ("places", "place_a.so", "program.debug", "place_a.so.debug"):
            os.rename(self.place(name), self.place("stage", name))

        def test(stacks, where):
            inside, prefix = self.in_namespace(
                f"rm {self.place('inside')}/*; cp {self.place('stage')}/*.so {self.place('stage')}/places "
                f"{self.place('inside')}\n"
                "mount -t tmpfs dp-places /usr/lib/debug\n"
                f"mkdir -p /usr/lib/debug/.build-id/{identity[:2]} {where}\n"
                f"cp {self.place('stage/program.debug')} /usr/lib/debug/.build-id/{identity[:2]}/{identity[2:]}.debug\n"
                f"cp {self.place('stage/place_a.so.debug')} {where}\n"
            )
            target, profiler = self.start(stacks, "places", path=f"{inside}/places", prefix=prefix)
            target.ask("direct 20")
            target.ask(f"open 0 {inside}/place_a.so")
            target.ask("run 0 30")
            self.check(target, profiler)

        os.makedirs("/usr/lib/debug", exist_ok=True)
        inside = self.place("inside")
        for where in (inside, f"{inside}/.debug", f"/usr/lib/debug{inside}"):
            self.each(test, where)

    def test_a_pid_namespace_and_another_root(self):
        root = self.place("root")
        for path in shared_objects(os.path.join(TARGETS, "places")):
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            shutil.copy(path, root + path)
        self.copy("places", "root/bin/places")
        self.copy("place_a.so", "root/opt/place_a.so")

        def test(stacks):
            target, profiler = self.start(
                stacks, "places", path="/bin/places",
                prefix=("unshare", "-p", "-f", "--mount-proc", "chroot", root),
            )  # fmt: skip
            target.ask("direct 20")
            target.ask("open 0 /opt/place_a.so")
            target.ask("run 0 30")
            self.check(target, profiler)

        self.each(test)

    def test_another_root_when_its_process_has_ended(self):
        """Names are asked for after the exit: its files, and its debug files, are still found."""
        root = self.place("root")
        for path in shared_objects(os.path.join(TARGETS, "places")):
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            shutil.copy(path, root + path)
        program = self.copy("places", "root/bin/places")
        library = self.copy("place_a.so", "root/opt/place_a.so")
        os.makedirs(f"{root}/usr/lib/debug/bin")
        split_debug(program, f"{root}/usr/lib/debug/bin/places.debug")
        run("objcopy", f"--add-gnu-debuglink={root}/usr/lib/debug/bin/places.debug", program)
        split_debug(library, f"{root}/opt/place_a.so.debug")
        run("objcopy", f"--add-gnu-debuglink={root}/opt/place_a.so.debug", library)

        def test(stacks):
            target, profiler = self.start(
                stacks, "places", path="/bin/places", prefix=("chroot", root), interval="1h"
            )
            target.ask("direct 20")
            target.ask("open 0 /opt/place_a.so")
            target.ask("run 0 30")
            expected = expected_stacks(target.ask("report"))
            self.assertEqual(target.quit(), 0)
            self.assertEqual(profiler.wait(), 0, profiler.stderr)
            self.assert_stacks(self.stacks(profiler), expected)

        self.each(test)

    def test_an_overlay_s_lower_and_upper_files(self):
        """The upper one is copied up when it is written to: appended to, as the lower one still runs."""
        base = self.place("overlay")
        os.makedirs(base, exist_ok=True)
        prefix = in_own_mounts(
            f"mount -t tmpfs dp-places {base}\ncd {base}\nmkdir lower upper work merged\n"
            f"cp {TARGETS}/places {TARGETS}/place_a.so {TARGETS}/place_b.so lower\n"
            "mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work dp-places merged\n"
            "echo >> merged/place_b.so\ntest -e upper/place_b.so\ntest ! -e upper/place_a.so\n"
            f"cp {TARGETS}/place_c.so merged\ncd /"
        )

        def test(stacks):
            target, profiler = self.start(
                stacks, "places", path=f"{base}/merged/places", prefix=prefix
            )
            target.ask("direct 20")
            for i, name in enumerate("abc"):
                target.ask(f"open {i} {base}/merged/place_{name}.so")
                target.ask(f"run {i} {30 + i}")
            target.ask(f"alternate 10 20 {base}/merged/place_a.so {base}/merged/place_b.so")
            self.check(target, profiler)

        self.each(test)

    # ---- files that change ---------------------------------------------------------------------------

    def test_a_library_that_is_deleted_before_the_attach(self):
        def test(stacks):
            library = self.copy("place_a.so", "place.so")
            target = self.target("places")
            target.ask(f"open 0 {library}")
            os.unlink(library)
            profiler = self.profile(target, "--heap-rate", "1", "-i", "300ms", "--stacks", stacks)
            target.ask("run 0 30")
            self.check(target, profiler)

        self.each(test)

    def test_an_upgraded_library_before_and_after_the_attach(self):
        """Mapped is the old build: its names, though the path leads to the new one."""

        def test(stacks, when):
            library = self.copy("place_a.so", "place.so")
            target = self.target("places")
            target.ask(f"open 0 {library}")
            if when == "before":
                self.replace("place_b.so", library)
            profiler = self.profile(target, "--heap-rate", "1", "-i", "300ms", "--stacks", stacks)
            if when == "after":
                self.replace("place_b.so", library)
            target.ask("run 0 30")
            target.ask(f"open 1 {library}")
            target.ask("run 1 40")
            target.ask("close 1")
            target.ask("run 0 5")
            self.check(target, profiler)

        self.each(test, "before")
        self.each(test, "after")

    def test_a_library_that_is_opened_and_then_upgraded(self):
        """Opened after the attach: the path leads to another build when its names are asked for."""

        def test(stacks):
            library = self.copy("place_a.so", "place.so")
            target, profiler = self.start(stacks, "places")
            for i, successor in enumerate("bc"):
                target.ask(f"open {i} {library}")
                profiler.wait_covered()
                self.replace(f"place_{successor}.so", library)
                target.ask(f"run {i} {30 + i}")
            target.ask("close 0")
            target.ask(f"open 0 {library}")
            target.ask("run 0 50")
            self.check(target, profiler)

        self.each(test)

    def test_a_library_that_is_replaced_before_anyone_can_look_has_its_names_or_none(self):
        def test(stacks):
            library = self.copy("place_a.so", "place.so")
            target, profiler = self.start(stacks, "places")
            for name in "bcabc":
                target.ask(f"open 0 {library}")
                target.ask("run 0 10")
                target.ask("close 0")
                self.replace(f"place_{name}.so", library)
            expected = expected_stacks(target.ask("report"))
            self.finish(profiler)
            found = self.stacks(profiler)
            n_all = sum(values[0] for values in expected.values())
            self.assertEqual(sum(values[0] for values in found.values()), n_all)
            for stack, values in found.items():
                if not stack[0].startswith("place.so+0x"):
                    self.assertIn(stack, expected)
                    self.assertLessEqual(values[0], expected[stack][0])
            self.assertEqual(target.quit(), 0)

        self.each(test)

    def test_a_library_that_is_overwritten_in_place_has_no_names_of_another_build(self):
        """What runs then is the new file's code, and its build-id is not that of what was opened."""

        def test(stacks):
            library = self.copy("place_a.so", "place.so")
            target = self.target("places")
            target.ask(f"open 0 {library}")
            profiler = self.profile(target, "--heap-rate", "1", "-i", "300ms", "--stacks", stacks)
            with open(os.path.join(TARGETS, "place_b.so"), "rb") as new, open(library, "r+b") as old:
                old.write(new.read())
            target.ask("run 0 30")
            self.finish(profiler)
            found = self.stacks(profiler)
            self.assertEqual(sum(values[0] for values in found.values()), 30, found)
            for stack in found:
                for name in stack[:-1]:
                    self.assertRegex(name, r"^place\.so\+0x")
            self.assertEqual(target.quit(), 0)

        self.each(test)

    def test_a_program_that_is_upgraded_while_it_runs(self):
        """The path leads to another build, beside it lies that build's debug file: neither is asked."""

        def test(stacks):
            program = self.copy("places", "places")
            target = self.target("places", path=program)
            self.replace("place_b.so", program)
            profiler = self.profile(target, "--heap-rate", "1", "-i", "300ms", "--stacks", stacks)
            target.ask("direct 30")
            self.check(target, profiler)

        self.each(test)

    def test_a_debug_file_of_another_build_is_refused(self):
        library = self.copy("place_a.so", "place.so")
        other = self.copy("place_b.so", "other.so")
        split_debug(library, self.place("place.so.debug"))
        run("objcopy", f"--add-gnu-debuglink={self.place('place.so.debug')}", library)
        split_debug(other, self.place("other.debug"))

        def test(stacks, is_right):
            target, profiler = self.start(stacks, "places")
            target.ask(f"open 0 {library}")
            target.ask("run 0 30")
            if is_right:
                self.check(target, profiler)
                return
            self.finish(profiler)
            ((leaf, middle, *rest), values), = self.stacks(profiler).items()
            self.assertRegex(leaf, r"^place\.so\+0x")
            self.assertRegex(middle, r"^place\.so\+0x")
            self.assertEqual(rest, ["place_run", "run_library"])
            self.assertEqual(values, [30, 30 * 40] * 2)

        self.each(test, True)
        os.rename(self.place("other.debug"), self.place("place.so.debug"))
        self.each(test, False)

    # ---- libraries that come and go ------------------------------------------------------------------

    def test_a_library_in_memory_without_a_path(self):
        def test(stacks):
            target, profiler = self.start(stacks, "places")
            for i, name in enumerate("ab"):
                target.ask(f"memfd {i} {TARGETS}/place_{name}.so")
            for i in (1, 0, 1):
                target.ask(f"run {i} {20 + i}")
            target.ask("close 0")
            target.ask(f"memfd 0 {TARGETS}/place_c.so")
            target.ask("run 0 7")
            self.check(target, profiler)

        self.each(test)

    def test_a_library_that_is_closed_before_the_interval_ends(self):
        def test(stacks):
            target, profiler = self.start(stacks, "places", interval="1h")
            target.ask(f"open 0 {TARGETS}/place_a.so")
            target.ask("run 0 30")
            target.ask("close 0")
            self.check(target, profiler)
            target, profiler = self.start(stacks, "places", interval="1h")
            library = self.copy("place_a.so", "place.so")
            target.ask(f"alternate 30 1 {library} {TARGETS}/place_b.so")
            self.check(target, profiler)

        self.each(test)

    def test_an_address_that_is_one_library_and_then_another(self):
        """Faster than anyone can look: which was there when is known from the kernel's records alone."""

        def test(stacks, interval):
            target, profiler = self.start(stacks, "places", interval=interval)
            for _ in range(5):
                answer = target.ask(f"alternate 3 40 {TARGETS}/place_a.so {TARGETS}/place_b.so")
                self.assertEqual(answer["addresses"], 1, "the libraries were not at the same place")
                profiler.wait_idle()
            self.check(target, profiler)

        self.each(test, "1h")
        self.each(test, "100ms")

    def test_an_address_that_is_a_library_and_another_in_the_next_interval(self):
        def test(stacks):
            target, profiler = self.start(stacks, "places")
            for name in "abca":
                target.ask(f"open 0 {TARGETS}/place_{name}.so")
                target.ask("run 0 10")
                profiler.wait_covered()
                target.ask("run 0 10")
                target.ask("close 0")
            self.check(target, profiler)

        self.each(test)


if __name__ == "__main__":
    main()
