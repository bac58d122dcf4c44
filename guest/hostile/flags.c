/* IRET frames and flags: wild selectors, addresses, TF, NT, AC, IOPL, VM; single steps
 * through hypercalls. */
#include "kernel.h"

enum { TF = 0x100, IF = 0x200, DF = 0x400, IOPL = 0x3000, NT = 0x4000, RF = 0x10000, VM = 0x20000, AC = 0x40000, VIF = 0x80000, ID = 0x200000 };

static u64 frame[9];

static s64 iret_with(u64 rip, u64 cs, u64 flags, u64 rsp, u64 ss)
{
	u64 values[9] = { 1, 2, 3, 0, rip, cs, flags, rsp, ss };
	copy(frame, values, sizeof frame);
	return attempt(iret_to, (u64)frame);
}

TEST(iret_flags)
{
	u64 stack[64];
	for (int bit = 0; bit < 64; bit++) {
		s64 r = iret_with((u64)iret_landing, 0xe030, 1ul << bit, (u64)&stack[60], 0xe02b);
		check(r == -2 || r == 1, "bit %d gave %d", (s64)bit, r);
		check(!(landed_flags & (TF | NT | VM | IOPL)), "bit %d left flags %x", (s64)bit, landed_flags);
	}
	s64 r = iret_with((u64)iret_landing, 0xe030, ~0ul, (u64)&stack[60], 0xe02b);
	check(r == -2 || r == 1, "all bits gave %d", r);
	shared->vcpu[0].mask = 1;
}

/* The kernel's selector, or a program's: others are refused or mean one of these. */
TEST(iret_selectors)
{
	u64 stack[64];
	for (u64 cs = 0; cs < 0x10000; cs += cs < 0x100 ? 1 : 0x7b) {
		s64 r = iret_with((u64)iret_landing, cs, 2, (u64)&stack[60], cs);
		check(r == -2 || (r >= 0 && r < 32), "selector %x gave %d", cs, r);
		r = iret_with((u64)iret_landing, cs | random() << 16, 2, (u64)&stack[60], random());
		check(r == -2 || (r >= 0 && r < 32), "selector %x gave %d", cs, r);
	}
	shared->vcpu[0].mask = 1;
}

TEST(iret_addresses)
{
	for (int i = 0; i < wilds; i++) {
		s64 r = iret_with(wild[i], 0xe030, 2, (u64)stack_end - 30000, 0xe02b);
		check(r == 13 || r == 14, "kernel at %x gave %d", wild[i], r);
		r = iret_with(wild[i], 0x33, 2, wild[i], 0x2b);
		check(r >= 0 && r < 32, "program at %x gave %d", wild[i], r);
	}
	shared->vcpu[0].mask = 1;
}

TEST(native_iret)
{
	for (int i = 0; i < wilds; i++) {
		u64 values[5] = { wild[i], 0xe033, ~0ul & ~(u64)TF, (u64)stack_end - 30000, 0xe02b };
		copy(frame, values, sizeof values);
		s64 r = attempt(native_iret_to, (u64)frame);
		check(r == 13 || r == 14, "kernel at %x gave %d", wild[i], r);
		values[1] = 0x33;
		copy(frame, values, sizeof values);
		r = attempt(native_iret_to, (u64)frame);
		check(r >= 0 && r < 32, "program at %x gave %d", wild[i], r);
	}
	shared->vcpu[0].mask = 1;
}

static u64 flags_after;
static void pop_flags(u64 flags)
{
	__asm__ volatile("push %1; popfq; mov %1, %%rax; mov $17, %%eax; mov $7, %%edi; xor %%esi, %%esi; syscall;"
		"pushfq; pop %0; push $2; popfq" : "=m"(flags_after) : "r"(flags) : "rax", "rcx", "rdx", "rdi", "rsi", "r11", "memory", "cc");
}

/* Flags that the kernel sets by POPF, through a hypercall. */
TEST(popf_flags)
{
	for (int bit = 0; bit < 64; bit++) {
		s64 r = attempt(pop_flags, 1ul << bit);
		check(r == -1 || r == 1 || r == 17, "bit %d gave %d", (s64)bit, r);
	}
	for (int i = 0; i < 200; i++) {
		u64 flags = random() & ~(u64)TF;
		s64 r = attempt(pop_flags, flags);
		check(r == -1 || r == 17, "flags %x gave %d", flags, r);
		check(!(flags_after & VM) && !(flags_after & IOPL), "flags %x are there", flags_after);
	}
}

