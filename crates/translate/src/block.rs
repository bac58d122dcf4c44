//! One block: guest instructions from an address on, translated until control
//! leaves for certain or space, page or limit end it.

use crate::control::{Flow, Unsupported};
use crate::emit::Emitter;
use crate::layout::{Layout, Memory};
use crate::lookup::{PROLOGUE, emit_prologue};
use crate::output::{Entry, Fix, MAX_ENTRIES, MAX_INSTRUCTIONS, MAX_LINKS, Output};
use crate::sensitive::{Class, classify};
use crate::stack::{LOOKAHEAD, uses_stack_pointer};
use crate::state::{is_masked, is_restore, uses_state};
use crate::string::is_pointer_instruction;
use crate::{Mode, Targets, UserMemory};
use iced_x86::{
    Code, Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory,
    Mnemonic,
};

/// Room kept for one more instruction and the block's closing jump.
const CODE_ROOM: usize = 1024;
/// Room for the stubs of one more instruction and the closing jump.
const STUB_ROOM: usize = 3 * 48;
const ENTRY_ROOM: usize = 8;
const LINK_ROOM: usize = 3;

/// Entry and link offsets have 16 bits.
const MOST_BYTES: usize = 0xffff;

/// Guest bytes that are looked at, at most: those of a block and of what may follow it.
pub const MOST_CODE: usize = (MAX_INSTRUCTIONS + LOOKAHEAD) * LONGEST;
/// Bytes of the longest instruction (SDM vol. 2 2.3.11).
const LONGEST: usize = 15;

/// What to translate.
pub struct Request<'a> {
    /// Mode of the code.
    pub mode: Mode,
    /// Guest address of the first instruction.
    pub va: u64,
    /// Guest bytes from `va` on: [`MOST_CODE`], or to the end of its page or,
    /// when the caller joined the next page, 16 bytes of that more.
    pub code: &'a [u8],
    /// How many of `code` lie on the page of `va`.
    pub page_bytes: usize,
    /// Host address the code will run at.
    pub code_host: u64,
    /// Host address its exit stubs will run at, within 2 GiB of the code.
    pub stub_host: u64,
    /// Link `i` leaves with `context.argument` = `first_tag + i`.
    pub first_tag: u64,
    /// Kernel mode: whether the instruction at a guest address is known to
    /// access user memory.
    pub user_access: &'a dyn Fn(u64) -> bool,
    /// Kernel mode: how those instructions reach it.
    pub user_memory: UserMemory,
    /// Leave to [`Targets::exit_state`] before the first instruction that uses
    /// vector registers or the like, if [`crate::Context::state_away`] says so.
    pub state_may_be_away: bool,
    /// XRSTOR goes to the monitor: the code can be executed by who must not load
    /// PKRU, with any mask.
    pub restores_elsewhere: bool,
    /// Whether the instruction at this address goes to the monitor.
    pub avoid: &'a dyn Fn(u64) -> bool,
    /// Most instructions to take (1 for single-stepping guests).
    pub limit: usize,
}

/// Why there is no translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The first instruction reaches into the next page: join it.
    NeedNextPage,
    /// The buffers are too small for a single instruction.
    NoSpace,
    /// A target or the stubs are more than 2 GiB away from the code.
    OutOfReach,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Error::NeedNextPage => "First instruction reaches into the next page: join it",
            Error::NoSpace => "Code or stub buffer too small for one instruction",
            Error::OutOfReach => "Translated code and its targets lie more than 2 GiB apart",
        })
    }
}

impl core::error::Error for Error {}

/// Translates blocks for one set of [`Targets`].
pub struct Translator {
    targets: Targets,
    info: InstructionInfoFactory,
}

impl Translator {
    /// A translator for code that leaves to `targets`.
    #[must_use]
    pub fn new(targets: Targets) -> Translator {
        Translator { targets, info: InstructionInfoFactory::new() }
    }

    /// Translates one block into `code` and its exit stubs into `stubs`.
    ///
    /// # Errors
    /// See [`Error`]. `out` means nothing then.
    pub fn translate(
        &mut self,
        request: &Request,
        code: &mut [u8],
        stubs: &mut [u8],
        out: &mut Output,
    ) -> Result<(), Error> {
        out.clear();
        let context = self.targets.context_of(request.mode);
        let (code_len, stub_len) = (code.len().min(MOST_BYTES), stubs.len().min(MOST_BYTES));
        let code = code.get_mut(..code_len).unwrap_or_default();
        let stubs = stubs.get_mut(..stub_len).unwrap_or_default();
        let mut builder = Builder {
            request,
            targets: &self.targets,
            code: Emitter::new(code, request.code_host, context),
            stubs: Emitter::new(stubs, request.stub_host, context),
            out,
            info: &mut self.info,
            state_is_here: false,
        };
        builder.block()
    }
}

/// A guest instruction being translated.
#[derive(Clone, Copy)]
pub(crate) struct Guest<'a> {
    pub instruction: &'a Instruction,
    pub bytes: &'a [u8],
    pub layout: Layout<'a>,
    /// Known to access user memory from kernel mode.
    pub aware: bool,
}

/// A block being built.
pub(crate) struct Builder<'a> {
    pub request: &'a Request<'a>,
    pub targets: &'a Targets,
    pub code: Emitter<'a>,
    pub stubs: Emitter<'a>,
    pub out: &'a mut Output,
    pub info: &'a mut InstructionInfoFactory,
    /// The block has made sure of it.
    pub state_is_here: bool,
}

