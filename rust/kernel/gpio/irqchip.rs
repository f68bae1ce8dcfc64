// SPDX-License-Identifier: GPL-2.0

//! Interrupts of a GPIO controller's lines.
//!
//! C headers:
//! - [`include/linux/irq.h`](srctree/include/linux/irq.h)
//! - [`include/linux/irqdomain.h`](srctree/include/linux/irqdomain.h)
//! - [`include/linux/gpio/driver.h`](srctree/include/linux/gpio/driver.h)

use super::driver::{
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

/// How genirq handles the interrupts of a chip's lines: its *flow handler*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowHandler {
    /// `handle_level_irq()`: masks the line, acknowledges the interrupt, runs the handlers, and
    /// unmasks the line again, or leaves that to the end of a threaded handler (`IRQF_ONESHOT`).
    Level,

    /// `handle_edge_irq()`: acknowledges the interrupt and runs the handlers. An interrupt that is
    /// raised meanwhile masks the line, and the handlers run once more.
    Edge,

    /// `handle_simple_irq()`: runs the handlers, and leaves the line alone.
    Simple,
}

/// The interrupt side of a GPIO controller: the callbacks of `struct irq_chip`.
///
/// Made for controllers behind a slow bus, where telling the hardware means to sleep, which genirq
/// allows in some callbacks only. The usual split is:
///
/// - The callbacks under the descriptor's lock note in the driver's memory what is wanted.
/// - [`IrqChip::irq_bus_sync_unlock`], which may sleep, compares that with what the hardware was
///   told last, and makes up the difference.
///
/// All lines of a chip have the same flow handler, [`IrqChip::HANDLER`].
///
/// # Starting and enabling
///
/// [`IrqChip::irq_startup`] and [`IrqChip::irq_shutdown`] enclose the use of an interrupt, from its
/// request until it is freed; both also mean unmask and mask. [`IrqChip::irq_mask`] and
/// [`IrqChip::irq_unmask`] come any number of times in between.
///
/// There is deliberately no callback for `disable_irq()`, which makes it lazy: the line stays
/// unmasked, and only if an interrupt comes is it masked, remembered as pending, and raised once
/// more when the line is enabled again. So edges between `disable_irq()` and `enable_irq()` are not
/// lost, and a pair of them costs nothing. (Raising it once more takes `CONFIG_HARDIRQS_SW_RESEND`,
/// which most architectures have; a driver may select it.)
///
/// # Locking
///
/// The *bus lock* of a line is held over whole operations of genirq: the request of an interrupt,
/// with its change of trigger and its start, is one. It is a lock of each line, provided by this
/// abstraction: as long as [`IrqChip::irq_bus_sync_unlock`] of a line waits for the hardware, the
/// interrupts of the other ones go on. What several lines share needs a lock of the driver's own. A
/// chip with neither [`IrqChip::irq_bus_lock`] nor [`IrqChip::irq_bus_sync_unlock`] has no such
/// lock: its interrupts can be enabled in atomic context, too.
///
/// The *descriptor's lock* is a raw spinlock with interrupts off, within the bus lock if that is
/// held. It is held in interrupts, too. Callbacks under it must not sleep, and take raw spinlocks
/// only.
///
/// In handlers, also in those that are forced into a thread, and wherever else bottom halves or
/// interrupts are off, genirq's operations go without the bus lock, and
/// [`IrqChip::irq_bus_sync_unlock`] is not called. `disable_irq_nosync()`, the one
/// operation that consumers are allowed there, then only notes something in genirq, because it is
/// lazy. If a consumer has turned that off (`IRQ_DISABLE_UNLAZY`), it calls [`IrqChip::irq_mask`],
/// which therefore must be effective by itself. A consumer that does what is not allowed
/// (`enable_irq()` in a handler) gets what the callbacks under the descriptor's lock do, and the
/// rest with the next operation on the line.
///
/// # Removal
///
/// When the registration is dropped, interrupts still in use are freed, with all callbacks that go
/// with it. Operations in progress, those that wait for a bus lock included, run to their end, and
/// later ones do not find the chip. No callback runs after that.
///
/// # Examples
///
/// A controller that is told of changes over a slow bus, as far as its interrupts are concerned:
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
///     /// Those whose rising edges are wanted.
///     wanted: u32,
///     /// Those that may raise interrupts now.
///     unmasked: u32,
/// }
///
/// #[pin_data]
/// struct Expander {
///     #[pin]
///     domain: IrqDomain,
///     #[pin]
///     lines: RawSpinLock<Lines>,
///     /// The lines whose rising edges the hardware detects. Other lines have other bus locks.
///     #[pin]
///     enabled: Mutex<u32>,
/// }
///
/// impl Expander {
///     /// Tells the hardware; sleeps.
///     fn write_enable_register(&self, lines: u32) {
///         pr_debug!("edges are detected on {lines:#x}\n");
///     }
///
///     /// To be called for what the hardware has detected, from its own interrupt for example.
///     fn handle(&self, detected: u32) {
///         let due = detected & self.lines.with(|lines| lines.unmasked);
///
///         for line in (0..32).filter(|line| due & 1 << line != 0) {
///             // Fails if nobody wants the line any more.
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

    /// Where the driver keeps the chip's [`IrqDomain`]. Always the same one.
    ///
    /// It is asked for once, at registration.
    fn irq_domain(&self) -> &IrqDomain;

    /// Prepares a line to be used as interrupt: the place for all that can fail, as the consumer's
    /// `request_irq()` fails with the error.
    ///
    /// gpiolib has marked the line as used as interrupt before, which fails for outputs, and the
    /// mark is taken back if this fails. A line that the consumer has not requested as GPIO, too,
    /// may be no input yet.
    ///
    /// Runs with the bus lock held; may sleep.
    fn irq_request_resources(&self, _offset: u32) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Undoes [`IrqChip::irq_request_resources`].
    ///
    /// Runs with the bus lock held; may sleep. As for [`Chip::free`], the wait for hardware must be
    /// bounded.
    fn irq_release_resources(&self, _offset: u32) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Starts the use of an interrupt, and unmasks it.
    ///
    /// Without it, [`IrqChip::irq_unmask`] does both. Runs under the descriptor's lock.
    fn irq_startup(&self, _offset: u32) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Ends the use of an interrupt, and masks it.
    ///
    /// Without it, genirq leaves an interrupt that is freed to [`IrqChip::irq_mask`]. Runs under
    /// the descriptor's lock.
    fn irq_shutdown(&self, _offset: u32) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Lets a line raise no interrupts for now.
    ///
    /// Runs under the descriptor's lock, often in the middle of [`IrqDomain::handle_irq`].
    fn irq_mask(&self, offset: u32);

    /// Lets a line raise interrupts again.
    ///
    /// Runs under the descriptor's lock, often in the middle of [`IrqDomain::handle_irq`].
    fn irq_unmask(&self, offset: u32);

    /// Acknowledges an interrupt: the controller may detect the next one.
    ///
    /// Runs under the descriptor's lock, in the middle of [`IrqDomain::handle_irq`].
    fn irq_ack(&self, _offset: u32) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets what a line is to react to; [`TriggerType::None`] is possible.
    ///
    /// Runs under the descriptor's lock.
    ///
    /// # Errors
    ///
    /// Those that the chip gives for a trigger that it does not have, [`EINVAL`] as a rule. The
    /// consumer's operation fails with it.
    fn irq_set_type(&self, offset: u32, trigger: TriggerType) -> Result;

    /// Notes that an operation of genirq on a line begins, and that
    /// [`IrqChip::irq_bus_sync_unlock`] is called at its end.
    ///
    /// The lock itself is up to the abstraction. Runs with the bus lock held, which was taken right
    /// before; may sleep.
    fn irq_bus_lock(&self, _offset: u32) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Brings the hardware up to date with what the callbacks under the descriptor's lock were
    /// told.
    ///
    /// Runs with the bus lock held, which is released right after; may sleep. Also called when
    /// there is nothing to do, at the end of each threaded handler for example: that must be cheap.
    ///
    /// genirq does not learn of failures.
    fn irq_bus_sync_unlock(&self, _offset: u32) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The callbacks of `struct irq_chip` for a `T`.
