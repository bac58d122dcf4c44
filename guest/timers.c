// Time: clocks go forward and agree, sleeps and timers end neither early nor
// very late. Upper limits are wide, since hosts may be busy.

#include "check.h"
#include <poll.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <x86intrin.h>

#define MS 1000000ull
#define LATE (400 * MS)

static uint64_t clock_ns(clockid_t id) {
    struct timespec t;
    require(clock_gettime(id, &t) == 0, "clock_gettime");
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void monotonic(void) {
    static const struct {
        clockid_t id;
        const char *name;
    } clocks[] = {{CLOCK_MONOTONIC, "monotonic"}, {CLOCK_MONOTONIC_RAW, "monotonic-raw"}, {CLOCK_BOOTTIME, "boottime"},
        {CLOCK_PROCESS_CPUTIME_ID, "process-cpu-time"}};
    for (size_t c = 0; c < sizeof clocks / sizeof *clocks; c++) {
        uint64_t last = clock_ns(clocks[c].id), backward = 0;
        for (int i = 0; i < 200000; i++) {
            uint64_t now = clock_ns(clocks[c].id);
            backward += now < last;
            last = now;
        }
        check(backward == 0, clocks[c].name, "went backward %lu times", backward);
    }
}

// The vDSO's clock and the system call's are the same clock.
static void agreement(void) {
    uint64_t bad = 0;
    for (int i = 0; i < 2000; i++) {
        struct timespec t;
        uint64_t before = clock_ns(CLOCK_MONOTONIC);
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
        uint64_t between = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
        uint64_t after = clock_ns(CLOCK_MONOTONIC);
        bad += between < before || between > after;
    }
    check(bad == 0, "vdso-and-system-call", "%lu of 2000 disagree", bad);
}

static void sleeps(void) {
    static const uint64_t lengths[] = {MS / 10, MS, 10 * MS, 100 * MS};
    int early = 0, late = 0;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (int round = 0; round < 3; round++) {
            struct timespec t = {.tv_nsec = (long)lengths[i]};
            uint64_t start = clock_ns(CLOCK_MONOTONIC);
            nanosleep(&t, NULL);
            uint64_t took = clock_ns(CLOCK_MONOTONIC) - start;
            early += took < lengths[i];
            late += took > lengths[i] + LATE;
        }
    check(!early, "nanosleep-early", "%d sleeps ended early", early);
    check(!late, "nanosleep-late", "%d sleeps ended much too late", late);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 20000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    check(clock_ns(CLOCK_MONOTONIC) >= (uint64_t)until.tv_sec * 1000000000u + (uint64_t)until.tv_nsec, "absolute-sleep",
        "ended early");
}

static void descriptor(void) {
    struct itimerspec every = {{.tv_nsec = 5 * (long)MS}, {.tv_nsec = 5 * (long)MS}};
    int file = timerfd_create(CLOCK_MONOTONIC, 0);
    uint64_t ticks = 0, times;
    // Before the timer is set: its ticks are counted from then on.
    uint64_t start = clock_ns(CLOCK_MONOTONIC);
    require(file >= 0 && timerfd_settime(file, 0, &every, NULL) == 0, "timerfd");
    while (ticks < 40 && read(file, &times, sizeof times) == sizeof times) ticks += times;
    uint64_t took = clock_ns(CLOCK_MONOTONIC) - start;
    check(took >= ticks * 5 * MS && took < ticks * 5 * MS + LATE, "timerfd", "%lu ticks of 5 ms in %lu us", ticks,
        took / 1000);
    struct pollfd poller = {.fd = file, .events = POLLIN};
    check(poll(&poller, 1, 1000) == 1, "poll-timerfd", "no event");
    close(file);
    start = clock_ns(CLOCK_MONOTONIC);
    int result = poll(NULL, 0, 30);
    took = clock_ns(CLOCK_MONOTONIC) - start;
    check(result == 0 && took >= 30 * MS && took < 30 * MS + LATE, "poll-timeout", "%d after %lu us", result, took / 1000);
}

static volatile int alarms;

static long ms_between(struct timeval from, struct timeval to) {
    return (to.tv_sec - from.tv_sec) * 1000 + (to.tv_usec - from.tv_usec) / 1000;
}

// This alarm counts the program's own time alone, and the kernel tells that by where its ticks meet the program: so there
// is much work between two looks at the clock, which are system calls. A machine that stands still lets CPU time pass as
// well: there must have been looks enough.
static void virtual_alarm(const struct itimerval *once) {
    struct rusage before, after;
    unsigned long looks = 0, gap = 0, start = clock_ns(CLOCK_PROCESS_CPUTIME_ID), last = start, now = start;
    alarms = 0;
    getrusage(RUSAGE_SELF, &before);
    setitimer(ITIMER_VIRTUAL, once, NULL);
    for (; !alarms && (now - start < 2000 * MS || looks < 2000); looks++, last = now) {
        for (volatile int work = 0; work < 100000; work++);
        now = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        if (now - last > gap) gap = now - last;
    }
    getrusage(RUSAGE_SELF, &after);
    check(alarms == 1, "virtual-alarm", "%d in %lu us of CPU: %lu looks, at most %lu us apart; %ld ms user, %ld ms system", alarms,
        (now - start) / 1000, looks, gap / 1000, ms_between(before.ru_utime, after.ru_utime),
        ms_between(before.ru_stime, after.ru_stime));
}

static void on_alarm(int number) {
    (void)number;
    alarms++;
}

static void alarm_clock(void) {
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGVTALRM, &action, NULL);
    uint64_t start = clock_ns(CLOCK_MONOTONIC);
    alarm(1);
    pause();
    uint64_t took = clock_ns(CLOCK_MONOTONIC) - start;
    check(alarms == 1 && took >= 990 * MS && took < 1000 * MS + LATE, "alarm", "%d alarms after %lu us", alarms,
        took / 1000);
    // While busy: the timer must interrupt code that makes no system call.
    struct itimerval once = {.it_value = {.tv_usec = 50000}};
    alarms = 0;
    start = clock_ns(CLOCK_MONOTONIC);
    setitimer(ITIMER_REAL, &once, NULL);
    while (!alarms) asm volatile("pause");
    took = clock_ns(CLOCK_MONOTONIC) - start;
    check(took >= 50 * MS && took < 50 * MS + LATE, "alarm-while-busy", "after %lu us", took / 1000);
    virtual_alarm(&once);
}

