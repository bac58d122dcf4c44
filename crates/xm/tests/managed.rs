//! Stored domains, and a daemon that is replaced.

mod rig;

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use rig::Host;

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn with_config(host: &Host) {
    std::fs::write(host.path().join("vmlinuz"), "").unwrap();
    let text = "kernel = 'vmlinuz'\nname = 'serv1'\nmemory = 64\n";
    std::fs::write(host.path().join("serv1.cfg"), text).unwrap();
}

#[test]
fn a_stored_domain_outlives_the_daemon_and_starts_where_it_was_stored() {
    let mut host = Host::new();
    with_config(&host);
    let new = host.run(&["new", "serv1.cfg"]);
    assert_eq!((err(&new).as_str(), new.status.code()), ("", Some(0)));
    assert_eq!(out(&new), "Using config file \"serv1.cfg\".\n");
    host.restart_daemon();
    let row = format!("serv1{}64     1                 0.0\n", " ".repeat(45));
    let table = out(&host.run(&["list"]));
    assert!(table.ends_with(&row), "{table}");
    assert_eq!(out(&host.run(&["list", "--state=halted"])).lines().count(), 2);
    assert_eq!(out(&host.run(&["list", "--state=running"])).lines().count(), 2, "Domain-0 runs");
    assert_eq!(out(&host.run(&["uptime"])).lines().count(), 2);
    assert!(out(&host.run(&["list", "-l", "serv1"])).contains("(status halted)"));

    let program = host.path().join("xendomain");
    let script = "#!/bin/sh\npwd > where\ncat > spec.json\n\
                  echo '{\"start\":\"started\",\"domid\":5,\"name\":\"serv1\"}'\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let mut start = host.xm();
    start.args(["start", "-p", "serv1"]).env("XENOLITH_XENDOMAIN", &program).current_dir("/");
    let start = start.output().unwrap();
    assert_eq!((err(&start).as_str(), start.status.code()), ("", Some(0)));
    let place = std::fs::read_to_string(host.path().join("where")).unwrap();
    assert_eq!(place.trim_end(), host.path().to_str().unwrap());
    let spec = std::fs::read_to_string(host.path().join("spec.json")).unwrap();
    assert!(spec.contains("\"paused\":true"), "{spec}");

    assert_eq!(host.run(&["delete", "serv1"]).status.code(), Some(0));
    host.restart_daemon();
    let gone = host.run(&["start", "serv1"]);
    assert_eq!(gone.status.code(), Some(3));
    assert!(err(&gone).starts_with("Error: Domain 'serv1' does not exist.\n"), "{}", err(&gone));
}

#[test]
fn names_are_unique_among_running_and_stored_domains() {
    let host = Host::new();
    with_config(&host);
    let running = host.domain("serv1", true);
    let new = host.run(&["new", "-q", "serv1.cfg"]);
    assert_eq!(new.status.code(), Some(1));
    let text = format!("Error: VM name 'serv1' already exists as domain {}\n", running.domid);
    assert!(err(&new).starts_with(&text), "{}", err(&new));
    assert_eq!(host.run(&["new", "-q", "serv1.cfg", "name=serv2"]).status.code(), Some(0));
    for words in [
        &["new", "-q", "serv1.cfg", "name=serv2"][..],
        &["create", "-q", "serv1.cfg", "name=serv2"],
    ] {
        let again = host.run(words);
        assert_eq!(again.status.code(), Some(1));
        let text = "Error: VM name 'serv2' already exists as a stored domain\n";
        assert!(err(&again).starts_with(text), "{}", err(&again));
    }
    let pause = host.run(&["pause", "serv2"]);
    assert!(err(&pause).starts_with("Error: Domain 'serv2' is not started\n"), "{}", err(&pause));
    let delete = host.run(&["delete", "serv1"]);
    assert!(err(&delete).starts_with("Error: Domain 'serv1' is not stored\n"), "{}", err(&delete));
}

#[test]
fn a_daemon_that_takes_over_finds_what_runs_and_reports_what_does_not() {
    let mut host = Host::new();
    let mut one = host.domain("one", true);
    let _two = host.domain("two", true);
    let daemon = api::Daemon::new(host.registry.dirs().clone());
    assert_eq!(out(&host.run(&["list"])).lines().count(), 4);
    rig::eventually("the watch", || out(&host.run(&["log"])).contains("one[1]: the domain is up"));
    one.end();
    host.restart_daemon();
    assert_eq!(out(&host.run(&["list"])).lines().count(), 3);
    rig::eventually("the report", || !daemon.history().unwrap().is_empty());
    let history = daemon.history().unwrap();
    assert_eq!((history[0].name.as_str(), history[0].domid), ("one", one.domid));
}
