//! `config edit` and `config-update`: what a domain starts with next time.

mod rig;

use std::path::PathBuf;
use std::process::Output;

use control::Request;
use rig::{Host, Pty};

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A host with a stored domain.
fn host() -> Host {
    let host = Host::new();
    std::fs::write(host.path().join("vmlinuz"), "").unwrap();
    let text = "kernel = 'vmlinuz'\nname = 'serv1'\nmemory = 64\n";
    std::fs::write(host.path().join("serv1.cfg"), text).unwrap();
    assert_eq!(host.run(&["new", "-q", "serv1.cfg"]).status.code(), Some(0));
    host
}

/// A program that stands in for an editor; `$1` is the text.
fn editor(host: &Host, script: &str) {
    std::fs::write(host.path().join("my-editor"), format!("{script}\n")).unwrap();
}

fn edit(host: &Host, script: &str) -> Output {
    editor(host, script);
    host.xm()
        .args(["config", "edit", "serv1"])
        .env("TMPDIR", host.path())
        .env("EDITOR", "false")
        // A shell takes it apart.
        .env("VISUAL", "sh my*editor")
        .output()
        .unwrap()
}

fn memory(host: &Host) -> String {
    let list = out(&host.run(&["list", "serv1"]));
    list.lines().last().unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

/// Texts that were left.
fn kept(host: &Host) -> Vec<PathBuf> {
    let files = std::fs::read_dir(host.path()).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("xm-")).collect()
}

#[test]
fn what_was_edited_is_stored_and_outlives_the_daemon() {
    let mut host = host();
    let done = edit(&host, "cp \"$1\" seen; sed -i 's/^memory = .*/memory = 96/' \"$1\"");
    assert_eq!((err(&done).as_str(), done.status.code()), ("", Some(0)));
    assert_eq!(out(&done), "Domain serv1 starts with it next time.\n");
    let seen = std::fs::read_to_string(host.path().join("seen")).unwrap();
    assert!(seen.starts_with("# Stored domain serv1. What you change holds from"), "{seen}");
    assert!(seen.contains("\nmemory = 64\n"), "{seen}");
    host.restart_daemon();
    assert_eq!(memory(&host), "96");
    assert_eq!(kept(&host), Vec::<PathBuf>::new());

    let same = edit(&host, "true");
    assert_eq!(out(&same), "Domain serv1 is not changed.\n");
    let renamed = edit(&host, "sed -i 's/serv1/web/' \"$1\"");
    assert_eq!(out(&renamed), "Domain web starts with it next time.\n", "{}", err(&renamed));
    assert_eq!(host.run(&["list", "serv1"]).status.code(), Some(3));
    assert_eq!(host.run(&["list", "web"]).status.code(), Some(0));
}

#[test]
fn a_text_with_faults_changes_nothing_and_is_kept() {
    let host = host();
    let done = edit(&host, "sed -i 's/^memory = .*/memroy = 96/' \"$1\"");
    assert_eq!(done.status.code(), Some(1));
    let text = err(&done);
    let [kept] = kept(&host).try_into().unwrap();
    let line = std::fs::read_to_string(&kept).unwrap();
    let line = line.lines().position(|line| line.starts_with("memroy")).unwrap() + 1;
    assert!(text.contains(&format!("--> {}:{line}:1\n", kept.display())), "{text}");
    assert!(text.contains("^^^^^^"), "{text}");
    assert!(text.contains(&format!("Your text is kept in {}.", kept.display())), "{text}");
    assert_eq!(memory(&host), "64");
    // As the message says: mended, it is stored.
    let mended = std::fs::read_to_string(&kept).unwrap().replace("memroy", "memory");
    std::fs::write(&kept, mended).unwrap();
    let update = host.run(&["config-update", "serv1", kept.to_str().unwrap()]);
    assert_eq!(update.status.code(), Some(0), "{}", err(&update));
    assert_eq!(memory(&host), "96");
}

#[test]
fn somebody_elses_change_is_not_overwritten() {
    let host = host();
    let other = format!("'{}' config-update serv1 memory=80 >/dev/null", env!("CARGO_BIN_EXE_xm"));
    let done = edit(&host, &format!("{other}; sed -i 's/^memory = .*/memory = 96/' \"$1\""));
    assert_eq!(done.status.code(), Some(1));
    let text = err(&done);
    assert!(
        text.starts_with("Error: The configuration of 'serv1' was changed by somebody else"),
        "{text}"
    );
    assert_eq!(memory(&host), "80");
    let [kept] = kept(&host).try_into().unwrap();
    assert!(text.contains(kept.to_str().unwrap()), "{text}");
    assert!(std::fs::read_to_string(kept).unwrap().contains("memory = 96"));
}

