// SPDX-License-Identifier: GPL-2.0

//! Tests of the state machine of a line: the system is suspended, and may be woken up.

use kernel::prelude::*;

#[kunit_tests(gpio_virtio_irq_line_sleep)]
mod cases {
    use super::super::{
        super::*,
        cases::*, //
    };

    use Event::{
        Invalid,
        Valid, //
    };
    use TriggerType::{
        EdgeFalling as Falling,
        EdgeRising as Rising, //
    };

    #[test]
    fn sleep_takes_the_type_back() {
        let mut line = armed(Rising);

        assert!(line.sleep());
        assert_eq!(
            exchange(&mut line, ACCEPTED),
            Some((TriggerType::None, Action::None))
        );
        assert_eq!(line.returned(Invalid), Action::None);
        // Not even on demand.
        assert_eq!(line.set_type(Falling), Action::None);
        assert_eq!(line.next_message(), None);
        line.reset();
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Falling, Action::Arm)));
    }

    #[test]
    fn sleeping_line_is_to_wake_after_all() {
        let mut line = armed(Rising);

        line.sleep();
        assert_eq!(
            exchange(&mut line, ACCEPTED),
            Some((TriggerType::None, Action::None))
        );
        assert_eq!(line.returned(Invalid), Action::None);
        line.wakes = true;
        assert_eq!(exchange(&mut line, ACCEPTED), Some((Rising, Action::Arm)));
        line.wakes = false;
        assert_eq!(line.next_message(), Some(TriggerType::None));
    }

    #[test]
    fn sleep_keeps_the_type_that_wakes() {
        let mut line = armed(Rising);

        line.wakes = true;
        assert!(line.sleep());
        assert_eq!(line.next_message(), None);
        assert_eq!(line.returned(Valid), Action::Deliver);
        let _ = line.shutdown();
        assert!(!line.sleep());
    }
}
