//! Every message type against the protocol, with its errors.

mod support;

use store::wire::MessageType::*;
use store::{Errno, Permissions, Store};
use support::{Client, encode, split_messages};

#[track_caller]
fn ok(result: Result<String, String>) {
    assert_eq!(result.unwrap(), "OK\0");
}

#[track_caller]
fn fails(result: Result<String, String>, name: &str) {
    assert_eq!(result.unwrap_err(), name);
}

/// A store with domains 5 and 6, each owning its home.
fn two_guests() -> (Store, Client, Client, Client) {
    let mut store = Store::default();
    for domid in [5_u16, 6] {
        let home = format!("/local/domain/{domid}");
        store.mkdir(&home).unwrap();
        store.set_permissions(&home, Permissions::owned_by(domid)).unwrap();
        store.introduce(domid, i64::from(domid) * 10, 2).unwrap();
    }
    let clients = [0, 5, 6].map(|domid| Client::open(&mut store, domid));
    let [host, five, six] = clients;
    (store, host, five, six)
}

#[test]
fn read_and_write() {
    let (mut s, mut host, mut five, _) = two_guests();
    ok(host.ask(&mut s, Write, "/a/b\0value"));
    assert_eq!(host.ask(&mut s, Read, "/a/b\0").unwrap(), "value");
    assert_eq!(host.ask(&mut s, Read, "/a\0").unwrap(), "", "missing parents are empty");
    assert_eq!(s.read("/a/b").unwrap(), b"value");
    ok(host.ask(&mut s, Write, "/a/b\0"));
    assert_eq!(host.ask(&mut s, Read, "/a/b\0").unwrap(), "");
    assert_eq!(host.call(&mut s, Write, b"/a\0\0\xff\0").unwrap(), b"OK\0");
    assert_eq!(host.call(&mut s, Read, b"/a\0").unwrap(), b"\0\xff\0", "values are any bytes");
    ok(five.ask(&mut s, Write, "device/x\0one"));
    assert_eq!(host.ask(&mut s, Read, "/local/domain/5/device/x\0").unwrap(), "one");
    fails(host.ask(&mut s, Read, "/none\0"), "ENOENT");
    for bad in ["", "/a", "/a\0b", "\0", "/a\0b\0", "a b\0", "/a/\0", "//\0", "@releaseDomain\0"] {
        fails(host.ask(&mut s, Read, bad), "EINVAL");
    }
    for bad in ["", "/a", "\0v", "@introduceDomain\0v"] {
        fails(host.ask(&mut s, Write, bad), "EINVAL");
    }
}

#[test]
fn directory_and_mkdir() {
    let (mut s, mut host, ..) = two_guests();
    ok(host.ask(&mut s, Mkdir, "/d/z\0"));
    ok(host.ask(&mut s, Write, "/d/a\0v"));
    ok(host.ask(&mut s, Mkdir, "/d/a\0"));
    assert_eq!(host.ask(&mut s, Read, "/d/a\0").unwrap(), "v", "an existing node stays");
    assert_eq!(host.ask(&mut s, Directory, "/d\0").unwrap(), "a\0z\0");
    assert_eq!(host.ask(&mut s, Directory, "/d/a\0").unwrap(), "");
    assert_eq!(host.ask(&mut s, Directory, "/\0").unwrap(), "d\0local\0");
    fails(host.ask(&mut s, Directory, "/d/none\0"), "ENOENT");
    fails(host.ask(&mut s, Mkdir, "/d"), "EINVAL");
}

