#include "sgdmap/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "sgdmap/fault.h"
#include "sgdmap/path.h"

/* The file: the head, the identity as a text filled up with NULs, the ids of the runs [run_count], the trainer. All in words of
 * this machine: kernels of another byte order have other names. */
enum { IDENTITY_SIZE = 1024 };
static const char MAGIC[8] = "sgdmap\n1"; /* no NUL behind it: the format's version is its last character */
static const char SUFFIX[] = ".checkpoint", TEMPORARY[] = ".checkpoint.writing";

struct head {
    char magic[sizeof MAGIC];
    uint64_t checksum; /* XXH3-64 of all behind it */
    int64_t size;      /* of the file */
    int64_t run_count;
    char identity[IDENTITY_SIZE];
};

static char *name_of(const struct checkpoints *c, const struct task *task, const char *suffix)
{
    char *ret;
    return asprintf(&ret, "%s/%lld%s", c->folder, (long long)task->group.first_run, suffix) < 0 ? NULL : ret;
}

static uint64_t checksum_of(const struct head *head)
{
    const size_t from = offsetof(struct head, size);
    return XXH3_64bits((const char *)head + from, (size_t)head->size - from);
}

int checkpoints_init(const char *output, const char *program, const char *kernels,
                     const struct config *config, struct checkpoints *ret, struct error *err)
{
    char digest[CONFIG_DIGEST_SIZE];
    struct stat at;
    config_digest(config, digest);
    struct checkpoints made = {.folder = path_beside(output, ".checkpoints")};
    if (asprintf(&made.identity, "%s\n%s kernels\nconfig %s", program, kernels, digest) < 0)
        made.identity = NULL;
    if (made.folder == NULL || made.identity == NULL || strlen(made.identity) >= IDENTITY_SIZE) {
        checkpoints_done(&made);
        return error_set(err, ERROR_MEMORY, "%s: no memory for its checkpoints' names", output);
    }
    made.any = stat(made.folder, &at) == 0;
    *ret = made;
    return 0;
}

void checkpoints_done(struct checkpoints *c)
{
    free(c->folder);
    free(c->identity);
    *c = (struct checkpoints){0};
}

void checkpoints_clear(const struct checkpoints *c)
{
    DIR *folder = opendir(c->folder);
    if (folder == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        const size_t digits = strspn(entry->d_name, "0123456789");
        const char *suffix = entry->d_name + digits;
        if (digits > 0 && (strcmp(suffix, SUFFIX) == 0 || strcmp(suffix, TEMPORARY) == 0))
            unlinkat(dirfd(folder), entry->d_name, 0);
    }
    closedir(folder);
    rmdir(c->folder);
}

/* -- Writing --------------------------------------------------------------------------------------- */

static int failed(struct error *err, const char *name, const char *what, int reason)
{
    return error_set(err, ERROR_IO, "%s: %s: %s", name, what, strerror(reason));
}

static int write_all(const char *name, const char *bytes, int64_t size, struct error *err)
{
    int file = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0)
        return failed(err, name, "cannot be made", errno);
    int code = 0;
    for (int64_t done = 0; code == 0 && done < size;) {
        ssize_t written = write(file, bytes + done, (size_t)(size - done));
        if (written > 0)
            done += written;
        else if (written == 0 || errno != EINTR)
            code = failed(err, name, "cannot be written", written == 0 ? ENOSPC : errno);
        if (code == 0)
            code = fault_at("checkpoint: written", err);
    }
    if (code == 0 && fsync(file) < 0)
        code = failed(err, name, "cannot be brought to the disk", errno);
    if (close(file) < 0 && code == 0)
        code = failed(err, name, "cannot be written", errno);
    return code;
}

/* Makes the folder if it is not there, the first time or because someone removed it. */
static int make_folder(const struct checkpoints *c, struct error *err)
{
    if (mkdir(c->folder, 0777) < 0)
        return errno == EEXIST ? 0 : failed(err, c->folder, "cannot be made", errno);
    TRY(fault_at("checkpoint: folder made", err));
    char *parent = path_beside(c->folder, "/..");
    const int reason = parent == NULL ? ENOMEM : path_sync(parent, O_DIRECTORY);
    free(parent);
    return reason == 0 ? 0 : failed(err, c->folder, "cannot be brought to the disk", reason);
}

static int put(const struct checkpoints *c, const char *name, const char *temporary, const struct head *head,
               struct error *err)
{
    TRY(make_folder(c, err));
    TRY(fault_at("checkpoint: to be written", err));
    int code = write_all(temporary, (const char *)head, head->size, err);
    if (code == 0)
        code = fault_at("checkpoint: to be named", err);
    if (code == 0 && rename(temporary, name) < 0)
        code = failed(err, name, "cannot be put into place", errno);
    if (code != 0) {
        unlink(temporary);
        return code;
    }
    TRY(fault_at("checkpoint: named", err));
    const int reason = path_sync(c->folder, O_DIRECTORY);
    return reason == 0 ? 0 : failed(err, c->folder, "cannot be brought to the disk", reason);
}

