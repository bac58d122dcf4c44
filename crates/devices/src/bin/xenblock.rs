//! Serves the disks of one domain; started by `xendomain` with descriptors 3 to 7.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Has threads do what io_uring else would (for tests, and hosts where that misbehaves).
const NO_URING: &str = "XENOLITH_NO_IO_URING";

fn main() -> ExitCode {
    let means = match std::env::var_os(NO_URING) {
        Some(_) => devices::block::Means::Threads,
        None => devices::block::Means::Best,
    };
    match devices::block::serve(means) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xenblock: {error}");
            ExitCode::FAILURE
        }
    }
}