#[test]
fn long_directories_come_in_parts() {
    let (mut s, mut host, ..) = two_guests();
    let names: Vec<_> = (0..600).map(|i| format!("child-number-{i:04}")).collect();
    names.iter().for_each(|name| s.write(&format!("/big/{name}"), "").unwrap());
    fails(host.ask(&mut s, Directory, "/big\0"), "E2BIG");
    let (mut found, mut offset, mut generations) = (Vec::new(), 0, Vec::new());
    loop {
        let request = format!("/big\0{offset}\0");
        let reply = host.ask(&mut s, DirectoryPart, &request).unwrap();
        let (generation, part) = reply.split_once('\0').unwrap();
        generations.push(generation.to_owned());
        let is_last = part.ends_with("\0\0");
        let part = if is_last { &part[..part.len() - 1] } else { part };
        offset += part.len();
        found.extend(part.split_terminator('\0').map(str::to_owned));
        if is_last {
            break;
        }
    }
    assert_eq!(found, names);
    assert!(generations.len() >= 3);
    generations.dedup();
    assert_eq!(generations.len(), 1);
    s.write("/big/another", "").unwrap();
    let reply = host.ask(&mut s, DirectoryPart, "/big\x000\0").unwrap();
    assert!(!reply.starts_with(&format!("{}\0", generations[0])), "the generation moved");
    for bad in ["/big\x003\0", "/big\099999999\0", "/big\0-1\0", "/big\0", "/big\0\0"] {
        fails(host.ask(&mut s, DirectoryPart, bad), "EINVAL");
    }
    s.mkdir("/empty").unwrap();
    assert!(host.ask(&mut s, DirectoryPart, "/empty\x000\0").unwrap().ends_with("\0\0"));
}

#[test]
fn removal() {
    let (mut s, mut host, mut five, mut six) = two_guests();
    ok(five.ask(&mut s, Write, "a/b/c\0v"));
    fails(six.ask(&mut s, Rm, "/local/domain/5/a\0"), "EACCES");
    ok(five.ask(&mut s, Rm, "a\0"));
    fails(five.ask(&mut s, Read, "a/b/c\0"), "ENOENT");
    ok(five.ask(&mut s, Rm, "a\0"));
    fails(five.ask(&mut s, Rm, "a/b\0"), "ENOENT");
    fails(host.ask(&mut s, Rm, "/\0"), "EINVAL");
    assert_eq!(s.nodes_owned_by(5), 1);
    assert!(s.is_consistent());
}

#[test]
fn permissions() {
    let (mut s, mut host, mut five, mut six) = two_guests();
    ok(five.ask(&mut s, Write, "open\0v"));
    let path = "/local/domain/5/open\0";
    assert_eq!(host.ask(&mut s, GetPerms, path).unwrap(), "n5\0", "the creator owns it");
    fails(six.ask(&mut s, Read, path), "EACCES");
    fails(six.ask(&mut s, GetPerms, path), "EACCES");
    ok(five.ask(&mut s, SetPerms, "open\0n5\0r6\0"));
    assert_eq!(six.ask(&mut s, Read, path).unwrap(), "v");
    assert_eq!(six.ask(&mut s, GetPerms, path).unwrap(), "n5\0r6\0");
    fails(six.ask(&mut s, Write, "/local/domain/5/open\0w"), "EACCES");
    fails(six.ask(&mut s, SetPerms, "/local/domain/5/open\0b6\0"), "EACCES");
    fails(five.ask(&mut s, SetPerms, "open\0n6\0"), "EPERM");
    ok(five.ask(&mut s, SetPerms, "open\0b5\0"));
    ok(six.ask(&mut s, Write, "/local/domain/5/open\0w"));
    ok(six.ask(&mut s, Write, "/local/domain/5/open/sub\0w"));
    assert_eq!(host.ask(&mut s, GetPerms, "/local/domain/5/open/sub\0").unwrap(), "b6\0");
    ok(host.ask(&mut s, SetPerms, "/local/domain/5/open\0n6\0"));
    assert_eq!(s.nodes_owned_by(6), 3);
    assert!(s.is_consistent());
    for bad in ["open\0", "open", "open\0n5", "open\0q5\0", "open\0n5\0\0", "open\0n\0"] {
        fails(five.ask(&mut s, SetPerms, bad), "EINVAL");
    }
}

