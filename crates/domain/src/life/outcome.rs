//! From the reason why a guest stopped to what becomes of its domain.

use config::{Action, Events};
use control::ShutdownReason;

/// A domain that starts anew twice within this time is destroyed instead, in
/// seconds (xend's minimum restart time).
const RESTART_INTERVAL: u64 = 60;

/// What becomes of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes.
    Destroy,
    /// It starts anew.
    Restart,
    /// It stays listed.
    Preserve,
    /// It stays listed under another name, and a new one starts.
    RenameRestart,
}

/// What becomes of a domain, and notes for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What becomes of it.
    pub next: Next,
    /// What a user might wonder about.
    pub notes: Vec<String>,
}

/// The reason behind a `SHUTDOWN_*` number (sched.h).
pub fn reason_of(number: u32) -> ShutdownReason {
    match number {
        0 => ShutdownReason::Poweroff,
        1 => ShutdownReason::Reboot,
        2 => ShutdownReason::Suspend,
        4 => ShutdownReason::Watchdog,
        _ => ShutdownReason::Crash,
    }
}

/// Decides what becomes of a domain. `now` and `last_restart` are in seconds
/// since the epoch.
pub fn decide(
    events: &Events,
    reason: ShutdownReason,
    now: u64,
    last_restart: Option<u64>,
) -> Ending {
    let action = match reason {
        ShutdownReason::Destroyed => Action::Destroy,
        ShutdownReason::Poweroff | ShutdownReason::Suspend => events.poweroff,
        ShutdownReason::Reboot => events.reboot,
        ShutdownReason::Crash | ShutdownReason::Watchdog => events.crash,
    };
    let mut notes = Vec::new();
    if reason == ShutdownReason::Suspend {
        notes.push("nobody asked for a suspend: treated as a poweroff".to_owned());
    }
    let base = match action {
        Action::Destroy => Next::Destroy,
        Action::Restart => Next::Restart,
        Action::Preserve => Next::Preserve,
        Action::RenameRestart => Next::RenameRestart,
        Action::CoredumpDestroy | Action::CoredumpRestart => {
            notes.push(format!("{}: core dumps are not written yet", action.as_str()));
            if action == Action::CoredumpDestroy { Next::Destroy } else { Next::Restart }
        }
    };
    let since = last_restart.map(|last| now.saturating_sub(last));
    let restarts = matches!(base, Next::Restart | Next::RenameRestart);
    if let Some(since) = since.filter(|since| restarts && *since < RESTART_INTERVAL) {
        notes.push(format!(
            "restarting too fast ({since} s since the last restart, the least is \
             {RESTART_INTERVAL} s): destroyed instead, to avoid a loop"
        ));
        return Ending { next: Next::Destroy, notes };
    }
    Ending { next: base, notes }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Events = Events {
        poweroff: Action::Destroy,
        reboot: Action::Restart,
        crash: Action::Preserve,
        starts_with_host: false,
    };

    #[test]
    fn reasons_have_their_actions() {
        let next = |reason| decide(&DEFAULT, reason, 1000, None).next;
        assert_eq!(next(reason_of(0)), Next::Destroy);
        assert_eq!(next(reason_of(1)), Next::Restart);
        assert_eq!(next(reason_of(2)), Next::Destroy);
        assert_eq!(next(reason_of(3)), Next::Preserve);
        assert_eq!(next(reason_of(4)), Next::Preserve);
        assert_eq!(next(reason_of(77)), Next::Preserve, "unknown reasons are crashes");
        let all = Events {
            poweroff: Action::Restart,
            reboot: Action::Restart,
            crash: Action::Restart,
            starts_with_host: false,
        };
        assert_eq!(decide(&all, ShutdownReason::Destroyed, 0, None).next, Next::Destroy);
    }

    #[test]
    fn the_first_restart_always_works_and_the_second_has_to_wait() {
        let at = |now, last| decide(&DEFAULT, ShutdownReason::Reboot, now, last);
        assert_eq!(at(1000, None).next, Next::Restart);
        assert_eq!(at(1059, Some(1000)).next, Next::Destroy);
        assert!(at(1059, Some(1000)).notes[0].contains("too fast (59 s"));
        assert_eq!(at(1060, Some(1000)).next, Next::Restart);
        assert_eq!(at(900, Some(1000)).next, Next::Destroy, "a clock that was set back");
        let kept = decide(&DEFAULT, ShutdownReason::Crash, 1001, Some(1000));
        assert_eq!(kept.next, Next::Preserve, "keeping makes no loop");
    }

    #[test]
    fn core_dumps_fall_back_with_a_note() {
        let crash = |crash| decide(&Events { crash, ..DEFAULT }, ShutdownReason::Crash, 0, None);
        let ending = crash(Action::CoredumpRestart);
        assert_eq!(ending.next, Next::Restart);
        assert!(ending.notes[0].starts_with("coredump-restart"));
        assert_eq!(crash(Action::CoredumpDestroy).next, Next::Destroy);
    }
}
