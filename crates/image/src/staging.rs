//! The place of a build: a directory beside the target while it lasts, the target when it is done.
//!
//! The staging directory is locked as long as its build lives, by flock(2) on itself; one that is
//! not locked was left by a build that was killed, and is removed by the next for the same target.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::confine::Way;
use crate::error::Error;
use crate::files::set_mode;
use crate::names;
use crate::tools::Tools;

/// The file that makes a directory one of ours.
const MARK: &str = "disk.img";
/// Between the target's name and the random part.
const TAG: &str = ".xm-image-";

/// What is at the target now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    EmptyDirectory,
    Image,
}

/// Where the result goes: an absolute path whose parent exists.
#[derive(Clone, Debug)]
pub struct Target {
    parent: PathBuf,
    name: String,
    force: bool,
}

impl Target {
    /// Checks the directory of `-o`.
    ///
    /// # Errors
    ///
    /// When it cannot be made, is there already, or cannot be written into a configuration.
    pub fn new(path: &Path, force: bool) -> Result<Self, Error> {
        let wrong = |why, hint| Error::Directory { path: path.to_path_buf(), why, hint };
        let name = path.file_name().ok_or_else(|| {
            wrong("it names no directory of its own", "Name one that is to be made, like ./serv1.")
        })?;
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        let above = above.unwrap_or(Path::new("."));
        let parent = fs::canonicalize(above).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                wrong("the directory above it does not exist", "Create that first, with mkdir -p.")
            }
            _ => Error::at("find", above)(error),
        })?;
        // Quotes and commas end values in the configuration file.
        let plain = |text: &&str| !text.chars().any(|c| c.is_control() || "'\"\\,".contains(c));
        let all = parent.join(name);
        let name = all.to_str().filter(plain).and_then(|_| name.to_str()).ok_or_else(|| {
            wrong(
                "a configuration file cannot hold quotes, commas, backslashes or control characters",
                "Choose a path without them.",
            )
        })?;
        let target = Self { parent, name: name.to_owned(), force };
        target.look()?;
        Ok(target)
    }

    /// The directory's absolute path.
    pub fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// The directory above it, where the work is done.
    pub fn parent(&self) -> &Path {
        &self.parent
    }

    /// What is there, if it may be replaced.
    fn look(&self) -> Result<Found, Error> {
        let path = self.path();
        let wrong = |why, hint| Err(Error::Directory { path: path.clone(), why, hint });
        let facts = match fs::symlink_metadata(&path) {
            Ok(facts) => facts,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(Error::at("look at", &path)(error)),
        };
        if !facts.is_dir() {
            return wrong("it is there and no directory", "Choose another name.");
        }
        let entries = fs::read_dir(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(Error::at("read", &path))?;
        if entries.is_empty() {
            return Ok(Found::EmptyDirectory);
        }
        let files = entries.iter().all(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        match (files && entries.iter().any(|entry| entry.file_name() == MARK), self.force) {
            (true, true) => Ok(Found::Image),
            (true, false) => wrong(
                "an image is there already",
                "--force replaces it when the new one is complete.",
            ),
            (false, _) => wrong(
                "it is there and holds other things than an image",
                "Choose another name; --force only replaces images.",
            ),
        }
    }
}

/// A directory for the work, gone when this value is unless it was [committed](Self::commit).
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    target: Target,
    tools: Tools,
    way: Way,
    /// Held for its lock.
    _lock: File,
}

