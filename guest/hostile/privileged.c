/* Instructions that must not run on the host: each is emulated or an exception, and
 * shows nothing of the host. */
#include "kernel.h"

static u8 memory[8192] __attribute__((aligned(4096)));

/* Runs it with RAX, RCX, RDX, RBX = 0, RDI = memory. */
#define RUN(text) ({ void f_(u64 u_) { (void)u_; __asm__ volatile(text : : "a"(0ul), "c"(0ul), "d"(0ul), "b"(0ul), "D"(memory), "S"(memory) \
	: "memory", "cc", "r8", "r9"); } attempt(f_, 0); })
/* Comes back, or by one of these exceptions. */
static void quiet(s64 r, const char *text)
{
	check(r == -1 || r == 6 || r == 13 || r == 14, "'%s' gave %d", text, r);
	/* The kernel still works. */
	check(hc(XEN_VERSION, 7, 0) == 4096, "hypercalls after '%s'", text);
	shared->vcpu[0].mask = 1;
}
#define ONE(text) fill(memory, 0, 4096), quiet(RUN(text), text);
#define EACH1(a) ONE(a)
#define EACH2(a, b) ONE(a) ONE(b)
#define EACH3(a, b, c) ONE(a) EACH2(b, c)
#define EACH4(a, b, c, d) ONE(a) EACH3(b, c, d)
#define EACH5(a, b, c, d, e) ONE(a) EACH4(b, c, d, e)
#define EACH6(a, b, c, d, e, f) ONE(a) EACH5(b, c, d, e, f)
#define EACH7(a, b, c, d, e, f, g) ONE(a) EACH6(b, c, d, e, f, g)
#define PICK(a, b, c, d, e, f, g, each, ...) each
/* One test for up to seven pieces of code that do not depend on each other. */
#define QUIET(name, ...) TEST(name) { \
	PICK(__VA_ARGS__, EACH7, EACH6, EACH5, EACH4, EACH3, EACH2, EACH1)(__VA_ARGS__) }

