// Segments and ways into a kernel: every selector, far transfers, INT n,
// SYSENTER, system calls that do not exist, thread bases, local descriptor
// tables, the vsyscall page. Each gives what the processor gives, or a signal.
// usage: hostile_segments [ROUNDS]

#include "hostile.h"

static unsigned char *code;
static uint64_t rounds = 1;

static void put(const void *bytes, size_t length) {
    memset(code, 0x0f, 64);
    memcpy(code, bytes, length);
    code[length] = 0x0f;
    code[length + 1] = 0x0b;
}
#define PUT(...) put((const unsigned char[]){__VA_ARGS__}, sizeof((const unsigned char[]){__VA_ARGS__}))

// Loads DS, ES, FS or GS. A selector is taken, or refused with its own number.
static void load_selector(struct progress *p, uint64_t n) {
    static const unsigned char which[] = {0xd8, 0xc0, 0xe0, 0xe8};
    uint64_t selector = n & 0xffff;
    unsigned char reg = which[(n >> 16) & 3];
    // mov %ax, %sreg; mov %sreg, %ecx; xor %ax, %ax; mov %ax, %sreg; then an invalid instruction
    PUT(0x8e, reg, 0x8c, (unsigned char)(reg | 1), 0x31, 0xc0, 0x8e, reg);
    prepare(0);
    hostile_attempt.regs[RAX] = selector;
    go((uint64_t)code);
    int taken = landed.signal == SIGILL && landed.rip == (uint64_t)code + 8;
    int refused = (landed.signal == SIGSEGV || landed.signal == SIGBUS) && landed.rip == (uint64_t)code && (landed.error | 3) == (selector | 3);
    if (!taken && !refused && !is_unknown()) p->bad++, p->detail[0] = n, p->detail[1] = (uint64_t)landed.signal;
    p->landings++;
}

// SS, and what POP, LSS and LFS load.
static void load_stack(struct progress *p, uint64_t n) {
    uint64_t selector = (n * 8 + (n >> 13)) & 0xffff;
    PUT(0x8e, 0xd0, 0xb9, 0x2b, 0, 0, 0, 0x8e, 0xd1);
    prepare(0);
    hostile_attempt.regs[RAX] = selector;
    go((uint64_t)code);
    p->landings++;
}

static struct {
    uint64_t offset;
    uint16_t selector;
} __attribute__((packed)) far_pointer;

static void far_transfer(struct progress *p, uint64_t n) {
    uint16_t selector = n < 0x100 ? (uint16_t)n : n < 0x200 ? (uint16_t)(0xe000 | (n & 0xff)) : (uint16_t)(n * 0x9e37);
    static const uint64_t places[] = {0, 0xffffffff81000000, IMAGE, 0x8000000000000000};
    unsigned place = n / 5 % 5;
    uint64_t target = place == 4 ? (uint64_t)code + 32 : places[place];
    far_pointer.offset = target;
    far_pointer.selector = selector;
    // At the target, in 64-bit and in 32-bit mode: inc or REX, then invalid.
    uint64_t *stack = (uint64_t *)(hostile_stack + 4 * PAGE);
    prepare((uint64_t)&far_pointer);
    switch (n % 4) {
        case 0: PUT(0x48, 0xff, 0x28); break; // rex.w ljmp *(%rax)
        case 1: PUT(0x48, 0xff, 0x18); break; // rex.w lcall *(%rax)
        case 2: PUT(0x48, 0xcb); break;       // lretq
        case 3: PUT(0x48, 0xcf); break;       // iretq
    }
    code[32] = 0x0f, code[33] = 0x0b;
    if (n % 4 >= 2) {
        stack[0] = target, stack[1] = selector, stack[2] = n % 8 == 7 ? (uint64_t)next_random(&n) : 0x202;
        stack[3] = (uint64_t)hostile_stack + 4 * PAGE, stack[4] = n & 8 ? 0x2b : selector;
        hostile_attempt.rsp = (uint64_t)stack;
    }
    go((uint64_t)code);
    p->landings++;
}

// 32-bit code that comes back, or that asks the kernel in its ways.
static void compatibility(struct progress *p, uint64_t n) {
    static const unsigned char ways[][2] = {{0x90, 0x90}, {0xcd, 0x80}, {0x0f, 0x34}, {0x0f, 0x05}, {0x0f, 0x0b}, {0xf4, 0x90}};
    far_pointer.offset = (uint64_t)code + 32;
    far_pointer.selector = 0x23;
    PUT(0x48, 0xff, 0x28);
    memcpy(code + 32, ways[n % 6], 2);
    // ljmp $0x33, code+48; there an invalid instruction
    uint32_t home = (uint32_t)(uint64_t)code + 48;
    code[34] = 0xea;
    memcpy(code + 35, &home, 4);
    code[39] = 0x33, code[40] = 0;
    code[48] = 0x0f, code[49] = 0x0b;
    prepare((uint64_t)&far_pointer);
    hostile_attempt.regs[RDX] = 20;
    go((uint64_t)code);
    p->landings++;
}

