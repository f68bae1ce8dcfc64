// SPDX-License-Identifier: GPL-2.0-only

//! An IOMMU between the guest's memory and the device.
//!
//! The front end tells how it translates, page by page, when it is asked to, and takes that back as
//! the guest unmaps. The library knows none of these messages: they are taken out of the stream on
//! their way to it, and so are the addresses of rings, which have to be translated, too.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use smallvec::SmallVec;
use vhost::vhost_user::Listener;
use vhost_user_backend::VringT;
use virtio_bindings::bindings::virtio_config::VIRTIO_F_ACCESS_PLATFORM;
use vm_memory::iommu::{Error, Iotlb, IotlbIterator, IovaRange};
use vm_memory::{GuestAddress, Iommu, Permissions};

use crate::backend::QUEUES;
use crate::vring::Vring;

/// How long the front end has for a translation. It may wait for us meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same, when it has said nothing since it was waited for in vain: a guest may use any number of
/// addresses that are not mapped.
const IMPATIENCE: Duration = Duration::from_millis(1);

// Requests of the front end, see the vhost-user specification.
const SET_FEATURES: u32 = 2;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_BASE: u32 = 10;
const SET_BACKEND_REQ_FD: u32 = 21;
const IOTLB_MSG: u32 = 22;
/// A request of ours.
const BACKEND_IOTLB_MSG: u32 = 1;

const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

const HEADER: usize = 12;
/// The longest payload that the library takes.
const LONGEST: usize = 0x1000;
/// The most descriptors that come with a message.
const DESCRIPTORS: usize = 8;

// Kinds of messages about translations.
const MISS: u8 = 1;
const UPDATE: u8 = 2;
const INVALIDATE: u8 = 3;
const IOTLB_SIZE: usize = 32;

/// What the front end shares with us: its address, size, and address in the guest.
type Region = (u64, u64, u64);

/// The translations of one connection.
#[derive(Debug, Default)]
pub struct Platform {
    enabled: Mutex<bool>,
    tlb: RwLock<Iotlb>,
    /// How many messages about translations came.
    updates: Mutex<u64>,
    updated: Condvar,
    /// How many there were when the front end did not answer.
    silent_at: Mutex<Option<u64>>,
    /// The way to ask.
    front_end: Mutex<Option<UnixStream>>,
    regions: Mutex<Vec<Region>>,
    /// Where the rings are to begin. The library may not have got to it yet.
    bases: Mutex<[u32; QUEUES]>,
}

impl Platform {
    /// Whether addresses have to be translated.
    pub fn is_enabled(&self) -> bool {
        *lock(&self.enabled)
    }

