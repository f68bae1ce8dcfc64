// SPDX-License-Identifier: GPL-2.0

//! The interrupt side of a GPIO controller, and how genirq gets at it.
//!
//! C headers:
//! - [`include/linux/irq.h`](srctree/include/linux/irq.h)
//! - [`include/linux/gpio/driver.h`](srctree/include/linux/gpio/driver.h)

use super::{
    chip::Chip,
    irq_domain::IrqDomain,
    irq_lines::{
        IrqLines,
        User, //
    },
    registration::Inner, //
};
use crate::{
    bindings,
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
            Relaxed, //
        },
        rcu, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

/// The interrupt side of a GPIO controller: the callbacks of `struct irq_chip`.
///
/// Made for controllers behind a slow bus, where telling the hardware means to sleep, which genirq
/// allows in some callbacks only. The usual split is:
///
/// - The callbacks under the descriptor's lock note in the driver's memory what is wanted.
/// - [`IrqChip::irq_bus_sync_unlock`], which may sleep, compares that with what the hardware was
///   told last, and makes up the difference.
///
/// All lines use `handle_level_irq()` as flow handler: it masks the line, runs the handlers of the
/// consumers, and unmasks the line again, or leaves that to the end of a threaded handler
/// (`IRQF_ONESHOT`).
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
/// interrupts of the other ones go on. What several lines share needs a lock of the driver's own.
///
/// The *descriptor's lock* is a raw spinlock with interrupts off, within the bus lock if that is
/// held. It is held in interrupts, too. Callbacks under it must not sleep, and take raw spinlocks
/// only.
///
/// Where sleeping is impossible (in interrupts, softirqs, with bottom halves off as in handlers
/// that are forced into a thread, or with interrupts off) genirq's operations go without the bus
/// lock, and [`IrqChip::irq_bus_sync_unlock`] is not called. `disable_irq_nosync()`, the one
/// operation that consumers are allowed there, then only notes something in genirq, because it is
/// lazy. If a consumer has turned that off (`IRQ_DISABLE_UNLAZY`), it calls [`IrqChip::irq_mask`],
/// which therefore must be effective by itself. A consumer that does what is not allowed
/// (`enable_irq()` in a handler) gets what the callbacks under the descriptor's lock do, and the
/// rest with the next operation on the line.
///
/// # Removal
///
/// When the registration is dropped, interrupts still in use are freed, with all callbacks that go
/// with it. No callback runs after that.
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
///     )
/// }
/// ```
#[vtable]
pub trait IrqChip: Chip {
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
    /// [`IrqChip::irq_bus_sync_unlock`] is called at its end. (Only if the chip goes away in
    /// between it is not.)
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

/// The `struct irq_chip` of a `T`.
pub(super) struct IrqChipVTable<T: IrqChip>(PhantomData<T>);

/// What a callback of genirq is about.
struct Line<'a, T: IrqChip> {
    gc: *mut bindings::gpio_chip,
    chip: &'a T,
    lines: NonNull<IrqLines>,
    offset: u32,
}

impl<T: IrqChip> IrqChipVTable<T> {
    const VTABLE: bindings::irq_chip = bindings::irq_chip {
        // What genirq calls the chip in its messages, where it has no more than a fixed name. What
        // /proc/interrupts shows comes from `irq_print_chip`.
        name: crate::str::as_char_ptr_in_const_context(c"gpio"),
        irq_bus_lock: Some(Self::irq_bus_lock_callback),
        irq_bus_sync_unlock: Some(Self::irq_bus_sync_unlock_callback),
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
        irq_mask: Some(Self::irq_mask_callback),
        irq_unmask: Some(Self::irq_unmask_callback),
        irq_set_type: Some(Self::irq_set_type_callback),
        irq_print_chip: Some(Self::irq_print_chip_callback),
        // Waking the system up is a matter of whatever carries the controller's own interrupt,
        // there is nothing to tell the lines.
        flags: (bindings::IRQCHIP_IMMUTABLE | bindings::IRQCHIP_SKIP_SET_WAKE) as usize,
        ..pin_init::zeroed()
    };

