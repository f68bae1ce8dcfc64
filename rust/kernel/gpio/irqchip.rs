// SPDX-License-Identifier: GPL-2.0

//! Interrupt chips of GPIO chips: their operations, and their IRQ domain.
//!
//! C headers:
//! - [`include/linux/irq.h`](srctree/include/linux/irq.h)
//! - [`include/linux/irqdomain.h`](srctree/include/linux/irqdomain.h)
//! - [`include/linux/gpio/driver.h`](srctree/include/linux/gpio/driver.h)

use super::driver::{
    some_if,
    Chip,
    Inner, //
};
use crate::{
    bindings,
    bitmap::BitmapVec,
    device::Device,
    error::{
        from_result,
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    irq::TriggerType,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        new_raw_spinlock,
        rcu,
        Arc,
        LockClassKey,
        RawSpinLock, //
    }, //
};
use core::{
    marker::{
        PhantomData,
        PhantomPinned, //
    },
    ptr::{
        self,
        NonNull, //
    }, //
};

/// The genirq flow handler of a chip's interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowHandler {
    /// `handle_level_irq()`: masks the line, acknowledges the interrupt, runs the handlers, and
    /// unmasks the line, after the threaded handler if there is one (`IRQF_ONESHOT`).
    Level,

    /// `handle_edge_irq()`: acknowledges the interrupt and runs the handlers. An interrupt that is
    /// raised meanwhile masks the line, and the handlers run again.
    Edge,
}

