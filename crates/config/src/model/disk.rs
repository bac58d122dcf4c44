//! Virtual disks.

use std::fmt;

use serde::{Deserialize, Serialize};
use std::path::Path;

use super::vdev::Vdev;

/// A virtual disk, from an xm (`file:/x,xvda,w`) or xl
/// (`/x,raw,xvda,rw` or `key=value`) specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Image file, device or what else the backing needs; `None` is an empty drive.
    pub target: Option<String>,
    /// What kind of thing the target is.
    pub backing: DiskBacking,
    /// How its blocks are laid out.
    pub format: DiskFormat,
    /// Its name in the guest.
    pub vdev: Vdev,
    /// Reading and writing.
    pub access: DiskAccess,
    /// Disk or CD drive.
    pub device: DiskDevice,
    /// Driver domain that serves it, by name or number; `None` is Domain-0.
    pub backend: Option<String>,
    /// Hotplug script that finds the target (`block-nbd` and the like).
    pub script: Option<String>,
    /// Ring protocol for guests of another word size (`x86_32-abi`).
    pub protocol: Option<String>,
    /// Rarely used switches.
    pub options: DiskOptions,
}

impl Disk {
    /// Names the target by a path that is the same from every directory: device names stand for
    /// files in `/dev`, as xend took them.
    pub fn make_absolute(&mut self) {
        let Some(target) = self.target.as_ref().filter(|target| !target.starts_with('/')) else {
            return;
        };
        let path = match self.backing {
            DiskBacking::Phy => Ok(Path::new("/dev").join(target)),
            _ => std::path::absolute(target),
        };
        if let Ok(path) = path {
            self.target = Some(path.to_string_lossy().into_owned());
        }
    }
}

/// Rarely used switches of a disk; `None` leaves the choice to the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskOptions {
    /// `direct-io-safe`.
    pub direct_io_safe: bool,
    /// `discard` or `no-discard`.
    pub discard: Option<bool>,
    /// `trusted` or `untrusted`: whether the guest trusts the backend.
    pub trusted: Option<bool>,
    /// `specification=`.
    pub transport: Option<DiskTransport>,
    /// `backing=`: backing files of a qcow2 image, the nearest first. (Those that its header names
    /// are not opened: whoever can write the image could name any file.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backing_files: Vec<String>,
}

/// Declares an enum whose variants are words of the configuration language.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word used in configuration files.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The value called `word`.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }
        }
    };
}
pub(crate) use words;

words! {
    /// What kind of thing the target of a disk is.
    DiskBacking {
        /// Not said: look at the target.
        Auto = "auto",
        /// A block device (`phy:`).
        Phy = "phy",
        /// An image file through a loop device (`file:`).
        File = "file",
        /// An image file through blktap (`tap:`).
        Tap = "tap",
        /// An image file through a disk backend process.
        Qdisk = "qdisk",
        /// An image served by a program of its own.
        Standalone = "standalone",
    }
}

words! {
    /// How the blocks of a disk are laid out in its target.
    DiskFormat {
        /// One after the other.
        Raw = "raw",
        /// QEMU's old copy-on-write format.
        Qcow = "qcow",
        /// QEMU's copy-on-write format.
        Qcow2 = "qcow2",
        /// QEMU enhanced disk.
        Qed = "qed",
        /// Virtual PC.
        Vhd = "vhd",
        /// VMware.
        Vmdk = "vmdk",
        /// A blktap disk kept in memory.
        Ram = "ram",
    }
}

words! {
    /// Whether a disk may be written.
    DiskAccess {
        /// `r`: shared reading.
        ReadOnly = "r",
        /// `w`: exclusive reading and writing.
        ReadWrite = "w",
        /// `w!`: writing even if somebody else uses the disk.
        ForcedWrite = "w!",
    }
}

words! {
    /// What a disk looks like to the guest.
    DiskDevice {
        /// A fixed disk.
        Disk = "disk",
        /// A CD drive.
        Cdrom = "cdrom",
        /// A blktap device (the suffix `:tap` of xm).
        Tap = "tap",
    }
}

words! {
    /// Which device protocol a disk uses.
    DiskTransport {
        /// Xen blkif.
        Xen = "xen",
        /// virtio.
        Virtio = "virtio",
    }
}

impl Disk {
    /// The xm form, if it can say everything about this disk.
    fn xm_form(&self) -> Option<String> {
        let prefix = match (self.backing, self.format, &self.script) {
            (DiskBacking::Phy, DiskFormat::Raw, None) => "phy:",
            (DiskBacking::File, DiskFormat::Raw, None) => "file:",
            _ => return None,
        };
        let target = self.target.as_deref()?;
        let device = match self.device {
            DiskDevice::Disk => String::new(),
            other => format!(":{}", other.as_str()),
        };
        let mut text = format!("{prefix}{target},{}{device},{}", self.vdev, self.access.as_str());
        for piece in [&self.backend, &self.protocol].into_iter().flatten() {
            text.push(',');
            text.push_str(piece);
        }
        // Its pieces stand without keys: a comma in the path, a backend called `cdrom` or options
        // that have no place there would be read as something else.
        (Self::parse(&text).as_ref() == Ok(self)).then_some(text)
    }
}

impl fmt::Display for Disk {
    /// A specification that reads back as the same disk: the xm form where
    /// that can say it, else `key=value`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = self.xm_form() {
            return f.write_str(&text);
        }
        write!(f, "format={},vdev={}", self.format.as_str(), self.vdev)?;
        write!(f, ",access={},devtype={}", self.access.as_str(), self.device.as_str())?;
        if self.backing != DiskBacking::Auto {
            write!(f, ",backendtype={}", self.backing.as_str())?;
        }
        let texts =
            [("backend", &self.backend), ("script", &self.script), ("protocol", &self.protocol)];
        for (key, value) in texts {
            if let Some(value) = value {
                write!(f, ",{key}={value}")?;
            }
        }
        let DiskOptions { direct_io_safe, discard, trusted, transport, backing_files } =
            &self.options;
        let flags = [
            (*direct_io_safe, "direct-io-safe"),
            (*discard == Some(true), "discard"),
            (*discard == Some(false), "no-discard"),
            (*trusted == Some(true), "trusted"),
            (*trusted == Some(false), "untrusted"),
        ];
        for (_, word) in flags.into_iter().filter(|(set, _)| *set) {
            write!(f, ",{word}")?;
        }
        if let Some(transport) = transport {
            write!(f, ",specification={}", transport.as_str())?;
        }
        for path in backing_files {
            write!(f, ",backing={path}")?;
        }
        self.target.iter().try_for_each(|target| write!(f, ",target={target}"))
    }
}
