//! Crash reports: why and where a domain ended, for people.

use super::symbols::Symbols;
use boundary::CrashRecord;
use control::{kill_point, name_file, unnamed_file, utc};
use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::mem::offset_of;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Names of [`CrashRecord::regs`].
const REGISTERS: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
/// Console bytes that go into a report.
const CONSOLE: usize = 8 << 10;
/// Reports of one domain name that are kept.
const KEPT: usize = 10;

/// The numbers of a crash record, copied out of shared memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrashDetails {
    /// One line, made printable.
    pub reason: String,
    words: Vec<u8>,
}

impl CrashDetails {
    /// Reads a record's bytes; anything may be in them.
    pub fn from_record(record: Vec<u8>) -> Self {
        let text = record.get(..256).unwrap_or_default();
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        let text = String::from_utf8_lossy(text.get(..end).unwrap_or_default());
        let reason: String = text.chars().filter(|c| !c.is_control()).collect();
        let reason = if reason.is_empty() { "no reason given".into() } else { reason };
        Self { reason, words: record }
    }

    /// A crash that left no record.
    pub fn without_record(reason: &str) -> Self {
        Self { reason: reason.into(), words: Vec::new() }
    }

    fn word(&self, offset: usize) -> u64 {
        let bytes = self.words.get(offset..).and_then(|rest| rest.first_chunk::<8>());
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }

    fn list(&self, offset: usize, count: usize) -> Vec<u64> {
        (0..count).map(|i| self.word(offset + 8 * i)).collect()
    }
}

/// What goes into a report.
#[derive(Debug)]
pub struct Report<'a> {
    /// Domain name.
    pub name: &'a str,
    /// Domain number.
    pub domid: u32,
    /// The kernel file.
    pub kernel: &'a Path,
    /// The crash.
    pub details: &'a CrashDetails,
    /// The end of the console output.
    pub console: &'a [u8],
    /// When.
    pub at: SystemTime,
}

impl Report<'_> {
    /// The text of the report.
    pub fn text(&self) -> String {
        let symbols = Symbols::beside(self.kernel);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text, &symbols);
        text
    }

    fn write(&self, to: &mut String, symbols: &Symbols) -> std::fmt::Result {
        let named = |address: u64| match symbols.name(address) {
            Some(name) => format!("{address:016x} {name}"),
            None => format!("{address:016x}"),
        };
        writeln!(to, "Domain {} ({}) crashed at {} UTC", self.name, self.domid, utc(self.at))?;
        writeln!(to, "Reason: {}", self.details.reason)?;
        writeln!(to, "Kernel: {}", self.kernel.display())?;
        if !self.details.words.is_empty() {
            self.write_registers(to, &named)?;
            self.write_list(to, "Stack", offset_of!(CrashRecord, stack), 64, &named)?;
            let blocks = (offset_of!(CrashRecord, blocks), boundary::LAST_BLOCKS);
            self.write_list(to, "Last blocks, oldest first", blocks.0, blocks.1, &named)?;
        }
        writeln!(to, "\nEnd of the console output:")?;
        let from = self.console.len().saturating_sub(CONSOLE);
        let shown = String::from_utf8_lossy(self.console.get(from..).unwrap_or_default());
        let printable = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
        writeln!(to, "{}", shown.chars().filter(printable).collect::<String>())
    }

    fn write_registers(&self, to: &mut String, named: &dyn Fn(u64) -> String) -> std::fmt::Result {
        let word = |offset| self.details.word(offset);
        let mode = if word(offset_of!(CrashRecord, kernel)) == 1 { "kernel" } else { "user" };
        writeln!(to, "\nRegisters ({mode} mode):")?;
        writeln!(to, "rip {}", named(word(offset_of!(CrashRecord, rip))))?;
        let values = self.details.list(offset_of!(CrashRecord, regs), REGISTERS.len());
        let all: Vec<_> = REGISTERS.iter().zip(values).collect();
        for row in all.chunks(4) {
            let cells: Vec<String> =
                row.iter().map(|(name, value)| format!("{name:<3} {value:016x}")).collect();
            writeln!(to, "{}", cells.join("  "))?;
        }
        writeln!(
            to,
            "rflags {:#x}  cr2 {:016x}  cr3 frame {:#x}",
            word(offset_of!(CrashRecord, rflags)),
            word(offset_of!(CrashRecord, cr2)),
            word(offset_of!(CrashRecord, cr3_mfn))
        )
    }

    fn write_list(
        &self,
        to: &mut String,
        title: &str,
        offset: usize,
        count: usize,
        named: &dyn Fn(u64) -> String,
    ) -> std::fmt::Result {
        writeln!(to, "\n{title}:")?;
        for value in self.details.list(offset, count).into_iter().filter(|value| *value != 0) {
            writeln!(to, "{}", named(value))?;
        }
        Ok(())
    }

    /// Writes the report to `path` and removes the oldest ones of this domain's name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let text = self.text();
        if let Some(mut file) = unnamed_file(path)? {
            file.write_all(text.as_bytes())?;
            kill_point("xendomain.report.written");
            // One of an older domain with this number, from before the host was started anew.
            let _seldom_there = fs::remove_file(path);
            name_file(&file, path)?;
            kill_point("xendomain.report.placed");
        } else {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(path)?.write_all(text.as_bytes())?;
        }
        remove_old(path, self.name);
        Ok(())
    }
}

