// SPDX-License-Identifier: GPL-2.0

//! GPIO controllers and their registration with gpiolib.
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
    bindings::{
        self,
        gpio_chip, //
    },
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
/// Only [`Chip::get_direction`] is required. A method that is not implemented leaves the callback
/// unset, from which gpiolib concludes what the hardware cannot do: a controller without
/// [`Chip::direction_output`] is input-only, for example.
///
/// `offset` is less than the number of lines that the chip was registered with. Values are
/// physical, high or low: gpiolib handles active-low.
///
/// # Context
///
/// All operations on all lines may run concurrently: the chip does its own locking. They may sleep
/// only if the chip was registered with [`ChipInfo::can_sleep`](super::ChipInfo::can_sleep), except
/// for [`Chip::request`] and [`Chip::free`], which always may. gpiolib calls them from before
/// [`Registration::new`](super::Registration::new) returns until the registration is dropped, which
/// waits for those in progress.
///
/// # Errors
///
/// gpiolib returns the error of an operation to the consumer, user space included.
#[vtable]
pub trait Chip: Send + Sync + 'static {
    /// Prepares a line for a consumer that requests it. May sleep.
    fn request(&self, _offset: u32) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Undoes [`Chip::request`]. May sleep.
    ///
    /// Also runs in tasks with a pending fatal signal, where killable waits fail at once: bound the
    /// wait for a controller that may not answer by a timeout.
    fn free(&self, _offset: u32) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns the current direction of a line.
    ///
    /// gpiolib calls it for each line on registration, where it takes an error as input, and
    /// whenever a line is requested.
    fn get_direction(&self, offset: u32) -> Result<LineDirection>;

    /// Makes a line an input.
    fn direction_input(&self, _offset: u32) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes a line an output, driving `value` from the start.
    fn direction_output(&self, _offset: u32, _value: bool) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Returns whether a line is high, whatever its direction.
    fn get(&self, _offset: u32) -> Result<bool> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets the value of an output.
    fn set(&self, _offset: u32, _value: bool) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reads all lines of `mask` at once, into the same bits of `bits`.
    ///
    /// Both bitmaps end with the last line that is wanted. The bits of `mask` are initially clear
    /// in `bits`; the chip must not change the others.
    fn get_multiple(&self, _mask: &Bitmap, _bits: &mut Bitmap) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets all lines of `mask`, which are outputs, to their values in `bits`.
    ///
    /// Both bitmaps end with the last line that is wanted. Bits outside of the mask are undefined.
    fn set_multiple(&self, _mask: &Bitmap, _bits: &Bitmap) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Configures a line electrically.
    ///
    /// # Errors
    ///
    /// [`ENOTSUPP`] for what the controller cannot do: gpiolib then emulates or ignores it.
    fn set_config(&self, _offset: u32, _config: LineConfig) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Clears the bits in `valid`, initially all set, of the lines that consumers cannot request.
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
    /// An input that ignores pulses of up to this many microseconds; 0 disables debouncing.
    InputDebounce(u32),
    /// Whether the line keeps its state on suspend or on a reset of the controller.
    PersistState(bool),
}

impl TryFrom<usize> for LineConfig {
    type Error = Error;

    /// Unpacks a parameter and its argument, which `PIN_CONF_PACKED()` has packed.
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
    /// A `struct gpio_chip` with only the callbacks set.
    ///
    /// It must only be used for the `gc` of an [`Inner<T>`].
    pub(super) const TEMPLATE: gpio_chip = gpio_chip {
        request: some_if(T::HAS_REQUEST, Self::request_callback),
        free: some_if(T::HAS_FREE, Self::free_callback),
        get_direction: Some(Self::get_direction_callback),
        direction_input: some_if(T::HAS_DIRECTION_INPUT, Self::direction_input_callback),
        direction_output: some_if(T::HAS_DIRECTION_OUTPUT, Self::direction_output_callback),
        get: some_if(T::HAS_GET, Self::get_callback),
        set: some_if(T::HAS_SET, Self::set_callback),
        get_multiple: some_if(T::HAS_GET_MULTIPLE, Self::get_multiple_callback),
        set_multiple: some_if(T::HAS_SET_MULTIPLE, Self::set_multiple_callback),
        set_config: some_if(T::HAS_SET_CONFIG, Self::set_config_callback),
        init_valid_mask: some_if(T::HAS_INIT_VALID_MASK, Self::init_valid_mask_callback),
        ..pin_init::zeroed()
    };

