// SPDX-License-Identifier: GPL-2.0

//! State of the lines: direction, value, users and interrupt of each.
//!
//! All of it is under one raw lock, which callbacks under an interrupt descriptor's lock may take,
//! too. Nothing is sent under it: a line that needs an event buffer is marked, and
//! [`events`](crate::events) hands the buffer to the device later.

use kernel::{
    bitmap::BitmapVec,
    prelude::*, //
};

use crate::{
    irq_line::{
        self,
        Action, //
    },
    wire::{
        Direction,
        Message, //
    }, //
};

/// The state of one line.
pub(crate) struct Line {
    /// The direction that the device has, and the value that was set last.
    pub(crate) direction: Direction,
    pub(crate) value: bool,
    /// A consumer has the line as a GPIO, or as an interrupt.
    pub(crate) requested: bool,
    pub(crate) irq_requested: bool,
    pub(crate) irq: irq_line::Line,
    /// The bus lock of the line is held. Its unlocking hands buffers to the device.
    bus_locked: bool,
    /// An interrupt was delivered, and the line was not unmasked since.
    delivered: bool,
}

impl Line {
    const fn new() -> Self {
        Self {
            direction: Direction::None,
            value: false,
            requested: false,
            irq_requested: false,
            irq: irq_line::Line::NEW,
            bus_locked: false,
            delivered: false,
        }
    }

    /// Returns one of the two messages that restore the state of the line after a reset, if it
    /// needs that: first the value, then the direction.
    pub(crate) fn replay(&self, first: bool) -> Option<Message> {
        match (self.requested || self.irq_requested, self.direction) {
            (false, _) | (_, Direction::None) => None,
            (_, Direction::Out) if first => Some(Message::SetValue(self.value)),
            _ if first => None,
            (_, direction) => Some(Message::SetDirection(direction)),
        }
    }
}

/// What is left to do for work items.
#[derive(Clone, Copy, Default)]
pub(crate) struct Deferred {
    /// Lines are marked for a retry after a while.
    pub(crate) retry: bool,
    /// Lines wait for an event buffer, and no other context is going to hand it to the device.
    pub(crate) arm: bool,
}

impl core::ops::BitOrAssign for Deferred {
    fn bitor_assign(&mut self, other: Self) {
        self.retry |= other.retry;
        self.arm |= other.arm;
    }
}

/// The state of all lines.
pub(crate) struct Lines {
    lines: KVVec<Line>,
    /// Lines that wait for an event buffer, where to look for the next, and whether to look.
    waiting: BitmapVec,
    turn: usize,
    any_waiting: bool,
    /// Lines that wait for a retry.
    retry: BitmapVec,
    /// How many contexts handle events. Each hands buffers to the device at its end.
    pub(crate) handlers: u32,
    /// How many lines are `delivered`.
    delivered: usize,
}

impl Lines {
    /// Allocates the state of `ngpio` lines, which are not in use.
    pub(crate) fn new(ngpio: u16) -> Result<Self> {
        let count = usize::from(ngpio);
        let mut lines = KVVec::with_capacity(count, GFP_KERNEL)?;

        for _ in 0..count {
            lines.push(Line::new(), GFP_KERNEL)?;
        }

        Ok(Self {
            lines,
            waiting: BitmapVec::new(count, GFP_KERNEL)?,
            turn: 0,
            any_waiting: false,
            retry: BitmapVec::new(count, GFP_KERNEL)?,
            handlers: 0,
            delivered: 0,
        })
    }

    /// Returns the state of a line.
    pub(crate) fn get(&mut self, line: u16) -> Result<&mut Line> {
        self.lines.get_mut(usize::from(line)).ok_or(EINVAL)
    }

    /// Has the interrupt of a line step. Returns whether it is to be delivered, and what is left to
    /// do.
    pub(crate) fn step(
        &mut self,
        line: u16,
        step: &mut dyn FnMut(&mut irq_line::Line) -> Action,
    ) -> (bool, Deferred) {
        let mut deferred = Deferred::default();
        let handlers = self.handlers;
        let Ok(state) = self.get(line) else {
            return (false, deferred);
        };
        let action = step(&mut state.irq);

        // genirq mostly starts and ends interrupts under the bus lock, but need not where it cannot
        // sleep. The retry sends what the device has to be told.
        deferred.retry = action == Action::Retry || (!state.bus_locked && state.irq.needs_sync());
        deferred.arm = action == Action::Arm && handlers == 0 && !state.bus_locked;

        match action {
            Action::Arm => {
                self.wait_for_buffer(line);
                self.end_delivery(line);
            }
            Action::Deliver => {
                let first = !core::mem::replace(&mut state.delivered, true);

                self.delivered += usize::from(first);
            }
            Action::Retry | Action::None => (),
        }

        if deferred.retry {
            self.mark_for_retry(line);
        }
        (action == Action::Deliver, deferred)
    }

    /// Notes that the bus lock of a line was taken or is about to be released.
    pub(crate) fn set_bus_locked(&mut self, line: u16, locked: bool) {
        if let Ok(state) = self.get(line) {
            state.bus_locked = locked;
        }
    }

    /// Marks the line for a retry.
    pub(crate) fn mark_for_retry(&mut self, line: u16) {
        self.retry.set_bit(line.into());
    }

    /// Returns the first line from `from` on that was marked for a retry, and takes the mark away.
    pub(crate) fn next_retry(&mut self, from: u16) -> Option<u16> {
        let index = self.retry.next_bit(from.into())?;

        self.retry.clear_bit(index);
        // CAST: Lines number from 0 to 65534.
        Some(index as u16)
    }

    /// Has a line, which is to be armed, wait for a buffer.
    pub(crate) fn wait_for_buffer(&mut self, line: u16) {
        if let Ok(state) = self.get(line) {
            state.irq.wait_for_room();
            self.waiting.set_bit(line.into());
            self.any_waiting = true;
        }
    }

    /// Tells whether lines may wait for a buffer that no context is about to hand over.
    pub(crate) fn needs_arming(&self) -> bool {
        self.any_waiting && self.handlers == 0
    }

    /// Returns a line that waits for a buffer, and is armed now. The lines take turns.
    pub(crate) fn next_armed(&mut self) -> Option<u16> {
        while self.any_waiting {
            let Some(index) =
                (self.waiting.next_bit(self.turn)).or_else(|| self.waiting.next_bit(0))
            else {
                self.any_waiting = false;
                break;
            };

            self.waiting.clear_bit(index);
            self.turn = if index + 1 < self.lines.len() {
                index + 1
            } else {
                0
            };
            if self.lines.get_mut(index)?.irq.arm_waiting() == Action::Arm {
                // CAST: As above.
                return Some(index as u16);
            }
        }
        None
    }

    /// Notes that the handlers of a line's interrupt are done. Returns whether those of all other
    /// lines are, too.
    pub(crate) fn end_delivery(&mut self, line: u16) -> bool {
        let delivered = (self.get(line)).is_ok_and(|state| core::mem::take(&mut state.delivered));

        self.delivered -= usize::from(delivered);
        self.delivered == 0
    }

    /// Forgets what the device was told about the interrupt of a line, because it was reset.
    pub(crate) fn reset_irq(&mut self, line: u16) {
        if let Ok(state) = self.get(line) {
            state.irq.reset();
            self.waiting.clear_bit(line.into());
            self.retry.clear_bit(line.into());
        }
    }
}
