#include "sgdmap/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <hdf5_hl.h>
#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include "sgdmap/comm.h"
#include "sgdmap/fault.h"
#include "sgdmap/guard.h"
#include "sgdmap/path.h"

#include "handles.h"

/* -- The schema ------------------------------------------------------------------------------------ */

enum {
    FORMAT_VERSION = 1,
    HISTORY_SIZE = 16 * 1024,       /* bytes set aside, so that a line more moves nothing in the file */
    METADATA_BLOCK = 256 * 1024,    /* metadata stands together: a thousand ranks open the file at once */
    DATASET_METADATA = 4 * 1024,    /* a generous estimate of headers and attributes, for the file's size */
    BLOCK_BYTES = 32 * 1024 * 1024, /* what a pass over many runs holds in memory */
    BLOCK_RUNS = 64 * 1024,
    FILL_BYTES = 16 * 1024 * 1024,
    TRANSFER_BYTES = 512 * 1024 * 1024, /* one call to MPI-IO: its counts are int */
    TEXT_MAX = 64 * 1024 * 1024,        /* no attribute of ours is longer */
    RANK_MAX = 3,
};

enum file_dimension { DIM_RUN, DIM_STEP, DIM_COMPONENT, DIM_NEURON, DIM_COUNT };

/* What a value is in the file. In memory, TYPE_I8 is an enum and the others are the C type of the same width.
 */
enum value_type { TYPE_I8, TYPE_I32, TYPE_I64, TYPE_U64, TYPE_F64 };

enum fill { FILL_NONE /* every value is written at creation */, FILL_ZERO, FILL_MINUS_ONE, FILL_NAN };

/* Where a dataset's values come from. */
enum source {
    SOURCE_SETTING, /* `offset` in struct setting; known at creation */
    SOURCE_INDEX,   /* a scale that is known at creation */
    SOURCE_FIELD,   /* a trajectory */
    SOURCE_RESULT,  /* `offset` in struct run_result, and part of the checksum */
    SOURCE_TIMING,  /* `offset` in struct run_result; another machine measures another value */
    SOURCE_RANK,
    SOURCE_CHECKSUM,
    SOURCE_WEIGHTS,
};

struct dataset_info {
    const char *name;
    const char *units; /* UDUNITS; "1" where there is none */
    const char *long_name;
    enum value_type type;
    int rank;
    enum file_dimension dims[RANK_MAX]; /* a dataset named as its one dimension is that dimension's scale */
    enum source source;
    enum fill fill;
    size_t offset;
    const char *(*flag_name)(int value);
    int flag_count;
    enum axis_id
        later; /* of a setting that is in the file only where the config has this axis; 0 of others */
};

static const char *link_flag(int value)
{
    return link_kind_name((enum link_kind)value);
}

static const char *input_flag(int value)
{
    return input_kind_name((enum input_kind)value);
}

static const char *gradient_flag(int value)
{
    return gradient_kind_name((enum gradient_kind)value);
}

static const char *teacher_flag(int value)
{
    return teacher_kind_name((enum teacher_kind)value);
}

static const char *schedule_flag(int value)
{
    return schedule_kind_name((enum schedule_kind)value);
}

static const char *outcome_flag(int value)
{
    return outcome_name((enum outcome)value);
}

static const char *failure_flag(int value)
{
    return failure_name((enum failure)value);
}

/* The datasets of the root group, in the file's order, which is also the order in which a run's rows are
 * written: the checksum, by which a run counts as done, after all that it covers, the status too. */
enum dataset_id {
    DATASET_RUN,
    DATASET_STEP,
    DATASET_DIMENSION,
    DATASET_BATCH_SIZE,
    DATASET_GRADIENT,
    DATASET_DATA,
    DATASET_INPUT,
    DATASET_REPLICATE,
    DATASET_TEACHER,
    DATASET_TEACHER_NORM,
    DATASET_LINK,
    DATASET_NOISE,
    DATASET_SCHEDULE,
    DATASET_STEP_SIZE,
    DATASET_INIT_SCALE,
    DATASET_FIRST_FIELD,
    DATASET_STEPS_DONE = DATASET_FIRST_FIELD + RECORD_FIELD_COUNT,
    DATASET_CONVERGED_STEP,
    DATASET_PHASE2_STEP,
    DATASET_FINAL_ERROR,
    DATASET_FINAL_LOSS,
    DATASET_MESSAGE,
    DATASET_WALL_TIME,
    DATASET_RANK,
    DATASET_STATUS,
    DATASET_CHECKSUM,
    DATASET_COUNT
};

#define SETTING(member)                                                                                      \
    .rank = 1, .dims = {DIM_RUN}, .source = SOURCE_SETTING, .offset = offsetof(struct setting, member)
#define RESULT(member)                                                                                       \
    .rank = 1, .dims = {DIM_RUN}, .source = SOURCE_RESULT, .offset = offsetof(struct run_result, member)

static const struct dataset_info root_datasets[DATASET_COUNT] = {
    [DATASET_RUN] = {"run", "1", "run", TYPE_I64, SETTING(run)},
    [DATASET_STEP] = {"step", "1", "SGD step of the record", TYPE_I64, 1, {DIM_STEP}, SOURCE_INDEX},
    [DATASET_DIMENSION] = {"dimension", "1", "dimension d of the input, and number of neurons", TYPE_I64,
                           SETTING(dimension)},
    [DATASET_BATCH_SIZE] = {"batch_size", "1", "fresh samples a step", TYPE_I64, SETTING(batch_size)},
    [DATASET_GRADIENT] =
        {"gradient", "1",
         "what a step follows: a minibatch's gradient, or the population's in closed form, and "
         "batch_loss is then the loss",
         TYPE_I8, SETTING(gradient), .flag_name = gradient_flag, .flag_count = GRADIENT_KIND_COUNT,
         .later = AXIS_GRADIENT},
    [DATASET_DATA] = {"data", "1", "samples of the training set; 0: fresh ones at every step", TYPE_I64,
                      SETTING(data), .later = AXIS_DATA},
    [DATASET_INPUT] = {"input", "1", "distribution of the inputs", TYPE_I8, SETTING(input),
                       .flag_name = input_flag, .flag_count = INPUT_KIND_COUNT},
    [DATASET_REPLICATE] = {"replicate", "1", "replicate: which stream of random numbers", TYPE_I64,
                           SETTING(replicate)},
    [DATASET_TEACHER] = {"teacher", "1", "direction of the teacher's weights", TYPE_I8, SETTING(teacher),
                         .flag_name = teacher_flag, .flag_count = TEACHER_KIND_COUNT, .later = AXIS_TEACHER},
    [DATASET_TEACHER_NORM] = {"teacher_norm", "1", "spectral norm of the teacher's weights", TYPE_F64,
                              SETTING(teacher_norm)},
    [DATASET_LINK] = {"link", "1", "identity: the student's columns are e_j + w_j; none: w_j", TYPE_I8,
                      SETTING(link), .flag_name = link_flag, .flag_count = LINK_KIND_COUNT},
    [DATASET_NOISE] = {"noise", "1", "bound of the labels' noise, which is uniform", TYPE_F64, SETTING(noise),
                       .later = AXIS_NOISE},
    [DATASET_SCHEDULE] = {"schedule", "1", "step size over time, in units of step_size", TYPE_I8,
                          SETTING(schedule), .flag_name = schedule_flag, .flag_count = SCHEDULE_KIND_COUNT,
                          .later = AXIS_SCHEDULE},
    [DATASET_STEP_SIZE] = {"step_size", "1", "step size of SGD", TYPE_F64, SETTING(step_size)},
    [DATASET_INIT_SCALE] = {"init_scale", "1", "initial weights in units of N(0, 1/d)", TYPE_F64,
                            SETTING(init_scale)},
    /* DATASET_FIRST_FIELD and on: record_field_info() */
    [DATASET_STEPS_DONE] = {"steps_done", "1", "steps done; -1 if the run did not end", TYPE_I64,
                            RESULT(steps_done), .fill = FILL_MINUS_ONE},
    [DATASET_CONVERGED_STEP] = {"converged_step", "1",
                                "first step looked at with the error within the tolerance; -1 if none",
                                TYPE_I64, RESULT(converged_step), .fill = FILL_MINUS_ONE},
    [DATASET_PHASE2_STEP] = {"phase2_step", "1", "recorded step at which phase II begins; -1 if none",
                             TYPE_I64, RESULT(phase2_step), .fill = FILL_MINUS_ONE},
    [DATASET_FINAL_ERROR] = {"final_error", "1", "error after the last step done", TYPE_F64,
                             RESULT(final_error), .fill = FILL_NAN},
    [DATASET_FINAL_LOSS] = {"final_loss", "1", "loss after the last step done", TYPE_F64, RESULT(final_loss),
                            .fill = FILL_NAN},
    [DATASET_MESSAGE] = {"message", "1", "why the run failed", TYPE_I8, RESULT(failure), .fill = FILL_ZERO,
                         .flag_name = failure_flag, .flag_count = FAILURE_COUNT},
    [DATASET_WALL_TIME] = {"wall_time",
                           "s",
                           "this run's share of its group's time",
                           TYPE_F64,
                           1,
                           {DIM_RUN},
                           SOURCE_TIMING,
                           FILL_NAN,
                           offsetof(struct run_result, wall_time)},
    [DATASET_RANK] = {"rank",
                      "1",
                      "MPI rank that wrote the run; -1 if none",
                      TYPE_I32,
                      1,
                      {DIM_RUN},
                      SOURCE_RANK,
                      FILL_MINUS_ONE},
    [DATASET_STATUS] = {"status", "1", "outcome of the run", TYPE_I8, RESULT(outcome), .fill = FILL_ZERO,
                        .flag_name = outcome_flag, .flag_count = OUTCOME_COUNT},
    [DATASET_CHECKSUM] = {"checksum",
                          "1",
                          "XXH3-64 of the run's setting, rows and results; 0 if none",
                          TYPE_U64,
                          1,
                          {DIM_RUN},
                          SOURCE_CHECKSUM,
                          FILL_ZERO},
};

/* The datasets of a group /weights_d<d>. */
enum weights_id {
    WEIGHTS_RUN,
    WEIGHTS_COMPONENT,
    WEIGHTS_NEURON,
    WEIGHTS_STUDENT,
    WEIGHTS_TEACHER,
    WEIGHTS_COUNT
};

static const struct dataset_info weights_datasets[WEIGHTS_COUNT] = {
    [WEIGHTS_RUN] = {"run", "1", "run", TYPE_I64, 1, {DIM_RUN}, SOURCE_INDEX},
    [WEIGHTS_COMPONENT] =
        {"component", "1", "component of the input", TYPE_I64, 1, {DIM_COMPONENT}, SOURCE_INDEX},
    [WEIGHTS_NEURON] = {"neuron", "1", "neuron", TYPE_I64, 1, {DIM_NEURON}, SOURCE_INDEX},
    [WEIGHTS_STUDENT] = {"student",
                         "1",
                         "student's weights W after the last step done",
                         TYPE_F64,
                         3,
                         {DIM_RUN, DIM_COMPONENT, DIM_NEURON},
                         SOURCE_WEIGHTS,
                         FILL_NAN},
    [WEIGHTS_TEACHER] = {"teacher",
                         "1",
                         "teacher's weights W*",
                         TYPE_F64,
                         3,
                         {DIM_RUN, DIM_COMPONENT, DIM_NEURON},
                         SOURCE_WEIGHTS,
                         FILL_NAN},
};

static const char comment[] =
    "A run's setting is in the coordinates of its row. error is the root-mean-square distance of a neuron "
    "from its "
    "target. Phase II begins at the first record from which on alignment > 0 and |potential_norm| <= "
    "max(0.1 |potential_norm[0]|, 0.01 sqrt(dimension)) at every later record. A run whose checksum does not "
    "match its "
    "rows is not done. Where input is laplace, uniform or rademacher, loss, alignment and gradient_norm are "
    "those of "
    "the Gaussian population, and batch_loss is what SGD sees.";

static struct dataset_info root_dataset(int id)
{
    int field = id - DATASET_FIRST_FIELD;
    if (field < 0 || field >= RECORD_FIELD_COUNT)
        return root_datasets[id];
    const struct record_field_info *info = record_field_info((enum record_field)field);
    return (struct dataset_info){.name = info->name,
                                 .units = info->units,
                                 .long_name = info->long_name,
                                 .type = TYPE_F64,
                                 .rank = 2,
                                 .dims = {DIM_RUN, DIM_STEP},
                                 .source = SOURCE_FIELD,
                                 .fill = FILL_NAN};
}

static bool has_field(const struct config *config, int field)
{
    return (config->fields >> field & 1) != 0;
}

static bool has_dataset(const struct config *config, int id)
{
    const int field = id - DATASET_FIRST_FIELD;
    if (field >= 0 && field < RECORD_FIELD_COUNT)
        return has_field(config, field);
    return root_datasets[id].later == 0 || config_has_axis(config, root_datasets[id].later);
}

/* Whether a dataset of the file holds a member of the structs of `source`. The table has gaps where the fields are. */
static bool is_column(const struct config *config, int id, enum source source)
{
    return root_datasets[id].name != NULL && root_datasets[id].source == source && has_dataset(config, id);
}

enum { COORDINATES_SIZE = 256 };

/* CF: what xarray shows beside a variable over [run]. */
static const char *coordinates_of(const struct config *config, char ret[COORDINATES_SIZE])
{
    size_t used = 0;
    for (int id = DATASET_RUN + 1; id < DATASET_FIRST_FIELD; id++)
        if (is_column(config, id, SOURCE_SETTING))
            used += (size_t)snprintf(ret + used, COORDINATES_SIZE - used, "%s%s", used > 0 ? " " : "",
                                     root_datasets[id].name);
    return ret;
}

static hid_t file_type(enum value_type type)
{
    switch (type) {
    case TYPE_I8:
        return H5T_STD_I8LE;
    case TYPE_I32:
        return H5T_STD_I32LE;
    case TYPE_I64:
        return H5T_STD_I64LE;
    case TYPE_U64:
        return H5T_STD_U64LE;
    case TYPE_F64:
        break;
    }
    return H5T_IEEE_F64LE;
}

