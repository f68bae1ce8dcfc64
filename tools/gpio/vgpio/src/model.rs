// SPDX-License-Identifier: GPL-2.0-only

//! What a GPIO line is and does, without any I/O.
//!
//! A line has one level on the wire. The guest drives it while the direction is out, otherwise the
//! host does. The host's level outlives the guest; everything else is the guest's and is forgotten
//! when the guest gives the line up (`SET_DIRECTION` none) or goes away.
//!
//! The interrupt of a line is *enabled* by a trigger type and *unmasked* by a buffer that waits on
//! the event queue. The model owns that buffer as an opaque `B` and says when to hand it back.

use serde::{Deserialize, Serialize};

use crate::eeprom::Eeprom;
use crate::wire::Message;

/// Who configured the line for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    #[default]
    #[serde(rename = "unused")]
    None,
    #[serde(rename = "output")]
    Out,
    #[serde(rename = "input")]
    In,
}

impl Direction {
    fn from_wire(raw: u32) -> Option<Self> {
        Some(match raw {
            0 => Self::None,
            1 => Self::Out,
            2 => Self::In,
            _ => return None,
        })
    }
}

/// The trigger type of a line's interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IrqType {
    #[default]
    None,
    Rising,
    Falling,
    Both,
    #[serde(rename = "level-high")]
    High,
    #[serde(rename = "level-low")]
    Low,
}

impl IrqType {
    fn from_wire(raw: u32) -> Option<Self> {
        Some(match raw {
            0 => Self::None,
            1 => Self::Rising,
            2 => Self::Falling,
            3 => Self::Both,
            4 => Self::High,
            8 => Self::Low,
            _ => return None,
        })
    }

    /// Whether a change of the wire to `level` triggers.
    fn takes_edge_to(self, level: bool) -> bool {
        match self {
            Self::Both => true,
            Self::Rising => level,
            Self::Falling => !level,
            Self::None | Self::High | Self::Low => false,
        }
    }

    /// Whether `level` triggers for as long as it lasts.
    fn takes_level(self, level: bool) -> bool {
        match self {
            Self::High => level,
            Self::Low => !level,
            Self::None | Self::Rising | Self::Falling | Self::Both => false,
        }
    }
}

/// Who made a level change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    Guest,
    Host,
}

/// Something about a line that is different now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Change {
    /// The wire has another level.
    Level { level: bool, by: Cause },
    /// The guest began to drive the level that the wire had anyway.
    Driven { level: bool },
    /// The host's level is another, while the guest drives the wire.
    Host { level: bool },
    /// The guest reconfigured the line.
    Direction { direction: Direction },
    /// The guest enabled, changed or disabled the interrupt.
    Irq { irq: IrqType },
    /// The guest unmasked the interrupt, or it was masked again.
    Armed { armed: bool },
}

/// An event buffer on its way back to the guest.
#[derive(Debug, PartialEq, Eq)]
pub struct Returned<B> {
    pub line: u16,
    pub buffer: B,
    /// An interrupt, as opposed to a buffer that is of no use any more.
    pub valid: bool,
}

/// What an operation brought about. Kept and reused by the caller, so that the steady state
/// allocates nothing.
#[derive(Debug)]
pub struct Effects<B> {
    pub returned: Vec<Returned<B>>,
    pub changes: Vec<(u16, Change)>,
    /// Edges that were latched because the interrupt was masked.
    pub latched: u64,
    /// Edges that fell together with one that was latched already.
    pub merged: u64,
}

impl<B> Effects<B> {
    /// Whether nothing came of it.
    pub fn is_empty(&self) -> bool {
        self.returned.is_empty() && self.changes.is_empty() && self.latched == 0 && self.merged == 0
    }
}

impl<B> Default for Effects<B> {
    fn default() -> Self {
        Self {
            returned: Vec::new(),
            changes: Vec::new(),
            latched: 0,
            merged: 0,
        }
    }
}

/// The guest's part of a line's state.
#[derive(Debug)]
struct Guest<B> {
    direction: Direction,
    value: bool,
    irq: IrqType,
    latched: bool,
    buffer: Option<B>,
}

impl<B> Default for Guest<B> {
    fn default() -> Self {
        Self {
            direction: Direction::None,
            value: false,
            irq: IrqType::None,
            latched: false,
            buffer: None,
        }
    }
}

