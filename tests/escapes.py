"""What an attacker inside the jail tries. Numbers are those of x86-64 (asm/unistd_64.h).

Each try is (what, number, arguments, alone). `alone` says that it must fail even where the
filter is switched off, because of the other walls.
"""

import errno
import struct

# What the filters let through, with which arguments, by whose they are: a space with protection keys,
# one without, the process that makes runners, and a runner. The same lists stand in
# crates/monitor/src/jail_rules.rs and runner/filter.rs; a change there has to be wanted here too.
TURNS = "rt_sigreturn setitimer futex restart_syscall exit_group".split()
MAPPINGS = "mmap mprotect munmap".split()
BIRTHS = "getpid clone getppid prctl arch_prctl".split()
ALLOWED = {
    "keys": [*TURNS, *MAPPINGS, *BIRTHS, "madvise", "mincore", "pkey_mprotect"],
    "space": [*TURNS, *MAPPINGS, "madvise", "mincore"],
    "nursery": [*TURNS, *MAPPINGS, *BIRTHS],
    # Mappings change from one place each, which is not where these tries are made.
    "runner": TURNS,
}

NUMBERS = {
    "mmap": 9, "mprotect": 10, "munmap": 11, "rt_sigreturn": 15, "mincore": 27, "madvise": 28, "setitimer": 38, "getpid": 39, "clone": 56,
    "getppid": 110, "prctl": 157, "arch_prctl": 158, "futex": 202, "restart_syscall": 219, "exit_group": 231, "pkey_mprotect": 329,
}
# Linux lets these two through before it asks any filter: they are its own, for probes that root sets.
# Elsewhere the first raises SIGILL, and the second does nothing.
UNFILTERED = {335: "uretprobe", 336: "uprobe"}
# One above the newest call that Linux 6.18 has (470, and a few to come).
LAST = 480

RAM_AT, RAM_END, REMOVE, COLLAPSE = 0x5C80_0000_0000, 0x5D80_0000_0000, 9, 25
RAM, ARENA, CODE, SHADOW, BELL, BELLS = 3, 4, 5, 6, 7, 3
SHARED, PRIVATE, SHARED_VALIDATE, FIXED, ANONYMOUS = 1, 2, 3, 0x10, 0x20
GROWSDOWN, LOCKED, NORESERVE, POPULATE, HUGETLB, SYNC, NOREPLACE = (
    0x100, 0x2000, 0x4000, 0x8000, 0x40000, 0x80000, 0x100000)
FREE = 0x1000_0000
# boundary::at and the monitor's layout.
ARENA_AT, IMAGE, MAILBOX, SITES = 0x5C10_0000_0000, 0x5C00_0000_0000, 0x5C00_1020_0000, 0x6_0000
# Where in the arena the nursery's part begins.
NURSERY_PART = 0x1_1000_0000
CLONE_PARENT, SIGCHLD = 0x8000, 17
NEW = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "network": 0x40000000, "ipc": 0x8000000,
    "uts": 0x4000000, "cgroup": 0x2000000, "time": 0x80}
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
O_RDWR, O_CREAT, O_PATH, O_TMPFILE = 2, 0o100, 0o10000000, 0o20200000


def word(*values):
    return struct.pack(f"<{len(values)}Q", *(value & (2**64 - 1) for value in values))


def text(string):
    return string.encode() + b"\0"


