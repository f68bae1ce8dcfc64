// SPDX-License-Identifier: GPL-2.0

//! The interrupt of one line, as a state machine.
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
//! Messages come from [`Line::next_message`], in a loop that may sleep, until there is none:
//!
//! - [`Message::Disable`] need not be waited for: the device processes the messages of one line in
//!   order.
//! - [`Message::Enable`] has to be waited for.
//! - The outcome of each goes to [`Line::answered`], and until then there is no other message. So
//!   if there are two such loops at the same time, then one of them sends everything, in order,
//!   and it sees what has changed in the meantime.
//!
//! # Devices that misbehave
//!
//! A buffer that comes back for no good reason is a *strike*: the line has to be armed again, or it
//! is dead, but a device that always returns it must not keep a processor busy. The first few
//! strikes in a row are answered at once, and all others by and by, after [`Action::Retry`]. One of
//! them takes the type back and sets it anew, for a device that has forgotten it. An interrupt ends
//! the row.

use kernel::{
    fmt,
    prelude::*, //
};

use crate::wire::{
    Event,
    IrqType, //
};

/// How many strikes in a row are answered at once.
const AT_ONCE: u8 = 4;

/// The strike in a row that takes the type back and sets it anew.
const RESYNC: u8 = 8;

/// What genirq demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    /// The interrupt is not in use.
    Off,
    /// The interrupt is in use, but must not come just now.
    Masked,
    /// The interrupt is to come.
    On,
}

/// What the device holds, as far as messages and answers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// This type.
    Type(IrqType),
    /// This type, once the device has taken the message that is under way.
    Sent(IrqType),
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
    /// With the driver, which had no room for it in the queue, until [`Line::unpark`].
    Parked,
    /// With the driver, because of strikes, until [`Line::retry`].
    Resting,
    /// With the device, for the type that the device holds.
    Armed,
    /// With the device, for a type that was taken back since. It may come back for that reason, or
    /// serve the next type.
    Stale,
}

/// A message about the type that the device is to hold.
///
/// Goes back to [`Line::answered`], once.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Message {
    /// Sets the type NONE. Its outcome is known as soon as it is in the queue.
    Disable,
    /// Sets this type. Its outcome is the answer of the device.
    Enable(IrqType),
}

impl Message {
    /// Returns the type to be set.
    pub(crate) fn irq_type(&self) -> IrqType {
        match self {
            Self::Disable => IrqType::None,
            Self::Enable(kind) => *kind,
        }
    }
}

/// What became of a [`Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The device has accepted it; if it was [`Message::Disable`], it is in the queue.
    Accepted,
    /// The device has refused it, and holds no type.
    Refused,
    /// It could not be sent, or there was no answer that makes sense, in time.
    Unanswered,
}

/// What there is to do after an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Action {
    /// Nothing.
    None,
    /// Hand the buffer to the device. The line counts on it: if there is no room for the buffer,
    /// then [`Line::park`] has to say so before any other input.
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
/// - `buffer` is neither [`Buffer::Parked`] nor [`Buffer::Resting`] while `demand` is
///   [`Demand::Off`].
/// - The buffer of a line that may be armed is not at home. This holds after each input except one
///   that returned [`Action::Deliver`], until the flow handler has masked the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    trigger: IrqType,
    demand: Demand,
    held: Held,
    buffer: Buffer,
    strikes: u8,
}

// There may be 65535 of them.
static_assert!(size_of::<Line>() <= 8);

impl Line {
    /// Returns the state of a line that nobody has used since the device was reset.
    pub(crate) const fn new() -> Self {
        Self {
            trigger: IrqType::None,
            demand: Demand::Off,
            held: Held::Type(IrqType::None),
            buffer: Buffer::Home,
            strikes: 0,
        }
    }

    /// genirq sets the type.
    pub(crate) fn set_type(&mut self, trigger: IrqType) -> Action {
        self.trigger = trigger;
        self.ask_again();
        self.arm()
    }

    /// genirq starts to use the interrupt, unmasked.
    pub(crate) fn startup(&mut self) -> Action {
        self.demand = Demand::On;
        self.strikes = 0;
        self.ask_again();
        self.arm()
    }

    /// genirq ceases to use the interrupt.
    pub(crate) fn shutdown(&mut self) {
        self.demand = Demand::Off;
        self.ask_again();
        // Who waited to be armed need not any more.
        if matches!(self.buffer, Buffer::Parked | Buffer::Resting) {
            self.buffer = Buffer::Home;
        }
    }

    /// genirq masks the interrupt.
    ///
    /// The buffer stays where it is: an interrupt that comes now is one that genirq makes up for.
    pub(crate) fn mask(&mut self) {
        if self.demand == Demand::On {
            self.demand = Demand::Masked;
        }
    }

    /// genirq unmasks the interrupt.
    pub(crate) fn unmask(&mut self) -> Action {
        if self.demand == Demand::Masked {
            self.demand = Demand::On;
        }
        self.arm()
    }

    /// Returns the message that the device has to be sent next, if there is one.
    ///
    /// Its outcome has to be told to [`Line::answered`].
    pub(crate) fn next_message(&mut self) -> Option<Message> {
        let message = self.due()?;

        // INVARIANT: While a message is under way no buffer counts as armed.
        if self.buffer == Buffer::Armed {
            self.buffer = Buffer::Stale;
        }
        self.held = Held::Sent(message.irq_type());

        Some(message)
    }

    /// Returns whether there is a message for [`Line::next_message`] to return.
    pub(crate) fn needs_sync(&self) -> bool {
        self.due().is_some()
    }

    /// The outcome of a message is known.
    ///
    /// Takes the message back, so that none has two outcomes.
    pub(crate) fn answered(&mut self, _: Message, outcome: Outcome) -> Action {
        let Held::Sent(sent) = self.held else {
            return Action::None;
        };

        self.held = match outcome {
            Outcome::Accepted => Held::Type(sent),
            // If something else is demanded by now, the refusal does not matter.
            Outcome::Refused if sent == self.wanted() => Held::Refused,
            Outcome::Refused => Held::Type(IrqType::None),
            Outcome::Unanswered => Held::Unanswered,
        };

        match self.held {
            Held::Unanswered => Action::Retry,
            _ => self.arm(),
        }
    }