static hid_t memory_type(enum value_type type)
{
    switch (type) {
    case TYPE_I8:
        return H5T_NATIVE_INT8;
    case TYPE_I32:
        return H5T_NATIVE_INT32;
    case TYPE_I64:
        return H5T_NATIVE_INT64;
    case TYPE_U64:
        return H5T_NATIVE_UINT64;
    case TYPE_F64:
        break;
    }
    return H5T_NATIVE_DOUBLE;
}

static size_t type_size(enum value_type type)
{
    return type == TYPE_I8 ? 1 : type == TYPE_I32 ? 4 : 8;
}

/* The neighbouring runs of one dimension d, whose weights share a group. */
struct weights {
    int64_t dimension;
    int64_t first_run;
    int64_t run_count;
    hid_t datasets[WEIGHTS_COUNT];
};

/* Steps through the dimensions of a grid: `block` starts at 0. False after the last one. */
static bool next_weights(const struct grid *grid, int64_t *block, struct weights *ret)
{
    int64_t at = *block;
    if (at >= grid->block_count)
        return false;
    int64_t dimension = grid->blocks[at].shape.dimension;
    int64_t first_run = grid->blocks[at].first_run;
    while (at < grid->block_count && grid->blocks[at].shape.dimension == dimension)
        at++;
    int64_t end = at < grid->block_count ? grid->blocks[at].first_run : grid->run_count;
    *ret = (struct weights){.dimension = dimension, .first_run = first_run, .run_count = end - first_run};
    for (int id = 0; id < WEIGHTS_COUNT; id++)
        ret->datasets[id] = H5I_INVALID_HID;
    *block = at;
    return true;
}

static int64_t row_values(const struct dataset_info *info, const int64_t extents[DIM_COUNT])
{
    int64_t values = 1;
    for (int at = 1; at < info->rank; at++)
        values *= extents[info->dims[at]];
    return values;
}

/* -- HDF5 and the system, with their errors -------------------------------------------------------- */

static void close_space(hid_t *id)
{
    if (*id >= 0)
        H5Sclose(*id);
}

static void close_plist(hid_t *id)
{
    if (*id >= 0)
        H5Pclose(*id);
}

static void close_type(hid_t *id)
{
    if (*id >= 0)
        H5Tclose(*id);
}

static void close_attribute(hid_t *id)
{
    if (*id >= 0)
        H5Aclose(*id);
}

static void close_group(hid_t *id)
{
    if (*id >= 0)
        H5Gclose(*id);
}

static void close_dataset(hid_t *id)
{
    if (*id >= 0)
        H5Dclose(*id);
}

static void close_file(hid_t *id)
{
    if (*id >= 0)
        H5Fclose(*id);
}

static void free_text(char **text)
{
    free(*text);
}

/* A local handle that is closed at the end of its scope. */
#define SCOPED(kind) __attribute__((cleanup(close_##kind))) hid_t
#define SCOPED_TEXT __attribute__((cleanup(free_text))) char *

enum { DESCRIPTION_SIZE = 512 };

/* Where the system refused, HDF5 writes a line of technicalities around "error message = 'No space left on
 * device'". */
static herr_t innermost(unsigned depth, const H5E_error2_t *entry, void *ret)
{
    if (depth != 0 || entry->desc == NULL)
        return 0;
    static const char before[] = "error message = '";
    const char *text = strstr(entry->desc, before);
    text = text != NULL ? text + strlen(before) : entry->desc;
    const char *limits = text != entry->desc ? "'" : "\n";
    snprintf(ret, DESCRIPTION_SIZE, "%.*s", (int)strcspn(text, limits), text);
    return 0;
}

/* "PATH: what: HDF5's innermost description", where the system's own text stands if the system refused. */
__attribute__((format(printf, 3, 4))) static int hdf5_error(struct error *err, const char *path,
                                                            const char *format, ...)
{
    char what[512], description[DESCRIPTION_SIZE] = "no reason given";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, description);
    return error_set(err, ERROR_IO, "%s: %s: %s", path, what, description);
}

__attribute__((format(printf, 3, 4))) static int foreign(struct error *err, const char *path,
                                                         const char *format, ...)
{
    char what[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    return error_set(err, ERROR_IO, "%s: not an sgdmap result file: %s", path, what);
}

/* HDF5's own messages go to the terminal of every rank; ours say the same. */
static void quiet(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

int64_t store_handles(void)
{
    return handles_open;
}

/* A file access list for one process. HDF5's file lock is off: it would refuse a reader beside a writer, and
 * file systems without locks altogether. So is its buffer for rows: a reader beside a writer would find old values there,
 * and others of the same run that are new. */
static hid_t serial_access(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access >= 0 && (H5Pset_fapl_sec2(access) < 0 || H5Pset_file_locking(access, false, true) < 0 ||
                        H5Pset_sieve_buf_size(access, 0) < 0)) {
        H5Pclose(access);
        access = H5I_INVALID_HID;
    }
    return access;
}

static void *allocate(int64_t count, size_t size)
{
    return calloc(count > 0 ? (size_t)count : 1, size);
}

static int no_memory(struct error *err, const char *path)
{
    return error_set(err, ERROR_MEMORY, "%s: no memory for a block of runs", path);
}

/* 12.3 GB */
static const char *human(double bytes, char ret[32])
{
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB", "PB", "EB"};
    size_t unit = 0;
    while (bytes >= 999.95 && unit + 1 < sizeof units / sizeof *units) {
        bytes /= 1000;
        unit++;
    }
    snprintf(ret, 32, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
    return ret;
}

/* -- Attributes ------------------------------------------------------------------------------------ */

/* Writes a text of fixed length, `room` bytes or as long as it is: netCDF's and Python's readers see a
 * string. */
static int write_text(hid_t object, const char *path, const char *name, const char *text, size_t room,
                      struct error *err)
{
    size_t size = strlen(text) + 1 > room ? strlen(text) + 1 : room;
    SCOPED_TEXT padded = calloc(size, 1);
    if (padded == NULL)
        return error_set(err, ERROR_MEMORY, "%s: no memory for the attribute %s", path, name);
    memcpy(padded, text, strlen(text));

    SCOPED(space) space = H5Screate(H5S_SCALAR);
    SCOPED(type) type = H5Tcopy(H5T_C_S1);
    if (space < 0 || type < 0 || H5Tset_size(type, size) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)
        return hdf5_error(err, path, "the attribute %s cannot be described", name);
    SCOPED(attribute) attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, type, padded) < 0)
        return hdf5_error(err, path, "the attribute %s cannot be written", name);
    return ERROR_NONE;
}

static int write_numbers(hid_t object, const char *path, const char *name, enum value_type type, int count,
                         const void *values, struct error *err)
{
    SCOPED(space) space = H5Screate_simple(1, &(hsize_t){(hsize_t)count}, NULL);
    if (space < 0)
        return hdf5_error(err, path, "the attribute %s cannot be described", name);
    SCOPED(attribute) attribute = H5Acreate2(object, name, file_type(type), space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, memory_type(type), values) < 0)
        return hdf5_error(err, path, "the attribute %s cannot be written", name);
    return ERROR_NONE;
}

/* A text of an object, the file for its root group; NULL if it is not there, not a text of ours or too long to be one. */
static char *read_text(hid_t object, const char *name, size_t *room)
{
    if (H5Aexists(object, name) <= 0)
        return NULL;
    SCOPED(attribute) attribute = H5Aopen(object, name, H5P_DEFAULT);
    SCOPED(file) file = H5Iget_file_id(object);
    if (attribute < 0 || file < 0)
        return NULL;
    SCOPED(type) type = H5Aget_type(attribute);
    SCOPED(space) space = H5Aget_space(attribute);
    if (type < 0 || space < 0 || H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 ||
        H5Sget_simple_extent_npoints(space) != 1)
        return NULL;
    size_t size = H5Tget_size(type);
    hsize_t file_size = 0;
    if (size == 0 || size > TEXT_MAX || H5Fget_filesize(file, &file_size) < 0 || size > file_size)
        return NULL;
    char *text = calloc(size + 1, 1);
    if (text != NULL && H5Aread(attribute, type, text) < 0) {
        free(text);
        return NULL;
    }
    if (room != NULL)
        *room = size;
    return text;
}

/* A number of the root group; -1 if it is not there. */
static int64_t read_number(hid_t file, const char *name)
{
    if (H5Aexists(file, name) <= 0)
        return -1;
    SCOPED(attribute) attribute = H5Aopen(file, name, H5P_DEFAULT);
    if (attribute < 0)
        return -1;
    SCOPED(type) type = H5Aget_type(attribute);
    SCOPED(space) space = H5Aget_space(attribute);
    int64_t value = -1;
    if (type < 0 || space < 0 || H5Tget_class(type) != H5T_INTEGER ||
        H5Sget_simple_extent_npoints(space) != 1 || H5Aread(attribute, H5T_NATIVE_INT64, &value) < 0)
        return -1;
    return value;
}

static int write_root_attributes(hid_t file, const char *path, const struct config *config,
                                 const struct grid *grid, const struct provenance *provenance,
                                 struct error *err)
{
    char digest[CONFIG_DIGEST_SIZE], mpi_version[MPI_MAX_LIBRARY_VERSION_STRING] = "", shard[64] = "";
    int length;
    config_digest(config, digest);
    if (grid->shard_count > 1)
        snprintf(shard, sizeof shard, "%lld/%lld", (long long)grid->shard, (long long)grid->shard_count);
    MPI_Get_library_version(mpi_version, &length);
    const struct {
        const char *name;
        const char *text;
        size_t room;
    } texts[] = {
        {"Conventions", "CF-1.8", 0},
        {"title", config->title, 0},
        {"history", provenance->history, HISTORY_SIZE},
        {"source", provenance->source, 0},
        {"comment", comment, 0},
        {"config", config->text, 0},
        {"config_overrides", config->overrides, 0},
        {"config_digest", digest, 0},
        {"blis_version", provenance->blis_version, 0},
        {"blis_kernels", provenance->blis_kernels, 0},
        {"hdf5_version", store_hdf5_version(), 0},
        {"mpi_version", mpi_version, 0},
        {"host", provenance->host, 0},
        {"date_created", provenance->date_created, 0},
        {"slurm_job_id", provenance->slurm_job_id, 0},
        {"shard", shard, 0},
    };
    const size_t count = sizeof texts / sizeof *texts, optional = count - 2;
    for (size_t at = 0; at < count; at++)
        if (at < optional || texts[at].text[0] != '\0')
            TRY(write_text(file, path, texts[at].name, texts[at].text, texts[at].room, err));
    const int32_t ranks = provenance->ranks, version = FORMAT_VERSION;
    TRY(write_numbers(file, path, "ranks", TYPE_I32, 1, &ranks, err));
    return write_numbers(file, path, "format_version", TYPE_I32, 1, &version, err);
}

/* Adds a line to `history` within the room that it has, so that no metadata moves: where the room is spent,
 * the lines after the first, which tells of the creation, go first. */
static int append_history(hid_t file, const char *path, const char *line, struct error *err)
{
    size_t room = 0;
    SCOPED_TEXT old = read_text(file, "history", &room);
    if (old == NULL)
        return foreign(err, path, "no attribute history");
    SCOPED_TEXT history = calloc(room + 1, 1);
    if (history == NULL)
        return error_set(err, ERROR_MEMORY, "%s: no memory for the attribute history", path);

    size_t first = strcspn(old, "\n");
    char *rest = old[first] == '\n' ? old + first + 1 : old + first;
    old[first] = '\0';
    while (*rest != '\0' && first + strlen(rest) + strlen(line) + 3 > room) {
        size_t dropped = strcspn(rest, "\n");
        rest += rest[dropped] == '\n' ? dropped + 1 : dropped;
    }
    snprintf(history, room, "%s\n%s%s%s", old, rest, *rest != '\0' ? "\n" : "", line);

    TRY(fault_at("history", err));
    SCOPED(attribute) attribute = H5Aopen(file, "history", H5P_DEFAULT);
    if (attribute < 0)
        return hdf5_error(err, path, "the attribute history cannot be opened");
    SCOPED(type) type = H5Aget_type(attribute);
    if (type < 0 || H5Awrite(attribute, type, history) < 0)
        return hdf5_error(err, path, "the attribute history cannot be written");
    return ERROR_NONE;
}

/* The ranks of the session that writes now: its progress is estimated from them. */
static int update_ranks(hid_t file, const char *path, int ranks, struct error *err)
{
    TRY(fault_at("ranks", err));
    const int32_t value = ranks;
    if (read_number(file, "ranks") < 0) /* or it may be more than one number */
        return foreign(err, path, "no attribute ranks");
    SCOPED(attribute) attribute = H5Aopen(file, "ranks", H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, H5T_NATIVE_INT32, &value) < 0)
        return hdf5_error(err, path, "the attribute ranks cannot be written");
    return ERROR_NONE;
}

/* -- Datasets -------------------------------------------------------------------------------------- */

/* Contiguous, and allocated at creation, when also the fill values are written: a row written later changes no metadata. Times are
 * not tracked, so that the same sweep makes the same file. */
static hid_t creation_list(const struct dataset_info *info)
{
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    if (list < 0)
        return list;
    const int8_t zero = 0, minus_one = -1;
    const double nan_value = NAN;
    herr_t status = 0;
    switch (info->fill) {
    case FILL_NONE:
        break;
    case FILL_ZERO:
        status = H5Pset_fill_value(list, H5T_NATIVE_INT8, &zero);
        break;
    case FILL_MINUS_ONE:
        status = H5Pset_fill_value(list, H5T_NATIVE_INT8, &minus_one);
        break;
    case FILL_NAN:
        status = H5Pset_fill_value(list, H5T_NATIVE_DOUBLE, &nan_value);
        break;
    }
    if (status < 0 || H5Pset_fill_time(list, H5D_FILL_TIME_NEVER) < 0 ||
        H5Pset_layout(list, H5D_CONTIGUOUS) < 0 || H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY) < 0 ||
        H5Pset_obj_track_times(list, false) < 0 ||
        H5Pset_attr_creation_order(list, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED) < 0) {
        H5Pclose(list);
        return H5I_INVALID_HID;
    }
    return list;
}

static const char *dimension_name(enum file_dimension dimension)
{
    static const char *const names[DIM_COUNT] = {"run", "step", "component", "neuron"};
    return names[dimension];
}

static bool is_scale(const struct dataset_info *info)
{
    return info->rank == 1 && strcmp(info->name, dimension_name(info->dims[0])) == 0;
}

enum { FLAGS_SIZE = 1024 };

