/* sgdmap plan: what a config would cost. Needs neither mpirun nor a result file, and writes nothing. */
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sgdmap/command.h"
#include "sgdmap/kernels.h"
#include "sgdmap/stopwatch.h"
#include "sgdmap/store.h"
#include "sgdmap/task.h"

static void usage(void)
{
    puts("usage: sgdmap plan CONFIG [--ranks N] [--calibrate] [--set KEY=VALUE]…\n\n"
         "Lists the axes, the runs and groups, the time, the memory a rank and the size of the file.\n\n"
         "      --ranks N         also the wall time and the parallel efficiency on N ranks\n"
         "      --calibrate       measures this machine's core first, for about 2 s\n"
         "      --set KEY=VALUE   override a value of CONFIG: --set grid.step_size=0.01\n"
         "  -h, --help            this text\n\n"
         "Times are those of a core of the reference machine (or, calibrated, of this one) if no run ends "
         "early;\n"
         "runs that converge or diverge do.");
}

static void print_axes(const struct config *config)
{
    for (int a = 0; a < AXIS_COUNT; ++a) {
        const struct axis *axis = &config->axes[a];
        printf("  %-14s %6lld  ", axis_name((enum axis_id)a), (long long)axis->count);
        for (int64_t i = 0; i < axis->count; ++i) {
            if (axis->count > 8 && i == 4) {
                printf(" …");
                i = axis->count - 2;
                continue;
            }
            if (a == AXIS_LINK)
                printf(" %s", link_kind_name((enum link_kind)axis->values[i]));
            else if (a == AXIS_INPUT)
                printf(" %s", input_kind_name((enum input_kind)axis->values[i]));
            else
                printf(" %.4g", axis->values[i]);
        }
        putchar('\n');
    }
    printf("  %-14s %6lld\n", "replicates", (long long)config->replicates);
}

/* Trains the first groups of each block for a while: this core's seconds a predicted second, by block. */
static int calibrate(const struct config *config, const struct grid *grid, double *factors, struct error *err)
{
    enum { MEASURED_MAX = 8 };
    linalg_setup();
    const int64_t measured = grid->block_count < MEASURED_MAX ? grid->block_count : MEASURED_MAX;
    const double budget = 2.0 / (double)measured;
    for (int64_t b = 0; b < grid->block_count; ++b) {
        /* Of many blocks some, evenly spread; the others are taken for like the one before. */
        if (b > 0 && b * measured / grid->block_count == (b - 1) * measured / grid->block_count) {
            factors[b] = factors[b - 1];
            continue;
        }
        struct task task;
        int code =
            task_init(kernels_select(NULL), config, grid, grid->blocks[b].first_group, NULL, &task, err);
        if (code == 0) {
            /* Records stand close in the first steps; what comes later is what most of a run is like. */
            trainer_advance(task.trainer, budget / 4);
            const double before = trainer_progress(task.trainer), start = stopwatch_now();
            trainer_advance(task.trainer, 3 * budget / 4);
            const double progress = trainer_progress(task.trainer) - before, time = stopwatch_now() - start;
            factors[b] = progress > 0 ? time / (progress * task.group.cost) : 1;
        }
        task_done(&task);
        TRY(code);
    }
    return 0;
}

/* The time at which the last of `ranks` ends if each takes the next most expensive group as it is free: a
 * heap of the ranks' ends. Groups of one block cost the same, so that whole rounds of all ranks are taken at
 * once. */
static int simulate(const struct grid *grid, const double *factors, int64_t ranks, double *ret,
                    struct error *err)
{
    double *ends = calloc((size_t)ranks, sizeof *ends);
    if (ends == NULL)
        return error_set(err, ERROR_MEMORY, "plan: --ranks: out of memory for %lld ranks", (long long)ranks);
    int64_t i = 0; /* into the blocks by cost */
    for (int64_t g = 0; g < grid->group_count; ++g) {
        struct group group;
        grid_group(grid, grid_group_by_cost(grid, g), &group);
        while (i + 1 < grid->block_count && grid->by_cost_first[i + 1] <= g)
            ++i;
        const int64_t block = grid->by_cost[i];
        double end = ends[0] + group.cost * factors[block];
        int64_t at = 0;
        for (int64_t child; (child = 2 * at + 1) < ranks; at = child) {
            if (child + 1 < ranks && ends[child + 1] < ends[child])
                ++child;
            if (ends[child] >= end)
                break;
            ends[at] = ends[child];
        }
        ends[at] = end;
    }
    *ret = 0;
    for (int64_t r = 0; r < ranks; ++r)
        *ret = fmax(*ret, ends[r]);
    free(ends);
    return 0;
}