def files(a, w):
    """The host's file tree."""
    for path in ("/etc/passwd", "/proc/self/mem", "/proc/1/root/etc/passwd", "/dev/mem", "/", "../../../etc/passwd", w.canary):
        at, = a.put(text(path))
        yield f"open {path}", 2, (at, O_RDWR), True
        yield f"openat {path}", 257, (AT_FDCWD, at, O_RDWR), True
        how, at = a.put(word(O_RDWR, 0, 0), text(path))
        yield f"openat2 {path}", 437, (AT_FDCWD, at, how, 24), True
    at, = a.put(text("/made-by-a-guest"))
    yield "open a new file", 2, (at, O_RDWR | O_CREAT, 0o666), True
    yield "creat", 85, (at, 0o666), True
    yield "mkdir", 83, (at, 0o777), True
    yield "mknod of a disk", 133, (at, 0o60666, 0x800), True
    yield "symlink", 88, (at, at), True
    at, = a.put(text("/"))
    yield "open a file without a name", 257, (AT_FDCWD, at, O_TMPFILE | O_RDWR, 0o600), True
    old, new = a.put(text(w.canary), text(w.canary + ".new"))
    for what, number, arguments in (("unlink", 87, (old,)), ("rename", 82, (old, new)), ("link", 86, (old, new)),
            ("chmod", 90, (old, 0o777)), ("chown", 92, (old, 0, 0)), ("truncate", 76, (old, 0)), ("stat", 4, (old, new)),
            ("access", 21, (old, 0)), ("utimes", 235, (old, 0)), ("setxattr", 188, (old, new, new, 1, 0)),
            ("statfs", 137, (old, new)), ("readlink", 89, (old, new, 10)), ("renameat2", 316, (-100, old, -100, new, 0)),
            ("name_to_handle_at", 303, (AT_FDCWD, old, new, new, 0))):
        yield f"{what} of a host file", number, arguments, True
    handle, = a.put(struct.pack("<Ii", 8, 1) + b"\2" + bytes(15))
    yield "open_by_handle_at", 304, (RAM, handle, O_RDWR), True


def descriptors(a, w):
    """What a process does with descriptors that it has."""
    io, buffer = a.put(word(a.scratch + 0x800, 16), b"x" * 16)
    yield "read of guest memory as a file", 0, (RAM, buffer, 16), False
    yield "write to standard error", 1, (2, buffer, 1), False
    yield "write to guest memory as a file", 1, (RAM, buffer, 8), False
    yield "write of another length to a backend's bell", 1, (BELL, buffer, 16), False
    yield "write behind the bells", 1, (BELL + BELLS, buffer, 8), False
    yield "read of a bell", 0, (BELL, buffer, 8), False
    yield "pwrite64 to the arena", 18, (ARENA, buffer, 16, 0), False
    yield "readv", 19, (RAM, io, 1), False
    yield "close of guest memory", 3, (63,), False
    yield "lseek", 8, (RAM, 0, 0), False
    yield "dup", 32, (RAM,), False
    yield "dup2", 33, (RAM, 9), False
    yield "dup3", 292, (RAM, 9, 0), False
    yield "fcntl F_DUPFD", 72, (RAM, 0, 0), False
    yield "fcntl F_ADD_SEALS", 72, (RAM, 1033, 1), True
    yield "fcntl F_SETOWN to another", 72, (RAM, 8, w.other), False
    yield "ftruncate of guest memory", 77, (RAM, 0), True
    yield "fallocate that frees guest memory", 285, (63, 3, 0, 4096), True
    yield "fchmod of a memfd", 91, (63, 0o777), True
    yield "ioctl of a terminal (TIOCSTI)", 16, (0, 0x5412, buffer), True
    yield "ioctl FIONREAD", 16, (RAM, 0x541B, buffer), False
    yield "pipe", 22, (buffer,), False
    yield "splice", 275, (RAM, 0, 0, 0, 10, 0), True
    yield "tee", 276, (RAM, 0, 10, 0), True
    yield "vmsplice", 278, (0, io, 1, 0), True
    yield "sendfile", 40, (0, RAM, 0, 10), False
    yield "copy_file_range", 326, (RAM, 0, ARENA, 0, 10, 0), False
    yield "close_range", 436, (60, 63, 0), False
    yield "getdents64", 217, (RAM, buffer, 16), True


