//! Starting a program in its jail: fork, walls, exec by descriptor.
//!
//! Between `fork` and `execveat` the child makes system calls only: no
//! allocation, no locks, no library state.

use rustix::pipe::PipeFlags;
use std::ffi::{CStr, CString, c_int, c_long, c_ulong};
use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

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
    /// The root directory is empty.
    EmptyRoot,
    /// Runs as nobody, although the domain process is root's.
    Nobody,
    /// No descriptors but the domain's own.
    ClosedDescriptors,
    /// Resource limits.
    Limits,
}

/// All walls with their names.
const WALLS: [(Wall, &str); 10] = [
    (Wall::NoNewPrivileges, "no-new-privileges"),
    (Wall::UserNamespace, "user-namespace"),
    (Wall::MountNamespace, "mount-namespace"),
    (Wall::NetworkNamespace, "network-namespace"),
    (Wall::IpcNamespace, "ipc-namespace"),
    (Wall::UtsNamespace, "uts-namespace"),
    (Wall::EmptyRoot, "empty-root"),
    (Wall::Nobody, "nobody"),
    (Wall::ClosedDescriptors, "closed-descriptors"),
    (Wall::Limits, "limits"),
];

/// The walls that hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walls(u32);

impl Walls {
    fn add(&mut self, wall: Wall) {
        self.0 |= 1 << wall as u32;
    }

    /// Whether `wall` holds.
    pub fn has(self, wall: Wall) -> bool {
        self.0 & 1 << wall as u32 != 0
    }

    /// The names of the walls that hold.
    pub fn names(self) -> Vec<String> {
        WALLS.iter().filter(|(wall, _)| self.has(*wall)).map(|(_, name)| (*name).into()).collect()
    }
}

/// What the child was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Step {
    /// Placing the descriptors.
    Descriptors = 1,
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivileges,
    /// `PR_SET_PDEATHSIG`.
    DeathSignal,
    /// `execveat`.
    Exec,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "placing its descriptors",
            Self::NoNewPrivileges => "giving up privileges",
            Self::DeathSignal => "tying its life to the domain process",
            Self::Exec => "executing it",
        })
    }
}

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No process or no pipe.
    #[error("The host gave no new process: {0}")]
    Fork(#[source] io::Error),
    /// The child failed.
    #[error("Starting the space failed at {step}: {source}")]
    Child {
        /// Where.
        step: Step,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The child vanished without a word.
    #[error("The space was killed while it started")]
    Vanished,
}

/// A program and what its jail needs.
#[derive(Debug)]
pub struct JailedProgram<'a> {
    /// The program file.
    pub program: BorrowedFd<'a>,
    /// Its arguments, the name first.
    pub arguments: &'a [CString],
    /// Descriptors 3, 4, ... of the program.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// An empty directory to be its root.
    pub empty_root: &'a CStr,
    /// Keep descriptor 2 (for debugging).
    pub keep_stderr: bool,
    /// Stop (`SIGSTOP`) before the program's first instruction.
    pub stopped: bool,
}

/// The raw parts that the child uses, made before the fork.
struct Raw<'a> {
    program: RawFd,
    argv: Vec<*const libc::c_char>,
    descriptors: Vec<RawFd>,
    null: RawFd,
    report: RawFd,
    parent: libc::pid_t,
    what: &'a JailedProgram<'a>,
}

/// First descriptor of the program that is not one of the standard three.
const FIRST: RawFd = 3;
/// Where descriptors wait while the low numbers are rearranged.
const PARKING: c_int = 64;
/// User and group that own nothing.
const NOBODY: libc::uid_t = 65534;
/// Most descriptors a space may have open.
const MOST_DESCRIPTORS: libc::rlim_t = 16;

