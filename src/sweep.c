/* The protocol. A worker sends messages of one kind, struct report, to rank 0: what ended since the last one,
 * how far it is, and whether it wants groups, has nothing to do any more or leaves for good. Rank 0 answers a want with a
 * portion of the schedule; an empty one means that there are no more. It sends each worker orders, for which a worker looks
 * between slices and while it waits: perhaps ORDER_STOP, to put down what is in hand, and in the end, when all have nothing to
 * do, ORDER_END. Until then every rank sees its signals. A worker's last report, its answer to ORDER_END, has `leaves` set, and
 * rank 0 returns when all have left. */
#include "sgdmap/sweep.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sgdmap/comm.h"
#include "sgdmap/fault.h"
#include "sgdmap/forecast.h"
#include "sgdmap/schedule.h"
#include "sgdmap/stopwatch.h"
#include "sgdmap/task.h"

enum { TAG_REPORT = 1, TAG_ASSIGNMENT = 2, TAG_ORDER = 3 };

enum order { ORDER_STOP = 1, ORDER_END = 2 };

enum stop_reason { STOPS_NOT, STOPS_BY_SIGNAL, STOPS_BY_ERROR };

/* A rank looks at its messages, and at the signal, this often: rank 0's slice is what a request may wait for
 * at the most, and a request is made ahead. */
static const double SLICE = 0.01;

/* The bins of the forecast of which a report can tell; it is sent when there are more. */
enum { REPORT_BINS = 8 };

struct report {
    int64_t outcomes[OUTCOME_COUNT]; /* since the last report, as all that follows */
    int64_t bin_count;
    struct {
        int64_t bin;
        struct forecast_sample sample;
    } bins[REPORT_BINS];
    int64_t resumed; /* runs that were taken up from a checkpoint */
    int64_t wants;
    int64_t idle;
    int64_t leaves;
    int64_t stops; /* the sweep is to end: enum stop_reason */
};

struct master;

/* What a rank, the master too, has in hand. */
struct worker {
    const struct kernels *kernels;
    const struct config *config;
    const struct grid *grid;
    struct store *store;
    const struct checkpoints *checkpoints;
    const struct sweep_observer *observer;
    struct master *master;     /* on rank 0 */
    struct forecast *forecast; /* what has been learned is on rank 0 */
    MPI_Comm comm;
    bool fresh; /* the file was made in this session: nothing in it is done */
    int rank, ranks;

    struct portion queue;
    struct task task; /* trainer NULL: none */
    int64_t bin;      /* of the forecast, that the task's group belongs to */
    double task_seconds;
    struct trainer_progress progress; /* of the task, as it was last reported */
    double task_cost;                 /* of the runs that are trained */
    bool has_checkpoint;              /* the task's group has, or something in its place */
    double saved;                     /* when it was saved, or began */
    double synced;                    /* when what was written was brought to the disk */
    bool wrote;                       /* since then */
    bool warned;                      /* that checkpoints cannot be written */
    double speed;                     /* cost units a second, of late: tells when to ask; 0 unknown */

    struct report report; /* being put together */
    struct report sent;   /* on its way */
    MPI_Request sending;
    struct sweep_times times;
    bool told_to_stop, told_to_end; /* rank 0's orders have come */
};

struct master {
    const struct grid *grid;
    struct schedule schedule;
    struct forecast *forecast; /* borrowed */
    uint8_t *group_done;       /* [group_count] whole group done before this session; NULL: none */
    int workers;               /* that have not left */
    int busy;                  /* of them, that may still have something to do */
    bool stopping, failed;
    bool ending; /* the end has been ordered */
    double told;
    double start;
    struct sweep_progress progress;
};

/* -- Reports --------------------------------------------------------------------------------------- */

static void take_report(struct master *m, const struct report *report)
{
    for (int o = 0; o < OUTCOME_COUNT; ++o) {
        m->progress.outcomes[o] += report->outcomes[o];
        m->progress.outcomes[OUTCOME_PENDING] -= report->outcomes[o];
        m->progress.trained += report->outcomes[o];
    }
    m->progress.resumed += report->resumed;
    for (int64_t i = 0; i < report->bin_count; ++i)
        forecast_add(m->forecast, report->bins[i].bin, &report->bins[i].sample);
}

