/* Network interfaces: rings that say what cannot be, or are not what they should be. */
#include "netfront.h"

static const u32 jumps[] = { SLOTS + 1, SLOTS * 2, 0x10000, 0x7fffffff, 0x80000000, 0xffffff00, 0xffffffff };

DEVICE(net_tx_indices)
{
	for (int i = 0; i < COUNT(jumps); i++) {
		tx->req_prod = tx->rsp_prod + jumps[i];
		notify(port);
		check(backend_is(&net, 5), "an index %x ahead was accepted", (u64)jumps[i]);
		if (!open_net() || !answers())
			return;
	}
}

DEVICE(net_rx_indices)
{
	for (int i = 0; i < COUNT(jumps); i++) {
		rx->req_prod = rx->rsp_prod + jumps[i];
		/* It is looked at when a frame comes. */
		next(make_arp(data, i));
		submit();
		check(backend_is(&net, 5), "an index %x ahead was accepted", (u64)jumps[i]);
		if (!open_net() || !answers())
			return;
	}
}

DEVICE(net_indices_of_the_backend)
{
	for (int i = 0; i < 40; i++) {
		tx->rsp_prod = random(), rx->rsp_prod = random();
		tx->req_event = random(), rx->req_event = random();
		tx->rsp_event = random(), rx->rsp_event = random();
		next(make_arp(data, i));
		submit();
	}
}

static void scribble(volatile void *ring)
{
	volatile u32 *word = ring;
	for (int w = 0; w < 1024; w++)
		word[w] = random();
}

DEVICE(net_rings_scribbled)
{
	for (int i = 0; i < 60; i++) {
		scribble(i & 1 ? (void *)rx : (void *)tx);
		tx->req_prod = tx_produced += random() & 15;
		rx->req_prod = rx_produced + (random() & 15);
		notify(port);
		if (net_is_closed() && !open_net())
			return;
	}
}

DEVICE(net_bells)
{
	for (int i = 0; i < 20000; i++)
		notify(port);
	answers();
}

/* Both rings are one page. */
DEVICE(net_one_ring)
{
	if (!start_over(&net))
		return;
	fill((void *)tx, 0, 4096);
	tx->req_event = tx->rsp_event = 1;
	tx_produced = tx_consumed = 0;
	put_nodes();
	set_node(&net, "rx-ring-ref", number(tx_grant));
	set_state(&net, 3);
	if (!backend_is(&net, 4))
		return;
	set_state(&net, 4);
	for (int i = 0; i < 300 && !net_is_closed(); i++) {
		next(make_arp(data, i));
		submit();
	}
}

/* The pages to receive into are the rings, and so are the packets. */
DEVICE(net_rings_are_data)
{
	for (int i = 0; i < 40; i++) {
		if (!connect_net())
			return;
		u32 target = i & 1 ? rx_grant : tx_grant;
		for (int j = 0; j < 8; j++)
			rx->entry[rx_produced++ % SLOTS].request = (struct rx_request){ j, 0, target };
		rx->req_prod = rx_produced;
		for (int j = 0; j < 4; j++) {
			next(make_arp(data, j));
			volatile struct tx_request *r = next(200);
			r->gref = target, r->offset = j * 60;
		}
		submit();
		u64 soon = now() + 10000000;
		while (now() < soon)
			;
	}
}

/* The rings are taken back, not granted, for reading, or not the guest's. */
DEVICE(net_ring_grants)
{
	revoke(tx_grant);
	revoke(rx_grant);
	scribble(rx);
	notify(port);
	if (!start_over(&net))
		return;
	for (int i = 0; i < 5; i++) {
		u32 wrong = i == 0 ? tx_grant : i == 1 ? grant((void *)tx, 1) : grant_frame(i == 2 ? start->nr_pages : i == 3 ? 0xffffffff : 1ul << 20, 1);
		put_nodes();
		set_node(&net, i & 1 ? "rx-ring-ref" : "tx-ring-ref", number(wrong));
		if (i == 0)
			grants[rx_grant].flags = 1;
		set_state(&net, 3);
		check(backend_is(&net, 5), "a ring that is not granted was accepted");
		start_over(&net);
		revoke(wrong);
	}
	grants[tx_grant].flags = grants[rx_grant].flags = 1;
}
