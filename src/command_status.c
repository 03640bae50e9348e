/* sgdmap status: how far a file is, also while a job writes it. */
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "sgdmap/command.h"
#include "sgdmap/lock.h"
#include "sgdmap/store.h"

static void usage(void)
{
    puts("usage: sgdmap status FILE [--watch] [--json]\n\n"
         "Counts the runs of FILE by outcome, with the rate and the time that is left, and draws a map as "
         "text.\n\n"
         "      --watch   again every 2 s until all is done\n"
         "      --json    the numbers for a program; with --watch a line each time\n"
         "  -h, --help    this text\n\n"
         "Safe while a job writes FILE.");
}

struct status {
    struct config config;
    struct grid grid;
    int64_t outcomes[OUTCOME_COUNT];
    double wall_time; /* s of all ranks that went into the runs that are done */
    double cost_done; /* predicted seconds of those */
    double cost_total;
    int ranks;
    bool running;     /* a job holds the lock */
    uint8_t *outcome; /* [run_count]; ELSEWHERE for the runs of other shards */
};

enum { ELSEWHERE = OUTCOME_COUNT };

static const double NO_ESTIMATE = -1;

static int64_t runs_done(const struct status *s)
{
    int64_t done = 0;
    for (int o = OUTCOME_CONVERGED; o < OUTCOME_COUNT; ++o)
        done += s->outcomes[o];
    return done;
}

/* Of a job with as many ranks as the file's last: runs a second, and seconds left. */
static double rate(const struct status *s)
{
    return s->running && s->wall_time > 0 ? (double)runs_done(s) / s->wall_time * s->ranks : NO_ESTIMATE;
}

static double time_left(const struct status *s)
{
    if (!s->running || !(s->wall_time > 0) || !(s->cost_done > 0))
        return NO_ESTIMATE;
    return (s->cost_total - s->cost_done) * s->wall_time / s->cost_done / s->ranks;
}

static int count_runs(struct store *store, struct status *s, struct error *err)
{
    enum { BLOCK = 65536 };
    struct run_result *results = malloc(BLOCK * sizeof *results);
    s->outcome = calloc((size_t)s->grid.run_count, 1);
    int code =
        results == NULL || s->outcome == NULL ? error_set(err, ERROR_MEMORY, "status: out of memory") : 0;
    if (code == 0 && s->grid.shard_count > 1)
        memset(s->outcome, ELSEWHERE, (size_t)s->grid.run_count);
    const int64_t runs = s->grid.run_count;
    for (int64_t first, end, count, next = 0; code == 0 && grid_next_runs(&s->grid, next, runs, &first, &end);
         next = first + count) {
        count = end - first < BLOCK ? end - first : BLOCK;
        code = store_read_results(store, first, count, results, err);
        int64_t block = 0;
        for (int64_t i = 0; code == 0 && i < count; ++i) {
            s->outcome[first + i] = (uint8_t)results[i].outcome;
            ++s->outcomes[results[i].outcome];
            if (results[i].outcome < OUTCOME_CONVERGED)
                continue;
            while (block + 1 < s->grid.block_count && s->grid.blocks[block + 1].first_run <= first + i)
                ++block;
            s->cost_done += s->grid.blocks[block].run_cost;
            s->wall_time += isfinite(results[i].wall_time) ? results[i].wall_time : 0;
        }
    }
    free(results);
    return code;
}

static int read_status(const char *path, struct status *s, struct error *err)
{
    struct store *store;
    *s = (struct status){0};
    TRY(store_open_read(path, &s->config, &s->grid, &store, err));
    s->cost_total = s->grid.shard_cost;
    s->running = lock_is_held(path);
    s->ranks = store_ranks(store);
    int code = count_runs(store, s, err);
    struct error ignored;
    int closed = store_close(store, code == 0 ? err : &ignored);
    return code != 0 ? code : closed;
}

static void status_done(struct status *s)
{
    free(s->outcome);
    grid_done(&s->grid);
    config_done(&s->config);
}

