/* Page tables that cannot be: cycles, foreign frames, large pages, changes without a
 * flush. What they map faults, or is memory of this domain. */
#include "kernel.h"

/* A slot of the top-level table that nobody uses, and the addresses it covers. */
#define SLOT 400
#define SLOT_VA (0xffff000000000000ul | (u64)SLOT << 39)

static u64 *top(void) { return (u64 *)start->pt_base; }
static int faulted(s64 r) { return r == 13 || r == 14; }

static void each_level(u64 va)
{
	for (int i = 0; i < 8; i++) {
		u64 at = va + (i ? 0x1000ul << 9 * (i & 3) : 0) + i * 8;
		s64 r = try_read(at);
		check(r == -1 || faulted(r), "reading %x gave %d", at, r);
		hc(UPDATE_VA_MAPPING, at, 0, 0);
		mmuext(INVLPG_LOCAL, at, 0);
	}
	flush();
}

/* The top-level table as a table of each lower level. */
TEST(top_table_maps_itself)
{
	u64 *copy_of = page();
	copy(copy_of, top(), 4096);
	u64 self = frame_of(copy_of);
	copy_of[SLOT] = self << 12 | P | W | U;
	check(mmuext(NEW_BASEPTR, self, 0) == 0, "the copy was refused");
	u64 last = SLOT_VA | (u64)SLOT << 30 | (u64)SLOT << 21 | (u64)SLOT << 12;
	check(try_read(last) == -1, "its own entry cannot be read");
	check(*(volatile u64 *)(last + 8 * SLOT) >> 12 == self, "another frame is there");
	check(try_read(SLOT_VA | (u64)SLOT << 30 | (u64)SLOT << 21 | 511ul << 12) == -1, "the table below");
	each_level(last + 511 * 4096);
	copy_of[SLOT] = 0;
	flush();
	check(faulted(try_read(last)), "still mapped after a flush");
	check(mmuext(NEW_BASEPTR, root(), 0) == 0, "the old table was refused");
}

TEST(tables_in_cycles)
{
	u64 *a = page(), *b = page();
	for (int i = 0; i < 512; i++) {
		a[i] = frame_of(b) << 12 | P | W | U | A | D;
		b[i] = frame_of(a) << 12 | P | W | U | A | D;
	}
	set_entry(&top()[SLOT], frame_of(a) << 12 | P | W | U);
	for (int i = 0; i < 3000; i++) {
		u64 va = SLOT_VA | (random() & 0x7ffffffff8);
		check(try_read(va) == -1, "%x faults", va);
		if (i % 16 == 0)
			mmuext(INVLPG_LOCAL, va, 0);
	}
	set_entry(&top()[SLOT], 0);
	flush();
	check(faulted(try_read(SLOT_VA)), "still mapped after a flush");
}

/* Tables whose entries are text, zeros and numbers. */
TEST(tables_of_garbage)
{
	u64 *t = page();
	for (int round = 0; round < 40; round++) {
		for (int i = 0; i < 512; i++)
			t[i] = round & 1 ? random() : random() % 0x3000 << 12 | (random() & 0xfff);
		set_entry(&top()[SLOT], frame_of(t) << 12 | P | W | U);
		for (int i = 0; i < 60; i++) {
			u64 va = SLOT_VA | (random() & 0x7fffffffff);
			s64 r = try_read(va);
			check(r == -1 || faulted(r), "reading %x gave %d", va, r);
		}
		flush();
	}
	set_entry(&top()[SLOT], 0);
	flush();
}

TEST(foreign_frames)
{
	u64 va = SLOT_VA, limit = hc(MEMORY_OP, MAXIMUM_RESERVATION);
	const u64 frames[] = { limit + 33, limit + 34, limit + 200, 0x100000, 0xffffff, 0x7ffffff, 0x8000000, 0xfffffff, 0x10000000,
		0xffffffff, 0xfffffffff, 0xffffffffff };
	for (int i = 0; i < 12; i++) {
		set_entry(entry(va, 0), frames[i] << 12 | P | W | U | A | D);
		mmuext(INVLPG_LOCAL, va, 0);
		check(faulted(try_read(va)) && faulted(try_write(va)), "frame %x can be reached", frames[i]);
		check(hc(XEN_VERSION, 3, va) == -EFAULT, "an argument in frame %x", frames[i]);
		s64 r = try_jump(va);
		check(faulted(r), "a jump to frame %x gave %d", frames[i], r);
	}
	unmap_page(va);
}

