/* What a domain does not survive: it ends with a reason, or goes on. tests/hostile
 * says which. */
#include "kernel.h"

static void no_handlers(void) { hc(SET_TRAP_TABLE, 0); }

static void all_handlers_at(u64 va)
{
	static struct trap_info t[33];
	for (int i = 0; i < 32; i++)
		t[i] = (struct trap_info){ i, 4, 0xe033, 0, va };
	hc(SET_TRAP_TABLE, t);
}

static void invalid(void) { __asm__ volatile("ud2"); }

OWN(no_handler) { no_handlers(); invalid(); }
OWN(no_handler_for_a_page_fault) { no_handlers(); *(volatile u8 *)0x1000 = 1; }
OWN(handlers_nowhere) { all_handlers_at(0xffffc00000001000); invalid(); }
OWN(handlers_in_user_half) { all_handlers_at(0x400000); invalid(); }
OWN(handlers_not_canonical) { all_handlers_at(0x123456789abcdef0); invalid(); }
OWN(handlers_in_monitor) { all_handlers_at(MONITOR + 0x1000); invalid(); }
OWN(handlers_in_folded_monitor) { all_handlers_at(UNFOLD(MONITOR + 0x1000)); invalid(); }
OWN(handlers_in_code_cache) { all_handlers_at(UNFOLD(MONITOR + 0x20001000)); invalid(); }
/* The handler of page faults faults, each time one frame deeper. */
OWN(faults_in_the_fault_handler)
{
	static const u8 code[] = { 0x48, 0x8b, 0x04, 0x25, 0, 0x10, 0, 0 };	/* mov 0x1000, %rax */
	u8 *p = page();
	copy(p, code, sizeof code);
	all_handlers_at((u64)p);
	invalid();
}

static void upcall_at(u64 va)
{
	callback(0, va);
	u32 w[3] = { 0, 0, 0 };
	hc(EVENT_CHANNEL_OP, BIND_IPI, w);
	shared->mask[w[1] / 64] = 0;
	no_handlers();
	shared->vcpu[0].mask = 0;
	hc(EVENT_CHANNEL_OP, EVT_SEND, &w[1]);
	for (;;)
		hc(SCHED_OP, SCHED_YIELD);
}

OWN(upcall_nowhere) { upcall_at(0xffffc00000001000); }
OWN(upcall_in_user_half) { upcall_at(0x400000); }
OWN(upcall_not_canonical) { upcall_at(0x800000000000); }
OWN(upcall_in_monitor) { upcall_at(MONITOR); }
OWN(upcall_in_folded_monitor) { upcall_at(UNFOLD(MONITOR)); }

OWN(jump_nowhere) { no_handlers(); try_jump(0xffffc00000001000); }
OWN(jump_into_monitor) { no_handlers(); try_jump(MONITOR + 0x100); }
OWN(jump_into_folded_monitor) { no_handlers(); try_jump(UNFOLD(MONITOR + 0x100)); }

OWN(stack_nowhere) { with_stack(0xffffc00000001000); }
OWN(stack_null) { with_stack(0); }
OWN(stack_not_canonical) { with_stack(0x800000001000); }
OWN(stack_at_the_end) { with_stack(~0ul); }
OWN(stack_below_everything) { with_stack(0xffff800000010008); }
OWN(stack_in_monitor) { with_stack(MONITOR + 0x40020000); }
OWN(stack_in_folded_monitor) { with_stack(UNFOLD(MONITOR + 0x40020000)); }
OWN(stack_in_folded_arena) { with_stack(UNFOLD(ARENA + 0x20000)); }
OWN(stack_in_the_machine_table) { with_stack(M2P + 0x800); }
OWN(stack_runs_out)
{
	u64 va = 0xffffb50000001000;
	map_page(va, frame_of(page()) << 12 | P | W);
	__asm__ volatile("mov %0, %%rsp; 1: push %%rax; jmp 1b" : : "r"(va + 4096) : "memory");
}

/* Entries from programs use the kernel stack that the kernel named. */
static void program_with_kernel_stack(u64 sp)
{
	u8 *code = page();
	copy(code, user_code, user_code_end - user_code);
	map_page(0x10000000, frame_of(code) << 12 | P | U);
	static u64 frame[9];
	u64 values[9] = { 0, 0, 0, 0, 0x10000000, 0x33, 0x202, 0x10000000, 0x2b };
	copy(frame, values, sizeof frame);
	hc(STACK_SWITCH, 0x2b, sp);
	iret_to((u64)frame);
}
OWN(kernel_stack_nowhere) { program_with_kernel_stack(0xffffc00000001000); }
OWN(kernel_stack_null) { program_with_kernel_stack(0); }
OWN(kernel_stack_in_monitor) { program_with_kernel_stack(MONITOR + 0x40020000); }
OWN(kernel_stack_in_folded_monitor) { program_with_kernel_stack(UNFOLD(MONITOR + 0x40020000)); }
OWN(syscall_entry_nowhere) { callback(2, 0xffffc00000001000); no_handlers(); program_with_kernel_stack((u64)stack_end - 40000); }
OWN(syscall_entry_none) { callback(2, 0); no_handlers(); program_with_kernel_stack((u64)stack_end - 40000); }

