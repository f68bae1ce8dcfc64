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
/// - The cells and `open` are accessed only with the lock of the device held, as it is in its bus
///   callbacks (probe, remove, shutdown, freeze, restore, reset).
/// - The queues in `open` are borrowed from `owner`, which keeps them alive and at their address.
/// - The virtqueues in `open` are those that the device has.
pub(super) struct Vqs {
    owner: Arc<dyn Queues>,
    open: UnsafeCell<KVec<OpenQueue>>,
    /// The transport has found the queues, and they were not deleted since.
    found: Cell<bool>,
    /// The queues were closed for a suspend or a reset of the transport, which opens them again.
    suspended: Cell<bool>,
    /// The system goes down: the device is never set up again.
    shut_down: Cell<bool>,
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

/// The status of a device that was unplugged: over PCI it reads as all ones.
pub(super) const STATUS_GONE: u32 = u8::MAX as u32;

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
                suspended: Cell::new(false),
                shut_down: Cell::new(false),
            },
            GFP_KERNEL,
        )?;

        // SAFETY: As above.
        unsafe { (*vdev).priv_ = KBox::into_raw(vqs).cast() };

        // SAFETY: `vdev` has a `Vqs` without open queues now. This runs in probe, with the lock
        // held.
        unsafe { Self::find(vdev) }.inspect_err(|_| {
            // SAFETY: As above.
            unsafe { Self::detach(vdev) }
        })
    }

    /// Closes the queues if there are any, resets the device and takes the set down.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid, and its driver being unbound, or its probe have failed, which is with
    /// its lock held.
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

    /// Closes the queues until [`Vqs::resume`].
    ///
    /// # Safety
    ///
    /// `vdev` must be valid, and its lock be held.
    pub(super) unsafe fn suspend(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the requirements of this function.
        unsafe { Self::close(vdev) };

        // SAFETY: By the requirements: it is detached with the lock held only.
        if let Some(this) = unsafe { Self::get(vdev) } {
            this.suspended.set(true);
        }
    }

    /// Opens the queues after [`Vqs::suspend`].
    ///
    /// # Safety
    ///
    /// `vdev` must be valid and have no queues, its features negotiated, and its lock be held.
    pub(super) unsafe fn resume(vdev: *mut bindings::virtio_device) -> Result {
        // SAFETY: By the requirements: it is detached with the lock held only.
        if let Some(this) = unsafe { Self::get(vdev) } {
            this.suspended.set(false);
        }

        // SAFETY: By the requirements of this function.
        unsafe { Self::find(vdev) }
    }

    /// Tells whether [`Vqs::suspend`] was called last, and not [`Vqs::resume`].
    ///
    /// # Safety
    ///
    /// `vdev` must be valid, and its lock be held.
    pub(super) unsafe fn is_suspended(vdev: *mut bindings::virtio_device) -> bool {
        // SAFETY: By the requirements: it is detached with the lock held only.
        unsafe { Self::get(vdev) }.is_some_and(|this| this.suspended.get())
    }

    /// Stops the device, for the end of the system.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid and bound, and its lock be held.
    pub(super) unsafe fn shut_down(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the requirements: it is detached with the lock held only.
        if let Some(this) = unsafe { Self::get(vdev) } {
            this.shut_down.set(true);

            // The core breaks the queues, which a notification in progress does not see.
            //
            // SAFETY: By the type invariants, as the lock is held.
            for open in unsafe { &*this.open.get() } {
                // SAFETY: By the type invariants.
                unsafe { open.queue.as_ref() }.close();
            }
        }

        // SAFETY: `vdev` is valid and bound; this may sleep.
        unsafe { bindings::virtio_device_shutdown(vdev) };
    }

    /// Resets the device, negotiates what was negotiated before, finds the queues and opens them.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid, bound and not suspended, and its lock must be held.
    pub(super) unsafe fn reset(vdev: *mut bindings::virtio_device) -> Result {
        // SAFETY: By the requirements: it is detached with the lock held only.
        let this = unsafe { Self::get(vdev) }.ok_or(ENODEV)?;

        // SAFETY: `vdev` is valid and bound.
        let status = status(unsafe { &*vdev.cast() });

        // The transport would wait for ever for a device that was unplugged to have been reset.
        if status == STATUS_GONE || this.shut_down.get() {
            return Err(ENODEV);
        }

        // SAFETY: `vdev` is valid. As the lock is held this is done by one at a time.
        unsafe { bindings::virtio_config_driver_disable(vdev) };

        // SAFETY: By the requirements of this function. Once they are closed there are no queues.
        let ret = unsafe {
            Self::close(vdev);
            Self::negotiate(vdev).and_then(|()| Self::find(vdev))
        };

        match ret {
            // SAFETY: By the requirements of this function, and as the negotiation has succeeded.
            Ok(()) => unsafe { Self::set_ready(vdev) },
            // SAFETY: By the requirements of this function.
            Err(_) => unsafe {
                Self::close(vdev);
                bindings::virtio_add_status(vdev, bindings::VIRTIO_CONFIG_S_FAILED);
            },
        }

        // SAFETY: `vdev` is valid, and was disabled above.
        unsafe { bindings::virtio_config_driver_enable(vdev) };

        ret
    }

    /// Negotiates with a device that was reset the features it was bound with.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid and bound, and its lock be held.
    unsafe fn negotiate(vdev: *mut bindings::virtio_device) -> Result {
        let known = bindings::VIRTIO_CONFIG_S_ACKNOWLEDGE | bindings::VIRTIO_CONFIG_S_DRIVER;

        // SAFETY: `vdev` is valid; this may sleep.
        unsafe { bindings::virtio_add_status(vdev, known) };

        // SAFETY: `vdev` is valid, and so are the operations of its transport.
        if let Some(finalize_features) = unsafe { (*(*vdev).config).finalize_features } {
            // SAFETY: `vdev` is valid, and its features are those that it was bound with.
            to_result(unsafe { finalize_features(vdev) })?;
        }

        // SAFETY: `vdev` is valid, and the bit is within the array.
        if !unsafe { bindings::__virtio_test_bit(vdev, bindings::VIRTIO_F_VERSION_1) } {
            return Ok(());
        }

        let ok = bindings::VIRTIO_CONFIG_S_FEATURES_OK;

        // SAFETY: `vdev` is valid; this may sleep.
        unsafe { bindings::virtio_add_status(vdev, ok) };

        // SAFETY: `vdev` is valid and bound.
        match status(unsafe { &*vdev.cast() }) & ok {
            0 => Err(ENODEV),
            _ => Ok(()),
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
    /// `vdev` must be valid and have no queues, and its lock must be held.
    unsafe fn find(vdev: *mut bindings::virtio_device) -> Result {
        // SAFETY: By the requirements: it is detached with the lock held only.
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

        // SAFETY: By the type invariants, as the lock is held. Room is made now, because nothing
        // may fail between finding the queues and recording them.
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
    /// `vdev` must be valid, bound or just being so, and its features negotiated. Its lock must be
    /// held.
    pub(super) unsafe fn set_ready(vdev: *mut bindings::virtio_device) {
        // SAFETY: `vdev` is valid and bound, or just being so.
        let status = status(unsafe { &*vdev.cast() });

        if status & bindings::VIRTIO_CONFIG_S_DRIVER_OK == 0 {
            // SAFETY: `vdev` is valid and not ready yet.
            unsafe { bindings::virtio_device_ready(vdev) };
        }

        // SAFETY: By the requirements: it is detached with the lock held only.
        let Some(this) = (unsafe { Self::get(vdev) }) else {
            return;
        };

        // SAFETY: By the type invariants, as the lock is held.
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
    /// `vdev` must be valid, and its lock be held.
    unsafe fn close(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the requirements: it is detached with the lock held only.
        let this = unsafe { Self::get(vdev) };

        // SAFETY: By the type invariants, as the lock is held.
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
