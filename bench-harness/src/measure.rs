//! One measured run, from placement to verdict.
//!
//! ```text
//! place, start broker, connect ─► warm-up ─► open window ─► … ─► close window ─► drain ─► verify
//!                                             └── every 10 ms: acked records → a rate
//!                                             └── every interval: histograms swapped, figures kept
//! ```
//! All counters are read at both edges of the window and subtracted; what settles before it opens or
//! after it closes does not count, whenever it was sent. With a number of records the warm-up is
//! drained first, so that the window holds exactly these.

use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::allocations;
use crate::broker::BrokerReport;
use crate::client::embedded::Embedded;
use crate::client::null::Null;
use crate::client::ringpost::Ringpost;
use crate::client::{Client, Counters, Facts, Stages};
use crate::clock::{Clock, wall};
use crate::closed_loop;
use crate::corpus::Corpus;
use crate::doctor::host::{Host, Stretch};
use crate::doctor::{judge, unit_costs};
use crate::embedded_broker::EmbeddedBroker;
use crate::environment::Environment;
use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::keyring::Keyring;
use crate::log_end::{LogGrowth, log_end};
use crate::number::float;
use crate::placement::{self, Placement};
use crate::plan::{Brokers, Engine, Plan, Rate, RecordSource};
use crate::progress::{Part, Progress};
use crate::run::Run;
use crate::sender::{Phase, Phases};
use crate::series::{Interval, Series, TICK_NS};
use crate::tally::{Latencies, Settled, Taken};
use crate::usage::{Machine, Process};

/// How long accepted records get to settle after the window, and after an interrupt.
const DRAIN: Duration = Duration::from_secs(30);
const DRAIN_INTERRUPTED: Duration = Duration::from_secs(5);
/// How long the broker gets to read what was sent without asking for an answer: what it has not read
/// by then counts as lost, so this outlasts a machine that stands still. It ends with the last record.
const UNANSWERED: Duration = Duration::from_secs(10);

/// Everything that was measured.
#[derive(Debug)]
pub struct Measured {
    /// What was asked for.
    pub plan: Plan,
    /// When the window opened, since 1970.
    pub started: Duration,
    /// Where it ran.
    pub placement: Placement,
    /// On what.
    pub environment: Environment,
    /// How the client described itself.
    pub facts: Facts,
    /// Whether somebody ended it early.
    pub interrupted: bool,
    /// Why it ended early by itself.
    pub failure: Option<Failure>,
    /// Length of the window.
    pub elapsed_s: f64,
    /// Between the window's edges.
    pub window: Delta,
    /// Records meant for the window.
    pub offered: u64,
    /// Of those, how many the sender never got to.
    pub unsent: u64,
    /// Over the whole run.
    pub taken: Taken,
    /// Over the whole run, after the drain.
    pub settled: Settled,
    /// Why records failed.
    pub reasons: Vec<(String, u64)>,
    /// Bytes of keys and values of what was acked (or sent, with `acks=0`) in the window.
    pub acked_bytes: u64,
    /// Rates of 10 ms, in records/s.
    pub rates: Histogram<u64>,
    /// Response and service times; the response is empty where the client cannot tell.
    pub latencies: Latencies,
    /// The client's own histograms over the window.
    pub stages: Option<Stages>,
    /// The series.
    pub intervals: Vec<Interval>,
    /// What the broker found in the end, if it was asked.
    pub verified: Option<Verified>,
    /// What brokers that are not ours say of their log; why it is not known otherwise.
    pub log_growth: Option<Result<LogGrowth, String>>,
}

