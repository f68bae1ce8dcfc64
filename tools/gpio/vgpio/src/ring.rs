// SPDX-License-Identifier: GPL-2.0-only

//! One virtqueue, in terms of chains that come and go.
//!
//! The front end may stop or disable the ring at any time from another thread, after which its
//! memory may be put to other use. Each operation therefore looks at the ring's state and touches
//! guest memory under one hold of the ring's lock.

use std::io;
use std::sync::atomic::Ordering;

use vhost_user_backend::{VringState, VringT};
use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Error, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use crate::chain::{self, Chain, Pieces};
use crate::vring::Vring;

/// The guest's memory, replaced as a whole when the front end sends another memory table.
pub type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

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

/// A virtqueue of one connection.
#[derive(Clone)]
pub struct Ring {
    vring: Vring,
    mem: Memory,
}

impl Ring {
    pub fn new(vring: Vring, mem: Memory) -> Self {
        Self { vring, mem }
    }

    /// Takes the next chain that the guest made available, which gets an answer of `answer` bytes.
    /// `held` is how many it has not got back yet.
    pub fn pop<const N: usize>(&self, held: u16, answer: usize) -> Result<Option<Chain<N>>, Error> {
        let mut state = self.vring.get_mut();
        if !running(&state) {
            return Ok(None);
        }
        let mem = self.mem.memory();
        let queue = state.get_queue_mut();
        if queue.avail_idx(&*mem, Ordering::Acquire)?.0 == queue.next_avail() {
            return Ok(None);
        }
        let size = queue.size();
        if held >= size {
            // It takes a descriptor to make a chain, and all of them are with us.
            return Err(Error::InvalidAvailRingIndex);
        }
        // There is something, so finding nothing means that the ring is out of reach.
        let next = queue.iter(&*mem)?.next();
        let chain = next.ok_or(Error::InvalidAvailRingIndex)?;
        Ok(Some(Chain::parse(&*mem, chain, size, answer)))
    }

    /// Writes `bytes` and hands the chain back, claiming to have written `used` bytes, or those
    /// really written. Returns whether the ring runs; if not, nothing has happened.
    pub fn push(
        &self,
        head: u16,
        pieces: &Pieces,
        bytes: &[u8],
        used: Option<u32>,
    ) -> Result<bool, Error> {
        let mut state = self.vring.get_mut();
        if !running(&state) {
            return Ok(false);
        }
        let written = chain::write(&*self.mem.memory(), pieces, bytes);
        state.add_used(head, used.unwrap_or(written))?;
        Ok(true)
    }

    /// Asks the guest not to notify us: we are looking anyway.
    pub fn quiet(&self) -> Result<(), Error> {
        let mut state = self.vring.get_mut();
        if running(&state) {
            state.disable_notification()?;
        }
        Ok(())
    }

    /// Asks the guest to notify us again. Returns whether it added something meanwhile.
    pub fn listen(&self) -> Result<bool, Error> {
        let mut state = self.vring.get_mut();
        Ok(running(&state) && state.enable_notification()?)
    }

    /// Interrupts the guest for the chains handed back since the last call, unless it does not
    /// want that. Returns whether it was interrupted, `None` if the ring does not run.
    pub fn signal(&self) -> io::Result<Option<bool>> {
        let mut state = self.vring.get_mut();
        if !running(&state) {
            return Ok(None);
        }
        let wanted = self.wants_signal(&mut state).map_err(io::Error::other)?;
        if wanted {
            match state.signal_used_queue() {
                // So many signals wait for the guest that there is no room for another.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => other?,
            }
        }
        Ok(Some(wanted))
    }

    fn wants_signal(&self, state: &mut VringState<Memory>) -> Result<bool, Error> {
        let wanted = state.needs_notification()?;
        if state.get_queue().event_idx_enabled() {
            return Ok(wanted);
        }
        let flags: u16 = self
            .mem
            .memory()
            .read_obj(GuestAddress(state.get_queue().avail_ring()))
            .map_err(Error::GuestMemory)?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Stops the ring until the front end starts it again, with another notification.
    pub fn stop(&self) {
        self.vring.set_queue_ready(false);
        // The library starts a ring when it first learns of a way to be notified.
        self.vring.set_kick(None);
    }

    /// Whether the front end lets us use the ring.
    pub fn is_running(&self) -> bool {
        running(&self.vring.get_ref())
    }

    /// How many chains can be under way.
    pub fn size(&self) -> u16 {
        self.vring.get_ref().get_queue().size()
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

fn running(state: &VringState<Memory>) -> bool {
    state.is_enabled() && state.get_queue().ready()
}
