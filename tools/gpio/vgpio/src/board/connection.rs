// SPDX-License-Identifier: GPL-2.0-only

//! One connection of a browser: a request and its response, or a page that exchanges messages.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::sockopt::set_socket_send_buffer_size;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, Utf8Bytes, WebSocket};

use super::http::{self, Answer, LONGEST_HEAD};
use super::message::{self, Order, Seen};

/// How long a request or a response may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a page may take to read a message.
const PAGE_PATIENCE: Duration = Duration::from_secs(30);
/// Messages of one page in a turn.
const MESSAGES: usize = 32;
/// Bytes that the kernel keeps for a page that does not read.
const SEND_BUFFER: usize = 64 << 10;
/// More than the longest message: some hundred lines with their edges, and names.
const LARGEST_BUFFER: usize = 4 << 20;

/// A connection of a browser.
pub enum Connection {
    /// A request comes in.
    Request {
        stream: TcpStream,
        head: Vec<u8>,
        until: Instant,
    },
    /// A response goes out; at its end the connection is closed.
    Response {
        stream: TcpStream,
        bytes: Vec<u8>,
        sent: usize,
        until: Instant,
    },
    Page(Box<Page>),
}

/// The device and the number of a line.
pub type Line = (String, u16);

/// A page that exchanges messages.
pub struct Page {
    socket: WebSocket<TcpStream>,
    pub seen: Option<Seen>,
    /// A message has to be read by then.
    unread: Option<Instant>,
    /// There may be messages that have been read from the connection, where poll sees none.
    more: bool,
    /// Buttons that are held, with the levels that they return to.
    pub held: BTreeMap<Line, bool>,
}

/// What `advance` leaves.
pub enum Next {
    Open(Connection),
    Closed,
    /// With these buttons held.
    PageClosed(BTreeMap<Line, bool>),
}

impl Connection {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        // What a page has not read is old when it reads.
        set_socket_send_buffer_size(&stream, SEND_BUFFER)?;
        Ok(Self::Request {
            stream,
            head: Vec::new(),
            until: Instant::now() + PATIENCE,
        })
    }

    pub fn stream(&self) -> &TcpStream {
        match self {
            Self::Request { stream, .. } | Self::Response { stream, .. } => stream,
            Self::Page(page) => page.socket.get_ref(),
        }
    }

    /// What to wait for.
    pub fn interest(&self) -> PollFlags {
        match self {
            Self::Response { bytes, sent, .. } if *sent < bytes.len() => PollFlags::OUT,
            Self::Page(page) if page.unread.is_some() => PollFlags::IN | PollFlags::OUT,
            _ => PollFlags::IN,
        }
    }

    /// When to advance, whatever comes.
    pub fn until(&self) -> Option<Instant> {
        match self {
            Self::Request { until, .. } | Self::Response { until, .. } => Some(*until),
            Self::Page(page) if page.more => Some(Instant::now()),
            Self::Page(page) => page.unread,
        }
    }

    /// Does what can be done without waiting. Orders of a page go to `obey`; `full` means that
    /// there is no room for another page.
    pub fn advance(self, token: &str, full: bool, obey: &mut dyn FnMut(&mut Page, Order)) -> Next {
        let late = self.until().is_some_and(|it| it < Instant::now());
        let next = match self {
            Self::Request { .. } | Self::Response { .. } if late => Ok(None),
            Self::Request {
                stream,
                head,
                until,
            } => read_request(stream, head, until, token, full).map(Some),
            Self::Response {
                stream,
                bytes,
                sent,
                until,
            } => respond(stream, bytes, sent, until),
            Self::Page(mut page) => {
                return if page.advance(obey) {
                    Next::Open(Self::Page(page))
                } else {
                    Next::PageClosed(page.held)
                };
            }
        };
        match next {
            Ok(Some(next)) => Next::Open(next),
            Ok(None) | Err(_) => Next::Closed,
        }
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Reads what has come; `None` if nothing has.
fn read(mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match stream.read(buffer) {
        Ok(count) => Ok(Some(count)),
        Err(e) if would_block(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn read_request(
    mut stream: TcpStream,
    mut head: Vec<u8>,
    until: Instant,
    token: &str,
    full: bool,
) -> io::Result<Connection> {
    let mut buffer = [0; LONGEST_HEAD];
    match read(&stream, &mut buffer)? {
        None => {}
        Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
        Some(count) => head.extend_from_slice(&buffer[..count]),
    }
    let bytes = match http::answer(&head, token) {
        Answer::Wait => {
            return Ok(Connection::Request {
                stream,
                head,
                until,
            })
        }
        Answer::Response(bytes) => bytes,
        Answer::Messages(..) if full => http::refusal("503 Service Unavailable"),
        Answer::Messages(bytes, length) => {
            // A new connection has room for this.
            stream.write_all(&bytes)?;
            let config = WebSocketConfig::default()
                .read_buffer_size(4 << 10)
                .write_buffer_size(0)
                .max_write_buffer_size(LARGEST_BUFFER)
                .max_message_size(Some(message::LONGEST))
                .max_frame_size(Some(message::LONGEST));
            let rest = head.split_off(length);
            let more = !rest.is_empty();
            let socket = WebSocket::from_partially_read(stream, rest, Role::Server, Some(config));
            return Ok(Connection::Page(Box::new(Page {
                socket,
                seen: None,
                unread: None,
                more,
                held: BTreeMap::new(),
            })));
        }
    };
    let until = Instant::now() + PATIENCE;
    Ok(Connection::Response {
        stream,
        bytes,
        sent: 0,
        until,
    })
}

/// Writes a response. Then reads until the browser closes the connection: if there were something
/// unread when we close it, the response could be lost.
fn respond(
    mut stream: TcpStream,
    bytes: Vec<u8>,
    mut sent: usize,
    until: Instant,
) -> io::Result<Option<Connection>> {
    if sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(e) if would_block(&e) => {}
            Err(e) => return Err(e),
        }
        if sent == bytes.len() {
            stream.shutdown(Shutdown::Write)?;
        }
    } else if read(&stream, &mut [0; LONGEST_HEAD])? == Some(0) {
        return Ok(None);
    }
    Ok(Some(Connection::Response {
        stream,
        bytes,
        sent,
        until,
    }))
}

impl Page {
    /// Whether it can take a message.
    pub fn is_ready(&self) -> bool {
        self.unread.is_none()
    }

    /// Sends a message. An error shows in the next turn.
    pub fn send(&mut self, text: Utf8Bytes) {
        self.unread = Some(Instant::now() + PAGE_PATIENCE);
        if self.socket.write(Message::Text(text)).is_ok() {
            self.flush();
        }
    }

    /// Returns whether the connection is good.
    fn flush(&mut self) -> bool {
        match self.socket.flush() {
            Ok(()) => {
                self.unread = None;
                true
            }
            Err(Error::Io(e)) => would_block(&e),
            Err(_) => false,
        }
    }

    /// Returns whether the page is still there.
    fn advance(&mut self, obey: &mut dyn FnMut(&mut Self, Order)) -> bool {
        if self.unread.is_some_and(|it| it < Instant::now()) || !self.flush() {
            return false;
        }
        self.more = false;
        for _ in 0..MESSAGES {
            match self.socket.read() {
                Ok(Message::Text(text)) => match serde_json::from_str(&text) {
                    Ok(order) => obey(self, order),
                    Err(_) => return false,
                },
                Ok(Message::Binary(_)) => return false,
                Ok(_) => {}
                Err(Error::Io(e)) => return would_block(&e),
                Err(_) => return false,
            }
        }
        self.more = true;
        true
    }
}
