// A mixed load: processes hash known data, pass it through pipes and sockets,
// sort, allocate and fork at once, under timer signals; every result is known.

#include "check.h"
#include "sha256.h"
#include <sys/time.h>

#define LENGTH (1u << 20)
// SHA-256 of the first MiB of fill_random with seed 1.
#define EXPECTED "283c081934a0688417faef11c50c2c7f6e948df20123407b7faba71cf610f7bf"

static volatile int ticks;
static void on_tick(int number) {
    (void)number;
    ticks++;
}

static int hash_memory(void) {
    char hex[65], *data = malloc(LENGTH);
    fill_random(data, LENGTH, 1);
    sha256_hex(data, LENGTH, hex);
    free(data);
    return strcmp(hex, EXPECTED) != 0;
}

static int hash_through_pipe(void) {
    int ends[2];
    char hex[65], *data = malloc(LENGTH);
    size_t got = 0;
    if (pipe(ends) != 0) return 1;
    pid_t child = fork();
    if (child == 0) {
        fill_random(data, LENGTH, 1);
        size_t sent = 0, piece = 1;
        while (sent < LENGTH) {
            size_t length = piece < LENGTH - sent ? piece : LENGTH - sent;
            ssize_t wrote = write(ends[1], data + sent, length);
            if (wrote <= 0) _exit(1);
            sent += (size_t)wrote;
            piece = piece * 3 % 70001 + 1;
        }
        _exit(0);
    }
    close(ends[1]);
    while (got < LENGTH) {
        ssize_t length = read(ends[0], data + got, LENGTH - got);
        if (length <= 0) break;
        got += (size_t)length;
    }
    close(ends[0]);
    sha256_hex(data, LENGTH, hex);
    free(data);
    return reap(child) || got != LENGTH || strcmp(hex, EXPECTED) != 0;
}

static int hash_through_file(void) {
    char hex[65], *data = malloc(LENGTH);
    int file = memfd_create("load", 0);
    fill_random(data, LENGTH, 1);
    if (file < 0 || write(file, data, LENGTH) != LENGTH) return 1;
    memset(data, 0, LENGTH);
    int good = pread(file, data, LENGTH, 0) == LENGTH;
    sha256_hex(data, LENGTH, hex);
    char *window = mmap(NULL, LENGTH, PROT_READ, MAP_SHARED, file, 0);
    good &= strcmp(hex, EXPECTED) == 0 && memcmp(window, data, LENGTH) == 0;
    munmap(window, LENGTH);
    close(file);
    free(data);
    return !good;
}

static int compare(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return a < b ? -1 : a > b;
}

static int sort(void) {
    enum { COUNT = 50000 };
    uint32_t *numbers = malloc(COUNT * sizeof *numbers);
    uint64_t state = 9, sum = 0, after = 0;
    for (int i = 0; i < COUNT; i++) sum += numbers[i] = next_random(&state);
    qsort(numbers, COUNT, sizeof *numbers, compare);
    int bad = 0;
    for (int i = 0; i < COUNT; i++) {
        after += numbers[i];
        bad |= i > 0 && numbers[i - 1] > numbers[i];
    }
    free(numbers);
    return bad || sum != after;
}

static double series(int terms) {
    double sum = 0;
    for (int i = 0; i < terms; i++) sum += (i % 2 ? -4.0 : 4.0) / (2 * i + 1);
    return sum;
}

static int floating(void) {
    double first = series(200000);
    for (int i = 0; i < 5; i++)
        if (series(200000) != first) return 1;
    return first < 3.14158 || first > 3.14160;
}

static int children(void) {
    for (int i = 0; i < 30; i++) {
        pid_t child = fork();
        if (child == 0) {
            char *memory = malloc(300000);
            fill_random(memory, 300000, (uint64_t)i);
            _exit(!holds_random(memory, 300000, (uint64_t)i));
        }
        if (reap(child)) return 1;
    }
    return 0;
}

static const struct {
    const char *name;
    int (*run)(void);
} kinds[] = {{"hash-memory", hash_memory}, {"hash-pipe", hash_through_pipe}, {"hash-file", hash_through_file},
    {"sort", sort}, {"floating", floating}, {"children", children}};
#define KINDS (sizeof kinds / sizeof *kinds)

int main(int count, char **arguments) {
    int rounds = count > 1 ? atoi(arguments[1]) : 6;
    char hex[65];
    check_start(LOAD_NAME);
    sha256_hex("abc", 3, hex);
    check(!strcmp(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), "sha256", "got %s", hex);
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    pid_t workers[KINDS];
    for (size_t kind = 0; kind < KINDS; kind++)
        if ((workers[kind] = fork()) == 0) {
            struct itimerval often = {{.tv_usec = 3000}, {.tv_usec = 3000}};
            setitimer(ITIMER_REAL, &often, NULL);
            int bad = 0;
            for (int round = 0; round < rounds; round++) bad |= kinds[kind].run();
            _exit(bad);
        }
    for (size_t kind = 0; kind < KINDS; kind++) {
        int result = reap(workers[kind]);
        check(result == 0, kinds[kind].name, "worker ended with %d", result);
    }
    return check_failed;
}
