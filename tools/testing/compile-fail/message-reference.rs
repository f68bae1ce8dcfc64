// SPDX-License-Identifier: GPL-2.0

//! References to memory that the device may write.

use kernel::virtio::{
    Message,
    Payload, //
};

/// Copies, which is what there is.
pub fn copy(message: &Message<u8, [u8; 4]>, payload: &Payload, to: &mut [u8]) -> [u8; 4] {
    payload.read(0, to);
    message.response()
}

/// The response.
pub fn response(message: &Message<u8, [u8; 4]>) -> &[u8; 4] {
    message.response() //~ E0308
}

/// The message, as what is in it.
pub fn deref(message: &Message<u8, [u8; 4]>) -> &[u8; 4] {
    message //~ E0308
}

/// The payload.
pub fn payload(payload: &Payload) -> &[u8] {
    payload //~ E0308
}
