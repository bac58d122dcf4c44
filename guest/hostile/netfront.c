/* The frontend of the network's tests: one queue, one event channel, BUFFERS pages to receive into. */
#include "netfront.h"

struct device net;
volatile struct tx_ring *tx;
volatile struct rx_ring *rx;
u32 tx_grant, rx_grant, port, tx_produced, tx_consumed, rx_produced, rx_consumed;
u8 *data, *buffer[BUFFERS];
u32 data_grant, buffer_grant[BUFFERS];

static void allocate(void)
{
	tx = page(), rx = page(), data = page();
	tx_grant = grant((void *)tx, 0);
	rx_grant = grant((void *)rx, 0);
	data_grant = grant(data, 1);
	for (int i = 0; i < BUFFERS; i++) {
		buffer[i] = page();
		buffer_grant[i] = grant(buffer[i], 0);
	}
	port = unbound_port();
}

void put_nodes(void)
{
	set_node(&net, "tx-ring-ref", number(tx_grant));
	set_node(&net, "rx-ring-ref", number(rx_grant));
	set_node(&net, "event-channel", number(port));
	set_node(&net, "request-rx-copy", "1");
	set_node(&net, "feature-rx-notify", "1");
	set_node(&net, "feature-sg", "1");
}

int connect_net(void)
{
	if (!net.front[0] && (!find_device(&net, "vif", "0") || !backend_is(&net, 2)))
		return 0;
	if (!start_over(&net))
		return 0;
	if (!tx)
		allocate();
	fill((void *)tx, 0, 4096);
	fill((void *)rx, 0, 4096);
	tx->req_event = tx->rsp_event = rx->req_event = rx->rsp_event = 1;
	tx_produced = tx_consumed = rx_produced = rx_consumed = 0;
	put_nodes();
	set_state(&net, 3);
	if (!backend_is(&net, 4)) {
		fail("the backend does not connect");
		return 0;
	}
	set_state(&net, 4);
	return 1;
}

int open_net(void)
{
	if (!connect_net())
		return 0;
	offer(BUFFERS);
	return 1;
}

int net_is_closed(void)
{
	char state[16];
	store_read(joined(net.back, "state", ""), state, sizeof state);
	return state[0] == '5' || state[0] == '6';
}

static u16 id_of(u32 index)
{
	return index * 263 + 77;
}

volatile struct tx_request *next(u16 size)
{
	volatile struct tx_request *r = &tx->entry[tx_produced % SLOTS].request;
	*r = (struct tx_request){ data_grant, 0, 0, id_of(tx_produced), size };
	tx_produced++;
	return r;
}

volatile struct extra *next_extra(u8 type, u16 size, u8 gso)
{
	volatile union tx_entry *e = &tx->entry[tx_produced++ % SLOTS];
	fill((void *)e, 0, sizeof *e);
	e->extra = (struct extra){ type, 0, size, gso, 0, 0 };
	return &e->extra;
}

void submit(void)
{
	__asm__ volatile("" ::: "memory");
	tx->req_prod = tx_produced;
	notify(port);
}

static void doze(void)
{
	static u32 none = 1;
	struct poll p = { (u64)&none, 1, 0, now() + 100000 };
	hc(SCHED_OP, SCHED_POLL, &p);
}

s64 outcome(u32 slots)
{
	u64 end = now() + 6000000000ul;
	for (u32 i = 1; now() < end; i++) {
		if (tx->rsp_prod - tx_consumed >= slots) {
			volatile struct tx_response *r = &tx->entry[tx_consumed % SLOTS].response;
			check(r->id == id_of(tx_consumed), "a response has the id %x", (u64)r->id);
			s64 status = r->status;
			tx_consumed += slots;
			tx->rsp_event = tx_consumed + 1;
			return status;
		}
		/* The store is slow. */
		if (i % 16 == 0 && net_is_closed())
			return CLOSED;
		doze();
	}
	fail("a packet gets no answer");
	return NOTHING;
}

s64 simple(u16 size, u16 flags)
{
	next(size)->flags = flags;
	submit();
	return outcome(1);
}

int refused(const char *what, u64 detail, u32 slots)
{
	s64 r = outcome(slots);
	check(r == ERROR || r == CLOSED, "%s (%x) gave %d", what, detail, r);
	return r != NOTHING && (r != CLOSED || open_net());
}

int any_outcome(const char *what, u64 detail, u32 slots)
{
	s64 r = outcome(slots);
	check(r != NOTHING, "%s (%x) gave nothing", what, detail);
	return r != NOTHING && (r != CLOSED || open_net());
}

void offer(u32 count)
{
	for (; count; count--, rx_produced++)
		rx->entry[rx_produced % SLOTS].request =
			(struct rx_request){ rx_produced % SLOTS, 0, buffer_grant[rx_produced % BUFFERS] };
	__asm__ volatile("" ::: "memory");
	rx->req_prod = rx_produced;
	notify(port);
}

int comes(u64 patience)
{
	u64 end = now() + patience;
	while (rx->rsp_prod == rx_consumed) {
		if (now() > end)
			return 0;
		rx->rsp_event = rx_consumed + 1;
		doze();
	}
	return 1;
}

u16 make_arp(u8 *frame, u8 last)
{
	static const u8 own[] = { 2, 0, 0, 0x1e, 7, 9 };
	static const u8 what[] = { 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 };
	static const u8 address[] = { 203, 0, 113 };
	fill(frame, 0, 60);
	fill(frame, 0xff, 6);
	copy(frame + 6, own, 6);
	copy(frame + 12, what, 10);
	copy(frame + 22, own, 6);
	copy(frame + 38, address, 3);
	frame[41] = last;
	return 42;
}

/* Takes a frame; whether it is the answer for this address. */
static int is_answer(u8 last)
{
	volatile struct rx_response *r = &rx->entry[rx_consumed % SLOTS].response;
	u8 *f = buffer[rx_consumed % BUFFERS] + r->offset;
	check(r->id == rx_consumed % SLOTS, "a frame has the id %x, where %x was", (u64)r->id, (u64)rx_consumed % SLOTS);
	int good = r->offset == 0 && r->status >= 42 && f[12] == 8 && f[13] == 6 && f[21] == 2 && f[28] == 203 && f[31] == last;
	rx_consumed++;
	offer(1);
	return good;
}

int answers(void)
{
	/* What waited for the guest comes first; the network may have dropped the rest. One that fell
	   silent is noticed and replaced: what is sent meanwhile is lost. */
	for (int tries = 0; tries < 20; tries++) {
		u8 last = random();
		s64 r = simple(make_arp(data, last), 0);
		if (r != OKAY && r != ERROR) {
			fail("an ordinary packet gave %d", r);
			return 0;
		}
		while (comes(1000000000ul))
			if (is_answer(last))
				return 1;
	}
	fail("no answer comes from the network");
	return 0;
}

void end_net(void)
{
	if (open_net())
		answers();
	start_over(&net);
}
