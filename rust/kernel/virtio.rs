// SPDX-License-Identifier: GPL-2.0

//! Abstractions for the virtio bus.
//!
//! A driver implements [`Driver`], lists the devices that it drives with
//! [`virtio_device_table!`](crate::virtio_device_table), and declares its module with
//! [`module_virtio_driver!`](crate::module_virtio_driver). In `probe` it gets a [`Device`], sets up
//! its [`Queue`]s by [`Device::find_vqs`], marks the device as ready and talks to it.
//!
//! # Who owns the virtqueues
//!
//! The bus abstraction does. It opens the queues for the driver and closes them again before the
//! driver is unbound, when its probe fails, and around a suspend or a reset, always in this order:
//! no new operation, reset of the device, buffers back, queues deleted. No driver code takes part
//! in it, so none can get it wrong, whatever it drops, forgets or keeps. A driver can have the same
//! done, and the queues opened again, by [`Locked::reset`].
//!
//! # Order of removal
//!
//! 1. [`Driver::unbind`] runs; the device works as ever.
//! 2. [`Driver::Data`] is dropped. What it holds, e.g. the registration with a subsystem, may
//!    still talk to the device while it goes.
//! 3. The queues are closed and the device is reset.
//! 4. Resources that are managed by [`Devres`](crate::devres::Devres) go.
//!
//! Other buses drop the data only after the C `remove` callback has returned. The virtio core
//! demands that a device is reset by then, and what is registered with subsystems needs a device
//! that is not. Hence the data goes first here.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h),
//! [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h)

use crate::{
    container_of,
    device,
    device_id::RawDeviceId,
    driver,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::{
        aref::AlwaysRefCounted,
        Arc, //
    },
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::{
        offset_of,
        MaybeUninit, //
    },
    ptr::NonNull, //
};

mod buffer;
mod queue;
mod vqs;

pub use self::{
    buffer::{
        Buffer,
        Message,
        Segment, //
    },
    queue::{
        new_virtqueue,
        Access,
        AnyQueue,
        Queue,
        Reclaim, //
    },
    vqs::Queues, //
};

/// Feature bits of the rings, which transports offer to every driver.
pub mod feature {
    /// Descriptors can be in tables of their own, which the core allocates for every buffer.
    pub const RING_INDIRECT_DESC: u32 = bindings::VIRTIO_RING_F_INDIRECT_DESC;
}

/// A virtio device id.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct DeviceId(bindings::virtio_device_id);

