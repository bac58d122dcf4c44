//! `list`, `uptime`, `domid`, `domname` and `info`: commands that only look.

use api::types::{Domain, Status};
use clap::ArgMatches;
use config::{DomainConfig, Sxp};
use control::{DomainInfo, StateFlags};
use serde_json::{Value, json};

use crate::daemon::{HOST_NAME, HOST_UUID, Subject, daemon, run, subjects, subjects_in_full};
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
    let form = match (set("json"), set("long"), tool) {
        (true, _, _) | (false, true, Tool::Xl) => Form::Json,
        (false, true, Tool::Xm) => Form::Long,
        (false, false, _) => Form::Table,
    };
    let names = words(matches, "domain");
    let filter = filter(given("state"), &names)?;
    let find = if form == Form::Table { subjects } else { subjects_in_full };
    let subjects = find(&daemon(), &names)?;
    let seen = subjects.iter().filter_map(|subject| seen(tool, filter, subject));
    put(&match form {
        Form::Table => list::table(tool, &seen.map(|seen| seen.row()).collect::<Vec<_>>()),
        Form::Json => {
            let values: Result<Vec<Value>, Error> = seen.map(|seen| seen.whole()).collect();
            format!("{}\n", serde_json::to_string_pretty(&values?)?)
        }
        Form::Long => seen.map(|seen| format!("{}\n", seen.long())).collect(),
    })
}

/// How domains are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Json,
    /// The S-expressions of xm.
    Long,
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
enum Seen<'a> {
    Host,
    Up(&'a DomainInfo),
    /// A stored one that does not run.
    Halted(&'a Domain, &'a DomainConfig),
    /// One that does not answer.
    Silent(&'a Domain),
}

/// A subject as it was seen; `None` if the filter leaves it out, or it does not run yet.
///
/// A domain that does not answer is listed all the same, with question marks and a warning, so
/// that it can be seen and destroyed.
fn seen(tool: Tool, filter: Filter, subject: &Subject) -> Option<Seen<'_>> {
    let domain = match subject {
        Subject::Host => return filter.shows(host_state()).then_some(Seen::Host),
        Subject::Domain(domain) => domain,
    };
    match (domain.status, &domain.info, &domain.config) {
        (Status::Up, Some(info), _) => filter.shows(info.state).then_some(Seen::Up(info)),
        // xl never had stored domains.
        (Status::Halted, _, Some(config)) => {
            let is_shown = tool == Tool::Xm && filter.shows_halted();
            is_shown.then_some(Seen::Halted(domain, config))
        }
        (Status::Starting, ..) => None,
        _ => {
            let trouble = domain.trouble.as_deref().unwrap_or("it did not answer");
            let warning = heading("Warning:", Colour::Yellow);
            note(&format!("{warning} domain {}: {trouble}", domain.name));
            filter.shows(StateFlags::default()).then_some(Seen::Silent(domain))
        }
    }
}

impl Seen<'_> {
    /// A line of the table.
    fn row(&self) -> Row {
        match self {
            Self::Host => host_row(),
            Self::Up(info) => Row::from(*info),
            Self::Halted(domain, config) => Row::halted(&domain.name, config),
            Self::Silent(domain) => Row {
                name: domain.name.clone(),
                id: domain.domid(),
                memory_mib: None,
                vcpus: None,
                state: StateFlags::default(),
                reason: None,
                cpu_seconds: None,
            },
        }
    }

    /// All that is known of it, for `--json`.
    fn whole(&self) -> Result<Value, Error> {
        Ok(match self {
            Self::Host => host_whole(),
            Self::Up(info) => whole(info)?,
            Self::Halted(domain, config) => json!({
                "name": domain.name, "uuid": domain.uuid, "state": "halted", "managed": true,
                "memory_mib": config.memory.initial, "maxmem_mib": config.memory.maximum,
                "vcpus": config.cpus.online, "config": serde_json::to_value(config)?,
            }),
            Self::Silent(domain) => {
                let run = domain.run.as_ref();
                json!({
                    "domid": domain.domid(), "name": domain.name, "uuid": domain.uuid.to_string(),
                    "pid": run.map(|run| run.pid), "state": StateFlags::default().to_string(),
                    "started": run.map(|run| run.started),
                })
            }
        })
    }

    /// The S-expression, for `--long` of xm.
    fn long(&self) -> Sxp {
        match self {
            Self::Host => host_long(),
            Self::Up(info) => long(info),
            Self::Halted(_, config) => {
                config.to_domain_sxp(&[], &[("status", "halted".to_owned())])
            }
            Self::Silent(domain) => facts_only(&[
                ("domid", domain.domid().map(|domid| domid.to_string()).unwrap_or_default()),
                ("name", domain.name.clone()),
                ("uuid", domain.uuid.to_string()),
                ("state", StateFlags::default().to_string()),
            ]),
        }
    }
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
    let before = ("domid", info.domid.to_string());
    let mut after = vec![
        ("uuid", info.uuid.to_string()),
        ("state", info.state.to_string()),
        ("cpu_time", format!("{:.3}", info.cpu_seconds)),
        ("online_vcpus", info.vcpus.to_string()),
        ("start_time", info.started.to_string()),
        ("restart_count", info.restarts.to_string()),
        ("pid", info.pid.to_string()),
    ];
    after.extend(info.shutdown_reason.map(|reason| ("shutdown_reason", reason.to_string())));
    let Some(config) = &info.config else {
        let facts = [before, ("name", info.name.clone())].into_iter().chain(after);
        return facts_only(&facts.collect::<Vec<_>>());
    };
    if config.general.uuid.is_some() {
        // The configuration names it already.
        after.remove(0);
    }
    config.to_domain_sxp(&[before], &after)
}

/// The S-expression of something without a configuration.
fn facts_only(facts: &[(&str, String)]) -> Sxp {
    Sxp::list("domain", facts.iter().map(|(key, value)| Sxp::pair(key, value.clone())))
}

fn host_state() -> StateFlags {
    StateFlags { running: true, ..StateFlags::default() }
}

/// Domain-0: the host's memory and processors, and the time that they were busy.
fn host_row() -> Row {
    Row {
        name: HOST_NAME.to_owned(),
        id: Some(0),
        memory_mib: Some(Memory::now().total_mib),
        vcpus: Some(u32::try_from(Processors::now().count).unwrap_or(u32::MAX)),
        state: host_state(),
        reason: None,
        cpu_seconds: Some(host::busy_seconds()),
    }
}

fn host_whole() -> Value {
    let row = host_row();
    json!({
        "domid": 0, "name": HOST_NAME, "uuid": HOST_UUID, "memory_mib": row.memory_mib,
        "maxmem_mib": row.memory_mib, "vcpus": row.vcpus, "state": row.state.to_string(),
        "cpu_seconds": row.cpu_seconds, "started": now().saturating_sub(host::uptime()),
    })
}

fn host_long() -> Sxp {
    let row = host_row();
    facts_only(&[
        ("domid", "0".to_owned()),
        ("name", row.name.clone()),
        ("uuid", HOST_UUID.to_owned()),
        ("memory", row.memory_mib.unwrap_or_default().to_string()),
        ("vcpus", row.vcpus.unwrap_or_default().to_string()),
        ("state", row.state.to_string()),
        ("cpu_time", format!("{:.3}", row.cpu_seconds.unwrap_or_default())),
    ])
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
