// Memory at every place a program may ask for is its own. A monitor that runs
// guests inside ordinary processes has to keep its own things and the guest
// kernel's somewhere; this program maps, fills, runs and signals at the places
// where a 47-bit user address space is most likely to be shared:
//   - where upper-half kernel addresses land when 0x7fffffff0000 is added to
//     them (kernel text and data, modules, direct map, vmalloc, vmemmap, fixed
//     map, per-CPU entry area);
//   - the lowest megabyte from 64 KiB up, and round addresses in the middle.
// It must simply work.

#include "check.h"
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <ucontext.h>

#define PAGE 4096ul
#define FOLD 0x7fffffff0000ul
#define SIZE (16 * PAGE)

struct region {
    const char *name;
    uintptr_t start, step;
    int places;
};

// The kernel's layout: Documentation/arch/x86/x86_64/mm.rst.
static const struct region regions[] = {
    {"kernel-text", 0xffffffff81000000 + FOLD, 0x180000, 8},
    {"kernel-data", 0xffffffff82000000 + FOLD, 0x2c0000, 12},
    {"modules", 0xffffffffc0000000 + FOLD, 0x700000, 8},
    {"fixed-map", 0xffffffffff200000 + FOLD, 0x110000, 6},
    {"top-of-range", 0x7fff00000000, 0x5150000, 24},
    {"direct-map", 0xffff888000000000 + FOLD, 0x1330000, 27},
    {"direct-map-low", 0xffff880000000000 + FOLD, 0x1330000, 4},
    {"vmalloc", 0xffffc90000000000 + FOLD, 0x31000, 12},
    {"vmemmap", 0xffffea0000000000 + FOLD, 0x91000, 12},
    {"cpu-entry-area", 0xfffffe0000000000 + FOLD, 0x31000, 6},
    {"hypervisor-hole", 0xffff800000100000 + FOLD, 0x40000000, 8},
    {"low-memory", 0x10000, 0x10000, 15},
    {"round-addresses", 0x60000000000, 0x10000000, 12},
    {"terabytes", 0x10000000000, 0x10000000000, 100},
};
#define REGIONS (sizeof regions / sizeof *regions)

static sigjmp_buf back;
static volatile int expected;
static volatile uintptr_t fault_address;
static void on_fault(int number, siginfo_t *info, void *context) {
    const greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (!expected) {
        dprintf(1, "FAIL collide/unexpected signal %d code %d address %p: rip %#llx rsp %#llx trap %lld error %#llx cr2 %#llx rdx %#llx\n", number, info->si_code,
            info->si_addr, regs[REG_RIP], regs[REG_RSP], regs[REG_TRAPNO], regs[REG_ERR], regs[REG_CR2], regs[REG_RDX]);
        _exit(1);
    }
    expected = 0;
    fault_address = (uintptr_t)info->si_addr;
    siglongjmp(back, 1);
}

static volatile int handled;
static volatile uintptr_t handled_at;
static void on_signal(int number) {
    char here;
    (void)number;
    handled++;
    handled_at = (uintptr_t)&here;
}

static char *take(uintptr_t at) {
    char *memory = mmap((void *)at, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (memory != (char *)at) {
        if (memory != MAP_FAILED) munmap(memory, SIZE);
        return NULL;
    }
    return memory;
}

// The monitor's own places, which no program can have: docs/exactness.md.
static int is_kept(uintptr_t at) {
    return (at >= 0x60000 && at < 0x80000) || (at >= 0x5c0000000000 && at < 0x5e8000000000);
}

// Does a touch there work?
static int touchable(char *memory) {
    for (size_t at = 0; at < SIZE; at += PAGE) {
        if (sigsetjmp(back, 1) != 0) return 0;
        expected = 1;
        ((volatile char *)memory)[at] = 1;
        expected = 0;
    }
    return 1;
}

// Futex operations, which the kernel does with locked instructions.
static int locked(int *word) {
    static const struct {
        int what, operand, from, to;
    } all[] = {{FUTEX_OP_SET, 7, 5, 7}, {FUTEX_OP_ADD, 3, 5, 8}, {FUTEX_OP_OR, 10, 5, 15}, {FUTEX_OP_ANDN, 4, 5, 1},
        {FUTEX_OP_XOR, 6, 5, 3}};
    int bad = 0, other = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        *word = all[i].from;
        bad += syscall(SYS_futex, &other, FUTEX_WAKE_OP, 1, 1L, word, FUTEX_OP(all[i].what, all[i].operand, FUTEX_OP_CMP_EQ, 5)) != 0;
        bad += *word != all[i].to;
    }
    bad += syscall(SYS_futex, word, FUTEX_WAIT, *word + 1, NULL) != -1 || errno != EAGAIN;
    return bad;
}

