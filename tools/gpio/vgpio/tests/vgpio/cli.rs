// SPDX-License-Identifier: GPL-2.0-only

//! The command line: output and error messages.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

use serde_json::json;

use crate::daemon::{complaint, eventually, program, Daemon, Watch};
use crate::driver::Guest;

#[test]
fn info_shows_who_does_what() {
    let daemon = Daemon::start("lines=4,label=panel,names=led:key::sda,values=0101");
    let mut guest = Guest::new(&daemon.socket(0));
    guest.ok(5, 0, 1);
    guest.ok(3, 0, 1);
    guest.ok(3, 1, 2);
    guest.ok(6, 1, 3);
    guest.arm(1);
    guest.ok(6, 2, 8);
    guest.no_event();
    assert_eq!(
        daemon.ok(&["info"]),
        "panel - 4 lines:\n\
         \tline   0:\t\"led\"           \toutput active driven-by=guest host=inactive\n\
         \tline   1:\t\"key\"           \tinput active driven-by=host irq=both armed\n\
         \tline   2:\tunnamed         \tunused inactive driven-by=host irq=level-low masked\n\
         \tline   3:\t\"sda\"           \tunused active driven-by=host\n"
    );
    assert_eq!(
        daemon.ok(&["info", "sda", "2"]),
        "panel 3\t\"sda\"           \tunused active driven-by=host\n\
         panel 2\tunnamed         \tunused inactive driven-by=host irq=level-low masked\n"
    );
}

#[test]
fn detect_lists_devices() {
    let daemon = Daemon::start_all(&["lines=4", "lines=1,label=b,irq=off"]);
    let _guest = Guest::new(&daemon.socket(1));
    let [one, two] = [0, 1].map(|index| daemon.socket(index).display().to_string());
    assert_eq!(
        daemon.ok(&["detect"]),
        format!(
            "vgpio0 [{one}] (4 lines) waiting\n\
             b [{two}] (1 lines, no interrupts) connected\n"
        )
    );
}

#[test]
fn get_looks_like_gpioget() {
    let daemon = Daemon::start("lines=3,names=a:b,values=01");
    assert_eq!(
        daemon.ok(&["get", "b", "0", "2"]),
        "\"b\"=active \"0\"=inactive \"2\"=inactive\n"
    );
    assert_eq!(daemon.ok(&["get", "--unquoted", "b"]), "b=active\n");
    assert_eq!(daemon.ok(&["get", "--numeric", "a", "b"]), "0 1\n");
}

#[test]
fn set_and_toggle_in_order() {
    let daemon = Daemon::start("lines=3,names=a:b:c=d");
    daemon.ok(&["set", "a=1", "1=active", "c=d=1", "a=inactive"]);
    assert_eq!(daemon.ok(&["get", "--numeric", "0", "1", "2"]), "0 1 1\n");
    daemon.ok(&["toggle", "a", "b", "-c", "3", "-i", "1ms"]);
    assert_eq!(daemon.ok(&["get", "--numeric", "0", "1", "2"]), "1 0 1\n");
}

#[test]
fn toggling_ends_with_the_command() {
    let daemon = Daemon::start("lines=1");
    let mut toggle = program()
        .arg("--control")
        .arg(daemon.control())
        .args(["toggle", "0", "--count", "1000000", "--interval", "10ms"])
        .spawn()
        .unwrap();
    let changes = || daemon.stats().host_changes;
    eventually("toggling", || changes() > 0);
    toggle.kill().unwrap();
    toggle.wait().unwrap();
    eventually("no more toggling", || {
        let before = changes();
        std::thread::sleep(std::time::Duration::from_millis(40));
        changes() == before
    });
}

