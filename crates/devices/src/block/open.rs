//! Opening what a `disk=` entry names: by the domain process, before anything is attached.

use super::header::{Header, LONGEST};
use super::in_flight::in_flight_file;
use super::lock::{Identity, Record, Use, holders, lock};
use crate::wire::{BlockConfig, BlockFormat};
use config::{Disk, DiskAccess, DiskBacking, DiskDevice, DiskFormat, DiskTransport};
use rustix::fs::{FileType, MemfdFlags, Mode, OFlags, Stat};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A disk, opened and locked as long as this lives.
#[derive(Debug)]
pub struct Opened {
    /// For `Order::Attach`.
    pub config: BlockConfig,
    /// Descriptors for it, in its order. To be kept for a backend that takes over from another.
    pub files: Vec<OwnedFd>,
    /// Node `type`: `phy`, `file` or `tap`.
    pub kind: &'static str,
    /// Node `params`: what the configuration names, without prefix.
    pub params: String,
    /// Node `physical-device`, of a block device: major and minor number.
    pub physical_device: Option<(u32, u32)>,
    /// What the user should know, one sentence each.
    pub warnings: Vec<String>,
    /// Says who has it, as long as this lives.
    pub record: Option<Record>,
}

/// A disk that cannot be opened.
#[derive(Debug)]
pub struct OpenError {
    /// `disk[0]`, or what else it was called.
    pub entry: String,
    /// The specification.
    pub disk: String,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}': {}", self.entry, self.disk, self.problem)
    }
}

impl std::error::Error for OpenError {}

/// What is wrong with a disk.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is no such file.
    #[error("{0} does not exist")]
    Missing(PathBuf),
    /// The host does not let us.
    #[error("{path} cannot be opened for {}: {error}", if *.writing { "writing" } else { "reading" })]
    Open {
        /// Which file.
        path: PathBuf,
        /// For writing.
        writing: bool,
        /// Why not.
        error: io::Error,
    },
    /// Somebody on the host has claimed the device.
    #[error("{0} is in use on the host: it is mounted, or part of another device")]
    Busy(PathBuf),
    /// The prefix names another kind of thing.
    #[error("{path} is {found}, not {wanted}")]
    Kind {
        /// Which file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// It is in use by others.
    #[error("{path} is in use by {}", users(.domains))]
    Locked {
        /// Which file.
        path: PathBuf,
        /// By which domains, as far as is known.
        domains: Vec<String>,
        /// They have it for reading, and it is wanted for writing; else the other way round.
        for_writing: bool,
    },
    /// The content is none of this format.
    #[error("{path} is no {} image", .format.as_str())]
    Format {
        /// Which file.
        path: PathBuf,
        /// What the configuration says.
        format: DiskFormat,
    },
    /// A format that cannot be served.
    #[error("images of format {} are not supported", .0.as_str())]
    UnknownFormat(DiskFormat),
    /// A qcow2 image with a feature that cannot be served.
    #[error("{path} cannot be served: {why}")]
    Obstacle {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// The image has a backing file, and the configuration does not say so.
    #[error("{path} has the backing file '{backing}', which the entry does not name")]
    BackingNotNamed {
        /// Which file.
        path: PathBuf,
        /// What its header says.
        backing: String,
    },
    /// The configuration names a backing file, and the image has none.
    #[error("{path} has no backing file, yet the entry names {backing}")]
    NoBacking {
        /// Which file.
        path: PathBuf,
        /// What the configuration says.
        backing: String,
    },
    /// Nothing in it.
    #[error("{0} is empty")]
    Empty(PathBuf),
    /// Something that is not supported.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The host has no descriptors or memory left.
    #[error("the host fails: {0}")]
    Host(#[from] io::Error),
}

fn users(domains: &[String]) -> String {
    match domains {
        [] => "another process".into(),
        [one] => format!("domain '{one}'"),
        many => format!("domains '{}'", many.join("', '")),
    }
}

impl OpenError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match &self.problem {
            Problem::Missing(path) if path.is_relative() => {
                "Write the path from / on, or create the image: truncate -s 8G FILE.".into()
            }
            Problem::Missing(_) => {
                "Check the path, or create the image: truncate -s 8G FILE.".into()
            }
            Problem::Open { writing: true, .. } => {
                "Give the user who starts the domain the right to write it, or use mode r.".into()
            }
            Problem::Open { .. } => {
                "Give the user who starts the domain the right to read it.".into()
            }
            Problem::Busy(_) => {
                "Unmount it first. Mode w! uses it all the same, which destroys a mounted file \
                 system."
                    .into()
            }
            Problem::Kind { found: "a block device", .. } => "Use phy: for block devices.".into(),
            Problem::Kind { found: "a file", .. } => "Use file: for image files.".into(),
            Problem::Kind { .. } => "Name an image file or a block device.".into(),
            Problem::Locked { for_writing: true, .. } => {
                "Shut down who uses it, use another image, or mode r. Mode w! uses it all the \
                 same, which destroys most file systems."
                    .into()
            }
            Problem::Locked { .. } => "Shut down who writes it, or use another image.".into(),
            Problem::Format { .. } => {
                "'qemu-img info FILE' tells its format; name that in the entry.".into()
            }
            Problem::UnknownFormat(format) => format!(
                "Convert it: qemu-img convert -f {} -O qcow2 FILE NEW.qcow2.",
                match format {
                    DiskFormat::Vhd => "vpc",
                    other => other.as_str(),
                }
            ),
            Problem::Obstacle { .. } => {
                "Convert it: qemu-img convert -O qcow2 FILE NEW.qcow2.".into()
            }
            Problem::BackingNotNamed { backing, .. } => format!(
                "If that file is meant, add backing={} before target= in the key=value form, a \
                 chain nearest first; or make the image independent: qemu-img rebase -b \"\" FILE.",
                backing.rsplit(',').next().unwrap_or_default()
            ),
            Problem::NoBacking { .. } => "Leave backing= out.".into(),
            Problem::Empty(_) => "Give it a size: truncate -s 8G FILE.".into(),
            Problem::Unsupported(_) => "Use an image file or a block device of this host.".into(),
            Problem::Host(_) => "Try again when the host has more memory or descriptors.".into(),
        }
    }
}

