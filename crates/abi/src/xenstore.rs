//! xenstore ring (io/xs_wire.h `struct xenstore_domain_interface`).

/// One page of guest memory.
#[repr(C)]
pub struct Interface {
    /// Requests from the guest.
    pub requests: [u8; 1024],
    /// Replies and events to the guest.
    pub replies: [u8; 1024],
    /// Consumer index of `requests`.
    pub req_cons: u32,
    /// Producer index of `requests`.
    pub req_prod: u32,
    /// Consumer index of `replies`.
    pub rsp_cons: u32,
    /// Producer index of `replies`.
    pub rsp_prod: u32,
    /// Features of the server.
    pub server_features: u32,
    /// Connection state.
    pub connection: u32,
    /// Error code.
    pub error: u32,
}
const _: () = assert!(core::mem::offset_of!(Interface, req_cons) == 2048);
const _: () = assert!(core::mem::offset_of!(Interface, error) == 2072);
