// brk and the allocator: growth, shrinking, random sizes, contents kept.

#include "check.h"
#include <malloc.h>

#define SLOTS 2000

static void program_break(void) {
    char *start = sbrk(0), *at;
    int bad = 0;
    for (int i = 1; i <= 200; i++) {
        at = sbrk(65536);
        if (at == (void *)-1) {
            bad++;
            break;
        }
        bad += at[0] != 0 || at[65535] != 0;
        memset(at, i, 65536);
    }
    for (int i = 0; i < 200; i++) bad += start[i * 65536 + 77] != (char)(i + 1);
    sbrk(-150 * 65536);
    at = sbrk(150 * 65536);
    for (int i = 0; i < 50; i++) bad += start[i * 65536 + 77] != (char)(i + 1);
    for (int i = 0; i < 150; i++) bad += at[i * 65536 + 77] != 0;
    brk(start);
    check(bad == 0, "brk", "%d wrong", bad);
}

static int torture(uint64_t seed, int rounds) {
    static struct {
        char *memory;
        size_t length;
        uint64_t seed;
    } slots[SLOTS];
    uint64_t state = seed;
    int bad = 0;
    for (int i = 0; i < rounds; i++) {
        uint32_t slot = next_random(&state) % SLOTS, kind = next_random(&state) % 100;
        size_t length = kind < 80 ? next_random(&state) % 500 : kind < 98 ? next_random(&state) % 20000
                                                                          : next_random(&state) % 600000;
        if (slots[slot].memory) bad += !holds_random(slots[slot].memory, slots[slot].length, slots[slot].seed);
        if (slots[slot].memory && kind % 3 == 0) {
            size_t kept = length < slots[slot].length ? length : slots[slot].length;
            slots[slot].memory = realloc(slots[slot].memory, length + 1);
            bad += !holds_random(slots[slot].memory, kept, slots[slot].seed);
        } else {
            free(slots[slot].memory);
            slots[slot].memory = malloc(length + 1);
        }
        slots[slot].length = length;
        slots[slot].seed = state;
        fill_random(slots[slot].memory, length, state);
        if (i % 5000 == 0) malloc_trim(0);
    }
    for (int i = 0; i < SLOTS; i++) {
        if (slots[i].memory) bad += !holds_random(slots[i].memory, slots[i].length, slots[i].seed);
        free(slots[i].memory);
        slots[i].memory = NULL;
    }
    return bad;
}

int main(void) {
    check_start("heap");
    program_break();
    int bad = torture(1, 20000);
    check(bad == 0, "torture", "%d wrong", bad);
    pid_t children[4];
    for (int c = 0; c < 4; c++)
        if ((children[c] = fork()) == 0) _exit(torture((uint64_t)c + 10, 8000) != 0);
    bad = 0;
    for (int c = 0; c < 4; c++) bad += reap(children[c]) != 0;
    check(bad == 0, "torture-processes", "%d processes wrong", bad);
    return check_failed;
}
