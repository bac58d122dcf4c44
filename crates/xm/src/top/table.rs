//! The lines of `top`, in the columns of xentop.

use std::collections::BTreeMap;
use std::time::Instant;

use control::{DeviceStats, DomainStats, StateFlags};

/// Figures of all domains at one time.
#[derive(Debug)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// Domain-0 first.
    pub domains: Vec<DomainStats>,
    /// The host's memory in KiB: all of it, and what is free.
    pub memory: (u64, u64),
    /// The host's processors, and their clock rate in MHz.
    pub processors: (u64, u64),
}

/// What the lines are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Domain number.
    Id,
    /// Name.
    Name,
    /// CPU time, the most first; so for all below.
    CpuSeconds,
    /// Share of CPU time since the last look.
    CpuPercent,
    /// Memory.
    Memory,
    /// Bytes sent and received.
    Network,
    /// Sectors read and written.
    Disk,
}

impl Sort {
    /// Words of `--sort`, in the order in which the key goes through them.
    pub const WORDS: [(&'static str, Self); 7] = [
        ("id", Self::Id),
        ("name", Self::Name),
        ("cpu-time", Self::CpuSeconds),
        ("cpu", Self::CpuPercent),
        ("memory", Self::Memory),
        ("network", Self::Network),
        ("disk", Self::Disk),
    ];

    /// Reads the word.
    pub fn parse(word: &str) -> Self {
        Self::WORDS.iter().find(|(known, _)| *known == word).map_or(Self::Id, |(_, sort)| *sort)
    }

    /// The word.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, sort)| *sort == self).map_or("id", |(word, _)| word)
    }

    /// The next one.
    pub fn next(self) -> Self {
        let at = Self::WORDS.iter().position(|(_, sort)| *sort == self).unwrap_or(0);
        Self::WORDS.get(at + 1).map_or(Self::Id, |(_, sort)| *sort)
    }
}

/// What is shown.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Order of the domains.
    pub sort: Sort,
    /// A line for each network interface.
    pub networks: bool,
    /// A line for each disk.
    pub disks: bool,
    /// A line for the vCPUs.
    pub vcpus: bool,
    /// Names are not cut.
    pub full_names: bool,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The text.
    pub text: String,
    /// Whether it is a domain's first line.
    pub is_domain: bool,
}

/// Titles and widths of the columns.
const COLUMNS: [(&str, usize); 18] = [
    ("NAME", 10),
    ("STATE", 6),
    ("CPU(sec)", 10),
    ("CPU(%)", 6),
    ("MEM(k)", 10),
    ("MEM(%)", 6),
    ("MAXMEM(k)", 10),
    ("MAXMEM(%)", 9),
    ("VCPUS", 5),
    ("NETS", 4),
    ("NETTX(k)", 8),
    ("NETRX(k)", 8),
    ("VBDS", 4),
    ("VBD_OO", 8),
    ("VBD_RD", 8),
    ("VBD_WR", 8),
    ("VBD_RSECT", 10),
    ("VBD_WSECT", 10),
];
/// Longest name that is not cut.
const NAME: usize = 10;

/// The line with the titles.
pub fn header() -> String {
    columns(&COLUMNS.map(|(title, _)| title.to_owned()))
}

fn columns(cells: &[String; COLUMNS.len()]) -> String {
    let padded = cells.iter().zip(COLUMNS).map(|(cell, (_, width))| format!("{cell:>width$}"));
    padded.collect::<Vec<_>>().join(" ")
}

/// Shares of CPU time in percent of one CPU since the sample before, by domain number.
pub fn shares(now: &Sample, before: Option<&Sample>) -> BTreeMap<u32, f64> {
    let share = |domain: &DomainStats| {
        let before = before?;
        let old = before.domains.iter().find(|old| old.domid == domain.domid)?;
        let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
        let used = domain.cpu_seconds - old.cpu_seconds;
        (seconds > 0.0).then(|| (100.0 * used / seconds).max(0.0))
    };
    let shares = now.domains.iter().map(|domain| (domain.domid, share(domain).unwrap_or(0.0)));
    shares.collect()
}

