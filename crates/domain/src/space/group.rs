//! The processes of a domain: signals to them, and their deaths.

use super::children::children;
use crate::sys::{Keeper, Spawned, blocks_signal, find_by_number_inside};
use control::{kill_point, kill_point_of};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, getpgid, kill_process_group,
    pidfd_open, pidfd_send_signal, wait, waitid, waitpgid,
};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Most descriptors kept for processes that were signalled before.
const MOST_KNOWN: usize = 64;

/// How long killed processes are waited for.
const LONGEST_DEATH: Duration = Duration::from_secs(5);
/// When something holds them up.
const LONG_DEATH: Duration = Duration::from_millis(30);

/// How a space ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It ended itself with this status.
    Exit(i32),
    /// This signal killed it.
    Signal(i32),
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "a space ended itself with status {status}"),
            Self::Signal(31) => {
                f.write_str("a space was killed by SIGSYS: it made a forbidden system call")
            }
            Self::Signal(number) => {
                let names = [
                    (4, "SIGILL"),
                    (5, "SIGTRAP"),
                    (6, "SIGABRT"),
                    (7, "SIGBUS: the host has no memory left for the guest"),
                    (8, "SIGFPE"),
                    (9, "SIGKILL, by the host's out-of-memory killer or by a user"),
                    (11, "SIGSEGV"),
                ];
                let name = names.iter().find(|(known, _)| known == number).map(|(_, name)| *name);
                match name {
                    Some(name) => write!(f, "a space was killed by {name}"),
                    None => write!(f, "a space was killed by signal {number}"),
                }
            }
        }
    }
}

/// The spaces of a domain: children of this thread, in one process group.
#[derive(Debug)]
pub struct Group {
    leader: Pid,
    group: Pid,
    keeper: Option<Keeper>,
    known: HashMap<i32, OwnedFd>,
    /// Numbers in the spaces' PID namespace, and ours for the same processes.
    inside: HashMap<i32, Pid>,
    /// All were killed.
    ended: bool,
}

impl Group {
    /// The group of the first space.
    pub(super) fn new(spawned: Spawned) -> Self {
        let Spawned { leader, group, keeper, walls: _ } = spawned;
        let (known, inside) = (HashMap::new(), HashMap::new());
        Self { leader, group, keeper, known, inside, ended: false }
    }

    /// The keeper may be made to die.
    pub(crate) fn kill_points(&self) {
        if let Some(keeper) = &self.keeper {
            kill_point_of(keeper.pid, "space-keeper.started");
        }
    }

    /// The first space.
    pub fn leader(&self) -> Pid {
        self.leader
    }

    /// Sends a signal to all spaces. While a child exists, the number of its
    /// group cannot belong to anybody else.
    fn signal_all(&self, signal: Signal) {
        if !self.ended && self.has_spaces() {
            let _all_are_gone = kill_process_group(self.group, signal);
        }
    }

