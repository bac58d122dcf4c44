//! CPU time of a domain: that of all its spaces, the dead ones included.

use super::children::children;
use crate::sys::cpu_time::{of_process, of_reaped};
use std::time::Duration;

/// Counts the CPU time of this process's children from a starting point.
#[derive(Debug)]
pub struct CpuTime {
    start: Duration,
    total: Option<f64>,
}

impl CpuTime {
    /// Starts to count.
    pub fn new() -> Self {
        Self { start: of_reaped(), total: None }
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
        let live: Duration = children().into_iter().filter_map(of_process).sum();
        (live + of_reaped().saturating_sub(self.start)).as_secs_f64()
    }
}

impl Default for CpuTime {
    fn default() -> Self {
        Self::new()
    }
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
}
