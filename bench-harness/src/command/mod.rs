//! The commands of `ringpost-bench`: what each takes, and what it calls. What they do lies in modules
//! of its own; a file here only reads flags and prints.

use clap::{ArgMatches, Command};

use crate::exit::{Exit, Failure};

pub mod broker;
pub mod compare;
pub mod doctor;
pub mod gate;
pub mod init;
pub mod merge;
pub mod peak;
pub mod report;
pub mod run;
pub mod slo;
pub mod sweep;

/// A command.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name and flags.
    pub command: fn() -> Command,
    /// What it does with them.
    pub run: fn(&ArgMatches) -> Result<Exit, Failure>,
}

/// All of them, in the order `--help` lists them.
pub const COMMANDS: &[Entry] = &[
    Entry {
        command: run::command,
        run: run::run,
    },
    Entry {
        command: sweep::command,
        run: sweep::run,
    },
    Entry {
        command: doctor::command,
        run: doctor::run,
    },
    Entry {
        command: report::command,
        run: report::run,
    },
    Entry {
        command: broker::command,
        run: broker::run,
    },
    Entry {
        command: peak::command,
        run: peak::run,
    },
    Entry {
        command: slo::command,
        run: slo::run,
    },
    Entry {
        command: compare::command,
        run: compare::run,
    },
    Entry {
        command: gate::command,
        run: gate::run,
    },
    Entry {
        command: merge::command,
        run: merge::run,
    },
    Entry {
        command: init::command,
        run: init::run,
    },
];
