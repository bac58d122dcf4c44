//! The programming interface of `xend`: HTTP and JSON on a Unix socket.
//!
//! [`types`] is what travels, the same for both sides and the source of `docs/openapi.json`.
//! [`Daemon`] is the tools' side: it starts the daemon when it does not run, and asks again when
//! it was killed while it answered.
//!
//! ```text
//! RUNTIME/xend/socket      where it listens
//! RUNTIME/xend/lock        held by xend for its life; holds its process id
//! RUNTIME/xend/start.lock  held while it starts or ends
//! STATE/xend.log           what it did
//! ```
//!
//! Architecture invariant: knows nothing of how the daemon keeps its state.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod client;
mod error;
mod http;
mod inside;
mod order;
mod place;
pub mod types;

pub use client::{Daemon, Events, Pending};
pub use error::Error;
pub use http::percent_encoded;
pub use order::Order;
pub use place::{ENDED, Place, READY, ReachError, SERVED};
