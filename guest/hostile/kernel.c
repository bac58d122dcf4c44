/* The hostile guest kernel: start, console, exceptions, and the choice of tests.
 *
 * One test per rule that a guest's kernel may break. Command line:
 *   test=errors [after=NAME]   all tests that come back, or those after NAME
 *   test=NAME                  this one
 * Output by console_io: "RUN name", then "PASS name" or "FAIL name: why"; "DONE" at
 * the end of all. tests/hostile drives it and says what must come of those that do
 * not come back. */
#include "kernel.h"

struct start_info *start;
volatile struct shared_info *shared;
volatile struct console_ring *console;
volatile struct store_ring *store;
struct frame fault;
u64 fault_address, recover, landed_flags;
void (*on_trap)(struct frame *);
volatile u64 upcalls;

static char why[400];
static u64 wrong;
extern const struct test tests_start[], tests_end[];

/* Addresses that no argument may have: unmapped in both halves, not canonical, the
 * monitor's own places and what folds onto them. All of them cannot be written, and
 * none can be read. */
const u64 wild[] = {
	0, 8, 0xfff, 0x60000, 0x7fff8, 0x400000, 0x7ffdead00000, 0x7ffffffeffff, 0x7ffffffff000,
	0x7ffffffffff8, MONITOR, MONITOR + 0x10000000, MONITOR + 0x10100000, MONITOR + 0x20000000, ARENA,
	ARENA + 0x1f000, 0x5c8000000000, 0x5d8000000000, 0x800000000000, 0x8000000000000000,
	0xdeadbeefdeadbee8, 0xfffefffffffffff8, 0xffff000000020000, 0xffff7ffffffffff8,
	0xffff800000000000, 0xffff800000010000, UNFOLD(MONITOR), UNFOLD(MONITOR + 0x10000000),
	UNFOLD(MONITOR + 0x20000000), UNFOLD(ARENA), UNFOLD(0x5c8000000000), 0xffff888000000000,
	0xffffc00000000000, BASE - 8, BASE - 4096, 0xfffffffffffff000, 0xffffffffffffffe8,
	0xfffffffffffffff8,
};
const int wilds = sizeof wild / sizeof wild[0];

void fill(void *to, u8 byte, u64 count)
{
	for (u8 *p = to; count--;)
		*p++ = byte;
}

void copy(void *to, const void *from, u64 count)
{
	u8 *t = to;
	const u8 *f = from;
	while (count--)
		*t++ = *f++;
}

void *memset(void *to, int byte, u64 count) { fill(to, byte, count); return to; }
void *memcpy(void *to, const void *from, u64 count) { copy(to, from, count); return to; }

static int equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* %s, %d and %x (both of 64 bits). */
static u64 format_to(char *to, u64 room, const char *format, __builtin_va_list list)
{
	u64 n = 0;
	for (; *format && n + 24 < room; format++) {
		if (*format != '%') {
			to[n++] = *format;
			continue;
		}
		if (*++format == 's') {
			for (const char *s = __builtin_va_arg(list, const char *); *s && n + 24 < room; s++)
				to[n++] = *s;
			continue;
		}
		u64 v = __builtin_va_arg(list, u64), base = *format == 'x' ? 16 : 10;
		char digits[24];
		int count = 0;
		if (base == 10 && (s64)v < 0) {
			to[n++] = '-';
			v = -v;
		}
		do
			digits[count++] = "0123456789abcdef"[v % base];
		while (v /= base);
		while (count)
			to[n++] = digits[--count];
	}
	to[n] = 0;
	return n;
}

void print(const char *format, ...)
{
	static char line[512];
	__builtin_va_list list;
	__builtin_va_start(list, format);
	u64 n = format_to(line, sizeof line, format, list);
	__builtin_va_end(list);
	hc(CONSOLE_IO, 0, n, line);
}

/* The first complaint of a test is kept. */
void fail(const char *format, ...)
{
	if (wrong++)
		return;
	__builtin_va_list list;
	__builtin_va_start(list, format);
	format_to(why, sizeof why, format, list);
	__builtin_va_end(list);
}

void shutdown(u32 reason)
{
	for (;;)
		hc(SCHED_OP, SCHED_SHUTDOWN, &reason);
}

