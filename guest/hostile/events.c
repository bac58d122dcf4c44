/* Event channels, timers, waiting: wrong ports and times, floods. */
#include "kernel.h"

#define gives(value, call) do { \
	s64 r_ = (call); \
	check(r_ == (s64)(value), "%s gave %d, expected %d", #call, r_, (s64)(value)); \
} while (0)

static u32 words[4];
static s64 evtchn(u64 op, u32 a, u32 b, u32 c)
{
	words[0] = a, words[1] = b, words[2] = c;
	return hc(EVENT_CHANNEL_OP, op, words);
}

static const u32 wild_ports[] = { 0, 3000, 4095, 4096, 0x7fffffff, 0x80000000, 0xffffffff };
#define PORTS 7

TEST(event_pointers)
{
	static const u8 operations[] = { BIND_VIRQ, EVT_CLOSE, EVT_SEND, EVT_STATUS, ALLOC_UNBOUND, BIND_IPI, BIND_VCPU, EVT_UNMASK };
	for (unsigned o = 0; o < sizeof operations; o++)
		for (int i = 0; i < wilds; i++)
			gives(-EFAULT, hc(EVENT_CHANNEL_OP, operations[o], wild[i]));
}

TEST(event_unknown)
{
	for (u64 op = INIT_CONTROL; op; op <<= 1)
		gives(-ENOSYS, hc(EVENT_CHANNEL_OP, op, words));
	gives(-ENOSYS, evtchn(BIND_INTERDOMAIN, 0, 1, 0));
	gives(-ENOSYS, evtchn(BIND_PIRQ, 1, 0, 0));
}

TEST(event_ports)
{
	for (int i = 0; i < PORTS; i++) {
		gives(-EINVAL, evtchn(EVT_SEND, wild_ports[i], 0, 0));
		gives(-EINVAL, evtchn(EVT_CLOSE, wild_ports[i], 0, 0));
		s64 r = evtchn(EVT_STATUS, 0x7ff0, wild_ports[i], 0);
		check(r == -EINVAL || (r == 0 && words[2] == 0), "status of %d gave %d", (u64)wild_ports[i], r);
		r = evtchn(EVT_UNMASK, wild_ports[i], 0, 0);
		check(r == -EINVAL || (r == 0 && wild_ports[i] < 4096), "unmask of %d gave %d", (u64)wild_ports[i], r);
	}
}

TEST(event_bindings)
{
	static const u32 virqs[] = { 24, 25, 0xff, 0x80000000, 0xffffffff };
	for (int i = 0; i < 5; i++)
		gives(-EINVAL, evtchn(BIND_VIRQ, virqs[i], 0, 0));
	gives(-EINVAL, evtchn(BIND_VIRQ, 1, 1, 0));
	gives(-EINVAL, evtchn(BIND_VIRQ, 1, 0xffffffff, 0));
	gives(0, evtchn(BIND_VIRQ, 1, 0, 0));
	u32 port = words[2];
	gives(-EEXIST, evtchn(BIND_VIRQ, 1, 0, 0));
	gives(0, evtchn(EVT_CLOSE, port, 0, 0));
	gives(-EINVAL, evtchn(EVT_CLOSE, port, 0, 0));
	gives(-EINVAL, evtchn(BIND_IPI, 1, 0, 0));
	gives(-EINVAL, evtchn(BIND_IPI, 0xffffffff, 0, 0));
	gives(-EPERM, evtchn(ALLOC_UNBOUND, 0x12345678, 0, 0));
	gives(-ENOENT, evtchn(BIND_VCPU, 1, 1, 0));
}

TEST(event_ports_run_out)
{
	for (int round = 0; round < 3; round++) {
		u32 count = 0;
		s64 r;
		while (!(r = evtchn(BIND_IPI, 0, 0, 0)) && count < 5000)
			count++;
		check(r == -ENOSPC && count > 4000 && count < 4096, "%d ports, then %d", (u64)count, r);
		for (u32 p = 3; p < 4096; p++)
			gives(0, evtchn(EVT_CLOSE, p, 0, 0));
	}
}

TEST(event_flood)
{
	gives(0, evtchn(BIND_IPI, 0, 0, 0));
	u32 port = words[1];
	for (int i = 0; i < 20000; i++) {
		evtchn(EVT_SEND, port, 0, 0);
		evtchn(EVT_SEND, start->console_port, 0, 0);
		evtchn(EVT_SEND, start->store_port, 0, 0);
		evtchn(EVT_UNMASK, i % 4096, 0, 0);
	}
	gives(0, evtchn(EVT_CLOSE, port, 0, 0));
}

