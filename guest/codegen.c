// Code that is written at run time: in place, through two mappings, across
// page borders, in other processes, and with the pages' rights changing.

#include "check.h"
#include <cpuid.h>
#include <sys/time.h>

#define PAGE 4096ul

typedef int (*function)(void);

// mov $value, %eax; ret
static void write_constant(char *at, int value) {
    at[0] = (char)0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = (char)0xc3;
}

static char *map(int protection, int flags, int file, size_t length) {
    char *memory = mmap(NULL, length, protection, flags, file, 0);
    require(memory != MAP_FAILED, "mmap");
    return memory;
}

static void in_place(void) {
    char *code = map(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 2 * PAGE);
    int bad = 0;
    for (int i = 0; i < 3000; i++) {
        write_constant(code, i);
        bad += ((function)(uintptr_t)code)() != i;
    }
    check(bad == 0, "in-place", "%d of 3000 wrong", bad);
    for (int i = 0; i < 500; i++) {
        char *at = code + PAGE - (unsigned)i % 7;
        write_constant(at, i * 77);
        bad += ((function)(uintptr_t)at)() != i * 77;
    }
    check(bad == 0, "across-pages", "%d of 500 wrong", bad);
    // Data beside code on one page: writes must not disturb running.
    write_constant(code, 5);
    volatile int *data = (volatile int *)(code + 2048);
    for (int i = 0; i < 2000; i++) {
        *data = i;
        bad += ((function)(uintptr_t)code)() != 5 || *data != i;
    }
    check(bad == 0, "data-beside-code", "%d of 2000 wrong", bad);
    munmap(code, 2 * PAGE);
}

// Code that changes an instruction which follows it.
static void self_modifying(void) {
    char *code = map(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, PAGE);
    // movb %dil, 1+target(%rip); jmp target; target: mov $0, %eax; ret
    static const unsigned char bytes[] = {0x40, 0x88, 0x3d, 0x03, 0, 0, 0, 0xeb, 0x00, 0xb8, 0, 0, 0, 0, 0xc3};
    memcpy(code, bytes, sizeof bytes);
    int bad = 0;
    for (int i = 0; i < 2000; i++) bad += ((int (*)(int))(uintptr_t)code)(i & 255) != (i & 255);
    check(bad == 0, "self-modifying", "%d of 2000 wrong", bad);
    munmap(code, PAGE);
}

static void two_views(void) {
    int file = memfd_create("code", 0), bad = 0;
    require(file >= 0 && ftruncate(file, 4 * PAGE) == 0, "memfd");
    char *writable = map(PROT_READ | PROT_WRITE, MAP_SHARED, file, 4 * PAGE);
    char *executable = map(PROT_READ | PROT_EXEC, MAP_SHARED, file, 4 * PAGE);
    for (int i = 0; i < 2000; i++) {
        size_t at = (size_t)i * 37 % (4 * PAGE - 16);
        write_constant(writable + at, i);
        bad += ((function)(uintptr_t)(executable + at))() != i;
    }
    check(bad == 0, "two-views", "%d of 2000 wrong", bad);
    // Written by another process.
    volatile int *shared = (volatile int *)map(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, PAGE);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 1; i <= 200; i++) {
            while (shared[0] != i) sched_yield();
            write_constant(writable + 64, i * 3);
            shared[1] = i;
        }
        _exit(0);
    }
    for (int i = 1; i <= 200; i++) {
        shared[0] = i;
        while (shared[1] != i) sched_yield();
        // A serialising instruction, as the architecture asks for cross-modified code.
        asm volatile("cpuid" : : "a"(0), "c"(0) : "rbx", "rdx", "memory");
        bad += ((function)(uintptr_t)(executable + 64))() != i * 3;
    }
    check(bad == 0 && reap(child) == 0, "written-by-another", "%d of 200 wrong", bad);
    // Written through a file descriptor.
    for (int i = 0; i < 200; i++) {
        char bytes[6];
        write_constant(bytes, i * 11);
        bad += pwrite(file, bytes, sizeof bytes, 512) != sizeof bytes || ((function)(uintptr_t)(executable + 512))() != i * 11;
    }
    check(bad == 0, "written-by-system-call", "%d of 200 wrong", bad);
    close(file);
}

static sigjmp_buf back;
static void on_fault(int number) {
    (void)number;
    siglongjmp(back, 1);
}

