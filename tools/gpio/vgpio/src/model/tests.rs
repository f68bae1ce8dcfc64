// SPDX-License-Identifier: GPL-2.0-only

//! The device half of the specification, requirement by requirement.

use super::*;

const IRQ: Rules = Rules {
    irq: true,
    irq_needs_input: false,
    strict: false,
};

/// A model whose buffers are numbers, with what happened since one last looked.
struct Fixture {
    model: Model<u32>,
    effects: Effects<u32>,
    rules: Rules,
}

impl Fixture {
    fn new(lines: usize) -> Self {
        Self {
            model: Model::new(vec![false; lines]),
            effects: Effects::default(),
            rules: IRQ,
        }
    }

    fn request(&mut self, message: Message, line: u16, value: u32) -> Option<u8> {
        self.model
            .request(message, line, value, self.rules, &mut self.effects)
    }

    /// Expects that a request is carried out.
    fn ok(&mut self, message: Message, line: u16, value: u32) {
        assert_eq!(self.request(message, line, value), Some(0), "{message:?}");
    }

    fn irq(&mut self, line: u16, irq: u32) {
        self.ok(Message::SetIrqType, line, irq);
    }

    fn arm(&mut self, line: u16, buffer: u32) {
        self.model.arm(line, buffer, &mut self.effects);
    }

    fn host(&mut self, line: u16, level: bool) {
        self.model.set_host(line, level, &mut self.effects);
    }

    /// Buffers that came back: line, buffer, validity.
    fn returned(&mut self) -> Vec<(u16, u32, bool)> {
        let returned = self.effects.returned.drain(..);
        returned.map(|it| (it.line, it.buffer, it.valid)).collect()
    }

    fn changes(&mut self) -> Vec<(u16, Change)> {
        std::mem::take(&mut self.effects.changes)
    }

    fn level(&mut self, line: u16) -> Option<u8> {
        self.request(Message::GetValue, line, 0)
    }
}

const NONE: u32 = 0;
const RISING: u32 = 1;
const FALLING: u32 = 2;
const BOTH: u32 = 3;
const HIGH: u32 = 4;
const LOW: u32 = 8;

const OUT: u32 = 1;
const IN: u32 = 2;

#[test]
fn directions_are_remembered() {
    let mut it = Fixture::new(2);
    for direction in [OUT, IN, NONE, IN, OUT] {
        it.ok(Message::SetDirection, 1, direction);
        assert_eq!(
            it.request(Message::GetDirection, 1, 0),
            Some(direction as u8)
        );
        assert_eq!(it.request(Message::GetDirection, 0, 0), Some(0));
    }
}

#[test]
fn a_value_set_before_the_direction_is_used_by_it() {
    let mut it = Fixture::new(1);
    it.ok(Message::SetValue, 0, 1);
    assert_eq!(it.level(0), Some(0), "the host still drives");
    it.ok(Message::SetDirection, 0, OUT);
    assert_eq!(it.level(0), Some(1));
    it.ok(Message::SetValue, 0, 0);
    assert_eq!(it.level(0), Some(0));
}

#[test]
fn the_host_drives_unless_the_guest_does() {
    let mut it = Fixture::new(1);
    it.host(0, true);
    assert_eq!(it.level(0), Some(1), "direction none");
    it.ok(Message::SetDirection, 0, IN);
    assert_eq!(it.level(0), Some(1), "direction in");
    it.ok(Message::SetDirection, 0, OUT);
    assert_eq!(it.level(0), Some(0), "direction out");
    it.host(0, false);
    it.host(0, true);
    assert_eq!(it.level(0), Some(0), "remembered, not seen");
    it.ok(Message::SetDirection, 0, IN);
    assert_eq!(it.level(0), Some(1));
}

