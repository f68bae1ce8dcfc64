// SPDX-License-Identifier: GPL-2.0

//! The layout of messages and of the configuration space, as in `virtio_gpio.h`.
//!
//! What the driver sends is built from types that have no invalid values. What the device answers
//! is untrusted: it is decoded here, once, into a value in its range or an error, and nothing
//! beyond this module sees a raw answer.
//!
//! Answers are read from memory that the driver filled with [`Response::POISON`] or
//! [`EventResponse::POISON`], so that a device that claims to have written an answer, but has not,
//! is not taken at its word.
//!
//! C header: [`include/uapi/linux/virtio_gpio.h`](srctree/include/uapi/linux/virtio_gpio.h)

use core::mem::offset_of;

use kernel::{
    irq::TriggerType,
    prelude::*,
    uapi,
    virtio, //
};

use zerocopy::little_endian::{
    U16,
    U32, //
};

use zerocopy_derive::{
    Immutable,
    KnownLayout, //
};

/// The byte that is in a response before the device writes it.
///
/// No status has this value.
pub(crate) const POISON: u8 = 0xff;

/// Direction of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Direction {
    /// The line is not in use.
    None = uapi::VIRTIO_GPIO_DIRECTION_NONE as u8,
    /// The driver drives the line.
    Out = uapi::VIRTIO_GPIO_DIRECTION_OUT as u8,
    /// The driver reads the line.
    In = uapi::VIRTIO_GPIO_DIRECTION_IN as u8,
}

impl TryFrom<u8> for Direction {
    type Error = Error;

    fn try_from(value: u8) -> Result<Self> {
        [Self::None, Self::Out, Self::In]
            .into_iter()
            .find(|&direction| direction as u8 == value)
            .ok_or(EPROTO)
    }
}

/// Decodes the status of an answer.
fn check_status(status: u8) -> Result {
    match u32::from(status) {
        uapi::VIRTIO_GPIO_STATUS_OK => Ok(()),
        uapi::VIRTIO_GPIO_STATUS_ERR => Err(EIO),
        _ => Err(EPROTO),
    }
}

/// Decodes the answer to [`Request::get_names`], of which the device says that it wrote `used`
/// bytes: a `status`, then the names.
///
/// Returns the length of the names that the device has written, at most `size`, the size of the
/// names that it announced.
///
/// # Errors
///
/// - `EIO` if the device refused the message.
/// - `EPROTO` if this is no answer to the message.
pub(crate) fn names_answer(status: u8, used: u32, size: usize) -> Result<usize> {
    match (used as usize).checked_sub(size_of_val(&status)) {
        Some(written) if written <= size => check_status(status).and(Ok(written)),
        _ => Err(EPROTO),
    }
}

/// The part of a message that the device reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Request {
    kind: U16,
    line: U16,
    value: U32,
}

impl Request {
    fn new(kind: u32, line: u16, value: u32) -> Self {
        Self {
            // CAST: The message types fit, the field is what they are defined for.
            kind: U16::new(kind as u16),
            line: U16::new(line),
            value: U32::new(value),
        }
    }

    /// Asks for the names of all lines.
    pub(crate) fn get_names() -> Self {
        Self::new(uapi::VIRTIO_GPIO_MSG_GET_NAMES, 0, 0)
    }

    /// Asks for the direction.
    pub(crate) fn get_direction(line: u16) -> Self {
        Self::new(uapi::VIRTIO_GPIO_MSG_GET_DIRECTION, line, 0)
    }

    /// Sets the direction.
    pub(crate) fn set_direction(line: u16, direction: Direction) -> Self {
        Self::new(uapi::VIRTIO_GPIO_MSG_SET_DIRECTION, line, direction as u32)
    }

    /// Asks for the value.
    pub(crate) fn get_value(line: u16) -> Self {
        Self::new(uapi::VIRTIO_GPIO_MSG_GET_VALUE, line, 0)
    }

