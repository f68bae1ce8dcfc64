// SPDX-License-Identifier: GPL-2.0-only

//! What a process that serves a VDUSE device hears of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{debug, error, warn};
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use vhost_user_backend::VringT;
use virtio_bindings::bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1,
};
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_queue::QueueT;
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap,
};

use super::kernel::{Description, DeviceFile, Message, QueueInfo};
use crate::backend::QUEUES;
use crate::device::Device;
use crate::ring::{self, Memory, Ring, View};
use crate::vring::Vring;
use crate::wire::{CONFIG_SIZE, F_IRQ};

/// The type of the device, VIRTIO_ID_GPIO.
pub const TYPE: u32 = 41;

/// How often an interrupt is tried that the kernel does not take yet, and how long between two tries.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// Where the memory of buffers begins, all of which are in a single region.
const BUFFERS: u64 = 0;

/// What the kernel has to know of a device.
pub fn describe(device: &Device) -> Description<CONFIG_SIZE> {
    let it = device.description();
    Description {
        id: TYPE,
        features: (1 << VIRTIO_F_VERSION_1)
            | (1 << VIRTIO_F_ACCESS_PLATFORM)
            | (1 << VIRTIO_RING_F_INDIRECT_DESC)
            | (1 << VIRTIO_RING_F_EVENT_IDX)
            | (u64::from(it.irq) << F_IRQ),
        queues: queues(device),
        queue_size: it.queue_size,
        config: it.config(),
    }
}

/// There is a queue of events only if there are interrupts.
fn queues(device: &Device) -> u32 {
    1 + u32::from(device.description().irq)
}

/// What has a device unplugged and plugged in again, and does not wait for that.
pub type Replug = Arc<dyn Fn() + Send + Sync>;

/// The driver of a device, from when it has set it up to when it resets it.
struct Started {
    rings: [Vring; QUEUES],
    mem: Memory,
    /// The same, as the rings see it.
    view: View,
}

/// A device as long as this process has it open.
pub struct Session {
    device: Arc<Device>,
    file: Arc<DeviceFile>,
    kicks: [OwnedFd; QUEUES],
    replug: Replug,
    started: Option<Started>,
}

impl Session {
    pub fn new(device: Arc<Device>, file: DeviceFile, replug: Replug) -> io::Result<Self> {
        let kick = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self {
            device,
            file: Arc::new(file),
            kicks: [kick()?, kick()?],
            replug,
            started: None,
        })
    }

    /// Answers until `end` is written to.
    pub fn run(mut self, end: &OwnedFd) {
        if let Err(e) = self.answer_all(end) {
            let label = self.device.description().label.as_str();
            error!(device = label; "is plugged in again, as the kernel has given it up: {e}");
            (self.replug)();
        }
        self.reset();
    }

    fn answer_all(&mut self, end: &OwnedFd) -> io::Result<()> {
        let mut looks = false;
        loop {
            let [requests, events] = &self.kicks;
            let mut fds = [
                PollFd::new(end, PollFlags::IN),
                PollFd::new(&*self.file, PollFlags::IN),
                PollFd::new(requests, PollFlags::IN),
                PollFd::new(events, PollFlags::IN),
            ];
            let patience = looks.then(Timespec::default);
            rustix::io::retry_on_intr(|| poll(&mut fds, patience.as_ref()))?;
            let [ended, message, kicks @ ..] = fds.map(|fd| fd.revents());
            if !ended.is_empty() {
                return Ok(());
            }
            if message.contains(PollFlags::ERR) {
                return Err(io::Error::other("a message was not answered in time"));
            }
            if let Some((number, message)) = self.file.receive()? {
                let answer = self.hear(message);
                self.file.answer(number, answer)?;
            }
            for (queue, kick) in kicks.into_iter().enumerate() {
                if !kick.is_empty() {
                    let _ = rustix::io::read(&self.kicks[queue], &mut [0_u8; 8]);
                    looks |= self.kick(queue);
                }
            }
            looks = looks && self.device.look();
        }
    }

    /// Carries out what a message says. `None` says that this failed.
    fn hear(&mut self, message: Message) -> Option<u16> {
        match message {
            Message::Status(0) => self.reset(),
            Message::Status(status) => {
                if self.started.is_none() && u32::from(status) & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
                    if let Err(e) = self.start() {
                        let label = self.device.description().label.as_str();
                        warn!(device = label; "the driver's queues are invalid: {e}");
                        return None;
                    }
                }
            }
            Message::QueueState(queue) => {
                let rings = self.started.as_ref().map(|it| &it.rings);
                let ring = rings.and_then(|rings| rings.get(queue as usize))?;
                return Some(ring.queue_next_avail());
            }
            Message::Mappings => {
                // What has gone must not be written to.
                if let Some(Err(e)) = self.started.as_ref().map(|it| it.find_memory(&self.file)) {
                    debug!("memory cannot be mapped: {e}");
                    return None;
                }
            }
            Message::Unknown(kind) => {
                debug!("message {kind} of VDUSE is unknown");
                return None;
            }
        }
        Some(0)
    }

    /// The driver has reset the device, or left it.
    fn reset(&mut self) {
        self.device.disconnect();
        self.started = None;
    }

    /// The driver has set up the device. It notifies us only once it has the answer.
    fn start(&mut self) -> io::Result<()> {
        let features = self.file.features()?;
        let mem = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let view = View::new(ring::view(&mem, &Arc::default()));
        let size = self.device.description().queue_size;
        let ring = |index: usize| -> io::Result<Vring> {
            let file = self.file.clone();
            let vring = Vring::alone(mem.clone(), size).map_err(io::Error::other)?;
            Ok(vring.with_bell(Arc::new(move || interrupt(&file, index as u32))))
        };
        let rings = [ring(0)?, ring(1)?];
        for (index, ring) in rings.iter().enumerate().take(queues(&self.device) as usize) {
            let info = self.file.queue(index as u32)?;
            if info.ready != 0 {
                set_up(ring, &info, features)?;
                // From before the reset.
                let _ = rustix::io::read(&self.kicks[index], &mut [0_u8; 8]);
                self.file
                    .set_kick(index as u32, self.kicks[index].as_fd())?;
            }
        }
        let started = Started { rings, mem, view };
        started.find_memory(&self.file)?;
        self.started = Some(started);
        let replug = self.replug.clone();
        self.device.connect(Some(Box::new(move || replug())));
        self.device.negotiate(features & (1 << F_IRQ) != 0, false);
        Ok(())
    }

    /// The driver has notified us of a queue. Returns whether to look at the queues until further
    /// notice.
    fn kick(&self, queue: usize) -> bool {
        let Some(started) = &self.started else {
            return false;
        };
        if !started.has(BUFFERS) {
            if let Err(e) = started.find_memory(&self.file) {
                // The ring makes no sense without, which the device will tell.
                debug!("memory cannot be mapped: {e}");
            }
        }
        self.device.kick(queue, || {
            let ring = |vring| Ring::new(vring, started.view.clone());
            started.rings.clone().map(ring)
        })
    }
}

