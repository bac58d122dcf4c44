// Memory that is not the program's: read, written, run, and handed to system
// calls, at the kernel's addresses, at where Xenolith puts the kernel, and in
// Xenolith's own range; and mappings asked for at all of these. What is mapped
// there must be the program's own memory, as anywhere else, or be refused.
// usage: hostile_memory [ROUNDS]

#include "hostile.h"
#include <poll.h>
#include <sys/uio.h>

#define HUGE 0x200000ul

// Where a kernel or monitor keeps things, and how far it is looked at in steps.
static const struct place {
    const char *name;
    uint64_t start, step;
    // runners: 1 what a runner has for itself may lie there, 2 what it may read
    int count, kernels, runners;
} places[] = {
    {"kernel-text", 0xffffffff81000000, 0x40000, 128, 1, 0},
    {"direct-map", 0xffff888000000000, 0x400000, 128, 1, 0},
    {"vmalloc", 0xffffc90000000000, 0x10000, 64, 1, 0},
    {"vmemmap", 0xffffea0000000000, 0x10000, 64, 1, 0},
    {"modules", 0xffffffffc0000000, 0x10000, 32, 1, 0},
    {"fixed-map", 0xffffffffff000000, 0x8000, 300, 1, 0},
    {"hypervisor-hole", 0xffff800000000000, 0x10000000, 32, 1, 0},
    {"folded-text", 0xffffffff81000000 + FOLD, 0x40000, 128, 0, 0},
    {"folded-direct-map", 0xffff888000000000 + FOLD, 0x400000, 128, 0, 0},
    {"folded-vmalloc", 0xffffc90000000000 + FOLD, 0x10000, 64, 0, 0},
    {"folded-vmemmap", 0xffffea0000000000 + FOLD, 0x10000, 64, 0, 0},
    {"folded-modules", 0xffffffffc0000000 + FOLD, 0x10000, 32, 0, 0},
    {"folded-fixed-map", 0xffffffffff000000 + FOLD, 0x8000, 120, 0, 0},
    {"image", IMAGE, PAGE, 256, 0, 1},
    {"runner", 0x5c0010000000, 0x8000, 128, 0, 1},
    {"tables", 0x5c0011000000, 0x10000, 64, 0, 1},
    {"code-cache", CODE_CACHE, 0x40000, 512, 0, 1},
    {"code-cache-writable", 0x5c0800000000, 0x40000, 512, 0, 0},
    {"arena", 0x5c1000000000, 0x8000, 300, 0, 0},
    {"arena-of-runners", 0x5c1110000000, 0x10000, 300, 0, 0},
    {"ram", 0x5c8000000000, 0x100000, 300, 0, 0},
    {"shadow", 0x5d8000000000, 0x100000, 300, 0, 0},
    {"sites", 0x60000, PAGE, 32, 0, 2},
};
#define PLACES (sizeof places / sizeof *places)

static const struct place *place_of(uint64_t n, uint64_t *at) {
    for (size_t i = 0; i < PLACES; i++) {
        if (n < (uint64_t)places[i].count) {
            *at = places[i].start + n * places[i].step;
            return &places[i];
        }
        n -= (uint64_t)places[i].count;
    }
    *at = places[0].start;
    return places;
}
static uint64_t all_places(void) {
    uint64_t sum = 0;
    for (size_t i = 0; i < PLACES; i++) sum += (uint64_t)places[i].count;
    return sum;
}

static unsigned char *code;
// mov (%rax), %rcx; ud2        mov %rcx, (%rax); ud2
static const unsigned char load[] = {0x48, 0x8b, 0x08, 0x0f, 0x0b}, store[] = {0x48, 0x89, 0x08, 0x0f, 0x0b};

// The program itself may have something near the top of the range: vDSO, and its stack, which grows
// towards what is touched below it.
static int is_own(uint64_t at) {
    unsigned char resident;
    struct rlimit most;
    uint64_t stack = (uint64_t)__builtin_frame_address(0);
    if (getrlimit(RLIMIT_STACK, &most) == 0 && at < stack && stack - at <= most.rlim_cur + PAGE) return 1;
    return !(at >> 47) && mincore((void *)(at & ~(PAGE - 1)), PAGE, &resident) == 0;
}

static void bad(struct progress *p, const struct place *place, uint64_t at, int how) {
    if (p->bad++) return;
    p->detail[0] = at, p->detail[1] = (uint64_t)(place - places), p->detail[2] = (uint64_t)how;
}

