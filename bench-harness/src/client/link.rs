//! A blocking connection to one broker, for what needs no speed: finding leaders, asking for a
//! producer id or the end of a log; and for the `null` client, whose whole point is a plain socket.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use ringpost_codec::error::DecodeError;
use ringpost_codec::kafka::header::{
    RequestHeader, put_request, read_correlation_id, read_response_rest,
};
use ringpost_codec::kafka::{ApiKey, ErrorCode, init_producer_id, metadata};
use ringpost_codec::reader::Reader;

/// Classic forms, which brokers since 2.4 speak.
const METADATA_VERSION: i16 = 8;
const INIT_PRODUCER_ID_VERSION: i16 = 1;
/// How we call ourselves.
pub(crate) const CLIENT_ID: &str = "ringpost-bench";
/// Largest answer taken.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How long a broker may take to accept a connection or to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks at a topic that is being made.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// Why a broker is of no use, with the address in it.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

/// A blocking connection to one broker.
#[derive(Debug)]
pub(crate) struct Link {
    socket: TcpStream,
    pub(crate) address: String,
    pub(crate) id: i32,
    /// Bytes read, of which those before `start` are used.
    buffer: Vec<u8>,
    start: usize,
    /// Calls into the kernel since somebody last took this.
    pub(crate) entries: u64,
}

