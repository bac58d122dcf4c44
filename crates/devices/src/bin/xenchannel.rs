//! `xenchannel`: the backend of a domain's channels, started by its domain process, which hands it the
//! descriptors of `boundary::backend_fd`.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use boundary::Backend;
use devices::channel::Server;
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xenchannel: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let Some((orders, guest)) = devices::start::begin(Backend::Channel)? else { return Ok(()) };
    let mut server = Server::new(orders, guest);
    server.close_jail()?;
    server.run()
}