    /// There was no room for the buffer that [`Action::Arm`] was about.
    ///
    /// [`Line::unpark`] has to be called when there may be room.
    pub(crate) fn park(&mut self) {
        if self.buffer == Buffer::Armed {
            self.buffer = Buffer::Parked;
        }
    }

    /// There may be room for a buffer again.
    pub(crate) fn unpark(&mut self) -> Action {
        if self.buffer == Buffer::Parked {
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
            Event::Valid => {
                self.strikes = 0;
                if self.demand == Demand::Off {
                    Action::None
                } else {
                    Action::Deliver
                }
            }
            Event::Invalid if stale => self.arm(),
            Event::Invalid | Event::Odd => self.strike(),
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
            // The reset has made the message, whatever its outcome, one that sets NONE.
            Held::Sent(_) => Held::Sent(IrqType::None),
            _ => Held::Type(IrqType::None),
        };
        self.buffer = Buffer::Home;
        self.strikes = 0;
    }

    /// Returns the type that the device is to hold.
    fn wanted(&self) -> IrqType {
        match self.demand {
            Demand::Off => IrqType::None,
            Demand::Masked | Demand::On => self.trigger,
        }
    }

    /// Returns the message that takes the device nearer to the type that it is to hold.
    fn due(&self) -> Option<Message> {
        match (self.held, self.wanted()) {
            (Held::Sent(_) | Held::Refused | Held::Unanswered, _) => None,
            (Held::Type(held), wanted) if held == wanted => None,
            (Held::Type(IrqType::None), wanted) => Some(Message::Enable(wanted)),
            (Held::Type(_) | Held::Unknown, _) => Some(Message::Disable),
        }
    }

    /// Makes the device be asked again for what it has not accepted so far.
    fn ask_again(&mut self) {
        self.held = match self.held {
            Held::Refused => Held::Type(IrqType::None),
            Held::Unanswered => Held::Unknown,
            held => held,
        };
    }

    /// Returns whether the buffer is to go to the device.
    fn may_arm(&self) -> bool {
        self.demand == Demand::On
            && self.buffer == Buffer::Home
            && self.trigger != IrqType::None
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
    fn strike(&mut self) -> Action {
        // Whoever makes the line one that may be armed will also arm it.
        if !self.may_arm() {
            return Action::None;
        }

        self.strikes = self.strikes.saturating_add(1);
        if self.strikes <= AT_ONCE {
            return self.arm();
        }
        if self.strikes == RESYNC {
            self.held = Held::Unknown;
        }

        self.buffer = Buffer::Resting;
        Action::Retry
    }
}

impl Line {
    /// Shows the state to people.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "trigger {:?}, demand {:?}, held {:?}, buffer {:?}, strikes {}",
            self.trigger, self.demand, self.held, self.buffer, self.strikes
        )
    }
}

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
#[kunit_tests(gpio_virtio_line)]
mod tests {
    use super::*;
    use crate::random::Random;

    use Event::{
        Invalid,
        Odd,
        Valid, //
    };
    use IrqType::{
        EdgeFalling as Falling,
        EdgeRising as Rising, //
    };
    use Outcome::{
        Accepted,
        Refused,
        Unanswered, //
    };

    /// Has the next message have this outcome. Returns what the line says to both.
    fn exchange(line: &mut Line, outcome: Outcome) -> Option<(IrqType, Action)> {
        let message = line.next_message()?;
        let kind = message.irq_type();

        Some((kind, line.answered(message, outcome)))
    }

    /// Returns a line that genirq has started with type `kind`.
    fn started(kind: IrqType) -> Line {
        let mut line = Line::new();

        let _ = line.set_type(kind);
        let _ = line.startup();
        line
    }

    /// Returns a line that is armed for type `kind`.
    fn armed(kind: IrqType) -> Line {
        let mut line = started(kind);

        let _ = exchange(&mut line, Accepted);
        line
    }

    #[test]
    fn enables_then_arms() {
        let mut line = Line::new();

        assert_eq!(line.set_type(Rising), Action::None);
        assert_eq!(line.startup(), Action::None);
        assert_eq!(line.next_message(), Some(Message::Enable(Rising)));
        assert_eq!(
            line.answered(Message::Enable(Rising), Accepted),
            Action::Arm
        );
        assert_eq!(line.buffer, Buffer::Armed);
        assert_eq!(line.next_message(), None);
    }

    #[test]
    fn unused_sends_nothing() {
        let mut line = Line::new();

        assert_eq!(line.next_message(), None);
        assert_eq!(line.set_type(Rising), Action::None);
        assert_eq!(line.next_message(), None);
    }

    #[test]
    fn without_type_sends_nothing() {
        let mut line = Line::new();

        assert_eq!(line.startup(), Action::None);
        assert_eq!(line.next_message(), None);
        line.mask();
        assert_eq!(line.unmask(), Action::None);
    }

    #[test]
    fn refused_is_not_armed() {
        let mut line = started(Rising);

        assert_eq!(exchange(&mut line, Refused), Some((Rising, Action::None)));
        assert_eq!(line.next_message(), None);
        line.mask();
        assert_eq!(line.unmask(), Action::None);
        assert_eq!(line.retry(), Action::None);
        assert!(!line.needs_sync());
    }

    #[test]
    fn refused_is_asked_again_on_demand() {
        let mut line = started(Rising);

        let _ = exchange(&mut line, Refused);
        assert_eq!(line.set_type(Falling), Action::None);
        assert_eq!(exchange(&mut line, Refused), Some((Falling, Action::None)));

        line.shutdown();
        assert_eq!(line.next_message(), None);
        assert_eq!(line.startup(), Action::None);
        assert_eq!(exchange(&mut line, Accepted), Some((Falling, Action::Arm)));
    }

    #[test]
    fn type_change_goes_through_none() {
        let mut line = armed(Rising);

        assert_eq!(line.set_type(Falling), Action::None);
        assert_eq!(
            exchange(&mut line, Accepted),
            Some((IrqType::None, Action::None))
        );
        assert_eq!(line.returned(Invalid), Action::None);
        assert_eq!(exchange(&mut line, Accepted), Some((Falling, Action::Arm)));
        assert_eq!(line.next_message(), None);
    }

