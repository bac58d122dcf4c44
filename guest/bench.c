// Measures what a guest costs: system calls, processes, memory, signals, and
// plain computing. The same binary runs natively, in a guest, and under an
// emulator; one line per measure: NAME VALUE UNIT (median of several rounds).
//
// usage: bench [NAME]…        (default: all)

#define _GNU_SOURCE
#define GUEST "/usr/share/guest/"
#include "sha256.h"
#include <errno.h>
#include <linux/futex.h>
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char nothing[4096];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void need(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

// Each measure returns nanoseconds for one operation.

static double null_system_call(void) {
    enum { N = 50000 };
    double start = now();
    for (int i = 0; i < N; i++) syscall(SYS_getppid);
    return (now() - start) / N;
}

static double clock_read(void) {
    enum { N = 100000 };
    struct timespec t;
    double start = now();
    for (int i = 0; i < N; i++) clock_gettime(CLOCK_MONOTONIC, &t);
    return (now() - start) / N;
}

static double pipe_byte(void) {
    enum { N = 20000 };
    int ends[2];
    char byte = 0;
    need(pipe(ends) == 0, "pipe");
    double start = now();
    for (int i = 0; i < N; i++) need(write(ends[1], &byte, 1) == 1 && read(ends[0], &byte, 1) == 1, "pipe");
    double took = now() - start;
    close(ends[0]);
    close(ends[1]);
    return took / N;
}

static double fork_exit(void) {
    enum { N = 100 };
    double start = now();
    for (int i = 0; i < N; i++) {
        pid_t child = fork();
        if (child == 0) _exit(0);
        need(child > 0 && waitpid(child, NULL, 0) == child, "fork");
    }
    return (now() - start) / N;
}

static double fork_exec(void) {
    enum { N = 60 };
    double start = now();
    for (int i = 0; i < N; i++) {
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            execl(nothing, nothing, (char *)NULL);
            _exit(127);
        }
        need(child > 0 && waitpid(child, &status, 0) == child && status == 0, nothing);
    }
    return (now() - start) / N;
}

static double fresh_page(void) {
    enum { N = 4096 };
    volatile char *memory = mmap(NULL, N * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(memory != MAP_FAILED, "mmap");
    madvise((void *)memory, N * 4096, MADV_NOHUGEPAGE);
    double start = now();
    for (int i = 0; i < N; i++) memory[i * 4096] = 1;
    double took = now() - start;
    munmap((void *)memory, N * 4096);
    return took / N;
}

static double pipe_round_trip(void) {
    enum { N = 2000 };
    int there[2], back[2];
    char byte = 0;
    need(pipe(there) == 0 && pipe(back) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1) need(write(back[1], &byte, 1) == 1, "write");
        _exit(0);
    }
    double start = now();
    for (int i = 0; i < N; i++) need(write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1, "pipe");
    double took = now() - start;
    close(there[1]);
    waitpid(child, NULL, 0);
    close(there[0]);
    close(back[0]);
    close(back[1]);
    return took / N;
}

static volatile int handled;
static void on_signal(int number) {
    (void)number;
    handled++;
}

static double signal_self(void) {
    enum { N = 5000 };
    signal(SIGUSR1, on_signal);
    handled = 0;
    pid_t self = getpid();
    double start = now();
    for (int i = 0; i < N; i++) syscall(SYS_kill, self, SIGUSR1);
    double took = now() - start;
    need(handled == N, "signals");
    return took / N;
}

static char *guarded;
static void on_fault(int number) {
    (void)number;
    mprotect(guarded, 4096, PROT_READ | PROT_WRITE);
}

static double fault_handler(void) {
    enum { N = 1000 };
    guarded = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(guarded != MAP_FAILED, "mmap");
    signal(SIGSEGV, on_fault);
    double start = now();
    for (int i = 0; i < N; i++) {
        *(volatile char *)guarded = 1;
        mprotect(guarded, 4096, PROT_READ);
    }
    double took = now() - start;
    signal(SIGSEGV, SIG_DFL);
    munmap(guarded, 4096);
    return took / N;
}