    /// Runs `f` on the driver's side of a chip.
    ///
    /// # Safety
    ///
    /// `gc` must be the `gc` of an `Inner<T>` that is initialised, and stays so during the call.
    unsafe fn call(gc: *mut gpio_chip, f: impl FnOnce(&T) -> Result<c_int>) -> c_int {
        // SAFETY: By the safety requirements; the field is never changed.
        let chip: &T = unsafe { &(*Inner::<T>::from_gc(gc)).chip };

        from_result(|| f(chip))
    }

    /// # Safety
    ///
    /// Only for gpiolib, as `struct gpio_chip::request` of the `gc` of an `Inner<T>`, which is
    /// alive and initialised as long as gpiolib calls: `gpiochip_add_data_with_key()` comes after
    /// all else, and `gpiochip_remove()` waits (in SRCU) for calls in progress.
    ///
    /// The other callbacks have the same requirements.
    unsafe extern "C" fn request_callback(gc: *mut gpio_chip, offset: c_uint) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        unsafe { Self::call(gc, |chip| chip.request(offset).map(|()| 0)) }
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`].
    unsafe extern "C" fn free_callback(gc: *mut gpio_chip, offset: c_uint) {
        let free = |chip: &T| {
            chip.free(offset);
            Ok(0)
        };
        // SAFETY: By the safety requirements of this callback.
        unsafe { Self::call(gc, free) };
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`].
    unsafe extern "C" fn get_direction_callback(gc: *mut gpio_chip, offset: c_uint) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        unsafe { Self::call(gc, |chip| Ok(chip.get_direction(offset)? as c_int)) }
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`].
    unsafe extern "C" fn direction_input_callback(gc: *mut gpio_chip, offset: c_uint) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        unsafe { Self::call(gc, |chip| chip.direction_input(offset).map(|()| 0)) }
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`].
    unsafe extern "C" fn direction_output_callback(
        gc: *mut gpio_chip,
        offset: c_uint,
        value: c_int,
    ) -> c_int {
        let output = |chip: &T| chip.direction_output(offset, value != 0).map(|()| 0);

        // SAFETY: By the safety requirements of this callback.
        unsafe { Self::call(gc, output) }
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`].
    unsafe extern "C" fn get_callback(gc: *mut gpio_chip, offset: c_uint) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        unsafe { Self::call(gc, |chip| chip.get(offset).map(c_int::from)) }
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`].
    unsafe extern "C" fn set_callback(gc: *mut gpio_chip, offset: c_uint, value: c_int) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        unsafe { Self::call(gc, |chip| chip.set(offset, value != 0).map(|()| 0)) }
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`]; besides, `mask` is a bitmap of all lines, which `bits`
    /// covers up to the last bit that is set in it.
    unsafe extern "C" fn get_multiple_callback(
        gc: *mut gpio_chip,
        mask: *mut usize,
        bits: *mut usize,
    ) -> c_int {
        // SAFETY: By the safety requirements of this callback; gpiolib does not change the mask
        // during the call.
        let Some(mask) = (unsafe { wanted_lines(gc, mask) }) else {
            return 0;
        };

        // Bits that the chip leaves out must not leak memory: gpiolib does not initialise them.
        //
        // SAFETY: Both bitmaps cover all lines up to `mask.len()`, and only this call accesses
        // `bits`.
        unsafe { clear(bits, mask) };

        // SAFETY: `bits` covers `mask.len()` lines, and only this call accesses it. To Rust, memory
        // from C is initialised.
        let bits = unsafe { Bitmap::from_raw_mut(bits, mask.len()) };

        // SAFETY: By the safety requirements of this callback.
        unsafe { Self::call(gc, |chip| chip.get_multiple(mask, bits).map(|()| 0)) }
    }

    /// # Safety
    ///
    /// As for [`Self::get_multiple_callback`].
    unsafe extern "C" fn set_multiple_callback(
        gc: *mut gpio_chip,
        mask: *mut usize,
        bits: *mut usize,
    ) -> c_int {
        // SAFETY: As in `get_multiple_callback()`.
        let Some(mask) = (unsafe { wanted_lines(gc, mask) }) else {
            return 0;
        };

        // SAFETY: `bits` covers `mask.len()` lines, and does not change during the call.
        let bits = unsafe { Bitmap::from_raw(bits, mask.len()) };

        // SAFETY: By the safety requirements of this callback.
        unsafe { Self::call(gc, |chip| chip.set_multiple(mask, bits).map(|()| 0)) }
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`].
    unsafe extern "C" fn set_config_callback(
        gc: *mut gpio_chip,
        offset: c_uint,
        config: c_ulong,
    ) -> c_int {
        let set = |chip: &T| {
            chip.set_config(offset, LineConfig::try_from(config)?)
                .map(|()| 0)
        };

        // SAFETY: By the safety requirements of this callback.
        unsafe { Self::call(gc, set) }
    }

    /// # Safety
    ///
    /// As for [`Self::request_callback`]; besides, `valid` is a bitmap of `lines` bits that only
    /// the caller uses.
    unsafe extern "C" fn init_valid_mask_callback(
        gc: *mut gpio_chip,
        valid: *mut usize,
        lines: c_uint,
    ) -> c_int {
        // SAFETY: By the safety requirements of this callback.
        let valid = unsafe { Bitmap::from_raw_mut(valid, lines as usize) };

        // SAFETY: By the safety requirements of this callback.
        unsafe { Self::call(gc, |chip| chip.init_valid_mask(valid).map(|()| 0)) }
    }
}

