//! The backend of channels: consoles of a guest besides its first (console.h, `docs/misc/channel.txt`
//! of Xen), over which the tools reach the guest's agent.
//!
//! One process serves a domain's channel in one loop ([`Server`]). Its clients are tools, each with a
//! socket of packets that the domain process handed over; each is a session on the channel. What the
//! guest sends is always taken at once: a Linux guest stands still when its console's ring is full.
//! So what waits for a client that does not read is bounded, and a session that goes beyond ends.

mod client;
mod link;
mod ring;
mod rules;
mod server;
mod sessions;

pub use ring::Frontend;
pub use server::Server;
pub use sessions::Sessions;
