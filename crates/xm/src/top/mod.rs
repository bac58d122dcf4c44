//! `top`: what domains do, again and again; a full screen on a terminal, text or JSON for programs.

mod screen;
mod table;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use api::Daemon;
use clap::ArgMatches;
use control::DomainStats;
use serde_json::json;

use crate::daemon::daemon;
use crate::error::Error;
use crate::host::{Memory, Processors};
use crate::output::put;
use crate::signals::{Signals, obey};
use crate::stats::{Asked, ask_quietly, host_stats, value};
use crate::vcpus::host_vcpus;
use table::{Sample, Sort, View};

/// Words of `--sort`.
pub const SORT_WORDS: [&str; 7] = ["id", "name", "cpu-time", "cpu", "memory", "network", "disk"];
/// Shortest and longest pause between two looks, in seconds.
const PAUSES: std::ops::RangeInclusive<f64> = 0.1..=3600.0;
/// How long a signal may wait to be noticed.
const LOOK: Duration = Duration::from_millis(100);

/// `top [-b] [-d SECONDS] [-i N] [-n] [-x] [-v] [-f] [--sort=WORD] [--json]`.
///
/// # Errors
///
/// When the daemon cannot be asked, or the terminal cannot be used.
pub fn top(matches: &ArgMatches) -> Result<(), Error> {
    let seconds = matches.get_one::<f64>("delay").copied().unwrap_or(3.0);
    if !PAUSES.contains(&seconds) {
        return Err(Error::usage("top", "The delay is 0.1 to 3600 seconds."));
    }
    let view = View {
        sort: Sort::parse(matches.get_one::<String>("sort").map_or("id", String::as_str)),
        networks: matches.get_flag("networks"),
        disks: matches.get_flag("vbds"),
        vcpus: matches.get_flag("vcpus"),
        full_names: matches.get_flag("full-name"),
    };
    let delay = Duration::from_secs_f64(seconds);
    let iterations = matches.get_one::<u64>("iterations").copied().unwrap_or(0);
    let json = matches.get_flag("json");
    let daemon = daemon();
    let mut signals = Signals::catch().map_err(Error::Signals)?;
    let on_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let ended = if matches.get_flag("batch") || json || !on_terminal {
        batch(&daemon, &view, delay, iterations, json, &mut signals)?
    } else {
        screen::run(&daemon, view, delay, iterations, &mut signals)?
    };
    if let Some(signal) = ended {
        obey(signal);
    }
    Ok(())
}

/// Looks at all domains now.
fn look(daemon: &Daemon) -> Result<Sample, Error> {
    let domains: Vec<DomainStats> = ask_quietly(daemon)?
        .into_iter()
        .map(|asked| match asked {
            Asked::Host => DomainStats { vcpus: host_vcpus(), ..host_stats() },
            Asked::Domain(stats) => stats,
        })
        .collect();
    let (memory, processors) = (Memory::now(), Processors::now());
    let kib = |mib: u64| mib.saturating_mul(1024);
    Ok(Sample {
        at: Instant::now(),
        domains,
        memory: (kib(memory.total_mib), kib(memory.free_mib)),
        processors: (processors.count, processors.mhz.round() as u64),
    })
}

/// Prints all domains `iterations` times, 0 for ever; gives the signal that ended it.
fn batch(
    daemon: &Daemon,
    view: &View,
    delay: Duration,
    iterations: u64,
    json: bool,
    signals: &mut Signals,
) -> Result<Option<i32>, Error> {
    let mut before = None;
    let mut done = 0;
    loop {
        let now = look(daemon)?;
        put(&if json {
            as_json(&now, before.as_ref())?
        } else {
            text(view, &now, before.as_ref())
        })?;
        before = Some(now);
        done += 1;
        if done == iterations {
            return Ok(None);
        }
        let end = Instant::now() + delay;
        while Instant::now() < end {
            if let Some(signal) = signals.ending() {
                return Ok(Some(signal));
            }
            std::thread::sleep(end.saturating_duration_since(Instant::now()).min(LOOK));
        }
    }
}

fn text(view: &View, now: &Sample, before: Option<&Sample>) -> String {
    let lines = table::lines(view, now, before).into_iter().map(|line| line.text);
    std::iter::once(table::header()).chain(lines).map(|line| line + "\n").collect()
}

/// One line for each look.
fn as_json(now: &Sample, before: Option<&Sample>) -> Result<String, Error> {
    let shares = table::shares(now, before);
    let mut domains = Vec::new();
    for domain in &now.domains {
        let mut value = value(domain)?;
        if let Some(fields) = value.as_object_mut() {
            let share = shares.get(&domain.domid).copied().unwrap_or(0.0);
            fields.insert("cpu_percent".to_owned(), json!((share * 10.0).round() / 10.0));
        }
        domains.push(value);
    }
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Ok(format!("{}\n", json!({"time": time, "domains": domains})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_table() {
        assert_eq!(SORT_WORDS, Sort::WORDS.map(|(word, _)| word));
    }

    #[test]
    fn a_look_is_one_line_of_json() {
        let domain = table::tests::domain(5, "serv1", 1.0);
        let text = as_json(&table::tests::sample(Instant::now(), vec![domain]), None).unwrap();
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["domains"][0]["cpu_percent"], 0.0);
        assert_eq!(value["domains"][0]["disks"][0]["counters"]["reads"], 12);
    }
}
