#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Sampling is unbiased: sampled totals lie around the truth as far as a Poisson process says, no further.

An event of size S is sampled with p = 1 - exp(-S / R) and counts S / p bytes, so the variance of a total
is the sum of S^2 (1 - p) / p over the events, and for objects the sum of (1 - p) / p.
"""

import math

from harness import LiveTest, main
from profiles import sum_comments, sum_stacks

# Beyond 4.5 sigma lies one in 150 000: a fair sampler does not fail this in years of CI.
Z = 4.5
N_SLICE = 4000


def made_since(after, before):
    """Size → how many objects of it were made between two reports (`before` may be None)."""
    old = {size: n for size, n, _ in before["sizes"]} if before else {}
    return {size: n - old.get(size, 0) for size, n, _ in after["sizes"]}


def held_in(report):
    return {size: n_held for size, _, n_held in report["sizes"]}


def expectation(histogram, rate):
    """(objects, bytes, variance of objects, variance of bytes) of one round."""
    objects = size_bytes = variance_objects = variance_bytes = 0
    for size, n in histogram.items():
        p = -math.expm1(-max(size, 1) / rate)
        objects += n
        size_bytes += n * size
        variance_objects += n * (1 - p) / p
        variance_bytes += n * size * size * (1 - p) / p
    return objects, size_bytes, variance_objects, variance_bytes


class RatesTest(LiveTest):
    def collect(self, rate, rounds, per_round, seed):
        """Per round: what was made, what the profiles of that round say, and the target's report.

        Without the smallest sizes: a byte is sampled once in 65536 and then counts 65536 objects, and a sum
        of a few such events is not nearly normal.
        """
        target = self.target("truth", "--seed", str(seed), "--min-size", "512")
        profiler = self.profile(target, "--heap-rate", str(rate), "-i", "200ms")
        n_old, before, results = 0, None, []
        for _ in range(rounds):
            target.go_slowly(per_round, N_SLICE, profiler)
            report = target.ask("report")
            profiles = profiler.wait_covered()
            new = profiles[n_old:]
            found = [sum(p.totals()[i] for p in new) for i in (0, 1)]
            results.append((expectation(made_since(report, before), rate), found))
            n_old, before = len(profiles), report
        self.finish(profiler)
        return results, profiler.profiles(), report

    def check_mean(self, results, i, what):
        """The mean of all rounds within Z sigma, and the spread of the rounds as large as it must be."""
        off = sum(found[i] - made[i] for made, found in results)
        sigma = math.sqrt(sum(made[2 + i] for made, _ in results))
        self.assertLess(abs(off), Z * sigma, f"{what}: off by {off / sigma:.2f} sigma")
        chi_square = sum((found[i] - made[i]) ** 2 / made[2 + i] for made, found in results)
        n = len(results)
        # Wilson and Hilferty: the cube root of chi^2 / n is nearly normal.
        z = ((chi_square / n) ** (1 / 3) - (1 - 2 / (9 * n))) / math.sqrt(2 / (9 * n))
        self.assertLess(abs(z), Z, f"{what}: spread of the rounds off by {z:.2f} sigma")

    def test_totals_of_thirty_rounds_lie_within_the_poisson_interval(self):
        results, profiles, report = self.collect(64 << 10, rounds=32, per_round=8000, seed=11)
        self.assertEqual(len(results), 32)
        self.check_mean(results, 0, "objects")
        self.check_mean(results, 1, "bytes")
        for profile in profiles:
            self.assertEqual(profile.period, 64 << 10)
            self.assertEqual(profile.period_type, ("space", "bytes"))
        total = sum_comments(profiles, "allocations")
        overflowed = report["failed"]["leaf_calloc"] + report["failed"]["leaf_reallocarray"]
        calls = report["made"] + sum(report["failed"].values()) + report["zeroed"] - overflowed
        self.assertEqual(total["sampled"] + total["skipped"], calls)
        self.assertEqual(sum_comments(profiles, "records")["lost"], 0)
        # The number of samples is a sum of draws too; impossible sizes are sampled for certain.
        impossible = sum(report["failed"].values()) - overflowed
        expected = variance = 0
        for size, n in made_since(report, None).items():
            p = -math.expm1(-max(size, 1) / (64 << 10))
            expected, variance = expected + n * p, variance + n * p * (1 - p)
        off = total["sampled"] - impossible - expected
        self.assertLess(abs(off), Z * math.sqrt(variance) + 1)

    def test_what_is_in_use_is_estimated_without_bias(self):
        """Summed over runs with other seeds: held bytes against estimated ones."""
        off = variance = 0
        for seed in range(4):
            target = self.target("truth", "--seed", str(seed))
            profiler = self.profile(target, "--heap-rate", "4KiB", "-i", "10s")
            target.go_slowly(40_000, N_SLICE, profiler)
            report = target.ask("report")
            self.finish(profiler)
            found = sum_stacks(profiler.profiles(), "worker_main")
            held = expectation(held_in(report), 4 << 10)
            self.assertEqual(held[1], sum(s["values"][3] for s in report["stacks"]))
            off += sum(values[3] for values in found.values()) - held[1]
            variance += held[3]
            target.quit()
        self.assertLess(abs(off), Z * math.sqrt(variance), f"{off} bytes, sigma {variance**0.5}")

    def test_the_default_rate_is_512_kib(self):
        target = self.target("truth")
        profiler = self.profile(target, "-i", "300ms")
        target.go_slowly(20_000, N_SLICE, profiler)
        report = target.ask("report")
        self.finish(profiler)
        profiles = profiler.profiles()
        self.assertEqual({p.period for p in profiles}, {524288})
        made = expectation(made_since(report, None), 524288)
        found = sum(p.totals()[1] for p in profiles)
        self.assertLess(abs(found - made[1]), Z * math.sqrt(made[3]))


if __name__ == "__main__":
    main()
