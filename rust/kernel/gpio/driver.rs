// SPDX-License-Identifier: GPL-2.0

//! The provider's side of GPIO: controllers, and their registration with gpiolib.
//!
//! C header: [`include/linux/gpio/driver.h`](srctree/include/linux/gpio/driver.h)

#[cfg(CONFIG_GPIOLIB_IRQCHIP)]
use super::irqchip::{
    IrqChip,
    IrqChipVTable,
    IrqLines,
    LockClasses, //
};
use super::LineDirection;
use crate::{
    bindings,
    bitmap::Bitmap,
    device::{
        Bound,
        Device, //
    },
    devres::Devres,
    error::{
        from_result,
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    prelude::*,
    str::{
        CStrExt as _,
        CString, //
    },
    sync::Arc,
    types::Opaque, //
};
use core::{
    marker::{
        PhantomData,
        PhantomPinned, //
    },
    ptr, //
};

/// The operations of a GPIO controller: the callbacks of `struct gpio_chip`.
///
/// Only [`Chip::get_direction`] must be there; gpiolib takes the lack of another one as a fact
/// about the hardware (a controller without [`Chip::direction_output`] can only read, for example),
/// thus a method that is not implemented is a callback that is not set.
///
/// `offset` is always less than the number of lines that the chip was registered with. Values are
/// those of the physical line, high or low; what a consumer calls active is gpiolib's business.
///
/// # Context
///
/// All operations of all lines may run at the same time, on any processor; the chip does its own
/// locking. They may sleep if, and only if, the chip was registered with
/// [`ChipInfo::can_sleep`](super::ChipInfo::can_sleep); except for [`Chip::request`] and
/// [`Chip::free`], which always may. They are called from before
/// [`Registration::new`](super::Registration::new) returns, which asks for the direction of every
/// line, until the registration is dropped, which waits for those in progress.
///
/// # Errors
///
/// gpiolib returns the error of an operation to the consumer, user space included.
#[vtable]
pub trait Chip: Send + Sync + 'static {
    /// Prepares a line for a consumer that has just got hold of it. May sleep.
    fn request(&self, _offset: u32) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Undoes [`Chip::request`]. May sleep.
    ///
    /// Runs on behalf of tasks that are being killed, too: the wait for a controller that may not
    /// answer must be bounded here, a fatal signal does not end it.
    fn free(&self, _offset: u32) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Tells which direction a line has now.
    ///
    /// Asked for each line while the chip is registered, when an error is taken as input, and each
    /// time that a line is requested.
    fn get_direction(&self, offset: u32) -> Result<LineDirection>;

    /// Makes a line an input.
    fn direction_input(&self, _offset: u32) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes a line an output that drives `value` from the very beginning.
    fn direction_output(&self, _offset: u32, _value: bool) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reads a line, whatever its direction is: whether it is high.
    fn get(&self, _offset: u32) -> Result<bool> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Lets a line that is an output drive `value`.
    fn set(&self, _offset: u32, _value: bool) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reads all lines of `mask` at once, into the same bits of `bits`.
    ///
    /// Both have the same length, which ends with the last line that is wanted. The bits of `mask`
    /// are clear in `bits` to begin with; its other ones are none of the chip's business and must
    /// be left as they are.
    fn get_multiple(&self, _mask: &Bitmap, _bits: &mut Bitmap) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Lets all lines of `mask`, which are outputs, drive the values that `bits` has for them.
    ///
    /// Both have the same length, which ends with the last line that is wanted. Bits outside of the
    /// mask have no meaning.
    fn set_multiple(&self, _mask: &Bitmap, _bits: &Bitmap) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Configures a line electrically.
    ///
    /// # Errors
    ///
    /// [`ENOTSUPP`] for what the controller cannot do: gpiolib then emulates it, or does without.
    fn set_config(&self, _offset: u32, _config: LineConfig) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Clears the bits of the lines that consumers cannot have. All lines are set in `valid`.
    ///
    /// Called once, at registration, before any other operation. May sleep.
    fn init_valid_mask(&self, _valid: &mut Bitmap) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The electrical configuration of a line: the parameters of `pinconf-generic.h` that gpiolib uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineConfig {
    /// No pull-up or pull-down.
    BiasDisable,
    /// A pull-up.
    BiasPullUp,
    /// A pull-down.
    BiasPullDown,
    /// An output that only drives low.
    DriveOpenDrain,
    /// An output that only drives high.
    DriveOpenSource,
    /// An output that drives low and high.
    DrivePushPull,
    /// An input that ignores changes shorter than that many microseconds; none with 0.
    InputDebounce(u32),
    /// Whether the line keeps its state over suspend or a reset of the controller.
    PersistState(bool),
}

impl TryFrom<usize> for LineConfig {
    type Error = Error;

    /// Converts a parameter packed with its argument, as `PIN_CONF_PACKED()` does it.
    ///
    /// # Errors
    ///
    /// [`ENOTSUPP`] for other parameters.
    fn try_from(packed: usize) -> Result<Self> {
        let argument = (packed >> 8) as u32 & 0xff_ffff;

        match (packed & 0xff) as u32 {
            bindings::pin_config_param_PIN_CONFIG_BIAS_DISABLE => Ok(Self::BiasDisable),
            bindings::pin_config_param_PIN_CONFIG_BIAS_PULL_UP => Ok(Self::BiasPullUp),
            bindings::pin_config_param_PIN_CONFIG_BIAS_PULL_DOWN => Ok(Self::BiasPullDown),
            bindings::pin_config_param_PIN_CONFIG_DRIVE_OPEN_DRAIN => Ok(Self::DriveOpenDrain),
            bindings::pin_config_param_PIN_CONFIG_DRIVE_OPEN_SOURCE => Ok(Self::DriveOpenSource),
            bindings::pin_config_param_PIN_CONFIG_DRIVE_PUSH_PULL => Ok(Self::DrivePushPull),
            bindings::pin_config_param_PIN_CONFIG_INPUT_DEBOUNCE => {
                Ok(Self::InputDebounce(argument))
            }
            bindings::pin_config_param_PIN_CONFIG_PERSIST_STATE => {
                Ok(Self::PersistState(argument != 0))
            }
            _ => Err(ENOTSUPP),
        }
    }
}

/// The callbacks of `struct gpio_chip` for a `T`.
pub(super) struct ChipVTable<T: Chip>(PhantomData<T>);

impl<T: Chip> ChipVTable<T> {
    /// A `struct gpio_chip` of which only the callbacks are filled in.
    ///
    /// They are only to be used in the `gc` of an [`Inner<T>`].
    pub(super) const TEMPLATE: bindings::gpio_chip = bindings::gpio_chip {
        request: if T::HAS_REQUEST {
            Some(Self::request_callback)
        } else {
            None
        },
        free: if T::HAS_FREE {
            Some(Self::free_callback)
        } else {
            None
        },
        get_direction: Some(Self::get_direction_callback),
        direction_input: if T::HAS_DIRECTION_INPUT {
            Some(Self::direction_input_callback)
        } else {
            None
        },
        direction_output: if T::HAS_DIRECTION_OUTPUT {
            Some(Self::direction_output_callback)
        } else {
            None
        },
        get: if T::HAS_GET {
            Some(Self::get_callback)
        } else {
            None
        },
        set: if T::HAS_SET {
            Some(Self::set_callback)
        } else {
            None
        },
        get_multiple: if T::HAS_GET_MULTIPLE {
            Some(Self::get_multiple_callback)
        } else {
            None
        },
        set_multiple: if T::HAS_SET_MULTIPLE {
            Some(Self::set_multiple_callback)
        } else {
            None
        },
        set_config: if T::HAS_SET_CONFIG {
            Some(Self::set_config_callback)
        } else {
            None
        },
        init_valid_mask: if T::HAS_INIT_VALID_MASK {
            Some(Self::init_valid_mask_callback)
        } else {
            None
        },
        ..pin_init::zeroed()
    };

    /// Returns the driver's side of a chip.
    ///
    /// # Safety
    ///
    /// `gc` must be the `gc` of an `Inner<T>` that is initialised, and outlives `'a`.
    unsafe fn chip<'a>(gc: *mut bindings::gpio_chip) -> &'a T {
        // SAFETY: By the safety requirements; the field is never changed.
        unsafe { &(*Inner::<T>::from_gc(gc)).chip }
    }

    /// # Safety
    ///
    /// To be called by gpiolib as `struct gpio_chip::request`, for the `gc` of an `Inner<T>`, which
    /// is alive and initialised for as long as gpiolib calls: `gpiochip_add_data_with_key()` comes
    /// after all else, and `gpiochip_remove()` waits (in SRCU) for calls in progress.
    ///
    /// The other callbacks have the same requirements.
    unsafe extern "C" fn request_callback(gc: *mut bindings::gpio_chip, offset: c_uint) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        let chip = unsafe { Self::chip(gc) };

        from_result(|| chip.request(offset).map(|()| 0))
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`].
    unsafe extern "C" fn free_callback(gc: *mut bindings::gpio_chip, offset: c_uint) {
        // SAFETY: By the safety requirements of this callback.
        let chip = unsafe { Self::chip(gc) };

        chip.free(offset);
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`].
    unsafe extern "C" fn get_direction_callback(
        gc: *mut bindings::gpio_chip,
        offset: c_uint,
    ) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        let chip = unsafe { Self::chip(gc) };

        from_result(|| {
            chip.get_direction(offset)
                .map(|direction| direction as c_int)
        })
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`].
    unsafe extern "C" fn direction_input_callback(
        gc: *mut bindings::gpio_chip,
        offset: c_uint,
    ) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        let chip = unsafe { Self::chip(gc) };

        from_result(|| chip.direction_input(offset).map(|()| 0))
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`].
    unsafe extern "C" fn direction_output_callback(
        gc: *mut bindings::gpio_chip,
        offset: c_uint,
        value: c_int,
    ) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        let chip = unsafe { Self::chip(gc) };

        from_result(|| chip.direction_output(offset, value != 0).map(|()| 0))
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`].
    unsafe extern "C" fn get_callback(gc: *mut bindings::gpio_chip, offset: c_uint) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        let chip = unsafe { Self::chip(gc) };

        from_result(|| chip.get(offset).map(c_int::from))
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`].
    unsafe extern "C" fn set_callback(
        gc: *mut bindings::gpio_chip,
        offset: c_uint,
        value: c_int,
    ) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        let chip = unsafe { Self::chip(gc) };

        from_result(|| chip.set(offset, value != 0).map(|()| 0))
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`]; besides, `mask` is a bitmap of all lines, which `bits`
    /// covers up to the last bit that is set in it.
    unsafe extern "C" fn get_multiple_callback(
        gc: *mut bindings::gpio_chip,
        mask: *mut usize,
        bits: *mut usize,
    ) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        let chip = unsafe { Self::chip(gc) };

        // SAFETY: As above; gpiolib does not change the mask during the call.
        let Some(mask) = (unsafe { wanted_lines(gc, mask) }) else {
            return 0;
        };

        // gpiolib passes a buffer that is not initialised, on its stack for example. What the chip
        // leaves out must not get to user space.
        //
        // SAFETY: Both bitmaps cover all lines up to `mask.len()`, and `bits` is gpiolib's own.
        unsafe { clear(bits, mask) };

        // SAFETY:
        // - `bits` covers `mask.len()` lines, and is gpiolib's own for the duration of the call.
        // - It comes from C, where memory without a value that was assigned is just memory.
        let bits = unsafe { Bitmap::from_raw_mut(bits, mask.len()) };

        from_result(|| chip.get_multiple(mask, bits).map(|()| 0))
    }

    /// # Safety
    ///
    /// As for [`Self::get_multiple_callback`].
    unsafe extern "C" fn set_multiple_callback(
        gc: *mut bindings::gpio_chip,
        mask: *mut usize,
        bits: *mut usize,
    ) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        let chip = unsafe { Self::chip(gc) };

        // SAFETY: As above; gpiolib does not change the mask during the call.
        let Some(mask) = (unsafe { wanted_lines(gc, mask) }) else {
            return 0;
        };

        // SAFETY: As in `get_multiple_callback()`; nobody changes the bits during the call.
        let bits = unsafe { Bitmap::from_raw(bits, mask.len()) };

        from_result(|| chip.set_multiple(mask, bits).map(|()| 0))
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`].
    unsafe extern "C" fn set_config_callback(
        gc: *mut bindings::gpio_chip,
        offset: c_uint,
        config: c_ulong,
    ) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        let chip = unsafe { Self::chip(gc) };

        from_result(|| {
            chip.set_config(offset, LineConfig::try_from(config)?)
                .map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`]; besides, `valid` is a bitmap of `lines` bits that only
    /// the caller uses.
    unsafe extern "C" fn init_valid_mask_callback(
        gc: *mut bindings::gpio_chip,
        valid: *mut usize,
        lines: c_uint,
    ) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        let chip = unsafe { Self::chip(gc) };
        // SAFETY: As above.
        let valid = unsafe { Bitmap::from_raw_mut(valid, lines as usize) };

        from_result(|| chip.init_valid_mask(valid).map(|()| 0))
    }
}

/// Cuts gpiolib's bitmap of the wanted lines off behind the last of them; [`None`] if there is
/// none.
///
/// The values come in a bitmap that need not be longer: when a consumer's descriptors are those of
/// the first lines of the chip, `gpiod_get_array_value_complex()` passes the consumer's own bitmap,
/// which has a bit for each descriptor, not for each line.
///
/// # Safety
///
/// - `gc` must be a valid chip.
/// - `mask` must be a bitmap of all of its lines, alive and unchanged for `'a`.
unsafe fn wanted_lines<'a>(gc: *mut bindings::gpio_chip, mask: *mut usize) -> Option<&'a Bitmap> {
    // SAFETY: `gc` is valid; the number of lines does not change after registration.
    let lines = unsafe { (*gc).ngpio };
    // SAFETY: By the safety requirements.
    let all = unsafe { Bitmap::from_raw(mask, lines.into()) };
    let last = all.last_bit()?;

    // SAFETY: As above, and `last` is one of the lines.
    Some(unsafe { Bitmap::from_raw(mask, last + 1) })
}

/// Clears the bits of `mask` in `bits`.
///
/// # Safety
///
/// `bits` must be a bitmap of at least `mask.len()` bits to which nobody else has access.
unsafe fn clear(bits: *mut usize, mask: &Bitmap) {
    for word in 0..mask.len().div_ceil(usize::BITS as usize) {
        // SAFETY: Both have that many words, `bits` by the safety requirements.
        unsafe { *bits.add(word) &= !*mask.as_ptr().add(word) };
    }
}

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
        // Only the locks of interrupts have these classes.
        let classes = [ptr::null_mut(); 2];

        Self::register(parent, chip, info, ChipVTable::<T>::TEMPLATE, None, classes)
    }

    fn register(
        parent: &Device<Bound>,
        chip: Arc<T>,
        info: ChipInfo<'_>,
        template: bindings::gpio_chip,
        irq: Option<Pin<KBox<IrqLines>>>,
        [lock, request]: [*mut bindings::lock_class_key; 2],
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
            // If one step fails, what the steps before have made is dropped in the reverse order.
            try_pin_init!(Inner {
                _label: label,
                _names: names,
                chip,
                irq,
                gc: Opaque::new(gc),
                _pin: PhantomPinned,
                _: {
                    // SAFETY:
                    // - `gc` is not registered yet, it does not move any more, and all that it and
                    //   its callbacks refer to is initialised; the classes are static or null.
                    // - On success, `drop()` removes it before any of that goes away.
                    to_result(unsafe {
                        bindings::gpiochip_add_data_with_key(
                            gc.get(),
                            ptr::null_mut(),
                            lock,
                            request,
                        )
                    })?;
                    #[cfg(CONFIG_GPIOLIB_IRQCHIP)]
                    if let Some(irq) = irq.as_ref() {
                        // SAFETY: The chip was registered with an interrupt chip, thus has a
                        // domain, which gpiolib frees in `gpiochip_remove()`; `drop()` withdraws
                        // the lines first.
                        unsafe { irq.open((*gc.get()).irq.domain) };
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
    /// `classes` come from [`lock_classes!`](crate::gpio::lock_classes), which is to be called for
    /// each kind of chip.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if the chip's [`IrqDomain`](super::IrqDomain) is that of another registration.
    /// - Those of [`Registration::new`].
    pub fn with_irq(
        parent: &Device<Bound>,
        chip: Arc<T>,
        info: ChipInfo<'_>,
        classes: LockClasses,
    ) -> Result<Self> {
        // SAFETY: `register()` drops the lines before it drops its reference to the chip, as does
        // `Inner`, and this function if it fails.
        let irq = unsafe { IrqLines::new(chip.irq_domain(), info.ngpio.into())? };
        let mut template = ChipVTable::<T>::TEMPLATE;

        template.irq = IrqChipVTable::<T>::template();
        Self::register(
            parent,
            chip,
            info,
            template,
            Some(irq),
            classes.as_ptrs(),
        )
    }
}

/// Without interrupt chips no line is an interrupt.
#[cfg(not(CONFIG_GPIOLIB_IRQCHIP))]
enum IrqLines {}

/// What belongs to one registered `struct gpio_chip`.
///
/// # Invariants
///
/// - `gc` is registered with gpiolib, its callbacks are those of `T`, and its `irq.chip` is that of
///   `T` if, and only if, there is an `irq`.
/// - The label and the names of `gc` are the ones in here.
#[pin_data(PinnedDrop)]
pub(super) struct Inner<T: Chip> {
    gc: Opaque<bindings::gpio_chip>,
    /// Refers to a part of the chip, hence is dropped first.
    pub(super) irq: Option<Pin<KBox<IrqLines>>>,
    pub(super) chip: Arc<T>,
    _names: Option<LineNames>,
    _label: CString,
    /// gpiolib, genirq and the callbacks have pointers into the value.
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A chip may be removed by another thread than has added it; `T`, a reference to which is
// shared with others, is `Send` and `Sync`.
unsafe impl<T: Chip> Send for Inner<T> {}

// SAFETY: There are no methods that change anything, and `T` is `Sync`.
unsafe impl<T: Chip> Sync for Inner<T> {}

impl<T: Chip> Inner<T> {
    /// Returns what a chip is embedded in.
    ///
    /// # Safety
    ///
    /// `gc` must be the `gc` of an `Inner<T>`.
    pub(super) unsafe fn from_gc(gc: *mut bindings::gpio_chip) -> *const Self {
        // SAFETY: By the safety requirements.
        unsafe { kernel::container_of!(Opaque::cast_from(gc), Self, gc) }
    }
}

#[pinned_drop]
impl<T: Chip> PinnedDrop for Inner<T> {
    fn drop(self: Pin<&mut Self>) {
        // The driver must not find the domain any more when gpiolib frees it.
        #[cfg(CONFIG_GPIOLIB_IRQCHIP)]
        if let Some(irq) = &self.irq {
            irq.withdraw();
        }

        // Waits for all callbacks: gpiolib for its own, genirq for those of the interrupts.
        //
        // SAFETY: By the type invariant, the chip is registered, and only this removes it.
        unsafe { bindings::gpiochip_remove(self.gc.get()) };
    }
}

/// The names of a chip's lines, owned, in the form in which gpiolib keeps them.
///
/// There is one entry for each line, in the order of their offsets; a line may have no name.
/// gpiolib accepts a name more than once, but finds only one of its lines by it.
///
/// # Examples
///
/// ```
/// use kernel::gpio::LineNames;
///
/// let names = LineNames::new([Some(c"reset"), None, Some(c"ready")].into_iter())?;
///
/// assert_eq!(names.len(), 3);
/// assert!(names.get(0) == Some(c"reset"));
/// assert!(names.get(1).is_none());
/// assert!(names.get(3).is_none());
/// # Ok::<(), Error>(())
/// ```
///
/// # Invariants
///
/// Each entry of `entries` is null or points to a NUL-terminated string within `strings`, which is
/// never changed again.
pub struct LineNames {
    entries: KVVec<*const c_char>,
    // Only read through `entries`.
    _strings: KVVec<u8>,
}

// SAFETY: The pointers are to memory that the value owns and never changes.
unsafe impl Send for LineNames {}

// SAFETY: As above; shared references only read.
unsafe impl Sync for LineNames {}

impl LineNames {
    /// Copies the names of all lines, of as many as the iterator yields. An empty name is no name.
    ///
    /// May sleep. Does not need physically contiguous memory, thus even a chip of 65535 long names
    /// can be had when memory is fragmented.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory for the copies.
    pub fn new<'a>(names: impl Iterator<Item = Option<&'a CStr>>) -> Result<Self> {
        let mut strings = KVVec::new();
        let mut starts = KVVec::new();

        for name in names {
            let start = match name {
                Some(name) if !name.is_empty() => {
                    let start = strings.len();
                    strings.extend_from_slice(name.to_bytes_with_nul(), GFP_KERNEL)?;
                    Some(start)
                }
                _ => None,
            };
            starts.push(start, GFP_KERNEL)?;
        }

        // Only now, as `strings` moves while it grows.
        let mut entries = KVVec::with_capacity(starts.len(), GFP_KERNEL)?;
        for &start in &starts {
            let entry = start
                .and_then(|start| strings.get(start..))
                .map_or(ptr::null(), |name: &[u8]| name.as_ptr().cast());
            entries.push(entry, GFP_KERNEL)?;
        }

        // INVARIANT: An entry that is not null points to where a C string was copied to; `strings`
        // has no method left that changes it.
        Ok(Self {
            entries,
            _strings: strings,
        })
    }

    /// The number of lines, named or not.
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no lines at all.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The name of the line at `offset`, if there is such a line and it has one.
    pub fn get(&self, offset: usize) -> Option<&CStr> {
        let &entry = self.entries.get(offset)?;

        if entry.is_null() {
            return None;
        }
        // SAFETY: By the type invariant, `entry` is a NUL-terminated string that nobody changes and
        // that lives as long as `self`.
        Some(unsafe { CStr::from_char_ptr(entry) })
    }

    /// The names as `struct gpio_chip` wants them: an array of [`Self::len`] pointers, valid as
    /// long as `self` lives, wherever it is moved to.
    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.entries.as_ptr()
    }
}
