/* record: the table of a trajectory's fields, the names of outcomes, and which steps are recorded. */
#include "sgdmap/record.h"

#include <assert.h>
#include <math.h>

/* Everything is a pure number: inputs have unit variance and weights no dimension. */
static const struct record_field_info fields[RECORD_FIELD_COUNT] = {
    [RECORD_LOSS] = {"loss", "1", "population loss E[(f(x) - f*(x))^2]"},
    [RECORD_BATCH_LOSS] = {"batch_loss", "1", "mean squared residual over the batch of the step"},
    [RECORD_ERROR] = {"error", "1",
                      "root-mean-square distance of a neuron from its target, ||A - B||_F / sqrt(d)"},
    [RECORD_POTENTIAL] = {"potential", "1", "potential g, the sum over neurons of ||b_j||^2 - ||a_j||^2"},
    [RECORD_POTENTIAL_NORM] = {"potential_norm", "1",
                               "norm form of the potential, the sum over neurons of ||b_j|| - ||a_j||"},
    [RECORD_ALIGNMENT] =
        {"alignment", "1",
         "one-point convexity <-grad L, B - A> / ||B - A||_F^2; positive points toward the teacher"},
    [RECORD_GRADIENT_NORM] = {"gradient_norm", "1", "Frobenius norm of the gradient of the population loss"},
    [RECORD_WEIGHT_NORM] = {"weight_norm", "1", "spectral norm of the student's weights ||W||_2"},
    [RECORD_TEST_LOSS] = {"test_loss", "1",
                          "mean squared residual over the test set, whose labels have no noise"},
};

static const char *const outcomes[OUTCOME_COUNT] = {
    [OUTCOME_PENDING] = "pending",   [OUTCOME_RUNNING] = "running", [OUTCOME_CONVERGED] = "converged",
    [OUTCOME_DIVERGED] = "diverged", [OUTCOME_STALLED] = "stalled", [OUTCOME_UNFINISHED] = "unfinished",
    [OUTCOME_FAILED] = "failed",
};

static const char *const failures[FAILURE_COUNT] = {
    [FAILURE_NONE] = "none",
    [FAILURE_OUT_OF_MEMORY] = "out_of_memory",
};

const struct record_field_info *record_field_info(enum record_field field)
{
    assert((unsigned)field < RECORD_FIELD_COUNT);
    return &fields[field];
}

const char *outcome_name(enum outcome outcome)
{
    assert((unsigned)outcome < OUTCOME_COUNT);
    return outcomes[outcome];
}

const char *failure_name(enum failure failure)
{
    assert((unsigned)failure < FAILURE_COUNT);
    return failures[failure];
}

void record_steps(int64_t steps, int64_t count, int64_t *ret)
{
    assert(count >= 2 && count - 1 <= steps);
    ret[0] = 0;
    ret[count - 1] = steps;
    for (int64_t i = 1; i < count - 1; i++) {
        /* The rest is spaced anew from the step before: where the first steps stand closer than 1, and so
         * become consecutive, those after them still have one ratio. */
        const int64_t before = ret[i - 1];
        const int64_t latest = steps - (count - 1 - i); /* leaves a step for each record still to come */
        int64_t next = before + 1;
        if (before > 0) {
            const double ratio = pow((double)steps / (double)before, 1.0 / (double)(count - i));
            const int64_t spaced = llround((double)before * ratio);
            next = spaced > next ? spaced : next;
        }
        ret[i] = next < latest ? next : latest;
    }
}

int64_t record_phase2(const double *alignment, const double *potential_norm, int64_t count, int64_t dimension)
{
    if (count < 1)
        return -1;
    const double bound = fmax(0.1 * fabs(potential_norm[0]), 0.01 * sqrt((double)dimension));
    int64_t first = count;
    while (first > 0 && alignment[first - 1] > 0.0 && fabs(potential_norm[first - 1]) <= bound)
        first--;
    return first < count ? first : -1;
}