impl DeviceId {
    /// Creates an id that matches devices of the given type from any vendor.
    ///
    /// Types are listed in `include/uapi/linux/virtio_ids.h`; 0 is none.
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

/// Id table of a virtio driver.
pub type IdTable<T> = &'static dyn crate::device_id::IdTable<DeviceId, T>;

/// Creates a virtio [`IdTable`] with its alias for modpost.
///
/// `struct virtio_device_id` has no room for driver data, so entries are found again by comparing.
#[macro_export]
macro_rules! virtio_device_table {
    ($table_name:ident, $module_table_name:ident, $id_info_type:ty, $table_data:expr) => {
        const $table_name: $crate::device_id::IdArray<
            $crate::virtio::DeviceId,
            $id_info_type,
            { $table_data.len() },
        > = $crate::device_id::IdArray::new_without_index($table_data);

        $crate::module_device_table!("virtio", $module_table_name, $table_name);
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
            (*vdrv.get()).feature_table = features.as_ptr();
            (*vdrv.get()).feature_table_size = c_uint::try_from(features.len())?;
            (*vdrv.get()).validate = Some(Self::validate_callback);
            (*vdrv.get()).probe = Some(Self::probe_callback);
            (*vdrv.get()).remove = Some(Self::remove_callback);
            (*vdrv.get()).shutdown = Some(Self::shutdown_callback);
            (*vdrv.get()).config_changed = Some(Self::config_changed_callback);
            (*vdrv.get()).freeze = Some(Self::freeze_callback);
            (*vdrv.get()).restore = Some(Self::restore_callback);
            (*vdrv.get()).reset_prepare = Some(Self::reset_prepare_callback);
            (*vdrv.get()).reset_done = Some(Self::reset_done_callback);
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
    /// Returns the driver's information on the entry of its table that matches `dev`.
    fn id_info(dev: &Device) -> Option<&'static T::IdInfo> {
        let mut entry = T::ID_TABLE.as_ptr();
        let mut index = 0;

        loop {
            // SAFETY: The table ends with an entry of zeroes, and the loop ends with it.
            let id = unsafe { &*entry };

            if id.device == 0 {
                return None;
            }

            let matches = |wanted, found| wanted == bindings::VIRTIO_DEV_ANY_ID || wanted == found;

            if matches(id.device, dev.device_type()) && matches(id.vendor, dev.vendor()) {
                return Some(T::ID_TABLE.info(index));
            }

            // SAFETY: There is at least the last entry behind one that is not the last.
            entry = unsafe { entry.add(1) };
            index += 1;
        }
    }

    /// Returns the driver's data of `dev`.
    ///
    /// Fails when there is none, because the device is not (or no longer) probed. The core does not
    /// exclude this for callbacks that come by way of the transport.
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

        // SAFETY: The pointer is not NULL, so it was stored by `set_drvdata()`, which
        // `probe_callback()` calls with this type. By the requirements of this function it stays.
        Ok(unsafe { generic.drvdata_borrow::<T::Data<'_>>() })
    }

    extern "C" fn validate_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The virtio bus only ever calls this with a valid pointer to a device that is
        // being bound to this driver.
        let dev = unsafe { &*vdev.cast::<Device<device::Bound>>() };

        from_result(|| T::validate(&Negotiation(dev)).map(|()| 0))
    }

    extern "C" fn probe_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The virtio bus only ever calls the probe callback with a valid pointer to a
        // `struct virtio_device`.
        //
        // INVARIANT: `vdev` is valid for the duration of `probe_callback()`.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        from_result(|| {
            let info = Self::id_info(dev).ok_or(ENODEV)?;
            let data = T::probe(dev, info);

            dev.as_ref().set_drvdata(data).inspect_err(|_| {
                // The driver's data, if there was any, is gone. The core does not reset.
                //
                // SAFETY: `vdev` is valid, and its probe has failed.
                unsafe { vqs::Vqs::detach(vdev) }
            })?;

            // If probe didn't do it. The core would mark the device, but not the queues.
            dev.ready();

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
            T::unbind(dev, data);
        }

        // The order is described, with its reason, in the documentation of the module.
        //
        // SAFETY: `T::Data` is the type that `probe_callback()` stored. The driver core finds no
        // data when it would drop it, which it is prepared for.
        drop(unsafe { dev.as_ref().drvdata_obtain::<T::Data<'_>>() });

        // SAFETY: `vdev` is valid, and its driver is being unbound.
        unsafe { vqs::Vqs::detach(vdev) };
    }

    extern "C" fn shutdown_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The virtio bus only ever calls the shutdown callback with a valid pointer to a
        // `struct virtio_device` that is bound to this driver, with the lock of the device held.
        unsafe { vqs::Vqs::shut_down(vdev) };
    }

