//! Where packages come from: what the user says, else where the host's own apt gets them, else
//! the distribution's archive. And how: through the proxies that the host's apt uses.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::order::Order;
use crate::release::{Distribution, Release};

/// Lists of sources larger than this are not the host's.
const LARGEST_LIST: u64 = 1 << 20;

/// One place of packages in the host's lists.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
}

/// The archives of a build.
#[derive(Debug, PartialEq, Eq)]
pub struct Archives {
    /// Of the release and its updates.
    pub main: String,
    /// Of its security updates; none with a `--mirror` alone, which need not have them.
    pub security: Option<String>,
    keyring: PathBuf,
}

impl Archives {
    /// Chooses the archives of an order on this host.
    ///
    /// # Errors
    ///
    /// When there are no keys to check the archive with.
    pub fn choose(order: &Order) -> Result<Self, Error> {
        let release = order.release;
        let (keys, package) = release.distribution.keyring();
        let keyring = order.keyring.clone().unwrap_or_else(|| keys.into());
        let (main, security) = match &order.mirror {
            Some(mirror) => (mirror.clone(), order.security_mirror.clone()),
            None => {
                let (main, security) = of_host(Path::new("/etc"), release.distribution);
                (main, order.security_mirror.clone().or(Some(security)))
            }
        };
        if !keyring.is_file() {
            let line = format!("{} is not there.", keyring.display());
            return Err(Error::Signature { mirror: main, line, package });
        }
        Ok(Self { main, security, keyring })
    }

    /// Lines of sources.list(5) for mmdebstrap.
    pub fn lines(&self, release: &Release) -> Vec<String> {
        self.signed_by(release, &self.keyring)
    }

    /// The same for the guest, which has its distribution's keys where the host has them, and
    /// others where [`Self::other_keys`] says.
    pub fn lines_of_guest(&self, release: &Release) -> Vec<String> {
        let guests = self.other_keys(release).map(|(_, path)| Path::new("/").join(path));
        self.signed_by(release, guests.as_deref().unwrap_or(&self.keyring))
    }

    /// Keys that are not the distribution's usual ones: their file here, and in the guest.
    pub fn other_keys(&self, release: &Release) -> Option<(&Path, &'static str)> {
        let (usual, _) = release.distribution.keyring();
        // apt tells the two forms apart by their ends.
        let armoured = self.keyring.extension().is_some_and(|end| end == "asc");
        let path =
            if armoured { "etc/apt/keyrings/archive.asc" } else { "etc/apt/keyrings/archive.gpg" };
        (self.keyring != Path::new(usual)).then_some((&self.keyring, path))
    }

    fn signed_by(&self, release: &Release, keys: &Path) -> Vec<String> {
        let (name, components) = (release.codename, release.distribution.components());
        let keys = keys.display();
        let line = |uri: &str, suite: &str| {
            format!("deb [signed-by={keys}] {uri} {name}{suite} {components}")
        };
        let mut lines = vec![line(&self.main, ""), line(&self.main, "-updates")];
        lines.extend(self.security.iter().map(|uri| line(uri, "-security")));
        lines
    }
}

/// The archives in the lists below `etc`, if the host is of this distribution; what is missing
/// comes from the distribution's own.
fn of_host(etc: &Path, distribution: Distribution) -> (String, String) {
    let (mut main, mut security) = (None, None);
    let facts = read(&etc.join("os-release"));
    if field(&facts, "ID") == Some(distribution.id()) {
        let own = field(&facts, "VERSION_CODENAME").unwrap_or_default();
        for source in sources(&etc.join("apt")) {
            if source.suite == own {
                main.get_or_insert(source.uri);
            } else if source.suite == format!("{own}-security") {
                security.get_or_insert(source.uri);
            }
        }
    }
    (
        main.unwrap_or_else(|| distribution.archive().to_owned()),
        security.unwrap_or_else(|| distribution.security_archive().to_owned()),
    )
}

/// Whether the host runs this release.
pub fn is_of_host(release: &Release) -> bool {
    let facts = read(Path::new("/etc/os-release"));
    field(&facts, "ID") == Some(release.distribution.id())
        && field(&facts, "VERSION_CODENAME") == Some(release.codename)
}

/// A file's text; nothing if it is not there, not text, or too large.
fn read(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(facts) if facts.is_file() && facts.len() <= LARGEST_LIST => {
            std::fs::read_to_string(path).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// A value of os-release(5), without its quotes.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(line.trim().trim_matches(['"', '\'']))
}

/// All sources of packages below `apt`, in the order in which apt reads them.
fn sources(apt: &Path) -> Vec<Source> {
    let mut found = one_line_style(&read(&apt.join("sources.list")));
    let folder = std::fs::read_dir(apt.join("sources.list.d"));
    let mut paths: Vec<PathBuf> =
        folder.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        match path.extension().and_then(|end| end.to_str()) {
            Some("list") => found.extend(one_line_style(&read(&path))),
            Some("sources") => found.extend(deb822_style(&read(&path))),
            _ => {}
        }
    }
    found.retain(|source| fetchable(&source.uri));
    found
}

/// Archives that the guest can use too: no CD, no file of the host, no password.
fn fetchable(uri: &str) -> bool {
    let rest = uri.strip_prefix("http://").or_else(|| uri.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.split('/').next().unwrap_or_default().contains('@'))
}

/// `deb [options] uri suite component...`, sources.list(5).
fn one_line_style(text: &str) -> Vec<Source> {
    let source = |line: &str| {
        let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
        let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        Some(Source { uri: uri.trim_end_matches('/').to_owned(), suite: suite.to_owned() })
    };
    text.lines().filter_map(source).collect()
}

