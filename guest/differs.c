// Where a guest differs from hardware, as docs/exactness.md says: each check
// knows what hardware does and what a guest does, and both are right only where
// they belong. Natively what a host lacks is skipped.

#include "check.h"
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <ucontext.h>

static int in_guest;
static sigjmp_buf back;
static volatile int got_signal, got_trap, trying;

static void on_fault(int number, siginfo_t *info, void *context) {
    (void)info;
    if (!trying) {
        check(0, "outside", "signal %d where none is expected", number);
        _exit(1);
    }
    got_signal = number;
    got_trap = (int)((ucontext_t *)context)->uc_mcontext.gregs[REG_TRAPNO];
    siglongjmp(back, 1);
}

// Runs CODE; got_signal is 0 if nothing came of it.
#define TRY(code)                   \
    do {                            \
        got_signal = got_trap = 0;  \
        trying = 1;                 \
        if (!sigsetjmp(back, 1)) {  \
            code;                   \
        }                           \
        trying = 0;                 \
    } while (0)

static int file_holds(const char *path, const char *word) {
    char text[4096] = "";
    int file = open(path, O_RDONLY);
    if (file < 0) return 0;
    long length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 && strstr(text, word) != NULL;
}

// CPUID with Xen's prefix: the kernel's view, whatever the processor can.
static void xen_cpuid(void) {
    unsigned a = 0x40000000, b = 0, c = 0, d = 0;
    TRY(asm volatile(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e; cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d)));
    if (!in_guest) {
        check(got_signal == SIGILL, "xen-cpuid", "signal %d", got_signal);
        return;
    }
    check(got_signal == 0 && b == 0x566e6558 && c == 0x65584d4d && d == 0x4d4d566e, "xen-cpuid", "signal %d %#x %#x %#x",
        got_signal, b, c, d);
    if (got_signal) return;
    // What programs see by themselves holds all that the kernel has.
    unsigned e = 7, f, g = 0, h;
    asm volatile(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e; cpuid" : "+a"(e), "=b"(f), "+c"(g), "=d"(h));
    __cpuid_count(7, 0, a, b, c, d);
    check((f & ~b) == 0 && (g & ~c) == 0 && (h & ~d) == 0, "cpuid-of-programs", "kernel %#x %#x %#x, programs %#x %#x %#x", f, g,
        h, b, c, d);
}

// Natively a changed base stays; in a guest it holds until the kernel is entered.
static void fsgsbase(void) {
    unsigned a, b, c, d;
    __cpuid_count(7, 0, a, b, c, d);
    unsigned long tells = getauxval(AT_HWCAP2) & 2;
    if (in_guest) check(!tells, "fsgsbase-hidden", "AT_HWCAP2 shows FSGSBASE");
    if (!in_guest && !tells) {
        check_skip("fsgsbase", "the host's kernel does not let programs use it");
        return;
    }
    unsigned long after = 1, at_once = 0;
    for (int i = 0; i < 10 && at_once != 0x123456; i++)
        TRY(asm volatile("wrgsbase %2\n rdgsbase %0\n syscall\n rdgsbase %1\n wrgsbase %3"
                         : "=&r"(at_once), "=&r"(after)
                         : "r"(0x123456ul), "r"(0ul), "a"(SYS_getppid)
                         : "rcx", "r11", "memory"));
    check(got_signal == 0 && at_once == 0x123456 && after == (in_guest ? 0 : 0x123456), "fsgsbase",
        "signal %d, at once %#lx, after a system call %#lx", got_signal, at_once, after);
}

// The host's kernel answers these, with numbers that mean nothing.
static void descriptor_tables(void) {
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) gdt = {0xffff, 0};
    unsigned long status = 0;
    TRY(asm volatile("sgdt %0" : "=m"(gdt)));
    int first = got_signal;
    TRY(asm volatile("smsw %0" : "=r"(status)));
    check((first == 0 ? gdt.base >> 47 == 0x1ffff : first == SIGSEGV) && (got_signal == 0 ? status & 1 : got_signal == SIGSEGV),
        "descriptor-tables", "signals %d %d, GDT %#lx, status %#lx", first, got_signal, (long)gdt.base, status);
}