static double context_switch(void) {
    enum { N = 2000 };
    unsigned *word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    need(word != MAP_FAILED, "mmap");
    pid_t child = fork();
    unsigned mine = child == 0;
    double start = now();
    for (int i = 0; i < N; i++) {
        unsigned seen;
        while ((seen = __atomic_load_n(word, __ATOMIC_SEQ_CST)) % 2 != mine)
            syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
        __atomic_store_n(word, seen + 1, __ATOMIC_SEQ_CST);
        syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    if (child == 0) _exit(0);
    double took = now() - start;
    waitpid(child, NULL, 0);
    munmap(word, 4096);
    return took / (2 * N);
}

// A bytecode machine that counts primes: indirect jumps, as interpreters make.
static double interpreter(void) {
    enum { PUSH, LOAD, STORE, ADD, MOD, JZ, JLT, JMP, INC, HALT };
    // n=2; do { d=2; while (d<n && n%d) d++; count += d==n } while (++n < 4500)
    static const int code[] = {PUSH, 2, STORE, 0, PUSH, 2, STORE, 1, LOAD, 1, LOAD, 0, JLT, 18, JMP, 29, HALT, HALT,
        LOAD, 0, LOAD, 1, MOD, JZ, 31, INC, 1, JMP, 8, INC, 2, INC, 0, LOAD, 0, PUSH, 4500, JLT, 4, HALT};
    long stack[16], variables[3] = {0};
    int pc = 0, top = 0;
    double start = now();
    for (;;) switch (code[pc++]) {
            case PUSH: stack[top++] = code[pc++]; break;
            case LOAD: stack[top++] = variables[code[pc++]]; break;
            case STORE: variables[code[pc++]] = stack[--top]; break;
            case ADD: top--, stack[top - 1] += stack[top]; break;
            case MOD: top--, stack[top - 1] %= stack[top]; break;
            case JZ: pc = stack[--top] ? pc + 1 : code[pc]; break;
            case JLT: top -= 2, pc = stack[top] < stack[top + 1] ? code[pc] : pc + 1; break;
            case JMP: pc = code[pc]; break;
            case INC: variables[code[pc++]]++; break;
            case HALT: need(variables[2] == 610, "interpreter"); return now() - start;
        }
}

static int compare(const void *left, const void *right) {
    unsigned a = *(const unsigned *)left, b = *(const unsigned *)right;
    return a < b ? -1 : a > b;
}

static double sort(void) {
    enum { N = 1000000 };
    unsigned *numbers = malloc(N * sizeof *numbers), state = 1;
    for (int i = 0; i < N; i++) numbers[i] = state = state * 1664525u + 1013904223u;
    double start = now();
    qsort(numbers, N, sizeof *numbers, compare);
    double took = now() - start;
    free(numbers);
    return took;
}

static double hash(void) {
    static char data[16 << 20];
    char hex[65];
    memset(data, 'x', sizeof data);
    double start = now();
    sha256_hex(data, sizeof data, hex);
    return now() - start;
}

static double bodies(void) {
    enum { N = 5, STEPS = 400000 };
    double p[N][3], v[N][3], m[N];
    for (int i = 0; i < N; i++) {
        m[i] = i ? 0.01 * i : 40;
        for (int k = 0; k < 3; k++) p[i][k] = i * (3.1 + k), v[i][k] = i * 0.2 * (k - 1);
    }
    double start = now();
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < N; i++)
            for (int j = i + 1; j < N; j++) {
                double d[3], r = 0;
                for (int k = 0; k < 3; k++) d[k] = p[i][k] - p[j][k], r += d[k] * d[k];
                double f = 0.001 / (r * sqrt(r));
                for (int k = 0; k < 3; k++) v[i][k] -= d[k] * m[j] * f, v[j][k] += d[k] * m[i] * f;
            }
        for (int i = 0; i < N; i++)
            for (int k = 0; k < 3; k++) p[i][k] += 0.001 * v[i][k];
    }
    double took = now() - start;
    need(isfinite(p[0][0]), "bodies");
    return took;
}

static double matrix(void) {
    enum { N = 320 };
    static double a[N][N], b[N][N], c[N][N];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) a[i][j] = i + j, b[i][j] = i - j, c[i][j] = 0;
    double start = now();
    for (int i = 0; i < N; i++)
        for (int k = 0; k < N; k++)
            for (int j = 0; j < N; j++) c[i][j] += a[i][k] * b[k][j];
    double took = now() - start;
    need(c[1][1] != 0, "matrix");
    return took;
}

static double run(const char *const *arguments) {
    int status = 0;
    double start = now();
    pid_t child = fork();
    if (child == 0) {
        execv(arguments[0], (char *const *)arguments);
        _exit(127);
    }
    need(child > 0 && waitpid(child, &status, 0) == child && status == 0, arguments[0]);
    return now() - start;
}

static double shell(void) {
    return run((const char *const[]){"/bin/busybox", "sh", "-c",
        "i=0; s=0; while [ $i -lt 40000 ]; do i=$((i+1)); s=$((s*3+i & 65535)); done; : $s", NULL});
}

