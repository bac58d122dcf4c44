// A debugger's work on a child: single steps, breakpoints, registers, memory,
// system-call stops, watchpoints, and attaching to a running process.

#include "check.h"
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

static volatile long target_value = 11;

__attribute__((noinline, noclone)) static long target(long n) {
    long sum = 0;
    asm volatile("1: add %1, %0\n dec %1\n jnz 1b" : "+r"(sum), "+r"(n)::"cc");
    return sum + target_value;
}

static pid_t start(void) {
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        long result = target(100);
        target_value = 33;
        syscall(SYS_getppid);
        _exit(result == 5061 ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    if (!WIFSTOPPED(status)) return -1;
    return child;
}

static int go(pid_t child, int request) {
    int status = 0;
    if (ptrace(request, child, 0, 0) != 0) return -1;
    waitpid(child, &status, 0);
    return status;
}

static void breakpoint(void) {
    pid_t child = start();
    struct user_regs_struct registers;
    long entry = (long)target;
    errno = 0;
    long word = ptrace(PTRACE_PEEKTEXT, child, entry, 0);
    ptrace(PTRACE_POKETEXT, child, entry, (word & ~0xffl) | 0xcc);
    int status = go(child, PTRACE_CONT);
    ptrace(PTRACE_GETREGS, child, 0, &registers);
    int hit = WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP && (long)registers.rip == entry + 1;
    check(hit && registers.rdi == 100, "breakpoint", "status %#x rip %#llx rdi %llu", status, registers.rip, registers.rdi);
    ptrace(PTRACE_POKETEXT, child, entry, word);
    registers.rip = (unsigned long)entry;
    ptrace(PTRACE_SETREGS, child, 0, &registers);
    // Step until the function has counted down: two hundred loop steps and more.
    int steps = 0, orderly = 1;
    unsigned long long rsp = registers.rsp;
    while (steps < 2000) {
        status = go(child, PTRACE_SINGLESTEP);
        if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) {
            orderly = 0;
            break;
        }
        steps++;
        ptrace(PTRACE_GETREGS, child, 0, &registers);
        if (registers.rsp > rsp) break;
    }
    check(orderly && steps >= 302 && steps <= 320 && registers.rax == 5061, "single-step", "%d steps, status %#x, rax %lld",
        steps, status, registers.rax);
    status = go(child, PTRACE_CONT);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "continue", "status %#x", status);
}

static void memory_and_state(void) {
    pid_t child = start();
    long value = 5000 - 5050 + 11, seen = 0;
    struct iovec local = {&seen, sizeof seen}, remote = {(void *)&target_value, sizeof target_value};
    long got = process_vm_readv(child, &local, 1, &remote, 1, 0);
    check(got == sizeof seen && seen == 11, "process_vm_readv", "%ld bytes, value %ld", got, seen);
    struct user_fpregs_struct fp;
    int good = ptrace(PTRACE_GETFPREGS, child, 0, &fp) == 0 && fp.cwd == 0x37f && (fp.mxcsr & ~0x3fu) == 0x1f80;
    check(good, "floating-point-state", "x87 %#x MXCSR %#x", fp.cwd, fp.mxcsr);
    ptrace(PTRACE_POKEDATA, child, &target_value, value);
    int status = go(child, PTRACE_CONT);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 1, "poke", "status %#x", status);
}

static void system_calls(void) {
    pid_t child = start();
    struct user_regs_struct registers;
    int stops = 0, seen = 0, status;
    ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD);
    while (status = go(child, PTRACE_SYSCALL), WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80)) {
        ptrace(PTRACE_GETREGS, child, 0, &registers);
        if (registers.orig_rax == SYS_getppid) {
            seen++;
            if (seen == 2) seen += (long)registers.rax == getpid();
        }
        stops++;
        if (stops > 100) break;
    }
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0 && seen == 3, "system-call-stops", "status %#x, %d stops, %d", status,
        stops, seen);
}

static void watchpoint(void) {
    pid_t child = start();
    size_t registers = offsetof(struct user, u_debugreg);
    // DR0 watches eight bytes of target_value for writes.
    if (ptrace(PTRACE_POKEUSER, child, registers, &target_value) != 0 ||
        ptrace(PTRACE_POKEUSER, child, registers + 7 * sizeof(long), 0x1ul | 0x9ul << 16) != 0) {
        check_skip("watchpoint", "this system offers no debug registers");
        kill(child, SIGKILL);
        reap(child);
        return;
    }
    int status = go(child, PTRACE_CONT);
    long seen = ptrace(PTRACE_PEEKDATA, child, &target_value, 0);
    check(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP && seen == 33, "watchpoint", "status %#x value %ld", status, seen);
    ptrace(PTRACE_POKEUSER, child, registers + 7 * sizeof(long), 0);
    if (WIFSTOPPED(status)) status = go(child, PTRACE_CONT);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "watchpoint-end", "status %#x", status);
}

// The kernel writes what is watched, for the program.
static void watched_by_kernel(void) {
    int ends[2];
    require(pipe(ends) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        long got = read(ends[0], (void *)&target_value, sizeof target_value);
        _exit(got == sizeof target_value && target_value == 55 ? 0 : 1);
    }
    int status;
    long value = 55;
    waitpid(child, &status, 0);
    size_t registers = offsetof(struct user, u_debugreg);
    if (ptrace(PTRACE_POKEUSER, child, registers, &target_value) != 0 ||
        ptrace(PTRACE_POKEUSER, child, registers + 7 * sizeof(long), 0x1ul | 0x9ul << 16) != 0) {
        check_skip("watched-by-kernel", "this system offers no debug registers");
        kill(child, SIGKILL);
        reap(child);
        return;
    }
    require(write(ends[1], &value, sizeof value) == sizeof value, "write");
    status = go(child, PTRACE_CONT);
    // On hardware the write traps, or not: kernels differ. In a guest it does not.
    int traps = 0;
    while (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP && traps++ < 10) status = go(child, PTRACE_CONT);
    int guest = access("/sys/hypervisor/type", F_OK) == 0;
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0 && !(guest && traps), "watched-by-kernel", "status %#x, %d traps", status,
        traps);
    close(ends[0]);
    close(ends[1]);
}

static void attach(void) {
    pid_t child = fork();
    if (child == 0)
        for (volatile long n = 0;; n++) {}
    usleep(2000);
    int good = 1;
    unsigned long long places[20];
    for (int i = 0; i < 20; i++) {
        struct user_regs_struct registers;
        int status = 0;
        good &= ptrace(PTRACE_SEIZE, child, 0, 0) == 0 && ptrace(PTRACE_INTERRUPT, child, 0, 0) == 0;
        good &= waitpid(child, &status, 0) == child && WIFSTOPPED(status);
        good &= ptrace(PTRACE_GETREGS, child, 0, &registers) == 0;
        places[i] = registers.rip;
        good &= ptrace(PTRACE_DETACH, child, 0, 0) == 0;
        usleep(500);
    }
    // The child runs a loop in this program's text, and never anything else.
    for (int i = 0; i < 20; i++) good &= places[i] - (unsigned long long)attach < 4096 || places[i] > (unsigned long long)attach - 65536;
    check(good, "attach", "stopping a busy child failed");
    kill(child, SIGKILL);
    reap(child);
}

int main(void) {
    check_start("debugger");
    breakpoint();
    memory_and_state();
    system_calls();
    watchpoint();
    watched_by_kernel();
    attach();
    return check_failed;
}
