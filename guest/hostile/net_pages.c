/* Network interfaces: pages that are not granted, not the guest's, or not there any more, to send from
 * and to receive into. */
#include "netfront.h"

static const u32 references[] = { 0, 1, 7, 2047, 2048, 16383, 16384, 0x7fffffff, 0x80000000, 0xffffffff };

DEVICE(net_tx_grants)
{
	make_arp(data, 1);
	for (int i = 0; i < COUNT(references); i++) {
		next(42)->gref = references[i];
		submit();
		if (!refused("an ungranted frame", references[i], 1))
			return;
		next(60)->flags = MORE;
		next(18)->gref = references[i];
		submit();
		if (!refused("an ungranted frame in a later slot", references[i], 2))
			return;
	}
}

DEVICE(net_tx_foreign_frames)
{
	u64 frames[] = { start->nr_pages, start->shared_info >> 12, start->nr_pages + 1, start->nr_pages + 33, 1ul << 20, 1ul << 31, 0xffffffff };
	for (int i = 0; i < COUNT(frames); i++) {
		u32 reference = grant_frame(frames[i], 1);
		next(42)->gref = reference;
		submit();
		int open = refused("a frame that is not the guest's", frames[i], 1);
		revoke(reference);
		if (!open)
			return;
	}
}

static const u16 odd_flags[] = { 0, 2, 3, 0x101, 1 };

/* Grants for others, transfers, transitive ones. */
DEVICE(net_tx_odd_grants)
{
	u32 reference = grant(data, 1);
	make_arp(data, 1);
	for (int i = 0; i < COUNT(odd_flags); i++) {
		grants[reference].domid = odd_flags[i] == 1 ? 5 : 0;
		grants[reference].flags = odd_flags[i];
		next(42)->gref = reference;
		submit();
		s64 r = outcome(1);
		/* 0x100 says nothing to those who do not map. */
		check(r == ERROR || r == CLOSED || (r == OKAY && odd_flags[i] == 0x101), "a grant of flags %x gave %d", (u64)odd_flags[i], r);
		if (r == CLOSED && !open_net())
			return;
	}
	revoke(reference);
}

/* Taken back and given again while packets use it. */
DEVICE(net_revoked_in_flight)
{
	for (int i = 0; i < 400; i++) {
		u32 reference = grant(data, i & 2), into = grant(buffer[0], 0);
		make_arp(data, i);
		rx->entry[(rx_produced - 1 - i % 8) % SLOTS].request.gref = into;
		next(42)->gref = reference;
		submit();
		revoke(reference);
		grants[into].frame = i & 1 ? 0xffffffff : start->nr_pages;
		revoke(into);
		if (!any_outcome("a revoked grant", i, 1))
			return;
		grants[reference].flags = 0;
		grants[into].flags = 0;
		if (i % 8 == 7 && !open_net())
			return;
	}
}

/* Offers this page alone, which must have no other on offer, and asks: the status of what comes. */
static s64 receive_into(u32 reference, u16 id)
{
	rx->entry[rx_produced++ % SLOTS].request = (struct rx_request){ id, 0, reference };
	__asm__ volatile("" ::: "memory");
	rx->req_prod = rx_produced;
	s64 r = simple(make_arp(data, random()), 0);
	check(r == OKAY || r == CLOSED, "a packet gave %d", r);
	if (r == CLOSED || !comes(5000000000ul))
		return net_is_closed() ? CLOSED : NOTHING;
	volatile struct rx_response *response = &rx->entry[rx_consumed++ % SLOTS].response;
	check(response->id == id, "a response has the id %x, not %x", (u64)response->id, (u64)id);
	return response->status;
}

static int not_received(const char *what, u64 detail, u32 reference)
{
	s64 r = receive_into(reference, 7);
	check(r < 0 || r == CLOSED, "%s (%x) received %d", what, detail, r);
	return r != CLOSED || connect_net();
}

