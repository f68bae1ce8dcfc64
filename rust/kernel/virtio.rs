// SPDX-License-Identifier: GPL-2.0

//! Abstractions for the virtio bus.
//!
//! A driver implements [`Driver`], lists its devices with
//! [`virtio_device_table!`](crate::virtio_device_table), and declares its module with
//! [`module_virtio_driver!`](crate::module_virtio_driver). Its `probe` opens the [`Queue`]s of a
//! [`Device`] with [`Device::find_vqs`], marks the device as ready, and uses it.
//!
//! # Ownership of the virtqueues
//!
//! The bus abstraction owns the virtqueues. It closes them on unbind, on probe failure, and around
//! a suspend or a reset, always in this order: refuse new operations, reset the device, reclaim the
//! buffers, delete the queues. The soundness of this does not depend on what a driver drops,
//! forgets or keeps. [`Locked::reset`] does the same for a driver, and opens the queues again. A
//! device that may wake the system up keeps its queues until the resume: see [`Driver::may_wake`].
//!
//! All of this runs with the lock of the device held. The state of one binding of a driver is in
//! its [`Binding`].
//!
//! # Order of removal
//!
//! 1. [`Driver::unbind`] runs; the queues are open.
//! 2. [`Driver::Data`] is dropped. Its parts, e.g. the registration with a subsystem, may still use
//!    the device.
//! 3. The queues are closed and the device is reset.
//! 4. Resources managed by [`Devres`](crate::devres::Devres) are released.
//!
//! Other buses drop the data after the C `remove` callback has returned. The virtio core requires
//! that the device is reset by then, but unregistering from subsystems needs a working device.
//!
//! # Guarantees of the transport
//!
//! Memory is as safe as it is for a driver in C, which relies on the same of the transport:
//!
//! - after `virtio_reset_device()` the device does not access memory,
//! - once `del_vqs()` has returned no callback begins, and those in progress end within a grace
//!   period of RCU, as those with interrupts off do.
//!
//! remoteproc guarantees neither: its reset only clears the status, and its handler may use a
//! virtqueue that is freed. ccw does not guarantee the first if its reset command fails, nor the
//! second without adapter interrupts.
//!
//! C headers:
//! - [`include/linux/virtio.h`](srctree/include/linux/virtio.h)
//! - [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h)

use crate::{
    device,
    device_id::RawDeviceId,
    driver,
    error::{
        from_result,
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    prelude::*,
    sync::{
        aref::AlwaysRefCounted,
        Arc, //
    },
    types::Opaque, //
};
use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr::NonNull, //
};

mod binding;
mod buffer;
mod config;
#[cfg(CONFIG_RUST_VIRTIO_KUNIT_TEST)]
mod kunit;
mod queue;
mod requests;

pub use self::{
    binding::{
        Binding,
        Locked,
        Queues, //
    },
    buffer::{
        Buffer,
        Message,
        Payload,
        SegmentList, //
    },
    config::{
        Config,
        ConfigField, //
    },
    queue::{
        new_virtqueue,
        Access,
        AnyQueue,
        Closed,
        Queue,
        Reclaim, //
    },
    requests::{
        Answer,
        Options,
        Part,
        Requests,
        Scope, //
    }, //
};

/// A feature of a device, by the number of its bit.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Feature(c_uint);

impl Feature {
    /// Creates the feature of bit `bit`.
    #[inline(always)]
    pub const fn new(bit: u32) -> Self {
        build_assert!(
            bit < bindings::VIRTIO_FEATURES_BITS,
            "not a feature bit of virtio"
        );

        Self(bit)
    }
}

/// A virtio device id.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct DeviceId(bindings::virtio_device_id);

impl DeviceId {
    /// Creates an id that matches devices of the type `device`, one of those in
    /// `include/uapi/linux/virtio_ids.h`, from any vendor.
    #[inline(always)]
    pub const fn new(device: u32) -> Self {
        build_assert!(device != 0, "0 is not a virtio device type");

        Self(bindings::virtio_device_id {
            device,
            vendor: bindings::VIRTIO_DEV_ANY_ID,
        })
    }
}

