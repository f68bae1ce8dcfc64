// SPDX-License-Identifier: GPL-2.0-only

//! A ring as the front end sets it up, and the descriptors by which the two sides wake each other.
//!
//! The descriptors are the front end's: it has a hand in them for as long as it lives, and they may
//! be anything. The library waits for them where they block, ends where they do not, and keeps
//! listening to those that were replaced. Here nothing waits, and what was replaced is silent.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::event::epoll;
use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};
use rustix::io::Errno;
use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::Error;

use crate::ring::Memory;

/// What interrupts the guest where that takes more than a descriptor.
pub type Bell = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// A ring of one connection.
#[derive(Clone)]
pub struct Vring {
    ring: VringMutex<Memory>,
    /// What the thread of the rings sleeps on.
    sleeper: Arc<OnceLock<OwnedFd>>,
    /// How often the front end has disabled it and was not counted yet.
    disabled: Arc<AtomicU64>,
    bell: Option<Bell>,
}

thread_local! {
    /// The rings that the library has made on this thread. It does not expose them before the first
    /// notification.
    static MADE: RefCell<Vec<Vring>> = const { RefCell::new(Vec::new()) };
}

impl Vring {
    /// A ring of no library's.
    pub fn alone(mem: Memory, max_queue_size: u16) -> Result<Self, Error> {
        Ok(Self {
            ring: VringMutex::new(mem, max_queue_size)?,
            sleeper: Arc::default(),
            disabled: Arc::default(),
            bell: None,
        })
    }

    /// The same, of a guest that `bell` interrupts.
    pub fn with_bell(self, bell: Bell) -> Self {
        Self {
            bell: Some(bell),
            ..self
        }
    }

    /// Interrupts the guest.
    pub fn interrupt(&self, state: &VringState<Memory>) -> io::Result<()> {
        match &self.bell {
            Some(bell) => bell(),
            None => state.signal_used_queue(),
        }
    }

    /// How often the front end has disabled the ring since the last call.
    pub fn take_disabled(&self) -> u64 {
        self.disabled.swap(0, Ordering::Relaxed)
    }

    /// Tells the rings that this thread has made who listens to them, and gives them.
    pub fn all_sleep_on(sleeper: BorrowedFd<'_>) -> io::Result<Vec<Self>> {
        let made = MADE.take();
        for vring in &made {
            // It is set once: no other code has the ring yet.
            let _ = vring.sleeper.set(sleeper.try_clone_to_owned()?);
        }
        Ok(made)
    }

    /// Ends the listening to the descriptor by which the front end wakes us.
    fn ignore_kick(&self, state: &VringState<Memory>) {
        if let (Some(sleeper), Some(kick)) = (self.sleeper.get(), kick(state)) {
            // It may not be listened to at all.
            let _ = epoll::delete(sleeper, kick);
        }
    }
}

/// The descriptor by which the front end wakes us.
fn kick(state: &VringState<Memory>) -> Option<BorrowedFd<'_>> {
    let kick = state.get_kick().as_ref()?;
    // SAFETY: `kick` owns the descriptor, and is borrowed from `state` as long as the result.
    Some(unsafe { BorrowedFd::borrow_raw(kick.as_raw_fd()) })
}

/// Has reads and writes fail instead of wait.
fn never_wait(file: &impl AsFd) {
    if let Ok(flags) = fcntl_getfl(file) {
        // What cannot be told so does not wait.
        let _ = fcntl_setfl(file, flags | OFlags::NONBLOCK);
    }
}

impl<'a> VringStateGuard<'a, Memory> for Vring {
    type G = <VringMutex<Memory> as VringStateGuard<'a, Memory>>::G;
}

impl<'a> VringStateMutGuard<'a, Memory> for Vring {
    type G = <VringMutex<Memory> as VringStateMutGuard<'a, Memory>>::G;
}

impl VringT<Memory> for Vring {
    fn new(mem: Memory, max_queue_size: u16) -> Result<Self, Error> {
        let vring = Self::alone(mem, max_queue_size)?;
        MADE.with_borrow_mut(|made| made.push(vring.clone()));
        Ok(vring)
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, Memory>>::G {
        self.ring.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, Memory>>::G {
        self.ring.get_mut()
    }

    fn set_kick(&self, file: Option<File>) {
        let state = self.ring.get_ref();
        self.ignore_kick(&state);
        let replaced = file.is_some() && state.get_kick().is_some();
        drop(state);
        if replaced {
            // The library listens to a descriptor when it starts the ring, and not otherwise.
            self.ring.set_queue_ready(false);
        }
        file.iter().for_each(never_wait);
        self.ring.set_kick(file);
    }

    fn read_kick(&self) -> io::Result<bool> {
        let state = self.ring.get_ref();
        if let Some(kick) = kick(&state) {
            match rustix::io::read(kick, &mut [0_u8; 8]) {
                // The other end is closed, and would wake us in an endless loop.
                Ok(0) => self.ignore_kick(&state),
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.ignore_kick(&state),
            }
        }
        Ok(state.is_enabled())
    }

    fn set_call(&self, file: Option<File>) {
        file.iter().for_each(never_wait);
        self.ring.set_call(file);
    }

    fn set_enabled(&self, enabled: bool) {
        if !enabled && self.ring.get_ref().is_enabled() {
            self.disabled.fetch_add(1, Ordering::Relaxed);
        }
        self.ring.set_enabled(enabled);
    }

    // The rest is as the library has it.

    fn signal_used_queue(&self) -> io::Result<()> {
        self.ring.signal_used_queue()
    }

    fn add_used(&self, desc_index: u16, len: u32) -> Result<(), Error> {
        self.ring.add_used(desc_index, len)
    }

    fn enable_notification(&self) -> Result<bool, Error> {
        self.ring.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), Error> {
        self.ring.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, Error> {
        self.ring.needs_notification()
    }

    fn set_queue_info(&self, desc: u64, avail: u64, used: u64) -> Result<(), Error> {
        self.ring.set_queue_info(desc, avail, used)
    }

    fn queue_next_avail(&self) -> u16 {
        self.ring.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.ring.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, index: u16) {
        self.ring.set_queue_next_used(index);
    }

    fn queue_used_idx(&self) -> Result<u16, Error> {
        self.ring.queue_used_idx()
    }

    fn set_queue_size(&self, size: u16) {
        self.ring.set_queue_size(size);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.ring.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.ring.set_queue_ready(ready);
    }

    fn set_err(&self, file: Option<File>) {
        self.ring.set_err(file);
    }
}
