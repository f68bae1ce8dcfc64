// SPDX-License-Identifier: GPL-2.0

//! Virtqueues.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use super::{
    Buffer,
    SegmentList, //
};
use crate::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        IrqLock,
        IrqLockKind,
        LockClassKey,
        Spin, //
    },
    time::{
        delay::fsleep,
        Delta, //
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
/// Takes the name of the queue and, optionally, the driver's state that shares the queue's lock.
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

/// What becomes of the buffers that a device still had when it was reset.
///
/// Implemented by the state that a driver keeps in a [`Queue`].
pub trait Reclaim<B: Buffer, L: IrqLockKind = Spin>: Sized + Send + 'static {
    /// Takes back `buffer`, which the device has not answered and no longer has.
    ///
    /// # Context
    ///
    /// Process context, may sleep, no lock of the queue held.
    fn reclaim(queue: &Queue<B, Self, L>, buffer: B);

    /// Notes that `queue` was closed, and its buffers were reclaimed: see [`Closed`].
    ///
    /// # Context
    ///
    /// Process context, may sleep, no lock of the queue held.
    fn closed(queue: &Queue<B, Self, L>, why: Closed) {
        let _ = (queue, why);
    }
}

/// For how long a [`Queue`] is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Until the device was reset, or resumed.
    Held,
    /// For good: the driver is unbound, its probe has failed, the system shuts down, or the device
    /// could not be resumed. When the system shuts down, buffers are not reclaimed.
    Ended,
}

/// Without state the buffer is freed.
impl<B: Buffer, L: IrqLockKind> Reclaim<B, L> for () {
    fn reclaim(_queue: &Queue<B, Self, L>, buffer: B) {
        drop(buffer);
    }
}

/// A virtqueue and the driver's state that goes with it, under one lock.
///
/// # Ownership
///
/// A queue is typed by the buffer it carries. [`Access::add`] moves an owned buffer into the ring
/// and [`Access::pop`] moves it out again. In between there is no Rust value for it: no reference
/// to memory that the device may be reading or writing can exist, and nothing that safe code can
/// do, such as giving up a wait, forgetting values or dropping them in any order, frees or reuses
/// that memory. It is freed when the device has given it back or when the device was reset.
///
/// # States
///
/// A queue is *open* from [`Device::find_vqs`] until the bus abstraction closes it, which happens
/// when the driver is unbound, when its probe fails, or for a suspend or reset of the device. On a
/// queue that is not open `add` and `kick` fail with [`ENODEV`] and `pop` finds nothing, so
/// operations that come too early or too late need no care.
///
/// # Locking
///
/// The virtio core demands that operations on one queue never overlap. They take place within
/// [`Queue::with`], which holds a lock with interrupts disabled. State `S` is under the same lock.
/// Only the notification of the device, which may take long and on some transports may sleep, runs
/// outside of it: see [`Queue::kick`].
///
/// The lock is a `spinlock_t` unless `L` says otherwise. Adding a buffer maps it for DMA, and
/// getting one back unmaps it. Behind swiotlb or an IOMMU both take a `spinlock_t` of their own,
/// which nests in another one, but not in a raw one. So `L` is [`Raw`](crate::sync::Raw) only for
/// drivers of devices that are known to be behind neither.
///
/// Neither allocates memory under the lock: indirect descriptors, whose tables the core would have
/// to allocate for each buffer, are not used, whether they were negotiated or not.
///
/// # Untrusted devices
///
/// The C core identifies buffers by its own records and refuses used entries that name no buffer;
/// the queue is broken then, as [`Access::is_broken`] tells. The used length that a device reports
/// is checked against the buffer by `pop`. The contents of the response are unchecked.
///
/// # Invariants
///
/// - `ring.vq` is NULL or points to the virtqueue that `open()` got, which is valid and
///   used by nobody else.
/// - Every token in that virtqueue comes from `B::into_raw()`.
/// - `ring.notifications` counts the notifications that were started, each when `ring.vq` was not
///   NULL, and `notified` those that are over, in 32 bits.
///
/// [`Device::find_vqs`]: super::Device::find_vqs
#[pin_data]
pub struct Queue<B: Buffer, S: Reclaim<B, L> = (), L: IrqLockKind = Spin> {
    name: &'static CStr,
    #[pin]
    ring: IrqLock<Ring<S>, L>,
    notified: Atomic<u32>,
    _buffers: PhantomData<fn(B) -> B>,
}

