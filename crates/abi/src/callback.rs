//! Callback registration (callback.h).

/// `CALLBACKOP_register`.
pub const OP_REGISTER: u64 = 0;
/// `CALLBACKOP_unregister`.
pub const OP_UNREGISTER: u64 = 1;
/// `CALLBACKTYPE_event`.
pub const TYPE_EVENT: u16 = 0;
/// `CALLBACKTYPE_failsafe`.
pub const TYPE_FAILSAFE: u16 = 1;
/// `CALLBACKTYPE_syscall` (64-bit).
pub const TYPE_SYSCALL: u16 = 2;
/// `CALLBACKTYPE_nmi`.
pub const TYPE_NMI: u16 = 4;
/// `CALLBACKTYPE_sysenter`.
pub const TYPE_SYSENTER: u16 = 5;
/// `CALLBACKTYPE_syscall32`.
pub const TYPE_SYSCALL32: u16 = 7;
/// `CALLBACKF_mask_events`: mask events before entering the callback.
pub const FLAG_MASK_EVENTS: u16 = 1;

/// `callback_register_t` (x86-64).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Register {
    /// `CALLBACKTYPE_*`.
    pub kind: u16,
    /// `CALLBACKF_*`.
    pub flags: u16,
    /// Padding.
    pub pad: u32,
    /// Handler.
    pub address: u64,
}
const _: () = assert!(size_of::<Register>() == 16);
