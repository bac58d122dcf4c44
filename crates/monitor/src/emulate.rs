//! Instructions that translated code leaves to the monitor, and those of user
//! code that raise #GP on the host.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use abi::trap as t;

use crate::{
    event,
    gate::context,
    guest::{fold, is_canonical, unfold},
    proven::Masked,
    state::{Fault, Monitor},
    trap::in_user_mode,
};

/// `ud2` and "xen": the prefix that makes CPUID Xen's own (arch-x86/xen.h XEN_EMULATE_PREFIX).
const XEN_PREFIX: [u8; 5] = [0x0f, 0x0b, 0x78, 0x65, 0x6e];

/// CR0 as a guest sees it: PE, MP, ET, NE, WP, AM, PG.
const CR0: u64 = 0x8005_0033;
/// CR0.TS.
const CR0_TS: u64 = 8;
/// CR4 as a guest sees it: PAE, OSFXSR, OSXMMEXCPT, and OSXSAVE where it has XSAVE.
const CR4: u64 = 0x620;
const CR4_OSXSAVE: u64 = 0x4_0000;

/// Model-specific registers with a value (SDM vol. 4).
mod msr {
    pub const APIC_BASE: u32 = 0x1b;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const PAT: u32 = 0x277;
    pub const EFER: u32 = 0xc000_0080;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
}

/// Does the instruction fault with #GP(0) in user mode for what it is?
fn privileged(ins: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(
        ins.mnemonic(),
        Ud0 | Ud1 | Ud2 | Rdpkru | Wrpkru | Xsaves | Xsaves64 | Xrstors | Xrstors64
    )
}

fn is_xen_cpuid(bytes: &[u8; 15]) -> bool {
    bytes[..5] == XEN_PREFIX && bytes[5..7] == [0x0f, 0xa2]
}

const GP: Fault = Fault::Vector { vector: 13, code: Some(0) };
const UD: Fault = Fault::Vector { vector: 6, code: None };

impl Monitor {
    /// Emulates the instruction at `vcpu.rip`.
    pub fn emulate(&mut self) {
        let rip = self.vcpu.rip;
        let (bytes, n) = self.fetch(rip);
        if is_xen_cpuid(&bytes) {
            self.do_cpuid();
            self.vcpu.rip = rip.wrapping_add(7);
            return;
        }
        let ins =
            Decoder::with_ip(64, bytes.get(..n).unwrap_or_default(), rip, DecoderOptions::NONE)
                .decode();
        let next = ins.next_ip();
        let outcome = if ins.is_invalid() {
            Err(UD)
        } else if in_user_mode() && self.must_not_be_cached(&ins) {
            self.vcpu.alone = Some(rip);
            return;
        } else if in_user_mode() {
            self.emulate_user(&ins)
        } else {
            self.emulate_kernel(&ins)
        };
        match outcome {
            Ok(Some(target)) => self.vcpu.rip = target,
            Ok(None) => self.vcpu.rip = next,
            Err(f @ Fault::Vector { vector: 3, .. }) => {
                self.vcpu.rip = next;
                self.inject(f);
            }
            Err(f) => self.inject(f),
        }
    }

    /// An instruction of a program that is not translated only because of its bytes?
    fn must_not_be_cached(&self, ins: &Instruction) -> bool {
        use Mnemonic::{Wrpkru, Xrstor, Xrstor64};
        self.code.avoided.contains(&ins.ip())
            && !matches!(ins.mnemonic(), Xrstor | Xrstor64 | Wrpkru)
    }

    /// Is there a CPUID with Xen's prefix?
    pub fn is_xen_cpuid(&mut self, rip: u64) -> bool {
        let (bytes, _) = self.fetch(rip);
        is_xen_cpuid(&bytes)
    }

    /// The bytes of an instruction, as many as are mapped.
    pub(crate) fn fetch(&mut self, rip: u64) -> ([u8; 15], usize) {
        let mut bytes = [0u8; 15];
        let here = (0x1000 - (rip & 0xfff) as usize).min(bytes.len());
        let (first, second) = bytes.split_at_mut(here);
        if self.read(rip, first).is_err() {
            return (bytes, 0);
        }
        let next = rip.wrapping_add(here as u64);
        let n = if second.is_empty() || self.read(next, second).is_err() { here } else { 15 };
        (bytes, n)
    }

