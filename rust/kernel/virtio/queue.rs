// SPDX-License-Identifier: GPL-2.0

//! Virtqueues: adding, getting and reclaiming buffers.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use super::{
    Buffer,
    SegmentList, //
};
use crate::{
    error::to_result,
    prelude::*,
    processor::cpu_relax,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        LockClassKey,
        SpinLockIrq, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};

/// Creates a [`Queue`] initialiser with a newly-created lock class.
///
/// Takes the name of the queue and, optionally, the driver's state to be kept under its lock.
#[macro_export]
macro_rules! new_virtqueue {
    ($name:expr $(,)?) => {
        $crate::new_virtqueue!($name, ())
    };
    ($name:expr, $state:expr $(,)?) => {
        $crate::virtio::Queue::new($name, $state, $crate::static_lock_class!())
    };
}
pub use new_virtqueue;

/// Receives the buffers that the device still owned when it was reset.
///
/// Implemented by the state that a driver keeps in a [`Queue`].
pub trait Reclaim<B: Buffer>: Sized + Send + 'static {
    /// Takes back `buffer`, which the device did not return before its reset.
    ///
    /// # Context
    ///
    /// Process context; may sleep. The queue's lock is not held.
    fn reclaim(queue: &Queue<B, Self>, buffer: B);

    /// Called under the lock of the queue when it is closed: there is no ring from here on.
    fn closing(&mut self) {}

    /// Called after `queue` was closed and its buffers were reclaimed.
    ///
    /// # Context
    ///
    /// As for [`Reclaim::reclaim`].
    fn closed(queue: &Queue<B, Self>, why: Closed) {
        let _ = (queue, why);
    }
}

/// Whether a [`Queue`] that was closed will be opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Once the device has been reset or resumed.
    Held,
    /// Not by the bus: the driver is unbound, its probe failed, the system shuts down, or the
    /// resume failed. On shutdown the buffers stay in the ring.
    Ended,
}

/// Frees the buffer.
impl<B: Buffer> Reclaim<B> for () {
    fn reclaim(_queue: &Queue<B, Self>, _buffer: B) {}
}

/// A virtqueue and state of the driver, under one lock.
///
/// # Ownership
///
/// A queue is typed by the buffer it carries. [`Access::add`] moves an owned buffer into the ring
/// and [`Access::pop`] moves it out again. In between no Rust value for it exists, so safe code can
/// neither access nor free the memory, whether it gives up a wait, forgets values, or drops them
/// in any order. The memory is freed after the device has returned the buffer or was reset.
///
/// # States
///
/// A queue is *open* from [`Device::find_vqs`] until the bus abstraction closes it: on unbind, on
/// probe failure, and for a suspend or reset of the device. On a closed queue `add` and `kick` fail
/// with [`ENODEV`] and `pop` returns [`None`].
///
/// # Locking
///
/// The virtio core requires that operations on one queue never overlap. [`Queue::with`] holds a
/// [`SpinLockIrq`] around them, which protects the state `S`, too. The notification of the device,
/// which may be slow and on some transports sleeps, runs outside of it: see [`Queue::kick`].
///
/// The lock cannot be a raw one: adding a buffer maps it for DMA, popping one unmaps it, and behind
/// swiotlb or an IOMMU both take a `spinlock_t`. Neither allocates: the queue never uses indirect
/// descriptors, whose tables the core would have to allocate for each buffer.
///
/// # Untrusted devices
///
/// The C core looks buffers up in its own records, and marks the queue as broken when a used entry
/// names none: see [`Access::is_broken`]. `pop` checks the used length against the buffer. The
/// driver has to check the contents.
///
/// # Invariants
///
/// - `Ring::vq` is NULL or points to the virtqueue passed to `open()`, which is valid and operated
///   on by this queue only.
/// - Every token in that virtqueue comes from `B::into_raw()`.
/// - `Ring::notifications` counts the notifications that were started, each while `Ring::vq` was
///   not NULL, and `notified` those that have ended, modulo 2^32.
///
/// [`Device::find_vqs`]: super::Device::find_vqs
#[pin_data]
pub struct Queue<B: Buffer, S: Reclaim<B> = ()> {
    name: &'static CStr,
    #[pin]
    locked: SpinLockIrq<(Ring, S)>,
    notified: Atomic<u32>,
    _buffers: PhantomData<fn(B) -> B>,
}