    /// Accepts a front end, and gives a listener with the connection that the library is to have
    /// in its place. The rings are those that the library has made.
    pub fn interpose(
        self: &Arc<Self>,
        listener: &Listener,
        rings: Vec<Vring>,
    ) -> io::Result<Listener> {
        let front_end = loop {
            if let Some(stream) = listener.accept().map_err(io::Error::other)? {
                break stream;
            }
        };
        let name = format!("vgpio-{:032x}", fastrand::u128(..));
        let address = SocketAddr::from_abstract_name(name)?;
        let inner = UnixListener::bind_addr(&address)?;
        let library = UnixStream::connect_addr(&address)?;

        let (mut from, mut to) = (library.try_clone()?, front_end.try_clone()?);
        thread::Builder::new()
            .name("replies".into())
            .spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            })?;
        let platform = self.clone();
        thread::Builder::new()
            .name("platform".into())
            .spawn(move || {
                while platform.pass_on(&front_end, &library, &rings).is_ok() {}
                let _ = library.shutdown(Shutdown::Both);
                let _ = front_end.shutdown(Shutdown::Both);
            })?;
        Ok(Listener::from(inner))
    }

    /// Passes one message on to the library, or carries it out.
    fn pass_on(&self, from: &UnixStream, to: &UnixStream, rings: &[Vring]) -> io::Result<()> {
        let mut header = [0; HEADER];
        let mut descriptors = receive(from, &mut header)?;
        let (request, flags) = (word(&header, 0), word(&header, 4));
        let size = word(&header, 8) as usize;
        let mut payload = [0; LONGEST];
        let payload = payload.get_mut(..size).ok_or(io::ErrorKind::InvalidData)?;
        (&mut &*from).read_exact(payload)?;

        match request {
            SET_FEATURES => {
                let enabled = number(payload, 0) & (1 << VIRTIO_F_ACCESS_PLATFORM) != 0;
                *lock(&self.enabled) = enabled;
                self.change(Iotlb::invalidate_all);
            }
            SET_MEM_TABLE => self.set_regions(payload),
            SET_VRING_BASE => {
                if let Some(base) = lock(&self.bases).get_mut(word(payload, 0) as usize) {
                    *base = word(payload, 4);
                }
            }
            SET_VRING_ADDR if self.is_enabled() => {
                self.set_ring_address(rings, payload)?;
                return acknowledge(from, request, flags);
            }
            SET_BACKEND_REQ_FD => {
                *lock(&self.front_end) = descriptors.pop().map(UnixStream::from);
                return acknowledge(from, request, flags);
            }
            IOTLB_MSG => {
                self.translation(payload)?;
                return acknowledge(from, request, flags);
            }
            _ => {}
        }
        send(to, &header, payload, &descriptors)
    }

    /// Sets up where a ring is, as the guest's driver knows it.
    fn set_ring_address(&self, rings: &[Vring], payload: &[u8]) -> io::Result<()> {
        let index = word(payload, 0) as usize;
        let (ring, base) = (rings.get(index), lock(&self.bases).get(index).copied());
        let (Some(ring), Some(base)) = (ring, base) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let [desc, used, avail] = [8, 16, 24].map(|at| number(payload, at));
        ring.set_queue_info(desc, avail, used)
            .map_err(io::Error::other)?;
        // The ring continues at the index that is known already.
        if base == 0 {
            ring.set_queue_next_used(0);
        }
        Ok(())
    }

    fn set_regions(&self, payload: &[u8]) {
        let count = word(payload, 0) as usize;
        let regions = payload.get(8..).unwrap_or_default().chunks_exact(32);
        *lock(&self.regions) = regions
            .take(count)
            .map(|it| (number(it, 16), number(it, 8), number(it, 0)))
            .collect();
    }

    /// Takes what the front end says about a translation.
    fn translation(&self, payload: &[u8]) -> io::Result<()> {
        if payload.len() < IOTLB_SIZE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (iova, size) = (GuestAddress(number(payload, 0)), number(payload, 8));
        // The last byte of the address space is in no range that the table could hold.
        let size = size.min(u64::MAX - iova.0) as usize;
        match payload[25] {
            UPDATE if size > 0 => {
                let address = number(payload, 16);
                let mapped = lock(&self.regions).iter().find_map(|&(start, len, guest)| {
                    let offset = address.checked_sub(start).filter(|it| *it < len)?;
                    guest.checked_add(offset)
                });
                // What is not in memory that we share is as good as not there.
                if let Some(mapped) = mapped {
                    let access = match payload[24] {
                        1 => Permissions::Read,
                        2 => Permissions::Write,
                        _ => Permissions::ReadWrite,
                    };
                    self.change(|tlb| {
                        let _ = tlb.set_mapping(iova, GuestAddress(mapped), size, access);
                    });
                }
            }
            INVALIDATE if size > 0 => self.change(|tlb| tlb.invalidate_mapping(iova, size)),
            _ => {}
        }
        Ok(())
    }

    /// Changes translations, once no access uses them.
    fn change(&self, f: impl FnOnce(&mut Iotlb)) {
        f(&mut self.tlb.write().expect("a thread panicked"));
        *lock(&self.updates) += 1;
        self.updated.notify_all();
    }

    /// Asks the front end for a translation.
    fn ask(&self, range: &IovaRange, access: Permissions) {
        let mut message = [0; HEADER + IOTLB_SIZE];
        message[..4].copy_from_slice(&BACKEND_IOTLB_MSG.to_ne_bytes());
        message[4..8].copy_from_slice(&VERSION.to_ne_bytes());
        message[8..12].copy_from_slice(&(IOTLB_SIZE as u32).to_ne_bytes());
        message[12..20].copy_from_slice(&range.base.0.to_ne_bytes());
        message[20..28].copy_from_slice(&(range.length as u64).to_ne_bytes());
        message[36] = match access {
            Permissions::Read => 1,
            Permissions::Write => 2,
            _ => 3,
        };
        message[37] = MISS;
        if let Some(front_end) = &mut *lock(&self.front_end) {
            // Without an answer the access fails.
            let _ = front_end.write_all(&message);
        }
    }
}