    /// `Ok(None)`: go on after it; `Ok(Some(rip))`: there.
    fn emulate_user(&mut self, ins: &Instruction) -> Result<Option<u64>, Fault> {
        use Mnemonic::*;
        match ins.mnemonic() {
            Cpuid => {
                self.do_cpuid();
                Ok(None)
            }
            // Runners execute it themselves: there it was refused.
            Xrstor | Xrstor64 if !self.is_separate() => self.restore_state(ins),
            // The rest is for translated user code: run directly, these do not fault.
            Xgetbv if self.translates_user() => {
                self.xgetbv()?;
                Ok(None)
            }
            Mov if self.translates_user() && ins.op0_kind() == OpKind::Register => {
                let selector = match ins.op1_register() {
                    Register::CS => t::USER_CS,
                    Register::SS => t::USER_SS,
                    r if r.is_segment_register() => 0,
                    _ => return Err(GP),
                };
                let n = ins.op0_register().full_register().number();
                let to = context().regs.at_mut(n);
                let kept = if ins.op0_register().size() == 2 { *to & !0xffff } else { 0 };
                *to = kept | selector;
                Ok(None)
            }
            Int3 => Err(Fault::Vector { vector: 3, code: None }),
            Int => Err(self.software_interrupt(ins.immediate8(), ins.next_ip())),
            // Where it ran directly the processor told the error code.
            _ if !self.translates_user() && !privileged(ins) => {
                Err(Fault::Vector { vector: 13, code: Some(context().argument as u32) })
            }
            Ud0 | Ud1 | Ud2 | Rdpkru | Wrpkru | Xsaves | Xsaves64 | Xrstors | Xrstors64 => Err(UD),
            _ => Err(GP),
        }
    }

    /// INT n of user code: its handler if it may, else #GP with the IDT index.
    fn software_interrupt(&mut self, vector: u8, next: u64) -> Fault {
        let trap = *self.vcpu.traps.at(vector.into());
        if trap.flags & 3 == 3 && trap.address != 0 {
            self.vcpu.rip = next;
            return Fault::Vector { vector, code: None };
        }
        Fault::Vector { vector: 13, code: Some(u32::from(vector) << 3 | 2) }
    }

    fn emulate_kernel(&mut self, ins: &Instruction) -> Result<Option<u64>, Fault> {
        use Mnemonic::*;
        let c = context();
        if matches!(ins.mnemonic(), Xrstor | Xrstor64) && !self.is_separate() {
            return self.restore_state(ins);
        }
        if self.code.avoided.contains(&ins.ip()) {
            return self.run_immediate(ins);
        }
        let memory = (0..ins.op_count()).any(|i| ins.op_kind(i) == OpKind::Memory);
        if memory && self.code.user_access.contains(&ins.ip()) {
            return self.run_aliased(ins);
        }
        match ins.mnemonic() {
            Cpuid => self.do_cpuid(),
            Int3 => return Err(Fault::Vector { vector: 3, code: None }),
            Int1 => return Err(Fault::Vector { vector: 1, code: None }),
            Ud0 | Ud1 | Ud2 => return Err(UD),
            Rdmsr => self.rdmsr(),
            Wrmsr => self.wrmsr()?,
            Xgetbv => self.xgetbv()?,
            // XCR0 is what it is; Linux writes back what CPUID offers.
            Xsetbv | Wbinvd | Wbnoinvd | Invd | Clts | Stac | Clac | Lmsw | Lgdt | Lidt | Lldt
            | Ltr | Invlpg => {}
            // IN and OUT are translated.
            Insb | Insw | Insd | Outsb | Outsw | Outsd => {}
            Cli => event::set_masked(true),
            Sti => event::set_masked(false),
            Hlt => {
                event::set_masked(false);
                self.vcpu.rip = ins.next_ip();
                self.idle();
            }
            Iretq => return self.native_iret(),
            Retf => {
                let sp = self.guest_rsp();
                let target: u64 = self.stack_word(sp)?;
                c.regs[4] = fold(sp.wrapping_add(16));
                return Ok(Some(target));
            }
            Push => self.push_segment()?,
            Pop => c.regs[4] = c.regs[4].wrapping_add(8),
            Mov => self.system_move(ins)?,
            Rdpmc => (c.regs[0], c.regs[2]) = (0, 0),
            Rdfsbase | Rdgsbase | Wrfsbase | Wrgsbase => self.base_move(ins)?,
            Sgdt | Sidt | Sldt | Str | Smsw => self.store_table(ins)?,
            Lar | Lsl => self.look_at_segment(ins)?,
            Swapgs => {
                core::mem::swap(&mut self.vcpu.gs_kernel, &mut self.vcpu.gs_user);
            }
            Prefetchw | Clflush | Clflushopt | Clwb | Nop => {}
            _ if crate::string::is_handled(ins) => return self.run_string(ins),
            _ => return self.not_emulated(ins),
        }
        Ok(None)
    }

