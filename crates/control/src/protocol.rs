//! Requests to a domain process and its replies: one JSON object per line.
//!
//! A connection carries any number of requests, one at a time. After
//! [`Response::Bytes`] follow that many raw bytes. After [`Response::Console`]
//! the connection carries console bytes only: first the history, then what the
//! guest prints; what the client sends is typed at the guest if it is the writer.

use crate::image::MemoryImage;
use crate::stats::DomainStats;
use crate::uuid::Uuid;
use config::DomainConfig;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Longest request line in bytes, its newline included.
pub const MAX_REQUEST: usize = 64 << 10;
/// Longest reply line in bytes (a reply can hold a whole configuration), and
/// with [`Response::Bytes`] the most raw bytes.
pub const MAX_REPLY: usize = 4 << 20;

/// What a tool asks of a domain process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Reply: [`Response::Info`].
    Info {
        /// Without the configurations, which are most of it. (A process of an older version sends them
        /// all the same.)
        #[serde(default, skip_serializing_if = "is_false")]
        brief: bool,
    },
    /// Stop the vCPUs.
    Pause,
    /// Let the vCPUs run again.
    Unpause,
    /// Stop the vCPUs for as long as the connection is open, or until another request says otherwise.
    Hold,
    /// Ask the guest to shut down (it may ignore it).
    Shutdown {
        /// What the guest shall do.
        reason: ShutdownKind,
    },
    /// End the domain now, whatever its `on_...` settings say.
    Destroy,
    /// Switch the connection to console bytes. Reply: [`Response::Console`].
    Console,
    /// Reply: [`Response::Bytes`], the last console output.
    ConsoleHistory,
    /// Reply: [`Response::Bytes`], the end of the domain process's log.
    Log,
    /// Reply: [`Response::Bytes`], the last crash report of this domain's name.
    CrashReport,
    /// Reply, once it has happened: [`Response::Ended`].
    Wait {
        /// What to wait for.
        until: WaitUntil,
    },
    /// Send a magic SysRq key to the guest.
    Sysrq {
        /// The key, an ASCII letter or digit.
        key: char,
    },
    /// Set the balloon target.
    MemorySet {
        /// Memory in MiB, at most `maxmem`.
        mib: u64,
    },
    /// Bring in a device. The reply comes when it waits for the guest's driver.
    DeviceAttach {
        /// What it is.
        device: Box<DeviceSpec>,
    },
    /// Take a device away. The reply comes when the guest has let go of it.
    DeviceDetach {
        /// `vbd` or `vif`.
        class: String,
        /// Its number in xenstore.
        number: u32,
        /// Whatever the guest says.
        #[serde(default)]
        force: bool,
    },
    /// Put another medium into a drive, or none. The reply comes when the guest has it.
    MediumChange {
        /// The drive and its medium.
        disk: Box<config::Disk>,
    },
    /// Look at the size of a disk again.
    DeviceRefresh {
        /// Its number in xenstore.
        number: u32,
    },
    /// Make a disk's image longer. The reply comes when the guest can see it.
    DeviceResize {
        /// Its number in xenstore.
        number: u32,
        /// How long.
        size: DiskSize,
    },
    /// Speak with the guest's agent. Reply: [`Response::Channel`]; the first byte of the line brings a
    /// socket of packets along (`SCM_RIGHTS`; see the crate `guest-agent`).
    Channel,
    /// Give the domain another name.
    Rename {
        /// The new name.
        name: String,
    },
    /// Start with another configuration next time.
    Configure {
        /// All of it.
        config: Box<DomainConfig>,
    },
    /// Limit the memory that the guest may have from now on.
    MemoryLimit {
        /// Memory in MiB, at most `maxmem`.
        mib: u64,
    },
    /// Reply: [`Response::Stats`].
    Stats,
    /// End the guest at once and start it anew. Reply: [`Response::Ended`].
    Reset,
    /// Write something about the domain's inside into its log.
    DebugKey {
        /// What: see the command `debug-keys`.
        key: char,
    },
    /// Reply: [`Response::Memory`]; the first byte of the line brings a descriptor of the guest's
    /// memory along (`SCM_RIGHTS`), for reading only.
    Memory,
}

