// SPDX-License-Identifier: GPL-2.0-only

//! Guests that send nonsense. The daemon answers what it can, and lives.

use vgpio::wire::{Request, EVENT_QUEUE, REQUEST_QUEUE};
use virtio_bindings::bindings::virtio_ring::{
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::daemon::{eventually, Daemon};
use crate::driver::{read, write, Guest, Options, Part, Used, EVENT_IDX, INDIRECT, IRQ};

const NOWHERE: u64 = 1 << 40;

fn get_value() -> [u8; 8] {
    let (kind, line, value) = (4, 0, 0);
    Request { kind, line, value }.to_bytes()
}

/// Everything a chain can be apart from the message `valid`, with the answer that it gets.
fn nonsense(valid: &[u8], response: usize) -> Vec<(Vec<Part>, &'static [u8])> {
    let size = valid.len();
    let message = || read(valid);
    let longer = |len: usize| read([valid, &vec![0; len - size]].concat());
    let error: &[u8] = if response == 1 { &[0] } else { &[1, 0] };
    let raw = |address, len, flags: u32| Part::Raw(Descriptor::new(address, len, flags as u16, 0));
    let mut chains = vec![
        (vec![message()], &[][..]),
        (vec![read([]), write(response as u32)], error),
        (
            vec![read(&valid[..size - 1]), write(response as u32)],
            error,
        ),
        (vec![longer(size + 1), write(response as u32)], error),
        (vec![longer(4000), write(response as u32)], error),
        (vec![write(response as u32)], error),
        (vec![write(response as u32), message()], error),
        (vec![message(), write(0)], &[]),
        (
            vec![raw(NOWHERE, size as u32, 0), write(response as u32)],
            error,
        ),
        (
            vec![raw(u64::MAX - 2, size as u32, 0), write(response as u32)],
            error,
        ),
        (
            vec![raw(NOWHERE, u32::MAX - 16, 0), write(response as u32)],
            error,
        ),
        (vec![message(), raw(NOWHERE, 2, VRING_DESC_F_WRITE)], &[]),
        (
            vec![message(), raw(NOWHERE, u32::MAX, VRING_DESC_F_WRITE)],
            &[],
        ),
        // Tables of a bad size, out of reach, and of nothing.
        (vec![raw(NOWHERE, 32, VRING_DESC_F_INDIRECT)], &[]),
        (vec![raw(NOWHERE, 33, VRING_DESC_F_INDIRECT)], &[]),
        (vec![raw(0x20_0000, 0, VRING_DESC_F_INDIRECT)], &[]),
        // A table that contains itself as a table, or goes nowhere.
        (vec![raw(0x20_0000, 16, VRING_DESC_F_NEXT)], &[]),
    ];
    if response == 2 {
        chains.push((vec![message(), write(1)], &[1]));
    }
    chains
}

fn survives(queue: usize, valid: &[u8], response: usize) {
    let daemon = Daemon::start("lines=2");
    for features in [IRQ, IRQ | INDIRECT | EVENT_IDX] {
        daemon.ok(&["stats", "--reset"]);
        let options = Options {
            features,
            ..Options::default()
        };
        let mut guest = Guest::with(&daemon.socket(0), options);
        // A proper buffer would stay, and a proper request succeed.
        guest.ok(6, 0, 1);
        let chains = nonsense(valid, response);
        for (index, (parts, answer)) in chains.iter().enumerate() {
            let head = guest.add(queue, parts);
            guest.kick(queue);
            let used = guest.wait(queue);
            assert_eq!(used.head, head);
            // What is out of reach was not written either.
            let written = &used.bytes[..answer.len().min(used.bytes.len())];
            assert_eq!(written, *answer, "chain {index}");
            assert_eq!(used.len as usize, answer.len(), "chain {index}");
        }
        assert_eq!(guest.ok(2, 0, 0), 0, "the rest works");
        let stats = daemon.stats();
        let malformed = stats.request_queue.malformed + stats.event_queue.malformed;
        assert_eq!(malformed, chains.len() as u64);
    }
    let complaints = daemon.log().matches("is not a message").count();
    assert!((1..=10).contains(&complaints), "{complaints} complaints");
}

#[test]
fn requests_that_are_none() {
    survives(REQUEST_QUEUE, &get_value(), 2);
}

#[test]
fn event_buffers_that_are_none() {
    survives(EVENT_QUEUE, &[0, 0], 1);
}

#[test]
fn short_room_for_names() {
    let daemon = Daemon::start("lines=2,names=abc:def");
    let mut guest = Guest::new(&daemon.socket(0));
    let (kind, line, value) = (1, 0, 0);
    let request = Request { kind, line, value }.to_bytes();
    for room in 1..9_u32 {
        guest.add(REQUEST_QUEUE, &[read(request), write(room)]);
        guest.kick(REQUEST_QUEUE);
        let used = guest.wait(REQUEST_QUEUE);
        let mut expected = vec![0; room as usize];
        expected[0] = 1;
        assert_eq!((used.len, used.bytes), (room, expected));
    }
}

#[test]
fn chains_without_end() {
    let daemon = Daemon::start("lines=1");
    let options = Options {
        size: 16,
        features: 0,
    };
    let mut guest = Guest::with(&daemon.socket(0), options);
    // A fresh ring hands out slot 0, which here is followed by itself.
    let flags = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE;
    let endless = Descriptor::new(0x20_0000, 2, flags as u16, 0);
    guest.add(REQUEST_QUEUE, &[Part::Raw(endless)]);
    guest.kick(REQUEST_QUEUE);
    let used = guest.wait(REQUEST_QUEUE);
    assert_eq!(used.len, 2, "an error, in memory that there is");
    guest.ok(2, 0, 0);
}

#[test]
fn heads_beyond_the_ring_are_dropped() {
    let daemon = Daemon::start("lines=1");
    let mut guest = Guest::new(&daemon.socket(0));
    for head in [256, 0xffff] {
        guest.rings[REQUEST_QUEUE].offer(&guest.mem, head, false);
    }
    guest.kick(REQUEST_QUEUE);
    guest.ok(2, 0, 0);
    eventually("a complaint", || daemon.log().contains("beyond the ring"));
}

#[test]
fn a_ring_index_out_of_range_stops_that_ring_until_the_driver_restarts() {
    let daemon = Daemon::start("lines=1");
    // One request was before: a step back, a leap, and one more than there is room for.
    for (restarts, index) in [0, 0xffff, 0x4000, 258].into_iter().enumerate() {
        let mut guest = Guest::new(&daemon.socket(0));
        guest.ok(3, 0, 2);
        let at = GuestAddress(guest.rings[REQUEST_QUEUE].avail_index());
        guest.mem.write_obj::<u16>(index, at).unwrap();
        for _ in 0..50 {
            guest.kick(REQUEST_QUEUE);
        }
        let complaints = || daemon.log().matches("is invalid").count();
        eventually("a complaint", || complaints() > restarts);
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(complaints(), restarts + 1);
        assert_eq!(guest.poll(REQUEST_QUEUE), None);
        daemon.ok(&["set", "0=1"]);

        guest.stop();
        guest.start();
        assert_eq!(guest.ok(4, 0, 0), 1);
    }
}

#[test]
fn complaints_are_few_however_often_the_driver_restarts() {
    let daemon = Daemon::start("lines=1");
    let mut guest = Guest::new(&daemon.socket(0));
    for _ in 0..40 {
        let at = GuestAddress(guest.rings[REQUEST_QUEUE].avail_index());
        guest.mem.write_obj(0x4000_u16, at).unwrap();
        guest.kick(REQUEST_QUEUE);
        std::thread::sleep(std::time::Duration::from_millis(2));
        guest.stop();
        guest.start();
    }
    let complaints = daemon.log().matches("is invalid").count();
    assert!((1..=10).contains(&complaints), "{complaints} complaints");
}

/// Offers one chain more often than there are descriptors, while the device keeps all of them.
fn offers_more_than_it_has(queue: usize, faults: &[&str]) {
    let daemon = Daemon::start("lines=4");
    daemon.ok(&[&["fault", "set"], faults].concat());
    let options = Options {
        size: 64,
        features: IRQ,
    };
    let mut guest = Guest::with(&daemon.socket(0), options);
    let message = if queue == REQUEST_QUEUE {
        read(get_value())
    } else {
        read([0, 0])
    };
    let head = guest.add(queue, &[message, write(2)]);
    for _ in 0..20 {
        for _ in 0..16 {
            guest.rings[queue].offer(&guest.mem, head, false);
        }
        guest.kick(queue);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    eventually("a complaint", || daemon.log().contains("is invalid"));
    let stats = daemon.stats();
    let stats = [stats.request_queue, stats.event_queue];
    assert!(stats[queue].chains <= 64, "{stats:?}");
}

#[test]
fn requests_that_wait_are_no_more_than_the_ring_has_room_for() {
    offers_more_than_it_has(REQUEST_QUEUE, &["delay=10s"]);
    offers_more_than_it_has(REQUEST_QUEUE, &["reorder=1000,count=1", "delay=10s"]);
    offers_more_than_it_has(REQUEST_QUEUE, &["silent"]);
}

#[test]
fn event_buffers_that_wait_are_no_more_than_the_ring_has_room_for() {
    offers_more_than_it_has(EVENT_QUEUE, &["hold-irq-buffer=10s"]);
}

/// Offers a chain in a table of its own, as the guest has written it.
fn table(guest: &mut Guest, address: u64, len: u32) -> Used {
    let flags = VRING_DESC_F_INDIRECT as u16;
    let entry = Part::Raw(Descriptor::new(address, len, flags, 0));
    guest.indirect = false;
    let head = guest.add(REQUEST_QUEUE, &[entry]);
    guest.kick(REQUEST_QUEUE);
    let used = guest.wait(REQUEST_QUEUE);
    assert_eq!(used.head, head);
    used
}

fn descriptor(address: u64, len: u32, flags: u32, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&(flags as u16).to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

#[test]
fn tables_within_tables_beyond_memory_and_too_long() {
    const TABLE: u64 = 0x20_0000;
    const MESSAGE: u64 = 0x30_0000;
    const ANSWER: u64 = 0x31_0000;
    let daemon = Daemon::start("lines=2");
    let mut guest = Guest::new(&daemon.socket(0));
    let end = guest.mem.last_addr().0 + 1;
    guest
        .mem
        .write_slice(&get_value(), GuestAddress(MESSAGE))
        .unwrap();
    let read = |next| descriptor(MESSAGE, 8, VRING_DESC_F_NEXT, next);
    let answer = |flags, next| descriptor(ANSWER, 2, flags | VRING_DESC_F_WRITE, next);
    let store = |guest: &Guest, at, descriptors: &[[u8; 16]]| {
        let bytes = descriptors.concat();
        guest.mem.write_slice(&bytes, GuestAddress(at)).unwrap();
    };

    // As it should be, and at the very end of memory.
    for at in [TABLE, end - 32] {
        store(&guest, at, &[read(1), answer(0, 0)]);
        assert_eq!(table(&mut guest, at, 32).len, 2);
    }
    // Half of it is beyond.
    store(&guest, end - 16, &[read(1)]);
    assert_eq!(table(&mut guest, end - 16, 32).len, 0);
    // A table in a table, which is itself.
    let within = descriptor(TABLE, 32, VRING_DESC_F_INDIRECT, 0);
    store(&guest, TABLE, &[read(1), within]);
    assert_eq!(table(&mut guest, TABLE, 32).len, 0);
    // A next that is not in the table.
    store(&guest, TABLE, &[read(7), answer(0, 0)]);
    assert_eq!(table(&mut guest, TABLE, 32).len, 0);
    // A chain that goes round.
    store(&guest, TABLE, &[read(1), answer(VRING_DESC_F_NEXT, 0)]);
    assert_eq!(table(&mut guest, TABLE, 32).len, 2, "an error");
    let mut status = [0; 2];
    guest
        .mem
        .read_slice(&mut status, GuestAddress(ANSWER))
        .unwrap();
    assert_eq!(status, [1, 0]);
    // As long as can be said: longer than the ring, which no chain may be.
    let mut long: Vec<_> = (1..65535)
        .map(|next| answer(VRING_DESC_F_NEXT, next))
        .collect();
    long[0] = read(1);
    long.push(answer(0, 0));
    store(&guest, TABLE + 0x10_0000, &long);
    guest
        .mem
        .write_slice(&get_value(), GuestAddress(MESSAGE))
        .unwrap();
    let chains = daemon.stats().request_queue.malformed;
    table(&mut guest, TABLE + 0x10_0000, 65535 * 16);
    assert_eq!(daemon.stats().request_queue.malformed, chains + 1);
    guest.ok(2, 0, 0);
}

#[test]
fn memory_ends_where_it_ends() {
    let daemon = Daemon::start("lines=2");
    let mut guest = Guest::new(&daemon.socket(0));
    let end = guest.mem.last_addr().0 + 1;
    let raw = |address, len, flags: u32| Part::Raw(Descriptor::new(address, len, flags as u16, 0));
    let at = |back| GuestAddress(end - back);
    guest.mem.write_slice(&get_value(), at(10)).unwrap();
    // Message and answer: the last bytes there are, then with some of them beyond. An answer that
    // is out of reach is not written at all.
    for (message, answer, len) in [(10, 2, 2), (10, 1, 0), (7, 2, 2), (0, 2, 2)] {
        let parts = [
            raw(end - message, 8, 0),
            raw(end - answer, 2, VRING_DESC_F_WRITE),
        ];
        guest.add(REQUEST_QUEUE, &parts);
        guest.kick(REQUEST_QUEUE);
        let used = guest.wait(REQUEST_QUEUE);
        assert_eq!(used.len, len, "{message} {answer}");
    }
    // More than 4 GiB in all.
    let parts = [
        read(get_value()),
        raw(0x20_0000, u32::MAX, VRING_DESC_F_WRITE),
        raw(0x20_0000, u32::MAX, VRING_DESC_F_WRITE),
    ];
    guest.add(REQUEST_QUEUE, &parts);
    guest.kick(REQUEST_QUEUE);
    guest.wait(REQUEST_QUEUE);
    guest.ok(2, 0, 0);
}

#[test]
fn random_bytes_in_the_rings() {
    let mut daemon = Daemon::start("lines=4");
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..40 {
        let mut guest = Guest::new(&daemon.socket(0));
        guest.ok(6, 0, 3);
        let mut junk = vec![0; 0x2000];
        random.fill(&mut junk);
        for queue in [REQUEST_QUEUE, EVENT_QUEUE] {
            let ring = guest.rings[queue].avail_index() - 2 - 16 * 256;
            guest.mem.write_slice(&junk, GuestAddress(ring)).unwrap();
            // An index within reach, so that the junk is looked at.
            let index = GuestAddress(guest.rings[queue].avail_index());
            guest.mem.write_obj(200_u16, index).unwrap();
            guest.kick(queue);
        }
        daemon.ok(&["toggle", "0", "--count", "3"]);
    }
    assert!(daemon.is_alive());
    Guest::new(&daemon.socket(0)).ok(2, 0, 0);
}
