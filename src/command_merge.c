/* sgdmap merge: one file out of several of one sweep. One input is open at a time, and runs pass in blocks: neither many files
 * nor many runs cost memory. */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sgdmap/checkpoint.h"
#include "sgdmap/command.h"
#include "sgdmap/fault.h"
#include "sgdmap/lock.h"
#include "sgdmap/store.h"

enum { BLOCK = 4096, NAMED_MAX = 20 };

static volatile sig_atomic_t stop_requested;

static void request_stop(int signal)
{
    (void)signal;
    stop_requested = 1;
}

struct arguments {
    const char *output;
    char **inputs;
    int input_count;
    bool overwrite, any_kernels, help;
};

static void usage(void)
{
    puts("usage: sgdmap merge -o OUT FILE… [--overwrite] [--any-kernels]\n\n"
         "Puts the runs of several FILEs of one sweep, above all of its shards (`sgdmap run --shard I/N`), "
         "together\n"
         "into OUT, which then has the bits of a sweep in one piece. Every run is checked on its way.\n\n"
         "  -o, --output OUT      the new file; it gets its name when it is complete, the FILEs stay as they "
         "are\n"
         "      --overwrite       an OUT that exists is replaced then\n"
         "      --any-kernels     also FILEs of different BLIS kernels, from different CPU types\n"
         "  -h, --help            this text\n\n"
         "Runs that no FILE has are named; `sgdmap run CONFIG -o OUT` trains them. Runs that are damaged are "
         "named "
         "and\n"
         "left out. A run that two FILEs have with different bits, and a FILE that a job is writing, is an "
         "error.\n\n"
         "Exit status 0: all runs are in OUT; 1: and some of them failed; 75: OUT is made, and some runs are "
         "still "
         "to do;\n"
         "2 and 74: nothing is made. SIGTERM and SIGINT end it with 75, and nothing is made.");
}

static int parse_arguments(int argc, char **argv, struct arguments *ret, struct error *err)
{
    static const struct option options[] = {{"output", required_argument, NULL, 'o'},
                                            {"overwrite", no_argument, NULL, 'w'},
                                            {"any-kernels", no_argument, NULL, 'k'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    TRY(command_check_options(argc, argv, options, err));
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":o:h", options, NULL)) != -1;) {
        switch (option) {
        case 'o':
            if (ret->output != NULL)
                return error_set(err, ERROR_ARGUMENT, "merge: -o is given twice: %s and %s", ret->output,
                                 optarg);
            ret->output = optarg;
            break;
        case 'w':
            ret->overwrite = true;
            break;
        case 'k':
            ret->any_kernels = true;
            break;
        case 'h':
            ret->help = true;
            return 0;
        default:
            return error_set(err, ERROR_ARGUMENT, "merge: %s: %s; sgdmap merge -h tells more",
                             argv[optind - 1], option == ':' ? "wants a value" : "unknown option");
        }
    }
    if (ret->output == NULL || ret->output[0] == '\0')
        return error_set(err, ERROR_ARGUMENT, "merge: the new file is missing: -o OUT");
    ret->inputs = argv + optind;
    ret->input_count = argc - optind;
    if (ret->input_count == 0)
        return error_set(err, ERROR_ARGUMENT, "merge: no FILE to put into %s; sgdmap merge -h tells more",
                         ret->output);
    return 0;
}

/* -- Inputs ---------------------------------------------------------------------------------------- */

struct input {
    const char *path;
    struct config config;
    struct grid grid;
    struct store *store;
};

static int input_open(const char *path, struct input *ret, struct error *err)
{
    ret->path = path;
    return store_open_read(path, &ret->config, &ret->grid, &ret->store, err);
}

static void input_close(struct input *input)
{
    (void)!store_close(input->store, NULL); /* nothing was written */
    grid_done(&input->grid);
    config_done(&input->config);
}

