//! What a runner may ask of the host: a second filter in front of the jail's.
//!
//! The program in a runner reaches its system-call instructions. So mappings can be changed from one
//! place each, where the call is compared with the orders (`gates`), and never where the runner itself
//! lies; the rest is what a runner needs for its turns. The filter holds addresses of this image, so
//! it is put together at start (linux/filter.h, linux/seccomp.h).

use boundary::{at, setup_flag};

use super::gates::mapping_calls;
use crate::sys;

const MMAP: u32 = 9;
const MPROTECT: u32 = 10;
const MUNMAP: u32 = 11;
/// `rt_sigreturn`, `setitimer`, `futex`, `restart_syscall`, `exit_group`: the jail's filter looks at
/// their arguments.
const TURNS: [u32; 5] = [15, 38, 202, 219, 231];

/// Most bytes of one mapping.
pub const LONGEST: u32 = 0x1_0000;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const FROM: u32 = 8;
const ADDRESS: u32 = 16;
const LENGTH: u32 = 24;
/// The high half of a field lies behind the low one.
const HIGH: u32 = 4;

const ALLOW: u32 = 0x7fff_0000;
/// SIGSYS: the program gets a general protection fault.
const TRAP: u32 = 0x0003_0000;

/// `BPF_LD | BPF_W | BPF_ABS`.
const LOAD: u16 = 0x20;
/// `BPF_MISC | BPF_TAX`.
const TO_X: u16 = 0x07;
/// `BPF_ALU | BPF_ADD | BPF_X`.
const ADD_X: u16 = 0x0c;
/// `BPF_JMP | BPF_JEQ`, `JGT`, `JGE`, and `JGE` with X.
const EQUAL: u16 = 0x15;
const ABOVE: u16 = 0x25;
const AT_LEAST: u16 = 0x35;
const AT_LEAST_X: u16 = 0x3d;
/// `BPF_RET`.
const RETURN: u16 = 0x06;

/// Where a jump leads.
#[derive(Clone, Copy)]
enum To {
    /// The instruction behind it, or so many later.
    On(u8),
    /// The program's end, which refuses.
    Refuse,
}

/// A jump to the end, until that is known.
const REFUSE: u8 = 0xff;

struct Program {
    code: [u64; 64],
    len: usize,
}

impl Program {
    fn put(&mut self, code: u16, yes: u8, no: u8, k: u32) {
        if let Some(slot) = self.code.get_mut(self.len) {
            *slot =
                u64::from(code) | u64::from(yes) << 16 | u64::from(no) << 24 | u64::from(k) << 32;
        }
        // One that does not fit is seen in `finish`.
        self.len += 1;
    }

    fn load(&mut self, offset: u32) {
        self.put(LOAD, 0, 0, offset);
    }

    fn jump(&mut self, condition: u16, k: u32, yes: To, no: To) {
        let [yes, no] = [yes, no].map(|to| match to {
            To::On(count) => count,
            To::Refuse => REFUSE,
        });
        self.put(condition, yes, no, k);
    }

    fn allow(&mut self) {
        self.put(RETURN, 0, 0, ALLOW);
    }

    /// Refuses unless the field is `value`.
    fn require(&mut self, field: u32, value: u64) {
        for (offset, half) in [(field, value as u32), (field + HIGH, (value >> 32) as u32)] {
            self.load(offset);
            self.jump(EQUAL, half, To::On(0), To::Refuse);
        }
    }

    /// What `body` makes holds for call `number` alone; nothing goes on behind it.
    fn of_call(&mut self, number: u32, body: impl FnOnce(&mut Program)) {
        self.load(NUMBER);
        let head = self.len;
        self.put(EQUAL, 0, 0, number);
        body(self);
        let past = (self.len - head - 1) as u64;
        if let Some(jump) = self.code.get_mut(head) {
            *jump |= past << 24;
        }
    }

    /// A = the low half of where the mapping ends, X = its length.
    fn load_end(&mut self) {
        self.load(LENGTH);
        self.put(TO_X, 0, 0, 0);
        self.load(ADDRESS);
        self.put(ADD_X, 0, 0, 0);
    }

    /// Refuses a mapping that is long, or overlaps what the runner itself has.
    fn require_user_place(&mut self) {
        self.load(LENGTH + HIGH);
        self.jump(EQUAL, 0, To::On(0), To::Refuse);
        self.load(LENGTH);
        self.jump(ABOVE, LONGEST, To::Refuse, To::On(0));
        self.load(ADDRESS + HIGH);
        // At or above the runner's first address in its 4 GiB.
        self.jump(EQUAL, (at::START >> 32) as u32, To::On(0), To::On(2));
        self.load(ADDRESS);
        self.jump(AT_LEAST, at::ALIASES as u32, To::On(0), To::Refuse);
        self.load(ADDRESS + HIGH);
        // Not from below into it: the sum must not pass 4 GiB, but may come to them.
        self.jump(EQUAL, (at::START >> 32) as u32 - 1, To::On(0), To::On(6));
        self.load_end();
        self.jump(AT_LEAST_X, 0, To::On(1), To::On(0));
        self.jump(EQUAL, 0, To::On(0), To::Refuse);
        self.load(ADDRESS + HIGH);
        // The table of sites, in the first 4 GiB.
        self.jump(EQUAL, 0, To::On(0), To::On(7));
        self.load(ADDRESS);
        self.jump(AT_LEAST, (at::SITES + at::SITES_SIZE) as u32, To::On(5), To::On(0));
        self.load_end();
        self.jump(ABOVE, at::SITES as u32, To::Refuse, To::On(0));
    }

    /// The instructions, closed by the one that refuses; `None`: too many.
    fn finish(&mut self) -> Option<&[u64]> {
        let end = self.len;
        self.put(RETURN, 0, 0, TRAP);
        let code = self.code.get_mut(..self.len)?;
        for (at, instruction) in code.iter_mut().enumerate().take(end) {
            let far = (end - at - 1) as u64;
            for shift in [16, 24] {
                if *instruction & 7 == 5 && *instruction >> shift & 0xff == u64::from(REFUSE) {
                    *instruction = *instruction & !(0xff << shift) | far << shift;
                }
            }
        }
        Some(code)
    }
}

const _: () = assert!(at::START as u32 == 0 && at::ALIASES >> 32 == at::START >> 32);

/// From here on a program in this process gets no more of the host than a runner needs.
pub fn close(flags: u32) {
    if flags & setup_flag::NO_SECCOMP != 0 {
        return;
    }
    let [map, unmap, protect] = mapping_calls();
    let mut program = Program { code: [0; 64], len: 0 };
    program.of_call(MMAP, |p| {
        p.require(FROM, map);
        p.require_user_place();
        p.allow();
    });
    for (number, place) in [(MUNMAP, unmap), (MPROTECT, protect)] {
        program.of_call(number, |p| {
            p.require(FROM, place);
            p.allow();
        });
    }
    for number in TURNS {
        program.of_call(number, Program::allow);
    }
    // SAFETY: an array of `struct sock_filter`.
    let closed = program.finish().is_some_and(|code| unsafe { sys::narrow(code) } == 0);
    if !closed {
        sys::exit(95);
    }
}