/* Rank 0 looks at its messages between slices, and a blocking send may wait for that even if the message is small. */
static void send_report(struct worker *w)
{
    if (w->master != NULL) {
        take_report(w->master, &w->report);
    } else {
        MPI_Wait(&w->sending, MPI_STATUS_IGNORE);
        w->sent = w->report;
        MPI_Isend(&w->sent, (int)sizeof w->sent, MPI_BYTE, 0, TAG_REPORT, w->comm, &w->sending);
    }
    w->report = (struct report){0};
}

/* What is new of the task's bin. */
static struct forecast_sample *sample(struct worker *w)
{
    struct report *report = &w->report;
    int64_t i = 0;
    while (i < report->bin_count && report->bins[i].bin != w->bin)
        ++i;
    if (i == REPORT_BINS) {
        send_report(w);
        i = 0;
    }
    if (i == report->bin_count) {
        ++report->bin_count;
        report->bins[i].bin = w->bin;
    }
    return &report->bins[i].sample;
}

/* Of the task. */
static void spend(struct worker *w, double seconds)
{
    sample(w)->seconds += seconds;
    w->task_seconds += seconds;
}

/* -- A rank's own work ----------------------------------------------------------------------------- */

/* Which of neighbouring runs are done, failed ones not: done [count], results [count]. The checksums are looked at only where
 * a run has an outcome. */
static int read_done(struct store *store, int64_t first, int64_t count, uint8_t *done,
                     struct run_result *results, struct error *err)
{
    TRY(store_read_results(store, first, count, results, err));
    bool any = false;
    for (int64_t i = 0; i < count; ++i) {
        any = any || results[i].outcome > OUTCOME_RUNNING;
        done[i] = 0;
    }
    if (!any)
        return 0;
    TRY(store_check(store, first, count, done, err));
    for (int64_t i = 0; i < count; ++i)
        done[i] = done[i] == STORE_DONE && results[i].outcome != OUTCOME_FAILED;
    return 0;
}

/* Which runs of the group are to be trained: wanted [run_count]. */
static int find_wanted(const struct worker *w, int64_t group, uint8_t **wanted, struct error *err)
{
    struct group g;
    grid_group(w->grid, group, &g);
    uint8_t *done = malloc((size_t)g.run_count);
    struct run_result *results = malloc((size_t)g.run_count * sizeof *results);
    int code = done == NULL || results == NULL
                   ? error_set(err, ERROR_MEMORY, "out of memory for a group's state")
                   : read_done(w->store, g.first_run, g.run_count, done, results, err);
    free(results);
    if (code != 0) {
        free(done);
        return code;
    }
    for (int64_t i = 0; i < g.run_count; ++i)
        done[i] = !done[i];
    *wanted = done;
    return 0;
}

/* Neighbouring runs at once: from..to of the task's list. */
static int write_segment(struct worker *w, int64_t from, int64_t to, const struct run_result *results,
                         struct error *err)
{
    const struct config *config = w->config;
    const struct trainer *trainer = w->task.trainer;
    struct store_rows rows = {
        .first_run = w->task.runs[from], .run_count = to - from, .results = results + from};
    double *student = NULL, *teacher = NULL;
    int code = 0;
    if (trainer != NULL) {
        for (int f = 0; f < RECORD_FIELD_COUNT; ++f) {
            const double *field = trainer_field(trainer, (enum record_field)f);
            rows.fields[f] = field == NULL ? NULL : field + from * config->record_count;
        }
        if (config->weights == WEIGHTS_FINAL) {
            struct setting setting;
            grid_setting(w->grid, rows.first_run, &setting);
            const int64_t square = setting.dimension * setting.dimension;
            student = malloc((size_t)(rows.run_count * square) * sizeof *student);
            teacher = malloc((size_t)(rows.run_count * square) * sizeof *teacher);
            if (student == NULL || teacher == NULL)
                code = error_set(err, ERROR_MEMORY, "out of memory for the weights of %lld runs",
                                 (long long)(to - from));
            for (int64_t i = 0; code == 0 && i < rows.run_count; ++i) {
                trainer_student(trainer, from + i, student + i * square);
                trainer_teacher(trainer, from + i, teacher + i * square);
            }
            rows.student = student;
            rows.teacher = teacher;
        }
    }
    w->wrote = true;
    if (code == 0)
        code = store_write(w->store, &rows, w->rank, err);
    free(student);
    free(teacher);
    return code;
}