    extern "C" fn config_changed_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The virtio core only ever calls this with a valid pointer to a bound device.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        // SAFETY: The core calls this under its `config_lock` and enables it only after probe has
        // returned. Before remove it disables it, and waits for the lock to do so.
        if let Ok(data) = unsafe { Self::data(dev) } {
            T::config_changed(dev, data);
        }
    }

    /// Lets the driver prepare by `prepare`, then closes the queues.
    fn suspend(
        vdev: *mut bindings::virtio_device,
        prepare: impl for<'a> FnOnce(
            &'a Device<device::CoreInternal<'_>>,
            Pin<&'a T::Data<'a>>,
        ) -> Result,
    ) -> c_int {
        // SAFETY: The virtio core only ever calls this with a valid pointer to a bound device.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        // The core does not exclude that the driver is being unbound, by way of sysfs.
        let _guard = DeviceLock::new(dev.as_ref());

        from_result(|| {
            // SAFETY: The driver core unbinds, and so takes the data away, with the lock held.
            prepare(dev, unsafe { Self::data(dev) }?)?;

            // SAFETY: `vdev` is valid, and its lock is held.
            unsafe { vqs::Vqs::suspend(vdev) };

            Ok(0)
        })
    }

    /// Opens the queues again, then lets the driver continue by `resume`.
    fn resume(
        vdev: *mut bindings::virtio_device,
        resume: impl for<'a> FnOnce(
            &'a Device<device::CoreInternal<'_>>,
            Pin<&'a T::Data<'a>>,
        ) -> Result,
    ) -> c_int {
        // SAFETY: The virtio core only ever calls this with a valid pointer to a bound device.
        let dev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        let _guard = DeviceLock::new(dev.as_ref());

        from_result(|| {
            // SAFETY: As in `suspend()`.
            let data = unsafe { Self::data(dev) }?;

            // SAFETY: `vdev` is valid, its lock is held, and `suspend()` has closed the queues.
            unsafe { vqs::Vqs::resume(vdev) }?;

            dev.ready();

            resume(dev, data).map(|()| 0)
        })
    }

    extern "C" fn freeze_callback(vdev: *mut bindings::virtio_device) -> c_int {
        Self::suspend(vdev, |dev, data| T::freeze(dev, data))
    }

    extern "C" fn restore_callback(vdev: *mut bindings::virtio_device) -> c_int {
        Self::resume(vdev, |dev, data| T::restore(dev, data))
    }

    extern "C" fn reset_prepare_callback(vdev: *mut bindings::virtio_device) -> c_int {
        Self::suspend(vdev, |dev, data| T::reset_prepare(dev, data))
    }

    extern "C" fn reset_done_callback(vdev: *mut bindings::virtio_device) -> c_int {
        Self::resume(vdev, |dev, data| T::reset_done(dev, data))
    }
}

/// The lock of a device, which the driver core holds while it binds and unbinds it.
struct DeviceLock<'a>(&'a device::Device);

impl<'a> DeviceLock<'a> {
    fn new(dev: &'a device::Device) -> Self {
        // SAFETY: `dev` is a valid device. This is process context: transports suspend, resume and
        // reset with the lock of their own device held, the parent of this one.
        unsafe { bindings::device_lock(dev.as_raw()) };

        Self(dev)
    }

    /// Takes the lock only if nobody has it.
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
/// All functions but [`Driver::config_changed`] run in process context and may sleep.
///
/// # Examples
///
/// A driver for the entropy device, which has one queue of buffers that the device fills.
///
/// ```
/// use kernel::{
///     device::Core,
///     new_virtqueue,
///     sync::Arc,
///     virtio::{
///         self,
///         AnyQueue,
///         Message,
///         Queue,
///         Queues, //
///     }, //
/// };
///
/// type Entropy = Message<(), [u8; 64]>;
///
/// #[pin_data]
/// struct State {
///     #[pin]
///     input: Queue<Entropy>,
/// }
///
/// impl Queues for State {
///     fn queue(&self, index: usize) -> Option<&dyn AnyQueue> {
///         (index == 0).then_some(&self.input as _)
///     }
///
///     fn callback(&self, _index: usize) {
///         // Let the device fill the same buffers again and again.
///         let (_, notified) = self.input.with_kick(|ring, _| {
///             while let Some((buffer, written)) = ring.pop() {
///                 pr_info!("got {:?} bytes of entropy\n", written);
///                 let _ = ring.add(buffer);
///             }
///         });
///
///         if let Err(err) = notified {
///             pr_err!("no more entropy: {:?}\n", err);
///         }
///     }
/// }
///
/// struct EntropyDriver;
///
/// kernel::virtio_device_table!(
///     ID_TABLE,
///     MODULE_ID_TABLE,
///     <EntropyDriver as virtio::Driver>::IdInfo,
///     [(virtio::DeviceId::new(4), ())]
/// );
///
/// impl virtio::Driver for EntropyDriver {
///     type IdInfo = ();
///     type Data<'bound> = Self;
///     const ID_TABLE: virtio::IdTable<Self::IdInfo> = &ID_TABLE;
///     const FEATURES: &'static [u32] = &[];
///
///     fn probe<'bound>(
///         dev: &'bound virtio::Device<Core<'_>>,
///         _info: &'bound Self::IdInfo,
///     ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
///         let state = Arc::pin_init(
///             pin_init!(State { input <- new_virtqueue!(c"input") }),
///             GFP_KERNEL,
///         )?;
///
///         dev.find_vqs(state.clone())?;
///         dev.ready();
///
///         let buffer = Message::new((), [0; 64], (), GFP_KERNEL)?;
///         let (added, notified) = state.input.with_kick(|ring, _| ring.add(buffer));
///         added.map_err(|(err, _)| err)?;
///         notified?;
///
///         Ok(Self)
///     }
/// }
/// ```
pub trait Driver {
    /// The type holding information about each device id supported by the driver.
    type IdInfo: 'static;

