//! Logs of long-lived processes: bounded, one record a line ([`Line`] documents the formats).

mod line;
mod quote;
mod record;
mod settings;
mod time;

pub use line::Line;
pub use record::Record;
pub use settings::{FORMAT_VARIABLE, LEVEL_VARIABLE};
pub use time::utc;

use config::HostLog;
use kill_point::kill_point;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Size at which a log becomes `NAME.log.1`, in bytes; with it, twice as much is kept.
const MOST: u64 = 1 << 20;

/// A log file. Without one (the disk is full, say) records are dropped.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    settings: HostLog,
    program: &'static str,
    /// Name and number of the writer's domain.
    domain: Option<(String, u32)>,
    /// Whether standard error, which is the journal's, gets the records too.
    is_in_journal: bool,
}

impl Log {
    /// Opens the log at `path` for a program, with the host's settings; the error, if there is one, is
    /// for the caller to show. The log works without a file too.
    pub fn open(path: &Path, program: &'static str) -> (Self, Option<std::io::Error>) {
        Self::open_for(path, program, None)
    }

    /// The same for the process of a domain: its name and number.
    pub fn of_domain(
        path: &Path,
        program: &'static str,
        name: &str,
        domid: u32,
    ) -> (Self, Option<std::io::Error>) {
        Self::open_for(path, program, Some((name.to_owned(), domid)))
    }

    fn open_for(
        path: &Path,
        program: &'static str,
        domain: Option<(String, u32)>,
    ) -> (Self, Option<std::io::Error>) {
        let (settings, wrong) = settings::load();
        let mut log = Self::with(path, program, domain, settings);
        let error = log.reopen().err();
        wrong.into_iter().for_each(|record| log.write(record));
        (log, error)
    }

    fn with(
        path: &Path,
        program: &'static str,
        domain: Option<(String, u32)>,
        settings: HostLog,
    ) -> Self {
        let path = path.to_path_buf();
        Self { path, file: None, size: 0, settings, program, domain, is_in_journal: false }
    }

    fn reopen(&mut self) -> std::io::Result<()> {
        self.file = None;
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Goes on in another file, as that of a domain called `name`. If that cannot be opened, here.
    pub fn move_to(&mut self, path: &Path, name: &str) {
        let domain = self.domain.as_ref().map(|(_, domid)| (name.to_owned(), *domid));
        let mut moved = Self::with(path, self.program, domain, self.settings);
        if moved.reopen().is_ok() {
            *self = moved;
        }
    }

    /// From now on standard error gets the records too, with their priorities (sd-daemon(3)), if it is
    /// the journal's.
    pub fn join_journal(&mut self) {
        self.is_in_journal = is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref());
    }

    /// Logs a record, unless it matters less than what is to be logged.
    pub fn write(&mut self, record: Record) {
        if record.level > self.settings.level {
            return;
        }
        let own = self.domain.as_ref().map(|(name, domid)| (name.as_str(), *domid));
        let line = Line::new(record, time::rfc3339(SystemTime::now()), self.program, own);
        self.write_text(&format!("{}\n", line.written(self.settings.format)));
        if self.is_in_journal {
            let _nobody_reads = writeln!(std::io::stderr(), "{}", line.for_journal());
        }
    }

    fn write_text(&mut self, line: &str) {
        if self.size >= MOST {
            kill_point("log.long");
            let _old_is_kept = std::fs::rename(&self.path, self.path.with_extension("log.1"));
            kill_point("log.moved");
            if self.reopen().is_err() {
                return;
            }
        }
        if let Some(file) = &mut self.file
            && file.write_all(line.as_bytes()).is_ok()
        {
            self.size += line.len() as u64;
        }
    }

    /// The end of the log, at most `most` bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn tail(&self, most: u64) -> std::io::Result<Vec<u8>> {
        tail(&self.path, most)
    }
}

/// The end of the log at `path`, at most `most` bytes.
///
/// # Errors
/// When it cannot be read.
pub fn tail(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(most);
    file.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}

