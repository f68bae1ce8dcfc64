// SPDX-License-Identifier: GPL-2.0-only

//! Guests and daemons that come and go.

use rustix::process::Signal;
use vgpio::wire::{EVENT_QUEUE, REQUEST_QUEUE};
use vhost::vhost_user::VhostUserFrontend;
use vhost::VhostBackend;

use crate::daemon::{eventually, Daemon};
use crate::driver::{Guest, PROTOCOL};

const UNUSED: &str = "\t\"a\"             \tunused active driven-by=host\n";

fn configure(guest: &mut Guest) {
    guest.ok(3, 0, 1);
    guest.ok(5, 0, 1);
    guest.ok(3, 1, 2);
    guest.ok(6, 1, 1);
    guest.arm(1);
    guest.no_event();
}

fn is_forgotten(daemon: &Daemon) -> bool {
    let info = daemon.ok(&["info"]);
    info.matches("unused").count() == 2
}

#[test]
fn a_new_front_end_finds_a_fresh_guest_side_and_the_hosts_levels() {
    let daemon = Daemon::start("lines=2");
    daemon.ok(&["set", "1=1"]);
    for _ in 0..20 {
        let mut guest = Guest::new(&daemon.socket(0));
        assert_eq!(guest.ok(4, 1, 0), 1);
        assert_eq!(guest.ok(2, 0, 0), 0);
        configure(&mut guest);
        assert!(daemon.ok(&["detect"]).contains("connected"));
        drop(guest);
        eventually("forgotten", || is_forgotten(&daemon));
    }
    assert!(daemon.ok(&["detect"]).contains("waiting"));
    assert_eq!(daemon.stats().connections, 20);
}

#[test]
fn descriptors_do_not_leak() {
    let daemon = Daemon::start("lines=1");
    let count = || {
        std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .unwrap()
            .count()
    };
    let connect = || {
        let mut guest = Guest::new(&daemon.socket(0));
        guest.ok(2, 0, 0);
    };
    connect();
    eventually("waiting", || daemon.ok(&["detect"]).contains("waiting"));
    let before = count();
    for _ in 0..10 {
        connect();
    }
    eventually("as few as before", || count() <= before);
}

#[test]
fn a_driver_that_restarts_finds_everything_forgotten() {
    let daemon = Daemon::start("lines=2");
    let mut guest = Guest::new(&daemon.socket(0));
    configure(&mut guest);
    // Reset as QEMU does it: stop, negotiate again, start from zero.
    guest.stop();
    assert!(is_forgotten(&daemon));
    let features = guest.features;
    guest.frontend.set_features(features).unwrap();
    guest.start();
    assert_eq!(guest.ok(2, 0, 0), 0);
    daemon.ok(&["set", "1=1"]);
    guest.arm(1);
    assert_eq!(guest.event().1, 0, "the type is forgotten");
}

#[test]
fn a_driver_that_restarts_without_stopping_the_rings() {
    let daemon = Daemon::start("lines=2");
    let mut guest = Guest::new(&daemon.socket(0));
    for round in 1..=5 {
        configure(&mut guest);
        // Reset as User-Mode Linux does it.
        for queue in [EVENT_QUEUE, REQUEST_QUEUE] {
            guest.frontend.set_vring_enable(queue, false).unwrap();
        }
        guest.frontend.get_features().unwrap();
        assert!(is_forgotten(&daemon));
        let features = guest.features;
        guest.frontend.set_features(features).unwrap();
        assert_eq!(daemon.stats().request_queue.disabled, round);
        assert_eq!(daemon.stats().event_queue.disabled, round);
        guest.start();
        assert_eq!(guest.ok(2, 0, 0), 0);
    }
}

