// Code that one thread or process writes while another runs it, by every way
// there is to write memory. After a barrier only the new code runs; without one
// the old or the new, never anything else (SDM vol. 3A 9.1.3).
// usage: hostile_code [ROUNDS]

#include "check.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define PAGE 4096ul
typedef long (*function)(void);

static char *code, *alias;
static int file = -1, memory_file = -1, ends[2];
static int rounds = 1;

static inline void serialise(void) {
    asm volatile("cpuid" : : "a"(0), "c"(0) : "rbx", "rdx", "memory");
}

// The ways to write: `at` is where the code runs.
static void direct(char *at, const char *bytes, size_t length) { memcpy(at, bytes, length); }
static void other_view(char *at, const char *bytes, size_t length) { memcpy(alias + (at - code), bytes, length); }
static void to_file(char *at, const char *bytes, size_t length) {
    if (pwrite(file, bytes, length, at - code) != (ssize_t)length) abort();
}
static void through_proc(char *at, const char *bytes, size_t length) {
    if (pwrite(memory_file, bytes, length, (off_t)(uintptr_t)at) != (ssize_t)length) abort();
}
static void by_process_vm(char *at, const char *bytes, size_t length) {
    struct iovec from = {(void *)(uintptr_t)bytes, length}, to = {at, length};
    if (process_vm_writev(getpid(), &from, 1, &to, 1, 0) != (ssize_t)length) abort();
}
static void by_read(char *at, const char *bytes, size_t length) {
    if (write(ends[1], bytes, length) != (ssize_t)length || read(ends[0], at, length) != (ssize_t)length) abort();
}
static void toggled(char *at, const char *bytes, size_t length) {
    mprotect(code, 2 * PAGE, PROT_READ | PROT_WRITE);
    memcpy(at, bytes, length);
    mprotect(code, 2 * PAGE, PROT_READ | PROT_EXEC);
}
static void moved_over(char *at, const char *bytes, size_t length) {
    char *fresh = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(fresh, code, 2 * PAGE);
    memcpy(fresh + (at - code), bytes, length);
    mprotect(fresh, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    if (mremap(fresh, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, code) != code) abort();
}
static void by_child(char *at, const char *bytes, size_t length) {
    pid_t child = fork();
    if (child == 0) {
        memcpy(alias + (at - code), bytes, length);
        _exit(0);
    }
    if (reap(child)) abort();
}

enum { PRIVATE, SHARED, READ_ONLY };
static const struct way {
    const char *name;
    void (*write)(char *, const char *, size_t);
    int kind, count;
} ways[] = {{"direct", direct, PRIVATE, 100}, {"shared-mapping", direct, SHARED, 200}, {"two-views", other_view, SHARED, 200},
    {"file-write", to_file, SHARED, 200}, {"proc-self-mem", through_proc, READ_ONLY, 150}, {"process-vm-writev", by_process_vm, PRIVATE, 150},
    {"read-into-code", by_read, PRIVATE, 150}, {"mprotect", toggled, PRIVATE, 150}, {"moved-over", moved_over, PRIVATE, 100},
    {"child-process", by_child, SHARED, 25}};
#define WAYS (sizeof ways / sizeof *ways)

static void map_code(int kind) {
    if (kind == SHARED) {
        code = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, file, 0);
        alias = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    } else {
        code = mmap(NULL, 2 * PAGE, PROT_READ | PROT_EXEC | (kind == PRIVATE ? PROT_WRITE : 0), MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        alias = NULL;
    }
    require(code != MAP_FAILED && alias != MAP_FAILED, "mmap");
}
static void unmap_code(void) {
    munmap(code, 2 * PAGE);
    if (alias) munmap(alias, 2 * PAGE);
}

// mov $value, %eax; ret                     or: mov $39 or $110, %eax; syscall; ret
static size_t make(char *bytes, int i, int calls) {
    int value = calls ? (i & 1 ? SYS_getpid : SYS_getppid) : i * 3 + 1;
    bytes[0] = (char)0xb8;
    memcpy(bytes + 1, &value, 4);
    memcpy(bytes + 5, calls ? "\x0f\x05\xc3" : "\xc3\xc3\xc3", 3);
    return 8;
}
static long expected(int i, int calls) {
    return calls ? (i & 1 ? getpid() : getppid()) : i * 3 + 1;
}

// One thread asks for new code and runs it, the other writes it.
static volatile int asked, written, finished;
static const struct way *way;
static volatile int with_calls;
static char *place(int i) {
    // Also across the pages' border.
    return i % 5 == 4 ? code + PAGE - 1 - (unsigned)i % 7 : code + (unsigned)i % 3 * 64;
}

static void *writer(void *unused) {
    (void)unused;
    char bytes[8];
    while (!finished) {
        int i = asked;
        if (i == written) {
            sched_yield();
            continue;
        }
        way->write(place(i), bytes, make(bytes, i, with_calls));
        __atomic_store_n(&written, i, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

static int in_turns(int calls) {
    pthread_t thread;
    int bad = 0;
    asked = written = finished = 0;
    with_calls = calls;
    pthread_create(&thread, NULL, writer, NULL);
    for (int i = 1; i <= way->count * rounds; i++) {
        __atomic_store_n(&asked, i, __ATOMIC_SEQ_CST);
        while (written != i) sched_yield();
        serialise();
        // Often enough for a monitor that patches what runs often.
        for (int again = 0; again < 4; again++) bad += ((function)(uintptr_t)place(i))() != expected(i, calls);
        // (Without protection keys the patched site shows: docs/exactness.md.)
        if (!calls) bad += (unsigned char)place(i)[0] != 0xb8;
    }
    finished = 1;
    pthread_join(thread, NULL);
    return bad;
}

// A number in an instruction that only grows, written by whole words while another thread runs it.
static volatile uint32_t counter;
static volatile uint32_t *word_to_write;
static void *counting(void *unused) {
    (void)unused;
    while (!finished) {
        for (int i = 0; i < 50; i++) {
            __atomic_store_n(word_to_write, counter + 1, __ATOMIC_SEQ_CST);
            counter++;
        }
        sched_yield();
    }
    return NULL;
}

static void *running(void *at) {
    long last = 0;
    while (!finished) {
        long now = ((function)(uintptr_t)at)();
        if (now < last) abort();
        last = now;
    }
    return NULL;
}

static void racing(const char *name, int kind, int threads) {
    pthread_t thread[8];
    char bytes[8];
    int bad = 0;
    map_code(kind);
    make(bytes, 0, 0);
    memset(bytes + 1, 0, 4);
    // The number lies in one aligned word.
    char *at = code + 63;
    memcpy((kind == SHARED ? alias : code) + 63, bytes, 8);
    word_to_write = (volatile uint32_t *)((kind == SHARED ? alias : code) + 64);
    counter = 0;
    finished = 0;
    pthread_create(&thread[0], NULL, counting, NULL);
    for (int i = 1; i < threads; i++) {
        // Others run it too.
        pthread_create(&thread[i], NULL, running, at);
    }
    // So long, and until enough was written: little time is given on a loaded machine.
    uint64_t begin = now_ns(), end = begin + 150000000ul * (uint64_t)rounds;
    int runs = 0;
    while (now_ns() < end || (counter <= 100 && now_ns() < begin + 60000000000ul)) {
        for (int i = 0; i < 100; i++, runs++) {
            uint32_t before = counter;
            serialise();
            uint32_t got = (uint32_t)((function)(uintptr_t)at)();
            // The word is written before it is counted.
            bad += got < before || got > counter + 1;
        }
        sched_yield();
    }
    finished = 1;
    for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
    check(bad == 0 && counter > 100, name, "%d of %d runs wrong, %u writes", bad, runs, counter);
    unmap_code();
}

// A debugger writes into a program that runs the code.
static void poked(void) {
    volatile long *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    map_code(PRIVATE);
    char bytes[8];
    memcpy(code, bytes, make(bytes, 0, 0));
    mprotect(code, 2 * PAGE, PROT_READ | PROT_EXEC);
    pid_t child = fork();
    if (child == 0) {
        for (;;) {
            shared[1] = ((function)(uintptr_t)code)();
            shared[0]++;
        }
    }
    int bad = 0, status;
    if (ptrace(PTRACE_SEIZE, child, 0, 0) != 0) {
        kill(child, SIGKILL);
        reap(child);
        return check_skip("ptrace-poke", "no ptrace here");
    }
    for (int i = 1; i <= 60 * rounds; i++) {
        ptrace(PTRACE_INTERRUPT, child, 0, 0);
        waitpid(child, &status, 0);
        long word;
        make((char *)&word, i, 0);
        bad += ptrace(PTRACE_POKETEXT, child, code, word) != 0;
        bad += ptrace(PTRACE_PEEKTEXT, child, code, 0) != word;
        long calls = shared[0];
        ptrace(PTRACE_CONT, child, 0, 0);
        while (shared[0] < calls + 2) sched_yield();
        bad += shared[1] != i * 3 + 1;
    }
    kill(child, SIGKILL);
    reap(child);
    check(bad == 0, "ptrace-poke", "%d wrong", bad);
    unmap_code();
}

int main(int count, char **arguments) {
    char name[64];
    check_start("hostile_code");
    if (count > 1) rounds = atoi(arguments[1]);
    file = memfd_create("code", 0);
    memory_file = open("/proc/self/mem", O_RDWR);
    require(file >= 0 && ftruncate(file, 2 * PAGE) == 0 && memory_file >= 0 && pipe(ends) == 0, "files");
    for (size_t i = 0; i < WAYS; i++) {
        way = &ways[i];
        for (int calls = 0; calls < 2; calls++) {
            map_code(way->kind);
            uint64_t start = now_ns();
            int bad = in_turns(calls);
            printf("# %s: %lu ms\n", way->name, (now_ns() - start) / 1000000);
            unmap_code();
            snprintf(name, sizeof name, "%s%s", way->name, calls ? "-system-calls" : "");
            check(bad == 0, name, "%d of %d wrong", bad, way->count * rounds * 4);
        }
    }
    racing("race", PRIVATE, 1);
    racing("race-two-views", SHARED, 1);
    racing("race-four-threads", SHARED, 4);
    poked();
    return check_failed;
}