static void print_json_string(const char *text)
{
    putchar('"');
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; ++c)
        if (*c == '"' || *c == '\\')
            printf("\\%c", *c);
        else if (*c < 0x20)
            printf("\\u%04x", *c);
        else
            putchar(*c);
    putchar('"');
}

static void print_json_number(const char *name, double value)
{
    if (value == NO_ESTIMATE)
        printf(", \"%s\": null", name);
    else
        printf(", \"%s\": %.6g", name, value);
}

static void print_json(const char *path, const struct status *s)
{
    printf("{\"file\": ");
    print_json_string(path);
    printf(", \"title\": ");
    print_json_string(s->config.title);
    char shard[COMMAND_TEXT_SIZE];
    printf(", \"shard\": ");
    if (s->grid.shard_count > 1)
        print_json_string(command_shard(&s->grid, shard));
    else
        printf("null");
    printf(", \"runs\": %lld, \"done\": %lld, \"outcomes\": {", (long long)s->grid.shard_runs,
           (long long)runs_done(s));
    for (int o = 0; o < OUTCOME_COUNT; ++o)
        printf("%s\"%s\": %lld", o > 0 ? ", " : "", outcome_name((enum outcome)o), (long long)s->outcomes[o]);
    printf("}, \"running\": %s, \"ranks\": %d", s->running ? "true" : "false", s->ranks);
    print_json_number("fraction",
                      runs_done(s) == s->grid.shard_runs ? 1 : fmin(0.999999, s->cost_done / s->cost_total));
    print_json_number("runs_per_second", rate(s));
    print_json_number("eta_seconds", time_left(s));
    printf("}\n");
    fflush(stdout);
}

/* -- The map --------------------------------------------------------------------------------------- */

static const struct {
    char letter;
    const char *colour; /* of the terminal */
} MARKS[OUTCOME_COUNT + 1] = {
    [OUTCOME_PENDING] = {'.', "\033[90m"},   [OUTCOME_RUNNING] = {'~', "\033[97m"},
    [OUTCOME_CONVERGED] = {'#', "\033[34m"}, [OUTCOME_DIVERGED] = {'x', "\033[31m"},
    [OUTCOME_STALLED] = {'-', "\033[33m"},   [OUTCOME_UNFINISHED] = {'+', "\033[36m"},
    [OUTCOME_FAILED] = {'!', "\033[35m"},    [ELSEWHERE] = {' ', ""},
};

/* The most frequent outcome over a cell's replicates that are done, ties to the lower value: a map fills in with the first
 * of them. Without any: OUTCOME_RUNNING or OUTCOME_PENDING; ELSEWHERE if all are in other shards. */
static int cell_outcome(const struct status *s, int64_t first_run, int64_t replicates, int64_t stride)
{
    int64_t counts[ELSEWHERE + 1] = {0};
    for (int64_t r = 0; r < replicates; ++r)
        ++counts[s->outcome[first_run + r * stride]];
    int best = OUTCOME_CONVERGED;
    for (int o = best + 1; o < OUTCOME_COUNT; ++o)
        if (counts[o] > counts[best])
            best = o;
    return counts[best] > 0              ? best
           : counts[OUTCOME_RUNNING] > 0 ? OUTCOME_RUNNING
           : counts[OUTCOME_PENDING] > 0 ? OUTCOME_PENDING
                                         : ELSEWHERE;
}

/* A map of step_size (across) and init_scale (up), for what is common to it. */
struct panel {
    int64_t first_run;
    int64_t number; /* among all maps */
    int rank;       /* which to show where there is no room for all: those that are filling first */
    char title[2 * COMMAND_TEXT_SIZE];
};

enum { PANEL_LABEL = 12 }; /* columns before a line of cells */

static void print_spaces(int64_t count)
{
    for (int64_t i = 0; i < count; ++i)
        putchar(' ');
}

/* Characters of UTF-8, all of one column here. */
static int64_t text_width(const char *text)
{
    int64_t width = 0;
    for (; *text != '\0'; ++text)
        width += (*text & 0xc0) != 0x80;
    return width;
}

