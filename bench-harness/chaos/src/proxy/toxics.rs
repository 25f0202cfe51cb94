//! What a route does to its bytes, and the lines that say so.
//!
//! `N` is a node, from 1, or `all`. `API` is an API key (0 is Produce) or `any`; `K` says the how
//! manieth frame of it from now on, from 1. Times are milliseconds.
//!
//! | line | from now on |
//! |---|---|
//! | `latency N MS [JITTER]` | every frame is that late, both ways, in order |
//! | `bandwidth N BYTES` | so many bytes a second, each way; 0 is unlimited |
//! | `slice N BYTES` | written in pieces of that size |
//! | `slow N FACTOR` | an answer takes so many times as long as the broker took |
//! | `stall N up\|down\|both` | bytes are held back until `clear` |
//! | `refuse N` | new connections are reset |
//! | `clear N` | none of the above, and no trick that waits; the answer says what they did ([`Effects`]) |
//!
//! | line | once, now |
//! |---|---|
//! | `reset N` | RST on every connection, both sides |
//! | `close N` | FIN on every connection, both sides |
//! | `halfopen N` | existing connections stay, and nothing passes them any more |
//!
//! | line | once, to the K-th frame |
//! |---|---|
//! | `cut N request\|response API K BYTE` | only so many bytes of it pass, then RST |
//! | `hold N API K MS` | the answer, and those behind it, come that late |
//! | `drop N API K` | the answer does not come, those behind it do |
//! | `repeat N API K` | the answer comes twice |
//! | `flip N request\|response API K FROM_END BIT` | a bit is flipped, so many bytes before the end |

use std::fmt;
use std::ops::AddAssign;
use std::str::{FromStr, SplitWhitespace};
use std::time::Duration;

/// A line that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It does not begin with a known verb.
    #[error("no such command: {0:?}")]
    Unknown(String),
    /// A word is missing, or not what has to stand there.
    #[error("{expected} is missing in {line:?}")]
    Missing {
        /// What has to stand there.
        expected: &'static str,
        /// The line.
        line: String,
    },
    /// The proxy has no such route.
    #[error("there is no node {0}")]
    NoSuchNode(usize),
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    /// `None` is all.
    pub(super) node: Option<usize>,
    pub(super) verb: Verb,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verb {
    Set(Setting),
    Trick(Trick),
    Clear,
    Break(Fault),
}

/// What changes until it is cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    Latency { delay: Duration, jitter: Duration },
    Bandwidth(u64),
    Slice(usize),
    Slow(u32),
    Stall { up: bool, down: bool },
    Refuse,
}

/// What happens to connections at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Reset,
    Close,
    HalfOpen,
}

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To the broker: requests.
    Up,
    /// From it: answers.
    Down,
}

/// What happens to one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trick {
    pub(super) way: Way,
    pub(super) api: Option<i16>,
    /// How many frames of it there are until then.
    pub(super) nth: u64,
    pub(super) does: Does,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    Cut { at: usize },
    Hold(Duration),
    Drop,
    Repeat,
    Flip { from_end: usize, bit: u8 },
}

impl Does {
    /// Counts what it does to a frame of so many bytes.
    pub(super) fn count(self, frame_len: usize, did: &mut Effects) {
        match self {
            Self::Cut { at } => did.cut += u64::from(at < frame_len),
            Self::Hold(_) => did.held += 1,
            Self::Drop => did.dropped += 1,
            Self::Repeat => did.repeated += 1,
            Self::Flip { from_end, .. } => did.flipped += u64::from(from_end < frame_len),
        }
    }
}

/// What faults did to a route since it was last cleared: one that did nothing has shown nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effects {
    /// Connections that were reset, closed or left half open.
    pub broken: u64,
    /// Frames cut at a byte.
    pub cut: u64,
    /// Answers held back.
    pub held: u64,
    /// Answers that did not come.
    pub dropped: u64,
    /// Answers that came twice.
    pub repeated: u64,
    /// Frames with a bit flipped.
    pub flipped: u64,
    /// Frames that came late by `latency` or `slow`.
    pub late: u64,
    /// Frames that were written in pieces.
    pub sliced: u64,
}

impl AddAssign for Effects {
    fn add_assign(&mut self, other: Self) {
        self.broken += other.broken;
        self.cut += other.cut;
        self.held += other.held;
        self.dropped += other.dropped;
        self.repeated += other.repeated;
        self.flipped += other.flipped;
        self.late += other.late;
        self.sliced += other.sliced;
    }
}