#[test]
fn nothing_leaks_below_closed_nodes() {
    let (mut s, _, _, mut six) = two_guests();
    s.write("/secret/known", "v").unwrap();
    for kind in [Read, Directory, GetPerms, Rm] {
        fails(six.ask(&mut s, kind, "/secret/known\0"), "EACCES");
        fails(six.ask(&mut s, kind, "/secret/unknown\0"), "EACCES");
        fails(six.ask(&mut s, kind, "/secret/un/kno/wn\0"), "EACCES");
    }
    fails(six.ask(&mut s, Mkdir, "/secret/known\0"), "EACCES");
    fails(six.ask(&mut s, Write, "/secret/unknown\0v"), "EACCES");
}

#[test]
fn watches() {
    let (mut s, mut host, mut five, mut six) = two_guests();
    ok(five.ask(&mut s, Watch, "device\0tok\0"));
    let event = |path: &str, token: &str| (path.to_owned(), token.to_owned());
    assert_eq!(five.take_events(&mut s), [event("device", "tok")], "fires at once");
    fails(five.ask(&mut s, Watch, "device\0tok\0"), "EEXIST");
    ok(five.ask(&mut s, Watch, "/local/domain/5/device\0abs\0"));
    five.take_events(&mut s);
    s.write("/local/domain/5/device/vbd/state", "1").unwrap();
    s.write("/local/domain/5/devices", "no match").unwrap();
    assert_eq!(
        five.take_events(&mut s),
        [event("device/vbd/state", "tok"), event("/local/domain/5/device/vbd/state", "abs")]
    );
    ok(five.ask(&mut s, Unwatch, "device\0tok\0"));
    fails(five.ask(&mut s, Unwatch, "device\0tok\0"), "ENOENT");
    ok(five.ask(&mut s, Write, "device/vbd/state\x001"));
    let same = five.event_paths(&mut s);
    assert_eq!(same, ["/local/domain/5/device/vbd/state"], "own writes of the same value count");
    ok(host.ask(&mut s, Mkdir, "/local/domain/5/device\0"));
    assert!(five.event_paths(&mut s).is_empty(), "MKDIR of an existing node changes nothing");
    ok(six.ask(&mut s, Watch, "/local/domain/5\0spy\0"));
    assert_eq!(six.event_paths(&mut s).len(), 1, "the first event tells nothing");
    ok(five.ask(&mut s, Write, "device/secret\0v"));
    assert!(six.event_paths(&mut s).is_empty(), "no event for unreadable nodes");
    for bad in
        ["device\0", "device\0tok", "\0tok\0", "@other\0t\0", "d\0t\0x\0", "d\0t\x001\x002\0"]
    {
        fails(five.ask(&mut s, Watch, bad), "EINVAL");
    }
    fails(five.ask(&mut s, Unwatch, "device\0"), "EINVAL");
}

#[test]
fn watches_hear_of_lost_permissions_and_removed_ancestors() {
    let (mut s, _, mut five, mut six) = two_guests();
    ok(five.ask(&mut s, Write, "a/b/c\0v"));
    for path in ["a", "a/b", "a/b/c"] {
        ok(five.ask(&mut s, SetPerms, &format!("{path}\0n5\0r6\0")));
    }
    let base = "/local/domain/5";
    ok(six.ask(&mut s, Watch, &format!("{base}/a/b/c\0deep\0")));
    ok(six.ask(&mut s, Watch, &format!("{base}/a/b/none\0none\0")));
    six.take_events(&mut s);
    ok(five.ask(&mut s, SetPerms, "a/b/c\0n5\0"));
    assert_eq!(six.event_paths(&mut s), [format!("{base}/a/b/c")]);
    ok(five.ask(&mut s, SetPerms, "a/b/c\0n5\0r6\0"));
    six.take_events(&mut s);
    s.rm("/local/domain/5/a").unwrap();
    assert_eq!(six.event_paths(&mut s), [format!("{base}/a/b/c")], "path = watched path");
}

