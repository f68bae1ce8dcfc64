// SPDX-License-Identifier: GPL-2.0

//! State of the lines: direction, value, users and interrupt of each.
//!
//! All of it is under one raw lock, which callbacks under an interrupt descriptor's lock may take,
//! too. Nothing is sent under it: a line that needs an event buffer is marked, and
//! [`events`](crate::events) hands the buffer to the device later.

use kernel::{
    bitmap::BitmapVec,
    prelude::*,
    uapi, //
};

use crate::{
    irq_line::{
        self,
        Action, //
    },
    wire::{
        Direction,
        Request, //
    }, //
};

/// The state of one line.
#[derive(Clone)]
pub(crate) struct Line {
    /// The direction that the device has.
    pub(crate) direction: Direction,
    /// The value that was set last.
    pub(crate) value: bool,
    /// A consumer has the line as a GPIO.
    pub(crate) requested: bool,
    /// A consumer has the line as an interrupt.
    pub(crate) irq_requested: bool,
    pub(crate) irq: irq_line::Line,
    /// The bus lock of the line is held. Its unlocking hands buffers to the device.
    pub(crate) bus_locked: bool,
    /// An interrupt was delivered, and the line was not unmasked since.
    delivered: bool,
}

impl Line {
    const NEW: Self = Self {
        direction: Direction::None,
        value: false,
        requested: false,
        irq_requested: false,
        irq: irq_line::Line::NEW,
        bus_locked: false,
        delivered: false,
    };

    /// Returns whether a consumer has the line.
    pub(crate) fn is_used(&self) -> bool {
        self.requested || self.irq_requested
    }

    /// Forgets direction and value if no consumer has the line. Returns whether that is so.
    pub(crate) fn deactivate(&mut self) -> bool {
        if !self.is_used() {
            self.direction = Direction::None;
            self.value = false;
        }
        !self.is_used()
    }

    /// Notes that the device was reset: it knows nothing of the line.
    pub(crate) fn reset(&mut self) {
        self.irq.reset();
        self.deactivate();
    }

    /// Notes what the device has said, or accepted, in answer to `request`.
    pub(crate) fn note(&mut self, request: &Request, value: u8) {
        match request.kind() {
            uapi::VIRTIO_GPIO_MSG_GET_DIRECTION | uapi::VIRTIO_GPIO_MSG_SET_DIRECTION => {
                self.direction = Direction::try_from(value).unwrap_or(self.direction)
            }
            uapi::VIRTIO_GPIO_MSG_SET_VALUE => self.value = value != 0,
            _ => (),
        }
    }

    /// Returns the requests that restore value and direction of `line` after a reset.
    pub(crate) fn replay(&self, line: u16) -> [Option<Request>; 2] {
        let is_known = self.direction != Direction::None;
        let is_output = self.direction == Direction::Out;

        [
            is_output.then(|| Request::set_value(line, self.value)),
            is_known.then(|| Request::set_direction(line, self.direction)),
        ]
    }
}

/// The state of all lines.
pub(crate) struct Lines {
    lines: KVVec<Line>,
    /// Lines that wait for an event buffer.
    waiting: BitmapVec,
    /// Their number.
    waiting_count: usize,
    /// Where to look for the next of them.
    turn: usize,
    /// A callback has delivered an event. Its end hands buffers to the device.
    pub(crate) handling: bool,
    /// How many lines are `delivered`.
    delivered: usize,
}

impl Lines {
    /// Allocates the state of `ngpio` lines, which are not in use.
    pub(crate) fn new(ngpio: u16) -> Result<Self> {
        Ok(Self {
            lines: KVVec::from_elem(Line::NEW, ngpio.into(), GFP_KERNEL)?,
            // One more, for `turn` to be in it after the last line.
            waiting: BitmapVec::new(usize::from(ngpio) + 1, GFP_KERNEL)?,
            waiting_count: 0,
            turn: 0,
            handling: false,
            delivered: 0,
        })
    }

    /// Returns the state of a line. Its number comes from gpiolib or from a buffer's private part.
    pub(crate) fn get(&mut self, line: u16) -> &mut Line {
        &mut self.lines[usize::from(line)]
    }

    /// Feeds an input to the state machine of a line. Has the line wait for a buffer if it is to be
    /// armed. Returns what is left to do: [`Action::Arm`] if no other context is going to hand the
    /// buffer to the device.
    pub(crate) fn step(
        &mut self,
        line: u16,
        step: &mut dyn FnMut(&mut irq_line::Line) -> Action,
    ) -> Action {
        let state = self.get(line);
        let bus_locked = state.bus_locked;

        match step(&mut state.irq) {
            Action::Arm => {
                self.wait_for_buffer(line);
                self.end_delivery(line);
                if self.handling || bus_locked {
                    return Action::None;
                }
                Action::Arm
            }
            Action::Deliver => {
                let first = !core::mem::replace(&mut state.delivered, true);

                self.delivered += usize::from(first);
                self.handling = true;
                Action::Deliver
            }
            // genirq has started or shut down the interrupt without the bus lock, so there is no
            // `irq_bus_sync_unlock()` to send the type.
            Action::None if !bus_locked && state.irq.needs_sync() => Action::Retry,
            action => action,
        }
    }

    /// Has a line, which is to be armed, wait for a buffer.
    pub(crate) fn wait_for_buffer(&mut self, line: u16) {
        self.get(line).irq.wait_for_buffer();
        if self.waiting.next_zero_bit(line.into()) == Some(line.into()) {
            self.waiting.set_bit(line.into());
            self.waiting_count += 1;
        }
    }

    /// Returns whether lines may wait for a buffer.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting_count > 0
    }

    /// Returns a line that waits for a buffer, and is armed now, and whether others may wait. The
    /// lines take turns.
    pub(crate) fn next_armed(&mut self) -> (Option<u16>, bool) {
        while self.is_waiting() {
            let next = (self.waiting.next_bit(self.turn)).or_else(|| self.waiting.next_bit(0));
            let Some(index) = next else { break };

            self.waiting.clear_bit(index);
            self.waiting_count -= 1;
            self.turn = index + 1;
            if self.lines[index].irq.arm_waiting() == Action::Arm {
                // CAST: Lines number from 0 to 65534.
                return (Some(index as u16), self.is_waiting());
            }
        }
        (None, false)
    }

    /// Notes that a line was unmasked, or that its handlers are done. Returns `true` if no
    /// delivered line is left masked, because handlers run, or because genirq has disabled it.
    pub(crate) fn end_delivery(&mut self, line: u16) -> bool {
        let delivered = core::mem::take(&mut self.get(line).delivered);

        self.delivered -= usize::from(delivered);
        self.delivered == 0
    }
}
