/* sgdmap plan: what a config would cost. Needs neither mpirun nor a result file, and writes nothing. */
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sgdmap/command.h"
#include "sgdmap/kernels.h"
#include "sgdmap/linalg.h"
#include "sgdmap/simulate.h"
#include "sgdmap/store.h"
#include "sgdmap/train.h"

static void usage(void)
{
    puts("usage: sgdmap plan CONFIG [--ranks N] [--calibrate] [--json] [--set KEY=VALUE]…\n\n"
         "Lists the axes, the runs and groups, the time, the memory a rank and the size of the file.\n\n"
         "      --ranks N         also the wall time and the parallel efficiency on N ranks\n"
         "      --calibrate       measures this machine's core first, for about 2 s\n"
         "      --json            the numbers for a program: s, bytes\n"
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
        if (!config_has_axis(config, (enum axis_id)a))
            continue;
        printf("  %-14s %6lld  ", axis_name((enum axis_id)a), (long long)axis->count);
        for (int64_t i = 0; i < axis->count; ++i) {
            if (axis->count > 8 && i == 4) {
                printf(" …");
                i = axis->count - 2;
                continue;
            }
            char text[32];
            printf(" %s", axis_value_text((enum axis_id)a, axis->values[i], text));
        }
        putchar('\n');
    }
    printf("  %-14s %6lld\n", "replicates", (long long)config->replicates);
}

/* Seconds a predicted second, measured for about `budget` seconds on a group of the block's shape whose step sizes are next to
 * nothing, so that no run ends. NaN if a step and a record take longer than that. */
static int measure_block(const struct config *config, const struct grid_block *block, double budget,
                         double *ret, struct error *err)
{
    const struct cost_shape *shape = &block->shape;
    const int64_t steps[] = {0, INT64_C(1)
                                    << 40}; /* the first gives a record's time, and the last is far away */
    const double predicted = cost_step(shape) + cost_record(shape);
    const int64_t least = cost_unit(shape->in_lanes);
    const int64_t runs = predicted * (double)block->width < budget / 4 ? block->width : least;
    *ret = NAN;
    if (predicted * (double)runs > budget)
        return 0;
    struct train_run *list = calloc((size_t)runs, sizeof *list);
    if (list == NULL)
        return error_set(err, ERROR_MEMORY, "plan: --calibrate: out of memory");
    for (int64_t r = 0; r < runs; ++r)
        list[r] = (struct train_run){.step_size = 1e-12, .init_scale = 1, .teacher_norm = 1};
    const struct train_group group = {.dimension = shape->dimension,
                                      .batch_size = shape->batch_size,
                                      .gradient =
                                          shape->population ? GRADIENT_POPULATION : GRADIENT_MINIBATCH,
                                      .data = shape->data,
                                      .test_samples = shape->test,
                                      .in_lanes = shape->in_lanes,
                                      .steps = steps[1],
                                      .record_count = 2,
                                      .record_steps = steps,
                                      .fields = config->fields,
                                      .run_count = runs,
                                      .runs = list};
    struct trainer *trainer = NULL;
    int code = trainer_new(kernels_select(NULL), &group, &trainer, err);
    if (code == 0) {
        trainer_advance(trainer, budget / 4);
        const struct trainer_times before = trainer_times(trainer);
        const double done = trainer_progress(trainer).done;
        trainer_advance(trainer, 3 * budget / 4);
        const double time = trainer_times(trainer).all - before.all;
        const double measured = (trainer_progress(trainer).done - done) * (double)steps[1]; /* steps */
        if (measured > 0)
            *ret = ((double)shape->steps * time / measured + (double)shape->records * before.diagnostics) /
                   cost_group(shape, runs, 1);
    }
    trainer_free(trainer);
    free(list);
    return code;
}

/* Some blocks, evenly spread; the others, and those whose step takes too long, are taken for like the one before. */
static int calibrate(const struct config *config, const struct grid *grid, double *factors, struct error *err)
{
    enum { MEASURED_MAX = 8 };
    static const double SECONDS = 1.9;
    linalg_setup();
    const int64_t measured = grid->block_count < MEASURED_MAX ? grid->block_count : MEASURED_MAX;
    double last = 1;
    for (int64_t b = 0; b < grid->block_count; ++b) {
        double factor = NAN;
        if (b == 0 || b * measured / grid->block_count != (b - 1) * measured / grid->block_count)
            TRY(measure_block(config, &grid->blocks[b], SECONDS / (double)measured, &factor, err));
        last = factors[b] = isnan(factor) ? last : factor;
    }
    return 0;
}

/* Some seconds of simulation. With more groups than that a rank has so many that shares are even anyway. */
enum { SIMULATED_GROUPS_MAX = 20 * 1000 * 1000 };

