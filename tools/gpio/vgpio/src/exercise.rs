// SPDX-License-Identifier: GPL-2.0-only

//! What guests, clients and users can say, made from arbitrary bytes: for the fuzzer, and for tests
//! that do the same to a smaller extent.
//!
//! Each function takes anything and panics if something is wrong with the device.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, OnceLock};

use vhost_user_backend::VringT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryAtomic, GuestMemoryMmap};

use crate::config;
use crate::control::{self, Reply, Request};
use crate::device::Device;
use crate::duration;
use crate::fault::Faults;
use crate::plot::{self, Part};
use crate::replay;
use crate::ring::{self, Memory, Ring, View};
use crate::server::{Served, Server};
use crate::vring::Vring;
use crate::wave;
use crate::wire;

/// Where guest memory begins: not at zero, where the library has it that there is no ring.
const BASE: u64 = 0x1000;
/// Bytes of guest memory, in two pieces with nothing in between.
const PIECE: u64 = 0x2000;
const GAP: u64 = 0x1000;
/// Bytes for each ring with its descriptors.
const STRIDE: u64 = 0x400;
const SIZE: u16 = 16;
const LINES: u16 = 4;

/// Faults that strike at once, so that the result depends on the bytes alone.
const FAULTS: [&str; 9] = [
    "silent,count=1",
    "silent-events,count=1",
    "status=3,line=1",
    "value=7",
    "used-len=long",
    "stale,type=event",
    "reorder",
    "event-status=5",
    "invalid-events,probability=0.5,seed=1",
];

/// Bytes that decide what happens; zeroes when they are used up.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (now, later) = self.0.split_at(count.min(self.0.len()));
        self.0 = later;
        now
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// An address in memory, or near it, or anywhere.
    fn address(&mut self) -> u64 {
        match self.byte() {
            0xff => u64::MAX - u64::from(self.word()),
            0xfe => 1 << (self.byte() % 64),
            _ => BASE - 0x10 + u64::from(self.word()) % (2 * PIECE + GAP + 0x20),
        }
    }

    fn length(&mut self) -> u32 {
        match self.byte() {
            0xff => u32::MAX - u32::from(self.byte()),
            0xfe => 1 << (self.byte() % 32),
            few => few.into(),
        }
    }

    fn queue(&mut self) -> usize {
        usize::from(self.byte() % 2)
    }
}

/// A device with a guest whose memory we can write.
struct Stage {
    device: Arc<Device>,
    mem: Memory,
}

/// Where the parts of a ring are.
fn places(queue: usize) -> [u64; 3] {
    let table = BASE + STRIDE * queue as u64;
    [table, table + 0x100, table + 0x200]
}

