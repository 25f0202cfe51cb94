//! `scripts/sim`: seeds for so long, one seed again, or the planted bugs.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use ringpost_simulator::swarm::session::{self, Sum};
use ringpost_simulator::swarm::{Kind, Knobs};

/// Runs the core against a simulated network and cluster, from seeds.
#[derive(Debug, Parser)]
#[command(name = "ringpost-sim")]
struct Options {
    /// Runs seeds for so long, each twice.
    #[arg(long, value_name = "S", default_value_t = 60)]
    seconds: u64,
    /// The first seed; without it one is taken from the clock.
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// So many seeds instead of so many seconds.
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Runs this seed alone.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Leaves out these kinds of faults; only with --seed.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    without: Vec<Kind>,
    /// Tells everything that happens; only with --seed.
    #[arg(long)]
    trace: bool,
    /// Goes on behind a seed that fails, and lists all that did.
    #[arg(long)]
    keep_going: bool,
    /// Plants known bugs, one after the other, and demands that each is found.
    #[arg(long)]
    canaries: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.canaries {
        return canaries();
    }
    match options.seed {
        Some(seed) => replay(seed, &options),
        None => swarm(&options),
    }
}

/// The one clock of this crate: how long the simulator itself takes. Nothing simulated depends on it.
fn clock() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this crate's one clock")]
    Instant::now()
}

fn a_fresh_seed() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this crate's one wall clock")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs() * 1_000
}

/// Failures are told by us.
fn quietly<R>(run: impl FnOnce() -> R) -> R {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = run();
    std::panic::set_hook(before);
    result
}

fn replay(seed: u64, options: &Options) -> ExitCode {
    println!("{:#?}", Knobs::draw(seed, &options.without));
    match session::once(seed, &options.without, options.trace) {
        Ok(report) => {
            println!("{report:#?}\nseed {seed}: nothing wrong");
            ExitCode::SUCCESS
        }
        Err(words) => {
            println!("seed {seed}: {words}");
            ExitCode::FAILURE
        }
    }
}

fn swarm(options: &Options) -> ExitCode {
    let first = options.from.unwrap_or_else(a_fresh_seed);
    let started = clock();
    let limit = Duration::from_secs(options.seconds);
    let mut sum = Sum::default();
    let mut seed = first;
    let mut violations = 0;
    loop {
        let over = match options.seeds {
            Some(count) => seed - first >= count,
            None => started.elapsed() >= limit,
        };
        if over {
            break;
        }
        match quietly(|| session::twice(seed)) {
            Ok(report) => sum.add(&report),
            Err(words) if options.keep_going => {
                violations += 1;
                println!("seed {seed}: {words}");
            }
            Err(words) => {
                failed(seed, &words);
                violations += 1;
                break;
            }
        }
        seed += 1;
    }
    tell(first, &sum, started.elapsed(), violations);
    if violations > 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn failed(seed: u64, words: &str) {
    println!(
        "VIOLATION with seed {seed}: {words}\n\n{:#?}\n",
        Knobs::draw(seed, &[])
    );
    let (without, words) = quietly(|| session::shrink(seed));
    let names: Vec<String> = without.iter().map(Kind::to_string).collect();
    let left = Knobs::draw(seed, &without).faults;
    let left: Vec<String> = left.iter().map(|(kind, _)| kind.to_string()).collect();
    println!("with nothing but {}: {words}", left.join(", "));
    println!("replay with:  scripts/sim --seed {seed} --trace");
    if !names.is_empty() {
        println!(
            "the least:    scripts/sim --seed {seed} --trace --without {}",
            names.join(",")
        );
    }
}

/// What a core should come to in a second, so that a night sees some ten thousand seeds.
const EVENTS_PER_SECOND: f64 = 100_000.0;

/// How that went, in words. It fails nothing: a machine that others use is slow for no fault of ours.
fn speed(rate: f64) -> String {
    if rate >= EVENTS_PER_SECOND {
        format!("well: at least {EVENTS_PER_SECOND:.0} events a second on one core")
    } else {
        format!(
            "WARNING: below {EVENTS_PER_SECOND:.0} events a second on one core; alone on the machine, \
             that is a loss of speed to look into"
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
fn tell(first: u64, sum: &Sum, took: Duration, violations: u32) {
    let hours = sum.time.as_secs_f64() / 3_600.0;
    let rate = sum.events as f64 / took.as_secs_f64();
    let counts = &sum.counts;
    let share = |of: u64| format!("{:.1} %", 100.0 * of as f64 / counts.records.max(1) as f64);
    println!(
        "seeds        {} from {first}, each twice with equal actions\n\
         virtual time {hours:.2} h\n\
         events       {} in {:.1} s: {rate:.0} a second on one core\n\
         speed        {}\n\
         faults       {}\n\
         flushes      {}, each ended in time\n\
         moved        {} batches to other partitions\n\
         records      {}: {} acknowledged, {} sent without, {} not written, {} unknown\n\
         good runs    {} of 100 had two thirds of their records acknowledged, or sent without\n\
         lost         {} acknowledged, all by clusters that Kafka lets lose them\n\
         violations   {violations}",
        sum.seeds,
        sum.events,
        took.as_secs_f64(),
        speed(rate),
        sum.strikes,
        sum.flushed,
        sum.moved,
        counts.records,
        share(counts.acked),
        share(counts.sent),
        share(counts.not_written),
        share(counts.unknown),
        100 * sum.good / sum.seeds.max(1),
        sum.lost,
    );
}

#[cfg(feature = "canaries")]
fn canaries() -> ExitCode {
    use ringpost_simulator::swarm::canaries::hunt_all;

    let mut well = true;
    quietly(|| {
        hunt_all(|canary, result| match result {
            Ok(hunt) => println!(
                "{canary:<24} seen with {:>3} seeds, the last {}: {}",
                hunt.tried,
                hunt.seed,
                hunt.words.lines().next().unwrap_or_default()
            ),
            Err(words) => {
                well = false;
                println!("{canary:<24} WRONG: {words}");
            }
        });
    });
    if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(not(feature = "canaries"))]
fn canaries() -> ExitCode {
    eprintln!("built without the planted bugs; scripts/sim --canaries builds with them");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_run_is_warned_of() {
        assert!(speed(100_000.0).starts_with("well"));
        assert!(speed(99_999.0).starts_with("WARNING"));
    }
}