static int for_each_segment(struct worker *w, const struct run_result *results,
                            int (*act)(struct worker *, int64_t, int64_t, const struct run_result *,
                                       struct error *),
                            struct error *err)
{
    const struct task *task = &w->task;
    const double start = stopwatch_now();
    int code = 0;
    for (int64_t from = 0, to; code == 0 && from < task->run_count; from = to) {
        for (to = from + 1; to < task->run_count && task->runs[to] == task->runs[to - 1] + 1; ++to)
            ;
        code = act(w, from, to, results, err);
    }
    w->times.writing += stopwatch_now() - start;
    return code;
}

static int mark_segment(struct worker *w, int64_t from, int64_t to, const struct run_result *results,
                        struct error *err)
{
    (void)results;
    return store_mark_running(w->store, w->task.runs[from], to - from, err);
}

/* -- Checkpoints ----------------------------------------------------------------------------------- */

static void warn(struct worker *w, const struct error *why)
{
    if (w->observer->warning != NULL)
        w->observer->warning(w->observer->context, why->message);
}

/* A disk that has no room for it does not end the sweep: the result file has its room already. */
static void save_task(struct worker *w)
{
    struct error why = {0};
    const double start = stopwatch_now();
    if (checkpoint_save(w->checkpoints, &w->task, &why) == 0) {
        w->has_checkpoint = true;
    } else if (!w->warned) {
        error_prefix(&why, "a checkpoint cannot be written, a crash would lose what the group has done: ");
        warn(w, &why);
        w->warned = true;
    }
    w->saved = stopwatch_now();
    w->times.writing += w->saved - start;
}

/* Takes up what an earlier session has left of the task. */
static void restore_task(struct worker *w)
{
    struct error why = {0};
    bool restored;
    if (checkpoint_restore(w->checkpoints, &w->task, &restored, &why) != 0) {
        warn(w, &why);
        w->has_checkpoint = true; /* so that it goes when the group is done */
    }
    if (!restored)
        return;
    w->has_checkpoint = true;
    w->progress = trainer_progress(w->task.trainer);
    w->report.resumed += w->task.run_count;
    sample(w)->skipped += (w->progress.done + w->progress.saved) * w->task_cost;
}

static int sync_store(struct worker *w, struct error *err)
{
    const double start = stopwatch_now();
    TRY(store_sync(w->store, err));
    w->synced = stopwatch_now();
    w->wrote = false;
    w->times.writing += w->synced - start;
    return 0;
}

static void drop_task(struct worker *w)
{
    if (w->task.trainer != NULL) {
        const struct trainer_times times = trainer_times(w->task.trainer);
        w->times.inputs += times.inputs;
        w->times.diagnostics += times.diagnostics;
        w->times.steps += times.all - times.inputs - times.diagnostics;
    }
    task_done(&w->task);
}

static void end_task(struct worker *w, const struct run_result *results)
{
    for (int64_t i = 0; i < w->task.run_count; ++i)
        ++w->report.outcomes[results[i].outcome];
    struct forecast_sample *seen = sample(w);
    /* What was not trained, because it could not, is out of the way too. */
    seen->progress += fmax(0, 1 - w->progress.done - w->progress.saved) * w->task_cost;
    seen->ended += w->task_cost;
    seen->ended_seconds += w->task_seconds;
    drop_task(w);
}

/* A group that does not fit into memory is its runs' failure, not the sweep's. */
static int fail_task(struct worker *w, const struct error *why, struct error *err)
{
    struct run_result *results = calloc((size_t)w->task.run_count, sizeof *results);
    if (results == NULL)
        return error_set(err, ERROR_MEMORY, "%s", why->message);
    for (int64_t i = 0; i < w->task.run_count; ++i) {
        results[i] = (struct run_result){.outcome = OUTCOME_FAILED,
                                         .failure = FAILURE_OUT_OF_MEMORY,
                                         .converged_step = -1,
                                         .phase2_step = -1};
        results[i].final_error = results[i].final_loss = results[i].wall_time = NAN;
        if (w->observer->failure != NULL)
            w->observer->failure(w->observer->context, w->task.runs[i], why->message);
    }
    int code = for_each_segment(w, results, write_segment, err);
    if (code == 0)
        end_task(w, results);
    free(results);
    return code;
}