    #[test]
    fn same_type_sends_nothing() {
        let mut line = armed(Rising);

        assert_eq!(line.set_type(Rising), Action::None);
        assert_eq!(line.next_message(), None);
        assert_eq!(line.buffer, Buffer::Armed);
    }

    #[test]
    fn old_buffer_comes_after_the_answer() {
        let mut line = armed(Rising);

        let _ = line.set_type(Falling);
        let _ = exchange(&mut line, Accepted);
        // There is no second buffer while the first is out.
        assert_eq!(exchange(&mut line, Accepted), Some((Falling, Action::None)));
        assert_eq!(line.returned(Invalid), Action::Arm);
        assert_eq!(line.strikes, 0);
    }

    #[test]
    fn old_buffer_comes_before_the_answer() {
        let mut line = armed(Rising);

        let _ = line.set_type(Falling);
        let _ = exchange(&mut line, Accepted);
        assert_eq!(line.next_message(), Some(Message::Enable(Falling)));
        // The type is not accepted yet.
        assert_eq!(line.returned(Invalid), Action::None);
        assert_eq!(
            line.answered(Message::Enable(Falling), Accepted),
            Action::Arm
        );
        assert_eq!(line.strikes, 0);
    }

    #[test]
    fn old_buffer_serves_the_new_type() {
        let mut line = armed(Rising);

        line.shutdown();
        let _ = exchange(&mut line, Accepted);
        let _ = line.startup();
        assert_eq!(exchange(&mut line, Accepted), Some((Rising, Action::None)));
        assert_eq!(line.returned(Valid), Action::Deliver);
        line.mask();
        assert_eq!(line.unmask(), Action::Arm);
    }

    #[test]
    fn delivers_and_arms_again() {
        let mut line = armed(Rising);

        assert_eq!(line.returned(Valid), Action::Deliver);
        line.mask();
        assert_eq!(line.next_message(), None);
        assert_eq!(line.unmask(), Action::Arm);
        assert_eq!(line.returned(Valid), Action::Deliver);
    }

    #[test]
    fn delivers_while_masked() {
        let mut line = armed(Rising);

        line.mask();
        assert_eq!(line.returned(Valid), Action::Deliver);
        assert_eq!(line.unmask(), Action::Arm);
    }

    #[test]
    fn masking_keeps_the_buffer_out() {
        let mut line = armed(Rising);

        line.mask();
        assert_eq!(line.next_message(), None);
        assert_eq!(line.unmask(), Action::None);
        assert_eq!(line.buffer, Buffer::Armed);
    }

    #[test]
    fn masked_is_not_armed() {
        let mut line = started(Rising);

        line.mask();
        assert_eq!(exchange(&mut line, Accepted), Some((Rising, Action::None)));
        assert_eq!(line.unmask(), Action::Arm);
    }

    #[test]
    fn shutdown_disables() {
        let mut line = armed(Rising);

        line.shutdown();
        assert_eq!(
            exchange(&mut line, Accepted),
            Some((IrqType::None, Action::None))
        );
        assert_eq!(line.next_message(), None);
        assert_eq!(line.returned(Invalid), Action::None);
        assert_eq!(line.buffer, Buffer::Home);
    }

    #[test]
    fn drops_what_nobody_uses() {
        let mut line = armed(Rising);

        line.shutdown();
        assert_eq!(line.returned(Valid), Action::None);
        // Nor does anything else happen to an interrupt that is not in use.
        line.mask();
        assert_eq!(line.unmask(), Action::None);
        assert_eq!(line.demand, Demand::Off);
    }

    #[test]
    fn shutdown_and_startup_without_messages() {
        let mut line = armed(Rising);

        line.shutdown();
        assert_eq!(line.returned(Valid), Action::None);
        // The device still holds the type, so nothing else would arm the line.
        assert_eq!(line.startup(), Action::Arm);
        assert_eq!(line.next_message(), None);
    }

    #[test]
    fn type_there_and_back_without_messages() {
        let mut line = armed(Rising);

        let _ = line.set_type(Falling);
        assert_eq!(line.returned(Valid), Action::Deliver);
        line.mask();
        assert_eq!(line.unmask(), Action::None);
        assert_eq!(line.set_type(Rising), Action::Arm);
        assert_eq!(line.next_message(), None);
    }

    #[test]
    fn shutdown_while_enabling() {
        let mut line = started(Rising);

        assert_eq!(line.next_message(), Some(Message::Enable(Rising)));
        line.shutdown();
        assert_eq!(
            line.answered(Message::Enable(Rising), Accepted),
            Action::None
        );
        assert_eq!(
            exchange(&mut line, Accepted),
            Some((IrqType::None, Action::None))
        );
        assert_eq!(line.next_message(), None);
    }

    #[test]
    fn type_change_while_enabling() {
        let mut line = started(Rising);

        assert_eq!(line.next_message(), Some(Message::Enable(Rising)));
        let _ = line.set_type(Falling);
        assert_eq!(
            line.answered(Message::Enable(Rising), Accepted),
            Action::None
        );
        assert_eq!(
            exchange(&mut line, Accepted),
            Some((IrqType::None, Action::None))
        );
        assert_eq!(exchange(&mut line, Accepted), Some((Falling, Action::Arm)));
    }

    #[test]
    fn refusal_of_what_is_not_demanded_any_more() {
        let mut line = started(Rising);

        assert_eq!(line.next_message(), Some(Message::Enable(Rising)));
        let _ = line.set_type(Falling);
        assert_eq!(
            line.answered(Message::Enable(Rising), Refused),
            Action::None
        );
        // The device holds nothing, so there is nothing to be taken back.
        assert_eq!(exchange(&mut line, Accepted), Some((Falling, Action::Arm)));
    }

    #[test]
    fn one_message_at_a_time() {
        let mut line = armed(Rising);

        let _ = line.set_type(Falling);
        assert_eq!(line.next_message(), Some(Message::Disable));
        assert_eq!(line.next_message(), None);
        assert_eq!(line.answered(Message::Disable, Accepted), Action::None);
        assert_eq!(line.next_message(), Some(Message::Enable(Falling)));
        assert_eq!(line.next_message(), None);
        assert!(!line.needs_sync());
    }