static int plan(const struct config *config, const struct grid *grid, int64_t ranks, bool calibrated,
                struct error *err)
{
    double *factors = calloc((size_t)grid->block_count, sizeof *factors);
    if (factors == NULL)
        return error_set(err, ERROR_MEMORY, "plan: out of memory");
    for (int64_t b = 0; b < grid->block_count; ++b)
        factors[b] = 1;
    int code = calibrated ? calibrate(config, grid, factors, err) : 0;
    double cost = 0;
    for (int64_t b = 0; b < grid->block_count; ++b) {
        const struct grid_block *block = &grid->blocks[b];
        cost += factors[b] * block->run_cost * (double)grid->family_runs * (double)block->family_count;
    }
    if (code == 0) {
        char time[COMMAND_TEXT_SIZE], bytes[COMMAND_TEXT_SIZE];
        printf("%s\n", config->title);
        print_axes(config);
        printf("%lld runs of %lld steps, %lld records each, in %lld groups\n", (long long)grid->run_count,
               (long long)config->steps, (long long)config->record_count, (long long)grid->group_count);
        command_duration(cost, time);
        printf("time of one core   %s (%.3g core-hours)%s\n", time, cost / 3600,
               calibrated ? ", calibrated here" : "");
        command_bytes((double)grid_memory(grid), bytes);
        printf("memory a rank      %s\n", bytes);
        command_bytes((double)store_file_size(config, grid), bytes);
        printf("size of the file   %s\n", bytes);
    }
    if (code == 0 && ranks > 0) {
        double wall = 0;
        char time[COMMAND_TEXT_SIZE];
        code = simulate(grid, factors, ranks, &wall, err);
        if (code == 0) {
            command_duration(wall, time);
            printf("on %lld rank%s        %s, parallel efficiency %.1f %%\n", (long long)ranks,
                   ranks == 1 ? " " : "s", time, 100 * cost / (wall * (double)ranks));
        }
    }
    free(factors);
    return code;
}

int command_plan(int argc, char **argv)
{
    static const struct option options[] = {{"ranks", required_argument, NULL, 'r'},
                                            {"calibrate", no_argument, NULL, 'c'},
                                            {"set", required_argument, NULL, 's'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char **overrides = calloc((size_t)argc, sizeof *overrides);
    size_t override_count = 0;
    int64_t ranks = 0;
    bool calibrated = false;
    struct error unknown = {0};
    int status = command_check_options(argc, argv, options, &unknown) != 0 ? command_fail(&unknown) : -1;
    opterr = 0;
    for (int option; status < 0 && (option = getopt_long(argc, argv, ":h", options, NULL)) != -1;) {
        char *end;
        switch (option) {
        case 'r':
            ranks = strtoll(optarg, &end, 10);
            if (*optarg == '\0' || *end != '\0' || ranks < 1 || ranks > 10000000)
                status = command_usage_error("plan", "--ranks: %s is not in [1, 10000000]", optarg);
            break;
        case 'c':
            calibrated = true;
            break;
        case 's':
            if (overrides != NULL)
                overrides[override_count++] = optarg;
            break;
        case 'h':
            usage();
            status = 0;
            break;
        case ':':
            status = command_usage_error("plan", "%s wants a value", argv[optind - 1]);
            break;
        default:
            status = command_usage_error("plan", "%s: unknown option", argv[optind - 1]);
        }
    }
    if (status < 0 && argc - optind != 1)
        status = command_usage_error("plan", "one CONFIG is expected, there are %d", argc - optind);
    if (status < 0) {
        struct error err = {0};
        struct config config;
        struct grid grid;
        int code = overrides == NULL ? error_set(&err, ERROR_MEMORY, "plan: out of memory")
                                     : config_read(argv[optind], overrides, override_count, &config, &err);
        if (code == 0) {
            code = grid_expand(&config, &grid, &err);
            if (code == 0) {
                code = plan(&config, &grid, ranks, calibrated, &err);
                grid_done(&grid);
            }
            config_done(&config);
        }
        status = code != 0 ? command_fail(&err) : 0;
    }
    free(overrides);
    return status;
}
