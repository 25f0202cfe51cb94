//! What avoidance can be told.

use core::time::Duration;

/// When a broker is avoided and for how long. The defaults are those of the plan; each can be set by
/// its name, `health.tau` and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthSettings {
    /// `health`: whether brokers are avoided at all. Off, only a missing leader counts.
    pub on: bool,
    /// `health.tau`: how fast a peak of the service time is forgotten; eight times as fast while answers
    /// show that it is over.
    pub tau: Duration,
    /// `health.tick`: how often the oldest request in flight is looked at.
    pub tick: Duration,
    /// `health.cf`: so many failures in a row eject a broker.
    pub consecutive_failures: u32,
    /// `health.stall`: a request unanswered for so long ejects its broker, if others answer.
    pub stall: Duration,
    /// `health.slow_ratio`: a broker is slow at so many times the median of all,
    pub slow_ratio: u32,
    /// `health.slow_floor`: and this long at least.
    pub slow_floor: Duration,
    /// `health.min_volume`: so many outcomes within the window before a rate means something.
    pub volume_min: u32,
    /// `health.window`: over which success is counted.
    pub window: Duration,
    /// `health.eject_base`: how long a broker is ejected the first time; doubles each time.
    pub eject_base: Duration,
    /// `health.eject_max`: how long at most.
    pub eject_max: Duration,
    /// `health.probe_successes`: so many answered probes end an ejection.
    pub probe_successes: u32,
    /// `health.slow_start`: over which a broker that came back gets its full share again.
    pub slow_start: Duration,
    /// `health.max_eject`: at most so many percent of the brokers are ejected.
    pub eject_percent_max: u8,
    /// `health.panic`: with fewer good lanes than so many percent, avoided ones are used too.
    pub panic_percent: u8,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            on: true,
            tau: Duration::from_secs(5),
            tick: Duration::from_millis(50),
            consecutive_failures: 3,
            stall: Duration::from_secs(2),
            slow_ratio: 8,
            slow_floor: Duration::from_millis(250),
            volume_min: 20,
            window: Duration::from_secs(10),
            eject_base: Duration::from_millis(500),
            eject_max: Duration::from_secs(30),
            probe_successes: 2,
            slow_start: Duration::from_secs(5),
            eject_percent_max: 50,
            panic_percent: 34,
        }
    }
}
