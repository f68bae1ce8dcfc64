// SPDX-License-Identifier: GPL-2.0-only

//! A device that looks for requests before it sleeps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vgpio::wire::{EVENT_QUEUE, REQUEST_QUEUE};
use vhost::vhost_user::VhostUserFrontend;
use vhost::VhostBackend;
use vm_memory::{Bytes, GuestAddress};

use crate::daemon::{eventually, Daemon};
use crate::driver::{Guest, Options, EVENT_IDX, INDIRECT, IRQ};

const SET_VALUE: u16 = 5;
const FEATURES: [u64; 2] = [IRQ, IRQ | EVENT_IDX | INDIRECT];

fn guest(daemon: &Daemon, device: usize, features: u64) -> Guest {
    let options = Options {
        features,
        ..Options::default()
    };
    Guest::with(&daemon.socket(device), options)
}

/// Sets a line and waits for the answer, as a driver that bit-bangs does.
fn set(guest: &mut Guest, value: u32) {
    guest.post(SET_VALUE, 0, value);
    guest.kick_if_wanted(REQUEST_QUEUE);
    let end = Instant::now() + Duration::from_secs(5);
    let used = loop {
        if let Some(used) = guest.poll(REQUEST_QUEUE) {
            break used;
        }
        assert!(Instant::now() < end, "a request was lost");
        std::thread::yield_now();
    };
    assert_eq!(used.bytes[0], 0);
}

/// Has the device look for requests, from when this returns.
fn keep_busy(guest: &mut Guest) {
    // On a machine that has much else to do, requests follow slowly.
    let end = Instant::now() + Duration::from_secs(60);
    while guest.wants_kick(REQUEST_QUEUE) {
        set(guest, 0);
        assert!(Instant::now() < end, "never looks");
    }
}

/// Makes sure that the daemon sleeps.
fn sleeps(daemon: &Daemon) {
    let taken = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|it| it.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    };
    let before = taken();
    std::thread::sleep(Duration::from_millis(300));
    let taken = taken() - before;
    assert!(taken < Duration::from_millis(100), "spins: {taken:?}");
}

/// Notifications of `count` requests in a row.
fn kicks(daemon: &Daemon, features: u64, count: u32) -> u64 {
    let mut guest = guest(daemon, 0, features);
    for _ in 0..10 {
        set(&mut guest, 1);
    }
    daemon.ok(&["stats", "--reset"]);
    for turn in 0..count {
        set(&mut guest, turn % 2);
    }
    let stats = daemon.stats();
    assert_eq!(stats.request_queue.chains, u64::from(count));
    assert_eq!(stats.requests.set_value, u64::from(count));
    stats.request_queue.kicks
}

#[test]
fn requests_in_a_row_cost_no_notification() {
    for features in FEATURES {
        // Requests follow slowly on a machine that has much else to do.
        let mut runs = (0..30).map(|_| {
            let daemon = Daemon::start("lines=1,poll=10ms");
            kicks(&daemon, features, 1000)
        });
        let few = runs.any(|kicks| kicks < 50);
        assert!(few, "never less than 50 notifications of 1000 requests");
    }
}

#[test]
fn each_costs_one_without_poll() {
    for features in FEATURES {
        let kicks = kicks(&Daemon::start("lines=1"), features, 300);
        assert!(kicks > 200, "{kicks} notifications of 300 requests");
    }
}

#[test]
fn no_request_is_lost_when_it_goes_to_sleep() {
    let mut random = fastrand::Rng::with_seed(7);
    for features in FEATURES {
        let daemon = Daemon::start("lines=1,poll=100us");
        let mut guest = guest(&daemon, 0, features);
        for turn in 0..4000 {
            // As long as the device looks, give or take a little.
            let until = Instant::now() + Duration::from_micros(random.u64(90..115));
            set(&mut guest, turn % 2);
            while Instant::now() < until {}
        }
    }
}

#[test]
fn event_buffers_need_no_notification_either() {
    for features in FEATURES {
        let daemon = Daemon::start("lines=2,poll=10ms");
        let mut guest = guest(&daemon, 0, features);
        guest.ok(6, 1, 3);
        guest.arm(1);
        for round in 0..50 {
            keep_busy(&mut guest);
            daemon.client().toggle("1");
            let used = guest.wait(EVENT_QUEUE);
            assert_eq!(used.bytes, [1], "round {round}");
            guest.post_buffer(1);
            guest.kick_if_wanted(EVENT_QUEUE);
        }
        assert_eq!(daemon.stats().events_valid, 50);
    }
}