impl Stage {
    fn new() -> Self {
        let text = format!("socket=/s,lines={LINES},names=a:bc::d,i2c-eeprom=1:0,poll=20us");
        let description = text.parse::<config::Device>().and_then(|it| it.describe(0));
        let ranges = [
            (GuestAddress(BASE), PIECE as usize),
            (GuestAddress(BASE + PIECE + GAP), PIECE as usize),
        ];
        let mem = GuestMemoryMmap::from_ranges(&ranges).expect("no memory");
        Self {
            device: Device::new(description.expect("a bad device")).expect("no thread"),
            mem: GuestMemoryAtomic::new(mem),
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        use vm_memory::GuestAddressSpace;
        let _ = self.mem.memory().write_slice(bytes, GuestAddress(at));
    }

    fn read_word(&self, at: u64) -> u16 {
        use vm_memory::GuestAddressSpace;
        let word = self.mem.memory().read_obj(GuestAddress(at));
        word.expect("a ring is out of reach")
    }

    /// Rings as a front end sets them up.
    fn rings(&self, event_index: bool) -> [Vring; 2] {
        [0, 1].map(|queue| {
            let vring = Vring::alone(self.mem.clone(), SIZE).expect("a bad size");
            let [table, avail, used] = places(queue);
            vring
                .set_queue_info(table, avail, used)
                .expect("a bad place");
            vring.set_queue_event_idx(event_index);
            vring.set_enabled(true);
            vring.set_queue_ready(true);
            vring
        })
    }

    fn kick(&self, vrings: &[Vring; 2], queue: usize) {
        let looks = self.device.kick(queue, || {
            let view = View::new(ring::view(&self.mem, &Arc::default()));
            vrings.clone().map(|vring| Ring::new(vring, view.clone()))
        });
        while looks && self.device.look() {}
    }

    fn descriptor(&self, queue: usize, index: u16, (at, len): (u64, u32), flags: u16, next: u16) {
        let [table, ..] = places(queue);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&at.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.write(table + 16 * u64::from(index % SIZE), &bytes);
    }

    /// Makes a head available.
    fn offer(&self, queue: usize, head: u16) {
        let [_, avail, _] = places(queue);
        let index = self.read_word(avail + 2);
        let at = avail + 4 + 2 * u64::from(index % SIZE);
        self.write(at, &head.to_le_bytes());
        self.write(avail + 2, &index.wrapping_add(1).to_le_bytes());
    }

    /// A proper message in the first two descriptors, or one that is nearly so.
    fn message(&self, queue: usize, script: &mut Script<'_>) {
        let [table, ..] = places(queue);
        let (at, answer) = (table + 0x300, table + 0x380);
        let (len, room) = if queue == wire::REQUEST_QUEUE {
            self.write(at, script.take(wire::REQUEST_SIZE));
            (wire::REQUEST_SIZE, 16)
        } else {
            self.write(at, script.take(wire::EVENT_REQUEST_SIZE));
            (wire::EVENT_REQUEST_SIZE, 1)
        };
        let slot = script.word() & 0xe;
        self.descriptor(queue, slot, (at, len as u32), 1, slot + 1);
        self.descriptor(queue, slot + 1, (answer, room), 2, 0);
        self.offer(queue, slot);
    }

    /// Plays a script from a fresh start.
    fn play(&self, mut script: Script<'_>) {
        self.device.disconnect();
        self.device.stats(true);
        let all = (0..LINES).map(|line| (line, false));
        self.device.set(all);
        let _ = self.device.faults(|faults| faults.clear(&[]));
        self.write(BASE, &[0; PIECE as usize]);
        self.write(BASE + PIECE + GAP, &[0; PIECE as usize]);

        let mode = script.byte();
        let vrings = self.rings(mode & 1 != 0);
        self.device.negotiate(mode & 2 != 0, mode & 4 != 0);
        while !script.0.is_empty() {
            match script.byte() % 16 {
                0..=2 => {
                    let queue = script.queue();
                    self.message(queue, &mut script);
                }
                3..=5 => {
                    let queue = script.queue();
                    self.kick(&vrings, queue);
                }
                6 | 7 => {
                    let queue = script.queue();
                    let place = (script.address(), script.length());
                    let (index, flags, next) = (script.word(), script.word(), script.word());
                    // Few flags have a meaning, and most of the indices none.
                    self.descriptor(queue, index, place, flags & 7, next % (SIZE + 1));
                }
                8 => {
                    let queue = script.queue();
                    self.offer(queue, script.word() % (SIZE + 2));
                }
                9 => {
                    let at = script.address();
                    let len = script.byte();
                    self.write(at, script.take(len.into()));
                }
                10 => {
                    let line = u16::from(script.byte()) % LINES;
                    self.device.set([(line, script.byte() % 2 != 0)]);
                }
                11 => {
                    let fault = usize::from(script.byte());
                    let text = FAULTS[fault % FAULTS.len()].to_owned();
                    let line = |text: &str| Ok(text.parse()?);
                    let _ = self.device.faults(|faults| faults.add(&[text], line));
                }
                12 => {
                    let [_, avail, _] = places(script.queue());
                    self.write(avail + 2, &script.word().to_le_bytes());
                }
                13 => self.device.stop(script.queue()),
                14 => {
                    let mode = script.byte();
                    if mode & 8 != 0 {
                        self.device.offer();
                    }
                    self.device.negotiate(mode & 1 != 0, mode & 2 != 0);
                }
                _ => {
                    let mode = script.byte();
                    let vring = &vrings[script.queue()];
                    vring.set_enabled(mode & 1 != 0);
                    vring.set_queue_ready(mode & 2 != 0);
                }
            }
            self.check();
        }
        self.device.disconnect();
    }

    /// What is true at any time, whatever the guest does.
    fn check(&self) {
        let stats = self.device.stats(false);
        for queue in [&stats.request_queue, &stats.event_queue] {
            assert!(queue.returned <= queue.chains, "more than there were");
        }
        let request = &stats.requests;
        let requests = request.get_line_names
            + request.get_direction
            + request.set_direction
            + request.get_value
            + request.set_value
            + request.set_irq_type
            + request.unknown;
        let queue = &stats.request_queue;
        assert_eq!(requests + queue.malformed, queue.chains, "some were lost");
        let lines: Vec<_> = (0..LINES).collect();
        for (_, view) in self.device.views(&lines) {
            assert!(!view.latched || !view.armed, "an edge that is not told");
        }
    }
}

/// A guest does what `script` says: memory, rings, notifications, and the host meanwhile.
pub fn guest(script: &[u8]) {
    static STAGE: OnceLock<Mutex<Stage>> = OnceLock::new();
    let stage = STAGE.get_or_init(|| Mutex::new(Stage::new()));
    let stage = stage.lock().expect("a test failed");
    stage.play(Script(script));
}

/// A client says `lines` over the control socket.
pub fn client(lines: &[u8]) {
    static SERVER: OnceLock<Mutex<Arc<Server>>> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let devices = [
            "socket=/s,lines=3,names=a:b",
            "socket=/t,lines=2,names=b:,i2c-eeprom=0:1",
        ];
        let serve = |(index, text): (usize, &&str)| {
            let description = text.parse::<config::Device>()?.describe(index)?;
            Ok(Served {
                device: Device::new(description)?,
                socket: String::new(),
            })
        };
        let served: anyhow::Result<Vec<_>> = devices.iter().enumerate().map(serve).collect();
        Mutex::new(Server::new(served.expect("a bad device")))
    });
    let server = server.lock().expect("a test failed");
    // The reader has hung up, which ends requests without an end of their own.
    let (client, _) = UnixStream::pair().expect("no sockets");
    let mut from = lines;
    while let Ok(Some(request)) = control::receive::<Request>(&mut from, control::LONGEST_REQUEST) {
        let reply = server.answer(&request, &client);
        let reply = reply.unwrap_or_else(|e| Reply::Error(format!("{e:#}")));
        let mut sent = Vec::new();
        control::send(&mut sent, &reply).expect("a reply that cannot be sent");
        let received = control::receive(&mut &sent[..], control::LONGEST_REPLY);
        assert_eq!(received.expect("not a reply"), Some(reply));
    }
    let _ = server.answer(
        &Request::FaultClear {
            device: None,
            ids: Vec::new(),
        },
        &client,
    );
}