    /// The type of the driver's device private data.
    type Data<'bound>: Send + 'bound;

    /// The table of device ids supported by the driver.
    const ID_TABLE: IdTable<Self::IdInfo>;

    /// The feature bits, of those specific to the device type, that the driver understands.
    ///
    /// Features of the transport and of the rings are negotiated by the core.
    const FEATURES: &'static [u32];

    /// Checks the offer of the device, and declines features, before the negotiation ends.
    ///
    /// # Errors
    ///
    /// An error ends the attempt to bind.
    fn validate(negotiation: &Negotiation<'_>) -> Result {
        let _ = negotiation;
        Ok(())
    }

    /// Called when a device for the driver is found. Features are negotiated.
    ///
    /// The device can be used as soon as its queues were found and [`Device::ready`] was called.
    ///
    /// # Errors
    ///
    /// On error the queues are closed and the device is reset.
    fn probe<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        info: &'bound Self::IdInfo,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound;

    /// Called before the driver is unbound from the device, for instance to end waits for it.
    ///
    /// The order in which everything goes is described in the [module](self).
    fn unbind<'bound>(dev: &'bound Device<device::Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        let _ = (dev, this);
    }

    /// Called when the configuration space or the status of the device has changed.
    ///
    /// Not called before `probe` has returned nor after `unbind` was called.
    ///
    /// # Context
    ///
    /// Any, also hard interrupts, with a spinlock held. To read the configuration space is not
    /// possible here: leave that to a work item.
    fn config_changed<'bound>(dev: &'bound Device<device::Bound>, this: Pin<&Self::Data<'bound>>) {
        let _ = (dev, this);
    }

    /// Called before the system is suspended or hibernated.
    ///
    /// The device works as ever; as soon as this function returns without error its queues are
    /// closed and it is reset. Buffers that it has are reclaimed.
    ///
    /// # Errors
    ///
    /// An error prevents the suspend.
    fn freeze<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        let _ = (dev, this);
        Ok(())
    }

    /// Called after the system was resumed.
    ///
    /// The queues are open again and the device is ready, but it has forgotten everything.
    ///
    /// # Errors
    ///
    /// An error marks the device as failed. It stays bound.
    fn restore<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        let _ = (dev, this);
        Ok(())
    }

    /// Called before the transport resets the device, as [`Driver::freeze`] is.
    fn reset_prepare<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        Self::freeze(dev, this)
    }

    /// Called after the transport has reset the device, as [`Driver::restore`] is.
    fn reset_done<'bound>(
        dev: &'bound Device<device::Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        Self::restore(dev, this)
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

impl Device {
    /// Returns the type of the device, as listed in `include/uapi/linux/virtio_ids.h`.
    pub fn device_type(&self) -> u32 {
        // SAFETY: `self.as_raw()` is valid; the id does not change.
        unsafe { (*self.as_raw()).id.device }
    }

    /// Returns the vendor of the device.
    pub fn vendor(&self) -> u32 {
        // SAFETY: `self.as_raw()` is valid; the id does not change.
        unsafe { (*self.as_raw()).id.vendor }
    }

