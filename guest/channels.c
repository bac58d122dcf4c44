// Pipes, sockets, descriptors passed between processes, epoll, eventfd,
// splice and scatter/gather, all checked by content.

#include "check.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#define LENGTH 300000u

static int receive(int from, uint64_t seed) {
    char *data = malloc(LENGTH);
    size_t got = 0;
    while (got < LENGTH) {
        ssize_t length = read(from, data + got, LENGTH - got);
        if (length <= 0) break;
        got += (size_t)length;
    }
    int good = got == LENGTH && holds_random(data, LENGTH, seed);
    free(data);
    return good;
}

static int transmit(int to, uint64_t seed) {
    char *data = malloc(LENGTH);
    size_t sent = 0;
    fill_random(data, LENGTH, seed);
    while (sent < LENGTH) {
        ssize_t length = write(to, data + sent, LENGTH - sent);
        if (length <= 0) break;
        sent += (size_t)length;
    }
    free(data);
    return sent == LENGTH;
}

static void both_ways(const char *name, int a, int b) {
    pid_t child = fork();
    if (child == 0) _exit(!(receive(b, 1) && transmit(b, 2)));
    int good = transmit(a, 1) && receive(a, 2);
    int result = reap(child);
    check(good && result == 0, name, "sender %d, receiver %d", good, result);
    close(a);
    close(b);
}

static void streams(void) {
    int pair[2];
    require(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
    both_ways("unix-stream", pair[0], pair[1]);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
        check_skip("tcp", "no loopback network");
        return;
    }
    int client = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(client, (struct sockaddr *)&address, length) != 0) {
        check_skip("tcp", "no loopback network");
        return;
    }
    both_ways("tcp", client, accept(listener, NULL, NULL));
    close(listener);
}

static void datagrams(void) {
    int pair[2], bad = 0;
    char message[512], got[512];
    require(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0, "socketpair");
    for (int i = 0; i < 1000; i++) {
        size_t length = (size_t)(i % 500 + 1);
        fill_random(message, length, (uint64_t)i);
        bad += send(pair[0], message, length, 0) != (ssize_t)length;
        bad += recv(pair[1], got, sizeof got, 0) != (ssize_t)length || memcmp(message, got, length) != 0;
    }
    check(bad == 0, "datagrams", "%d wrong", bad);
    close(pair[0]);
    close(pair[1]);
}

static void passed_descriptor(void) {
    int pair[2], ends[2];
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'f';
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    require(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && pipe(ends) == 0, "pair");
    pid_t child = fork();
    if (child == 0) {
        if (recvmsg(pair[1], &message, 0) != 1) _exit(1);
        int descriptor;
        memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof descriptor);
        _exit(write(descriptor, "passed", 6) != 6);
    }
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &ends[1], sizeof(int));
    sendmsg(pair[0], &message, 0);
    char text[7] = {0};
    ssize_t got = read(ends[0], text, 6);
    check(got == 6 && !strcmp(text, "passed") && reap(child) == 0, "passed-descriptor", "read %zd", got);
}

static void ping_pong(void) {
    int there[2], back[2], bad = 0;
    require(pipe(there) == 0 && pipe(back) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        uint32_t word;
        while (read(there[0], &word, 4) == 4 && word) {
            word = word * 2654435761u;
            if (write(back[1], &word, 4) != 4) _exit(1);
        }
        _exit(0);
    }
    for (uint32_t i = 1; i <= 3000; i++) {
        uint32_t word = i;
        bad += write(there[1], &word, 4) != 4 || read(back[0], &word, 4) != 4 || word != i * 2654435761u;
    }
    uint32_t stop = 0;
    bad += write(there[1], &stop, 4) != 4;
    check(bad == 0 && reap(child) == 0, "ping-pong", "%d of 3000 wrong", bad);
}

static void vectors(void) {
    int ends[2];
    char pieces[20][50], whole[1000], first[300], second[700];
    struct iovec out[20], in[2] = {{first, 300}, {second, 700}};
    require(pipe(ends) == 0, "pipe");
    fill_random(whole, sizeof whole, 4);
    for (int i = 0; i < 20; i++) {
        memcpy(pieces[i], whole + 50 * i, 50);
        out[i] = (struct iovec){pieces[i], 50};
    }
    int good = writev(ends[1], out, 20) == 1000 && readv(ends[0], in, 2) == 1000;
    check(good && !memcmp(first, whole, 300) && !memcmp(second, whole + 300, 700), "scatter-gather", "contents differ");
    // Memory lent to a pipe and read at the other end, then by way of splice.
    struct iovec lent = {whole, sizeof whole};
    char got[1000];
    good = vmsplice(ends[1], &lent, 1, 0) == 1000 && read(ends[0], got, 1000) == 1000 && !memcmp(whole, got, 1000);
    check(good, "vmsplice", "contents differ");
    int file = memfd_create("splice", 0);
    loff_t place = 0;
    good = write(file, whole, 1000) == 1000 && splice(file, &place, ends[1], NULL, 1000, 0) == 1000 &&
           read(ends[0], got, 1000) == 1000 && !memcmp(whole, got, 1000);
    check(good, "splice", "contents differ");
    close(file);
}

static void events(void) {
    int poller = epoll_create1(0), counter = eventfd(0, 0), bad = 0;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 77}, got;
    uint64_t value = 0;
    require(poller >= 0 && counter >= 0 && epoll_ctl(poller, EPOLL_CTL_ADD, counter, &event) == 0, "epoll");
    bad += epoll_wait(poller, &got, 1, 10) != 0;
    pid_t child = fork();
    if (child == 0) {
        uint64_t one = 1;
        for (int i = 0; i < 500; i++)
            if (write(counter, &one, 8) != 8) _exit(1);
        _exit(0);
    }
    while (value < 500 && epoll_wait(poller, &got, 1, 5000) == 1) {
        uint64_t more;
        bad += got.data.u32 != 77 || read(counter, &more, 8) != 8;
        value += more;
    }
    check(bad == 0 && value == 500 && reap(child) == 0, "epoll-eventfd", "%d wrong, value %lu", bad, value);
}

static void bad_pointers(void) {
    int ends[2];
    char byte = 1;
    require(pipe(ends) == 0, "pipe");
    static void *const bad[] = {NULL, (void *)0x1000, (void *)0xffffffff81000000, (void *)0xffff888000000000,
        (void *)0x8000000000000000, (void *)0x7ffffffff000};
    int good = 1;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        errno = 0;
        good &= write(ends[1], bad[i], 1) == -1 && errno == EFAULT;
        good &= write(ends[1], &byte, 1) == 1;
        errno = 0;
        good &= read(ends[0], bad[i], 1) == -1 && errno == EFAULT;
        good &= syscall(SYS_clock_gettime, CLOCK_REALTIME, bad[i]) == -1 && errno == EFAULT;
        good &= syscall(SYS_openat, AT_FDCWD, bad[i], O_RDONLY) == -1 && errno == EFAULT;
    }
    check(good, "bad-pointers", "a system call did not answer EFAULT");
}

int main(void) {
    check_start("channels");
    signal(SIGPIPE, SIG_IGN);
    streams();
    datagrams();
    passed_descriptor();
    ping_pong();
    vectors();
    events();
    bad_pointers();
    return check_failed;
}