#[test]
fn bad_requests_are_refused_and_change_nothing() {
    let mut it = Fixture::new(2);
    it.ok(Message::SetDirection, 1, OUT);
    it.changes();
    for (message, line, value) in [
        (Message::GetDirection, 2, 0),
        (Message::SetDirection, 2, IN),
        (Message::GetValue, 0xffff, 0),
        (Message::SetValue, 2, 1),
        (Message::SetIrqType, 2, RISING),
        (Message::SetDirection, 0, 3),
        (Message::SetDirection, 0, 0x0001_0001),
        (Message::SetValue, 1, 2),
        (Message::SetIrqType, 0, 5),
        (Message::SetIrqType, 0, 7),
        (Message::SetIrqType, 0, 0x0001_0001),
        (Message::SetIrqType, 1, RISING),
        (Message::GetLineNames, 0, 0),
    ] {
        assert_eq!(
            it.request(message, line, value),
            None,
            "{message:?} line {line} value {value}"
        );
    }
    assert_eq!(it.changes(), []);
    assert_eq!(it.returned(), []);
}

#[test]
fn interrupts_need_their_feature() {
    let mut it = Fixture::new(1);
    it.rules.irq = false;
    assert_eq!(it.request(Message::SetIrqType, 0, RISING), None);
    assert_eq!(it.request(Message::SetIrqType, 0, NONE), None);
}

#[test]
fn an_interrupt_needs_any_direction_but_out() {
    let mut it = Fixture::new(3);
    it.ok(Message::SetDirection, 1, IN);
    it.ok(Message::SetDirection, 2, OUT);
    it.irq(0, RISING);
    it.irq(1, RISING);
    assert_eq!(it.request(Message::SetIrqType, 2, RISING), None);
    it.irq(2, NONE);

    it.rules.irq_needs_input = true;
    it.irq(0, NONE);
    assert_eq!(it.request(Message::SetIrqType, 0, RISING), None);
    it.irq(1, FALLING);
}

#[test]
fn strict_refuses_what_drivers_must_not_do() {
    let mut it = Fixture::new(2);
    it.rules.strict = true;
    assert_eq!(it.request(Message::SetIrqType, 0, RISING), None, "no input");
    it.ok(Message::SetDirection, 0, IN);
    it.irq(0, RISING);
    assert_eq!(it.request(Message::SetIrqType, 0, BOTH), None, "no NONE");
    assert_eq!(it.request(Message::SetDirection, 0, OUT), None, "enabled");
    it.irq(0, NONE);
    it.irq(0, BOTH);
}

#[test]
fn v3_direction_none_forgets_the_line() {
    let mut it = Fixture::new(2);
    it.ok(Message::SetValue, 0, 1);
    it.ok(Message::SetDirection, 0, IN);
    it.irq(0, RISING);
    it.arm(0, 7);
    it.host(0, true);
    assert_eq!(it.returned(), [(0, 7, true)]);
    it.host(0, false);
    it.host(0, true);
    it.arm(1, 8);
    it.returned();

    it.ok(Message::SetDirection, 0, NONE);
    let view = it.model.view(0).unwrap();
    assert_eq!(view.direction, Direction::None);
    assert_eq!(view.irq, IrqType::None);
    assert!(!view.latched && !view.armed);
    assert!(view.host, "the host's level is not the guest's to forget");
    it.ok(Message::SetDirection, 0, OUT);
    assert_eq!(it.level(0), Some(0), "the value is forgotten too");
}

#[test]
fn v3_direction_none_returns_the_buffer() {
    let mut it = Fixture::new(1);
    it.irq(0, BOTH);
    it.arm(0, 7);
    it.ok(Message::SetDirection, 0, NONE);
    assert_eq!(it.returned(), [(0, 7, false)]);
}

#[test]
fn v4_edge_latched_while_masked() {
    for (irq, level, latched) in [
        (RISING, true, true),
        (RISING, false, false),
        (FALLING, false, true),
        (FALLING, true, false),
        (BOTH, true, true),
        (BOTH, false, true),
    ] {
        let mut it = Fixture::new(1);
        it.host(0, !level);
        it.irq(0, irq);
        it.host(0, level);
        assert_eq!(it.returned(), []);
        assert_eq!(it.effects.latched, u64::from(latched), "{irq} to {level}");
        it.arm(0, 7);
        let expected: &[_] = if latched { &[(0, 7, true)] } else { &[] };
        assert_eq!(it.returned(), expected, "{irq} to {level}");
    }
}