def network(a, w):
    for name, family, kind, protocol in (("AF_UNIX", 1, 1, 0), ("AF_INET", 2, 1, 0), ("AF_INET6", 10, 2, 0), ("AF_NETLINK", 16, 3, 0),
            ("AF_PACKET", 17, 3, 0x300), ("AF_KEY", 15, 3, 2), ("AF_ALG", 38, 5, 0), ("AF_VSOCK", 40, 1, 0), ("AF_XDP", 44, 3, 0),
            ("AF_INET raw", 2, 3, 1)):
        yield f"socket {name}", 41, (family, kind, protocol), name in ("AF_PACKET", "AF_INET raw", "AF_XDP")
    local, pair = a.put(struct.pack("<H", 1) + b"\0abstract", word(0, 0))
    yield "socketpair", 53, (1, 1, 0, pair), False
    yield "connect", 42, (RAM, local, 11), True
    yield "bind", 49, (RAM, local, 11), True
    yield "listen", 50, (RAM, 1), True
    control = struct.pack("<QiiI", 20, 1, 1, RAM)
    message = word(0, 0, a.scratch + 0x800, 1, a.scratch + 0x100, len(control), 0)
    at, = a.put(message)
    yield "sendmsg with SCM_RIGHTS", 46, (RAM, at, 0), True
    yield "recvmsg", 47, (RAM, at, 0), True
    yield "sendto", 44, (RAM, at, 1, 0, local, 11), True


def processes(a, w):
    """Other processes: those of the host, of another domain, and our own domain process."""
    here, there = a.put(word(a.scratch + 0x800, 8), word(IMAGE, 8))
    for whose, pid in (("of another domain", w.other), ("xendomain", w.parent), ("of the host", w.host), ("everybody", -1), ("its group", 0)):
        # Signal 0 and SIGURG, which nobody minds if it arrives. A namespace of process numbers makes
        # everybody those of the own domain; without one it is everybody of the same user.
        outside = pid > 0
        yield f"kill {whose}", 62, (pid, 23), outside
        yield f"kill {whose} with signal 0", 62, (pid, 0), outside
        if not outside:
            continue
        yield f"tkill {whose}", 200, (pid, 23), True
        yield f"tgkill {whose}", 234, (pid, pid, 23), True
        info, = a.put(struct.pack("<iii", 23, 0, -1) + bytes(116))
        yield f"rt_sigqueueinfo {whose}", 129, (pid, 23, info), True
        yield f"rt_tgsigqueueinfo {whose}", 297, (pid, pid, 23, info), True
        here, there = a.put(word(a.scratch + 0x800, 8), word(IMAGE, 8))
        yield f"ptrace attach {whose}", 101, (16, pid, 0, 0), True
        yield f"ptrace seize {whose}", 101, (0x4206, pid, 0, 0), True
        yield f"process_vm_readv {whose}", 310, (pid, here, 1, there, 1, 0), True
        yield f"process_vm_writev {whose}", 311, (pid, here, 1, there, 1, 0), True
        yield f"pidfd_open {whose}", 434, (pid, 0), w.own_pids
        yield f"kcmp {whose}", 312, (pid, pid, 0, 0, 0), True
        yield f"prlimit64 {whose}", 302, (pid, 7, 0, here), True
        yield f"sched_setaffinity {whose}", 203, (pid, 8, here), True
        yield f"setpriority {whose}", 141, (0, pid, 19), True
        yield f"setpgid {whose}", 109, (pid, 0), True
        yield f"migrate_pages {whose}", 256, (pid, 8, here, there), True
    yield "ptrace TRACEME", 101, (0, 0, 0, 0), False
    yield "pidfd_send_signal", 424, (RAM, 23, 0, 0), True
    yield "pidfd_getfd", 438, (RAM, 0, 0), True
    yield "process_madvise", 440, (RAM, here, 1, 4, 0), True
    yield "process_mrelease", 448, (RAM, 0), True
    yield "wait4", 61, (-1, 0, 1, 0), True
    yield "waitid", 247, (0, 0, here, 5, 0), True
    yield "fork", 57, (), False
    yield "vfork", 58, (), False
    yield "setsid", 112, (), False
    for name, flag in NEW.items():
        # An ordinary process may make a user namespace; one whose root was changed may not.
        yield f"unshare of the {name} namespace", 272, (flag,), name != "user"
        yield f"clone with a new {name} namespace", 56, (flag | SIGCHLD,), False
        arguments, = a.put(word(flag, 0, 0, 0, SIGCHLD, 0, 0, 0))
        yield f"clone3 with a new {name} namespace", 435, (arguments, 64), False
    yield "clone of a thread", 56, (0x100 | 0x200 | 0x400 | 0x800 | 0x10000, 0), False
    yield "clone that shares memory", 56, (CLONE_PARENT | SIGCHLD | 0x100, 0), False
    yield "clone that is no sibling", 56, (SIGCHLD,), False
    yield "clone without a signal", 56, (CLONE_PARENT,), False
    yield "clone with a descriptor", 56, (CLONE_PARENT | SIGCHLD | 0x1000, 0, a.scratch), False
    yield "clone with high bits", 56, (CLONE_PARENT | SIGCHLD | 1 << 32,), False


