//! The tables of `list`, as the two tools print them.

use config::DomainConfig;
use control::{DomainInfo, ShutdownReason, StateFlags};

use crate::tool::Tool;

/// What one line of the table shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Name.
    pub name: String,
    /// Domain number; a stored domain that does not run has none.
    pub id: Option<u32>,
    /// Memory in MiB; this and the other figures are `None` if the domain gave no answer.
    pub memory_mib: Option<u64>,
    /// Online virtual CPUs.
    pub vcpus: Option<u32>,
    /// State letters.
    pub state: StateFlags,
    /// Why it stopped, if it did.
    pub reason: Option<ShutdownReason>,
    /// CPU time in seconds.
    pub cpu_seconds: Option<f64>,
}

impl From<&DomainInfo> for Row {
    fn from(info: &DomainInfo) -> Self {
        Self {
            name: info.name.clone(),
            id: Some(info.domid),
            memory_mib: Some(info.memory_mib),
            vcpus: Some(info.vcpus),
            state: info.state,
            reason: info.shutdown_reason,
            cpu_seconds: Some(info.cpu_seconds),
        }
    }
}

impl Row {
    /// A stored domain that does not run.
    pub fn halted(name: &str, config: &DomainConfig) -> Self {
        Self {
            name: name.to_owned(),
            id: None,
            memory_mib: Some(config.memory.initial),
            vcpus: Some(config.cpus.online),
            state: StateFlags::default(),
            reason: None,
            cpu_seconds: Some(0.0),
        }
    }
}

/// The whole table with its header.
pub fn table(tool: Tool, rows: &[Row]) -> String {
    let mut text = match tool {
        Tool::Xm => format!(
            "{:<40} {:>5} {:>5} {:>5} {:>10} {:>9}\n",
            "Name", "ID", "Mem", "VCPUs", "State", "Time(s)"
        ),
        Tool::Xl => {
            format!("{:<40} {:>5} {:>5} {:>5}\tState\tTime(s)\n", "Name", "ID", "Mem", "VCPUs")
        }
    };
    for row in rows {
        text.push_str(&line(tool, row));
    }
    text
}

fn line(tool: Tool, row: &Row) -> String {
    let name = &row.name;
    let id = row.id.map_or_else(String::new, |id| id.to_string());
    let memory_mib = figure(row.memory_mib);
    let vcpus = figure(row.vcpus);
    let cpu_seconds = figure(row.cpu_seconds.map(|seconds| format!("{seconds:.1}")));
    match tool {
        Tool::Xm => format!(
            "{name:<40} {id:>5} {memory_mib:>5} {vcpus:>5} {:>10} {cpu_seconds:>8}\n",
            if row.id.is_some() { xm_state(row.state) } else { String::new() }
        ),
        Tool::Xl => format!(
            "{name:<40} {id:>5} {memory_mib:>5} {vcpus:>5}     {}  {cpu_seconds:>8}\n",
            xl_state(row.state, row.reason)
        ),
    }
}

/// A figure, or `?` if it is not known.
fn figure<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

/// `rbpscd`; a crashed domain shows `c` without `s`.
fn xm_state(state: StateFlags) -> String {
    StateFlags { shutdown: state.shutdown && !state.crashed, ..state }.to_string()
}

/// `rbps?d`, where the fifth letter is the reason of the shutdown (`- r s c w` for poweroff,
/// reboot, suspend, crash, watchdog).
fn xl_state(state: StateFlags, reason: Option<ShutdownReason>) -> String {
    let stopped = state.shutdown || state.crashed;
    let letter = match reason {
        Some(ShutdownReason::Reboot) => 'r',
        Some(ShutdownReason::Suspend) => 's',
        Some(ShutdownReason::Crash) => 'c',
        Some(ShutdownReason::Watchdog) => 'w',
        Some(ShutdownReason::Poweroff | ShutdownReason::Destroyed) => '-',
        None if state.crashed => 'c',
        None => '-',
    };
    let letters = [
        (state.running, 'r'),
        (state.blocked, 'b'),
        (state.paused, 'p'),
        (stopped, 's'),
        (stopped, letter),
        (state.dying, 'd'),
    ];
    letters.iter().map(|(set, letter)| if *set { *letter } else { '-' }).collect()
}

/// The states that `list --state` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Every domain.
    All,
    /// Stored domains that do not run.
    Halted,
    /// Paused by a tool.
    Paused,
    /// Running or waiting for events.
    Running,
    /// Stored domains with a saved state; there are none yet.
    Suspended,
    /// Shut down and kept.
    Shutdown,
    /// Crashed and kept.
    Crashed,
    /// None of the above.
    Unknown,
}

