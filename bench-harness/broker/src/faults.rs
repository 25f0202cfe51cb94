//! What shall go wrong: a script of errors, lost answers and cut connections.
//!
//! Tests own the script; the broker takes from it one entry per request (by API) and one per
//! produced batch (by topic and partition). An empty script costs one comparison per request.
//!
//! ```
//! use ringpost_broker::{ApiKey, Broker, BrokerConfig, ErrorCode, PartitionFault, RequestFault};
//! let mut broker = Broker::new(BrokerConfig::default());
//! // The first batch for orders/0 is written, but the client hears otherwise; the second is fine.
//! broker.faults().next_batch("orders", 0, PartitionFault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT));
//! // The third Metadata request gets no answer.
//! broker.faults().next_request(ApiKey::Metadata, None);
//! broker.faults().next_request(ApiKey::Metadata, None);
//! broker.faults().next_request(ApiKey::Metadata, Some(RequestFault::Silence));
//! ```

use std::collections::{BTreeMap, VecDeque};

use kafka_protocol::messages::ApiKey;
use ringpost_codec::kafka::ErrorCode;

/// What goes wrong with one whole request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFault {
    /// Nothing is done and the connection is closed.
    CloseBefore,
    /// The request is done, the connection is closed without an answer.
    CloseAfter,
    /// The request is done, the first so many bytes of the answer leave, the connection is closed.
    CutAnswer(usize),
    /// Nothing is done, no answer ever comes, the connection stays open.
    Ignore,
    /// The request is done, no answer ever comes, the connection stays open.
    Silence,
    /// The request is done, its answer (and so everything behind it) leaves so many ms later.
    Delay(i64),
    /// Nothing is done; every error field of the answer carries this code.
    Error(ErrorCode),
}

/// What goes wrong with one batch of a Produce request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionFault {
    /// Not appended; the answer carries this code.
    ErrorBefore(ErrorCode),
    /// Appended; the answer carries this code all the same.
    ErrorAfter(ErrorCode),
    /// Not appended; the partition is left out of the answer.
    OmitBefore,
    /// Appended; the partition is left out of the answer.
    OmitAfter,
    /// Not appended; `NOT_LEADER_OR_FOLLOWER` with the leader to go to (a field from Produce v10).
    Moved {
        /// The node the client is sent to.
        leader_id: i32,
        /// Its leader epoch.
        leader_epoch: i32,
    },
}

/// What a client is told of its quota, and what is done about it (KIP-219).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// The answers' throttle time.
    pub ms: i32,
    /// Whether the node works on nothing more of a connection for that long after an answer, as
    /// Kafka does.
    pub enforced: bool,
}

/// A queue of entries for the next occasions, and what happens after them.
#[derive(Debug)]
struct Script<F> {
    next: VecDeque<Option<F>>,
    afterwards: Option<F>,
}

impl<F> Default for Script<F> {
    fn default() -> Self {
        Self {
            next: VecDeque::new(),
            afterwards: None,
        }
    }
}

impl<F: Copy> Script<F> {
    fn is_empty(&self) -> bool {
        self.next.is_empty() && self.afterwards.is_none()
    }

    fn take(&mut self) -> Option<F> {
        self.next.pop_front().unwrap_or(self.afterwards)
    }
}

/// The script of one [`crate::Broker`]. See the module's page for an example.
#[derive(Debug, Default)]
pub struct Faults {
    requests: BTreeMap<i16, Script<RequestFault>>,
    batches: BTreeMap<String, BTreeMap<i32, Script<PartitionFault>>>,
    nodes: BTreeMap<i32, PartitionFault>,
    slow: BTreeMap<i32, i64>,
    clients: BTreeMap<String, Throttle>,
    /// Put into every answer's throttle field, in ms. The broker itself does not wait.
    pub throttle_ms: i32,
}

impl Faults {
    /// Queues what happens to the next request of `api` not spoken for yet; `None` lets it pass.
    pub fn next_request(&mut self, api: ApiKey, fault: Option<RequestFault>) {
        self.requests
            .entry(api as i16)
            .or_default()
            .next
            .push_back(fault);
    }

