//! The seeded simulator, steered: the input is a seed, and pairs of bytes that set one knob each to
//! another of the values that a seed could have drawn for it. Small changes of the input are small
//! changes of the run, so libFuzzer can go on from a run that came somewhere new.
//!
//! What must hold is what [`ringpost_simulator::swarm`] looks at itself, at every step and in the end.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use ringpost_core::retry::{Budget, Class, Rule};
use ringpost_core::settings::Linger;
use ringpost_simulator::swarm::run::Run;
use ringpost_simulator::swarm::{Kind, Knobs};

/// Knobs that an input sets, at most.
const CHANGES_MAX: usize = 60;

/// How long there are faults, at most: an input is to take a part of its second.
const FAULTS: Duration = Duration::from_millis(500);

/// See the module's doc.
///
/// # Panics
/// When something does not hold.
pub fn run(data: &[u8]) {
    let Ok(knobs) = knobs(&mut Unstructured::new(data)) else {
        return;
    };
    if let Err(words) = Run::new(knobs.clone(), false).run() {
        panic!("{words}; with {knobs:#?}");
    }
}

fn knobs(input: &mut Unstructured<'_>) -> Result<Knobs> {
    let mut knobs = Knobs::draw(u64::from(input.arbitrary::<u16>()?), &[]);
    for _ in 0..CHANGES_MAX {
        if input.len() < 2 {
            break;
        }
        let (which, to) = (input.arbitrary::<u8>()?, input.arbitrary::<u8>()?);
        change(&mut knobs, which, usize::from(to));
    }
    // Few records: many short runs come to more places than few long ones.
    knobs.duration = knobs.duration.min(FAULTS);
    knobs.burst_every = knobs.burst_every.max(Duration::from_millis(2));
    for (_, every) in &mut knobs.faults {
        *every = (*every).min(FAULTS);
    }
    Ok(knobs)
}

/// Sets one knob. Only those that stand alone: which acknowledgements, copies and calls go together is
/// the seed's affair.
fn change(knobs: &mut Knobs, which: u8, to: usize) {
    match which {
        // What came later has numbers of its own, so that earlier inputs stay what they were.
        240..=255 => change_policy(knobs, which, to),
        _ => change_size(knobs, which, to),
    }
}

fn change_policy(knobs: &mut Knobs, which: u8, to: usize) {
    let ms = |of: &[u64]| Duration::from_millis(of[to % of.len()]);
    match which {
        240 => knobs.idle_probe = ms(&[0, 1_000, 30_000]),
        241 => knobs.metadata_max_age = ms(&[2_000, 5_000, 300_000]),
        242 => knobs.first_epoch = [0, i16::MAX - 1, i16::MAX - 3][to % 3],
        243 => knobs.message_bytes_max = [0, 300, 1_500, 8_000][to % 4],
        244 => knobs.reconnect.initial = ms(&[1, 20, 100]),
        245 => knobs.silence = ms(&[0, 2_000]),
        246 => knobs.close_within = ms(&[0, 50, 1_000, 30_000]),
        247 => knobs.retry.budget = [None, Some(Budget::default())][to % 2],
        248 => knobs.health.on = to.is_multiple_of(2),
        249 => knobs.health.stall = ms(&[20, 200, 2_000]),
        250 => knobs.health.consecutive_failures = [1, 3, 10][to % 3],
        251 => knobs.health.eject_base = ms(&[10, 500, 3_000]),
        252 => knobs.health.panic_percent = [0, 34, 100][to % 3],
        _ => {
            let class = Class::ALL[to % Class::ALL.len()];
            let rule = (which == 253).then_some(Rule::GiveUp);
            knobs.retry.rules[class as usize] = rule;
        }
    }
}

fn change_size(knobs: &mut Knobs, which: u8, to: usize) {
    let ms = |of: &[u64]| Duration::from_millis(of[to % of.len()]);
    let us = |of: &[u64]| Duration::from_micros(of[to % of.len()]);
    let of = |of: &[usize]| of[to % of.len()];
    match which % 32 {
        0 => knobs.in_flight_max = of(&[1, 2, 5]),
        1 => knobs.linger = Linger::Fixed(us(&[0, 2_000, 40_000])),
        2 => knobs.linger = Linger::Auto { gap: us(&[0, 500]) },
        3 => knobs.request_timeout = ms(&[300, 1_000, 3_000]),
        4 => knobs.connect_timeout = ms(&[300, 1_000]),
        5 => knobs.delivery_timeout = ms(&[1_500, 4_000, 20_000]),
        6 => knobs.max_block = ms(&[50, 1_000, 10_000]),
        7 => knobs.connections_per_broker = of(&[1, 2]),
        8 => knobs.request_bytes_max = of(&[20_000, 1 << 20]),
        9 => knobs.attempts_max = [None, Some(1), Some(3)][to % 3],
        10 => knobs.memory_bytes = of(&[64 << 10, 256 << 10, 4 << 20]),
        11 => knobs.batch_bytes = of(&[300, 1_000, 4_000, 16_000]),
        12 => knobs.value_bytes_max = of(&[40, 200, 2_000, 9_000]),
        13 => knobs.bound_percent = of(&[0, 50, 100]),
        14 => knobs.burst_every = ms(&[2, 20, 200]),
        15 => knobs.burst_max = of(&[1, 4, 20]),
        16 => knobs.latency = us(&[20, 500, 5_000]),
        17 => knobs.jitter = us(&[0, 100, 3_000]),
        18 => knobs.fragment = of(&[0, 1_460, 200]),
        19 => knobs.take_max = of(&[0, 1_000, 77]),
        20 => knobs.send_buffer = of(&[4_000, 64 << 10, 1 << 20]),
        21 => knobs.lent = to.is_multiple_of(2),
        22 => knobs.release_delay = us(&[0, 100, 20_000]),
        23 => knobs.abandon = to.is_multiple_of(2),
        24 => knobs.produce_version = [3, 7, 9, 11, 12, 13][to % 6],
        25 => knobs.shards = of(&[1, 2, 3]),
        // Who makes faults rarer, or takes one out, comes to the bottom of what the others do.
        26..=28 if !knobs.faults.is_empty() => {
            let number = to % knobs.faults.len();
            knobs.faults.remove(number);
        }
        _ if !knobs.faults.is_empty() => {
            let number = to % knobs.faults.len();
            let (kind, every) = &mut knobs.faults[number];
            let times = match kind {
                Kind::Purge | Kind::PurgeAll => 2,
                _ => 10,
            };
            *every = FAULTS / [1, 2, times][usize::from(which) % 3];
        }
        _ => {}
    }
}
