// SPDX-License-Identifier: GPL-2.0

//! Operations of `struct gpio_chip` and `struct irq_chip`, and the messages that they send.

use kernel::{
    bitmap::Bitmap,
    gpio::{
        self,
        FlowHandler,
        IrqDomain,
        LineDirection, //
    },
    irq::TriggerType,
    prelude::*,
    sync::Arc,
    virtio::{
        Answer,
        Scope, //
    }, //
};

use crate::{
    irq_line::{
        self,
        Action, //
    },
    lines::Line,
    wire::{
        self,
        Direction,
        Message, //
    },
    VirtioGpio, //
};

/// The chip as gpiolib has it.
pub(crate) struct GpioChip(pub(crate) Arc<VirtioGpio>);

/// Converts an offset, which gpiolib has checked against the number of lines.
fn line(offset: u32) -> Result<u16> {
    Ok(u16::try_from(offset)?)
}

impl VirtioGpio {
    /// Changes the state of a line.
    pub(crate) fn update<R>(&self, line: u16, f: impl FnOnce(&mut Line) -> R) -> Result<R> {
        self.lines.with(|lines| lines.get(line).map(f))
    }

    /// Decodes the answer to a message, and notes what the device has accepted.
    ///
    /// Runs under the lock of the requestq: a reset of the device either comes before that, and the
    /// message fails, or after it, and the change is replayed.
    pub(crate) fn answered(
        &self,
        line: u16,
        message: Message,
        answer: Result<Answer<wire::Response>>,
    ) -> Result<u8> {
        let answer = answer?;
        let value = message.answer(&answer.response, answer.written)?;

        match message {
            Message::SetValue(value) => self.update(line, |state| state.value = value)?,
            Message::SetDirection(direction) => {
                self.update(line, |state| state.direction = direction)?
            }
            _ => (),
        }
        Ok(value)
    }

    /// Sends a message about a line and waits for the answer. Returns the value in it.
    ///
    /// # Errors
    ///
    /// - `EIO` if the device refuses it,
    /// - `EPROTO` if the answer is none,
    /// - `ETIMEDOUT`, `EINTR` or `ENODEV` as [`Requests`](kernel::virtio::Requests) has it.
    pub(crate) fn request(&self, line: u16, message: Message) -> Result<u8> {
        let mut ret = Err(ENODEV);
        let request = core::iter::once(message.request(line));

        self.requests
            .call_all(Scope::Any, request, |_, answer| {
                ret = self.answered(line, message, answer)
            })
            .and(ret)
    }

    /// Sends a message about each of `lines`, and hands the values in the answers to `each`.
    ///
    /// # Errors
    ///
    /// Those of [`VirtioGpio::request`], for the first that failed.
    pub(crate) fn request_all(
        &self,
        lines: impl Iterator<Item = u16> + Send,
        message: impl Fn(u16) -> Message + Send + Sync,
        mut each: impl FnMut(u16, u8) + Send,
    ) -> Result {
        let mut ret = Ok(());
        let requests = lines.map(|line| message(line).request(line));

        self.requests
            .call_all(Scope::Any, requests, |request, answer| {
                let line = request.line();

                match self.answered(line, message(line), answer) {
                    Ok(value) => each(line, value),
                    Err(err) => ret = ret.and(Err(err)),
                }
            })
            .and(ret)
    }
}

impl GpioChip {
    /// Has the device looked at if a request has failed because it needs a reset.
    fn checked<R>(&self, ret: Result<R>) -> Result<R> {
        ret.inspect_err(|_| VirtioGpio::check_queue(&self.0))
    }

    fn request_line(&self, offset: u32, message: Message) -> Result<u8> {
        self.checked(self.0.request(line(offset)?, message))
    }

    /// Deactivates a line that neither gpiolib nor genirq uses any more.
    ///
    /// Does not wait for the answer: a release may run when a killed task exits, which no signal
    /// interrupts.
    fn deactivate(&self, line: u16, release: impl FnOnce(&mut Line)) -> Result {
        let idle = self.0.update(line, |state| {
            release(state);

            let idle = !state.requested && !state.irq_requested;

            if idle {
                state.direction = Direction::None;
                state.value = false;
            }
            idle
        })?;

        if idle {
            let request = Message::SetDirection(Direction::None).request(line);

            self.0.requests.post(Scope::Any, request)?;
        }
        Ok(())
    }

    fn step(&self, offset: u32, step: &mut dyn FnMut(&mut irq_line::Line) -> Action) {
        if let Ok(line) = line(offset) {
            VirtioGpio::step(&self.0, line, step);
        }
    }
}

#[vtable]
impl gpio::Chip for GpioChip {
    fn request(&self, offset: u32) -> Result {
        self.0.update(line(offset)?, |state| state.requested = true)
    }

