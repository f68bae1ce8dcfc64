// SPDX-License-Identifier: GPL-2.0-only

//! Line names: checks, and the memory block in which the guest reads them.

use std::collections::HashMap;

use anyhow::{ensure, Result};

/// The names of all lines; an empty name means that the line has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    names: Vec<String>,
    lines: HashMap<String, u16>,
    block: Vec<u8>,
}

impl Names {
    /// Checks `names` for a device of `lines` lines; lines beyond the list are unnamed.
    pub fn new(mut names: Vec<String>, lines: u16) -> Result<Self> {
        let lines = usize::from(lines);
        ensure!(
            names.len() <= lines,
            "{} names for {lines} lines: give at most one name per line",
            names.len()
        );
        let mut by_name = HashMap::new();
        for (line, name) in (0..).zip(&names).filter(|(_, name)| !name.is_empty()) {
            ensure!(
                name.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
                "name {name:?} of line {line} is not printable 7-bit ASCII"
            );
            if let Some(first) = by_name.insert(name.clone(), line) {
                anyhow::bail!(
                    "name {name:?} is given to lines {first} and {line}: names must be unique"
                );
            }
        }
        names.resize(lines, String::new());

        let mut block = Vec::new();
        if names.iter().any(|name| !name.is_empty()) {
            for name in &names {
                block.extend_from_slice(name.as_bytes());
                block.push(0);
            }
        }
        Ok(Self {
            names,
            lines: by_name,
            block,
        })
    }

    /// The name of `line`, if it has one.
    pub fn get(&self, line: u16) -> Option<&str> {
        let name = self.names.get(usize::from(line))?;
        (!name.is_empty()).then_some(name)
    }

    /// The line called `name`.
    pub fn find(&self, name: &str) -> Option<u16> {
        self.lines.get(name).copied()
    }

    /// All names, each terminated by a zero; nothing at all if no line has a name.
    pub fn block(&self) -> &[u8] {
        &self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str], lines: u16) -> Result<Names> {
        Names::new(list.iter().map(|name| name.to_string()).collect(), lines)
    }

    #[test]
    fn block_has_one_string_per_line() {
        let names = names(&["a", "", "bc"], 5).unwrap();
        assert_eq!(names.block(), b"a\0\0bc\0\0\0");
        assert_eq!(names.get(0), Some("a"));
        assert_eq!(names.get(1), None);
        assert_eq!(names.get(4), None);
        assert_eq!(names.get(5), None);
        assert_eq!(names.find("bc"), Some(2));
        assert_eq!(names.find(""), None);
    }

    #[test]
    fn v8_no_names_no_block() {
        assert!(names(&[], 3).unwrap().block().is_empty());
        assert!(names(&["", ""], 3).unwrap().block().is_empty());
    }

    #[test]
    fn bad_lists_are_refused() {
        for (list, text) in [
            (&["a", "b", "c"][..], "3 names for 2 lines"),
            (&["x", "x"], "must be unique"),
            (&["gr\u{fc}n"], "7-bit ASCII"),
            (&["a\tb"], "7-bit ASCII"),
        ] {
            let error = names(list, 2).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
