// SPDX-License-Identifier: GPL-2.0

//! The GPIO controller: what gpiolib and genirq ask of it.

use kernel::{
    bitmap::Bitmap,
    fmt,
    gpio::{
        self,
        FlowHandler,
        IrqDomain,
        LineDirection, //
    },
    irq::TriggerType,
    prelude::*,
    sync::{
        Arc,
        RawSpinLock, //
    }, //
};

use crate::{
    device::VirtioGpio,
    line::{
        self,
        Action, //
    },
    requestq::RequestQueue,
    wire::{
        Direction,
        IrqType,
        Message, //
    }, //
};

/// What the driver knows of a line, so that it need not ask the device.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// The direction that the device has.
    direction: Direction,
    /// The value that was set last.
    value: bool,
    /// A consumer has the line as a GPIO.
    requested: bool,
    /// A consumer has the line as an interrupt.
    irq: bool,
}

impl Usage {
    /// A line that nobody uses.
    pub(crate) const fn new(direction: Direction) -> Self {
        Self {
            direction,
            value: false,
            requested: false,
            irq: false,
        }
    }

    /// Returns whether a consumer has the line.
    pub(crate) fn is_used(&self) -> bool {
        self.requested || self.irq
    }

    /// Returns whether a consumer has the line as an interrupt.
    pub(crate) fn is_irq(&self) -> bool {
        self.irq
    }

    /// Returns the messages that make a device that was reset as it was: value and direction.
    pub(crate) fn replay(&self) -> impl Iterator<Item = Message> {
        let used = self.is_used() && self.direction != Direction::None;
        let value =
            (used && self.direction == Direction::Out).then_some(Message::SetValue(self.value));
        let direction = used.then_some(Message::SetDirection(self.direction));

        [value, direction].into_iter().flatten()
    }

    /// Shows it to people.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "direction {:?}", self.direction)?;
        if self.direction == Direction::Out {
            write!(f, ", value {}", u8::from(self.value))?;
        }
        for (is, what) in [(self.requested, ", gpio"), (self.irq, ", interrupt")] {
            if is {
                f.write_str(what)?;
            }
        }
        Ok(())
    }
}

/// What the driver knows of all lines.
pub(crate) type Lines = RawSpinLock<KVVec<Usage>>;

/// The chip as gpiolib has it.
pub(crate) struct GpioChip(pub(crate) Arc<VirtioGpio>);

/// Converts an offset, which gpiolib has checked against the number of lines.
fn line(offset: u32) -> Result<u16> {
    Ok(u16::try_from(offset)?)
}

impl GpioChip {
    /// Changes what the driver knows of a line.
    fn usage<R>(&self, line: u16, f: impl FnOnce(&mut Usage) -> R) -> Result<R> {
        self.0
            .lines
            .with(|lines| lines.get_mut(usize::from(line)).map(f))
            .ok_or(EINVAL)
    }

    /// Has the device set something about a line.
    fn request(&self, line: u16, message: Message) -> Result {
        VirtioGpio::request(&self.0, line, message, |_| self.note(line, message))
    }

    /// The device has accepted a message.
    ///
    /// To be called under the lock of the requestq, so that a reset of the device comes either
    /// before that, and the message fails, or after it, and the change is replayed.
    fn note(&self, line: u16, message: Message) -> Result {
        match message {
            Message::SetValue(value) => self.usage(line, |usage| usage.value = value),
            Message::SetDirection(direction) => {
                self.usage(line, |usage| usage.direction = direction)
            }
            _ => Ok(()),
        }
    }

    /// Sets the direction of a line at the device.
    fn set_direction(&self, line: u16, direction: Direction) -> Result {
        self.request(line, Message::SetDirection(direction))
    }

    /// Deactivates a line that neither side of the chip uses any more.
    ///
    /// Does not wait for the device: a release may run when a killed task exits, which nothing
    /// could interrupt.
    fn deactivate(&self, line: u16) -> Result {
        let idle = self.usage(line, |usage| {
            let idle = !usage.requested && !usage.irq;

            if idle {
                *usage = Usage::new(Direction::None);
            }
            idle
        })?;

        if idle {
            let message = Message::SetDirection(Direction::None);

            RequestQueue::post(&self.0.requests, None, line, message)?;
        }
        Ok(())
    }

    /// Has the machine of a line step, and sees to what is left to do.
    fn step(&self, offset: u32, step: impl FnOnce(&mut line::Line) -> Action) {
        if let Ok(line) = line(offset) {
            VirtioGpio::follow_up(&self.0, self.0.events.update(line, step));
        }
    }
}

#[vtable]
impl gpio::Chip for GpioChip {
    fn request(&self, offset: u32) -> Result {
        self.usage(line(offset)?, |usage| usage.requested = true)
    }

    fn free(&self, offset: u32) {
        let freed = line(offset).and_then(|line| {
            self.usage(line, |usage| usage.requested = false)?;
            self.deactivate(line)
        });

        // gpiolib does not want to know. Without an answer the line is configured anew when it is
        // used again.
        let _ = freed;
    }

    fn get_direction(&self, offset: u32) -> Result<LineDirection> {
        let direction = self.usage(line(offset)?, |usage| usage.direction)?;

        // A line that is not in use drives nothing.
        Ok(match direction {
            Direction::Out => LineDirection::Out,
            Direction::In | Direction::None => LineDirection::In,
        })
    }

