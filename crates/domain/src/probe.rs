//! What this host lets domains do, found by trying (`xendomain --probe`, for `xm doctor`).

use crate::isolation::Isolation;
use crate::space::{empty_directory, find_walls};
use crate::sys::{Walls, has_dispatch, has_io_uring, has_protection_keys, landlock_version};
use control::{Probe, Registry, WallProbe};

/// Tries everything. One process is jailed and ends at once.
pub fn probe() -> Probe {
    let (walls, failure) = match jail() {
        Ok(walls) => (wall_probes(walls), None),
        Err(why) => (Vec::new(), Some(why)),
    };
    Probe {
        dispatch: has_dispatch(),
        keys: has_protection_keys(),
        isolation: Isolation::choose(0).to_string(),
        landlock: landlock_version(),
        io_uring: has_io_uring(),
        walls,
        failure,
    }
}

fn jail() -> Result<Walls, String> {
    let registry = Registry::open().map_err(|error| error.to_string())?;
    let root = empty_directory(&registry.dirs().runtime);
    let root = root.map_err(|error| format!("Cannot make an empty directory: {error}"))?;
    find_walls(&root).map_err(|error| error.to_string())
}

fn wall_probes(walls: Walls) -> Vec<WallProbe> {
    walls.all().map(|(name, holds)| WallProbe { name: name.to_owned(), holds }).collect()
}