static void selectors(void) {
    unsigned short code, stack;
    asm volatile("mov %%cs, %0\n mov %%ss, %1" : "=r"(code), "=r"(stack));
    // The host's, where Xen's would be 0xe033 and 0xe02b.
    check(code == 0x33 && stack == 0x2b, "selectors", "CS %#x SS %#x", code, stack);
}

// A local descriptor: natively its selector loads, in a guest it faults.
static void local_descriptors(void) {
    struct user_desc entry = {.entry_number = 0, .base_addr = 0, .limit = 0xfffff, .seg_32bit = 1, .limit_in_pages = 1};
    if (syscall(SYS_modify_ldt, 1, &entry, sizeof entry) != 0) {
        check_skip("local-descriptors", "the kernel has no modify_ldt");
        return;
    }
    TRY(asm volatile("mov %0, %%es" ::"r"(7)));
    int loaded = got_signal;
    if (!loaded) asm volatile("mov %0, %%es" ::"r"(0));
    check(loaded == (in_guest ? SIGSEGV : 0), "local-descriptors", "signal %d", loaded);
}

// A 32-bit program that ends with status 42.
static void program_32(void) {
    static const unsigned char image[] = {0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 1, 0, 0, 0,
        0x54, 0x80, 0x04, 0x08, 52, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        // The program header: all of the file at 0x8048000, read and execute.
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x04, 0x08, 0, 0x80, 0x04, 0x08, 96, 0, 0, 0, 96, 0, 0, 0, 5, 0, 0, 0, 0, 16, 0, 0,
        // mov $1, %eax; mov $42, %ebx; int $0x80
        0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80};
    int file = open("program-32", O_WRONLY | O_CREAT | O_TRUNC, 0700);
    require(file >= 0 && write(file, image, sizeof image) == (long)sizeof image, "program-32");
    close(file);
    pid_t child = fork();
    if (child == 0) {
        execl("./program-32", "program-32", NULL);
        _exit(errno == ENOEXEC ? 99 : 98);
    }
    int end = reap(child);
    unlink("program-32");
    if (end == 99) {
        check_skip("program-32", "the kernel runs no 32-bit programs");
        return;
    }
    check(end == (in_guest ? 1000 + SIGSEGV : 42), "program-32", "ended with %d", end);
}

// Code that changes to 32-bit mode by itself: it runs, as nothing is looked at.
static void far_jump(void) {
    unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    require(code != MAP_FAILED, "mmap");
    // mov $42, %eax; ljmp $0x33, $(end); end: jmp *%r8; ret
    static const unsigned char bytes[] = {0xb8, 42, 0, 0, 0, 0xea, 0, 0, 0, 0, 0x33, 0, 0x41, 0xff, 0xe0, 0xc3};
    memcpy(code, bytes, sizeof bytes);
    uint32_t end = (uint32_t)(uintptr_t)code + 12;
    memcpy(code + 6, &end, 4);
    struct {
        uint32_t offset;
        uint16_t selector;
    } __attribute__((packed)) target = {(uint32_t)(uintptr_t)code, 0x23};
    unsigned long result = 0;
    // The stack pointer is cut to 32 bits meanwhile. An interrupt or a page fault there leads back to
    // 64-bit code in a guest, so the page is touched first, and there is more than one try.
    ((void (*)(void))(code + 15))();
    got_signal = 1;
    for (int i = 0; i < 20 && (got_signal || result != 42); i++)
        TRY(asm volatile("lea 1f(%%rip), %%r8\n mov %%rsp, %%r9\n ljmp *%1\n 1: mov %%r9, %%rsp"
                         : "=a"(result)
                         : "m"(target)
                         : "r8", "r9", "memory"));
    check(got_signal == 0 && result == 42, "far-jump", "signal %d, %lu", got_signal, result);
    munmap(code, 4096);
}

