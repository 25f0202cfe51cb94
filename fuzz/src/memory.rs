//! Any operations on the pool, against its model.
//!
//! Two or three bytes are an operation; the model is the one of the crate's own property test
//! (`ringpost_memory::model`), which knows every holder, its bytes and its place in the queue.

use arbitrary::{Result, Unstructured};
use ringpost_memory::model::{Model, Op};

/// Operations of an input at most.
const OPS_MAX: usize = 300;

/// See the module's doc.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut model = Model::new();
    for _ in 0..OPS_MAX {
        if input.is_empty() {
            break;
        }
        let Ok(op) = op(&mut input) else { break };
        model.apply(op);
        model.check();
    }
    model.end();
}

fn op(input: &mut Unstructured<'_>) -> Result<Op> {
    let kind: u8 = input.arbitrary()?;
    Ok(match kind % 20 {
        0..=3 => Op::TryTake(size(input)?),
        4 => Op::TryCharge(size(input)?),
        5 | 6 => Op::Take(size(input)?, time(input)?),
        7 => Op::TakeCharge(size(input)?, time(input)?),
        8 | 9 => Op::Collect(which(input)?),
        10 => Op::Cancel(which(input)?),
        11 | 12 => Op::Freeze(which(input)?),
        13 => Op::Clone(which(input)?),
        14 => Op::Slice(which(input)?),
        15 => Op::Thaw(which(input)?),
        16..=18 => Op::Drop(which(input)?),
        _ => match input.arbitrary::<u8>()? {
            // A closed pool does nothing any more.
            255 => Op::Close,
            at => Op::Expire(u64::from(at % 20)),
        },
    })
}

/// Up to 10,000 bytes as a rule, up to 200,000 now and then: more than the budget.
fn size(input: &mut Unstructured<'_>) -> Result<usize> {
    let size: u8 = input.arbitrary()?;
    Ok(usize::from(size) * [40, 40, 160, 800][usize::from(size) % 4])
}

fn time(input: &mut Unstructured<'_>) -> Result<u64> {
    let at: u8 = input.arbitrary()?;
    Ok(if at.is_multiple_of(2) {
        u64::MAX
    } else {
        u64::from(at % 20)
    })
}

fn which(input: &mut Unstructured<'_>) -> Result<usize> {
    Ok(usize::from(input.arbitrary::<u8>()?))
}
