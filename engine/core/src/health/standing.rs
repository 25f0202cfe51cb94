//! How a lane stands for records that may go anywhere: published by its shard, read by appenders.
//!
//! ```
//! use ringpost_core::health::{Standing, View};
//! let view = View::new(Standing::Suspect, 10, 3, 2_500);
//! assert_eq!(view.standing(), Standing::Suspect);
//! assert_eq!((view.weight(), view.broker(), view.cost()), (10, 3, 2_500));
//! assert_eq!(View::from_bits(view.to_bits()), view);
//! ```

/// How a lane stands, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Standing {
    /// Nothing is known against it.
    #[default]
    Good = 0,
    /// Its broker failed or is slow just now, or is on probation; or the lane itself is being tried
    /// again. Records that may go anywhere go elsewhere, if there is an elsewhere.
    Suspect = 1,
    /// Its broker answers, but is avoided: it is much slower than the others, or most of what it is
    /// asked fails.
    Avoided = 2,
    /// Its broker cannot be reached or does not answer.
    Dead = 3,
    /// Nobody leads the partition.
    NoLeader = 4,
}

/// What an appender is told of a lane, in one word: standing, weight, broker, cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View(u64);

impl View {
    /// What is assumed of a lane until its shard has said something.
    pub const UNTOLD: Self = Self::new(Standing::Good, 100, u16::MAX, 0);

    /// Of a lane that nobody leads, or nobody serves.
    pub const NOBODY: Self = Self::new(Standing::NoLeader, 100, u16::MAX, 0);

    /// `weight` in percent: less than 100 while a broker comes back. `broker` tells endpoints apart.
    /// `cost` is how long a record is expected to take, in microseconds.
    #[must_use]
    pub const fn new(standing: Standing, weight: u8, broker: u16, cost: u32) -> Self {
        Self(standing as u64 | (weight as u64) << 8 | (broker as u64) << 16 | (cost as u64) << 32)
    }

    /// How the lane stands.
    #[inline]
    #[must_use]
    pub const fn standing(self) -> Standing {
        match self.0 & 0xff {
            0 => Standing::Good,
            1 => Standing::Suspect,
            2 => Standing::Avoided,
            3 => Standing::Dead,
            _ => Standing::NoLeader,
        }
    }

    /// Its part of what a lane in full health gets, in percent.
    #[must_use]
    pub const fn weight(self) -> u8 {
        self.0.to_le_bytes()[1]
    }

    /// Tells the endpoints behind lanes apart.
    #[must_use]
    pub const fn broker(self) -> u16 {
        let bytes = self.0.to_le_bytes();
        u16::from_le_bytes([bytes[2], bytes[3]])
    }

    /// How long a record is expected to take there, in microseconds.
    #[must_use]
    pub const fn cost(self) -> u32 {
        let bytes = self.0.to_le_bytes();
        u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]])
    }

    /// For an atomic.
    #[inline]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// From an atomic.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}