#[test]
fn whoever_could_read_a_node_hears_that_it_no_longer_can() {
    let (mut s, _, mut five, mut six) = two_guests();
    ok(five.ask(&mut s, Write, "x\0v"));
    ok(five.ask(&mut s, SetPerms, "x\0n5\0r6\0"));
    ok(six.ask(&mut s, Watch, "/local/domain/5/x\0t\0"));
    six.take_events(&mut s);
    ok(five.ask(&mut s, SetPerms, "x\0n5\0"));
    assert_eq!(six.event_paths(&mut s), ["/local/domain/5/x"], "the parent is closed to it too");
    ok(five.ask(&mut s, Write, "x\0w"));
    assert!(six.event_paths(&mut s).is_empty());
}

#[test]
fn inherited_permissions_are_part_of_a_transaction() {
    let (mut s, _, mut five, _) = two_guests();
    ok(five.ask(&mut s, Write, "a/b\0v"));
    let t = five.start(&mut s);
    five.call_in(&mut s, Rm, t, b"a\0").unwrap();
    five.call_in(&mut s, Write, t, b"a/b\0v").unwrap();
    // The new a/b inherits from the home, which was not named by the transaction.
    s.set_permissions("/local/domain/5", "r5".parse().unwrap()).unwrap();
    assert_eq!(five.end(&mut s, t, "T"), Err("EAGAIN".into()));
}

#[test]
fn equal_waiting_events_are_joined_in_order() {
    let mut s = Store::default();
    s.watch("/w", "t").unwrap();
    for path in ["/w/1", "/w/2", "/w/1", "/w"] {
        s.write(path, "").unwrap();
    }
    let paths: Vec<_> =
        std::iter::from_fn(|| s.next_event()).map(|event| event.path.to_string()).collect();
    assert_eq!(paths, ["/w", "/w/1", "/w/2"]);
    s.write("/w/1", "").unwrap();
    assert!(s.next_event().is_some(), "taken events may come again");
    s.write("/w/1", "").unwrap();
    s.unwatch("/w", "t").unwrap();
    assert_eq!(s.next_event(), None);
}

#[test]
fn transactions_commit_abort_and_conflict() {
    let (mut s, mut host, mut five, _) = two_guests();
    s.watch("/local/domain/5", "w").unwrap();
    s.next_event().unwrap();
    let t = five.start(&mut s);
    five.call_in(&mut s, Write, t, b"ring-ref\x008").unwrap();
    five.call_in(&mut s, Write, t, b"state\x003").unwrap();
    assert_eq!(five.call_in(&mut s, Read, t, b"state\0").unwrap(), b"3");
    fails(five.ask(&mut s, Read, "state\0"), "ENOENT");
    assert_eq!(s.next_event(), None, "nothing fires before the commit");
    five.end(&mut s, t, "T").unwrap();
    assert_eq!(&*s.next_event().unwrap().path, "/local/domain/5/ring-ref");
    assert_eq!(s.read("/local/domain/5/ring-ref").unwrap(), b"8");
    assert_eq!(&*s.next_event().unwrap().path, "/local/domain/5/state");

    let t = five.start(&mut s);
    five.call_in(&mut s, Rm, t, b"state\0").unwrap();
    five.end(&mut s, t, "F").unwrap();
    assert_eq!(s.read("/local/domain/5/state").unwrap(), b"3");
    assert_eq!(five.end(&mut s, t, "T"), Err("ENOENT".into()), "it has ended");

    let t = five.start(&mut s);
    five.call_in(&mut s, Read, t, b"state\0").unwrap();
    five.call_in(&mut s, Write, t, b"copy\x003").unwrap();
    ok(host.ask(&mut s, Write, "/local/domain/5/state\x004"));
    assert_eq!(five.call_in(&mut s, Read, t, b"state\0").unwrap(), b"3", "a snapshot");
    assert_eq!(five.end(&mut s, t, "T"), Err("EAGAIN".into()));
    assert!(!s.exists("/local/domain/5/copy"));
}

