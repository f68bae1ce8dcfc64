// SPDX-License-Identifier: GPL-2.0-only

//! One stream between the guest and the host, with the credit of both sides.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use crate::packet::{op, Header, Ports, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// How many bytes of the guest are held here while the host does not take them.
const BUFFER: u32 = 256 << 10;

/// The end of a connection: it has to be reset.
#[derive(Debug)]
pub struct Reset;

pub struct Connection {
    ports: Ports,
    stream: UnixStream,
    /// Bytes of the guest for which the stream had no room.
    pending: VecDeque<u8>,
    /// Bytes that the stream has taken, ever, and how many of them the guest knows of.
    taken: u32,
    told: u32,
    /// Bytes sent to the guest, ever.
    sent: u32,
    guest_buffer: u32,
    guest_taken: u32,
    /// Whether the stream may have more to read.
    readable: bool,
    /// Whether the stream has ended, and the guest was told.
    ended: bool,
    /// What the guest has shut down.
    shut: u32,
}

impl Connection {
    /// A connection that the guest has requested. `stream` does not block.
    pub fn new(request: &Header, stream: UnixStream) -> Self {
        Self {
            ports: request.ports,
            stream,
            pending: VecDeque::new(),
            taken: 0,
            told: 0,
            sent: 0,
            guest_buffer: request.buf_alloc,
            guest_taken: request.fwd_cnt,
            readable: true,
            ended: false,
            shut: 0,
        }
    }

    /// A packet to the guest, which tells it what room there is.
    pub fn header(&mut self, op: u16, len: u32, flags: u32) -> Header {
        self.told = self.taken;
        Header {
            ports: self.ports,
            len,
            op,
            flags,
            buf_alloc: BUFFER,
            fwd_cnt: self.taken,
        }
    }

    /// Takes in a packet of the guest, and returns the reply to it.
    pub fn handle(&mut self, header: &Header, payload: &[u8]) -> Result<Option<Header>, Reset> {
        self.guest_buffer = header.buf_alloc;
        self.guest_taken = header.fwd_cnt;
        match header.op {
            op::RW => {
                if self.pending.len() + payload.len() > BUFFER as usize {
                    // More than the guest was told that there is room for.
                    return Err(Reset);
                }
                self.pending.extend(payload);
                self.flush()
            }
            op::CREDIT_UPDATE => Ok(None),
            op::CREDIT_REQUEST => Ok(Some(self.header(op::CREDIT_UPDATE, 0, 0))),
            op::SHUTDOWN => {
                self.shut |= header.flags;
                self.flush()
            }
            _ => Err(Reset),
        }
    }

    /// Writes what is pending, as far as the stream has room, and returns the packet that tells the
    /// guest of new room.
    pub fn flush(&mut self) -> Result<Option<Header>, Reset> {
        while !self.pending.is_empty() {
            match self.stream.write(self.pending.as_slices().0) {
                Ok(count) => {
                    self.pending.drain(..count);
                    self.taken = self.taken.wrapping_add(count as u32);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Reset),
            }
        }
        if self.pending.is_empty() && self.shut & SHUTDOWN_SEND != 0 {
            if self.shut & SHUTDOWN_RECEIVE != 0 {
                // The guest has closed it, and waits for this.
                return Err(Reset);
            }
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        let untold = self.taken.wrapping_sub(self.told);
        Ok((untold >= BUFFER / 4).then(|| self.header(op::CREDIT_UPDATE, 0, 0)))
    }

    /// Takes note that the stream can be read again, as far as is known.
    pub fn wake(&mut self) {
        self.readable = !self.ended && self.shut & SHUTDOWN_RECEIVE == 0;
    }

    /// Reads into `buffer` what the guest has room for, and returns the packet that goes with it.
    pub fn read(&mut self, buffer: &mut [u8]) -> Option<Header> {
        if !self.readable {
            return None;
        }
        let in_flight = self.sent.wrapping_sub(self.guest_taken);
        let room = self.guest_buffer.saturating_sub(in_flight) as usize;
        let room = room.min(buffer.len());
        if room == 0 {
            return None;
        }
        match self.stream.read(&mut buffer[..room]) {
            Ok(count) if count > 0 => {
                self.sent = self.sent.wrapping_add(count as u32);
                Some(self.header(op::RW, count as u32, 0))
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => self.read(buffer),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                None
            }
            Ok(_) | Err(_) => {
                self.readable = false;
                self.ended = true;
                Some(self.header(op::SHUTDOWN, 0, SHUTDOWN_SEND))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of a guest that has room for 100 bytes.
    fn packet(op: u16, flags: u32, taken: u32) -> Header {
        Header {
            ports: Ports { guest: 1, host: 2 },
            len: 0,
            op,
            flags,
            buf_alloc: 100,
            fwd_cnt: taken,
        }
    }

    fn connection() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Connection::new(&packet(op::REQUEST, 0, 0), theirs), ours)
    }

    #[test]
    fn no_more_is_sent_than_the_guest_has_room_for() {
        let (mut connection, mut stream) = connection();
        let mut buffer = [0; 1000];
        stream.write_all(&[7; 150]).unwrap();
        assert_eq!(connection.read(&mut buffer).unwrap().len, 100);
        assert_eq!(connection.read(&mut buffer), None);
        let told = connection.handle(&packet(op::CREDIT_UPDATE, 0, 60), &[]);
        assert_eq!(told.unwrap(), None);
        assert_eq!(connection.read(&mut buffer).unwrap().len, 50);
        assert_eq!(connection.read(&mut buffer), None);
    }

    #[test]
    fn the_end_of_the_stream_is_told_once() {
        let (mut connection, mut stream) = connection();
        let mut buffer = [0; 1000];
        stream.write_all(b"last").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(connection.read(&mut buffer).unwrap().len, 4);
        let end = connection.read(&mut buffer).unwrap();
        assert_eq!((end.op, end.flags), (op::SHUTDOWN, SHUTDOWN_SEND));
        connection.wake();
        assert_eq!(connection.read(&mut buffer), None);
    }

    #[test]
    fn what_the_stream_does_not_take_is_kept_within_the_credit() {
        let (mut connection, mut stream) = connection();
        let half = vec![7; BUFFER as usize / 2];
        let mut total = 0;
        // The stream has a buffer of its own.
        let refused = (0..100).find(|_| {
            let reply = connection.handle(&packet(op::RW, 0, 0), &half);
            total += half.len();
            reply.is_err()
        });
        assert!(refused.is_some());
        total -= half.len();
        let mut received = vec![0; total];
        stream.set_nonblocking(true).unwrap();
        let mut got = 0;
        let mut told = 0;
        while got < total {
            got += stream.read(&mut received[got..]).unwrap();
            if let Some(update) = connection.flush().unwrap() {
                assert_eq!(update.op, op::CREDIT_UPDATE);
                told = update.fwd_cnt;
            }
        }
        assert!(total as u32 - told < BUFFER / 4);
        assert!(received.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_closed_connection_is_reset_when_all_is_written() {
        let (mut connection, mut stream) = connection();
        connection.handle(&packet(op::RW, 0, 0), b"last").unwrap();
        let both = SHUTDOWN_SEND | SHUTDOWN_RECEIVE;
        connection
            .handle(&packet(op::SHUTDOWN, both, 0), &[])
            .unwrap_err();
        drop(connection);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "last");
    }
}
