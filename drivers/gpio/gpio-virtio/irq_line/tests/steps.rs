// SPDX-License-Identifier: GPL-2.0

//! Tests of the state machine of a line: each input in each state.

use kernel::prelude::*;

#[kunit_tests(gpio_virtio_irq_line_steps)]
mod cases {
    use super::super::{
        super::*,
        cases::*, //
    };

    use Event::{
        Invalid,
        Valid, //
    };
    use TriggerType::EdgeRising as Rising;

    /// All inputs of a line.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Input {
        SetType(TriggerType),
        Startup,
        Shutdown,
        Mask,
        Unmask,
        NextMessage,
        Answered(Result),
        NoRoom,
        Room,
        Returned(Event),
        Retry,
        Sleep,
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
                Self::NoRoom,
                Self::Room,
                Self::Retry,
                Self::Sleep,
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
                Self::NoRoom => line.buffer == Buffer::Armed && line.started && !line.masked,
                Self::Returned(_) => is_out(line),
                _ => true,
            }
        }

        fn apply(self, line: &mut Line) -> (Action, Option<TriggerType>) {
            let action = match self {
                Self::SetType(kind) => line.set_type(kind),
                Self::Startup => line.startup(),
                Self::Shutdown => line.shutdown(),
                Self::Unmask => line.unmask(),
                Self::Room => line.arm_waiting(),
                Self::Retry => line.retry(),
                Self::Returned(event) => line.returned(event),
                Self::Answered(outcome) => line.answered(outcome),
                Self::NextMessage => return (Action::None, line.next_message()),
                Self::Mask => {
                    line.mask();
                    Action::None
                }
                Self::NoRoom => {
                    line.wait_for_buffer();
                    Action::None
                }
                Self::Sleep => {
                    line.sleep();
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

    /// Returns whether [`Line::retry`] is pending.
    fn is_retry_due(line: &Line) -> bool {
        line.held == Held::Unanswered || line.buffer == Buffer::Resting
    }

    /// Returns whether the first two of the invariants of [`Line`] hold. The third one depends on
    /// what happened before.
    fn is_consistent(line: &Line) -> bool {
        let holds = matches!(line.held, Held::Type(kind) if kind != TriggerType::None);
        let waits = matches!(line.buffer, Buffer::Waiting | Buffer::Resting);

        (line.started || !waits) && (holds || line.buffer != Buffer::Armed)
    }

    /// Returns all states of a line that satisfy the first two invariants of [`Line`], reachable or
    /// not.
    fn states() -> impl Iterator<Item = Line> {
        let held = || {
            let types = TYPES.into_iter();
            let types = types.flat_map(|kind| [Held::Type(kind), Held::Sent(kind)]);

            Iterator::chain(types, [Held::Refused, Held::Unanswered, Held::Unknown])
        };
        let buffers = [
            Buffer::Home,
            Buffer::Waiting,
            Buffer::Resting,
            Buffer::Armed,
            Buffer::Stale,
        ];
        let spurious = [0, 1, AT_ONCE - 1, AT_ONCE, RESYNC - 1, RESYNC, u8::MAX];
        let demands = [(false, false), (false, true), (true, false), (true, true)]
            .into_iter()
            .flat_map(|demand| [(demand, false), (demand, true)]);

        TYPES
            .into_iter()
            .flat_map(move |trigger| demands.clone().map(move |demand| (trigger, demand)))
            .flat_map(move |start| held().map(move |held| (start, held)))
            .flat_map(move |start| buffers.into_iter().map(move |buffer| (start, buffer)))
            .flat_map(move |start| spurious.into_iter().map(move |spurious| (start, spurious)))
            .map(
                |((((trigger, ((started, masked), asleep)), held), buffer), spurious)| Line {
                    trigger,
                    started,
                    masked,
                    held,
                    buffer,
                    spurious,
                    wakes: false,
                    asleep,
                },
            )
            .filter(is_consistent)
    }

    /// Calls `check` with each state, each input that is possible there, and what results.
    ///
    /// Returns the first state and input for which it returns false.
    fn violation(
        check: impl Fn(&Line, Input, &Line, Action, Option<TriggerType>) -> bool,
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
        // 6 types, in use or not, masked or not, asleep or not, 15 things that the device may hold,
        // 5 places of the buffer, 7 numbers of spurious returns; less those that the invariants
        // rule out: 10 things held with the buffer armed, and 15 with each of two places while the
        // interrupt is not in use.
        assert_eq!(states().count(), 6 * 7 * 4 * (2 * 15 * 5 - 2 * 10 - 2 * 15));
        assert_eq!(Input::all().count(), 10 + 6 + 3 + 3);
    }

    #[test]
    fn each_step_preserves_the_invariants() {
        assert_eq!(violation(|_, _, after, _, _| is_consistent(after)), None);
    }

    #[test]
    fn each_step_arms_only_what_may_be_armed() {
        assert_eq!(
            violation(|before, input, after, action, _| action != Action::Arm
                || after.started
                    && !after.masked
                    && after.trigger != TriggerType::None
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
                let comes = matches!(input, Input::Returned(_) | Input::Reset | Input::NoRoom);

                is_out(after) == (action == Action::Arm || is_out(before) && !comes)
            }),
            None
        );
    }

    #[test]
    fn each_step_leaves_no_line_behind() {
        // A line that may be armed is armed, or an input that arms it is pending.
        assert_eq!(
            violation(|before, _, after, action, _| before.may_arm()
                || action == Action::Deliver
                || !after.may_arm()),
            None
        );
        // That input arms it.
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
                let came = input == Input::Returned(Valid) && before.started;

                came == (action == Action::Deliver)
            }),
            None
        );
    }

    #[test]
    fn each_step_sends_in_order() {
        assert_eq!(
            violation(|before, input, after, _, message| {
                let sent = message.map(Held::Sent);

                match message {
                    Some(TriggerType::None) => {
                        before.held != Held::Type(TriggerType::None)
                            && matches!(before.held, Held::Type(_) | Held::Unknown)
                            && sent == Some(after.held)
                    }
                    Some(kind) => {
                        before.held == Held::Type(TriggerType::None)
                            && kind == before.trigger
                            && before.started
                            && !before.asleep
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
                let started = match input {
                    Input::Startup => true,
                    Input::Shutdown => false,
                    _ => before.started,
                };
                let masked = match input {
                    Input::Mask => true,
                    Input::Startup | Input::Unmask => false,
                    _ => before.masked,
                };
                let trigger = match input {
                    Input::SetType(kind) => kind,
                    _ => before.trigger,
                };

                let asleep = match input {
                    Input::Sleep => true,
                    Input::Reset => false,
                    _ => before.asleep,
                };

                (after.started, after.masked, after.trigger) == (started, masked, trigger)
                    && after.asleep == asleep
            }),
            None
        );
    }

    #[test]
    fn each_state_has_a_way_to_be_armed() {
        // With a device that accepts each type, and all pending inputs.
        let dead = states().find(|state| {
            let mut line = state.clone();

            if line.asleep {
                line.reset();
            }
            if let Held::Sent(_) = line.held {
                let _ = line.answered(ACCEPTED);
            }
            let _ = line.set_type(Rising);
            let _ = line.startup();
            for _ in 0..2 {
                let _ = exchange(&mut line, ACCEPTED);
                if line.buffer == Buffer::Stale {
                    let _ = line.returned(Invalid);
                }
                let _ = line.arm_waiting();
                let _ = line.retry();
            }

            line.buffer != Buffer::Armed || line.needs_sync()
        });

        assert_eq!(dead, None);
    }
}
