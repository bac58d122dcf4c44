// Threads and futexes: exclusion, conditions, barriers, robust and
// priority-inheriting locks, thread-local storage, raw futex hand-overs.

#include "check.h"
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>

#define THREADS 8

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static long counter, atomic_counter, turns[THREADS];
static int turn;
static __thread long local;

static int run_all(void *(*body)(void *)) {
    pthread_t threads[THREADS];
    long bad = 0;
    for (long i = 0; i < THREADS; i++)
        require(pthread_create(&threads[i], NULL, body, (void *)i) == 0, "pthread_create");
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        bad += (long)result;
    }
    return (int)bad;
}

static void *add(void *unused) {
    (void)unused;
    for (int i = 0; i < 20000; i++) {
        pthread_mutex_lock(&lock);
        counter++;
        pthread_mutex_unlock(&lock);
        __atomic_add_fetch(&atomic_counter, 3, __ATOMIC_SEQ_CST);
        if (i % 1000 == 0) sched_yield();
    }
    return NULL;
}

static void *take_turns(void *me) {
    for (int i = 0; i < 100; i++) {
        pthread_mutex_lock(&lock);
        while (turn != (long)me) pthread_cond_wait(&condition, &lock);
        turns[(long)me]++;
        turn = (turn + 1) % THREADS;
        pthread_cond_broadcast(&condition);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static long phase_values[THREADS];

static void *phases(void *me) {
    long bad = 0;
    for (long round = 1; round <= 100; round++) {
        phase_values[(long)me] = round;
        pthread_barrier_wait(&barrier);
        for (int i = 0; i < THREADS; i++) bad += phase_values[i] != round;
        pthread_barrier_wait(&barrier);
    }
    return (void *)bad;
}

static void *locals(void *me) {
    local = (long)me * 1000;
    for (int i = 0; i < 200; i++) {
        local++;
        sched_yield();
    }
    return (void *)(long)(local != (long)me * 1000 + 200);
}

static void *die_with_lock(void *mutex) {
    pthread_mutex_lock(mutex);
    return NULL;
}

static void robust(void) {
    pthread_mutexattr_t attributes;
    pthread_mutex_t mutex;
    pthread_t thread;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&mutex, &attributes);
    pthread_create(&thread, NULL, die_with_lock, &mutex);
    pthread_join(thread, NULL);
    int first = pthread_mutex_lock(&mutex);
    int second = pthread_mutex_consistent(&mutex);
    int third = pthread_mutex_unlock(&mutex);
    check(first == EOWNERDEAD && second == 0 && third == 0, "robust", "%d %d %d", first, second, third);
}

static pthread_mutex_t inheriting;

static void *add_inheriting(void *unused) {
    (void)unused;
    for (int i = 0; i < 500; i++) {
        pthread_mutex_lock(&inheriting);
        counter++;
        if (i % 50 == 0) sched_yield();
        pthread_mutex_unlock(&inheriting);
    }
    return NULL;
}

static void inheritance(void) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&inheriting, &attributes);
    counter = 0;
    run_all(add_inheriting);
    check(counter == THREADS * 500, "priority-inheritance", "counter %ld", counter);
}

// Two processes hand a word to each other through a shared futex.
static void shared_futex(void) {
    uint32_t *word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    require(word != MAP_FAILED, "mmap");
    pid_t child = fork();
    uint32_t mine = child == 0;
    for (int i = 0; i < 2000; i++) {
        uint32_t seen;
        while ((seen = __atomic_load_n(word, __ATOMIC_SEQ_CST)) % 2 != mine)
            syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
        __atomic_store_n(word, seen + 1, __ATOMIC_SEQ_CST);
        syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    if (child == 0) _exit(0);
    int result = reap(child);
    check(result == 0 && *word == 4000, "shared-futex", "child %d, word %u", result, *word);
    munmap(word, 4096);
}

static void timeouts(void) {
    uint32_t word = 5;
    struct timespec wait = {.tv_nsec = 30000000};
    uint64_t start = now_ns();
    long result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 5, &wait, NULL, 0);
    uint64_t took = now_ns() - start;
    check(result == -1 && errno == ETIMEDOUT && took >= 30000000, "futex-timeout", "%ld errno %d after %lu ns", result,
        errno, took);
    result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 6, &wait, NULL, 0);
    check(result == -1 && errno == EAGAIN, "futex-changed", "%ld errno %d", result, errno);
}

static void *nothing(void *argument) { return argument; }

static void many(void) {
    int good = 1;
    for (long i = 0; i < 500; i++) {
        pthread_t thread;
        void *result = NULL;
        good &= pthread_create(&thread, NULL, nothing, (void *)i) == 0;
        pthread_join(thread, &result);
        good &= result == (void *)i;
    }
    check(good, "create-join", "a thread's result was wrong");
}

// A process that forks while its other threads run.
static void *spin(void *stop) {
    long n = 0;
    while (!__atomic_load_n((int *)stop, __ATOMIC_RELAXED)) n++;
    return (void *)(long)(n == 0);
}

static void fork_with_threads(void) {
    int stop = 0, good = 1;
    pthread_t thread;
    pthread_create(&thread, NULL, spin, &stop);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0) _exit(i);
        good &= reap(child) == i;
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    check(good, "fork-with-threads", "a child's status was wrong");
}

int main(void) {
    check_start("threads");
    pthread_barrier_init(&barrier, NULL, THREADS);
    run_all(add);
    check(counter == THREADS * 20000, "mutex", "counter %ld", counter);
    check(atomic_counter == THREADS * 60000, "atomic", "counter %ld", atomic_counter);
    run_all(take_turns);
    int good = 1;
    for (int i = 0; i < THREADS; i++) good &= turns[i] == 100;
    check(good, "condition", "turns were lost");
    check(run_all(phases) == 0, "barrier", "a thread saw an older phase");
    check(run_all(locals) == 0, "thread-local", "a thread's variable changed");
    robust();
    inheritance();
    shared_futex();
    timeouts();
    many();
    fork_with_threads();
    return check_failed;
}
