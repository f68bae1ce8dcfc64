// SPDX-License-Identifier: GPL-2.0-only

//! An EEPROM on an I2C bus, a 24C02, as a state machine without any I/O.
//!
//! It sees the levels of the bus and pulls SDA low or releases it. It does so only while SCL is low,
//! so that what it does is no start or stop condition.

/// The address on the bus, 7 bits.
const ADDRESS: u8 = 0x50;
/// Bytes of a page, within which the address of a write wraps around.
const PAGE: u8 = 8;

/// What the next byte of a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Of no interest, until the next start condition.
    #[default]
    Idle,
    /// The address on the bus, and the direction.
    Address,
    /// The address in memory.
    Pointer,
    /// Data from the controller.
    Write,
    /// Data for the controller.
    Read,
}

/// A transfer, from the start condition on.
#[derive(Debug, Default)]
struct Transfer {
    phase: Phase,
    /// Rising edges of SCL in this byte; the ninth is that of the acknowledgement.
    clocks: u8,
    /// The byte as far as it has been received, or what is left to be sent of it.
    byte: u8,
}

/// The EEPROM.
#[derive(Debug)]
pub struct Eeprom {
    memory: [u8; 256],
    /// The address in memory that is next.
    pointer: u8,
    transfer: Transfer,
    scl: bool,
    sda: bool,
    /// Whether SDA is released, as opposed to pulled low.
    released: bool,
}

impl Default for Eeprom {
    /// An erased one, on a bus that is idle.
    fn default() -> Self {
        Self {
            memory: [0xff; 256],
            pointer: 0,
            transfer: Transfer::default(),
            scl: true,
            sda: true,
            released: true,
        }
    }
}

impl Eeprom {
    pub fn memory(&self) -> &[u8] {
        &self.memory
    }

    /// Sets the content from `start` on. Returns whether it has room for all of `bytes`.
    #[must_use]
    pub fn program(&mut self, start: usize, bytes: &[u8]) -> bool {
        let end = start.saturating_add(bytes.len());
        let Some(part) = self.memory.get_mut(start..end) else {
            return false;
        };
        part.copy_from_slice(bytes);
        true
    }

    /// Loses power: all but the content is forgotten.
    pub fn reset(&mut self) {
        *self = Self {
            memory: self.memory,
            ..Self::default()
        };
    }

    /// Takes the levels of the bus after a change. Returns whether SDA is to be released.
    pub fn sense(&mut self, scl: bool, sda: bool) -> bool {
        let before = (self.scl, self.sda);
        (self.scl, self.sda) = (scl, sda);
        match (before, (scl, sda)) {
            ((true, true), (true, false)) => self.begin(Phase::Address),
            ((true, false), (true, true)) => self.begin(Phase::Idle),
            ((false, _), (true, _)) => self.rising(sda),
            ((true, _), (false, _)) => self.falling(),
            _ => (),
        }
        self.released
    }

    fn begin(&mut self, phase: Phase) {
        self.transfer = Transfer {
            phase,
            ..Transfer::default()
        };
        self.released = true;
    }

    /// A bit is valid.
    fn rising(&mut self, sda: bool) {
        let it = &mut self.transfer;
        it.clocks += 1;
        match it.phase {
            Phase::Idle => it.clocks = 0,
            // The controller does not want more.
            Phase::Read if it.clocks == 9 && sda => self.begin(Phase::Idle),
            Phase::Read => (),
            _ if it.clocks < 9 => it.byte = (it.byte << 1) | u8::from(sda),
            _ => (),
        }
    }

    /// The next bit may be put on the bus.
    fn falling(&mut self) {
        let reads = self.transfer.phase == Phase::Read;
        match self.transfer.clocks {
            // The controller acknowledges what it reads, and we what it writes.
            8 => self.released = reads || !self.take(),
            clocks => {
                if clocks == 9 {
                    self.transfer.clocks = 0;
                    if reads {
                        self.transfer.byte = self.memory[usize::from(self.pointer)];
                        self.pointer = self.pointer.wrapping_add(1);
                    }
                }
                self.released = true;
                if reads {
                    self.released = self.transfer.byte & 0x80 != 0;
                    self.transfer.byte <<= 1;
                }
            }
        }
    }

