#include "sgdmap/command.h"

#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "version.h"

void command_plain(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c != '\0'; ++c)
        if ((*c < 0x20 && *c != '\n') || *c == 0x7f || (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0))
            *c = '?';
}

int command_fail(const struct error *err)
{
    struct error plain = *err;
    command_plain(plain.message);
    fprintf(stderr, "sgdmap: %s\n", plain.message);
    return error_exit_status(err->code);
}

int command_usage_error(const char *command, const char *format, ...)
{
    va_list arguments;
    fprintf(stderr, "sgdmap %s: ", command);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\nsgdmap %s -h tells more.\n", command);
    return error_exit_status(ERROR_ARGUMENT);
}

int command_check_options(int argc, char **argv, const struct option *options, struct error *err)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; ++i) {
        if (strncmp(argv[i], "--", 2) != 0)
            continue;
        const size_t length = strcspn(argv[i] + 2, "=");
        const struct option *option = options;
        while (option->name != NULL &&
               (strlen(option->name) != length || strncmp(argv[i] + 2, option->name, length) != 0))
            ++option;
        if (option->name == NULL)
            return error_set(err, ERROR_ARGUMENT, "%s: %s: unknown option; sgdmap %s -h tells more", argv[0],
                             argv[i], argv[0]);
        if (option->has_arg == required_argument && argv[i][2 + length] == '\0')
            ++i; /* its value may begin with dashes */
    }
    return 0;
}

void command_duration(double seconds, char ret[COMMAND_TEXT_SIZE])
{
    if (!(seconds < 1e15))
        snprintf(ret, COMMAND_TEXT_SIZE, "unknown time");
    else if (seconds < 59.95)
        snprintf(ret, COMMAND_TEXT_SIZE, "%.1f s", seconds);
    else if (seconds < 3599.5)
        snprintf(ret, COMMAND_TEXT_SIZE, "%d min %02d s", (int)(lround(seconds) / 60),
                 (int)(lround(seconds) % 60));
    else if (seconds < 48 * 3600.0)
        snprintf(ret, COMMAND_TEXT_SIZE, "%d h %02d min", (int)(lround(seconds / 60) / 60),
                 (int)(lround(seconds / 60) % 60));
    else
        snprintf(ret, COMMAND_TEXT_SIZE, "%.1f days", seconds / 86400);
}

void command_bytes(double bytes, char ret[COMMAND_TEXT_SIZE])
{
    const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    size_t unit = 0;
    while (bytes >= 999.5 && unit + 1 < sizeof units / sizeof *units) {
        bytes /= 1000;
        ++unit;
    }
    snprintf(ret, COMMAND_TEXT_SIZE, bytes < 9.95 && unit > 0 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

const char *command_shard(const struct grid *grid, char ret[COMMAND_TEXT_SIZE])
{
    snprintf(ret, COMMAND_TEXT_SIZE, "%lld/%lld", (long long)grid->shard, (long long)grid->shard_count);
    return ret;
}

void command_origin(int argc, char **argv, char date[COMMAND_DATE_SIZE], char history[COMMAND_HISTORY_SIZE])
{
    time_t clock = time(NULL);
    strftime(date, COMMAND_DATE_SIZE, "%Y-%m-%dT%H:%M:%SZ", gmtime(&clock));
    size_t used = (size_t)snprintf(history, COMMAND_HISTORY_SIZE, "%s sgdmap", date);
    for (int i = 0; i < argc && used < COMMAND_HISTORY_SIZE; ++i)
        used += (size_t)snprintf(history + used, COMMAND_HISTORY_SIZE - used, " %s", argv[i]);
}

const char *command_source(void)
{
    return "sgdmap " SGDMAP_VERSION " (git " SGDMAP_GIT ")";
}
