/* config_values: text to numbers, lists and ranges. */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"
#include "words.h"

enum { RANGE_COUNT_MAX = 1000000 };

/* In a range's map. */
static const struct key range_count_key = {"count", FORM_VALUE, TYPE_INTEGER, .least = 1,
                                           .most = RANGE_COUNT_MAX};

static int out_of_memory(struct error *err)
{
    return error_set(err, ERROR_MEMORY, "out of memory while reading the configuration");
}

/* -- Text to numbers ------------------------------------------------------------------------------- */

/* [+-] digits [. digits] [e [+-] digits] as value * 10^exponent, where `value` has no trailing zeros: it is
 * an integer where exponent >= 0. `overflow`: more digits than 64 bits hold. */
struct decimal {
    bool negative, overflow;
    uint64_t value;
    int64_t exponent;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool decimal_scan(const char *text, struct decimal *ret)
{
    struct decimal decimal = {0};
    int64_t digits = 0, significant = 0, whole = 0, exponent = 0;
    const char *at = text;
    if (*at == '+' || *at == '-')
        decimal.negative = *at++ == '-';
    for (bool point = false; is_digit(*at) || (*at == '.' && !point); at++) {
        if (*at == '.') {
            point = true;
            continue;
        }
        digits++;
        whole += !point;
        if (*at == '0') /* counts only if more digits follow */
            continue;
        for (; significant < digits; significant++)
            decimal.overflow |= __builtin_mul_overflow(decimal.value, UINT64_C(10), &decimal.value);
        decimal.overflow |= __builtin_add_overflow(decimal.value, (uint64_t)(*at - '0'), &decimal.value);
    }
    if (digits == 0)
        return false;
    if (*at == 'e' || *at == 'E') {
        at++;
        const bool negative = *at == '-';
        at += *at == '+' || *at == '-';
        if (!is_digit(*at))
            return false;
        for (; is_digit(*at); at++)
            if (exponent < 1000000000) /* beyond every text's length, so that it stays as large as it is */
                exponent = exponent * 10 + (*at - '0');
        exponent = negative ? -exponent : exponent;
    }
    if (*at != '\0')
        return false;
    decimal.exponent = exponent + whole - significant;
    *ret = decimal;
    return true;
}

int config_parse_integer(const struct key *key, const struct place *place, const char *text, uint64_t *ret,
                         struct error *err)
{
    char shown[TEXT_SHORT_SIZE];
    const unsigned long long least = key->least, most = key->most;
    const bool named = key->name_count > 0;
    const char * or = named ? " or " : "", *name = named ? key->names[0] : "";
    if (named && strcmp(text, name) == 0) {
        *ret = 0;
        return 0;
    }
    struct decimal decimal;
    const bool number = decimal_scan(text, &decimal);
    if (!number || ((decimal.value != 0 || decimal.overflow) && decimal.exponent < 0))
        return tree_fail(place->tree, place->node, place->path, err,
                         "%s is not an integer in [%llu, %llu]%s%s", text_shorten(text, shown), least, most,
                         or, name);
    uint64_t value = decimal.value;
    bool outside = decimal.overflow;
    for (int64_t e = 0; e < decimal.exponent && value != 0 && !outside; e++)
        outside = __builtin_mul_overflow(value, UINT64_C(10), &value);
    if (outside || (decimal.negative && value != 0) || value < key->least || value > key->most)
        return tree_fail(place->tree, place->node, place->path, err, "%s is not in [%llu, %llu]%s%s",
                         text_shorten(text, shown), least, most, or, name);
    *ret = value;
    return 0;
}

int config_parse_real(const struct key *key, const struct place *place, const char *text, double *ret,
                      struct error *err)
{
    char shown[TEXT_SHORT_SIZE];
    const char bracket = key->open ? '(' : '[';
    struct decimal decimal;
    if (!decimal_scan(text, &decimal))
        return tree_fail(place->tree, place->node, place->path, err, "%s is not a number in %c%g, %g]",
                         text_shorten(text, shown), bracket, key->low, key->high);
    errno = 0;
    const double value = strtod(text, NULL);
    if (errno == ERANGE)
        return tree_fail(place->tree, place->node, place->path, err,
                         "%s is beyond 64-bit floating point; expected a number in %c%g, %g]",
                         text_shorten(text, shown), bracket, key->low, key->high);
    if (!(value >= key->low && value <= key->high) || (key->open && value == key->low))
        return tree_fail(place->tree, place->node, place->path, err, "%s is not in %c%g, %g]",
                         text_shorten(text, shown), bracket, key->low, key->high);
    *ret = value + 0.0; /* -0 and 0 are one value */
    return 0;
}

int config_parse_choice(const struct key *key, const struct place *place, const char *text, double *ret,
                        struct error *err)
{
    struct words known = {.count = key->name_count};
    for (int i = 0; i < key->name_count; i++) {
        known.list[i] = config_choice_name(key, i);
        if (strcmp(known.list[i], text) == 0) {
            *ret = i;
            return 0;
        }
    }
    char shown[TEXT_SHORT_SIZE];
    const char *meant = words_nearest(&known, text);
    if (meant != NULL)
        return tree_fail(place->tree, place->node, place->path, err, "%s is not known; did you mean %s?",
                         text_shorten(text, shown), meant);
    return tree_fail(place->tree, place->node, place->path, err, "%s is not known; expected %s%s",
                     text_shorten(text, shown), known.count > 1 ? "one of " : "", words_join(&known));
}

/* An axis's value: integers up to 2^53 only, which the table's bounds assure. */
static int parse_value(const struct key *key, const struct place *place, const char *text, double *ret,
                       struct error *err)
{
    uint64_t integer = 0;
    switch (key->type) {
    case TYPE_INTEGER:
        TRY(config_parse_integer(key, place, text, &integer, err));
        *ret = (double)integer;
        return 0;
    case TYPE_REAL:
        return config_parse_real(key, place, text, ret, err);
    case TYPE_CHOICE:
    case TYPE_FIELD:
        return config_parse_choice(key, place, text, ret, err);
    case TYPE_TEXT:
        break;
    }
    return error_set(err, ERROR_INTERNAL, "%s: no axis", key->path);
}

/* -- Lists and ranges ------------------------------------------------------------------------------ */

struct entry {
    double value;
    int64_t index;
};

static int compare_entries(const void *a_entry, const void *b_entry)
{
    const struct entry *a = a_entry, *b = b_entry;
    if (a->value != b->value)
        return a->value < b->value ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* The index of the first value that stood before, or -1. */
static int find_twin(const struct axis *axis, int64_t *ret, struct error *err)
{
    struct entry *entries = malloc((size_t)axis->count * sizeof *entries);
    if (entries == NULL)
        return out_of_memory(err);
    for (int64_t i = 0; i < axis->count; i++)
        entries[i] = (struct entry){axis->values[i], i};
    qsort(entries, (size_t)axis->count, sizeof *entries, compare_entries);
    int64_t twin = -1;
    for (int64_t i = 1; i < axis->count; i++)
        if (entries[i].value == entries[i - 1].value && (twin < 0 || entries[i].index < twin))
            twin = entries[i].index;
    free(entries);
    *ret = twin;
    return 0;
}

void config_axis_done(struct axis *axis)
{
    free(axis->values);
    *axis = (struct axis){0};
}

int config_axis_make(int64_t count, struct axis *ret, struct error *err)
{
    *ret = (struct axis){.count = count, .values = malloc((size_t)count * sizeof *ret->values)};
    return ret->values != NULL ? 0 : out_of_memory(err);
}

int config_convert_list(const struct key *key, const struct place *place, const struct raw_value *raw,
                        struct axis *ret, struct error *err)
{
    __attribute__((cleanup(config_axis_done))) struct axis axis = {0};
    TRY(config_axis_make(raw->items_count, &axis, err));
    const bool list = place->node->kind == NODE_LIST;
    struct place item = *place;
    for (int64_t i = 0; i < axis.count; i++) {
        item.node = !list ? place->node : i == 0 ? place->node->first : item.node->next;
        TRY(parse_value(key, &item, raw->items[i], &axis.values[i], err));
    }
    int64_t twin = -1;
    TRY(find_twin(&axis, &twin, err));
    if (twin >= 0) {
        char shown[TEXT_SHORT_SIZE];
        return tree_fail(place->tree, node_item(place->node, twin), place->path, err,
                         "%s stands twice; the values of a list are distinct",
                         text_shorten(raw->items[twin], shown));
    }
    *ret = axis;
    axis = (struct axis){0};
    return 0;
}

/* The i-th of n values from a to b. Those between are rounded to 15 digits, so that they are the numbers that
 * a person would write (0.3 and not 0.30000000000000004), and the last bits of a machine's powl do not
 * matter. */
static double range_value(bool logarithmic, double a, double b, int64_t i, int64_t n)
{
    if (i == 0 || i == n - 1)
        return i == 0 ? a : b;
    const long double t = (long double)i / (long double)(n - 1);
    const long double value =
        logarithmic ? a * powl((long double)b / a, t) : a + ((long double)b - (long double)a) * t;
    char text[32];
    snprintf(text, sizeof text, "%.15g", (double)value);
    return strtod(text, NULL);
}

/* A part of an axis's range in the tree; the range's own place if the part is not there. */
static struct place range_place(const struct place *place, const char *part, char path[static 64])
{
    const struct node *node = node_member(place->node, part);
    snprintf(path, 64, "%s.%s", place->path, part);
    return (struct place){place->tree, node != NULL ? node : place->node, path};
}

int config_convert_range(const struct key *key, const struct place *place, const struct raw_range *raw,
                         struct axis *ret, struct error *err)
{
    if ((raw->linear != NULL) == (raw->log != NULL))
        return tree_fail(place->tree, place->node, place->path, err, "a range has %s; expected one of them",
                         raw->linear != NULL ? "both linear and log" : "neither linear nor log");
    const bool logarithmic = raw->log != NULL;
    char ends_path[64], count_path[64];
    const struct place ends_place = range_place(place, logarithmic ? "log" : "linear", ends_path);
    const struct place count_place = range_place(place, "count", count_path);

    double ends[2] = {0};
    for (int i = 0; i < 2; i++) {
        const struct place end = {place->tree, node_item(ends_place.node, i), ends_path};
        const char *text = (logarithmic ? raw->log : raw->linear)[i];
        char shown[TEXT_SHORT_SIZE];
        TRY(parse_value(key, &end, text, &ends[i], err));
        if (logarithmic && ends[i] <= 0.0)
            return tree_fail(end.tree, end.node, end.path, err, "%s is not above 0, as a log range needs",
                             text_shorten(text, shown));
    }
    uint64_t count;
    TRY(config_parse_integer(&range_count_key, &count_place, raw->count, &count, err));
    if ((count == 1) != (ends[0] == ends[1]))
        return tree_fail(place->tree, count_place.node, count_path, err,
                         "%llu from %g to %g; expected at least 2 for different endpoints, 1 for equal ones",
                         (unsigned long long)count, ends[0], ends[1]);

    /* There are no more integers than lie between the ends, however many values are asked for. */
    const int64_t given = (int64_t)count;
    const int64_t between = (int64_t)fmin(fabs(ends[1] - ends[0]), RANGE_COUNT_MAX) + 1;
    const int64_t room = key->type == TYPE_INTEGER && between < given ? between : given;
    __attribute__((cleanup(config_axis_done))) struct axis axis = {0};
    TRY(config_axis_make(room, &axis, err));
    axis.count = 0;
    for (int64_t i = 0; i < given; i++) {
        double value = range_value(logarithmic, ends[0], ends[1], i, given);
        if (key->type == TYPE_INTEGER)
            value = round(value);
        const double before = axis.count > 0 ? axis.values[axis.count - 1] : NAN;
        if (key->type == TYPE_INTEGER && value == before)
            continue;
        if (ends[0] < ends[1] ? value <= before : value >= before)
            return tree_fail(place->tree, count_place.node, count_path, err,
                             "%lld values from %.17g to %.17g are closer than 15 digits can tell apart",
                             (long long)given, ends[0], ends[1]);
        assert(axis.count < room);
        axis.values[axis.count++] = value;
    }
    *ret = axis;
    axis = (struct axis){0};
    return 0;
}
