/* Disks: a frontend that breaks the rules of io/blkif.h. The disk is xvda, of 4 MiB, and nobody minds
 * what becomes of it. After each test it must work. */
#include "devices.h"

#define DISK "51712"
#define SECTORS 8192
#define RING 32

struct segment { u32 gref; u8 first, last; u16 pad; };
struct request { u8 op, count; u16 handle; u32 pad; u64 id, sector; struct segment segment[11]; u8 rest[0]; };
struct indirect { u8 op, inner; u16 count; u32 pad; u64 id, sector; u16 handle, pad2; u32 gref[8]; };
struct response { u64 id; u8 op, pad; short status; u32 pad2; };
union entry { struct request request; struct indirect indirect; struct response response; u8 bytes[112]; };
struct ring { u32 req_prod, req_event, rsp_prod, rsp_event; u8 pad[48]; union entry entry[RING]; };
enum { READ = 0, WRITE = 1, BARRIER = 2, FLUSH = 3, DISCARD = 5, INDIRECT = 6 };

static struct device disk;
static volatile struct ring *ring;
static u32 ring_grant, port, produced, consumed;
static u8 *data;
static u32 data_grant;

/* Connects a fresh ring, with which the disk must work. */
static int open_disk(void)
{
	if (!disk.front[0] && (!find_device(&disk, "vbd", DISK) || !backend_is(&disk, 2)))
		return 0;
	if (!start_over(&disk))
		return 0;
	if (!ring) {
		ring = page();
		data = page();
		ring_grant = grant((void *)ring, 0);
		data_grant = grant(data, 0);
		port = unbound_port();
	}
	fill((void *)ring, 0, 4096);
	ring->req_event = ring->rsp_event = 1;
	produced = consumed = 0;
	set_node(&disk, "ring-ref", number(ring_grant));
	set_node(&disk, "event-channel", number(port));
	set_node(&disk, "protocol", "x86_64-abi");
	set_state(&disk, 3);
	if (!backend_is(&disk, 4)) {
		fail("the backend does not connect");
		return 0;
	}
	set_state(&disk, 4);
	return 1;
}

static void close_disk(void)
{
	start_over(&disk);
}

static volatile struct request *next(u8 op, u64 sector, u8 count)
{
	volatile union entry *e = &ring->entry[produced % RING];
	fill((void *)e, 0, sizeof *e);
	e->request.op = op;
	e->request.count = count;
	e->request.id = 1000 + produced;
	e->request.sector = sector;
	for (int i = 0; i < count && i < 11; i++)
		e->request.segment[i] = (struct segment){ data_grant, 0, 7, 0 };
	return &e->request;
}

static void submit(void)
{
	__asm__ volatile("" ::: "memory");
	ring->req_prod = ++produced;
	notify(port);
}

static int answered(void *unused)
{
	(void)unused;
	return ring->rsp_prod != consumed;
}

/* The status of the next response; 99 if none comes, which is what a device that was closed gives. */
static s64 answer(void)
{
	if (!wait_until(answered, 0))
		return 99;
	volatile struct response *r = &ring->entry[consumed++ % RING].response;
	ring->rsp_event = consumed + 1;
	return r->status;
}

static s64 simple(u8 op, u64 sector)
{
	next(op, sector, 1);
	submit();
	return answer();
}

/* What is written is read; a disk that was closed is opened again. */
static void works(void)
{
	if (backend_is(&disk, 4) == 0 && !open_disk())
		return;
	u8 mark = random();
	fill(data, mark, 4096);
	s64 r = simple(WRITE, 16);
	check(r == 0, "a write gave %d", r);
	fill(data, 0, 4096);
	r = simple(READ, 16);
	check(r == 0, "a read gave %d", r);
	check(data[0] == mark && data[4095] == mark, "what was read is not what was written");
}

static void begin(void)
{
	open_disk();
}

static void end(void)
{
	if (!open_disk())
		return;
	works();
	close_disk();
}

#define DEVICE(name) \
	static void name##_(void); \
	OWN(name) { begin(); name##_(); end(); } \
	static void name##_(void)

#define refused(what, call) do { \
	s64 r_ = (call); \
	check(r_ == -1 || r_ == -2, "%s gave %d", what, r_); \
} while (0)

DEVICE(block_works)
{
	works();
	s64 r = simple(FLUSH, 0);
	check(r == 0, "a flush gave %d", r);
}

DEVICE(block_operations)
{
	for (int op = 7; op < 256; op += 9)
		refused("an unknown operation", simple(op, 0));
	refused("a packet", simple(4, 0));
}

DEVICE(block_segment_counts)
{
	static const u8 counts[] = { 0, 12, 13, 100, 255 };
	for (int i = 0; i < 5; i++) {
		volatile struct request *r = next(i & 1 ? READ : WRITE, 0, counts[i]);
		r->count = counts[i];
		submit();
		s64 status = answer();
		check(status == -1 || status == -2 || (counts[i] == 0 && status == 0), "%d segments gave %d", (u64)counts[i], status);
	}
}

