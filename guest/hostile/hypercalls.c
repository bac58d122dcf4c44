/* Hypercalls with wrong numbers, operations, pointers and counts: each gives an error
 * value, and the kernel goes on. */
#include "kernel.h"

/* A pointer at which nothing can be read or written must give EFAULT. */
#define each_wild(at, call) for (int i_ = 0; i_ < wilds; i_++) { \
	u64 at = wild[i_]; \
	s64 r_ = (call); \
	check(r_ == -EFAULT, "%s at %x gave %d", #call, at, r_); \
}
#define gives(value, call) do { \
	s64 r_ = (call); \
	check(r_ == (value), "%s gave %d, expected %d", #call, r_, (s64)(value)); \
} while (0)

static const u64 wild_frames[] = { 0x100000, 0xfffff, 0x10000000, 0xffffffff, 0x100000000, 0x8000000000, 0xfffffffffffff, ~0ul, ~0ul >> 1 };
#define FRAMES (int)(sizeof wild_frames / 8)

static u64 buffer[512] __attribute__((aligned(4096)));

TEST(unknown_numbers)
{
	static const u8 served[] = { 0, 1, 2, 3, 5, 8, 9, 10, 12, 13, 14, 15, 17, 18, 20, 21, 23, 24, 25, 26, 29, 30, 32, 33, 40 };
	for (u64 nr = 0; nr < 300; nr++) {
		int known = 0;
		for (unsigned i = 0; i < sizeof served; i++)
			known |= served[i] == nr;
		if (!known)
			gives(-ENOSYS, hc(nr, buffer, buffer, buffer, buffer, buffer));
	}
	// Performance counters (xenpmu.h): refused as by a Xen without vpmu.
	gives(-EOPNOTSUPP, hc(40, 4, buffer));
	gives(-ENOSYS, hc(~0ul));
	gives(-ENOSYS, hc(1ul << 63));
	gives(-ENOSYS, hc(0x7fffffff));
}

TEST(trap_table_pointers)
{
	for (int i = 0; i < wilds; i++)
		if (wild[i])
			gives(-EFAULT, hc(SET_TRAP_TABLE, wild[i]));
	set_traps();
	gives(6, attempt((void (*)(u64))(u64)"\x0f\x0b", 0));
}

TEST(trap_table_without_end)
{
	struct trap_info *t = page();
	for (int i = 0; i < 256; i++)
		t[i] = (struct trap_info){ 33, 0, 0xe033, 0, 1 };
	gives(0, hc(SET_TRAP_TABLE, t));
	set_traps();
	/* The last page before the unmapped ones: the table runs out of it. */
	u64 va = 0xffffb10000000000;
	map_page(va, frame_of(t) << 12 | P | W);
	gives(-EFAULT, hc(SET_TRAP_TABLE, va + 16));
	unmap_page(va);
	set_traps();
}

TEST(mmu_update_pointers)
{
	struct mmu_update u = { frame_of(buffer) << 12, 7 };
	each_wild(at, hc(MMU_UPDATE, at, 1, 0, 0x7ff0));
	for (int i = 0; i < wilds; i++)
		if (wild[i])
			gives(-EFAULT, hc(MMU_UPDATE, &u, 1, wild[i], 0x7ff0));
	each_wild(at, hc(MMU_UPDATE, at, 1 << 20, 0, 0x7ff0));
}

TEST(mmu_update_counts)
{
	struct mmu_update u = { frame_of(buffer) << 12, 7 };
	for (u64 count = (1 << 20) + 1; count; count <<= 1)
		if (count & 0x7fffffff)
			gives(-EINVAL, hc(MMU_UPDATE, &u, count & 0x7fffffff, 0, 0x7ff0));
	gives(-EINVAL, hc(MMU_UPDATE, &u, 0x7fffffff, 0, 0x7ff0));
	gives(0, hc(MMU_UPDATE, wild[5], 0, 0, 0x7ff0));
}

TEST(mmu_update_frames)
{
	for (int i = 0; i < FRAMES; i++)
		for (int kind = 0; kind < 4; kind += 2) {
			struct mmu_update u = { wild_frames[i] << 12 | kind, ~0ul };
			gives(-EINVAL, hc(MMU_UPDATE, &u, 1, 0, 0x7ff0));
		}
	/* Frames of the monitor's: what lies behind the guest's RAM. */
	u64 limit = hc(MEMORY_OP, MAXIMUM_RESERVATION);
	for (u64 f = limit; f < limit + 100; f++) {
		struct mmu_update u = { f << 12, ~0ul };
		gives(-EINVAL, hc(MMU_UPDATE, &u, 1, 0, 0x7ff0));
	}
}

