//! Writes the inputs that those targets begin with whose inputs are steps or content of our own, and
//! nothing that could be recorded from Kafka.
//!
//! ```text
//! cd fuzz && cargo run --example steps -- corpus
//! ```
//! An input is read as `arbitrary` reads it: numbers from the front, one byte for each up to 256 values,
//! lengths of texts from the end. What has to be there for anything to happen is written out; what then
//! happens is drawn from a seed, more often what leads somewhere. The same inputs come of every call.

use std::error::Error;
use std::fs;
use std::path::Path;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [to] = &arguments[..] else {
        return Err("steps CORPUS".into());
    };
    for (target, count, input) in TARGETS {
        let folder = Path::new(to).join(target);
        fs::create_dir_all(&folder)?;
        for number in 0..count {
            let mut random = Random(u64::from(number));
            fs::write(
                folder.join(format!("steps-{number:02}")),
                input(number, &mut random),
            )?;
        }
    }
    Ok(())
}

type Input = fn(u8, &mut Random) -> Vec<u8>;

const TARGETS: [(&str, u8, Input); 4] = [
    ("whole_core", 20, whole_core),
    ("batches", 12, batches),
    ("memory", 6, memory),
    ("messages", 16, messages),
];

/// SplitMix64: equal seeds, equal inputs.
struct Random(u64);

impl Random {
    fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_be_bytes()[0]
    }

    fn pick(&mut self, of: &[u8]) -> u8 {
        of[usize::from(self.byte()) % of.len()]
    }

    fn bytes(&mut self, count: usize) -> impl Iterator<Item = u8> {
        (0..count).map(|_| self.byte())
    }
}

/// A cluster and settings, a good start, and steps: records, good and strange answers, ends of
/// connections, time. Every step's number is the one in `whole_core::Rig::step`.
fn whole_core(number: u8, random: &mut Random) -> Vec<u8> {
    const APPEND: u8 = 0;
    const PASS_TIME: u8 = 4;
    const TAKE: u8 = 6;
    const LET_GO: u8 = 7;
    const ANSWER: u8 = 8;
    const STRANGE_ANSWER: u8 = 10;
    const CHANGED_ANSWER: u8 = 12;
    const HANG_UP: u8 = 14;
    const GO_WELL: u8 = 19;
    // Newest Produce and Metadata of the broker, or an old one; partitions, nodes.
    let old = number % 4 == 3;
    let mut input = if old {
        vec![4, 5, 3, 2]
    } else {
        vec![10, 12, 3, 2]
    };
    // Idempotent or not, no linger, large requests, five in flight, long times, newest version, one
    // connection, not eager, no probe, any number of attempts.
    let idempotent = number % 5 != 4;
    input.push(if idempotent { 0 } else { 3 });
    input.extend([1, 1, 4, 1, 2, 1, 10, 0, 0, 0, 0]);
    if !idempotent {
        input.push(number % 3);
    }
    // Memory, size of batches, the dispatcher's seed.
    input.extend([2, 1 + number % 2]);
    input.extend([number; 8]);
    // The topic is found, and every lane has its broker.
    input.extend([GO_WELL, 7, GO_WELL, 7]);
    for _ in 0..40 {
        let step = random.pick(&[
            APPEND,
            APPEND,
            TAKE,
            TAKE,
            PASS_TIME,
            ANSWER,
            STRANGE_ANSWER,
            STRANGE_ANSWER,
            CHANGED_ANSWER,
            HANG_UP,
            GO_WELL,
            number % 20,
        ]);
        input.push(step);
        let operands = match step {
            APPEND => {
                // Its lane, and a short value.
                input.extend([random.byte(), 1, 0]);
                1
            }
            // All of a frame, so that the next answer is to a whole question: that of a record, or the
            // directory's, which asks who leads when it was told that another does.
            TAKE => {
                let code = 5 + random.byte() % 8;
                input.extend([1, LET_GO, STRANGE_ANSWER, code, code, 1, 2, 9]);
                2
            }
            PASS_TIME => 0,
            GO_WELL => 1,
            STRANGE_ANSWER => {
                // A code that brokers do give, and perhaps another leader.
                let code = 5 + random.byte() % 8;
                input.extend([5, code, code, 1, random.byte() % 4, 9]);
                3
            }
            ANSWER | HANG_UP => 2,
            _ => 8,
        };
        input.extend(random.bytes(operands));
    }
    // What is under way ends well.
    input.extend([GO_WELL, 7, PASS_TIME, GO_WELL, 7]);
    input
}

/// Where batches end, a codec, and records: values of one byte again and again, then any.
fn batches(number: u8, random: &mut Random) -> Vec<u8> {
    let mut input = vec![number / 6, number % 6];
    for _ in 0..6 {
        // No headers, a timestamp, no key, a value of so many equal bytes, by reference or not.
        input.push(1);
        input.extend(random.bytes(6));
        input.extend([0, 1, random.byte() % 8, random.byte(), random.byte()]);
    }
    input.extend(random.bytes(240));
    input
}

/// Taking, waiting, freezing, sharing, and letting go, some more often than others.
fn memory(number: u8, random: &mut Random) -> Vec<u8> {
    let kinds: [&[u8]; 6] = [
        &[0, 11, 16],
        &[0, 5, 5, 8, 16],
        &[0, 11, 13, 14, 15, 16],
        &[4, 7, 8, 10, 16],
        &[0, 0, 5, 10, 16, 19],
        &[0, 4, 5, 7, 8, 10, 11, 13, 14, 15, 16, 19],
    ];
    let mut input = Vec::new();
    for _ in 0..80 {
        let kind = random.pick(kinds[usize::from(number)]);
        input.push(kind);
        let operands = if matches!(kind, 5 | 7) { 2 } else { 1 };
        input.extend(random.bytes(operands));
    }
    input
}

/// Each message twice: in its newest version and in any, with text that is text.
fn messages(number: u8, random: &mut Random) -> Vec<u8> {
    let version = if number < 8 { 255 } else { random.byte() };
    let mut input = vec![number % 8, version];
    for _ in 0..200 {
        let byte = random.byte();
        input.push(if byte % 3 == 0 {
            byte % 8
        } else {
            b'a' + byte % 26
        });
    }
    input
}
