// Signals: nesting, masks, queues, alternate stacks, restart and EINTR, and
// timer storms over code that keeps its whole state in registers.

#include "check.h"
#include <pthread.h>
#include <sys/time.h>
#include <ucontext.h>

static volatile int count, depth, deepest, value;

static void on_count(int number) {
    (void)number;
    count++;
}

static void on_nested(int number) {
    depth++;
    if (depth > deepest) deepest = depth;
    if (number == SIGUSR1) raise(SIGUSR2);
    if (number == SIGUSR2) raise(SIGHUP);
    count++;
    depth--;
}

static void handle(int number, void (*handler)(int), int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigaction(number, &action, NULL);
}

static void nested(void) {
    handle(SIGUSR1, on_nested, 0);
    handle(SIGUSR2, on_nested, 0);
    handle(SIGHUP, on_nested, 0);
    for (int i = 0; i < 1000; i++) raise(SIGUSR1);
    check(count == 3000 && deepest == 3 && depth == 0, "nested", "%d calls, depth %d", count, deepest);
}

static void masks(void) {
    sigset_t set, pending;
    handle(SIGUSR1, on_count, 0);
    count = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (int i = 0; i < 5; i++) raise(SIGUSR1);
    sigpending(&pending);
    int blocked = count == 0 && sigismember(&pending, SIGUSR1);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    check(blocked && count == 1, "masks", "blocked %d, %d calls", blocked, count);
}

static void on_value(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    value = value * 3 + info->si_value.sival_int;
    count++;
}

static void queued(void) {
    struct sigaction action = {.sa_sigaction = on_value, .sa_flags = SA_SIGINFO};
    sigset_t set;
    int expected = 0;
    sigaction(SIGRTMIN, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    count = value = 0;
    for (int i = 0; i < 10; i++) {
        sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i});
        expected = expected * 3 + i;
    }
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    check(count == 10 && value == expected, "queued", "%d calls, value %d instead of %d", count, value, expected);
}

static char *alternate;
static volatile int on_alternate;

static void on_stack(int number) {
    char here;
    (void)number;
    on_alternate = &here > alternate && &here < alternate + 65536;
}

static void alternate_stack(void) {
    alternate = malloc(65536);
    stack_t stack = {.ss_sp = alternate, .ss_size = 65536}, off = {.ss_flags = SS_DISABLE};
    sigaltstack(&stack, NULL);
    handle(SIGUSR1, on_stack, SA_ONSTACK);
    int good = 1;
    for (int i = 0; i < 200; i++) {
        on_alternate = 0;
        raise(SIGUSR1);
        good &= on_alternate;
    }
    check(good, "alternate-stack", "the handler ran elsewhere");
    sigaltstack(&off, NULL);
}

static void interrupted_calls(void) {
    struct itimerval once = {.it_value = {.tv_usec = 20000}};
    int ends[2];
    char byte;
    require(pipe(ends) == 0, "pipe");
    handle(SIGALRM, on_count, 0);
    count = 0;
    setitimer(ITIMER_REAL, &once, NULL);
    errno = 0;
    long got = read(ends[0], &byte, 1);
    check(got == -1 && errno == EINTR && count == 1, "eintr", "read gave %ld, errno %d", got, errno);

    handle(SIGALRM, on_count, SA_RESTART);
    count = 0;
    pid_t child = fork();
    if (child == 0) {
        usleep(120000);
        _exit(write(ends[1], "x", 1) == 1 ? 0 : 1);
    }
    setitimer(ITIMER_REAL, &once, NULL);
    got = read(ends[0], &byte, 1);
    check(got == 1 && byte == 'x' && count == 1, "restart", "read gave %ld, %d signals", got, count);
    reap(child);

    // nanosleep goes on after a signal by way of restart_syscall.
    handle(SIGCHLD, on_count, SA_RESTART);
    count = 0;
    struct timespec half = {.tv_nsec = 100000000}, left = {0};
    setitimer(ITIMER_REAL, &once, NULL);
    got = nanosleep(&half, &left);
    check(got == -1 && errno == EINTR && left.tv_nsec > 0 && left.tv_nsec < 100000000, "nanosleep-left", "%ld, %ld ns",
        got, left.tv_nsec);
    close(ends[0]);
    close(ends[1]);
}

