//! `sweep.json`: the matrix, and what became of each run. Rewritten (whole, by a rename) after each.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sweep::layout;

/// The file's kind and version.
pub const SCHEMA: &str = "ringpost-bench/sweep/1";

/// A sweep.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// [`SCHEMA`].
    pub schema: String,
    /// The scenario's file, as it was named.
    pub scenario: String,
    /// What varies, in the order of the scenario; the last varies fastest.
    pub varies: Vec<Varies>,
    /// How often each cell runs.
    pub rounds: usize,
    /// How long all runs take, if none of them measures a number of records, however long it takes.
    pub planned_s: Option<f64>,
    /// The cells, the last key varying fastest.
    pub cells: Vec<CellState>,
    /// The runs, in their order: cells take turns over the rounds.
    pub runs: Vec<RunState>,
}

/// One setting that varies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Varies {
    /// Its key; `set.NAME` for a setting of the engine.
    pub key: String,
    /// Its values, in the order of the scenario.
    pub values: Vec<String>,
}

/// One cell of the matrix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CellState {
    /// The name of its folder.
    pub name: String,
    /// What sets it apart: key and value.
    pub settings: BTreeMap<String, String>,
    /// All its settings, as flags of `run`: two cells are the same when these are, but for the gate.
    pub flags: Vec<String>,
}

/// One run of a cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunState {
    /// The cell's name.
    pub cell: String,
    /// From 1.
    pub round: usize,
    /// Its results folder, from the sweep's.
    pub folder: String,
    /// How far it came.
    pub progress: Progress,
    /// What went wrong, if something did.
    pub why: Option<String>,
}

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Not started.
    Planned,
    /// Started. When no sweep is at work, one was killed: it counts as not started.
    Running,
    /// Ended early by an interrupt: to be run again.
    Interrupted,
    /// There is no result, or only one of a run that broke off: to be run again.
    Failed,
    /// There is a result, and some record did not end as it should: that is what was measured.
    Unsettled,
    /// There is a good result.
    Finished,
}

impl Progress {
    /// Whether it is not run again.
    pub fn is_final(self) -> bool {
        matches!(self, Progress::Unsettled | Progress::Finished)
    }
}

impl State {
    /// The state in a sweep's folder, or nothing when there is none.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or is not one of this program's.
    pub fn read(root: &Path) -> Result<Option<Self>, String> {
        let path = root.join(layout::STATE);
        let refused = |what: String| format!("{}: {what}", path.display());
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| refused(error.to_string()))?,
        };
        let state: Self = serde_json::from_slice(&text)
            .map_err(|error| refused(format!("not a sweep of this program: {error}")))?;
        if state.schema != SCHEMA {
            return Err(refused(format!(
                "its schema is `{}`; this program reads `{SCHEMA}`",
                state.schema
            )));
        }
        Ok(Some(state))
    }

    /// Writes the state into a sweep's folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        // Whoever kills the sweep here leaves the old state or the new one.
        let new = root.join(".sweep.json");
        fs::write(&new, &json)?;
        fs::rename(new, root.join(layout::STATE))
    }
}
