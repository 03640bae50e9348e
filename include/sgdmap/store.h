/* store: the result file. HDF5 that is also valid netCDF-4; the only file that includes hdf5.h.
 *
 * Every dataset is created with its full extent, filled and flushed before a run is trained, so that a rank
 * that writes its rows changes no metadata: readers may open the file at any time, and a killed job leaves a
 * file that opens. A run's rows are written before its status, and the checksum last of all; a run whose
 * checksum does not match is damaged and counts as not done.
 *
 * A shard's file (grid.h) has the layout of the whole sweep and the attribute `shard`, "I/N". The runs of other shards stay
 * pending in it, and their trajectories and weights are holes, which take no space and read as 0. */
#ifndef SGDMAP_STORE_H
#define SGDMAP_STORE_H

#include <mpi.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "sgdmap/config.h"
#include "sgdmap/error.h"
#include "sgdmap/grid.h"
#include "sgdmap/record.h"

struct store; /* opaque: foreign handles */

/* Where the results come from; every string may be "" but not NULL. */
struct provenance {
    const char *source;       /* "sgdmap 0.1.0 (git abc1234, dirty)" */
    const char *history;      /* "2026-01-01T00:00:00Z sgdmap run …" */
    const char *date_created; /* ISO 8601, UTC */
    const char *blis_version;
    const char *blis_kernels; /* the kernel family in use, "skx" */
    const char *host;
    const char *slurm_job_id; /* "" where there is none */
    int ranks;
};

/* The results of neighbouring runs first_run … first_run + run_count - 1, all of one dimension d. Where a
 * pointer is NULL though the config asks for the values, a failed run has none and NaN is written. */
struct store_rows {
    int64_t first_run;
    int64_t run_count;
    const double
        *fields[RECORD_FIELD_COUNT];  /* [run_count][record_count] each; ignored where not in config.fields */
    const struct run_result *results; /* [run_count] */
    const double *student; /* [run_count][d][d], W (not I+W), row i column j; ignored without weights */
    const double *teacher; /* the same for W* */
};

/* `config` and `grid` are borrowed by the store and outlive it; so is `comm`. Whoever creates or opens for
 * writing holds the lock of `path` (lock.h). */

/* Collective. Creates the file at `path` under a temporary name, complete with coordinates, settings and fill
 * values, and renames it into place, so that a killed creation never looks like a result. With `overwrite` it
 * replaces a result file that is there (never a file that is not one of ours). `stop`, NULL or set by a signal handler on rank
 * 0, ends it. Errors: ERROR_IO, ERROR_INTERRUPTED. */
WARN_UNUSED int store_create(const char *path, bool overwrite, const struct config *config,
                             const struct grid *grid, const struct provenance *provenance,
                             const volatile sig_atomic_t *stop, MPI_Comm comm, struct store **ret,
                             struct error *err);

/* Collective. Opens an existing file for writing; its digest was compared before. Appends
 * `provenance->history` as a line to the attribute. */
WARN_UNUSED int store_open(const char *path, const struct config *config, const struct grid *grid,
                           const struct provenance *provenance, MPI_Comm comm, struct store **ret,
                           struct error *err);

/* Local. Opens a file for reading, without MPI, also while a job writes it; reads and checks its config and
 * shape. `config` and `grid`, with the file's shard, are filled from the file's own text and freed by the caller. Errors: ERROR_IO,
 * "FILE: not an sgdmap result file: …" */
WARN_UNUSED int store_open_read(const char *path, struct config *config, struct grid *grid,
                                struct store **ret, struct error *err);

/* Collective if the store was opened for writing, else local. Accepts NULL. A close can fail. */
WARN_UNUSED int store_close(struct store *store, struct error *err);

/* Local. How many handles of HDF5 this process has open: 0 when all is closed. Counted in the test build alone. */
int64_t store_handles(void);

/* Local. Did a close fail, so that HDF5 still holds a file? Then MPI_Finalize, which ends HDF5, would crash. */
bool store_left_open(void);

/* Local. Sets the checksum to 0, writes rows, results, status and at last the checksum: a kill at any instant leaves runs
 * that are not done, or done. `rank` goes into the dataset of this name. */
WARN_UNUSED int store_write(struct store *store, const struct store_rows *rows, int rank, struct error *err);

