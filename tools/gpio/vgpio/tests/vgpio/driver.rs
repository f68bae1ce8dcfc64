// SPDX-License-Identifier: GPL-2.0-only

//! The other side of the socket: a front end with guest memory, split rings and a small driver.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{fence, Ordering};
use std::time::{Duration, Instant};

use vgpio::wire::{Request, EVENT_QUEUE, F_IRQ, REQUEST_QUEUE};
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::{
    Frontend, VhostUserFrontend, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_AVAIL_F_NO_INTERRUPT,
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, VRING_USED_F_NO_NOTIFY,
};
use virtio_queue::desc::{split::Descriptor, RawDescriptor};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EventFd, EFD_NONBLOCK};

pub const PATIENCE: Duration = Duration::from_secs(5);

const MEMORY: u64 = 64 << 20;
/// Guest-physical; not zero, so that a mix-up with offsets shows.
const BASE: u64 = 0x10_0000;
/// Each ring has its own region for descriptors and the two rings.
const RING_STRIDE: u64 = 0x1_0000;
const BUFFERS: u64 = BASE + 2 * RING_STRIDE;

pub const PROTOCOL: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
pub const IRQ: u64 = 1 << F_IRQ;
pub const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
pub const INDIRECT: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// One part of a chain.
#[derive(Clone)]
pub enum Part {
    Read(Vec<u8>),
    Write(u32),
    /// As given, for chains that make no sense.
    Raw(Descriptor),
}

pub fn read(bytes: impl Into<Vec<u8>>) -> Part {
    Part::Read(bytes.into())
}

pub fn write(len: u32) -> Part {
    Part::Write(len)
}

/// A chain that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    pub head: u16,
    pub len: u32,
    /// All of the writable memory, whatever the length says.
    pub bytes: Vec<u8>,
}

/// What a guest writes into memory before the device does, to see what the device left alone.
pub const UNTOUCHED: u8 = 0xee;

/// A chain that is at the device.
struct Chain {
    descriptors: Vec<u16>,
    writable: Vec<(u64, u32)>,
}

/// A split ring, driver side.
pub struct Ring {
    size: u16,
    base: u64,
    kick: EventFd,
    call: EventFd,
    free: Vec<u16>,
    avail: u16,
    used: u16,
    /// Chains at the device, by head.
    out: HashMap<u16, Chain>,
    next_buffer: u64,
    limit: u64,
}

/// A guest: one connection to a daemon.
pub struct Guest {
    pub frontend: Frontend,
    pub mem: GuestMemoryMmap,
    pub rings: [Ring; 2],
    pub features: u64,
    pub indirect: bool,
}

/// How a guest is made.
#[derive(Clone, Copy)]
pub struct Options {
    pub size: u16,
    /// Features that are accepted if they are offered.
    pub features: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size: 256,
            features: IRQ | EVENT_IDX | INDIRECT,
        }
    }
}

impl Guest {
    /// Connects and starts the rings.
    pub fn new(socket: &Path) -> Self {
        Self::with(socket, Options::default())
    }

    pub fn with(socket: &Path, options: Options) -> Self {
        let mut guest = Self::connect(socket, options);
        guest.start();
        guest
    }

