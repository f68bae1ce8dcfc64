// SPDX-License-Identifier: GPL-2.0

//! The set of virtqueues of one device and its life cycle.
//!
//! The bus abstraction owns the set, not the driver: a driver cannot forget to take it down, take
//! it down too early, or too late. What `struct virtio_device` has for the driver, its `priv`
//! field, points to the [`Vqs`].

use super::{
    AnyQueue,
    Device, //
};
use crate::{
    device,
    error::to_result,
    prelude::*,
    sync::Arc, //
};
use core::{
    cell::{
        Cell,
        UnsafeCell, //
    },
    ptr::{
        self,
        NonNull, //
    }, //
};

/// The queues of a driver and what happens when the device has used buffers of them.
///
/// Implemented by the state that a driver shares with its callbacks. See [`Device::find_vqs`].
///
/// [`Device::find_vqs`]: super::Device::find_vqs
pub trait Queues: Send + Sync + 'static {
    /// Returns the queue with the given index, [`None`] beyond the last.
    fn queue(&self, index: usize) -> Option<&dyn AnyQueue>;

    /// Called when the device may have used buffers of the queue with the given index.
    ///
    /// Calls can come as soon as the queues are found, so before the driver's `probe` has returned,
    /// and without any reason. They end before the queues are deleted. Calls for one queue do not
    /// overlap; calls for different queues may.
    ///
    /// # Context
    ///
    /// Mostly hard interrupt context. Some transports call from a thread or from a work item, with
    /// interrupts on. Must not sleep.
    fn callback(&self, index: usize);
}

/// A queue that is open, and what it was opened with.
struct OpenQueue {
    queue: NonNull<dyn AnyQueue>,
    vq: NonNull<bindings::virtqueue>,
}

/// # Invariants
///
/// - `open` and `found` are accessed only by the bus callbacks of the device (probe, remove,
///   freeze, restore, reset), which do not overlap, because they hold the lock of the device.
/// - The queues in `open` are borrowed from `owner`, which keeps them alive and at their address.
/// - The virtqueues in `open` are those that the device has.
pub(super) struct Vqs {
    owner: Arc<dyn Queues>,
    open: UnsafeCell<KVec<OpenQueue>>,
    /// The transport has found the queues, and they were not deleted since.
    found: Cell<bool>,
}

/// # Safety
///
/// Only for `virtqueue_info.callback` of queues found by [`Vqs::find`].
unsafe extern "C" fn callback(vq: *mut bindings::virtqueue) {
    // SAFETY: The core passes a valid virtqueue, whose device is valid as well. `priv` was set to a
    // `Vqs` before the queues were found. The `Vqs` lives until after the queues were deleted, and
    // deleting them waits for callbacks. No `&mut Vqs` exists meanwhile.
    let (vqs, index) = unsafe { (&*(*(*vq).vdev).priv_.cast::<Vqs>(), (*vq).index) };

    vqs.owner.callback(index as usize);
}

/// Returns the status of the device. May sleep.
pub(super) fn status(dev: &Device<device::Bound>) -> u32 {
    // SAFETY: `dev` is valid, and so are the operations of its transport.
    match unsafe { (*(*dev.as_raw()).config).get_status } {
        // SAFETY: As above; this function may sleep, as `get_status` may.
        Some(get_status) => u32::from(unsafe { get_status(dev.as_raw()) }),
        None => 0,
    }
}

impl Vqs {
    /// Finds and opens the queues of `owner` and attaches the set to the device.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid, being probed, and features must have been negotiated.
    pub(super) unsafe fn attach(
        vdev: *mut bindings::virtio_device,
        owner: Arc<dyn Queues>,
    ) -> Result {
        // SAFETY: `vdev` is valid. `priv` belongs to the driver, i.e. to this module.
        if !unsafe { (*vdev).priv_ }.is_null() {
            return Err(EBUSY);
        }

        // INVARIANT: Nothing is open.
        let vqs = KBox::new(
            Self {
                owner,
                open: UnsafeCell::new(KVec::new()),
                found: Cell::new(false),
            },
            GFP_KERNEL,
        )?;

        // SAFETY: As above.
        unsafe { (*vdev).priv_ = KBox::into_raw(vqs).cast() };

        // SAFETY: `vdev` has a `Vqs` without open queues now. This runs in probe.
        unsafe { Self::find(vdev) }.inspect_err(|_| {
            // SAFETY: As above.
            unsafe { Self::detach(vdev) }
        })
    }

    /// Closes the queues if there are any, resets the device and takes the set down.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid, and its driver being unbound, or its probe have failed.
    pub(super) unsafe fn detach(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the requirements of this function.
        unsafe { Self::close(vdev) };

        // SAFETY: `vdev` is valid, `priv` belongs to this module.
        let vqs = unsafe { ptr::replace(&raw mut (*vdev).priv_, ptr::null_mut()) };

        if !vqs.is_null() {
            // SAFETY: `priv` was set from a `KBox<Vqs>`. The queues are gone, and with them the
            // callbacks that use it.
            drop(unsafe { KBox::from_raw(vqs.cast::<Self>()) });
        }
    }

    /// Returns the set of the device, if it has one.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid and the set must not be detached during `'a`.
    unsafe fn get<'a>(vdev: *mut bindings::virtio_device) -> Option<&'a Self> {
        // SAFETY: By the requirements, and as `priv` is NULL or was set by `attach()`.
        unsafe { (*vdev).priv_.cast::<Self>().as_ref() }
    }

