/* sgdmap run: the sweep itself, on all ranks. */
#include <errno.h>
#include <getopt.h>
#include <mpi.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sgdmap/checkpoint.h"
#include "sgdmap/comm.h"
#include "sgdmap/command.h"
#include "sgdmap/kernels.h"
#include "sgdmap/lock.h"
#include "sgdmap/store.h"
#include "sgdmap/sweep.h"
#include "sgdmap/terminal.h"

/* Long enough for a killed job's ranks to notice and die, short enough to be waited for. */
static const double LOCK_WAIT = 10;

static volatile sig_atomic_t stop_requested;

static void request_stop(int signal)
{
    (void)signal;
    stop_requested = 1;
}

struct run_arguments {
    const char *config;
    const char *output;
    const char **overrides;
    size_t override_count;
    int64_t shard, shard_count;
    bool overwrite;
    bool any_kernels;
    bool help;
};

static void usage(void)
{
    puts("usage: [mpirun -n N] sgdmap run CONFIG -o FILE [--set KEY=VALUE]… [--shard I/N] [--overwrite]\n"
         "                             [--any-kernels]\n\n"
         "Trains all runs of CONFIG that are not done yet in FILE, which it creates if need be. The same "
         "command\n"
         "again goes on where the last one stopped; with another config for the same FILE it lists the "
         "differences\n"
         "and stops.\n\n"
         "  -o, --output FILE     the result file (HDF5 that is also netCDF-4)\n"
         "      --set KEY=VALUE   override a value of CONFIG: --set grid.step_size=0.01\n"
         "      --shard I/N       train part I of N alone, I from 0 to N - 1, in a FILE of its own, which "
         "`sgdmap\n"
         "                        merge` puts together with those of the others; in a job array\n"
         "                        --shard $SLURM_ARRAY_TASK_ID/N -o part-$SLURM_ARRAY_TASK_ID.h5\n"
         "      --overwrite       begin FILE anew: what is in it is lost\n"
         "      --any-kernels     go on in a FILE that was begun with other BLIS kernels, on another CPU "
         "type\n"
         "  -h, --help            this text\n\n"
         "SIGTERM, SIGINT and SIGUSR1 end the job with exit status 75.");
}