impl fmt::Display for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "broken={} cut={} held={} dropped={} repeated={} flipped={} late={} sliced={}",
            self.broken,
            self.cut,
            self.held,
            self.dropped,
            self.repeated,
            self.flipped,
            self.late,
            self.sliced
        )
    }
}

/// What a route does to its bytes.
#[derive(Debug, Default)]
pub(super) struct Toxics {
    pub(super) latency: Duration,
    pub(super) jitter: Duration,
    /// Bytes a second; 0 is unlimited.
    pub(super) bandwidth: u64,
    /// Bytes a piece; 0 is whole.
    pub(super) slice: usize,
    /// 0 and 1 are as fast as the broker.
    pub(super) slow: u32,
    pub(super) stall_up: bool,
    pub(super) stall_down: bool,
    pub(super) refuse: bool,
    pub(super) tricks: Vec<Trick>,
    pub(super) did: Effects,
}

impl Toxics {
    pub(super) fn set(&mut self, setting: Setting) {
        match setting {
            Setting::Latency { delay, jitter } => {
                self.latency = delay;
                self.jitter = jitter;
            }
            Setting::Bandwidth(bytes) => self.bandwidth = bytes,
            Setting::Slice(bytes) => self.slice = bytes,
            Setting::Slow(factor) => self.slow = factor,
            Setting::Stall { up, down } => {
                self.stall_up |= up;
                self.stall_down |= down;
            }
            Setting::Refuse => self.refuse = true,
        }
    }

    pub(super) fn stalls(&self, way: Way) -> bool {
        match way {
            Way::Up => self.stall_up,
            Way::Down => self.stall_down,
        }
    }

    /// What is to be done to this frame: every trick that counts it counts it.
    pub(super) fn tricks_for(&mut self, way: Way, api: i16) -> Vec<Does> {
        let mut now = Vec::new();
        self.tricks.retain_mut(|trick| {
            if trick.way != way || trick.api.is_some_and(|of| of != api) {
                return true;
            }
            trick.nth = trick.nth.saturating_sub(1);
            if trick.nth == 0 {
                now.push(trick.does);
            }
            trick.nth > 0
        });
        now
    }
}

/// The words of a line, one after the other.
struct Words<'a> {
    line: &'a str,
    words: SplitWhitespace<'a>,
}

impl<'a> Words<'a> {
    fn missing(&self, expected: &'static str) -> CommandError {
        CommandError::Missing {
            expected,
            line: self.line.into(),
        }
    }

    fn number<T: FromStr>(&mut self, expected: &'static str) -> Result<T, CommandError> {
        let word = self.words.next().and_then(|word| word.parse().ok());
        word.ok_or_else(|| self.missing(expected))
    }

    fn one_of<T: Copy>(
        &mut self,
        expected: &'static str,
        known: &[(&str, T)],
    ) -> Result<T, CommandError> {
        let word = self.words.next();
        known
            .iter()
            .find(|(name, _)| word == Some(name))
            .map(|(_, value)| *value)
            .ok_or_else(|| self.missing(expected))
    }

    fn api(&mut self) -> Result<Option<i16>, CommandError> {
        match self.words.next() {
            Some("any") => Ok(None),
            word => word
                .and_then(|word| word.parse().ok())
                .map(Some)
                .ok_or_else(|| self.missing("an API key, or any")),
        }
    }

    fn way(&mut self) -> Result<Way, CommandError> {
        self.one_of(
            "request or response",
            &[("request", Way::Up), ("response", Way::Down)],
        )
    }

    fn nth(&mut self) -> Result<u64, CommandError> {
        match self.number("how manieth, from 1")? {
            0 => Err(self.missing("how manieth, from 1")),
            nth => Ok(nth),
        }
    }
}

impl FromStr for Command {
    type Err = CommandError;