TEST(timer_flood)
{
	for (int i = 0; i < 20000; i++)
		hc(SET_TIMER_OP, random() >> (i & 63));
	for (u64 t = now() + 2000000000, i = 0; i < 5000; i++)
		hc(SET_TIMER_OP, t -= 100000);
	static const u64 times[] = { 1, ~0ul, ~0ul >> 1, 1ul << 63, 999, 1000000000 };
	for (int i = 0; i < 6; i++)
		gives(0, hc(SET_TIMER_OP, times[i]));
	for (int i = 0; i < 6; i++) {
		u64 single[2] = { times[i], 0 };
		gives(0, hc(VCPU_OP, 8, 0, single));
	}
	u64 past[2] = { 1, 1 };
	gives(-ETIME, hc(VCPU_OP, 8, 0, past));
	gives(0, hc(SET_TIMER_OP, 0));
}

/* A timer in the past fires at once; one far away does not. */
TEST(timer_in_the_past)
{
	gives(0, evtchn(BIND_VIRQ, 0, 0, 0));
	u32 port = words[2];
	for (int i = 0; i < 20; i++) {
		shared->pending[0] = 0;
		gives(0, hc(SET_TIMER_OP, 1));
		struct poll p = { (u64)&port, 1, 0, now() + 2000000000 };
		u64 from = now();
		while (!(shared->pending[port / 64] >> port % 64 & 1) && now() - from < 1000000000)
			gives(0, hc(SCHED_OP, SCHED_POLL, &p));
		check(now() - from < 1000000000, "it came after %d ns", now() - from);
	}
	gives(0, hc(SET_TIMER_OP, ~0ul));
	gives(0, hc(SET_TIMER_OP, 0));
	gives(0, evtchn(EVT_CLOSE, port, 0, 0));
}

TEST(poll_wild)
{
	u32 ports[128] = { 0 };
	for (int i = 0; i < wilds; i++) {
		gives(-EFAULT, hc(SCHED_OP, SCHED_POLL, wild[i]));
		struct poll p = { wild[i], 1, 0, 1 };
		gives(-EFAULT, hc(SCHED_OP, SCHED_POLL, &p));
		p = (struct poll){ wild[i], 0, 0, 1 };
		gives(0, hc(SCHED_OP, SCHED_POLL, &p));
	}
	static const u32 counts[] = { 129, 4096, 0x7fffffff, 0xffffffff };
	for (int i = 0; i < 4; i++) {
		struct poll p = { (u64)ports, counts[i], 0, 1 };
		gives(-EINVAL, hc(SCHED_OP, SCHED_POLL, &p));
	}
	for (int i = 3; i < PORTS; i++) {
		ports[127] = wild_ports[i];
		struct poll p = { (u64)ports, 128, 0, 1 };
		gives(-EINVAL, hc(SCHED_OP, SCHED_POLL, &p));
	}
	ports[127] = 0;
	struct poll p = { (u64)ports, 128, 0, 1 };
	gives(0, hc(SCHED_OP, SCHED_POLL, &p));
}

TEST(sched_unknown)
{
	for (u64 op = 4; op; op <<= 1)
		gives(-ENOSYS, hc(SCHED_OP, op, words));
	for (int i = 0; i < wilds; i++)
		gives(-EFAULT, hc(SCHED_OP, SCHED_SHUTDOWN, wild[i]));
	for (int i = 0; i < 20000; i++)
		hc(SCHED_OP, SCHED_YIELD, wild[i % wilds]);
}

/* Whatever stands in shared_info: it is this kernel's to spoil. */
TEST(shared_info_garbage)
{
	u8 saved[64];
	copy(saved, (void *)shared, 64);
	for (int i = 0; i < 2000; i++) {
		for (int w = 0; w < 64; w++)
			shared->pending[w] = random(), shared->mask[w] = random();
		shared->vcpu[0].selector = random();
		evtchn(EVT_UNMASK, random() % 4096, 0, 0);
		evtchn(EVT_SEND, start->console_port, 0, 0);
	}
	copy((void *)shared, saved, 64);
	for (int w = 0; w < 64; w++)
		shared->pending[w] = 0, shared->mask[w] = ~0ul;
	shared->vcpu[0].pending = 0;
}

/* Indices of the rings that cannot be. */
TEST(ring_indices)
{
	static const u32 indices[] = { 1, 1024, 1025, 2047, 2048, 2049, 0x7fffffff, 0x80000000, 0xffffffff };
	for (int round = 0; round < 300; round++) {
		u32 a = indices[random() % 9], b = indices[random() % 9];
		console->out_prod = a, console->out_cons = b;
		console->in_prod = b, console->in_cons = a;
		evtchn(EVT_SEND, start->console_port, 0, 0);
		store->req_prod = a, store->req_cons = b;
		store->rsp_prod = b, store->rsp_cons = a;
		evtchn(EVT_SEND, start->store_port, 0, 0);
	}
	/* What of it is taken for output comes before what this kernel says next. */
	console->out_prod = console->out_cons = 0x12345;
	evtchn(EVT_SEND, start->console_port, 0, 0);
	for (u64 from = now(); now() - from < 20000000;)
		hc(SCHED_OP, SCHED_YIELD);
	print("\n");
}