QUIET(lgdt, "lgdt (%%rdi)")
QUIET(lidt, "lidt (%%rdi)")
QUIET(lldt, "lldt %%ax", "mov $0x28, %%eax; lldt %%ax")
QUIET(ltr, "ltr %%ax", "mov $0x40, %%eax; ltr %%ax")
QUIET(mov_to_cr0, "mov %%rax, %%cr0")
QUIET(mov_to_cr2, "mov %%rax, %%cr2")
QUIET(mov_to_cr3, "mov %%rax, %%cr3")
QUIET(mov_to_cr4, "mov %%rax, %%cr4")
QUIET(mov_to_cr8, "mov %%rax, %%cr8")
QUIET(mov_from_cr, "mov %%cr0, %%rax", "mov %%cr2, %%rbx", "mov %%cr3, %%rcx", "mov %%cr4, %%rdx", "mov %%cr8, %%rax")
QUIET(mov_dr, "not %%rax; mov %%rax, %%dr0", "not %%rax; mov %%rax, %%dr7", "not %%rax; mov %%dr6, %%rax", "not %%rax; mov %%dr7, %%rax")
QUIET(clts, "clts")
QUIET(lmsw, "lmsw %%ax", "not %%eax; lmsw %%ax")
QUIET(wrmsr, "mov $0xc0000080, %%ecx; wrmsr", "mov $0xc0000080, %%ecx; mov $0xc0000082, %%ecx; wrmsr", "mov $0xc0000080, %%ecx; mov $0xc0000082, %%ecx; mov $0x1b, %%ecx; wrmsr")
QUIET(rdmsr, "mov $0xc0000082, %%ecx; rdmsr", "mov $0xc0000082, %%ecx; mov $0x3a, %%ecx; rdmsr", "mov $0xc0000082, %%ecx; mov $0x3a, %%ecx; not %%ecx; rdmsr")
QUIET(in, "in $0x60, %%al", "in $0x70, %%ax", "mov $0xcf8, %%edx; in %%dx, %%eax")
QUIET(out, "out %%al, $0x64", "mov $0xcf9, %%edx; mov $6, %%eax; out %%al, %%dx", "mov $0xcf9, %%edx; mov $6, %%eax; out %%eax, %%dx")
QUIET(ins, "mov $16, %%ecx; rep insb", "mov $16, %%ecx; insl")
QUIET(outs, "mov $16, %%ecx; rep outsb", "mov $16, %%ecx; outsl")
QUIET(cli_sti, "cli", "sti", "cli")
QUIET(wrpkru, "wrpkru", "not %%eax; wrpkru", "mov $0x55555554, %%eax; wrpkru")
QUIET(rdpkru, "rdpkru")
QUIET(xsetbv, "mov $3, %%eax; xsetbv", "mov $3, %%eax; not %%eax; xsetbv")
QUIET(xgetbv, "xgetbv", "mov $1, %%ecx; xgetbv", "mov $1, %%ecx; not %%ecx; xgetbv")
QUIET(sysenter, "sysenter")
QUIET(sysexit, "sysexitl", "sysexitq")
QUIET(sysret, "sysretl", "sysretq")
QUIET(vmcall, "vmcall", "vmmcall")
QUIET(vmx, "vmlaunch", "vmresume", "vmxoff", "vmptrst (%%rdi)")
QUIET(vmxon, "vmxon (%%rdi)")
QUIET(vmread, "vmread %%rax, %%rcx")
QUIET(vmfunc, "vmfunc")
QUIET(svm, "vmrun", "vmload", "vmsave", "stgi", "clgi", "skinit", "invlpga")
QUIET(rdpmc, "rdpmc", "mov $0x40000000, %%ecx; rdpmc")
QUIET(rdpru, ".byte 0x0f, 0x01, 0xfd")
QUIET(invlpg, "invlpg (%%rdi)", "invlpg 0", "not %%rax; invlpg (%%rax)")
QUIET(invpcid, "invpcid (%%rdi), %%rax")
QUIET(invd, "invd")
QUIET(wbinvd, "wbinvd", ".byte 0xf3, 0x0f, 0x09")
QUIET(stac_clac, "stac", "clac")
QUIET(rsm, "rsm")
QUIET(monitor_mwait, "mov %%rdi, %%rax; monitor", "mov %%rdi, %%rax; xor %%ecx, %%ecx; mwait")
QUIET(monitorx, "mov %%rdi, %%rax; monitorx", "mov %%rdi, %%rax; mwaitx")
QUIET(umonitor, ".byte 0xf3, 0x0f, 0xae, 0xf7")
QUIET(tpause, ".byte 0x66, 0x0f, 0xae, 0xf0", ".byte 0xf2, 0x0f, 0xae, 0xf0")
QUIET(getsec, "getsec")
QUIET(encls, ".byte 0x0f, 0x01, 0xcf", ".byte 0x0f, 0x01, 0xd7", ".byte 0x0f, 0x01, 0xc0")
QUIET(pconfig, ".byte 0x0f, 0x01, 0xc5")
QUIET(xsaves, "mov $-1, %%eax; mov %%eax, %%edx; xsaves (%%rdi)")
QUIET(xrstors, "mov $-1, %%eax; mov %%eax, %%edx; xrstors (%%rdi)")
QUIET(user_interrupts, ".byte 0xf3, 0x0f, 0x01, 0xee", ".byte 0xf3, 0x0f, 0x01, 0xef", ".byte 0xf3, 0x0f, 0x01, 0xec")
QUIET(senduipi, ".byte 0xf3, 0x0f, 0xc7, 0xf0")
QUIET(shadow_stacks, ".byte 0xf3, 0x0f, 0x01, 0xe8", ".byte 0xf3, 0x0f, 0x1e, 0xc8", ".byte 0xf3, 0x48, 0x0f, 0x1e, 0xc8")
QUIET(transactions, "xbegin 1f; xend; 1: xabort $1; xtest")
QUIET(enqcmd, ".byte 0xf2, 0x0f, 0x38, 0xf8, 0x07", ".byte 0xf3, 0x0f, 0x38, 0xf8, 0x07")
QUIET(hreset, ".byte 0xf3, 0x0f, 0x3a, 0xf0, 0xc0, 0x01")
QUIET(amx, ".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0", ".byte 0xc4, 0xe2, 0x78, 0x49, 0x07")
QUIET(lfs_lgs_lss, "lfs (%%rdi), %%eax", "lgs (%%rdi), %%eax", "lss (%%rdi), %%eax")
QUIET(segment_moves, "mov %%ax, %%ds", "mov %%ax, %%es", "mov %%ax, %%fs", "mov %%ax, %%gs", "mov $0x2b, %%eax; mov %%ax, %%ds", "mov $0x2b, %%eax; mov $0xffff, %%eax; mov %%ax, %%es")
QUIET(mov_to_ss, "mov %%ax, %%ss", "mov $0x10, %%eax; mov %%ax, %%ss")
QUIET(mov_to_cs, ".byte 0x8e, 0xc8")
QUIET(push_pop_segments, "push %%fs", "pop %%fs", "push %%gs", "pop %%gs")
QUIET(far_jump, "movq $0x1000, (%%rdi); movw $0x33, 8(%%rdi); rex.w ljmp *(%%rdi)")
QUIET(far_call, "movq $0x1000, (%%rdi); movw $0x10, 8(%%rdi); rex.w lcall *(%%rdi)")
QUIET(enter_nested, "enter $64, $31; leave")
QUIET(loadall, ".byte 0x0f, 0x05 ^ 0x02", ".byte 0x0f, 0x3f")
QUIET(longest_prefixes, ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90")
QUIET(locked_nonsense, ".byte 0xf0, 0x0f, 0x01, 0xf8", ".byte 0xf0, 0x0f, 0x30", ".byte 0xf0, 0x90")
QUIET(prefixed_wrpkru, ".byte 0x66, 0x0f, 0x01, 0xef", ".byte 0xf2, 0x0f, 0x01, 0xef", ".byte 0xf3, 0x0f, 0x01, 0xef", ".byte 0x48, 0x0f, 0x01, 0xef")
QUIET(prefixed_syscall, "mov $17, %%eax; mov %%rdi, %%rsi; mov $7, %%edi; .byte 0x66, 0x0f, 0x05; .byte 0xf2, 0x0f, 0x05; .byte 0x48, 0x0f, 0x05")
QUIET(int_0x80_as_syscall, "mov $1, %%eax; mov $7, %%ebx; push %%rax; pop %%rax; int $0x80")

/* SWAPGS, WRGSBASE and WRMSR with bases that are nowhere. */
static void set_gs(u64 base) { __asm__ volatile("wrgsbase %0; movb %%gs:0, %%al; swapgs; swapgs" : : "r"(base) : "rax"); }
static void set_fs(u64 base) { __asm__ volatile("wrfsbase %0; movb %%fs:0, %%al" : : "r"(base) : "rax"); }
static void set_msr(u64 base) {
	__asm__ volatile("wrmsr; swapgs; movb %%gs:0, %%al; swapgs" : : "c"(0xc0000101), "a"((u32)base), "d"((u32)(base >> 32)));
}
TEST(wild_base_registers)
{
	static void (*const each[])(u64) = { set_gs, set_fs, set_msr };
	for (int i = 0; i < wilds; i++)
		for (int n = 0; n < 3; n++) {
			s64 r = attempt(each[n], wild[i]);
			check(r == -1 || r == 13 || r == 14 || r == 12 || r == 6, "%x gave %d", wild[i], r);
			hc(SET_SEGMENT_BASE, 0, 0);
			hc(SET_SEGMENT_BASE, 1, 0);
			hc(SET_SEGMENT_BASE, 2, 0);
		}
}

/* Descriptor tables, selectors and limits of the host do not show. */
TEST(host_tables_do_not_show)
{
	fill(memory, 0xaa, 64);
	s64 r = RUN("sgdt (%%rdi); sidt 16(%%rdi)");
	check(r == 6 || r == 13 || (r == -1 && *(u64 *)(memory + 2) == 0 && *(u64 *)(memory + 18) == 0), "gave %d, GDT %x, IDT %x", r,
		*(u64 *)(memory + 2), *(u64 *)(memory + 18));
	fill(memory, 0xaa, 64);
	r = RUN("sldt (%%rdi); str 16(%%rdi); smsw 32(%%rdi)");
	check(r == 6 || r == 13 || (r == -1 && *(u16 *)memory == 0 && *(u16 *)(memory + 16) == 0), "gave %d", r);
	r = RUN("mov $0x2b, %%ecx; lar %%ecx, %%eax; lsl %%ecx, %%ebx; verr %%cx; verw %%cx");
	check(r == -1 || r == 6 || r == 13, "gave %d", r);
}

/* XSAVE and XRSTOR with every component asked for: PKRU neither shows nor changes. */
TEST(xrstor_of_everything)
{
	fill(memory, 0, sizeof memory);
	s64 r = RUN("mov $-1, %%eax; mov $-1, %%edx; xsave (%%rdi); mov $-1, %%eax; mov $-1, %%edx; orl $0x200, 512(%%rdi);"
		"xrstor (%%rdi)");
	check(r == -1 || r == 6 || r == 13, "gave %d", r);
	check(hc(XEN_VERSION, 7, 0) == 4096, "hypercalls");
	fill(memory, 0xff, sizeof memory);
	r = RUN("mov $-1, %%eax; mov $-1, %%edx; xrstor (%%rdi)");
	check(r == 13 || r == 6, "a wild header gave %d", r);
}

TEST(cpuid_of_everything)
{
	for (u64 i = 0; i < 3000; i++) {
		u32 leaf = i < 100 ? i : i < 200 ? 0x80000000 + i : i < 300 ? 0x40000000 + i - 200 : random(), sub = random(), b, c, d;
		__asm__ volatile("cpuid" : "+a"(leaf), "=b"(b), "+c"(sub), "=d"(d));
		c = sub;
		(void)b, (void)c, (void)d;
	}
	u32 a = 7, b, c = 0, d;
	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	check(!(c & (1 << 3)) && !(c & (1 << 4)), "PKU shows: %x", (u64)c);
}
