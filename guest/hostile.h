// For programs that try to break out: an *attempt* loads every register and
// goes somewhere, and whatever becomes of it leads back. Attempts run in
// children, as an ordinary user where the program is root's; a child that does
// not survive an attempt is replaced, and the attempts go on after it.

#ifndef HOSTILE_H
#define HOSTILE_H

#include "check.h"
#include <fcntl.h>
#include <grp.h>
#include <sys/klog.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <ucontext.h>

#define PAGE 4096ul
// Where Xenolith has its own things (crates/boundary, `at`), and how it moves its guests' kernels.
#define IMAGE 0x5c0000000000ul
#define CODE_CACHE 0x5c0020000000ul
#define CODE_CACHE_SIZE 0x8000000ul
#define MONITOR_END 0x5e8000000000ul
#define FOLD 0x7fffffff0000ul

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R15 = 15 };

struct attempt {
    uint64_t regs[16];
    // IRETQ's frame.
    uint64_t rip, cs, rflags, rsp, ss;
};

// What came of an attempt.
struct landing {
    int signal, code, trap;
    uint64_t rip, rsp, address, error, selectors;
};

struct attempt hostile_attempt;
uint64_t hostile_saved;
static volatile struct landing landed;
static volatile uint64_t attempts;
static volatile int away;
static uint64_t own_fs, good_selectors;
static char hostile_stack[8 * PAGE] __attribute__((aligned(4096)));

extern char hostile_back[], hostile_returned[], hostile_invalid[];
void hostile_go(void);
asm(".text\n"
    "hostile_go:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rsp, hostile_saved(%rip)\n"
    "lea hostile_attempt(%rip), %rsp\n"
    "pop %rax; pop %rcx; pop %rdx; pop %rbx; add $8, %rsp; pop %rbp; pop %rsi; pop %rdi\n"
    "pop %r8; pop %r9; pop %r10; pop %r11; pop %r12; pop %r13; pop %r14; pop %r15\n"
    "iretq\n"
    // Where handlers go on, and whatever returns by itself.
    ".globl hostile_back, hostile_returned\n"
    "hostile_returned:\n"
    "hostile_back:\n"
    "mov hostile_saved(%rip), %rsp\n"
    "push $0x202; popfq\n"
    "fninit; ldmxcsr hostile_mxcsr(%rip)\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "ret\n"
    "hostile_invalid: ud2\n"
    ".section .rodata\n"
    "hostile_mxcsr: .long 0x1f80\n"
    ".text\n");

static inline long raw3(long number, long a, long b, long c) {
    long result;
    asm volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static void on_landing(int number, siginfo_t *info, void *context) {
    // Nothing of the attempt's may be in the way of this code: alignment checks, thread pointer.
    asm volatile("push $0x202; popfq" ::: "memory", "cc");
    ucontext_t *u = context;
    static volatile uint64_t seen;
    if (number == SIGALRM) {
        // An attempt that lasts two ticks leads nowhere.
        uint64_t last = seen;
        seen = attempts;
        if (last != seen || !away) return;
    }
    raw3(SYS_arch_prctl, 0x1002, (long)own_fs, 0);
    landed.signal = number;
    landed.code = info->si_code;
    landed.address = (uint64_t)info->si_addr;
    landed.rip = (uint64_t)u->uc_mcontext.gregs[REG_RIP];
    landed.rsp = (uint64_t)u->uc_mcontext.gregs[REG_RSP];
    landed.trap = (int)u->uc_mcontext.gregs[REG_TRAPNO];
    landed.error = (uint64_t)u->uc_mcontext.gregs[REG_ERR];
    u->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)hostile_back;
    u->uc_mcontext.gregs[REG_RSP] = (greg_t)hostile_saved;
    u->uc_mcontext.gregs[REG_EFL] = 0x202;
    landed.selectors = (uint64_t)u->uc_mcontext.gregs[REG_CSGSFS];
    if (good_selectors) u->uc_mcontext.gregs[REG_CSGSFS] = (greg_t)good_selectors;
}

// Registers that all hold the same, a stack that leads back, plain flags.
static inline void prepare(uint64_t value) {
    for (int i = 0; i < 16; i++) hostile_attempt.regs[i] = value;
    hostile_attempt.rflags = 0x202;
    hostile_attempt.cs = 0x33;
    hostile_attempt.ss = 0x2b;
    for (size_t i = 0; i < sizeof hostile_stack / 8; i++)
        ((uint64_t *)hostile_stack)[i] = (uint64_t)hostile_returned;
    hostile_attempt.rsp = (uint64_t)hostile_stack + sizeof hostile_stack / 2;
}

// Goes to `target`; what came of it is in `landed` (signal 0: it came back by itself).
static inline void go(uint64_t target) {
    landed.signal = 0;
    landed.rip = 0;
    attempts++;
    hostile_attempt.rip = target;
    away = 1;
    hostile_go();
    away = 0;
}

