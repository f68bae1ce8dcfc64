// SPDX-License-Identifier: GPL-2.0

//! The operations of a GPIO controller, and how gpiolib gets at them.
//!
//! C header: [`include/linux/gpio/driver.h`](srctree/include/linux/gpio/driver.h)

use super::{
    registration::Inner,
    LineDirection, //
};
use crate::{
    bindings,
    bitmap::Bitmap,
    error::{
        from_result,
        VTABLE_DEFAULT_ERROR, //
    },
    prelude::*,
    types::Opaque, //
};
use core::marker::PhantomData;

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
/// An error of an operation goes on to whoever asked for it, from user space too.
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
    ///
    /// There are at least two lines, if the chip has [`Chip::get`] for a single one.
    fn get_multiple(&self, _mask: &Bitmap, _bits: &mut Bitmap) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Lets all lines of `mask`, which are outputs, drive the values that `bits` has for them.
    ///
    /// Both have the same length, which ends with the last line that is wanted. Bits outside of the
    /// mask have no meaning.
    ///
    /// There are at least two lines, if the chip has [`Chip::set`] for a single one.
    fn set_multiple(&self, _mask: &Bitmap, _bits: &Bitmap) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
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
        ..pin_init::zeroed()
    };

    /// Gets at the Rust side of a chip.
    ///
    /// `gpiochip_get_data()` is of no use for it: gpiolib clears that pointer while it removes the
    /// chip.
    ///
    /// # Safety
    ///
    /// `gc` must be the `gc` of an `Inner<T>` whose `parts` are initialised, and which outlives
    /// `'a`.
    unsafe fn chip<'a>(gc: *mut bindings::gpio_chip) -> &'a T {
        // SAFETY: By the safety requirements, `gc` is within an `Inner<T>`.
        let inner = unsafe { Inner::<T>::from_gc(gc) };

        // SAFETY: By the safety requirements, `parts` are initialised and live for `'a`; nobody
        // changes them as long as gpiolib has the chip.
        unsafe { &(*inner).parts.chip }
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

        if T::HAS_GET {
            // SAFETY: As above; gpiolib does not change the mask during the call.
            if let Some(only) = unsafe { OnlyLine::of(gc, mask) } {
                let high = match chip.get(only.line) {
                    Ok(high) => high,
                    Err(err) => return err.to_errno(),
                };
                // SAFETY: As above, `bits` has this word, and it is gpiolib's own for the duration
                // of the call. In C it is just memory, also without a value.
                let word = unsafe { &mut *bits.add(only.word) };

                *word = *word & !only.bit | if high { only.bit } else { 0 };
                return 0;
            }
        }

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

        if T::HAS_SET {
            // SAFETY: As above; gpiolib does not change the mask during the call.
            if let Some(only) = unsafe { OnlyLine::of(gc, mask) } {
                // SAFETY: As in `get_multiple_callback()`; nobody changes the bits.
                let high = unsafe { *bits.add(only.word) } & only.bit != 0;

                return from_result(|| chip.set(only.line, high).map(|()| 0));
            }
        }

        // SAFETY: As above; gpiolib does not change the mask during the call.
        let Some(mask) = (unsafe { wanted_lines(gc, mask) }) else {
            return 0;
        };

        // SAFETY: As in `get_multiple_callback()`; nobody changes the bits during the call.
        let bits = unsafe { Bitmap::from_raw(bits, mask.len()) };

        from_result(|| chip.set_multiple(mask, bits).map(|()| 0))
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

/// The line of a mask of just one.
///
/// That is what the character device asks for mostly, and a chip can do it without care for many.
struct OnlyLine {
    line: c_uint,
    /// Where it is in a bitmap.
    word: usize,
    bit: usize,
}

impl OnlyLine {
    const BITS: usize = usize::BITS as usize;

    /// Returns the line in `mask` if there is no other.
    ///
    /// # Safety
    ///
    /// As for [`wanted_lines`], during the call.
    #[inline]
    unsafe fn of(gc: *mut bindings::gpio_chip, mask: *const usize) -> Option<Self> {
        // SAFETY: `gc` is valid; the number of lines does not change after registration.
        let lines = usize::from(unsafe { (*gc).ngpio });

        if lines > Self::BITS {
            // SAFETY: By the safety requirements; bitmaps are made of whole words.
            return Self::among(lines, unsafe {
                core::slice::from_raw_parts(mask, lines.div_ceil(Self::BITS))
            });
        }

        // SAFETY: As above, and a chip has at least one line.
        Self::at(lines, 0, unsafe { *mask })
    }

    /// Returns the line in these `words` if there is no other.
    fn among(lines: usize, words: &[usize]) -> Option<Self> {
        let rest = without_leading_zeros(words);
        let word = words.len() - rest.len();
        let (&bit, others) = rest.split_first()?;

        if !without_leading_zeros(others).is_empty() {
            return None;
        }
        Self::at(lines, word, bit)
    }

    /// Returns the line of the only `bit` of `word`, if it is one of `lines`.
    #[inline]
    fn at(lines: usize, word: usize, bit: usize) -> Option<Self> {
        let line = word * Self::BITS + bit.trailing_zeros() as usize;

        // Lines number from 0 to 65534.
        (bit.is_power_of_two() && line < lines).then_some(Self {
            line: line as c_uint,
            word,
            bit,
        })
    }
}

/// Returns the words from the first one on that is not zero.
#[inline]
fn without_leading_zeros(mut words: &[usize]) -> &[usize] {
    // A chip may have a thousand words, next to all of them zero: one branch for several.
    while let Some(([a, b, c, d, e, f, g, h], others)) = words.split_first_chunk() {
        if a | b | c | d | e | f | g | h != 0 {
            break;
        }
        words = others;
    }
    while let [0, others @ ..] = words {
        words = others;
    }
    words
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

impl<T: Chip> Inner<T> {
    /// Gets at what a chip is embedded in.
    ///
    /// # Safety
    ///
    /// `gc` must be the `gc` of an `Inner<T>`.
    pub(super) unsafe fn from_gc(gc: *mut bindings::gpio_chip) -> *const Self {
        // SAFETY: By the safety requirements.
        unsafe { kernel::container_of!(Opaque::cast_from(gc), Self, gc) }
    }
}
