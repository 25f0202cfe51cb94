//! Where a sweep's results lie. Written by `sweep`, read by whoever compares or draws its cells.
//!
//! ```text
//! DIR/sweep.json            the matrix, the order of its runs, and what became of each
//! DIR/README.md             the same for people, with the commands that look at it
//! DIR/<cell>/               a results folder (see report/folder.rs), named by what varies: `lz4`
//! DIR/<cell>/rounds/<n>/    with several rounds: each a results folder; the cell's own is then
//!                           their merge, made once all of them are there
//! ```
//! Rounds count from 1. Round n of one cell and round n of another ran next to each other, in turns
//! (A B, B A, A B, …): they are the pairs to compare.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// What became of the sweep; see [`state`](super::state).
pub const STATE: &str = "sweep.json";
/// The sweep in words.
pub const README: &str = "README.md";
/// Inside a cell: its rounds.
const ROUNDS: &str = "rounds";

/// The results folder of a cell.
pub fn cell(root: &Path, name: &str) -> PathBuf {
    root.join(name)
}

/// The results folder of a cell's round `number`, the first being 1, when there are `rounds`.
pub fn round(root: &Path, name: &str, number: usize, rounds: usize) -> PathBuf {
    let cell = cell(root, name);
    match rounds {
        1 => cell,
        _ => cell.join(ROUNDS).join(number.to_string()),
    }
}

/// The rounds of a results folder by their number, first to last; nothing when it is a single run.
///
/// # Errors
/// When the folder cannot be listed.
pub fn rounds(folder: &Path) -> io::Result<Vec<(usize, PathBuf)>> {
    let entries = match fs::read_dir(folder.join(ROUNDS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut rounds = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        if let Some(number) = number
            && path.is_dir()
        {
            rounds.push((number, path));
        }
    }
    rounds.sort();
    Ok(rounds)
}

/// Letters, digits, `.`, `_` and `-` of `text`; everything else becomes `_`, so that the result is a
/// file name everywhere and needs no quotes in a shell. Two texts may give the same one.
pub fn safe(text: &str) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = text
        .chars()
        .map(|c| if kept(c) { c } else { '_' })
        .collect();
    // Not hidden, not a way up, not a flag.
    match name.strip_prefix(['.', '-']) {
        Some(rest) => format!("_{rest}"),
        None if name.is_empty() => "_".into(),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe() {
        for (text, name) in [
            ("100B", "100B"),
            ("zstd:3", "zstd_3"),
            ("zipf:1000,1.1", "zipf_1000_1.1"),
            ("corpus/events.txt", "corpus_events.txt"),
            ("../up", "_._up"),
            ("-1", "_1"),
            ("", "_"),
        ] {
            assert_eq!(safe(text), name);
        }
    }

    #[test]
    fn rounds_are_listed_by_number() {
        let root = std::env::temp_dir().join(format!("ringpost-layout-{}", std::process::id()));
        for number in [10, 2, 1] {
            fs::create_dir_all(round(&root, "lz4", number, 10)).expect("a folder");
        }
        fs::create_dir_all(round(&root, "none", 1, 1)).expect("a folder");
        let numbers: Vec<_> = rounds(&cell(&root, "lz4")).expect("listed");
        let numbers: Vec<_> = numbers.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 10]);
        assert_eq!(rounds(&cell(&root, "none")).expect("listed"), []);
        fs::remove_dir_all(&root).expect("removed");
    }
}
