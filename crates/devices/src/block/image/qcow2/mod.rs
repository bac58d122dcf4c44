//! qcow2 images, by the crate imago.

mod grow;
mod place;
mod tables;

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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tables::refused;

/// Sectors as every guest can use them.
const SECTOR: u32 = 512;
/// What file systems write as a whole.
const BLOCK: u32 = 4096;
/// Discards of less free no cluster of the usual size.
const CLUSTER: u32 = 65536;

/// A qcow2 image. (Its functions may wait for the host's disk: they are for threads of their own.)
#[derive(Debug)]
pub struct Qcow2Image {
    /// Locked for writing by discards, which must not meet a read of what they free, and by growth.
    image: RwLock<FormatAccess<OpenFile>>,
    file: Arc<OwnedFd>,
    below: Below,
    bytes: AtomicU64,
    strikes: Strikes,
}

/// The nearest backing file, on top of the others.
type Below = Option<Arc<FormatAccess<OpenFile>>>;

impl Qcow2Image {
    /// Takes over an image and its backing files, the nearest first. Names of files in its header
    /// open nothing.
    pub fn open(
        image: OwnedFd,
        writable: bool,
        backing: Vec<(BlockFormat, OwnedFd)>,
        strikes: Strikes,
    ) -> Result<Self, String> {
        let file = Arc::new(image);
        let (image, below) = strikes.at_work(|| {
            let below = open_below(backing)?;
            let image = layer(file.clone(), writable, below.clone());
            let image = image.map_err(|error| format!("the image cannot be used: {error}"))?;
            Ok::<_, String>((image, below))
        })?;
        let bytes = AtomicU64::new(whole_sectors(image.size()));
        Ok(Self { image: RwLock::new(image), file, below, bytes, strikes })
    }

    fn grow(&self, bytes: u64) -> io::Result<()> {
        // Nothing is under way now, and nothing begins.
        let mut image = self.image.write().unwrap_or_else(PoisonError::into_inner);
        let now = image.size();
        if bytes <= now {
            return if bytes == now { Ok(()) } else { Err(refused("it is longer than that")) };
        }
        if self.below.as_ref().is_some_and(|below| below.size() > now) {
            return Err(refused("its backing file is longer than itself, and would show through"));
        }
        image.flush()?;
        image.sync()?;
        let undo = grow::grow(&*self.file, bytes)?;
        match layer(self.file.clone(), true, self.below.clone()) {
            Ok(grown) => {
                *image = grown;
                self.bytes.store(whole_sectors(bytes), Ordering::Release);
                Ok(())
            }
            Err(error) => {
                undo.undo(&*self.file)?;
                Err(error)
            }
        }
    }

    /// Its dimensions.
    pub fn geometry(&self) -> Geometry {
        geometry(self.bytes.load(Ordering::Acquire))
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
            Operation::Grow { bytes } => self.grow(bytes),
        }
    }
}

fn open_below(backing: Vec<(BlockFormat, OwnedFd)>) -> Result<Below, String> {
    let mut below = None;
    let count = backing.len();
    for (number, (format, file)) in backing.into_iter().enumerate().rev() {
        let is_last = number + 1 == count;
        let layer = match format {
            BlockFormat::Raw if is_last => {
                let file =
                    OpenFile::new(Arc::new(file)).map_err(|error| bad(number + 1, &error))?;
                Raw::builder(file).open(DenyImplicitOpenGate::default()).map(FormatAccess::new)
            }
            BlockFormat::Raw => {
                return Err(format!("backing file {} is raw, yet not the last", number + 1));
            }
            BlockFormat::Qcow2 => layer(Arc::new(file), false, below.take()),
        };
        below = Some(Arc::new(layer.map_err(|error| bad(number + 1, &error))?));
    }
    Ok(below)
}

fn whole_sectors(bytes: u64) -> u64 {
    bytes - bytes % u64::from(SECTOR)
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
pub fn claimed_size(image: &OwnedFd) -> u64 {
    const SIZE_AT: u64 = 24;
    let mut bytes = [0; 8];
    match rustix::io::pread(image, &mut bytes, SIZE_AT) {
        Ok(8) => whole_sectors(u64::from_be_bytes(bytes)),
        _ => u64::from(SECTOR),
    }
}

fn layer(file: Arc<OwnedFd>, writable: bool, below: Below) -> io::Result<FormatAccess<OpenFile>> {
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
