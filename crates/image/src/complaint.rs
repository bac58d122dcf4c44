//! What a failed program meant: its lines turned into an error that says what to do.

use std::path::Path;

use crate::command::Outcome;
use crate::error::Error;
use crate::mirror::Archives;
use crate::release::Release;

/// Lines shown of a failure that is not understood.
const TAIL: usize = 15;

/// Words in lines of apt and dpkg, most telling first, and what they mean.
const SIGNS: &[(&str, Sign)] = &[
    ("No space left on device", Sign::Full),
    ("You don't have enough free space", Sign::Full),
    ("Disk quota exceeded", Sign::Full),
    ("Unable to locate package", Sign::NoPackage),
    ("Couldn't find any package", Sign::NoPackage),
    ("has no installation candidate", Sign::NoPackage),
    ("NO_PUBKEY", Sign::Signature),
    ("is not signed", Sign::Signature),
    ("EXPKEYSIG", Sign::Signature),
    ("Could not resolve", Sign::Mirror),
    ("Temporary failure resolving", Sign::Mirror),
    ("Could not connect", Sign::Mirror),
    ("Unable to connect", Sign::Mirror),
    ("Connection failed", Sign::Mirror),
    ("Connection timed out", Sign::Mirror),
    ("does not have a Release file", Sign::Mirror),
    ("Failed to fetch", Sign::Mirror),
    ("404  Not Found", Sign::Mirror),
];

#[derive(Clone, Copy)]
enum Sign {
    Full,
    NoPackage,
    Signature,
    Mirror,
}

/// The error that `program`'s failure amounts to.
pub fn explain(
    program: &'static str,
    outcome: &Outcome,
    release: &Release,
    archives: &Archives,
    place: &Path,
) -> Error {
    let found = SIGNS.iter().find_map(|(words, sign)| {
        let line = outcome.lines.iter().find(|line| line.contains(words))?;
        Some((*sign, line.trim_start_matches("E: ").trim().to_owned()))
    });
    let mirror = archives.main.clone();
    match found {
        Some((Sign::Full, _)) => Error::Full(place.to_path_buf()),
        Some((Sign::NoPackage, line)) => Error::NoPackage { release: release.title(), line },
        Some((Sign::Signature, line)) => {
            Error::Signature { mirror, line, package: release.distribution.keyring().1 }
        }
        Some((Sign::Mirror, line)) => Error::Mirror { mirror, line },
        None => failed(program, outcome),
    }
}

/// A failure as it is.
pub fn failed(program: &'static str, outcome: &Outcome) -> Error {
    let from = outcome.lines.len().saturating_sub(TAIL);
    let tail: Vec<&str> = outcome.lines.iter().skip(from).map(String::as_str).collect();
    Error::Failed { program, status: outcome.status.to_string(), tail: tail.join("\n") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::order::{Options, Order};

    fn explained(lines: &[&str]) -> Error {
        let keys = tempfile::NamedTempFile::new().unwrap();
        let options = Options {
            release: "debian:12".into(),
            mirror: Some("http://m.example/debian".into()),
            keyring: Some(keys.path().into()),
            ..Options::default()
        };
        let order = Order::new(&options).unwrap();
        let archives = Archives::choose(&order).unwrap();
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        let outcome = Outcome { status: std::process::ExitStatus::from_raw(25 << 8), lines };
        explain("mmdebstrap", &outcome, order.release, &archives, Path::new("/there"))
    }

    #[test]
    fn each_cause_has_its_error() {
        let error =
            explained(&["Reading package lists...", "E: Unable to locate package lihgttpd"]);
        assert!(error.to_string().ends_with("says: Unable to locate package lihgttpd"), "{error}");
        assert!(matches!(explained(&["Err:1 Could not resolve 'x'"]), Error::Mirror { .. }));
        assert!(matches!(explained(&["W: GPG error: NO_PUBKEY 12"]), Error::Signature { .. }));
        let full = ["E: Failed to fetch x", "tar: No space left on device"];
        assert!(matches!(explained(&full), Error::Full(place) if place == Path::new("/there")));
    }

    #[test]
    fn others_are_shown_with_their_last_lines() {
        let many: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let text = explained(&many).to_string();
        assert!(text.contains("exit status: 25") && text.ends_with("line 49"), "{text}");
        assert!(!text.contains("line 30"), "{text}");
    }
}
