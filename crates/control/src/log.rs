//! Logs of long-lived processes: bounded, with times.

use kill_point::kill_point;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Size at which a log becomes `NAME.log.1`, in bytes; with it, twice as much is kept.
const MOST: u64 = 1 << 20;
/// Longest line that is logged, in bytes.
const LONGEST_LINE: usize = 1024;

/// A log file. Without one (the disk is full, say) lines are dropped.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    who: String,
}

impl Log {
    /// Opens the log at `path` for a process that calls itself `who` there; the error, if there is one, is
    /// for the caller to show. The log works without a file too.
    pub fn open(path: &Path, who: impl Into<String>) -> (Self, Option<std::io::Error>) {
        let mut log = Self { path: path.to_path_buf(), file: None, size: 0, who: who.into() };
        let error = log.reopen().err();
        (log, error)
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

    /// Goes on in another file. If that cannot be opened, here.
    pub fn move_to(&mut self, path: &Path) {
        let who = self.who.clone();
        if let (log, None) = Self::open(path, who) {
            *self = log;
        }
    }

    /// Logs one line.
    pub fn line(&mut self, text: &str) {
        if self.size >= MOST {
            kill_point("log.long");
            let _old_is_kept = std::fs::rename(&self.path, self.path.with_extension("log.1"));
            kill_point("log.moved");
            if self.reopen().is_err() {
                return;
            }
        }
        let shown: String = text.chars().filter(|c| !c.is_control()).take(LONGEST_LINE).collect();
        let line = format!("{} {} {shown}\n", utc(SystemTime::now()), self.who);
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
        let mut file = File::open(&self.path)?;
        let start = file.metadata()?.len().saturating_sub(most);
        file.seek(SeekFrom::Start(start))?;
        let mut text = Vec::new();
        file.take(most).read_to_end(&mut text)?;
        Ok(text)
    }
}

/// A time as `2026-11-22 23:59:59` (UTC).
pub fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Civil date from days, in years that begin in March (proleptic Gregorian).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_dates() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(at(1_795_391_999), "2026-11-22 23:59:59");
    }

    #[test]
    fn a_log_stays_small_and_one_line_stays_one_line() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("one.log");
        let (mut log, error) = Log::open(&path, "dom3");
        assert!(error.is_none());
        log.line("a\nb\x1b[31m");
        assert!(log.tail(100).unwrap().ends_with(b" dom3 ab[31m\n"));
        let long = "x".repeat(2000);
        for _ in 0..2500 {
            log.line(&long);
        }
        assert!(path.metadata().unwrap().len() < MOST + 2000);
        assert!(path.with_extension("log.1").exists());
        assert_eq!(log.tail(10).unwrap().len(), 10);
    }

    #[test]
    fn a_log_without_a_file_drops_lines() {
        let (mut log, error) = Log::open(Path::new("/nonexistent/one.log"), "dom1");
        assert!(error.is_some());
        log.line("lost");
        assert!(log.tail(10).is_err());
    }
}