/// Opens and locks what a disk entry names. Nothing remains if it fails.
///
/// # Errors
/// As [`Problem`] says.
pub fn open(entry: &str, disk: &Disk, domain: &str, runtime: &Path) -> Result<Opened, OpenError> {
    check_options(disk)
        .and_then(|()| open_disk(disk, domain, runtime))
        .map_err(|problem| OpenError { entry: entry.to_owned(), disk: disk.to_string(), problem })
}

/// Bytes that a disk has whose image is open: a regular file, or what a qcow2 header says.
///
/// # Errors
/// When the host does not tell it.
pub fn size(format: BlockFormat, image: &OwnedFd) -> io::Result<u64> {
    match format {
        BlockFormat::Qcow2 => Ok(super::image::claimed_size(image)),
        BlockFormat::Raw => Ok(u64::try_from(rustix::fs::fstat(image)?.st_size).unwrap_or(0)),
    }
}

fn check_options(disk: &Disk) -> Result<(), Problem> {
    let unsupported = |what: String| Err(Problem::Unsupported(what));
    if let Some(backend) = disk.backend.as_deref()
        && !["0", "Domain-0"].contains(&backend)
    {
        return unsupported(format!("the driver domain {backend}"));
    }
    if let Some(script) = &disk.script {
        return unsupported(format!("the script {script}"));
    }
    if disk.protocol.as_deref().is_some_and(|protocol| protocol != "x86_64-abi") {
        return unsupported("the ring protocol of other guests than 64-bit ones".into());
    }
    if disk.options.transport == Some(DiskTransport::Virtio) {
        return unsupported("specification=virtio".into());
    }
    if disk.backing == DiskBacking::Standalone {
        return unsupported("backendtype=standalone".into());
    }
    match disk.format {
        DiskFormat::Raw | DiskFormat::Qcow2 => Ok(()),
        other => Err(Problem::UnknownFormat(other)),
    }
}

