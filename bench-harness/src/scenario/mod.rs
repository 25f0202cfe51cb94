//! A scenario file and the flags beside it become a [`Plan`], or a list of *all* that is wrong.
//!
//! ```toml
//! extends = "base.toml"                 # read first, from this file's folder; what is said here wins
//! record_size = "1KiB"                  # one key for each setting
//! [set]                                 # settings of the engine by their names
//! gap = "1ms"
//! [sweep]                               # settings that take several values: `sweep` runs them all
//! compression = ["none", "lz4"]
//! set.max_in_flight = [1, 5]
//! [gate]                                # what a result must keep
//! thresholds = ["p99.9 < 2ms"]
//! ```
//! Unknown keys are refused and the nearest known one is named; every fault says file, line and key.
//! Paths are from the folder of the file that says them, like `extends`; those of flags from the
//! current one. Flags override files, a file what it extends; `[set]` and `[gate]` add up, and replace by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::client::null::UNUSED;
use crate::client::ringpost::check_setting;
use crate::nearest::hint;
use crate::plan::{Acks, Arrival, Brokers, Engine, Plan, Rate, RecordSource};
use crate::setting::{SETTINGS, find};
use crate::threshold;
use crate::units::show_bytes;

mod axis;
mod fault;
mod resolved;

pub use axis::Axis;
pub use fault::{Fault, Faults, Origin};
pub use resolved::{entry, to_flags, to_toml, work};

/// Keys of a scenario that are no settings.
const STRUCTURE: [&str; 2] = ["extends", "sweep"];

/// A plan in the making: values so far, where each came from, and what is wrong so far.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    plan: Plan,
    origins: BTreeMap<&'static str, Origin>,
    /// Name, origin and value of what was given with `set`.
    engine_settings: Vec<(String, Origin, String)>,
    /// What varies, and where it says so.
    axes: Vec<Axis>,
    faults: Vec<Fault>,
}

/// A file that is being read: its name in faults, its text, and who extends it.
struct Source<'a> {
    name: &'a str,
    text: &'a str,
    /// From the file that was asked for down to this one.
    chain: &'a [PathBuf],
}

impl Source<'_> {
    fn origin(&self, at: usize) -> Origin {
        let line = 1 + self.text[..at.min(self.text.len())].matches('\n').count();
        Origin::Line(self.name.into(), line)
    }
}

impl Draft {
    /// Adds what the file at `path`, and those it extends, say.
    pub fn read_file(&mut self, path: &Path) {
        if let Err(error) = self.read_chain(path, &[]) {
            let origin = Origin::File(path.display().to_string());
            self.fault(origin, "", error);
        }
    }

