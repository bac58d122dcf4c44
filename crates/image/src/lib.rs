//! Builds what a domain boots from: a root file system, the kernel and initramfs of its
//! distribution, swap space and the configuration file that ties them together.
//!
//! ```text
//! DIR/serv1.cfg       for xm create
//! DIR/vmlinuz         the distribution's kernel, which boots from the host's file
//! DIR/initrd.img      with the drivers of Xen's disks and network
//! DIR/disk.img        ext4, sparse
//! DIR/swap.img        only with a swap size
//! DIR/serv1.password  root's password, if it was made up here
//! ```
//!
//! How it is done, and why so:
//!
//! * `mmdebstrap` installs the packages and writes the tree as a tar archive; that form, and not
//!   a directory, since only there every mode of it keeps owners and links right (under
//!   fakechroot absolute links in the directory point into the host).
//! * `mke2fs -d` makes the file system from a directory (from an archive only since 1.47.1, and
//!   not in every build), so the archive is unpacked first. Nothing is mounted and no loop device
//!   is used.
//! * Owners other than the user's need more than an ordinary user has. In order of preference
//!   ([`mod@confine`]): root; a user namespace with the ids that `/etc/subuid` grants; an
//!   imagined root by `fakechroot` and `fakeroot`. The same words run both steps, so what the
//!   first makes the second sees with the same owners.
//! * Both run in a process namespace of their own whose first process dies with `xm`, however
//!   that ends; mounts inside are in a mount namespace that goes with it.
//! * All work happens in a directory beside `DIR` and is renamed at the end ([`mod@staging`]); one
//!   that a killed build left is removed by the next.
//! * What is put into the tree goes through `tar` inside it, never by a path from outside: a link
//!   in a package cannot lead a write to a file of the host.
//!
//! Architecture invariant: nothing here knows how a domain runs; the result is files.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod build;
mod command;
mod complaint;
mod confine;
mod error;
mod files;
mod mirror;
mod names;
mod order;
mod release;
mod size;
mod staging;
mod tools;

pub use build::{Built, Stage, Watcher, build};
pub use error::Error;
pub use order::{Options, Order};
pub use release::{Distribution, RELEASES, Release};
pub use size::Size;