/* What the new file takes from the first input, and all are compared with. */
struct origin {
    struct config config;
    struct grid grid;
    char *source, *blis_version, *blis_kernels;
    int64_t shard_count; /* 1 if the inputs are not all of one */
    uint8_t *given;      /* [shard_count] */
};

static void origin_done(struct origin *origin)
{
    grid_done(&origin->grid);
    config_done(&origin->config);
    free(origin->source);
    free(origin->blis_version);
    free(origin->blis_kernels);
    free(origin->given);
}

static const char *text_of(const char *text)
{
    return text != NULL ? text : "";
}

static int compare_input(const struct input *input, const struct origin *origin, const char *first,
                         bool any_kernels, struct error *err)
{
    char theirs[CONFIG_DIGEST_SIZE], ours[CONFIG_DIGEST_SIZE];
    config_digest(&input->config, theirs);
    config_digest(&origin->config, ours);
    if (strcmp(theirs, ours) != 0) {
        char *differences = config_differences(&origin->config, &input->config);
        int code = error_set(err, ERROR_ARGUMENT, "%s: holds another sweep than %s (\"the file\"):\n%s",
                             input->path, first, text_of(differences));
        free(differences);
        if (err->message[strlen(err->message) - 1] == '\n')
            err->message[strlen(err->message) - 1] = '\0';
        return code;
    }
    char *family = store_attribute(input->store, "blis_kernels");
    int code = 0;
    if (!any_kernels && strcmp(text_of(family), text_of(origin->blis_kernels)) != 0)
        code = error_set(
            err, ERROR_ARGUMENT,
            "%s: was trained with BLIS's %s kernels, %s with %s, which give other last bits: accept a "
            "mixture with --any-kernels",
            input->path, text_of(family), first, text_of(origin->blis_kernels));
    free(family);
    return code;
}

/* All inputs are looked at before anything is made. */
static int check_input(const struct arguments *arguments, int at, struct origin *origin, struct error *err)
{
    const char *path = arguments->inputs[at];
    struct stat in, out;
    char owner[LOCK_OWNER_SIZE];
    if (stat(path, &in) == 0 && stat(arguments->output, &out) == 0 && in.st_dev == out.st_dev &&
        in.st_ino == out.st_ino)
        return error_set(err, ERROR_ARGUMENT,
                         "%s: is to be read and to be made anew: name another file with -o", path);
    if (lock_owner(path, owner))
        return error_set(err, ERROR_ARGUMENT, "%s: a job is writing it: %s", path, owner);
    struct input input;
    TRY(input_open(path, &input, err));
    int code = 0;
    if (at > 0) {
        code = compare_input(&input, origin, arguments->inputs[0], arguments->any_kernels, err);
        if (input.grid.shard_count != origin->shard_count)
            origin->shard_count = 1;
        origin->given[origin->shard_count > 1 ? input.grid.shard : 0] = 1;
        input_close(&input);
        return code;
    }
    origin->shard_count = input.grid.shard_count;
    origin->given = calloc((size_t)origin->shard_count, 1);
    if (origin->given == NULL) {
        input_close(&input);
        return error_set(err, ERROR_MEMORY, "merge: out of memory");
    }
    origin->given[input.grid.shard] = 1;
    origin->source = store_attribute(input.store, "source");
    origin->blis_version = store_attribute(input.store, "blis_version");
    origin->blis_kernels = store_attribute(input.store, "blis_kernels");
    (void)!store_close(input.store, NULL);
    origin->config = input.config;
    origin->grid = input.grid;
    origin->grid.config = &origin->config;
    grid_take_shard(&origin->grid, 0, 1);
    return 0;
}

/* -- Runs ------------------------------------------------------------------------------------------ */

struct merge {
    const struct arguments *arguments;
    struct store *out;
    int input; /* which is being read */
    int64_t taken, not_done, damaged;
    struct run_result results[BLOCK];
    uint64_t theirs[BLOCK], ours[BLOCK]; /* checksums */
    uint8_t states[BLOCK];
    bool take[BLOCK];
};

