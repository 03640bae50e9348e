/* Tests of the result file, and a small program for test_file.py:
 *     test_store              the tests, on any number of ranks
 *     test_store make FILE    a finished sweep of 24 runs, the last 4 pending
 *     test_store write FILE   writes rows until it is killed; each rank prints its process id once it has
 * begun test_store read FILE    without MPI: prints the number of runs that are done, and of mismatches */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "ranks.h"
#include "sgdmap/store.h"

static const char config_text[] = "title: a small sweep with an umlaut ü\n"
                                  "seed: 7\n"
                                  "grid:\n"
                                  "  dimension: [2, 3]\n"
                                  "  step_size: [0.01, 0.1]\n"
                                  "  init_scale: [0, 0.5, 1]\n"
                                  "  teacher_norm: 0.5\n"
                                  "  link: [identity, none]\n"
                                  "  batch_size: 16\n"
                                  "  replicates: 1\n"
                                  "training: {steps: 1000, tolerance: 1.0e-3}\n"
                                  "records: {count: 9}\n"
                                  "output: {fields: [loss, error, potential_norm], weights: final}\n";

static const struct provenance provenance = {
    .source = "sgdmap test",
    .history = "2026-01-01T00:00:00Z sgdmap run",
    .date_created = "2026-01-01T00:00:00Z",
    .blis_version = "0.9.0",
    .blis_kernels = "",
    .host = "n1",
    .slurm_job_id = "",
    .ranks = 2,
};

/* -- A sweep with known values --------------------------------------------------------------------- */

struct sweep {
    struct config config;
    struct grid grid;
};

static void sweep_init_with(const char *text, const char *overrides, struct sweep *ret)
{
    struct error err = {0};
    if (config_parse("test", text, strlen(text), overrides, &ret->config, &err) != ERROR_NONE ||
        grid_expand(&ret->config, &ret->grid, &err) != ERROR_NONE) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
}

static void sweep_init(const char *text, struct sweep *ret)
{
    sweep_init_with(text, NULL, ret);
}

static void sweep_done(struct sweep *sweep)
{
    grid_done(&sweep->grid);
    config_done(&sweep->config);
}

/* Every value of the file is another one, so that a row in the wrong place is seen. */
static double field_value(int field, int64_t run, int64_t record)
{
    return (double)run + (double)record / 64 + field * 1000.0;
}

static double weight_value(int which, int64_t run, int64_t at)
{
    return -(double)run - (double)at / 1024 - which * 1000.0;
}

static struct run_result result_value(int64_t run)
{
    return (struct run_result){.outcome = (enum outcome)(OUTCOME_CONVERGED + run % 5),
                               .failure = (enum failure)(run % FAILURE_COUNT),
                               .steps_done = 100 + run,
                               .converged_step = run % 3 == 0 ? -1 : run,
                               .phase2_step = 2 * run,
                               .final_error = run % 4 == 0 ? (double)NAN : 0.5 * (double)run,
                               .final_loss = 0.25 * (double)run,
                               .wall_time = 1e-3 * (double)run};
}

static bool same_result(const struct run_result *a, const struct run_result *b)
{
    return a->outcome == b->outcome && a->failure == b->failure && a->steps_done == b->steps_done &&
           a->converged_step == b->converged_step && a->phase2_step == b->phase2_step &&
           memcmp(&a->final_error, &b->final_error, sizeof(double)) == 0 && a->final_loss == b->final_loss &&
           memcmp(&a->wall_time, &b->wall_time, sizeof(double)) == 0;
}

/* Writes the runs first … first + count - 1, which have one dimension. */
static int write_runs(struct store *store, const struct sweep *sweep, int64_t first, int64_t count, int rank,
                      struct error *err)
{
    struct setting setting;
    grid_setting(&sweep->grid, first, &setting);
    const int64_t records = sweep->config.record_count, dd = setting.dimension * setting.dimension;
    struct run_result *results = calloc((size_t)count, sizeof *results);
    double *values[RECORD_FIELD_COUNT + 2];
    struct store_rows rows = {.first_run = first, .run_count = count, .results = results};
    for (int64_t run = 0; run < count; run++)
        results[run] = result_value(first + run);
    for (int field = 0; field < RECORD_FIELD_COUNT; field++) {
        rows.fields[field] = values[field] = calloc((size_t)(count * records), sizeof(double));
        for (int64_t at = 0; at < count * records; at++)
            values[field][at] = field_value(field, first + at / records, at % records);
    }
    for (int which = 0; which < 2; which++) {
        double *weights = values[RECORD_FIELD_COUNT + which] = calloc((size_t)(count * dd), sizeof(double));
        for (int64_t at = 0; at < count * dd; at++)
            weights[at] = weight_value(which, first + at / dd, at % dd);
    }
    rows.student = values[RECORD_FIELD_COUNT];
    rows.teacher = values[RECORD_FIELD_COUNT + 1];
    int code = store_write(store, &rows, rank, err);
    for (int at = 0; at < RECORD_FIELD_COUNT + 2; at++)
        free(values[at]);
    free(results);
    return code;
}

/* This rank's share of the groups. */
static int write_share(struct store *store, const struct sweep *sweep, int rank, int size, struct error *err)
{
    for (int64_t index = rank; index < sweep->grid.group_count; index += size) {
        struct group group;
        grid_group(&sweep->grid, index, &group);
        TRY(store_mark_running(store, group.first_run, group.run_count, err));
        TRY(write_runs(store, sweep, group.first_run, group.run_count, 0, err));
    }
    return ERROR_NONE;
}

/* -- The place ------------------------------------------------------------------------------------- */

static struct ranks world;
static char folder[64], path[80], temporary[96];

static void make_folder(void)
{
    strcpy(folder, "/tmp/test_store.XXXXXX");
    if (world.rank == 0 && mkdtemp(folder) == NULL)
        MPI_Abort(MPI_COMM_WORLD, 1);
    MPI_Bcast(folder, sizeof folder, MPI_CHAR, 0, MPI_COMM_WORLD);
    snprintf(path, sizeof path, "%s/a.h5", folder);
    snprintf(temporary, sizeof temporary, "%s/.a.h5.creating", folder);
}

/* What is in a folder. */
static int entries(const char *name)
{
    DIR *stream = opendir(name);
    int count = 0;
    for (struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream))
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(stream);
    return count;
}

static void remove_file(void)
{
    MPI_Barrier(MPI_COMM_WORLD);
    if (world.rank == 0)
        unlink(path);
    MPI_Barrier(MPI_COMM_WORLD);
}

/* The whole file; `size` of it. */
static unsigned char *slurp(const char *name, size_t *size)
{
    FILE *stream = fopen(name, "rb");
    if (stream == NULL)
        return NULL;
    fseek(stream, 0, SEEK_END);
    *size = (size_t)ftell(stream);
    rewind(stream);
    unsigned char *bytes = malloc(*size + 1);
    if (bytes != NULL && fread(bytes, 1, *size, stream) != *size) {
        free(bytes);
        bytes = NULL;
    }
    fclose(stream);
    return bytes;
}