def programs(a, w):
    path, empty, vector = a.put(text("/bin/sh"), b"\0" * 16, word(0))
    yield "execve", 59, (path, vector, vector), True
    yield "execveat", 322, (AT_FDCWD, path, vector, vector, 0), True
    yield "execveat of guest memory", 322, (RAM, empty, vector, vector, AT_EMPTY_PATH), True
    yield "execveat of the code cache", 322, (CODE, empty, vector, vector, AT_EMPTY_PATH), True
    yield "memfd_create", 319, (path, 0), False
    yield "memfd_secret", 447, (0,), False
    yield "uselib", 134, (path,), True


def memory(a, w):
    """Memory that is not the domain's, and mappings of a kind that it must not have."""
    own = SHARED | FIXED
    for what, flags, fd in (("anonymous", PRIVATE | ANONYMOUS, -1), ("anonymous at a place", PRIVATE | ANONYMOUS | FIXED, -1),
            ("anonymous and shared", SHARED | ANONYMOUS, -1), ("private guest memory", PRIVATE | FIXED, RAM),
            ("guest memory anywhere", SHARED, RAM), ("guest memory, validated", SHARED_VALIDATE | FIXED, RAM),
            ("guest memory, locked", own | LOCKED, RAM), ("guest memory, huge", own | HUGETLB, RAM),
            ("guest memory, growing down", own | GROWSDOWN, RAM), ("guest memory, not reserved", own | NORESERVE, RAM),
            ("guest memory, synchronous", own | SYNC, RAM), ("guest memory, no replacing", SHARED | NOREPLACE, RAM),
            ("guest memory, anonymous", own | ANONYMOUS, RAM), ("low addresses only", own | 0x40, RAM),
            ("standard input", own, 0), ("standard error", own, 2), ("the code cache", own, CODE), ("a descriptor beyond", own, 7),
            ("descriptor -1", own, -1), ("a descriptor with high bits", own, 1 << 32 | CODE)):
        yield f"mmap: {what}", 9, (FREE, 4096, 3, flags, fd, 0), False
    for what, at in (("low", FREE), ("at its own place", ARENA_AT), ("behind the mailbox", MAILBOX + 4096),
            ("at the mailbox's address with high bits", MAILBOX | 1 << 48), ("over the image", IMAGE), ("behind the sites", SITES + 4096)):
        yield f"mmap: the arena {what}", 9, (at, 4096, 3, own, ARENA, 0), False
    yield "mmap: the arena, populated", 9, (MAILBOX, 4096, 3, own | POPULATE, ARENA, 0), False
    for number, what in ((10, "mprotect"), (329, "pkey_mprotect")):
        for which, bits in (("growing down", 0x1000000), ("growing up", 0x2000000), ("PROT_SEM", 8)):
            yield f"{what}, {which}", number, (FREE, 4096, 3 | bits, 0), False
    yield "mremap", 25, (a.scratch, 4096, 8192, 1), False
    yield "mremap to elsewhere", 25, (a.scratch, 4096, 4096, 3, FREE), False
    yield "remap_file_pages", 216, (FREE, 4096, 0, 0, 0), True
    yield "brk", 12, (1 << 40,), False
    yield "madvise", 28, (FREE, 4096, 4), True
    yield "taking memory of the monitor's away", 28, (ARENA_AT, 4096, REMOVE), False
    yield "mlock", 149, (a.scratch, 4096), True
    yield "mlock2", 325, (a.scratch, 4096, 0), True
    yield "mlockall", 151, (1,), True
    yield "mincore", 27, (FREE, 4096, a.scratch), True
    yield "msync", 26, (FREE, 4096, 4), True
    yield "mseal", 462, (FREE, 4096, 0), True
    yield "mbind", 237, (FREE, 4096, 99, 0, 0, 0), True
    yield "set_mempolicy", 238, (99, 0, 0), True
    yield "pkey_alloc", 330, (0, 0), False
    yield "pkey_free", 331, (15,), True
    yield "map_shadow_stack", 453, (FREE, 4096, 0), True
    yield "userfaultfd", 323, (0,), True
    yield "shmget", 29, (0, 4096, 0o1600), False
    yield "shmat", 30, (12345, 0, 0), True


