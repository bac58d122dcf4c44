//! What can go wrong between a tool and the daemon.

use crate::place::ReachError;
use control::{ErrorCode, Failure, Hint};
use std::io;

/// Errors of a request to the daemon.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached or started.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// The connection broke, again and again.
    #[error("The connection to xend failed: {0}")]
    Broken(io::Error),
    /// It did not answer in time.
    #[error("xend gave no answer within {seconds} s")]
    Timeout {
        /// How long was waited.
        seconds: u64,
    },
    /// It refused.
    #[error(transparent)]
    Refused(Failure),
    /// Its answer is not what was asked for.
    #[error("xend gave an answer that does not fit the request: {0}")]
    Unexpected(String),
}

impl Error {
    /// The kind of failure, if the daemon refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(failure) => Some(failure.code),
            _ => None,
        }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Reach(error) => error.hint(),
            Self::Refused(failure) => failure.hint.clone(),
            Self::Unexpected(_) => Some("Install all programs in the same version.".into()),
            Self::Broken(_) | Self::Timeout { .. } => {
                Some("Its log is xend.log ('xm log').".into())
            }
        }
    }
}
