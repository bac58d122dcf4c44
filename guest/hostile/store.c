/* A client of the store (io/xs_wire.h) that waits for each reply. */
#include "devices.h"

enum { READ = 2, WRITE = 11, EVENT = 15, ERROR = 16 };
struct header { u32 type, request, transaction, length; };

static void wait_for_store(void)
{
	static u32 port;
	port = start->store_port;
	struct poll p = { (u64)&port, 1, 0, now() + 20000000 };
	shared->pending[port / 64] &= ~(1ul << (port % 64));
	hc(SCHED_OP, SCHED_POLL, &p);
}

static void kick(void)
{
	static u32 port;
	port = start->store_port;
	hc(EVENT_CHANNEL_OP, EVT_SEND, &port);
}

static void put(const void *from, u64 count)
{
	const char *f = from;
	while (count) {
		u32 produced = store->req_prod, room = 1024 - (produced - store->req_cons);
		if (!room) {
			kick();
			wait_for_store();
			continue;
		}
		for (; room && count; room--, count--)
			store->req[produced++ % 1024] = *f++;
		__asm__ volatile("" ::: "memory");
		store->req_prod = produced;
	}
	kick();
}

static int get(void *to, u64 count)
{
	char *t = to;
	u64 end = now() + 10000000000ul;
	while (count) {
		u32 consumed = store->rsp_cons, ready = store->rsp_prod - consumed;
		if (!ready) {
			if (now() > end)
				return 0;
			wait_for_store();
			continue;
		}
		for (; ready && count; ready--, count--)
			*t++ = store->rsp[consumed++ % 1024];
		__asm__ volatile("" ::: "memory");
		store->rsp_cons = consumed;
		kick();
	}
	return 1;
}

static u64 size_of(const char *s)
{
	u64 n = 0;
	while (s[n])
		n++;
	return n;
}

s64 store_call(u32 type, const char *path, const void *rest, u64 length, char *reply, u64 room)
{
	static u32 request;
	static char payload[4096];
	struct header h = { type, ++request, 0, size_of(path) + 1 + length };
	put(&h, sizeof h);
	put(path, size_of(path) + 1);
	put(rest, length);
	for (;;) {
		if (!get(&h, sizeof h) || h.length > sizeof payload || !get(payload, h.length)) {
			fail("the store does not answer");
			return -1;
		}
		if (h.type != EVENT)
			break;
	}
	if (h.type == ERROR)
		return -1;
	u64 n = h.length < room - 1 ? h.length : room - 1;
	copy(reply, payload, n);
	reply[n] = 0;
	return n;
}

s64 store_read(const char *path, char *to, u64 room)
{
	to[0] = 0;
	return store_call(READ, path, "", 0, to, room);
}

void store_write(const char *path, const char *value)
{
	char reply[8];
	check(store_call(WRITE, path, value, size_of(value), reply, sizeof reply) >= 0, "%s cannot be written", path);
}

const char *number(u64 value)
{
	static char texts[4][24];
	static int next;
	char *to = texts[next++ & 3], digits[24];
	int n = 0, count = 0;
	do
		digits[count++] = '0' + value % 10;
	while (value /= 10);
	while (count)
		to[n++] = digits[--count];
	to[n] = 0;
	return to;
}

const char *joined(const char *a, const char *b, const char *c)
{
	static char texts[4][256];
	static int next;
	char *to = texts[next++ & 3];
	u64 n = 0;
	for (const char *part[3] = { a, b, c }, **p = part; p < part + 3; p++)
		for (const char *s = *p; *s && n < 255; s++)
			to[n++] = *s;
	to[n] = 0;
	return to;
}
