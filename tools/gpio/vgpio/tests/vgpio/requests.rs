// SPDX-License-Identifier: GPL-2.0-only

//! Config space, requests and their answers.

use vgpio::wire::{Request, REQUEST_QUEUE};

use crate::daemon::Daemon;
use crate::driver::{read, write, Guest, Options, EVENT_IDX, INDIRECT, IRQ, UNTOUCHED};

#[test]
fn v1_config_is_complete_at_any_offset_and_size() {
    let daemon = Daemon::start("lines=513,names=ab::c");
    let mut guest = Guest::new(&daemon.socket(0));
    // "ab", "c" and one terminator for each of 513 lines.
    let config = [1, 2, 0, 0, 4, 2, 0, 0];
    for offset in 0..8_usize {
        for size in 1..=(8 - offset) {
            assert_eq!(
                guest.config(offset as u32, size as u32),
                config[offset..offset + size],
                "offset {offset} size {size}"
            );
        }
    }
    assert_eq!(
        guest.config(4, 8),
        [4, 2, 0, 0, 0, 0, 0, 0],
        "beyond the end"
    );
}

#[test]
fn config_writes_are_ignored() {
    use vhost::vhost_user::message::VhostUserConfigFlags;
    use vhost::vhost_user::VhostUserFrontend;

    let daemon = Daemon::start("lines=3");
    let mut guest = Guest::new(&daemon.socket(0));
    let flags = VhostUserConfigFlags::WRITABLE;
    guest.frontend.set_config(0, flags, &[9, 9]).unwrap();
    assert_eq!(guest.config(0, 4), [3, 0, 0, 0]);
}

#[test]
fn v8_no_names_no_size() {
    let daemon = Daemon::start("lines=2");
    let mut guest = Guest::new(&daemon.socket(0));
    assert_eq!(guest.config(4, 4), [0, 0, 0, 0]);
    assert_eq!(guest.request(1, 0, 0), (1, 0), "GET_LINE_NAMES");
}

#[test]
fn names_in_one_answer() {
    let daemon = Daemon::start("lines=4,names=a::bcd");
    let mut guest = Guest::new(&daemon.socket(0));
    let request = Request {
        kind: 1,
        line: 0,
        value: 0,
    };
    let size = u32::from_le_bytes(guest.config(4, 4).try_into().unwrap());
    for parts in [&[size + 1][..], &[1, size], &[2, 2, size], &[1; 9]] {
        let mut chain = vec![read(request.to_bytes())];
        chain.extend(parts.iter().map(|len| write(*len)));
        guest.add(REQUEST_QUEUE, &chain);
        guest.kick(REQUEST_QUEUE);
        let used = guest.wait(REQUEST_QUEUE);
        assert_eq!(used.len, size + 1);
        assert_eq!(used.bytes[..9], *b"\0a\0\0bcd\0\0", "{parts:?}");
    }
}

#[test]
fn v1_every_answer_has_both_bytes() {
    let daemon = Daemon::start("lines=2,values=1");
    let mut guest = Guest::new(&daemon.socket(0));
    for (kind, line, value, answer) in [
        (2, 0, 0, (0, 0)),
        (3, 0, 2, (0, 0)),
        (2, 0, 0, (0, 2)),
        (4, 0, 0, (0, 1)),
        (4, 1, 0, (0, 0)),
        (5, 0, 0, (0, 0)),
        (3, 0, 1, (0, 0)),
        (4, 0, 0, (0, 0)),
        (6, 1, 3, (0, 0)),
        // Refused: bad lines, values, types, and an interrupt of an output.
        (2, 2, 0, (1, 0)),
        (3, 0xffff, 1, (1, 0)),
        (3, 0, 3, (1, 0)),
        (5, 0, 2, (1, 0)),
        (6, 1, 5, (1, 0)),
        (6, 0, 1, (1, 0)),
        (0, 0, 0, (1, 0)),
        (7, 0, 0, (1, 0)),
        (0xffff, 0, 0, (1, 0)),
    ] {
        assert_eq!(
            guest.request(kind, line, value),
            answer,
            "type {kind} line {line} value {value}"
        );
    }
}