impl Link {
    pub(crate) fn connect(address: &str) -> Result<Self, Broken> {
        let broken = |error: io::Error| Broken(format!("{address}: {error}"));
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for resolved in address.to_socket_addrs().map_err(broken)? {
            match TcpStream::connect_timeout(&resolved, PATIENCE) {
                Ok(socket) => {
                    socket.set_nodelay(true).map_err(broken)?;
                    socket.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
                    socket.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
                    let (buffer, address) = (Vec::new(), address.to_owned());
                    return Ok(Self {
                        socket,
                        address,
                        id: 0,
                        buffer,
                        start: 0,
                        entries: 0,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(broken(last))
    }

    fn broken(&self, error: &io::Error) -> Broken {
        Broken(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("{}: no answer in {} s", self.address, PATIENCE.as_secs())
            }
            _ => format!("{}: {error}", self.address),
        })
    }

    pub(crate) fn write(&mut self, mut pieces: &mut [IoSlice<'_>]) -> Result<(), Broken> {
        // Pieces that are empty from the start would end the loop below too late.
        IoSlice::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            self.entries += 1;
            match self.socket.write_vectored(pieces) {
                Ok(0) => return Err(self.broken(&ErrorKind::WriteZero.into())),
                Ok(written) => IoSlice::advance_slices(&mut pieces, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
        Ok(())
    }

    /// Reads until `len` unused bytes are there.
    fn fill(&mut self, len: usize) -> Result<(), Broken> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        while self.buffer.len() < len {
            let had = self.buffer.len();
            self.buffer.resize(had + 4096, 0);
            self.entries += 1;
            let read = self.socket.read(&mut self.buffer[had..]);
            self.buffer.truncate(had + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(Broken(format!("{}: closed the connection", self.address))),
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    return Err(self.broken(&error));
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The body of the next answer, which must be the one to `id`.
    pub(crate) fn answer(
        &mut self,
        api_key: ApiKey,
        version: i16,
        id: i32,
    ) -> Result<&[u8], Broken> {
        if self.buffer.len() - self.start < 4 {
            self.fill(4)?;
        }
        let length = &self.buffer[self.start..self.start + 4];
        let length = u32::from_be_bytes(length.try_into().unwrap_or_default());
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > ANSWER_BYTES_MAX {
            let what = format!(
                "{}: not Kafka, or broken: an answer of {length} bytes",
                self.address
            );
            return Err(Broken(what));
        }
        if self.buffer.len() - self.start < 4 + length {
            self.fill(4 + length)?;
        }
        let from = self.start + 4;
        self.start = from + length;
        let mut reader = Reader::new(&self.buffer[from..self.start]);
        let head = |reader: &mut Reader<'_>| -> Result<i32, DecodeError> {
            let id = read_correlation_id(reader)?;
            read_response_rest(reader, api_key, version)?;
            Ok(id)
        };
        let answered = head(&mut reader)
            .map_err(|error| Broken(format!("{}: not Kafka, or broken: {error}", self.address)))?;
        if answered != id {
            let what = format!("{}: answered {answered} where {id} was asked", self.address);
            return Err(Broken(what));
        }
        Ok(reader.rest())
    }

    /// Sends one small request and waits for its answer's body.
    pub(crate) fn ask(
        &mut self,
        api_key: ApiKey,
        version: i16,
        body: impl FnOnce(&mut ringpost_codec::writer::Writer<'_>) -> Result<(), DecodeError>,
    ) -> Result<&[u8], Broken> {
        self.id = self.id.wrapping_add(1);
        let header = RequestHeader {
            api_key,
            version,
            correlation_id: self.id,
            client_id: Some(CLIENT_ID),
        };
        let mut out = Vec::new();
        let mut written = Ok(());
        put_request(&mut out, &header, |writer| written = body(writer));
        written.map_err(|error| Broken(format!("{api_key} v{version}: {error}")))?;
        self.write(&mut [IoSlice::new(&out)])?;
        self.answer(api_key, version, self.id)
    }

    pub(crate) fn producer_id(&mut self) -> Result<(i64, i16), Broken> {
        let request = init_producer_id::Request::default();
        // A broker that has just started may not have its coordinator yet.
        retried(|| {
            let address = self.address.clone();
            let body = self.ask(
                ApiKey::INIT_PRODUCER_ID,
                INIT_PRODUCER_ID_VERSION,
                |writer| request.write(INIT_PRODUCER_ID_VERSION, writer),
            )?;
            let response =
                init_producer_id::Response::read(INIT_PRODUCER_ID_VERSION, &mut Reader::new(body))
                    .map_err(|error| Broken(format!("{address}: a broken answer: {error}")))?;
            Ok(if response.error.is_ok() {
                Ok((response.producer_id, response.producer_epoch))
            } else {
                Err(format!(
                    "{address}: no producer id: {}",
                    said(response.error)
                ))
            })
        })
    }
}

/// An error code's name.
pub(crate) fn said(error: ErrorCode) -> String {
    error
        .name()
        .map_or_else(|| format!("error {}", error.0), str::to_owned)
}

/// Asks again until the answer is good or the patience is at its end.
pub(crate) fn retried<T>(
    mut ask: impl FnMut() -> Result<Result<T, String>, Broken>,
) -> Result<T, Broken> {
    let tries = PATIENCE.as_millis() / RETRY_EVERY.as_millis();
    for _ in 1..tries {
        if let Ok(good) = ask()? {
            return Ok(good);
        }
        thread::park_timeout(RETRY_EVERY);
    }
    ask()?.map_err(Broken)
}

/// The leaders of the topic's partitions, by the first broker that answers.
pub(crate) fn find_leaders(
    brokers: &[String],
    topic: &str,
) -> Result<Vec<(String, Vec<i32>)>, String> {
    let mut faults = Vec::new();
    for broker in brokers {
        match leaders_by(broker, topic) {
            Ok(leaders) => return Ok(leaders),
            Err(Broken(fault)) => faults.push(fault),
        }
    }
    Err(faults.join("; "))
}

fn leaders_by(broker: &str, topic: &str) -> Result<Vec<(String, Vec<i32>)>, Broken> {
    let mut link = Link::connect(broker)?;
    let request = metadata::Request {
        topics: Some(&[topic]),
        allow_auto_topic_creation: true,
    };
    retried(|| {
        let body = link.ask(ApiKey::METADATA, METADATA_VERSION, |writer| {
            request.write(METADATA_VERSION, writer)
        })?;
        let response = metadata::Response::read(METADATA_VERSION, &mut Reader::new(body))
            .map_err(|error| Broken(format!("{broker}: not Kafka, or broken: {error}")))?;
        let Some(found) = response.topics.first() else {
            return Ok(Err(format!("{broker}: does not know topic {topic}")));
        };
        if !found.error.is_ok() {
            return Ok(Err(format!(
                "{broker}: topic {topic}: {}",
                said(found.error)
            )));
        }
        let mut leaders: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for partition in &found.partitions {
            if !partition.error.is_ok() || partition.leader < 0 {
                let partition = partition.index;
                return Ok(Err(format!(
                    "{broker}: partition {partition} has no leader"
                )));
            }
            leaders
                .entry(partition.leader)
                .or_default()
                .push(partition.index);
        }
        let named: Option<Vec<_>> = leaders
            .into_iter()
            .map(|(leader, partitions)| {
                let broker = response.brokers.iter().find(|broker| broker.id == leader)?;
                Some((format!("{}:{}", broker.host, broker.port), partitions))
            })
            .collect();
        Ok(match named {
            Some(named) if !named.is_empty() => Ok(named),
            _ => Err(format!(
                "{broker}: topic {topic} has no partition with a known leader"
            )),
        })
    })
}
