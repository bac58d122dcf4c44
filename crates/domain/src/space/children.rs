//! The children of the domain process: spaces, their keeper, backends.

use rustix::process::{Pid, getpid};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Bytes that are read at a time: the kernel prepares a page of such a file (its `seq_file`).
const PAGE: usize = 4096;

/// Children of the main thread, as the kernel lists them, else by a look at all processes.
pub(super) fn children() -> Vec<Pid> {
    // Opened once: what is done many times a second asks for the list.
    static LIST: OnceLock<io::Result<File>> = OnceLock::new();
    let open = || File::open(format!("/proc/self/task/{}/children", getpid()));
    match LIST.get_or_init(open).as_ref().ok().and_then(|list| read(list).ok()) {
        Some(text) => text.split_ascii_whitespace().filter_map(number).collect(),
        None => all_processes().into_iter().filter(|pid| parent(*pid) == Some(getpid())).collect(),
    }
}

/// The whole of a file that may have changed since it was read last.
fn read(file: &File) -> io::Result<String> {
    let mut text = Vec::new();
    let mut page = [0; PAGE];
    loop {
        let length = file.read_at(&mut page, text.len() as u64)?;
        text.extend(page.get(..length).unwrap_or_default());
        if length == 0 {
            return String::from_utf8(text).map_err(io::Error::other);
        }
    }
}

fn number(text: &str) -> Option<Pid> {
    Pid::from_raw(text.parse().ok()?)
}

fn all_processes() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| number(entry.ok()?.file_name().to_str()?)).collect()
}

/// The fourth field of `/proc/PID/stat` (proc_pid_stat(5)).
fn parent(pid: Pid) -> Option<Pid> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last parenthesis may hold anything.
    number(text.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn processes_and_parents_are_found() {
        let mut child = Command::new("sleep").arg("10").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(all_processes().contains(&pid));
        assert_eq!(parent(pid), Some(getpid()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(parent(pid), None);
    }

    #[test]
    fn lists_are_read_anew() {
        let own = rustix::thread::gettid();
        let list = File::open(format!("/proc/self/task/{own}/children")).unwrap();
        let listed = || -> Vec<Pid> {
            read(&list).unwrap().split_ascii_whitespace().filter_map(number).collect()
        };
        assert_eq!(listed(), []);
        let (mut started, mut length) = (Vec::new(), 0);
        while length <= PAGE {
            let child = Command::new("sleep").arg("30").spawn().unwrap();
            length += child.id().to_string().len() + 1;
            started.push(child);
        }
        let pids: Vec<Pid> = started.iter().map(Pid::from_child).collect();
        assert_eq!(listed(), pids);
        for child in &mut started {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(listed(), []);
    }
}