// SAFETY: `DeviceId` is a `#[repr(transparent)]` wrapper of `virtio_device_id` and does not add
// additional invariants, so it's safe to transmute to `RawType`.
unsafe impl RawDeviceId for DeviceId {
    type RawType = bindings::virtio_device_id;
}

/// Id table of a virtio driver. `struct virtio_device_id` has no driver data.
pub type IdTable = &'static dyn crate::device_id::IdTable<DeviceId, ()>;

/// Creates a virtio [`IdTable`], and its alias for modpost.
#[macro_export]
macro_rules! virtio_device_table {
    ($table_name:ident, [$($id:expr),* $(,)?]) => {
        const $table_name: $crate::device_id::IdArray<
            $crate::virtio::DeviceId,
            (),
            { <[$crate::virtio::DeviceId]>::len(&[$($id),*]) },
        > = $crate::device_id::IdArray::new_without_index([$(($id, ())),*]);

        const _: () = {
            $crate::module_device_table!("virtio", MODULE_ID_TABLE, $table_name);
        };
    };
}

/// An adapter for the registration of virtio drivers.
pub struct Adapter<T: Driver>(T);

// SAFETY:
// - `bindings::virtio_driver` is a C type declared as `repr(C)`.
// - `T::Data` is the type of the driver's device private data.
// - `struct virtio_driver` embeds a `struct device_driver`.
// - `DEVICE_DRIVER_OFFSET` is the correct byte offset to the embedded `struct device_driver`.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::virtio_driver;
    type DriverData<'bound> = T::Data<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(Self::DriverType, driver);
}

// SAFETY: A call to `unregister` for a given instance of `DriverType` is guaranteed to be valid if
// a preceding call to `register` has been successful.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        vdrv: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        let features = T::FEATURES;

        // SAFETY: It's safe to set the fields of `struct virtio_driver` on initialization. The
        // tables are `'static`.
        unsafe {
            (*vdrv.get()).driver.name = name.as_char_ptr();
            (*vdrv.get()).id_table = T::ID_TABLE.as_ptr();
            // CAST: `Feature` is a transparent wrapper.
            (*vdrv.get()).feature_table = features.as_ptr().cast();
            (*vdrv.get()).feature_table_size = c_uint::try_from(features.len())?;
            (*vdrv.get()).probe = Some(Self::probe_callback);
            (*vdrv.get()).remove = Some(Self::remove_callback);
            (*vdrv.get()).shutdown = Some(Self::shutdown_callback);
            if T::HAS_CONFIG_CHANGED {
                (*vdrv.get()).config_changed = Some(Self::config_changed_callback);
            }
            // The core fails resets for a driver without these.
            if T::HAS_RESTORE {
                (*vdrv.get()).freeze = Some(Self::suspend_callback);
                (*vdrv.get()).restore = Some(Self::resume_callback);
                (*vdrv.get()).reset_prepare = Some(Self::suspend_callback);
                (*vdrv.get()).reset_done = Some(Self::resume_callback);
                (*vdrv.get()).restore_failed = Some(Self::restore_failed_callback);
                if T::HAS_MAY_WAKE {
                    (*vdrv.get()).may_wake = Some(Self::may_wake_callback);
                }
            }
        }

        // SAFETY: `vdrv` is guaranteed to be a valid `DriverType`.
        to_result(unsafe { bindings::__register_virtio_driver(vdrv.get(), module.as_ptr()) })
    }

    unsafe fn unregister(vdrv: &Opaque<Self::DriverType>) {
        // SAFETY: `vdrv` is guaranteed to be a valid `DriverType`.
        unsafe { bindings::unregister_virtio_driver(vdrv.get()) }
    }
}

impl<T: Driver> Adapter<T> {
    /// Returns the driver's data of `dev`.
    ///
    /// Fails if there is none because the device is not, or no longer, probed. The core does not
    /// exclude this for callbacks from the transport.
    ///
    /// # Safety
    ///
    /// The data must not be taken away while the returned reference exists.
    unsafe fn data<'a>(dev: &'a Device<device::CoreInternal<'_>>) -> Result<Pin<&'a T::Data<'a>>> {
        let generic: &device::Device<device::CoreInternal<'_>> = dev.as_ref();