    #[test]
    fn unanswered_waits_for_retry() {
        let mut line = started(Rising);

        assert_eq!(
            exchange(&mut line, Unanswered),
            Some((Rising, Action::Retry))
        );
        // The loop of messages ends, or it would keep a task for as long as the device is silent.
        assert_eq!(line.next_message(), None);
        assert_eq!(line.retry(), Action::None);
        assert!(line.needs_sync());
        assert_eq!(
            exchange(&mut line, Accepted),
            Some((IrqType::None, Action::None))
        );
        assert_eq!(exchange(&mut line, Accepted), Some((Rising, Action::Arm)));
        // A retry too many does nothing.
        assert_eq!(line.retry(), Action::None);
    }

    #[test]
    fn unanswered_then_shutdown() {
        let mut line = started(Rising);

        let _ = exchange(&mut line, Unanswered);
        line.shutdown();
        assert_eq!(
            exchange(&mut line, Accepted),
            Some((IrqType::None, Action::None))
        );
        assert_eq!(line.next_message(), None);
    }

    #[test]
    fn none_that_cannot_be_sent() {
        let mut line = armed(Rising);

        line.shutdown();
        assert_eq!(
            exchange(&mut line, Unanswered),
            Some((IrqType::None, Action::Retry))
        );
        assert_eq!(line.next_message(), None);
        // The line is still armed as far as the device knows.
        assert_eq!(line.startup(), Action::None);
        assert_eq!(line.returned(Valid), Action::Deliver);
        line.mask();
        assert_eq!(line.unmask(), Action::None);
        assert_eq!(
            exchange(&mut line, Accepted),
            Some((IrqType::None, Action::None))
        );
        assert_eq!(exchange(&mut line, Accepted), Some((Rising, Action::Arm)));
    }

    #[test]
    fn strikes_are_answered_slower_and_slower() {
        for event in [Invalid, Odd] {
            let mut line = armed(Rising);

            for _ in 0..AT_ONCE {
                assert_eq!(line.returned(event), Action::Arm);
            }
            for _ in AT_ONCE + 1..RESYNC {
                assert_eq!(line.returned(event), Action::Retry);
                assert_eq!(line.next_message(), None);
                assert_eq!(line.retry(), Action::Arm);
            }

            // The type is set anew, once.
            assert_eq!(line.returned(event), Action::Retry);
            assert_eq!(line.retry(), Action::None);
            assert!(line.needs_sync());
            assert_eq!(
                exchange(&mut line, Accepted),
                Some((IrqType::None, Action::None))
            );
            assert_eq!(exchange(&mut line, Accepted), Some((Rising, Action::Arm)));

            for _ in 0..300 {
                assert_eq!(line.returned(event), Action::Retry);
                assert_eq!(line.next_message(), None);
                assert_eq!(line.retry(), Action::Arm);
            }
        }
    }

    #[test]
    fn interrupt_ends_the_row_of_strikes() {
        let mut line = armed(Rising);

        for _ in 0..AT_ONCE + 3 {
            let _ = line.returned(Invalid);
            let _ = line.retry();
        }
        assert_eq!(line.returned(Valid), Action::Deliver);
        line.mask();
        assert_eq!(line.unmask(), Action::Arm);
        for _ in 0..AT_ONCE {
            assert_eq!(line.returned(Odd), Action::Arm);
        }
        assert_eq!(line.returned(Odd), Action::Retry);
    }

    #[test]
    fn new_use_ends_the_row_of_strikes() {
        let mut line = armed(Rising);

        for _ in 0..AT_ONCE + 1 {
            let _ = line.returned(Invalid);
        }
        assert_eq!(line.buffer, Buffer::Resting);
        line.shutdown();
        assert_eq!(line.startup(), Action::Arm);
        assert_eq!(line.returned(Invalid), Action::Arm);
    }

    #[test]
    fn resting_line_is_not_hurried() {
        let mut line = armed(Rising);

        for _ in 0..AT_ONCE + 1 {
            let _ = line.returned(Invalid);
        }
        line.mask();
        assert_eq!(line.unmask(), Action::None);
        line.mask();
        assert_eq!(line.retry(), Action::None);
        assert_eq!(line.unmask(), Action::Arm);
    }

    #[test]
    fn resync_by_another_loop_leaves_the_line_at_rest() {
        let mut line = armed(Rising);

        for _ in 0..RESYNC - 1 {
            let _ = line.returned(Invalid);
            let _ = line.retry();
        }
        assert_eq!(line.returned(Invalid), Action::Retry);
        assert_eq!(
            exchange(&mut line, Accepted),
            Some((IrqType::None, Action::None))
        );
        assert_eq!(exchange(&mut line, Accepted), Some((Rising, Action::None)));
        assert_eq!(line.retry(), Action::Arm);
    }

    #[test]
    fn odd_return_of_an_old_buffer_is_a_strike() {
        let mut line = armed(Rising);

        let _ = line.set_type(Falling);
        let _ = exchange(&mut line, Accepted);
        let _ = exchange(&mut line, Accepted);
        assert_eq!(line.returned(Odd), Action::Arm);
        assert_eq!(line.strikes, 1);
    }

    #[test]
    fn masked_line_has_no_strikes() {
        let mut line = armed(Rising);

        line.mask();
        assert_eq!(line.returned(Odd), Action::None);
        assert_eq!(line.strikes, 0);
        assert_eq!(line.unmask(), Action::Arm);
    }

    #[test]
    fn parked_line_waits_for_room() {
        let mut line = armed(Rising);

        line.park();
        line.mask();
        assert_eq!(line.unmask(), Action::None);
        assert_eq!(line.retry(), Action::None);
        assert_eq!(line.unpark(), Action::Arm);
        line.park();
        assert_eq!(line.unpark(), Action::Arm);
        // Room that nobody waits for does nothing.
        assert_eq!(line.unpark(), Action::None);
    }

    #[test]
    fn parked_line_that_was_masked() {
        let mut line = armed(Rising);

        line.park();
        line.mask();
        assert_eq!(line.unpark(), Action::None);
        assert_eq!(line.unmask(), Action::Arm);
    }

