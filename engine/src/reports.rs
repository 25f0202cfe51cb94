//! What waits for the hook's thread: batches to be reported, batches to become dead letters, and dead
//! letters that failed.
//!
//! Put in by shards and by the controller, which never wait for it; taken out by the hook (`hook.rs`).
//! Every queue has a bound, and what is beyond it is counted.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use ringpost_core::outcome::{Verdict, Why};
use ringpost_core::seal::SealedBatch;
use ringpost_memory::Piece;

use crate::config::Exhausted;
use crate::dead_letter::{Letters, Origin};
use crate::driver::clock;
use crate::lane::{Lane, Ticket};
use crate::stats::DeadLetterStats;
use crate::undelivered::Undelivered;

/// What becomes of records that were not delivered.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReportSettings {
    /// There is an `on_undelivered`.
    pub(crate) hook: bool,
    pub(crate) exhausted: Exhausted,
    pub(crate) dead_letter_topic: Option<Arc<str>>,
    /// Records that expired become dead letters too.
    pub(crate) expired: bool,
    /// Records of unknown fate become dead letters too.
    pub(crate) unknown: bool,
    /// What may be held by batches that wait to become dead letters, and as much by those that wait to
    /// be reported.
    pub(crate) held_bytes_max: usize,
}

impl ReportSettings {
    /// Whether records that ended like this become dead letters, if there are any.
    fn wants_letter_of(&self, verdict: &Verdict) -> bool {
        match verdict {
            // A new checksum would make them look whole.
            Verdict::NotWritten(failure) | Verdict::Unknown(failure)
                if failure.why == Why::Damaged =>
            {
                false
            }
            Verdict::NotWritten(failure) => match failure.why {
                Why::Expired => self.expired,
                Why::Rejected | Why::RetriesExhausted | Why::Unsupported | Why::Avoided => true,
                _ => false,
            },
            Verdict::Unknown(failure) => {
                self.unknown && !matches!(failure.why, Why::Purged | Why::Closed)
            }
            Verdict::Acked { .. } | Verdict::Sent => false,
        }
    }
}

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct Reports {
    settings: ReportSettings,
    queue: Mutex<Queue>,
    /// `changed` was set.
    news: Condvar,
    dropped: AtomicU64,
    letters_written: AtomicU64,
    letters_failed: AtomicU64,
    letters_dropped: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    /// Each with the memory it holds.
    failed_letters: VecDeque<(FailedLetters, usize)>,
    reports: VecDeque<(Undelivered, usize)>,
    candidates: VecDeque<Candidate>,
    /// Memory of the candidates.
    held_bytes: usize,
    /// Memory of the reports and of the failed letters.
    reported_bytes: usize,
    /// Origins so far.
    begun: u64,
    /// Those with unsettled letters.
    unsettled: BTreeSet<u64>,
    /// Something happened since the hook last looked.
    changed: bool,
    /// Threads that may report and have not ended.
    reporters: usize,
}

/// A batch whose records become dead letters.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) origin: Arc<Origin>,
    pub(crate) batch: SealedBatch<Piece>,
    memory: usize,
}

/// A batch with dead letters that was not, or perhaps not, written.
#[derive(Debug)]
pub(crate) struct FailedLetters {
    pub(crate) letters: Letters,
    /// The rest of the batch was sent by the application, which does not wait for it.
    pub(crate) unwatched: bool,
    pub(crate) batch: Undelivered,
}

/// What becomes of a batch that was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Nothing,
    Report,
    DeadLetter,
}

impl Reports {
    /// Batches that may wait to be reported. Their memory is the producer's own until then, and whoever is
    /// told of them may wait for some: so there is a bound for that, too.
    const WAITING_MAX: usize = 256;

