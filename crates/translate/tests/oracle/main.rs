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
            core::arch::naked_asm!(".long 4f - 3f", "3:", $($line,)* "ud2", "4:")
        }
        let start = body as *const u8;
        // SAFETY: the function is data of this layout; it is never called.
        unsafe {
            let len = start.cast::<u32>().read_unaligned() as usize;
            std::slice::from_raw_parts(start.add(4), len).to_vec()
        }
    }};
}
pub(crate) use code;

mod basics;
mod random;
mod stack;
mod strings;
