//! The public Xen interface as plain types: facts, no behaviour.
//!
//! Every constant and layout cites its public header (`xen/…` as installed by
//! `libxen-dev`). Sizes and offsets are asserted at compile time.
#![no_std]
#![forbid(unsafe_code)]

pub mod callback;
pub mod console;
pub mod errno;
pub mod event;
pub mod grant;
pub mod hypercall;
pub mod memory;
pub mod mmu;
pub mod physdev;
pub mod sched;
pub mod start;
pub mod trap;
pub mod vcpu;
pub mod version;
pub mod xenstore;

/// A domain number (xen.h `domid_t`).
pub type DomId = u16;
/// The caller's own domain (xen.h `DOMID_SELF`).
pub const DOMID_SELF: DomId = 0x7ff0;
