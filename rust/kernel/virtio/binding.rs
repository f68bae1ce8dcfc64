// SPDX-License-Identifier: GPL-2.0

//! The binding of a driver to a device, and the life cycle of the device's virtqueues.
//!
//! The bus abstraction owns the queues, not the driver: a driver cannot forget to take them down,
//! take them down too early, or too late. What `struct virtio_device` has for the driver, its
//! `priv` field, points to the [`Binding`] from before the driver's probe until after its remove.

use super::{
    queue::{
        Closed,
        Operations, //
    },
    AnyQueue,
    Device, //
};
use crate::{
    device,
    error::to_result,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
    types::NotThreadSafe, //
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
pub trait Queues: Send + Sync + 'static {
    /// Returns the queue with the given index, [`None`] beyond the last.
    fn queue(&self, index: usize) -> Option<AnyQueue<'_>>;

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

/// Whether the device may be talked to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The driver is probed and has not found its queues yet.
    New,
    /// The queues are open.
    Open,
    /// The queues are closed for a suspend or a reset by the transport, which opens them again.
    Suspended,
    /// The queues could not be opened. A reset may be tried.
    Failed,
    /// The queues are closed: the driver is unbound, or the system shuts down.
    Ended,
}

/// A queue that is open, and what it was opened with.
struct OpenQueue {
    queue: NonNull<dyn Operations>,
    vq: NonNull<bindings::virtqueue>,
}

/// The binding of a driver to a device: see [`Device::binding`].
///
/// It belongs to one binding only. Whoever keeps it longer can do nothing with it: another driver,
/// or the same one, that is bound to the device later has another [`Binding`].
///
/// # Invariants
///
/// - The cells are accessed only with the lock of the device held, as it is in its bus callbacks
///   (probe, remove, shutdown, freeze, restore, reset), except that callbacks of the queues read
///   `owner`. It is written when there are no queues, and after the last callback.
/// - The queues in `open` are borrowed from `owner`, which keeps them alive and at their address.
/// - The virtqueues in `open` are those that the device has.
pub struct Binding {
    dev: ARef<Device>,
    owner: UnsafeCell<Option<Arc<dyn Queues>>>,
    open: UnsafeCell<KVec<OpenQueue>>,
    /// The transport has found the queues, and they were not deleted since.
    found: Cell<bool>,
    state: Cell<State>,
}

// SAFETY: The parts may be dropped on any thread: `dyn Queues` is `Send`, and pointers have no
// thread that they belong to.
unsafe impl Send for Binding {}

// SAFETY: By the type invariants the cells are accessed by one thread at a time; `dyn Queues` is
// `Sync`.
unsafe impl Sync for Binding {}

/// # Safety
///
/// Only for `virtqueue_info.callback` of queues found by [`Binding::find`].
unsafe extern "C" fn callback(vq: *mut bindings::virtqueue) {
    // SAFETY: The core passes a valid virtqueue, whose device is valid as well. `priv` was set to a
    // `Binding` before the queues were found. It stays there until the queues were deleted and a
    // grace period has passed. Transports call with interrupts off or within `del_vqs()`'s reach,
    // see `Binding::detach()`.
    let (binding, index) = unsafe { (&*(*(*vq).vdev).priv_.cast::<Binding>(), (*vq).index) };

    // SAFETY: By the type invariants `owner` is not written as long as there are queues.
    if let Some(owner) = unsafe { &*binding.owner.get() } {
        owner.callback(index as usize);
    }
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

/// The lock of a device, which the driver core holds while it binds and unbinds it, and the virtio
/// core while it suspends, resumes or resets it.
struct DeviceLock<'a>(&'a device::Device);

impl<'a> DeviceLock<'a> {
    /// Takes the lock if it is free.
    fn try_new(dev: &'a device::Device) -> Option<Self> {
        // SAFETY: `dev` is a valid device.
        (unsafe { bindings::device_trylock(dev.as_raw()) } != 0).then(|| Self(dev))
    }
}

