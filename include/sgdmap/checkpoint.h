/* checkpoint: groups in training, each in a file of its own in the folder FILE.checkpoints beside the result file.
 *
 * A checkpoint is written under another name, brought to the disk and then given its own, so that at every instant there is a
 * whole one or none; a checksum finds what a disk has done to it. It is taken up again only by the same program, config and
 * kernels that wrote it, since otherwise the bits to come would be other ones. It does not depend on the number of ranks. */
#ifndef SGDMAP_CHECKPOINT_H
#define SGDMAP_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "sgdmap/config.h"
#include "sgdmap/error.h"
#include "sgdmap/task.h"

struct checkpoints {
    char *folder;
    char *identity; /* program, kernels and the config's digest, one a line */
    bool any;       /* there was a folder at the beginning: a group may have left something */
};

/* Local. `output` names the result file, `program` and `kernels` what trains. Errors: ERROR_MEMORY. */
WARN_UNUSED int checkpoints_init(const char *output, const char *program, const char *kernels,
                                 const struct config *config, struct checkpoints *ret, struct error *err);
void checkpoints_done(struct checkpoints *checkpoints);

/* Local. Removes all checkpoints, and the folder if nothing else is in it. */
void checkpoints_clear(const struct checkpoints *checkpoints);

/* Local. Saves the task's group. Errors: ERROR_IO, ERROR_MEMORY; an earlier checkpoint of the group stays. */
WARN_UNUSED int checkpoint_save(const struct checkpoints *checkpoints, const struct task *task,
                                struct error *err);

/* Local. Lets a task that is new go on from its group's checkpoint. *restored: it did. Without a checkpoint all is well too;
 * with one that is no use the task stays new, and the error says why. Errors: ERROR_IO, ERROR_MEMORY. */
WARN_UNUSED int checkpoint_restore(const struct checkpoints *checkpoints, struct task *task, bool *restored,
                                   struct error *err);

/* Local. The group is done: its checkpoint goes. */
void checkpoint_remove(const struct checkpoints *checkpoints, const struct task *task);

#endif