static void print_runs(FILE *to, int64_t first, int64_t end)
{
    if (end - first == 1)
        fprintf(to, "run %" PRId64, first);
    else
        fprintf(to, "runs %" PRId64 " to %" PRId64, first, end - 1);
}

/* Which of the inputs before had the run? */
static const char *find_source(const struct merge *m, int64_t run, uint64_t checksum)
{
    for (int at = 0; at < m->input; ++at) {
        struct input input;
        uint64_t found = 0;
        if (input_open(m->arguments->inputs[at], &input, NULL) != 0)
            continue;
        int code = store_read_checksums(input.store, run, 1, &found, NULL);
        input_close(&input);
        if (code == 0 && found == checksum)
            return m->arguments->inputs[at];
    }
    return "a file before it";
}

/* A run that both have: the same bits, or one of them failed, which training again may mend. */
static int compare_run(struct merge *m, const struct input *input, int64_t run, int64_t at, struct error *err)
{
    struct run_result there;
    m->take[at] = false;
    if (m->theirs[at] == m->ours[at] || m->results[at].outcome == OUTCOME_FAILED)
        return 0;
    TRY(store_read_results(m->out, run, 1, &there, err));
    m->take[at] = there.outcome == OUTCOME_FAILED;
    if (m->take[at])
        return 0;
    return error_set(err, ERROR_IO,
                     "%s: run %" PRId64
                     " is %s with other bits than in %s, where it is %s: only one of them can be "
                     "right; `sgdmap replay FILE %" PRId64 "` tells which",
                     input->path, run, outcome_name(m->results[at].outcome), find_source(m, run, m->ours[at]),
                     outcome_name(there.outcome), run);
}

/* At most BLOCK neighbouring runs. */
static int merge_block(struct merge *m, const struct input *input, int64_t first, int64_t count,
                       struct error *err)
{
    TRY(store_check(input->store, first, count, m->states, err));
    TRY(store_read_results(input->store, first, count, m->results, err));
    TRY(store_read_checksums(input->store, first, count, m->theirs, err));
    TRY(store_read_checksums(m->out, first, count, m->ours, err));
    for (int64_t at = 0; at < count; ++at) {
        m->take[at] = m->states[at] == STORE_DONE;
        m->not_done += m->states[at] == STORE_NOT_DONE;
        m->damaged += m->states[at] == STORE_MISMATCH;
        if (m->take[at] && m->ours[at] != 0)
            TRY(compare_run(m, input, first + at, at, err));
    }
    for (int64_t at = 0, end; at < count; at = end) {
        const bool take = m->take[at], damaged = m->states[at] == STORE_MISMATCH;
        for (end = at + 1;
             end < count && m->take[end] == take && (m->states[end] == STORE_MISMATCH) == damaged;)
            ++end;
        if (damaged) {
            fprintf(stderr, "sgdmap: warning: %s: ", input->path);
            print_runs(stderr, first + at, first + end);
            fputs(": damaged, left out\n", stderr);
        }
        if (!take)
            continue;
        TRY(fault_at("merge: to be copied", err));
        TRY(store_copy(input->store, m->out, first + at, end - at, err));
        m->taken += end - at;
    }
    return 0;
}

static int merge_input(struct merge *m, struct error *err)
{
    struct input input;
    TRY(input_open(m->arguments->inputs[m->input], &input, err));
    char shard[COMMAND_TEXT_SIZE];
    int code = 0;
    m->taken = m->not_done = m->damaged = 0;
    for (int64_t first, end, count, next = 0;
         code == 0 && grid_next_runs(&input.grid, next, input.grid.run_count, &first, &end);
         next = first + count) {
        count = end - first < BLOCK ? end - first : BLOCK;
        code = merge_block(m, &input, first, count, err);
        if (code == 0 && stop_requested)
            code = error_set(err, ERROR_INTERRUPTED,
                             "%s: interrupted, and not made; the same command begins again",
                             m->arguments->output);
    }
    if (code == 0) {
        printf("%s: ", input.path);
        if (input.grid.shard_count > 1)
            printf("shard %s, ", command_shard(&input.grid, shard));
        printf("%" PRId64 " runs: %" PRId64 " taken, %" PRId64 " not done, %" PRId64 " damaged\n",
               input.grid.shard_runs, m->taken, m->not_done, m->damaged);
        char *history = store_attribute(input.store, "history");
        for (char *line = history; code == 0 && line != NULL;) {
            char *end_of_line = strchr(line, '\n');
            if (end_of_line != NULL)
                *end_of_line++ = '\0';
            if (*line != '\0')
                code = store_add_history(m->out, line, err);
            line = end_of_line;
        }
        free(history);
    }
    input_close(&input);
    return code;
}

