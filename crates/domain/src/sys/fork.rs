//! Starting a program in its jail: fork, walls, exec by descriptor.
//!
//! Where the host allows a PID namespace, three processes are made: a *helper*,
//! which builds the walls, makes the other two as its siblings, and goes; the
//! *keeper*, the namespace's first process, which does nothing but live as long
//! as we do, because the kernel kills all others in it when it ends; and the
//! program. Spaces cannot be that first process, as it may not make siblings
//! (`CLONE_PARENT`). Elsewhere the helper becomes the program.
//!
//! Between `fork` and `execveat` the child makes system calls only: no
//! allocation, no locks, no library state.

use super::jail;
use super::walls::{Wall, Walls};
use crate::isolation::kernel_version;
use control::kill_point;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions, setpgid, waitpid};
use std::ffi::{CStr, CString, c_int, c_long, c_ulong};
use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

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
    /// Making the program's process in its namespace.
    Clone,
}

impl Step {
    fn of(number: i32) -> Self {
        match number {
            1 => Self::Descriptors,
            2 => Self::NoNewPrivileges,
            3 => Self::DeathSignal,
            4 => Self::Exec,
            _ => Self::Clone,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "placing its descriptors",
            Self::NoNewPrivileges => "giving up privileges",
            Self::DeathSignal => "tying its life to the domain process",
            Self::Exec => "executing it",
            Self::Clone => "making its process",
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

/// Kinds of programs that are jailed.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// A space: an empty directory is its root, and it opens nothing.
    Space {
        /// The directory.
        empty_root: &'a CStr,
    },
    /// A device's backend: a program with libraries, which gives up all files itself once it has
    /// begun, and writes to those that it was given.
    Backend {
        /// Where it starts, and what it makes its root then.
        empty_directory: &'a CStr,
    },
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
    /// What it is.
    pub kind: Kind<'a>,
    /// Where it may complain: descriptor 2.
    pub stderr: Option<BorrowedFd<'a>>,
    /// Stop (`SIGSTOP`) before the program's first instruction.
    pub stopped: bool,
}

/// A program that was started.
#[derive(Debug)]
pub struct Spawned {
    /// Its process.
    pub leader: Pid,
    /// Its process group, and that of all it makes.
    pub group: Pid,
    /// The first process of its PID namespace.
    pub keeper: Option<Keeper>,
    /// The walls that hold.
    pub walls: Walls,
}

/// The first process of a PID namespace. It ends when this is dropped.
#[derive(Debug)]
pub struct Keeper {
    /// Its number here.
    pub pid: Pid,
    _life: OwnedFd,
}

/// The raw parts that the child uses, made before the fork.
pub(super) struct Raw<'a> {
    program: RawFd,
    argv: Vec<*const libc::c_char>,
    descriptors: Vec<RawFd>,
    null: RawFd,
    stderr: RawFd,
    report: RawFd,
    report_reader: RawFd,
    life: RawFd,
    life_writer: RawFd,
    parent: libc::pid_t,
    /// We can find a process by its number inside its namespace.
    pub(super) can_translate: bool,
    /// Limits of a user hold in each user namespace by itself.
    pub(super) counts_by_namespace: bool,
    pub(super) what: &'a JailedProgram<'a>,
}

impl Raw<'_> {
    /// The first descriptor that the program is not given.
    pub(super) fn first_unused(&self) -> RawFd {
        FIRST + self.descriptors.len() as RawFd
    }
}

/// First descriptor of the program that is not one of the standard three.
const FIRST: RawFd = 3;
/// Where descriptors wait while the low numbers are rearranged.
const PARKING: c_int = 64;
/// Since 5.14 the count behind `RLIMIT_NPROC` is one of user and user namespace.
const LIMITS_BY_NAMESPACE: (u32, u32) = (5, 14);

