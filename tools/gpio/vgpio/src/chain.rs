// SPDX-License-Identifier: GPL-2.0-only

//! Descriptor chains: what the guest wrote for us, and where we may write.
//!
//! Everything comes from guest memory and may be nonsense. Parsing never fails; it says what it
//! found, and the caller decides whether that is a message.

use smallvec::SmallVec;
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

/// The device-writable memory of a chain, in order. Linux uses one piece.
pub type Pieces = SmallVec<[(GuestAddress, u32); 2]>;

/// A chain with the first `N` bytes of its device-readable part.
#[derive(Debug)]
pub struct Chain<const N: usize> {
    /// What identifies the chain when it is handed back.
    pub head: u16,
    /// The device-readable bytes, if there are exactly `N` of them, in the right place, and all
    /// memory of the chain exists.
    pub request: Option<[u8; N]>,
    /// The device-writable memory, as far as an answer may reach.
    pub writable: Pieces,
    /// Bytes of device-writable memory in all.
    pub capacity: u32,
}

impl<const N: usize> Chain<N> {
    /// Walks a chain of at most `longest` descriptors, and remembers where an answer of `answer`
    /// bytes goes. Allocates only if that is in more than two pieces.
    pub fn parse<M: GuestMemory>(
        mem: &M,
        chain: DescriptorChain<&M>,
        longest: u16,
        answer: usize,
    ) -> Self {
        let head = chain.head_index();
        let mut request = [0; N];
        let mut filled = 0_usize;
        let mut intact = true;
        let mut readable = true;
        let mut more = false;
        let mut writable = Pieces::new();
        let mut capacity = 0_u32;
        for descriptor in chain.take(longest.into()) {
            let len = descriptor.len();
            more = descriptor.has_next();
            if descriptor.is_write_only() {
                readable = false;
                // Better to know now than when the answer is due.
                let (address, count) = (descriptor.addr(), len as usize);
                intact &= len == 0 || mem.check_range(address, count, Permissions::Write);
                if len > 0 && (capacity as usize) < answer {
                    writable.push((address, len));
                }
                // A chain of 4 GiB is not what it seems, but no reason to panic.
                capacity = capacity.saturating_add(len);
                continue;
            }
            // All readable descriptors come before the first writable one.
            intact &= readable;
            match request.get_mut(filled..filled.saturating_add(len as usize)) {
                Some(slot) if intact => {
                    intact = mem.read_slice(slot, descriptor.addr()).is_ok();
                    filled += slot.len();
                }
                _ => intact = false,
            }
        }
        // It goes round, or out of the table, or is longer than the ring, which a table of its own
        // would have room for.
        intact &= !more;
        Self {
            head,
            request: (intact && filled == N).then_some(request),
            writable,
            capacity,
        }
    }
}

/// Writes as much of `bytes` as fits and returns how much that was. A piece outside guest memory
/// ends the matter.
pub fn write<M: GuestMemory>(mem: &M, pieces: &Pieces, mut bytes: &[u8]) -> u32 {
    let mut written = 0;
    for &(address, len) in pieces {
        let (now, later) = bytes.split_at(bytes.len().min(len as usize));
        if now.is_empty() {
            continue;
        }
        if mem.write_slice(now, address).is_err() {
            break;
        }
        written += now.len() as u32;
        bytes = later;
    }
    written
}
