/* Network interfaces: a frontend that breaks the rules of io/netif.h. Each packet gets an error, or the
 * device is closed; after each test it must work. The network behind it is a user-mode one. */
#include "netfront.h"

static void end(void)
{
	if (open_net())
		answers();
	close_net();
}

#define DEVICE(name) \
	static void name##_(void); \
	OWN(name) { if (open_net()) name##_(); end(); } \
	static void name##_(void)

#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

/* A packet of `slots` slots after the first, which has `first` bytes of it in its header. */
static void chain(u16 whole, u32 slots, u16 each)
{
	next(whole)->flags = slots ? MORE : 0;
	for (u32 i = 0; i < slots; i++) {
		volatile struct tx_request *r = next(each);
		r->offset = whole - each * (slots - i);
		r->flags = i + 1 < slots ? MORE : 0;
	}
	submit();
}

/* A TCP or UDP packet for the host's own port 9, and nothing in it; its length. */
static u16 make_packet(u8 *f, int version, u8 protocol, u16 payload)
{
	u16 transport = (protocol == 6 ? 20 : 8) + payload, start = version == 4 ? 34 : 54;
	make_arp(f, 0);
	fill(f + 12, 0, start + transport - 12);
	if (version == 4) {
		f[12] = 8, f[14] = 0x45;
		f[16] = (20 + transport) >> 8, f[17] = 20 + transport;
		f[22] = 64, f[23] = protocol;
		f[26] = 192, f[28] = 2, f[29] = 2;
		f[30] = 127, f[33] = 1;
	} else {
		f[12] = 0x86, f[13] = 0xdd, f[14] = 0x60;
		f[18] = transport >> 8, f[19] = transport;
		f[20] = protocol, f[21] = 64;
		f[22] = 0xfd, f[37] = 2;
		f[53] = 1;
	}
	u8 *t = f + start;
	t[1] = 9, t[3] = 9;
	if (protocol == 6)
		t[12] = 0x50;
	else
		t[4] = transport >> 8, t[5] = transport;
	return start + transport;
}

DEVICE(net_works)
{
	for (int i = 0; i < 3 * BUFFERS; i++)
		if (!answers())
			return;
	/* The smallest pieces, which are put together in the right order. */
	u32 before = rx_consumed;
	make_arp(data, 9);
	chain(42, 17, 2);
	s64 r = outcome(18);
	check(r == OKAY, "a packet of 18 slots gave %d", r);
	check(comes(3000000000ul), "no answer to a packet of 18 slots");
	check(buffer[before % BUFFERS][31] == 9, "the answer is to something else");
	rx_consumed++, offer(1);
	/* Whatever is blank is computed, however large the packet is. */
	for (int i = 0; i < 4; i++) {
		r = simple(make_packet(data, i & 1 ? 6 : 4, i & 2 ? 17 : 6, 100), BLANK);
		check(r == OKAY, "a blank checksum gave %d", r);
	}
	make_packet(data, 4, 6, 3000);
	next(3054)->flags = BLANK | EXTRA;
	next_extra(1, 1000, 1);
	submit();
	r = outcome(2);
	check(r == OKAY, "a packet to be cut gave %d", r);
	check(tx->entry[1 + (tx_consumed - 2) % SLOTS].response.status == 1, "the slot of an extra has no answer of its own");
}

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

DEVICE(net_pages)
{
	static const u16 pairs[][2] = { { 4095, 42 }, { 4096, 14 }, { 4096, 0xffff }, { 4083, 14 }, { 1, 4096 }, { 0, 4097 },
		{ 0, 65535 }, { 65535, 14 }, { 65535, 65535 }, { 65535, 1 }, { 32768, 32768 } };
	for (int i = 0; i < COUNT(pairs); i++) {
		make_arp(data, i);
		next(pairs[i][1])->offset = pairs[i][0];
		submit();
		if (!refused("a slot beyond its page, size", pairs[i][1], 1))
			return;
		/* In a later slot. */
		u32 whole = 42 + pairs[i][1];
		next(whole > 0xffff ? 0xffff : whole)->flags = MORE;
		next(pairs[i][1])->offset = pairs[i][0];
		submit();
		if (!refused("a later slot beyond its page, size", pairs[i][1], 2))
			return;
	}
}

DEVICE(net_short)
{
	for (u16 size = 0; size < 14; size++) {
		next(size);
		submit();
		if (!refused("a frame without a header, size", size, 1))
			return;
		next(size)->flags = BLANK;
		submit();
		if (!refused("a blank frame without a header, size", size, 1))
			return;
		chain(size, 3, size / 3);
		if (!refused("several slots without a header, size", size, 4))
			return;
	}
	/* A page's last bytes, and empty slots. */
	next(0)->offset = 4096;
	submit();
	any_outcome("an empty slot at the end of a page", 0, 1);
	next(0)->offset = 65535;
	submit();
	any_outcome("an empty slot beyond its page", 0, 1);
	make_arp(data, 1);
	chain(42, 5, 0);
	any_outcome("empty slots", 0, 6);
	next(14);
	submit();
	any_outcome("a header alone", 0, 1);
}

DEVICE(net_sizes)
{
	static const u16 lists[][3] = { { 42, 43, 0 }, { 0, 1, 0 }, { 42, 41, 41 }, { 42, 4096, 4096 }, { 60, 65535, 65535 }, { 1, 65535, 2 },
		{ 65535, 0, 0 }, { 65535, 1, 1 }, { 20000, 4096, 4096 }, { 65535, 4096, 57000 }, { 0, 0, 0 } };
	for (int i = 0; i < COUNT(lists); i++) {
		make_arp(data, i);
		next(lists[i][0])->flags = MORE;
		next(lists[i][1])->flags = MORE;
		next(lists[i][2]);
		submit();
		if (!refused("slots that do not add up, size", lists[i][0], 3))
			return;
	}
	make_arp(data, 3);
	chain(42, 1, 42);
	any_outcome("a first slot with nothing left for it", 0, 2);
	/* As large as can be said. */
	next(65535)->flags = MORE;
	for (int i = 0; i < 16; i++)
		next(i < 15 ? 4096 : 100)->flags = i < 15 ? MORE : 0;
	submit();
	any_outcome("the largest packet", 0, 17);
}

DEVICE(net_many_slots)
{
	static const u16 counts[] = { 19, 20, 21, 22, 40, 64, 200, 255, 256 };
	for (int i = 0; i < COUNT(counts); i++) {
		make_arp(data, i);
		chain(1000, counts[i] - 1, 2);
		int open = counts[i] < 21 ? any_outcome("slots", counts[i], counts[i]) : refused("slots", counts[i], counts[i]);
		if (!open)
			return;
	}
	/* A packet that fills the ring and goes on in its own beginning. */
	for (int i = 0; i < SLOTS; i++)
		next(i ? 1 : 300)->flags = MORE;
	submit();
	refused("a packet without an end", SLOTS, 1);
}

DEVICE(net_no_end)
{
	for (u32 slots = 1; slots < 24; slots += slots < 4 ? 1 : 7) {
		for (u32 i = 0; i < slots; i++)
			next(i ? 2 : 100)->flags = MORE;
		submit();
		if (!refused("a packet without its last slot", slots, slots))
			return;
	}
	next(42)->flags = EXTRA;
	submit();
	if (!refused("a packet without its extra", 0, 1))
		return;
	next(42)->flags = EXTRA | MORE;
	next_extra(1, 1000, 1)->flags = 1;
	submit();
	refused("an extra without the next one", 0, 2);
}

DEVICE(net_extras)
{
	static const u8 types[] = { 0, 2, 3, 4, 5, 6, 127, 128, 255 };
	static const u16 counts[] = { 2, 3, 18, 100, 255 };
	for (int i = 0; i < COUNT(types); i++) {
		next(make_packet(data, 4, 6, 1000))->flags = EXTRA | BLANK;
		next_extra(types[i], 100, 1);
		submit();
		if (!refused("an extra that was not agreed upon", types[i], 2))
			return;
	}
	for (int i = 0; i < COUNT(counts); i++)
		for (int kind = 0; kind < 2; kind++) {
			next(make_packet(data, 4, 6, 1000))->flags = EXTRA | BLANK;
			for (int j = 0; j < counts[i]; j++)
				next_extra(kind ? j : 1, 100, 1)->flags = j + 1 < counts[i];
			submit();
			if (!refused("many extras", counts[i], counts[i] + 1))
				return;
		}
	/* All slots of the ring are one chain. */
	next(make_packet(data, 4, 6, 1000))->flags = EXTRA | BLANK;
	for (int j = 1; j < SLOTS; j++)
		next_extra(1, 100, 1)->flags = 0xff;
	submit();
	if (!refused("endless extras", SLOTS, SLOTS))
		return;
	/* Announced in a slot where it has no place. */
	chain(100, 2, 10);
	outcome(3);
	next(100)->flags = MORE;
	next(10)->flags = EXTRA;
	submit();
	any_outcome("an extra behind a later slot", 0, 2);
}

DEVICE(net_cutting)
{
	static const u16 sizes[] = { 0, 1, 2, 7, 1000, 65535 };
	static const u8 types[] = { 0, 1, 2, 3, 4, 128, 255 };
	for (int t = 0; t < COUNT(types); t++)
		for (int s = 0; s < COUNT(sizes); s++)
			for (int p = 0; p < 5; p++) {
				u16 size = p < 4 ? make_packet(data, p & 1 ? 6 : 4, p & 2 ? 17 : 6, 2000) : make_arp(data, 1);
				int fits = sizes[s] && p < 2 && types[t] == p + 1;
				next(size)->flags = EXTRA | (s & 1 ? BLANK : 0);
				volatile struct extra *e = next_extra(1, sizes[s], types[t]);
				e->features = fits ? 0 : 0xffff;
				submit();
				int open = fits ? any_outcome("a packet to be cut", sizes[s], 2)
					: refused("a packet that cannot be cut, type and size", types[t] << 16 | sizes[s], 2);
				if (!open)
					return;
			}
	/* Headers longer than the packet, or nothing behind them. */
	for (u16 payload = 0; payload < 3; payload++) {
		u16 size = make_packet(data, 4, 6, payload);
		for (int length = 0; length < 16; length++) {
			data[46] = length << 4;
			next(size)->flags = EXTRA | BLANK;
			next_extra(1, 1, 1);
			submit();
			int open = length == 5 ? any_outcome("a small packet to be cut", payload, 2)
				: refused("a TCP header of a wrong length", length, 2);
			if (!open)
				return;
		}
	}
}

DEVICE(net_truncated_headers)
{
	for (int kind = 0; kind < 4; kind++) {
		u16 size = make_packet(data, kind & 1 ? 6 : 4, kind & 2 ? 17 : 6, 0);
		for (u16 s = 14; s < size; s++) {
			next(s)->flags = BLANK;
			submit();
			if (!refused("a truncated header, size", s, 1))
				return;
			chain(s, 6, 2);
			tx->entry[(tx_produced - 7) % SLOTS].request.flags = MORE | BLANK;
			if (!any_outcome("a truncated header in several slots", s, 7))
				return;
		}
	}
}

DEVICE(net_garbage_headers)
{
	/* Each place of a header with each of some values. */
	static const u8 values[] = { 0, 1, 0x0f, 0x40, 0x4f, 0x7f, 0x80, 0xf0, 0xff };
	for (int kind = 0; kind < 4; kind++) {
		u16 size = make_packet(data, kind & 1 ? 6 : 4, kind & 2 ? 17 : 6, 20);
		for (int at = 12; at < size - 20; at++)
			for (int v = 0; v < COUNT(values); v++) {
				/* Nothing goes to others than the host. */
				if ((kind & 1) ? at >= 38 && at < 54 : at >= 30 && at < 34)
					continue;
				u8 was = data[at];
				data[at] = values[v];
				next(size)->flags = BLANK | (v & 1 ? EXTRA : 0);
				if (v & 1)
					next_extra(1, 5, kind & 1 ? 2 : 1);
				submit();
				if (!any_outcome("a changed header, place", at, v & 1 ? 2 : 1))
					return;
				data[at] = was;
			}
	}
	refused("an ARP packet with a blank checksum", 0, (next(make_arp(data, 1))->flags = BLANK, submit(), 1));
	/* Endless extension headers, and an IPv4 header that ends behind the packet. */
	u16 size = make_packet(data, 6, 17, 1000);
	for (int i = 0; i < 3; i++) {
		fill(data + 54, i == 2 ? 255 : 0, 1000);
		data[20] = i ? 60 : 0;
		refused("extension headers", i, (next(size)->flags = BLANK, submit(), 1));
	}
	size = make_packet(data, 4, 17, 0);
	data[14] = 0x4f, data[17] = 60;
	refused("an IPv4 header without an end", 0, (next(size)->flags = BLANK, submit(), 1));
}

DEVICE(net_random_packets)
{
	for (int i = 0; i < 2000; i++) {
		u64 dice = random();
		int version = dice & 1 ? 6 : 4;
		u16 size = make_packet(data, version, dice & 2 ? 17 : 6, dice >> 8 & 255);
		for (int j = 0; j < 4; j++)
			if (dice & 4ul << j) {
				u16 at = 12 + random() % (version == 4 ? 18 : 26);
				data[at] = random();
			}
		u32 slots = 1;
		volatile struct tx_request *first = next(size - (dice >> 16) % 20);
		first->flags = dice >> 32 & (BLANK | EXTRA);
		first->offset = (dice >> 40 & 7) == 0 ? random() : 0;
		if (first->flags & EXTRA)
			next_extra(1, dice >> 48, version == 4 ? 1 : 2), slots++;
		for (u64 more = dice >> 21 & 3; more; more--, slots++)
			first->flags |= MORE, next(random() % 20)->flags = more > 1 ? MORE : 0;
		submit();
		if (!any_outcome("a random packet", i, slots))
			return;
	}
}

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

/* The words of a packet's slots change while they are read. */
DEVICE(net_changing_slots)
{
	for (int i = 0; i < 300; i++) {
		make_packet(data, 4, 6, 400);
		u32 first = tx_produced % SLOTS;
		next(454)->flags = BLANK | MORE | (i & 1 ? EXTRA : 0);
		if (i & 1)
			next_extra(1, 100, 1);
		next(200)->flags = MORE;
		next(100);
		submit();
		for (int j = 0; j < 60 && tx->rsp_prod == tx_consumed; j++)
			for (int s = 0; s < 4; s++) {
				volatile struct tx_request *r = &tx->entry[(first + s) % SLOTS].request;
				u32 what = i >> 1;
				if (what & 1)
					r->size = j & 1 ? 0xffff : s ? 100 : 454;
				if (what & 2)
					r->offset = j & 2 ? 0xffff : 0;
				if (what & 4)
					r->flags = j & 4 ? 0 : BLANK | MORE;
				if (what & 8)
					r->gref = j & 8 ? ~0u : data_grant;
			}
		/* Its ids change too: only that something comes counts. */
		u64 late = now() + 3000000000ul;
		while (tx->rsp_prod == tx_consumed && now() < late)
			if (net_is_closed())
				break;
		check(now() < late, "no answer to a packet that changes");
		if (net_is_closed()) {
			if (!open_net())
				return;
			continue;
		}
		/* As many slots as it took for one packet, or several packets. */
		u64 soon = now() + 20000000;
		while (tx->rsp_prod != tx_produced && now() < soon)
			;
		tx_consumed = tx->rsp_prod;
		if (tx_consumed != tx_produced && !open_net())
			return;
	}
}

/* So do its headers. */
DEVICE(net_changing_headers)
{
	for (int i = 0; i < 1000; i++) {
		u16 size = make_packet(data, i & 1 ? 6 : 4, i & 2 ? 17 : 6, 900);
		volatile u8 *f = data;
		next(size)->flags = BLANK | (i & 4 ? EXTRA : 0);
		if (i & 4)
			next_extra(1, 100, i & 1 ? 2 : 1);
		submit();
		for (int j = 0; j < 60 && tx->rsp_prod == tx_consumed; j++) {
			f[14] = j & 1 ? 0x4f : 0x60;
			f[16] = f[17] = f[18] = f[19] = j & 2 ? 255 : 0;
			f[20] = j & 4 ? 60 : 0;
			f[23] = j & 8 ? 6 : 17;
			f[46] = f[66] = j & 1 ? 0xf0 : 0;
			f[12] = j & 16 ? 0x81 : 8;
		}
		if (!any_outcome("a packet whose headers change", i, i & 4 ? 2 : 1))
			return;
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

/* Waits for the backend to accept or refuse what the nodes say. */
static void decided(const char *key, const char *value)
{
	set_state(&net, 3);
	u64 late = now() + 5000000000ul;
	while (now() < late) {
		char state[16];
		store_read(joined(net.back, "state", ""), state, sizeof state);
		if (state[0] == '4' || state[0] == '5')
			return;
	}
	fail("no answer to %s = %s", key, value);
}

static void forget_node(const char *key)
{
	char reply[8];
	store_call(13, joined(net.front, key, ""), "", 0, reply, sizeof reply);
}

static const char *const values[] = { "", "-1", "0", "99999999999999999999", "4294967295", "0x8", "16383", "nonsense", "%s%n", "255", "+1", " 1", "1 " };

DEVICE(net_nodes)
{
	static const char *const keys[] = { "tx-ring-ref", "rx-ring-ref", "event-channel", "event-channel-tx", "event-channel-rx",
		"multi-queue-num-queues", "request-rx-copy", "feature-sg", "feature-gso-tcpv4", "queue-0/tx-ring-ref", "queue-0", "mac" };
	for (int k = 0; k < COUNT(keys); k++) {
		for (int v = 0; v <= COUNT(values); v++) {
			if (!start_over(&net))
				return;
			put_nodes();
			if (keys[k][14] == 't' || keys[k][14] == 'r')
				forget_node("event-channel");
			if (v < COUNT(values))
				set_node(&net, keys[k], values[v]);
			else
				forget_node(keys[k]);
			decided(keys[k], v < COUNT(values) ? values[v] : "(nothing)");
		}
		if (k != COUNT(keys) - 1)
			forget_node(keys[k]);
	}
}

/* Queues that share everything, and queues that are not all there. */
DEVICE(net_queues)
{
	static const char *const names[] = { "tx-ring-ref", "rx-ring-ref", "event-channel" };
	for (int count = 1; count < 7; count++)
		for (int missing = 0; missing < 2; missing++) {
			if (!start_over(&net))
				return;
			for (int i = 0; i < 3; i++)
				forget_node(names[i]);
			for (int queue = 0; queue < count - missing; queue++) {
				const char *prefix = joined("queue-", number(queue), "/");
				u32 values[] = { tx_grant, rx_grant, port };
				for (int i = 0; i < 3; i++)
					set_node(&net, joined(prefix, names[i], ""), number(values[i]));
			}
			set_node(&net, "multi-queue-num-queues", number(count));
			fill((void *)tx, 0, 4096);
			fill((void *)rx, 0, 4096);
			tx_produced = rx_produced = 0;
			decided("multi-queue-num-queues", number(count));
			offer(BUFFERS);
			for (int i = 0; i < 50; i++)
				next(make_arp(data, i));
			submit();
			for (int queue = 0; queue < count; queue++)
				forget_node(joined("queue-", number(queue), ""));
		}
	forget_node("multi-queue-num-queues");
}

/* The backend's event channels are those of others. */
DEVICE(net_channels_of_others)
{
	u32 own = port;
	const u32 ports[] = { start->console_port, start->store_port, 0, 4095 };
	for (int i = 0; i < COUNT(ports); i++) {
		if (!start_over(&net))
			return;
		fill((void *)tx, 0, 4096);
		tx->req_event = tx->rsp_event = 1;
		tx_produced = tx_consumed = 0;
		put_nodes();
		set_node(&net, "event-channel", number(ports[i]));
		decided("event-channel", number(ports[i]));
		for (int j = 0; j < 100; j++) {
			tx->rsp_event = tx->rsp_prod + 1;
			next(make_arp(data, j));
			port = ports[i];
			submit();
			port = own;
			notify(own);
		}
	}
}

DEVICE(net_states)
{
	for (int i = 0; i < 200; i++)
		set_node(&net, "state", number(random() % 12));
	set_node(&net, "state", "nonsense");
	set_node(&net, "state", "");
	set_state(&net, 6);
	backend_is(&net, 6);
	/* Closed and opened while packets come and go. */
	for (int i = 0; i < 30; i++) {
		if (!open_net())
			return;
		for (int j = 0; j < 100; j++)
			next(make_arp(data, j));
		submit();
	}
}
