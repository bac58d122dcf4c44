// The guest's xenstore through /dev/xen/xenbus: the kernel passes messages on over the ring.
// usage: xenstore                 checks
//        xenstore storm SECONDS   counts in transactions, and says whether any count was lost
//        xenstore flood           asks without end

#include "check.h"
#include <fcntl.h>
#include <poll.h>

// io/xs_wire.h
enum { DIRECTORY = 1, READ, GET_PERMS, WATCH, UNWATCH, START, END, WRITE = 11, MKDIR, RM, SET_PERMS, EVENT, ERROR };
#define PAYLOAD 4096

struct header {
    uint32_t type, request, transaction, length;
};

static char reply[PAYLOAD + 1];
static int events, last_request;
static char last_path[PAYLOAD + 1];

static void all(int fd, void *buffer, size_t length) {
    for (char *at = buffer; length > 0;) {
        ssize_t count = read(fd, at, length);
        if (count < 0 && errno == EINTR) continue;
        require(count > 0, "read /dev/xen/xenbus");
        at += count, length -= (size_t)count;
    }
}

// Takes one message; 1 if it is a reply, of which the length and type are given.
static int take(int fd, struct header *header) {
    all(fd, header, sizeof *header);
    require(header->length <= PAYLOAD, "reply of proper length");
    char *to = header->type == EVENT ? last_path : reply;
    all(fd, to, header->length);
    to[header->length] = 0;
    events += header->type == EVENT;
    return header->type != EVENT;
}

// Sends a request; the length of its reply, or -1 with the error's name in `reply`.
static int ask(int fd, uint32_t type, uint32_t transaction, const void *payload, size_t length) {
    char message[sizeof(struct header) + PAYLOAD];
    struct header header = {type, (uint32_t)++last_request, transaction, (uint32_t)length};
    memcpy(message, &header, sizeof header);
    memcpy(message + sizeof header, payload, length);
    if (write(fd, message, sizeof header + length) != (ssize_t)(sizeof header + length)) {
        snprintf(reply, sizeof reply, "errno %d", errno);
        return -1;
    }
    while (!take(fd, &header));
    return header.type == ERROR ? -1 : (int)header.length;
}

static int ask_text(int fd, uint32_t type, uint32_t transaction, const char *path) {
    return ask(fd, type, transaction, path, strlen(path) + 1);
}

static int put(int fd, uint32_t transaction, const char *path, const char *value, size_t length) {
    char payload[PAYLOAD];
    size_t start = strlen(path) + 1;
    memcpy(payload, path, start);
    memcpy(payload + start, value, length);
    return ask(fd, WRITE, transaction, payload, start + length);
}

static uint32_t start(int fd) {
    return ask(fd, START, 0, "", 1) < 0 ? 0 : (uint32_t)strtoul(reply, NULL, 10);
}

static int end(int fd, uint32_t transaction) { return ask(fd, END, transaction, "T", 2); }

static void values(int fd) {
    char value[2048], path[64];
    check(ask_text(fd, READ, 0, "domid") > 0 && atoi(reply) > 0, "own-number", "%s", reply);
    snprintf(path, sizeof path, "/local/domain/%d/name", atoi(reply));
    check(ask_text(fd, READ, 0, path) > 0, "own-name", "%s", reply);
    check(put(fd, 0, "name", "x", 1) < 0 && !strcmp(reply, "EACCES"), "own-name-is-fixed", "%s", reply);
    check(ask_text(fd, READ, 0, "/local/domain/0/name") < 0 && !strcmp(reply, "EACCES"), "host-is-closed", "%s", reply);
    check(ask_text(fd, DIRECTORY, 0, "/local/domain") < 0 && !strcmp(reply, "EACCES"), "list-is-closed", "%s", reply);
    int bad = 0;
    for (size_t length = 0; length <= sizeof value; length = length * 3 / 2 + 7) {
        fill_random(value, length, length);
        bad += put(fd, 0, "data/big", value, length) < 0;
        bad += ask_text(fd, READ, 0, "data/big") != (int)length || !holds_random(reply, length, length);
    }
    check(bad == 0, "values-longer-than-the-ring", "%d wrong", bad);
    check(put(fd, 0, "data/big", value, sizeof value) > 0, "longest-value", "%s", reply);
    char longer[2049] = {0};
    check(put(fd, 0, "data/big", longer, sizeof longer) < 0 && !strcmp(reply, "ENOSPC"), "longer-value", "%s", reply);
    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof path, "data/list/entry-%d", i);
        bad += ask_text(fd, MKDIR, 0, path) < 0;
    }
    int length = ask_text(fd, DIRECTORY, 0, "data/list"), names = 0;
    for (int i = 0; i < length; i++) names += reply[i] == 0;
    check(bad == 0 && names == 40, "directory", "%d names, %d wrong", names, bad);
    check(ask_text(fd, RM, 0, "data/list") > 0 && ask_text(fd, DIRECTORY, 0, "data/list") < 0 && !strcmp(reply, "ENOENT"),
        "remove", "%s", reply);
    ask_text(fd, RM, 0, "data/big");
}

