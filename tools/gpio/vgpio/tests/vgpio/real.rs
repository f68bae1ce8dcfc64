// SPDX-License-Identifier: GPL-2.0-only

//! Lines of the host, with a chip that the tests move in place of one of the kernel's.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use tempfile::TempDir;
use vgpio::config;
use vgpio::model::Usage;
use vgpio::real::config::HostLine;
use vgpio::real::{Edge, Host, Line};
use vgpio::serve::{start_on, Serving};
use vgpio::wire::REQUEST_QUEUE;

use crate::daemon::{complaint, eventually, program};
use crate::driver::Guest;

const NONE: u32 = 0;
const OUT: u32 = 1;
const IN: u32 = 2;

const UNUSED: Usage = Usage::None;
const WATCHED: Usage = Usage::Input { edges: true };
const READ: Usage = Usage::Input { edges: false };

/// A line of the chip.
#[derive(Default)]
struct Pin {
    level: bool,
    usage: Option<Usage>,
    /// How often it was requested.
    requests: u32,
    busy: bool,
    no_edges: bool,
    broken: bool,
    /// Calls do not come back before this is false.
    stuck: bool,
    edges: VecDeque<Edge>,
    /// Wakes who has requested the line.
    wake: Option<UnixStream>,
}

#[derive(Default)]
struct Chip {
    pins: Mutex<BTreeMap<u16, Pin>>,
    moved: Condvar,
}

impl Chip {
    fn pins(&self) -> MutexGuard<'_, BTreeMap<u16, Pin>> {
        self.pins.lock().unwrap()
    }

    fn change(&self, line: u16, f: impl FnOnce(&mut Pin)) {
        f(self.pins().entry(line).or_default());
        self.moved.notify_all();
    }

    fn usage(&self, line: u16) -> Usage {
        let pins = self.pins();
        pins.get(&line).and_then(|pin| pin.usage).unwrap_or(UNUSED)
    }

    /// Moves a line, with an edge if it is watched.
    fn drive(&self, line: u16, level: bool, time: u64) {
        self.change(line, |pin| {
            pin.level = level;
            if pin.usage == Some(WATCHED) {
                pin.edges.push_back(Edge { time, level });
                pin.wake.as_ref().unwrap().write_all(&[0]).unwrap();
            }
        });
    }

    /// A call, which may take long.
    fn call<T>(&self, line: u16, f: impl FnOnce(&mut Pin) -> Result<T>) -> Result<T> {
        let mut pins = self.pins();
        while pins.entry(line).or_default().stuck {
            pins = self.moved.wait(pins).unwrap();
        }
        let pin = pins.entry(line).or_default();
        if pin.broken {
            bail!("it has no contact");
        }
        f(pin)
    }
}

/// Changes what a pin is used for, if it can be.
fn set_up(pin: &mut Pin, usage: Usage) -> Result<()> {
    if pin.no_edges && usage == WATCHED {
        bail!("it has no interrupt");
    }
    if let Usage::Output(level) = usage {
        pin.level = level;
    }
    pin.usage = Some(usage);
    Ok(())
}

struct Lines {
    chip: Arc<Chip>,
    settings: Vec<HostLine>,
}

impl Host for Lines {
    fn request(&self, line: u16, usage: Usage) -> Result<Box<dyn Line>> {
        let settings = self.settings.iter().find(|it| it.line == line).unwrap();
        settings.check(usage)?;
        let (events, wake) = UnixStream::pair()?;
        events.set_nonblocking(true)?;
        self.chip.call(line, |pin| {
            if pin.busy {
                bail!("it is busy");
            }
            assert_eq!(pin.usage, None, "requested twice");
            set_up(pin, usage)?;
            pin.requests += 1;
            pin.wake = Some(wake);
            Ok(())
        })?;
        Ok(Box::new(Requested {
            chip: self.chip.clone(),
            settings: settings.clone(),
            events,
        }))
    }
}

struct Requested {
    chip: Arc<Chip>,
    settings: HostLine,
    events: UnixStream,
}

impl Line for Requested {
    fn change(&mut self, usage: Usage) -> Result<()> {
        self.settings.check(usage)?;
        self.chip.call(self.settings.line, |pin| set_up(pin, usage))
    }

    fn level(&self) -> Result<bool> {
        self.chip.call(self.settings.line, |pin| Ok(pin.level))
    }

