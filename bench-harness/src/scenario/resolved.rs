//! A plan as the scenario or the flags that give it again, from whatever folder they are read.

use crate::client::null::UNUSED;
use crate::plan::{Engine, Plan, RecordSource};
use crate::setting::{SETTINGS, Setting};

/// The plan as a scenario that gives the same plan again, without where results go: who repeats a run
/// keeps the first one's.
pub fn to_toml(plan: &Plan) -> String {
    let mut out = String::new();
    for setting in SETTINGS.iter().filter(|setting| setting.name != "out") {
        if let Some(value) = shown(plan, setting)
            && usable(plan, setting)
            && !implied(plan, setting)
        {
            out.push_str(&entry(setting, &value));
        }
    }
    if !plan.set.is_empty() {
        out.push_str("\n[set]\n");
        for (key, value) in &plan.set {
            out.push_str(&format!("{} = {}\n", toml_text(key), toml_text(value)));
        }
    }
    if !plan.gate.is_empty() {
        out.push_str("\n[gate]\nthresholds = [\n");
        for threshold in &plan.gate {
            out.push_str(&format!("    {},\n", toml_text(&threshold.to_string())));
        }
        out.push_str("]\n");
    }
    out
}

/// The plan as flags of `run` that give the same plan again, without where results go.
pub fn to_flags(plan: &Plan) -> Vec<String> {
    let shown = SETTINGS
        .iter()
        .filter(|setting| !["out", "format"].contains(&setting.name))
        .filter(|setting| usable(plan, setting) && !implied(plan, setting))
        .filter_map(|setting| Some(format!("--{}={}", setting.flag(), shown(plan, setting)?)));
    let set = plan
        .set
        .iter()
        .map(|(key, value)| format!("--set={key}={value}"));
    let gate = plan
        .gate
        .iter()
        .map(|threshold| format!("--gate={threshold}"));
    shown.chain(set).chain(gate).collect()
}

/// The flags that say what is done. The gate is no part of it: it judges what was done.
pub fn work(flags: &[String]) -> impl Iterator<Item = &String> {
    flags.iter().filter(|flag| !flag.starts_with("--gate="))
}

/// A setting's value; a file by its whole path.
fn shown(plan: &Plan, setting: &Setting) -> Option<String> {
    if let ("record_size", RecordSource::File(path)) = (setting.name, &plan.record_size) {
        // However it is reached: two ways to the same file are one setting.
        let whole = path.canonicalize().unwrap_or_else(|_| path.clone());
        return Some(whole.display().to_string());
    }
    (setting.show)(plan)
}

/// Whether another setting says this one already.
fn implied(plan: &Plan, setting: &Setting) -> bool {
    setting.name == "duration" && plan.duration == crate::setting::DURATION_MAX // by `records`
}

/// Whether naming the setting is allowed in this plan.
fn usable(plan: &Plan, setting: &Setting) -> bool {
    plan.engine != Engine::Null || !UNUSED.contains(&setting.name) || setting.name == "memory"
}

/// `key = value` with the quotes TOML wants.
pub fn entry(setting: &Setting, value: &str) -> String {
    let value = if setting.bare {
        value.to_owned()
    } else {
        toml_text(value)
    };
    format!("{} = {value}\n", setting.name)
}

fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
