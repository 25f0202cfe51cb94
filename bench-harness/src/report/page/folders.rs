//! Which runs a page shows, and what each is called there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::exit::Failure;
use crate::sweep::layout;
use crate::sweep::state::State;

/// The file that makes a folder a results folder.
const RUN: &str = "run.json";

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// In the order they were named; the cells of a sweep in its order.
    pub runs: Vec<Named>,
    /// What was not taken and why, a line each: the cells that a sweep has not got to.
    pub left_out: Vec<String>,
}

/// A results folder and its name among the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Where it lies.
    pub folder: PathBuf,
    /// The end of its path, as long as it takes to be told from the others.
    pub name: String,
}

/// The results folders that `given` names: each itself, or those directly in it.
pub fn find(given: &[PathBuf]) -> Result<Found, Failure> {
    let mut found = Vec::new();
    let mut left_out = Vec::new();
    for folder in given {
        if folder.join(RUN).is_file() {
            found.push(folder.clone());
            continue;
        }
        let refused = |why: String| Failure::config(format!("{}: {why}", folder.display()));
        let inside = inside(folder).map_err(refused)?;
        let (cells, others): (Vec<_>, Vec<_>) = inside
            .into_iter()
            .partition(|path| path.join(RUN).is_file());
        if cells.is_empty() {
            return Err(refused(format!(
                "no {RUN} in it or in a folder of it; expected a results folder, as `run --out` \
                 writes it, or a sweep's"
            )));
        }
        found.extend(cells);
        let without = |path: PathBuf| format!("{}: no {RUN} yet", path.display());
        left_out.extend(others.into_iter().map(without));
    }
    Ok(Found {
        runs: named(found),
        left_out,
    })
}

/// The folders directly in `folder`: the cells in their order, if it is a sweep's.
fn inside(folder: &Path) -> Result<Vec<PathBuf>, String> {
    if let Some(sweep) = State::read(folder)? {
        let cells = sweep.cells.iter();
        return Ok(cells.map(|cell| layout::cell(folder, &cell.name)).collect());
    }
    let entries: Vec<_> = fs::read_dir(folder)
        .and_then(Iterator::collect)
        .map_err(|error| error.to_string())?;
    let mut inside: Vec<PathBuf> = entries
        .into_iter()
        .map(|entry: fs::DirEntry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    inside.sort();
    Ok(inside)
}

/// Gives each folder a name of its own; a folder that is named twice is taken once.
fn named(folders: Vec<PathBuf>) -> Vec<Named> {
    let mut seen = BTreeSet::new();
    let mut runs: Vec<(PathBuf, Vec<String>)> = Vec::new();
    for folder in folders {
        let whole = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        if seen.insert(whole.clone()) {
            runs.push((folder, parts(&whole)));
        }
    }
    let longest = runs.iter().map(|(_, parts)| parts.len()).max().unwrap_or(1);
    let name =
        |parts: &[String], length: usize| parts[parts.len().saturating_sub(length)..].join("/");
    let names: Vec<String> = runs
        .iter()
        .map(|(_, mine)| {
            let unique = |length: &usize| {
                let same = |other: &&(PathBuf, Vec<String>)| {
                    name(&other.1, *length) == name(mine, *length)
                };
                runs.iter().filter(same).count() == 1
            };
            let length = (1..=longest).find(unique).unwrap_or(longest);
            name(mine, length)
        })
        .collect();
    let folders = runs.into_iter().map(|(folder, _)| folder);
    folders
        .zip(names)
        .map(|(folder, name)| Named { folder, name })
        .collect()
}

fn parts(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(part) => Some(part.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_long_as_they_have_to_be() {
        let paths = ["/a/none", "/b/none", "/b/lz4", "/b/lz4"].map(PathBuf::from);
        let names: Vec<String> = named(paths.to_vec())
            .into_iter()
            .map(|run| run.name)
            .collect();
        assert_eq!(names, ["a/none", "b/none", "lz4"]);
    }
}
