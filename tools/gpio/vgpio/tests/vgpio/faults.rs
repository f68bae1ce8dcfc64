// SPDX-License-Identifier: GPL-2.0-only

//! Misbehaviour, as the guest sees it.

use std::time::{Duration, Instant};

use vgpio::wire::{EVENT_QUEUE, REQUEST_QUEUE};
use vhost::vhost_user::VhostUserFrontend;
use vhost::VhostBackend;

use crate::daemon::{eventually, Daemon};
use crate::driver::{Guest, PROTOCOL, UNTOUCHED};

const SHORT: Duration = Duration::from_millis(30);

fn start(faults: &[&str]) -> (Daemon, Guest) {
    let daemon = Daemon::start("lines=8,names=a:b");
    let guest = Guest::new(&daemon.socket(0));
    let mut args = vec!["fault", "set"];
    args.extend(faults);
    daemon.ok(&args);
    (daemon, guest)
}

/// Sends requests in one batch; returns their heads in the order of the answers.
fn batch(guest: &mut Guest, lines: &[u16]) -> (Vec<u16>, Vec<u16>) {
    let sent: Vec<_> = lines.iter().map(|line| guest.post(4, *line, 0)).collect();
    guest.kick(REQUEST_QUEUE);
    let answered = lines
        .iter()
        .map(|_| guest.wait(REQUEST_QUEUE).head)
        .collect();
    (sent, answered)
}

#[test]
fn delay_holds_one_line_and_keeps_its_order() {
    let (_daemon, mut guest) = start(&["delay=60ms,line=b,count=1"]);
    let begin = Instant::now();
    let (sent, answered) = batch(&mut guest, &[1, 1, 0, 2]);
    assert_eq!(answered, [sent[2], sent[3], sent[0], sent[1]]);
    assert!(begin.elapsed() >= Duration::from_millis(60));
}

#[test]
fn silence() {
    let (daemon, mut guest) = start(&["silent,type=set-value,line=0,count=1"]);
    guest.ok(3, 0, 1);
    guest.post(5, 0, 1);
    guest.kick(REQUEST_QUEUE);
    assert_eq!(guest.wait_for(REQUEST_QUEUE, SHORT), None);
    assert_eq!(
        guest.ok(4, 0, 0),
        0,
        "not carried out; the device still works"
    );
    assert_eq!(guest.ok(5, 0, 1), 0);
    assert_eq!(daemon.stats().faults, 1);
}

#[test]
fn deafness_stops_at_rings_that_are_stopped() {
    let (daemon, mut guest) = start(&["deaf", "delay=1s,type=get-value"]);
    for disable in [false, true] {
        guest.ok(3, 1, 2);
        guest.ok(6, 1, 1);
        guest.arm(1);
        guest.post(4, 0, 0);
        guest.kick(REQUEST_QUEUE);
        let late = daemon.stats().late;
        eventually("seen", || daemon.stats().requests.get_value > 0);
        if disable {
            for queue in [EVENT_QUEUE, REQUEST_QUEUE] {
                guest.frontend.set_vring_enable(queue, false).unwrap();
            }
        } else {
            guest.stop();
        }
        guest.frontend.get_features().unwrap();
        daemon.ok(&["set", "1=1"]);
        eventually("due", || daemon.stats().late == late + 2);
        assert_eq!(guest.poll(EVENT_QUEUE), None);
        assert_eq!(guest.poll(REQUEST_QUEUE), None);
        let features = guest.features;
        guest.frontend.set_features(features).unwrap();
        guest.start();
        assert_eq!(guest.poll(EVENT_QUEUE), None, "from before");
        assert_eq!(guest.ok(2, 1, 0), 0, "forgotten with the new features");
        daemon.ok(&["set", "1=0"]);
        daemon.ok(&["stats", "--reset"]);
    }
}

#[test]
fn deafness_reaches_rings_that_are_not_stopped() {
    let (daemon, mut guest) = start(&["deaf"]);
    // User-Mode Linux as of Linux 7.2.
    guest.features &= !PROTOCOL;
    let features = guest.features;
    guest.frontend.set_features(features).unwrap();
    guest.start();
    guest.ok(3, 1, 2);
    guest.ok(6, 1, 1);
    guest.arm(1);
    guest.frontend.get_features().unwrap();
    daemon.ok(&["set", "1=1"]);
    assert_eq!(guest.event().1, 1);
    assert_eq!(daemon.stats().late, 0);
}

#[test]
fn status_and_value() {
    let (_daemon, mut guest) = start(&[
        "status=err,type=set-value,count=1",
        "status=77,type=set-direction,line=3,count=1",
        "value=9,type=get-value,count=1",
        "value=5,type=get-direction,count=1",
    ]);
    assert_eq!(guest.request(5, 0, 1), (1, 0));
    guest.ok(3, 0, 1);
    assert_eq!(guest.ok(4, 0, 0), 9);
    assert_eq!(guest.ok(4, 0, 0), 0, "not carried out");
    assert_eq!(guest.request(3, 3, 1), (77, 0));
    assert_eq!(guest.ok(2, 3, 0), 5);
    assert_eq!(guest.ok(2, 3, 0), 0);
}

