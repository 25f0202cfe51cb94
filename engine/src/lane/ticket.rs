//! Who waits for a batch, and what they are told.

use std::sync::Arc;

use ringpost_core::outcome::Verdict;

use crate::completions::Tags;
use crate::dead_letter::Letters;
use crate::delivery::Promise;
/// Who waits for a batch.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    pub(crate) completion: Option<Promise>,
    pub(crate) tagged: Option<Tags>,
    /// Records nobody waits for.
    pub(crate) posted: u32,
    /// Which of the records are dead letters.
    pub(crate) letters: Option<Box<Letters>>,
    /// What the batch holds of the producer's memory.
    pub(crate) memory: usize,
    /// The batch's number in its lane, from 1.
    pub(crate) ordinal: u64,
    /// Held by all parts of a batch that was divided.
    pub(crate) divided: Option<Arc<()>>,
}

impl Ticket {
    /// Whether there are records nobody waits for: posted, or their delivery was dropped.
    pub(crate) fn is_unwatched(&self) -> bool {
        let dropped = |completion: &Promise| completion.has_dropped_shares();
        self.posted > 0 || self.completion.as_ref().is_some_and(dropped)
    }

    /// The batch is divided: what belongs to its first `at` records stays, the rest is given back.
    pub(crate) fn divide(&mut self, at: u32) -> Self {
        // What each holds is not known exactly; together they hold what they held.
        let memory = self.memory / 2;
        self.memory -= memory;
        Self {
            memory,
            letters: self
                .letters
                .as_mut()
                .map(|letters| Box::new(letters.divide(at))),
            completion: self.completion.as_mut().map(|promise| promise.divide(at)),
            tagged: self.tagged.as_mut().map(|tags| tags.divide(at)),
            // Which of them were posted is not known: each part may have some.
            posted: self.posted,
            ordinal: self.ordinal,
            divided: Some(Arc::clone(self.divided.get_or_insert_default())),
        }
    }

    /// Whether all other parts of its batch have their verdict, and so the batch with this one. To be
    /// asked once.
    pub(crate) fn is_last_part(&mut self) -> bool {
        let divided = self.divided.take();
        divided.is_none_or(|parts| Arc::into_inner(parts).is_some())
    }

    /// Tells all who wait. Returns how many of their wakers panicked.
    /// `partition` is where the batch went, which may not be where its records were appended.
    pub(crate) fn settle(self, partition: i32, verdict: Verdict) -> u64 {
        if let Some(tagged) = self.tagged {
            tagged.keep(partition, verdict.clone());
        }
        let completion = self.completion;
        completion.map_or(0, |completion| completion.keep(partition, verdict))
    }
}