        // SAFETY: `generic` is a valid device.
        if unsafe { bindings::dev_get_drvdata(generic.as_raw()) }.is_null() {
            return Err(ENODEV);
        }

        // SAFETY: The pointer is not NULL, so `probe_callback()` has stored it with this type by
        // `set_drvdata()`. By the requirements of this function it stays.
        Ok(unsafe { generic.drvdata_borrow::<T::Data<'_>>() })
    }

    extern "C" fn probe_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The virtio bus only ever calls the probe callback with a valid pointer to a
        // `struct virtio_device`.
        //
        // INVARIANT: `vdev` is valid for the duration of `probe_callback()`.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        from_result(|| {
            // SAFETY: `vdev` is valid, and is being probed, with its lock held. It is detached
            // below or in `remove_callback()`.
            unsafe { Binding::attach(vdev) }?;

            dev.as_ref().set_drvdata(T::probe(dev)).inspect_err(|_| {
                // The driver's data has been dropped. The core does not reset the device.
                //
                // SAFETY: `vdev` was attached above, and its probe has failed.
                unsafe { Binding::detach(vdev) }
            })?;

            // The core would mark the device as ready, but not the queues.
            //
            // SAFETY: `vdev` was attached above, and is in probe, with its lock held.
            unsafe { Binding::get(vdev).probed() };

            Ok(0)
        })
    }

    extern "C" fn remove_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The virtio bus only ever calls the remove callback with a valid pointer to a
        // `struct virtio_device`.
        //
        // INVARIANT: `vdev` is valid for the duration of `remove_callback()`.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        // SAFETY: The data is taken away below.
        if let Ok(data) = unsafe { Self::data(dev) } {
            if T::HAS_UNBIND {
                T::unbind(dev, data);
            }
        }

        // See "Order of removal" in the documentation of the module.
        //
        // SAFETY: `T::Data` is the type that `probe_callback()` stored. The driver core accepts
        // that there is no data when it would drop it.
        drop(unsafe { dev.as_ref().drvdata_obtain::<T::Data<'_>>() });

        // SAFETY: `vdev` was attached in `probe_callback()`, and its driver is being unbound.
        unsafe { Binding::detach(vdev) };
    }

    extern "C" fn shutdown_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The virtio bus only ever calls the shutdown callback with a valid pointer to a
        // `struct virtio_device` that is bound to this driver, with the lock of the device held.
        unsafe { Binding::get(vdev).shut_down() };
    }

    extern "C" fn config_changed_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The virtio core only ever calls this with a valid pointer to a bound device.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        // SAFETY: The core calls this under its `config_lock`, and enables it only after probe has
        // returned. Before remove it takes the lock to disable it.
        if let Ok(data) = unsafe { Self::data(dev) } {
            T::config_changed(dev, data);
        }
    }

    extern "C" fn suspend_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The virtio core only ever calls this with a valid pointer to a device that is
        // bound to this driver, with the lock of the device held.
        unsafe { Binding::get(vdev).suspend() };
        0
    }

    extern "C" fn may_wake_callback(vdev: *mut bindings::virtio_device) -> bool {
        // SAFETY: As in `suspend_callback()`.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        // SAFETY: As in `resume_callback()`.
        let may_wake = || unsafe { Self::data(dev) }.is_ok_and(|data| T::may_wake(dev, data));

        // SAFETY: As in `suspend_callback()`.
        unsafe { Binding::get(vdev).sleep(may_wake) }
    }

    extern "C" fn resume_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: As in `suspend_callback()`.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        from_result(|| {
            // SAFETY: Unbinding, which takes the data away, needs the lock of the device.
            let data = unsafe { Self::data(dev) }?;

            // SAFETY: As in `suspend_callback()`; the core has reset the device and negotiated its
            // features.
            unsafe { Binding::get(vdev).resume() }?;

            T::restore(dev, data).map(|()| 0)
        })
    }

    extern "C" fn restore_failed_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: As in `suspend_callback()`.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        // SAFETY: As in `suspend_callback()`.
        let is_closed = unsafe { Binding::get(vdev).resume_failed() };

        // The core reports no changes after an error.
        if T::HAS_CONFIG_CHANGED && is_closed {
            // SAFETY: As in `resume_callback()`.
            if let Ok(data) = unsafe { Self::data(dev) } {
                T::config_changed(dev, data);
            }
        }
    }
}

