// Jumps to every byte of code that is not the program's: whatever lies in
// Xenolith's own range is found by jumping there, in children that may die of
// it. No jump may read or write another's memory, or end the kernel.
// usage: hostile_jumps [ROUNDS [image|rest [KIND]]]: more of them for a longer run; also to
// the monitor's program, which is not closed yet (docs/threat-model.md, gaps 2 and 4).

#include "hostile.h"
#include <sys/utsname.h>

// Parts of the range that are looked at: all of a runner's, and beginnings of the rest.
static const struct {
    uint64_t start, pages;
} parts[] = {
    {IMAGE, 768},                                     // program
    {0x5c0010000000, 16},                             // context
    {0x5c0010100000, 256},                            // pages of a space, mailbox, orders
    {0x5c0011000000, 1024},                           // tables
    {CODE_CACHE, 256},                                // translated code
    {CODE_CACHE + CODE_CACHE_SIZE - 128 * PAGE, 128}, // stubs of system-call sites
    {0x5c0040000000, 128},                            // stacks
    {0x5c0050000000, 64},
    {0x5c0800000000, 64},
    {0x5c1000000000, 128}, // arena
    {0x5c1110000000, 64},
    {0x5c8000000000, 64}, // RAM
    {0x5d8000000000, 64}, // shadow copies
    {0x60000, 32},        // targets of sites
};
#define PARTS (sizeof parts / sizeof *parts)
#define MOST_PAGES 4096
// 1: without the monitor's program.
static size_t first_part = 1;

// Pages where code ran, and where a jump at least did not fault at once.
static struct found {
    uint64_t page[MOST_PAGES];
    int count;
} *found;

static uint64_t seed = 1;
static uint64_t wide(void) {
    return (uint64_t)next_random(&seed) << 32 | next_random(&seed);
}

// Whatever stubs of system-call sites are jumped into, no process comes of it: attempts made in
// processes that the parent does not know of would be counted twice, or not at all.
static void forbid_processes(void) {
    static int forbidden;
    struct rlimit none = {0, 0};
    if (!forbidden) forbidden = setrlimit(RLIMIT_NPROC, &none) == 0;
}

static int runs(uint64_t at) {
    // With zeros memory that holds nothing faults at once too: add %al, (%rax).
    prepare(0);
    go(at);
    return landed.rip != at;
}

static void look(struct progress *p, uint64_t number) {
    uint64_t page = 0;
    forbid_processes();
    for (size_t i = first_part; i < PARTS; i++) {
        if (number < parts[i].pages) {
            page = parts[i].start + number * PAGE;
            break;
        }
        number -= parts[i].pages;
    }
    int any = 0;
    // An invalid first instruction faults at once too: look at several places.
    for (uint64_t i = 0; i < 6 && !any; i++) any = runs(page + i * 672);
    if (any && found->count < MOST_PAGES) found->page[found->count++] = page;
    p->landings++;
}

static int kind;
static const char *const kinds[] = {"zero", "own-memory", "random", "host-calls", "flags", "stacks", "folded", "monitor"};
static uint64_t stride = 1, shift;

// System calls that the host lets spaces make, and some that it does not.
static const uint64_t calls[] = {9, 10, 11, 15, 39, 110, 38, 56, 157, 158, 202, 231, 329, 131, 62, 60, 0, 1, 57};
static const uint64_t flags[] = {0x302, 0x40202, 0x602, 0x4202, 0x200202, 0x244ed7, 0x202, 0x3202};
static const uint64_t stacks[] = {0, 8, 0x8000000000000000, 0xffff888000000000, 0xffffffff81000000, IMAGE + 0x91c28,
    0x5c0040041000, 0x5c0010200040, ~7ul, 0x800000000000, 0x7ffffffff000, 0xffffffff81000000 + FOLD, 0x5c1000000000};