/// A device that is to be brought in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceSpec {
    /// A disk.
    Disk(config::Disk),
    /// A network interface.
    Vif(Box<config::Vif>),
}

/// The size of a disk that is to grow, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskSize {
    /// All of it.
    All(u64),
    /// More than it has.
    More(u64),
}

/// What a guest is asked to do (`control/shutdown` in xenstore).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShutdownKind {
    /// Power off.
    Poweroff,
    /// Halt.
    Halt,
    /// Reboot.
    Reboot,
}

impl ShutdownKind {
    /// The word for `control/shutdown`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Poweroff => "poweroff",
            Self::Halt => "halt",
            Self::Reboot => "reboot",
        }
    }
}

/// What [`Request::Wait`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitUntil {
    /// The guest stopped, for whatever reason; its `on_...` action is known.
    Shutdown,
    /// This domid is gone: destroyed, or restarted under another domid.
    Gone,
}

/// Why a guest stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShutdownReason {
    /// The guest powered off.
    Poweroff,
    /// The guest asked for a reboot.
    Reboot,
    /// The guest suspended itself.
    Suspend,
    /// The guest crashed, or the monitor ended it.
    Crash,
    /// The guest's watchdog ran out.
    Watchdog,
    /// A tool destroyed the domain.
    Destroyed,
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Poweroff => "poweroff",
            Self::Reboot => "reboot",
            Self::Suspend => "suspend",
            Self::Crash => "crash",
            Self::Watchdog => "watchdog",
            Self::Destroyed => "destroyed",
        })
    }
}

/// What became of a domain that stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "as")]
pub enum EndedAs {
    /// It is gone, or about to go.
    Destroyed,
    /// It stays listed, stopped.
    Preserved,
    /// It will start again; the new domid is not known yet.
    Restarting,
    /// It runs again.
    Restarted {
        /// The new domain number.
        domid: u32,
    },
}

/// How a domain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ended {
    /// Why.
    pub reason: ShutdownReason,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: EndedAs,
}

/// The six letters of `xm list`; several can be set at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateFlags {
    /// A vCPU runs.
    pub running: bool,
    /// All vCPUs wait for events.
    pub blocked: bool,
    /// Stopped by a tool.
    pub paused: bool,
    /// The guest shut down and is kept.
    pub shutdown: bool,
    /// The guest crashed and is kept.
    pub crashed: bool,
    /// Being torn down.
    pub dying: bool,
}

impl fmt::Display for StateFlags {
    /// `rbpscd`, with `-` for what is not set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [
            (self.running, 'r'),
            (self.blocked, 'b'),
            (self.paused, 'p'),
            (self.shutdown, 's'),
            (self.crashed, 'c'),
            (self.dying, 'd'),
        ];
        let text: String = flags.iter().map(|(set, c)| if *set { *c } else { '-' }).collect();
        f.pad(&text)
    }
}

/// The last crash of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CrashSummary {
    /// One line.
    pub reason: String,
    /// Seconds since the epoch.
    pub at: u64,
    /// File with the whole report.
    #[schema(value_type = Option<String>)]
    pub report: Option<std::path::PathBuf>,
}