static int parse_arguments(int argc, char **argv, struct run_arguments *ret, struct error *err)
{
    static const struct option options[] = {{"output", required_argument, NULL, 'o'},
                                            {"set", required_argument, NULL, 's'},
                                            {"shard", required_argument, NULL, 'p'},
                                            {"overwrite", no_argument, NULL, 'w'},
                                            {"any-kernels", no_argument, NULL, 'k'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    ret->overrides = calloc((size_t)argc, sizeof *ret->overrides);
    if (ret->overrides == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for the arguments");
    ret->shard_count = 1;
    TRY(command_check_options(argc, argv, options, err));
    opterr = 0;
    optind = 1;
    for (int option; (option = getopt_long(argc, argv, ":o:h", options, NULL)) != -1;) {
        switch (option) {
        case 'o':
            if (ret->output != NULL)
                return error_set(err, ERROR_ARGUMENT, "run: -o is given twice: %s and %s", ret->output,
                                 optarg);
            ret->output = optarg;
            break;
        case 's':
            ret->overrides[ret->override_count++] = optarg;
            break;
        case 'p':
            if (!grid_parse_shard(optarg, &ret->shard, &ret->shard_count))
                return error_set(
                    err, ERROR_ARGUMENT,
                    "run: --shard %s: expected I/N, a part's number from 0 to N - 1 and how many "
                    "parts there are, at most %d",
                    optarg, GRID_SHARDS_MAX);
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
        case ':':
            return error_set(err, ERROR_ARGUMENT, "run: %s wants a value; sgdmap run -h tells more",
                             argv[optind - 1]);
        default:
            return error_set(err, ERROR_ARGUMENT, "run: %s: unknown option; sgdmap run -h tells more",
                             argv[optind - 1]);
        }
    }
    if (optind >= argc)
        return error_set(err, ERROR_ARGUMENT, "run: the CONFIG is missing; sgdmap run -h tells more");
    if (optind + 1 < argc)
        return error_set(err, ERROR_ARGUMENT, "run: %s: one CONFIG is expected, it is %s", argv[optind + 1],
                         argv[optind]);
    ret->config = argv[optind];
    if (ret->output == NULL || ret->output[0] == '\0')
        return error_set(err, ERROR_ARGUMENT, "run: the result file is missing: -o FILE");
    return 0;
}

/* Collective. Rank 0 reads the file, so that all see one text even if someone edits it meanwhile. */
static int share_config(const struct run_arguments *arguments, int rank, struct config *ret,
                        struct error *err)
{
    int code = 0;
    char *text = NULL, *overrides = NULL;
    size_t length = 0, override_length = 0;
    if (rank == 0) {
        code = config_read(arguments->config, arguments->overrides, arguments->override_count, ret, err);
        if (code == 0) {
            text = ret->text;
            length = strlen(text);
            overrides = ret->overrides;
            override_length = strlen(overrides);
        }
    }
    TRY(comm_agree(MPI_COMM_WORLD, err, code));
    code = comm_broadcast_text(MPI_COMM_WORLD, &text, &length, err);
    if (code == 0)
        code = comm_broadcast_text(MPI_COMM_WORLD, &overrides, &override_length, err);
    if (rank == 0) {
        code = comm_agree(MPI_COMM_WORLD, err, code);
        if (code != 0)
            config_done(ret);
        return code;
    }
    struct config parsed = {0};
    if (code == 0)
        code = config_parse(arguments->config, text, length, overrides, &parsed, err);
    const bool mine = code == 0;
    free(text);
    free(overrides);
    code = comm_agree(MPI_COMM_WORLD, err, code);
    if (code == 0)
        *ret = parsed;
    else if (mine)
        config_done(&parsed);
    return code;
}

/* A shard's file takes no other runs: someone would miss them elsewhere. */
static int compare_shards(const char *path, const struct grid *in_file, const struct grid *given,
                          struct error *err)
{
    if (in_file->shard == given->shard && in_file->shard_count == given->shard_count)
        return 0;
    char theirs[COMMAND_TEXT_SIZE], ours[COMMAND_TEXT_SIZE];
    command_shard(in_file, theirs);
    command_shard(given, ours);
    if (in_file->shard_count == 1)
        return error_set(err, ERROR_ARGUMENT,
                         "%s: holds the whole sweep, and --shard %s is given: name another file for it", path,
                         ours);
    if (given->shard_count == 1)
        return error_set(
            err, ERROR_ARGUMENT,
            "%s: holds shard %s of the sweep alone: go on with --shard %s, or begin a file for the "
            "whole with `sgdmap merge -o OUT %s` and go on in that",
            path, theirs, theirs, path);
    return error_set(err, ERROR_ARGUMENT, "%s: holds shard %s, and --shard %s is given: name a file for each",
                     path, theirs, ours);
}

/* Rank 0 alone: may the sweep go on in the file that is there? */
static int compare_with_file(const char *path, const struct config *config, const struct grid *given,
                             bool any_kernels, struct error *err)
{
    struct config in_file;
    struct grid grid;
    struct store *store;
    TRY(store_open_read(path, &in_file, &grid, &store, err));
    char *family = store_attribute(store, "blis_kernels");
    int code = store_close(store, err);
    char theirs[CONFIG_DIGEST_SIZE], ours[CONFIG_DIGEST_SIZE];
    config_digest(&in_file, theirs);
    config_digest(config, ours);
    if (code == 0 && strcmp(theirs, ours) != 0) {
        char *differences = config_differences(&in_file, config);
        code = error_set(err, ERROR_ARGUMENT,
                         "%s: holds another sweep; name another file, or begin it anew with --overwrite:\n%s",
                         path, differences != NULL ? differences : "");
        size_t length = strlen(err->message);
        if (length > 0 && err->message[length - 1] == '\n')
            err->message[length - 1] = '\0';
        free(differences);
    }
    if (code == 0)
        code = compare_shards(path, &grid, given, err);
    if (code == 0 && !any_kernels && family != NULL && strcmp(family, linalg_kernel_family()) != 0)
        code = error_set(
            err, ERROR_ARGUMENT,
            "%s: was begun with BLIS's %s kernels, and this job has %s, which give other last bits: go on "
            "on the CPU type (or with the BLIS_ARCH_TYPE) that it was begun with, or accept a mixture "
            "with --any-kernels",
            path, family, linalg_kernel_family());
    free(family);
    grid_done(&grid);
    config_done(&in_file);
    return code;
}

/* Collective. Opens the file for going on, or creates it. */
static int open_store(const struct run_arguments *arguments, int argc, char **argv, int rank, int ranks,
                      const struct config *config, const struct grid *grid, struct store **ret, bool *fresh,
                      struct error *err)
{
    int code = 0, presence = 0;
    if (rank == 0) {
        enum store_presence found = STORE_ABSENT;
        code = store_probe(arguments->output, &found, err);
        if (code == 0 && found == STORE_FOREIGN)
            code = error_set(err, ERROR_ARGUMENT,
                             "%s: is not a result file of sgdmap (or a broken one), and is left as it is; "
                             "name another, or remove it",
                             arguments->output);
        if (code == 0 && found == STORE_OURS && !arguments->overwrite)
            code = compare_with_file(arguments->output, config, grid, arguments->any_kernels, err);
        presence = (int)found;
    }
    TRY(comm_agree(MPI_COMM_WORLD, err, code));
    MPI_Bcast(&presence, 1, MPI_INT, 0, MPI_COMM_WORLD);

    char date[COMMAND_DATE_SIZE], history[COMMAND_HISTORY_SIZE], host[MPI_MAX_PROCESSOR_NAME];
    int length;
    const char *job = getenv("SLURM_JOB_ID");
    MPI_Get_processor_name(host, &length);
    command_origin(argc, argv, date, history);
    const struct provenance provenance = {.source = command_source(),
                                          .history = history,
                                          .date_created = date,
                                          .blis_version = linalg_version(),
                                          .blis_kernels = linalg_kernel_family(),
                                          .host = host,
                                          .slurm_job_id = job != NULL ? job : "",
                                          .ranks = ranks};
    *fresh = presence == (int)STORE_ABSENT || arguments->overwrite;
    if (*fresh)
        return store_create(arguments->output, arguments->overwrite, config, grid, &provenance,
                            &stop_requested, MPI_COMM_WORLD, ret, err);
    return store_open(arguments->output, config, grid, &provenance, MPI_COMM_WORLD, ret, err);
}

static int compare_reals(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Every rank's share of the time without work; of very many ranks the distribution. */
static void print_waiting(const struct sweep_times *times, int ranks)
{
    enum { LISTED_MAX = 128, COLUMNS = 8 };
    double *shares = malloc((size_t)ranks * sizeof *shares);
    if (shares == NULL)
        return;
    int longest = 0;
    for (int r = 0; r < ranks; ++r) {
        shares[r] = 100 * times[r].waiting / times[r].all;
        if (shares[r] > shares[longest])
            longest = r;
    }
    if (ranks <= LISTED_MAX) {
        for (int r = 0; r < ranks; ++r)
            printf("%s%s rank %d %.1f %%", r == 0 ? "  waiting: " : ",",
                   r > 0 && r % COLUMNS == 0 ? "\n           " : "", r, shares[r]);
        putchar('\n');
    } else {
        const double most = shares[longest];
        qsort(shares, (size_t)ranks, sizeof *shares, compare_reals);
        printf("  waiting: a tenth of the ranks below %.1f %%, half below %.1f %%, nine tenths below %.1f "
               "%%, longest "
               "rank %d %.1f %%\n",
               shares[ranks / 10], shares[ranks / 2], shares[ranks - 1 - ranks / 10], longest, most);
    }
    free(shares);
}

static void print_summary(const struct run_arguments *arguments, const struct sweep_summary *summary)
{
    const struct sweep_progress *p = &summary->progress;
    char time[COMMAND_TEXT_SIZE];
    command_duration(p->elapsed, time);
    if (p->trained > 0)
        printf("%lld runs trained in %s, %.1f a second\n", (long long)p->trained, time,
               p->elapsed > 0 ? (double)p->trained / p->elapsed : 0.0);
    if (p->resumed > 0)
        printf("  %lld runs were taken up from checkpoints\n", (long long)p->resumed);
    if (p->trained > 0 && summary->times != NULL) {
        struct sweep_times all = {0};
        for (int r = 0; r < p->ranks; ++r) {
            const struct sweep_times *times = &summary->times[r];
            all.all += times->all;
            all.steps += times->steps;
            all.inputs += times->inputs;
            all.diagnostics += times->diagnostics;
            all.writing += times->writing;
            all.waiting += times->waiting;
        }
        const double unit = all.all / 100;
        printf("  steps %.1f %%, inputs %.1f %%, diagnostics %.1f %%, writing %.1f %%, waiting %.1f %%, the "
               "rest %.1f %%\n",
               all.steps / unit, all.inputs / unit, all.diagnostics / unit, all.writing / unit,
               all.waiting / unit,
               (all.all - all.steps - all.inputs - all.diagnostics - all.writing - all.waiting) / unit);
        if (p->ranks > 1)
            print_waiting(summary->times, p->ranks);
    }
    for (int o = 0; o < OUTCOME_COUNT; ++o)
        if (p->outcomes[o] > 0)
            printf("  %-10s %8lld  %5.1f %%\n", outcome_name((enum outcome)o), (long long)p->outcomes[o],
                   100 * (double)p->outcomes[o] / (double)p->run_count);
    printf("%s\n", arguments->output);
}

/* Collective. Ranks with different kernels would make results depend on who trained what. */
static int agree_on_kernels(int rank, struct error *err)
{
    enum { FAMILY_SIZE = 64 };
    char ours[FAMILY_SIZE], first[FAMILY_SIZE], host[MPI_MAX_PROCESSOR_NAME];
    int length;
    snprintf(ours, sizeof ours, "%s, %s", linalg_kernel_family(), kernels_select(NULL)->name);
    memcpy(first, ours, sizeof first);
    MPI_Bcast(first, FAMILY_SIZE, MPI_CHAR, 0, MPI_COMM_WORLD);
    MPI_Get_processor_name(host, &length);
    int code =
        strcmp(ours, first) == 0
            ? 0
            : error_set(
                  err, ERROR_ARGUMENT,
                  "rank %d on host %s would train with other kernels (%s) than rank 0 (%s), and results "
                  "would depend on which rank trained a run: use nodes of one CPU type, or set "
                  "BLIS_ARCH_TYPE to what all have",
                  rank, host, ours, first);
    return comm_agree(MPI_COMM_WORLD, err, code);
}

/* Adds to the error what could be done about a result file that was removed. */
static void rescue(struct store *store, struct error *err)
{
    struct error why = {0};
    bool rescued;
    if (store_rescue(store, &rescued, &why) != 0)
        error_prefix(err, "%s; ", why.message);
    else if (rescued)
        error_prefix(err, "what had been written is there again, and the same command goes on: ");
}

/* Collective. Between the lock and its release. */
static int run_locked(const struct run_arguments *arguments, int argc, char **argv, int rank, int ranks,
                      const struct config *config, const struct grid *grid, struct sweep_summary *summary,
                      struct error *err)
{
    struct store *store = NULL;
    bool fresh = false;
    linalg_setup();
    TRY(agree_on_kernels(rank, err));
    TRY(open_store(arguments, argc, argv, rank, ranks, config, grid, &store, &fresh, err));
    struct terminal terminal;
    terminal_init(&terminal);
    const struct sweep_observer observer = {.begin = terminal_begin,
                                            .progress = terminal_progress,
                                            .failure = terminal_failure,
                                            .warning = terminal_warning,
                                            .interval = terminal_interval(&terminal),
                                            .context = &terminal};
    if (rank == 0 && linalg_is_generic())
        fprintf(stderr,
                "sgdmap: warning: BLIS has no fast kernels for this CPU (generic): training will be several "
                "times slower\n");
    struct checkpoints checkpoints = {0};
    char kernels[128];
    snprintf(kernels, sizeof kernels, "%s, %s", linalg_kernel_family(), kernels_select(NULL)->name);
    int code =
        comm_agree(MPI_COMM_WORLD, err,
                   checkpoints_init(arguments->output, command_source(), kernels, config, &checkpoints, err));
    if (code == 0 && fresh && rank == 0)
        checkpoints_clear(&checkpoints); /* of a file that is gone */
    if (code == 0)
        code = sweep_train(kernels_select(NULL), config, grid, store, fresh, &checkpoints, MPI_COMM_WORLD,
                           &stop_requested, &observer, summary, err);
    if (code == 0 && rank == 0)
        checkpoints_clear(&checkpoints);
    checkpoints_done(&checkpoints);
    if (code == ERROR_IO && rank == 0)
        rescue(store, err);
    struct error close_error = {0};
    int closed = store_close(store, &close_error);
    if (code != 0)
        return code;
    *err = close_error;
    return closed;
}

/* Says so if it has to wait. */
static int take_lock(const char *path, struct lock *ret, struct error *err)
{
    struct error busy = {0};
    int code = lock_take(path, 0.2, ret, &busy);
    if (code == ERROR_ARGUMENT) {
        fprintf(stderr, "sgdmap: %s; waiting %.0f s for it to end\n", busy.message, LOCK_WAIT);
        return lock_take(path, LOCK_WAIT, ret, err);
    }
    *err = busy;
    return code;
}

static int run(const struct run_arguments *arguments, int argc, char **argv, struct sweep_summary *summary,
               struct error *err)
{
    int rank, ranks;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    struct config config;
    struct grid grid;
    TRY(share_config(arguments, rank, &config, err));
    int code = comm_agree(MPI_COMM_WORLD, err, grid_expand(&config, &grid, err));
    if (code == 0) {
        grid_take_shard(&grid, arguments->shard, arguments->shard_count);
        struct lock lock = {.descriptor = -1};
        code = comm_agree(MPI_COMM_WORLD, err, rank == 0 ? take_lock(arguments->output, &lock, err) : 0);
        if (code == 0 && rank == 0 && !lock.exclusive)
            fprintf(stderr,
                    "sgdmap: warning: this file system has no locks; do not start a second job on %s\n",
                    arguments->output);
        if (code == 0)
            code = comm_agree(
                MPI_COMM_WORLD, err,
                stop_requested ? error_set(err, ERROR_INTERRUPTED, "interrupted before the first run") : 0);
        if (code == 0)
            code = run_locked(arguments, argc, argv, rank, ranks, &config, &grid, summary, err);
        lock_release(&lock);
        grid_done(&grid);
    }
    config_done(&config);
    return code;
}

int command_run(int argc, char **argv)
{
    struct run_arguments arguments = {0};
    struct sweep_summary summary = {0};
    struct error err = {0};
    int rank;

    /* Before MPI_Init, which may take a while: a signal is not to be lost. */
    const struct sigaction action = {.sa_handler = request_stop, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);

    int code = comm_agree(MPI_COMM_WORLD, &err, parse_arguments(argc, argv, &arguments, &err));
    if (code == 0 && !arguments.help)
        code = run(&arguments, argc, argv, &summary, &err);
    int status = error_exit_status((enum error_code)code);
    if (rank == 0) {
        if (arguments.help)
            usage();
        else if (summary.progress.run_count > 0)
            print_summary(&arguments, &summary);
        fflush(stdout);
        if (code != 0)
            command_fail(&err);
    }
    free(summary.times);
    int failed = summary.progress.outcomes[OUTCOME_FAILED] > 0;
    MPI_Bcast(&failed, 1, MPI_INT, 0, MPI_COMM_WORLD);
    if (status == 0 && failed)
        status = 1;
    free(arguments.overrides);
    /* MPI_Finalize ends HDF5, which does not survive that after a close that failed. */
    int left_open = store_left_open();
    MPI_Allreduce(MPI_IN_PLACE, &left_open, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    if (left_open && rank == 0)
        MPI_Abort(MPI_COMM_WORLD, status);
    if (left_open)
        MPI_Barrier(MPI_COMM_WORLD); /* until rank 0 ends us */
    MPI_Finalize();
    return status;
}