static void flags(const struct dataset_info *info, int8_t values[INT8_MAX], char meanings[FLAGS_SIZE])
{
    meanings[0] = '\0';
    for (int value = 0; value < info->flag_count; value++) {
        size_t used = strlen(meanings);
        values[value] = (int8_t)value;
        snprintf(meanings + used, FLAGS_SIZE - used, "%s%s", value > 0 ? " " : "", info->flag_name(value));
    }
}

static bool has_coordinates(const struct dataset_info *info)
{
    return info->dims[0] == DIM_RUN && info->source != SOURCE_SETTING && info->source != SOURCE_WEIGHTS &&
           info->source != SOURCE_INDEX;
}

static int write_flags(hid_t dataset, const char *path, const struct dataset_info *info, struct error *err)
{
    int8_t values[INT8_MAX];
    char meanings[FLAGS_SIZE];
    flags(info, values, meanings);
    TRY(write_numbers(dataset, path, "flag_values", TYPE_I8, info->flag_count, values, err));
    return write_text(dataset, path, "flag_meanings", meanings, 0, err);
}

/* `scales` are those of the group's dimensions, made before; a new scale is put there. `coordinates`: coordinates_of(). */
static int create_dataset(hid_t group, const char *path, const struct dataset_info *info,
                          const char *coordinates, const int64_t extents[DIM_COUNT], hid_t scales[DIM_COUNT],
                          struct error *err)
{
    TRY(fault_at("create: dataset", err));
    hsize_t size[RANK_MAX];
    for (int at = 0; at < info->rank; at++)
        size[at] = (hsize_t)extents[info->dims[at]];
    SCOPED(space) space = H5Screate_simple(info->rank, size, NULL);
    SCOPED(plist) list = creation_list(info);
    if (space < 0 || list < 0)
        return hdf5_error(err, path, "the dataset %s cannot be described", info->name);
    SCOPED(dataset)
    dataset = H5Dcreate2(group, info->name, file_type(info->type), space, H5P_DEFAULT, list, H5P_DEFAULT);
    if (dataset < 0)
        return hdf5_error(err, path, "the dataset %s cannot be created", info->name);

    if (is_scale(info)) {
        if (H5DSset_scale(dataset, info->name) < 0)
            return hdf5_error(err, path, "the dataset %s cannot be made a scale", info->name);
    } else {
        for (int at = 0; at < info->rank; at++)
            if (H5DSattach_scale(dataset, scales[info->dims[at]], (unsigned)at) < 0)
                return hdf5_error(err, path, "the dataset %s cannot be given its scale %s", info->name,
                                  dimension_name(info->dims[at]));
    }
    TRY(write_text(dataset, path, "long_name", info->long_name, 0, err));
    TRY(write_text(dataset, path, "units", info->units, 0, err));
    if (info->fill == FILL_NAN)
        TRY(write_numbers(dataset, path, "_FillValue", TYPE_F64, 1, &(double){NAN}, err));
    if (info->flag_name != NULL)
        TRY(write_flags(dataset, path, info, err));
    if (has_coordinates(info))
        TRY(write_text(dataset, path, "coordinates", coordinates, 0, err));
    if (is_scale(info)) {
        H5Iinc_ref(dataset);
        scales[info->dims[0]] = dataset;
    }
    return ERROR_NONE;
}

static int create_datasets(hid_t group, const char *path, const struct config *config,
                           const struct dataset_info *infos, int count, const int64_t extents[DIM_COUNT],
                           struct error *err)
{
    char coordinates[COORDINATES_SIZE];
    coordinates_of(config, coordinates);
    hid_t scales[DIM_COUNT] = {H5I_INVALID_HID, H5I_INVALID_HID, H5I_INVALID_HID, H5I_INVALID_HID};
    int code = ERROR_NONE;
    for (int at = 0; at < count && code == ERROR_NONE; at++)
        code = create_dataset(group, path, &infos[at], coordinates, extents, scales, err);
    for (int at = 0; at < DIM_COUNT; at++)
        close_dataset(&scales[at]);
    return code;
}

static void weights_name(int64_t dimension, char ret[32])
{
    snprintf(ret, 32, "weights_d%lld", (long long)dimension);
}

static int create_everything(hid_t file, const char *path, const struct config *config,
                             const struct grid *grid, const struct provenance *provenance, struct error *err)
{
    struct dataset_info infos[DATASET_COUNT];
    int count = 0;
    for (int id = 0; id < DATASET_COUNT; id++)
        if (has_dataset(config, id))
            infos[count++] = root_dataset(id);
    const int64_t extents[DIM_COUNT] = {[DIM_RUN] = grid->run_count, [DIM_STEP] = config->record_count};
    TRY(create_datasets(file, path, config, infos, count, extents, err));
    TRY(write_root_attributes(file, path, config, grid, provenance, err));
    if (config->weights == WEIGHTS_NONE)
        return ERROR_NONE;

    SCOPED(plist) list = H5Pcreate(H5P_GROUP_CREATE);
    const unsigned order = H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED;
    if (list < 0 || H5Pset_link_creation_order(list, order) < 0 ||
        H5Pset_attr_creation_order(list, order) < 0 || H5Pset_obj_track_times(list, false) < 0)
        return hdf5_error(err, path, "a group cannot be described");
    struct weights weights;
    for (int64_t block = 0; next_weights(grid, &block, &weights);) {
        char name[32];
        weights_name(weights.dimension, name);
        SCOPED(group) group = H5Gcreate2(file, name, H5P_DEFAULT, list, H5P_DEFAULT);
        if (group < 0)
            return hdf5_error(err, path, "the group %s cannot be created", name);
        const int64_t d = weights.dimension;
        const int64_t weights_extents[DIM_COUNT] = {
            [DIM_RUN] = weights.run_count, [DIM_COMPONENT] = d, [DIM_NEURON] = d};
        TRY(create_datasets(group, path, config, weights_datasets, WEIGHTS_COUNT, weights_extents, err));
    }
    return ERROR_NONE;
}

/* -- The open file --------------------------------------------------------------------------------- */

/* A file on its way to its name. */
struct new_file {
    char *target; /* what `path` leads to */
    char *folder, *temporary;
    bool replace;
};

struct store {
    char *path;
    struct new_file place; /* of a file that has yet to get its name, else NULLs */
    hid_t file;
    int descriptor; /* of the same file, to look after it; -1 where it is only read */
    int64_t size;
    const volatile sig_atomic_t *stop; /* ends a creation; else NULL */
    bool parallel;                     /* opened by all ranks of `comm`, for writing */
    MPI_Comm comm;
    const struct config *config;
    const struct grid *grid;
    int64_t extents[DIM_COUNT];
    hid_t datasets[DATASET_COUNT]; /* H5I_INVALID_HID where the config has none */
    struct weights *weights;       /* [weights_count], in the order of their runs */
    int64_t weights_count;
};

static void done_datasets(struct store *store)
{
    for (int id = 0; id < DATASET_COUNT; id++)
        close_dataset(&store->datasets[id]);
    for (int64_t at = 0; at < store->weights_count; at++)
        for (int id = 0; id < WEIGHTS_COUNT; id++)
            close_dataset(&store->weights[at].datasets[id]);
    free(store->weights);
    store->weights = NULL;
    store->weights_count = 0;
}

static void done_place(struct new_file *place)
{
    free(place->target);
    free(place->folder);
    free(place->temporary);
    *place = (struct new_file){0};
}

/* Closes the datasets and the file, whichever are open. A file without a name goes. */
static int done_store(struct store *store, struct error *err)
{
    int code = ERROR_NONE;
    done_datasets(store);
    if (store->file >= 0) {
        assert(H5Fget_obj_count(store->file, H5F_OBJ_ALL | H5F_OBJ_LOCAL) == 1);
        if (H5Fclose(store->file) < 0)
            code = hdf5_error(err, store->path, "cannot be closed");
    }
    if (store->descriptor >= 0)
        close(store->descriptor);
    if (store->place.temporary != NULL)
        unlink(store->place.temporary);
    done_place(&store->place);
    free(store->path);
    *store = (struct store){.file = H5I_INVALID_HID, .descriptor = -1};
    return code;
}

static int init_store(struct store *store, const char *path, const struct config *config,
                      const struct grid *grid, struct error *err)
{
    *store = (struct store){.path = strdup(path),
                            .file = H5I_INVALID_HID,
                            .descriptor = -1,
                            .comm = MPI_COMM_NULL,
                            .config = config,
                            .grid = grid,
                            .extents = {[DIM_RUN] = grid->run_count, [DIM_STEP] = config->record_count}};
    for (int id = 0; id < DATASET_COUNT; id++)
        store->datasets[id] = H5I_INVALID_HID;
    if (store->path == NULL)
        return error_set(err, ERROR_MEMORY, "%s: no memory to open it", path);
    return ERROR_NONE;
}

/* An object, not a link to one: that may lead to another file, or to a pipe. */
static bool is_there(hid_t file, const char *name)
{
    H5L_info_t info;
    return H5Lexists(file, name, H5P_DEFAULT) > 0 && H5Lget_info(file, name, &info, H5P_DEFAULT) >= 0 &&
           info.type == H5L_TYPE_HARD;
}

/* Opens a dataset and compares it with the schema: nothing that is read or written later can be out of
 * bounds. */
static int open_dataset(hid_t file, const char *path, const char *name, const struct dataset_info *info,
                        const int64_t extents[DIM_COUNT], hid_t *ret, struct error *err)
{
    if (!is_there(file, name))
        return foreign(err, path, "no dataset %s", name);
    SCOPED(dataset) dataset = H5Dopen2(file, name, H5P_DEFAULT);
    if (dataset < 0)
        return hdf5_error(err, path, "not an sgdmap result file: dataset %s", name);
    SCOPED(space) space = H5Dget_space(dataset);
    SCOPED(type) type = H5Dget_type(dataset);
    SCOPED(plist) list = H5Dget_create_plist(dataset);
    if (space < 0 || type < 0 || list < 0)
        return hdf5_error(err, path, "not an sgdmap result file: dataset %s", name);
    if (H5Tequal(type, file_type(info->type)) <= 0)
        return foreign(err, path, "dataset %s: its type is another one", name);
    hsize_t size[H5S_MAX_RANK] = {0};
    if (H5Sget_simple_extent_ndims(space) != info->rank ||
        H5Sget_simple_extent_dims(space, size, NULL) != info->rank)
        return foreign(err, path, "dataset %s: it has not %d dimensions", name, info->rank);
    uint64_t bytes = type_size(info->type);
    for (int at = 0; at < info->rank; at++) {
        uint64_t expected = (uint64_t)extents[info->dims[at]];
        if (size[at] != expected)
            return foreign(err, path, "dataset %s: %llu entries along %s, %llu by its config", name,
                           (unsigned long long)size[at], dimension_name(info->dims[at]),
                           (unsigned long long)expected);
        if (__builtin_mul_overflow(bytes, expected, &bytes))
            return foreign(err, path, "dataset %s: its size is beyond any file", name);
    }
    hsize_t file_size = 0;
    haddr_t offset = H5Dget_offset(dataset);
    if (H5Pget_layout(list) != H5D_CONTIGUOUS || H5Pget_external_count(list) != 0 || offset == HADDR_UNDEF ||
        H5Dget_storage_size(dataset) != bytes || H5Fget_filesize(file, &file_size) < 0 || bytes > file_size ||
        offset > file_size - bytes)
        return foreign(err, path, "dataset %s: its rows are not all in the file", name);
    H5Iinc_ref(dataset);
    *ret = dataset;
    return ERROR_NONE;
}

/* Opens every dataset of the config. */
static int open_datasets(struct store *store, struct error *err)
{
    for (int id = 0; id < DATASET_COUNT; id++) {
        if (!has_dataset(store->config, id))
            continue;
        struct dataset_info info = root_dataset(id);
        TRY(open_dataset(store->file, store->path, info.name, &info, store->extents, &store->datasets[id],
                         err));
    }
    if (store->config->weights == WEIGHTS_NONE)
        return ERROR_NONE;

    store->weights = allocate(store->grid->block_count, sizeof *store->weights);
    if (store->weights == NULL)
        return error_set(err, ERROR_MEMORY, "%s: no memory to open it", store->path);
    struct weights weights;
    for (int64_t block = 0; next_weights(store->grid, &block, &weights);) {
        struct weights *opened = &store->weights[store->weights_count++];
        *opened = weights;
        char group[32];
        weights_name(weights.dimension, group);
        if (!is_there(store->file, group))
            return foreign(err, store->path, "no group %s", group);
        const int64_t d = weights.dimension;
        const int64_t extents[DIM_COUNT] = {
            [DIM_RUN] = weights.run_count, [DIM_COMPONENT] = d, [DIM_NEURON] = d};
        for (int id = 0; id < WEIGHTS_COUNT; id++) {
            char name[64];
            snprintf(name, sizeof name, "%s/%s", group, weights_datasets[id].name);
            TRY(open_dataset(store->file, store->path, name, &weights_datasets[id], extents,
                             &opened->datasets[id], err));
        }
    }
    return ERROR_NONE;
}

enum direction { READ, WRITE };

/* Moves the rows first … first + count - 1 of a dataset, one contiguous piece of the file, from or to
 * `buffer`. The transfers are independent, which is HDF5's default for MPI-IO: ranks finish their groups when
 * they do. */
static int transfer(struct store *store, enum direction direction, hid_t dataset,
                    const struct dataset_info *info, const int64_t extents[DIM_COUNT], int64_t first,
                    int64_t count, void *buffer, struct error *err)
{
    const int64_t values = row_values(info, extents);
    const int64_t row_bytes = values * (int64_t)type_size(info->type);
    const int64_t most = TRANSFER_BYTES / row_bytes > 1 ? TRANSFER_BYTES / row_bytes : 1;
    char *at = buffer;
    for (int64_t end = first + count; first < end;) {
        if (store->stop != NULL && *store->stop)
            return error_set(err, ERROR_INTERRUPTED,
                             "%s: interrupted while it was created; the same command begins again",
                             store->path);
        if (direction == WRITE)
            TRY(fault_at(info->name, err));
        int64_t rows = end - first < most ? end - first : most;
        hsize_t start[RANK_MAX] = {(hsize_t)first}, size[RANK_MAX] = {(hsize_t)rows};
        for (int dim = 1; dim < info->rank; dim++)
            size[dim] = (hsize_t)extents[info->dims[dim]];
        SCOPED(space) in_file = H5Dget_space(dataset);
        SCOPED(space) in_memory = H5Screate_simple(1, &(hsize_t){(hsize_t)(rows * values)}, NULL);
        herr_t status = -1;
        if (in_file >= 0 && in_memory >= 0 &&
            H5Sselect_hyperslab(in_file, H5S_SELECT_SET, start, NULL, size, NULL) >= 0)
            status = direction == READ
                         ? H5Dread(dataset, memory_type(info->type), in_memory, in_file, H5P_DEFAULT, at)
                         : H5Dwrite(dataset, memory_type(info->type), in_memory, in_file, H5P_DEFAULT, at);
        if (status < 0)
            return hdf5_error(err, store->path, "%s, runs %lld to %lld: cannot be %s", info->name,
                              (long long)first, (long long)(first + rows - 1),
                              direction == READ ? "read" : "written");
        at += rows * row_bytes;
        first += rows;
    }
    return ERROR_NONE;
}

