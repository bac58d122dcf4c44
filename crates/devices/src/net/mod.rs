//! The network backend: serves the guest's network interfaces (netif.h).
//!
//! One process serves all interfaces of a domain in one loop ([`Server`]): packets of the guest's go
//! from its pages to the link, packets of the link into pages that the guest offered. Whatever needs
//! rights or names on the host happened before ([`setup`], in the domain process); the backend itself
//! runs behind walls ([`crate::jail`]).
//!
//! Responses are given in the order of requests, so nothing needs to be remembered by a backend that
//! comes after one that crashed: it takes up the rings where they are.

mod antispoof;
mod checksum;
mod device;
mod frontend;
#[allow(unsafe_code)]
mod gather;
mod headers;
#[allow(unsafe_code)]
mod ioctl;
#[allow(unsafe_code)]
mod link;
mod netif;
mod question;
mod queue;
mod rate;
mod receive;
mod rules;
mod server;
pub mod setup;
mod spoofs;
mod subnet;
mod transmit;

pub use server::Server;
pub use subnet::Subnet;