/// Stanzas of fields, sources.list(5).
fn deb822_style(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let value = |name: &str| {
            let line = stanza.iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.trim().eq_ignore_ascii_case(name).then_some(value)
            });
            line.unwrap_or_default().split_whitespace()
        };
        let off = value("Enabled").any(|word| matches!(word, "no" | "false" | "0" | "off"));
        if off || !value("Types").any(|word| word == "deb") {
            continue;
        }
        for uri in value("URIs") {
            let uri = uri.trim_end_matches('/');
            found.extend(
                value("Suites")
                    .map(|suite| Source { uri: uri.to_owned(), suite: suite.to_owned() }),
            );
        }
    }
    found
}

/// Settings of the host's apt that say how archives are reached, as lines of apt.conf(5).
pub fn host_settings() -> Vec<String> {
    let output = Command::new("apt-config").args(["dump", "Acquire"]).output();
    output.map(|output| settings(&String::from_utf8_lossy(&output.stdout))).unwrap_or_default()
}

/// The lines of `apt-config dump` that matter for reaching archives.
fn settings(dump: &str) -> Vec<String> {
    let matters = |line: &&str| {
        let name = line.split(' ').next().unwrap_or_default().to_ascii_lowercase();
        name.starts_with("acquire::http::")
            || name.starts_with("acquire::https::")
            || name == "acquire::check-valid-until"
            || name == "acquire::check-date"
            || name == "acquire::forceipv4"
            || name == "acquire::forceipv6"
    };
    let whole = |line: &&str| line.ends_with("\";");
    dump.lines().map(str::trim).filter(matters).filter(whole).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Options;

    const NEW: &str = "# comment\nTypes: deb deb-src\n# URIs: http://no/\nURIs: http://m.example/debian/\n\
        Suites: bookworm bookworm-updates\nComponents: main\n\nTypes: deb\n\
        URIs: http://m.example/debian-security\nSuites: bookworm-security\n\n\
        Types: deb\nEnabled: no\nURIs: http://off.example/\nSuites: bookworm\n";

    fn host(id: &str, lists: &[(&str, &str)]) -> tempfile::TempDir {
        let etc = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(etc.path().join("apt/sources.list.d")).unwrap();
        let facts = format!("ID={id}\nVERSION_CODENAME=\"bookworm\"\n");
        std::fs::write(etc.path().join("os-release"), facts).unwrap();
        for (name, text) in lists {
            std::fs::write(etc.path().join("apt").join(name), text).unwrap();
        }
        etc
    }

    #[test]
    fn the_hosts_archive_is_used_for_its_own_distribution() {
        let etc = host("debian", &[("sources.list.d/debian.sources", NEW)]);
        let (main, security) = of_host(etc.path(), Distribution::Debian);
        assert_eq!(main, "http://m.example/debian");
        assert_eq!(security, "http://m.example/debian-security");
        let (main, _) = of_host(etc.path(), Distribution::Ubuntu);
        assert_eq!(main, Distribution::Ubuntu.archive());
    }

    #[test]
    fn lists_of_one_line_each() {
        let text = "deb cdrom:[Debian 12]/ bookworm main\ndeb-src http://src.example/ bookworm main\n\
            deb http://user:secret@m.example/debian bookworm main\n\
            deb [arch=amd64 signed-by=/k] http://m.example/debian/ bookworm main # x\n";
        let etc = host("debian", &[("sources.list", text)]);
        let (main, security) = of_host(etc.path(), Distribution::Debian);
        assert_eq!(main, "http://m.example/debian");
        assert_eq!(security, Distribution::Debian.security_archive());
    }

    #[test]
    fn a_host_without_lists_has_the_usual_archives() {
        let etc = tempfile::tempdir().unwrap();
        let (main, _) = of_host(etc.path(), Distribution::Debian);
        assert_eq!(main, Distribution::Debian.archive());
    }

    fn order(change: impl FnOnce(&mut Options)) -> Order {
        let mut options = Options { release: "debian:12".into(), ..Options::default() };
        change(&mut options);
        Order::new(&options).unwrap()
    }

    #[test]
    fn a_mirror_is_used_as_it_is() {
        let keys = tempfile::NamedTempFile::new().unwrap();
        let archives = Archives::choose(&order(|options| {
            options.mirror = Some("http://m.example/d/".into());
            options.keyring = Some(keys.path().into());
        }));
        let path = keys.path().canonicalize().unwrap();
        let by = format!("[signed-by={}] ", path.display());
        let (archives, release) = (archives.unwrap(), Release::find("debian:12").unwrap());
        let by_guest =
            "deb [signed-by=/etc/apt/keyrings/archive.gpg] http://m.example/d bookworm main";
        assert_eq!(archives.lines_of_guest(release).first().map(String::as_str), Some(by_guest));
        assert_eq!(
            archives.lines(release),
            [
                format!("deb {by}http://m.example/d bookworm main"),
                format!("deb {by}http://m.example/d bookworm-updates main"),
            ]
        );
    }

    #[test]
    fn only_settings_of_the_network_are_taken_over() {
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://p:3128\";\nAcquire::Languages \"none\";\n\
            Acquire::Check-Date \"false\";\nAcquire::https::Broken \"x\n";
        assert_eq!(
            settings(dump),
            ["Acquire::http::Proxy \"http://p:3128\";", "Acquire::Check-Date \"false\";"]
        );
    }
}
