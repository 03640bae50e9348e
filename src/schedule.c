#include "sgdmap/schedule.h"

#include <math.h>

const double SCHEDULE_ASK_AHEAD = 0.2;

/* What a rank is given at once is worth at least its messages; and rank 0, which takes a few us for one, spends a few per cent of
 * its time on them however many ranks there are. */
static const double PORTION_LEAST = 0.1, REPORT_LEAST = 0.5, INTERVAL_A_RANK = 1e-4;

enum { PORTION_MAX = 4096 };

double schedule_report_interval(int64_t ranks)
{
    return fmax(REPORT_LEAST, 2 * INTERVAL_A_RANK * (double)ranks);
}

void schedule_init(const struct grid *grid, int64_t ranks, const uint8_t *group_done, double left,
                   struct schedule *ret)
{
    *ret = (struct schedule){.grid = grid, .ranks = ranks, .group_done = group_done, .left = left};
}

void schedule_next(struct schedule *s, struct portion *ret)
{
    const double ranks = (double)s->ranks;
    const double most = fmin(fmax(PORTION_LEAST, INTERVAL_A_RANK * ranks), s->left / (8 * ranks));
    *ret = (struct portion){.first = s->next};
    for (int64_t groups = 0; s->next < s->grid->group_count && groups < PORTION_MAX; ++s->next) {
        if (!grid_has_place(s->grid, s->next))
            continue;
        const int64_t index = grid_group_in_order(s->grid, s->next);
        if (s->group_done != NULL && s->group_done[index]) {
            if (groups > 0)
                break;
            continue;
        }
        struct group group;
        grid_group(s->grid, index, &group);
        if (groups > 0 && ret->cost + group.cost > most)
            break;
        if (groups++ == 0)
            ret->first = s->next;
        ret->count = s->next + 1 - ret->first;
        ret->cost += group.cost;
    }
    s->left -= ret->cost;
}
