//! Devices whose files are open, before a backend serves them.

use devices::wire::{DeviceConfig, Nodes};
use std::any::Any;
use std::fmt;
use std::os::fd::OwnedFd;

/// Kinds of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Disks.
    Vbd,
    /// Network interfaces.
    Vif,
    /// Channels: consoles besides the first.
    Channel,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Vbd, Self::Vif, Self::Channel];

    /// Its directory in xenstore.
    pub fn word(self) -> &'static str {
        match self {
            Self::Vbd => "vbd",
            Self::Vif => "vif",
            Self::Channel => "console",
        }
    }

    /// The class of this name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.word() == word)
    }

    /// The process that serves it.
    pub fn backend(self) -> boundary::Backend {
        match self {
            Self::Vbd => boundary::Backend::Block,
            Self::Vif => boundary::Backend::Net,
            Self::Channel => boundary::Backend::Channel,
        }
    }
}

/// A device's name within a domain.
pub type Key = (Class, u32);

/// What is needed as long as a device is there, apart from its files: a helper process, a lock.
pub trait Support: Any + Send + fmt::Debug {
    /// What a backend that follows one that crashed is given in place of the files, if these
    /// cannot be used again.
    ///
    /// # Errors
    /// When it cannot be had.
    fn renew(&mut self) -> std::io::Result<Option<Vec<OwnedFd>>> {
        Ok(None)
    }
}

/// A device whose files are open.
#[derive(Debug)]
pub struct Opened {
    /// Its kind.
    pub class: Class,
    /// Its number in xenstore.
    pub number: u32,
    /// Its name for people: `xvda`, `vif 0`.
    pub name: String,
    /// What its backend is told.
    pub config: DeviceConfig,
    /// What its backend is given.
    pub files: Vec<OwnedFd>,
    /// Nodes of the frontend's directory, besides the usual ones.
    pub frontend: Nodes,
    /// Nodes of the backend's directory, besides the usual ones.
    pub backend: Nodes,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// What has to live as long as the device.
    pub support: Box<dyn Support>,
}
