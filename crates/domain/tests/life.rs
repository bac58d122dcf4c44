//! Domains from start to end, with a stand-in for the monitor.

mod rig;

use control::{Client, ClientError, EndedAs, ErrorCode, ShutdownKind, ShutdownReason, WaitUntil};
use rig::{PATIENCE, Rig};
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

fn wait(rig: &Rig, domid: u32, until: WaitUntil) -> (ShutdownReason, EndedAs) {
    let ended = rig.client(domid).wait(until, Some(PATIENCE)).unwrap().expect("in time");
    (ended.reason, ended.outcome)
}

#[test]
fn a_domain_lives_and_is_destroyed() {
    let rig = Rig::new();
    let started = rig.start("one", "print=hello~ block", "");
    assert_eq!((started.domid, started.name.as_str()), (1, "one"));
    let info = rig.until(1, |info| info.state.blocked);
    assert_eq!(info.state.to_string(), "-b----");
    assert_eq!((info.memory_mib, info.maxmem_mib, info.vcpus, info.restarts), (32, 32, 1, 0));
    assert_eq!(info.name, "one");
    assert!(info.jail.contains(&"no-new-privileges".to_owned()), "{:?}", info.jail);
    assert!(info.jail.contains(&"closed-descriptors".to_owned()), "{:?}", info.jail);
    assert_eq!(rig.client(1).console_history().unwrap(), b"hello\n");
    let watcher = rig.client(1);
    rig.client(1).destroy().unwrap();
    assert!(rig.registry.list().unwrap().is_empty(), "gone when destroy returns");
    assert!(watcher.wait(WaitUntil::Gone, Some(PATIENCE)).is_err(), "asked too late");
    assert!(rig.log("one").contains("destroyed"));
}

#[test]
fn the_space_has_nothing_but_its_descriptors() {
    let rig = Rig::new();
    rig.start("one", "descriptors root block", "");
    let mut console = rig.console(1);
    console.expect("descriptors [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n");
    let info = rig.info(1);
    if info.jail.contains(&"empty-root".to_owned()) {
        console.expect("root Ok(0)");
    }
    if info.jail.contains(&"nobody".to_owned()) {
        console.expect("euid 65534");
    }
}

#[test]
fn the_console_has_one_writer_and_any_number_of_readers() {
    let rig = Rig::new();
    rig.start("one", "print=ready~ echo=quit block", "");
    let mut writer = rig.console(1);
    let mut reader = rig.console(1);
    assert!(writer.console.writable && !reader.console.writable);
    writer.expect("ready\n");
    reader.expect("ready\n");
    reader.type_in("nobody hears this");
    writer.type_in("some text");
    writer.expect("some text");
    reader.expect("some text");
    drop(writer);
    let mut next = loop {
        let console = rig.console(1);
        if console.console.writable {
            break console;
        }
    };
    let long = "0123456789".repeat(1000);
    next.type_in(&long);
    next.type_in("quit");
    next.expect(&long);
    reader.expect(&long);
}

#[test]
fn a_flood_without_readers_is_drained_and_the_end_is_kept() {
    let rig = Rig::new();
    rig.start("one", "flood=1500000 print=end~ shutdown=0", "on_poweroff = 'preserve'");
    rig.until(1, |info| info.state.shutdown);
    let history = rig.client(1).console_history().unwrap();
    assert_eq!(history.len(), 1 << 20);
    assert!(history.ends_with(b"ffend\n"));
    let console = rig.console(1);
    assert_eq!(console.console.history, 1 << 20);
    rig.client(1).destroy().unwrap();
    assert!(console.rest().ends_with(b"ffend\n"), "readers get everything before the end");
}

