//! Device backends: the other side of a guest's disks and network interfaces.
//!
//! A domain has a process for its disks (`xenblock`), one for its network interfaces (`xennet`) and
//! one for its channels (`xenchannel`), each made with its first device. They hold the guest's memory, what the devices need (open
//! images, taps), and nothing else: no file system, no network, few system calls. The domain
//! process does all that takes rights or names: it opens images, makes taps, and speaks with the
//! guest through xenstore; it gives orders over a socket ([`wire`]).
//!
//! Everything in guest memory is hostile: it is copied once, checked, then used.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod block;
pub mod channel;
pub mod guest;
pub mod jail;
pub mod net;
pub mod ring;
mod root;
pub mod start;
#[doc(hidden)]
pub mod testing;
pub mod wire;