/// Declares a kernel module that exposes a single virtio driver.
///
/// # Examples
///
/// ```ignore
/// kernel::module_virtio_driver! {
///     type: MyDriver,
///     name: "my_driver",
///     authors: ["Author name"],
///     description: "Description",
///     license: "GPL v2",
/// }
/// ```
#[macro_export]
macro_rules! module_virtio_driver {
    ($($f:tt)*) => {
        $crate::module_driver!(<T>, $crate::virtio::Adapter<T>, { $($f)* });
    };
}

/// The virtio driver trait.
///
/// All functions but [`Driver::config_changed`] run in process context, with the lock of the device
/// held, and may sleep.
///
/// # Examples
///
/// A driver for the entropy device, which fills the buffers of its one queue. `fill()` adds a
/// buffer, and a work item pops it. On a suspend or a reset the queue frees it, thus `restore()`
/// adds a new one.
///
/// ```
/// use kernel::{
///     device::Core,
///     impl_has_work,
///     new_virtqueue,
///     new_work,
///     sync::Arc,
///     virtio::{
///         self,
///         AnyQueue,
///         Message,
///         Queue,
///         Queues, //
///     },
///     workqueue::{
///         self,
///         Work,
///         WorkItem, //
///     }, //
/// };
///
/// type Entropy = Message<(), [u8; 64]>;
///
/// #[pin_data]
/// struct Rng {
///     #[pin]
///     input: Queue<Entropy>,
///     #[pin]
///     work: Work<Self>,
/// }
///
/// impl_has_work! {
///     impl HasWork<Self> for Rng { self.work }
/// }
///
/// impl Rng {
///     /// Adds a buffer. May sleep.
///     fn fill(&self) -> Result {
///         let buffer = Message::new((), [0; 64], (), GFP_KERNEL)?;
///         let (added, notified) = self.input.with_kick(|ring, ()| ring.add(buffer));
///
///         // Frees a buffer that was not added, outside of the lock.
///         added.map_err(|(err, _)| err).and(notified)
///     }
/// }
///
/// impl WorkItem for Rng {
///     type Pointer = Arc<Self>;
///
///     fn run(this: Arc<Self>) {
///         let Some((buffer, Ok(written))) = this.input.with(|ring, ()| ring.pop()) else {
///             return;
///         };
///         let bytes = buffer.response();
///
///         pr_info!("{} bytes of entropy, the first is {}\n", written, bytes[0]);
///     }
/// }
///
/// struct Callbacks(Arc<Rng>);
///
/// impl Queues for Callbacks {
///     fn queue(&self, index: usize) -> Option<AnyQueue<'_>> {
///         (index == 0).then(|| self.0.input.as_any())
///     }
///
///     fn callback(&self, _index: usize) {
///         // A work item that is already pending finds the buffer.
///         let _ = workqueue::system_long().enqueue(self.0.clone());
///     }
/// }
///
/// struct RngDriver(Arc<Rng>);
///
/// impl Drop for RngDriver {
///     fn drop(&mut self) {
///         self.0.work.disable_sync();
///     }
/// }
///
/// kernel::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(4)]);
///
/// #[vtable]
/// impl virtio::Driver for RngDriver {
///     type Data<'bound> = Self;
///
///     const ID_TABLE: virtio::IdTable = &ID_TABLE;
///     const FEATURES: &'static [virtio::Feature] = &[];
///
///     fn probe<'bound>(
///         dev: &'bound virtio::Device<Core<'_>>,
///     ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
///         let rng = Arc::pin_init(
///             pin_init!(Rng {
///                 input <- new_virtqueue!(c"input"),
///                 work <- new_work!("Rng::work"),
///             }),
///             GFP_KERNEL,
///         )?;
///
///         dev.find_vqs(Arc::new(Callbacks(rng.clone()), GFP_KERNEL)?)?;
///         dev.ready();
///         rng.fill()?;
///
///         Ok(Self(rng))
///     }
///
///     fn restore<'bound>(
///         _dev: &'bound virtio::Device<Core<'_>>,
///         this: Pin<&Self::Data<'bound>>,
///     ) -> Result {
///         this.0.fill()
///     }
/// }
/// ```
#[vtable]
pub trait Driver {
    /// The type of the driver's device private data.
    ///
    /// Callbacks of the device and of the bus use it at the same time.
    type Data<'bound>: Send + Sync + 'bound;

