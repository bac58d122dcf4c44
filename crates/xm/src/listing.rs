//! `list`, `uptime`, `domid`, `domname` and `info`: commands that only look.

use api::types::{Domain, Status};
use clap::ArgMatches;
use config::{DomainConfig, Sxp};
use control::{DomainInfo, StateFlags};
use serde_json::{Value, json};

use crate::daemon::{HOST_NAME, HOST_UUID, Subject, daemon, run, subjects};
use crate::error::Error;
use crate::host::{self, Memory, Processors};
use crate::list::{self, Filter, Row};
use crate::output::{Colour, heading, note, put};
use crate::tool::Tool;
use crate::{info, uptime, words};

/// `list [-l|--long] [--json] [--state=S] [NAME...]`.
///
/// # Errors
///
/// When a named domain does not exist, or an option is not there yet.
pub fn list(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    let set = |name: &str| matches.try_get_one::<bool>(name).is_ok_and(|flag| flag == Some(&true));
    let given = |name: &str| matches.try_get_one::<String>(name).ok().flatten();
    let missing = |option: &str, entry: &str| not_there(tool, "list", option, entry);
    if set("vcpus") {
        note("list -v is deprecated. Please use vcpu-list.");
        return crate::vcpus::vcpu_list(tool, matches);
    }
    if set("label") {
        return Err(missing("--label", "labels"));
    }
    if given("pool").is_some() {
        return Err(missing("--pool", "cpupool-list"));
    }
    let names = words(matches, "domain");
    let filter = filter(given("state"), &names)?;
    let mut shown = Vec::new();
    for subject in subjects(&daemon(), &names)? {
        shown.extend(seen(tool, filter, subject)?);
    }
    put(&match (set("json"), set("long"), tool) {
        (true, _, _) | (false, true, Tool::Xl) => json_text(shown)?,
        (false, true, Tool::Xm) => shown.iter().map(|seen| format!("{}\n", seen.long)).collect(),
        (false, false, _) => {
            let rows: Vec<Row> = shown.into_iter().map(|seen| seen.row).collect();
            list::table(tool, &rows)
        }
    })
}

fn filter(state: Option<&String>, names: &[String]) -> Result<Filter, Error> {
    let Some(word) = state else { return Ok(Filter::All) };
    if !names.is_empty() {
        return Err(Error::usage("list", "You can specify either --state or domain names."));
    }
    Filter::parse(word).ok_or_else(|| {
        let known = Filter::WORDS.map(|(word, _)| word).join(", ");
        Error::usage("list", format!("'{word}' is no state; expected one of {known}."))
    })
}

/// The error for an option whose subject belongs to the command `entry`.
fn not_there(tool: Tool, command: &str, option: &str, entry: &str) -> Error {
    let lacks = crate::commands::exact(entry).and_then(|entry| entry.lacks).unwrap_or("more work");
    Error::NotThere { tool: tool.name(), command: format!("{command} {option}"), lacks }
}

/// A domain as it was seen.
struct Seen {
    row: Row,
    /// For `--json`.
    whole: Value,
    /// For `--long` of xm.
    long: Sxp,
}

/// A subject as it is shown; `None` if the filter leaves it out, or it does not run yet.
///
/// A domain that does not answer is listed all the same, with question marks and a warning, so
/// that it can be seen and destroyed.
fn seen(tool: Tool, filter: Filter, subject: Subject) -> Result<Option<Seen>, Error> {
    let domain = match subject {
        Subject::Host => {
            return Ok(Some(host_seen()).filter(|seen| filter.shows(seen.row.state)));
        }
        Subject::Domain(domain) => domain,
    };
    let seen = match (domain.status, &domain.info, &domain.config) {
        (Status::Up, Some(info), _) => {
            Seen { row: Row::from(info), whole: whole(info)?, long: long(info) }
        }
        // xl never had stored domains.
        (Status::Halted, _, Some(config)) => {
            let is_shown = tool == Tool::Xm && filter.shows_halted();
            return is_shown.then(|| halted_seen(&domain, config)).transpose();
        }
        (Status::Starting, ..) => return Ok(None),
        _ => {
            let trouble = domain.trouble.as_deref().unwrap_or("it did not answer");
            let warning = heading("Warning:", Colour::Yellow);
            note(&format!("{warning} domain {}: {trouble}", domain.name));
            silent(&domain)
        }
    };
    Ok(Some(seen).filter(|seen| filter.shows(seen.row.state)))
}

