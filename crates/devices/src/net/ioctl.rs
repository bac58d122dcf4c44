//! Requests to taps (linux/if_tun.h).

use std::ffi::{CStr, CString, c_int, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// `TUNSETIFF`.
const SET_INTERFACE: c_ulong = 0x4004_54ca;
/// `TUNSETOFFLOAD`.
pub const SET_OFFLOADS: c_ulong = 0x4004_54d0;
/// `TUNSETVNETHDRSZ`.
const SET_HEADER_SIZE: c_ulong = 0x4004_54d8;

/// What packets a tap may hand out (`TUN_F_CSUM`, `_TSO4`, `_TSO6`, `_TSO_ECN`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads(c_ulong);

impl Offloads {
    /// With blank checksums; TCP yet to be cut into segments, over IPv4, over IPv6.
    pub fn new(blank: bool, gso4: bool, gso6: bool) -> Self {
        let bits = [(true, 1), (gso4, 2), (gso6, 4), (gso4 || gso6, 8)];
        let flags = bits.iter().filter(|(yes, _)| blank && *yes).map(|(_, bit)| bit).sum();
        Self(flags)
    }
}

/// Says what packets a tap may hand out.
///
/// # Errors
/// When the descriptor is no tap.
pub fn set_offloads(tap: impl AsFd, offloads: Offloads) -> io::Result<()> {
    // SAFETY: the argument of this request is a number.
    check(unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), SET_OFFLOADS, offloads.0) })
}

/// Makes the descriptor of `/dev/net/tun` a tap of this name, with headers of offloads.
///
/// # Errors
/// As the system says: `PermissionDenied`, `ResourceBusy` if something else has the name.
pub fn make_tap(tun: BorrowedFd<'_>, name: &CStr) -> io::Result<CString> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    // SAFETY: bytes may all be 0.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let bytes = name.to_bytes();
    if bytes.is_empty() || bytes.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(bytes) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap_or_default();
    // SAFETY: the argument of this request is such a structure, which it changes.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), SET_INTERFACE, &raw mut request) })?;
    let size: c_int = 10;
    // SAFETY: the argument of this request is an int, which it reads.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), SET_HEADER_SIZE, &raw const size) })?;
    let name: Vec<u8> =
        request.ifr_name.iter().map(|byte| byte.cast_unsigned()).take_while(|b| *b != 0).collect();
    CString::new(name).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