#[derive(Debug)]
struct Line<B> {
    host: bool,
    guest: Guest<B>,
    /// How often the host's level is still to be inverted, see [`Model::swing`].
    swings: u64,
}

/// What a guest uses a line for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    None,
    Input { edges: bool },
    Output(bool),
}

/// What a request about a line asks for.
enum Intent {
    GetDirection,
    GetValue,
    SetDirection(Direction),
    SetValue(bool),
    SetIrqType(IrqType),
}

/// A line as an observer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub level: bool,
    pub host: bool,
    pub direction: Direction,
    pub irq: IrqType,
    pub armed: bool,
    pub latched: bool,
}

impl<B> Line<B> {
    fn level(&self) -> bool {
        match self.guest.direction {
            Direction::Out => self.guest.value,
            Direction::None | Direction::In => self.host,
        }
    }

    fn view(&self) -> View {
        View {
            level: self.level(),
            host: self.host,
            direction: self.guest.direction,
            irq: self.guest.irq,
            armed: self.guest.buffer.is_some(),
            latched: self.guest.latched,
        }
    }

    /// Latches an edge if the level was another `before`, and the interrupt is for such edges.
    fn sense(&mut self, before: bool, effects: &mut Effects<B>) {
        let level = self.level();
        let guest = &mut self.guest;
        if level == before || !guest.irq.takes_edge_to(level) {
            return;
        }
        if guest.latched {
            effects.merged += 1;
        } else if guest.buffer.is_none() {
            effects.latched += 1;
        }
        guest.latched = true;
    }

    /// Hands the event buffer back if there is a reason to.
    fn settle(&mut self, line: u16, effects: &mut Effects<B>) {
        let level = self.level();
        let guest = &mut self.guest;
        let valid = guest.latched || guest.irq.takes_level(level);
        if !valid && guest.irq != IrqType::None {
            return;
        }
        if let Some(buffer) = guest.buffer.take() {
            guest.latched = false;
            effects.returned.push(Returned {
                line,
                buffer,
                valid,
            });
        }
    }
}

/// Departures from the laxest reading of the specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The guest negotiated interrupts.
    pub irq: bool,
    /// Enabling an interrupt needs direction in, not just any but out.
    pub irq_needs_input: bool,
    /// Refuse what the specification forbids to drivers without asking devices to refuse it.
    pub strict: bool,
}

/// Everything the guest had configured, with the host's levels at that time; see
/// [`Model::forget`].
#[derive(Debug)]
pub struct Forgotten<B>(Vec<(Guest<B>, bool)>);

/// An I2C bus that the guest drives with two lines. They are inputs of it when it lets go of them,
/// and the host's levels stand for the pull-ups then.
#[derive(Debug)]
struct Bus {
    sda: u16,
    scl: u16,
    eeprom: Eeprom,
}

/// All lines of one device.
#[derive(Debug)]
pub struct Model<B> {
    lines: Vec<Line<B>>,
    bus: Option<Bus>,
}

impl<B> Model<B> {
    /// Creates lines that are not configured, at the host's `levels`.
    pub fn new(levels: impl IntoIterator<Item = bool>) -> Self {
        let lines = levels
            .into_iter()
            .map(|host| Line {
                host,
                guest: Guest::default(),
                swings: 0,
            })
            .collect();
        Self { lines, bus: None }
    }

    /// The state of `line`, if there is such a line.
    pub fn view(&self, line: u16) -> Option<View> {
        self.lines.get(usize::from(line)).map(Line::view)
    }

    /// What the guest will use `line` for when a request has been carried out. `None` means that it
    /// will be refused.
    pub fn usage_after(
        &self,
        message: Message,
        line: u16,
        value: u32,
        rules: Rules,
    ) -> Option<Usage> {
        let intent = self.check(message, line, value, rules)?;
        let guest = &self.lines.get(usize::from(line))?.guest;
        let (mut direction, mut level, mut irq) = (guest.direction, guest.value, guest.irq);
        match intent {
            Intent::GetDirection | Intent::GetValue => {}
            Intent::SetDirection(to) => {
                direction = to;
                if to == Direction::None {
                    irq = IrqType::None;
                }
            }
            Intent::SetValue(to) => level = to,
            Intent::SetIrqType(to) => irq = to,
        }
        let edges = irq != IrqType::None;
        Some(match direction {
            Direction::Out => Usage::Output(level),
            Direction::None if !edges => Usage::None,
            Direction::None | Direction::In => Usage::Input { edges },
        })
    }

