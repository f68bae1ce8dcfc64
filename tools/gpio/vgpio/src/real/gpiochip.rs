// SPDX-License-Identifier: GPL-2.0-only

//! The lines of the kernel's GPIO chips, by their character devices.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{bail, ensure, Context, Result};
use gpiocdev::line::{Bias, EdgeDetection, EdgeKind, Offset, Value};
use gpiocdev::request::Config;
use gpiocdev::{Chip, Request};

use super::config::{self, HostLine};
use super::{Edge, Host, Line};
use crate::model::Usage;

/// The longest name of a consumer.
const CONSUMER_MAX: usize = 31;

/// Edges that the kernel keeps of a line while it waits for us.
const EDGES: u32 = 256;

/// Where a line is.
struct Place {
    path: PathBuf,
    /// What the chip is called, as another may be in its place later.
    label: String,
    offset: Offset,
    settings: HostLine,
}

/// The lines of a device that are those of chips.
struct Chips {
    consumer: String,
    places: BTreeMap<u16, Arc<Place>>,
}

/// Finds the lines for the device `label`. They are not requested yet.
pub fn find(label: &str, lines: &[HostLine]) -> Result<Box<dyn Host>> {
    let mut places = BTreeMap::new();
    for settings in lines {
        let shown = &settings.from;
        let place = locate(settings).with_context(|| format!("host line {shown:?}"))?;
        places.insert(settings.line, Arc::new(place));
    }
    let mut consumer = format!("vgpio:{label}");
    while consumer.len() > CONSUMER_MAX {
        consumer.pop();
    }
    Ok(Box::new(Chips { consumer, places }))
}

/// Finds a line by `CHIP:LINE`, where either is a name, a label, a path or a number, or by its name
/// alone.
fn locate(settings: &HostLine) -> Result<Place> {
    let mut chips = Vec::new();
    for path in gpiocdev::chip::chips()? {
        // One that may not be opened, or has just gone, is none.
        if let Ok((chip, info)) = Chip::from_path(path).and_then(|it| it.info().map(|i| (it, i))) {
            chips.push((chip, info));
        }
    }
    let (chip, line) = match settings.from.rsplit_once(':') {
        Some((chip, line)) => (Some(chip), line),
        None => (None, settings.from.as_str()),
    };
    if let Some(wanted) = chip {
        let path = std::fs::canonicalize(wanted).ok();
        chips.retain(|(chip, info)| {
            [&info.name, &info.label].contains(&&wanted.to_owned())
                || path.as_deref() == Some(chip.path())
        });
        ensure!(!chips.is_empty(), "no chip {wanted:?}");
    }
    let mut found = chips.iter().filter_map(|(chip, info)| {
        let number = line.parse().ok().filter(|_| settings.from.contains(':'));
        let offset = match number {
            Some(offset) => Some(offset).filter(|it| *it < info.num_lines),
            None => chip.find_line_info(line).map(|it| it.offset),
        };
        Some((chip, info, offset?))
    });
    let Some((chip, info, offset)) = found.next() else {
        bail!("no line {line:?}");
    };
    ensure!(found.next().is_none(), "there are several");
    Ok(Place {
        path: chip.path().to_owned(),
        label: info.label.clone(),
        offset,
        settings: settings.clone(),
    })
}

impl Host for Chips {
    fn request(&self, line: u16, usage: Usage) -> Result<Box<dyn Line>> {
        let place = self.places.get(&line).context("no such line")?;
        let shown = &place.settings.from;
        place.settings.check(usage)?;
        let chip = Chip::from_path(&place.path)
            .map_err(reason)
            .with_context(|| format!("{shown}: no chip"))?;
        let info = chip.info().map_err(reason).context(shown.clone())?;
        ensure!(
            info.label == place.label,
            "{shown}: the chip is another one now, {:?}",
            info.label
        );
        let request = Request::from_config(place.config(usage))
            .with_consumer(&self.consumer)
            .with_kernel_event_buffer_size(EDGES)
            .request();
        let request = request.map_err(reason).with_context(|| {
            match chip.line_info(place.offset).ok().filter(|it| it.used) {
                Some(it) => format!("{shown} is used by {:?}", it.consumer),
                None => shown.clone(),
            }
        })?;
        let place = place.clone();
        Ok(Box::new(Requested { request, place }))
    }
}

impl Place {
    fn config(&self, usage: Usage) -> Config {
        let mut config = Config::default();
        config.on_chip(&self.path).with_line(self.offset);
        match usage {
            Usage::Output(level) => config.as_output(value(level)),
            Usage::None | Usage::Input { .. } => config.as_input(),
        };
        if let Usage::Input { edges } = usage {
            config.with_bias(self.settings.bias.map(|bias| match bias {
                config::Bias::PullUp => Bias::PullUp,
                config::Bias::PullDown => Bias::PullDown,
                config::Bias::Disabled => Bias::Disabled,
            }));
            if !self.settings.debounce.is_zero() {
                config.with_debounce_period(self.settings.debounce);
            }
            if edges {
                config.with_edge_detection(EdgeDetection::BothEdges);
            }
        }
        config
    }
}

/// A line that is requested.
struct Requested {
    request: Request,
    place: Arc<Place>,
}

impl Requested {
    /// Says which line an error is about.
    fn done<T>(&self, result: gpiocdev::Result<T>) -> Result<T> {
        result
            .map_err(reason)
            .with_context(|| self.place.settings.from.clone())
    }
}

impl Line for Requested {
    fn change(&mut self, usage: Usage) -> Result<()> {
        self.place.settings.check(usage)?;
        let config = self.place.config(usage);
        self.done(self.request.reconfigure(&config))
    }

    fn level(&self) -> Result<bool> {
        let value = self.done(self.request.lone_value())?;
        Ok(value == Value::Active)
    }

    fn edge(&self) -> Result<Option<Edge>> {
        if !self.done(self.request.has_edge_event())? {
            return Ok(None);
        }
        let event = self.done(self.request.read_edge_event())?;
        Ok(Some(Edge {
            time: event.timestamp_ns,
            level: event.kind == EdgeKind::Rising,
        }))
    }

    fn events(&self) -> BorrowedFd<'_> {
        self.request.as_fd()
    }
}

fn value(level: bool) -> Value {
    if level {
        Value::Active
    } else {
        Value::Inactive
    }
}

/// What the kernel has to say, without which call it said that to.
fn reason(error: gpiocdev::Error) -> anyhow::Error {
    match error {
        gpiocdev::Error::Uapi(_, reason) => reason.into(),
        other => other.into(),
    }
}