#[test]
fn false_lengths_and_stale_memory() {
    let (_daemon, mut guest) = start(&[
        "used-len=short,line=0",
        "used-len=long,line=1",
        "used-len=zero,line=2",
        "used-len=4000000000,line=3",
        "stale,line=4",
        "stale,line=5",
        "used-len=1,line=5",
    ]);
    for (line, len, touched) in [
        (0, 1, true),
        (1, 3, true),
        (2, 0, true),
        (3, 4_000_000_000, true),
        (4, 2, false),
        (5, 1, false),
        (6, 2, true),
    ] {
        guest.post(2, line, 0);
        guest.kick(REQUEST_QUEUE);
        let used = guest.wait(REQUEST_QUEUE);
        assert_eq!(used.len, len, "line {line}");
        let bytes = if touched { [0, 0] } else { [UNTOUCHED; 2] };
        assert_eq!(used.bytes, bytes, "line {line}");
    }
}

#[test]
fn reversal_within_a_batch() {
    let (_daemon, mut guest) = start(&["reorder"]);
    let (sent, answered) = batch(&mut guest, &[0, 1, 2, 1, 3]);
    // The other way round, except that the two of line 1 keep their order.
    assert_eq!(answered, [sent[4], sent[1], sent[2], sent[3], sent[0]]);
    let (sent, answered) = batch(&mut guest, &[0]);
    assert_eq!(answered, sent);
}

#[test]
fn reversal_of_a_number() {
    let (_daemon, mut guest) = start(&["reorder=2"]);
    let (sent, answered) = batch(&mut guest, &[0, 1, 2, 3, 4]);
    // The last one waits for another in vain, until a timeout.
    assert_eq!(answered, [sent[1], sent[0], sent[3], sent[2], sent[4]]);
}

#[test]
fn disconnect_happens_once() {
    let (daemon, mut guest) = start(&["disconnect,type=get-value"]);
    guest.ok(2, 0, 0);
    guest.post(4, 0, 0);
    guest.kick(REQUEST_QUEUE);
    use vhost::VhostBackend;
    eventually("gone", || guest.frontend.get_features().is_err());
    drop(guest);
    let mut guest = Guest::new(&daemon.socket(0));
    guest.ok(4, 0, 0);
}

#[test]
fn events_that_go_wrong() {
    let (daemon, mut guest) = start(&[
        "silent-events,line=0",
        "event-status=9,line=1",
        "invalid-events,line=2,count=1",
        "used-len=zero,type=event,line=3",
        "stale,type=event,line=4",
        "delay=40ms,type=event,line=5",
        "hold-irq-buffer=40ms,line=6",
    ]);
    for line in 0..7 {
        guest.ok(6, line, 1);
    }
    guest.arm(0);
    daemon.ok(&["set", "0=1"]);
    guest.no_event();

    guest.arm(1);
    daemon.ok(&["set", "1=1"]);
    assert_eq!(guest.event().1, 9);

    guest.arm(2);
    assert_eq!(guest.event().1, 0, "refused");
    guest.arm(2);
    daemon.ok(&["set", "2=1"]);
    assert_eq!(guest.event().1, 1);

    guest.arm(3);
    daemon.ok(&["set", "3=1"]);
    let used = guest.wait(EVENT_QUEUE);
    assert_eq!((used.len, used.bytes), (0, vec![1]));

    guest.arm(4);
    daemon.ok(&["set", "4=1"]);
    let used = guest.wait(EVENT_QUEUE);
    assert_eq!((used.len, used.bytes), (1, vec![UNTOUCHED]));

    guest.arm(5);
    let begin = Instant::now();
    daemon.ok(&["set", "5=1"]);
    assert_eq!(guest.event().1, 1);
    assert!(begin.elapsed() >= Duration::from_millis(40));

    guest.arm(6);
    let begin = Instant::now();
    guest.ok(6, 6, 0);
    assert_eq!(guest.event().1, 0);
    assert!(
        begin.elapsed() >= Duration::from_millis(40),
        "after the answer"
    );
}

#[test]
fn waiting_answers_die_with_the_guest() {
    let (daemon, mut guest) = start(&["delay=50ms"]);
    guest.post(4, 0, 0);
    guest.kick(REQUEST_QUEUE);
    eventually("seen", || daemon.stats().requests.get_value == 1);
    guest.stop();
    guest.start();
    assert_eq!(
        guest.wait_for(REQUEST_QUEUE, Duration::from_millis(80)),
        None
    );
    daemon.ok(&["fault", "clear"]);
    guest.ok(4, 0, 0);
}

#[test]
fn faults_are_listed_and_cleared() {
    let (daemon, mut guest) = start(&["silent,line=b", "status=err", "value=3,count=5"]);
    assert_eq!(
        daemon.ok(&["fault", "list"]),
        "vgpio0 1: silent,line=1\nvgpio0 2: status=1\nvgpio0 3: value=3,count=5\n"
    );
    daemon.ok(&["fault", "clear", "2"]);
    assert_eq!(guest.ok(4, 0, 0), 3);
    assert!(daemon
        .ok(&["fault", "list"])
        .ends_with("3: value=3,count=4\n"));
    daemon.ok(&["fault", "clear"]);
    assert_eq!(daemon.ok(&["fault", "list"]), "");
    assert_eq!(guest.ok(4, 1, 0), 0);
}

#[test]
fn bad_faults_get_one_line() {
    let (daemon, _guest) = start(&["silent"]);
    for (fault, text) in [
        ("sulk", "unknown fault \"sulk\""),
        ("delay", "needs delay=ARGUMENT"),
        ("delay=soon", "bad duration"),
        ("silent,line=zz", "no line \"zz\""),
        ("silent,line=8", "no line \"8\""),
        ("silent,type=x", "use one of get-line-names"),
    ] {
        let error = daemon.fails(&["fault", "set", fault]);
        assert!(error.contains(text), "{error}");
    }
    assert!(daemon
        .fails(&["fault", "clear", "7"])
        .contains("no fault 7"));
}
