//! Watches, and the queue of events that a client has not taken yet.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::client::ClientId;
use crate::path::{Path, PathError, check, is_at_or_below};
use crate::permissions::Domid;

/// Special name that fires when a domain is introduced.
pub(crate) const INTRODUCE_DOMAIN: &str = "@introduceDomain";
/// Special name that fires when a domain shuts down or is released.
pub(crate) const RELEASE_DOMAIN: &str = "@releaseDomain";

/// Something changed at or below a watched path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// The path that changed; relative if the watch was registered with a relative path.
    pub path: Arc<str>,
    /// The token given with the watch, without the final NUL.
    pub token: Arc<[u8]>,
}

/// What a watch looks at, checked.
#[derive(Clone)]
pub(crate) struct Target {
    /// Absolute path, or a special name.
    key: Arc<str>,
    /// Bytes to cut from absolute paths, so that a relative watch gives relative paths.
    strip: usize,
    /// Levels below the path that are looked at; all of them without one.
    depth: Option<usize>,
}

impl Target {
    pub(crate) fn resolve(
        text: &[u8],
        domid: Domid,
        depth: Option<usize>,
    ) -> Result<Self, PathError> {
        let checked = check(text)?;
        match text.first() {
            Some(b'@') if is_special(checked) => {
                Ok(Self { key: Arc::from(checked), strip: 0, depth })
            }
            Some(b'/') => Ok(Self { key: Arc::from(checked), strip: 0, depth }),
            _ => {
                let path = Path::resolve(text, domid)?;
                let strip = path.as_str().len() - checked.len();
                Ok(Self { key: path.shared(), strip, depth })
            }
        }
    }

    /// Whether the path, which is at or below the target's, is not too deep.
    fn reaches(&self, path: &str) -> bool {
        let Some(depth) = self.depth else { return true };
        let below = path.get(self.key.len()..).unwrap_or_default();
        let levels = match &*self.key {
            "/" if below.is_empty() => 0,
            "/" => 1 + below.matches('/').count(),
            _ => below.matches('/').count(),
        };
        levels <= depth
    }

    pub(crate) fn shown(&self, path: &Arc<str>) -> Arc<str> {
        match (self.strip, path.get(self.strip..)) {
            (0, _) | (_, None) => Arc::clone(path),
            (_, Some(relative)) => Arc::from(relative),
        }
    }

    pub(crate) fn key(&self) -> Arc<str> {
        Arc::clone(&self.key)
    }

    /// The path as the client wrote it.
    pub(crate) fn as_given(&self) -> Arc<str> {
        self.shown(&self.key)
    }
}

/// Whether the text is one of the special names.
pub(crate) fn is_special(text: &str) -> bool {
    text == INTRODUCE_DOMAIN || text == RELEASE_DOMAIN
}

/// One registered watch.
#[derive(Clone)]
pub(crate) struct Watch {
    pub(crate) id: u64,
    pub(crate) client: ClientId,
    pub(crate) target: Target,
    pub(crate) token: Arc<[u8]>,
}

/// All watches of all clients, sorted by path.
#[derive(Default)]
pub(crate) struct Watches {
    by_path: BTreeMap<Arc<str>, Vec<Watch>>,
    last_id: u64,
}

impl Watches {
    /// Registers a watch, unless the client already has the same one.
    pub(crate) fn add(&mut self, client: ClientId, target: Target, token: &[u8]) -> Option<Watch> {
        let list = self.by_path.entry(Arc::clone(&target.key)).or_default();
        if list.iter().any(|watch| watch.is(client, &target, token)) {
            return None;
        }
        self.last_id += 1;
        let watch = Watch { id: self.last_id, client, target, token: Arc::from(token) };
        list.push(watch.clone());
        Some(watch)
    }

    pub(crate) fn remove(
        &mut self,
        client: ClientId,
        target: &Target,
        token: &[u8],
    ) -> Option<Watch> {
        let list = self.by_path.get_mut(&target.key)?;
        let position = list.iter().position(|watch| watch.is(client, target, token))?;
        let watch = list.remove(position);
        if list.is_empty() {
            self.by_path.remove(&target.key);
        }
        Some(watch)
    }

