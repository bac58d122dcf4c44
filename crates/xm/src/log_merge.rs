//! `log` and `logs`: the logs of domains and of the programs behind them in one, by time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;
use config::LogLevel;
use control::{Dirs, PathError, check_name};
use serde_json::{Value, json};

use crate::daemon::{Subject, daemon};
use crate::error::Error;
use crate::output::{Colour, colours_on, harmless, put};
use crate::words;

/// Most of one file that is read at a time, in bytes.
const MOST: u64 = 4 << 20;
/// How often files that are followed are looked at.
const POLL: Duration = Duration::from_millis(200);
/// Length of a time as logs had it before they had levels: `2026-11-22 23:59:59`.
const TIME: usize = 19;

/// A line of some log.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// As RFC 3339 writes it; that of the line before if it has none.
    time: String,
    /// Name of the file without `.log`.
    source: String,
    text: String,
    /// What it says, unless it is older than levels, or nothing but a last word of a program's.
    known: Option<control::Line>,
}

impl Line {
    /// Whether it is asked for. What has no level is rare, and may be what is looked for.
    fn matters(&self, least: LogLevel) -> bool {
        self.known.as_ref().is_none_or(|known| known.level <= least)
    }
}

/// `log`: everything.
///
/// # Errors
///
/// When the directory of logs cannot be read.
pub fn log() -> Result<(), Error> {
    let dirs = Dirs::from_environment();
    let lines = merged(read_all(&dirs.state, &[], &mut Positions::default())?);
    print(&lines, false)
}

/// `logs [-f] [-n N] [--level LEVEL] [--json] [D...]`.
///
/// # Errors
///
/// As [`log`]; and when a named domain never had a log.
pub fn logs(matches: &ArgMatches) -> Result<(), Error> {
    let dirs = Dirs::from_environment();
    let names = words(matches, "domain");
    let names: Vec<String> =
        names.iter().map(|name| log_name(&dirs, name)).collect::<Result<_, _>>()?;
    let place = dirs.state;
    let json = matches.get_flag("json");
    let least = matches.get_one::<LogLevel>("level").copied().unwrap_or(LogLevel::Debug);
    let mut positions = Positions::default();
    let mut look = || {
        let mut lines = merged(read_all(&place, &names, &mut positions)?);
        lines.retain(|line| line.matters(least));
        Ok::<_, Error>(lines)
    };
    let mut lines = look()?;
    if let Some(count) = matches.get_one::<usize>("lines") {
        lines.drain(..lines.len().saturating_sub(*count));
    }
    print(&lines, json)?;
    while matches.get_flag("follow") {
        std::thread::sleep(POLL);
        let lines = look()?;
        if !lines.is_empty() {
            print(&lines, json)?;
        }
    }
    Ok(())
}

/// The name that a domain's log has: its own, or that of one that is gone.
fn log_name(dirs: &Dirs, word: &str) -> Result<String, Error> {
    if check_name(word).is_ok() && dirs.log(word).is_file() {
        return Ok(word.to_owned());
    }
    Ok(Subject::find(&daemon(), word)?.unprivileged("print the log of")?.name)
}

/// How far each file was read, by its number on its device: a log that grew too long goes on in a
/// new file under the same name.
#[derive(Debug, Default)]
struct Positions(BTreeMap<(u64, u64), u64>);

/// New lines of all logs, file by file.
fn read_all(
    place: &Path,
    names: &[String],
    positions: &mut Positions,
) -> Result<Vec<Line>, PathError> {
    let mut lines = Vec::new();
    for (source, path) in files(place, names)? {
        match read_new(&path, positions) {
            Ok(text) => lines.extend(split(&source, &text)),
            // Renamed between the look and the opening: it is found again at the next look.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(PathError::at("read", &path)(error)),
        }
    }
    Ok(lines)
}

/// Logs and what was before them, older first.
fn files(place: &Path, names: &[String]) -> Result<Vec<(String, PathBuf)>, PathError> {
    let entries = match std::fs::read_dir(place) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(PathError::at("read", place)(error)),
    };
    let mut found: Vec<(String, u8, PathBuf)> = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let file = entry.file_name();
        let Some(file) = file.to_str() else { continue };
        let (source, age) = match (file.strip_suffix(".log.1"), file.strip_suffix(".log")) {
            (Some(source), _) => (source, 0),
            (None, Some(source)) => (source, 1),
            (None, None) => continue,
        };
        if names.is_empty() || names.iter().any(|name| name == source) {
            found.push((source.to_owned(), age, entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(source, _, path)| (source, path)).collect())
}

/// What a file has that was not read yet, in whole lines and at most [`MOST`] bytes of its end.
fn read_new(path: &Path, positions: &mut Positions) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let data = file.metadata()?;
    if !data.is_file() {
        return Ok(String::new());
    }
    let key = (data.dev(), data.ino());
    let known = positions.0.get(&key).copied();
    let read = known.filter(|read| *read <= data.len()).unwrap_or(0);
    if read == data.len() {
        positions.0.insert(key, read);
        return Ok(String::new());
    }
    let start = read.max(data.len().saturating_sub(MOST));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    // The rest of a line that is being written comes with the next look.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    bytes.truncate(whole);
    positions.0.insert(key, start.saturating_add(whole as u64));
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn split(source: &str, text: &str) -> Vec<Line> {
    let mut time = String::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let known = control::Line::parse(line);
        if let Some(known) = &known {
            time.clone_from(&known.time);
        } else if let Some(stamp) = stamp(line) {
            time = format!("{}Z", stamp.replace(' ', "T"));
        }
        let (source, text) = (source.to_owned(), line.to_owned());
        lines.push(Line { time: time.clone(), source, text, known });
    }
    lines
}

