//! `shutdown`, `reboot`, `destroy`, `pause` and `unpause`.

use std::time::{Duration, Instant};

use api::types::{Domain, Status};
use api::{Daemon, Events};
use clap::ArgMatches;
use control::{ErrorCode, Hint, RegistryError, ShutdownKind, kill_point};

use crate::daemon::{Subject, daemon, known, run};
use crate::error::Error;
use crate::output::{note, put};

/// How long a wait goes on without looking again: events say when there is something to see.
const LOOK: Duration = Duration::from_secs(10);

/// The same while a domain is absent that has to come back.
const SHORT_LOOK: Duration = Duration::from_secs(1);

/// How long a rebooting domain may be absent before it counts as lost.
const ABSENT: Duration = Duration::from_secs(30);

/// `destroy D`. Returns when the domain is gone; a process that does not answer is killed.
///
/// # Errors
///
/// When there is no such domain, it is Domain-0, or it refuses; so for all of these.
pub fn destroy(word: &str) -> Result<(), Error> {
    let daemon = daemon();
    let destroyed = known(word, daemon.destroy(&id(&daemon, word, "destroy")?))?;
    if let Some(killed) = destroyed.killed {
        note(&killed);
    }
    Ok(())
}

/// The UUID of the domain that `word` names: another one with its name or number is not meant.
fn id(daemon: &Daemon, word: &str, verb: &'static str) -> Result<String, Error> {
    let domain = Subject::find(daemon, word)?.unprivileged(verb)?;
    run(&domain)?;
    kill_point("xm.order.found");
    Ok(domain.uuid.to_string())
}

/// `pause D`.
///
/// # Errors
///
/// As [`destroy`].
pub fn pause(word: &str) -> Result<(), Error> {
    let daemon = daemon();
    known(word, daemon.pause(&id(&daemon, word, "pause")?))
}

/// `unpause D`.
///
/// # Errors
///
/// As [`destroy`].
pub fn unpause(word: &str) -> Result<(), Error> {
    let daemon = daemon();
    known(word, daemon.unpause(&id(&daemon, word, "unpause")?))
}

/// `shutdown [-a] [-w] [-H|-R] D`.
///
/// # Errors
///
/// As [`destroy`].
pub fn shutdown(matches: &ArgMatches) -> Result<(), Error> {
    let set = |name: &str| matches.try_get_one::<bool>(name).is_ok_and(|flag| flag == Some(&true));
    let kind = match (set("halt"), set("reboot")) {
        (true, true) => return Err(Error::usage("shutdown", "Use only one of -H and -R.")),
        (true, false) => ShutdownKind::Halt,
        (false, true) => ShutdownKind::Reboot,
        (false, false) => ShutdownKind::Poweroff,
    };
    order("shutdown", "shut down", matches, kind)
}

/// `reboot [-a] [-w] D`.
///
/// # Errors
///
/// As [`destroy`].
pub fn reboot(matches: &ArgMatches) -> Result<(), Error> {
    order("reboot", "reboot", matches, ShutdownKind::Reboot)
}

fn order(
    command: &'static str,
    verb: &'static str,
    matches: &ArgMatches,
    kind: ShutdownKind,
) -> Result<(), Error> {
    let daemon = daemon();
    let word = matches.get_one::<String>("domain");
    let mut domains = match (matches.get_flag("all"), word) {
        (true, None) => daemon.domains()?,
        (false, Some(word)) => {
            let domain = Subject::find(&daemon, word)?.unprivileged(verb)?;
            run(&domain)?;
            vec![domain]
        }
        (true, Some(_)) => return Err(Error::usage(command, "Give a domain or -a, not both.")),
        (false, None) => return Err(Error::usage(command, "Give one domain, or -a for all.")),
    };
    domains.retain(|domain| domain.run.is_some());
    // What happens from here on is in the stream.
    let events = if matches.get_flag("wait") { Some(daemon.events()?) } else { None };
    kill_point("xm.shutdown.listening");
    let (told, failed) = tell(&daemon, &domains, kind)?;
    kill_point("xm.shutdown.told");
    if let Some(events) = events {
        match kind {
            ShutdownKind::Reboot => wait_rebooted(&daemon, events, &told)?,
            ShutdownKind::Poweroff | ShutdownKind::Halt => wait_gone(&daemon, events, &told)?,
        }
    }
    if failed > 0 { Err(Error::Some { failed, all: domains.len() }) } else { Ok(()) }
}