#[test]
fn v4_edges_latched_together_are_one() {
    let mut it = Fixture::new(1);
    it.irq(0, BOTH);
    for level in [true, false, true] {
        it.host(0, level);
    }
    assert_eq!((it.effects.latched, it.effects.merged), (1, 2));
    it.arm(0, 7);
    assert_eq!(it.returned(), [(0, 7, true)]);
    it.arm(0, 8);
    assert_eq!(it.returned(), [], "not twice");
}

#[test]
fn v4_no_edge_before_enabling() {
    let mut it = Fixture::new(1);
    it.host(0, true);
    it.irq(0, BOTH);
    it.arm(0, 7);
    assert_eq!(it.returned(), []);
}

#[test]
fn v4_level_not_latched_while_masked() {
    for (irq, active) in [(HIGH, true), (LOW, false)] {
        let mut it = Fixture::new(1);
        it.host(0, !active);
        it.irq(0, irq);
        it.host(0, active);
        it.host(0, !active);
        it.arm(0, 7);
        assert_eq!(it.returned(), [], "{irq}");
    }
}

#[test]
fn v4_latched_edge_dropped_when_disabled() {
    let mut it = Fixture::new(1);
    it.irq(0, RISING);
    it.host(0, true);
    it.irq(0, NONE);
    it.irq(0, RISING);
    it.arm(0, 7);
    assert_eq!(it.returned(), []);
}

#[test]
fn v4_latched_edge_dropped_when_the_type_changes() {
    let mut it = Fixture::new(1);
    it.irq(0, RISING);
    it.host(0, true);
    it.irq(0, FALLING);
    it.arm(0, 7);
    assert_eq!(it.returned(), []);
    it.host(0, false);
    assert_eq!(it.returned(), [(0, 7, true)]);
}

#[test]
fn v4_same_type_again_keeps_the_latch() {
    let mut it = Fixture::new(1);
    it.irq(0, RISING);
    it.host(0, true);
    it.irq(0, RISING);
    it.arm(0, 7);
    assert_eq!(it.returned(), [(0, 7, true)]);
}

#[test]
fn v5_edge_fires_when_enabled_and_unmasked() {
    for (irq, level, fires) in [
        (RISING, true, true),
        (RISING, false, false),
        (FALLING, false, true),
        (FALLING, true, false),
        (BOTH, true, true),
        (BOTH, false, true),
    ] {
        let mut it = Fixture::new(1);
        it.host(0, !level);
        it.irq(0, irq);
        it.arm(0, 7);
        it.host(0, level);
        let expected: &[_] = if fires { &[(0, 7, true)] } else { &[] };
        assert_eq!(it.returned(), expected, "{irq} to {level}");
    }
}

#[test]
fn v5_no_event_without_a_change() {
    let mut it = Fixture::new(1);
    it.irq(0, BOTH);
    it.arm(0, 7);
    it.host(0, false);
    assert_eq!(it.returned(), []);
}

#[test]
fn v5_returning_the_buffer_masks() {
    let mut it = Fixture::new(1);
    it.irq(0, BOTH);
    it.arm(0, 7);
    it.host(0, true);
    assert_eq!(it.returned(), [(0, 7, true)]);
    assert!(!it.model.view(0).unwrap().armed);
    it.host(0, false);
    assert_eq!(it.returned(), [], "masked");
    it.arm(0, 8);
    assert_eq!(it.returned(), [(0, 8, true)], "the edge in between");
}

#[test]
fn v5_lines_do_not_mix() {
    let mut it = Fixture::new(3);
    for line in 0..3 {
        it.irq(line, RISING);
        it.arm(line, u32::from(line) + 10);
    }
    it.host(1, true);
    assert_eq!(it.returned(), [(1, 11, true)]);
    it.host(2, true);
    it.host(0, true);
    assert_eq!(it.returned(), [(2, 12, true), (0, 10, true)]);
}

