// SPDX-License-Identifier: GPL-2.0-only

//! How a user describes a line of the host: a `[[device.host-line]]` table in a TOML file, or
//! `host-line=FROM` among the keys of a device, with keys of its own after it.

use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};
use serde::de::IntoDeserializer;
use serde::Deserialize;

use crate::duration;
use crate::model::Usage;

/// The longest time for which a line may be debounced.
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(60);

/// A line as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Table {
    /// The line of the device; without it, the position among the tables.
    pub line: Option<u16>,
    pub from: String,
    pub name: Option<String>,
    pub only: Option<Only>,
    pub bias: Option<Bias>,
    pub debounce: Option<String>,
}

/// What may follow `host-line=FROM` on the command line.
pub const KEYS: [&str; 5] = ["line", "name", "only", "bias", "debounce"];

impl Table {
    pub fn new(from: &str) -> Self {
        Self {
            line: None,
            from: from.to_owned(),
            name: None,
            only: None,
            bias: None,
            debounce: None,
        }
    }

    /// Gives one of `KEYS` a value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "line" => {
                let line = value.parse().ok();
                let line = line.with_context(|| format!("bad line {value:?}: use a number"));
                self.line = Some(line?);
            }
            "name" => self.name = Some(value.to_owned()),
            "only" => self.only = Some(word(key, value)?),
            "bias" => self.bias = Some(word(key, value)?),
            "debounce" => self.debounce = Some(value.to_owned()),
            _ => bail!("unknown key {key:?}"),
        }
        Ok(())
    }
}

/// Reads one of a few words.
fn word<'a, T: Deserialize<'a>>(key: &str, value: &'a str) -> Result<T> {
    let read = T::deserialize(value.into_deserializer());
    read.map_err(|e: serde::de::value::Error| anyhow!("bad {key}: {e}"))
}

/// What a guest may use a line for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Only {
    Input,
    Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bias {
    PullUp,
    PullDown,
    Disabled,
}

/// A line of the device that is one of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLine {
    pub line: u16,
    /// `CHIP:LINE`, or the name of a line.
    pub from: String,
    pub only: Option<Only>,
    pub bias: Option<Bias>,
    /// Zero to report all edges.
    pub debounce: Duration,
}

impl HostLine {
    /// Says so if a guest may not use the line for this.
    pub fn check(&self, usage: Usage) -> Result<()> {
        match (self.only, usage) {
            (Some(Only::Input), Usage::Output(_)) => bail!("is for input only"),
            (Some(Only::Output), Usage::Input { .. }) => bail!("is for output only"),
            _ => Ok(()),
        }
    }
}

/// The line that a table stands for.
pub fn line(index: usize, table: &Table) -> u16 {
    table.line.unwrap_or(index as u16)
}

/// Checks the tables of a device with this many lines.
pub fn describe(tables: &[Table], lines: u16) -> Result<Vec<HostLine>> {
    let mut described: Vec<HostLine> = Vec::with_capacity(tables.len());
    for (index, table) in tables.iter().enumerate() {
        let line = line(index, table);
        ensure!(
            line < lines,
            "bad host-line {line}: use a line from 0 to {}",
            lines - 1
        );
        let taken = described.iter().any(|other| other.line == line);
        ensure!(!taken, "host-line {line} is given twice");
        let from = table.from.clone();
        ensure!(
            !from.is_empty(),
            "host-line {line} needs from = 'CHIP:LINE'"
        );
        let debounce = match &table.debounce {
            None => Duration::ZERO,
            Some(text) => duration::parse(text)
                .ok()
                .filter(|time| *time <= LONGEST_DEBOUNCE)
                .with_context(|| {
                    format!("bad debounce {text:?}: use a time of at most 1m, such as 5ms")
                })?,
        };
        described.push(HostLine {
            line,
            from,
            only: table.only,
            bias: table.bias,
            debounce,
        });
    }
    Ok(described)
}
