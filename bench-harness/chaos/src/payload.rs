//! What a record of the workload says about itself, so that a reader can tell where it belongs.
//!
//! Topic and partition stand inside the value because a record that lands on the wrong topic has an
//! intact batch checksum: that covers neither (KAFKA-19012). Integers are big endian:
//!
//! ```text
//! 0    4     12         16       20          24        32    40          42      len-4   len
//! │RPCH│ run │ producer │ stream │ partition │ counter │ txn │ topic len │ topic │ fill │ crc32 │
//! ```
//!
//! *stream*: the partition, for explicitly placed records; the key's number, for keyed ones; 0 for
//! records without either. Counters rise by one within (producer, stream). *partition* is -1 where
//! the producer is free to choose. *crc32* (IEEE) covers all before it.
//!
//! `scripts/verify/ChaosCheck.java` reads it.

/// The first bytes.
pub const MAGIC: &[u8; 4] = b"RPCH";
/// Where the topic's name begins.
pub const TOPIC_AT: usize = 42;

/// A record of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// The run: what an earlier one left in the topic is not ours.
    pub run: u64,
    /// The producer process.
    pub producer: u32,
    /// What the order is kept within.
    pub stream: u32,
    /// Where it must lie; -1 where the producer chooses.
    pub partition: i32,
    /// Rises by one within producer and stream.
    pub counter: u64,
    /// The transaction; 0 for none.
    pub txn: u64,
    /// The topic's name.
    pub topic: &'a str,
}

impl Payload<'_> {
    /// The fewest bytes it takes with this topic.
    #[must_use]
    pub fn len_min(topic: &str) -> usize {
        TOPIC_AT + topic.len() + 4
    }

    /// Writes it into `out`, which is cleared first, with fill up to `len` bytes.
    pub fn write(&self, len: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.run.to_be_bytes());
        out.extend_from_slice(&self.producer.to_be_bytes());
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&self.partition.to_be_bytes());
        out.extend_from_slice(&self.counter.to_be_bytes());
        out.extend_from_slice(&self.txn.to_be_bytes());
        let topic = self.topic.as_bytes();
        // Kafka's names have at most 249 bytes.
        out.extend_from_slice(&u16::try_from(topic.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(topic);
        // Not all alike, so that a shifted or foreign piece does not look right.
        let mut fill = self.counter.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(self.stream);
        while out.len() + 4 < len {
            fill ^= fill << 13;
            fill ^= fill >> 7;
            fill ^= fill << 17;
            out.push(fill.to_be_bytes()[0]);
        }
        let crc = crc32fast::hash(out);
        out.extend_from_slice(&crc.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_the_reader_expects() {
        let payload = Payload {
            run: 0x0102_0304_0506_0708,
            producer: 9,
            stream: 10,
            partition: -1,
            counter: 11,
            txn: 12,
            topic: "abc",
        };
        let mut bytes = vec![1; 3];
        payload.write(0, &mut bytes);
        let mut expected = b"RPCH\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x09\0\0\0\x0a".to_vec();
        expected
            .extend_from_slice(b"\xff\xff\xff\xff\0\0\0\0\0\0\0\x0b\0\0\0\0\0\0\0\x0c\0\x03abc");
        expected.extend_from_slice(&crc32fast::hash(&expected).to_be_bytes());
        assert_eq!(bytes, expected);
        assert_eq!(bytes.len(), Payload::len_min("abc"));
        payload.write(100, &mut bytes);
        assert_eq!(bytes.len(), 100);
        let (body, crc) = bytes.split_at(96);
        assert_eq!(crc, crc32fast::hash(body).to_be_bytes());
    }
}