    pub(crate) fn remove_client(&mut self, client: ClientId) {
        self.by_path.retain(|_, list| {
            list.retain(|watch| watch.client != client);
            !list.is_empty()
        });
    }

    /// Watches on exactly this path or special name.
    pub(crate) fn on(&self, key: &str) -> &[Watch] {
        self.by_path.get(key).map_or(&[], Vec::as_slice)
    }

    /// Watches on the path or one of its ancestors, the root's first.
    ///
    /// All texts between an ancestor and the path in sorted order begin with the ancestor. So the
    /// search may jump from any watched path that is no ancestor to the names it has in common
    /// with the path: no ancestor lies between.
    pub(crate) fn covering(&self, path: &str) -> Vec<&Watch> {
        let mut found: Vec<&Vec<Watch>> = Vec::new();
        let mut end = Bound::Included(path);
        while let Some((key, list)) =
            self.by_path.range::<str, _>((Bound::Unbounded, end)).next_back()
        {
            if is_at_or_below(path, key) {
                found.push(list);
                end = Bound::Excluded(&**key);
            } else {
                let common = common(key, path);
                // A key such as /a for the path /ab is its own common start: step over it.
                let is_passed = common.len() == key.len();
                end = if is_passed { Bound::Excluded(common) } else { Bound::Included(common) };
            }
        }
        found.into_iter().rev().flatten().filter(|watch| watch.target.reaches(path)).collect()
    }

    /// All watches of one client.
    pub(crate) fn of(&self, client: ClientId) -> impl Iterator<Item = &Watch> {
        self.by_path.values().flatten().filter(move |watch| watch.client == client)
    }

    /// Watches below the path, in sorted order.
    pub(crate) fn below<'a>(
        &'a self,
        path: &str,
    ) -> impl Iterator<Item = (&'a str, &'a [Watch])> + use<'a> {
        let prefix = format!("{path}/");
        let from = (Bound::Included(&*prefix), Bound::Unbounded);
        let range = self.by_path.range::<str, _>(from);
        range
            .take_while(move |(key, _)| key.starts_with(&*prefix))
            .map(|(key, list)| (&**key, list.as_slice()))
    }
}

/// The longest common start of two ASCII texts.
fn common<'a>(key: &str, path: &'a str) -> &'a str {
    let length = key.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
    path.get(..length).unwrap_or_default()
}

impl Watch {
    fn is(&self, client: ClientId, target: &Target, token: &[u8]) -> bool {
        self.client == client && self.target.strip == target.strip && *self.token == *token
    }

    pub(crate) fn event(&self, path: Arc<str>) -> WatchEvent {
        WatchEvent { path, token: Arc::clone(&self.token) }
    }

    /// Whether a special name's event says which domain it is about.
    pub(crate) fn names_domain(&self) -> bool {
        self.target.depth.is_some_and(|depth| depth > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the jumping search with a plain one on many small path sets.
    #[test]
    fn covering_finds_exactly_the_ancestors() {
        let names = ["a", "b", "a-", "ab", "A"];
        let mut paths = vec!["/".to_owned()];
        for x in names {
            paths.push(format!("/{x}"));
            for y in names {
                paths.push(format!("/{x}/{y}"));
                paths.extend(names.iter().map(|z| format!("/{x}/{y}/{z}")));
            }
        }
        let mut seed = 1_u32;
        for _ in 0..200 {
            let mut watches = Watches::default();
            let mut keys = Vec::new();
            for path in &paths {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if seed >> 30 == 0 {
                    watches.add(
                        ClientId(1),
                        Target::resolve(path.as_bytes(), 0, None).unwrap(),
                        b"t",
                    );
                    keys.push(path.clone());
                }
            }
            for path in &paths {
                let mut expected: Vec<_> =
                    keys.iter().filter(|key| is_at_or_below(path, key)).cloned().collect();
                expected.sort();
                let found: Vec<_> =
                    watches.covering(path).iter().map(|w| w.target.key.to_string()).collect();
                assert_eq!(found, expected, "{path}");
            }
        }
    }
}
