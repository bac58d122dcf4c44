//! How the tools talk to domain processes: run-time directory and control protocol.
//!
//! Each domain is served by one `xendomain` process. It owns one directory below
//! the run-time directory, holds a lock there for as long as it lives, and listens
//! on a Unix socket. This is the truth about what runs: the daemon reads the
//! directory ([`Registry`]) and connects to the socket; tools get connections ([`Client`]) from the daemon.
//!
//! ```text
//! RUNTIME/lock                     held while the registry changes
//! RUNTIME/next-domid               the next domain number
//! RUNTIME/domains/DOMID/lock       held by xendomain for its life
//! RUNTIME/domains/DOMID/info.json  name, UUID, process id ([`Entry`])
//! RUNTIME/domains/DOMID/control.sock
//! RUNTIME/xenstored/               the store that all domains share, see [`xenstore`]
//! STATE/NAME.log                   what xendomain did
//! STATE/NAME.DOMID.crash           crash reports
//! ```
//!
//! Architecture invariant: this crate knows nothing of guest memory or of how a
//! domain is built.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod client;
mod descriptor;
mod dirs;
mod entry;
mod error;
mod image;
mod kill;
mod launch;
mod line;
mod log;
mod probe;
mod protocol;
mod registry;
mod scope;
mod socket;
mod stats;
mod unnamed;
mod uuid;
pub mod xenstore;

pub use client::{Client, ClientError, Console};
pub use descriptor::{receive_with, send_with};
pub use dirs::{Dirs, RUNTIME_VARIABLE, STATE_VARIABLE};
pub use entry::Entry;
pub use error::{Hint, PathError};
pub use image::{MemoryImage, Registers};
pub use kill::kill;
pub use kill_point::{DIE_VARIABLE, kill_point, kill_point_of};
pub use launch::{CreateSpec, LaunchError, StartReply, Started, find_program, launch};
pub use line::{LineError, LineReader, write_line};
pub use log::{FORMAT_VARIABLE, LEVEL_VARIABLE, Line, Log, Record, tail, utc};
pub use probe::{PROBE_ARGUMENT, Probe, WallProbe, probe};
pub use protocol::{
    CrashSummary, DeviceSpec, DiskSize, DomainInfo, Ended, EndedAs, ErrorCode, Failure, MAX_REPLY,
    MAX_REQUEST, Request, Response, ShutdownKind, ShutdownReason, StateFlags, WaitUntil,
};
pub use registry::{Registration, Registry, RegistryError, check_name};
pub use scope::{SLICE_VARIABLE, in_scope};
pub use socket::{bind, bind_for_owner, connect, connect_now, peer_allowed};
pub use stats::{DeviceStats, DomainStats, VcpuStats};
pub use unnamed::{name_file, unnamed_file};
pub use uuid::{Uuid, UuidError};
