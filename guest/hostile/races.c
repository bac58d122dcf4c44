/* Hypercalls whose arguments change while they are served. tests/hostile maps this
 * domain's memory and writes the words of `values` over the words of `arguments`, as
 * the table says, while the kernel calls on and on. */
#include "kernel.h"

struct slot { u64 offset, count, values[14]; };
static volatile struct {
	u64 magic, stop, calls, slots;
	struct slot slot[16];
	u64 arguments[64] __attribute__((aligned(1024)));
} race __attribute__((aligned(4096)));

static volatile u64 *const a = race.arguments;
static u64 scratch[512] __attribute__((aligned(4096)));

static void slot(u64 word, const u64 *values, u64 count)
{
	volatile struct slot *s = &race.slot[race.slots++];
	s->offset = (u64)&race.arguments[word] - (u64)&race;
	s->count = count;
	for (u64 i = 0; i < count; i++)
		s->values[i] = values[i];
	race.arguments[word] = values[0];
}
#define SLOT(word, ...) do { u64 v_[] = { __VA_ARGS__ }; slot(word, v_, sizeof v_ / 8); } while (0)
/* Pointers that lead nowhere, and some that do not. */
#define POINTERS (u64)scratch, 0, ~0ul, MONITOR, ARENA, UNFOLD(ARENA), 0x800000000000, 0xffffc00000000000, M2P, 0x60000, \
	(u64)scratch + 4092, ~7ul, 0x7fffffffffff

