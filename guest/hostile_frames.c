// Forged signal frames: rt_sigreturn with wild addresses, selectors, flags and
// vector state. The kernel must refuse or take each as on hardware, and live.
// usage: hostile_frames [ROUNDS]

#include "hostile.h"
#include <stddef.h>

// What the kernel puts on the stack (asm/sigframe.h), from `uc` on, and vector state behind it.
static struct {
    ucontext_t uc;
    siginfo_t info;
    char gap[64];
    unsigned char vector[16384] __attribute__((aligned(64)));
} good __attribute__((aligned(64))), forged __attribute__((aligned(64)));
static size_t vector_size;

// Software-reserved bytes of the vector state (asm/sigcontext.h).
struct fpx {
    uint32_t magic, extended_size;
    uint64_t features;
    uint32_t size;
};

static struct fpx *software(void) {
    return (struct fpx *)(forged.vector + 464);
}

static void keep_frame(int number, siginfo_t *info, void *context) {
    (void)number, (void)info;
    memcpy(&good.uc, context, offsetof(ucontext_t, __ssp));
    const unsigned char *from = (const unsigned char *)good.uc.uc_mcontext.fpregs;
    const struct fpx *f = (const struct fpx *)(from + 464);
    vector_size = f->magic == 0x46505853 ? f->extended_size : 512;
    if (vector_size > sizeof good.vector) vector_size = 512;
    memcpy(good.vector, from, vector_size);
}

static const uint64_t addresses[] = {0, 1, 0x5000, 0x7ffffffff000, 0x7fffffffffff, 0x800000000000, 0x8000000000000000,
    0xffff800000000000, 0xffff888000000000, 0xffffffff81000000, 0xffffffffff600000, ~0ul, IMAGE, IMAGE + 0x50001, 0x5c0010200000,
    CODE_CACHE, 0x5c1000000000, 0x60000, 0xffffffff81000000 + FOLD, 0xffff888000000000 + FOLD};
#define ADDRESSES (sizeof addresses / sizeof *addresses)
static const uint16_t selectors[] = {0, 3, 8, 0x10, 0x13, 0x18, 0x1b, 0x20, 0x23, 0x28, 0x2b, 0x30, 0x33, 0x43, 0x53, 0x7b, 0xe008,
    0xe010, 0xe019, 0xe021, 0xe023, 0xe02b, 0xe030, 0xe033, 0xfff8, 0xffff};
#define SELECTORS (sizeof selectors / sizeof *selectors)

static char system_call[] = {0x0f, 0x05, 0x0f, 0x0b};
static char *code;

// Returns from the forged frame, as if a handler had.
static void try_frame(uint64_t stack) {
    prepare(0);
    hostile_attempt.regs[RAX] = SYS_rt_sigreturn;
    hostile_attempt.rsp = stack;
    go((uint64_t)code);
}

static void fresh(void) {
    forged = good;
    forged.uc.uc_mcontext.fpregs = (void *)forged.vector;
    forged.uc.uc_mcontext.gregs[REG_RIP] = (greg_t)hostile_returned;
    forged.uc.uc_mcontext.gregs[REG_RSP] = (greg_t)(hostile_stack + 4 * PAGE);
    forged.uc.uc_mcontext.gregs[REG_EFL] = 0x202;
    sigemptyset(&forged.uc.uc_sigmask);
}

static void plain(struct progress *p, uint64_t n) {
    fresh();
    try_frame((uint64_t)&forged);
    p->bad += landed.signal != 0 && !is_unknown();
    p->landings++;
    (void)n;
}

// Non-canonical, kernel's and unmapped places are SIGSEGV; never anything else, and never a return.
static void wild_rip(struct progress *p, uint64_t n) {
    fresh();
    forged.uc.uc_mcontext.gregs[REG_RIP] = (greg_t)addresses[n % ADDRESSES];
    try_frame((uint64_t)&forged);
    // Inside Xenolith's range code may run; what it may do is shown by hostile_jumps.
    int own = addresses[n % ADDRESSES] - IMAGE < MONITOR_END - IMAGE;
    if (landed.signal != SIGSEGV && !own && !is_unknown()) p->bad++, p->detail[0] = addresses[n % ADDRESSES], p->detail[1] = (uint64_t)landed.signal;
    p->landings++;
}

