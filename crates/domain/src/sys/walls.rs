//! The walls of the jail, as they are named to users.

/// A wall of the jail. Which of them hold depends on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    /// No privileges can be gained by exec (`PR_SET_NO_NEW_PRIVS`).
    NoNewPrivileges,
    /// A user namespace of its own.
    UserNamespace,
    /// A mount namespace of its own.
    MountNamespace,
    /// A network namespace of its own, with nothing in it.
    NetworkNamespace,
    /// System V and POSIX queue namespace of its own.
    IpcNamespace,
    /// Host name namespace of its own.
    UtsNamespace,
    /// Process numbers of its own: no other process has one there.
    PidNamespace,
    /// The root directory is empty.
    EmptyRoot,
    /// Runs as nobody, although the domain process is root's.
    Nobody,
    /// No descriptors but the domain's own.
    ClosedDescriptors,
    /// Resource limits.
    Limits,
    /// A limit on the number of processes, which counts this domain's alone.
    ProcessLimit,
    /// Landlock: no file, no TCP, no signal to the outside. Closed by the space itself.
    Landlock,
}

/// All walls with their names.
const WALLS: [(Wall, &str); 13] = [
    (Wall::NoNewPrivileges, "no-new-privileges"),
    (Wall::UserNamespace, "user-namespace"),
    (Wall::MountNamespace, "mount-namespace"),
    (Wall::NetworkNamespace, "network-namespace"),
    (Wall::IpcNamespace, "ipc-namespace"),
    (Wall::UtsNamespace, "uts-namespace"),
    (Wall::PidNamespace, "pid-namespace"),
    (Wall::EmptyRoot, "empty-root"),
    (Wall::Nobody, "nobody"),
    (Wall::ClosedDescriptors, "closed-descriptors"),
    (Wall::Limits, "limits"),
    (Wall::ProcessLimit, "process-limit"),
    (Wall::Landlock, "landlock"),
];

/// The walls that hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walls(pub(super) u32);

impl Walls {
    pub(super) fn add(&mut self, wall: Wall) {
        self.0 |= 1 << wall as u32;
    }

    /// Whether `wall` holds.
    pub fn has(self, wall: Wall) -> bool {
        self.0 & 1 << wall as u32 != 0
    }

    /// All walls there are by name, and whether they hold.
    pub fn all(self) -> impl Iterator<Item = (&'static str, bool)> {
        WALLS.iter().map(move |(wall, name)| (*name, self.has(*wall)))
    }

    /// The names of the walls that hold.
    pub fn names(self) -> Vec<String> {
        self.all().filter(|(_, holds)| *holds).map(|(name, _)| name.into()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wall_has_its_name() {
        let mut all = Walls::default();
        for (wall, name) in WALLS {
            assert!(!all.has(wall), "{name} stands twice");
            all.add(wall);
            assert!(all.has(wall) && all.names().contains(&name.to_owned()));
        }
        assert_eq!(all.names().len(), WALLS.len());
    }
}
