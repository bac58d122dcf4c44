//! What happens when a guest stops.

mod crash;
mod outcome;
mod symbols;

pub use crash::{CrashDetails, Report};
pub use outcome::{Ending, Next, decide, reason_of};
pub use symbols::Symbols;