/* Begins the next group of the queue that has something to train. */
static int begin_task(struct worker *w, struct error *err)
{
    while (w->task.trainer == NULL && w->queue.count > 0) {
        uint8_t *wanted = NULL;
        const double start = stopwatch_now();
        const int64_t place = w->queue.first++;
        --w->queue.count;
        if (!grid_has_place(w->grid, place))
            continue;
        const int64_t group = grid_group_in_order(w->grid, place);
        if (!w->fresh)
            TRY(find_wanted(w, group, &wanted, err));
        struct error why = {0};
        int code = task_init(w->kernels, w->config, w->grid, group, wanted, &w->task, &why);
        free(wanted);
        w->bin = forecast_bin(w->forecast, w->grid, group);
        w->task_seconds = 0;
        w->task_cost = w->task.group.cost * (double)w->task.run_count / (double)w->task.group.run_count;
        w->progress = (struct trainer_progress){0};
        w->has_checkpoint = false;
        w->queue.cost -= w->task.group.cost;
        if (code != 0 && w->task.run_count == 0)
            return error_set(err, why.code, "%s", why.message);
        if (w->task.trainer != NULL && !w->fresh && w->checkpoints->any)
            restore_task(w);
        w->saved = stopwatch_now();
        spend(w, w->saved - start);
        if (code != 0)
            TRY(fail_task(w, &why, err));
        else if (w->task.run_count == 0)
            task_done(&w->task);
        else
            TRY(for_each_segment(w, NULL, mark_segment, err));
    }
    return 0;
}

/* A slice of the present group; writes it when it is through. */
static int work(struct worker *w, struct error *err)
{
    const double start = stopwatch_now();
    const struct trainer_progress before = w->progress;
    const bool ended = trainer_advance(w->task.trainer, SLICE);
    const struct trainer_progress now = trainer_progress(w->task.trainer);
    const double time = stopwatch_now() - start, done = (now.done - before.done) * w->task_cost;
    sample(w)->progress += done + (now.saved - before.saved) * w->task_cost;
    spend(w, time);
    w->progress = now;
    if (time > 0)
        w->speed = w->speed > 0 ? 0.9 * w->speed + 0.1 * done / time : done / time;
    const double interval = w->config->checkpoint_interval;
    if (!ended) {
        if (start + time - w->saved >= interval)
            save_task(w);
        return 0;
    }
    const struct run_result *results = trainer_results(w->task.trainer);
    TRY(for_each_segment(w, results, write_segment, err));
    TRY(fault_at("group: written", err));
    /* The rows are on the disk before the checkpoint goes. */
    if (w->has_checkpoint || start - w->synced >= interval)
        TRY(sync_store(w, err));
    if (w->has_checkpoint)
        checkpoint_remove(w->checkpoints, &w->task);
    TRY(fault_at("group: done", err));
    spend(w, stopwatch_now() - start - time);
    end_task(w, results);
    return 0;
}

/* The sweep is to end: what is in hand is kept for another session. */
static void put_down(struct worker *w)
{
    if (w->task.trainer != NULL)
        save_task(w);
    drop_task(w);
    w->queue.count = 0;
}

static bool has_work(const struct worker *w)
{
    return w->task.trainer != NULL || w->queue.count > 0;
}

/* Predicted seconds until this rank has nothing to do. */
static double time_left(const struct worker *w)
{
    const double of_task =
        w->task.trainer != NULL ? (1 - w->progress.done - w->progress.saved) * w->task_cost : 0;
    const double cost = of_task + (w->queue.count > 0 ? w->queue.cost : 0);
    return w->speed > 0 ? cost / w->speed : cost;
}

/* -- The master ------------------------------------------------------------------------------------ */

