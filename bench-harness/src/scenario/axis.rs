//! A setting that takes several values: one line of `[sweep]`.

use crate::plan::Plan;
use crate::scenario::Origin;
use crate::setting::{SETTINGS, Setting, TABLES};

/// A setting and its values.
///
/// Invariant: each value is one the setting takes, as the setting shows it again (a path as it was
/// said), and there once.
#[derive(Clone, Debug)]
pub struct Axis {
    setting: &'static Setting,
    /// With `set`: which setting of the engine.
    engine_name: Option<String>,
    values: Vec<(String, Origin)>,
    origin: Origin,
}

/// Whether cells may differ in this.
pub(super) fn may_vary(setting: &Setting, engine_name: Option<&str>) -> bool {
    match setting.name {
        "out" | "format" => false,
        name => !TABLES.contains(&name) || (name == "set" && engine_name.is_some()),
    }
}

/// Every key `[sweep]` may have.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let varying = |setting: &&Setting| may_vary(setting, Some(""));
    SETTINGS.iter().filter(varying).map(|setting| setting.name)
}

impl Axis {
    pub(super) fn new(
        setting: &'static Setting,
        engine_name: Option<&str>,
        origin: Origin,
    ) -> Self {
        Self {
            setting,
            engine_name: engine_name.map(str::to_owned),
            values: Vec::new(),
            origin,
        }
    }

    /// The setting's key, `set.NAME` for one of the engine.
    pub fn key(&self) -> String {
        match &self.engine_name {
            Some(name) => format!("set.{name}"),
            None => self.setting.name.to_owned(),
        }
    }

    /// The setting.
    pub fn setting(&self) -> &'static Setting {
        self.setting
    }

    /// Its values, and where each was said.
    pub fn values(&self) -> &[(String, Origin)] {
        &self.values
    }

    /// Where the list was said.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// A value as the setting reads it.
    pub(super) fn written(&self, value: &str) -> String {
        match &self.engine_name {
            Some(name) => format!("{name}={value}"),
            None => value.to_owned(),
        }
    }

    /// Adds a value; the error is a sentence without the key.
    pub(super) fn add(&mut self, text: &str, origin: Origin) -> Result<(), String> {
        let mut plan = Plan::default();
        self.setting
            .apply(&mut plan, &self.written(text), origin.folder())?;
        // As it is shown, so that `1024B` and `1KiB` are one value with one name; a path as it is said.
        let value = match self.setting.is_path(text) {
            true => None,
            false => (self.setting.show)(&plan),
        };
        let value = value.unwrap_or_else(|| text.to_owned());
        if self.values.iter().any(|(known, _)| *known == value) {
            return Err(format!("`{text}` is there twice"));
        }
        self.values.push((value, origin));
        Ok(())
    }

    /// A flag names one value of this setting: it is the only one now. What the setting does not
    /// take is told by the flag itself.
    pub(super) fn pin(&mut self, name: &str, engine_name: Option<&str>, text: &str) {
        let named = name.replace('-', "_") == self.setting.name;
        if !named || (self.engine_name.is_some() && self.engine_name.as_deref() != engine_name) {
            return;
        }
        let value = match (&self.engine_name, text.split_once('=')) {
            (Some(_), Some((_, value))) => value,
            _ => text,
        };
        self.values.clear();
        // A refusal is the flag's fault, and is listed as such.
        let _ = self.add(value, Origin::Flag);
    }
}