// What the kernel reads and writes in elements of one, two, four and eight bytes, among them some across a page's end.
static int elements(char *memory) {
    static char there[PAGE];
    int bad = locked((int *)(memory + 64)), pair[2], folder = open("/proc/self", O_RDONLY | O_DIRECTORY);
    socklen_t length = 4;
    memset(there, 0xa5, sizeof there);
    memset(memory, 0xa5, PAGE);
    long got = syscall(SYS_getdents64, folder, there, sizeof there);
    lseek(folder, 0, SEEK_SET);
    bad += got <= 0 || syscall(SYS_getdents64, folder, memory, PAGE) != got || memcmp(memory, there, PAGE) != 0;
    close(folder);
    require(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && write(pair[1], "abc", 3) == 3, "socketpair");
    for (char *at = memory + PAGE - 9; at < memory + PAGE + 4; at++) {
        int want = SOCK_STREAM, waiting = 3, low = 0x1234 + (int)(at - memory);
        memset(at - 8, 0xff, 24);
        bad += getsockopt(pair[0], SOL_SOCKET, SO_TYPE, at, &length) != 0 || memcmp(at, &want, 4) != 0;
        bad += ioctl(pair[0], FIONREAD, at) != 0 || memcmp(at, &waiting, 4) != 0;
        memcpy(at, &low, 4);
        bad += setsockopt(pair[0], SOL_SOCKET, SO_RCVLOWAT, at, 4) != 0;
        bad += getsockopt(pair[0], SOL_SOCKET, SO_RCVLOWAT, &want, &length) != 0 || want != low;
        bad += (unsigned char)at[-1] != 0xff || (unsigned char)at[4] != 0xff;
    }
    close(pair[0]), close(pair[1]);
    return bad;
}

// System calls whose arguments and results lie in the memory.
static int calls(char *memory, uint64_t seed) {
    static int ends[2];
    struct timespec *brief = (struct timespec *)(memory + 64);
    int bad = 0;
    if (!ends[1]) require(pipe(ends) == 0, "pipe");
    fill_random(memory, SIZE, seed);
    bad += write(ends[1], memory + 3 * PAGE - 50, 3000) != 3000;
    bad += read(ends[0], memory + 7 * PAGE - 1500, 3000) != 3000;
    bad += memcmp(memory + 3 * PAGE - 50, memory + 7 * PAGE - 1500, 3000) != 0;
    int file = open("/proc/self/stat", O_RDONLY);
    ssize_t got = read(file, memory + PAGE, 200);
    memory[PAGE + 199] = 0;
    bad += got < 20 || atoi(memory + PAGE) != getpid();
    close(file);
    *brief = (struct timespec){.tv_nsec = 1000};
    bad += nanosleep(brief, brief + 1) != 0;
    bad += clock_gettime(CLOCK_MONOTONIC, brief) != 0 || syscall(SYS_clock_gettime, CLOCK_MONOTONIC, brief + 1) != 0 ||
           brief[1].tv_sec < brief[0].tv_sec;
    strcpy(memory + 2 * PAGE - 5, "/proc/self/exe");
    bad += access(memory + 2 * PAGE - 5, R_OK) != 0;
    return bad + elements(memory + 4 * PAGE);
}

// Runs code there that makes a system call: mov $39, %eax; syscall; ret.
static int run(char *memory) {
    static const unsigned char call[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3};
    int bad = 0;
    for (size_t at = 0; at < SIZE - 16; at += PAGE - 3) {
        memcpy(memory + at, call, sizeof call);
        for (int i = 0; i < 3; i++) bad += ((int (*)(void))(uintptr_t)(memory + at))() != getpid();
    }
    return bad;
}

static ucontext_t here, there;
static volatile int on_it;
static void stack_body(void) {
    char text[600];
    // Signals, system calls and faults with the stack in this place.
    for (int i = 0; i < 20; i++) {
        raise(SIGUSR1);
        snprintf(text, sizeof text, "%d %p", i, (void *)text);
        if (i % 5 == 0) {
            pid_t child = fork();
            if (child == 0) _exit(i + 1);
            if (reap(child) != i + 1) return;
        }
    }
    on_it = (int)strlen(text);
}

