// SPDX-License-Identifier: GPL-2.0-only

//! Clients of the control socket that say nonsense, too much, too slowly, or nothing at all.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::daemon::{eventually, Daemon};
use crate::driver::Guest;

fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.control()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stream
}

fn reply(stream: &UnixStream) -> String {
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).unwrap();
    reply
}

/// Kilobytes of memory that the daemon uses.
fn memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|it| it.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn threads(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", daemon.pid()))
        .unwrap()
        .count()
}

#[test]
fn a_line_without_end() {
    let daemon = Daemon::start("lines=1");
    let before = memory(&daemon);
    for _ in 0..5 {
        let mut stream = connect(&daemon);
        for _ in 0..256 {
            // The rest has no reader.
            if stream.write_all(&[b'x'; 1 << 20]).is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    let grown = memory(&daemon).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB");
    daemon.ok(&["info"]);
}

#[test]
fn a_line_that_is_too_long_is_called_that() {
    let daemon = Daemon::start("lines=1");
    let mut stream = connect(&daemon);
    stream.write_all(&vec![b' '; 1 << 20]).unwrap();
    assert!(reply(&stream).contains("more than 1048576 bytes"));

    // Within the limit, but with more lines than make sense.
    let lines = vec!["\"0\""; 100_000].join(",");
    let request = format!("{{\"op\":\"info\",\"device\":null,\"lines\":[{lines}]}}\n");
    let mut stream = connect(&daemon);
    stream.write_all(request.as_bytes()).unwrap();
    assert!(reply(&stream).contains("more than 65536 lines"));
}

#[test]
fn all_lines_of_the_largest_device_in_one_request() {
    let daemon = Daemon::start("lines=65535");
    let mut client = daemon.client();
    let request = vgpio::control::Request::Set {
        device: None,
        values: (0..65535).map(|line| (line.to_string(), true)).collect(),
    };
    assert_eq!(client.ask(&request), vgpio::control::Reply::Done);
    assert_eq!(daemon.ok(&["get", "--numeric", "0", "65534"]), "1 1\n");
}

#[test]
fn a_slow_client_does_not_delay_others() {
    let daemon = Daemon::start("lines=1");
    let mut stream = connect(&daemon);
    for byte in b"{\"op\":\"set\",\"device\":null,\"values\":[[\"0\",true]]}\n" {
        stream.write_all(&[*byte]).unwrap();
        if byte % 8 == 0 {
            assert_eq!(daemon.ok(&["get", "--numeric", "0"]), "0\n");
        }
    }
    assert_eq!(reply(&stream), "\"done\"\n");
    assert_eq!(daemon.ok(&["get", "--numeric", "0"]), "1\n");
}

#[test]
fn hanging_up_at_any_byte() {
    let mut daemon = Daemon::start("lines=1");
    // With a guest the daemon has all the threads that it will have.
    let _guest = Guest::new(&daemon.socket(0));
    let before = threads(&daemon);
    let requests: [&[u8]; 3] = [
        b"{\"op\":\"info\",\"device\":null,\"lines\":[]}\n",
        b"{\"op\":\"watch\",\"device\":null,\"lines\":[],\"topic\":\"levels\"}\n",
        b"{\"op\":\"toggle\",\"device\":null,\"lines\":[\"0\"],\"count\":1000000,\"interval_us\":10}\n",
    ];
    for request in requests {
        for spoken in 0..=request.len() {
            connect(&daemon).write_all(&request[..spoken]).unwrap();
        }
    }
    eventually("all threads ended", || threads(&daemon) <= before);
    assert!(daemon.is_alive());
    assert!(daemon.log().lines().count() < 20);
}

#[test]
fn many_clients_that_do_nothing() {
    let daemon = Daemon::start("lines=1");
    let mut guest = Guest::new(&daemon.socket(0));
    let before = threads(&daemon);
    let mut crowd: Vec<_> = (0..300).map(|_| connect(&daemon)).collect();
    assert_eq!(daemon.ok(&["get", "0"]), "\"0\"=inactive\n");
    guest.ok(2, 0, 0);
    eventually("few threads", || threads(&daemon) <= before + 64);
    // Those that came first had to go.
    assert_eq!(crowd[0].read(&mut [0]).unwrap(), 0);
    drop(crowd);
    eventually("all threads ended", || threads(&daemon) <= before);
}

#[test]
fn a_watcher_that_does_not_read() {
    let daemon = Daemon::start("lines=1");
    let mut watcher = connect(&daemon);
    let request = "{\"op\":\"watch\",\"device\":null,\"lines\":[],\"topic\":\"levels\"}\n";
    watcher.write_all(request.as_bytes()).unwrap();
    let before = memory(&daemon);
    daemon.ok(&["toggle", "0", "--count", "600000"]);
    let grown = memory(&daemon).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB");
    assert_eq!(daemon.stats().host_changes, 600_000);
}

#[test]
fn random_requests() {
    let mut daemon = Daemon::start_all(&["lines=3,names=a:b", "lines=2"]);
    let mut random = fastrand::Rng::with_seed(3);
    let words = [
        "{", "}", "[", "]", ",", ":", "null", "true", "-1", "1e999", "\"op\"", "\"info\"", "\"set\"",
        "\"toggle\"", "\"watch\"", "\"lines\"", "\"device\"", "\"0\"", "\"a\"", "\"\\ud800\"",
        "{\"op\":\"fault-set\",\"device\":\"0\",\"faults\":[\"delay=", "\"]}", "18446744073709551616",
        "{\"op\":\"toggle\",\"device\":null,\"lines\":[\"a\"],\"interval_us\":18446744073709551615,\"count\":",
        "2}", "{\"op\":\"fault-clear\",\"device\":null,\"ids\":[", "]}",
    ];
    for _ in 0..300 {
        let count = random.usize(..12);
        let text: String = (0..count)
            .map(|_| *random.choice(&words).unwrap())
            .collect();
        let mut stream = connect(&daemon);
        let _ = stream.write_all(format!("{text}\n").as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(daemon.is_alive());
    daemon.ok(&["info"]);
}

#[test]
fn faults_have_a_limit() {
    let daemon = Daemon::start("lines=1");
    let faults = vec!["stale"; 200];
    daemon.ok(&[&["fault", "set"], &faults[..]].concat());
    let error = daemon.fails(&[&["fault", "set"], &faults[..]].concat());
    assert!(error.contains("too many faults"), "{error}");
    assert_eq!(daemon.ok(&["fault", "list"]).lines().count(), 200);
}
