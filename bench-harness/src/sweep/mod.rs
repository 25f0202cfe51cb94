//! A sweep: a scenario's matrix, each cell a run of its own (or several, in rounds), each with a
//! results folder.
//!
//! | step | module |
//! |---|---|
//! | the scenario becomes cells with names, and an order | [`matrix`] |
//! | a folder is made for them, or one is recognised and continued | here, [`state`], [`layout`] |
//! | cells run one after the other, each in a process of its own | here, [`crate::trial`] |
//! | what is going on, and how long yet | [`progress`] |
//! | what became of them, for people | [`table`] |
//!
//! What is done is read from the results, not from `sweep.json`: a run whose folder holds a whole
//! result of the same settings is not run again, whatever became of the sweep that started it. A
//! folder that holds anything else is left alone, and the sweep refused.

pub mod layout;
pub mod matrix;
pub mod progress;
pub mod state;
pub mod table;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::merge;
use crate::plan::Plan;
use crate::recorded::{self, Recorded};
use crate::report::document::Document;
use crate::report::{folder, lock};
use crate::scenario::{Draft, to_flags, work};
use crate::sweep::matrix::{Cell, Matrix, order};
use crate::sweep::progress::{Estimate, Live};
use crate::sweep::state::{CellState, Progress, RunState, SCHEMA, State};
use crate::trial::{self, Trial};

/// What to do about a folder that is taken.
const ELSEWHERE: &str = "name another folder with --out";

/// A sweep with its folder.
#[derive(Debug)]
pub struct Sweep {
    root: PathBuf,
    matrix: Matrix,
    state: State,
    /// For each of the state's runs: its cell, and the figures of the result, if it has a whole one.
    runs: Vec<(usize, Option<Document>)>,
    /// With several rounds, the figures of each cell whose rounds are all there.
    merged: Vec<Option<Document>>,
    /// Held while it lives: two sweeps in one folder would run everything twice.
    _lock: File,
}

/// What a sweep is going to do.
pub fn planned(scenario: &Path, matrix: &Matrix, rounds: usize) -> State {
    let root = Path::new("");
    let cells = matrix.cells.iter().map(|cell| CellState {
        name: cell.name.clone(),
        settings: cell.settings.iter().cloned().collect::<BTreeMap<_, _>>(),
        flags: to_flags(&cell.plan),
    });
    let runs = order(matrix.cells.len(), rounds).map(|(cell, round)| {
        let cell = &matrix.cells[cell].name;
        RunState {
            cell: cell.clone(),
            round,
            folder: layout::round(root, cell, round, rounds)
                .display()
                .to_string(),
            progress: Progress::Planned,
            why: None,
        }
    });
    State {
        schema: SCHEMA.into(),
        scenario: scenario.display().to_string(),
        varies: matrix.varies.clone(),
        rounds,
        planned_s: Estimate::new(matrix, rounds).whole_s(),
        cells: cells.collect(),
        runs: runs.collect(),
    }
}

impl Sweep {
    /// Makes `root` the folder of this sweep, or finds it to be that already.
    pub fn open(root: &Path, matrix: Matrix, state: State) -> Result<Self, Failure> {
        let refused = |what: String| Failure::config(format!("{}: {what}", root.display()));
        let unwritable = |error| unwritable(root, &error);
        folder::prepare(root).map_err(unwritable)?;
        let lock = lock::lock(root).map_err(unwritable)?;
        match State::read(root).map_err(Failure::config)? {
            Some(found) => {
                if let Some(differs) = differs(&found, &state) {
                    return Err(refused(format!(
                        "another sweep lies there: {differs}; {ELSEWHERE}"
                    )));
                }
            }
            None if holds_something(root).map_err(unwritable)? => {
                return Err(refused(format!(
                    "it is not empty, and no sweep; {ELSEWHERE}"
                )));
            }
            None => {}
        }
        let mut sweep = Self {
            root: root.to_owned(),
            runs: order(matrix.cells.len(), state.rounds)
                .map(|(cell, _)| (cell, None))
                .collect(),
            merged: vec![None; matrix.cells.len()],
            matrix,
            state,
            _lock: lock,
        };
        for at in 0..sweep.state.runs.len() {
            sweep.recognise(at).map_err(Failure::config)?;
        }
        sweep.write()?;
        Ok(sweep)
    }

