/* The protocol. A worker sends messages of one kind, struct report, to rank 0: what ended since the last one,
 * how far it is, and whether it wants groups or leaves for good. Rank 0 answers a want with up to
 * ASSIGNMENT_MAX groups; none means that there are no more. To stop everyone it sends an empty message with
 * TAG_STOP; a worker looks for one between slices. Every worker's last report has `leaves` set, and rank 0
 * returns when all have left. */
#include "sgdmap/sweep.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sgdmap/comm.h"
#include "sgdmap/stopwatch.h"
#include "sgdmap/task.h"

enum { TAG_REPORT = 1, TAG_ASSIGNMENT = 2, TAG_STOP = 3 };

/* Cheap groups are handed out several at a time, so that messages do not cost more than they. */
enum { ASSIGNMENT_MAX = 64 };

/* A rank looks at its messages, and at the signal, this often: rank 0's slice is what a request may wait for
 * at the most, and a request is made ahead. */
static const double SLICE = 0.01;
static const double REPORT_INTERVAL = 0.5;
/* What is handed out at once is worth about this many seconds, at most. */
static const double ASSIGNMENT_COST = 0.1;
/* The next groups are asked for when this much of the present work is left, in seconds. */
static const double ASK_AHEAD = 0.2;

struct report {
    int64_t outcomes[OUTCOME_COUNT]; /* since the last report */
    double cost_done;                /* likewise */
    int64_t wants;
    int64_t leaves;
    int64_t stops; /* the sweep is to end: a signal or an error */
};

struct assignment {
    int64_t count;
    int64_t groups[ASSIGNMENT_MAX];
};

/* What a rank, the master too, has in hand. */
struct worker {
    const struct kernels *kernels;
    const struct config *config;
    const struct grid *grid;
    struct store *store;
    const struct sweep_observer *observer;
    bool fresh; /* the file was made in this session: nothing in it is done */
    int rank;

    struct assignment queue;
    int64_t next;     /* index into queue */
    struct task task; /* trainer NULL: none */
    double progress;  /* of the task, as it was last reported */
    double task_cost; /* of the runs that are trained */
    double speed;     /* cost units a second, of late: tells when to ask; 0 unknown */

    struct report report; /* being put together */
    double idle, writing; /* s */
    bool told_to_stop;    /* rank 0's message has come */
};

struct master {
    const struct grid *grid;
    uint8_t *group_done; /* [group_count] whole group done before this session; NULL: none */
    int64_t next;        /* rank of the next group by cost */
    int workers;         /* that have not left */
    bool stopping;
    double told;
    double start;
    struct sweep_progress progress;
};

/* -- A rank's own work ----------------------------------------------------------------------------- */

static bool is_done(uint8_t state, const struct run_result *result)
{
    return state == STORE_DONE && result->outcome != OUTCOME_FAILED;
}

/* Which runs of the group are to be trained: wanted [run_count]. */
static int find_wanted(const struct worker *w, int64_t group, uint8_t **wanted, struct error *err)
{
    struct group g;
    grid_group(w->grid, group, &g);
    uint8_t *states = malloc((size_t)g.run_count);
    struct run_result *results = malloc((size_t)g.run_count * sizeof *results);
    int code = states == NULL || results == NULL
                   ? error_set(err, ERROR_MEMORY, "out of memory for a group's state")
                   : 0;
    if (code == 0)
        code = store_check(w->store, g.first_run, g.run_count, states, err);
    if (code == 0)
        code = store_read_results(w->store, g.first_run, g.run_count, results, err);
    for (int64_t i = 0; code == 0 && i < g.run_count; ++i)
        states[i] = !is_done(states[i], &results[i]);
    free(results);
    if (code != 0) {
        free(states);
        return code;
    }
    *wanted = states;
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
    w->writing += stopwatch_now() - start;
    return code;
}

static int mark_segment(struct worker *w, int64_t from, int64_t to, const struct run_result *results,
                        struct error *err)
{
    (void)results;
    return store_mark_running(w->store, w->task.runs[from], to - from, err);
}

