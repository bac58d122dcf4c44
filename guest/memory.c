// Memory mappings: protection changes, moving, replacing, sharing, copy on
// write, discarding, stack growth, and storms of page faults.

#include "check.h"
#include <sys/resource.h>

#define PAGE 4096ul

static char *map(size_t pages, int flags) {
    char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
    require(memory != MAP_FAILED, "mmap");
    return memory;
}

static sigjmp_buf back;
static void on_fault(int number) {
    (void)number;
    siglongjmp(back, 1);
}

static int faults_on_write(volatile char *at) {
    if (sigsetjmp(back, 1)) return 1;
    *at = *at + 1;
    return 0;
}

static int faults_on_read(volatile char *at) {
    if (sigsetjmp(back, 1)) return 1;
    (void)*at;
    return 0;
}

static void protection(void) {
    char *memory = map(64, MAP_PRIVATE);
    int bad = 0;
    for (int round = 0; round < 20; round++)
        for (int page = 0; page < 64; page++) {
            char *at = memory + page * PAGE;
            *at = (char)round;
            mprotect(at, PAGE, PROT_READ);
            bad += !faults_on_write(at) || *at != (char)round;
            mprotect(at, PAGE, PROT_NONE);
            bad += !faults_on_read(at);
            mprotect(at, PAGE, PROT_READ | PROT_WRITE);
            bad += *at != (char)round;
        }
    check(bad == 0, "mprotect-toggle", "%d wrong", bad);
    munmap(memory, 64 * PAGE);
    check(faults_on_read(memory) && faults_on_read(memory + 63 * PAGE), "munmap", "memory is still there");
}

static void moving(void) {
    char *memory = map(16, MAP_PRIVATE);
    fill_random(memory, 16 * PAGE, 1);
    char *other = map(64, MAP_PRIVATE);
    char *moved = mremap(memory, 16 * PAGE, 32 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, other);
    check(moved == other && holds_random(moved, 16 * PAGE, 1) && moved[31 * PAGE] == 0 && faults_on_read(memory),
        "mremap", "contents or place are wrong");
    moved = mremap(moved, 32 * PAGE, 2000 * PAGE, MREMAP_MAYMOVE);
    check(moved != MAP_FAILED && holds_random(moved, 16 * PAGE, 1), "mremap-grow", "contents changed");
    // Moving page after page must never show an old page at the new place.
    int bad = 0;
    char *a = map(1, MAP_PRIVATE), *b = map(1, MAP_PRIVATE);
    for (int i = 0; i < 500; i++) {
        *a = (char)i;
        char *c = mremap(a, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, b);
        bad += c != b || *b != (char)i;
        b = a;
        a = c;
        if (i % 3 == 0) bad += !faults_on_read(b);
    }
    check(bad == 0, "mremap-ping-pong", "%d wrong", bad);
}

static void replacing(void) {
    char *memory = map(8, MAP_PRIVATE);
    int file = memfd_create("pages", 0), bad = 0;
    require(file >= 0 && ftruncate(file, 8 * PAGE) == 0, "memfd");
    char *window = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    for (int i = 0; i < 8; i++) window[i * PAGE] = (char)('a' + i);
    for (int round = 0; round < 200; round++) {
        int page = round % 8, source = (round * 5 + 3) % 8;
        char *at = mmap(memory + page * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED, file, source * PAGE);
        bad += at != memory + page * PAGE || *at != (char)('a' + source);
        at = mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        bad += *at != 0;
        *at = 9;
    }
    check(bad == 0, "map-fixed-over", "%d wrong", bad);
    // Two mappings of one page are one page.
    char *twin = mmap(NULL, 8 * PAGE, PROT_READ, MAP_SHARED, file, 0);
    for (int i = 0; i < 1000; i++) {
        window[(i % 8) * PAGE + i] = (char)i;
        bad += ((volatile char *)twin)[(i % 8) * PAGE + i] != (char)i;
    }
    check(bad == 0, "two-views", "%d wrong", bad);
    // A private view keeps its own copy after the first write, and not before.
    char *copy = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    window[100] = 1;
    int first = copy[100];
    copy[200] = 5;
    window[100] = 2;
    check(first == 1 && copy[100] == 1 && window[200] != 5, "private-view", "%d %d %d", first, copy[100], window[200]);
    close(file);
}

