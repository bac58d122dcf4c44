//! The control daemon.
//!
//! A domain is a process of its own with its own control socket and its place in the registry of
//! running domains ([`control::Registry`]): these are the truth about what runs, with or without
//! a daemon. `xend` adds what needs one place: the programming interface, stored domains, events,
//! the accounting of memory, and the history of ends. It can be killed at any point and started
//! again; it then finds the domains by their registry and sockets.
//!
//! Architecture invariant: nothing that a running domain needs is in this process. No guest
//! memory, no descriptor of a guest, no byte of a console passes through it.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod adopt;
mod daemon;
mod devices;
mod events;
mod hand_over;
mod inside;
mod journal;
mod launch;
mod look;
mod managed;
mod memory;
mod metrics;
mod notice;
mod orders;
mod own_socket;
mod refusal;
mod register;
mod rename;
mod routes;
mod serve;
mod systemd;
mod talk;

pub use daemon::{Daemon, StartError};
pub use own_socket::OwnSocket;
pub use routes::openapi;
pub use serve::{End, serve};
pub use systemd::{activated, notify};