#[test]
fn a_driver_that_restarts_and_neither_stops_nor_disables_the_rings() {
    let daemon = Daemon::start("lines=2");
    let mut guest = Guest::new(&daemon.socket(0));
    // User-Mode Linux again, after a driver that declined a feature: the bit without which a ring
    // needs no enabling got lost on the way.
    for _ in 0..5 {
        configure(&mut guest);
        guest.features &= !PROTOCOL;
        let features = guest.features;
        guest.frontend.set_features(features).unwrap();
        assert!(is_forgotten(&daemon));
        guest.start();
        assert_eq!(guest.ok(2, 0, 0), 0);
        daemon.ok(&["set", "1=0"]);
    }
    // Its last words before it frees the rings.
    configure(&mut guest);
    guest.frontend.get_features().unwrap();
    assert!(is_forgotten(&daemon));
    daemon.ok(&["set", "1=1"]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(guest.poll(EVENT_QUEUE), None, "written to freed memory");
}

#[test]
fn a_paused_guest_is_not_forgotten() {
    let daemon = Daemon::start("lines=2");
    let mut guest = Guest::new(&daemon.socket(0));
    for _ in 0..3 {
        configure(&mut guest);
        let bases = guest.stop();
        let features = guest.features;
        guest.frontend.set_features(features).unwrap();
        guest.attach(bases);
        assert_eq!(guest.ok(2, 0, 0), 1);
        assert_eq!(guest.ok(4, 0, 0), 1);
        daemon.ok(&["set", "1=1"]);
        assert_eq!(guest.event().1, 1, "the buffer from before");
        daemon.ok(&["set", "1=0"]);
        guest.ok(6, 1, 0);
    }
}

#[test]
fn what_happens_during_a_pause_is_not_lost() {
    let daemon = Daemon::start("lines=2");
    let mut guest = Guest::new(&daemon.socket(0));
    configure(&mut guest);
    daemon.ok(&["fault", "set", "delay=300ms,type=get-value"]);
    let head = guest.post(4, 0, 0);
    guest.kick(REQUEST_QUEUE);
    eventually("seen", || daemon.stats().requests.get_value == 1);
    guest.signals(REQUEST_QUEUE);
    let bases = guest.stop();
    daemon.ok(&["set", "1=1"]);
    std::thread::sleep(std::time::Duration::from_millis(350));
    assert_eq!(guest.poll(REQUEST_QUEUE), None, "answered while stopped");
    guest.attach(bases);
    eventually("the interrupt", || guest.signals(REQUEST_QUEUE) == 1);
    let used = guest.wait(REQUEST_QUEUE);
    assert_eq!((used.head, used.bytes), (head, vec![0, 1]));
    assert_eq!(guest.event().1, 1, "the edge");
}

#[test]
fn a_disabled_ring_is_left_alone_and_catches_up() {
    let daemon = Daemon::start("lines=2");
    let mut guest = Guest::new(&daemon.socket(0));
    configure(&mut guest);
    for queue in [REQUEST_QUEUE, EVENT_QUEUE] {
        guest.frontend.set_vring_enable(queue, false).unwrap();
    }
    daemon.ok(&["set", "1=1"]);
    guest.post(4, 1, 0);
    guest.kick(REQUEST_QUEUE);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(guest.poll(EVENT_QUEUE), None);
    assert_eq!(guest.poll(REQUEST_QUEUE), None);
    for queue in [REQUEST_QUEUE, EVENT_QUEUE] {
        guest.frontend.set_vring_enable(queue, true).unwrap();
    }
    assert_eq!(guest.event().1, 1);
    assert_eq!(guest.wait(REQUEST_QUEUE).bytes, [0, 1]);
}

#[test]
fn the_host_can_hang_up() {
    let daemon = Daemon::start("lines=1");
    let guest = Guest::new(&daemon.socket(0));
    daemon.ok(&["disconnect"]);
    eventually("gone", || guest.frontend.get_features().is_err());
    Guest::new(&daemon.socket(0)).ok(2, 0, 0);
    daemon.ok(&["disconnect"]);
}

#[test]
fn signals_end_it_cleanly() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start_all(&["lines=1", "lines=1"]);
        let _guest = Guest::new(&daemon.socket(1));
        assert_eq!(daemon.stop(signal), Some(0));
        let left: Vec<_> = std::fs::read_dir(daemon.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["log"]);
    }
}

#[test]
fn names_show_in_info_after_the_guest_is_gone() {
    let daemon = Daemon::start("lines=1,names=a,values=1");
    drop(Guest::new(&daemon.socket(0)));
    assert!(daemon.ok(&["info"]).ends_with(UNUSED));
}
