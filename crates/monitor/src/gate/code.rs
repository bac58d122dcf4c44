//! The gates' instructions.
//!
//! Keys do not forbid execution: user code can jump to any instruction here with
//! any registers. So each WRPKRU and XRSTOR is followed by a check that only the
//! way which leads to it can pass, and a refused one ends at `gate_refused`.

use core::arch::global_asm;

use translate::Context;

use super::{GateState, reason};
use crate::{
    layout::{PKRU_KERNEL, PKRU_USER},
    space::Local,
};

unsafe extern "C" {
    /// Runs translated kernel code at `Context::enter` until it leaves.
    pub fn enter_kernel();
    /// Runs guest user code at `Context::enter` until it leaves.
    pub fn enter_user();
    /// The same with TF set: by IRETQ, so that the first step is the guest's.
    pub fn enter_user_stepping();
    /// Where signals are taken where there are keys.
    pub fn signal_entry();
    /// Where they are taken where there are none.
    pub fn signal_entry_plain();
    /// An invalid instruction of two bytes that is a NOP where there are no keys.
    pub fn plain_only();
    /// Where they return.
    pub fn signal_restorer();
    /// Loads the components `mask` of an XSAVE area into the vector registers.
    pub fn gate_restore_vector(area: *const u8, mask: u32);
    pub(super) static gates_start: u8;
    pub(super) static gates_end: u8;
    pub(super) static user_entry_start: u8;
    pub(super) static user_entry_end: u8;
    pub(super) static syscall_fast_start: u8;
    pub(super) static syscall_fast_end: u8;
    pub(super) static syscall_entry_saved: u8;
    pub(super) static syscall_entry_end: u8;
    pub(super) fn gate_refused();
    pub(super) static iret_fast_start: u8;
    pub(super) static iret_fast_end: u8;
    static key_sites_start: u64;
    static key_sites_end: u64;
    pub(super) fn gate_iret_slow();
    pub(super) fn gate_syscall();
    fn gate_syscall_fast();
    pub(super) fn gate_syscall_slow();
    fn gate_hypercall();
    fn exit_vector();
    fn exit_link();
    fn uexit_link();
    fn uexit_indirect();
    fn uexit_emulate();
    fn uexit_syscall();
    fn exit_indirect();
    fn exit_emulate();
    fn exit_state();
}

/// Addresses of the gates' WRPKRU instructions, three bytes each. On a host
/// without protection keys they are invalid, and are overwritten at start.
pub fn key_loads() -> &'static [u64] {
    // SAFETY: the gates below put one address there for each.
    unsafe {
        let (start, end) = (&raw const key_sites_start, &raw const key_sites_end);
        core::slice::from_raw_parts(start, end.offset_from_unsigned(start))
    }
}

