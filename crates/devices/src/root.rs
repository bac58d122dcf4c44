//! Leaves the host's file tree for an empty directory.
//!
//! A backend is a program with libraries, which have to be found by name; so it cannot be started in
//! an empty root, as a space is, but goes there itself once it runs. The domain process makes that
//! possible where the host allows it: it starts the backend in an empty directory, in user and mount
//! namespaces of its own, and lends it two capabilities of these namespaces (as ambient ones, which
//! outlive `exec`). They are what tells that there is a way to go, too: without them nothing is done,
//! above all not to the file tree of whoever starts a backend by hand.

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, chroot, fchdir, pivot_root};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_ambient_set, clear_ambient_capability_set,
    set_capabilities,
};
use std::io;

/// Makes the working directory the root, if this process was started for that, and gives up the
/// capabilities that it takes. A host that does not allow it leaves the other walls, and a line in the log.
///
/// # Errors
/// When capabilities cannot be given up.
pub fn leave() -> io::Result<()> {
    if !capability_is_in_ambient_set(CapabilitySet::SYS_CHROOT).unwrap_or(false) {
        return Ok(());
    }
    if let Err(error) = leave_mounts().or_else(|_| leave_by_chroot()) {
        eprintln!(
            "the root stays the host's, behind the other walls: {error}; 'xm doctor' tells what this \
             host allows"
        );
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

/// All mounts of the host's stay behind. The directory is reached by descriptor: its path may be
/// closed to this user.
fn leave_mounts() -> rustix::io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(CWD, "", flags)?;
    move_mount(&tree, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    fchdir(&tree)?;
    // The old root is stacked on the new one (pivot_root(2), notes), and goes.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    let closed = MountFlags::BIND
        | MountFlags::RDONLY
        | MountFlags::NOSUID
        | MountFlags::NODEV
        | MountFlags::NOEXEC;
    let _nothing_is_in_it_anyway = mount_remount("/", closed, "");
    chdir("/")
}

fn leave_by_chroot() -> rustix::io::Result<()> {
    chroot(".")?;
    chdir("/")
}
