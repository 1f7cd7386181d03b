#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs ctest for each preset named as an argument and prints `N passed, N failed` as the last line.

A test that was skipped, disabled or not run counts as failed: what did not run has proved nothing.
Outside of CI, with DP_REQUIRE_PERF=0, skipped tests are counted on their own instead.
"""

import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(preset):
    """Runs one preset. Returns its results: test name -> passed, failed or skipped."""
    report = ROOT / "build" / preset / "junit.xml"
    report.unlink(missing_ok=True)
    jobs = str(os.cpu_count() or 1)
    command = ["ctest", "--preset", preset, "-j", jobs, "--output-junit", str(report)]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    results = count(report) if report.exists() else {}
    if not results or (status != 0 and "failed" not in results.values()):
        results["(ctest itself)"] = "failed"
    return results


def count(report):
    """Reads ctest's JUnit file."""
    results = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        kind = {"run": "passed", "fail": "failed"}.get(case.get("status"), "skipped")
        results[case.get("name")] = kind
    return results


def main(presets):
    required = os.environ.get("DP_REQUIRE_PERF", "1") != "0" or bool(os.environ.get("CI"))
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    for preset in presets:
        print(f"== {preset}", flush=True)
        for name, kind in run(preset).items():
            if kind == "skipped" and required:
                print(f"{preset}: {name} did not run, which counts as failed")
                kind = "failed"
            totals[kind] += 1
    skipped = f", {totals['skipped']} skipped" if totals["skipped"] else ""
    print(f"{totals['passed']} passed, {totals['failed']} failed{skipped}", flush=True)
    return 1 if totals["failed"] else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: tests/run_presets.py PRESET...")
    sys.exit(main(sys.argv[1:]))
