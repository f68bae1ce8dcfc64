// SPDX-License-Identifier: GPL-2.0

//! Names of lines.

use crate::{
    prelude::*,
    str::CStrExt as _, //
};
use core::ptr;

/// The names of a chip's lines, owned, in the form in which gpiolib keeps them.
///
/// There is one entry for each line, in the order of their offsets; a line may have no name.
/// gpiolib accepts a name more than once, but finds only one of its lines by it.
///
/// # Examples
///
/// ```
/// use kernel::gpio::LineNames;
///
/// let names = LineNames::new([Some(c"reset"), None, Some(c"ready")].into_iter())?;
///
/// assert_eq!(names.len(), 3);
/// assert!(names.get(0) == Some(c"reset"));
/// assert!(names.get(1).is_none());
/// assert!(names.get(3).is_none());
/// # Ok::<(), Error>(())
/// ```
///
/// # Invariants
///
/// Each entry of `entries` is null or points to a NUL-terminated string within `strings`, which is
/// never changed again.
pub struct LineNames {
    entries: KVVec<*const c_char>,
    // Only read through `entries`.
    _strings: KVVec<u8>,
}

// SAFETY: The pointers are to memory that the value owns and that nobody changes.
unsafe impl Send for LineNames {}

// SAFETY: As above; shared references only read.
unsafe impl Sync for LineNames {}

impl LineNames {
    /// Copies the names of all lines, of as many as the iterator yields. An empty name is no name.
    ///
    /// May sleep. Does not need physically contiguous memory, thus even a chip of 65535 long names
    /// can be had when memory is fragmented.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory for the copies.
    pub fn new<'a>(names: impl Iterator<Item = Option<&'a CStr>>) -> Result<Self> {
        let mut strings = KVVec::new();
        let mut starts = KVVec::new();

        for name in names {
            let start = match name {
                Some(name) if !name.is_empty() => {
                    let start = strings.len();
                    strings.extend_from_slice(name.to_bytes_with_nul(), GFP_KERNEL)?;
                    Some(start)
                }
                _ => None,
            };
            starts.push(start, GFP_KERNEL)?;
        }

        // Only now, as `strings` moves while it grows.
        let mut entries = KVVec::with_capacity(starts.len(), GFP_KERNEL)?;
        for &start in &starts {
            let entry = start
                .and_then(|start| strings.get(start..))
                .map_or(ptr::null(), |name: &[u8]| name.as_ptr().cast());
            entries.push(entry, GFP_KERNEL)?;
        }

        // INVARIANT: An entry that is not null points to where a C string was copied to; `strings`
        // has no method left that changes it.
        Ok(Self {
            entries,
            _strings: strings,
        })
    }

    /// The number of lines, named or not.
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no lines at all.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The name of the line at `offset`, if there is such a line and it has one.
    pub fn get(&self, offset: usize) -> Option<&CStr> {
        let &entry = self.entries.get(offset)?;

        if entry.is_null() {
            return None;
        }
        // SAFETY: By the type invariant, `entry` is a NUL-terminated string that nobody changes and
        // that lives as long as `self`.
        Some(unsafe { CStr::from_char_ptr(entry) })
    }

    /// The names as `struct gpio_chip` wants them: an array of [`Self::len`] pointers, valid as
    /// long as `self` lives, wherever it is moved to.
    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.entries.as_ptr()
    }
}
