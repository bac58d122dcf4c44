//! What domains there are: a word is looked up, all are asked about themselves.

use crate::daemon::Daemon;
use crate::register::Kept;
use crate::talk;
use api::types::{Domain, Run, Status, unknown};
use control::{ClientError, DomainInfo, Entry, Failure, Request, Response, Uuid};
use std::sync::Arc;
use std::time::Duration;

/// How long a listing waits for a domain: whoever lists wants to see the others.
const PATIENCE: Duration = Duration::from_secs(2);

/// A running domain, and what it says of itself.
#[derive(Debug)]
pub struct Known {
    /// Its place in the registry.
    pub entry: Entry,
    /// Its answer; `None` if it ended meanwhile or does not listen yet.
    pub info: Option<Result<Box<DomainInfo>, ClientError>>,
}

/// What a word means.
#[derive(Debug)]
pub enum Found {
    /// A domain that runs.
    Running(Entry),
    /// A stored one that does not.
    Halted(Box<Kept>),
}

async fn ask(entry: Entry, brief: bool) -> Known {
    let info = match talk::ask(&entry, &Request::Info { brief }, PATIENCE).await {
        Ok(Response::Info(info)) => Some(Ok(info)),
        Ok(_) => Some(Err(ClientError::Unexpected { domid: entry.domid })),
        Err(ClientError::Ended { .. } | ClientError::Connect { .. }) => None,
        Err(error) => Some(Err(error)),
    };
    Known { entry, info }
}

/// Asks domains at the same time, so that several which do not answer cost no more time than one.
async fn ask_all(entries: Vec<Entry>, brief: bool) -> Vec<Known> {
    let asked: Vec<_> = entries.into_iter().map(|entry| tokio::spawn(ask(entry, brief))).collect();
    let mut known = Vec::new();
    for answer in asked {
        known.extend(answer.await);
    }
    known
}

impl Daemon {
    /// The domains that run now.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub(crate) fn live(self: &Arc<Self>) -> Result<Vec<Entry>, Failure> {
        self.scan().map_err(|error| talk::registry_failure(&error))
    }

    /// The domains that run now, with what they say of themselves in brief.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub(crate) async fn known(self: &Arc<Self>) -> Result<Vec<Known>, Failure> {
        Ok(ask_all(self.live()?, true).await)
    }

    /// Finds a domain in the order of xm: names of running, then of stored domains, numbers, UUIDs.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn find(self: &Arc<Self>, word: &str) -> Result<Found, Failure> {
        let live = self.live()?;
        let managed = self.state().managed.clone();
        let number = word.parse::<u32>().ok();
        let uuid = word.parse::<Uuid>().ok();
        let running = |test: &dyn Fn(&Entry) -> bool| {
            live.iter().find(|entry| test(entry)).cloned().map(Found::Running)
        };
        // One that runs under another name is found by its run.
        let halted = |test: &dyn Fn(&Kept) -> bool| {
            let kept = managed.iter().find(|kept| test(kept))?;
            running(&|entry| entry.uuid == kept.uuid)
                .or_else(|| Some(Found::Halted(Box::new(kept.clone()))))
        };
        running(&|entry| entry.name == word)
            .or_else(|| halted(&|kept| kept.name == word))
            .or_else(|| running(&|entry| Some(entry.domid) == number))
            .or_else(|| running(&|entry| Some(entry.uuid) == uuid))
            .or_else(|| halted(&|kept| Some(kept.uuid) == uuid))
            .ok_or_else(|| unknown(word))
    }

    /// A running domain as it is shown.
    fn show_running(&self, known: Known) -> Domain {
        let Known { entry, info } = known;
        let (status, info, trouble) = match info {
            Some(Ok(info)) => (Status::Up, Some(*info), None),
            Some(Err(error)) => (Status::Silent, None, Some(error.to_string())),
            None => (Status::Starting, None, None),
        };
        Domain {
            managed: self.state().managed.iter().any(|kept| kept.uuid == entry.uuid),
            name: entry.name,
            uuid: entry.uuid,
            status,
            run: Some(Run {
                domid: entry.domid,
                pid: entry.pid,
                started: entry.started,
                directory: entry.directory,
            }),
            info,
            trouble,
            config: None,
        }
    }

    /// One domain as it is shown.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn show(self: &Arc<Self>, word: &str) -> Result<Domain, Failure> {
        match self.find(word)? {
            Found::Running(entry) => {
                let known = ask(entry, false).await;
                // It may have gone while it was asked.
                if known.info.is_none() && !self.registry.lives(known.entry.domid) {
                    return Err(unknown(word));
                }
                Ok(self.show_running(known))
            }
            Found::Halted(kept) => Ok(show_halted(*kept)),
        }
    }

    /// All domains as they are shown: the running ones by number, in brief without their configurations,
    /// then the halted ones by name.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub(crate) async fn show_all(self: &Arc<Self>, brief: bool) -> Result<Vec<Domain>, Failure> {
        let mut known = ask_all(self.live()?, brief).await;
        known.retain(|known| known.info.is_some() || self.registry.lives(known.entry.domid));
        let mut shown: Vec<Domain> =
            known.into_iter().map(|known| self.show_running(known)).collect();
        let mut halted = self.state().managed.clone();
        halted.retain(|kept| !shown.iter().any(|domain| domain.uuid == kept.uuid));
        halted.sort_by(|one, other| one.name.cmp(&other.name));
        shown.extend(halted.into_iter().map(show_halted));
        Ok(shown)
    }
}

fn show_halted(kept: Kept) -> Domain {
    Domain {
        name: kept.name,
        uuid: kept.uuid,
        status: Status::Halted,
        managed: true,
        run: None,
        info: None,
        trouble: None,
        config: Some(kept.config),
    }
}
