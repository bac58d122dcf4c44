//! Facts about the host, read from `/proc` and `/sys`.
//!
//! The parsers are pure functions of the files' texts. A file that is missing or odd gives an
//! unknown value (zero or an empty word), never an error: these are facts to show.

use std::fs::File;
use std::io::Read;

/// Longest file that is read, in bytes; `/proc/cpuinfo` of a host with a thousand CPUs fits.
const LONGEST: u64 = 8 << 20;

/// The text of a file of `/proc` or `/sys`, empty if it cannot be read.
pub fn text(path: &str) -> String {
    let mut text = String::new();
    if let Ok(file) = File::open(path) {
        drop(file.take(LONGEST).read_to_string(&mut text));
    }
    text
}

/// The host's memory in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total_mib: u64,
    /// What can be had without swapping (`MemAvailable`).
    pub free_mib: u64,
}

impl Memory {
    /// Reads the figures now.
    pub fn now() -> Self {
        Self::parse(&text("/proc/meminfo"))
    }

    fn parse(meminfo: &str) -> Self {
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse::<u64>().ok()
        };
        Self {
            total_mib: field("MemTotal").unwrap_or(0) / 1024,
            free_mib: field("MemAvailable").unwrap_or(0) / 1024,
        }
    }
}

/// The host's processors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Processors {
    /// Online logical processors.
    pub count: u64,
    /// Sockets.
    pub sockets: u64,
    /// Cores of one socket.
    pub cores_per_socket: u64,
    /// Threads of one core.
    pub threads_per_core: u64,
    /// Clock rate in MHz.
    pub mhz: f64,
    /// Feature words.
    pub flags: Vec<String>,
}

impl Processors {
    /// Reads the figures now.
    pub fn now() -> Self {
        Self::parse(&text("/proc/cpuinfo"))
    }

    fn parse(cpuinfo: &str) -> Self {
        let values = |name: &'static str| {
            cpuinfo.lines().filter_map(move |line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| value.trim())
            })
        };
        let number = |name| values(name).next().and_then(|word| word.parse::<u64>().ok());
        let count = values("processor").count().max(1) as u64;
        let mut sockets: Vec<&str> = values("physical id").collect();
        sockets.sort_unstable();
        sockets.dedup();
        let siblings = number("siblings").unwrap_or(count).max(1);
        let cores_per_socket = number("cpu cores").unwrap_or(siblings).max(1);
        Self {
            count,
            sockets: sockets.len().max(1) as u64,
            cores_per_socket,
            threads_per_core: (siblings / cores_per_socket).max(1),
            mhz: values("cpu MHz").next().and_then(|word| word.parse().ok()).unwrap_or(0.0),
            flags: values("flags").next().unwrap_or("").split(' ').map(str::to_owned).collect(),
        }
    }
}

/// NUMA nodes, from the list in `/sys/devices/system/node/online` ("0-1,3").
pub fn nodes() -> u64 {
    count_list(&text("/sys/devices/system/node/online")).max(1)
}

fn count_list(list: &str) -> u64 {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let (low, high) = (low.parse::<u64>().ok()?, high.parse::<u64>().ok()?);
        high.checked_sub(low)?.checked_add(1)
    });
    ranges.fold(0, u64::saturating_add)
}

/// Seconds that the host's processors were busy since its start: user, nice, system and
/// interrupt time of `/proc/stat`, in ticks of `ticks_per_second`.
pub fn busy_seconds() -> f64 {
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    busy_ticks(&text("/proc/stat")) as f64 / ticks as f64
}

/// The same for each CPU, by its number.
pub fn busy_by_cpu() -> Vec<(u32, f64)> {
    let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
    let stat = text("/proc/stat");
    let cpus = stat.lines().filter_map(|line| {
        let (cpu, rest) = line.strip_prefix("cpu")?.split_once(' ')?;
        Some((cpu.parse().ok()?, busy_ticks(&format!("cpu {rest}")) as f64 / ticks))
    });
    cpus.collect()
}

fn busy_ticks(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or("");
    let fields: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    // proc_stat(5): user nice system idle iowait irq softirq
    let busy = [0, 1, 2, 5, 6];
    busy.iter()
        .filter_map(|field| fields.get(*field))
        .fold(0, |sum, field| sum.saturating_add(*field))
}

/// Seconds since the host's start.
pub fn uptime() -> u64 {
    crate::uptime::host_uptime(&text("/proc/uptime")).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_mib() {
        let text = "MemTotal:       24117248 kB\nMemFree: 1 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(Memory::parse(text), Memory { total_mib: 23552, free_mib: 2 });
        assert_eq!(Memory::parse("junk"), Memory::default());
    }

    #[test]
    fn processors() {
        let one = "processor\t: 0\nphysical id\t: 0\nsiblings\t: 4\ncpu cores\t: 2\ncpu MHz\t\t: 2494.138\nflags\t\t: fpu vme\n\n";
        let two = one.replace("physical id\t: 0", "physical id\t: 1");
        let parsed = Processors::parse(&format!("{one}{two}"));
        assert_eq!((parsed.count, parsed.sockets), (2, 2));
        assert_eq!((parsed.cores_per_socket, parsed.threads_per_core), (2, 2));
        assert_eq!(parsed.mhz, 2494.138);
        assert_eq!(parsed.flags, ["fpu", "vme"]);
        let unknown = Processors::parse("");
        assert_eq!((unknown.count, unknown.sockets, unknown.threads_per_core), (1, 1, 1));
    }

    #[test]
    fn lists_and_ticks() {
        assert_eq!(count_list("0\n"), 1);
        assert_eq!(count_list("0-3,8,10-11"), 7);
        assert_eq!(count_list("3-0,x"), 0);
        assert_eq!(busy_ticks("cpu  1 2 4 800 900 8 16 0\ncpu0 9\n"), 31);
        assert_eq!(busy_ticks(""), 0);
    }
}