/// Returns an optional callback of a C table. A callback that is not set is not compiled.
pub(super) const fn some_if<F: Copy>(is_set: bool, callback: F) -> Option<F> {
    if is_set {
        Some(callback)
    } else {
        None
    }
}

/// Truncates gpiolib's bitmap of the wanted lines after the last of them; [`None`] if it is empty.
///
/// The bitmap of the values may be shorter than the chip: if a consumer's descriptors are the first
/// lines of the chip, `gpiod_get_array_value_complex()` passes the consumer's own bitmap, with one
/// bit per descriptor.
///
/// # Safety
///
/// - `gc` must be a valid chip.
/// - `mask` must be a bitmap of all of its lines, alive and unchanged for `'a`.
unsafe fn wanted_lines<'a>(gc: *mut gpio_chip, mask: *mut usize) -> Option<&'a Bitmap> {
    // SAFETY: By the safety requirements; the number of lines does not change after registration.
    let all = unsafe { Bitmap::from_raw(mask, (*gc).ngpio.into()) };
    let last = all.last_bit()?;

    // SAFETY: As above, and `last` is one of the lines.
    Some(unsafe { Bitmap::from_raw(mask, last + 1) })
}

/// Clears the bits of `mask` in `bits`.
///
/// # Safety
///
/// `bits` must be a bitmap of at least `mask.len()` bits to which the caller has exclusive access.
unsafe fn clear(bits: *mut usize, mask: &Bitmap) {
    for word in 0..mask.len().div_ceil(usize::BITS as usize) {
        // SAFETY: Both have that many words, `bits` by the safety requirements.
        unsafe { *bits.add(word) &= !*mask.as_ptr().add(word) };
    }
}

/// The properties of a chip.
pub struct ChipInfo<'a> {
    /// The name of the controller, as shown to users. [`Registration::new`] copies it.
    pub label: &'a CStr,

    /// The number of lines, at least one. Above `CONFIG_GPIOLIB_FASTPATH_LIMIT` gpiolib warns at
    /// registration, and allocates memory for each access to several lines at once.
    pub ngpio: u16,

    /// Whether the operations of the chip may sleep. gpiolib warns of consumers that cannot.
    pub can_sleep: bool,

    /// The names of the lines. gpiolib prefers those in the firmware property `gpio-line-names`.
    pub names: Option<LineNames>,
}

