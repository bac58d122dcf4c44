// WRPKRU, RDPKRU, XRSTOR and XSAVE: where the processor or its kernel offers no
// protection keys they are invalid instructions, and in no form, at no place and
// by no detour do they open memory that is not the program's. Programs that hold
// these bytes as data, as immediates or across instructions' borders work.
// usage: hostile_keys [ROUNDS]

#include "hostile.h"
#include <cpuid.h>
#include <pthread.h>

static unsigned char *code;
static int offered;

// Memory that no key may open: of the kernel, where it is folded to, and of the monitor.
static const uint64_t closed[] = {0xffffffff81000000 + FOLD, 0xffffffff82000000 + FOLD, 0xffff888001000000 + FOLD, 0xffff888002000000 + FOLD,
    0x5c1000000000, 0x5c1000800000, 0x5c8000000000, 0x5c8001000000, 0x5c0800000000, 0x5d8000000000};
#define CLOSED (sizeof closed / sizeof *closed)

// One of them. Where the stack is, or grows to when it is touched there, is the program's own by chance.
static uint64_t closed_place(uint64_t n) {
    uint64_t place = closed[n % CLOSED], reach = 64ul << 20;
    return place - ((uint64_t)&place - reach) < 2 * reach ? 0x5c1000000000 : place;
}

// What opens keys: the instruction, with nothing but what it needs in registers.
static const struct opener {
    const char *name;
    unsigned char bytes[12];
    int length, restores, jumped_into;
} openers[] = {
    {"wrpkru", {0x0f, 0x01, 0xef}, 3, 0, 0},
    {"rex-wrpkru", {0x48, 0x0f, 0x01, 0xef}, 4, 0, 0},
    {"segment-wrpkru", {0x2e, 0x0f, 0x01, 0xef}, 4, 0, 0},
    {"address-size-wrpkru", {0x67, 0x0f, 0x01, 0xef}, 4, 0, 0},
    {"in-immediate", {0xb8, 0x0f, 0x01, 0xef, 0x90}, 5, 0, 1},
    {"in-displacement", {0x8b, 0x98, 0x0f, 0x01, 0xef, 0x90}, 6, 0, 2},
    {"across-instructions", {0xb8, 0, 0, 0, 0x0f, 0x01, 0xef}, 7, 0, 4},
    {"xrstor", {0x0f, 0xae, 0x2b}, 3, 1, 0},
    {"xrstor64", {0x48, 0x0f, 0xae, 0x2b}, 4, 1, 0},
    {"xrstor-displacement", {0x0f, 0xae, 0x6b, 0x00}, 4, 1, 0},
    {"xrstor-long", {0x0f, 0xae, 0xab, 0, 0, 0, 0}, 7, 1, 0},
    {"xrstor-index", {0x0f, 0xae, 0x2c, 0x23}, 4, 1, 0},
    {"xrstor-extended", {0x49, 0x0f, 0xae, 0x2b}, 4, 1, 0}, // (%r11)
    {"xrstors", {0x48, 0x0f, 0xc7, 0x1b}, 4, 1, 0},
    {"xrstor-in-immediate", {0xb8, 0x0f, 0xae, 0x2b, 0x90}, 5, 1, 1},
};
#define OPENERS (sizeof openers / sizeof *openers)

static unsigned char area[16384] __attribute__((aligned(64)));

static void set_up(uint64_t n, const struct opener *o, unsigned char *at) {
    // Behind it: mov (%rsi), %rcx; ud2
    static const unsigned char load[] = {0x48, 0x8b, 0x0e, 0x0f, 0x0b};
    memcpy(at, o->bytes, (size_t)o->length);
    memcpy(at + o->length, load, sizeof load);
    prepare(0);
    hostile_attempt.regs[RSI] = closed_place(n);
    hostile_attempt.regs[RBX] = hostile_attempt.regs[11] = (uint64_t)area;
    if (o->restores) {
        // Mask: the keys alone; in the area they are in their initial state, all open.
        hostile_attempt.regs[RAX] = 1 << 9;
        memset(area, 0, 8192);
        area[24] = 0x80, area[25] = 0x1f;
        if (n & 1) area[512 + 1] = 2;
    }
}

