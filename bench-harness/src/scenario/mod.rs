//! A scenario file and the flags beside it become a [`Plan`], or a list of *all* that is wrong.
//!
//! The file is TOML, one key for each [setting](crate::setting::SETTINGS), and a table `[set]` for
//! settings of the engine. Unknown keys are refused and the nearest known one is named; every fault
//! says file, line and key. Flags override the file.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::client::null::UNUSED;
use crate::client::ringpost::check_setting;
use crate::nearest::hint;
use crate::plan::{Acks, Arrival, Brokers, Engine, Plan, Rate, RecordSource};
use crate::setting::{SETTINGS, find};
use crate::units::show_bytes;

mod fault;
mod resolved;

pub use fault::{Fault, Faults, Origin};
pub use resolved::{entry, to_flags, to_toml};

/// A plan in the making: values so far, where each came from, and what is wrong so far.
#[derive(Debug, Default)]
pub struct Draft {
    plan: Plan,
    origins: BTreeMap<&'static str, Origin>,
    /// Name, origin and value of what was given with `set`.
    engine_settings: Vec<(String, Origin, String)>,
    faults: Vec<Fault>,
}

impl Draft {
    /// Adds what the file at `path` says.
    pub fn read_file(&mut self, path: &Path) {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => self.read_text(&name, &text),
            Err(error) => self.faults.push(Fault {
                origin: Origin::Line(name, 0),
                key: String::new(),
                what: format!("cannot be read: {error}"),
            }),
        }
    }

    /// Adds what `text`, called `name` in faults, says.
    pub fn read_text(&mut self, name: &str, text: &str) {
        let line_of = |at: usize| 1 + text[..at.min(text.len())].matches('\n').count();
        // Recoverable: a slip in one line does not hide the faults of the others.
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            self.faults.push(Fault {
                origin: Origin::Line(name.into(), line_of(error.span().map_or(0, |s| s.start))),
                key: String::new(),
                what: format!("not TOML: {}", error.message().replace('\n', ", ")),
            });
        }
        for (key, value) in table.get_ref() {
            let origin = Origin::Line(name.into(), line_of(key.span().start));
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("set", DeValue::Table(engine)) => {
                    for (key, value) in engine {
                        let origin = Origin::Line(name.into(), line_of(key.span().start));
                        match scalar(value.get_ref()) {
                            Some(value) => self.apply("set", &format!("{key}={value}"), origin),
                            None => self.fault(origin, &format!("set.{key}"), NOT_SCALAR.into()),
                        }
                    }
                }
                (key, value) => match scalar(value) {
                    Some(text) => self.apply(key, &text, origin),
                    None if find(key).is_some() => self.fault(origin, key, NOT_SCALAR.into()),
                    None => self.unknown(origin, key),
                },
            }
        }
        self.faults.sort_by_key(|fault| match &fault.origin {
            Origin::Line(_, line) => *line,
            Origin::Flag => usize::MAX,
        });
    }

    /// Adds a flag.
    pub fn flag(&mut self, name: &str, text: &str) {
        self.apply(name, text, Origin::Flag);
    }

    /// The plan, if nothing is wrong with it.
    pub fn finish(mut self) -> Result<Plan, Faults> {
        self.check();
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
        if let Err(what) = setting.apply(&mut self.plan, text) {
            self.fault(origin, name, what);
        }
    }

    fn unknown(&mut self, origin: Origin, key: &str) {
        let names = SETTINGS.iter().map(|setting| setting.name);
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
            "s.toml:8: sweeep: there is no such key",
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
        ] {
            let faults = draft(text).expect_err(text).to_string();
            assert!(faults.contains(said), "{said}\nnot in\n{faults}");
        }
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