static void copy_on_write(void) {
    size_t pages = 1024;
    char *memory = map(pages, MAP_PRIVATE);
    int bad = 0;
    fill_random(memory, pages * PAGE, 3);
    for (int round = 0; round < 4; round++) {
        pid_t child = fork();
        if (child == 0) {
            int wrong = !holds_random(memory, pages * PAGE, 3);
            for (size_t i = (size_t)round; i < pages; i += 3) memory[i * PAGE + 7] ^= 0x55;
            for (size_t i = (size_t)round; i < pages; i += 3) memory[i * PAGE + 7] ^= 0x55;
            wrong |= !holds_random(memory, pages * PAGE, 3);
            memset(memory, 0xee, pages * PAGE);
            _exit(wrong);
        }
        // The parent writes at the same time and puts back what was there.
        for (size_t i = 0; i < pages; i += 2) memory[i * PAGE]++;
        for (size_t i = 0; i < pages; i += 2) memory[i * PAGE]--;
        int result = reap(child);
        bad += result != 0 || !holds_random(memory, pages * PAGE, 3);
    }
    check(bad == 0, "copy-on-write", "%d of 4 wrong", bad);
    pid_t child = fork();
    if (child == 0) _exit(!holds_random(memory, pages * PAGE, 3));
    check(reap(child) == 0, "copy-on-write-child", "the child's copy differs");
    munmap(memory, pages * PAGE);
}

static void sharing(void) {
    char *memory = map(16, MAP_SHARED);
    volatile uint32_t *flag = (volatile uint32_t *)memory;
    pid_t child = fork();
    if (child == 0) {
        for (uint32_t i = 1; i <= 500; i++) {
            while (*flag != 2 * i - 1) sched_yield();
            if (!holds_random(memory + PAGE, 3 * PAGE, i)) _exit(1);
            fill_random(memory + 8 * PAGE, 300, i + 1000);
            *flag = 2 * i;
        }
        _exit(0);
    }
    int bad = 0;
    for (uint32_t i = 1; i <= 500; i++) {
        fill_random(memory + PAGE, 3 * PAGE, i);
        *flag = 2 * i - 1;
        while (*flag != 2 * i && waitpid(child, NULL, WNOHANG) == 0) sched_yield();
        bad += !holds_random(memory + 8 * PAGE, 300, i + 1000);
        if (bad) break;
    }
    if (bad) kill(child, SIGKILL);
    int result = reap(child);
    check(bad == 0 && result == 0, "shared-between-processes", "%d wrong, child %d", bad, result);
    munmap(memory, 16 * PAGE);
}

static void advice(void) {
    char *memory = map(64, MAP_PRIVATE);
    int bad = 0;
    for (int round = 0; round < 30; round++) {
        memset(memory, 1 + round, 64 * PAGE);
        madvise(memory + 8 * PAGE, 16 * PAGE, MADV_DONTNEED);
        for (int i = 0; i < 64; i++) bad += memory[i * PAGE] != (i >= 8 && i < 24 ? 0 : 1 + round);
    }
    check(bad == 0, "madvise-dontneed", "%d pages wrong", bad);
    madvise(memory, 64 * PAGE, MADV_WILLNEED);
    char *shared = map(16, MAP_SHARED);
    memset(shared, 7, 16 * PAGE);
    int result = madvise(shared, 8 * PAGE, MADV_REMOVE);
    if (result == 0)
        check(shared[0] == 0 && shared[8 * PAGE] == 7, "madvise-remove", "%d %d", shared[0], shared[8 * PAGE]);
    // Large pages where the kernel has them: contents must be right either way.
    size_t large = 2ul << 20;
    char *area = map(3 * large / PAGE, MAP_PRIVATE);
    madvise(area, 3 * large, MADV_HUGEPAGE);
    fill_random(area, 3 * large, 11);
    munmap(area + large + 5 * PAGE, PAGE);
    check(faults_on_read(area + large + 5 * PAGE) && holds_random(area, large, 11), "large-pages", "contents changed");
}

