//! Domains are found, watched, and reported when they end.
//!
//! Nothing is polled: the registry's directory says what comes and is renamed ([`crate::notice`]),
//! and a connection that waits for a domain's end says when and how it goes.

use crate::daemon::{Daemon, Running};
use crate::register::{Change, Seen};
use crate::talk::Talk;
use api::types::{Happening, Who};
use control::{
    ClientError, Ended, EndedAs, Entry, Record, RegistryError, Request, Response, WaitUntil,
    kill_point,
};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// Pause before another look at a process that lives and does not listen.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a domain that the registry has forgotten may take to say how it ended; longer if it
/// starts another one first.
const PARTING: Duration = Duration::from_secs(1);
const RESTART: Duration = Duration::from_secs(100);
/// How often, and how many times, a child's exit status is looked for.
const STATUS_LOOK: Duration = Duration::from_millis(10);
const STATUS_LOOKS: u32 = 100;

impl Daemon {
    /// Compares what is known with the registry; returns the domains that live.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub(crate) fn scan(self: &Arc<Self>) -> Result<Vec<Entry>, RegistryError> {
        let live = self.registry.list()?;
        let mut renamed = Vec::new();
        {
            let mut state = self.state();
            for entry in &live {
                let new = || Running::new(entry.clone());
                let running = state.running.entry(entry.domid).or_insert_with(new);
                if running.entry.name != entry.name && running.entry.pid == entry.pid {
                    renamed.push((entry.clone(), running.entry.name.clone()));
                    if running.up {
                        // Its end is told under this name, by whichever daemon.
                        let seen = Seen { entry: entry.clone(), boot: self.boot.clone() };
                        let _written_in_its_time = self.journal.write(Change::Saw(seen));
                    }
                    if running.entry.uuid != entry.uuid {
                        running.before = Some(running.entry.clone());
                    }
                }
                // A number that comes again belongs to another process once the watch of the
                // former has seen its end.
                if running.entry.pid == entry.pid {
                    running.entry = entry.clone();
                    if !running.watched && entry.socket().exists() {
                        running.watched = true;
                        kill_point("xend.watch.begun");
                        let forgotten = Arc::clone(&running.forgotten);
                        tokio::spawn(Arc::clone(self).watch(entry.clone(), forgotten));
                    }
                }
            }
            state.running.retain(|domid, running| {
                let is_listed = live.iter().any(|entry| entry.domid == *domid);
                // It was up when another daemon watched it; its end is told.
                if running.up && !running.watched && !is_listed {
                    running.watched = true;
                    let forgotten = Arc::clone(&running.forgotten);
                    tokio::spawn(Arc::clone(self).watch(running.entry.clone(), forgotten));
                }
                if running.watched && !is_listed {
                    running.forgotten.notify_one();
                }
                // One that was never watched was never up.
                running.watched || is_listed
            });
        }
        for (entry, before) in renamed {
            let record = Record::info("the domain has another name");
            self.log(record.about(&entry.name).about_number(entry.domid).with("before", &before));
            kill_point("xend.scan.renamed");
            self.tell(Happening::Renamed { who: Who::running(&entry), before });
        }
        self.changed.notify_one();
        Ok(live)
    }

    /// Takes note of a domain whose start is about to be told, so that its end is told as well: it may
    /// have come already, before anybody watched.
    pub(crate) fn welcome(self: &Arc<Self>, entry: Entry) {
        // It knows more than we do of a domain that lives.
        let _told_by_those_who_ask = self.scan();
        let is_same = |domid, uuid| (domid, uuid) == (entry.domid, entry.uuid);
        let mut state = self.state();
        let has_ended = state.history.iter().any(|past| is_same(past.domid, past.uuid));
        let entry = match state.running.get(&entry.domid) {
            Some(running) if running.entry.pid == entry.pid && !running.up => running.entry.clone(),
            None if !has_ended => {
                let running = Running { watched: true, ..Running::new(entry.clone()) };
                let watch = Arc::clone(self).watch(entry.clone(), Arc::clone(&running.forgotten));
                state.running.insert(entry.domid, running);
                tokio::spawn(watch);
                entry
            }
            _ => return,
        };
        drop(state);
        self.up(&entry);
    }

    /// Waits for a domain's end and reports it.
    async fn watch(self: Arc<Self>, entry: Entry, forgotten: Arc<Notify>) {
        loop {
            let result = self.accompany_while_listed(&entry, &forgotten).await;
            if !self.registry.lives(entry.domid) {
                break;
            }
            if let Err(error @ (ClientError::Broken { .. } | ClientError::Refused(_))) = result {
                let record = Record::warning("the domain does not answer as it should");
                self.log(record.about(&entry.name).about_number(entry.domid).with("error", error));
            }
            sleep(PAUSE).await;
        }
        kill_point("xend.watch.over");
        let running = self.state().running.get(&entry.domid).cloned();
        match running.filter(|running| running.up) {
            Some(Running { entry, last, before, .. }) => {
                // One that was set aside for another that never came is missed under its former name.
                let entry = before.filter(|before| !self.has_come_again(before)).unwrap_or(entry);
                let how = self.how(&entry, last).await;
                let reason = last.map(|ended| ended.reason);
                self.gone(&entry, reason, self.heir(&entry, last), how);
            }
            // It never came up: whoever started it was told why.
            None => drop(self.state().running.remove(&entry.domid)),
        }
        // What has its number, its name or its UUID now.
        let _told_by_those_who_ask = self.scan();
    }

    /// Talks with the domain until its process goes or breaks off. A domain that has left the
    /// registry has a moment to say how it ended.
    async fn accompany_while_listed(
        &self,
        entry: &Entry,
        forgotten: &Notify,
    ) -> Result<(), ClientError> {
        let talk = self.accompany(entry);
        tokio::pin!(talk);
        tokio::select! {
            result = &mut talk => return result,
            () = forgotten.notified() => {}
        }
        let last = self.state().running.get(&entry.domid).and_then(|running| running.last);
        let is_restart = last.is_some_and(|ended| ended.outcome == EndedAs::Restarting);
        let patience = if is_restart { RESTART } else { PARTING };
        timeout(patience, talk).await.unwrap_or(Ok(()))
    }

    async fn accompany(&self, entry: &Entry) -> Result<(), ClientError> {
        let mut talk = Talk::open(entry).await?;
        kill_point("xend.watch.connected");
        talk.ask(&Request::Info { brief: true }).await?;
        let is_new = self.state().running.get(&entry.domid).is_some_and(|running| !running.up);
        if is_new {
            self.up(entry);
        }
        kill_point("xend.watch.up");
        if let Response::Ended(ended) = talk.ask(&wait(WaitUntil::Shutdown)).await? {
            let Ended { reason, outcome } = ended;
            let who = Who::running(&self.ends(entry, ended));
            let record = Record::info("the guest stopped");
            self.log(record.about(&who.name).about_number(entry.domid).with("reason", reason));
            self.tell(Happening::Stopped { who, reason, outcome });
            kill_point("xend.watch.stopped");
        }
        if let Response::Ended(ended) = talk.ask(&wait(WaitUntil::Gone)).await? {
            self.ends(entry, ended);
            kill_point("xend.watch.gone");
        }
        Ok(())
    }

    /// Notes how a domain ends; returns its entry, with its present name.
    fn ends(&self, entry: &Entry, ended: Ended) -> Entry {
        match self.state().running.get_mut(&entry.domid) {
            Some(running) => {
                running.last = Some(ended);
                running.entry.clone()
            }
            None => entry.clone(),
        }
    }

    /// How a domain ended, in words.
    async fn how(&self, entry: &Entry, last: Option<Ended>) -> String {
        if let Some(Ended { reason, outcome }) = last {
            return match outcome {
                EndedAs::Destroyed => reason.to_string(),
                EndedAs::Restarting => format!("{reason}, to start again"),
                EndedAs::Restarted { domid } => format!("{reason}, restarted as domain {domid}"),
                EndedAs::Preserved => format!("{reason}, kept, and its process ended later"),
            };
        }
        for _ in 0..STATUS_LOOKS {
            let status = match self.state().children.get(&entry.pid) {
                Some(status) => *status,
                None => break,
            };
            match status {
                Some(status) => {
                    return match status.signal() {
                        Some(signal) => format!("its process was killed by signal {signal}"),
                        None => format!("its process ended without a word ({status})"),
                    };
                }
                None => sleep(STATUS_LOOK).await,
            }
        }
        "its process ended without a word (it was killed, perhaps)".to_owned()
    }

    /// Whether another domain has had this one's identity since.
    fn has_come_again(&self, entry: &Entry) -> bool {
        let is_another = |domid, uuid| domid != entry.domid && uuid == entry.uuid;
        let live = self.registry.list().unwrap_or_default();
        let state = self.state();
        live.iter().any(|other| is_another(other.domid, other.uuid))
            || state.history.iter().any(|past| is_another(past.domid, past.uuid))
    }

    /// The number of the domain that follows one.
    fn heir(&self, entry: &Entry, last: Option<Ended>) -> Option<u32> {
        match last?.outcome {
            EndedAs::Restarted { domid } => Some(domid),
            EndedAs::Restarting => {
                let live = self.registry.list().ok()?;
                live.iter().find(|other| other.uuid == entry.uuid).map(|other| other.domid)
            }
            _ => None,
        }
    }
}

fn wait(until: WaitUntil) -> Request {
    Request::Wait { until }
}
