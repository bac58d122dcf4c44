//! `xennet`: the network backend of a domain, started by its domain process, which hands it the
//! descriptors of `boundary::backend_fd`.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use boundary::Backend;
use devices::guest::{Guest, GuestFds};
use devices::net::{Server, jail};
use devices::wire::{self, Order};
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
    let [orders, ram, arena, bell, kick] = jail::inherited()?;
    let Some((Order::Guest(layout), _)) = wire::receive(&orders)? else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the first order names no guest"));
    };
    let guest = Guest::new(layout, Backend::Net, GuestFds { ram, arena, bell, kick })?;
    let mut server = Server::new(orders, guest);
    jail::close()?;
    server.run()
}
