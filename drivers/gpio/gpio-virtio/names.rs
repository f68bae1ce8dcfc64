// SPDX-License-Identifier: GPL-2.0

//! Names of the lines.
//!
//! The device hands out the names of all lines in one block: a string with its terminating NUL for
//! each line, the empty one for a line without name. The block is untrusted. A line whose name
//! cannot be used gets none, which costs nothing but convenience, and the [`Report`] counts such
//! lines, so that one message can speak of all of them.

use kernel::{
    prelude::*,
    sort::sort_by, //
};

/// What is wrong with the names, in numbers of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The block ends before the names of these lines.
    pub(crate) missing: u32,
    /// Not printable ASCII, or not terminated.
    pub(crate) malformed: u32,
    /// A line with a lower number has the same name.
    pub(crate) duplicate: u32,
}

impl Report {
    /// Returns whether all is well.
    pub(crate) fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// The names of the lines, borrowed from the block that the device has written.
///
/// # Invariants
///
/// Each name has at least one character, all characters are printable ASCII or spaces, and no two
/// lines have the same name.
pub(crate) struct Names<'a> {
    names: KVVec<Option<&'a CStr>>,
    report: Report,
}

impl<'a> Names<'a> {
    /// Takes the names of `ngpio` lines out of `block`.
    ///
    /// What is left of the block after the name of the last line is ignored.
    ///
    /// Time and memory are bounded by the sizes alone, whatever is in the block: it is scanned
    /// once, duplicates are found by sorting, and each line takes the memory of a fat pointer and
    /// of its number.
    ///
    /// # Errors
    ///
    /// - `ENOMEM` if there is not enough memory.
    pub(crate) fn parse(block: &'a [u8], ngpio: u16) -> Result<Self> {
        let mut names = KVVec::with_capacity(ngpio.into(), GFP_KERNEL)?;
        let mut report = Report::default();
        let mut strings = block.split_inclusive(|&byte| byte == 0);

        for _ in 0..ngpio {
            let name = match strings.next().map(CStr::from_bytes_with_nul) {
                Some(Ok(string)) if string.is_empty() => None,
                Some(Ok(string)) if is_printable(string) => Some(string),
                // An error is a string that the block ends in before its NUL.
                Some(_) => {
                    report.malformed += 1;
                    None
                }
                None => {
                    report.missing += 1;
                    None
                }
            };

            names.push(name, GFP_KERNEL)?;
        }
        report.duplicate = drop_duplicates(&mut names)?;

        // INVARIANT: Other names were left out above.
        Ok(Self { names, report })
    }

    /// Returns the name of each line, in order, and [`None`] for a line without name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Option<&'a CStr>> + Clone + '_ {
        self.names.iter().copied()
    }

    /// Returns what was wrong with the names in the block.
    pub(crate) fn report(&self) -> Report {
        self.report
    }
}

/// Returns whether all characters are printable 7-bit ASCII or spaces.
fn is_printable(name: &CStr) -> bool {
    name.to_bytes()
        .iter()
        .all(|byte| matches!(byte, b' '..=b'~'))
}

/// Takes their names away from lines whose name a line with a lower number has.
///
/// Returns the number of these lines.
fn drop_duplicates(names: &mut [Option<&CStr>]) -> Result<u32> {
    let mut lines = KVVec::with_capacity(names.len(), GFP_KERNEL)?;
    let mut last = None;
    let mut count = 0;

    for (line, name) in (0..u16::MAX).zip(names.iter()) {
        if name.is_some() {
            lines.push(line, GFP_KERNEL)?;
        }
    }
    sort_by(&mut lines, |&one, &other| {
        let key = |line: u16| (names.get(usize::from(line)).copied().flatten(), line);

        key(one).cmp(&key(other))
    });

    for &line in &lines {
        let Some(name) = names.get_mut(usize::from(line)) else {
            continue;
        };

        if *name == last {
            *name = None;
            count += 1;
        } else {
            last = *name;
        }
    }

    Ok(count)
}

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
#[kunit_tests(gpio_virtio_names)]
mod tests {
    use super::*;

    /// Returns whether parsing `block` results in exactly these names and this report.
    fn parses(block: &[u8], expected: &[Option<&CStr>], report: Report) -> Result<bool> {
        let names = Names::parse(block, expected.len() as u16)?;

        Ok(names.iter().eq(expected.iter().copied()) && names.report() == report)
    }

    const CLEAN: Report = Report {
        missing: 0,
        malformed: 0,
        duplicate: 0,
    };

    #[test]
    fn plain() -> Result {
        assert!(parses(
            b"a\0bc\0def\0",
            &[Some(c"a"), Some(c"bc"), Some(c"def")],
            CLEAN
        )?);
        assert!(CLEAN.is_clean());
        Ok(())
    }

    #[test]
    fn unnamed() -> Result {
        assert!(parses(
            b"\0a\0\0\0",
            &[None, Some(c"a"), None, None],
            CLEAN
        )?);
        Ok(())
    }

    #[test]
    fn no_lines() -> Result {
        assert!(parses(b"", &[], CLEAN)?);
        assert!(parses(b"a\0", &[], CLEAN)?);
        Ok(())
    }

    #[test]
    fn empty_block() -> Result {
        let report = Report {
            missing: 2,
            ..CLEAN
        };

        assert!(parses(b"", &[None, None], report)?);
        assert!(!report.is_clean());
        Ok(())
    }

    #[test]
    fn fewer_names_than_lines() -> Result {
        // The last name ends exactly at the end of the block.
        let report = Report {
            missing: 1,
            ..CLEAN
        };

        assert!(parses(b"AAAAAA\0", &[Some(c"AAAAAA"), None], report)?);
        Ok(())
    }