static void set_registers(uint64_t n) {
    uint64_t own = (uint64_t)hostile_stack + 2 * PAGE, *r = hostile_attempt.regs;
    seed = n * 0x9e3779b97f4a7c15;
    prepare(kind == 0 ? 0 : own);
    switch (kind) {
        case 2:
            for (int i = 0; i < 16; i++) r[i] = wide();
            break;
        case 3:
            // As the monitor's own calls have it: a map of guest memory, and the like.
            r[RAX] = calls[n % (sizeof calls / sizeof *calls)];
            r[RDI] = n & 1 ? 0xffffffff81000000 + FOLD : (uint64_t)hostile_stack;
            r[RSI] = PAGE;
            r[RDX] = 7;
            r[10] = 0x11;
            r[R8] = 3 + (n >> 2) % 4;
            r[9] = 0;
            r[RCX] = (uint64_t)hostile_returned;
            break;
        case 4:
            hostile_attempt.rflags = flags[n % 8];
            break;
        case 5:
            hostile_attempt.rsp = stacks[n % (sizeof stacks / sizeof *stacks)];
            break;
        case 6:
            for (int i = 0; i < 16; i++) r[i] = (i & 1 ? 0xffffffff81000000 : 0xffff888000000000) + FOLD + (wide() & 0xffffff);
            break;
        case 7:
            for (int i = 0; i < 16; i++) r[i] = IMAGE + (wide() & 0x5fffffff);
            break;
    }
}

static void jump(struct progress *p, uint64_t number) {
    uint64_t byte = number * stride + shift;
    forbid_processes();
    set_registers(number);
    go(found->page[byte / PAGE] + byte % PAGE);
    p->landings += landed.signal != 0;
    p->returned += landed.signal == 0;
}

int main(int count, char **arguments) {
    check_start("hostile_jumps");
    int rounds = count > 1 ? atoi(arguments[1]) : 1;
    if (count > 2 && !strcmp(arguments[2], "image")) first_part = 0;
    // Two ticks of the watch, and some. Who is only slow is replaced, and costs a jump.
    watch_period = 10000;
    stands_still = 30000000;
    start_witness();
    struct progress *p = share();
    found = mmap(NULL, sizeof *found, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    require(found != MAP_FAILED, "mmap");
    uint64_t pages = 0;
    for (size_t i = first_part; i < PARTS; i++) pages += parts[i].pages;
    int lost = in_children(p, pages, look);
    check(p->next == pages, "look", "%lu of %lu pages", p->next, pages);
    printf("# %d pages run code; %d children lost\n", found->count, lost);
    // Natively nothing lies there. A few pages do as well.
    if (found->count == 0)
        for (; found->count < 4; found->count++) found->page[found->count] = IMAGE + (uint64_t)found->count * PAGE;
    uint64_t bytes = (uint64_t)found->count * PAGE;
    int only = count > 3 ? atoi(arguments[3]) : -1;
    for (kind = 0; kind < 8; kind++) {
        if (only >= 0 && kind != only) continue;
        // All bytes once with registers that lead somewhere, a part of them with the others.
        stride = rounds > 1 ? 1 : kind == 1 ? 1 : 7;
        for (int round = 0; round < (rounds > 1 ? rounds - 1 : 1); round++) {
            shift = stride > 1 ? (uint64_t)kind % stride : 0;
            uint64_t before = p->landings + p->returned, tries = bytes / stride, start = now_ns();
            lost = in_children(p, tries, jump);
            uint64_t done = p->landings + p->returned - before;
            check(done <= tries && done + (uint64_t)lost >= tries, kinds[kind], "%lu of %lu jumps, %d children lost", done, tries, lost);
            printf("# %s: %lu jumps, %d children lost, %lu ms\n", kinds[kind], tries, lost, (now_ns() - start) / 1000000);
        }
    }
    struct utsname name;
    check(uname(&name) == 0 && !strcmp(name.sysname, "Linux"), "kernel-lives", "uname says %s", name.sysname);
    end_witness();
    check_kernel_log();
    return check_failed;
}
