"""An attacker who owns a jailed process: makes it run raw system calls, one at a time.

A process of a domain is stopped while it waits in a system call. Its own `syscall` instruction is
then run with other registers, as code that broke the monitor would. What the filter refuses
raises SIGSYS, which is seen here and kept from the process, so that many tries fit into one life.
"""

import ctypes
import errno
import os
import pathlib
import signal
import time

from rig import PATIENCE

# linux/ptrace.h
PTRACE_CONT = 7
PTRACE_GETREGS = 12
PTRACE_SETREGS = 13
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
PTRACE_GETEVENTMSG = 0x4201
PTRACE_GETSIGINFO = 0x4202
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_PEEKSIGINFO = 0x4209
PTRACE_GET_SYSCALL_INFO = 0x420E
SYSCALL_ENTRY = 1
OPTION_SYSGOOD = 1
OPTION_FORK, OPTION_VFORK, OPTION_CLONE = 2, 4, 8
EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_STOP = 1, 2, 3, 128
# asm-generic/siginfo.h
SYS_SECCOMP = 1
# sys/wait.h
WALL = 0x40000000

# Signals that system calls raise at once.
RAISED = (signal.SIGSYS, signal.SIGSEGV, signal.SIGILL, signal.SIGBUS)

SYSCALL = b"\x0f\x05"
INT_80 = b"\xcd\x80"
# futex, and restart_syscall of one that was stopped before.
WAITS = (202, 219)
EINTR = 4
# What an interrupted call gives to the kernel's own code only (linux/errno.h).
RESTART = (512, 513, 514, 516)
# Longest that a call which is let through may take, in seconds.
LONGEST = 1.0

REGISTERS = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
    "fs_base gs_base ds es fs gs").split()


