//! The cells of a sweep: every combination of the values that vary, each a checked plan with a name.

use std::collections::HashSet;

use crate::plan::Plan;
use crate::scenario::{Axis, Draft, Fault, Faults, Origin};
use crate::sweep::layout::{self, safe};
use crate::sweep::state::Varies;

/// More cells than this are a slip: at a second each it would be hours.
const CELLS_MAX: usize = 10_000;

/// Longest name of a cell: file systems take 255 bytes, and a number may be added to it.
const NAME_MAX: usize = 200;

/// What a sweep runs.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// What varies, in the order of the scenario.
    pub varies: Vec<Varies>,
    /// Every combination, the last key varying fastest. At least one; names differ.
    pub cells: Vec<Cell>,
}

/// One combination.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Its folder's name: its values, with hyphens between them.
    pub name: String,
    /// What sets it apart: key and value.
    pub settings: Vec<(String, String)>,
    /// What it runs.
    pub plan: Plan,
}

impl Matrix {
    /// The matrix of a scenario, called `scenario` in faults; or all that is wrong with any cell.
    pub fn of(mut draft: Draft, scenario: &str) -> Result<Self, Faults> {
        let axes = draft.take_axes();
        // What is wrong with all cells is told once. It also tells what is wrong without any axis.
        let base = draft.clone().finish();
        let alone = |what: String| {
            let origin = Origin::File(scenario.to_owned());
            let mut faults = base.as_ref().err().cloned().unwrap_or_default();
            // What was not read or not understood is why nothing is left to vary.
            let known = |fault: &Fault| {
                matches!(fault.origin, Origin::File(_)) || fault.key.starts_with("sweep")
            };
            if !faults.0.iter().any(known) {
                faults.0.push(Fault {
                    origin,
                    key: "sweep".into(),
                    what,
                });
            }
            Err(faults)
        };
        if axes.is_empty() {
            return alone(
                "nothing varies; expected a table like [sweep] with \
                 compression = [\"none\", \"lz4\"]"
                    .into(),
            );
        }
        let count = axes
            .iter()
            .try_fold(1_usize, |all, axis| all.checked_mul(axis.values().len()))
            .filter(|count| *count <= CELLS_MAX);
        let Some(count) = count else {
            return alone(format!("more than {CELLS_MAX} cells"));
        };
        let (mut cells, mut faults) = (Vec::new(), Faults::default());
        for number in 0..count {
            match cell(&draft, &axes, number) {
                Ok(cell) => cells.push(cell),
                Err(of_cell) => {
                    let new = |fault: &Fault| !faults.0.contains(fault);
                    let new: Vec<_> = of_cell.0.into_iter().filter(new).collect();
                    faults.0.extend(new);
                }
            }
        }
        if count == 0 {
            faults = base.err().unwrap_or_default(); // an empty list, told there
        }
        if !faults.0.is_empty() {
            return Err(faults);
        }
        name_apart(&mut cells);
        let varies = axes
            .iter()
            .map(|axis| Varies {
                key: axis.key(),
                values: axis
                    .values()
                    .iter()
                    .map(|(value, _)| value.clone())
                    .collect(),
            })
            .collect();
        Ok(Self { varies, cells })
    }
}

/// Cell `number`, the last axis counting fastest.
fn cell(draft: &Draft, axes: &[Axis], number: usize) -> Result<Cell, Faults> {
    let mut draft = draft.clone();
    let mut settings = Vec::new();
    let mut rest = number;
    for axis in axes.iter().rev() {
        let at = rest % axis.values().len();
        rest /= axis.values().len();
        settings.push((axis.key(), axis.values()[at].0.clone()));
        draft.vary(axis, at);
    }
    settings.reverse();
    let names: Vec<_> = settings.iter().map(|(_, value)| safe(value)).collect();
    let name = names.join("-");
    Ok(Cell {
        name: name.chars().take(NAME_MAX).collect(),
        settings,
        plan: draft.finish()?,
    })
}