    /// Sets the value that the line has when it is an output.
    pub(crate) fn set_value(line: u16, value: bool) -> Self {
        Self::new(uapi::VIRTIO_GPIO_MSG_SET_VALUE, line, value.into())
    }

    /// Sets what makes the line interrupt.
    pub(crate) fn set_irq_type(line: u16, kind: TriggerType) -> Self {
        Self::new(uapi::VIRTIO_GPIO_MSG_IRQ_TYPE, line, kind as u32)
    }

    /// Returns the line that this is about.
    pub(crate) fn line(&self) -> u16 {
        self.line.get()
    }

    /// Returns which of `VIRTIO_GPIO_MSG_*` this is.
    pub(crate) fn kind(&self) -> u32 {
        self.kind.get().into()
    }

    /// Returns what is to be set.
    pub(crate) fn value(&self) -> u32 {
        self.value.get()
    }

    /// Decodes the answer to this request, of which the device says that it wrote `used` bytes.
    ///
    /// Returns what was asked for, in its range: a value of 0 or 1, or one of [`Direction`]. If
    /// nothing was, returns what was set.
    ///
    /// # Errors
    ///
    /// - `EIO` if the device refused the request.
    /// - `EPROTO` if this is no answer to the request.
    pub(crate) fn answer(&self, response: &Response, used: u32) -> Result<u8> {
        if used as usize != size_of::<Response>() {
            return Err(EPROTO);
        }
        check_status(response.status)?;

        match self.kind() {
            uapi::VIRTIO_GPIO_MSG_GET_DIRECTION => Ok(Direction::try_from(response.value)? as u8),
            uapi::VIRTIO_GPIO_MSG_GET_VALUE if response.value > 1 => Err(EPROTO),
            uapi::VIRTIO_GPIO_MSG_GET_VALUE => Ok(response.value),
            // CAST: What the constructors take fits.
            _ => Ok(self.value.get() as u8),
        }
    }
}

/// The part of a message about one line that the device writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Response {
    status: u8,
    value: u8,
}

impl Response {
    /// What the memory holds before the device writes it: not a valid response.
    pub(crate) const POISON: Self = Self {
        status: POISON,
        value: POISON,
    };
}

/// The part of an event buffer that the device reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct EventRequest(U16);

impl EventRequest {
    /// Returns the request to be told of an interrupt of `line`.
    pub(crate) fn new(line: u16) -> Self {
        Self(U16::new(line))
    }
}

/// The part of an event buffer that the device writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct EventResponse(u8);

impl EventResponse {
    /// What the memory holds before the device writes it: not a valid response.
    pub(crate) const POISON: Self = Self(POISON);

    /// Decodes the response, of which the device says that it wrote `used` bytes.
    ///
    /// There are no errors: whatever the device wrote, its buffer is back and something has to be
    /// done with the line.
    pub(crate) fn event(&self, used: u32) -> Event {
        match (used as usize == size_of::<Self>(), self.0.into()) {
            (true, uapi::VIRTIO_GPIO_IRQ_STATUS_VALID) => Event::Valid,
            (true, uapi::VIRTIO_GPIO_IRQ_STATUS_INVALID) => Event::Invalid,
            _ => Event::Odd,
        }
    }
}

/// What the return of an event buffer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Event {
    /// The line has interrupted.
    Valid = uapi::VIRTIO_GPIO_IRQ_STATUS_VALID as u8,
    /// The device gives back a buffer that it has no use for: the interrupt is disabled.
    Invalid = uapi::VIRTIO_GPIO_IRQ_STATUS_INVALID as u8,
    /// The device broke the protocol.
    Odd = POISON,
}

/// Reads the number of lines, and the size of the block of names in bytes, which is zero if the
/// device has no names.
pub(crate) fn read_config(config: &virtio::Config<'_>) -> Result<(u16, u32)> {
    let ngpio: U16 = config.read(offset_of!(uapi::virtio_gpio_config, ngpio))?;
    let names: U32 = config.read(offset_of!(uapi::virtio_gpio_config, gpio_names_size))?;

    Ok((ngpio.get(), names.get()))
}

