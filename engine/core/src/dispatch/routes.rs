//! Which lane goes to which connection: what metadata says, and how a lane moves.

use alloc::sync::Arc;
use core::mem;
use core::net::SocketAddr;

use crate::buffer::Memory;
use crate::canary::{Canary, planted};
use crate::connection::{Connection, State};
use crate::id::{BrokerId, LaneId, PartitionId, Sequence, TopicId};
use crate::limits;
use crate::metadata::{Cluster, is_news};
use crate::retry::Tokens;
use crate::time::Time;
use crate::timer::{ConnectionTimer, Timer};

use super::lane::Lane;
use super::narrow::Narrow;
use super::supply::Backlog;
use super::{BrokerEntry, Dispatcher, TopicEntry};

impl<M: Memory, T> Dispatcher<M, T> {
    /// Makes a lane known. Its leader comes with the next [`Dispatcher::metadata`]. Its appenders may
    /// have been faster, and [`Dispatcher::lane_ready`] come when the lane was not known yet: so the
    /// next step looks at what it holds.
    pub fn add_lane(&mut self, id: LaneId, topic: &Arc<str>, partition: PartitionId) {
        let topic = self.topic_index(topic);
        if self.lanes.len() <= id.index() {
            self.lanes.resize_with(id.index() + 1, || None);
        }
        self.lanes[id.index()] = Some(Lane::new(topic, partition));
        self.views_changed = true;
        self.note_source(id, Backlog::Busy);
    }

    pub(super) fn topic_index(&mut self, name: &Arc<str>) -> usize {
        self.topics
            .iter()
            .position(|topic| topic.name == *name)
            .unwrap_or_else(|| {
                self.topics.push(TopicEntry {
                    name: Arc::clone(name),
                    id: TopicId::default(),
                    narrow: None,
                });
                self.topics.len() - 1
            })
    }

    /// Takes in a new snapshot of the cluster.
    pub fn metadata(&mut self, now: Time, cluster: &Cluster) {
        if let Some(id) = &cluster.cluster_id {
            let before = self.cluster_id.replace(Arc::clone(id));
            if before.is_some_and(|before| before != *id) {
                // What another cluster told says nothing of this one, which has nothing of us yet. Its
                // producer ids neither: the same number is, or will be, somebody else's.
                self.identity = None;
                for index in 0..self.lanes.len() {
                    let id = LaneId(u32::try_from(index).unwrap_or(u32::MAX));
                    let Some(lane) = self.lanes[index].as_mut() else {
                        continue;
                    };
                    lane.leader_epoch = -1;
                    lane.proven = false;
                    lane.broken |= lane.identity.is_some();
                    self.drained(now, id);
                }
                let known = self.topics.iter_mut().filter_map(|t| t.narrow.as_mut());
                known.for_each(Narrow::forget);
            }
        }
        for (id, broker) in &cluster.brokers {
            self.update_broker(now, *id, &broker.addresses);
        }
        for (index, topic) in self.topics.iter_mut().enumerate() {
            let Some(known) = cluster.topics.get(&topic.name) else {
                continue;
            };
            let before = mem::replace(&mut topic.id, known.id);
            if before == known.id || !before.is_known() || !known.id.is_known() {
                continue;
            }
            // Made anew: its leader epochs count from the start, and it has nothing of us yet.
            topic.narrow.iter_mut().for_each(Narrow::forget);
            for lane in self.lanes.iter_mut().flatten() {
                if lane.topic == index {
                    lane.leader_epoch = -1;
                    lane.proven = false;
                }
            }
        }
        for index in 0..self.lanes.len() {
            let Some(lane) = &self.lanes[index] else {
                continue;
            };
            let topic = &self.topics[lane.topic];
            let partition = cluster.topics.get(&topic.name).and_then(|topic| {
                topic
                    .partitions
                    .get(usize::try_from(lane.partition.0).ok()?)
            });
            // A topic that is missing for a while keeps its lanes, queues and sequences: a
            // restarting broker may deny what it is about to load.
            let Some(partition) = partition else {
                if planted(Canary::SequenceStateDropped)
                    && let Some(lane) = self.lanes[index].as_mut()
                {
                    lane.next_sequence = Sequence(0);
                }
                continue;
            };
            if !is_news(partition.leader_epoch, lane.leader_epoch) {
                continue;
            }
            let (leader, epoch) = (partition.leader, partition.leader_epoch);
            let id = LaneId(u32::try_from(index).unwrap_or(u32::MAX));
            self.assign(now, id, leader, epoch);
        }
        for place in 0..self.brokers.len() {
            let gone = |id| !cluster.brokers.contains_key(&id);
            if !cluster.brokers.is_empty() && self.brokers[place].id.is_some_and(gone) {
                self.forget_broker(now, place);
            }
        }
        if self.settings.eager {
            for index in 0..self.connections.len() {
                if self
                    .lanes
                    .iter()
                    .flatten()
                    .any(|lane| lane.connection == Some(index))
                {
                    self.want_connection(now, index);
                }
            }
        }
    }