/// Different cells may have got one name: a number sets them apart.
fn name_apart(cells: &mut [Cell]) {
    let own = [layout::STATE, layout::README];
    let mut taken: HashSet<_> = own.iter().map(|name| name.to_lowercase()).collect();
    // A file system that does not tell `A` from `a` does not tell their folders apart either.
    for cell in cells {
        let plain = cell.name.clone();
        let mut number = 2;
        while !taken.insert(cell.name.to_lowercase()) {
            cell.name = format!("{plain}_{number}");
            number += 1;
        }
    }
}

/// Which cell runs when: cells take turns, and the turn is reversed from round to round (A B B A …),
/// so that what drifts meets them alike.
///
/// ```
/// let order: Vec<_> = ringpost_bench::sweep::matrix::order(2, 3).collect();
/// assert_eq!(order, [(0, 1), (1, 1), (1, 2), (0, 2), (0, 3), (1, 3)]);
/// ```
pub fn order(cells: usize, rounds: usize) -> impl Iterator<Item = (usize, usize)> {
    (1..=rounds).flat_map(move |round| {
        (0..cells).map(move |turn| match round % 2 {
            1 => (turn, round),
            _ => (cells - 1 - turn, round),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(text: &str, flags: &[(&str, &str)]) -> Result<Matrix, Faults> {
        let mut draft = Draft::default();
        draft.read_text("s.toml", text);
        for (name, value) in flags {
            draft.flag(name, value);
        }
        Matrix::of(draft, "s.toml")
    }

    fn names(matrix: &Matrix) -> Vec<&str> {
        matrix.cells.iter().map(|cell| &cell.name[..]).collect()
    }

    #[test]
    fn cells_are_named_by_what_varies() {
        let text = "compression = 'gzip'\n[sweep]\nrecord_size = ['100B', '1024B']\n\
                    compression = ['none', 'zstd:1']\n";
        let matrix = matrix(text, &[]).expect("good");
        assert_eq!(
            names(&matrix),
            ["100B-none", "100B-zstd_1", "1KiB-none", "1KiB-zstd_1"]
        );
        let last = &matrix.cells[3];
        let settings = [("record_size", "1KiB"), ("compression", "zstd:1")];
        assert_eq!(last.settings, settings.map(|(k, v)| (k.into(), v.into())));
        assert_eq!(last.plan.compression, "zstd:1");
    }

    #[test]
    fn engine_settings_vary_and_keep_their_names() {
        let text = "[sweep]\nset.gap = ['1ms', '2ms']\n[set]\nclient_id = 'a'\n";
        let matrix = matrix(text, &[]).expect("good");
        assert_eq!(names(&matrix), ["1ms", "2ms"]);
        assert_eq!(matrix.varies[0].key, "set.gap");
        assert!(
            matrix.cells[1]
                .plan
                .set
                .contains(&("gap".into(), "2ms".into()))
        );
        assert!(
            matrix.cells[1]
                .plan
                .set
                .contains(&("client_id".into(), "a".into()))
        );
    }

    #[test]
    fn what_a_file_extends_varies_too_and_its_lists_are_replaced() {
        let folder = format!("ringpost-matrix-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        for (name, text) in [
            (
                "base.toml",
                "[sweep]\ncompression = ['none', 'lz4']\nset.gap = ['1ms', '2ms']\nacks = [1]\n",
            ),
            (
                "main.toml",
                "extends = 'base.toml'\n[sweep]\nrecord_size = ['1KiB']\n\
                 compression = ['gzip', 'none', 'snappy']\nset.gap = ['3ms']\n",
            ),
        ] {
            std::fs::write(folder.join(name), text).expect("written");
        }
        let of = |name: &str| {
            let mut draft = Draft::default();
            draft.read_file(&folder.join(name));
            Matrix::of(draft, name).expect("good")
        };
        let (base, main) = (of("base.toml"), of("main.toml"));
        std::fs::remove_dir_all(&folder).expect("removed");
        assert_eq!(base.cells.len(), 4);
        // What only the extended file varies comes first; a list is the own one, whole.
        let varies = |key: &str, values: &[&str]| Varies {
            key: key.into(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        assert_eq!(
            main.varies,
            [
                varies("acks", &["1"]),
                varies("record_size", &["1KiB"]),
                varies("compression", &["gzip", "none", "snappy"]),
                varies("set.gap", &["3ms"]),
            ]
        );
        assert_eq!(
            names(&main),
            ["1-1KiB-gzip-3ms", "1-1KiB-none-3ms", "1-1KiB-snappy-3ms"]
        );
    }

    #[test]
    fn a_flag_leaves_one_value() {
        let text = "[sweep]\ncompression = ['none', 'lz4']\nset.gap = ['1ms', '2ms']\n";
        let pinned = matrix(text, &[("compression", "lz4")]).expect("good");
        assert_eq!(names(&pinned), ["lz4-1ms", "lz4-2ms"]);
        let pinned = matrix(text, &[("set", "gap=3ms"), ("rate", "1k")]).expect("good");
        assert_eq!(names(&pinned), ["none-3ms", "lz4-3ms"]);
        assert_eq!(pinned.cells[0].plan.records_per_s(), Some(1_000));
    }

    #[test]
    fn equal_names_are_set_apart() {
        let text = "[sweep]\nkeys = ['zipf:10,1', 'zipf:10,1.0']\n";
        let faults = matrix(text, &[]).expect_err("the same keys").to_string();
        assert!(faults.contains("there twice"), "{faults}");
        let long = "t".repeat(249);
        let text = format!(
            "[sweep]\ntopic = ['README.md', '{long}', '{}']\n",
            &long[1..]
        );
        let found = matrix(&text, &[]).expect("good");
        let (first, second) = ("t".repeat(NAME_MAX), format!("{}_2", "t".repeat(NAME_MAX)));
        assert_eq!(names(&found), ["README.md_2", &first, &second]);
        let text = "[sweep]\ntopic = ['a', 'A', 'a_2']\n";
        assert_eq!(
            names(&matrix(text, &[]).expect("good")),
            ["a", "A_2", "a_2_2"]
        );
    }

    #[test]
    fn faults_of_all_cells_are_told_once_and_with_their_lines() {
        let text = "memory = '1MiB'\nrecord_siz = '1B'\n[sweep]\nbatch = ['64KiB', '2MiB', '5']\n\
                    partitions = []\nout = ['a']\ncompresion = ['lz4']\nacks = 'all'\n\
                    linger = ['0', '0']\nset.gap = ['soon']\nset.nonsense = ['1']\n";
        let faults = matrix(text, &[]).expect_err("faults").to_string();
        for said in [
            "s.toml:2: record_siz: there is no such key; did you mean `record_size`?",
            "s.toml:4: sweep.batch: `5` is not allowed",
            "s.toml:5: sweep.partitions: the list is empty",
            "s.toml:6: sweep.out: this cannot vary",
            "s.toml:7: sweep.compresion: there is no such setting; did you mean `compression`?",
            "s.toml:8: sweep.acks: expected a list of values",
            "s.toml:9: sweep.linger: `0` is there twice",
        ] {
            assert!(faults.contains(said), "{said}\nnot in\n{faults}");
        }
        let text = "memory = '1MiB'\n[sweep]\nbatch = ['64KiB',\n'2MiB']\nset.gap = ['1ms', 'soon']\n\
                    set.nonsense = ['1']\n";
        let faults = matrix(text, &[]).expect_err("faults").to_string();
        for said in [
            "s.toml:4: batch: 2MiB is more than memory=1MiB",
            "s.toml:5: set.gap: ",
            "s.toml:6: set.nonsense: ",
        ] {
            assert!(faults.contains(said), "{said}\nnot in\n{faults}");
        }
        assert_eq!(faults.lines().count(), 3, "{faults}");
    }

    #[test]
    fn nothing_to_sweep_is_told() {
        let faults = matrix("topic = 't'\n", &[]).expect_err("nothing varies");
        assert!(
            faults
                .to_string()
                .starts_with("s.toml: sweep: nothing varies")
        );
        let faults = matrix("[sweep]\nack = [1]\n", &[]).expect_err("mistyped");
        assert_eq!(faults.0.len(), 1, "{faults}");
        let list: Vec<_> = (1..200).map(|n| n.to_string()).collect();
        let list = list.join(",");
        let text = format!("[sweep]\npartitions = [{list}]\nproducers = [{list}]\n");
        let faults = matrix(&text, &[]).expect_err("too many").to_string();
        assert!(faults.contains("more than 10000 cells"), "{faults}");
    }
}
