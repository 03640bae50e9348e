#include "sgdmap/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sgdmap/path.h"
#include "sgdmap/stopwatch.h"

enum { POLL_NANOSECONDS = 50 * 1000 * 1000 };

/* "process 123 on host n1, SLURM job 7, since 2026-01-01T00:00:00Z" */
static void owner_describe(char ret[LOCK_OWNER_SIZE])
{
    char host[HOST_NAME_MAX + 1] = "";
    gethostname(host, sizeof host - 1);
    const char *job = getenv("SLURM_JOB_ID");
    bool has_job = job != NULL && job[0] != '\0';
    char since[32] = "";
    struct tm utc;
    time_t seconds = time(NULL);
    strftime(since, sizeof since, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
    snprintf(ret, LOCK_OWNER_SIZE, "process %ld on host %s%s%.64s, since %s", (long)getpid(), host,
             has_job ? ", SLURM job " : "", has_job ? job : "", since);
}

/* What the holder wrote about itself: one printable line, whatever stands in the file. */
static void owner_read(int descriptor, char ret[LOCK_OWNER_SIZE])
{
    ssize_t length = pread(descriptor, ret, LOCK_OWNER_SIZE - 1, 0);
    ret[length > 0 ? length : 0] = '\0';
    ret[strcspn(ret, "\r\n")] = '\0';
    for (char *at = ret; *at != '\0'; at++)
        if ((unsigned char)*at < ' ' || *at == 127)
            *at = '?';
    if (ret[0] == '\0')
        snprintf(ret, LOCK_OWNER_SIZE, "it left no note about itself");
}

/* A holder removes the file when it is done, so what we locked may no longer be what the name stands for. */
static bool still_named(int descriptor, const char *path)
{
    struct stat held, named;
    return fstat(descriptor, &held) == 0 && stat(path, &named) == 0 && held.st_dev == named.st_dev &&
           held.st_ino == named.st_ino;
}

enum attempt { ATTEMPT_HELD, ATTEMPT_UNSUPPORTED, ATTEMPT_BUSY, ATTEMPT_AGAIN, ATTEMPT_ERROR };

/* One attempt. HELD and UNSUPPORTED leave the descriptor open; BUSY fills `owner`; ERROR leaves errno. */
static enum attempt attempt(const char *path, int *descriptor, char owner[LOCK_OWNER_SIZE])
{
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0)
        return ATTEMPT_ERROR;
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int reason = fcntl(file, F_OFD_SETLK, &whole) == 0 ? 0 : errno;
    if (reason == EAGAIN || reason == EACCES) {
        owner_read(file, owner);
        close(file);
        return ATTEMPT_BUSY;
    }
    bool unsupported = reason == ENOSYS || reason == EOPNOTSUPP || reason == EINVAL || reason == ENOLCK;
    if (reason != 0 && !unsupported) {
        close(file);
        errno = reason;
        return ATTEMPT_ERROR;
    }
    if (!still_named(file, path)) {
        close(file);
        return ATTEMPT_AGAIN;
    }
    *descriptor = file;
    return unsupported ? ATTEMPT_UNSUPPORTED : ATTEMPT_HELD;
}

int lock_take(const char *path, double seconds, struct lock *ret, struct error *err)
{
    char *name = path_beside(path, ".lock");
    if (name == NULL)
        return error_set(err, ERROR_MEMORY, "%s: no memory for the lock's name", path);

    double deadline = stopwatch_now() + seconds;
    char owner[LOCK_OWNER_SIZE];
    int descriptor = -1;
    enum attempt outcome;
    while (((outcome = attempt(name, &descriptor, owner)) == ATTEMPT_AGAIN || outcome == ATTEMPT_BUSY) &&
           stopwatch_now() < deadline)
        nanosleep(&(struct timespec){.tv_nsec = POLL_NANOSECONDS}, NULL);
    int code = ERROR_NONE;
    if (outcome == ATTEMPT_AGAIN)
        code = error_set(err, ERROR_IO, "%s: its lock %s is replaced again and again", path, name);
    if (outcome == ATTEMPT_BUSY)
        code = error_set(err, ERROR_ARGUMENT, "%s: another job is writing it: %s", path, owner);
    else if (outcome == ATTEMPT_ERROR)
        code = error_set(err, ERROR_IO, "%s: its lock %s cannot be made: %s", path, name, strerror(errno));
    if (code != ERROR_NONE) {
        free(name);
        return code;
    }

    /* The note is a courtesy to the one who is refused: on a full disk the lock holds without it. */
    owner_describe(owner);
    if (ftruncate(descriptor, 0) == 0)
        (void)!pwrite(descriptor, owner, strlen(owner), 0);
    *ret = (struct lock){.descriptor = descriptor, .path = name, .exclusive = outcome == ATTEMPT_HELD};
    return ERROR_NONE;
}

void lock_release(struct lock *lock)
{
    if (lock->descriptor < 0 || lock->path == NULL)
        return;
    unlink(lock->path); /* while it is held, so that it is ours that goes */
    close(lock->descriptor);
    free(lock->path);
    *lock = (struct lock){.descriptor = -1};
}

bool lock_owner(const char *path, char ret[LOCK_OWNER_SIZE])
{
    char *name = path_beside(path, ".lock");
    if (name == NULL)
        return false;
    int file = open(name, O_RDONLY | O_CLOEXEC);
    free(name);
    if (file < 0)
        return false;
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    bool held = fcntl(file, F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
    if (held && ret != NULL)
        owner_read(file, ret);
    close(file);
    return held;
}

bool lock_is_held(const char *path)
{
    return lock_owner(path, NULL);
}
