//! Paths of nodes: checking, and resolving relative paths against a domain's home.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::permissions::Domid;

/// Longest absolute path in bytes (`XENSTORE_ABS_PATH_MAX` in `io/xs_wire.h`).
pub const MAX_ABSOLUTE_PATH: usize = 3072;
/// Longest relative path in bytes (`XENSTORE_REL_PATH_MAX` in `io/xs_wire.h`).
pub const MAX_RELATIVE_PATH: usize = 2048;

/// Why a text is not a path.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// The path is empty.
    #[error("The path is empty; expected / or names separated by /")]
    Empty,
    /// The path is longer than the protocol allows.
    #[error("The path has {length} bytes; at most {limit} are allowed")]
    TooLong {
        /// Length in bytes.
        length: usize,
        /// Limit in bytes, which differs for absolute and relative paths.
        limit: usize,
    },
    /// A byte is not allowed in paths.
    #[error("Byte {byte:#04x} at {offset} is not allowed; use letters, digits, - / _ @")]
    BadByte {
        /// The byte.
        byte: u8,
        /// Its offset from the start of the path.
        offset: usize,
    },
    /// Two slashes follow each other, or the path ends in a slash.
    #[error("Empty name at offset {offset} of the path; write single slashes and none at the end")]
    EmptyName {
        /// Offset of the slash that has no name.
        offset: usize,
    },
    /// The path begins with `@` but names no special watch, or cannot be used here.
    #[error(
        "{path} names no node; special names are @introduceDomain and @releaseDomain, for watches and permissions only"
    )]
    Special {
        /// The path as received.
        path: String,
    },
}

/// An absolute, checked path. The root is `/`; no other path ends in a slash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Arc<str>);

impl Path {
    /// The root, `/`.
    pub fn root() -> Self {
        Self(Arc::from("/"))
    }

    /// The home of a domain, `/local/domain/DOMID`.
    pub fn home(domid: Domid) -> Self {
        Self(Arc::from(format!("/local/domain/{domid}")))
    }

    /// Checks `text` and makes it absolute: without a leading slash it is below the home of `domid`.
    ///
    /// # Errors
    /// Says which rule of the protocol the path breaks.
    pub fn resolve(text: &[u8], domid: Domid) -> Result<Self, PathError> {
        let checked = check(text)?;
        match text.first() {
            Some(b'/') => Ok(Self(Arc::from(checked))),
            Some(b'@') => Err(PathError::Special { path: checked.to_owned() }),
            _ => Ok(Self(Arc::from(format!("/local/domain/{domid}/{checked}")))),
        }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The names along the path, from the root; none for the root itself.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// The last name, or `None` for the root.
    pub fn name(&self) -> Option<&str> {
        self.0.rsplit('/').next().filter(|name| !name.is_empty())
    }

    /// The path one level up, or `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (parent, name) = self.0.rsplit_once('/')?;
        match (parent, name) {
            (_, "") => None,
            ("", _) => Some(Self::root()),
            _ => Some(Self(Arc::from(parent))),
        }
    }

    /// The path of the ancestor that has `depth` names; the path itself if it has no more.
    pub fn ancestor(&self, depth: usize) -> Self {
        if depth == 0 {
            return Self::root();
        }
        let end = self.0.match_indices('/').nth(depth).map(|(offset, _)| offset);
        match end.and_then(|end| self.0.get(..end)) {
            Some(prefix) => Self(Arc::from(prefix)),
            None => self.clone(),
        }
    }

    /// The path one level down. `name` must be a checked name.
    pub(crate) fn child(&self, name: &str) -> Self {
        match &*self.0 {
            "/" => Self(Arc::from(format!("/{name}"))),
            parent => Self(Arc::from(format!("{parent}/{name}"))),
        }
    }
}

impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `path` is `ancestor` or lies below it.
pub(crate) fn is_at_or_below(path: &str, ancestor: &str) -> bool {
    match path.strip_prefix(ancestor) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || ancestor == "/",
        None => false,
    }
}

/// Checks characters, slashes and length, and gives the path as text.
pub(crate) fn check(text: &[u8]) -> Result<&str, PathError> {
    let limit = match text.first() {
        None => return Err(PathError::Empty),
        Some(b'/') => MAX_ABSOLUTE_PATH,
        Some(_) => MAX_RELATIVE_PATH,
    };
    if text.len() > limit {
        return Err(PathError::TooLong { length: text.len(), limit });
    }
    let mut previous = 0;
    for (offset, &byte) in text.iter().enumerate() {
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/' | b'_' | b'@')) {
            return Err(PathError::BadByte { byte, offset });
        }
        if byte == b'/' && previous == b'/' {
            return Err(PathError::EmptyName { offset });
        }
        previous = byte;
    }
    if previous == b'/' && text.len() > 1 {
        return Err(PathError::EmptyName { offset: text.len() - 1 });
    }
    // All bytes are ASCII now, so this cannot fail; the error keeps the function total.
    std::str::from_utf8(text)
        .map_err(|e| PathError::BadByte { byte: 0xff, offset: e.valid_up_to() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absolute(text: &str) -> Path {
        Path::resolve(text.as_bytes(), 0).unwrap()
    }

    #[test]
    fn checks_form() {
        assert_eq!(absolute("/").names().count(), 0);
        assert_eq!(absolute("/a/b-_@9").names().collect::<Vec<_>>(), ["a", "b-_@9"]);
        assert_eq!(Path::resolve(b"dev/x", 7).unwrap().as_str(), "/local/domain/7/dev/x");
        assert_eq!(Path::resolve(b"", 1), Err(PathError::Empty));
        assert_eq!(Path::resolve(b"/a//b", 1), Err(PathError::EmptyName { offset: 3 }));
        assert_eq!(Path::resolve(b"//", 1), Err(PathError::EmptyName { offset: 1 }));
        assert_eq!(Path::resolve(b"a/", 1), Err(PathError::EmptyName { offset: 1 }));
        assert_eq!(Path::resolve(b"/a b", 1), Err(PathError::BadByte { byte: b' ', offset: 2 }));
        assert!(matches!(Path::resolve(b"@releaseDomain", 1), Err(PathError::Special { .. })));
    }

    #[test]
    fn checks_length() {
        let longest = format!("/{}", "a".repeat(MAX_ABSOLUTE_PATH - 1));
        assert!(Path::resolve(longest.as_bytes(), 0).is_ok());
        assert!(Path::resolve(format!("{longest}a").as_bytes(), 0).is_err());
        let longest = "a".repeat(MAX_RELATIVE_PATH);
        assert!(Path::resolve(longest.as_bytes(), 0).is_ok());
        assert!(Path::resolve(format!("{longest}a").as_bytes(), 0).is_err());
    }

    #[test]
    fn finds_ancestors() {
        let path = absolute("/a/b/c");
        assert_eq!(path.ancestor(0), Path::root());
        assert_eq!(path.ancestor(1), absolute("/a"));
        assert_eq!(path.ancestor(2), absolute("/a/b"));
        assert_eq!(path.ancestor(3), path);
        assert_eq!(path.ancestor(9), path);
        assert_eq!(path.parent(), Some(absolute("/a/b")));
        assert_eq!(absolute("/a").parent(), Some(Path::root()));
        assert_eq!(Path::root().parent(), None);
        assert_eq!(Path::root().child("a"), absolute("/a"));
        assert!(
            is_at_or_below("/a/b", "/a") && is_at_or_below("/a", "/") && is_at_or_below("/", "/")
        );
        assert!(!is_at_or_below("/ab", "/a") && !is_at_or_below("/a", "/a/b"));
    }
}