pub(super) struct IrqChipVTable<T: IrqChip>(PhantomData<T>);

impl<T: IrqChip> IrqChipVTable<T> {
    const HAS_BUS: bool = T::HAS_IRQ_BUS_LOCK || T::HAS_IRQ_BUS_SYNC_UNLOCK;

    const VTABLE: bindings::irq_chip = bindings::irq_chip {
        // What genirq calls the chip in its messages, where it has no more than a fixed name. What
        // /proc/interrupts shows comes from `irq_print_chip`.
        name: crate::str::as_char_ptr_in_const_context(c"gpio"),
        irq_bus_lock: if Self::HAS_BUS {
            Some(Self::irq_bus_lock_callback)
        } else {
            None
        },
        irq_bus_sync_unlock: if Self::HAS_BUS {
            Some(Self::irq_bus_sync_unlock_callback)
        } else {
            None
        },
        irq_request_resources: Some(Self::irq_request_resources_callback),
        irq_release_resources: Some(Self::irq_release_resources_callback),
        irq_startup: if T::HAS_IRQ_STARTUP {
            Some(Self::irq_startup_callback)
        } else {
            None
        },
        irq_shutdown: if T::HAS_IRQ_SHUTDOWN {
            Some(Self::irq_shutdown_callback)
        } else {
            None
        },
        // `handle_edge_irq()` calls it without a look.
        irq_ack: if T::HAS_IRQ_ACK || matches!(T::HANDLER, FlowHandler::Edge) {
            Some(Self::irq_ack_callback)
        } else {
            None
        },
        irq_mask: Some(Self::irq_mask_callback),
        irq_unmask: Some(Self::irq_unmask_callback),
        irq_set_type: Some(Self::irq_set_type_callback),
        irq_print_chip: Some(Self::irq_print_chip_callback),
        // Waking the system up is a matter of whatever carries the controller's own interrupt,
        // there is nothing to tell the lines.
        flags: (bindings::IRQCHIP_IMMUTABLE | bindings::IRQCHIP_SKIP_SET_WAKE) as usize,
        ..pin_init::zeroed()
    };

