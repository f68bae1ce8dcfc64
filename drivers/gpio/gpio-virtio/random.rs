// SPDX-License-Identifier: GPL-2.0

//! Random walks of tests.

/// Pseudo-random numbers, the same in each run (xorshift64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Returns the next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns true once in `count` times.
    pub(crate) fn once_in(&mut self, count: u64) -> bool {
        self.next() % count == 0
    }

    /// Returns one of `items`.
    pub(crate) fn pick<T: Copy, const N: usize>(&mut self, items: &[T; N]) -> Option<T> {
        items.get((self.next() % N as u64) as usize).copied()
    }
}