/// Sends the request to each domain. One that refuses does not keep the others from being told;
/// a single one's refusal is the command's own error.
fn tell(
    daemon: &Daemon,
    domains: &[Domain],
    kind: ShutdownKind,
) -> Result<(Vec<Domain>, usize), Error> {
    let mut told = Vec::new();
    let mut failed = 0;
    for domain in domains {
        match daemon.shutdown(&domain.uuid.to_string(), domain.domid(), kind) {
            Ok(()) => told.push(domain.clone()),
            // It has ended.
            Err(error) if is_gone(&error) && domains.len() > 1 => told.push(domain.clone()),
            Err(error) if domains.len() == 1 => return known(&domain.name, Err(error)),
            Err(error) => {
                failed += 1;
                note(&format!("Error: {}: {error}", domain.name));
                if let Some(hint) = error.hint() {
                    note(&hint);
                }
            }
        }
    }
    Ok((told, failed))
}

fn is_gone(error: &api::Error) -> bool {
    matches!(error.code(), Some(ErrorCode::Ended | ErrorCode::NotFound))
}

/// Waits until something has happened, or for `patience`. A stream that broke is begun anew: what
/// was missed is seen in the list.
fn next(daemon: &Daemon, events: &mut Events, patience: Duration) -> Result<(), Error> {
    if events.next(Some(patience))?.is_none() {
        *events = daemon.events()?;
    }
    Ok(())
}

/// Waits until each domain is gone, or has stopped and is kept by its `on_...` setting.
fn wait_gone(daemon: &Daemon, mut events: Events, told: &[Domain]) -> Result<(), Error> {
    let mut waiting: Vec<&Domain> = told.iter().collect();
    loop {
        let live = daemon.domains()?;
        let mut still = Vec::new();
        for domain in waiting {
            let now = live.iter().find(|other| other.domid() == domain.domid());
            if now.is_some_and(|now| !has_stopped(now)) {
                still.push(domain);
            } else {
                put(&format!("Domain {} terminated\n", domain.name))?;
            }
        }
        waiting = still;
        if waiting.is_empty() {
            return put("All domains terminated\n");
        }
        next(daemon, &mut events, LOOK)?;
    }
}

/// No answer is no proof of an end.
fn has_stopped(domain: &Domain) -> bool {
    let state = domain.info.as_ref().map(|info| info.state).unwrap_or_default();
    domain.status == Status::Halted || state.shutdown || state.crashed
}

/// Waits until each domain runs under a new number; one that stays away for [`ABSENT`] is lost.
fn wait_rebooted(daemon: &Daemon, mut events: Events, told: &[Domain]) -> Result<(), Error> {
    let mut waiting: Vec<(&Domain, Option<Instant>)> =
        told.iter().map(|domain| (domain, None)).collect();
    loop {
        let live = daemon.domains()?;
        let mut still = Vec::new();
        for (domain, absent) in waiting {
            let now = live.iter().find(|other| other.name == domain.name && other.run.is_some());
            match now {
                Some(new) if new.domid() != domain.domid() && new.status == Status::Up => {
                    put(&format!("Domain {} rebooted\n", domain.name))?;
                }
                Some(_) => still.push((domain, None)),
                None => {
                    let since = absent.unwrap_or_else(Instant::now);
                    if since.elapsed() >= ABSENT {
                        let seconds = ABSENT.as_secs();
                        return Err(Error::NotBack { name: domain.name.clone(), seconds });
                    }
                    still.push((domain, Some(since)));
                }
            }
        }
        waiting = still;
        if waiting.is_empty() {
            return put("All domains rebooted\n");
        }
        let is_absent = waiting.iter().any(|(_, absent)| absent.is_some());
        next(daemon, &mut events, if is_absent { SHORT_LOOK } else { LOOK })?;
    }
}

/// Whether an error only says that there is no such domain.
pub fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::Registry(RegistryError::Unknown(_)))
}