static void aligned_check(u64 at)
{
	__asm__ volatile("push $0x40202; popfq; mov (%0), %%rax; push $0x202; popfq" : : "r"(at) : "rax", "memory", "cc");
}

/* With AC set a misaligned access may fault here, and must not elsewhere. */
TEST(alignment_checks)
{
	static u8 bytes[64] __attribute__((aligned(64)));
	for (int i = 0; i < 16; i++) {
		s64 r = attempt(aligned_check, (u64)bytes + i);
		check(r == -1 || r == 17, "offset %d gave %d", (s64)i, r);
	}
	struct multicall_entry calls[4] = { { .op = XEN_VERSION, .args = { 7 } } };
	for (int i = 0; i < 8; i++) {
		u8 *at = bytes + i;
		copy(at, calls, 40);
		s64 r;
		__asm__ volatile("push $0x40202; popfq; syscall; push $0x202; popfq" : "=a"(r)
			: "0"(XEN_VERSION), "D"(3ul), "S"(at + 1) : "rcx", "r11", "memory", "cc");
		check(r == 0, "a hypercall with AC gave %d", r);
	}
}

/* With DF set strings go down: the monitor's must not. */
TEST(direction_flag)
{
	for (int i = 0; i < 20; i++) {
		s64 r;
		static u8 text[2048];
		__asm__ volatile("std; syscall; cld" : "=a"(r) : "0"(XEN_VERSION), "D"(3ul), "S"(text) : "rcx", "r11", "rdx", "memory", "cc");
		check(r == 0 && text[0] == 'x' && text[1] == 'e', "gave %d, %x", r, (u64)text[0]);
		__asm__ volatile("std; syscall; cld" : "=a"(r) : "0"(CONSOLE_IO), "D"(0ul), "S"(0ul), "d"(text) : "rcx", "r11", "memory", "cc");
		check(r == 0, "gave %d", r);
	}
}

static u64 steps;
static void count_step(struct frame *f)
{
	if (f->vector != 1) {
		on_trap = 0;
		fault = *f;
		attempt_back(f->vector);
	}
	steps++;
}

static void stepped(u64 unused)
{
	(void)unused;
	__asm__ volatile("push $0x102; popfq; mov $17, %%eax; mov $7, %%edi; xor %%esi, %%esi; syscall; nop; nop; syscall; cpuid;"
		"push $2; popfq" : : : "rax", "rbx", "rcx", "rdx", "rdi", "rsi", "r11", "memory", "cc");
}

/* Single steps over hypercalls and emulated instructions: ended by the kernel or ignored. */
TEST(single_steps)
{
	on_trap = count_step;
	s64 r = attempt(stepped, 0);
	on_trap = 0;
	check(r == -1, "gave %d after %d steps", r, steps);
	check(steps < 100, "%d steps", steps);
}

/* A program in single steps with every flag that it may set. */
TEST(programs_with_wild_flags)
{
	u8 *code = page();
	copy(code, user_code, user_code_end - user_code);
	u64 va = 0x10000000;
	map_page(va, frame_of(code) << 12 | P | U);
	hc(STACK_SWITCH, 0x2b, (u64)stack_end - 40000);
	for (int bit = 0; bit < 64; bit++) {
		s64 r = iret_with(va, 0x33, 1ul << bit, va, 0x2b);
		check(r == 257 || r == 1, "bit %d gave %d", (s64)bit, r);
	}
	unmap_page(va);
	shared->vcpu[0].mask = 1;
}

/* INT n of the kernel: to its own handlers or #GP. */
#define INT(n) static void int_##n(u64 unused) { (void)unused; __asm__ volatile("int $" #n); }
INT(0) INT(1) INT(2) INT(3) INT(4) INT(8) INT(13) INT(14) INT(15) INT(18) INT(32) INT(100) INT(128) INT(130) INT(255)
static void int1(u64 unused) { (void)unused; __asm__ volatile(".byte 0xf1"); }

TEST(software_interrupts)
{
	static void (*const each[])(u64) = { int_0, int_1, int_2, int_3, int_4, int_8, int_13, int_14, int_15, int_18, int_32, int_100,
		int_128, int_130, int_255, int1 };
	for (unsigned i = 0; i < sizeof each / 8; i++) {
		s64 r = attempt(each[i], 0);
		check(r >= 0 && r < 256, "number %d gave %d", (u64)i, r);
	}
}