// Keeps known values in all general and SSE registers while signals arrive.
static int hold_registers(uint64_t seed, long rounds) {
    uint64_t in[6], out[6];
    unsigned char vectors[256] __attribute__((aligned(64))), after[256] __attribute__((aligned(64)));
    fill_random(in, sizeof in, seed);
    fill_random(vectors, sizeof vectors, seed + 1);
#define LOAD(n) "movaps " #n "*16(%[v]), %%xmm" #n "\n"
#define KEEP(n) "movaps %%xmm" #n ", " #n "*16(%[a])\n"
    asm volatile(
        "mov 0(%[in]), %%r8\n mov 8(%[in]), %%r9\n mov 16(%[in]), %%r10\n mov 24(%[in]), %%r12\n"
        "mov 32(%[in]), %%r13\n mov 40(%[in]), %%r14\n" LOAD(0) LOAD(1) LOAD(2) LOAD(3) LOAD(4) LOAD(5) LOAD(6) LOAD(7)
            LOAD(8) LOAD(9) LOAD(10) LOAD(11) LOAD(12) LOAD(13) LOAD(14) LOAD(15) "1: dec %[n]\n jnz 1b\n"
        "mov %%r8, 0(%[out])\n mov %%r9, 8(%[out])\n mov %%r10, 16(%[out])\n mov %%r12, 24(%[out])\n"
        "mov %%r13, 32(%[out])\n mov %%r14, 40(%[out])\n" KEEP(0) KEEP(1) KEEP(2) KEEP(3) KEEP(4) KEEP(5) KEEP(6)
            KEEP(7) KEEP(8) KEEP(9) KEEP(10) KEEP(11) KEEP(12) KEEP(13) KEEP(14) KEEP(15)
        : [n] "+r"(rounds)
        : [in] "r"(in), [out] "r"(out), [v] "r"(vectors), [a] "r"(after)
        : "r8", "r9", "r10", "r12", "r13", "r14", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
        "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    return memcmp(in, out, sizeof in) == 0 && memcmp(vectors, after, sizeof vectors) == 0;
}

static void on_storm(int number) {
    (void)number;
    count++;
    // Overwrite what the interrupted code holds; the kernel must restore it.
    asm volatile("pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm7, %%xmm7; pcmpeqd %%xmm15, %%xmm15; xor %%r8, %%r8; xor %%r9, %%r9" ::
            : "xmm0", "xmm7", "xmm15", "r8", "r9", "cc");
}

static void timer_storm(void) {
    struct itimerval often = {{.tv_usec = 200}, {.tv_usec = 200}}, off = {{0}, {0}};
    handle(SIGALRM, on_storm, SA_RESTART);
    count = 0;
    setitimer(ITIMER_REAL, &often, NULL);
    int good = 1;
    uint64_t end = now_ns() + 700000000;
    for (uint64_t i = 0; good && now_ns() < end; i++) good = hold_registers(i, 200000);
    setitimer(ITIMER_REAL, &off, NULL);
    check(good, "storm-registers", "a register changed under a signal");
    check(count >= 10, "storm-count", "only %d signals", count);
}

// Flags that no instruction of `stepped_flags` changes: CF, SF and OF.
#define KEPT 0x881

static volatile uint64_t flag_steps, flags_lost;

static void on_flag_step(int number, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    (void)number, (void)info;
    // The instruction that ends the steps has changed them.
    if (!(u->uc_mcontext.gregs[REG_EFL] & 0x100)) return;
    flag_steps++;
    if ((u->uc_mcontext.gregs[REG_EFL] & KEPT) != KEPT) flags_lost++;
}

// Single steps, each a way into the program: wherever in it the timer hits, the flags stay the program's.
static void stepped_flags(void) {
    struct itimerval often = {{.tv_usec = 100}, {.tv_usec = 100}}, off = {{0}, {0}};
    struct sigaction action = {.sa_sigaction = on_flag_step, .sa_flags = SA_SIGINFO}, old;
    long left = 200;
    handle(SIGALRM, on_count, SA_RESTART);
    sigaction(SIGTRAP, &action, &old);
    setitimer(ITIMER_REAL, &often, NULL);
    uint64_t end = now_ns() + 1000000000;
    while (now_ns() < end && !flags_lost) {
        left = 200;
        asm volatile(
            "pushf; pushf; orl $0x981, (%%rsp); popf\n"
            "1: lea -1(%%rcx), %%rcx; nop; jrcxz 2f; jmp 1b\n"
            "2: popf\n"
            : "+c"(left)::"memory", "cc");
    }
    setitimer(ITIMER_REAL, &off, NULL);
    sigaction(SIGTRAP, &old, NULL);
    check(!flags_lost && flag_steps > 1000, "stepped-flags", "lost %lu times in %lu steps", flags_lost, flag_steps);
}

// The handler changes the context that it returns to.
static void on_edit(int number, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    (void)number, (void)info;
    u->uc_mcontext.gregs[REG_RAX] = 77;
    u->uc_mcontext.gregs[REG_RIP] += 2;
}

static void edited_context(void) {
    struct sigaction action = {.sa_sigaction = on_edit, .sa_flags = SA_SIGINFO}, old;
    long rax = 1;
    sigaction(SIGILL, &action, &old);
    asm volatile("ud2" : "+a"(rax)::"memory");
    sigaction(SIGILL, &old, NULL);
    check(rax == 77, "edited-context", "rax %ld", rax);
}

static void *waiter(void *unused) {
    sigset_t set;
    int number = 0;
    (void)unused;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigwait(&set, &number);
    return (void *)(long)number;
}

static void to_thread(void) {
    pthread_t thread;
    sigset_t set;
    void *result = NULL;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    require(pthread_create(&thread, NULL, waiter, NULL) == 0, "thread");
    pthread_kill(thread, SIGUSR2);
    pthread_join(thread, &result);
    check(result == (void *)SIGUSR2, "thread-directed", "sigwait gave %ld", (long)result);
}

static void kill_loop(void) {
    int good = 1;
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0)
            for (;;) asm volatile("pause");
        if (i % 2) usleep(500);
        kill(child, SIGKILL);
        good &= reap(child) == 1000 + SIGKILL;
    }
    check(good, "kill-busy-child", "a child did not die of SIGKILL");
}

int main(void) {
    check_start("signals");
    nested();
    masks();
    queued();
    alternate_stack();
    interrupted_calls();
    timer_storm();
    stepped_flags();
    edited_context();
    to_thread();
    kill_loop();
    return check_failed;
}