#[test]
fn swing_and_wire() {
    let daemon = Daemon::start("lines=3,names=a:b:c");
    let mut guest = Guest::new(&daemon.socket(0));
    guest.ok(6, 1, 3);
    daemon.ok(&["swing", "b", "--count", "2"]);
    guest.arm(1);
    guest.event();
    guest.arm(1);
    guest.event();
    guest.arm(1);
    guest.no_event();

    daemon.ok(&["wire", "a", "b"]);
    guest.ok(3, 0, 1);
    guest.ok(5, 0, 1);
    guest.event();
    assert_eq!(daemon.ok(&["get", "--numeric", "a", "b"]), "1 1\n");
    daemon.ok(&["wire", "a"]);
    assert_eq!(daemon.ok(&["get", "--numeric", "a", "b"]), "1 0\n");
    daemon.ok(&["wire", "a", "b"]);
    assert_eq!(daemon.ok(&["get", "--numeric", "a", "b"]), "1 1\n");
    assert!(daemon
        .fails(&["wire", "a", "d"])
        .contains("no line is called"));
}

#[test]
fn eeprom_is_programmed_and_printed() {
    let daemon = Daemon::start_all(&["lines=2,i2c-eeprom=0:1", "lines=1,label=bare"]);
    assert_eq!(
        daemon.ok(&["get", "-d", "0", "--numeric", "0", "1"]),
        "1 1\n"
    );
    let erased = " ff".repeat(16);
    daemon.ok(&["eeprom", "-d", "0", "0x0f=0012aB"]);
    let dump = daemon.ok(&["eeprom", "-d", "0"]);
    let rows: Vec<_> = dump.lines().collect();
    assert_eq!(rows.len(), 16);
    assert_eq!(rows[0], format!("00:{} 00", &erased[..45]));
    assert_eq!(rows[1], format!("10: 12 ab{}", &erased[6..]));
    assert_eq!(rows[15], format!("f0:{erased}"));
    for (args, text) in [
        (&["eeprom"][..], "choose one with --device"),
        (&["eeprom", "-d", "bare"], "bare has no EEPROM"),
        (&["eeprom", "-d", "0", "255=0000"], "too long"),
        (&["eeprom", "-d", "0", "0=0"], "two digits for each byte"),
        (&["eeprom", "-d", "0", "0=+1"], "two digits for each byte"),
        (&["eeprom", "-d", "0", "00"], "OFFSET=HEX"),
    ] {
        let error = daemon.fails(args);
        assert!(error.contains(text), "{args:?}: {error}");
    }
}

#[test]
fn several_devices() {
    let daemon = Daemon::start_all(&["lines=2,names=a:both", "lines=2,label=two,names=b:both"]);
    daemon.ok(&["set", "a=1", "b=1"]);
    daemon.ok(&["--device", "two", "set", "1=1"]);
    assert_eq!(
        daemon.ok(&["get", "-d", "0", "--numeric", "0", "1"]),
        "1 0\n"
    );
    assert_eq!(
        daemon.ok(&["get", "-d", "two", "--numeric", "0", "1"]),
        "1 1\n"
    );
    for (args, text) in [
        (&["get", "both"][..], "choose one with --device"),
        (&["get", "1"], "choose one with --device"),
        (&["get", "c"], "no line is called \"c\""),
        (&["get", "-d", "0", "2"], "vgpio0 has lines 0 to 1"),
        (&["info", "-d", "three"], "no device \"three\""),
        (&["info", "-d", "2"], "no device \"2\""),
        (&["fault", "set", "silent"], "choose one with --device"),
    ] {
        let error = daemon.fails(args);
        assert!(error.contains(text), "{error}");
    }
    daemon.ok(&["fault", "-d", "two", "set", "silent"]);
    assert_eq!(daemon.ok(&["fault", "list"]), "two 1: silent\n");
}

#[test]
fn mon_shows_both_sides() {
    let daemon = Daemon::start("lines=3,names=a:b");
    let mut guest = Guest::new(&daemon.socket(0));
    let mut mon = daemon.watch(&["mon", "-n", "6"]);
    guest.ok(3, 0, 1);
    assert_eq!(mon.next(), "driven\tvgpio0 0 \"a\"=inactive\tguest");
    guest.ok(5, 0, 1);
    assert_eq!(mon.next(), "rising\tvgpio0 0 \"a\"=active\tguest");
    guest.ok(5, 0, 1);
    daemon.ok(&["set", "b=1", "0=1"]);
    assert_eq!(mon.next(), "rising\tvgpio0 1 \"b\"=active\thost");
    daemon.ok(&["set", "2=1", "2=0"]);
    assert_eq!(mon.next(), "rising\tvgpio0 2=active\thost");
    assert_eq!(mon.next(), "falling\tvgpio0 2=inactive\thost");
    guest.ok(5, 0, 0);
    assert_eq!(mon.next(), "falling\tvgpio0 0 \"a\"=inactive\tguest");
    assert_eq!(mon.end(), [] as [&str; 0]);
}

