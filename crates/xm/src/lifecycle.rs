//! `shutdown`, `reboot`, `destroy`, `pause` and `unpause`.

use std::time::{Duration, Instant};

use clap::ArgMatches;
use control::{
    Client, ClientError, Entry, Registry, RegistryError, ShutdownKind, StateFlags, kill,
};

use crate::error::Error;
use crate::output::{note, put};
use crate::target::{Target, connect};

/// How often a wait looks at the registry.
const POLL: Duration = Duration::from_millis(250);

/// How long a rebooting domain may be absent before it counts as lost.
const ABSENT: Duration = Duration::from_secs(30);

/// How long `destroy` lets a process that does not answer take to die.
const DEATH: Duration = Duration::from_secs(10);

/// `destroy D`. Returns when the domain is gone; a process that does not answer is killed.
///
/// # Errors
///
/// When there is no such domain, it is Domain-0, or its process cannot be reached; so for all of
/// these.
pub fn destroy(word: &str) -> Result<(), Error> {
    let registry = Registry::open()?;
    let entry = Target::find(&registry, word)?.unprivileged("destroy")?;
    match Client::open(&entry).and_then(|mut client| client.destroy()) {
        // It went away before it could say so.
        Ok(()) | Err(ClientError::Ended { .. }) => Ok(()),
        Err(error @ ClientError::Timeout { .. }) => {
            note(&format!("{error}; its process {} is killed.", entry.pid));
            Ok(kill(&registry, &entry, DEATH)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// `pause D`.
///
/// # Errors
///
/// As [`destroy`].
pub fn pause(word: &str) -> Result<(), Error> {
    Ok(connect(&Registry::open()?, word, "pause")?.pause()?)
}

/// `unpause D`.
///
/// # Errors
///
/// As [`destroy`].
pub fn unpause(word: &str) -> Result<(), Error> {
    Ok(connect(&Registry::open()?, word, "unpause")?.unpause()?)
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
    let registry = Registry::open()?;
    let word = matches.get_one::<String>("domain");
    let entries = match (matches.get_flag("all"), word) {
        (true, None) => registry.list()?,
        (false, Some(word)) => vec![Target::find(&registry, word)?.unprivileged(verb)?],
        (true, Some(_)) => return Err(Error::usage(command, "Give a domain or -a, not both.")),
        (false, None) => return Err(Error::usage(command, "Give one domain, or -a for all.")),
    };
    let (told, failed) = tell(&entries, kind)?;
    if matches.get_flag("wait") {
        match kind {
            ShutdownKind::Reboot => wait_rebooted(&registry, &told)?,
            ShutdownKind::Poweroff | ShutdownKind::Halt => wait_gone(&registry, &told)?,
        }
    }
    if failed > 0 { Err(Error::Some { failed, all: entries.len() }) } else { Ok(()) }
}

/// Sends the request to each domain. One that refuses does not keep the others from being told;
/// a single one's refusal is the command's own error.
fn tell(entries: &[Entry], kind: ShutdownKind) -> Result<(Vec<Entry>, usize), Error> {
    let mut told = Vec::new();
    let mut failed = 0;
    for entry in entries {
        match Client::open(entry).and_then(|mut client| client.shutdown(kind)) {
            Ok(()) => told.push(entry.clone()),
            Err(error) if entries.len() == 1 => return Err(error.into()),
            Err(ClientError::Ended { .. }) => told.push(entry.clone()),
            Err(error) => {
                failed += 1;
                note(&format!("Error: {}: {error}", entry.name));
            }
        }
    }
    Ok((told, failed))
}

/// Waits until each domain is gone, or has stopped and is kept by its `on_...` setting.
fn wait_gone(registry: &Registry, told: &[Entry]) -> Result<(), Error> {
    let mut waiting: Vec<&Entry> = told.iter().collect();
    while !waiting.is_empty() {
        let live = registry.list()?;
        let mut still = Vec::new();
        for entry in waiting {
            if live.iter().any(|other| other.domid == entry.domid) && !has_stopped(entry) {
                still.push(entry);
            } else {
                put(&format!("Domain {} terminated\n", entry.name))?;
            }
        }
        waiting = still;
        if !waiting.is_empty() {
            std::thread::sleep(POLL);
        }
    }
    put("All domains terminated\n")
}

fn has_stopped(entry: &Entry) -> bool {
    let state: Result<StateFlags, ClientError> =
        Client::open(entry).and_then(|mut client| client.info()).map(|info| info.state);
    match state {
        Ok(state) => state.shutdown || state.crashed,
        // No answer is no proof of its end: the registry decides.
        Err(_) => false,
    }
}

/// Waits until each domain runs under a new number; one that stays away for [`ABSENT`] is lost.
fn wait_rebooted(registry: &Registry, told: &[Entry]) -> Result<(), Error> {
    let mut waiting: Vec<(&Entry, Option<Instant>)> =
        told.iter().map(|entry| (entry, None)).collect();
    while !waiting.is_empty() {
        let live = registry.list()?;
        let mut still = Vec::new();
        for (entry, absent) in waiting {
            match live.iter().find(|other| other.name == entry.name) {
                Some(new) if new.domid != entry.domid => {
                    put(&format!("Domain {} rebooted\n", entry.name))?;
                }
                Some(_) => still.push((entry, None)),
                None => {
                    let since = absent.unwrap_or_else(Instant::now);
                    if since.elapsed() >= ABSENT {
                        let seconds = ABSENT.as_secs();
                        return Err(Error::NotBack { name: entry.name.clone(), seconds });
                    }
                    still.push((entry, Some(since)));
                }
            }
        }
        waiting = still;
        if !waiting.is_empty() {
            std::thread::sleep(POLL);
        }
    }
    put("All domains rebooted\n")
}

/// Whether an error only says that there is no such domain.
pub fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::Registry(RegistryError::Unknown(_)))
}
