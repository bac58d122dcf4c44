//! `cp`: files and directories into a guest and out of it.

use super::GuestError;
use super::exec::patience;
use super::session::Session;
use super::stream::Stream;
use crate::error::Error;
use crate::output::{harmless, note};
use crate::signals::Signals;
use clap::ArgMatches;
use guest_agent::place::Place;
use guest_agent::request::Request;
use guest_agent::tree::{self, Progress};
use std::ffi::OsStr;
use std::io::{self, BufReader, BufWriter, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is taken over of a mode that a guest names: no bits that lend its rights to others.
const MODES: u32 = 0o777;
const BUFFER: usize = 16 << 10;
/// Between two words about how far it is.
const PAUSE: Duration = Duration::from_millis(100);

/// An end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End<'a> {
    Here(&'a str),
    Guest { domain: &'a str, path: &'a str },
}

impl<'a> End<'a> {
    /// A path that begins with `/` or `.` is one of this host.
    fn parse(word: &'a str) -> Self {
        if word.starts_with(['/', '.']) {
            return Self::Here(word);
        }
        // Names of domains may have colons, too.
        let at = word.find(":/").or_else(|| word.find(':'));
        match at.and_then(|at| word.split_at_checked(at)) {
            Some((domain, path)) if !domain.is_empty() => {
                Self::Guest { domain, path: path.strip_prefix(':').unwrap_or(path) }
            }
            _ => Self::Here(word),
        }
    }
}

/// `cp [-q] [--timeout SECONDS] SRC DST`.
///
/// # Errors
///
/// When the domain or its agent cannot be reached, or one of the sides refuses.
pub fn copy(matches: &ArgMatches) -> Result<(), Error> {
    let (source, target) = (crate::word(matches, "source"), crate::word(matches, "target"));
    let mut shown = Shown::new(matches.get_flag("quiet"));
    let mut signals = Signals::catch().map_err(Error::Signals)?;
    let patience = patience(matches);
    match (End::parse(source), End::parse(target)) {
        (End::Here(source), End::Guest { domain, path }) => {
            let (path, source) = (path.as_bytes().to_vec(), Path::new(source));
            let request =
                Request::Put { path, name: name_of(source).as_os_str().as_bytes().to_vec() };
            check(source)?;
            let session = Session::open(domain, "copy into", &request, patience)?;
            let mut stream = Stream::new(session, &mut signals);
            let done = put(source, &mut stream, &mut shown);
            shown.end();
            outcome(done, &stream)
        }
        (End::Guest { domain, path }, End::Here(target)) => {
            let name = Path::new(path).file_name().unwrap_or(OsStr::new(""));
            let place = Place::find(Path::new(target), name).map_err(GuestError::from)?;
            let request = Request::Get { path: path.as_bytes().to_vec() };
            let session = Session::open(domain, "copy out of", &request, patience)?;
            let mut stream = Stream::new(session, &mut signals);
            let done = get(&place, &mut stream, &mut shown);
            shown.end();
            outcome(done, &stream)
        }
        _ => {
            let text = "One of the two must be in a guest: DOMAIN:PATH. (A path of this host that \
                        has a colon in it begins with / or ./.)";
            Err(Error::usage("cp", text))
        }
    }
}

/// The last name of a path of this host, also for `.` and `..`.
fn name_of(path: &Path) -> PathBuf {
    let name = path.file_name().map(PathBuf::from);
    let whole = || std::fs::canonicalize(path).ok()?.file_name().map(PathBuf::from);
    name.or_else(whole).unwrap_or_default()
}

/// Finds a source that is not there before a guest is asked for anything.
fn check(source: &Path) -> Result<(), Error> {
    std::fs::metadata(source).map(drop).map_err(|error| {
        let name = source.display().to_string();
        GuestError::Tree(tree::TreeError::File { action: "open", name, source: error }).into()
    })
}

/// What became of a copy: the stream knows more than who used it.
fn outcome(done: Result<(), GuestError>, stream: &Stream<'_>) -> Result<(), Error> {
    match (done, stream.signal) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(signal)) => Err(GuestError::Interrupted { signal }.into()),
        (Err(error), None) => Err(error.into()),
    }
}