// The processor's number: right from the kernel, the host's from the processor.
static void processor_number(void) {
    unsigned number = 99, a, b, c, d;
    syscall(SYS_getcpu, &number, NULL, NULL);
    __cpuid(0x80000001, a, b, c, d);
    if (!(d & 1 << 27)) {
        check_skip("processor-number", "the processor has no RDTSCP");
        return;
    }
    unsigned low, high, aux = 0xffff;
    for (int i = 0; i < 100; i++) {
        asm volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
        syscall(SYS_getcpu, &number, NULL, NULL);
        if ((aux & 0xfff) == number) break;
    }
    // In a guest the two agree by chance only.
    check(in_guest ? number == 0 : (aux & 0xfff) == number, "processor-number", "getcpu %u, RDTSCP %#x", number, aux);
}

// PR_SET_TSC: natively RDTSC then faults, in a guest it goes on.
static void forbidden_tsc(void) {
    if (prctl(PR_SET_TSC, PR_TSC_SIGSEGV) != 0) {
        check_skip("forbidden-tsc", "prctl refuses");
        return;
    }
    unsigned low, high;
    TRY(asm volatile("rdtsc" : "=a"(low), "=d"(high)));
    int seen = got_signal;
    prctl(PR_SET_TSC, PR_TSC_ENABLE);
    check(seen == (in_guest ? 0 : SIGSEGV), "forbidden-tsc", "signal %d", seen);
}

static void forbidden_cpuid(void) {
    // ARCH_GET_CPUID: 1 = it does not fault; whether it could is asked by setting what is.
    long can = syscall(SYS_arch_prctl, 0x1012, 1);
    check(in_guest ? can == -1 && errno == ENODEV : can == 0 || errno == ENODEV, "forbidden-cpuid", "%ld, %s", can,
        strerror(errno));
}