    /// Finds out what a request about one line asks for. `None` means that it is refused.
    fn check(&self, message: Message, line: u16, value: u32, rules: Rules) -> Option<Intent> {
        let before = self.view(line)?;
        Some(match message {
            // A message about the device, not about one line.
            Message::GetLineNames => return None,
            Message::GetDirection => Intent::GetDirection,
            Message::GetValue => Intent::GetValue,
            Message::SetDirection => {
                let direction = Direction::from_wire(value)?;
                if rules.strict && direction == Direction::Out && before.irq != IrqType::None {
                    return None;
                }
                Intent::SetDirection(direction)
            }
            Message::SetValue => Intent::SetValue(match value {
                0 => false,
                1 => true,
                _ => return None,
            }),
            Message::SetIrqType => {
                let irq = IrqType::from_wire(value)?;
                if !rules.irq {
                    return None;
                }
                // Switching off is possible whatever the direction has become meanwhile.
                if irq != IrqType::None {
                    let input_required = rules.strict || rules.irq_needs_input;
                    if before.direction == Direction::Out
                        || (input_required && before.direction != Direction::In)
                        || (rules.strict && before.irq != IrqType::None)
                    {
                        return None;
                    }
                }
                Intent::SetIrqType(irq)
            }
        })
    }

    /// Carries out a request about one line. `None` means that it is refused and has changed
    /// nothing.
    pub fn request(
        &mut self,
        message: Message,
        line: u16,
        value: u32,
        rules: Rules,
        effects: &mut Effects<B>,
    ) -> Option<u8> {
        let intent = self.check(message, line, value, rules)?;
        let before = self.view(line)?;
        match intent {
            Intent::GetDirection => {
                return Some(match before.direction {
                    Direction::None => 0,
                    Direction::Out => 1,
                    Direction::In => 2,
                })
            }
            Intent::GetValue => return Some(before.level.into()),
            Intent::SetDirection(direction) => {
                self.change(line, Cause::Guest, effects, |line| match direction {
                    // The buffer stays for a moment: it goes back as that of a disabled interrupt.
                    Direction::None => {
                        line.guest = Guest {
                            buffer: line.guest.buffer.take(),
                            ..Guest::default()
                        }
                    }
                    Direction::Out | Direction::In => line.guest.direction = direction,
                });
            }
            Intent::SetValue(level) => {
                self.change(line, Cause::Guest, effects, |line| line.guest.value = level);
            }
            Intent::SetIrqType(irq) => {
                if irq != before.irq {
                    self.change(line, Cause::Guest, effects, |line| {
                        line.guest.irq = irq;
                        line.guest.latched = false;
                    });
                }
            }
        }
        Some(0)
    }

    /// Takes an event buffer for `line`, that is, unmasks its interrupt.
    ///
    /// Returns every buffer exactly once: now, if the interrupt is disabled or fires at once or
    /// if the line has a buffer already or does not exist; else as an effect of a later operation.
    pub fn arm(&mut self, line: u16, buffer: B, effects: &mut Effects<B>) {
        let usable = self
            .view(line)
            .is_some_and(|view| view.irq != IrqType::None && !view.armed);
        if usable {
            self.change(line, Cause::Guest, effects, |line| {
                line.guest.buffer = Some(buffer);
            });
            self.swing_on(line, effects);
        } else {
            effects.returned.push(Returned {
                line,
                buffer,
                valid: false,
            });
        }
    }

    /// Sets the level that the host drives whenever the guest does not.
    pub fn set_host(&mut self, line: u16, level: bool, effects: &mut Effects<B>) {
        self.change(line, Cause::Host, effects, |line| line.host = level);
    }

    /// Inverts the host's level `count` times, each time as soon as the guest has unmasked the
    /// interrupt: as fast as the guest can take it, without an edge that merges with another.
    pub fn swing(&mut self, line: u16, count: u64, effects: &mut Effects<B>) {
        if let Some(line) = self.lines.get_mut(usize::from(line)) {
            line.swings = count;
        }
        self.swing_on(line, effects);
    }

