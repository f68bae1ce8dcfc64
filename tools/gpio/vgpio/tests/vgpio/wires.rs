// SPDX-License-Identifier: GPL-2.0-only

//! Wires from what one guest drives to what another one reads.

use std::time::Duration;

use crate::daemon::{eventually, Daemon};
use crate::driver::Guest;

const NONE: u32 = 0;
const OUT: u32 = 1;
const IN: u32 = 2;
const BOTH: u32 = 3;

/// Two devices with a guest each.
struct Pair {
    daemon: Daemon,
    a: Guest,
    b: Guest,
}

fn pair() -> Pair {
    let daemon = Daemon::start_all(&[
        "lines=4,label=a,names=clock:data:a2",
        "lines=4,label=b,names=in:out:b2",
    ]);
    let [a, b] = [0, 1].map(|index| Guest::new(&daemon.socket(index)));
    Pair { daemon, a, b }
}

/// Whether this is the level that the host gives a line of the second device.
fn is(daemon: &Daemon, line: &str, level: bool) -> bool {
    let info = daemon.ok(&["info", "-d", "b", "--json", line]);
    info.contains(&format!("\"host\": {level}"))
}

#[test]
fn one_guest_has_interrupts_of_what_another_drives() {
    let Pair {
        daemon,
        mut a,
        mut b,
    } = pair();
    daemon.ok(&["wire", "clock", "in"]);
    assert!(daemon.ok(&["info", "clock"]).contains(" wire=b:0\n"));
    b.ok(3, 0, IN);
    b.ok(6, 0, BOTH);
    a.ok(3, 0, OUT);
    for turn in 1..=40 {
        let head = b.arm(0);
        a.ok(5, 0, turn % 2);
        assert_eq!(b.event(), (head, 1));
        assert_eq!(b.ok(4, 0, 0), (turn % 2) as u8);
    }
    // One for the start.
    assert_eq!(daemon.stats_of("b").wire_changes, 41);
    // The other direction is another wire.
    b.ok(3, 1, OUT);
    b.ok(5, 1, 1);
    daemon.ok(&["wire", "out", "--to-device", "0", "1"]);
    assert_eq!(a.ok(4, 1, 0), 1, "the level that is there");
    daemon.ok(&["wire", "out"]);
    assert_eq!(a.ok(4, 1, 0), 0, "inactive without the wire");
    b.ok(5, 1, 0);
    b.ok(5, 1, 1);
    assert_eq!(a.ok(4, 1, 0), 0);
    assert!(!daemon.ok(&["info"]).contains("wire=a"));
}

/// Lines keep their order: a clock and its data arrive as they were sent.
#[test]
fn wires_between_two_devices_keep_their_order() {
    let Pair { daemon, mut a, .. } = pair();
    daemon.ok(&["wire", "clock", "in"]);
    daemon.ok(&["wire", "data", "--to-device", "b", "2"]);
    let mut mon = daemon.watch(&["mon", "-d", "b", "-n", "60"]);
    for line in [0, 1] {
        a.ok(3, line, OUT);
    }
    for turn in 1..=30 {
        for line in [1, 0] {
            a.ok(5, line, turn % 2);
        }
    }
    for turn in 0..60 {
        let edge = mon.next();
        let line = ["\"b2\"", "\"in\""][turn % 2];
        let level = ["=active", "=inactive"][turn / 2 % 2];
        assert!(edge.contains(&format!("{line}{level}")), "{turn}: {edge}");
    }
}

#[test]
fn the_end_follows_when_the_guest_lets_go() {
    let Pair { daemon, mut a, .. } = pair();
    daemon.ok(&["wire", "clock", "in"]);
    let becomes = |level| eventually("the level", || is(&daemon, "in", level));
    a.ok(3, 0, OUT);
    a.ok(5, 0, 1);
    becomes(true);
    a.ok(3, 0, NONE);
    becomes(false);
    for turn in 0..4 {
        a.ok(5, 0, 1);
        a.ok(3, 0, OUT);
        becomes(true);
        match turn {
            0 => {}
            1 => drop(daemon.ok(&["disconnect", "-d", "a"])),
            _ => {
                a.stop();
                assert!(is(&daemon, "in", true), "it may be paused only");
            }
        }
        if turn == 3 {
            // A driver that starts anew.
            a.start();
            a.ok(2, 0, 0);
        } else {
            drop(a);
            a = Guest::new(&daemon.socket(0));
        }
        becomes(false);
    }
}

#[test]
fn a_pause_is_no_change() {
    let Pair { daemon, mut a, .. } = pair();
    daemon.ok(&["wire", "clock", "in"]);
    a.ok(3, 0, OUT);
    a.ok(5, 0, 1);
    let mut mon = daemon.watch(&["mon", "in"]);
    let bases = a.stop();
    a.attach(bases);
    a.ok(2, 0, 0);
    a.ok(5, 0, 0);
    let edge = mon.line();
    assert!(edge.contains("falling"), "{edge}");
    assert_eq!(daemon.stats_of("b").wire_changes, 3);
}

