//! A broker that answers what it was asked, with whatever content the input chooses.

use arbitrary::{Result, Unstructured};
use ringpost_codec::kafka::api_versions::{self, ApiRange};
use ringpost_codec::kafka::header::{self, RequestHeader};
use ringpost_codec::kafka::{ApiKey, ErrorCode, init_producer_id, metadata, produce};
use ringpost_codec::reader::Reader;

/// What a broker of this run offers and says.
#[derive(Debug)]
pub(super) struct Broker {
    pub(super) produce_max: i16,
    pub(super) metadata_max: i16,
    pub(super) partitions: i32,
    pub(super) nodes: i32,
    next_offset: i64,
    next_id: i64,
}

pub(super) const TOPIC: &str = "t";
/// What a broker may say in an error.
const WORDS: [&str; 4] = ["", "no", "\u{1b}[2J\0", "\u{fffd}\n\r\""];
const TOPIC_ID: [u8; 16] = [7; 16];

impl Broker {
    pub(super) fn draw(input: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self {
            produce_max: input.int_in_range(3..=13)?,
            metadata_max: input.int_in_range(1..=13)?,
            partitions: input.int_in_range(1..=4)?,
            nodes: input.int_in_range(1..=3)?,
            next_offset: 0,
            next_id: 0,
        })
    }

    /// A whole answer to a whole request, both with their lengths. `strange`: the input chooses what
    /// it says; otherwise it is what a good broker says.
    pub(super) fn answer(
        &mut self,
        request: &[u8],
        strange: bool,
        input: &mut Unstructured<'_>,
    ) -> Result<Vec<u8>> {
        let mut reader = Reader::new(&request[4..]);
        let asked = RequestHeader::read(&mut reader).expect("our own request");
        let (api, version) = (asked.api_key, asked.version);
        let mut out = Vec::new();
        let mut result = Ok(());
        header::put_response(&mut out, api, version, asked.correlation_id, |writer| {
            result = match api {
                ApiKey::API_VERSIONS => self
                    .versions(strange, input)
                    .map(|it| it.write(version, writer).expect("spoken")),
                ApiKey::METADATA => self
                    .metadata(strange, input)
                    .map(|it| it.write(version, writer).expect("spoken")),
                ApiKey::INIT_PRODUCER_ID => self
                    .producer_id(strange, input)
                    .map(|it| it.write(version, writer).expect("spoken")),
                _ => {
                    let view =
                        produce::decode_request(version, reader.rest()).expect("our own request");
                    self.produced(&view, strange, input)
                        .map(|it| it.write(version, writer).expect("spoken"))
                }
            };
        });
        result.map(|()| out)
    }

    fn versions(
        &self,
        strange: bool,
        input: &mut Unstructured<'_>,
    ) -> Result<api_versions::Response> {
        let range = |api_key, min, max| ApiRange { api_key, min, max };
        let mut response = api_versions::Response {
            ranges: vec![
                range(ApiKey::PRODUCE, 0, self.produce_max),
                range(ApiKey::METADATA, 0, self.metadata_max),
                range(ApiKey::API_VERSIONS, 0, 4),
                range(ApiKey::INIT_PRODUCER_ID, 0, 5),
            ],
            ..api_versions::Response::default()
        };
        if strange {
            response.error = code(input)?;
            for range in &mut response.ranges {
                if input.ratio(1, 4)? {
                    range.max = input.arbitrary()?;
                    range.min = input.arbitrary()?;
                }
            }
            let kept = input.int_in_range(0..=response.ranges.len())?;
            response.ranges.truncate(kept);
            response.throttle_time_ms = input.arbitrary()?;
        }
        Ok(response)
    }

    fn metadata(&self, strange: bool, input: &mut Unstructured<'_>) -> Result<metadata::Response> {
        let broker = |id: i32| metadata::Broker {
            id,
            host: format!("10.0.0.{id}"),
            port: 9092,
            rack: None,
        };
        let partition = |index: i32| metadata::Partition {
            index,
            leader: 1 + index % self.nodes,
            leader_epoch: 1,
            ..metadata::Partition::default()
        };
        let mut response = metadata::Response {
            brokers: (1..=self.nodes).map(broker).collect(),
            cluster_id: Some("c".into()),
            topics: vec![metadata::Topic {
                name: Some(TOPIC.into()),
                id: TOPIC_ID,
                partitions: (0..self.partitions).map(partition).collect(),
                ..metadata::Topic::default()
            }],
            ..metadata::Response::default()
        };
        if !strange {
            return Ok(response);
        }
        for broker in &mut response.brokers {
            match input.int_in_range(0..=5)? {
                0 => broker.id = input.arbitrary()?,
                1 => broker.port = input.arbitrary()?,
                2 => broker.host = format!("host-{}", input.arbitrary::<u8>()?),
                3 => broker.host = input.arbitrary::<&str>()?.to_owned(),
                _ => {}
            }
        }
        let topic = &mut response.topics[0];
        for partition in &mut topic.partitions {
            match input.int_in_range(0..=5)? {
                0 => partition.leader = input.int_in_range(-1..=4)?,
                1 => partition.leader_epoch = input.int_in_range(-2..=9)?,
                2 => partition.index = input.arbitrary()?,
                3 => partition.error = code(input)?,
                _ => {}
            }
        }
        match input.int_in_range(0..=9)? {
            0 => topic.error = code(input)?,
            1 => topic.id = input.arbitrary()?,
            2 => topic.name = Some(input.arbitrary::<&str>()?.to_owned()),
            3 => topic.partitions.clear(),
            4 => response.error = code(input)?,
            5 => response.topics.clear(),
            6 => response.cluster_id = Some(input.arbitrary::<&str>()?.to_owned()),
            7 => response.brokers.clear(),
            _ => {}
        }
        Ok(response)
    }

    fn producer_id(
        &mut self,
        strange: bool,
        input: &mut Unstructured<'_>,
    ) -> Result<init_producer_id::Response> {
        self.next_id += 1;
        let mut response = init_producer_id::Response {
            producer_id: self.next_id,
            producer_epoch: 0,
            ..init_producer_id::Response::default()
        };
        if strange {
            response.error = code(input)?;
            response.producer_id = input.arbitrary()?;
            response.producer_epoch = input.arbitrary()?;
        }
        Ok(response)
    }

    fn produced<'a>(
        &mut self,
        view: &produce::RequestView<'a>,
        strange: bool,
        input: &mut Unstructured<'_>,
    ) -> Result<produce::Response<'a>> {
        let mut response = produce::Response::default();
        for topic in view.topics() {
            let mut partitions = Vec::new();
            for asked in topic.partitions {
                self.next_offset += 1000;
                let mut result =
                    produce::PartitionResult::written(asked.partition, self.next_offset);
                if strange {
                    result.error = code(input)?;
                    match input.int_in_range(0..=7)? {
                        0 => result.partition = input.int_in_range(-1..=5)?,
                        1 => {
                            result.current_leader = Some(produce::CurrentLeader {
                                leader_id: input.int_in_range(-1..=5)?,
                                leader_epoch: input.int_in_range(-1..=9)?,
                            });
                        }
                        2 => result.error_message = Some(*input.choose(&WORDS)?),
                        3 => result.base_offset = input.arbitrary()?,
                        4 => result.log_append_time_ms = input.arbitrary()?,
                        5 => continue, // leaves it out
                        6 => partitions.push(result.clone()),
                        _ => {}
                    }
                }
                partitions.push(result);
            }
            response.topics.push(produce::TopicResult {
                topic: topic.topic,
                partitions,
            });
        }
        if strange {
            match input.int_in_range(0..=5)? {
                0 => response.throttle_time_ms = input.arbitrary()?,
                1 => response.node_endpoints.push(produce::NodeEndpoint {
                    node_id: input.int_in_range(-1..=9)?,
                    host: "10.0.0.9",
                    port: input.arbitrary()?,
                    rack: None,
                }),
                2 => response.topics.clear(),
                _ => {}
            }
        }
        Ok(response)
    }
}

/// Mostly one of Kafka's, every other time none at all.
fn code(input: &mut Unstructured<'_>) -> Result<ErrorCode> {
    Ok(match input.int_in_range(0..=7)? {
        0..=3 => ErrorCode::NONE,
        4 => ErrorCode(input.arbitrary()?),
        _ => *input.choose(ErrorCode::ALL)?,
    })
}
