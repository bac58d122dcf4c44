//! Virtual IDT and guest frames (arch-x86/xen.h, arch-x86/xen-x86_64.h).

/// `struct trap_info` (x86-64).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TrapInfo {
    /// Vector.
    pub vector: u8,
    /// Bits 0-1: privilege that may raise it by INT n; bit 2: mask events on entry.
    pub flags: u8,
    /// Code selector.
    pub cs: u16,
    /// Padding.
    pub pad: u32,
    /// Handler.
    pub address: u64,
}
const _: () = assert!(size_of::<TrapInfo>() == 16);

/// `struct iret_context`: what the guest kernel leaves on its stack for `HYPERVISOR_iret`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct IretContext {
    /// RAX.
    pub rax: u64,
    /// R11, loaded unless `flags` has [`IN_SYSCALL`].
    pub r11: u64,
    /// RCX, loaded unless `flags` has [`IN_SYSCALL`].
    pub rcx: u64,
    /// `VGCF_*`.
    pub flags: u64,
    /// RIP.
    pub rip: u64,
    /// CS.
    pub cs: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RSP.
    pub rsp: u64,
    /// SS.
    pub ss: u64,
}
const _: () = assert!(size_of::<IretContext>() == 72);

/// `VGCF_in_syscall`.
pub const IN_SYSCALL: u64 = 1 << 8;
/// `FLAT_KERNEL_CS64` with privilege 0 as frames show it to the kernel.
pub const KERNEL_CS: u64 = 0xe030;
/// `FLAT_RING3_CS64`: the kernel's own code segment.
pub const KERNEL_CS_RING3: u64 = 0xe033;
/// `FLAT_USER_CS64` (arch-x86/xen-x86_64.h): the same selector in a frame for user mode.
pub const FLAT_USER_CS64: u64 = 0xe033;
/// `FLAT_RING3_SS64` with privilege 0.
pub const KERNEL_SS: u64 = 0xe02b;
/// User code segment of Linux (64-bit).
pub const USER_CS: u64 = 0x33;
/// User stack segment of Linux.
pub const USER_SS: u64 = 0x2b;

/// `SEGBASE_FS`.
pub const SEGBASE_FS: u64 = 0;
/// `SEGBASE_GS_USER`.
pub const SEGBASE_GS_USER: u64 = 1;
/// `SEGBASE_GS_KERNEL`.
pub const SEGBASE_GS_KERNEL: u64 = 2;
/// `SEGBASE_GS_USER_SEL`.
pub const SEGBASE_GS_USER_SEL: u64 = 3;