    /// The table of device ids supported by the driver.
    const ID_TABLE: IdTable;

    /// The features specific to the device type that the driver supports.
    ///
    /// The core negotiates features of the transport and of the rings.
    const FEATURES: &'static [Feature];

    /// Called when a device for the driver is found, with its features negotiated.
    ///
    /// The driver can use the device after [`Device::find_vqs`] and [`Device::ready`].
    ///
    /// # Errors
    ///
    /// On error the queues are closed and the device is reset.
    fn probe<'bound>(
        dev: &'bound Device<device::Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound;

    /// Called before the driver is unbound from the device, for instance to end waits for it: see
    /// "Order of removal" in the [module](self).
    fn unbind<'bound>(dev: &'bound Device<device::Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        let _ = (dev, this);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called when the configuration space or the status of the device has changed, or when its
    /// queues could not be opened after a suspend or a reset: see [`Locked::needs_reset`].
    ///
    /// Not called before `probe` has returned, after `unbind` was called, or while the device is
    /// suspended or reset.
    ///
    /// # Context
    ///
    /// Any, including hard interrupts, with a spinlock held. Reading the configuration space may
    /// sleep: use a work item.
    fn config_changed<'bound>(dev: &'bound Device<device::Bound>, this: Pin<&Self::Data<'bound>>) {
        let _ = (dev, this);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called before the system is suspended, if the driver has [`Driver::restore`], and the device
    /// may wake the system up: a virtio-mmio device with the property `wakeup-source`, unless the
    /// user has disabled it, or one of User-Mode Linux for which the user has enabled it. Returns
    /// whether the device is left in use to do so.
    ///
    /// If so then the queues stay open until the system is resumed. Any interrupt of the device
    /// wakes the system up, and the callbacks run after that; so the device should have answered
    /// all requests.
    ///
    /// Otherwise, and without this function, the queues are closed and the device is reset before
    /// the suspend, as they are for a hibernation.
    ///
    /// Waits for the device must be bounded, and not be for [`Locked::reset`], which needs the lock
    /// of the device that is held.
    fn may_wake<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> bool {
        let _ = (dev, this);
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called after the system was resumed, or the transport has reset the device.
    ///
    /// Before, the bus has closed the queues, reset the device and reclaimed its buffers; now the
    /// queues are open again and the device is ready, but has lost its state.
    ///
    /// A driver without this function supports neither: a device that is suspended stays dead, and
    /// the transport fails the reset.
    ///
    /// # Errors
    ///
    /// An error marks the device as failed. It stays bound.
    fn restore<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        let _ = (dev, this);
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The virtio device representation.
///
/// This structure represents the Rust abstraction for a C `struct virtio_device`.
///
/// # Invariants
///
/// A [`Device`] instance represents a valid `struct virtio_device` created by the C portion of the
/// kernel.
#[repr(transparent)]
pub struct Device<Ctx: device::DeviceContext = device::Normal>(
    Opaque<bindings::virtio_device>,
    PhantomData<Ctx>,
);

impl<Ctx: device::DeviceContext> Device<Ctx> {
    fn as_raw(&self) -> *mut bindings::virtio_device {
        self.0.get()
    }
}

impl Device<device::Bound> {
    /// Returns whether a feature was negotiated.
    pub fn has_feature(&self, feature: Feature) -> bool {
        // SAFETY: `self.as_raw()` is valid and the bit is within the array.
        unsafe { bindings::__virtio_test_bit(self.as_raw(), feature.0) }
    }
}

impl Device<device::Core<'_>> {
    /// Finds the queues of `owner` in the device, and opens them.
    ///
    /// From now on `owner` gets callbacks. The bus abstraction keeps a reference to it until the
    /// queues are deleted.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if this was called before, `probe` has returned, or `owner` returns a queue that
    ///   is open already,
    /// - [`ENODEV`] if the device lacks one of the queues,
    /// - [`ENOMEM`], or other errors of the transport.
    ///
    /// After an error `probe` has to fail, too: the device may have been reset, and so have lost
    /// its features.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub fn find_vqs(&self, owner: Arc<dyn Queues>) -> Result {
        // SAFETY: `Core` exists in bus callbacks only. In all of them the lock is held and there is
        // a binding. `find_first()` refuses a binding that is not in its probe, before which the
        // core has negotiated the features.
        unsafe { Binding::get(self.as_raw()).find_first(owner) }
    }

