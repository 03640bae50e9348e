#include "sgdmap/terminal.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "sgdmap/command.h"

/* mpirun gives its ranks pipes, so whether a person looks on is to be seen at its own standard error. */
static int open_launcher_terminal(void)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", (int)getppid());
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return -1;
    if (fgets(name, sizeof name, file) == NULL)
        name[0] = '\0';
    fclose(file);
    name[strcspn(name, "\n")] = '\0';
    const char *const launchers[] = {"mpirun",  "mpiexec",        "orterun",
                                     "prterun", "mpirun.openmpi", "mpiexec.openmpi"};
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; ++i)
        if (strcmp(name, launchers[i]) == 0) {
            snprintf(path, sizeof path, "/proc/%d/fd/2", (int)getppid());
            char target[64];
            ssize_t length = readlink(path, target, sizeof target - 1);
            if (length <= 0)
                return -1;
            target[length] = '\0';
            if (strncmp(target, "/dev/pts/", 9) != 0 && strncmp(target, "/dev/tty", 8) != 0)
                return -1;
            return open(target, O_RDONLY | O_NOCTTY | O_CLOEXEC);
        }
    return -1;
}

void terminal_init(struct terminal *t)
{
    *t = (struct terminal){.width = 80};
    struct winsize size;
    if (isatty(STDERR_FILENO)) {
        t->bar = true;
        if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
            t->width = size.ws_col;
        return;
    }
    int descriptor = open_launcher_terminal();
    if (descriptor < 0)
        return;
    t->bar = isatty(descriptor);
    if (ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        t->width = size.ws_col;
    close(descriptor);
}

double terminal_interval(const struct terminal *t)
{
    return t->bar ? 0.2 : 60;
}

int terminal_line(const struct sweep_progress *p, char *ret, size_t size)
{
    char time[COMMAND_TEXT_SIZE] = "—", counts[160] = "";
    const int64_t done = p->run_count - p->outcomes[OUTCOME_PENDING] - p->outcomes[OUTCOME_RUNNING];
    const double share = p->cost > 0 ? p->cost_done / p->cost : 1;
    if (p->cost_done > 0)
        command_duration(p->left, time);
    size_t used = 0;
    for (int o = OUTCOME_CONVERGED; o < OUTCOME_COUNT; ++o)
        if (p->outcomes[o] > 0 && used < sizeof counts)
            used += (size_t)snprintf(counts + used, sizeof counts - used, "%s%lld %s", used > 0 ? ", " : "",
                                     (long long)p->outcomes[o], outcome_name((enum outcome)o));
    return snprintf(ret, size, "%3.0f%%  %lld/%lld runs  %.1f/s  ETA %s  %s", 100 * (share < 1 ? share : 1),
                    (long long)done, (long long)p->run_count,
                    p->elapsed > 0 ? (double)p->trained / p->elapsed : 0.0, time, counts);
}

void terminal_begin(void *context, const struct sweep_progress *progress)
{
    struct terminal *t = context;
    char time[COMMAND_TEXT_SIZE];
    const int64_t left = progress->outcomes[OUTCOME_PENDING];
    t->idle = left == 0;
    command_duration(progress->cost / progress->ranks, time);
    if (left == 0)
        fprintf(stderr, "sgdmap: all %lld runs are done\n", (long long)progress->run_count);
    else
        fprintf(stderr,
                "sgdmap: %lld of %lld runs to train on %d rank%s with BLIS's %s kernels, about %s if none "
                "ends early\n",
                (long long)left, (long long)progress->run_count, progress->ranks,
                progress->ranks == 1 ? "" : "s", linalg_kernel_family(), time);
}

void terminal_progress(void *context, const struct sweep_progress *progress, bool last)
{
    struct terminal *t = context;
    char line[512];
    if (t->idle)
        return;
    terminal_line(progress, line, sizeof line);
    if (!t->bar) {
        char stamp[32];
        time_t clock = time(NULL);
        strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", localtime(&clock));
        fprintf(stderr, "%s %s\n", stamp, line);
        return;
    }
    /* A bar before the line, cut at the terminal's width in characters, not bytes. */
    enum { CELLS = 20 };
    const double share = progress->cost > 0 ? progress->cost_done / progress->cost : 1;
    const int full = (int)(CELLS * (share < 1 ? share : 1) + 0.5);
    int columns = t->width - CELLS - 3;
    size_t bytes = 0;
    while (line[bytes] != '\0' && columns > 0) {
        ++bytes;
        while (((unsigned char)line[bytes] & 0xc0) == 0x80)
            ++bytes;
        --columns;
    }
    line[bytes] = '\0';
    fprintf(stderr, "\r");
    for (int i = 0; i < CELLS; ++i)
        fputs(i < full ? "█" : "░", stderr);
    fprintf(stderr, " %s\033[K%s", line, last ? "\n" : "");
    fflush(stderr);
    t->drawn = !last;
}

void terminal_failure(void *context, int64_t run, const char *message)
{
    struct terminal *t = context;
    fprintf(stderr, "%ssgdmap: run %lld failed: %s\n", t->drawn ? "\n" : "", (long long)run, message);
    t->drawn = false;
}

void terminal_warning(void *context, const char *message)
{
    struct terminal *t = context;
    fprintf(stderr, "%ssgdmap: warning: %s\n", t->drawn ? "\n" : "", message);
    t->drawn = false;
}
