//! A store made from a journal is the store that wrote it, wherever the journal was cut off.

mod support;

use proptest::prelude::*;
use store::wire::MessageType::{self, Mkdir, Rm, SetPerms, Watch, Write};
use store::{NodeRecord, Store};
use support::Client;

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|names| format!("/m/{}", names.join("/")))
}

/// A request, by which client and whether in its transaction.
#[derive(Clone, Debug)]
enum Step {
    Request(usize, bool, MessageType, String),
    End(usize, bool),
    Introduce(u16),
    Release(u16),
    ShutDown(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let request = prop_oneof![
        3 => (path(), any::<u16>()).prop_map(|(path, n)| (Write, format!("{path}\0{n}"))),
        1 => path().prop_map(|path| (Mkdir, format!("{path}\0"))),
        1 => path().prop_map(|path| (Rm, format!("{path}\0"))),
        1 => path().prop_map(|path| (SetPerms, format!("{path}\0b0\0r5\0"))),
        1 => Just((SetPerms, "@releaseDomain\0n0\0r5\0".to_owned())),
        1 => path().prop_map(|path| (Watch, format!("{path}\0t\0"))),
    ];
    prop_oneof![
        8 => (0..2_usize, any::<bool>(), request)
            .prop_map(|(who, inside, (kind, payload))| Step::Request(who, inside, kind, payload)),
        2 => (0..2_usize, any::<bool>()).prop_map(|(who, commit)| Step::End(who, commit)),
        1 => (4..7_u16).prop_map(Step::Introduce),
        1 => (4..7_u16).prop_map(Step::Release),
        1 => (4..7_u16).prop_map(Step::ShutDown),
    ]
}

type State = (Vec<NodeRecord>, Vec<String>, usize, usize);

fn state(store: &Store) -> State {
    let domains = store.domains().map(|(domid, domain)| format!("{domid} {domain:?}"));
    let owned = (store.nodes_owned_by(5), store.bytes_owned_by(5));
    (store.dump("/").unwrap(), domains.collect(), owned.0, owned.1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn goes_on_from_any_cut(steps in prop::collection::vec(step(), 1..60), cut in any::<prop::sample::Index>()) {
        let mut store = Store::default();
        store.keep_journal();
        store.mkdir("/m").unwrap();
        store.set_permissions("/m", "b0".parse().unwrap()).unwrap();
        let mut disk = store.picture();
        let mut clients = [0, 5].map(|domid| Client::open(&mut store, domid));
        let mut open = [None, None];
        // The state after each prefix of the journal.
        let mut states = vec![(disk.len(), state(&store))];
        for step in steps {
            match step {
                Step::Request(who, inside, kind, payload) => {
                    let transaction = if inside {
                        *open[who].get_or_insert_with(|| clients[who].start(&mut store))
                    } else {
                        0
                    };
                    clients[who].call_in(&mut store, kind, transaction, payload.as_bytes()).ok();
                }
                Step::End(who, commit) => {
                    if let Some(id) = open[who].take() {
                        clients[who].end(&mut store, id, if commit { "T" } else { "F" }).ok();
                    }
                }
                Step::Introduce(domid) => store.introduce(domid, i64::from(domid), 3).unwrap(),
                Step::Release(domid) => drop(store.release(domid)),
                Step::ShutDown(domid) => drop(store.shut_down(domid)),
            }
            disk.extend(store.take_journal());
            states.push((disk.len(), state(&store)));
        }
        // Whole, and cut anywhere behind the picture.
        let first = states[0].0;
        for length in [disk.len(), first + cut.index(disk.len() - first + 1)] {
            let mut restored = Store::restore(&disk[..length]).unwrap();
            let (whole, expected) = states.iter().rev().find(|(end, _)| *end <= length).unwrap();
            // A step may have written several records; then the cut may lie between them.
            let is_between = states.iter().all(|(end, _)| *end != length - restored.lost);
            if !is_between {
                prop_assert_eq!(&state(&restored.store), expected);
                prop_assert_eq!(restored.lost, length - whole);
            }
            prop_assert!(restored.store.is_consistent());
            // Its own picture says the same.
            let before = state(&restored.store);
            let picture = restored.store.picture();
            let again = Store::restore(&picture).unwrap();
            prop_assert_eq!(state(&again.store), before);
            prop_assert_eq!(again.lost, 0);
        }
    }

    #[test]
    fn damaged_journals_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400), at in any::<prop::sample::Index>()) {
        prop_assert!(Store::restore(&bytes).is_none());
        let mut store = Store::default();
        store.keep_journal();
        store.write("/a/b", "value").unwrap();
        let mut disk = store.picture();
        store.write("/a/c", "value").unwrap();
        disk.extend(store.take_journal());
        let at = at.index(disk.len());
        disk.splice(at..at, bytes);
        if let Some(restored) = Store::restore(&disk) {
            prop_assert!(restored.store.is_consistent());
        }
    }
}

/// A record that says it is a change of another number is not what was written next.
#[test]
fn changes_follow_each_other() {
    let mut store = Store::default();
    store.keep_journal();
    let mut disk = store.picture();
    let mut write = |value: &str| {
        store.write("/a", value).unwrap();
        store.take_journal()
    };
    let [one, two, three] = ["1", "2", "3"].map(&mut write);
    disk.extend_from_slice(&one);
    disk.extend_from_slice(&three);
    let restored = Store::restore(&disk).unwrap();
    assert_eq!((restored.store.read("/a").unwrap(), restored.lost), (b"1".as_slice(), three.len()));
    disk.truncate(disk.len() - three.len());
    disk.extend_from_slice(&two);
    disk.extend_from_slice(&three);
    assert_eq!(Store::restore(&disk).unwrap().store.read("/a").unwrap(), b"3");
}

/// Nobody but ordinary domains can own a node: a record that says so is not carried out, nor is one
/// that has too much in it.
#[test]
fn records_that_make_no_sense_change_nothing() {
    let mut store = Store::default();
    store.keep_journal();
    store.write("/a", "1").unwrap();
    let picture = store.picture();
    // CHANGES, number 2, no mark, caller, no target, one change: MKDIR of /b.
    let body = |caller: u16, rest: &[u8]| {
        let mut body = vec![9];
        body.extend_from_slice(&2_u64.to_le_bytes());
        body.push(0);
        body.extend_from_slice(&caller.to_le_bytes());
        body.extend_from_slice(&[0, 0, 0]);
        body.extend_from_slice(&1_u64.to_le_bytes());
        body.extend_from_slice(&[2, 2, 0, 0, 0, b'/', b'b']);
        body.extend_from_slice(rest);
        body
    };
    for (body, is_done) in
        [(body(0, b""), true), (body(0xfaf7, b""), false), (body(0, b"x"), false)]
    {
        let mut journal = picture.clone();
        journal.extend_from_slice(&(body.len() as u32).to_le_bytes());
        journal.extend_from_slice(&crc(&body).to_le_bytes());
        journal.extend_from_slice(&body);
        let mut restored = Store::restore(&journal).unwrap();
        assert_eq!(restored.lost == 0, is_done);
        assert_eq!(restored.store.read("/b").is_ok(), is_done);
        let again = Store::restore(&restored.store.picture()).expect("a whole picture");
        assert_eq!(again.store.dump("/"), restored.store.dump("/"));
    }
}

/// CRC-32 as in IEEE 802.3.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}