macro_rules! addresses {
    ($($(#[$doc:meta])* $name:ident = $symbol:ident;)*) => {
        $($(#[$doc])* pub fn $name() -> u64 { $symbol as *const () as u64 })*
    };
}
addresses! {
    /// Where a handler goes that leaves for the run loop.
    leave = exit_vector;
    /// Entry of patched system calls.
    syscall = gate_syscall;
    /// Fast path behind it.
    syscall_fast = gate_syscall_fast;
    /// Slow path behind it.
    syscall_slow = gate_syscall_slow;
    /// `syscall` of translated kernel code.
    hypercall = gate_hypercall;
    /// Unlinked branch.
    link = exit_link;
    /// Lookup miss.
    indirect = exit_indirect;
    /// Instruction to emulate.
    emulate = exit_emulate;
    /// Vector state is needed.
    state = exit_state;
    /// The same exits for translated user code.
    user_link = uexit_link;
    /// See `user_link`.
    user_indirect = uexit_indirect;
    /// See `user_link`.
    user_emulate = uexit_emulate;
    /// See `user_link`.
    user_syscall = uexit_syscall;
}

macro_rules! gates {
    ($($line:literal)*) => {
        global_asm!($(concat!($line, "\n"),)*
            RFLAGS = const core::mem::offset_of!(Context, rflags),
            RIP = const core::mem::offset_of!(Context, rip),
            TARGET = const core::mem::offset_of!(Context, target),
            ARGUMENT = const core::mem::offset_of!(Context, argument),
            REASON = const core::mem::offset_of!(Context, reason),
            ENTER = const core::mem::offset_of!(Context, enter),
            XMM = const core::mem::offset_of!(Context, xmm),
            USER_MODE = const core::mem::offset_of!(GateState, user_mode),
            KSTACK = const core::mem::offset_of!(GateState, kernel_stack),
            SYSENTRY = const core::mem::offset_of!(GateState, syscall_entry),
            SYSPATH = const core::mem::offset_of!(GateState, syscall_path),
            PKRU_K = const core::mem::offset_of!(GateState, pkru_kernel),
            ATTENTION = const core::mem::offset_of!(GateState, attention),
            KFS = const core::mem::offset_of!(GateState, kernel_fs),
            UFS = const core::mem::offset_of!(GateState, user_fs),
            UGS = const core::mem::offset_of!(GateState, user_gs),
            URSP = const core::mem::offset_of!(GateState, user_rsp),
            VCPU = const core::mem::offset_of!(GateState, vcpu_info),
            URIP = const core::mem::offset_of!(GateState, user_rip),
            COUNT = const core::mem::offset_of!(GateState, fast_syscalls),
            MASKS = const core::mem::offset_of!(GateState, syscall_masks),
            LEAVING = const core::mem::offset_of!(GateState, leaving),
            PENDING = const core::mem::offset_of!(Local, pending),
            NESTED = const core::mem::offset_of!(Local, nested),
            FIRST = const core::mem::offset_of!(Local, first_frame),
            LAST = const core::mem::offset_of!(Local, last_frame),
            RESTORING = const core::mem::offset_of!(Local, restoring),
            PKRU_KERNEL = const PKRU_KERNEL,
            PKRU_USER = const PKRU_USER,
            FOLD = const translate::FOLD,
            R_LINK = const reason::LINK,
            R_INDIRECT = const reason::INDIRECT,
            R_EMULATE = const reason::EMULATE,
            R_HYPERCALL = const reason::HYPERCALL,
            R_SYSCALL = const reason::SYSCALL,
            R_ATTENTION = const reason::ATTENTION,
            R_STATE = const reason::STATE,
            R_USER_EXIT = const reason::USER_EXIT,
            COMPONENTS = const crate::space::COMPONENTS,
        );
    };
}

gates! {
    ".section .rodata.key_sites,\"a\",@progbits"
    ".balign 8"
    ".globl key_sites_start"
    "key_sites_start:"
    ".section .text.gates,\"ax\",@progbits"
    ".globl gates_start, gates_end, user_entry_start, user_entry_end"
    ".globl syscall_fast_start, syscall_fast_end, iret_fast_start, iret_fast_end"
    ".globl syscall_entry_saved, syscall_entry_end, gate_refused"
    "gates_start:"

    // Where a way ends that began in its middle.
    "gate_refused:"
    "ud2"
    // Goes on if RCX is 0, and is refused else; the other way round.
    ".macro MUST_BE_ZERO"
    "jrcxz 7771f"
    "jmp gate_refused"
    "7771:"
    ".endm"
    ".macro MUST_NOT_BE_ZERO"
    "jrcxz 7772f"
    "jmp 7773f"
    "7772: jmp gate_refused"
    "7773:"
    ".endm"

    // WRPKRU, and a note of where it is: see `leave_out_keys`.
    ".macro LOAD_KEYS"
    "7770: wrpkru"
    ".pushsection .rodata.key_sites,\"a\",@progbits"
    ".quad 7770b"
    ".popsection"
    ".endm"
    ".macro LOAD_VECTOR"
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
    "movaps xmm\\n, xmmword ptr [rip + CTX + {XMM} + 16*\\n]"
    ".endr"
    ".endm"
    ".macro SAVE_VECTOR"
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
    "movaps xmmword ptr [rip + CTX + {XMM} + 16*\\n], xmm\\n"
    ".endr"
    ".endm"
    // All but RAX, RCX, RDX and RSP.
    ".macro LOAD_REST"
    "mov rbx, [rip + CTX + 24]"
    "mov rbp, [rip + CTX + 40]"
    "mov rsi, [rip + CTX + 48]"
    "mov rdi, [rip + CTX + 56]"
    "mov r8, [rip + CTX + 64]"
    "mov r9, [rip + CTX + 72]"
    "mov r10, [rip + CTX + 80]"
    "mov r11, [rip + CTX + 88]"
    "mov r12, [rip + CTX + 96]"
    "mov r13, [rip + CTX + 104]"
    "mov r14, [rip + CTX + 112]"
    "mov r15, [rip + CTX + 120]"
    ".endm"
    ".macro PREPARE_USER"
    "PUSH_SAVED"
    "LOAD_VECTOR"
    "mov rcx, [rip + GATE + {UFS}]"
    "wrfsbase rcx"
    "mov rcx, [rip + GATE + {UGS}]"
    "wrgsbase rcx"
    "mov rax, [rip + CTX + 0]"
    "mov [rip + ENTRY + 8], rax"
    "mov rax, [rip + CTX + 8]"
    "mov [rip + ENTRY + 16], rax"
    "mov rax, [rip + CTX + 16]"
    "mov [rip + ENTRY + 24], rax"
    "mov rax, [rip + CTX + 32]"
    "mov [rip + ENTRY + 32], rax"
    "mov rax, [rip + CTX + {ENTER}]"
    "mov [rip + ENTRY + 40], rax"
    "LOAD_REST"
    ".endm"
    ".macro PUSH_SAVED"
    "push rbx"
    "push rbp"
    "push r12"
    "push r13"
    "push r14"
    "push r15"
    "mov [rip + LOCAL], rsp"
    ".endm"

    // A signal that came since Rust looked would wait until the guest leaves by itself.
    ".macro RETURN_IF_PENDING"
    "cmp byte ptr [rip + LOCAL + {PENDING}], 0"
    "je 7774f"
    "mov dword ptr [rip + CTX + {REASON}], {R_ATTENTION}"
    "ret"
    "7774:"
    ".endm"

    // ---- Rust to translated kernel code
    ".globl enter_kernel"
    "enter_kernel:"
    "RETURN_IF_PENDING"
    "PUSH_SAVED"
    "LOAD_VECTOR"
    "mov rcx, [rip + GATE + {KFS}]"
    "wrfsbase rcx"
    "movabs rcx, {FOLD}"
    "wrgsbase rcx"
    "push qword ptr [rip + CTX + {RFLAGS}]"
    "popfq"
    "mov eax, [rip + GATE + {PKRU_K}]"
    "mov ecx, 0"
    "mov edx, 0"
    "LOAD_KEYS"
    // Programs do not come here.
    "mov rcx, [rip + GATE + {USER_MODE}]"
    "MUST_BE_ZERO"
    "mov rax, [rip + CTX + 0]"
    "mov rcx, [rip + CTX + 8]"
    "mov rdx, [rip + CTX + 16]"
    "LOAD_REST"
    "mov rsp, [rip + CTX + 32]"
    "jmp qword ptr [rip + CTX + {ENTER}]"

    // ---- Translated kernel code to Rust
    ".globl exit_link, exit_indirect, exit_emulate, exit_state"
    "exit_link:"
    "mov dword ptr [rip + CTX + {REASON}], {R_LINK}"
    "jmp exit_common"
    "exit_indirect:"
    "mov dword ptr [rip + CTX + {REASON}], {R_INDIRECT}"
    "jmp exit_common"
    "exit_state:"
    "mov dword ptr [rip + CTX + {REASON}], {R_STATE}"
    "jmp exit_common"
    "exit_emulate:"
    "mov dword ptr [rip + CTX + {REASON}], {R_EMULATE}"
    "exit_common:"
    "mov [rip + CTX + 32], rsp"
    "exit_but_rsp:"
    // Who cannot write this has not come by this way.
    "mov qword ptr [rip + GATE + {LEAVING}], 1"
    "mov [rip + CTX + 0], rax"
    "mov [rip + CTX + 8], rcx"
    "mov [rip + CTX + 16], rdx"
    "mov [rip + CTX + 24], rbx"
    "mov [rip + CTX + 40], rbp"
    "mov [rip + CTX + 48], rsi"
    "mov [rip + CTX + 56], rdi"
    "mov [rip + CTX + 64], r8"
    "mov [rip + CTX + 72], r9"
    "mov [rip + CTX + 80], r10"
    "mov [rip + CTX + 88], r11"
    "mov [rip + CTX + 96], r12"
    "mov [rip + CTX + 104], r13"
    "mov [rip + CTX + 112], r14"
    "mov [rip + CTX + 120], r15"
    "mov eax, 0"
    "mov ecx, 0"
    "mov edx, 0"
    "LOAD_KEYS"
    "mov rcx, [rip + GATE + {LEAVING}]"
    "MUST_NOT_BE_ZERO"
    "mov qword ptr [rip + GATE + {LEAVING}], 0"
    "mov rsp, [rip + LOCAL]"
    "pushfq"
    "pop qword ptr [rip + CTX + {RFLAGS}]"
    "cld"
    // Alignment checks (AC) are the guest's.
    "test dword ptr [rip + CTX + {RFLAGS}], 0x40000"
    "jz exit_vector"
    "push 2"
    "popfq"
    ".globl exit_vector"
    "exit_vector:"
    "SAVE_VECTOR"
    "pop r15"
    "pop r14"
    "pop r13"
    "pop r12"
    "pop rbp"
    "pop rbx"
    "ret"

    // ---- Translated user code to Rust. It runs with user rights, so the
    // registers go through the scratch page; its own context lies there too.
    ".globl uexit_link, uexit_indirect, uexit_emulate, uexit_syscall"
    ".macro USER_EXIT why"
    "mov qword ptr [rip + SCRATCH + 16], \\why"
    "jmp uexit_common"
    ".endm"
    "uexit_link:"
    "USER_EXIT {R_LINK}"
    "uexit_indirect:"
    "USER_EXIT {R_INDIRECT}"
    "uexit_emulate:"
    "USER_EXIT {R_EMULATE}"
    "uexit_syscall:"
    "USER_EXIT {R_SYSCALL}"
    "uexit_common:"
    "mov [rip + SCRATCH], rax"
    "mov [rip + SCRATCH + 8], rdx"
    "mov [rip + SCRATCH + 24], rcx"
    "mov eax, {PKRU_KERNEL}"
    "mov ecx, 0"
    "mov edx, 0"
    "LOAD_KEYS"
    "lea rcx, [rax - {PKRU_KERNEL}]"
    "MUST_BE_ZERO"
    "mov byte ptr [rip + ENTRY], 0"
    "mov dword ptr [rip + CTX + {REASON}], {R_USER_EXIT}"
    "mov rax, [rip + SCRATCH + 0x400 + {RIP}]"
    "mov [rip + CTX + {RIP}], rax"
    "mov rax, [rip + SCRATCH + 0x400 + {TARGET}]"
    "mov [rip + CTX + {TARGET}], rax"
    "mov rax, [rip + SCRATCH + 0x400 + {ARGUMENT}]"
    "mov [rip + CTX + {ARGUMENT}], rax"
    "mov rax, [rip + SCRATCH]"
    "mov rdx, [rip + SCRATCH + 8]"
    "mov rcx, [rip + SCRATCH + 24]"
    "mov [rip + CTX + 32], rsp"
    "lea rsp, [rip + GATE_STACK]"
    "jmp exit_but_rsp"

    // ---- Rust to guest user code
    ".globl enter_user"
    "enter_user:"
    "RETURN_IF_PENDING"
    "PREPARE_USER"
    "push qword ptr [rip + CTX + {RFLAGS}]"
    "popfq"
    "user_entry_start:"
    "mov byte ptr [rip + ENTRY], 1"
    "mov eax, {PKRU_USER}"
    "mov ecx, 0"
    "mov edx, 0"
    "LOAD_KEYS"
    "lea rcx, [rax - {PKRU_USER}]"
    "MUST_BE_ZERO"
    "mov rax, [rip + ENTRY + 8]"
    "mov rcx, [rip + ENTRY + 16]"
    "mov rdx, [rip + ENTRY + 24]"
    "mov rsp, [rip + ENTRY + 32]"
    "jmp qword ptr [rip + ENTRY + 40]"
    // IRETQ takes RIP, CS, RFLAGS, RSP, SS from the entry page.
    "user_step_start:"
    "mov byte ptr [rip + ENTRY], 1"
    "mov eax, {PKRU_USER}"
    "mov ecx, 0"
    "mov edx, 0"
    "LOAD_KEYS"
    "lea rcx, [rax - {PKRU_USER}]"
    "MUST_BE_ZERO"
    "mov rax, [rip + ENTRY + 8]"
    "mov rcx, [rip + ENTRY + 16]"
    "mov rdx, [rip + ENTRY + 24]"
    "lea rsp, [rip + ENTRY + 64]"
    "iretq"
    "user_entry_end:"
    ".globl enter_user_stepping"
    "enter_user_stepping:"
    "RETURN_IF_PENDING"
    "PREPARE_USER"
    "mov rax, [rip + ENTRY + 40]"
    "mov [rip + ENTRY + 64], rax"
    "mov qword ptr [rip + ENTRY + 72], 0x33"
    "mov rax, [rip + CTX + {RFLAGS}]"
    "mov [rip + ENTRY + 80], rax"
    "mov rax, [rip + ENTRY + 32]"
    "mov [rip + ENTRY + 88], rax"
    "mov qword ptr [rip + ENTRY + 96], 0x2b"
    "jmp user_step_start"

    // ---- A patched system call of guest user code; RCX = return address
    ".globl gate_syscall, gate_syscall_fast, gate_syscall_slow"
    "gate_syscall:"
    "mov [rip + SCRATCH], rax"
    "mov [rip + SCRATCH + 8], rdx"
    "mov r11, rcx"
    "syscall_entry_saved:"
    "mov eax, {PKRU_KERNEL}"
    "mov ecx, 0"
    "mov edx, 0"
    "LOAD_KEYS"
    "syscall_entry_end:"
    "lea rcx, [rax - {PKRU_KERNEL}]"
    "MUST_BE_ZERO"
    "mov byte ptr [rip + ENTRY], 0"
    "mov rax, [rip + SCRATCH]"
    "mov rdx, [rip + SCRATCH + 8]"
    "mov rcx, r11"
    "mov [rip + GATE + {URSP}], rsp"
    "lea rsp, [rip + GATE_STACK]"
    "pushfq"
    "pop r11"
    "cld"
    "jmp qword ptr [rip + GATE + {SYSPATH}]"

    // The frame that Xen makes for a system call: RCX, R11, RIP, CS, RFLAGS,
    // RSP, SS from low to high (arch-x86/xen-x86_64.h).
    "gate_syscall_fast:"
    "test r11d, 0x54100"
    "jnz gate_syscall_slow"
    "syscall_fast_start:"
    "mov rsp, [rip + GATE + {VCPU}]"
    "cmp byte ptr [rsp + 1], 0"
    "jne gate_syscall_slow"
    "mov rsp, [rip + GATE + {KSTACK}]"
    "push 0x2b"
    "push qword ptr [rip + GATE + {URSP}]"
    "push r11"
    "push 0x33"
    "push rcx"
    "push r11"
    "push rcx"
    "syscall_fast_end:"
    "mov rcx, [rip + GATE + {KFS}]"
    "wrfsbase rcx"
    "movabs rcx, {FOLD}"
    "wrgsbase rcx"
    "mov rcx, [rip + GATE + {VCPU}]"
    "mov r11, [rip + GATE + {MASKS}]"
    "mov byte ptr [rcx + 1], r11b"
    "mov qword ptr [rip + GATE + {USER_MODE}], 0"
    "inc qword ptr [rip + GATE + {COUNT}]"
    "jmp qword ptr [rip + GATE + {SYSENTRY}]"

    "gate_syscall_slow:"
    "mov [rip + CTX + {RIP}], rcx"
    "mov dword ptr [rip + CTX + {REASON}], {R_SYSCALL}"
    "mov rsp, [rip + GATE + {URSP}]"
    "mov [rip + CTX + 32], rsp"
    "lea rsp, [rip + GATE_STACK]"
    "push r11"
    "popfq"
    "jmp exit_but_rsp"

    // ---- `syscall` of translated kernel code: a hypercall. RCX and R11 are
    // free, as the instruction overwrites them.
    ".globl gate_hypercall, gate_iret_slow"
    "gate_hypercall:"
    "lea rcx, [rax - 23]"
    "jrcxz 2f"
    "gate_iret_slow:"
    "mov dword ptr [rip + CTX + {REASON}], {R_HYPERCALL}"
    "jmp exit_common"
    "2:"
    "cmp dword ptr [rip + GATE + {ATTENTION}], 0"
    "jne gate_iret_slow"
    // The frame (struct iret_context): RAX, R11, RCX, flags, RIP, CS, RFLAGS, RSP, SS.
    "iret_fast_start:"
    "cmp dword ptr [rsp + 40], 0x33"
    "jne gate_iret_slow"
    // Plain user flags with interrupts on: no TF, IOPL, NT, RF, VM, AC.
    "mov r11d, [rsp + 48]"
    "and r11d, 0x77300"
    "cmp r11d, 0x200"
    "jne gate_iret_slow"
    "test dword ptr [rsp + 24], 0x100"
    "jnz gate_iret_slow"
    "mov rcx, [rsp + 32]"
    "mov r11, rcx"
    "shr r11, 47"
    "jnz gate_iret_slow"
    "mov r11, [rip + GATE + {VCPU}]"
    "cmp byte ptr [r11], 0"
    "jne gate_iret_slow"
    "mov r11, [rsp + 56]"
    "mov [rip + ENTRY + 32], r11"
    "mov r11, [rsp + 16]"
    "mov [rip + ENTRY + 16], r11"
    "mov r11, [rsp + 8]"
    "mov r11, [rsp]"
    "iret_fast_end:"
    "mov [rip + ENTRY + 8], r11"
    "mov [rip + GATE + {URIP}], rcx"
    // An address inside a patched site goes on in the site's stub.
    "mov r11, rcx"
    "shr r11, 12"
    "xor r11, rcx"
    "and r11d, 4095"
    "shl r11d, 4"
    "lea rax, [rip + CONTINUE]"
    "add rax, r11"
    "cmp [rax], rcx"
    "cmove rcx, [rax + 8]"
    "mov [rip + ENTRY + 40], rcx"
    "mov rcx, [rip + GATE + {VCPU}]"
    "mov byte ptr [rcx + 1], 0"
    "mov [rip + ENTRY + 24], rdx"
    "mov rcx, [rip + GATE + {UFS}]"
    "wrfsbase rcx"
    "mov rcx, [rip + GATE + {UGS}]"
    "wrgsbase rcx"
    "mov qword ptr [rip + GATE + {USER_MODE}], 1"
    "mov r11, [rsp + 8]"
    "add rsp, 48"
    "popfq"
    "jmp user_entry_start"

    // ---- Signals. They start with only key 0 open. A frame is genuine if the
    // host wrote it: where it lies there is the restorer's address, which is taken
    // away at once. Timer and events wait while a handler runs; only a fault of the
    // monitor itself brings another.
    ".globl signal_entry, signal_restorer"
    "signal_entry:"
    "mov eax, 0"
    "mov ecx, 0"
    "mov edx, 0"
    "LOAD_KEYS"
    "mov rax, [rip + LOCAL + {FIRST}]"
    "mov r9, [rax]"
    "mov rcx, [rip + LOCAL + {NESTED}]"
    "jrcxz 4f"
    "5:"
    "mov qword ptr [rip + LOCAL + {NESTED}], 1"
    "mov qword ptr [rax], 0"
    "mov [rip + LOCAL + {LAST}], rsp"
    // The frame (struct rt_sigframe, asm/sigframe.h): return address, ucontext, siginfo.
    "lea rdx, [rsp + 8]"
    "lea rsi, [rsp + 312]"
    "mov edi, [rsi]"
    "cmp rax, rsp"
    "jne 6f"
    "mov r9d, 0"
    "6:"
    "push r9"
    "push rcx"
    // Alignment checks (AC) are the guest's.
    "push 2"
    "popfq"
    "sub rsp, 8"
    "call on_signal"
    "add rsp, 8"
    "mov rax, [rip + LOCAL + {FIRST}]"
    "pop qword ptr [rip + LOCAL + {NESTED}]"
    "pop qword ptr [rax]"
    "add rsp, 8"
    "jmp signal_restorer"
    "4:"
    "lea rcx, [rip + signal_restorer]"
    "cmp rcx, r9"
    "jne gate_refused"
    "mov ecx, 0"
    "jmp 5b"

    // ---- Signals where there are no keys. Frames are believed: in runners they are the
    // program's own, in the space no program runs.
    ".globl signal_entry_plain"
    "signal_entry_plain:"
    "push 2"
    "popfq"
    "sub rsp, 8"
    "call on_signal"
    "add rsp, 8"
    "test rax, rax"
    "jnz 3f"
    "ret"
    // A runner leaves without returning from the signal: it takes the vector state
    // from the frame. A low bit of its address (2) says that it is the program's.
    "3:"
    "mov r8, rax"
    "mov rdi, rax"
    "and rdi, -64"
    "mov eax, 0xfffffdff"
    "mov edx, 0xffffffff"
    "xrstor64 [rdi]"
    // Where there are keys nobody may come here; where there are none this is a NOP.
    ".globl plain_only"
    "plain_only:"
    "ud2"
    "test r8d, 2"
    "jnz runner_keep"
    "jmp runner_leave"
    "signal_restorer:"
    "mov eax, 15"
    "syscall"

    // ---- RDI = an XSAVE area: loads the vector state from it; RSI = the components.
    ".globl gate_restore_vector"
    "gate_restore_vector:"
    "mov qword ptr [rip + LOCAL + {RESTORING}], 1"
    "mov eax, esi"
    "and eax, {COMPONENTS}"
    "mov edx, 0"
    "xrstor64 [rdi]"
    "mov rcx, [rip + LOCAL + {RESTORING}]"
    "MUST_NOT_BE_ZERO"
    "mov qword ptr [rip + LOCAL + {RESTORING}], 0"
    "ret"

    "gates_end:"
    ".section .rodata.key_sites,\"a\",@progbits"
    ".globl key_sites_end"
    "key_sites_end:"
    ".text"
}