    fn edge(&self) -> Result<Option<Edge>> {
        let mut pins = self.chip.pins();
        if (&self.events).read(&mut [0]).is_err() {
            return Ok(None);
        }
        Ok(pins.get_mut(&self.settings.line).unwrap().edges.pop_front())
    }

    fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl Drop for Requested {
    fn drop(&mut self) {
        self.chip.change(self.settings.line, |pin| {
            pin.usage = None;
            pin.edges.clear();
        });
    }
}

/// A daemon in this process with a device that has two lines of the host and two of its own, and
/// another one.
struct Board {
    chip: Arc<Chip>,
    dir: TempDir,
    _serving: Serving,
}

impl Board {
    fn new(first: &str, keys: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name).display().to_string());
        let text = format!(
            "[[device]]\nsocket = '{one}'\nlines = 4\nlabel = 'one'\n{keys}\n\
             [[device.host-line]]\nfrom = 'chip:7'\nname = 'seven'\n{first}\n\
             [[device.host-line]]\nline = 1\nfrom = 'chip:8'\n\
             [[device]]\nsocket = '{two}'\nlines = 1\n"
        );
        let chip = Arc::new(Chip::default());
        let find = |_: &str, settings: &[HostLine]| -> Result<Box<dyn Host>> {
            Ok(Box::new(Lines {
                chip: chip.clone(),
                settings: settings.to_owned(),
            }))
        };
        let devices = config::parse(&text).unwrap();
        let serving = start_on(&find, &devices, &dir.path().join("control")).unwrap();
        Self {
            chip,
            dir,
            _serving: serving,
        }
    }

    fn guest(&self) -> Guest {
        Guest::new(&self.dir.path().join("one"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = program();
        let control = self.dir.path().join("control");
        command.arg("--control").arg(control).args(args);
        command
    }

    fn uses(&self, line: u16, usage: Usage) {
        eventually("used so", || self.chip.usage(line) == usage);
    }
}

fn board() -> Board {
    Board::new("", "")
}

#[test]
fn a_guest_reads_and_drives_a_line_of_the_host() {
    let board = board();
    let mut guest = board.guest();
    assert_eq!(guest.ok(2, 0, 0), 0);
    assert_eq!(board.chip.usage(0), UNUSED);
    guest.ok(3, 0, IN);
    assert_eq!(board.chip.usage(0), READ);
    assert_eq!(board.chip.usage(1), UNUSED, "the other one is not touched");
    for level in [true, false, true] {
        board.chip.drive(0, level, 0);
        assert_eq!(guest.ok(4, 0, 0), u8::from(level));
    }
    guest.ok(5, 0, 1);
    assert_eq!(board.chip.usage(0), READ, "kept for when it is an output");
    guest.ok(3, 0, OUT);
    assert_eq!(board.chip.usage(0), Usage::Output(true));
    guest.ok(5, 0, 0);
    assert_eq!(board.chip.usage(0), Usage::Output(false));
    assert_eq!(guest.ok(4, 0, 0), 0);
    guest.ok(3, 0, NONE);
    assert_eq!(board.chip.usage(0), UNUSED);
    assert_eq!(board.chip.pins()[&0].requests, 1);
    // Its own lines are as ever.
    guest.ok(3, 2, OUT);
    guest.ok(5, 2, 1);
    assert_eq!(guest.ok(4, 2, 0), 1);
    assert!(!board.chip.pins().contains_key(&2));
}

#[test]
fn edges_are_interrupts() {
    let board = board();
    let mut guest = board.guest();
    guest.ok(3, 0, IN);
    guest.ok(6, 0, 3);
    assert_eq!(board.chip.usage(0), WATCHED);
    for level in [true, false] {
        let head = guest.arm(0);
        guest.no_event();
        board.chip.drive(0, level, 5);
        assert_eq!(guest.event(), (head, 1));
    }
    // One that comes while the interrupt is masked is kept, and another merges with it.
    board.chip.drive(0, true, 6);
    board.chip.drive(0, false, 7);
    eventually("seen", || guest.ok(4, 0, 0) == 0);
    let head = guest.arm(0);
    assert_eq!(guest.event(), (head, 1));
    guest.arm(0);
    guest.no_event();
    // Until it is disabled.
    guest.ok(6, 0, 0);
    assert_eq!(guest.event().1, 0);
    assert_eq!(board.chip.usage(0), READ);
    guest.ok(3, 0, NONE);
    board.uses(0, UNUSED);
}

#[test]
fn only_the_edges_that_are_asked_for() {
    let board = board();
    let mut guest = board.guest();
    guest.ok(6, 0, 1);
    assert_eq!(board.chip.usage(0), WATCHED, "whatever the direction");
    let head = guest.arm(0);
    board.chip.drive(0, true, 0);
    assert_eq!(guest.event(), (head, 1));
    let head = guest.arm(0);
    board.chip.drive(0, false, 0);
    guest.no_event();
    board.chip.drive(0, true, 0);
    assert_eq!(guest.event(), (head, 1));
}

#[test]
fn a_level_fires_while_it_lasts() {
    let board = board();
    let mut guest = board.guest();
    board.chip.drive(0, true, 0);
    guest.ok(3, 0, IN);
    guest.ok(6, 0, 4);
    for _ in 0..3 {
        let head = guest.arm(0);
        assert_eq!(guest.event(), (head, 1));
    }
    board.chip.drive(0, false, 0);
    eventually("seen", || guest.ok(4, 0, 0) == 0);
    std::thread::sleep(Duration::from_millis(20));
    let head = guest.arm(0);
    guest.no_event();
    board.chip.drive(0, true, 0);
    assert_eq!(guest.event(), (head, 1));
}

/// The kernel may see only the end of a pulse, twice the same level.
#[test]
fn a_pulse_that_is_too_short_to_tell_is_an_interrupt() {
    let board = board();
    let mut guest = board.guest();
    guest.ok(3, 0, IN);
    guest.ok(6, 0, 1);
    let head = guest.arm(0);
    board.chip.drive(0, false, 0);
    assert_eq!(guest.event(), (head, 1));
}

/// A level that was read before its edge was heard of makes one interrupt, not two.
#[test]
fn reading_a_line_makes_no_edge() {
    let board = board();
    let mut guest = board.guest();
    guest.ok(3, 0, IN);
    guest.ok(6, 0, 2);
    for _ in 0..5 {
        let head = guest.arm(0);
        for level in [true, false] {
            board.chip.change(0, |pin| pin.level = level);
            assert_eq!(guest.ok(4, 0, 0), u8::from(level));
            guest.no_event();
            board.chip.drive(0, level, 0);
            if level {
                guest.no_event();
            }
        }
        assert_eq!(guest.event(), (head, 1));
    }
}

#[test]
fn mon_has_the_time_of_the_host() {
    let board = board();
    let mut guest = board.guest();
    guest.ok(3, 0, IN);
    guest.ok(6, 0, 3);
    let mut mon = board.command(&["mon", "--banner", "-n", "2", "seven"]);
    let mut mon = mon.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = mon.stdout.take().unwrap();
    out.read_exact(&mut [0; 18]).unwrap();
    board.chip.drive(0, true, 3_000_000_007);
    board.chip.drive(0, false, 4_000_000_009);
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert!(mon.wait().unwrap().success());
    let mut lines = text.lines().filter(|it| !it.is_empty());
    let first = lines.next().unwrap();
    assert!(first.starts_with("3.000000007\trising\t"), "{first}");
    assert!(first.ends_with("\"seven\"=active\thost"), "{first}");
    let second = lines.next().unwrap();
    assert!(second.starts_with("4.000000009\tfalling\t"), "{second}");
}

#[test]
fn a_busy_line_is_an_error_for_that_line() {
    let board = board();
    board.chip.change(0, |pin| pin.busy = true);
    let mut guest = board.guest();
    assert_eq!(guest.request(3, 0, IN), (1, 0));
    assert_eq!(guest.ok(2, 0, 0), 0, "nothing has changed");
    guest.ok(3, 1, IN);
    guest.ok(3, 2, IN);
    board.chip.change(0, |pin| pin.busy = false);
    guest.ok(3, 0, IN);
}

#[test]
fn a_line_without_interrupt_has_values() {
    let board = board();
    board.chip.change(0, |pin| pin.no_edges = true);
    let mut guest = board.guest();
    guest.ok(3, 0, IN);
    assert_eq!(guest.request(6, 0, 3), (1, 0));
    board.chip.drive(0, true, 0);
    assert_eq!(guest.ok(4, 0, 0), 1);
    guest.arm(0);
    assert_eq!(guest.event().1, 0, "the interrupt is not enabled");
}

#[test]
fn an_error_of_the_chip_is_one_of_the_guests() {
    let board = board();
    let mut guest = board.guest();
    guest.ok(3, 0, OUT);
    guest.ok(3, 1, IN);
    board.chip.change(0, |pin| pin.broken = true);
    board.chip.change(1, |pin| pin.broken = true);
    assert_eq!(guest.request(5, 0, 1), (1, 0));
    assert_eq!(
        guest.ok(4, 0, 0),
        0,
        "it is not what it could not be set to"
    );
    assert_eq!(guest.request(4, 1, 0), (1, 0));
    guest.ok(3, 0, NONE);
    guest.ok(3, 1, NONE);
}

#[test]
fn a_chip_that_goes_and_comes_back() {
    let board = board();
    let mut guest = board.guest();
    for line in [0, 1] {
        guest.ok(3, line, IN);
    }
    guest.ok(6, 0, 3);
    let head = guest.arm(0);
    board.chip.change(0, |pin| {
        pin.broken = true;
        pin.wake = None;
    });
    board.uses(0, UNUSED);
    assert_eq!(guest.request(4, 0, 0), (1, 0));
    assert_eq!(guest.request(5, 0, 1), (1, 0));
    guest.ok(4, 1, 0);
    board.chip.change(0, |pin| pin.broken = false);
    assert_eq!(guest.ok(4, 0, 0), 0);
    assert_eq!(board.chip.usage(0), WATCHED);
    board.chip.drive(0, true, 0);
    assert_eq!(guest.event(), (head, 1));
}

#[test]
fn some_lines_are_for_one_direction() {
    let board = Board::new("only = 'input'", "");
    let mut guest = board.guest();
    assert_eq!(guest.request(3, 0, OUT), (1, 0));
    assert_eq!(board.chip.usage(0), UNUSED);
    guest.ok(3, 0, IN);
    assert_eq!(guest.request(3, 0, OUT), (1, 0));
    assert_eq!(board.chip.usage(0), READ);
    assert_eq!(guest.ok(2, 0, 0), 2);

    let board = Board::new("only = 'output'", "");
    let mut guest = board.guest();
    assert_eq!(guest.request(3, 0, IN), (1, 0));
    assert_eq!(guest.request(6, 0, 3), (1, 0));
    guest.ok(3, 0, OUT);
    assert_eq!(board.chip.usage(0), Usage::Output(false));
}

#[test]
fn what_the_rules_refuse_does_not_reach_the_host() {
    let board = Board::new("", "strict = true");
    let mut guest = board.guest();
    assert_eq!(guest.request(3, 0, 7), (1, 0));
    assert_eq!(guest.request(5, 0, 2), (1, 0));
    assert_eq!(guest.request(6, 0, 3), (1, 0));
    assert_eq!(guest.request(99, 0, 0), (1, 0));
    guest.ok(3, 0, IN);
    guest.ok(6, 0, 3);
    assert_eq!(guest.request(3, 0, OUT), (1, 0));
    assert_eq!(board.chip.usage(0), WATCHED);
    let fault = ["-d", "one", "fault", "set", "status=err,line=seven"];
    assert!(board.command(&fault).status().unwrap().success());
    assert_eq!(guest.request(3, 0, NONE), (1, 0));
    assert_eq!(board.chip.usage(0), WATCHED);
}

#[test]
fn a_slow_chip_delays_only_its_lines() {
    let board = board();
    let mut guest = board.guest();
    let mut other = Guest::new(&board.dir.path().join("two"));
    guest.ok(3, 0, OUT);
    board.chip.change(0, |pin| pin.stuck = true);
    let stuck = guest.post(5, 0, 1);
    guest.kick(REQUEST_QUEUE);
    for _ in 0..10 {
        guest.ok(4, 2, 0);
        other.ok(4, 0, 0);
    }
    let start = Instant::now();
    let info = board.command(&["info"]).output().unwrap();
    assert!(info.status.success());
    assert!(start.elapsed() < Duration::from_secs(3));
    board.chip.change(0, |pin| pin.stuck = false);
    assert_eq!(guest.wait(REQUEST_QUEUE).head, stuck);
    assert_eq!(board.chip.usage(0), Usage::Output(true));
}

#[test]
fn requests_about_a_line_stay_in_order() {
    let board = board();
    let mut guest = board.guest();
    board.chip.change(0, |pin| pin.stuck = true);
    let mut heads: Vec<_> = (0..40).map(|turn| guest.post(5, 0, turn % 2)).collect();
    heads.push(guest.post(3, 0, OUT));
    heads.push(guest.post(4, 0, 0));
    guest.kick(REQUEST_QUEUE);
    board.chip.change(0, |pin| pin.stuck = false);
    for head in heads {
        let used = guest.wait(REQUEST_QUEUE);
        assert_eq!((used.head, used.bytes[0]), (head, 0));
    }
    assert_eq!(board.chip.usage(0), Usage::Output(true));
}

#[test]
fn lines_are_given_back_when_the_guest_goes() {
    let board = board();
    for round in 0..10 {
        let mut guest = board.guest();
        guest.ok(3, 0, OUT);
        guest.ok(3, 1, IN);
        guest.ok(6, 1, 3);
        if round % 2 == 1 {
            // With a request under way.
            board.chip.change(0, |pin| pin.stuck = true);
            guest.post(5, 0, 1);
            guest.kick(REQUEST_QUEUE);
            guest.ok(4, 2, 0);
        }
        drop(guest);
        let mut next = board.guest();
        board.chip.change(0, |pin| pin.stuck = false);
        board.uses(0, UNUSED);
        board.uses(1, UNUSED);
        assert_eq!(next.ok(2, 0, 0), 0);
    }
}

#[test]
fn a_paused_guest_keeps_its_lines() {
    let board = board();
    let mut guest = board.guest();
    guest.ok(3, 0, OUT);
    guest.ok(5, 0, 1);
    guest.ok(3, 1, IN);
    guest.ok(6, 1, 3);
    let buffer = guest.arm(1);
    guest.no_event();
    board.chip.change(0, |pin| pin.stuck = true);
    let head = guest.post(5, 0, 0);
    guest.kick(REQUEST_QUEUE);
    guest.ok(4, 2, 0);
    let bases = guest.stop();
    board.chip.change(0, |pin| pin.stuck = false);
    board.chip.drive(1, true, 0);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(board.chip.usage(1), WATCHED);
    assert_ne!(board.chip.usage(0), UNUSED);
    guest.attach(bases);
    assert_eq!(guest.wait(REQUEST_QUEUE).head, head);
    assert_eq!(board.chip.usage(0), Usage::Output(false));
    assert_eq!(guest.event(), (buffer, 1));
    assert_eq!(guest.ok(2, 0, 0), 1);
    // One that starts anew has none.
    guest.stop();
    guest.start();
    guest.ok(4, 2, 0);
    board.uses(0, UNUSED);
    board.uses(1, UNUSED);
}

#[test]
fn info_shows_which_lines_are_the_hosts() {
    let board = board();
    let info = |args: &[&str]| {
        let output = board.command(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = info(&["info", "-d", "one"]);
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[1].ends_with(" driven-by=host from=\"chip:7\""),
        "{text}"
    );
    assert!(
        lines[2].ends_with(" driven-by=host from=\"chip:8\""),
        "{text}"
    );
    assert_eq!(text.matches("from=").count(), 2);
    let json: serde_json::Value =
        serde_json::from_str(&info(&["info", "--json", "seven", "-d", "one"])).unwrap();
    assert_eq!(json[0]["from"], "chip:7");
}

/// What a guest drives there, another one reads.
#[test]
fn a_wire_starts_from_a_line_of_the_host() {
    let board = board();
    let mut guest = board.guest();
    let wire = ["wire", "seven", "--to-device", "vgpio1", "0"];
    assert!(board.command(&wire).status().unwrap().success());
    let mut other = Guest::new(&board.dir.path().join("two"));
    guest.ok(5, 0, 1);
    guest.ok(3, 0, OUT);
    eventually("driven", || other.ok(4, 0, 0) == 1);
    guest.ok(3, 0, NONE);
    eventually("not driven", || other.ok(4, 0, 0) == 0);
}

#[test]
fn the_host_does_not_drive_what_is_not_its_own() {
    let board = board();
    for args in [
        &["set", "seven=1"][..],
        &["toggle", "1", "-d", "one"],
        &["swing", "seven"],
        &["wire", "2", "seven", "-d", "one"],
    ] {
        let complaint = complaint(&board.command(args).output().unwrap());
        assert!(complaint.contains("of the host"), "{args:?}: {complaint}");
    }
}
