/* What never ends: the domain must still be killed at once, and cost its host no more
 * than its share while it goes on. */
#include "kernel.h"

static void return_to_fault(struct frame *f) { (void)f; }

OWN(endless_faults) { print("HOLD\n"); on_trap = return_to_fault; __asm__ volatile("ud2"); }
OWN(endless_page_faults) { print("HOLD\n"); on_trap = return_to_fault; *(volatile u8 *)0xffffc00000000000 = 1; }
OWN(endless_fetch_faults) { print("HOLD\n"); on_trap = return_to_fault; try_jump(0xffffc00000000000); }
OWN(endless_protection_faults) { print("HOLD\n"); on_trap = return_to_fault; try_read(0x8000000000000000); }

/* Handlers nowhere, on a stack that never ends: pages that repeat. */
OWN(endless_nests)
{
	u64 *t = page(), frame = frame_of(page());
	for (int i = 0; i < 512; i++)
		t[i] = frame << 12 | P | W;
	u64 va = 0xffffb80000000000;
	for (u64 i = 0; i < 512; i++)
		set_entry(entry(va + (i << 21), 1), frame_of(t) << 12 | P | W);
	u64 *l2 = (u64 *)((u64)entry(va, 1) & ~0xffful);
	for (u64 i = 0; i < 512; i++)
		set_entry(entry(va + (i << 30), 2), frame_of(l2) << 12 | P | W);
	static struct trap_info traps[33];
	for (int i = 0; i < 32; i++)
		traps[i] = (struct trap_info){ i, 4, 0xe033, 0, 0xffffc00000001000 };
	hc(SET_TRAP_TABLE, traps);
	print("HOLD\n");
	with_stack(va + (511ul << 30));
}

OWN(endless_loop) { print("HOLD\n"); for (;;) __asm__ volatile(""); }
OWN(endless_hypercalls) { print("HOLD\n"); for (;;) hc(XEN_VERSION, 7); }
OWN(endless_halt) { print("HOLD\n"); for (;;) __asm__ volatile("cli; hlt"); }
OWN(endless_poll)
{
	print("HOLD\n");
	u32 port = 100;
	struct poll p = { (u64)&port, 1, 0, 0 };
	for (;;)
		hc(SCHED_OP, SCHED_POLL, &p);
}
OWN(endless_block) { hold(); }
OWN(endless_program)
{
	u8 *code = page();
	copy(code, user_code + 2, user_code_end - user_code - 2);
	map_page(0x10000000, frame_of(code) << 12 | P | U);
	print("HOLD\n");
	run_user(0x10000000, 0x10000000);
}
/* A program that faults for ever, in an address space without its page. */
OWN(endless_program_faults) { print("HOLD\n"); on_trap = return_to_fault; run_user(0x10000000, 0x10000000); }

/* The longest lists of the dearest operations. */
OWN(endless_flushes)
{
	enum { N = 1024 };
	static struct mmuext_op ops[N];
	for (int i = 0; i < N; i++)
		ops[i] = (struct mmuext_op){ TLB_FLUSH_LOCAL, 0, 0, 0 };
	u64 *t = page(), frame = frame_of(page());
	for (int i = 0; i < 512; i += 2)
		t[i] = frame << 12 | P | W;
	u64 va = 0xffffb80000000000;
	for (u64 i = 0; i < 64; i++) {
		set_entry(entry(va + (i << 21), 1), frame_of(t) << 12 | P | W);
		for (u64 n = 0; n < 512; n += 2)
			*(volatile u8 *)(va + (i << 21) + (n << 12));
	}
	/* The list itself, a thousand times in a row. */
	u64 list = 0xffffb90000000000;
	for (u64 i = 0; i < 6144; i++)
		set_entry(entry(list + (i << 12), 0), (frame_of(ops) + i % (sizeof ops / 4096)) << 12 | P);
	print("HOLD\n");
	for (;;)
		hc(MMUEXT_OP, list, 1 << 20, 0, 0x7ff0);
}