/// A GPIO controller that is registered with gpiolib.
///
/// It is unregistered when the value is dropped or when its parent device is unbound, whichever
/// comes first, so leaking the value is harmless.
///
/// Unregistering sleeps. It frees the interrupts of the lines, waits for all callbacks in progress,
/// and drops the reference to the driver's state last. It must not run in a callback. Operations of
/// consumers that still hold lines fail with [`ENODEV`].
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
///     let names = LineNames::new(&mut (0..8).map(|offset| (offset == 0).then_some(c"first")))?;
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
#[must_use = "dropping this unregisters the chip"]
pub struct Registration<T: Chip> {
    _inner: Devres<Inner<T>>,
}

impl<T: Chip> Registration<T> {
    /// Registers a chip without interrupts. May sleep.
    ///
    /// gpiolib may call all operations of the chip before this returns.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if there are no lines, or not as many names as lines.
    /// - [`ENOMEM`] if an allocation fails.
    /// - Others of `gpiochip_add_data_with_key()`.
    pub fn new(parent: &Device<Bound>, chip: Arc<T>, info: ChipInfo<'_>) -> Result<Self> {
        // The classes are those of the locks of interrupts.
        let classes = [ptr::null_mut(); 2];

        Self::register(parent, chip, info, ChipVTable::<T>::TEMPLATE, None, classes)
    }

