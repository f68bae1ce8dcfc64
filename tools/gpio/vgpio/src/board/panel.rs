// SPDX-License-Identifier: GPL-2.0-only

//! A layout with the lines of the daemon's devices in it.

use serde::Serialize;

use super::layout::{Colour, Kind, Layout, Part};
use crate::control::{Device, Line};

/// A board as the page draws it. Lines are indices into `lines`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Panel {
    title: String,
    parts: Vec<Placed>,
    pub lines: Vec<Place>,
    /// Lines that are not shown, for want of a board file.
    left_out: usize,
}

/// Where a line is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    pub device: String,
    pub line: u16,
    name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Placed {
    kind: Kind,
    label: String,
    lines: Vec<usize>,
    key: Option<char>,
    active_low: bool,
    colour: Colour,
    /// Why there are no lines.
    error: Option<String>,
}

impl Panel {
    /// Finds the lines of `layout`, or of all lines if there is none.
    pub fn new(layout: Option<&Layout>, devices: &[Device], all: &[Line]) -> Self {
        let made;
        let (layout, left_out) = match layout {
            Some(layout) => (layout, 0),
            None => {
                let (layout, left_out) = Layout::of_names(all);
                made = layout;
                (&made, left_out)
            }
        };
        let title = layout.title.clone();
        let title = title.unwrap_or_else(|| match devices {
            [one] => one.label.clone(),
            _ => "vgpio".into(),
        });
        let mut panel = Self {
            title,
            left_out,
            ..Self::default()
        };
        for part in &layout.parts {
            let placed = panel.place(part, devices, all);
            panel.parts.push(placed);
        }
        panel
    }

    fn place(&mut self, part: &Part, devices: &[Device], all: &[Line]) -> Placed {
        let found: Result<Vec<_>, _> = part
            .texts()
            .map(|text| find(part.device.as_deref(), text, devices, all))
            .collect();
        let own_name = match found.as_deref() {
            Ok([line]) => line.name.clone(),
            _ => None,
        };
        let texts: Vec<_> = part.texts().map(String::as_str).collect();
        let label = part.label.clone().or(own_name);
        let label = label.unwrap_or_else(|| match part.kind {
            Kind::Digit => texts.join(" "),
            _ => format!("line {}", texts.join(" ")),
        });
        let (lines, error) = match found {
            Ok(found) => (found.into_iter().map(|it| self.index(it)).collect(), None),
            Err(e) => (Vec::new(), Some(e)),
        };
        Placed {
            kind: part.kind,
            label,
            lines,
            key: part.key,
            active_low: part.active_low,
            colour: part.colour,
            error,
        }
    }

    /// The index of a line, which it gets if it has none.
    fn index(&mut self, line: &Line) -> usize {
        let same = |it: &Place| it.line == line.line && it.device == line.device;
        let index = self.lines.iter().position(same);
        index.unwrap_or_else(|| {
            self.lines.push(Place {
                device: line.device.clone(),
                line: line.line,
                name: line.name.clone(),
            });
            self.lines.len() - 1
        })
    }
}

/// Finds a line as the daemon does: by number, if there is but one device, or by name.
fn find<'a>(
    device: Option<&str>,
    text: &str,
    devices: &[Device],
    all: &'a [Line],
) -> Result<&'a Line, String> {
    let label = match (device, devices) {
        (None, [one]) => Some(one.label.as_str()),
        (None, _) => None,
        (Some(device), _) => {
            let by_label = devices.iter().find(|it| it.label == device);
            let by_index = || devices.get(device.parse::<usize>().ok()?);
            let found = by_label.or_else(by_index);
            Some(found.ok_or(format!("no device {device:?}"))?.label.as_str())
        }
    };
    let mut candidates = all.iter().filter(|it| label.is_none_or(|l| l == it.device));
    if let (Some(_), Ok(number)) = (label, text.parse::<u16>()) {
        return candidates
            .find(|it| it.line == number)
            .ok_or(format!("no line {number}"));
    }
    let mut named = candidates.filter(|it| it.name.as_deref() == Some(text));
    match (named.next(), named.next()) {
        (Some(line), None) => Ok(line),
        (Some(_), Some(_)) => Err(format!("several devices have a line {text:?}")),
        (None, _) => Err(format!("no line {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::devices;
    use super::super::lines;
    use super::*;

    #[test]
    fn lines_are_found_as_the_daemon_finds_them() {
        let all = [lines("x", &["a", "b"]), lines("y", &["a", "7"])].concat();
        let both = devices(&["x", "y"]);
        let place = |device, text| {
            let line = find(device, text, &both, &all)?;
            Ok::<_, String>((line.device.as_str(), line.line))
        };
        assert_eq!(place(None, "b"), Ok(("x", 1)));
        assert_eq!(place(Some("y"), "a"), Ok(("y", 0)));
        assert_eq!(place(Some("1"), "1"), Ok(("y", 1)));
        assert_eq!(place(None, "7"), Ok(("y", 1)));
        assert_eq!(
            place(None, "a"),
            Err("several devices have a line \"a\"".into())
        );
        assert_eq!(place(None, "0"), Err("no line \"0\"".into()));
        assert_eq!(place(Some("z"), "a"), Err("no device \"z\"".into()));
        assert_eq!(place(Some("y"), "7"), Err("no line 7".into()));
        let one = devices(&["x"]);
        assert_eq!(find(None, "1", &one, &all[..2]).unwrap().line, 1);
    }

    #[test]
    fn a_line_that_is_missing_leaves_the_rest() {
        let text = "[[part]]\nkind = 'led'\nline = 'b'\n[[part]]\nkind = 'led'\nline = 'c'\n\
                    [[part]]\nkind = 'switch'\nline = '1'\n";
        let layout = Layout::parse(text).unwrap();
        let all = lines("x", &["a", "b"]);
        let panel = Panel::new(Some(&layout), &devices(&["x"]), &all);
        assert_eq!(panel.lines.len(), 1, "two parts have the same line");
        assert_eq!(panel.parts[1].error.as_deref(), Some("no line \"c\""));
        assert_eq!(panel.parts[2].lines, [0]);
    }
}