#[test]
fn sleeps_after_the_last_request() {
    for features in FEATURES {
        let daemon = Daemon::start("lines=1,poll=10ms");
        let mut guest = guest(&daemon, 0, features);
        keep_busy(&mut guest);
        eventually("wants to be notified", || guest.wants_kick(REQUEST_QUEUE));
        sleeps(&daemon);
        set(&mut guest, 1);
    }
}

#[test]
fn a_ring_that_becomes_invalid_is_left_alone() {
    let daemon = Daemon::start("lines=1,poll=10ms");
    let mut guest = guest(&daemon, 0, IRQ);
    keep_busy(&mut guest);
    let at = GuestAddress(guest.rings[REQUEST_QUEUE].avail_index());
    guest.mem.write_obj(0x7777_u16, at).unwrap();
    eventually("noticed", || daemon.log().contains("queue 0 is invalid"));
    sleeps(&daemon);
    guest.stop();
    guest.start();
    set(&mut guest, 1);
}

#[test]
fn a_ring_that_is_disabled_and_enabled_is_looked_at() {
    for features in FEATURES {
        let daemon = Daemon::start("lines=1,poll=10ms");
        let mut guest = guest(&daemon, 0, features);
        for _ in 0..10 {
            keep_busy(&mut guest);
            guest
                .frontend
                .set_vring_enable(REQUEST_QUEUE, false)
                .unwrap();
            guest.post(SET_VALUE, 0, 1);
            guest.kick_if_wanted(REQUEST_QUEUE);
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(guest.poll(REQUEST_QUEUE), None);
            guest
                .frontend
                .set_vring_enable(REQUEST_QUEUE, true)
                .unwrap();
            guest.wait(REQUEST_QUEUE);
        }
        sleeps(&daemon);
    }
}

#[test]
fn a_stop_a_new_start_and_a_guest_that_has_gone_end_it() {
    let daemon = Daemon::start("lines=1,poll=10ms");
    for features in FEATURES {
        for _ in 0..10 {
            let mut guest = guest(&daemon, 0, features);
            keep_busy(&mut guest);
            let bases = guest.stop();
            guest.attach(bases);
            keep_busy(&mut guest);
            guest.stop();
            guest.start();
            keep_busy(&mut guest);
        }
    }
    eventually("waiting", || daemon.ok(&["detect"]).contains("waiting"));
    sleeps(&daemon);
}

/// Ends what another thread does when it is dropped, as it is if this one panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A guest that sends as fast as it can locks out neither the host, nor another guest, nor its own
/// front end, nor the end.
#[test]
fn a_busy_guest_starves_no_one() {
    for features in FEATURES {
        let mut daemon = Daemon::start_all(&["lines=1,poll=10ms", "lines=2,names=a:b"]);
        let mut busy = guest(&daemon, 0, features);
        let mut other = guest(&daemon, 1, features);
        let heads: Vec<_> = (0..64).map(|_| busy.post(SET_VALUE, 0, 1)).collect();
        busy.kick(REQUEST_QUEUE);
        let done = AtomicBool::new(false);
        let Guest {
            frontend,
            mem,
            rings: [ring, _],
            ..
        } = &mut busy;
        std::thread::scope(|scope| {
            let _ends = Ends(&done);
            scope.spawn(|| {
                let used = GuestAddress(ring.used_index());
                let mut sent = heads.len() as u16;
                while !done.load(Ordering::Relaxed) {
                    let back: u16 = mem.load(used, Ordering::Acquire).unwrap();
                    while sent.wrapping_sub(back) < 64 {
                        ring.offer(
                            mem,
                            heads[usize::from(sent % 64)],
                            features & EVENT_IDX != 0,
                        );
                        sent = sent.wrapping_add(1);
                    }
                    // If the device has gone to sleep nevertheless.
                    ring.kick();
                }
            });
            let start = Instant::now();
            let mut client = daemon.client();
            for _ in 0..20 {
                client.toggle("b");
                daemon.ok(&["set", "-d", "0", "0=1"]);
                other.ok(2, 0, 0);
            }
            assert!(daemon.stats_of("0").request_queue.chains > 100, "was idle");
            frontend.get_vring_base(REQUEST_QUEUE).unwrap();
            assert!(start.elapsed() < Duration::from_secs(60), "held up");
        });
        busy.start();
        keep_busy(&mut busy);
        let start = Instant::now();
        assert_eq!(daemon.stop(Signal::TERM), Some(0));
        assert!(start.elapsed() < Duration::from_secs(20), "held up");
    }
}