fn open_disk(disk: &Disk, domain: &str, runtime: &Path) -> Result<Opened, Problem> {
    let is_cdrom = disk.device == DiskDevice::Cdrom;
    let writable = disk.access != DiskAccess::ReadOnly && !is_cdrom;
    let mut config = BlockConfig {
        format: BlockFormat::Raw,
        writable,
        shared: disk.access == DiskAccess::ForcedWrite,
        cdrom: is_cdrom,
        discard: writable && disk.options.discard != Some(false),
        persistent: false,
        backing: Vec::new(),
    };
    let Some(target) = &disk.target else {
        let empty = rustix::fs::memfd_create(c"empty-drive", MemfdFlags::CLOEXEC);
        let files = vec![empty.map_err(io::Error::from)?, in_flight_file()?];
        return Ok(Opened {
            config,
            files,
            kind: "file",
            params: String::new(),
            physical_device: None,
            warnings: Vec::new(),
            record: None,
        });
    };
    let path = path_of(disk.backing, target);
    let image = File::open(&path, disk.backing, writable, disk.access, runtime)?;
    let record = image.claim(writable, disk.access, domain, runtime)?;
    let mut warnings = Vec::new();
    let mut files = Vec::new();
    if disk.format == DiskFormat::Qcow2 {
        config.format = BlockFormat::Qcow2;
        let chain = chain(&image, &disk.options.backing_files, runtime)?;
        for (format, file) in chain {
            config.backing.push(format);
            files.push(file.fd);
        }
    } else {
        warnings.extend(check_raw(&image, disk)?);
    }
    let kind = match disk.backing {
        DiskBacking::Tap | DiskBacking::Qdisk => "tap",
        _ if image.is_device() => "phy",
        _ => "file",
    };
    let device = image.stat.st_rdev;
    let physical_device =
        image.is_device().then(|| (rustix::fs::major(device), rustix::fs::minor(device)));
    files.insert(0, image.fd);
    files.push(in_flight_file()?);
    let params = target.clone();
    Ok(Opened { config, files, kind, params, physical_device, warnings, record })
}

/// `phy:` names devices below /dev, as xend had it.
fn path_of(backing: DiskBacking, target: &str) -> PathBuf {
    match backing {
        DiskBacking::Phy => Path::new("/dev").join(target),
        _ => PathBuf::from(target),
    }
}

/// A file that was opened.
struct File {
    path: PathBuf,
    fd: OwnedFd,
    stat: Stat,
}

impl File {
    fn open(
        path: &Path,
        backing: DiskBacking,
        writing: bool,
        access: DiskAccess,
        runtime: &Path,
    ) -> Result<Self, Problem> {
        let failed = |error: rustix::io::Errno| match error {
            rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => {
                Problem::Missing(path.to_owned())
            }
            other => Problem::Open { path: path.to_owned(), writing, error: other.into() },
        };
        // What is neither is not even opened: a pipe would have us wait, a device might act.
        let stat = rustix::fs::stat(path).map_err(failed)?;
        let found = kind(&stat);
        let wanted = match backing {
            DiskBacking::Phy => "a block device",
            DiskBacking::File => "a file",
            _ if found == "a block device" => found,
            _ => "a file",
        };
        if found != wanted {
            return Err(Problem::Kind { path: path.to_owned(), found, wanted });
        }
        let mut flags = OFlags::CLOEXEC | OFlags::NOCTTY;
        flags |= if writing { OFlags::RDWR } else { OFlags::RDONLY };
        if writing && found == "a block device" && access != DiskAccess::ForcedWrite {
            // The kernel refuses a device that is mounted or part of another.
            flags |= OFlags::EXCL;
        }
        let fd = match rustix::fs::open(path, flags, Mode::empty()) {
            Err(rustix::io::Errno::BUSY) => return Err(busy(path, &stat, runtime)),
            result => result.map_err(failed)?,
        };
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        if kind(&stat) != wanted {
            return Err(Problem::Kind { path: path.to_owned(), found: kind(&stat), wanted });
        }
        Ok(Self { path: path.to_owned(), fd, stat })
    }

    fn is_device(&self) -> bool {
        kind(&self.stat) == "a block device"
    }

    /// Locks it, and notes for whom.
    fn claim(
        &self,
        writable: bool,
        access: DiskAccess,
        domain: &str,
        runtime: &Path,
    ) -> Result<Option<Record>, Problem> {
        let how = if writable { Use::Exclusive } else { Use::Shared };
        if !self.lock(how)? {
            if access != DiskAccess::ForcedWrite {
                return Err(self.locked(writable, runtime));
            }
            // Others may at least see that it is in use.
            let _in_vain = self.lock(Use::Shared)?;
        }
        kill_point::kill_point("image.locked");
        // Only names are lost without it.
        Ok(Record::write(runtime, Identity::of(&self.stat), domain).ok())
    }

    fn lock(&self, how: Use) -> Result<bool, Problem> {
        match lock(&self.fd, how) {
            // There are file systems without locks; the image can be used all the same.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(true),
            result => result.map_err(Problem::Host),
        }
    }

