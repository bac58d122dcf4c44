// Programs that end the process they run in, or make it deaf, or lie for it: on
// hosts without protection keys that process, the runner, is within a program's
// reach. It may cost the program its life, but no other's, and not the kernel's.
// Elsewhere, and natively, nothing lies at these places.
// usage: hostile_runner [ROUNDS [NAME]]

#include "hostile.h"

// crates/monitor, `layout` and `Mailbox`.
#define MAILBOX 0x5c0010200000ul
#define ORDERS 0x5c0010220000ul
#define SELECTOR 0x160
#define EVENT 4
#define VECTOR 0x280
#define LOCAL 0x5c0010160000ul
#define STACK 0x5c0040001000ul
#define SIGNAL_STACK 0x5c0040042000ul

static unsigned char *code;

static void emit(const unsigned char *bytes, size_t length) {
    memcpy(code, bytes, length);
}

// A system call of the host's, then an invalid instruction.
static void host_call(uint64_t number, uint64_t a, uint64_t b, uint64_t c) {
    // movb $0, (%rbx); syscall; ud2
    static const unsigned char bytes[] = {0xc6, 0x03, 0, 0x0f, 0x05, 0x0f, 0x0b};
    emit(bytes, sizeof bytes);
    prepare(0);
    hostile_attempt.regs[RAX] = number;
    hostile_attempt.regs[RBX] = MAILBOX + SELECTOR;
    hostile_attempt.regs[RDI] = a;
    hostile_attempt.regs[RSI] = b;
    hostile_attempt.regs[RDX] = c;
    go((uint64_t)code);
}

// Fills memory, then goes on as an honest program.
static void spray(uint64_t start, uint64_t length, uint64_t with) {
    // rep stosb; ret
    static const unsigned char bytes[] = {0xf3, 0xaa, 0xc3};
    emit(bytes, sizeof bytes);
    prepare(0);
    hostile_attempt.regs[RAX] = with;
    hostile_attempt.regs[RDI] = start;
    hostile_attempt.regs[RCX] = length;
    go((uint64_t)code);
}

// Its process ends.
static void ends(uint64_t n) {
    host_call(231, n & 0xff, 0, 0);
}

// It takes away what its process needs: all, the image, the mailbox, the stacks, the table of sites.
static void unmaps(uint64_t n) {
    static const struct {
        uint64_t start, length;
    } places[] = {{0x10000, 0x7fffffff0000 - 0x10000}, {IMAGE, 0x1000000}, {MAILBOX, PAGE * 16}, {ORDERS, PAGE * 16}, {STACK, 0x40000},
        {SIGNAL_STACK, 0x10000}, {0x60000, 0x20000}, {LOCAL, PAGE}};
    host_call(11, places[n % 8].start, places[n % 8].length, 0);
}

// Calls that nobody may make.
static void forbidden(uint64_t n) {
    static const uint64_t calls[] = {2, 41, 57, 59, 62, 101, 319, 435};
    host_call(calls[n % 8], (uint64_t)code, 0, 0);
}

// A wait without end, from which an interruption wakes it.
static void waits(uint64_t n) {
    *(uint32_t *)(code + 512) = 7;
    host_call(202, (uint64_t)code + 512, 0, 7);
    (void)n;
}

// No signal reaches it any more: returns from one with all of them blocked, and stays in a loop.
static void goes_deaf(uint64_t n) {
    // movb $0, (%rbx); syscall; ud2; jmp .
    static const unsigned char bytes[] = {0xc6, 0x03, 0, 0x0f, 0x05, 0x0f, 0x0b, 0xeb, 0xfe};
    static uint64_t frame[128] __attribute__((aligned(64)));
    emit(bytes, sizeof bytes);
    prepare(0);
    memset(frame, 0, sizeof frame);
    // struct ucontext: flags, link, stack; struct sigcontext: R8 .. RCX, RSP, RIP, flags, selectors; the mask follows it.
    frame[5 + 15] = hostile_attempt.rsp;
    frame[5 + 16] = (uint64_t)code + 7;
    frame[5 + 17] = 0x202;
    frame[5 + 18] = 0x2b000000000033;
    frame[5 + 32] = ~0ul;
    hostile_attempt.regs[RAX] = 15;
    hostile_attempt.regs[RBX] = MAILBOX + SELECTOR;
    hostile_attempt.rsp = (uint64_t)frame;
    go((uint64_t)code);
    (void)n;
}

// It says again and again that its turn is over, and why.
static void lies(uint64_t n) {
    // mov (%rsi), %eax; mov %ecx, 4(%rbx); mov %eax, (%rbx); jmp back
    static const unsigned char bytes[] = {0x8b, 0x06, 0x89, 0x4b, EVENT, 0x89, 0x03, 0xeb, 0xf7};
    emit(bytes, sizeof bytes);
    prepare(0);
    hostile_attempt.regs[RBX] = MAILBOX;
    hostile_attempt.regs[RSI] = ORDERS;
    hostile_attempt.regs[RCX] = n % 7;
    go((uint64_t)code);
}

