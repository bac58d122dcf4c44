/* Network interfaces: packets that break the rules of io/netif.h. Each gets an error, or the device is
 * closed. The network behind it is a user-mode one. */
#include "netfront.h"

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

DEVICE(net_slots_beyond_pages)
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