    /// Takes a byte from the controller. Returns whether to acknowledge it.
    fn take(&mut self) -> bool {
        let it = &mut self.transfer;
        match it.phase {
            Phase::Address if it.byte >> 1 != ADDRESS => {
                self.begin(Phase::Idle);
                return false;
            }
            Phase::Address if it.byte & 1 == 1 => it.phase = Phase::Read,
            Phase::Address => it.phase = Phase::Pointer,
            Phase::Pointer => {
                self.pointer = it.byte;
                it.phase = Phase::Write;
            }
            Phase::Write => {
                self.memory[usize::from(self.pointer)] = it.byte;
                let next = self.pointer.wrapping_add(1);
                self.pointer = (self.pointer & !(PAGE - 1)) | (next & (PAGE - 1));
            }
            Phase::Idle | Phase::Read => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: u8 = ADDRESS << 1;
    const READ: u8 = WRITE | 1;

    /// A controller, which drives the bus as i2c-gpio does.
    struct Controller {
        target: Eeprom,
        scl: bool,
        sda: bool,
        /// What the target has made of its end of SDA.
        released: bool,
    }

    impl Controller {
        fn new() -> Self {
            Self {
                target: Eeprom::default(),
                scl: true,
                sda: true,
                released: true,
            }
        }

        /// What both have made of SDA.
        fn level(&self) -> bool {
            self.sda && self.released
        }

        fn changed(&mut self) {
            let before = self.level();
            self.released = self.target.sense(self.scl, before);
            if self.level() != before {
                assert!(!self.scl, "SDA changes while SCL is high");
                assert_eq!(self.target.sense(self.scl, self.level()), self.released);
            }
        }

        fn scl(&mut self, level: bool) {
            self.scl = level;
            self.changed();
        }

        fn sda(&mut self, level: bool) {
            self.sda = level;
            self.changed();
        }

        fn start(&mut self) {
            self.sda(true);
            self.scl(true);
            self.sda(false);
            self.scl(false);
        }

        fn stop(&mut self) {
            self.sda(false);
            self.scl(true);
            self.sda(true);
        }

        fn bit(&mut self, bit: bool) -> bool {
            self.sda(bit);
            self.scl(true);
            let level = self.level();
            self.scl(false);
            level
        }

        /// Returns whether the byte was acknowledged.
        fn write(&mut self, byte: u8) -> bool {
            for n in (0..8).rev() {
                self.bit((byte >> n) & 1 == 1);
            }
            !self.bit(true)
        }

        fn read(&mut self, more: bool) -> u8 {
            let byte = (0..8).fold(0, |byte, _| (byte << 1) | u8::from(self.bit(true)));
            self.bit(!more);
            byte
        }

        fn write_all(&mut self, bytes: &[u8]) {
            self.start();
            for &byte in bytes {
                assert!(self.write(byte), "{byte:#x}");
            }
            self.stop();
        }

        /// Reads from an address in memory.
        fn read_from(&mut self, start: u8, count: usize) -> Vec<u8> {
            self.start();
            assert!(self.write(WRITE) && self.write(start));
            self.start();
            let bytes = self.read_on(count);
            self.stop();
            bytes
        }

        fn read_on(&mut self, count: usize) -> Vec<u8> {
            assert!(self.write(READ));
            (1..=count).map(|n| self.read(n < count)).collect()
        }
    }

    #[test]
    fn reads_what_was_programmed() {
        let mut it = Controller::new();
        assert!(it.target.program(0x10, b"\x00\x55\xaa\xff"));
        assert_eq!(it.read_from(0x0f, 6), b"\xff\x00\x55\xaa\xff\xff");
    }

    #[test]
    fn reads_on_after_a_stop() {
        let mut it = Controller::new();
        assert!(it.target.program(254, b"yz"));
        assert!(it.target.program(0, b"a"));
        assert_eq!(it.read_from(254, 1), b"y");
        it.start();
        assert_eq!(it.read_on(2), b"za");
    }

    #[test]
    fn writes_are_kept() {
        let mut it = Controller::new();
        it.write_all(&[WRITE, 0x20, 1, 2, 0x80]);
        assert_eq!(it.target.memory()[0x1f..0x24], [0xff, 1, 2, 0x80, 0xff]);
        assert_eq!(it.read_from(0x20, 3), [1, 2, 0x80]);
    }

    #[test]
    fn writes_wrap_within_a_page() {
        let mut it = Controller::new();
        it.write_all(&[WRITE, 0xfe, 1, 2, 3]);
        assert_eq!(it.target.memory()[0xf8], 3);
        assert_eq!(it.target.memory()[0xfe..], [1, 2]);
        assert_eq!(it.target.memory()[0], 0xff);
    }

    #[test]
    fn other_addresses_are_not_answered() {
        let mut it = Controller::new();
        for address in (0..128).filter(|it| *it != ADDRESS) {
            it.start();
            assert!(!it.write(address << 1), "{address:#x}");
            assert!(!it.write(0));
            it.stop();
        }
        assert_eq!(it.read_from(0, 1), [0xff]);
    }

    #[test]
    fn nothing_is_answered_before_a_start() {
        let mut it = Controller::new();
        it.scl(false);
        assert!(!it.write(WRITE));
        it.stop();
        assert!(!it.write(WRITE));
    }

    #[test]
    fn a_start_ends_a_byte() {
        let mut it = Controller::new();
        it.start();
        for bit in [true, false, true] {
            it.bit(bit);
        }
        assert_eq!(it.read_from(0, 1), [0xff]);
    }

    #[test]
    fn a_transfer_that_is_cut_is_forgotten_in_a_reset() {
        let mut it = Controller::new();
        assert!(it.target.program(0, &[0]));
        it.read_from(255, 1);
        it.start();
        assert!(it.write(READ));
        it.bit(true);
        assert!(!it.released);
        it.target.reset();
        (it.scl, it.sda, it.released) = (true, true, true);
        assert_eq!(it.read_from(0, 1), [0]);
    }

    #[test]
    fn programs_no_more_than_there_is() {
        let mut it = Eeprom::default();
        assert!(it.program(255, &[1]) && it.program(256, &[]));
        assert!(!it.program(255, &[1, 2]));
        assert!(!it.program(usize::MAX, &[1]));
        assert_eq!(it.memory()[254..], [0xff, 1]);
    }
}