#[test]
fn mon_filters_and_gives_up() {
    let daemon = Daemon::start("lines=2");
    let mon = daemon.watch(&["mon", "1", "--edges", "rising", "--idle-timeout", "1s"]);
    daemon.ok(&["set", "0=1", "1=1", "1=0", "1=1"]);
    let edges: Vec<_> = mon.end();
    assert_eq!(edges.len(), 2, "{edges:?}");
    assert!(edges
        .iter()
        .all(|it| it.ends_with("rising\tvgpio0 1=active\thost")));
}

#[test]
fn mon_ends_in_time() {
    let daemon = Daemon::start("lines=1");
    let _toggle = daemon.spawn(&["toggle", "0", "-c", "1000", "-i", "10ms"]);
    let mon = daemon.watch(&["mon", "--duration", "200ms"]);
    let edges = mon.end().len();
    assert!((1..500).contains(&edges), "{edges}");
}

#[test]
fn mon_loses_nothing() {
    let daemon = Daemon::start("lines=1");
    let mon = daemon.watch(&["mon", "-n", "20000"]);
    daemon.ok(&["toggle", "0", "--count", "20000"]);
    let edges = mon.end();
    assert_eq!(edges.len(), 20_000);
    let mut times: Vec<f64> = Vec::new();
    for (index, edge) in edges.iter().enumerate() {
        let (time, edge) = edge.split_once('\t').unwrap();
        times.push(time.parse().unwrap());
        let expected = if index % 2 == 0 { "rising" } else { "falling" };
        assert!(edge.starts_with(expected), "{index}: {edge}");
    }
    assert!(times.is_sorted());
}

#[test]
fn notify_shows_configuration() {
    let daemon = Daemon::start("lines=2,names=a");
    let mut guest = Guest::new(&daemon.socket(0));
    let mut notify = daemon.watch(&["notify", "a"]);
    guest.ok(3, 1, 1);
    guest.ok(3, 0, 2);
    assert_eq!(notify.next(), "direction\tvgpio0 0 \"a\"\tinput");
    guest.ok(6, 0, 2);
    assert_eq!(notify.next(), "irq\tvgpio0 0 \"a\"\tfalling");
    guest.arm(0);
    assert_eq!(notify.next(), "mask\tvgpio0 0 \"a\"\tarmed");
    daemon.ok(&["set", "a=1", "a=0"]);
    assert_eq!(notify.next(), "mask\tvgpio0 0 \"a\"\tmasked");
    drop(guest);
    assert_eq!(notify.next(), "direction\tvgpio0 0 \"a\"\tunused");
    assert_eq!(notify.next(), "irq\tvgpio0 0 \"a\"\tnone");
}

