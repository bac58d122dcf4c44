//! The console backend.

mod ring;

pub use ring::ConsoleRing;