static void changing_rights(void) {
    char *code = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, PAGE);
    volatile int bad = 0;
    signal(SIGSEGV, on_fault);
    for (volatile int i = 0; i < 300; i++) {
        mprotect(code, PAGE, PROT_READ | PROT_WRITE);
        write_constant(code, i);
        if (sigsetjmp(back, 1) == 0) {
            ((function)(uintptr_t)code)();
            bad++;
        }
        mprotect(code, PAGE, PROT_READ | PROT_EXEC);
        bad += ((function)(uintptr_t)code)() != i;
        if (sigsetjmp(back, 1) == 0) {
            *(volatile char *)code = 1;
            bad++;
        }
    }
    signal(SIGSEGV, SIG_DFL);
    check(bad == 0, "write-xor-execute", "%d wrong", bad);
    munmap(code, PAGE);
}

// The same address with other code after unmapping, and after fork.
static void reuse(void) {
    char *code = map(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, PAGE);
    int bad = 0;
    for (int i = 0; i < 300; i++) {
        code = mmap(code, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        write_constant(code, i + 1);
        bad += ((function)(uintptr_t)code)() != i + 1;
    }
    check(bad == 0, "remapped", "%d of 300 wrong", bad);
    for (int i = 0; i < 30; i++) {
        write_constant(code, 1000 + i);
        pid_t child = fork();
        if (child == 0) {
            int wrong = ((function)(uintptr_t)code)() != 1000 + i;
            write_constant(code, 2000 + i);
            _exit(wrong || ((function)(uintptr_t)code)() != 2000 + i);
        }
        bad += ((function)(uintptr_t)code)() != 1000 + i;
        bad += reap(child) != 0 || ((function)(uintptr_t)code)() != 1000 + i;
    }
    check(bad == 0, "after-fork", "%d wrong", bad);
    munmap(code, PAGE);
}

// Instructions whose bytes hold those of SYSCALL or WRPKRU inside them.
static void hidden_bytes(void) {
    char *code = map(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, PAGE);
    static const unsigned char hidden[][4] = {{0x0f, 0x05, 0x90, 0x90}, {0x0f, 0x01, 0xef, 0x90}, {0x0f, 0xae, 0x28, 0x00},
        {0xcd, 0x80, 0x90, 0x90}, {0x0f, 0x34, 0x90, 0x90}, {0x0f, 0xc7, 0x1f, 0x00}};
    int bad = 0;
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) {
        int value;
        memcpy(&value, hidden[i], 4);
        for (int round = 0; round < 20; round++) {
            write_constant(code + 10, value);
            bad += ((function)(uintptr_t)(code + 10))() != value;
            write_constant(code + PAGE / 2, value);
            bad += ((function)(uintptr_t)(code + PAGE / 2))() != value;
        }
    }
    check(bad == 0, "hidden-bytes", "%d wrong", bad);
    // The same behind code from which it is plain where the instruction begins, and across the end of a page.
    char *pages = map(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 2 * PAGE);
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) {
        int value;
        memcpy(&value, hidden[i], 4);
        memset(pages, 0x90, 2 * PAGE);
        write_constant(pages + 600, value);
        for (int round = 0; round < 20; round++) bad += ((function)(uintptr_t)(pages + 200))() != value;
        for (int before = 1; before <= 4; before++) {
            memset(pages, 0x90, 2 * PAGE);
            write_constant(pages + PAGE - before, value);
            for (int round = 0; round < 3; round++) {
                int got = ((function)(uintptr_t)(pages + PAGE - 64))();
                if (got != value) {
                    bad++;
                    printf("# %#x at -%d: %#x in round %d\n", value, before, got, round);
                }
            }
        }
    }
    check(bad == 0, "hidden-bytes-in-step", "%d wrong", bad);
    // Reads its own page, which holds such bytes: mov -7(%rip), %eax; ret
    static const unsigned char reads_itself[] = {0x8b, 0x05, 0xf3, 0xff, 0xff, 0xff, 0xc3};
    memset(pages, 0x90, 2 * PAGE);
    memcpy(pages + 500, hidden[1], 4);
    memcpy(pages + 507, reads_itself, sizeof reads_itself);
    int seen = ((function)(uintptr_t)(pages + 507))(), there;
    memcpy(&there, pages + 507 + 6 - 13, 4);
    check(seen == there, "hidden-bytes-read", "%#x instead of %#x", seen, there);
    munmap(pages, 2 * PAGE);
    // A generated getpid: mov $39, %eax; syscall; ret
    static const unsigned char call[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3};
    for (int i = 0; i < 100; i++) {
        char *at = code + 100 + i * 9;
        memcpy(at, call, sizeof call);
        bad += ((function)(uintptr_t)at)() != getpid() || memcmp(at, call, sizeof call) != 0;
    }
    check(bad == 0, "generated-system-call", "%d of 100 wrong", bad);
    munmap(code, PAGE);
}

