//! qcow2 images, by the crate imago.

use super::storage::OpenFile;
use super::{Geometry, Operation};
use crate::block::buffers::Buffers;
use crate::block::strikes::Strikes;
use crate::wire::BlockFormat;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock};

/// Sectors as every guest can use them.
const SECTOR: u32 = 512;
/// What file systems write as a whole.
const BLOCK: u32 = 4096;
/// Discards of less free no cluster of the usual size.
const CLUSTER: u32 = 65536;

/// A qcow2 image. (Its functions may wait for the host's disk: they are for threads of their own.)
#[derive(Debug)]
pub struct Qcow2Image {
    /// Locked for writing by discards, which must not meet a read of what they free.
    image: RwLock<FormatAccess<OpenFile>>,
    bytes: u64,
    strikes: Strikes,
}

impl Qcow2Image {
    /// Takes over an image and its backing files, the nearest first. Names of files in its header
    /// open nothing.
    pub fn open(
        image: OwnedFd,
        writable: bool,
        backing: Vec<(BlockFormat, OwnedFd)>,
        strikes: Strikes,
    ) -> Result<Self, String> {
        let image = strikes.at_work(|| Self::open_layers(image, writable, backing))?;
        let bytes = image.size();
        Ok(Self { bytes: bytes - bytes % u64::from(SECTOR), image: RwLock::new(image), strikes })
    }

    fn open_layers(
        image: OwnedFd,
        writable: bool,
        backing: Vec<(BlockFormat, OwnedFd)>,
    ) -> Result<FormatAccess<OpenFile>, String> {
        let mut below: Option<Arc<FormatAccess<OpenFile>>> = None;
        let count = backing.len();
        for (number, (format, file)) in backing.into_iter().enumerate().rev() {
            let is_last = number + 1 == count;
            let layer = match format {
                BlockFormat::Raw if is_last => {
                    let file = OpenFile::new(file).map_err(|error| bad(number + 1, &error))?;
                    Raw::builder(file).open(DenyImplicitOpenGate::default()).map(FormatAccess::new)
                }
                BlockFormat::Raw => {
                    return Err(format!("backing file {} is raw, yet not the last", number + 1));
                }
                BlockFormat::Qcow2 => layer(file, false, below.take()),
            };
            below = Some(Arc::new(layer.map_err(|error| bad(number + 1, &error))?));
        }
        layer(image, writable, below).map_err(|error| format!("the image cannot be used: {error}"))
    }

    /// Its dimensions.
    pub fn geometry(&self) -> Geometry {
        geometry(self.bytes)
    }

    /// See [`super::Image::run`].
    pub fn run(&self, operation: Operation, offset: u64, buffers: &Buffers) -> io::Result<()> {
        self.strikes.at_work(|| self.run_now(operation, offset, buffers))
    }

    fn run_now(&self, operation: Operation, offset: u64, buffers: &Buffers) -> io::Result<()> {
        let image = || self.image.read().unwrap_or_else(PoisonError::into_inner);
        match operation {
            Operation::Read => {
                let mut bytes = vec![0; buffers.len()];
                image().read(bytes.as_mut_slice(), offset)?;
                buffers.copy_in(&bytes);
                Ok(())
            }
            Operation::Write => {
                // A copy: the guest must not change what is compared or compressed meanwhile.
                let bytes = buffers.copy_out();
                let image = image();
                image.write(bytes.as_slice(), offset)?;
                // Tables go to the file before the guest hears of it: what was answered must be there
                // for the next process if this one is killed.
                image.flush()
            }
            Operation::Flush => {
                let image = image();
                image.flush()?;
                image.sync()
            }
            Operation::Discard { bytes } => {
                let mut image = self.image.write().unwrap_or_else(PoisonError::into_inner);
                image.discard_to_zero(offset, bytes)?;
                image.flush()
            }
        }
    }
}

/// The dimensions of an image of this size.
pub(super) fn geometry(bytes: u64) -> Geometry {
    Geometry {
        bytes,
        sector_size: SECTOR,
        physical_sector_size: BLOCK,
        discard_granularity: CLUSTER,
    }
}

/// The size that an image's header tells, in whole sectors (QEMU's docs/interop/qcow2.txt).
pub(super) fn claimed_size(image: &OwnedFd) -> u64 {
    const SIZE_AT: u64 = 24;
    let mut bytes = [0; 8];
    match rustix::io::pread(image, &mut bytes, SIZE_AT) {
        Ok(8) => u64::from_be_bytes(bytes) / u64::from(SECTOR) * u64::from(SECTOR),
        _ => u64::from(SECTOR),
    }
}

fn layer(
    file: OwnedFd,
    writable: bool,
    below: Option<Arc<FormatAccess<OpenFile>>>,
) -> io::Result<FormatAccess<OpenFile>> {
    let has_backing = below.is_some();
    let image = Qcow2::<OpenFile, Arc<FormatAccess<OpenFile>>>::builder(OpenFile::new(file)?)
        .write(writable)
        .backing(below)
        .open(DenyImplicitOpenGate::default())?;
    let named = image.implicit_backing_file().is_some();
    let wrong = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why.to_owned()));
    match (named, has_backing) {
        (true, false) => {
            wrong("its header names a backing file, and the configuration does not (backing=)")
        }
        (false, true) => wrong("it has no backing file, yet the configuration names one"),
        _ => Ok(FormatAccess::new(image)),
    }
}

fn bad(number: usize, error: &io::Error) -> String {
    format!("backing file {number} cannot be used: {error}")
}
