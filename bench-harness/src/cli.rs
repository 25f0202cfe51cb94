//! The command line: finds the command that was asked for, and ends with its exit code.

use std::process::ExitCode;

use clap::Command;

use crate::command::COMMANDS;
use crate::exit::{Failure, HELP};

/// The program.
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    let ended = match matches.subcommand() {
        Some((name, matches)) => COMMANDS
            .iter()
            .find(|entry| (entry.command)().get_name() == name)
            .map_or_else(
                || Err(Failure::config("no such command")), // clap asks for one of the above
                |entry| (entry.run)(matches),
            ),
        None => Err(Failure::config("no command")), // clap asks for one
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}

/// All commands and flags.
pub fn command() -> Command {
    Command::new("ringpost-bench")
        .about("Measures the Ringpost engine: rate, CPU per record, latency; verified by a broker")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(HELP)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(COMMANDS.iter().map(|entry| (entry.command)()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn flags_are_taken_in_both_spellings() {
        for flag in ["--record-size", "--record_size"] {
            let matches = command()
                .try_get_matches_from(["ringpost-bench", "run", flag, "1KiB"])
                .unwrap_or_else(|error| panic!("{error}"));
            let (_, run) = matches.subcommand().expect("run");
            assert_eq!(
                run.get_one::<String>("record_size").map(String::as_str),
                Some("1KiB")
            );
        }
    }

    #[test]
    fn the_last_flag_counts_but_engine_settings_add_up() {
        let line = "ringpost-bench run --rate 1k --set a=1 --rate 2k --set b=2";
        let matches = command()
            .try_get_matches_from(line.split(' '))
            .expect("taken");
        let (_, run) = matches.subcommand().expect("run");
        assert_eq!(
            run.get_one::<String>("rate").map(String::as_str),
            Some("2k")
        );
        assert_eq!(
            run.get_many::<String>("set")
                .map_or(0, |values| values.count()),
            2
        );
    }

    #[test]
    fn an_unknown_flag_names_the_nearest() {
        let error = command()
            .try_get_matches_from(["ringpost-bench", "run", "--partition", "3"])
            .expect_err("unknown");
        assert!(error.to_string().contains("--partitions"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
