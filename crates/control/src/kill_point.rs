//! Places at which a process can be made to die, for tests of what it leaves behind.

use rustix::process::{Signal, getpid, kill_process};
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Environment variable with `POINT:FILE`: the process kills itself with SIGKILL when it comes to
/// that point, unless the file exists; it makes the file first. So whatever starts anew in the
/// same environment lives. For tests only.
pub const DIE_VARIABLE: &str = "XENOLITH_DIE_AT";

static ORDER: OnceLock<Option<(String, PathBuf)>> = OnceLock::new();

/// Marks a point. Does nothing unless [`DIE_VARIABLE`] names it.
pub fn kill_point(name: &str) {
    let order = ORDER.get_or_init(|| {
        let text = std::env::var(DIE_VARIABLE).ok()?;
        let (point, file) = text.split_once(':')?;
        Some((point.to_owned(), PathBuf::from(file)))
    });
    let Some((point, file)) = order else { return };
    if point == name && OpenOptions::new().write(true).create_new(true).open(file).is_ok() {
        let _dead = kill_process(getpid(), Signal::KILL);
    }
}
