// System calls in pages that several processes, or several places of one, execute: how a call is made may change
// once it was made, there and elsewhere.

#include "check.h"

#define PAGE 4096ul
#define CALLS 60
#define APART 16
// Pages so far apart are alike for tables that are found by the lower bits of an address.
#define ALIKE (16 * PAGE)

typedef long (*call)(long, void *, long, long number);

static long own;

static long call_at(const char *place, long number, long a, void *b, long c) {
    return ((call)(uintptr_t)place)(a, b, c, number);
}

static int child_of_test(void) {
    pid_t child = fork();
    require(child >= 0, "fork");
    if (child == 0) {
        own = getpid();
        // Whoever stands still is killed by it.
        alarm(20);
    }
    return child;
}

// mov %ecx, %eax; syscall; cmp $-4096, %rax; ret: the comparison reads what the call returned, as a C library's does.
static void write_calls(char *page, size_t first) {
    static const unsigned char bytes[] = {0x89, 0xc8, 0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0xc3};
    for (size_t at = first; at < first + CALLS * APART; at += APART) memcpy(page + at, bytes, sizeof bytes);
}

// An instruction that programs may not execute where keys keep them from their kernel: XRSTOR, in a function.
static void write_trap(char *page) {
    static const unsigned char bytes[] = {0x90, 0x90, 0x90, 0x90, 0x0f, 0xae, 0x2b, 0xc3};
    memset(page + PAGE - 64, 0x90, 32);
    memcpy(page + PAGE - 32, bytes, sizeof bytes);
}

// How many of the page's calls go wrong.
static int wrong_calls(const char *page, size_t first, int count) {
    int bad = 0;
    for (int i = 0; i < count; i++)
        for (int round = 0; round < 3; round++) bad += call_at(page + first + i * APART, SYS_getpid, 0, NULL, 0) != own;
    return bad;
}