/// All that a domain says of itself, with its state in letters.
fn whole(info: &DomainInfo) -> Result<Value, Error> {
    let mut value = serde_json::to_value(info)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("state".to_owned(), info.state.to_string().into());
    }
    Ok(value)
}

/// The S-expression of a domain: its number, its configuration, and how it is doing.
fn long(info: &DomainInfo) -> Sxp {
    let mut after = vec![
        ("uuid", info.uuid.to_string()),
        ("state", info.state.to_string()),
        ("cpu_time", format!("{:.3}", info.cpu_seconds)),
        ("online_vcpus", info.vcpus.to_string()),
        ("start_time", info.started.to_string()),
        ("restart_count", info.restarts.to_string()),
        ("pid", info.pid.to_string()),
    ];
    if info.config.general.uuid.is_some() {
        // The configuration names it already.
        after.remove(0);
    }
    after.extend(info.shutdown_reason.map(|reason| ("shutdown_reason", reason.to_string())));
    info.config.to_domain_sxp(&[("domid", info.domid.to_string())], &after)
}

/// The S-expression of something without a configuration.
fn facts_only(facts: &[(&str, String)]) -> Sxp {
    Sxp::list("domain", facts.iter().map(|(key, value)| Sxp::pair(key, value.clone())))
}

/// A stored domain that does not run.
fn halted_seen(domain: &Domain, config: &DomainConfig) -> Result<Seen, Error> {
    Ok(Seen {
        row: Row::halted(&domain.name, config),
        whole: json!({
            "name": domain.name, "uuid": domain.uuid, "state": "halted", "managed": true,
            "memory_mib": config.memory.initial, "maxmem_mib": config.memory.maximum,
            "vcpus": config.cpus.online, "config": serde_json::to_value(config)?,
        }),
        long: config.to_domain_sxp(&[], &[("status", "halted".to_owned())]),
    })
}

fn silent(domain: &Domain) -> Seen {
    let state = StateFlags::default();
    let (domid, pid, started) = match &domain.run {
        Some(run) => (Some(run.domid), Some(run.pid), Some(run.started)),
        None => (None, None, None),
    };
    Seen {
        row: Row {
            name: domain.name.clone(),
            id: domid,
            memory_mib: None,
            vcpus: None,
            state,
            reason: None,
            cpu_seconds: None,
        },
        whole: json!({
            "domid": domid, "name": domain.name, "uuid": domain.uuid.to_string(),
            "pid": pid, "state": state.to_string(), "started": started,
        }),
        long: facts_only(&[
            ("domid", domid.map(|domid| domid.to_string()).unwrap_or_default()),
            ("name", domain.name.clone()),
            ("uuid", domain.uuid.to_string()),
            ("state", state.to_string()),
        ]),
    }
}

/// Domain-0: the host's memory and processors, and the time that they were busy.
fn host_seen() -> Seen {
    let state = StateFlags { running: true, ..StateFlags::default() };
    let memory_mib = Memory::now().total_mib;
    let vcpus = u32::try_from(Processors::now().count).unwrap_or(u32::MAX);
    let cpu_seconds = host::busy_seconds();
    let row = Row {
        name: HOST_NAME.to_owned(),
        id: Some(0),
        memory_mib: Some(memory_mib),
        vcpus: Some(vcpus),
        state,
        reason: None,
        cpu_seconds: Some(cpu_seconds),
    };
    let whole = json!({
        "domid": 0, "name": HOST_NAME, "uuid": HOST_UUID, "memory_mib": memory_mib,
        "maxmem_mib": memory_mib, "vcpus": vcpus, "state": state.to_string(),
        "cpu_seconds": cpu_seconds, "started": now().saturating_sub(host::uptime()),
    });
    let long = facts_only(&[
        ("domid", "0".to_owned()),
        ("name", row.name.clone()),
        ("uuid", HOST_UUID.to_owned()),
        ("memory", memory_mib.to_string()),
        ("vcpus", vcpus.to_string()),
        ("state", state.to_string()),
        ("cpu_time", format!("{:.3}", cpu_seconds)),
    ]);
    Seen { row, whole, long }
}

