// Exhaustion: mappings, processes, system-call sites, code pages, signals,
// timers, memory, stack, descriptors, CPUID, single steps. Each is taken to its
// limit; what is refused must be refused to this program alone, and what was
// given must hold what was put there.
// usage: hostile_floods [ROUNDS [NAME]]

#include "hostile.h"
#include <cpuid.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/sysinfo.h>

static uint64_t rounds = 1;

// In a child, which may die of it; how it ended, 0 if well.
static int in_child(int (*one)(void)) {
    pid_t child = fork();
    require(child >= 0, "fork");
    if (child == 0) {
        setsid();
        become_nobody();
        _exit(one());
    }
    int result = reap(child);
    kill(-child, SIGKILL);
    return result;
}

// As many mappings as there may be: single pages with alternating rights, each with its own content.
static int mappings(void) {
    // All that Linux allows, and all touched, in long runs only.
    const size_t MOST = rounds > 1 ? 66000 : 24000, every = rounds > 1 ? 2 : 8;
    char *base = mmap(NULL, MOST * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return 2;
    size_t made = 0;
    for (; made < MOST; made += 2) {
        if (mprotect(base + made * PAGE, PAGE, PROT_READ | PROT_WRITE)) break;
        if (made % every == 0) *(volatile size_t *)(base + made * PAGE) = made;
    }
    if (made < (rounds > 1 ? 40000 : 20000)) return 3;
    for (size_t i = 0; i < made; i += every)
        if (*(volatile size_t *)(base + i * PAGE) != i) return 4;
    for (size_t i = 0; i < made; i += 16)
        if (mprotect(base + i * PAGE, PAGE, PROT_READ) && errno != ENOMEM) return 5;
    for (size_t i = 0; i < made; i += every)
        if (*(volatile size_t *)(base + i * PAGE) != i) return 6;
    // A fork of that.
    pid_t child = fork();
    if (child == 0) {
        for (size_t i = 0; i < made; i += 64)
            if (*(volatile size_t *)(base + i * PAGE) != i) _exit(1);
        _exit(0);
    }
    if (child > 0 && reap(child)) return 7;
    return munmap(base, MOST * PAGE) ? 8 : 0;
}

// Pages all over the address space: a table of pages for each, and no two that continue each other.
static int scattered(void) {
    enum { COUNT = 3000 };
    static char *page[COUNT];
    uint64_t seed = 5;
    int got = 0;
    for (int i = 0; i < COUNT; i++) {
        uint64_t at = ((uint64_t)next_random(&seed) << 16 | next_random(&seed) % 65536) * PAGE & 0x7fffffffffff & ~(PAGE - 1);
        // Not where Xenolith's own places are (docs/exactness.md).
        if (at < 0x100000 || at > 0x7f0000000000 || at - IMAGE < MONITOR_END - IMAGE) continue;
        page[got] = mmap((void *)at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (page[got] == MAP_FAILED) continue;
        *(uint64_t *)page[got] = at;
        got++;
    }
    for (int i = 0; i < got; i++)
        if (*(uint64_t *)page[i] != (uint64_t)page[i]) return 3;
    return got < COUNT / 4 ? 2 : 0;
}

// Many processes alive at once, more than Xenolith has spaces for; each keeps its own memory.
static int processes(void) {
    enum { MOST = 300, TURNS = 3 };
    static pid_t child[MOST];
    int count = 0, bad = 0, ends[2], back[2];
    if (pipe(ends) || pipe(back)) return 4;
    char *memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (; count < MOST; count++) {
        child[count] = fork();
        if (child[count] < 0) break;
        if (child[count] == 0) {
            fill_random(memory, 4 * PAGE, (uint64_t)count);
            for (int turn = 0; turn < TURNS; turn++) {
                char byte;
                if (read(ends[0], &byte, 1) != 1 || !holds_random(memory, 4 * PAGE, (uint64_t)count)) _exit(1);
                if (write(back[1], &byte, 1) != 1) _exit(1);
            }
            _exit(0);
        }
    }
    for (int i = 0; i < count * TURNS; i++) {
        char byte = (char)i;
        bad += write(ends[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1;
    }
    for (int i = 0; i < count; i++) bad += reap(child[i]) != 0;
    return bad ? 3 : count < 200 ? 2 : 0;
}

// A fork bomb in the bounds that its user has.
static int bomb(void) {
    struct rlimit some = {120, 120};
    setrlimit(RLIMIT_NPROC, &some);
    uint64_t end = now_ns() + 400000000ul;
    while (now_ns() < end) {
        pid_t child = fork();
        if (child == 0) continue;
        if (child < 0) usleep(1000);
        while (waitpid(-1, NULL, WNOHANG) > 0) {}
    }
    return 0;
}

// More system-call instructions, each at its own place, than any table holds.
static int sites(void) {
    size_t count = 110000;
    unsigned char *code = mmap(NULL, count * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED) return 2;
    static const unsigned char plain[] = {0xb8, SYS_getpid, 0, 0, 0, 0x0f, 0x05, 0xc3};
    for (size_t i = 0; i < count; i++) memcpy(code + i * 8, plain, 8);
    if (mprotect(code, count * 8, PROT_READ | PROT_EXEC)) return 3;
    int self = getpid();
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < count; i += round ? 17 : 1)
            if (((int (*)(void))(uintptr_t)(code + i * 8))() != self) return 4;
    // And again elsewhere: the same frames at another address, then forked.
    unsigned char *moved = mremap(code, count * 8, count * 8, MREMAP_MAYMOVE | MREMAP_FIXED, 0x200000000000);
    if (moved == MAP_FAILED) return 5;
    for (size_t i = 0; i < count; i += 11)
        if (((int (*)(void))(uintptr_t)(moved + i * 8))() != self) return 6;
    return 0;
}

// Code on many pages, written anew and run.
static int code_pages(void) {
    size_t count = 4000;
    unsigned char *code = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED) return 2;
    for (uint32_t round = 0; round < 3; round++)
        for (uint32_t i = 0; i < count; i++) {
            unsigned char *at = code + i * PAGE + (i * 37 + round) % (PAGE - 8);
            uint32_t value = i * 3 + round;
            at[0] = 0xb8;
            memcpy(at + 1, &value, 4);
            at[5] = 0xc3;
            if (((uint32_t (*)(void))(uintptr_t)at)() != value) return 3;
        }
    return 0;
}

static volatile int got_signals;
static volatile uint64_t sum;
static void on_queued(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    got_signals++;
    sum += (uint64_t)info->si_value.sival_int;
}

static int queued_signals(void) {
    struct sigaction action = {.sa_sigaction = on_queued, .sa_flags = SA_SIGINFO};
    sigset_t set;
    int sent = 0;
    uint64_t want = 0;
    sigaction(SIGRTMIN + 3, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 3);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (; sent < 20000; sent++) {
        if (sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = sent})) break;
        want += (uint64_t)sent;
    }
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    return sent < 100 || got_signals != sent || sum != want;
}

