//! What Tab completes: commands, options, names of domains, files.

use clap::builder::ValueHint;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::{
    Context, Helper, Result, highlight::Highlighter, hint::Hinter, validate::Validator,
};

use crate::cli;
use crate::commands::{COMMANDS, Lookup, lookup};
use crate::daemon::HOST_NAME;
use crate::daemon::daemon;
use crate::tool::Tool;

/// Words that only the shell knows.
const OWN: [&str; 3] = ["help", "exit", "quit"];

/// Completes words of a tool.
pub struct Words {
    tool: Tool,
    files: FilenameCompleter,
}

impl Helper for Words {}
impl Highlighter for Words {}
impl Validator for Words {}
impl Hinter for Words {
    type Hint = String;
}

impl Words {
    pub fn new(tool: Tool) -> Self {
        Self { tool, files: FilenameCompleter::new() }
    }

    /// What can stand in the place of a word that begins like `begin`, after the words `before`.
    fn candidates(
        &self,
        before: &[&str],
        begin: &str,
        domains: impl Fn() -> Vec<String>,
    ) -> Vec<String> {
        let Some((command, _)) = before.split_first() else {
            let working = COMMANDS.iter().filter(|entry| entry.lacks.is_none());
            return matching(working.map(|entry| entry.name).chain(OWN).map(str::to_owned), begin);
        };
        let entry = match lookup(self.tool, command) {
            Lookup::Found(entry) | Lookup::Deprecated(entry) => entry,
            Lookup::Unknown => return Vec::new(),
        };
        let Some(definition) = cli::command(self.tool, entry.name) else { return Vec::new() };
        if begin.starts_with('-') {
            let longs = definition.get_arguments().filter_map(|arg| arg.get_long());
            return matching(longs.map(|long| format!("--{long}")).chain(["--help".into()]), begin);
        }
        let takes_domain = definition.get_positionals().any(|arg| arg.get_id() == "domain");
        if takes_domain { matching(domains(), begin) } else { Vec::new() }
    }

    /// Whether the command takes files.
    fn takes_files(&self, command: &str) -> bool {
        let (Lookup::Found(entry) | Lookup::Deprecated(entry)) = lookup(self.tool, command) else {
            return false;
        };
        cli::command(self.tool, entry.name).is_some_and(|definition| {
            definition.get_positionals().any(|arg| arg.get_value_hint() == ValueHint::FilePath)
        })
    }
}

fn matching(words: impl IntoIterator<Item = String>, begin: &str) -> Vec<String> {
    let mut words: Vec<String> = words.into_iter().filter(|word| word.starts_with(begin)).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// Names of the domains, as far as the daemon tells.
fn names() -> Vec<String> {
    let domains = daemon().domains().unwrap_or_default();
    domains.into_iter().map(|domain| domain.name).chain([HOST_NAME.to_owned()]).collect()
}

impl Completer for Words {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        context: &Context<'_>,
    ) -> Result<(usize, Vec<Pair>)> {
        let typed = line.get(..position).unwrap_or_default();
        let start = typed.rfind([' ', '\t']).map_or(0, |blank| blank + 1);
        let begin = typed.get(start..).unwrap_or_default();
        let before: Vec<&str> = typed.get(..start).unwrap_or_default().split_whitespace().collect();
        let words = self.candidates(&before, begin, names);
        let is_file = words.is_empty() && before.first().is_some_and(|word| self.takes_files(word));
        if is_file {
            return self.files.complete(line, position, context);
        }
        let alone = words.len() == 1;
        let pair = |word: String| {
            let replacement = if alone { format!("{word} ") } else { word.clone() };
            Pair { display: word, replacement }
        };
        Ok((start, words.into_iter().map(pair).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_options_and_names_are_completed_where_they_stand() {
        let words = Words::new(Tool::Xm);
        let of = |before: &[&str], begin: &str| {
            words.candidates(before, begin, || vec!["serv1".into(), "serv2".into(), "web".into()])
        };
        assert_eq!(of(&[], "une"), Vec::<String>::new());
        assert_eq!(of(&[], "unp"), ["unpause"]);
        assert_eq!(of(&[], "exi"), ["exit"]);
        assert_eq!(of(&[], "exp"), ["explain"]);
        assert_eq!(of(&["destroy"], "ser"), ["serv1", "serv2"]);
        assert_eq!(of(&["block-list"], "--j"), ["--json"]);
        assert_eq!(of(&["des"], "w"), ["web"], "an abbreviation");
        assert!(of(&["frobnicate"], "s").is_empty());
        assert!(words.takes_files("create") && !words.takes_files("destroy"));
    }
}
