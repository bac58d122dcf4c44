//! Who may connect, what becomes of domains that go, and the life of the process.

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use control::xenstore::{StoreClient, StoreLink, StorePlace};
use store::Errno;
use store::wire::MessageType::{
    Control, Directory, DirectoryPart, GetDomainPath, IsDomainIntroduced, Read, TransactionStart,
    Watch, Write,
};
use support::{Guest, Place, finds_xenstored, peer};

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn exists(place: &Place, path: &str) -> bool {
    StoreClient::order(&place.dirs, |client| client.direct().read(path)).unwrap().is_some()
}

#[test]
fn domains_come_and_go() {
    if !finds_xenstored("domains_come_and_go") {
        return;
    }
    let place = Place::new();
    let mut host = StoreClient::connect(&place.dirs).unwrap();
    for path in [place.socket(), StorePlace::new(&place.dirs).domains()] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    let introduced = |host: &mut StoreClient, domid: u32| {
        let reply = host.call(IsDomainIntroduced, 0, format!("{domid}\0").as_bytes());
        reply.unwrap().unwrap() == b"T\0"
    };
    let registration = place.register("one");
    let domid = registration.entry().domid;
    host.direct().write(&format!("/local/domain/{domid}/x"), "v").unwrap();
    assert!(!introduced(&mut host, domid));
    let mut guest = Guest::new(&place, &registration);
    assert!(introduced(&mut host, domid));
    assert_eq!(guest.text(Read, "x\0"), Err("EACCES".into()));
    host.direct()
        .permit(&format!("/local/domain/{domid}/x"), &["n0", &format!("r{domid}")])
        .unwrap();
    assert_eq!(guest.text(Read, "x\0").unwrap(), "v");
    assert_eq!(guest.text(Write, "x\0w"), Err("EACCES".into()));
    let path = guest.text(GetDomainPath, &format!("{domid}\0")).unwrap();
    assert_eq!(path, format!("/local/domain/{domid}\0"));
    assert_eq!(guest.text(Control, "check\0"), Err("EACCES".into()));
    assert_eq!(host.call(Control, 0, b"check\0").unwrap().unwrap(), b"OK\0");

    // Its connection is gone, but not the domain.
    drop(guest);
    thread::sleep(Duration::from_millis(200));
    assert!(introduced(&mut host, domid) && exists(&place, &format!("/local/domain/{domid}/x")));
    let mut guest = Guest::new(&place, &registration);
    assert_eq!(guest.text(Read, "x\0").unwrap(), "v");
    // Now it is.
    drop(guest);
    drop(registration);
    wait_for("the domain stays", || !introduced(&mut host, domid));
    assert!(!exists(&place, &format!("/local/domain/{domid}")));
}

#[test]
fn nobody_speaks_for_another_domain() {
    if !finds_xenstored("nobody_speaks_for_another_domain") {
        return;
    }
    let place = Place::new();
    let Err(error) = StoreLink::connect(&place.dirs, peer(9, 1)) else { panic!("let in") };
    assert!(error.to_string().contains("no domain 9"), "{error}");
    let Err(error) = StoreLink::connect(&place.dirs, peer(0, 1)) else { panic!("let in") };
    assert!(error.to_string().contains("no domain 0"), "{error}");
    // The registry says that another process serves it.
    let registration = place.register("one");
    let file = registration.entry().directory.join("info.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let own = format!("\"pid\": {}", std::process::id());
    assert!(text.contains(&own));
    std::fs::write(&file, text.replace(&own, "\"pid\": 1")).unwrap();
    let domid = u16::try_from(registration.entry().domid).unwrap();
    let Err(error) = StoreLink::connect(&place.dirs, peer(domid, 1)) else { panic!("let in") };
    assert!(error.to_string().contains("served by process 1"), "{error}");
}

#[test]
fn one_process_serves_however_many_start_it() {
    if !finds_xenstored("one_process_serves_however_many_start_it") {
        return;
    }
    let place = Place::new();
    for round in 0..5 {
        thread::scope(|scope| {
            for i in 0..12 {
                let place = &place;
                scope.spawn(move || {
                    let path = format!("/tool/{round}-{i}");
                    StoreClient::order(&place.dirs, |c| c.direct().write(&path, "v")).unwrap();
                });
            }
        });
        for i in 0..12 {
            assert!(exists(&place, &format!("/tool/{round}-{i}")));
        }
        assert!(place.kill_server());
    }
    assert!(!place.log().contains("Another process"), "{}", place.log());
}

