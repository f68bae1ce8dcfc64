// SPDX-License-Identifier: GPL-2.0-only

//! Waveforms in VCD files (Value Change Dump, IEEE 1364).

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::rc::Rc;

use anyhow::{anyhow, ensure, Context, Result};
use serde::{Deserialize, Serialize};
use vcd::{Command, IdCode, ParseError, Parser, TimescaleUnit};

/// The longest comment about a line: many signals may share it.
const LONGEST_ID: usize = 4096;

/// The GPIO line that the signals after it are about: a comment in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineId {
    pub device: String,
    pub line: u16,
    pub name: Option<String>,
}

impl LineId {
    /// The text of the comment. It must not have `$end` within.
    pub fn comment(&self) -> Result<String> {
        let text = serde_json::to_string(self)?.replace('$', "\\u0024");
        ensure!(
            text.len() <= LONGEST_ID,
            "the name of line {} of {:?} is too long",
            self.line,
            self.device
        );
        Ok(text)
    }
}

/// A signal of a file.
#[derive(Debug)]
pub struct Signal {
    pub name: String,
    /// Width in bits.
    pub width: u32,
    /// The line that the signal is about, if it is one of our recordings.
    pub line: Option<Rc<LineId>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A level of one bit; `None` is unknown, or not driven.
    Level(Option<bool>),
    Text(String),
}

/// A signal that has another value from `time` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Nanoseconds.
    pub time: u64,
    /// An index of [`Wave::signals`].
    pub signal: usize,
    pub value: Value,
}

/// The content of a file.
#[derive(Debug)]
pub struct Wave {
    pub signals: Vec<Signal>,
    /// In order of their times.
    pub changes: Vec<Change>,
    /// The time of the last timestamp, nanoseconds.
    pub end: u64,
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Wave> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
    parse(BufReader::new(file)).map_err(|(line, e)| anyhow!("{shown}:{line}: {e}"))
}

/// Reads the text of a file. An error comes with the number of its line.
pub fn parse(text: impl BufRead) -> Result<Wave, (u64, String)> {
    // The parser wants something after the last word.
    let mut parser = Parser::new(text.chain(&b" "[..]));
    let mut reader = Reader {
        scopes: vec![None],
        ..Reader::default()
    };
    while let Some(command) = parser.next() {
        let done = command.map_err(explain).and_then(|it| reader.take(it));
        done.map_err(|e| (parser.line(), e))?;
    }
    if !reader.in_body {
        return Err((parser.line(), "no $enddefinitions".into()));
    }
    Ok(Wave {
        signals: reader.signals,
        changes: reader.changes,
        end: reader.now,
    })
}

fn explain(error: std::io::Error) -> String {
    let parse_error = error.get_ref().and_then(|e| e.downcast_ref::<ParseError>());
    parse_error.map_or_else(|| error.to_string(), |e| e.kind().to_string())
}

#[derive(Default)]
struct Reader {
    /// The line that each open scope is about at the moment. The file is the first one.
    scopes: Vec<Option<Rc<LineId>>>,
    codes: HashMap<IdCode, usize>,
    signals: Vec<Signal>,
    changes: Vec<Change>,
    /// The nanoseconds of a unit of time, as a fraction.
    unit: Option<(u128, u128)>,
    in_body: bool,
    now: u64,
}

impl Reader {
    fn take(&mut self, command: Command) -> Result<(), String> {
        match command {
            Command::Timestamp(time) => self.advance(time),
            Command::ChangeScalar(code, value) => self.change(code, Value::Level(level(value))),
            Command::ChangeVector(code, bits) => {
                let value = match (bits.len(), bits.get(0)) {
                    (1, Some(bit)) => Value::Level(level(bit)),
                    _ => Value::Text(bits.to_string()),
                };
                self.change(code, value)
            }
            Command::ChangeReal(code, value) => {
                self.change(code, Value::Text(format!("{value:?}")))
            }
            Command::ChangeString(code, value) => self.change(code, Value::Text(value)),
            Command::Timescale(..)
            | Command::ScopeDef(..)
            | Command::Upscope
            | Command::VarDef(..)
            | Command::Enddefinitions
                if self.in_body =>
            {
                Err("a definition after $enddefinitions".into())
            }
            other => self.define(other),
        }
    }

