/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: Chernoff's bound holds for every law that can be written down, and the law of a
 * Poisson sample can be: of each part the number of sampled events is binomial. So a check at a
 * level of 1 % fails by chance in less than 1 % of all cases, never more often.
 */
#include "tests/sampling_law.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define LEAST_CHANCE 1e-18
#define MAX_POINTS (1 << 16)

struct points {
	size_t n;
	double *values, *chances;
};

static void points_new(struct points *points)
{
	points->n = 0;
	points->values = malloc(MAX_POINTS * sizeof(double));
	points->chances = malloc(MAX_POINTS * sizeof(double));
	if (!points->values || !points->chances)
		abort();
}

static void points_free(struct points *points)
{
	free(points->values);
	free(points->chances);
}

static void points_add(struct points *points, double value, double chance)
{
	if (chance < LEAST_CHANCE)
		return;
	if (points->n == MAX_POINTS)
		abort();
	points->values[points->n] = value;
	points->chances[points->n++] = chance;
}

/* That @k of the part's events are sampled. */
static double binomial(const struct law_part *part, unsigned k)
{
	double n = part->n;

	if (part->p >= 1)
		return k == part->n;
	return exp(lgamma(n + 1) - lgamma(k + 1.0) - lgamma(n - k + 1) + k * log(part->p) +
		   (n - k) * log1p(-part->p));
}

/* @from with the part's events on top. */
static void add_part(struct points *to, const struct points *from, const struct law_part *part)
{
	for (unsigned k = 0; k <= part->n; k++) {
		double chance = binomial(part, k);

		for (size_t i = 0; i < from->n && chance >= LEAST_CHANCE; i++)
			points_add(to, from->values[i] + k * part->value / part->p,
				   from->chances[i] * chance);
	}
}

/* The truth is what there was, whatever rounding does to the mean. */
static void finish(struct law *law, const struct points *points)
{
	double variance = 0;

	for (size_t i = 0; i < points->n; i++) {
		double off = round(points->values[i]) - law->mean;

		variance += points->chances[i] * off * off;
	}
	law->sigma = variance < 1e-9 ? 0 : sqrt(variance);
	law->n = points->n;
	law->values = points->values;
	law->chances = points->chances;
	for (size_t i = 0; i < law->n; i++)
		law->values[i] =
			law->sigma > 0 ? (round(law->values[i]) - law->mean) / law->sigma : 0;
}

void law_make(struct law *ret, const struct law_part *parts, size_t n_parts)
{
	struct points from, to;

	*ret = (struct law){0};
	points_new(&from);
	points_add(&from, 0, 1);
	for (size_t i = 0; i < n_parts; i++) {
		ret->mean += parts[i].n * parts[i].value;
		points_new(&to);
		add_part(&to, &from, &parts[i]);
		points_free(&from);
		from = to;
	}
	finish(ret, &from);
}

void law_free(struct law *law)
{
	free(law->values);
	free(law->chances);
	*law = (struct law){0};
}

static double point(const struct law *law, size_t i, int squares)
{
	return squares ? law->values[i] * law->values[i] : law->values[i];
}

/* log E[exp(t x)] for one run, with the largest exponent taken out. */
static double log_mgf(const struct law *law, double t, int squares)
{
	double largest = -INFINITY, sum = 0;

	for (size_t i = 0; i < law->n; i++)
		largest = fmax(largest, t * point(law, i, squares));
	for (size_t i = 0; i < law->n; i++)
		sum += law->chances[i] * exp(t * point(law, i, squares) - largest);
	return log(sum) + largest;
}

static double bound(const struct law *law, unsigned n_runs, double sum, int squares, double t)
{
	return n_runs * log_mgf(law, t, squares) - t * sum;
}

/* It is convex in t and 0 at 0: the least value lies between neighbours of the least power of 2. */
double law_tail(const struct law *law, unsigned n_runs, double sum, int squares)
{
	double mean = 0, sign, t = 0x1p-20, low, high;

	for (size_t i = 0; i < law->n; i++)
		mean += law->chances[i] * point(law, i, squares);
	sign = sum > n_runs * mean ? 1 : -1;
	while (t < 0x1p12 && bound(law, n_runs, sum, squares, sign * t * 2) <
				     bound(law, n_runs, sum, squares, sign * t))
		t *= 2;
	low = t / 2;
	high = t * 2;
	for (int i = 0; i < 60; i++) {
		double a = low + (high - low) / 3, b = high - (high - low) / 3;

		if (bound(law, n_runs, sum, squares, sign * a) <
		    bound(law, n_runs, sum, squares, sign * b))
			high = b;
		else
			low = a;
	}
	return fmin(0, bound(law, n_runs, sum, squares, sign * low));
}

double law_normal_limit(double level)
{
	double low = 0, high = 20;

	for (int i = 0; i < 60; i++) {
		double middle = (low + high) / 2;

		if (erfc(middle / sqrt(2)) > level)
			low = middle;
		else
			high = middle;
	}
	return high;
}

double law_bennett(double off, double variance, double largest)
{
	double u = largest * off / variance;

	return off <= 0 ? 0 : -variance / (largest * largest) * ((1 + u) * log1p(u) - u);
}