    /// Reads a file that the last one in `chain` extends; the error is a sentence without its name.
    fn read_chain(&mut self, path: &Path, chain: &[PathBuf]) -> Result<(), String> {
        let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
        let whole = path.canonicalize().map_err(unreadable)?;
        if chain.contains(&whole) {
            return Err("extends itself, by way of the files in between".into());
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let chain = [chain, &[whole]].concat();
        let name = path.display().to_string();
        self.read_source(&Source {
            name: &name,
            text: &text,
            chain: &chain,
        });
        Ok(())
    }

    /// Adds what `text`, called `name` in faults, says.
    pub fn read_text(&mut self, name: &str, text: &str) {
        self.read_source(&Source {
            name,
            text,
            chain: &[],
        });
    }

    fn read_source(&mut self, source: &Source<'_>) {
        // Recoverable: a slip in one line does not hide the faults of the others.
        let (table, errors) = DeTable::parse_recoverable(source.text);
        // What it extends comes first, so that what is said here wins; its faults come first too.
        let extends = table.get_ref().iter();
        let extends = extends
            .filter(|(key, _)| key.get_ref() == "extends")
            .map(|(key, value)| {
                let origin = source.origin(key.span().start);
                (origin, self.extend(source, value.get_ref()))
            })
            .collect::<Vec<_>>();
        let own = self.faults.len();
        for (origin, extended) in extends {
            if let Err(what) = extended {
                self.fault(origin, "extends", what);
            }
        }
        for error in errors {
            let origin = source.origin(error.span().map_or(0, |span| span.start));
            let what = format!("not TOML: {}", error.message().replace('\n', ", "));
            self.fault(origin, "", what);
        }
        for (key, value) in table.get_ref() {
            let origin = source.origin(key.span().start);
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("extends", _) => {}
                ("set", DeValue::Table(engine)) => {
                    for (key, value) in engine {
                        let origin = source.origin(key.span().start);
                        match scalar(value.get_ref()) {
                            Some(value) => self.apply("set", &format!("{key}={value}"), origin),
                            None => self.fault(origin, &format!("set.{key}"), NOT_SCALAR.into()),
                        }
                    }
                }
                ("sweep", DeValue::Table(sweep)) => self.read_sweep(source, sweep),
                ("gate", DeValue::Table(gate)) => self.read_gate(source, gate),
                (key @ ("set" | "sweep" | "gate"), _) => {
                    self.fault(origin, key, format!("expected a table: [{key}]"));
                }
                (key, value) => match scalar(value) {
                    Some(text) => self.apply(key, &text, origin),
                    None if find(key).is_some() => self.fault(origin, key, NOT_SCALAR.into()),
                    None => self.unknown(origin, key),
                },
            }
        }
        self.faults[own..].sort_by_key(|fault| fault.origin.line());
    }

    /// Reads the file that `source` extends.
    fn extend(&mut self, source: &Source<'_>, value: &DeValue<'_>) -> Result<(), String> {
        let DeValue::String(file) = value else {
            return Err("expected the name of a file, like \"base.toml\"".into());
        };
        let folder = Path::new(source.name).parent();
        let path = folder.map_or_else(|| PathBuf::from(&**file), |folder| folder.join(&**file));
        self.read_chain(&path, source.chain)
            .map_err(|what| format!("{} {what}", path.display()))
    }

