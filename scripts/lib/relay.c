// Answers pings behind a tap as a guest and its back end would, but without a guest: one process reads a packet and
// wakes another by a futex, that one wakes the first by an event descriptor, and the first writes the answer. What
// that takes, the host takes for itself.
//
// usage: relay TAP    (until it is killed)
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ARP_LENGTH = 42, ECHO_LENGTH = 42, MOST = 1600 };

static const uint8_t own_address[6] = {2, 0, 0, 0, 0, 1};

struct shared {
    _Atomic uint32_t packets;
    ssize_t length;
    uint8_t packet[MOST];
};

static void need(int is_so, const char *what) {
    if (!is_so) {
        perror(what);
        exit(1);
    }
}

static void swap(uint8_t *left, uint8_t *right, size_t length) {
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = left[i];
        left[i] = right[i];
        right[i] = byte;
    }
}

static int is_type(const uint8_t *packet, uint8_t low) { return packet[12] == 8 && packet[13] == low; }

// Turns a question into its answer; false if it is no question. RFC 826 and RFC 792.
static int answer(uint8_t *packet, ssize_t length) {
    if (length >= ARP_LENGTH && is_type(packet, 6) && packet[21] == 1) {
        packet[21] = 2;
        swap(packet + 22, packet + 32, 10);
        memcpy(packet + 22, own_address, 6);
    } else if (length >= ECHO_LENGTH && is_type(packet, 0) && packet[14] == 0x45 && packet[23] == 1 && packet[34] == 8) {
        swap(packet + 26, packet + 30, 4);
        packet[34] = 0;
        // The checksum of a packet whose type is 8 less.
        uint32_t sum = (uint32_t)(packet[36] << 8 | packet[37]) + 0x800;
        sum = (sum & 0xffff) + (sum >> 16);
        packet[36] = (uint8_t)(sum >> 8);
        packet[37] = (uint8_t)sum;
    } else {
        return 0;
    }
    memcpy(packet, packet + 6, 6);
    memcpy(packet + 6, own_address, 6);
    return 1;
}

// In place of the guest.
static void serve(struct shared *shared, int done) {
    uint32_t seen = 0;
    for (;;) {
        while (atomic_load(&shared->packets) == seen) syscall(SYS_futex, &shared->packets, FUTEX_WAIT, seen, NULL, NULL, 0);
        seen++;
        if (!answer(shared->packet, shared->length)) shared->length = 0;
        uint64_t one = 1;
        need(write(done, &one, sizeof one) == sizeof one, "event");
    }
}

static void wait_for(int descriptor) {
    struct pollfd wanted = {.fd = descriptor, .events = POLLIN};
    need(poll(&wanted, 1, -1) == 1, "poll");
}

// In place of the back end: one packet after the other.
static void carry(struct shared *shared, int tap, int done) {
    for (;;) {
        wait_for(tap);
        shared->length = read(tap, shared->packet, MOST);
        if (shared->length <= 0) continue;
        atomic_fetch_add(&shared->packets, 1);
        syscall(SYS_futex, &shared->packets, FUTEX_WAKE, 1, NULL, NULL, 0);
        wait_for(done);
        uint64_t count;
        need(read(done, &count, sizeof count) == sizeof count, "read");
        ssize_t length = shared->length;
        if (length > 0) need(write(tap, shared->packet, (size_t)length) == length, "write");
    }
}

int main(int count, char **arguments) {
    need(count == 2 && strlen(arguments[1]) < IFNAMSIZ, "usage: relay TAP");
    int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    need(tap >= 0, "/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    strcpy(request.ifr_name, arguments[1]);
    need(ioctl(tap, TUNSETIFF, &request) == 0, arguments[1]);
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    need(shared != MAP_FAILED, "mmap");
    int done = eventfd(0, EFD_NONBLOCK);
    need(done >= 0, "eventfd");
    pid_t child = fork();
    need(child >= 0, "fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(shared, done);
    }
    carry(shared, tap, done);
}
