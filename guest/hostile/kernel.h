/* What the tests stand on: see kernel.c and tables.c. */
#pragma once
#include "xen.h"

#define BASE 0xffffffff80000000ul
/* Where the monitor lives in its processes (docs/exactness.md), and the guest kernel
 * addresses that fold onto it. */
#define MONITOR 0x5c0000000000ul
#define ARENA (MONITOR + 0x1000000000ul)
#define UNFOLD(host) ((host) - 0x7fffffff0000ul)
#define M2P 0xffff810000000000ul

/* A test. `own`: it needs a boot of its own, as it does not come back or spoils the kernel. */
struct test { const char *name; void (*run)(void); u64 own; };
#define DEFINE(name, own) \
	static void name(void); \
	static const struct test test_##name __attribute__((section(".tests"), used, aligned(8))) = \
		{ #name, name, own }; \
	static void name(void)
/* Comes back and says what was wrong by `check`. */
#define TEST(name) DEFINE(name, 0)
/* The domain must end, or is ended from outside: tests/hostile knows how. */
#define OWN(name) DEFINE(name, 1)

struct frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	u64 vector, code, rip, cs, flags, rsp, ss;
};

extern struct start_info *start;
extern volatile struct shared_info *shared;
extern volatile struct console_ring *console;
extern volatile struct store_ring *store;
extern struct frame fault;
extern u64 fault_address, recover, landed_flags;
extern const u64 wild[];
extern const int wilds;
extern void (*on_trap)(struct frame *);
extern volatile u64 upcalls;
extern u8 hypercall_page[], user_code[], user_code_end[], stack_guard[], stack_end[];

void print(const char *format, ...);
void fail(const char *format, ...);
#define check(good, ...) do { if (!(good)) fail(__VA_ARGS__); } while (0)
__attribute__((noreturn)) void shutdown(u32 reason);
__attribute__((noreturn)) void hold(void);
void set_traps(void);
void callback(u16 type, u64 address);
void fill(void *to, u8 byte, u64 count);
void copy(void *to, const void *from, u64 count);
u64 now(void);
u64 random(void);

s64 attempt(void (*f)(u64), u64 argument);
void attempt_back(s64 result) __attribute__((noreturn));
void iret_to(u64 frame);
void iret_landing(void);
void native_iret_to(u64 frame);
void jump_to(u64 va);
void jump_loaded(u64 va);
void with_stack(u64 rsp);
u64 call_with_stack(u64 rsp);

/* Reads, writes or jumps there; -1, or the vector of the exception. */
s64 try_read(u64 va);
s64 try_write(u64 va);
s64 try_jump(u64 va);
/* Runs code in user mode until it makes a system call (257) or faults. */
s64 run_user(u64 rip, u64 rsp);

/* tables.c */
void *page(void);
u64 frame_of(const void *va);
void *seen(u64 frame);
u64 *entry(u64 va, int level);
void map_page(u64 va, u64 pte);
void unmap_page(u64 va);
void set_entry(u64 *at, u64 value);
void flush(void);
s64 mmuext(u32 cmd, u64 arg1, u64 arg2);
u64 root(void);

static inline s64 hypercall(u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	register u64 r10 __asm__("r10") = d;
	register u64 r8 __asm__("r8") = e;
	s64 ret;
	__asm__ volatile("syscall" : "=a"(ret), "+D"(a), "+S"(b), "+d"(c), "+r"(r10), "+r"(r8)
		: "0"(nr) : "rcx", "r11", "r9", "memory", "cc");
	return ret;
}
#define hc(nr, ...) hc_(nr, ##__VA_ARGS__, 0, 0, 0, 0, 0)
#define hc_(nr, a, b, c, d, e, ...) hypercall((nr), (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e))
