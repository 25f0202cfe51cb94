//! Exit codes, and errors that know theirs.

use std::fmt;
use std::process::ExitCode;

/// How the program ends. Documented in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: measured, and every record settled as it should.
    Good,
    /// 1: measured, but a record was lost, duplicated, reordered, damaged, refused, or nobody knows
    /// what became of it.
    Unsettled,
    /// 2: the command, a flag or a scenario is wrong; nothing was measured.
    Config,
    /// 3: a threshold is not met.
    Gate,
    /// 4: no broker, no connection, or a broker that does not do its part.
    Connection,
    /// 5: the results could not be written.
    Output,
}

/// What the program's `--help` says about exit codes; that of each command says which it has, and
/// what they mean there.
pub const HELP: &str = "\
Exit codes (each command's --help says which it has):
  0  good
  1  a record was lost, duplicated, reordered, corrupt, refused, or nobody knows what became of it
  2  a flag, a scenario or a results folder is wrong
  3  a threshold is not met, or no rate was found
  4  no broker, no connection, an address in use, or a broker that refuses to do its part
  5  the results could not be written
  130  Ctrl-C a second time: ended at once";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Good => 0,
            Exit::Unsettled => 1,
            Exit::Config => 2,
            Exit::Gate => 3,
            Exit::Connection => 4,
            Exit::Output => 5,
        })
    }
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What went wrong and whose fault it is; may have several lines.
    pub why: String,
}

impl Failure {
    /// A wrong setting.
    pub fn config(why: impl Into<String>) -> Self {
        Self {
            exit: Exit::Config,
            why: why.into(),
        }
    }

    /// A broker that is not there or not right.
    pub fn connection(why: impl Into<String>) -> Self {
        Self {
            exit: Exit::Connection,
            why: why.into(),
        }
    }

    /// Results that cannot be written.
    pub fn output(why: impl Into<String>) -> Self {
        Self {
            exit: Exit::Output,
            why: why.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why.trim_end())
    }
}

impl std::error::Error for Failure {}
