//! Commands about a domain's inside, as a user types them: texts, streams and exit codes.

mod rig;

use std::os::unix::process::ExitStatusExt;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use control::{Request, ShutdownKind, WaitUntil};
use rig::{Host, Pty};
use serde_json::Value;

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&out(output)).unwrap()
}

#[test]
fn orders_reach_the_domain() {
    let host = Host::new();
    let domain = host.domain("serv1", true);
    let told = |words: &[&str], wanted: Request| {
        let output = host.run(words);
        assert_eq!((output.status.code(), out(&output).as_str()), (Some(0), ""), "{words:?}");
        assert_eq!(domain.request(), wanted);
    };
    told(&["rename", "serv1", "web"], Request::Rename { name: "web".into() });
    told(&["sysrq", "serv1", "h"], Request::Sysrq { key: 'h' });
    told(&["mem-set", "serv1", "128"], Request::MemorySet { mib: 128 });
    told(&["mem-set", "serv1", "1g"], Request::MemorySet { mib: 1024 });
    told(&["mem-max", "serv1", "262144k"], Request::MemoryLimit { mib: 256 });
    told(&["trigger", "serv1", "power"], Request::Shutdown { reason: ShutdownKind::Poweroff });
    told(&["debug-keys", "s"], Request::DebugKey { key: 's' });
    assert_eq!(host.run(&["debug-keys", "qr", "serv1"]).status.code(), Some(0));
    assert_eq!(domain.request(), Request::DebugKey { key: 'q' });
    assert_eq!(domain.request(), Request::DebugKey { key: 'r' });
    assert_eq!(host.run(&["vcpu-set", "serv1", "1"]).status.code(), Some(0));
}