static volatile uint64_t ticks;
static struct itimerval often = {{.tv_usec = 1}, {.tv_usec = 1}}, never;
static void on_tick(int number) {
    // The shortest timer leaves no time to anything else: it is stopped for a while.
    if (number == SIGALRM && ++ticks % 500 == 0) setitimer(ITIMER_REAL, &never, NULL);
}

// The shortest timers there are, and many, over code whose result is known.
static int timers(void) {
    enum { COUNT = 40 };
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGRTMIN + 4, &action, NULL);
    timer_t timer[COUNT];
    int made = 0;
    for (; made < COUNT; made++) {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 4};
        struct itimerspec spec = {{0, 2000000 + made * 1000}, {0, 2000000 + made * 1000}};
        if (timer_create(CLOCK_MONOTONIC, &event, &timer[made])) break;
        timer_settime(timer[made], 0, &spec, NULL);
    }
    uint64_t begin = now_ns(), end = begin + 400000000ul * rounds, bad = 0, first = 0;
    while (now_ns() < end || (ticks < 10 && now_ns() < begin + 60000000000ul)) {
        uint64_t state = 1, mixed = 0;
        setitimer(ITIMER_REAL, &often, NULL);
        for (int i = 0; i < 20000; i++) mixed ^= next_random(&state);
        if (!first) first = mixed;
        bad += mixed != first;
    }
    setitimer(ITIMER_REAL, &never, NULL);
    for (int i = 0; i < made; i++) timer_delete(timer[i]);
    return bad ? 2 : ticks < 10 ? 3 : 0;
}

// More memory than there is: the kernel ends this child, and nobody else.
static int memory(void) {
    int file = open("/proc/self/oom_score_adj", O_WRONLY);
    if (file < 0 || write(file, "1000", 4) != 4) return 77;
    for (uint64_t n = 0;; n++) {
        uint64_t *block = mmap(NULL, 256 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) return 0;
        for (size_t i = 0; i < 256; i++) block[i * PAGE / 8] = n;
    }
}