    /// What happens to every request of `api` once its queue is empty; `None` ends that.
    pub fn every_request(&mut self, api: ApiKey, fault: Option<RequestFault>) {
        self.requests.entry(api as i16).or_default().afterwards = fault;
    }

    /// Queues what happens to the next batch for (topic, partition) not spoken for yet.
    pub fn next_batch(
        &mut self,
        topic: &str,
        partition: i32,
        fault: impl Into<Option<PartitionFault>>,
    ) {
        self.batch_script(topic, partition)
            .next
            .push_back(fault.into());
    }

    /// What happens to every batch for (topic, partition) once its queue is empty.
    pub fn every_batch(
        &mut self,
        topic: &str,
        partition: i32,
        fault: impl Into<Option<PartitionFault>>,
    ) {
        self.batch_script(topic, partition).afterwards = fault.into();
    }

    /// What happens to every batch that a node is sent, where the partition's own script says
    /// nothing; `None` ends that.
    pub fn every_batch_of_node(&mut self, node_id: i32, fault: impl Into<Option<PartitionFault>>) {
        match fault.into() {
            Some(fault) => self.nodes.insert(node_id, fault),
            None => self.nodes.remove(&node_id),
        };
    }

    /// Makes a node slow: it takes so many ms for each request, one after the other per connection;
    /// 0 ends that.
    pub fn slow_node(&mut self, node_id: i32, delay_ms: i64) {
        if delay_ms > 0 {
            self.slow.insert(node_id, delay_ms);
        } else {
            self.slow.remove(&node_id);
        }
    }

    /// Throttles one client, by the id in its requests; `None` ends that.
    pub fn throttle_client(&mut self, client_id: &str, throttle: impl Into<Option<Throttle>>) {
        match throttle.into() {
            Some(throttle) => self.clients.insert(client_id.to_owned(), throttle),
            None => self.clients.remove(client_id),
        };
    }

    /// Whether every queued entry has been used, and nothing happens to every request or batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let scripts = self.batches.values().flat_map(BTreeMap::values);
        self.requests.values().all(Script::is_empty)
            && scripts.into_iter().all(Script::is_empty)
            && self.nodes.is_empty()
            && self.slow.is_empty()
            && self.clients.is_empty()
    }

    /// Forgets the whole script: everything works again.
    pub fn heal(&mut self) {
        *self = Self::default();
    }

    fn batch_script(&mut self, topic: &str, partition: i32) -> &mut Script<PartitionFault> {
        self.batches
            .entry(topic.to_owned())
            .or_default()
            .entry(partition)
            .or_default()
    }

    /// What happens to a request at a node: what its API's script says, or that the node is slow.
    pub(crate) fn take_request(&mut self, api: ApiKey, node_id: i32) -> Option<RequestFault> {
        let scripted = match self.requests.is_empty() {
            true => None,
            false => self.requests.get_mut(&(api as i16)).and_then(Script::take),
        };
        scripted.or_else(|| Some(RequestFault::Delay(*self.slow.get(&node_id)?)))
    }

    pub(crate) fn of_node(&self, node_id: i32) -> Option<PartitionFault> {
        self.nodes.get(&node_id).copied()
    }

    /// How a client is throttled.
    pub(crate) fn throttle_of(&self, client_id: Option<&str>) -> Throttle {
        let everyone = Throttle {
            ms: self.throttle_ms,
            enforced: false,
        };
        if self.clients.is_empty() {
            return everyone;
        }
        let own = client_id.and_then(|id| self.clients.get(id));
        own.copied().unwrap_or(everyone)
    }

    pub(crate) fn take_batch(&mut self, topic: &str, partition: i32) -> Option<PartitionFault> {
        if self.batches.is_empty() {
            return None;
        }
        self.batches.get_mut(topic)?.get_mut(&partition)?.take()
    }
}
