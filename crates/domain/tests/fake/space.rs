//! A stand-in for the monitor: it does what the guest's command line says, one
//! word after the other, and so plays guests that print, echo, shut down, crash
//! or misbehave. Built by the tests as a static program, as it runs in an empty root.

#![allow(dead_code, unused_attributes, missing_docs, clippy::undocumented_unsafe_blocks)]

#[path = "../../../boundary/src/lib.rs"]
mod boundary;

use boundary::{DomainPage, PAGE, bell, inbox, vcpu_state};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

unsafe extern "C" {
    fn mmap(at: *mut u8, length: usize, protection: i32, flags: i32, fd: i32, from: i64)
    -> *mut u8;
    fn syscall(number: i64, ...) -> i64;
    fn getpid() -> i32;
    fn raise(signal: i32) -> i32;
    fn fcntl(fd: i32, command: i32, ...) -> i32;
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
}

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    INTERRUPTS.fetch_add(1, SeqCst);
}

struct Guest {
    ram: *mut u8,
    page: &'static mut DomainPage,
    state: &'static DomainPage,
}

fn map(fd: i32, length: u64) -> *mut u8 {
    let at = unsafe { mmap(std::ptr::null_mut(), length as usize, 3, 1, fd, 0) };
    assert_ne!(at as isize, -1, "mapping descriptor {fd}");
    at
}

impl Guest {
    fn frame(&self, mfn: u64) -> *mut u8 {
        unsafe { self.ram.add((mfn * PAGE) as usize) }
    }

    /// The guest-physical address of a guest address.
    fn walk(&self, address: u64) -> u64 {
        let mut table = self.state.setup.cr3_mfn;
        for level in (0..4).rev() {
            let entry = unsafe {
                self.frame(table)
                    .cast::<u64>()
                    .add((address >> (12 + 9 * level) & 511) as usize)
                    .read()
            };
            assert_eq!(entry & 1, 1, "address {address:#x} is mapped");
            table = (entry & 0x000f_ffff_ffff_f000) / PAGE;
        }
        table * PAGE + address % PAGE
    }

    fn command_line(&self) -> String {
        let at = self.walk(self.state.setup.start_info) + 128;
        let text = unsafe { std::ffi::CStr::from_ptr(self.ram.add(at as usize).cast()) };
        text.to_string_lossy().into_owned()
    }

    fn ring(&self, what: u32) {
        self.state.bells.fetch_or(what, SeqCst);
        self.state.doorbell.fetch_add(1, SeqCst);
        unsafe { syscall(202, &raw const self.state.doorbell, 1, 1) };
    }

    fn console_word(&self, number: usize) -> &AtomicU32 {
        unsafe { &*self.frame(self.state.setup.console_mfn).add(3072 + 4 * number).cast() }
    }

    fn print(&self, text: &[u8]) {
        let (cons, prod) = (self.console_word(2), self.console_word(3));
        for byte in text {
            while prod.load(SeqCst).wrapping_sub(cons.load(SeqCst)) >= 2048 {
                self.ring(bell::CONSOLE);
                self.wait();
            }
            let at = prod.load(SeqCst);
            let output = self.frame(self.state.setup.console_mfn);
            unsafe { output.add(1024 + (at % 2048) as usize).write_volatile(*byte) };
            prod.store(at.wrapping_add(1), SeqCst);
        }
        self.ring(bell::CONSOLE);
    }

