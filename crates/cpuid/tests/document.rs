//! docs/cpuid.md holds tables that are made from the table in the code.
//!
//! `UPDATE_GOLDEN=1 cargo test -p cpuid --test document` writes them anew.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use cpuid::{FEATURES, Kind, Level, Register, WORD_PLACES};

fn place(word: usize) -> String {
    let (leaf, sub, register) = WORD_PLACES[word];
    let register = match register {
        Register::Eax => "eax",
        Register::Ebx => "ebx",
        Register::Ecx => "ecx",
        Register::Edx => "edx",
    };
    match leaf {
        7 | 0xd => format!("{leaf:#x},{sub}:{register}"),
        _ => format!("{leaf:#x}:{register}"),
    }
}

/// One row for each register and whatever `group` says of a feature.
fn table(head: &str, group: impl Fn(&cpuid::Feature) -> Option<String>) -> String {
    let mut text = format!("{head}\n|---|---|---|\n");
    for word in 0..WORD_PLACES.len() {
        let mut rows: Vec<(String, String)> = Vec::new();
        for feature in FEATURES.iter().filter(|f| f.bit.word == word) {
            let Some(group) = group(feature) else { continue };
            let bit = feature.bit.mask.trailing_zeros();
            let names: Vec<_> = feature.names.iter().map(|name| format!("`{name}`")).collect();
            let cell = format!("{} ({bit})", names.join(" "));
            match rows.iter_mut().find(|(known, _)| *known == group) {
                Some((_, cells)) => *cells += &format!(", {cell}"),
                None => rows.push((group, cell)),
            }
        }
        rows.sort();
        for (group, cells) in rows {
            writeln!(text, "| {} | {group} | {cells} |", place(word)).unwrap();
        }
    }
    text
}

fn offered() -> String {
    table("| register | from level on | features (bit) |", |feature| {
        let first = Level::ALL.into_iter().find(|level| feature.is_of(*level));
        Some(match (feature.kind, first) {
            (Kind::Hidden(_), _) => return None,
            (Kind::Needed, _) => "every level, needed".to_owned(),
            (Kind::Offered, Some(Level::V2)) if feature.is_of_all_levels() => {
                "every level".to_owned()
            }
            (Kind::Offered, Some(level)) => level.to_string(),
            (Kind::Offered, None) => "`host` only".to_owned(),
        })
    })
}

fn hidden() -> String {
    table("| register | why | features (bit) |", |feature| match feature.kind {
        Kind::Hidden(why) => Some(why.to_owned()),
        _ => None,
    })
}

fn replace(text: &str, mark: &str, with: &str) -> String {
    let begin = format!("<!-- {mark} -->\n");
    let start = text.find(&begin).expect("the mark is there") + begin.len();
    let end = start + text[start..].find("<!-- end -->").expect("its end is there");
    format!("{}{with}{}", &text[..start], &text[end..])
}

#[test]
fn the_document_shows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cpuid.md");
    let text = fs::read_to_string(&path).unwrap();
    let expected = replace(&replace(&text, "offered", &offered()), "hidden", &hidden());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, expected).unwrap();
        return;
    }
    assert_eq!(text, expected, "docs/cpuid.md is out of date");
}
