/* terminal: a sweep's progress for a person: a bar that moves on a terminal, a line a minute in a log. */
#ifndef SGDMAP_TERMINAL_H
#define SGDMAP_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>

#include "sgdmap/sweep.h"

struct terminal {
    bool bar;  /* stderr, or that of the mpirun above us, is a terminal */
    int width; /* columns */
    bool drawn;
    bool idle; /* there is nothing to train, and nothing to tell */
};

void terminal_init(struct terminal *terminal);

/* How often terminal_progress wants to be called, s. */
double terminal_interval(const struct terminal *terminal);

/* For struct sweep_observer; context is the struct terminal. */
void terminal_begin(void *terminal, const struct sweep_progress *progress);
void terminal_progress(void *terminal, const struct sweep_progress *progress, bool last);
void terminal_failure(void *terminal, int64_t run, const char *message);
void terminal_warning(void *terminal, const char *message);

/* The bar's line without the terminal's codes; for tests. Returns its length. */
int terminal_line(const struct sweep_progress *progress, char *ret, size_t size);

#endif