    #[test]
    fn more_names_than_lines() -> Result {
        assert!(parses(b"a\0b\0c\0d", &[Some(c"a"), Some(c"b")], CLEAN)?);
        assert!(parses(b"a\0a\0", &[Some(c"a")], CLEAN)?);
        Ok(())
    }

    #[test]
    fn unterminated() -> Result {
        let report = Report {
            malformed: 1,
            ..CLEAN
        };

        assert!(parses(b"a\0bc", &[Some(c"a"), None], report)?);
        assert!(parses(b"a", &[None], report)?);
        assert!(parses(
            b"a",
            &[None, None],
            Report {
                missing: 1,
                ..report
            }
        )?);
        Ok(())
    }

    #[test]
    fn characters() -> Result {
        let report = Report {
            malformed: 1,
            ..CLEAN
        };

        for byte in 1..=u8::MAX {
            let block = [b'<', byte, b'>', 0];
            let names = Names::parse(&block, 1)?;

            if byte == b' ' || byte.is_ascii_graphic() {
                let name = CStr::from_bytes_with_nul(&block).map_err(|_| EINVAL)?;

                assert!(names.iter().eq([Some(name)]));
                assert_eq!(names.report(), CLEAN);
            } else {
                assert!(names.iter().eq([None]));
                assert_eq!(names.report(), report);
            }
        }
        Ok(())
    }

    #[test]
    fn duplicates() -> Result {
        let report = Report {
            duplicate: 3,
            ..CLEAN
        };

        // The first line that has a name keeps it. Lines without name are no duplicates.
        assert!(parses(
            b"b\0a\0b\0\0a\0b\0\0",
            &[Some(c"b"), Some(c"a"), None, None, None, None, None],
            report
        )?);
        Ok(())
    }

    #[test]
    fn prefixes_are_no_duplicates() -> Result {
        assert!(parses(
            b"aa\0a\0aaa\0",
            &[Some(c"aa"), Some(c"a"), Some(c"aaa")],
            CLEAN
        )?);
        Ok(())
    }

    #[test]
    fn malformed_is_no_duplicate() -> Result {
        let report = Report {
            malformed: 2,
            ..CLEAN
        };

        assert!(parses(
            b"a\x07\0a\x07\0a\0",
            &[None, None, Some(c"a")],
            report
        )?);
        Ok(())
    }

    #[test]
    fn all_wrong() -> Result {
        let report = Report {
            missing: 2,
            malformed: 2,
            duplicate: 1,
        };

        assert!(parses(
            b"a\0\x80\0a\0bcd",
            &[Some(c"a"), None, None, None, None, None],
            report
        )?);
        Ok(())
    }

    #[test]
    fn walked_twice() -> Result {
        let names = Names::parse(b"a\0b\0", 2)?;
        let iter = names.iter();

        assert!(iter.clone().eq([Some(c"a"), Some(c"b")]));
        assert!(iter.eq([Some(c"a"), Some(c"b")]));
        Ok(())
    }

    #[test]
    fn many_zeros() -> Result {
        let block = KVVec::from_elem(0u8, 1 << 20, GFP_KERNEL)?;
        let names = Names::parse(&block, u16::MAX)?;

        assert_eq!(names.iter().count(), u16::MAX.into());
        assert_eq!(names.iter().flatten().count(), 0);
        assert_eq!(names.report(), CLEAN);
        Ok(())
    }

    #[test]
    fn one_long_name() -> Result {
        let mut block = KVVec::from_elem(b'a', 1 << 20, GFP_KERNEL)?;
        let report = Report {
            malformed: 1,
            missing: u32::from(u16::MAX) - 1,
            ..CLEAN
        };

        assert_eq!(Names::parse(&block, u16::MAX)?.report(), report);

        // Terminated, it is a name.
        block.push(0, GFP_KERNEL)?;
        let names = Names::parse(&block, u16::MAX)?;

        assert_eq!(
            names.report(),
            Report {
                malformed: 0,
                ..report
            }
        );
        assert_eq!(
            names.iter().flatten().map(CStr::count_bytes).sum::<usize>(),
            1 << 20
        );
        Ok(())
    }

    #[test]
    fn many_duplicates() -> Result {
        let mut block = KVVec::with_capacity(5 * usize::from(u16::MAX), GFP_KERNEL)?;

        for _ in 0..u16::MAX {
            block.extend_from_slice(b"same\0", GFP_KERNEL)?;
        }

        let names = Names::parse(&block, u16::MAX)?;
        let report = Report {
            duplicate: u32::from(u16::MAX) - 1,
            ..CLEAN
        };

        assert_eq!(names.report(), report);
        assert_eq!(names.iter().next(), Some(Some(c"same")));
        assert_eq!(names.iter().flatten().count(), 1);
        Ok(())
    }

    #[test]
    fn many_names() -> Result {
        let mut block = KVVec::new();

        // Out of order, so that sorting has something to do; each name is there twice.
        for line in 0..u16::MAX {
            let number = line.wrapping_mul(0x6487) & 0x7fff;

            for shift in [12, 8, 4, 0] {
                block.push(b'a' + (number >> shift & 0xf) as u8, GFP_KERNEL)?;
            }
            block.push(0, GFP_KERNEL)?;
        }

        let names = Names::parse(&block, u16::MAX)?;

        assert_eq!(
            names.report(),
            Report {
                duplicate: 0x7fff,
                ..CLEAN
            }
        );
        assert_eq!(names.iter().take(0x8000).flatten().count(), 0x8000);
        assert_eq!(names.iter().skip(0x8000).flatten().count(), 0);
        Ok(())
    }
}
