// SPDX-License-Identifier: GPL-2.0

//! Tests of the state machine of a line: examples, and what all tests share.

use kernel::prelude::*;

#[kunit_tests(gpio_virtio_irq_line)]
mod cases {
    use super::super::*;

    use Event::{
        Invalid,
        Odd,
        Valid, //
    };
    use TriggerType::{
        EdgeFalling as Falling,
        EdgeRising as Rising, //
    };

    pub(super) const ACCEPTED: Result = Ok(());
    pub(super) const REFUSED: Result = Err(EIO);
    pub(super) const UNANSWERED: Result = Err(ETIMEDOUT);
    pub(super) const OUTCOMES: [Result; 3] = [ACCEPTED, REFUSED, UNANSWERED];
    pub(super) const EVENTS: [Event; 3] = [Event::Valid, Event::Invalid, Event::Odd];
    pub(super) const TYPES: [TriggerType; 6] = [
        TriggerType::None,
        TriggerType::EdgeRising,
        TriggerType::EdgeFalling,
        TriggerType::EdgeBoth,
        TriggerType::LevelHigh,
        TriggerType::LevelLow,
    ];

    /// Has the next message have this outcome. Returns what the line says to both.
    pub(super) fn exchange(line: &mut Line, outcome: Result) -> Option<(TriggerType, Action)> {
        let kind = line.next_message()?;

        Some((kind, line.answered(outcome)))
    }

    /// Returns a line that genirq has started with type `kind`.
    pub(super) fn started(kind: TriggerType) -> Line {
        let mut line = Line::NEW;

        let _ = line.set_type(kind);
        let _ = line.startup();
        line
    }

    /// Returns a line that is armed for type `kind`.
    pub(super) fn armed(kind: TriggerType) -> Line {
        let mut line = started(kind);

        let _ = exchange(&mut line, ACCEPTED);
        line
    }

    #[test]
    fn enables_then_arms() {
        let mut line = Line::NEW;

        assert_eq!(line.set_type(Rising), Action::None);
        assert_eq!(line.startup(), Action::None);
        assert_eq!(line.next_message(), Some(Rising));
        assert_eq!(line.answered(ACCEPTED), Action::Arm);
        assert_eq!(line.buffer, Buffer::Armed);
        assert_eq!(line.next_message(), None);
    }

    #[test]
    fn unused_sends_nothing() {
        let mut line = Line::NEW;

        assert_eq!(line.next_message(), None);
        assert_eq!(line.set_type(Rising), Action::None);
        assert_eq!(line.next_message(), None);
    }

    #[test]
    fn without_type_sends_nothing() {
        let mut line = Line::NEW;

        assert_eq!(line.startup(), Action::None);
        assert_eq!(line.next_message(), None);
        line.mask();
        assert_eq!(line.unmask(), Action::None);
    }

    #[test]
    fn refused_is_not_armed() {
        let mut line = started(Rising);

        assert_eq!(exchange(&mut line, REFUSED), Some((Rising, Action::None)));
        assert_eq!(line.next_message(), None);
        line.mask();
        assert_eq!(line.unmask(), Action::None);
        assert_eq!(line.retry(), Action::None);
        assert!(!line.needs_sync());
    }