#[test]
fn independent_transactions_do_not_conflict() {
    let (mut s, mut host, mut five, _) = two_guests();
    let (a, b) = (five.start(&mut s), host.start(&mut s));
    assert_eq!(five.call_in(&mut s, Write, a, b"dir/one\0v").unwrap(), b"OK\0");
    host.call_in(&mut s, Write, b, b"/local/domain/6/x\0v").unwrap();
    host.end(&mut s, b, "T").unwrap();
    five.end(&mut s, a, "T").unwrap();
    let (a, b) = (five.start(&mut s), host.start(&mut s));
    five.call_in(&mut s, Write, a, b"dir/two\0v").unwrap();
    host.call_in(&mut s, Write, b, b"/local/domain/5/dir/three\0v").unwrap();
    host.end(&mut s, b, "T").unwrap();
    five.end(&mut s, a, "T").unwrap();
    assert_eq!(s.list("/local/domain/5/dir").unwrap().collect::<Vec<_>>(), ["one", "three", "two"]);
    let (a, b) = (five.start(&mut s), host.start(&mut s));
    five.call_in(&mut s, Directory, a, b"dir\0").unwrap();
    five.call_in(&mut s, Write, a, b"count\x003").unwrap();
    host.call_in(&mut s, Write, b, b"/local/domain/5/dir/four\0v").unwrap();
    host.end(&mut s, b, "T").unwrap();
    assert_eq!(five.end(&mut s, a, "T"), Err("EAGAIN".into()), "it has seen the listing");
    assert!(s.is_consistent());
}

#[test]
fn transaction_requests_are_checked() {
    let (mut s, _, mut five, mut six) = two_guests();
    let t = five.start(&mut s);
    assert_eq!(five.call_in(&mut s, TransactionStart, t, b"\0"), Err("EBUSY".into()));
    fails(five.ask(&mut s, TransactionStart, ""), "EINVAL");
    fails(five.ask(&mut s, TransactionEnd, "T\0"), "ENOENT");
    assert_eq!(five.end(&mut s, t, "X"), Err("EINVAL".into()));
    assert_eq!(five.call_in(&mut s, Read, 77, b"x\0"), Err("ENOENT".into()));
    assert_eq!(six.call_in(&mut s, Read, t, b"x\0"), Err("ENOENT".into()), "not its own");
    five.end(&mut s, t, "T").unwrap();
}

