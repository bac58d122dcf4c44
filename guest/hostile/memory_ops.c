/* Memory reservations (memory.h): wild pointers, counts and frames; memory in use
 * given away. */
#include "kernel.h"

#define gives(value, call) do { \
	s64 r_ = (call); \
	check(r_ == (s64)(value), "%s gave %d, expected %d", #call, r_, (s64)(value)); \
} while (0)

static u64 list[512];

static s64 change(u64 op, u64 at, u64 count, u32 order)
{
	struct reservation r = { at, count, order, 0, 0x7ff0, { 0 } };
	return hc(MEMORY_OP, op, &r);
}

TEST(memory_op_pointers)
{
	static const u8 operations[] = { DECREASE, POPULATE, MEMORY_MAP, EXCHANGE, MACHPHYS_MAPPING };
	for (unsigned o = 0; o < sizeof operations; o++)
		for (int i = 0; i < wilds; i++)
			gives(-EFAULT, hc(MEMORY_OP, operations[o], wild[i]));
	for (int i = 0; i < wilds; i++) {
		u64 map[2] = { 1, wild[i] };
		gives(-EFAULT, hc(MEMORY_OP, MEMORY_MAP, map));
		gives(0, change(DECREASE, wild[i], ~0ul, 0));
		gives(0, change(POPULATE, wild[i], ~0ul, 0));
	}
	u64 map[2] = { 0, (u64)list };
	gives(-EINVAL, hc(MEMORY_OP, MEMORY_MAP, map));
}

TEST(memory_op_unknown)
{
	for (u64 op = 0; op < 64; op++)
		if (op != DECREASE && op != MAXIMUM_RAM_PAGE && op != CURRENT_RESERVATION && op != MAXIMUM_RESERVATION
			&& op != POPULATE && op != MEMORY_MAP && op != EXCHANGE && op != MACHPHYS_MAPPING)
			gives(-ENOSYS, hc(MEMORY_OP, op, list));
}

TEST(memory_op_orders)
{
	static const u32 orders[] = { 10, 31, 32, 63, 64, 65, 0x7fffffff, 0xffffffff };
	for (int i = 0; i < 8; i++) {
		gives(-EINVAL, change(DECREASE, (u64)list, 1, orders[i]));
		gives(-EINVAL, change(POPULATE, (u64)list, 1, orders[i]));
	}
}

TEST(memory_op_frames)
{
	u64 limit = hc(MEMORY_OP, MAXIMUM_RESERVATION), before = hc(MEMORY_OP, CURRENT_RESERVATION);
	const u64 frames[] = { limit, limit + 1, 0xffffffff, 0x100000000, ~0ul, ~0ul - 511, ~0ul >> 1, 1ul << 52 };
	for (int i = 0; i < 8; i++) {
		list[0] = frames[i];
		gives(0, change(DECREASE, (u64)list, 1, 0));
		gives(0, change(POPULATE, (u64)list, 1, 0));
		gives(0, change(DECREASE, (u64)list, 1, 9));
		gives(0, change(POPULATE, (u64)list, 1, 9));
	}
	list[0] = limit - 511;
	gives(0, change(DECREASE, (u64)list, 1, 9));
	gives(before, hc(MEMORY_OP, CURRENT_RESERVATION));
}

/* Memory beyond what the domain may have. */
TEST(memory_beyond_maxmem)
{
	u64 limit = hc(MEMORY_OP, MAXIMUM_RESERVATION);
	for (int i = 0; i < 512; i++)
		list[i] = limit + i;
	gives(0, change(POPULATE, (u64)list, 512, 0));
	for (int round = 0; round < 100; round++) {
		for (int i = 0; i < 512; i++)
			list[i] = random() % limit;
		/* It has them already, or as many as it may. */
		s64 done = change(POPULATE, (u64)list, 512, 0);
		check(done >= 0 && done <= 512, "populated %d", done);
		u64 have = hc(MEMORY_OP, CURRENT_RESERVATION);
		check(have <= limit, "%d pages of %d", have, limit);
	}
}

/* Frames given away more often than there are: the numbers stay within bounds. The upper half of memory is free. */
TEST(memory_given_away_again)
{
	u64 limit = hc(MEMORY_OP, MAXIMUM_RESERVATION);
	for (u64 round = 0; round < 4 * limit / 512; round++) {
		for (int i = 0; i < 512; i++)
			list[i] = limit / 2 + 512 + random() % (limit / 2 - 512);
		change(DECREASE, (u64)list, 512, 0);
	}
	s64 have = hc(MEMORY_OP, CURRENT_RESERVATION);
	check(have >= 0 && (u64)have <= limit, "%d pages are left", have);
	for (u64 round = 0; round < 8 * limit / 512; round++) {
		for (int i = 0; i < 512; i++)
			list[i] = limit / 2 + 512 + random() % (limit / 2 - 512);
		change(POPULATE, (u64)list, 512, 0);
	}
	have = hc(MEMORY_OP, CURRENT_RESERVATION);
	check(have > 0 && (u64)have <= limit, "%d pages after all came back", have);
}

/* A list as long as memory is mapped: it ends, and so does the call. */
TEST(memory_op_endless_list)
{
	u64 *p = page();
	u64 va = 0xffffb20000000000;
	for (u64 i = 0; i < 512; i++)
		map_page(va + i * 4096, frame_of(p) << 12 | P | W);
	s64 done = change(DECREASE, va, ~0ul, 0);
	check(done >= 0 && done <= 512 * 512, "gave %d", done);
	change(POPULATE, va, ~0ul, 9);
	for (u64 i = 0; i < 512; i++)
		unmap_page(va + i * 4096);
}
