//! Places at which a process can be made to die, for tests of what it leaves behind.
//!
//! A point lies between two steps whose order matters for what remains: `kill_point("xend.start.bound")`.
//! Without [`DIE_VARIABLE`] it costs the look at one word. The names are in the sources alone, each at one
//! place; whoever needs them all (`tests/kills`) finds them there. So they are literals.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use rustix::process::{Pid, Signal, getpid, kill_process};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// Environment variable with `POINT:FILE`: the process is killed (SIGKILL) when it comes to that point,
/// unless the file exists; it is made first. So whatever starts anew in the same environment lives.
/// With `POINT@MS:FILE` it dies so many milliseconds later: others have seen by then what it did before.
/// With `*:FILE` nobody is killed, and the file gets the name of each point that is come to, a line each.
/// For tests only.
pub const DIE_VARIABLE: &str = "XENOLITH_DIE_AT";

/// The point that stands for all.
const ALL: &str = "*";

struct Order {
    point: String,
    late: Duration,
    file: PathBuf,
}

impl Order {
    /// Whether somebody is to die at a point.
    fn is_for(&self, name: &str) -> bool {
        let mut options = OpenOptions::new();
        options.mode(0o666);
        if self.point == ALL {
            let noted = options.append(true).create(true).open(&self.file);
            // One write for the line: several processes have the file.
            let _nobody_looks =
                noted.and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()));
            return false;
        }
        if self.point != name || self.file.exists() {
            return false;
        }
        std::thread::sleep(self.late);
        options.write(true).create_new(true).open(&self.file).is_ok()
    }
}

static ORDER: OnceLock<Option<Order>> = OnceLock::new();

fn parse(text: &str) -> Option<Order> {
    let (point, file) = text.split_once(':')?;
    let (point, late) = point.split_once('@').unwrap_or((point, "0"));
    let late = Duration::from_millis(late.parse().ok()?);
    Some(Order { point: point.to_owned(), late, file: file.into() })
}

fn die_if_asked(name: &str, victim: Option<Pid>) {
    let order = ORDER.get_or_init(|| parse(&std::env::var(DIE_VARIABLE).ok()?));
    if order.as_ref().is_some_and(|order| order.is_for(name)) {
        let _dead = kill_process(victim.unwrap_or_else(getpid), Signal::KILL);
    }
}

/// Marks a point of this process.
pub fn kill_point(name: &'static str) {
    die_if_asked(name, None);
}

/// Marks a point at which another process, a child of this one, can be made to die: one in a jail, where
/// it could not make the file.
pub fn kill_point_of(child: Pid, name: &'static str) {
    die_if_asked(name, Some(child));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    #[test]
    fn an_order_is_carried_out_once_and_only_at_its_point() {
        let file = std::env::temp_dir().join(format!("kill-point-{}", std::process::id()));
        let order = parse(&format!("a.b:{}", file.display())).unwrap();
        assert!(!order.is_for("a.c"));
        assert!(order.is_for("a.b"));
        assert!(!order.is_for("a.b"), "a second time");
        let all = parse(&format!("*:{}", file.display())).unwrap();
        assert!(!all.is_for("a.b") && !all.is_for("a.c"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "a.b\na.c\n");
        std::fs::remove_file(file).unwrap();
        assert!(parse("no file").is_none());
        let late = parse("a.b@30:/f").unwrap();
        assert_eq!((late.point.as_str(), late.late), ("a.b", Duration::from_millis(30)));
        assert!(parse("a.b@soon:/f").is_none());
    }

    fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// A call up to its closing parenthesis.
    fn arguments(call: &str) -> &str {
        let mut depth = 0_i32;
        let end = call.find(|c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ')' && depth == 0
        });
        &call[call.find('(').unwrap()..end.unwrap()]
    }

    /// What tests/kills relies on.
    #[test]
    fn each_point_is_a_literal_of_its_own() {
        let mut files = Vec::new();
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for entry in std::fs::read_dir(crates).unwrap() {
            let source = entry.unwrap().path().join("src");
            if source.is_dir() && !source.starts_with(env!("CARGO_MANIFEST_DIR")) {
                sources(&source, &mut files);
            }
        }
        let mut places = BTreeMap::new();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for call in ["kill_point(", "kill_point_of(", "kill_backend("] {
                for (at, _) in text.match_indices(call) {
                    if text[..at].ends_with("fn ") {
                        continue;
                    }
                    let inside = arguments(&text[at..]);
                    let names: Vec<&str> = inside.split('"').skip(1).step_by(2).collect();
                    assert!(
                        !names.is_empty() || inside.contains("point"),
                        "{}: no literal: {inside}",
                        file.display()
                    );
                    for name in names {
                        let good = |c: char| {
                            c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c)
                        };
                        assert!(name.contains('.') && name.chars().all(good), "{name}");
                        let before = places.insert(name.to_owned(), file.clone());
                        assert!(before.is_none(), "{name} is in {} too", file.display());
                    }
                }
            }
        }
        assert!(places.len() > 100, "{} points", places.len());
    }
}