    /// Returns the binding of the driver to the device, for work items that need the device, for
    /// example to reset it.
    pub fn binding(&self) -> Arc<Binding> {
        // SAFETY: `Core` exists in bus callbacks only, in all of which there is a binding.
        unsafe { Binding::get(self.as_raw()) }.into()
    }

    /// Tells the device that the driver is ready (`DRIVER_OK`), and notifies it of buffers that
    /// were added before.
    ///
    /// A driver that uses the device within `probe` calls it there; otherwise the bus does so after
    /// `probe`. Does nothing while the queues are closed.
    ///
    /// # Context
    ///
    /// Process context; may sleep.
    pub fn ready(&self) {
        // SAFETY: `Core` exists in bus callbacks only. In all of them the lock is held and there is
        // a binding.
        unsafe { Binding::get(self.as_raw()).set_ready() };
    }
}

// SAFETY: `Device` is a transparent wrapper of `struct virtio_device`.
// The offset is guaranteed to point to a valid device field inside `Device`.
unsafe impl<Ctx: device::DeviceContext> device::AsBusDevice<Ctx> for Device<Ctx> {
    const OFFSET: usize = offset_of!(bindings::virtio_device, dev);
}

// SAFETY: `Device` is a transparent wrapper of a type that doesn't depend on `Device`'s generic
// argument.
kernel::impl_device_context_deref!(unsafe { Device });
kernel::impl_device_context_into_aref!(Device);

// SAFETY: Instances of `Device` are always reference-counted.
unsafe impl AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        // SAFETY: The existence of a shared reference guarantees that the refcount is non-zero.
        unsafe { bindings::get_device(self.as_ref().as_raw()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The safety requirements guarantee that the refcount is non-zero.
        unsafe { bindings::put_device(&raw mut (*obj.as_ref().as_raw()).dev) }
    }
}

impl<Ctx: device::DeviceContext> AsRef<device::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &device::Device<Ctx> {
        // SAFETY: By the type invariant of `Self`, `self.as_raw()` is a pointer to a valid
        // `struct virtio_device`.
        let dev = unsafe { &raw mut (*self.as_raw()).dev };

        // SAFETY: `dev` points to a valid `struct device`.
        unsafe { device::Device::from_raw(dev) }
    }
}

// SAFETY: A `Device` is always reference-counted and can be released from any thread.
unsafe impl Send for Device {}

// SAFETY: `Device` can be shared among threads because all methods of `Device`
// (i.e. `Device<Normal>`) are thread safe.
unsafe impl Sync for Device {}

// SAFETY: As above: the methods of `Device<Bound>` only read features, which do not change once a
// device is bound, and the configuration space, for which transports do their own locking.
unsafe impl Sync for Device<device::Bound> {}
