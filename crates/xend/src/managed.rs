//! Stored domains.

use crate::daemon::{Daemon, now};
use crate::launch::Order;
use crate::look::Found;
use crate::refusal::check_config;
use crate::register::{Change, Kept};
use api::types::{Happening, Managed, Replace, Start, Started, Store, Stored, Who, unknown};
use control::{ErrorCode, Failure, Record, Uuid, check_name, kill_point};
use std::sync::Arc;

/// Most stored domains: far more than a host can run.
const MOST: usize = 4096;

pub(crate) fn who(kept: &Kept) -> Who {
    Who { domid: None, name: kept.name.clone(), uuid: kept.uuid }
}

pub(crate) fn unwritten(error: String) -> Failure {
    Failure::new(ErrorCode::Host, error)
        .with_hint("Nothing has changed. See whether its disk is full.")
}

impl Daemon {
    /// Stores a domain.
    ///
    /// # Errors
    /// When its name or UUID is taken, or it cannot be written.
    pub(crate) async fn keep(self: &Arc<Self>, store: Store) -> Result<Stored, Failure> {
        let Store { mut config, directory } = store;
        check_config(&config)?;
        let name = config.general.name.clone();
        check_name(&name).map_err(|error| crate::talk::registry_failure(&error))?;
        let uuid = match &config.general.uuid {
            Some(uuid) => Uuid(uuid.0),
            None => Uuid::random().map_err(|error| {
                Failure::new(ErrorCode::Host, format!("Cannot draw a UUID: {error}"))
            })?,
        };
        config.general.uuid = Some(config::Uuid(uuid.0));
        let _held = self.names.lock().await;
        self.check_free(&name, uuid, false)?;
        if self.state().managed.len() >= MOST {
            let message = format!("There are {MOST} stored domains already");
            return Err(Failure::new(ErrorCode::Busy, message)
                .with_hint("'xm delete' removes those that are no longer needed."));
        }
        let kept = Kept { name, uuid, stored: now(), config, directory, revision: 0 };
        kill_point("xend.keep.checked");
        let written = self.journal.written(Change::Keep(Box::new(kept.clone()))).await;
        kill_point("xend.keep.written");
        written.map_err(unwritten)?;
        self.log(Record::info("stored the domain").about(&kept.name).with("uuid", uuid));
        self.tell(Happening::Stored(who(&kept)));
        kill_point("xend.keep.told");
        let stored = Stored { name: kept.name.clone(), uuid };
        self.state().managed.push(kept);
        Ok(stored)
    }

    /// The stored domain that `word` names.
    fn kept(self: &Arc<Self>, word: &str) -> Result<Kept, Failure> {
        let found = self.find(word)?;
        let (uuid, name) = match &found {
            Found::Running(entry) => (entry.uuid, entry.name.clone()),
            Found::Halted(kept) => (kept.uuid, kept.name.clone()),
        };
        let kept = self.state().managed.iter().find(|kept| kept.uuid == uuid).cloned();
        kept.ok_or_else(|| {
            Failure::new(ErrorCode::WrongState, format!("Domain '{name}' is not stored"))
                .with_hint("Only domains that 'xm new' stored can be started, edited and deleted.")
        })
    }

    fn shown(self: &Arc<Self>, kept: Kept) -> Result<Managed, Failure> {
        let Kept { name, uuid, config, directory, revision, .. } = kept;
        let run = self.live()?.into_iter().find(|entry| entry.uuid == uuid);
        Ok(Managed { name, uuid, revision, domid: run.map(|run| run.domid), config, directory })
    }

    /// A stored domain's configuration.
    ///
    /// # Errors
    /// When there is no such stored domain.
    pub(crate) fn managed(self: &Arc<Self>, word: &str) -> Result<Managed, Failure> {
        let kept = self.kept(word)?;
        self.shown(kept)
    }

