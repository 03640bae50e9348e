#include "sgdmap/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the child hands over, in one piece. */
struct answer {
    int code;
    struct error err;
};

static void limit(__rlimit_resource_t resource, int64_t most)
{
    struct rlimit now;
    if (getrlimit(resource, &now) == 0 && (now.rlim_cur == RLIM_INFINITY || now.rlim_cur > (rlim_t)most)) {
        now.rlim_cur = (rlim_t)most;
        setrlimit(resource, &now);
    }
}

/* Bytes of address space in use; -1 unknown. */
static int64_t address_space(void)
{
    long pages = -1;
    FILE *stream = fopen("/proc/self/statm", "re");
    if (stream == NULL)
        return -1;
    if (fscanf(stream, "%ld", &pages) != 1)
        pages = -1;
    fclose(stream);
    return pages < 0 ? -1 : (int64_t)pages * sysconf(_SC_PAGESIZE);
}

/* Handlers and masks are the parent's: a crash is to be one, and a signal to the whole group ends the parent if it wants. */
static void reset_signals(pid_t parent)
{
    static const int left_to_parent[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGPIPE};
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    for (size_t at = 0; at < sizeof left_to_parent / sizeof *left_to_parent; at++)
        signal(left_to_parent[at], SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

static void enter(const struct guard_limits *limits, pid_t parent)
{
    reset_signals(parent);
    prctl(PR_SET_DUMPABLE, 0);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_CPU, limits->cpu_seconds);
    alarm((unsigned)limits->wall_seconds);
#ifndef __SANITIZE_ADDRESS__ /* its shadow is terabytes of address space */
    const int64_t used = address_space();
    if (used >= 0)
        limit(RLIMIT_AS, used + limits->memory);
#else
    (void)address_space;
#endif
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
    }
}

static bool read_answer(int descriptor, struct answer *ret)
{
    size_t have = 0;
    while (have < sizeof *ret) {
        ssize_t count = read(descriptor, (char *)ret + have, sizeof *ret - have);
        if (count == 0 || (count < 0 && errno != EINTR))
            return false;
        have += count > 0 ? (size_t)count : 0;
    }
    ret->err.message[sizeof ret->err.message - 1] = '\0';
    return true;
}

/* Why there is no answer. */
static int describe_death(const struct guard_limits *limits, int status, struct error *err)
{
    const int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (number == SIGXCPU)
        return error_set(err, ERROR_IO, "no end after %d s of CPU time", limits->cpu_seconds);
    if (number == SIGALRM)
        return error_set(err, ERROR_IO, "no end after %d s", limits->wall_seconds);
    return error_set(err, ERROR_IO, "%s", number > 0 ? strsignal(number) : "it ended without an answer");
}

int guard_call(const struct guard_limits *limits, int (*work)(void *context, struct error *err),
               void *context, bool *died, struct error *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set(err, ERROR_MEMORY, "no pipe to a child process: %s", strerror(errno));
    const pid_t parent = getpid(), child = fork();
    if (child < 0) {
        const int reason = errno;
        close(ends[0]);
        close(ends[1]);
        return error_set(err, ERROR_MEMORY, "no child process: %s", strerror(reason));
    }
    struct answer answer = {0};
    if (child == 0) {
        enter(limits, parent);
        answer.code = work(context, &answer.err);
        _exit(write(ends[1], &answer, sizeof answer) == (ssize_t)sizeof answer ? 0 : 1);
    }
    close(ends[1]);
    *died = !read_answer(ends[0], &answer);
    close(ends[0]);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (*died)
        return describe_death(limits, status, err);
    if (answer.code != 0 && err != NULL)
        *err = answer.err;
    return answer.code;
}
