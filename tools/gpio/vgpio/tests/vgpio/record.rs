// SPDX-License-Identifier: GPL-2.0-only

//! Recordings in VCD files: `record`, `replay` and `plot`.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::daemon::{complaint, eventually, program, Daemon};
use crate::driver::Guest;

/// The changes in a file, without their times.
fn changes(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let (_, body) = text.split_once("$enddefinitions $end\n").unwrap();
    let (_, changes) = body.split_once("$end\n").unwrap();
    let lines = changes.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// The times in a file.
fn times(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap();
    let times = text.lines().filter_map(|line| line.strip_prefix('#'));
    times.map(|time| time.parse().unwrap()).collect()
}

#[test]
fn all_that_happens_is_recorded() {
    let daemon = Daemon::start("lines=3,names=led red:key,label=my board,values=01");
    let mut guest = Guest::new(&daemon.socket(0));
    guest.ok(3, 1, 2);
    let file = daemon.dir.path().join("run.vcd");
    let record = daemon.watch(&["record", file.to_str().unwrap(), "led red", "1", "1"]);
    guest.ok(3, 0, 1);
    guest.ok(5, 0, 1);
    daemon.ok(&["set", "0=1", "0=0", "0=1", "2=1"]);
    guest.ok(3, 0, 2);
    guest.ok(6, 1, 8);
    guest.arm(1);
    daemon.ok(&["set", "1=0"]);
    guest.event();
    record.signal(Signal::INT);
    assert_eq!(record.end(), [] as [&str; 0]);

    let text = std::fs::read_to_string(&file).unwrap();
    for part in [
        "$timescale 1 ns $end\n$scope module my_board $end\n",
        "    {\"device\":\"my board\",\"line\":0,\"name\":\"led red\"}\n",
        "$var wire 1 l0 led_red $end\n",
        "$var string 1 i1 key.irq $end\n",
        "#0\n$dumpvars\n0l0\n0h0\n0g0\nsunused d0\nsnone i0\n0a0\n1l1\n1h1\n0g1\nsinput d1\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(
        changes(&file),
        [
            "1g0",
            "soutput d0",
            "1l0",
            "1h0",
            "0h0",
            "1h0",
            "0g0",
            "sinput d0",
            "slevel-low i1",
            "1a1",
            "0l1",
            "0h1",
            "0a1",
        ]
    );
    let times = times(&file);
    assert!(times.is_sorted());
    assert!(text.ends_with(&format!("#{}\n", times.last().unwrap())));
}

#[test]
fn a_recording_ends_by_itself() {
    let daemon = Daemon::start("lines=1");
    let file = daemon.dir.path().join("run.vcd");
    let path = file.to_str().unwrap();
    let count = daemon.watch(&["record", path, "-n", "2"]);
    daemon.ok(&["toggle", "0", "-c", "5"]);
    count.end();
    assert_eq!(changes(&file), ["1l0", "1h0", "0l0", "0h0"]);

    for option in ["--duration", "--idle-timeout"] {
        let start = Instant::now();
        daemon.watch(&["record", path, option, "200ms"]).end();
        assert!(start.elapsed() >= Duration::from_millis(200));
        let end = *times(&file).last().unwrap();
        assert!((200_000_000..5_000_000_000).contains(&end), "{end}");
    }
    // Changes do not prolong it.
    let toggle = daemon.spawn(&["toggle", "0", "-c", "1000", "-i", "10ms"]);
    daemon.watch(&["record", path, "--duration", "100ms"]).end();
    assert!(times(&file).len() > 3);
    drop(toggle);
}

#[test]
fn a_recording_is_complete_without_the_daemon() {
    let mut daemon = Daemon::start("lines=1");
    let file = daemon.dir.path().join("run.vcd");
    let record = daemon.watch(&["record", file.to_str().unwrap()]);
    daemon.ok(&["toggle", "0", "-c", "2"]);
    // It is written while nothing more happens.
    eventually("recorded", || changes(&file).len() == 4);
    daemon.stop(Signal::KILL);
    let error = record.failure();
    assert_eq!(error, "vgpio: the daemon hung up\n");
    assert_eq!(changes(&file), ["1l0", "1h0", "0l0", "0h0"]);
    assert!(std::fs::read_to_string(&file).unwrap().ends_with('\n'));

    let file = daemon.dir.path().join("none.vcd");
    daemon.fails(&["record", file.to_str().unwrap()]);
    assert!(!file.exists());
}

#[test]
fn a_recording_ends_without_a_stuck_daemon() {
    let daemon = Daemon::start("lines=1");
    let file = daemon.dir.path().join("run.vcd");
    let record = daemon.watch(&["record", file.to_str().unwrap()]);
    let pid = rustix::process::Pid::from_raw(daemon.pid() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    record.signal(Signal::INT);
    record.end();
    assert_eq!(times(&file).len(), 2);
}

#[test]
fn a_replay_is_as_the_recording() {
    let daemon = Daemon::start_all(&["lines=2,names=a:b", "lines=1,label=two,values=1"]);
    let first = daemon.dir.path().join("first.vcd");
    let record = daemon.watch(&["record", first.to_str().unwrap()]);
    let mut guest = Guest::new(&daemon.socket(0));
    guest.ok(3, 1, 1);
    for turn in 0..3 {
        daemon.ok(&["set", "-d", "two", "0=0"]);
        daemon.ok(&["set", "a=1", "b=1", "a=0", "a=1"]);
        std::thread::sleep(Duration::from_millis(20));
        guest.ok(5, 1, 1 - turn % 2);
        daemon.ok(&["toggle", "-d", "two", "0", "-c", "2"]);
        daemon.ok(&["set", "a=0", "b=0"]);
    }
    record.signal(Signal::TERM);
    record.end();

    // Another daemon, with a guest that does something else.
    let again = Daemon::start_all(&["lines=2,names=b:a", "lines=1,label=two"]);
    let second = again.dir.path().join("second.vcd");
    let record = again.watch(&["record", second.to_str().unwrap()]);
    let start = Instant::now();
    assert_eq!(again.ok(&["replay", first.to_str().unwrap()]), "");
    assert!(start.elapsed() >= Duration::from_millis(60));
    record.signal(Signal::INT);
    record.end();
    // The host's levels, per line: those of the two devices may come in another order.
    let of = |path: &Path, codes: [&str; 3]| {
        codes.map(|code| {
            let changes = changes(path).into_iter();
            let of_line = changes.filter(|it| it.ends_with(code));
            of_line.map(|it| it[..1].to_owned()).collect::<String>()
        })
    };
    assert_eq!(
        of(&first, ["h0", "h1", "h2"]),
        ["101010101010", "101010", "0101010"].map(str::to_owned)
    );
    let mut expected = of(&first, ["h0", "h1", "h2"]);
    // The line was inactive, and is active at first.
    expected[2].insert(0, '1');
    assert_eq!(of(&second, ["h1", "h0", "h2"]), expected);

    let start = Instant::now();
    again.ok(&["replay", first.to_str().unwrap(), "--speed", "1000", "a"]);
    assert!(start.elapsed() < Duration::from_millis(60));
}

#[test]
fn a_guest_sees_what_was_recorded() {
    let daemon = Daemon::start("lines=1");
    let file = daemon.dir.path().join("run.vcd");
    let path = file.to_str().unwrap();
    let record = daemon.watch(&["record", path, "-n", "7"]);
    daemon.ok(&["toggle", "0", "-c", "7", "-i", "20ms"]);
    record.end();

    let again = Daemon::start("lines=1");
    let mut guest = Guest::new(&again.socket(0));
    guest.ok(6, 0, 3);
    guest.arm(0);
    let replay = again.spawn(&["replay", path]);
    for _ in 0..7 {
        guest.event();
        guest.arm(0);
    }
    replay.end();
    guest.no_event();
    assert_eq!(again.stats().edges_merged, 0);
}

#[test]
fn a_burst_is_replayed_as_such() {
    let daemon = Daemon::start("lines=1");
    let file = daemon.dir.path().join("run.vcd");
    let path = file.to_str().unwrap();
    let record = daemon.watch(&["record", path, "-n", "20000"]);
    daemon.ok(&["toggle", "0", "-c", "20000"]);
    record.end();
    let again = daemon.dir.path().join("again.vcd");
    let record = daemon.watch(&["record", again.to_str().unwrap(), "-n", "20000"]);
    daemon.ok(&["replay", path]);
    record.end();
    assert_eq!(changes(&file).len(), 40_000);
    assert_eq!(changes(&file), changes(&again));
}

#[test]
fn what_cannot_be_replayed() {
    let daemon = Daemon::start("lines=2,names=a:b");
    let file = daemon.dir.path().join("run.vcd");
    let path = file.to_str().unwrap();
    let shown = file.display();
    let header = "$timescale 1 us $end\n$var wire 1 ! a $end\n";
    let end = "$enddefinitions $end\n";
    for (text, args, part) in [
        (
            format!("{header}hello\n"),
            &[][..],
            format!("{shown}:3: unexpected character"),
        ),
        (
            format!("{header}{end}#2\n1!\n#1\n"),
            &[],
            format!("{shown}:6: time 1 is before"),
        ),
        (
            format!("{header}$var wire 1 c c $end\n{end}1!\n"),
            &[],
            "no line is called \"c\"".into(),
        ),
        (
            format!("{header}{end}1!\n"),
            &["-d", "x"],
            "no device \"x\"".into(),
        ),
        (
            format!("{header}{end}1!\n"),
            &["b"],
            "no signal for a line \"b\"".into(),
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = daemon.fails(&[&["replay", path], args].concat());
        assert!(error.contains(&part), "{part}: {error}");
        assert_eq!(daemon.stats().host_changes, 0);
    }
    std::fs::write(&file, format!("{header}{end}1!\n")).unwrap();
    daemon.ok(&["replay", path]);
    assert_eq!(daemon.ok(&["get", "--numeric", "a"]), "1\n");
    for speed in ["0", "-1", "nan", "inf", "fast"] {
        let error = daemon.fails(&["replay", path, &format!("--speed={speed}")]);
        assert!(error.contains("positive number"), "{speed}: {error}");
    }
}

#[test]
fn a_plot_is_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let [file, svg] = ["run.vcd", "run.svg"].map(|name| dir.path().join(name));
    let plot = |args: &[&str]| {
        let mut command = program();
        command.arg("plot").arg(&file).arg("--output").arg(&svg);
        command.args(args).output().unwrap()
    };
    assert!(complaint(&plot(&[])).contains("cannot read"));
    let text = "$timescale 1 ms $end $var wire 1 ! key $end $enddefinitions $end 0! #5 1! #10\n";
    std::fs::write(&file, text).unwrap();
    assert!(complaint(&plot(&["lock"])).contains("no signal for a line \"lock\""));
    assert!(complaint(&plot(&["--from", "1s"])).contains("nothing to draw"));
    assert!(!svg.exists());
    assert!(plot(&["--to", "8ms", "key"]).status.success());
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"));
}