static int root_transfer(struct store *store, enum direction direction, int id, int64_t first, int64_t count,
                         void *buffer, struct error *err)
{
    struct dataset_info info = root_dataset(id);
    return transfer(store, direction, store->datasets[id], &info, store->extents, first, count, buffer, err);
}

/* `first` is the run's number in the sweep; all runs have the dimension of `weights`. */
static int weights_transfer(struct store *store, enum direction direction, const struct weights *weights,
                            int id, int64_t first, int64_t count, void *buffer, struct error *err)
{
    const int64_t d = weights->dimension;
    const int64_t extents[DIM_COUNT] = {
        [DIM_RUN] = weights->run_count, [DIM_COMPONENT] = d, [DIM_NEURON] = d};
    return transfer(store, direction, weights->datasets[id], &weights_datasets[id], extents,
                    first - weights->first_run, count, buffer, err);
}

/* The weights' group of a run; NULL if the config keeps none. */
static const struct weights *weights_of(const struct store *store, int64_t run)
{
    for (int64_t at = 0; at < store->weights_count; at++)
        if (run < store->weights[at].first_run + store->weights[at].run_count)
            return &store->weights[at];
    return NULL;
}

/* -- Columns: a member of many structs as a dataset's values --------------------------------------- */

static void gather(const struct dataset_info *info, const void *structs, size_t stride, int64_t count,
                   void *ret)
{
    const char *member = (const char *)structs + info->offset;
    for (int64_t at = 0; at < count; at++, member += stride) {
        if (info->type == TYPE_I8) {
            unsigned value;
            memcpy(&value, member, sizeof value);
            ((int8_t *)ret)[at] = (int8_t)value;
        } else {
            memcpy((char *)ret + 8 * at, member, 8);
        }
    }
}

static void scatter(const struct dataset_info *info, const void *values, int64_t count, void *structs,
                    size_t stride)
{
    char *member = (char *)structs + info->offset;
    for (int64_t at = 0; at < count; at++, member += stride) {
        if (info->type == TYPE_I8) {
            unsigned value = (unsigned)((const int8_t *)values)[at];
            memcpy(member, &value, sizeof value);
        } else {
            memcpy(member, (const char *)values + 8 * at, 8);
        }
    }
}

static_assert(sizeof(enum outcome) == sizeof(unsigned) && sizeof(enum link_kind) == sizeof(unsigned),
              "columns of flags are copied as unsigned");

/* Reads the columns of one source into structs. `buffer` has room for `count` values. */
static int read_columns(struct store *store, enum source source, int64_t first, int64_t count, void *structs,
                        size_t stride, void *buffer, struct error *err)
{
    for (int id = 0; id < DATASET_COUNT; id++) {
        if (!is_column(store->config, id, source))
            continue;
        TRY(root_transfer(store, READ, id, first, count, buffer, err));
        scatter(&root_datasets[id], buffer, count, structs, stride);
    }
    return ERROR_NONE;
}

/* -- Creation -------------------------------------------------------------------------------------- */

/* Coordinates and settings, in blocks: 10^8 runs take no more memory than 10^5. */
static int write_settings(struct store *store, struct error *err)
{
    const int64_t block = store->grid->run_count < BLOCK_RUNS ? store->grid->run_count : BLOCK_RUNS;
    struct setting *settings = allocate(block, sizeof *settings);
    void *buffer = allocate(block, 8);
    int code = settings == NULL || buffer == NULL ? no_memory(err, store->path) : ERROR_NONE;
    for (int64_t first = 0; code == ERROR_NONE && first < store->grid->run_count; first += block) {
        int64_t count = store->grid->run_count - first < block ? store->grid->run_count - first : block;
        for (int64_t at = 0; at < count; at++)
            grid_setting(store->grid, first + at, &settings[at]);
        for (int id = 0; id < DATASET_COUNT && code == ERROR_NONE; id++) {
            if (!is_column(store->config, id, SOURCE_SETTING))
                continue;
            gather(&root_datasets[id], settings, sizeof *settings, count, buffer);
            code = root_transfer(store, WRITE, id, first, count, buffer, err);
        }
    }
    free(settings);
    free(buffer);
    return code;
}

static int write_steps(struct store *store, struct error *err)
{
    const int64_t count = store->config->record_count;
    int64_t *steps = allocate(count, sizeof *steps);
    if (steps == NULL)
        return no_memory(err, store->path);
    record_steps(store->config->steps, count, steps);
    int code = root_transfer(store, WRITE, DATASET_STEP, 0, count, steps, err);
    free(steps);
    return code;
}

/* The scales of a weights group count from their first value. */
static int write_counting(struct store *store, const struct weights *weights, int id, int64_t from,
                          int64_t count, struct error *err)
{
    int64_t buffer[4096];
    const int64_t block = (int64_t)(sizeof buffer / sizeof *buffer);
    const int64_t extents[DIM_COUNT] = {count, count, count, count};
    for (int64_t first = 0; first < count; first += block) {
        int64_t rows = count - first < block ? count - first : block;
        for (int64_t at = 0; at < rows; at++)
            buffer[at] = from + first + at;
        TRY(transfer(store, WRITE, weights->datasets[id], &weights_datasets[id], extents, first, rows, buffer,
                     err));
    }
    return ERROR_NONE;
}

/* The values of what has yet to come. The file is empty where nothing was written, so that zeros need no writing; and a shard's
 * file stays empty where the trajectories and weights of other shards would be, so that many of them are not as many times as
 * large. The first row is that of `first_run`. */
static int write_fill(struct store *store, hid_t dataset, const struct dataset_info *info,
                      const int64_t extents[DIM_COUNT], int64_t first_run, struct error *err)
{
    if (info->fill == FILL_NONE || info->fill == FILL_ZERO)
        return ERROR_NONE;
    const int64_t rows = extents[info->dims[0]];
    const bool in_parts = store->grid->shard_count > 1 && info->rank > 1;
    const int64_t row_bytes = row_values(info, extents) * (int64_t)type_size(info->type);
    int64_t block = FILL_BYTES / row_bytes > 1 ? FILL_BYTES / row_bytes : 1;
    if (block > rows)
        block = rows;
    double *values = allocate((block * row_bytes + 7) / 8, 8);
    if (values == NULL)
        return no_memory(err, store->path);
    for (int64_t at = 0; at < (block * row_bytes + 7) / 8; at++)
        if (info->fill == FILL_NAN)
            values[at] = NAN;
        else
            memset(&values[at], 0xff, sizeof *values);
    int code = ERROR_NONE;
    for (int64_t from = first_run, to = first_run + rows, next = first_run;
         code == ERROR_NONE && next < first_run + rows; next = to) {
        if (in_parts && !grid_next_runs(store->grid, next, first_run + rows, &from, &to))
            break;
        for (int64_t first = from; code == ERROR_NONE && first < to; first += block)
            code = transfer(store, WRITE, dataset, info, extents, first - first_run,
                            to - first < block ? to - first : block, values, err);
    }
    free(values);
    return code;
}

static int write_fills(struct store *store, struct error *err)
{
    for (int id = 0; id < DATASET_COUNT; id++) {
        const struct dataset_info info = root_dataset(id);
        if (has_dataset(store->config, id))
            TRY(write_fill(store, store->datasets[id], &info, store->extents, 0, err));
    }
    for (int64_t at = 0; at < store->weights_count; at++) {
        const struct weights *weights = &store->weights[at];
        const int64_t d = weights->dimension;
        const int64_t extents[DIM_COUNT] = {
            [DIM_RUN] = weights->run_count, [DIM_COMPONENT] = d, [DIM_NEURON] = d};
        for (int id = 0; id < WEIGHTS_COUNT; id++)
            TRY(write_fill(store, weights->datasets[id], &weights_datasets[id], extents, weights->first_run,
                           err));
    }
    return ERROR_NONE;
}

static int write_known(struct store *store, struct error *err)
{
    TRY(write_settings(store, err));
    TRY(write_steps(store, err));
    for (int64_t at = 0; at < store->weights_count; at++) {
        const struct weights *weights = &store->weights[at];
        TRY(write_counting(store, weights, WEIGHTS_RUN, weights->first_run, weights->run_count, err));
        TRY(write_counting(store, weights, WEIGHTS_COMPONENT, 0, weights->dimension, err));
        TRY(write_counting(store, weights, WEIGHTS_NEURON, 0, weights->dimension, err));
    }
    return ERROR_NONE;
}

/* -- Sizes ----------------------------------------------------------------------------------------- */

/* *total += the dataset's bytes, of its rows `share` if it has any; false on overflow. */
static bool add_size(const struct config *config, const struct dataset_info *info,
                     const int64_t extents[DIM_COUNT], double share, int64_t *total)
{
    int64_t bytes = (int64_t)type_size(info->type);
    for (int at = 0; at < info->rank; at++)
        if (__builtin_mul_overflow(bytes, extents[info->dims[at]], &bytes))
            return false;
    if (bytes >= config->file_threshold && __builtin_add_overflow(*total, config->file_alignment - 1, total))
        return false;
    if (info->rank > 1 && share < 1)
        bytes = (int64_t)(share * (double)bytes);
    return !__builtin_add_overflow(*total, bytes + DATASET_METADATA, total);
}

/* With so much of the trajectories and weights. */
static int64_t size_of_share(const struct config *config, const struct grid *grid, double share)
{
    int64_t total = METADATA_BLOCK + HISTORY_SIZE + (int64_t)strlen(config->text);
    int64_t metadata = total + (int64_t)DATASET_COUNT * DATASET_METADATA;
    const int64_t extents[DIM_COUNT] = {[DIM_RUN] = grid->run_count, [DIM_STEP] = config->record_count};
    for (int id = 0; id < DATASET_COUNT; id++) {
        struct dataset_info info = root_dataset(id);
        if (has_dataset(config, id) && !add_size(config, &info, extents, share, &total))
            return INT64_MAX;
    }
    struct weights weights;
    for (int64_t block = 0; config->weights != WEIGHTS_NONE && next_weights(grid, &block, &weights);) {
        const int64_t d = weights.dimension;
        const int64_t weights_extents[DIM_COUNT] = {
            [DIM_RUN] = weights.run_count, [DIM_COMPONENT] = d, [DIM_NEURON] = d};
        for (int id = 0; id < WEIGHTS_COUNT; id++)
            if (!add_size(config, &weights_datasets[id], weights_extents, share, &total))
                return INT64_MAX;
        metadata += (int64_t)WEIGHTS_COUNT * DATASET_METADATA;
    }
    /* Blocks of metadata are aligned too. */
    const int64_t blocks = config->file_threshold <= METADATA_BLOCK ? metadata / METADATA_BLOCK + 4 : 1;
    return __builtin_add_overflow(total, blocks * (config->file_alignment - 1), &total) ? INT64_MAX : total;
}

int64_t store_file_size(const struct config *config, const struct grid *grid)
{
    return size_of_share(config, grid, 1);
}

/* What a shard's file takes on the disk, about. */
static int64_t shard_space(const struct config *config, const struct grid *grid)
{
    return size_of_share(config, grid, (double)grid->shard_runs / (double)grid->run_count);
}

/* -- The new file ---------------------------------------------------------------------------------- */

/* Makes the whole file under the name `temporary`, which exists and is empty. */
static int make_file(const char *path, const char *temporary, const struct config *config,
                     const struct grid *grid, const struct provenance *provenance,
                     const volatile sig_atomic_t *stop, struct error *err)
{
    SCOPED(plist) access = serial_access();
    SCOPED(plist) creation = H5Pcreate(H5P_FILE_CREATE);
    const unsigned order = H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED;
    if (access < 0 || H5Pset_meta_block_size(access, METADATA_BLOCK) < 0 || creation < 0 ||
        H5Pset_link_creation_order(creation, order) < 0 || H5Pset_attr_creation_order(creation, order) < 0 ||
        H5Pset_obj_track_times(creation, false) < 0 ||
        (config->file_alignment > 1 &&
         H5Pset_alignment(access, (hsize_t)config->file_threshold, (hsize_t)config->file_alignment) < 0))
        return hdf5_error(err, path, "cannot be described");

    struct store store;
    int code = init_store(&store, path, config, grid, err);
    store.stop = stop;
    if (code == ERROR_NONE) {
        store.file = H5Fcreate(temporary, H5F_ACC_TRUNC, creation, access);
        if (store.file < 0)
            code = hdf5_error(err, path, "cannot be created");
    }
    if (code == ERROR_NONE)
        code = create_everything(store.file, path, config, grid, provenance, err);
    if (code == ERROR_NONE)
        code = open_datasets(&store, err);
    if (code == ERROR_NONE)
        code = write_known(&store, err);
    if (code == ERROR_NONE)
        code = write_fills(&store, err);
    int close_code = done_store(&store, code == ERROR_NONE ? err : NULL);
    return code != ERROR_NONE ? code : close_code;
}

static int sync_path(const char *path, const char *name, int flags, struct error *err)
{
    const int reason = path_sync(name, flags);
    if (reason != 0)
        return error_set(err, ERROR_IO, "%s: %s cannot be brought to the disk: %s", path, name,
                         strerror(reason));
    return ERROR_NONE;
}