/// The time that an older line begins with.
fn stamp(line: &str) -> Option<&str> {
    let stamp = line.get(..TIME)?;
    let is_shaped = stamp.bytes().zip(b"0000-00-00 00:00:00").all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        other => byte == *other,
    });
    is_shaped.then_some(stamp)
}

/// All lines by time; those of the same one stay in the order of their files.
fn merged(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by(|a, b| a.time.cmp(&b.time));
    lines
}

fn print(lines: &[Line], json: bool) -> Result<(), Error> {
    let on_terminal = std::io::stdout().is_terminal();
    let mut text = String::new();
    for line in lines {
        if json {
            text.push_str(&as_json(line).to_string());
        } else {
            let shown = format!("({}) {}", line.source, for_people(&line.text));
            let shown = if on_terminal { harmless(&shown) } else { shown };
            text.push_str(&painted(shown, line.known.as_ref().map(|known| known.level)));
        }
        text.push('\n');
    }
    put(&text)
}

/// A line of a log as it is shown to people.
pub fn for_people(line: &str) -> Cow<'_, str> {
    control::Line::parse(line).map_or(Cow::Borrowed(line), |known| Cow::Owned(known.shown()))
}

/// What is wrong stands out on a terminal.
fn painted(shown: String, level: Option<LogLevel>) -> String {
    match level {
        Some(LogLevel::Error) if colours_on(&std::io::stdout()) => Colour::Red.paint(&shown),
        Some(LogLevel::Warning) if colours_on(&std::io::stdout()) => Colour::Yellow.paint(&shown),
        _ => shown,
    }
}

fn as_json(line: &Line) -> Value {
    let time = (!line.time.is_empty()).then_some(&line.time);
    let Some(known) = &line.known else {
        let rest = match stamp(&line.text) {
            Some(stamp) => line.text.get(stamp.len()..).unwrap_or("").trim_start(),
            None => &line.text,
        };
        return json!({"time": time, "source": line.source, "text": rest});
    };
    json!({
        "time": time, "source": line.source, "level": known.level, "program": known.program,
        "domid": known.domid, "domain": known.domain, "text": known.message, "fields": known.fields,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn lines_of_all_files_come_by_time() {
        let base = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(base.path().join(name), text).unwrap();
        write("b.log", "2026-01-01 00:00:02 dom2 b\nno time\n2026-01-01 00:00:04 dom2 later\n");
        write("a.log", "2026-01-01 00:00:03 dom1 a\n");
        write("a.log.1", "2026-01-01 00:00:01 dom1 old\n");
        write("a.7.crash", "2026-01-01 00:00:00 no log\n");
        let mut positions = Positions::default();
        let lines = merged(read_all(base.path(), &[], &mut positions).unwrap());
        let expected = [
            "2026-01-01 00:00:01 dom1 old",
            "2026-01-01 00:00:02 dom2 b",
            "no time",
            "2026-01-01 00:00:03 dom1 a",
            "2026-01-01 00:00:04 dom2 later",
        ];
        assert_eq!(texts(&lines), expected);
        let only = read_all(base.path(), &["a".to_owned()], &mut Positions::default()).unwrap();
        assert_eq!(only.len(), 2);
        assert_eq!(as_json(&lines[2])["time"], "2026-01-01T00:00:02Z");
        assert_eq!(as_json(&lines[0])["text"], "dom1 old");
    }

    const NEW: &str = r#"time=2026-01-01T00:00:02.500Z level=warning program=xennet domid=2 domain=b msg="too \"fast\"" device="vif 0""#;

    #[test]
    fn lines_with_levels_are_told_from_others() {
        let text = format!("2026-01-01 00:00:02 dom2 old\n{NEW}\nlast words\n");
        let lines = split("b", &text);
        let value = as_json(&lines[1]);
        let expected = json!({
            "time": "2026-01-01T00:00:02.500Z", "source": "b", "level": "warning",
            "program": "xennet", "domid": 2, "domain": "b", "text": "too \"fast\"",
            "fields": {"device": "vif 0"},
        });
        assert_eq!(value, expected);
        assert_eq!(as_json(&lines[2])["time"], expected["time"]);
        assert!(as_json(&lines[0]).get("level").is_none());
        let matter = |least| lines.iter().filter(|line| line.matters(least)).count();
        assert_eq!((matter(LogLevel::Error), matter(LogLevel::Warning)), (2, 3));
        let shown =
            "2026-01-01T00:00:02.500Z warning xennet b[2]: \"too \\\"fast\\\"\" device=\"vif 0\"";
        assert_eq!(for_people(NEW), shown);
        assert_eq!(for_people("last words"), "last words");
    }

    #[test]
    fn following_gives_each_line_once_and_whole() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a.log");
        let mut file = File::create(&path).unwrap();
        let mut positions = Positions::default();
        let mut look = || read_all(base.path(), &[], &mut positions).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(texts(&look()), ["one"]);
        assert!(look().is_empty());
        file.write_all(b"o\n").unwrap();
        assert_eq!(texts(&look()), ["two"]);
        std::fs::rename(&path, base.path().join("a.log.1")).unwrap();
        std::fs::write(&path, "three\n").unwrap();
        file.write_all(b"late\n").unwrap();
        assert_eq!(texts(&look()), ["late", "three"]);
        assert!(look().is_empty());
    }
}