// Room for pages at addresses that are alike.
static char *room(void) {
    char *memory = mmap(NULL, 4 * ALIKE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(memory != MAP_FAILED, "mmap");
    return (char *)(((uintptr_t)memory + 2 * ALIKE - 1) & ~(2 * ALIKE - 1));
}

static int file_of_code(int trap) {
    static char page[PAGE];
    memset(page, 0x90, PAGE);
    write_calls(page, 0);
    if (trap) write_trap(page);
    int file = memfd_create("code", 0);
    require(file >= 0 && write(file, page, PAGE) == (ssize_t)PAGE, "memfd");
    return file;
}

static const char *at_place(char *place, int file) {
    require(mmap(place, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, file, 0) == place, "mmap of code");
    return place;
}

static void private_page(char *place, size_t first, size_t also) {
    require(mmap(place, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == place, "mmap");
    write_calls(place, also);
    write_calls(place, first);
    require(mprotect(place, PAGE, PROT_READ | PROT_EXEC) == 0, "mprotect");
}

// Calls whose returns are alike, in a page of which another call was made before.
static void alike(void) {
    pid_t child = child_of_test();
    if (child == 0) {
        char *pages = room();
        private_page(pages, 0, 2048);
        private_page(pages + ALIKE, 0, 2048);
        int bad = wrong_calls(pages, 0, CALLS);
        bad += wrong_calls(pages + ALIKE, 2048 + 8 * APART, 1);
        // From here on the second page's calls meet those of the first.
        bad += wrong_calls(pages + ALIKE, 0, CALLS);
        bad += wrong_calls(pages, 0, CALLS);
        _exit(bad != 0);
    }
    int status = reap(child);
    check(status == 0, "returns-alike", "ended with %d", status);
}

// The same where another process made the page's calls before.
static void called_by_another(int trap, const char *name) {
    int file = file_of_code(trap);
    pid_t child = child_of_test();
    if (child == 0) {
        char *pages = room();
        _exit(wrong_calls(at_place(pages, file), 0, CALLS) != 0);
    }
    int status = reap(child);
    child = child_of_test();
    if (child == 0) {
        char *pages = room();
        private_page(pages, 0, 2048);
        int bad = wrong_calls(pages, 0, CALLS);
        const char *page = at_place(pages + ALIKE, file);
        bad += wrong_calls(page, 0, CALLS);
        // And where it was in use before.
        bad += wrong_calls(at_place(pages + PAGE, file), 0, CALLS);
        bad += wrong_calls(page, 0, CALLS);
        _exit(bad != 0);
    }
    status += reap(child);
    check(status == 0, name, "ended with %d", status);
    close(file);
}

// One page at two places of a program, and calls in either that nobody made before.
static void at_two_places(int trap, const char *name) {
    int file = file_of_code(trap);
    pid_t child = child_of_test();
    if (child == 0) {
        char *pages = room();
        const char *here = at_place(pages, file), *there = at_place(pages + PAGE, file);
        int bad = 0;
        for (int count = 1; count < CALLS; count += 7) bad += wrong_calls(count % 2 ? here : there, 0, count) + wrong_calls(there, 0, count);
        bad += wrong_calls(here, 0, CALLS) + wrong_calls(there, 0, CALLS);
        _exit(bad != 0);
    }
    int status = reap(child);
    check(status == 0, name, "ended with %d", status);
    close(file);
}

// Calls under way while others make them for the first time.
static void under_way(void) {
    int file = file_of_code(0), ends[2];
    require(pipe(ends) == 0, "pipe");
    pid_t children[8];
    for (int n = 0; n < 8; n++) {
        children[n] = child_of_test();
        if (children[n]) continue;
        const char *page = at_place(room() + n * PAGE, file);
        int bad = wrong_calls(page, 0, 1);
        for (int i = 1; i < CALLS; i++) {
            char byte;
            // Sleeps in the kernel until it is its turn.
            bad += call_at(page + i * APART, SYS_read, ends[0], &byte, 1) != 1;
            bad += call_at(page + i * APART, SYS_write, ends[1], &byte, 1) != 1;
            if (n % 2) sched_yield();
        }
        _exit(bad != 0);
    }
    require(write(ends[1], "ab", 2) == 2, "write");
    int status = 0;
    for (int n = 0; n < 8; n++) status += reap(children[n]);
    check(status == 0, "under-way", "ended with %d", status);
    close(ends[0]);
    close(ends[1]);
    close(file);
}

// The same in a program whose other calls' returns are alike: the call returns to where it was made, whoever else
// made it meanwhile.
static void under_way_alike(void) {
    int file = file_of_code(0), ends[2], ready[2];
    require(pipe(ends) == 0 && pipe(ready) == 0, "pipe");
    pid_t sleeper = child_of_test();
    if (sleeper == 0) {
        char *pages = room(), byte = 0;
        private_page(pages, 0, 2048);
        int bad = wrong_calls(pages, 0, CALLS - 1);
        const char *page = at_place(pages + ALIKE, file);
        // What meets nothing comes first, so that the page is one of those that changed: calls meet in pairs.
        bad += wrong_calls(page, (CALLS - 2) * APART, 1);
        for (int i = 0; i < 20; i++) {
            bad += call_at(page + i * APART, SYS_write, ready[1], &byte, 1) != 1;
            bad += call_at(page + (20 + i) * APART, SYS_read, ends[0], &byte, 1) != 1;
        }
        _exit(bad != 0);
    }
    pid_t waker = child_of_test();
    if (waker == 0) {
        char byte;
        const char *page = at_place(room() + PAGE, file);
        int bad = 0;
        for (int i = 0; i < 20; i++) {
            bad += read(ready[0], &byte, 1) != 1;
            usleep(2000);
            bad += wrong_calls(page, (20 + i) * APART, 1);
            bad += write(ends[1], &byte, 1) != 1;
        }
        _exit(bad != 0);
    }
    int status = reap(sleeper) + reap(waker);
    check(status == 0, "under-way-alike", "ended with %d", status);
    close(ends[0]);
    close(ends[1]);
    close(ready[0]);
    close(ready[1]);
    close(file);
}

int main(void) {
    check_start("sites");
    alike();
    called_by_another(0, "called-by-another");
    called_by_another(1, "called-by-another-beside-trap");
    at_two_places(0, "two-places");
    at_two_places(1, "two-places-beside-trap");
    under_way();
    under_way_alike();
    return check_failed;
}
