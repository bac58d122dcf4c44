/* Numbers and structures of Xen's public interface (xen.h and its neighbours)
 * that the tests use, and no more. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long s64;

enum hypercall {
	SET_TRAP_TABLE = 0, MMU_UPDATE = 1, SET_GDT = 2, STACK_SWITCH = 3, FPU_TASKSWITCH = 5,
	SET_DEBUGREG = 8, GET_DEBUGREG = 9, UPDATE_DESCRIPTOR = 10, MEMORY_OP = 12, MULTICALL = 13,
	UPDATE_VA_MAPPING = 14, SET_TIMER_OP = 15, XEN_VERSION = 17, CONSOLE_IO = 18,
	GRANT_TABLE_OP = 20, VM_ASSIST = 21, IRET = 23, VCPU_OP = 24, SET_SEGMENT_BASE = 25,
	MMUEXT_OP = 26, SCHED_OP = 29, CALLBACK_OP = 30, EVENT_CHANNEL_OP = 32, PHYSDEV_OP = 33,
};

enum errors { EPERM = 1, ENOENT = 2, EFAULT = 14, EEXIST = 17, EINVAL = 22, ENOSPC = 28, ENOSYS = 38, ETIME = 62, EOPNOTSUPP = 95 };

enum sched { SCHED_YIELD, SCHED_BLOCK, SCHED_SHUTDOWN, SCHED_POLL };
enum mmuext {
	PIN_L1 = 0, PIN_L4 = 3, UNPIN = 4, NEW_BASEPTR = 5, TLB_FLUSH_LOCAL = 6, INVLPG_LOCAL = 7,
	SET_LDT = 13, NEW_USER_BASEPTR = 15, CLEAR_PAGE = 16, COPY_PAGE = 17,
};
enum evtchn {
	BIND_INTERDOMAIN, BIND_VIRQ, BIND_PIRQ, EVT_CLOSE, EVT_SEND, EVT_STATUS, ALLOC_UNBOUND, BIND_IPI,
	BIND_VCPU, EVT_UNMASK, EVT_RESET, INIT_CONTROL, EXPAND_ARRAY, SET_PRIORITY,
};
enum memop {
	INCREASE = 0, DECREASE = 1, MAXIMUM_RAM_PAGE = 2, CURRENT_RESERVATION = 3,
	MAXIMUM_RESERVATION = 4, POPULATE = 6, MEMORY_MAP = 9, EXCHANGE = 11, MACHPHYS_MAPPING = 12,
};

struct trap_info { u8 vector, flags; u16 cs; u32 pad; u64 address; };
struct mmu_update { u64 ptr, val; };
struct mmuext_op { u32 cmd, pad; u64 arg1, arg2; };
struct multicall_entry { u64 op, result, args[6]; };
struct reservation { u64 extent_start, nr_extents; u32 order, flags; u16 domid, pad[3]; };
struct exchange { struct reservation in, out; u64 done; };
struct poll { u64 ports; u32 count, pad; u64 timeout; };
struct callback { u16 type, flags; u32 pad; u64 address; };
struct setup_table { u16 dom, pad; u32 frames; short status; u16 pad2[3]; u64 list; };

struct start_info {
	char magic[32];
	u64 nr_pages, shared_info;
	u32 flags, pad;
	u64 store_mfn;
	u32 store_port, pad2;
	u64 console_mfn;
	u32 console_port, pad3;
	u64 pt_base, nr_pt_frames, mfn_list, mod_start, mod_len;
	char cmd_line[1024];
};

struct console_ring { char in[1024], out[2048]; u32 in_cons, in_prod, out_cons, out_prod; };
struct store_ring { char req[1024], rsp[1024]; u32 req_cons, req_prod, rsp_cons, rsp_prod; };

/* shared_info (xen.h): vcpu_info[32] of 64 bytes, pending, mask, wall clock. */
struct vcpu_info { u8 pending, mask; u64 selector; u64 cr2, pad; u32 version, pad2; u64 tsc, time; u32 mul; signed char shift; u8 flags, pad3[2]; };
struct shared_info { struct vcpu_info vcpu[32]; u64 pending[64], mask[64]; u32 wall[3]; };

/* Page-table entries. */
enum pte { P = 1, W = 2, U = 4, A = 32, D = 64, PSE = 128 };
#define NX (1ul << 63)