    /// Inverts the host's level while that is still to be done and the interrupt is unmasked.
    fn swing_on(&mut self, line: u16, effects: &mut Effects<B>) {
        let due = |line: &Line<B>| line.swings > 0 && line.guest.buffer.is_some();
        while self.lines.get(usize::from(line)).is_some_and(due) {
            self.change(line, Cause::Host, effects, |line| {
                line.swings -= 1;
                line.host = !line.host;
            });
        }
    }

    /// Makes two lines an I2C bus with an EEPROM.
    pub fn attach_eeprom(&mut self, sda: u16, scl: u16) {
        for line in [sda, scl] {
            if let Some(line) = self.lines.get_mut(usize::from(line)) {
                line.host = true;
            }
        }
        let eeprom = Eeprom::default();
        self.bus = Some(Bus { sda, scl, eeprom });
    }

    /// The EEPROM, if there is one.
    pub fn eeprom(&mut self) -> Option<&mut Eeprom> {
        self.bus.as_mut().map(|bus| &mut bus.eeprom)
    }

    /// Ends the transfer in which a guest has gone.
    pub fn reset_bus(&mut self, effects: &mut Effects<B>) {
        if let Some(bus) = &mut self.bus {
            bus.eeprom.reset();
            let sda = bus.sda;
            self.set_host(sda, true, effects);
        }
    }

    /// Has the EEPROM see a change of the bus, and act on it.
    fn sense_bus(&mut self, effects: &mut Effects<B>) {
        let Some(bus) = &mut self.bus else {
            return;
        };
        let level = |line: u16| self.lines.get(usize::from(line)).is_some_and(Line::level);
        let released = bus.eeprom.sense(level(bus.scl), level(bus.sda));
        let sda = bus.sda;
        if self.view(sda).is_some_and(|view| view.host != released) {
            self.set_host(sda, released, effects);
        }
    }

    /// Drops all that the guest ever said, buffers included: they belong to a ring that is gone.
    pub fn forget(&mut self, effects: &mut Effects<B>) -> Forgotten<B> {
        let mut forgotten = Vec::with_capacity(self.lines.len());
        for (index, line) in (0..).zip(&mut self.lines) {
            let before = line.view();
            forgotten.push((std::mem::take(&mut line.guest), line.host));
            report(index, Cause::Guest, before, line.view(), effects);
        }
        Forgotten(forgotten)
    }

    /// Undoes [`Model::forget`] for a guest that was only paused. A line whose level is another now
    /// had one edge meanwhile.
    pub fn restore(&mut self, forgotten: Forgotten<B>, effects: &mut Effects<B>) {
        for ((index, line), (guest, host)) in (0..).zip(&mut self.lines).zip(forgotten.0) {
            let before = line.view();
            line.guest = guest;
            let now = std::mem::replace(&mut line.host, host);
            let level = line.level();
            line.host = now;
            line.sense(level, effects);
            line.settle(index, effects);
            report(index, Cause::Guest, before, line.view(), effects);
        }
    }

    /// Applies `f` to a line and draws the consequences: latching, interrupts, reports.
    fn change(
        &mut self,
        index: u16,
        by: Cause,
        effects: &mut Effects<B>,
        f: impl FnOnce(&mut Line<B>),
    ) {
        let Some(line) = self.lines.get_mut(usize::from(index)) else {
            return;
        };
        let before = line.view();
        f(line);
        line.sense(before.level, effects);
        line.settle(index, effects);
        let after = line.view();
        report(index, by, before, after, effects);
        let on_bus = |bus: &Bus| [bus.sda, bus.scl].contains(&index);
        if after.level != before.level && self.bus.as_ref().is_some_and(on_bus) {
            self.sense_bus(effects);
        }
    }
}

/// Records how `after` differs from `before`.
fn report<B>(line: u16, by: Cause, before: View, after: View, effects: &mut Effects<B>) {
    let mut changed = |change| effects.changes.push((line, change));
    if after.direction != before.direction {
        changed(Change::Direction {
            direction: after.direction,
        });
    }
    if after.level != before.level {
        changed(Change::Level {
            level: after.level,
            by,
        });
    } else if after.direction == Direction::Out && before.direction != Direction::Out {
        changed(Change::Driven { level: after.level });
    }
    if after.host != before.host && after.direction == Direction::Out {
        changed(Change::Host { level: after.host });
    }
    if after.irq != before.irq {
        changed(Change::Irq { irq: after.irq });
    }
    if after.armed != before.armed {
        changed(Change::Armed { armed: after.armed });
    }
}

#[cfg(test)]
mod tests;
