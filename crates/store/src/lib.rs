//! xenstore: the tree of small configuration values that a Xen host shares with its domains.
//!
//! A [`Store`] holds the nodes, their permissions, the watches and the open transactions. It does
//! no input or output of its own and has no clock and no randomness: the same calls in the same
//! order give the same bytes. A domain process can embed it; a daemon can serve it to many clients.
//!
//! * [`Store`] offers the host side (domain 0) direct calls: `read`, `write`, `rm`, `list`,
//!   `watch`, `next_event`.
//! * A [`Connection`] speaks the wire protocol of `xen/include/public/io/xs_wire.h` for one client:
//!   bytes in, bytes out.
//! * A [`ring::Ring`] carries a connection over the shared page of a domain
//!   (`struct xenstore_domain_interface`). The caller supplies the access to the page through
//!   [`ring::SharedPage`], so this crate needs no unsafe code.
//! * What a store needs to go on after its process was started anew is its *journal*
//!   ([`Store::keep_journal`], [`Store::restore`]). A [`Link`] and a [`Relay`] are the two ends of
//!   the connection between the store's process and a domain's: the domain does not notice that
//!   the store was started anew.
//!
//! Everything that arrives over a connection or a ring is treated as hostile: it is copied once,
//! checked, bounded by a [`Quota`], and then used.
//!
//! # How transactions stay serialisable
//!
//! Nodes are shared, copy-on-write values, so a transaction starts by cloning one pointer. It works
//! on its own view and notes what it depends on: the content or the child list of a node, or the
//! absence of one. On commit these facts are compared with the current tree. If all still hold,
//! the changes are applied again to the current tree; otherwise the client gets `EAGAIN`.
//! Transactions that only read never conflict, and two that add different children to one
//! directory do not disturb each other.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod admin;
mod client;
mod codec;
mod connection;
mod domains;
mod error;
mod events;
mod frame;
mod host;
mod link;
mod owned;
mod path;
mod permissions;
mod quota;
mod recent;
mod record;
mod relay;
mod requests;
mod restore;
pub mod ring;
mod rules;
mod store;
mod transaction;
mod tree;
mod watch;
pub mod wire;

pub use connection::{Connection, ConnectionError, OnStore};
pub use domains::{FIRST_RESERVED_DOMID, IntroducedDomain};
pub use error::{Errno, StoreError};
pub use frame::Peer;
pub use host::NodeRecord;
pub use link::{Link, LinkError};
pub use path::{MAX_ABSOLUTE_PATH, MAX_RELATIVE_PATH, Path, PathError};
pub use permissions::{Access, Caller, Domid, Permission, Permissions, Rights};
pub use quota::Quota;
pub use relay::{Relay, RelayError};
pub use restore::Restored;
pub use store::Store;
pub use watch::WatchEvent;