fn json_text(shown: Vec<Seen>) -> Result<String, Error> {
    let values: Vec<Value> = shown.into_iter().map(|seen| seen.whole).collect();
    Ok(format!("{}\n", serde_json::to_string_pretty(&values)?))
}

/// `uptime [-s] [--json] [NAME...]`.
///
/// # Errors
///
/// When a named domain does not exist.
pub fn uptime(matches: &ArgMatches) -> Result<(), Error> {
    let names = words(matches, "domain");
    let now = now();
    let mut up = Vec::new();
    for subject in subjects(&daemon(), &names)? {
        match &subject {
            Subject::Host => up.push((HOST_NAME.to_owned(), 0, host::uptime())),
            // Among all, one that does not run is left out.
            Subject::Domain(domain) if domain.run.is_none() && names.is_empty() => {}
            Subject::Domain(domain) => {
                let run = run(domain)?;
                up.push((domain.name.clone(), run.domid, now.saturating_sub(run.started)));
            }
        }
    }
    let text = if matches.get_flag("json") {
        let values: Vec<Value> = up
            .iter()
            .map(|(name, domid, seconds)| {
                json!({"domid": domid, "name": name, "uptime_seconds": seconds})
            })
            .collect();
        format!("{}\n", serde_json::to_string_pretty(&values)?)
    } else if matches.get_flag("short") {
        let clock = local_clock();
        let line = |(name, domid, seconds): &(String, u32, u64)| {
            uptime::short_line(name, *domid, *seconds, clock)
        };
        up.iter().map(line).collect()
    } else {
        let line =
            |(name, domid, seconds): &(String, u32, u64)| uptime::line(name, *domid, *seconds);
        std::iter::once(uptime::header()).chain(up.iter().map(line)).collect()
    };
    put(&text)
}

/// Seconds since the epoch.
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The local time of day in seconds since midnight.
fn local_clock() -> u64 {
    let time = jiff::Zoned::now().time();
    let part = |part: i8| u64::try_from(part).unwrap_or(0);
    part(time.hour()) * 3600 + part(time.minute()) * 60 + part(time.second())
}

/// `domid NAME`.
///
/// # Errors
///
/// When there is no such domain.
pub fn domid(word: &str) -> Result<(), Error> {
    let domid = match Subject::find(&daemon(), word)? {
        Subject::Host => 0,
        Subject::Domain(domain) => run(&domain)?.domid,
    };
    put(&format!("{domid}\n"))
}

/// `domname ID`.
///
/// # Errors
///
/// When there is no such domain.
pub fn domname(word: &str) -> Result<(), Error> {
    put(&format!("{}\n", Subject::find(&daemon(), word)?.name()))
}

/// `info [--json]`.
///
/// # Errors
///
/// When an option is not there yet.
pub fn info(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    let missing = |option: &str, lacks| Error::NotThere {
        tool: tool.name(),
        command: format!("info {option}"),
        lacks,
    };
    if matches.get_flag("config") {
        return crate::settings::print(matches.get_flag("json"));
    }
    if matches.get_flag("numa") {
        return Err(missing("-n", "placing of domains on NUMA nodes"));
    }
    let facts = info::facts(tool, &daemon().host()?);
    if matches.get_flag("json") {
        return put(&format!("{}\n", serde_json::to_string_pretty(&info::json(facts))?));
    }
    put(&info::lines(&facts))
}
