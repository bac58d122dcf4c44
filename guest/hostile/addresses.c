/* Accesses, jumps and stacks at addresses that are nobody's: an exception each time,
 * with the address it was. */
#include "kernel.h"

static int faulted(s64 r) { return r == 12 || r == 13 || r == 14; }
static int canonical(u64 va) { return (u64)((s64)(va << 16) >> 16) == va; }
/* Reads of what folds onto the monitor are this domain's business (docs/threat-model.md). */
static int is_folded_monitor(u64 va) { return va - UNFOLD(MONITOR) < 0x28000000000; }

static void right_address(u64 va)
{
	if (fault.vector == 14 && canonical(va))
		check(fault_address == va, "CR2 is %x instead of %x", fault_address, va);
	/* What reaches into the kernel half may fault for that. */
	if (!canonical(va) && !canonical(va + 512))
		check(fault.vector == 13 || fault.vector == 12, "%x gave exception %d", va, fault.vector);
}

TEST(wild_reads)
{
	for (int i = 0; i < wilds; i++) {
		if (is_folded_monitor(wild[i]))
			continue;
		s64 r = try_read(wild[i]);
		check(faulted(r), "%x gave %d", wild[i], r);
		right_address(wild[i]);
	}
}

TEST(wild_writes)
{
	for (int i = 0; i < wilds; i++) {
		if (is_folded_monitor(wild[i]))
			continue;
		s64 r = try_write(wild[i]);
		check(faulted(r), "%x gave %d", wild[i], r);
		right_address(wild[i]);
	}
	check(try_write(M2P) == 14, "the machine-to-physical table can be written");
	check(try_read(M2P) == -1, "the machine-to-physical table cannot be read");
}

TEST(wild_jumps)
{
	for (int i = 0; i < wilds; i++) {
		s64 r = try_jump(wild[i]);
		check(faulted(r), "%x gave %d", wild[i], r);
	}
	/* Gates, translated code and tables of the monitor, seen from here. */
	for (u64 va = MONITOR; va < MONITOR + 0x200000; va += 0x1001)
		check(faulted(try_jump(va)), "%x can be jumped to", va);
	for (u64 va = MONITOR + 0x20000000; va < MONITOR + 0x20100000; va += 0x10010)
		check(faulted(try_jump(va)), "%x can be jumped to", va);
	for (u64 va = UNFOLD(MONITOR); va < UNFOLD(MONITOR) + 0x200000; va += 0x10010)
		check(faulted(try_jump(va)), "%x can be jumped to", va);
}

static void call_it(u64 va) { __asm__ volatile("call *%0" : : "r"(va) : "memory"); }
static void return_to_it(u64 va) { __asm__ volatile("push %0; ret" : : "r"(va) : "memory"); }
static void far_return(u64 va) { __asm__ volatile("push $0xe033; push %0; lretq" : : "r"(va) : "memory"); }
static void call_in_memory(u64 va) { __asm__ volatile("call *(%0)" : : "r"(va) : "memory"); }

TEST(wild_calls_and_returns)
{
	for (int i = 0; i < wilds; i++) {
		check(faulted(attempt(call_it, wild[i])), "a call of %x", wild[i]);
		check(faulted(attempt(return_to_it, wild[i])), "a return to %x", wild[i]);
		check(faulted(attempt(far_return, wild[i])), "a far return to %x", wild[i]);
		if (!is_folded_monitor(wild[i]))
			check(faulted(attempt(call_in_memory, wild[i])), "a call through %x", wild[i]);
	}
}

/* Hypercalls whatever the stack pointer is: they do not use it. */
TEST(hypercalls_on_wild_stacks)
{
	for (int i = 0; i < wilds; i++) {
		u64 r = call_with_stack(wild[i]);
		check(r == 4096, "with a stack at %x gave %d", wild[i], r);
	}
}

#define INSTRUCTION(name, text) static void name(u64 va) { \
	__asm__ volatile(text : : "D"(va), "S"(va), "c"(16ul), "a"(0ul), "d"(0ul) : "memory", "r8", "rbx", "cc"); }