DEVICE(net_rx_grants)
{
	if (!connect_net())
		return;
	for (int i = 0; i < COUNT(references); i++)
		if (!not_received("an ungranted page", references[i], references[i]))
			return;
	u64 frames[] = { start->nr_pages, start->shared_info >> 12, start->nr_pages + 1, start->nr_pages + 33, 1ul << 20, 1ul << 31, 0xffffffff };
	for (int i = 0; i < COUNT(frames); i++) {
		u32 reference = grant_frame(frames[i], 1);
		int open = not_received("a frame that is not the guest's", frames[i], reference);
		revoke(reference);
		if (!open)
			return;
	}
	u8 *target = page();
	u32 reference = grant(target, 1);
	fill(target, 0x77, 4096);
	if (!not_received("a page for reading", 0, reference))
		return;
	for (int i = 0; i < COUNT(odd_flags); i++) {
		grants[reference].domid = odd_flags[i] == 1 ? 5 : 0;
		grants[reference].flags = odd_flags[i];
		if (odd_flags[i] != 0x101 && !not_received("an odd grant, flags", odd_flags[i], reference))
			return;
	}
	for (int i = 0; i < 4096; i++)
		if (target[i] != 0x77) {
			fail("a page was written that must not be");
			break;
		}
	revoke(reference);
	s64 r = receive_into(buffer_grant[0], 0xffff);
	check(r >= 42, "a page that is good received %d", r);
}

DEVICE(net_rx_ids)
{
	if (!connect_net())
		return;
	static const u16 ids[] = { 0, 0, 255, 256, 257, 0x7fff, 0x8000, 0xffff, 0xffff };
	for (int i = 0; i < COUNT(ids); i++) {
		s64 r = receive_into(buffer_grant[i], ids[i]);
		check(r >= 42, "an answer of %d bytes", r);
	}
	/* One page for all, and requests that change after they were made. */
	for (int i = 0; i < 300; i++) {
		rx->entry[rx_produced++ % SLOTS].request = (struct rx_request){ 5, 0, buffer_grant[0] };
		rx->req_prod = rx_produced;
		next(make_arp(data, i));
		submit();
		volatile struct rx_request *r = &rx->entry[(rx_produced - 1) % SLOTS].request;
		for (int j = 0; j < 40 && rx->rsp_prod == rx_consumed; j++)
			r->gref = j & 1 ? buffer_grant[0] : ~0u, r->id = j, r->pad = j;
		if (!any_outcome("a packet", i, 1))
			return;
		if (comes(1000000000ul))
			rx_consumed++;
	}
}

/* What a page table is made of comes from the network. */
DEVICE(net_rx_into_page_tables)
{
	const u64 va = 0xffffb10000000000ul;
	if (!connect_net())
		return;
	map_page(va, frame_of(page()) << 12 | P | W | A | D);
	try_write(va);
	u32 reference = grant_frame(((u64)entry(va, 0) - BASE) >> 12, 1);
	for (int i = 0; i < 20; i++) {
		receive_into(reference, 1);
		try_read(va);
		try_write(va);
		flush();
		try_read(va);
	}
	revoke(reference);
	map_page(va, 0);
}

/* Pages that are given away while they are received into, and sent from. */
DEVICE(net_released_pages)
{
	static u64 frame;
	u8 *target = page();
	u32 reference = grant(target, 0);
	frame = frame_of(target);
	struct reservation r = { (u64)&frame, 1, 0, 0, 0x7ff0, { 0 } };
	if (!connect_net())
		return;
	for (int i = 0; i < 20; i++) {
		hc(MEMORY_OP, i & 1 ? POPULATE : DECREASE, &r);
		receive_into(reference, 1);
		next(42)->gref = reference;
		submit();
		if (!any_outcome("a page that was given away", i, 1) || (net_is_closed() && !connect_net()))
			return;
	}
	revoke(reference);
}

/* Nothing is on offer, however much comes. */
DEVICE(net_rx_flood)
{
	if (!connect_net())
		return;
	for (int i = 0; i < 20000; i++) {
		make_arp(data, i);
		next(42);
		if (i % 32 != 31)
			continue;
		submit();
		for (int j = 0; j < 32; j++)
			if (outcome(1) == NOTHING)
				return;
	}
	offer(BUFFERS);
	answers();
}
