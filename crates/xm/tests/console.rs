//! The console on a pseudo-terminal and on pipes: bytes pass, and the terminal is always restored.

mod rig;

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};

use rig::{Host, Pty, drain, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// `xm console serv1` on `pty`, up to the point where the terminal is raw.
fn attach(host: &Host, pty: &Pty) -> Child {
    let before = pty.settings();
    let child = host
        .xm()
        .args(["console", "serv1"])
        .stdin(pty.stdio())
        .stdout(pty.stdio())
        .stderr(pty.stdio())
        .spawn()
        .unwrap();
    eventually("raw mode", || pty.settings() != before);
    child
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn history_output_input_and_the_escape() {
    let host = Host::new();
    let domain = host.domain("serv1", true);
    let pty = Pty::open();
    let before = pty.settings();
    let mut child = attach(&host, &pty);
    let mut guest = domain.console();
    let screen = pty.until("boot\r\n");
    assert!(screen.contains("Connected to serv1. Leave with Ctrl+] (Ctrl+5)."), "{screen}");
    guest.write_all(b"login: ").unwrap();
    pty.until("login: ");
    pty.type_in(b"root\x1d\x03");
    let mut typed = [0; 6];
    guest.read_exact(&mut typed).unwrap();
    assert_eq!(&typed, b"root\x1d\x03", "neither an escape among others nor ^C is ours");
    pty.type_in(b"\x1d");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(pty.settings(), before);
    assert!(pty.until("goes on").contains("Left serv1"));
}

#[test]
fn the_end_of_the_domain_is_a_normal_end() {
    let host = Host::new();
    let mut domain = host.domain("serv1", true);
    let pty = Pty::open();
    let before = pty.settings();
    let mut child = attach(&host, &pty);
    let mut guest = domain.console();
    guest.write_all(b"reboot: Power down").unwrap();
    domain.end();
    drop(guest);
    pty.until("Domain serv1 has ended.");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(pty.settings(), before);
}

#[test]
fn signals_restore_the_terminal_and_are_then_obeyed() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let host = Host::new();
        let domain = host.domain("serv1", true);
        let pty = Pty::open();
        let before = pty.settings();
        let mut child = attach(&host, &pty);
        let _guest = domain.console();
        pty.until("boot");
        send(&child, signal);
        assert_eq!(child.wait().unwrap().signal(), Some(signal.as_raw()));
        assert_eq!(pty.settings(), before);
    }
}

#[test]
fn sigkill_restores_the_terminal_too() {
    for _ in 0..5 {
        let host = Host::new();
        let domain = host.domain("serv1", true);
        let pty = Pty::open();
        let before = pty.settings();
        let mut child = attach(&host, &pty);
        let _guest = domain.console();
        send(&child, Signal::KILL);
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
        eventually("the restoration", || pty.settings() == before);
    }
}

#[test]
fn a_stop_gives_the_terminal_back_for_a_while() {
    let host = Host::new();
    let domain = host.domain("serv1", true);
    let pty = Pty::open();
    let before = pty.settings();
    let mut child = attach(&host, &pty);
    let raw = pty.settings();
    let mut guest = domain.console();
    pty.until("boot");
    send(&child, Signal::TSTP);
    eventually("the stop", || pty.settings() == before);
    send(&child, Signal::CONT);
    eventually("raw mode again", || pty.settings() == raw);
    guest.write_all(b"still here").unwrap();
    pty.until("still here");
    pty.type_in(b"\x1d");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_terminal_that_goes_away_ends_it() {
    let host = Host::new();
    let domain = host.domain("serv1", true);
    let pty = Pty::open();
    let mut child = attach(&host, &pty);
    let mut guest = domain.console();
    drop(pty);
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::HUP.as_raw()));
    assert_eq!(guest.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_second_console_is_told_that_it_only_reads() {
    let host = Host::new();
    let domain = host.domain("serv1", false);
    let pty = Pty::open();
    let mut child = attach(&host, &pty);
    let mut guest = domain.console();
    let screen = pty.until("boot");
    assert!(screen.contains("does not reach it"), "{screen}");
    pty.type_in(b"halt\r");
    guest.write_all(b"#").unwrap();
    pty.until("#");
    pty.type_in(b"\x1d");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut typed = Vec::new();
    guest.read_to_end(&mut typed).unwrap();
    assert_eq!(typed, b"");
}

#[test]
fn on_pipes_it_relays_until_the_domain_ends() {
    let host = Host::new();
    let mut domain = host.domain("serv1", true);
    let mut child = host.xm().args(["console", "serv1"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = drain(child.stdout.take().unwrap());
    let notes = drain(child.stderr.take().unwrap());
    let mut guest = domain.console();
    input.write_all(b"uname\n").unwrap();
    drop(input);
    let mut typed = [0; 6];
    guest.read_exact(&mut typed).unwrap();
    assert_eq!(&typed, b"uname\n");
    guest.write_all(b"Linux\n").unwrap();
    domain.end();
    drop(guest);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(output.join().unwrap(), "[    0.0] boot\r\nLinux\n");
    assert_eq!(notes.join().unwrap(), "Domain serv1 has ended.\n");
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let host = Host::new();
    let domain = host.domain("serv1", true);
    let mut child = host.xm().args(["console", "serv1"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let notes = drain(child.stderr.take().unwrap());
    let mut guest = domain.console();
    output.read_exact(&mut [0; 4]).unwrap();
    drop(output);
    drop(guest.write_all(b"more"));
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::PIPE.as_raw()));
    assert_eq!(notes.join().unwrap(), "");
}

#[test]
fn missing_domains_and_consoles() {
    let host = Host::new();
    let output = host.run(&["console", "ghost"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Domain 'ghost' does not exist."));
    let output = host.run(&["console", "-q", "ghost"]);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(1), 0));
    let output = host.run(&["console", "Domain-0"]);
    assert_eq!(output.status.code(), Some(1));
}