TEST(foreign_frames_in_upper_levels)
{
	static const u64 frames[] = { 0x100000, 0x7ffffff, 0x8000000, 0xffffffff, 0xffffffffff };
	u64 va = SLOT_VA + 0x40000000;
	for (int level = 1; level < 4; level++) {
		u64 *e = entry(va, level), old = *e;
		for (int i = 0; i < 5; i++) {
			set_entry(e, frames[i] << 12 | P | W | U);
			flush();
			check(faulted(try_read(va)), "level %d with frame %x", (s64)level, frames[i]);
			s64 r = hc(UPDATE_VA_MAPPING, va, 7, 0);
			check(r == -EINVAL, "update_va_mapping gave %d", r);
		}
		set_entry(e, old);
		flush();
	}
}

/* Large pages are not offered: entries with PSE map nothing. */
TEST(large_pages)
{
	u64 va = SLOT_VA + 0x80000000;
	for (int level = 1; level < 4; level++) {
		u64 *e = entry(va, level), old = *e;
		set_entry(e, P | W | U | PSE);
		flush();
		check(faulted(try_read(va)), "level %d maps", (s64)level);
		check(hc(UPDATE_VA_MAPPING, va, 7, 0) == -EINVAL, "update_va_mapping at level %d", (s64)level);
		set_entry(e, old);
		flush();
	}
}

TEST(reserved_bits)
{
	u64 va = SLOT_VA + 0xc0000000, frame = frame_of(page());
	for (int bit = 8; bit < 64; bit++) {
		if (bit >= 12 && bit < 52)
			continue;
		map_page(va, frame << 12 | P | W | 1ul << bit);
		s64 r = try_read(va);
		check(r == -1 || faulted(r), "bit %d gave %d", (s64)bit, r);
	}
	unmap_page(va);
}

TEST(read_only_pages)
{
	u64 va = SLOT_VA + 0x1000000000;
	u8 *p = page();
	map_page(va, frame_of(p) << 12 | P);
	check(try_read(va) == -1, "it cannot be read");
	check(try_write(va) == 14 && (fault.code & 3) == 3 && fault_address == va, "a write gave %d, code %x, address %x",
		fault.vector, fault.code, fault_address);
	check(*p == 0, "it was written");
	map_page(va, frame_of(p) << 12 | P | W);
	check(try_write(va) == -1 && *p == 0x5a, "it cannot be written");
	map_page(va, frame_of(p) << 12 | P);
	check(try_write(va) == 14, "it can still be written");
	unmap_page(va);
	check(try_read(va) == 14 && !(fault.code & 1), "it can still be read");
}

/* Upper levels that forbid what the last allows. */
TEST(rights_of_upper_levels)
{
	u64 va = SLOT_VA + 0x1040000000;
	map_page(va, frame_of(page()) << 12 | P | W | U);
	for (int level = 1; level < 4; level++) {
		u64 *e = entry(va, level), old = *e;
		set_entry(e, old & ~(u64)W);
		flush();
		check(try_write(va) == 14, "level %d without W can be written", (s64)level);
		set_entry(e, old);
		flush();
		check(try_write(va) == -1, "level %d with W cannot", (s64)level);
	}
	unmap_page(va);
}

/* Entries changed by plain writes, while what they mapped is in use. */
TEST(tables_changed_in_place)
{
	u64 va = SLOT_VA + 0x1080000000;
	u64 *one = page(), *two = page();
	*one = 1, *two = 2;
	map_page(va, frame_of(one) << 12 | P | W);
	volatile u64 *e = entry(va, 0);
	for (int i = 0; i < 2000; i++) {
		u64 *now_there = i & 1 ? two : one;
		*e = frame_of(now_there) << 12 | P | W;
		u64 before = *(volatile u64 *)va;
		check(before == 1 || before == 2, "%x before the flush", before);
		mmuext(INVLPG_LOCAL, va, 0);
		check(*(volatile u64 *)va == *now_there, "the old page after the flush");
	}
	*e = 0;
	flush();
}

