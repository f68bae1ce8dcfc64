// SPDX-License-Identifier: GPL-2.0-only

//! A daemon of one's own, and its command line.

use std::io::{BufRead, BufReader, Lines, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vgpio::control::{self, Reply, Request};
use vgpio::stats::Stats;

/// A running `vgpio serve` with sockets in a directory that vanishes with it.
pub struct Daemon {
    child: Child,
    pub dir: TempDir,
}

/// The program, not yet told what to do.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vgpio"));
    for name in ["RUST_LOG", "VGPIO_CONTROL", "XDG_RUNTIME_DIR"] {
        command.env_remove(name);
    }
    command
}

impl Daemon {
    /// Starts a daemon with one device, described by the keys in `device`.
    pub fn start(device: &str) -> Self {
        Self::start_all(&[device])
    }

    /// Starts a daemon with several devices, whose sockets are `socket0`, `socket1`, ...
    pub fn start_all(devices: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut args = Vec::new();
        for (index, device) in devices.iter().enumerate() {
            let socket = dir.path().join(format!("socket{index}"));
            args.push("--device".to_owned());
            args.push(format!("socket={},{device}", socket.display()));
        }
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        Self::start_in(dir, &args)
    }

    /// Starts a daemon with these arguments after `serve`.
    pub fn start_with(args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), args)
    }

    fn start_in(dir: TempDir, args: &[&str]) -> Self {
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut child = program()
            .arg("serve")
            .arg("--control")
            .arg(dir.path().join("control"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut ready).unwrap();
        let daemon = Self { child, dir };
        assert_eq!(ready, "ready\n", "{}", daemon.log());
        daemon
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn socket(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("socket{index}"))
    }

    pub fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = program();
        command.arg("--control").arg(self.control()).args(args);
        command
    }

    /// Runs a command.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed; returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {errors}");
        assert_eq!(errors, "", "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail; returns the one line of its complaint.
    pub fn fails(&self, args: &[&str]) -> String {
        complaint(&self.run(args))
    }

    /// Starts `mon`, `notify` or `record`, and waits until it watches.
    pub fn watch(&self, args: &[&str]) -> Watch {
        let mut watch = self.spawn(&[args, &["--banner"]].concat());
        let banner = watch.line();
        assert!(["Watching lines...", "Recording lines..."].contains(&&banner[..]));
        watch
    }

    /// Starts a command that takes its time.
    pub fn spawn(&self, args: &[&str]) -> Watch {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Watch { child, lines }
    }

    /// The counters of the only device.
    pub fn stats(&self) -> Stats {
        self.stats_of("0")
    }

    pub fn stats_of(&self, device: &str) -> Stats {
        let text = self.ok(&["stats", "--json", "-d", device]);
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        let (_, stats) = all.as_object().unwrap().iter().next().unwrap();
        serde_json::from_value(stats.clone()).unwrap()
    }

    /// A connection to the control socket, for what must be fast.
    pub fn client(&self) -> Client {
        let stream = UnixStream::connect(self.control()).unwrap();
        Client(BufReader::new(stream))
    }

    /// Sends a signal and waits for the end; returns the exit code.
    pub fn stop(&mut self, signal: rustix::process::Signal) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}

/// A client that speaks the control protocol itself.
pub struct Client(BufReader<UnixStream>);

impl Client {
    pub fn ask(&mut self, request: &Request) -> Reply {
        control::send(self.0.get_ref(), request).unwrap();
        control::receive(&mut self.0, control::LONGEST_REPLY)
            .unwrap()
            .expect("hung up")
    }

    /// Inverts the host's level of a line.
    pub fn toggle(&mut self, line: &str) {
        let request = Request::Toggle {
            device: None,
            lines: vec![line.to_owned()],
            count: 1,
            interval_us: 0,
        };
        assert_eq!(self.ask(&request), Reply::Done);
    }
}

/// A command that runs.
pub struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    /// The next line.
    pub fn line(&mut self) -> String {
        self.lines.next().expect("the end").unwrap()
    }

    /// The next line without its time.
    pub fn next(&mut self) -> String {
        let line = self.line();
        let (time, rest) = line.split_once('\t').unwrap();
        assert!(time.parse::<f64>().unwrap() > 0.0, "{line}");
        rest.to_owned()
    }

    /// Waits for the end of the program, which must be a good one.
    pub fn end(mut self) -> Vec<String> {
        let rest = self.lines.by_ref().map(Result::unwrap).collect();
        assert!(self.child.wait().unwrap().success());
        rest
    }

    /// Waits for the end of the program, which must be a bad one; returns its complaint.
    pub fn failure(mut self) -> String {
        let mut error = String::new();
        let mut from = self.child.stderr.take().unwrap();
        from.read_to_string(&mut error).unwrap();
        assert!(!self.child.wait().unwrap().success());
        error
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The one line of a failed command's complaint.
pub fn complaint(output: &Output) -> String {
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!output.status.success(), "{errors}");
    assert_eq!(output.stdout, b"");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors
}

/// Waits until something has become true.
pub fn eventually(what: &str, mut f: impl FnMut() -> bool) {
    let start = Instant::now();
    while !f() {
        assert!(start.elapsed() < Duration::from_secs(5), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
