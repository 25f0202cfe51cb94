//! Quantiles of many histograms drawn with weights, quickly: the quantile of a mixture is looked for
//! by halving over sums so far, instead of adding whole histograms for each of thousands of draws.

use crate::histogram::Sparse;
use crate::number::{float, whole};

/// Histograms of one side, one for each pair, as counts so far.
#[derive(Clone, Debug)]
pub struct Quantiles {
    /// Every bucket that some histogram uses.
    values: Vec<u64>,
    /// How many histograms.
    histograms: usize,
    /// For each bucket, for each histogram: how many records were in it or below it.
    so_far: Vec<u64>,
}

/// One quantile, and between which buckets it lies however the histograms are drawn: a mixture's
/// quantile is not below the least nor above the greatest of its parts'.
#[derive(Clone, Copy, Debug)]
pub struct Quantile<'a> {
    of: &'a Quantiles,
    quantile: f64,
    least: usize,
    greatest: usize,
}

impl Quantiles {
    /// Of these histograms, each given in pieces that are added.
    pub fn of(histograms: &[Vec<&Sparse>]) -> Self {
        let sorted: Vec<Vec<(u64, u64)>> = histograms
            .iter()
            .map(|pieces| {
                let mut all: Vec<_> = pieces.iter().flat_map(|p| p.buckets()).collect();
                all.sort_unstable();
                all
            })
            .collect();
        let mut values: Vec<u64> = sorted.iter().flatten().map(|(value, _)| *value).collect();
        values.sort_unstable();
        values.dedup();
        let mut rest: Vec<_> = sorted
            .iter()
            .map(|buckets| buckets.iter().peekable())
            .collect();
        let mut sums = vec![0; histograms.len()];
        let mut so_far = Vec::with_capacity(values.len() * sums.len());
        for value in &values {
            for (rest, sum) in rest.iter_mut().zip(&mut sums) {
                while let Some((_, records)) = rest.next_if(|(bucket, _)| bucket <= value) {
                    *sum += records;
                }
            }
            so_far.extend_from_slice(&sums);
        }
        Self {
            values,
            histograms: histograms.len(),
            so_far,
        }
    }

    /// How many records all histograms have.
    pub fn records(&self) -> u64 {
        self.all().iter().sum()
    }

    /// How many records the histogram with the fewest has.
    pub fn fewest(&self) -> u64 {
        self.all().iter().copied().min().unwrap_or(0)
    }

    /// One of the quantiles; `None` when there are no records.
    pub fn at(&self, quantile: f64) -> Option<Quantile<'_>> {
        let whole = Quantile {
            of: self,
            quantile,
            least: 0,
            greatest: self.values.len().checked_sub(1)?,
        };
        let alone = || (0..self.histograms).filter_map(|number| whole.bucket_alone(number));
        Some(Quantile {
            least: alone().min()?,
            greatest: alone().max()?,
            ..whole
        })
    }

    /// How many records each histogram has.
    fn all(&self) -> &[u64] {
        let buckets = self.values.len().saturating_sub(1);
        self.sums(buckets)
    }

    fn sums(&self, bucket: usize) -> &[u64] {
        let start = bucket * self.histograms;
        self.so_far
            .get(start..start + self.histograms)
            .unwrap_or(&[])
    }
}

impl Quantile<'_> {
    /// Of histogram `number` alone.
    pub fn alone(&self, number: usize) -> Option<f64> {
        let bucket = self.bucket_alone(number)?;
        Some(float(self.of.values[bucket]))
    }

    /// Of all of them, each taken as often as `weights` says.
    pub fn weighted(&self, weights: &[u32]) -> Option<f64> {
        let bucket = self.bucket(|sums| {
            let counts = sums.iter().zip(weights);
            counts.map(|(sum, weight)| sum * u64::from(*weight)).sum()
        })?;
        Some(float(self.of.values[bucket]))
    }

    fn bucket_alone(&self, number: usize) -> Option<usize> {
        self.bucket(|sums| sums[number])
    }

    /// The first bucket with at least the quantile's share of all records in it or below it, as
    /// HdrHistogram counts.
    fn bucket(&self, added: impl Fn(&[u64]) -> u64) -> Option<usize> {
        let all = added(self.of.all());
        if all == 0 {
            return None;
        }
        let wanted = whole((self.quantile * float(all)).ceil()).max(1);
        let (mut low, mut high) = (self.least, self.greatest);
        while low < high {
            let middle = (low + high) / 2;
            if added(self.of.sums(middle)) < wanted {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::latencies;
    use crate::random::Random;

    #[test]
    fn quantiles_are_those_of_the_added_histograms() {
        let mut random = Random::new(1);
        let histograms: Vec<_> = (0..4)
            .map(|_| {
                let mut histogram = latencies();
                for _ in 0..500 {
                    histogram.saturating_record(random.below(9_000_000));
                }
                histogram
            })
            .collect();
        let sparse: Vec<_> = histograms.iter().map(Sparse::of).collect();
        let pieces: Vec<_> = sparse.iter().map(|one| vec![one]).collect();
        let quantiles = Quantiles::of(&pieces);
        let weights = [1, 0, 3, 1];
        let mut added = latencies();
        for (histogram, weight) in histograms.iter().zip(weights) {
            (0..weight).for_each(|_| added.add(histogram).expect("the same bounds"));
        }
        for share in [0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let quantile = quantiles.at(share).expect("records");
            let expected = Some(float(added.value_at_quantile(share)));
            assert_eq!(quantile.weighted(&weights), expected, "{share}");
            let alone = Some(float(histograms[2].value_at_quantile(share)));
            assert_eq!(quantile.alone(2), alone, "{share}");
            assert_eq!(quantile.weighted(&[0; 4]), None);
        }
        assert_eq!(quantiles.records(), 2_000);
        assert!(Quantiles::of(&[vec![], vec![]]).at(0.5).is_none());
    }
}