impl Drop for DeviceLock<'_> {
    fn drop(&mut self) {
        // SAFETY: The lock was taken when `self` was made, in the same task.
        unsafe { bindings::device_unlock(self.0.as_raw()) };
    }
}

/// A device that is bound and not suspended, and whose lock is held: see [`Binding::try_lock`].
///
/// # Invariants
///
/// The lock of the device is held by this task. The device is bound to the driver that `binding` is
/// about, and not suspended.
pub struct Locked<'a> {
    binding: &'a Binding,
    dev: &'a Device<device::Bound>,
    _not_thread_safe: NotThreadSafe,
}

impl Locked<'_> {
    /// Tells whether only a reset can help: the device says so (`DEVICE_NEEDS_RESET`), one of its
    /// queues is broken, or the queues could not be opened. A device that is gone needs none.
    ///
    /// # Context
    ///
    /// Process context; may sleep.
    pub fn needs_reset(&self) -> bool {
        let status = status(self.dev);

        if status == STATUS_GONE {
            return false;
        }
        // SAFETY: By the type invariants the lock is held, and the queues in `open` are alive.
        let mut open = unsafe { &*self.binding.open.get() }.iter();

        status & bindings::VIRTIO_CONFIG_S_NEEDS_RESET != 0
            || self.binding.state.get() == State::Failed
            // SAFETY: As above.
            || open.any(|open| unsafe { open.queue.as_ref() }.is_broken())
    }

    /// Resets the device, finds its queues again and marks it as ready.
    ///
    /// This works on every transport, as it is what a suspend and resume do. The device gives all
    /// buffers back, which are reclaimed, and forgets all that it was told. Reports of a changed
    /// configuration are delayed meanwhile.
    ///
    /// # Errors
    ///
    /// - [`ENODEV`] when the device is gone, or refuses the features that it was bound with,
    /// - whatever the transport returns when queues are found.
    ///
    /// The queues are closed then, and the device is marked as failed if it is there. It may be
    /// tried again.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub fn reset(&self) -> Result {
        // The transport would wait for a device that was unplugged to have been reset.
        if status(self.dev) == STATUS_GONE {
            return Err(ENODEV);
        }

        let vdev = self.dev.as_raw();

        // SAFETY: `vdev` is valid. As the lock is held this is done by one at a time.
        unsafe { bindings::virtio_config_driver_disable(vdev) };

        // SAFETY: By the type invariants.
        let ret = unsafe { self.binding.reopen() };

        if ret.is_err() {
            // SAFETY: `vdev` is valid.
            unsafe { bindings::virtio_add_status(vdev, bindings::VIRTIO_CONFIG_S_FAILED) };
        }

        // SAFETY: `vdev` is valid, and was disabled above.
        unsafe { bindings::virtio_config_driver_enable(vdev) };

        ret
    }
}

impl core::ops::Deref for Locked<'_> {
    type Target = Device<device::Bound>;

    fn deref(&self) -> &Self::Target {
        self.dev
    }
}

