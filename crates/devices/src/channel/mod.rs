//! The backend of channels: consoles of a guest besides its first (console.h, `docs/misc/channel.txt`
//! of Xen).
//!
//! One process serves all channels of a domain in one loop ([`Server`]). Those of its configuration lead
//! bytes to a socket or a terminal (`stream`). Over one more the tools reach the guest's agent: each has
//! a socket of packets that the domain process handed over, and is a session on the channel
//! (`sessions`). What the guest sends is always taken at once: a Linux guest stands still when its
//! console's ring is full. So what waits for one who does not read is bounded: a session that goes
//! beyond ends, a stream loses its oldest bytes. What the guest may lose is kept until its agent has it
//! (`outbox`).

mod client;
mod link;
mod outbox;
mod ring;
mod rules;
mod server;
mod sessions;
mod stream;

pub use ring::Frontend;
pub use server::Server;
pub use sessions::Sessions;
