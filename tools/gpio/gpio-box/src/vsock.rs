// SPDX-License-Identifier: GPL-2.0-only

//! A vhost-user socket device: what the guest connects to are Unix streams of this process.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use rustix::event::epoll;
use vhost::vhost_user::{Listener, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringMutex, VringState, VringT};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use crate::connection::{Connection, Reset};
use crate::packet::{op, Header, Ports, GUEST_CID, HEADER};

pub const VIRTIO_ID: u32 = 19;

const TO_GUEST: usize = 0;
const FROM_GUEST: usize = 1;
const QUEUES: usize = 3;
/// The event of the streams; those below are of the rings, and one is the library's.
const STREAMS: u16 = QUEUES as u16 + 1;

/// The most data in a packet.
const PAYLOAD: usize = 64 << 10;
/// Packets of the guest have to wait while so many replies do.
const REPLIES: usize = 1024;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// Connects to a port of the host.
pub type Connect = Box<dyn FnMut(u32) -> Option<UnixStream> + Send + Sync>;

struct Device {
    mem: Memory,
    connect: Connect,
    connections: BTreeMap<Ports, Connection>,
    /// The one that was read last.
    last: Option<Ports>,
    replies: VecDeque<Header>,
    /// Watches the streams of all connections.
    epoll: Arc<OwnedFd>,
}

/// Serves the one guest that connects to `listener`, until it disconnects.
pub fn serve(listener: UnixListener, connect: Connect) -> Result<(), vhost_user_backend::Error> {
    let mem = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let failed = |e: io::Error| vhost_user_backend::Error::StartDaemon(e);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let epoll = Arc::new(epoll);
    let device = Arc::new(Mutex::new(Device {
        mem: mem.clone(),
        connect,
        connections: BTreeMap::new(),
        last: None,
        replies: VecDeque::new(),
        epoll: epoll.clone(),
    }));
    let mut daemon = VhostUserDaemon::new("vsock".into(), device, mem)?;
    for handler in daemon.get_epoll_handlers() {
        handler
            .register_listener(epoll.as_raw_fd(), EventSet::IN, STREAMS.into())
            .map_err(failed)?;
    }
    daemon.start(&mut Listener::from(listener))?;
    daemon.wait()
}

impl Device {
    /// Takes the packets of the guest.
    fn receive(&mut self, ring: &VringMutex<Memory>) -> io::Result<()> {
        let mem = self.mem.memory();
        let mut taken = false;
        while self.replies.len() < REPLIES {
            let mut state = ring.get_mut();
            let Some(chain) = pop(&mut state, &mem) else {
                break;
            };
            let head = chain.head_index();
            let mut header = [0; HEADER];
            if let Ok(mut reader) = chain.reader(&*mem) {
                if reader.read_exact(&mut header).is_ok() {
                    if let Some(header) = Header::decode(&header) {
                        let mut payload = vec![0; (header.len as usize).min(PAYLOAD)];
                        if reader.read_exact(&mut payload).is_ok() {
                            self.handle(&header, &payload);
                        }
                    }
                }
            }
            state.add_used(head, 0).map_err(io::Error::other)?;
            taken = true;
        }
        if taken {
            ring.signal_used_queue()?;
        }
        Ok(())
    }

    fn handle(&mut self, header: &Header, payload: &[u8]) {
        let ports = header.ports;
        match (header.op, self.connections.get_mut(&ports)) {
            (op::REQUEST, None) => match self.open(header) {
                Some(reply) => self.replies.push_back(reply),
                None => self.replies.push_back(reset(ports)),
            },
            (op::RST, _) => drop(self.connections.remove(&ports)),
            (_, None) => self.replies.push_back(reset(ports)),
            (_, Some(connection)) => {
                let reply = connection.handle(header, payload);
                self.reply(ports, reply);
            }
        }
    }