#[test]
fn json_says_what_the_text_says() {
    let daemon = Daemon::start_all(&["lines=3,label=panel,names=led:key", "lines=1,irq=off"]);
    let mut guest = Guest::new(&daemon.socket(0));
    let mut mon = daemon.watch(&["mon", "-d", "panel", "--json"]);
    let mut notify = daemon.watch(&["notify", "-d", "panel", "--json"]);
    guest.ok(3, 0, 1);
    guest.ok(5, 0, 1);
    guest.ok(6, 1, 4);
    guest.arm(1);
    let expect = |watch: &mut Watch, expected: serde_json::Value| {
        let mut event: serde_json::Value = serde_json::from_str(&watch.line()).unwrap();
        let time = event.as_object_mut().unwrap().remove("time").unwrap();
        assert!(time.as_u64().unwrap() > 0);
        assert_eq!(event, expected);
    };
    let led = |more| with(json!({"device": "panel", "line": 0, "name": "led"}), more);
    let key = |more| with(json!({"device": "panel", "line": 1, "name": "key"}), more);
    for more in [
        json!({"kind": "driven", "level": false}),
        json!({"kind": "level", "level": true, "by": "guest"}),
    ] {
        expect(&mut mon, led(more));
    }
    expect(
        &mut notify,
        led(json!({"kind": "direction", "direction": "output"})),
    );
    expect(
        &mut notify,
        key(json!({"kind": "irq", "irq": "level-high"})),
    );
    expect(&mut notify, key(json!({"kind": "armed", "armed": true})));

    let parse = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let state = |level, host, direction, irq, armed| {
        json!({"level": level, "host": host, "direction": direction, "irq": irq, "armed": armed,
            "latched": false, "from": null, "wire": null})
    };
    assert_eq!(
        parse(daemon.ok(&["info", "--json", "led", "key"])),
        json!([
            led(state(true, false, "output", "none", false)),
            key(state(false, false, "unused", "level-high", true)),
        ])
    );
    let all = parse(daemon.ok(&["info", "--json"]));
    assert_eq!(all.as_array().unwrap().len(), 4);
    assert_eq!(all[2]["name"], serde_json::Value::Null);

    let device = |label, index, lines, irq, connected| {
        json!({"label": label, "socket": daemon.socket(index).to_str(), "lines": lines, "irq": irq,
            "connected": connected})
    };
    assert_eq!(
        parse(daemon.ok(&["detect", "--json"])),
        json!([
            device("panel", 0, 3, true, true),
            device("vgpio1", 1, 1, false, false),
        ])
    );
}

/// An object with the members of another one.
fn with(mut object: serde_json::Value, more: serde_json::Value) -> serde_json::Value {
    let members = object.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    object
}

#[test]
fn stats_in_both_forms() {
    let daemon = Daemon::start("lines=1");
    let mut guest = Guest::new(&daemon.socket(0));
    guest.ok(2, 0, 0);
    let text = daemon.ok(&["stats", "--reset"]);
    assert!(text.starts_with("vgpio0:\n"), "{text}");
    assert!(text.contains("\trequests.get_direction: 1\n"), "{text}");
    assert!(text.contains("\tconnections: 1\n"), "{text}");
    assert_eq!(daemon.stats(), vgpio::stats::Stats::default());
}

#[test]
fn the_control_socket_is_private() {
    let daemon = Daemon::start("lines=1");
    let mode = std::fs::metadata(daemon.control())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn nonsense_on_the_control_socket() {
    use std::io::{BufRead, BufReader, Write};

    let mut daemon = Daemon::start("lines=1");
    for junk in [
        "\n",
        "{}\n",
        "{\"op\":\"fly\"}\n",
        "\u{0}\u{1}\n",
        "[[[[[[[[[[",
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(daemon.control()).unwrap();
        stream.write_all(junk.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).unwrap();
        assert!(reply.starts_with("{\"error\":"), "{junk:?}: {reply}");
    }
    assert!(daemon.is_alive());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let daemon = Daemon::start("lines=4000");
    let control = daemon.control();
    let script = format!(
        "'{}' --control '{}' info | head -n 1; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_vgpio"),
        control.display()
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(output.stderr, b"");
}

#[test]
fn no_daemon_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("control");
    let output = program()
        .arg("--control")
        .arg(&control)
        .arg("info")
        .output()
        .unwrap();
    assert!(complaint(&output).contains("start one with `vgpio serve`"));
}

