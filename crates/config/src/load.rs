//! Finding, reading and understanding a configuration file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Level};
use crate::error::{Error, MAX_FILE_BYTES};
use crate::eval::value::{Data, Value};
use crate::eval::{self, Entry, Namespace};
use crate::keys::{self, Kind};
use crate::model::DomainConfig;
use crate::pending::{self, Pending};
use crate::source::{Fault, Outcome, Source, Span};
use crate::syntax;
use crate::syntax::text::Text;

/// Warnings kept; a file has few variables.
const MAX_WARNINGS: usize = 50;

/// How to load a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// `key=value` words of the command line, in order. A key of the
    /// configuration language overrides the file, and a repeated list key
    /// (`disk`, `vif`, ...) appends; any other name is a variable that the
    /// file sees, an integer if it looks like one.
    pub overrides: Vec<(String, String)>,
    /// Directories tried after the name itself.
    pub search: Vec<PathBuf>,
}

impl Default for LoadOptions {
    /// No overrides; search `.` and `/etc/xen`.
    fn default() -> Self {
        Self { overrides: Vec::new(), search: vec![PathBuf::from("."), PathBuf::from("/etc/xen")] }
    }
}

/// A configuration that was understood.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub config: DomainConfig,
    /// What in it is probably not meant so.
    pub warnings: Vec<Diagnostic>,
    /// What in it has no effect yet; to be shown to the user.
    pub pending: Vec<Pending>,
    /// The file it came from.
    pub path: PathBuf,
}

/// Loads the configuration called `path`: the file of that name, else the
/// first of that name in the directories of `options.search`. The base name
/// of the file is the name of the domain if the file gives none.
///
/// # Errors
/// No such file, one that cannot be read, or one that is not understood;
/// every fault of the latter is listed with its place.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Loaded, Error> {
    let path = find(path, &options.search)?;
    let text = read_text(&path)?;
    let base = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let shown = path.display().to_string();
    understand(shown, &base.unwrap_or_default(), text, &options.overrides, path)
}

/// Understands `text` as the configuration file called `name`.
///
/// # Errors
/// As [`load`], save for files.
pub fn parse_str(name: &str, text: &str, overrides: &[(String, String)]) -> Result<Loaded, Error> {
    let path = PathBuf::from(name);
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(Error::TooLarge { path });
    }
    let base = path.file_name().map_or(name.into(), |base| base.to_string_lossy());
    understand(name.to_owned(), &base, text.to_owned(), overrides, path.clone())
}

fn find(name: &Path, search: &[PathBuf]) -> Result<PathBuf, Error> {
    let mut searched = Vec::new();
    let places = std::iter::once(name.to_owned()).chain(search.iter().map(|dir| dir.join(name)));
    for place in places {
        // `is_file` follows links, and leaves directories and devices out.
        if place.is_file() {
            return Ok(place);
        }
        if !searched.contains(&place) {
            searched.push(place);
        }
    }
    Err(Error::NotFound { name: name.display().to_string(), searched })
}

pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(Error::TooLarge { path: path.to_owned() });
    }
    // Old files have comments in other encodings; the lexer refuses the
    // replacement character anywhere else.
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

fn understand(
    shown: String,
    base: &str,
    text: String,
    overrides: &[(String, String)],
    path: PathBuf,
) -> Result<Loaded, Error> {
    let mut sources = vec![Source { name: shown, text }];
    for (key, value) in overrides {
        let text = format!("{key}={value}");
        sources.push(Source { name: "command line".to_owned(), text });
    }
    match checked(&sources, base, overrides) {
        Ok((config, remarks, pending)) => {
            let remarks = remarks.into_iter().take(MAX_WARNINGS);
            let warn = |fault: Fault| Diagnostic::new(Level::Warning, fault, &sources);
            Ok(Loaded { config, warnings: remarks.map(warn).collect(), pending, path })
        }
        Err(faults) => {
            let refuse = |fault: Fault| Diagnostic::new(Level::Error, fault, &sources);
            Err(Error::Invalid(faults.into_iter().map(refuse).collect()))
        }
    }
}

type Checked = (DomainConfig, Vec<Fault>, Vec<Pending>);

