// Shared by the self-verifying guest programs: results are lines
//   ok PROGRAM/NAME
//   FAIL PROGRAM/NAME why
//   skip PROGRAM/NAME why        (the CPU or kernel lacks it)
// and the exit status is 1 when anything failed. They run in a guest and,
// natively, on the host, where they must pass as well.

#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *check_program = "?";
static int check_failed;

static inline void check_start(const char *program) {
    check_program = program;
    setvbuf(stdout, NULL, _IOLBF, 0);
#ifdef __AVX2__
    // Built with -march=x86-64-v3: ask before any such instruction runs.
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2")) {
        printf("skip %s/v3 the CPU has no AVX2 or BMI2\n", check_program);
        exit(0);
    }
#endif
}

static inline void check_skip(const char *name, const char *why) {
    printf("skip %s/%s %s\n", check_program, name, why);
}

// The guest was told that its programs run in processes of their own on a host with protection keys, which
// work there whatever CPUID says: docs/exactness.md.
static inline int keys_work_unseen(void) {
    char line[4096] = "";
    FILE *file = fopen("/proc/cmdline", "r");
    if (file && !fgets(line, sizeof line, file)) line[0] = 0;
    if (file) fclose(file);
    return strstr(line, "keys-work-unseen") != NULL;
}

__attribute__((format(printf, 3, 4))) static inline int check(
    int good, const char *name, const char *why, ...) {
    va_list arguments;
    if (good) {
        printf("ok %s/%s\n", check_program, name);
        return 1;
    }
    check_failed = 1;
    printf("FAIL %s/%s ", check_program, name);
    va_start(arguments, why);
    vprintf(why, arguments);
    va_end(arguments);
    printf("\n");
    return 0;
}

// Ends the program when something that every test needs does not work.
static inline void require(int good, const char *what) {
    if (good) return;
    printf("FAIL %s/%s %s\n", check_program, what, strerror(errno));
    exit(1);
}

// Waits for a child; 0 when it exited with status 0, else a code that says how it ended.
static inline int reap(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return -1;
    if (WIFSIGNALED(status)) return 1000 + WTERMSIG(status);
    return WEXITSTATUS(status);
}

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// A small generator with a fixed sequence, so that data are known everywhere.
static inline uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static inline void fill_random(void *buffer, size_t length, uint64_t seed) {
    unsigned char *bytes = buffer;
    for (size_t i = 0; i < length; i++) bytes[i] = (unsigned char)next_random(&seed);
}

static inline int holds_random(const void *buffer, size_t length, uint64_t seed) {
    const unsigned char *bytes = buffer;
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != (unsigned char)next_random(&seed)) return 0;
    return 1;
}

#endif
