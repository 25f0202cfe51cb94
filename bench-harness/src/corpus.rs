//! Payloads, ready before the clock starts: drawing bytes in the loop would measure the drawing.
//!
//! Two kinds. *Text*: pseudo-random log-like lines, all of one size, all different, which codecs
//! shrink two- to fourfold, as they do real events. *File*: a value on every line.
//! Both lie in one memory map. A file is read into an anonymous map, not mapped itself: a mapped
//! file that somebody cuts while we send it would end the process with SIGBUS (which is why mapping
//! one is `unsafe`), and its first pass would measure page faults.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use memmap2::{Mmap, MmapMut};

use crate::number::{count, index};
use crate::random::Random;

/// Text corpora are at least this large: more than one batch, more than a codec's window sees.
const TEXT_BYTES_MIN: u64 = 4 << 20;
/// Text corpora of large records hold at least so many of them.
const TEXT_RECORDS_MIN: u64 = 16;
/// Seed of text corpora; the same for every run, so that runs compare.
const SEED: u64 = 0x0052_494e_4750_4f53;

/// Values of records, by index.
#[derive(Debug)]
pub struct Corpus {
    /// `None` when all values are empty: there is no map of 0 bytes.
    map: Option<Mmap>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    /// `records` values of `size` bytes, end to end.
    Even { size: usize, records: usize },
    /// Value *i* is `starts[i] .. starts[i + 1] - 1`: a line without its newline.
    Lines { starts: Vec<usize> },
}

impl Corpus {
    /// Different texts of `size` bytes each, at least `bytes_min` in all.
    pub fn text(size: u64, bytes_min: u64) -> io::Result<Self> {
        let wanted = bytes_min.max(TEXT_BYTES_MIN);
        let records = wanted.checked_div(size).unwrap_or(1).max(TEXT_RECORDS_MIN);
        let (size, records) = (index(size), index(records));
        let values = Values::Even { size, records };
        if size == 0 {
            return Ok(Self { map: None, values });
        }
        let mut map = MmapMut::map_anon(size * records)?;
        let mut writer = Writer::new();
        for (number, value) in map.chunks_exact_mut(size).enumerate() {
            writer.fill(value, count(number));
        }
        Ok(Self {
            map: Some(map.make_read_only()?),
            values,
        })
    }

    /// The lines of a file. An empty file is refused: it has nothing to send.
    pub fn file(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = index(file.metadata()?.len());
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
        }
        let mut map = MmapMut::map_anon(length)?;
        file.read_exact(&mut map)?;
        let mut starts = vec![0];
        starts.extend(
            map.iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'\n')
                .map(|(at, _)| at + 1),
        );
        if map.last() != Some(&b'\n') {
            starts.push(length + 1); // as if it ended with a newline
        }
        Ok(Self {
            map: Some(map.make_read_only()?),
            values: Values::Lines { starts },
        })
    }

    /// How many values there are; never 0.
    pub fn len(&self) -> usize {
        match &self.values {
            Values::Even { records, .. } => *records,
            Values::Lines { starts } => starts.len() - 1,
        }
    }

    /// Never: a corpus has at least one value. (Clippy wants it beside `len`.)
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Value `at`, which must be below [`len`](Self::len).
    #[inline]
    pub fn value(&self, at: usize) -> &[u8] {
        let Some(map) = &self.map else { return &[] };
        match &self.values {
            Values::Even { size, .. } => &map[at * size..][..*size],
            Values::Lines { starts } => &map[starts[at]..starts[at + 1] - 1],
        }
    }

    /// The largest value.
    pub fn largest(&self) -> usize {
        match &self.values {
            Values::Even { size, .. } => *size,
            Values::Lines { starts } => starts
                .windows(2)
                .map(|pair| pair[1] - pair[0] - 1)
                .max()
                .unwrap_or(0),
        }
    }
}

/// Writes log-like text.
struct Writer {
    random: Random,
    words: Vec<String>,
    line: Vec<u8>,
}