    /// Connects and negotiates features, but leaves the rings alone.
    pub fn connect(socket: &Path, options: Options) -> Self {
        let mut frontend = Frontend::connect(socket, 2).unwrap();
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK;
        assert!(protocol.contains(wanted));
        frontend.set_protocol_features(wanted).unwrap();
        frontend.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
        assert_eq!(frontend.get_queue_num().unwrap(), 2);

        let base_features = (1 << VIRTIO_F_VERSION_1) | PROTOCOL;
        assert_eq!(offered & base_features, base_features);
        let features = base_features | (options.features & offered);
        frontend.set_features(features).unwrap();

        let file =
            File::from(rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(MEMORY).unwrap();
        let range = (
            GuestAddress(BASE),
            MEMORY as usize,
            Some(FileOffset::new(file, 0)),
        );
        let mem = GuestMemoryMmap::<()>::from_ranges_with_files([range]).unwrap();
        let rings = [0, 1].map(|index| Ring::new(options.size, index));
        Self {
            frontend,
            mem,
            rings,
            features,
            indirect: features & INDIRECT != 0,
        }
    }

    /// Sets the rings up from scratch, as a driver that has just been loaded does.
    pub fn start(&mut self) {
        let sizes = [0, 1].map(|index: usize| self.rings[index].size);
        self.rings = [0, 1].map(|index| Ring::new(sizes[index], index as u64));
        for ring in &self.rings {
            // A fresh ring is all zeroes.
            let zeroes = vec![0; RING_STRIDE as usize];
            self.mem
                .write_slice(&zeroes, GuestAddress(ring.base))
                .unwrap();
        }
        self.attach([0, 0]);
    }

    /// Hands the rings to the device, continued at `bases`.
    pub fn attach(&mut self, bases: [u16; 2]) {
        let regions: Vec<_> = self
            .mem
            .iter()
            .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).unwrap())
            .collect();
        self.frontend.set_mem_table(&regions).unwrap();
        for (index, base) in bases.into_iter().enumerate() {
            let (data, frontend) = (self.ring_data(index), &mut self.frontend);
            frontend.set_vring_num(index, data.queue_size).unwrap();
            frontend.set_vring_base(index, base).unwrap();
            frontend.set_vring_addr(index, &data).unwrap();
            self.give_descriptors(index);
            if self.features & PROTOCOL != 0 {
                self.frontend.set_vring_enable(index, true).unwrap();
            }
        }
    }

    /// Where a ring is.
    pub fn ring_data(&self, index: usize) -> VringConfigData {
        let ring = &self.rings[index];
        let host = |address| self.mem.get_host_address(GuestAddress(address)).unwrap() as u64;
        VringConfigData {
            queue_max_size: ring.size,
            queue_size: ring.size,
            flags: 0,
            desc_table_addr: host(ring.base),
            used_ring_addr: host(ring.used_ring()),
            avail_ring_addr: host(ring.avail_ring()),
            log_addr: None,
        }
    }

    /// Tells the device how a ring's two sides wake each other.
    pub fn give_descriptors(&mut self, index: usize) {
        let ring = &self.rings[index];
        self.frontend.set_vring_call(index, &ring.call).unwrap();
        self.frontend.set_vring_kick(index, &ring.kick).unwrap();
    }

    /// Stops the rings; returns where they can be continued.
    pub fn stop(&mut self) -> [u16; 2] {
        [0, 1].map(|index| self.frontend.get_vring_base(index).unwrap() as u16)
    }

    /// Reads config space.
    pub fn config(&mut self, offset: u32, size: u32) -> Vec<u8> {
        let flags = VhostUserConfigFlags::empty();
        let room = vec![0; size as usize];
        let (_, payload) = self
            .frontend
            .get_config(offset, size, flags, &room)
            .unwrap();
        payload
    }

    /// Puts a chain on a queue, without notifying the device.
    pub fn add(&mut self, queue: usize, parts: &[Part]) -> u16 {
        let event_idx = self.features & EVENT_IDX != 0;
        self.rings[queue].add(&self.mem, parts, self.indirect, event_idx)
    }

    pub fn kick(&self, queue: usize) {
        self.rings[queue].kick();
    }

    /// Whether the device wants to be notified of the next chain.
    pub fn wants_kick(&self, queue: usize) -> bool {
        self.wants_kick_of(queue, self.rings[queue].avail)
    }

    /// Notifies the device of the chain that was added last, if it wants that.
    pub fn kick_if_wanted(&self, queue: usize) {
        // Complete the write of the index before reading what the device has to say about it.
        fence(Ordering::SeqCst);
        if self.wants_kick_of(queue, self.rings[queue].avail.wrapping_sub(1)) {
            self.kick(queue);
        }
    }

    fn wants_kick_of(&self, queue: usize, chain: u16) -> bool {
        let ring = &self.rings[queue];
        let field = |at| -> u16 { self.mem.load(GuestAddress(at), Ordering::SeqCst).unwrap() };
        if self.features & EVENT_IDX != 0 {
            field(ring.used_ring() + 4 + 8 * u64::from(ring.size)) == chain
        } else {
            u32::from(field(ring.used_ring())) & VRING_USED_F_NO_NOTIFY == 0
        }
    }

    /// The next chain that is back already.
    pub fn poll(&mut self, queue: usize) -> Option<Used> {
        let event_idx = self.features & EVENT_IDX != 0;
        self.rings[queue].poll(&self.mem, event_idx)
    }

    /// Waits for the next chain to come back.
    pub fn wait(&mut self, queue: usize) -> Used {
        self.wait_for(queue, PATIENCE).expect("nothing came back")
    }

    /// Waits a while for the next chain to come back.
    pub fn wait_for(&mut self, queue: usize, patience: Duration) -> Option<Used> {
        let end = Instant::now() + patience;
        loop {
            if let Some(used) = self.poll(queue) {
                return Some(used);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            // Not by the interrupt: tests count those.
            std::thread::sleep(left.min(Duration::from_micros(200)));
        }
    }

    /// How often the device has interrupted since the last call.
    pub fn signals(&self, queue: usize) -> u64 {
        self.rings[queue].call.read().unwrap_or(0)
    }

    /// Asks not to be interrupted, or to be interrupted again.
    pub fn set_quiet(&self, queue: usize, quiet: bool) {
        let flags = if quiet {
            VRING_AVAIL_F_NO_INTERRUPT as u16
        } else {
            0
        };
        let at = GuestAddress(self.rings[queue].avail_ring());
        self.mem.write_obj(flags, at).unwrap();
    }

    /// Puts a request on the queue, without notifying the device.
    pub fn post(&mut self, kind: u16, line: u16, value: u32) -> u16 {
        let request = Request { kind, line, value };
        self.add(REQUEST_QUEUE, &[read(request.to_bytes()), write(2)])
    }

    /// Sends a request; returns status and value.
    pub fn request(&mut self, kind: u16, line: u16, value: u32) -> (u8, u8) {
        let head = self.post(kind, line, value);
        self.kick(REQUEST_QUEUE);
        let used = self.wait(REQUEST_QUEUE);
        assert_eq!((used.head, used.len), (head, 2));
        (used.bytes[0], used.bytes[1])
    }

    /// Sends a request that must succeed; returns the value.
    pub fn ok(&mut self, kind: u16, line: u16, value: u32) -> u8 {
        let (status, result) = self.request(kind, line, value);
        assert_eq!(status, 0, "type {kind} line {line} value {value}");
        result
    }

    /// Unmasks the interrupt of a line.
    pub fn arm(&mut self, line: u16) -> u16 {
        let head = self.post_buffer(line);
        self.kick(EVENT_QUEUE);
        head
    }

    /// Puts an event buffer on the queue, without notifying the device.
    pub fn post_buffer(&mut self, line: u16) -> u16 {
        self.add(EVENT_QUEUE, &[read(line.to_le_bytes()), write(1)])
    }

    /// Waits for an event buffer; returns head and status.
    pub fn event(&mut self) -> (u16, u8) {
        let used = self.wait(EVENT_QUEUE);
        assert_eq!(used.len, 1);
        (used.head, used.bytes[0])
    }

    /// Makes sure that the device returns no event buffer. A request that is sent now is answered after the
    /// device has seen everything that was there before, on both queues.
    pub fn no_event(&mut self) {
        self.ok(2, 0, 0);
        assert_eq!(self.wait_for(EVENT_QUEUE, Duration::from_millis(20)), None);
    }
}