impl Binding {
    /// Runs `f` with the lock of the device held, if the driver is still bound to it.
    ///
    /// Does not wait for the lock, so it can be used in a work item that unbinding waits for.
    ///
    /// # Errors
    ///
    /// - [`EAGAIN`] when the lock is not free: a driver is just being bound or unbound, or the
    ///   device suspended, resumed or reset. It may be tried again later.
    /// - [`EBUSY`] when the device is suspended. The driver hears of the end of that by
    ///   [`Driver::restore`](super::Driver::restore) or its like.
    /// - [`ENODEV`] when the driver is unbound, or the device shut down.
    ///
    /// # Context
    ///
    /// Process context; `f` may sleep, and runs with the lock of the device held.
    pub fn try_lock<R>(&self, f: impl FnOnce(&Locked<'_>) -> R) -> Result<R> {
        let _guard = DeviceLock::try_new((*self.dev).as_ref()).ok_or(EAGAIN)?;

        match self.state.get() {
            State::New | State::Open | State::Failed => (),
            State::Suspended => return Err(EBUSY),
            State::Ended => return Err(ENODEV),
        }

        // SAFETY: Has been bound, as this value was made in probe, which held the lock until it was
        // over. Has not been unbound, as `Ended` is set then under the lock. So the device is bound
        // until the lock is released, which is after the call of `f`.
        let dev = unsafe { &*self.dev.as_raw().cast() };

        // INVARIANT: As above. The lock is held until after the call of `f`, which cannot keep the
        // value.
        Ok(f(&Locked {
            binding: self,
            dev,
            _not_thread_safe: NotThreadSafe,
        }))
    }

    /// Makes the binding of a device that is about to be probed.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid and about to be probed by a driver of this bus abstraction, with its
    /// lock held. [`Binding::detach`] must be called when that has failed, or else when the driver
    /// is unbound.
    pub(super) unsafe fn attach(vdev: *mut bindings::virtio_device) -> Result {
        // SAFETY: `vdev` is valid.
        let dev: &Device = unsafe { &*vdev.cast() };

        // INVARIANT: Nothing is open.
        let binding = Arc::new(
            Self {
                dev: dev.into(),
                owner: UnsafeCell::new(None),
                open: UnsafeCell::new(KVec::new()),
                found: Cell::new(false),
                state: Cell::new(State::New),
            },
            GFP_KERNEL,
        )?;

        // The field belongs to the driver that is bound. What the last one has left in it means
        // nothing.
        //
        // SAFETY: `vdev` is valid.
        unsafe { (*vdev).priv_ = Arc::into_raw(binding).cast_mut().cast() };
        Ok(())
    }

    /// Closes the queues if there are any, resets the device, and ends the binding.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid and [`Binding::attach`] have succeeded for it, and not have been undone
    /// yet. Its driver must be being unbound, or its probe have failed, both with its lock held.
    pub(super) unsafe fn detach(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the requirements `priv` was set by `attach()`. The reference is dropped below.
        let this = unsafe { Arc::from_raw((*vdev).priv_.cast::<Self>()) };

        this.state.set(State::Ended);

        // SAFETY: By the requirements of this function.
        unsafe { this.close() };

        // For callbacks of transports that delete queues without waiting for their interrupt.
        //
        // SAFETY: There are no safety requirements for this FFI call.
        unsafe { bindings::synchronize_rcu() };

        // SAFETY: `vdev` is valid.
        unsafe { (*vdev).priv_ = ptr::null_mut() };

        // SAFETY: By the type invariants: the lock is held, and there are no queues any more.
        drop(unsafe { (*this.owner.get()).take() });
    }

    /// Returns the binding of a device.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid and have a binding, which is not detached during `'a`.
    pub(super) unsafe fn get<'a>(vdev: *mut bindings::virtio_device) -> &'a Self {
        // SAFETY: By the requirements, `priv` was set by `attach()`.
        unsafe { &*(*vdev).priv_.cast::<Self>() }
    }

    /// Returns another reference to the binding of a device.
    ///
    /// # Safety
    ///
    /// As for [`Binding::get`].
    pub(super) unsafe fn get_arc(vdev: *mut bindings::virtio_device) -> Arc<Self> {
        // SAFETY: By the requirements, `priv` was set by `attach()`, from an `Arc` that it owns and
        // that is left there.
        let this = unsafe { core::mem::ManuallyDrop::new(Arc::from_raw((*vdev).priv_.cast())) };

        Arc::clone(&this)
    }

    /// Finds the queues of `owner` for the first time, and opens them.
    ///
    /// # Safety
    ///
    /// The lock of the device must be held, and its features negotiated.
    pub(super) unsafe fn find_first(&self, owner: Arc<dyn Queues>) -> Result {
        if self.state.get() != State::New {
            return Err(EBUSY);
        }

        // SAFETY: By the type invariants: the lock is held, and there are no queues yet.
        unsafe { *self.owner.get() = Some(owner) };

        // SAFETY: By the requirements of this function.
        unsafe { self.find() }
    }

    /// Closes the queues until [`Binding::resume`].
    ///
    /// # Safety
    ///
    /// The lock of the device must be held.
    pub(super) unsafe fn suspend(&self) {
        // SAFETY: By the requirements of this function.
        unsafe { self.close() };

        if self.state.get() != State::Ended {
            self.state.set(State::Suspended);
        }
    }

    /// Opens the queues after [`Binding::suspend`], and marks the device as ready.
    ///
    /// # Safety
    ///
    /// The lock of the device must be held. The device must have been reset, and its features be
    /// negotiated.
    pub(super) unsafe fn resume(&self) -> Result {
        // The core suspends a driver that was bound meanwhile before it resumes it.
        if self.state.get() != State::Suspended {
            return Err(ENODEV);
        }

        // SAFETY: By the requirements of this function; there are no queues.
        unsafe { self.find() }.inspect_err(|_| {
            // The core does not try again.
            //
            // SAFETY: By the requirements of this function.
            unsafe { self.tell_owner(Closed::Ended) };
        })?;
        // SAFETY: As above.
        unsafe { self.set_ready() };
        Ok(())
    }

    /// Stops the device, for the end of the system.
    ///
    /// # Safety
    ///
    /// The device must be bound, and its lock be held.
    pub(super) unsafe fn shut_down(&self) {
        self.state.set(State::Ended);

        // The core breaks the queues, which a notification in progress does not see.
        //
        // SAFETY: By the type invariants, as the lock is held.
        for open in unsafe { &*self.open.get() } {
            // SAFETY: By the type invariants.
            unsafe { open.queue.as_ref() }.close();
        }

        // SAFETY: The device is valid and bound; this may sleep.
        unsafe { bindings::virtio_device_shutdown(self.dev.as_raw()) };

        // SAFETY: By the requirements of this function.
        unsafe { self.tell_owner(self.why_closed()) };
    }

    /// Resets the device, negotiates what was negotiated before, finds the queues, opens them, and
    /// marks the device as ready.
    ///
    /// # Safety
    ///
    /// The device must be bound, and its lock be held.
    unsafe fn reopen(&self) -> Result {
        // SAFETY: By the requirements of this function. Once they are closed there are no queues.
        let ret = unsafe {
            self.close();
            self.negotiate().and_then(|()| self.find())
        };

        match ret {
            // SAFETY: By the requirements of this function, and as the negotiation has succeeded.
            Ok(()) => unsafe { self.set_ready() },
            Err(_) => {
                // SAFETY: By the requirements of this function.
                unsafe { self.close() };
                self.state.set(State::Failed);
            }
        }

        ret
    }

    /// Negotiates with a device that was reset the features it was bound with.
    ///
    /// # Safety
    ///
    /// The device must be bound, and its lock be held.
    unsafe fn negotiate(&self) -> Result {
        let vdev = self.dev.as_raw();
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

    /// Finds the queues and opens them.
    ///
    /// # Safety
    ///
    /// The device must have no queues, its features must be negotiated, and its lock be held.
    unsafe fn find(&self) -> Result {
        // SAFETY: By the requirements of this function.
        let ret = unsafe { self.find_queues() };

        self.state.set(match ret {
            Ok(()) => State::Open,
            Err(_) => State::Failed,
        });
        ret
    }

    /// Does what [`Binding::find`] does, but for the state.
    ///
    /// # Safety
    ///
    /// As for [`Binding::find`].
    unsafe fn find_queues(&self) -> Result {
        let vdev = self.dev.as_raw();

        // SAFETY: By the type invariants: the lock is held.
        let Some(owner) = (unsafe { &*self.owner.get() }) else {
            return Ok(());
        };

        let mut infos = KVec::new();
        let mut queues = KVec::new();

        while let Some(AnyQueue(queue)) = owner.queue(infos.len()) {
            infos.push(
                bindings::virtqueue_info {
                    name: queue.name().as_char_ptr(),
                    callback: Some(callback),
                    // The core makes no indirect tables for such a queue.
                    ctx: true,
                },
                GFP_KERNEL,
            )?;
            queues.push(NonNull::from(queue), GFP_KERNEL)?;
        }

        let mut vqs = KVec::from_elem(ptr::null_mut(), infos.len(), GFP_KERNEL)?;

        // SAFETY: By the type invariants, as the lock is held. Room is made now, because nothing
        // may fail between finding the queues and recording them.
        let open = unsafe { &mut *self.open.get() };
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
        self.found.set(true);

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
            if let Err(err) = unsafe { queue.as_ref().open(vq) } {
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
            unsafe { self.close() }
        })
    }

    /// Does what [`Binding::set_ready`] does, if the queues are open.
    ///
    /// # Safety
    ///
    /// The lock of the device must be held.
    pub(super) unsafe fn set_ready_if_open(&self) {
        if self.state.get() == State::Open {
            // SAFETY: The features of a device whose queues are open are negotiated; the rest is by
            // the requirements of this function.
            unsafe { self.set_ready() }
        }
    }

    /// Marks the device as ready, if it is not, and the queues along with it.
    ///
    /// # Safety
    ///
    /// The device must be bound or just being so, and its features negotiated. Its lock must be
    /// held.
    unsafe fn set_ready(&self) {
        let vdev = self.dev.as_raw();

        // SAFETY: `vdev` is valid and bound, or just being so.
        let status = status(unsafe { &*vdev.cast() });

        if status & bindings::VIRTIO_CONFIG_S_DRIVER_OK == 0 {
            // SAFETY: `vdev` is valid and not ready yet.
            unsafe { bindings::virtio_device_ready(vdev) };
        }

        // SAFETY: By the type invariants, as the lock is held.
        for open in unsafe { &*self.open.get() } {
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
    /// The lock of the device must be held.
    unsafe fn close(&self) {
        let vdev = self.dev.as_raw();

        // SAFETY: By the type invariants, as the lock is held.
        let queues = unsafe { core::mem::replace(&mut *self.open.get(), KVec::new()) };

        for open in &queues {
            // SAFETY: By the type invariants.
            unsafe { open.queue.as_ref() }.close();
        }

        // SAFETY: `vdev` is valid. No notification is in progress, as all queues are closed.
        unsafe { bindings::virtio_reset_device(vdev) };

        if !self.found.replace(false) {
            // A transport that has failed to find the queues has cleaned up by itself.
            //
            // SAFETY: By the requirements of this function.
            unsafe { self.tell_owner(self.why_closed()) };
            return;
        }

        // SAFETY: `vdev` is valid. Not all transports do that when they reset a device.
        unsafe { bindings::virtio_synchronize_cbs(vdev) };

        for open in &queues {
            // SAFETY: By the type invariants `vq` is what the queue was opened with. It was closed
            // above, and then the device was reset.
            unsafe { open.queue.as_ref().reclaim(open.vq) };
        }

        // SAFETY: `vdev` is valid.
        if let Some(del_vqs) = unsafe { (*(*vdev).config).del_vqs } {
            // SAFETY: The device has queues, and all that were opened are closed.
            unsafe { del_vqs(vdev) };
        }

        // SAFETY: By the requirements of this function.
        unsafe { self.tell_owner(self.why_closed()) };
    }

    fn why_closed(&self) -> Closed {
        match self.state.get() {
            State::Ended => Closed::Ended,
            _ => Closed::Held,
        }
    }

    /// Tells all queues that they are closed, and for how long.
    ///
    /// # Safety
    ///
    /// The lock of the device must be held.
    unsafe fn tell_owner(&self, why: Closed) {
        // SAFETY: By the type invariants: the lock is held.
        let Some(owner) = (unsafe { &*self.owner.get() }) else {
            return;
        };

        for AnyQueue(queue) in (0..).map_while(|index| owner.queue(index)) {
            queue.closed(why);
        }
    }
}