/// All lines below the header.
pub fn lines(view: &View, now: &Sample, before: Option<&Sample>) -> Vec<Line> {
    let shares = shares(now, before);
    let share = |domain: &DomainStats| shares.get(&domain.domid).copied().unwrap_or(0.0);
    let mut domains: Vec<&DomainStats> = now.domains.iter().collect();
    let by = |figure: &dyn Fn(&DomainStats) -> f64, domains: &mut Vec<&DomainStats>| {
        domains.sort_by(|a, b| figure(b).total_cmp(&figure(a)));
    };
    match view.sort {
        Sort::Id => domains.sort_by_key(|domain| domain.domid),
        Sort::Name => domains.sort_by(|a, b| a.name.cmp(&b.name)),
        Sort::CpuSeconds => by(&|domain| domain.cpu_seconds, &mut domains),
        Sort::CpuPercent => by(&share, &mut domains),
        Sort::Memory => by(&|domain| domain.memory_kib as f64, &mut domains),
        Sort::Network => {
            let bytes = ["tx-bytes", "rx-bytes"];
            by(&|domain| sum(&domain.interfaces, &bytes) as f64, &mut domains);
        }
        Sort::Disk => {
            let sectors = ["sectors-read", "sectors-written"];
            by(&|domain| sum(&domain.disks, &sectors) as f64, &mut domains);
        }
    }
    let mut lines = Vec::new();
    for domain in domains {
        let text = domain_line(view, domain, share(domain), now.memory.0);
        lines.push(Line { text, is_domain: true });
        lines.extend(details(view, domain).into_iter().map(|text| Line { text, is_domain: false }));
    }
    lines
}

/// The sum of some counters over all devices.
fn sum(devices: &[DeviceStats], names: &[&str]) -> u64 {
    let counts = devices.iter().flat_map(|device| names.iter().map(|name| device.count(name)));
    counts.fold(0, u64::saturating_add)
}

fn domain_line(view: &View, domain: &DomainStats, share: f64, host_kib: u64) -> String {
    let name = match domain.name.char_indices().nth(NAME) {
        Some((end, _)) if !view.full_names => domain.name.get(..end).unwrap_or(&domain.name),
        _ => &domain.name,
    };
    let percent = |kib: u64| format!("{:.1}", 100.0 * kib as f64 / host_kib.max(1) as f64);
    let (nets, disks) = (&domain.interfaces, &domain.disks);
    let net = |name: &str| (sum(nets, &[name]) >> 10).to_string();
    let disk = |name: &str| sum(disks, &[name]).to_string();
    columns(&[
        name.to_owned(),
        state(domain.state),
        format!("{:.0}", domain.cpu_seconds),
        format!("{share:.1}"),
        domain.memory_kib.to_string(),
        percent(domain.memory_kib),
        domain.maxmem_kib.to_string(),
        percent(domain.maxmem_kib),
        domain.vcpus.len().to_string(),
        nets.len().to_string(),
        net("tx-bytes"),
        net("rx-bytes"),
        disks.len().to_string(),
        // Waiting for room in the host's file system, the nearest to what blkback counted here.
        disk("open"),
        disk("reads"),
        disk("writes"),
        disk("sectors-read"),
        disk("sectors-written"),
    ])
}

/// xentop's order of the letters is its own.
fn state(state: StateFlags) -> String {
    let letters = [
        (state.dying, 'd'),
        (state.shutdown, 's'),
        (state.blocked, 'b'),
        (state.crashed, 'c'),
        (state.paused, 'p'),
        (state.running, 'r'),
    ];
    letters.iter().map(|(set, letter)| if *set { *letter } else { '-' }).collect()
}

fn details(view: &View, domain: &DomainStats) -> Vec<String> {
    let mut lines = Vec::new();
    if view.vcpus && !domain.vcpus.is_empty() {
        let vcpu =
            |vcpu: &control::VcpuStats| format!("{:>4}: {:>10.0}s", vcpu.number, vcpu.cpu_seconds);
        let vcpus: Vec<String> = domain.vcpus.iter().map(vcpu).collect();
        lines.push(format!("VCPUs(sec): {}", vcpus.join(" ")));
    }
    if view.networks {
        for net in &domain.interfaces {
            lines.push(format!(
                "Net{} RX: {:>10}bytes {:>8}pkts {:>8}drop  TX: {:>10}bytes {:>8}pkts {:>8}drop",
                net.number,
                net.count("rx-bytes"),
                net.count("rx-packets"),
                net.count("rx-dropped"),
                net.count("tx-bytes"),
                net.count("tx-packets"),
                net.count("tx-refused")
            ));
        }
    }
    if view.disks {
        for disk in &domain.disks {
            lines.push(format!(
                "VBD {:>6}  OO: {:>8}   RD: {:>8}   WR: {:>8}  RSECT: {:>10}  WSECT: {:>10}",
                disk.number,
                disk.count("open"),
                disk.count("reads"),
                disk.count("writes"),
                disk.count("sectors-read"),
                disk.count("sectors-written")
            ));
        }
    }
    lines
}