TEST(mmu_update_kinds)
{
	buffer[0] = 0x1234;
	struct mmu_update u = { frame_of(buffer) << 12 | 3, 7 };
	s64 r = hc(MMU_UPDATE, &u, 1, 0, 0x7ff0);
	check(r == -ENOSYS && buffer[0] == 0x1234, "kind 3 gave %d and wrote %x", r, buffer[0]);
	u.ptr = ~0ul << 2 | 1;
	gives(0, hc(MMU_UPDATE, &u, 1, 0, 0x7ff0));
}

TEST(mmuext_pointers)
{
	each_wild(at, hc(MMUEXT_OP, at, 1, 0, 0x7ff0));
	struct mmuext_op op = { TLB_FLUSH_LOCAL, 0, 0, 0 };
	for (int i = 0; i < wilds; i++)
		if (wild[i])
			gives(-EFAULT, hc(MMUEXT_OP, &op, 1, wild[i], 0x7ff0));
	gives(-EINVAL, hc(MMUEXT_OP, &op, 0x7fffffff, 0, 0x7ff0));
	gives(0, hc(MMUEXT_OP, wild[5], 0, 0, 0x7ff0));
}

TEST(mmuext_unknown)
{
	static const u32 commands[] = { 14, 19, 20, 21, 22, 100, 0x7fffffff, 0x80000000, 0xffffffff };
	for (unsigned i = 0; i < sizeof commands / 4; i++)
		gives(-ENOSYS, mmuext(commands[i], 0, 0));
}

TEST(mmuext_frames)
{
	static const u32 commands[] = { 0, 1, 2, 3, UNPIN, NEW_BASEPTR, NEW_USER_BASEPTR, CLEAR_PAGE, COPY_PAGE };
	u64 limit = hc(MEMORY_OP, MAXIMUM_RESERVATION);
	for (unsigned c = 0; c < sizeof commands / 4; c++) {
		for (int i = 0; i < FRAMES; i++)
			gives(-EINVAL, mmuext(commands[c], wild_frames[i], frame_of(buffer)));
		gives(-EINVAL, mmuext(commands[c], limit, frame_of(buffer)));
		gives(-EINVAL, mmuext(commands[c], limit + 40, frame_of(buffer)));
	}
	for (int i = 0; i < FRAMES; i++)
		gives(-EINVAL, mmuext(COPY_PAGE, frame_of(buffer), wild_frames[i]));
	for (int i = 0; i < wilds; i++)
		gives(0, mmuext(INVLPG_LOCAL, wild[i], 0));
}

TEST(va_mapping_wild)
{
	for (int i = 0; i < wilds; i++)
		if (wild[i] >> 12 != (BASE >> 12) - 1)
			gives(-EINVAL, hc(UPDATE_VA_MAPPING, wild[i], ~0ul, ~0ul));
}

TEST(descriptors)
{
	for (int i = 0; i < FRAMES; i++) {
		gives(-EINVAL, hc(UPDATE_DESCRIPTOR, wild_frames[i] << 12, ~0ul));
		buffer[i] = wild_frames[i];
	}
	u64 limit = hc(MEMORY_OP, MAXIMUM_RESERVATION);
	gives(-EINVAL, hc(UPDATE_DESCRIPTOR, limit << 12, ~0ul));
	/* A call gate into the monitor: written, as it is this kernel's memory, and never loaded. */
	gives(0, hc(UPDATE_DESCRIPTOR, (u64)&buffer[20] - BASE, 0x5c00ec00e0330000));
	s64 r = hc(SET_GDT, buffer, 16);
	check(r == 0 || r == -EINVAL, "set_gdt gave %d", r);
	for (int i = 0; i < wilds; i++) {
		r = hc(SET_GDT, wild[i], ~0ul);
		check(r <= 0, "set_gdt gave %d", r);
		r = mmuext(SET_LDT, wild[i], 0xffffff);
		check(r <= 0, "SET_LDT gave %d", r);
	}
}