/* Gives the finished file its name, without ever replacing another's. */
static int put_into_place(const char *path, const char *temporary, bool replace, struct error *err)
{
    int status;
    if (replace) {
        status = rename(temporary, path);
    } else {
        status = renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE);
        if (status < 0 && (errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)) {
            /* NFS and others: a second name, which is as exclusive, and the first one goes. */
            status = link(temporary, path);
            if (status == 0)
                unlink(temporary);
            else if (errno != EEXIST && access(path, F_OK) < 0 && errno == ENOENT)
                status =
                    rename(temporary, path); /* no second names here either: a look, and the job's lock */
        }
    }
    if (status < 0)
        return error_set(err, ERROR_IO, "%s: cannot be put into place: %s", path, strerror(errno));
    return ERROR_NONE;
}

/* Everything that can be known before anything is made. `folder` is the file's. */
static int check_place(const char *path, const char *folder, bool overwrite, int64_t size, int64_t space,
                       bool *replace, struct error *err)
{
    if (path[0] == '\0' || path[strlen(path) - 1] == '/')
        return error_set(err, ERROR_IO, "%s: names a folder, a file is needed",
                         path[0] == '\0' ? "\"\"" : path);
    struct stat at;
    if (stat(folder, &at) < 0)
        return error_set(err, ERROR_IO, "%s: its folder %s cannot be used: %s", path, folder,
                         strerror(errno));
    if (!S_ISDIR(at.st_mode))
        return error_set(err, ERROR_IO, "%s: %s is not a folder", path, folder);
    enum store_presence presence;
    TRY(store_probe(path, &presence, err));
    if (presence == STORE_FOREIGN)
        return error_set(
            err, ERROR_IO,
            "%s: exists and is not a result file of sgdmap, so it is left alone: move it away or "
            "choose another name",
            path);
    if (presence == STORE_OURS && !overwrite)
        return error_set(err, ERROR_IO, "%s: exists already", path);
    *replace = presence == STORE_OURS;
    if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) < 0)
        return error_set(err, ERROR_IO, "%s: its folder %s cannot be written: %s", path, folder,
                         strerror(errno));

    char needed[32], available[32];
    human((double)space, needed);
    struct statvfs system;
    if (statvfs(folder, &system) == 0) {
        double free_bytes = (double)system.f_bavail * (double)system.f_frsize;
        if ((double)space > free_bytes)
            return error_set(err, ERROR_IO, "%s: the sweep needs %s, %s are free on its file system", path,
                             needed, human(free_bytes, available));
    }
    human((double)size, needed);
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        (double)size > (double)limit.rlim_cur)
        return error_set(err, ERROR_IO, "%s: the sweep needs %s, files are limited to %s (ulimit -f)", path,
                         needed, human((double)limit.rlim_cur, available));
    return ERROR_NONE;
}

/* Makes the empty temporary file and asks for its space, which finds out about quotas; not with size 0. */
static int reserve(const char *path, const char *temporary, int64_t size, struct error *err)
{
    if (unlink(temporary) < 0 && errno != ENOENT)
        return error_set(err, ERROR_IO, "%s: %s, left by a creation that was killed, cannot be removed: %s",
                         path, temporary, strerror(errno));
    int descriptor = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor < 0)
        return error_set(err, ERROR_IO, "%s: cannot be created: %s", path, strerror(errno));
    int reason = size == 0 || fallocate(descriptor, 0, 0, size) == 0 ? 0 : errno;
    close(descriptor);
    if (reason == ENOSPC || reason == EDQUOT || reason == EFBIG) {
        char needed[32];
        unlink(temporary);
        return error_set(err, ERROR_IO, "%s: the sweep needs %s: %s", path, human((double)size, needed),
                         strerror(reason));
    }
    return ERROR_NONE;
}

/* What a symbolic link leads to, so that a rename replaces the file and not the link. Free with free(). */
static char *resolve(const char *path)
{
    char *target = realpath(path, NULL);
    return target != NULL ? target : strdup(path);
}

static int name_place(const char *path, struct new_file *ret, struct error *err)
{
    struct new_file place = {.target = resolve(path)};
    SCOPED_TEXT folder_copy = place.target != NULL ? strdup(place.target) : NULL;
    SCOPED_TEXT name_copy = place.target != NULL ? strdup(place.target) : NULL;
    if (folder_copy != NULL && name_copy != NULL) {
        place.folder = strdup(dirname(folder_copy));
        if (place.folder == NULL ||
            asprintf(&place.temporary, "%s/.%s.creating", place.folder, basename(name_copy)) < 0)
            place.temporary = NULL;
    }
    if (place.temporary == NULL) {
        done_place(&place);
        return error_set(err, ERROR_MEMORY, "%s: no memory for its name", path);
    }
    *ret = place;
    return ERROR_NONE;
}

/* Makes the whole file under its temporary name, which is the caller's to remove. */
static int begin_file(const char *path, bool overwrite, const struct config *config, const struct grid *grid,
                      const struct provenance *provenance, const volatile sig_atomic_t *stop,
                      struct new_file *place, struct error *err)
{
    /* A shard's file has holes: what is to be there is written, and brought to the disk, before it is named. */
    const int64_t size = store_file_size(config, grid);
    const bool whole = grid->shard_count == 1;
    TRY(check_place(path, place->folder, overwrite, size, whole ? size : shard_space(config, grid),
                    &place->replace, err));
    TRY(reserve(path, place->temporary, whole ? size : 0, err));
    int code = fault_at("create: reserved", err);
    if (code == ERROR_NONE)
        code = make_file(path, place->temporary, config, grid, provenance, stop, err);
    if (code != ERROR_NONE)
        unlink(place->temporary);
    return code;
}

/* Without a name the file goes. */
static int name_file(const char *path, const struct new_file *place, struct error *err)
{
    int code = sync_path(path, place->temporary, 0, err);
    if (code == ERROR_NONE)
        code = fault_at("create: to be named", err);
    if (code == ERROR_NONE)
        code = put_into_place(place->target, place->temporary, place->replace, err);
    if (code != ERROR_NONE) {
        unlink(place->temporary);
        return code;
    }
    TRY(fault_at("create: named", err));
    return sync_path(path, place->folder, O_DIRECTORY, err);
}

/* Local. One process makes the file: its failure, at whatever point, is one error on which all agree, and the
 * metadata takes as long for a thousand ranks as for one. */
static int create_file(const char *path, bool overwrite, const struct config *config, const struct grid *grid,
                       const struct provenance *provenance, const volatile sig_atomic_t *stop,
                       struct error *err)
{
    struct new_file place;
    TRY(name_place(path, &place, err));
    int code = begin_file(path, overwrite, config, grid, provenance, stop, &place, err);
    if (code == ERROR_NONE)
        code = name_file(path, &place, err);
    done_place(&place);
    return code;
}

/* -- Opening --------------------------------------------------------------------------------------- */

/* A file of ours has none of what makes HDF5 keep more than objects: it would be read, and written at the next close. */
static int check_layout(hid_t file, const char *path, struct error *err)
{
    SCOPED(plist) list = H5Fget_create_plist(file);
    hsize_t user_block = 1, threshold;
    H5F_fspace_strategy_t strategy;
    hbool_t persists = true;
    unsigned tables = 1;
    if (list < 0 || H5Pget_userblock(list, &user_block) < 0 ||
        H5Pget_file_space_strategy(list, &strategy, &persists, &threshold) < 0 ||
        H5Pget_shared_mesg_nindexes(list, &tables) < 0)
        return hdf5_error(err, path, "not an sgdmap result file");
    if (user_block != 0 || strategy != H5F_FSPACE_STRATEGY_FSM_AGGR || persists || tables != 0)
        return foreign(err, path, "its layout is another one");
    return ERROR_NONE;
}

/* Opens a regular file in this process alone. */
static int open_serial(const char *path, unsigned flags, hid_t *ret, struct error *err)
{
    struct stat at;
    if (stat(path, &at) < 0)
        return error_set(err, ERROR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    if (!S_ISREG(at.st_mode)) /* opening a pipe would wait for its other end */
        return foreign(err, path, "%s", S_ISDIR(at.st_mode) ? "a folder" : "not a regular file");
    int mode = flags == H5F_ACC_RDONLY ? R_OK : R_OK | W_OK;
    if (faccessat(AT_FDCWD, path, mode, AT_EACCESS) < 0)
        return error_set(err, ERROR_IO, "%s: cannot be opened for %s: %s", path,
                         flags == H5F_ACC_RDONLY ? "reading" : "writing", strerror(errno));
    SCOPED(plist) access = serial_access();
    if (access < 0)
        return hdf5_error(err, path, "cannot be opened");
    hid_t file = H5Fopen(path, flags, access);
    if (file < 0)
        return hdf5_error(err, path, "not an sgdmap result file");
    int code = check_layout(file, path, err);
    if (code != ERROR_NONE)
        H5Fclose(file);
    else
        *ret = file;
    return code;
}

static int check_version(hid_t file, const char *path, struct error *err)
{
    int64_t version = read_number(file, "format_version");
    if (version < 0)
        return foreign(err, path, "no attribute format_version");
    if (version != FORMAT_VERSION)
        return error_set(err, ERROR_IO, "%s: its format is version %lld, this program knows version %d", path,
                         (long long)version, FORMAT_VERSION);
    return ERROR_NONE;
}

static int check_digest(hid_t file, const char *path, const struct config *config, struct error *err)
{
    char digest[CONFIG_DIGEST_SIZE];
    config_digest(config, digest);
    SCOPED_TEXT stored = read_text(file, "config_digest", NULL);
    if (stored == NULL)
        return foreign(err, path, "no attribute config_digest");
    if (strcmp(stored, digest) != 0)
        return foreign(err, path, "its config_digest is %.40s, its config gives %s", stored, digest);
    return ERROR_NONE;
}

/* Local. Checks the file before all ranks open it, and adds to its history. */
static int prepare_open(const char *path, const struct config *config, const struct grid *grid,
                        const struct provenance *provenance, struct error *err)
{
    struct store store;
    int code = init_store(&store, path, config, grid, err);
    if (code == ERROR_NONE)
        code = open_serial(path, H5F_ACC_RDWR, &store.file, err);
    if (code == ERROR_NONE)
        code = check_version(store.file, path, err);
    if (code == ERROR_NONE)
        code = check_digest(store.file, path, config, err);
    if (code == ERROR_NONE)
        code = open_datasets(&store, err);
    /* The same bytes, but where someone has damaged them: settings belong to what a run's checksum stands for. */
    if (code == ERROR_NONE)
        code = write_known(&store, err);
    if (code == ERROR_NONE)
        code = append_history(store.file, path, provenance->history, err);
    if (code == ERROR_NONE)
        code = update_ranks(store.file, path, provenance->ranks, err);
    int close_code = done_store(&store, code == ERROR_NONE ? err : NULL);
    return code != ERROR_NONE ? code : close_code;
}

/* The config's hints for MPI-IO, MPI_INFO_NULL without any. */
static MPI_Info make_hints(const struct config *config)
{
    MPI_Info info = MPI_INFO_NULL;
    for (const char *line = config->file_hints; *line != '\0'; line = strchr(line, '\n') + 1) {
        char name[MPI_MAX_INFO_KEY], value[MPI_MAX_INFO_VAL];
        const int name_length = (int)strcspn(line, "="), length = (int)strcspn(line, "\n");
        snprintf(name, sizeof name, "%.*s", name_length, line);
        snprintf(value, sizeof value, "%.*s", length - name_length - 1, line + name_length + 1);
        if (info == MPI_INFO_NULL)
            MPI_Info_create(&info);
        MPI_Info_set(info, name, value);
    }
    return info;
}

/* Collective. Opens a file that rank 0 has just checked. Each rank opens it for itself: the file is complete and rows are
 * written independently, so nothing in HDF5 needs the others, and a rank whose writes fail cannot leave them waiting
 * inside HDF5's barriers. */
static int open_parallel(const char *path, const struct config *config, const struct grid *grid,
                         MPI_Comm comm, struct store **ret, struct error *err)
{
    struct store *store = malloc(sizeof *store);
    int code = store == NULL ? error_set(err, ERROR_MEMORY, "%s: no memory to open it", path)
                             : init_store(store, path, config, grid, err);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    MPI_Info hints = make_hints(config);
    if (code == ERROR_NONE && (access < 0 || H5Pset_fapl_mpio(access, MPI_COMM_SELF, hints) < 0))
        code = hdf5_error(err, path, "cannot be opened");
    if (hints != MPI_INFO_NULL)
        MPI_Info_free(&hints);
    if (code == ERROR_NONE && faccessat(AT_FDCWD, path, R_OK | W_OK, AT_EACCESS) < 0)
        code = error_set(err, ERROR_IO, "%s: cannot be opened for writing: %s", path, strerror(errno));
    /* The whole path: MPI-IO reads "-" and "ufs:" at the beginning of a name in its own ways. */
    char *whole = code == ERROR_NONE ? realpath(path, NULL) : NULL;
    if (code == ERROR_NONE) {
        store->file = H5Fopen(whole != NULL ? whole : path, H5F_ACC_RDWR, access);
        if (store->file < 0)
            code = hdf5_error(err, path, "cannot be opened");
    }
    if (code == ERROR_NONE) {
        struct stat at;
        store->descriptor = open(whole != NULL ? whole : path, O_RDWR | O_CLOEXEC);
        if (store->descriptor < 0 || fstat(store->descriptor, &at) < 0)
            code = error_set(err, ERROR_IO, "%s: cannot be opened: %s", path, strerror(errno));
        else
            store->size = at.st_size;
    }
    free(whole);
    if (access >= 0)
        H5Pclose(access);
    if (code == ERROR_NONE)
        code = open_datasets(store, err);
    code = comm_agree(comm, err, code);
    if (code != ERROR_NONE || store == NULL) {
        if (store != NULL)
            (void)!done_store(store, NULL);
        free(store);
        return code;
    }
    store->parallel = true;
    store->comm = comm;
    *ret = store;
    return ERROR_NONE;
}

int store_create(const char *path, bool overwrite, const struct config *config, const struct grid *grid,
                 const struct provenance *provenance, const volatile sig_atomic_t *stop, MPI_Comm comm,
                 struct store **ret, struct error *err)
{
    quiet();
    int rank;
    MPI_Comm_rank(comm, &rank);
    int code = rank == 0 ? create_file(path, overwrite, config, grid, provenance, stop, err) : ERROR_NONE;
    TRY(comm_agree(comm, err, code));
    return open_parallel(path, config, grid, comm, ret, err);
}

int store_open(const char *path, const struct config *config, const struct grid *grid,
               const struct provenance *provenance, MPI_Comm comm, struct store **ret, struct error *err)
{
    quiet();
    int rank;
    MPI_Comm_rank(comm, &rank);
    int code = rank == 0 ? prepare_open(path, config, grid, provenance, err) : ERROR_NONE;
    TRY(comm_agree(comm, err, code));
    return open_parallel(path, config, grid, comm, ret, err);
}

/* Without the attribute the file is one of the whole sweep. */
static int read_shard(hid_t file, const char *path, struct grid *grid, struct error *err)
{
    int64_t shard, count;
    if (H5Aexists(file, "shard") == 0)
        return ERROR_NONE;
    SCOPED_TEXT text = read_text(file, "shard", NULL);
    if (text == NULL || !grid_parse_shard(text, &shard, &count))
        return foreign(err, path, "its attribute shard is %.40s, expected I/N with I from 0 to N - 1",
                       text != NULL ? text : "no text");
    grid_take_shard(grid, shard, count);
    return ERROR_NONE;
}

/* Fills `config` and `grid` from the file's own text. Both are untouched on failure. */
static int read_config(hid_t file, const char *path, struct config *config, struct grid *grid,
                       struct error *err)
{
    TRY(check_version(file, path, err));
    SCOPED_TEXT text = read_text(file, "config", NULL);
    SCOPED_TEXT overrides = read_text(file, "config_overrides", NULL);
    if (text == NULL || overrides == NULL)
        return foreign(err, path, "no attribute config");

    struct config parsed;
    int code = config_parse("its config", text, strlen(text), overrides, &parsed, err);
    if (code == ERROR_NONE) {
        struct grid expanded;
        code = grid_expand(&parsed, &expanded, err);
        if (code == ERROR_NONE) {
            hsize_t size = 0;
            if (H5Fget_filesize(file, &size) < 0 || (hsize_t)expanded.run_count > size)
                code = foreign(err, path, "%lld runs by its config are more than its bytes",
                               (long long)expanded.run_count);
            if (code == ERROR_NONE)
                code = check_digest(file, path, &parsed, err);
            if (code == ERROR_NONE)
                code = read_shard(file, path, &expanded, err);
            if (code == ERROR_NONE) {
                *config = parsed;
                *grid = expanded;
                grid->config = config;
                return ERROR_NONE;
            }
            grid_done(&expanded);
            config_done(&parsed);
            return code;
        }
        config_done(&parsed);
    }
    if (code == ERROR_ARGUMENT) { /* the text is the file's, not the caller's */
        error_prefix(err, "%s: not an sgdmap result file: ", path);
        if (err != NULL)
            err->code = ERROR_IO;
        code = ERROR_IO;
    }
    return code;
}

static int open_read(const char *path, struct config *config, struct grid *grid, struct store **ret,
                     struct error *err)
{
    hid_t file = H5I_INVALID_HID;
    TRY(open_serial(path, H5F_ACC_RDONLY, &file, err));
    int code = read_config(file, path, config, grid, err);
    if (code != ERROR_NONE) {
        H5Fclose(file);
        return code;
    }
    struct store *store = malloc(sizeof *store);
    if (store == NULL) {
        H5Fclose(file);
        code = error_set(err, ERROR_MEMORY, "%s: no memory to open it", path);
    } else {
        code = init_store(store, path, config, grid, err);
        store->file = file;
        if (code == ERROR_NONE)
            code = open_datasets(store, err);
        if (code != ERROR_NONE)
            (void)!done_store(store, NULL);
    }
    if (code != ERROR_NONE) {
        free(store);
        grid_done(grid);
        config_done(config);
        return code;
    }
    *ret = store;
    return ERROR_NONE;
}

/* HDF5 1.10 crashes on some damaged files, loops on others, and takes what memory they name. So a child process reads first
 * all that the parent will leave to HDF5: everything but rows. The memory is for the largest of configs, the time for a
 * thousand groups of weights. */
static const struct guard_limits read_limits = {
    .memory = INT64_C(1) << 30, .cpu_seconds = 10, .wall_seconds = 120};

static int guarded(const char *path, int (*work)(void *context, struct error *err), bool *died,
                   struct error *err)
{
    struct error trouble = {0};
    int code = guard_call(&read_limits, work, (void *)path, died, &trouble);
    if (code != ERROR_NONE && *died)
        return foreign(err, path, "HDF5 cannot read it: %s", trouble.message);
    if (code != ERROR_NONE && err != NULL)
        *err = trouble;
    return code;
}

/* In the child, which keeps nothing. */
static int try_read(void *path, struct error *err)
{
    struct config config;
    struct grid grid;
    struct store *store = NULL;
    TRY(open_read(path, &config, &grid, &store, err));
    (void)!store_check_frame(store, NULL); /* verify tells of it; here it is enough that it comes to an end */
    free(read_text(store->file, "history", NULL));
    free(read_text(store->file, "blis_kernels", NULL));
    (void)store_ranks(store);
    return store_close(store, err);
}

int store_open_read(const char *path, struct config *config, struct grid *grid, struct store **ret,
                    struct error *err)
{
    quiet();
    bool died = false;
    TRY(guarded(path, try_read, &died, err));
    return open_read(path, config, grid, ret, err);
}

int store_close(struct store *store, struct error *err)
{
    if (store == NULL)
        return ERROR_NONE;
    const bool parallel = store->parallel;
    const MPI_Comm comm = store->comm;
    int code = ERROR_NONE;
    if (parallel && H5Fflush(store->file, H5F_SCOPE_LOCAL) < 0) /* with MPI-IO this reaches the disk */
        code = hdf5_error(err, store->path, "cannot be brought to the disk");
    int close_code = done_store(store, code == ERROR_NONE ? err : NULL);
    free(store);
    code = code != ERROR_NONE ? code : close_code;
    return parallel ? comm_agree(comm, err, code) : code;
}

bool store_left_open(void)
{
    return H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_FILE) > 0;
}