// INT n: those that the kernel gives to programs are 3, 4 and 0x80.
static void interrupt(struct progress *p, uint64_t n) {
    unsigned vector = n & 0xff;
    PUT(0xcd, (unsigned char)vector);
    prepare(0);
    hostile_attempt.regs[RAX] = 20;
    go((uint64_t)code);
    int given = vector == 3 || vector == 4 || vector == 0x80;
    int refused = landed.signal == SIGSEGV && landed.trap == 13 && landed.error == vector * 8 + 2 && landed.rip == (uint64_t)code;
    if ((given ? landed.signal == 0 : !refused) && !is_unknown())
        p->bad++, p->detail[0] = vector, p->detail[1] = (uint64_t)landed.signal, p->detail[2] = landed.error;
    p->landings++;
}

static void other_ways(struct progress *p, uint64_t n) {
    switch (n % 8) {
        case 0: PUT(0x0f, 0x34); break;             // sysenter
        case 1: PUT(0x48, 0x0f, 0x35); break;       // sysexit
        case 2: PUT(0x48, 0x0f, 0x07); break;       // sysret
        case 3: PUT(0x0f, 0x01, 0xc1); break;       // vmcall
        case 4: PUT(0x0f, 0x01, 0xd9); break;       // vmmcall
        case 5: PUT(0x0f, 0x01, 0xf8); break;       // swapgs
        case 6: PUT(0x0f, 0xaa); break;             // rsm
        case 7: PUT(0x0f, 0x00, 0xd8); break;       // ltr
    }
    prepare(n & 8 ? 0xffffffff81000000 : (uint64_t)hostile_stack);
    go((uint64_t)code);
    // As the processor has it, or SYSENTER as a kernel without it has it: never a way on.
    if (landed.signal == 0) p->bad++, p->detail[0] = n;
    p->landings++;
}

// Numbers that no kernel has.
static void no_such_call(struct progress *p, uint64_t n) {
    static const uint64_t bases[] = {600, 0x1000, 0x7fffffff, 0x40000000 + 600, 0xffffffff00000258, 0x8000000000000258};
    uint64_t number = bases[n % 6] + n / 6 % 400;
    PUT(0x0f, 0x05, 0xc3);
    prepare(n & 1 ? 0xffffffff81000000 : ~0ul);
    hostile_attempt.regs[RAX] = number;
    // The result goes to memory.
    PUT(0x0f, 0x05, 0x48, 0xa3, 0, 0, 0, 0, 0, 0, 0, 0, 0xc3);
    static volatile int64_t result;
    uint64_t to = (uint64_t)&result;
    memcpy(code + 4, &to, 8);
    result = 0;
    go((uint64_t)code);
    if ((landed.signal || result != -ENOSYS) && !is_unknown()) p->bad++, p->detail[0] = number, p->detail[1] = (uint64_t)result;
    p->landings++;
}

// All that it has, with wild arguments; where nothing is lost by it.
static void wild_call(struct progress *p, uint64_t n) {
    static const uint64_t values[] = {0, 1, ~0ul, 0x8000000000000000, 0xffff888000000000, 0xffffffff81000000, IMAGE, 0x5c0010200000,
        0x5c1000000000, 0x60000, 0xffffffff81000000 + FOLD, 0x7ffffffff000, 4096, 0x7fffffff};
    uint64_t number = n % 450, seed = n;
    // Copies of this child would go on with its attempts, and live on where nobody waits for them.
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_NPROC, &none);
    // Not what would end this child for sure.
    if (number == SYS_exit || number == SYS_exit_group || number == SYS_pause) return;
    PUT(0x0f, 0x05, 0xc3);
    prepare((uint64_t)hostile_stack);
    for (int i = 0; i < 16; i++)
        if (next_random(&seed) % 4) hostile_attempt.regs[i] = values[next_random(&seed) % (sizeof values / 8)];
    hostile_attempt.regs[RAX] = number;
    go((uint64_t)code);
    p->landings++;
}

