//! What a reader has to keep in mind about a run's figures: not what is wrong with the host (that is
//! in `environment.findings`), but with what was measured on it.

use std::time::Duration;

use crate::log_end::LogGrowth;
use crate::measure::Measured;
use crate::number::{count, float};
use crate::plan::{Engine, Rate};
use crate::units::show_count;

/// A broker busier than this share of its CPUs may be what limits the rate.
const BROKER_BUSY: f64 = 0.7;
/// A warm-up below this leaves caches, connections and memory cold.
const WARMUP_MIN: Duration = Duration::from_secs(2);
/// Share of the offered records that a rate may be behind at the end.
const BEHIND: f64 = 0.01;

/// All that applies.
pub fn hints(measured: &Measured) -> Vec<String> {
    let plan = &measured.plan;
    let facts = Facts {
        engine: plan.engine,
        rate: plan.rate,
        warmup: plan.warmup,
        wait: &plan.wait,
        client_cpus: measured.placement.client_cpus.len(),
        broker_cpus: measured.placement.broker_cpus.len(),
        broker_cpu_s: measured.window.broker_cpu_s,
        elapsed_s: measured.elapsed_s,
        offered: measured.offered,
        unsent: measured.unsent,
        idempotent: plan.idempotent(),
        log_growth: measured.log_growth.as_ref(),
    };
    facts.hints()
}

/// What the growth of a log of brokers elsewhere says against the run, if anything: more than a hint.
pub fn of_the_log(growth: &LogGrowth, idempotent: bool) -> Option<String> {
    if growth.missing > 0 {
        return Some(format!(
            "{} acked records are not in the topic's log: lost, or the log was cut meanwhile.",
            show_count(growth.missing)
        ));
    }
    (growth.surplus > 0).then(|| {
        let records = show_count(growth.surplus);
        let whose = match idempotent {
            true => {
                "another writer's, or duplicates, which idempotence is there to prevent: a fault of \
                 client or broker"
            }
            false => "another writer's, or duplicates",
        };
        format!(
            "The topic's log grew by {records} records more than this client sent: {whose}. From \
             offsets nobody can tell; a topic of its own for each client would."
        )
    })
}

/// What hints are made of.
struct Facts<'a> {
    engine: Engine,
    rate: Rate,
    warmup: Duration,
    wait: &'a str,
    client_cpus: usize,
    broker_cpus: usize,
    broker_cpu_s: Option<f64>,
    elapsed_s: f64,
    offered: u64,
    unsent: u64,
    idempotent: bool,
    log_growth: Option<&'a Result<LogGrowth, String>>,
}

impl Facts<'_> {
    fn hints(&self) -> Vec<String> {
        let mut hints = Vec::new();
        if let Some(cpu_s) = self.broker_cpu_s
            && self.rate == Rate::Max
            && self.engine == Engine::Ringpost
            && self.elapsed_s > 0.0
        {
            let share = cpu_s / self.elapsed_s / float(count(self.broker_cpus.max(1)));
            if share > BROKER_BUSY {
                hints.push(format!(
                    "The broker used {:.0} % of its CPUs: the rate may be its limit, not the client's. \
                     `--engine null` shows that limit; a client slower than two thirds of it was \
                     measured, a faster one was not.",
                    share * 100.0
                ));
            }
        }
        if self.unsent > 0 && float(self.unsent) > BEHIND * float(self.offered) {
            hints.push(format!(
                "The rate was not held: {} of {} records were behind schedule at the end. Response \
                 times are those of a queue that grows, and depend on how long the run was.",
                show_count(self.unsent),
                show_count(self.offered)
            ));
        }
        if self.wait == "spin-then-park" && self.client_cpus == 1 {
            hints.push(
                "wait=spin-then-park on one client CPU: while the shard spins, the application does \
                 not run."
                    .into(),
            );
        }
        if self.warmup < WARMUP_MIN {
            hints.push(
                "A warm-up below 2 s: what the first records cost (connections, memory touched for \
                 the first time) is in the figures."
                    .into(),
            );
        }
        match self.log_growth {
            Some(Ok(growth)) => hints.extend(of_the_log(growth, self.idempotent)),
            Some(Err(why)) => hints.push(format!("The topic's log was not compared: {why}")),
            None => {}
        }
        hints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Facts<'_> = Facts {
        engine: Engine::Ringpost,
        rate: Rate::Max,
        warmup: WARMUP_MIN,
        wait: "park",
        client_cpus: 1,
        broker_cpus: 1,
        broker_cpu_s: Some(5.0),
        elapsed_s: 10.0,
        offered: 1_000,
        unsent: 0,
        idempotent: false,
        log_growth: None,
    };

    #[test]
    fn each_is_said_when_it_applies() {
        assert!(FINE.hints().is_empty(), "{:?}", FINE.hints());
        let busy = Facts {
            broker_cpu_s: Some(9.3),
            ..FINE
        };
        assert!(busy.hints()[0].contains("93 %"));
        let paced = Facts {
            rate: Rate::PerSecond(5),
            ..busy
        };
        assert!(
            paced.hints().is_empty(),
            "at a rate the rate is not the figure"
        );
        let behind = Facts { unsent: 20, ..FINE };
        assert!(behind.hints()[0].contains("20 of 1 000"));
        let cold = Facts {
            warmup: Duration::ZERO,
            wait: "spin-then-park",
            ..FINE
        };
        assert_eq!(cold.hints().len(), 2);
        for (growth, said) in [
            (Ok(LogGrowth::of(0, 90, 100, 0)), "10 acked records are not"),
            (Ok(LogGrowth::of(0, 103, 100, 1)), "2 records more"),
            (Err("b:1: refused".into()), "b:1: refused"),
        ] {
            let log_growth = Some(&growth);
            let remote = Facts { log_growth, ..FINE };
            assert!(remote.hints()[0].contains(said), "{:?}", remote.hints());
            let told = |hint: &String| hint.contains("idempotence is there to prevent");
            assert!(!remote.hints().iter().any(told));
            let idempotent = Facts {
                idempotent: true,
                ..remote
            };
            assert_eq!(idempotent.hints().iter().any(told), said.contains("more"));
        }
    }
}
