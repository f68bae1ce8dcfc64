// SPDX-License-Identifier: GPL-2.0-only

//! The vhost-user side: what a front end sees of a device during one connection.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};

use log::debug;
use rustix::event::{eventfd, EventfdFlags};
use vhost::vhost_user::{Listener, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon};
use virtio_bindings::bindings::virtio_config::{VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1};
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    new_event_consumer_and_notifier, EventConsumer, EventFlag, EventNotifier,
};

use crate::device::{Device, HangUp};
use crate::platform::Platform;
use crate::ring::{self, Memory, Ring, View};
use crate::vring::Vring;
use crate::wire::F_IRQ;

pub const QUEUES: usize = 2;

/// What the thread of the rings hears while it is to look at them; the library has the number before.
const LOOK: u16 = QUEUES as u16 + 1;

/// A device as one front end knows it.
struct Backend {
    device: Arc<Device>,
    mem: Memory,
    /// The same, as the rings see it.
    view: View,
    platform: Arc<Platform>,
    /// The end of the exit event that the ring thread reads.
    exit: Mutex<Option<RawFd>>,
    /// Readable while the thread of the rings is to look at them, between whatever else it hears.
    look: OwnedFd,
}

/// Serves one front end, from its connection to its end.
pub fn serve(
    device: &Arc<Device>,
    listener: &mut Listener,
) -> Result<(), vhost_user_backend::Error> {
    let mem = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let platform = Arc::default();
    let look = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let look = look.map_err(|e| vhost_user_backend::Error::StartDaemon(e.into()))?;
    let backend = Arc::new(Backend {
        device: device.clone(),
        view: View::new(ring::view(&mem, &platform)),
        mem: mem.clone(),
        platform,
        exit: Mutex::new(None),
        look,
    });
    let result = serve_with(&backend, mem, listener);
    device.disconnect();
    result
}

fn serve_with(
    backend: &Arc<Backend>,
    mem: Memory,
    listener: &mut Listener,
) -> Result<(), vhost_user_backend::Error> {
    let device = &backend.device;
    let label = device.description().label.clone();
    // Joins the ring thread when it is dropped.
    let mut daemon = VhostUserDaemon::new(label, backend.clone(), mem)?;
    let mut rings = Vec::new();
    for handler in daemon.get_epoll_handlers() {
        // SAFETY: `handler` owns the descriptor and lives longer than the borrow.
        let sleeper = unsafe { BorrowedFd::borrow_raw(handler.as_raw_fd()) };
        let made = Vring::all_sleep_on(sleeper);
        rings.extend(made.map_err(vhost_user_backend::Error::StartDaemon)?);
        let look = backend.look.as_raw_fd();
        let listens = handler.register_listener(look, EventSet::IN, LOOK.into());
        listens.map_err(vhost_user_backend::Error::StartDaemon)?;
    }
    if device.description().access_platform {
        let inner = backend.platform.interpose(listener, rings);
        daemon.start(&mut inner.map_err(vhost_user_backend::Error::StartDaemon)?)?;
    } else {
        daemon.start(listener)?;
    }
    let connection = daemon.shutdown_handle();
    device.connect(connection.map(|it| Box::new(move || it.shutdown()) as HangUp));
    daemon.wait()
}

impl Backend {
    /// Has the rings see memory as it is now.
    fn look_again(&self) {
        let view = ring::view(&self.mem, &self.platform);
        self.view.lock().expect("a thread panicked").replace(view);
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let exit = self.exit.get_mut().expect("a thread panicked");
        if let Some(fd) = exit.take() {
            // SAFETY: The library took the descriptor out of its owner when it registered it with
            // the ring thread, never closes it, and nothing refers to it any more: that thread has
            // a share of this backend until it has ended.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        self.device.description().queue_size.into()
    }

    fn features(&self) -> u64 {
        self.device.offer();
        let bits = (1 << VIRTIO_F_VERSION_1)
            | (1 << VIRTIO_RING_F_INDIRECT_DESC)
            | (1 << VIRTIO_RING_F_EVENT_IDX)
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        let description = self.device.description();
        bits | (u64::from(description.irq) << F_IRQ)
            | (u64::from(description.access_platform) << VIRTIO_F_ACCESS_PLATFORM)
    }

    fn acked_features(&self, features: u64) {
        self.look_again();
        let can_disable = features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0;
        self.device
            .negotiate(features & (1 << F_IRQ) != 0, can_disable);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        let mut features = VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK;
        // Front ends want a way to be asked for translations before they offer the guest a platform.
        let access_platform = self.device.description().access_platform;
        features.set(VhostUserProtocolFeatures::BACKEND_REQ, access_platform);
        features
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The rings know.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        // Reads beyond the end find zeroes.
        let config = self.device.description().config();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let beyond = config.into_iter().chain(std::iter::repeat(0));
        beyond
            .skip(from.min(config.len()))
            .take(size as usize)
            .collect()
    }

    fn set_config(&self, _offset: u32, _buf: &[u8]) -> io::Result<()> {
        // Nothing in there is for the driver to write. An error would end the connection.
        debug!(device = self.device.description().label.as_str(); "write to config space ignored");
        Ok(())
    }

    fn update_memory(&self, _mem: Memory) -> io::Result<()> {
        self.look_again();
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        let event = new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC);
        let (consumer, notifier) = event.ok()?;
        *self.exit.lock().expect("a thread panicked") = Some(consumer.as_raw_fd());
        Some((consumer, notifier))
    }

    fn stop_vring(&self, queue: u32) -> io::Result<()> {
        self.device.stop(queue as usize);
        Ok(())
    }

    fn handle_event(
        &self,
        queue: u16,
        _events: EventSet,
        vrings: &[Self::Vring],
        _thread: usize,
    ) -> io::Result<()> {
        // An error would end the ring thread and leave the guest without a device.
        let again = match (queue, vrings) {
            (LOOK, _) => self.device.look(),
            (_, [requests, events]) => self.device.kick(queue.into(), || {
                [requests, events].map(|vring| Ring::new(vring.clone(), self.view.clone()))
            }),
            _ => false,
        };
        // It has no room for more, or nothing in it, where this fails.
        if queue != LOOK && again {
            let _ = rustix::io::write(&self.look, &1_u64.to_ne_bytes());
        } else if queue == LOOK && !again {
            let _ = rustix::io::read(&self.look, &mut [0_u8; 8]);
        }
        Ok(())
    }
}