/// The lines above the header.
pub fn summary(now: &Sample, clock: &str) -> [String; 3] {
    let count =
        |is: fn(&StateFlags) -> bool| now.domains.iter().filter(|domain| is(&domain.state)).count();
    let (total, free) = now.memory;
    let (cpus, mhz) = now.processors;
    [
        format!("xm top - {clock}   Xenolith {}", env!("CARGO_PKG_VERSION")),
        format!(
            "{} domains: {} running, {} blocked, {} paused, {} crashed, {} dying, {} shutdown",
            now.domains.len(),
            count(|state| state.running),
            count(|state| state.blocked),
            count(|state| state.paused),
            count(|state| state.crashed),
            count(|state| state.dying),
            count(|state| state.shutdown)
        ),
        format!(
            "Mem: {total}k total, {}k used, {free}k free    CPUs: {cpus} @ {mhz}MHz",
            total.saturating_sub(free)
        ),
    ]
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use control::VcpuStats;
    use std::time::Duration;

    pub fn domain(domid: u32, name: &str, cpu_seconds: f64) -> DomainStats {
        let counters = |list: &[(&str, u64)]| {
            list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let vcpu = VcpuStats {
            number: 0,
            online: true,
            blocked: true,
            cpu: Some(0),
            cpu_seconds,
            affinity: vec![0],
        };
        let disk = counters(&[("reads", 12), ("sectors-read", 800), ("writes", 3)]);
        let net = counters(&[("rx-bytes", 4096), ("tx-bytes", 2048), ("tx-packets", 5)]);
        DomainStats {
            domid,
            name: name.to_owned(),
            state: StateFlags { blocked: true, ..StateFlags::default() },
            cpu_seconds,
            memory_kib: 262_144,
            maxmem_kib: 524_288,
            resident_kib: 1000,
            vcpus: vec![vcpu],
            disks: vec![DeviceStats { number: 51712, counters: disk }],
            interfaces: vec![DeviceStats { number: 0, counters: net }],
        }
    }

    pub fn sample(at: Instant, domains: Vec<DomainStats>) -> Sample {
        Sample { at, domains, memory: (1 << 20, 1 << 19), processors: (2, 2400) }
    }

    pub const VIEW: View =
        View { sort: Sort::Id, networks: false, disks: false, vcpus: false, full_names: false };

    #[test]
    fn columns_are_those_of_xentop() {
        let start = Instant::now();
        let before = sample(start, vec![domain(5, "a-very-long-name", 10.0)]);
        let now = sample(start + Duration::from_secs(2), vec![domain(5, "a-very-long-name", 11.0)]);
        let expected = "      NAME  STATE   CPU(sec) CPU(%)     MEM(k) MEM(%)  MAXMEM(k) MAXMEM(%) VCPUS NETS NETTX(k) NETRX(k) VBDS   VBD_OO   VBD_RD   VBD_WR  VBD_RSECT  VBD_WSECT
a-very-lon --b---         11   50.0     262144   25.0     524288      50.0     1    1        2        4    1        0       12        3        800          0
";
        let lines = lines(&VIEW, &now, Some(&before));
        assert_eq!(format!("{}\n{}\n", header(), lines[0].text), expected);
    }

    #[test]
    fn sorting_and_details() {
        let now = sample(Instant::now(), vec![domain(1, "b", 1.0), domain(2, "a", 9.0)]);
        let first = |sort| lines(&View { sort, ..VIEW }, &now, None)[0].text.trim().to_owned();
        assert!(first(Sort::Id).starts_with('b'));
        assert!(first(Sort::Name).starts_with('a'));
        assert!(first(Sort::CpuSeconds).starts_with('a'));
        let all = View { networks: true, disks: true, vcpus: true, ..VIEW };
        let lines = lines(&all, &now, None);
        let texts: Vec<&str> = lines.iter().take(4).map(|line| line.text.as_str()).collect();
        assert!(texts[1].starts_with("VCPUs(sec):    0:          1s"), "{texts:?}");
        assert!(texts[2].starts_with("Net0 RX:       4096bytes"), "{texts:?}");
        assert!(texts[3].starts_with("VBD  51712  OO:        0   RD:       12"), "{texts:?}");
        assert_eq!(lines.iter().filter(|line| line.is_domain).count(), 2);
    }

    #[test]
    fn the_key_goes_through_all_orders() {
        let mut sort = Sort::Id;
        for (word, wanted) in Sort::WORDS {
            assert_eq!((sort, Sort::parse(word)), (wanted, wanted));
            sort = sort.next();
        }
        assert_eq!(sort, Sort::Id);
    }

    #[test]
    fn a_domain_that_is_new_has_no_share_yet() {
        let now = sample(Instant::now(), vec![domain(1, "b", 100.0)]);
        assert_eq!(shares(&now, Some(&sample(now.at, Vec::new()))).get(&1), Some(&0.0));
    }
}