    /// What has been done and what not.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Runs what has not been run. A run that fails does not keep the others from running.
    pub fn run(&mut self, interrupt: &Interrupt) -> Result<Exit, Failure> {
        let mut live = Live::new(Estimate::new(&self.matrix, self.state.rounds), &self.state);
        let left = |run: &RunState| !run.progress.is_final();
        let kept = self.state.runs.iter().filter(|run| !left(run)).count();
        if kept > 0 {
            live.say(&format!(
                "{kept} of {} runs are there already and are kept",
                self.state.runs.len()
            ));
        }
        let regauged = self.judged_by_another_gate();
        if regauged > 0 {
            live.say(&format!(
                "[gate] has changed since {regauged} of them ran: their results keep the thresholds \
                 they ran with; `gate --threshold` adds others"
            ));
        }
        let mut unmerged = None;
        for at in 0..self.state.runs.len() {
            if left(&self.state.runs[at]) && !interrupt.asked() {
                self.run_one(at, interrupt, &mut live)?;
            }
        }
        for cell in 0..self.matrix.cells.len() {
            if let Err(failure) = self.merge_rounds(cell) {
                live.say(&format!("{}: {failure}", self.matrix.cells[cell].name));
                unmerged = Some(failure);
            }
        }
        live.end();
        self.write()?;
        if let Some(failure) = unmerged {
            return Err(failure);
        }
        let good = |run: &RunState| run.progress == Progress::Finished;
        Ok(if self.state.runs.iter().all(good) {
            Exit::Good
        } else {
            Exit::Unsettled
        })
    }

    /// How many of the results have other thresholds than the scenario has by now.
    fn judged_by_another_gate(&self) -> usize {
        let changed = |(cell, result): &&(usize, Option<Document>)| {
            let gate = self.matrix.cells[*cell].plan.gate.iter();
            let gate: Vec<_> = gate.map(ToString::to_string).collect();
            result.as_ref().is_some_and(|result| result.gate != gate)
        };
        self.runs.iter().filter(changed).count()
    }

    /// Whether all of it is done.
    pub fn is_complete(&self) -> bool {
        self.state.runs.iter().all(|run| run.progress.is_final())
    }

    fn run_one(
        &mut self,
        at: usize,
        interrupt: &Interrupt,
        live: &mut Live,
    ) -> Result<(), Failure> {
        self.state.runs[at].progress = Progress::Running;
        self.state
            .write(&self.root)
            .map_err(|error| unwritable(&self.root, &error))?;
        let run = &self.state.runs[at];
        let out = self.root.join(&run.folder);
        live.start(&self.state, at);
        let plan = &self.cell(at).plan;
        let (mut progress, mut why) = match trial::run(plan, Some(&out), interrupt) {
            Err(failure) => (Progress::Failed, Some(failure.why)),
            Ok(trial) => judged(&trial),
        };
        if interrupt.asked() && !progress.is_final() {
            // Also one that was stopped before it had anything to say.
            (progress, why) = (Progress::Interrupted, None);
        }
        if progress.is_final() {
            // What counts is what was written.
            if let Err(what) = self.recognise(at) {
                (progress, why) = (Progress::Failed, Some(what));
            } else if !self.state.runs[at].progress.is_final() {
                (progress, why) = (Progress::Failed, Some("its results are not there".into()));
            }
        }
        let run = &mut self.state.runs[at];
        (run.progress, run.why) = (progress, why.or_else(|| run.why.take()));
        live.ended(&self.state, at, self.runs[at].1.as_ref());
        self.write()
    }

    /// Writes the results folder of a cell with several rounds, once all of them are there.
    fn merge_rounds(&mut self, cell: usize) -> Result<(), Failure> {
        let runs = self.runs.iter().zip(&self.state.runs);
        let runs: Vec<_> = runs.filter(|((of, _), _)| *of == cell).collect();
        if self.state.rounds == 1 || !runs.iter().all(|(_, run)| run.progress.is_final()) {
            return Ok(());
        }
        let parts: Vec<_> = runs
            .iter()
            .map(|(_, run)| Recorded::open(&self.root.join(&run.folder)))
            .collect::<Result<_, _>>()?;
        let merged = merge::merge(&parts, false)?;
        let folder = layout::cell(&self.root, &self.matrix.cells[cell].name);
        // The same rounds give the same merge: one that is there is left as it is.
        let before = Recorded::open(&folder).ok();
        let same = |before: &Recorded| {
            let of = |recorded: &Recorded| serde_json::to_value(&recorded.document.merged).ok();
            of(before) == of(&merged)
        };
        if !before.as_ref().is_some_and(same) {
            merge::write(&folder, &merged, &parts).map_err(|error| unwritable(&folder, &error))?;
        }
        self.merged[cell] = Some(merged.document);
        Ok(())
    }

    /// Reads what lies in the folder of run `at`; the error says why it cannot stay there.
    fn recognise(&mut self, at: usize) -> Result<(), String> {
        let folder = self.root.join(&self.state.runs[at].folder);
        // A run outlives the sweep that started it for a moment, when that is killed.
        lock::wait_unlocked(&folder);
        let scenario = folder.join("scenario.toml");
        let (Ok(scenario), Ok(json)) = (
            fs::read_to_string(&scenario),
            fs::read(folder.join("run.json")),
        ) else {
            return Ok(()); // never started, or killed before it had a result
        };
        let mut draft = Draft::default();
        draft.read_text("scenario.toml", &scenario);
        let cell = self.cell(at);
        let same = |plan: Plan| work(&to_flags(&plan)).eq(work(&to_flags(&cell.plan)));
        if !draft.finish().is_ok_and(same) {
            return Err(format!(
                "{}: a run of another scenario lies there; {ELSEWHERE}",
                folder.display()
            ));
        }
        // What does not parse was cut off.
        let Ok(found) = recorded::parse(&json) else {
            return Ok(());
        };
        let document = found.document;
        if document.interrupted || document.failure.is_some() {
            return Ok(());
        }
        self.state.runs[at].progress = match document.good {
            true => Progress::Finished,
            false => Progress::Unsettled,
        };
        self.state.runs[at].why = unsettled(&document);
        self.runs[at].1 = Some(document);
        Ok(())
    }

