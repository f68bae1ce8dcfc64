// SPDX-License-Identifier: GPL-2.0

//! State machine of the interrupt of a line. It decides what an event, an answer or genirq leads
//! to, and sends nothing.
//!
//! Three parties act on the interrupt of a line, none of which waits for another: genirq demands
//! things of it with interrupts off, the device answers messages and returns event buffers, and
//! something that may sleep sends the messages. [`Line`] knows what was demanded and what the
//! device has been told, and decides what is next. It does nothing itself: each input returns what
//! there is to do.
//!
//! # Protocol
//!
//! To be told of an interrupt a driver first enables it, by a message that sets its type, and then
//! unmasks it, by handing a buffer to the device. The device returns the buffer when the line
//! interrupts, which masks it again. So a line without its buffer at the device is masked, and
//! masking costs no message. While it is masked the device remembers an edge, but forgets it when
//! it is told the type NONE.
//!
//! - A type replaces no other: NONE comes first.
//! - The buffer goes out after the device has *accepted* the type, and there is one per line.
//! - On NONE the device returns the buffer that it has no use for. Since answers and buffers are on
//!   different queues, the buffer may come before the answer to NONE, after it, or even after the
//!   answer to the next type. There are devices that keep it, and use it for the next interrupt.
//!
//! # Messages
//!
//! The type that the device is to be told comes from [`Line::next_message`], in a loop that may
//! sleep, until there is none:
//!
//! - The type NONE need not be waited for: the device processes the messages of one line in order.
//! - Any other has to be waited for.
//! - The outcome of each goes to [`Line::answered`], and until then there is no other message. So
//!   if there are two such loops at the same time, then one of them sends everything, in order,
//!   and it sees what has changed in the meantime.
//!
//! # Devices that misbehave
//!
//! A buffer that comes back for no good reason is *spurious*: the line has to be armed again, or it
//! is dead, but a device that always returns it must not keep a processor busy. The first few
//! spurious returns in a row are answered at once, and all others later, after [`Action::Retry`].
//! One of them takes the type back and sets it anew, for a device that has forgotten it. An
//! interrupt ends the row.

use kernel::{
    irq::TriggerType,
    prelude::*, //
};

use crate::wire::Event;

/// How many spurious returns in a row are answered at once.
const AT_ONCE: u8 = 4;

/// The spurious return in a row that takes the type back and sets it anew.
const RESYNC: u8 = 8;

/// What the device holds, as far as messages and answers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// This type.
    Type(TriggerType),
    /// This type, once the device has taken the message that is under way.
    Sent(TriggerType),
    /// No type: the device has refused the one that is demanded. It is not asked again before
    /// genirq demands something else, or the same anew.
    Refused,
    /// Anything: it was told a type, but has not answered. It is left alone until
    /// [`Line::retry`], or until genirq demands something.
    Unanswered,
    /// Anything.
    Unknown,
}

/// Where the event buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Buffer {
    /// With the driver.
    Home,
    /// With the driver, to be added to the queue when there is room: [`Line::arm_waiting`].
    Waiting,
    /// With the driver, because of spurious returns, until [`Line::retry`].
    Resting,
    /// With the device, for the type that the device holds.
    Armed,
    /// With the device, for a type that was taken back since. It may come back for that reason, or
    /// serve the next type.
    Stale,
}

/// What there is to do after an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Action {
    /// Nothing.
    None,
    /// Hand the buffer to the device. It counts as armed: a caller that does not hand it over under
    /// the same lock calls [`Line::wait_for_buffer`].
    Arm,
    /// Call the flow handler. It leaves the line masked, or unmasks it.
    Deliver,
    /// Call [`Line::retry`] after a while.
    Retry,
}

