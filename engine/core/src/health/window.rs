//! How often a broker succeeded lately: counts of the last ten slots of time.

use core::time::Duration;

use crate::time::Time;

const SLOTS: u32 = 10;

/// See the module's doc.
#[derive(Debug, Clone, Default)]
pub(super) struct SuccessWindow {
    slots: [Slot; SLOTS as usize],
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    number: u64,
    good: u32,
    bad: u32,
}

impl SuccessWindow {
    pub(super) fn count(&mut self, now: Time, window: Duration, good: bool) {
        let number = number(now, window);
        let place = usize::try_from(number % u64::from(SLOTS)).unwrap_or(0);
        let slot = &mut self.slots[place];
        if slot.number != number {
            *slot = Slot {
                number,
                ..Slot::default()
            };
        }
        let counted = if good { &mut slot.good } else { &mut slot.bad };
        *counted = counted.saturating_add(1);
    }

    /// Successes and failures within the window.
    pub(super) fn totals(&self, now: Time, window: Duration) -> (u32, u32) {
        let number = number(now, window);
        let recent = self
            .slots
            .iter()
            .filter(|slot| number.saturating_sub(slot.number) < u64::from(SLOTS));
        recent.fold((0, 0), |(good, bad), slot| {
            (good.saturating_add(slot.good), bad.saturating_add(slot.bad))
        })
    }
}

fn number(now: Time, window: Duration) -> u64 {
    now.0 / Time::nanos(window / SLOTS).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Successes and failures count while they are in the window, and not a moment longer.
    #[test]
    fn v9_what_is_older_than_the_window_does_not_count() {
        let window = Duration::from_secs(10);
        let at = |seconds: u64| Time(seconds * 1_000_000_000);
        let mut counts = SuccessWindow::default();
        counts.count(at(100), window, true);
        counts.count(at(105), window, false);
        counts.count(at(105), window, false);
        assert_eq!(counts.totals(at(109), window), (1, 2));
        assert_eq!(counts.totals(at(110), window), (0, 2));
        counts.count(at(115), window, true);
        assert_eq!(counts.totals(at(115), window), (1, 0));
        assert_eq!(counts.totals(at(500), window), (0, 0));
    }
}