    /// The table, which is only to be used in the `gc` of an [`Inner<T>`] that has lines.
    pub(super) const fn build() -> &'static bindings::irq_chip {
        &Self::VTABLE
    }

    /// Finds out which line a callback is about, [`None`] if gpiolib has just taken it from the
    /// chip.
    ///
    /// # Safety
    ///
    /// - `data` must be valid, and be, or have been when genirq made the call, that of a line of a
    ///   chip within an `Inner<T>` with this table.
    /// - The caller must be within an RCU read-side critical section, or have interrupts off, for
    ///   `'a`.
    unsafe fn line<'a>(data: *mut bindings::irq_data) -> Option<Line<'a, T>> {
        // SAFETY: `data` is valid, and others access it under the descriptor's lock.
        let hwirq = unsafe { Atomic::from_ptr(&raw mut (*data).hwirq) };
        // SAFETY: As above.
        let chip_data = unsafe { Atomic::from_ptr(&raw mut (*data).chip_data) };

        // In this order: the number is cleared after the pointer is.
        let offset = u32::try_from(hwirq.load(Acquire)).ok()?;
        let gc = chip_data.load(Relaxed).cast::<bindings::gpio_chip>();
        if gc.is_null() {
            return None;
        }

        // SAFETY: gpiolib sets the chip's data to the `gc` of the `Inner<T>`, and clears it before
        // `gpiochip_remove()` returns, or `gpiochip_add_data_with_key()` does with an error.
        // Dropping the lines then waits for RCU, and comes before all else of the `Inner<T>` is
        // dropped.
        let parts = unsafe { &(*Inner::<T>::from_gc(gc)).parts };

        Some(Line {
            gc,
            chip: &parts.chip,
            lines: NonNull::from(parts.lines.as_deref()?),
            offset,
        })
    }

    /// As [`Self::line`], for callbacks that may sleep: keeps the chip alive until the second value
    /// is dropped.
    ///
    /// # Safety
    ///
    /// - As for [`Self::line`], except that the caller need not do anything about RCU.
    /// - The second value must be dropped after the last use of the first one, and before the
    ///   callback returns.
    unsafe fn enter<'a>(data: *mut bindings::irq_data) -> Option<(Line<'a, T>, User<'a>)> {
        let _guard = rcu::read_lock();
        // SAFETY: By the safety requirements, and as `_guard` is held. `'a` may be longer than
        // that, because the lines, and with them the rest of `Inner<T>`, wait for the `User`.
        let line = unsafe { Self::line(data)? };
        // SAFETY: `line.lines` was found within this read-side critical section; the rest is by the
        // safety requirements.
        let user = unsafe { IrqLines::enter(line.lines) };

        Some((line, user))
    }

    /// # Safety
    ///
    /// To be called by genirq as `struct irq_chip::irq_bus_lock`, with the data of a line of a chip
    /// that is within an `Inner<T>` with lines.
    ///
    /// The other callbacks have the same requirements.
    unsafe extern "C" fn irq_bus_lock_callback(data: *mut bindings::irq_data) {
        if cannot_sleep() {
            return;
        }
        // SAFETY: By the safety requirements of this callback; `user` is dropped last.
        let Some((line, user)) = (unsafe { Self::enter(data) }) else {
            return;
        };

        if user.lines().locks.lock(line.offset) && T::HAS_IRQ_BUS_LOCK {
            line.chip.irq_bus_lock(line.offset);
        }
    }

    /// # Safety
    ///
    /// As for [`Self::irq_bus_lock_callback`].
    unsafe extern "C" fn irq_bus_sync_unlock_callback(data: *mut bindings::irq_data) {
        if cannot_sleep() {
            return;
        }
        // SAFETY: By the safety requirements of this callback; `user` is dropped last.
        let Some((line, user)) = (unsafe { Self::enter(data) }) else {
            return;
        };

        if T::HAS_IRQ_BUS_SYNC_UNLOCK {
            line.chip.irq_bus_sync_unlock(line.offset);
        }
        user.lines().locks.unlock(line.offset);
    }

    /// # Safety
    ///
    /// As for [`Self::irq_bus_lock_callback`].
    unsafe extern "C" fn irq_request_resources_callback(data: *mut bindings::irq_data) -> c_int {
        from_result(|| {
            // SAFETY: By the safety requirements of this callback; `user` is dropped last.
            let (line, user) = unsafe { Self::enter(data) }.ok_or(ENODEV)?;

            if user.lines().is_closing() {
                return Err(ENODEV);
            }
            // SAFETY: `line.gc` is a registered chip, or one that is just being registered, and
            // stays valid with its `gpiodev` as long as `user` lives.
            to_result(unsafe { bindings::gpiochip_reqres_irq(line.gc, line.offset) })?;
            if T::HAS_IRQ_REQUEST_RESOURCES {
                line.chip
                    .irq_request_resources(line.offset)
                    // SAFETY: As above, and `gpiochip_reqres_irq()` has succeeded.
                    .inspect_err(|_| unsafe {
                        bindings::gpiochip_relres_irq(line.gc, line.offset)
                    })?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for [`Self::irq_bus_lock_callback`].
    unsafe extern "C" fn irq_release_resources_callback(data: *mut bindings::irq_data) {
        // SAFETY: By the safety requirements of this callback; `_user` is dropped last.
        let Some((line, _user)) = (unsafe { Self::enter(data) }) else {
            return;
        };

        if T::HAS_IRQ_RELEASE_RESOURCES {
            line.chip.irq_release_resources(line.offset);
        }
        // SAFETY: genirq releases what it has requested; the rest is as for the request.
        unsafe { bindings::gpiochip_relres_irq(line.gc, line.offset) };
    }

    /// # Safety
    ///
    /// As for [`Self::irq_bus_lock_callback`], with the descriptor's lock held and interrupts off.
    unsafe extern "C" fn irq_startup_callback(data: *mut bindings::irq_data) -> c_uint {
        // SAFETY: By the safety requirements of this callback.
        if let Some(line) = unsafe { Self::line(data) } {
            // SAFETY: As for `irq_unmask_callback()`.
            unsafe { bindings::gpiochip_enable_irq(line.gc, line.offset) };
            line.chip.irq_startup(line.offset);
        }
        0
    }

    /// # Safety
    ///
    /// As for [`Self::irq_startup_callback`].
    unsafe extern "C" fn irq_shutdown_callback(data: *mut bindings::irq_data) {
        // SAFETY: By the safety requirements of this callback.
        let Some(line) = (unsafe { Self::line(data) }) else {
            return;
        };

        line.chip.irq_shutdown(line.offset);
        // SAFETY: As for `irq_unmask_callback()`.
        unsafe { bindings::gpiochip_disable_irq(line.gc, line.offset) };
    }

    /// # Safety
    ///
    /// As for [`Self::irq_startup_callback`].
    unsafe extern "C" fn irq_mask_callback(data: *mut bindings::irq_data) {
        // SAFETY: By the safety requirements of this callback.
        let Some(line) = (unsafe { Self::line(data) }) else {
            return;
        };

        line.chip.irq_mask(line.offset);
        // SAFETY: As for `irq_unmask_callback()`.
        unsafe { bindings::gpiochip_disable_irq(line.gc, line.offset) };
    }

    /// # Safety
    ///
    /// As for [`Self::irq_startup_callback`].
    unsafe extern "C" fn irq_unmask_callback(data: *mut bindings::irq_data) {
        // SAFETY: By the safety requirements of this callback.
        let Some(line) = (unsafe { Self::line(data) }) else {
            return;
        };

        // SAFETY: `line.gc` stays valid, with its `gpiodev`, as long as interrupts are off.
        unsafe { bindings::gpiochip_enable_irq(line.gc, line.offset) };
        line.chip.irq_unmask(line.offset);
    }

    /// # Safety
    ///
    /// As for [`Self::irq_startup_callback`].
    unsafe extern "C" fn irq_set_type_callback(
        data: *mut bindings::irq_data,
        trigger: c_uint,
    ) -> c_int {
        from_result(|| {
            let trigger = TriggerType::try_from(trigger)?;
            // SAFETY: By the safety requirements of this callback.
            let line = unsafe { Self::line(data) }.ok_or(ENODEV)?;

            line.chip.irq_set_type(line.offset, trigger)?;
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
        let Some(line) = (unsafe { Self::line(data) }) else {
            return;
        };
        // SAFETY: By the safety requirements of this callback.
        let seq = unsafe { SeqFile::from_raw(seq) };
        // SAFETY: `line.gc` stays valid as long as interrupts are off, and its parent is set and
        // stays valid as long as the chip is registered.
        let parent: &Device = unsafe { Device::from_raw((*line.gc).parent) };

        seq_print!(seq, "{}", parent.name());
    }
}

/// Whether the bus lock is out of question.
///
/// Gives the same answer when an operation of genirq begins and when it ends.
fn cannot_sleep() -> bool {
    // SAFETY: There are no safety requirements for this FFI call.
    (unsafe { bindings::in_interrupt() })
        // SAFETY: As above.
        || (unsafe { bindings::irqs_disabled() })
}