impl Ring {
    fn new(size: u16, index: u64) -> Self {
        let half = (MEMORY - 2 * RING_STRIDE) / 2;
        let first = BUFFERS + index * half;
        Self {
            size,
            base: BASE + index * RING_STRIDE,
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call: EventFd::new(EFD_NONBLOCK).unwrap(),
            free: (0..size).rev().collect(),
            avail: 0,
            used: 0,
            out: HashMap::new(),
            next_buffer: first,
            limit: first + half,
        }
    }

    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    fn avail_ring(&self) -> u64 {
        self.base + 16 * u64::from(self.size)
    }

    /// Where the driver says how many chains it has made available.
    pub fn avail_index(&self) -> u64 {
        self.avail_ring() + 2
    }

    /// Where the device says how many chains it has handed back.
    pub fn used_index(&self) -> u64 {
        self.used_ring() + 2
    }

    fn used_ring(&self) -> u64 {
        self.avail_ring() + 0x2000
    }

    fn buffer(&mut self, mem: &GuestMemoryMmap, len: u32) -> u64 {
        let address = self.next_buffer;
        self.next_buffer += u64::from(len).next_multiple_of(16).max(16);
        assert!(self.next_buffer <= self.limit, "out of guest memory");
        mem.write_slice(&vec![UNTOUCHED; len as usize], GuestAddress(address))
            .unwrap();
        address
    }