// XRSTOR, which the dynamic linker executes at first calls of functions: the x87 and SSE state of the area, whatever the
// mask names besides.
static void state_restored(void) {
    static unsigned char area[4096] __attribute__((aligned(64)));
    static const int masks[] = {3, 7, 0xee | 3};
    unsigned a = 1, b, c = 0, d;
    asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (!(c >> 27 & 1)) {
        check_skip("state-restored", "no XSAVE");
        return;
    }
    int bad = 0;
    for (int i = 0; i < 60; i++) {
        unsigned long seen, control;
        memset(area, 0, sizeof area);
        asm volatile("movq %2, %%xmm5\n xsave (%1)\n pxor %%xmm5, %%xmm5\n xrstor (%1)\n movq %%xmm5, %0"
                     : "=r"(seen) : "r"(area), "r"(0x1234567890abcdefUL + i), "a"(masks[i % 3]), "d"(0) : "xmm5", "memory");
        bad += seen != 0x1234567890abcdefUL + i;
        // The component's bit clear: its state is that of the start.
        area[512] = 0;
        asm volatile("movq %2, %%xmm5\n xrstor (%1)\n movq %%xmm5, %0"
                     : "=r"(control) : "r"(area), "r"(77UL), "a"(2), "d"(0) : "xmm5", "memory");
        bad += control != 0;
    }
    check(bad == 0, "state-restored", "%d wrong", bad);
    // A header with bits that must be zero (SDM vol. 1, 13.8.1: bytes 8 to 23); an operand that is not aligned.
    signal(SIGSEGV, on_fault);
    area[512 + 16] = 1;
    if (sigsetjmp(back, 1) == 0) {
        asm volatile("xrstor (%0)" : : "r"(area), "a"(3), "d"(0) : "memory");
        bad++;
    }
    if (sigsetjmp(back, 1) == 0) {
        asm volatile("xrstor 8(%0)" : : "r"(area), "a"(3), "d"(0) : "memory");
        bad++;
    }
    signal(SIGSEGV, SIG_DFL);
    check(bad == 0, "state-refused", "%d of 2 allowed", bad);
}

#define TO_ZERO 0x8000u

struct wide {
    uint64_t word[4];
};

// YMM5 and MXCSR to the area of the compacted form and back, with others loaded in between. What came back.
static struct wide through_area(unsigned char *area, uint64_t mask, const struct wide *in, unsigned *control) {
    struct wide out;
    unsigned between = 0x1f80, saved = 0x1f80 | TO_ZERO;
    asm volatile("vmovdqu (%[in]), %%ymm5\n ldmxcsr %[saved]\n xsavec (%[area])\n"
                 "vpcmpeqd %%xmm5, %%xmm5, %%xmm5\n vinsertf128 $1, %%xmm5, %%ymm5, %%ymm5\n ldmxcsr %[between]\n"
                 "xrstor (%[area])\n vmovdqu %%ymm5, (%[out])\n stmxcsr %[control]\n ldmxcsr %[between]\n vzeroupper\n"
                 : [control] "=m"(*control)
                 : [in] "r"(in), [out] "r"(&out), [area] "r"(area), [saved] "m"(saved), [between] "m"(between),
                 "a"((unsigned)mask), "d"((unsigned)(mask >> 32))
                 : "xmm5", "memory");
    return out;
}