#[test]
fn editors_that_fail_and_domains_that_are_not_stored() {
    let host = host();
    let failed = edit(&host, "exit 3");
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        err(&failed).contains("ended with exit status: 3; nothing is changed."),
        "{}",
        err(&failed)
    );
    assert_eq!(kept(&host), Vec::<PathBuf>::new());
    let half = edit(&host, "echo 'memory = 1' >>\"$1\"; exit 3");
    assert!(err(&half).contains("Your text is kept in "), "{}", err(&half));
    assert_eq!(memory(&host), "64");
    let uuid = edit(
        &host,
        "sed -i 's/^uuid = .*/uuid = \"00000000-0000-0000-0000-00000000abcd\"/' \"$1\"",
    );
    assert!(err(&uuid).contains("The UUID of 'serv1' is "), "{}", err(&uuid));
    let _running = host.domain("run1", true);
    let not_stored = host.run(&["config", "edit", "run1"]);
    assert!(err(&not_stored).starts_with("Error: Domain 'run1' is not stored\n"), "{not_stored:?}");
    assert_eq!(host.run(&["config", "edit", "ghost"]).status.code(), Some(3));
}

#[test]
fn on_a_terminal_the_user_is_asked_whether_to_edit_again() {
    let host = host();
    let script = "[ -e once ] && sed -i 's/^memroy/memory/; s/= 64/= 72/' \"$1\" || sed -i 's/^memory/memroy/' \"$1\"; touch once";
    editor(&host, script);
    let pty = Pty::open();
    let mut child = host
        .xm()
        .args(["config", "edit", "serv1"])
        .env("TMPDIR", host.path())
        .env("VISUAL", " ")
        .env("EDITOR", "sh my*editor")
        .stdin(pty.stdio())
        .stdout(pty.stdio())
        .stderr(pty.stdio())
        .spawn()
        .unwrap();
    let screen = pty.until("Edit again? [Y/n] ");
    assert!(screen.contains("memroy"), "{screen}");
    pty.type_in(b"\n");
    pty.until("starts with it next time.");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(memory(&host), "72");
}

#[test]
fn a_running_domain_is_told_what_it_restarts_with() {
    let host = Host::new();
    std::fs::write(host.path().join("vmlinuz"), "").unwrap();
    let text = "kernel = 'vmlinuz'\nname = 'serv1'\nmemory = 64\n";
    std::fs::write(host.path().join("serv1.cfg"), text).unwrap();
    let domain = host.domain("serv1", true);
    let update = host.run(&["config-update", "serv1", "serv1.cfg", "memory=72"]);
    assert_eq!((err(&update).as_str(), update.status.code()), ("", Some(0)));
    assert!(out(&update).ends_with("goes on as it is; it restarts with it.\n"), "{}", out(&update));
    let Request::Configure { config } = domain.request() else { panic!() };
    assert_eq!(config.memory.initial, 72);
    assert_eq!(config.boot.kernel.as_deref(), host.path().join("vmlinuz").to_str());
    // Without a file: the present one with a change.
    assert_eq!(host.run(&["config-update", "serv1", "memory=80"]).status.code(), Some(0));
    let Request::Configure { config } = domain.request() else { panic!() };
    assert_eq!((config.memory.initial, config.boot.kernel.as_deref()), (80, Some("/boot/vmlinuz")));

    for (words, part) in [
        (&["config-update", "serv1"][..], "Give a configuration file, or key=value."),
        (
            &["config-update", "serv1", "serv1.cfg", "name=x"],
            "is the configuration of 'x', not of 'serv1'",
        ),
        (&["config-update", "serv1", "memory=lots"], "memory"),
        (&["config-update", "0", "memory=64"], "Cannot configure privileged domain"),
    ] {
        let output = host.run(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(err(&output).contains(part), "{output:?}");
    }
    assert_eq!(host.run(&["config-update", "ghost", "memory=64"]).status.code(), Some(3));
}