#[test]
fn an_answer_goes_no_further_than_it_must() {
    let daemon = Daemon::start("lines=1");
    let mut guest = Guest::new(&daemon.socket(0));
    let request = Request {
        kind: 4,
        line: 0,
        value: 0,
    };
    guest.add(REQUEST_QUEUE, &[read(request.to_bytes()), write(6)]);
    guest.kick(REQUEST_QUEUE);
    let used = guest.wait(REQUEST_QUEUE);
    assert_eq!(used.len, 2);
    let rest = [UNTOUCHED; 4];
    assert_eq!(used.bytes, [&[0, 0][..], &rest].concat());
}

#[test]
fn messages_may_be_in_any_number_of_pieces() {
    let daemon = Daemon::start("lines=2,values=01");
    for features in [0, INDIRECT] {
        let options = Options { size: 64, features };
        let mut guest = Guest::with(&daemon.socket(0), options);
        let request = Request {
            kind: 4,
            line: 1,
            value: 0,
        };
        let mut chain: Vec<_> = request.to_bytes().map(|byte| read([byte])).into();
        chain.extend([write(1), write(1)]);
        guest.add(REQUEST_QUEUE, &chain);
        guest.kick(REQUEST_QUEUE);
        assert_eq!(guest.wait(REQUEST_QUEUE).bytes, [0, 1]);
    }
}

#[test]
fn both_directions_of_a_value() {
    let daemon = Daemon::start("lines=2");
    let mut guest = Guest::new(&daemon.socket(0));
    guest.ok(5, 0, 1);
    guest.ok(3, 0, 1);
    assert_eq!(daemon.ok(&["get", "--numeric", "0", "1"]), "1 0\n");
    guest.ok(3, 1, 2);
    daemon.ok(&["set", "0=0", "1=1"]);
    assert_eq!(guest.ok(4, 1, 0), 1);
    assert_eq!(guest.ok(4, 0, 0), 1, "the guest drives");
    guest.ok(5, 0, 0);
    assert_eq!(daemon.ok(&["get", "--numeric", "0", "1"]), "0 1\n");
}

#[test]
fn v2_answers_for_one_line_keep_their_order() {
    let daemon = Daemon::start("lines=3");
    let mut guest = Guest::new(&daemon.socket(0));
    guest.ok(3, 1, 1);
    let mut expected = Vec::new();
    for turn in 0..30 {
        guest.post(5, 1, turn % 2);
        expected.push(0);
        guest.post(4, 1, 0);
        expected.push((turn % 2) as u8);
    }
    guest.kick(REQUEST_QUEUE);
    for value in expected {
        assert_eq!(guest.wait(REQUEST_QUEUE).bytes, [0, value]);
    }
}

#[test]
fn one_notification_and_one_interrupt_for_a_batch() {
    let daemon = Daemon::start("lines=64");
    for features in [EVENT_IDX, EVENT_IDX | INDIRECT, 0] {
        let options = Options {
            size: 128,
            features,
        };
        let mut guest = Guest::with(&daemon.socket(0), options);
        guest.ok(2, 0, 0);
        daemon.ok(&["stats", "--reset"]);
        guest.signals(REQUEST_QUEUE);
        for line in 0..64 {
            guest.post(4, line, 0);
        }
        guest.kick(REQUEST_QUEUE);
        // Before looking: there is no interrupt for what a driver has seen already.
        crate::daemon::eventually("the interrupt", || guest.signals(REQUEST_QUEUE) == 1);
        for _ in 0..64 {
            guest.wait(REQUEST_QUEUE);
        }
        let stats = daemon.stats();
        assert_eq!(stats.requests.get_value, 64);
        assert_eq!(stats.answered_ok, 64);
        let queue = stats.request_queue;
        assert_eq!((queue.kicks, queue.batches, queue.signals), (1, 1, 1));
        assert_eq!((queue.chains, queue.returned), (64, 64));
    }
}