/* Code without end, never the same: caches fill up, and are emptied. */
OWN(endless_translations)
{
	enum { SIZE = 512 * 1024 };
	static u8 code[SIZE] __attribute__((aligned(4096)));
	print("HOLD\n");
	for (u32 round = 0;; round++) {
		for (u32 i = 0; i + 8 <= SIZE; i += 8) {
			code[i] = 0xb8;
			copy(code + i + 1, &round, 4);
			code[i + 5] = 0xc3;
		}
		for (u32 i = 0; i + 8 <= SIZE; i += 8)
			((u32 (*)(void))(u64)(code + i))();
	}
}
/* The same code at ever new addresses. */
OWN(endless_code_addresses)
{
	u8 *code = page();
	for (int i = 0; i < 4096; i += 8)
		code[i] = 0xb8, code[i + 5] = 0xc3;
	u64 *t = page();
	for (int i = 0; i < 512; i++)
		t[i] = frame_of(code) << 12 | P;
	u64 va = 0xffffb80000000000;
	for (u64 i = 0; i < 512; i++)
		set_entry(entry(va + (i << 21), 1), frame_of(t) << 12 | P);
	print("HOLD\n");
	for (u64 i = 0;; i++)
		((u32 (*)(void))(va + (i * 8 & 0x3fffffff)))();
}
/* Code that reaches for user memory, at ever new addresses. */
OWN(endless_user_accesses)
{
	u8 *code = page();
	for (int i = 0; i < 4096; i += 4)
		code[i] = 0x8a, code[i + 1] = 0x07, code[i + 2] = 0xc3;	/* mov (%rdi), %al; ret */
	u64 *t = page();
	for (int i = 0; i < 512; i++)
		t[i] = frame_of(code) << 12 | P;
	u64 va = 0xffffb80000000000;
	for (u64 i = 0; i < 512; i++)
		set_entry(entry(va + (i << 21), 1), frame_of(t) << 12 | P);
	map_page(0x10000000, frame_of(page()) << 12 | P | U);
	print("HOLD\n");
	for (u64 i = 0;; i++)
		((void (*)(u64))(va + (i * 4 & 0x3fffffff)))(0x10000000);
}
OWN(endless_self_modification)
{
	u8 *code = page();
	print("HOLD\n");
	for (u32 i = 0;; i++) {
		code[0] = 0xb8;
		copy(code + 1, &i, 4);
		code[5] = 0xc3;
		((u32 (*)(void))(u64)code)();
	}
}
/* One page at a time, at ever new addresses. */
OWN(endless_regions)
{
	u64 *t = page();
	t[0] = frame_of(page()) << 12 | P | W;
	u64 va = 0xffffb80000000000;
	u64 *l2 = (u64 *)((u64)entry(va, 1) & ~0xffful);
	for (u64 i = 0; i < 512; i++) {
		set_entry(&l2[i], frame_of(t) << 12 | P | W);
		set_entry(entry(va + (i << 30), 2), frame_of(l2) << 12 | P | W);
	}
	for (u64 i = 0; i < 8; i++)
		set_entry(entry(va + (i << 39), 3), *entry(va, 3));
	print("HOLD\n");
	for (u64 i = 0;; i++) {
		u64 at = va + ((i & 0x1fffff) << 21);
		t[0] |= P;
		*(volatile u8 *)at;
		t[0] &= ~(u64)P;
		mmuext(INVLPG_LOCAL, at, 0);
	}
}
OWN(endless_address_spaces)
{
	enum { N = 300 };
	static u64 *tables[N];
	u8 *code = page();
	copy(code, user_code, user_code_end - user_code);
	map_page(0x10000000, frame_of(code) << 12 | P | U);
	for (int i = 0; i < N; i++) {
		tables[i] = page();
		copy(tables[i], (void *)start->pt_base, 4096);
	}
	print("HOLD\n");
	for (u64 i = 0;; i++) {
		mmuext(NEW_BASEPTR, frame_of(tables[i % N]), 0);
		run_user(0x10000000, 0x10000000);
	}
}