/// Starts `what` as a child of the calling thread, which must outlive it: the
/// child dies with this thread.
///
/// # Errors
/// As [`SpawnError`] says. Walls that the host denies are no error; the result
/// tells which hold.
pub fn spawn(what: &JailedProgram<'_>) -> Result<Spawned, SpawnError> {
    // One at a time: a child that stops before it executes anything would keep another one's pipe
    // open.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let pipe =
        || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| SpawnError::Fork(e.into()));
    let null = rustix::fs::open(
        c"/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|error| SpawnError::Fork(error.into()))?;
    let (reader, writer) = pipe()?;
    let (life, life_writer) = pipe()?;
    let mut argv: Vec<_> = what.arguments.iter().map(|text| text.as_ptr()).collect();
    argv.push(std::ptr::null());
    let raw = Raw {
        program: what.program.as_raw_fd(),
        argv,
        descriptors: what.descriptors.iter().map(AsRawFd::as_raw_fd).collect(),
        null: null.as_fd().as_raw_fd(),
        stderr: what.stderr.unwrap_or(null.as_fd()).as_raw_fd(),
        report: writer.as_raw_fd(),
        report_reader: reader.as_raw_fd(),
        life: life.as_raw_fd(),
        life_writer: life_writer.as_raw_fd(),
        parent: rustix::process::getpid().as_raw_nonzero().get(),
        can_translate: super::pids::are_listed(),
        counts_by_namespace: kernel_version() >= LIMITS_BY_NAMESPACE,
        what,
    };
    // SAFETY: the child runs `child` only, which makes system calls and never returns.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: this is the child of the fork above.
        unsafe { child(&raw) }
    }
    let Some(helper) = Pid::from_raw(pid.max(0)) else {
        return Err(SpawnError::Fork(io::Error::last_os_error()));
    };
    drop(writer);
    kill_point("xendomain.spawn.forked");
    // The child does the same; whoever comes first, the group exists from here on.
    let _done_by_either = setpgid(Some(helper), Some(helper));
    let report = Report::read(reader.into(), what.stopped);
    if report.made.is_some() || report.failure.is_some() {
        let _reaped = waitpid(Some(helper), WaitOptions::empty());
    }
    let spawned = report.into_spawned(helper, life_writer)?;
    if what.stopped {
        await_stop(spawned.leader)?;
    }
    Ok(spawned)
}

/// Waits until the child has stopped itself: a SIGCONT that came before would be
/// lost, and the child would stand still for ever.
fn await_stop(pid: Pid) -> Result<(), SpawnError> {
    loop {
        match waitpid(Some(pid), WaitOptions::UNTRACED) {
            Ok(Some((_, status))) if status.stopped() => return Ok(()),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Ok(Some(_)) | Err(_) => return Err(SpawnError::Vanished),
        }
    }
}

/// Kinds of messages from the new processes, each with two numbers.
mod message {
    /// The program's and the keeper's process numbers.
    pub const MADE: i32 = 1;
    /// The walls.
    pub const WALLS: i32 = 2;
    /// A step, and its error number.
    pub const FAILURE: i32 = 3;
}

/// What the new processes said.
#[derive(Debug, Default)]
struct Report {
    made: Option<(Pid, Pid)>,
    walls: Option<Walls>,
    failure: Option<(Step, i32)>,
}

