/* config: a YAML file, read with libcyaml, to a checked struct.
 *
 * What a config may say is one table in src/config.c; README's section "The configuration" follows it. */
#ifndef SGDMAP_CONFIG_H
#define SGDMAP_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sgdmap/error.h"

enum link_kind { LINK_IDENTITY, LINK_NONE, LINK_KIND_COUNT };
/* Distributions of the inputs, all with mean 0 and E[x x'] = I; the values are part of the file format. The first three
 * are invariant under rotations, the others have independent entries. */
enum input_kind {
    INPUT_GAUSSIAN,
    INPUT_SPHERE,    /* uniform on the sphere of radius sqrt d */
    INPUT_STUDENT_T, /* multivariate, 5 degrees of freedom, scaled */
    INPUT_LAPLACE,
    INPUT_UNIFORM,
    INPUT_RADEMACHER,
    INPUT_KIND_COUNT
};
/* What a step follows: the gradient over a minibatch, or the population's in closed form. */
enum gradient_kind { GRADIENT_MINIBATCH, GRADIENT_POPULATION, GRADIENT_KIND_COUNT };
/* The direction of W*, of spectral norm 1. */
enum teacher_kind {
    TEACHER_GAUSSIAN,   /* M/||M||_2, M with N(0,1) entries */
    TEACHER_ORTHOGONAL, /* uniform on the orthogonal group: all singular values 1 */
    TEACHER_LOW_RANK,   /* U V'/||U V'||_2, U and V [d][teacher_rank] with N(0,1) entries */
    TEACHER_DIAGONAL,   /* N(0,1) entries over the largest of them */
    TEACHER_KIND_COUNT
};
/* The step size at step t, in units of step_size. */
enum schedule_kind {
    SCHEDULE_CONSTANT,     /* 1 */
    SCHEDULE_INVERSE_TIME, /* 1/(1 + t/decay) */
    SCHEDULE_COSINE,       /* (1 + cos(pi t/steps))/2 */
    SCHEDULE_KIND_COUNT
};
enum weights_kind { WEIGHTS_NONE, WEIGHTS_FINAL, WEIGHTS_KIND_COUNT };

/* The names in configs and files, by value: "identity", "gaussian", "none". */
const char *link_kind_name(enum link_kind link);
const char *input_kind_name(enum input_kind input);
const char *gradient_kind_name(enum gradient_kind gradient);
const char *teacher_kind_name(enum teacher_kind teacher);
const char *schedule_kind_name(enum schedule_kind schedule);
const char *weights_kind_name(enum weights_kind weights);

/* One axis of the grid. Counts (dimension, batch_size, data) and kinds (link, input, ...) are stored as their exact
 * value in a double, so that every axis has one form. Values are distinct, in the order given. */
struct axis {
    int64_t count;
    double *values; /* [count] */
};

/* In the order of the runs' numbers, the last axis fastest; replicates are between input and teacher. */
enum axis_id {
    AXIS_DIMENSION,
    AXIS_BATCH_SIZE, /* 0 where no run has minibatches */
    AXIS_GRADIENT,
    AXIS_DATA, /* samples of the training set; 0: fresh ones at every step */
    AXIS_INPUT,
    AXIS_TEACHER,
    AXIS_TEACHER_NORM,
    AXIS_LINK,
    AXIS_NOISE, /* bound of the labels' noise */
    AXIS_SCHEDULE,
    AXIS_STEP_SIZE,
    AXIS_INIT_SCALE,
    AXIS_COUNT
};

/* "dimension", "step_size", …: the key under `grid`, and the dataset's name in the file. */
const char *axis_name(enum axis_id axis);

/* A value of an axis as a config has it: "identity", "online", "0.01". */
const char *axis_value_text(enum axis_id axis, double value, char ret[32]);

struct config {
    char *title; /* never NULL */
    uint64_t seed;
    struct axis axes[AXIS_COUNT];
    int64_t replicates;
    int64_t steps;
    double tolerance;
    int64_t test_samples; /* of the set for the field test_loss; 0: none */
    int64_t teacher_rank; /* of low_rank teachers; 0 without any */
    double decay; /* steps after which inverse_time has halved the step size; 0 where nothing decays so */
    int64_t record_count; /* between 2 and steps + 1 */
    uint32_t fields;      /* bit f: enum record_field f is written */
    enum weights_kind weights;
    double checkpoint_interval; /* seconds */
    int64_t file_alignment; /* bytes, 1: none. Datasets of file_threshold bytes and more begin at multiples */
    int64_t file_threshold;
    char *file_hints; /* for MPI-IO: NAME=VALUE, one a line, "" without any */
    char *text;       /* the whole text as the user wrote it */
    char *overrides;  /* the --set arguments, one a line, "" without any */
};

/* Largest values, with their reason in src/config.c. */
enum { CONFIG_DIMENSION_MAX = 4096, CONFIG_BATCH_SIZE_MAX = 65536 };

/* Whether a sweep's file and digest have the axis. One that is younger than the first files, and stays at its default,
 * leaves no trace, so that old files are still those of their configs. */
bool config_has_axis(const struct config *config, enum axis_id axis);

/* Reads `path`, applies `overrides` ("grid.step_size=0.01": a dotted path and a YAML value), checks everything.
 * Errors: ERROR_IO if the file cannot be read; ERROR_ARGUMENT, "FILE:LINE: key.path: what is wrong, value,
 * what was expected", for everything that the text says. `ret` is untouched on failure; free with config_done. */
WARN_UNUSED int config_read(const char *path, const char *const *overrides, size_t override_count,
                            struct config *ret, struct error *err);

/* The same from memory; `name` stands for the file in messages. `overrides` is NULL or as in `config.overrides`
 * (one a line). This is how a config comes back out of a result file or from another rank. */
WARN_UNUSED int config_parse(const char *name, const char *text, size_t length, const char *overrides,
                             struct config *ret, struct error *err);

void config_done(struct config *config);

/* 128 bits over everything that decides results (not title, not checkpoint.interval, not the section file), as 32 hex digits and NUL:
 * XXH128 of the canonical form. Two texts that mean the same have the same digest. */
enum { CONFIG_DIGEST_SIZE = 33 };
void config_digest(const struct config *config, char ret[CONFIG_DIGEST_SIZE]);

/* A line for each key in which the two differ and which counts for the digest, as
 * "  training.steps: 2000 in the file, 4000 in the config\n" (long lists shortened). Free with free();
 * NULL only if memory is short. */
char *config_differences(const struct config *in_file, const struct config *given);

#endif