struct Ring<S> {
    vq: *mut bindings::virtqueue,
    /// `DRIVER_OK` is set: the device may be notified.
    ready: bool,
    /// Buffers were added that the device has not been told of.
    pending: bool,
    /// How often the device was notified.
    notifications: u64,
    state: S,
}

// SAFETY: `vq` may be used from any thread under the lock; `state` is `Send` by itself.
unsafe impl<S: Send> Send for Ring<S> {}

impl<B: Buffer, S: Reclaim<B, L>, L: IrqLockKind> Queue<B, S, L> {
    /// Constructs an initialiser for a queue that is not open yet.
    ///
    /// See [`new_virtqueue!`] for the usual way to call it.
    pub fn new(
        name: &'static CStr,
        state: S,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        // INVARIANT: There is no virtqueue, and no notification in progress.
        pin_init!(Self {
            name,
            ring <- IrqLock::new(
                Ring {
                    vq: ptr::null_mut(),
                    ready: false,
                    pending: false,
                    notifications: 0,
                    state,
                },
                name,
                key,
            ),
            notified: Atomic::new(0),
            _buffers: PhantomData,
        })
    }

    /// Runs `f` on the ring and the driver's state with the queue's lock held.
    ///
    /// `f` must not sleep, and must not call this or [`Queue::kick`] for the same queue. Under a
    /// raw lock it must not free memory.
    ///
    /// Buffers added by `f` become visible to the device, but it is not notified of them. See
    /// [`Queue::with_kick`].
    ///
    /// # Context
    ///
    /// Any context but NMI.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&mut Access<'_, B>, &mut S) -> R) -> R {
        self.ring.with(|ring| Self::access(ring, f).0)
    }

    /// Returns the queue as the bus abstraction takes it: see [`Queues::queue`].
    ///
    /// [`Queues::queue`]: super::Queues::queue
    pub fn as_any(&self) -> AnyQueue<'_> {
        AnyQueue(self)
    }

    /// Runs `f`. Returns as well whether the notification is held back.
    #[inline]
    fn access<R>(ring: &mut Ring<S>, f: impl FnOnce(&mut Access<'_, B>, &mut S) -> R) -> (R, bool) {
        // INVARIANT: The lock is held, and by the invariants of `Queue` `vq` is NULL or valid.
        let mut access = Access {
            vq: ring.vq,
            pending: &mut ring.pending,
            held_back: false,
            _buffers: PhantomData,
        };
        let ret = f(&mut access, &mut ring.state);

        (ret, access.held_back)
    }

    /// Notifies the device of the buffers that were added since the last notification.
    ///
    /// Does nothing when there are none, when the device has asked not to be notified, or before
    /// the device is ready, in which case [`Device::ready`] makes up for it.
    ///
    /// # Errors
    ///
    /// - [`ENODEV`] when the queue is not open,
    /// - [`EIO`] when the transport failed to notify; the queue is broken then.
    ///
    /// # Context
    ///
    /// Any context but NMI as far as the queue is concerned. The transport decides whether its
    /// notification may sleep: PCI, MMIO and s390 never do, a remoteproc may.
    ///
    /// [`Device::ready`]: super::Device::ready
    #[inline]
    pub fn kick(&self) -> Result {
        self.with_kick(|_, _| ()).1
    }

    /// Runs `f` as [`Queue::with`] does, then notifies the device as [`Queue::kick`] does, unless
    /// [`Access::hold_back`] was called.
    ///
    /// The lock is taken once for both, and released before the notification. Returns the result of
    /// `f`, and that of the notification.
    #[inline]
    pub fn with_kick<R>(&self, f: impl FnOnce(&mut Access<'_, B>, &mut S) -> R) -> (R, Result) {
        let (ret, notify) = self.ring.with(|ring| {
            let (ret, held_back) = Self::access(ring, f);

            (
                ret,
                if held_back {
                    Ok(None)
                } else {
                    self.kick_prepare(ring)
                },
            )
        });

        let notified = notify.and_then(|vq| vq.map_or(Ok(()), |vq| self.notify(vq)));

        (ret, notified)
    }

    /// Notifies the device, as [`Queue::kick_prepare`] has announced.
    #[inline]
    fn notify(&self, vq: NonNull<bindings::virtqueue>) -> Result {
        // SAFETY: `vq` was open when `kick_prepare()` counted this notification.
        // `close()` does not return, and so the virtqueue is not freed, before it is over.
        // Notifying is the one operation that need not be serialised with others.
        let ok = unsafe { bindings::virtqueue_notify(vq.as_ptr()) };

        // Release: what the notification did to the virtqueue is over before `close()` sees it.
        self.notified.fetch_add(1, Release);

        if ok {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    /// Decides whether the device needs to be notified, and counts the notification if so.
    #[inline]
    fn kick_prepare(&self, ring: &mut Ring<S>) -> Result<Option<NonNull<bindings::virtqueue>>> {
        let vq = NonNull::new(ring.vq).ok_or(ENODEV)?;

        if !ring.ready || !core::mem::take(&mut ring.pending) {
            return Ok(None);
        }

        // SAFETY: By the invariants of `Queue` `vq` is valid; the lock is held.
        if !unsafe { bindings::virtqueue_kick_prepare(vq.as_ptr()) } {
            return Ok(None);
        }

        // INVARIANT: `ring.vq` is not NULL. The lock orders this before `close()`.
        ring.notifications = ring.notifications.wrapping_add(1);
        Ok(Some(vq))
    }
}

/// Exclusive access to the ring of a [`Queue`], given to the closure of [`Queue::with`].
///
/// # Invariants
///
/// The lock of the queue is held, and `vq` is NULL or points to its virtqueue.
pub struct Access<'a, B: Buffer> {
    vq: *mut bindings::virtqueue,
    pending: &'a mut bool,
    held_back: bool,
    _buffers: PhantomData<fn(B) -> B>,
}

impl<B: Buffer> Access<'_, B> {
    /// Moves a buffer into the ring.
    ///
    /// The device may start to use it right away, but need not before it is notified.
    ///
    /// # Errors
    ///
    /// The buffer comes back together with
    ///
    /// - [`ENODEV`] when the queue is not open,
    /// - [`ENOSPC`] when the ring is full,
    /// - [`EIO`] when the queue is broken,
    /// - [`EINVAL`] when the buffer is empty, or its segments are not as [`SegmentList`] has them,
    /// - [`ENOMEM`] when it could not be mapped for the device.
    #[inline]
    pub fn add(&mut self, buffer: B) -> Result<(), (Error, B)> {
        if self.vq.is_null() {
            return Err((ENODEV, buffer));
        }

        let raw = buffer.into_raw();
        let ret = self.add_raw(raw, |list| {
            // SAFETY: `raw` comes from `into_raw()` and was not taken back.
            unsafe { B::segments(raw, list) }
        });

        match ret {
            Ok(()) => {
                *self.pending = true;
                Ok(())
            }
            Err(error) => {
                // SAFETY: `raw` comes from `into_raw()` above, and the ring did not take it.
                Err((error, unsafe { B::from_raw(raw) }))
            }
        }
    }

    /// Hands the segments that `put` adds to the device, with `token` to find them again.
    #[inline]
    fn add_raw(&mut self, token: NonNull<c_void>, put: impl FnOnce(&mut SegmentList)) -> Result {
        let mut list = SegmentList::new();

        put(&mut list);

        // Without enough descriptors the core would notify the device with the lock held. It does
        // not get that far either if the queue is broken.
        if (self.free_descriptors() as usize) < list.len()? {
            return Err(if self.is_broken() { EIO } else { ENOSPC });
        }

        let (mut sgs, outputs, inputs) = list.tables();

        // SAFETY:
        // - By the type invariants `vq` is valid (the caller made sure that it is not NULL), and
        //   the lock keeps all other operations out.
        // - `sgs` has as many entries as there are outputs and inputs: initialised tables of one
        //   entry each, readable before writable, at least one. The core does not keep pointers to
        //   them.
        // - The token is not NULL. The memory of the segments stays valid, and is not used for
        //   anything else, until `from_raw()`, by the requirements of `Buffer`; that is called only
        //   if this fails (the core has undone everything), once the core returns the token from
        //   `virtqueue_get_buf()`, or after the device has been reset.
        // - `GFP_ATOMIC` does not sleep.
        to_result(unsafe {
            bindings::virtqueue_add_sgs(
                self.vq,
                sgs.as_mut_ptr(),
                outputs,
                inputs,
                token.as_ptr(),
                (GFP_ATOMIC | __GFP_NOWARN).as_raw(),
            )
        })
    }

    /// Moves a buffer that the device has used out of the ring, together with the number of bytes
    /// that the device claims to have written.
    ///
    /// Returns [`None`] when there is none, when the queue is not open, or when it is broken.
    ///
    /// The number is [`EPROTO`] when the device claims more than the buffer has room for. Whether
    /// it really wrote that many is unknown.
    #[inline]
    pub fn pop(&mut self) -> Option<(B, Result<u32>)> {
        if self.vq.is_null() {
            return None;
        }

        let mut len = 0;

        // SAFETY: By the type invariants `vq` is valid, and the lock keeps all other operations
        // out.
        let raw = unsafe { bindings::virtqueue_get_buf(self.vq, &mut len) };
        let raw = NonNull::new(raw)?;

        // SAFETY: By the invariants of `Queue` all tokens come from `B::into_raw()`. The core
        // returns each once, and only when the device is done with it.
        let buffer = unsafe { B::from_raw(raw) };

        // CAST: `usize` has at least 32 bits.
        let written = if len as usize <= buffer.writable_len() {
            Ok(len)
        } else {
            Err(EPROTO)
        };

        Some((buffer, written))
    }

    /// Leaves the notification of the device to the next [`Queue::with_kick`] or [`Queue::kick`],
    /// in place of the one around this.
    pub fn hold_back(&mut self) {
        self.held_back = true;
    }

    /// Asks the device not to interrupt for used buffers. A hint: callbacks may still happen.
    pub fn disable_callback(&mut self) {
        if !self.vq.is_null() {
            // SAFETY: By the type invariants `vq` is valid and the lock is held.
            unsafe { bindings::virtqueue_disable_cb(self.vq) };
        }
    }

    /// Asks the device to interrupt for used buffers again.
    ///
    /// Returns `false` when there are used buffers already, for which no interrupt may come: the
    /// caller should `pop` them and try again.
    #[must_use]
    pub fn enable_callback(&mut self) -> bool {
        // SAFETY: By the type invariants `vq` is valid if not NULL, and the lock is held.
        self.vq.is_null() || unsafe { bindings::virtqueue_enable_cb(self.vq) }
    }

    /// Tells whether the queue can still be used.
    ///
    /// A queue breaks when the device violates the ring protocol, when it cannot be notified, and
    /// when it is gone. It is `true` as well for a queue that is not open.
    pub fn is_broken(&self) -> bool {
        // SAFETY: By the type invariants `vq` is valid if not NULL.
        self.vq.is_null() || unsafe { bindings::virtqueue_is_broken(self.vq) }
    }

    /// Returns how many buffers of that many segments fit into the empty ring; 0 when the queue is
    /// not open.
    pub fn capacity(&self, segments: usize) -> usize {
        if self.vq.is_null() {
            return 0;
        }

        // SAFETY: By the type invariants `vq` is valid.
        let size = unsafe { bindings::virtqueue_get_vring_size(self.vq) };

        size as usize / segments.max(1)
    }

    fn free_descriptors(&self) -> c_uint {
        // SAFETY: The caller made sure that `vq` is not NULL, so it is valid by the type
        // invariants, and only operations that need the lock, which is held, change the number.
        unsafe { (*self.vq).num_free }
    }
}

/// A [`Queue`] of whatever type, as the bus abstraction sees it: [`Queue::as_any`].
///
/// A driver can do nothing with it but return it from [`Queues::queue`](super::Queues::queue).
#[derive(Clone, Copy)]
pub struct AnyQueue<'a>(pub(super) &'a dyn Operations);