// It ended at the load, or before; where the load's value came back the memory was open.
static void judge(struct progress *p, uint64_t which, const unsigned char *at, const struct opener *o) {
    uint64_t behind = (uint64_t)at + (uint64_t)o->length + 3;
    if (landed.rip == behind) p->bad++, p->detail[0] = which, p->detail[1] = hostile_attempt.regs[RSI];
    p->landings++;
}

// Every form at every place in a page and across its end.
static void open_there(struct progress *p, uint64_t n) {
    const struct opener *o = &openers[n % OPENERS];
    uint64_t rest = n / OPENERS;
    unsigned char *at = rest < 32 ? code + PAGE - 16 + rest : code + rest * 67 % (PAGE - 64);
    set_up(rest, o, at);
    go((uint64_t)at + (uint64_t)o->jumped_into);
    judge(p, n % OPENERS, at, o);
}

// The page was executable and harmless before, then written, in ways that a scan might miss.
static void written_later(struct progress *p, uint64_t n) {
    const struct opener *o = &openers[n % OPENERS];
    unsigned char *at = code + PAGE / 2, *view = at;
    unsigned char *other = MAP_FAILED;
    int file = -1;
    if (n & 16) {
        file = memfd_create("keys", 0);
        if (ftruncate(file, PAGE)) return;
        at = mmap(NULL, PAGE, PROT_READ | PROT_EXEC | (n & 32 ? PROT_WRITE : 0), MAP_SHARED, file, 0);
        view = other = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    // Run something harmless first: ret.
    view[0] = 0xc3;
    prepare(0);
    go((uint64_t)at);
    set_up(n / OPENERS, o, view);
    if (other != MAP_FAILED && n & 64) {
        // Only the missing byte is written at the end.
        unsigned char last = view[0];
        view[0] = 0x90;
        go((uint64_t)at);
        view[0] = last;
    }
    go((uint64_t)at + (uint64_t)o->jumped_into);
    judge(p, 100 + n % OPENERS, at, o);
    if (other == MAP_FAILED) return;
    munmap(at, PAGE);
    munmap(other, PAGE);
    close(file);
}

// Another thread writes the byte that is missing while this one runs the place.
static volatile int racing;
static unsigned char *race_at;
static void *flip(void *unused) {
    (void)unused;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    while (racing) {
        race_at[2] = 0xef;
        for (volatile int i = 0; i < 50; i++) {}
        race_at[2] = 0xc0;
        if (racing++ % 64 == 0) sched_yield();
    }
    return NULL;
}
static void race(struct progress *p, uint64_t n) {
    static pthread_t thread;
    race_at = code + 1024;
    if (!racing) {
        set_up(n, &openers[0], race_at);
        racing = 1;
        pthread_create(&thread, NULL, flip, NULL);
    }
    // A handler of this thread's must not be run by the other.
    prepare(0);
    hostile_attempt.regs[RSI] = closed_place(n);
    go((uint64_t)race_at);
    judge(p, 200, race_at, &openers[0]);
}

static void invalid(struct progress *p, uint64_t n) {
    static const unsigned char read_it[] = {0x0f, 0x01, 0xee, 0x0f, 0x0b}, write_it[] = {0x0f, 0x01, 0xef, 0x0f, 0x0b};
    memcpy(code, n & 1 ? read_it : write_it, 5);
    prepare(0);
    hostile_attempt.regs[RAX] = n & 1 ? 0 : 0x55555554;
    go((uint64_t)code);
    // Reading works in a guest whose engine uses keys, and opens nothing: docs/exactness.md.
    int reads = (n & 1) && landed.signal == SIGILL && landed.rip == (uint64_t)code + 3;
    if (!offered && !reads && !is_unknown() && (landed.signal != SIGILL || landed.rip != (uint64_t)code)) p->bad++, p->detail[0] = n & 1;
    p->landings++;
}

// Legal programs.
static void *fresh_code(void) {
    void *memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(memory != MAP_FAILED, "mmap");
    return memory;
}
typedef uint64_t (*function)(uint64_t, uint64_t);

// Code with the bytes somewhere inside, at every place across a page's end; `want` is its result.
static void legal(const char *name, const unsigned char *bytes, size_t length, uint64_t want) {
    unsigned char *memory = fresh_code();
    int bad = 0;
    uint64_t got = 0;
    for (size_t at = PAGE - length - 2; at < PAGE + 4; at++) {
        memset(memory, 0xcc, 2 * PAGE);
        memcpy(memory + at, bytes, length);
        for (int round = 0; round < 2; round++) {
            got = ((function)(uintptr_t)(memory + at))(7, 9);
            bad += got != want || memcmp(memory + at, bytes, length) != 0;
            mprotect(memory, 2 * PAGE, PROT_READ | PROT_EXEC);
        }
        mprotect(memory, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    }
    check(bad == 0, name, "%d wrong, last %#lx of %#lx", bad, got, want);
    munmap(memory, 2 * PAGE);
}

// The same where the code's last page was executed already and both are looked at anew: each of them is mapped
// when it is needed, and none may go for the other.
static void legal_again(const char *name, const unsigned char *bytes, size_t length, uint64_t want) {
    int file = memfd_create("keys", 0), bad = 0;
    require(file >= 0 && ftruncate(file, 2 * PAGE) == 0, "memfd_create");
    unsigned char *view = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), *memory = fresh_code();
    require(view != MAP_FAILED, "mmap");
    for (size_t at = PAGE - length; at < PAGE; at++) {
        memset(view, 0xcc, 2 * PAGE);
        memcpy(view + at, bytes, length);
        // mov %rdi, %rax; ret
        memcpy(view + 2 * PAGE - 4, "\x48\x89\xf8\xc3", 4);
        for (int round = 0; round < 3; round++) {
            require(mmap(memory, 2 * PAGE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, file, 0) == memory, "mmap");
            function near = (function)(uintptr_t)(memory + 2 * PAGE - 4), all = (function)(uintptr_t)(memory + at);
            bad += round == 0 ? near(5, 0) != 5 : all(7, 9) != want;
        }
    }
    check(bad == 0, name, "%d wrong, mapped again", bad);
    munmap(view, 2 * PAGE);
    munmap(memory, 2 * PAGE);
    close(file);
}
#define LEGAL(name, want, ...) \
    legal(name, (const unsigned char[]){__VA_ARGS__}, sizeof((const unsigned char[]){__VA_ARGS__}), want); \
    legal_again(name "-again", (const unsigned char[]){__VA_ARGS__}, sizeof((const unsigned char[]){__VA_ARGS__}), want)

static void legal_programs(void) {
    LEGAL("legal-immediate", 0x90ef010f, 0xb8, 0x0f, 0x01, 0xef, 0x90, 0xc3);
    LEGAL("legal-immediate-64", 0x90ef010f90ef010f, 0x48, 0xb8, 0x0f, 0x01, 0xef, 0x90, 0x0f, 0x01, 0xef, 0x90, 0xc3);
    // mov $0x0f000000, %eax; add %ebp, %edi (its bytes 01 ef); xor %edi, %edi; ret
    LEGAL("legal-across-instructions", 0x0f000000, 0xb8, 0, 0, 0, 0x0f, 0x01, 0xef, 0x31, 0xff, 0xc3);
    // lea 0xef010f(%rdi), %rax; ret
    LEGAL("legal-displacement", 0xef010f + 7, 0x48, 0x8d, 0x87, 0x0f, 0x01, 0xef, 0, 0xc3);
    // mov $0x0f000000, %eax; then scasb (ae) with its memory, sub: 0f | ae | 2b c0 (sub %eax, %eax)
    LEGAL("legal-scasb", 0, 0x57, 0x48, 0x89, 0xe7, 0xb8, 0, 0, 0, 0x0f, 0xae, 0x2b, 0xc0, 0x5f, 0xc3);
    LEGAL("legal-xrstor-immediate", 0x902bae0f, 0xb8, 0x0f, 0xae, 0x2b, 0x90, 0xc3);
    // lfence (0f ae e8) and clflush are near relatives of XRSTOR's.
    LEGAL("legal-lfence", 9, 0x0f, 0xae, 0xe8, 0x0f, 0xae, 0xf0, 0x48, 0x89, 0xf0, 0xc3);
    // A jump over data that holds them: jmp +6; .byte…; mov %rdi, %rax; ret
    LEGAL("legal-data-in-code", 7, 0xeb, 0x06, 0x0f, 0x01, 0xef, 0x0f, 0xae, 0x2b, 0x48, 0x89, 0xf8, 0xc3);
    // XSAVE and XRSTOR of x87 and SSE state, as programs and the dynamic linker use them.
    LEGAL("legal-xsave", 7 * 9,
        0x48, 0x89, 0xe1,                                     // mov %rsp, %rcx
        0x48, 0x81, 0xec, 0x00, 0x10, 0, 0,                   // sub $4096, %rsp
        0x48, 0x83, 0xe4, 0xc0,                               // and $-64, %rsp
        0x66, 0x48, 0x0f, 0x6e, 0xdf,                         // movq %rdi, %xmm3
        0x31, 0xc0,                                           // xor %eax, %eax
        0x48, 0x89, 0x84, 0x24, 0x08, 0x02, 0, 0,             // mov %rax, 520(%rsp)
        0x48, 0x89, 0x84, 0x24, 0x10, 0x02, 0, 0,             // mov %rax, 528(%rsp)
        0x48, 0x89, 0x84, 0x24, 0x00, 0x02, 0, 0,             // mov %rax, 512(%rsp)
        0xb8, 3, 0, 0, 0, 0x31, 0xd2,                         // mov $3, %eax; xor %edx, %edx
        0x48, 0x0f, 0xae, 0x24, 0x24,                         // xsave64 (%rsp)
        0x0f, 0x57, 0xdb,                                     // xorps %xmm3, %xmm3
        0x48, 0x0f, 0xae, 0x2c, 0x24,                         // xrstor64 (%rsp)
        0x66, 0x48, 0x0f, 0x7e, 0xd8,                         // movq %xmm3, %rax
        0x48, 0x0f, 0xaf, 0xc6,                               // imul %rsi, %rax
        0x48, 0x89, 0xcc, 0xc3);                              // mov %rcx, %rsp; ret
}

int main(int count, char **arguments) {
    unsigned a, b, c, d;
    check_start("hostile_keys");
    uint64_t rounds = count > 1 ? (uint64_t)atoi(arguments[1]) : 1;
    __cpuid_count(7, 0, a, b, c, d);
    offered = (c >> 4 & 1) || keys_work_unseen();
    code = fresh_code();
    start_witness();
    legal_programs();
    struct progress *p = share();
    static const struct {
        const char *name;
        void (*one)(struct progress *, uint64_t);
        uint64_t count;
    } tests[] = {{"invalid", invalid, 50}, {"open-everywhere", open_there, OPENERS * 200}, {"written-later", written_later, OPENERS * 60},
        {"race", race, 20000}};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        uint64_t tries = tests[i].count * rounds, before = p->landings;
        p->bad = 0;
        int lost = in_children(p, tries, tests[i].one);
        check(p->bad == 0 && p->landings - before + (uint64_t)lost >= tries, tests[i].name, "%lu of %lu done, %lu opened: form %lu read %#lx",
            p->landings - before, tries, p->bad, p->detail[0], p->detail[1]);
    }
    end_witness();
    check_kernel_log();
    return check_failed;
}
