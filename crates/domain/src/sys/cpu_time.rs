//! CPU time of other processes.

use rustix::process::Pid;
use std::mem::MaybeUninit;
use std::time::Duration;

/// CPU time that a process used so far, all its threads together; `None` if there is none of that
/// number (clock_getcpuclockid(3)).
pub fn of_process(pid: Pid) -> Option<Duration> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls write to the variables that they are given, and nowhere else.
    let told = unsafe {
        libc::clock_getcpuclockid(pid.as_raw_nonzero().get(), &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    let seconds = u64::try_from(time.tv_sec).ok()?;
    told.then(|| Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
}

/// CPU time of this process's children that were reaped (getrusage(2)).
pub fn of_reaped() -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call writes to the structure alone, in which zeros are valid too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let of = |time: libc::timeval| {
        let part = |count: i64| u64::try_from(count).unwrap_or(0);
        Duration::from_secs(part(time.tv_sec)) + Duration::from_micros(part(time.tv_usec))
    };
    of(usage.ru_utime) + of(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn time_of_processes_is_told() {
        let own = rustix::process::getpid();
        let before = of_process(own).unwrap();
        let mut sum = 0u64;
        while of_process(own).unwrap() < before + Duration::from_millis(20) {
            sum = std::hint::black_box(sum).wrapping_add(1);
        }
        let mut child = Command::new("sleep").arg("10").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(of_process(pid).unwrap() < Duration::from_secs(5));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(of_process(pid), None);
    }
}