    fn from_str(line: &str) -> Result<Self, CommandError> {
        let mut words = Words {
            line,
            words: line.split_whitespace(),
        };
        let name = words.words.next().unwrap_or_default();
        let verb_of: fn(&mut Words<'_>) -> Result<Verb, CommandError> = match name {
            "latency" => |words| {
                let delay = Duration::from_millis(words.number("milliseconds")?);
                let jitter = words.words.next().map_or(Some(0), |word| word.parse().ok());
                let jitter = jitter.ok_or_else(|| words.missing("milliseconds of jitter"))?;
                let jitter = Duration::from_millis(jitter);
                Ok(Verb::Set(Setting::Latency { delay, jitter }))
            },
            "bandwidth" => |words| {
                let bytes = words.number("bytes a second")?;
                Ok(Verb::Set(Setting::Bandwidth(bytes)))
            },
            "slice" => |words| Ok(Verb::Set(Setting::Slice(words.number("bytes")?))),
            "slow" => |words| Ok(Verb::Set(Setting::Slow(words.number("a factor")?))),
            "stall" => |words| {
                let known = [
                    ("up", (true, false)),
                    ("down", (false, true)),
                    ("both", (true, true)),
                ];
                let (up, down) = words.one_of("up, down or both", &known)?;
                Ok(Verb::Set(Setting::Stall { up, down }))
            },
            "refuse" => |_| Ok(Verb::Set(Setting::Refuse)),
            "clear" => |_| Ok(Verb::Clear),
            "reset" => |_| Ok(Verb::Break(Fault::Reset)),
            "close" => |_| Ok(Verb::Break(Fault::Close)),
            "halfopen" => |_| Ok(Verb::Break(Fault::HalfOpen)),
            "cut" => |words| {
                Ok(Verb::Trick(Trick {
                    way: words.way()?,
                    api: words.api()?,
                    nth: words.nth()?,
                    does: Does::Cut {
                        at: words.number("a byte")?,
                    },
                }))
            },
            "hold" => |words| {
                Ok(Verb::Trick(Trick {
                    way: Way::Down,
                    api: words.api()?,
                    nth: words.nth()?,
                    does: Does::Hold(Duration::from_millis(words.number("milliseconds")?)),
                }))
            },
            "drop" => |words| {
                Ok(Verb::Trick(Trick {
                    way: Way::Down,
                    api: words.api()?,
                    nth: words.nth()?,
                    does: Does::Drop,
                }))
            },
            "repeat" => |words| {
                Ok(Verb::Trick(Trick {
                    way: Way::Down,
                    api: words.api()?,
                    nth: words.nth()?,
                    does: Does::Repeat,
                }))
            },
            "flip" => |words| {
                Ok(Verb::Trick(Trick {
                    way: words.way()?,
                    api: words.api()?,
                    nth: words.nth()?,
                    does: Does::Flip {
                        from_end: words.number("bytes before the end")?,
                        bit: words.number("a bit")?,
                    },
                }))
            },
            _ => return Err(CommandError::Unknown(line.into())),
        };
        let node = match words.words.next() {
            Some("all") => None,
            word => {
                let number = word.and_then(|word| word.parse().ok());
                Some(number.ok_or_else(|| words.missing("a node's number, or all"))?)
            }
        };
        let verb = verb_of(&mut words)?;
        if words.words.next().is_some() {
            return Err(words.missing("the end of the line"));
        }
        Ok(Self { node, verb })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_they_mean_and_others_are_refused() {
        let command: Command = "latency 2 100 20".parse().unwrap();
        assert_eq!(command.node, Some(2));
        let (delay, jitter) = (Duration::from_millis(100), Duration::from_millis(20));
        assert_eq!(command.verb, Verb::Set(Setting::Latency { delay, jitter }));
        let command: Command = "flip all request 0 3 20 7".parse().unwrap();
        assert_eq!(command.node, None);
        let does = Does::Flip {
            from_end: 20,
            bit: 7,
        };
        let trick = Trick {
            way: Way::Up,
            api: Some(0),
            nth: 3,
            does,
        };
        assert_eq!(command.verb, Verb::Trick(trick));
        for wrong in [
            "",
            "explode 1",
            "latency",
            "latency x 5",
            "latency 1",
            "stall 1 sideways",
            "cut 1 request any 0 5",
            "cut 1 request any 1",
            "drop 1 x 1",
            "reset 1 2",
        ] {
            assert!(wrong.parse::<Command>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_trick_waits_for_its_frame_and_happens_once() {
        let mut toxics = Toxics::default();
        let Verb::Trick(trick) = "drop 1 0 2".parse::<Command>().unwrap().verb else {
            panic!("a trick")
        };
        toxics.tricks.push(trick);
        assert!(toxics.tricks_for(Way::Down, 0).is_empty(), "the first");
        assert!(toxics.tricks_for(Way::Up, 0).is_empty(), "a request");
        assert!(toxics.tricks_for(Way::Down, 3).is_empty(), "another API");
        assert_eq!(toxics.tricks_for(Way::Down, 0), [Does::Drop]);
        assert!(toxics.tricks_for(Way::Down, 0).is_empty(), "once");
    }
}
