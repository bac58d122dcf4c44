//! The commands as a user types them: texts, streams and exit codes.

mod rig;

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use control::{Request, ShutdownKind};
use rig::{Host, Pty, eventually};
use rustix::process::{Pid, Signal, kill_process};

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A stand-in for `xendomain`, and a configuration that needs nothing.
fn with_xendomain(host: &Host, script: &str) -> PathBuf {
    let program = host.path().join("xendomain");
    std::fs::write(&program, format!("#!/bin/sh\ncd {}\n{script}\n", host.path().display()))
        .unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(host.path().join("vmlinuz"), "").unwrap();
    std::fs::write(host.path().join("serv1.cfg"), "kernel = 'vmlinuz'\nname = 'serv1'\n").unwrap();
    program
}

#[test]
fn without_a_command_or_with_a_wrong_one() {
    let host = Host::new();
    let none = host.run(&[]);
    assert_eq!(none.status.code(), Some(1));
    assert!(out(&none).starts_with("Usage: xm <subcommand> [args]"));
    let wrong = host.run(&["frobnicate"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert_eq!(err(&wrong), "Error: Subcommand frobnicate not found!\n");
    assert_eq!(out(&wrong), out(&none));
    for word in ["help", "--help", "-h"] {
        assert_eq!(host.run(&[word]).status.code(), Some(0));
    }
    assert_eq!(out(&host.run(&["help", "create"])), out(&host.run(&["help"])));
    let explained = host.run(&["cre", "--help"]);
    assert_eq!(explained.status.code(), Some(1));
    assert!(out(&explained).starts_with("Usage: xm create "));
}

#[test]
fn commands_that_are_not_there_yet_say_what_they_wait_for() {
    let host = Host::new();
    let save = host.run(&["save", "serv1", "file"]);
    assert_eq!(save.status.code(), Some(1));
    assert!(err(&save).starts_with("Error: xm save is not there yet: "), "{}", err(&save));
    let old = host.run(&["balloon", "serv1", "64"]);
    assert!(err(&old).starts_with("Command 'xm balloon' is deprecated."), "{}", err(&old));
    assert_eq!(host.run(&["vm-list"]).status.code(), Some(0), "xl's, under this name too");
}

#[test]
fn wrong_words_are_told_with_the_usage_on_standard_output() {
    let host = Host::new();
    let output = host.run(&["destroy"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(err(&output), "Error: 'xm destroy' requires 1 argument.\n");
    assert!(out(&output).starts_with("Usage: xm destroy "));
    let both = host.run(&["shutdown", "-H", "-R", "x"]);
    assert_eq!((both.status.code(), err(&both).lines().count()), (Some(1), 1));
}

#[test]
fn xl_by_its_name() {
    let host = Host::new();
    let xl = host.path().join("xl");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_xm"), &xl).unwrap();
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(&xl);
        command.args(words).env("XENOLITH_RUNTIME_DIR", &host.registry.dirs().runtime);
        command.env("XENOLITH_STATE_DIR", &host.registry.dirs().state).output().unwrap()
    };
    let output = run(&["-v", "pause", "ghost"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).starts_with("ghost is an invalid domain identifier (rc=-6)\n"));
    let output = run(&["frobnicate"]);
    assert_eq!(
        (output.status.code(), err(&output).as_str()),
        (Some(1), "command not implemented\n")
    );
    assert_eq!(run(&["destroy"]).status.code(), Some(2));
    assert_eq!(run(&["destroy", "--help"]).status.code(), Some(0));
    assert!(out(&run(&["list"])).contains("VCPUs\tState\tTime(s)\n"));
}

#[test]
fn lists_and_looks() {
    let host = Host::new();
    let domain = host.domain("serv1", true);
    let table = out(&host.run(&["list"]));
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[1].starts_with("Domain-0 ") && lines[1].contains(" r-----"), "{table}");
    let row = format!("serv1{}{:>6}   128     1     -b----      1.2", " ".repeat(35), domain.domid);
    assert_eq!(lines[2], row);
    assert_eq!(out(&host.run(&["list", "serv1"])).lines().count(), 2);
    assert_eq!(out(&host.run(&["list", "--state=paused"])).lines().count(), 1);
    let json: serde_json::Value =
        serde_json::from_str(&out(&host.run(&["list", "--json", "serv1"]))).unwrap();
    assert_eq!((&json[0]["name"], &json[0]["state"]), (&"serv1".into(), &"-b----".into()));
    let long = out(&host.run(&["list", "-l", "serv1"]));
    assert!(long.starts_with("(domain\n") && long.contains("(domid "), "{long}");
    assert_eq!(out(&host.run(&["domid", "serv1"])), format!("{}\n", domain.domid));
    assert_eq!(out(&host.run(&["domname", "0"])), "Domain-0\n");
    assert!(out(&host.run(&["uptime", "serv1"])).contains("  0:00:"));
    assert!(out(&host.run(&["uptime", "-s", "serv1"])).contains(" up  0:00, serv1 ("));
    assert_eq!(out(&host.run(&["dmesg", "serv1"])), "(XEN) first\n(XEN) second\n");
    assert!(out(&host.run(&["dmesg"])).starts_with("(serv1) (XEN) first\n"));
    assert!(out(&host.run(&["info"])).contains("\ntotal_memory           : "));
    let unknown = host.run(&["list", "ghost"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(err(&unknown).starts_with("Error: Domain 'ghost' does not exist.\n"));
    assert!(unknown.stdout.is_empty(), "no usage for an unknown domain");
}

#[test]
fn reports_of_crashes() {
    let host = Host::new();
    let _domain = host.domain("serv1", true);
    let none = host.run(&["crash-report", "serv1"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(err(&none).starts_with("Error: There is no crash report of a domain 'serv1'"));
    std::fs::write(host.registry.dirs().crash_report("old", 3), "it fell\n").unwrap();
    assert_eq!(out(&host.run(&["crash-report", "old"])), "it fell\n");
}

#[test]
fn orders_reach_the_domain_and_print_nothing() {
    let host = Host::new();
    let domain = host.domain("serv1", true);
    for (words, request) in [
        (&["pause", "serv1"][..], Request::Pause),
        (&["unpause", "serv1"], Request::Unpause),
        (&["destroy", "serv1"], Request::Destroy),
        (&["shutdown", "serv1"], Request::Shutdown { reason: ShutdownKind::Poweroff }),
        (&["shutdown", "serv1", "-H"], Request::Shutdown { reason: ShutdownKind::Halt }),
        (&["reboot", "-a"], Request::Shutdown { reason: ShutdownKind::Reboot }),
    ] {
        let output = host.run(words);
        assert_eq!(
            (output.status.code(), out(&output), err(&output)),
            (Some(0), String::new(), String::new())
        );
        assert_eq!(domain.request(), request);
    }
    let host_itself = host.run(&["destroy", "0"]);
    assert_eq!(host_itself.status.code(), Some(1));
    assert!(err(&host_itself).starts_with("Error: Cannot destroy privileged domain 0\n"));
}

#[test]
fn shutdown_waits_for_the_end() {
    let host = Host::new();
    let mut domain = host.domain("serv1", true);
    let child = host.xm().args(["shutdown", "-w", "serv1"]).spawn().unwrap();
    domain.request();
    domain.end();
    let output = child.wait_with_output().unwrap();
    assert_eq!(out(&output), "Domain serv1 terminated\nAll domains terminated\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn create_tells_what_it_did() {
    let host = Host::new();
    let script = "cat > spec.json\necho '{\"start\":\"started\",\"domid\":5,\"name\":\"serv1\"}'";
    let program = with_xendomain(&host, script);
    let run = |words: &[&str]| {
        host.xm().args(words).env("XENOLITH_XENDOMAIN", &program).output().unwrap()
    };
    let output = run(&["create", "serv1.cfg", "memory=256", "-p"]);
    assert_eq!(err(&output), "");
    assert_eq!(out(&output), "Using config file \"serv1.cfg\".\nStarted domain serv1 (id=5)\n");
    let spec = std::fs::read(host.path().join("spec.json")).unwrap();
    let spec: serde_json::Value = serde_json::from_slice(&spec).unwrap();
    assert_eq!(spec["paused"], true);
    assert_eq!(spec["config"]["memory"]["initial"], 256);
    assert_eq!(out(&run(&["create", "-q", "serv1.cfg"])), "");
    assert!(out(&run(&["create", "-n", "serv1.cfg"])).contains("(vm\n"));
    let missing = run(&["create", "nowhere.cfg"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(err(&missing).starts_with("Error: Unable to open config file: nowhere.cfg"));
    let taken = host.domain("serv1", true);
    let again = run(&["create", "serv1.cfg"]);
    assert_eq!(again.status.code(), Some(1));
    let text = format!("Error: VM name 'serv1' already exists as domain {}\n", taken.domid);
    assert!(err(&again).starts_with(&text), "{}", err(&again));
}

#[test]
fn create_passes_on_why_a_domain_did_not_start() {
    let host = Host::new();
    let failure =
        r#"{"start":"failed","code":"kernel","message":"not a kernel","hint":"see file(1)"}"#;
    let program = with_xendomain(&host, &format!("cat > /dev/null\necho '{failure}'"));
    let run = |program: &PathBuf| {
        host.xm().args(["create", "serv1.cfg"]).env("XENOLITH_XENDOMAIN", program).output().unwrap()
    };
    let output = run(&program);
    assert_eq!(
        (output.status.code(), err(&output).as_str()),
        (Some(1), "Error: not a kernel\nsee file(1)\n")
    );
    let silent = with_xendomain(&host, "exit 3");
    assert!(err(&run(&silent)).starts_with("Error: The domain process ended"));
    assert!(err(&run(&host.path().join("gone"))).contains("was not found"));
}

#[test]
fn an_interrupted_create_leaves_nothing() {
    let host = Host::new();
    let program = with_xendomain(&host, "echo $$ > pid\nexec sleep 1000");
    let child = host
        .xm()
        .args(["create", "serv1.cfg"])
        .env("XENOLITH_XENDOMAIN", &program)
        .spawn()
        .unwrap();
    let pid = host.path().join("pid");
    eventually("the start", || {
        std::fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'))
    });
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(Signal::INT.as_raw()));
    assert!(err(&output).contains("domain serv1 was not created"), "{}", err(&output));
    let pid = std::fs::read_to_string(&pid).unwrap();
    assert!(!PathBuf::from(format!("/proc/{}", pid.trim())).exists());
}

#[test]
fn create_with_a_console_misses_no_byte_and_then_unpauses() {
    let host = Host::new();
    let domain = host.domain("other", true);
    let reply = format!("{{\"start\":\"started\",\"domid\":{},\"name\":\"other\"}}", domain.domid);
    let program = with_xendomain(&host, &format!("cat > spec.json\necho '{reply}'"));
    let pty = Pty::open();
    let before = pty.settings();
    let mut child = host
        .xm()
        .args(["create", "-c", "serv1.cfg"])
        .env("XENOLITH_XENDOMAIN", &program)
        .stdin(pty.stdio())
        .stdout(pty.stdio())
        .stderr(pty.stdio())
        .spawn()
        .unwrap();
    let _guest = domain.console();
    assert_eq!(domain.request(), Request::Unpause);
    let spec = std::fs::read_to_string(host.path().join("spec.json")).unwrap();
    assert!(spec.contains("\"paused\":true"), "{spec}");
    let screen = pty.until("boot");
    assert!(screen.contains("Started domain other (id="), "{screen}");
    pty.type_in(b"\x1d");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(pty.settings(), before);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let host = Host::new();
    let mut child = host.xm().arg("help").spawn().unwrap();
    drop(child.stdout.take());
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "");
    let status = child.wait().unwrap();
    // The text may have fitted into the pipe before it was closed.
    assert!(status.success() || status.signal() == Some(Signal::PIPE.as_raw()), "{status}");
}

#[test]
fn colours_only_where_they_belong() {
    let host = Host::new();
    assert!(!err(&host.run(&["frobnicate"])).contains('\u{1b}'));
    for (colour, value) in [(true, ""), (false, "1")] {
        let pty = Pty::open();
        let mut command = host.xm();
        command.args(["destroy", "ghost"]).env("NO_COLOR", value).stderr(pty.stdio());
        let started = Instant::now();
        command.status().unwrap();
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(pty.until("exist.").contains("\u{1b}[1;31mError:"), colour);
    }
}