/// The interrupt of one line.
///
/// # Invariants
///
/// - `buffer` is [`Buffer::Armed`] only while `held` is a [`Held::Type`] other than NONE.
/// - `buffer` is neither [`Buffer::Waiting`] nor [`Buffer::Resting`] unless `started`.
/// - [`Line::may_arm`] is false after each input: the input that makes it true arms the line. But
///   after [`Action::Deliver`] it may be true until the flow handler has masked the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    trigger: TriggerType,
    /// genirq uses the interrupt.
    started: bool,
    /// genirq does not want the interrupt for now.
    masked: bool,
    held: Held,
    buffer: Buffer,
    spurious: u8,
    /// genirq wants the interrupt to wake the system up.
    pub(crate) wakes: bool,
    /// The system is suspended: the device holds a type only if the interrupt is to wake it up.
    asleep: bool,
}

// There may be 65535 of them.
static_assert!(size_of::<Line>() <= 16);

impl Line {
    /// The state of a line that was not used since the device was reset.
    pub(crate) const NEW: Self = Self {
        trigger: TriggerType::None,
        started: false,
        masked: false,
        held: Held::Type(TriggerType::None),
        buffer: Buffer::Home,
        spurious: 0,
        wakes: false,
        asleep: false,
    };

    /// genirq sets the type.
    pub(crate) fn set_type(&mut self, trigger: TriggerType) -> Action {
        self.trigger = trigger;
        self.ask_again();
        self.arm()
    }

    /// genirq starts to use the interrupt, unmasked.
    pub(crate) fn startup(&mut self) -> Action {
        self.started = true;
        self.masked = false;
        self.spurious = 0;
        self.ask_again();
        self.arm()
    }

    /// genirq ceases to use the interrupt.
    pub(crate) fn shutdown(&mut self) -> Action {
        self.started = false;
        self.ask_again();
        // Who waited to be armed need not any more.
        if matches!(self.buffer, Buffer::Waiting | Buffer::Resting) {
            self.buffer = Buffer::Home;
        }
        Action::None
    }

    /// genirq masks the interrupt.
    ///
    /// The buffer stays where it is: an interrupt that comes now is one that genirq makes up for.
    pub(crate) fn mask(&mut self) {
        self.masked = true;
    }

    /// genirq unmasks the interrupt.
    pub(crate) fn unmask(&mut self) -> Action {
        self.masked = false;
        self.arm()
    }

    /// The system is suspended, until [`Line::reset`]. Returns whether the interrupt is in use.
    pub(crate) fn sleep(&mut self) -> bool {
        self.asleep = true;
        self.started
    }

    /// Returns the type that the device has to be told next, if there is one.
    ///
    /// The outcome has to be told to [`Line::answered`].
    pub(crate) fn next_message(&mut self) -> Option<TriggerType> {
        let kind = self.due()?;

        // INVARIANT: While a message is under way no buffer counts as armed.
        if self.buffer == Buffer::Armed {
            self.buffer = Buffer::Stale;
        }
        self.held = Held::Sent(kind);

        Some(kind)
    }

    /// Returns whether there is a message for [`Line::next_message`] to return.
    pub(crate) fn needs_sync(&self) -> bool {
        self.due().is_some()
    }

    /// Returns whether the message that sets `kind` is under way. If not, then the device was reset
    /// since.
    pub(crate) fn sends(&self, kind: TriggerType) -> bool {
        self.held == Held::Sent(kind)
    }

    /// The outcome of a message is known: the device has accepted it (or will, if it was NONE),
    /// has refused it by `EIO` and holds no type, or there was no answer that makes sense in time.
    pub(crate) fn answered(&mut self, outcome: Result) -> Action {
        let Held::Sent(sent) = self.held else {
            return Action::None;
        };

        self.held = match outcome {
            Ok(()) => Held::Type(sent),
            // If something else is demanded by now, the refusal does not matter.
            Err(EIO) if sent == self.wanted() => Held::Refused,
            Err(EIO) => Held::Type(TriggerType::None),
            Err(_) => Held::Unanswered,
        };

        match self.held {
            Held::Unanswered => Action::Retry,
            _ => self.arm(),
        }
    }