INSTRUCTION(rep_movs, "rep movsb")
INSTRUCTION(rep_stos, "rep stosq")
INSTRUCTION(cmps, "repe cmpsb")
INSTRUCTION(scas, "repne scasb")
INSTRUCTION(lods, "lodsq")
INSTRUCTION(exchange, "xchg %%rax, (%%rdi)")
INSTRUCTION(locked, "lock incq (%%rdi)")
INSTRUCTION(wide, "lock cmpxchg16b (%%rdi)")
INSTRUCTION(vector, "movups %%xmm0, (%%rdi)")
INSTRUCTION(vector_load, "movdqu (%%rdi), %%xmm0")
INSTRUCTION(masked, "pxor %%xmm1, %%xmm1; pcmpeqb %%xmm0, %%xmm0; maskmovdqu %%xmm0, %%xmm0")
INSTRUCTION(translate_byte, "mov %%rdi, %%rbx; xlatb")
INSTRUCTION(save_state, "mov $7, %%eax; xor %%edx, %%edx; fxsave (%%rdi)")
INSTRUCTION(load_state, "fxrstor (%%rdi)")
INSTRUCTION(x87, "fnstenv (%%rdi)")
INSTRUCTION(push_memory, "push (%%rdi)")
INSTRUCTION(pop_memory, "push %%rax; pop (%%rdi)")
INSTRUCTION(bit_test, "bts %%rcx, (%%rdi)")
INSTRUCTION(prefixed, "movb %%al, %%gs:(%%rdi)")
INSTRUCTION(fs_prefixed, "movb %%al, %%fs:(%%rdi)")

/* All kinds of instructions that reach memory, on all wild addresses. */
TEST(wild_operands)
{
	static void (*const each[])(u64) = { rep_movs, rep_stos, cmps, scas, lods, exchange, locked, wide, vector, vector_load, masked,
		translate_byte, save_state, load_state, x87, push_memory, pop_memory, bit_test, prefixed };
	for (unsigned n = 0; n < sizeof each / 8; n++)
		for (int i = 0; i < wilds; i++) {
			if (is_folded_monitor(wild[i]))
				continue;
			s64 r = attempt(each[n], wild[i] & ~0xful);
			/* Some have no form for user memory, as Linux has no use for it: #UD. */
			int left_out = each[n] == masked || each[n] == translate_byte || each[n] == push_memory || each[n] == pop_memory;
			u64 va = wild[i] & ~0xful;
			if (r == 14)
				check(fault_address - va < 1024, "CR2 is %x instead of %x", fault_address, va);
			if (r == 14 && !canonical(va) && !canonical(va + 512))
				check(0, "instruction %d at %x gave a page fault", (u64)n, va);
			check(faulted(r) || (r == 6 && left_out), "instruction %d at %x gave %d", (u64)n, wild[i], r);
		}
}

/* The bases of FS and GS are wild too. */
TEST(wild_bases)
{
	for (int i = 0; i < wilds; i++) {
		if (is_folded_monitor(wild[i]))
			continue;
		hc(SET_SEGMENT_BASE, 2, wild[i]);
		hc(SET_SEGMENT_BASE, 0, wild[i]);
		s64 r = attempt(prefixed, 0);
		check(r == -1 || faulted(r), "GS base %x gave %d", wild[i], r);
		attempt(fs_prefixed, 0);
		hc(SET_SEGMENT_BASE, 2, 0);
		hc(SET_SEGMENT_BASE, 0, 0);
	}
}

static void copy_up(u64 va) { __asm__ volatile("rep movsb" : : "D"(va), "S"(va), "c"(~0ul) : "memory"); }
static void copy_down(u64 va) { __asm__ volatile("std; rep movsq; cld" : : "D"(va), "S"(va), "c"(~0ul) : "memory"); }

