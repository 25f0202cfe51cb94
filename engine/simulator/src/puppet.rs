//! The directory with a broker that says whatever a test wants.

use std::net::SocketAddr;
use std::sync::Arc;

use ringpost_codec::kafka::api_versions::{self, ApiRange};
use ringpost_codec::kafka::header::{self, RequestHeader};
use ringpost_codec::kafka::metadata::Response;
use ringpost_codec::kafka::{ApiKey, ErrorCode, init_producer_id};
use ringpost_codec::reader::Reader;
use ringpost_core::connection::ConnId;
use ringpost_core::directory::{Directory, Task, TopicError};
use ringpost_core::id::ProducerIdentity;
use ringpost_core::metadata::Cluster;
use ringpost_core::time::Time;

use crate::setup::{Setup, ms};
use crate::world::Tamper;

/// A directory, and a broker on strings: it is connected at once, and answers what it is told to.
#[derive(Debug)]
pub struct Puppet {
    /// The real one.
    pub directory: Directory,
    /// It is so late.
    pub now: Time,
    /// What Metadata is answered with.
    pub metadata: Response,
    /// The newest version of it that is offered.
    pub metadata_newest: i16,
    /// What InitProducerId is answered with.
    pub identity: init_producer_id::Response,
    /// Done to the next answer to InitProducerId, length and all.
    pub spoil_identity: Option<fn(&mut Vec<u8>)>,
    /// What the directory last published.
    pub published: Option<Arc<Cluster>>,
    /// What came of asking for producer ids.
    pub identities: Vec<Result<ProducerIdentity, ErrorCode>>,
    /// So many connections were closed by the directory.
    pub closed: u32,
    /// Where it connected to.
    pub connects: Vec<SocketAddr>,
    /// So many requests came.
    pub questions: u32,
    /// Topics that were given up.
    pub failed: Vec<TopicError>,
    /// Answers are handed to the directory changed by this.
    pub tamper: Option<Tamper>,
}

impl Puppet {
    /// A directory that wants topic `t`.
    pub fn new(metadata: Response) -> Self {
        let mut directory = Directory::new(Setup::new(1).directory, 1);
        let now = Time(1_000_000);
        directory.want(now, &"t".into());
        Self {
            directory,
            now,
            metadata,
            metadata_newest: 13,
            identity: init_producer_id::Response::default(),
            spoil_identity: None,
            published: None,
            identities: Vec::new(),
            closed: 0,
            connects: Vec::new(),
            questions: 0,
            failed: Vec::new(),
            tamper: None,
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: std::time::Duration) {
        let end = self.now + time;
        loop {
            self.directory.step(self.now);
            while let Some(task) = self.directory.poll_task() {
                self.perform(task);
            }
            let next = self.directory.next_deadline();
            if next > end {
                self.now = end;
                return;
            }
            self.now = next.max(self.now + ms(1));
        }
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Connect { conn, address } => {
                self.connects.push(address);
                self.directory.connected(conn);
            }
            Task::Send { conn, frame } => self.answer(conn, &frame),
            Task::Publish(cluster) => self.published = Some(cluster),
            Task::Identity { result, .. } => self.identities.push(result),
            Task::Close { .. } => self.closed += 1,
            Task::Failed { error, .. } => self.failed.push(error),
            Task::Resolve { .. } | Task::ClusterChanged { .. } | Task::HostRefused { .. } => {}
        }
    }

    fn answer(&mut self, conn: ConnId, frame: &[u8]) {
        self.questions += 1;
        let asked = RequestHeader::read(&mut Reader::new(&frame[4..])).expect("a header");
        let (api, version) = (asked.api_key, asked.version);
        let mut out = Vec::new();
        header::put_response(&mut out, api, version, asked.correlation_id, |writer| {
            match api {
                ApiKey::API_VERSIONS => {
                    let range = |api_key, max| ApiRange {
                        api_key,
                        min: 0,
                        max,
                    };
                    let offered = api_versions::Response {
                        ranges: vec![
                            range(ApiKey::PRODUCE, 13),
                            range(ApiKey::METADATA, self.metadata_newest),
                            range(ApiKey::INIT_PRODUCER_ID, 4),
                        ],
                        ..api_versions::Response::default()
                    };
                    offered.write(version, writer)
                }
                ApiKey::METADATA => self.metadata.write(version, writer),
                _ => self.identity.write(version, writer),
            }
            .expect("an agreed version");
        });
        if api == ApiKey::INIT_PRODUCER_ID
            && let Some(spoil) = self.spoil_identity.take()
        {
            spoil(&mut out);
        }
        if let Some(tamper) = &mut self.tamper {
            tamper.change(&mut out);
        }
        self.directory.received(self.now, conn, &out);
    }
}