/// The interrupt side of a GPIO controller: the callbacks of `struct irq_chip`.
///
/// On a controller behind a slow bus, access to the hardware sleeps, which genirq allows in some
/// callbacks only. The usual split is:
///
/// - The callbacks under the descriptor's lock record the wanted state in memory.
/// - [`IrqChip::irq_bus_sync_unlock`], which may sleep, writes the difference to the hardware.
///
/// # Starting and enabling
///
/// genirq calls [`IrqChip::irq_startup`] when an interrupt is requested and
/// [`IrqChip::irq_shutdown`] when it is freed, which imply unmask and mask. In between it calls
/// [`IrqChip::irq_mask`] and [`IrqChip::irq_unmask`] any number of times.
///
/// There is no callback for `disable_irq()`, which makes it lazy: the line stays unmasked until an
/// interrupt is raised, which genirq then masks, marks as pending, and resends on `enable_irq()`.
/// So edges in between are not lost, and a pair of calls costs nothing. (The resend takes
/// `CONFIG_HARDIRQS_SW_RESEND`, which most architectures have. On others such an edge is lost.)
///
/// # Locking
///
/// genirq holds the *bus lock* around a whole operation, such as the request of an interrupt with
/// its change of trigger. This abstraction provides one bus lock per line: while
/// [`IrqChip::irq_bus_sync_unlock`] of one line waits for the hardware, other lines are not
/// blocked. State that lines share needs a lock of the driver's own. A chip with neither
/// [`IrqChip::irq_bus_lock`] nor [`IrqChip::irq_bus_sync_unlock`] has no bus lock, and its
/// interrupts can be enabled in atomic context.
///
/// The *descriptor's lock* is a raw spinlock with interrupts off, and nests in the bus lock. genirq
/// also holds it in interrupts. Callbacks under it must not sleep, and take raw spinlocks only.
///
/// In handlers, including those that are forced into a thread, and wherever else bottom halves or
/// interrupts are off, genirq's operations do not take the bus lock, and
/// [`IrqChip::irq_bus_sync_unlock`] is not called. Consumers may only call `disable_irq_nosync()`
/// there, which is lazy, or calls [`IrqChip::irq_mask`] if the consumer has set
/// `IRQ_DISABLE_UNLAZY`: that must be effective without the bus lock. For an operation that is not
/// allowed there (`enable_irq()`), only the callbacks under the descriptor's lock run; the next
/// operation on the line does the rest.
///
/// # Removal
///
/// Dropping the registration frees interrupts still in use, with all the callbacks for that, and
/// waits for operations in progress, including those that wait for a bus lock. Later operations do
/// not find the chip: no callback runs afterwards.
///
/// # Examples
///
/// The interrupts of a controller behind a slow bus:
///
/// ```
/// # #![cfg(CONFIG_GPIOLIB_IRQCHIP)]
/// use kernel::{
///     device::{
///         Bound,
///         Device, //
///     },
///     gpio::{
///         self,
///         ChipInfo,
///         FlowHandler,
///         IrqDomain,
///         LineDirection, //
///     },
///     irq::TriggerType,
///     new_mutex,
///     prelude::*,
///     sync::{
///         new_raw_spinlock,
///         Arc,
///         Mutex,
///         RawSpinLock, //
///     }, //
/// };
///
/// #[derive(Default)]
/// struct Lines {
///     /// Lines with a trigger.
///     wanted: u32,
///     /// Lines that may raise interrupts.
///     unmasked: u32,
/// }
///
/// #[pin_data]
/// struct Expander {
///     #[pin]
///     domain: IrqDomain,
///     #[pin]
///     lines: RawSpinLock<Lines>,
///     /// The hardware's register, which the bus locks of the lines do not serialize.
///     #[pin]
///     enabled: Mutex<u32>,
/// }
///
/// impl Expander {
///     /// Sleeps.
///     fn write_enable_register(&self, lines: u32) {
///         pr_debug!("edges are detected on {lines:#x}\n");
///     }
///
///     /// Called from the controller's own interrupt, for example.
///     fn handle(&self, detected: u32) {
///         let due = detected & self.lines.with(|lines| lines.unmasked);
///
///         for line in (0..32).filter(|line| due & 1 << line != 0) {
///             // Fails for a line that was never requested.
///             let _ = self.domain.handle_irq(line);
///         }
///     }
/// }
///
/// #[vtable]
/// impl gpio::Chip for Expander {
///     fn get_direction(&self, _offset: u32) -> Result<LineDirection> {
///         Ok(LineDirection::In)
///     }
/// }
///
/// #[vtable]
/// impl gpio::IrqChip for Expander {
///     const HANDLER: FlowHandler = FlowHandler::Level;
///
///     fn irq_domain(&self) -> &IrqDomain {
///         &self.domain
///     }
///
///     fn irq_mask(&self, offset: u32) {
///         self.lines.with(|lines| lines.unmasked &= !(1 << offset));
///     }
///
///     fn irq_unmask(&self, offset: u32) {
///         self.lines.with(|lines| lines.unmasked |= 1 << offset);
///     }
///
///     fn irq_set_type(&self, offset: u32, trigger: TriggerType) -> Result {
///         self.lines.with(|lines| {
///             match trigger {
///                 TriggerType::EdgeRising => lines.wanted |= 1 << offset,
///                 TriggerType::None => lines.wanted &= !(1 << offset),
///                 _ => return Err(EINVAL),
///             }
///             Ok(())
///         })
///     }
///
///     fn irq_bus_sync_unlock(&self, _offset: u32) {
///         let mut enabled = self.enabled.lock();
///         let wanted = self.lines.with(|lines| lines.wanted);
///
///         if *enabled != wanted {
///             self.write_enable_register(wanted);
///             *enabled = wanted;
///         }
///     }
/// }
///
/// fn probe(dev: &Device<Bound>) -> Result<gpio::Registration<Expander>> {
///     let chip = Arc::pin_init(
///         pin_init!(Expander {
///             domain <- IrqDomain::new(),
///             lines <- new_raw_spinlock!(Lines::default()),
///             enabled <- new_mutex!(0),
///         }),
///         GFP_KERNEL,
///     )?;
///
///     gpio::Registration::with_irq(
///         dev,
///         chip,
///         ChipInfo {
///             label: c"expander",
///             ngpio: 32,
///             can_sleep: true,
///             names: None,
///         },
///         gpio::lock_classes!(),
///     )
/// }
/// ```
#[vtable]
pub trait IrqChip: Chip {
    /// The flow handler of all lines.
    const HANDLER: FlowHandler;