/// Differences between the window's edges.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta {
    /// How records settled.
    pub settled: Settled,
    /// What senders did.
    pub taken: Taken,
    /// What the client counted.
    pub counters: Counters,
    /// Client CPU outside the kernel, s.
    pub cpu_user_s: f64,
    /// Client CPU inside the kernel, s.
    pub cpu_system_s: f64,
    /// CPU of the embedded broker, s.
    pub broker_cpu_s: Option<f64>,
    /// Busy CPUs of the whole machine.
    pub machine_busy_cpus: Option<f64>,
    /// Steal, percent.
    pub steal_percent: Option<f64>,
    /// Heap allocations of the client process.
    pub allocations: Option<u64>,
    /// Threads that waited.
    pub voluntary_switches: u64,
    /// Threads that were made to wait.
    pub involuntary_switches: u64,
    /// Most memory so far.
    pub peak_rss_bytes: u64,
}

/// What the broker's log says about what the client says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verified {
    /// Records in the log.
    pub records: u64,
    /// Acked but not there, or missing in the sequence.
    pub lost: u64,
    /// There more often than they were sent.
    pub duplicated: u64,
    /// There out of order.
    pub reordered: u64,
    /// Damaged batches.
    pub corrupt: u64,
}

impl Verified {
    /// Nothing wrong.
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.corrupt == 0
    }
}

impl Measured {
    /// Records that count: acked, or sent with `acks=0`.
    pub fn good(&self) -> u64 {
        self.window.settled.good()
    }

    /// Records taken but never settled.
    pub fn unsettled(&self) -> u64 {
        self.taken.records.saturating_sub(self.settled.total())
    }

    /// Whether everything ended as it should.
    pub fn is_good(&self) -> bool {
        self.failure.is_none()
            && self.unsettled() == 0
            && self.settled.not_written == 0
            && self.settled.unknown == 0
            && self.verified.is_none_or(|verified| verified.is_clean())
            && !matches!(&self.log_growth, Some(Ok(growth)) if growth.missing > 0)
    }
}

/// Everything at one moment.
struct Edge {
    now_ns: u64,
    settled: Settled,
    taken: Taken,
    counters: Counters,
    stages: Option<Stages>,
    process: Process,
    machine: Option<Machine>,
    broker: Option<BrokerReport>,
    allocations: Option<u64>,
}

/// Runs `plan`.
pub fn measure(mut plan: Plan, interrupt: &Interrupt) -> Result<Measured, Failure> {
    // Before anything is placed or started: the run that finds the peak is to have it all.
    if matches!(plan.rate, Rate::OfPeak(_)) && plan.peak.is_none() {
        plan.peak = closed_loop::records_per_s(&plan, interrupt)?;
        if plan.peak.is_none() {
            // Somebody told that run alone to end: this one knows no rate either.
            interrupt.ask();
        }
    }
    let allowed = placement::allowed();
    let embedded = plan.brokers == Brokers::Embedded;
    let placement = Placement::choose(&allowed, embedded);
    check_wait(&plan, &allowed, &placement)?;
    let host = Host::look(&allowed, &placement, plan.brokers.on_this_host());
    let mut environment = Environment::now(&host);
    environment.findings = judge::of_host(&host);
    // While nothing else of ours runs.
    let record_bytes = match plan.record_size {
        RecordSource::Size(size) => size,
        RecordSource::File(_) => 0,
    };
    let spin = plan.wait == "spin";
    environment.unit_costs = Some(unit_costs::measure(&placement, record_bytes, spin));
    let mut broker = embedded
        .then(|| EmbeddedBroker::start(&plan, &placement.broker_cpus))
        .transpose()
        .map_err(Failure::connection)?;
    placement::bind(&placement.client_cpus).map_err(Failure::config)?;

    let corpus = match &plan.record_size {
        RecordSource::Size(size) => {
            Corpus::text(*size, plan.batch.saturating_mul(4).min(256 << 20))
        }
        RecordSource::File(path) => Corpus::file(path),
    }
    .map_err(|error| Failure::config(format!("record_size: {}: {error}", plan.record_size)))?;
    let keyring = Keyring::new(plan.keys);
    let addresses = match (&plan.brokers, &broker) {
        (Brokers::At(addresses), _) => addresses.clone(),
        (Brokers::Embedded, broker) => broker
            .iter()
            .map(|broker| broker.address().to_owned())
            .collect(),
    };
    let client: Box<dyn Client> = match plan.engine {
        Engine::Null => Box::new(
            Null::connect(&plan, &addresses, &corpus, &keyring).map_err(Failure::connection)?,
        ),
        Engine::Ringpost if plan.embedded => Box::new(Embedded::connect(&plan, &addresses)?),
        Engine::Ringpost => Box::new(Ringpost::connect(&plan, &addresses)?),
    };
    // The client has connected, so the topic is there.
    let log_start = (!embedded).then(|| log_end(&addresses, &plan.topic));
    let tallies = client.tallies(plan.producers);
    let run = Run::new(plan, Clock::new(), corpus, keyring, tallies);
    interrupt.wakes(thread::current());
    let progress = Progress::new(&run.plan);
    let broker = &mut broker;
    let conductor = Conductor {
        run: &run,
        client: &*client,
        broker,
        interrupt,
        progress,
        placement,
        environment,
        addresses,
        log_start,
    };
    Ok(conductor.run())
}

