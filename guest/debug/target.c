// What the debuggers' tests (guest/debug/*.gdb) work on; built with symbols
// and without optimisation. usage: target walk|accesses|signals|threads|spin|crash|calls

#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// A system-call wrapper of the form that C libraries have: made often enough,
// its bytes are replaced where it runs.
long hot(void);
asm(".globl hot\n.type hot, @function\n"
    "hot: mov $110, %eax\n"
    "hot_call: syscall\n"
    "hot_end: ret\n"
    ".size hot, . - hot");

volatile long watched = 1, beside = 7, sink;
volatile int signals, rounds;
long parent;
char text[32] = "unchanged";

__attribute__((noinline)) void warmed(void) { sink++; }

// Makes sites hot: this one and the C library's.
static void warm(void) {
    for (int i = 0; i < 2000; i++) {
        parent = hot();
        sink += getppid();
    }
    warmed();
}

__attribute__((noinline)) int factorial(int n) {
    if (n <= 1) return 1;
    return n * factorial(n - 1);
}

__attribute__((noinline)) double scale(double a, int b) { return a * b; }

__attribute__((noinline)) long loop(int n) {
    long sum = 0;
    for (int i = 0; i < n; i++) {
        sum += i; // in the loop
        sink ^= sum;
    }
    return sum;
}

__attribute__((noinline)) void change(long value) {
    beside = value;
    watched = value;
    sink = watched;
}

static int walk(void) {
    warm();
    long sum = loop(1000);
    sum += factorial(5);
    change(42);
    change(43);
    sum += hot() == parent;
    printf("sum %ld text %s watched %ld\n", sum, text, watched);
    return (int)(sum & 0x7f);
}

// Writes of every kind, for watchpoints.
volatile char bytes[64];
volatile long words[8], flags, exchanged;
static int accesses(void) {
    static const char from[65] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    warm();
    const char *source = from;
    volatile char *to = bytes;
    long count = 16;
    asm volatile("rep movsb" : "+S"(source), "+D"(to), "+c"(count)::"memory");
    asm volatile("movdqu (%0), %%xmm0\n movdqu %%xmm0, (%1)" ::"r"(from), "r"(&bytes[24]) : "xmm0", "memory");
    exchanged = 5;
    asm volatile("lock xadd %1, %0" : "+m"(words[2]), "+r"(exchanged)::"memory");
    asm volatile("mov %%rsp, %%rax\n lea 32(%0), %%rsp\n push $77\n mov %%rax, %%rsp" ::"r"(&words[0]) : "rax", "memory");
    // The trap flag is no business of the program's.
    asm volatile("pushfq\n pop %0\n push %0\n popfq" : "=r"(flags)::"cc", "memory");
    long good = 0;
    for (int i = 0; i < 300; i++) good += hot() == parent;
    lseek(0, 0, SEEK_CUR);
    printf("good %ld trap flag %ld\n", good, flags >> 8 & 1);
    return (int)(flags >> 8 & 1);
}

static void on_signal(int number) {
    signals++;
    sink = number;
}

static int with_signals(void) {
    warm();
    signal(SIGUSR1, on_signal);
    signal(SIGALRM, on_signal);
    raise(SIGUSR1);
    alarm(1);
    pause();
    printf("signals %d\n", signals);
    return signals;
}

static pthread_barrier_t barrier;
static void *work(void *argument) {
    long id = (long)argument;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 50; i++) {
        __atomic_fetch_add(&rounds, 1, __ATOMIC_SEQ_CST);
        sink += hot();
        if (i == 25) loop((int)id);
    }
    pthread_barrier_wait(&barrier);
    return argument;
}

__attribute__((noinline)) void all_there(void) { sink++; }

static int with_threads(void) {
    pthread_t threads[3];
    pthread_barrier_init(&barrier, NULL, 4);
    for (long i = 0; i < 3; i++) pthread_create(&threads[i], NULL, work, (void *)(i + 10));
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    all_there();
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    printf("rounds %d\n", rounds);
    return rounds == 150 ? 0 : 1;
}

// For attaching: computes and calls the kernel by turns until told to stop.
volatile int stop;
static int spin(void) {
    warm();
    FILE *f = fopen("/tmp/spin.pid", "w");
    fprintf(f, "%d\n", getpid());
    fclose(f);
    for (long i = 0; !stop; i++) {
        rounds++;
        if (i % 1000 == 0) hot();
    }
    return 17;
}

// Dies at `crash_here` with registers that a core file must show.
__attribute__((noinline)) static void crash(void) {
    asm volatile(
        "movabs $0x1122334455667788, %%rax\n mov %%rax, %%r12\n mov $0x5a5a, %%ebx\n"
        "movq %%rax, %%xmm3\n xor %%ecx, %%ecx\n"
        ".globl crash_here\ncrash_here: mov %%rax, (%%rcx)\n" ::
            : "rax", "rbx", "rcx", "r12", "xmm3", "memory");
}

// Known system calls, for strace and `catch syscall`.
static int calls(void) {
    int fd = open("/tmp/calls", O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (write(fd, "twelve bytes", 12) != 12) return 1;
    char buffer[16] = "";
    if (pread(fd, buffer, 6, 0) != 6 || strcmp(buffer, "twelve")) return 2;
    if (close(999) == 0) return 3;
    struct timespec t = {0, 1000000};
    nanosleep(&t, NULL);
    pid_t child = fork();
    if (child == 0) _exit(5);
    int status = 0;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (!strcmp(mode, "walk")) return walk();
    if (!strcmp(mode, "accesses")) return accesses();
    if (!strcmp(mode, "signals")) return with_signals();
    if (!strcmp(mode, "threads")) return with_threads();
    if (!strcmp(mode, "spin")) return spin();
    if (!strcmp(mode, "calls")) return calls();
    if (!strcmp(mode, "crash")) {
        warm();
        crash();
    }
    return 99;
}
