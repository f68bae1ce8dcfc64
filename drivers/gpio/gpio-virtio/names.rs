// SPDX-License-Identifier: GPL-2.0

//! Parser of the block of line names.
//!
//! The device hands out the names of all lines in one block: a string with its terminating NUL for
//! each line, the empty one for a line without name. The block is untrusted: a line whose name is
//! missing, not terminated, or not printable gets none.

use kernel::prelude::*;

/// Returns the name of each of `ngpio` lines in `block`, [`None`] for a line without name.
pub(crate) fn parse(block: &[u8], ngpio: u16) -> impl Iterator<Item = Option<&CStr>> + '_ {
    let mut strings = block.split_inclusive(|&byte| byte == 0);

    (0..ngpio).map(move |_| {
        let name = CStr::from_bytes_with_nul(strings.next()?).ok()?;
        let is_printable = (name.to_bytes().iter()).all(|byte| matches!(byte, b' '..=b'~'));

        (is_printable && !name.is_empty()).then_some(name)
    })
}

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
#[kunit_tests(gpio_virtio_names)]
mod tests {
    use super::*;

    fn assert_names(block: &[u8], expected: &[Option<&CStr>]) {
        // CAST: There are a few.
        let mut names = parse(block, expected.len() as u16);

        for &name in expected {
            assert_eq!(names.next(), Some(name));
        }
        assert_eq!(names.next(), None);
    }

    #[test]
    fn each_line_has_its_name() {
        assert_names(b"a\0bc\0d e\0", &[Some(c"a"), Some(c"bc"), Some(c"d e")]);
    }

    #[test]
    fn empty_name_is_none() {
        assert_names(b"\0a\0\0", &[None, Some(c"a"), None]);
    }

    #[test]
    fn missing_names_are_none() {
        assert_names(b"a\0", &[Some(c"a"), None, None]);
        assert_names(b"", &[None]);
    }

    #[test]
    fn name_without_end_is_none() {
        assert_names(b"a\0bc", &[Some(c"a"), None]);
    }

    #[test]
    fn name_that_is_not_printable_is_none() {
        assert_names(b"a\x1f\0\x7f\0\xff\0~ \0", &[None, None, None, Some(c"~ ")]);
    }

    #[test]
    fn what_follows_the_last_name_is_ignored() {
        assert_names(b"a\0b\0c\0", &[Some(c"a")]);
    }
}