#[test]
fn wrong_orders_say_what_is_wrong() {
    let host = Host::new();
    let _domain = host.domain("serv1", true);
    for (words, part) in [
        (["sysrq", "serv1", "hh"], "one letter or digit"),
        (["sysrq", "serv1", "-"], "one letter or digit"),
        (["mem-set", "serv1", "lots"], "'lots' is no memory size"),
        (["mem-set", "serv1", "0"], "'0' is no memory size"),
        (["vcpu-set", "serv1", "2"], "2 is no number of vCPUs for domain serv1: it has 1"),
        (["vcpu-set", "serv1", "0"], "0 is no number"),
        (["vcpu-set", "serv1", "x"], "Invalid argument."),
        (["trigger", "serv1", "bang"], "'bang' is no trigger"),
        (["trigger", "serv1", "nmi"], "is not there yet: it needs non-maskable"),
        (["rename", "Domain-0", "x"], "Cannot rename privileged domain Domain-0"),
        (["mem-set", "0", "100"], "Cannot set the memory of privileged domain"),
    ] {
        let output = host.run(&words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(err(&output).starts_with("Error: ") && err(&output).contains(part), "{output:?}");
    }
    assert_eq!(host.run(&["rename", "ghost", "x"]).status.code(), Some(3));
    assert_eq!(host.run(&["reset", "ghost"]).status.code(), Some(3));
}

#[test]
fn states_and_vcpus() {
    let host = Host::new();
    let domain = host.domain("serv1", true);
    assert_eq!(out(&host.run(&["domstate", "serv1"])), "idle\n");
    assert_eq!(out(&host.run(&["domstate", "0"])), "running\n");
    assert_eq!(json(&host.run(&["domstate", "--json", "serv1"]))["state"], "idle");
    let table = out(&host.run(&["vcpu-list", "serv1"]));
    let expected = format!(
        "Name                                ID  VCPU   CPU State   Time(s) CPU Affinity\n\
         serv1                            {:>5}     0     1   -b-       1.2 any cpu\n",
        domain.domid
    );
    assert_eq!(table, expected);
    let old = host.run(&["list", "-v", "serv1"]);
    assert_eq!(
        (out(&old), err(&old)),
        (expected, "list -v is deprecated. Please use vcpu-list.\n".into())
    );
    assert!(out(&host.run(&["vcpu-list"])).contains("\nDomain-0 "));
    assert_eq!(json(&host.run(&["vcpu-list", "--json", "serv1"]))[0]["cpu"], 1);
}

#[test]
fn figures_for_people_and_programs() {
    let host = Host::new();
    let domain = host.domain("serv1", true);
    let text = out(&host.run(&["stats", "serv1"]));
    assert!(text.contains("memory: 128 MiB of at most 256 MiB; 64 MiB are in"), "{text}");
    assert!(text.contains("disk 51712: 10 reads (50.0 KiB), 0 writes (0 B)"), "{text}");
    let stats = json(&host.run(&["stats", "--json"]));
    assert_eq!((&stats[0]["name"], &stats[1]["domid"]), (&"Domain-0".into(), &domain.domid.into()));
    assert_eq!(stats[1]["disks"][0]["counters"]["reads"], 10);
    let top = out(&host.run(&["top", "-b", "-i", "2", "-d", "0.1", "-x", "-v"]));
    assert_eq!(top.matches("      NAME  STATE   CPU(sec)").count(), 2, "{top}");
    assert!(top.contains("     serv1 --b---          1    0.0     131072"), "{top}");
    assert_eq!(top.matches("VBD  51712  OO:").count(), 2);
    let lines = out(&host.run(&["top", "--json", "-i", "2", "-d", "0.1"]));
    assert_eq!(lines.lines().count(), 2);
    let look: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(look["domains"][1]["name"], "serv1");
    assert_eq!(host.run(&["top", "-d", "0"]).status.code(), Some(1));
}

/// `top` on a terminal, with its first screen shown.
fn top_on(host: &Host, pty: &Pty, delay: &str) -> std::process::Child {
    let mut command = host.xm();
    command.args(["top", "-d", delay]).stdin(pty.stdio()).stdout(pty.stdio()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    pty.until("quit");
    child
}

#[test]
fn top_on_a_terminal() {
    let host = Host::new();
    let _domain = host.domain("serv1", true);
    let pty = Pty::open();
    let before = pty.settings();
    let mut child = top_on(&host, &pty, "0.5");
    assert_ne!(pty.settings(), before, "keys come one by one");
    pty.type_in(b"b");
    pty.until("51712");
    pty.type_in(b"q");
    pty.until("\u{1b}[?1049l");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(pty.settings(), before);
}

#[test]
fn top_ends_with_its_terminal() {
    let host = Host::new();
    let pty = Pty::open();
    let mut child = top_on(&host, &pty, "60");
    drop(pty);
    let end = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it goes on without a terminal");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn waiting_for_a_domain() {
    let host = Host::new();
    let start = Instant::now();
    let none = host.run(&["wait", "--for=exists", "-t", "0.3", "serv1"]);
    assert_eq!(none.status.code(), Some(124));
    assert!(start.elapsed() >= Duration::from_millis(300));
    let domain = host.domain("serv1", true);
    assert_eq!(host.run(&["wait", "--for=exists", "serv1"]).status.code(), Some(0));
    assert_eq!(host.run(&["wait", "--for=running", "serv1"]).status.code(), Some(0));
    let late = host.run(&["wait", "--for=paused", "-t", "0.2", "--json", "serv1"]);
    assert_eq!((late.status.code(), &json(&late)["result"]), (Some(124), &"timeout".into()));
    let gone = host.run(&["wait", "--json", "serv1"]);
    assert_eq!(gone.status.code(), Some(0), "{}", err(&gone));
    assert_eq!(json(&gone)["ended"]["reason"], "poweroff");
    assert_eq!(domain.request(), Request::Wait { until: WaitUntil::Gone });
    assert_eq!(host.run(&["wait", "ghost"]).status.code(), Some(3));
    assert_eq!(host.run(&["wait", "-t", "-1", "serv1"]).status.code(), Some(1));
    assert_eq!(host.run(&["wait", "--for=tea", "serv1"]).status.code(), Some(1));
}

#[test]
fn logs_of_all_by_time() {
    let mut host = Host::new();
    let state = host.registry.dirs().state.clone();
    assert_eq!(host.run(&["logs", "ghost"]).status.code(), Some(3));
    // Its own log would be among them; files are read without it.
    host.end_daemon();
    drop(std::fs::remove_file(state.join("xend.log")));
    std::fs::write(state.join("b.log"), "2026-01-01 00:00:02 dom2 two\n").unwrap();
    std::fs::write(
        state.join("a.log"),
        "2026-01-01 00:00:01 dom1 one\n2026-01-01 00:00:03 dom1 three\n",
    )
    .unwrap();
    let all = "(a) 2026-01-01 00:00:01 dom1 one\n(b) 2026-01-01 00:00:02 dom2 two\n(a) 2026-01-01 00:00:03 dom1 three\n";
    assert_eq!(out(&host.run(&["log"])), all);
    assert_eq!(out(&host.run(&["logs"])), all);
    assert_eq!(out(&host.run(&["logs", "-n", "1"])), "(a) 2026-01-01 00:00:03 dom1 three\n");
    assert_eq!(out(&host.run(&["logs", "b"])), "(b) 2026-01-01 00:00:02 dom2 two\n");
    let line: Value =
        serde_json::from_str(out(&host.run(&["logs", "--json", "b"])).trim()).unwrap();
    assert_eq!((&line["source"], &line["text"]), (&"b".into(), &"dom2 two".into()));
    let of = |level, text| {
        format!(
            "time=2026-01-01T00:00:09.000Z level={level} program=xendomain domid=4 domain=c msg={text}\n"
        )
    };
    std::fs::write(state.join("c.log"), of("info", "fine") + &of("error", "bad")).unwrap();
    let bad = "(c) 2026-01-01T00:00:09.000Z error   xendomain c[4]: bad\n";
    assert_eq!(out(&host.run(&["logs", "--level", "warning", "c"])), bad);
    assert_eq!(host.run(&["logs", "--level", "loud", "c"]).status.code(), Some(1));
    let fine = "2026-01-01T00:00:09.000Z info    xendomain c[4]: fine\n";
    assert_eq!(out(&host.run(&["dmesg", "c"])), format!("{fine}{}", &bad[4..]));
    std::fs::remove_file(state.join("c.log")).unwrap();
    let mut child = host.xm().args(["logs", "-f", "b"]).spawn().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        line
    };
    assert!(line().ends_with("two\n"));
    std::fs::write(
        state.join("b.log"),
        "2026-01-01 00:00:02 dom2 two\n2026-01-01 00:00:09 dom2 new\n",
    )
    .unwrap();
    assert!(line().ends_with("new\n"));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn codes_are_explained() {
    let host = Host::new();
    let all = out(&host.run(&["explain"]));
    assert!(all.lines().any(|line| line.starts_with("unknown-domain     No domain has")), "{all}");
    let one = out(&host.run(&["explain", "unknown-domain"]));
    assert!(one.contains("\nWhy: ") && one.contains("\nNext: "), "{one}");
    assert_eq!(json(&host.run(&["explain", "--json", "memory"]))[0]["code"], "memory");
    let wrong = host.run(&["explain", "domain"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(err(&wrong).contains("unknown-domain"), "{}", err(&wrong));
    // Only people see the code of an error: what is printed to programs is what xm printed.
    let pipe = host.run(&["domid", "ghost"]);
    assert!(!err(&pipe).contains("explain"));
    let pty = Pty::open();
    let status = host.xm().args(["domid", "ghost"]).stderr(pty.stdio()).status().unwrap();
    assert_eq!(status.code(), Some(3));
    pty.until("More: xm explain unknown-domain");
}

#[test]
fn configurations_are_checked_and_shown() {
    let host = Host::new();
    let write = |name: &str, text: &str| std::fs::write(host.path().join(name), text).unwrap();
    write("good.cfg", "kernel = '/boot/vmlinuz'\nname = 'good'\n");
    write("bad.cfg", "kernel = '/boot/vmlinuz'\nmemroy = 5\n");
    let good = host.run(&["config", "check", "good.cfg"]);
    assert_eq!(
        (good.status.code(), out(&good).as_str()),
        (Some(0), "good.cfg: good; domain good\n")
    );
    let bad = host.run(&["config", "check", "good.cfg", "bad.cfg"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(err(&bad).contains("--> bad.cfg:2:1") && err(&bad).contains("`memory`"), "{bad:?}");
    assert!(out(&bad).ends_with("bad.cfg: 1 error\n"));
    let found = json(&host.run(&["config", "check", "--json", "bad.cfg"]));
    assert_eq!(
        (&found[0]["good"], &found[0]["diagnostics"][0]["line"]),
        (&false.into(), &2.into())
    );
    let shown = out(&host.run(&["config", "show", "good.cfg", "memory=99"]));
    assert!(shown.contains("\nmemory = 99\n"), "{shown}");
    assert!(out(&host.run(&["config", "show", "--format=sxp", "good.cfg"])).starts_with("(vm"));
    let _domain = host.domain("serv1", true);
    assert!(out(&host.run(&["config", "show", "serv1"])).contains("name = \"serv1\""));
    assert_eq!(host.run(&["config", "show", "nowhere.cfg"]).status.code(), Some(1));
    assert_eq!(host.run(&["config", "check", "memory=5"]).status.code(), Some(1));
}

#[test]
fn settings_of_the_host() {
    let host = Host::new();
    let write = |name: &str, text: &str| std::fs::write(host.path().join(name), text).unwrap();
    let with = |words: &[&str]| {
        host.xm().env("XENOLITH_HOST_CONFIG", "host.toml").args(words).output().unwrap()
    };
    assert!(err(&with(&["config", "host"])).contains("host.toml"), "a named file must be there");
    write("host.toml", "[network]\nbridge = \"xenbr7\"\n");
    let shown = out(&with(&["config", "host"]));
    assert!(shown.starts_with("# From host.toml\n"), "{shown}");
    assert!(shown.contains("bridge = \"xenbr7\"\n") && shown.contains("idle = 5\n"), "{shown}");
    assert_eq!(
        json(&with(&["config", "host", "--json"]))["settings"]["network"]["bridge"],
        "xenbr7"
    );
    write("d.cfg", "kernel = '/boot/vmlinuz'\nvif = ['', 'ports=80:80']\n");
    let domain = out(&with(&["create", "-n", "-q", "d.cfg"]));
    assert_eq!(domain.matches("xenbr7").count(), 1, "{domain}");
    write("host.toml", "[network]\nbrigde = \"xenbr7\"\n");
    for words in [&["config", "host"][..], &["create", "-n", "-q", "d.cfg"]] {
        let wrong = with(words);
        assert_eq!(wrong.status.code(), Some(1));
        assert!(err(&wrong).contains("--> host.toml:2:1"), "{}", err(&wrong));
    }
    write("old.sxp", "(dom0-min-mem 196)\n(xend-relocation-port 8002)\n");
    let translated = out(&host.run(&["config", "host", "old.sxp"]));
    assert!(translated.contains("reserve = 196\n"), "{translated}");
    assert!(translated.contains("# xend-relocation-port: "), "{translated}");
    write("host.toml", &translated);
    assert!(out(&with(&["config", "host"])).contains("reserve = 196\n"));
    assert_eq!(host.run(&["config", "host", "old.sxp", "x"]).status.code(), Some(1));
    write("old.sxp", "(a b");
    assert!(err(&host.run(&["config", "host", "old.sxp"])).contains("--> old.sxp:1:1"));
}

#[test]
fn settings_of_this_installation() {
    let host = Host::new();
    let text = out(&host.run(&["info", "-c"]));
    let runtime = host.registry.dirs().runtime.display().to_string();
    assert!(text.starts_with(&format!("runtime_dir            : {runtime}\n")), "{text}");
    assert_eq!(json(&host.run(&["info", "-c", "--json"]))["runtime_dir"], runtime);
}
