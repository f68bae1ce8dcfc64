// SPDX-License-Identifier: GPL-2.0-only

//! What is on the board: read from a TOML file, or made of the lines' names.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::control::Line;

/// The most parts on a board, and the most lines.
pub const MOST: usize = 256;

/// The segments of a digit, in the order of its lines; the decimal point may be left out.
const SEGMENTS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "dp"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Active while it is held.
    Button,
    Switch,
    Led,
    /// Seven segments, and a point.
    Digit,
    /// A lamp and a switch.
    Line,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Colour {
    #[default]
    Red,
    Amber,
    Green,
    Blue,
    White,
}

/// A part of the board as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Part {
    pub kind: Kind,
    pub device: Option<String>,
    pub line: Option<String>,
    #[serde(default)]
    pub lines: Vec<String>,
    pub label: Option<String>,
    /// The key of the keyboard that works a button or a switch.
    pub key: Option<char>,
    #[serde(default)]
    pub active_low: bool,
    #[serde(default)]
    pub colour: Colour,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: Option<String>,
    #[serde(default)]
    part: Vec<Spanned<Part>>,
}

/// A board as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub title: Option<String>,
    pub parts: Vec<Part>,
}

impl Layout {
    /// Reads a board file.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        Self::parse(&text).map_err(|(line, e)| anyhow::anyhow!("{shown}:{line}: {e}"))
    }

    /// Reads the text of a board file. An error comes with the number of its line.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let number = |at: usize| {
            let before = text.as_bytes()[..at].iter();
            1 + before.filter(|byte| **byte == b'\n').count()
        };
        let file: File = toml::from_str(text).map_err(|e| {
            let start = e.span().map_or(0, |span| span.start);
            (number(start), e.message().replace('\n', "; "))
        })?;
        let mut keys = HashSet::new();
        let mut parts = Vec::new();
        let mut lines = 0;
        for part in file.part {
            let at = number(part.span().start);
            let part = part.into_inner();
            part.check().map_err(|e| (at, e))?;
            if let Some(key) = part.key {
                if !keys.insert(key) {
                    return Err((at, format!("key {key:?} is given twice")));
                }
            }
            lines += part.texts().count();
            if lines > MOST {
                return Err((at, format!("more than {MOST} lines on a board")));
            }
            parts.push(part);
        }
        Ok(Self {
            title: file.title,
            parts,
        })
    }

    /// Makes a layout of the names of the first lines. Returns it with the number of lines that are
    /// left out.
    pub fn of_names(all: &[Line]) -> (Self, usize) {
        let shown = &all[..all.len().min(MOST)];
        let mut digits = digits(shown);
        let mut parts = Vec::new();
        let mut keys = '1'..='9';
        for line in shown {
            let digit = digits.remove(&(line.device.as_str(), line.line));
            let (kind, lines) = match digit {
                // Drawn with the line of its first segment.
                Some(lines) if !lines.is_empty() => (Kind::Digit, lines),
                Some(_) => continue,
                None => (kind_of(line.name.as_deref().unwrap_or_default()), vec![]),
            };
            let number = line.line.to_string();
            let key = match kind {
                Kind::Button | Kind::Switch | Kind::Line => keys.next(),
                Kind::Led | Kind::Digit => None,
            };
            let label = match (kind, &line.name) {
                (Kind::Digit, Some(name)) => segment(name).map(|(stem, _)| stem.to_owned()),
                _ => None,
            };
            parts.push(Part {
                kind,
                device: Some(line.device.clone()),
                line: lines.is_empty().then_some(number),
                lines,
                label,
                key,
                active_low: false,
                colour: Colour::default(),
            });
        }
        let layout = Self { title: None, parts };
        (layout, all.len() - shown.len())
    }
}

impl Part {
    fn check(&self) -> Result<(), String> {
        if self.kind == Kind::Digit {
            if self.line.is_some() || !(7..=8).contains(&self.lines.len()) {
                return Err(
                    "a digit needs lines = [...]: segments a to g, and dp if it has one".into(),
                );
            }
        } else if self.line.is_none() || !self.lines.is_empty() {
            return Err("all parts but a digit need line = \"...\", an offset or a name".into());
        }
        match self.key {
            Some(_) if matches!(self.kind, Kind::Led | Kind::Digit) => {
                Err("a key is for a button, a switch or a line".into())
            }
            Some(key) if !key.is_ascii_graphic() => {
                Err(format!("bad key {key:?}: use a letter, a digit or a sign"))
            }
            _ => Ok(()),
        }
    }

    /// The lines as the user wrote them.
    pub fn texts(&self) -> impl Iterator<Item = &String> {
        self.line.iter().chain(&self.lines)
    }
}

/// What a line is for, by the words of its name.
fn kind_of(name: &str) -> Kind {
    let words = name.split(|it: char| !it.is_ascii_alphabetic());
    for word in words {
        match word.to_ascii_lowercase().as_str() {
            "led" | "leds" | "lamp" | "light" => return Kind::Led,
            "button" | "btn" | "key" | "push" | "reset" => return Kind::Button,
            "switch" | "sw" | "dip" | "jumper" => return Kind::Switch,
            _ => {}
        }
    }
    Kind::Line
}