/// Starts `what` as a child of the calling thread, which must outlive it: the
/// child dies with this thread.
///
/// # Errors
/// As [`SpawnError`] says. Walls that the host denies are no error; the result
/// tells which hold.
pub fn spawn(what: &JailedProgram<'_>) -> Result<(rustix::process::Pid, Walls), SpawnError> {
    let null = rustix::fs::open(
        c"/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|error| SpawnError::Fork(error.into()))?;
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .map_err(|error| SpawnError::Fork(error.into()))?;
    let mut argv: Vec<_> = what.arguments.iter().map(|text| text.as_ptr()).collect();
    argv.push(std::ptr::null());
    let raw = Raw {
        program: what.program.as_raw_fd(),
        argv,
        descriptors: what.descriptors.iter().map(AsRawFd::as_raw_fd).collect(),
        null: null.as_fd().as_raw_fd(),
        report: writer.as_raw_fd(),
        parent: rustix::process::getpid().as_raw_nonzero().get(),
        what,
    };
    // SAFETY: the child runs `child` only, which makes system calls and never returns.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: this is the child of the fork above.
        unsafe { child(&raw) }
    }
    let Some(pid) = rustix::process::Pid::from_raw(pid.max(0)) else {
        return Err(SpawnError::Fork(io::Error::last_os_error()));
    };
    drop(writer);
    // The child does the same; whoever comes first, the group exists from here on.
    let _done_by_either = rustix::process::setpgid(Some(pid), Some(pid));
    let walls = read_report(reader.into(), what.stopped).inspect_err(|_| {
        let _reaped = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    })?;
    if what.stopped {
        await_stop(pid)?;
    }
    Ok((pid, walls))
}

/// Waits until the child has stopped itself: a SIGCONT that came before would be
/// lost, and the child would stand still for ever.
fn await_stop(pid: rustix::process::Pid) -> Result<(), SpawnError> {
    loop {
        match rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::UNTRACED) {
            Ok(Some((_, status))) if status.stopped() => return Ok(()),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Ok(Some(_)) | Err(_) => return Err(SpawnError::Vanished),
        }
    }
}

/// In place of walls: the child failed before it knew them.
static NO_WALLS: u32 = u32::MAX;

/// Reads the walls and, if the child failed, where and why.
fn read_report(mut pipe: std::fs::File, stopped: bool) -> Result<Walls, SpawnError> {
    let mut walls = [0; 4];
    if pipe.read_exact(&mut walls).is_err() {
        return Err(SpawnError::Vanished);
    }
    let walls = u32::from_ne_bytes(walls);
    // A stopped child keeps the pipe open until it goes on.
    if stopped && walls != NO_WALLS {
        return Ok(Walls(walls));
    }
    let mut failure = [0; 8];
    match pipe.read_exact(&mut failure) {
        Err(_) if walls == NO_WALLS => Err(SpawnError::Vanished),
        Err(_) => Ok(Walls(walls)),
        Ok(()) => {
            let [s0, s1, s2, s3, e0, e1, e2, e3] = failure;
            let step = match i32::from_ne_bytes([s0, s1, s2, s3]) {
                1 => Step::Descriptors,
                2 => Step::NoNewPrivileges,
                3 => Step::DeathSignal,
                _ => Step::Exec,
            };
            let errno = i32::from_ne_bytes([e0, e1, e2, e3]);
            Err(SpawnError::Child { step, source: io::Error::from_raw_os_error(errno) })
        }
    }
}

/// What the child of the fork does.
///
/// # Safety
/// Must run in a freshly forked child.
unsafe fn child(raw: &Raw<'_>) -> ! {
    let mut walls = Walls::default();
    // SAFETY: plain system calls on values that the parent prepared.
    unsafe {
        libc::setpgid(0, 0);
        reset_signals();
        let report = park(raw.report);
        if !place_descriptors(raw) {
            fail(report, Step::Descriptors);
        }
        enter_namespaces(raw, &mut walls);
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            fail(report, Step::NoNewPrivileges);
        }
        walls.add(Wall::NoNewPrivileges);
        set_limits(&mut walls);
        close_others(raw, &mut walls);
        // After the change of user: that would clear it (prctl(2)).
        let tied = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong, 0, 0, 0) == 0;
        // The parent may have died before; inside another PID namespace it is 0.
        if !tied || libc::getppid() != raw.parent {
            fail(report, Step::DeathSignal);
        }
        libc::write(report, (&raw const walls.0).cast(), 4);
        if raw.what.stopped {
            libc::raise(libc::SIGSTOP);
        }
        let environment = [std::ptr::null::<libc::c_char>()];
        libc::syscall(
            libc::SYS_execveat,
            c_long::from(PROGRAM_SLOT),
            c"".as_ptr(),
            raw.argv.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
        fail_after_walls(report, Step::Exec)
    }
}

/// Descriptor under which the program file waits for exec; closes on exec.
const PROGRAM_SLOT: RawFd = 40;

/// # Safety
/// In the child only.
unsafe fn fail(report: RawFd, step: Step) -> ! {
    // SAFETY: plain system calls.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(report, (&raw const NO_WALLS).cast(), 4);
        *libc::__errno_location() = errno;
        fail_after_walls(report, step)
    }
}

