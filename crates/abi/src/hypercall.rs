//! Hypercall numbers (xen.h `__HYPERVISOR_*`).

/// Declares hypercall numbers with their names for logs.
macro_rules! hypercalls {
    ($($(#[$doc:meta])* $name:ident = $nr:literal;)*) => {
        $($(#[$doc])* pub const $name: u64 = $nr;)*
        /// Name of a hypercall, for messages.
        #[must_use]
        pub const fn name(nr: u64) -> &'static str {
            match nr { $($nr => stringify!($name),)* _ => "unknown" }
        }
    };
}

hypercalls! {
    /// Virtual IDT.
    SET_TRAP_TABLE = 0;
    /// Batched page-table updates.
    MMU_UPDATE = 1;
    /// Descriptor table frames.
    SET_GDT = 2;
    /// Kernel stack for exceptions from user mode.
    STACK_SWITCH = 3;
    /// Old form of callback registration.
    SET_CALLBACKS = 4;
    /// Sets or clears the virtual TS flag.
    FPU_TASKSWITCH = 5;
    /// Old scheduler operations.
    SCHED_OP_COMPAT = 6;
    /// Operations of Domain-0.
    PLATFORM_OP = 7;
    /// Writes a debug register.
    SET_DEBUGREG = 8;
    /// Reads a debug register.
    GET_DEBUGREG = 9;
    /// Writes one descriptor.
    UPDATE_DESCRIPTOR = 10;
    /// Memory reservation and maps.
    MEMORY_OP = 12;
    /// Several hypercalls at once.
    MULTICALL = 13;
    /// Writes one page-table entry by its address.
    UPDATE_VA_MAPPING = 14;
    /// One-shot timer.
    SET_TIMER_OP = 15;
    /// Old event-channel operations.
    EVENT_CHANNEL_OP_COMPAT = 16;
    /// Version and features.
    XEN_VERSION = 17;
    /// Emergency console.
    CONSOLE_IO = 18;
    /// Old physical-device operations.
    PHYSDEV_OP_COMPAT = 19;
    /// Grant tables.
    GRANT_TABLE_OP = 20;
    /// Compatibility assists.
    VM_ASSIST = 21;
    /// Page-table entry of another domain.
    UPDATE_VA_MAPPING_OTHERDOMAIN = 22;
    /// Return to user mode or to an interrupted kernel.
    IRET = 23;
    /// vCPU operations.
    VCPU_OP = 24;
    /// Segment bases.
    SET_SEGMENT_BASE = 25;
    /// Extended MMU operations.
    MMUEXT_OP = 26;
    /// Security modules.
    XSM_OP = 27;
    /// NMI callbacks.
    NMI_OP = 28;
    /// Scheduler operations.
    SCHED_OP = 29;
    /// Callback registration.
    CALLBACK_OP = 30;
    /// Profiling.
    XENOPROF_OP = 31;
    /// Event channels.
    EVENT_CHANNEL_OP = 32;
    /// Physical devices.
    PHYSDEV_OP = 33;
    /// HVM operations.
    HVM_OP = 34;
    /// Crash kernels.
    KEXEC_OP = 37;
    /// Performance counters.
    XENPMU_OP = 40;
}