    fn free(&self, offset: u32) {
        // gpiolib takes no error. Without an answer the line is configured anew when it is used
        // again.
        let _ =
            line(offset).and_then(|line| self.deactivate(line, |state| state.requested = false));
    }

    fn get_direction(&self, offset: u32) -> Result<LineDirection> {
        // A line that is not in use drives nothing.
        Ok(
            match self.0.update(line(offset)?, |state| state.direction)? {
                Direction::Out => LineDirection::Out,
                Direction::In | Direction::None => LineDirection::In,
            },
        )
    }

    fn direction_input(&self, offset: u32) -> Result {
        self.request_line(offset, Message::SetDirection(Direction::In))
            .map(|_| ())
    }

    fn direction_output(&self, offset: u32, value: bool) -> Result {
        let line = line(offset)?;
        // The value first, so that the line does not start with another one.
        let set_value = Message::SetValue(value);
        let set_direction = Message::SetDirection(Direction::Out);
        let requests = [set_value.request(line), set_direction.request(line)];
        let mut ret = Ok(());

        let sent =
            (self.0.requests).call_all(Scope::Any, requests.into_iter(), |request, answer| {
                let message = if request == requests[0] {
                    set_value
                } else {
                    set_direction
                };

                ret = ret.and(self.0.answered(line, message, answer).map(|_| ()));
            });

        self.checked(sent.and(ret))
    }

    fn get(&self, offset: u32) -> Result<bool> {
        self.request_line(offset, Message::GetValue)
            .map(|value| value != 0)
    }

    fn get_multiple(&self, mask: &Bitmap, bits: &mut Bitmap) -> Result {
        self.checked(self.0.request_all(
            set_bits(mask),
            |_| Message::GetValue,
            |line, value| match value {
                0 => bits.clear_bit(line.into()),
                _ => bits.set_bit(line.into()),
            },
        ))
    }

    fn set(&self, offset: u32, value: bool) -> Result {
        self.request_line(offset, Message::SetValue(value))
            .map(|_| ())
    }

    fn set_multiple(&self, mask: &Bitmap, bits: &Bitmap) -> Result {
        let value = |line: u16| bits.next_bit(line.into()) == Some(line.into());

        self.checked(self.0.request_all(
            set_bits(mask),
            |line| Message::SetValue(value(line)),
            |_, _| (),
        ))
    }
}

/// Returns the lines whose bits are set.
fn set_bits(mask: &Bitmap) -> impl Iterator<Item = u16> + Send + '_ {
    let mut next = 0;

    core::iter::from_fn(move || {
        let index = mask.next_bit(next)?;

        next = index + 1;
        // CAST: Lines number from 0 to 65534.
        Some(index as u16)
    })
}

#[vtable]
impl gpio::IrqChip for GpioChip {
    const HANDLER: FlowHandler = FlowHandler::Level;

    fn irq_domain(&self) -> &IrqDomain {
        &self.0.domain
    }

    fn irq_request_resources(&self, offset: u32) -> Result {
        let line = line(offset)?;

        if !self.0.add_irq_user()? {
            self.0.warn_of_turns();
        }

        let direction = self.0.update(line, |state| {
            state.irq_requested = true;
            state.direction
        });
        let ret = direction.and_then(|direction| match direction {
            Direction::In => Ok(()),
            // A consumer of nothing but the interrupt has not made it one.
            _ => gpio::Chip::direction_input(self, offset),
        });

        ret.inspect_err(|_| self.irq_release_resources(offset))
    }

    fn irq_release_resources(&self, offset: u32) {
        self.0.remove_irq_user();
        // As in `free()`.
        let _ = line(offset)
            .and_then(|line| self.deactivate(line, |state| state.irq_requested = false));
    }

    fn irq_startup(&self, offset: u32) {
        self.step(offset, &mut irq_line::Line::startup);
    }

    fn irq_shutdown(&self, offset: u32) {
        self.step(offset, &mut irq_line::Line::shutdown);
    }

    fn irq_mask(&self, offset: u32) {
        self.step(offset, &mut |line| {
            line.mask();
            Action::None
        });
    }

    fn irq_unmask(&self, offset: u32) {
        self.step(offset, &mut irq_line::Line::unmask);
    }

    fn irq_set_type(&self, offset: u32, trigger: TriggerType) -> Result {
        if trigger == TriggerType::None {
            return Err(EINVAL);
        }
        self.step(offset, &mut |line| line.set_type(trigger));
        Ok(())
    }

    fn irq_bus_lock(&self, offset: u32) {
        if let Ok(line) = line(offset) {
            self.0.lines.with(|lines| lines.set_bus_locked(line, true));
        }
    }

    fn irq_bus_sync_unlock(&self, offset: u32) {
        if let Ok(line) = line(offset) {
            VirtioGpio::bus_unlock(&self.0, line);
        }
    }
}
