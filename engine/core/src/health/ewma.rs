//! A moving average of service times that jumps up to a peak at once and comes down slowly: by `e` in tau
//! as long as nothing is known, and eight times as fast while answers show that it is over. A broker that
//! answers has its hiccups forgiven soon, and one that is left alone for its slowness is not soon taken
//! for as good as one that just had a hiccup.

use core::time::Duration;

use crate::time::Time;

use super::decay::{part, remaining};

/// See the module's doc.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PeakEwma {
    nanos: u64,
    at: Time,
}

impl PeakEwma {
    const FASTER_WITH_ANSWERS: u32 = 8;

    /// A request took so long.
    pub(super) fn sample(&mut self, now: Time, took: Duration, tau: Duration) {
        let took = Time::nanos(took);
        if took < self.nanos {
            let tau = tau / Self::FASTER_WITH_ANSWERS;
            let left = remaining(now.since(self.at), half_life(tau));
            self.nanos = took + part(self.nanos - took, left);
        } else {
            self.nanos = took;
        }
        self.at = now;
    }

    /// A request takes so long already. Says nothing unless it is more than is known.
    pub(super) fn at_least(&mut self, now: Time, age: Duration) {
        let age = Time::nanos(age);
        if age > self.nanos {
            self.nanos = age;
            self.at = now;
        }
    }

    /// Nothing is asked: what was is forgotten.
    pub(super) fn forget(&mut self, now: Time, tau: Duration) {
        self.nanos = part(self.nanos, remaining(now.since(self.at), half_life(tau)));
        self.at = now;
    }

    pub(super) fn get(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// Nothing but this counts.
    pub(super) fn set(&mut self, now: Time, took: Duration) {
        self.nanos = Time::nanos(took);
        self.at = now;
    }
}

/// `tau · ln 2`.
fn half_life(tau: Duration) -> Duration {
    Duration::from_nanos(part(Time::nanos(tau), 2_977_044_472))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAU: Duration = Duration::from_secs(5);

    /// A longer answer counts at once, shorter ones bring it down to 1/e in an eighth of tau, and nothing
    /// does in tau; a censored sample only raises it.
    #[test]
    fn v2_it_jumps_up_and_comes_down_by_e_in_tau() {
        let ms = Duration::from_millis;
        let mut ewma = PeakEwma::default();
        ewma.sample(Time(0), ms(1), TAU);
        ewma.sample(Time(0), ms(101), TAU);
        assert_eq!(ewma.get(), ms(101));
        for n in 1..=625_u64 {
            ewma.sample(Time(n * 1_000_000), ms(1), TAU);
        }
        // 1 ms + 100 ms / e.
        let left = ewma.get().as_micros();
        assert!((36_500..39_000).contains(&left), "{left}");
        ewma.at_least(Time(5_000_000_000), ms(20));
        assert_eq!(ewma.get().as_micros(), left, "less says nothing");
        ewma.at_least(Time(5_000_000_000), ms(2000));
        assert_eq!(ewma.get(), ms(2000));
        ewma.forget(Time(10_000_000_000), TAU);
        assert!(
            (730..740).contains(&ewma.get().as_millis()),
            "{:?}",
            ewma.get()
        );
    }
}