OWN(iret_stack_nowhere) { iret_to(0xffffc00000001000); }
OWN(iret_stack_null) { iret_to(0); }
OWN(iret_stack_in_monitor) { iret_to(MONITOR); }

OWN(empty_page_tables) { mmuext(NEW_BASEPTR, frame_of(page()), 0); for (;;) hc(SCHED_OP, SCHED_YIELD); }
OWN(page_tables_of_garbage)
{
	u64 *t = page();
	for (int i = 0; i < 512; i++)
		t[i] = random() | P;
	mmuext(NEW_BASEPTR, frame_of(t), 0);
	for (;;)
		hc(SCHED_OP, SCHED_YIELD);
}
OWN(page_tables_in_the_machine_table) { mmuext(NEW_BASEPTR, start->console_mfn, 0); for (;;) hc(SCHED_OP, SCHED_YIELD); }
OWN(own_tables_wiped) { fill((void *)start->pt_base, 0, 4096); flush(); for (;;) hc(SCHED_OP, SCHED_YIELD); }
OWN(own_code_wiped)
{
	extern u8 tests_start[];
	fill((void *)(BASE + 0x101000), 0xcc, (u64)tests_start - BASE - 0x101000);
}
OWN(all_memory_wiped)
{
	/* By string stores: the code goes too. */
	__asm__ volatile("rep stosb" : : "D"(BASE), "a"(0xff), "c"(1ul << 40) : "memory");
}
OWN(all_memory_released)
{
	u64 n = hc(MEMORY_OP, MAXIMUM_RESERVATION);
	static u64 list[512];
	for (u64 f = 0; f < n; f += 512) {
		for (u64 i = 0; i < 512; i++)
			list[i] = f + i;
		struct reservation r = { (u64)list, 512, 0, 0, 0x7ff0, { 0 } };
		hc(MEMORY_OP, DECREASE, &r);
	}
	print("released\n");
	shutdown(0);
}

OWN(shutdown_poweroff) { shutdown(0); }
OWN(shutdown_reboot) { shutdown(1); }
OWN(shutdown_suspend) { shutdown(2); }
OWN(shutdown_crash) { shutdown(3); }
OWN(shutdown_watchdog) { shutdown(4); }
OWN(shutdown_soft_reset) { shutdown(5); }
OWN(shutdown_unknown) { shutdown(77); }
OWN(shutdown_wild) { shutdown(0xffffffff); }
OWN(shutdown_in_a_multicall)
{
	static u32 reasons[] = { 0, 3, 1, 0xffffffff };
	static struct multicall_entry e[4];
	for (int i = 0; i < 4; i++)
		e[i] = (struct multicall_entry){ .op = SCHED_OP, .args = { SCHED_SHUTDOWN, (u64)&reasons[i] } };
	for (;;)
		hc(MULTICALL, e, 4);
}

/* More single pages than the host gives mappings. */
OWN(mappings_run_out)
{
	u64 frame = frame_of(page());
	u64 *table = page();
	for (int i = 0; i < 512; i += 2)
		table[i] = frame << 12 | P | W;
	u64 va = 0xffffb80000000000;
	for (u64 i = 0; i < 512; i++)
		set_entry(entry(va + (i << 21), 1), frame_of(table) << 12 | P | W);
	for (u64 i = 0; i < 512 * 512; i += 2)
		*(volatile u8 *)(va + (i << 12));
	print("PASS mappings_run_out\n");
	shutdown(0);
}

/* Writes to what folds onto the monitor. With protection keys each faults; without,
 * a domain ruins its own monitor, and nothing else. */
static void scribble(u64 host, u64 size, u64 step)
{
	u64 faults = 0;
	for (u64 at = host; at < host + size; at += step)
		if (try_write(UNFOLD(at)) != -1)
			faults++;
	print("%d of %d faulted\n", faults, (size + step - 1) / step);
	invalid();
}
OWN(scribble_monitor_code) { scribble(MONITOR, 0x100000, 64); }
OWN(scribble_context) { scribble(MONITOR + 0x10000000, 0x10000, 8); }
OWN(scribble_private_pages) { scribble(MONITOR + 0x10100000, 0x100000, 8); }
OWN(scribble_tables) { scribble(MONITOR + 0x11000000, 0x400000, 64); }
OWN(scribble_code_cache) { scribble(MONITOR + 0x800000000, 0x400000, 64); }
OWN(scribble_stack) { scribble(MONITOR + 0x40001000, 0x60000, 8); }
OWN(scribble_domain_page) { scribble(ARENA, 0x20000, 4); }
OWN(scribble_heap) { scribble(ARENA + 0x800000, 0x800000, 8); }
OWN(scribble_machine_frames) { scribble(0x5c8000000000 + hc(MEMORY_OP, MAXIMUM_RESERVATION) * 4096, 0x22000, 8); }
/* Random words in the page that the domain process reads, bells and all, for ever. */
OWN(scribble_bells)
{
	for (;;) {
		u64 at = UNFOLD(ARENA + 8 + random() % 0x400 * 4);
		void put(u64 va) { *(volatile u32 *)va = random(); }
		attempt(put, at);
		u32 w = start->console_port;
		hc(EVENT_CHANNEL_OP, EVT_SEND, &w);
	}
}
