//! The walls that a child builds around itself before it executes its program:
//! system calls only.

use std::ffi::{CStr, c_long, c_ulong};

use super::fork::{Kind, Raw};
use super::walls::{Wall, Walls};

/// User and group that own nothing.
const NOBODY: libc::uid_t = 65534;
/// Most descriptors a space may have open.
const MOST_DESCRIPTORS: libc::rlim_t = 16;
/// Most that a device's backend may have open.
const MOST_OF_A_BACKEND: libc::rlim_t = 1024;
/// Most processes of a domain: 128 spaces or runners (`monitor::space::MOST`), the
/// first space, the nursery, the keeper, and some room.
const MOST_PROCESSES: libc::rlim_t = 160;

/// Leaves the host's namespaces and its file tree, as far as it lets us.
///
/// # Safety
/// In the child only.
pub(super) unsafe fn enter_namespaces(raw: &Raw<'_>, walls: &mut Walls) {
    // SAFETY: plain system calls.
    unsafe {
        let root = libc::geteuid() == 0;
        if !root && libc::unshare(libc::CLONE_NEWUSER) == 0 {
            walls.add(Wall::UserNamespace);
        }
        for (flag, wall) in [
            (libc::CLONE_NEWNS, Wall::MountNamespace),
            (libc::CLONE_NEWNET, Wall::NetworkNamespace),
            (libc::CLONE_NEWIPC, Wall::IpcNamespace),
            (libc::CLONE_NEWUTS, Wall::UtsNamespace),
            // Of processes that are made from now on.
            (if raw.can_translate { libc::CLONE_NEWPID } else { 0 }, Wall::PidNamespace),
        ] {
            if flag != 0 && libc::unshare(flag) == 0 {
                walls.add(wall);
            }
        }
        if let Kind::Space { empty_root: directory } = raw.what.kind
            && empty_root(directory, walls.has(Wall::MountNamespace))
        {
            walls.add(Wall::EmptyRoot);
        }
        if root
            && libc::setgroups(0, std::ptr::null()) == 0
            && libc::setresgid(NOBODY, NOBODY, NOBODY) == 0
            && libc::setresuid(NOBODY, NOBODY, NOBODY) == 0
        {
            walls.add(Wall::Nobody);
            // All domains of root are this one user; its limits should be each domain's own.
            if libc::unshare(libc::CLONE_NEWUSER) == 0 {
                walls.add(Wall::UserNamespace);
            }
        }
        // The capabilities that a new user namespace gives end with `exec`: no user
        // is mapped in it, so the program's is not its root.
    }
}

/// Makes an empty directory the root: by leaving all mounts behind, else by chroot.
///
/// # Safety
/// In the child only.
unsafe fn empty_root(directory: &CStr, mounts: bool) -> bool {
    let here = c".".as_ptr();
    // SAFETY: plain system calls with zero-terminated strings.
    unsafe {
        let none = std::ptr::null();
        let path = directory.as_ptr();
        if mounts
            && libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast())
                == 0
            && libc::mount(path, path, none, libc::MS_BIND, none.cast()) == 0
            && libc::chdir(path) == 0
            && libc::syscall(libc::SYS_pivot_root, here, here) == 0
        {
            let closed = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            let again = libc::MS_REMOUNT | libc::MS_BIND;
            // The directory may be this user's own. The old root is stacked on the new one.
            libc::mount(none, c"/".as_ptr(), none, again | closed, none.cast());
            return libc::umount2(here, libc::MNT_DETACH) == 0 && libc::chdir(c"/".as_ptr()) == 0;
        }
        libc::chdir(path) == 0 && libc::chroot(here) == 0 && libc::chdir(c"/".as_ptr()) == 0
    }
}

/// # Safety
/// In the child only.
pub(super) unsafe fn set_limits(raw: &Raw<'_>, walls: &mut Walls) {
    let common = [(libc::RLIMIT_CORE, 0), (libc::RLIMIT_MSGQUEUE, 0), (libc::RLIMIT_RTPRIO, 0)];
    let own: &[(libc::__rlimit_resource_t, libc::rlim_t)] = match raw.what.kind {
        Kind::Space { .. } => &[
            (libc::RLIMIT_FSIZE, 0),
            (libc::RLIMIT_MEMLOCK, 0),
            (libc::RLIMIT_NOFILE, MOST_DESCRIPTORS),
        ],
        Kind::Backend => &[(libc::RLIMIT_NOFILE, MOST_OF_A_BACKEND)],
    };
    let mut all = true;
    for &(which, most) in common.iter().chain(own) {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: a plain system call with a valid pointer.
        all &= unsafe { libc::setrlimit(which, &raw const limit) } == 0;
    }
    if all {
        walls.add(Wall::Limits);
    }
    // Only within a user namespace of its own does it count the domain's processes
    // alone, and only since Linux 5.14.
    let limit = libc::rlimit { rlim_cur: MOST_PROCESSES, rlim_max: MOST_PROCESSES };
    if walls.has(Wall::UserNamespace)
        && raw.counts_by_namespace
        // SAFETY: a plain system call with a valid pointer.
        && unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) } == 0
    {
        walls.add(Wall::ProcessLimit);
    }
}

/// Notes whether the kernel has Landlock. The program closes that wall itself, as
/// it could not be executed behind it, and does not start without it then.
pub(super) fn look_for_landlock(walls: &mut Walls) {
    if super::landlock_version() > 0 {
        walls.add(Wall::Landlock);
    }
}

/// Marks all descriptors above the program's own to close on exec.
///
/// # Safety
/// In the child only.
pub(super) unsafe fn close_others(raw: &Raw<'_>, walls: &mut Walls) {
    const CLOSE_RANGE_CLOEXEC: c_ulong = 4;
    let unused = raw.first_unused();
    let first = c_long::from(unused);
    // SAFETY: plain system calls.
    unsafe {
        let all = c_long::from(u32::MAX);
        if libc::syscall(libc::SYS_close_range, first, all, CLOSE_RANGE_CLOEXEC) != 0 {
            for fd in unused..4096 {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
    walls.add(Wall::ClosedDescriptors);
}
