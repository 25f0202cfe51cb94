//! What a simulated record's value holds: enough to say of any bytes found anywhere whose they are
//! and where they belong.
//!
//! ```text
//!   run u64 | lane u32 | partition i32, −1 for anywhere | topic u32 | number u64 | filler | crc32 of all before
//! ```
//!
//! A batch's own checksum covers neither topic nor partition; this one does.

/// The shortest value.
pub const LEN_MIN: usize = 32;

/// Who a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    /// The seed of the run.
    pub run: u64,
    /// The lane it was appended to.
    pub lane: u32,
    /// The partition it belongs to; `None` when it may go to any of its topic.
    pub partition: Option<i32>,
    /// The topic it belongs to.
    pub topic: u32,
    /// Its place among the records of its lane.
    pub number: u64,
}

impl Payload {
    /// Writes a value of `len` bytes, at least [`LEN_MIN`], over `out`.
    pub fn write(&self, len: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.run.to_be_bytes());
        out.extend_from_slice(&self.lane.to_be_bytes());
        out.extend_from_slice(&self.partition.unwrap_or(-1).to_be_bytes());
        out.extend_from_slice(&self.topic.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        // Every third record has a filler that does not compress.
        let mut filler = self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.run;
        let [stays, ..] = filler.to_le_bytes();
        for _ in LEN_MIN..len {
            if self.number.is_multiple_of(3) {
                filler = filler.rotate_left(7).wrapping_mul(0x2545_f491_4f6c_dd1d);
            }
            let [byte, ..] = filler.to_le_bytes();
            out.push(if self.number.is_multiple_of(3) {
                byte
            } else {
                stays
            });
        }
        let crc = crc32fast::hash(out);
        out.extend_from_slice(&crc.to_be_bytes());
    }

    /// Reads a value back; `None` when it is damaged.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<Self> {
        let (body, crc) = value.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let (run, rest) = body.split_first_chunk::<8>()?;
        let (lane, rest) = rest.split_first_chunk::<4>()?;
        let (partition, rest) = rest.split_first_chunk::<4>()?;
        let (topic, rest) = rest.split_first_chunk::<4>()?;
        let (number, _) = rest.split_first_chunk::<8>()?;
        let partition = i32::from_be_bytes(*partition);
        Some(Self {
            run: u64::from_be_bytes(*run),
            lane: u32::from_be_bytes(*lane),
            partition: (partition >= 0).then_some(partition),
            topic: u32::from_be_bytes(*topic),
            number: u64::from_be_bytes(*number),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_any_flipped_bit_is_seen() {
        for (number, partition) in [(0, Some(3)), (7, None), (9, Some(0))] {
            let payload = Payload {
                run: 77,
                lane: 4,
                partition,
                topic: 2,
                number,
            };
            let mut value = Vec::new();
            payload.write(60, &mut value);
            assert_eq!(value.len(), 60);
            assert_eq!(Payload::read(&value), Some(payload));
            for bit in 0..value.len() * 8 {
                let mut flipped = value.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Payload::read(&flipped), None);
            }
        }
        assert_eq!(Payload::read(&[0xDD; 60]), None);
    }
}