/* Floods towards the domain process. */
OWN(flood_events)
{
	print("HOLD\n");
	for (;;) {
		hc(EVENT_CHANNEL_OP, EVT_SEND, &start->console_port);
		hc(EVENT_CHANNEL_OP, EVT_SEND, &start->store_port);
	}
}
OWN(flood_timers)
{
	print("HOLD\n");
	u32 w[3] = { 0, 0, 0 };
	hc(EVENT_CHANNEL_OP, BIND_VIRQ, w);
	shared->mask[w[2] / 64] = 0;
	shared->vcpu[0].mask = 0;
	for (u64 i = 0;; i++)
		hc(SET_TIMER_OP, now() + random() % 100000 - 1000);
}
OWN(flood_console_io)
{
	static char text[4096];
	fill(text, 'x', sizeof text);
	print("HOLD\n");
	for (;;)
		hc(CONSOLE_IO, 0, sizeof text, text);
}
OWN(flood_console_ring)
{
	print("HOLD\n");
	for (;;) {
		console->out_prod += 2048;
		hc(EVENT_CHANNEL_OP, EVT_SEND, &start->console_port);
	}
}
OWN(flood_console_indices)
{
	print("HOLD\n");
	for (;;) {
		console->out_prod = random(), console->out_cons = random();
		console->in_prod = random(), console->in_cons = random();
		hc(EVENT_CHANNEL_OP, EVT_SEND, &start->console_port);
	}
}
/* Requests of all types with random bodies, and indices that jump. */
OWN(flood_xenstore)
{
	print("HOLD\n");
	for (u64 i = 0;; i++) {
		u32 header[4] = { random() % 24, random(), random() % 4, random() % 64 };
		for (int b = 0; b < 16; b++)
			store->req[(store->req_prod + b) % 1024] = ((u8 *)header)[b];
		for (int b = 16; b < 80; b++)
			store->req[(store->req_prod + b) % 1024] = "abc/0/\0@~"[random() % 9];
		store->req_prod += 16 + header[3];
		store->rsp_cons = store->rsp_prod;
		if (i % 1000 == 999)
			store->req_prod = random(), store->rsp_cons = random();
		hc(EVENT_CHANNEL_OP, EVT_SEND, &start->store_port);
	}
}
/* Nodes, watches and transactions without end. */
OWN(flood_xenstore_nodes)
{
	print("HOLD\n");
	for (u32 i = 0;; i++) {
		static char body[64];
		char *p = body;
		const char *path = "device/";
		while (*path)
			*p++ = *path++;
		for (int d = 28; d >= 0; d -= 4)
			*p++ = "0123456789abcdef"[i >> d & 15];
		*p++ = 0;
		*p++ = 'v', *p++ = 0;
		u32 type = i % 3 == 0 ? 11 : i % 3 == 1 ? 4 : 6;	/* WRITE, WATCH, TRANSACTION_START */
		u32 header[4] = { type, i, 0, p - body };
		u32 at = store->req_prod;
		while (at - store->req_cons > 1024 - 96)
			hc(SCHED_OP, SCHED_YIELD), store->rsp_cons = store->rsp_prod;
		for (int b = 0; b < 16; b++)
			store->req[(at + b) % 1024] = ((u8 *)header)[b];
		for (u32 b = 0; b < header[3]; b++)
			store->req[(at + 16 + b) % 1024] = body[b];
		store->req_prod = at + 16 + header[3];
		store->rsp_cons = store->rsp_prod;
		hc(EVENT_CHANNEL_OP, EVT_SEND, &start->store_port);
	}
}
/* Lines in the domain's log: each wrong number is told once. */
OWN(flood_log)
{
	print("HOLD\n");
	for (u64 i = 100;; i++)
		hc(i, i);
}

/* The neighbour: ticks ten times a second, and looks after its memory. */
OWN(tick)
{
	u64 *p = page();
	for (u64 i = 0; i < 512; i++)
		p[i] = i * 0x0101010101010101ul;
	u32 w[3] = { 0, 0, 0 };
	hc(EVENT_CHANNEL_OP, BIND_VIRQ, w);
	u64 longest = 0, last = now();
	for (u64 n = 1;; n++) {
		struct poll poll = { (u64)&w[2], 1, 0, 0 };
		shared->pending[w[2] / 64] = 0;
		hc(SET_TIMER_OP, now() + 100000000);
		hc(SCHED_OP, SCHED_POLL, &poll);
		u64 t = now();
		if (t - last > longest)
			longest = t - last;
		last = t;
		for (u64 i = 0; i < 512; i++)
			if (p[i] != i * 0x0101010101010101ul)
				print("FAIL tick: word %d is %x\n", i, p[i]);
		print("tick %d longest %d\n", n, longest / 1000000);
	}
}
