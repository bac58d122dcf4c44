//! `image`: builds guests, and lists what can be built.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::ArgMatches;
use image::{Built, Options, Order, RELEASES, Stage, Watcher};
use signal_hook::consts::SIGTSTP;

use crate::error::Error;
use crate::output::{note, put};
use crate::signals::{self, ENDING, Signals};
use crate::tool::Tool;

/// `image build RELEASE -o DIR`, `image list`.
///
/// # Errors
///
/// When the words are wrong, or the build fails.
pub fn image(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    let word = |name: &str| matches.get_one::<String>(name).cloned();
    match word("action").as_deref() {
        Some("build") => build(tool, matches),
        Some("list") => list(matches.get_flag("json")),
        other => {
            let other = other.unwrap_or_default();
            Err(Error::usage("image", format!("'{other}' is not build or list.")))
        }
    }
}

fn list(json: bool) -> Result<(), Error> {
    if json {
        let words: Vec<String> = RELEASES.iter().map(image::Release::word).collect();
        return put(&format!("{}\n", serde_json::to_string_pretty(&words)?));
    }
    let line = |release: &image::Release| format!("{:<14}{}\n", release.word(), release.title());
    put(&RELEASES.iter().map(line).collect::<String>())
}

fn build(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    let options = options(matches)?;
    let order = Order::new(&options)?;
    let quiet = matches.get_flag("quiet");
    let mut progress = Progress::start(quiet)?;
    let built = image::build(&order, &mut progress);
    let seconds = progress.end();
    let built = built?;
    if matches.get_flag("json") {
        return put(&format!("{}\n", serde_json::to_string_pretty(&built)?));
    }
    put(&summary(tool, &built, seconds))
}

fn options(matches: &ArgMatches) -> Result<Options, Error> {
    let word = |name: &str| matches.get_one::<String>(name).cloned();
    let needed = |name: &str, what: &str| {
        let text = || format!("image build needs {what}.");
        word(name).ok_or_else(|| Error::usage("image", text()))
    };
    Ok(Options {
        release: needed("release", "what to build, like debian:12")?,
        directory: needed("output", "-o DIR, the directory to make")?.into(),
        size: word("size"),
        swap: word("swap"),
        packages: word("packages"),
        hostname: word("hostname"),
        mac: word("mac"),
        vif: word("vif"),
        memory: word("memory"),
        mirror: word("mirror"),
        security_mirror: word("security-mirror"),
        keyring: word("keyring").map(Into::into),
        root_password: word("root-password"),
        ssh_key: word("ssh-key").map(Into::into),
        force: matches.get_flag("force"),
        agent: agent(),
    })
}

/// The program that serves `exec` and `cp` in guests.
fn agent() -> Option<std::path::PathBuf> {
    let found = control::find_program("xenguest", "XENOLITH_XENGUEST");
    if let Err(error) = &found {
        note(&format!("Warning: the guest will have no agent for exec and cp: {error}"));
    }
    found.ok()
}

fn summary(tool: Tool, built: &Built, seconds: u64) -> String {
    let (name, place) = (&built.name, built.directory.display());
    let mut text = format!("Built {name} ({}) in {place}, {seconds} s.\n", built.release);
    if let (Some(password), Some(path)) = (&built.password, &built.password_file) {
        text.push_str(&format!("Root's password: {password} (kept in {})\n", path.display()));
    }
    let config = built.config.display();
    text.push_str(&format!("Start it with: {} create -c '{config}'\n", tool.name()));
    text
}

/// How often the seconds are drawn anew on a terminal.
const REDRAW: Duration = Duration::from_millis(500);

/// Tells the stages on standard error, and listens for signals.
struct Progress {
    start: Instant,
    stage: Option<Stage>,
    drawn: Instant,
    signals: Signals,
    style: Style,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Nothing is told.
    Quiet,
    /// One line for each stage.
    Lines,
    /// The last line counts the seconds.
    Terminal,
}