def kernel(a, w):
    """The host's kernel itself."""
    at, path, word8 = a.put(bytes(256), text("/"), word(0))
    for what, number, arguments in (("bpf", 321, (0, at, 72)), ("bpf of a program", 321, (5, at, 72)),
            ("perf_event_open", 298, (at, 0, -1, -1, 0)), ("mount", 165, (path, path, 0, 4096, 0)), ("umount2", 166, (path, 2)),
            ("pivot_root", 155, (path, path)), ("chroot", 161, (path,)), ("setns", 308, (RAM, 0)), ("open_tree", 428, (AT_FDCWD, path, 1)),
            ("fsopen", 430, (path, 0)), ("fsmount", 432, (RAM, 0, 0)), ("fsconfig", 431, (RAM, 6, 0, 0, 0)), ("fspick", 433, (AT_FDCWD, path, 0)),
            ("move_mount", 429, (AT_FDCWD, path, AT_FDCWD, path, 0)), ("mount_setattr", 442, (AT_FDCWD, path, 0, at, 32)),
            ("open_tree_attr", 467, (AT_FDCWD, path, 1, at, 32)), ("statmount", 457, (at, at, 0, 0)), ("listmount", 458, (at, at, 0, 0)),
            ("reboot", 169, (0xFEE1DEAD, 672274793, 0, 0)), ("kexec_load", 246, (0, 0, at, 0)), ("kexec_file_load", 320, (RAM, RAM, 1, path, 0)),
            ("init_module", 175, (at, 16, path)), ("finit_module", 313, (RAM, path, 0)), ("delete_module", 176, (path, 0)),
            ("iopl", 172, (3,)), ("ioperm", 173, (0x80, 1, 1)), ("quotactl", 179, (0x800007, path, 0, at)), ("quotactl_fd", 443, (RAM, 0, 0, 0)),
            ("swapon", 167, (path, 0)), ("swapoff", 168, (path,)), ("acct", 163, (path,)), ("sethostname", 170, (path, 1)),
            ("setdomainname", 171, (path, 1)), ("settimeofday", 164, (at, 0)), ("clock_settime", 227, (0, at)), ("adjtimex", 159, (0,)),
            ("clock_adjtime", 305, (0, 0)), ("syslog", 103, (3, at, 16)), ("vhangup", 153, ()), ("nfsservctl", 180, (0, 0, 0)),
            ("lookup_dcookie", 212, (1, at, 16)), ("fanotify_init", 300, (0, 0)), ("fanotify_mark", 301, (RAM, 1, 1, AT_FDCWD, path)),
            ("inotify_add_watch", 254, (RAM, path, 2)), ("mq_open", 240, (path, 0o102, 0o600, 0)), ("lsm_set_self_attr", 460, (100, at, 32, 0)),
            ("file_setattr", 469, (AT_FDCWD, path, at, 24, 0)), ("rseq", 334, (1, 1, 1, 1)), ("io_uring_enter", 426, (RAM, 1, 0, 0, 0, 0)),
            ("io_uring_register", 427, (RAM, 0, 0, 0))):
        yield what, number, arguments, True
    for what, number, arguments in (("io_uring_setup", 425, (8, at)), ("keyctl", 250, (0, -3, 1)), ("add_key", 248, (path, path, at, 1, -3)),
            ("request_key", 249, (path, path, 0, 0)), ("modify_ldt", 154, (0, at, 16)), ("set_thread_area", 205, (at,)), ("inotify_init1", 294, (0,)),
            ("msgget", 68, (0, 0o1600)), ("semget", 64, (0, 1, 0o1600)), ("timer_create", 222, (0, 0, at)), ("timerfd_create", 283, (0, 0)),
            ("signalfd4", 289, (-1, at, 8, 0)), ("eventfd2", 290, (0, 0)), ("epoll_create1", 291, (0,)), ("getrandom", 318, (at, 16, 1)),
            ("uname", 63, (at,)), ("sysinfo", 99, (at,)), ("gettimeofday", 96, (at, 0)), ("landlock_create_ruleset", 444, (0, 0, 1)),
            ("landlock_restrict_self", 446, (RAM, 0)), ("membarrier", 324, (0, 0)), ("set_robust_list", 273, (0, 24)),
            ("nanosleep", 35, (word8, 0)), ("pause", 34, ()), ("sched_yield", 24, ()), ("futex_waitv", 449, (at, 0, 0, 0, 0)),
            ("futex_wake", 454, (at, 1, 1, 2)), ("futex_wait", 455, (at, 1, 1, 2, 0, 0)), ("futex_requeue", 456, (at, 0, 1, 1)),
            ("io_setup", 206, (1, word8)), ("cachestat", 451, (RAM, at, at, 0)), ("times", 100, (at,))):
        yield what, number, arguments, False


