//! Domains that come and go: who may speak for one, and what is removed when it is gone.

use std::os::unix::net::UnixStream;

use control::Registry;
use store::{Domid, Peer, Store};

/// Nodes that are there from the beginning, with their values.
const FIRST_NODES: [(&str, &str); 5] = [
    ("/tool/xenstored", ""),
    ("/local/domain/0/domid", "0"),
    ("/local/domain/0/name", "Domain-0"),
    ("/vm", ""),
    ("/libxl", ""),
];

/// Makes the nodes that are there from the beginning. They cannot fail: their paths are good.
pub(crate) fn make_first_nodes(store: &mut Store) {
    for (path, value) in FIRST_NODES {
        if !store.exists(path) {
            let _path_is_good = store.write(path, value);
        }
    }
}

/// Whether the process at the other end may speak for the domain: the one that the registry names.
///
/// # Errors
/// Says why not.
pub(crate) fn admit(registry: &Registry, stream: &UnixStream, peer: Peer) -> Result<(), String> {
    let domid = u32::from(peer.domid);
    let Some(entry) = registry.living(domid) else {
        return Err(format!("There is no domain {domid}"));
    };
    let process = rustix::net::sockopt::socket_peercred(stream)
        .map_err(|error| format!("The process cannot be asked for its name: {error}"))?;
    if process.pid.as_raw_nonzero().get().cast_unsigned() != entry.pid {
        return Err(format!("Domain {domid} is served by process {}", entry.pid));
    }
    Ok(())
}

/// Domains that have nodes, as their processes make them before they introduce themselves. One may be
/// killed in between.
pub(crate) fn homes(store: &Store) -> Vec<Domid> {
    let is_own = |domid: &Domid| {
        let path = format!("/local/domain/{domid}/domid");
        *domid != 0 && text(store, &path).is_some_and(|own| own == domid.to_string())
    };
    names(store, "/local/domain")
        .iter()
        .filter_map(|name| name.parse().ok())
        .filter(is_own)
        .collect()
}

/// Removes what a domain that is gone leaves, and releases it.
pub(crate) fn retire(store: &mut Store, domid: Domid) {
    let home = format!("/local/domain/{domid}");
    let vm = text(store, &format!("{home}/vm"));
    let mut gone = vec![home, format!("/libxl/{domid}")];
    let kinds: Vec<String> = names(store, "/local/domain/0/backend");
    gone.extend(kinds.iter().map(|kind| format!("/local/domain/0/backend/{kind}/{domid}")));
    if let Some(vm) = vm.filter(|vm| vm.starts_with("/vm/") && !is_used(store, vm, domid)) {
        gone.push(vm);
    }
    for path in gone {
        if store.exists(&path) {
            let _exists = store.rm(&path);
        }
    }
    let _may_be_unknown = store.release(domid);
}

/// Whether a domain other than `domid` has this virtual machine: one that was started anew.
fn is_used(store: &Store, vm: &str, domid: Domid) -> bool {
    let own = domid.to_string();
    let others = names(store, "/local/domain").into_iter().filter(|name| *name != own);
    others.into_iter().any(|name| {
        text(store, &format!("/local/domain/{name}/vm")).is_some_and(|other| other == vm)
    })
}

fn names(store: &Store, path: &str) -> Vec<String> {
    store.list(path).map(|names| names.map(str::to_owned).collect()).unwrap_or_default()
}

fn text(store: &Store, path: &str) -> Option<String> {
    String::from_utf8(store.read(path).ok()?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_known_by_their_nodes_before_they_are_introduced() {
        let mut store = Store::default();
        make_first_nodes(&mut store);
        store.write("/local/domain/7/domid", "7").unwrap();
        store.write("/local/domain/8/domid", "9").unwrap();
        store.write("/local/domain/9/name", "somebody else's").unwrap();
        assert_eq!(homes(&store), [7]);
    }

    #[test]
    fn a_domain_takes_everything_of_its_own_with_it() {
        let mut store = Store::default();
        make_first_nodes(&mut store);
        for domid in [1, 2, 3] {
            store.introduce(domid, 5, 1).unwrap();
            store.write(&format!("/local/domain/{domid}/name"), "x").unwrap();
            store.write(&format!("/local/domain/0/backend/vif/{domid}/0/state"), "1").unwrap();
            let vm = format!("/vm/{}", if domid == 3 { "b" } else { "a" });
            store.write(&format!("/local/domain/{domid}/vm"), &vm).unwrap();
            store.write(&format!("{vm}/name"), "x").unwrap();
        }
        retire(&mut store, 1);
        assert!(!store.exists("/local/domain/1") && !store.exists("/local/domain/0/backend/vif/1"));
        assert!(store.exists("/vm/a"), "it is domain 2's too");
        retire(&mut store, 2);
        assert!(!store.exists("/vm/a"));
        assert!(store.exists("/vm/b") && store.exists("/local/domain/0/backend/vif/3/0/state"));
        assert_eq!(store.domains().count(), 1);
        retire(&mut store, 9);
    }
}
