// A program that has a disk write to a page while it executes it (direct I/O): the kernel hands the page's
// frame to the disk's back end, which no page table shows. What opens protection keys must not run from there.
//
// usage: direct DEVICE [ROUNDS]     (its first two pages are overwritten)

#include "check.h"
#include <fcntl.h>
#include <pthread.h>

#define PAGE 4096l

// mov eax, 0; ret
static const uint8_t harmless[] = {0xb8, 0, 0, 0, 0, 0xc3};
// xor ecx, ecx; rdpkru; mov esi, eax; xor eax, eax; wrpkru; mov eax, esi; wrpkru; mov eax, 1; ret
static const uint8_t opening[] = {0x31, 0xc9, 0x0f, 0x01, 0xee, 0x89, 0xc6, 0x31, 0xc0, 0x0f, 0x01, 0xef,
    0x89, 0xf0, 0x0f, 0x01, 0xef, 0xb8, 1, 0, 0, 0, 0xc3};

static uint8_t *page;
static volatile int over;
static volatile long opened, refused, calls;
static sigjmp_buf back;

static void on_refusal(int number) {
    siglongjmp(back, number);
}

// 1 if what opens keys ran.
static int call(void) {
    if (sigsetjmp(back, 1)) {
        refused++;
        return 0;
    }
    return ((int (*)(void))page)();
}

static void *caller(void *unused) {
    while (!over) {
        opened += call();
        calls++;
    }
    return unused;
}

int main(int argc, char **argv) {
    check_start("direct");
    long rounds = argc > 2 ? atol(argv[2]) : 2000;
    struct sigaction act = {.sa_handler = on_refusal};
    sigaction(SIGILL, &act, NULL);
    sigaction(SIGSEGV, &act, NULL);

    int file = argc > 1 ? open(argv[1], O_RDWR | O_DIRECT) : -1;
    page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!check(file >= 0 && page != MAP_FAILED, "start", "the device: %s", strerror(errno))) return 1;
    for (int i = 0; i < 2; i++) {
        memset(page, 0xc3, PAGE);
        memcpy(page, i ? opening : harmless, i ? sizeof opening : sizeof harmless);
        if (!check(pwrite(file, page, PAGE, i * PAGE) == PAGE, "write", "%s", strerror(errno))) return 1;
    }
    // As the CPU wrote it.
    if (call() || !refused) {
        check_skip("keys", "this CPU or host lets programs write PKRU");
        return 0;
    }
    refused = 0;

    pthread_t thread;
    pthread_create(&thread, NULL, caller, NULL);
    long bad = 0;
    for (long i = 0; i < rounds; i++) bad += pread(file, page, PAGE, (i & 1) * PAGE) != PAGE;
    // The last one stays, and is met.
    for (long before = refused, i = 0; refused == before && !opened && i < 1000; i++) usleep(1000);
    over = 1;
    pthread_join(thread, NULL);
    check(bad == 0, "reads", "%ld of %ld failed", bad, rounds);
    check(opened == 0, "keys", "opened %ld times in %ld calls", opened, calls);
    // What the disk wrote is what runs.
    check(refused > 0, "new-code", "never ran in %ld calls", calls);
    printf("direct: %ld calls, %ld refused\n", calls, refused);
    return check_failed;
}
