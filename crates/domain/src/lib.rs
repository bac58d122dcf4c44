//! The domain process: builder, jail, backends, life cycle.
//!
//! One `xendomain` process serves one domain. It lays the guest out in memory
//! ([`builder`]), starts the first space in its jail ([`space`]), and is the
//! backend of the guest's console and xenstore.
//!
//! Architecture invariants: everything in memory that spaces share is hostile
//! input, read only through [`sys::memory`]; unsafe code lives in [`sys`] alone.
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod builder;
pub mod console;
pub mod devices;
mod file;
pub mod instance;
pub mod isolation;
pub mod life;
pub mod probe;
mod processor;
pub mod server;
pub mod space;
pub mod spec;
pub mod sys;
pub mod xenstore;