impl Started {
    /// Whether what is at an address of the driver's is mapped.
    fn has(&self, address: u64) -> bool {
        let mem = self.mem.memory();
        mem.find_region(GuestAddress(address)).is_some()
    }

    /// Maps the rings, and the memory of all buffers, which is there from the first one on.
    fn find_memory(&self, file: &DeviceFile) -> io::Result<()> {
        let mut found = GuestMemoryMmap::new();
        let mut map = |address: u64| -> io::Result<()> {
            if found.find_region(GuestAddress(address)).is_none() {
                let more = found.insert_region(Arc::new(file.map(address)?));
                found = more.map_err(io::Error::other)?;
            }
            Ok(())
        };
        for ring in &self.rings {
            let state = ring.get_ref();
            let queue = state.get_queue();
            if queue.ready() {
                map(queue.desc_table())?;
                map(queue.avail_ring())?;
                map(queue.used_ring())?;
            }
        }
        // A notification of the first one is yet to come.
        let _ = map(BUFFERS);
        self.mem.lock().expect("a thread panicked").replace(found);
        let seen = ring::view(&self.mem, &Arc::default());
        self.view.lock().expect("a thread panicked").replace(seen);
        Ok(())
    }
}

/// Sets up a ring as the driver has.
fn set_up(ring: &Vring, info: &QueueInfo, features: u64) -> io::Result<()> {
    ring.set_queue_size(u16::try_from(info.size).unwrap_or(0));
    if u32::from(ring.get_ref().get_queue().size()) != info.size {
        return Err(io::Error::other(format!("a size of {}", info.size)));
    }
    ring.set_queue_info(info.descriptors, info.available, info.used)
        .map_err(io::Error::other)?;
    ring.set_queue_next_avail(info.next_available);
    ring.set_queue_event_idx(features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
    ring.set_enabled(true);
    ring.set_queue_ready(true);
    Ok(())
}

/// Interrupts the driver. The kernel takes that only when it has dealt with the answer to the
/// driver's being ready, which it may only be about to do.
fn interrupt(file: &DeviceFile, queue: u32) -> io::Result<()> {
    for _ in 1..TRIES {
        match file.interrupt(queue) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => thread::sleep(PAUSE),
            other => return other,
        }
    }
    file.interrupt(queue)
}