static void bases(struct progress *p, uint64_t n) {
    static const uint64_t values[] = {0, 0x7fffffffe000, 0x800000000000, 0xffff800000000000, 0xffff888000000000, 0xffffffff81000000,
        FOLD, 0xffffffff81000000 + FOLD, IMAGE, 0x5c0010200000, 0x8000000000000000, ~0ul};
    uint64_t value = values[n / 4 % 12];
    prepare(0);
    hostile_attempt.regs[RAX] = value;
    switch (n % 4) {
        case 0: PUT(0xf3, 0x48, 0x0f, 0xae, 0xd0, 0x64, 0x8a, 0x04, 0x25, 0, 0, 0, 0); break; // wrfsbase; mov %fs:0, %al
        case 1: PUT(0xf3, 0x48, 0x0f, 0xae, 0xd8, 0x65, 0x8a, 0x04, 0x25, 0, 0, 0, 0); break; // wrgsbase; mov %gs:0, %al
        default:
            PUT(0x0f, 0x05, 0x64, 0x8a, 0x04, 0x25, 0, 0, 0, 0);
            hostile_attempt.regs[RAX] = SYS_arch_prctl;
            hostile_attempt.regs[RDI] = n % 4 == 2 ? 0x1002 : 0x1001;
            hostile_attempt.regs[RSI] = value;
            if (n % 4 == 3) code[2] = 0x65;
    }
    go((uint64_t)code);
    // The kernel's half must not be read through any base; refused ones leave the old base, which may be 0.
    int kernels = value >> 63;
    if (kernels && n % 4 < 2 && landed.signal == SIGILL) p->bad++, p->detail[0] = value, p->detail[1] = n % 4;
    p->landings++;
}

static void descriptors(struct progress *p, uint64_t n) {
    struct {
        uint32_t entry, base, limit, flags;
    } d = {(uint32_t)(n % 16) + (n % 5 == 4 ? 8190 : 0), (uint32_t)(n * 0x9e3779b9), (uint32_t)(n * 77777), (uint32_t)n & 0x7f};
    syscall(SYS_modify_ldt, n & 1 ? 1 : 0x11, &d, sizeof d);
    if (n % 9 == 0) syscall(SYS_modify_ldt, 0, hostile_stack, 4096);
    // Its selector in all registers, and to jump through.
    load_selector(p, (n % 16 * 8 + 7) | (n & 3) << 16);
    p->bad = 0;
    far_pointer.offset = (uint64_t)code + 32;
    far_pointer.selector = (uint16_t)(n % 16 * 8 + 7);
    PUT(0x48, 0xff, 0x28);
    prepare((uint64_t)&far_pointer);
    go((uint64_t)code);
}

static void vsyscall(struct progress *p, uint64_t n) {
    static const uint64_t places[] = {0xffffffffff600000, 0xffffffffff600400, 0xffffffffff600800, 0xffffffffff600001,
        0xffffffffff600c00, 0xffffffffff601000, 0xffffffffff5ff000};
    prepare(n & 8 ? 0xffffffff81000000 : (uint64_t)hostile_stack);
    PUT(0xff, 0xd1, 0xc3); // call *%rcx; ret
    hostile_attempt.regs[RCX] = places[n % 7];
    go((uint64_t)code);
    // A jump that is no call, and a read.
    prepare(0);
    go(places[n % 7]);
    p->landings++;
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        void (*one)(struct progress *, uint64_t);
        uint64_t count;
        int guest_only;
    } tests[] = {{"selectors", load_selector, 0x10000, 0}, {"all-selectors", load_selector, 0x40000, 2}, {"stack-selectors", load_stack, 0x2100, 0},
        {"far-transfers", far_transfer, 4000, 0}, {"32-bit-code", compatibility, 60, 0}, {"interrupts", interrupt, 256, 0},
        {"other-ways", other_ways, 32, 0}, {"no-such-calls", no_such_call, 2400, 0}, {"bases", bases, 96, 0},
        {"descriptors", descriptors, 500, 0}, {"vsyscall", vsyscall, 64, 0}, {"wild-calls", wild_call, 9000, 1}};
    check_start("hostile_segments");
    if (count > 1) rounds = (uint64_t)atoi(arguments[1]);
    code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    require(code != MAP_FAILED, "mmap");
    start_witness();
    struct progress *p = share();
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (tests[i].guest_only == 2 && rounds == 1) continue;
        if (tests[i].guest_only == 1 && !in_test_guest()) continue;
        uint64_t tries = tests[i].count * (i > 2 ? rounds : 1), before = p->landings, start = now_ns();
        p->bad = 0;
        stands_still = tests[i].guest_only == 1 ? 300000000 : 10000000000;
        int lost = in_children(p, tries, tests[i].one);
        int wild = tests[i].guest_only == 1;
        check(p->bad == 0 && (wild || p->landings - before + (uint64_t)lost >= tries), tests[i].name,
            "%lu of %lu done, %d children lost, %lu bad: %#lx %#lx %#lx", p->landings - before, tries, lost, p->bad, p->detail[0],
            p->detail[1], p->detail[2]);
        printf("# %s: %d children lost, %lu ms\n", tests[i].name, lost, (now_ns() - start) / 1000000);
    }
    end_witness();
    check_kernel_log();
    return check_failed;
}
