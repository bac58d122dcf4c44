// Vector, x87 and control state: every process keeps its own over context
// switches, system calls and signals, in whatever width the CPU offers.

#include "check.h"
#include <cpuid.h>
#include <sys/time.h>

#define PROCESSES 6

static volatile int interrupts;

static void on_alarm(int number) {
    (void)number;
    interrupts++;
    asm volatile("pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm5, %%xmm5; pcmpeqd %%xmm15, %%xmm15" ::
            : "xmm0", "xmm5", "xmm15");
    if (__builtin_cpu_supports("avx")) asm volatile("vzeroall" ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
        "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

#define ALL_XMM                                                                                                   \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",    \
        "xmm13", "xmm14", "xmm15"
#define SIXTEEN(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#define UPPER(M) M(16) M(17) M(18) M(19) M(20) M(21) M(22) M(23) M(24) M(25) M(26) M(27) M(28) M(29) M(30) M(31)
// Waits inside the asm: spins, then makes sched_yield calls, all registers held.
#define WAIT                                                          \
    "mov $20000, %%r12d\n 1: dec %%r12d\n jnz 1b\n"                   \
    "mov $3, %%r12d\n 2: mov %[yield], %%eax\n syscall\n dec %%r12d\n jnz 2b\n"
#define OPERANDS ::[in] "r"(in), [out] "r"(out), [yield] "i"(SYS_sched_yield) : "rax", "rcx", "r11", "r12", "memory", "cc", ALL_XMM

static void hold_xmm(const char *in, char *out) {
#define L(n) "movups " #n "*16(%[in]), %%xmm" #n "\n"
#define S(n) "movups %%xmm" #n ", " #n "*16(%[out])\n"
    asm volatile(SIXTEEN(L) WAIT SIXTEEN(S) OPERANDS);
#undef L
#undef S
}

static void hold_ymm(const char *in, char *out) {
#define L(n) "vmovups " #n "*32(%[in]), %%ymm" #n "\n"
#define S(n) "vmovups %%ymm" #n ", " #n "*32(%[out])\n"
    asm volatile(SIXTEEN(L) WAIT SIXTEEN(S) "vzeroupper\n" OPERANDS);
#undef L
#undef S
}

static void hold_zmm(const char *in, char *out) {
#define L(n) "vmovups " #n "*64(%[in]), %%zmm" #n "\n"
#define S(n) "vmovups %%zmm" #n ", " #n "*64(%[out])\n"
    asm volatile("kmovw (%[in]), %%k1\n kmovw 100(%[in]), %%k7\n" SIXTEEN(L) UPPER(L) WAIT SIXTEEN(S) UPPER(S)
                 "kmovw %%k1, 2048(%[out])\n kmovw %%k7, 2050(%[out])\n vzeroupper\n" OPERANDS);
#undef L
#undef S
}

static int keep_vectors(int width, uint64_t seed, int rounds) {
    static char in[2112] __attribute__((aligned(64))), out[2112] __attribute__((aligned(64)));
    int bad = 0;
    size_t length = width == 64 ? 2048 : (size_t)width * 16;
    for (int i = 0; i < rounds && !bad; i++) {
        fill_random(in, sizeof in, seed + (uint64_t)i);
        memset(out, 0, sizeof out);
        if (width == 16) hold_xmm(in, out);
        if (width == 32) hold_ymm(in, out);
        if (width == 64) hold_zmm(in, out);
        bad = memcmp(in, out, length) != 0;
        if (width == 64) bad |= memcmp(in, out + 2048, 2) || memcmp(in + 100, out + 2050, 2);
    }
    return bad;
}

static long double x87_sum(int seed, int rounds) {
    long double values[6], sum = 0;
    for (int i = 0; i < 6; i++) values[i] = (long double)(seed + i) / 3.0L;
    asm volatile(
        "fldt (%[v])\n fldt 16(%[v])\n fldt 32(%[v])\n fldt 48(%[v])\n fldt 64(%[v])\n fldt 80(%[v])\n"
        "1: mov %[yield], %%eax\n syscall\n mov $3000, %%r12d\n 2: dec %%r12d\n jnz 2b\n dec %[rounds]\n jnz 1b\n"
        "faddp\n faddp\n faddp\n faddp\n faddp\n fstpt (%[s])\n"
        : [rounds] "+r"(rounds)
        : [v] "r"(values), [s] "r"(&sum), [yield] "i"(SYS_sched_yield)
        : "rax", "rcx", "r11", "r12", "memory", "cc", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)");
    return sum;
}

static int keep_x87(int seed, int rounds) {
    long double expected = x87_sum(seed, 1);
    uint16_t control = (uint16_t)(0x037f | (seed % 4) << 10), now;
    uint32_t mxcsr = 0x1f80u | (uint32_t)(seed % 4) << 13, mxcsr_now;
    int bad = 0;
    for (int i = 0; i < rounds && !bad; i++) {
        bad |= x87_sum(seed, 40) != expected;
        asm volatile("fldcw %0; ldmxcsr %1" ::"m"(control), "m"(mxcsr));
        for (int y = 0; y < 20; y++) {
            syscall(SYS_sched_yield);
            for (volatile int spin = 0; spin < 1000; spin++) {}
        }
        asm volatile("fnstcw %0; stmxcsr %1" : "=m"(now), "=m"(mxcsr_now));
        bad |= now != control || (mxcsr_now & ~0x3fu) != mxcsr;
        asm volatile("fninit");
        uint32_t usual = 0x1f80;
        asm volatile("ldmxcsr %0" ::"m"(usual));
    }
    return bad;
}

// Several processes at once, each with a timer signal that overwrites the state.
static void together(const char *name, int kind, int rounds) {
    pid_t children[PROCESSES];
    for (int c = 0; c < PROCESSES; c++)
        if ((children[c] = fork()) == 0) {
            struct itimerval often = {{.tv_usec = 1000}, {.tv_usec = 1000}};
            if (c % 2) setitimer(ITIMER_REAL, &often, NULL);
            _exit(kind ? keep_vectors(kind, (uint64_t)c << 32, rounds) : keep_x87(c, rounds / 8));
        }
    int bad = 0;
    for (int c = 0; c < PROCESSES; c++) bad += reap(children[c]) != 0;
    check(bad == 0, name, "%d of %d processes lost state", bad, PROCESSES);
}

// A new process starts from the initial state, not from another's.
static void initial_state(void) {
    uint16_t control;
    uint32_t mxcsr;
    asm volatile("fnstcw %0; stmxcsr %1" : "=m"(control), "=m"(mxcsr));
    check(control == 0x37f && (mxcsr & ~0x3fu) == 0x1f80, "initial-control", "x87 %#x MXCSR %#x", control, mxcsr);
}

static void save_and_restore(void) {
    unsigned a, b, c, d;
    static char area[16384] __attribute__((aligned(64))), in[512], out[512];
    __cpuid(1, a, b, c, d);
    if (!(c & 1u << 27)) {
        check_skip("xsave", "the system does not offer XSAVE");
        check_skip("xgetbv", "the system does not offer XSAVE");
        return;
    }
    uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    unsigned avx = c >> 28 & 1;
    check((low & 3) == 3 && (!avx || (low & 4)), "xgetbv", "XCR0 %#x, AVX %u", low, avx);
    __cpuid_count(13, 0, a, b, c, d);
    // MPX, PKRU and AMX tiles may be on without being offered: docs/exactness.md.
    uint32_t offered = low & ~(3u << 3 | 1u << 9 | 3u << 17);
    check(b >= 576 && b <= c && (a & offered) == offered, "xsave-size", "leaf 13: eax %#x ebx %u ecx %u", a, b, c);
    fill_random(in, sizeof in, 99);
    uint32_t mask = low & 7;
    asm volatile("movups (%[in]), %%xmm3\n movups 16(%[in]), %%xmm9\n xsave64 (%[area])\n"
                 "pxor %%xmm3, %%xmm3\n pxor %%xmm9, %%xmm9\n mov $24, %%r12d\n mov %%eax, %%r13d\n"
                 "xor %%edx, %%edx\n mov %%r12d, %%eax\n syscall\n mov %%r13d, %%eax\n xor %%edx, %%edx\n"
                 "xrstor64 (%[area])\n movups %%xmm3, (%[out])\n movups %%xmm9, 16(%[out])\n"
                 : "+a"(mask)
                 : [in] "r"(in), [out] "r"(out), [area] "r"(area), "d"(0)
                 : "rcx", "r11", "r12", "r13", "memory", "cc", ALL_XMM);
    check(memcmp(in, out, 32) == 0, "xsave", "registers differ after xrstor");
}

int main(int count, char **arguments) {
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    int rounds = count > 1 ? atoi(arguments[1]) : 1500;
    check_start("vectors");
    sigaction(SIGALRM, &action, NULL);
    initial_state();
    together("xmm", 16, rounds);
    if (__builtin_cpu_supports("avx")) together("ymm", 32, rounds);
    else check_skip("ymm", "no AVX");
    if (__builtin_cpu_supports("avx512f")) together("zmm", 64, rounds);
    else check_skip("zmm", "no AVX-512");
    together("x87-and-mxcsr", 0, rounds);
    initial_state();
    save_and_restore();
    return check_failed;
}
