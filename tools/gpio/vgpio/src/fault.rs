// SPDX-License-Identifier: GPL-2.0-only

//! Misbehaviour on request.
//!
//! A fault is written `KIND[=ARGUMENT][,FILTER=VALUE]...`. All faults that match a message apply to
//! it together. Without faults the device follows the specification.

use std::fmt;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use crate::duration;
use crate::wire::Message;

/// How many bytes a returned chain claims to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedLen {
    /// One byte less than there is.
    Short,
    /// More than the chain could hold.
    Long,
    Zero,
    Exactly(u32),
}

impl UsedLen {
    /// The false length for a chain in which `written` of `capacity` bytes were written.
    pub fn of(self, written: u32, capacity: u32) -> u32 {
        match self {
            Self::Short => written.saturating_sub(1),
            Self::Long => capacity.saturating_add(1),
            Self::Zero => 0,
            Self::Exactly(len) => len,
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Delay(Duration),
    Silent,
    Status(u8),
    Value(u8),
    UsedLen(UsedLen),
    Stale,
    Reorder(Option<usize>),
    Disconnect,
    SilentEvents,
    EventStatus(u8),
    InvalidEvents,
    HoldIrqBuffer(Duration),
    Deaf,
}

impl Kind {
    /// Whether the fault is about event buffers by nature, and not about requests.
    fn is_about_events(self) -> bool {
        matches!(
            self,
            Self::SilentEvents
                | Self::EventStatus(_)
                | Self::InvalidEvents
                | Self::HoldIrqBuffer(_)
        )
    }

    /// Whether `type=event` makes sense.
    fn applies_to_events(self) -> bool {
        self.is_about_events()
            || matches!(
                self,
                Self::Delay(_) | Self::Silent | Self::UsedLen(_) | Self::Stale | Self::Disconnect
            )
    }

    fn parse(name: &str, argument: Option<&str>) -> Result<Self> {
        let required = || argument.with_context(|| format!("fault {name} needs {name}=ARGUMENT"));
        let byte = || {
            let text = required()?;
            text.parse()
                .with_context(|| format!("bad argument {text:?} of fault {name}: use 0 to 255"))
        };
        let kind = match name {
            "delay" => Self::Delay(duration::parse(required()?)?),
            "status" => match required()? {
                "err" => Self::Status(1),
                _ => Self::Status(byte()?),
            },
            "value" => Self::Value(byte()?),
            "used-len" => Self::UsedLen(match required()? {
                "short" => UsedLen::Short,
                "long" => UsedLen::Long,
                "zero" => UsedLen::Zero,
                text => UsedLen::Exactly(text.parse().with_context(|| {
                    format!("bad argument {text:?} of fault used-len: use short, long, zero or a number")
                })?),
            }),
            "reorder" => Self::Reorder(
                argument
                    .map(|text| {
                        text.parse()
                            .ok()
                            .filter(|count| (2..=1024).contains(count))
                            .with_context(|| {
                                format!("bad argument {text:?} of fault reorder: use 2 to 1024")
                            })
                    })
                    .transpose()?,
            ),
            "event-status" => Self::EventStatus(byte()?),
            "hold-irq-buffer" => Self::HoldIrqBuffer(duration::parse(required()?)?),
            _ => {
                let kind = match name {
                    "silent" => Self::Silent,
                    "stale" => Self::Stale,
                    "disconnect" => Self::Disconnect,
                    "silent-events" => Self::SilentEvents,
                    "invalid-events" => Self::InvalidEvents,
                    "deaf" => Self::Deaf,
                    _ => bail!(
                        "unknown fault {name:?}: use delay, silent, status, value, used-len, stale, \
                         reorder, disconnect, silent-events, event-status, invalid-events, \
                         hold-irq-buffer or deaf"
                    ),
                };
                ensure!(argument.is_none(), "fault {name} takes no argument");
                kind
            }
        };
        Ok(kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delay(time) => write!(f, "delay={}us", time.as_micros()),
            Self::Silent => write!(f, "silent"),
            Self::Status(status) => write!(f, "status={status}"),
            Self::Value(value) => write!(f, "value={value}"),
            Self::UsedLen(UsedLen::Short) => write!(f, "used-len=short"),
            Self::UsedLen(UsedLen::Long) => write!(f, "used-len=long"),
            Self::UsedLen(UsedLen::Zero) => write!(f, "used-len=zero"),
            Self::UsedLen(UsedLen::Exactly(len)) => write!(f, "used-len={len}"),
            Self::Stale => write!(f, "stale"),
            Self::Reorder(None) => write!(f, "reorder"),
            Self::Reorder(Some(count)) => write!(f, "reorder={count}"),
            Self::Disconnect => write!(f, "disconnect"),
            Self::SilentEvents => write!(f, "silent-events"),
            Self::EventStatus(status) => write!(f, "event-status={status}"),
            Self::InvalidEvents => write!(f, "invalid-events"),
            Self::HoldIrqBuffer(time) => write!(f, "hold-irq-buffer={}us", time.as_micros()),
            Self::Deaf => write!(f, "deaf"),
        }
    }
}

/// What `type=` selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Message(Message),
    Event,
}

const TARGETS: [(&str, Target); 7] = [
    ("get-line-names", Target::Message(Message::GetLineNames)),
    ("get-direction", Target::Message(Message::GetDirection)),
    ("set-direction", Target::Message(Message::SetDirection)),
    ("get-value", Target::Message(Message::GetValue)),
    ("set-value", Target::Message(Message::SetValue)),
    ("set-irq-type", Target::Message(Message::SetIrqType)),
    ("event", Target::Event),
];

/// One fault with its filters.
#[derive(Debug)]
pub struct Fault {
    id: u32,
    kind: Kind,
    target: Option<Target>,
    line: Option<u16>,
    left: Option<u64>,
    probability: f64,
    seed: u64,
    random: fastrand::Rng,
}

impl Fault {
    /// Parses a fault; `line` turns the text of a `line=` filter into a line number.
    fn parse(text: &str, line: impl Fn(&str) -> Result<u16>) -> Result<Self> {
        let mut words = text.split(',');
        let (name, argument) = split(words.next().unwrap_or_default());
        let kind = Kind::parse(name, argument)?;
        let mut fault = Self {
            id: 0,
            kind,
            target: None,
            line: None,
            // Otherwise the device would drop every connection at once.
            left: (kind == Kind::Disconnect).then_some(1),
            probability: 1.0,
            seed: 0,
            random: fastrand::Rng::with_seed(0),
        };
        for word in words {
            let (name, Some(value)) = split(word) else {
                bail!("bad fault filter {word:?}: use NAME=VALUE");
            };
            let bad = || format!("bad fault filter {word:?}");
            match name {
                "type" => {
                    let target = TARGETS.iter().find(|(name, _)| *name == value);
                    let (_, target) = target.with_context(|| {
                        let names = TARGETS.map(|(name, _)| name).join(", ");
                        format!("{}: use one of {names}", bad())
                    })?;
                    fault.target = Some(*target);
                }
                "line" => fault.line = Some(line(value)?),
                "count" => fault.left = Some(value.parse().with_context(bad)?),
                "probability" => {
                    fault.probability = value.parse().with_context(bad)?;
                    ensure!(
                        (0.0..=1.0).contains(&fault.probability),
                        "{}: use 0 to 1",
                        bad()
                    );
                }
                "seed" => {
                    fault.seed = value.parse().with_context(bad)?;
                    fault.random = fastrand::Rng::with_seed(fault.seed);
                }
                _ => bail!("{}: use type, line, count, probability or seed", bad()),
            }
        }
        match fault.target {
            Some(Target::Event) => ensure!(
                kind.applies_to_events(),
                "fault {kind} does not apply to events"
            ),
            Some(Target::Message(_)) => ensure!(
                !kind.is_about_events(),
                "fault {kind} does not apply to requests"
            ),
            None => {}
        }
        Ok(fault)
    }