/// A user writes `text` where the command line or a file of devices is read.
pub fn values(text: &str) {
    let _ = duration::parse(text);
    if let Ok((line, value)) = crate::cli::line_value(text) {
        let again = crate::cli::line_value(&format!("{line}={}", u8::from(value)));
        assert_eq!(again.expect("not taken again"), (line, value));
    }
    let _ = crate::cli::eeprom_bytes(text);
    #[cfg(feature = "board")]
    crate::board::exercise(text);

    let mut faults = Faults::default();
    let line = |text: &str| Ok(text.parse()?);
    if faults.add(&[text.to_owned()], line).is_ok() {
        let shown: Vec<_> = faults.list().map(|(_, text)| text).collect();
        let mut again = Faults::default();
        again.add(&shown, line).expect("not taken again");
        assert_eq!(
            again.list().map(|(_, text)| text).collect::<Vec<_>>(),
            shown
        );
    }

    let one = text.parse::<config::Device>().ok();
    let several = config::parse(text).unwrap_or_default();
    // Names from a file would be those of a file of this machine.
    let devices = one.into_iter().chain(several);
    for device in devices.filter(|it| it.names_file.is_none()) {
        if let Ok(description) = device.describe(0) {
            assert_eq!(description.values.len(), usize::from(description.lines));
            let block = description.names.block();
            let names = block.iter().filter(|byte| **byte == 0).count();
            assert!(block.is_empty() || names == usize::from(description.lines));
            for line in 0..description.lines {
                let name = description.names.get(line);
                assert!(name.is_none_or(|it| description.names.find(it) == Some(line)));
            }
        }
    }
}

/// A user replays or plots the file `text`.
pub fn wave(text: &[u8]) {
    let Ok(wave) = wave::parse(text) else {
        return;
    };
    let times = wave.changes.iter().map(|it| it.time);
    assert!(times.chain([wave.end]).is_sorted(), "time goes back");
    if let Ok(targets) = replay::targets(&wave, None, &[]) {
        let requests = replay::requests(&wave.changes, &targets);
        let levels = requests.iter().map(|it| match it {
            Request::Set { values, .. } => values.len(),
            _ => unreachable!("not a level"),
        });
        assert!(levels.sum::<usize>() <= wave.changes.len(), "too many");
    }
    for all in [false, true] {
        let part = Part {
            all,
            ..Part::default()
        };
        if let Ok(svg) = plot::svg(&wave, &part) {
            let bad = |c: char| c.is_control() && c != '\n';
            assert!(!svg.contains(bad), "not XML");
            let tags = |tag| svg.matches(tag).count();
            assert_eq!(tags("<g "), tags("</g>"));
            assert_eq!(tags("<text "), tags("</text>"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// How many inputs are made of each seed.
    const MUTATIONS: usize = 300;

    /// Plays all seeds of the fuzzer, and others made of them.
    fn play(target: &str, f: impl Fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/seeds")
            .join(target);
        let mut all: Vec<_> = std::fs::read_dir(seeds)
            .unwrap()
            .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .collect();
        all.sort();
        assert!(!all.is_empty());
        let mut random = fastrand::Rng::with_seed(42);
        for seed in &all {
            f(seed);
            for _ in 0..MUTATIONS {
                f(&mutate(seed, &all, &mut random));
            }
        }
    }

    fn mutate(seed: &[u8], all: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..=bytes.len());
            match random.u8(..6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, random.u8(..)),
                2 => {
                    let other = &all[random.usize(..all.len())];
                    let from = random.usize(..=other.len());
                    let part = other[from..].iter().take(40).copied();
                    bytes.splice(at..at, part);
                }
                3 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
                4 if at < bytes.len() => bytes[at] = random.u8(..),
                _ if at < bytes.len() => drop(bytes.remove(at)),
                _ => {}
            }
        }
        bytes
    }

    #[test]
    fn guests() {
        play("guest", guest);
    }

    #[test]
    fn clients() {
        play("client", client);
    }

    #[test]
    fn waves() {
        play("wave", wave);
    }

    #[test]
    fn users() {
        play("values", |bytes| values(&String::from_utf8_lossy(bytes)));
    }
}
