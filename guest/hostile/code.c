/* Code that changes, lies across pages and at the ends of memory. */
#include "kernel.h"

static int faulted(s64 r) { return r == 13 || r == 14; }

/* mov $value, %eax; ret */
static void write_function(u8 *at, u32 value)
{
	at[0] = 0xb8;
	copy(at + 1, &value, 4);
	at[5] = 0xc3;
}

static u32 call(const void *at)
{
	u32 (*f)(void) = (u32 (*)(void))at;
	return f();
}

TEST(self_modifying_code)
{
	u8 *code = page();
	for (u32 i = 0; i < 5000; i++) {
		write_function(code, i);
		u32 got = call(code);
		check(got == i, "%d instead of %d", (u64)got, (u64)i);
	}
}

/* The same frame at two addresses: written at one, run at the other. */
TEST(code_written_elsewhere)
{
	u8 *code = page();
	u64 va = 0xffffb40000000000;
	map_page(va, frame_of(code) << 12 | P | W);
	for (u32 i = 0; i < 3000; i++) {
		write_function((u8 *)(i & 1 ? va : (u64)code), i);
		u32 got = call((void *)(i & 2 ? va : (u64)code));
		check(got == i, "%d instead of %d", (u64)got, (u64)i);
	}
	unmap_page(va);
}

/* Code that writes over the instruction after itself. */
TEST(code_that_writes_ahead)
{
	static const u8 template[] = {
		0xc6, 0x05, 0x01, 0, 0, 0, 7,	/* movb $7, 1(%rip): the immediate below */
		0xb8, 1, 0, 0, 0,		/* mov $1, %eax */
		0xc3,
	};
	u8 *code = page();
	for (int i = 0; i < 500; i++) {
		copy(code + i, template, sizeof template);
		u32 got = call(code + i);
		check(got == 7 || got == 1, "%d", (u64)got);
		check(call(code + i + 7) == 7, "the old instruction runs again");
	}
}

TEST(code_changed_by_hypercalls)
{
	u8 *code = page(), *other = page();
	for (u32 i = 0; i < 500; i++) {
		write_function(code, 1);
		write_function(other, 2);
		check(call(code) == 1, "the first");
		check(mmuext(COPY_PAGE, frame_of(code), frame_of(other)) == 0, "COPY_PAGE");
		check(call(code) == 2, "COPY_PAGE is not seen");
		struct mmu_update u = { (u64)code - BASE, 0x00000003b8 | 0xc3ul << 40 };
		hc(MMU_UPDATE, &u, 1, 0, 0x7ff0);
		check(call(code) == 3, "mmu_update is not seen");
		hc(UPDATE_DESCRIPTOR, (u64)code - BASE, 0x00000004b8 | 0xc3ul << 40);
		check(call(code) == 4, "update_descriptor is not seen");
	}
}

/* An instruction across two pages whose second page changes, or is not there. */
TEST(code_across_pages)
{
	u8 *one = page(), *two = page(), *three = page();
	u64 va = 0xffffb40000200000;
	map_page(va, frame_of(one) << 12 | P | W);
	for (u32 i = 0; i < 300; i++) {
		u64 at = va + 4096 - 1 - i % 5;
		map_page(va + 4096, frame_of(i & 1 ? two : three) << 12 | P | W);
		write_function((u8 *)at, i);
		check(call((void *)at) == i, "at %x", at);
		unmap_page(va + 4096);
		s64 r = try_jump(at);
		check(r == 14 && fault_address == va + 4096, "without its end it gave %d at %x", r, fault_address);
	}
	unmap_page(va);
}

TEST(code_remapped)
{
	u8 *one = page(), *two = page();
	u64 va = 0xffffb40000400000;
	write_function(one, 1);
	write_function(two, 2);
	for (int i = 0; i < 500; i++) {
		map_page(va, frame_of(i & 1 ? two : one) << 12 | P);
		u32 got = call((void *)va);
		check(got == (i & 1) + 1u, "round %d gave %d", (s64)i, (u64)got);
	}
	unmap_page(va);
	check(faulted(try_jump(va)), "it runs on without a mapping");
}

/* The last page of the address space, and code that runs out of it. */
TEST(code_at_the_end_of_addresses)
{
	u8 *p = page();
	u64 va = 0xfffffffffffff000;
	map_page(va, frame_of(p) << 12 | P | W);
	write_function(p + 4096 - 6, 9);
	check(call((void *)(va + 4096 - 6)) == 9, "the last bytes do not run");
	for (int n = 1; n < 6; n++) {
		fill(p + 4000, 0x90, 96);
		p[4096 - n] = 0xb8;
		s64 r = try_jump(va + 4096 - n);
		check(faulted(r), "%d bytes before the end gave %d", (s64)n, r);
	}
	fill(p + 4000, 0x90, 96);
	check(faulted(try_jump(va + 4090)), "it runs over the end");
	p[4094] = 0x75, p[4095] = 0x7f;
	check(faulted(try_jump(va + 4094)), "a branch over the end");
	unmap_page(va);
}

/* The last frame of RAM; behind it lie frames of the monitor's. */
TEST(code_at_the_end_of_ram)
{
	u8 *at = seen(hc(MEMORY_OP, MAXIMUM_RESERVATION) - 1);
	write_function(at + 4096 - 6, 11);
	check(call(at + 4096 - 6) == 11, "the last bytes do not run");
	fill(at + 4000, 0x90, 96);
	check(faulted(try_jump((u64)at + 4000)), "it runs over the end");
	at[4095] = 0xe8;
	check(faulted(try_jump((u64)at + 4095)), "an instruction over the end");
	at[0] = 0;
}

/* Nonsense is code too: bytes at random, and what starts as real instructions do. It may
 * end this domain, for this kernel's own reasons. */
OWN(random_code)
{
	extern u64 loaded;
	const char *option(const char *);
	const char *seed = option("seed");
	u64 rounds = 0;
	for (; *seed; seed++)
		rounds = rounds * 10 + *seed - '0';
	for (rounds %= 10000; rounds; rounds--)
		random();
	u8 *code = page(), *data = page();
	loaded = (u64)data + 2048;
	for (int round = 0; round < 4000; round++) {
		static const u8 heads[] = { 0x0f, 0x66, 0xf2, 0xf3, 0x48, 0x4c, 0x41, 0xc5, 0xc4, 0x62, 0x8f, 0xf0, 0x65, 0x67, 0xff, 0xd9 };
		for (int i = 0; i < 24; i++)
			code[i] = random() & 1 ? heads[random() % 16] : random();
		code[24] = 0x0f, code[25] = 0x0b;
		attempt(jump_loaded, (u64)code);
	}
	print("survived\n");
}

/* Functions in a row, each run once, and all of them changed: a hundred thousand. */
TEST(much_code)
{
	enum { SIZE = 128 * 1024 };
	static u8 code[SIZE] __attribute__((aligned(4096)));
	for (u32 round = 0; round < 6; round++) {
		for (u32 i = 0; i + 8 <= SIZE; i += 8)
			write_function(code + i, round + i);
		for (u32 i = 0; i + 8 <= SIZE; i += 8)
			check(call(code + i) == round + i, "function %d", (u64)i);
	}
}
