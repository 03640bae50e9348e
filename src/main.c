/* main: which subcommand. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sgdmap/command.h"
#include "sgdmap/fault.h"
#include "sgdmap/store.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} COMMANDS[] = {
    {"plan", command_plan, "what a config would cost; writes nothing"},
    {"run", command_run, "train all that is not done yet: mpirun -n N sgdmap run CONFIG -o FILE"},
    {"status", command_status, "how far a file is, with a map as text; also while it is written"},
    {"verify", command_verify, "check every run's checksum"},
    {"replay", command_replay, "train one run again from the file alone and compare bits"},
    {"merge", command_merge, "put the files of a sweep's shards together: sgdmap merge -o OUT FILE…"},
};

static void usage(FILE *to)
{
    fprintf(to,
            "sgdmap maps where stochastic gradient descent converges: a sweep of two-layer ReLU networks\n"
            "over step size, initialization, dimension and teacher, into one HDF5 file.\n\n"
            "usage: sgdmap COMMAND …\n\n");
    for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; ++i)
        fprintf(to, "  %-8s %s\n", COMMANDS[i].name, COMMANDS[i].what);
    fprintf(to, "\n  -h, --help     this text; `sgdmap COMMAND -h` for a command's\n"
                "  --version      the version and the commit it was built from\n\n"
                "Exit status: 0 complete; 1 complete, but some runs failed; 2 bad arguments or config;\n"
                "74 input/output error; 75 interrupted, run the same command again to go on; 70 internal.\n");
}

/* What could not be printed was not told. Whatever the command opened is closed. */
static int after_output(int status)
{
    fault_left("handles of HDF5", store_handles());
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == 0) {
        fprintf(stderr, "sgdmap: standard output cannot be written: %s\n", strerror(errno));
        return error_exit_status(ERROR_IO);
    }
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return error_exit_status(ERROR_ARGUMENT);
    }
    if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) {
        usage(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts(command_source());
        return 0;
    }
    for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; ++i)
        if (strcmp(argv[1], COMMANDS[i].name) == 0)
            return after_output(COMMANDS[i].run(argc - 1, argv + 1));
    fprintf(stderr, "sgdmap: %s: unknown command; expected plan, run, status, verify, replay or merge\n",
            argv[1]);
    return error_exit_status(ERROR_ARGUMENT);
}
