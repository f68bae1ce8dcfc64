// SPDX-License-Identifier: GPL-2.0-only

//! `plot`: draws a VCD file as a timing diagram, in SVG.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::wave::{self, Change, Signal, Value, Wave};

/// Pixels: of the diagram without the names, of a row, and of a level.
const WIDTH: u64 = 1000;
const ROW: usize = 30;
const HIGH: usize = 7;
const LOW: usize = 23;
const TOP: usize = 30;
const BOTTOM: usize = 30;
const MARGIN: usize = 14;
/// Of a letter, about.
const LETTER: usize = 8;

/// The longest name that is drawn, in letters.
const NAME: usize = 32;

const STYLE: &str = "\
text { font: 13px sans-serif; fill: #222 }
.paper { fill: #fff }
.grid { stroke: #ddd; fill: none }
.host, .guest, .unknown, .word { stroke: #1b6ab5; fill: none; stroke-width: 1.5; stroke-linecap: square }
.guest { stroke: #b5501b; stroke-width: 3 }
.unknown { stroke: #888; stroke-dasharray: 2 4 }
@media (prefers-color-scheme: dark) {
text { fill: #ddd }
.paper { fill: #181818 }
.grid { stroke: #444 }
.host, .word { stroke: #6cb2f7 }
.guest { stroke: #ff9d5c }
}
";

/// What part of a file is drawn.
#[derive(Clone, Debug, Default)]
pub struct Part {
    pub from: Option<Duration>,
    pub to: Option<Duration>,
    /// Also signals that are not levels on the wire.
    pub all: bool,
    /// Names of signals, or of lines, or offsets; all if none is given.
    pub lines: Vec<String>,
}

/// Draws `path` into `out`.
pub fn plot(path: &Path, out: &Path, part: &Part) -> Result<()> {
    let wave = wave::read(path)?;
    let svg = svg(&wave, part).with_context(|| path.display().to_string())?;
    std::fs::write(out, svg).with_context(|| format!("cannot write {}", out.display()))
}

/// Where times are, horizontally.
struct Axis {
    from: u64,
    to: u64,
    left: u64,
}

impl Axis {
    /// In half pixels, which is as fine as can be seen.
    fn at(&self, time: u64) -> u64 {
        let passed = u128::from(time.clamp(self.from, self.to) - self.from);
        let span = u128::from(self.to - self.from);
        2 * self.left + (2 * u128::from(WIDTH) * passed / span) as u64
    }

    /// The times of the grid, with their labels.
    fn ticks(&self) -> impl Iterator<Item = (u64, String)> + '_ {
        let step = step((self.to - self.from) / 8);
        let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs")];
        let unit = units.into_iter().find(|(nanos, _)| step >= *nanos);
        let (nanos, unit) = unit.unwrap_or((1, "ns"));
        let first = self.from.div_ceil(step);
        (first..=self.to / step).map(move |it| (it * step, format!("{} {unit}", it * step / nanos)))
    }
}

/// The least of 1, 2, 5, 10, 20, ... that is not less than `least`.
fn step(least: u64) -> u64 {
    let decades = (0..=18).map(|power| 10u64.pow(power));
    let mut steps = decades.flat_map(|it| [1, 2, 5].map(|digit| digit * it));
    steps.find(|it| *it >= least).unwrap_or(u64::MAX)
}

/// Draws `part` of `wave`.
pub fn svg(wave: &Wave, part: &Part) -> Result<String> {
    let rows = rows(wave, part)?;
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let from = part.from.map_or(0, nanos);
    let to = part.to.map_or(wave.end, nanos);
    ensure!(from < to, "nothing to draw from {from} ns to {to} ns");
    let devices: HashSet<_> = rows
        .iter()
        .filter_map(|row| row.signal.line.as_ref().map(|line| &line.device))
        .collect();
    let names: Vec<_> = rows
        .iter()
        .map(|row| label(row.signal, devices.len() > 1))
        .collect();
    let letters = names.iter().map(|it| it.chars().count()).max();
    let left = (2 * MARGIN + LETTER * letters.unwrap_or(0)) as u64;
    let axis = Axis { from, to, left };

    let width = left as usize + WIDTH as usize + 3 * MARGIN;
    let bottom = TOP + ROW * rows.len();
    let height = bottom + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\">\n<style>\n{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    for (time, label) in axis.ticks() {
        let x = pixels(axis.at(time));
        writeln!(svg, "<path class=\"grid\" d=\"M{x} {TOP}V{bottom}\"/>")?;
        let y = bottom + 18;
        writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>"
        )?;
    }
    if rows.iter().any(|row| row.guest.is_some()) {
        for (x, class, words) in [
            (left, "host", "the host drives"),
            (left + 160, "guest", "the guest drives"),
        ] {
            writeln!(svg, "<path class=\"{class}\" d=\"M{x} 15h24\"/>")?;
            writeln!(svg, "<text x=\"{}\" y=\"19\">{words}</text>", x + 32)?;
        }
    }
    let changes = by_signal(wave);
    for (index, (row, name)) in rows.iter().zip(&names).enumerate() {
        let y = TOP + ROW * index;
        writeln!(svg, "<g transform=\"translate(0 {y})\">")?;
        let x = left as usize - MARGIN;
        writeln!(
            svg,
            "<text x=\"{x}\" y=\"19\" text-anchor=\"end\">{}</text>",
            escape(name)
        )?;
        let guest = row.guest.map_or(&[][..], |guest| &changes[guest]);
        draw(&axis, &changes[row.index], guest, &mut svg)?;
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// A signal to draw, and the one that tells whether the guest drives it.
struct Row<'a> {
    index: usize,
    signal: &'a Signal,
    guest: Option<usize>,
}

fn rows<'a>(wave: &'a Wave, part: &Part) -> Result<Vec<Row<'a>>> {
    let mut found = vec![false; part.lines.len()];
    let mut rows = Vec::new();
    for (index, signal) in wave.signals.iter().enumerate() {
        let on_wire = signal.line.is_some() && !signal.name.contains('.');
        if signal.line.is_some() && !on_wire && !part.all {
            continue;
        }
        let line = signal.line.as_deref();
        let offset = line.map(|line| line.line.to_string());
        let line_name = line.and_then(|line| line.name.as_ref());
        let mut wanted = part.lines.is_empty();
        for (found, name) in found.iter_mut().zip(&part.lines) {
            if name == &signal.name || Some(name) == line_name || Some(name) == offset.as_ref() {
                *found = true;
                wanted = true;
            }
        }
        if !wanted {
            continue;
        }
        // The recorder writes the signals of a line one after the other.
        let mates = wave.signals.iter().enumerate().skip(index + 1).take(2);
        let guest = mates
            .filter(|(_, mate)| on_wire && mate.line == signal.line)
            .filter(|(_, mate)| mate.name.ends_with(".guest"))
            .map(|(index, _)| index);
        rows.push(Row {
            index,
            signal,
            guest: guest.last(),
        });
    }
    if let Some(missing) = found.iter().position(|found| !found) {
        anyhow::bail!("no signal for a line {:?}", part.lines[missing]);
    }
    Ok(rows)
}

/// The changes of each signal.
fn by_signal(wave: &Wave) -> Vec<Vec<&Change>> {
    let mut changes = vec![Vec::new(); wave.signals.len()];
    for change in &wave.changes {
        changes[change.signal].push(change);
    }
    changes
}

/// Draws a row. Of all that happens within half a pixel only that there was something, and what
/// came out of it.
fn draw(axis: &Axis, changes: &[&Change], guest: &[&Change], svg: &mut String) -> Result<()> {
    let mut pen = Pen::new(axis);
    let mut changes = changes.iter().copied().peekable();
    let mut guest = guest.iter().copied().peekable();
    loop {
        let next = [changes.peek(), guest.peek()];
        let Some(time) = next.into_iter().flatten().map(|it| it.time).min() else {
            break;
        };
        // Who drives changes first: a level is that of the new driver.
        while let Some(change) = guest.next_if(|it| it.time == time) {
            pen.go_to(axis.at(time));
            pen.guest = change.value == Value::Level(Some(true));
        }
        while let Some(change) = changes.next_if(|it| it.time == time) {
            pen.go_to(axis.at(time));
            pen.set(&change.value, time >= axis.from && time <= axis.to);
        }
    }
    pen.go_to(axis.at(axis.to));
    for (class, path) in [
        ("unknown", &pen.unknown),
        ("host", &pen.host),
        ("guest", &pen.guests),
    ] {
        if !path.is_empty() {
            writeln!(svg, "<path class=\"{class}\" d=\"{path}\"/>")?;
        }
    }
    svg.push_str(&pen.words);
    Ok(())
}

/// Draws from left to right.
struct Pen {
    x: u64,
    value: Value,
    guest: bool,
    /// Where the last vertical line was.
    edge: Option<u64>,
    unknown: String,
    host: String,
    guests: String,
    words: String,
}

impl Pen {
    fn new(axis: &Axis) -> Self {
        Self {
            x: axis.at(axis.from),
            value: Value::Level(None),
            guest: false,
            edge: None,
            unknown: String::new(),
            host: String::new(),
            guests: String::new(),
            words: String::new(),
        }
    }

    fn path(&mut self) -> &mut String {
        match (&self.value, self.guest) {
            (Value::Level(None), _) => &mut self.unknown,
            (_, true) => &mut self.guests,
            (_, false) => &mut self.host,
        }
    }

    /// Draws what lasts until `x`.
    fn go_to(&mut self, x: u64) {
        if x <= self.x {
            return;
        }
        let (start, end) = (pixels(self.x), pixels(x));
        let room = (x - self.x) as usize / 2;
        let line = match &self.value {
            Value::Level(level) => {
                let y = height(*level);
                format!("M{start} {y}H{end}")
            }
            Value::Text(text) => {
                if room > LETTER * text.chars().count().max(1) {
                    let middle = pixels((self.x + x) / 2);
                    let text = escape(text);
                    self.words.push_str(&format!(
                        "<text x=\"{middle}\" y=\"19\" text-anchor=\"middle\">{text}</text>\n"
                    ));
                }
                format!("M{start} {HIGH}H{end}V{LOW}H{start}Z")
            }
        };
        self.path().push_str(&line);
        self.x = x;
    }

    /// Goes to another value, and draws the edge if it is `visible`.
    fn set(&mut self, value: &Value, visible: bool) {
        if *value == self.value {
            return;
        }
        let before = std::mem::replace(&mut self.value, value.clone());
        if let (Value::Level(Some(_)), Value::Level(Some(_)), true) = (&before, value, visible) {
            if self.edge != Some(self.x) {
                let line = format!("M{} {HIGH}V{LOW}", pixels(self.x));
                self.path().push_str(&line);
                self.edge = Some(self.x);
            }
        }
    }
}

fn height(level: Option<bool>) -> usize {
    match level {
        Some(true) => HIGH,
        Some(false) => LOW,
        None => (HIGH + LOW) / 2,
    }
}

/// Half pixels as pixels.
fn pixels(halves: u64) -> String {
    if halves % 2 == 0 {
        (halves / 2).to_string()
    } else {
        format!("{}.5", halves / 2)
    }
}

/// The name of a row: that of the line if it is a recording, after the device if `several` have rows.
fn label(signal: &Signal, several: bool) -> String {
    let name = match signal.line.as_deref() {
        Some(line) => {
            let part = signal.name.find('.').map_or("", |dot| &signal.name[dot..]);
            let offset = || format!("line {}", line.line);
            let name = line.name.clone().unwrap_or_else(offset);
            let device = if several { &line.device } else { "" };
            format!("{device} {name}{part}").trim_start().to_owned()
        }
        None => signal.name.clone(),
    };
    if name.chars().count() <= NAME {
        return name;
    }
    name.chars().take(NAME - 1).chain(['…']).collect()
}

/// Text as XML has it; what XML cannot have is replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "$timescale 1 us $end \
        $comment {\"device\":\"d\",\"line\":4,\"name\":\"a<b\"} $end \
        $var wire 1 l a_b $end $var wire 1 h a_b.host $end $var wire 1 g a_b.guest $end \
        $var string 1 i a_b.irq $end $enddefinitions $end ";

    fn draw(changes: &str, part: &Part) -> Result<String> {
        let wave = wave::parse(format!("{HEADER}{changes}").as_bytes()).unwrap();
        svg(&wave, part)
    }

    #[test]
    fn edges_are_where_they_belong() {
        // 8 letters of margin and 3 of the name are left of time zero; 1000 pixels are 10 ms.
        let text = "#0 0l 0h 0g snone i #1000 1l #2000 1g #4000 0l #10000";
        let svg = draw(text, &Part::default()).unwrap();
        assert!(svg.contains(">a&lt;b<"), "{svg}");
        let path = |class| {
            let line = svg.lines().find(|it| {
                it.starts_with(&format!("<path class=\"{class}\" d=\"M5")) && it.contains('H')
            });
            line.unwrap_or_default().to_owned()
        };
        assert_eq!(
            path("host"),
            "<path class=\"host\" d=\"M52 23H152M152 7V23M152 7H252\"/>"
        );
        assert!(svg.contains("<path class=\"guest\" d=\"M252 7H452M452 7V23M452 23H1052\"/>"));
        assert!(!svg.contains("none<"), "{svg}");
        for (x, label) in [(52, "0 ms"), (252, "2 ms"), (1052, "10 ms")] {
            let tick = format!("<text x=\"{x}\" y=\"78\" text-anchor=\"middle\">{label}</text>");
            assert!(svg.contains(&tick), "{tick}: {svg}");
        }

        let part = Part {
            from: Some(Duration::from_micros(900)),
            to: Some(Duration::from_micros(1900)),
            all: true,
            lines: vec!["4".into()],
        };
        let svg = draw(text, &part).unwrap();
        for text in [
            "M100 23H200M200 7V23M200 7H1100",
            ">none<",
            ">1000 µs<",
            ">1800 µs<",
            ">a&lt;b.host<",
        ] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
    }

    #[test]
    fn many_edges_are_few_lines() {
        let mut text = String::new();
        for time in 0..200_000 {
            writeln!(text, "#{time} {}l", time % 2).unwrap();
        }
        let svg = draw(&text, &Part::default()).unwrap();
        assert!(svg.len() < 100_000, "{}", svg.len());
    }

    #[test]
    fn what_cannot_be_drawn() {
        for (text, lines, part) in [
            ("", &[][..], "nothing to draw"),
            ("#5", &["b"], "no signal for a line \"b\""),
        ] {
            let lines = lines.iter().map(|it| (*it).to_owned()).collect();
            let error = draw(
                text,
                &Part {
                    lines,
                    ..Part::default()
                },
            )
            .unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn rows_have_names() {
        let signal = |device: &str, name: Option<&str>| Signal {
            name: "x.host".into(),
            width: 1,
            line: Some(std::rc::Rc::new(wave::LineId {
                device: device.into(),
                line: 3,
                name: name.map(str::to_owned),
            })),
        };
        assert_eq!(label(&signal("d", Some("key")), false), "key.host");
        assert_eq!(label(&signal("d", None), true), "d line 3.host");
        let long = label(&signal("d", Some(&"ä".repeat(40))), false);
        assert_eq!(long, format!("{}…", "ä".repeat(31)));
    }

    #[test]
    fn steps_are_round() {
        for (least, expected) in [(0, 1), (3, 5), (10, 10), (11, 20), (501, 1000)] {
            assert_eq!(step(least), expected);
        }
        step(u64::MAX);
    }
}
