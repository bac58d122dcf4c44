//! Other names for domains. A stored one is called so when it runs and when it does not.

use crate::daemon::Daemon;
use crate::launch::starting_already;
use crate::look::Found;
use crate::managed::{unwritten, who};
use crate::register::{Change, Kept};
use crate::talk::{self, failure, registry_failure};
use api::types::{Happening, Who};
use control::{ClientError, Entry, Failure, Record, Request, Uuid, check_name, kill_point};
use std::sync::Arc;
use tokio::sync::oneshot::Receiver;

/// The answer of the register.
type Written = Receiver<Result<(), String>>;

impl Daemon {
    /// Gives a domain another name.
    ///
    /// # Errors
    /// When there is no such domain, the name is taken or none, the domain refuses it, or it cannot
    /// be written; it has its old name then.
    pub(crate) async fn rename(self: &Arc<Self>, word: &str, name: &str) -> Result<Who, Failure> {
        check_name(name).map_err(|error| registry_failure(&error))?;
        let _held = self.names.lock().await;
        match self.find(word)? {
            Found::Running(entry) => self.rename_running(entry, name).await,
            Found::Halted(kept) => self.rename_halted(&kept, name).await,
        }
    }

    async fn rename_running(self: &Arc<Self>, entry: Entry, name: &str) -> Result<Who, Failure> {
        let before = entry.name.clone();
        // It may have the name, and be stored under the old one: the daemon was killed between.
        if before != name {
            self.check_name_free(name, Some(entry.uuid))?;
            kill_point("xend.rename.checked");
            call(&entry, name).await.map_err(|error| failure(&error))?;
            kill_point("xend.rename.called");
        }
        if let Err(failure) = self.keep_name(entry.uuid, name).await {
            if let Err(error) = call(&entry, &before).await {
                let record = Record::error("the domain does not take its old name back");
                self.log(record.about(name).about_number(entry.domid).with("error", error));
            }
            return Err(failure);
        }
        // Those who listen are told before the answer.
        self.live()?;
        Ok(Who::running(&self.registry.living(entry.domid).unwrap_or(entry)))
    }

    async fn rename_halted(self: &Arc<Self>, kept: &Kept, name: &str) -> Result<Who, Failure> {
        let before = kept.name.clone();
        if self.state().starting.iter().any(|other| other.uuid == kept.uuid) {
            return Err(starting_already(&before));
        }
        self.check_name_free(name, Some(kept.uuid))?;
        self.keep_name(kept.uuid, name).await?;
        let who = Who { name: name.to_owned(), ..who(kept) };
        if before != name {
            self.tell(Happening::Renamed { who: who.clone(), before });
        }
        Ok(who)
    }

    async fn keep_name(&self, uuid: Uuid, name: &str) -> Result<(), Failure> {
        let Some((kept, written)) = self.write_name(uuid, name) else { return Ok(()) };
        let written = written.await.unwrap_or_else(|_| Err("the register is closed".into()));
        kill_point("xend.rename.written");
        written.map_err(unwritten)?;
        self.take_name(&kept);
        Ok(())
    }

    /// Has a stored domain's other name written, if it has another one, and nobody else has it.
    fn write_name(&self, uuid: Uuid, name: &str) -> Option<(Kept, Written)> {
        let state = self.state();
        let kept = state.managed.iter().find(|kept| kept.uuid == uuid && kept.name != name)?;
        if state.managed.iter().any(|kept| kept.name == name) {
            return None;
        }
        let mut kept = Kept { name: name.into(), revision: kept.revision + 1, ..kept.clone() };
        kept.config.general.name = name.into();
        Some((kept.clone(), self.journal.write(Change::Keep(Box::new(kept)))))
    }

    fn take_name(&self, renamed: &Kept) {
        let record = Record::info("stored the domain's other name").about(&renamed.name);
        self.log(record.with("uuid", renamed.uuid));
        self.tell(Happening::Stored(who(renamed)));
        for kept in self.state().managed.iter_mut().filter(|kept| kept.uuid == renamed.uuid) {
            *kept = renamed.clone();
        }
    }

    /// Stores the names of domains that were given one when an earlier daemon was killed.
    pub(crate) fn catch_up_on_names(&self, live: &[Entry]) {
        for entry in live {
            if let Some((kept, _written_in_its_time)) = self.write_name(entry.uuid, &entry.name) {
                self.take_name(&kept);
            }
        }
    }
}

async fn call(entry: &Entry, name: &str) -> Result<(), ClientError> {
    talk::order(entry, &Request::Rename { name: name.into() }, talk::PATIENCE).await
}