/// Whether standard error is the stream that `JOURNAL_STREAM` names as `DEVICE:INODE` (systemd.exec(5)).
fn is_journal(stream: Option<&str>) -> bool {
    let own = rustix::fs::fstat(rustix::stdio::stderr());
    match (stream.and_then(|stream| stream.split_once(':')), own) {
        (Some((device, inode)), Ok(own)) => {
            device.parse() == Ok(own.st_dev) && inode.parse() == Ok(own.st_ino)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::{LogFormat, LogLevel};

    fn log_at(path: &Path, level: LogLevel, format: LogFormat) -> Log {
        let domain = Some(("web".to_owned(), 3));
        let mut log = Log::with(path, "xendomain", domain, HostLog { level, format });
        log.reopen().unwrap();
        log
    }

    fn lines(log: &Log) -> Vec<Line> {
        let text = String::from_utf8(log.tail(1 << 16).unwrap()).unwrap();
        text.lines().map(|line| Line::parse(line).unwrap()).collect()
    }

    #[test]
    fn a_log_stays_small_and_one_record_is_one_line() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("one.log");
        let mut log = log_at(&path, LogLevel::Info, LogFormat::Text);
        log.write(Record::info("a\nb\x1b[31m"));
        assert!(log.tail(100).unwrap().ends_with(b" msg=\"a\\nb\\u001b[31m\"\n"));
        let long = "x".repeat(2000);
        for _ in 0..2500 {
            log.write(Record::info(&long).with("more", &long));
        }
        let old = path.with_extension("log.1");
        for size in [path.metadata().unwrap().len(), old.metadata().unwrap().len()] {
            assert!(size < MOST + 3000, "{size}");
        }
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 2);
        assert_eq!(log.tail(10).unwrap().len(), 10);
        let text = std::fs::read_to_string(&path).unwrap();
        let first = Line::parse(text.lines().next().unwrap()).unwrap();
        assert_eq!(first.message, format!("{}…", "x".repeat(record::LONGEST)));
        assert_eq!(first.fields["more"], first.message);
    }

    #[test]
    fn records_say_who_and_about_whom() {
        let base = tempfile::tempdir().unwrap();
        for format in LogFormat::ALL {
            let path = base.path().join(format.word());
            let mut log = log_at(&path, LogLevel::Info, format);
            log.write(Record::warning("own").with("size", 5));
            log.write(Record::info("other").by("xennet").about("db"));
            let lines = lines(&log);
            let told: Vec<_> = lines
                .iter()
                .map(|line| (line.level, line.program.as_str(), line.domain.as_deref(), line.domid))
                .collect();
            let own = (LogLevel::Warning, "xendomain", Some("web"), Some(3));
            assert_eq!(told, [own, (LogLevel::Info, "xennet", Some("db"), None)]);
            assert_eq!(lines[0].fields["size"], "5");
            let time = &lines[0].time;
            assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
            log.move_to(&base.path().join("new"), "www");
            log.write(Record::info("moved"));
            let line = Line::parse(
                std::fs::read_to_string(base.path().join("new")).unwrap().lines().last().unwrap(),
            );
            assert_eq!(line.unwrap().domain.as_deref(), Some("www"));
        }
    }

    #[test]
    fn what_matters_less_than_the_level_is_not_written() {
        let base = tempfile::tempdir().unwrap();
        let mut log = log_at(&base.path().join("x.log"), LogLevel::Warning, LogFormat::Text);
        for level in LogLevel::ALL {
            log.write(Record::new(level, level.word()));
        }
        let told: Vec<String> = lines(&log).into_iter().map(|line| line.message).collect();
        assert_eq!(told, ["error", "warning"]);
    }

    #[test]
    fn only_the_journal_is_the_journal() {
        let own = rustix::fs::fstat(rustix::stdio::stderr()).unwrap();
        assert!(is_journal(Some(&format!("{}:{}", own.st_dev, own.st_ino))));
        for other in [None, Some(""), Some("1"), Some("x:y"), Some("0:0")] {
            assert!(!is_journal(other), "{other:?}");
        }
    }

    #[test]
    fn a_log_without_a_file_drops_records() {
        let (mut log, error) = Log::open(Path::new("/nonexistent/one.log"), "xend");
        assert!(error.is_some());
        log.write(Record::error("lost"));
        assert!(log.tail(10).is_err());
    }
}