static void quota(int fd) {
    char path[64];
    int made = 0;
    while (made < 200) {
        // Twenty nodes at a time.
        snprintf(path, sizeof path, "data/quota/n%d/1/2/3/4/5/6/7/8/9/a/b/c/d/e/f/g/h/i/j", made);
        if (ask_text(fd, MKDIR, 0, path) < 0) break;
        made++;
    }
    check(made > 40 && made < 51 && !strcmp(reply, "ENOSPC"), "quota", "%d times 20 nodes, then %s", made, reply);
    check(ask_text(fd, RM, 0, "data/quota") > 0 && ask_text(fd, MKDIR, 0, "data/quota") > 0, "room-again", "%s", reply);
    ask_text(fd, RM, 0, "data/quota");
}

static void transactions(int fd, int other) {
    put(fd, 0, "data/t", "0", 1);
    uint32_t id = start(fd);
    check(id != 0, "transaction", "%s", reply);
    put(fd, id, "data/t", "1", 1);
    check(ask_text(other, READ, 0, "data/t") == 1 && *reply == '0', "transaction-is-hidden", "%s", reply);
    check(end(fd, id) > 0 && ask_text(other, READ, 0, "data/t") == 1 && *reply == '1', "commit", "%s", reply);
    id = start(fd);
    ask_text(fd, READ, id, "data/t");
    put(fd, id, "data/u", "2", 1);
    put(other, 0, "data/t", "3", 1);
    check(end(fd, id) < 0 && !strcmp(reply, "EAGAIN"), "conflict", "%s", reply);
    check(ask_text(fd, READ, 0, "data/u") < 0, "conflict-changes-nothing", "%s", reply);
}

static void watches(int fd, int other) {
    events = 0;
    check(ask(fd, WATCH, 0, "data/w\0token", 13) > 0, "watch", "%s", reply);
    struct header header;
    while (events < 1) take(fd, &header);
    check(!strcmp(last_path, "data/w"), "first-event", "%s", last_path);
    put(other, 0, "data/w/below", "x", 1);
    while (events < 2) take(fd, &header);
    check(!strcmp(last_path, "data/w/below") && !strcmp(last_path + 13, "token"), "event", "%s", last_path);
    check(ask(fd, UNWATCH, 0, "data/w\0token", 13) > 0, "unwatch", "%s", reply);
    put(other, 0, "data/w/below", "y", 1);
    struct pollfd wait = {fd, POLLIN, 0};
    check(poll(&wait, 1, 300) == 0, "no-event-after-unwatch", "%d events", events);
}

static void speed(int fd) {
    uint64_t begin = now_ns();
    for (int i = 0; i < 300; i++) ask_text(fd, READ, 0, "domid");
    printf("a round trip takes %lu ns\n", (now_ns() - begin) / 300);
}

// Each round counts in a transaction and writes; what was acknowledged must be there.
static int storm(int fd, int seconds) {
    uint64_t limit = now_ns() + (uint64_t)seconds * 1000000000u;
    unsigned long commits = 0, conflicts = 0, rounds = 0, lost = 0;
    char value[32];
    put(fd, 0, "data/count", "0", 1);
    while (now_ns() < limit) {
        uint32_t id = start(fd);
        if (ask_text(fd, READ, id, "data/count") < 0) lost++;
        int length = snprintf(value, sizeof value, "%lu", strtoul(reply, NULL, 10) + 1);
        lost += put(fd, id, "data/count", value, (size_t)length) < 0;
        if (end(fd, id) > 0)
            commits++;
        else if (!strcmp(reply, "EAGAIN"))
            conflicts++;
        else
            lost++;
        length = snprintf(value, sizeof value, "%lu", ++rounds);
        lost += put(fd, 0, "data/round", value, (size_t)length) < 0;
        lost += ask_text(fd, READ, 0, "data/round") != length || strcmp(reply, value);
    }
    ask_text(fd, READ, 0, "data/count");
    printf("storm: %lu commits, %s counted, %lu conflicts, %lu lost\n", commits, reply, conflicts, lost);
    return lost != 0 || strtoul(reply, NULL, 10) != commits;
}

int main(int argc, char **argv) {
    check_start("xenstore");
    int fd = open("/dev/xen/xenbus", O_RDWR);
    if (fd < 0) {
        check_skip("all", "there is no /dev/xen/xenbus");
        return 0;
    }
    if (argc > 2 && !strcmp(argv[1], "storm")) return storm(fd, atoi(argv[2]));
    if (argc > 1 && !strcmp(argv[1], "flood"))
        for (unsigned i = 0;; i++) {
            char path[64];
            snprintf(path, sizeof path, "data/flood%u", i % 500);
            put(fd, 0, path, "x", 1);
        }
    int other = open("/dev/xen/xenbus", O_RDWR);
    require(other >= 0, "open twice");
    values(fd);
    transactions(fd, other);
    watches(fd, other);
    quota(fd);
    speed(fd);
    return check_failed;
}