    /// The buffer that [`Action::Arm`] was about is not handed over yet.
    ///
    /// [`Line::arm_waiting`] has to be called when there may be room.
    pub(crate) fn wait_for_buffer(&mut self) {
        if self.buffer == Buffer::Armed {
            self.buffer = Buffer::Waiting;
        }
    }

    /// There may be room for a buffer again.
    pub(crate) fn arm_waiting(&mut self) -> Action {
        if self.buffer == Buffer::Waiting {
            self.buffer = Buffer::Home;
        }
        self.arm()
    }

    /// The device has returned the buffer.
    pub(crate) fn returned(&mut self, event: Event) -> Action {
        let stale = self.buffer == Buffer::Stale;

        self.buffer = Buffer::Home;

        match event {
            // This may be an interrupt of a type that was taken back since. It did happen, and one
            // too many does less harm than one that is lost.
            Event::Valid if self.started => {
                self.spurious = 0;
                Action::Deliver
            }
            Event::Valid => Action::None,
            Event::Invalid if stale => self.arm(),
            Event::Invalid | Event::Odd => self.spurious_return(),
        }
    }

    /// The while of [`Action::Retry`] has passed.
    ///
    /// If then [`Line::needs_sync`], messages have to be sent.
    pub(crate) fn retry(&mut self) -> Action {
        if self.held == Held::Unanswered {
            self.held = Held::Unknown;
        }
        if self.buffer == Buffer::Resting {
            self.buffer = Buffer::Home;
        }
        self.arm()
    }

    /// The device was reset: it holds nothing, and its buffers are home.
    ///
    /// What genirq demands remains. Messages have to be sent for the device to learn of it.
    pub(crate) fn reset(&mut self) {
        self.held = match self.held {
            // The message sets nothing any more. Its sender still reports an outcome.
            Held::Sent(_) => Held::Sent(TriggerType::None),
            _ => Held::Type(TriggerType::None),
        };
        self.buffer = Buffer::Home;
        self.spurious = 0;
        self.asleep = false;
    }

    /// Returns the type that the device is to hold.
    fn wanted(&self) -> TriggerType {
        if self.started && (self.wakes || !self.asleep) {
            self.trigger
        } else {
            TriggerType::None
        }
    }

    /// Returns the message that takes the device nearer to the type that it is to hold.
    fn due(&self) -> Option<TriggerType> {
        match (self.held, self.wanted()) {
            (Held::Sent(_) | Held::Refused | Held::Unanswered, _) => None,
            (Held::Type(held), wanted) if held == wanted => None,
            (Held::Type(TriggerType::None), wanted) => Some(wanted),
            (Held::Type(_) | Held::Unknown, _) => Some(TriggerType::None),
        }
    }

    /// Makes the device be asked again for what it has not accepted so far.
    fn ask_again(&mut self) {
        self.held = match self.held {
            Held::Refused => Held::Type(TriggerType::None),
            Held::Unanswered => Held::Unknown,
            held => held,
        };
    }

    /// Returns whether the buffer is to go to the device.
    fn may_arm(&self) -> bool {
        self.started
            && !self.masked
            && self.buffer == Buffer::Home
            && self.trigger != TriggerType::None
            && self.held == Held::Type(self.trigger)
    }

    /// Arms the line if it may be.
    fn arm(&mut self) -> Action {
        if !self.may_arm() {
            return Action::None;
        }

        self.buffer = Buffer::Armed;
        Action::Arm
    }

    /// Finds a way to arm the line again after the device returned the buffer for no good reason.
    fn spurious_return(&mut self) -> Action {
        // It is masked, shut down, or is sent a message: what ends that arms the line.
        if !self.may_arm() {
            return Action::None;
        }

        self.spurious = self.spurious.saturating_add(1);
        if self.spurious <= AT_ONCE {
            return self.arm();
        }
        if self.spurious == RESYNC {
            self.held = Held::Unknown;
        }

        self.buffer = Buffer::Resting;
        Action::Retry
    }
}

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
mod tests;
