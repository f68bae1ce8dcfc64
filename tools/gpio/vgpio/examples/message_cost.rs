// SPDX-License-Identifier: GPL-2.0-only

//! What a message costs the device, without a virtual machine: this process is daemon and guest.
//!
//! Prints the time that passes per message, the processor time and the allocations of the device's
//! thread, and its interrupts per batch. `strace -c -f` shows the system calls. At last it compares a
//! device that looks for further requests with one that does not, in turns.

#[allow(dead_code)]
#[path = "../tests/vgpio/driver.rs"]
mod driver;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::event::{poll, PollFd, PollFlags};
use vgpio::wire::REQUEST_QUEUE;
use vhost::VhostBackend;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use driver::{Guest, Options, EVENT_IDX, IRQ};

const SIZE: u16 = 256;
const GET_VALUE: u16 = 4;

/// Allocations of all threads but those that are exempt.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static EXEMPT: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: All is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !EXEMPT.get() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: The caller keeps the promises that this function asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: As above, and all memory comes from there.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// The file in which the kernel counts the processor time of the thread called `name`.
fn thread_time(name: &str) -> impl Fn() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut paths = tasks.map(|entry| entry.unwrap().path());
    let is_it = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("comm")).unwrap().trim() == name
    };
    let path = paths.find(is_it).unwrap().join("schedstat");
    move || {
        let text = std::fs::read_to_string(&path).unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// A guest whose driver does next to nothing: it offers the same requests again and again.
struct Driver {
    guest: Guest,
    heads: Vec<u16>,
    avail: u16,
    call: EventFd,
    interrupts: u64,
    kicks: u64,
}

impl Driver {
    fn new(socket: &Path, per_kick: u16) -> Self {
        let options = Options {
            size: SIZE,
            features: IRQ | EVENT_IDX,
        };
        let mut guest = Guest::with(socket, options);
        let heads: Vec<_> = (0..per_kick)
            .map(|line| guest.post(GET_VALUE, line, 0))
            .collect();
        guest.kick(REQUEST_QUEUE);
        for _ in &heads {
            guest.wait(REQUEST_QUEUE);
        }
        // One that can be waited for.
        let call = EventFd::new(0).unwrap();
        guest.frontend.set_vring_call(REQUEST_QUEUE, &call).unwrap();
        Self {
            guest,
            heads,
            avail: per_kick,
            call,
            interrupts: 0,
            kicks: 0,
        }
    }

    fn store(&self, at: u64, word: u16) {
        let mem = &self.guest.mem;
        mem.store(word, GuestAddress(at), Ordering::SeqCst).unwrap();
    }

    fn load(&self, at: u64) -> u16 {
        let mem = &self.guest.mem;
        mem.load(GuestAddress(at), Ordering::SeqCst).unwrap()
    }

    /// Sends one batch and waits for the last answer.
    fn round(&mut self) {
        let ring = &self.guest.rings[REQUEST_QUEUE];
        let (avail_index, used_index) = (ring.avail_index(), ring.used_index());
        let entries = avail_index + 2;
        let avail_event = used_index + 2 + 8 * u64::from(SIZE);
        let old = self.avail;
        self.store(entries + 2 * u64::from(SIZE), self.avail);
        for head in &self.heads {
            self.store(entries + 2 * u64::from(self.avail % SIZE), *head);
            self.avail = self.avail.wrapping_add(1);
        }
        self.store(avail_index, self.avail);
        let new = self.avail;
        let behind = new.wrapping_sub(self.load(avail_event)).wrapping_sub(1);
        if behind < new.wrapping_sub(old) {
            self.guest.kick(REQUEST_QUEUE);
            self.kicks += 1;
        }
        loop {
            // SAFETY: The descriptor is open for as long as its owner is there.
            let call = unsafe { BorrowedFd::borrow_raw(self.call.as_raw_fd()) };
            let mut fds = [PollFd::new(&call, PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            self.interrupts += self.call.read().unwrap();
            if self.load(used_index) == self.avail {
                return;
            }
        }
    }
}

fn measure(socket: &Path, per_kick: u16, time: Duration) {
    let mut driver = Driver::new(socket, per_kick);
    let processor = thread_time("vring_worker");
    for _ in 0..100 {
        driver.round();
    }
    driver.interrupts = 0;
    let (taken, allocated) = (processor(), ALLOCATIONS.load(Ordering::Relaxed));
    let start = Instant::now();
    let mut rounds = 0_u64;
    while start.elapsed() < time {
        driver.round();
        rounds += 1;
    }
    let passed = start.elapsed().as_nanos() as f64;
    let messages = (rounds * u64::from(per_kick)) as f64;
    let taken = (processor() - taken) as f64;
    let allocated = (ALLOCATIONS.load(Ordering::Relaxed) - allocated) as f64;
    println!(
        "{per_kick:>2} per kick: {:>6.0} ns, {:>6.0} ns of the device, {:.4} allocations per message; \
         {:.3} interrupts per batch; {messages} messages",
        passed / messages,
        taken / messages,
        allocated / messages,
        driver.interrupts as f64 / rounds as f64,
    );
}

/// Compares two devices in turns, as what else the machine does changes.
fn compare(sockets: [&Path; 2], time: Duration) {
    const TURN: u32 = 1000;
    let mut drivers = sockets.map(|socket| Driver::new(socket, 1));
    let mut ratios = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time || ratios.is_empty() {
        let [without, with] = drivers.each_mut().map(|driver| {
            let start = Instant::now();
            (0..TURN).for_each(|_| driver.round());
            start.elapsed().as_secs_f64()
        });
        ratios.push(with / without);
    }
    ratios.sort_by(f64::total_cmp);
    let messages = f64::from(TURN) * ratios.len() as f64;
    let [without, with] = drivers.map(|driver| driver.kicks as f64 / messages);
    println!(
        "poll: {with:.3} notifications per message, {without:.3} without; \
         {:.2} times the time, the median of {} pairs of {TURN} messages",
        ratios[ratios.len() / 2],
        ratios.len(),
    );
}

fn main() {
    EXEMPT.set(true);
    let milliseconds = std::env::args()
        .nth(1)
        .map_or(1000, |it| it.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let [socket, polled] = ["gpio", "polled"].map(|name| dir.path().join(name));
    let control = dir.path().join("control");
    let arguments = [
        "vgpio".to_owned(),
        "--control".to_owned(),
        control.display().to_string(),
        "serve".to_owned(),
        "--device".to_owned(),
        format!("socket={},lines=64", socket.display()),
        "--device".to_owned(),
        format!("socket={},lines=64,poll=50us", polled.display()),
    ];
    std::thread::spawn(move || vgpio::cli::run(vgpio::cli::Cli::parse_from(arguments)));
    while !polled.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    for per_kick in [1, 64] {
        measure(&socket, per_kick, Duration::from_millis(milliseconds));
    }
    compare([&socket, &polled], Duration::from_millis(milliseconds));
}
