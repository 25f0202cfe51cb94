//! Which parts of the arena are free: a buddy allocator over page numbers.
//!
//! Owned by the pool's state, under its lock. It never sees memory, only numbers, and is safe code.
//! A *block* of class `k` is 2^k pages of 4 KiB and starts at a multiple of its size; its *buddy*
//! is the other half of the block of class `k + 1`. Freed buddies merge at once, up to the largest
//! class, so a pool with nothing in use can always serve its largest size.
//!
//! ```text
//!   class 2   ┌───────────────────────────────┐ 0
//!   class 1   ├───────────────┬───────────────┤ 0, 2
//!   class 0   ├───────┬───────┼───────┬───────┤ 0, 1, 2, 3     buddy of p in class k: p ^ 2^k
//! ```
//!
//! *Few pages are touched.* Every free block remembers how far into it memory was ever handed out
//! (`warm` pages, counted from its start, rounded up to the last one). Requests are served from the
//! smallest sufficient block with warm pages, the last freed first; only when there is none from
//! memory nobody has touched. Splitting keeps the front, where the warm pages are. But a block of the
//! largest class is split only when no smaller one will do, warm or not: whole ones are what large
//! requests need. How many pages may have memory behind them is counted, and free ones can be
//! taken out, given back to the system by the owner, and put back cold.
//!
//! Invariants (checked by [`Buddy::invariants`]): the blocks of `tags` tile the arena up to
//! `frontier` without gap or overlap; every free one is in exactly the list of its class and warmth;
//! two free buddies never lie beside each other.

/// Pages of the smallest class are this long: 4 KiB.
pub(crate) const PAGE_SHIFT: u32 = 12;
/// Classes 0 (4 KiB) to 18 (1 GiB).
pub(crate) const CLASSES: usize = 19;
/// Bits of a [`Block`] that hold its class.
const CLASS_BITS: u32 = 5;
/// The largest arena: page numbers have 27 bits, so 512 GiB.
pub(crate) const PAGES_MAX: u32 = 1 << (32 - CLASS_BITS);

/// A block's place and class in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block(u32);

impl Block {
    pub(crate) fn new(page: u32, class: u8) -> Self {
        debug_assert!(page < PAGES_MAX && usize::from(class) < CLASSES);
        Self((page << CLASS_BITS) | u32::from(class))
    }

    /// Its first page.
    #[inline]
    pub(crate) fn page(self) -> u32 {
        self.0 >> CLASS_BITS
    }

    #[inline]
    pub(crate) fn class(self) -> u8 {
        (self.0 & ((1 << CLASS_BITS) - 1)) as u8
    }

    /// Where it starts in the arena, in bytes.
    #[inline]
    pub(crate) fn offset(self) -> usize {
        (self.page() as usize) << PAGE_SHIFT
    }

    /// How long it is, in bytes.
    #[inline]
    pub(crate) fn len(self) -> usize {
        class_bytes(self.class())
    }

    /// Its pages, as indices into a table of pages.
    #[cfg(loom)]
    pub(crate) fn pages(self) -> std::ops::Range<usize> {
        let first = self.page() as usize;
        first..first + (1 << self.class())
    }
}

/// The size of a class in bytes.
#[inline]
pub(crate) fn class_bytes(class: u8) -> usize {
    1 << (PAGE_SHIFT + u32::from(class))
}

/// The smallest class of at least so many bytes, if there is one at all.
pub(crate) fn class_of(bytes: usize) -> Option<u8> {
    let rounded = bytes.max(1 << PAGE_SHIFT).checked_next_power_of_two()?;
    u8::try_from(rounded.trailing_zeros() - PAGE_SHIFT)
        .ok()
        .filter(|&class| usize::from(class) < CLASSES)
}

/// What `tags` says of a block's first page; 0 for every other page.
const FREE: u8 = 0x40;
const USED: u8 = 0x80;

/// A list's end, in `next`, `prev` and the heads. Links are page + 1, so that the tables start as
/// zeros: the system gives large zeroed tables without touching them.
const NONE: u32 = 0;