impl Progress {
    fn start(quiet: bool) -> Result<Self, Error> {
        let style = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Style::Quiet,
            (false, false) => Style::Lines,
            (false, true) => Style::Terminal,
        };
        let (start, signals) = (Instant::now(), Signals::catch().map_err(Error::Signals)?);
        Ok(Self { start, stage: None, drawn: start, signals, style })
    }

    /// Draws the stage's line; a failure is ignored, as there is no better place to tell.
    fn draw(&mut self, end: &str) {
        let Some(stage) = self.stage else { return };
        let mut err = std::io::stderr().lock();
        let begin = if self.style == Style::Terminal { "\r\u{1b}[K" } else { "" };
        drop(write!(err, "{begin}[{:>3} s] {stage}{end}", self.start.elapsed().as_secs()));
        drop(err.flush());
        self.drawn = Instant::now();
    }

    /// Ends the last line; the whole seconds of the build.
    fn end(&mut self) -> u64 {
        if self.style == Style::Terminal {
            self.draw("\n");
        }
        self.start.elapsed().as_secs()
    }
}

impl Watcher for Progress {
    fn stage(&mut self, stage: Stage) {
        if self.stage == Some(stage) {
            return;
        }
        match self.style {
            Style::Quiet => {}
            Style::Lines => {
                self.stage = Some(stage);
                self.draw("\n");
            }
            Style::Terminal => {
                self.draw("\n");
                self.stage = Some(stage);
                self.draw("");
            }
        }
    }

    fn poll(&mut self) -> Option<i32> {
        if self.style == Style::Terminal && self.drawn.elapsed() >= REDRAW {
            self.draw("");
        }
        for signal in self.signals.take() {
            if ENDING.contains(&signal) {
                return Some(signal);
            }
            if signal == SIGTSTP {
                signals::obey(signal);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    fn parsed(words: &[&str]) -> ArgMatches {
        let words = std::iter::once(&"image").chain(words);
        cli::command(Tool::Xm, "image").unwrap().try_get_matches_from(words).unwrap()
    }

    fn refused(words: &[&str]) -> String {
        image(Tool::Xm, &parsed(words)).unwrap_err().to_string()
    }

    #[test]
    fn all_options_reach_the_builder() {
        let words = [
            "build",
            "debian:12",
            "-o",
            "d",
            "--size",
            "1G",
            "--swap",
            "64M",
            "--packages",
            "nano",
            "--hostname",
            "h",
            "--mac",
            "m",
            "--memory",
            "128",
            "--mirror",
            "u",
            "--security-mirror",
            "s",
            "--keyring",
            "k",
            "--root-password",
            "p",
            "--ssh-key",
            "f",
            "--force",
        ];
        let options = options(&parsed(&words)).unwrap();
        assert_eq!(options.release, "debian:12");
        assert_eq!(options.directory, std::path::Path::new("d"));
        let texts = [
            (&options.size, "1G"),
            (&options.swap, "64M"),
            (&options.packages, "nano"),
            (&options.hostname, "h"),
            (&options.mac, "m"),
            (&options.memory, "128"),
            (&options.mirror, "u"),
            (&options.security_mirror, "s"),
            (&options.root_password, "p"),
        ];
        for (given, text) in texts {
            assert_eq!(given.as_deref(), Some(text));
        }
        assert_eq!(options.keyring, Some("k".into()));
        assert_eq!((options.ssh_key, options.force), (Some("f".into()), true));
    }

    #[test]
    fn words_that_are_missing_or_wrong() {
        assert_eq!(refused(&["bild"]), "'bild' is not build or list.");
        assert_eq!(refused(&["build"]), "image build needs what to build, like debian:12.");
        let text = "image build needs -o DIR, the directory to make.";
        assert_eq!(refused(&["build", "debian:12"]), text);
        assert!(refused(&["build", "debain:12", "-o", "x"]).contains("did you mean debian:12"));
    }
}
