// SPDX-License-Identifier: GPL-2.0

//! Binding of a driver to a device: its queues in probe, unbind, suspend and reset.
//!
//! The bus abstraction, not the driver, owns the queues and deletes them. The `priv` field of
//! `struct virtio_device` points to the [`Binding`] from before the driver's probe until after its
//! remove.

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
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow, //
    },
    types::{
        NotThreadSafe,
        ScopeGuard, //
    }, //
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

/// The queues of a driver, and their callback: see [`Device::find_vqs`].
pub trait Queues: Send + Sync + 'static {
    /// Returns the queue with the given index, [`None`] beyond the last.
    fn queue(&self, index: usize) -> Option<AnyQueue<'_>>;

    /// Called when the device may have used buffers of the queue with the given index.
    ///
    /// Called from [`Device::find_vqs`] on, before `probe` has returned, until the queues are
    /// deleted. May be spurious. Calls for one queue do not overlap; calls for different queues
    /// may.
    ///
    /// # Context
    ///
    /// Mostly hard interrupts; some transports call from a thread or a work item, with interrupts
    /// on. Must not sleep.
    fn callback(&self, index: usize);
}

/// The state of a binding.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The driver is in its probe, before [`Device::find_vqs`].
    New,
    /// The queues are open.
    Open,
    /// The queues are closed for a suspend or a reset by the transport.
    Suspended,
    /// The queues are open during a suspend, for the device to wake the system up.
    Asleep,
    /// Opening the queues failed, or the core could not restore the device. The driver may try a
    /// reset.
    Failed,
    /// The queues are closed: the driver is unbound, or the system shuts down.
    Ended,
}

/// A queue that is open, and its virtqueue.
struct OpenQueue {
    queue: NonNull<dyn Operations>,
    vq: NonNull<bindings::virtqueue>,
}

/// The binding of a driver to a device: see [`Device::binding`].
///
/// Each probe gets a new one. A [`Binding`] that is kept after the driver was unbound gives no
/// access to the device.
///
/// # Invariants
///
/// - The cells are accessed only with the lock of the device held, as it is in its bus callbacks
///   (probe, remove, shutdown, freeze, restore, reset), except that callbacks of the queues read
///   `owner`, which is written before there are queues and after the last callback.
/// - The queues in `open` are borrowed from `owner`, which keeps them alive and at their address.
/// - The virtqueues in `open` are those of the device.
pub struct Binding {
    dev: ARef<Device>,
    owner: UnsafeCell<Option<Arc<dyn Queues>>>,
    open: UnsafeCell<KVec<OpenQueue>>,
    /// The transport has found the queues and not deleted them since.
    found: Cell<bool>,
    state: Cell<State>,
}

// SAFETY: Any thread may drop the fields: `dyn Queues` is `Send`, and the pointers are valid on
// every thread.
unsafe impl Send for Binding {}

// SAFETY: By the type invariants one thread at a time accesses the cells; `dyn Queues` is `Sync`.
unsafe impl Sync for Binding {}

/// # Safety
///
/// Only for `virtqueue_info.callback` of queues found by [`Binding::find`].
unsafe extern "C" fn callback(vq: *mut bindings::virtqueue) {
    // SAFETY: The core passes a valid virtqueue of a valid device. `attach()` has set `priv` to a
    // `Binding` before the queues were found. `detach()` clears it after the queues were deleted
    // and a grace period has passed, and so after the call: see "Guarantees of the transport" in
    // the documentation of the bus.
    let (binding, index) = unsafe { (&*(*(*vq).vdev).priv_.cast::<Binding>(), (*vq).index) };

    // SAFETY: By the type invariants `owner` is not written while there are queues.
    if let Some(owner) = unsafe { &*binding.owner.get() } {
        owner.callback(index as usize);
    }
}

/// # Safety
///
/// Only for `virtio_device_restart()` in [`Binding::reopen`].
unsafe extern "C" fn reopen_callback(vdev: *mut bindings::virtio_device) -> c_int {
    from_result(|| {
        // SAFETY: By the requirements of this function the device is valid and has a binding, its
        // lock is held, it has no queues, and its features are negotiated.
        unsafe {
            let binding = Binding::get(vdev);

            binding.find()?;
            binding.set_ready();
        }
        Ok(0)
    })
}

/// The status of a device that was unplugged: PCI reads all ones.
const STATUS_GONE: u32 = u8::MAX as u32;