impl Writer {
    fn new() -> Self {
        let mut random = Random::new(SEED);
        const SYLLABLES: [&str; 16] = [
            "al", "ber", "con", "der", "el", "fi", "gra", "ho", "in", "ka", "lo", "mer", "no",
            "or", "per", "ti",
        ];
        let words = (0..512)
            .map(|_| {
                (0..2 + random.below(3))
                    .map(|_| SYLLABLES[index(random.below(16))])
                    .collect()
            })
            .collect();
        Self {
            random,
            words,
            line: Vec::new(),
        }
    }

    /// Fills `value`; `number` comes first and makes it differ from every other one.
    fn fill(&mut self, value: &mut [u8], number: u64) {
        let mut filled = 0;
        let mut first = true;
        while filled < value.len() {
            self.line.clear();
            if first {
                self.line
                    .extend_from_slice(format!("{number:x} ").as_bytes());
                first = false;
            }
            self.event();
            let take = self.line.len().min(value.len() - filled);
            value[filled..filled + take].copy_from_slice(&self.line[..take]);
            filled += take;
        }
    }

    /// One event: an id and a time that no codec can guess, then words of an uneven vocabulary.
    fn event(&mut self) {
        let (id, micros) = (self.random.bits() >> 16, self.random.below(1_000_000_000));
        self.line
            .extend_from_slice(format!("id={id:012x} t={micros}").as_bytes());
        for _ in 0..8 {
            // The product of two even draws prefers small numbers, as words do.
            let word = self.random.below(512) * self.random.below(512) / 512;
            self.line.push(b' ');
            self.line
                .extend_from_slice(self.words[index(word)].as_bytes());
        }
        self.line.push(b';');
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ringpost_codec::compress::{Compressed, Compression, Compressor};

    use super::*;

    #[test]
    fn texts_differ_and_repeat_from_run_to_run() {
        let corpus = Corpus::text(100, 0).expect("memory");
        let again = Corpus::text(100, 0).expect("memory");
        let mut seen = HashSet::new();
        for at in 0..corpus.len() {
            assert_eq!(corpus.value(at).len(), 100);
            assert_eq!(corpus.value(at), again.value(at));
            assert!(seen.insert(corpus.value(at).to_vec()), "value {at} repeats");
        }
        assert!(corpus.len() > 40_000);
    }

    #[test]
    fn codecs_shrink_texts_two_to_fourfold() {
        for size in [100, 1024, 10_240] {
            let corpus = Corpus::text(size, 0).expect("memory");
            let batch: Vec<u8> = (0..corpus.len())
                .flat_map(|at| corpus.value(at).iter().copied())
                .take(128 << 10)
                .collect();
            for codec in ["lz4", "zstd:3"] {
                let codec: Compression = codec.parse().expect("a codec");
                let mut out = Vec::new();
                let outcome = Compressor::new()
                    .compress(
                        codec,
                        &mut std::iter::once(&batch[..]),
                        &mut out,
                        batch.len(),
                    )
                    .expect("compresses");
                assert!(matches!(outcome, Compressed::Smaller));
                let tenths = batch.len() * 10 / out.len();
                assert!(
                    (15..=45).contains(&tenths),
                    "{codec} {size}: {tenths} tenths"
                );
            }
        }
    }

    #[test]
    fn odd_sizes() {
        assert_eq!(Corpus::text(0, 0).expect("memory").value(0), b"");
        let large = Corpus::text(1 << 20, 0).expect("memory");
        assert!(large.len() >= 16);
        assert_ne!(large.value(0), large.value(1));
    }

    #[test]
    fn a_file_gives_its_lines() {
        let path = std::env::temp_dir().join(format!("ringpost-corpus-{}", std::process::id()));
        for (text, lines) in [
            ("a\nbb\n\nccc", vec!["a", "bb", "", "ccc"]),
            ("a\n", vec!["a"]),
            ("\n\n", vec!["", ""]),
        ] {
            std::fs::write(&path, text).expect("written");
            let corpus = Corpus::file(&path).expect("read");
            let seen: Vec<_> = (0..corpus.len()).map(|at| corpus.value(at)).collect();
            assert_eq!(
                seen,
                lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>()
            );
            assert_eq!(
                corpus.largest(),
                lines.iter().map(|line| line.len()).max().unwrap_or(0)
            );
        }
        std::fs::write(&path, "").expect("written");
        assert!(Corpus::file(&path).is_err());
        std::fs::remove_file(&path).expect("removed");
    }
}