    fn is_about_events(&self) -> bool {
        self.kind.is_about_events() || self.target == Some(Target::Event)
    }

    /// Whether the fault strikes this time; counts if so.
    fn strikes(&mut self, line: u16) -> bool {
        if self.line.is_some_and(|only| only != line)
            || self.left == Some(0)
            || (self.probability < 1.0 && self.random.f64() >= self.probability)
        {
            return false;
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        true
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some((name, _)) = TARGETS.iter().find(|(_, it)| Some(*it) == self.target) {
            write!(f, ",type={name}")?;
        }
        if let Some(line) = self.line {
            write!(f, ",line={line}")?;
        }
        if let Some(left) = self.left {
            write!(f, ",count={left}")?;
        }
        if self.probability < 1.0 {
            write!(f, ",probability={},seed={}", self.probability, self.seed)?;
        }
        Ok(())
    }
}

fn split(word: &str) -> (&str, Option<&str>) {
    match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    }
}

/// What is to go wrong with one answer or event buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub delay: Duration,
    pub silent: bool,
    pub status: Option<u8>,
    pub value: Option<u8>,
    pub used_len: Option<UsedLen>,
    pub stale: bool,
    /// Keep the answer back and reverse it with others: so many, or those of one batch.
    pub reorder: Option<Option<usize>>,
    pub disconnect: bool,
}