// Handlers for all that an attempt may bring, on a stack of their own.
static inline void catch_landings(void) {
    static char stack[16 * PAGE] __attribute__((aligned(4096)));
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS, SIGALRM};
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_sigaction = on_landing, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    sigaltstack(&alternate, NULL);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaction(numbers[i], &action, NULL);
    syscall(SYS_arch_prctl, 0x1003, &own_fs);
    prepare(0);
    go((uint64_t)hostile_invalid);
    good_selectors = landed.selectors;
}

// An alarm that ends attempts which lead nowhere.
static inline void watch_attempts(long microseconds) {
    struct itimerval tick = {{.tv_usec = microseconds}, {.tv_usec = microseconds}};
    setitimer(ITIMER_REAL, &tick, NULL);
}

// The test guest, where nothing is lost by a system call gone wild.
static inline int in_test_guest(void) {
    static int known = -1;
    if (known < 0) {
        char line[4096] = "";
        int file = open("/proc/cmdline", O_RDONLY);
        if (file >= 0 && read(file, line, sizeof line - 1) < 0) line[0] = 0;
        if (file >= 0) close(file);
        known = (strstr(line, "selftest=") || strstr(line, "soak=") || strstr(line, "hostile=")) &&
                access("/sys/hypervisor/type", R_OK) == 0;
    }
    return known;
}

// The attempt was ended by the watch, as happens on a loaded machine: nothing is known of it.
static inline int is_unknown(void) {
    return landed.signal == SIGALRM;
}

static inline void become_nobody(void) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    if (geteuid() != 0) return;
    if (setgroups(0, NULL) || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)) _exit(77);
}

// What children and their parent share.
struct progress {
    volatile uint64_t next, landings, returned, bad, detail[8], lost_at, lost_by, finished;
};

static inline struct progress *share(void) {
    struct progress *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    require(p != MAP_FAILED, "mmap");
    return p;
}

// How often the watch of a child looks, us.
static long watch_period = 50000;
// After so long without a new attempt a child stands still, ns: much, where others load the machine.
static uint64_t stands_still = 10000000000ul;

// Runs attempts 0..count-1 in children: `one` does a single one. A child that
// ends or stands still is replaced. The number of children lost.
static inline int in_children(struct progress *p, uint64_t count, void (*one)(struct progress *, uint64_t)) {
    int lost = 0;
    uint64_t begun = p->next;
    p->finished = 0;
    while (p->next < begun + count) {
        pid_t child = fork();
        require(child >= 0, "fork");
        if (child == 0) {
            setsid();
            become_nobody();
            int nowhere = open("/dev/null", O_RDWR);
            for (int i = 0; i < 3; i++) dup2(nowhere, i);
            catch_landings();
            watch_attempts(watch_period);
            while (p->next < begun + count) {
                uint64_t this = p->next - begun;
                p->next++;
                one(p, this);
            }
            // An attempt can end the child with any status.
            p->finished = 1;
            _exit(0);
        }
        uint64_t seen = ~0ul, since = now_ns();
        int status;
        while (waitpid(child, &status, WNOHANG) == 0) {
            if (p->next != seen) seen = p->next, since = now_ns();
            if (now_ns() - since > stands_still) kill(child, SIGKILL);
            usleep(2000);
        }
        if (p->finished) break;
        lost++;
        p->lost_at = p->next - begun - 1;
        p->lost_by = (uint64_t)status;
        // What it started may live on.
        kill(-child, SIGKILL);
        while (waitpid(-1, &status, WNOHANG) > 0) {}
    }
    return lost;
}

// Memory of another process, which must stay as it is.
static char *witness_memory;
static pid_t witness_child;
#define WITNESS (64 * PAGE)

static inline void start_witness(void) {
    witness_memory = mmap(NULL, WITNESS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(witness_memory != MAP_FAILED, "mmap");
    fill_random(witness_memory, WITNESS, 99);
    witness_child = fork();
    if (witness_child) return;
    // It must not outlive a parent that is killed, and keep whoever reads their output waiting.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fill_random(witness_memory, WITNESS, 77);
    signal(SIGTERM, SIG_DFL);
    sigset_t set;
    int number;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigwait(&set, &number);
    _exit(!holds_random(witness_memory, WITNESS, 77));
}

static inline void end_witness(void) {
    int own = holds_random(witness_memory, WITNESS, 99);
    kill(witness_child, SIGUSR1);
    int other = reap(witness_child);
    check(own && other == 0, "witness", "own memory %s, the other process ended with %d", own ? "good" : "changed", other);
}

// The guest's kernel has nothing to complain of.
static inline void check_kernel_log(void) {
    static const char *const signs[] = {"Oops", "BUG:", "kernel BUG", "WARNING: CPU", "unable to handle", "Bad page",
        "Bad rss", "soft lockup", "detected stall", "general protection fault, "};
    if (!in_test_guest() || geteuid() != 0) return;
    int length = klogctl(10, NULL, 0);
    char *log = length > 0 ? calloc(1, (size_t)length + 1) : NULL;
    if (!log || klogctl(3, log, length) < 0) return;
    const char *found = NULL;
    for (size_t i = 0; i < sizeof signs / sizeof *signs && !found; i++) found = strstr(log, signs[i]);
    check(!found, "kernel-log", "%.200s", found ? found : "");
    free(log);
}

#endif
