//! How programs log: the section `[log]` of `xenolith.toml`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How much a line of a log matters, the worst first (syslog(3) has the same order).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something was not done.
    Error,
    /// It was done, but not as wanted, or something is wrong.
    Warning,
    /// What becomes of domains and their devices.
    #[default]
    Info,
    /// What helps to find faults.
    Debug,
}

impl LogLevel {
    /// All, the worst first.
    pub const ALL: [Self; 4] = [Self::Error, Self::Warning, Self::Info, Self::Debug];

    /// Its word, in logs and settings.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// Its priority as syslog(3) numbers it.
    pub fn priority(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Info => 6,
            Self::Debug => 7,
        }
    }
}

/// How lines are written into the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `key=value` pairs (logfmt), which people read as easily as programs.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

impl LogFormat {
    /// All.
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];

    /// Its word, in settings.
    pub fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// A word that is none of those that there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{word}' is none of {known}")]
pub struct UnknownWord {
    word: String,
    known: String,
}

fn named<T: Copy>(
    word: &str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, UnknownWord> {
    all.iter().copied().find(|one| name(*one) == word).ok_or_else(|| UnknownWord {
        word: word.escape_debug().to_string(),
        known: all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", "),
    })
}

impl FromStr for LogLevel {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        named(word, &Self::ALL, Self::word)
    }
}

impl FromStr for LogFormat {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        named(word, &Self::ALL, Self::word)
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.word())
    }
}

/// How programs log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostLog {
    /// What is less than this is not logged.
    pub level: LogLevel,
    /// How lines are written.
    pub format: LogFormat,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_files() {
        for level in LogLevel::ALL {
            assert_eq!(level.word().parse(), Ok(level));
            assert_eq!(serde_json::to_value(level).unwrap(), level.word());
        }
        for format in LogFormat::ALL {
            assert_eq!(format.word().parse(), Ok(format));
            assert_eq!(serde_json::to_value(format).unwrap(), format.word());
        }
        let error = "loud".parse::<LogLevel>().unwrap_err().to_string();
        assert_eq!(error, "'loud' is none of error, warning, info, debug");
    }

    #[test]
    fn the_worst_is_the_least() {
        assert!(LogLevel::ALL.is_sorted());
        assert!(LogLevel::Error < LogLevel::Debug);
    }
}