/// Splits the name of a line of a digit, like `digit0-a`, into the digit and the segment.
fn segment(name: &str) -> Option<(&str, usize)> {
    let (stem, last) = name.rsplit_once(['-', '_', '.', ' '])?;
    let lower = stem.to_ascii_lowercase();
    if !["seg", "digit", "display"]
        .iter()
        .any(|it| lower.contains(it))
    {
        return None;
    }
    let index = SEGMENTS
        .iter()
        .position(|it| it.eq_ignore_ascii_case(last))?;
    Some((stem, index))
}

/// The lines that belong to digits. Those of the first segment come with the names of all.
fn digits(lines: &[Line]) -> BTreeMap<(&str, u16), Vec<String>> {
    let mut stems: BTreeMap<_, [Option<u16>; 8]> = BTreeMap::new();
    for line in lines {
        if let Some((stem, index)) = line.name.as_deref().and_then(segment) {
            stems.entry((line.device.as_str(), stem)).or_default()[index] = Some(line.line);
        }
    }
    let mut digits = BTreeMap::new();
    for ((device, _), found) in stems {
        if found[..7].iter().any(Option::is_none) {
            continue;
        }
        let numbers: Vec<_> = found.into_iter().flatten().collect();
        for number in &numbers[1..] {
            digits.insert((device, *number), Vec::new());
        }
        let all = numbers.iter().map(u16::to_string).collect();
        digits.insert((device, numbers[0]), all);
    }
    digits
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::board::lines;
    use crate::control::Device;

    pub fn devices(labels: &[&str]) -> Vec<Device> {
        let device = |label: &&str| Device {
            label: label.to_string(),
            socket: String::new(),
            lines: 2,
            irq: true,
            connected: false,
        };
        labels.iter().map(device).collect()
    }

    #[test]
    fn names_tell_what_lines_are() {
        let names = ["led-red", "USER_BTN", "sw1", "", "enabled", "key:a"];
        let (layout, left_out) = Layout::of_names(&lines("d", &names));
        let kinds: Vec<_> = layout.parts.iter().map(|it| it.kind).collect();
        use Kind::*;
        assert_eq!(kinds, [Led, Button, Switch, Line, Line, Button]);
        let keys: Vec<_> = layout.parts.iter().map(|it| it.key).collect();
        let wanted = [None, Some('1'), Some('2'), Some('3'), Some('4'), Some('5')];
        assert_eq!(keys, wanted);
        assert_eq!(left_out, 0);
        layout.parts.iter().for_each(|it| it.check().unwrap());
    }

    #[test]
    fn lines_of_a_digit_are_one_part() {
        let mut names: Vec<_> = SEGMENTS.iter().map(|it| format!("digit0-{it}")).collect();
        names.swap(0, 3);
        names.push("digit1-a".into());
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let (layout, _) = Layout::of_names(&lines("d", &names));
        assert_eq!(layout.parts.len(), 2);
        let digit = layout.parts.iter().find(|it| it.kind == Kind::Digit);
        let digit = digit.unwrap();
        assert_eq!(digit.lines, ["3", "1", "2", "0", "4", "5", "6", "7"]);
        assert_eq!(digit.label.as_deref(), Some("digit0"));
        digit.check().unwrap();
        assert!(layout.parts.iter().any(|it| it.kind == Kind::Line));
    }

    #[test]
    fn many_lines_are_cut_off() {
        let (layout, left_out) = Layout::of_names(&lines("d", &[""; MOST + 7]));
        assert_eq!((layout.parts.len(), left_out), (MOST, 7));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, line, part) in [
            ("title = 3\n", 1, "invalid type"),
            (
                "[[part]]\nkind = 'led'\nline = 'a'\n[[part]]\nkind = 'lamp'\n",
                5,
                "unknown variant",
            ),
            ("\n[[part]]\nline = 'a'\n", 2, "missing field"),
            ("\n[[part]]\nkind = 'led'\n", 2, "need line"),
            (
                "[[part]]\nkind = 'led'\nline = 'a'\nlime = 'b'\n",
                4,
                "unknown field",
            ),
            (
                "[[part]]\nkind = 'digit'\nlines = ['a']\n",
                1,
                "a digit needs lines",
            ),
            (
                "[[part]]\nkind = 'led'\nline = 'a'\nkey = 'x'\n",
                1,
                "a key is for",
            ),
            (
                "[[part]]\nkind = 'button'\nline = 'a'\nkey = \"\\n\"\n",
                1,
                "bad key",
            ),
            (
                "[[part]]\nkind = 'button'\nline = 'a'\nkey = 'x'\n\
                 [[part]]\nkind = 'button'\nline = 'b'\nkey = 'x'\n",
                5,
                "given twice",
            ),
            ("[[part]]\nkind = 'led'\nline = \n", 3, ""),
        ] {
            let (at, error) = Layout::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
            assert_eq!(at, line, "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let many = "[[part]]\nkind = 'led'\nline = 'a'\n".repeat(MOST + 1);
        let (at, error) = Layout::parse(&many).unwrap_err();
        assert_eq!(
            (at, error.as_str()),
            (3 * MOST + 1, "more than 256 lines on a board")
        );
    }

    #[test]
    fn all_keys() {
        let text = "title = 'T'\n[[part]]\nkind = 'button'\ndevice = 'd'\nline = '0'\n\
                    label = 'L'\nkey = 'k'\nactive-low = true\ncolour = 'blue'\n";
        let layout = Layout::parse(text).unwrap();
        assert_eq!(layout.title.as_deref(), Some("T"));
        let part = &layout.parts[0];
        assert_eq!((part.key, part.active_low), (Some('k'), true));
        assert_eq!(part.colour, Colour::Blue);
    }
}
