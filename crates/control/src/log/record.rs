//! What a program has to say in a log.

use config::LogLevel;
use std::collections::BTreeMap;
use std::fmt::Display;

/// Longest message, and longest value of a field, in characters.
pub(super) const LONGEST: usize = 1024;
/// Ends what was cut.
const CUT: char = '…';

/// What is to be logged: a message, how much it matters, and what of it programs may want to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// How much it matters.
    pub level: LogLevel,
    /// What happened, for people.
    pub message: String,
    /// Details by name.
    pub fields: BTreeMap<String, String>,
    /// The program that says so, if that is not the one that writes.
    pub program: Option<&'static str>,
    /// Name of the domain that it is about, if that is not the writer's.
    pub domain: Option<String>,
    /// Its number.
    pub domid: Option<u32>,
}

impl Record {
    /// A record of that level.
    pub fn new(level: LogLevel, message: impl Into<String>) -> Self {
        let message = bounded(message.into());
        Self { level, message, fields: BTreeMap::new(), program: None, domain: None, domid: None }
    }

    /// Something was not done.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(LogLevel::Error, message)
    }

    /// Something is not as wanted.
    pub fn warning(message: impl Into<String>) -> Self {
        Self::new(LogLevel::Warning, message)
    }

    /// Something happened.
    pub fn info(message: impl Into<String>) -> Self {
        Self::new(LogLevel::Info, message)
    }

    /// Something that helps to find faults.
    pub fn debug(message: impl Into<String>) -> Self {
        Self::new(LogLevel::Debug, message)
    }

    /// With a detail. Names are lower-case letters.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.fields.insert(name.to_owned(), bounded(value.to_string()));
        self
    }

    /// Said by another program than the one that writes.
    #[must_use]
    pub fn by(mut self, program: &'static str) -> Self {
        self.program = Some(program);
        self
    }

    /// About a domain of that name.
    #[must_use]
    pub fn about(mut self, name: &str) -> Self {
        self.domain = Some(name.to_owned());
        self
    }

    /// About the domain of that number.
    #[must_use]
    pub fn about_number(mut self, domid: u32) -> Self {
        self.domid = Some(domid);
        self
    }
}

fn bounded(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push(CUT);
    }
    text
}
