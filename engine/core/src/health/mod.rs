//! Broker avoidance: what is measured of each broker, what is made of it, and where records go that
//! may go anywhere. Records with a key or an explicit partition never move.

mod choice;
mod settings;
mod standing;

pub use choice::{Routes, TOLERANCE, choose};
pub use settings::HealthSettings;
pub use standing::{Standing, View};