    /// The cell of run `at`.
    fn cell(&self, at: usize) -> &Cell {
        &self.matrix.cells[self.runs[at].0]
    }

    /// The figures of a cell.
    pub fn result(&self, cell: usize) -> Option<&Document> {
        if self.state.rounds > 1 {
            return self.merged.get(cell)?.as_ref();
        }
        let run = self.runs.iter().find(|(of, _)| *of == cell)?;
        run.1.as_ref()
    }

    /// Writes what became of it: for programs, and for people.
    fn write(&self) -> Result<(), Failure> {
        let written = self.state.write(&self.root).and_then(|()| {
            let readme = table::readme(self);
            fs::write(self.root.join(layout::README), readme)
        });
        written.map_err(|error| unwritable(&self.root, &error))
    }
}

/// Whether there is anything in the folder but what a killed sweep leaves half written.
fn holds_something(root: &Path) -> io::Result<bool> {
    let hidden = |name: &OsString| name.as_encoded_bytes().starts_with(b".");
    for entry in fs::read_dir(root)? {
        if !hidden(&entry?.file_name()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unwritable(root: &Path, error: &io::Error) -> Failure {
    Failure::output(format!("{}: {error}", root.display()))
}

/// In what two sweeps differ, if they do.
fn differs(found: &State, wanted: &State) -> Option<String> {
    let told = |state: &State| {
        let keys = state.varies.iter();
        keys.map(|axis| format!("{}={}", axis.key, axis.values.join("|")))
            .collect::<Vec<_>>()
            .join(" ")
    };
    if found.varies != wanted.varies {
        let (found, wanted) = (told(found), told(wanted));
        return Some(format!("it varies {found}, this one {wanted}"));
    }
    if found.rounds != wanted.rounds {
        let (found, wanted) = (found.rounds, wanted.rounds);
        return Some(format!("it has --rounds {found}, this one {wanted}"));
    }
    let cells = found.cells.iter().zip(&wanted.cells);
    cells
        .filter_map(|(found, wanted)| {
            let [old, new] = [found, wanted].map(|cell| work(&cell.flags).collect::<Vec<_>>());
            let less = |from: &[&String], of: &[&String]| {
                let gone = from.iter().filter(|flag| !of.contains(flag));
                gone.map(|flag| flag.as_str()).collect::<Vec<_>>().join(" ")
            };
            let name = &found.name;
            (old != new).then(|| {
                format!(
                    "its {name} has `{}`, this one `{}`",
                    less(&old, &new),
                    less(&new, &old)
                )
            })
        })
        .next()
}

/// What a run's end says of it.
fn judged(trial: &Trial) -> (Progress, Option<String>) {
    let document = trial.run.as_ref().map(|run| &run.document);
    let last = trial
        .said
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty());
    let said = last.unwrap_or("it said nothing").to_owned();
    match (document, trial.ended) {
        (Some(document), _) if document.interrupted => (Progress::Interrupted, None),
        (Some(_), Ok(0)) => (Progress::Finished, None),
        (Some(document), Ok(1)) => (Progress::Unsettled, unsettled(document)),
        (Some(document), _) => (Progress::Failed, document.failure.clone().or(Some(said))),
        (None, Ok(_)) => (Progress::Failed, Some(said)),
        (None, Err(signal)) => {
            let why = format!("its process was ended by signal {signal}");
            (Progress::Failed, Some(why))
        }
    }
}

/// Why a measured run is not good.
fn unsettled(document: &Document) -> Option<String> {
    let verified = document.verified.iter();
    let counts = verified.flat_map(|found| {
        [
            (found.lost, "lost"),
            (found.duplicated, "duplicated"),
            (found.reordered, "reordered"),
            (found.corrupt, "corrupt"),
        ]
    });
    let unsettled = (document.run.unsettled_records, "without an outcome");
    let counts = counts
        .chain([unsettled])
        .filter(|(records, _)| *records > 0);
    let counts = counts.map(|(records, what)| format!("{records} records {what}"));
    let failures = document.failures.iter();
    let failures = failures.map(|failure| format!("{} records: {}", failure.records, failure.why));
    let all: Vec<_> = counts.chain(failures).collect();
    (!document.good).then(|| all.join("; "))
}