/// # Safety
/// In the child only.
unsafe fn fail_after_walls(report: RawFd, step: Step) -> ! {
    // SAFETY: plain system calls.
    unsafe {
        let message = [step as i32, *libc::__errno_location()];
        libc::write(report, message.as_ptr().cast(), 8);
        libc::_exit(127)
    }
}

/// # Safety
/// In the child only.
unsafe fn park(fd: RawFd) -> RawFd {
    // SAFETY: a plain system call.
    unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, PARKING) }
}

/// Unblocks all signals and gives them their default action.
///
/// # Safety
/// In the child only.
unsafe fn reset_signals() {
    // SAFETY: the set is initialised before use; SIG_DFL runs no code of ours.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// Puts the program's descriptors to their numbers.
///
/// # Safety
/// In the child only.
unsafe fn place_descriptors(raw: &Raw<'_>) -> bool {
    // SAFETY: plain system calls; targets lie below all parked descriptors.
    unsafe {
        let program = park(raw.program);
        let null = park(raw.null);
        let mut parked = [-1; 16];
        for (slot, fd) in parked.iter_mut().zip(&raw.descriptors) {
            *slot = park(*fd);
        }
        let mut well = program >= 0 && null >= 0 && raw.descriptors.len() <= parked.len();
        for (number, fd) in (FIRST..).zip(parked.iter().take(raw.descriptors.len())) {
            well &= libc::dup2(*fd, number) == number;
        }
        let last = if raw.what.keep_stderr { 1 } else { 2 };
        for number in 0..=last {
            well &= libc::dup2(null, number) == number;
        }
        well && libc::dup3(program, PROGRAM_SLOT, libc::O_CLOEXEC) == PROGRAM_SLOT
    }
}

/// Leaves the host's namespaces and its file tree, as far as it lets us.
///
/// # Safety
/// In the child only.
unsafe fn enter_namespaces(raw: &Raw<'_>, walls: &mut Walls) {
    // SAFETY: plain system calls.
    unsafe {
        let root = libc::geteuid() == 0;
        let user = if root { 0 } else { libc::CLONE_NEWUSER };
        let own = !root && libc::unshare(user) == 0;
        if own {
            walls.add(Wall::UserNamespace);
        }
        for (flag, wall) in [
            (libc::CLONE_NEWNS, Wall::MountNamespace),
            (libc::CLONE_NEWNET, Wall::NetworkNamespace),
            (libc::CLONE_NEWIPC, Wall::IpcNamespace),
            (libc::CLONE_NEWUTS, Wall::UtsNamespace),
        ] {
            if libc::unshare(flag) == 0 {
                walls.add(wall);
            }
        }
        if empty_root(raw.what.empty_root, walls.has(Wall::MountNamespace)) {
            walls.add(Wall::EmptyRoot);
        }
        if root
            && libc::setgroups(0, std::ptr::null()) == 0
            && libc::setresgid(NOBODY, NOBODY, NOBODY) == 0
            && libc::setresuid(NOBODY, NOBODY, NOBODY) == 0
        {
            walls.add(Wall::Nobody);
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
            // The old root is stacked on the new one.
            return libc::umount2(here, libc::MNT_DETACH) == 0 && libc::chdir(c"/".as_ptr()) == 0;
        }
        libc::chdir(path) == 0 && libc::chroot(here) == 0 && libc::chdir(c"/".as_ptr()) == 0
    }
}

/// # Safety
/// In the child only.
unsafe fn set_limits(walls: &mut Walls) {
    let limits = [
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_MSGQUEUE, 0),
        (libc::RLIMIT_RTPRIO, 0),
        (libc::RLIMIT_NOFILE, MOST_DESCRIPTORS),
    ];
    let mut all = true;
    for (which, most) in limits {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: a plain system call with a valid pointer.
        all &= unsafe { libc::setrlimit(which, &raw const limit) } == 0;
    }
    if all {
        walls.add(Wall::Limits);
    }
}

/// Marks all descriptors above the program's own to close on exec.
///
/// # Safety
/// In the child only.
unsafe fn close_others(raw: &Raw<'_>, walls: &mut Walls) {
    const CLOSE_RANGE_CLOEXEC: c_ulong = 4;
    let own = raw.descriptors.len() as RawFd;
    let first = c_long::from(FIRST + own);
    // SAFETY: plain system calls.
    unsafe {
        let all = c_long::from(u32::MAX);
        if libc::syscall(libc::SYS_close_range, first, all, CLOSE_RANGE_CLOEXEC) != 0 {
            for fd in FIRST + own..4096 {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
    walls.add(Wall::ClosedDescriptors);
}