#[test]
fn no_interrupt_where_none_is_wanted() {
    let daemon = Daemon::start("lines=1");
    let options = Options {
        features: 0,
        ..Options::default()
    };
    let mut guest = Guest::with(&daemon.socket(0), options);
    guest.ok(2, 0, 0);
    crate::daemon::eventually("the interrupt", || guest.signals(REQUEST_QUEUE) == 1);
    guest.set_quiet(REQUEST_QUEUE, true);
    guest.ok(2, 0, 0);
    // The daemon says this after the end of the batch.
    assert_eq!(daemon.stats().answered_ok, 2);
    guest.set_quiet(REQUEST_QUEUE, false);
    guest.ok(2, 0, 0);
    crate::daemon::eventually("the interrupt", || guest.signals(REQUEST_QUEUE) == 1);
}

#[test]
fn the_device_asks_for_notifications_when_idle() {
    let daemon = Daemon::start("lines=1");
    for features in [0, EVENT_IDX] {
        let options = Options {
            features,
            ..Options::default()
        };
        let mut guest = Guest::with(&daemon.socket(0), options);
        for _ in 0..300 {
            guest.ok(2, 0, 0);
            crate::daemon::eventually("asked for", || guest.wants_kick(REQUEST_QUEUE));
        }
    }
}

#[test]
fn rings_of_all_sizes_many_times_round() {
    let daemon = Daemon::start("lines=1024");
    for size in [2, 4, 256, 1024] {
        for features in [0, EVENT_IDX, INDIRECT, INDIRECT | EVENT_IDX] {
            let mut guest = Guest::with(&daemon.socket(0), Options { size, features });
            let chains = if features & INDIRECT != 0 {
                size
            } else {
                size / 2
            };
            for turn in 0..5_u32 {
                for line in 0..chains {
                    guest.post(5, line, turn % 2);
                }
                guest.kick(REQUEST_QUEUE);
                for _ in 0..chains {
                    assert_eq!(guest.wait(REQUEST_QUEUE).bytes, [0, 0]);
                }
            }
        }
    }
}

#[test]
fn indices_wrap() {
    let daemon = Daemon::start("lines=2");
    let options = Options {
        size: 1024,
        features: INDIRECT | EVENT_IDX,
    };
    let mut guest = Guest::with(&daemon.socket(0), options);
    for turn in 0..70_u32 {
        for _ in 0..1000 {
            guest.post(5, 0, turn % 2);
        }
        guest.kick(REQUEST_QUEUE);
        for _ in 0..1000 {
            assert_eq!(guest.wait(REQUEST_QUEUE).bytes, [0, 0]);
        }
    }
    assert_eq!(daemon.stats().answered_ok, 70_000);
}

#[test]
fn larger_rings_than_allowed_are_refused() {
    use vhost::VhostBackend;

    let daemon = Daemon::start("lines=1,queue-size=64");
    let guest = Guest::connect(&daemon.socket(0), Options::default());
    guest.frontend.set_vring_num(0, 64).unwrap();
    guest.frontend.set_vring_num(0, 128).unwrap_err();
}

#[test]
fn interrupts_can_be_left_out() {
    let daemon = Daemon::start("lines=1,irq=off");
    let mut guest = Guest::new(&daemon.socket(0));
    assert_eq!(guest.features & IRQ, 0, "not offered");
    assert_eq!(guest.request(6, 0, 1), (1, 0));
    assert_eq!(guest.ok(3, 0, 2), 0, "the rest works");

    let daemon = Daemon::start("lines=1");
    let options = Options {
        features: 0,
        ..Options::default()
    };
    let mut guest = Guest::with(&daemon.socket(0), options);
    assert_eq!(guest.request(6, 0, 1), (1, 0), "not accepted");
}

#[test]
fn strictness_is_up_to_the_user() {
    let daemon = Daemon::start_all(&["lines=1", "lines=1,irq-needs-input", "lines=1,strict"]);
    for (index, needs_input, retype) in [(0, false, true), (1, true, true), (2, true, false)] {
        let mut guest = Guest::new(&daemon.socket(index));
        assert_eq!(guest.request(6, 0, 1).0, u8::from(needs_input));
        guest.ok(3, 0, 2);
        guest.ok(6, 0, 0);
        guest.ok(6, 0, 1);
        assert_eq!(guest.request(6, 0, 2).0, u8::from(!retype));
    }
}