    pub(crate) fn new(settings: ReportSettings, reporters: usize) -> Self {
        Self {
            settings,
            queue: Mutex::new(Queue {
                failed_letters: VecDeque::new(),
                reports: VecDeque::new(),
                candidates: VecDeque::new(),
                held_bytes: 0,
                reported_bytes: 0,
                begun: 0,
                unsettled: BTreeSet::new(),
                changed: false,
                reporters,
            }),
            news: Condvar::new(),
            dropped: AtomicU64::new(0),
            letters_written: AtomicU64::new(0),
            letters_failed: AtomicU64::new(0),
            letters_dropped: AtomicU64::new(0),
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::new(ReportSettings::default(), 1)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where dead letters go.
    pub(crate) fn dead_letter_topic(&self) -> Option<&Arc<str>> {
        self.settings.dead_letter_topic.as_ref()
    }

    /// Takes a batch that was not delivered. Never waits. The dead letters in it stay unsettled until
    /// they are reported.
    pub(crate) fn undelivered(
        self: &Arc<Self>,
        lane: &Lane,
        verdict: &Verdict,
        ticket: &mut Ticket,
        batch: SealedBatch<Piece>,
    ) {
        let unwatched = self.settings.hook && ticket.is_unwatched();
        if let Some(letters) = ticket.letters.take() {
            self.letters_failed
                .fetch_add(letters.count(), Ordering::Relaxed);
            if self.settings.hook {
                let batch = Undelivered::new(lane, verdict.clone(), batch);
                let letters = *letters;
                let failed = FailedLetters {
                    letters,
                    unwatched,
                    batch,
                };
                self.put_failed_letters(failed, ticket.memory);
            }
            return;
        }
        match self.course(lane, verdict, unwatched) {
            Course::Nothing => {}
            Course::Report => {
                let batch = Undelivered::new(lane, verdict.clone(), batch);
                self.put(batch, ticket.memory);
            }
            Course::DeadLetter => self.put_candidate(lane, verdict, ticket.memory, batch),
        }
    }

    fn course(&self, lane: &Lane, verdict: &Verdict, unwatched: bool) -> Course {
        let settings = &self.settings;
        let otherwise = if unwatched {
            Course::Report
        } else {
            Course::Nothing
        };
        match settings.exhausted {
            Exhausted::Error => otherwise,
            Exhausted::Callback if settings.hook => Course::Report,
            Exhausted::Callback => Course::Nothing,
            Exhausted::DeadLetter => {
                let Some(topic) = &settings.dead_letter_topic else {
                    return otherwise;
                };
                // What fails on its way to the dead letters does not become one again.
                if settings.wants_letter_of(verdict) && **topic != *lane.topic {
                    Course::DeadLetter
                } else {
                    otherwise
                }
            }
        }
    }

    /// Dead letters were written.
    pub(crate) fn letters_written(&self, letters: &Letters) {
        self.letters_written
            .fetch_add(letters.count(), Ordering::Relaxed);
    }

    /// Dead letters could not even be made.
    pub(crate) fn letters_not_made(&self, count: u64) {
        self.letters_failed.fetch_add(count, Ordering::Relaxed);
    }

    /// Reports a batch. Never waits.
    fn put(&self, batch: Undelivered, memory: usize) {
        let mut queue = self.queue();
        if queue.reports.len() >= Self::WAITING_MAX || !self.may_hold(&queue, memory) {
            drop(queue);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.reported_bytes += memory;
        queue.reports.push_back((batch, memory));
        self.tell(queue);
    }

    /// Whether a batch may wait to be reported. One may, whatever its size.
    fn may_hold(&self, queue: &Queue, memory: usize) -> bool {
        let held = queue.reported_bytes;
        queue.reporters > 0 && (held == 0 || held + memory <= self.settings.held_bytes_max)
    }

    fn put_candidate(
        self: &Arc<Self>,
        lane: &Lane,
        verdict: &Verdict,
        memory: usize,
        batch: SealedBatch<Piece>,
    ) {
        let mut queue = self.queue();
        if queue.held_bytes + memory > self.settings.held_bytes_max || queue.reporters == 0 {
            drop(queue);
            let records = u64::from(batch.records);
            self.letters_dropped.fetch_add(records, Ordering::Relaxed);
            return;
        }
        queue.begun += 1;
        let number = queue.begun;
        queue.unsettled.insert(number);
        queue.held_bytes += memory;
        let origin = Arc::new(Origin::new(
            Arc::clone(&lane.topic),
            lane.partition,
            verdict.clone(),
            clock::wall_ms(),
            Arc::clone(self),
            number,
        ));
        queue.candidates.push_back(Candidate {
            origin,
            batch,
            memory,
        });
        self.tell(queue);
    }

    fn put_failed_letters(&self, letters: FailedLetters, memory: usize) {
        let mut queue = self.queue();
        if self.may_hold(&queue, memory) {
            queue.reported_bytes += memory;
            queue.failed_letters.push_back((letters, memory));
            self.tell(queue);
            return;
        }
        // Their origins look in here when they are dropped.
        drop(queue);
        self.dropped.fetch_add(1, Ordering::Relaxed);
        drop(letters);
    }

    fn tell(&self, mut queue: MutexGuard<'_, Queue>) {
        queue.changed = true;
        drop(queue);
        self.news.notify_one();
    }

    /// A thread that may have reported ends.
    pub(crate) fn reporter_ended(&self) {
        let mut queue = self.queue();
        queue.reporters = queue.reporters.saturating_sub(1);
        self.tell(queue);
    }

    /// All letters of an origin are settled. Whoever lets go of the last tells the flushes.
    pub(crate) fn origin_settled(&self, number: u64) {
        self.queue().unsettled.remove(&number);
    }

    /// Batches with dead letters so far.
    pub(crate) fn origins_begun(&self) -> u64 {
        self.queue().begun
    }

    /// Of those, up to this one, how many have letters that are not settled.
    pub(crate) fn origins_unsettled(&self, upto: u64) -> usize {
        self.queue().unsettled.range(..=upto).count()
    }

    pub(crate) fn take_failed_letters(&self) -> Option<FailedLetters> {
        let mut queue = self.queue();
        let (letters, memory) = queue.failed_letters.pop_front()?;
        queue.reported_bytes -= memory;
        Some(letters)
    }

    pub(crate) fn take_report(&self) -> Option<Undelivered> {
        let mut queue = self.queue();
        let (batch, memory) = queue.reports.pop_front()?;
        queue.reported_bytes -= memory;
        Some(batch)
    }

    pub(crate) fn take_candidate(&self) -> Option<Candidate> {
        let mut queue = self.queue();
        let candidate = queue.candidates.pop_front()?;
        queue.held_bytes -= candidate.memory;
        Some(candidate)
    }

    /// Waits until something happens that had not when this last returned. `false`: nobody is left
    /// who could report.
    pub(crate) fn wait(&self) -> bool {
        let queue = self.queue();
        let queue = self
            .news
            .wait_while(queue, |queue| !queue.changed && queue.reporters > 0);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.changed = false;
        queue.reporters > 0
    }

    /// Batches that could not be reported.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn dead_letters(&self) -> DeadLetterStats {
        DeadLetterStats {
            written: self.letters_written.load(Ordering::Relaxed),
            failed: self.letters_failed.load(Ordering::Relaxed),
            dropped: self.letters_dropped.load(Ordering::Relaxed),
            batches_unsettled: self.queue().unsettled.len(),
        }
    }
}

/// What the hook waits for has come.
impl Wake for Reports {
    fn wake(self: Arc<Self>) {
        let queue = self.queue();
        self.tell(queue);
    }
}

#[cfg(test)]
mod tests {
    use ringpost_core::outcome::Failure;

    use super::*;

    /// With all of `dead_letter_*` on: refused, exhausted, expired and perhaps written records become dead
    /// letters; those whose bytes were damaged in our memory never do, perhaps written or not.
    #[test]
    fn r5_damaged_records_become_no_dead_letters() {
        let settings = ReportSettings {
            expired: true,
            unknown: true,
            ..ReportSettings::default()
        };
        for (why, wanted) in [
            (Why::Rejected, true),
            (Why::RetriesExhausted, true),
            (Why::Expired, true),
            (Why::Damaged, false),
        ] {
            for verdict in [Verdict::NotWritten, Verdict::Unknown] {
                let verdict = verdict(Failure::new(why));
                assert_eq!(settings.wants_letter_of(&verdict), wanted, "{verdict:?}");
            }
        }
    }
}