    fn wait(&self) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }

    /// Blocks until the inbox has something; returns it.
    fn block(&self) -> u32 {
        self.state.vcpu_state.store(vcpu_state::BLOCKED, SeqCst);
        loop {
            let seen = self.state.wake.load(SeqCst);
            let taken = self.state.inbox.swap(0, SeqCst);
            if taken != 0 {
                self.state.vcpu_state.store(vcpu_state::RUNNING, SeqCst);
                return taken;
            }
            unsafe { syscall(202, &raw const self.state.wake, 0, seen, 0usize) };
        }
    }

    fn read_console(&self) -> Vec<u8> {
        let (cons, prod) = (self.console_word(0), self.console_word(1));
        let mut text = Vec::new();
        while cons.load(SeqCst) != prod.load(SeqCst) {
            let at = cons.load(SeqCst);
            let input = self.frame(self.state.setup.console_mfn);
            text.push(unsafe { input.add((at % 1024) as usize).read_volatile() });
            cons.store(at.wrapping_add(1), SeqCst);
        }
        text
    }

    fn log(&mut self, text: &str) {
        let at = self.state.log.written.load(SeqCst) as usize;
        for (i, byte) in text.bytes().enumerate() {
            self.page.log.data[(at + i) % boundary::RING] = byte;
        }
        self.state.log.written.store((at + text.len()) as u32, SeqCst);
        self.ring(bell::LOG);
    }

    fn end(&self) -> ! {
        self.state.vcpu_state.store(vcpu_state::ENDED, SeqCst);
        loop {
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
    }

    fn obey(&mut self, word: &str) {
        let (order, value) = word.split_once('=').unwrap_or((word, ""));
        match order {
            "print" => self.print(value.replace('~', "\n").as_bytes()),
            "flood" => self.print(&vec![b'f'; value.parse().unwrap()]),
            "log" => self.log(&format!("{value}\n")),
            "sleep" => std::thread::sleep(std::time::Duration::from_millis(value.parse().unwrap())),
            "shutdown" => {
                self.state.shutdown_reason.store(value.parse().unwrap(), SeqCst);
                self.ring(bell::SHUTDOWN);
                self.end();
            }
            "crash" => {
                self.page.crash.reason[..value.len()].copy_from_slice(value.as_bytes());
                self.page.crash.rip = 0xffff_ffff_8100_0010;
                self.page.crash.regs[0] = 0x1234;
                self.page.crash.blocks[63] = 0xffff_ffff_8100_0000;
                self.ring(bell::CRASH);
                self.end();
            }
            "echo" => loop {
                if self.block() & inbox::CONSOLE != 0 {
                    let text = self.read_console();
                    self.print(&text);
                    if text.ends_with(value.as_bytes()) {
                        return;
                    }
                }
            },
            "block" => loop {
                self.block();
            },
            "spin" => loop {
                std::hint::spin_loop();
                if INTERRUPTS.load(SeqCst) > 0 {
                    self.print(b"interrupted\n");
                    return;
                }
            },
            "exit" => std::process::exit(value.parse().unwrap()),
            "die" => unsafe {
                raise(value.parse().unwrap());
            },
            "lie" => {
                // Claims that somebody else runs the vCPU.
                self.state.active_pid.store(value.parse().unwrap(), SeqCst);
            }
            "nonsense" => {
                self.console_word(3).store(0xdead_beef, SeqCst);
                self.console_word(0).store(0x1234_5678, SeqCst);
                self.ring(u32::MAX & !(bell::SHUTDOWN | bell::CRASH));
            }
            "descriptors" => {
                let open: Vec<i32> = (0..4096).filter(|fd| unsafe { fcntl(*fd, 1) } >= 0).collect();
                self.print(format!("descriptors {open:?}\n").as_bytes());
            }
            "root" => {
                let entries = std::fs::read_dir("/").map(|entries| entries.count());
                let uid = unsafe { syscall(107) };
                self.print(format!("root {entries:?} euid {uid}\n").as_bytes());
            }
            _ => {}
        }
    }
}

fn main() {
    let page: *mut DomainPage = map(boundary::fd::ARENA, boundary::DOMAIN_PAGE_SIZE).cast();
    let (page, state) = unsafe { (&mut *page, &*page) };
    assert_eq!(state.magic, boundary::MAGIC);
    let ram = map(boundary::fd::RAM, state.setup.nr_frames * PAGE);
    let mut guest = Guest { ram, page, state };
    unsafe { signal(10, count) };
    state.active_pid.store(unsafe { getpid() }, SeqCst);
    state.vcpu_state.store(vcpu_state::RUNNING, SeqCst);
    for word in guest.command_line().split_whitespace() {
        guest.obey(word);
    }
    guest.end();
}
