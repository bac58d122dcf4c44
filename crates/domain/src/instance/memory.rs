//! The guest's memory as tools change and read it.

use super::Instance;
use super::requests::PAGES_PER_MIB;
use crate::server::Answer;
use boundary::{CrashRecord, inbox};
use control::{ErrorCode, Failure, MemoryImage, Record, Registers, Response, kill_point};
use std::mem::offset_of;
use std::time::{Duration, Instant};

/// How long a running guest may take to tell its registers.
const PATIENCE: Duration = Duration::from_millis(200);

impl Instance {
    /// Refuses sizes that the domain cannot have.
    fn check_size(&self, mib: u64) -> Result<(), Failure> {
        let most = self.spec.config().memory.maximum;
        if mib > 0 && mib <= most {
            return Ok(());
        }
        let message = format!("{mib} MiB is not possible: the most is maxmem = {most} MiB");
        Err(Failure::new(ErrorCode::Memory, message)
            .with_hint("A larger 'maxmem' in its configuration holds from its next start on."))
    }

    /// Asks the guest's balloon driver to come to that size.
    pub(super) fn set_memory(&mut self, mib: u64) -> Answer {
        match self.check_size(mib) {
            Ok(()) => self.store_order(|store| store.set_memory(mib)),
            Err(failure) => Err(failure).into(),
        }
    }

    /// Limits what the guest may have from now on. What it has already stays with it.
    pub(super) fn limit_memory(&mut self, mib: u64) -> Result<(), Failure> {
        self.check_running()?;
        self.check_size(mib)?;
        self.guest.page().limit(mib.saturating_mul(PAGES_PER_MIB));
        self.log.write(Record::info(format!("at most {mib} MiB of memory from now on")));
        Ok(())
    }

    /// A descriptor of the guest's RAM, for reading.
    pub(super) fn hand_out_memory(&mut self) -> Answer {
        let setup = self.guest.memory.setup;
        match self.guest.memory.ram.open_for_reading() {
            Ok(file) => {
                let image = MemoryImage {
                    frames: setup.max_pages,
                    shared_info: setup.shared_info_mfn,
                    registers: self.registers(),
                    stopped: self.stopped.is_some() || self.paused,
                };
                kill_point("xendomain.memory-opened");
                Answer::Descriptor(Response::Memory(Box::new(image)), file)
            }
            Err(error) => {
                let message = format!("The domain's memory cannot be opened: {error}");
                Err(Failure::new(ErrorCode::Host, message)).into()
            }
        }
    }

    /// The guest's registers: those of its end, or those that it tells now. A paused guest cannot
    /// tell any.
    pub(super) fn registers(&mut self) -> Option<Registers> {
        if self.stopped.is_some() {
            // A record with a reason is that of the end.
            let record = self.guest.page().crash_record();
            return record.first().is_some_and(|byte| *byte != 0).then(|| registers(&record));
        }
        if self.paused {
            return None;
        }
        let before = self.guest.page().snapshots();
        self.guest.page().post(inbox::REGISTERS);
        let end = Instant::now() + PATIENCE;
        while self.guest.page().snapshots() == before {
            if Instant::now() >= end {
                return None;
            }
            self.guest.interrupt();
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(registers(&self.guest.page().crash_record()))
    }

    /// Writes the registers into the log.
    pub(super) fn log_registers(&mut self) -> Result<(), Failure> {
        let name = &self.registration.entry().name;
        let failure = Failure::new(ErrorCode::WrongState, "The guest does not tell its registers")
            .with_hint(format!("'xm unpause {name}' lets a paused guest run."));
        let r = self.registers().ok_or(failure)?;
        let mode = if r.kernel { "kernel" } else { "program" };
        self.log.write(Record::info(format!(
            "vCPU 0 in {mode} mode: rip {:016x} rflags {:08x} cr2 {:016x} cr3 frame {:x}",
            r.rip, r.rflags, r.cr2, r.root
        )));
        let names = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11",
            "r12", "r13", "r14", "r15",
        ];
        let values: Vec<String> = names
            .iter()
            .zip(r.general)
            .map(|(name, value)| format!("{name} {value:016x}"))
            .collect();
        for line in values.chunks(4) {
            self.log.write(Record::info(line.join(" ")));
        }
        Ok(())
    }
}

/// The registers in a crash record, which is hostile input.
fn registers(record: &[u8]) -> Registers {
    let word = |offset: usize| {
        let bytes = record.get(offset..).and_then(|rest| rest.first_chunk::<8>());
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    };
    let mut general = [0; 16];
    for (at, register) in general.iter_mut().enumerate() {
        *register = word(offset_of!(CrashRecord, regs) + 8 * at);
    }
    Registers {
        general,
        rip: word(offset_of!(CrashRecord, rip)),
        rflags: word(offset_of!(CrashRecord, rflags)),
        kernel: word(offset_of!(CrashRecord, kernel)) != 0,
        cr2: word(offset_of!(CrashRecord, cr2)),
        root: word(offset_of!(CrashRecord, cr3_mfn)),
    }
}