impl Staging {
    /// Makes the directory, after removing those of builds that are dead.
    ///
    /// # Errors
    ///
    /// When the directory above the target cannot be written.
    pub fn new(target: &Target, tools: &Tools, way: Way) -> Result<Self, Error> {
        remove_dead(target, tools, way)?;
        loop {
            let suffix = u32::from_ne_bytes(names::random()?);
            let path = target.parent.join(format!(".{}{TAG}{suffix:08x}", target.name));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                made => made.map_err(Error::at("create", &path))?,
            }
            // Another build may take it for dead before it is locked; then it is gone here.
            let Some(lock) = lock(&path)? else { continue };
            let (tools, target) = (tools.clone(), target.clone());
            let staging = Self { path, target, tools, way, _lock: lock };
            // Package managers work as users of their own too, who have to reach their files.
            set_mode(&staging.path, 0o711)?;
            staging.folder("tmp")?;
            staging.folder("result")?;
            return Ok(staging);
        }
    }

    fn folder(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        fs::create_dir(&path).map_err(Error::at("create", &path))
    }

    /// A path in it; the empty name is itself.
    pub fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.path.clone() } else { self.path.join(name) }
    }

    /// Moves the folder `result` to the target, all at once.
    ///
    /// # Errors
    ///
    /// When something is at the target now that may not be replaced.
    pub fn commit(self) -> Result<(), Error> {
        let (from, to) = (self.path("result"), self.target.path());
        let failed = |errno: Errno| Error::at("move the result to", &to)(errno);
        match self.target.look()? {
            Found::Image => {
                rename(&from, &to, RenameFlags::EXCHANGE).map_err(failed)?;
            }
            // An empty directory is replaced by rename(2), and only an empty one.
            Found::EmptyDirectory => fs::rename(&from, &to).map_err(Error::at("replace", &to))?,
            Found::Nothing => match rename(&from, &to, RenameFlags::NOREPLACE) {
                // Some file systems know no flags.
                Err(Errno::INVAL) => fs::rename(&from, &to).map_err(Error::at("create", &to))?,
                other => other.map_err(failed)?,
            },
        }
        Ok(())
    }
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Result<(), Errno> {
    rustix::fs::renameat_with(CWD, from, CWD, to, flags)
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next build.
        drop(remove(&self.path, &self.tools, self.way));
    }
}

/// Opens and locks a directory; `None` if it is locked by another, or not there any more.
fn lock(path: &Path) -> Result<Option<File>, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(folder) => File::from(folder),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(Error::at("open", path)(errno)),
    };
    if rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let facts = folder.metadata().map_err(Error::at("look at", path))?;
    let same = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|now| (now.st_dev, now.st_ino) == (facts.dev(), facts.ino()));
    Ok(same.then_some(folder))
}

/// Removes what killed builds for this target left: directories of ours that nobody has locked.
fn remove_dead(target: &Target, tools: &Tools, way: Way) -> Result<(), Error> {
    let begin = format!(".{}{TAG}", target.name);
    let entries = fs::read_dir(&target.parent).map_err(Error::at("read", &target.parent))?;
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| is_staging(name, &begin));
        let path = entry.path();
        let Ok(facts) = fs::symlink_metadata(&path) else { continue };
        if !ours || !facts.is_dir() || facts.uid() != rustix::process::geteuid().as_raw() {
            continue;
        }
        if let Ok(Some(_lock)) = lock(&path) {
            remove(&path, tools, way)?;
        }
    }
    Ok(())
}