struct Ring {
    vq: *mut bindings::virtqueue,
    /// `DRIVER_OK` is set: the device may be notified.
    ready: bool,
    /// Buffers were added since the last notification.
    pending: bool,
    /// Number of notifications started.
    notifications: u32,
}

// SAFETY: Any thread that holds the lock may operate on `vq`.
unsafe impl Send for Ring {}

impl<B: Buffer, S: Reclaim<B>> Queue<B, S> {
    /// Constructs an initialiser for a queue that is not open yet.
    ///
    /// [`new_virtqueue!`] calls this with a lock class of its own.
    pub fn new(
        name: &'static CStr,
        state: S,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        let ring = Ring {
            vq: ptr::null_mut(),
            ready: false,
            pending: false,
            notifications: 0,
        };

        // INVARIANT: There is no virtqueue, and no notification in progress.
        pin_init!(Self {
            name,
            locked <- SpinLockIrq::new((ring, state), name, key),
            notified: Atomic::new(0),
            _buffers: PhantomData,
        })
    }

    /// Runs `f` on the ring and the driver's state with the queue's lock held.
    ///
    /// `f` must not sleep, and must not lock the same queue. The device sees buffers that `f` adds,
    /// but is not notified of them: see [`Queue::with_kick`].
    ///
    /// # Context
    ///
    /// Any context in which a `spinlock_t` may be taken.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&mut Access<'_, B>, &mut S) -> R) -> R {
        self.locked.with(|(ring, state)| {
            // INVARIANT: The lock is held, and `ring` belongs to a queue of this buffer type.
            let mut access = Access {
                ring,
                _buffers: PhantomData,
            };

            f(&mut access, state)
        })
    }

    /// Returns the queue as [`Queues::queue`] has to return it.
    ///
    /// [`Queues::queue`]: super::Queues::queue
    pub fn as_any(&self) -> AnyQueue<'_> {
        AnyQueue(self)
    }

    /// Notifies the device of the buffers that were added since the last notification.
    ///
    /// Does nothing if there are none, or if the device suppresses notifications. Before the device
    /// is ready, leaves the notification to [`Device::ready`].
    ///
    /// # Errors
    ///
    /// - [`ENODEV`] if the queue is not open,
    /// - [`EIO`] if the transport fails to notify, which breaks the queue.
    ///
    /// # Context
    ///
    /// As for [`Queue::with`], unless the transport's notification sleeps: PCI, MMIO and s390 do
    /// not, a remoteproc may.
    ///
    /// [`Device::ready`]: super::Device::ready
    #[inline]
    pub fn kick(&self) -> Result {
        self.with_kick(|_, _| ()).1
    }

    /// Runs `f` as [`Queue::with`] does, then notifies the device as [`Queue::kick`] does.
    ///
    /// Takes the lock once for both, and releases it before the notification. Returns the result of
    /// `f` and that of the notification.
    #[inline]
    pub fn with_kick<R>(&self, f: impl FnOnce(&mut Access<'_, B>, &mut S) -> R) -> (R, Result) {
        let (ret, vq) = self.with(|access, state| (f(access, state), access.ring.kick_prepare()));
        let notified = vq.and_then(|vq| {
            let Some(vq) = vq else {
                return Ok(());
            };
            // SAFETY: `vq` was open when `kick_prepare()` counted this notification. `close()` does
            // not return, and so the virtqueue is not freed, before `notified` is incremented.
            // Notifying is the one operation that the core does not require to be serialised.
            let ok = unsafe { bindings::virtqueue_notify(vq.as_ptr()) };

            // Release: `close()` sees all accesses of the notification to the virtqueue.
            self.notified.fetch_add(1, Release);
            ok.then_some(()).ok_or(EIO)
        });

        (ret, notified)
    }

    /// Runs `f` as [`Queue::with_kick`] does, until it returns `true`, until `time` has passed, or
    /// until another task wants the processor: see `kvm_vcpu_can_poll()`. Returns what it has
    /// returned last.
    ///
    /// # Context
    ///
    /// Process context. Does not sleep.
    pub fn poll(&self, time: Delta, f: impl Fn(&mut Access<'_, B>, &mut S) -> bool) -> bool {
        let since = Instant::<Monotonic>::now();

        loop {
            let (ret, _) = self.with_kick(&f);

            // SAFETY: There are no requirements.
            if ret || since.elapsed() >= time || !unsafe { bindings::single_task_running() } {
                return ret;
            }
            cpu_relax();
        }
    }
}

impl Ring {
    /// Hands the segments of `list` to the device; `token` identifies them.
    ///
    /// # Safety
    ///
    /// The ring must be that of a [`Queue`] of `B` whose lock is held. `token` must come from
    /// `B::into_raw()` and not have been taken back, and `list` must be its segments. On success it
    /// belongs to the ring.
    unsafe fn add(&mut self, token: NonNull<c_void>, list: &mut SegmentList) -> Result {
        let vq = NonNull::new(self.vq).ok_or(ENODEV)?.as_ptr();

        // Refuse here: without enough descriptors the core would notify the device with the lock
        // held.
        if self.free_descriptors() < list.len()? {
            return Err(if self.is_broken() { EIO } else { ENOSPC });
        }

        let (mut sgs, outputs, inputs) = list.tables();

        // SAFETY:
        // - By the invariants of `Queue` `vq` is valid; the lock excludes all other operations.
        // - `sgs` has as many entries as there are outputs and inputs: initialised tables of one
        //   entry each, readable before writable, at least one. The core does not keep pointers to
        //   them.
        // - The token is not NULL. By the requirements of `Buffer` the memory of the segments stays
        //   valid and is not used otherwise until `from_raw()`, which is called only if this fails
        //   (the core has undone the mapping), once the core returns the token from
        //   `virtqueue_get_buf()`, or after the device has been reset.
        // - `GFP_ATOMIC` does not sleep.
        to_result(unsafe {
            bindings::virtqueue_add_sgs(
                vq,
                sgs.as_mut_ptr().cast(),
                outputs,
                inputs,
                token.as_ptr(),
                (GFP_ATOMIC | __GFP_NOWARN).as_raw(),
            )
        })
        // Packed rings report a mapping that failed as `EIO`.
        .map_err(|err| match err {
            EIO if !self.is_broken() => ENOMEM,
            _ => err,
        })?;
        self.pending = true;
        Ok(())
    }

    fn free_descriptors(&self) -> usize {
        if self.vq.is_null() {
            return 0;
        }

        // SAFETY: By the invariants of `Queue` `vq` is valid if not NULL. Only operations under the
        // lock, which is held, change the number.
        unsafe { (*self.vq).num_free as usize }
    }

    /// See [`Access::is_broken`].
    fn is_broken(&self) -> bool {
        // SAFETY: By the invariants of `Queue` `vq` is valid if not NULL.
        self.vq.is_null() || unsafe { bindings::virtqueue_is_broken(self.vq) }
    }

    /// Decides whether the device needs to be notified, and counts the notification if so.
    ///
    /// The caller has the only reference, hence holds the lock of the queue.
    #[inline]
    fn kick_prepare(&mut self) -> Result<Option<NonNull<bindings::virtqueue>>> {
        let vq = NonNull::new(self.vq).ok_or(ENODEV)?;

        if !self.ready || !core::mem::take(&mut self.pending) {
            return Ok(None);
        }

        // SAFETY: By the invariants of `Queue` `vq` is valid; the lock is held.
        if !unsafe { bindings::virtqueue_kick_prepare(vq.as_ptr()) } {
            return Ok(None);
        }

        // INVARIANT: `vq` is not NULL. The lock orders this before `close()`.
        self.notifications = self.notifications.wrapping_add(1);
        Ok(Some(vq))
    }
}

/// Exclusive access to the ring of a [`Queue`], given to the closure of [`Queue::with`].
///
/// # Invariants
///
/// `ring` is that of a [`Queue`] of `B`, whose lock is held; so `ring.vq` is NULL or valid.
pub struct Access<'a, B: Buffer> {
    ring: &'a mut Ring,
    _buffers: PhantomData<fn(B) -> B>,
}

