//! What happens when a domain stops.

use serde::{Deserialize, Serialize};

/// What to do with a domain that has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Free everything.
    Destroy,
    /// Build it again from the same configuration.
    Restart,
    /// Keep it as it is, for inspection.
    Preserve,
    /// Keep it under another name, without devices, and build it again.
    RenameRestart,
    /// Write its memory to a core file, then free everything.
    CoredumpDestroy,
    /// Write its memory to a core file, then build it again.
    CoredumpRestart,
}

impl Action {
    /// Every action, in the order of the documentation.
    pub const ALL: [Self; 6] = [
        Self::Destroy,
        Self::Restart,
        Self::Preserve,
        Self::RenameRestart,
        Self::CoredumpDestroy,
        Self::CoredumpRestart,
    ];

    /// The word used in configuration files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Destroy => "destroy",
            Self::Restart => "restart",
            Self::Preserve => "preserve",
            Self::RenameRestart => "rename-restart",
            Self::CoredumpDestroy => "coredump-destroy",
            Self::CoredumpRestart => "coredump-restart",
        }
    }

    /// The action called `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }
}

/// Action per way of stopping. The defaults are those of xm; xl differs in
/// `on_crash` (destroy).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The guest powered off (`on_poweroff`).
    pub poweroff: Action,
    /// The guest asked for a reboot (`on_reboot`).
    pub reboot: Action,
    /// The guest crashed (`on_crash`).
    pub crash: Action,
    /// A stored domain starts with the host (`on_xend_start`, `onboot`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub starts_with_host: bool,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            poweroff: Action::Destroy,
            reboot: Action::Restart,
            crash: Action::Restart,
            starts_with_host: false,
        }
    }
}

impl Events {
    /// The meaning of the old `restart` key: `onreboot`, `always` or `never`.
    pub fn from_restart_mode(mode: &str) -> Option<Self> {
        let same = |action| Self {
            poweroff: action,
            reboot: action,
            crash: action,
            starts_with_host: false,
        };
        match mode {
            "onreboot" => Some(Self { reboot: Action::Restart, ..same(Action::Destroy) }),
            "always" => Some(same(Action::Restart)),
            "never" => Some(same(Action::Destroy)),
            _ => None,
        }
    }
}