    #[test]
    fn parked_line_that_was_shut_down() {
        let mut line = armed(Rising);

        line.park();
        line.shutdown();
        assert_eq!(line.unpark(), Action::None);
        let _ = exchange(&mut line, Accepted);
        let _ = line.startup();
        assert_eq!(exchange(&mut line, Accepted), Some((Rising, Action::Arm)));
    }

    #[test]
    fn reset_keeps_what_is_demanded() {
        let mut line = armed(Rising);

        line.reset();
        assert_eq!(exchange(&mut line, Accepted), Some((Rising, Action::Arm)));

        line.mask();
        line.reset();
        assert_eq!(exchange(&mut line, Accepted), Some((Rising, Action::None)));
        assert_eq!(line.unmask(), Action::Arm);

        line.shutdown();
        line.reset();
        assert_eq!(line.next_message(), None);
    }

    #[test]
    fn reset_forgets_refusal_and_silence() {
        for outcome in [Refused, Unanswered] {
            let mut line = started(Rising);

            let _ = exchange(&mut line, outcome);
            line.reset();
            assert_eq!(exchange(&mut line, Accepted), Some((Rising, Action::Arm)));
        }
    }

    #[test]
    fn reset_ends_the_row_of_strikes() {
        let mut line = armed(Rising);

        for _ in 0..AT_ONCE + 1 {
            let _ = line.returned(Odd);
        }
        line.reset();
        assert_eq!(exchange(&mut line, Accepted), Some((Rising, Action::Arm)));
        assert_eq!(line.returned(Odd), Action::Arm);
    }

    #[test]
    fn reset_while_enabling() {
        for outcome in [Accepted, Refused] {
            let mut line = started(Rising);

            assert_eq!(line.next_message(), Some(Message::Enable(Rising)));
            line.reset();
            assert_eq!(line.next_message(), None);
            // The answer is from before the reset.
            assert_eq!(
                line.answered(Message::Enable(Rising), outcome),
                Action::None
            );
            assert_eq!(exchange(&mut line, Accepted), Some((Rising, Action::Arm)));
        }
    }

    const EVENTS: [Event; 3] = [Valid, Invalid, Odd];
    const OUTCOMES: [Outcome; 3] = [Accepted, Refused, Unanswered];
    const TYPES: [IrqType; 6] = [
        IrqType::None,
        IrqType::EdgeRising,
        IrqType::EdgeFalling,
        IrqType::EdgeBoth,
        IrqType::LevelHigh,
        IrqType::LevelLow,
    ];

