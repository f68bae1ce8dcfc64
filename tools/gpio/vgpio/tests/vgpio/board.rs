// SPDX-License-Identifier: GPL-2.0-only

//! The page of `vgpio board`, by what a browser sends and gets.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use serde_json::{json, Value};
use tungstenite::{Error, Message, WebSocket};

use crate::daemon::{complaint, eventually, program, Daemon};
use crate::driver::{Guest, PATIENCE};

/// A `vgpio board` that runs.
struct Board {
    child: Child,
    host: String,
    token: String,
}

impl Board {
    fn start(daemon: &Daemon, args: &[&str]) -> Self {
        let mut child = program()
            .arg("--control")
            .arg(daemon.control())
            .arg("board")
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut url).unwrap();
        let (host, token) = url
            .trim_end()
            .strip_prefix("http://")
            .and_then(|it| it.strip_suffix('/'))
            .and_then(|it| it.split_once('/'))
            .unwrap();
        assert!(host.starts_with("127.0.0.1:"), "{url}");
        assert_eq!(token.len(), 32);
        let (host, token) = (host.to_owned(), token.to_owned());
        Self { child, host, token }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The response to a request of these lines.
    fn ask(&self, lines: &[&str]) -> String {
        let mut stream = self.connect();
        let request = format!("{}\r\n\r\n", lines.join("\r\n"));
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    fn get(&self, path: &str) -> String {
        let host = format!("Host: {}", self.host);
        self.ask(&[&format!("GET {path} HTTP/1.1"), &host])
    }

    /// The status of a page's attempt to exchange messages.
    fn try_open(&self, token: &str, origin: &str) -> Result<Page, u16> {
        let request = tungstenite::http::Request::builder()
            .uri(format!("ws://{}/{token}/messages", self.host))
            .header("Host", &self.host)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("Origin", origin)
            .body(())
            .unwrap();
        match tungstenite::client::client(request, self.connect()) {
            Ok((socket, _)) => Ok(Page {
                socket,
                last: Value::Null,
                panel: Value::Null,
                count: 0,
            }),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                Err(response.status().as_u16())
            }
            Err(e) => panic!("{e}"),
        }
    }

    fn open(&self) -> Page {
        let mut page = self
            .try_open(&self.token, &format!("http://{}", self.host))
            .unwrap();
        page.until(|it| it["trouble"].is_null());
        page
    }

    fn status(&self, name: &str) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find(|it| it.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .unwrap()
            .count()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A page that exchanges messages.
struct Page {
    socket: WebSocket<TcpStream>,
    last: Value,
    panel: Value,
    /// Messages that have come.
    count: usize,
}

impl Page {
    /// The next message.
    fn next(&mut self) -> &Value {
        let message = loop {
            match self.socket.read() {
                // A process that was stopped and continues is interrupted if there is a timeout.
                Err(Error::Io(err)) if err.kind() == ErrorKind::Interrupted => (),
                message => break message.unwrap(),
            }
        };
        let Message::Text(text) = message else {
            panic!("not a text");
        };
        self.last = serde_json::from_str(&text).unwrap();
        self.count += 1;
        if let Some(panel) = self.last.get("panel") {
            self.panel = panel.clone();
        }
        &self.last
    }

    /// Waits for a message like this, unless the last one was.
    fn until(&mut self, mut f: impl FnMut(&Value) -> bool) {
        let start = Instant::now();
        if self.last.is_null() {
            self.next();
        }
        while !f(&self.last) {
            assert!(start.elapsed() < PATIENCE, "never: {}", self.last);
            self.next();
        }
    }

    fn until_levels(&mut self, levels: &str) {
        self.until(|it| it["levels"] == levels);
    }

    fn order(&mut self, line: usize, level: bool, held: bool) {
        let epoch = &self.last["epoch"];
        let order = json!({"epoch": epoch, "line": line, "level": level, "held": held});
        self.say(&order.to_string());
    }

    fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// Waits for the end of the connection.
    fn end(mut self) {
        while self.socket.read().is_ok() {}
    }
}

fn status(response: &str) -> &str {
    &response.strip_prefix("HTTP/1.1 ").expect(response)[..3]
}

#[test]
fn the_page_is_for_those_who_know_the_token() {
    let daemon = Daemon::start("lines=2");
    let board = Board::start(&daemon, &[]);
    for file in ["", "board.css", "board.js"] {
        let response = board.get(&format!("/{}/{file}", board.token));
        assert_eq!(status(&response), "200");
        assert!(response.contains("Content-Security-Policy: default-src 'none'"));
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())));
    }
    let wrong = "0".repeat(32);
    for path in [
        "/".into(),
        format!("/{wrong}/"),
        format!("/{wrong}/messages"),
    ] {
        let response = board.get(&path);
        assert_eq!(status(&response), "403", "{path}");
        assert!(!response.contains(&board.token));
    }
    let path = format!("GET /{}/ HTTP/1.1", board.token);
    assert_eq!(status(&board.ask(&[&path, "Host: evil.example"])), "403");
    let origin = "Origin: http://evil.example";
    let host = format!("Host: {}", board.host);
    assert_eq!(status(&board.ask(&[&path, &host, origin])), "403");

    let ours = format!("http://{}", board.host);
    assert_eq!(board.try_open(&wrong, &ours).err(), Some(403));
    let evil = board.try_open(&board.token, "http://evil.example");
    assert_eq!(evil.err(), Some(403));
    board.open();
}

