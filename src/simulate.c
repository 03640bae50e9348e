#include "sgdmap/simulate.h"

#include <math.h>
#include <stdlib.h>

#include "sgdmap/schedule.h"

/* Request: 2 us measured with 64 ranks on two cores (tests/bench/service), doubled for a network. Message: a cluster's
 * network, generously. Write: a million runs of jobs/megapixel.yaml. Start: two ranks, from the command to the first step. */
const struct simulate_costs simulate_defaults = {
    .request = 4e-6, .message = 50e-6, .slice = 0.01, .write = 1e-6, .start = 0.3};

struct rank {
    double asks; /* when it wants its next portion, having asked ahead */
    double ends; /* when it has worked through what it has */
    int64_t number;
};

static bool before(const struct rank *a, const struct rank *b)
{
    return a->asks != b->asks ? a->asks < b->asks : a->number < b->number;
}

/* The root of the heap has changed. */
static void sift_down(struct rank *heap, int64_t count)
{
    const struct rank moved = heap[0];
    int64_t at = 0;
    for (int64_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && before(&heap[child + 1], &heap[child]))
            ++child;
        if (!before(&heap[child], &moved))
            break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

/* Seconds of training of a portion. */
static double portion_time(const struct grid *grid, const double *factors, const struct portion *portion,
                           double write)
{
    double time = 0;
    for (int64_t i = 0; i < portion->count; ++i) {
        struct group group;
        const int64_t index = grid_group_in_order(grid, portion->first + i);
        grid_group(grid, index, &group);
        time += factors[grid_block_of(grid, index)] * group.cost + write * (double)group.run_count;
    }
    return time;
}

int simulate_sweep(const struct grid *grid, const double *factors, int64_t ranks,
                   const struct simulate_costs *costs, struct simulate_result *ret, struct error *err)
{
    struct rank *heap = malloc((size_t)ranks * sizeof *heap);
    if (heap == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for %lld simulated ranks", (long long)ranks);
    for (int64_t r = 0; r < ranks; ++r)
        heap[r] = (struct rank){.asks = costs->start, .ends = costs->start, .number = r};
    struct schedule schedule;
    schedule_init(grid, ranks, NULL, grid_total_cost(grid), &schedule);
    double trained = 0, wall = 0, served = 0;
    double answers = 0; /* rank 0 is busy with messages until then */
    *ret = (struct simulate_result){0};
    for (int64_t working = ranks; working > 0;) {
        struct rank *rank = &heap[0];
        double begins = rank->ends;
        if (rank->number != 0) { /* rank 0 serves itself */
            const double arrives = rank->asks + costs->message / 2;
            /* It lies in rank 0's queue behind others, or waits for the end of half a slice of training. */
            answers = fmax(answers, arrives + (answers < arrives ? costs->slice / 2 : 0)) + costs->request;
            served += costs->request;
            begins = fmax(begins, answers + costs->message / 2);
        }
        struct portion portion;
        schedule_next(&schedule, &portion);
        if (portion.count == 0) {
            wall = fmax(wall, rank->ends);
            heap[0] = heap[--working];
            if (working > 0)
                sift_down(heap, working);
            continue;
        }
        ++ret->portions;
        const double time = portion_time(grid, factors, &portion, costs->write);
        trained += time;
        rank->ends = begins + time;
        rank->asks = rank->number == 0 ? rank->ends : fmax(begins, rank->ends - SCHEDULE_ASK_AHEAD);
        sift_down(heap, working);
    }
    free(heap);
    /* Progress is reported too, and rank 0 trains less for all of it. */
    const double reports = (wall - costs->start) / schedule_report_interval(ranks) * (double)(ranks - 1);
    served += reports * costs->request;
    ret->wall = wall + served / (double)ranks;
    ret->efficiency = trained / ((double)ranks * ret->wall);
    ret->master = served / ret->wall;
    return 0;
}