/// What the bus abstraction does with a queue.
///
/// # Safety
///
/// After `close()` has returned, the implementer must not use the virtqueue it got by `open()`.
pub(super) unsafe trait Operations: Sync {
    fn name(&self) -> &'static CStr;

    /// Starts to use `vq`.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] when the queue is open.
    ///
    /// # Safety
    ///
    /// `vq` must be a virtqueue without buffers that is valid until after the next
    /// [`Operations::close`] and [`Operations::reclaim`], and that nobody else operates on until
    /// then.
    unsafe fn open(&self, vq: NonNull<bindings::virtqueue>) -> Result;

    /// Allows notifications, and makes up for those that were held back.
    fn set_ready(&self);

    /// Stops to use the virtqueue. May sleep; returns when no operation is in progress any more.
    fn close(&self);

    /// Tells whether the queue is open and broken: see [`Access::is_broken`].
    fn is_broken(&self) -> bool;

    /// Takes all buffers back.
    ///
    /// # Safety
    ///
    /// `vq` must be what [`Operations::open`] got, [`Operations::close`] must have been called
    /// since, and the device must have been reset since.
    unsafe fn reclaim(&self, vq: NonNull<bindings::virtqueue>);

    /// Tells the driver's state that the queue is closed and its buffers are reclaimed.
    fn closed(&self, why: Closed);
}

