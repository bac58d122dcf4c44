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
        // Whatever was meant for this process itself.
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
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
        let mounts = walls.has(Wall::MountNamespace);
        // While the way to the directory is open to this user.
        let is_there = match raw.what.kind {
            Kind::Space { empty_root: directory } => empty_root(directory, mounts),
            Kind::Backend { empty_directory } => libc::chdir(empty_directory.as_ptr()) == 0,
        };
        if is_there && matches!(raw.what.kind, Kind::Space { .. }) {
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
        // is mapped in it, so the program's is not its root. A backend is lent two of them.
        if is_there && mounts && matches!(raw.what.kind, Kind::Backend { .. }) {
            lend_capabilities(*walls);
        }
    }
}

/// Lets a backend make its working directory its root once it has its libraries: with capabilities
/// that hold in namespaces of its own only.
///
/// # Safety
/// In the child only.
unsafe fn lend_capabilities(walls: Walls) {
    // linux/capability.h.
    const VERSION_3: u32 = 0x2008_0522;
    const SYS_CHROOT: u32 = 18;
    const SYS_ADMIN: u32 = 21;
    // SAFETY: plain system calls on values that live until they return.
    unsafe {
        // The mounts that were root's are not those of the user namespace made since.
        if !walls.has(Wall::UserNamespace) || libc::unshare(libc::CLONE_NEWNS) != 0 {
            return;
        }
        let header = [VERSION_3, 0];
        // Effective, permitted, inheritable; once more for capabilities from 32 on.
        let mut sets = [0u32; 6];
        if libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) != 0 {
            return;
        }
        let [_, _, inheritable, ..] = &mut sets;
        *inheritable |= 1 << SYS_CHROOT | 1 << SYS_ADMIN;
        if libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) != 0 {
            return;
        }
        for capability in [SYS_CHROOT, SYS_ADMIN] {
            let (raise, which) = (libc::PR_CAP_AMBIENT_RAISE, c_ulong::from(capability));
            libc::prctl(libc::PR_CAP_AMBIENT, raise, which, 0, 0);
        }
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
        Kind::Backend { .. } => &[(libc::RLIMIT_NOFILE, MOST_OF_A_BACKEND)],
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