/* A panel's cells at init_scale's value number `row`, which stands before them where `labelled`; larger axes are thinned
 * out. */
static void print_cells(const struct status *s, const struct panel *panel, int64_t row, bool labelled,
                        int64_t width, bool colours)
{
    const struct axis *step = &s->config.axes[AXIS_STEP_SIZE], *scale = &s->config.axes[AXIS_INIT_SCALE];
    if (labelled)
        printf("  %9.3g ", scale->values[row]);
    else
        print_spaces(PANEL_LABEL);
    const char *colour = "";
    for (int64_t x = 0; x < width; ++x) {
        const int64_t column = width > 1 ? x * (step->count - 1) / (width - 1) : 0;
        const int outcome = cell_outcome(s, panel->first_run + column * scale->count + row,
                                         s->config.replicates, s->grid.family_runs);
        if (colours && MARKS[outcome].colour != colour) {
            colour = MARKS[outcome].colour;
            fputs(colour, stdout);
        }
        putchar(MARKS[outcome].letter);
    }
    if (colours)
        fputs("\033[0m", stdout);
}

/* `count` panels side by side, each `pitch` columns wide, its cells `width`. */
static void print_panels(const struct status *s, const struct panel *panels, int64_t count, int64_t height,
                         int64_t width, int64_t pitch, bool colours)
{
    const struct axis *step = &s->config.axes[AXIS_STEP_SIZE], *scale = &s->config.axes[AXIS_INIT_SCALE];
    putchar('\n');
    for (int64_t p = 0; p < count; ++p) {
        printf("  %s", panels[p].title);
        print_spaces(p + 1 < count ? pitch - 2 - text_width(panels[p].title) : 0);
    }
    putchar('\n');
    for (int64_t y = height - 1; y >= 0; --y) {
        const int64_t row = height > 1 ? y * (scale->count - 1) / (height - 1) : 0;
        for (int64_t p = 0; p < count; ++p) {
            print_cells(s, &panels[p], row, y == height - 1 || y == 0, width, colours);
            print_spaces(p + 1 < count ? pitch - PANEL_LABEL - width : 0);
        }
        putchar('\n');
    }
    char left[32], right[32];
    snprintf(left, sizeof left, "%.3g", step->values[0]);
    snprintf(right, sizeof right, "%.3g", step->values[step->count - 1]);
    for (int64_t p = 0; p < count; ++p) {
        const int64_t gap = width - text_width(left);
        print_spaces(PANEL_LABEL);
        const int printed = printf("%s%*s", left, gap > 0 ? (int)gap : 0, right);
        print_spaces(p + 1 < count ? pitch - PANEL_LABEL - printed : 0);
    }
    putchar('\n');
}

/* Where the action is: 0 for a map that is being filled, 1 for one that is complete, 2 for one not begun. */
static int panel_rank(const struct status *s, int64_t first_run, int64_t plane)
{
    bool any_done = false, any_left = false;
    for (int64_t r = 0; r < s->config.replicates; ++r)
        for (int64_t run = 0; run < plane; ++run) {
            const int outcome = s->outcome[first_run + r * s->grid.family_runs + run];
            any_left |= outcome == OUTCOME_PENDING || outcome == OUTCOME_RUNNING;
            any_done |= outcome != OUTCOME_PENDING && outcome != ELSEWHERE;
        }
    return any_done && any_left ? 0 : any_done ? 1 : 2;
}