    fn define(&mut self, command: Command) -> Result<(), String> {
        match command {
            Command::Timescale(number, unit) => {
                let per_second = match unit {
                    TimescaleUnit::S => 1,
                    TimescaleUnit::MS => 1_000,
                    TimescaleUnit::US => 1_000_000,
                    TimescaleUnit::NS => 1_000_000_000,
                    TimescaleUnit::PS => 1_000_000_000_000,
                    TimescaleUnit::FS => 1_000_000_000_000_000,
                };
                self.unit = Some((u128::from(number) * 1_000_000_000, per_second));
            }
            Command::Comment(text) if text.len() <= LONGEST_ID => {
                if let (Ok(line), Some(scope)) =
                    (serde_json::from_str(&text), self.scopes.last_mut())
                {
                    *scope = Some(Rc::new(line));
                }
            }
            Command::ScopeDef(..) => self.scopes.push(None),
            Command::Upscope if self.scopes.len() == 1 => {
                return Err("$upscope without $scope".into());
            }
            Command::Upscope => drop(self.scopes.pop()),
            // A code that is known already is another name of the same signal.
            Command::VarDef(_, width, code, name, _) => {
                self.codes.entry(code).or_insert_with(|| {
                    self.signals.push(Signal {
                        name,
                        width,
                        line: self.scopes.last().cloned().flatten(),
                    });
                    self.signals.len() - 1
                });
            }
            Command::Enddefinitions => {
                self.unit.ok_or("no $timescale before $enddefinitions")?;
                self.in_body = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn advance(&mut self, time: u64) -> Result<(), String> {
        let (number, per_second) = self.unit_in_body()?;
        let nanos = (u128::from(time) * number) / per_second;
        let now = u64::try_from(nanos).map_err(|_| format!("time {time} is too large"))?;
        if now < self.now {
            return Err(format!("time {time} is before the one that precedes it"));
        }
        self.now = now;
        Ok(())
    }

    fn change(&mut self, code: IdCode, value: Value) -> Result<(), String> {
        self.unit_in_body()?;
        let signal = *self
            .codes
            .get(&code)
            .ok_or_else(|| format!("no signal has the code {code}"))?;
        self.changes.push(Change {
            time: self.now,
            signal,
            value,
        });
        Ok(())
    }

    fn unit_in_body(&self) -> Result<(u128, u128), String> {
        let unit = self.unit.filter(|_| self.in_body);
        unit.ok_or_else(|| "a value or a time before $enddefinitions".into())
    }
}

fn level(value: vcd::Value) -> Option<bool> {
    match value {
        vcd::Value::V0 => Some(false),
        vcd::Value::V1 => Some(true),
        vcd::Value::X | vcd::Value::Z => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "$timescale 10 us $end\n\
        $scope module d $end\n\
        $comment {\"device\":\"d\",\"line\":3,\"name\":null} $end\n\
        $var wire 1 ! line3 $end\n\
        $var reg 2 v word [1:0] $end\n\
        $upscope $end\n\
        $var wire 1 o other $end\n\
        $enddefinitions $end\n";

    fn parse_after_header(text: &str) -> Result<Wave, (u64, String)> {
        parse(format!("{HEADER}{text}").as_bytes())
    }

    #[test]
    fn signals_and_changes() {
        let wave =
            parse_after_header("$dumpvars 0! bx1 v $end #3 1! Xo #5 sa-b v b1 o #7").unwrap();
        let names: Vec<_> = wave.signals.iter().map(|it| &it.name[..]).collect();
        assert_eq!(names, ["line3", "word", "other"]);
        let lines: Vec<_> = wave.signals.iter().map(|it| it.line.is_some()).collect();
        assert_eq!(lines, [true, true, false]);
        assert_eq!(wave.signals[1].width, 2);
        let text = |text: &str| Value::Text(text.into());
        let changes: Vec<_> = wave
            .changes
            .into_iter()
            .map(|it| (it.time, it.signal, it.value))
            .collect();
        assert_eq!(
            changes,
            [
                (0, 0, Value::Level(Some(false))),
                (0, 1, text("x1")),
                (30_000, 0, Value::Level(Some(true))),
                (30_000, 2, Value::Level(None)),
                (50_000, 1, text("a-b")),
                (50_000, 2, Value::Level(Some(true))),
            ]
        );
        assert_eq!(wave.end, 70_000);
    }

    #[test]
    fn mistakes_have_a_line() {
        for (text, line, part) in [
            ("#0\n1?\n", 10, "no signal has the code ?"),
            ("#5\n\n#4\n", 11, "before the one"),
            ("#99999999999999999999\n", 9, "too large"),
            ("#9999999999999999999\n", 9, "too large"),
            ("hello\n", 9, "unexpected character"),
            ("$var wire 1 x x $end\n", 9, "after $enddefinitions"),
            ("$comment that does not end", 9, "unexpected end"),
        ] {
            let (at, error) = parse_after_header(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
            assert_eq!(at, line, "{text}");
        }
        for (text, line, part) in [
            ("", 1, "no $enddefinitions"),
            ("$timescale 1 ns $end\n#0\n", 2, "before $enddefinitions"),
            ("$enddefinitions $end\n", 1, "no $timescale"),
            ("$upscope $end\n", 1, "without $scope"),
            ("$timescale 1 h $end\n", 1, "invalid timescale unit"),
            ("$fly $end\n", 1, "unknown command"),
        ] {
            let (at, error) = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
            assert_eq!(at, line, "{text}");
        }
    }

    #[test]
    fn a_comment_does_not_end_early() {
        let line = LineId {
            device: "$end of it".into(),
            line: 7,
            name: Some("a \"b\" $end".into()),
        };
        let comment = line.comment().unwrap();
        let text = format!(
            "$comment {comment} $end $var wire 1 ! a $end $timescale 1 ns $end $enddefinitions $end"
        );
        let wave = parse(text.as_bytes()).unwrap();
        assert_eq!(*wave.signals[0].line.clone().unwrap(), line);
    }
}