/// The free blocks of an arena. See the module's doc.
#[derive(Debug)]
pub(crate) struct Buddy {
    pages: u32,
    class_max: u8,
    /// Blocks of the largest class from here on were never handed out and are in no list.
    frontier: u32,
    /// The list heads by class: blocks with warm pages, and blocks without.
    warm_heads: [u32; CLASSES],
    fresh_heads: [u32; CLASSES],
    // Tables by page; meaningful at a block's first page only.
    tags: Vec<u8>,
    next: Vec<u32>,
    prev: Vec<u32>,
    warm: Vec<u32>,
    /// Pages handed out, and warm ones.
    touched: u32,
}

impl Buddy {
    /// All of `blocks` blocks of class `class_max` are free and fresh.
    pub(crate) fn new(blocks: u32, class_max: u8) -> Self {
        let pages = blocks << class_max;
        assert!(pages <= PAGES_MAX && usize::from(class_max) < CLASSES);
        let len = pages as usize;
        Self {
            pages,
            class_max,
            frontier: 0,
            warm_heads: [NONE; CLASSES],
            fresh_heads: [NONE; CLASSES],
            tags: vec![0; len],
            next: vec![NONE; len],
            prev: vec![NONE; len],
            warm: vec![0; len],
            touched: 0,
        }
    }

    /// How many pages may have memory behind them, at the most.
    pub(crate) fn touched(&self) -> u32 {
        self.touched
    }

    /// Checks everything the module's doc promises. Slow: for tests.
    #[cfg(all(any(test, feature = "model"), not(loom)))]
    pub(crate) fn invariants(&self) {
        use std::collections::BTreeSet;
        let mut listed = BTreeSet::new();
        for class in 0..=self.class_max {
            for (warm, heads) in [(true, &self.warm_heads), (false, &self.fresh_heads)] {
                let mut before = NONE;
                let mut link = heads[usize::from(class)];
                while link != NONE {
                    let page = link - 1;
                    assert_eq!(self.tags[page as usize], FREE | class);
                    assert_eq!(self.prev[page as usize], before);
                    assert_eq!(self.warm[page as usize] > 0, warm);
                    assert!(self.warm[page as usize] <= 1 << class);
                    assert!(listed.insert(page), "page {page} is in two lists");
                    before = link;
                    link = self.next[page as usize];
                }
            }
        }
        let (mut page, mut touched) = (0, 0);
        while page < self.frontier {
            let tag = self.tags[page as usize];
            let class = tag & 0x3f;
            assert!(tag & (FREE | USED) != 0, "page {page} belongs to no block");
            assert_eq!(
                page % (1 << class),
                0,
                "page {page} is not aligned to its class"
            );
            touched += if tag & FREE != 0 {
                self.warm[page as usize]
            } else {
                1 << class
            };
            if tag & FREE != 0 {
                assert!(listed.remove(&page), "page {page} is free and in no list");
                let buddy = page ^ (1 << class);
                assert!(
                    class == self.class_max || self.tags[buddy as usize] != tag,
                    "pages {page} and {buddy} should have been merged"
                );
            }
            for inner in page + 1..page + (1 << class) {
                assert_eq!(
                    self.tags[inner as usize], 0,
                    "page {inner} is in two blocks"
                );
            }
            page += 1 << class;
        }
        assert_eq!(page, self.frontier);
        assert_eq!(touched, self.touched);
        assert!(self.frontier <= self.pages);
        assert!(listed.is_empty(), "listed beyond the frontier: {listed:?}");
        assert!(
            self.tags[self.frontier as usize..]
                .iter()
                .all(|&tag| tag == 0)
        );
    }

    /// The sum of the blocks handed out. For tests.
    #[cfg(all(any(test, feature = "model"), not(loom)))]
    pub(crate) fn bytes_used(&self) -> usize {
        let used = self.tags.iter().filter(|&tag| tag & USED != 0);
        used.map(|tag| class_bytes(tag & 0x3f)).sum()
    }