    fn add(
        &mut self,
        mem: &GuestMemoryMmap,
        parts: &[Part],
        indirect: bool,
        event_idx: bool,
    ) -> u16 {
        let mut writable = Vec::new();
        let descriptors: Vec<Descriptor> = parts
            .iter()
            .map(|part| match part {
                Part::Read(bytes) => {
                    let address = self.buffer(mem, bytes.len() as u32);
                    mem.write_slice(bytes, GuestAddress(address)).unwrap();
                    Descriptor::new(address, bytes.len() as u32, 0, 0)
                }
                Part::Write(len) => {
                    let address = self.buffer(mem, *len);
                    writable.push((address, *len));
                    Descriptor::new(address, *len, VRING_DESC_F_WRITE as u16, 0)
                }
                Part::Raw(descriptor) => *descriptor,
            })
            .collect();

        let slots: Vec<u16>;
        if indirect {
            let len = 16 * descriptors.len() as u32;
            let table = self.buffer(mem, len);
            store(
                mem,
                table,
                &descriptors,
                &(0..descriptors.len() as u16).collect::<Vec<_>>(),
            );
            slots = vec![self.free.pop().expect("ring is full")];
            let entry = Descriptor::new(table, len, VRING_DESC_F_INDIRECT as u16, 0);
            store(mem, self.base, &[entry], &slots);
        } else {
            slots = descriptors
                .iter()
                .map(|_| self.free.pop().expect("ring is full"))
                .collect();
            store(mem, self.base, &descriptors, &slots);
        }
        let head = slots[0];
        let chain = Chain {
            descriptors: slots,
            writable,
        };
        self.out.insert(head, chain);
        self.offer(mem, head, event_idx);
        head
    }

    /// Makes a head available, whatever it is.
    pub fn offer(&mut self, mem: &GuestMemoryMmap, head: u16, event_idx: bool) {
        let avail_ring = self.avail_ring();
        let at = |offset| GuestAddress(avail_ring + offset);
        mem.write_obj(head, at(4 + 2 * u64::from(self.avail % self.size)))
            .unwrap();
        if event_idx {
            mem.write_obj(self.used, at(4 + 2 * u64::from(self.size)))
                .unwrap();
        }
        self.avail = self.avail.wrapping_add(1);
        mem.store(self.avail, at(2), Ordering::Release).unwrap();
    }

    fn poll(&mut self, mem: &GuestMemoryMmap, event_idx: bool) -> Option<Used> {
        let used_ring = self.used_ring();
        let at = |offset| GuestAddress(used_ring + offset);
        let index: u16 = mem.load(at(2), Ordering::Acquire).unwrap();
        if index == self.used {
            return None;
        }
        let element = at(4 + 8 * u64::from(self.used % self.size));
        let [id, len]: [u32; 2] = mem.read_obj(element).unwrap();
        self.used = self.used.wrapping_add(1);
        if event_idx {
            let used_event = GuestAddress(self.avail_ring() + 4 + 2 * u64::from(self.size));
            mem.write_obj(self.used, used_event).unwrap();
        }
        let head = u16::try_from(id).unwrap();
        let chain = self.out.remove(&head).expect("a chain that is not out");
        self.free.extend(chain.descriptors);
        let mut bytes = Vec::new();
        for (address, len) in chain.writable {
            let start = bytes.len();
            bytes.resize(start + len as usize, 0);
            mem.read_slice(&mut bytes[start..], GuestAddress(address))
                .unwrap();
        }
        Some(Used { head, len, bytes })
    }
}

/// Writes descriptors into these slots of a table, chained unless they chain themselves.
fn store(mem: &GuestMemoryMmap, table: u64, descriptors: &[Descriptor], slots: &[u16]) {
    for (index, descriptor) in descriptors.iter().enumerate() {
        let (mut flags, mut next) = (descriptor.flags(), descriptor.next());
        if let Some(slot) = slots.get(index + 1) {
            flags |= VRING_DESC_F_NEXT as u16;
            next = *slot;
        }
        let raw = RawDescriptor::from(Descriptor::new(
            descriptor.addr().0,
            descriptor.len(),
            flags,
            next,
        ));
        let at = table + 16 * u64::from(slots[index]);
        mem.write_obj(raw, GuestAddress(at)).unwrap();
    }
}