impl Verdict {
    fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Delay(time) | Kind::HoldIrqBuffer(time) => self.delay = self.delay.max(time),
            Kind::Silent | Kind::SilentEvents => self.silent = true,
            Kind::Status(status) | Kind::EventStatus(status) => self.status = Some(status),
            Kind::Value(value) => self.value = Some(value),
            Kind::UsedLen(len) => self.used_len = Some(len),
            Kind::Stale => self.stale = true,
            Kind::Reorder(count) => self.reorder = Some(count),
            Kind::Disconnect => self.disconnect = true,
            Kind::InvalidEvents | Kind::Deaf => {}
        }
    }
}

/// The most faults that a device can have: each looks at each message.
const MOST: usize = 256;

/// The faults of a device.
#[derive(Debug, Default)]
pub struct Faults {
    faults: Vec<Fault>,
    last_id: u32,
}

impl Faults {
    /// Adds the faults that `texts` describe; all or none.
    pub fn add(&mut self, texts: &[String], line: impl Fn(&str) -> Result<u16>) -> Result<()> {
        let parsed: Vec<_> = texts
            .iter()
            .map(|text| Fault::parse(text, &line))
            .collect::<Result<_>>()?;
        ensure!(
            self.faults.len() + parsed.len() <= MOST,
            "too many faults: at most {MOST}, `vgpio fault clear` removes some"
        );
        for mut fault in parsed {
            self.last_id += 1;
            fault.id = self.last_id;
            self.faults.push(fault);
        }
        Ok(())
    }

