// SPDX-License-Identifier: GPL-2.0-only

//! The byte layout of the virtio GPIO device: messages, events and config space.
//!
//! Multi-byte fields are little-endian. Nothing here knows about queues or lines' state.

/// Feature bit: the device has an event queue and supports interrupts.
pub const F_IRQ: u32 = 0;

/// Index of the queue that carries requests.
pub const REQUEST_QUEUE: usize = 0;
/// Index of the queue that carries interrupt buffers.
pub const EVENT_QUEUE: usize = 1;

/// Response status: the message was carried out.
pub const STATUS_OK: u8 = 0;
/// Response status: the message was refused.
pub const STATUS_ERR: u8 = 1;

/// Event status: the buffer is handed back without an interrupt.
pub const EVENT_INVALID: u8 = 0;
/// Event status: the line's interrupt fired.
pub const EVENT_VALID: u8 = 1;

/// Bytes of a request on the request queue.
pub const REQUEST_SIZE: usize = 8;
/// Bytes of every response but that to `GET_LINE_NAMES`.
pub const RESPONSE_SIZE: usize = 2;
/// Bytes of a request on the event queue.
pub const EVENT_REQUEST_SIZE: usize = 2;
/// Bytes of a response on the event queue.
pub const EVENT_RESPONSE_SIZE: usize = 1;
/// Bytes of the device's config space.
pub const CONFIG_SIZE: usize = 8;

/// The type of a request, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    GetLineNames,
    GetDirection,
    SetDirection,
    GetValue,
    SetValue,
    SetIrqType,
}

impl Message {
    /// Decodes a message number.
    pub fn from_wire(raw: u16) -> Option<Self> {
        Some(match raw {
            1 => Self::GetLineNames,
            2 => Self::GetDirection,
            3 => Self::SetDirection,
            4 => Self::GetValue,
            5 => Self::SetValue,
            6 => Self::SetIrqType,
            _ => return None,
        })
    }
}

/// A request as it stands in guest memory; any field may be nonsense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub kind: u16,
    pub line: u16,
    pub value: u32,
}

impl Request {
    /// Decodes a request.
    pub fn from_bytes(raw: [u8; REQUEST_SIZE]) -> Self {
        Self {
            kind: u16::from_le_bytes([raw[0], raw[1]]),
            line: u16::from_le_bytes([raw[2], raw[3]]),
            value: u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]),
        }
    }

    /// Encodes a request.
    pub fn to_bytes(self) -> [u8; REQUEST_SIZE] {
        let [k0, k1] = self.kind.to_le_bytes();
        let [l0, l1] = self.line.to_le_bytes();
        let [v0, v1, v2, v3] = self.value.to_le_bytes();
        [k0, k1, l0, l1, v0, v1, v2, v3]
    }
}

/// Encodes the config space.
pub fn config(lines: u16, names_size: u32) -> [u8; CONFIG_SIZE] {
    let [n0, n1] = lines.to_le_bytes();
    let [s0, s1, s2, s3] = names_size.to_le_bytes();
    [n0, n1, 0, 0, s0, s1, s2, s3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_round_trip_is_little_endian() {
        let raw = [0x06, 0x00, 0x34, 0x12, 0x78, 0x56, 0x34, 0x12];
        let request = Request::from_bytes(raw);
        assert_eq!(
            request,
            Request {
                kind: 6,
                line: 0x1234,
                value: 0x1234_5678
            }
        );
        assert_eq!(request.to_bytes(), raw);
    }

    #[test]
    fn message_numbers() {
        assert_eq!(Message::from_wire(0), None);
        assert_eq!(Message::from_wire(1), Some(Message::GetLineNames));
        assert_eq!(Message::from_wire(6), Some(Message::SetIrqType));
        assert_eq!(Message::from_wire(7), None);
    }

    #[test]
    fn config_has_zero_padding() {
        assert_eq!(
            config(0x0201, 0x0605_0403),
            [1, 2, 0, 0, 3, 4, 5, 6],
            "ngpio, padding, gpio_names_size"
        );
    }
}
