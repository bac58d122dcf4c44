//! Process numbers inside a PID namespace, from outside (proc_pid_status(5)).

use rustix::process::Pid;
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

/// The one of `pids` whose number inside is `inside`.
pub fn find<'a>(pids: impl IntoIterator<Item = &'a String>, inside: i32) -> Option<Pid> {
    let found = pids.into_iter().find(|pid| number_inside(pid) == Some(inside))?;
    found.parse().ok().and_then(Pid::from_raw)
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
    fn this_process_is_found() {
        assert!(are_listed());
        let own = std::process::id().to_string();
        let inside = number_inside(&own).unwrap();
        let pids = [String::from("no number"), own.clone()];
        assert_eq!(find(&pids, inside).map(|pid| pid.as_raw_nonzero().to_string()), Some(own));
        assert_eq!(find(&pids, -1), None);
    }
}