// Addresses below 64 KiB: where the kernel gives them, a guest's program still gets no memory.
static void lowest_addresses(void) {
    const char *name = "/proc/sys/vm/mmap_min_addr";
    int knob = in_guest ? open(name, O_WRONLY) : -1;
    if (knob < 0 || write(knob, "0", 1) != 1) {
        check_skip("lowest-addresses", "the limit of this kernel is not to be changed");
        return;
    }
    close(knob);
    volatile char *page =
        mmap((void *)0x2000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    int mapped = page != MAP_FAILED;
    if (mapped) TRY(*page = 1);
    check(mapped && got_signal == SIGSEGV, "lowest-addresses", "mapped %d, signal %d", mapped, got_signal);
    if (mapped) munmap((void *)page, 4096);
    knob = open(name, O_WRONLY);
    if (knob >= 0 && write(knob, "65536", 5) == 5) close(knob);
}

// gettimeofday in the vsyscall page.
static void vsyscall(void) {
    struct timespec t;
    struct {
        long seconds, micros;
    } found = {0, 0};
    long result = -1;
    if (!file_holds("/proc/self/maps", "[vsyscall]")) {
        check_skip("vsyscall", "this kernel has no such page");
        return;
    }
    TRY(result = ((long (*)(void *, void *))0xffffffffff600000)(&found, NULL));
    clock_gettime(CLOCK_REALTIME, &t);
    check(got_signal == 0 && result == 0 && labs(t.tv_sec - found.seconds) <= 1, "vsyscall", "signal %d result %ld, %ld instead of %ld",
        got_signal, result, found.seconds, (long)t.tv_sec);
}

long differs_hot(long number);
extern const unsigned char differs_site[], differs_call[];
asm(".globl differs_hot\n.type differs_hot, @function\n"
    "differs_hot: nop\n"
    ".globl differs_site\ndiffers_site: mov $110, %eax\n"
    ".globl differs_call\ndiffers_call: syscall\n"
    "ret\n");

// A patched site: entered in its middle, and read by its own program.
static void patched_site(void) {
    static const unsigned char bytes[7] = {0xb8, 110, 0, 0, 0, 0x0f, 0x05};
    long parent = getppid();
    int good = 1;
    for (int i = 0; i < 3000; i++) good &= differs_hot(0) == parent;
    check(good, "hot-site", "a wrong result");
    long result = 0;
    asm volatile("call differs_call" : "=a"(result) : "a"(SYS_getpid) : "rcx", "r11", "memory");
    check(result == getpid(), "middle-of-site", "%ld instead of %d", result, getpid());
    // Natively OUTSB, a fault; what a jump's bytes do there depends on its slot, and may
    // spoil any register: whatever becomes of the child, the site works on.
    for (int inside = 1; inside < 5; inside++) {
        pid_t child = fork();
        if (child == 0) {
            for (int s = 1; s < 32; s++) signal(s, SIG_DFL);
            alarm(2);
            ((void (*)(void))(differs_site + inside))();
            _exit(0);
        }
        good &= child > 0 && reap(child) != -1 && differs_hot(0) == parent;
    }
    check(good, "inside-site", "the site does not work any more");
    unsigned char seen[7];
    struct iovec local = {seen, 7}, remote = {(void *)differs_site, 7};
    long got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    check(got == 7 && memcmp(seen, bytes, 7) == 0, "site-read-by-kernel", "%ld bytes, first %#x", got, seen[0]);
    memcpy(seen, (const unsigned char *)(uintptr_t)differs_site, 7);
    // Without protection keys the jump is seen: jmp *(abs32).
    int jump = seen[0] == 0xff && seen[1] == 0x24 && seen[2] == 0x25;
    check(memcmp(seen, bytes, 7) == 0 || (in_guest && jump), "site-read-by-program", "first %#x", seen[0]);
}

// No performance counters; what the kernel counts by itself works.
static long counter(uint32_t type, uint64_t config) {
    struct perf_event_attr attributes = {.type = type, .size = sizeof attributes, .config = config, .exclude_kernel = 1};
    return syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
}

static void counters(void) {
    long hardware = counter(PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES);
    int why = errno;
    if (!in_guest) check_skip("hardware-counters", "the host's own");
    else check(hardware == -1 && why == ENOENT, "hardware-counters", "%ld, %s", hardware, strerror(why));
    long raw = counter(PERF_TYPE_RAW, 0xc0);
    why = errno;
    if (in_guest) check(raw == -1 && why == ENOENT, "raw-counters", "%ld, %s", raw, strerror(why));
    if (hardware >= 0) close((int)hardware);
    if (raw >= 0) close((int)raw);
    long faults = counter(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS);
    if (faults < 0 && !in_guest) {
        check_skip("software-counters", "the host refuses them");
        return;
    }
    char *pages = mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(pages != MAP_FAILED, "mmap");
    madvise(pages, 16 * 4096, MADV_NOHUGEPAGE);
    for (int i = 0; i < 16; i++) pages[i * 4096] = 1;
    uint64_t count = 0;
    long got = read((int)faults, &count, sizeof count);
    check(got == sizeof count && count >= 16, "software-counters", "%ld bytes, %lu faults", got, (unsigned long)count);
    close((int)faults);
    munmap(pages, 16 * 4096);
}

// Nobody steals time, as the runstate area says.
static void stolen_time(void) {
    char line[512] = "";
    FILE *f = fopen("/proc/stat", "r");
    unsigned long user, nice, system, idle, wait, irq, soft, steal = 1;
    int fields = 0;
    if (f && fgets(line, sizeof line, f))
        fields = sscanf(line, "cpu %lu %lu %lu %lu %lu %lu %lu %lu", &user, &nice, &system, &idle, &wait, &irq, &soft, &steal);
    if (f) fclose(f);
    if (!in_guest) check_skip("stolen-time", "the host's own");
    else check(fields == 8 && steal == 0, "stolen-time", "%d fields, %lu", fields, steal);
}

int main(void) {
    check_start("differs");
    in_guest = file_holds("/sys/hypervisor/type", "xen") && file_holds("/sys/hypervisor/version/extra", "xenolith");
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
    xen_cpuid();
    fsgsbase();
    descriptor_tables();
    selectors();
    local_descriptors();
    program_32();
    far_jump();
    processor_number();
    forbidden_tsc();
    forbidden_cpuid();
    lowest_addresses();
    vsyscall();
    patched_site();
    counters();
    stolen_time();
    return check_failed;
}