    fn direction_input(&self, offset: u32) -> Result {
        self.set_direction(line(offset)?, Direction::In)
    }

    fn direction_output(&self, offset: u32, value: bool) -> Result {
        let line = line(offset)?;
        // The value first, so that the line does not start with another one.
        let messages = [
            Message::SetValue(value),
            Message::SetDirection(Direction::Out),
        ];
        let mut sent = messages.iter();
        let mut answered = messages.iter();
        let mut ret = Ok(());

        VirtioGpio::batch(
            &self.0,
            &mut || sent.next().map(|&message| (line, message)),
            &mut |answer| {
                let message = answered.next().ok_or(EIO);

                ret = ret.and(
                    answer
                        .and(message)
                        .and_then(|&message| self.note(line, message)),
                );
            },
        )?;
        ret
    }

    fn get(&self, offset: u32) -> Result<bool> {
        VirtioGpio::request(&self.0, line(offset)?, Message::GetValue, |value| {
            Ok(value != 0)
        })
    }

    fn get_multiple(&self, mask: &Bitmap, bits: &mut Bitmap) -> Result {
        let mut sent = set_bits(mask);
        let mut answered = set_bits(mask);
        let mut ret = Ok(());

        VirtioGpio::batch(
            &self.0,
            &mut || sent.next().map(|index| (index as u16, Message::GetValue)),
            &mut |answer| match (answered.next(), answer) {
                (Some(index), Ok(0)) => bits.clear_bit(index),
                (Some(index), Ok(_)) => bits.set_bit(index),
                (_, Err(err)) => ret = ret.and(Err(err)),
                (None, Ok(_)) => (),
            },
        )?;
        ret
    }

    fn set(&self, offset: u32, value: bool) -> Result {
        self.request(line(offset)?, Message::SetValue(value))
    }

    fn set_multiple(&self, mask: &Bitmap, bits: &Bitmap) -> Result {
        let mut sent = set_bits(mask);
        let mut answered = set_bits(mask);
        let mut ret = Ok(());
        let value = |index| bits.next_bit(index) == Some(index);

        VirtioGpio::batch(
            &self.0,
            &mut || {
                let index = sent.next()?;

                Some((index as u16, Message::SetValue(value(index))))
            },
            &mut |answer| match (answered.next(), answer) {
                (Some(index), Ok(_)) => {
                    let _ = self.note(index as u16, Message::SetValue(value(index)));
                }
                (_, Err(err)) => ret = ret.and(Err(err)),
                (None, Ok(_)) => (),
            },
        )?;
        ret
    }
}

/// Returns the numbers of the bits that are set.
fn set_bits(mask: &Bitmap) -> impl Iterator<Item = usize> + '_ {
    let mut next = 0;

    core::iter::from_fn(move || {
        let index = mask.next_bit(next)?;

        next = index + 1;
        Some(index)
    })
}

#[vtable]
impl gpio::IrqChip for GpioChip {
    const HANDLER: FlowHandler = FlowHandler::Level;

    fn irq_domain(&self) -> &IrqDomain {
        self.0.events.domain()
    }

    fn irq_request_resources(&self, offset: u32) -> Result {
        let line = line(offset)?;
        let room = self.0.events.add_user()?;

        let ret = self
            .usage(line, |usage| {
                usage.irq = true;
                usage.direction
            })
            .and_then(|direction| match direction {
                Direction::In => Ok(()),
                // A consumer of nothing but the interrupt has not made it one.
                _ => self.set_direction(line, Direction::In),
            });

        if let Err(err) = ret {
            self.irq_release_resources(offset);
            return Err(err);
        }

        if !room {
            self.0.warn_crowded();
        }
        Ok(())
    }

    fn irq_release_resources(&self, offset: u32) {
        self.0.events.remove_user();

        let released = line(offset).and_then(|line| {
            self.usage(line, |usage| usage.irq = false)?;
            self.deactivate(line)
        });

        // As in `free()`.
        let _ = released;
    }

    fn irq_startup(&self, offset: u32) {
        self.step(offset, line::Line::startup);
    }

    fn irq_shutdown(&self, offset: u32) {
        self.step(offset, |line| {
            line.shutdown();
            Action::None
        });
    }

    fn irq_mask(&self, offset: u32) {
        self.step(offset, |line| {
            line.mask();
            Action::None
        });
    }

    fn irq_unmask(&self, offset: u32) {
        self.step(offset, line::Line::unmask);
    }

    fn irq_set_type(&self, offset: u32, trigger: TriggerType) -> Result {
        let kind = match trigger {
            TriggerType::EdgeRising => IrqType::EdgeRising,
            TriggerType::EdgeFalling => IrqType::EdgeFalling,
            TriggerType::EdgeBoth => IrqType::EdgeBoth,
            TriggerType::LevelHigh => IrqType::LevelHigh,
            TriggerType::LevelLow => IrqType::LevelLow,
            TriggerType::None => return Err(EINVAL),
        };

        self.step(offset, |line| line.set_type(kind));
        Ok(())
    }

    fn irq_bus_lock(&self, offset: u32) {
        if let Ok(line) = line(offset) {
            self.0.events.bus_lock(line);
        }
    }

    fn irq_bus_sync_unlock(&self, offset: u32) {
        if let Ok(line) = line(offset) {
            VirtioGpio::sync_line(&self.0, line, true);
        }
    }
}