/// The end of a wire is the host's: it is there for the next guest, too.
#[test]
fn the_guest_at_the_end_comes_and_goes() {
    let Pair {
        daemon,
        mut a,
        mut b,
    } = pair();
    daemon.ok(&["wire", "clock", "in"]);
    a.ok(3, 0, OUT);
    let socket = daemon.socket(1);
    for turn in 0..20 {
        a.ok(5, 0, 1 - turn % 2);
        if turn % 3 == 0 {
            daemon.ok(&["disconnect", "-d", "b"]);
        }
        drop(b);
        for value in [0, 1, turn % 2] {
            a.ok(5, 0, value);
        }
        b = Guest::new(&socket);
        eventually("the last level", || b.ok(4, 0, 0) == (turn % 2) as u8);
    }
}

#[test]
fn a_thousand_wires() {
    let daemon = Daemon::start_all(&["lines=1000,label=a", "lines=1000,label=b"]);
    let mut guests = [0, 1].map(|index| Guest::new(&daemon.socket(index)));
    let tasks = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid()));
        tasks.unwrap().count()
    };
    let before = tasks();
    let mut client = daemon.client();
    let mut wire = |from: &str, line: u16, to: Option<u16>| {
        let request = vgpio::control::Request::Wire {
            device: Some(from.into()),
            from: line.to_string(),
            to: to.map(|it| it.to_string()),
            to_device: to.map(|_| if from == "a" { "b" } else { "a" }.into()),
        };
        assert_eq!(client.ask(&request), vgpio::control::Reply::Done);
    };
    for line in 0..1000 {
        wire("a", line, Some(line));
        wire("b", line, Some(999 - line));
    }
    // One for each device that wires start from, and that of the client.
    assert_eq!(tasks(), before + 3);
    for guest in &mut guests {
        for line in 0..1000 {
            guest.ok(5, line, 1);
            guest.ok(3, line, OUT);
        }
    }
    let active = |device| {
        let info = daemon.ok(&["info", "-d", device, "--json"]);
        info.matches("\"host\": true").count()
    };
    eventually("all levels", || active("a") == 1000 && active("b") == 1000);
    for line in 0..1000 {
        wire("a", line, None);
        wire("b", line, None);
    }
    assert_eq!((active("a"), active("b")), (0, 0));
    for device in ["a", "b"] {
        let stats = daemon.stats_of(device);
        assert_eq!((stats.wire_changes, stats.wire_dropped), (3000, 0));
    }
}

/// Both guests as fast as they can, over wires in a circle, while the host cuts and makes them.
#[test]
fn wires_that_are_cut_and_made_under_load() {
    let Pair { daemon, a, b } = pair();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let drive = |mut guest: Guest| {
        guest.ok(3, 0, OUT);
        let mut turn = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            turn += 1;
            guest.ok(5, 0, turn % 2);
        }
        guest
    };
    let guests = std::thread::scope(|scope| {
        let threads = [a, b].map(|guest| scope.spawn(|| drive(guest)));
        for _ in 0..30 {
            daemon.ok(&["wire", "clock", "in"]);
            daemon.ok(&["wire", "in", "clock"]);
            daemon.ok(&["wire", "clock"]);
            daemon.ok(&["wire", "in"]);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        threads.map(|it| it.join().unwrap())
    });
    let info = daemon.ok(&["info", "clock", "in"]);
    assert_eq!(info.matches("host=inactive").count(), 2, "{info}");
    let changes = || ["a", "b"].map(|it| daemon.stats_of(it).wire_changes);
    let before = changes();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(changes(), before);
    drop(guests);
}

#[test]
fn ends_that_are_not_there() {
    let daemon = Daemon::start_all(&[
        "lines=2,label=a,names=one:both",
        "lines=2,label=b,names=two:both",
        "lines=3,label=c,names=:both",
    ]);
    for (args, text) in [
        (&["wire", "one", "three"][..], "no line is called \"three\""),
        (
            &["wire", "one", "--to-device", "b", "2"],
            "b has lines 0 to 1",
        ),
        (&["wire", "one", "2"], "a has lines 0 to 1"),
        (&["wire", "one", "--to-device", "d", "0"], "no device \"d\""),
        (
            &["wire", "two", "one", "--to-device", "c"],
            "no line is called \"one\"",
        ),
        (&["wire", "both", "one"], "choose one with --device"),
    ] {
        let error = daemon.fails(args);
        assert!(error.contains(text), "{args:?}: {error}");
    }
    assert!(!daemon.ok(&["info"]).contains("wire="));
    // The nearest one, or that of the device.
    daemon.ok(&["wire", "one", "both"]);
    assert!(daemon.ok(&["info", "one"]).contains("wire=a:1"));
    daemon.ok(&["wire", "one", "both", "--to-device", "c"]);
    assert!(daemon.ok(&["info", "one"]).contains("wire=c:1"));
    let two = Daemon::start_all(&["lines=1,names=x", "lines=1,names=y", "lines=1,names=y"]);
    let error = two.fails(&["wire", "x", "y"]);
    assert!(error.contains("choose one with --to-device"), "{error}");
}