#[test]
fn v5_edges_that_the_guest_makes_itself_are_not_interrupts_of_an_output() {
    let mut it = Fixture::new(1);
    it.ok(Message::SetDirection, 0, OUT);
    it.arm(0, 7);
    assert_eq!(it.returned(), [(0, 7, false)], "not enabled");
    it.ok(Message::SetValue, 0, 1);
    assert_eq!(it.returned(), []);
}

#[test]
fn v6_type_none_returns_the_buffer() {
    let mut it = Fixture::new(1);
    it.irq(0, RISING);
    it.arm(0, 7);
    it.irq(0, NONE);
    assert_eq!(it.returned(), [(0, 7, false)]);
    it.irq(0, NONE);
    assert_eq!(it.returned(), [], "once");
}

#[test]
fn v6_buffer_of_a_disabled_line_returns_at_once() {
    let mut it = Fixture::new(1);
    it.arm(0, 7);
    assert_eq!(it.returned(), [(0, 7, false)]);
    it.irq(0, RISING);
    it.host(0, true);
    assert_eq!(it.returned(), [], "it does not count as armed later");
}

#[test]
fn v6_second_buffer_and_bad_line_return_at_once() {
    let mut it = Fixture::new(1);
    it.irq(0, RISING);
    it.arm(0, 7);
    it.arm(0, 8);
    it.arm(1, 9);
    assert_eq!(it.returned(), [(0, 8, false), (1, 9, false)]);
    it.host(0, true);
    assert_eq!(it.returned(), [(0, 7, true)]);
}

#[test]
fn v7_level_fires_again_after_unmask() {
    for (irq, active) in [(HIGH, true), (LOW, false)] {
        let mut it = Fixture::new(1);
        it.host(0, active);
        it.irq(0, irq);
        assert_eq!(it.returned(), []);
        for buffer in 7..10 {
            it.arm(0, buffer);
            assert_eq!(it.returned(), [(0, buffer, true)], "{irq}");
        }
        it.host(0, !active);
        it.arm(0, 10);
        assert_eq!(it.returned(), []);
        it.host(0, active);
        assert_eq!(it.returned(), [(0, 10, true)]);
    }
}

#[test]
fn changes_are_reported_once_and_in_order() {
    let mut it = Fixture::new(1);
    let level = |level, by| (0, Change::Level { level, by });
    let direction = |direction| (0, Change::Direction { direction });

    it.host(0, true);
    it.host(0, true);
    assert_eq!(it.changes(), [level(true, Cause::Host)]);
    it.ok(Message::SetDirection, 0, OUT);
    assert_eq!(
        it.changes(),
        [direction(Direction::Out), level(false, Cause::Guest)]
    );
    it.ok(Message::SetValue, 0, 1);
    it.ok(Message::SetValue, 0, 1);
    assert_eq!(it.changes(), [level(true, Cause::Guest)]);
    it.ok(Message::SetDirection, 0, IN);
    assert_eq!(it.changes(), [direction(Direction::In)], "both high");
    it.ok(Message::SetDirection, 0, OUT);
    assert_eq!(
        it.changes(),
        [
            direction(Direction::Out),
            (0, Change::Driven { level: true })
        ]
    );
    it.ok(Message::SetDirection, 0, NONE);
    it.changes();

    it.irq(0, FALLING);
    it.arm(0, 7);
    it.host(0, false);
    assert_eq!(
        it.changes(),
        [
            (
                0,
                Change::Irq {
                    irq: IrqType::Falling
                }
            ),
            (0, Change::Armed { armed: true }),
            level(false, Cause::Host),
            (0, Change::Armed { armed: false }),
        ]
    );
}