static int try_probe(void *path, struct error *err)
{
    hid_t file = H5I_INVALID_HID;
    TRY(open_serial(path, H5F_ACC_RDONLY, &file, err));
    SCOPED_TEXT text = read_text(file, "config", NULL);
    SCOPED_TEXT digest = read_text(file, "config_digest", NULL);
    bool ours = text != NULL && digest != NULL && read_number(file, "format_version") >= 0;
    H5Fclose(file);
    return ours ? ERROR_NONE : foreign(err, path, "no config");
}

int store_probe(const char *path, enum store_presence *ret, struct error *err)
{
    quiet();
    struct stat at;
    if (stat(path, &at) < 0) {
        if (errno != ENOENT)
            return error_set(err, ERROR_IO, "%s: cannot be looked at: %s", path, strerror(errno));
        /* A link that leads nowhere is something all the same. */
        *ret = lstat(path, &at) == 0 ? STORE_FOREIGN : STORE_ABSENT;
        return ERROR_NONE;
    }
    if (S_ISREG(at.st_mode) && faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) < 0)
        return error_set(err, ERROR_IO, "%s: cannot be opened for reading: %s", path, strerror(errno));
    bool died = false;
    struct error why = {0};
    int code = guarded(path, try_probe, &died, &why);
    if (code == ERROR_MEMORY) /* there is no child */
        return error_set(err, ERROR_MEMORY, "%s", why.message);
    *ret = code == ERROR_NONE ? STORE_OURS : STORE_FOREIGN;
    return ERROR_NONE;
}

/* -- Rows ------------------------------------------------------------------------------------------ */

/* A run as the checksum sees it. The pointers are to this run's rows. */
struct run_view {
    const struct setting *setting;
    const struct run_result *result;
    const double *fields[RECORD_FIELD_COUNT]; /* [record_count]; NULL where not in config.fields */
    const double *student, *teacher;          /* [d][d]; NULL without weights */
};

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the checksum is over little-endian values");

static uint64_t member_bits(const struct dataset_info *info, const void *structure)
{
    const char *member = (const char *)structure + info->offset;
    uint64_t bits = 0;
    memcpy(&bits, member, info->type == TYPE_I8 ? sizeof(unsigned) : sizeof bits);
    return bits;
}

/* XXH3-64 of what decides whether a run is whole: its setting, trajectories, weights and results, 8 bytes a
 * value in the order of the table. 0 stands for a run without a checksum. */
static uint64_t run_checksum(const struct store *store, XXH3_state_t *state, const struct run_view *run)
{
    uint64_t settings[DATASET_COUNT], results[DATASET_COUNT];
    size_t setting_count = 0, result_count = 0;
    for (int id = 0; id < DATASET_COUNT; id++) {
        if (is_column(store->config, id, SOURCE_SETTING))
            settings[setting_count++] = member_bits(&root_datasets[id], run->setting);
        else if (is_column(store->config, id, SOURCE_RESULT))
            results[result_count++] = member_bits(&root_datasets[id], run->result);
    }
    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, settings, setting_count * sizeof *settings);
    for (int field = 0; field < RECORD_FIELD_COUNT; field++)
        if (run->fields[field] != NULL)
            XXH3_64bits_update(state, run->fields[field],
                               (size_t)store->config->record_count * sizeof(double));
    if (run->student != NULL) {
        size_t size = (size_t)(run->setting->dimension * run->setting->dimension) * sizeof(double);
        XXH3_64bits_update(state, run->student, size);
        XXH3_64bits_update(state, run->teacher, size);
    }
    XXH3_64bits_update(state, results, result_count * sizeof *results);
    uint64_t digest = XXH3_64bits_digest(state);
    return digest == 0 ? 1 : digest;
}

/* Buffers for a block of neighbouring runs of one dimension. */
struct block {
    int64_t capacity; /* runs */
    struct setting *settings;
    struct run_result *results;
    void *column; /* room for `capacity` values of any type */
    int8_t *statuses;
    uint64_t *checksums;
    double *fields[RECORD_FIELD_COUNT]; /* [capacity][record_count] */
    double *student, *teacher;          /* [capacity][d][d] */
    XXH3_state_t *state;
};

static void block_done(struct block *block)
{
    free(block->settings);
    free(block->results);
    free(block->column);
    free(block->statuses);
    free(block->checksums);
    for (int field = 0; field < RECORD_FIELD_COUNT; field++)
        free(block->fields[field]);
    free(block->student);
    free(block->teacher);
    XXH3_freeState(block->state);
}

/* `rows`: whether fields and weights are wanted. `d` is 0 without weights. */
static int block_init(const struct store *store, int64_t capacity, bool rows, int64_t d, struct block *ret,
                      struct error *err)
{
    struct block block = {
        .capacity = capacity,
        .settings = allocate(capacity, sizeof *block.settings),
        .results = allocate(capacity, sizeof *block.results),
        .column = allocate(capacity, 8),
        .statuses = allocate(capacity, sizeof *block.statuses),
        .checksums = allocate(capacity, sizeof *block.checksums),
        .state = XXH3_createState(),
    };
    bool complete = block.settings != NULL && block.results != NULL && block.column != NULL &&
                    block.statuses != NULL && block.checksums != NULL && block.state != NULL;
    const size_t row = (size_t)store->config->record_count * sizeof(double);
    for (int field = 0; field < RECORD_FIELD_COUNT && rows; field++) {
        if (!has_field(store->config, field))
            continue;
        block.fields[field] = allocate(capacity, row);
        complete = complete && block.fields[field] != NULL;
    }
    if (rows && d > 0) {
        block.student = allocate(capacity, (size_t)(d * d) * sizeof(double));
        block.teacher = allocate(capacity, (size_t)(d * d) * sizeof(double));
        complete = complete && block.student != NULL && block.teacher != NULL;
    }
    if (!complete) {
        block_done(&block);
        return no_memory(err, store->path);
    }
    *ret = block;
    return ERROR_NONE;
}

/* The values of a run that has none: [count] NaN. */
static double *nan_row(int64_t count)
{
    double *row = allocate(count, sizeof *row);
    for (int64_t at = 0; row != NULL && at < count; at++)
        row[at] = NAN;
    return row;
}

/* Writes rows, or NaN where there are none. */
static int write_rows(struct store *store, const struct store_rows *rows, const struct weights *weights,
                      const double *nothing, struct error *err)
{
    for (int field = 0; field < RECORD_FIELD_COUNT; field++) {
        const int id = DATASET_FIRST_FIELD + field;
        if (!has_field(store->config, field))
            continue;
        if (rows->fields[field] != NULL) {
            TRY(root_transfer(store, WRITE, id, rows->first_run, rows->run_count, (void *)rows->fields[field],
                              err));
            continue;
        }
        for (int64_t at = 0; at < rows->run_count; at++)
            TRY(root_transfer(store, WRITE, id, rows->first_run + at, 1, (void *)nothing, err));
    }
    for (int id = WEIGHTS_STUDENT; id <= WEIGHTS_TEACHER && weights != NULL; id++) {
        const double *values = id == WEIGHTS_STUDENT ? rows->student : rows->teacher;
        if (values != NULL) {
            TRY(weights_transfer(store, WRITE, weights, id, rows->first_run, rows->run_count, (void *)values,
                                 err));
            continue;
        }
        for (int64_t at = 0; at < rows->run_count; at++)
            TRY(weights_transfer(store, WRITE, weights, id, rows->first_run + at, 1, (void *)nothing, err));
    }
    return ERROR_NONE;
}

static void checksum_rows(const struct store *store, const struct store_rows *rows,
                          const struct weights *weights, const double *nothing, const struct block *block)
{
    const int64_t records = store->config->record_count;
    const int64_t dd = weights != NULL ? weights->dimension * weights->dimension : 0;
    for (int64_t at = 0; at < rows->run_count; at++) {
        struct run_view run = {.setting = &block->settings[at], .result = &rows->results[at]};
        for (int field = 0; field < RECORD_FIELD_COUNT; field++)
            if (has_field(store->config, field))
                run.fields[field] =
                    rows->fields[field] != NULL ? rows->fields[field] + at * records : nothing;
        if (weights != NULL) {
            run.student = rows->student != NULL ? rows->student + at * dd : nothing;
            run.teacher = rows->teacher != NULL ? rows->teacher + at * dd : nothing;
        }
        block->checksums[at] = run_checksum(store, block->state, &run);
    }
}

