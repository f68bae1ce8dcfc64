// SPDX-License-Identifier: GPL-2.0

//! Registering a GPIO controller with gpiolib.
//!
//! C header: [`include/linux/gpio/driver.h`](srctree/include/linux/gpio/driver.h)

use super::{
    chip::{
        Chip,
        ChipVTable, //
    },
    names::LineNames, //
};
#[cfg(CONFIG_GPIOLIB_IRQCHIP)]
use super::{
    irq_chip::{
        IrqChip,
        IrqChipVTable, //
    },
    irq_lines::IrqLines, //
};
use crate::{
    bindings,
    device::{
        Bound,
        Device, //
    },
    devres::Devres,
    error::to_result,
    prelude::*,
    static_lock_class,
    str::{
        CStrExt as _,
        CString, //
    },
    sync::Arc,
    types::Opaque, //
};
#[cfg(CONFIG_GPIOLIB_IRQCHIP)]
use core::ptr::NonNull;
use core::{
    marker::PhantomPinned,
    ptr, //
};

/// What there is to know of a chip besides its operations.
pub struct ChipInfo<'a> {
    /// What the controller is called, for people; it is copied.
    pub label: &'a CStr,

    /// How many lines it has, at least one. With more than `CONFIG_GPIOLIB_FASTPATH_LIMIT` of them
    /// gpiolib warns at registration, and allocates memory for each access to several at once.
    pub ngpio: u16,

    /// Whether the operations of the chip may sleep. Consumers that cannot are refused, or warned.
    pub can_sleep: bool,

    /// The names of the lines, if there are any. Where firmware has names of its own, in the
    /// property `gpio-line-names`, gpiolib prefers those.
    pub names: Option<LineNames>,
}

/// A GPIO controller that is registered with gpiolib.
///
/// It is unregistered when the value is dropped, or when its parent device is unbound, whatever
/// comes first. So leaking the value does no harm.
///
/// Unregistering sleeps. It takes the interrupts of the lines away from their consumers, waits for
/// all callbacks in progress, and drops the reference to the driver's state last. Consumers that
/// still have lines get [`ENODEV`] for all they do with them. As it waits for the callbacks, it
/// must not be done from one of them; and how long it takes is a matter of how long they do.
///
/// # Examples
///
/// A controller whose lines are bits in memory:
///
/// ```
/// use kernel::{
///     device::{
///         Bound,
///         Device, //
///     },
///     gpio::{
///         self,
///         ChipInfo,
///         LineDirection,
///         LineNames, //
///     },
///     new_spinlock,
///     prelude::*,
///     sync::{
///         Arc,
///         SpinLock, //
///     }, //
/// };
///
/// #[derive(Default)]
/// struct Lines {
///     outputs: u8,
///     values: u8,
/// }
///
/// #[pin_data]
/// struct Memory {
///     #[pin]
///     lines: SpinLock<Lines>,
/// }
///
/// #[vtable]
/// impl gpio::Chip for Memory {
///     fn get_direction(&self, offset: u32) -> Result<LineDirection> {
///         if self.lines.lock().outputs & 1 << offset != 0 {
///             Ok(LineDirection::Out)
///         } else {
///             Ok(LineDirection::In)
///         }
///     }
///
///     fn direction_input(&self, offset: u32) -> Result {
///         self.lines.lock().outputs &= !(1 << offset);
///         Ok(())
///     }
///
///     fn direction_output(&self, offset: u32, value: bool) -> Result {
///         self.set(offset, value)?;
///         self.lines.lock().outputs |= 1 << offset;
///         Ok(())
///     }
///
///     fn get(&self, offset: u32) -> Result<bool> {
///         Ok(self.lines.lock().values & 1 << offset != 0)
///     }
///
///     fn set(&self, offset: u32, value: bool) -> Result {
///         let mut lines = self.lines.lock();
///
///         lines.values &= !(1 << offset);
///         lines.values |= u8::from(value) << offset;
///         Ok(())
///     }
/// }
///
/// fn probe(dev: &Device<Bound>) -> Result<gpio::Registration<Memory>> {
///     let chip = Arc::pin_init(
///         pin_init!(Memory {
///             lines <- new_spinlock!(Lines::default()),
///         }),
///         GFP_KERNEL,
///     )?;
///     let names = LineNames::new((0..8).map(|offset| (offset == 0).then_some(c"first")))?;
///
///     gpio::Registration::new(
///         dev,
///         chip,
///         ChipInfo {
///             label: c"memory",
///             ngpio: 8,
///             can_sleep: false,
///             names: Some(names),
///         },
///     )
/// }
/// ```
#[must_use = "the chip is unregistered again when this is dropped"]
pub struct Registration<T: Chip> {
    _inner: Devres<Inner<T>>,
}