    fn locked(&self, for_writing: bool, runtime: &Path) -> Problem {
        let domains = holders(runtime, Identity::of(&self.stat));
        Problem::Locked { path: self.path.clone(), domains, for_writing }
    }

    /// Its first bytes.
    fn head(&self) -> Result<Vec<u8>, Problem> {
        let mut bytes = vec![0; LONGEST];
        let mut length = 0;
        while let Some(rest) = bytes.get_mut(length..)
            && !rest.is_empty()
        {
            match rustix::io::pread(&self.fd, rest, length as u64) {
                Ok(0) => break,
                Ok(got) => length += got,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    let error = error.into();
                    return Err(Problem::Open { path: self.path.clone(), writing: false, error });
                }
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// A device that somebody has for himself alone: a domain that writes it, or the host.
fn busy(path: &Path, stat: &Stat, runtime: &Path) -> Problem {
    let path = path.to_owned();
    match holders(runtime, Identity::of(stat)) {
        domains if domains.is_empty() => Problem::Busy(path),
        domains => Problem::Locked { path, domains, for_writing: true },
    }
}

fn kind(stat: &Stat) -> &'static str {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "a file",
        FileType::BlockDevice => "a block device",
        FileType::Directory => "a directory",
        FileType::CharacterDevice => "a character device",
        _ => "neither a file nor a device",
    }
}

/// What is odd about a raw image.
fn check_raw(image: &File, disk: &Disk) -> Result<Vec<String>, Problem> {
    let mut warnings = Vec::new();
    if let Some(backing) = disk.options.backing_files.first() {
        return Err(Problem::NoBacking { path: image.path.clone(), backing: backing.clone() });
    }
    let size = image.stat.st_size;
    if !image.is_device() && size < 512 {
        return Err(Problem::Empty(image.path.clone()));
    }
    let path = image.path.display();
    if !image.is_device() && size % 512 != 0 {
        let rest = size % 512;
        warnings.push(format!(
            "{path} does not end at a sector of 512 bytes: its last {rest} bytes are out of reach."
        ));
    }
    if Header::parse(&image.head()?).is_some() {
        warnings.push(format!(
            "{path} looks like a qcow2 image, but is used as a raw one, as the entry says. If that \
             is a mistake, use tap:qcow2: or format=qcow2."
        ));
    }
    Ok(warnings)
}

/// The backing files of a qcow2 image, which must be those that the entry names.
fn chain(
    image: &File,
    names: &[String],
    runtime: &Path,
) -> Result<Vec<(BlockFormat, File)>, Problem> {
    let mut files: Vec<(BlockFormat, File)> = Vec::new();
    let mut names = names.iter();
    loop {
        let above = files.last().map_or(image, |(_, file)| file);
        let is_raw = files.last().is_some_and(|(format, _)| *format == BlockFormat::Raw);
        let header = if is_raw {
            Header::default()
        } else {
            Header::parse(&above.head()?).ok_or_else(|| Problem::Format {
                path: above.path.clone(),
                format: DiskFormat::Qcow2,
            })?
        };
        if let Some(why) = header.obstacle {
            return Err(Problem::Obstacle { path: above.path.clone(), why });
        }
        let path = above.path.clone();
        let name = match (&header.backing, names.next()) {
            (None, None) => return Ok(files),
            (Some(backing), None) => {
                return Err(Problem::BackingNotNamed { path, backing: backing.clone() });
            }
            (None, Some(backing)) => {
                return Err(Problem::NoBacking { path, backing: backing.clone() });
            }
            (Some(_), Some(name)) => name,
        };
        let file =
            File::open(Path::new(name), DiskBacking::Auto, false, DiskAccess::ReadOnly, runtime)?;
        // A domain that wrote it would change this disk too.
        if !file.lock(Use::Shared)? {
            return Err(file.locked(false, runtime));
        }
        let format = match header.backing_format.as_deref() {
            Some("raw" | "file" | "host_device") => BlockFormat::Raw,
            Some("qcow2") => BlockFormat::Qcow2,
            Some(_) => {
                let why = "its backing file is neither raw nor qcow2";
                return Err(Problem::Obstacle { path, why });
            }
            // Old images do not say it. It is read only, and opens no further file by itself.
            None if Header::parse(&file.head()?).is_some() => BlockFormat::Qcow2,
            None => BlockFormat::Raw,
        };
        files.push((format, file));
    }
}