/* Calls until the harness says stop. */
static void race_on(void (*setup)(void), s64 (*call)(void))
{
	race.slots = 0;
	setup();
	race.magic = 0x1122334455667788;
	print("RACE %x\n", (u64)&race - BASE);
	while (!race.stop) {
		for (int i = 0; i < 200; i++) {
			s64 r = call();
			check(r <= 1 << 20, "gave %x", r);
		}
		race.calls += 200;
	}
	print("calls %d\n", race.calls);
	check(hc(XEN_VERSION, 7) == 4096, "the kernel does not work");
}
#define RACE(name) \
	static void setup_##name(void); \
	static s64 call_##name(void); \
	OWN(name) { race_on(setup_##name, call_##name); } \
	static void setup_##name(void)
#define CALLS(name) static s64 call_##name(void)

RACE(race_trap_table)
{
	SLOT(0, 33, 0xff21, 0xe03304ff, ~0ul);
	SLOT(1, 0, 1, ~0ul);
	SLOT(2, 34, ~0ul, 0xe0330022);
}
CALLS(race_trap_table)
{
	s64 r = hc(SET_TRAP_TABLE, a);
	set_traps();
	return r;
}

RACE(race_mmu_update)
{
	u64 here = frame_of(scratch) << 12, limit = hc(MEMORY_OP, MAXIMUM_RESERVATION);
	SLOT(0, here, 1ul << 40, ~0ul << 2, limit << 12, here | 2, here | 8);
	SLOT(1, 0, ~0ul, 7);
	SLOT(2, here, 1ul << 40, 1ul << 63);
}
CALLS(race_mmu_update) { return hc(MMU_UPDATE, a, 2, &a[8], 0x7ff0); }

RACE(race_mmuext)
{
	u64 here = frame_of(scratch), limit = hc(MEMORY_OP, MAXIMUM_RESERVATION);
	SLOT(0, TLB_FLUSH_LOCAL, INVLPG_LOCAL, PIN_L4, UNPIN, CLEAR_PAGE, COPY_PAGE, SET_LDT, 99, ~0ul);
	SLOT(1, here, 1ul << 40, ~0ul, limit, 0xffffffff);
	SLOT(2, here, 1ul << 40, ~0ul);
}
CALLS(race_mmuext) { return hc(MMUEXT_OP, a, 1, 0, 0x7ff0); }

RACE(race_multicall)
{
	SLOT(0, XEN_VERSION, MULTICALL, IRET, VCPU_OP, GRANT_TABLE_OP, EVENT_CHANNEL_OP, 99, ~0ul);
	SLOT(2, 0, 3, 6, 13, ~0ul);
	SLOT(3, POINTERS);
	SLOT(4, POINTERS);
	SLOT(8, XEN_VERSION, CONSOLE_IO, ~0ul);
	SLOT(10, 1, 7, ~0ul);
	SLOT(11, POINTERS);
}
CALLS(race_multicall) { return hc(MULTICALL, a, 2); }

RACE(race_memory_reservation)
{
	SLOT(0, POINTERS);
	SLOT(1, 0, 1, 512, 513, 1ul << 32, ~0ul);
	SLOT(2, 0, 9, 10, 63, ~0ul);
}
/* What is given away could be this test's own memory; both ways read their arguments by the same code. */
CALLS(race_memory_reservation) { return hc(MEMORY_OP, POPULATE, a); }

RACE(race_memory_map)
{
	SLOT(0, 0, 1, ~0ul);
	SLOT(1, POINTERS);
}
CALLS(race_memory_map) { return hc(MEMORY_OP, MEMORY_MAP, a); }

RACE(race_grant_table)
{
	SLOT(0, 0x7ff0 | 1ul << 32, 0x7ff0 | 32ul << 32, 0x7ff0 | 33ul << 32, ~0ul);
	SLOT(2, POINTERS);
}
CALLS(race_grant_table) { return hc(GRANT_TABLE_OP, 2, a, 1); }

RACE(race_poll)
{
	SLOT(0, POINTERS);
	SLOT(1, 0, 1, 128, 129, ~0ul);
	SLOT(2, 1, 2);
	a[2] = 1;
}
CALLS(race_poll) { return hc(SCHED_OP, SCHED_POLL, a); }

RACE(race_ports)
{
	SLOT(0, 0, 3, 4096, 0xffffffff, 0x7ff0, 1ul << 32, 0x180000000, ~0ul);
}
CALLS(race_ports)
{
	for (u64 op = BIND_VIRQ; op <= SET_PRIORITY; op++)
		if (op != EVT_RESET)
			hc(EVENT_CHANNEL_OP, op, a);
	for (u32 p = 3; p < 4096 && race.calls % 10000 == 0; p++)
		hc(EVENT_CHANNEL_OP, EVT_CLOSE, &p);
	return 0;
}

RACE(race_callback)
{
	SLOT(0, 1, 3, 4, 5, 7, 8, 0xffff, ~0ul);
	SLOT(1, POINTERS);
}
CALLS(race_callback) { return hc(CALLBACK_OP, race.calls & 1024 ? 2 : 0, a); }

RACE(race_vcpu)
{
	SLOT(0, POINTERS);
	SLOT(1, 0, 1, 4096 - 56, ~0ul);
}
CALLS(race_vcpu)
{
	s64 r = hc(VCPU_OP, 5, 0, a);
	hc(VCPU_OP, 13, 0, a);
	hc(VCPU_OP, 8, 0, a);
	hc(SET_TIMER_OP, 0);
	return r;
}

/* The vCPU's own page: pending, mask, the address of faults. */
RACE(race_vcpu_info)
{
	u64 where[2] = { frame_of((void *)&race), (u64)a - (u64)&race };
	check(hc(VCPU_OP, 10, 0, where) == 0, "no place for vcpu_info");
	SLOT(0, 0x100, 0x101, ~0ul);
	SLOT(1, 0, ~0ul);
	SLOT(2, 0, ~0ul);
}
CALLS(race_vcpu_info)
{
	try_read(0xffffc00000000000);
	return hc(EVENT_CHANNEL_OP, EVT_SEND, &start->console_port);
}

/* The frame that IRET reads. */
RACE(race_iret)
{
	SLOT(3, 0, 0x100, ~0ul);
	SLOT(4, (u64)iret_landing, 0, MONITOR, UNFOLD(MONITOR), ~0ul, 1ul << 47);
	SLOT(5, 0xe033, 0xe030, 0x33, 0x23, 3, 0, ~0ul);
	SLOT(6, 2, 0x100, 0x40000, ~0ul & ~0x200ul);
	a[7] = (u64)stack_end - 30000;
	hc(STACK_SWITCH, 0x2b, (u64)stack_end - 40000);
}
CALLS(race_iret)
{
	s64 r = attempt(iret_to, (u64)a);
	shared->vcpu[0].mask = 1;
	return r;
}

/* The entries of a table, on the way to arguments, data and code. */
#define REGION 0xffffb80000000000ul
RACE(race_page_tables)
{
	u8 *code = page();
	fill(code, 0xc3, 4096);
	u64 f = frame_of(code) << 12;
	set_entry(entry(REGION, 1), frame_of((void *)&race) << 12 | P | W);
	for (u64 i = 0; i < 8; i++)
		SLOT(i, 0, f | P | W, f | P, f | P | W | U | A | D, 1ul << 45 | P | W, 0xffffffffff000 | P | W, f | P | PSE, ~0ul,
			frame_of(scratch) << 12 | P | W);
}
CALLS(race_page_tables)
{
	for (u64 i = 0; i < 8; i++) {
		u64 va = REGION + ((((u64)a & 0xfff) / 8 + i) << 12);
		hc(XEN_VERSION, 3, va + 4090);
		hc(CONSOLE_IO, 5, 1, va);
		try_read(va), try_jump(va + 64), try_write(va + 3000);
		mmuext(INVLPG_LOCAL, va, 0);
	}
	flush();
	return 0;
}