    #[test]
    fn refused_is_asked_again_on_demand() {
        let mut line = started(Rising);

        let _ = exchange(&mut line, REFUSED);
        assert_eq!(line.set_type(Falling), Action::None);
        assert_eq!(exchange(&mut line, REFUSED), Some((Falling, Action::None)));

        let _ = line.shutdown();
        assert_eq!(line.next_message(), None);
        assert_eq!(line.startup(), Action::None);
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Falling, Action::Arm)));
    }

    #[test]
    fn type_change_goes_through_none() {
        let mut line = armed(Rising);

        assert_eq!(line.set_type(Falling), Action::None);
        assert_eq!(
            exchange(&mut line, ACCEPTED),
            Some((TriggerType::None, Action::None))
        );
        assert_eq!(line.returned(Invalid), Action::None);
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Falling, Action::Arm)));
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
        let _ = exchange(&mut line, ACCEPTED);
        // There is no second buffer while the first is out.
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Falling, Action::None)));
        assert_eq!(line.returned(Invalid), Action::Arm);
        assert_eq!(line.spurious, 0);
    }

    #[test]
    fn old_buffer_comes_before_the_answer() {
        let mut line = armed(Rising);

        let _ = line.set_type(Falling);
        let _ = exchange(&mut line, ACCEPTED);
        assert_eq!(line.next_message(), Some(Falling));
        // The type is not accepted yet.
        assert_eq!(line.returned(Invalid), Action::None);
        assert_eq!(line.answered(ACCEPTED), Action::Arm);
        assert_eq!(line.spurious, 0);
    }

    #[test]
    fn old_buffer_serves_the_new_type() {
        let mut line = armed(Rising);

        let _ = line.shutdown();
        let _ = exchange(&mut line, ACCEPTED);
        let _ = line.startup();
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Rising, Action::None)));
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
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Rising, Action::None)));
        assert_eq!(line.unmask(), Action::Arm);
    }

    #[test]
    fn shutdown_disables() {
        let mut line = armed(Rising);

        let _ = line.shutdown();
        assert_eq!(
            exchange(&mut line, ACCEPTED),
            Some((TriggerType::None, Action::None))
        );
        assert_eq!(line.next_message(), None);
        assert_eq!(line.returned(Invalid), Action::None);
        assert_eq!(line.buffer, Buffer::Home);
    }

    #[test]
    fn drops_event_of_unused_interrupt() {
        let mut line = armed(Rising);

        let _ = line.shutdown();
        assert_eq!(line.returned(Valid), Action::None);
        // Masking and unmasking have no effect on an interrupt that is not in use.
        line.mask();
        assert_eq!(line.unmask(), Action::None);
        assert!(!line.started);
    }

    #[test]
    fn shutdown_and_startup_without_messages() {
        let mut line = armed(Rising);

        let _ = line.shutdown();
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

        assert_eq!(line.next_message(), Some(Rising));
        let _ = line.shutdown();
        assert_eq!(line.answered(ACCEPTED), Action::None);
        assert_eq!(
            exchange(&mut line, ACCEPTED),
            Some((TriggerType::None, Action::None))
        );
        assert_eq!(line.next_message(), None);
    }

    #[test]
    fn type_change_while_enabling() {
        let mut line = started(Rising);

        assert_eq!(line.next_message(), Some(Rising));
        let _ = line.set_type(Falling);
        assert_eq!(line.answered(ACCEPTED), Action::None);
        assert_eq!(
            exchange(&mut line, ACCEPTED),
            Some((TriggerType::None, Action::None))
        );
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Falling, Action::Arm)));
    }

    #[test]
    fn refusal_of_what_is_not_demanded_any_more() {
        let mut line = started(Rising);

        assert_eq!(line.next_message(), Some(Rising));
        let _ = line.set_type(Falling);
        assert_eq!(line.answered(REFUSED), Action::None);
        // The device holds no type, so that NONE is not sent.
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Falling, Action::Arm)));
    }

    #[test]
    fn one_message_at_a_time() {
        let mut line = armed(Rising);

        let _ = line.set_type(Falling);
        assert_eq!(line.next_message(), Some(TriggerType::None));
        assert_eq!(line.next_message(), None);
        assert_eq!(line.answered(ACCEPTED), Action::None);
        assert_eq!(line.next_message(), Some(Falling));
        assert_eq!(line.next_message(), None);
        assert!(!line.needs_sync());
    }

    #[test]
    fn unanswered_waits_for_retry() {
        let mut line = started(Rising);

        assert_eq!(
            exchange(&mut line, UNANSWERED),
            Some((Rising, Action::Retry))
        );
        // The loop of messages ends: it must not block a task while the device is silent.
        assert_eq!(line.next_message(), None);
        assert_eq!(line.retry(), Action::None);
        assert!(line.needs_sync());
        assert_eq!(
            exchange(&mut line, ACCEPTED),
            Some((TriggerType::None, Action::None))
        );
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Rising, Action::Arm)));
        // A surplus retry does nothing.
        assert_eq!(line.retry(), Action::None);
    }

    #[test]
    fn unanswered_then_shutdown() {
        let mut line = started(Rising);

        let _ = exchange(&mut line, UNANSWERED);
        let _ = line.shutdown();
        assert_eq!(
            exchange(&mut line, ACCEPTED),
            Some((TriggerType::None, Action::None))
        );
        assert_eq!(line.next_message(), None);
    }

    #[test]
    fn none_that_cannot_be_sent() {
        let mut line = armed(Rising);

        let _ = line.shutdown();
        assert_eq!(
            exchange(&mut line, UNANSWERED),
            Some((TriggerType::None, Action::Retry))
        );
        assert_eq!(line.next_message(), None);
        // The line is still armed as far as the device knows.
        assert_eq!(line.startup(), Action::None);
        assert_eq!(line.returned(Valid), Action::Deliver);
        line.mask();
        assert_eq!(line.unmask(), Action::None);
        assert_eq!(
            exchange(&mut line, ACCEPTED),
            Some((TriggerType::None, Action::None))
        );
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Rising, Action::Arm)));
    }

    #[test]
    fn spurious_returns_are_answered_slower_and_slower() {
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

            // The type is set again, once.
            assert_eq!(line.returned(event), Action::Retry);
            assert_eq!(line.retry(), Action::None);
            assert!(line.needs_sync());
            assert_eq!(
                exchange(&mut line, ACCEPTED),
                Some((TriggerType::None, Action::None))
            );
            assert_eq!(exchange(&mut line, ACCEPTED), Some((Rising, Action::Arm)));

            for _ in 0..300 {
                assert_eq!(line.returned(event), Action::Retry);
                assert_eq!(line.next_message(), None);
                assert_eq!(line.retry(), Action::Arm);
            }
        }
    }

    #[test]
    fn interrupt_ends_the_row_of_spurious_returns() {
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
    fn new_use_ends_the_row_of_spurious_returns() {
        let mut line = armed(Rising);

        for _ in 0..AT_ONCE + 1 {
            let _ = line.returned(Invalid);
        }
        assert_eq!(line.buffer, Buffer::Resting);
        let _ = line.shutdown();
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
            exchange(&mut line, ACCEPTED),
            Some((TriggerType::None, Action::None))
        );
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Rising, Action::None)));
        assert_eq!(line.retry(), Action::Arm);
    }

    #[test]
    fn odd_return_of_an_old_buffer_is_spurious() {
        let mut line = armed(Rising);

        let _ = line.set_type(Falling);
        let _ = exchange(&mut line, ACCEPTED);
        let _ = exchange(&mut line, ACCEPTED);
        assert_eq!(line.returned(Odd), Action::Arm);
        assert_eq!(line.spurious, 1);
    }

    #[test]
    fn masked_line_has_no_spurious_returns() {
        let mut line = armed(Rising);

        line.mask();
        assert_eq!(line.returned(Odd), Action::None);
        assert_eq!(line.spurious, 0);
        assert_eq!(line.unmask(), Action::Arm);
    }

    #[test]
    fn waiting_line_waits_for_room() {
        let mut line = armed(Rising);

        line.wait_for_buffer();
        line.mask();
        assert_eq!(line.unmask(), Action::None);
        assert_eq!(line.retry(), Action::None);
        assert_eq!(line.arm_waiting(), Action::Arm);
        line.wait_for_buffer();
        assert_eq!(line.arm_waiting(), Action::Arm);
        // The line does not wait for room, so there is nothing to arm.
        assert_eq!(line.arm_waiting(), Action::None);
    }

    #[test]
    fn waiting_line_that_was_masked() {
        let mut line = armed(Rising);

        line.wait_for_buffer();
        line.mask();
        assert_eq!(line.arm_waiting(), Action::None);
        assert_eq!(line.unmask(), Action::Arm);
    }

    #[test]
    fn waiting_line_that_was_shut_down() {
        let mut line = armed(Rising);

        line.wait_for_buffer();
        let _ = line.shutdown();
        assert_eq!(line.arm_waiting(), Action::None);
        let _ = exchange(&mut line, ACCEPTED);
        let _ = line.startup();
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Rising, Action::Arm)));
    }

    #[test]
    fn reset_keeps_what_is_demanded() {
        let mut line = armed(Rising);

        line.reset();
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Rising, Action::Arm)));

        line.mask();
        line.reset();
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Rising, Action::None)));
        assert_eq!(line.unmask(), Action::Arm);

        let _ = line.shutdown();
        line.reset();
        assert_eq!(line.next_message(), None);
    }

    #[test]
    fn reset_forgets_refusal_and_silence() {
        for outcome in [REFUSED, UNANSWERED] {
            let mut line = started(Rising);

            let _ = exchange(&mut line, outcome);
            line.reset();
            assert_eq!(exchange(&mut line, ACCEPTED), Some((Rising, Action::Arm)));
        }
    }

    #[test]
    fn reset_ends_the_row_of_spurious_returns() {
        let mut line = armed(Rising);

        for _ in 0..AT_ONCE + 1 {
            let _ = line.returned(Odd);
        }
        line.reset();
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Rising, Action::Arm)));
        assert_eq!(line.returned(Odd), Action::Arm);
    }

    #[test]
    fn reset_while_enabling() {
        for outcome in [ACCEPTED, REFUSED] {
            let mut line = started(Rising);

            assert_eq!(line.next_message(), Some(Rising));
            line.reset();
            assert_eq!(line.next_message(), None);
            // The answer is from before the reset.
            assert_eq!(line.answered(outcome), Action::None);
            assert_eq!(exchange(&mut line, ACCEPTED), Some((Rising, Action::Arm)));
        }
    }
}

mod sleep;
mod steps;
mod walks;