#[test]
fn forget_and_restore() {
    let mut it = Fixture::new(4);
    it.host(1, true);
    it.ok(Message::SetDirection, 0, OUT);
    it.ok(Message::SetValue, 0, 1);
    it.irq(1, LOW);
    it.arm(1, 7);
    it.irq(2, BOTH);
    it.arm(2, 8);
    it.irq(3, RISING);
    it.changes();

    let forgotten = it.model.forget(&mut it.effects);
    assert_eq!(it.returned(), [], "the ring is gone");
    let fresh = Model::<u32>::new([false, true, false, false]);
    for line in 0..4 {
        assert_eq!(it.model.view(line), fresh.view(line), "line {line}");
    }
    it.host(1, false);
    it.host(3, true);
    assert_eq!(it.returned(), []);

    it.model.restore(forgotten, &mut it.effects);
    assert_eq!(it.level(0), Some(1));
    assert_eq!(it.returned(), [(1, 7, true)], "the level is active now");
    it.arm(3, 9);
    assert_eq!(it.returned(), [(3, 9, true)], "there was an edge");
    it.host(2, true);
    assert_eq!(it.returned(), [(2, 8, true)], "armed all along");
}

#[test]
fn swings_at_the_pace_of_the_guest() {
    let mut it = Fixture::new(2);
    it.model.swing(0, 3, &mut it.effects);
    it.irq(0, BOTH);
    assert_eq!(it.returned(), [], "masked");
    for buffer in [7, 8, 9] {
        it.arm(0, buffer);
        assert_eq!(it.returned(), [(0, buffer, true)]);
    }
    it.arm(0, 10);
    assert_eq!(it.returned(), [], "three times it was");
    it.model.swing(0, 1, &mut it.effects);
    assert_eq!(it.returned(), [(0, 10, true)], "unmasked already");
    assert_eq!((it.effects.latched, it.effects.merged), (0, 0));
    assert_eq!(it.level(0), Some(0));

    it.irq(1, RISING);
    it.model.swing(1, 3, &mut it.effects);
    for buffer in [7, 8] {
        it.arm(1, buffer);
        assert_eq!(it.returned(), [(1, buffer, true)], "past the falling edge");
    }
    it.model.swing(7, 1, &mut it.effects);
}

/// The lines of an I2C bus.
const SDA: u16 = 2;
const SCL: u16 = 0;

impl Fixture {
    /// Drives a line low, or lets go of it, as gpiolib emulates open drain.
    fn open_drain(&mut self, line: u16, level: bool) {
        self.ok(Message::SetDirection, line, if level { IN } else { OUT });
    }

    /// Clocks a bit in and out.
    fn clock(&mut self, bit: bool) -> bool {
        self.open_drain(SDA, bit);
        self.open_drain(SCL, true);
        let level = self.level(SDA) == Some(1);
        self.open_drain(SCL, false);
        level
    }

    /// Sends the address of the EEPROM for a read. Returns whether it was acknowledged.
    fn start_reading(&mut self) -> bool {
        for (line, level) in [(SDA, true), (SCL, true), (SDA, false), (SCL, false)] {
            self.open_drain(line, level);
        }
        for bit in [true, false, true, false, false, false, false, true] {
            self.clock(bit);
        }
        !self.clock(true)
    }
}

#[test]
fn an_eeprom_answers_on_its_bus() {
    let mut it = Fixture::new(3);
    assert!(it.model.eeprom().is_none());
    it.model.attach_eeprom(SDA, SCL);
    assert_eq!((it.level(SDA), it.level(SCL)), (Some(1), Some(1)));
    assert!(it.model.eeprom().unwrap().program(0, &[0x6a]));

    assert!(it.start_reading());
    let bits: Vec<_> = (0..8).map(|_| u8::from(it.clock(true))).collect();
    assert_eq!(bits, [0, 1, 1, 0, 1, 0, 1, 0]);
    it.clock(true);
    assert_eq!(it.level(SDA), Some(1), "released at the end");
}

#[test]
fn an_eeprom_lets_go_of_the_bus_when_the_guest_has_gone() {
    let mut it = Fixture::new(3);
    it.model.attach_eeprom(SDA, SCL);
    assert!(it.model.eeprom().unwrap().program(0, &[0]));
    assert!(it.start_reading());
    it.clock(true);
    assert_eq!(it.level(SDA), Some(0));

    it.model.forget(&mut it.effects);
    it.model.reset_bus(&mut it.effects);
    assert_eq!(it.level(SDA), Some(1));
    assert!(it.start_reading());
}