#[test]
fn the_default_control_socket_is_in_the_runtime_directory() {
    let dir = tempfile::tempdir().unwrap();
    let device = format!("socket={},lines=1", dir.path().join("s").display());
    let in_dir = || {
        let mut command = program();
        command.env("XDG_RUNTIME_DIR", dir.path());
        command
    };
    let mut daemon = in_dir()
        .args(["serve", "--device", &device])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let control = dir.path().join("vgpio.sock");
    eventually("serving", || {
        control.exists() && dir.path().join("s").exists()
    });
    assert!(in_dir().arg("info").output().unwrap().status.success());
    let by_name = program()
        .env("VGPIO_CONTROL", &control)
        .arg("info")
        .output();
    assert!(by_name.unwrap().status.success());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// Runs `serve`, which must fail; returns the one line of its complaint.
fn serve_fails(args: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("control");
    let mut command = program();
    command
        .arg("--control")
        .arg(&control)
        .arg("serve")
        .args(args);
    let error = complaint(&command.output().unwrap());
    assert!(!control.exists(), "left behind");
    error
}

#[test]
fn bad_devices_get_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let path = socket.display();
    for (device, text) in [
        (
            format!("socket={path},lines=0"),
            "use lines=1 to lines=65535",
        ),
        (
            format!("socket={path},lines=70000"),
            "use lines=1 to lines=65535",
        ),
        (
            format!("socket={path},lines=2,names=a:b:c"),
            "3 names for 2 lines",
        ),
        (
            format!("socket={path},lines=2,names=a:a"),
            "names must be unique",
        ),
        ("lines=2".to_owned(), "add socket=PATH"),
        (
            "socket=/no/such/dir/s,lines=2".to_owned(),
            "cannot listen on /no/such/dir/s",
        ),
    ] {
        let error = serve_fails(&["--device", &device]);
        assert!(error.contains(text), "{error}");
        assert!(!socket.exists(), "left behind");
    }
    assert!(serve_fails(&[]).contains("use --device or --config"));
    assert!(serve_fails(&["--config", "/nonexistent"]).contains("cannot read /nonexistent"));
}

#[test]
fn socket_paths_in_use_are_spared_and_stale_ones_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let device = format!("socket={},lines=1", file.display());
    assert!(serve_fails(&["--device", &device]).contains("is not a socket"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");

    let busy = dir.path().join("busy");
    let listener = UnixListener::bind(&busy).unwrap();
    let device = format!("socket={},lines=1", busy.display());
    assert!(serve_fails(&["--device", &device]).contains("is in use"));
    assert!(busy.exists());

    drop(listener);
    // A child of another test holds a copy until it executes its program.
    eventually("nothing listens", || UnixStream::connect(&busy).is_err());
    assert!(busy.exists(), "stale");
    let _daemon = Daemon::start_with(&["--device", &device]);
    Guest::new(&busy).ok(2, 0, 0);
}

#[test]
fn two_daemons_do_not_share_a_control_socket() {
    let daemon = Daemon::start("lines=1");
    let dir = tempfile::tempdir().unwrap();
    let output = program()
        .arg("--control")
        .arg(daemon.control())
        .args(["serve", "--device"])
        .arg(format!("socket={},lines=1", dir.path().join("s").display()))
        .output()
        .unwrap();
    assert!(complaint(&output).contains("is in use"));
    daemon.ok(&["info"]);
}

#[test]
fn devices_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let names = dir.path().join("names");
    std::fs::write(&names, "one\n\nthree, really\n").unwrap();
    let config = dir.path().join("config.toml");
    let socket = dir.path().join("s");
    std::fs::write(
        &config,
        format!(
            "[[device]]\nsocket = '{}'\nlabel = 'board'\nlines = 4\nnames-file = '{}'\nvalues = '1'\n",
            socket.display(),
            names.display()
        ),
    )
    .unwrap();
    let daemon = Daemon::start_with(&["--config", config.to_str().unwrap()]);
    assert_eq!(
        daemon.ok(&["get", "--numeric", "one", "three, really"]),
        "1 0\n"
    );
    Guest::new(&socket).ok(2, 3, 0);
}

#[test]
fn usage_errors_are_one_line() {
    for args in [
        &["get"][..],
        &["set", "a"],
        &["set", "a=2"],
        &["set", "=1"],
        &["fly"],
        &["mon", "--idle-timeout", "soon"],
        &["mon", "--edges", "some"],
        &["serve", "--device", "socket=s,lines=x"],
        &[],
    ] {
        let output = program().args(args).output().unwrap();
        let error = complaint(&output);
        assert!(error.ends_with("see vgpio --help\n"), "{args:?}: {error}");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn help_covers_everything() {
    let output = program().arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for command in [
        "serve",
        "detect",
        "info",
        "get",
        "set",
        "toggle",
        "mon",
        "notify",
        "record",
        "replay",
        "plot",
        "stats",
        "fault",
        "disconnect",
    ] {
        assert!(help.contains(&format!("  {command}")), "{command}");
        let output = program().args([command, "--help"]).output().unwrap();
        assert!(output.status.success(), "{command}");
    }
}