    /// All that can happen to a line.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Input {
        SetType(IrqType),
        Startup,
        Shutdown,
        Mask,
        Unmask,
        NextMessage,
        Answered(Outcome),
        Park,
        Unpark,
        Returned(Event),
        Retry,
        Reset,
    }

    impl Input {
        fn all() -> impl Iterator<Item = Self> {
            let others = [
                Self::Startup,
                Self::Shutdown,
                Self::Mask,
                Self::Unmask,
                Self::NextMessage,
                Self::Park,
                Self::Unpark,
                Self::Retry,
                Self::Reset,
            ];
            let types = TYPES.map(Self::SetType);
            let outcomes = OUTCOMES.map(Self::Answered);
            let events = EVENTS.map(Self::Returned);

            // Not `.chain()`, which initializers have as well.
            let others = Iterator::chain(others.into_iter(), types);
            Iterator::chain(Iterator::chain(others, outcomes), events)
        }

        /// Returns whether this can happen in the state of `line`.
        fn is_possible(self, line: &Line) -> bool {
            match self {
                Self::Answered(_) => matches!(line.held, Held::Sent(_)),
                // Right after the action that it is about.
                Self::Park => line.buffer == Buffer::Armed && line.demand == Demand::On,
                Self::Returned(_) => is_out(line),
                _ => true,
            }
        }

        fn apply(self, line: &mut Line) -> (Action, Option<Message>) {
            let action = match self {
                Self::SetType(kind) => line.set_type(kind),
                Self::Startup => line.startup(),
                Self::Unmask => line.unmask(),
                Self::Unpark => line.unpark(),
                Self::Retry => line.retry(),
                Self::Returned(event) => line.returned(event),
                // Of the message the line looks at nothing.
                Self::Answered(outcome) => line.answered(Message::Disable, outcome),
                Self::NextMessage => return (Action::None, line.next_message()),
                Self::Shutdown => {
                    line.shutdown();
                    Action::None
                }
                Self::Mask => {
                    line.mask();
                    Action::None
                }
                Self::Park => {
                    line.park();
                    Action::None
                }
                Self::Reset => {
                    line.reset();
                    Action::None
                }
            };

            (action, None)
        }
    }

    /// Returns whether the device has the buffer.
    fn is_out(line: &Line) -> bool {
        matches!(line.buffer, Buffer::Armed | Buffer::Stale)
    }

    /// Returns whether [`Line::retry`] is owed.
    fn is_retry_due(line: &Line) -> bool {
        line.held == Held::Unanswered || line.buffer == Buffer::Resting
    }

    /// Returns whether the first two of the invariants of [`Line`] hold. The third one depends on
    /// what happened before.
    fn is_consistent(line: &Line) -> bool {
        let holds = matches!(line.held, Held::Type(kind) if kind != IrqType::None);
        let waits = matches!(line.buffer, Buffer::Parked | Buffer::Resting);

        (line.buffer != Buffer::Armed || holds) && !(waits && line.demand == Demand::Off)
    }

    /// Returns all states of a line that satisfy the first two invariants of [`Line`], whether or
    /// not something leads there.
    fn states() -> impl Iterator<Item = Line> {
        let held = || {
            let types = TYPES.into_iter();
            let types = types.flat_map(|kind| [Held::Type(kind), Held::Sent(kind)]);

            Iterator::chain(types, [Held::Refused, Held::Unanswered, Held::Unknown])
        };
        let buffers = [
            Buffer::Home,
            Buffer::Parked,
            Buffer::Resting,
            Buffer::Armed,
            Buffer::Stale,
        ];
        let strikes = [0, 1, AT_ONCE - 1, AT_ONCE, RESYNC - 1, RESYNC, u8::MAX];
        let demands = [Demand::Off, Demand::Masked, Demand::On];

        TYPES
            .into_iter()
            .flat_map(move |trigger| demands.into_iter().map(move |demand| (trigger, demand)))
            .flat_map(move |start| held().map(move |held| (start, held)))
            .flat_map(move |start| buffers.into_iter().map(move |buffer| (start, buffer)))
            .flat_map(move |start| strikes.into_iter().map(move |strikes| (start, strikes)))
            .map(|((((trigger, demand), held), buffer), strikes)| Line {
                trigger,
                demand,
                held,
                buffer,
                strikes,
            })
            .filter(is_consistent)
    }

    /// Calls `check` with each state, each input that is possible there, and what results.
    ///
    /// Returns the first state and input for which it returns false.
    fn violation(
        check: impl Fn(&Line, Input, &Line, Action, Option<Message>) -> bool,
    ) -> Option<(Line, Input)> {
        states().find_map(|before| {
            Input::all()
                .filter(|input| input.is_possible(&before))
                .find(|input| {
                    let mut after = before.clone();
                    let (action, message) = input.apply(&mut after);

                    !check(&before, *input, &after, action, message)
                })
                .map(|input| (before, input))
        })
    }

    #[test]
    fn each_step_visits_all_states() {
        // 6 types, 3 demands, 15 things that the device may hold, 5 places of the buffer, 7 numbers
        // of strikes; less those that the invariants rule out: 10 things held with the buffer
        // armed, and 15 with each of two places while the interrupt is not in use.
        assert_eq!(states().count(), 6 * 7 * (3 * 15 * 5 - 3 * 10 - 2 * 15));
        assert_eq!(Input::all().count(), 9 + 6 + 3 + 3);
    }

    #[test]
    fn each_step_preserves_the_invariants() {
        assert_eq!(violation(|_, _, after, _, _| is_consistent(after)), None);
    }

    #[test]
    fn each_step_arms_only_what_may_be_armed() {
        assert_eq!(
            violation(|before, input, after, action, _| action != Action::Arm
                || after.demand == Demand::On
                    && after.trigger != IrqType::None
                    && after.held == Held::Type(after.trigger)
                    && after.buffer == Buffer::Armed
                    && (!is_out(before) || matches!(input, Input::Returned(_)))),
            None
        );
    }

    #[test]
    fn each_step_knows_where_the_buffer_is() {
        assert_eq!(
            violation(|before, input, after, action, _| {
                let comes = matches!(input, Input::Returned(_) | Input::Reset | Input::Park);

                is_out(after) == (action == Action::Arm || is_out(before) && !comes)
            }),
            None
        );
    }

    #[test]
    fn each_step_leaves_no_line_behind() {
        // A line that may be armed either is, or somebody is about to see to it.
        assert_eq!(
            violation(|before, _, after, action, _| before.may_arm()
                || action == Action::Deliver
                || !after.may_arm()),
            None
        );
        // Nor does a line that may be armed stay so when somebody was to see to it.
        assert_eq!(
            violation(|before, input, after, _, _| !before.may_arm()
                || !matches!(input, Input::Startup | Input::Unmask | Input::Retry)
                || !after.may_arm()),
            None
        );
    }

    #[test]
    fn each_step_asks_for_the_retry_that_it_needs() {
        assert_eq!(
            violation(|before, _, after, action, _| {
                (action == Action::Retry) == (is_retry_due(after) && !is_retry_due(before))
                    || action == Action::Retry && is_retry_due(after)
            }),
            None
        );
        assert_eq!(
            violation(|_, input, after, _, _| input != Input::Retry || !is_retry_due(after)),
            None
        );
    }

    #[test]
    fn each_step_delivers_what_came() {
        assert_eq!(
            violation(|before, input, _, action, _| {
                let came = input == Input::Returned(Valid) && before.demand != Demand::Off;

                came == (action == Action::Deliver)
            }),
            None
        );
    }

    #[test]
    fn each_step_sends_in_order() {
        assert_eq!(
            violation(|before, input, after, _, message| {
                let sent = message
                    .as_ref()
                    .map(|message| Held::Sent(message.irq_type()));

                match message {
                    Some(Message::Enable(kind)) => {
                        before.held == Held::Type(IrqType::None)
                            && kind == before.trigger
                            && kind != IrqType::None
                            && before.demand != Demand::Off
                            && sent == Some(after.held)
                    }
                    Some(Message::Disable) => {
                        before.held != Held::Type(IrqType::None)
                            && matches!(before.held, Held::Type(_) | Held::Unknown)
                            && sent == Some(after.held)
                    }
                    None => input != Input::NextMessage || before == after,
                }
            }),
            None
        );
    }

    #[test]
    fn each_step_demands_what_genirq_demands() {
        assert_eq!(
            violation(|before, input, after, _, _| {
                let demand = match (input, before.demand) {
                    (Input::Startup, _) => Demand::On,
                    (Input::Shutdown, _) => Demand::Off,
                    (Input::Mask, Demand::On) => Demand::Masked,
                    (Input::Unmask, Demand::Masked) => Demand::On,
                    (_, demand) => demand,
                };
                let trigger = match input {
                    Input::SetType(kind) => kind,
                    _ => before.trigger,
                };

                (after.demand, after.trigger) == (demand, trigger)
            }),
            None
        );
    }

    #[test]
    fn each_state_has_a_way_to_be_armed() {
        // With a device that accepts everything, and everybody doing what was asked for.
        let dead = states().find(|state| {
            let mut line = state.clone();

            if let Held::Sent(_) = line.held {
                let _ = line.answered(Message::Disable, Accepted);
            }
            let _ = line.set_type(Rising);
            let _ = line.startup();
            for _ in 0..2 {
                let _ = exchange(&mut line, Accepted);
                if line.buffer == Buffer::Stale {
                    let _ = line.returned(Invalid);
                }
                let _ = line.unpark();
                let _ = line.retry();
            }

            line.buffer != Buffer::Armed || line.needs_sync()
        });

        assert_eq!(dead, None);
    }

    /// The queues between a driver and a device, for one line.
    #[derive(Default)]
    struct Queues {
        /// Requests: the type, and whether an answer is waited for.
        requests: KVec<(IrqType, bool)>,
        /// The answer to the request that is waited for.
        answer: Option<Outcome>,
        /// A buffer that the device has not seen yet.
        buffer: bool,
        /// A returned buffer that the driver has not seen yet.
        event: Option<Event>,
    }

    /// A device with one line that keeps to the protocol to the letter.
    struct Device {
        kind: IrqType,
        latched: bool,
        buffer: bool,
    }

    impl Device {
        const RESET: Self = Self {
            kind: IrqType::None,
            latched: false,
            buffer: false,
        };

        /// Processes the oldest request. Returns whether it made the device forget an edge.
        fn process(&mut self, queues: &mut Queues) -> Result<bool, &'static str> {
            let Ok((kind, waited)) = queues.requests.remove(0) else {
                return Ok(false);
            };
            let forgets = kind == IrqType::None;

            if !forgets && self.kind != IrqType::None {
                return Err("a type replaces another");
            }
            self.kind = kind;
            if forgets {
                self.latched = false;
                if core::mem::take(&mut self.buffer) {
                    queues.event = Some(Invalid);
                }
            }
            if waited {
                queues.answer = Some(Accepted);
            }
            Ok(forgets)
        }

        /// Takes the buffer, if there is one.
        fn take(&mut self, queues: &mut Queues) -> Result<(), &'static str> {
            if core::mem::take(&mut queues.buffer) {
                if self.buffer || queues.event.is_some() {
                    return Err("a second buffer");
                }
                self.buffer = true;
                self.notify(queues);
            }
            Ok(())
        }

        /// The line does what the type is about.
        fn edge(&mut self, queues: &mut Queues) {
            if self.kind != IrqType::None {
                self.latched = true;
                self.notify(queues);
            }
        }

        /// Returns the buffer, if there is one and a reason to do so.
        fn notify(&mut self, queues: &mut Queues) {
            if self.buffer && (self.latched || self.kind == IrqType::None) {
                self.buffer = false;
                queues.event = Some(if self.latched { Valid } else { Invalid });
                self.latched = false;
            }
        }
    }

    /// A driver, its line, and the device on the other side.
    ///
    /// Keeps account of its own of what matters, to check the line against.
    struct World {
        line: Line,
        device: Device,
        queues: Queues,
        random: Random,
        /// The message that the loop of messages waits for, and whether the device was reset since.
        message: Option<(Message, bool)>,
        /// The type that the device has accepted by an answer, and that was not taken back since.
        granted: IrqType,
        /// What genirq demands.
        trigger: IrqType,
        active: bool,
        masked: bool,
        /// The device has the buffer.
        out: bool,
        /// [`Line::retry`] and [`Line::unpark`] were asked for.
        retry: bool,
        parked: bool,
        /// An edge has come that has to be delivered.
        owed: bool,
        /// How often the line was armed since somebody or something had reason to do so.
        arms: u8,
    }

    impl World {
        fn new(seed: u64) -> Self {
            Self {
                line: Line::new(),
                device: Device::RESET,
                queues: Queues::default(),
                random: Random(seed),
                message: None,
                granted: IrqType::None,
                trigger: IrqType::None,
                active: false,
                masked: false,
                out: false,
                retry: false,
                parked: false,
                owed: false,
                arms: 0,
            }
        }

        /// Does what the line asks for, if that is right.
        fn perform(&mut self, action: Action) -> Result<(), &'static str> {
            match action {
                Action::None => (),
                Action::Retry => self.retry = true,
                Action::Arm => {
                    if !self.active || self.masked {
                        return Err("armed what is not to interrupt");
                    }
                    if self.trigger == IrqType::None || self.granted != self.trigger {
                        return Err("armed what was not enabled");
                    }
                    if self.out {
                        return Err("a second buffer");
                    }
                    if self.random.once_in(8) {
                        self.line.park();
                        self.parked = true;
                    } else {
                        self.out = true;
                        self.queues.buffer = true;
                        self.arms += 1;
                    }
                    if self.arms > AT_ONCE + 1 {
                        return Err("a storm");
                    }
                }
                Action::Deliver => {
                    if !self.active {
                        return Err("delivered to nobody");
                    }
                    self.owed = false;
                    self.masked = true;
                    self.line.mask();
                    // Some handlers are threads, which unmask the line later.
                    if self.random.once_in(2) {
                        return self.unmask();
                    }
                }
            }
            Ok(())
        }

        fn unmask(&mut self) -> Result<(), &'static str> {
            self.masked = false;
            self.arms = 0;

            let action = self.line.unmask();
            self.perform(action)
        }

        /// Sends the next message, if there is one.
        fn send(&mut self) -> Result<(), &'static str> {
            let Some(message) = self.line.next_message() else {
                return Ok(());
            };
            let kind = message.irq_type();
            let waited = kind != IrqType::None;

            if self.message.is_some() {
                return Err("two messages at a time");
            }
            if waited && (!self.active || kind != self.trigger) {
                return Err("enabled what is not demanded");
            }
            self.granted = IrqType::None;
            self.queues
                .requests
                .push((kind, waited), GFP_KERNEL)
                .map_err(|_| "no memory")?;

            if waited {
                self.message = Some((message, false));
                return Ok(());
            }
            let action = self.line.answered(message, Accepted);
            self.perform(action)
        }

        /// The outcome of the message that is waited for is known.
        fn answer(&mut self, outcome: Outcome) -> Result<(), &'static str> {
            let Some((message, was_reset)) = self.message.take() else {
                return Ok(());
            };

            if outcome == Accepted && !was_reset {
                self.granted = message.irq_type();
            }
            if outcome == Unanswered {
                // An answer that comes later is not waited for any more.
                for (_, waited) in self.queues.requests.iter_mut() {
                    *waited = false;
                }
            }
            self.queues.answer = None;
            self.arms = 0;

            let action = self.line.answered(message, outcome);
            self.perform(action)
        }

        /// The driver gets its buffer back.
        fn callback(&mut self, event: Event) -> Result<(), &'static str> {
            self.out = false;
            if event == Valid {
                self.arms = 0;
                // What nobody uses is dropped.
                self.owed &= self.active;
            }

            let action = self.line.returned(event);
            self.perform(action)
        }

        /// The device is reset, by the driver.
        fn reset(&mut self) {
            if let Some((_, was_reset)) = &mut self.message {
                *was_reset = true;
                // The answer may have come just before.
                if self.queues.answer.is_none() {
                    self.queues.answer = Some(Unanswered);
                }
            }
            self.queues.requests.clear();
            self.queues.buffer = false;
            self.queues.event = None;
            self.device = Device::RESET;
            self.granted = IrqType::None;
            self.out = false;
            self.owed = false;
            self.line.reset();
        }

        /// Something happens on the side of the driver, as far as it can.
        fn driver_step(&mut self) -> Result<(), &'static str> {
            match self.random.next() % 16 {
                0 => {
                    if let Some(trigger) = self.random.pick(&TYPES) {
                        self.trigger = trigger;
                        self.arms = 0;

                        let action = self.line.set_type(trigger);
                        self.perform(action)?;
                    }
                }
                1 => {
                    self.active = true;
                    self.masked = false;
                    self.arms = 0;

                    let action = self.line.startup();
                    self.perform(action)?;
                }
                2 if self.random.once_in(2) => {
                    self.active = false;
                    self.owed = false;
                    self.line.shutdown();
                }
                3 if self.active => {
                    self.masked = true;
                    self.line.mask();
                }
                4..=6 if self.active && self.masked => self.unmask()?,
                7..=10 => self.send()?,
                11..=12 => self.retry()?,
                13 => self.unpark()?,
                14 if self.message.is_some() && self.random.once_in(4) => {
                    self.answer(Unanswered)?
                }
                15 if self.random.once_in(16) => self.reset(),
                _ => (),
            }
            Ok(())
        }

        fn retry(&mut self) -> Result<(), &'static str> {
            if core::mem::take(&mut self.retry) {
                self.arms = 0;

                let action = self.line.retry();
                self.perform(action)?;
            }
            Ok(())
        }

        fn unpark(&mut self) -> Result<(), &'static str> {
            if core::mem::take(&mut self.parked) {
                self.arms = 0;

                let action = self.line.unpark();
                self.perform(action)?;
            }
            Ok(())
        }

        /// Something happens on the side of a device that keeps to the protocol, or on the way.
        fn device_step(&mut self) -> Result<(), &'static str> {
            match self.random.next() % 8 {
                0..=1 => {
                    if self.device.process(&mut self.queues)? {
                        self.owed = false;
                    }
                }
                2..=3 => self.device.take(&mut self.queues)?,
                4 => {
                    self.device.edge(&mut self.queues);
                    self.owed |= self.active && self.device.kind != IrqType::None;
                }
                5..=6 => {
                    if let Some(outcome) = self.queues.answer {
                        self.answer(outcome)?;
                    }
                }
                _ => {
                    if let Some(event) = self.queues.event.take() {
                        self.callback(event)?;
                    }
                }
            }
            Ok(())
        }

        /// Something happens on the side of a device that does as it likes.
        fn odd_device_step(&mut self) -> Result<(), &'static str> {
            if self.out && self.random.once_in(2) {
                if let Some(event) = self.random.pick(&EVENTS) {
                    self.queues.buffer = false;
                    self.callback(event)?;
                }
            }
            if self.random.once_in(2) {
                if let Some(outcome) = self.random.pick(&OUTCOMES) {
                    self.answer(outcome)?;
                }
            }
            self.queues.requests.clear();
            Ok(())
        }

        /// Lets everything that is under way come to its end. Returns the state of the line then.
        fn settle(&mut self) -> Result<(), &'static str> {
            for _ in 0..32 {
                self.send()?;
                while !self.queues.requests.is_empty() {
                    if self.device.process(&mut self.queues)? {
                        self.owed = false;
                    }
                }
                if let Some(outcome) = self.queues.answer {
                    self.answer(outcome)?;
                }
                self.device.take(&mut self.queues)?;
                if let Some(event) = self.queues.event.take() {
                    self.callback(event)?;
                }
                self.retry()?;
                self.unpark()?;
                if self.active && self.masked {
                    self.unmask()?;
                }
            }

            let kind = if self.active {
                self.trigger
            } else {
                IrqType::None
            };
            let armed = kind != IrqType::None && self.line.held != Held::Refused;

            if self.message.is_some() || self.line.needs_sync() {
                Err("messages do not come to an end")
            } else if armed && !(self.out && self.device.buffer && self.device.kind == kind) {
                Err("a dead line")
            } else if !armed && (self.out || self.device.kind != IrqType::None) {
                Err("a line that is not in use, but enabled")
            } else if self.owed {
                Err("a lost edge")
            } else {
                Ok(())
            }
        }
    }

    /// Returns whether nothing was wrong, and says so if not.
    fn is_fine(result: &Result<(), &'static str>, world: &World) -> bool {
        if let Err(wrong) = result {
            pr_err!("{}: {:?}\n", wrong, world.line);
        }
        result.is_ok()
    }

    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

    #[test]
    fn conforming_device() {
        let mut world = World::new(SEED);
        let mut run = || -> Result<(), &'static str> {
            for _ in 0..2000 {
                for _ in 0..50 {
                    world.driver_step()?;
                    world.device_step()?;
                    if world.line.strikes != 0 {
                        return Err("a strike");
                    }
                }
                world.settle()?;
            }
            Ok(())
        };

        assert!(is_fine(&run(), &world));
    }

    #[test]
    fn hostile_device() {
        let mut world = World::new(SEED);
        let mut run = || -> Result<(), &'static str> {
            for _ in 0..2000 {
                for _ in 0..50 {
                    world.driver_step()?;
                    world.odd_device_step()?;
                }

                // The device comes to its senses, but has forgotten all that it was told.
                world.answer(Unanswered)?;
                world.device = Device {
                    buffer: world.out && !world.queues.buffer,
                    ..Device::RESET
                };
                world.device.notify(&mut world.queues);
                world.owed = false;
                world.settle()?;
            }
            Ok(())
        };

        assert!(is_fine(&run(), &world));
    }
}
