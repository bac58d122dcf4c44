// Where programs run in processes of their own, these change their mappings by themselves, as their
// kernel's space orders it. A program reaches the instructions that do so, and opens the host's system
// calls to itself: it must not get memory that way which its kernel did not give.
// usage: hostile_mappings [ROUNDS]

#include "hostile.h"

// crates/monitor: `layout::MAILBOX`, and `Mailbox::selector` in it.
#define MAILBOX 0x5c0010200000ul
#define SELECTOR 0x160
#define TARGET 0x300000000000ul
#define IMAGE_END 0x5c0000800000ul
enum { RAM = 3, ARENA = 4, SHADOW = 6 };
#define FIXED (MAP_SHARED | MAP_FIXED)

static unsigned char *code;
// Behind the call: selector 1, then the word at RDI into the progress page (R12), then UD2.
static const unsigned char look[] = {0xc6, 0x03, 1, 0x48, 0x8b, 0x0f, 0x49, 0x89, 0x0c, 0x24, 0x0f, 0x0b};
#define LOOK_END 10

// What is asked of the host.
struct call {
    const char *name;
    uint64_t number, first, second, third, fourth, fifth, sixth;
};
static const struct call calls[] = {
    // The kernel's text begins at 16 MiB.
    {"mmap", SYS_mmap, TARGET, PAGE, PROT_READ, FIXED, RAM, 0x1000000},
    {"mmap-writable", SYS_mmap, TARGET, PAGE, PROT_READ | PROT_WRITE, FIXED, RAM, 0x2000000},
    {"mmap-arena", SYS_mmap, MAILBOX, PAGE, PROT_READ | PROT_WRITE, FIXED, ARENA, 0x20000},
    {"mmap-long", SYS_mmap, TARGET, 0x40000000, PROT_READ, FIXED, RAM, 0},
    {"mmap-over-image", SYS_mmap, IMAGE, 0x10000, PROT_READ | PROT_EXEC, FIXED, RAM, 0x1000000},
    {"mmap-into-image", SYS_mmap, IMAGE - PAGE, 2 * PAGE, PROT_READ | PROT_EXEC, FIXED, RAM, 0x1000000},
    {"mmap-over-stacks", SYS_mmap, 0x5c0040000000, 0x10000, PROT_READ | PROT_WRITE, FIXED, RAM, 0x1000000},
    {"mmap-over-sites", SYS_mmap, 0x60000, 0x10000, PROT_READ | PROT_WRITE, FIXED, RAM, 0x1000000},
    {"mprotect-image", SYS_mprotect, IMAGE, 0x10000, PROT_READ | PROT_WRITE | PROT_EXEC, 0, 0, 0},
    {"mprotect-orders", SYS_mprotect, MAILBOX + 0x20000, 0x10000, PROT_READ | PROT_WRITE, 0, 0, 0},
    {"munmap-orders", SYS_munmap, MAILBOX + 0x20000, 0x10000, 0, 0, 0, 0},
};
#define CALLS (sizeof calls / sizeof *calls)

static void load(const struct call *c, struct progress *p, uint64_t n) {
    prepare(0);
    hostile_attempt.regs[RAX] = c->number;
    hostile_attempt.regs[RDI] = c->first;
    hostile_attempt.regs[RSI] = c->second;
    hostile_attempt.regs[RDX] = c->third;
    hostile_attempt.regs[10] = c->fourth;
    hostile_attempt.regs[R8] = c->fifth;
    hostile_attempt.regs[9] = c->sixth;
    hostile_attempt.regs[RBX] = MAILBOX + SELECTOR;
    hostile_attempt.regs[12] = (uint64_t)&p->detail[n % 8];
}

// The word was read: it is there. Memory that can be seen anyway tells nothing.
static void judge(struct progress *p, uint64_t n, const struct call *c, uint64_t end) {
    if (landed.signal == SIGILL && landed.rip == end && c->first == TARGET) p->bad++, p->detail[n % 8] = n;
    p->landings++;
}

// From the program's own code.
static void ask(struct progress *p, uint64_t n) {
    const struct call *c = &calls[n % CALLS];
    // movb $0, (%rbx); syscall
    static const unsigned char bytes[] = {0xc6, 0x03, 0, 0x0f, 0x05};
    memcpy(code, bytes, sizeof bytes);
    memcpy(code + sizeof bytes, look, sizeof look);
    load(c, p, n);
    go((uint64_t)code);
    judge(p, n, c, (uint64_t)code + sizeof bytes + LOOK_END);
}

