/* Page tables of the hostile kernel: pages from a pool in the image, entries written
 * by mmu_update, as a well-behaved kernel does. */
#include "kernel.h"

#define PAGES 768
static u8 pool[PAGES][4096] __attribute__((aligned(4096)));
static u64 used;

/* Where the tables of the window lie through which any frame is seen. */
#define WINDOW 0xffffb00000000000ul
static u64 *window;

void *page(void)
{
	if (used == PAGES) {
		print("FAIL pool: no pages left\n");
		shutdown(3);
	}
	fill(pool[used], 0, 4096);
	return pool[used++];
}

u64 frame_of(const void *va) { return ((u64)va - BASE) >> 12; }
u64 root(void) { return frame_of((void *)start->pt_base); }

void set_entry(u64 *at, u64 value)
{
	struct mmu_update u = { (u64)at - BASE, value };
	s64 r = hc(MMU_UPDATE, &u, 1, 0, 0x7ff0);
	check(r == 0, "mmu_update gave %d", r);
}

s64 mmuext(u32 cmd, u64 arg1, u64 arg2)
{
	struct mmuext_op op = { cmd, 0, arg1, arg2 };
	return hc(MMUEXT_OP, &op, 1, 0, 0x7ff0);
}

void flush(void) { mmuext(TLB_FLUSH_LOCAL, 0, 0); }

/* The entry of a level (0: the last) for an address; tables above it are made. */
u64 *entry(u64 va, int level)
{
	u64 *table = (u64 *)start->pt_base;
	for (int l = 3; l > level; l--) {
		u64 *e = &table[va >> (12 + 9 * l) & 511];
		if (!(*e & P))
			set_entry(e, frame_of(page()) << 12 | P | W | U);
		table = (u64 *)(BASE + (*e & 0xffffffffff000));
	}
	return &table[va >> (12 + 9 * level) & 511];
}

void map_page(u64 va, u64 pte)
{
	set_entry(entry(va, 0), pte);
	mmuext(INVLPG_LOCAL, va, 0);
}

void unmap_page(u64 va)
{
	map_page(va, 0);
}

/* Any frame, until the next call. */
void *seen(u64 frame)
{
	set_entry(window, frame << 12 | P | W);
	mmuext(INVLPG_LOCAL, WINDOW, 0);
	return (void *)WINDOW;
}

void init_tables(void)
{
	window = entry(WINDOW, 0);
	/* Pages apart, so that nothing lies behind them. */
	const u64 fixed = WINDOW + 0x10000;
	map_page(fixed, start->shared_info | P | W);
	map_page(fixed + 0x2000, start->console_mfn << 12 | P | W);
	map_page(fixed + 0x4000, start->store_mfn << 12 | P | W);
	shared = (void *)fixed;
	console = (void *)(fixed + 0x2000);
	store = (void *)(fixed + 0x4000);
}