    /// Returns the chip's [`IrqDomain`], a part of the driver's state.
    ///
    /// Called once, at registration.
    fn irq_domain(&self) -> &IrqDomain;

    /// Prepares a line to be used as interrupt. On an error the consumer's `request_irq()` fails
    /// with it.
    ///
    /// Before, gpiolib has marked the line as used as interrupt, which fails for outputs. A line
    /// that the consumer has not requested as GPIO need not be an input yet.
    ///
    /// Runs with the bus lock held; may sleep.
    fn irq_request_resources(&self, _offset: u32) -> Result {
        Ok(())
    }

    /// Undoes [`IrqChip::irq_request_resources`].
    ///
    /// Runs with the bus lock held; may sleep. As for [`Chip::free`], the wait for hardware must be
    /// bounded.
    fn irq_release_resources(&self, _offset: u32) {}

    /// Starts and unmasks an interrupt that is requested.
    ///
    /// Without it, genirq calls [`IrqChip::irq_unmask`]. Runs under the descriptor's lock.
    fn irq_startup(&self, _offset: u32) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Masks and stops an interrupt that is freed.
    ///
    /// Without it, genirq calls [`IrqChip::irq_mask`]. Runs under the descriptor's lock.
    fn irq_shutdown(&self, _offset: u32) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Stops a line from raising interrupts.
    ///
    /// Runs under the descriptor's lock, often called by [`IrqDomain::handle_irq`].
    fn irq_mask(&self, offset: u32);

    /// Allows a line to raise interrupts.
    ///
    /// Runs under the descriptor's lock, often called by [`IrqDomain::handle_irq`].
    fn irq_unmask(&self, offset: u32);

    /// Acknowledges an interrupt, so that the controller detects the next one.
    ///
    /// Runs under the descriptor's lock, called by [`IrqDomain::handle_irq`].
    fn irq_ack(&self, _offset: u32) {}

    /// Sets the trigger of a line; it may be [`TriggerType::None`].
    ///
    /// Runs under the descriptor's lock.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for a trigger that the chip does not support. The consumer's operation fails with
    /// the error.
    fn irq_set_type(&self, offset: u32, trigger: TriggerType) -> Result;

    /// Lets a line wake the system up when it is suspended, or no longer: see `enable_irq_wake()`.
    ///
    /// Without it, lines need no setting for that. Runs under the descriptor's lock.
    fn irq_set_wake(&self, _offset: u32, _on: bool) {}

    /// Called at the beginning of an operation of genirq on a line, which ends with
    /// [`IrqChip::irq_bus_sync_unlock`].
    ///
    /// Runs with the bus lock held, which the abstraction takes right before; may sleep.
    fn irq_bus_lock(&self, _offset: u32) {}

    /// Updates the hardware to the state that the callbacks under the descriptor's lock have
    /// recorded.
    ///
    /// Runs with the bus lock held, which the abstraction releases right after; may sleep. genirq
    /// often calls it without a change, at the end of each threaded handler for example.
    fn irq_bus_sync_unlock(&self, _offset: u32) {}
}

/// The callbacks of `struct irq_chip` for a `T`.
pub(super) struct IrqChipVTable<T: IrqChip>(PhantomData<T>);

impl<T: IrqChip> IrqChipVTable<T> {
    const HAS_BUS: bool = T::HAS_IRQ_BUS_LOCK || T::HAS_IRQ_BUS_SYNC_UNLOCK;

