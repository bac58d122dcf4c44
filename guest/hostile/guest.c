/* The opposite of all others: a guest that keeps the rules and does what it is told, and is there in
 * milliseconds. tests/kills kills what serves it.
 *
 * It says "ready", answers a line "ping" on its console with "pong", uses what devices it is given,
 * lets go of those that are to go, and obeys control/shutdown. A line "reopen" has it close its devices
 * and use them anew, a line "crash" ends it so. */
#include "devices.h"

enum { DIRECTORY = 1 };
#define DEVICES 8
/* How often it looks, in ns. */
#define PAUSE 5000000

struct held {
	char class[4], number[16];
	struct device device;
	u32 grants[2], port;
	u64 *rings[2];
	int state, reopens;
};
static struct held all[DEVICES];

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static void set(char *to, const char *from, u64 room)
{
	while (--room && *from)
		*to++ = *from++;
	*to = 0;
}

static int backend_state(struct held *h)
{
	char text[16];
	if (store_read(joined(h->device.back, "state", ""), text, sizeof text) != 1)
		return 0;
	return text[0] - '0';
}

static void show(struct held *h, int state)
{
	set_state(&h->device, state);
	h->state = state;
}

static void connect(struct held *h)
{
	int is_disk = same(h->class, "vbd");
	static const char *const names[2][2] = { { "tx-ring-ref", "rx-ring-ref" }, { "ring-ref", 0 } };
	for (int i = 0; i < 2 - is_disk; i++) {
		if (!h->rings[i]) {
			h->rings[i] = page();
			h->grants[i] = grant(h->rings[i], 0);
		}
		fill(h->rings[i], 0, 4096);
		((u32 *)h->rings[i])[1] = ((u32 *)h->rings[i])[3] = 1;
		set_node(&h->device, names[is_disk][i], number(h->grants[i]));
	}
	if (!h->port)
		h->port = unbound_port();
	set_node(&h->device, "event-channel", number(h->port));
	if (is_disk) {
		set_node(&h->device, "protocol", "x86_64-abi");
	} else {
		set_node(&h->device, "request-rx-copy", "1");
		set_node(&h->device, "feature-rx-notify", "1");
	}
	show(h, 3);
}

static void follow(struct held *h)
{
	switch (backend_state(h)) {
	case 2:
		if (h->state < 3)
			connect(h);
		break;
	case 4:
		if (h->state == 3) {
			show(h, 4);
			print("%s %s %s\n", h->class, h->number, h->reopens ? "reopened" : "connected");
			h->reopens = 0;
		}
		break;
	case 0:
		h->class[0] = 0;
		break;
	case 5:
	case 6:
		if (h->reopens) {
			if (backend_state(h) == 6)
				show(h, 1);
			break;
		}
		if (h->state < 6) {
			show(h, 5);
			show(h, 6);
			print("%s %s closed\n", h->class, h->number);
		}
		break;
	}
}

static void find(const char *class)
{
	static char names[512];
	s64 length = store_call(DIRECTORY, joined("device/", class, ""), "", 0, names, sizeof names);
	for (s64 at = 0; at < length; at++) {
		const char *name = names + at;
		struct held *room = 0;
		int is_known = 0;
		for (struct held *h = all; h < all + DEVICES; h++) {
			is_known |= same(h->class, class) && same(h->number, name);
			if (!h->class[0] && !room)
				room = h;
		}
		if (!is_known && room && find_device(&room->device, class, name)) {
			set(room->class, class, sizeof room->class);
			set(room->number, name, sizeof room->number);
			room->state = 1;
		}
		while (names[at])
			at++;
	}
}

static void obey(void)
{
	char word[16];
	if (store_read("control/shutdown", word, sizeof word) <= 0)
		return;
	print("asked for %s\n", word);
	if (same(word, "reboot"))
		shutdown(1);
	shutdown(0);
}

static void listen(void)
{
	static char line[16];
	static u32 length;
	while (console->in_cons != console->in_prod) {
		char c = console->in[console->in_cons % sizeof console->in];
		__asm__ volatile("" ::: "memory");
		console->in_cons++;
		if (c != '\n' && c != '\r') {
			if (length < sizeof line - 1)
				line[length++] = c;
			continue;
		}
		line[length] = 0;
		length = 0;
		if (same(line, "ping"))
			print("pong\n");
		for (struct held *h = all; same(line, "reopen") && h < all + DEVICES; h++)
			if (h->class[0]) {
				h->reopens = 1;
				show(h, 5);
				show(h, 6);
			}
		if (same(line, "crash"))
			shutdown(3);
	}
}

OWN(guest)
{
	print("ready\n");
	for (;;) {
		static u32 port;
		port = start->console_port;
		shared->pending[port / 64] &= ~(1ul << (port % 64));
		listen();
		obey();
		find("vbd");
		find("vif");
		for (struct held *h = all; h < all + DEVICES; h++)
			if (h->class[0])
				follow(h);
		struct poll p = { (u64)&port, 1, 0, now() + PAUSE };
		hc(SCHED_OP, SCHED_POLL, &p);
	}
}