// The layout is that of the C header, with no padding: the device sees no byte that is not ours.
static_assert!(size_of::<Request>() == size_of::<uapi::virtio_gpio_request>());
static_assert!(offset_of!(Request, kind) == offset_of!(uapi::virtio_gpio_request, type_));
static_assert!(offset_of!(Request, line) == offset_of!(uapi::virtio_gpio_request, gpio));
static_assert!(offset_of!(Request, value) == offset_of!(uapi::virtio_gpio_request, value));
static_assert!(size_of::<Response>() == size_of::<uapi::virtio_gpio_response>());
static_assert!(offset_of!(Response, status) == offset_of!(uapi::virtio_gpio_response, status));
static_assert!(offset_of!(Response, value) == offset_of!(uapi::virtio_gpio_response, value));
static_assert!(size_of::<EventRequest>() == size_of::<uapi::virtio_gpio_irq_request>());
static_assert!(size_of::<EventResponse>() == size_of::<uapi::virtio_gpio_irq_response>());

// The interrupt types have the values of `IRQ_TYPE_*`.
static_assert!(TriggerType::None as u32 == uapi::VIRTIO_GPIO_IRQ_TYPE_NONE);
static_assert!(TriggerType::EdgeRising as u32 == uapi::VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING);
static_assert!(TriggerType::EdgeFalling as u32 == uapi::VIRTIO_GPIO_IRQ_TYPE_EDGE_FALLING);
static_assert!(TriggerType::EdgeBoth as u32 == uapi::VIRTIO_GPIO_IRQ_TYPE_EDGE_BOTH);
static_assert!(TriggerType::LevelHigh as u32 == uapi::VIRTIO_GPIO_IRQ_TYPE_LEVEL_HIGH);
static_assert!(TriggerType::LevelLow as u32 == uapi::VIRTIO_GPIO_IRQ_TYPE_LEVEL_LOW);

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
#[kunit_tests(gpio_virtio_wire)]
mod tests {
    use super::*;

    const OK: u8 = 0;
    const ERR: u8 = 1;

    fn answer(request: Request, status: u8, value: u8) -> Result<u8> {
        request.answer(&Response { status, value }, 2)
    }

