//! Which fault happens when: drawn by a seed, one at a time, with a quiet gap after each.
//!
//! Faults come from a shuffled deck that holds each allowed kind once and is shuffled anew when it
//! is empty, so that a run of ten minutes meets all and a short one as many as fit. Three nodes are
//! brokers and controllers at once: two of them gone is the end of the quorum, which is a kind of
//! its own ([`Fault::PauseTwo`]) where records may fail.

use std::fmt;

use ringpost_core::random::Random;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill −9 of a node; it starts again later.
    Kill,
    /// SIGSTOP, then SIGCONT, of a node.
    Stop,
    /// SIGTERM of a node; it starts again later.
    Term,
    /// Every node ended and started in turn.
    Rolling,
    /// The client's packets to and from a node vanish.
    ClientCut,
    /// A node's packets to and from the other nodes vanish; the client sees all.
    BrokerCut,
    /// What the client sends to a node vanishes, the other way is open.
    ToBroker,
    /// What a node sends to the client vanishes: answers are lost, writes are not.
    FromBroker,
    /// The client's packets to and from all nodes vanish.
    Blackhole,
    /// The proxy makes a node ten times slower.
    Slow,
    /// The proxy delays and slices a node's bytes to pieces.
    Slice,
    /// The proxy resets a node's connections, again and again.
    Reset,
    /// The proxy cuts frames in the middle.
    Cut,
    /// The proxy holds, drops and repeats answers, and flips a bit in a request's records.
    Answers,
    /// A node's log directory is full.
    FullDisk,
    /// Two of three nodes stopped for longer than the delivery deadline.
    PauseTwo,
    /// Our process stopped for longer than the delivery deadline.
    PauseClient,
    /// Our process killed; another one takes over.
    KillClient,
}

impl Fault {
    /// Every kind: name, and how long it lasts at least and at most, in seconds. A node that dies
    /// without a word is gone for longer than `scripts/chaos` lets the others wait for it (6 s), so that
    /// they have new leaders before it starts again.
    const ALL: [(Self, &'static str, u64, u64, &'static str); 18] = [
        (Self::Kill, "kill", 8, 12, "kill -9 a node, start it again"),
        (Self::Stop, "stop", 4, 12, "SIGSTOP a node, then SIGCONT"),
        (Self::Term, "term", 2, 8, "SIGTERM a node, start it again"),
        (
            Self::Rolling,
            "rolling",
            0,
            0,
            "SIGTERM and start every node in turn",
        ),
        (
            Self::ClientCut,
            "client-cut",
            5,
            12,
            "client and node lose all packets between them",
        ),
        (
            Self::BrokerCut,
            "broker-cut",
            8,
            15,
            "a node loses all packets from and to the other nodes",
        ),
        (
            Self::ToBroker,
            "to-broker",
            5,
            12,
            "packets from the client to a node vanish",
        ),
        (
            Self::FromBroker,
            "from-broker",
            5,
            12,
            "packets from a node to the client vanish (lost acks)",
        ),
        (
            Self::Blackhole,
            "blackhole",
            5,
            12,
            "client and all nodes lose all packets between them",
        ),
        (
            Self::Slow,
            "slow",
            8,
            15,
            "the proxy makes a node ten times slower",
        ),
        (
            Self::Slice,
            "slice",
            5,
            10,
            "the proxy delays, with jitter, and sends single bytes",
        ),
        (
            Self::Reset,
            "reset",
            5,
            10,
            "the proxy resets a node's connections, once a second",
        ),
        (
            Self::Cut,
            "cut",
            5,
            10,
            "the proxy cuts requests and answers in the middle",
        ),
        (
            Self::Answers,
            "answers",
            8,
            12,
            "the proxy holds, drops and repeats answers, flips a bit of a record",
        ),
        (
            Self::FullDisk,
            "full-disk",
            8,
            12,
            "a node's log directory is full",
        ),
        (
            Self::PauseTwo,
            "pause-two",
            18,
            20,
            "two of three nodes stopped beyond the delivery deadline",
        ),
        (
            Self::PauseClient,
            "pause-client",
            18,
            20,
            "our process stopped beyond the delivery deadline",
        ),
        (
            Self::KillClient,
            "kill-client",
            1,
            1,
            "our process killed -9, another one starts",
        ),
    ];

    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.iter().map(|row| row.0)
    }

    fn row(self) -> (&'static str, u64, u64, &'static str) {
        Self::ALL
            .iter()
            .find(|row| row.0 == self)
            .map_or(("?", 0, 0, "?"), |row| (row.1, row.2, row.3, row.4))
    }

    /// Its name, as in `--faults`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// What it does.
    #[must_use]
    pub fn what(self) -> &'static str {
        self.row().3
    }

    /// The kind of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::all().find(|fault| fault.name() == name)
    }

    /// How long the cluster gets to recover behind it: restarts take a while.
    fn quiet_ms(self) -> u64 {
        match self {
            Self::Kill | Self::Term | Self::Rolling | Self::FullDisk | Self::PauseTwo => 12_000,
            _ => 8_000,
        }
    }

    /// How long it takes beyond its duration: a node's start, on a busy machine.
    fn overhead_ms(self) -> u64 {
        match self {
            Self::Kill | Self::Term | Self::FullDisk => 8_000,
            Self::Rolling => 40_000,
            _ => 500,
        }
    }
}

