//! The way from a runner's loop to the guest program and back, and its mapping calls.
//!
//! A program can reach all of this with any registers. What it cannot do is to change a mapping that
//! the space did not order: the host lets these calls through from one place each (`filter`), and
//! right behind it the code compares what was asked for with the orders, which a runner only reads.
//! Who came there by another way ends.

use core::{arch::global_asm, mem::offset_of};

use super::mailbox::{Command, Event, Frame, Mailbox, Orders};

unsafe extern "C" {
    /// Runs the program as the mailbox says until it leaves.
    pub fn runner_enter();
    /// Puts the program's vector state into the mailbox.
    pub fn runner_save();
    static runner_entry_start: u8;
    static runner_entry_end: u8;
    static runner_gates_start: u8;
    static runner_gates_end: u8;
    fn runner_syscall();
    /// Carry out the command with this number; the host's answer.
    pub fn runner_map(command: u64) -> i64;
    pub fn runner_unmap(command: u64) -> i64;
    pub fn runner_protect(command: u64) -> i64;
    static runner_map_made: u8;
    static runner_map_compared: u8;
    static runner_unmap_made: u8;
    static runner_unmap_compared: u8;
    static runner_protect_made: u8;
    static runner_protect_compared: u8;
}

/// Where the host sees `mmap`, `munmap` and `mprotect` come from: behind the instruction.
pub fn mapping_calls() -> [u64; 3] {
    // SAFETY: labels; only their addresses are used.
    unsafe { [&runner_map_made, &runner_unmap_made, &runner_protect_made] }
        .map(|label| core::ptr::from_ref(label) as u64)
}

/// Has a mapping call been made there, and not been compared with the orders yet?
pub fn is_unproved(rip: u64) -> bool {
    // SAFETY: as above.
    unsafe {
        within(rip, &runner_map_made, &runner_map_compared)
            || within(rip, &runner_unmap_made, &runner_unmap_compared)
            || within(rip, &runner_protect_made, &runner_protect_compared)
    }
}

/// Exit status of a runner whose mappings were changed without an order.
pub const FORGED: u32 = 98;

/// Where patched system calls of a runner go.
pub fn syscall() -> u64 {
    runner_syscall as *const () as u64
}

fn within(rip: u64, start: &u8, end: &u8) -> bool {
    rip >= core::ptr::from_ref(start) as u64 && rip < core::ptr::from_ref(end) as u64
}

/// Is it on the way to the program, whose registers are still in the mailbox?
pub fn is_on_entry(rip: u64) -> bool {
    // SAFETY: labels; only their addresses are used.
    unsafe { within(rip, &runner_entry_start, &runner_entry_end) }
}

/// Is it in one of the gates below?
pub fn is_gate(rip: u64) -> bool {
    // SAFETY: as above.
    unsafe { within(rip, &runner_gates_start, &runner_gates_end) }
}

macro_rules! gates {
    ($($line:literal)*) => {
        global_asm!($(concat!($line, "\n"),)*
            SELECTOR = const core::mem::offset_of!(Mailbox, selector),
            REGS = const core::mem::offset_of!(Mailbox, regs),
            FRAME = const core::mem::offset_of!(Mailbox, frame),
            RIP = const core::mem::offset_of!(Mailbox, frame) + core::mem::offset_of!(Frame, rip),
            RFLAGS = const core::mem::offset_of!(Mailbox, frame) + core::mem::offset_of!(Frame, rflags),
            RSP = const core::mem::offset_of!(Mailbox, frame) + core::mem::offset_of!(Frame, rsp),
            FS = const core::mem::offset_of!(Mailbox, fs),
            GS = const core::mem::offset_of!(Mailbox, gs),
            KICKED = const core::mem::offset_of!(Mailbox, kicked),
            EVENT = const core::mem::offset_of!(Mailbox, event),
            LOW = const core::mem::offset_of!(Mailbox, low),
            LOAD = const core::mem::offset_of!(Mailbox, load_state),
            VECTOR = const core::mem::offset_of!(Mailbox, vector),
            SYSTEM_CALL = const Event::SYSTEM_CALL,
            COMPONENTS = const crate::space::COMPONENTS,
            COUNT = const offset_of!(Orders, count),
            COMMANDS = const offset_of!(Orders, commands),
            COMMAND = const size_of::<Command>(),
            WHAT = const offset_of!(Command, what),
            PROT = const offset_of!(Command, prot),
            START = const offset_of!(Command, start),
            LEN = const offset_of!(Command, len),
            OFFSET = const offset_of!(Command, offset),
            FILE = const offset_of!(Command, file),
            MAP = const Command::MAP,
            UNMAP = const Command::UNMAP,
            PROTECT = const Command::PROTECT,
            SHARED_FIXED = const crate::sys::MAP_SHARED | crate::sys::MAP_FIXED,
            FORGED = const FORGED,
        );
    };
}

