//! Why a configuration could not be loaded.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::diagnostic::Diagnostic;

/// Largest configuration file read, in bytes (1 MiB).
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No file of that name in the current directory or the search path.
    #[error("Unable to open config file: {name} (looked in {})", list(searched))]
    NotFound {
        /// The name as given.
        name: String,
        /// Every path tried, in order.
        searched: Vec<PathBuf>,
    },
    /// The file exists but cannot be read.
    #[error("Unable to read config file {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The file is not a domain configuration by its size.
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes; a domain configuration is a few lines of text", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The text is not a valid configuration; every problem found is listed.
    #[error("{}", report(.0))]
    Invalid(Vec<Diagnostic>),
    /// A configuration that did not come from this crate's reader holds a
    /// value the reader would not have produced.
    #[error("The domain configuration is not consistent: it reads back as a different one")]
    Inconsistent,
}

impl Error {
    /// The problems in the text, empty when it was never read.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Invalid(list) => list,
            _ => &[],
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

fn report(diagnostics: &[Diagnostic]) -> String {
    let texts: Vec<_> = diagnostics.iter().map(Diagnostic::to_string).collect();
    texts.join("\n\n")
}

/// What is wrong with a device specification such as `file:/x,xvda,w`, and
/// which bytes of it are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// First byte of the culprit in the specification.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.help {
            Some(help) => write!(f, "{} ({help})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for SpecError {}

impl SpecError {
    pub(crate) fn new(range: std::ops::Range<usize>, message: impl Into<String>) -> Self {
        Self { start: range.start, end: range.end, message: message.into(), help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same problem when the text examined starts at byte `by` of the specification.
    pub(crate) fn shifted(mut self, by: usize) -> Self {
        self.start += by;
        self.end += by;
        self
    }
}
