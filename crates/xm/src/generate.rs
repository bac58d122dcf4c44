//! Manual pages and shell completions, made from the definitions in [`crate::cli`].
//!
//! The results are kept in the source tree (`docs/man`, `completions`); a test compares them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

use crate::cli;
use crate::commands::COMMANDS;
use crate::tool::Tool;

/// The hidden subcommand that writes the files: `xm __generate ROOT`.
pub const COMMAND: &str = "__generate";

/// Every generated file: path below the root of the source tree, and text.
///
/// # Errors
///
/// When a generator fails to write into memory, which it does not.
pub fn files() -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in COMMANDS.iter().filter(|entry| entry.lacks.is_none()) {
        if let Some(command) = cli::command(Tool::Xm, entry.name) {
            let name = format!("xm-{}", entry.name);
            files.insert(format!("docs/man/{name}.1"), page(command, &name)?);
        }
    }
    files.insert("docs/man/xm.1".to_owned(), page(cli::whole(Tool::Xm), "xm")?);
    files.insert("docs/man/xl.1".to_owned(), b".so man1/xm.1\n".to_vec());
    for tool in [Tool::Xm, Tool::Xl] {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let name = tool.name();
            let path = match shell {
                Shell::Zsh => format!("completions/_{name}"),
                _ => format!("completions/{name}.{shell}"),
            };
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut cli::whole(tool), name, &mut text);
            files.insert(path, text);
        }
    }
    Ok(files)
}

/// Writes every file below `root`.
///
/// # Errors
///
/// When a file cannot be written.
pub fn write(root: &Path) -> io::Result<()> {
    for (path, text) in files()? {
        let path = root.join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// One manual page.
fn page(command: Command, name: &str) -> io::Result<Vec<u8>> {
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let command = command.display_name(name.to_owned()).after_help("");
    let man = clap_mangen::Man::new(command.clone())
        .title(name.to_uppercase())
        .section("1")
        .source(concat!("Xenolith ", env!("CARGO_PKG_VERSION")))
        .manual("Xenolith");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    section(&mut text, "NAME");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    paragraph(&mut text, &format!("{name} - {about}"));
    section(&mut text, "SYNOPSIS");
    paragraph(&mut text, usage.trim_start_matches("Usage: "));
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        subcommands(&mut text, &command);
    }
    extra(&mut text, &after);
    section(&mut text, "EXIT STATUS");
    paragraph(
        &mut text,
        "0 on success, 3 if a domain does not exist, 1 for every other error and after --help. \
         Called as xl: 0, 2 for a wrong option or operand count, 1 for every other error.",
    );
    section(&mut text, "SEE ALSO");
    paragraph(&mut text, if name == "xm" { "xm-create(1), xm-console(1)" } else { "xm(1)" });
    Ok(text)
}

fn subcommands(text: &mut Vec<u8>, command: &Command) {
    section(text, "COMMANDS");
    for sub in command.get_subcommands() {
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let page = if sub.get_name() == "help" {
            "help".to_owned()
        } else {
            format!("xm-{}(1)", sub.get_name())
        };
        text.extend_from_slice(format!(".TP\n{}\n{}\n", escape(&page), escape(&about)).as_bytes());
    }
    section(text, "ENVIRONMENT");
    for (name, about) in [
        ("XENOLITH_RUNTIME_DIR", "Directory of sockets and locks of the domains that run."),
        ("XENOLITH_STATE_DIR", "Directory of logs and crash reports."),
        ("XENOLITH_HOST_CONFIG", "File of the host's settings; see xm-config(1)."),
        (
            "XENOLITH_LOG",
            "What programs log: error, warning, info or debug. It goes before the host's settings.",
        ),
        ("XENOLITH_LOG_FORMAT", "How they log: text or json. It goes before the host's settings."),
        ("XENOLITH_XENDOMAIN", "The domain process's program."),
        ("NO_COLOR", "No colours, even on a terminal."),
    ] {
        text.extend_from_slice(format!(".TP\n{name}\n{}\n", escape(about)).as_bytes());
    }
}

/// The text after the options: notes as a paragraph, examples as they are.
fn extra(text: &mut Vec<u8>, after: &str) {
    let (notes, examples) = after.split_once("Examples:").unwrap_or((after, ""));
    if !notes.trim().is_empty() {
        section(text, "NOTES");
        paragraph(text, notes.trim());
    }
    if !examples.trim().is_empty() {
        section(text, "EXAMPLES");
        text.extend_from_slice(b".nf\n");
        for line in examples.lines().filter(|line| !line.trim().is_empty()) {
            text.extend_from_slice(format!("{}\n", escape(line.trim())).as_bytes());
        }
        text.extend_from_slice(b".fi\n");
    }
}

fn section(text: &mut Vec<u8>, title: &str) {
    text.extend_from_slice(format!(".SH {title}\n").as_bytes());
}

fn paragraph(text: &mut Vec<u8>, words: &str) {
    text.extend_from_slice(format!("{}\n", escape(words)).as_bytes());
}

/// Text that roff prints as it is (groff(7): backslash, hyphens, leading dots and quotes).
fn escape(words: &str) -> String {
    let line = |line: &str| {
        let line = line.replace('\\', "\\\\").replace('-', "\\-");
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
    };
    words.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run `cargo run -p xm -- __generate .` in the root of the source tree when this fails.
    #[test]
    fn the_files_in_the_tree_are_those_that_are_generated() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let files = files().unwrap();
        for (path, text) in &files {
            let kept = std::fs::read(root.join(path)).unwrap_or_default();
            assert!(kept == *text, "{path} is not up to date: cargo run -p xm -- {COMMAND} .");
        }
        for folder in ["docs/man", "completions"] {
            for file in std::fs::read_dir(root.join(folder)).unwrap() {
                let path = format!("{folder}/{}", file.unwrap().file_name().to_str().unwrap());
                assert!(files.contains_key(&path), "{path} is not generated any more");
            }
        }
    }

    #[test]
    fn roff_prints_what_was_meant() {
        assert_eq!(escape(".a-b\\c\n'd"), "\\&.a\\-b\\\\c\n\\&'d");
    }
}
