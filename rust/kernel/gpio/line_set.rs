// SPDX-License-Identifier: GPL-2.0

//! A set of lines that several contexts change at once.

use crate::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    }, //
};

/// A set of lines of one chip: one bit for each.
///
/// All operations are atomic and fully ordered, and may be called from any context. A line that the
/// chip does not have is never in the set.
pub(super) struct LineSet {
    words: KVVec<Atomic<usize>>,
    lines: u32,
}

impl LineSet {
    /// Creates the empty set for a chip of that many lines. May sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory for it.
    pub(super) fn new(lines: u32) -> Result<Self> {
        let count = (lines as usize).div_ceil(usize::BITS as usize);
        let mut words = KVVec::with_capacity(count, GFP_KERNEL)?;

        for _ in 0..count {
            words.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Ok(Self { words, lines })
    }

    /// Whether the chip has that line.
    pub(super) fn has(&self, line: u32) -> bool {
        line < self.lines
    }

    /// The set as the bitmap that C sees. It stays where it is for as long as the set lives.
    pub(super) fn as_ptr(&self) -> *mut usize {
        // CAST: `Atomic<usize>` has the layout of `usize`, and interior mutability.
        self.words.as_ptr().cast_mut().cast()
    }

    fn bit_of(&self, line: u32) -> Option<(&Atomic<usize>, usize)> {
        if !self.has(line) {
            return None;
        }
        let word = self.words.get((line / usize::BITS) as usize)?;

        Some((word, 1 << (line % usize::BITS)))
    }

    /// Puts `line` into the set.
    pub(super) fn insert(&self, line: u32) {
        let Some((word, bit)) = self.bit_of(line) else {
            return;
        };
        let mut old = word.load(Relaxed);

        while let Err(now) = word.cmpxchg(old, old | bit, Full) {
            old = now;
        }
    }

    /// Takes `line` out of the set; tells whether it was in there.
    pub(super) fn remove(&self, line: u32) -> bool {
        let Some((word, bit)) = self.bit_of(line) else {
            return false;
        };
        let mut old = word.load(Relaxed);

        while old & bit != 0 {
            match word.cmpxchg(old, old & !bit, Full) {
                Ok(_) => return true,
                Err(now) => old = now,
            }
        }
        false
    }

    /// The lines that are in the set; those that come and go meanwhile may be missed.
    pub(super) fn iter(&self) -> Iter<'_> {
        Iter { set: self, next: 0 }
    }
}

/// The lines of a [`LineSet`], in ascending order.
pub(super) struct Iter<'a> {
    set: &'a LineSet,
    /// The first line that was not looked at yet.
    next: u32,
}

impl Iterator for Iter<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        while let Some((word, bit)) = self.set.bit_of(self.next) {
            let line = self.next;
            // Those from `bit` on; each bit that is left is a line of the chip.
            let bits = word.load(Relaxed) & bit.wrapping_neg();

            if bits != 0 {
                let found = line / usize::BITS * usize::BITS + bits.trailing_zeros();

                self.next = found + 1;
                return Some(found);
            }
            self.next = (line / usize::BITS + 1) * usize::BITS;
        }
        None
    }
}
