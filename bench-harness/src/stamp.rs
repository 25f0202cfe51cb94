//! Two times in the one `u64` tag a record carries to its completion: when it was *meant* to be
//! sent and when it *was* sent.
//!
//! ```text
//!  63                                26 25    21 20                  0
//! +------------------------------------+--------+--------------------+
//! | sent time in units of 256 ns (38)  | exp (5)| lag mantissa (21)  |
//! +------------------------------------+--------+--------------------+
//! ```
//! `sent` reaches 19 hours. The lag (sent − intended) is exact to 2 ms and has 20 significant bits
//! above, up to weeks, so no debt of a sender, however large, is ever cut short.

/// A packed pair of times, in nanoseconds of the run's [`Clock`](crate::clock::Clock).
///
/// ```
/// use ringpost_bench::stamp::Stamp;
/// let stamp = Stamp::new(1_000_000, 1_002_560);
/// let (response, service) = stamp.latencies(2_002_560);
/// assert!(service - 1_000_000 < 256);
/// assert_eq!(response, service + 2_560);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64);

/// Sent times are kept in units of `1 << SENT_SHIFT` ns.
const SENT_SHIFT: u32 = 8;
const LAG_BITS: u32 = 26;
const MANTISSA_BITS: u32 = 21;
const MANTISSA_MASK: u64 = (1 << MANTISSA_BITS) - 1;
const LAG_MASK: u64 = (1 << LAG_BITS) - 1;

/// The longest run whose stamps do not overflow, warm-up and drain included.
pub const RUN_LIMIT_NS: u64 = 1 << (64 - LAG_BITS + SENT_SHIFT);

impl Stamp {
    /// A record meant for `intended_ns` and sent at `sent_ns` (not earlier).
    #[inline]
    pub fn new(intended_ns: u64, sent_ns: u64) -> Self {
        let lag = sent_ns.saturating_sub(intended_ns);
        let exponent = (64 - lag.leading_zeros())
            .saturating_sub(MANTISSA_BITS)
            .min(31);
        let mantissa = (lag >> exponent).min(MANTISSA_MASK);
        let lag = (u64::from(exponent) << MANTISSA_BITS) | mantissa;
        Self(((sent_ns >> SENT_SHIFT) << LAG_BITS) | lag)
    }

    /// The stamp back from a completion's tag.
    #[inline]
    pub fn from_tag(tag: u64) -> Self {
        Self(tag)
    }

    /// The tag to send with the record.
    #[inline]
    pub fn tag(self) -> u64 {
        self.0
    }

    /// `(response, service)` in ns for an ack seen at `acked_ns`: intended → ack and sent → ack.
    #[inline]
    pub fn latencies(self, acked_ns: u64) -> (u64, u64) {
        let sent = (self.0 >> LAG_BITS) << SENT_SHIFT;
        let lag = self.0 & LAG_MASK;
        let lag = (lag & MANTISSA_MASK) << (lag >> MANTISSA_BITS);
        let service = acked_ns.saturating_sub(sent);
        (service.saturating_add(lag), service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_of_any_size_survives() {
        for lag in [
            0,
            1,
            255,
            2_000_000,
            2_097_151,
            2_097_152,
            1_000_000_000,
            3_600_000_000_000,
        ] {
            let sent = 4_000_000_000_000;
            let (response, service) = Stamp::new(sent - lag, sent).latencies(sent + 512);
            assert!((512..768).contains(&service), "{service}");
            let seen = response - service;
            assert!(
                seen <= lag && lag - seen <= lag >> 20,
                "{lag} became {seen}"
            );
        }
    }

    #[test]
    fn a_tag_is_the_whole_stamp() {
        let stamp = Stamp::new(5, RUN_LIMIT_NS - 1);
        assert_eq!(Stamp::from_tag(stamp.tag()), stamp);
        assert_eq!(stamp.latencies(RUN_LIMIT_NS).1, 256);
    }

    #[test]
    fn an_ack_before_the_send_is_zero_not_huge() {
        assert_eq!(Stamp::new(10_000, 10_000).latencies(5_000), (0, 0));
    }
}
