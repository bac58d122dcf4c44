//! Domain configuration files in xm and xl syntax.
//!
//! ```text
//! kernel = "/boot/vmlinuz"
//! memory = 128
//! name = "serv1"
//! vif = ['bridge=xenbr0']
//! disk = ['file:/usr/local/serv1.ext3,ioemu:sda1,w']
//! root = "/dev/sda1 ro"
//! ```
//!
//! [`load`] finds and reads such a file and gives a typed [`DomainConfig`],
//! warnings, and the list of keys that have no effect yet ([`Pending`]).
//!
//! Three layers, each ignorant of the next:
//! * `syntax` turns text into statements,
//! * `eval` runs them and leaves names and values,
//! * `read` checks the values against what the keys mean.
//!
//! xm ran its files as Python programs. Here the part of Python that people
//! use to write values is understood (variables, lists, arithmetic, `%`,
//! `if`); anything that would need an interpreter is refused with its place.
//! Files are hostile input: their size, nesting and the work they cause are
//! bounded, and nothing in them reaches a terminal unfiltered.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod diagnostic;
mod error;
mod eval;
mod host;
mod keys;
mod load;
mod model;
mod pending;
mod print_sxp;
mod print_xm;
mod read;
mod source;
mod sxp;
mod syntax;

pub use diagnostic::{Diagnostic, Level, Place};
pub use error::{Error, MAX_FILE_BYTES, SpecError};
pub use host::{
    HOST_VARIABLE, HostConfig, HostDaemon, HostLog, HostMemory, HostNetwork, LogFormat, LogLevel,
    Migrated, UnknownWord,
};
pub use load::{LoadOptions, Loaded, load, parse_str};
pub use model::{
    AccessControl, Action, Affinity, Boot, BootNetwork, Bootloader, Channel, Connection, CpuItem,
    CpuList, CpuidMask, Cpus, Devices, Disk, DiskAccess, DiskBacking, DiskDevice, DiskFormat,
    DiskOptions, DiskTransport, DomainConfig, Events, General, MAX_COMMAND_LINE, MAX_NAME, Mac,
    Memory, PciDevice, PortForward, Protocol, Rate, Scheduling, Uuid, Vdev, VdevError, Vif,
    VifKind, VifLink, check_name, vbd_number,
};
pub use pending::Pending;
pub use sxp::Sxp;
