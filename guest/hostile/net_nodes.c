/* Network interfaces: what the frontend writes to the store. */
#include "netfront.h"

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
	enum { SPLIT_TX = 3, SPLIT_RX = 4 };
	for (int k = 0; k < COUNT(keys); k++) {
		for (int v = 0; v <= COUNT(values); v++) {
			if (!start_over(&net))
				return;
			put_nodes();
			if (k == SPLIT_TX || k == SPLIT_RX)
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

/* As many nodes as the store takes, with values that grow when they are quoted. */
DEVICE(net_large_directory)
{
	static char value[251], reply[8];
	for (int kind = 0; kind < 3; kind++) {
		if (!start_over(&net))
			return;
		fill(value, kind == 0 ? 'x' : kind == 1 ? 1 : '"', 250);
		for (int i = 0; i < 600; i++)
			store_call(11, joined(net.front, number(i), ""), value, 250, reply, sizeof reply);
		put_nodes();
		decided("a directory of kind", number(kind));
	}
	for (int i = 0; i < 600; i++)
		forget_node(number(i));
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
