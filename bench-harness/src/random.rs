//! A small seeded generator for corpora, keys and arrivals: the same seed gives the same run.

use crate::number::float;

/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state, good enough for payloads.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator that always gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`; 0 when the bound is 0. (Modulo: the bias does not matter here.)
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits().checked_rem(bound).unwrap_or(0)
    }

    /// A float in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        float(self.bits() >> 11) / 9_007_199_254_740_992.0
    }
}