    /// `[sweep]`: a list of values for each setting.
    fn read_sweep(&mut self, source: &Source<'_>, sweep: &DeTable<'_>) {
        // In the file's order: it is the order of the names of cells.
        let mut entries: Vec<_> = sweep.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("set", DeValue::Table(engine)) => {
                    for (name, value) in engine {
                        let origin = source.origin(name.span().start);
                        self.read_axis(source, origin, "set", Some(name.get_ref()), value);
                    }
                }
                (name, _) => {
                    let origin = source.origin(key.span().start);
                    self.read_axis(source, origin, name, None, value);
                }
            }
        }
    }

    fn read_axis(
        &mut self,
        source: &Source<'_>,
        origin: Origin,
        name: &str,
        engine_name: Option<&str>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let key = match engine_name {
            Some(engine_name) => format!("sweep.{name}.{engine_name}"),
            None => format!("sweep.{name}"),
        };
        let Some(setting) = find(name) else {
            let hint = hint(&name.replace('-', "_"), axis::names());
            return self.fault(origin, &key, format!("there is no such setting{hint}"));
        };
        if !axis::may_vary(setting, engine_name) {
            let what = "this cannot vary from cell to cell of a sweep";
            return self.fault(origin, &key, what.into());
        }
        let DeValue::Array(values) = value.get_ref() else {
            let what = "expected a list of values, like [\"none\", \"lz4\"]";
            return self.fault(origin, &key, what.into());
        };
        let mut axis = Axis::new(setting, engine_name, origin.clone());
        for value in values {
            let at = source.origin(value.span().start);
            let added = scalar(value.get_ref())
                .ok_or_else(|| NOT_SCALAR.to_owned())
                .and_then(|text| axis.add(&text, at.clone()));
            if let Err(what) = added {
                self.fault(at, &key, what);
            }
        }
        if values.is_empty() {
            self.fault(origin, &key, "the list is empty: nothing to run".into());
        }
        // What is extended may vary the same setting: this list replaces that one.
        self.axes.retain(|known| known.key() != axis.key());
        self.axes.push(axis);
    }

    /// `[gate]`: thresholds.
    fn read_gate(&mut self, source: &Source<'_>, gate: &DeTable<'_>) {
        for (key, value) in gate {
            let origin = source.origin(key.span().start);
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("thresholds", DeValue::Array(thresholds)) => {
                    for threshold in thresholds {
                        let origin = source.origin(threshold.span().start);
                        match threshold.get_ref() {
                            DeValue::String(text) => self.apply("gate", text, origin),
                            _ => {
                                let what = format!("expected {}", threshold::EXPECTED);
                                self.fault(origin, "gate.thresholds", what);
                            }
                        }
                    }
                }
                ("thresholds", _) => {
                    let what = "expected a list of thresholds, like [\"p99.9 < 2ms\"]";
                    self.fault(origin, "gate.thresholds", what.into());
                }
                (key, _) => {
                    let what = format!("there is no such key{}", hint(key, ["thresholds"]));
                    self.fault(origin, &format!("gate.{key}"), what);
                }
            }
        }
    }

    /// Adds a flag.
    pub fn flag(&mut self, name: &str, text: &str) {
        self.apply(name, text, Origin::Flag);
        // What varies in the file does not any more, but cells keep the names they have there.
        let engine_name = text.split_once('=').map(|(key, _)| key);
        for axis in &mut self.axes {
            axis.pin(name, engine_name, text);
        }
    }

    /// What varies, taken out: what is left is the same for all cells.
    pub fn take_axes(&mut self) -> Vec<Axis> {
        std::mem::take(&mut self.axes)
    }

    /// Gives the setting of `axis` its value number `at`.
    pub fn vary(&mut self, axis: &Axis, at: usize) {
        if let Some((value, origin)) = axis.values().get(at) {
            self.apply(axis.setting().name, &axis.written(value), origin.clone());
        }
    }

    /// The plan of one run, if nothing is wrong with it.
    pub fn finish(mut self) -> Result<Plan, Faults> {
        self.check();
        if let Some(axis) = self.axes.first() {
            let (origin, key) = (axis.origin().clone(), format!("sweep.{}", axis.key()));
            let what = "a run has one value for each setting; `ringpost-bench sweep` runs them all";
            self.fault(origin, &key, what.into());
        }
        if self.faults.is_empty() {
            Ok(self.plan)
        } else {
            Err(Faults(self.faults))
        }
    }

    fn apply(&mut self, name: &str, text: &str, origin: Origin) {
        let Some(setting) = find(name) else {
            return self.unknown(origin, name);
        };
        self.origins.insert(setting.name, origin.clone());
        if let ("set", Some((key, value))) = (setting.name, text.split_once('=')) {
            self.engine_settings
                .push((key.into(), origin.clone(), value.into()));
        }
        if let Err(what) = setting.apply(&mut self.plan, text, origin.folder()) {
            let name = match (name, &origin) {
                ("gate", Origin::Line(..)) => "gate.thresholds",
                (name, _) => name,
            };
            self.fault(origin, name, what);
        }
    }

    fn unknown(&mut self, origin: Origin, key: &str) {
        let names = SETTINGS.iter().map(|setting| setting.name);
        let names = names.chain(match origin {
            Origin::Flag => [].iter().copied(),
            Origin::Line(..) | Origin::File(_) => STRUCTURE.iter().copied(),
        });
        let hint = hint(&key.replace('-', "_"), names);
        self.fault(origin, key, format!("there is no such key{hint}"));
    }

    fn fault(&mut self, origin: Origin, key: &str, what: String) {
        self.faults.push(Fault {
            origin,
            key: key.into(),
            what,
        });
    }

    /// A fault of two settings together, told at the first of `keys` that somebody set.
    fn clash(&mut self, keys: &[&'static str], what: String) {
        let (key, origin) = keys
            .iter()
            .find_map(|key| self.origins.get(key).map(|origin| (*key, origin.clone())))
            .unwrap_or((keys[0], Origin::Flag));
        let key = if origin == Origin::Flag {
            key.replace('_', "-")
        } else {
            key.to_owned()
        };
        self.fault(origin, &key, what);
    }

    /// What single values cannot show.
    fn check(&mut self) {
        let plan = &self.plan;
        let said = |name: &str| self.origins.contains_key(name);
        let mut clashes: Vec<(&[&'static str], String)> = Vec::new();
        if plan.idempotent == Some(true) && plan.acks != Acks::All {
            clashes.push((
                &["idempotent", "acks"],
                format!("idempotent=true needs acks=all, and acks is {}", plan.acks),
            ));
        }
        if plan.batch > plan.memory {
            let (batch, memory) = (show_bytes(plan.batch), show_bytes(plan.memory));
            clashes.push((
                &["batch", "memory"],
                format!("{batch} is more than memory={memory}"),
            ));
        }
        if let RecordSource::Size(size) = plan.record_size
            && size > plan.memory
        {
            let memory = show_bytes(plan.memory);
            clashes.push((
                &["record_size", "memory"],
                format!(
                    "no record of {} fits into memory={memory}",
                    show_bytes(size)
                ),
            ));
        }
        if plan.arrival != Arrival::Fixed && plan.rate == Rate::Max {
            let what = format!(
                "{} needs a rate; at rate=max nothing is spaced",
                plan.arrival
            );
            clashes.push((&["arrival"], what));
        }
        if plan.engine == Engine::Null {
            if plan.rate != Rate::Max {
                let what = "engine=null sends prebuilt batches as fast as it can: only rate=max";
                clashes.push((&["rate"], what.into()));
            }
            for key in UNUSED.into_iter().chain(["set"]) {
                // The memory is unused too, but no lie: other limits are checked against it.
                if said(key) && key != "memory" {
                    clashes.push((single(key), "engine=null has nothing to set it on".into()));
                }
            }
        }
        if plan.embedded && plan.engine == Engine::Ringpost {
            let alone = "embedded: the one thread that sends drives the one shard";
            if plan.producers != 1 {
                let what = format!("{alone}; expected producers=1, not {}", plan.producers);
                clashes.push((&["producers", "embedded"], what));
            }
            if !["auto", "1"].contains(&plan.shards.as_str()) {
                let what = format!("{alone}; expected `auto` or 1, not {}", plan.shards);
                clashes.push((&["shards", "embedded"], what));
            }
            if plan.wait == "spin-then-park" {
                let what = "embedded: it is the application that waits, and it either sleeps in a \
                            turn or never does; expected `park` or `spin`";
                clashes.push((&["wait", "embedded"], what.into()));
            }
            if plan.set.iter().any(|(name, _)| name == "pin") {
                let what = "embedded: the engine has no thread to pin; the application's runs where \
                            this program does (taskset)";
                clashes.push((&["set", "embedded"], what.into()));
            }
        }
        if !plan.broker_delay.is_zero() && plan.brokers != Brokers::Embedded {
            let what = "only the embedded broker can be made slow";
            clashes.push((&["broker_delay"], what.into()));
        }
        if !plan.verify && plan.brokers != Brokers::Embedded {
            let what = "only the embedded broker verifies what it gets, or does not";
            clashes.push((&["verify"], what.into()));
        }
        for (keys, what) in clashes {
            self.clash(keys, what);
        }
        for (name, origin, value) in std::mem::take(&mut self.engine_settings) {
            // Faults of the engine's settings are told where they were said, like all others.
            if let Err(what) = check_setting(&name, &value) {
                let key = if origin == Origin::Flag {
                    "set".into()
                } else {
                    format!("set.{name}")
                };
                self.fault(origin, &key, what);
            }
        }
        // Records alone mean "however long it takes".
        if self.plan.records.is_some() && !self.origins.contains_key("duration") {
            self.plan.duration = crate::setting::DURATION_MAX;
        }
    }
}

const NOT_SCALAR: &str = "expected a string, a number, or true or false";

/// The static one-element list with `key` in it.
fn single(key: &'static str) -> &'static [&'static str] {
    find(key).map_or(&[], |setting| std::slice::from_ref(&setting.name))
}

/// A TOML scalar as the text a flag would have.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(text: &str) -> Result<Plan, Faults> {
        let mut draft = Draft::default();
        draft.read_text("s.toml", text);
        draft.finish()
    }

    #[test]
    fn values_of_every_kind_are_read() {
        let plan = draft(
            "record-size = '1KiB'\nrecords = 5000\nverify = false\nacks = 1\n[set]\ngap = '1ms'\n",
        )
        .expect("a good scenario");
        assert_eq!(plan.record_size, RecordSource::Size(1024));
        assert_eq!(plan.records, Some(5000));
        assert_eq!(plan.acks, Acks::Leader);
        assert!(!plan.idempotent());
        assert!(!plan.verify);
        assert_eq!(plan.set, [("gap".to_owned(), "1ms".to_owned())]);
    }

    #[test]
    fn all_faults_are_told_with_file_line_and_key() {
        let text = "topic = 'ok'\npartition = 3\nrecord_size = '100'\n\nacks = [1]\nlinger = '5'\n\
                    idempotent = true\n[sweeep]\na = 1\n";
        let faults = draft(text).expect_err("faults").to_string();
        for said in [
            "s.toml:2: partition: there is no such key; did you mean `partitions`?",
            "s.toml:3: record_size: `100` is not allowed",
            "s.toml:5: acks: expected a string",
            "s.toml:6: linger: `5` is not allowed",
            "s.toml:8: sweeep: there is no such key; did you mean `sweep`?",
        ] {
            assert!(faults.contains(said), "{said}\nnot in\n{faults}");
        }
        assert_eq!(faults.lines().count(), 5, "{faults}");
    }

    #[test]
    fn a_slip_of_syntax_does_not_hide_other_faults() {
        let faults = draft("topic = \npartition = 3\n")
            .expect_err("faults")
            .to_string();
        assert!(faults.contains("s.toml:1: not TOML"), "{faults}");
        assert!(faults.contains("s.toml:2: partition"), "{faults}");
    }

    #[test]
    fn clashes_are_told_where_they_were_said() {
        for (text, said) in [
            (
                "idempotent = true\nacks = 1",
                "s.toml:1: idempotent: idempotent=true needs acks=all",
            ),
            (
                "memory = '1MiB'\nbatch = '2MiB'",
                "s.toml:2: batch: 2MiB is more than memory=1MiB",
            ),
            (
                "arrival = 'poisson'",
                "s.toml:1: arrival: poisson needs a rate",
            ),
            (
                "engine = 'null'\nrate = '1k'",
                "s.toml:2: rate: engine=null",
            ),
            (
                "engine = 'null'\ndriver = 'ring'",
                "s.toml:2: driver: engine=null",
            ),
            (
                "verify = false\nbrokers = 'a:1'",
                "s.toml:1: verify: only the embedded",
            ),
            (
                "broker_delay = '1ms'\nbrokers = 'a:1'",
                "s.toml:1: broker_delay: only the embedded",
            ),
        ] {
            let faults = draft(text).expect_err(text).to_string();
            assert!(faults.contains(said), "{said}\nnot in\n{faults}");
        }
    }

    /// The plan of `main.toml` beside other files; the folder is left out of faults.
    fn files(name: &str, files: &[(&str, &str)]) -> Result<Plan, String> {
        let folder = format!("ringpost-scenario-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(folder.join("sub")).expect("a folder");
        for (name, text) in files {
            std::fs::write(folder.join(name), text).expect("written");
        }
        let mut draft = Draft::default();
        draft.read_file(&folder.join("main.toml"));
        let outcome = draft.finish();
        std::fs::remove_dir_all(&folder).expect("removed");
        let from = format!("{}/", folder.display());
        outcome.map_err(|faults| faults.to_string().replace(&from, ""))
    }

    #[test]
    fn a_file_extends_another_from_its_own_folder() {
        let plan = files(
            "extends",
            &[
                (
                    "main.toml",
                    "acks = 1\nextends = 'sub/middle.toml'\n[set]\ngap = '2ms'\n\
                     [gate]\nthresholds = ['p99 < 5ms', 'lost = 0']\n",
                ),
                (
                    "sub/middle.toml",
                    "extends = '../base.toml'\npartitions = 7\nacks = 0\n",
                ),
                (
                    "base.toml",
                    "partitions = 3\nbatch = '4KiB'\n[set]\ngap = '1ms'\nclient_id = 'a'\n\
                     [gate]\nthresholds = ['p99 < 2ms', 'p50 < 1ms']\n",
                ),
            ],
        )
        .expect("good");
        assert_eq!(
            (plan.partitions, plan.batch, plan.acks),
            (7, 4096, Acks::Leader)
        );
        let gate: Vec<_> = plan.gate.iter().map(ToString::to_string).collect();
        assert_eq!(gate, ["p50 < 1ms", "p99 < 5ms", "lost = 0"]);
        let set = [("client_id", "a"), ("gap", "2ms")];
        assert_eq!(plan.set, set.map(|(k, v)| (k.into(), v.into())));
    }

    #[test]
    fn paths_are_from_the_folder_of_the_file_that_says_them() {
        let plan = files(
            "paths",
            &[
                ("main.toml", "extends = 'sub/base.toml'\nout = 'results'\n"),
                ("sub/base.toml", "record_size = 'events'\n"),
                ("sub/events", "an event\n"),
            ],
        )
        .expect("good");
        let RecordSource::File(corpus) = &plan.record_size else {
            panic!("{plan:?}");
        };
        let out = plan.out.clone().expect("said");
        assert!(corpus.ends_with("sub/events") && corpus.is_absolute());
        assert_eq!(out.parent(), corpus.parent().and_then(Path::parent));
        let faults = files("paths-gone", &[("main.toml", "record_size = 'gone'\n")]);
        let faults = faults.expect_err("not there");
        assert!(
            faults.contains("record_size: `gone` is not allowed (neither"),
            "{faults}"
        );

        let mut draft = Draft::default();
        draft.flag("record_size", "Cargo.toml"); // of this crate, where its tests run
        let plan = draft.finish().expect("there");
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let here = here.canonicalize().expect("there");
        assert_eq!(plan.record_size.to_string(), "Cargo.toml");
        let written = format!("record_size = \"{}\"", here.display());
        assert!(to_toml(&plan).contains(&written), "{}", to_toml(&plan));
        assert!(to_flags(&plan).contains(&format!("--record-size={}", here.display())));
    }

    #[test]
    fn faults_of_all_files_are_told_each_with_its_file() {
        let faults = files(
            "faults",
            &[
                ("main.toml", "extends = 'base.toml'\npartition = 1\n"),
                (
                    "base.toml",
                    "topic = 'ok'\n\nacks = 3\nextends = 'gone.toml'\n",
                ),
            ],
        )
        .expect_err("faults");
        let lines: Vec<_> = faults.lines().collect();
        assert_eq!(lines.len(), 3, "{faults}");
        assert!(
            lines[0].starts_with("base.toml:3: acks: `3` is not allowed"),
            "{faults}"
        );
        let gone = "base.toml:4: extends: gone.toml cannot be read: No such file";
        assert!(lines[1].starts_with(gone), "{faults}");
        assert!(lines[2].starts_with("main.toml:2: partition: "), "{faults}");
    }

    #[test]
    fn a_loop_of_files_is_told_where_it_closes() {
        let faults = files(
            "loop",
            &[
                ("main.toml", "topic = 't'\nextends = 'sub/a.toml'\n"),
                ("sub/a.toml", "extends = '../main.toml'\n"),
            ],
        )
        .expect_err("a loop");
        assert_eq!(
            faults,
            "sub/a.toml:1: extends: sub/../main.toml extends itself, by way of the files in between\n"
        );
        let faults = files("number", &[("main.toml", "extends = 3\n")]).expect_err("a number");
        assert!(faults.starts_with("main.toml:1: extends: expected the name of a file"));
    }

    #[test]
    fn a_run_of_a_sweep_is_sent_to_the_command_for_it() {
        let faults = draft("topic = 't'\n[sweep]\nacks = [0, 1]\n").expect_err("a sweep");
        let faults = faults.to_string();
        assert!(
            faults.starts_with("s.toml:3: sweep.acks: a run has one value"),
            "{faults}"
        );
        assert!(faults.contains("`ringpost-bench sweep`"), "{faults}");
    }

    #[test]
    fn thresholds_are_checked_where_they_are_said() {
        let text = "[gate]\nthresholds = [\n'p99 < 2ms',\n'p99.9 < 3',\n7,\n]\nthreshold = 1\n";
        let faults = draft(text).expect_err("faults").to_string();
        let lines: Vec<_> = faults.lines().collect();
        assert_eq!(lines.len(), 3, "{faults}");
        assert!(lines[0].starts_with("s.toml:4: gate.thresholds: `p99.9 < 3` is not allowed (`3`"));
        assert!(
            lines[1].starts_with("s.toml:5: gate.thresholds: expected a figure"),
            "{faults}"
        );
        assert!(
            lines[2].starts_with("s.toml:7: gate.threshold: there is no such key; did you mean")
        );
        let faults = draft("gate = 3\n[gates]\n")
            .expect_err("faults")
            .to_string();
        assert!(
            faults.starts_with("s.toml:1: gate: expected a table: [gate]"),
            "{faults}"
        );
        assert!(faults.contains("s.toml:2: gates: there is no such key; did you mean `gate`?"));
    }

    #[test]
    fn flags_override_the_file() {
        let mut draft = Draft::default();
        draft.read_text("s.toml", "partitions = 3\nacks = 1\n");
        draft.flag("partitions", "12");
        let plan = draft.finish().expect("good");
        assert_eq!((plan.partitions, plan.acks), (12, Acks::Leader));
    }

    #[test]
    fn a_resolved_scenario_gives_the_same_plan() {
        for text in [
            "",
            "engine = 'null'",
            "records = 10\nrate = '5k'\narrival = 'burst:3'\nkeys = 'zipf:10,1.5'\n[set]\ngap='1ms'",
            "acks = 0\nbrokers = 'a:1,b:2'\nduration = '3s'\nrecords = 5",
            "rate = '120%peak'\nbroker_delay = '20ms'\n[gate]\nthresholds = ['p99 < 2ms',\n\
             'vs_baseline mib_per_s >= -2.5%', 'peak_rss_bytes < 1GiB']\n",
        ] {
            let plan = draft(text).expect(text);
            let mut by_flags = Draft::default();
            for flag in to_flags(&plan) {
                let (name, value) = flag.split_once('=').expect("a value");
                by_flags.flag(name.trim_start_matches('-'), value);
            }
            let by_flags = by_flags.finish().expect("the same flags");
            assert_eq!(to_toml(&by_flags), to_toml(&plan));
            let again =
                draft(&to_toml(&plan)).unwrap_or_else(|f| panic!("{f}\n{}", to_toml(&plan)));
            assert_eq!(format!("{plan:?}").replace("idempotent: None", ""), {
                let again = format!("{again:?}");
                let said = format!("idempotent: Some({})", plan.idempotent());
                again.replace(&said, "")
            });
        }
    }
}