impl<T: Chip> Registration<T> {
    /// Registers a chip without interrupts. May sleep.
    ///
    /// All operations of the chip may be called before this returns, and the direction of each line
    /// is asked for in any case.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if there are no lines, or not as many names as lines.
    /// - [`ENOMEM`] if there is no memory.
    /// - Others of `gpiochip_add_data_with_key()`.
    pub fn new(parent: &Device<Bound>, chip: Arc<T>, info: ChipInfo<'_>) -> Result<Self> {
        Self::register(
            parent,
            Parts {
                #[cfg(CONFIG_GPIOLIB_IRQCHIP)]
                lines: None,
                chip,
            },
            info,
            ChipVTable::<T>::TEMPLATE,
        )
    }

    fn register(
        parent: &Device<Bound>,
        parts: Parts<T>,
        info: ChipInfo<'_>,
        template: bindings::gpio_chip,
    ) -> Result<Self> {
        // gpiolib would look for the number in a property, and change it behind our back.
        if info.ngpio == 0 {
            return Err(EINVAL);
        }
        let names = info.names;
        if names
            .as_ref()
            .is_some_and(|names| names.len() != usize::from(info.ngpio))
        {
            return Err(EINVAL);
        }
        let label = CString::try_from(info.label)?;

        let gc = bindings::gpio_chip {
            label: label.as_char_ptr(),
            parent: parent.as_raw(),
            // gpiolib is to find a range of its numbers.
            base: -1,
            ngpio: info.ngpio,
            names: names.as_ref().map_or(ptr::null(), LineNames::as_ptr),
            can_sleep: info.can_sleep,
            ..template
        };

        let inner = Devres::new(
            parent,
            try_pin_init!(Inner {
                parts,
                _names: names,
                _label: label,
                _pin: PhantomPinned,
                gc: Opaque::new(gc),
                // SAFETY:
                // - `gc` is not registered yet, it does not move any more, and all that it and its
                //   callbacks refer to is initialised.
                // - On success, `drop()` removes it before any of that goes away.
                device: unsafe { GpioDevice::add(gc.get())? },
                _: {
                    #[cfg(CONFIG_GPIOLIB_IRQCHIP)]
                    if let Some(lines) = &parts.lines {
                        // SAFETY: The chip was registered with an interrupt chip, thus has a
                        // domain, which gpiolib frees in `gpiochip_remove()`; `drop()` closes the
                        // lines first.
                        unsafe { lines.open((*gc.get()).irq.domain) };
                    }
                },
            }),
        )?;

        Ok(Self { _inner: inner })
    }
}

#[cfg(CONFIG_GPIOLIB_IRQCHIP)]
impl<T: IrqChip> Registration<T> {
    /// Registers a chip whose lines are interrupts, too. May sleep.
    ///
    /// From now on the driver can raise interrupts through the chip's
    /// [`IrqDomain`](super::IrqDomain). As with the other operations, those of the interrupts may
    /// be called before this returns.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if the chip's [`IrqDomain`](super::IrqDomain) is that of another registration.
    /// - Those of [`Registration::new`].
    pub fn with_irq(parent: &Device<Bound>, chip: Arc<T>, info: ChipInfo<'_>) -> Result<Self> {
        let slot = NonNull::from(chip.irq_domain());
        // SAFETY: `slot` is valid for as long as a reference to `chip` is, and `Parts` drops the
        // lines before it drops its reference to the chip, as does this function if it fails.
        let lines = unsafe { IrqLines::new(slot, info.ngpio.into())? };

        let mut template = ChipVTable::<T>::TEMPLATE;
        // C only reads it, because it is flagged as immutable.
        template.irq.chip = ptr::from_ref(IrqChipVTable::<T>::build()).cast_mut();
        template.irq.handler = Some(bindings::handle_level_irq);
        template.irq.default_type = bindings::IRQ_TYPE_NONE;

        Self::register(
            parent,
            Parts {
                lines: Some(lines),
                chip,
            },
            info,
            template,
        )
    }
}