#[test]
fn ends_when_nobody_needs_it_and_goes_on_later() {
    if !finds_xenstored("ends_when_nobody_needs_it_and_goes_on_later") {
        return;
    }
    let place = Place::new();
    StoreClient::order(&place.dirs, |client| client.direct().write("/tool/kept", "v")).unwrap();
    // Looking for it would keep it: the socket goes when it ends.
    wait_for("it does not end", || !place.socket().exists());
    wait_for("it does not say so", || place.log().contains("nobody needs it"));
    assert!(exists(&place, "/tool/kept"));
}

#[test]
fn ends_when_its_directory_is_gone() {
    if !finds_xenstored("ends_when_its_directory_is_gone") {
        return;
    }
    let place = Place::new();
    StoreClient::order(&place.dirs, |client| client.direct().write("/tool/x", "v")).unwrap();
    let server = place.server().unwrap();
    std::fs::remove_dir_all(&place.dirs.runtime).unwrap();
    wait_for("it does not end", || {
        rustix::process::test_kill_process(server) == Err(rustix::io::Errno::SRCH)
    });
}

#[test]
fn nonsense_closes_a_connection_and_no_other() {
    if !finds_xenstored("nonsense_closes_a_connection_and_no_other") {
        return;
    }
    let place = Place::new();
    let mut host = StoreClient::connect(&place.dirs).unwrap();
    let doors = [place.socket(), StorePlace::new(&place.dirs).domains()];
    for path in doors {
        for byte in [0xff, 0x7f, 0x80] {
            let mut stream = control::connect(&path).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(&[byte; 64]).unwrap();
            let mut answer = Vec::new();
            let ended = stream.read_to_end(&mut answer);
            assert!(
                ended.is_ok() || ended.is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock)
            );
        }
    }
    host.direct().write("/tool/x", "v").unwrap();
    assert_eq!(host.call(Read, 0, b"/tool/y\0").unwrap(), Err(Errno::Enoent));
}

#[test]
fn clients_that_do_not_read_hold_nobody_up() {
    if !finds_xenstored("clients_that_do_not_read_hold_nobody_up") {
        return;
    }
    let place = Place::new();
    let mut host = StoreClient::connect(&place.dirs).unwrap();
    host.direct().write("/tool/big", vec![b'x'; 4000]).unwrap();
    let mut deaf = control::connect(&place.socket()).unwrap();
    deaf.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let watch = store::wire::Header { kind: Watch as u32, request: 1, transaction: 0, length: 0 };
    deaf.write_all(&watch.encode(b"/tool\0t\0")).unwrap();
    let read = store::wire::Header { kind: Read as u32, request: 1, transaction: 0, length: 0 };
    let request = read.encode(b"/tool/big\0");
    let mut sent = 0;
    while deaf.write_all(&request).is_ok() && sent < 100_000 {
        sent += 1;
    }
    assert!(sent < 100_000, "the store takes requests without end");
    for i in 0..2000 {
        host.direct().write(&format!("/tool/n{i}"), "v").unwrap();
    }
    let part = host.call(DirectoryPart, 0, b"/tool\0" as &[u8]);
    assert_eq!(part.unwrap(), Err(Errno::Einval));
    assert_eq!(host.call(Directory, 0, b"/tool\0").unwrap(), Err(Errno::E2big));
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let ask = format!("/tool\0{offset}\0");
        let part = host.call(DirectoryPart, 0, ask.as_bytes()).unwrap().unwrap();
        let text = String::from_utf8(part).unwrap();
        let (_, list) = text.split_once('\0').unwrap();
        names.extend(list.split_terminator('\0').filter(|n| !n.is_empty()).map(str::to_owned));
        if list.ends_with("\0\0") || list == "\0" {
            break;
        }
        offset += list.len();
    }
    assert_eq!(names.iter().filter(|name| name.starts_with('n')).count(), 2000);
    assert!(host.call(TransactionStart, 0, b"\0").unwrap().is_ok());
}