TEST(debug_registers)
{
	for (u64 n = 8; n; n <<= 1) {
		gives(-EINVAL, hc(SET_DEBUGREG, n, 1));
		gives(-EINVAL, hc(GET_DEBUGREG, n));
	}
	for (int i = 0; i < wilds; i++)
		for (int n = 0; n < 8; n++)
			hc(SET_DEBUGREG, n, wild[i]);
	for (int n = 0; n < 8; n++)
		hc(SET_DEBUGREG, n, ~0ul);
	hc(FPU_TASKSWITCH, ~0ul);
	for (int n = 0; n < 8; n++)
		hc(SET_DEBUGREG, n, 0);
	hc(FPU_TASKSWITCH, 0);
}

TEST(multicall_pointers)
{
	each_wild(at, hc(MULTICALL, at, 1));
	each_wild(at, hc(MULTICALL, at, 1024));
}

TEST(multicall_counts)
{
	struct multicall_entry e = { .op = XEN_VERSION };
	for (u64 count = 1025; count; count <<= 1)
		gives(-EINVAL, hc(MULTICALL, &e, count));
	gives(-EINVAL, hc(MULTICALL, &e, ~0ul));
	gives(0, hc(MULTICALL, wild[5], 0));
}

TEST(multicall_nested)
{
	struct multicall_entry inner = { .op = XEN_VERSION };
	struct multicall_entry e[3] = {
		{ .op = MULTICALL, .args = { (u64)&inner, 1 } },
		{ .op = MULTICALL, .args = { (u64)e, 3 } },
		{ .op = IRET },
	};
	gives(0, hc(MULTICALL, e, 3));
	for (int i = 0; i < 3; i++)
		check((s64)e[i].result == -ENOSYS, "entry %d gave %d", (s64)i, e[i].result);
	check(inner.result == 0, "the inner call ran");
}

/* A list that a call of its own writes over. */
TEST(multicall_of_itself)
{
	struct multicall_entry *e = page();
	for (int i = 0; i < 63; i++)
		e[i] = (struct multicall_entry){ .op = XEN_VERSION, .args = { 3, (u64)&e[i + 1] } };
	gives(0, hc(MULTICALL, e, 64));
	for (int i = 0; i < 64; i++)
		e[i] = (struct multicall_entry){ .op = MMUEXT_OP, .args = { (u64)&e[i], 1, (u64)&e[i].op } };
	gives(0, hc(MULTICALL, e, 64));
}

/* A thousand calls with random numbers and arguments that are all wrong. */
TEST(multicall_of_nonsense)
{
	static struct multicall_entry e[1024];
	for (int i = 0; i < 1024; i++) {
		static const u8 calls[] = { 1, 10, 12, 13, 14, 17, 20, 24, 26, 30, 32, 33, 40, 99 };
		e[i].op = calls[random() % sizeof calls];
		for (int a = 0; a < 5; a++)
			e[i].args[a] = wild[random() % wilds] | 1ul << 63;
	}
	gives(0, hc(MULTICALL, e, 1024));
	for (int i = 0; i < 1024; i++)
		check((s64)e[i].result < 0 || e[i].op == 17 || e[i].op == 26 || e[i].op == 1 || e[i].op == 20, "call %d gave %d", e[i].op, e[i].result);
}

TEST(version_pointers)
{
	static const u8 operations[] = { 1, 2, 3, 4, 5, 6, 8, 9 };
	for (unsigned o = 0; o < sizeof operations; o++)
		each_wild(at, hc(XEN_VERSION, operations[o], at));
	for (u64 op = 11; op; op <<= 1)
		gives(-ENOSYS, hc(XEN_VERSION, op, buffer));
	/* The machine-to-physical table cannot be written. */
	gives(-EFAULT, hc(XEN_VERSION, 3, M2P));
}

TEST(console_io)
{
	each_wild(at, hc(CONSOLE_IO, 0, 1, at));
	each_wild(at, hc(CONSOLE_IO, 0, ~0ul, at));
	for (u64 op = 1; op; op <<= 1) {
		s64 r = hc(CONSOLE_IO, op, 100, wild[5]);
		check(r <= 0, "operation %d gave %d", op, r);
	}
	gives(0, hc(CONSOLE_IO, 0, 0, wild[5]));
}

