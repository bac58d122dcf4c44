//! `xenguest`: what runs inside a guest for `xm exec` and `xm cp`. Linked statically, and then called
//! by this name, it runs in any Linux guest (see `scripts/build-guest-agent`).
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use guest_agent::agent;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: xenguest [--device PATH]\n\n\
    Serves 'xm exec' and 'xm cp' of the host on the guest's channel. PATH is the channel's\n\
    terminal (default: the one that xenstore tells of, /dev/hvc1 as a rule).\n";

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    match words.split_first() {
        None => agent::run(None),
        Some((option, rest)) if option == agent::TERMINAL_OPTION => agent::run_on_terminal(rest),
        Some((option, [path])) if option == "--device" => agent::run(Some(Path::new(path))),
        Some((option, [])) if option == "--help" => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        Some(_) => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