impl<B: Buffer> Access<'_, B> {
    /// Moves a buffer into the ring.
    ///
    /// The device may use it right away, but need not look before it is notified.
    ///
    /// # Errors
    ///
    /// Returns the buffer together with
    ///
    /// - [`ENODEV`] if the queue is not open,
    /// - [`ENOSPC`] if the ring is full,
    /// - [`EIO`] if the queue is broken,
    /// - [`EINVAL`] if the buffer is empty, or its [`SegmentList`] is invalid,
    /// - [`ENOMEM`] if it could not be mapped for the device.
    #[inline]
    pub fn add(&mut self, buffer: B) -> Result<(), (Error, B)> {
        let raw = buffer.into_raw();
        let mut list = SegmentList::new();

        // SAFETY: `raw` comes from `into_raw()` and was not taken back.
        unsafe { B::segments(raw, &mut list) };

        // SAFETY: By the type invariants this is the ring of a queue of `B`. The segments are those
        // of `raw`.
        unsafe { self.ring.add(raw, &mut list) }.map_err(|err| {
            // SAFETY: `raw` comes from `into_raw()` above, and the ring did not take it.
            (err, unsafe { B::from_raw(raw) })
        })
    }

    /// Moves a used buffer out of the ring. Returns it with the number of bytes that the device
    /// claims to have written, or [`EPROTO`] if it claims more than the buffer has room for.
    ///
    /// Returns [`None`] if there is none, or if the queue is closed or broken.
    #[inline]
    pub fn pop(&mut self) -> Option<(B, Result<u32>)> {
        let vq = NonNull::new(self.ring.vq)?;
        let mut len = 0;

        // SAFETY: By the type invariants `vq` is valid, and the lock excludes all other operations.
        let raw = NonNull::new(unsafe { bindings::virtqueue_get_buf(vq.as_ptr(), &mut len) })?;

        // SAFETY: By the invariants of `Queue` all tokens come from `B::into_raw()`. The core
        // returns each once, and only after the device has used it.
        let buffer = unsafe { B::from_raw(raw) };

        // CAST: `usize` has at least 32 bits.
        let fits = len as usize <= buffer.writable_len();

        Some((buffer, fits.then_some(len).ok_or(EPROTO)))
    }

    /// Asks the device not to interrupt for used buffers. A hint: callbacks may still happen.
    pub fn disable_callback(&mut self) {
        if !self.ring.vq.is_null() {
            // SAFETY: By the type invariants `vq` is valid and the lock is held.
            unsafe { bindings::virtqueue_disable_cb(self.ring.vq) };
        }
    }

    /// Asks the device to interrupt for used buffers again.
    ///
    /// Returns `false` if there are used buffers already, for which no interrupt may come: the
    /// caller should `pop` them and try again.
    #[must_use]
    pub fn enable_callback(&mut self) -> bool {
        // SAFETY: By the type invariants `vq` is valid if not NULL, and the lock is held.
        self.ring.vq.is_null() || unsafe { bindings::virtqueue_enable_cb(self.ring.vq) }
    }

    /// Returns whether the queue is unusable: closed or broken.
    ///
    /// A queue breaks when the device violates the ring protocol, cannot be notified, or is gone.
    pub fn is_broken(&self) -> bool {
        self.ring.is_broken()
    }

    /// Returns how many more segments fit into the ring; 0 if the queue is closed.
    pub(super) fn free_descriptors(&self) -> usize {
        self.ring.free_descriptors()
    }

    /// Returns how many buffers of `segments` segments fit into the empty ring; 0 if the queue is
    /// closed.
    pub fn capacity(&self, segments: usize) -> usize {
        if self.ring.vq.is_null() {
            return 0;
        }

        // SAFETY: By the type invariants `vq` is valid.
        let size = unsafe { bindings::virtqueue_get_vring_size(self.ring.vq) };

        size as usize / segments.max(1)
    }
}

