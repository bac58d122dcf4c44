//! `claims`: what domains were promised of the host's memory; `vm-list`: domains by UUID.

use api::types::Claim;
use clap::ArgMatches;
use serde_json::{Value, json};

use crate::daemon::{HOST_NAME, HOST_UUID};
use crate::daemon::{Subject, daemon, subjects};
use crate::error::Error;
use crate::list::{Row, table};
use crate::output::put;
use crate::tool::Tool;

/// `claims [--json]`.
///
/// # Errors
///
/// When the daemon cannot be reached.
pub fn claims(matches: &ArgMatches) -> Result<(), Error> {
    let daemon = daemon();
    let claims = daemon.claims()?;
    if matches.get_flag("json") {
        return put(&format!("{}\n", serde_json::to_string_pretty(&claims)?));
    }
    let mut rows = Vec::new();
    for claim in &claims {
        let info = match claim.domid {
            // It may be gone by now.
            Some(domid) => daemon.domain(&domid.to_string()).ok().and_then(|domain| domain.info),
            None => None,
        };
        rows.push(match info {
            Some(info) => Row::from(&info),
            None => in_the_making(claim),
        });
    }
    let text = table(Tool::Xl, &rows);
    let column = std::iter::once("Claimed".to_owned())
        .chain(claims.iter().map(|claim| format!("{:>7}", claim.claimed_mib)));
    let lines = text.lines().zip(column).map(|(line, claimed)| format!("{line} {claimed}\n"));
    put(&lines.collect::<String>())
}

/// A domain that is being started.
fn in_the_making(claim: &Claim) -> Row {
    Row {
        name: claim.name.clone(),
        id: claim.domid,
        memory_mib: Some(claim.memory_mib),
        vcpus: None,
        state: control::StateFlags::default(),
        reason: None,
        cpu_seconds: None,
    }
}

/// `vm-list [--json]`: the domains that run.
///
/// # Errors
///
/// When the daemon cannot be reached.
pub fn vm_list(matches: &ArgMatches) -> Result<(), Error> {
    let mut rows = Vec::new();
    for subject in subjects(&daemon(), &[])? {
        match subject {
            Subject::Host => rows.push((HOST_UUID.to_owned(), 0, HOST_NAME.to_owned())),
            Subject::Domain(domain) => {
                let row = |domid| (domain.uuid.to_string(), domid, domain.name.clone());
                rows.extend(domain.domid().map(row));
            }
        }
    }
    if matches.get_flag("json") {
        let rows =
            rows.iter().map(|(uuid, id, name)| json!({"uuid": uuid, "domid": id, "name": name}));
        let rows: Vec<Value> = rows.collect();
        return put(&format!("{}\n", serde_json::to_string_pretty(&rows)?));
    }
    let lines = rows.iter().map(|(uuid, id, name)| format!("{uuid}  {id}    {name}\n"));
    let header = "UUID                                  ID    name\n".to_owned();
    put(&std::iter::once(header).chain(lines).collect::<String>())
}
