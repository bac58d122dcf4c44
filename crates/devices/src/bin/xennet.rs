//! `xennet`: the network backend of a domain, started by its domain process, which hands it the
//! descriptors of `boundary::backend_fd`.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use boundary::Backend;
use devices::net::Server;
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xennet: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let Some((orders, guest)) = devices::start::begin(Backend::Net)? else { return Ok(()) };
    let mut server = Server::new(orders, guest);
    server.close_jail()?;
    server.run()
}