    const VTABLE: bindings::irq_chip = bindings::irq_chip {
        // Used in genirq's messages; /proc/interrupts shows what `irq_print_chip` prints.
        name: crate::str::as_char_ptr_in_const_context(c"gpio"),
        irq_bus_lock: some_if(Self::HAS_BUS, Self::irq_bus_lock_callback),
        irq_bus_sync_unlock: some_if(Self::HAS_BUS, Self::irq_bus_sync_unlock_callback),
        irq_request_resources: Some(Self::irq_request_resources_callback),
        irq_release_resources: Some(Self::irq_release_resources_callback),
        irq_startup: some_if(T::HAS_IRQ_STARTUP, Self::irq_startup_callback),
        irq_shutdown: some_if(T::HAS_IRQ_SHUTDOWN, Self::irq_shutdown_callback),
        // `handle_edge_irq()` calls it unconditionally.
        irq_ack: some_if(
            T::HAS_IRQ_ACK || matches!(T::HANDLER, FlowHandler::Edge),
            Self::irq_ack_callback,
        ),
        irq_mask: Some(Self::irq_mask_callback),
        irq_unmask: Some(Self::irq_unmask_callback),
        irq_set_type: Some(Self::irq_set_type_callback),
        irq_set_wake: Some(Self::irq_set_wake_callback),
        irq_print_chip: Some(Self::irq_print_chip_callback),
        flags: bindings::IRQCHIP_IMMUTABLE as usize,
        ..pin_init::zeroed()
    };

    /// Returns the `irq` of a `struct gpio_chip`, only for the `gc` of an [`Inner<T>`] that has an
    /// `irq`.
    pub(super) fn template() -> bindings::gpio_irq_chip {
        bindings::gpio_irq_chip {
            // CAST: C only reads it, as it is flagged as immutable.
            chip: ptr::from_ref(const { &Self::VTABLE }).cast_mut(),
            handler: Some(match T::HANDLER {
                FlowHandler::Level => bindings::handle_level_irq,
                FlowHandler::Edge => bindings::handle_edge_irq,
            }),
            default_type: bindings::IRQ_TYPE_NONE,
            ..pin_init::zeroed()
        }
    }