#[test]
fn domains_come_and_go() {
    let (mut s, mut host, mut five, mut six) = two_guests();
    for (kind, payload) in [
        (Introduce, "7\x001\x002\0"),
        (Release, "5\0"),
        (Resume, "5\0"),
        (SetTarget, "5\x006\0"),
        (Control, "help\0"),
    ] {
        fails(six.ask(&mut s, kind, payload), "EACCES");
    }
    ok(host.ask(&mut s, Watch, "@introduceDomain\0i\0"));
    ok(host.ask(&mut s, Watch, "@releaseDomain\0r\0"));
    ok(six.ask(&mut s, Watch, "@releaseDomain\0r\0"));
    host.take_events(&mut s);
    six.take_events(&mut s);
    ok(host.ask(&mut s, Introduce, "7\0-3\x009\0"));
    assert_eq!(host.event_paths(&mut s), ["@introduceDomain"]);
    let seven = s.domain(7).unwrap();
    assert_eq!((seven.gfn, seven.port), (-3, 9));
    ok(host.ask(&mut s, Introduce, "7\x004\x0011\0"));
    assert!(host.event_paths(&mut s).is_empty(), "known already");
    assert_eq!(s.domain(7).unwrap().port, 11);
    for bad in ["0\x001\x001\0", "32752\x001\x001\0", "7\x001\0", "x\x001\x001\0", "7\0z\x001\0"] {
        fails(host.ask(&mut s, Introduce, bad), "EINVAL");
    }
    for (domid, known) in [("0", "T\0"), ("7", "T\0"), ("8", "F\0")] {
        let reply = six.ask(&mut s, IsDomainIntroduced, &format!("{domid}\0")).unwrap();
        assert_eq!(reply, known);
    }
    assert_eq!(six.ask(&mut s, GetDomainPath, "99\0").unwrap(), "/local/domain/99\0");
    fails(six.ask(&mut s, GetDomainPath, "x\0"), "EINVAL");

    s.shut_down(7).unwrap();
    s.shut_down(7).unwrap();
    assert_eq!(host.event_paths(&mut s), ["@releaseDomain"], "once");
    ok(host.ask(&mut s, Resume, "7\0"));
    s.shut_down(7).unwrap();
    assert_eq!(host.event_paths(&mut s), ["@releaseDomain"], "armed again");
    assert!(six.event_paths(&mut s).is_empty(), "special names are closed to guests");
    fails(six.ask(&mut s, GetPerms, "@releaseDomain\0"), "EACCES");
    ok(host.ask(&mut s, SetPerms, "@releaseDomain\0n0\0r6\0"));
    assert_eq!(six.ask(&mut s, GetPerms, "@releaseDomain\0").unwrap(), "n0\0r6\0");
    ok(host.ask(&mut s, Release, "7\0"));
    assert_eq!(six.event_paths(&mut s), ["@releaseDomain"], "unless permitted");
    fails(host.ask(&mut s, Release, "7\0"), "ENOENT");
    fails(host.ask(&mut s, Resume, "7\0"), "ENOENT");

    ok(five.ask(&mut s, Write, "x\0v"));
    ok(five.ask(&mut s, SetPerms, "x\0r5\0b6\0"));
    ok(host.ask(&mut s, Release, "5\0"));
    assert_eq!(s.permissions("/local/domain/5/x").unwrap().to_string(), "r0,b6");
    assert_eq!(s.nodes_owned_by(5), 0);
    assert!(s.is_consistent());
}

#[test]
fn a_device_model_has_the_rights_of_its_target() {
    let (mut s, mut host, mut five, mut six) = two_guests();
    ok(five.ask(&mut s, Write, "x\0v"));
    fails(six.ask(&mut s, Read, "/local/domain/5/x\0"), "EACCES");
    fails(host.ask(&mut s, SetTarget, "6\x0099\0"), "ENOENT");
    ok(host.ask(&mut s, SetTarget, "6\x005\0"));
    assert_eq!(six.ask(&mut s, Read, "/local/domain/5/x\0").unwrap(), "v");
    ok(host.ask(&mut s, Release, "5\0"));
    assert_eq!(s.domain(6).unwrap().target, None);
}

#[test]
fn reset_drops_watches_and_transactions() {
    let (mut s, _, mut five, _) = two_guests();
    ok(five.ask(&mut s, Watch, "a\0t\0"));
    let t = five.start(&mut s);
    five.take_events(&mut s);
    ok(five.ask(&mut s, ResetWatches, "\0"));
    ok(five.ask(&mut s, Write, "a\0v"));
    assert!(five.take_events(&mut s).is_empty());
    assert_eq!(five.end(&mut s, t, "T"), Err("ENOENT".into()));
    ok(five.ask(&mut s, Watch, "a\0t\0"));
}