/// Refuses to spin where that takes the application's CPU: what would be measured is the scheduler.
/// A thread that drives the shard itself takes it from nobody.
fn check_wait(plan: &Plan, allowed: &[usize], placement: &Placement) -> Result<(), Failure> {
    let client = match placement.client_cpus.len() {
        0 => allowed.len(),
        cpus => cpus,
    };
    if plan.engine == Engine::Ringpost && plan.wait == "spin" && !plan.embedded && client < 2 {
        return Err(Failure::config(format!(
            "wait=spin: the client has one CPU ({}), and a shard that spins takes it from the \
             application's thread; expected `park` or `spin-then-park` here, more CPUs, or \
             `--embedded`: then the application's thread drives the shard itself",
            placement::show(&placement.client_cpus)
        )));
    }
    Ok(())
}

/// The main thread's part of a run.
struct Conductor<'a> {
    run: &'a Run,
    client: &'a dyn Client,
    broker: &'a mut Option<EmbeddedBroker>,
    interrupt: &'a Interrupt,
    progress: Progress,
    placement: Placement,
    environment: Environment,
    addresses: Vec<String>,
    /// Where the log ended before the first record, if it is somebody else's.
    log_start: Option<Result<u64, String>>,
}

/// Why a stretch of watching ended.
#[derive(PartialEq)]
enum Ended {
    Complete,
    Interrupted,
    Failed,
}

/// Tells all threads to end when it goes out of scope, also in a panic: a scope waits for them.
struct EndThreads<'a> {
    run: &'a Run,
    client: &'a dyn Client,
    phases: &'a Phases,
}

impl Drop for EndThreads<'_> {
    fn drop(&mut self) {
        self.phases.end();
        self.run.end_collecting();
        self.client.end_collecting();
    }
}

/// What the window gave.
struct Window {
    opened: Duration,
    start: Edge,
    end: Edge,
    series: Series,
    ended: Ended,
    offered: u64,
    unsent: u64,
}

