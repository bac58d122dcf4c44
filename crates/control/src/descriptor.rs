//! Descriptors that travel with bytes over a Unix socket (`SCM_RIGHTS`, unix(7)).

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

/// Sends bytes, the first of which brings a descriptor along; how many went.
///
/// # Errors
/// As `sendmsg(2)`.
pub fn send_with(socket: impl AsFd, bytes: &[u8], file: impl AsFd) -> io::Result<usize> {
    let fds = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    with.push(SendAncillaryMessage::ScmRights(&fds));
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut with, SendFlags::NOSIGNAL)?)
}

/// Receives bytes (none at the end of the stream), and the descriptor that came with them.
///
/// # Errors
/// As `recvmsg(2)`.
pub fn receive_with(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut with, flags)?;
    let mut file = None;
    for message in with.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            file = rights.last().or(file);
        }
    }
    Ok((got.bytes, file))
}
