//! `xendomain`: the process of one domain. Started by `xm`, with a description of
//! the domain on standard input; answers with one line on standard output.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use control::{Failure, StartReply, kill_point, write_line};
use domain::instance::Instance;
use domain::spec::Spec;
use domain::sys::signals::{Signals, unblock_in};
use std::fs::OpenOptions;
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == control::PROBE_ARGUMENT) {
        let told = write_line(&mut io::stdout(), &domain::probe::probe());
        return if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (signals, instance) = match start() {
        Ok(started) => started,
        Err(failure) => {
            // Without a reader there is nobody to tell.
            let _told = write_line(&mut io::stdout(), &StartReply::Failed(failure));
            return ExitCode::FAILURE;
        }
    };
    kill_point("xendomain.started");
    let _told = write_line(&mut io::stdout(), &StartReply::Started(instance.started()));
    kill_point("xendomain.told");
    detach(&instance);
    kill_point("xendomain.detached");
    instance.run(&signals);
    ExitCode::SUCCESS
}

fn start() -> Result<(Signals, Instance), Failure> {
    kill_point("xendomain.begun");
    let spec = Spec::read(io::stdin())?;
    kill_point("xendomain.read");
    // Fails for a process group leader, which is detached enough.
    let _in_own_session = rustix::process::setsid();
    let wanted = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
    let signals = Signals::new(&wanted).map_err(|error| {
        Failure::new(control::ErrorCode::Host, format!("Cannot receive signals: {error}"))
    })?;
    control::xenstore::set_up_children(unblock_in);
    Ok((signals, Instance::start(spec)?))
}

/// Lets go of the terminal, of the tool that started us, and of its directory.
/// Messages of last resort go to the log.
fn detach(instance: &Instance) {
    let debug = std::env::var_os(domain::space::DEBUG_VARIABLE).is_some_and(|value| value == "1");
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _null_in = rustix::stdio::dup2_stdin(&null);
        let _null_out = rustix::stdio::dup2_stdout(&null);
        if !debug {
            let _null_err = rustix::stdio::dup2_stderr(&null);
        }
    }
    if !debug && let Ok(log) = OpenOptions::new().append(true).open(instance.log_path()) {
        let _log_err = rustix::stdio::dup2_stderr(&log);
    }
    let _at_root = std::env::set_current_dir("/");
}