    /// Returns the chip, as C and Rust know it, and the offset of the line.
    ///
    /// # Safety
    ///
    /// - `data` must be that of a line of a chip within an `Inner<T>` with this table, from where
    ///   genirq has taken the callback.
    /// - The caller must be within that callback for `'a`.
    unsafe fn line<'a>(
        data: *mut bindings::irq_data,
    ) -> (*mut bindings::gpio_chip, &'a Inner<T>, u32) {
        // genirq calls with the descriptor's lock or the bus lock held. `irq_remove_chip()` removes
        // the table from the descriptor under the former, and waits for the users of the latter.
        // Only then are the number and the chip's data cleared, and does `gpiochip_remove()`, or
        // `gpiochip_add_data_with_key()` with an error, return.
        //
        // SAFETY: By the above, neither is changed during the callback.
        let (hwirq, gc) = unsafe { ((*data).hwirq, (*data).chip_data) };
        let gc = gc.cast::<bindings::gpio_chip>();
        // SAFETY: gpiolib has set the data to the `gc` of an `Inner<T>`, which by the above is
        // valid for `'a`.
        let inner = unsafe { &*Inner::<T>::from_gc(gc) };

        // CAST: Chips have less than 65536 lines.
        (gc, inner, hwirq as u32)
    }

    /// # Safety
    ///
    /// Only for genirq, as `struct irq_chip::irq_bus_lock`, with the data of a line of a chip that
    /// is within an `Inner<T>` with an `irq`.
    ///
    /// The other callbacks have the same requirements.
    unsafe extern "C" fn irq_bus_lock_callback(data: *mut bindings::irq_data) {
        // SAFETY: By the safety requirements of this callback.
        let (_, inner, offset) = unsafe { Self::line(data) };

        if cannot_sleep() {
            return;
        }
        if let Some(irq) = &inner.irq {
            irq.lock(offset);
        }
        inner.chip.irq_bus_lock(offset);
    }

    /// # Safety
    ///
    /// As for [`Self::irq_bus_lock_callback`].
    unsafe extern "C" fn irq_bus_sync_unlock_callback(data: *mut bindings::irq_data) {
        // SAFETY: By the safety requirements of this callback.
        let (_, inner, offset) = unsafe { Self::line(data) };

        if cannot_sleep() {
            return;
        }
        inner.chip.irq_bus_sync_unlock(offset);
        if let Some(irq) = &inner.irq {
            irq.unlock(offset);
        }
    }

    /// # Safety
    ///
    /// As for [`Self::irq_bus_lock_callback`].
    unsafe extern "C" fn irq_request_resources_callback(data: *mut bindings::irq_data) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        let (gc, inner, offset) = unsafe { Self::line(data) };

        from_result(|| {
            // SAFETY: `gc` is a registered chip, or one that is just being registered or removed.
            to_result(unsafe { bindings::gpiochip_reqres_irq(gc, offset) })?;
            inner
                .chip
                .irq_request_resources(offset)
                // SAFETY: As above, and `gpiochip_reqres_irq()` has succeeded.
                .inspect_err(|_| unsafe { bindings::gpiochip_relres_irq(gc, offset) })?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for [`Self::irq_bus_lock_callback`].
    unsafe extern "C" fn irq_release_resources_callback(data: *mut bindings::irq_data) {
        // SAFETY: By the safety requirements of this callback.
        let (gc, inner, offset) = unsafe { Self::line(data) };

        inner.chip.irq_release_resources(offset);
        // SAFETY: genirq releases what it has requested; the rest is as for the request.
        unsafe { bindings::gpiochip_relres_irq(gc, offset) };
    }

    /// # Safety
    ///
    /// As for [`Self::irq_bus_lock_callback`], with the descriptor's lock held and interrupts off.
    unsafe extern "C" fn irq_startup_callback(data: *mut bindings::irq_data) -> c_uint {
        // SAFETY: By the safety requirements of this callback.
        let (gc, inner, offset) = unsafe { Self::line(data) };

        // SAFETY: As for `irq_request_resources_callback()`.
        unsafe { bindings::gpiochip_enable_irq(gc, offset) };
        inner.chip.irq_startup(offset);
        0
    }

    /// # Safety
    ///
    /// As for [`Self::irq_startup_callback`].
    unsafe extern "C" fn irq_shutdown_callback(data: *mut bindings::irq_data) {
        // SAFETY: By the safety requirements of this callback.
        let (gc, inner, offset) = unsafe { Self::line(data) };

        inner.chip.irq_shutdown(offset);
        // SAFETY: As for `irq_request_resources_callback()`.
        unsafe { bindings::gpiochip_disable_irq(gc, offset) };
    }

    /// # Safety
    ///
    /// As for [`Self::irq_startup_callback`].
    unsafe extern "C" fn irq_ack_callback(data: *mut bindings::irq_data) {
        // SAFETY: By the safety requirements of this callback.
        let (_, inner, offset) = unsafe { Self::line(data) };

        inner.chip.irq_ack(offset);
    }

    /// # Safety
    ///
    /// As for [`Self::irq_startup_callback`].
    unsafe extern "C" fn irq_mask_callback(data: *mut bindings::irq_data) {
        // SAFETY: By the safety requirements of this callback.
        let (gc, inner, offset) = unsafe { Self::line(data) };

        inner.chip.irq_mask(offset);
        // SAFETY: As for `irq_request_resources_callback()`.
        unsafe { bindings::gpiochip_disable_irq(gc, offset) };
    }

    /// # Safety
    ///
    /// As for [`Self::irq_startup_callback`].
    unsafe extern "C" fn irq_unmask_callback(data: *mut bindings::irq_data) {
        // SAFETY: By the safety requirements of this callback.
        let (gc, inner, offset) = unsafe { Self::line(data) };

        // SAFETY: As for `irq_request_resources_callback()`.
        unsafe { bindings::gpiochip_enable_irq(gc, offset) };
        inner.chip.irq_unmask(offset);
    }

    /// # Safety
    ///
    /// As for [`Self::irq_startup_callback`].
    unsafe extern "C" fn irq_set_type_callback(
        data: *mut bindings::irq_data,
        trigger: c_uint,
    ) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        let (_, inner, offset) = unsafe { Self::line(data) };

        from_result(|| {
            let trigger = TriggerType::try_from(trigger)?;

            inner.chip.irq_set_type(offset, trigger)?;
            Ok(bindings::IRQ_SET_MASK_OK as c_int)
        })
    }

    /// # Safety
    ///
    /// As for [`Self::irq_startup_callback`].
    unsafe extern "C" fn irq_set_wake_callback(data: *mut bindings::irq_data, on: c_uint) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        let (_, inner, offset) = unsafe { Self::line(data) };

        inner.chip.irq_set_wake(offset, on != 0);
        0
    }

    /// # Safety
    ///
    /// As for [`Self::irq_startup_callback`]; besides, `seq` is a file that only the caller has.
    unsafe extern "C" fn irq_print_chip_callback(
        data: *mut bindings::irq_data,
        seq: *mut bindings::seq_file,
    ) {
        // SAFETY: By the safety requirements of this callback.
        let (gc, ..) = unsafe { Self::line(data) };
        // SAFETY: By the safety requirements of this callback.
        let seq = unsafe { SeqFile::from_raw(seq) };
        // SAFETY: The parent is set and stays valid as long as the chip is registered.
        let parent: &Device = unsafe { Device::from_raw((*gc).parent) };

        seq_print!(seq, "{}", parent.name());
    }
}