/* The runs from one group to before another, in one read; marks the groups that are done. */
static int find_done_groups(struct master *m, struct store *store, int64_t from, int64_t to,
                            struct error *err)
{
    const struct grid *grid = m->grid;
    struct group first, last, group;
    grid_group(grid, from, &first);
    grid_group(grid, to - 1, &last);
    const int64_t count = last.first_run + last.run_count - first.first_run;
    struct run_result *results = malloc((size_t)count * sizeof *results);
    uint8_t *done = malloc((size_t)count);
    int code =
        results == NULL || done == NULL
            ? error_set(err, ERROR_MEMORY, "out of memory for the state of %lld runs", (long long)count)
            : read_done(store, first.first_run, count, done, results, err);
    for (int64_t g = from; code == 0 && g < to; ++g) {
        grid_group(grid, g, &group);
        int64_t done_runs = 0;
        for (int64_t at = group.first_run - first.first_run, i = 0; i < group.run_count; ++i, ++at)
            if (done[at]) {
                ++done_runs;
                ++m->progress.outcomes[results[at].outcome];
                --m->progress.outcomes[OUTCOME_PENDING];
            }
        m->group_done[g] = done_runs == group.run_count;
        forecast_expect(m->forecast, forecast_bin(m->forecast, grid, g),
                        group.cost * (double)(group.run_count - done_runs) / (double)group.run_count);
    }
    free(results);
    free(done);
    return code;
}

/* Looks through the file for what earlier sessions left: whole groups that are done are never handed out. */
static int find_done(struct master *m, struct store *store, bool fresh, const volatile sig_atomic_t *stop,
                     struct error *err)
{
    const struct grid *grid = m->grid;
    m->progress.run_count = grid->shard_runs;
    m->progress.outcomes[OUTCOME_PENDING] = grid->shard_runs;
    if (!fresh) {
        m->group_done = calloc((size_t)grid->group_count, 1);
        if (m->group_done == NULL)
            return error_set(err, ERROR_MEMORY, "out of memory for the state of %lld groups",
                             (long long)grid->group_count);
        /* In large pieces of neighbouring groups: a read costs more than what it reads. */
        enum { PIECE_RUNS = 16384 };
        for (int64_t from = 0, to; from < grid->group_count; from = to) {
            struct group group, next;
            to = from + 1;
            if (!grid_has_group(grid, from))
                continue;
            grid_group(grid, from, &group);
            const int64_t first_run = group.first_run;
            for (; to < grid->group_count && grid_has_group(grid, to); ++to) {
                grid_group(grid, to, &next);
                if (next.first_run + next.run_count - first_run > PIECE_RUNS)
                    break;
            }
            TRY(find_done_groups(m, store, from, to, err));
            if (*stop)
                return error_set(err, ERROR_INTERRUPTED,
                                 "interrupted before the first run; the same command again goes on");
        }
    }
    for (int64_t g = 0; fresh && g < grid->group_count; ++g) {
        struct group group;
        grid_group(grid, g, &group);
        if (grid_has_group(grid, g))
            forecast_expect(m->forecast, forecast_bin(m->forecast, grid, g), group.cost);
    }
    m->progress.cost = forecast_cost(m->forecast);
    schedule_init(grid, m->progress.ranks, m->group_done, m->progress.cost, &m->schedule);
    return 0;
}

static void give_order(const struct master *m, enum order order, MPI_Comm comm)
{
    /* A constant may be sent without waiting: it outlives the message. */
    static const int orders[] = {0, ORDER_STOP, ORDER_END};
    for (int rank = 1; rank < m->progress.ranks; ++rank) {
        MPI_Request request;
        MPI_Isend(&orders[order], 1, MPI_INT, rank, TAG_ORDER, comm, &request);
        MPI_Request_free(&request);
    }
}

static void stop_all(struct master *m, enum stop_reason reason, MPI_Comm comm)
{
    m->failed = m->failed || reason == STOPS_BY_ERROR;
    if (!m->stopping)
        give_order(m, ORDER_STOP, comm);
    m->stopping = true;
}