/// What is known of a domain.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DomainInfo {
    /// Domain number.
    pub domid: u32,
    /// Name.
    pub name: String,
    /// UUID.
    #[schema(value_type = String, format = "uuid")]
    pub uuid: Uuid,
    /// Process id of `xendomain`.
    pub pid: u32,
    /// Memory the guest has now, in MiB.
    pub memory_mib: u64,
    /// Memory the guest may have, in MiB.
    pub maxmem_mib: u64,
    /// Memory of the host that it has used so far, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_mib: Option<u64>,
    /// Online vCPUs.
    pub vcpus: u32,
    /// State letters.
    pub state: StateFlags,
    /// Why it stopped, for a domain that is kept.
    pub shutdown_reason: Option<ShutdownReason>,
    /// CPU time of all its vCPUs in seconds.
    pub cpu_seconds: f64,
    /// Start, in seconds since the epoch.
    pub started: u64,
    /// How often it was restarted by its `on_...` settings.
    pub restarts: u32,
    /// Walls of the jail around its spaces that hold on this host.
    pub jail: Vec<String>,
    /// The last crash of this domain or of one it was restarted from.
    pub last_crash: Option<CrashSummary>,
    /// Its configuration, unless a brief answer was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub config: Option<Box<DomainConfig>>,
    /// The configuration after a restart, if it is another; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub next_config: Option<Box<DomainConfig>>,
}

/// A kind of failure, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request was not understood.
    BadRequest,
    /// Another user's domain.
    NotPermitted,
    /// Not possible in the domain's present state.
    WrongState,
    /// Not available.
    NotSupported,
    /// What was asked for does not exist.
    NotFound,
    /// Somebody else has it.
    Busy,
    /// Too little memory, in the host or in the configuration.
    Memory,
    /// The configuration is at fault.
    Config,
    /// The kernel or ramdisk is at fault.
    Kernel,
    /// The host refused something.
    Host,
    /// No answer in time.
    Timeout,
    /// The domain ended before it answered.
    Ended,
}

/// An error as it travels over the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Kind.
    pub code: ErrorCode,
    /// What failed and why.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// What a domain process answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "kebab-case")]
pub enum Response {
    /// Done.
    Ok,
    /// To [`Request::Info`].
    Info(Box<DomainInfo>),
    /// Raw bytes follow.
    Bytes {
        /// How many, at most [`MAX_REPLY`].
        length: u64,
    },
    /// Console bytes follow.
    Console {
        /// Bytes of history that come first.
        history: u64,
        /// Whether what the client sends reaches the guest; only one can write.
        writable: bool,
    },
    /// To [`Request::Wait`] and [`Request::Reset`].
    Ended(Ended),
    /// To [`Request::Stats`].
    Stats(Box<DomainStats>),
    /// To [`Request::Channel`].
    Channel,
    /// To [`Request::Memory`].
    Memory(Box<MemoryImage>),
    /// It failed.
    Error(Failure),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_flat_objects() {
        let text =
            serde_json::to_string(&Request::Shutdown { reason: ShutdownKind::Halt }).unwrap();
        assert_eq!(text, r#"{"request":"shutdown","reason":"halt"}"#);
        assert_eq!(
            serde_json::from_str::<Request>(r#"{"request":"info"}"#).unwrap(),
            Request::Info { brief: false }
        );
        let text = |brief| serde_json::to_string(&Request::Info { brief }).unwrap();
        assert_eq!(text(false), r#"{"request":"info"}"#);
        assert_eq!(text(true), r#"{"request":"info","brief":true}"#);
        assert!(serde_json::from_str::<Request>(r#"{"request":"reformat"}"#).is_err());
    }

    #[test]
    fn endings_name_their_successor() {
        let ended =
            Ended { reason: ShutdownReason::Reboot, outcome: EndedAs::Restarted { domid: 7 } };
        let text = serde_json::to_string(&Response::Ended(ended)).unwrap();
        assert_eq!(text, r#"{"response":"ended","reason":"reboot","as":"restarted","domid":7}"#);
        assert!(matches!(serde_json::from_str(&text).unwrap(), Response::Ended(e) if e == ended));
    }

    #[test]
    fn state_letters_keep_their_places() {
        let state = StateFlags { blocked: true, paused: true, ..StateFlags::default() };
        assert_eq!(state.to_string(), "-bp---");
        assert_eq!(format!("{:>8}", StateFlags::default()), "  ------");
    }
}
