//! Keys of records, drawn before the clock starts: in the loop a key is two array reads.

use crate::number::{count, float, index};
use crate::plan::Keys;
use crate::random::Random;

/// Bytes of a key: `key-` and eight digits.
const KEY_BYTES: usize = 12;
/// Draws kept for small key sets; larger ones get four draws a key, up to the most.
const DRAWS_MIN: u64 = 1 << 16;
const DRAWS_MAX: u64 = 1 << 22;
const SEED: u64 = 0x6b65_7973;

/// The keys of a run, or none.
#[derive(Debug, Default)]
pub struct Keyring {
    /// All keys end to end.
    bytes: Vec<u8>,
    /// Which key the n-th record has; its length is a power of two.
    draws: Vec<u32>,
}

impl Keyring {
    /// Draws the keys.
    pub fn new(keys: Keys) -> Self {
        let (keys, weights) = match keys {
            Keys::None => return Self::default(),
            Keys::Uniform(keys) => (keys, None),
            Keys::Zipf(keys, exponent) => (keys, Some(cumulative(keys, exponent))),
        };
        let bytes = (0..keys)
            .flat_map(|key| format!("key-{key:08}").into_bytes())
            .collect();
        let mut random = Random::new(SEED);
        let draws = (keys * 4).next_power_of_two().clamp(DRAWS_MIN, DRAWS_MAX);
        let draws = (0..draws)
            .map(|_| {
                let key = match &weights {
                    None => random.below(keys),
                    Some(weights) => {
                        let at = random.unit() * weights.last().copied().unwrap_or(0.0);
                        count(weights.partition_point(|sum| *sum <= at)).min(keys - 1)
                    }
                };
                u32::try_from(key).unwrap_or(0) // at most 10 million, by the setting's range
            })
            .collect();
        Self { bytes, draws }
    }

    /// The key of the n-th record of a sender.
    #[inline]
    pub fn key(&self, record: usize) -> Option<&[u8]> {
        if self.draws.is_empty() {
            return None;
        }
        let key = self.draws[record & (self.draws.len() - 1)];
        let start = usize::try_from(key).unwrap_or(0) * KEY_BYTES;
        Some(&self.bytes[start..start + KEY_BYTES])
    }

    /// Bytes of every key.
    pub fn key_bytes(&self) -> usize {
        if self.draws.is_empty() { 0 } else { KEY_BYTES }
    }
}

/// Running sums of 1 / i^s.
fn cumulative(keys: u64, exponent: f64) -> Vec<f64> {
    let mut sums = Vec::with_capacity(index(keys));
    let mut sum = 0.0;
    for rank in 1..=keys {
        sum += float(rank).powf(-exponent);
        sums.push(sum);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(keys: Keys, of: usize) -> Vec<f64> {
        let ring = Keyring::new(keys);
        let mut seen = vec![0.0; of];
        for record in 0..65_536 {
            let key = std::str::from_utf8(ring.key(record).expect("a key")).expect("text");
            seen[key[4..].parse::<usize>().expect("digits")] += 1.0 / 65_536.0;
        }
        seen
    }

    #[test]
    fn no_keys() {
        assert_eq!(Keyring::new(Keys::None).key(7), None);
    }

    #[test]
    fn uniform_keys_are_equally_likely() {
        for share in shares(Keys::Uniform(10), 10) {
            assert!((share - 0.1).abs() < 0.01, "{share}");
        }
        assert_eq!(shares(Keys::Uniform(1), 1).len(), 1);
    }

    #[test]
    fn zipf_keys_have_its_weights() {
        let shares = shares(Keys::Zipf(100, 1.0), 100);
        let harmonic: f64 = (1..=100).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1u32, 2, 10] {
            let expected = 1.0 / f64::from(rank) / harmonic;
            let share = shares[usize::try_from(rank).expect("small") - 1];
            assert!(
                (share / expected - 1.0).abs() < 0.1,
                "{rank}: {share} for {expected}"
            );
        }
    }
}
