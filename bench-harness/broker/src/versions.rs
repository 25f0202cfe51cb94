//! Which versions of which API the broker serves and advertises.
//!
//! The default is what Apache Kafka 4.3 says for the APIs modelled here. Like it, Produce is
//! *advertised* from v0 but *served* from v3 only (KAFKA-18659: librdkafka reads features off the
//! advertised minimum).

use std::collections::BTreeMap;

use kafka_protocol::messages::ApiKey;

/// A table of API → (lowest, highest) version.
///
/// ```
/// use ringpost_broker::{ApiKey, Versions};
/// // A broker of the time of Kafka 2.1: no flexible versions, no topic ids.
/// let old = Versions::default().with(ApiKey::Produce, 0, 7).with(ApiKey::Metadata, 0, 7);
/// assert!(old.serves(ApiKey::Produce, 7));
/// assert!(!old.serves(ApiKey::Produce, 8));
/// assert!(!old.serves(ApiKey::Produce, 2)); // advertised, never served
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions(BTreeMap<i16, (i16, i16)>);

/// (API, lowest advertised, highest advertised, lowest the model can serve).
const MODELLED: [(ApiKey, i16, i16, i16); 7] = [
    (ApiKey::Produce, 0, 13, 3),
    (ApiKey::Fetch, 4, 18, 4),
    (ApiKey::ListOffsets, 1, 10, 1),
    (ApiKey::Metadata, 0, 13, 0),
    (ApiKey::FindCoordinator, 0, 6, 0),
    (ApiKey::ApiVersions, 0, 4, 0),
    (ApiKey::InitProducerId, 0, 5, 0),
];

impl Default for Versions {
    fn default() -> Self {
        Self(
            MODELLED
                .iter()
                .map(|&(api, low, high, _)| (api as i16, (low, high)))
                .collect(),
        )
    }
}

impl Versions {
    /// The same table with another range for one API. A range the model cannot serve is cut to
    /// what it can; an API it does not know stays unknown.
    #[must_use]
    pub fn with(mut self, api: ApiKey, low: i16, high: i16) -> Self {
        if let Some(&(_, least, most, _)) = MODELLED.iter().find(|row| row.0 == api) {
            self.0.insert(api as i16, (low.max(least), high.min(most)));
        }
        self
    }

    /// The same table without one API.
    #[must_use]
    pub fn without(mut self, api: ApiKey) -> Self {
        self.0.remove(&(api as i16));
        self
    }

    /// Whether a request of this API and version is worked on.
    #[must_use]
    pub fn serves(&self, api: ApiKey, version: i16) -> bool {
        let least = MODELLED
            .iter()
            .find(|row| row.0 == api)
            .map_or(0, |row| row.3);
        self.0
            .get(&(api as i16))
            .is_some_and(|&(low, high)| (low.max(least)..=high).contains(&version))
    }

    /// Every API with its lowest and highest version, by API key: what ApiVersions answers.
    pub fn advertised(&self) -> impl Iterator<Item = (i16, i16, i16)> + '_ {
        self.0.iter().map(|(&key, &(low, high))| (key, low, high))
    }
}