/* Local. Brings to the disk what this process has written. Errors: ERROR_IO, also where the file is no longer there, or no
 * longer whole. */
WARN_UNUSED int store_sync(struct store *store, struct error *err);

/* Local. A file that someone has removed is still there for the process that has it open: its content gets its name again.
 * *rescued: so it was. To be called when all ranks have stopped writing. Errors: ERROR_IO. */
WARN_UNUSED int store_rescue(struct store *store, bool *rescued, struct error *err);

/* Local. Marks neighbouring runs as running, where they are not done. */
WARN_UNUSED int store_mark_running(struct store *store, int64_t first_run, int64_t run_count,
                                   struct error *err);

/* Local. Reads the runs' results (wall_time included): ret [run_count]. A status or message that is none of
 * the flags, in a broken file, reads as pending and as no failure; store_check tells of it. An outcome whose checksum is
 * still missing reads as running. */
WARN_UNUSED int store_read_results(struct store *store, int64_t first_run, int64_t run_count,
                                   struct run_result *ret, struct error *err);

/* Local. Reads one field's rows: ret [run_count][record_count]. */
WARN_UNUSED int store_read_field(struct store *store, enum record_field field, int64_t first_run,
                                 int64_t run_count, double *ret, struct error *err);

/* Local. Reads the weights after the last step done: student, teacher [d][d]. ERROR_ARGUMENT if the file has
 * none. */
WARN_UNUSED int store_read_weights(struct store *store, int64_t run, double *student, double *teacher,
                                   struct error *err);

/* Local. Says for each run whether it is done: an outcome from converged on, and a checksum that matches
 * rows, setting and results. Without a checksum it is not done. It is damaged if it has a checksum and anything does not
 * match, if its setting is not the grid's, or if its status cannot be. ret [run_count] as bytes. */
enum store_state { STORE_NOT_DONE = 0, STORE_DONE = 1, STORE_MISMATCH = 2 };
WARN_UNUSED int store_check(struct store *store, int64_t first_run, int64_t run_count, uint8_t *ret,
                            struct error *err);

/* Local. Compares what belongs to no single run with the config and the schema: the scales `step` and those of the weights,
 * the attributes by which readers understand the datasets (units, flags, fill values, coordinates, scales), the title.
 * ERROR_IO names the first that differs. */
WARN_UNUSED int store_check_frame(struct store *store, struct error *err);

/* Local. Begins a file that is put together from others: as by store_create, but it has its name, and takes the place of another,
 * only when it is published; whatever happens before, store_close removes it. `stop` ends everything that is done with it. */
WARN_UNUSED int store_begin(const char *path, bool overwrite, const struct config *config,
                            const struct grid *grid, const struct provenance *provenance,
                            const volatile sig_atomic_t *stop, struct store **ret, struct error *err);

/* Local. Copies neighbouring runs between files of one digest: every value that belongs to them, to the last bit. */
WARN_UNUSED int store_copy(struct store *from, struct store *to, int64_t first_run, int64_t run_count,
                           struct error *err);

/* Local. Adds a line to the attribute `history`, in whose room the lines after the first give way. */
WARN_UNUSED int store_add_history(struct store *store, const char *line, struct error *err);

/* Local. Brings a file that was begun to the disk and gives it its name. Whatever comes of it, the store is closed and freed. */
WARN_UNUSED int store_publish(struct store *store, struct error *err);

/* Local. Reads the runs' checksums, 0 where there is none: ret [run_count]. */
WARN_UNUSED int store_read_checksums(struct store *store, int64_t first_run, int64_t run_count, uint64_t *ret,
                                     struct error *err);

/* Local. Reads a root attribute of text: NULL if there is none. Free with free(). */
char *store_attribute(struct store *store, const char *name);

/* Local. The ranks of the session that wrote last, at least 1. */
int store_ranks(struct store *store);

/* Local. What is at `path`? Never changes anything. ERROR_IO where one cannot look. */
enum store_presence { STORE_ABSENT, STORE_OURS, STORE_FOREIGN };
WARN_UNUSED int store_probe(const char *path, enum store_presence *ret, struct error *err);

/* Bytes of the file that this config makes, an upper bound by a few hundred kB; INT64_MAX if beyond. */
int64_t store_file_size(const struct config *config, const struct grid *grid);

const char *store_hdf5_version(void); /* "1.10.8" */

#endif
