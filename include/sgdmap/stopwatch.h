/* stopwatch: seconds on a clock that never goes back. */
#ifndef SGDMAP_STOPWATCH_H
#define SGDMAP_STOPWATCH_H

#include <time.h>

/* Seconds since some instant in the past. */
static inline double stopwatch_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

#endif
