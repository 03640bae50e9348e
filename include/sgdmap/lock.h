/* lock: one job a result file. An open-file-description lock on PATH.lock: the kernel drops it when the
 * holder dies, however it dies, and it reaches across nodes wherever the file system implements byte-range
 * locks. The result file itself is never locked, since HDF5 readers would be refused. */
#ifndef SGDMAP_LOCK_H
#define SGDMAP_LOCK_H

#include <stdbool.h>

#include "sgdmap/error.h"

struct lock {
    int descriptor; /* -1: not held */
    char *path;     /* PATH.lock */
    bool exclusive; /* false: this file system has no byte-range locks and nothing keeps another job out; warn
                     */
};

/* Local. Takes the lock for `path`'s PATH.lock, creating it; waits up to `seconds` for a holder that is about
 * to die. The owner's host, process id and SLURM job id stand in the file for the one who is refused. Errors:
 * ERROR_ARGUMENT "FILE: another job is writing it: process 123 on host n1, SLURM job 7, since …"; ERROR_IO.
 */
WARN_UNUSED int lock_take(const char *path, double seconds, struct lock *ret, struct error *err);

/* Local. Removes PATH.lock and lets go. Accepts a lock that is not held. */
void lock_release(struct lock *lock);

/* Local. Does a job hold the lock now, and which? What it wrote about itself: "process 123 on host n1, SLURM job 7, since …". `ret` may be
 * NULL, and stays as it is if none does. */
enum { LOCK_OWNER_SIZE = 512 };
bool lock_owner(const char *path, char ret[LOCK_OWNER_SIZE]);

/* Local. Does a job hold the lock now? Takes nothing and leaves nothing. */
bool lock_is_held(const char *path);

#endif
