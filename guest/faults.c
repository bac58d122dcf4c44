// Exceptions: each kind must arrive as the right signal, with the right code,
// address, trap number and error code, and leave the program able to go on.

#include "check.h"
#include <cpuid.h>
#include <ucontext.h>

static sigjmp_buf back;
static volatile int got_signal, got_code;
static volatile uintptr_t got_address, got_rip, got_trap, got_error;

static void on_fault(int number, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    got_signal = number;
    got_code = info->si_code;
    got_address = (uintptr_t)info->si_addr;
    got_rip = (uintptr_t)u->uc_mcontext.gregs[REG_RIP];
    got_trap = (uintptr_t)u->uc_mcontext.gregs[REG_TRAPNO];
    got_error = (uintptr_t)u->uc_mcontext.gregs[REG_ERR];
    siglongjmp(back, 1);
}

// Runs CODE, which must fault, and keeps what arrived.
#define FAULT(code)                      \
    do {                                 \
        got_signal = 0;                  \
        if (!sigsetjmp(back, 1)) {       \
            code;                        \
        }                                \
    } while (0)

#define ANY ((uintptr_t)-2)

static void expect(const char *name, int number, int code, uintptr_t address, uintptr_t trap, uintptr_t error) {
    check(got_signal == number && got_code == code && (address == ANY || got_address == address) &&
              got_trap == trap && (error == ANY || got_error == error),
        name, "got signal %d code %d address %#lx trap %lu error %#lx, expected %d %d %#lx %lu %#lx", got_signal,
        got_code, got_address, got_trap, got_error, number, code, address, trap, error);
}

static void page_faults(void) {
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(page != MAP_FAILED, "mmap");
    FAULT(*(volatile char *)8);
    expect("null-read", SIGSEGV, SEGV_MAPERR, 8, 14, 4);
    FAULT(*(volatile char *)16 = 1);
    expect("null-write", SIGSEGV, SEGV_MAPERR, 16, 14, 6);
    FAULT(*(volatile char *)0xffffffff81000000);
    expect("kernel-text-read", SIGSEGV, SEGV_MAPERR, 0xffffffff81000000, 14, 5);
    FAULT(*(volatile char *)0xffff888000001000 = 1);
    expect("direct-map-write", SIGSEGV, SEGV_MAPERR, 0xffff888000001000, 14, 7);
    FAULT(((void (*)(void))0xffffffff81000000)());
    expect("kernel-text-jump", SIGSEGV, SEGV_MAPERR, 0xffffffff81000000, 14, 0x15);
    FAULT(((void (*)(void))0x5000)());
    expect("unmapped-jump", SIGSEGV, SEGV_MAPERR, 0x5000, 14, 0x14);
    page[5] = (char)0xc3;
    FAULT(((void (*)(void))(page + 5))());
    expect("no-execute", SIGSEGV, SEGV_ACCERR, (uintptr_t)page + 5, 14, 0x15);
    mprotect(page, 4096, PROT_READ);
    FAULT(page[7] = 1);
    expect("read-only", SIGSEGV, SEGV_ACCERR, (uintptr_t)page + 7, 14, 7);
    mprotect(page, 4096, PROT_NONE);
    FAULT(*(volatile char *)(page + 9));
    expect("no-access", SIGSEGV, SEGV_ACCERR, (uintptr_t)page + 9, 14, ANY);
    munmap(page, 4096);
    FAULT(*(volatile char *)(page + 11));
    expect("unmapped", SIGSEGV, SEGV_MAPERR, (uintptr_t)page + 11, 14, 4);

    int file = memfd_create("short", 0);
    require(file >= 0 && ftruncate(file, 10) == 0, "memfd");
    page = mmap(NULL, 8192, PROT_READ, MAP_SHARED, file, 0);
    FAULT(*(volatile char *)(page + 4096));
    expect("beyond-end-of-file", SIGBUS, BUS_ADRERR, (uintptr_t)page + 4096, 14, 4);
    munmap(page, 8192);
    close(file);
}