/* What a config would cost; of `ranks` only if there are some. */
struct forecast {
    double cost;   /* s of one core */
    double memory; /* bytes a rank */
    double file;   /* bytes */
    int64_t ranks;
    bool played;                     /* the schedule was played through, `schedule` is set */
    struct simulate_result schedule; /* else its `wall` alone, in even shares */
};

static int plan(const struct config *config, const struct grid *grid, int64_t ranks, bool calibrated,
                struct forecast *ret, struct error *err)
{
    double *factors = calloc((size_t)grid->block_count, sizeof *factors);
    if (factors == NULL)
        return error_set(err, ERROR_MEMORY, "plan: out of memory");
    for (int64_t b = 0; b < grid->block_count; ++b)
        factors[b] = 1;
    struct forecast forecast = {.memory = (double)grid_memory(grid),
                                .file = (double)store_file_size(config, grid),
                                .ranks = ranks,
                                .played = ranks > 0 && grid->group_count <= SIMULATED_GROUPS_MAX};
    int code = calibrated ? calibrate(config, grid, factors, err) : 0;
    for (int64_t b = 0; b < grid->block_count; ++b) {
        const struct grid_block *block = &grid->blocks[b];
        forecast.cost +=
            factors[b] * block->run_cost * (double)grid->family_runs * (double)block->family_count;
    }
    if (code == 0 && forecast.played)
        code = simulate_sweep(grid, factors, ranks, &simulate_defaults, &forecast.schedule, err);
    else if (ranks > 0)
        forecast.schedule.wall = forecast.cost / (double)ranks;
    if (code == 0)
        *ret = forecast;
    free(factors);
    return code;
}

static void print_text(const struct config *config, const struct grid *grid, const struct forecast *f,
                       bool calibrated)
{
    char text[COMMAND_TEXT_SIZE];
    printf("%s\n", config->title);
    print_axes(config);
    printf("%lld runs of %lld steps, %lld records each, in %lld groups\n", (long long)grid->run_count,
           (long long)config->steps, (long long)config->record_count, (long long)grid->group_count);
    command_duration(f->cost, text);
    printf("time of one core   %s (%.3g core-hours)%s\n", text, f->cost / 3600,
           calibrated ? ", calibrated here" : "");
    command_bytes(f->memory, text);
    printf("memory a rank      %s\n", text);
    command_bytes(f->file, text);
    printf("size of the file   %s\n", text);
    if (f->ranks == 0)
        return;
    command_duration(f->schedule.wall, text);
    printf("on %lld rank%s        %s", (long long)f->ranks, f->ranks == 1 ? " " : "s", text);
    if (f->played)
        printf(", parallel efficiency %.1f %%; rank 0 spends %.2g %% of its time on messages\n",
               100 * f->schedule.efficiency, 100 * f->schedule.master);
    else
        printf(" in even shares; the schedule of so many groups is not played through\n");
}

/* One flat object on one line: also a shell script can take a number from it. */
static void print_json(const struct config *config, const struct grid *grid, const struct forecast *f)
{
    printf("{\"runs\": %lld, \"groups\": %lld, \"steps\": %lld, \"core_seconds\": %.6g, "
           "\"memory_bytes_per_rank\": %.0f, \"file_bytes\": %.0f",
           (long long)grid->run_count, (long long)grid->group_count, (long long)config->steps, f->cost,
           f->memory, f->file);
    if (f->ranks > 0)
        printf(", \"ranks\": %lld, \"wall_seconds\": %.6g", (long long)f->ranks, f->schedule.wall);
    if (f->played)
        printf(", \"efficiency\": %.6g", f->schedule.efficiency);
    printf("}\n");
}

int command_plan(int argc, char **argv)
{
    static const struct option options[] = {
        {"ranks", required_argument, NULL, 'r'}, {"calibrate", no_argument, NULL, 'c'},
        {"json", no_argument, NULL, 'j'},        {"set", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},        {0}};
    const char **overrides = calloc((size_t)argc, sizeof *overrides);
    size_t override_count = 0;
    int64_t ranks = 0;
    bool calibrated = false, json = false;
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
        case 'j':
            json = true;
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
                struct forecast forecast;
                code = plan(&config, &grid, ranks, calibrated, &forecast, &err);
                if (code == 0 && json)
                    print_json(&config, &grid, &forecast);
                else if (code == 0)
                    print_text(&config, &grid, &forecast, calibrated);
                grid_done(&grid);
            }
            config_done(&config);
        }
        status = code != 0 ? command_fail(&err) : 0;
    }
    free(overrides);
    return status;
}