    /// What the guest kernel does is beyond what is emulated.
    fn not_emulated(&mut self, ins: &Instruction) -> Result<Option<u64>, Fault> {
        let code = ins.code();
        self.complain_once(
            1 << 63 | code as u64,
            format_args!(
                "instruction {code:?} at {:#x} of the guest kernel is not emulated",
                ins.ip()
            ),
        );
        Err(UD)
    }

    fn stack_word(&mut self, sp: u64) -> Result<u64, Fault> {
        self.read_value(sp).map_err(|_| Fault::Page { address: sp, code: 0 })
    }

    /// IRETQ of the kernel: Linux serialises with it (`sync_core`).
    fn native_iret(&mut self) -> Result<Option<u64>, Fault> {
        let sp = self.guest_rsp();
        let f: [u64; 5] = self.read_value(sp).map_err(|_| Fault::Page { address: sp, code: 0 })?;
        let selector = f[1] & 0xffff;
        let user = selector & 3 == 3 && selector != t::KERNEL_CS_RING3;
        let c = context();
        if user {
            self.return_to(true, f[0], f[2], f[3]);
            return Ok(Some(f[0]));
        }
        // Interrupts are Xen's business: IF of a native IRETQ does nothing.
        c.rflags = f[2] & 0x20_0cd5 | 0x202;
        c.regs[4] = fold(f[3]);
        Ok(Some(f[0]))
    }

    /// PUSH of a segment register.
    fn push_segment(&mut self) -> Result<(), Fault> {
        let sp = self.guest_rsp().wrapping_sub(8);
        self.write_value(sp, &0u64).map_err(|_| Fault::Page { address: sp, code: 2 })?;
        context().regs[4] = fold(sp);
        Ok(())
    }

    /// XGETBV: the guest's XCR0 whichever is asked for.
    fn xgetbv(&mut self) -> Result<(), Fault> {
        let c = context();
        if !crate::cpuid::guest_has_xsave() {
            return Err(UD);
        }
        if c.regs[1] as u32 > 1 {
            return Err(GP);
        }
        let value = crate::cpuid::guest_xcr0();
        (c.regs[0], c.regs[2]) = (value & 0xffff_ffff, value >> 32);
        Ok(())
    }

    fn rdmsr(&mut self) {
        let c = context();
        let n = c.regs[1] as u32;
        let value = match n {
            msr::EFER => 0xd01,
            msr::FS_BASE => self.vcpu.fs_user,
            msr::GS_BASE => self.vcpu.gs_kernel,
            msr::KERNEL_GS_BASE => self.vcpu.gs_user,
            msr::APIC_BASE => 0xfee0_0900,
            msr::MISC_ENABLE => 1,
            msr::PAT => 0x0007_0406_0007_0406,
            _ => 0,
        };
        (c.regs[0], c.regs[2]) = (value & 0xffff_ffff, value >> 32);
    }

    fn wrmsr(&mut self) -> Result<(), Fault> {
        let c = context();
        let value = c.regs[0] & 0xffff_ffff | c.regs[2] << 32;
        let n = c.regs[1] as u32;
        if (msr::FS_BASE..=msr::KERNEL_GS_BASE).contains(&n) && !is_canonical(value) {
            return Err(GP);
        }
        match n {
            msr::FS_BASE => self.vcpu.fs_user = value,
            msr::GS_BASE => self.vcpu.gs_kernel = value,
            msr::KERNEL_GS_BASE => self.vcpu.gs_user = value,
            _ => {}
        }
        Ok(())
    }

    fn base_move(&mut self, ins: &Instruction) -> Result<(), Fault> {
        let c = context();
        let wide = ins.op0_register().size() == 8;
        let register = c.regs.at_mut(ins.op0_register().full_register().number());
        let base = match ins.mnemonic() {
            Mnemonic::Rdfsbase | Mnemonic::Wrfsbase => &mut self.vcpu.fs_user,
            _ => &mut self.vcpu.gs_kernel,
        };
        if matches!(ins.mnemonic(), Mnemonic::Rdfsbase | Mnemonic::Rdgsbase) {
            *register = if wide { *base } else { *base & 0xffff_ffff };
            return Ok(());
        }
        let value = if wide { *register } else { *register & 0xffff_ffff };
        if !is_canonical(value) {
            return Err(GP);
        }
        *base = value;
        Ok(())
    }

