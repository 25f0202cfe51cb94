//! The one place where this crate reads a clock: for the server only.

use std::time::{SystemTime, UNIX_EPOCH};

/// Wall clock, ms since 1970.
pub(crate) fn now_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this crate's one clock")]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