#[test]
fn control_and_unknown_types() {
    let (mut s, mut host, mut five, _) = two_guests();
    assert!(host.ask(&mut s, Control, "help\0").unwrap().contains("check"));
    ok(host.ask(&mut s, Control, "check\0"));
    ok(five.ask(&mut s, Mkdir, "a\0"));
    let usage = host.ask(&mut s, Control, "quota\x005\0").unwrap();
    assert!(usage.starts_with("nodes 2/1000 bytes 10/1048576 watches 0/128"), "{usage}");
    fails(host.ask(&mut s, Control, "nonsense\0"), "EINVAL");
    fails(host.ask(&mut s, Control, ""), "EINVAL");
    for number in [15, 16, 20, 24, 27, 0xffff, u32::MAX] {
        let reply = five.call_number(&mut s, number, 0, b"a\0");
        assert_eq!(reply, Err("ENOSYS".into()), "type {number}");
    }
}

#[test]
fn a_long_payload_breaks_the_connection() {
    let mut s = Store::default();
    let mut client = Client::open(&mut s, 0);
    let longest = [b"/a\0".as_slice(), &[7; 4093]].concat();
    assert_eq!(client.call(&mut s, Write, &longest).unwrap(), b"OK\0");
    assert_eq!(client.call(&mut s, Read, b"/a\0").unwrap().len(), 4093);
    let mut header = encode(2, 1, 0, b"");
    header[12..16].copy_from_slice(&4097_u32.to_ne_bytes());
    assert!(client.connection.input(&mut s, &header).is_err());
    assert!(client.connection.input(&mut s, &encode(2, 1, 0, b"/a\0")).is_err(), "for good");
    client.connection.reset(&mut s);
    assert_eq!(client.call(&mut s, Read, b"/a\0").unwrap().len(), 4093);
}

#[test]
fn a_closed_connection_leaves_nothing() {
    let (mut s, mut host, mut five, mut six) = two_guests();
    ok(five.ask(&mut s, Watch, "a\0t\0"));
    five.start(&mut s);
    five.connection.close(&mut s);
    let usage = host.ask(&mut s, Control, "quota\x005\0").unwrap();
    assert!(usage.contains("watches 0/") && usage.contains("transactions 0/"), "{usage}");
    ok(six.ask(&mut s, Write, "a\0v"));
}

#[test]
fn error_names_round_trip() {
    for name in ["EINVAL", "EACCES", "EEXIST", "EISDIR", "ENOENT", "ENOMEM", "ENOSPC", "EIO"]
        .into_iter()
        .chain(["ENOTEMPTY", "ENOSYS", "EROFS", "EBUSY", "EAGAIN", "EISCONN", "E2BIG", "EPERM"])
    {
        assert_eq!(Errno::from_name(name).unwrap().name(), name);
    }
    assert_eq!(Errno::from_name("EFOO"), None);
}

#[test]
fn host_side_dump_and_load() {
    let (mut s, _, mut five, _) = two_guests();
    ok(five.ask(&mut s, Write, "a/b\0v"));
    ok(five.ask(&mut s, SetPerms, "a\0n5\0r6\0"));
    let records = s.dump("/local/domain/5").unwrap();
    let paths: Vec<_> = records.iter().map(|record| record.path.as_str()).collect();
    let home = "/local/domain/5";
    assert_eq!(paths, [home.to_owned(), format!("{home}/a"), format!("{home}/a/b")]);
    let mut other = Store::default();
    other.load(&records).unwrap();
    assert_eq!(other.dump(home).unwrap(), records);
    assert_eq!(other.nodes_owned_by(5), 3);
    assert!(other.is_consistent());
}

#[test]
fn pipelined_requests_wait_while_replies_do() {
    let mut s = Store::default();
    s.write("/a", "v").unwrap();
    let mut client = Client::open(&mut s, 0);
    let requests: Vec<u8> = (0..50).flat_map(|i| encode(2, i, 0, b"/a\0")).collect();
    let first = client.connection.input(&mut s, &requests).unwrap();
    assert_eq!(first, 20 * requests.len() / 50, "20 outstanding replies");
    assert_eq!(client.connection.input(&mut s, &requests[first..]).unwrap(), 0);
    let (mut sent, mut stream) = (first, client.take_output(&mut s));
    while sent < requests.len() {
        sent += client.connection.input(&mut s, &requests[sent..]).unwrap();
        stream.extend(client.take_output(&mut s));
    }
    let order: Vec<_> = split_messages(&mut stream).iter().map(|(h, _)| h.request).collect();
    assert_eq!(order, (0..50).collect::<Vec<_>>());
    assert!(client.connection.is_idle(&s));
}