static void on_timer(union sigval value) { __atomic_add_fetch((int *)value.sival_ptr, 1, __ATOMIC_SEQ_CST); }

static void posix_timer(void) {
    int fired = 0;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD};
    struct itimerspec every = {{.tv_nsec = 10 * (long)MS}, {.tv_nsec = 10 * (long)MS}};
    timer_t timer;
    event.sigev_value.sival_ptr = &fired;
    event.sigev_notify_function = on_timer;
    require(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create");
    timer_settime(timer, 0, &every, NULL);
    for (int i = 0; i < 200 && __atomic_load_n(&fired, __ATOMIC_SEQ_CST) < 5; i++) usleep(10000);
    timer_delete(timer);
    check(fired >= 5, "posix-timer-thread", "fired %d times", fired);
    usleep(20000);
}

// The TSC and the clock advance at one rate over any two spans.
static void counter(void) {
    double rates[2];
    for (int i = 0; i < 2; i++) {
        uint64_t t0 = clock_ns(CLOCK_MONOTONIC_RAW), c0 = __rdtsc();
        usleep(100000);
        rates[i] = (double)(__rdtsc() - c0) / (double)(clock_ns(CLOCK_MONOTONIC_RAW) - t0);
    }
    double ratio = rates[0] / rates[1];
    check(ratio > 0.99 && ratio < 1.01, "tsc-rate", "%.4f and %.4f cycles per ns", rates[0], rates[1]);
}

int main(void) {
    check_start("timers");
    monotonic();
    agreement();
    sleeps();
    descriptor();
    alarm_clock();
    posix_timer();
    counter();
    return check_failed;
}