    /// What `irq` of a `struct gpio_chip` has to be. It is only to be used in an [`Inner<T>`] that
    /// has an `irq`.
    pub(super) fn template() -> bindings::gpio_irq_chip {
        bindings::gpio_irq_chip {
            // C only reads it, because it is flagged as immutable.
            chip: ptr::from_ref(const { &Self::VTABLE }).cast_mut(),
            handler: Some(match T::HANDLER {
                FlowHandler::Level => bindings::handle_level_irq,
                FlowHandler::Edge => bindings::handle_edge_irq,
                FlowHandler::Simple => bindings::handle_simple_irq,
            }),
            default_type: bindings::IRQ_TYPE_NONE,
            ..pin_init::zeroed()
        }
    }

    /// Returns what a callback is about: the chip, as C and Rust know it, and the line.
    ///
    /// # Safety
    ///
    /// - `data` must be that of a line of a chip within an `Inner<T>` with this table, from where
    ///   genirq has taken the callback.
    /// - The caller must be within that callback for `'a`.
    unsafe fn line<'a>(
        data: *mut bindings::irq_data,
    ) -> (*mut bindings::gpio_chip, &'a Inner<T>, u32) {
        // genirq calls with the descriptor's lock or the bus lock. `irq_remove_chip()` takes the
        // table from the descriptor under the former, and waits for the users of the latter. Only
        // then the number and the chip's data are cleared, and `gpiochip_remove()`, or
        // `gpiochip_add_data_with_key()` with an error, returns.
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
    /// To be called by genirq as `struct irq_chip::irq_bus_lock`, with the data of a line of a chip
    /// that is within an `Inner<T>` with an `irq`.
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
        if T::HAS_IRQ_BUS_LOCK {
            inner.chip.irq_bus_lock(offset);
        }
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
        if T::HAS_IRQ_BUS_SYNC_UNLOCK {
            inner.chip.irq_bus_sync_unlock(offset);
        }
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
            if T::HAS_IRQ_REQUEST_RESOURCES {
                inner
                    .chip
                    .irq_request_resources(offset)
                    // SAFETY: As above, and `gpiochip_reqres_irq()` has succeeded.
                    .inspect_err(|_| unsafe { bindings::gpiochip_relres_irq(gc, offset) })?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for [`Self::irq_bus_lock_callback`].
    unsafe extern "C" fn irq_release_resources_callback(data: *mut bindings::irq_data) {
        // SAFETY: By the safety requirements of this callback.
        let (gc, inner, offset) = unsafe { Self::line(data) };

        if T::HAS_IRQ_RELEASE_RESOURCES {
            inner.chip.irq_release_resources(offset);
        }
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

        if T::HAS_IRQ_ACK {
            inner.chip.irq_ack(offset);
        }
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
            inner
                .chip
                .irq_set_type(offset, TriggerType::try_from(trigger)?)?;
            Ok(bindings::IRQ_SET_MASK_OK as c_int)
        })
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

/// Whether the bus lock is out of question: genirq takes it in `disable_irq_nosync()`, too, which
/// handlers may call.
///
/// Gives the same answer when an operation of genirq begins and when it ends.
fn cannot_sleep() -> bool {
    // SAFETY: There are no safety requirements for this FFI call.
    (unsafe { bindings::in_interrupt() })
        // SAFETY: As above.
        || (unsafe { bindings::irqs_disabled() })
}

/// The lock classes of one kind of chip, see [`lock_classes!`](crate::gpio::lock_classes).
pub struct LockClasses {
    /// Of the descriptors' locks.
    lock: Pin<&'static LockClassKey>,
    /// Of the mutexes for requests.
    request: Pin<&'static LockClassKey>,
}

impl LockClasses {
    #[doc(hidden)]
    pub const fn new(
        lock: Pin<&'static LockClassKey>,
        request: Pin<&'static LockClassKey>,
    ) -> Self {
        Self { lock, request }
    }

    pub(super) fn as_ptrs(&self) -> [*mut bindings::lock_class_key; 2] {
        [self.lock.as_ptr(), self.request.as_ptr()]
    }
}

/// Makes lock classes for the interrupts of the chips that are registered from here.
///
/// A chip may use the interrupts and lines of another one from its callbacks, as an expander does
/// that is connected to another one. Lockdep tells their locks apart if the two are registered from
/// different places.
#[doc(hidden)]
#[macro_export]
macro_rules! gpio_lock_classes {
    () => {
        $crate::gpio::LockClasses::new(
            $crate::static_lock_class!(),
            $crate::static_lock_class!(),
        )
    };
}

/// The interrupts of a chip's lines, as seen from the driver that raises them.
///
/// It is part of the driver's own state, thus is there before the chip is registered and after it
/// is gone, when a device may raise interrupts as well. In between it knows the chip's IRQ domain:
/// [`Registration::with_irq`](super::Registration::with_irq) puts it in, and dropping the
/// registration takes it out and waits for calls of [`Self::handle_irq`] in progress, before
/// gpiolib frees the domain. Hence a driver needs no ordering of its own between the two.
///
/// # Invariants
///
/// `lines` is null, or points to an `IrqLines` that stays alive at least until an RCU grace
/// period has passed after the pointer was taken out.
#[pin_data]
pub struct IrqDomain {
    lines: Atomic<*mut IrqLines>,
}

impl IrqDomain {
    /// Creates one without a chip.
    #[inline]
    pub fn new() -> impl PinInit<Self> {
        // INVARIANT: Null is allowed.
        pin_init!(Self {
            lines: Atomic::new(ptr::null_mut()),
        })
    }

    /// Raises the interrupt of the line at `offset`: runs its flow handler, and thereby the
    /// handlers of its consumers, before it returns.
    ///
    /// An interrupt that is raised while the chip is still being registered, when the first
    /// consumers are already there, is raised once that is done; it is not lost.
    ///
    /// # Context
    ///
    /// Any but NMI, with interrupts on or off. Handlers run with interrupts off, on this processor.
    /// The flow handler calls the callbacks of [`IrqChip`] that run under the descriptor's lock,
    /// thus none of the locks that they or the handlers take may be held, and those callbacks must
    /// not call it.
    ///
    /// # Errors
    ///
    /// - [`ENODEV`] if no chip is registered, not yet or not any more.
    /// - [`EINVAL`] if the chip has no such line, or nobody has ever asked for its interrupt.
    ///
    /// Follows `generic_handle_domain_irq_safe()`.
    pub fn handle_irq(&self, offset: u32) -> Result {
        let _guard = rcu::read_lock();
        let lines = self.lines.load(Acquire);

        if lines.is_null() {
            return Err(ENODEV);
        }
        // SAFETY: By the type invariant, `lines` was alive when it was read, and stays so until the
        // read-side critical section ends.
        unsafe { &*lines }.handle_irq(offset)
    }
}

/// What a chip with interrupts needs besides the driver's own state.
///
/// # Invariants
///
/// - `slot` is valid as long as the value lives.
/// - `domain` is null, or the chip's IRQ domain, which lives until [`Self::withdraw`] has returned.
#[pin_data(PinnedDrop)]
pub(super) struct IrqLines {
    /// Where the driver finds the lines.
    slot: NonNull<IrqDomain>,
    domain: Atomic<*mut bindings::irq_domain>,
    /// Lines whose interrupt was raised before there was a domain.
    #[pin]
    early: RawSpinLock<BitmapVec>,
    /// The bus lock of each line, as a bit on which `wait_on_bit_lock()` waits.
    ///
    /// A lock of the chip would let a line whose other side is slow stall all others: genirq takes
    /// it at the end of a threaded handler, too. Mutexes would cost tens of bytes for each line, of
    /// which a chip may have 65535.
    locks: BitmapVec,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: All that is changed is changed atomically or under a lock; the pointers are valid on
// every thread.
unsafe impl Send for IrqLines {}

// SAFETY: As above.
unsafe impl Sync for IrqLines {}

impl IrqLines {
    /// Creates the state of that many lines, and puts it into `slot`. May sleep.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if the lines of another chip are in `slot`.
    /// - [`ENOMEM`] if there is no memory.
    ///
    /// # Safety
    ///
    /// `slot` must stay valid for as long as the returned value lives.
    pub(super) unsafe fn new(slot: &IrqDomain, lines: usize) -> Result<Pin<KBox<Self>>> {
        let early = BitmapVec::new(lines, GFP_KERNEL)?;
        let lines = KBox::pin_init(
            // INVARIANT: `slot` is valid by the safety requirements, and there is no domain yet.
            try_pin_init!(Self {
                slot: NonNull::from(slot),
                domain: Atomic::new(ptr::null_mut()),
                early <- new_raw_spinlock!(early),
                locks: BitmapVec::new(lines, GFP_KERNEL)?,
                _pin: PhantomPinned,
            }),
            GFP_KERNEL,
        )?;
        let new = ptr::from_ref(&*lines).cast_mut();

        // INVARIANT: Dropping the lines takes them out, and waits for a grace period.
        match slot.lines.cmpxchg(ptr::null_mut(), new, Full) {
            Ok(_) => Ok(lines),
            Err(_) => Err(EBUSY),
        }
    }

    /// Takes the lines out of the driver's hands, and waits for interrupts that are just being
    /// raised. Sleeps.
    pub(super) fn withdraw(&self) {
        // SAFETY: By the type invariant.
        let slot = unsafe { self.slot.as_ref() };
        let old = ptr::from_ref(self).cast_mut();

        // Other lines may be in the slot, when `new()` has found it taken.
        if slot.lines.cmpxchg(old, ptr::null_mut(), Full).is_ok() {
            // SAFETY: There are no safety requirements for this FFI call.
            unsafe { bindings::synchronize_rcu() };
        }
    }

    /// Raises the interrupts of the lines from now on, and those that came too early for it.
    ///
    /// # Safety
    ///
    /// `domain` must be the IRQ domain of the chip, and must not be freed before
    /// [`Self::withdraw`] has returned.
    pub(super) unsafe fn open(&self, domain: *mut bindings::irq_domain) {
        // INVARIANT: By the safety requirements.
        self.early.with(|_| self.domain.store(domain, Release));

        // There are no new ones.
        let mut next = 0;
        while let Some(line) = self.early.with(|early| early.next_bit(next)) {
            // A line whose interrupt no consumer wants is no reason to complain.
            let _ = dispatch(domain, line as u32);
            next = line + 1;
        }
    }

    /// See [`IrqDomain::handle_irq`]; to be called under RCU.
    fn handle_irq(&self, line: u32) -> Result {
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
        dispatch(domain, line)
    }

    /// Takes the bus lock of a line.
    ///
    /// Sleeps, uninterruptibly: genirq has no way to tell its callers that they were interrupted.
    fn lock(&self, line: u32) {
        // SAFETY: `line` is one of the chip, thus of the bitmap, which lives as long as `self`. All
        // other accesses of the bitmap are atomic.
        unsafe {
            bindings::wait_on_bit_lock(
                self.locks.as_ptr().cast_mut(),
                line as c_int,
                bindings::TASK_UNINTERRUPTIBLE,
            )
        };
    }

    /// Releases the bus lock of a line, and wakes the first one that waits for it.
    fn unlock(&self, line: u32) {
        // SAFETY: As in `lock()`.
        unsafe {
            bindings::clear_and_wake_up_bit(line as c_int, self.locks.as_ptr().cast_mut())
        };
    }
}

#[pinned_drop]
impl PinnedDrop for IrqLines {
    fn drop(self: Pin<&mut Self>) {
        // When the chip could not be registered, this was not done yet.
        self.withdraw();
    }
}

/// Runs the flow handler of a line.
fn dispatch(domain: *mut bindings::irq_domain, line: u32) -> Result {
    // SAFETY: `domain` is the chip's, by the type invariant of `IrqLines`, from where the callers
    // have it; it is not freed while they run.
    to_result(unsafe { bindings::generic_handle_domain_irq_safe(domain, line as usize) })
}
