//! Files that are understood (`tests/good`) and files that are refused
//! (`tests/bad`), each with the exact text expected beside it.
//!
//! `UPDATE_GOLDEN=1 cargo test -p config --test golden` writes the expected
//! texts anew; look at the difference before keeping it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use config::{Loaded, parse_str};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn cases(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|ext| ext == "cfg")).collect();
    files.sort();
    files
}

/// Compares `found` with the file beside `case`, or writes it.
fn compare(case: &Path, extension: &str, found: &str) -> bool {
    let path = case.with_extension(extension);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, found).unwrap();
        return true;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected != found {
        println!("== {} ==\n-- expected --\n{expected}\n-- found --\n{found}", path.display());
    }
    expected == found
}

fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn describe(loaded: &Loaded) -> String {
    let mut text = String::new();
    for warning in &loaded.warnings {
        writeln!(text, "{warning}").unwrap();
    }
    for pending in &loaded.pending {
        writeln!(text, "{pending}").unwrap();
    }
    let config = &loaded.config;
    writeln!(text, "command line: {}\n", config.boot.command_line()).unwrap();
    writeln!(text, "{}\n\n{}", config.to_sxp(), config.to_xm()).unwrap();
    text.push_str(&serde_json::to_string_pretty(config).unwrap());
    text.push('\n');
    text
}

#[test]
fn good_files() {
    let cases = cases("good");
    assert!(cases.len() >= 6);
    let mut failed = 0;
    for case in &cases {
        let text = fs::read_to_string(case).unwrap();
        let loaded =
            parse_str(file_name(case), &text, &[]).unwrap_or_else(|error| panic!("{error}"));
        failed += usize::from(!compare(case, "out", &describe(&loaded)));
        let again = parse_str("again", &loaded.config.to_xm(), &[])
            .unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        assert_eq!(again.config, loaded.config, "{}", case.display());
        loaded.config.validate().unwrap();
    }
    assert_eq!(failed, 0, "{failed} files differ");
}

#[test]
fn bad_files() {
    let cases = cases("bad");
    assert!(cases.len() >= 20);
    let mut failed = 0;
    for case in &cases {
        let text = fs::read_to_string(case).unwrap();
        let error = match parse_str(file_name(case), &text, &[]) {
            Ok(_) => panic!("{} was accepted", case.display()),
            Err(error) => error,
        };
        failed += usize::from(!compare(case, "err", &format!("{error}\n")));
    }
    assert_eq!(failed, 0, "{failed} files differ");
}