    /// Gives a stored domain another configuration, from its next start on.
    ///
    /// # Errors
    /// When there is none, somebody else has changed it since, its new name is taken, or the register
    /// cannot be written; nothing has changed then.
    pub(crate) async fn replace(
        self: &Arc<Self>,
        word: &str,
        replace: Replace,
    ) -> Result<Managed, Failure> {
        let Replace { revision, mut config, directory } = replace;
        check_config(&config)?;
        let _held = self.names.lock().await;
        let kept = self.kept(word)?;
        let name = config.general.name.clone();
        if kept.revision != revision {
            let message = format!(
                "The configuration of '{}' was changed by somebody else meanwhile",
                kept.name
            );
            return Err(Failure::new(ErrorCode::Busy, message)
                .with_hint("Nothing of yours is stored. Begin again from what it is now."));
        }
        if config.general.uuid.is_some_and(|uuid| uuid.0 != kept.uuid.0) {
            let message = format!("The UUID of '{}' is {} and stays", kept.name, kept.uuid);
            return Err(Failure::new(ErrorCode::Config, message)
                .with_hint("Leave the uuid as it is, or out; 'xm new' stores other domains."));
        }
        config.general.uuid = Some(config::Uuid(kept.uuid.0));
        check_name(&name).map_err(|error| crate::talk::registry_failure(&error))?;
        if name != kept.name {
            let is_running = self.live()?.iter().any(|entry| entry.uuid == kept.uuid);
            if is_running {
                let message = format!("Domain '{}' runs and keeps its name", kept.name);
                return Err(Failure::new(ErrorCode::WrongState, message)
                    .with_hint("Change its name when it does not run, or use 'xm rename'."));
            }
            self.check_free(&name, kept.uuid, true)?;
        }
        let replaced = Kept { name, config, directory, revision: revision + 1, ..kept };
        kill_point("xend.replace.checked");
        let written = self.journal.written(Change::Keep(Box::new(replaced.clone()))).await;
        kill_point("xend.replace.written");
        written.map_err(unwritten)?;
        let record = Record::info("stored another configuration").about(&replaced.name);
        self.log(record.with("revision", replaced.revision));
        self.tell(Happening::Stored(who(&replaced)));
        for kept in self.state().managed.iter_mut().filter(|kept| kept.uuid == replaced.uuid) {
            *kept = replaced.clone();
        }
        self.shown(replaced)
    }

    /// Starts a stored domain.
    ///
    /// # Errors
    /// When there is none, it runs already, or does not start.
    pub(crate) async fn start(
        self: &Arc<Self>,
        word: &str,
        start: Start,
    ) -> Result<Started, Failure> {
        let kept = self.kept(word)?;
        kill_point("xend.start-stored.found");
        let order = Order {
            config: kept.config,
            paused: start.paused,
            directory: kept.directory,
            environment: start.environment,
            is_stored: true,
        };
        self.launch(order).await
    }

    /// Deletes a stored domain.
    ///
    /// # Errors
    /// When there is none, it runs, or the register cannot be written.
    pub(crate) async fn delete(self: &Arc<Self>, word: &str) -> Result<Stored, Failure> {
        let _held = self.names.lock().await;
        let kept = self.kept(word)?;
        let (name, uuid) = (kept.name.clone(), kept.uuid);
        let is_starting = self.state().starting.iter().any(|other| other.uuid == uuid);
        if is_starting || self.live()?.iter().any(|entry| entry.uuid == uuid) {
            let message = format!("Domain '{name}' runs");
            return Err(Failure::new(ErrorCode::WrongState, message)
                .with_hint(format!("'xm shutdown {name}' or 'xm destroy {name}' ends it.")));
        }
        kill_point("xend.delete.checked");
        let written = self.journal.written(Change::Drop(uuid)).await;
        kill_point("xend.delete.written");
        written.map_err(unwritten)?;
        let mut state = self.state();
        let before = state.managed.len();
        state.managed.retain(|other| other.uuid != uuid);
        if state.managed.len() == before {
            return Err(unknown(word));
        }
        drop(state);
        self.log(Record::info("deleted the domain").about(&name).with("uuid", uuid));
        self.tell(Happening::Deleted(who(&kept)));
        kill_point("xend.delete.told");
        Ok(Stored { name, uuid })
    }
}
