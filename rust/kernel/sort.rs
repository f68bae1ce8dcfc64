// SPDX-License-Identifier: GPL-2.0

//! Sorting with little code.
//!
//! The sorts of [`core::slice`] are faster, and take several KiB of text for each type of items.
//!
//! C source: [`lib/sort.c`](srctree/lib/sort.c)

use crate::{
    bindings,
    ffi::{
        c_int,
        c_void, //
    },
};
use core::{
    cmp::Ordering,
    ptr, //
};

/// Sorts `items` so that none is [`Ordering::Greater`] than the one after it.
///
/// Equal items may end up in any order. Takes a number of comparisons in the order of `n * log(n)`,
/// whatever the order is in the beginning, and no memory. If `compare` contradicts itself the order
/// is unspecified. Items are smaller than 4 GiB.
///
/// # Context
///
/// Process context; may sleep, so that many items do not keep the processor from others.
///
/// # Examples
///
/// ```
/// use kernel::sort::sort_by;
///
/// let mut words = ["three", "two", "one", ""];
///
/// sort_by(&mut words, |a, b| a.len().cmp(&b.len()).then(a.cmp(b)));
/// assert_eq!(words, ["", "one", "two", "three"]);
///
/// let mut descending = [0u16; 100];
///
/// for (number, item) in (0..100).rev().zip(&mut descending) {
///     *item = number;
/// }
/// sort_by(&mut descending, Ord::cmp);
/// assert!(descending.is_sorted());
/// ```
pub fn sort_by<T, F: Fn(&T, &T) -> Ordering>(items: &mut [T], compare: F) {
    /// # Safety
    ///
    /// `a` and `b` must point to values of type `T`, and `compare` to one of type `F`, that nobody
    /// else changes during the call.
    unsafe extern "C" fn compare_callback<T, F: Fn(&T, &T) -> Ordering>(
        a: *const c_void,
        b: *const c_void,
        compare: *const c_void,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        let (a, b, compare) = unsafe { (&*a.cast::<T>(), &*b.cast(), &*compare.cast::<F>()) };

        compare(a, b) as c_int
    }

    const { assert!(size_of::<T>() <= u32::MAX as usize) };

    // SAFETY:
    // - The size of an item has the 32 bits that `sort_r_nonatomic()` has for it.
    // - `items` are that many values of that size, next to each other, and this has the only
    //   reference to them.
    // - Without a function to swap items their bytes are swapped, which is a move in Rust. The
    //   items are compared at their places and never during a swap: each is a value then, and
    //   nobody else has it. That holds whatever `compare` returns.
    // - `compare` lives longer than the call, which has nothing else by that address.
    unsafe {
        bindings::sort_r_nonatomic(
            items.as_mut_ptr().cast(),
            items.len(),
            size_of::<T>(),
            Some(compare_callback::<T, F>),
            None,
            ptr::from_ref(&compare).cast(),
        )
    };
}
