//! A network namespace for the thread of a test.
#![allow(dead_code, reason = "each test uses a part")]

use std::process::Command;

/// Moves this thread to a network of its own; false, with a message, where that is not allowed.
pub fn enter() -> bool {
    // SAFETY: descriptors and memory stay shared; only the network is new, for this thread and the
    // processes that it starts.
    let entered = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
    if entered.is_err() || Command::new("ip").arg("-V").output().is_err() {
        eprintln!("skipped: needs root (CAP_SYS_ADMIN) and the program `ip`");
        return false;
    }
    ip("link set lo up");
    true
}

/// Runs `ip` with these words; its output.
pub fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
