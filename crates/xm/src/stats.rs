//! `stats`: what domains have used and moved so far.

use api::{Daemon, Error as ApiError};
use clap::ArgMatches;
use control::{DeviceStats, DomainStats, ErrorCode};
use serde_json::{Value, json};

use crate::daemon::{HOST_NAME, Subject, daemon, run, subjects};
use crate::error::Error;
use crate::host::{self, Memory, Processors};
use crate::output::{Colour, heading, note, put};
use crate::words;

/// Bytes in a sector of a virtual disk.
const SECTOR: u64 = 512;

/// What was asked.
#[derive(Debug)]
pub enum Asked {
    /// Domain-0, which has no process to ask.
    Host,
    /// A domain and its answer.
    Domain(DomainStats),
}

/// Asks the domains that `words` name; all of them, Domain-0 first, if there are no words. Of one that does
/// not answer standard error tells.
///
/// # Errors
///
/// When a named domain does not exist or is not started.
pub fn ask(words: &[String]) -> Result<Vec<Asked>, Error> {
    let daemon = daemon();
    if words.is_empty() {
        let all = daemon.all_stats()?;
        all.silent.iter().for_each(|silent| warn(&silent.who.name, &silent.trouble));
        return Ok(everyone(all.domains));
    }
    let mut asked = Vec::new();
    for subject in subjects(&daemon, words)? {
        match subject {
            Subject::Host => asked.push(Asked::Host),
            Subject::Domain(domain) => {
                let _it_runs = run(&domain)?;
                match daemon.stats(&domain.uuid.to_string()) {
                    Ok(stats) => asked.push(Asked::Domain(stats)),
                    Err(error) if is_silence(&error) => warn(&domain.name, &error.to_string()),
                    Err(error) if has_ended(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(asked)
}

/// Asks all domains, Domain-0 first. Who does not answer is left out.
///
/// # Errors
///
/// When the daemon cannot be asked.
pub fn ask_quietly(daemon: &Daemon) -> Result<Vec<Asked>, Error> {
    Ok(everyone(daemon.all_stats()?.domains))
}

fn everyone(domains: Vec<DomainStats>) -> Vec<Asked> {
    std::iter::once(Asked::Host).chain(domains.into_iter().map(Asked::Domain)).collect()
}

fn warn(name: &str, trouble: &str) {
    note(&format!("{} domain {name}: {trouble}", heading("Warning:", Colour::Yellow)));
}

fn is_silence(error: &ApiError) -> bool {
    error.code() == Some(ErrorCode::Timeout)
}

/// It ended after it was found.
fn has_ended(error: &ApiError) -> bool {
    let codes = [ErrorCode::NotFound, ErrorCode::WrongState, ErrorCode::Ended];
    error.code().is_some_and(|code| codes.contains(&code))
}

/// Domain-0 as a domain: the host's memory and processors.
pub fn host_stats() -> DomainStats {
    let memory = Memory::now();
    let kib = |mib: u64| mib.saturating_mul(1024);
    DomainStats {
        domid: 0,
        name: HOST_NAME.to_owned(),
        state: control::StateFlags { running: true, ..Default::default() },
        cpu_seconds: host::busy_seconds(),
        memory_kib: kib(memory.total_mib),
        maxmem_kib: kib(memory.total_mib),
        resident_kib: kib(memory.total_mib.saturating_sub(memory.free_mib)),
        vcpus: Vec::new(),
        disks: Vec::new(),
        interfaces: Vec::new(),
    }
}

/// `stats [--json] [D...]`.
///
/// # Errors
///
/// When a named domain does not exist.
pub fn stats(matches: &ArgMatches) -> Result<(), Error> {
    let asked = ask(&words(matches, "domain"))?;
    let all: Vec<DomainStats> = asked
        .into_iter()
        .map(|asked| match asked {
            Asked::Host => host_stats(),
            Asked::Domain(stats) => stats,
        })
        .collect();
    if matches.get_flag("json") {
        let values: Result<Vec<Value>, Error> = all.iter().map(value).collect();
        return put(&format!("{}\n", serde_json::to_string_pretty(&values?)?));
    }
    put(&all.iter().map(text).collect::<Vec<_>>().join("\n"))
}

/// A domain's figures, with its state in letters.
pub fn value(stats: &DomainStats) -> Result<Value, Error> {
    let mut value = serde_json::to_value(stats)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("state".to_owned(), stats.state.to_string().into());
        if stats.domid == 0 {
            fields.insert("vcpus".to_owned(), json!(Processors::now().count));
        }
    }
    Ok(value)
}

/// A domain's figures for people.
fn text(stats: &DomainStats) -> String {
    let mut text = format!(
        "{} (id={}, {}): {:.1} s of CPU time\n  memory: {} MiB of at most {} MiB; {} MiB are in \
         the host's memory\n",
        stats.name,
        stats.domid,
        stats.state,
        stats.cpu_seconds,
        stats.memory_kib >> 10,
        stats.maxmem_kib >> 10,
        stats.resident_kib >> 10
    );
    for disk in &stats.disks {
        text.push_str(&format!(
            "  disk {}: {} reads ({}), {} writes ({}), {} flushes, {} errors\n",
            disk.number,
            disk.count("reads"),
            size(read_bytes(disk)),
            disk.count("writes"),
            size(written_bytes(disk)),
            disk.count("flushes"),
            disk.count("errors")
        ));
    }
    for vif in &stats.interfaces {
        text.push_str(&format!(
            "  interface {}: sent {} packets ({}), received {} packets ({}), {} lost\n",
            vif.number,
            vif.count("tx-packets"),
            size(vif.count("tx-bytes")),
            vif.count("rx-packets"),
            size(vif.count("rx-bytes")),
            vif.count("rx-dropped").saturating_add(vif.count("tx-refused"))
        ));
    }
    text
}

/// Bytes that a disk was read.
pub fn read_bytes(disk: &DeviceStats) -> u64 {
    disk.count("sectors-read").saturating_mul(SECTOR)
}

/// Bytes that a disk was written.
pub fn written_bytes(disk: &DeviceStats) -> u64 {
    disk.count("sectors-written").saturating_mul(SECTOR)
}

/// A number of bytes with three digits or so.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{bytes} {name}") } else { format!("{value:.1} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn bytes_for_people() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn devices_are_told_by_their_counters() {
        let counters = [("reads", 3), ("sectors-read", 4096)];
        let counters: BTreeMap<String, u64> =
            counters.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        let mut stats = host_stats();
        stats.disks = vec![DeviceStats { number: 51712, counters }];
        let text = text(&stats);
        assert!(text.contains("disk 51712: 3 reads (2.0 MiB), 0 writes (0 B)"), "{text}");
        let value = value(&stats).unwrap();
        assert_eq!((&value["state"], &value["domid"]), (&"r-----".into(), &0.into()));
    }
}
