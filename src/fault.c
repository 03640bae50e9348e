#include "sgdmap/fault.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int fault_at(const char *place, struct error *err)
{
    static long count; /* the program has one thread */
    const char *fault = getenv("SGDMAP_FAULT"), *trace = getenv("SGDMAP_FAULT_TRACE");
    const char *wanted = getenv("SGDMAP_FAULT_RANK"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    const char *named = getenv("SGDMAP_FAULT_PLACE");
    if (wanted != NULL && strcmp(wanted, rank != NULL ? rank : "0") != 0)
        return 0;
    if (named != NULL && strcmp(named, place) != 0)
        return 0;
    ++count;
    if (trace != NULL) {
        FILE *file = fopen(trace, "a");
        if (file != NULL) {
            fprintf(file, "%ld %s\n", count, place);
            fclose(file);
        }
    }
    long at = 0;
    char action[8] = "";
    if (fault == NULL || sscanf(fault, "%7s %ld", action, &at) != 2)
        return 0;
    if (strcmp(action, "full") == 0 ? count < at : count != at)
        return 0;
    if (strcmp(action, "kill") == 0)
        raise(SIGKILL);
    const struct {
        const char *name;
        int signal;
    } signals[] = {{"TERM", SIGTERM}, {"INT", SIGINT}, {"USR1", SIGUSR1}};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; ++i)
        if (strcmp(action, signals[i].name) == 0)
            return raise(signals[i].signal); /* and the program goes on as it sees fit */
    return error_set(err, ERROR_IO, "%s: a fault injected by a test", place);
}

void fault_left(const char *what, int64_t count)
{
    if (count == 0)
        return;
    fprintf(stderr, "sgdmap: %lld %s are left open\n", (long long)count, what);
    abort();
}
