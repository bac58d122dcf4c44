//! The CPU as the oracle: what translated code does must be what the CPU does
//! with the same instructions natively, in registers, flags, vector state,
//! memory and faults.

mod cpu;
mod generate;
mod lab;
mod place;
mod rng;
mod world;

/// The machine code of assembly lines, followed by `ud2`.
macro_rules! code {
    ($($line:expr),* $(,)?) => {{
        #[unsafe(naked)]
        extern "C" fn body() {
            core::arch::naked_asm!(".long 78f - 77f", "77:", $($line,)* "ud2", "78:")
        }
        let start = body as *const u8;
        // SAFETY: the function is data of this layout; it is never called.
        unsafe {
            let len = start.cast::<u32>().read_unaligned() as usize;
            std::slice::from_raw_parts(start.add(4), len).to_vec()
        }
    }};
}

mod basics;
mod control;
mod operands;
mod random;
mod robust;
mod sensitive;
mod stack;
mod state;
mod steps;
mod string_runs;
mod strings;
mod user_memory;
