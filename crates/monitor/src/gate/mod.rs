//! The ways between the monitor, guest kernel code and guest user code.
//!
//! The hot ones (a guest system call, the return from it) never enter Rust.
//! All gates lie in one section, so that the signal handler knows a gate by its
//! address. `docs/ARCHITECTURE.md` draws the picture.

mod code;
mod part;

use translate::Context;

pub use code::*;
pub use part::{Part, part};

use crate::layout::{CTX, ENTRY, GATE, USER_CTX};

/// Why guest code left for the monitor (`Context::reason`).
pub mod reason {
    /// A direct branch without a translation: `target`, `argument`.
    pub const LINK: u64 = 1;
    /// An indirect branch missed the lookup tables: `target`.
    pub const INDIRECT: u64 = 2;
    /// An instruction to emulate at `rip`.
    pub const EMULATE: u64 = 3;
    /// A hypercall; `rip` after it.
    pub const HYPERCALL: u64 = 4;
    /// A system call of guest user code; `rip` after it.
    pub const SYSCALL: u64 = 5;
    /// A fault that the signal handler noted in the vCPU.
    pub const FAULT: u64 = 6;
    /// An event or timer asks for attention; state is precise at `rip`.
    pub const ATTENTION: u64 = 7;
    /// Translate again from `rip`.
    pub const RETRANSLATE: u64 = 8;
    /// The user half of another address space is needed; go on at `rip`.
    pub const SWITCH: u64 = 9;
    /// The vector state is needed and is in a runner.
    pub const STATE: u64 = 10;
    /// Translated user code left; why is in its own context (`user_exit`).
    pub const USER_EXIT: u64 = 11;
}

/// State shared by the gates and the run loop; guest kernel code can write it.
#[repr(C)]
pub struct GateState {
    /// 0 kernel, 1 user.
    pub user_mode: u64,
    /// Host address (folded) of the guest kernel stack for entries from user mode.
    pub kernel_stack: u64,
    /// Host address of the translated system-call entry.
    pub syscall_entry: u64,
    /// `gate_syscall_fast` or `gate_syscall_slow`.
    pub syscall_path: u64,
    /// PKRU to enter guest kernel mode with.
    pub pkru_kernel: u32,
    /// Not 0: the return to user mode must visit the monitor.
    pub attention: u32,
    /// Folded kernel GS base, for host FS.
    pub kernel_fs: u64,
    /// The guest's user FS base.
    pub user_fs: u64,
    /// The guest's user GS base.
    pub user_gs: u64,
    /// User RSP while a system call is on its way in.
    pub user_rsp: u64,
    /// Address of `vcpu_info` in the mapped page.
    pub vcpu_info: u64,
    /// Guest RIP of the last return to user mode by the fast gate.
    pub user_rip: u64,
    /// System calls that took the fast gate.
    pub fast_syscalls: u64,
    /// 1: the event mask is set when a system call enters the kernel.
    pub syscall_masks: u64,
    /// 1: on the way from guest code to the monitor.
    pub leaving: u64,
}

/// The page user mode is entered through: it can read it, not write it.
#[repr(C)]
pub struct EntryPage {
    /// 1: host system calls raise SIGSYS.
    pub selector: u64,
    /// RAX, RCX, RDX, RSP to load last.
    pub rax: u64,
    /// See `rax`.
    pub rcx: u64,
    /// See `rax`.
    pub rdx: u64,
    /// See `rax`.
    pub rsp: u64,
    /// Where to go.
    pub target: u64,
}

/// The vCPU's registers.
pub fn context() -> &'static mut Context {
    // SAFETY: mapped at this address for the life of a space; one space at a
    // time runs the vCPU, and the borrow ends before guest code runs again.
    unsafe { &mut *(CTX as *mut Context) }
}

/// The context of translated user code in this space.
pub fn user_context() -> &'static mut Context {
    // SAFETY: in the scratch page, mapped at start; see `context`.
    unsafe { &mut *(USER_CTX as *mut Context) }
}

/// What the gates and the run loop share.
pub fn gate() -> &'static mut GateState {
    // SAFETY: as for `context`.
    unsafe { &mut *(GATE as *mut GateState) }
}

/// This space's entry page.
pub fn entry_page() -> &'static mut EntryPage {
    // SAFETY: as for `context`.
    unsafe { &mut *(ENTRY as *mut EntryPage) }
}

/// Registers that a patched system call put aside: RAX and RDX; and why translated
/// user code left. All of it is the program's to write.
pub fn put_aside() -> [u64; 3] {
    // SAFETY: the scratch page, mapped at start.
    unsafe { (crate::layout::SCRATCH as *const [u64; 3]).read_volatile() }
}

/// Why translated user code left, of what it may leave for.
pub fn user_exit() -> u64 {
    match put_aside()[2] {
        why @ (reason::LINK | reason::INDIRECT | reason::EMULATE | reason::SYSCALL) => why,
        _ => reason::ATTENTION,
    }
}