/// Keeps the newest reports of `name` next to `path`.
fn remove_old(path: &Path, name: &str) {
    let Some(Ok(entries)) = path.parent().map(fs::read_dir) else { return };
    let is_report = |path: &PathBuf| {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        let rest = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
        let domid = rest.and_then(|rest| rest.strip_suffix(".crash"));
        domid.is_some_and(|domid| domid.parse::<u32>().is_ok())
    };
    let mut reports: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_report)
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    reports.sort();
    for (_, old) in reports.iter().take(reports.len().saturating_sub(KEPT)) {
        let _removed_next_time = fs::remove_file(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fill: u8) -> Vec<u8> {
        vec![fill; size_of::<CrashRecord>()]
    }

    fn report<'a>(details: &'a CrashDetails, console: &'a [u8]) -> Report<'a> {
        let kernel = Path::new("/nonexistent/vmlinuz");
        Report { name: "one", domid: 7, kernel, details, console, at: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn a_report_says_what_is_known() {
        let mut bytes = record(0);
        bytes[..4].copy_from_slice(b"oops");
        let rip = offset_of!(CrashRecord, rip);
        bytes[rip..rip + 8].copy_from_slice(&0xffff_ffff_8100_0010u64.to_ne_bytes());
        let details = CrashDetails::from_record(bytes);
        let text = report(&details, b"Kernel panic\x1b[0m\n").text();
        assert!(
            text.starts_with("Domain one (7) crashed at 1970-01-01 00:00:00 UTC\nReason: oops")
        );
        assert!(text.contains("rip ffffffff81000010\n"));
        assert!(text.contains("Kernel panic[0m\n"), "{text}");
    }

    #[test]
    fn any_bytes_make_a_report() {
        for bytes in [record(0), record(0xff), record(0x1b), Vec::new(), vec![b'x'; 300]] {
            let details = CrashDetails::from_record(bytes);
            assert!(!details.reason.is_empty());
            let text = report(&details, &[0xff; 100_000]).text();
            assert!(text.len() < 64 << 10);
            assert!(text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')));
        }
    }

    #[test]
    fn only_the_newest_reports_are_kept() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("one.log"), "").unwrap();
        fs::write(base.path().join("one.x.5.crash"), "another name").unwrap();
        let details = CrashDetails::without_record("gone");
        for domid in 0..15 {
            let path = base.path().join(format!("one.{domid}.crash"));
            report(&details, b"").save(&path).unwrap();
        }
        let left = fs::read_dir(base.path()).unwrap().count();
        assert_eq!(left, KEPT + 2);
        assert!(base.path().join("one.14.crash").exists());
    }
}
