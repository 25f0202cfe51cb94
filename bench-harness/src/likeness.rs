//! How alike results are: whether they may be compared or merged at all. A comparison needs the same
//! *workload*; what the configuration under test was is what it is about; on what it ran is warned
//! about. A merge needs the same workload and the same configuration.
//!
//! [`ROLES`] says of every setting which of these it is.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::report::document::Document;

/// What a difference in a setting means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The work: what is sent, how much of it, with which guarantee. Results of different work say
    /// nothing about each other.
    Workload,
    /// How the work is done: what a comparison is about.
    Configuration,
    /// Where it is done: a result may differ for this alone.
    Surroundings,
    /// Names and lengths: no figure depends on them.
    Label,
}

/// The role of every setting of [`SETTINGS`](crate::setting::SETTINGS).
pub static ROLES: &[(&str, Role)] = &[
    ("brokers", Role::Surroundings),
    ("topic", Role::Label),
    ("partitions", Role::Workload), // batches per request follow from it
    ("engine", Role::Configuration),
    ("driver", Role::Configuration),
    ("embedded", Role::Configuration),
    ("wait", Role::Configuration),
    ("shards", Role::Configuration),
    ("record_size", Role::Workload),
    ("keys", Role::Workload),
    ("compression", Role::Workload), // other bytes on the wire and in the log
    ("acks", Role::Workload),
    ("idempotent", Role::Workload), // another guarantee
    ("linger", Role::Configuration),
    ("batch", Role::Configuration),
    ("memory", Role::Configuration),
    ("rate", Role::Workload),
    ("arrival", Role::Workload),
    ("producers", Role::Workload),
    ("delivery", Role::Workload), // what the application asks to be told
    ("duration", Role::Label),
    ("warmup", Role::Label),
    ("records", Role::Label),
    ("broker_delay", Role::Workload),
    ("gate", Role::Label),
    ("verify", Role::Surroundings), // how much the embedded broker does
    ("set", Role::Configuration),
    ("format", Role::Label),
    ("out", Role::Label),
];

/// What results have not in common: a setting or a fact about where they ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its name; settings of the engine as `set.name`.
    pub what: String,
    /// What it means.
    pub role: Role,
    /// Its value in each result, in the order of the results.
    pub values: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.values.join(" | "))
    }
}

/// Everything in which `documents` differ that means something.
pub fn differences(documents: &[&Document]) -> Vec<Difference> {
    let mut found: Vec<Difference> = settings(documents)
        .into_iter()
        .map(|what| Difference {
            role: role(&what),
            values: documents.iter().map(|d| setting(d, &what)).collect(),
            what,
        })
        .collect();
    found.extend(FACTS.iter().map(|(what, of)| Difference {
        what: (*what).to_owned(),
        role: Role::Surroundings,
        values: documents.iter().map(|document| of(document)).collect(),
    }));
    found.retain(|difference| {
        difference.role != Role::Label
            && difference.values.windows(2).any(|pair| pair[0] != pair[1])
    });
    found
}

/// A setting's role; one that this program does not know is taken for work, to be on the safe side.
fn role(what: &str) -> Role {
    let name = what.split('.').next().unwrap_or(what);
    let known = ROLES.iter().find(|(known, _)| *known == name);
    known.map_or(Role::Workload, |(_, role)| *role)
}

/// The names of all settings of all documents.
fn settings(documents: &[&Document]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (name, value) in documents.iter().flat_map(|document| &document.config) {
        match value {
            Value::Object(engine) => names.extend(engine.keys().map(|key| format!("{name}.{key}"))),
            _ => _ = names.insert(name.clone()),
        }
    }
    names
}

fn setting(document: &Document, what: &str) -> String {
    let value = document.config.get(what).or_else(|| {
        let (table, key) = what.split_once('.')?;
        document.config.get(table)?.get(key)
    });
    match value {
        None | Some(Value::Null) => "–".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

type Fact = (&'static str, fn(&Document) -> String);

/// Where a run took place, as far as figures depend on it.
static FACTS: &[Fact] = &[
    ("host", |d| told(&d.environment.host)),
    ("kernel", |d| told(&d.environment.kernel)),
    ("cpu", |d| {
        let model = told(&d.environment.cpu_model);
        format!("{} × {model}", d.environment.cpus)
    }),
    ("allowed cpus", |d| d.environment.affinity_list()),
    ("client cpus", |d| {
        crate::placement::show(&d.placement.client_cpus)
    }),
    ("driver in use", |d| d.driver.clone()),
    ("commit", |d| told(&d.environment.commit)),
    ("version", |d| d.version.clone()),
    ("rustc", |d| told(&d.environment.rustc)),
    ("build", |d| d.environment.build.clone()),
    ("governor", |d| told(&d.environment.governor)),
    ("huge pages", |d| told(&d.environment.transparent_hugepages)),
    ("congestion control", |d| {
        told(&d.environment.congestion_control)
    }),
    ("io_uring", |d| d.environment.io_uring.clone()),
];

fn told(value: &Option<String>) -> String {
    value.clone().unwrap_or_else(|| "not known".into())
}

/// The differences of `role`, a line each; empty when there are none.
pub fn lines(differences: &[Difference], role: Role) -> String {
    let of_role = differences
        .iter()
        .filter(|difference| difference.role == role);
    of_role
        .map(|difference| format!("  {difference}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setting::SETTINGS;

    #[test]
    fn every_setting_has_one_role() {
        let mut roles: Vec<_> = ROLES.iter().map(|(name, _)| *name).collect();
        let mut settings: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        roles.sort_unstable();
        settings.sort_unstable();
        assert_eq!(roles, settings);
    }
}