static void wild_stack(struct progress *p, uint64_t n) {
    // The frame itself lies there.
    try_frame(addresses[n % ADDRESSES] + (n & 56));
    if (landed.signal != SIGSEGV && !is_unknown()) p->bad++, p->detail[0] = addresses[n % ADDRESSES], p->detail[1] = (uint64_t)landed.signal;
    // Or only the program's stack afterwards: it does not matter until it is used.
    fresh();
    forged.uc.uc_mcontext.gregs[REG_RSP] = (greg_t)addresses[n % ADDRESSES];
    try_frame((uint64_t)&forged);
    p->landings++;
}

static void wild_selectors(struct progress *p, uint64_t n) {
    fresh();
    uint64_t cs = selectors[n % SELECTORS], ss = selectors[n / SELECTORS % SELECTORS];
    forged.uc.uc_mcontext.gregs[REG_CSGSFS] = (greg_t)(cs | (n * 0x9e37 & 0xffffffff) << 16 | ss << 48);
    if (n & 1) forged.uc.uc_flags ^= 6; // UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS
    try_frame((uint64_t)&forged);
    p->landings++;
}

static void wild_flags(struct progress *p, uint64_t n) {
    fresh();
    forged.uc.uc_mcontext.gregs[REG_EFL] = n < 64 ? (greg_t)(1ul << n) : (greg_t)(n * 0x9e3779b97f4a7c15);
    try_frame((uint64_t)&forged);
    p->landings++;
}

static void wild_vector(struct progress *p, uint64_t n) {
    fresh();
    uint64_t *header = (uint64_t *)(forged.vector + 512), r = n * 0x9e3779b97f4a7c15;
    switch (n % 14) {
        case 0: forged.uc.uc_mcontext.fpregs = (void *)addresses[r % ADDRESSES]; break;
        case 1: forged.uc.uc_mcontext.fpregs = (void *)(forged.vector + 1 + r % 63); break;
        case 2: header[0] = 1ul << r % 64; break;
        case 3: header[0] |= 1 << 9; memset(forged.vector + 576, 0, sizeof forged.vector - 576); break;
        case 4: header[1] = 1ul << r % 64; break;
        case 5: header[2 + r % 6] = r; break;
        case 6: *(uint32_t *)(forged.vector + 24) = (uint32_t)r; break;
        case 7: software()->magic = (uint32_t)r; break;
        case 8: software()->extended_size = (uint32_t)r; break;
        case 9: software()->size = (uint32_t)r; break;
        case 10: software()->features = r; break;
        case 11: software()->features = header[0] = ~0ul; break;
        case 12: fill_random(forged.vector, vector_size, r); break;
        case 13: fill_random(forged.vector + 512, 64, r); break;
    }
    try_frame((uint64_t)&forged);
    p->landings++;
}

static void noise(struct progress *p, uint64_t n) {
    fresh();
    // Everything, or a word of it.
    if (n & 1)
        fill_random(&forged.uc, offsetof(ucontext_t, __ssp), n);
    else
        ((uint64_t *)&forged.uc)[n / 2 % (offsetof(ucontext_t, __ssp) / 8)] = n * 0x9e3779b97f4a7c15;
    try_frame((uint64_t)&forged + (n % 5 == 4 ? n & 7 : 0));
    p->landings++;
}

static const struct {
    const char *name;
    void (*one)(struct progress *, uint64_t);
    uint64_t count;
} tests[] = {{"plain", plain, 50}, {"rip", wild_rip, 2 * ADDRESSES}, {"stack", wild_stack, 4 * ADDRESSES},
    {"selectors", wild_selectors, SELECTORS * SELECTORS}, {"flags", wild_flags, 300}, {"vector-state", wild_vector, 1400},
    {"noise", noise, 2000}};

int main(int count, char **arguments) {
    check_start("hostile_frames");
    uint64_t rounds = count > 1 ? (uint64_t)atoi(arguments[1]) : 1;
    struct sigaction action = {.sa_sigaction = keep_frame, .sa_flags = SA_SIGINFO};
    code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    require(code != MAP_FAILED, "mmap");
    memcpy(code, system_call, sizeof system_call);
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    start_witness();
    struct progress *p = share();
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        uint64_t tries = tests[i].count * (i ? rounds : 1), before = p->landings;
        p->bad = 0;
        int lost = in_children(p, tries, tests[i].one);
        uint64_t done = p->landings - before;
        check(p->bad == 0 && done + (uint64_t)lost >= tries, tests[i].name, "%lu of %lu done, %d children lost, %lu bad: %#lx gave %lu",
            done, tries, lost, p->bad, p->detail[0], p->detail[1]);
    }
    end_witness();
    check_kernel_log();
    return check_failed;
}
