// SPDX-License-Identifier: GPL-2.0

//! Tests of the state machine of a line: random walks with a device.

use kernel::prelude::*;

#[kunit_tests(gpio_virtio_irq_line_walks)]
mod cases {
    use super::super::{
        super::*,
        cases::*, //
    };

    use Event::{
        Invalid,
        Valid, //
    };

    /// Pseudo-random numbers, the same in each run (xorshift64).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        /// Returns true once in `count` times.
        fn once_in(&mut self, count: u64) -> bool {
            self.next() % count == 0
        }

        /// Returns one of `items`.
        fn pick<T: Copy, const N: usize>(&mut self, items: &[T; N]) -> Option<T> {
            items.get((self.next() % N as u64) as usize).copied()
        }
    }

    /// The queues between a driver and a device, for one line.
    #[derive(Default)]
    struct Queues {
        /// Requests: the type, and whether an answer is waited for.
        requests: KVec<(TriggerType, bool)>,
        /// The answer to the request that is waited for.
        answer: Option<Result>,
        /// A buffer that the device has not seen yet.
        buffer: bool,
        /// A returned buffer that the driver has not seen yet.
        event: Option<Event>,
    }

    /// A device with one line that follows the protocol strictly.
    struct Device {
        kind: TriggerType,
        latched: bool,
        buffer: bool,
    }

    impl Device {
        const RESET: Self = Self {
            kind: TriggerType::None,
            latched: false,
            buffer: false,
        };

        /// Processes the oldest request. Returns whether it made the device forget an edge.
        fn process(&mut self, queues: &mut Queues) -> Result<bool, &'static str> {
            let Ok((kind, waited)) = queues.requests.remove(0) else {
                return Ok(false);
            };
            let forgets = kind == TriggerType::None;

            if !forgets && self.kind != TriggerType::None {
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
                queues.answer = Some(ACCEPTED);
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
            if self.kind != TriggerType::None {
                self.latched = true;
                self.notify(queues);
            }
        }

        /// Returns the buffer, if there is one and a reason to do so.
        fn notify(&mut self, queues: &mut Queues) {
            if self.buffer && (self.latched || self.kind == TriggerType::None) {
                self.buffer = false;
                queues.event = Some(if self.latched { Valid } else { Invalid });
                self.latched = false;
            }
        }
    }

    /// A driver, its line, and the device.
    ///
    /// Keeps a state of its own, to check the line against.
    struct World {
        line: Line,
        device: Device,
        queues: Queues,
        random: Random,
        /// The message that the loop of messages waits for, and whether the device was reset since.
        message: Option<(TriggerType, bool)>,
        /// The type that the device has accepted by an answer, and that was not taken back since.
        granted: TriggerType,
        /// What genirq demands.
        trigger: TriggerType,
        active: bool,
        masked: bool,
        /// The device has the buffer.
        out: bool,
        /// [`Line::retry`] and [`Line::arm_waiting`] were asked for.
        retry: bool,
        waiting: bool,
        /// An edge that has to be delivered.
        owed: bool,
        /// Number of times the line was armed since the last input that allows it.
        arms: u8,
    }

    impl World {
        fn new(seed: u64) -> Self {
            Self {
                line: Line::NEW,
                device: Device::RESET,
                queues: Queues::default(),
                random: Random(seed),
                message: None,
                granted: TriggerType::None,
                trigger: TriggerType::None,
                active: false,
                masked: false,
                out: false,
                retry: false,
                waiting: false,
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
                    if self.trigger == TriggerType::None || self.granted != self.trigger {
                        return Err("armed what was not enabled");
                    }
                    if self.out {
                        return Err("a second buffer");
                    }
                    if self.random.once_in(8) {
                        self.line.wait_for_buffer();
                        self.waiting = true;
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
                        return Err("delivered an interrupt that is not requested");
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
            let Some(kind) = self.line.next_message() else {
                return Ok(());
            };
            let waited = kind != TriggerType::None;

            if self.message.is_some() {
                return Err("two messages at a time");
            }
            if waited && (!self.active || kind != self.trigger) {
                return Err("enabled what is not demanded");
            }
            self.granted = TriggerType::None;
            self.queues
                .requests
                .push((kind, waited), GFP_KERNEL)
                .map_err(|_| "no memory")?;

            if waited {
                self.message = Some((kind, false));
                return Ok(());
            }
            let action = self.line.answered(ACCEPTED);
            self.perform(action)
        }

        /// The outcome of the message that is waited for is known.
        fn answer(&mut self, outcome: Result) -> Result<(), &'static str> {
            let Some((kind, was_reset)) = self.message.take() else {
                return Ok(());
            };

            if outcome == ACCEPTED && !was_reset {
                self.granted = kind;
            }
            if outcome == UNANSWERED {
                // A later answer is dropped.
                for (_, waited) in self.queues.requests.iter_mut() {
                    *waited = false;
                }
            }
            self.queues.answer = None;
            self.arms = 0;

            let action = self.line.answered(outcome);
            self.perform(action)
        }

        /// The driver gets its buffer back.
        fn callback(&mut self, event: Event) -> Result<(), &'static str> {
            self.out = false;
            if event == Valid {
                self.arms = 0;
                // The driver drops events of an interrupt that is not requested.
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
                    self.queues.answer = Some(UNANSWERED);
                }
            }
            self.queues.requests.clear();
            self.queues.buffer = false;
            self.queues.event = None;
            self.device = Device::RESET;
            self.granted = TriggerType::None;
            self.out = false;
            self.owed = false;
            self.line.reset();
        }

        /// Takes a random step of the driver that is possible.
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
                    let _ = self.line.shutdown();
                }
                3 if self.active => {
                    self.masked = true;
                    self.line.mask();
                }
                4..=6 if self.active && self.masked => self.unmask()?,
                7..=10 => self.send()?,
                11..=12 => self.retry()?,
                13 => self.arm_waiting()?,
                14 if self.message.is_some() && self.random.once_in(4) => {
                    self.answer(UNANSWERED)?
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

        fn arm_waiting(&mut self) -> Result<(), &'static str> {
            if core::mem::take(&mut self.waiting) {
                self.arms = 0;

                let action = self.line.arm_waiting();
                self.perform(action)?;
            }
            Ok(())
        }

        /// Takes a random step of a device that follows the protocol, or of the queues.
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
                    self.owed |= self.active && self.device.kind != TriggerType::None;
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

        /// Takes a random step of a hostile device.
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

        /// Completes all messages and buffers in flight, and checks the state of the line.
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
                self.arm_waiting()?;
                if self.active && self.masked {
                    self.unmask()?;
                }
            }

            let kind = if self.active {
                self.trigger
            } else {
                TriggerType::None
            };
            let armed = kind != TriggerType::None && self.line.held != Held::Refused;

            if self.message.is_some() || self.line.needs_sync() {
                Err("messages do not come to an end")
            } else if armed && !(self.out && self.device.buffer && self.device.kind == kind) {
                Err("a dead line")
            } else if !armed && (self.out || self.device.kind != TriggerType::None) {
                Err("a line that is not in use, but enabled")
            } else if self.owed {
                Err("a lost edge")
            } else {
                Ok(())
            }
        }
    }

    /// Returns whether there was no violation, and logs one.
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
                    if world.line.spurious != 0 {
                        return Err("a spurious return");
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

                // The device follows the protocol again, after a loss of its state.
                world.answer(UNANSWERED)?;
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
