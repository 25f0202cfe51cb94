//! What came in, and what was wrong with it.

/// One partition's share of a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionReport {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// First offset Fetch can read.
    pub start_offset: i64,
    /// The offset the next record gets: as many records were appended.
    pub next_offset: i64,
    /// Records appended.
    pub records: u64,
    /// Bytes of the batches appended, their headers included.
    pub bytes: u64,
}

/// Counters since the broker was made.
///
/// A run without faults is clean when [`Report::is_clean`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Records appended.
    pub records: u64,
    /// Batches appended.
    pub batches: u64,
    /// Produce requests worked on.
    pub requests: u64,
    /// Bytes of the batches appended, their headers included.
    pub bytes: u64,
    /// Records known to be missing from the log. From sequence numbers: those before a batch that
    /// had to be refused, as long as they have not come. With numbered records
    /// ([`crate::numbering`]): numbers below the highest that no partition holds (the larger of
    /// the two is given).
    pub lost: u64,
    /// Records appended twice. Seen with numbered records only: by sequence numbers a batch cannot
    /// be appended twice.
    pub duplicated: u64,
    /// Records appended behind a later one of the same stream and partition. Seen with numbered
    /// records only.
    pub reordered: u64,
    /// Batches refused because they are damaged (CRC, structure, counts), and numbered records
    /// whose numbers make no sense.
    pub corrupt: u64,
    /// Batches that came again after they had been written, and were answered with their first
    /// offset: retries after a lost answer. Not an error.
    pub retries_recognised: u64,
    /// Batches refused for their place in the sequence.
    pub out_of_sequence: u64,
    /// Batches answered with any error, the refused ones above and scripted faults included.
    pub refused: u64,
    /// Records cut off logs: a leader had them, and its successor had not.
    pub truncated: u64,
    /// Those among them that had been committed: lost by an unclean election, or with
    /// the last copy in sync.
    pub truncated_committed: u64,
    /// Every partition, by topic name and number.
    pub partitions: Vec<PartitionReport>,
}

impl Report {
    /// Nothing lost, duplicated, reordered or corrupt.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0 && self.corrupt == 0
    }

    /// The offset the next record of a partition gets; `None` when there is no such partition.
    #[must_use]
    pub fn next_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        self.partitions
            .iter()
            .find(|p| p.topic == topic && p.partition == partition)
            .map(|p| p.next_offset)
    }
}
