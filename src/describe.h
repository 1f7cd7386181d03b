/* SPDX-License-Identifier: MIT */
#ifndef DP_DESCRIBE_H
#define DP_DESCRIBE_H

#include "src/session.h"

/*
 * What there is to say of an attach in words: lines that read on from "PID (NAME): ", without their
 * full stop. For the session's own thread.
 */

typedef void dp_describe_line(void *context, const char *text);

/* What is observed and where. */
void dp_describe(struct dp_session *session, dp_describe_line *line, void *context);

/* What the profiles cannot have, and why; mostly nothing. */
void dp_describe_limits(struct dp_session *session, dp_describe_line *line, void *context);

#endif
