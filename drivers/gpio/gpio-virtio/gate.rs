// SPDX-License-Identifier: GPL-2.0

//! Whether a queue may be given anything for the device.

/// The gate of a queue. It is open until something closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// All goes to the device.
    Open,
    /// Nothing does for now, because the device may need a reset, or is being reset.
    Held,
    /// Nothing does, because the device is suspended, given up on, or going.
    Shut,
}

impl Gate {
    /// Holds back what would have gone to the device.
    pub(crate) fn hold(&mut self) {
        if *self == Self::Open {
            *self = Self::Held;
        }
    }

    /// Undoes [`Gate::hold`], and nothing else.
    pub(crate) fn release(&mut self) {
        if *self == Self::Held {
            *self = Self::Open;
        }
    }

    /// Keeps all from the device. Returns whether it was not so before.
    pub(crate) fn shut(&mut self) -> bool {
        core::mem::replace(self, Self::Shut) != Self::Shut
    }
}

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(gpio_virtio_gate)]
mod tests {
    use super::Gate;

    #[test]
    fn hold_and_release() {
        let mut gate = Gate::Open;

        gate.hold();
        assert_eq!(gate, Gate::Held);
        gate.release();
        assert_eq!(gate, Gate::Open);
    }

    #[test]
    fn shut_stays_shut() {
        let mut gate = Gate::Held;

        assert!(gate.shut());
        gate.hold();
        gate.release();
        assert_eq!(gate, Gate::Shut);
        assert!(!gate.shut());
    }
}