impl Conductor<'_> {
    fn run(mut self) -> Measured {
        let (run, client) = (self.run, self.client);
        let by_count = run.plan.records;
        // With a number of records, the warm-up is a phase of its own.
        let warms_up = by_count.is_none() || !run.plan.warmup.is_zero();
        let phases = Phases::new(usize::from(warms_up) + usize::from(by_count.is_some()));
        let window = thread::scope(|scope| {
            let phases = &phases;
            let _end = EndThreads {
                run,
                client,
                phases,
            };
            for collector in 0..client.collectors() {
                scope.spawn(move || client.collect(run, collector));
            }
            let senders = spawn(scope, run, client, phases);
            self.gather(phases, &senders);
            let mut ended = Ended::Complete;
            let mut warming = None;
            if self.interrupt.asked() {
                // While the peak was looked for: there is no rate to send at, so nothing is sent.
                ended = Ended::Interrupted;
                let over = Phase::new(run.clock.now(), None);
                over.stop();
                warming = Some(phases.begin(0, over));
            } else if warms_up {
                let now = run.clock.now();
                let phase = warming.insert(phases.begin(0, Phase::new(now, None)));
                wake(&senders);
                ended = self.watch(now + nanos(run.plan.warmup), None, "warm-up");
                if by_count.is_some() {
                    phase.stop();
                    self.drain(phase, &senders);
                }
            }
            // Before counted records start, or some of them would settle outside the window.
            let start = self.open();
            let phase = match warming {
                Some(warming) if by_count.is_none() || ended != Ended::Complete => warming,
                _ => phases.begin(usize::from(warms_up), Phase::new(run.clock.now(), by_count)),
            };
            wake(&senders);
            let window = self.window(phase, start, ended);
            phase.stop();
            self.progress.note("draining");
            self.drain(phase, &senders);
            // What is left settles by this; collectors see it, then end.
            client.close(self.patience());
            window
        });
        self.finish(window)
    }

    /// How long accepted records get.
    fn patience(&self) -> Duration {
        if self.interrupt.asked() || self.run.failure().is_some() {
            DRAIN_INTERRUPTED
        } else {
            DRAIN
        }
    }

    /// Waits until every sender can send, or one has given up.
    fn gather(&self, phases: &Phases, senders: &[ScopedJoinHandle<'_, ()>]) {
        let ended = || senders.iter().any(ScopedJoinHandle::is_finished);
        while phases.ready() < senders.len() && !ended() && !self.interrupt.asked() {
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Waits for senders to be through with a phase and for all they sent to settle.
    fn drain(&self, phase: &Phase, senders: &[ScopedJoinHandle<'_, ()>]) {
        wake(senders);
        let give_up = self.run.clock.now() + nanos(self.patience());
        let ended = || senders.iter().any(ScopedJoinHandle::is_finished);
        // Senders stop within 20 ms, except one that waits for an answer that does not come: closing
        // the client settles that one.
        while phase.done() < senders.len() && !ended() && self.run.clock.now() < give_up {
            thread::park_timeout(Duration::from_millis(1));
        }
        self.client.flush(self.patience());
        // Collectors see what has settled a moment later.
        let open = || settled(self.client, self.run).total() < self.run.taken().records;
        while open() && self.run.failure().is_none() && self.run.clock.now() < give_up {
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Opens the window.
    fn open(&mut self) -> Edge {
        let mut start = self.edge();
        let seen = self.run.turn(true);
        start.settled = self.client.settled().unwrap_or(seen);
        start
    }

    /// Watches the open window, and closes it.
    fn window(&mut self, phase: &Phase, start: Edge, ended: Ended) -> Window {
        let run = self.run;
        let opened = wall();
        let mut series = Series::new(
            &run.plan,
            start.now_ns,
            start.settled,
            start.process.cpu_s(),
            start.stages.clone(),
        );
        let end_ns = start.now_ns + nanos(run.plan.duration);
        let ended = match ended {
            Ended::Complete => self.watch(end_ns, Some(&mut series), "measuring"),
            other => other,
        };
        let end = self.edge_closing(start.now_ns);
        series.tick(run, self.client, end.now_ns, end.settled.good(), true);
        let (offered, unsent) = self.offered(phase, &start, &end);
        Window {
            opened,
            start,
            end,
            series,
            ended,
            offered,
            unsent,
        }
    }

    /// Samples until `until_ns`, or until all of the counted records have settled.
    fn watch(
        &mut self,
        until_ns: u64,
        mut series: Option<&mut Series>,
        what: &'static str,
    ) -> Ended {
        let (run, client) = (self.run, self.client);
        let started = run.clock.now();
        let counted = series.as_ref().and_then(|series| {
            let start = series.start_settled.total();
            Some((start, start + run.plan.records?))
        });
        let part = Part {
            what,
            start_ns: started,
            until_ns,
            records: counted,
        };
        let mut next = started + TICK_NS;
        loop {
            let now = run.clock.now();
            if self.interrupt.asked() {
                return Ended::Interrupted;
            }
            if run.failure().is_some() {
                return Ended::Failed;
            }
            let settled = settled(client, run);
            if counted.is_some_and(|(_, goal)| settled.total() >= goal) || now >= until_ns {
                return Ended::Complete;
            }
            if now >= next {
                if let Some(series) = &mut series {
                    series.tick(run, client, now, settled.good(), false);
                }
                let of = match counted {
                    Some(_) => settled.total(),
                    None => settled.good(),
                };
                self.progress.tick(&part, now, of);
                // Late ticks do not shift the grid.
                next += (now - next + TICK_NS) / TICK_NS * TICK_NS;
            }
            let wait = next.min(until_ns).saturating_sub(now);
            thread::park_timeout(Duration::from_nanos(wait));
        }
    }

    /// Everything now; the slow readings first.
    fn edge(&mut self) -> Edge {
        let broker = self.broker_report();
        let stages = self.client.stages();
        let machine = Machine::now();
        Edge {
            counters: self.client.counters(),
            allocations: allocations::so_far(),
            process: Process::now(),
            taken: self.run.taken(),
            settled: settled(self.client, self.run),
            now_ns: self.run.clock.now(),
            broker,
            stages,
            machine,
        }
    }

    /// The same, the slow readings last; closes the window.
    fn edge_closing(&mut self, start_ns: u64) -> Edge {
        let run = self.run;
        let mut now_ns = run.clock.now();
        let seen = run.turn(false);
        let settled = self.client.settled().unwrap_or(seen);
        let taken = run.taken();
        let process = Process::now();
        let allocations = allocations::so_far();
        let counters = self.client.counters();
        // Counted records end with the last one, not with our noticing it. One before the window is of
        // the warm-up: none has settled since.
        if run.plan.records.is_some()
            && let Some(last) = run.settled.iter().map(|tally| tally.last_ns()).max()
            && last > start_ns
        {
            now_ns = now_ns.min(last);
        }
        Edge {
            now_ns,
            settled,
            taken,
            counters,
            stages: self.client.stages(),
            process,
            machine: Machine::now(),
            broker: self.broker_report(),
            allocations,
        }
    }

    fn broker_report(&mut self) -> Option<BrokerReport> {
        match self.broker.as_mut().map(EmbeddedBroker::report)? {
            Ok(report) => Some(report),
            Err(why) => {
                self.run.fail(Failure::connection(why));
                None
            }
        }
    }

    /// Records meant for the window, and how many of them no sender got to.
    fn offered(&self, phase: &Phase, start: &Edge, end: &Edge) -> (u64, u64) {
        let taken = end.taken.records - start.taken.records;
        if let Some(records) = self.run.plan.records {
            return (records, records.saturating_sub(taken));
        }
        let schedules: Option<Vec<_>> = (0..self.run.plan.producers)
            .map(|sender| phase.schedule(self.run, sender))
            .collect();
        let Some(schedules) = schedules else {
            return (taken, 0);
        };
        let due = |time_ns| {
            schedules
                .iter()
                .map(|schedule| schedule.due_before(time_ns))
                .sum::<u64>()
        };
        let due_end: u64 = due(end.now_ns);
        (
            due_end - due(start.now_ns),
            due_end.saturating_sub(end.taken.records),
        )
    }

    fn finish(mut self, window: Window) -> Measured {
        let (run, client) = (self.run, self.client);
        let settled = settled(client, run);
        let taken = run.taken();
        let verified = self.verify(taken, settled);
        let log_growth = self.log_growth(settled);
        let Window {
            opened,
            start,
            end,
            series,
            ended,
            offered,
            unsent,
        } = window;
        let mut recording = series.end();
        let delta = delta(&start, &end);
        let stages = end
            .stages
            .zip(start.stages)
            .map(|(end, start)| end.since(&start));
        if client.settled().is_some()
            && let Some(stages) = &stages
        {
            // One-way: the engine times records itself, in µs, from the append on.
            recording.latencies = Latencies::default();
            for bucket in stages.append_to_ack.iter_recorded() {
                let nanos = bucket.value_iterated_to().saturating_mul(1_000);
                recording
                    .latencies
                    .service
                    .saturating_record_n(nanos, bucket.count_at_value());
            }
        }
        self.progress.end();
        let elapsed_s = float(end.now_ns - start.now_ns) / 1e9;
        let mut environment = self.environment;
        environment.steal_percent = delta.steal_percent;
        environment
            .findings
            .extend(judge::of_stretch(stretch(&delta, elapsed_s)));
        let costs = environment.unit_costs.iter().flat_map(judge::of_costs);
        let costs: Vec<_> = costs.collect();
        environment.findings.extend(costs);
        Measured {
            started: opened,
            environment,
            placement: self.placement,
            facts: client.facts(),
            interrupted: ended == Ended::Interrupted || self.interrupt.asked(),
            failure: run.failure(),
            elapsed_s,
            window: delta,
            offered,
            unsent,
            taken,
            settled,
            reasons: reasons(run),
            acked_bytes: bytes_of(delta.settled.good(), taken),
            rates: recording.rates,
            latencies: recording.latencies,
            stages,
            intervals: recording.intervals,
            verified,
            log_growth,
            plan: run.plan.clone(),
        }
    }

    /// Compares the client's count with what brokers that are not ours say of their log.
    fn log_growth(&self, settled: Settled) -> Option<Result<LogGrowth, String>> {
        let run = self.run;
        let before = match self.log_start.as_ref()? {
            Ok(before) => *before,
            Err(why) => return Some(Err(why.clone())),
        };
        // Records that nobody answers for are on their way for a moment yet, and followers may lag
        // behind acks=1.
        let give_up = run.clock.now() + nanos(UNANSWERED);
        loop {
            let after = match log_end(&self.addresses, &run.plan.topic) {
                Ok(after) => after,
                Err(why) => return Some(Err(why)),
            };
            let growth = LogGrowth::of(before, after, settled.good(), settled.unknown);
            if growth.missing == 0 || run.clock.now() >= give_up {
                return Some(Ok(growth));
            }
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Compares the client's count with the broker's log.
    fn verify(&mut self, taken: Taken, settled: Settled) -> Option<Verified> {
        let run = self.run;
        let mut report = self.broker_report()?;
        if !run.plan.verify {
            return None;
        }
        // What nobody answers for is on its way to the broker for a moment yet.
        let give_up = run.clock.now() + nanos(UNANSWERED);
        while report.records < settled.sent && run.clock.now() < give_up {
            thread::park_timeout(Duration::from_millis(10));
            report = self.broker_report()?;
        }
        Some(Verified {
            records: report.records,
            lost: report
                .lost
                .max(settled.good().saturating_sub(report.records)),
            duplicated: report
                .duplicated
                .max(report.records.saturating_sub(taken.records)),
            reordered: report.reordered,
            corrupt: report.corrupt,
        })
    }
}

fn spawn<'scope, 'env>(
    scope: &'scope thread::Scope<'scope, 'env>,
    run: &'scope Run,
    client: &'scope dyn Client,
    phases: &'scope Phases,
) -> Vec<ScopedJoinHandle<'scope, ()>> {
    (0..run.plan.producers)
        .map(|sender| scope.spawn(move || client.send(run, phases, sender)))
        .collect()
}

fn wake(senders: &[ScopedJoinHandle<'_, ()>]) {
    for sender in senders {
        sender.thread().unpark();
    }
}

/// How records settled by now, as the client says itself or as its collectors saw it.
fn settled(client: &dyn Client, run: &Run) -> Settled {
    client.settled().unwrap_or_else(|| run.settled())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn reasons(run: &Run) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = Vec::new();
    for (why, records) in run.settled.iter().flat_map(|tally| tally.reasons()) {
        match all.iter_mut().find(|(known, _)| *known == why) {
            Some((_, count)) => *count += records,
            None => all.push((why, records)),
        }
    }
    all
}

/// Bytes of `records` of what was taken: exact when all records have one size.
fn bytes_of(records: u64, taken: Taken) -> u64 {
    if taken.records == 0 {
        return 0;
    }
    let bytes = u128::from(records) * u128::from(taken.bytes) / u128::from(taken.records);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// What others took of the window.
fn stretch(delta: &Delta, elapsed_s: f64) -> Option<Stretch> {
    let own = delta.cpu_user_s + delta.cpu_system_s + delta.broker_cpu_s.unwrap_or(0.0);
    Some(Stretch {
        seconds: elapsed_s,
        steal_percent: delta.steal_percent?,
        others_cpus: (delta.machine_busy_cpus? - own / elapsed_s.max(1e-9)).max(0.0),
        broker_included: delta.broker_cpu_s.is_none(),
    })
}

fn delta(start: &Edge, end: &Edge) -> Delta {
    let less = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
    let (now, then) = (&end.counters, &start.counters);
    let machine = end
        .machine
        .zip(start.machine)
        .map(|(end, start)| end.since(&start));
    Delta {
        settled: end.settled.since(&start.settled),
        taken: Taken {
            records: end.taken.records - start.taken.records,
            bytes: end.taken.bytes - start.taken.bytes,
            full_waits: end.taken.full_waits - start.taken.full_waits,
            blocked_ns: end.taken.blocked_ns - start.taken.blocked_ns,
        },
        counters: Counters {
            batches: less(now.batches, then.batches),
            requests: less(now.requests, then.requests),
            retries: less(now.retries, then.retries),
            kernel_entries: less(now.kernel_entries, then.kernel_entries),
            wakes: less(now.wakes, then.wakes),
        },
        cpu_user_s: end.process.user_s - start.process.user_s,
        cpu_system_s: end.process.system_s - start.process.system_s,
        broker_cpu_s: end
            .broker
            .zip(start.broker)
            .map(|(end, start)| end.process.cpu_s() - start.process.cpu_s()),
        machine_busy_cpus: machine.map(|(busy, _)| busy),
        steal_percent: machine.map(|(_, steal)| steal),
        allocations: less(end.allocations, start.allocations),
        voluntary_switches: end.process.voluntary_switches - start.process.voluntary_switches,
        involuntary_switches: end.process.involuntary_switches - start.process.involuntary_switches,
        peak_rss_bytes: end.process.peak_rss_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::count;

    #[test]
    fn bytes_are_exact_for_one_size_and_fair_for_many() {
        let taken = Taken {
            records: 3,
            bytes: 300,
            ..Taken::default()
        };
        assert_eq!(bytes_of(2, taken), 200);
        assert_eq!(bytes_of(7, Taken::default()), 0);
        let many = Taken {
            records: count(usize::MAX),
            bytes: u64::MAX,
            ..Taken::default()
        };
        assert_eq!(bytes_of(u64::MAX, many), u64::MAX);
    }

    #[test]
    fn a_run_is_good_only_when_its_log_is() {
        let mut verified = Verified {
            records: 10,
            ..Verified::default()
        };
        assert!(verified.is_clean());
        verified.lost = 1;
        assert!(!verified.is_clean());
    }
}