// Vector state that no processor takes; the kernel saves it when it switches.
static void spoils_state(uint64_t n) {
    spray(MAILBOX + VECTOR + (n & 1 ? 512 : 0), n & 1 ? 64 : 8192, 0xff);
    spray(MAILBOX + VECTOR + 520, 56, 0x81);
    volatile double x = 1.5 + (double)n;
    for (int i = 0; i < 5; i++) {
        sched_yield();
        x *= 1.25;
    }
    pid_t child = fork();
    if (child == 0) _exit(0);
    waitpid(child, NULL, 0);
}

// Its runner's own memory.
static void spoils_memory(uint64_t n) {
    static const struct {
        uint64_t start, length;
    } places[] = {{STACK, 0x20000}, {STACK + 0x20000, 0x20000}, {LOCAL, PAGE}, {MAILBOX, 64}, {MAILBOX, SELECTOR}, {SIGNAL_STACK, 0x8000}};
    spray(places[n % 6].start, places[n % 6].length, n & 8 ? 0xff : n & 16 ? 1 : 0);
    for (int i = 0; i < 3; i++) sched_yield();
}

// The handler of its signals becomes a loop: `jmp .` all over the image.
static void spoils_code(uint64_t n) {
    host_call(10, IMAGE, 0x80000, 7);
    // mov %ax, (%rdi); add $2, %rdi; loop back; ret
    static const unsigned char bytes[] = {0x66, 0x89, 0x07, 0x48, 0x83, 0xc7, 2, 0xe2, 0xf7, 0xc3};
    emit(bytes, sizeof bytes);
    prepare(0);
    hostile_attempt.regs[RAX] = 0xfeeb;
    hostile_attempt.regs[RDI] = IMAGE + PAGE;
    hostile_attempt.regs[RCX] = 0x3f800;
    go((uint64_t)code);
    (void)n;
}

static void (*deed)(uint64_t);

static void one(struct progress *p, uint64_t n) {
    deed(n);
    p->landings++;
}

// A neighbour that computes all the while, in memory and registers; how often it found them good.
static pid_t start_neighbour(struct progress *p) {
    pid_t child = fork();
    if (child) return child;
    static char memory[16 * PAGE];
    for (uint64_t i = 1;; i++) {
        volatile double x = (double)i;
        fill_random(memory, sizeof memory, i);
        sched_yield();
        p->bad += !holds_random(memory, sizeof memory, i) || x != (double)i;
        p->detail[0]++;
    }
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        void (*deed)(uint64_t);
        uint64_t tries, most;
    } deeds[] = {{"ends", ends, 40, ~0ul}, {"unmaps", unmaps, 16, ~0ul}, {"forbidden-calls", forbidden, 16, ~0ul}, {"waits", waits, 3, 3},
        {"lies", lies, 14, 42}, {"spoils-state", spoils_state, 12, ~0ul}, {"spoils-memory", spoils_memory, 36, 72},
        {"goes-deaf", goes_deaf, 2, 2}, {"spoils-code", spoils_code, 2, 2}};
    check_start("hostile_runner");
    uint64_t rounds = count > 1 ? (uint64_t)atoi(arguments[1]) : 1;
    // Whoever is found deaf is found so after some seconds.
    stands_still = 60000000000;
    code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(code != MAP_FAILED, "mmap");
    start_witness();
    struct progress *p = share(), *neighbour = share();
    pid_t beside = start_neighbour(neighbour);
    for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++) {
        if (count > 2 && strcmp(arguments[2], deeds[i].name)) continue;
        uint64_t tries = deeds[i].tries * rounds, before = p->landings, start = now_ns();
        if (tries > deeds[i].most) tries = deeds[i].most;
        deed = deeds[i].deed;
        uint64_t lost = (uint64_t)in_children(p, tries, one), done = p->landings - before;
        check(done <= tries && done + lost >= tries, deeds[i].name, "%lu of %lu done, %lu children lost", done, tries, lost);
        printf("# %s: %lu times, %lu children lost, %lu ms\n", deeds[i].name, tries, lost, (now_ns() - start) / 1000000);
    }
    uint64_t turns = neighbour->detail[0];
    while (neighbour->detail[0] == turns && kill(beside, 0) == 0) usleep(1000);
    kill(beside, SIGKILL);
    int ended = reap(beside);
    check(ended == 1000 + SIGKILL && neighbour->bad == 0 && turns > 0, "neighbour", "ended with %d after %lu turns, %lu of them bad", ended,
        turns, neighbour->bad);
    end_witness();
    check_kernel_log();
    return check_failed;
}
