// SPDX-License-Identifier: GPL-2.0-only

//! Interrupts over the event queue.

use std::collections::HashMap;
use std::time::Duration;

use vgpio::control::{Reply, Request};
use vgpio::wire::{EVENT_QUEUE, REQUEST_QUEUE};

use crate::daemon::{eventually, Daemon};
use crate::driver::{Guest, Options, EVENT_IDX, INDIRECT, IRQ};

const VALID: u8 = 1;
const INVALID: u8 = 0;

fn start(device: &str) -> (Daemon, Guest) {
    let daemon = Daemon::start(device);
    let guest = Guest::new(&daemon.socket(0));
    (daemon, guest)
}

#[test]
fn v3_direction_none_returns_the_buffer() {
    let (_daemon, mut guest) = start("lines=2");
    guest.ok(3, 1, 2);
    guest.ok(6, 1, 3);
    let head = guest.arm(1);
    guest.no_event();
    guest.ok(3, 1, 0);
    assert_eq!(guest.event(), (head, INVALID));
    let head = guest.arm(1);
    assert_eq!(guest.event(), (head, INVALID), "the type is forgotten");
}

#[test]
fn v4_edge_latched_while_masked() {
    let (daemon, mut guest) = start("lines=2");
    guest.ok(3, 1, 2);
    guest.ok(6, 1, 1);
    daemon.ok(&["set", "1=1"]);
    guest.no_event();
    let head = guest.arm(1);
    assert_eq!(guest.event(), (head, VALID));
    guest.arm(1);
    guest.no_event();
    assert_eq!(daemon.stats().edges_latched, 1);
}

#[test]
fn v4_level_not_latched_and_latch_dropped() {
    let (daemon, mut guest) = start("lines=1");
    guest.ok(6, 0, 4);
    daemon.ok(&["set", "0=1"]);
    daemon.ok(&["set", "0=0"]);
    guest.arm(0);
    guest.no_event();
    guest.ok(6, 0, 0);
    assert_eq!(guest.event().1, INVALID);

    guest.ok(6, 0, 3);
    daemon.ok(&["set", "0=1"]);
    guest.ok(6, 0, 0);
    guest.ok(6, 0, 3);
    guest.arm(0);
    guest.no_event();
}

#[test]
fn v5_an_event_needs_type_and_buffer() {
    for features in [IRQ, IRQ | EVENT_IDX, IRQ | INDIRECT | EVENT_IDX] {
        let daemon = Daemon::start("lines=3");
        let options = Options {
            features,
            ..Options::default()
        };
        let mut guest = Guest::with(&daemon.socket(0), options);
        guest.ok(6, 2, 2);
        daemon.ok(&["set", "2=1"]);
        let head = guest.arm(2);
        guest.no_event();
        guest.signals(EVENT_QUEUE);
        daemon.ok(&["set", "2=0"]);
        assert_eq!(guest.event(), (head, VALID));
        eventually("the interrupt", || guest.signals(EVENT_QUEUE) == 1);
        daemon.ok(&["set", "2=1", "2=0"]);
        guest.no_event();
        guest.arm(2);
        assert_eq!(guest.event().1, VALID, "latched meanwhile");
    }
}

#[test]
fn v6_buffers_come_back_when_of_no_use() {
    let (daemon, mut guest) = start("lines=2");
    let head = guest.arm(0);
    assert_eq!(guest.event(), (head, INVALID), "not enabled");
    let head = guest.arm(7);
    assert_eq!(guest.event(), (head, INVALID), "no such line");
    guest.ok(6, 0, 1);
    let first = guest.arm(0);
    let second = guest.arm(0);
    assert_eq!(guest.event(), (second, INVALID), "one per line");
    guest.ok(6, 0, 0);
    assert_eq!(guest.event(), (first, INVALID), "disabled");
    let stats = daemon.stats();
    assert_eq!((stats.events_valid, stats.events_invalid), (0, 4));
}