static double compile(const char *source) {
    return run((const char *const[]){"/usr/bin/gcc", "-O2", "-c", source, "-o", "/tmp/bench.o", NULL});
}

static double script(const char *source) {
    return run((const char *const[]){"/bin/sh", "-c", "/usr/bin/python3 -B -S -E $0 >/tmp/bench.out", source, NULL});
}

// A file of 280 lines and a script of 90, which take about as long as those did for which the limits were set: 250 and 470
// ms natively.
static double compiler(void) { return compile(GUEST "signals.c"); }
static double python(void) { return script(GUEST "report.py"); }

// A third and a fifth of that, most of it the start of the programs.
static double small_compiler(void) { return compile(GUEST "work.c"); }
static double small_python(void) { return script(GUEST "work.py"); }

static const struct {
    const char *name, *unit;
    double scale;
    int rounds;
    double (*measure)(void);
    const char *program, *data; // left out where these are missing
} measures[] = {
    // First of all what is meant to be cold: one round, nothing run before.
    {"gcc_cold", "ms", 1e6, 1, compiler, "/usr/bin/gcc", GUEST "signals.c"},
    {"python_cold", "ms", 1e6, 1, python, "/usr/bin/python3", GUEST "report.py"},
    // Only where they are all that is measured are these cold as well.
    {"gcc_small", "ms", 1e6, 1, small_compiler, "/usr/bin/gcc", GUEST "work.c"},
    {"python_small", "ms", 1e6, 1, small_python, "/usr/bin/python3", GUEST "work.py"},
    {"gcc_warm", "ms", 1e6, 3, compiler, "/usr/bin/gcc", GUEST "signals.c"},
    {"python_warm", "ms", 1e6, 3, python, "/usr/bin/python3", GUEST "report.py"},
    {"null_syscall", "ns", 1, 15, null_system_call, NULL, NULL},
    {"clock_gettime", "ns", 1, 15, clock_read, NULL, NULL},
    {"pipe_byte", "ns", 1, 15, pipe_byte, NULL, NULL},
    {"fork_exit_wait", "us", 1e3, 11, fork_exit, NULL, NULL},
    {"fork_exec_wait", "us", 1e3, 11, fork_exec, nothing, NULL},
    {"page_fault", "us", 1e3, 9, fresh_page, NULL, NULL},
    {"pipe_round_trip", "us", 1e3, 9, pipe_round_trip, NULL, NULL},
    {"context_switch", "us", 1e3, 9, context_switch, NULL, NULL},
    {"signal", "us", 1e3, 9, signal_self, NULL, NULL},
    {"segv_mprotect", "us", 1e3, 9, fault_handler, NULL, NULL},
    {"interpreter", "ms", 1e6, 7, interpreter, NULL, NULL},
    {"qsort", "ms", 1e6, 7, sort, NULL, NULL},
    {"sha256", "ms", 1e6, 7, hash, NULL, NULL},
    {"nbody", "ms", 1e6, 7, bodies, NULL, NULL},
    {"matmul", "ms", 1e6, 7, matrix, NULL, NULL},
    {"shell", "ms", 1e6, 3, shell, "/bin/busybox", NULL},
};

static int by_value(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static int wanted(const char *name, int count, char **arguments) {
    if (count < 2 || !strcmp(arguments[1], "all") || !strcmp(arguments[1], "1")) return 1;
    for (int i = 1; i < count; i++)
        if (!strcmp(arguments[i], name)) return 1;
    return 0;
}

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *slash = strrchr(arguments[0], '/');
    int folder = slash ? (int)(slash - arguments[0]) + 1 : 0;
    snprintf(nothing, sizeof nothing, "%.*snothing", folder, arguments[0]);
    // One CPU, as a guest with one vCPU has, so that hand-overs compare.
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
    for (size_t i = 0; i < sizeof measures / sizeof *measures; i++) {
        double values[16];
        if (!wanted(measures[i].name, count, arguments)) continue;
        if (measures[i].program && access(measures[i].program, X_OK) != 0) continue;
        if (measures[i].data && access(measures[i].data, R_OK) != 0) continue;
        for (int round = 0; round < measures[i].rounds; round++) values[round] = measures[i].measure();
        qsort(values, (size_t)measures[i].rounds, sizeof *values, by_value);
        printf("%s %.2f %s\n", measures[i].name, values[measures[i].rounds / 2] / measures[i].scale, measures[i].unit);
    }
    return 0;
}