/* A table that is mapped as data and as code, and is written meanwhile. */
TEST(tables_as_code)
{
	u64 va = SLOT_VA + 0x10c0000000;
	map_page(va, P | W);
	u64 *table = (u64 *)((u64)entry(va, 0) & ~0xffful);
	for (int i = 0; i < 200; i++) {
		s64 r = try_jump((u64)&table[random() % 512]);
		check(r != -1 || fault.vector < 32, "gave %d", r);
		set_entry(entry(va, 0), frame_of(table) << 12 | P | W);
		mmuext(INVLPG_LOCAL, va, 0);
	}
	unmap_page(va);
}

/* Pages of the monitor's own addresses, user half and folded: they cannot be had. */
TEST(pages_at_monitor_addresses)
{
	static const u64 places[] = { 0x60000, 0x7f000, MONITOR, MONITOR + 0x10000000, MONITOR + 0x10100000, MONITOR + 0x20000000,
		MONITOR + 0x40001000, ARENA, 0x5c8000000000 };
	u64 *p = page();
	*p = 0x1122334455667788;
	for (int i = 0; i < 9; i++) {
		u64 va = places[i];
		map_page(va, frame_of(p) << 12 | P | W | U);
		s64 r = try_read(va);
		check(faulted(r) || (r == -1 && *(volatile u64 *)va == *p), "%x shows something else", va);
		*p = 0x1122334455667788;
		r = try_write(va);
		check(faulted(r) || (r == -1 && (*p & 0xff) == 0x5a), "%x was written", va);
		*p = 0x1122334455667788;
		unmap_page(va);
	}
}

/* The same in user mode. */
TEST(programs_at_monitor_addresses)
{
	static const u64 places[] = { 0x60000, 0x7f000, MONITOR, MONITOR + 0x10100000, MONITOR + 0x20000000, ARENA, 0x5c8000000000 };
	u8 *code = page();
	copy(code, user_code, user_code_end - user_code);
	u64 good = 0x10000000;
	map_page(good, frame_of(code) << 12 | P | U);
	s64 r = run_user(good, good + 4096);
	check(r == 257, "a program that makes a system call gave %d", r);
	for (int i = 0; i < 7; i++) {
		map_page(places[i], frame_of(code) << 12 | P | W | U);
		r = run_user(places[i], good);
		check(r == 13 || r == 14 || r == 6, "a program at %x gave %d", places[i], r);
		unmap_page(places[i]);
	}
	for (int i = 0; i < wilds; i++) {
		r = run_user(wild[i], wild[i]);
		check(r >= 0 && r < 32, "a program at %x gave %d", wild[i], r);
	}
	unmap_page(good);
}

/* More address spaces than there are processes for, each with a program of its own. */
TEST(many_address_spaces)
{
	static u64 *tables[40];
	u8 *code = page();
	copy(code, user_code, user_code_end - user_code);
	u64 va = 0x10000000;
	map_page(va, frame_of(code) << 12 | P | U);
	for (int i = 0; i < 40; i++) {
		tables[i] = page();
		copy(tables[i], top(), 4096);
	}
	for (int i = 0; i < 160; i++) {
		check(mmuext(NEW_BASEPTR, frame_of(tables[i % 40]), 0) == 0, "refused");
		s64 r = run_user(va, va);
		check(r == 257, "a program gave %d", r);
		if (i > 100)
			mmuext(UNPIN, frame_of(tables[i % 40]), 0);
	}
	mmuext(NEW_BASEPTR, root(), 0);
	unmap_page(va);
}