/* Answers all messages that have come. */
static void serve(struct master *m, MPI_Comm comm)
{
    int come = 1;
    while (m->workers > 0 && come) {
        MPI_Status status;
        MPI_Iprobe(MPI_ANY_SOURCE, TAG_REPORT, comm, &come, &status);
        if (!come)
            return;
        struct report report;
        MPI_Recv(&report, (int)sizeof report, MPI_BYTE, status.MPI_SOURCE, TAG_REPORT, comm,
                 MPI_STATUS_IGNORE);
        take_report(m, &report);
        m->busy -= report.idle != 0;
        m->workers -= report.leaves != 0;
        if (report.stops && !m->ending)
            stop_all(m, (enum stop_reason)report.stops, comm);
        if (report.wants) {
            struct portion portion = {0};
            if (!m->stopping)
                schedule_next(&m->schedule, &portion);
            MPI_Send(&portion, (int)sizeof portion, MPI_BYTE, status.MPI_SOURCE, TAG_ASSIGNMENT, comm);
        }
    }
}

static void tell(struct master *m, const struct sweep_observer *observer, bool last)
{
    const double time = stopwatch_now();
    m->progress.elapsed = time - m->start;
    if (observer->progress == NULL || (!last && time - m->told < observer->interval))
        return;
    m->told = time;
    m->progress.cost = forecast_cost(m->forecast);
    m->progress.cost_done = forecast_behind(m->forecast);
    m->progress.left = forecast_left(m->forecast) / m->progress.ranks;
    observer->progress(observer->context, &m->progress, last);
}

static void pause_briefly(void)
{
    const struct timespec pause = {.tv_nsec = 200000};
    nanosleep(&pause, NULL);
}

static void wait_briefly(struct worker *w)
{
    const double start = stopwatch_now();
    pause_briefly();
    w->times.waiting += stopwatch_now() - start;
}

static int run_master(struct master *m, struct worker *w, MPI_Comm comm, const volatile sig_atomic_t *stop,
                      struct error *err)
{
    int code = 0;
    while (true) {
        serve(m, comm);
        send_report(w);
        if (code != 0 || *stop)
            stop_all(m, code != 0 ? STOPS_BY_ERROR : STOPS_BY_SIGNAL, comm);
        tell(m, w->observer, false);
        if (m->stopping)
            put_down(w);
        const bool mine = code == 0 && !m->stopping;
        if (mine && !has_work(w))
            schedule_next(&m->schedule, &w->queue);
        if (mine && has_work(w)) {
            code = begin_task(w, err);
            if (code == 0 && w->task.trainer != NULL)
                code = work(w, err);
        } else if (m->busy > 0) {
            wait_briefly(w);
        } else {
            break;
        }
    }
    m->ending = true;
    give_order(m, ORDER_END, comm);
    while (m->workers > 0) {
        serve(m, comm);
        wait_briefly(w);
    }
    if (code == 0 && m->stopping && !m->failed && m->progress.outcomes[OUTCOME_PENDING] > 0)
        code = error_set(err, ERROR_INTERRUPTED, "interrupted by a signal; the same command again goes on");
    return code;
}

/* -- A worker -------------------------------------------------------------------------------------- */

static void look_for_orders(struct worker *w, MPI_Comm comm)
{
    int come, order;
    MPI_Iprobe(0, TAG_ORDER, comm, &come, MPI_STATUS_IGNORE);
    if (!come)
        return;
    MPI_Recv(&order, 1, MPI_INT, 0, TAG_ORDER, comm, MPI_STATUS_IGNORE);
    w->told_to_stop = w->told_to_stop || order == ORDER_STOP;
    w->told_to_end = w->told_to_end || order == ORDER_END;
}

