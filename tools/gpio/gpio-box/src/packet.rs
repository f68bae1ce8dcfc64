// SPDX-License-Identifier: GPL-2.0-only

//! The header of a virtio-vsock packet.

pub const HEADER: usize = 44;

/// The address of the host.
pub const HOST_CID: u64 = 2;
/// The address of the guest.
pub const GUEST_CID: u64 = 3;

const STREAM: u16 = 1;

/// What a packet asks for.
pub mod op {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const RW: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

/// Flags of `SHUTDOWN`.
pub const SHUTDOWN_RECEIVE: u32 = 1;
pub const SHUTDOWN_SEND: u32 = 2;

/// A connection: the port of the guest and the port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    pub guest: u32,
    pub host: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub ports: Ports,
    pub len: u32,
    pub op: u16,
    pub flags: u32,
    /// The size of the sender's buffer.
    pub buf_alloc: u32,
    /// How many bytes the sender has taken out of its buffer, ever.
    pub fwd_cnt: u32,
}

impl Header {
    /// Reads a packet of the guest. `None` if it is not for a stream of the host.
    pub fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let half = |at| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at| u32::from(half(at)) | (u32::from(half(at + 2)) << 16);
        let long = |at| u64::from(word(at)) | (u64::from(word(at + 4)) << 32);
        let known = long(0) == GUEST_CID && long(8) == HOST_CID && half(28) == STREAM;
        known.then(|| Self {
            ports: Ports {
                guest: word(16),
                host: word(20),
            },
            len: word(24),
            op: half(30),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
        })
    }

    /// Writes a packet of the host.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &HOST_CID.to_le_bytes());
        put(8, &GUEST_CID.to_le_bytes());
        put(16, &self.ports.host.to_le_bytes());
        put(20, &self.ports.guest.to_le_bytes());
        put(24, &self.len.to_le_bytes());
        put(28, &STREAM.to_le_bytes());
        put(30, &self.op.to_le_bytes());
        put(32, &self.flags.to_le_bytes());
        put(36, &self.buf_alloc.to_le_bytes());
        put(40, &self.fwd_cnt.to_le_bytes());
        bytes
    }
}