impl Filter {
    /// The words, in the order of the reference.
    pub const WORDS: [(&'static str, Self); 8] = [
        ("all", Self::All),
        ("halted", Self::Halted),
        ("paused", Self::Paused),
        ("running", Self::Running),
        ("suspended", Self::Suspended),
        ("shutdown", Self::Shutdown),
        ("crashed", Self::Crashed),
        ("unknown", Self::Unknown),
    ];

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, filter)| *filter)
    }

    /// Whether a domain in `state` is shown.
    pub fn shows(self, state: StateFlags) -> bool {
        self == Self::All || self == Self::of(state)
    }

    /// Whether a stored domain that does not run is shown.
    pub fn shows_halted(self) -> bool {
        matches!(self, Self::All | Self::Halted)
    }

    fn of(state: StateFlags) -> Self {
        if state.crashed {
            Self::Crashed
        } else if state.shutdown || state.dying {
            Self::Shutdown
        } else if state.paused {
            Self::Paused
        } else {
            Self::Running
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, id: u32, state: StateFlags, cpu_seconds: f64) -> Row {
        Row {
            name: name.into(),
            id: Some(id),
            memory_mib: Some(128),
            vcpus: Some(1),
            state,
            reason: None,
            cpu_seconds: Some(cpu_seconds),
        }
    }

    #[test]
    fn xm_columns_are_those_of_4_1() {
        let running = StateFlags { running: true, ..StateFlags::default() };
        let blocked = StateFlags { blocked: true, ..StateFlags::default() };
        let rows = [row("Domain-0", 0, running, 1234.56), row("serv1", 5, blocked, 0.04)];
        let expected = "\
Name                                        ID   Mem VCPUs      State   Time(s)
Domain-0                                     0   128     1     r-----   1234.6
serv1                                        5   128     1     -b----      0.0
";
        assert_eq!(table(Tool::Xm, &rows), expected);
    }

    #[test]
    fn a_halted_domain_has_neither_id_nor_state() {
        let config = config::parse_str("f", "kernel = 'k'\nmemory = 64\nvcpus = 2\n", &[]);
        let row = Row::halted("serv1", &config.unwrap().config);
        let expected =
            "serv1                                             64     2                 0.0\n";
        assert_eq!(line(Tool::Xm, &row), expected);
    }

    #[test]
    fn xl_columns_have_tabs_in_the_header() {
        let crashed = StateFlags { shutdown: true, crashed: true, ..StateFlags::default() };
        let expected = "\
Name                                        ID   Mem VCPUs\tState\tTime(s)
serv1                                        5   128     1     ---sc-       7.0
";
        assert_eq!(table(Tool::Xl, &[row("serv1", 5, crashed, 7.0)]), expected);
    }

    #[test]
    fn long_names_and_big_figures_push_but_never_run_together() {
        let name = "n".repeat(45);
        let mut wide = row(&name, 123_456, StateFlags::default(), 1e9);
        wide.memory_mib = Some(1 << 20);
        let text = line(Tool::Xm, &wide);
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words, [&name, "123456", "1048576", "1", "------", "1000000000.0"]);
    }

    #[test]
    fn what_is_not_known_is_a_question_mark() {
        let mut silent = row("serv1", 5, StateFlags::default(), 0.0);
        (silent.memory_mib, silent.vcpus, silent.cpu_seconds) = (None, None, None);
        for tool in [Tool::Xm, Tool::Xl] {
            let text = line(tool, &silent);
            let words: Vec<&str> = text.split_whitespace().collect();
            assert_eq!(words, ["serv1", "5", "?", "?", "------", "?"]);
        }
    }

    #[test]
    fn a_crashed_domain_shows_c_without_s_in_xm() {
        let crashed = StateFlags { shutdown: true, crashed: true, ..StateFlags::default() };
        assert_eq!(xm_state(crashed), "----c-");
        let kept = StateFlags { shutdown: true, ..StateFlags::default() };
        assert_eq!(xm_state(kept), "---s--");
        let several = StateFlags { blocked: true, dying: true, ..StateFlags::default() };
        assert_eq!(xm_state(several), "-b---d");
    }

    #[test]
    fn xl_shows_the_reason() {
        let kept = StateFlags { shutdown: true, ..StateFlags::default() };
        assert_eq!(xl_state(kept, Some(ShutdownReason::Suspend)), "---ss-");
        assert_eq!(xl_state(kept, Some(ShutdownReason::Poweroff)), "---s--");
        assert_eq!(xl_state(StateFlags::default(), Some(ShutdownReason::Crash)), "------");
    }

    #[test]
    fn filters_read_their_words() {
        let paused = StateFlags { paused: true, blocked: true, ..StateFlags::default() };
        assert!(Filter::parse("paused").unwrap().shows(paused));
        assert!(!Filter::parse("running").unwrap().shows(paused));
        assert!(Filter::parse("all").unwrap().shows(paused));
        assert!(Filter::parse("running").unwrap().shows(StateFlags::default()));
        assert_eq!(Filter::parse("Running"), None);
    }
}