    /// Connects the guest to a port of the host.
    fn open(&mut self, request: &Header) -> Option<Header> {
        let stream = (self.connect)(request.ports.host)?;
        stream.set_nonblocking(true).ok()?;
        // A write or a read tells when there is no more to do, so that only changes matter.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let key = (u64::from(request.ports.guest) << 32) | u64::from(request.ports.host);
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(key), flags).ok()?;
        let mut connection = Connection::new(request, stream);
        let reply = connection.header(op::RESPONSE, 0, 0);
        self.connections.insert(request.ports, connection);
        Some(reply)
    }

    fn reply(&mut self, ports: Ports, reply: Result<Option<Header>, Reset>) {
        match reply {
            Ok(reply) => self.replies.extend(reply),
            Err(Reset) => {
                self.connections.remove(&ports);
                self.replies.push_back(reset(ports));
            }
        }
    }

    /// Looks which streams can be read or written again.
    fn wake(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        let now = rustix::event::Timespec::default();
        epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&now),
        )?;
        for event in events {
            let key = event.data.u64();
            let ports = Ports {
                guest: (key >> 32) as u32,
                host: key as u32,
            };
            if let Some(connection) = self.connections.get_mut(&ports) {
                connection.wake();
                let reply = connection.flush();
                self.reply(ports, reply);
            }
        }
        Ok(())
    }

    /// Sends the guest replies, and what the streams have for it.
    fn send(&mut self, ring: &VringMutex<Memory>) -> io::Result<()> {
        let mem = self.mem.memory();
        let mut buffer = vec![0; PAYLOAD];
        let mut sent = false;
        loop {
            let mut state = ring.get_mut();
            let Some(chain) = pop(&mut state, &mem) else {
                break;
            };
            let head = chain.head_index();
            let Ok(mut writer) = chain.writer(&*mem) else {
                state.add_used(head, 0).map_err(io::Error::other)?;
                continue;
            };
            let room = writer.available_bytes().saturating_sub(HEADER);
            let Some(header) = self.next(&mut buffer[..room.min(PAYLOAD)]) else {
                // Nothing to send: the guest's buffer is for later.
                state.get_queue_mut().go_to_previous_position();
                break;
            };
            writer.write_all(&header.encode())?;
            writer.write_all(&buffer[..header.len as usize])?;
            let written = writer.bytes_written() as u32;
            state.add_used(head, written).map_err(io::Error::other)?;
            sent = true;
        }
        if sent {
            ring.signal_used_queue()?;
        }
        Ok(())
    }

    /// The next packet to the guest, with its payload in `buffer`. The connections take turns.
    fn next(&mut self, buffer: &mut [u8]) -> Option<Header> {
        if let Some(header) = self.replies.pop_front() {
            return Some(header);
        }
        let turns = self.connections.len();
        for _ in 0..turns {
            let after = self.last.and_then(|last| {
                use std::ops::Bound::{Excluded, Unbounded};
                let mut rest = self.connections.range((Excluded(last), Unbounded));
                rest.next().map(|(ports, _)| *ports)
            });
            let ports = after.or_else(|| self.connections.keys().next().copied())?;
            self.last = Some(ports);
            if let Some(header) = self.connections.get_mut(&ports)?.read(buffer) {
                return Some(header);
            }
        }
        None
    }
}

fn reset(ports: Ports) -> Header {
    Header {
        ports,
        len: 0,
        op: op::RST,
        flags: 0,
        buf_alloc: 0,
        fwd_cnt: 0,
    }
}

type Guard = <Memory as GuestAddressSpace>::T;
type Chain<'a> = virtio_queue::DescriptorChain<&'a GuestMemoryMmap>;

/// Takes a chain of buffers from a ring that runs.
fn pop<'a>(state: &mut VringState<Memory>, mem: &'a Guard) -> Option<Chain<'a>> {
    let queue = state.get_queue_mut();
    if !queue.ready() {
        return None;
    }
    queue.iter(&**mem).ok()?.next()
}

impl VhostUserBackendMut for Device {
    type Bitmap = ();
    type Vring = VringMutex<Memory>;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        256
    }

    fn features(&self) -> u64 {
        (1 << VIRTIO_F_VERSION_1) | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&mut self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = GUEST_CID.to_le_bytes().into_iter();
        let beyond = config.chain(std::iter::repeat(0));
        beyond.skip(offset as usize).take(size as usize).collect()
    }

    fn update_memory(&mut self, _mem: Memory) -> io::Result<()> {
        Ok(())
    }

    fn handle_event(
        &mut self,
        event: u16,
        _events: EventSet,
        rings: &[Self::Vring],
        _thread: usize,
    ) -> io::Result<()> {
        if event == STREAMS {
            self.wake()?;
        }
        self.receive(&rings[FROM_GUEST])?;
        self.send(&rings[TO_GUEST])
    }
}
