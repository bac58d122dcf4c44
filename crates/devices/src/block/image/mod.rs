//! Disk images, by descriptors that somebody else opened.

mod qcow2;
mod raw;
mod storage;

pub use qcow2::{Qcow2Image, claimed_size};
pub use raw::{RawImage, ioctl};

use super::buffers::Buffers;
use super::strikes::Strikes;
use crate::wire::{BlockConfig, BlockFormat};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Dimensions of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size.
    pub bytes: u64,
    /// Bytes of the smallest piece that can be read or written.
    pub sector_size: u32,
    /// Bytes of the smallest piece that is written without reading around it.
    pub physical_sector_size: u32,
    /// Bytes of the smallest piece that can be discarded.
    pub discard_granularity: u32,
}

/// What is done to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Image to memory.
    Read,
    /// Memory to image.
    Write,
    /// All that was written goes to the medium.
    Flush,
    /// The content is no longer needed; it reads as zeros or as before.
    Discard {
        /// How much of it.
        bytes: u64,
    },
    /// The image becomes longer; it is as it was if that fails.
    Grow {
        /// How long.
        bytes: u64,
    },
}

/// An image.
#[derive(Clone, Debug)]
pub enum Image {
    /// Bytes as they are.
    Raw(Arc<RawImage>),
    /// qcow2, with its backing files.
    Qcow2(Arc<Qcow2Image>),
    /// qcow2 that is not to be touched any more: nothing but errors, as on a disk that broke.
    Condemned(Geometry),
}

impl Image {
    /// Takes over the files of an image: itself, then its backing files, the nearest first.
    ///
    /// # Errors
    /// A sentence on what is wrong with them.
    pub fn open(
        config: &BlockConfig,
        files: Vec<OwnedFd>,
        strikes: Strikes,
    ) -> Result<Self, String> {
        if files.len() != config.backing.len() + 1 {
            let (got, wanted) = (files.len(), config.backing.len() + 1);
            return Err(format!("{got} files came with the disk, {wanted} are named"));
        }
        let mut files = files.into_iter();
        let first = files.next().ok_or("no file came with the disk")?;
        match config.format {
            BlockFormat::Raw if !config.backing.is_empty() => {
                Err("a raw image has no backing files".into())
            }
            BlockFormat::Raw => RawImage::open(first)
                .map(|image| Self::Raw(Arc::new(image)))
                .map_err(|error| format!("the image cannot be used: {error}")),
            BlockFormat::Qcow2 if strikes.are_too_many() => {
                Ok(Self::Condemned(qcow2::geometry(claimed_size(&first))))
            }
            BlockFormat::Qcow2 => {
                let backing = config.backing.iter().copied().zip(files).collect();
                Qcow2Image::open(first, config.writable, backing, strikes)
                    .map(|image| Self::Qcow2(Arc::new(image)))
            }
        }
    }

    /// Its dimensions.
    pub fn geometry(&self) -> Geometry {
        match self {
            Self::Raw(image) => image.geometry(),
            Self::Qcow2(image) => image.geometry(),
            Self::Condemned(geometry) => *geometry,
        }
    }

    /// Looks at its size again.
    ///
    /// # Errors
    /// When the host does not tell it.
    pub fn refresh(&self) -> io::Result<()> {
        match self {
            Self::Raw(image) => image.refresh(),
            // Its size is in its header, which nobody but us writes while it is in use.
            Self::Qcow2(_) | Self::Condemned(_) => Ok(()),
        }
    }

    /// Does it now, which may take long.
    ///
    /// # Errors
    /// Those of the host; `UnexpectedEof` when the image is shorter than it was.
    pub fn run(&self, operation: Operation, offset: u64, buffers: &Buffers) -> io::Result<()> {
        match self {
            Self::Raw(image) => image.run(operation, offset, buffers),
            Self::Qcow2(image) => image.run(operation, offset, buffers),
            Self::Condemned(_) => Err(io::Error::other("the image made its backend die")),
        }
    }
}

/// True if it failed only because the host has no room for more.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