/// One fault of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub fault: Fault,
    /// The node, from 1; 0 where all or none is meant.
    pub node: u32,
    /// How long.
    pub lasts_ms: u64,
    /// How long nothing happens behind it.
    pub quiet_ms: u64,
    /// A number the fault may use: where to cut, which bit.
    pub draw: u32,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {} {}",
            self.fault.name(),
            self.node,
            self.lasts_ms,
            self.quiet_ms,
            self.draw
        )
    }
}

/// The faults of a run of about so many seconds.
#[must_use]
pub fn plan(seed: u64, seconds: u64, nodes: u32, kinds: &[Fault]) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut steps = Vec::new();
    let mut deck: Vec<Fault> = Vec::new();
    let mut left_ms = seconds * 1000;
    // Kinds that did not fit any more; when all of them do not, the plan is done.
    let mut too_long = 0;
    while too_long < kinds.len() {
        if deck.is_empty() {
            deck = kinds.to_vec();
            for last in (1..deck.len()).rev() {
                deck.swap(last, random.below(last + 1));
            }
        }
        let Some(fault) = deck.pop() else { break };
        let (_, least, most, _) = fault.row();
        let spread = usize::try_from((most - least) * 1000).unwrap_or(0);
        let lasts_ms = least * 1000 + random.below(spread + 1) as u64;
        let node = match fault {
            Fault::Rolling | Fault::Blackhole | Fault::PauseClient | Fault::KillClient => 0,
            // The one whose log directory is small.
            Fault::FullDisk => nodes,
            _ => 1 + u32::try_from(random.below(nodes as usize)).unwrap_or(0),
        };
        let draw = u32::try_from(random.below(1 << 20)).unwrap_or(0);
        let takes_ms = lasts_ms + fault.overhead_ms() + fault.quiet_ms();
        if takes_ms > left_ms {
            too_long += 1;
            continue;
        }
        too_long = 0;
        left_ms -= takes_ms;
        steps.push(Step {
            fault,
            node,
            lasts_ms,
            quiet_ms: fault.quiet_ms(),
            draw,
        });
    }
    steps
}

/// Long pauses and many restarts of leaders, one after the other: a user whose deadline has room sees
/// none of it (case N9).
#[must_use]
pub fn restarts(seed: u64, nodes: u32) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut steps = Vec::new();
    let rounds = [
        (Fault::Stop, 1, 60_000),
        (Fault::Kill, 5, 10_000),
        (Fault::Term, 5, 5_000),
        (Fault::Rolling, 1, 0),
    ];
    for (fault, times, lasts_ms) in rounds {
        for _ in 0..times {
            let node = match fault {
                Fault::Rolling => 0,
                // Each leads a part of the partitions.
                _ => 1 + u32::try_from(random.below(nodes as usize)).unwrap_or(0),
            };
            steps.push(Step {
                fault,
                node,
                lasts_ms,
                quiet_ms: fault.quiet_ms(),
                draw: 0,
            });
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_plan_and_another_one_another() {
        let kinds: Vec<_> = Fault::all().collect();
        let one = plan(7, 600, 3, &kinds);
        assert_eq!(one, plan(7, 600, 3, &kinds));
        assert_ne!(one, plan(8, 600, 3, &kinds));
    }

    #[test]
    fn ten_minutes_meet_every_kind_and_stay_within_their_time() {
        let kinds: Vec<_> = Fault::all().collect();
        for seed in 0..50 {
            let steps = plan(seed, 600, 3, &kinds);
            let met = kinds
                .iter()
                .filter(|kind| steps.iter().any(|step| step.fault == **kind))
                .count();
            assert!(met >= 16, "seed {seed}: {met} kinds");
            let planned: u64 = steps.iter().map(|step| step.lasts_ms + step.quiet_ms).sum();
            assert!(planned <= 600_000, "seed {seed}: {planned} ms");
            assert!(steps.iter().all(|step| step.node <= 3));
        }
    }

    /// What `scripts/chaos --plan n9` does to the cluster, whatever the seed says of nodes.
    #[test]
    fn n9_one_long_pause_five_kills_five_ends_and_a_rolling_restart() {
        let steps = restarts(1, 3);
        let times = |fault| steps.iter().filter(|step| step.fault == fault).count();
        assert_eq!(
            [Fault::Stop, Fault::Kill, Fault::Term, Fault::Rolling].map(times),
            [1, 5, 5, 1]
        );
        assert_eq!(steps[0].lasts_ms, 60_000);
        let in_turn = steps[..11].iter().all(|step| (1..=3).contains(&step.node));
        assert!(in_turn, "{steps:?}");
        assert_ne!(steps, restarts(2, 3));
    }

    /// What `scripts/test chaos` asks for.
    #[test]
    fn the_two_minutes_of_every_build_meet_every_kind_they_name() {
        let kinds = [
            "pause-two",
            "kill-client",
            "full-disk",
            "from-broker",
            "cut",
            "answers",
        ]
        .map(|name| Fault::of(name).unwrap());
        let steps = plan(20, 120, 3, &kinds);
        for kind in kinds {
            assert!(
                steps.iter().any(|step| step.fault == kind),
                "{}",
                kind.name()
            );
        }
    }

    #[test]
    fn only_the_kinds_asked_for_and_only_the_small_disk_is_filled() {
        let steps = plan(3, 300, 3, &[Fault::Kill, Fault::FullDisk]);
        assert!(steps.len() > 5);
        for step in steps {
            assert!(matches!(step.fault, Fault::Kill | Fault::FullDisk));
            assert!(step.fault != Fault::FullDisk || step.node == 3);
            assert!((1..=3).contains(&step.node));
        }
        assert_eq!(Fault::of("from-broker"), Some(Fault::FromBroker));
        assert_eq!(Fault::of("nothing"), None);
    }
}