TEST(grant_pointers)
{
	each_wild(at, hc(GRANT_TABLE_OP, 2, at, 1));
	each_wild(at, hc(GRANT_TABLE_OP, 6, at, 1));
	each_wild(at, hc(GRANT_TABLE_OP, 8, at, 1));
	each_wild(at, hc(GRANT_TABLE_OP, 10, at, 1));
	for (int i = 0; i < wilds; i++) {
		struct setup_table s = { 0x7ff0, 0, 4, 0, { 0 }, wild[i] };
		gives(-EFAULT, hc(GRANT_TABLE_OP, 2, &s, 1));
	}
}

TEST(grant_numbers)
{
	struct setup_table s = { 0x7ff0, 0, 0, 0, { 0 }, (u64)buffer };
	static const u32 many[] = { 33, 1000, 0x7fffffff, 0x80000000, 0xffffffff };
	for (int i = 0; i < 5; i++) {
		s.frames = many[i];
		gives(0, hc(GRANT_TABLE_OP, 2, &s, 1));
		check(s.status < 0, "%d frames gave status %d", (u64)many[i], (s64)s.status);
	}
	s.frames = 1;
	s.dom = 0x1234;
	hc(GRANT_TABLE_OP, 2, &s, 1);
	check(s.status < 0, "a foreign domain gave status %d", (s64)s.status);
	static const u64 counts[] = { 2, 100, 0xffffffff, ~0ul };
	for (int i = 0; i < 4; i++)
		gives(-ENOSYS, hc(GRANT_TABLE_OP, 2, &s, counts[i]));
	for (u64 op = 0; op < 40; op++)
		if (op != 2 && op != 6 && op != 8 && op != 10)
			gives(-ENOSYS, hc(GRANT_TABLE_OP, op, buffer, 1));
	gives(-ENOSYS, hc(GRANT_TABLE_OP, ~0ul, buffer, 1));
}

TEST(vcpu_operations)
{
	static const u64 vcpus[] = { 1, 2, 0xffffffff, 0x100000000, ~0ul };
	for (int i = 0; i < 5; i++)
		for (u64 op = 0; op < 16; op++)
			gives(-ENOENT, hc(VCPU_OP, op, vcpus[i], buffer));
	each_wild(at, hc(VCPU_OP, 4, 0, at));
	each_wild(at, hc(VCPU_OP, 5, 0, at));
	each_wild(at, hc(VCPU_OP, 8, 0, at));
	each_wild(at, hc(VCPU_OP, 10, 0, at));
	each_wild(at, hc(VCPU_OP, 13, 0, at));
	for (int i = 1; i < wilds; i++) {
		buffer[0] = wild[i];
		gives(-EFAULT, hc(VCPU_OP, 5, 0, buffer));
		gives(-EFAULT, hc(VCPU_OP, 13, 0, buffer));
	}
	for (u64 op = 14; op; op <<= 1)
		gives(-ENOSYS, hc(VCPU_OP, op, 0, buffer));
}

TEST(vcpu_info_place)
{
	static const u32 offsets[] = { 1, 4, 4096 - 56, 4088, 4096, 0x7ffffff8, 0x80000000, 0xfffffff8, 0xffffffff };
	for (int i = 0; i < 9; i++) {
		u64 where[2] = { frame_of(buffer), offsets[i] };
		gives(-EINVAL, hc(VCPU_OP, 10, 0, where));
	}
	for (int i = 0; i < FRAMES; i++) {
		u64 where[2] = { wild_frames[i], 0 };
		gives(-EINVAL, hc(VCPU_OP, 10, 0, where));
	}
	u64 where[2] = { hc(MEMORY_OP, MAXIMUM_RESERVATION), 0 };
	gives(-EINVAL, hc(VCPU_OP, 10, 0, where));
}

TEST(segment_bases)
{
	for (u64 which = 4; which; which <<= 1)
		gives(-EINVAL, hc(SET_SEGMENT_BASE, which, 0));
	for (int i = 0; i < wilds; i++)
		for (u64 which = 0; which < 4; which++) {
			s64 r = hc(SET_SEGMENT_BASE, which, wild[i]);
			check(r == 0 || r == -EINVAL, "base %d = %x gave %d", which, wild[i], r);
			/* What is used of it faults, or does not. */
			__asm__ volatile("nop");
		}
	for (u64 which = 0; which < 3; which++)
		gives(0, hc(SET_SEGMENT_BASE, which, 0));
}