static int as_stack(char *memory) {
    on_it = handled = 0;
    getcontext(&there);
    there.uc_stack.ss_sp = memory;
    there.uc_stack.ss_size = SIZE;
    there.uc_link = &here;
    makecontext(&there, stack_body, 0);
    swapcontext(&here, &there);
    int in_range = handled_at >= (uintptr_t)memory && handled_at < (uintptr_t)memory + SIZE;
    return !on_it + (handled != 20) + !in_range;
}

static int as_signal_stack(char *memory) {
    stack_t stack = {.ss_sp = memory, .ss_size = SIZE}, off = {.ss_flags = SS_DISABLE};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK}, old;
    int bad = sigaltstack(&stack, NULL) != 0;
    handled = 0;
    sigaction(SIGUSR2, &action, &old);
    for (int i = 0; i < 5; i++) raise(SIGUSR2);
    sigaction(SIGUSR2, &old, NULL);
    bad += handled != 5 || handled_at < (uintptr_t)memory || handled_at >= (uintptr_t)memory + SIZE;
    return bad + (sigaltstack(&off, NULL) != 0);
}

static int forked(char *memory, uint64_t seed) {
    fill_random(memory, SIZE, seed);
    pid_t child = fork();
    if (child == 0) {
        int bad = !holds_random(memory, SIZE, seed);
        fill_random(memory, SIZE, seed + 1);
        sched_yield();
        _exit(bad + !holds_random(memory, SIZE, seed + 1));
    }
    memory[0] ^= 1;
    sched_yield();
    memory[0] ^= 1;
    return (reap(child) != 0) + !holds_random(memory, SIZE, seed);
}

