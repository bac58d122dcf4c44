//! Which of the two names the program was called by.
//!
//! One binary answers to `xm` and `xl`. Where the two differ (texts, exit codes, the form of
//! `list`), the code asks [`Tool`], which is read once from `argv[0]`.

use std::ffi::OsStr;
use std::path::Path;

/// The tool that the program acts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// The classic tool; texts and exit codes of its last full version (4.1).
    Xm,
    /// Its successor.
    Xl,
}

impl Tool {
    /// Reads the tool from `argv[0]`: the base name `xl` selects [`Tool::Xl`], all else is `xm`.
    pub fn from_argv0(argv0: Option<&OsStr>) -> Self {
        match argv0.and_then(|word| Path::new(word).file_name()) {
            Some(name) if name == "xl" => Self::Xl,
            _ => Self::Xm,
        }
    }

    /// The word that users type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xm => "xm",
            Self::Xl => "xl",
        }
    }

    /// Exit code of `TOOL COMMAND --help`: xm counts every usage print as a failure.
    pub fn help_exit(self) -> u8 {
        match self {
            Self::Xm => 1,
            Self::Xl => 0,
        }
    }

    /// Exit code for an option or an operand count that a command does not take.
    pub fn usage_exit(self) -> u8 {
        match self {
            Self::Xm => 1,
            Self::Xl => 2,
        }
    }

    /// Exit code for a domain that does not exist (xm passes the fault code of 3.4+ through).
    pub fn unknown_domain_exit(self) -> u8 {
        match self {
            Self::Xm => 3,
            Self::Xl => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_base_name_counts() {
        let of = |word: &str| Tool::from_argv0(Some(OsStr::new(word)));
        assert_eq!(of("xl"), Tool::Xl);
        assert_eq!(of("/usr/xl/bin/xm"), Tool::Xm);
        assert_eq!(of("./bin/xl"), Tool::Xl);
        assert_eq!(of("xlx"), Tool::Xm);
        assert_eq!(Tool::from_argv0(None), Tool::Xm);
    }
}