static int grow(int depth) {
    volatile char frame[3000];
    frame[0] = (char)depth;
    frame[2999] = (char)~depth;
    int below = depth == 0 ? 0 : grow(depth - 1);
    return below + (frame[0] != (char)depth) + (frame[2999] != (char)~depth);
}

static void stack(void) {
    check(grow(2000) == 0, "stack-growth", "a frame changed");
    pid_t child = fork();
    if (child == 0) _exit(grow(2200) != 0);
    check(reap(child) == 0, "stack-growth-child", "a frame changed");
}

static void storms(void) {
    int bad = 0;
    for (int round = 0; round < 12; round++) {
        char *memory = map(2048, MAP_PRIVATE);
        uint64_t state = (uint64_t)round;
        for (int i = 0; i < 4096; i++) memory[next_random(&state) % 2048 * PAGE + (unsigned)i % PAGE] = (char)i;
        state = (uint64_t)round;
        int last[2048];
        memset(last, -1, sizeof last);
        for (int i = 0; i < 4096; i++) last[next_random(&state) % 2048] = i;
        for (int i = 0; i < 2048; i++)
            bad += last[i] >= 0 ? memory[i * PAGE + (unsigned)last[i] % PAGE] != (char)last[i] : memory[i * PAGE] != 0;
        munmap(memory, 2048 * PAGE);
    }
    check(bad == 0, "fault-storm", "%d pages wrong", bad);
    // Processes that fault at the same time.
    pid_t children[6];
    for (int c = 0; c < 6; c++)
        if ((children[c] = fork()) == 0) {
            int wrong = 0;
            for (int round = 0; round < 5; round++) {
                char *memory = map(512, MAP_PRIVATE);
                fill_random(memory, 512 * PAGE, (uint64_t)(c * 100 + round));
                sched_yield();
                wrong += !holds_random(memory, 512 * PAGE, (uint64_t)(c * 100 + round));
                munmap(memory, 512 * PAGE);
            }
            _exit(wrong);
        }
    for (int c = 0; c < 6; c++) bad += reap(children[c]) != 0;
    check(bad == 0, "fault-storm-processes", "%d processes wrong", bad);
    // Many small mappings, more than a page table's worth of areas.
    char *area = map(4000, MAP_PRIVATE);
    for (int i = 0; i < 4000; i += 2) mprotect(area + i * PAGE, PAGE, PROT_READ);
    for (int i = 0; i < 4000; i++) bad += i % 2 ? faults_on_write(area + i * PAGE) : area[i * PAGE] != 0;
    check(bad == 0, "many-areas", "%d pages wrong", bad);
    munmap(area, 4000 * PAGE);
}

// One page in each of many far-apart places, low and high.
static void far_apart(void) {
    uint64_t state = 17;
    uintptr_t places[200];
    int used = 0, bad = 0;
    for (int i = 0; i < 200; i++) {
        uintptr_t at = ((uintptr_t)next_random(&state) << 16 ^ (uintptr_t)next_random(&state) << 4) & 0x7ffffffff000;
        if (i < 8) at = 0x10000ul << i;
        void *page = mmap((void *)at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (page != (void *)at) continue;
        places[used++] = at;
        fill_random(page, PAGE, at);
    }
    pid_t child = fork();
    for (int i = 0; i < used; i++) bad += !holds_random((void *)places[i], PAGE, places[i]);
    if (child == 0) _exit(bad != 0);
    int result = reap(child);
    check(bad == 0 && result == 0 && used > 150, "far-apart", "%d of %d pages wrong, child %d", bad, used, result);
    for (int i = 0; i < used; i++) munmap((void *)places[i], PAGE);
}

int main(void) {
    check_start("memory");
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
    protection();
    moving();
    replacing();
    copy_on_write();
    sharing();
    advice();
    stack();
    storms();
    far_apart();
    return check_failed;
}