static int protection(char *memory) {
    volatile int bad = 0;
    memory[5 * PAGE] = 9;
    mprotect(memory + 5 * PAGE, PAGE, PROT_READ);
    if (sigsetjmp(back, 1) == 0) {
        expected = 1;
        ((volatile char *)memory)[5 * PAGE] = 1;
        bad++;
    } else {
        bad += fault_address != (uintptr_t)memory + 5 * PAGE;
    }
    bad += memory[5 * PAGE] != 9;
    mprotect(memory + 5 * PAGE, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    return bad;
}

static int gone(char *memory) {
    char local;
    munmap(memory, SIZE);
    // Just below the stack a touch makes the stack grow instead.
    if (memory < &local && &local - memory < 64l << 20) return 0;
    if (sigsetjmp(back, 1) == 0) {
        expected = 1;
        (void)*(volatile char *)(memory + PAGE);
        return 1;
    }
    return fault_address != (uintptr_t)memory + PAGE;
}

static void one_region(const struct region *region) {
    static const char *const steps[] = {"system-calls", "code", "stack", "signal-stack", "fork", "protection", "unmapped"};
    int bad[7] = {0}, used = 0;
    for (int i = 0; i < region->places; i++) {
        uintptr_t at = (region->start + (uintptr_t)i * region->step) & ~(PAGE - 1);
        if (at < 0x10000 || at > 0x7ffffffff000 - SIZE) continue;
        char *memory = take(at);
        if (!memory) continue;
        if (is_kept(at) && !touchable(memory)) {
            munmap(memory, SIZE);
            continue;
        }
        used++;
        bad[0] += calls(memory, at);
        bad[1] += run(memory);
        bad[2] += as_stack(memory);
        bad[3] += as_signal_stack(memory);
        bad[4] += forked(memory, at);
        bad[5] += protection(memory);
        bad[6] += gone(memory);
    }
    if (!used) {
        check_skip(region->name, "all of it is in use");
        return;
    }
    char why[200] = "";
    int all = 0;
    for (int i = 0; i < 7; i++)
        if (bad[i]) {
            all += bad[i];
            snprintf(why + strlen(why), sizeof why - strlen(why), " %s %d", steps[i], bad[i]);
        }
    check(all == 0, region->name, "of %d places:%s", used, why);
}

// All of them at once, and kept while other processes and signals run.
static void all_at_once(void) {
    enum { MOST = 400 };
    static char *held[MOST];
    int used = 0, bad = 0;
    for (size_t r = 0; r < REGIONS; r++)
        for (int i = 0; i < regions[r].places && used < MOST; i++) {
            uintptr_t at = (regions[r].start + (uintptr_t)i * regions[r].step) & ~(PAGE - 1);
            if (at < 0x10000 || at > 0x7ffffffff000 - SIZE || !(held[used] = take(at))) continue;
            if (is_kept(at) && !touchable(held[used])) {
                munmap(held[used], SIZE);
                continue;
            }
            fill_random(held[used], SIZE, at);
            used++;
        }
    for (int round = 0; round < 6; round++) {
        pid_t child = fork();
        if (child == 0) {
            for (int i = 0; i < used; i++) bad += !holds_random(held[i], SIZE, (uintptr_t)held[i]);
            _exit(bad != 0);
        }
        usleep(3000);
        bad += reap(child) != 0;
        for (int i = 0; i < used; i++) bad += !holds_random(held[i], SIZE, (uintptr_t)held[i]);
    }
    check(bad == 0 && used > 60, "all-at-once", "%d wrong of %d", bad, used);
    for (int i = 0; i < used; i++) munmap(held[i], SIZE);
}

// A real stack of 40 MiB.
static int dive(size_t bytes) {
    volatile char frame[60000];
    frame[0] = (char)bytes;
    frame[59999] = (char)(bytes >> 8);
    int below = bytes < sizeof frame ? 0 : dive(bytes - sizeof frame);
    return below + (frame[0] != (char)bytes) + (frame[59999] != (char)(bytes >> 8));
}

static void deep_stack(void) {
    struct rlimit limit = {48ul << 20, RLIM_INFINITY};
    if (setrlimit(RLIMIT_STACK, &limit) != 0) {
        check_skip("deep-stack", "the stack limit cannot be raised");
        return;
    }
    pid_t child = fork();
    if (child == 0) _exit(dive(40ul << 20) != 0);
    int result = reap(child);
    check(result == 0, "deep-stack", "child ended with %d", result);
}

// The frame behind a page, as far as the kernel tells.
static uintptr_t frame_at(const char *page) {
    uint64_t entry = 0;
    int map = open("/proc/self/pagemap", O_RDONLY);
    if (map >= 0 && pread(map, &entry, sizeof entry, (off_t)((uintptr_t)page / PAGE * sizeof entry)) != sizeof entry) entry = 0;
    if (map >= 0) close(map);
    return entry & ((1ul << 55) - 1);
}

// Memory where the kernel's image mapping would show the frames of a run of code, and one page more: when the code is
// first executed, what was made of these addresses may go. A fork right after that must part all of the memory.
static int fork_beside(const char *code, int pages, uintptr_t frame) {
    uintptr_t at = 0xffffffff80000000 + FOLD + frame * PAGE;
    size_t size = (size_t)(pages + 1) * PAGE;
    if (at + size > 0x7fffffff0000) return -1;
    char *memory = mmap((void *)at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (memory != (char *)at) {
        if (memory != MAP_FAILED) munmap(memory, size);
        return -1;
    }
    int go[2], bad = 0;
    require(pipe(go) == 0, "pipe");
    for (int i = 0; i <= pages; i++) *(volatile char *)(memory + (size_t)i * PAGE) = 1;
    ((void (*)(void))(uintptr_t)code)();
    pid_t child = fork();
    if (child == 0) {
        char byte;
        bad += read(go[0], &byte, 1) != 1;
        for (int i = 0; i <= pages; i++) bad += *(volatile char *)(memory + (size_t)i * PAGE) != 1;
        _exit(bad);
    }
    for (int i = pages; i >= 0; i--) *(volatile char *)(memory + (size_t)i * PAGE) = 2;
    require(write(go[1], "", 1) == 1, "pipe");
    bad = reap(child);
    close(go[0]), close(go[1]);
    munmap(memory, size);
    return bad;
}

static void beside_code(void) {
    enum { CLUSTER = 16, CLUSTERS = 64 };
    size_t size = CLUSTERS * CLUSTER * PAGE;
    int file = memfd_create("code", 0), used = 0, bad = 0;
    char *code = file < 0 || ftruncate(file, (off_t)size) != 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    require(code != MAP_FAILED, "memfd");
    memset(code, 0xc3, size); // ret
    munmap(code, size);
    // At the beginning of a group of pages that may be mapped together.
    char *place = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    place = (char *)(((uintptr_t)place + size - 1) & ~(CLUSTER * PAGE - 1));
    code = mmap(place, size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, file, 0);
    require(code == place, "mmap");
    for (int i = 0; i < CLUSTERS; i++) {
        char *first = code + (size_t)i * CLUSTER * PAGE;
        int pages = 0;
        for (int n = 0; n < CLUSTER; n++) (void)*(volatile char *)(first + (size_t)n * PAGE);
        uintptr_t frame = frame_at(first);
        while (frame && pages < CLUSTER && frame_at(first + (size_t)pages * PAGE) == frame + (uintptr_t)pages) pages++;
        int result = pages < 2 ? -1 : fork_beside(first, pages, frame);
        used += result >= 0;
        bad += result > 0;
    }
    if (used)
        check(bad == 0, "fork-beside-code", "%d of %d", bad, used);
    else
        check_skip("fork-beside-code", "the kernel tells no frames, or memory is elsewhere");
    munmap(code, size);
    close(file);
}

static volatile double sink = 1;
static volatile int busy_ticks;
static void on_busy(int number, siginfo_t *info, void *context) {
    const ucontext_t *state = context;
    // The kernel reads its frame back from there; what it wrote must be whole.
    busy_ticks += number == SIGUSR2 && info->si_signo == SIGUSR2 && state->uc_mcontext.fpregs != NULL;
    sink *= 0.5;
}

// Signals whose frames lie at this place, in ns for one; 0 if something is wrong.
static uint64_t signals_on(char *memory, int count) {
    stack_t stack = {.ss_sp = memory, .ss_size = SIZE}, off = {.ss_flags = SS_DISABLE};
    struct sigaction action = {.sa_sigaction = on_busy, .sa_flags = SA_ONSTACK | SA_SIGINFO};
    double kept = 3.25;
    busy_ticks = 0;
    sigaltstack(&stack, NULL);
    sigaction(SIGUSR2, &action, NULL);
    uint64_t start = now_ns();
    for (int i = 0; i < count; i++) {
        asm volatile("" : "+x"(kept));
        kill(getpid(), SIGUSR2);
    }
    uint64_t took = (now_ns() - start) / (uint64_t)count;
    sigaltstack(&off, NULL);
    return busy_ticks == count && kept == 3.25 ? took : 0;
}

// A program whose stack happens to lie where the kernel is gets forward under a flood of timers too.
static void flood_of_timers(char *memory) {
    enum { TIMERS = 40 };
    stack_t stack = {.ss_sp = memory, .ss_size = SIZE};
    struct sigaction action = {.sa_sigaction = on_busy, .sa_flags = SA_ONSTACK | SA_SIGINFO | SA_RESTART};
    sigaltstack(&stack, NULL);
    sigaction(SIGUSR2, &action, NULL);
    for (int i = 0; i < TIMERS; i++) {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
        struct itimerspec spec = {{0, 4000000 + i * 1000}, {0, 4000000 + i * 1000}};
        timer_t timer;
        if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &spec, NULL)) _exit(2);
    }
    for (volatile int i = 0; i < 50000000; i++);
    _exit(busy_ticks < 10);
}

