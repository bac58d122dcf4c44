//! Console ring (io/console.h) and emergency console (xen.h `CONSOLEIO_*`).

/// `CONSOLEIO_write`.
pub const IO_WRITE: u64 = 0;
/// `CONSOLEIO_read`.
pub const IO_READ: u64 = 1;

/// `struct xencons_interface`: one page of guest memory.
#[repr(C)]
pub struct Interface {
    /// Bytes to the guest.
    pub input: [u8; 1024],
    /// Bytes from the guest.
    pub output: [u8; 2048],
    /// Consumer index of `input` (guest).
    pub in_cons: u32,
    /// Producer index of `input` (backend).
    pub in_prod: u32,
    /// Consumer index of `output` (backend).
    pub out_cons: u32,
    /// Producer index of `output` (guest).
    pub out_prod: u32,
}
const _: () = assert!(core::mem::offset_of!(Interface, in_cons) == 3072);