TEST(other_operations)
{
	for (u64 op = 0; op < 64; op++) {
		s64 r = hc(PHYSDEV_OP, op, wild[op % wilds]);
		check(r == 0 || r == -ENOSYS, "physdev %d gave %d", op, r);
		r = hc(VM_ASSIST, op, ~0ul);
		check(r <= 0, "vm_assist gave %d", r);
	}
	gives(0, hc(STACK_SWITCH, ~0ul, ~0ul));
	gives(0, hc(STACK_SWITCH, 0x2b, MONITOR));
}

TEST(callbacks)
{
	each_wild(at, hc(CALLBACK_OP, 0, at));
	each_wild(at, hc(CALLBACK_OP, 2, at));
	static const u16 types[] = { 8, 9, 255, 256, 0x7fff, 0x8000, 0xffff };
	for (int i = 0; i < 7; i++) {
		struct callback c = { types[i], 0xffff, 0, ~0ul };
		gives(-EINVAL, hc(CALLBACK_OP, 0, &c));
		gives(-EINVAL, hc(CALLBACK_OP, 2, &c));
	}
	struct callback c = { 1, 0, 0, 0 };
	for (u64 op = 3; op; op <<= 1)
		gives(-ENOSYS, hc(CALLBACK_OP, op, &c));
}

/* Structures that begin on a mapped page and end on an unmapped one. */
TEST(page_crossing)
{
	u64 va = 0xffffb10000001000, last = va + 4096 - 4;
	map_page(va, frame_of(page()) << 12 | P | W);
	gives(-EFAULT, hc(SET_TRAP_TABLE, last));
	gives(-EFAULT, hc(MMU_UPDATE, last, 1, 0, 0x7ff0));
	gives(-EFAULT, hc(MMUEXT_OP, last, 1, 0, 0x7ff0));
	gives(-EFAULT, hc(MULTICALL, last, 1));
	*(u64 *)(va + 4096 - 64) = XEN_VERSION;
	gives(-EFAULT, hc(MULTICALL, va + 4096 - 64, 2));
	gives(-EFAULT, hc(MEMORY_OP, DECREASE, last));
	gives(-EFAULT, hc(MEMORY_OP, POPULATE, last));
	gives(-EFAULT, hc(MEMORY_OP, EXCHANGE, last));
	gives(-EFAULT, hc(MEMORY_OP, MEMORY_MAP, last));
	gives(-EFAULT, hc(MEMORY_OP, MACHPHYS_MAPPING, last));
	gives(-EFAULT, hc(XEN_VERSION, 6, last));
	gives(-EFAULT, hc(CONSOLE_IO, 0, 5, last));
	gives(-EFAULT, hc(GRANT_TABLE_OP, 6, last, 1));
	gives(-EFAULT, hc(VCPU_OP, 8, 0, last));
	gives(-EFAULT, hc(SCHED_OP, SCHED_POLL, last));
	gives(-EFAULT, hc(SCHED_OP, SCHED_SHUTDOWN, last + 1));
	gives(-EFAULT, hc(CALLBACK_OP, 0, last));
	gives(-EFAULT, hc(EVENT_CHANNEL_OP, BIND_VIRQ, last));
	gives(-EFAULT, hc(EVENT_CHANNEL_OP, BIND_IPI, last));
	unmap_page(va);
}

/* The last frame of RAM, used to its last byte. */
TEST(last_byte_of_ram)
{
	u8 *at = seen(hc(MEMORY_OP, MAXIMUM_RESERVATION) - 1);
	at[4095] = '\n';
	gives(1, hc(CONSOLE_IO, 0, 1, at + 4095));
	gives(-EFAULT, hc(CONSOLE_IO, 0, 2, at + 4095));
	gives(0, hc(XEN_VERSION, 6, at + 4088));
	gives(-EFAULT, hc(XEN_VERSION, 6, at + 4092));
	gives(-EFAULT, hc(MULTICALL, at + 4040, 1));
}

/* Arguments may lie in the user half: it is this kernel's to map. */
TEST(arguments_in_the_user_half)
{
	u64 va = 0x10000000;
	u64 *p = page();
	p[0] = 0;
	map_page(va, frame_of(p) << 12 | P | W | U);
	gives(0, hc(XEN_VERSION, 6, va));
	check(p[0] >> 32 != 0, "nothing was written");
	gives(-EFAULT, hc(XEN_VERSION, 6, va + 4092));
	gives(-EFAULT, hc(XEN_VERSION, 6, va | 1ul << 48));
	unmap_page(va);
}