    /// How many pages were ever handed out, at most. For tests of the order of reuse.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn frontier(&self) -> u32 {
        self.frontier
    }

    /// A block of `class`, or `None` when no free block is large enough.
    pub(crate) fn take(&mut self, class: u8) -> Option<Block> {
        let (page, mut have, mut warm) = self.take_smallest(class)?;
        while have > class {
            have -= 1;
            let half = 1 << have;
            self.push(page + half, have, u32::saturating_sub(warm, half));
            warm = warm.min(half);
        }
        self.touched += (1 << class) - warm;
        self.tags[page as usize] = USED | class;
        Some(Block::new(page, class))
    }

    /// Takes a block back and merges it with its buddies. It counts as warm in full.
    pub(crate) fn give_back(&mut self, block: Block) {
        self.put_back(block, 1 << block.class());
    }

    /// A free block with warm pages, the largest there is, and how many those are. Nobody's until it is
    /// put back cold.
    pub(crate) fn take_warm(&mut self) -> Option<(Block, u32)> {
        let classes = 0..=self.class_max;
        let (class, link) = classes
            .rev()
            .map(|class| (class, self.warm_heads[usize::from(class)]))
            .find(|(_, link)| *link != NONE)?;
        let page = link - 1;
        let warm = self.warm[page as usize];
        self.unlink(page, class);
        self.touched += (1 << class) - warm;
        self.tags[page as usize] = USED | class;
        Some((Block::new(page, class), warm))
    }

    /// Takes a block back that has no memory behind it any more.
    pub(crate) fn put_back_cold(&mut self, block: Block) {
        self.put_back(block, 0);
    }

    fn put_back(&mut self, block: Block, mut warm: u32) {
        let (mut page, mut class) = (block.page(), block.class());
        assert_eq!(self.tags[page as usize], USED | class, "given back twice");
        self.tags[page as usize] = 0;
        self.touched -= (1 << class) - warm;
        while class < self.class_max {
            let half = 1 << class;
            let buddy = page ^ half;
            if self.tags[buddy as usize] != FREE | class {
                break;
            }
            let buddy_warm = self.warm[buddy as usize];
            self.unlink(buddy, class);
            let (lower, upper) = if buddy < page {
                (buddy_warm, warm)
            } else {
                (warm, buddy_warm)
            };
            page = page.min(buddy);
            warm = if upper > 0 { half + upper } else { lower };
            self.touched += warm - lower - upper;
            class += 1;
        }
        self.push(page, class, warm);
    }

    /// Unlinks the smallest free block of at least `class`, warm before fresh, whole ones last, and says
    /// its page, class and warm pages.
    fn take_smallest(&mut self, class: u8) -> Option<(u32, u8, u32)> {
        let whole = usize::from(self.class_max);
        let parts = || usize::from(class)..whole;
        let (warm, fresh) = (&self.warm_heads, &self.fresh_heads);
        let in_list = [
            (warm, parts()),
            (fresh, parts()),
            (warm, whole..whole + 1),
            (fresh, whole..whole + 1),
        ];
        let in_list = in_list.into_iter().find_map(|(heads, mut classes)| {
            classes.find_map(|have| Some((heads[have].checked_sub(1)?, have)))
        });
        if let Some((page, have)) = in_list {
            #[expect(clippy::cast_possible_truncation, reason = "below CLASSES")]
            let have = have as u8;
            let warm = self.warm[page as usize];
            self.unlink(page, have);
            return Some((page, have, warm));
        }
        if class > self.class_max || self.frontier == self.pages {
            return None;
        }
        let page = self.frontier;
        self.frontier += 1 << self.class_max;
        Some((page, self.class_max, 0))
    }

    fn push(&mut self, page: u32, class: u8, warm: u32) {
        let heads = if warm > 0 {
            &mut self.warm_heads
        } else {
            &mut self.fresh_heads
        };
        let head = &mut heads[usize::from(class)];
        let at = page as usize;
        self.tags[at] = FREE | class;
        self.warm[at] = warm;
        self.prev[at] = NONE;
        self.next[at] = *head;
        if *head != NONE {
            self.prev[(*head - 1) as usize] = page + 1;
        }
        *head = page + 1;
    }

    fn unlink(&mut self, page: u32, class: u8) {
        let at = page as usize;
        let (next, prev) = (self.next[at], self.prev[at]);
        let heads = if self.warm[at] > 0 {
            &mut self.warm_heads
        } else {
            &mut self.fresh_heads
        };
        if prev == NONE {
            heads[usize::from(class)] = next;
        } else {
            self.next[(prev - 1) as usize] = next;
        }
        if next != NONE {
            self.prev[(next - 1) as usize] = prev;
        }
        self.tags[at] = 0;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn classes_round_up() {
        assert_eq!(class_of(0), Some(0));
        assert_eq!(class_of(1), Some(0));
        assert_eq!(class_of(4096), Some(0));
        assert_eq!(class_of(4097), Some(1));
        assert_eq!(class_of(1 << 20), Some(8));
        assert_eq!(class_of(1 << 30), Some(18));
        assert_eq!(class_of((1 << 30) + 1), None);
        assert_eq!(class_of(usize::MAX), None);
        let block = Block::new(PAGES_MAX - 1, 18);
        assert_eq!((block.page(), block.class()), (PAGES_MAX - 1, 18));
    }

    #[test]
    fn splits_merges_and_reuses_the_last() {
        let mut buddy = Buddy::new(2, 3);
        let a = buddy.take(0).expect("free");
        let b = buddy.take(1).expect("free");
        buddy.invariants();
        assert_eq!((a.page(), b.page()), (0, 2));
        buddy.give_back(a);
        buddy.invariants();
        assert_eq!(buddy.take(0), Some(a), "the last freed is the first reused");
        buddy.give_back(b);
        buddy.give_back(a);
        buddy.invariants();
        assert_eq!(buddy.take(3).map(Block::page), Some(0), "all merged");
        assert_eq!(buddy.take(3).map(Block::page), Some(8));
        assert_eq!(buddy.take(0), None);
        buddy.invariants();
    }

    #[test]
    fn touched_memory_is_split_before_new_memory_is_touched() {
        let mut buddy = Buddy::new(4, 4);
        let large = buddy.take(2).expect("free"); // pages 0..4; 4..16 stay fresh
        let other = buddy.take(0).expect("free"); // page 4
        buddy.give_back(large);
        buddy.invariants();
        // A fresh page lies free beside `other`, but 0..4 were touched already.
        let page = buddy.take(0).expect("free");
        assert_eq!(page.page(), 0);
        assert_eq!(buddy.take(0).map(Block::page), Some(1));
        buddy.give_back(other);
        assert_eq!(buddy.take(1).map(Block::page), Some(2));
        assert_eq!(buddy.take(0).map(Block::page), Some(4));
        assert_eq!(buddy.frontier(), 16);
        buddy.invariants();
    }

    /// What is put back cold is merged, counts no more, and is not touched before what is warm.
    #[test]
    fn cold_memory_is_counted_no_more_and_touched_last() {
        let mut buddy = Buddy::new(2, 3);
        let first = buddy.take(1).expect("free"); // pages 0..2
        let second = buddy.take(1).expect("free"); // pages 2..4
        let third = buddy.take(0).expect("free"); // page 4
        assert_eq!(buddy.touched(), 5);
        buddy.give_back(second);
        let (block, warm) = buddy.take_warm().expect("the second is free");
        assert_eq!((block, warm), (second, 2));
        assert_eq!(buddy.take_warm(), None);
        buddy.put_back_cold(block);
        buddy.invariants();
        assert_eq!(buddy.touched(), 3);
        buddy.give_back(first);
        buddy.invariants();
        assert_eq!(buddy.touched(), 3, "0..4 are merged, and 0..2 are warm");
        assert_eq!(buddy.take(0).map(Block::page), Some(0));
        assert_eq!(buddy.take(0).map(Block::page), Some(1));
        buddy.give_back(third);
        assert_eq!(buddy.take(0), Some(third), "warm before cold");
        assert!(buddy.take(1).is_some());
        buddy.invariants();
        assert_eq!(buddy.touched(), 5);
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    fn giving_back_twice_is_our_bug() {
        let mut buddy = Buddy::new(1, 1);
        let block = buddy.take(0).expect("free");
        buddy.give_back(block);
        buddy.give_back(block);
    }
}
