// SPDX-License-Identifier: GPL-2.0-only

//! Front ends that send invalid, partial, or no messages. The daemon's other device keeps working,
//! and theirs works for the next front end.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};
use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::pipe::pipe;
use vgpio::wire::{EVENT_QUEUE, REQUEST_QUEUE};
use vhost::vhost_user::VhostUserFrontend;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::{EventFd, EFD_NONBLOCK};

use crate::daemon::{eventually, Daemon};
use crate::driver::{Guest, Options};

const GET_FEATURES: u32 = 1;
const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const SET_PROTOCOL_FEATURES: u32 = 16;

/// Two devices: one to be attacked, and one with a guest that minds its own business.
struct Neighbours {
    daemon: Daemon,
    guest: Guest,
}

impl Neighbours {
    fn new() -> Self {
        let daemon = Daemon::start_all(&["lines=4", "lines=2,names=a:b"]);
        let mut guest = Guest::new(&daemon.socket(1));
        guest.ok(3, 1, 2);
        guest.ok(6, 1, 3);
        guest.arm(1);
        Self { daemon, guest }
    }

    /// Makes sure that neither the other guest nor the host is affected.
    fn work(&mut self) {
        let start = Instant::now();
        self.guest.ok(2, 0, 0);
        self.daemon.client().toggle("b");
        assert_eq!(self.guest.event().1, 1);
        self.guest.arm(1);
        assert!(start.elapsed() < Duration::from_secs(5), "held up");
    }

    /// Makes sure that all is well: next door, too.
    fn end(mut self) {
        self.work();
        assert_eq!(Guest::new(&self.daemon.socket(0)).ok(2, 0, 0), 0);
        assert!(self.daemon.is_alive());
        let lines = self.daemon.log().lines().count();
        assert!(lines < 60, "{lines} lines in the log");
    }

    fn stranger(&self) -> Stranger {
        let stream = UnixStream::connect(self.daemon.socket(0)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        Stranger(stream)
    }

    /// Processor time that the daemon has taken.
    fn processor_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.daemon.pid());
        let stat = std::fs::read_to_string(path).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|it| it.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// How many descriptors the daemon has open when a front end has just been answered. Between
    /// two front ends there are fewer, for a moment.
    fn descriptors(&self) -> usize {
        let mut stranger = self.stranger();
        stranger.say(&message(GET_FEATURES, &[]));
        stranger.0.read_exact(&mut [0; 20]).unwrap();
        let path = format!("/proc/{}/fd", self.daemon.pid());
        std::fs::read_dir(path).unwrap().count()
    }

    /// Makes sure that the daemon sleeps without requests.
    fn sleeps(&self) {
        let before = self.processor_time();
        std::thread::sleep(Duration::from_millis(300));
        let taken = self.processor_time() - before;
        assert!(taken < Duration::from_millis(100), "spins: {taken:?}");
    }
}

/// A connection on which anything can be said.
struct Stranger(UnixStream);

fn header(request: u32, flags: u32, size: u32) -> Vec<u8> {
    [request, flags, size]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect()
}

fn message(request: u32, body: &[u64]) -> Vec<u8> {
    let mut bytes = header(request, 1, 8 * body.len() as u32);
    bytes.extend(body.iter().flat_map(|word| word.to_ne_bytes()));
    bytes
}