/* -- The end --------------------------------------------------------------------------------------- */

struct counts {
    int64_t outcomes[OUTCOME_COUNT];
    int64_t missing; /* runs */
    int64_t pieces;  /* neighbours of those */
    int64_t first;   /* of the piece seen last; -1: the run before is there */
};

static void name_missing(struct counts *c, int64_t end)
{
    if (c->first < 0)
        return;
    if (c->pieces++ < NAMED_MAX) {
        fputs("  still to do: ", stdout);
        print_runs(stdout, c->first, end);
        putchar('\n');
    }
    c->first = -1;
}

/* Reads what was written again: nothing in it is to be less than sound. */
static int check_output(struct merge *m, const struct grid *grid, struct counts *c, struct error *err)
{
    c->first = -1;
    for (int64_t first = 0, count; first < grid->run_count; first += count) {
        count = grid->run_count - first < BLOCK ? grid->run_count - first : BLOCK;
        TRY(store_check(m->out, first, count, m->states, err));
        TRY(store_read_results(m->out, first, count, m->results, err));
        for (int64_t at = 0; at < count; ++at) {
            if (m->states[at] == STORE_MISMATCH)
                return error_set(err, ERROR_IO,
                                 "%s: run %" PRId64
                                 " has other bytes than were copied: does a job write one of the "
                                 "inputs, or is the disk damaged?",
                                 m->arguments->output, first + at);
            ++c->outcomes[m->results[at].outcome];
            if (m->states[at] == STORE_NOT_DONE) {
                ++c->missing;
                c->first = c->first < 0 ? first + at : c->first;
            } else {
                name_missing(c, first + at);
            }
        }
    }
    name_missing(c, grid->run_count);
    return 0;
}

/* Most often runs are missing because files are. */
static void name_missing_shards(const struct origin *origin)
{
    int64_t named = 0;
    for (int64_t shard = 0; shard < origin->shard_count; ++shard)
        if (!origin->given[shard] && named++ < NAMED_MAX)
            printf("%s%" PRId64 "/%" PRId64, named == 1 ? "  no file was given of shard " : ", ", shard,
                   origin->shard_count);
    if (named > NAMED_MAX)
        printf(" and %" PRId64 " more", named - NAMED_MAX);
    if (named > 0)
        putchar('\n');
}

static void print_summary(const char *path, const struct origin *origin, const struct counts *c)
{
    const struct grid *grid = &origin->grid;
    if (c->pieces > NAMED_MAX)
        printf("  … and %" PRId64 " more pieces\n", c->pieces - NAMED_MAX);
    if (c->missing > 0)
        name_missing_shards(origin);
    printf("%s: %" PRId64 " of %" PRId64 " runs%s\n", path, grid->run_count - c->missing, grid->run_count,
           c->missing > 0 ? "; `sgdmap run` with its config trains the others" : "");
    for (int o = 0; o < OUTCOME_COUNT; ++o)
        if (c->outcomes[o] > 0)
            printf("  %-10s %8" PRId64 "  %5.1f %%\n", outcome_name((enum outcome)o), c->outcomes[o],
                   100 * (double)c->outcomes[o] / (double)grid->run_count);
}

