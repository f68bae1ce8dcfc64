// SPDX-License-Identifier: GPL-2.0-only

//! One virtqueue, in terms of chains that come and go.
//!
//! The front end may stop or disable the ring at any time from another thread, after which its
//! memory may be put to other use. Each operation therefore looks at the ring's state and touches
//! guest memory under one hold of the ring's lock.

use std::io;
use std::sync::atomic::{fence, Ordering};
use std::sync::Arc;

use vhost_user_backend::{VringState, VringT};
use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Error, QueueOwnedT, QueueT};
use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryAtomic, GuestMemoryMmap,
    IommuMemory,
};

use crate::chain::{self, Chain};
use crate::outbox::Completion;
use crate::platform::{Platform, Translator};
use crate::vring::Vring;

/// The guest's memory, replaced as a whole when the front end sends another memory table.
pub type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// The same, by the addresses that the guest gives to its devices.
pub type View = GuestMemoryAtomic<IommuMemory<GuestMemoryMmap, Translator>>;

/// How a device sees memory.
pub fn view(mem: &Memory, platform: &Arc<Platform>) -> IommuMemory<GuestMemoryMmap, Translator> {
    let translator = Translator(platform.clone());
    let mem = GuestMemoryMmap::clone(&mem.memory());
    IommuMemory::new(mem, translator, platform.is_enabled(), ())
}

/// Where a ring stands, to tell a continued one from a fresh one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    next_avail: u16,
    next_used: u16,
}

impl Position {
    /// Whether this is where a fresh ring stands.
    pub fn is_start(self) -> bool {
        self.next_avail == 0 && self.next_used == 0
    }
}

/// What became of chains on their way back.
#[derive(Debug)]
pub struct Handed {
    pub returned: u16,
    /// Heads that the ring has no room for.
    pub beyond: u16,
    /// Whether the guest was interrupted.
    pub signal: io::Result<bool>,
}

/// A virtqueue of one connection.
#[derive(Clone)]
pub struct Ring {
    vring: Vring,
    mem: View,
}

impl Ring {
    pub fn new(vring: Vring, mem: View) -> Self {
        Self { vring, mem }
    }

    /// Takes the chains that the guest has made available by now, each of which gets an answer of
    /// `answer` bytes. `held` is how many the guest has not got back.
    pub fn pop<const N: usize>(
        &self,
        held: u16,
        answer: usize,
        chains: &mut Vec<Chain<N>>,
    ) -> Result<(), Error> {
        let mut state = self.vring.get_mut();
        if !running(&state) {
            return Ok(());
        }
        let mem = self.mem.memory();
        let queue = state.get_queue_mut();
        let size = queue.size();
        let available = queue.avail_idx(&*mem, Ordering::Acquire)?.0;
        let available = available.wrapping_sub(queue.next_avail());
        if available > 0 && held >= size {
            // It takes a descriptor to make a chain, and all of them are with us.
            return Err(Error::InvalidAvailRingIndex);
        }
        let mut heads = queue.iter(&*mem)?;
        for _ in 0..available.min(size - held) {
            // There is something, so finding nothing means that the ring is out of reach.
            let chain = heads.next().ok_or(Error::InvalidAvailRingIndex)?;
            chains.push(Chain::parse(&*mem, chain, size, answer));
        }
        Ok(())
    }

    /// Writes the answers, hands the chains back, and interrupts the guest unless it does not want
    /// that. Does nothing, and returns `None`, if the ring does not run.
    pub fn push(&self, completions: &mut Vec<Completion>) -> Result<Option<Handed>, Error> {
        let mut state = self.vring.get_mut();
        if !running(&state) {
            return Ok(None);
        }
        let mem = self.mem.memory();
        let (mut returned, mut beyond) = (0, 0);
        for it in completions.drain(..) {
            let written = chain::write(&*mem, &it.pieces, &it.bytes);
            let queue = state.get_queue_mut();
            match queue.add_used(&*mem, it.head, it.used.unwrap_or(written)) {
                Ok(()) => returned += 1,
                Err(Error::InvalidDescriptorIndex) => beyond += 1,
                Err(e) => return Err(e),
            }
        }
        let signal = if returned == 0 {
            Ok(false)
        } else {
            signal(&self.vring, &mut state, &*mem)
        };
        Ok(Some(Handed {
            returned,
            beyond,
            signal,
        }))
    }

    /// Asks the guest not to notify us: we are looking anyway.
    pub fn quiet(&self) -> Result<(), Error> {
        let mut state = self.vring.get_mut();
        if running(&state) {
            let mem = self.mem.memory();
            state.get_queue_mut().disable_notification(&*mem)?;
        }
        Ok(())
    }

    /// Asks the guest to notify us again. Returns whether it added something meanwhile.
    pub fn listen(&self) -> Result<bool, Error> {
        let mut state = self.vring.get_mut();
        let mem = self.mem.memory();
        Ok(running(&state) && state.get_queue_mut().enable_notification(&*mem)?)
    }

    /// Stops the ring until the front end starts it again, with another notification.
    pub fn stop(&self) {
        self.vring.set_queue_ready(false);
        // The library starts a ring when it first learns of a way to be notified.
        self.vring.set_kick(None);
    }

    /// How often the front end has disabled the ring since the last call.
    pub fn take_disabled(&self) -> u64 {
        self.vring.take_disabled()
    }

    /// Whether the front end has enabled the ring.
    pub fn is_enabled(&self) -> bool {
        self.vring.get_ref().is_enabled()
    }

    /// Whether the front end lets us use the ring.
    pub fn is_running(&self) -> bool {
        running(&self.vring.get_ref())
    }

    /// Where the ring stands.
    pub fn position(&self) -> Position {
        let state = self.vring.get_ref();
        Position {
            next_avail: state.get_queue().next_avail(),
            next_used: state.get_queue().next_used(),
        }
    }
}

/// Interrupts the guest for the chains handed back since the last call, unless it does not want that.
/// Returns whether it was interrupted.
fn signal(
    vring: &Vring,
    state: &mut VringState<Memory>,
    mem: &impl GuestMemory,
) -> io::Result<bool> {
    let wanted = wants_signal(state, mem).map_err(io::Error::other)?;
    if wanted {
        match vring.interrupt(state) {
            // So many signals wait for the guest that there is no room for another.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            other => other?,
        }
    }
    Ok(wanted)
}

fn wants_signal(state: &mut VringState<Memory>, mem: &impl GuestMemory) -> Result<bool, Error> {
    let queue = state.get_queue_mut();
    if queue.event_idx_enabled() {
        return queue.needs_notification(mem);
    }
    // Complete the writes before reading what the guest has to say about them.
    fence(Ordering::SeqCst);
    let flags: u16 = mem
        .read_obj(GuestAddress(queue.avail_ring()))
        .map_err(Error::GuestMemory)?;
    Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
}

fn running(state: &VringState<Memory>) -> bool {
    state.is_enabled() && state.get_queue().ready()
}