/* The loaded table is given away, and used on. */
TEST(loaded_table_unpinned)
{
	u8 *code = page();
	copy(code, user_code, user_code_end - user_code);
	u64 va = 0x10000000;
	map_page(va, frame_of(code) << 12 | P | U);
	for (int i = 0; i < 50; i++) {
		check(run_user(va, va) == 257, "a program does not run");
		mmuext(UNPIN, root(), 0);
		if (i & 1)
			mmuext(NEW_BASEPTR, root(), 0);
	}
	unmap_page(va);
}

/* A program uses up the host's mappings, one by one, and at each step executes code that its kernel then
 * changes. At one of these steps there is none left to take the kernel's write access from the code's page:
 * what is not looked through anew would be executed. (Where processes keep the two apart, programs may
 * execute it.) A host with more than the usual 65 530 does not come to that step. */
TEST(code_changes_while_mappings_run_out)
{
	/* xor %eax, %eax; xor %ecx, %ecx; xor %edx, %edx; wrpkru; syscall */
	static const u8 forbidden[] = { 0x31, 0xc0, 0x31, 0xc9, 0x31, 0xd2, 0x0f, 0x01, 0xef, 0x0f, 0x05 };
	const u64 va = 0x10000000, singles = 0x4000000000, regions = 262, first = 60000;
	u8 *code = page();
	u64 *table = page(), frame = frame_of(page());
	map_page(va, frame_of(code) << 12 | P | U);
	copy(code, forbidden, sizeof forbidden);
	s64 usual = run_user(va, va);
	check(usual == 6 || usual == 257, "WRPKRU gave %d", usual);
	for (int i = 0; i < 512; i += 2)
		table[i] = frame << 12 | P | W | U;
	for (u64 i = 0; i < regions; i++)
		set_entry(entry(singles + (i << 21), 1), frame_of(table) << 12 | P | W | U);
	for (u64 i = 0; i < regions * 256; i++) {
		if (i >= first)
			copy(code, user_code, user_code_end - user_code);
		*(volatile u8 *)(singles + (i << 13));
		if (i < first)
			continue;
		s64 r = run_user(va, va);
		check(r == 257, "a program gave %d after %d pages", r, i);
		copy(code, forbidden, sizeof forbidden);
		r = run_user(va, va);
		check(r == usual, "WRPKRU gave %d after %d pages", r, i);
	}
	for (u64 i = 0; i < regions; i++)
		set_entry(entry(singles + (i << 21), 1), 0);
	flush();
	unmap_page(va);
}

/* The same with a page that a flush takes out of the middle of others, which takes one more mapping. */
TEST(tables_change_while_mappings_run_out)
{
	const u64 va = 0x10000000, singles = 0x4000000000, regions = 262, first = 65000;
	u64 *whole = page(), *parted = page(), *table = page(), frame = frame_of(page());
	for (int i = 0; i < 512; i += 2)
		table[i] = frame << 12 | P | W | U;
	for (u64 i = 0; i < 3; i++) {
		whole[i] = (frame_of(page()) << 12) | P | U;
		check(i == 0 || whole[i] == whole[i - 1] + 4096, "frames do not follow each other");
		parted[i] = i == 1 ? 0 : whole[i];
	}
	for (u64 i = 0; i < regions; i++)
		set_entry(entry(singles + (i << 21), 1), frame_of(table) << 12 | P | W | U);
	u64 *place = entry(va, 1), before = *place;
	for (u64 i = 0; i < first; i++)
		*(volatile u8 *)(singles + (i << 13));
	for (u64 i = first; i < regions * 256; i++) {
		set_entry(place, frame_of(whole) << 12 | P | W | U);
		for (u64 at = 0; at < 3; at++)
			check(try_read(va + (at << 12)) == -1, "page %d is not there after %d", at, i);
		*(volatile u8 *)(singles + (i << 13));
		set_entry(place, frame_of(parted) << 12 | P | W | U);
		flush();
		for (u64 at = 0; at < 3; at++)
			check(try_read(va + (at << 12)) == (at == 1 ? 14 : -1), "page %d after %d", at, i);
	}
	set_entry(place, before);
	for (u64 i = 0; i < regions; i++)
		set_entry(entry(singles + (i << 21), 1), 0);
	flush();
}
