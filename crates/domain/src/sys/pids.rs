//! Process numbers inside a PID namespace, from outside (proc_pid_status(5)).

use rustix::process::{Pid, Signal};
use std::fs;

/// Whether the host tells such numbers.
pub fn are_listed() -> bool {
    number_inside("self").is_some()
}

/// The number of a process in its own PID namespace: the last one of `NSpid`.
fn number_inside(pid: &str) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    innermost(&status)
}

fn innermost(status: &str) -> Option<i32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

/// Whether a process blocks a signal.
pub fn blocks(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    status.is_ok_and(|status| is_blocked(&status, signal.as_raw()))
}

fn is_blocked(status: &str, number: i32) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=64).contains(&number) && mask >> (number - 1) & 1 != 0
}

/// The one of `pids` whose number inside is `inside`.
pub fn find(pids: &[Pid], inside: i32) -> Option<Pid> {
    let is_it = |pid: &&Pid| number_inside(&pid.to_string()) == Some(inside);
    pids.iter().find(is_it).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_number_counts() {
        assert_eq!(innermost("Name:\tx\nNSpid:\t4711\t12\t3\nNSpgid:\t9\n"), Some(3));
        assert_eq!(innermost("NSpid:\n"), None);
        assert_eq!(innermost("Pid:\t1\n"), None);
    }

    #[test]
    fn blocked_signals_are_told() {
        let status = "SigPnd:\t0000000000000200\nSigBlk:\tfffffffffffbfeff\nSigIgn:\t0\n";
        assert!(is_blocked(status, 10) && is_blocked(status, 64));
        assert!(!is_blocked(status, 9) && !is_blocked(status, 19) && !is_blocked(status, 65));
        assert!(!is_blocked("SigBlk:\tx\n", 1) && !is_blocked("", 1));
    }

    #[test]
    fn this_process_is_found() {
        assert!(are_listed());
        let own = std::process::id().to_string();
        let inside = number_inside(&own).unwrap();
        let pids = [Pid::INIT, rustix::process::getpid()];
        assert_eq!(find(&pids, inside), Some(rustix::process::getpid()));
        assert_eq!(find(&pids, -1), None);
    }
}
