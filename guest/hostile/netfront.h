/* A network frontend (io/netif.h) with one queue that keeps the rules: netfront.c. Tests (net*.c) break
 * them. After each the interface must work. */
#pragma once
#include "devices.h"

#define SLOTS 256
#define BUFFERS 32

enum { BLANK = 1, MORE = 4, EXTRA = 8 };
struct tx_request { u32 gref; u16 offset, flags, id, size; };
struct extra { u8 type, flags; u16 size; u8 gso, pad; u16 features; };
struct tx_response { u16 id; short status; };
union tx_entry { struct tx_request request; struct extra extra; struct tx_response response; };
struct rx_request { u16 id, pad; u32 gref; };
struct rx_response { u16 id, offset, flags; short status; };
union rx_entry { struct rx_request request; struct rx_response response; };
struct tx_ring { u32 req_prod, req_event, rsp_prod, rsp_event; u8 pad[48]; union tx_entry entry[SLOTS]; };
struct rx_ring { u32 req_prod, req_event, rsp_prod, rsp_event; u8 pad[48]; union rx_entry entry[SLOTS]; };

/* What becomes of a packet besides its status: the backend closes the device, or nothing. */
enum { OKAY = 0, ERROR = -1, CLOSED = 99, NOTHING = 100 };

extern struct device net;
extern volatile struct tx_ring *tx;
extern volatile struct rx_ring *rx;
extern u32 tx_grant, rx_grant, port, tx_produced, tx_consumed, rx_produced, rx_consumed;
/* A page to send, and pages to receive into: the one of an index is its remainder. */
extern u8 *data, *buffer[BUFFERS];
extern u32 data_grant, buffer_grant[BUFFERS];

/* Connects fresh rings, without pages to receive into. */
int connect_net(void);
/* The same with them: the interface must work. */
int open_net(void);
void put_nodes(void);
int net_is_closed(void);

/* Slots come one by one and are shown to the backend by `submit`. */
volatile struct tx_request *next(u16 size);
volatile struct extra *next_extra(u8 type, u16 size, u8 gso);
void submit(void);
/* The status of a packet of so many slots. */
s64 outcome(u32 slots);
s64 simple(u16 size, u16 flags);
/* It must be an error; opens the device again if that was closed. */
int refused(const char *what, u64 detail, u32 slots);
/* Anything but nothing; opens the device again. */
int any_outcome(const char *what, u64 detail, u32 slots);

void offer(u32 count);
/* Whether a response comes to what was offered within so many ns. */
int comes(u64 patience);
/* An ARP request for 203.0.113.`last`; its length. The user-mode network answers all of them. */
u16 make_arp(u8 *frame, u8 last);
/* Asks, and waits for the answer. */
int answers(void);
/* Opens it again, whatever happened, and tries it. */
void end_net(void);

#define DEVICE(name) \
	static void name##_(void); \
	OWN(name) { if (open_net()) name##_(); end_net(); } \
	static void name##_(void)

#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))
