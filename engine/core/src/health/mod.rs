//! Broker avoidance: what is measured of each broker, what is made of it, and where records go that
//! may go anywhere. Records with a key or an explicit partition never move.
//!
//! Owned by a shard's dispatcher: each shard has its own connections and judges by them alone; when
//! it ejects a broker it tells the others, who become suspicious. Files, from the measurement to the
//! decision: `decay`, `ewma`, `histogram`, `window` measure; `blame` says whose fault an outcome is;
//! `endpoint` is one broker with its breaker; `table` all of them, compared; `standing` what
//! appenders are told; `choice` where a batch goes.
//!
//! After Envoy's outlier detection, Finagle's failure accrual and peak-EWMA balancer, and
//! [KIP-794](https://cwiki.apache.org/confluence/display/KAFKA/KIP-794%3A+Strictly+Uniform+Sticky+Partitioner).

mod blame;
mod choice;
mod decay;
mod endpoint;
mod ewma;
mod histogram;
mod settings;
mod standing;
mod table;
mod window;

pub use blame::{Scope, scope};
pub use choice::{Routes, TOLERANCE, cheaper_elsewhere, choose};
pub use endpoint::Reason;
pub use settings::HealthSettings;
pub use standing::{Standing, View};
pub use table::Record;

pub(crate) use blame::{Says, sum_up};
pub(crate) use table::{Gate, Glimpse, Table, Turn};