DEVICE(block_segments)
{
	static const u8 pairs[][2] = { { 1, 0 }, { 7, 0 }, { 0, 8 }, { 8, 8 }, { 255, 255 }, { 0, 255 }, { 9, 1 } };
	for (int i = 0; i < 7; i++)
		for (int op = READ; op <= WRITE; op++) {
			volatile struct request *r = next(op, 0, 1);
			r->segment[0].first = pairs[i][0];
			r->segment[0].last = pairs[i][1];
			submit();
			refused("a segment beyond its page", answer());
		}
}

DEVICE(block_sectors)
{
	static const u64 sectors[] = { SECTORS, SECTORS - 1, SECTORS - 7, SECTORS + 1, 1ul << 32, 1ul << 54, 1ul << 55, 1ul << 63, ~0ul, ~0ul - 7, ~7ul };
	for (int i = 0; i < 11; i++)
		for (int op = READ; op <= WRITE; op++)
			refused("a request past the end", simple(op, sectors[i]));
	s64 r = simple(READ, SECTORS - 8);
	check(r == 0, "the last sectors gave %d", r);
}

DEVICE(block_discards)
{
	static const u64 ranges[][2] = { { 0, SECTORS + 1 }, { SECTORS, 1 }, { ~0ul, 1 }, { 1, ~0ul }, { 8, 1ul << 63 }, { ~0ul, ~0ul } };
	for (int i = 0; i < 6; i++) {
		volatile u8 *r = (void *)next(DISCARD, ranges[i][0], 0);
		*(volatile u64 *)(r + 24) = ranges[i][1];
		submit();
		refused("a discard past the end", answer());
	}
}

DEVICE(block_grants)
{
	static const u32 wrong[] = { 0, 7, 2047, 2048, 16383, 16384, 0x7fffffff, 0x80000000, 0xffffffff };
	for (int i = 0; i < 9; i++)
		for (int op = READ; op <= WRITE; op++) {
			volatile struct request *r = next(op, 0, 1);
			r->segment[0].gref = wrong[i];
			submit();
			refused("an ungranted frame", answer());
		}
}

DEVICE(block_read_only_grant)
{
	u8 *target = page();
	fill(target, 0x77, 4096);
	u32 reference = grant(target, 1);
	volatile struct request *r = next(READ, 0, 1);
	r->segment[0].gref = reference;
	submit();
	refused("a read into a frame for reading", answer());
	check(target[0] == 0x77 && target[4095] == 0x77, "it was written all the same");
	revoke(reference);
}

/* Frames behind the guest's memory are the monitor's. */
DEVICE(block_foreign_frames)
{
	u64 frames[] = { start->nr_pages, start->shared_info >> 12, start->nr_pages + 1, start->nr_pages + 33, 1ul << 20, 1ul << 31, 0xffffffff };
	for (int i = 0; i < 7; i++)
		for (int op = READ; op <= WRITE; op++) {
			u32 reference = grant_frame(frames[i], 1);
			volatile struct request *r = next(op, 0, 1);
			r->segment[0].gref = reference;
			submit();
			refused("a frame that is not the guest's", answer());
			revoke(reference);
		}
}

/* Grants for others, transfers, transitive ones. */
DEVICE(block_odd_grants)
{
	u8 *target = page();
	u32 reference = grant(target, 0);
	static const u16 flags[] = { 0, 2, 3, 0x101, 0x20 };
	for (int i = 0; i < 4; i++) {
		grants[reference].flags = flags[i];
		if (i == 3)
			grants[reference].domid = 5;
		volatile struct request *r = next(READ, 0, 1);
		r->segment[0].gref = reference;
		submit();
		refused("a grant that gives no access", answer());
	}
	grants[reference].domid = 0;
	revoke(reference);
}

/* Taken back and given again while requests use it. */
DEVICE(block_revoked_in_flight)
{
	u8 *target = page();
	for (int i = 0; i < 300; i++) {
		u32 reference = grant(target, 0);
		volatile struct request *r = next(i & 1 ? READ : WRITE, 0, 1);
		r->segment[0].gref = reference;
		submit();
		revoke(reference);
		s64 status = answer();
		check(status >= -2 && status <= 0, "a revoked grant gave %d", status);
		grants[reference].flags = 0;
	}
}

/* The words of a request change while it is served. */
DEVICE(block_double_fetch)
{
	for (int i = 0; i < 400; i++) {
		volatile struct request *r = next(READ, 0, 11);
		volatile union entry *slot = &ring->entry[produced % RING];
		submit();
		for (int j = 0; j < 40 && ring->rsp_prod == consumed; j++) {
			r->count = j & 1 ? 255 : 1;
			r->sector = j & 2 ? ~0ul : 0;
			r->segment[0].last = j & 4 ? 255 : 7;
			r->segment[1].gref = j & 1 ? 0xffffffff : data_grant;
			slot->request.op = j & 8 ? INDIRECT : READ;
		}
		s64 status = answer();
		check(status != 99, "no answer to a request that changes");
	}
}