static void spill(const char *name, const void *bytes, size_t size)
{
    FILE *stream = fopen(name, "wb");
    if (stream == NULL || fwrite(bytes, 1, size, stream) != size)
        abort();
    fclose(stream);
}

/* Collective. A finished sweep at `path`. */
static void make_finished(struct ranks *ranks, struct sweep *sweep)
{
    struct error err = {0};
    struct store *store = NULL;
    int code = store_create(path, true, &sweep->config, &sweep->grid, &provenance, NULL, MPI_COMM_WORLD,
                            &store, &err);
    CHECK_CALL(ranks, code, err);
    if (code != ERROR_NONE)
        return;
    CHECK_CALL(ranks, write_share(store, sweep, ranks->rank, ranks->size, &err), err);
    CHECK_CALL(ranks, store_close(store, &err), err);
}

struct reader {
    struct config config;
    struct grid grid;
    struct store *store;
};

static int reader_open(const char *name, struct reader *ret, struct error *err)
{
    return store_open_read(name, &ret->config, &ret->grid, &ret->store, err);
}

static int reader_close(struct reader *reader, struct error *err)
{
    int code = store_close(reader->store, err);
    grid_done(&reader->grid);
    config_done(&reader->config);
    return code;
}

/* -- Tests ----------------------------------------------------------------------------------------- */

static void what_is_written_is_read(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    make_finished(ranks, &sweep);

    struct reader reader;
    struct error err = {0};
    int code = reader_open(path, &reader, &err);
    CHECK_CALL(ranks, code, err);
    if (code == ERROR_NONE) {
        const int64_t runs = reader.grid.run_count, records = reader.config.record_count;
        CHECK(ranks, runs == 24 && records == 9 && reader.config.seed == 7);
        CHECK(ranks, strcmp(reader.config.text, config_text) == 0);

        struct run_result results[24];
        uint8_t done[24];
        double rows[24 * 9], student[9], teacher[9];
        CHECK_CALL(ranks, store_read_results(reader.store, 0, runs, results, &err), err);
        CHECK_CALL(ranks, store_check(reader.store, 0, runs, done, &err), err);
        for (int64_t run = 0; run < runs; run++) {
            struct run_result expected = result_value(run);
            CHECK(ranks, same_result(&results[run], &expected));
            CHECK(ranks, done[run] == STORE_DONE);
            struct setting setting;
            grid_setting(&reader.grid, run, &setting);
            CHECK_CALL(ranks, store_read_weights(reader.store, run, student, teacher, &err), err);
            for (int64_t at = 0; at < setting.dimension * setting.dimension; at++)
                CHECK(ranks,
                      student[at] == weight_value(0, run, at) && teacher[at] == weight_value(1, run, at));
        }
        const int written[] = {RECORD_LOSS, RECORD_ERROR, RECORD_POTENTIAL_NORM};
        for (int field = 0; field < 3; field++) {
            CHECK_CALL(ranks,
                       store_read_field(reader.store, (enum record_field)written[field], 0, runs, rows, &err),
                       err);
            for (int64_t at = 0; at < runs * records; at++)
                CHECK(ranks, rows[at] == field_value(written[field], at / records, at % records));
        }
        CHECK(ranks, store_read_field(reader.store, RECORD_ALIGNMENT, 0, 1, rows, &err) == ERROR_ARGUMENT);
        char *title = store_attribute(reader.store, "title"),
             *kernels = store_attribute(reader.store, "blis_kernels");
        CHECK(ranks, title != NULL && strcmp(title, "a small sweep with an umlaut ü") == 0);
        CHECK(ranks, kernels != NULL && kernels[0] == '\0');
        CHECK(ranks, store_attribute(reader.store, "nothing") == NULL);
        CHECK(ranks, store_attribute(reader.store, "ranks") == NULL); /* not a text */
        free(title);
        free(kernels);
        CHECK_CALL(ranks, reader_close(&reader, &err), err);
    }
    struct stat at;
    CHECK(ranks, stat(path, &at) == 0);
    int64_t predicted = store_file_size(&sweep.config, &sweep.grid);
    CHECK(ranks, at.st_size <= predicted && predicted - at.st_size < 512 * 1024);
    CHECK(ranks, access(temporary, F_OK) != 0);
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

/* Whoever writes and whenever, the bytes are the same. */
static void the_same_bytes_by_one_rank(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    make_finished(ranks, &sweep);
    if (ranks->rank == 0) {
        sleep(1); /* no time stamp stands in the file, or it would be another one now */
        char alone[96];
        snprintf(alone, sizeof alone, "%s/alone.h5", folder);
        struct store *store = NULL;
        struct error err = {0};
        CHECK_CALL(ranks,
                   store_create(alone, false, &sweep.config, &sweep.grid, &provenance, NULL, MPI_COMM_SELF,
                                &store, &err),
                   err);
        if (store != NULL) {
            CHECK_CALL(ranks, write_share(store, &sweep, 0, 1, &err), err);
            CHECK_CALL(ranks, store_close(store, &err), err);
        }
        size_t size = 0, alone_size = 1;
        unsigned char *bytes = slurp(path, &size), *alone_bytes = slurp(alone, &alone_size);
        CHECK(ranks, bytes != NULL && alone_bytes != NULL && size == alone_size);
        CHECK(ranks, size != alone_size || memcmp(bytes, alone_bytes, size) == 0);
        free(bytes);
        free(alone_bytes);
        unlink(alone);
    }
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

/* Of a dataset in the file. */
static haddr_t offset_of(const char *name)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), dataset = H5Dopen2(file, name, H5P_DEFAULT);
    haddr_t offset = H5Dget_offset(dataset);
    H5Dclose(dataset);
    H5Fclose(file);
    return offset;
}