/// The translations of a connection, for those who access the guest's memory.
#[derive(Clone, Debug, Default)]
pub struct Translator(pub Arc<Platform>);

impl Iommu for Translator {
    type IotlbGuard<'a> = RwLockReadGuard<'a, Iotlb>;

    fn translate(
        &self,
        iova: GuestAddress,
        length: usize,
        access: Permissions,
    ) -> Result<IotlbIterator<RwLockReadGuard<'_, Iotlb>>, Error> {
        let platform = &*self.0;
        let silent = *lock(&platform.silent_at) == Some(*lock(&platform.updates));
        let deadline = Instant::now() + if silent { IMPATIENCE } else { PATIENCE };
        loop {
            let seen = *lock(&platform.updates);
            let tlb = platform.tlb.read().expect("a thread panicked");
            let fails = match Iotlb::lookup(tlb, iova, length, access) {
                Ok(found) => return Ok(found),
                Err(fails) => fails,
            };
            for range in fails.misses.iter().chain(&fails.access_fails) {
                platform.ask(range, access);
            }
            let patience = deadline.saturating_duration_since(Instant::now());
            let unchanged = |updates: &mut u64| *updates == seen;
            let updates = lock(&platform.updates);
            let waited = platform
                .updated
                .wait_timeout_while(updates, patience, unchanged);
            if waited.expect("a thread panicked").1.timed_out() {
                *lock(&platform.silent_at) = Some(seen);
                return Err(Error::CannotResolve {
                    iova_range: IovaRange { base: iova, length },
                    reason: "the front end does not answer".into(),
                });
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a thread panicked")
}

/// The number at an offset; zero where there is none.
fn number(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..at + 8).and_then(|it| it.try_into().ok());
    bytes.map_or(0, u64::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..at + 4).and_then(|it| it.try_into().ok());
    bytes.map_or(0, u32::from_ne_bytes)
}

/// Fills `bytes`, and gives the descriptors that come with the first of them.
fn receive(from: &UnixStream, bytes: &mut [u8]) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        from,
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    (&mut &*from).read_exact(&mut bytes[received.bytes..])?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(given) = message {
            descriptors.extend(given);
        }
    }
    Ok(descriptors)
}