int checkpoint_save(const struct checkpoints *c, const struct task *task, struct error *err)
{
    const int64_t runs_size = task->run_count * (int64_t)sizeof *task->runs;
    const int64_t size = (int64_t)sizeof(struct head) + runs_size + trainer_saved_size(task->trainer);
    char *name = name_of(c, task, SUFFIX), *temporary = name_of(c, task, TEMPORARY);
    struct head *head = malloc((size_t)size);
    int code = 0;
    if (name == NULL || temporary == NULL || head == NULL) {
        code = error_set(err, ERROR_MEMORY, "no memory for a checkpoint of %lld bytes", (long long)size);
    } else {
        *head = (struct head){.size = size, .run_count = task->run_count};
        memcpy(head->magic, MAGIC, sizeof MAGIC);
        memcpy(head->identity, c->identity, strlen(c->identity));
        memcpy(head + 1, task->runs, (size_t)runs_size);
        trainer_save(task->trainer, (char *)(head + 1) + runs_size);
        head->checksum = checksum_of(head);
        code = put(c, name, temporary, head, err);
    }
    free(name);
    free(temporary);
    free(head);
    return code;
}

/* -- Reading --------------------------------------------------------------------------------------- */

/* The file's bytes behind a head that was read before, into one block with it. NULL, and *reason: why not. */
static struct head *read_rest(int file, const struct head *head, int *reason)
{
    struct head *whole = malloc((size_t)head->size);
    *reason = whole == NULL ? ENOMEM : 0;
    if (whole != NULL)
        *whole = *head;
    for (int64_t done = sizeof *head; *reason == 0 && done < head->size;) {
        const ssize_t got = read(file, (char *)whole + done, (size_t)(head->size - done));
        if (got > 0)
            done += got;
        else if (got == 0 || errno != EINTR)
            *reason = got == 0 ? EIO : errno;
    }
    if (*reason == 0)
        return whole;
    free(whole);
    return NULL;
}

/* The ids of the checkpoint's runs ascend, as the task's do: from [task->run_count]. */
static bool find_runs(const struct head *head, const struct task *task, int64_t *from)
{
    const int64_t *saved = (const int64_t *)(head + 1);
    int64_t at = 0;
    for (int64_t i = 0; i < task->run_count; ++i) {
        while (at < head->run_count && saved[at] != task->runs[i])
            ++at;
        if (at == head->run_count)
            return false;
        from[i] = at;
    }
    return true;
}

/* The first line in which two identities differ, of the first. */
static void different_line(const char *theirs, const char *ours, char *ret, size_t size)
{
    while (*theirs != '\0' && *ours != '\0') {
        const size_t a = strcspn(theirs, "\n"), b = strcspn(ours, "\n");
        if (a != b || memcmp(theirs, ours, a) != 0)
            break;
        theirs += a + (theirs[a] == '\n');
        ours += b + (ours[b] == '\n');
    }
    snprintf(ret, size, "%.*s", (int)strcspn(theirs, "\n"), theirs);
}

static int restore(const struct checkpoints *c, const char *name, int file, struct task *task,
                   struct error *err)
{
    static const char anew[] = "its group of runs begins anew";
    struct head head;
    struct stat at;
    const ssize_t got = read(file, &head, sizeof head);
    if (got < 0 || fstat(file, &at) < 0)
        return failed(err, name, "cannot be read", errno);
    if (got != (ssize_t)sizeof head || memcmp(head.magic, MAGIC, sizeof MAGIC) != 0)
        return error_set(err, ERROR_IO, "%s: not a checkpoint of this version; %s", name, anew);
    const bool plausible = head.run_count >= task->run_count && head.run_count <= task->group.run_count;
    const int64_t runs_size = plausible ? head.run_count * (int64_t)sizeof *task->runs : 0;
    if (!plausible || head.size != at.st_size || head.size < (int64_t)sizeof head + runs_size ||
        head.size > (int64_t)sizeof head + runs_size + trainer_saved_limit(task->trainer, head.run_count))
        return error_set(err, ERROR_IO, "%s: damaged, or of other runs; %s", name, anew);
    int reason;
    struct head *whole = read_rest(file, &head, &reason);
    if (whole == NULL)
        return failed(err, name, "cannot be read", reason);
    int code = 0;
    int64_t *from = malloc((size_t)task->run_count * sizeof *from);
    whole->identity[IDENTITY_SIZE - 1] = '\0';
    if (from == NULL) {
        code = error_set(err, ERROR_MEMORY, "%s: no memory to take it up", name);
    } else if (checksum_of(whole) != head.checksum) {
        code = error_set(err, ERROR_IO, "%s: damaged: its checksum does not match; %s", name, anew);
    } else if (strcmp(whole->identity, c->identity) != 0) {
        char line[IDENTITY_SIZE];
        different_line(whole->identity, c->identity, line, sizeof line);
        code =
            error_set(err, ERROR_IO, "%s: of another program, config or kernels (%s); %s", name, line, anew);
    } else if (!find_runs(whole, task, from) ||
               !trainer_restore(task->trainer, (const char *)(whole + 1) + runs_size,
                                head.size - (int64_t)sizeof head - runs_size, from)) {
        code = error_set(err, ERROR_IO, "%s: of other runs; %s", name, anew);
    }
    free(from);
    free(whole);
    return code;
}

int checkpoint_restore(const struct checkpoints *c, struct task *task, bool *restored, struct error *err)
{
    *restored = false;
    char *name = name_of(c, task, SUFFIX);
    if (name == NULL)
        return error_set(err, ERROR_MEMORY, "no memory for a checkpoint's name");
    int file = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int code = 0;
    if (file >= 0) {
        code = restore(c, name, file, task, err);
        *restored = code == 0;
        close(file);
    } else if (errno != ENOENT) {
        code = failed(err, name, "cannot be read", errno);
    }
    free(name);
    return code;
}

void checkpoint_remove(const struct checkpoints *c, const struct task *task)
{
    char *name = name_of(c, task, SUFFIX);
    if (name != NULL)
        unlink(name);
    free(name);
}