// Loads and stores: SIGSEGV. What lies below the end of a runner's own range may be the runner's
// (docs/exactness.md): there only stores to what is not its own are tried.
static void touch(struct progress *p, uint64_t n) {
    uint64_t at;
    const struct place *place = place_of(n, &at);
    p->landings++;
    if (is_own(at)) return;
    memcpy(code, load, sizeof load);
    prepare(at + (n & 7));
    go((uint64_t)code);
    if (landed.signal != SIGSEGV && !place->runners && !is_unknown()) bad(p, place, at, 1);
    if (place->runners == 1) return;
    memcpy(code, store, sizeof store);
    prepare(at);
    go((uint64_t)code);
    if (landed.signal != SIGSEGV && !is_unknown()) bad(p, place, at, 2);
}

// System calls that read and write memory: EFAULT, or nothing done.
static void through_calls(struct progress *p, uint64_t n) {
    static int pipes[2], zero, nowhere;
    uint64_t at;
    const struct place *place = place_of(n, &at);
    p->landings++;
    if (is_own(at)) return;
    if (!zero) {
        require(pipe2(pipes, O_NONBLOCK) == 0, "pipe");
        zero = open("/dev/zero", O_RDONLY);
        nowhere = open("/proc/self/mem", O_RDWR);
    }
    void *there = (void *)at;
    char buffer[64];
    struct iovec own = {buffer, sizeof buffer}, other = {there, 64};
    int ways = 0;
    ways |= (write(pipes[1], there, 64) > 0) << 0;
    ways |= (read(zero, there, 64) > 0) << 1;
    ways |= (readv(zero, &other, 1) > 0) << 2;
    ways |= (syscall(SYS_clock_gettime, CLOCK_MONOTONIC, there) == 0) << 3;
    ways |= (syscall(SYS_rt_sigprocmask, SIG_BLOCK, there, NULL, 8) == 0) << 4;
    ways |= (process_vm_readv(getpid(), &own, 1, &other, 1, 0) > 0) << 5;
    ways |= (process_vm_writev(getpid(), &own, 1, &other, 1, 0) > 0) << 6;
    ways |= (pread(nowhere, buffer, 8, (off_t)at) > 0 && !(at >> 63)) << 7;
    ways |= (pwrite(nowhere, buffer, 8, (off_t)at) > 0 && !(at >> 63)) << 8;
    ways |= (syscall(SYS_getcwd, there, 64) > 0) << 9;
    ways |= (open(there, O_RDONLY) >= 0) << 10;
    ways |= (syscall(SYS_poll, there, 1, 0) >= 0) << 11;
    ways |= (syscall(SYS_pipe, there) == 0) << 12;
    if (ways) bad(p, place, at, ways << 8);
}