fn send(to: &UnixStream, header: &[u8], payload: &[u8], with: &[OwnedFd]) -> io::Result<()> {
    let with: SmallVec<[_; DESCRIPTORS]> = with.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !with.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&with));
    }
    let sent = sendmsg(
        to,
        &[IoSlice::new(header)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    (&mut &*to).write_all(&header[sent..])?;
    (&mut &*to).write_all(payload)
}

/// Says that a request was carried out, to a front end that wants to know.
fn acknowledge(to: &UnixStream, request: u32, flags: u32) -> io::Result<()> {
    if flags & NEED_REPLY == 0 {
        return Ok(());
    }
    let mut message = [0; HEADER + 8];
    message[..4].copy_from_slice(&request.to_ne_bytes());
    message[4..8].copy_from_slice(&(VERSION | REPLY).to_ne_bytes());
    message[8..12].copy_from_slice(&8_u32.to_ne_bytes());
    (&mut &*to).write_all(&message)
}

#[cfg(test)]
mod tests {
    use virtio_queue::QueueT;
    use vm_memory::GuestMemoryMmap;

    use super::*;
    use crate::ring::Memory;

    const SHARED_AT: u64 = 0x7f00_0000;
    const GUEST_AT: u64 = 0x4_0000;

    /// A front end, what the library gets of it, and the end of the way to ask.
    struct Stage {
        platform: Arc<Platform>,
        front_end: UnixStream,
        from: UnixStream,
        to: UnixStream,
        library: UnixStream,
        asked: UnixStream,
    }

    impl Stage {
        fn new() -> Self {
            let (front_end, from) = UnixStream::pair().unwrap();
            let (to, library) = UnixStream::pair().unwrap();
            let (asked, ours) = UnixStream::pair().unwrap();
            let it = Self {
                platform: Arc::default(),
                front_end,
                from,
                to,
                library,
                asked,
            };
            it.give(SET_BACKEND_REQ_FD, 0, &[], &[ours.into()]);
            let words = [1, GUEST_AT, 0x1_0000, SHARED_AT, 0];
            it.give(SET_MEM_TABLE, 0, &bytes(&words), &[]);
            it.is_passed_on(SET_MEM_TABLE, 40);
            it
        }

        fn give(&self, request: u32, flags: u32, payload: &[u8], with: &[OwnedFd]) {
            self.give_for(&[], request, flags, payload, with);
        }

        fn give_for(
            &self,
            rings: &[Vring],
            request: u32,
            flags: u32,
            payload: &[u8],
            with: &[OwnedFd],
        ) {
            let mut header = Vec::new();
            for word in [request, VERSION | flags, payload.len() as u32] {
                header.extend(word.to_ne_bytes());
            }
            send(&self.front_end, &header, payload, with).unwrap();
            self.platform.pass_on(&self.from, &self.to, rings).unwrap();
        }

        fn is_passed_on(&self, request: u32, size: usize) {
            let mut message = vec![0; HEADER + size];
            (&self.library).read_exact(&mut message).unwrap();
            assert_eq!(word(&message, 0), request);
        }

        fn is_acknowledged(&self, request: u32) {
            let mut message = [0; HEADER + 8];
            (&self.front_end).read_exact(&mut message).unwrap();
            assert_eq!(word(&message, 0), request);
            assert_eq!(word(&message, 4), VERSION | REPLY);
            assert_eq!(number(&message, 12), 0);
        }

        fn translate(&self, iova: u64, length: usize, access: Permissions) -> Option<Vec<u64>> {
            let translator = Translator(self.platform.clone());
            let found = translator.translate(GuestAddress(iova), length, access);
            let mapped = found.map(|ranges| ranges.map(|it| it.base.0).collect());
            mapped.ok()
        }
    }

    fn bytes(numbers: &[u64]) -> Vec<u8> {
        numbers.iter().flat_map(|it| it.to_ne_bytes()).collect()
    }

    fn about(kind: u8, iova: u64, size: u64, address: u64, access: u8) -> Vec<u8> {
        let mut payload = bytes(&[iova, size, address, 0]);
        payload[24..26].copy_from_slice(&[access, kind]);
        payload
    }

    #[test]
    fn translations_come_and_go() {
        let it = Stage::new();
        for (iova, offset) in [(0x1000, 0x5000), (0x2000, 0x3000)] {
            let update = about(UPDATE, iova, 0x1000, SHARED_AT + offset, 1);
            it.give(IOTLB_MSG, NEED_REPLY, &update, &[]);
            it.is_acknowledged(IOTLB_MSG);
        }
        let both = it.translate(0x1ff0, 0x20, Permissions::Read);
        assert_eq!(both, Some(vec![GUEST_AT + 0x5ff0, GUEST_AT + 0x3000]));
        assert_eq!(
            it.translate(0x1000, 1, Permissions::Write),
            None,
            "read-only"
        );
        it.give(IOTLB_MSG, 0, &about(INVALIDATE, 0x1000, 0x1000, 0, 0), &[]);
        assert_eq!(it.translate(0x1000, 1, Permissions::Read), None, "invalid");
        assert!(it.translate(0x2000, 1, Permissions::Read).is_some());
    }

    #[test]
    fn the_front_end_is_asked() {
        let it = Stage::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut question = [0; HEADER + IOTLB_SIZE];
                (&it.asked).read_exact(&mut question).unwrap();
                assert_eq!(word(&question, 0), BACKEND_IOTLB_MSG);
                assert_eq!(number(&question, 12), 0x1010);
                assert_eq!(question[36..38], [2, MISS]);
                let update = about(UPDATE, 0x1000, 0x1000, SHARED_AT, 3);
                it.give(IOTLB_MSG, 0, &update, &[]);
            });
            let found = it.translate(0x1010, 4, Permissions::Write);
            assert_eq!(found, Some(vec![GUEST_AT + 0x10]));
        });
    }

    #[test]
    fn what_makes_no_sense_does_no_harm() {
        let it = Stage::new();
        for (iova, size, address) in [
            (0, 0, SHARED_AT),
            (u64::MAX, u64::MAX, SHARED_AT),
            (0x1000, 0x1000, SHARED_AT + 0x1_0000),
            (0x1000, 0x1000, SHARED_AT - 1),
        ] {
            it.give(IOTLB_MSG, 0, &about(UPDATE, iova, size, address, 3), &[]);
            it.give(IOTLB_MSG, 0, &about(INVALIDATE, iova, size, 0, 0), &[]);
        }
        it.give(IOTLB_MSG, 0, &about(99, 0x1000, 0x1000, SHARED_AT, 3), &[]);
        it.give(SET_MEM_TABLE, 0, &[0xff; 24], &[]);
        it.is_passed_on(SET_MEM_TABLE, 24);
        assert_eq!(it.translate(0x1000, 1, Permissions::Read), None);
        let begin = Instant::now();
        assert_eq!(it.translate(0x1000, 1, Permissions::Read), None);
        assert!(begin.elapsed() < PATIENCE / 2, "waited for an answer twice");
    }

    #[test]
    fn new_features_end_all_translations() {
        let it = Stage::new();
        it.give(IOTLB_MSG, 0, &about(UPDATE, 0, 0x1000, SHARED_AT, 3), &[]);
        assert!(it.translate(0, 1, Permissions::Read).is_some());
        let features = bytes(&[1 << VIRTIO_F_ACCESS_PLATFORM]);
        it.give(SET_FEATURES, 0, &features, &[]);
        it.is_passed_on(SET_FEATURES, 8);
        assert!(it.platform.is_enabled());
        assert_eq!(it.translate(0, 1, Permissions::Read), None);
    }

    #[test]
    fn rings_begin_where_they_are_told_to() {
        let it = Stage::new();
        let ring = Vring::alone(Memory::new(GuestMemoryMmap::new()), 16).unwrap();
        it.give(
            SET_FEATURES,
            0,
            &bytes(&[1 << VIRTIO_F_ACCESS_PLATFORM]),
            &[],
        );
        for (base, next_used) in [(7, 5), (0, 0)] {
            ring.set_queue_next_avail(7);
            ring.set_queue_next_used(5);
            // The library is yet to read it.
            it.give(SET_VRING_BASE, 0, &bytes(&[base << 32]), &[]);
            let place = bytes(&[0, 0xffff_0000, 0xffff_2000, 0xffff_1000, 0]);
            it.give_for(&[ring.clone()], SET_VRING_ADDR, NEED_REPLY, &place, &[]);
            it.is_acknowledged(SET_VRING_ADDR);
            let state = ring.get_ref();
            assert_eq!(state.get_queue().next_used(), next_used);
            assert_eq!(state.get_queue().used_ring(), 0xffff_2000);
        }
    }
}
