/* How many requests a second rank 0 serves: a sweep's schedule handed out, one group at a time, to ranks that do not train.
 *     mpirun --oversubscribe -n RANKS BUILD/tests/service */
#include "../../src/sweep.c"

#include <stdio.h>

static const char text[] =
    "seed: 1\ngrid: {dimension: 10, step_size: {linear: [0.1, 1], count: 250}, init_scale: {linear: "
    "[0, 1], count: 250}, teacher_norm: [1, 2], batch_size: 200, replicates: 80}\n"
    "training: {steps: 20000, tolerance: 1e-3}\n";

int main(int argc, char **argv)
{
    struct config config;
    struct grid grid;
    struct forecast *forecast;
    struct error err = {0};
    int rank, ranks;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (ranks < 2 || config_parse("service", text, strlen(text), NULL, &config, &err) != 0 ||
        grid_expand(&config, &grid, &err) != 0 || forecast_new(&grid, &forecast, &err) != 0) {
        fprintf(stderr, "service: %s\n", ranks < 2 ? "at least two ranks" : err.message);
        MPI_Abort(MPI_COMM_WORLD, 1);
        return 1;
    }
    MPI_Barrier(MPI_COMM_WORLD);
    const double start = stopwatch_now();
    if (rank == 0) {
        struct master m = {.grid = &grid,
                           .forecast = forecast,
                           .workers = ranks - 1,
                           .busy = ranks - 1,
                           .progress.ranks = ranks};
        schedule_init(&grid, ranks, NULL, grid_total_cost(&grid), &m.schedule);
        while (m.workers > 0)
            serve(&m, MPI_COMM_WORLD);
        const double time = stopwatch_now() - start;
        printf("%d ranks: %lld groups in %.2f s, %.0f requests a second, %.1f us each\n", ranks,
               (long long)grid.group_count, time, (double)grid.group_count / time,
               1e6 * time / (double)grid.group_count);
    } else {
        struct worker w = {.comm = MPI_COMM_WORLD, .sending = MPI_REQUEST_NULL};
        struct portion portion;
        do {
            w.report.wants = 1;
            w.report.bin_count = 1; /* as after a group */
            send_report(&w);
            MPI_Recv(&portion, (int)sizeof portion, MPI_BYTE, 0, TAG_ASSIGNMENT, w.comm, MPI_STATUS_IGNORE);
        } while (portion.count > 0);
        w.report.leaves = 1;
        send_report(&w);
        MPI_Wait(&w.sending, MPI_STATUS_IGNORE);
    }
    MPI_Finalize();
    forecast_free(forecast);
    grid_done(&grid);
    config_done(&config);
    return 0;
}