impl Report {
    /// Reads until all have closed the pipe, which the program does by `exec`; one
    /// that stops before it (`stopped`) keeps the pipe open until it goes on.
    fn read(mut pipe: std::fs::File, stopped: bool) -> Self {
        let mut report = Self::default();
        let mut bytes = [0; 12];
        while !(stopped && report.is_complete()) && pipe.read_exact(&mut bytes).is_ok() {
            let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
            let [kind, one, two] =
                [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(i32::from_ne_bytes);
            match kind {
                message::MADE => report.made = Pid::from_raw(one).zip(Pid::from_raw(two)),
                message::WALLS => report.walls = Some(Walls(one.cast_unsigned())),
                _ => report.failure = Some((Step::of(one), two)),
            }
        }
        report
    }

    /// Whether all was said that a program says which starts.
    fn is_complete(&self) -> bool {
        let alone = |walls: Walls| !walls.has(Wall::PidNamespace);
        self.failure.is_some() || self.walls.is_some_and(|w| alone(w) || self.made.is_some())
    }

    fn into_spawned(self, helper: Pid, life: OwnedFd) -> Result<Spawned, SpawnError> {
        if let Some((step, number)) = self.failure {
            return Err(SpawnError::Child { step, source: io::Error::from_raw_os_error(number) });
        }
        let walls = self.walls.filter(|_| self.is_complete()).ok_or(SpawnError::Vanished)?;
        let group = helper;
        Ok(match self.made {
            Some((leader, pid)) => {
                Spawned { leader, group, keeper: Some(Keeper { pid, _life: life }), walls }
            }
            None => Spawned { leader: helper, group, keeper: None, walls },
        })
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
        libc::close(raw.report_reader);
        libc::close(raw.life_writer);
        let (report, life) = (park(raw.report), park(raw.life));
        if !place_descriptors(raw, [report, life]) {
            fail(report, Step::Descriptors);
        }
        jail::enter_namespaces(raw, &mut walls);
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            fail(report, Step::NoNewPrivileges);
        }
        walls.add(Wall::NoNewPrivileges);
        if walls.has(Wall::PidNamespace) {
            move_inside(report, life);
        }
        jail::set_limits(raw, &mut walls);
        jail::close_others(raw, &mut walls);
        jail::look_for_landlock(&mut walls);
        // After the change of user: that would clear it (prctl(2)).
        let tied = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong, 0, 0, 0) == 0;
        // The parent may have died before. Inside a PID namespace it is 0 anyway,
        // and the keeper sees to it.
        let parent = if walls.has(Wall::PidNamespace) { 0 } else { raw.parent };
        if !tied || libc::getppid() != parent {
            fail(report, Step::DeathSignal);
        }
        say(report, message::WALLS, walls.0.cast_signed(), 0);
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
        fail(report, Step::Exec)
    }
}

/// Makes the keeper and the program's process in the new PID namespace, both
/// children of our parent. Returns in the latter; the caller ends here.
///
/// # Safety
/// In the child only, which has left its PID namespace.
unsafe fn move_inside(report: RawFd, life: RawFd) {
    // SAFETY: system calls; the clones share no memory with this process.
    unsafe {
        let keeper = sibling();
        if keeper == 0 {
            keep(life);
        }
        let program = if keeper > 0 { sibling() } else { keeper };
        if program == 0 {
            return;
        }
        if program < 0 {
            fail(report, Step::Clone);
        }
        say(report, message::MADE, program, keeper);
        libc::_exit(0)
    }
}

/// `fork`, but the parent of the new process is ours.
///
/// # Safety
/// In the child only.
unsafe fn sibling() -> libc::pid_t {
    let flags = c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: no new stack and no shared memory: both go on here.
    unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) as libc::pid_t }
}

/// The keeper's life: waits for the end of `xendomain`, and may do nothing else.
///
/// # Safety
/// In the keeper only.
unsafe fn keep(life: RawFd) -> ! {
    // SAFETY: plain system calls; the strict mode of seccomp(2) allows `read` and `exit`.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"space-keeper".as_ptr());
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong, 0, 0, 0);
        libc::dup2(life, 0);
        libc::syscall(libc::SYS_close_range, 1, c_long::from(u32::MAX), 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT, 0, 0, 0);
        let mut byte = 0u8;
        // Nobody ever writes: this ends when the last writer is gone.
        while libc::read(0, (&raw mut byte).cast(), 1) > 0 {}
        loop {
            libc::syscall(libc::SYS_exit, 0);
        }
    }
}

/// Descriptor under which the program file waits for exec; closes on exec.
const PROGRAM_SLOT: RawFd = 40;