    /// Stops all spaces.
    pub fn stop(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets all spaces go on.
    pub fn resume(&self) {
        self.signal_all(Signal::CONT);
    }

    /// Kills all spaces and reaps them.
    pub fn kill(&mut self) {
        self.known.clear();
        self.inside.clear();
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let start = Instant::now();
        kill_point("xendomain.spaces-ending");
        while self.has_spaces() && start.elapsed() < LONGEST_DEATH {
            // Again and again: a space may have been cloned meanwhile.
            let _all_are_gone = kill_process_group(self.group, Signal::KILL);
            while let Ok(Some(_)) = waitpgid(self.group, WaitOptions::NOHANG) {}
            if start.elapsed() > LONG_DEATH {
                self.fetch();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Has the dying run where we run. A process dies on its CPU, and Linux can leave it waiting there
    /// for seconds while two others wake each other up all the time.
    fn fetch(&self) {
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        for pid in children() {
            if getpgid(Some(pid)) == Ok(self.group) {
                // Gone meanwhile, or forbidden: it dies where it is.
                let _ = sched_setaffinity(Some(pid), &here);
            }
        }
    }

    /// Interrupts the space that claims to run the vCPU, if it is a child of ours; whether it is.
    /// It claims the number that it sees itself.
    pub fn interrupt(&mut self, claimed: i32) -> bool {
        self.signal(claimed, Signal::USR1)
    }

    /// Interrupts a runner that does not answer. One that blocks the interruption never will: it
    /// is killed.
    pub fn interrupt_runner(&mut self, claimed: i32) -> bool {
        let deaf = self.child(claimed).is_some_and(|pid| blocks_signal(pid, Signal::USR1));
        self.signal(claimed, if deaf { Signal::KILL } else { Signal::USR1 })
    }

    /// Kills a runner, likewise.
    pub fn kill_runner(&mut self, claimed: i32) -> bool {
        self.signal(claimed, Signal::KILL)
    }

    /// Whether a child has the claimed number.
    pub fn has_child(&mut self, claimed: i32) -> bool {
        self.child(claimed).is_some_and(|pid| self.descriptor(pid).is_some())
    }

    /// Interrupts the first space.
    pub fn interrupt_leader(&mut self) {
        self.signal_child(self.leader, Signal::USR1);
    }

    fn signal(&mut self, claimed: i32, signal: Signal) -> bool {
        self.child(claimed).is_some_and(|pid| self.signal_child(pid, signal))
    }

    /// Our number of the process that sees itself as `claimed`.
    fn child(&mut self, claimed: i32) -> Option<Pid> {
        let pid = Pid::from_raw(claimed.max(0))?;
        if self.keeper.is_none() {
            return Some(pid);
        }
        let known = self.inside.get(&claimed).copied();
        let pid = known.or_else(|| find_by_number_inside(&children(), claimed))?;
        if self.inside.len() >= MOST_KNOWN {
            self.inside.clear();
        }
        self.inside.insert(claimed, pid);
        Some(pid)
    }

    /// A descriptor of a child in the spaces' group; the keeper counts as none. Other children, such
    /// as the devices' backends, are not the guest's to claim.
    fn descriptor(&mut self, pid: Pid) -> Option<&OwnedFd> {
        let number = pid.as_raw_nonzero().get();
        let is_keeper = self.keeper.as_ref().is_some_and(|keeper| keeper.pid == pid);
        if self.ended || is_keeper {
            return None;
        }
        if !self.known.contains_key(&number) {
            let fd = open_child(pid)?;
            // The number is the child's until it is reaped, which nobody does meanwhile.
            getpgid(Some(pid)).ok().filter(|group| *group == self.group)?;
            if self.known.len() >= MOST_KNOWN {
                self.known.clear();
            }
            self.known.insert(number, fd);
        }
        self.known.get(&number)
    }

    fn signal_child(&mut self, pid: Pid, signal: Signal) -> bool {
        let sent = self.descriptor(pid).map(|fd| pidfd_send_signal(fd, signal));
        if !matches!(sent, Some(Ok(()))) {
            self.forget(pid);
            return false;
        }
        true
    }

    fn forget(&mut self, pid: Pid) {
        self.known.remove(&pid.as_raw_nonzero().get());
        self.inside.retain(|_, known| *known != pid);
    }

    /// Reaps one dead space, if there is one.
    pub fn reap(&mut self) -> Option<(Pid, Death)> {
        let (pid, status) = waitpgid(self.group, WaitOptions::NOHANG).ok()??;
        self.forget(pid);
        let signal = status.terminating_signal().map(Death::Signal);
        let death = signal.or_else(|| status.exit_status().map(Death::Exit))?;
        Some((pid, death))
    }

    /// Whether no space is left.
    pub fn is_empty(&self) -> bool {
        let keeper = self.keeper.as_ref().map(|keeper| keeper.pid);
        let is_space = |pid: Pid| Some(pid) != keeper && getpgid(Some(pid)) == Ok(self.group);
        !self.has_spaces() || (keeper.is_some() && !children().into_iter().any(is_space))
    }

    /// Whether a space is left that is not reaped. A space cannot leave its group; other children
    /// of this process are not in it.
    fn has_spaces(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pgid(Some(self.group)), options), Err(Errno::CHILD))
    }
}

/// Reaps other children of a process whose spaces are gone: programs that it started.
pub fn reap_others() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A descriptor of `pid` if it is a living child: only the parent can wait for it.
fn open_child(pid: Pid) -> Option<OwnedFd> {
    let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let dead = waitid(WaitId::PidFd(fd.as_fd()), options).ok()?;
    dead.is_none().then_some(fd)
}
