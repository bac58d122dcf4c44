//! Orders to running domains.

use crate::daemon::Daemon;
use crate::look::Found;
use crate::talk::{self, failure, registry_failure};
use api::types::{Destroyed, Happening, Shutdown, Who, unknown};
use control::{ClientError, Entry, ErrorCode, Failure, Record, Request, Uuid, kill_point};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long a process that is killed may take to die.
const DEATH: Duration = Duration::from_secs(10);
/// How often a domain whose start was called off is looked at.
const LOOK: Duration = Duration::from_millis(5);

impl Daemon {
    /// A domain that runs.
    pub(crate) fn running(self: &Arc<Self>, word: &str) -> Result<Entry, Failure> {
        match self.find(word)? {
            Found::Running(entry) => Ok(entry),
            Found::Halted(kept) => {
                let name = kept.name;
                Err(Failure::new(ErrorCode::WrongState, format!("Domain '{name}' is not started"))
                    .with_hint(format!("'xm start {name}' starts it.")))
            }
        }
    }

    /// Gives an order to a domain, which may take so long.
    ///
    /// # Errors
    /// As [`Daemon::pause`].
    pub(crate) async fn order(
        self: &Arc<Self>,
        word: &str,
        request: Request,
        patience: Duration,
    ) -> Result<Who, Failure> {
        let entry = self.running(word)?;
        self.order_run(entry, request, patience).await
    }

    async fn order_run(
        self: &Arc<Self>,
        entry: Entry,
        request: Request,
        patience: Duration,
    ) -> Result<Who, Failure> {
        kill_point("xend.order.found");
        talk::order(&entry, &request, patience).await.map_err(|error| failure(&error))?;
        kill_point("xend.order.given");
        // It may have another name now.
        Ok(Who::running(&self.registry.living(entry.domid).unwrap_or(entry)))
    }

    /// Stops a domain's vCPUs.
    ///
    /// # Errors
    /// When there is no such domain, or it refuses; so for all of these.
    pub(crate) async fn pause(self: &Arc<Self>, word: &str) -> Result<Who, Failure> {
        let who = self.order(word, Request::Pause, talk::PATIENCE).await?;
        self.tell(Happening::Paused(who.clone()));
        Ok(who)
    }

    /// Lets them run again.
    pub(crate) async fn unpause(self: &Arc<Self>, word: &str) -> Result<Who, Failure> {
        let who = self.order(word, Request::Unpause, talk::PATIENCE).await?;
        self.tell(Happening::Unpaused(who.clone()));
        Ok(who)
    }

    /// Asks the guest to shut down.
    pub(crate) async fn shut_down(
        self: &Arc<Self>,
        word: &str,
        order: Shutdown,
    ) -> Result<Who, Failure> {
        let Shutdown { reason, domid } = order;
        let entry = self.running(word)?;
        if domid.is_some_and(|domid| domid != entry.domid) {
            return Err(unknown(word));
        }
        self.order_run(entry, Request::Shutdown { reason }, talk::PATIENCE).await
    }

    /// Ends a domain. A process that does not answer is killed.
    pub(crate) async fn destroy(self: &Arc<Self>, word: &str) -> Result<Destroyed, Failure> {
        if self.call_off(word).await {
            return Ok(Destroyed::default());
        }
        let entry = self.running(word)?;
        self.log(
            Record::info("destroying the domain").about(&entry.name).about_number(entry.domid),
        );
        kill_point("xend.destroy.found");
        let told = talk::order(&entry, &Request::Destroy, talk::PATIENCE).await;
        kill_point("xend.destroy.told");
        match told {
            // It went away before it could say so.
            Ok(()) | Err(ClientError::Ended { .. }) => Ok(Destroyed::default()),
            // Nobody listens: it is being built, or hangs.
            Err(error @ (ClientError::Timeout { .. } | ClientError::Connect { .. })) => {
                if !self.registry.lives(entry.domid) {
                    return Ok(Destroyed::default());
                }
                let killed = format!("{error}; its process {} is killed.", entry.pid);
                self.log(Record::warning(&killed).about(&entry.name).about_number(entry.domid));
                kill_point("xend.destroy.hung");
                self.kill(entry).await?;
                Ok(Destroyed { killed: Some(killed) })
            }
            Err(error) => Err(failure(&error)),
        }
    }

    async fn kill(self: &Arc<Self>, entry: Entry) -> Result<(), Failure> {
        let registry = self.registry.clone();
        let killing =
            tokio::task::spawn_blocking(move || control::kill(&registry, &entry, DEATH)).await;
        match killing {
            Ok(result) => result.map_err(|error| registry_failure(&error)),
            Err(error) => Err(Failure::new(ErrorCode::Host, error.to_string())),
        }
    }

    /// Calls off the start of a domain, and waits until nothing is left of it.
    async fn call_off(self: &Arc<Self>, word: &str) -> bool {
        let uuid = word.parse::<Uuid>().ok();
        let is_meant = |name: &str, other: Uuid| name == word || uuid == Some(other);
        let starting = {
            let state = self.state();
            state.starting.iter().find(|s| is_meant(&s.name, s.uuid)).cloned()
        };
        let Some(starting) = starting else { return false };
        starting.cancel.notify_one();
        kill_point("xend.call-off.asked");
        let end = Instant::now() + DEATH;
        while Instant::now() < end {
            if !self.state().starting.iter().any(|other| Arc::ptr_eq(other, &starting)) {
                kill_point("xend.call-off.done");
                // It may have come up just before.
                return !matches!(self.find(&starting.uuid.to_string()), Ok(Found::Running(_)));
            }
            sleep(LOOK).await;
        }
        false
    }

    /// Refuses words for the host itself.
    ///
    /// # Errors
    /// In the words of xm.
    pub(crate) fn not_the_host(word: &str, verb: &str) -> Result<(), Failure> {
        if word == "Domain-0" {
            let message = format!("Cannot {verb} privileged domain {word}");
            return Err(Failure::new(ErrorCode::NotPermitted, message));
        }
        if word.is_empty() { Err(unknown(word)) } else { Ok(()) }
    }
}