#[test]
fn watches_of_a_depth() {
    let (mut s, mut host, _, _) = two_guests();
    for depth in 0..3 {
        ok(host.ask(&mut s, Watch, &format!("/w\0depth{depth}\0{depth}\0")));
    }
    host.take_events(&mut s);
    let mut tokens = |s: &mut Store, path: &str| {
        s.write(path, "v").unwrap();
        host.take_events(s).into_iter().map(|(_, token)| token).collect::<Vec<_>>()
    };
    assert_eq!(tokens(&mut s, "/w"), ["depth0", "depth1", "depth2"]);
    assert_eq!(tokens(&mut s, "/w/a"), ["depth1", "depth2"]);
    assert_eq!(tokens(&mut s, "/w/a/b"), ["depth2"]);
    assert!(tokens(&mut s, "/w/a/b/c").is_empty());
    s.rm("/w").unwrap();
    assert_eq!(host.take_events(&mut s).len(), 3, "their own node went");
    ok(host.ask(&mut s, Unwatch, "/w\0depth1\0"));
    ok(host.ask(&mut s, Watch, "/\0root\x001\0"));
    host.take_events(&mut s);
    s.write("/x/y", "").unwrap();
    assert!(host.take_events(&mut s).is_empty());
    s.write("/x", "").unwrap();
    assert_eq!(host.event_paths(&mut s), ["/x"]);
}

#[test]
fn special_names_can_say_the_domain() {
    let mut s = Store::default();
    let mut host = Client::open(&mut s, 0);
    ok(host.ask(&mut s, Watch, "@introduceDomain\0plain\0"));
    ok(host.ask(&mut s, Watch, "@introduceDomain\0named\x001\0"));
    ok(host.ask(&mut s, Watch, "@releaseDomain\0named\x001\0"));
    host.take_events(&mut s);
    ok(host.ask(&mut s, Introduce, "7\x005\x003\0"));
    assert_eq!(host.event_paths(&mut s), ["@introduceDomain", "@introduceDomain/7"]);
    ok(host.ask(&mut s, Release, "7\0"));
    assert_eq!(host.event_paths(&mut s), ["@releaseDomain/7"]);
}

#[test]
fn features_and_quotas() {
    let (mut s, mut host, mut five, _) = two_guests();
    assert_eq!(host.ask(&mut s, GetFeature, "").unwrap(), "7\0");
    assert_eq!(host.ask(&mut s, GetFeature, "5\0").unwrap(), "7\0");
    let names = host.ask(&mut s, GetQuota, "").unwrap();
    assert!(names.split(' ').any(|name| name == "nodes"), "{names}");
    assert_eq!(host.ask(&mut s, GetQuota, "nodes\0").unwrap(), "1000\0");
    ok(host.ask(&mut s, SetQuota, "5\0nodes\x002\0"));
    assert_eq!(host.ask(&mut s, GetQuota, "5\0nodes\0").unwrap(), "2\0");
    assert_eq!(host.ask(&mut s, GetQuota, "6\0nodes\0").unwrap(), "1000\0");
    ok(five.ask(&mut s, Mkdir, "a\0"));
    fails(five.ask(&mut s, Mkdir, "b\0"), "ENOSPC");
    ok(host.ask(&mut s, SetQuota, "watches\x000\0"));
    fails(five.ask(&mut s, SetQuota, "nodes\x009\0"), "EACCES");
    fails(host.ask(&mut s, GetQuota, "nonsense\0"), "EINVAL");
    fails(host.ask(&mut s, SetQuota, "nodes\0many\0"), "EINVAL");
}
