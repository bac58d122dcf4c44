// Processes: fork, vfork, exec, deep trees, orphans, many at once. Each exec
// gets a fresh random layout, so this is also where rare placements show.

#include "check.h"
#include <spawn.h>
#include <sys/prctl.h>

extern char **environ;
static char *self;

static void storm(void) {
    int bad = 0;
    for (int i = 0; i < 300; i++) {
        pid_t child = fork();
        if (child == 0) _exit(i & 0x7f);
        bad += reap(child) != (i & 0x7f);
    }
    check(bad == 0, "fork-exit-wait", "%d of 300 wrong", bad);
    pid_t children[60];
    for (int i = 0; i < 60; i++)
        if ((children[i] = fork()) == 0) {
            sched_yield();
            _exit(i);
        }
    for (int i = 59; i >= 0; i--) bad += reap(children[i]) != i;
    check(bad == 0, "sixty-at-once", "%d of 60 wrong", bad);
}

// Private memory: each generation writes and must not see the others' writes.
static int tree(int depth, volatile int *value) {
    *value = depth;
    if (depth == 0) return 0;
    pid_t child = fork();
    if (child == 0) _exit(tree(depth - 1, value));
    int result = reap(child);
    return result != 0 || *value != depth;
}

static void trees(void) {
    volatile int *value = malloc(sizeof *value);
    check(tree(40, value) == 0, "deep-tree", "a generation saw another's write");
    int bad = 0;
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        if (child == 0) {
            // A complete binary tree of processes, six levels.
            int wrong = 0;
            for (int level = 0; level < 6; level++) {
                pid_t left = fork(), right = left ? fork() : 0;
                if (left && right) {
                    wrong |= reap(left) || reap(right);
                    _exit(wrong);
                }
            }
            _exit(0);
        }
        bad += reap(child) != 0;
    }
    check(bad == 0, "wide-tree", "%d of 3 wrong", bad);
}

static void orphans(void) {
    int ends[2];
    pid_t orphan = 0, parent = 0;
    require(pipe(ends) == 0, "pipe");
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t child = fork();
    if (child == 0) {
        pid_t middle = getpid();
        if (fork() == 0) {
            while (getppid() == middle) usleep(1000);
            pid_t pair[2] = {getpid(), getppid()};
            _exit(write(ends[1], pair, sizeof pair) == sizeof pair ? 21 : 1);
        }
        _exit(0);
    }
    pid_t pair[2] = {0, 0};
    int result = reap(child);
    if (read(ends[0], pair, sizeof pair) == sizeof pair) orphan = pair[0], parent = pair[1];
    int orphan_result = orphan > 0 ? reap(orphan) : -1;
    check(result == 0 && parent == getpid() && orphan_result == 21, "orphan", "adopted by %d, ended with %d", parent,
        orphan_result);
    close(ends[0]);
    close(ends[1]);
}

static int run_self(const char *how, const char *argument) {
    char *arguments[] = {self, "--child", (char *)argument, NULL};
    pid_t child = -1;
    if (how[0] == 's') {
        if (posix_spawn(&child, self, NULL, NULL, arguments, environ) != 0) return -1;
    } else if (how[0] == 'v') {
        child = vfork();
        if (child == 0) {
            execv(self, arguments);
            _exit(127);
        }
    } else {
        child = fork();
        if (child == 0) {
            execv(self, arguments);
            _exit(127);
        }
    }
    return reap(child);
}

static void execs(void) {
    static const char *const ways[] = {"fork", "vfork", "spawn"};
    for (int way = 0; way < 3; way++) {
        int bad = 0;
        char number[8], name[32];
        for (int i = 0; i < 100; i++) {
            snprintf(number, sizeof number, "%d", i);
            bad += run_self(ways[way], number) != i;
        }
        snprintf(name, sizeof name, "exec-after-%s", ways[way]);
        check(bad == 0, name, "%d of 100 wrong", bad);
    }
}

static void long_arguments(void) {
    enum { COUNT = 500 };
    char *arguments[COUNT + 4];
    char text[200];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    arguments[0] = self;
    arguments[1] = (char *)"--count";
    for (int i = 0; i < COUNT; i++) arguments[2 + i] = text;
    arguments[2 + COUNT] = NULL;
    pid_t child = fork();
    if (child == 0) {
        execv(self, arguments);
        _exit(127);
    }
    int result = reap(child);
    check(result == COUNT % 200, "long-arguments", "child counted %d", result);
}

// exec from a thread-less process that replaced its own image many times.
static void chain(void) {
    pid_t child = fork();
    if (child == 0) {
        execl(self, self, "--chain", "100", NULL);
        _exit(127);
    }
    int result = reap(child);
    check(result == 42, "exec-chain", "ended with %d", result);
}

int main(int count, char **arguments) {
    check_start("forks");
    self = (char *)"/proc/self/exe";
    if (count == 3 && !strcmp(arguments[1], "--child")) {
        // A little work on a fresh stack and heap before the answer.
        char *memory = malloc(100000);
        fill_random(memory, 100000, 5);
        return holds_random(memory, 100000, 5) ? atoi(arguments[2]) : 126;
    }
    if (count > 3 && !strcmp(arguments[1], "--count")) return (count - 2) % 200;
    if (count == 3 && !strcmp(arguments[1], "--chain")) {
        int left = atoi(arguments[2]);
        char number[12];
        if (left == 0) return 42;
        snprintf(number, sizeof number, "%d", left - 1);
        execl(self, self, "--chain", number, NULL);
        return 127;
    }
    storm();
    trees();
    orphans();
    execs();
    long_arguments();
    chain();
    return check_failed;
}
