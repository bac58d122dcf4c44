use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn open(path: &Path) -> OwnedFd {
    OwnedFd::from(File::open(path).unwrap())
}

fn take(mut stream: &[u8], into: &Path) -> Result<Vec<String>, TreeError> {
    let mut left_out = Vec::new();
    let mut progress = |progress: Progress<'_>| {
        if let Progress::LeftOut(name) = progress {
            left_out.push(name.to_string_lossy().into_owned());
        }
    };
    receive(&mut stream, open(into).as_fd(), OsStr::new("new"), 0o777, &mut progress)?;
    assert!(stream.is_empty());
    Ok(left_out)
}

#[test]
fn a_tree_travels() {
    let base = tempfile::tempdir().unwrap();
    let from = base.path().join("from");
    fs::create_dir_all(from.join("a/b")).unwrap();
    let content: Vec<u8> = (0..200_000u32).map(|i| (i * 7 / 3) as u8).collect();
    fs::write(from.join("a/b/large"), &content).unwrap();
    fs::write(from.join("empty"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", from.join("link")).unwrap();
    fs::set_permissions(from.join("empty"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(from.join("a"), fs::Permissions::from_mode(0o550)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
    let mut stream = Vec::new();
    send(&from, &mut stream).unwrap();
    let to = base.path().join("to");
    fs::create_dir(&to).unwrap();
    assert_eq!(take(&stream, &to).unwrap(), ["socket"]);
    let to = to.join("new");
    assert_eq!(fs::read(to.join("a/b/large")).unwrap(), content);
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
    let facts = fs::metadata(to.join("empty")).unwrap();
    assert_eq!(facts.permissions().mode() & 0o7777, 0o751, "no bits but those of the mask");
    let times = [to.join("a/b/large"), from.join("a/b/large")]
        .map(|path| rustix::fs::stat(&path).unwrap().st_mtime);
    assert_eq!(times[0], times[1]);
    for path in [from, to] {
        fs::set_permissions(path.join("a"), fs::Permissions::from_mode(0o750)).unwrap();
    }
}

#[test]
fn a_file_travels_alone() {
    let base = tempfile::tempdir().unwrap();
    fs::write(base.path().join("old"), "content").unwrap();
    let mut stream = Vec::new();
    send(&base.path().join("old"), &mut stream).unwrap();
    take(&stream, base.path()).unwrap();
    assert_eq!(fs::read(base.path().join("new")).unwrap(), b"content");
    assert!(matches!(send(Path::new("/dev/null"), &mut Vec::new()), Err(TreeError::Kind(_))));
}

/// A directory with these entries in it.
fn directory(entries: &[&[u8]]) -> Vec<u8> {
    let mut stream = vec![DIRECTORY];
    stream.extend([0xff; 4]);
    stream.extend([0; 16]);
    stream.extend(entries.concat());
    stream.push(END);
    stream
}

fn named(kind: u8, name: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut entry = vec![kind];
    if kind == FILE || kind == DIRECTORY {
        entry.extend([0xff; 4]);
        entry.extend([0; 16]);
    }
    entry.extend(length16(name));
    entry.extend(name);
    entry.extend(rest);
    entry
}

#[test]
fn a_stream_cannot_lead_elsewhere() {
    let base = tempfile::tempdir().unwrap();
    let outside = base.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let link = outside.as_os_str().as_bytes();
    let to_outside = named(LINK, b"way", &[&length16(link), link].concat());
    let file = |name: &[u8]| named(FILE, name, &[2, 0, 0, 0, b'h', b'i', 0, 0, 0, 0]);
    let hostile: Vec<Vec<u8>> = vec![
        directory(&[&file(b"../outside/x")]),
        directory(&[&file(b"..")]),
        directory(&[&file(b"")]),
        directory(&[&file(b"a\0b")]),
        directory(&[&file(&[link, b"/x"].concat())]),
        directory(&[&named(DIRECTORY, b"..", &[END])]),
        // Through a link that it made itself.
        directory(&[&to_outside, &file(b"way")]),
        directory(&[&to_outside, &named(DIRECTORY, b"way", &file(b"x")), &[END]]),
        directory(&[&file(b"twice"), &file(b"twice")]),
        directory(&[&named(FILE, b"x", &[0xff; 8])]),
        to_outside,
        vec![END],
        directory(&[])[..5].to_vec(),
    ];
    for (at, stream) in hostile.iter().enumerate() {
        let to = base.path().join(at.to_string());
        fs::create_dir(&to).unwrap();
        assert!(take(stream, &to).is_err(), "{at}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{at}");
    }
    let levels = named(DIRECTORY, b"d", &[]).repeat(DEEPEST);
    let deep = [&directory(&[])[..21], &levels].concat();
    let to = base.path().join("deep");
    fs::create_dir(&to).unwrap();
    assert!(matches!(take(&deep, &to), Err(TreeError::Deep)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nonsense_makes_no_harm(bytes in prop::collection::vec(
        prop_oneof![Just(0u8), Just(1), prop::sample::select(b"fdloe./".to_vec()), any::<u8>()], 0..300)) {
        let base = tempfile::tempdir().unwrap();
        let inner = base.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let stream = [directory(&[])[..21].to_vec(), bytes].concat();
        let mut input = stream.as_slice();
        let _either = receive(&mut input, open(&inner).as_fd(), OsStr::new("new"), 0o700, &mut |_| {});
        prop_assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    }
}