/* The columns, in the table's order: results, then the checksum. */
static int write_columns(struct store *store, const struct store_rows *rows, int rank,
                         const struct block *block, struct error *err)
{
    for (int id = DATASET_STEPS_DONE; id < DATASET_COUNT; id++) {
        const struct dataset_info *info = &root_datasets[id];
        if (info->source == SOURCE_RESULT || info->source == SOURCE_TIMING) {
            gather(info, rows->results, sizeof *rows->results, rows->run_count, block->column);
        } else if (info->source == SOURCE_RANK) {
            for (int64_t at = 0; at < rows->run_count; at++)
                ((int32_t *)block->column)[at] = rank;
        }
        void *values = info->source == SOURCE_CHECKSUM ? (void *)block->checksums : block->column;
        TRY(root_transfer(store, WRITE, id, rows->first_run, rows->run_count, values, err));
    }
    return ERROR_NONE;
}

int store_write(struct store *store, const struct store_rows *rows, int rank, struct error *err)
{
    assert(rows->first_run >= 0 && rows->run_count >= 1 &&
           rows->first_run + rows->run_count <= store->grid->run_count);
    const struct weights *weights = weights_of(store, rows->first_run);
    assert(weights == NULL || rows->first_run + rows->run_count <= weights->first_run + weights->run_count);

    int64_t longest = store->config->record_count;
    if (weights != NULL && weights->dimension * weights->dimension > longest)
        longest = weights->dimension * weights->dimension;
    bool missing = weights != NULL && (rows->student == NULL || rows->teacher == NULL);
    for (int field = 0; field < RECORD_FIELD_COUNT; field++)
        missing = missing || (has_field(store->config, field) && rows->fields[field] == NULL);

    struct block block;
    TRY(block_init(store, rows->run_count, false, 0, &block, err));
    double *nothing = missing ? nan_row(longest) : NULL;
    int code = missing && nothing == NULL ? no_memory(err, store->path) : ERROR_NONE;
    for (int64_t at = 0; at < rows->run_count; at++)
        grid_setting(store->grid, rows->first_run + at, &block.settings[at]);
    /* The sum of an earlier session goes first: killed from here on, these runs are not done. */
    if (code == ERROR_NONE)
        code = root_transfer(store, WRITE, DATASET_CHECKSUM, rows->first_run, rows->run_count,
                             block.checksums, err);
    if (code == ERROR_NONE)
        code = write_rows(store, rows, weights, nothing, err);
    if (code == ERROR_NONE) {
        checksum_rows(store, rows, weights, nothing, &block);
        code = write_columns(store, rows, rank, &block, err);
    }
    free(nothing);
    block_done(&block);
    return code;
}

int store_mark_running(struct store *store, int64_t first_run, int64_t run_count, struct error *err)
{
    assert(first_run >= 0 && run_count >= 0 && first_run + run_count <= store->grid->run_count);
    int8_t *status = allocate(run_count, sizeof *status);
    if (status == NULL)
        return no_memory(err, store->path);
    int code = root_transfer(store, READ, DATASET_STATUS, first_run, run_count, status, err);
    bool changed = false;
    for (int64_t at = 0; code == ERROR_NONE && at < run_count; at++) {
        changed = changed || status[at] == OUTCOME_PENDING;
        if (status[at] == OUTCOME_PENDING)
            status[at] = OUTCOME_RUNNING;
    }
    if (code == ERROR_NONE && changed)
        code = root_transfer(store, WRITE, DATASET_STATUS, first_run, run_count, status, err);
    free(status);
    return code;
}

/* Is the file that we write still there, whole and under its name? */
static int check_there(const struct store *store, struct error *err)
{
    struct stat ours, named;
    if (fstat(store->descriptor, &ours) < 0)
        return error_set(err, ERROR_IO, "%s: cannot be looked at: %s", store->path, strerror(errno));
    if (ours.st_nlink == 0)
        return error_set(err, ERROR_IO, "%s: was removed while this job writes it", store->path);
    if (ours.st_size < store->size)
        return error_set(err, ERROR_IO,
                         "%s: was cut to %lld of %lld bytes by another program while this job writes it; "
                         "`sgdmap verify` tells what is left of it",
                         store->path, (long long)ours.st_size, (long long)store->size);
    if (stat(store->path, &named) < 0 || named.st_dev != ours.st_dev || named.st_ino != ours.st_ino)
        return error_set(err, ERROR_IO,
                         "%s: was moved away while this job writes it; move it back and run the same command "
                         "again",
                         store->path);
    return ERROR_NONE;
}

int store_sync(struct store *store, struct error *err)
{
    TRY(fault_at("sync", err));
    TRY(check_there(store, err));
    if (fsync(store->descriptor) < 0 && errno != EINVAL)
        return error_set(err, ERROR_IO, "%s: cannot be brought to the disk: %s", store->path,
                         strerror(errno));
    return ERROR_NONE;
}

static int copy_all(const struct store *store, const char *temporary, struct error *err)
{
    int to = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    off_t from = 0;
    ssize_t copied = to < 0 ? -1 : 1;
    while (copied > 0)
        copied = sendfile(to, store->descriptor, &from, TRANSFER_BYTES);
    int code = ERROR_NONE;
    if (copied < 0 || from < store->size || fsync(to) < 0)
        code = error_set(err, ERROR_IO, "%s: cannot be written: %s", temporary, strerror(errno));
    if (to >= 0)
        close(to);
    return code;
}

int store_rescue(struct store *store, bool *rescued, struct error *err)
{
    struct stat ours, named;
    *rescued = false;
    if (fstat(store->descriptor, &ours) < 0 || ours.st_nlink > 0 || stat(store->path, &named) == 0)
        return ERROR_NONE;
    SCOPED_TEXT temporary = path_beside(store->path, ".rescued");
    if (temporary == NULL)
        return no_memory(err, store->path);
    int code = copy_all(store, temporary, err);
    if (code == ERROR_NONE)
        code = put_into_place(store->path, temporary, false, err);
    if (code != ERROR_NONE)
        unlink(temporary);
    *rescued = code == ERROR_NONE;
    return code;
}

int store_read_results(struct store *store, int64_t first_run, int64_t run_count, struct run_result *ret,
                       struct error *err)
{
    assert(first_run >= 0 && run_count >= 0 && first_run + run_count <= store->grid->run_count);
    const int64_t capacity = run_count < BLOCK_RUNS ? run_count : BLOCK_RUNS;
    void *buffer = allocate(capacity, 8);
    uint64_t *checksums = allocate(capacity, sizeof *checksums);
    int code = buffer == NULL || checksums == NULL ? no_memory(err, store->path) : ERROR_NONE;
    for (int64_t done = 0; code == ERROR_NONE && done < run_count; done += capacity) {
        int64_t count = run_count - done < capacity ? run_count - done : capacity;
        struct run_result *results = ret + done;
        /* The checksums first: once one is there, so is all that it covers. */
        code = root_transfer(store, READ, DATASET_CHECKSUM, first_run + done, count, checksums, err);
        if (code == ERROR_NONE)
            code = read_columns(store, SOURCE_RESULT, first_run + done, count, results, sizeof *results,
                                buffer, err);
        if (code == ERROR_NONE)
            code = read_columns(store, SOURCE_TIMING, first_run + done, count, results, sizeof *results,
                                buffer, err);
        for (int64_t at = 0; code == ERROR_NONE && at < count; at++) {
            if ((unsigned)results[at].outcome >= OUTCOME_COUNT)
                results[at].outcome = OUTCOME_PENDING;
            if (results[at].outcome > OUTCOME_RUNNING && checksums[at] == 0)
                results[at].outcome = OUTCOME_RUNNING;
            if ((unsigned)results[at].failure >= FAILURE_COUNT)
                results[at].failure = FAILURE_NONE;
        }
    }
    free(buffer);
    free(checksums);
    return code;
}

int store_read_field(struct store *store, enum record_field field, int64_t first_run, int64_t run_count,
                     double *ret, struct error *err)
{
    assert(first_run >= 0 && run_count >= 0 && first_run + run_count <= store->grid->run_count);
    if (!has_field(store->config, (int)field))
        return error_set(err, ERROR_ARGUMENT, "%s: %s is not in it: output.fields leaves it out", store->path,
                         record_field_info(field)->name);
    return root_transfer(store, READ, DATASET_FIRST_FIELD + (int)field, first_run, run_count, ret, err);
}

int store_read_weights(struct store *store, int64_t run, double *student, double *teacher, struct error *err)
{
    assert(run >= 0 && run < store->grid->run_count);
    const struct weights *weights = weights_of(store, run);
    if (weights == NULL)
        return error_set(err, ERROR_ARGUMENT, "%s: no weights are in it: output.weights is none",
                         store->path);
    TRY(weights_transfer(store, READ, weights, WEIGHTS_STUDENT, run, 1, student, err));
    return weights_transfer(store, READ, weights, WEIGHTS_TEACHER, run, 1, teacher, err);
}

/* -- Checking -------------------------------------------------------------------------------------- */

static bool has_outcome(int status)
{
    return status != OUTCOME_PENDING && status != OUTCOME_RUNNING;
}

/* Reads the results and rows of `count` runs. */
static int read_block(struct store *store, const struct weights *weights, int64_t first, int64_t count,
                      const struct block *block, struct error *err)
{
    TRY(read_columns(store, SOURCE_RESULT, first, count, block->results, sizeof *block->results,
                     block->column, err));
    for (int field = 0; field < RECORD_FIELD_COUNT; field++)
        if (block->fields[field] != NULL)
            TRY(root_transfer(store, READ, DATASET_FIRST_FIELD + field, first, count, block->fields[field],
                              err));
    if (weights == NULL)
        return ERROR_NONE;
    TRY(weights_transfer(store, READ, weights, WEIGHTS_STUDENT, first, count, block->student, err));
    return weights_transfer(store, READ, weights, WEIGHTS_TEACHER, first, count, block->teacher, err);
}

/* Is the setting in the file, to the last bit, that of the grid? */
static bool same_setting(const struct grid *grid, int64_t run, const struct setting *in_file)
{
    struct setting expected;
    grid_setting(grid, run, &expected);
    for (int id = 0; id < DATASET_COUNT; id++)
        if (is_column(grid->config, id, SOURCE_SETTING) &&
            member_bits(&root_datasets[id], &expected) != member_bits(&root_datasets[id], in_file))
            return false;
    return true;
}

/* What a run without a checksum may look like: not begun, begun, or killed before the checksum was written, when the
 * results were there. */
static bool may_be_not_done(int status, const struct run_result *result)
{
    return !has_outcome(status) ||
           (status > OUTCOME_RUNNING && status < OUTCOME_COUNT && result->steps_done >= 0);
}

/* Runs that looked damaged, but are being written: their checksum is another one by now. */
static int forgive_changing(struct store *store, int64_t first, int64_t count, const struct block *block,
                            uint8_t *ret, struct error *err)
{
    uint64_t *now = block->column;
    TRY(root_transfer(store, READ, DATASET_CHECKSUM, first, count, now, err));
    for (int64_t at = 0; at < count; at++)
        if (ret[at] == STORE_MISMATCH && now[at] != block->checksums[at])
            ret[at] = STORE_NOT_DONE;
    return ERROR_NONE;
}

static int check_block(struct store *store, const struct weights *weights, int64_t first, int64_t count,
                       const struct block *block, uint8_t *ret, struct error *err)
{
    /* In the opposite order of writing: what a checksum or an outcome stands for is there once it is. */
    TRY(root_transfer(store, READ, DATASET_CHECKSUM, first, count, block->checksums, err));
    TRY(root_transfer(store, READ, DATASET_STATUS, first, count, block->statuses, err));
    TRY(read_columns(store, SOURCE_SETTING, first, count, block->settings, sizeof *block->settings,
                     block->column, err));
    bool any = false, mismatch = false;
    for (int64_t at = 0; at < count; at++) {
        ret[at] =
            same_setting(store->grid, first + at, &block->settings[at]) ? STORE_NOT_DONE : STORE_MISMATCH;
        any = any || has_outcome(block->statuses[at]) || block->checksums[at] != 0;
    }
    if (!any) /* most of a young sweep: its rows say nothing */
        return ERROR_NONE;

    TRY(read_block(store, weights, first, count, block, err));
    const int64_t records = store->config->record_count;
    for (int64_t at = 0; at < count; at++) {
        const struct run_result *result = &block->results[at];
        if (ret[at] == STORE_MISMATCH)
            continue;
        if (block->checksums[at] == 0) {
            ret[at] = may_be_not_done(block->statuses[at], result) ? STORE_NOT_DONE : STORE_MISMATCH;
            continue;
        }
        struct run_view run = {.setting = &block->settings[at], .result = result};
        for (int field = 0; field < RECORD_FIELD_COUNT; field++)
            if (block->fields[field] != NULL)
                run.fields[field] = block->fields[field] + at * records;
        if (weights != NULL) {
            run.student = block->student + at * weights->dimension * weights->dimension;
            run.teacher = block->teacher + at * weights->dimension * weights->dimension;
        }
        bool match = has_outcome((int)result->outcome) && (unsigned)result->outcome < OUTCOME_COUNT &&
                     run_checksum(store, block->state, &run) == block->checksums[at];
        ret[at] = match ? STORE_DONE : STORE_MISMATCH;
        mismatch = mismatch || !match;
    }
    return mismatch ? forgive_changing(store, first, count, block, ret, err) : ERROR_NONE;
}

int store_check(struct store *store, int64_t first_run, int64_t run_count, uint8_t *ret, struct error *err)
{
    assert(first_run >= 0 && run_count >= 0 && first_run + run_count <= store->grid->run_count);
    int64_t run_bytes = 0;
    for (int field = 0; field < RECORD_FIELD_COUNT; field++)
        run_bytes += has_field(store->config, field) ? store->config->record_count * 8 : 0;

    for (int64_t done = 0; done < run_count;) {
        /* As many runs as have one dimension and fit. */
        const int64_t first = first_run + done;
        const struct weights *weights = weights_of(store, first);
        const int64_t d = weights != NULL ? weights->dimension : 0;
        int64_t stretch = run_count - done;
        if (weights != NULL && weights->first_run + weights->run_count - first < stretch)
            stretch = weights->first_run + weights->run_count - first;
        int64_t capacity = BLOCK_BYTES / (run_bytes + 16 * d * d + 1);
        capacity = capacity < 1 ? 1 : capacity > BLOCK_RUNS ? BLOCK_RUNS : capacity;
        capacity = capacity > stretch ? stretch : capacity;

        struct block block;
        TRY(block_init(store, capacity, true, d, &block, err));
        int code = ERROR_NONE;
        for (int64_t at = 0; code == ERROR_NONE && at < stretch; at += capacity) {
            int64_t count = stretch - at < capacity ? stretch - at : capacity;
            code = check_block(store, weights, first + at, count, &block, ret + done + at, err);
        }
        block_done(&block);
        TRY(code);
        done += stretch;
    }
    return ERROR_NONE;
}