/// Returns whether the bus lock cannot be taken: genirq also calls `irq_bus_lock()` in
/// `disable_irq_nosync()`, which handlers may call.
///
/// The result does not change between the beginning and the end of an operation of genirq.
fn cannot_sleep() -> bool {
    // SAFETY: There are no safety requirements for these FFI calls.
    unsafe { bindings::in_interrupt() || bindings::irqs_disabled() }
}

/// The lock classes of one kind of chip, see [`lock_classes!`](crate::gpio::lock_classes).
///
/// The first is that of the descriptors' locks, the second that of the mutexes for requests.
pub struct LockClasses([Pin<&'static LockClassKey>; 2]);

impl LockClasses {
    #[doc(hidden)]
    pub const fn new(classes: [Pin<&'static LockClassKey>; 2]) -> Self {
        Self(classes)
    }

    pub(super) fn as_ptrs(&self) -> [*mut bindings::lock_class_key; 2] {
        self.0.map(|class| class.as_ptr())
    }
}

/// Creates lock classes for the interrupts of the chips that are registered from here.
///
/// A chip may use the lines of another one in its callbacks, as an expander behind an expander
/// does. Lockdep distinguishes their locks if the two are registered from different places.
#[doc(hidden)]
#[macro_export]
macro_rules! gpio_lock_classes {
    () => {
        $crate::gpio::LockClasses::new([$crate::static_lock_class!(), $crate::static_lock_class!()])
    };
}

/// The handle by which a driver raises the interrupts of its chip.
///
/// As a part of the driver's state it exists before the chip is registered and after it is removed.
/// [`Registration::with_irq`](super::Registration::with_irq) connects it to the chip's IRQ domain.
/// Dropping the registration disconnects it and waits for calls of [`Self::handle_irq`] in progress
/// before gpiolib frees the domain. So a driver may call it at any time.
///
/// # Invariants
///
/// `lines` is null, or points to an `IrqLines` that lives at least until an RCU grace period has
/// passed after the pointer was removed.
#[pin_data]
pub struct IrqDomain {
    lines: Atomic<*mut IrqLines>,
}

impl IrqDomain {
    /// Creates an initialiser that is not connected to a chip.
    #[inline]
    pub fn new() -> impl PinInit<Self> {
        // INVARIANT: Null is allowed.
        pin_init!(Self {
            lines: Atomic::new(ptr::null_mut()),
        })
    }

    /// Raises the interrupt of the line at `offset`, as `generic_handle_domain_irq_safe()` does:
    /// runs its flow handler, and so the handlers of its consumers, before it returns.
    ///
    /// While the chip is being registered, records the interrupt and raises it afterwards.
    ///
    /// # Context
    ///
    /// Any but NMI, with interrupts on or off. Handlers run with interrupts off, on this processor.
    /// The flow handler calls the callbacks of [`IrqChip`] that run under the descriptor's lock:
    /// the caller must not hold a lock that they or the handlers take, and they must not call this.
    ///
    /// # Errors
    ///
    /// - [`ENODEV`] if no chip is registered.
    /// - [`EINVAL`] if the chip has no such line, or its interrupt was never requested.
    pub fn handle_irq(&self, offset: u32) -> Result {
        let _guard = rcu::read_lock();
        let lines = self.lines.load(Acquire);

        if lines.is_null() {
            return Err(ENODEV);
        }
        // SAFETY: By the type invariant `lines` lives at least until the read-side critical section
        // ends.
        let lines = unsafe { &*lines };

        // SAFETY: `_guard` is dropped after the call.
        unsafe { lines.handle_irq(offset) }
    }
}

/// The state of a chip's interrupts.
///
/// # Invariants
///
/// - `_chip` keeps `slot` alive and at its address.
/// - `domain` is null, or the chip's IRQ domain, which lives until [`Self::withdraw`] has returned.
#[pin_data(PinnedDrop)]
pub(super) struct IrqLines {
    /// The driver's handle.
    slot: NonNull<IrqDomain>,
    _chip: Arc<dyn Send + Sync>,
    domain: Atomic<*mut bindings::irq_domain>,
    /// Lines whose interrupt was raised while there was no domain.
    #[pin]
    early: RawSpinLock<BitmapVec>,
    /// The bus lock of each line: a bit on which `wait_on_bit_lock()` waits.
    ///
    /// With one lock per chip a slow line would block all others, as genirq also takes it at the
    /// end of a threaded handler. Mutexes would take tens of bytes for each of up to 65535 lines.
    locks: BitmapVec,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: All fields are modified atomically or under a lock; the pointers are valid on every
// thread.
unsafe impl Send for IrqLines {}

// SAFETY: As above.
unsafe impl Sync for IrqLines {}

impl IrqLines {
    /// Creates the state of `lines` lines, and connects the [`IrqDomain`] of `chip` to it. May
    /// sleep.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if it is connected to another chip.
    /// - [`ENOMEM`] if an allocation fails.
    pub(super) fn new<T: IrqChip>(chip: &Arc<T>, lines: usize) -> Result<Pin<KBox<Self>>> {
        // SAFETY: The domain is borrowed from the chip.
        unsafe { Self::connect(chip.irq_domain(), chip.clone(), lines) }
    }

    /// The part of [`Self::new`] that is not generic: lockdep wants one name for the lock.
    ///
    /// # Safety
    ///
    /// `slot` must be valid as long as `chip` exists.
    unsafe fn connect(
        slot: &IrqDomain,
        chip: Arc<dyn Send + Sync>,
        lines: usize,
    ) -> Result<Pin<KBox<Self>>> {
        let early = BitmapVec::new(lines, GFP_KERNEL)?;
        let lines = KBox::pin_init(
            // INVARIANT: `chip` keeps `slot` valid, and there is no domain yet.
            try_pin_init!(Self {
                slot: NonNull::from(slot),
                _chip: chip,
                domain: Atomic::new(ptr::null_mut()),
                early <- new_raw_spinlock!(early),
                locks: BitmapVec::new(lines, GFP_KERNEL)?,
                _pin: PhantomPinned,
            }),
            GFP_KERNEL,
        )?;
        let new = ptr::from_ref(&*lines).cast_mut();

        // INVARIANT: Dropping the lines removes the pointer and waits for a grace period.
        match slot.lines.cmpxchg(ptr::null_mut(), new, Full) {
            Ok(_) => Ok(lines),
            Err(_) => Err(EBUSY),
        }
    }

    /// Disconnects the driver's handle, and waits for calls of [`IrqDomain::handle_irq`] in
    /// progress. Sleeps.
    pub(super) fn withdraw(&self) {
        // SAFETY: By the type invariant.
        let slot = unsafe { self.slot.as_ref() };
        let old = ptr::from_ref(self).cast_mut();

        // If `new()` failed with `EBUSY`, the slot is connected to other lines.
        if slot.lines.cmpxchg(old, ptr::null_mut(), Full).is_ok() {
            // SAFETY: There are no safety requirements for this FFI call.
            unsafe { bindings::synchronize_rcu() };
        }
    }

    /// Sets the domain, and raises the interrupts that were recorded before.
    ///
    /// # Safety
    ///
    /// `domain` must be the IRQ domain of the chip, and must not be freed before
    /// [`Self::withdraw`] has returned.
    pub(super) unsafe fn open(&self, domain: *mut bindings::irq_domain) {
        // INVARIANT: By the safety requirements.
        self.early.with(|_| self.domain.store(domain, Release));

        // No bits are set after this.
        let mut next = 0;
        while let Some(line) = self.early.with(|early| early.next_bit(next)) {
            // Fails for a line whose interrupt was never requested.
            //
            // SAFETY: By the safety requirements, as `withdraw()` was not called yet.
            let _ = unsafe { dispatch(domain, line as u32) };
            next = line + 1;
        }
    }

    /// See [`IrqDomain::handle_irq`].
    ///
    /// # Safety
    ///
    /// The caller must be in an RCU read-side critical section, within which it got `self` from an
    /// [`IrqDomain`].
    unsafe fn handle_irq(&self, line: u32) -> Result {
        let mut domain = self.domain.load(Acquire);

        if domain.is_null() {
            domain = self.early.with(|early| {
                let domain = self.domain.load(Relaxed);

                if (line as usize) >= early.len() {
                    return Err(EINVAL);
                }
                if domain.is_null() {
                    early.set_bit(line as usize);
                }
                Ok(domain)
            })?;
            if domain.is_null() {
                return Ok(());
            }
        }
        // SAFETY: By the type invariants it is the domain of the chip, which lives until
        // `withdraw()` has returned. That has not removed `self` from the `IrqDomain` before the
        // critical section of the caller began, and so waits for its end.
        unsafe { dispatch(domain, line) }
    }

    /// Takes the bus lock of a line.
    ///
    /// Sleeps uninterruptibly: genirq cannot fail its operation here.
    fn lock(&self, line: u32) {
        // SAFETY: `line` is within the bitmap, which has a bit for each line of the chip and lives,
        // at its address, as long as `self`. There are only atomic accesses to it, by C, as in
        // `Bitmap::set_bit_atomic()`.
        unsafe {
            bindings::wait_on_bit_lock(
                self.locks.as_ptr().cast_mut(),
                line as c_int,
                bindings::TASK_UNINTERRUPTIBLE,
            )
        };
    }

    /// Releases the bus lock of a line, and wakes a waiter.
    fn unlock(&self, line: u32) {
        // SAFETY: As in `lock()`.
        unsafe { bindings::clear_and_wake_up_bit(line as c_int, self.locks.as_ptr().cast_mut()) };
    }
}

#[pinned_drop]
impl PinnedDrop for IrqLines {
    fn drop(self: Pin<&mut Self>) {
        // Not yet done if the registration failed.
        self.withdraw();
    }
}

/// Runs the flow handler of a line.
///
/// # Safety
///
/// `domain` must be an IRQ domain that is not freed during the call.
unsafe fn dispatch(domain: *mut bindings::irq_domain, line: u32) -> Result {
    // SAFETY: By the safety requirements of this function.
    to_result(unsafe { bindings::generic_handle_domain_irq_safe(domain, line as usize) })
}