impl Stranger {
    /// Says something. The daemon may have hung up already.
    fn say(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    fn say_with(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = vec![MaybeUninit::uninit(); 4096];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        let _ = sendmsg(
            &self.0,
            &[IoSlice::new(bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        );
    }

    /// Says no more, and waits for the daemon to hang up.
    fn end(mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
        match self.0.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset),
        }
    }
}

#[test]
fn hanging_up_at_any_byte() {
    let mut neighbours = Neighbours::new();
    let words = [
        message(SET_OWNER, &[]),
        message(SET_FEATURES, &[(1 << 32) | (1 << 30)]),
        message(SET_PROTOCOL_FEATURES, &[0x209]),
        message(SET_VRING_NUM, &[256 << 32]),
    ]
    .concat();
    let before = neighbours.descriptors();
    for spoken in 0..=words.len() {
        let mut stranger = neighbours.stranger();
        stranger.say(&words[..spoken]);
        stranger.end();
        if spoken % 8 == 0 {
            neighbours.work();
        }
    }
    eventually("as few as before", || neighbours.descriptors() <= before);
    neighbours.end();
}

#[test]
fn half_a_message_and_silence() {
    let mut neighbours = Neighbours::new();
    for spoken in [0, 5, 12, 15] {
        let mut stranger = neighbours.stranger();
        stranger.say(&message(SET_FEATURES, &[1 << 32])[..spoken]);
        std::thread::sleep(Duration::from_millis(20));
        neighbours.work();
        neighbours.sleeps();
        // The host can free the device from such a one.
        neighbours.daemon.ok(&["disconnect", "-d", "0"]);
        stranger.end();
    }
    neighbours.end();
}

#[test]
fn requests_of_any_number_and_length() {
    let mut neighbours = Neighbours::new();
    let sizes = [0, 1, 8, 12, 20, 4096, 4097, u32::MAX];
    for request in (0..=45).chain([255, u32::MAX]) {
        for size in sizes {
            let mut stranger = neighbours.stranger();
            // With all features that there are, so that nothing is refused for want of one.
            stranger.say(&message(SET_PROTOCOL_FEATURES, &[u64::MAX]));
            stranger.say(&message(SET_FEATURES, &[(1 << 32) | (1 << 30)]));
            stranger.say(&header(request, 9, size));
            stranger.say(&vec![0xff; size.min(5000) as usize]);
            stranger.say(&message(SET_OWNER, &[]));
            stranger.end();
        }
        neighbours.work();
    }
    neighbours.end();
}

#[test]
fn descriptors_too_many_too_few_and_of_other_kinds() {
    let neighbours = Neighbours::new();
    let before = neighbours.descriptors();
    let null = File::open("/dev/null").unwrap();
    let file = tempfile::tempfile().unwrap();
    let directory = File::open("/").unwrap();
    let requests = [
        SET_OWNER,
        SET_FEATURES,
        SET_MEM_TABLE,
        SET_VRING_NUM,
        SET_VRING_KICK,
        SET_VRING_CALL,
        // The memory slots, the log and the error channel.
        37,
        6,
        14,
    ];
    for request in requests {
        for descriptor in [&null, &file, &directory] {
            for count in [0, 1, 2, 8, 33] {
                let mut stranger = neighbours.stranger();
                stranger.say(&message(SET_PROTOCOL_FEATURES, &[u64::MAX]));
                let fds = vec![descriptor.as_fd(); count];
                let body = if request == SET_MEM_TABLE {
                    vec![1, 0x10_0000, 0x1000, 0x10_0000, 0]
                } else {
                    vec![0]
                };
                stranger.say_with(&message(request, &body), &fds);
                stranger.end();
            }
        }
    }
    eventually("as few as before", || neighbours.descriptors() <= before);
    neighbours.end();
}

#[test]
fn random_messages() {
    let mut neighbours = Neighbours::new();
    let mut random = fastrand::Rng::with_seed(23);
    for round in 0..300 {
        let mut stranger = neighbours.stranger();
        stranger.say(&message(SET_PROTOCOL_FEATURES, &[random.u64(..)]));
        for _ in 0..random.u32(..20) {
            let body: Vec<_> = (0..random.u32(..6))
                .map(|_| match random.u32(..4) {
                    0 => random.u64(..),
                    1 => random.u64(..3),
                    2 => 1 << random.u32(..64),
                    _ => 1024 << 32,
                })
                .collect();
            stranger.say(&message(random.u32(1..42), &body));
        }
        stranger.end();
        if round % 30 == 0 {
            neighbours.work();
        }
    }
    neighbours.end();
}

#[test]
fn many_at_once() {
    let mut neighbours = Neighbours::new();
    let before = neighbours.descriptors();
    let crowd: Vec<_> = (0..100).map(|_| neighbours.stranger()).collect();
    neighbours.work();
    drop(crowd);
    eventually("as few as before", || neighbours.descriptors() <= before);
    for _ in 0..200 {
        neighbours.stranger().end();
    }
    let log = neighbours.daemon.log();
    assert!(log.lines().count() < 60, "{log}");
    neighbours.end();
}

/// Regions of guest memory that the front end may describe as it likes.
fn regions(guest: &Guest) -> Vec<VhostUserMemoryRegionInfo> {
    let region = |it| VhostUserMemoryRegionInfo::from_guest_region(it).unwrap();
    guest.mem.iter().map(region).collect()
}

#[test]
fn memory_tables_that_make_no_sense() {
    let mut neighbours = Neighbours::new();
    type Change = fn(&mut VhostUserMemoryRegionInfo);
    let changes: [Change; 7] = [
        |it| it.memory_size = 0,
        |it| it.memory_size = 1 << 62,
        |it| it.memory_size = u64::MAX,
        |it| it.mmap_offset = 1 << 40,
        |it| it.mmap_offset = 3,
        |it| it.guest_phys_addr = u64::MAX - 0x1000,
        |it| it.userspace_addr = u64::MAX - 0x1000,
    ];
    for change in changes {
        let mut guest = Guest::new(&neighbours.daemon.socket(0));
        guest.ok(2, 0, 0);
        let mut regions = regions(&guest);
        change(&mut regions[0]);
        let _ = guest.frontend.set_mem_table(&regions);
        guest.post(4, 0, 0);
        guest.kick(REQUEST_QUEUE);
        neighbours.work();
    }
    // Twice the same place.
    let guest = Guest::new(&neighbours.daemon.socket(0));
    let region = regions(&guest).remove(0);
    let twice = [region, regions(&guest).remove(0)];
    assert!(guest.frontend.set_mem_table(&twice).is_err());
    drop(guest);
    neighbours.end();
}

#[test]
fn memory_that_shrinks_under_the_rings() {
    let mut neighbours = Neighbours::new();
    let mut guest = Guest::new(&neighbours.daemon.socket(0));
    guest.ok(3, 0, 2);
    guest.ok(6, 0, 3);
    guest.arm(0);
    guest.ok(2, 0, 0);
    let mut regions = regions(&guest);
    let whole = regions[0].memory_size;
    regions[0].memory_size = 0x1000;
    guest.frontend.set_mem_table(&regions).unwrap();
    for _ in 0..20 {
        guest.post(4, 0, 0);
        guest.kick(REQUEST_QUEUE);
        guest.kick(EVENT_QUEUE);
    }
    neighbours.daemon.ok(&["toggle", "-d", "0", "0"]);
    eventually("a complaint", || {
        neighbours.daemon.log().contains("is invalid")
    });
    neighbours.work();
    neighbours.sleeps();

    regions[0].memory_size = whole;
    guest.frontend.set_mem_table(&regions).unwrap();
    guest.stop();
    guest.start();
    assert_eq!(guest.ok(4, 0, 0), 1);
    drop(guest);
    neighbours.end();
}

#[test]
fn memory_that_vanishes() {
    let mut neighbours = Neighbours::new();
    for host_first in [false, true] {
        let mut guest = Guest::new(&neighbours.daemon.socket(0));
        guest.ok(3, 0, 2);
        guest.ok(6, 0, 3);
        guest.arm(0);
        guest.ok(2, 0, 0);
        let region = guest.mem.iter().next().unwrap();
        region.file_offset().unwrap().file().set_len(0).unwrap();
        if host_first {
            neighbours.daemon.ok(&["toggle", "-d", "0", "0"]);
        }
        guest.kick(REQUEST_QUEUE);
        guest.kick(EVENT_QUEUE);
        neighbours.work();
        neighbours.sleeps();
    }
    neighbours.end();
}

#[test]
fn rings_that_make_no_sense() {
    let mut neighbours = Neighbours::new();
    let socket = neighbours.daemon.socket(0);
    // Their size and their number.
    for (index, size) in [
        (0, 0),
        (0, 3),
        (0, 2048),
        (0, u16::MAX),
        (2, 256),
        (255, 256),
    ] {
        let guest = Guest::connect(&socket, Options::default());
        let result = guest.frontend.set_vring_num(index, size);
        assert_eq!(result.is_ok(), (index, size) == (0, 3), "{index} {size}");
    }
    // Their addresses: crooked, at the end of memory, and nowhere.
    type Change = fn(&mut VringConfigData, u64);
    let changes: [(Change, bool); 8] = [
        (|it, _| it.desc_table_addr += 8, false),
        (|it, _| it.avail_ring_addr += 1, false),
        (|it, _| it.used_ring_addr += 2, false),
        (|it, end| it.desc_table_addr = end, false),
        (|it, _| it.used_ring_addr = 16, false),
        (|it, end| it.desc_table_addr = end - 16, true),
        (|it, end| it.avail_ring_addr = end - 2, true),
        (|it, end| it.used_ring_addr = end - 4, true),
    ];
    for (change, accepted) in changes {
        let mut guest = Guest::new(&socket);
        guest.ok(2, 0, 0);
        let end = guest.mem.last_addr();
        let end = guest.mem.get_host_address(end).unwrap() as u64 + 1;
        let mut data = guest.ring_data(REQUEST_QUEUE);
        change(&mut data, end);
        let result = guest.frontend.set_vring_addr(REQUEST_QUEUE, &data);
        assert_eq!(result.is_ok(), accepted);
        for _ in 0..5 {
            guest.post(4, 0, 0);
            guest.kick(REQUEST_QUEUE);
        }
        neighbours.work();
    }
    neighbours.sleeps();
    neighbours.end();
}

#[test]
fn rings_without_memory() {
    let mut neighbours = Neighbours::new();
    for _ in 0..5 {
        let mut guest = Guest::connect(&neighbours.daemon.socket(0), Options::default());
        for queue in [REQUEST_QUEUE, EVENT_QUEUE] {
            guest.give_descriptors(queue);
            guest.frontend.set_vring_enable(queue, true).unwrap();
            guest.kick(queue);
        }
        neighbours.daemon.ok(&["toggle", "-d", "0", "0"]);
        neighbours.work();
    }
    neighbours.sleeps();
    neighbours.end();
}

/// Makes sure that a front end gets no more than its due: the host is not held up, no processor
/// time is wasted, and once it hangs up the device is free.
fn bear(neighbours: &mut Neighbours, guest: Guest) {
    neighbours.work();
    neighbours.daemon.ok(&["info", "-d", "0"]);
    neighbours.sleeps();
    drop(guest);
    eventually("the end of the connection", || {
        neighbours.daemon.ok(&["detect"]).contains("waiting")
    });
}

#[test]
fn notifications_that_keep_us_waiting() {
    let mut neighbours = Neighbours::new();
    // The one that we listen to is replaced by one that would block, while it has something.
    let mut guest = Guest::new(&neighbours.daemon.socket(0));
    guest.ok(2, 0, 0);
    for _ in 0..3 {
        let blocking = EventFd::new(0).unwrap();
        guest
            .frontend
            .set_vring_kick(REQUEST_QUEUE, &blocking)
            .unwrap();
        guest.kick(REQUEST_QUEUE);
        neighbours.work();
    }
    neighbours.sleeps();
    // The new one counts.
    let own = EventFd::new(EFD_NONBLOCK).unwrap();
    guest.frontend.set_vring_kick(REQUEST_QUEUE, &own).unwrap();
    guest.post(2, 0, 0);
    own.write(1).unwrap();
    assert_eq!(guest.wait(REQUEST_QUEUE).len, 2);
    bear(&mut neighbours, guest);
    neighbours.end();
}

#[test]
fn notifications_from_a_pipe_that_is_closed() {
    let mut neighbours = Neighbours::new();
    let guest = Guest::new(&neighbours.daemon.socket(0));
    let (reader, writer) = pipe().unwrap();
    // The library takes an event descriptor only, but asks for no more than its number.
    let reader = as_event(reader);
    guest
        .frontend
        .set_vring_kick(REQUEST_QUEUE, &reader)
        .unwrap();
    rustix::io::write(&writer, &[1; 3]).unwrap();
    drop(writer);
    bear(&mut neighbours, guest);
    neighbours.end();
}

fn as_event(descriptor: OwnedFd) -> EventFd {
    use std::os::fd::{FromRawFd, IntoRawFd};
    // SAFETY: `into_raw_fd` gives the descriptor up.
    unsafe { EventFd::from_raw_fd(descriptor.into_raw_fd()) }
}

#[test]
fn interrupts_that_keep_us_waiting() {
    let mut neighbours = Neighbours::new();
    let full = EventFd::new(0).unwrap();
    full.write(u64::MAX - 1).unwrap();
    let (_reader, writer) = pipe().unwrap();
    fill(&writer);
    let (reader, closed) = pipe().unwrap();
    drop(reader);
    for call in [full, as_event(writer), as_event(closed)] {
        let mut guest = Guest::new(&neighbours.daemon.socket(0));
        guest.ok(3, 0, 2);
        guest.ok(6, 0, 3);
        guest.arm(0);
        guest.ok(2, 0, 0);
        for queue in [REQUEST_QUEUE, EVENT_QUEUE] {
            guest.frontend.set_vring_call(queue, &call).unwrap();
        }
        guest.post(2, 0, 0);
        guest.kick(REQUEST_QUEUE);
        assert_eq!(guest.wait(REQUEST_QUEUE).len, 2);
        neighbours.daemon.ok(&["toggle", "-d", "0", "0"]);
        assert_eq!(guest.event().1, 1);
        bear(&mut neighbours, guest);
    }
    neighbours.end();
}

/// Has a pipe take no more, and block.
fn fill(pipe: &OwnedFd) {
    let flags = fcntl_getfl(pipe).unwrap();
    fcntl_setfl(pipe, flags | OFlags::NONBLOCK).unwrap();
    while rustix::io::write(pipe, &[0; 4096]).is_ok() {}
    fcntl_setfl(pipe, flags).unwrap();
}

#[test]
fn a_guest_that_never_rests() {
    let mut neighbours = Neighbours::new();
    let mut guest = Guest::new(&neighbours.daemon.socket(0));
    guest.ok(2, 0, 0);
    // One chain that is offered again before the device is through with the last offer.
    let head = guest.post(2, 0, 0);
    guest.kick(REQUEST_QUEUE);
    let ring = &mut guest.rings[REQUEST_QUEUE];
    let used = GuestAddress(ring.used_index());
    let mem = guest.mem.clone();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut offered: u16 = mem.read_obj(used).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let back: u16 = mem.read_obj(used).unwrap();
                while offered.wrapping_sub(back) < 200 {
                    ring.offer(&mem, head, false);
                    offered = offered.wrapping_add(1);
                }
            }
        });
        for _ in 0..10 {
            neighbours.work();
            neighbours.daemon.ok(&["set", "-d", "0", "0=1"]);
            neighbours.daemon.ok(&["info", "-d", "0"]);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    drop(guest);
    neighbours.end();
}