// The dynamic linker's form where CPUID offers it, or cannot be kept from doing so.
static void compacted_state(void) {
    static unsigned char area[16384] __attribute__((aligned(64)));
    static const uint64_t masks[] = {2, 3, 4, 6, 7, 0xee, ~0ul};
    unsigned a, b, c, d, control;
    __cpuid(1, a, b, c, d);
    unsigned avx = c >> 27 & c >> 28 & 1;
    __cpuid_count(13, 1, a, b, c, d);
    if (!avx || !(a & 2)) {
        check_skip("state-compacted", "no XSAVEC");
        check_skip("state-compacted-initial", "no XSAVEC");
        check_skip("state-compacted-refused", "no XSAVEC");
        return;
    }
    int bad = 0;
    for (unsigned i = 0; i < sizeof masks / sizeof *masks; i++) {
        uint64_t mask = masks[i];
        struct wide in = {{11 + i, 22, 33, 44}};
        memset(area, 0, sizeof area);
        struct wide out = through_area(area, mask, &in, &control);
        for (int word = 0; word < 4; word++)
            bad += out.word[word] != (mask & (word < 2 ? 2 : 4) ? in.word[word] : ~0ul);
        bad += control != (mask & 2 ? 0x1f80 | TO_ZERO : 0x1f80);
    }
    check(bad == 0, "state-compacted", "%d wrong", bad);
    // Of a component that is not there the state is that of the start, and MXCSR's with SSE's.
    struct wide in = {{1, 2, 3, 4}}, out;
    unsigned set = 0x1f80 | TO_ZERO;
    through_area(area, 6, &in, &control);
    area[512] = 4;
    asm volatile("vmovdqu (%[in]), %%ymm5\n ldmxcsr %[set]\n xrstor (%[area])\n vmovdqu %%ymm5, (%[out])\n stmxcsr %[control]\n"
                 "vzeroupper\n"
                 : [control] "=m"(control) : [in] "r"(area), [out] "r"(&out), [area] "r"(area), [set] "m"(set), "a"(6), "d"(0)
                 : "xmm5", "memory");
    bad += out.word[0] || out.word[1] || out.word[2] != 3 || out.word[3] != 4 || control != 0x1f80;
    check(bad == 0, "state-compacted-initial", "%#lx %#lx %#lx %#lx, MXCSR %#x", out.word[0], out.word[1], out.word[2],
        out.word[3], control);
    // A component without a place; one that does not exist, present or not; a header that goes on (SDM vol. 1, 13.8.2).
    static const struct {
        int at;
        unsigned char value;
    } wrong[] = {{520, 2}, {512, 0x16}, {520 + 7, 0xc0}, {512 + 16, 1}, {512 + 63, 1}};
    signal(SIGSEGV, on_fault);
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        through_area(area, 6, &in, &control);
        area[wrong[i].at] = wrong[i].value;
        if (sigsetjmp(back, 1) == 0) {
            asm volatile("xrstor (%0)" : : "r"(area), "a"(6), "d"(0) : "memory");
            bad++;
        }
    }
    signal(SIGSEGV, SIG_DFL);
    check(bad == 0, "state-compacted-refused", "%d of 5 allowed", bad);
}

// System calls in code that several processes share: one runs each site first, which may change how
// it is run from then on; another runs it next, and stops within it: by a single step, or a timer.
static volatile int stops;
static void on_stop(int number) {
    (void)number;
    stops++;
}

static void shared_sites(void) {
    enum { SITES = 60, SIZE = 64, STEPPED = 6 };
    // pushf; orl $0x100, (%rsp); popf; mov $110, %eax; syscall; pushf; andl $~0x100, (%rsp); popf; ret
    static const unsigned char bytes[] = {0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0xb8, 110, 0, 0, 0, 0x0f, 0x05,
        0x9c, 0x81, 0x24, 0x24, 0xff, 0xfe, 0xff, 0xff, 0x9d, 0xc3};
    enum { PLAIN = 9 };
    int file = memfd_create("sites", 0);
    require(file >= 0 && ftruncate(file, PAGE) == 0, "memfd");
    char *writable = map(PROT_READ | PROT_WRITE, MAP_SHARED, file, PAGE);
    for (int i = 0; i <= SITES; i++) memcpy(writable + i * SIZE, bytes, sizeof bytes);
    char *code = map(PROT_READ | PROT_EXEC, MAP_SHARED, file, PAGE);
    volatile int *shared = (volatile int *)map(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, PAGE);
    pid_t own = getpid(), child = fork();
    if (child == 0) {
        signal(SIGTRAP, on_stop);
        signal(SIGALRM, on_stop);
        struct itimerval often = {{.tv_usec = 200}, {.tv_usec = 200}};
        setitimer(ITIMER_REAL, &often, NULL);
        int bad = 0, silent = 0;
        // The page is in use here before others change it.
        for (int i = 0; i < 3; i++) bad += ((function)(uintptr_t)(code + PLAIN))() != own;
        for (int i = 1; i <= SITES; i++) {
            shared[0] = i;
            while (shared[1] != i) sched_yield();
            int before = stops, step = i % STEPPED == 0;
            bad += ((function)(uintptr_t)(code + i * SIZE + (step ? 0 : PLAIN)))() != own;
            silent += step && stops == before;
        }
        _exit(bad ? 1 : silent ? 2 : 0);
    }
    for (int i = 1; i <= SITES; i++) {
        siginfo_t ended = {0};
        while (shared[0] != i && waitid(P_PID, (id_t)child, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && !ended.si_pid)
            sched_yield();
        for (int n = 0; n < 3; n++) ((function)(uintptr_t)(code + i * SIZE + PLAIN))();
        shared[1] = i;
    }
    int status = reap(child);
    check(status == 0, "shared-sites", "ended with %d", status);
    munmap(code, PAGE);
    close(file);
}

int main(void) {
    check_start("codegen");
    in_place();
    self_modifying();
    two_views();
    changing_rights();
    reuse();
    shared_sites();
    hidden_bytes();
    state_restored();
    compacted_state();
    return check_failed;
}