/* Where the config says so, datasets begin at multiples of the file system's stripe: the large ones, and nothing else changes. */
static void aligned_datasets(void **state)
{
    struct ranks *ranks = *state;
    enum { ALIGNMENT = 262144, RUNS = 2400 };
    static const char *const large[] = {"loss", "error", "potential_norm", "weights_d3/student",
                                        "weights_d3/teacher"};
    static const char *const small[] = {"run", "step", "checksum", "status", "weights_d2/student"};
    /* Above 2400 rows of 9 values, and weights of d = 3; above nothing; off. */
    static const char overrides[][64] = {"file.alignment=262144\nfile.threshold=65536",
                                         "file.alignment=262144\nfile.threshold=1000000000",
                                         "file.alignment=1\nfile.threshold=65536"};
    for (int turn = 0; turn < 3; turn++) {
        char more[160];
        struct sweep sweep;
        snprintf(more, sizeof more, "%s\ngrid.step_size={linear: [0.01, 0.1], count: 200}", overrides[turn]);
        sweep_init_with(config_text, more, &sweep);
        make_finished(ranks, &sweep);
        int aligned_large = 0, aligned_small = 0;
        for (int at = 0; at < 5; at++) {
            aligned_large += offset_of(large[at]) % ALIGNMENT == 0;
            aligned_small += offset_of(small[at]) % ALIGNMENT == 0;
        }
        CHECK(ranks, turn == 0 ? aligned_large == 5 : aligned_large < 2);
        CHECK(ranks, aligned_small < 2);
        struct stat at;
        CHECK(ranks, stat(path, &at) == 0 && at.st_size <= store_file_size(&sweep.config, &sweep.grid));
        struct reader reader;
        struct error err = {0};
        uint8_t done[RUNS];
        int code = reader_open(path, &reader, &err);
        CHECK_CALL(ranks, code, err);
        if (code == ERROR_NONE) {
            CHECK_CALL(ranks, store_check(reader.store, 0, RUNS, done, &err), err);
            for (int run = 0; run < RUNS; run++)
                CHECK(ranks, done[run] == STORE_DONE);
            CHECK_CALL(ranks, store_check_frame(reader.store, &err), err);
            CHECK_CALL(ranks, reader_close(&reader, &err), err);
        }
        sweep_done(&sweep);
        ranks_settle(ranks);
        remove_file();
    }
}

