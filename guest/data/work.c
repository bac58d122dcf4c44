#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct item { unsigned key; double weight; char name[24]; };

static int by_key(const void *a, const void *b) {
    const struct item *x = a, *y = b;
    return x->key < y->key ? -1 : x->key > y->key;
}

static unsigned long fold(unsigned long h, const void *data, size_t length) {
    const unsigned char *p = data;
    while (length--) h = (h ^ *p++) * 1099511628211ul;
    return h;
}

int main(void) {
    enum { COUNT = 20000 };
    struct item *items = calloc(COUNT, sizeof *items);
    unsigned state = 7;
    for (int i = 0; i < COUNT; i++) {
        state = state * 1664525u + 1013904223u;
        items[i].key = state >> 4;
        items[i].weight = sqrt((double)(state % 1000003));
        snprintf(items[i].name, sizeof items[i].name, "%08x:%d", state, i);
    }
    qsort(items, COUNT, sizeof *items, by_key);
    unsigned long h = 14695981039346656037ul;
    for (int i = 0; i < COUNT; i++) {
        long rounded = lround(items[i].weight * 1000);
        h = fold(h, items[i].name, strlen(items[i].name));
        h = fold(h, &rounded, sizeof rounded);
    }
    printf("%016lx\n", h);
    free(items);
    return 0;
}