/// A [`Queue`] of any type: see [`Queue::as_any`].
///
/// It has no methods: a driver can only return it from [`Queues::queue`](super::Queues::queue).
#[derive(Clone, Copy)]
pub struct AnyQueue<'a>(pub(super) &'a dyn Operations);

/// The operations of the bus abstraction on a queue.
///
/// # Safety
///
/// After `close()` has returned, the implementer must not use the virtqueue it got by `open()`,
/// except for what `reclaim()` does.
pub(super) unsafe trait Operations: Sync {
    fn name(&self) -> &'static CStr;

    /// Starts to use `vq`.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if the queue is open.
    ///
    /// # Safety
    ///
    /// `vq` must be a virtqueue without buffers that is valid, and not operated on otherwise, until
    /// after the next [`Operations::close`] and [`Operations::reclaim`].
    unsafe fn open(&self, vq: NonNull<bindings::virtqueue>) -> Result;

    /// Allows notifications, and sends one for buffers that were added before.
    fn set_ready(&self);

    /// Stops using the virtqueue. Waits for operations in progress; may sleep.
    fn close(&self);

    /// Returns whether the queue is open and broken: see [`Access::is_broken`].
    fn is_broken(&self) -> bool;

    /// Takes all buffers back.
    ///
    /// # Safety
    ///
    /// `vq` must have been passed to [`Operations::open`], and [`Operations::close`] and a reset of
    /// the device must have followed.
    unsafe fn reclaim(&self, vq: NonNull<bindings::virtqueue>);

