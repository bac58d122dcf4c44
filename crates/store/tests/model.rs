//! The store against a plain map, and transactions against serial execution.

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use store::wire::MessageType;
use store::{Permissions, Store};
use support::Client;

/// Path to value; every ancestor of a path is a path.
type Model = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Debug)]
enum Op {
    Read(String),
    List(String),
    Write(String, u8),
    Mkdir(String),
    Remove(String),
}

type Reply = Result<Vec<u8>, String>;

fn parent(path: &str) -> &str {
    &path[..path.rfind('/').unwrap()]
}

fn create(model: &mut Model, path: &str) {
    let mut path = path;
    while !model.contains_key(path) {
        model.insert(path.to_owned(), Vec::new());
        path = parent(path);
    }
}

fn run_model(model: &mut Model, op: &Op) -> Reply {
    let ok = || Ok(b"OK\0".to_vec());
    let missing = || Err("ENOENT".to_owned());
    match op {
        Op::Read(path) => model.get(path).cloned().map_or_else(missing, Ok),
        Op::List(path) if !model.contains_key(path) => missing(),
        Op::List(path) => {
            let below = model.keys().filter(|key| key.starts_with('/') && parent(key) == path);
            Ok(below.flat_map(|key| format!("{}\0", &key[path.len() + 1..]).into_bytes()).collect())
        }
        Op::Write(path, value) => {
            create(model, path);
            model.insert(path.clone(), vec![*value]);
            ok()
        }
        Op::Mkdir(path) => {
            create(model, path);
            ok()
        }
        Op::Remove(path) if !model.contains_key(parent(path)) => missing(),
        Op::Remove(path) => {
            let below = format!("{path}/");
            model.retain(|key, _| key != path && !key.starts_with(&below));
            ok()
        }
    }
}

fn run_store(store: &mut Store, client: &mut Client, transaction: u32, op: &Op) -> Reply {
    let (kind, path) = match op {
        Op::Read(path) => (MessageType::Read, path),
        Op::List(path) => (MessageType::Directory, path),
        Op::Write(path, _) => (MessageType::Write, path),
        Op::Mkdir(path) => (MessageType::Mkdir, path),
        Op::Remove(path) => (MessageType::Rm, path),
    };
    let mut payload = format!("{path}\0").into_bytes();
    if let Op::Write(_, value) = op {
        payload.push(*value);
    }
    client.call_in(store, kind, transaction, &payload)
}

fn snapshot(store: &Store) -> Model {
    let records = store.dump("/m").unwrap();
    records.into_iter().map(|record| (record.path.to_string(), record.value)).collect()
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|names| format!("/m/{}", names.join("/")))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => path().prop_map(Op::Read),
        1 => path().prop_map(Op::List),
        1 => Just(Op::List("/m".to_owned())),
        3 => (path(), any::<u8>()).prop_map(|(path, value)| Op::Write(path, value)),
        1 => path().prop_map(Op::Mkdir),
        1 => path().prop_map(Op::Remove),
    ]
}

/// What one of three clients does next.
#[derive(Clone, Debug)]
enum Step {
    /// In its transaction, which starts if there is none.
    InTransaction(Op),
    Direct(Op),
    Commit,
    Abort,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        6 => op().prop_map(Step::InTransaction),
        1 => op().prop_map(Step::Direct),
        2 => Just(Step::Commit),
        1 => Just(Step::Abort),
    ];
    (0..3_usize, step)
}

fn prepared() -> Store {
    let mut store = Store::default();
    store.mkdir("/m").unwrap();
    store.set_permissions("/m", "b0".parse::<Permissions>().unwrap()).unwrap();
    store
}

/// An open transaction as the test follows it.
struct Open {
    id: u32,
    /// What the transaction must see: the state at its start with its own changes.
    view: Model,
    done: Vec<(Op, Reply)>,
    is_changed: bool,
    commits_at_start: usize,
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn behaves_like_a_map(ops in prop::collection::vec(op(), 1..80)) {
        let mut store = prepared();
        let mut client = Client::open(&mut store, 5);
        let mut model = Model::from([("/m".to_owned(), Vec::new())]);
        for op in &ops {
            let reply = run_store(&mut store, &mut client, 0, op);
            prop_assert_eq!(reply, run_model(&mut model, op), "{:?}", op);
            prop_assert_eq!(snapshot(&store), model.clone());
        }
        prop_assert!(store.is_consistent());
    }