    /// Guest value of a register, RSP unfolded.
    pub(crate) fn register(&self, r: Register) -> u64 {
        let n = r.full_register().number();
        let v = *context().regs.at(n);
        let v = if n == 4 && !in_user_mode() { unfold(v) } else { v };
        match r.size() {
            8 => v,
            4 => v & 0xffff_ffff,
            2 => v & 0xffff,
            _ if matches!(r, Register::AH | Register::BH | Register::CH | Register::DH) => {
                v >> 8 & 0xff
            }
            _ => v & 0xff,
        }
    }

    /// Address of the memory operand.
    pub(crate) fn operand_address(&self, ins: &Instruction) -> u64 {
        let operand = (0..ins.op_count()).find(|i| ins.op_kind(*i) == OpKind::Memory).unwrap_or(0);
        ins.virtual_address(operand, 0, |r, _, _| {
            Some(match r {
                Register::GS if in_user_mode() => self.vcpu.gs_user,
                Register::GS => self.vcpu.gs_kernel,
                Register::FS => self.vcpu.fs_user,
                r if r.is_segment_register() => 0,
                r => self.register(r),
            })
        })
        .unwrap_or(0)
    }

    /// MOV to or from segment, control and debug registers.
    fn system_move(&mut self, ins: &Instruction) -> Result<(), Fault> {
        let c = context();
        let to_register = ins.op0_kind() == OpKind::Register;
        let source =
            if ins.op1_kind() == OpKind::Register { ins.op1_register() } else { Register::None };
        if to_register && ins.op0_register().is_segment_register() {
            // Flat segments: loading a null FS selector clears the base.
            if ins.op0_register() == Register::FS {
                self.vcpu.fs_user = 0;
            }
            return Ok(());
        }
        if source.is_segment_register() {
            let value: u16 = match source {
                Register::CS => t::KERNEL_CS_RING3 as u16,
                Register::SS => t::KERNEL_SS as u16,
                _ => 0,
            };
            if to_register {
                let n = ins.op0_register().full_register().number();
                let to = c.regs.at_mut(n);
                let old = if ins.op0_register().size() == 2 { *to & !0xffff } else { 0 };
                *to = old | u64::from(value);
                return Ok(());
            }
            let va = self.operand_address(ins);
            return self.write_value(va, &value).map_err(|_| Fault::Page { address: va, code: 2 });
        }
        if source.is_cr() {
            let value = match source {
                Register::CR0 => CR0 | if self.vcpu.task_switched { CR0_TS } else { 0 },
                Register::CR2 => event::cr2(),
                Register::CR3 => u64::from(self.vcpu.kernel_root) << 12,
                Register::CR4 if crate::cpuid::guest_has_xsave() => CR4 | CR4_OSXSAVE,
                Register::CR4 => CR4,
                _ => 0,
            };
            *c.regs.at_mut(ins.op0_register().number()) = value;
            return Ok(());
        }
        if source.is_dr() {
            *c.regs.at_mut(ins.op0_register().number()) = *self.vcpu.debug.at(source.number());
            return Ok(());
        }
        if to_register && (ins.op0_register().is_cr() || ins.op0_register().is_dr()) {
            return Ok(());
        }
        self.not_emulated(ins).map(|_| ())
    }

    /// SGDT, SIDT, SLDT, STR, SMSW: nothing of the host shows.
    fn store_table(&mut self, ins: &Instruction) -> Result<(), Fault> {
        let value = if ins.mnemonic() == Mnemonic::Smsw { CR0 & 0xffff } else { 0 };
        if ins.op0_kind() == OpKind::Register {
            *context().regs.at_mut(ins.op0_register().full_register().number()) = value;
            return Ok(());
        }
        let va = self.operand_address(ins);
        let len = if matches!(ins.code(), Code::Sgdt_m1664 | Code::Sidt_m1664) { 10 } else { 2 };
        let mut bytes = [0u8; 10];
        bytes[..8].copy_from_slice(&value.to_le_bytes());
        self.write(va, bytes.get(..len).unwrap_or_default())
            .map_err(|_| Fault::Page { address: va, code: 2 })
    }
}