static void signals_beside_kernel(void) {
    char *elsewhere = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *memory = NULL;
    for (int i = 0; i < 64 && !memory; i++) memory = take(0xffffffff82080000 + FOLD + (uintptr_t)i * 0x50000);
    require(elsewhere != MAP_FAILED, "mmap");
    if (!memory) return check_skip("signals-beside-kernel", "memory is elsewhere");
    uint64_t here = signals_on(memory, 2000), there = signals_on(elsewhere, 2000);
    printf("# a signal takes %lu ns, elsewhere %lu ns\n", here, there);
    check(here && there, "signals-beside-kernel", "%d of 2000", busy_ticks);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) flood_of_timers(memory);
    int status = -1;
    for (uint64_t end = now_ns() + 60000000000ul; waitpid(child, &status, WNOHANG) == 0; usleep(20000))
        if (now_ns() > end) kill(child, SIGKILL);
    check(status == 0, "timers-beside-kernel", "status %#x", (unsigned)status);
    munmap(memory, SIZE), munmap(elsewhere, SIZE);
}

int main(void) {
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO}, plain = {.sa_handler = on_signal};
    check_start("collide");
    sigaction(SIGSEGV, &fault, NULL);
    sigaction(SIGBUS, &fault, NULL);
    sigaction(SIGUSR1, &plain, NULL);
    for (size_t r = 0; r < REGIONS; r++) one_region(&regions[r]);
    all_at_once();
    deep_stack();
    signals_beside_kernel();
    beside_code();
    return check_failed;
}