DEVICE(block_indirect)
{
	u8 *list = page();
	u32 list_grant = grant(list, 1);
	for (int i = 0; i < 512; i++)
		((struct segment *)list)[i] = (struct segment){ data_grant, 0, 0, 0 };
	static const u16 counts[] = { 0, 257, 513, 4096, 0xffff };
	for (int i = 0; i < 5; i++) {
		volatile struct indirect *r = (void *)next(INDIRECT, 0, 0);
		r->inner = READ, r->count = counts[i], r->gref[0] = list_grant;
		submit();
		s64 status = answer();
		check(status == -1 || status == -2 || (status == 0 && counts[i] == 0), "%d indirect segments gave %d", (u64)counts[i], status);
	}
	for (int i = 0; i < 3; i++) {
		volatile struct indirect *r = (void *)next(INDIRECT, 0, 0);
		r->inner = i == 1 ? INDIRECT : i == 2 ? FLUSH : READ;
		r->count = 16, r->gref[0] = i ? list_grant : 0xffffffff;
		r->sector = 0;
		submit();
		s64 status = answer();
		check(status == -1 || status == -2 || i == 2, "an odd indirect request gave %d", status);
	}
	/* The list changes while it is read. */
	for (int i = 0; i < 200; i++) {
		volatile struct indirect *r = (void *)next(INDIRECT, 0, 0);
		volatile struct segment *s = (void *)list;
		r->inner = READ, r->count = 64, r->gref[0] = list_grant;
		submit();
		for (int j = 0; j < 64 && ring->rsp_prod == consumed; j++)
			s[j].last = 255, s[j].first = 9, s[j].gref = ~0u;
		check(answer() != 99, "no answer");
		for (int j = 0; j < 64; j++)
			s[j].last = 0, s[j].first = 0, s[j].gref = data_grant;
	}
	revoke(list_grant);
}

DEVICE(block_indices)
{
	static const u32 jumps[] = { RING + 1, 100, 0x7fffffff, 0x80000000, 0xffffffff };
	for (int i = 0; i < 5; i++) {
		ring->req_prod = produced + jumps[i];
		notify(port);
		check(backend_is(&disk, 5) || backend_is(&disk, 6), "a ring index %x ahead was accepted", (u64)jumps[i]);
		if (!open_disk())
			return;
	}
}

DEVICE(block_ring_scribbled)
{
	for (int i = 0; i < 60; i++) {
		for (int w = 0; w < 1024; w++)
			((volatile u32 *)ring)[w] = random();
		ring->req_prod = produced + (random() & 15);
		notify(port);
	}
	open_disk();
}

DEVICE(block_bells)
{
	for (int i = 0; i < 20000; i++)
		notify(port);
	works();
}

DEVICE(block_nodes)
{
	static const char *const keys[] = { "ring-ref", "event-channel", "protocol", "ring-page-order", "multi-queue-num-queues", "feature-persistent" };
	static const char *const values[] = { "", "-1", "99999999999999999999", "4294967295", "0x8", "16383", "nonsense", "%s%n", "255" };
	for (int k = 0; k < 5; k++)
		for (int v = 0; v < 9; v++) {
			if (!start_over(&disk))
				return;
			set_node(&disk, "ring-ref", number(ring_grant));
			set_node(&disk, "event-channel", number(port));
			set_node(&disk, keys[k], values[v]);
			set_state(&disk, 3);
			/* Served or refused; an answer comes. */
			u64 end = now() + 5000000000ul;
			while (now() < end) {
				char state[8];
				store_read(joined(disk.back, "state", ""), state, sizeof state);
				if (state[0] == '4' || state[0] == '5')
					break;
			}
			check(now() < end, "no answer to %s = %s", keys[k], values[v]);
		}
	set_node(&disk, "ring-page-order", "0");
	set_node(&disk, "multi-queue-num-queues", "1");
	set_node(&disk, "feature-persistent", "0");
	store_call(13, joined(disk.front, "ring-page-order", ""), "", 0, (char[8]){ 0 }, 8);
	store_call(13, joined(disk.front, "multi-queue-num-queues", ""), "", 0, (char[8]){ 0 }, 8);
}

DEVICE(block_states)
{
	for (int i = 0; i < 200; i++)
		set_node(&disk, "state", number(random() % 12));
	set_node(&disk, "state", "nonsense");
	set_node(&disk, "state", "");
	set_state(&disk, 6);
	backend_is(&disk, 6);
}

/* Its ring is its own data, its event channel that of the console. */
DEVICE(block_confused)
{
	if (!start_over(&disk))
		return;
	set_node(&disk, "ring-ref", number(data_grant));
	set_node(&disk, "event-channel", "2");
	set_state(&disk, 3);
	backend_is(&disk, 4);
	volatile struct ring *own = (void *)data;
	own->req_prod = own->rsp_prod + 4;
	for (int i = 0; i < RING; i++) {
		own->entry[i].request = (struct request){ .op = READ, .count = 1, .sector = 0 };
		own->entry[i].request.segment[0] = (struct segment){ data_grant, 0, 7, 0 };
	}
	notify(2);
	notify(port);
}
