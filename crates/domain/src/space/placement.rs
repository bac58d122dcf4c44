//! Which host CPUs a domain's vCPU runs on.
//!
//! With protection keys the spaces of a vCPU run one at a time and hand over by
//! futex. On one CPU that is a plain context switch; across CPUs it wakes an
//! idle one each time, which costs two to three times as much. So all spaces of
//! a domain keep to one CPU.
//!
//! With processes the space and the runner whose turn it is wait for each other
//! awake, which works only on two CPUs: the space keeps to one, all runners to
//! another.
//!
//! Both move when others want a CPU and another is freer.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::children::children;
use super::cpu_time::CpuTime;
use crate::isolation::Isolation;

/// How often the load is looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// When it is looked at first: spaces that came meanwhile are placed.
const FIRST: Duration = Duration::from_millis(20);
/// Share of a CPU by which another must be freer to be moved to.
const GAIN: f64 = 0.2;

/// CPUs that this process, and so its spaces, may use.
pub fn usable_cpus() -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect()
}

/// The CPUs a domain keeps to: one for its first space, one for all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seats {
    first: usize,
    others: usize,
}

impl Seats {
    /// The freest, by `load`; both are the same unless `apart`.
    fn freest(cpus: &[usize], apart: bool, load: impl Fn(usize) -> f64) -> Option<Self> {
        let mut sorted = cpus.to_vec();
        sorted.sort_by(|a, b| load(*a).total_cmp(&load(*b)));
        let others = *sorted.first()?;
        let first = if apart { *sorted.get(1)? } else { others };
        Some(Self { first, others })
    }

    fn load(self, load: impl Fn(usize) -> f64) -> f64 {
        if self.first == self.others {
            load(self.first)
        } else {
            load(self.first) + load(self.others)
        }
    }
}

/// Places the domain's spaces from now on, in a thread of its own; `leader` is
/// the first one, `domid` spreads domains over the CPUs at first. Does nothing
/// on a single CPU.
pub fn keep_placed(domid: u32, leader: Pid, isolation: Isolation) {
    let cpus = usable_cpus();
    if cpus.len() < 2 {
        return;
    }
    let apart = isolation != Isolation::Keys;
    let seat = |n: usize| cpus.get((domid as usize + n) % cpus.len()).copied().unwrap_or(0);
    let seats = Seats { first: seat(usize::from(apart)), others: seat(0) };
    // Without the thread spaces run where the host puts them: slower, no harm.
    let _ = thread::Builder::new()
        .name("placement".into())
        .spawn(move || place_for_ever(&cpus, leader, seats, apart));
}

fn place_for_ever(cpus: &[usize], leader: Pid, mut seats: Seats, apart: bool) {
    let mut placed = HashMap::new();
    let time = CpuTime::new();
    let (mut busy, mut own) = (busy_seconds(), time.seconds());
    place(&mut placed, leader, seats);
    thread::sleep(FIRST);
    loop {
        place(&mut placed, leader, seats);
        thread::sleep(PERIOD);
        let (busy_now, own_now) = (busy_seconds(), time.seconds());
        // What others use: our own share is spread over our seats.
        let used = (own_now - own) / PERIOD.as_secs_f64();
        let used = if apart { used / 2.0 } else { used };
        let load = |cpu: usize| {
            let of = |sample: &BTreeMap<usize, f64>| sample.get(&cpu).copied().unwrap_or(0.0);
            let all = (of(&busy_now) - of(&busy)) / PERIOD.as_secs_f64();
            if cpu == seats.first || cpu == seats.others { (all - used).max(0.0) } else { all }
        };
        if let Some(better) = Seats::freest(cpus, apart, load)
            && better.load(load) + GAIN < seats.load(load)
        {
            seats = better;
        }
        (busy, own) = (busy_now, own_now);
    }
}

/// Keeps spaces to their CPUs where they are not yet; those cloned later inherit it.
fn place(placed: &mut HashMap<i32, usize>, leader: Pid, seats: Seats) {
    let pids = children();
    placed.retain(|known, _| pids.iter().any(|pid| pid.as_raw_nonzero().get() == *known));
    for pid in pids {
        let cpu = if pid == leader { seats.first } else { seats.others };
        if placed.insert(pid.as_raw_nonzero().get(), cpu) == Some(cpu) {
            continue;
        }
        let mut set = CpuSet::new();
        set.set(cpu);
        // Gone meanwhile, or forbidden: it runs where it may.
        let _ = sched_setaffinity(Some(pid), &set);
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
    fn freest_seats_are_taken() {
        let load = |cpu: usize| [0.9, 0.1, 0.5, 0.2].get(cpu).copied().unwrap_or(1.0);
        let cpus = [0, 1, 2, 3];
        assert_eq!(Seats::freest(&cpus, false, load), Some(Seats { first: 1, others: 1 }));
        assert_eq!(Seats::freest(&cpus, true, load), Some(Seats { first: 3, others: 1 }));
        assert_eq!(Seats::freest(&[2], true, load), None);
        assert_eq!(Seats::freest(&[], false, load), None);
    }

    #[test]
    fn busy_time_is_read() {
        assert_eq!(busy_of("cpu1 100 20 30 5000 60 7 3 0 0 0", 100.0), Some((1, 1.6)));
        assert_eq!(busy_of("cpu  100 20 30 5000 60 7 3 0 0 0", 100.0), None);
        assert_eq!(busy_of("intr 1 2", 100.0), None);
        assert!(!busy_seconds().is_empty());
    }
}