fn checked(
    sources: &[Source],
    base: &str,
    overrides: &[(String, String)],
) -> Result<Checked, Vec<Fault>> {
    let text = sources.first().map_or("", |source| source.text.as_str());
    let names = names(text, overrides).map_err(|fault| vec![*fault])?;
    let (mut faults, mut remarks) = unknown_names(&names);
    let lookup = |key: &str| names.entries.get(key).map(|entry| &entry.value);
    match crate::read::read(&names, base) {
        Ok((config, more)) if faults.is_empty() => {
            remarks.extend(more);
            Ok((config, remarks, pending::pending(lookup)))
        }
        Ok(_) => Err(faults),
        Err(more) => {
            faults.extend(more);
            Err(faults)
        }
    }
}

/// Runs the file with the overrides before and over it.
fn names(text: &str, overrides: &[(String, String)]) -> Outcome<Namespace> {
    other_format(text)?;
    let given = given(overrides)?;
    let program = syntax::parse(0, text)?;
    let mut names = eval::run(&program, given.clone())?;
    for (key, entry) in given {
        if keys::kind(&key).is_some() {
            names.entries.insert(key, entry);
        }
    }
    Ok(names)
}

/// Files that are a domain configuration of another kind.
fn other_format(text: &str) -> Outcome<()> {
    let start = text.trim_start_matches('\u{FEFF}');
    let span = Span::new(0, text.len() - start.len(), text.len() - start.len() + 1);
    match start.chars().next() {
        Some('<') => Err(Fault::at(span, "This is an XML (Xen-API) configuration")
            .help("only xm and xl configuration files are read here")),
        Some('(') => Err(Fault::at(span, "This is an S-expression, not a configuration file")
            .help("only xm and xl configuration files are read here")),
        _ => Ok(()),
    }
}

/// The names set by the command line.
fn given(overrides: &[(String, String)]) -> Outcome<BTreeMap<String, Entry>> {
    let mut given: BTreeMap<String, Entry> = BTreeMap::new();
    for (index, (key, word)) in overrides.iter().enumerate() {
        let source = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let name_span = Span::new(source, 0, key.len());
        let span = Span::new(source, key.len() + 1, key.len() + 1 + word.len());
        let value = Value::new(given_data(key, word, span)?, span);
        match given.get_mut(key) {
            Some(Entry { value: Value { data: Data::List(list), .. }, .. }) => {
                if let Data::List(more) = value.data {
                    list.extend(more);
                }
            }
            _ => {
                given.insert(key.clone(), Entry { name_span, value });
            }
        }
    }
    Ok(given)
}

fn given_data(key: &str, word: &str, span: Span) -> Outcome<Data> {
    let text = || Text::verbatim(word, span);
    match keys::kind(key) {
        Some(Kind::Text) => Ok(Data::Text(text())),
        Some(Kind::List) => Ok(Data::List(vec![Value::new(Data::Text(text()), span)])),
        Some(Kind::Number) => given_number(word)
            .map(Data::Int)
            .ok_or_else(|| Fault::at(span, format!("`{key}` expects a number, got `{word}`"))),
        None => {
            let decimal = word == "0" || !word.trim_start_matches('-').starts_with('0');
            let number = word.parse().ok().filter(|_| decimal && !word.starts_with('+'));
            Ok(number.map_or_else(|| Data::Text(text()), Data::Int))
        }
    }
}

fn given_number(word: &str) -> Option<i64> {
    let word = word.trim();
    match word.strip_prefix('-') {
        Some(digits) => syntax::integer(digits)?.checked_neg(),
        None => syntax::integer(word),
    }
}

/// Names that are neither keys nor read by the file: faults where a key is
/// near, remarks otherwise.
fn unknown_names(names: &Namespace) -> (Vec<Fault>, Vec<Fault>) {
    let (mut faults, mut remarks) = (Vec::new(), Vec::new());
    let unused =
        |name: &str, read: &BTreeSet<String>| keys::kind(name).is_none() && !read.contains(name);
    for (name, entry) in &names.entries {
        if !unused(name, &names.read) {
            continue;
        }
        match keys::nearest_key(name) {
            Some(near) => {
                let fault = Fault::at(entry.name_span, format!("Unknown key `{name}`"));
                faults.push(*fault.help(format!("did you mean `{near}`?")));
            }
            None => {
                let message = format!("`{name}` is not a key and is used nowhere");
                remarks.push(*Fault::at(entry.name_span, message));
            }
        }
    }
    faults.truncate(MAX_WARNINGS);
    remarks.sort_by_key(|fault| fault.span.map(|span| (span.source, span.start)));
    (faults, remarks)
}
