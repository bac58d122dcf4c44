//! The walls of the jail: which hold here, what one that is missing means, and how to get it.

use control::Probe;

use super::facts::Facts;
use super::{Check, State};

/// What stands behind a wall's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every host has it.
    Plain,
    /// Made by a user namespace or by root.
    Namespace,
    /// Root's domains have it; others need none.
    OfRoot,
    /// Landlock.
    Landlock,
    /// Needs a user namespace and Linux 5.14.
    Limit,
}

/// The walls by the names that `xendomain` gives them.
pub const KNOWN: [(&str, Kind); 13] = [
    ("no-new-privileges", Kind::Plain),
    ("user-namespace", Kind::Namespace),
    ("mount-namespace", Kind::Namespace),
    ("network-namespace", Kind::Namespace),
    ("ipc-namespace", Kind::Namespace),
    ("uts-namespace", Kind::Namespace),
    ("pid-namespace", Kind::Namespace),
    ("empty-root", Kind::Namespace),
    ("nobody", Kind::OfRoot),
    ("closed-descriptors", Kind::Plain),
    ("limits", Kind::Plain),
    ("process-limit", Kind::Limit),
    ("landlock", Kind::Landlock),
];

/// One check for those that hold, and one for each kind that is missing.
pub fn checks(probe: &Probe, facts: &Facts) -> Vec<Check> {
    if probe.failure.is_some() {
        return Vec::new();
    }
    let named = |holds: bool, kind: Option<Kind>| -> Vec<&str> {
        let walls = probe.walls.iter().filter(|wall| wall.holds == holds);
        let known = |name: &str| KNOWN.iter().find(|(wall, _)| *wall == name).map(|(_, k)| *k);
        let of_kind = walls.filter(|wall| kind.is_none() || known(&wall.name) == kind);
        of_kind.map(|wall| wall.name.as_str()).collect()
    };
    let hold = named(true, None);
    let found = hold.len().to_string();
    let mut checks = vec![Check::new("Walls that hold", State::Ok, found).because(hold.join(", "))];
    let mut missing = |kind, what: &str, why: &str, fix: &str| {
        let names = named(false, Some(kind));
        if !names.is_empty() {
            checks.push(
                Check::new(what, State::Warning, format!("missing: {}", names.join(" ")))
                    .or(why, fix),
            );
        }
    };
    missing(
        Kind::Namespace,
        "Namespaces",
        "Spaces are held by the filter of system calls, and by fewer walls behind it.",
        &how_to_get_namespaces(facts),
    );
    missing(
        Kind::Limit,
        "Process limit",
        "A space that was broken can make processes up to the limits of its user.",
        "It comes with user namespaces and Linux 5.14; or put domains into a control group with pids.max.",
    );
    missing(
        Kind::Landlock,
        "Landlock",
        "One wall less behind the filter of system calls.",
        "Use Linux 5.13 or newer with landlock in the list of security modules (lsm= at boot).",
    );
    missing(
        Kind::Plain,
        "Other walls",
        "This host refuses what every Linux has.",
        "Look for a sandbox around this process that forbids setrlimit.",
    );
    if probe.landlock > 0 {
        checks.push(Check::new("Landlock", State::Ok, format!("version {}", probe.landlock)));
    }
    checks
}

/// What keeps this user from namespaces.
fn how_to_get_namespaces(facts: &Facts) -> String {
    let settings = &facts.settings;
    if settings.max_user_namespaces == "0" {
        "sysctl user.max_user_namespaces=10000".to_owned()
    } else if settings.unprivileged_userns_clone == "0" {
        "sysctl kernel.unprivileged_userns_clone=1".to_owned()
    } else if settings.apparmor_restrict == "1" {
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for \
         xendomain that allows userns."
            .to_owned()
    } else if facts.confined.1 == "2" {
        "A seccomp filter around this process seems to forbid unshare and mount: in a container, run \
         it with another profile."
            .to_owned()
    } else {
        "Run domains where unshare and mount are allowed (a container may need another profile, and \
         may not be in a chroot)."
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::checks::tests::{bad, good};

    fn without(names: &[&str]) -> Facts {
        let mut facts = good();
        if let Ok(probe) = &mut facts.probe {
            for wall in &mut probe.walls {
                wall.holds = !names.contains(&wall.name.as_str());
            }
        }
        facts
    }

    #[test]
    fn missing_walls_are_told_by_kind() {
        let names =
            |facts: &Facts| bad(facts).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&without(&["pid-namespace", "user-namespace"])), ["Namespaces"]);
        assert_eq!(names(&without(&["process-limit", "landlock"])), ["Process limit", "Landlock"]);
        assert_eq!(names(&without(&["limits"])), ["Other walls"]);
        assert!(names(&without(&["nobody"])).is_empty(), "only root's domains change their user");
    }

    #[test]
    fn the_fix_names_the_setting_that_forbids() {
        let mut facts = good();
        facts.settings.apparmor_restrict = "1".into();
        assert!(how_to_get_namespaces(&facts).contains("AppArmor"));
        facts.settings.unprivileged_userns_clone = "0".into();
        assert!(how_to_get_namespaces(&facts).contains("userns_clone=1"));
        facts.settings.max_user_namespaces = "0".into();
        assert!(how_to_get_namespaces(&facts).contains("max_user_namespaces=10000"));
    }
}
