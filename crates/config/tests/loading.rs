//! Finding files, overrides from the command line, and bounds.

use std::fs;
use std::path::{Path, PathBuf};

use config::{Error, LoadOptions, load, parse_str};

const KERNEL: &str = "kernel = '/k'\n";

fn over(words: &[(&str, &str)]) -> Vec<(String, String)> {
    words.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn search_path_and_default_name() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(second.path().join("web.cfg"), KERNEL).unwrap();
    fs::create_dir(first.path().join("web.cfg")).unwrap();
    let search = vec![first.path().to_owned(), second.path().to_owned()];
    let options = LoadOptions { search, ..LoadOptions::default() };
    let loaded = load(Path::new("web.cfg"), &options).unwrap();
    assert_eq!(loaded.path, second.path().join("web.cfg"));
    assert_eq!(loaded.config.general.name, "web.cfg");
    match load(Path::new("other.cfg"), &options) {
        Err(Error::NotFound { searched, .. }) => assert_eq!(searched.len(), 3),
        other => panic!("{other:?}"),
    }
    let default = LoadOptions::default().search;
    assert_eq!(default, [PathBuf::from("."), PathBuf::from("/etc/xen")]);
}

#[test]
fn old_encodings_may_stand_in_comments_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs::write(&path, b"# \xe2\nkernel = '/k'\n").unwrap();
    assert!(load(&path, &LoadOptions::default()).is_ok());
    fs::write(&path, b"kernel = '/\xe2'\n").unwrap();
    assert!(load(&path, &LoadOptions::default()).is_err());
}

#[test]
fn overrides_win_and_are_visible_to_the_file() {
    let text = "kernel = '/k'\nmemory = 64\nname = 'vm%d' % vmid\ndisk = ['phy:a,xvda,w']\n\
                extra = 'm=%d' % memory\n";
    let words = over(&[
        ("memory", "256"),
        ("vmid", "3"),
        ("disk", "file:/a,xvda,w"),
        ("disk", "file:/b,xvdb,r"),
    ]);
    let config = parse_str("f", text, &words).unwrap().config;
    assert_eq!(config.general.name, "vm3");
    assert_eq!(config.memory.initial, 256);
    assert_eq!(config.boot.extra.as_deref(), Some("m=64"));
    let disks: Vec<_> = config.devices.disks.iter().map(ToString::to_string).collect();
    assert_eq!(disks, ["file:/a,xvda,w", "file:/b,xvdb,r"]);
}

#[test]
fn overrides_are_checked_and_named() {
    let shown =
        |words: &[(&str, &str)]| parse_str("f", KERNEL, &over(words)).unwrap_err().to_string();
    assert_eq!(
        shown(&[("memory", "lots")]),
        "error: `memory` expects a number, got `lots`\n  --> command line:1:8\n   |\n 1 | \
         memory=lots\n   |        ^^^^"
    );
    assert!(shown(&[("vif", "brigde=x")]).contains("did you mean `bridge`?"));
    assert!(shown(&[("memry", "1")]).contains("did you mean `memory`?"));
    let loaded = parse_str("f", KERNEL, &over(&[("shelf", "3")])).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn hostile_files_are_bounded() {
    let refused = |text: String| parse_str("f", &text, &[]).unwrap_err().to_string();
    assert!(refused("[".repeat(100_000)).len() < 1000);
    assert!(refused(format!("x = {}", "[".repeat(100_000))).contains("never closed"));
    let nested = format!("x = {}{}", "(".repeat(1000), ")".repeat(1000));
    assert!(refused(nested).contains("Nested more than"));
    let negations = format!("x = {}1", "-".repeat(100_000));
    assert!(refused(negations).contains("Nested more than"));
    let doubling = format!("a = ['x']\n{}", "a = a + a\n".repeat(64));
    assert!(refused(doubling).contains("grow too large"));
    let strings = format!("a = 'x'\n{}", "a = '%s%s' % (a, a)\n".repeat(64));
    assert!(refused(strings).contains("too large"));
    let deep = format!("a = []\n{}", "a = [a]\n".repeat(1000));
    assert!(refused(deep).contains("nested more than"));
    assert!(refused(format!("x = {}", "1,".repeat(200_000))).contains("More than"));
    let sum = format!("{KERNEL}memory = 1{}", "+1".repeat(90_000));
    assert_eq!(parse_str("f", &sum, &[]).unwrap().config.memory.initial, 90_001);
    assert!(matches!(parse_str("f", &" ".repeat(2 << 20), &[]), Err(Error::TooLarge { .. })));
}

#[test]
fn a_saved_configuration_is_checked_like_a_file() {
    let mut config = parse_str("f", KERNEL, &[]).unwrap().config;
    assert!(config.validate().is_ok());
    config.memory.initial = 1;
    assert!(config.validate().is_err());
    config.memory.initial = 128;
    config.boot.root = Some("a\nb".to_owned());
    assert!(matches!(config.validate(), Err(Error::Inconsistent)));
    config.boot.root = None;
    config.general.name = "../x".to_owned();
    assert!(config.validate().is_err());
}