/// Whether a name is the beginning and eight hexadecimal digits.
fn is_staging(name: &str, begin: &str) -> bool {
    let rest = name.strip_prefix(begin).unwrap_or_default();
    rest.len() == 8 && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Removes a directory with all in it, links unfollowed. Files of other ids of a user namespace
/// can only be removed from within such a one.
fn remove(path: &Path, tools: &Tools, way: Way) -> Result<(), Error> {
    let Err(error) = fs::remove_dir_all(path) else { return Ok(()) };
    if error.kind() == ErrorKind::NotFound {
        return Ok(());
    }
    let mut words: Vec<_> = way.as_root().into_iter().map(std::ffi::OsStr::new).collect();
    words.extend(["rm", "-rf", "--one-file-system", "--"].map(std::ffi::OsStr::new));
    words.push(path.as_os_str());
    let mut command = tools.command(&words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        _ => Err(Error::at("remove", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn target(path: &Path, force: bool) -> Result<Target, Error> {
        Target::new(path, force)
    }

    fn staging(target: &Target) -> Staging {
        Staging::new(target, &Tools::of_host(), Way::Bare).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn why(path: &Path, force: bool) -> &'static str {
        match target(path, force) {
            Err(Error::Directory { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    fn image(path: &Path, text: &str) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join(MARK), text).unwrap();
        fs::write(path.join("old.cfg"), text).unwrap();
    }

    #[test]
    fn a_result_appears_whole_and_nothing_else_stays() {
        let folder = folder();
        let target = target(&folder.path().join("serv1"), false).unwrap();
        let staging = staging(&target);
        fs::write(staging.path("result").join(MARK), "new").unwrap();
        assert!(!target.path().exists());
        staging.commit().unwrap();
        assert_eq!(names(folder.path()), ["serv1"]);
        assert_eq!(names(&target.path()), [MARK]);
    }

    #[test]
    fn an_abandoned_build_leaves_nothing() {
        let folder = folder();
        let target = target(&folder.path().join("serv1"), false).unwrap();
        let staging = staging(&target);
        fs::write(staging.path("tmp").join("x"), "x").unwrap();
        drop(staging);
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn an_image_is_replaced_only_when_asked_and_only_at_the_end() {
        let folder = folder();
        let path = folder.path().join("serv1");
        image(&path, "old");
        assert_eq!(why(&path, false), "an image is there already");
        let target = target(&path, true).unwrap();
        drop(staging(&target));
        assert_eq!(fs::read_to_string(path.join(MARK)).unwrap(), "old");
        let staging = staging(&target);
        fs::write(staging.path("result").join(MARK), "new").unwrap();
        staging.commit().unwrap();
        assert_eq!(fs::read_to_string(path.join(MARK)).unwrap(), "new");
        assert_eq!(names(&path), [MARK]);
        assert_eq!(names(folder.path()), ["serv1"]);
    }

    #[test]
    fn what_is_no_image_is_never_replaced() {
        let folder = folder();
        let path = folder.path().join("home");
        image(&path, "x");
        fs::create_dir(path.join("documents")).unwrap();
        assert_eq!(why(&path, true), "it is there and holds other things than an image");
        fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(why(&folder.path().join("file"), true), "it is there and no directory");
        std::os::unix::fs::symlink(&path, folder.path().join("link")).unwrap();
        assert_eq!(why(&folder.path().join("link"), true), "it is there and no directory");
    }

    #[test]
    fn a_directory_that_fills_up_meanwhile_is_not_lost() {
        let folder = folder();
        let path = folder.path().join("serv1");
        fs::create_dir(&path).unwrap();
        let target = target(&path, true).unwrap();
        let staging = staging(&target);
        fs::write(path.join("thesis"), "x").unwrap();
        assert!(staging.commit().is_err());
        assert_eq!(names(folder.path()), ["serv1"]);
        assert_eq!(names(&path), ["thesis"]);
    }

    #[test]
    fn paths_that_cannot_be() {
        let folder = folder();
        let missing = folder.path().join("no/serv1");
        assert_eq!(why(&missing, false), "the directory above it does not exist");
        assert_eq!(why(Path::new("/"), false), "it names no directory of its own");
        assert_eq!(why(Path::new(".."), false), "it names no directory of its own");
        for name in ["a,b", "a'b", "a\"b", "a\\b", "a\nb"] {
            assert!(why(&folder.path().join(name), false).starts_with("a configuration"), "{name}");
        }
        let target = target(&folder.path().join("serv1/"), false).unwrap();
        assert!(target.path().ends_with("serv1"));
    }

    #[test]
    fn dead_builds_are_cleared_away_and_living_ones_are_not() {
        let folder = folder();
        let target = target(&folder.path().join("serv1"), false).unwrap();
        let living = staging(&target);
        let dead = folder.path().join(".serv1.xm-image-0123abcd");
        fs::create_dir_all(dead.join("tmp/deep")).unwrap();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        std::os::unix::fs::symlink(&outside, dead.join("tmp/link")).unwrap();
        std::os::unix::fs::symlink(&outside, folder.path().join(".serv1.xm-image-00000000"))
            .unwrap();
        fs::create_dir(folder.path().join(".serv1.xm-image-mine")).unwrap();
        fs::create_dir(folder.path().join(".other.xm-image-0123abcd")).unwrap();
        let next = staging(&target);
        assert!(!dead.exists() && living.path("tmp").exists() && outside.join("kept").exists());
        assert!(folder.path().join(".serv1.xm-image-mine").exists());
        assert!(folder.path().join(".other.xm-image-0123abcd").exists());
        drop((living, next));
        assert_eq!(
            names(folder.path()),
            [
                ".other.xm-image-0123abcd",
                ".serv1.xm-image-00000000",
                ".serv1.xm-image-mine",
                "outside"
            ]
        );
    }
}