static __attribute__((noinline)) uint64_t deep(uint64_t left) {
    volatile char room[512];
    room[0] = (char)left;
    uint64_t below = left ? deep(left - 1) : 0;
    return below + 1 + (room[0] != (char)left);
}
static int recursion(void) {
    // In a thread of execution of its own with a large stack.
    struct rlimit much = {1ul << 28, RLIM_INFINITY};
    if (setrlimit(RLIMIT_STACK, &much)) getrlimit(RLIMIT_STACK, &much);
    uint64_t depth = (much.rlim_cur > 1ul << 26 ? 1ul << 25 : 1ul << 22) / 700;
    return deep(depth) != depth + 1;
}

static int descriptors(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 20000 ? limit.rlim_max : 20000;
    setrlimit(RLIMIT_NOFILE, &limit);
    int last = -1, count = 0, poll = epoll_create1(0);
    for (;; count++) {
        int fd = count % 3 == 0 ? eventfd(0, EFD_NONBLOCK) : count % 3 == 1 ? memfd_create("f", 0) : dup(last);
        if (fd < 0) break;
        if (count % 3 == 0) {
            struct epoll_event event = {.events = EPOLLIN};
            epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
        }
        last = fd;
    }
    return errno != EMFILE && errno != ENFILE ? 2 : count < 200 ? 3 : 0;
}

static int counters(void) {
    unsigned a, b, c, d, first[4];
    uint64_t end = now_ns() + 300000000ul * rounds, last = 0, n = 0;
    __cpuid(1, first[0], first[1], first[2], first[3]);
    while (now_ns() < end || n == 0) {
        for (int i = 0; i < 100; i++) {
            __cpuid(1, a, b, c, d);
            // Which processor answers may differ natively (EBX).
            if (a != first[0] || d != first[3]) return 2;
        }
        for (int i = 0; i < 1000; i++) {
            uint64_t now = __builtin_ia32_rdtsc();
            if (now < last && in_test_guest()) return 3;
            last = now;
        }
        n++;
    }
    return n == 0;
}

static volatile uint64_t steps;
static void on_step(int number) {
    (void)number;
    steps++;
}
static int compare(const void *a, const void *b) {
    return *(const int *)a < *(const int *)b ? -1 : *(const int *)a > *(const int *)b;
}
// Every instruction of a sort, of system calls and of a fault, one by one.
static int stepped(void) {
    struct sigaction action = {.sa_handler = on_step};
    static int numbers[64], sorted[64];
    uint64_t seed = 3;
    for (int i = 0; i < 64; i++) numbers[i] = sorted[i] = (int)next_random(&seed);
    qsort(sorted, 64, sizeof *sorted, compare);
    char *fresh = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaction(SIGTRAP, &action, NULL);
    asm volatile("pushf; orl $0x100, (%%rsp); popf" ::: "memory", "cc");
    qsort(numbers, 64, sizeof *numbers, compare);
    for (int i = 0; i < 16; i++) fresh[i * (int)PAGE] = (char)getppid();
    asm volatile("pushf; andl $~0x100, (%%rsp); popf" ::: "memory", "cc");
    return memcmp(numbers, sorted, sizeof numbers) ? 2 : steps < 1000 ? 3 : 0;
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        int (*one)(void);
        int guest_only;
    } tests[] = {{"mappings", mappings, 0}, {"scattered-pages", scattered, 0}, {"processes", processes, 0}, {"fork-bomb", bomb, 1},
        {"system-call-sites", sites, 0}, {"code-pages", code_pages, 0}, {"queued-signals", queued_signals, 0}, {"timers", timers, 0},
        {"deep-recursion", recursion, 0}, {"descriptors", descriptors, 0}, {"counters", counters, 0}, {"single-steps", stepped, 0},
        {"memory", memory, 1}};
    check_start("hostile_floods");
    if (count > 1) rounds = (uint64_t)atoi(arguments[1]);
    start_witness();
    for (uint64_t round = 0; round < rounds; round++)
        for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
            if (count > 2 && strcmp(arguments[2], tests[i].name)) continue;
            if (tests[i].guest_only && !in_test_guest()) continue;
            uint64_t start = now_ns();
            int result = in_child(tests[i].one);
            int killed = tests[i].one == memory && result == 1000 + SIGKILL;
            if (tests[i].one == memory && result == 77) continue;
            check(result == 0 || killed, tests[i].name, "ended with %d", result);
            printf("# %s: %lu ms\n", tests[i].name, (now_ns() - start) / 1000000);
        }
    end_witness();
    check_kernel_log();
    return check_failed;
}
