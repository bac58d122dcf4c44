//! `dmesg` and `crash-report`: what the monitors had to say.

use std::fs::File;
use std::io::{IsTerminal, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use api::Daemon;
use clap::ArgMatches;
use control::{Dirs, PathError, check_name};

use crate::daemon::{Subject, daemon};
use crate::error::Error;
use crate::lifecycle::is_unknown;
use crate::log_merge::for_people;
use crate::output::{Colour, harmless, heading, note, put};
use crate::tool::Tool;
use crate::words;

/// The end of a log file that is printed, in bytes.
const MOST: u64 = 4 << 20;

/// `dmesg [-c] [D...]`.
///
/// With several domains each line begins with the domain's name in brackets. A domain that has
/// ended is found by its name, through the log that outlives it.
///
/// # Errors
///
/// When a named domain never existed, or its log cannot be read.
pub fn dmesg(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    if matches.get_flag("clear") {
        return Err(Error::NotThere {
            tool: tool.name(),
            command: "dmesg -c".to_owned(),
            lacks: "clearing of a domain's log, which is kept for crash reports",
        });
    }
    let daemon = daemon();
    let names = words(matches, "domain");
    if let [name] = names.as_slice() {
        return print_log(&one_log(&daemon, name)?, None);
    }
    if names.is_empty() {
        for domain in daemon.domains()?.iter().filter(|domain| domain.run.is_some()) {
            match daemon.log(&domain.uuid.to_string()) {
                Ok(text) => print_log(&text, Some(&domain.name))?,
                Err(error) => note(&format!(
                    "{} domain {}: {error}",
                    heading("Warning:", Colour::Yellow),
                    domain.name
                )),
            }
        }
        return Ok(());
    }
    for name in names {
        print_log(&one_log(&daemon, &name)?, Some(&name))?;
    }
    Ok(())
}

/// The log of a domain that runs, or the file that one left.
fn one_log(daemon: &Daemon, word: &str) -> Result<Vec<u8>, Error> {
    let left = |name: &str| {
        let path = Dirs::from_environment().log(name);
        (check_name(name).is_ok() && path.is_file()).then_some(path)
    };
    match Subject::find(daemon, word) {
        Ok(subject) => {
            let domain = subject.unprivileged("print the log of")?;
            match left(&domain.name) {
                Some(path) if domain.run.is_none() => tail(&path),
                _ => Ok(daemon.log(&domain.uuid.to_string())?),
            }
        }
        Err(error) => tail(&left(word).ok_or(error)?),
    }
}

/// The end of a file, at most [`MOST`] bytes.
fn tail(path: &Path) -> Result<Vec<u8>, Error> {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes: std::io::Result<Vec<u8>> = read();
    Ok(bytes.map_err(PathError::at("read", path))?)
}

fn print(bytes: &[u8], name: Option<&str>) -> Result<(), Error> {
    let text = shown(bytes, std::io::stdout().is_terminal());
    put(&match name {
        Some(name) => text.lines().map(|line| format!("({name}) {line}\n")).collect(),
        None => text,
    })
}

/// A log for people; all its lines begin with `name`, if there is one.
fn print_log(bytes: &[u8], name: Option<&str>) -> Result<(), Error> {
    let text = String::from_utf8_lossy(bytes);
    let lines: String = text.lines().map(|line| format!("{}\n", for_people(line))).collect();
    print(lines.as_bytes(), name)
}

/// A log as text that ends with a line feed; harmless on a terminal, since guests can have
/// written into it.
fn shown(bytes: &[u8], on_terminal: bool) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut text = if on_terminal { harmless(&text) } else { text.into_owned() };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// `crash-report D`: the newest report of a domain that lives or of one that had that name.
///
/// # Errors
///
/// When there is none.
pub fn crash_report(word: &str) -> Result<(), Error> {
    let daemon = daemon();
    let name = match Subject::find(&daemon, word) {
        Ok(subject) => {
            let domain = subject.unprivileged("print a crash report of")?;
            if domain.run.is_some() {
                match daemon.crash_report(&domain.uuid.to_string()) {
                    Ok(bytes) if !bytes.is_empty() => return print(&bytes, None),
                    // The file tells, of what does not answer too.
                    _ => {}
                }
            }
            domain.name
        }
        Err(error) if is_unknown(&error) && check_name(word).is_ok() => word.to_owned(),
        Err(error) => return Err(error),
    };
    let place = Dirs::from_environment().state;
    match newest_report(&place, &name) {
        Some(path) => print(&tail(&path)?, None),
        None => Err(Error::NoCrashReport { name, place }),
    }
}

/// The file `NAME.DOMID.crash` that was written last.
fn newest_report(place: &Path, name: &str) -> Option<PathBuf> {
    let files = std::fs::read_dir(place).ok()?.filter_map(Result::ok);
    let reports = files.filter(|file| {
        let file = file.file_name();
        let domid = file
            .to_str()
            .and_then(|file| file.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".crash"));
        domid.is_some_and(|domid| domid.parse::<u32>().is_ok())
    });
    let dated =
        reports.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())));
    dated.max().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_report_of_exactly_this_name() {
        let base = tempfile::tempdir().unwrap();
        let write = |name: &str, age: u64| {
            let path = base.path().join(name);
            std::fs::write(&path, name).unwrap();
            let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        write("serv1.9.crash", 50);
        write("serv1.10.crash", 20);
        write("serv1.x.12.crash", 0);
        write("serv1.log", 0);
        let newest = newest_report(base.path(), "serv1").unwrap();
        assert_eq!(newest, base.path().join("serv1.10.crash"));
        assert_eq!(newest_report(base.path(), "serv"), None);
    }

    #[test]
    fn logs_end_with_a_line_feed_and_long_ones_are_cut_in_front() {
        assert_eq!(shown(b"a\x1b[2J", true), "a\\x1b[2J\n");
        assert_eq!(shown(b"a\x1bb\n", false), "a\u{1b}b\n");
        assert_eq!(shown(b"", true), "");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![b'x'; MOST as usize + 10]).unwrap();
        assert_eq!(tail(file.path()).unwrap().len() as u64, MOST);
    }
}
