//! Which host CPU a domain's vCPU runs on.
//!
//! The spaces of a vCPU run one at a time and hand over by futex. On one CPU
//! that is a plain context switch; across CPUs it wakes an idle one each time,
//! which costs two to three times as much. So all spaces of a domain keep to
//! one CPU, and move together when others want that CPU and another is freer.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::cpu_time::{CpuTime, children};

/// How often the load is looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// Share of a CPU by which another must be freer to be moved to.
const GAIN: f64 = 0.2;

/// Places the domain's spaces from now on, in a thread of its own; `domid`
/// spreads domains over the CPUs at first. Does nothing on a single CPU.
pub fn keep_placed(domid: u32) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    if cpus.len() < 2 {
        return;
    }
    let first = cpus.get(domid as usize % cpus.len()).copied();
    // Without the thread spaces run where the host puts them: slower, no harm.
    let _ = thread::Builder::new().name("placement".into()).spawn(move || {
        let Some(mut cpu) = first else { return };
        let time = CpuTime::new();
        let (mut busy, mut own) = (busy_seconds(), time.seconds());
        place(cpu);
        loop {
            thread::sleep(PERIOD);
            let (busy_now, own_now) = (busy_seconds(), time.seconds());
            let load = |cpu: usize| {
                let of = |sample: &BTreeMap<usize, f64>| sample.get(&cpu).copied().unwrap_or(0.0);
                (of(&busy_now) - of(&busy)) / PERIOD.as_secs_f64()
            };
            let others = load(cpu) - (own_now - own) / PERIOD.as_secs_f64();
            let freest = cpus.iter().copied().min_by(|a, b| load(*a).total_cmp(&load(*b)));
            if let Some(better) = freest.filter(|c| *c != cpu && load(*c) + GAIN < others) {
                cpu = better;
                place(cpu);
            }
            (busy, own) = (busy_now, own_now);
        }
    });
}

/// Keeps all spaces to a CPU; spaces cloned later inherit it.
fn place(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    for pid in children() {
        if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
            // Gone meanwhile, or forbidden: it runs where it may.
            let _ = sched_setaffinity(Some(pid), &set);
        }
    }
}

/// Seconds each CPU was busy since the host started (proc_stat(5)).
fn busy_seconds() -> BTreeMap<usize, f64> {
    let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    text.lines().filter_map(|line| busy_of(line, ticks)).collect()
}

/// CPU number and busy seconds of a `cpuN` line: user, nice, system, (idle,
/// iowait,) irq, softirq.
fn busy_of(line: &str, ticks: f64) -> Option<(usize, f64)> {
    // The first line, without a number, sums all CPUs.
    let rest = line.strip_prefix("cpu").filter(|rest| !rest.starts_with(' '))?;
    let mut fields = rest.split_ascii_whitespace();
    let cpu = fields.next()?.parse().ok()?;
    let numbers: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|at| numbers.get(*at)).sum::<f64>();
    Some((cpu, busy / ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_read() {
        assert_eq!(busy_of("cpu1 100 20 30 5000 60 7 3 0 0 0", 100.0), Some((1, 1.6)));
        assert_eq!(busy_of("cpu  100 20 30 5000 60 7 3 0 0 0", 100.0), None);
        assert_eq!(busy_of("intr 1 2", 100.0), None);
        assert!(!busy_seconds().is_empty());
    }
}
