//! Running a program of the host: its lines are read as they come, and it can be stopped.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::build::Watcher;
use crate::error::Error;

/// Lines longer than this are cut in pieces.
const LONGEST_LINE: u64 = 4096;
/// How many lines are kept to explain a failure.
const KEPT_LINES: usize = 400;
/// How often the watcher is asked whether to go on.
const TICK: Duration = Duration::from_millis(100);
/// How long killed processes may take to be gone.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How a program ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code or signal.
    pub status: ExitStatus,
    /// Its last lines, standard output and error together, without control characters.
    pub lines: Vec<String>,
}

/// Runs `command` to its end; `each` sees every line.
///
/// # Errors
///
/// When it cannot be started, and [`Error::Interrupted`] when the watcher stops it: then it and
/// all that it started are gone.
pub fn run(
    mut command: Command,
    watcher: &mut dyn Watcher,
    mut each: impl FnMut(&mut dyn Watcher, &str),
) -> Result<Outcome, Error> {
    let program = Path::new(command.get_program()).to_path_buf();
    let failed = || Error::at("run", &program);
    let (reader, writer) = std::io::pipe().map_err(failed())?;
    let copy = writer.try_clone().map_err(failed())?;
    // A group of its own: Ctrl-C at the terminal is this process's to handle.
    command.stdin(Stdio::null()).stdout(copy).stderr(writer).process_group(0);
    let mut child = command.spawn().map_err(failed())?;
    // It holds the writing ends, which have to be closed here for the reader to see the end.
    drop(command);
    let lines = lines_of(reader);
    let mut kept = VecDeque::new();
    let stopped = loop {
        if let Some(signal) = watcher.poll() {
            break Some(signal);
        }
        match lines.recv_timeout(TICK) {
            Ok(line) => keep(&mut kept, line, |line| each(watcher, line)),
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {
                if matches!(child.try_wait(), Ok(Some(_))) {
                    break None;
                }
            }
        }
    };
    if stopped.is_some() {
        kill(&child);
    }
    let status = child.wait().map_err(failed())?;
    // Only now is nothing left that could write into the staging directory.
    let end = Instant::now() + LAST_WORDS;
    while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
        keep(&mut kept, line, |line| each(watcher, line));
    }
    match stopped {
        Some(signal) => Err(Error::Interrupted { signal }),
        None => Ok(Outcome { status, lines: kept.into() }),
    }
}

fn keep(kept: &mut VecDeque<String>, line: String, mut each: impl FnMut(&str)) {
    each(&line);
    if kept.len() == KEPT_LINES {
        kept.pop_front();
    }
    kept.push_back(line);
}

/// Kills the program and its group; what it put into a process namespace dies with it.
fn kill(child: &Child) {
    // It can only be gone already.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

/// The lines of a pipe, read by a thread of its own so that waiting for them can end.
fn lines_of(reader: PipeReader) -> Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(64);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => break,
                Ok(_) if sender.send(clean(&bytes)).is_err() => break,
                Ok(_) => {}
            }
        }
    });
    receiver
}

/// A line without its end and without control characters: it may come from a package or an
/// archive, and goes to a terminal.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(['\n', '\r']);
    // Of a line that was drawn over itself the last state counts.
    let last = text.rsplit('\r').next().unwrap_or(text);
    last.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Stage;

    /// Stops with this signal after so many polls.
    struct Patience(u32);

    impl Watcher for Patience {
        fn stage(&mut self, _: Stage) {}
        fn poll(&mut self) -> Option<i32> {
            self.0 = self.0.saturating_sub(1);
            (self.0 == 0).then_some(15)
        }
    }

    fn shell(script: &str, polls: u32) -> Result<Outcome, Error> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, &mut Patience(polls), |_, _| {})
    }

    #[test]
    fn lines_of_both_streams_and_the_status() {
        let outcome =
            shell("echo one; echo two >&2; printf 'a\\rb\\033[2J'; exit 3", 1000).unwrap();
        assert_eq!(outcome.status.code(), Some(3));
        assert_eq!(outcome.lines, ["one", "two", "b [2J"]);
    }

    #[test]
    fn a_flood_without_lines_is_bounded() {
        let outcome = shell("head -c 4000000 /dev/zero | tr '\\0' x", 100_000).unwrap();
        assert_eq!(outcome.lines.len(), KEPT_LINES);
        assert!(outcome.lines.iter().all(|line| line.len() <= 4096));
    }

    #[test]
    fn a_stopped_program_and_its_children_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let script = format!(
            "sleep 1000 & echo $! >{0}; sh -c 'echo $$ >>{0}; sleep 1001; :' & wait",
            pids.display()
        );
        let start = Instant::now();
        let Err(Error::Interrupted { signal: 15 }) = shell(&script, 8) else {
            panic!("not stopped")
        };
        assert!(start.elapsed() < Duration::from_secs(20));
        let pids = std::fs::read_to_string(pids).unwrap();
        assert_eq!(pids.lines().count(), 2);
        // A killed program is still to be seen until it has run for a last time.
        let gone = |pid: &str| {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        };
        while !pids.lines().all(gone) {
            assert!(start.elapsed() < Duration::from_secs(20), "still there: {pids}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_program_that_is_not_there() {
        let command = Command::new("/nonexistent/program");
        let error = run(command, &mut Patience(1000), |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/program"), "{error}");
    }
}