static void general_protection(void) {
    static char aligned[64] __attribute__((aligned(64)));
    FAULT(*(volatile char *)0x8000000000000000);
    expect("non-canonical", SIGSEGV, SI_KERNEL, 0, 13, 0);
    FAULT(asm volatile("push %%rbp; mov %0, %%rbp; mov (%%rbp), %%al; pop %%rbp" ::"r"(0x8000000000000000) : "rax"));
    expect("non-canonical-stack", SIGBUS, SI_KERNEL, 0, 12, 0);
    FAULT(asm volatile("movaps %%xmm0, (%0)" ::"r"(aligned + 1) : "memory"));
    expect("misaligned-movaps", SIGSEGV, SI_KERNEL, 0, 13, 0);
    FAULT(asm volatile("hlt"));
    expect("hlt", SIGSEGV, SI_KERNEL, 0, 13, 0);
    FAULT(asm volatile("cli"));
    expect("cli", SIGSEGV, SI_KERNEL, 0, 13, 0);
    FAULT(asm volatile("sti"));
    expect("sti", SIGSEGV, SI_KERNEL, 0, 13, 0);
    FAULT(asm volatile("in $0x80, %%al" ::: "rax"));
    expect("in", SIGSEGV, SI_KERNEL, 0, 13, 0);
    FAULT(asm volatile("out %%al, $0x80" ::: "rax"));
    expect("out", SIGSEGV, SI_KERNEL, 0, 13, 0);
    FAULT(asm volatile("mov %%cr3, %%rax" ::: "rax"));
    expect("mov-cr3", SIGSEGV, SI_KERNEL, 0, 13, 0);
    FAULT(asm volatile("mov %%rax, %%dr7" ::: "rax"));
    expect("mov-dr7", SIGSEGV, SI_KERNEL, 0, 13, 0);
    FAULT(asm volatile("rdmsr" ::"c"(0xc0000080) : "rax", "rdx"));
    expect("rdmsr", SIGSEGV, SI_KERNEL, 0, 13, 0);
    FAULT(asm volatile("wrmsr" ::"c"(0xc0000080), "a"(0), "d"(0)));
    expect("wrmsr", SIGSEGV, SI_KERNEL, 0, 13, 0);
    FAULT(asm volatile("invlpg (%0)" ::"r"(aligned)));
    expect("invlpg", SIGSEGV, SI_KERNEL, 0, 13, 0);
    FAULT(asm volatile("wbinvd"));
    expect("wbinvd", SIGSEGV, SI_KERNEL, 0, 13, 0);
    FAULT(asm volatile("int $0x20"));
    expect("int-20", SIGSEGV, SI_KERNEL, 0, 13, 0x20 * 8 + 2);
    FAULT(asm volatile("mov %0, %%ds" ::"r"(0xfff8)));
    expect("bad-selector", SIGSEGV, SI_KERNEL, 0, 13, 0xfff8);
    FAULT(asm volatile("push %0; ret" ::"r"(0x8000000000000000)));
    check(got_signal == SIGSEGV && got_code == SI_KERNEL, "return-to-non-canonical", "signal %d code %d", got_signal,
        got_code);
}

static void traps(void) {
    volatile int zero = 0;
    volatile int32_t least = INT32_MIN, minus = -1;
    FAULT(zero = 1000 / zero);
    expect("divide-by-zero", SIGFPE, FPE_INTDIV, got_rip, 0, 0);
    FAULT(least = least / minus);
    expect("divide-overflow", SIGFPE, FPE_INTDIV, got_rip, 0, 0);
    FAULT(asm volatile("ud2"));
    expect("ud2", SIGILL, ILL_ILLOPN, got_rip, 6, 0);
    FAULT(asm volatile(".byte 0x0f, 0xff, 0xc0"));
    expect("ud0", SIGILL, ILL_ILLOPN, got_rip, 6, 0);
    FAULT(asm volatile(".byte 0x06"));
    expect("invalid-opcode", SIGILL, ILL_ILLOPN, got_rip, 6, 0);
    FAULT(asm volatile("int3"));
    expect("int3", SIGTRAP, SI_KERNEL, 0, 3, 0);
    FAULT(asm volatile("int $3"));
    check(got_signal == SIGTRAP && got_code == SI_KERNEL, "int-3-long", "signal %d code %d", got_signal, got_code);
    FAULT(asm volatile(".byte 0xf1"));
    check(got_signal == SIGTRAP && got_code == TRAP_BRKPT && got_trap == 1, "icebp", "signal %d code %d trap %lu",
        got_signal, got_code, got_trap);
    // RIP of an int3 is the instruction after it, of a fault the instruction itself.
    uintptr_t after;
    static volatile uintptr_t expected;
    FAULT(asm volatile("lea 0f(%%rip), %0; mov %0, %1; int3; 0: nop" : "=&r"(after), "=m"(expected)));
    check(got_rip == expected, "int3-rip", "%#lx instead of %#lx", got_rip, expected);
    FAULT(asm volatile("lea 0f(%%rip), %0; mov %0, %1; 0: ud2" : "=&r"(after), "=m"(expected)));
    check(got_rip == expected, "ud2-rip", "%#lx instead of %#lx", got_rip, expected);
}