    /// A commit either has the effect and the replies of running the whole transaction at that
    /// very moment, or it is EAGAIN and has none. Without changes by others it never fails.
    /// One that changed nothing saw the state at its start, which the views check.
    #[test]
    fn transactions_are_serial_or_fail(steps in prop::collection::vec(step(), 1..120)) {
        let mut store = prepared();
        let mut clients = [0, 5, 6].map(|domid| Client::open(&mut store, domid));
        let mut model = Model::from([("/m".to_owned(), Vec::new())]);
        let mut open: [Option<Open>; 3] = [None, None, None];
        let mut commits = 0;
        for (who, step) in steps {
            let client = &mut clients[who];
            match step {
                Step::Direct(op) => {
                    let reply = run_store(&mut store, client, 0, &op);
                    prop_assert_eq!(reply, run_model(&mut model, &op));
                    commits += 1;
                }
                Step::InTransaction(op) => {
                    let t = open[who].get_or_insert_with(|| Open {
                        id: client.start(&mut store),
                        view: model.clone(),
                        done: Vec::new(),
                        is_changed: false,
                        commits_at_start: commits,
                    });
                    let reply = run_store(&mut store, client, t.id, &op);
                    prop_assert_eq!(&reply, &run_model(&mut t.view, &op), "{:?}", op);
                    let is_change = !matches!(op, Op::Read(_) | Op::List(_));
                    t.is_changed |= is_change && reply.is_ok();
                    t.done.push((op, reply));
                }
                Step::Commit | Step::Abort => {
                    let Some(t) = open[who].take() else { continue };
                    let is_commit = matches!(step, Step::Commit);
                    let result = client.end(&mut store, t.id, if is_commit { "T" } else { "F" });
                    if !is_commit {
                        prop_assert_eq!(result, Ok(()));
                    } else if result.is_ok() && t.is_changed {
                        for (op, reply) in &t.done {
                            let serial = run_model(&mut model, op);
                            prop_assert_eq!(&serial, reply, "{:?}", op);
                        }
                        commits += 1;
                    } else if result.is_err() {
                        prop_assert_eq!(result, Err("EAGAIN".to_owned()));
                        prop_assert_ne!(t.commits_at_start, commits);
                    }
                }
            }
            prop_assert_eq!(snapshot(&store), model.clone());
        }
        prop_assert!(store.is_consistent());
    }

    /// Each watch hears of exactly the changes at or below its path.
    #[test]
    fn watches_follow_the_changes(
        watched in prop::collection::btree_set(path(), 1..6),
        ops in prop::collection::vec(op(), 1..40),
    ) {
        let mut store = prepared();
        let mut client = Client::open(&mut store, 5);
        for path in &watched {
            store.watch(path, path).unwrap();
        }
        while store.next_event().is_some() {}
        for op in &ops {
            let before = snapshot(&store);
            run_store(&mut store, &mut client, 0, op).ok();
            let changed = match op {
                Op::Write(path, _) => Some(path),
                Op::Mkdir(path) if !before.contains_key(path) => Some(path),
                Op::Remove(path) if before.contains_key(path) => Some(path),
                _ => None,
            };
            let is_below = |path: &str, ancestor: &str| path.starts_with(&format!("{ancestor}/"));
            let mut expected = Vec::new();
            for (path, token) in changed.iter().flat_map(|path| watched.iter().map(move |w| (path, w))) {
                if *path == token || is_below(path, token) {
                    expected.push((path.to_string(), token.clone()));
                } else if matches!(op, Op::Remove(_)) && is_below(token, path) && before.contains_key(token) {
                    expected.push((token.clone(), token.clone()));
                }
            }
            let mut events: Vec<_> = std::iter::from_fn(|| store.next_event())
                .map(|e| (e.path.to_string(), String::from_utf8(e.token.to_vec()).unwrap()))
                .collect();
            events.sort();
            expected.sort();
            prop_assert_eq!(events, expected, "{:?}", op);
        }
    }
}
