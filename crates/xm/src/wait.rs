//! `wait`: until a domain is in some state, or gone, with a time limit.

use std::time::{Duration, Instant};

use api::types::Who;
use clap::ArgMatches;
use control::{Client, ClientError, Ended, ErrorCode, StateFlags, WaitUntil};
use serde_json::json;

use crate::daemon::{connect, daemon, info};
use crate::error::Error;
use crate::lifecycle::is_unknown;
use crate::output::put;

/// How often a state is looked at that the domain does not announce.
const POLL: Duration = Duration::from_millis(100);
/// Exit code when time ran out, as of timeout(1).
pub const TIME_RAN_OUT: u8 = 124;
/// Exit code when the domain ended while another state was waited for.
pub const ENDED: u8 = 4;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// This life of the domain is over.
    Gone,
    /// The guest stopped, whether the domain is kept or not.
    Stopped,
    /// The domain exists.
    Exists,
    /// It runs or could: neither paused nor stopped.
    Running,
    /// It is paused.
    Paused,
}

/// The words of `--for`.
pub const WORDS: [&str; 5] = ["gone", "shutdown", "exists", "running", "paused"];

impl Goal {
    fn parse(word: &str) -> Self {
        match word {
            "shutdown" => Self::Stopped,
            "exists" => Self::Exists,
            "running" => Self::Running,
            "paused" => Self::Paused,
            _ => Self::Gone,
        }
    }

    fn is_met_by(self, state: StateFlags) -> bool {
        let stopped = state.shutdown || state.crashed || state.dying;
        match self {
            Self::Gone => false,
            Self::Exists => true,
            Self::Stopped => stopped,
            Self::Running => !stopped && !state.paused,
            Self::Paused => state.paused,
        }
    }
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Met(Option<Ended>),
    TimeRanOut,
    Ended(Option<Ended>),
}

/// `wait [--for=STATE] [-t SECONDS] D`.
///
/// # Errors
///
/// When there is no such domain, unless it is waited for until it exists, or it does not answer.
pub fn wait(matches: &ArgMatches) -> Result<u8, Error> {
    let word = crate::word(matches, "domain");
    let goal = Goal::parse(matches.get_one::<String>("for").map_or("gone", String::as_str));
    let deadline = match matches.get_one::<f64>("timeout") {
        None => None,
        Some(seconds) => {
            let limit = Duration::try_from_secs_f64(*seconds).ok();
            let end = limit.and_then(|limit| Instant::now().checked_add(limit));
            Some(end.ok_or_else(|| Error::usage("wait", "Invalid argument."))?)
        }
    };
    let outcome = run(word, goal, deadline)?;
    if matches.get_flag("json") {
        let (result, ended) = match outcome {
            Outcome::Met(ended) => ("met", ended),
            Outcome::TimeRanOut => ("timeout", None),
            Outcome::Ended(ended) => ("ended", ended),
        };
        let text = serde_json::to_string_pretty(&json!({"result": result, "ended": ended}))?;
        put(&format!("{text}\n"))?;
    }
    Ok(match outcome {
        Outcome::Met(_) => 0,
        Outcome::TimeRanOut => TIME_RAN_OUT,
        Outcome::Ended(_) => ENDED,
    })
}

fn run(word: &str, goal: Goal, deadline: Option<Instant>) -> Result<Outcome, Error> {
    let (who, client) = loop {
        match connect(word, "wait for") {
            Ok(connected) => break connected,
            Err(error) if goal == Goal::Exists && is_unknown(&error) => {
                if !pause(deadline) {
                    return Ok(Outcome::TimeRanOut);
                }
            }
            Err(error) => return Err(error),
        }
    };
    match goal {
        Goal::Exists => Ok(Outcome::Met(None)),
        Goal::Gone => announced(client, WaitUntil::Gone, deadline),
        Goal::Stopped => announced(client, WaitUntil::Shutdown, deadline),
        Goal::Running | Goal::Paused => polled(&who, goal, deadline),
    }
}

/// Waits for a while, not beyond the deadline; whether there is time left.
fn pause(deadline: Option<Instant>) -> bool {
    let left = deadline.map_or(POLL, |end| end.saturating_duration_since(Instant::now()));
    std::thread::sleep(left.min(POLL));
    !left.is_zero()
}

/// What the domain's process tells by itself.
fn announced(
    mut client: Client,
    until: WaitUntil,
    deadline: Option<Instant>,
) -> Result<Outcome, Error> {
    let ended = |error: &ClientError| matches!(error, ClientError::Ended { .. });
    if until == WaitUntil::Shutdown {
        // One that has stopped already announces nothing.
        match client.info() {
            Ok(info) if Goal::Stopped.is_met_by(info.state) => return Ok(Outcome::Met(None)),
            Ok(_) => {}
            Err(error) if ended(&error) => return Ok(Outcome::Met(None)),
            Err(error) => return Err(error.into()),
        }
    }
    let patience = deadline.map(|end| end.saturating_duration_since(Instant::now()));
    match client.wait(until, patience) {
        Ok(Some(ended)) => Ok(Outcome::Met(Some(ended))),
        Ok(None) => Ok(Outcome::TimeRanOut),
        Err(error) if ended(&error) => Ok(Outcome::Met(None)),
        Err(error) => Err(error.into()),
    }
}

/// What has to be looked at again and again.
fn polled(who: &Who, goal: Goal, deadline: Option<Instant>) -> Result<Outcome, Error> {
    let daemon = daemon();
    loop {
        let domain = match daemon.domain(&who.uuid.to_string()) {
            Ok(domain) if domain.domid() == who.domid => domain,
            Ok(_) => return Ok(Outcome::Ended(None)),
            Err(error) if error.code() == Some(ErrorCode::NotFound) => {
                return Ok(Outcome::Ended(None));
            }
            Err(error) => return Err(error.into()),
        };
        let state = match (&domain.info, &domain.trouble) {
            (Some(info), _) => info.state,
            (None, Some(_)) => info(&domain)?.state,
            // It is being built.
            (None, None) if pause(deadline) => continue,
            (None, None) => return Ok(Outcome::TimeRanOut),
        };
        if goal.is_met_by(state) {
            return Ok(Outcome::Met(None));
        }
        if Goal::Stopped.is_met_by(state) {
            return Ok(Outcome::Ended(None));
        }
        if !pause(deadline) {
            return Ok(Outcome::TimeRanOut);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_by_their_words() {
        let goals = WORDS.map(Goal::parse);
        let all = [Goal::Gone, Goal::Stopped, Goal::Exists, Goal::Running, Goal::Paused];
        assert_eq!(goals, all);
        let paused = StateFlags { paused: true, blocked: true, ..StateFlags::default() };
        assert!(Goal::Paused.is_met_by(paused) && !Goal::Running.is_met_by(paused));
        let crashed = StateFlags { crashed: true, ..StateFlags::default() };
        assert!(Goal::Stopped.is_met_by(crashed) && !Goal::Running.is_met_by(crashed));
        assert!(!Goal::Gone.is_met_by(crashed), "only its end is");
    }
}