/* -- Checking what belongs to no run ---------------------------------------------------------------- */

static int damaged_attribute(struct store *store, const char *dataset, const char *attribute,
                             struct error *err)
{
    return error_set(err, ERROR_IO, "%s: dataset %s: its attribute %s is damaged", store->path, dataset,
                     attribute);
}

static bool text_is(hid_t object, const char *name, const char *expected)
{
    SCOPED_TEXT text = read_text(object, name, NULL);
    return text != NULL && strcmp(text, expected) == 0;
}

/* Are there `count` numbers of this type, with these bits? At most INT8_MAX. */
static bool numbers_are(hid_t object, const char *name, enum value_type type, int count, const void *expected)
{
    char values[INT8_MAX * 8];
    if (H5Aexists(object, name) <= 0)
        return false;
    SCOPED(attribute) attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (attribute < 0)
        return false;
    SCOPED(type) in_file = H5Aget_type(attribute);
    SCOPED(space) space = H5Aget_space(attribute);
    return in_file >= 0 && space >= 0 && H5Tequal(in_file, file_type(type)) > 0 &&
           H5Sget_simple_extent_npoints(space) == count &&
           H5Aread(attribute, memory_type(type), values) >= 0 &&
           memcmp(values, expected, (size_t)count * type_size(type)) == 0;
}

static herr_t count_link(hid_t group, const char *name, const H5L_info_t *info, void *count)
{
    (void)group, (void)name, (void)info;
    ++*(hsize_t *)count;
    return 0;
}

static herr_t count_attribute(hid_t object, const char *name, const H5A_info_t *info, void *count)
{
    (void)object, (void)name, (void)info;
    ++*(hsize_t *)count;
    return 0;
}

/* Readers list what is there by name or in the order of creation; each has an index of its own in the file, which the native
 * order, and no other, reads. All of the info includes how large the indexes and heaps are, so it looks at each. */
static int check_lists(struct store *store, hid_t object, bool is_group, const char *name, struct error *err)
{
    static const H5_index_t indexes[] = {H5_INDEX_NAME, H5_INDEX_CRT_ORDER};
    H5O_info_t info;
    H5G_info_t group = {0};
    bool sound =
        H5Oget_info2(object, &info, H5O_INFO_ALL) >= 0 && (!is_group || H5Gget_info(object, &group) >= 0);
    for (int at = 0; sound && at < 2; at++) {
        hsize_t links = 0, attributes = 0;
        sound = H5Aiterate2(object, indexes[at], H5_ITER_NATIVE, NULL, count_attribute, &attributes) >= 0 &&
                attributes == info.num_attrs;
        if (sound && is_group)
            sound = H5Literate(object, indexes[at], H5_ITER_NATIVE, NULL, count_link, &links) >= 0 &&
                    links == group.nlinks;
    }
    if (!sound)
        return error_set(err, ERROR_IO, "%s: %s: its list of what is in it is damaged", store->path, name);
    return ERROR_NONE;
}

/* What a reader takes the values for: units, flags, fill value, coordinates, scales. */
static int check_attributes(struct store *store, hid_t dataset, const char *name,
                            const struct dataset_info *info, const hid_t scales[DIM_COUNT], struct error *err)
{
    TRY(check_lists(store, dataset, false, name, err));
    if (!text_is(dataset, "units", info->units))
        return damaged_attribute(store, name, "units", err);
    if (info->fill == FILL_NAN && !numbers_are(dataset, "_FillValue", TYPE_F64, 1, &(double){NAN}))
        return damaged_attribute(store, name, "_FillValue", err);
    if (info->flag_name != NULL) {
        int8_t values[INT8_MAX];
        char meanings[FLAGS_SIZE];
        flags(info, values, meanings);
        if (!numbers_are(dataset, "flag_values", TYPE_I8, info->flag_count, values))
            return damaged_attribute(store, name, "flag_values", err);
        if (!text_is(dataset, "flag_meanings", meanings))
            return damaged_attribute(store, name, "flag_meanings", err);
    }
    char coordinates[COORDINATES_SIZE];
    if (has_coordinates(info) && !text_is(dataset, "coordinates", coordinates_of(store->config, coordinates)))
        return damaged_attribute(store, name, "coordinates", err);
    if (is_scale(info))
        return H5DSis_scale(dataset) > 0 ? ERROR_NONE : damaged_attribute(store, name, "CLASS", err);
    for (int at = 0; at < info->rank; at++)
        if (H5DSis_attached(dataset, scales[info->dims[at]], (unsigned)at) <= 0)
            return damaged_attribute(store, name, "DIMENSION_LIST", err);
    return ERROR_NONE;
}

/* A scale's values; `expected` NULL: they count from `from`. */
static int check_scale(struct store *store, hid_t dataset, const char *name, const struct dataset_info *info,
                       const int64_t *expected, int64_t from, int64_t count, struct error *err)
{
    int64_t buffer[4096];
    const int64_t block = (int64_t)(sizeof buffer / sizeof *buffer);
    const int64_t extents[DIM_COUNT] = {count, count, count, count};
    for (int64_t first = 0; first < count; first += block) {
        int64_t rows = count - first < block ? count - first : block;
        TRY(transfer(store, READ, dataset, info, extents, first, rows, buffer, err));
        for (int64_t at = 0; at < rows; at++) {
            int64_t value = expected != NULL ? expected[first + at] : from + first + at;
            if (buffer[at] != value)
                return error_set(
                    err, ERROR_IO,
                    "%s: dataset %s: entry %lld is %lld, %lld by its config; `sgdmap run` with its "
                    "config mends it",
                    store->path, name, (long long)(first + at), (long long)buffer[at], (long long)value);
        }
    }
    return ERROR_NONE;
}

static int check_root(struct store *store, struct error *err)
{
    const hid_t scales[DIM_COUNT] = {
        [DIM_RUN] = store->datasets[DATASET_RUN], [DIM_STEP] = store->datasets[DATASET_STEP]};
    for (int id = 0; id < DATASET_COUNT; id++) {
        struct dataset_info info = root_dataset(id);
        if (has_dataset(store->config, id))
            TRY(check_attributes(store, store->datasets[id], info.name, &info, scales, err));
    }
    TRY(check_lists(store, store->file, true, "/", err));
    if (!text_is(store->file, "title", store->config->title))
        return error_set(err, ERROR_IO, "%s: its attribute title is not that of its config", store->path);
    const int64_t count = store->config->record_count;
    int64_t *steps = allocate(count, sizeof *steps);
    if (steps == NULL)
        return no_memory(err, store->path);
    record_steps(store->config->steps, count, steps);
    int code = check_scale(store, store->datasets[DATASET_STEP], "step", &root_datasets[DATASET_STEP], steps,
                           0, count, err);
    free(steps);
    return code;
}

static int check_weights(struct store *store, const struct weights *weights, struct error *err)
{
    const hid_t scales[DIM_COUNT] = {[DIM_RUN] = weights->datasets[WEIGHTS_RUN],
                                     [DIM_COMPONENT] = weights->datasets[WEIGHTS_COMPONENT],
                                     [DIM_NEURON] = weights->datasets[WEIGHTS_NEURON]};
    char group[32], name[64];
    weights_name(weights->dimension, group);
    SCOPED(group) opened = H5Gopen2(store->file, group, H5P_DEFAULT);
    if (opened < 0)
        return hdf5_error(err, store->path, "the group %s cannot be opened", group);
    TRY(check_lists(store, opened, true, group, err));
    for (int id = 0; id < WEIGHTS_COUNT; id++) {
        const struct dataset_info *info = &weights_datasets[id];
        snprintf(name, sizeof name, "%s/%s", group, info->name);
        TRY(check_attributes(store, weights->datasets[id], name, info, scales, err));
        if (is_scale(info))
            TRY(check_scale(store, weights->datasets[id], name, info, NULL,
                            id == WEIGHTS_RUN ? weights->first_run : 0,
                            id == WEIGHTS_RUN ? weights->run_count : weights->dimension, err));
    }
    return ERROR_NONE;
}

int store_check_frame(struct store *store, struct error *err)
{
    TRY(check_root(store, err));
    for (int64_t at = 0; at < store->weights_count; at++)
        TRY(check_weights(store, &store->weights[at], err));
    return ERROR_NONE;
}

/* -- One file out of several ------------------------------------------------------------------------ */

int store_begin(const char *path, bool overwrite, const struct config *config, const struct grid *grid,
                const struct provenance *provenance, const volatile sig_atomic_t *stop, struct store **ret,
                struct error *err)
{
    quiet();
    struct new_file place;
    TRY(name_place(path, &place, err));
    int code = begin_file(path, overwrite, config, grid, provenance, stop, &place, err);
    if (code != ERROR_NONE) {
        done_place(&place);
        return code;
    }
    struct store *store = malloc(sizeof *store);
    code = store == NULL ? error_set(err, ERROR_MEMORY, "%s: no memory to open it", path)
                         : init_store(store, path, config, grid, err);
    if (store == NULL) {
        unlink(place.temporary);
        done_place(&place);
        return code;
    }
    store->place = place;
    if (code == ERROR_NONE)
        code = open_serial(place.temporary, H5F_ACC_RDWR, &store->file, err);
    if (code == ERROR_NONE)
        code = open_datasets(store, err);
    if (code != ERROR_NONE) {
        (void)!done_store(store, NULL);
        free(store);
        return code;
    }
    store->stop = stop;
    *ret = store;
    return ERROR_NONE;
}

int store_publish(struct store *store, struct error *err)
{
    struct new_file place = store->place;
    SCOPED_TEXT path = strdup(store->path);
    store->place = (struct new_file){0};
    int code = path == NULL ? no_memory(err, store->path) : ERROR_NONE;
    int close_code = done_store(store, code == ERROR_NONE ? err : NULL);
    code = code != ERROR_NONE ? code : close_code;
    free(store);
    if (code == ERROR_NONE)
        code = name_file(path, &place, err);
    else
        unlink(place.temporary);
    done_place(&place);
    return code;
}

int store_add_history(struct store *store, const char *line, struct error *err)
{
    return append_history(store->file, store->path, line, err);
}

int store_read_checksums(struct store *store, int64_t first_run, int64_t run_count, uint64_t *ret,
                         struct error *err)
{
    assert(first_run >= 0 && run_count >= 0 && first_run + run_count <= store->grid->run_count);
    return root_transfer(store, READ, DATASET_CHECKSUM, first_run, run_count, ret, err);
}

/* The rows of one dataset, in pieces that fit. */
static int copy_rows(struct store *from, struct store *to, const struct weights *from_weights,
                     const struct weights *to_weights, int id, int64_t first, int64_t count, void *buffer,
                     struct error *err)
{
    const bool weights = from_weights != NULL;
    const struct dataset_info info = weights ? weights_datasets[id] : root_dataset(id);
    const int64_t d = weights ? from_weights->dimension : 0;
    const int64_t extents[DIM_COUNT] = {
        [DIM_STEP] = from->config->record_count, [DIM_COMPONENT] = d, [DIM_NEURON] = d};
    const int64_t row = row_values(&info, extents) * (int64_t)type_size(info.type);
    const int64_t most = BLOCK_BYTES / row > 1 ? BLOCK_BYTES / row : 1;
    for (int64_t end = first + count, rows; first < end; first += rows) {
        rows = end - first < most ? end - first : most;
        if (weights) {
            TRY(weights_transfer(from, READ, from_weights, id, first, rows, buffer, err));
            TRY(weights_transfer(to, WRITE, to_weights, id, first, rows, buffer, err));
        } else {
            TRY(root_transfer(from, READ, id, first, rows, buffer, err));
            TRY(root_transfer(to, WRITE, id, first, rows, buffer, err));
        }
    }
    return ERROR_NONE;
}

int store_copy(struct store *from, struct store *to, int64_t first_run, int64_t run_count, struct error *err)
{
    assert(first_run >= 0 && run_count >= 1 && first_run + run_count <= from->grid->run_count &&
           from->grid->run_count == to->grid->run_count && to->config->fields == from->config->fields);
    /* A block, or a row that is larger. */
    int64_t most = BLOCK_BYTES, row = from->config->record_count * 8;
    for (int64_t at = 0; at < from->weights_count; at++) {
        const int64_t d = from->weights[at].dimension;
        row = 8 * d * d > row ? 8 * d * d : row;
    }
    void *buffer = allocate(row > most ? row : most, 1);
    int code = buffer == NULL ? no_memory(err, from->path) : ERROR_NONE;
    for (int64_t first = first_run, end = first_run + run_count, count; code == ERROR_NONE && first < end;
         first += count) {
        const struct weights *from_weights = weights_of(from, first), *to_weights = weights_of(to, first);
        count = end - first;
        if (from_weights != NULL && from_weights->first_run + from_weights->run_count - first < count)
            count = from_weights->first_run + from_weights->run_count - first;
        for (int id = WEIGHTS_STUDENT; code == ERROR_NONE && from_weights != NULL && id <= WEIGHTS_TEACHER;
             id++)
            code = copy_rows(from, to, from_weights, to_weights, id, first, count, buffer, err);
        /* The table's order: the checksum last. */
        for (int id = DATASET_FIRST_FIELD; code == ERROR_NONE && id < DATASET_COUNT; id++)
            if (has_dataset(from->config, id))
                code = copy_rows(from, to, NULL, NULL, id, first, count, buffer, err);
    }
    free(buffer);
    return code;
}

/* -- About the file -------------------------------------------------------------------------------- */

int store_ranks(struct store *store)
{
    const int64_t ranks = read_number(store->file, "ranks");
    return ranks < 1 || ranks > INT32_MAX ? 1 : (int)ranks;
}

char *store_attribute(struct store *store, const char *name)
{
    return read_text(store->file, name, NULL);
}

const char *store_hdf5_version(void)
{
#define TEXT_OF(value) #value
#define VERSION_TEXT(major, minor, release) TEXT_OF(major) "." TEXT_OF(minor) "." TEXT_OF(release)
    return VERSION_TEXT(H5_VERS_MAJOR, H5_VERS_MINOR, H5_VERS_RELEASE);
}