// SAFETY: `close()` sets `ring.vq` to NULL under the lock and waits for the notifications. All
// other uses take place under the lock while `ring.vq` is not NULL.
unsafe impl<B: Buffer, S: Reclaim<B, L>, L: IrqLockKind> Operations for Queue<B, S, L> {
    fn name(&self) -> &'static CStr {
        self.name
    }

    unsafe fn open(&self, vq: NonNull<bindings::virtqueue>) -> Result {
        self.ring.with(|ring| {
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
        self.ring.with(|ring| ring.ready = true);

        // A failure shows at the next operation.
        let _ = self.kick();
    }

    fn close(&self) {
        // INVARIANT: NULL.
        let started = self.ring.with(|ring| {
            ring.vq = ptr::null_mut();
            ring.notifications
        });

        // A notification takes microseconds, and those that are waited for have started already.
        //
        // Acquire: pairs with the release at the end of a notification.
        // CAST: The difference of the two fits, as each notification in progress has a processor
        // or a task of its own.
        while (started as u32).wrapping_sub(self.notified.load(Acquire)) as i32 > 0 {
            fsleep(Delta::from_micros(10));
        }
    }

    fn is_broken(&self) -> bool {
        self.ring.with(|ring| {
            // SAFETY: By the invariants of `Queue` `vq` is valid if not NULL.
            !ring.vq.is_null() && unsafe { bindings::virtqueue_is_broken(ring.vq) }
        })
    }

    unsafe fn reclaim(&self, vq: NonNull<bindings::virtqueue>) {
        loop {
            // SAFETY: By the requirements of this function `vq` is valid and, closed as this queue
            // is, not operated on by anybody else.
            let raw = unsafe { bindings::virtqueue_detach_unused_buf(vq.as_ptr()) };

            let Some(raw) = NonNull::new(raw) else {
                break;
            };

            // SAFETY: By the invariants of `Queue` the token comes from `B::into_raw()`, and the
            // core no longer has it. The device has been reset, so it no longer uses the memory.
            S::reclaim(self, unsafe { B::from_raw(raw) });
        }
    }
    fn closed(&self, why: Closed) {
        S::closed(self, why);
    }
}
