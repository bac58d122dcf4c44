//! What the daemon tells: events, claims, UUIDs, and its interface on standard input and output.

mod rig;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rig::{Host, eventually};
use serde_json::Value;

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stored(host: &Host, name: &str) {
    std::fs::write(host.path().join("vmlinuz"), "").unwrap();
    let text = format!("kernel = 'vmlinuz'\nname = '{name}'\nmemory = 64\n");
    std::fs::write(host.path().join("c.cfg"), text).unwrap();
    let new = host.run(&["new", "-q", "c.cfg"]);
    assert_eq!(new.status.code(), Some(0), "{}", err(&new));
}

#[test]
fn events_come_as_they_happen() {
    let host = Host::new();
    let mut monitor = host.xm().args(["event-monitor"]).spawn().unwrap();
    let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
    let mut next = || {
        let line = lines.next().unwrap().unwrap();
        // Behind the time.
        line.split_once(' ').unwrap().1.to_owned()
    };
    assert_eq!(next(), "listening");
    stored(&host, "web");
    assert_eq!(next(), "stored    web");
    let serv1 = host.domain("serv1", true);
    assert_eq!(next(), format!("up        serv1 ({})", serv1.domid));
    assert_eq!(host.run(&["pause", "serv1"]).status.code(), Some(0));
    assert_eq!(next(), format!("paused    serv1 ({})", serv1.domid));
    assert_eq!(host.run(&["delete", "web"]).status.code(), Some(0));
    assert_eq!(next(), "deleted   web");
    monitor.kill().unwrap();
    monitor.wait().unwrap();
}

#[test]
fn events_for_programs_and_only_so_many() {
    let host = Host::new();
    let mut monitor = host.xm().args(["event-monitor", "--json", "-n", "1"]).spawn().unwrap();
    let mut output = BufReader::new(monitor.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["event"], "listening");
    stored(&host, "web");
    line.clear();
    output.read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&event["event"], &event["name"]), (&"stored".into(), &"web".into()));
    assert_eq!(monitor.wait().unwrap().code(), Some(0));
}

#[test]
fn claims_are_of_those_that_run_and_of_those_that_start() {
    let host = Host::new();
    let _serv1 = host.domain("serv1", true);
    std::fs::write(host.path().join("vmlinuz"), "").unwrap();
    let text = "kernel = 'vmlinuz'\nname = 'slow'\nmemory = 64\n";
    std::fs::write(host.path().join("slow.cfg"), text).unwrap();
    let program = host.path().join("xendomain");
    std::fs::write(&program, "#!/bin/sh\ncat >/dev/null\nsleep 60\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let mut create =
        host.xm().args(["create", "slow.cfg"]).env("XENOLITH_XENDOMAIN", &program).spawn().unwrap();
    let claims = || out(&host.run(&["claims"]));
    eventually("the claim", || claims().contains("slow"));
    let table = claims();
    assert!(table.lines().next().unwrap().ends_with("\tState\tTime(s) Claimed"), "{table}");
    let row = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<String>>()
    };
    // It says nothing of what it has taken.
    assert_eq!(row("serv1")[2..4], ["128", "1"]);
    assert_eq!(row("serv1").last().unwrap(), "0");
    assert_eq!(row("slow")[1], "64");
    assert_eq!(row("slow").last().unwrap(), "64");
    let json: Value = serde_json::from_str(&out(&host.run(&["claims", "--json"]))).unwrap();
    assert_eq!((&json[1]["name"], &json[1]["claimed_mib"]), (&"slow".into(), &64.into()));
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&create),
        rustix::process::Signal::INT,
    )
    .unwrap();
    create.wait().unwrap();
    eventually("the end of the claim", || !claims().contains("slow"));
}

#[test]
fn the_interface_on_standard_input_and_output() {
    let host = Host::new();
    let _serv1 = host.domain("serv1", true);
    let mut serve = host.xm().args(["serve"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = serve.stdin.take().unwrap();
    let mut output = BufReader::new(serve.stdout.take().unwrap());
    let answer = |output: &mut BufReader<std::process::ChildStdout>| {
        let (mut line, mut length) = (String::new(), 0);
        output.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().to_owned();
        while line != "\r\n" {
            line.clear();
            output.read_line(&mut line).unwrap();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        output.read_exact(&mut body).unwrap();
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    // Several requests on one connection.
    input.write_all(b"GET /v1/domains/serv1 HTTP/1.1\r\nHost: xend\r\n\r\n").unwrap();
    assert_eq!(answer(&mut output).1["name"], "serv1");
    input.write_all(b"GET /v1/domains/ghost HTTP/1.1\r\nHost: xend\r\n\r\n").unwrap();
    assert_eq!(answer(&mut output).0, "404");
    // The last of them, as by a pipe that ends with it.
    let last = b"GET /v1/domains/serv1 HTTP/1.1\r\nHost: xend\r\nConnection: close\r\n\r\n";
    input.write_all(last).unwrap();
    drop(input);
    assert_eq!(answer(&mut output).0, "200");
    assert_eq!(serve.wait().unwrap().code(), Some(0));
}

#[test]
fn serve_ends_when_nobody_reads_any_more() {
    let host = Host::new();
    let mut serve = host.xm().args(["serve"]).stdin(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    drop(serve.stdout.take());
    serve.wait().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_shell_without_a_terminal_runs_line_by_line() {
    let host = Host::new();
    let serv1 = host.domain("serv1", true);
    let run = |lines: &str| {
        let mut shell = host.xm().args(["shell"]).stdin(Stdio::piped()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        shell.wait_with_output().unwrap()
    };
    let done = run("# a comment\n\ndomid 'serv1'\nxm domname 0\nexit\ndomid serv1\n");
    assert_eq!((out(&done), done.status.code()), (format!("{}\nDomain-0\n", serv1.domid), Some(0)));
    let done = run("domid ghost\n");
    assert_eq!(done.status.code(), Some(3));
    assert!(err(&done).starts_with("Error: Domain 'ghost' does not exist.\n"), "{}", err(&done));
    let done = run("domid 'serv1\n");
    assert_eq!(
        (err(&done).as_str(), done.status.code()),
        ("Error: The line ends within '.\n", Some(1))
    );
    assert!(err(&run("shell\n")).contains("This is xm shell already."));
}
