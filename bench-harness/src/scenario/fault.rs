//! What is wrong with a scenario or with flags, and where it was said.

use std::fmt;
use std::path::Path;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a scenario file.
    Line(String, usize),
    /// A scenario file as a whole.
    File(String),
    /// A flag.
    Flag,
}

impl Origin {
    /// The folder that paths said here start from; empty for the current one.
    pub(super) fn folder(&self) -> &Path {
        let file = match self {
            Origin::Line(file, _) | Origin::File(file) => Path::new(file),
            Origin::Flag => return Path::new(""),
        };
        file.parent().unwrap_or(Path::new(""))
    }

    /// The line in its file; flags come after all of them.
    pub(super) fn line(&self) -> usize {
        match self {
            Origin::File(_) => 0,
            Origin::Line(_, line) => *line,
            Origin::Flag => usize::MAX,
        }
    }
}

/// One thing that is wrong with a scenario or the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it was said.
    pub origin: Origin,
    /// The key, as spelled there; empty when the file as a whole is meant.
    pub key: String,
    /// What is wrong and what was expected.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Line(file, line) => write!(f, "{file}:{line}: ")?,
            Origin::File(file) => write!(f, "{file}: ")?,
            Origin::Flag => f.write_str("--")?,
        }
        match self.key.as_str() {
            "" => f.write_str(&self.what),
            key => write!(f, "{key}: {}", self.what),
        }
    }
}

/// All that is wrong, in order. Its text has a fault a line.
#[derive(Clone, Debug, Default)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.0 {
            writeln!(f, "{fault}")?;
        }
        Ok(())
    }
}