    /// Calls [`Reclaim::closed`].
    fn closed(&self, why: Closed);
}

// SAFETY: `close()` sets `Ring::vq` to NULL under the lock and waits for the notifications. All
// other uses take place under the lock while `Ring::vq` is not NULL.
unsafe impl<B: Buffer, S: Reclaim<B>> Operations for Queue<B, S> {
    fn name(&self) -> &'static CStr {
        self.name
    }

    unsafe fn open(&self, vq: NonNull<bindings::virtqueue>) -> Result {
        self.locked.with(|(ring, _)| {
            if !ring.vq.is_null() {
                return Err(EBUSY);
            }

            // INVARIANT: Valid and exclusive by the requirements of this function.
            ring.vq = vq.as_ptr();
            ring.ready = false;
            ring.pending = false;
            Ok(())
        })
    }

    fn set_ready(&self) {
        self.locked.with(|(ring, _)| ring.ready = true);

        // The next operation reports a failure.
        let _ = self.kick();
    }

    fn close(&self) {
        // INVARIANT: NULL.
        let started = self.locked.with(|(ring, state)| {
            ring.vq = ptr::null_mut();
            state.closing();
            ring.notifications
        });

        // Terminates: a notification takes microseconds, and no further ones start.
        //
        // Acquire: pairs with the release at the end of a notification.
        // CAST: The difference fits, as each notification in progress has a processor or a task of
        // its own.
        while started.wrapping_sub(self.notified.load(Acquire)) as i32 > 0 {
            fsleep(Delta::from_micros(10));
        }
    }

    fn is_broken(&self) -> bool {
        self.locked
            .with(|(ring, _)| !ring.vq.is_null() && ring.is_broken())
    }

    unsafe fn reclaim(&self, vq: NonNull<bindings::virtqueue>) {
        // SAFETY: By the requirements of this function `vq` is valid. As this queue is closed,
        // there are no other operations on it.
        let detach = || NonNull::new(unsafe { bindings::virtqueue_detach_unused_buf(vq.as_ptr()) });

        while let Some(raw) = detach() {
            // SAFETY: By the invariants of `Queue` the token comes from `B::into_raw()`, and the
            // core no longer has it. The device has been reset, so it no longer uses the memory.
            S::reclaim(self, unsafe { B::from_raw(raw) });
        }
    }

    fn closed(&self, why: Closed) {
        S::closed(self, why);
    }
}
