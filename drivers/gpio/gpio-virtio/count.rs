// SPDX-License-Identifier: GPL-2.0

//! Counters that nothing but debugfs shows.

use kernel::fmt;

/// How often something has happened. Takes neither room nor time without debugfs.
#[derive(Clone, Copy, Default)]
pub(crate) struct Count(#[cfg(CONFIG_DEBUG_FS)] u64);

impl Count {
    /// It has happened once more.
    #[inline]
    pub(crate) fn up(&mut self) {
        #[cfg(CONFIG_DEBUG_FS)]
        {
            self.0 = self.0.wrapping_add(1);
        }
    }

    /// Returns how often it has happened; 0 without debugfs.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        #[cfg(CONFIG_DEBUG_FS)]
        {
            self.0
        }
        #[cfg(not(CONFIG_DEBUG_FS))]
        {
            0
        }
    }
}

/// Shows numbers, a line for each.
pub(crate) fn show(f: &mut fmt::Formatter<'_>, numbers: &[(&str, u64)]) -> fmt::Result {
    for (what, number) in numbers {
        writeln!(f, "  {what}: {number}")?;
    }
    Ok(())
}

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(gpio_virtio_count)]
mod tests {
    use super::Count;

    #[test]
    fn counts_if_somebody_can_see_it() {
        let mut count = Count::default();

        for _ in 0..12 {
            count.up();
        }
        assert_eq!(count.get(), if cfg!(CONFIG_DEBUG_FS) { 12 } else { 0 });
    }

    #[test]
    fn takes_no_room_otherwise() {
        let size = size_of::<Count>();

        assert_eq!(size, if cfg!(CONFIG_DEBUG_FS) { 8 } else { 0 });
    }
}