/* MPI-IO is told what the config says, whether it knows the names or not. */
static void hints_reach_mpi_io(void **state)
{
    struct ranks *ranks = *state;
    char text[sizeof config_text + 96];
    snprintf(text, sizeof text, "%sfile: {hints: [striping_factor=16, sgdmap_nothing=a=b]}\n", config_text);
    struct sweep sweep;
    sweep_init(text, &sweep);
    struct store *store = NULL;
    struct error err = {0};
    int code =
        store_create(path, true, &sweep.config, &sweep.grid, &provenance, NULL, MPI_COMM_WORLD, &store, &err);
    CHECK_CALL(ranks, code, err);
    if (code == ERROR_NONE) {
        hid_t file = H5I_INVALID_HID;
        CHECK(ranks, H5Fget_obj_ids((hid_t)H5F_OBJ_ALL, H5F_OBJ_FILE, 1, &file) == 1);
        hid_t list = H5Fget_access_plist(file);
        MPI_Comm comm = MPI_COMM_NULL;
        MPI_Info info = MPI_INFO_NULL;
        CHECK(ranks, H5Pget_fapl_mpio(list, &comm, &info) >= 0 && info != MPI_INFO_NULL);
        const char *const expected[][2] = {{"striping_factor", "16"}, {"sgdmap_nothing", "a=b"}};
        for (int at = 0; at < 2 && info != MPI_INFO_NULL; at++) {
            char value[MPI_MAX_INFO_VAL + 1] = "";
            int found = 0;
            MPI_Info_get(info, expected[at][0], MPI_MAX_INFO_VAL, value, &found);
            CHECK(ranks, found && strcmp(value, expected[at][1]) == 0);
        }
        if (info != MPI_INFO_NULL)
            MPI_Info_free(&info);
        if (comm != MPI_COMM_NULL)
            MPI_Comm_free(&comm);
        H5Pclose(list);
        CHECK_CALL(ranks, write_share(store, &sweep, ranks->rank, ranks->size, &err), err);
        CHECK_CALL(ranks, store_close(store, &err), err);
    }
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

/* A job is at work, and others look: nothing done, some running, some done. */
static void readers_beside_the_writer(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    struct store *store = NULL;
    struct error err = {0};
    int code = store_create(path, false, &sweep.config, &sweep.grid, &provenance, NULL, MPI_COMM_WORLD,
                            &store, &err);
    CHECK_CALL(ranks, code, err);
    if (code == ERROR_NONE) {
        uint8_t done[24];
        struct run_result results[24];
        struct reader reader;
        CHECK_CALL(ranks, store_check(store, 0, 24, done, &err), err);
        for (int run = 0; run < 24; run++)
            CHECK(ranks, done[run] == STORE_NOT_DONE);
        MPI_Barrier(MPI_COMM_WORLD);
        if (ranks->rank == ranks->size - 1) {
            CHECK_CALL(ranks, write_runs(store, &sweep, 0, 5, 3, &err), err);
            CHECK_CALL(ranks, store_mark_running(store, 0, 8, &err), err);
        }
        MPI_Barrier(MPI_COMM_WORLD);
        CHECK_CALL(ranks, reader_open(path, &reader, &err), err);
        CHECK_CALL(ranks, store_check(reader.store, 2, 22, done + 2, &err), err);
        CHECK_CALL(ranks, store_read_results(reader.store, 0, 24, results, &err), err);
        for (int run = 2; run < 24; run++)
            CHECK(ranks, done[run] == (run < 5 ? STORE_DONE : STORE_NOT_DONE));
        for (int run = 0; run < 24; run++) {
            struct run_result expected = result_value(run);
            if (run < 5) {
                CHECK(ranks, same_result(&results[run], &expected)); /* and not marked as running */
                continue;
            }
            CHECK(ranks, results[run].outcome == (run < 8 ? OUTCOME_RUNNING : OUTCOME_PENDING));
            CHECK(ranks, results[run].steps_done == -1 && results[run].converged_step == -1);
            CHECK(ranks, isnan(results[run].final_loss) && isnan(results[run].wall_time));
        }
        /* Who has it open sees what comes: no value is older than another that was read before. */
        MPI_Barrier(MPI_COMM_WORLD);
        if (ranks->rank == ranks->size - 1)
            CHECK_CALL(ranks, write_runs(store, &sweep, 5, 7, 3, &err), err);
        MPI_Barrier(MPI_COMM_WORLD);
        CHECK_CALL(ranks, store_check(reader.store, 0, 24, done, &err), err);
        for (int run = 0; run < 24; run++)
            CHECK(ranks, done[run] == (run < 12 ? STORE_DONE : STORE_NOT_DONE));
        CHECK_CALL(ranks, reader_close(&reader, &err), err);
        CHECK_CALL(ranks, store_close(store, &err), err);
    }
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

/* A run that could not be computed has no rows. */
static void a_failed_run_without_rows(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    make_finished(ranks, &sweep);
    struct store *store = NULL;
    struct error err = {0};
    int code = store_open(path, &sweep.config, &sweep.grid, &provenance, MPI_COMM_WORLD, &store, &err);
    CHECK_CALL(ranks, code, err);
    if (code == ERROR_NONE) {
        if (ranks->rank == 0) {
            struct run_result results[2] = {result_value(1), result_value(2)};
            results[0].outcome = results[1].outcome = OUTCOME_FAILED;
            results[0].failure = results[1].failure = FAILURE_OUT_OF_MEMORY;
            struct store_rows rows = {.first_run = 13, .run_count = 2, .results = results};
            CHECK_CALL(ranks, store_write(store, &rows, 0, &err), err);
            uint8_t done[4];
            double loss[4 * 9], student[9], teacher[9];
            CHECK_CALL(ranks, store_check(store, 12, 4, done, &err), err);
            for (int at = 0; at < 4; at++)
                CHECK(ranks, done[at] == STORE_DONE);
            CHECK_CALL(ranks, store_read_field(store, RECORD_LOSS, 12, 4, loss, &err), err);
            for (int at = 0; at < 4 * 9; at++)
                CHECK(ranks, isnan(loss[at]) == (at / 9 == 1 || at / 9 == 2));
            CHECK_CALL(ranks, store_read_weights(store, 14, student, teacher, &err), err);
            CHECK(ranks, isnan(student[0]) && isnan(teacher[8]));
        }
        CHECK_CALL(ranks, store_close(store, &err), err);
    }
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

/* Finds a value of 8 bytes that stands once in the file and changes its lowest bit. */
static bool damage(unsigned char *bytes, size_t size, const void *value)
{
    unsigned char *at = memmem(bytes, size, value, 8);
    if (at == NULL || memmem(at + 8, size - (size_t)(at + 8 - bytes), value, 8) != NULL)
        return false;
    at[0] ^= 1;
    return true;
}

/* One bit of any row, weight, result or setting: this run is a mismatch and no other. */
static void checksums_see_a_bit(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    make_finished(ranks, &sweep);
    MPI_Barrier(MPI_COMM_WORLD);
    if (ranks->rank == 0) {
        const struct {
            double value;
            int64_t run;
        } spots[] = {
            {field_value(RECORD_LOSS, 7, 8), 7},
            {field_value(RECORD_ERROR, 0, 1), 0},
            {field_value(RECORD_POTENTIAL_NORM, 23, 4), 23},
            {weight_value(0, 11, 3), 11},
            {weight_value(1, 12, 8), 12},
        };
        for (size_t spot = 0; spot < sizeof spots / sizeof *spots; spot++) {
            size_t size;
            unsigned char *bytes = slurp(path, &size), *original = slurp(path, &size);
            CHECK(ranks, damage(bytes, size, &spots[spot].value));
            spill(path, bytes, size);
            struct reader reader;
            struct error err = {0};
            uint8_t done[24];
            CHECK_CALL(ranks, reader_open(path, &reader, &err), err);
            CHECK_CALL(ranks, store_check(reader.store, 0, 24, done, &err), err);
            for (int run = 0; run < 24; run++)
                CHECK(ranks, done[run] == (run == spots[spot].run ? STORE_MISMATCH : STORE_DONE));
            CHECK_CALL(ranks, reader_close(&reader, &err), err);
            spill(path, original, size);
            free(bytes);
            free(original);
        }
    }
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

/* Where each dataset's raw data is, by what it is named in the file. */
struct raw {
    const char *name;
    int64_t offset, row_bytes;
    int64_t first_run, rows;
    bool of_runs; /* a damaged row is a damaged run; else the frame's */
};

static void find_raw(const char *name, int64_t first_run, bool of_runs, struct raw *ret)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(dataset);
    hsize_t size[3];
    H5Sget_simple_extent_dims(space, size, NULL);
    *ret = (struct raw){.name = name,
                        .offset = (int64_t)H5Dget_offset(dataset),
                        .row_bytes = (int64_t)(H5Dget_storage_size(dataset) / size[0]),
                        .first_run = first_run,
                        .rows = (int64_t)size[0],
                        .of_runs = of_runs};
    H5Sclose(space);
    H5Dclose(dataset);
    H5Fclose(file);
}

/* What `sgdmap verify` looks at. */
static int check_all(uint8_t done[24], int *frame, struct error *err)
{
    struct reader reader;
    TRY(reader_open(path, &reader, err));
    int code = store_check(reader.store, 0, 24, done, err);
    *frame = store_check_frame(reader.store, err);
    int closed = reader_close(&reader, err);
    return code != ERROR_NONE ? code : closed;
}

/* Bytes of every value, each changed alone: its run is damaged and no other; of a scale, the frame. */
static void every_value_is_covered(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    make_finished(ranks, &sweep);
    static const char *const of_runs[] = {"run",
                                          "dimension",
                                          "batch_size",
                                          "input",
                                          "replicate",
                                          "teacher_norm",
                                          "link",
                                          "step_size",
                                          "init_scale",
                                          "loss",
                                          "error",
                                          "potential_norm",
                                          "steps_done",
                                          "message",
                                          "converged_step",
                                          "phase2_step",
                                          "final_error",
                                          "final_loss",
                                          "status",
                                          "checksum",
                                          "weights_d2/student",
                                          "weights_d2/teacher",
                                          "weights_d3/student",
                                          "weights_d3/teacher"};
    static const char *const scales[] = {
        "step",           "weights_d2/run",       "weights_d2/component", "weights_d2/neuron",
        "weights_d3/run", "weights_d3/component", "weights_d3/neuron"};
    enum { RUNS_COUNT = sizeof of_runs / sizeof *of_runs, SCALES_COUNT = sizeof scales / sizeof *scales };
    if (ranks->rank == 0) {
        struct raw raws[RUNS_COUNT + SCALES_COUNT];
        for (int at = 0; at < RUNS_COUNT; at++)
            find_raw(of_runs[at], strncmp(of_runs[at], "weights_d3", 10) == 0 ? 12 : 0, true, &raws[at]);
        for (int at = 0; at < SCALES_COUNT; at++)
            find_raw(scales[at], 0, false, &raws[RUNS_COUNT + at]);
        int descriptor = open(path, O_RDWR);
        uint32_t seed = 1;
        int64_t flips = 0;
        /* All of them where somebody asks for it: each takes a child process, which is slow on some machines. */
#ifdef __SANITIZE_ADDRESS__
        const int64_t stride = 401;
#else
        const bool all = getenv("SGDMAP_ALL_FAULTS") != NULL;
        const int64_t stride = ranks->size > 1 ? 401 : all ? 1 : 41;
#endif
        for (int at = 0; at < RUNS_COUNT + SCALES_COUNT; at++) {
            const struct raw *raw = &raws[at];
            for (int64_t byte = (at * 7) % stride; byte < raw->rows * raw->row_bytes;
                 byte += stride, flips++) {
                unsigned char old, flipped;
                seed = seed * 1664525 + 1013904223;
                CHECK(ranks, pread(descriptor, &old, 1, raw->offset + byte) == 1);
                flipped = (unsigned char)(old ^ (1 + (seed >> 16) % 255));
                CHECK(ranks, pwrite(descriptor, &flipped, 1, raw->offset + byte) == 1);
                uint8_t done[24] = {0};
                int frame = 0;
                struct error err = {0};
                CHECK_CALL(ranks, check_all(done, &frame, &err), err);
                CHECK(ranks, pwrite(descriptor, &old, 1, raw->offset + byte) == 1);
                const int64_t damaged = raw->of_runs ? raw->first_run + byte / raw->row_bytes : -1;
                bool right = frame == (raw->of_runs ? ERROR_NONE : ERROR_IO);
                for (int64_t run = 0; run < 24; run++)
                    right = right && done[run] == (run == damaged ? STORE_MISMATCH : STORE_DONE);
                if (!right)
                    fprintf(stderr, "%s, byte %lld: %d to %d\n", raw->name, (long long)byte, old, flipped);
                CHECK(ranks, right);
            }
        }
        CHECK(ranks, flips * stride > 9000);
        close(descriptor);
    }
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

/* Runs that are not done: their settings count all the same, and a status or checksum that no kill leaves behind. */
static void damage_in_runs_that_are_not_done(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    struct store *store = NULL;
    struct error err = {0};
    CHECK_CALL(ranks,
               store_create(path, false, &sweep.config, &sweep.grid, &provenance, NULL, MPI_COMM_WORLD,
                            &store, &err),
               err);
    CHECK_CALL(ranks, store_close(store, &err), err);
    MPI_Barrier(MPI_COMM_WORLD);
    if (ranks->rank == 0) {
        struct raw settings, statuses, checksums;
        find_raw("step_size", 0, true, &settings);
        find_raw("status", 0, true, &statuses);
        find_raw("checksum", 0, true, &checksums);
        const struct {
            int64_t offset;
            unsigned char value;
            uint8_t state;
        } spots[] = {
            {settings.offset + 5 * 8, 77, STORE_MISMATCH},
            {checksums.offset + 5 * 8 + 3, 1, STORE_MISMATCH},
            {statuses.offset + 5, OUTCOME_RUNNING, STORE_NOT_DONE},
            {statuses.offset + 5, OUTCOME_CONVERGED, STORE_MISMATCH}, /* without results */
            {statuses.offset + 5, OUTCOME_COUNT, STORE_MISMATCH},
            {statuses.offset + 5, 255, STORE_MISMATCH},
        };
        int descriptor = open(path, O_RDWR);
        for (size_t spot = 0; spot < sizeof spots / sizeof *spots; spot++) {
            unsigned char old;
            uint8_t done[24] = {0};
            int frame = 0;
            CHECK(ranks, pread(descriptor, &old, 1, spots[spot].offset) == 1);
            CHECK(ranks, pwrite(descriptor, &spots[spot].value, 1, spots[spot].offset) == 1);
            CHECK_CALL(ranks, check_all(done, &frame, &err), err);
            CHECK(ranks, pwrite(descriptor, &old, 1, spots[spot].offset) == 1);
            CHECK(ranks, frame == ERROR_NONE);
            for (int run = 0; run < 24; run++)
                CHECK(ranks, done[run] == (run == 5 ? spots[spot].state : STORE_NOT_DONE));
        }
        close(descriptor);
    }
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

/* How many writes go through before all fail, which leaves the file as a kill at that instant does; -1: all do. */
static int writes_left = -1;

static bool write_fails(void)
{
    if (writes_left < 0)
        return false;
    if (writes_left == 0) {
        errno = ENOSPC;
        return true;
    }
    writes_left--;
    return false;
}

/* In the place of libc's, for MPI-IO, under both names that offsets of 64 bits have. */
ssize_t hooked_pwrite(int descriptor, const void *buffer, size_t size, off_t offset) __asm__("pwrite");
ssize_t hooked_pwrite64(int descriptor, const void *buffer, size_t size, off_t offset) __asm__("pwrite64");
ssize_t hooked_pwritev(int descriptor, const struct iovec *pieces, int count,
                       off_t offset) __asm__("pwritev");
ssize_t hooked_pwritev64(int descriptor, const struct iovec *pieces, int count,
                         off_t offset) __asm__("pwritev64");

ssize_t hooked_pwrite(int descriptor, const void *buffer, size_t size, off_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off_t);
    *(void **)&real = dlsym(RTLD_NEXT, "pwrite");
    return write_fails() ? -1 : real(descriptor, buffer, size, offset);
}

ssize_t hooked_pwrite64(int descriptor, const void *buffer, size_t size, off_t offset)
{
    return hooked_pwrite(descriptor, buffer, size, offset);
}

ssize_t hooked_pwritev(int descriptor, const struct iovec *pieces, int count, off_t offset)
{
    ssize_t (*real)(int, const struct iovec *, int, off_t);
    *(void **)&real = dlsym(RTLD_NEXT, "pwritev");
    return write_fails() ? -1 : real(descriptor, pieces, count, offset);
}

ssize_t hooked_pwritev64(int descriptor, const struct iovec *pieces, int count, off_t offset)
{
    return hooked_pwritev(descriptor, pieces, count, offset);
}

/* Runs are trained again, damaged or not, and the job is killed between any two writes: they are not done, or damaged as
 * before, and never done with old rows or partly new ones. */
static void killed_while_training_again(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    make_finished(ranks, &sweep);
    MPI_Barrier(MPI_COMM_WORLD);
    if (ranks->rank == 0) {
        struct raw loss;
        find_raw("loss", 0, true, &loss);
        double values[2 * 9];
        for (int at = 0; at < 2 * 9; at++)
            values[at] = 0.125 * at;
        const struct run_result results[2] = {
            {.outcome = OUTCOME_UNFINISHED, .steps_done = 900, .final_error = 0.75},
            {.outcome = OUTCOME_CONVERGED, .steps_done = 901, .final_error = 0.875}};
        struct store_rows rows = {
            .first_run = 5, .run_count = 2, .results = results, .student = values, .teacher = values};
        rows.fields[RECORD_LOSS] = rows.fields[RECORD_ERROR] = rows.fields[RECORD_POTENTIAL_NORM] = values;
        size_t size;
        unsigned char *bytes = slurp(path, &size);
        int failures = 0;
        for (bool written = false; !written && failures < 100; failures += !written) {
            spill(path, bytes, size);
            int descriptor = open(path, O_RDWR);
            CHECK(ranks, pwrite(descriptor, "damaged", 7, loss.offset + 6 * loss.row_bytes) == 7);
            close(descriptor);
            struct store *store = NULL;
            struct error err = {0};
            CHECK_CALL(ranks,
                       store_open(path, &sweep.config, &sweep.grid, &provenance, MPI_COMM_SELF, &store, &err),
                       err);
            writes_left = failures;
            written = store_write(store, &rows, 0, &err) == ERROR_NONE;
            writes_left = -1;
            CHECK_CALL(ranks, store_close(store, &err), err);
            uint8_t done[24];
            int frame;
            struct run_result found[2];
            struct reader reader;
            CHECK_CALL(ranks, check_all(done, &frame, &err), err);
            CHECK_CALL(ranks, reader_open(path, &reader, &err), err);
            CHECK_CALL(ranks, store_read_results(reader.store, 5, 2, found, &err), err);
            CHECK_CALL(ranks, reader_close(&reader, &err), err);
            for (int run = 0; run < 24; run++) {
                const bool again = run == 5 || run == 6;
                const uint8_t expected = !again || written ? STORE_DONE
                                         : failures > 0    ? STORE_NOT_DONE
                                         : run == 6        ? STORE_MISMATCH
                                                           : STORE_DONE;
                CHECK(ranks, done[run] == expected);
                CHECK(ranks, !again || written || failures == 0 || found[run - 5].outcome == OUTCOME_RUNNING);
            }
        }
        CHECK(ranks, failures > 10 && failures < 100);
        free(bytes);
    }
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

static void going_on_adds_to_history(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    make_finished(ranks, &sweep);
    size_t size = 0, later_size = 0;
    unsigned char *before = slurp(path, &size);
    MPI_Barrier(MPI_COMM_WORLD);

    struct store *store = NULL;
    struct error err = {0};
    struct provenance again = provenance;
    again.history = "2026-01-02T00:00:00Z sgdmap run";
    CHECK_CALL(ranks, store_open(path, &sweep.config, &sweep.grid, &again, MPI_COMM_WORLD, &store, &err),
               err);
    CHECK_CALL(ranks, store_close(store, &err), err);
    struct reader reader;
    CHECK_CALL(ranks, reader_open(path, &reader, &err), err);
    char *history = store_attribute(reader.store, "history");
    CHECK(ranks,
          history != NULL &&
              strcmp(history, "2026-01-01T00:00:00Z sgdmap run\n2026-01-02T00:00:00Z sgdmap run") == 0);
    free(history);
    CHECK_CALL(ranks, reader_close(&reader, &err), err);

    /* Nothing but this line has changed: no metadata that a kill could leave half written. */
    unsigned char *after = slurp(path, &later_size);
    CHECK(ranks, size == later_size);
    size_t first = size, last = 0;
    for (size_t at = 0; at < size && at < later_size; at++) {
        if (before[at] != after[at]) {
            first = at < first ? at : first;
            last = at;
        }
    }
    CHECK(ranks, first < last && last - first < 40);
    free(before);
    free(after);
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

/* A sweep that was continued so often that its history is full forgets the middle. */
static void a_full_history(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    make_finished(ranks, &sweep);
    MPI_Barrier(MPI_COMM_WORLD);
    if (ranks->rank == 0) {
        char line[1000];
        memset(line, 'x', sizeof line);
        struct provenance again = provenance;
        again.history = line;
        struct error err = {0};
        for (int turn = 0; turn < 40; turn++) {
            struct store *store = NULL;
            snprintf(line + sizeof line - 10, 10, "turn %d", turn);
            CHECK_CALL(ranks,
                       store_open(path, &sweep.config, &sweep.grid, &again, MPI_COMM_SELF, &store, &err),
                       err);
            CHECK_CALL(ranks, store_close(store, &err), err);
        }
        struct reader reader;
        CHECK_CALL(ranks, reader_open(path, &reader, &err), err);
        char *history = store_attribute(reader.store, "history");
        CHECK(ranks, history != NULL && strncmp(history, "2026-01-01T00:00:00Z sgdmap run\nxxx", 35) == 0);
        CHECK(ranks,
              history != NULL && strstr(history, "turn 39") != NULL && strstr(history, "turn 38\n") != NULL);
        CHECK(ranks, history != NULL && strstr(history, "turn 3\n") == NULL);
        free(history);
        CHECK_CALL(ranks, reader_close(&reader, &err), err);
    }
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

/* Collective. The creation is refused on all ranks with this in its message, and nothing is left. */
static void refused(struct ranks *ranks, const char *name, bool overwrite, const struct sweep *sweep,
                    const char *why)
{
    struct store *store = NULL;
    struct error err = {0};
    MPI_Barrier(MPI_COMM_WORLD);
    int before = entries(folder);
    MPI_Barrier(MPI_COMM_WORLD);
    CHECK(ranks, store_create(name, overwrite, &sweep->config, &sweep->grid, &provenance, NULL,
                              MPI_COMM_WORLD, &store, &err) == ERROR_IO);
    ranks_note(ranks, strstr(err.message, why) != NULL && strncmp(err.message, name, strlen(name)) == 0, why,
               __FILE__, __LINE__, err.message);
    CHECK(ranks, store == NULL);
    MPI_Barrier(MPI_COMM_WORLD);
    CHECK(ranks, entries(folder) == before);
    MPI_Barrier(MPI_COMM_WORLD); /* before anyone makes something anew */
}

static void creations_that_are_refused(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep, vast;
    sweep_init(config_text, &sweep);
    char name[128];
    snprintf(name, sizeof name, "%s/none/a.h5", folder);
    refused(ranks, name, false, &sweep, "none cannot be used: No such file or directory");
    refused(ranks, folder, true, &sweep, "exists and is not a result file of sgdmap");
    snprintf(name, sizeof name, "%s/new/", folder);
    refused(ranks, name, false, &sweep, "names a folder");
    refused(ranks, "", false, &sweep, "names a folder");

    if (ranks->rank == 0)
        spill(path, "mine", 4);
    MPI_Barrier(MPI_COMM_WORLD);
    refused(ranks, path, false, &sweep, "exists and is not a result file of sgdmap");
    refused(ranks, path, true, &sweep, "exists and is not a result file of sgdmap");
    snprintf(name, sizeof name, "%s/below.h5", path);
    refused(ranks, name, false, &sweep, "a.h5 is not a folder");
    remove_file();

    make_finished(ranks, &sweep);
    refused(ranks, path, false, &sweep, "exists already");
    remove_file();

    /* 10^6 x 10^6 doubles are on no disk; beyond 2^63 bytes nothing overflows either. */
    sweep_init(
        "{seed: 1, grid: {dimension: 10, step_size: {log: [1.0e-4, 1], count: 1000}, init_scale: {linear: "
        "[0, 1], "
        "count: 1000}, teacher_norm: 1, link: identity, batch_size: 10, replicates: 1}, training: {steps: "
        "2000000, tolerance: 1.0e-3}, records: {count: 1000000}}",
        &vast);
    refused(ranks, path, false, &vast, "the sweep needs 64.0 TB, ");
    int64_t records = vast.config.record_count;
    vast.config.record_count = INT64_MAX / 1000;
    CHECK(ranks, store_file_size(&vast.config, &vast.grid) == INT64_MAX);
    vast.config.record_count = records;
    sweep_done(&vast);

    struct rlimit old, small = {.rlim_cur = 100000};
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    refused(ranks, path, false, &sweep, "files are limited to 100.0 kB (ulimit -f)");
    setrlimit(RLIMIT_FSIZE, &old);

    MPI_Barrier(MPI_COMM_WORLD);
    if (ranks->rank == 0)
        chmod(folder, 0555);
    MPI_Barrier(MPI_COMM_WORLD);
    if (geteuid() != 0 || seteuid(65534) == 0) {
        refused(ranks, path, false, &sweep, "cannot be written: Permission denied");
        if (getuid() == 0)
            CHECK(ranks, seteuid(0) == 0);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    if (ranks->rank == 0)
        chmod(folder, 0755);
    sweep_done(&sweep);
    ranks_settle(ranks);
}

static void stale_temporaries_and_overwriting(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    if (ranks->rank == 0)
        spill(temporary, "half a file", 11);
    make_finished(ranks, &sweep);
    CHECK(ranks, access(temporary, F_OK) != 0);
    struct stat first, second;
    CHECK(ranks, stat(path, &first) == 0);

    /* Someone who reads the old file goes on reading it. */
    struct reader reader;
    struct error err = {0};
    uint8_t done[24];
    CHECK_CALL(ranks, reader_open(path, &reader, &err), err);
    MPI_Barrier(MPI_COMM_WORLD);
    struct store *store = NULL;
    CHECK_CALL(
        ranks,
        store_create(path, true, &sweep.config, &sweep.grid, &provenance, NULL, MPI_COMM_WORLD, &store, &err),
        err);
    CHECK(ranks, stat(path, &second) == 0 && first.st_ino != second.st_ino);
    CHECK_CALL(ranks, store_check(store, 0, 24, done, &err), err);
    CHECK(ranks, done[0] == STORE_NOT_DONE && done[23] == STORE_NOT_DONE);
    CHECK_CALL(ranks, store_close(store, &err), err);
    CHECK_CALL(ranks, store_check(reader.store, 0, 24, done, &err), err);
    CHECK(ranks, done[0] == STORE_DONE && done[23] == STORE_DONE);
    CHECK_CALL(ranks, reader_close(&reader, &err), err);
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

static void names_that_trip_others(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    const char *const names[] = {"nfs:a.h5", "with space ü.h5", "-n", "%s%n"};
    for (size_t at = 0; at < sizeof names / sizeof *names; at++) {
        char name[128];
        snprintf(name, sizeof name, "%s/%s", folder, names[at]);
        struct store *store = NULL;
        struct error err = {0};
        CHECK_CALL(ranks,
                   store_create(name, false, &sweep.config, &sweep.grid, &provenance, NULL, MPI_COMM_WORLD,
                                &store, &err),
                   err);
        CHECK_CALL(ranks, store_close(store, &err), err);
        CHECK(ranks, access(name, F_OK) == 0);
        MPI_Barrier(MPI_COMM_WORLD);
        if (ranks->rank == 0)
            unlink(name);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    CHECK(ranks, entries(folder) == 0);
    sweep_done(&sweep);
    ranks_settle(ranks);
}

static void opening_what_does_not_fit(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep, other;
    sweep_init(config_text, &sweep);
    char text[sizeof config_text];
    memcpy(text, config_text, sizeof text);
    memcpy(strstr(text, "seed: 7"), "seed: 8", 7);
    sweep_init(text, &other);
    struct store *store = NULL;
    struct error err = {0};
    CHECK(ranks, store_open(path, &sweep.config, &sweep.grid, &provenance, MPI_COMM_WORLD, &store, &err) ==
                     ERROR_IO);
    CHECK(ranks, strstr(err.message, strerror(ENOENT)) != NULL);
    make_finished(ranks, &sweep);
    CHECK(ranks, store_open(path, &other.config, &other.grid, &provenance, MPI_COMM_WORLD, &store, &err) ==
                     ERROR_IO);
    CHECK(ranks, strstr(err.message, "config_digest") != NULL);

    /* One rank alone may not write it: all leave, with its message. */
    MPI_Barrier(MPI_COMM_WORLD);
    if (ranks->rank == 0)
        chmod(path, 0600);
    MPI_Barrier(MPI_COMM_WORLD);
    if (getuid() == 0) {
        if (ranks->rank == ranks->size - 1)
            CHECK(ranks, seteuid(65534) == 0);
        CHECK(ranks, store_open(path, &sweep.config, &sweep.grid, &provenance, MPI_COMM_WORLD, &store,
                                &err) == ERROR_IO);
        CHECK(ranks, strstr(err.message, strerror(EACCES)) != NULL);
        CHECK(ranks, seteuid(0) == 0);
    }
    CHECK(ranks, store == NULL);
    sweep_done(&sweep);
    sweep_done(&other);
    ranks_settle(ranks);
    remove_file();
}

/* The disk refuses in the middle of a run's rows: an error, and the run is not done. */
static void a_write_that_fails(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    struct store *store = NULL;
    struct error err = {0};
    int code = store_create(path, false, &sweep.config, &sweep.grid, &provenance, NULL, MPI_COMM_WORLD,
                            &store, &err);
    CHECK_CALL(ranks, code, err);
    if (code == ERROR_NONE) {
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit old, small = {.rlim_cur = 4096};
        getrlimit(RLIMIT_FSIZE, &old);
        small.rlim_max = old.rlim_max;
        MPI_Barrier(MPI_COMM_WORLD);
        if (ranks->rank == ranks->size - 1) {
            setrlimit(RLIMIT_FSIZE, &small);
            int failed = write_runs(store, &sweep, 0, 3, 0, &err);
            setrlimit(RLIMIT_FSIZE, &old);
            CHECK(ranks, failed == ERROR_IO);
            ranks_note(ranks, strstr(err.message, "runs 0 to 2: cannot be written: ") != NULL, "a message",
                       __FILE__, __LINE__, err.message);
            uint8_t done[24];
            CHECK_CALL(ranks, store_check(store, 0, 24, done, &err), err);
            CHECK(ranks, done[0] == STORE_NOT_DONE);
        }
        signal(SIGXFSZ, SIG_DFL);
        CHECK_CALL(ranks, store_close(store, &err), err);
    }
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

static void probes(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    enum store_presence presence = STORE_OURS;
    struct error err = {0};
    CHECK_CALL(ranks, store_probe(path, &presence, &err), err);
    CHECK(ranks, presence == STORE_ABSENT);
    CHECK_CALL(ranks, store_probe(folder, &presence, &err), err);
    CHECK(ranks, presence == STORE_FOREIGN);
    MPI_Barrier(MPI_COMM_WORLD);
    make_finished(ranks, &sweep);
    CHECK_CALL(ranks, store_probe(path, &presence, &err), err);
    CHECK(ranks, presence == STORE_OURS);
    char below[96];
    snprintf(below, sizeof below, "%s/b", path);
    CHECK(ranks, store_probe(below, &presence, &err) == ERROR_IO);
    CHECK_CALL(ranks, store_close(NULL, &err), err);
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

/* Whatever is in the file: an error of the right kind, or a file that holds together. */
static int open_anything(struct ranks *ranks, const char *name)
{
    struct reader reader;
    struct error err = {0};
    enum store_presence presence;
    int code = reader_open(name, &reader, &err);
    CHECK(ranks, code == ERROR_NONE || code == ERROR_IO);
    CHECK(ranks, code == ERROR_NONE || strncmp(err.message, name, strlen(name)) == 0);
    CHECK(ranks, store_probe(name, &presence, &err) == ERROR_NONE);
    if (code != ERROR_NONE)
        return code;
    uint8_t *done = calloc((size_t)reader.grid.run_count, 1);
    code = store_check(reader.store, 0, reader.grid.run_count, done, &err);
    CHECK(ranks, code == ERROR_NONE || code == ERROR_IO);
    free(done);
    CHECK_CALL(ranks, reader_close(&reader, &err), err);
    return ERROR_NONE;
}

static void broken_files(void **state)
{
    struct ranks *ranks = *state;
    struct sweep sweep;
    sweep_init(config_text, &sweep);
    make_finished(ranks, &sweep);
    MPI_Barrier(MPI_COMM_WORLD);
    if (ranks->rank == 0) {
        size_t size = 0;
        unsigned char *bytes = slurp(path, &size);
        char name[96];
        snprintf(name, sizeof name, "%s/broken.h5", folder);
        int descriptors = entries("/proc/self/fd");
        CHECK(ranks, open_anything(ranks, path) == ERROR_NONE);
        CHECK(ranks, open_anything(ranks, folder) == ERROR_IO);

        CHECK(ranks, mkfifo(name, 0600) == 0);
        CHECK(ranks, open_anything(ranks, name) == ERROR_IO);
        unlink(name);
        for (size_t cut = 0; cut < size; cut += 1 + size / 50) {
            spill(name, bytes, cut);
            CHECK(ranks, open_anything(ranks, name) == ERROR_IO);
        }
        /* Bytes at random places, and random bytes behind a true signature. */
        uint32_t seed = 1;
        unsigned char *copy = malloc(size);
        const int turns = getenv("SGDMAP_ALL_FAULTS") != NULL ? 4000 : ranks->size > 1 ? 40 : 120;
        for (int turn = 0; turn < turns; turn++) {
            memcpy(copy, bytes, size);
            size_t head = turn % 4 == 3 ? size : 100 + size / 16;
            for (int spot = 0; spot <= turn % 3; spot++) {
                seed = seed * 1664525 + 1013904223;
                copy[seed / 7 % head] = (unsigned char)(seed >> 24);
            }
            if (turn % 20 == 19)
                for (size_t at = 8; at < size; at++)
                    copy[at] = (unsigned char)((seed = seed * 1664525 + 1013904223) >> 24);
            spill(name, copy, size);
            open_anything(ranks, name);
        }
        CHECK(ranks, entries("/proc/self/fd") == descriptors);
        free(copy);
        free(bytes);
        unlink(name);
    }
    sweep_done(&sweep);
    ranks_settle(ranks);
    remove_file();
}

/* -- The program for test_file.py ------------------------------------------------------------------ */

static int report(const struct error *err)
{
    fprintf(stderr, "%s\n", err->message);
    return 1;
}

static int make(const char *name)
{
    struct sweep sweep;
    struct store *store;
    struct error err = {0};
    sweep_init(config_text, &sweep);
    if (store_create(name, true, &sweep.config, &sweep.grid, &provenance, NULL, MPI_COMM_WORLD, &store,
                     &err) != ERROR_NONE)
        return report(&err);
    const int64_t half = sweep.grid.run_count / 2;
    if (world.rank == 0 && (write_runs(store, &sweep, 0, half, 0, &err) != ERROR_NONE ||
                            write_runs(store, &sweep, half, half - 4, 0, &err) != ERROR_NONE))
        return report(&err);
    if (store_close(store, &err) != ERROR_NONE)
        return report(&err);
    sweep_done(&sweep);
    return 0;
}

static int write_for_ever(const char *name)
{
    struct sweep sweep;
    struct store *store;
    struct error err = {0};
    sweep_init(config_text, &sweep);
    if (store_create(name, true, &sweep.config, &sweep.grid, &provenance, NULL, MPI_COMM_WORLD, &store,
                     &err) != ERROR_NONE)
        return report(&err);
    /* The runs of the first half are written once and stay; those of the second half over and over. */
    const int64_t half = sweep.grid.run_count / 2;
    if (world.rank == 0 && write_runs(store, &sweep, 0, half, 0, &err) != ERROR_NONE)
        return report(&err);
    MPI_Barrier(MPI_COMM_WORLD);
    for (bool told = false;; told = true) {
        for (int64_t run = half + world.rank; run < 2 * half; run += world.size)
            if (write_runs(store, &sweep, run, 1, world.rank, &err) != ERROR_NONE)
                return report(&err);
        if (!told) {
            fprintf(stderr, "%ld\n", (long)getpid());
            fflush(stderr);
        }
    }
}

static int read_alone(const char *name)
{
    struct reader reader;
    struct error err = {0};
    if (reader_open(name, &reader, &err) != ERROR_NONE)
        return report(&err);
    int64_t counts[3] = {0};
    uint8_t *done = calloc((size_t)reader.grid.run_count, 1);
    if (store_check(reader.store, 0, reader.grid.run_count, done, &err) != ERROR_NONE)
        return report(&err);
    for (int64_t run = 0; run < reader.grid.run_count; run++)
        counts[done[run]]++;
    free(done);
    if (store_check_frame(reader.store, &err) != ERROR_NONE)
        return report(&err);
    printf("%lld %lld\n", (long long)counts[STORE_DONE], (long long)counts[STORE_MISMATCH]);
    return reader_close(&reader, &err) == ERROR_NONE ? 0 : report(&err);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "read") == 0)
        return read_alone(argv[2]);
    ranks_init(&argc, &argv, &world);
    if (argc == 3)
        return ranks_finish(strcmp(argv[1], "make") == 0 ? make(argv[2]) : write_for_ever(argv[2]));

    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(what_is_written_is_read, &world),
        cmocka_unit_test_prestate(the_same_bytes_by_one_rank, &world),
        cmocka_unit_test_prestate(aligned_datasets, &world),
        cmocka_unit_test_prestate(hints_reach_mpi_io, &world),
        cmocka_unit_test_prestate(readers_beside_the_writer, &world),
        cmocka_unit_test_prestate(a_failed_run_without_rows, &world),
        cmocka_unit_test_prestate(checksums_see_a_bit, &world),
        cmocka_unit_test_prestate(every_value_is_covered, &world),
        cmocka_unit_test_prestate(damage_in_runs_that_are_not_done, &world),
        cmocka_unit_test_prestate(killed_while_training_again, &world),
        cmocka_unit_test_prestate(going_on_adds_to_history, &world),
        cmocka_unit_test_prestate(a_full_history, &world),
        cmocka_unit_test_prestate(creations_that_are_refused, &world),
        cmocka_unit_test_prestate(stale_temporaries_and_overwriting, &world),
        cmocka_unit_test_prestate(names_that_trip_others, &world),
        cmocka_unit_test_prestate(opening_what_does_not_fit, &world),
        cmocka_unit_test_prestate(a_write_that_fails, &world),
        cmocka_unit_test_prestate(probes, &world),
        cmocka_unit_test_prestate(broken_files, &world),
    };
    make_folder();
    int failed = cmocka_run_group_tests_name("store", tests, NULL, NULL);
    if (world.rank == 0)
        rmdir(folder);
    return ranks_finish(failed);
}
