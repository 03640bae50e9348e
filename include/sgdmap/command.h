/* command: the subcommands, each from its arguments to an exit status. Only they and main print and exit. */
#ifndef SGDMAP_COMMAND_H
#define SGDMAP_COMMAND_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "sgdmap/config.h"
#include "sgdmap/error.h"
#include "sgdmap/grid.h"
#include "sgdmap/linalg.h"

/* argv[0] is the subcommand's name. */
int command_plan(int argc, char **argv);
int command_run(int argc, char **argv);
int command_status(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_replay(int argc, char **argv);
int command_merge(int argc, char **argv);

/* -- What several of them need --------------------------------------------------------------------- */

/* Replaces control characters, which a file's text may have, to the terminal's harm. Line ends stay. */
void command_plain(char *text);

/* "sgdmap: MESSAGE", made plain, on standard error; returns the exit status that belongs to the error. */
int command_fail(const struct error *err);

/* Wrong use: the message, and where help is. Returns 2. */
int command_usage_error(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* getopt_long takes any beginning of an option's name for it: here only the whole name counts. */
struct option;
WARN_UNUSED int command_check_options(int argc, char **argv, const struct option *options, struct error *err);

/* "1 h 02 min", "3 min 05 s", "4.2 s" */
enum { COMMAND_TEXT_SIZE = 64 };
void command_duration(double seconds, char ret[COMMAND_TEXT_SIZE]);
/* "1.2 GB" */
void command_bytes(double bytes, char ret[COMMAND_TEXT_SIZE]);

/* "1/4": the grid's shard. */
const char *command_shard(const struct grid *grid, char ret[COMMAND_TEXT_SIZE]);

/* When and by what: "2026-01-01T00:00:00Z", and the same with the command line behind it. */
enum { COMMAND_DATE_SIZE = 32, COMMAND_HISTORY_SIZE = 4096 };
void command_origin(int argc, char **argv, char date[COMMAND_DATE_SIZE], char history[COMMAND_HISTORY_SIZE]);

/* `sgdmap --version` and the attribute `source`: "sgdmap 0.1.0 (git abc1234, dirty)" */
const char *command_source(void);

#endif
