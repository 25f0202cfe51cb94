//! Sending many records at once.

use std::sync::Arc;

use super::Topic;
use super::offer::NotTaken;
use super::route::OfThread;
use crate::error::TrySendError;
use crate::lane::Bound;
use crate::record::Record;

/// How far [`Topic::extend`] came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extended<'a> {
    /// Records that were taken, from the front.
    pub taken: usize,
    /// The first that was not, and why.
    pub refused: Option<TrySendError<'a>>,
    /// What was taken off the iterator behind that one: at most 32 records, in order. Empty when
    /// none was refused.
    pub rest: Vec<Record<'a>>,
}

impl<'a> Extended<'a> {
    fn new(taken: usize, refused: Option<TrySendError<'a>>) -> Self {
        Self {
            taken,
            refused,
            rest: Vec::new(),
        }
    }
}

impl Topic {
    /// Takes records that nobody waits for, as many as fit, taking each partition's lock once per
    /// run of up to 32 records that go there. Never blocks.
    pub fn extend<'a>(&self, records: impl IntoIterator<Item = Record<'a>>) -> Extended<'a> {
        const RUN: usize = 32;
        let lanes = self.state.lanes.load();
        let choice = OfThread(self.state.number);
        let mut records = records.into_iter();
        // The iterator is the caller's code, and so may be the partitioner: a run is gathered
        // before the lock is taken.
        let mut next = || {
            let record = records.next()?;
            Some(match self.lane_of(&lanes, &record, &choice) {
                Ok((lane, bound)) => Ok((lane, (record, bound))),
                Err(error) => Err(error.with(record)),
            })
        };
        let mut taken = 0;
        let mut ahead = next();
        loop {
            let (lane, first) = match ahead {
                None => return Extended::new(taken, None),
                Some(Err(refused)) => return Extended::new(taken, Some(refused)),
                Some(Ok(routed)) => routed,
            };
            let mut run = [const { None }; RUN];
            run[0] = Some(first);
            ahead = next();
            for place in &mut run[1..] {
                ahead = match ahead {
                    Some(Ok((same, record))) if Arc::ptr_eq(same, lane) => {
                        *place = Some(record);
                        next()
                    }
                    other => {
                        ahead = other;
                        break;
                    }
                };
            }
            let records = run.iter().flatten();
            let extension = lane.extend(records.map(|(record, bound)| (record, *bound)));
            if matches!(run[0], Some((_, Bound::Free))) {
                self.went(&choice, extension.bytes, extension.cut);
            }
            taken += extension.taken;
            if let Some(refused) = extension.refused {
                let rest = run.into_iter().flatten().skip(extension.taken);
                let mut rest = rest.map(|(record, _)| record);
                let first = rest.next();
                let refused = first.map(|record| NotTaken::Lane(refused).with(record));
                let ahead = ahead.map(|routed| match routed {
                    Ok((_, (record, _))) => record,
                    Err(error) => error.into_record(),
                });
                return Extended {
                    taken,
                    refused,
                    rest: rest.chain(ahead).collect(),
                };
            }
        }
    }
}
