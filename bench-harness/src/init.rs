//! The command `init`: a scenario file with every setting, its meaning and its default, ready to run.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::exit::{Exit, Failure};
use crate::plan::{Plan, RecordSource};
use crate::scenario::entry;
use crate::setting::{SETTINGS, TABLES};

/// Characters of a comment line.
const WIDTH: usize = 96;

/// Writes the file; one that is there is left alone.
pub fn write(path: &Path) -> Result<Exit, Failure> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| {
            let name = path.display();
            match error.kind() {
                ErrorKind::AlreadyExists => {
                    Failure::output(format!("{name} is there already; it was left as it is"))
                }
                _ => Failure::output(format!("{name} cannot be written: {error}")),
            }
        })?;
    file.write_all(scenario().as_bytes())
        .map_err(|error| Failure::output(format!("{}: {error}", path.display())))?;
    eprintln!("Wrote {0}. Run it: ringpost-bench run {0}", path.display());
    Ok(Exit::Good)
}

/// The file's text.
pub fn scenario() -> String {
    // Different from the default, to show that a scenario is more than flags.
    let plan = Plan {
        record_size: RecordSource::Size(1024),
        ..Plan::default()
    };
    let mut out = String::from(
        "# A scenario for `ringpost-bench run`. Every key is also a flag (--record-size for\n\
         # record_size); flags override this file. Keys that are commented out have their defaults.\n\
         # Sizes: B, KiB, MiB. Durations: us, ms, s, m. Counts: k, M.\n",
    );
    let active = [
        "brokers",
        "topic",
        "partitions",
        "record_size",
        "rate",
        "duration",
        "warmup",
    ];
    for setting in SETTINGS
        .iter()
        .filter(|setting| !TABLES.contains(&setting.name))
    {
        out.push('\n');
        for line in wrapped(&format!(
            "{}. Expected: {}.",
            setting.help, setting.expected
        )) {
            out.push_str(&format!("# {line}\n"));
        }
        let example = match setting.name {
            "records" => "100000".to_owned(),
            "out" => "results/my-run".to_owned(),
            _ => (setting.show)(&plan).unwrap_or_default(),
        };
        let off = if active.contains(&setting.name) {
            ""
        } else {
            "# "
        };
        out.push_str(&format!("{off}{}", entry(setting, &example)));
    }
    out.push_str(TABLES_SHOWN);
    out
}

/// The tables; what is indented by `# ` only needs that taken away.
const TABLES_SHOWN: &str = r#"
# Any other setting of the engine by its name.
[set]
# client_id = "my-service"

# Settings that take several values. `ringpost-bench sweep` runs every combination, each into a folder
# of its own, named by these values; `run` refuses a file with this table.
# [sweep]
# compression = ["none", "lz4", "zstd:1"]
# linger = ["auto", "5ms"]
# set.gap = ["0", "1ms"]

# What a result must keep. `run` tells whether it does; `gate` ends with exit code 3 if it does not.
# Percentiles are of the response times: p50, p90, p99, p99.9, p99.99, max, mean; `service p99` are
# those from the actual send. Every other figure goes by its name in the JSON document. `vs_baseline`
# is the change against the run that `gate --baseline` names.
# [gate]
# thresholds = ["p99.9 < 50ms", "lost = 0", "vs_baseline records_per_s > -3%"]
"#;

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = lines
            .last()
            .is_some_and(|line| line.len() + word.len() + 1 > WIDTH);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Draft;
    use crate::sweep::matrix::Matrix;

    fn read(text: &str) -> Plan {
        let mut draft = Draft::default();
        draft.read_text("init.toml", text);
        draft
            .finish()
            .unwrap_or_else(|faults| panic!("{faults}\n{text}"))
    }

    #[test]
    fn what_init_writes_is_a_scenario() {
        assert_eq!(read(&scenario()).record_size, RecordSource::Size(1024));
    }

    #[test]
    fn the_commented_keys_are_right_too() {
        let uncommented: String = scenario()
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                // A key and its value, or a table; everything else behind `# ` is prose.
                Some(entry) if entry.split(' ').nth(1) == Some("=") => format!("{entry}\n"),
                Some(table) if table.starts_with('[') => format!("{table}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let mut draft = Draft::default();
        draft.read_text("init.toml", &uncommented);
        let matrix = Matrix::of(draft, "init.toml")
            .unwrap_or_else(|faults| panic!("{faults}\n{uncommented}"));
        assert_eq!(matrix.cells.len(), 12);
        assert_eq!(matrix.cells[11].name, "zstd_1-5ms-1ms");
        let plan = &matrix.cells[0].plan;
        assert_eq!((plan.records, plan.gate.len()), (Some(100_000), 3));
        for setting in SETTINGS
            .iter()
            .filter(|setting| !TABLES.contains(&setting.name))
        {
            let key = format!("\n{} = ", setting.name);
            assert!(uncommented.contains(&key), "{}", setting.name);
        }
    }
}