    pub(super) fn update_broker(&mut self, now: Time, id: BrokerId, addresses: &[SocketAddr]) {
        let per_broker = self.settings.connections_per_broker;
        let Some(index) = self.place_of_broker(id) else {
            self.add_broker(now, id, addresses);
            return;
        };
        if !addresses.is_empty() && self.brokers[index].addresses != addresses {
            let before = mem::replace(&mut self.brokers[index].addresses, addresses.to_vec());
            for connection in index * per_broker..(index + 1) * per_broker {
                if before.is_empty() && matches!(self.connections[connection].state, State::Resting)
                {
                    // It rests for want of an address, and now there is one.
                    let timer = Timer::Connection(connection, ConnectionTimer::Reconnect);
                    self.timers.set(timer, now);
                }
                self.leave_stale_address(now, connection);
            }
        }
    }

    /// A broker more: at the place of one that is gone, or behind the others.
    fn add_broker(&mut self, now: Time, id: BrokerId, addresses: &[SocketAddr]) {
        let per_broker = self.settings.connections_per_broker;
        let entry = BrokerEntry {
            id: Some(id),
            addresses: addresses.to_vec(),
            tokens: Tokens::FULL,
            hosts: false,
            wanted: false,
            invites: None,
        };
        if let Some(free) = self.brokers.iter().position(|broker| broker.id.is_none()) {
            self.brokers[free] = entry;
            for connection in free * per_broker..(free + 1) * per_broker {
                self.connections[connection].broker = id;
            }
            return;
        }
        if self.connections.len() + per_broker >= limits::CONNECTIONS_MAX {
            // A cluster of that size is a mistake or an attack; what is known stays usable.
            return;
        }
        self.brokers.push(entry);
        self.health.add(now);
        for _ in 0..per_broker {
            self.connections.push(Connection::new(id));
        }
    }

    /// Gives the lane a leader, or takes it away. While batches of the lane are in flight it stays
    /// with its connection: a second broker must not see later batches before the first has
    /// answered for the earlier.
    pub(super) fn assign(&mut self, now: Time, id: LaneId, leader: Option<BrokerId>, epoch: i32) {
        let connection = leader.and_then(|leader| {
            let broker = self.place_of_broker(leader)?;
            let per_broker = self.settings.connections_per_broker;
            Some(broker * per_broker + id.index() % per_broker)
        });
        let Some(lane) = self.lanes[id.index()].as_mut() else {
            return;
        };
        lane.leader_epoch = epoch;
        lane.target = connection;
        if lane.in_flight == 0 && lane.connection != connection {
            self.move_lane(id);
        }
        self.list(now, id);
    }

    pub(super) fn move_lane(&mut self, id: LaneId) {
        let Some(lane) = self.lanes[id.index()].as_mut() else {
            return;
        };
        lane.connection = lane.target;
        self.strike(id);
        self.routes_changed = true;
        self.views_changed = true;
        self.rescue = true;
    }

    /// Which connection a lane's records go to just now.
    #[must_use]
    pub fn connection_of(&self, lane: LaneId) -> Option<usize> {
        self.lanes.get(lane.index())?.as_ref()?.connection
    }
}