// A mapping there must be refused, or be the program's own memory: written and read by it and by
// the kernel, or (docs/exactness.md) not usable at all; never another's.
static void map_there(struct progress *p, uint64_t n) {
    static const int protections[] = {PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE | PROT_EXEC, PROT_READ, PROT_NONE};
    static int zero = -1;
    uint64_t at;
    const struct place *place = place_of(n, &at);
    p->landings++;
    if (zero < 0) zero = open("/dev/zero", O_RDONLY);
    at &= ~(PAGE - 1);
    if (at < 0x10000) return;
    int kind = (int)(n % 6), protection = protections[n / 6 % 4];
    size_t length = kind == 3 ? HUGE : PAGE * (1 + n % 3);
    if (kind == 3) at &= ~(HUGE - 1);
    char *memory = MAP_FAILED;
    if (kind == 4) {
        // Moved there.
        char *from = mmap(NULL, length, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memory = mremap(from, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, at);
        if (memory == MAP_FAILED) munmap(from, length);
    } else if (kind == 5) {
        // As a hint only.
        memory = mmap((void *)at, length, protection, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    } else {
        memory = mmap((void *)at, length, protection,
            (kind & 1 ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | (kind == 2 ? MAP_POPULATE : 0), -1, 0);
    }
    if (memory == MAP_FAILED) return;
    if (kind == 3) madvise(memory, length, MADV_HUGEPAGE);
    int wrong = place->kernels && (uint64_t)memory >> 47 != 0;
    // Fresh memory holds zeros and takes what is written; where it cannot be used, it gives SIGSEGV.
    // Every page is Xenolith's own where the first is.
    uint64_t spot = (uint64_t)memory + (n * 64 & (PAGE - 64));
    memcpy(code, load, sizeof load);
    prepare(spot);
    go((uint64_t)code);
    int usable = landed.signal == SIGILL;
    uint64_t reads = 0;
    if (usable && protection & PROT_READ && !place->runners) {
        // By the kernel's eyes it must be the same.
        uint64_t marker = 0x1122334455667788 ^ at;
        memcpy(&reads, (void *)spot, 8);
        wrong |= (reads != 0) << 1;
        if (protection & PROT_WRITE) {
            memcpy((void *)spot, &marker, 8);
            int ends[2];
            uint64_t seen = 0;
            if (pipe(ends) == 0) {
                wrong |= (write(ends[1], (void *)spot, 8) != 8 || read(ends[0], &seen, 8) != 8 || seen != marker) << 2;
                close(ends[0]);
                close(ends[1]);
            }
            wrong |= (read(zero, (void *)spot, 8) != 8 || *(volatile uint64_t *)spot != 0) << 3;
        }
    }
    if (usable && protection == PROT_NONE && !place->runners) wrong |= 16;
    mprotect(memory, length, PROT_READ);
    mprotect(memory, length, PROT_READ | PROT_EXEC);
    madvise(memory, length, MADV_DONTNEED);
    munmap(memory, length);
    if (usable && !place->runners) {
        memcpy(code, load, sizeof load);
        prepare(spot);
        go((uint64_t)code);
        // Below the stack it grows, elsewhere the mapping is gone.
        if (landed.signal != SIGSEGV && !is_unknown() && !is_own(spot)) wrong |= 32;
    }
    if (wrong) bad(p, place, at, wrong);
}

// Whole ranges at once: mapped as one, protected and unmapped as one, and mapped over.
static void whole_ranges(struct progress *p, uint64_t n) {
    static const struct {
        uint64_t start, length;
    } ranges[] = {{IMAGE, 1ul << 30}, {0x5c1000000000, 2ul << 30}, {0x5c8000000000, 4ul << 30}, {0x5d8000000000, 4ul << 30},
        {0x10000, 0x100000}, {0x87fffff0000, 8ul << 30}, {IMAGE - PAGE, MONITOR_END - IMAGE + 2 * PAGE}, {0x7fff80000000, 0x10000000}};
    uint64_t start = ranges[n % 8].start, length = ranges[n % 8].length;
    p->landings++;
    char *memory = mmap((void *)start, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (memory == MAP_FAILED) return;
    memcpy(code, load, sizeof load);
    for (uint64_t at = start; at < start + length; at += length / 64 & ~(PAGE - 1)) {
        prepare(at);
        go((uint64_t)code);
    }
    mprotect(memory, length, PROT_NONE);
    mprotect(memory + PAGE, length - 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    mremap(memory, length, length / 2 & ~(PAGE - 1), 0);
    madvise(memory, length / 2, MADV_DONTNEED);
    if (n & 8) fork() == 0 ? _exit(0) : (void)waitpid(-1, NULL, 0);
    munmap(memory, length);
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        void (*one)(struct progress *, uint64_t);
        uint64_t extra;
    } tests[] = {{"loads-and-stores", touch, 0}, {"through-system-calls", through_calls, 0}, {"mappings", map_there, 0},
        {"whole-ranges", whole_ranges, 32}};
    check_start("hostile_memory");
    int rounds = count > 1 ? atoi(arguments[1]) : 1;
    code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(code != MAP_FAILED, "mmap");
    start_witness();
    struct progress *p = share();
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        uint64_t tries = tests[i].extra ? tests[i].extra : all_places(), before = p->landings, start = now_ns();
        p->bad = 0;
        int lost = 0;
        for (int round = 0; round < rounds; round++) lost += in_children(p, tries, tests[i].one);
        check(p->bad == 0 && lost == 0, tests[i].name, "%lu done, %d children lost, %lu bad: %#lx in %s, ways %#lx", p->landings - before, lost,
            p->bad, p->detail[0], places[p->detail[1]].name, p->detail[2]);
        if (lost) printf("# the last one at %lu, status %#lx\n", p->lost_at, p->lost_by);
        printf("# %s: %lu ms\n", tests[i].name, (now_ns() - start) / 1000000);
    }
    end_witness();
    check_kernel_log();
    return check_failed;
}
