//! CPU time of a domain: that of all its spaces, the dead ones included.

use std::fs;

/// Counts the CPU time of this process's children from a starting point.
#[derive(Debug)]
pub struct CpuTime {
    start: u64,
    total: Option<f64>,
}

/// Fields of `/proc/PID/stat` (proc_pid_stat(5)), counted from 0 behind the name.
const UTIME: usize = 11;
/// System time.
const STIME: usize = 12;
/// User time of reaped children; their system time follows.
const CUTIME: usize = 13;

impl CpuTime {
    /// Starts to count.
    pub fn new() -> Self {
        Self { start: reaped(), total: None }
    }

    /// Stops to count: what this process starts from now on is none of the domain's.
    pub fn stop(&mut self) {
        self.total = Some(self.seconds());
    }

    /// CPU time in seconds so far.
    pub fn seconds(&self) -> f64 {
        if let Some(total) = self.total {
            return total;
        }
        let live: u64 = children().iter().map(|pid| ticks(pid, UTIME, STIME)).sum();
        let ticks = live.saturating_add(reaped().saturating_sub(self.start));
        ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64
    }
}

impl Default for CpuTime {
    fn default() -> Self {
        Self::new()
    }
}

fn reaped() -> u64 {
    ticks("self", CUTIME, CUTIME + 1)
}

/// The sum of two fields of a process's `stat`; 0 if it is gone.
fn ticks(pid: &str, one: usize, other: usize) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the last parenthesis may hold anything.
    let fields: Vec<&str> =
        text.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    field(one).saturating_add(field(other))
}

/// Children of the main thread, as the kernel lists them, else by a look at all processes.
pub(super) fn children() -> Vec<String> {
    let own = std::process::id();
    match fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        Ok(list) => list.split_ascii_whitespace().map(str::to_owned).collect(),
        Err(_) => all_processes().into_iter().filter(|pid| parent(pid) == Some(own)).collect(),
    }
}

fn all_processes() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .collect()
}

fn parent(pid: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaped_children_count() {
        let time = CpuTime::new();
        let burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        assert!(std::process::Command::new("sh").args(["-c", burn]).status().unwrap().success());
        let seconds = time.seconds();
        assert!(seconds > 0.01 && seconds < 60.0, "{seconds}");
        let mut stopped = CpuTime::new();
        stopped.stop();
        assert!(std::process::Command::new("sh").args(["-c", burn]).status().unwrap().success());
        assert!(stopped.seconds() < seconds);
    }

    #[test]
    fn processes_and_parents_are_found() {
        let mut child = std::process::Command::new("sleep").arg("10").spawn().unwrap();
        let pid = child.id().to_string();
        assert!(all_processes().contains(&pid));
        assert_eq!(parent(&pid), Some(std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(ticks(&pid, UTIME, STIME), 0);
    }
}