/// The Rust side of a registered chip: what its callbacks act on.
pub(super) struct Parts<T: Chip> {
    /// Present if, and only if, the chip is registered with an interrupt chip. Dropped first, as
    /// that waits for callbacks, and as the lines refer to a part of the chip.
    #[cfg(CONFIG_GPIOLIB_IRQCHIP)]
    pub(super) lines: Option<Pin<KBox<IrqLines>>>,
    pub(super) chip: Arc<T>,
}

/// What belongs to one registered `struct gpio_chip`.
///
/// # Invariants
///
/// - `gc` is registered with gpiolib, its callbacks are those of `T`, and its `irq.chip` is that of
///   `T` if there are `lines`.
/// - The label and the names of `gc` are the ones in here.
#[pin_data(PinnedDrop)]
pub(super) struct Inner<T: Chip> {
    // Fields are dropped in this order; the callbacks of the lines need all the rest until `parts`
    // are dropped.
    pub(super) parts: Parts<T>,
    device: GpioDevice,
    _names: Option<LineNames>,
    _label: CString,
    pub(super) gc: Opaque<bindings::gpio_chip>,
    /// gpiolib, genirq and the callbacks have pointers into the value.
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A chip may be removed by another thread than has added it; `T`, which `Parts` share with
// others, is `Send` and `Sync`.
unsafe impl<T: Chip> Send for Inner<T> {}

// SAFETY: There are no methods that change anything, and `T` is `Sync`.
unsafe impl<T: Chip> Sync for Inner<T> {}

#[pinned_drop]
impl<T: Chip> PinnedDrop for Inner<T> {
    fn drop(self: Pin<&mut Self>) {
        #[cfg(CONFIG_GPIOLIB_IRQCHIP)]
        if let Some(lines) = &self.parts.lines {
            lines.close();
            // System calls may still be in a request of an interrupt that was not refused. It
            // would wait for the thread of its handler for ever if gpiolib stopped that first.
            self.device.synchronize();
        }

        // SAFETY: By the type invariant, the chip is registered, and nobody else removes it.
        unsafe { bindings::gpiochip_remove(self.gc.get()) };
    }
}

/// A reference to gpiolib's side of a chip.
///
/// gpiolib drops its own one in `gpiochip_remove()`. Callbacks of the interrupt chip that were in
/// progress by then may still be in one of its functions that look at the lines' descriptors.
///
/// # Invariants
///
/// The value owns a reference to the `struct gpio_device`.
struct GpioDevice(ptr::NonNull<bindings::gpio_device>);

impl GpioDevice {
    /// Registers a chip.
    ///
    /// # Safety
    ///
    /// - `gc` must be ready to be registered, and must not be moved any more.
    /// - It must be removed with `gpiochip_remove()` before any of it, or what it refers to, goes
    ///   away.
    unsafe fn add(gc: *mut bindings::gpio_chip) -> Result<Self> {
        // SAFETY: By the safety requirements; the keys are static.
        to_result(unsafe {
            bindings::gpiochip_add_data_with_key(
                gc,
                ptr::null_mut(),
                static_lock_class!().as_ptr(),
                static_lock_class!().as_ptr(),
            )
        })?;

        // SAFETY: The chip is registered, thus has a `gpiodev`.
        let device = unsafe { bindings::gpio_device_get((*gc).gpiodev) };
        // INVARIANT: The reference was just taken; it is to the same object.
        ptr::NonNull::new(device).map(Self).ok_or(ENODEV)
    }

    /// Waits for all that gpiolib is doing with the chip: system calls, and calls of its callbacks;
    /// not for what begins later. Sleeps.
    ///
    /// That is what `gpiochip_remove()` waits for, too: whoever may remove the chip may wait here.
    #[cfg(CONFIG_GPIOLIB_IRQCHIP)]
    fn synchronize(&self) {
        // SAFETY: By the type invariant, the object is alive, and its SRCU domain lives as long.
        unsafe { bindings::gpio_device_synchronize(self.0.as_ptr()) };
    }
}

impl Drop for GpioDevice {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::gpio_device_put(self.0.as_ptr()) };
    }
}