def oneself(a, w):
    """Who the process is, and what it may."""
    at, = a.put(bytes(256))
    limit, = a.put(word(2**64 - 1, 2**64 - 1))
    header, data = a.put(struct.pack("<II", 0x20080522, 0), b"\xff" * 24)
    for what, number, arguments in (("setuid", 105, (0,)), ("setgid", 106, (0,)), ("setreuid", 113, (0, 0)), ("setregid", 114, (0, 0)),
            ("setresuid", 117, (0, 0, 0)), ("setresgid", 119, (0, 0, 0)), ("setgroups", 116, (0, 0)), ("capset", 126, (header, data))):
        yield f"{what} to root's", number, arguments, True
    yield "setfsuid", 122, (0,), False
    limit, = a.put(word(2**64 - 1, 2**64 - 1))
    for what, which in (("files", 7), ("locked memory", 8), ("file size", 1), ("message queues", 12), ("real-time priority", 14)):
        yield f"setrlimit of {what}", 160, (which, limit), True
        yield f"prlimit64 of {what}", 302, (0, which, limit, 0), True
    parameters, = a.put(struct.pack("<I", 50) + bytes(12))
    yield "sched_setscheduler SCHED_FIFO", 144, (0, 1, parameters), True
    yield "sched_setparam", 142, (0, parameters), True
    attributes, = a.put(struct.pack("<IIQiIQQQ", 48, 6, 0, 0, 0, 10**6, 10**7, 10**7))
    yield "sched_setattr SCHED_DEADLINE", 314, (0, attributes, 0), True
    yield "sched_setaffinity", 203, (0, 8, attributes), False
    yield "nice", 141, (0, 0, -20), True
    yield "ioprio_set", 251, (1, 0, 1 << 13), True
    yield "personality", 135, (0x0040000,), False
    yield "umask", 95, (0,), False
    yield "chdir", 80, (at,), True
    for what, arguments in (("PR_SET_DUMPABLE", (4, 1)), ("PR_SET_SECCOMP", (22, 2, 0)), ("PR_SET_NO_NEW_PRIVS off", (38, 0)),
            ("PR_SET_MM", (35, 1, 0)), ("PR_CAPBSET_DROP", (24, 0)), ("PR_SET_KEEPCAPS", (8, 1)), ("PR_SET_SECUREBITS", (28, 0)),
            ("PR_CAP_AMBIENT", (47, 2, 21)), ("PR_SET_CHILD_SUBREAPER", (36, 1)), ("PR_SET_PTRACER", (0x59616D61, -1)),
            ("PR_SET_TSC", (26, 2)), ("PR_SET_NAME", (15, at)), ("PR_GET_NAME", (16, at)), ("PR_SET_TIMERSLACK", (29, 1)),
            ("PR_SET_SPECULATION_CTRL", (53, 0, 2)), ("PR_SCHED_CORE", (62, 1, 0, 0, 0)), ("PR_SET_VMA", (0x53564D41, 0, a.scratch, 4096, 0)),
            ("PR_SET_MDWE", (65, 1)), ("PR_SET_THP_DISABLE", (41, 1)), ("PR_MCE_KILL", (33, 1, 1)), ("PR_SET_IO_FLUSHER", (57, 1)),
            ("PR_TASK_PERF_EVENTS_DISABLE", (31,)), ("PR_SET_MEMORY_MERGE", (67, 1)), ("PR_SET_FP_MODE", (45, 1)), ("PR_SET_ENDIAN", (20, 0)),
            ("PR_SET_PDEATHSIG to none", (1, 0)), ("PR_SET_PDEATHSIG to another", (1, 15)), ("PR_SET_PDEATHSIG with high bits", (1, 9 | 1 << 32)),
            ("PR_SET_SYSCALL_USER_DISPATCH off", (59, 0, 0, 0, 0)), ("PR_SET_SYSCALL_USER_DISPATCH with a range", (59, 1, 0, 2**47, 0)),
            ("option with another's number", (99, 0))):
        yield f"prctl {what}", 157, arguments, False
    for what, code in (("ARCH_SET_GS", 0x1001), ("ARCH_SET_FS", 0x1002), ("ARCH_GET_FS", 0x1003), ("ARCH_GET_GS", 0x1004),
            ("ARCH_GET_CPUID", 0x1011), ("ARCH_GET_XCOMP_SUPP", 0x1021), ("ARCH_REQ_XCOMP_PERM", 0x1023), ("ARCH_MAP_VDSO_64", 0x2003),
            ("ARCH_MAP_VDSO_32", 0x2002), ("ARCH_SHSTK_ENABLE", 0x5001), ("ARCH_ENABLE_TAGGED_ADDR", 0x4002)):
        yield f"arch_prctl {what}", 158, (code, at), False
    yield "arch_prctl ARCH_SET_CPUID on again", 158, (0x1012, 1), False
    yield "seccomp in strict mode", 317, (0, 0, 0), False
    yield "seccomp of another filter", 317, (1, 0, at), False
    yield "seccomp that asks a listener", 317, (1, 8, at), False
    yield "rt_sigaction", 13, (31, 0, at, 8), False
    yield "rt_sigprocmask", 14, (0, 0, at, 8), False
    yield "sigaltstack", 131, (0, at), False
    yield "alarm", 37, (0,), False
    yield "setitimer of CPU time", 38, (1, 0, 0), False
    yield "setitimer of profiling", 38, (2, 0, 0), False
    for what, operation in (("private wait", 128), ("private wake", 129), ("FUTEX_FD", 2), ("requeue", 3), ("compare and requeue", 4),
            ("wake with an operation", 5), ("lock PI", 6), ("unlock PI", 7), ("try to lock PI", 8), ("wait for bits", 9), ("wake of bits", 10),
            ("wait and requeue PI", 11), ("lock PI 2", 13), ("wait with the wall clock", 256)):
        yield f"futex {what}", 202, (at, operation, 1, 0, 0, 0), False