static int run_worker(struct worker *w, MPI_Comm comm, const volatile sig_atomic_t *stop, struct error *err)
{
    int code = 0;
    bool asked = false, more = true, stopping = false, reported_stop = false, idle = false;
    struct portion coming;
    const double interval = schedule_report_interval(w->ranks);
    MPI_Request request = MPI_REQUEST_NULL;
    double last_report = stopwatch_now();
    while (true) {
        look_for_orders(w, comm);
        if (code == 0 && !stopping && !asked && more && time_left(w) < SCHEDULE_ASK_AHEAD) {
            MPI_Irecv(&coming, (int)sizeof coming, MPI_BYTE, 0, TAG_ASSIGNMENT, comm, &request);
            w->report.wants = 1;
            send_report(w);
            asked = true;
        }
        if ((code != 0 || *stop) && !reported_stop && !w->told_to_end) {
            w->report.stops = code != 0 ? STOPS_BY_ERROR : STOPS_BY_SIGNAL;
            send_report(w);
            reported_stop = true;
        }
        stopping = w->told_to_stop || reported_stop;
        if (stopping)
            put_down(w);
        if (asked && (stopping || !has_work(w))) {
            int come;
            MPI_Test(&request, &come, MPI_STATUS_IGNORE);
            if (come) {
                asked = false;
                more = coming.count > 0;
                w->queue = coming;
            }
        }
        if (!stopping && has_work(w)) {
            code = begin_task(w, err);
            if (code == 0 && w->task.trainer != NULL)
                code = work(w, err);
            if (stopwatch_now() - last_report > interval) {
                last_report = stopwatch_now();
                send_report(w);
            }
        } else if (asked || (!stopping && more) || (idle && !w->told_to_end)) {
            wait_briefly(w);
        } else if (!idle) {
            w->report.idle = 1;
            send_report(w);
            idle = true;
        } else {
            w->report.leaves = 1;
            send_report(w);
            MPI_Wait(&w->sending, MPI_STATUS_IGNORE);
            return code;
        }
    }
}

/* -- Both ------------------------------------------------------------------------------------------ */

/* Collective. Every rank's times on rank 0. */
static int gather_times(const struct worker *w, int ranks, struct sweep_summary *ret, struct error *err)
{
    int code = 0;
    if (w->rank == 0) {
        ret->times = calloc((size_t)ranks, sizeof *ret->times);
        if (ret->times == NULL)
            code = error_set(err, ERROR_MEMORY, "out of memory for the times of %d ranks", ranks);
    }
    TRY(comm_agree(w->comm, err, code));
    MPI_Gather(&w->times, (int)sizeof w->times, MPI_BYTE, ret->times, (int)sizeof w->times, MPI_BYTE, 0,
               w->comm);
    return 0;
}

int sweep_train(const struct kernels *kernels, const struct config *config, const struct grid *grid,
                struct store *store, bool fresh, const struct checkpoints *checkpoints, MPI_Comm comm,
                const volatile sig_atomic_t *stop, const struct sweep_observer *observer,
                struct sweep_summary *ret, struct error *err)
{
    int rank, ranks;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &ranks);
    struct worker w = {.kernels = kernels,
                       .config = config,
                       .grid = grid,
                       .store = store,
                       .checkpoints = checkpoints,
                       .observer = observer,
                       .synced = stopwatch_now(),
                       .comm = comm,
                       .sending = MPI_REQUEST_NULL,
                       .fresh = fresh,
                       .rank = rank,
                       .ranks = ranks};
    struct master m = {.grid = grid,
                       .workers = ranks - 1,
                       .busy = ranks - 1,
                       .start = stopwatch_now(),
                       .progress.ranks = ranks};
    *ret = (struct sweep_summary){0};
    int code = forecast_new(grid, &w.forecast, err);
    m.forecast = w.forecast;
    if (code == 0 && rank == 0)
        code = find_done(&m, store, fresh, stop, err);
    code = comm_agree(comm, err, code);
    if (code != 0) {
        forecast_free(w.forecast);
        free(m.group_done);
        return code;
    }
    w.master = rank == 0 ? &m : NULL;
    if (rank == 0 && observer->begin != NULL)
        observer->begin(observer->context, &m.progress);
    m.told = stopwatch_now();
    const double start = stopwatch_now();
    code = rank == 0 ? run_master(&m, &w, comm, stop, err) : run_worker(&w, comm, stop, err);
    drop_task(&w);
    struct error sync_error = {0};
    const int synced = w.wrote ? sync_store(&w, &sync_error) : 0;
    if (synced != 0 && (code == 0 || code == ERROR_INTERRUPTED)) {
        code = synced;
        *err = sync_error;
    }
    w.times.all = stopwatch_now() - start;
    if (rank == 0)
        tell(&m, observer, true);
    ret->progress = m.progress;
    forecast_free(w.forecast);
    free(m.group_done);
    code = comm_agree(comm, err, code);
    struct error unused;
    const int gathered = gather_times(&w, ranks, ret, code == 0 ? err : &unused);
    return code != 0 ? code : gathered;
}