    /// Runs `f` if the device is bound to a driver and not suspended, and keeps it so meanwhile.
    ///
    /// Does not wait: returns [`None`] also when a driver is just being bound or unbound, or the
    /// device suspended or resumed. So it can be used in a work item that unbinding waits for.
    ///
    /// # Context
    ///
    /// Process context; `f` may sleep, and runs with the lock of the device held.
    pub fn try_bound<R>(&self, f: impl FnOnce(&Locked<'_>) -> R) -> Option<R> {
        let _guard = DeviceLock::try_new(self.as_ref())?;

        // SAFETY: `self.as_raw()` is valid; the driver changes only with the lock held.
        if unsafe { (*self.as_raw()).dev.driver }.is_null() {
            return None;
        }

        // SAFETY: `self.as_raw()` is valid, and its lock is held.
        if unsafe { vqs::Vqs::is_suspended(self.as_raw()) } {
            return None;
        }

        // SAFETY: The device has a driver. The driver core has the lock from before it sets it
        // until probe is over, and from before it unbinds the driver until it has cleared it. So
        // the device is bound until the lock is released, which is after the call of `f`.
        let dev = unsafe { &*self.as_raw().cast() };

        // INVARIANT: The lock is held until after the call of `f`, which cannot keep the value.
        Some(f(&Locked {
            dev,
            _not_thread_safe: NotThreadSafe,
        }))
    }
}

/// A device that is bound to a driver and whose lock is held: see [`Device::try_bound`].
///
/// # Invariants
///
/// The lock of the device is held by this task. The device is bound and not suspended.
pub struct Locked<'a> {
    dev: &'a Device<device::Bound>,
    _not_thread_safe: NotThreadSafe,
}

impl Locked<'_> {
    /// Resets the device, finds its queues again and marks it as ready.
    ///
    /// This is what a device with `DEVICE_NEEDS_RESET` needs, and works on every transport, as it
    /// is what a suspend and resume do. The device gives all buffers back, which are reclaimed, and
    /// forgets all that it was told. Reports of a changed configuration are delayed meanwhile.
    ///
    /// # Errors
    ///
    /// - [`ENODEV`] when the device has no queues, is gone, was shut down, or refuses the features
    ///   that it was bound with,
    /// - whatever the transport returns when queues are found.
    ///
    /// The queues are closed then, and the device is marked as failed if it is there. It may be
    /// tried again.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub fn reset(&self) -> Result {
        // SAFETY: `self.dev` is valid and bound; by the type invariants its lock is held, and it is
        // not suspended.
        unsafe { vqs::Vqs::reset(self.dev.as_raw()) }
    }
}

impl core::ops::Deref for Locked<'_> {
    type Target = Device<device::Bound>;

    fn deref(&self) -> &Self::Target {
        self.dev
    }
}

/// A little-endian field of the configuration space.
///
/// # Safety
///
/// `Self` must have a size of 1, 2, 4 or 8 bytes, of which all patterns are valid.
pub unsafe trait ConfigField: Copy {
    /// Converts a value as it is in the configuration space.
    #[doc(hidden)]
    fn le_to_cpu(self) -> Self;
}

macro_rules! impl_config_field {
    ($($t:ty)*) => {$(
        // SAFETY: Integers have no invalid patterns, and the sizes are as required.
        unsafe impl ConfigField for $t {
            fn le_to_cpu(self) -> Self {
                <$t>::from_le(self)
            }
        }
    )*};
}

impl_config_field!(u8 u16 u32 u64);

impl Device<device::Bound> {
    /// Size in bytes of the configuration space that every transport can access: virtio over MMIO
    /// has registers of 512 bytes, of which it is the second half.
    const MAX_CONFIG_SIZE: usize = 256;

    /// Tells whether a feature was negotiated.
    pub fn has_feature(&self, bit: u32) -> bool {
        if bit >= bindings::VIRTIO_FEATURES_BITS {
            return false;
        }

        // SAFETY: `self.as_raw()` is valid and the bit is within the array.
        unsafe { bindings::__virtio_test_bit(self.as_raw(), bit) }
    }

    /// Tells whether the device has said that only a reset can help it. One that is gone has not.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn needs_reset(&self) -> bool {
        let status = vqs::status(self);