    #[test]
    fn request_names() {
        assert_eq!(Request::get_names().as_bytes(), [1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn request_get_direction() {
        assert_eq!(
            Request::get_direction(0x1234).as_bytes(),
            [2, 0, 0x34, 0x12, 0, 0, 0, 0]
        );
    }

    #[test]
    fn request_set_direction() {
        for (direction, value) in [
            (Direction::None, 0),
            (Direction::Out, 1),
            (Direction::In, 2),
        ] {
            assert_eq!(
                Request::set_direction(7, direction).as_bytes(),
                [3, 0, 7, 0, value, 0, 0, 0]
            );
        }
    }

    #[test]
    fn request_get_value() {
        assert_eq!(
            Request::get_value(0xffff).as_bytes(),
            [4, 0, 0xff, 0xff, 0, 0, 0, 0]
        );
    }

    #[test]
    fn request_set_value() {
        for value in [false, true] {
            assert_eq!(
                Request::set_value(256, value).as_bytes(),
                [5, 0, 0, 1, value.into(), 0, 0, 0]
            );
        }
    }

    #[test]
    fn request_set_irq_type() {
        for (kind, value) in [
            (TriggerType::None, 0),
            (TriggerType::EdgeRising, 1),
            (TriggerType::EdgeFalling, 2),
            (TriggerType::EdgeBoth, 3),
            (TriggerType::LevelHigh, 4),
            (TriggerType::LevelLow, 8),
        ] {
            assert_eq!(
                Request::set_irq_type(1, kind).as_bytes(),
                [6, 0, 1, 0, value, 0, 0, 0]
            );
        }
    }

    #[test]
    fn answer_value() {
        assert_eq!(answer(Request::get_value(3), OK, 0), Ok(0));
        assert_eq!(answer(Request::get_value(3), OK, 1), Ok(1));
        for value in 2..=u8::MAX {
            assert_eq!(answer(Request::get_value(3), OK, value), Err(EPROTO));
        }
    }

    #[test]
    fn answer_direction() {
        assert_eq!(
            answer(Request::get_direction(3), OK, 0),
            Ok(Direction::None as u8)
        );
        assert_eq!(
            answer(Request::get_direction(3), OK, 1),
            Ok(Direction::Out as u8)
        );
        assert_eq!(
            answer(Request::get_direction(3), OK, 2),
            Ok(Direction::In as u8)
        );
        for value in 3..=u8::MAX {
            assert_eq!(answer(Request::get_direction(3), OK, value), Err(EPROTO));
        }
    }

    #[test]
    fn answer_without_value() {
        for (request, set) in [
            (Request::set_direction(3, Direction::Out), 1),
            (Request::set_value(3, true), 1),
            (Request::set_value(3, false), 0),
            (Request::set_irq_type(3, TriggerType::LevelLow), 8),
        ] {
            for value in 0..=u8::MAX {
                assert_eq!(answer(request, OK, value), Ok(set));
            }
        }
    }

    #[test]
    fn answer_refused() {
        for request in [
            Request::get_direction(3),
            Request::set_direction(3, Direction::In),
            Request::get_value(3),
            Request::set_value(3, false),
            Request::set_irq_type(3, TriggerType::LevelLow),
        ] {
            // The value of a refusal has no meaning.
            for value in 0..=u8::MAX {
                assert_eq!(answer(request, ERR, value), Err(EIO));
            }
        }
    }

    #[test]
    fn answer_odd_status() {
        for status in 2..=u8::MAX {
            assert_eq!(answer(Request::get_value(3), status, 0), Err(EPROTO));
            assert_eq!(answer(Request::set_value(3, true), status, 0), Err(EPROTO));
        }
    }

    #[test]
    fn answer_not_written() {
        for request in [
            Request::get_direction(3),
            Request::get_value(3),
            Request::set_value(3, true),
        ] {
            assert_eq!(request.answer(&Response::POISON, 2), Err(EPROTO));
        }
    }

    #[test]
    fn answer_odd_length() {
        let response = Response {
            status: OK,
            value: 1,
        };

        for used in [0, 1, 3, 4, 8, u32::MAX] {
            assert_eq!(Request::get_value(3).answer(&response, used), Err(EPROTO));
            assert_eq!(
                Request::set_value(3, true).answer(&response, used),
                Err(EPROTO)
            );
        }
    }

    #[test]
    fn names_whole() {
        assert_eq!(names_answer(OK, 11, 10), Ok(10));
        assert_eq!(names_answer(ERR, 11, 10), Err(EIO));
        assert_eq!(names_answer(POISON, 11, 10), Err(EPROTO));
    }

    #[test]
    fn names_lengths() {
        assert_eq!(names_answer(OK, 0, 10), Err(EPROTO));
        assert_eq!(names_answer(OK, 1, 10), Ok(0));
        assert_eq!(names_answer(ERR, 1, 10), Err(EIO));
        assert_eq!(names_answer(OK, 12, 10), Err(EPROTO));
        assert_eq!(
            names_answer(OK, u32::MAX, usize::MAX),
            Ok(u32::MAX as usize - 1)
        );
    }

    #[test]
    fn events() {
        assert_eq!(EventRequest::new(0x0102).as_bytes(), [2, 1]);
        assert_eq!(EventResponse(0).event(1), Event::Invalid);
        assert_eq!(EventResponse(1).event(1), Event::Valid);
        for status in 2..=u8::MAX {
            assert_eq!(EventResponse(status).event(1), Event::Odd);
        }
        assert_eq!(EventResponse::POISON.event(1), Event::Odd);
        for used in [0, 2, 3, u32::MAX] {
            assert_eq!(EventResponse(1).event(used), Event::Odd);
            assert_eq!(EventResponse(0).event(used), Event::Odd);
        }
    }
}