static int compare_numbers(const void *a, const void *b)
{
    const struct panel *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

static int compare_ranks(const void *a, const void *b)
{
    const struct panel *x = a, *y = b;
    return x->rank != y->rank ? x->rank - y->rank : compare_numbers(a, b);
}

/* What is common to a map; of axes that are seldom used only those that have another value than the usual one. */
static void panel_title(const struct config *config, const struct setting *setting, char *ret, size_t size)
{
    static const enum axis_id seldom[] = {AXIS_INPUT,   AXIS_GRADIENT, AXIS_DATA,
                                          AXIS_TEACHER, AXIS_NOISE,    AXIS_SCHEDULE};
    size_t used = (size_t)snprintf(ret, size, "d = %lld, ", (long long)setting->dimension);
    if (setting->batch_size > 0)
        used += (size_t)snprintf(ret + used, size - used, "B = %lld, ", (long long)setting->batch_size);
    used += (size_t)snprintf(ret + used, size - used, "‖W*‖ = %.3g, link %s", setting->teacher_norm,
                             link_kind_name(setting->link));
    for (size_t i = 0; i < sizeof seldom / sizeof *seldom && used < size; ++i) {
        char text[32];
        const double value = setting_value(setting, seldom[i]);
        if (value != 0 || (seldom[i] != AXIS_INPUT && config->axes[seldom[i]].count > 1))
            used += (size_t)snprintf(ret + used, size - used, ", %s %s", axis_name(seldom[i]),
                                     axis_value_text(seldom[i], value, text));
    }
}

/* All maps; NULL without memory. *count: how many. */
static struct panel *list_panels(const struct status *s, int64_t *count)
{
    const struct config *c = &s->config;
    const int64_t plane = c->axes[AXIS_STEP_SIZE].count * c->axes[AXIS_INIT_SCALE].count;
    const int64_t inputs = c->axes[AXIS_INPUT].count, inners = s->grid.family_runs / plane;
    struct panel *panels = calloc((size_t)(s->grid.block_count * inputs * inners), sizeof *panels);
    *count = 0;
    if (panels == NULL)
        return NULL;
    for (int64_t b = 0; b < s->grid.block_count; ++b)
        for (int64_t input = 0; input < inputs; ++input)
            for (int64_t inner = 0; inner < inners; ++inner) {
                struct panel *panel = &panels[*count];
                panel->number = (*count)++;
                panel->first_run =
                    s->grid.blocks[b].first_run + input * c->replicates * s->grid.family_runs + inner * plane;
                panel->rank = panel_rank(s, panel->first_run, plane);
                struct setting setting;
                grid_setting(&s->grid, panel->first_run, &setting);
                panel_title(c, &setting, panel->title, sizeof panel->title);
            }
    return panels;
}

static void print_map(const struct status *s, bool colours, int columns, int rows)
{
    /* On a terminal that is watched the whole is to be seen at once: as many maps as fit, at least one, thinned out. */
    enum { PANELS_MAX = 8, HEIGHT_MAX = 24, AROUND = 3, BETWEEN = 2 };
    int64_t count;
    struct panel *panels = list_panels(s, &count);
    if (panels == NULL)
        return;
    const int64_t steps = s->config.axes[AXIS_STEP_SIZE].count;
    const int64_t width = steps < columns - PANEL_LABEL - 2 ? steps : columns - PANEL_LABEL - 2;
    int64_t pitch = PANEL_LABEL + width;
    for (int64_t p = 0; p < count; ++p)
        pitch = text_width(panels[p].title) + 2 > pitch ? text_width(panels[p].title) + 2 : pitch;
    pitch += BETWEEN;
    int64_t across = (columns + BETWEEN) / pitch;
    across = across > count ? count : across;
    across = across < 1 ? 1 : across;
    int64_t height = s->config.axes[AXIS_INIT_SCALE].count;
    height = height < HEIGHT_MAX ? height : HEIGHT_MAX;
    int64_t shown = PANELS_MAX > across ? PANELS_MAX / across * across : across;
    if (rows > 0) {
        const int64_t room = rows - 1;
        height = height + AROUND > room ? room - AROUND : height;
        height = height < 2 ? 2 : height;
        const int64_t fit = room / (height + AROUND) * across;
        shown = fit < across ? across : fit < shown ? fit : shown;
    }
    shown = shown < count ? shown : count;
    qsort(panels, (size_t)count, sizeof *panels, compare_ranks);
    qsort(panels, (size_t)shown, sizeof *panels, compare_numbers);

    printf("\nstep_size across, init_scale up;");
    for (int o = 0; o < OUTCOME_COUNT; ++o)
        if (s->outcomes[o] > 0)
            printf(" %s%c%s %s", colours ? MARKS[o].colour : "", MARKS[o].letter, colours ? "\033[0m" : "",
                   outcome_name((enum outcome)o));
    putchar('\n');
    for (int64_t p = 0; p < shown; p += across)
        print_panels(s, &panels[p], p + across < shown ? across : shown - p, height, width, pitch, colours);
    if (count > shown)
        printf("\n  … and %lld more maps: analysis/sgdmap-analysis map\n", (long long)(count - shown));
    free(panels);
}

static void print_text(const char *path, const struct status *s, bool colours, int columns, int rows)
{
    char text[COMMAND_TEXT_SIZE];
    const int64_t done = runs_done(s);
    command_plain(s->config.title);
    const int64_t runs = s->grid.shard_runs;
    printf("%s: %s\n", path, s->config.title);
    if (s->grid.shard_count > 1)
        printf("shard %s, %lld of the sweep's %lld runs: ", command_shard(&s->grid, text), (long long)runs,
               (long long)s->grid.run_count);
    printf("%lld of %lld runs done (%.1f %% of the work), %s\n", (long long)done, (long long)runs,
           100 * (s->cost_total > 0 ? s->cost_done / s->cost_total : 1),
           done == runs ? "complete"
           : s->running ? "a job is writing"
                        : "no job is writing: the same command again goes on");
    if (rate(s) != NO_ESTIMATE && done < runs) {
        command_duration(time_left(s), text);
        printf("%.1f runs a second on %d ranks, about %s left\n", rate(s), s->ranks, text);
    }
    for (int o = 0; o < OUTCOME_COUNT; ++o)
        if (s->outcomes[o] > 0)
            printf("  %-10s %8lld  %5.1f %%\n", outcome_name((enum outcome)o), (long long)s->outcomes[o],
                   100 * (double)s->outcomes[o] / (double)runs);
    int lines = 7; /* above the map, and its own first and last */
    for (int o = 0; o < OUTCOME_COUNT; ++o)
        lines += s->outcomes[o] > 0;
    print_map(s, colours, columns, rows > 0 ? (rows > lines + 6 ? rows - lines : 6) : 0);
    fflush(stdout);
}

int command_status(int argc, char **argv)
{
    static const struct option options[] = {{"watch", no_argument, NULL, 'w'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    bool watch = false, json = false;
    struct error unknown = {0};
    if (command_check_options(argc, argv, options, &unknown) != 0)
        return command_fail(&unknown);
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (option) {
        case 'w':
            watch = true;
            break;
        case 'j':
            json = true;
            break;
        case 'h':
            usage();
            return 0;
        default:
            return command_usage_error("status", "%s: unknown option", argv[optind - 1]);
        }
    }
    if (argc - optind != 1)
        return command_usage_error("status", "one FILE is expected, there are %d", argc - optind);
    const char *path = argv[optind];
    const bool terminal = isatty(STDOUT_FILENO) != 0;
    bool waited = false;
    while (true) {
        struct error err = {0};
        struct status status;
        if (watch && access(path, F_OK) != 0) {
            if (!waited)
                fprintf(stderr, "sgdmap: waiting for %s\n", path);
            waited = true;
            sleep(1);
            continue;
        }
        if (read_status(path, &status, &err) != 0)
            return command_fail(&err);
        struct winsize size = {.ws_col = 80};
        if (terminal && (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 20))
            size.ws_col = 80;
        const bool complete = runs_done(&status) == status.grid.shard_runs;
        if (json)
            print_json(path, &status);
        else {
            if (watch && terminal)
                fputs("\033[H\033[2J", stdout);
            print_text(path, &status, terminal, size.ws_col, watch && terminal ? size.ws_row : 0);
        }
        status_done(&status);
        if (!watch || complete)
            return 0;
        sleep(2);
    }
}