/// Says something to the parent: one write, which a pipe keeps whole.
///
/// # Safety
/// In the child only.
unsafe fn say(report: RawFd, kind: i32, one: i32, two: i32) {
    let message = [kind, one, two];
    // SAFETY: a plain system call.
    unsafe { libc::write(report, message.as_ptr().cast(), size_of_val(&message)) };
}

/// # Safety
/// In the child only.
unsafe fn fail(report: RawFd, step: Step) -> ! {
    // SAFETY: plain system calls.
    unsafe {
        say(report, message::FAILURE, step as i32, *libc::__errno_location());
        libc::_exit(127)
    }
}

/// Closes all but these parked descriptors. A child is at work for milliseconds, in which its parent may
/// be killed: locks that say what a dead domain uses must not last longer then than the one that says
/// that it lives. That one was opened first, so it is in the last range, and goes last in it. Where the
/// kernel has no close_range(2), `exec` closes all of them.
///
/// # Safety
/// In the child only.
unsafe fn close_all_but<'a>(parked: &(impl Iterator<Item = &'a RawFd> + Clone)) {
    let close = |first: RawFd, last: c_long| {
        // SAFETY: a plain system call.
        unsafe { libc::syscall(libc::SYS_close_range, c_long::from(first), last, 0) };
    };
    let mut first = PARKING;
    while let Some(next) = parked.clone().copied().filter(|fd| *fd >= first).min() {
        if next > first {
            close(first, c_long::from(next - 1));
        }
        first = next + 1;
    }
    close(first, c_long::from(u32::MAX));
    close(0, c_long::from(PARKING - 1));
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
unsafe fn place_descriptors(raw: &Raw<'_>, used: [RawFd; 2]) -> bool {
    // SAFETY: plain system calls; targets lie below all parked descriptors.
    unsafe {
        let program = park(raw.program);
        let null = park(raw.null);
        let stderr = park(raw.stderr);
        let mut parked = [-1; 16];
        for (slot, fd) in parked.iter_mut().zip(&raw.descriptors) {
            *slot = park(*fd);
        }
        let [report, life] = used;
        let own = [program, null, stderr, report, life];
        close_all_but(&own.iter().chain(&parked));
        let mut well =
            program >= 0 && null >= 0 && stderr >= 0 && raw.descriptors.len() <= parked.len();
        for (number, fd) in (FIRST..).zip(parked.iter().take(raw.descriptors.len())) {
            well &= libc::dup2(*fd, number) == number;
        }
        for (number, fd) in [null, null, stderr].into_iter().enumerate() {
            let number = number as RawFd;
            well &= libc::dup2(fd, number) == number;
        }
        well && libc::dup3(program, PROGRAM_SLOT, libc::O_CLOEXEC) == PROGRAM_SLOT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, kill_process_group};
    use std::fs::File;

    #[test]
    fn a_child_at_work_has_nothing_of_its_parent() {
        let place = tempfile::tempdir().unwrap();
        let lock = File::create(place.path().join("lock")).unwrap();
        let high = File::create(place.path().join("high")).unwrap();
        let higher = rustix::io::fcntl_dupfd_cloexec(&high, PARKING + 3).unwrap();
        let program = File::open("/bin/true").unwrap();
        let empty = CString::new("/var/empty").unwrap();
        let spawned = spawn(&JailedProgram {
            program: program.as_fd(),
            arguments: &[CString::new("true").unwrap()],
            descriptors: &[program.as_fd()],
            kind: Kind::Backend { empty_directory: &empty },
            stderr: None,
            stopped: true,
        })
        .unwrap();
        let pid = spawned.leader.as_raw_nonzero();
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let open: Vec<_> =
            open.map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap()).collect();
        let _gone_already = kill_process_group(spawned.group, Signal::KILL);
        let _reaped = waitpid(Some(spawned.leader), WaitOptions::empty());
        assert!(open.iter().any(|path| path.ends_with("true")), "{open:?}");
        assert!(!open.iter().any(|path| path.starts_with(place.path())), "{open:?}");
        drop((lock, higher));
    }
}