#[test]
fn it_listens_on_the_loopback_address_only() {
    let daemon = Daemon::start("lines=1");
    let board = Board::start(&daemon, &[]);
    let (_, port) = board.host.split_once(':').unwrap();
    // The same port of another address of this machine is free.
    TcpListener::bind(format!("127.0.0.2:{port}")).unwrap();

    let again = program().args(["board", "--port", port]).output().unwrap();
    assert!(complaint(&again).contains("cannot listen on port"));
}

#[test]
fn what_one_page_changes_all_see() {
    let daemon = Daemon::start("lines=3,names=led:button:sw,values=001");
    let board = Board::start(&daemon, &[]);
    let mut pages = [board.open(), board.open()];
    for page in &mut pages {
        page.until_levels("001");
        let kinds = page.panel["parts"].as_array().unwrap().iter();
        let kinds: Vec<_> = kinds.map(|it| it["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["led", "button", "switch"]);
    }
    pages[0].order(2, false, false);
    pages.iter_mut().for_each(|it| it.until_levels("000"));
    assert_eq!(daemon.ok(&["get", "--numeric", "2"]), "0\n");
    pages[1].order(2, true, false);
    pages.iter_mut().for_each(|it| it.until_levels("001"));
    daemon.ok(&["set", "led=1"]);
    for page in &mut pages {
        page.until_levels("101");
        let edges = &page.last["edges"][0];
        assert_eq!((&edges[0], &edges[1][0][1]), (&json!(0), &json!(1)));
    }
}

#[test]
fn a_button_is_released_when_all_pages_have_let_it_go() {
    let daemon = Daemon::start("lines=1,names=button");
    let board = Board::start(&daemon, &[]);
    let [mut one, mut two, mut viewer] = [board.open(), board.open(), board.open()];
    one.order(0, true, true);
    viewer.until_levels("1");
    two.order(0, true, true);
    two.order(0, true, true);
    two.until_levels("1");
    two.order(0, false, false);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(daemon.ok(&["get", "--numeric", "0"]), "1\n");
    drop(one);
    viewer.until_levels("0");
    assert_eq!(daemon.ok(&["get", "--numeric", "0"]), "0\n");
}

#[test]
fn what_the_guest_drives() {
    let daemon = Daemon::start("lines=2,names=led:button");
    let board = Board::start(&daemon, &[]);
    let mut page = board.open();
    page.until(|it| it["devices"] == json!([["vgpio0", false]]));
    let mut guest = Guest::new(&daemon.socket(0));
    page.until(|it| it["devices"] == json!([["vgpio0", true]]));
    guest.ok(5, 0, 1);
    guest.ok(3, 0, 1);
    page.until(|it| it["levels"] == "10" && it["guest"] == "10");
    guest.ok(3, 1, 2);
    guest.ok(6, 1, 1);
    let buffer = guest.arm(1);
    page.order(1, true, true);
    assert_eq!(guest.event(), (buffer, 1));
    drop(guest);
    page.until(|it| it["guest"] == "00" && it["devices"][0][1] == json!(false));
}

#[test]
fn the_daemon_goes_and_comes_back() {
    let mut daemon = Daemon::start("lines=2,names=led:button");
    let board = Board::start(&daemon, &[]);
    let mut page = board.open();
    page.order(1, true, true);
    page.until_levels("01");
    daemon.stop(rustix::process::Signal::TERM);
    page.until(|it| {
        it["trouble"]
            .as_str()
            .is_some_and(|it| it.contains("hung up"))
    });
    page.until(|it| {
        it["trouble"]
            .as_str()
            .is_some_and(|it| it.contains("no vgpio daemon"))
    });

    // Ignored, as there is no line to set.
    page.order(0, true, false);
    let socket = daemon.dir.path().join("socket0");
    let device = format!("socket={},lines=3,names=led:button:sw", socket.display());
    let mut again = program()
        .args(["serve", "--device", &device, "--control"])
        .arg(daemon.control())
        .spawn()
        .unwrap();
    page.until(|it| it["trouble"].is_null());
    assert_eq!(page.last["levels"], "000");
    assert_eq!(page.panel["lines"].as_array().unwrap().len(), 3);
    let epoch = page.last["epoch"].clone();
    page.order(2, true, false);
    page.until_levels("001");

    // An order for a panel that is no more.
    page.say(&json!({"epoch": 1, "line": 0, "level": true, "held": false}).to_string());
    page.order(2, false, false);
    page.until_levels("000");
    assert_eq!(page.last["epoch"], epoch);
    again.kill().unwrap();
    again.wait().unwrap();
}

#[test]
fn a_daemon_that_hangs() {
    let daemon = Daemon::start("lines=1");
    let board = Board::start(&daemon, &[]);
    let mut page = board.open();
    let pid = rustix::process::Pid::from_raw(daemon.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    page.until(|it| it["trouble"] == "vgpio does not answer");
    // Pages are served meanwhile.
    assert_eq!(status(&board.get(&format!("/{}/", board.token))), "200");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    page.until(|it| it["trouble"].is_null());
    page.order(0, true, false);
    page.until_levels("1");
}

#[test]
fn messages_that_are_huge_or_no_messages() {
    let daemon = Daemon::start("lines=1");
    let board = Board::start(&daemon, &[]);
    let mut good = board.open();
    let before = board.status("VmRSS");
    let big = "x".repeat(64 << 20);
    for text in [&big[..], "{}", "\"", &big[..1025]] {
        let mut page = board.open();
        let _ = page.socket.send(Message::text(text));
        page.end();
    }
    let mut page = board.open();
    page.socket.send(Message::binary(vec![0; 10])).unwrap();
    page.end();
    // A frame that claims to be longer than any memory.
    let mut page = board.open();
    let header = [
        0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
    ];
    page.socket.get_mut().write_all(&header).unwrap();
    page.end();

    let mut stream = board.connect();
    let mut sent = 0;
    while sent < 64 << 20 && stream.write_all(&big.as_bytes()[..1 << 20]).is_ok() {
        sent += 1 << 20;
    }
    let host = format!("Host: {}", board.host);
    let long = format!("X: {}", &big[..9 << 10]);
    let path = format!("GET /{}/ HTTP/1.1", board.token);
    assert_eq!(status(&board.ask(&[&path, &host, &long])), "431");
    let body = format!("Content-Length: {}", 1_u64 << 40);
    assert_eq!(status(&board.ask(&[&path, &host, &body])), "413");
    let grown = board.status("VmRSS").saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB");

    good.order(0, true, false);
    good.until_levels("1");
}

#[test]
fn many_browsers() {
    let daemon = Daemon::start("lines=1");
    let board = Board::start(&daemon, &[]);
    let ours = format!("http://{}", board.host);
    let mut pages: Vec<_> = (0..32).map(|_| board.open()).collect();
    assert_eq!(board.try_open(&board.token, &ours).err(), Some(503));
    pages[7].order(0, true, false);
    pages.iter_mut().for_each(|it| it.until_levels("1"));
    pages.truncate(10);
    eventually("room for a page", || {
        board.try_open(&board.token, &ours).is_ok()
    });

    // Connections that ask nothing: the surplus is refused, the others end by themselves.
    let crowd: Vec<_> = (0..100).map(|_| board.connect()).collect();
    let mut response = String::new();
    (&crowd[99]).read_to_string(&mut response).unwrap();
    assert_eq!(status(&response), "503");
    pages[0].order(0, false, false);
    pages.iter_mut().for_each(|it| it.until_levels("0"));
    let start = Instant::now();
    crowd[0].set_read_timeout(Some(2 * PATIENCE)).unwrap();
    assert_eq!((&crowd[0]).read(&mut [0]).unwrap(), 0);
    assert!(start.elapsed() < 2 * PATIENCE);
    assert_eq!(status(&board.get(&format!("/{}/", board.token))), "200");
}

#[test]
fn a_thousand_connections_leave_nothing() {
    let daemon = Daemon::start("lines=1");
    let board = Board::start(&daemon, &[]);
    drop(board.open());
    let idle = board.descriptors();
    let before = board.status("VmRSS");
    for turn in 0..1000 {
        match turn % 4 {
            0 => drop(board.open()),
            1 => drop(board.connect()),
            2 => drop(board.get(&format!("/{}/board.js", board.token))),
            _ => drop(board.connect().write_all(b"GET / HT")),
        }
    }
    eventually("all connections are closed", || board.descriptors() <= idle);
    assert_eq!(board.status("Threads"), 4, "main, link, two watches");
    let grown = board.status("VmRSS").saturating_sub(before);
    assert!(grown < 4 << 10, "{grown} KiB");
}

#[test]
fn a_page_that_does_not_read() {
    let names: Vec<_> = (0..64).map(|line| format!("line-{line}")).collect();
    let daemon = Daemon::start(&format!("lines=64,names={}", names.join(":")));
    let board = Board::start(&daemon, &[]);
    let [mut idle, mut page] = [board.open(), board.open()];
    set_socket_recv_buffer_size(idle.socket.get_ref(), 4096).unwrap();
    let before = board.status("VmRSS");
    let mut toggle = program()
        .arg("--control")
        .arg(daemon.control())
        .args(["toggle", "--interval", "5ms", "--count", "600"])
        .args(&names[1..])
        .spawn()
        .unwrap();
    let mut level = false;
    while toggle.try_wait().unwrap().is_none() {
        level = !level;
        page.order(0, level, false);
        let wanted = if level { "1" } else { "0" };
        page.until(|it| it["levels"].as_str().unwrap().starts_with(wanted));
    }
    page.order(0, true, false);
    let last = format!("1{}", "0".repeat(63));
    page.until_levels(&last);
    let grown = board.status("VmRSS").saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB");
    // When the other one reads at last it gets the state that there is, and of all edges only those
    // that the kernel had kept for it, and fewer than there were.
    let mut edges = 0;
    idle.until(|it| {
        let lines = it["edges"].as_array().unwrap().iter();
        edges += lines
            .map(|it| it[1].as_array().unwrap().len())
            .sum::<usize>();
        it["levels"] == last
    });
    assert!(edges < 63 * 600 * 2 / 3, "{edges} edges");
}

#[test]
fn messages_are_few_and_have_all_edges() {
    const EDGES: usize = 400;
    let daemon = Daemon::start("lines=2");
    let board = Board::start(&daemon, &[]);
    let mut page = board.open();
    let (start, before) = (Instant::now(), page.count);
    let count = EDGES.to_string();
    daemon.ok(&["toggle", "0", "--interval", "2ms", "--count", &count]);
    daemon.ok(&["set", "1=1"]);
    let mut seen = Vec::new();
    page.until(|it| {
        let lines = it["edges"].as_array().unwrap().iter();
        for line in lines.filter(|line| line[0] == 0) {
            for edge in line[1].as_array().unwrap() {
                seen.push((edge[0].as_u64().unwrap(), edge[1].as_u64().unwrap()));
            }
        }
        it["levels"] == "01"
    });
    let messages = page.count - before;
    let frames = start.elapsed().as_millis() / 16;
    assert!(
        messages as u128 <= frames + 2,
        "{messages} in {frames} frames"
    );
    assert_eq!(seen.last().unwrap().1, 0);
    for pair in seen.windows(2) {
        assert!(pair[0].0 <= pair[1].0 && pair[0].1 != pair[1].1, "{pair:?}");
    }
    // On a machine that is too busy there are too many edges for a message.
    let thinned_out = seen.iter().any(|(_, level)| *level == 2);
    assert!(thinned_out || seen.len() == EDGES, "{} edges", seen.len());
}

#[test]
fn a_file_tells_what_is_shown() {
    let daemon = Daemon::start_all(&["lines=2,names=a:b,label=x", "lines=2,names=a:c,label=y"]);
    let file = daemon.dir.path().join("panel.toml");
    let text = "title = 'Panel'\n\n[[part]]\nkind = 'led'\nline = 'c'\ncolour = 'green'\n\n\
                [[part]]\nkind = 'button'\ndevice = 'x'\nline = 'a'\nkey = 'k'\n\n\
                [[part]]\nkind = 'led'\nline = 'nowhere'\n";
    std::fs::write(&file, text).unwrap();
    let board = Board::start(&daemon, &[file.to_str().unwrap()]);
    let mut page = board.open();
    assert_eq!(page.panel["title"], "Panel");
    assert_eq!(page.panel["lines"][0]["device"], "y");
    assert_eq!(page.panel["parts"][2]["error"], "no line \"nowhere\"");
    page.order(1, true, true);
    page.until_levels("01");
    assert_eq!(daemon.ok(&["-d", "x", "get", "--numeric", "0"]), "1\n");

    std::fs::write(&file, text.replace("colour", "color")).unwrap();
    let error = daemon.fails(&["board", file.to_str().unwrap()]);
    assert!(
        error.contains("panel.toml:6: unknown field `color`"),
        "{error}"
    );
    let error = daemon.fails(&["board", "/nonexistent"]);
    assert!(error.contains("cannot read /nonexistent"), "{error}");
}