static void end_task(struct worker *w, const struct run_result *results)
{
    for (int64_t i = 0; i < w->task.run_count; ++i)
        ++w->report.outcomes[results[i].outcome];
    w->report.cost_done += (1 - w->progress) * w->task_cost;
    w->progress = 0;
    task_done(&w->task);
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
    while (w->task.trainer == NULL && w->next < w->queue.count) {
        uint8_t *wanted = NULL;
        const int64_t group = w->queue.groups[w->next++];
        if (!w->fresh)
            TRY(find_wanted(w, group, &wanted, err));
        struct error why = {0};
        int code = task_init(w->kernels, w->config, w->grid, group, wanted, &w->task, &why);
        free(wanted);
        w->task_cost = w->task.group.cost * (double)w->task.run_count / (double)w->task.group.run_count;
        w->progress = 0;
        if (code != 0 && w->task.run_count == 0)
            return error_set(err, why.code, "%s", why.message);
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
    const double start = stopwatch_now(), before = w->progress;
    const bool ended = trainer_advance(w->task.trainer, SLICE);
    const double progress = trainer_progress(w->task.trainer), time = stopwatch_now() - start;
    w->report.cost_done += (progress - before) * w->task_cost;
    w->progress = progress;
    if (time > 0) {
        double speed = (progress - before) * w->task_cost / time;
        w->speed = w->speed > 0 ? 0.9 * w->speed + 0.1 * speed : speed;
    }
    if (!ended)
        return 0;
    const struct run_result *results = trainer_results(w->task.trainer);
    TRY(for_each_segment(w, results, write_segment, err));
    end_task(w, results);
    return 0;
}

static bool has_work(const struct worker *w)
{
    return w->task.trainer != NULL || w->next < w->queue.count;
}

/* Predicted seconds until this rank has nothing to do. */
static double time_left(const struct worker *w)
{
    double cost = w->task.trainer != NULL ? (1 - w->progress) * w->task_cost : 0;
    for (int64_t i = w->next; i < w->queue.count; ++i) {
        struct group group;
        grid_group(w->grid, w->queue.groups[i], &group);
        cost += group.cost;
    }
    return w->speed > 0 ? cost / w->speed : cost;
}

/* -- The master ------------------------------------------------------------------------------------ */

/* Looks through the file for what earlier sessions left: whole groups that are done are never handed out. */
static int find_done(struct master *m, struct store *store, bool fresh, struct error *err)
{
    const struct grid *grid = m->grid;
    m->progress.run_count = grid->run_count;
    m->progress.outcomes[OUTCOME_PENDING] = grid->run_count;
    m->progress.cost = grid_total_cost(grid);
    if (fresh)
        return 0;
    m->progress.cost = 0;
    m->group_done = calloc((size_t)grid->group_count, 1);
    if (m->group_done == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for the state of %lld groups",
                         (long long)grid->group_count);
    /* In large pieces of neighbouring groups: a read costs more than what it reads. */
    enum { PIECE_RUNS = 16384 };
    struct run_result *results = NULL;
    uint8_t *states = NULL;
    int code = 0;
    int64_t capacity = 0;
    for (int64_t g = 0, end; code == 0 && g < grid->group_count; g = end) {
        struct group first, group;
        grid_group(grid, g, &first);
        group = first;
        for (end = g + 1; end < grid->group_count; ++end) {
            struct group next;
            grid_group(grid, end, &next);
            if (next.first_run + next.run_count - first.first_run > PIECE_RUNS)
                break;
            group = next;
        }
        const int64_t count = group.first_run + group.run_count - first.first_run;
        if (count > capacity) {
            free(results);
            free(states);
            results = malloc((size_t)count * sizeof *results);
            states = malloc((size_t)count);
            capacity = count;
        }
        code =
            results == NULL || states == NULL
                ? error_set(err, ERROR_MEMORY, "out of memory for the state of %lld runs", (long long)count)
                : store_read_results(store, first.first_run, count, results, err);
        bool any = false;
        for (int64_t i = 0; code == 0 && i < count; ++i)
            any = any || results[i].outcome > OUTCOME_RUNNING;
        if (code == 0 && any)
            code = store_check(store, first.first_run, count, states, err);
        for (; code == 0 && g < end; ++g) {
            grid_group(grid, g, &group);
            int64_t done = 0;
            for (int64_t i = 0; any && i < group.run_count; ++i) {
                const int64_t at = group.first_run - first.first_run + i;
                if (is_done(states[at], &results[at])) {
                    ++done;
                    ++m->progress.outcomes[results[at].outcome];
                    --m->progress.outcomes[OUTCOME_PENDING];
                }
            }
            m->group_done[g] = done == group.run_count;
            m->progress.cost += group.cost * (double)(group.run_count - done) / (double)group.run_count;
        }
    }
    free(results);
    free(states);
    return code;
}

static void assign(struct master *m, struct assignment *ret)
{
    double cost = 0;
    /* Toward the end smaller portions, so that all ranks end together. */
    const double left = m->progress.cost - m->progress.cost_done;
    double most = left / (8 * m->progress.ranks);
    most = most < ASSIGNMENT_COST ? most : ASSIGNMENT_COST;
    ret->count = 0;
    while (!m->stopping && m->next < m->grid->group_count && ret->count < ASSIGNMENT_MAX) {
        const int64_t index = grid_group_by_cost(m->grid, m->next);
        struct group group;
        grid_group(m->grid, index, &group);
        if (m->group_done != NULL && m->group_done[index]) {
            ++m->next;
            continue;
        }
        if (ret->count > 0 && cost + group.cost > most)
            return;
        cost += group.cost;
        ret->groups[ret->count++] = index;
        ++m->next;
    }
}

static void take_report(struct master *m, const struct report *report)
{
    for (int o = 0; o < OUTCOME_COUNT; ++o) {
        m->progress.outcomes[o] += report->outcomes[o];
        m->progress.outcomes[OUTCOME_PENDING] -= report->outcomes[o];
        m->progress.trained += report->outcomes[o];
    }
    m->progress.cost_done += report->cost_done;
}

static void stop_workers(struct master *m, MPI_Comm comm)
{
    if (m->stopping)
        return;
    m->stopping = true;
    for (int rank = 1; rank < m->progress.ranks; ++rank) {
        MPI_Request request;
        MPI_Isend(NULL, 0, MPI_BYTE, rank, TAG_STOP, comm, &request);
        MPI_Request_free(&request); /* empty: there is no buffer that would have to outlive it */
    }
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
        if (report.stops)
            stop_workers(m, comm);
        if (report.leaves)
            --m->workers;
        if (report.wants) {
            struct assignment assignment;
            assign(m, &assignment);
            MPI_Send(&assignment, (int)sizeof assignment, MPI_BYTE, status.MPI_SOURCE, TAG_ASSIGNMENT, comm);
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
    observer->progress(observer->context, &m->progress, last);
}

static void pause_briefly(void)
{
    const struct timespec pause = {.tv_nsec = 200000};
    nanosleep(&pause, NULL);
}

static int run_master(struct master *m, struct worker *w, MPI_Comm comm, const volatile sig_atomic_t *stop,
                      struct error *err)
{
    int code = 0;
    while (true) {
        serve(m, comm);
        take_report(m, &w->report);
        w->report = (struct report){0};
        if ((*stop || code != 0) && !m->stopping)
            stop_workers(m, comm);
        tell(m, w->observer, false);
        const bool mine = code == 0 && !m->stopping;
        if (mine && !has_work(w)) {
            assign(m, &w->queue);
            w->next = 0;
        }
        if (mine && has_work(w)) {
            code = begin_task(w, err);
            if (code == 0 && w->task.trainer != NULL)
                code = work(w, err);
        } else if (m->workers > 0) {
            const double start = stopwatch_now();
            pause_briefly();
            w->idle += stopwatch_now() - start;
        } else {
            return code;
        }
    }
}

/* -- A worker -------------------------------------------------------------------------------------- */

static void send_report(struct worker *w, MPI_Comm comm)
{
    /* Small enough to be buffered: rank 0 need not be listening. */
    MPI_Send(&w->report, (int)sizeof w->report, MPI_BYTE, 0, TAG_REPORT, comm);
    w->report = (struct report){0};
}

static void look_for_stop(struct worker *w, MPI_Comm comm)
{
    int come = 0;
    if (!w->told_to_stop)
        MPI_Iprobe(0, TAG_STOP, comm, &come, MPI_STATUS_IGNORE);
    if (come)
        MPI_Recv(NULL, 0, MPI_BYTE, 0, TAG_STOP, comm, MPI_STATUS_IGNORE);
    w->told_to_stop = w->told_to_stop || come;
}

static int run_worker(struct worker *w, MPI_Comm comm, const volatile sig_atomic_t *stop, struct error *err)
{
    int code = 0;
    bool asked = false, more = true, stopping = false, reported_stop = false;
    struct assignment coming;
    MPI_Request request = MPI_REQUEST_NULL;
    double last_report = stopwatch_now();
    while (true) {
        if (code == 0 && !stopping && !asked && more && time_left(w) < ASK_AHEAD) {
            MPI_Irecv(&coming, (int)sizeof coming, MPI_BYTE, 0, TAG_ASSIGNMENT, comm, &request);
            w->report.wants = 1;
            send_report(w, comm);
            asked = true;
        }
        look_for_stop(w, comm);
        stopping = stopping || w->told_to_stop;
        if ((code != 0 || *stop) && !reported_stop) {
            w->report.stops = 1;
            send_report(w, comm);
            reported_stop = stopping = true;
        }
        if (asked && (stopping || !has_work(w))) {
            int come;
            MPI_Test(&request, &come, MPI_STATUS_IGNORE);
            if (come) {
                asked = false;
                more = coming.count > 0;
                w->queue = coming;
                w->next = 0;
            }
        }
        if (!stopping && has_work(w)) {
            code = begin_task(w, err);
            if (code == 0 && w->task.trainer != NULL)
                code = work(w, err);
            if (stopwatch_now() - last_report > REPORT_INTERVAL) {
                last_report = stopwatch_now();
                send_report(w, comm);
            }
        } else if (asked || (!stopping && more)) {
            const double start = stopwatch_now();
            pause_briefly();
            w->idle += stopwatch_now() - start;
        } else {
            w->report.leaves = 1;
            send_report(w, comm);
            return code;
        }
    }
}

/* -- Both ------------------------------------------------------------------------------------------ */

static void summarize(const struct master *m, const struct worker *w, MPI_Comm comm, double elapsed,
                      struct sweep_summary *ret)
{
    int rank, ranks;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &ranks);
    double mine[2] = {w->idle / elapsed, w->writing / elapsed}, sum[2] = {0};
    struct {
        double share;
        int rank;
    } idle = {mine[0], rank}, worst = {0, 0};
    MPI_Reduce(mine, sum, 2, MPI_DOUBLE, MPI_SUM, 0, comm);
    MPI_Reduce(&idle, &worst, 1, MPI_DOUBLE_INT, MPI_MAXLOC, 0, comm);
    if (rank != 0)
        return;
    *ret = (struct sweep_summary){.progress = m->progress,
                                  .idle_mean = sum[0] / ranks,
                                  .write_mean = sum[1] / ranks,
                                  .idle_worst = worst.share,
                                  .idle_worst_rank = worst.rank};
}

int sweep_train(const struct kernels *kernels, const struct config *config, const struct grid *grid,
                struct store *store, bool fresh, MPI_Comm comm, const volatile sig_atomic_t *stop,
                const struct sweep_observer *observer, struct sweep_summary *ret, struct error *err)
{
    int rank, ranks;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &ranks);
    struct worker w = {.kernels = kernels,
                       .config = config,
                       .grid = grid,
                       .store = store,
                       .observer = observer,
                       .fresh = fresh,
                       .rank = rank};
    struct master m = {.grid = grid, .workers = ranks - 1, .start = stopwatch_now(), .progress.ranks = ranks};
    *ret = (struct sweep_summary){0};
    int code = comm_agree(comm, err, rank == 0 ? find_done(&m, store, fresh, err) : 0);
    if (code != 0) {
        free(m.group_done);
        return code;
    }
    if (rank == 0 && observer->begin != NULL)
        observer->begin(observer->context, &m.progress);
    m.told = stopwatch_now();
    const double start = stopwatch_now();
    code = rank == 0 ? run_master(&m, &w, comm, stop, err) : run_worker(&w, comm, stop, err);
    /* Rank 0 stops everyone or no one: whoever left before the message came takes it now. */
    int verdict[2] = {m.stopping, m.progress.outcomes[OUTCOME_PENDING] == 0};
    MPI_Bcast(verdict, 2, MPI_INT, 0, comm);
    if (rank > 0 && verdict[0] && !w.told_to_stop)
        MPI_Recv(NULL, 0, MPI_BYTE, 0, TAG_STOP, comm, MPI_STATUS_IGNORE);
    if (code == 0 && *stop && !verdict[1])
        code = error_set(err, ERROR_INTERRUPTED, "interrupted by a signal; the same command again goes on");
    task_done(&w.task);
    const double elapsed = stopwatch_now() - start;
    summarize(&m, &w, comm, elapsed > 0 ? elapsed : 1, ret);
    if (rank == 0)
        tell(&m, observer, true);
    free(m.group_done);
    return comm_agree(comm, err, code);
}