def other_tables(a, w):
    """Calls by the numbers of other interfaces: x32, and numbers that are none."""
    for what, number in (("read", 0), ("open", 2), ("mmap", 9), ("execve", 520), ("ptrace", 521), ("rt_sigreturn", 513)):
        yield f"x32 {what}", 0x4000_0000 | number, (), True
    for number in (LAST + 1, 1000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xC000_0000):
        yield f"call number {number:#x}", number, (), True


FAMILIES = [files, descriptors, network, processes, programs, memory, kernel, oneself, other_tables]


def allowed_ways(kind):
    """Harmless arguments of allowed calls: they must get through to the kernel. Calls that make or
    end a process, or change the processor's mode, are seen at work instead."""
    own = SHARED | FIXED
    ways = [
        ("mmap of guest memory", "mmap", (FREE, 0, 3, own, RAM, 0), -errno.EINVAL),
        ("mmap of shadow copies", "mmap", (FREE, 0, 3, own, SHADOW, 0), -errno.EINVAL),
        ("mprotect", "mprotect", (0, 0, 1), 0),
        ("munmap", "munmap", (0, 0), -errno.EINVAL),
        ("madvise of guest memory", "madvise", (RAM_AT + 1, 0, REMOVE), -errno.EINVAL),
        ("huge pages of guest memory", "madvise", (RAM_AT + 1, 0, COLLAPSE), -errno.EINVAL),
        ("mincore of guest memory", "mincore", (RAM_AT + 1, 0, 0), -errno.EINVAL),
        ("setitimer", "setitimer", (0, 1, 0), -errno.EFAULT),
        ("getpid", "getpid", (), None),
        ("getppid", "getppid", (), None),
        ("rt_sigreturn", "rt_sigreturn", (), "signal 11"),
        ("prctl PR_SET_PDEATHSIG", "prctl", (1, 9), 0),
        ("futex wait", "futex", (0, 0, 0, 0), -errno.EFAULT),
        ("futex wake", "futex", (0, 1, 0, 0), -errno.EFAULT),
        ("restart_syscall", "restart_syscall", (), None),
        ("pkey_mprotect", "pkey_mprotect", (0, 0, 1, 0), 0),
    ]
    return [(what, NUMBERS[name], arguments, wanted) for what, name, arguments, wanted in ways if name in ALLOWED[kind]]


