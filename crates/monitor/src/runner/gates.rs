//! The way from a runner's loop to the guest program and back.

use core::arch::global_asm;

use super::mailbox::{Event, Frame, Mailbox};

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
}

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
    "runner_gates_end:"
    ".text"
}