    fn register(
        parent: &Device<Bound>,
        chip: Arc<T>,
        info: ChipInfo<'_>,
        template: gpio_chip,
        irq: Option<Pin<KBox<IrqLines>>>,
        [lock, request]: [*mut bindings::lock_class_key; 2],
    ) -> Result<Self> {
        let names = info.names;
        let ngpio = usize::from(info.ngpio);

        // With 0 gpiolib would take the number from a property, and overwrite it.
        if ngpio == 0 || names.as_ref().is_some_and(|names| names.len() != ngpio) {
            return Err(EINVAL);
        }
        let label = CString::try_from(info.label)?;
        let names = names
            .map(|names| KBox::new(names, GFP_KERNEL))
            .transpose()?;

        let gc = gpio_chip {
            label: label.as_char_ptr(),
            parent: parent.as_raw(),
            // Let gpiolib allocate the range.
            base: -1,
            ngpio: info.ngpio,
            names: names.as_ref().map_or(ptr::null(), |names| names.as_ptr()),
            can_sleep: info.can_sleep,
            ..template
        };

        let inner = Devres::new(
            parent,
            try_pin_init!(Inner {
                _label: label,
                _names: names,
                chip,
                irq,
                gc: Opaque::new(gc),
                _pin: PhantomPinned,
                _: {
                    // SAFETY:
                    // - `gc` is not registered yet and is pinned; all that it and its callbacks
                    //   refer to is initialised; the classes are static or null.
                    // - On success, `drop()` removes it before the fields are dropped.
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
                        // domain, which `gpiochip_remove()` frees; `drop()` withdraws the lines
                        // before that.
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
    /// Registers a chip whose lines can be interrupts. May sleep.
    ///
    /// Afterwards the driver can raise interrupts through the chip's
    /// [`IrqDomain`](super::IrqDomain). genirq may call the operations of [`IrqChip`] before this
    /// returns.
    ///
    /// `classes` come from [`lock_classes!`](crate::gpio::lock_classes), one call per kind of chip.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if another registration uses the chip's [`IrqDomain`](super::IrqDomain).
    /// - Those of [`Registration::new`].
    pub fn with_irq(
        parent: &Device<Bound>,
        chip: Arc<T>,
        info: ChipInfo<'_>,
        classes: LockClasses,
    ) -> Result<Self> {
        let irq = IrqLines::new(&chip, info.ngpio.into())?;
        let mut template = ChipVTable::<T>::TEMPLATE;

        template.irq = IrqChipVTable::<T>::template();
        Self::register(parent, chip, info, template, Some(irq), classes.as_ptrs())
    }
}

/// Does not exist without interrupt chips.
#[cfg(not(CONFIG_GPIOLIB_IRQCHIP))]
enum IrqLines {}

/// A registered `struct gpio_chip`, and all that it refers to.
///
/// # Invariants
///
/// - `gc` is registered with gpiolib, its callbacks are those of `T`, and its `irq.chip` is that of
///   `T` if, and only if, there is an `irq`.
/// - The label and the names of `gc` are the ones in here.
#[pin_data(PinnedDrop)]
pub(super) struct Inner<T: Chip> {
    gc: Opaque<gpio_chip>,
    pub(super) irq: Option<Pin<KBox<IrqLines>>>,
    pub(super) chip: Arc<T>,
    /// In a box: with it the value and what [`Devres`] adds fit into 512 bytes.
    _names: Option<KBox<LineNames>>,
    _label: CString,
    /// gpiolib, genirq and the callbacks have pointers into the value.
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: Any thread may remove a chip; `T`, which is shared by an `Arc`, is `Send` and `Sync`.
unsafe impl<T: Chip> Send for Inner<T> {}

// SAFETY: Shared references only read, and `T` is `Sync`.
unsafe impl<T: Chip> Sync for Inner<T> {}

impl<T: Chip> Inner<T> {
    /// Returns the value in which a chip is embedded.
    ///
    /// # Safety
    ///
    /// `gc` must be the `gc` of an `Inner<T>`.
    pub(super) unsafe fn from_gc(gc: *mut gpio_chip) -> *const Self {
        // SAFETY: By the safety requirements.
        unsafe { kernel::container_of!(Opaque::cast_from(gc), Self, gc) }
    }
}

#[pinned_drop]
impl<T: Chip> PinnedDrop for Inner<T> {
    fn drop(self: Pin<&mut Self>) {
        // Stops `IrqDomain::handle_irq()` before gpiolib frees the domain.
        #[cfg(CONFIG_GPIOLIB_IRQCHIP)]
        if let Some(irq) = &self.irq {
            irq.withdraw();
        }

        // Waits for all callbacks: gpiolib for its own, genirq for those of the interrupts.
        //
        // SAFETY: By the type invariant the chip is registered; only this removes it.
        unsafe { bindings::gpiochip_remove(self.gc.get()) };
    }
}

/// The names of a chip's lines.
///
/// There is one entry per line, ordered by offset; a line may have no name. gpiolib accepts
/// duplicates, but looks up only one of the lines.
///
/// # Examples
///
/// ```
/// use kernel::gpio::LineNames;
///
/// let names = LineNames::new(&mut [Some(c"reset"), None, Some(c"ready")].into_iter())?;
/// # Ok::<(), Error>(())
/// ```
///
/// # Invariants
///
/// Each entry is null or points to a NUL-terminated string within `_strings`, which is immutable.
pub struct LineNames {
    entries: KVVec<*const c_char>,
    // Read through `entries`.
    _strings: KVVec<u8>,
}

// SAFETY: The pointers are to immutable memory that the value owns.
unsafe impl Send for LineNames {}

// SAFETY: As above.
unsafe impl Sync for LineNames {}

impl LineNames {
    /// Copies the names that the iterator yields, one item per line. An empty name counts as none.
    ///
    /// May sleep. Does not need physically contiguous memory.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if an allocation fails.
    pub fn new(names: &mut dyn Iterator<Item = Option<&CStr>>) -> Result<Self> {
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

        // `strings` moves while it grows, so take pointers only now.
        let mut entries = KVVec::with_capacity(starts.len(), GFP_KERNEL)?;
        for &start in &starts {
            let entry = start
                .and_then(|start| strings.get(start..))
                .map_or(ptr::null(), |name: &[u8]| name.as_ptr().cast());
            entries.push(entry, GFP_KERNEL)?;
        }

        // INVARIANT: An entry that is not null points to a copy of a C string; no method changes
        // `_strings`.
        Ok(Self {
            entries,
            _strings: strings,
        })
    }

    /// Returns the number of lines, named or not.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the array of [`Self::len`] pointers for `struct gpio_chip`. It stays valid while
    /// `self` lives, even if `self` is moved.
    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.entries.as_ptr()
    }
}