    /// Finds the queues and opens them.
    ///
    /// # Safety
    ///
    /// Must be called from a bus callback of the valid device `vdev`, which has no queues.
    pub(super) unsafe fn find(vdev: *mut bindings::virtio_device) -> Result {
        // SAFETY: By the requirements: only bus callbacks detach.
        let Some(this) = (unsafe { Self::get(vdev) }) else {
            return Ok(());
        };

        let mut infos = KVec::new();
        let mut queues = KVec::new();

        while let Some(queue) = this.owner.queue(infos.len()) {
            infos.push(
                bindings::virtqueue_info {
                    name: queue.name().as_char_ptr(),
                    callback: Some(callback),
                    ctx: false,
                },
                GFP_KERNEL,
            )?;
            queues.push(NonNull::from(queue), GFP_KERNEL)?;
        }

        let mut vqs = KVec::from_elem(ptr::null_mut(), infos.len(), GFP_KERNEL)?;

        // SAFETY: By the type invariants, as this is a bus callback. Room is made now, because
        // nothing may fail between finding the queues and recording them.
        let open = unsafe { &mut *this.open.get() };
        open.reserve(infos.len(), GFP_KERNEL)?;

        let count = c_uint::try_from(infos.len()).map_err(|_| EINVAL)?;

        // SAFETY: `vdev` is valid; both arrays have `count` entries; the names are `'static`.
        to_result(unsafe {
            bindings::virtio_find_vqs(
                vdev,
                count,
                vqs.as_mut_ptr(),
                infos.as_mut_ptr(),
                ptr::null_mut(),
            )
        })?;
        this.found.set(true);

        // SAFETY: `vdev` is valid.
        let indirect =
            unsafe { bindings::__virtio_test_bit(vdev, bindings::VIRTIO_RING_F_INDIRECT_DESC) };

        let mut ret = Ok(());

        for (queue, vq) in queues.into_iter().zip(vqs) {
            let Some(vq) = NonNull::new(vq) else {
                ret = Err(ENODEV);
                break;
            };

            // SAFETY:
            // - The queue is borrowed from `owner`, which is alive.
            // - `vq` was just found, so it has no buffers and nobody else uses it. It is deleted in
            //   `close()`, after the queue was closed and reclaimed.
            if let Err(err) = unsafe { queue.as_ref().open(vq, indirect) } {
                ret = Err(err);
                break;
            }

            // INVARIANT: `owner` keeps the queue alive and, being in an `Arc`, at its address.
            ret = open
                .push_within_capacity(OpenQueue { queue, vq })
                .map_err(|_| ENOMEM);
            if ret.is_err() {
                // Not reached, as there is room. Still, leave no queue open that is not recorded.
                //
                // SAFETY: As above.
                unsafe { queue.as_ref() }.close();
                break;
            }
        }

        ret.inspect_err(|_| {
            // SAFETY: By the requirements of this function.
            unsafe { Self::close(vdev) }
        })
    }

    /// Marks the device as ready, if it is not, and the queues along with it.
    ///
    /// # Safety
    ///
    /// Must be called from a bus callback of the valid device `vdev`, whose features were
    /// negotiated.
    pub(super) unsafe fn set_ready(vdev: *mut bindings::virtio_device) {
        // SAFETY: `vdev` is valid and bound, or just being so.
        let status = status(unsafe { &*vdev.cast() });

        if status & bindings::VIRTIO_CONFIG_S_DRIVER_OK == 0 {
            // SAFETY: `vdev` is valid and not ready yet.
            unsafe { bindings::virtio_device_ready(vdev) };
        }

        // SAFETY: By the requirements: only bus callbacks detach.
        let Some(this) = (unsafe { Self::get(vdev) }) else {
            return;
        };

        // SAFETY: By the type invariants, as this is a bus callback.
        for open in unsafe { &*this.open.get() } {
            // SAFETY: By the type invariants.
            unsafe { open.queue.as_ref() }.set_ready();
        }
    }

    /// Closes the queues, resets the device, gives the buffers back and deletes the queues.
    ///
    /// The order is what makes it sound: first nobody starts an operation any more, then the
    /// device stops to access memory, and only then buffers and rings are freed. Callbacks that
    /// are still running find a queue that is closed. That a device which was reset leaves the
    /// memory alone is up to the transport, as `virtio_reset_device()` demands it.
    ///
    /// # Safety
    ///
    /// Must be called from a bus callback of the valid device `vdev`.
    pub(super) unsafe fn close(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the requirements: only bus callbacks detach.
        let this = unsafe { Self::get(vdev) };

        // SAFETY: By the type invariants, as this is a bus callback.
        let mut queues = this.map_or(KVec::new(), |this| unsafe {
            core::mem::replace(&mut *this.open.get(), KVec::new())
        });

        for open in &queues {
            // SAFETY: By the type invariants.
            unsafe { open.queue.as_ref() }.close();
        }

        // SAFETY: `vdev` is valid. No notification is in progress, as all queues are closed.
        unsafe { bindings::virtio_reset_device(vdev) };

        for open in &queues {
            // SAFETY: By the type invariants `vq` is what the queue was opened with. It was closed
            // above, and then the device was reset.
            unsafe { open.queue.as_ref().reclaim(open.vq) };
        }

        // A transport that has failed to find the queues has cleaned up by itself.
        if this.is_some_and(|this| this.found.replace(false)) {
            // SAFETY: `vdev` is valid.
            if let Some(del_vqs) = unsafe { (*(*vdev).config).del_vqs } {
                // SAFETY: The device has queues, and all that were opened are closed.
                unsafe { del_vqs(vdev) };
            }
        }

        queues.clear();
    }
}