static void alignment(void) {
    static char bytes[16] __attribute__((aligned(16)));
    FAULT(asm volatile("pushf; orl $0x40000, (%%rsp); popf; movl (%0), %%eax; pushf; andl $~0x40000, (%%rsp); popf" ::"r"(
                           bytes + 1)
                       : "rax", "memory", "cc"));
    // The handler runs with AC as it was; take it away before anything else.
    asm volatile("pushf; andl $~0x40000, (%%rsp); popf" ::: "memory", "cc");
    if (got_signal == 0)
        check_skip("alignment", "the CPU does not check alignment here");
    else
        expect("alignment", SIGBUS, BUS_ADRALN, ANY, 17, 0);
}

static void floating_point(void) {
    static const struct {
        const char *name;
        uint32_t mask;
        int code;
        double left, right;
        char operation;
    } cases[] = {
        {"sse-divide", 0x200, FPE_FLTDIV, 1.0, 0.0, '/'},
        {"sse-invalid", 0x080, FPE_FLTINV, 0.0, 0.0, '/'},
        {"sse-overflow", 0x400, FPE_FLTOVF, 1e308, 1e308, '*'},
        {"sse-underflow", 0x800, FPE_FLTUND, 3e-308, 1e-10, '*'},
        {"sse-inexact", 0x1000, FPE_FLTRES, 1.0, 3.0, '/'},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t unmasked = 0x1f80 & ~cases[i].mask, usual = 0x1f80;
        double left = cases[i].left, right = cases[i].right;
        FAULT(asm volatile("ldmxcsr %0" ::"m"(unmasked));
              if (cases[i].operation == '/') asm volatile("divsd %1, %0" : "+x"(left) : "x"(right));
              else asm volatile("mulsd %1, %0" : "+x"(left) : "x"(right)));
        asm volatile("ldmxcsr %0" ::"m"(usual));
        expect(cases[i].name, SIGFPE, cases[i].code, got_rip, 19, 0);
    }
    uint16_t control = 0x37f & ~4;
    FAULT(asm volatile("fninit; fldcw %0; fldz; fld1; fdiv %%st(1), %%st; fwait" ::"m"(control) : "st", "st(1)"));
    asm volatile("fninit");
    check(got_signal == SIGFPE && got_code == FPE_FLTDIV && got_trap == 16, "x87-divide", "signal %d code %d trap %lu",
        got_signal, got_code, got_trap);
    control = 0x37f & ~1;
    FAULT(asm volatile("fninit; fldcw %0; fldz; fdiv %%st(0), %%st; fwait" ::"m"(control) : "st"));
    asm volatile("fninit");
    check(got_signal == SIGFPE && got_code == FPE_FLTINV && got_trap == 16, "x87-invalid", "signal %d code %d trap %lu",
        got_signal, got_code, got_trap);
}

// Recursion until the stack ends; the handler must run on its own stack.
static int deeper(int depth) {
    volatile char space[4096];
    space[0] = (char)depth;
    return deeper(depth + 1) + space[0];
}

static void stack_overflow(void) {
    pid_t child = fork();
    if (child == 0) {
        FAULT(deeper(0));
        _exit(got_signal == SIGSEGV ? 0 : 1);
    }
    int result = reap(child);
    check(result == 0, "stack-overflow", "child ended with %d", result);
}

static volatile int steps;
static volatile uintptr_t first_step, last_step;

static void on_step(int number, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    (void)number;
    if (info->si_code != TRAP_TRACE) return;
    if (steps++ == 0) first_step = (uintptr_t)u->uc_mcontext.gregs[REG_RIP];
    last_step = (uintptr_t)u->uc_mcontext.gregs[REG_RIP];
}

static void single_step(void) {
    struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO}, old;
    uintptr_t begin, end;
    long sum = 0, pid = 0;
    sigaction(SIGTRAP, &action, &old);
    asm volatile(
        "pushf; pushf; orl $0x100, (%%rsp)\n"
        "lea 1f(%%rip), %0; lea 2f(%%rip), %1\n"
        "popf\n"
        "1: nop\n"
        "add $5, %2\n"
        "lea 3(%2), %2\n"
        "nop\n"
        "popf\n"
        "2: nop\n"
        : "=&r"(begin), "=&r"(end), "+&r"(sum)::"memory", "cc");
    // Traps come after nop, add, lea, nop and the popf that ends it.
    check(steps == 5 && last_step == end && first_step == begin + 1 && sum == 8, "single-step",
        "%d steps, first at %#lx of %#lx, last at %#lx of %#lx, sum %ld", steps, first_step, begin, last_step, end, sum);
    steps = 0;
    asm volatile(
        "pushf; pushf; orl $0x100, (%%rsp); popf\n"
        "mov %1, %%eax; syscall; mov %%rax, %0\n"
        "popf; nop\n"
        : "=&r"(pid)
        : "i"(SYS_getpid)
        : "rax", "rcx", "r11", "memory", "cc");
    check(pid == getpid() && steps >= 3 && steps <= 4, "single-step-system-call", "result %ld, %d steps", pid, steps);
    steps = 0;
    static char from[40] = "thirty-nine bytes move under the debug", to[40];
    char *source = from, *target = to;
    long count = 40;
    asm volatile(
        "pushf; pushf; orl $0x100, (%%rsp); popf\n"
        "rep movsb\n"
        "popf; nop\n"
        : "+S"(source), "+D"(target), "+c"(count)::"memory", "cc");
    check(memcmp(from, to, 40) == 0 && count == 0 && steps == 41, "single-step-repeat", "%d steps, %ld left", steps,
        count);
    sigaction(SIGTRAP, &old, NULL);
}

