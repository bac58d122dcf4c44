//! `doctor`: what of this host works, what does not, why, and what to do about it.

mod checks;
mod facts;
mod limits;
mod walls;

use clap::ArgMatches;
use serde::Serialize;
use serde_json::json;

use crate::error::Error;
use crate::output::{Colour, colours_on, put};
use facts::Facts;

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ok,
    /// To know; nothing depends on it.
    Note,
    /// Domains run, but slower or behind fewer walls.
    Warning,
    /// Domains cannot run.
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is, in a few words.
    pub name: String,
    /// What it came to.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What follows from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn new(name: impl Into<String>, state: State, found: impl Into<String>) -> Self {
        Self { name: name.into(), state, found: found.into(), why: None, fix: None }
    }

    /// `Ok` if `good`, else `otherwise`.
    fn that(good: bool, otherwise: State, name: &str, found: impl Into<String>) -> Self {
        Self::new(name, if good { State::Ok } else { otherwise }, found)
    }

    /// Why it matters, and what to do; told only if it is not well.
    fn or(mut self, why: &str, fix: &str) -> Self {
        if matches!(self.state, State::Warning | State::Failure) {
            self.why = Some(why.to_owned()).filter(|text| !text.is_empty());
            self.fix = Some(fix.to_owned()).filter(|text| !text.is_empty());
        }
        self
    }

    /// What follows from it, well or not.
    fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }
}

/// Checks that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Their heading.
    pub title: &'static str,
    /// In the order in which they are shown.
    pub checks: Vec<Check>,
}

/// `doctor [--json]`: 0 if domains can run.
///
/// # Errors
///
/// When standard output cannot be written.
pub fn doctor(matches: &ArgMatches) -> Result<u8, Error> {
    let groups = checks::all(&Facts::now());
    let able = !groups.iter().flat_map(|group| &group.checks).any(|c| c.state == State::Failure);
    if matches.get_flag("json") {
        let value = json!({"able": able, "groups": groups});
        put(&format!("{}\n", serde_json::to_string_pretty(&value)?))?;
    } else {
        put(&page(&groups, colours_on(&std::io::stdout())))?;
    }
    Ok(u8::from(!able))
}

/// The checks as a person reads them.
fn page(groups: &[Group], colours: bool) -> String {
    let mut text = String::new();
    for group in groups {
        text.push_str(&format!("{}\n", group.title));
        for check in &group.checks {
            text.push_str(&entry(check, colours));
        }
        text.push('\n');
    }
    let count = |state| groups.iter().flat_map(|g| &g.checks).filter(|c| c.state == state).count();
    text.push_str(&verdict(count(State::Failure), count(State::Warning)));
    text
}

/// Width of the column of names.
const NAMES: usize = 24;

fn entry(check: &Check, colours: bool) -> String {
    let (word, colour) = match check.state {
        State::Ok => ("ok", Some(Colour::Green)),
        State::Note => ("-", None),
        State::Warning => ("warn", Some(Colour::Yellow)),
        State::Failure => ("FAIL", Some(Colour::Red)),
    };
    // Padding comes first: the codes of a colour have no width.
    let word = format!("{word:<4}");
    let word = match colour.filter(|_| colours) {
        Some(colour) => colour.paint(&word),
        None => word,
    };
    let mut text = format!("  {word}  {:<NAMES$} {}\n", check.name, check.found);
    let fix = check.fix.as_ref().map(|fix| format!("fix: {fix}"));
    for line in check.why.iter().chain(&fix).flat_map(|words| wrapped(words)) {
        text.push_str(&format!("        {line}\n"));
    }
    text
}

/// Columns of a line of words.
const WIDTH: usize = 84;

/// Words in lines; a word that is longer than a line has one of its own.
fn wrapped(words: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn verdict(failures: usize, warnings: usize) -> String {
    let many = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    };
    match (failures, warnings) {
        (0, 0) => "Domains can run here.\n".to_owned(),
        (0, _) => format!("Domains can run here ({}).\n", many(warnings, "warning")),
        _ => format!("Domains cannot run here: {}.\n", many(failures, "failure")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups() -> Vec<Group> {
        let well = Check::that(true, State::Failure, "Kernel", "6.12.1").or("never", "seen");
        let bad = Check::that(false, State::Warning, "CPUs", "1").or("Slow.", "Give it two.");
        let note = Check::new("/dev/kvm", State::Note, "there").because("It is not needed.");
        vec![Group { title: "Host", checks: vec![well, bad, note] }]
    }

    #[test]
    fn a_page_tells_what_why_and_the_fix() {
        let expected = "Host\n\
             \x20 ok    Kernel                   6.12.1\n\
             \x20 warn  CPUs                     1\n\
             \x20       Slow.\n\
             \x20       fix: Give it two.\n\
             \x20 -     /dev/kvm                 there\n\
             \x20       It is not needed.\n\n\
             Domains can run here (1 warning).\n";
        assert_eq!(page(&groups(), false), expected);
        let coloured = page(&groups(), true);
        assert!(coloured.contains("\u{1b}[1;33mwarn\u{1b}[0m  CPUs"), "{coloured}");
    }

    #[test]
    fn words_are_wrapped() {
        let long = "x".repeat(WIDTH + 1);
        let lines = wrapped(&format!("{} end {long} z", "word ".repeat(17)));
        assert_eq!(lines, [format!("{}word", "word ".repeat(16)), "end".into(), long, "z".into()]);
        assert!(wrapped(" ").is_empty());
    }

    #[test]
    fn the_verdict_counts() {
        assert_eq!(verdict(0, 0), "Domains can run here.\n");
        assert_eq!(verdict(0, 2), "Domains can run here (2 warnings).\n");
        assert_eq!(verdict(1, 5), "Domains cannot run here: 1 failure.\n");
    }

    #[test]
    fn json_has_the_same() {
        let value = serde_json::to_value(groups()).unwrap();
        let check = &value[0]["checks"][1];
        assert_eq!((&check["state"], &check["fix"]), (&"warning".into(), &"Give it two.".into()));
        assert!(value[0]["checks"][0].get("fix").is_none());
    }
}