def rules(isolation):
    """Every rule of the filter: what it is for, the call, and whether the arguments are its own.
    Each must be seen at work; `exit_group` is what a process ends itself with when it is broken."""
    def flags(args, wanted, fd):
        return args[3] == wanted and args[4] == fd

    shared = SHARED | FIXED
    found = {
        "mmap of guest memory": (9, lambda a: flags(a, shared, RAM)),
        "mmap of shadow copies": (9, lambda a: flags(a, shared, SHADOW)),
        "mmap, populated": (9, lambda a: flags(a, shared | POPULATE, RAM)),
        "write to the disks' bell": (1, lambda a: a[0] == BELL and a[2] == 8),
        "mprotect": (10, lambda a: True),
        "munmap": (11, lambda a: True),
        "rt_sigreturn": (15, lambda a: True),
        "madvise of guest memory": (28, lambda a: RAM_AT <= a[0] < RAM_END and a[2] == REMOVE),
        "huge pages of guest memory": (28, lambda a: RAM_AT <= a[0] < RAM_END and a[2] == COLLAPSE),
        "mincore of guest memory": (27, lambda a: RAM_AT <= a[0] < RAM_END),
        "setitimer": (38, lambda a: a[0] == 0),
        "getpid": (39, lambda a: True),
        "clone": (56, lambda a: a[0] == CLONE_PARENT | SIGCHLD),
        "getppid": (110, lambda a: True),
        "prctl PR_SET_PDEATHSIG": (157, lambda a: a[:2] == [1, 9]),
        "prctl PR_SET_SYSCALL_USER_DISPATCH": (157, lambda a: a[:4] == [59, 1, 0, 0]),
        "arch_prctl ARCH_SET_CPUID": (158, lambda a: a[:2] == [0x1012, 0]),
        "futex wait": (202, lambda a: a[1] == 0),
        "futex wake": (202, lambda a: a[1] == 1),
        "restart_syscall": (219, lambda a: True),
    }
    if isolation == "keys":
        return found | {"pkey_mprotect": (329, lambda a: True)}
    found["seccomp of a runner"] = (317, lambda a: a[:2] == [1, 4])
    places = {"mailbox": MAILBOX, "orders": MAILBOX + 0x2_0000, "return addresses": IMAGE + 0x1010_2000, "sites": SITES}
    return found | {f"mmap of a runner's {what}": (9, lambda a, at=at: a[0] == at and flags(a, shared, ARENA))
        for what, at in places.items()}
