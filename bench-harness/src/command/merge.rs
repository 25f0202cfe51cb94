//! `merge`: several results become one.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::exit::{Exit, Failure};
use crate::merge::{self, Merged};
use crate::recorded::Recorded;
use crate::report::folder;

const HELP: &str = "\
Examples:
  ringpost-bench merge client-a client-b -o both
      Two clients that ran at the same time on two hosts, as one result: rates and counts add up,
      latencies are those of all records.
  ringpost-bench merge cell/rounds/* -o cell
      Rounds of one configuration, as one result.

Windows that overlap are of clients that ran together; windows that do not are rounds. Histograms are
added, never their percentiles. `throughput` of a merge has the 10 ms rates of each client by itself.

Exit codes:
  0  merged and written, and all parts are good
  1  merged and written, but a part's records did not all end as they should
  2  a flag is wrong, a folder holds no results, they are not of one experiment, or a run is in two of
     them; nothing was written
  5  the merge could not be written";

/// Its flags.
pub fn command() -> Command {
    Command::new("merge")
        .about("Several results as one, without loss: clients of many hosts, or rounds")
        .after_help(HELP)
        .arg(
            Arg::new("dirs")
                .value_name("DIR")
                .required(true)
                .num_args(1..)
                .value_parser(value_parser!(PathBuf))
                .help("Results folders, as `run --out DIR` writes them"),
        )
        .arg(
            Arg::new("out")
                .short('o')
                .long("out")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("Folder to write the merged result to; every other command reads it"),
        )
        .arg(
            Arg::new("force")
                .long("force")
                .action(ArgAction::SetTrue)
                .help("Merge results of different workloads or configurations all the same"),
        )
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .default_value("text")
                .value_parser(PossibleValuesParser::new(["text", "json"]))
                .help("What stdout gets: a few lines, or the document of the merge"),
        )
}

/// Reads, merges, writes and tells.
pub fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let folders: Vec<&PathBuf> = matches.get_many("dirs").into_iter().flatten().collect();
    let no_out = || Failure::config("--out: expected a folder"); // clap asks for one
    let out = matches.get_one::<PathBuf>("out").ok_or_else(no_out)?;
    let refused = |error| Failure::output(format!("--out: {}: {error}", out.display()));
    let is_out = |folder: &Path| match (folder.canonicalize(), out.canonicalize()) {
        (Ok(folder), Ok(out)) => folder == out,
        _ => false,
    };
    if folders.iter().any(|folder| is_out(folder)) {
        return Err(Failure::config(format!(
            "--out: {} is one of the results to be merged",
            out.display()
        )));
    }
    let parts: Vec<Recorded> = folders
        .into_iter()
        .map(|folder| Recorded::open(folder))
        .collect::<Result<_, _>>()?;
    let merged = merge::merge(&parts, matches.get_flag("force"))?;
    folder::prepare(out).map_err(refused)?;
    merge::write(out, &merged, &parts).map_err(refused)?;
    let document = &merged.document;
    if matches
        .get_one::<String>("format")
        .is_some_and(|format| format == "json")
    {
        let json = serde_json::to_string_pretty(document)
            .map_err(|error| Failure::output(format!("the document: {error}")))?;
        println!("{json}");
    } else {
        let title = document.merged.as_ref().map(Merged::title);
        println!("{}\n", title.unwrap_or_default());
        print!("{}", folder::summary(document));
        for difference in document
            .merged
            .iter()
            .flat_map(|merged| &merged.differences)
        {
            println!("They differ in {difference}");
        }
    }
    eprintln!("Results are in {}", out.display());
    Ok(if document.good {
        Exit::Good
    } else {
        Exit::Unsettled
    })
}
