// Addresses that the gates name; included by the monitor and by its build script.

/// Pages of the space itself.
pub const PRIVATE: u64 = 0x5c00_1010_0000;
/// The vCPU's registers (`translate::Context`).
pub const CTX: u64 = 0x5c00_1000_0000;
/// State that only the gates and the run loop share (`gate::GateState`).
pub const GATE: u64 = CTX + 0x1000;
/// Top of the small stack on which the system-call gate saves flags.
pub const GATE_STACK: u64 = CTX + 0x3000;
/// Selector byte and entry registers (`gate::EntryPage`).
pub const ENTRY: u64 = PRIVATE;
/// Page that user mode may write: registers the system-call gate puts aside.
pub const SCRATCH: u64 = PRIVATE + 0x1000;
/// Return addresses of patched sites in this space, two words a slot.
pub const RETURNS: u64 = PRIVATE + 0x2000;
/// Continuations of addresses inside patched sites in this space.
pub const CONTINUE: u64 = PRIVATE + 0x4_2000;
/// Data of the space that only the monitor uses (`space::Local`).
pub const LOCAL: u64 = PRIVATE + 0x6_0000;
/// A runner's mailbox, in the runner itself (`runner::Mailbox`).
pub const MAILBOX: u64 = PRIVATE + 0x10_0000;
/// A runner's orders, in the runner itself (`runner::Orders`).
pub const ORDERS: u64 = PRIVATE + 0x12_0000;
/// The words that runners sleep on (`runner::Wake`).
pub const WAKES: u64 = PRIVATE + 0x14_0000;

/// What the linker defines for the gates.
pub const NAMED: [(&str, u64); 11] = [
    ("CTX", CTX),
    ("GATE", GATE),
    ("GATE_STACK", GATE_STACK),
    ("ENTRY", ENTRY),
    ("SCRATCH", SCRATCH),
    ("RETURNS", RETURNS),
    ("CONTINUE", CONTINUE),
    ("LOCAL", LOCAL),
    ("MAILBOX", MAILBOX),
    ("ORDERS", ORDERS),
    ("WAKES", WAKES),
];