    /// The number and the text of each fault.
    pub fn list(&self) -> impl Iterator<Item = (u32, String)> + '_ {
        self.faults
            .iter()
            .map(|fault| (fault.id, fault.to_string()))
    }

    /// Removes the faults with these numbers, or all.
    pub fn clear(&mut self, ids: &[u32]) -> Result<()> {
        if let Some(id) = ids
            .iter()
            .find(|id| !self.faults.iter().any(|it| it.id == **id))
        {
            bail!("no fault {id}: `vgpio fault list` shows the active ones");
        }
        self.faults
            .retain(|fault| !ids.is_empty() && !ids.contains(&fault.id));
        Ok(())
    }

    /// What happens to the answer to `message`, `None` being one that we do not know.
    pub fn on_request(&mut self, message: Option<Message>, line: u16) -> Verdict {
        let target = message.map(Target::Message);
        self.judge(line, |fault| {
            !fault.is_about_events() && (fault.target.is_none() || fault.target == target)
        })
    }

    /// What happens to an event buffer that is due to go back, with an interrupt if `valid`.
    pub fn on_event(&mut self, line: u16, valid: bool) -> Verdict {
        self.judge(line, |fault| {
            fault.is_about_events()
                && match fault.kind {
                    Kind::EventStatus(_) => valid,
                    Kind::HoldIrqBuffer(_) => !valid,
                    Kind::InvalidEvents => false,
                    _ => true,
                }
        })
    }

    /// Whether an event buffer is refused on arrival.
    pub fn refuses_buffer(&mut self, line: u16) -> bool {
        self.faults
            .iter_mut()
            .filter(|fault| fault.kind == Kind::InvalidEvents)
            .any(|fault| fault.strikes(line))
    }

    /// Whether the end of the guest's use of the device goes unnoticed.
    pub fn is_deaf(&self) -> bool {
        self.faults.iter().any(|fault| fault.kind == Kind::Deaf)
    }

    fn judge(&mut self, line: u16, concerns: impl Fn(&Fault) -> bool) -> Verdict {
        let mut verdict = Verdict::default();
        for fault in self.faults.iter_mut().filter(|fault| concerns(fault)) {
            if fault.strikes(line) {
                verdict.add(fault.kind);
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(texts: &[&str]) -> Faults {
        let texts: Vec<_> = texts.iter().map(|text| text.to_string()).collect();
        let mut faults = Faults::default();
        faults.add(&texts, |line| Ok(line.parse()?)).unwrap();
        faults
    }

    #[test]
    fn text_round_trip() {
        for text in [
            "delay=1500us",
            "silent,type=get-value",
            "status=1,line=3",
            "value=9,count=2",
            "used-len=short",
            "used-len=long",
            "used-len=zero",
            "used-len=77",
            "stale,type=event",
            "reorder",
            "reorder=4",
            "disconnect,count=1",
            "silent-events",
            "event-status=7,line=1",
            "invalid-events,probability=0.25,seed=9",
            "hold-irq-buffer=10us",
            "deaf",
        ] {
            let (_, shown) = faults(&[text]).list().next().unwrap();
            assert_eq!(shown, text);
        }
    }

    #[test]
    fn bad_faults_are_refused_as_a_whole() {
        for text in [
            "",
            "slow",
            "delay",
            "silent=1",
            "status=300",
            "reorder=1",
            "silent,type=nothing",
            "silent,line",
            "silent,line=x",
            "silent,probability=2",
            "value=1,type=event",
            "silent-events,type=get-value",
            "silent,when=now",
        ] {
            let mut faults = Faults::default();
            let texts = ["silent".to_string(), text.to_string()];
            assert!(
                faults.add(&texts, |line| Ok(line.parse()?)).is_err(),
                "{text}"
            );
            assert_eq!(faults.list().count(), 0, "{text}");
        }
    }

    #[test]
    fn filters_select() {
        let mut faults = faults(&["value=9,type=get-value,line=2,count=1"]);
        let none = Verdict::default();
        assert_eq!(faults.on_request(Some(Message::SetValue), 2), none);
        assert_eq!(faults.on_request(Some(Message::GetValue), 1), none);
        assert_eq!(faults.on_event(2, true), none);
        assert_eq!(faults.on_request(Some(Message::GetValue), 2).value, Some(9));
        assert_eq!(faults.on_request(Some(Message::GetValue), 2), none, "count");
    }

    #[test]
    fn faults_compose() {
        let mut faults = faults(&["delay=1ms", "delay=2ms", "status=err", "silent-events"]);
        let verdict = faults.on_request(None, 0);
        assert_eq!(verdict.delay, Duration::from_millis(2));
        assert_eq!(verdict.status, Some(1));
        assert!(!verdict.silent);
        assert!(faults.on_event(0, true).silent);
    }

    #[test]
    fn probability_is_reproducible() {
        let run = || {
            let mut faults = faults(&["silent,probability=0.5,seed=3"]);
            (0..64)
                .map(|_| faults.on_request(None, 0).silent)
                .collect::<Vec<_>>()
        };
        let hits = run().into_iter().filter(|hit| *hit).count();
        assert!((10..54).contains(&hits), "{hits}");
        assert_eq!(run(), run());
    }

    #[test]
    fn clear_by_number_or_all() {
        let mut faults = faults(&["silent", "stale", "value=1"]);
        assert!(faults.clear(&[9]).is_err());
        faults.clear(&[2]).unwrap();
        let left: Vec<_> = faults.list().map(|(id, _)| id).collect();
        assert_eq!(left, [1, 3]);
        faults.clear(&[]).unwrap();
        assert_eq!(faults.list().count(), 0);
    }

    #[test]
    fn used_len_lies() {
        assert_eq!(UsedLen::Short.of(2, 2), 1);
        assert_eq!(UsedLen::Short.of(0, 2), 0);
        assert_eq!(UsedLen::Long.of(2, 2), 3);
        assert_eq!(UsedLen::Long.of(2, u32::MAX), u32::MAX);
        assert_eq!(UsedLen::Zero.of(2, 2), 0);
        assert_eq!(UsedLen::Exactly(7).of(2, 2), 7);
    }
}
