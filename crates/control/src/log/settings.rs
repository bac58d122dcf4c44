//! What is logged, and how: the environment, then the settings of the host.

use super::record::Record;
use config::{HostConfig, HostLog};
use std::str::FromStr;

/// Environment variable with the level.
pub const LEVEL_VARIABLE: &str = "XENOLITH_LOG";
/// Environment variable with the format.
pub const FORMAT_VARIABLE: &str = "XENOLITH_LOG_FORMAT";

/// The settings of this process, and what is wrong with them: no program fails for the sake of its log.
pub(super) fn load() -> (HostLog, Vec<Record>) {
    let (mut settings, mut wrong) = match HostConfig::load() {
        Ok(host) => (host.log, Vec::new()),
        Err(error) => {
            let record = Record::warning(
                "the settings of the host are not understood: the log has its defaults",
            );
            (HostLog::default(), vec![record.with("error", error)])
        }
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|word| !word.is_empty());
    let (level, format) = (variable(LEVEL_VARIABLE), variable(FORMAT_VARIABLE));
    override_with(&mut settings.level, LEVEL_VARIABLE, level.as_deref(), &mut wrong);
    override_with(&mut settings.format, FORMAT_VARIABLE, format.as_deref(), &mut wrong);
    (settings, wrong)
}

fn override_with<T: FromStr<Err: std::fmt::Display>>(
    setting: &mut T,
    variable: &'static str,
    word: Option<&str>,
    wrong: &mut Vec<Record>,
) {
    match word.map(T::from_str) {
        None => {}
        Some(Ok(value)) => *setting = value,
        Some(Err(error)) => wrong.push(
            Record::warning("an environment variable is not understood")
                .with("variable", variable)
                .with("error", error),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::LogLevel;

    #[test]
    fn a_word_that_is_none_is_told_and_changes_nothing() {
        let (mut level, mut wrong) = (LogLevel::Info, Vec::new());
        let mut set = |word: Option<&str>, wrong: &mut Vec<Record>| {
            override_with(&mut level, LEVEL_VARIABLE, word, wrong);
            level
        };
        assert_eq!(set(None, &mut wrong), LogLevel::Info);
        assert_eq!(set(Some("debug"), &mut wrong), LogLevel::Debug);
        assert!(wrong.is_empty());
        assert_eq!(set(Some("loud"), &mut wrong), LogLevel::Debug);
        assert_eq!(wrong.len(), 1);
        assert_eq!(wrong[0].fields["variable"], LEVEL_VARIABLE);
        assert!(wrong[0].fields["error"].contains("'loud' is none of"));
    }
}