#[test]
fn poweroff_destroys_and_waiters_hear_of_it() {
    let rig = Rig::new();
    rig.start("one", "echo=off shutdown=0", "");
    let console = rig.console(1);
    let (shutdown, gone) = std::thread::scope(|scope| {
        let shutdown = scope.spawn(|| wait(&rig, 1, WaitUntil::Shutdown));
        let gone = scope.spawn(|| wait(&rig, 1, WaitUntil::Gone));
        std::thread::sleep(Duration::from_millis(300));
        let mut console = console;
        console.type_in("off");
        (shutdown.join().unwrap(), gone.join().unwrap())
    });
    assert_eq!(shutdown, (ShutdownReason::Poweroff, EndedAs::Destroyed));
    assert_eq!(gone, (ShutdownReason::Poweroff, EndedAs::Destroyed));
    rig.until_empty();
}

#[test]
fn a_reboot_gives_a_new_domain_and_a_second_one_at_once_does_not() {
    let rig = Rig::new();
    rig.start("one", "echo=r shutdown=1", "");
    let waiter = rig.client(1);
    let uuid = rig.info(1).uuid;
    let mut console = rig.console(1);
    console.type_in("r");
    let ended = waiter.wait(WaitUntil::Gone, Some(PATIENCE)).unwrap().unwrap();
    assert_eq!(ended.outcome, EndedAs::Restarted { domid: 2 });
    let info = rig.info(2);
    assert_eq!((info.name.as_str(), info.restarts, info.uuid), ("one", 1, uuid));
    let mut console = rig.console(2);
    console.type_in("r");
    assert_eq!(wait_gone_or_ended(&rig, 2), Some(EndedAs::Destroyed));
    rig.until_empty();
    assert!(rig.log("one").contains("restarting too fast"));
}

/// How a domain that is about to go went, if it was still there to ask.
fn wait_gone_or_ended(rig: &Rig, domid: u32) -> Option<EndedAs> {
    let client = Client::connect(&rig.registry, domid).ok()?;
    match client.wait(WaitUntil::Gone, Some(PATIENCE)) {
        Ok(ended) => ended.map(|ended| ended.outcome),
        Err(_) => Some(EndedAs::Destroyed),
    }
}