gates! {
    ".section .text.runner_gates,\"ax\",@progbits"
    ".globl runner_entry_start, runner_entry_end"
    ".globl runner_enter, runner_syscall, runner_keep, runner_leave, runner_save"
    ".macro LOAD_PROGRAM"
    "mov rax, [rip + MAILBOX + {REGS} + 0]"
    "mov rcx, [rip + MAILBOX + {REGS} + 8]"
    "mov rdx, [rip + MAILBOX + {REGS} + 16]"
    "mov rbx, [rip + MAILBOX + {REGS} + 24]"
    "mov rbp, [rip + MAILBOX + {REGS} + 40]"
    "mov rsi, [rip + MAILBOX + {REGS} + 48]"
    "mov rdi, [rip + MAILBOX + {REGS} + 56]"
    "mov r8, [rip + MAILBOX + {REGS} + 64]"
    "mov r9, [rip + MAILBOX + {REGS} + 72]"
    "mov r10, [rip + MAILBOX + {REGS} + 80]"
    "mov r11, [rip + MAILBOX + {REGS} + 88]"
    "mov r12, [rip + MAILBOX + {REGS} + 96]"
    "mov r13, [rip + MAILBOX + {REGS} + 104]"
    "mov r14, [rip + MAILBOX + {REGS} + 112]"
    "mov r15, [rip + MAILBOX + {REGS} + 120]"
    ".endm"
    ".globl runner_gates_start, runner_gates_end"
    "runner_gates_start:"
    "runner_enter:"
    "push rbx"
    "push rbp"
    "push r12"
    "push r13"
    "push r14"
    "push r15"
    "mov [rip + LOCAL], rsp"
    "runner_entry_start:"
    // A signal before this line is seen here, a later one leaves from where it hit.
    "cmp dword ptr [rip + MAILBOX + {KICKED}], 0"
    "jne runner_leave"
    "cmp qword ptr [rip + MAILBOX + {LOAD}], 0"
    "je 2f"
    "mov eax, {COMPONENTS}"
    "mov edx, 0"
    "xrstor64 [rip + MAILBOX + {VECTOR}]"
    "mov qword ptr [rip + MAILBOX + {LOAD}], 0"
    "2:"
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
    "movaps xmm\\n, xmmword ptr [rip + MAILBOX + {LOW} + 16*\\n]"
    ".endr"
    "mov rcx, [rip + MAILBOX + {FS}]"
    "wrfsbase rcx"
    "mov rcx, [rip + MAILBOX + {GS}]"
    "wrgsbase rcx"
    "mov byte ptr [rip + MAILBOX + {SELECTOR}], 1"
    // The first single step is to be the program's: IRETQ sets TF for it. Else
    // flags first, and a jump, which is quicker.
    "mov rcx, [rip + MAILBOX + {RFLAGS}]"
    "test ecx, 0x100"
    "jnz 3f"
    "push rcx"
    "popfq"
    "LOAD_PROGRAM"
    "mov rsp, [rip + MAILBOX + {RSP}]"
    "jmp qword ptr [rip + MAILBOX + {RIP}]"
    "3:"
    "LOAD_PROGRAM"
    "lea rsp, [rip + MAILBOX + {FRAME}]"
    "iretq"
    "runner_entry_end:"

    // A patched system call: RCX = return address, RAX = number.
    "runner_syscall:"
    "mov byte ptr [rip + MAILBOX + {SELECTOR}], 0"
    "mov [rip + MAILBOX + {REGS} + 0], rax"
    "mov [rip + MAILBOX + {REGS} + 8], rcx"
    "mov [rip + MAILBOX + {REGS} + 16], rdx"
    "mov [rip + MAILBOX + {REGS} + 24], rbx"
    "mov [rip + MAILBOX + {REGS} + 40], rbp"
    "mov [rip + MAILBOX + {REGS} + 48], rsi"
    "mov [rip + MAILBOX + {REGS} + 56], rdi"
    "mov [rip + MAILBOX + {REGS} + 64], r8"
    "mov [rip + MAILBOX + {REGS} + 72], r9"
    "mov [rip + MAILBOX + {REGS} + 80], r10"
    "mov [rip + MAILBOX + {REGS} + 88], r11"
    "mov [rip + MAILBOX + {REGS} + 96], r12"
    "mov [rip + MAILBOX + {REGS} + 104], r13"
    "mov [rip + MAILBOX + {REGS} + 112], r14"
    "mov [rip + MAILBOX + {REGS} + 120], r15"
    "mov [rip + MAILBOX + {RIP}], rcx"
    "mov [rip + MAILBOX + {RSP}], rsp"
    "mov rsp, [rip + LOCAL]"
    "pushfq"
    "pop qword ptr [rip + MAILBOX + {RFLAGS}]"
    // The program's alignment checks, direction and steps are not ours.
    "push 2"
    "popfq"
    "mov dword ptr [rip + MAILBOX + {EVENT}], {SYSTEM_CALL}"
    // Also where the signal gate goes when it has taken the program's state.
    "runner_keep:"
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
    "movaps xmmword ptr [rip + MAILBOX + {LOW} + 16*\\n], xmm\\n"
    ".endr"
    "runner_leave:"
    "mov rsp, [rip + LOCAL]"
    "pop r15"
    "pop r14"
    "pop r13"
    "pop r12"
    "pop rbp"
    "pop rbx"
    "ret"

    // The program's whole vector state into the mailbox.
    "runner_save:"
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
    "movaps xmm\\n, xmmword ptr [rip + MAILBOX + {LOW} + 16*\\n]"
    ".endr"
    "mov eax, {COMPONENTS}"
    "mov edx, 0"
    "xsave64 [rip + MAILBOX + {VECTOR}]"
    "ret"

    // RDI = a command's number: the arguments of its call; the number stays in RBX.
    ".macro MAKE_CALL number"
    "push rbx"
    "mov rbx, rdi"
    "imul rcx, rbx, {COMMAND}"
    "lea rax, [rip + ORDERS + {COMMANDS}]"
    "add rcx, rax"
    "mov rdi, [rcx + {START}]"
    "mov rsi, [rcx + {LEN}]"
    "mov edx, [rcx + {PROT}]"
    "mov r10d, {SHARED_FIXED}"
    "mov r8d, [rcx + {FILE}]"
    "mov r9, [rcx + {OFFSET}]"
    "mov eax, \\number"
    "syscall"
    ".endm"
    // The call keeps all registers but RAX, RCX and R11: is there such a command, with that number?
    ".macro COMPARE what"
    "mov ecx, [rip + ORDERS + {COUNT}]"
    "cmp rbx, rcx"
    "jae runner_forged"
    "imul rcx, rbx, {COMMAND}"
    "lea r11, [rip + ORDERS + {COMMANDS}]"
    "add rcx, r11"
    "cmp dword ptr [rcx + {WHAT}], \\what"
    "jne runner_forged"
    "cmp rdi, [rcx + {START}]"
    "jne runner_forged"
    "cmp rsi, [rcx + {LEN}]"
    "jne runner_forged"
    ".endm"
    ".macro COMPARE_PROTECTION"
    "cmp edx, [rcx + {PROT}]"
    "jne runner_forged"
    ".endm"
    ".globl runner_map, runner_map_made, runner_map_compared"
    "runner_map:"
    "MAKE_CALL 9"
    "runner_map_made:"
    "COMPARE {MAP}"
    "COMPARE_PROTECTION"
    "cmp r10, {SHARED_FIXED}"
    "jne runner_forged"
    "cmp r8d, [rcx + {FILE}]"
    "jne runner_forged"
    "cmp r9, [rcx + {OFFSET}]"
    "jne runner_forged"
    "runner_map_compared:"
    "pop rbx"
    "ret"
    ".globl runner_unmap, runner_unmap_made, runner_unmap_compared"
    "runner_unmap:"
    "MAKE_CALL 11"
    "runner_unmap_made:"
    "COMPARE {UNMAP}"
    "runner_unmap_compared:"
    "pop rbx"
    "ret"
    ".globl runner_protect, runner_protect_made, runner_protect_compared"
    "runner_protect:"
    "MAKE_CALL 10"
    "runner_protect_made:"
    "COMPARE {PROTECT}"
    "COMPARE_PROTECTION"
    "runner_protect_compared:"
    "pop rbx"
    "ret"
    "runner_forged:"
    "mov eax, 231" // exit_group
    "mov edi, {FORGED}"
    "syscall"
    "ud2"
    "runner_gates_end:"
    ".text"
}