class Registers(ctypes.Structure):
    """`struct user_regs_struct` (sys/user.h)."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in REGISTERS]


class PeekArguments(ctypes.Structure):
    """`struct ptrace_peeksiginfo_args`."""

    _fields_ = [("off", ctypes.c_uint64), ("flags", ctypes.c_uint32), ("nr", ctypes.c_int32)]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, tid, address=0, data=0):
    result = _libc.ptrace(request, tid, address, data)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace({request:#x}) of {tid}: {os.strerror(number)}")
    return result


class Gone(Exception):
    """The process ended; `status` is that of waitpid(2)."""

    def __init__(self, tid, status):
        super().__init__(f"process {tid} ended with status {status:#x}")
        self.status = status


class Busy(Exception):
    """The process never waits in a system call."""


class Outcome:
    """What became of a system call."""

    def __init__(self, refused=False, value=0, what=""):
        self.refused, self.value, self.what = refused, value, what

    @property
    def failed(self):
        """Refused by the filter, or by the call itself."""
        return self.refused or -4096 < self.value < 0

    def __str__(self):
        if self.refused:
            return "refused by the filter"
        if self.what:
            return f"let through: {self.what}"
        if self.failed:
            return f"let through, failed with {errno.errorcode.get(-self.value, self.value)}"
        return f"let through, gave {self.value:#x}"


class Attacker:
    """One thread of a jailed process, held still. Use it as a context manager."""

    def __init__(self, tid, keep=False):
        self.tid, self.keep = tid, keep
        self.signals = []
        self.born = []
        self.pending = 0
        self.memory = None
        self.registers = Registers()

    def __enter__(self):
        signal.signal(signal.SIGALRM, lambda *_: ptrace(PTRACE_INTERRUPT, self.tid))
        ptrace(PTRACE_SEIZE, self.tid, 0, OPTION_SYSGOOD | OPTION_FORK | OPTION_VFORK | OPTION_CLONE)
        try:
            self._await_call()
        except BaseException:
            self._detach()
            raise
        return self

    def __exit__(self, *_):
        if self.memory is None:
            return
        os.pwrite(self.memory, self.below, self.scratch)
        os.close(self.memory)
        self.memory = None
        try:
            # As if a signal had ended the wait: the monitor looks again.
            self.registers.orig_rax, self.registers.rax = 2**64 - 1, 2**64 - EINTR
            ptrace(PTRACE_SETREGS, self.tid, 0, ctypes.addressof(self.registers))
            self._detach()
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
        for number in self.signals:
            try:
                os.kill(self.tid, number)
            except ProcessLookupError:
                pass

    def _detach(self):
        try:
            ptrace(PTRACE_DETACH, self.tid)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise

    def _await_call(self):
        """Stops the process while it waits on a futex, where its registers are the monitor's."""
        end = time.monotonic() + 20 * PATIENCE
        while time.monotonic() < end:
            ptrace(PTRACE_INTERRUPT, self.tid)
            number, event = self._wait()
            while event != EVENT_STOP:
                # A signal came first, which it must get; the stop that was asked for comes yet. Asking
                # again would hold it at the first instruction of its handler for ever.
                self._go(PTRACE_CONT, number if event == 0 and number != signal.SIGTRAP else 0)
                number, event = self._wait()
            registers = self._get()
            if registers.orig_rax in WAITS:
                self.memory = os.open(f"/proc/{self.tid}/mem", os.O_RDWR | os.O_CLOEXEC)
                self.at = registers.rip - 2
                if os.pread(self.memory, 2, self.at) == SYSCALL:
                    break
                os.close(self.memory)
                self.memory = None
            self._go(PTRACE_CONT)
            time.sleep(0.01)
        if self.memory is None:
            state = pathlib.Path(f"/proc/{self.tid}/stat").read_text().rsplit(")", 1)[1].split()
            raise Busy(f"process {self.tid} does not wait on a futex: state {state[0]}, ticks {state[11:13]}, "
                f"at {registers.rip:#x} in call {registers.orig_rax:#x}")
        self.registers = registers
        # Below the stack pointer: strings and structures of the tries.
        self.scratch = (registers.rsp - 0x2000) & ~0xFFF
        self.below = os.pread(self.memory, 0x1000, self.scratch)

    def _get(self):
        registers = Registers()
        ptrace(PTRACE_GETREGS, self.tid, 0, ctypes.addressof(registers))
        return registers

    def _go(self, request, deliver=0):
        """Lets the process go on. A signal that it was stopped for is kept from it unless it is given here."""
        ptrace(request, self.tid, 0, deliver)

    def _wait(self):
        while True:
            pid, status = os.waitpid(self.tid, WALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                raise Gone(self.tid, status)
            if pid == self.tid:
                return os.WSTOPSIG(status), status >> 16

    def _until_call_stop(self):
        """Goes on to the start or the end of a system call. Returns a signal that came instead,
        or None; signals that have nothing to do with the try are kept for later."""
        self._go(PTRACE_SYSCALL)
        while True:
            number, event = self._wait()
            if number == signal.SIGTRAP | 0x80:
                return None
            if event in (EVENT_FORK, EVENT_VFORK, EVENT_CLONE):
                self._child()
            elif event == 0 and number in (signal.SIGALRM, signal.SIGUSR1):
                self.signals.append(number)
            elif event == 0 and number != signal.SIGTRAP:
                return number
            self._go(PTRACE_SYSCALL)

    def _child(self):
        """A try made a process, which few should; it stands still as long as it is kept."""
        child = ctypes.c_ulong()
        ptrace(PTRACE_GETEVENTMSG, self.tid, 0, ctypes.addressof(child))
        self.born.append(child.value)
        if not self.keep and child.value > 0:
            os.kill(child.value, signal.SIGKILL)

    def _signal_waits(self):
        """Is there a signal that the call itself raised and that was not delivered yet?"""
        size = 128
        info = ctypes.create_string_buffer(size * 8)
        arguments = PeekArguments(0, 0, 8)
        count = ptrace(PTRACE_PEEKSIGINFO, self.tid, ctypes.addressof(arguments), ctypes.addressof(info))
        numbers = [int.from_bytes(info.raw[i * size:i * size + 4], "little") for i in range(count)]
        return any(number in RAISED for number in numbers)

    def call(self, number, *arguments, stack=None):
        """Runs one system call of the 64-bit interface."""
        registers = Registers.from_buffer_copy(self.registers)
        if stack is not None:
            registers.rsp = stack
        registers.rip, registers.rax, registers.orig_rax = self.at, number & (2**64 - 1), 2**64 - 1
        values = [argument & (2**64 - 1) for argument in arguments] + [0] * (6 - len(arguments))
        (registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9) = values
        ptrace(PTRACE_SETREGS, self.tid, 0, ctypes.addressof(registers))
        # A call that waits is interrupted.
        signal.setitimer(signal.ITIMER_REAL, LONGEST)
        try:
            return self._result()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _result(self):
        if self._until_call_stop() is not None:
            raise AssertionError("the process did not get to the system call")
        came = self._until_call_stop()
        if came is None and self._signal_waits():
            came = self._until_call_stop()
        if came == signal.SIGSYS:
            return Outcome(refused=self._by_filter())
        if came is not None:
            return Outcome(what=f"signal {came}")
        value = self._get().rax
        value = value - 2**64 if value >= 2**63 else value
        return Outcome(what="it waits") if -value in RESTART else Outcome(value=value)

    def _by_filter(self):
        info = ctypes.create_string_buffer(128)
        ptrace(PTRACE_GETSIGINFO, self.tid, 0, ctypes.addressof(info))
        return int.from_bytes(info.raw[8:12], "little") == SYS_SECCOMP

    def put(self, *parts):
        """Writes bytes below the process's stack; the address of each part."""
        at, addresses = self.scratch, []
        for part in parts:
            if at + len(part) > self.scratch + 0x1000:
                raise ValueError("too much for the scratch page")
            os.pwrite(self.memory, part, at)
            addresses.append(at)
            at += (len(part) + 15) & ~15
        return addresses

    def last_words(self, number, *arguments, instruction=SYSCALL):
        """Lets the process run one call without a tracer and leaves it: for calls that end it.
        32-bit calls take their arguments in other registers."""
        if instruction != SYSCALL:
            os.pwrite(self.memory, instruction, self.at)
        registers = Registers.from_buffer_copy(self.registers)
        registers.rip, registers.rax, registers.orig_rax = self.at, number, 2**64 - 1
        values = [*arguments] + [0] * (6 - len(arguments))
        (registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9) = values
        if instruction == INT_80:
            (registers.rbx, registers.rcx, registers.rdx, registers.rsi, registers.rdi, registers.rbp) = values
        ptrace(PTRACE_SETREGS, self.tid, 0, ctypes.addressof(registers))
        os.close(self.memory)
        self.memory = None
        self._detach()


class Watcher:
    """Notes system calls of a process from its first one on, and of all that it makes, each for so many
    stops: one that is stopped at every call for good gets nowhere between two ticks of its guest's clock."""

    BUDGET = 300

    def __init__(self):
        self.seen = []
        self.left = {}

    def begin(self, pid, budget=BUDGET):
        """Looks at a process, which is stopped for a moment: waits go on afterwards."""
        if pid in self.left:
            self.left[pid] = max(self.left[pid], budget)
            return
        try:
            ptrace(PTRACE_SEIZE, pid, 0, OPTION_SYSGOOD | OPTION_FORK | OPTION_VFORK | OPTION_CLONE)
            self.left[pid] = budget
            ptrace(PTRACE_INTERRUPT, pid)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise

    def step(self):
        """Takes note of one stop, if there is one; whether there was."""
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | WALL)
        except ChildProcessError:
            return False
        if pid == 0:
            return False
        if os.WIFSTOPPED(status):
            self._stopped(pid, os.WSTOPSIG(status), status >> 16)
        else:
            self.left.pop(pid, None)
        return True

    def _stopped(self, pid, number, event):
        deliver = 0
        if number == signal.SIGTRAP | 0x80:
            # `struct ptrace_syscall_info`: a kind, and of an entry the call's number and arguments.
            info = (ctypes.c_uint64 * 16)()
            ptrace(PTRACE_GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info))
            if info[0] & 0xFF == SYSCALL_ENTRY:
                self.seen.append((info[3], list(info[4:10])))
        elif event == 0:
            deliver = number
        left = self.left.get(pid, self.BUDGET)
        self.left[pid] = left - 1
        if left > 0:
            ptrace(PTRACE_SYSCALL, pid, 0, deliver)
        else:
            del self.left[pid]
            ptrace(PTRACE_DETACH, pid, 0, deliver)
