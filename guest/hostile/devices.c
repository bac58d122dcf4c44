/* What frontends have in common: grants, ports, states in the store. */
#include "devices.h"

#define TABLE 0xffffd00000000000ul

volatile struct grant *grants;

void init_grants(void)
{
	static u64 frames[GRANTS / 512];
	if (grants)
		return;
	struct setup_table s = { 0x7ff0, 0, GRANTS / 512, 0, { 0 }, (u64)frames };
	check(!hc(GRANT_TABLE_OP, 2, &s, 1) && !s.status, "no grant table");
	for (u64 i = 0; i < GRANTS / 512; i++)
		map_page(TABLE + i * 4096, frames[i] << 12 | P | W | A | D | NX);
	grants = (void *)TABLE;
}

u32 grant_frame(u64 frame, u16 flags)
{
	static u32 next = 8;
	for (u32 tries = 0; tries < GRANTS; tries++) {
		u32 r = next++ % GRANTS;
		if (r < 8 || grants[r].flags)
			continue;
		grants[r].frame = frame;
		grants[r].domid = 0;
		__asm__ volatile("" ::: "memory");
		grants[r].flags = flags;
		return r;
	}
	fail("no grant reference is free");
	return 0;
}

u32 grant(const void *va, int read_only)
{
	return grant_frame(frame_of(va), read_only ? 5 : 1);
}

/* Whether it is in use or not. */
void revoke(u32 reference)
{
	grants[reference].flags = 0;
}

u32 unbound_port(void)
{
	static u32 words[2];
	words[0] = 0x7ff0;
	check(!hc(EVENT_CHANNEL_OP, ALLOC_UNBOUND, words), "no port");
	return words[1];
}

void notify(u32 port)
{
	static u32 word;
	word = port;
	hc(EVENT_CHANNEL_OP, EVT_SEND, &word);
}

int wait_until(int (*good)(void *), void *argument)
{
	u64 end = now() + 6000000000ul;
	while (now() < end) {
		if (good(argument))
			return 1;
		struct poll p = { 0, 0, 0, 0 };
		static u32 none;
		p.ports = (u64)&none, none = 1, p.count = 1;
		p.timeout = now() + 200000;
		hc(SCHED_OP, SCHED_POLL, &p);
	}
	return 0;
}

static void set(char *to, const char *from)
{
	while ((*to++ = *from++))
		;
}

int find_device(struct device *d, const char *class, const char *number)
{
	init_grants();
	set(d->front, joined(joined("device/", class, "/"), number, "/"));
	if (store_read(joined(d->front, "backend", ""), d->back, sizeof d->back - 8) < 0) {
		fail("there is no device %s%s", class, number);
		return 0;
	}
	set(d->back, joined(d->back, "/", ""));
	return 1;
}

struct wanted { struct device *d; int state; };

static int state_is(void *argument)
{
	struct wanted *w = argument;
	char state[16];
	store_read(joined(w->d->back, "state", ""), state, sizeof state);
	return state[0] == '0' + w->state && !state[1];
}

int backend_is(struct device *d, int state)
{
	struct wanted w = { d, state };
	return wait_until(state_is, &w);
}

void set_node(struct device *d, const char *key, const char *value)
{
	store_write(joined(d->front, key, ""), value);
}

void set_state(struct device *d, int state)
{
	set_node(d, "state", number(state));
}

int start_over(struct device *d)
{
	struct wanted waits = { d, 2 };
	if (state_is(&waits))
		return 1;
	set_state(d, 5);
	if (!backend_is(d, 5)) {
		fail("the backend does not close");
		return 0;
	}
	set_state(d, 6);
	if (!backend_is(d, 6)) {
		fail("the backend is not closed");
		return 0;
	}
	set_state(d, 1);
	if (!backend_is(d, 2)) {
		fail("the backend does not wait for a frontend");
		return 0;
	}
	return 1;
}