#[test]
fn v7_level_fires_until_it_ends() {
    let (daemon, mut guest) = start("lines=1,values=1");
    guest.ok(6, 0, 4);
    for _ in 0..5 {
        let head = guest.arm(0);
        assert_eq!(guest.event(), (head, VALID));
    }
    daemon.ok(&["set", "0=0"]);
    guest.arm(0);
    guest.no_event();
    daemon.ok(&["set", "0=1"]);
    assert_eq!(guest.event().1, VALID);
}

#[test]
fn many_lines_in_one_go_and_one_interrupt() {
    let daemon = Daemon::start("lines=512");
    let options = Options {
        size: 1024,
        ..Options::default()
    };
    let mut guest = Guest::with(&daemon.socket(0), options);
    let mut heads = Vec::new();
    for line in 0..512 {
        guest.ok(6, line, 1);
        heads.push(guest.arm(line));
    }
    guest.no_event();
    guest.signals(EVENT_QUEUE);
    let words: Vec<_> = (0..512).map(|line| format!("{line}=1")).collect();
    let mut args = vec!["set"];
    args.extend(words.iter().map(String::as_str));
    daemon.ok(&args);
    for head in heads {
        assert_eq!(guest.event(), (head, VALID));
    }
    eventually("the interrupt", || guest.signals(EVENT_QUEUE) == 1);
}

#[test]
fn no_edge_is_lost_armed_or_masked() {
    let (daemon, mut guest) = start("lines=1");
    let mut host = daemon.client();
    guest.ok(6, 0, 3);
    for turn in 0..500 {
        let masked = turn % 2 == 0;
        if masked {
            host.toggle("0");
        }
        let head = guest.arm(0);
        if !masked {
            host.toggle("0");
        }
        assert_eq!(guest.event(), (head, VALID), "turn {turn}");
    }
    let stats = daemon.stats();
    assert_eq!((stats.host_changes, stats.events_valid), (500, 500));
    assert_eq!(stats.edges_merged, 0);
}

#[test]
fn every_edge_counts_while_both_sides_are_busy() {
    const TURNS: u64 = 5000;

    let (daemon, mut guest) = start("lines=8");
    let mut armed = HashMap::new();
    for line in 0..4 {
        guest.ok(6, line, 3);
        armed.insert(guest.arm(line), line);
    }
    let mut client = daemon.client();
    let host = std::thread::spawn(move || {
        client.ask(&Request::Toggle {
            device: None,
            lines: ["0", "1", "2", "3"].map(str::to_owned).to_vec(),
            count: TURNS,
            interval_us: 20,
        })
    });
    let mut answers = 0;
    let mut outstanding = 0;
    loop {
        let quiet = host.is_finished();
        while outstanding < 32 && !quiet {
            guest.post(5, 4 + outstanding % 4, 1);
            outstanding += 1;
        }
        guest.kick(REQUEST_QUEUE);
        while let Some(used) = guest.poll(REQUEST_QUEUE) {
            assert_eq!(used.bytes, [0, 0]);
            answers += 1;
            outstanding -= 1;
        }
        let event = guest.wait_for(EVENT_QUEUE, Duration::from_millis(u64::from(quiet) * 100));
        if let Some(used) = event {
            assert_eq!((used.len, used.bytes), (1, vec![VALID]));
            let line = armed.remove(&used.head).unwrap();
            armed.insert(guest.arm(line), line);
        } else if quiet && outstanding == 0 {
            break;
        }
    }
    assert_eq!(host.join().unwrap(), Reply::Done);
    let stats = daemon.stats();
    assert_eq!(stats.host_changes, 4 * TURNS);
    // Each edge made an event, or fell together with one that was about to make one.
    assert_eq!(stats.events_valid + stats.edges_merged, 4 * TURNS);
    assert_eq!(stats.requests.set_value, answers);
    assert_eq!((stats.events_invalid, stats.answered_err), (0, 0));
}
