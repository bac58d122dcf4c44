//! What travels between the daemon and its clients.

use config::DomainConfig;
use control::{
    DomainInfo, DomainStats, EndedAs, Entry, ErrorCode, Failure, ShutdownKind, ShutdownReason, Uuid,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use utoipa::ToSchema;

/// How far a domain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It is being built.
    Starting,
    /// It is there (running, paused, or kept after its end: see `info.state`).
    Up,
    /// Its process is there, but did not answer in time.
    Silent,
    /// It is stored and does not run.
    Halted,
}

/// The process of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// Domain number.
    pub domid: u32,
    /// Process id of `xendomain`.
    pub pid: u32,
    /// Start, in seconds since the epoch.
    pub started: u64,
    /// Directory of the domain.
    #[schema(value_type = String)]
    pub directory: PathBuf,
}

/// A domain, running or stored.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Domain {
    /// Name, unique among running and stored domains.
    pub name: String,
    /// UUID.
    #[schema(value_type = String, format = "uuid")]
    pub uuid: Uuid,
    /// How far it is.
    pub status: Status,
    /// Whether it is stored: it stays when it ends.
    pub managed: bool,
    /// Its process, unless it is halted.
    pub run: Option<Run>,
    /// What it says of itself, if it is up.
    pub info: Option<DomainInfo>,
    /// Why it is silent.
    pub trouble: Option<String>,
    /// The stored configuration of a halted domain.
    #[schema(value_type = Option<Object>)]
    pub config: Option<DomainConfig>,
}

impl Domain {
    /// Its number, unless it is halted.
    pub fn domid(&self) -> Option<u32> {
        self.run.as_ref().map(|run| run.domid)
    }
}

/// A new domain.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Create {
    /// Its configuration, as `xl create -n` prints it. One without a UUID gets one.
    #[schema(value_type = Object)]
    pub config: DomainConfig,
    /// Leave it paused.
    #[serde(default)]
    pub paused: bool,
    /// Where relative paths of the configuration are seen from.
    #[schema(value_type = String)]
    pub directory: PathBuf,
    /// Variables for the domain's process, for development; only names that begin with
    /// `XENOLITH_`, and not those of the directories.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// A domain to be stored.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Store {
    /// Its configuration, as `xl create -n` prints it. One without a UUID gets one.
    #[schema(value_type = Object)]
    pub config: DomainConfig,
    /// Where relative paths of the configuration are seen from.
    #[schema(value_type = String)]
    pub directory: PathBuf,
}

/// A domain that was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stored {
    /// Name.
    pub name: String,
    /// UUID.
    #[schema(value_type = String, format = "uuid")]
    pub uuid: Uuid,
}

/// A stored domain's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Managed {
    /// Name.
    pub name: String,
    /// UUID.
    #[schema(value_type = String, format = "uuid")]
    pub uuid: Uuid,
    /// Counts the changes of the configuration.
    pub revision: u64,
    /// Domain number, if it runs.
    pub domid: Option<u32>,
    /// The configuration that it starts with next time.
    #[schema(value_type = Object)]
    pub config: DomainConfig,
    /// Where its relative paths are seen from.
    #[schema(value_type = String)]
    pub directory: PathBuf,
}

/// Another configuration for a stored domain.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Replace {
    /// The revision that it is meant to follow: if somebody else was faster, nothing is changed.
    pub revision: u64,
    /// The whole configuration. Its UUID stays.
    #[schema(value_type = Object)]
    pub config: DomainConfig,
    /// Where its relative paths are seen from.
    #[schema(value_type = String)]
    pub directory: PathBuf,
}

/// What a domain was promised of the host's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Claim {
    /// Name.
    pub name: String,
    /// UUID.
    #[schema(value_type = String, format = "uuid")]
    pub uuid: Uuid,
    /// Domain number; one that is only being started may have none yet.
    pub domid: Option<u32>,
    /// Its memory, in MiB.
    pub memory_mib: u64,
    /// What of it has not been taken yet, in MiB.
    pub claimed_mib: u64,
}

/// How a stored domain is to start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Start {
    /// Leave it paused.
    #[serde(default)]
    pub paused: bool,
    /// As in `Create`.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// A domain that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Started {
    /// Domain number.
    pub domid: u32,
    /// Name.
    pub name: String,
}

/// What a guest is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shutdown {
    /// What.
    pub reason: ShutdownKind,
    /// The number of the run that is meant: one that has started anew since is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub domid: Option<u32>,
}