/* String instructions that never end: they do, where memory does. */
TEST(endless_strings)
{
	u64 va = 0xffffb30000000000;
	map_page(va, frame_of(page()) << 12 | P | W);
	check(attempt(copy_up, va + 100) == 14 && fault_address == va + 4096, "upwards: %d at %x", fault.vector, fault_address);
	check(fault.rdi == va + 4096, "RDI is %x", fault.rdi);
	check(attempt(copy_down, va + 96) == 14 && fault_address < va, "downwards: %d at %x", fault.vector, fault_address);
	unmap_page(va);
	va = 0x20000000;
	map_page(va, frame_of(page()) << 12 | P | W | U);
	check(attempt(copy_up, va + 100) == 14 && fault_address == va + 4096, "user half: %d at %x", fault.vector, fault_address);
	unmap_page(va);
}

/* LODS, CMPS and SCAS on user memory do what they do on the kernel's own. */
static u64 compared[5];
static void compare_strings(u64 base)
{
	__asm__ volatile("cmp %%eax, %%eax; repe cmpsb; pushfq; pop %2; mov %%rsi, %0; mov %%rcx, %1"
		: "=m"(compared[0]), "=m"(compared[1]), "=m"(compared[2]) : "S"(base), "D"(base + 64), "c"(20ul) : "memory", "cc");
	__asm__ volatile("repne scasw; mov %%rdi, %0" : "=m"(compared[3]) : "D"(base), "c"(60ul), "a"(0x4142ul) : "memory", "cc");
	__asm__ volatile("lodsl; mov %%rax, %0" : "=m"(compared[4]) : "S"(base + 1), "a"(~0ul) : "memory");
}

TEST(strings_on_user_memory)
{
	u64 va = 0x20000000, *p = page(), expected[5];
	copy((u8 *)p + 8, "same as that", 12);
	copy((u8 *)p + 72, "same as This", 12);
	copy((u8 *)p + 40, "BA", 2);
	map_page(va, frame_of(p) << 12 | P | W | U);
	for (int i = 0; i < 3; i++) {
		check(attempt(compare_strings, (u64)p) == -1, "kernel memory faults");
		copy(expected, compared, sizeof expected);
		check(attempt(compare_strings, va) == -1, "user memory faults");
		for (int w = 0; w < 5; w++) {
			u64 base = w == 0 || w == 3 ? va - (u64)p : 0;
			check(compared[w] == expected[w] + base, "result %d is %x instead of %x", (s64)w, compared[w], expected[w] + base);
		}
	}
	unmap_page(va);
}

static void divide(u64 by) { __asm__ volatile("xor %%edx, %%edx; mov $1, %%eax; div %0" : : "r"(by) : "rax", "rdx"); }
static void simd(u64 unused) {
	static const u32 csr = 0x1f80 & ~(1 << 9);
	static const u32 all = 0x1f80;
	(void)unused;
	__asm__ volatile("ldmxcsr %0; xorps %%xmm0, %%xmm0; mov $1, %%eax; cvtsi2ss %%eax, %%xmm1; divss %%xmm0, %%xmm1; ldmxcsr %1"
		: : "m"(csr), "m"(all) : "rax");
}
static void simd_reset(u64 unused) { static const u32 all = 0x1f80; (void)unused; __asm__ volatile("ldmxcsr %0" : : "m"(all)); }
static void float87(u64 unused) {
	static const u16 cw = 0x37b;
	(void)unused;
	__asm__ volatile("fninit; fldcw %0; fldz; fld1; fdivp; fwait" : : "m"(cw));
}
static void float87_reset(u64 unused) { (void)unused; __asm__ volatile("fninit"); }
static void divide_stack(u64 unused) { (void)unused; __asm__ volatile("mov $-1, %%edx; div %%esp" : : : "rax", "rdx"); }
static void bad_csr(u64 unused) { static const u32 csr = ~0u; (void)unused; __asm__ volatile("ldmxcsr %0" : : "m"(csr)); }

TEST(arithmetic_faults)
{
	check(attempt(divide, 0) == 0, "division by zero");
	check(attempt(simd, 0) == 19, "SIMD division by zero");
	attempt(simd_reset, 0);
	check(attempt(float87, 0) == 16, "x87 division by zero");
	attempt(float87_reset, 0);
	check(attempt(divide_stack, 0) == 0, "division by the stack pointer");
	check(attempt(bad_csr, 0) == 13, "reserved bits of MXCSR");
}