fn better(error: GuestError, stream: &mut Stream<'_>) -> GuestError {
    stream.error.take().unwrap_or(error)
}

fn put(source: &Path, stream: &mut Stream<'_>, shown: &mut Shown) -> Result<(), GuestError> {
    let sent = {
        let counted = Counted { stream, shown };
        let mut output = BufWriter::with_capacity(BUFFER, counted);
        tree::send(source, &mut output)
            .and_then(|()| output.flush().map_err(tree::TreeError::Stream))
    };
    let done = sent.map_err(GuestError::from);
    let done = done.and_then(|()| stream.finish().map_err(GuestError::from));
    done.map_err(|error| better(error, stream))
}

fn get(place: &Place, stream: &mut Stream<'_>, shown: &mut Shown) -> Result<(), GuestError> {
    let mut progress = |progress: Progress<'_>| match progress {
        Progress::Bytes { name, done, of } => shown.file(name, done, of),
        Progress::LeftOut(name) => {
            let name = harmless(&name.to_string_lossy());
            shown.say(&format!("{name}: neither a file, a directory nor a link; left out"));
        }
    };
    let received = {
        let mut input = BufReader::with_capacity(BUFFER, &mut *stream);
        place.receive(&mut input, MODES, &mut progress)
    };
    received.map_err(|error| better(error.into(), stream))
}

/// Counts what is sent.
struct Counted<'a, 'b> {
    stream: &'a mut Stream<'b>,
    shown: &'a mut Shown,
}

impl Write for Counted<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(bytes)?;
        self.shown.add(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How far it is, on a terminal.
struct Shown {
    is_on: bool,
    since: Instant,
    last: Option<Instant>,
    bytes: u64,
    of_file: u64,
}

impl Shown {
    fn new(quiet: bool) -> Self {
        let is_on = !quiet && io::stderr().is_terminal();
        Self { is_on, since: Instant::now(), last: None, bytes: 0, of_file: 0 }
    }

    fn add(&mut self, count: usize) {
        self.bytes = self.bytes.saturating_add(count as u64);
        self.show("");
    }

    fn file(&mut self, name: &OsStr, done: u64, of: u64) {
        // A file's count begins anew with each.
        let more = done.checked_sub(self.of_file).unwrap_or(done);
        self.of_file = if done >= of { 0 } else { done };
        self.bytes = self.bytes.saturating_add(more);
        let name = harmless(&name.to_string_lossy());
        self.show(&name);
    }

    fn show(&mut self, name: &str) {
        if !self.is_on || self.last.is_some_and(|last| last.elapsed() < PAUSE) {
            return;
        }
        self.last = Some(Instant::now());
        let mib = self.bytes as f64 / f64::from(1 << 20);
        let rate = mib / self.since.elapsed().as_secs_f64().max(0.001);
        let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
        let mut err = io::stderr().lock();
        drop(write!(err, "\r\x1b[K{mib:.1} MiB, {rate:.1} MiB/s {name}"));
    }

    fn say(&mut self, line: &str) {
        self.end();
        note(line);
    }

    fn end(&mut self) {
        if self.last.take().is_some() {
            drop(write!(io::stderr().lock(), "\r\x1b[K"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_copies() {
        let guest = |domain, path| End::Guest { domain, path };
        assert_eq!(End::parse("serv1:/etc/hosts"), guest("serv1", "/etc/hosts"));
        assert_eq!(End::parse("serv1:notes"), guest("serv1", "notes"));
        assert_eq!(End::parse("serv1:"), guest("serv1", ""));
        assert_eq!(End::parse("a:b:/c:/d"), guest("a:b", "/c:/d"));
        for here in ["/a:b", "./a:b", "file", ":x", "../x:/y"] {
            assert_eq!(End::parse(here), End::Here(here));
        }
    }
}
