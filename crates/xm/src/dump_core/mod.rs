//! `dump-core`: a domain's memory and registers as a core file.
//!
//! The domain's process hands out a descriptor of the guest's RAM; this program writes the file. What
//! the host never had to spend on the guest (and what it gave back) is a hole in the file, too.

mod format;
mod notes;

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::types::Who;
use clap::ArgMatches;
use control::{
    Client, ClientError, Dirs, MemoryImage, PathError, kill_point, name_file, unnamed_file,
};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::daemon::{connect, reconnect};
use crate::error::Error;
use crate::output::{note, put};
use crate::signals::{Signals, obey};
use crate::tool::Tool;
use format::{Layout, PAGE};

/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;
/// How often the progress is told.
const PERIOD: Duration = Duration::from_millis(200);

/// `dump-core [-L] [-C|-R] D [FILE]`.
///
/// # Errors
///
/// When there is no such domain, its memory cannot be had, or the file cannot be written; there is no
/// file then.
pub fn dump_core(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    let set = |name: &str| matches.try_get_one::<bool>(name).is_ok_and(|flag| flag == Some(&true));
    let (live, crash, reset) = (set("live"), set("crash"), set("reset"));
    let word = crate::word(matches, "domain");
    let (who, client) = connect(word, "dump core of")?;
    let path = match matches.get_one::<String>("file") {
        Some(file) => PathBuf::from(file),
        None if tool == Tool::Xl => {
            return Err(Error::usage("dump-core", "'xl dump-core' requires 2 arguments."));
        }
        None => default_path(&Dirs::from_environment(), &who)?,
    };
    if tool == Tool::Xm {
        put(&format!("Dumping core of domain: {} ...\n", who.name))?;
    }
    let mut signals = Signals::catch().map_err(Error::Signals)?;
    match dump(&who, client, live, &path, &mut signals)? {
        None => {}
        Some(signal) => {
            note(&format!("Interrupted: {} was not written.", path.display()));
            obey(signal);
            return Ok(());
        }
    }
    if reset {
        reconnect(&who)?.reset()?;
    } else if crash {
        match reconnect(&who)?.destroy() {
            Ok(()) | Err(ClientError::Ended { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// `STATE/dump/2026-1122-2359.59-NAME.ID.core`, as xend called them.
fn default_path(dirs: &Dirs, who: &Who) -> Result<PathBuf, PathError> {
    let place = dirs.state.join("dump");
    std::fs::create_dir_all(&place).map_err(PathError::at("create", &place))?;
    let now = jiff::Zoned::now().strftime("%Y-%m%d-%H%M.%S").to_string();
    Ok(place.join(format!("{now}-{}.{}.core", who.name, who.domid.unwrap_or_default())))
}

/// A domain that stands still while this is there: while a connection is open, so that it goes on too if
/// this process is killed.
struct Still {
    _connection: Option<Client>,
}

impl Still {
    /// Pauses the domain, unless it stands still already.
    fn new(who: &Who, is_still: bool) -> Result<Self, Error> {
        if is_still {
            return Ok(Self { _connection: None });
        }
        let mut client = reconnect(who)?;
        client.hold()?;
        Ok(Self { _connection: Some(client) })
    }
}

/// Writes the file; the signal that ended it early, if one did.
fn dump(
    who: &Who,
    client: Client,
    live: bool,
    path: &Path,
    signals: &mut Signals,
) -> Result<Option<i32>, Error> {
    // A guest that stands still cannot tell its registers, so they are asked for before.
    let (image, memory) = client.memory()?;
    kill_point("xm.dump.handed");
    let still = if live { Still { _connection: None } } else { Still::new(who, image.stopped)? };
    kill_point("xm.dump.still");
    if image.registers.is_none() {
        note("The guest's registers are not known: the core file has none.");
    }
    let partial = Partial::create(path)?;
    kill_point("xm.dump.made");
    let outcome = write(&partial, &image, &File::from(memory), signals);
    match outcome.map_err(PathError::at("write", path))? {
        None => {
            kill_point("xm.dump.written");
            partial.finish().map_err(PathError::at("write", path))?;
            drop(still);
            kill_point("xm.dump.placed");
            Ok(None)
        }
        signal => Ok(signal),
    }
}

/// A file that is not there until it is whole: until then it has no name (open(2), `O_TMPFILE`), or
/// another one on file systems that know none without. Dropped before, nothing is left.
struct Partial {
    file: File,
    place: Option<PathBuf>,
    path: PathBuf,
}

impl Partial {
    fn create(path: &Path) -> Result<Self, PathError> {
        let (file, place) = match unnamed_file(path).map_err(PathError::at("create", path))? {
            Some(file) => (file, None),
            None => {
                let place = Self::draft(path);
                let file = File::options().write(true).create_new(true).mode(0o600).open(&place);
                (file.map_err(PathError::at("create", path))?, Some(place))
            }
        };
        Ok(Self { file, place, path: path.to_path_buf() })
    }

    fn draft(path: &Path) -> PathBuf {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.with_file_name(format!(".{name}.{}.partial", std::process::id()))
    }

    fn finish(mut self) -> std::io::Result<()> {
        self.file.sync_all()?;
        if self.place.is_none() {
            match name_file(&self.file, &self.path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                result => return result,
            }
            // A name cannot be taken away from another file but by a rename.
            let place = Self::draft(&self.path);
            name_file(&self.file, &place)?;
            self.place = Some(place);
        }
        if let Some(place) = &self.place {
            std::fs::rename(place, &self.path)?;
        }
        self.place = None;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            drop(std::fs::remove_file(place));
        }
    }
}

fn write(
    to: &Partial,
    image: &MemoryImage,
    memory: &File,
    signals: &mut Signals,
) -> std::io::Result<Option<i32>> {
    let length =
        image.frames.checked_mul(PAGE).ok_or_else(|| std::io::Error::other("too large"))?;
    let info = notes::find_vmcoreinfo(memory, length)?;
    let layout = Layout::new(image, info.as_deref());
    to.file.set_len(layout.length())?;
    to.file.write_all_at(&layout.head(image), 0)?;
    layout.write_frame_list(&to.file)?;
    let shared = image.shared_info.saturating_mul(PAGE);
    let mut page = vec![0; PAGE as usize];
    memory.read_exact_at(&mut page, shared)?;
    to.file.write_all_at(&page, layout.shared_info)?;
    let mut progress = Progress::new(length);
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while let Some((start, end)) = next_data(memory, at, length)? {
        at = start;
        while at < end {
            if let Some(signal) = signals.ending() {
                return Ok(Some(signal));
            }
            let count = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
            let part = buffer.get_mut(..count).unwrap_or_default();
            memory.read_exact_at(part, at)?;
            to.file.write_all_at(part, layout.pages + at)?;
            at += count as u64;
            progress.tell(at);
        }
    }
    progress.end();
    Ok(None)
}

/// The next range from `at` on, below `length`, that is no hole.
fn next_data(memory: &File, mut at: u64, length: u64) -> std::io::Result<Option<(u64, u64)>> {
    while at < length {
        let start = match rustix::fs::seek(memory, SeekFrom::Data(at)) {
            Ok(start) if start < length => start,
            // No data behind it.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(memory, SeekFrom::Hole(start))?.min(length);
        if end > start {
            return Ok(Some((start, end)));
        }
        // Given back between the two looks, by a guest that runs on.
        at = start + PAGE;
    }
    Ok(None)
}

/// A line on a terminal.
struct Progress {
    length: u64,
    last: Option<Instant>,
}

impl Progress {
    fn new(length: u64) -> Self {
        Self { length, last: std::io::stderr().is_terminal().then(Instant::now) }
    }

    fn tell(&mut self, at: u64) {
        let Some(last) = &mut self.last else { return };
        if last.elapsed() < PERIOD {
            return;
        }
        *last = Instant::now();
        let percent = at.saturating_mul(100) / self.length.max(1);
        drop(write!(std::io::stderr(), "\r{:>4} MiB, {percent:>3} %", at >> 20));
    }

    fn end(&self) {
        if self.last.is_some() {
            drop(write!(std::io::stderr(), "\r\u{1b}[K"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::Registers;

    /// A guest of 64 frames, two of which were ever touched.
    fn guest() -> (File, MemoryImage) {
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(66 * PAGE).unwrap();
        memory.write_all_at(b"first", 3 * PAGE).unwrap();
        memory.write_all_at(&notes::tests::vmcoreinfo(b"OSRELEASE=6.1.0\n"), 40 * PAGE).unwrap();
        memory.write_all_at(b"shared", 65 * PAGE).unwrap();
        let registers = Registers { rip: 0xffff_ffff_8123_4567, ..Registers::default() };
        let image =
            MemoryImage { frames: 64, shared_info: 65, registers: Some(registers), stopped: true };
        (memory, image)
    }

    #[test]
    fn a_core_file_is_sparse_and_has_each_page_at_its_place() {
        let (memory, image) = guest();
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("one.core");
        let partial = Partial::create(&path).unwrap();
        let mut signals = Signals::catch().unwrap();
        assert_eq!(write(&partial, &image, &memory, &mut signals).unwrap(), None);
        assert!(!path.exists(), "it is not whole yet");
        partial.finish().unwrap();
        let core = std::fs::read(&path).unwrap();
        let layout = Layout::new(&image, Some(&notes::tests::vmcoreinfo(b"OSRELEASE=6.1.0\n")));
        let page = |frame: u64| &core[(layout.pages + frame * PAGE) as usize..];
        assert!(page(3).starts_with(b"first"));
        assert!(page(4)[..PAGE as usize].iter().all(|byte| *byte == 0));
        assert_eq!(core.len() as u64, layout.length());
        assert!(core[layout.shared_info as usize..].starts_with(b"shared"));
        let blocks = std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512;
        assert!(blocks < 20 * PAGE, "{blocks} bytes are on the disk");
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("one.core");
        std::fs::write(&path, "older").unwrap();
        drop(Partial::create(&path).unwrap());
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read(&path).unwrap(), b"older");
        let missing = base.path().join("no/such/folder/x.core");
        assert!(Partial::create(&missing).is_err());
    }
}