/// Returns the status of the device. May sleep.
fn status(dev: &Device<device::Bound>) -> u32 {
    // SAFETY: `dev` is valid, and so are the operations of its transport.
    match unsafe { (*(*dev.as_raw()).config).get_status } {
        // SAFETY: As above; this function may sleep, as `get_status` may.
        Some(get_status) => u32::from(unsafe { get_status(dev.as_raw()) }),
        None => 0,
    }
}

/// A device that is bound and not suspended, and whose lock is held: see [`Binding::try_lock`].
///
/// # Invariants
///
/// This task holds the lock of the device, which is bound to the driver of `binding`, and not
/// suspended.
pub struct Locked<'a> {
    binding: &'a Binding,
    dev: &'a Device<device::Bound>,
    _not_thread_safe: NotThreadSafe,
}

impl Locked<'_> {
    /// Returns whether the device has to be reset to work again: it has set `DEVICE_NEEDS_RESET`,
    /// one of its queues is broken, or they could not be opened. Returns `false` for a device that
    /// was unplugged.
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
    /// Works on every transport, as a suspend and resume do the same. Reclaims all buffers; the
    /// device loses its state. Delays [`Driver::config_changed`](super::Driver::config_changed).
    ///
    /// # Errors
    ///
    /// - [`ENODEV`] if the device is gone, or refuses the features that it was bound with,
    /// - errors of the transport on finding the queues.
    ///
    /// Then the queues are closed, and the device, if present, is marked as failed. The driver may
    /// try again.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub fn reset(&self) -> Result {
        // The transport would wait for the reset of a device that was unplugged.
        if status(self.dev) == STATUS_GONE {
            return Err(ENODEV);
        }

        let vdev = self.dev.as_raw();

        // SAFETY: `vdev` is valid. As the lock is held, there is one such call at a time.
        unsafe { bindings::virtio_config_driver_disable(vdev) };

        // SAFETY: By the type invariants.
        let ret = unsafe { self.binding.reopen() };

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
    /// Does not wait for the lock, so work items that unbind waits for can call it.
    ///
    /// # Errors
    ///
    /// - [`EAGAIN`] if the lock is taken: the device is being bound, unbound, suspended, resumed or
    ///   reset. The caller may try again later.
    /// - [`EBUSY`] if the device is suspended, until it was restored or that has failed.
    /// - [`ENODEV`] if the driver is unbound, or the device shut down.
    ///
    /// # Context
    ///
    /// Process context; `f` may sleep.
    pub fn try_lock<R>(&self, f: impl FnOnce(&Locked<'_>) -> R) -> Result<R> {
        let dev: &device::Device = (*self.dev).as_ref();

        // SAFETY: `dev` is a valid device.
        if unsafe { bindings::device_trylock(dev.as_raw()) } == 0 {
            return Err(EAGAIN);
        }
        // SAFETY: The lock was taken above, in the same task.
        let _guard = ScopeGuard::new(|| unsafe { bindings::device_unlock(dev.as_raw()) });

        match self.state.get() {
            State::New | State::Open | State::Failed => (),
            State::Suspended | State::Asleep => return Err(EBUSY),
            State::Ended => return Err(ENODEV),
        }

        // SAFETY: The device was bound, as `attach()` runs in probe, which holds the lock until it
        // returns. It was not unbound, as unbind sets `Ended` under the lock. So it is bound until
        // the lock is released, after the call of `f`.
        let dev = unsafe { &*self.dev.as_raw().cast() };

        // INVARIANT: As above. `f` cannot keep the value beyond the lock.
        Ok(f(&Locked {
            binding: self,
            dev,
            _not_thread_safe: NotThreadSafe,
        }))
    }

    /// Creates the binding of a device that is about to be probed.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid and about to be probed by a driver of this bus abstraction, with its
    /// lock held. On success [`Binding::detach`] must be called when probe fails, or else when the
    /// driver is unbound.
    pub(super) unsafe fn attach(vdev: *mut bindings::virtio_device) -> Result {
        // SAFETY: `vdev` is valid.
        let dev: &Device = unsafe { &*vdev.cast() };

        // INVARIANT: There are no queues.
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

        // The field belongs to the bound driver: overwrite a stale value of the last one.
        //
        // SAFETY: `vdev` is valid.
        unsafe { (*vdev).priv_ = Arc::into_raw(binding).cast_mut().cast() };
        Ok(())
    }

    /// Closes the queues if there are any, resets the device, and ends the binding.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid, and have a binding by [`Binding::attach`]. Its driver must be in
    /// remove, or its probe have failed, with the lock of the device held.
    pub(super) unsafe fn detach(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the requirements `priv` was set by `attach()`. The reference is dropped below.
        let this = unsafe { Arc::from_raw((*vdev).priv_.cast::<Self>()) };

        this.state.set(State::Ended);

        // SAFETY: By the requirements of this function.
        unsafe { this.close() };

        // Wait for callbacks of transports whose `del_vqs()` does not wait for the interrupt.
        //
        // SAFETY: There are no safety requirements for this FFI call.
        unsafe { bindings::synchronize_rcu() };

        // SAFETY: `vdev` is valid.
        unsafe { (*vdev).priv_ = ptr::null_mut() };

        // SAFETY: By the type invariants: the lock is held, and the last callback has returned.
        drop(unsafe { (*this.owner.get()).take() });
    }

    /// Returns the binding of a device.
    ///
    /// # Safety
    ///
    /// `vdev` must be valid and have a binding, which is not detached during `'a`.
    pub(super) unsafe fn get<'a>(vdev: *mut bindings::virtio_device) -> ArcBorrow<'a, Self> {
        // SAFETY: By the requirements `attach()` has set `priv` by `Arc::into_raw()`, and
        // `detach()` does not take that reference back during `'a`.
        unsafe { ArcBorrow::from_raw((*vdev).priv_.cast::<Self>()) }
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

    /// Leaves the queues open during a suspend, if they are and `may_wake` returns `true`. Returns
    /// whether that is so; then [`Binding::suspend`] is called when the system is resumed.
    ///
    /// # Safety
    ///
    /// The lock of the device must be held.
    pub(super) unsafe fn sleep(&self, may_wake: impl FnOnce() -> bool) -> bool {
        let sleeps = self.state.get() == State::Open && may_wake();

        if sleeps {
            self.state.set(State::Asleep);
        }
        sleeps
    }

    /// Opens the queues after [`Binding::suspend`], and marks the device as ready.
    ///
    /// # Safety
    ///
    /// The lock of the device must be held. The device must have been reset, and its features be
    /// negotiated.
    pub(super) unsafe fn resume(&self) -> Result {
        // Not reached for a device whose queues are open: the core has it suspended first.
        if self.state.get() != State::Suspended {
            return Err(ENODEV);
        }

        // SAFETY: By the requirements of this function; there are no queues.
        unsafe { self.find() }?;
        // SAFETY: As above.
        unsafe { self.set_ready() };
        Ok(())
    }

    /// Tells the queues that they will not be opened after [`Binding::suspend`], whether or not
    /// [`Binding::resume`] was called. Returns whether that is so.
    ///
    /// # Safety
    ///
    /// The lock of the device must be held.
    pub(super) unsafe fn resume_failed(&self) -> bool {
        match self.state.get() {
            State::Suspended | State::Failed => self.state.set(State::Failed),
            // The queues are open, or were told already.
            _ => return false,
        }

        // SAFETY: By the requirements of this function.
        unsafe { self.tell_owner(Closed::Ended) };
        true
    }

    /// Stops the device when the system shuts down.
    ///
    /// # Safety
    ///
    /// The device must be bound, and its lock be held.
    pub(super) unsafe fn shut_down(&self) {
        self.state.set(State::Ended);

        // The core marks the queues as broken, but does not wait for notifications in progress.
        //
        // SAFETY: By the type invariants, as the lock is held.
        for open in unsafe { &*self.open.get() } {
            // SAFETY: By the type invariants.
            unsafe { open.queue.as_ref() }.close();
        }

        // SAFETY: The device is valid and bound; this may sleep.
        unsafe { bindings::virtio_device_shutdown(self.dev.as_raw()) };

        // SAFETY: By the requirements of this function.
        unsafe { self.tell_owner(Closed::Ended) };
    }

    /// Resets the device, negotiates the same features again, opens the queues, and marks the
    /// device as ready.
    ///
    /// # Safety
    ///
    /// The device must be bound, and its lock be held.
    unsafe fn reopen(&self) -> Result {
        // SAFETY: By the requirements of this function. `close()` deletes the queues.
        to_result(unsafe {
            self.close();
            bindings::virtio_device_restart(self.dev.as_raw(), Some(reopen_callback))
        })
        .inspect_err(|_| self.state.set(State::Failed))
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

    /// Does what [`Binding::find`] does, except for the state.
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
                    // Disables indirect descriptors, whose tables the core would allocate.
                    ctx: true,
                },
                GFP_KERNEL,
            )?;
            queues.push(NonNull::from(queue), GFP_KERNEL)?;
        }

        let mut vqs = KVec::from_elem(ptr::null_mut(), infos.len(), GFP_KERNEL)?;

        // SAFETY: By the type invariants, as the lock is held.
        let open = unsafe { &mut *self.open.get() };

        // Allocate here: an open queue has to be recorded.
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

        let open_all = || {
            for (queue, vq) in queues.into_iter().zip(vqs) {
                let vq = NonNull::new(vq).ok_or(ENODEV)?;

                // SAFETY:
                // - The queue is borrowed from `owner`, which is alive.
                // - The transport has just created `vq`, so it has no buffers and no other user.
                //   `close()` deletes it, after the queue was closed and reclaimed.
                unsafe { queue.as_ref().open(vq) }?;

                // INVARIANT: `owner` keeps the queue alive and, being in an `Arc`, at its address.
                open.push_within_capacity(OpenQueue { queue, vq })
                    // Not reached, as there is room.
                    //
                    // SAFETY: As above.
                    .map_err(|_| unsafe { queue.as_ref() }.close())
                    .or(Err(ENOMEM))?;
            }
            Ok(())
        };

        open_all().inspect_err(|_| {
            // SAFETY: By the requirements of this function.
            unsafe { self.close() }
        })
    }

    /// Ends the time in which queues can be found, and marks the device as ready.
    ///
    /// # Safety
    ///
    /// The device must be in probe, and its lock be held.
    pub(super) unsafe fn probed(&self) {
        if self.state.get() == State::New {
            // There are none.
            self.state.set(State::Open);
        }

        // SAFETY: By the requirements of this function.
        unsafe { self.set_ready() };
    }

    /// Marks the device, unless it is marked, and the queues as ready, if the queues are open.
    ///
    /// # Safety
    ///
    /// The device must be bound or in probe, and its lock be held.
    pub(super) unsafe fn set_ready(&self) {
        let vdev = self.dev.as_raw();

        if self.state.get() != State::Open {
            return;
        }

        // SAFETY: `vdev` is valid and bound, or in probe.
        let status = status(unsafe { &*vdev.cast() });

        if status & bindings::VIRTIO_CONFIG_S_DRIVER_OK == 0 {
            // SAFETY: `vdev` is valid and not ready yet. Its features are negotiated, as its queues
            // are open.
            unsafe { bindings::virtio_device_ready(vdev) };
        }

        // SAFETY: By the type invariants, as the lock is held.
        for open in unsafe { &*self.open.get() } {
            // SAFETY: By the type invariants.
            unsafe { open.queue.as_ref() }.set_ready();
        }
    }

    /// Closes the queues, resets the device, reclaims the buffers and deletes the queues.
    ///
    /// Soundness depends on the order: closed queues start no operation, then a device that is
    /// reset no longer accesses memory, and only then are buffers and rings freed. Callbacks in
    /// progress find a closed queue. See "Guarantees of the transport" in the documentation of the
    /// bus for what `virtio_reset_device()` means.
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

        // A transport that fails to find the queues deletes them itself.
        if self.found.replace(false) {
            // SAFETY: `vdev` is valid. Not all transports do this when they reset a device.
            unsafe { bindings::virtio_synchronize_cbs(vdev) };

            for open in &queues {
                // SAFETY: By the type invariants `vq` is what the queue was opened with. It was
                // closed above, and then the device was reset.
                unsafe { open.queue.as_ref().reclaim(open.vq) };
            }

            // SAFETY: `vdev` is valid.
            if let Some(del_vqs) = unsafe { (*(*vdev).config).del_vqs } {
                // SAFETY: The device has queues, and all that were opened are closed.
                unsafe { del_vqs(vdev) };
            }
        }

        let why = match self.state.get() {
            State::Ended => Closed::Ended,
            _ => Closed::Held,
        };

        // SAFETY: By the requirements of this function.
        unsafe { self.tell_owner(why) };
    }

    /// Tells all queues that they are closed, and whether they will be opened again.
    ///
    /// # Safety
    ///
    /// The lock of the device must be held.
    unsafe fn tell_owner(&self, why: Closed) {
        // SAFETY: By the type invariants: the lock is held.
        if let Some(owner) = unsafe { &*self.owner.get() } {
            for AnyQueue(queue) in (0..).map_while(|index| owner.queue(index)) {
                queue.closed(why);
            }
        }
    }
}