static int fill_output(struct merge *m, const struct origin *origin, struct counts *c, struct error *err)
{
    for (m->input = 0; m->input < m->arguments->input_count; ++m->input)
        TRY(merge_input(m, err));
    TRY(check_output(m, &origin->grid, c, err));
    return fault_at("merge: to be published", err);
}

/* Of an OUT that was there before, and is replaced. */
static int clear_checkpoints(const char *output, const struct config *config, struct error *err)
{
    struct checkpoints checkpoints;
    TRY(checkpoints_init(output, "", "", config, &checkpoints, err));
    checkpoints_clear(&checkpoints);
    checkpoints_done(&checkpoints);
    return 0;
}

/* Between the lock of the output and its release. */
static int merge_locked(const struct arguments *arguments, int argc, char **argv, const struct origin *origin,
                        struct counts *c, struct error *err)
{
    enum store_presence found;
    TRY(store_probe(arguments->output, &found, err));
    if (found == STORE_FOREIGN)
        return error_set(
            err, ERROR_ARGUMENT,
            "%s: is not a result file of sgdmap (or a broken one), and is left as it is; name another, "
            "or remove it",
            arguments->output);
    if (found == STORE_OURS && !arguments->overwrite)
        return error_set(err, ERROR_ARGUMENT, "%s: exists; name another file, or replace it with --overwrite",
                         arguments->output);

    char date[COMMAND_DATE_SIZE], history[COMMAND_HISTORY_SIZE], host[256] = "";
    const char *job = getenv("SLURM_JOB_ID");
    command_origin(argc, argv, date, history);
    gethostname(host, sizeof host - 1);
    const struct provenance provenance = {.source = text_of(origin->source),
                                          .history = history,
                                          .date_created = date,
                                          .blis_version = text_of(origin->blis_version),
                                          .blis_kernels = text_of(origin->blis_kernels),
                                          .host = host,
                                          .slurm_job_id = text_of(job),
                                          .ranks = 1};
    struct merge *m = calloc(1, sizeof *m);
    if (m == NULL)
        return error_set(err, ERROR_MEMORY, "merge: out of memory");
    m->arguments = arguments;
    int code = store_begin(arguments->output, arguments->overwrite, &origin->config, &origin->grid,
                           &provenance, &stop_requested, &m->out, err);
    if (code == 0) {
        code = fill_output(m, origin, c, err);
        if (code == 0)
            code = store_publish(m->out, err);
        else
            (void)!store_close(m->out, NULL);
    }
    free(m);
    if (code == 0 && found == STORE_OURS)
        code = clear_checkpoints(arguments->output, &origin->config, err);
    return code;
}

static int merge(const struct arguments *arguments, int argc, char **argv, struct counts *c,
                 struct error *err)
{
    static const double LOCK_WAIT = 0.2;
    struct origin origin = {0};
    struct lock lock = {.descriptor = -1};
    int code = 0;
    for (int at = 0; code == 0 && at < arguments->input_count; ++at)
        code = check_input(arguments, at, &origin, err);
    if (code == 0)
        code = lock_take(arguments->output, LOCK_WAIT, &lock, err);
    if (code == 0)
        code = merge_locked(arguments, argc, argv, &origin, c, err);
    lock_release(&lock);
    if (code == 0)
        print_summary(arguments->output, &origin, c);
    origin_done(&origin);
    return code;
}

int command_merge(int argc, char **argv)
{
    struct arguments arguments = {0};
    struct counts counts = {0};
    struct error err = {0};
    if (parse_arguments(argc, argv, &arguments, &err) != 0)
        return command_fail(&err);
    if (arguments.help) {
        usage();
        return 0;
    }
    const struct sigaction action = {.sa_handler = request_stop, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    if (merge(&arguments, argc, argv, &counts, &err) != 0) {
        fflush(stdout);
        return command_fail(&err);
    }
    if (counts.missing > 0)
        return error_exit_status(ERROR_INTERRUPTED);
    return counts.outcomes[OUTCOME_FAILED] > 0 ? 1 : 0;
}