/* Stays until it is ended from outside. */
void hold(void)
{
	print("HOLD\n");
	for (;;) {
		hc(SET_TIMER_OP, 0);
		shared->vcpu[0].pending = 0;
		hc(SCHED_OP, SCHED_BLOCK);
	}
}

u64 now(void)
{
	u32 low, high;
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	u64 ticks = ((u64)high << 32 | low) - shared->vcpu[0].tsc;
	signed char shift = shared->vcpu[0].shift;
	ticks = shift < 0 ? ticks >> -shift : ticks << shift;
	return (u64)((unsigned __int128)ticks * shared->vcpu[0].mul >> 32) + shared->vcpu[0].time;
}

u64 random(void)
{
	static u64 state = 0x9e3779b97f4a7c15;
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

/* Every exception, upcall (256) and system call (257) comes here. */
void trap(struct frame *f)
{
	if (on_trap)
		return on_trap(f);
	if (f->vector == 256) {
		upcalls++;
		shared->vcpu[0].pending = 0;
		return;
	}
	fault = *f;
	fault_address = shared->vcpu[0].cr2;
	if (recover)
		attempt_back(f->vector);
	print("FAIL unexpected: exception %d at %x, code %x, address %x\n", f->vector, f->rip, f->code,
		fault_address);
	shutdown(3);
}

#define VECTORS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) \
	X(15) X(16) X(17) X(18) X(19) X(20) X(128) X(255)
#define DECLARE(v) extern void trap_##v(void);
#define ENTRY(v) { v, v == 3 || v == 4 || v == 128 ? 7 : 4, 0xe033, 0, (u64)trap_##v },
VECTORS(DECLARE)
static const struct trap_info traps[] = { VECTORS(ENTRY) { 0, 0, 0, 0, 0 } };

void set_traps(void) { hc(SET_TRAP_TABLE, traps); }

void callback(u16 type, u64 address)
{
	struct callback c = { type, 0, 0, address };
	hc(CALLBACK_OP, 0, &c);
}

static void read_at(u64 va) { __asm__ volatile("movb (%0), %%al" : : "r"(va) : "rax", "memory"); }
static void write_at(u64 va) { __asm__ volatile("movb $0x5a, (%0)" : : "r"(va) : "memory"); }
s64 try_read(u64 va) { return attempt(read_at, va); }
s64 try_write(u64 va) { return attempt(write_at, va); }
s64 try_jump(u64 va) { return attempt(jump_to, va); }

s64 run_user(u64 rip, u64 rsp)
{
	static u64 frame[9];
	u64 values[9] = { 0, 0, 0, 0, rip, 0x33, 0x202, rsp, 0x2b };
	copy(frame, values, sizeof frame);
	hc(STACK_SWITCH, 0x2b, (u64)stack_end - 40000);
	return attempt(iret_to, (u64)frame);
}

const char *option(const char *name)
{
	static char found[4][80];
	static int next;
	char *to = found[next++ & 3];
	for (const char *s = start->cmd_line; *s; s++) {
		const char *n = name;
		while (*n && *s == *n)
			s++, n++;
		if (!*n && *s == '=') {
			int i = 0;
			for (s++; *s && *s != ' ' && i < 79; s++)
				to[i++] = *s;
			to[i] = 0;
			return to;
		}
		while (*s && *s != ' ')
			s++;
		if (!*s)
			break;
	}
	return "";
}

static void run(const struct test *t)
{
	wrong = 0;
	print("RUN %s\n", t->name);
	t->run();
	check(try_read(0xffffc00000000000) == 14, "exceptions do not work afterwards");
	if (wrong)
		print("FAIL %s: %s\n", t->name, why);
	else
		print("PASS %s\n", t->name);
}

void kernel_main(struct start_info *info)
{
	extern void syscall_entry(void), upcall(void);
	start = info;
	set_traps();
	callback(0, (u64)upcall);
	callback(2, (u64)syscall_entry);
	void init_tables(void);
	init_tables();
	const char *name = option("test"), *after = option("after");
	int found = 0;
	for (const struct test *t = tests_start; t < tests_end; t++) {
		if (equal(name, t->name) || (equal(name, "errors") && !t->own && !*after))
			run(t), found++;
		if (equal(after, t->name))
			after = "";
	}
	print("DONE %d\n", (u64)found);
	shutdown(0);
}
