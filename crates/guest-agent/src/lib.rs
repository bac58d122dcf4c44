//! The guest's side of `xm exec` and `xm cp`, and what both sides of the channel must agree on.
//!
//! A *channel* is a second PV console of the guest: a stream of bytes each way. On it run *sessions*,
//! one for each command or copy. Each side takes the other for hostile.
//!
//! ```text
//!  xm --- packets --- xenchannel --- frames on the console ring --- /dev/hvc1 --- xenguest
//! ```
//!
//! [`frame`] is how frames are found in the stream, [`message`] what they say, [`request`] what a
//! session is asked to do, [`tree`] how files travel, [`place`] where they are put.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod agent;
pub mod frame;
pub mod message;
pub mod place;
pub mod request;
pub mod tree;

/// The name of the channel, in the nodes of its device.
pub const CHANNEL: &str = "org.xenolith.guest";
/// The number of its device among the guest's consoles (`device/console/N`): behind those of the
/// domain's configuration, since Linux counts consoles as they come, and this one may come late; and
/// the last of the eight that Linux has (hvc_console.h, `HVC_ALLOC_TTY_ADAPTERS`).
pub const DEVICE: u32 = 7;
/// Which language is spoken; both sides say theirs.
pub const VERSION: u8 = 2;
/// Bytes that either side of a session may send ahead of what the other has taken.
pub const WINDOW: u32 = 256 << 10;
/// The number of the first counted frame after the host was greeted.
pub const FIRST: u16 = 1;
/// Data in one frame: small, so that sessions take turns.
pub const CHUNK: usize = 4 << 10;

/// Exit codes of `xm exec` for what is not the command's own, as `docker exec` has them.
pub mod exit {
    /// The channel or the guest's agent is at fault.
    pub const FAULT: u8 = 125;
    /// The command cannot be executed.
    pub const NOT_EXECUTABLE: u8 = 126;
    /// There is no such command.
    pub const NOT_FOUND: u8 = 127;
}
