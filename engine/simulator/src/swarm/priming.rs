//! Sequences that begin near their end.
//!
//! A lane counts its records from 0, and nobody waits for 2³¹ of them. So before anything else each lane
//! gets a batch that claims to hold that many, up to a few, and the driver says that it is stored; no broker
//! hears of it. To the brokers the batch behind it is the first of its producer, which may have any
//! sequence. The lane waits until its proof is too old to be believed, as after a long rest, and sends
//! that batch alone: it is not told of a producer that the broker does not know.

use ringpost_codec::kafka::header::{self, RequestHeader};
use ringpost_codec::kafka::produce;
use ringpost_codec::reader::Reader;
use ringpost_core::connection::ConnId;
use ringpost_core::limits;

use crate::setup::ms;

use super::run::{Run, tell};
use super::token::{self, TokenPiece};

impl Run {
    /// Every lane has had as many records as the knobs say.
    pub(super) fn prime(&mut self) -> Result<(), String> {
        if self.knobs.first_sequence == 0 {
            return Ok(());
        }
        let topics = self.topics.len();
        let all = move |run: &Self| {
            let known = run.known.keys().map(|(topic, _)| topic);
            let known = known.collect::<std::collections::BTreeSet<_>>().len();
            known == topics && run.primed == run.lanes.len()
        };
        if !self.run_until(self.now + ms(10_000), all)? {
            return Err(format!(
                "{} of {} lanes are primed after ten seconds without a fault",
                self.primed,
                self.lanes.len()
            ));
        }
        self.run_until(self.now + limits::PROOF_LASTS + ms(100), |_| false)?;
        self.priming = false;
        Ok(())
    }

    /// What the driver says to a request while lanes are primed: that it was sent, and stored.
    pub(super) fn pretend(&mut self, shard: usize, conn: ConnId, pieces: Vec<TokenPiece>) {
        let len = pieces
            .iter()
            .map(|piece| ringpost_core::buffer::Piece::bytes(piece).len())
            .sum();
        let mut frame = Vec::with_capacity(len);
        token::read(&pieces, 0..len, &mut frame);
        token::returned(&pieces);
        tell!(
            self,
            "shard {shard} {conn:?} is told that {len} bytes are stored"
        );
        let now = self.now;
        let shard = &mut self.shards[shard];
        shard.touched = true;
        shard.dispatcher.sent(now, conn, len);
        shard.dispatcher.released(conn, pieces);
        shard.dispatcher.received(now, conn, &stored(&frame));
    }
}

/// The answer to a request all of whose batches are stored.
fn stored(frame: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(&frame[4..]);
    let asked = RequestHeader::read(&mut reader).expect("our own request");
    let view = produce::decode_request(asked.version, reader.rest()).expect("our own request");
    let topics = view.topics().map(|topic| produce::TopicResult {
        topic: topic.topic,
        partitions: topic
            .partitions
            .map(|asked| produce::PartitionResult::written(asked.partition, 0))
            .collect(),
    });
    let response = produce::Response {
        topics: topics.collect(),
        ..produce::Response::default()
    };
    let mut out = Vec::new();
    header::put_response(
        &mut out,
        asked.api_key,
        asked.version,
        asked.correlation_id,
        |writer| response.write(asked.version, writer).expect("spoken"),
    );
    out
}