#[test]
fn a_preserved_crash_stays_listed_with_its_report() {
    let rig = Rig::new();
    rig.start("one", "print=last-words~ crash=it-broke", "on_crash = 'preserve'");
    let info = rig.until(1, |info| info.state.crashed);
    assert_eq!(info.state.to_string(), "----c-");
    assert_eq!(info.shutdown_reason, Some(ShutdownReason::Crash));
    assert_eq!(info.last_crash.unwrap().reason, "it-broke");
    let report = String::from_utf8(rig.client(1).crash_report().unwrap()).unwrap();
    for part in ["Reason: it-broke", "rip ffffffff81000010 start_of_test+0x10", "last-words"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert!(report.contains("rax 0000000000001234"), "{report}");
    let error = rig.client(1).pause().unwrap_err();
    assert!(matches!(error, ClientError::Refused(f) if f.code == ErrorCode::WrongState));
    assert_eq!(rig.client(1).console_history().unwrap(), b"last-words\n");
}

#[test]
fn a_crash_restarts_once_and_then_stops() {
    let rig = Rig::new();
    rig.start("one", "sleep=300 crash=again", "on_crash = 'restart'");
    let end = std::time::Instant::now() + PATIENCE;
    while !rig.log("one").contains("too fast") {
        assert!(std::time::Instant::now() < end, "{}", rig.log("one"));
        std::thread::sleep(Duration::from_millis(10));
    }
    rig.until_empty();
    let log = rig.log("one");
    assert!(log.contains("msg=restarted successor=2"), "{log}");
    assert!(log.contains("restarting too fast"), "{log}");
    assert!(!log.contains("domid=3"), "{log}");
}

#[test]
fn rename_restart_keeps_the_old_domain() {
    let rig = Rig::new();
    rig.start(
        "one",
        "echo=x crash=kept",
        "on_crash = 'rename-restart'\nuuid = '01234567-89ab-cdef-0123-456789abcdef'",
    );
    rig.console(1).type_in("x");
    let info = rig.until(1, |info| info.state.crashed);
    assert_eq!((info.name.as_str(), info.domid), ("one-1", 1));
    let end = std::time::Instant::now() + PATIENCE;
    let entry = loop {
        match rig.registry.find("one") {
            Ok(entry) => break entry,
            Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
        }
    };
    assert_eq!(entry.domid, 2);
    assert_eq!(entry.uuid.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
    let started = std::time::Instant::now();
    rig.client(1).destroy().unwrap();
    assert!(started.elapsed() < Duration::from_secs(4), "its successor is no space of it");
    rig.until(2, |info| info.state.blocked);
}

#[test]
fn spaces_that_die_are_crashes_with_a_reason() {
    let rig = Rig::new();
    for (domid, script, reason) in [
        (1, "die=31", "SIGSYS"),
        (2, "die=9", "SIGKILL"),
        (3, "exit=3", "status 3"),
        (4, "exit=0", "all spaces are gone"),
    ] {
        rig.start(&format!("d{domid}"), script, "on_crash = 'preserve'");
        let info = rig.until(domid, |info| info.state.crashed);
        let crash = info.last_crash.unwrap();
        assert!(crash.reason.contains(reason), "{script}: {}", crash.reason);
    }
}

#[test]
fn pause_stops_the_vcpu_and_unpause_lets_it_go_on() {
    let rig = Rig::new();
    let mut spec = rig.spec("one", "print=hello~ block", "");
    spec.paused = true;
    assert!(rig.launch(&spec).1.is_ok());
    let info = rig.info(1);
    assert!(info.state.paused && !info.state.running, "{}", info.state);
    std::thread::sleep(Duration::from_millis(100));
    assert!(rig.client(1).console_history().unwrap().is_empty(), "nothing ran");
    rig.client(1).unpause().unwrap();
    rig.console(1).expect("hello\n");
    rig.client(1).pause().unwrap();
    let error = rig.client(1).shutdown(ShutdownKind::Poweroff).unwrap_err();
    assert!(error.to_string().contains("is paused"), "{error}");
    rig.client(1).destroy().unwrap();
}

#[test]
fn a_running_vcpu_is_interrupted_for_input() {
    let rig = Rig::new();
    rig.start("one", "print=on~ spin block", "");
    let mut console = rig.console(1);
    console.expect("on\n");
    console.type_in("x");
    console.expect("interrupted\n");
    let info = rig.info(1);
    assert!(info.cpu_seconds >= 0.0 && info.cpu_seconds < 60.0);
}

#[test]
fn a_guest_cannot_make_us_signal_others() {
    let rig = Rig::new();
    // A process that would die of SIGUSR1, with a number that the guest claims.
    let mut bystander = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    rig.start(
        "one",
        &format!("lie={} echo=q lie=-1 echo=q lie=1 echo=q block", bystander.id()),
        "",
    );
    let mut console = rig.console(1);
    for _ in 0..3 {
        console.type_in("q");
        console.expect("q");
    }
    assert!(bystander.try_wait().unwrap().is_none(), "still alive");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn nonsense_in_the_rings_does_not_hurt() {
    let rig = Rig::new();
    rig.start("one", "nonsense sleep=50 nonsense log=still-here block", "");
    rig.until(1, |info| info.state.blocked);
    let log = String::from_utf8(rig.client(1).log().unwrap()).unwrap();
    assert!(log.contains("program=space domid=1 domain=one msg=still-here"), "{log}");
}

#[test]
fn a_killed_domain_process_takes_its_spaces_along() {
    let rig = Rig::new();
    let (mut child, started) = rig.launch(&rig.spec("one", "print=up~ block", ""));
    started.unwrap();
    rig.console(1).expect("up\n");
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let spaces = std::fs::read_to_string(children).unwrap_or_default();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(rig.registry.list().unwrap().is_empty());
    assert!(!rig.registry.dirs().domains().join("1").exists(), "swept");
    for space in spaces.split_ascii_whitespace() {
        let end = std::time::Instant::now() + PATIENCE;
        while alive(space) {
            assert!(std::time::Instant::now() < end, "space {space} lives on");
        }
    }
    assert_eq!(rig.start("one", "block", "").domid, 2);
}

/// Whether a process exists and is not a zombie.
fn alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

#[test]
fn sigterm_destroys_the_domain() {
    let rig = Rig::new();
    let (mut child, started) = rig.launch(&rig.spec("one", "block", ""));
    started.unwrap();
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(rig.registry.list().unwrap().is_empty());
}

#[test]
fn what_cannot_start_says_why_and_leaves_nothing() {
    let rig = Rig::new();
    let fail = |more: &str| rig.launch(&rig.spec("one", "block", more)).1.unwrap_err();
    let missing = fail("kernel = '/nonexistent/vmlinuz'");
    assert!(missing.message.contains("/nonexistent/vmlinuz"), "{missing:?}");
    std::fs::write(rig.path().join("text"), "no kernel at all").unwrap();
    assert_eq!(fail("kernel = 'text'").code, ErrorCode::Kernel);
    assert!(fail("ramdisk = '/nonexistent'").message.contains("ramdisk /nonexistent"));
    std::fs::write(rig.path().join("initrd"), vec![1; 40 << 20]).unwrap();
    let small = fail("ramdisk = 'initrd'");
    assert_eq!(small.code, ErrorCode::Memory);
    assert!(small.hint.unwrap().starts_with("Set memory = "));
    let none = fail("kernel = ''\nbootloader = 'pygrub'");
    assert_eq!(none.code, ErrorCode::Config);
    assert!(rig.registry.list().unwrap().is_empty());
    rig.start("one", "block", "");
    let taken = fail("");
    assert_eq!((taken.code, taken.hint.is_some()), (ErrorCode::Busy, true));
}

#[test]
fn orders_reach_the_guests_xenstore_and_bad_ones_are_refused() {
    let rig = Rig::new();
    rig.start("one", "block", "maxmem = 64");
    let mut client = rig.client(1);
    client.shutdown(ShutdownKind::Reboot).unwrap();
    client.sysrq('s').unwrap();
    client.set_memory(64).unwrap();
    assert!(client.set_memory(65).unwrap_err().to_string().contains("maxmem = 64"));
    assert!(client.sysrq('/').is_err());
    client.rename("two").unwrap();
    assert_eq!(client.info().unwrap().name, "two");
    assert_eq!(rig.registry.find("two").unwrap().domid, 1);
    assert!(client.rename("a b").is_err());
    assert!(rig.client(1).crash_report().is_err());
}

#[test]
fn strangers_on_the_socket_do_not_hurt() {
    use std::io::{Read, Write};
    let rig = Rig::new();
    rig.start("one", "block", "");
    let socket = rig.registry.find("one").unwrap().socket();
    for bytes in [&b"nonsense\n"[..], b"{\"request\":\"format\"}\n", &[b'x'; 100_000], b"\n"] {
        let mut stream = control::connect(&socket).unwrap();
        // The other side may have closed before all is written.
        let _part = stream.write_all(bytes);
        let mut reply = String::new();
        let _part = stream.read_to_string(&mut reply);
        assert!(reply.is_empty() || reply.contains("bad-request"), "{reply}");
    }
    let silent: Vec<_> = (0..300).map(|_| control::connect(&socket).unwrap()).collect();
    drop(silent);
    let end = std::time::Instant::now() + PATIENCE;
    while let Err(error) = rig.client(1).info() {
        assert!(matches!(&error, ClientError::Refused(f) if f.code == ErrorCode::Busy), "{error}");
        assert!(std::time::Instant::now() < end);
    }
}