        status & bindings::VIRTIO_CONFIG_S_NEEDS_RESET != 0 && status != vqs::STATUS_GONE
    }

    /// Reads a field of the configuration space at `offset`, given in bytes.
    ///
    /// Fields are read one by one; the device may change them in between.
    ///
    /// The C core does not know the size of the configuration space. 256 bytes are what all
    /// transports map; the PCI transport takes it as a bug when an access is beyond the end of what
    /// the device announced, so only access what a device of the type must have.
    ///
    /// # Errors
    ///
    /// - [`ENODEV`] when the device has no configuration space,
    /// - [`EINVAL`] when the field is not aligned to its size or not within 256 bytes.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn config_read<T: ConfigField>(&self, offset: usize) -> Result<T> {
        if offset % size_of::<T>() != 0 || offset >= Self::MAX_CONFIG_SIZE {
            return Err(EINVAL);
        }

        // SAFETY: `self.as_raw()` is valid, and so are the operations of its transport.
        let get = unsafe { (*(*self.as_raw()).config).get }.ok_or(ENODEV)?;

        let mut value = MaybeUninit::<T>::zeroed();

        // SAFETY: `value` has room for the size of `T`, which transports support by the
        // requirements of `ConfigField`. The field is aligned and within what they map. This
        // function may sleep, as `get` may.
        unsafe {
            get(
                self.as_raw(),
                offset as c_uint,
                value.as_mut_ptr().cast(),
                size_of::<T>() as c_uint,
            )
        };

        // SAFETY: Zeroes, or what the transport wrote: all patterns are valid.
        Ok(unsafe { value.assume_init() }.le_to_cpu())
    }
}

impl Device<device::Core<'_>> {
    /// Finds the queues of `owner` in the device, and opens them.
    ///
    /// From now on `owner` gets callbacks. The bus abstraction keeps a reference to it until the
    /// queues are deleted: see the [module](self).
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] when queues were found before, or `owner` returns one that is open already,
    /// - [`ENODEV`] when the device lacks one of the queues,
    /// - whatever the transport returns.
    ///
    /// The device has been reset then, and features would have to be negotiated anew: all that
    /// `probe` can do is to fail.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub fn find_vqs(&self, owner: Arc<dyn Queues>) -> Result {
        // SAFETY: `self.as_raw()` is valid. `Core` exists in bus callbacks only, and in all of them
        // the features have been negotiated.
        unsafe { vqs::Vqs::attach(self.as_raw(), owner) }
    }

    /// Tells the device that the driver is ready (`DRIVER_OK`), and notifies it of buffers that
    /// were added so far.
    ///
    /// Happens by itself after `probe`. A driver that uses the device within `probe` calls it
    /// there.
    ///
    /// # Context
    ///
    /// Process context; may sleep.
    pub fn ready(&self) {
        // SAFETY: `self.as_raw()` is valid. `Core` exists in bus callbacks only, and in all of them
        // the features have been negotiated.
        unsafe { vqs::Vqs::set_ready(self.as_raw()) };
    }
}

/// The negotiation of features with a device, for [`Driver::validate`].
pub struct Negotiation<'a>(&'a Device<device::Bound>);

impl Negotiation<'_> {
    /// Declines a feature.
    pub fn clear_feature(&self, bit: u32) {
        if bit < bindings::VIRTIO_FEATURES_BITS {
            // SAFETY: The device is valid and the bit within the array. During `validate` the core
            // expects changes, and nobody else accesses the features.
            unsafe { bindings::__virtio_clear_bit(self.0.as_raw(), bit) };
        }
    }
}

impl core::ops::Deref for Negotiation<'_> {
    type Target = Device<device::Bound>;

    fn deref(&self) -> &Self::Target {
        self.0
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

impl<Ctx: device::DeviceContext> TryFrom<&device::Device<Ctx>> for &Device<Ctx> {
    type Error = Error;

    fn try_from(dev: &device::Device<Ctx>) -> Result<Self, Self::Error> {
        // SAFETY: By the type invariant of `Device`, `dev.as_raw()` is a valid pointer to a
        // `struct device`.
        if !unsafe { bindings::is_virtio_device(dev.as_raw()) } {
            return Err(EINVAL);
        }

        // SAFETY: We've just verified that the bus of `dev` is the virtio bus, hence `dev` must be
        // embedded in a valid `struct virtio_device` as guaranteed by the corresponding C code.
        let vdev = unsafe { container_of!(dev.as_raw(), bindings::virtio_device, dev) };

        // SAFETY: `vdev` is a valid pointer to a `struct virtio_device`.
        Ok(unsafe { &*vdev.cast() })
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
