/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_SAMPLING_LAW_H
#define DP_TESTS_SAMPLING_LAW_H

#include <stddef.h>

/*
 * The law of an estimate: every value that it can have in one run, with its probability. What is
 * observed over many runs is then judged without any assumption about how an estimate is spread;
 * few large weights are far from normal.
 */

/* @n events, each of which counts as @value and is sampled with probability @p. */
struct law_part {
	unsigned n;
	double value, p;
};

struct law {
	double mean;  /* the truth */
	double sigma; /* standard deviation; 0: the estimate is the truth */
	size_t n;
	double *values; /* (estimate - mean) / sigma */
	double *chances;
};

/*
 * The law of the sum over the sampled events of value / p, rounded to a whole number. Values whose
 * chance is below 1e-18 are left out. Ends the program when there is no memory.
 */
void law_make(struct law *ret, const struct law_part *parts, size_t n_parts);

/* Frees what law_make() allocated. */
void law_free(struct law *law);

/*
 * At least how unlikely it is that the sum of @n_runs independent estimates (as in law.values: of
 * their squares, if @squares) lies as far from its mean as @sum, on the same side: the natural
 * logarithm of a bound that the probability is certainly not above. For a law with a sigma.
 *
 * Source: Chernoff's bound, P(X >= x) <= min over t > 0 of E[exp(tX)] exp(-tx).
 */
double law_tail(const struct law *law, unsigned n_runs, double sum, int squares);

/* How far from its mean a normal number lies with the probability @level, to either side. */
double law_normal_limit(double level);

/*
 * The logarithm of a bound on the probability that a sum of independent terms, each of which is at
 * most @largest off its mean, is @off from its own. Source: Bennett's inequality.
 */
double law_bennett(double off, double variance, double largest);

#endif