static char *repair_page;
static volatile int repairs;

static void on_repair(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)4095;
    repairs++;
    if (page < (uintptr_t)repair_page || repairs > 64) _exit(3);
    mprotect((void *)page, 4096, PROT_READ | PROT_WRITE);
}

// A fault in the middle of an instruction, repaired by the handler.
static void restart(void) {
    struct sigaction action = {.sa_sigaction = on_repair, .sa_flags = SA_SIGINFO}, old;
    size_t length = 8 * 4096;
    char *source = malloc(length);
    repair_page = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(source && repair_page != MAP_FAILED, "mmap");
    fill_random(source, length, 7);
    sigaction(SIGSEGV, &action, &old);
    char *to = repair_page + 100, *from = source + 100;
    size_t left = length - 200;
    asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(left)::"memory");
    sigaction(SIGSEGV, &old, NULL);
    check(memcmp(source + 100, repair_page + 100, length - 200) == 0 && repairs == 8 && left == 0, "restart-in-repeat",
        "%d repairs, %zu bytes left", repairs, left);
    munmap(repair_page, length);
    free(source);
}

static void others(void) {
    unsigned a, b, c, d;
    volatile long result = 0;
    got_signal = 0;
    FAULT(asm volatile("int $0x80" : "=a"(result) : "a"(20) : "memory", "r8", "r9", "r10", "r11"));
    check(got_signal == 0 && result == getpid(), "int-80", "signal %d result %ld", got_signal, result);
    __cpuid_count(7, 0, a, b, c, d);
    if (c & 1 << 4 || keys_work_unseen()) {
        check_skip("no-wrpkru", "this system offers protection keys");
        check_skip("no-rdpkru", "this system offers protection keys");
    } else {
        FAULT(asm volatile(".byte 0x0f, 0x01, 0xef" ::"a"(0), "c"(0), "d"(0)));
        expect("no-wrpkru", SIGILL, ILL_ILLOPN, got_rip, 6, 0);
        FAULT(asm volatile(".byte 0x0f, 0x01, 0xee" : "=a"(a), "=d"(d) : "c"(0)));
        // It works in a guest whose engine uses keys: docs/exactness.md.
        if (got_signal == 0) check_skip("no-rdpkru", "the engine uses protection keys");
        else expect("no-rdpkru", SIGILL, ILL_ILLOPN, got_rip, 6, 0);
    }
    // Registers survive a fault that the kernel resolves.
    char *fresh = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t r[6] = {1, 2, 3, 4, 5, 6};
    asm volatile("mov $0x1111, %%r8; mov $0x2222, %%r9; mov $0x3333, %%r12; stc; movb $1, (%6); setc %%al\n"
                 "mov %%r8, %0; mov %%r9, %1; mov %%r12, %2; movzbl %%al, %%eax; mov %%rax, %3"
                 : "=m"(r[0]), "=m"(r[1]), "=m"(r[2]), "=m"(r[3]), "+m"(r[4]), "+m"(r[5])
                 : "r"(fresh)
                 : "r8", "r9", "r12", "rax", "memory", "cc");
    check(r[0] == 0x1111 && r[1] == 0x2222 && r[2] == 0x3333 && r[3] == 1 && *fresh == 1, "registers-over-fault",
        "%#lx %#lx %#lx carry %lu", r[0], r[1], r[2], r[3]);
}

int main(void) {
    static char alternate[65536];
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    check_start("faults");
    sigaltstack(&stack, NULL);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaction(numbers[i], &action, NULL);
    page_faults();
    general_protection();
    traps();
    alignment();
    floating_point();
    stack_overflow();
    single_step();
    restart();
    others();
    return check_failed;
}