impl Builder<'_> {
    fn block(&mut self) -> Result<(), Error> {
        emit_prologue(&mut self.code);
        debug_assert!(self.code.overflow || self.code.len() as u64 == PROLOGUE);
        let page = self.request.code.len().min(self.request.page_bytes);
        let limit = self.request.limit.clamp(1, MAX_INSTRUCTIONS);
        let (code, first) = (self.request.code, self.request.va);
        let mut instruction = Instruction::default();
        let mut decoder = Decoder::with_ip(64, code, first, DecoderOptions::NONE);
        let mut at = 0;
        let mut open = true;
        for count in 0..limit {
            if at >= page && count > 0 {
                break;
            }
            if !self.has_room() {
                if count == 0 {
                    return Err(Error::NoSpace);
                }
                break;
            }
            // Only the first instruction may reach into the next page.
            if count == 1 && code.len() > page {
                let rest = code.get(at..page).unwrap_or_default();
                let va = first.wrapping_add(at as u64);
                decoder = Decoder::with_ip(64, rest, va, DecoderOptions::NONE);
            }
            decoder.decode_out(&mut instruction);
            if decoder.last_error() == DecoderError::NoMoreBytes {
                if count > 0 {
                    break;
                }
                if code.len() <= page {
                    return Err(Error::NeedNextPage);
                }
            }
            let bytes = code.get(at..at + instruction.len()).unwrap_or_default();
            let flow = self.instruction(&instruction, bytes);
            at += instruction.len();
            if flow == Flow::End {
                open = false;
                break;
            }
        }
        if open {
            self.mark_at(at, Fix::NONE);
            self.jump_link(self.request.va.wrapping_add(at as u64));
        }
        self.finish(at)
    }

    fn finish(&mut self, guest_len: usize) -> Result<(), Error> {
        if self.code.overflow || self.stubs.overflow {
            return Err(Error::NoSpace);
        }
        if self.code.out_of_reach || self.stubs.out_of_reach {
            return Err(Error::OutOfReach);
        }
        self.out.code_len = self.code.len();
        self.out.stub_len = self.stubs.len();
        self.out.guest_len = guest_len;
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.code.room() >= CODE_ROOM
            && self.stubs.room() >= STUB_ROOM
            && self.out.entry_count + ENTRY_ROOM <= MAX_ENTRIES
            && self.out.link_count + LINK_ROOM <= MAX_LINKS
    }

    /// Translates one instruction. What has no form of its own leaves to the
    /// monitor instead, and ends the block.
    fn instruction(&mut self, instruction: &Instruction, bytes: &[u8]) -> Flow {
        let code_len = self.code.len();
        let stub_len = self.stubs.len();
        let (entries, links) = (self.out.entry_count, self.out.link_count);
        match self.translated(instruction, bytes) {
            Ok(flow) => flow,
            Err(Unsupported) => {
                self.code.truncate(code_len);
                self.stubs.truncate(stub_len);
                self.out.entry_count = entries;
                self.out.link_count = links;
                self.mark_at(self.offset_of(instruction), Fix::NONE);
                self.exit(instruction.ip(), self.targets.exit_emulate);
                Flow::End
            }
        }
    }

    fn translated(&mut self, instruction: &Instruction, bytes: &[u8]) -> Result<Flow, Unsupported> {
        if instruction.is_invalid() {
            return Err(Unsupported);
        }
        let kernel = self.request.mode == Mode::Kernel;
        let layout = Layout::new(bytes, instruction).ok_or(Unsupported)?;
        let aware =
            kernel && layout.memory != Memory::None && (self.request.user_access)(instruction.ip());
        let guest = &Guest { instruction, bytes, layout, aware };
        self.mark(guest, Fix::NONE);
        if uses_state(instruction) {
            self.need_state(guest);
        }
        match classify(instruction, self.request.mode) {
            Class::Emulate => return Err(Unsupported),
            _ if (self.request.avoid)(instruction.ip()) => return Err(Unsupported),
            Class::Drop => return Ok(Flow::Next),
            Class::Segment => self.segment_move(guest)?,
            Class::Port => self.port(instruction),
            Class::Translate if instruction.flow_control() != FlowControl::Next => {
                return self.branch(guest);
            }
            Class::Translate
                if self.request.restores_elsewhere && is_restore(instruction.mnemonic()) =>
            {
                return Err(Unsupported);
            }
            Class::Translate if is_masked(instruction.mnemonic()) => self.masked_state(guest)?,
            Class::Translate if instruction.mnemonic() == Mnemonic::Lea => {
                self.lea(guest, kernel)?;
            }
            Class::Translate if kernel => self.kernel_instruction(guest)?,
            Class::Translate => self.plain(guest)?,
        }
        Ok(Flow::Next)
    }

    fn kernel_instruction(&mut self, guest: &Guest) -> Result<(), Unsupported> {
        let instruction = guest.instruction;
        // With an operand in user memory the stack and the operand may be on
        // different sides: rare enough for the monitor.
        if guest.aware && instruction.is_stack_instruction() {
            return Err(Unsupported);
        }
        if matches!(instruction.code(), Code::Leaveq | Code::Leaved | Code::Leavew) {
            self.leave(guest)
        } else if is_pointer_instruction(instruction) {
            self.string(guest)
        } else if uses_stack_pointer(instruction) {
            self.stack_data(guest)
        } else {
            self.plain(guest)
        }
    }

    /// Adds an entry here, at the guest instruction's start.
    pub fn mark(&mut self, guest: &Guest, fix: Fix) {
        self.mark_at(self.offset_of(guest.instruction), fix);
    }

    fn mark_at(&mut self, guest: usize, fix: Fix) {
        let host = self.code.len() as u16;
        self.out.add_entry(Entry { host, guest: guest as u16, fix });
    }

    fn offset_of(&self, instruction: &Instruction) -> usize {
        instruction.ip().wrapping_sub(self.request.va) as usize
    }
}