// Other calls than those.
static void ask_more(struct progress *p, uint64_t n) {
    static const struct call more[] = {
        {"clone", SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0, 0},
        {"prctl", SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0},
        {"dispatch", SYS_prctl, 59, 1, 0, 0, MAILBOX + SELECTOR, 0},
        {"arch-prctl", SYS_arch_prctl, 0x1012, 0, 0, 0, 0, 0},
        {"seccomp", 317, 1, 4, MAILBOX, 0, 0, 0},
        {"write", SYS_write, 7, MAILBOX, 8, 0, 0, 0},
        {"getpid", SYS_getpid, 0, 0, 0, 0, 0, 0},
        {"madvise", SYS_madvise, 0x5c8001000000, PAGE, 9, 0, 0, 0},
    };
    const struct call *c = &more[n % (sizeof more / sizeof *more)];
    static const unsigned char bytes[] = {0xc6, 0x03, 0, 0x0f, 0x05, 0xc6, 0x03, 1, 0x0f, 0x0b};
    memcpy(code, bytes, sizeof bytes);
    load(c, p, n);
    go((uint64_t)code);
    // Past the call: it was let through, or made by the guest's kernel where keys keep programs from the selector.
    if (landed.signal == SIGILL && landed.rip == (uint64_t)code + 8) p->bad++, p->detail[0] = n;
    p->landings++;
}

// Where the runner makes its calls: mov $number, %eax; syscall.
static uint64_t places[3];
static sigjmp_buf unreadable;
static void on_unreadable(int number) {
    (void)number;
    siglongjmp(unreadable, 1);
}
static void look_through(const volatile unsigned char *page) {
    static const unsigned char numbers[] = {SYS_mmap, SYS_munmap, SYS_mprotect};
    if (sigsetjmp(unreadable, 1)) return;
    for (const volatile unsigned char *at = page; at < page + PAGE - 7; at++) {
        if (at[0] != 0xb8 || at[2] || at[3] || at[4] || at[5] != 0x0f || at[6] != 0x05) continue;
        for (int i = 0; i < 3; i++)
            if (at[1] == numbers[i] && !places[i]) places[i] = (uint64_t)at + 5;
    }
}
static int find_places(void) {
    signal(SIGSEGV, on_unreadable);
    for (uint64_t page = IMAGE; page < IMAGE_END; page += PAGE) look_through((const volatile unsigned char *)page);
    signal(SIGSEGV, SIG_DFL);
    return places[0] && places[1] && places[2];
}

// At the runner's own instruction, with each number of a command.
static void jump_there(struct progress *p, uint64_t n) {
    const struct call *c = &calls[n % CALLS];
    uint64_t command = n / CALLS % 16 ? n / CALLS % 16 - 1 : ~0ul;
    // The runner's code goes on: pop %rbx; ret.
    memcpy(code, "\x48\xbb", 2);
    uint64_t selector = MAILBOX + SELECTOR;
    memcpy(code + 2, &selector, 8);
    memcpy(code + 10, look, sizeof look);
    load(c, p, n);
    hostile_attempt.regs[RBX] = command;
    uint64_t *stack = (uint64_t *)hostile_attempt.rsp;
    stack[1] = (uint64_t)code;
    *(volatile unsigned char *)selector = 0;
    go(places[c->number == SYS_mmap ? 0 : c->number == SYS_munmap ? 1 : 2]);
    judge(p, n, c, (uint64_t)code + 10 + LOOK_END);
}

// The same while timers stop the program as often as they can, behind the call too.
static void jump_there_hurried(struct progress *p, uint64_t n) {
    struct itimerval often = {{.tv_usec = 30 + (long)n % 40}, {.tv_usec = 50}};
    setitimer(ITIMER_REAL, &often, NULL);
    for (volatile uint64_t i = 0; i < n * 37 % 400; i++) {}
    jump_there(p, n);
    watch_attempts(50000);
}

static void run_all(struct progress *p, const char *name, void (*one)(struct progress *, uint64_t), uint64_t count) {
    uint64_t before = p->landings;
    p->bad = 0;
    int lost = in_children(p, count, one);
    check(p->bad == 0 && p->landings - before + (uint64_t)lost >= count, name, "%lu of %lu done, %lu succeeded: %lu, first words %016lx %016lx",
        p->landings - before, count, p->bad, p->detail[0], p->detail[1], p->detail[2]);
}

int main(int count, char **arguments) {
    check_start("hostile_mappings");
    uint64_t rounds = count > 1 ? (uint64_t)atoi(arguments[1]) : 1;
    if (!in_test_guest()) {
        check_skip("all", "system calls go wild here");
        return 0;
    }
    code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(code != MAP_FAILED, "mmap");
    start_witness();
    struct progress *p = share();
    run_all(p, "asked-for", ask, CALLS * rounds);
    run_all(p, "more-asked-for", ask_more, 16 * rounds);
    if (find_places()) {
        run_all(p, "jumped-to", jump_there, CALLS * 4 * rounds);
        run_all(p, "jumped-to-in-a-hurry", jump_there_hurried, CALLS * 4 * rounds);
    } else {
        check_skip("jumped-to", "there is no such place, or it cannot be seen");
    }
    end_witness();
    check_kernel_log();
    return check_failed;
}