/// Another name for a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rename {
    /// The new name.
    pub name: String,
}

/// A domain that was destroyed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Destroyed {
    /// Why its process had to be killed, if it did not end by itself.
    pub killed: Option<String>,
}

/// The host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Version of the daemon.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Running domains.
    pub domains: u64,
    /// The host's memory, in MiB.
    pub total_mib: u64,
    /// What can be had without swapping, in MiB.
    pub available_mib: u64,
    /// What running domains may still take of it, in MiB.
    pub claimed_mib: u64,
    /// What new domains can have, in MiB.
    pub free_mib: u64,
}

/// How a domain ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Past {
    /// Name.
    pub name: String,
    /// UUID.
    #[schema(value_type = String, format = "uuid")]
    pub uuid: Uuid,
    /// Domain number.
    pub domid: u32,
    /// Start, in seconds since the epoch.
    pub started: u64,
    /// When its end was noticed, in seconds since the epoch.
    pub ended: u64,
    /// Why, if it said so.
    pub reason: Option<ShutdownReason>,
    /// Its number after a restart.
    pub successor: Option<u32>,
    /// How, in words.
    pub how: String,
}

/// What is spoken on a connection that `POST /v1/domains/{domain}/connection` hands over: the protocol of
/// domains' processes, a request or reply in each line ([`control::Request`]).
pub const CONNECTION: &str = "xenolith-control";

/// What all running domains have used and moved so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AllStats {
    /// Those that answered, by number.
    pub domains: Vec<DomainStats>,
    /// Those that did not, by number.
    pub silent: Vec<Silent>,
}

/// A domain whose process did not answer in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Silent {
    /// Which.
    #[serde(flatten)]
    pub who: Who,
    /// What was the matter.
    pub trouble: String,
}

/// A device in xenstore: the frontend's nodes, those of its first queue if it has several, its number as
/// `id`, and under `backend-nodes` the backend's.
pub type Device = serde_json::Map<String, serde_json::Value>;

/// Which domain an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Who {
    /// Domain number, unless it is halted.
    pub domid: Option<u32>,
    /// Name.
    pub name: String,
    /// UUID.
    #[schema(value_type = String, format = "uuid")]
    pub uuid: Uuid,
}

impl Who {
    /// A running domain.
    pub fn running(entry: &Entry) -> Self {
        Self { domid: Some(entry.domid), name: entry.name.clone(), uuid: entry.uuid }
    }
}

/// What happened. One line of JSON in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// When, in seconds since the epoch.
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happening {
    /// The stream begins: whatever happens from now on comes in it.
    Listening,
    /// A domain is up, or was found running by a daemon that started.
    Up(Who),
    /// It was paused.
    Paused(Who),
    /// It goes on.
    Unpaused(Who),
    /// It has another name.
    Renamed {
        /// Which, with its new name.
        #[serde(flatten)]
        who: Who,
        /// Its name before.
        before: String,
    },
    /// Its guest stopped.
    Stopped {
        /// Which.
        #[serde(flatten)]
        who: Who,
        /// Why.
        reason: ShutdownReason,
        /// What becomes of it.
        #[serde(flatten)]
        outcome: EndedAs,
    },
    /// Its process is gone.
    Gone(Past),
    /// A domain was stored.
    Stored(Who),
    /// A stored domain was deleted.
    Deleted(Who),
    /// This client reads too slowly and has missed events: look at the list.
    Lost {
        /// How many.
        count: u64,
    },
}

/// A domain that was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Restarted {
    /// Its number now.
    pub domid: u32,
}

/// A failure without a hint, for an unknown domain.
pub fn unknown(word: &str) -> Failure {
    let shown: String = word.chars().take(64).collect();
    Failure::new(ErrorCode::NotFound, format!("Domain '{shown}' does not exist."))
        .with_hint("'xm list' shows the domains that exist.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_flat_lines() {
        let who = Who { domid: Some(3), name: "one".into(), uuid: Uuid([0; 16]) };
        let what = Happening::Stopped {
            who,
            reason: ShutdownReason::Reboot,
            outcome: EndedAs::Restarting,
        };
        let text = serde_json::to_string(&Event { at: 7, what: what.clone() }).unwrap();
        let expected = concat!(
            r#"{"at":7,"event":"stopped","domid":3,"name":"one","#,
            r#""uuid":"00000000-0000-0000-0000-000000000000","reason":"reboot","as":"restarting"}"#
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), Event { at: 7, what });
    }
}
