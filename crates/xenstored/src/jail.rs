//! What the process gives up once it has opened its files.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;

/// Descriptors: connections and a few more.
const MOST_FILES: u64 = 1200;
/// Longest file, in bytes: the journal.
const LONGEST_FILE: u64 = 2 << 30;
/// Address space in bytes: many times what quotas allow a hundred domains.
const MOST_MEMORY: u64 = 4 << 30;

/// Gives up what is not needed: new privileges, further processes, much memory, core dumps, and
/// being looked into. Returns what the host did not allow.
pub fn confine() -> Vec<&'static str> {
    let limit = |resource, most| {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).is_ok()
    };
    let steps = [
        ("no new privileges", set_no_new_privs(true).is_ok()),
        ("undumpable", set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok()),
        ("no core dumps", limit(Resource::Core, 0)),
        ("no processes", limit(Resource::Nproc, 0)),
        ("no locked memory", limit(Resource::Memlock, 0)),
        ("no message queues", limit(Resource::Msgqueue, 0)),
        ("few files", limit(Resource::Nofile, MOST_FILES)),
        ("short files", limit(Resource::Fsize, LONGEST_FILE)),
        ("little memory", limit(Resource::As, MOST_MEMORY)),
    ];
    steps.into_iter().filter(|(_, is_done)| !is_done).map(|(what, _)| what).collect()
}
