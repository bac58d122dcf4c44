//! Disks: the back end of blkif.
//!
//! Two halves that never meet in one process. The *opening* half ([`open`], [`lock`]) belongs to the
//! domain process: it knows names, takes locks, and hands out descriptors. The *serving* half
//! ([`serve`] and the rest) is the process `xenblock`, which has these descriptors, the guest's
//! memory, and nothing else.
//!
//! A request goes through: `protocol` (its form), `queue` (its ring, its grants), `task` (what it
//! needs, checked), `device` (what becomes of it), `engine` (who waits for the host), `image` (what
//! that does). `in_flight` remembers it for the case that the process dies.

mod buffers;
mod device;
mod engine;
mod header;
mod image;
mod in_flight;
pub mod lock;
mod nodes;
pub mod open;
mod protocol;
mod queue;
mod rules;
mod serve;
mod server;
mod strikes;
mod task;
mod tasks;

pub use engine::Means;
pub use in_flight::in_flight_file;
pub use open::{OpenError, Opened, open};
pub use serve::serve;
pub use server::Server;
