// SPDX-License-Identifier: GPL-2.0

//! Tests of the abstractions through gpiolib and genirq, with a chip that logs its callbacks.

use super::*;
use crate::{
    alloc::flags::GFP_KERNEL,
    bitmap::{
        Bitmap,
        BitmapVec, //
    },
    device::{
        Bound,
        Device, //
    },
    error::{
        from_err_ptr,
        to_result, //
    },
    faux,
    irq::{
        self,
        Flags,
        IrqRequest,
        IrqReturn,
        TriggerType, //
    },
    prelude::*,
    str::CStr,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        Completion, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    workqueue, //
};
use core::{
    mem::ManuallyDrop,
    ptr, //
};

const LABEL: &CStr = c"rust-gpio-kunit";

/// More than the bits of a word.
const LINES: u16 = 70;

/// No line.
const NONE: u32 = u32::MAX;

/// The callbacks of a chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Op {
    Request = 1,
    Free,
    Input,
    OutputLow,
    OutputHigh,
    SetLow,
    SetHigh,
    GetMultiple,
    SetMultiple,
    IrqRequest,
    IrqRelease,
    IrqStartup,
    IrqShutdown,
    IrqMask,
    IrqUnmask,
    IrqType,
    IrqLock,
    IrqSync,
}

/// Returns whether a line is in a set.
fn has(set: &Bitmap, line: u32) -> bool {
    set.next_bit(line as usize) == Some(line as usize)
}

/// The log of a chip's callbacks, in order. Any context can write to it.
struct Log {
    used: Atomic<usize>,
    entries: [Atomic<u32>; 64],
}

impl Log {
    fn new() -> Self {
        Self {
            used: Atomic::new(0),
            entries: core::array::from_fn(|_| Atomic::new(0)),
        }
    }

    fn add(&self, op: Op, line: u32) {
        if let Some(entry) = self.entries.get(self.used.fetch_add(1, Full)) {
            entry.store((op as u32) << 16 | line, Relaxed);
        }
    }

    /// Returns whether the log is exactly `expected`, and clears it.
    fn was(&self, expected: &[(Op, u32)]) -> bool {
        let used = self.used.xchg(0, Full);
        let same = used == expected.len()
            && self
                .entries
                .iter()
                .zip(expected)
                .all(|(entry, &(op, line))| entry.load(Relaxed) == (op as u32) << 16 | line);

        if !same {
            for entry in self.entries.iter().take(used) {
                let entry = entry.load(Relaxed);
                pr_info!("op {} of line {}\n", entry >> 16, entry & 0xffff);
            }
        }
        same
    }
}

/// The chip.
#[pin_data]
struct Recorder {
    #[pin]
    domain: IrqDomain,
    log: Log,
    /// Lines that are outputs, and lines that are high.
    outputs: BitmapVec,
    high: BitmapVec,
    /// The length of the last mask.
    wanted: Atomic<usize>,
    /// The line that cannot be used as interrupt.
    refused: Atomic<u32>,
    /// Numbers of requested and of started interrupts.
    requested: Atomic<i32>,
    started: Atomic<i32>,
    /// A slow line: its `irq_bus_sync_unlock()` and `get()` signal that they run, and wait.
    slow: Atomic<u32>,
    #[pin]
    slow_entered: Completion,
    #[pin]
    slow_leave: Completion,
}

impl Recorder {
    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                domain <- IrqDomain::new(),
                log: Log::new(),
                outputs: BitmapVec::new(LINES.into(), GFP_KERNEL)?,
                high: BitmapVec::new(LINES.into(), GFP_KERNEL)?,
                wanted: Atomic::new(0),
                refused: Atomic::new(NONE),
                requested: Atomic::new(0),
                started: Atomic::new(0),
                slow: Atomic::new(NONE),
                slow_entered <- Completion::new(),
                slow_leave <- Completion::new(),
            }? Error),
            GFP_KERNEL,
        )
    }

    fn drive(&self, offset: u32, value: bool) {
        if value {
            self.high.set_bit_atomic(offset as usize);
        } else {
            self.high.clear_bit_atomic(offset as usize);
        }
    }

    fn is_high(&self, offset: u32) -> bool {
        has(&self.high, offset)
    }

    fn linger(&self, offset: u32) {
        if self.slow.load(Relaxed) == offset {
            self.slow_entered.complete_all();
            self.slow_leave.wait_for_completion();
        }
    }
}

#[vtable]
impl Chip for Recorder {
    fn request(&self, offset: u32) -> Result {
        self.log.add(Op::Request, offset);
        Ok(())
    }

    fn free(&self, offset: u32) {
        self.log.add(Op::Free, offset);
    }

    fn get_direction(&self, offset: u32) -> Result<LineDirection> {
        if has(&self.outputs, offset) {
            Ok(LineDirection::Out)
        } else {
            Ok(LineDirection::In)
        }
    }

    fn direction_input(&self, offset: u32) -> Result {
        self.log.add(Op::Input, offset);
        self.outputs.clear_bit_atomic(offset as usize);
        Ok(())
    }

    fn direction_output(&self, offset: u32, value: bool) -> Result {
        let op = if value { Op::OutputHigh } else { Op::OutputLow };

        self.log.add(op, offset);
        self.drive(offset, value);
        self.outputs.set_bit_atomic(offset as usize);
        Ok(())
    }

    fn get(&self, offset: u32) -> Result<bool> {
        self.linger(offset);
        Ok(self.is_high(offset))
    }

    fn set(&self, offset: u32, value: bool) -> Result {
        self.log
            .add(if value { Op::SetHigh } else { Op::SetLow }, offset);
        self.drive(offset, value);
        Ok(())
    }

    fn get_multiple(&self, mask: &Bitmap, bits: &mut Bitmap) -> Result {
        self.log.add(Op::GetMultiple, 0);
        self.wanted.store(mask.len(), Relaxed);
        for line in 0..mask.len() {
            if mask.next_bit(line) == Some(line) && self.is_high(line as u32) {
                bits.set_bit(line);
            }
        }
        Ok(())
    }

    fn set_multiple(&self, mask: &Bitmap, bits: &Bitmap) -> Result {
        let mut next = mask.next_bit(0);

        self.log.add(Op::SetMultiple, 0);
        self.wanted.store(mask.len(), Relaxed);
        while let Some(line) = next {
            self.drive(line as u32, bits.next_bit(line) == Some(line));
            next = mask.next_bit(line + 1);
        }
        Ok(())
    }
}

#[vtable]
impl IrqChip for Recorder {
    const HANDLER: FlowHandler = FlowHandler::Level;

    fn irq_domain(&self) -> &IrqDomain {
        &self.domain
    }

    fn irq_request_resources(&self, offset: u32) -> Result {
        self.log.add(Op::IrqRequest, offset);
        if self.refused.load(Relaxed) == offset {
            return Err(EIO);
        }
        self.requested.fetch_add(1, Relaxed);
        Ok(())
    }

    fn irq_release_resources(&self, offset: u32) {
        self.log.add(Op::IrqRelease, offset);
        self.requested.fetch_sub(1, Relaxed);
    }

    fn irq_startup(&self, offset: u32) {
        self.log.add(Op::IrqStartup, offset);
        self.started.fetch_add(1, Relaxed);
    }

    fn irq_shutdown(&self, offset: u32) {
        self.log.add(Op::IrqShutdown, offset);
        self.started.fetch_sub(1, Relaxed);
    }

    fn irq_mask(&self, offset: u32) {
        self.log.add(Op::IrqMask, offset);
    }

    fn irq_unmask(&self, offset: u32) {
        self.log.add(Op::IrqUnmask, offset);
    }

    fn irq_set_type(&self, offset: u32, trigger: TriggerType) -> Result {
        self.log.add(Op::IrqType, offset);
        if matches!(trigger, TriggerType::LevelHigh | TriggerType::LevelLow) {
            Err(EINVAL)
        } else {
            Ok(())
        }
    }

    fn irq_bus_lock(&self, offset: u32) {
        self.log.add(Op::IrqLock, offset);
    }

    fn irq_bus_sync_unlock(&self, offset: u32) {
        self.log.add(Op::IrqSync, offset);
        self.linger(offset);
    }
}

/// What happened when a device of an [`Edge`] raised an interrupt as the last thing it did.
static LAST_RAISED: Atomic<i32> = Atomic::new(0);

/// A chip with edge interrupts, and with configuration of its lines.
#[pin_data(PinnedDrop)]
struct Edge {
    #[pin]
    domain: IrqDomain,
    /// An interrupt of another chip, on which those of this one depend, if any.
    parent: Atomic<u32>,
    /// The last argument of `set_config()`.
    debounce: Atomic<u32>,
    /// Whether `init_valid_mask()` fails.
    refuses: bool,
    acked: Atomic<u32>,
    masked: Atomic<u32>,
}

impl Edge {
    fn new(refuses: bool) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                domain <- IrqDomain::new(),
                parent: Atomic::new(NONE),
                debounce: Atomic::new(0),
                refuses,
                acked: Atomic::new(0),
                masked: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    fn register(parent: &Parent, chip: &Arc<Self>) -> Result<Registration<Self>> {
        let classes = lock_classes!();

        Registration::with_irq(parent.device(), chip.clone(), info(), classes)
    }
}

#[pinned_drop]
impl PinnedDrop for Edge {
    fn drop(self: Pin<&mut Self>) {
        let raised = self.domain.handle_irq(0);

        LAST_RAISED.store(raised.map_or_else(|err| err.to_errno(), |()| 0), Relaxed);
    }
}

#[vtable]
impl Chip for Edge {
    fn get_direction(&self, _offset: u32) -> Result<LineDirection> {
        Ok(LineDirection::In)
    }

    fn set_config(&self, _offset: u32, config: LineConfig) -> Result {
        match config {
            LineConfig::InputDebounce(time) => {
                self.debounce.store(time, Relaxed);
                Ok(())
            }
            _ => Err(ENOTSUPP),
        }
    }

    fn init_valid_mask(&self, valid: &mut Bitmap) -> Result {
        if self.refuses {
            return Err(EIO);
        }
        valid.clear_bit(68);
        Ok(())
    }
}

#[vtable]
impl IrqChip for Edge {
    const HANDLER: FlowHandler = FlowHandler::Edge;

    fn irq_domain(&self) -> &IrqDomain {
        &self.domain
    }

    fn irq_request_resources(&self, _offset: u32) -> Result {
        match self.parent.load(Relaxed) {
            NONE => Ok(()),
            irq => request_for_good(irq),
        }
    }

    fn irq_release_resources(&self, _offset: u32) {
        let irq = self.parent.load(Relaxed);

        if irq != NONE {
            // SAFETY: As in `request_for_good()`.
            unsafe { bindings::free_irq(irq, ptr::dangling_mut()) };
        }
    }

    fn irq_ack(&self, _offset: u32) {
        self.acked.fetch_add(1, Relaxed);
    }

    fn irq_mask(&self, _offset: u32) {
        self.masked.fetch_add(1, Relaxed);
    }

    fn irq_unmask(&self, _offset: u32) {}

    fn irq_set_type(&self, _offset: u32, _trigger: TriggerType) -> Result {
        Ok(())
    }
}

/// A chip whose edge interrupts need no `irq_ack()`, nor a bus lock.
#[pin_data]
struct Bare {
    #[pin]
    domain: IrqDomain,
}

impl Bare {
    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(pin_init!(Self { domain <- IrqDomain::new() }), GFP_KERNEL)
    }
}

#[vtable]
impl Chip for Bare {
    fn get_direction(&self, _offset: u32) -> Result<LineDirection> {
        Ok(LineDirection::In)
    }
}

#[vtable]
impl IrqChip for Bare {
    const HANDLER: FlowHandler = FlowHandler::Edge;

    fn irq_domain(&self) -> &IrqDomain {
        &self.domain
    }

    fn irq_mask(&self, _offset: u32) {}

    fn irq_unmask(&self, _offset: u32) {}

    fn irq_set_type(&self, _offset: u32, _trigger: TriggerType) -> Result {
        Ok(())
    }
}

/// A chip that implements `get_direction()` only.
struct Mute;

#[vtable]
impl Chip for Mute {
    fn get_direction(&self, _offset: u32) -> Result<LineDirection> {
        Ok(LineDirection::In)
    }
}

fn info<'a>() -> ChipInfo<'a> {
    ChipInfo {
        label: LABEL,
        ngpio: LINES,
        can_sleep: true,
        names: None,
    }
}

/// A device to register chips for.
struct Parent(faux::Registration);

impl Parent {
    fn new() -> Result<Self> {
        Ok(Self(faux::Registration::new(LABEL, None)?))
    }

    fn device(&self) -> &Device<Bound> {
        self.0.bound()
    }
}

/// Registers a chip with interrupts.
fn register(parent: &Parent, chip: &Arc<Recorder>) -> Result<Registration<Recorder>> {
    Registration::with_irq(parent.device(), chip.clone(), info(), lock_classes!())
}

/// A line, requested from the chip with the label of these tests.
struct Line {
    device: *mut bindings::gpio_device,
    desc: *mut bindings::gpio_desc,
}

// SAFETY: Descriptors and devices of gpiolib can be used by any thread.
unsafe impl Send for Line {}

impl Line {
    fn request(offset: u32) -> Result<Self> {
        Self::request_from(LABEL, offset)
    }

    fn request_from(label: &CStr, offset: u32) -> Result<Self> {
        // SAFETY: The label is a C string.
        let device = unsafe { bindings::gpio_device_find_by_label(label.as_char_ptr()) };
        if device.is_null() {
            return Err(ENODEV);
        }

        // SAFETY: `device` was found, thus is valid, and so is its chip for now.
        let desc = from_err_ptr(unsafe {
            bindings::gpiochip_request_own_desc(
                bindings::gpio_device_get_chip(device),
                offset,
                LABEL.as_char_ptr(),
                0,
                0,
            )
        });
        // The reference to the device, taken on finding it, keeps the descriptor valid.
        desc.map(|desc| Self { device, desc })
            // SAFETY: The reference is not needed then.
            .inspect_err(|_| unsafe { bindings::gpio_device_put(device) })
    }

    fn input(&self) -> Result {
        // SAFETY: The descriptor is valid as long as `self` lives.
        to_result(unsafe { bindings::gpiod_direction_input(self.desc) })
    }

    fn output(&self, value: bool) -> Result {
        // SAFETY: As above.
        to_result(unsafe { bindings::gpiod_direction_output(self.desc, value.into()) })
    }

    fn set(&self, value: bool) -> Result {
        // SAFETY: As above.
        to_result(unsafe { bindings::gpiod_set_value_cansleep(self.desc, value.into()) })
    }

    fn get(&self) -> Result<bool> {
        // SAFETY: As above.
        let value = unsafe { bindings::gpiod_get_value_cansleep(self.desc) };

        to_result(value)?;
        Ok(value != 0)
    }

    /// Returns the number of its interrupt.
    fn irq(&self) -> Result<c_uint> {
        // SAFETY: As above.
        let irq = unsafe { bindings::gpiod_to_irq(self.desc) };

        to_result(irq)?;
        Ok(irq as c_uint)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // SAFETY: The descriptor was requested, the reference taken in `request()`.
        unsafe {
            bindings::gpiochip_free_own_desc(self.desc);
            bindings::gpio_device_put(self.device);
        }
    }
}

/// A consumer of an interrupt.
struct Consumer {
    irq: c_uint,
    count: Arc<Atomic<u32>>,
    /// Makes the handler disable its interrupt.
    disables: bool,
}

impl irq::Handler for Consumer {
    fn handle(&self, _dev: &Device<Bound>) -> IrqReturn {
        self.count.fetch_add(1, Relaxed);
        if self.disables {
            // SAFETY: There are no safety requirements for this FFI call.
            unsafe { bindings::disable_irq_nosync(self.irq) };
        }
        IrqReturn::Handled
    }
}

/// A consumer whose handler may be forced into a thread.
struct Forced {
    /// The task in which the handler ran.
    task: Arc<Atomic<i32>>,
}

impl irq::Handler for Forced {
    fn handle(&self, _dev: &Device<Bound>) -> IrqReturn {
        self.task.store(current!().pid(), Relaxed);
        IrqReturn::Handled
    }
}

/// Requests an interrupt; the result has to be dropped before the chip is removed.
///
/// The handler is not forced into a thread: it has returned once the interrupt was raised.
fn consume(
    dev: &Device<Bound>,
    irq: c_uint,
    flags: Flags,
    count: &Arc<Atomic<u32>>,
    disables: bool,
) -> Result<Pin<KBox<irq::Registration<Consumer>>>> {
    // SAFETY: The interrupt is that of a line of the chip of `dev`.
    let request = unsafe { IrqRequest::new(dev, irq) };

    KBox::pin_init(
        irq::Registration::new(
            request,
            flags | Flags::NO_THREAD,
            LABEL,
            Ok::<_, Error>(Consumer {
                irq,
                count: count.clone(),
                disables,
            }),
        ),
        GFP_KERNEL,
    )
}

fn set_type(irq: c_uint, trigger: TriggerType) -> Result {
    // SAFETY: There are no safety requirements for this FFI call.
    to_result(unsafe { bindings::irq_set_irq_type(irq, trigger as u32) })
}

/// Requests an interrupt, which the removal of the chip frees.
fn request_for_good(irq: c_uint) -> Result {
    extern "C" fn handler(_irq: c_int, _cookie: *mut c_void) -> c_uint {
        bindings::irqreturn_IRQ_HANDLED
    }

    // SAFETY: The handler can be called at any time, and the name is static. Nobody follows the
    // cookie, which merely must not be null.
    to_result(unsafe {
        bindings::request_irq(
            irq,
            Some(handler),
            bindings::IRQF_TRIGGER_RISING as c_ulong,
            LABEL.as_char_ptr(),
            ptr::dangling_mut(),
        )
    })
}

/// Runs `job` in a work item, which completes the result at its end.
fn spawn(job: impl FnOnce() + Send + 'static) -> Result<Arc<Completion>> {
    let done = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
    let end = done.clone();

    workqueue::system_long().try_spawn(GFP_KERNEL, move || {
        job();
        end.complete_all();
    })?;
    Ok(done)
}

/// Gives other tasks time to fail the test.
fn a_while() {
    fsleep(Delta::from_millis(30));
}

/// Returns the name of a line, as gpiolib reads it.
fn name_of(names: &LineNames, offset: usize) -> Option<&CStr> {
    // SAFETY: The caller passes the offset of a line, of which each has an entry.
    let name = unsafe { *names.as_ptr().add(offset) };

    // SAFETY: An entry that is not null is a string that lives as long as `names`.
    (!name.is_null()).then(|| unsafe { CStr::from_char_ptr(name) })
}

#[macros::kunit_tests(rust_kernel_gpio)]
mod tests {
    use super::*;

    #[test]
    fn trigger_types() {
        for raw in 0..=u32::from(u16::MAX) {
            let trigger = TriggerType::try_from(raw);

            assert_eq!(trigger.is_ok(), matches!(raw, 0..=4 | 8));
            assert_eq!(trigger.map_or(raw, |trigger| trigger as u32), raw);
        }
        assert_eq!(TriggerType::try_from(u32::MAX), Err(EINVAL));
    }

    #[test]
    fn names_of_lines() -> Result {
        let some =
            LineNames::new(&mut [None, Some(c"a"), Some(c""), Some(c"long name")].into_iter())?;
        let none = LineNames::new(&mut core::iter::empty())?;
        let many =
            LineNames::new(&mut (0..65535).map(|line| (line % 2 == 0).then_some(c"0123456789")))?;

        assert_eq!(some.len(), 4);
        assert!(name_of(&some, 0).is_none());
        assert!(name_of(&some, 1) == Some(c"a"));
        assert!(name_of(&some, 2).is_none());
        assert!(name_of(&some, 3) == Some(c"long name"));
        assert_eq!(none.len(), 0);
        assert_eq!(many.len(), 65535);
        assert!(name_of(&many, 65533).is_none());
        assert!(name_of(&many, 65534) == Some(c"0123456789"));
        Ok(())
    }

    #[test]
    fn lines_are_used() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        chip.outputs.set_bit_atomic(1);
        chip.high.set_bit_atomic(3);
        let chip_of_lines = Registration::new(parent.device(), chip.clone(), info())?;

        let line = Line::request(69)?;
        let requested = chip.log.was(&[(Op::Request, 69)]);
        line.input()?;
        let low = line.get()?;
        chip.high.set_bit_atomic(69);
        let high = line.get()?;
        let read = chip.log.was(&[(Op::Input, 69)]);
        line.output(false)?;
        line.set(true)?;
        let driven = chip.is_high(69);
        line.set(false)?;
        let written = chip
            .log
            .was(&[(Op::OutputLow, 69), (Op::SetHigh, 69), (Op::SetLow, 69)]);
        let irq = line.irq();
        drop(line);
        let freed = chip.log.was(&[(Op::Free, 69)]);

        // Registration reads the direction.
        let output = Line::request(1)?;
        // SAFETY: The descriptor is valid.
        let direction = unsafe { bindings::gpiod_get_direction(output.desc) };
        drop(output);
        let none = Line::request(70).err();
        drop(chip_of_lines);
        let gone = Line::request(0).err();
        drop(parent);

        assert!(requested);
        assert!(!low);
        assert!(high);
        assert!(read);
        assert!(driven);
        assert!(written);
        assert!(freed);
        assert!(irq.is_err());
        assert_eq!(direction, bindings::GPIO_LINE_DIRECTION_OUT as c_int);
        assert_eq!(none, Some(EINVAL));
        assert_eq!(gone, Some(ENODEV));
        Ok(())
    }

    #[test]
    fn several_lines_at_once() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let chip_of_lines = Registration::new(parent.device(), chip.clone(), info())?;
        let lines = [Line::request(2)?, Line::request(68)?];
        let mut descs = [lines[0].desc, lines[1].desc];
        lines[0].output(false)?;
        lines[1].output(false)?;
        chip.log.used.store(0, Relaxed);

        let mut values = 0b10usize;
        // SAFETY: There are as many descriptors and bits.
        let set = to_result(unsafe {
            bindings::gpiod_set_raw_array_value_cansleep(
                2,
                descs.as_mut_ptr(),
                ptr::null_mut(),
                &mut values,
            )
        });
        let were_set = (chip.is_high(2), chip.is_high(68), chip.wanted.xchg(0, Full));

        chip.high.set_bit_atomic(2);
        chip.high.set_bit_atomic(3);
        values = 0;
        // SAFETY: As above.
        let get = to_result(unsafe {
            bindings::gpiod_get_raw_array_value_cansleep(
                2,
                descs.as_mut_ptr(),
                ptr::null_mut(),
                &mut values,
            )
        });
        let was_got = (values, chip.wanted.load(Relaxed));
        let at_once = chip.log.was(&[(Op::SetMultiple, 0), (Op::GetMultiple, 0)]);

        drop(lines);
        drop(chip_of_lines);
        drop(parent);
        assert_eq!(set, Ok(()));
        assert_eq!(were_set, (false, true, 69));
        assert_eq!(get, Ok(()));
        assert_eq!(was_got, (0b11, 69));
        assert!(at_once);
        Ok(())
    }

    #[test]
    fn only_wanted_bits_are_touched() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let chip_of_lines = Registration::new(parent.device(), chip.clone(), info())?;
        let line = Line::request(0)?;
        // SAFETY: The device is valid as long as `line` lives.
        let gc = unsafe { bindings::gpio_device_get_chip(line.device) };
        // SAFETY: The chip is registered.
        let callback = unsafe { (*gc).get_multiple }.ok_or(ENOTSUPP)?;

        // As from a consumer of the first four lines: there is no second word of values.
        let mut mask = [0b1110usize, 0];
        let mut bits = [!0b0100usize, !0];
        chip.high.set_bit_atomic(0);
        chip.high.set_bit_atomic(1);
        // SAFETY: The mask is of all lines, the values are of those up to the last one in it.
        let ret = unsafe { callback(gc, mask.as_mut_ptr(), bits.as_mut_ptr()) };
        let length = chip.wanted.xchg(0, Full);

        mask = [0, 0];
        // SAFETY: As above.
        let nothing = unsafe { callback(gc, mask.as_mut_ptr(), ptr::null_mut()) };
        drop(line);
        drop(chip_of_lines);
        drop(parent);

        assert_eq!(ret, 0);
        assert_eq!(length, 4);
        assert_eq!(bits, [!0b1100, !0]);
        assert_eq!(nothing, 0);
        assert_eq!(chip.wanted.load(Relaxed), 0);
        Ok(())
    }

    #[test]
    fn missing_operations_are_missing() -> Result {
        let parent = Parent::new()?;
        let chip = Arc::new(Mute, GFP_KERNEL)?;
        let chip_of_lines = Registration::new(parent.device(), chip, info())?;
        let line = Line::request(0)?;
        let output = line.output(true);
        let get = line.get();

        drop(line);
        drop(chip_of_lines);
        drop(parent);
        assert_eq!(output, Err(EIO));
        assert_eq!(get, Err(EIO));
        Ok(())
    }

    #[test]
    fn chips_that_do_not_fit() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let no_lines = Registration::with_irq(
            parent.device(),
            chip.clone(),
            ChipInfo { ngpio: 0, ..info() },
            lock_classes!(),
        )
        .err();
        let few_names = Registration::with_irq(
            parent.device(),
            chip.clone(),
            ChipInfo {
                names: Some(LineNames::new(&mut [Some(c"one")].into_iter())?),
                ..info()
            },
            lock_classes!(),
        )
        .err();
        // Neither failure keeps the chip's domain connected.
        let good = register(&parent, &chip);
        let is_good = good.is_ok();
        drop(good);
        drop(parent);

        assert_eq!(no_lines, Some(EINVAL));
        assert_eq!(few_names, Some(EINVAL));
        assert!(is_good);
        Ok(())
    }

    #[test]
    fn names_are_known() -> Result {
        let parent = Parent::new()?;
        let names =
            LineNames::new(&mut (0..LINES).map(|line| (line == 7).then_some(c"the seventh line")))?;
        let chip_of_lines = Registration::new(
            parent.device(),
            Arc::new(Mute, GFP_KERNEL)?,
            ChipInfo {
                names: Some(names),
                ..info()
            },
        )?;
        let line = Line::request(0)?;
        // SAFETY: The device is valid as long as `line` lives, the chip is registered.
        let name = unsafe { *(*bindings::gpio_device_get_chip(line.device)).names.add(7) };
        // SAFETY: gpiolib takes it for a C string, too.
        let is_known = unsafe { CStr::from_char_ptr(name) } == c"the seventh line";

        drop(line);
        drop(chip_of_lines);
        drop(parent);
        assert!(is_known);
        Ok(())
    }

    #[test]
    fn interrupts_are_delivered() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let count = Arc::new(Atomic::new(0u32), GFP_KERNEL)?;
        let too_early = chip.domain.handle_irq(5);
        let chip_of_lines = register(&parent, &chip)?;
        let line = Line::request(5)?;
        let irq = line.irq()?;
        let unwanted = chip.domain.handle_irq(6);
        let no_line = chip.domain.handle_irq(LINES.into());
        chip.log.used.store(0, Relaxed);

        let consumer = consume(parent.device(), irq, Flags::TRIGGER_RISING, &count, false)?;
        let requested = chip.log.was(&[
            (Op::IrqLock, 5),
            (Op::IrqRequest, 5),
            (Op::IrqType, 5),
            (Op::IrqStartup, 5),
            (Op::IrqSync, 5),
        ]);
        let output = line.output(true);
        let first = chip.domain.handle_irq(5);
        let second = chip.domain.handle_irq(5);
        let raised = chip.log.was(&[
            (Op::IrqMask, 5),
            (Op::IrqUnmask, 5),
            (Op::IrqMask, 5),
            (Op::IrqUnmask, 5),
        ]);
        let counted = count.load(Relaxed);
        drop(consumer);
        let freed = chip.log.was(&[
            (Op::IrqLock, 5),
            (Op::IrqShutdown, 5),
            (Op::IrqSync, 5),
            (Op::IrqLock, 5),
            (Op::IrqRelease, 5),
            (Op::IrqSync, 5),
        ]);
        // The line is no longer marked as interrupt, which would prevent this.
        let output_after = line.output(true);

        line.input()?;
        chip.log.used.store(0, Relaxed);
        let refused = consume(parent.device(), irq, Flags::TRIGGER_HIGH, &count, false).err();
        let tried = chip.log.was(&[
            (Op::IrqLock, 5),
            (Op::IrqRequest, 5),
            (Op::IrqType, 5),
            (Op::IrqRelease, 5),
            (Op::IrqSync, 5),
        ]);
        drop(line);
        drop(chip_of_lines);
        let too_late = chip.domain.handle_irq(5);
        drop(parent);

        assert_eq!(too_early, Err(ENODEV));
        assert_eq!(unwanted, Err(EINVAL));
        assert_eq!(no_line, Err(EINVAL));
        assert!(requested);
        assert_eq!(output, Err(EIO));
        assert_eq!(first, Ok(()));
        assert_eq!(second, Ok(()));
        assert!(raised);
        assert_eq!(counted, 2);
        assert!(freed);
        assert_eq!(output_after, Ok(()));
        assert_eq!(refused, Some(EINVAL));
        assert!(tried);
        assert_eq!(too_late, Err(ENODEV));
        Ok(())
    }

    #[test]
    fn interrupts_are_kept_while_disabled() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let count = Arc::new(Atomic::new(0u32), GFP_KERNEL)?;
        let chip_of_lines = register(&parent, &chip)?;
        let line = Line::request(0)?;
        let irq = line.irq()?;
        let consumer = consume(parent.device(), irq, Flags::TRIGGER_RISING, &count, false)?;
        chip.log.used.store(0, Relaxed);

        // SAFETY: There are no safety requirements for this FFI call.
        unsafe { bindings::disable_irq(irq) };
        let disabled = chip.log.was(&[(Op::IrqLock, 0), (Op::IrqSync, 0)]);
        let raised = chip.domain.handle_irq(0);
        let masked = chip.log.was(&[(Op::IrqMask, 0)]);
        let before = count.load(Relaxed);
        // SAFETY: As above.
        unsafe { bindings::enable_irq(irq) };
        a_while();
        let after = count.load(Relaxed);
        drop(consumer);
        drop(line);
        drop(chip_of_lines);
        drop(parent);

        assert!(disabled);
        assert_eq!(raised, Ok(()));
        assert!(masked);
        assert_eq!(before, 0);
        assert_eq!(after, 1);
        Ok(())
    }

    #[test]
    fn handlers_may_disable() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let count = Arc::new(Atomic::new(0u32), GFP_KERNEL)?;
        let chip_of_lines = register(&parent, &chip)?;
        let line = Line::request(0)?;
        let irq = line.irq()?;
        let consumer = consume(parent.device(), irq, Flags::TRIGGER_RISING, &count, true)?;
        chip.log.used.store(0, Relaxed);

        let raised = chip.domain.handle_irq(0);
        // No bus lock, no unmasking.
        let masked = chip.log.was(&[(Op::IrqMask, 0)]);
        // SAFETY: There are no safety requirements for this FFI call.
        unsafe { bindings::enable_irq(irq) };
        let unmasked = chip
            .log
            .was(&[(Op::IrqLock, 0), (Op::IrqUnmask, 0), (Op::IrqSync, 0)]);
        drop(consumer);
        drop(line);
        drop(chip_of_lines);
        drop(parent);

        assert_eq!(raised, Ok(()));
        assert!(masked);
        assert!(unmasked);
        assert_eq!(count.load(Relaxed), 1);
        Ok(())
    }

    /// With `threadirqs` the handler is a thread, at the end of which the chip must be told to
    /// unmask the line: with the bus lock, or a chip that tells its hardware then never does.
    #[test]
    fn forced_threads_end_with_the_bus_lock() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let task = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let chip_of_lines = register(&parent, &chip)?;
        let line = Line::request(0)?;
        // SAFETY: The interrupt is that of a line of the chip of `dev`.
        let request = unsafe { IrqRequest::new(parent.device(), line.irq()?) };
        let consumer = KBox::pin_init(
            irq::Registration::new(
                request,
                Flags::TRIGGER_RISING,
                LABEL,
                Ok::<_, Error>(Forced { task: task.clone() }),
            ),
            GFP_KERNEL,
        )?;
        chip.log.used.store(0, Relaxed);

        let has_ended = || {
            if task.load(Relaxed) == current!().pid() {
                chip.log.was(&[(Op::IrqMask, 0), (Op::IrqUnmask, 0)])
            } else {
                chip.log.was(&[
                    (Op::IrqMask, 0),
                    (Op::IrqLock, 0),
                    (Op::IrqUnmask, 0),
                    (Op::IrqSync, 0),
                ])
            }
        };
        let raised = chip.domain.handle_irq(0);
        // The thread may have to wait for a processor.
        let ended = (0..300).any(|_| {
            a_while();
            has_ended()
        });
        drop(consumer);
        drop(line);
        drop(chip_of_lines);
        drop(parent);

        assert_eq!(raised, Ok(()));
        assert!(task.load(Relaxed) != 0);
        assert!(ended);
        Ok(())
    }

    #[test]
    fn refused_interrupts_leave_nothing() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let count = Arc::new(Atomic::new(0u32), GFP_KERNEL)?;
        let chip_of_lines = register(&parent, &chip)?;
        let line = Line::request(3)?;
        let irq = line.irq()?;
        chip.log.used.store(0, Relaxed);

        chip.refused.store(3, Relaxed);
        let refused = consume(parent.device(), irq, Flags::TRIGGER_RISING, &count, false).err();
        let asked = chip
            .log
            .was(&[(Op::IrqLock, 3), (Op::IrqRequest, 3), (Op::IrqSync, 3)]);
        // The line is not marked as interrupt.
        let output = line.output(false);
        chip.log.used.store(0, Relaxed);
        // gpiolib refuses an output before the chip is asked.
        let as_output = consume(parent.device(), irq, Flags::TRIGGER_RISING, &count, false).err();
        let not_asked = chip.log.was(&[(Op::IrqLock, 3), (Op::IrqSync, 3)]);
        chip.refused.store(NONE, Relaxed);
        line.input()?;
        let good = consume(parent.device(), irq, Flags::TRIGGER_RISING, &count, false);
        let is_good = good.is_ok();
        drop(good);
        drop(line);
        drop(chip_of_lines);
        drop(parent);

        assert_eq!(refused, Some(EIO));
        assert!(asked);
        assert_eq!(output, Ok(()));
        assert_eq!(as_output, Some(EIO));
        assert!(not_asked);
        assert!(is_good);
        Ok(())
    }

    #[test]
    fn a_domain_has_one_chip() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let first = register(&parent, &chip)?;
        let second = register(&parent, &chip).err();
        // The failure does not disconnect the first one.
        let still = chip.domain.handle_irq(0);
        drop(first);
        let gone = chip.domain.handle_irq(0);
        let again = register(&parent, &chip);
        let is_again = again.is_ok();
        drop(again);
        drop(parent);

        assert_eq!(second, Some(EBUSY));
        assert_eq!(still, Err(EINVAL));
        assert_eq!(gone, Err(ENODEV));
        assert!(is_again);
        Ok(())
    }

    #[test]
    fn early_interrupts_are_not_lost() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let count = Arc::new(Atomic::new(0u32), GFP_KERNEL)?;
        let chip_of_lines = register(&parent, &chip)?;
        let line = Line::request(66)?;
        let irq = line.irq()?;
        let consumer = consume(parent.device(), irq, Flags::TRIGGER_RISING, &count, false)?;

        // The lines of another chip that is being registered.
        let other = Bare::new()?;
        let lines = irqchip::IrqLines::new(&other, LINES.into())?;
        let early = other.domain.handle_irq(66);
        let out_of_range = other.domain.handle_irq(LINES.into());
        let before = count.load(Relaxed);
        // SAFETY: The chip of the domain is removed after `lines` are dropped.
        unsafe {
            lines.open((*bindings::gpio_device_get_chip(line.device)).irq.domain);
        }
        let after = count.load(Relaxed);
        let now = other.domain.handle_irq(66);
        let last = count.load(Relaxed);
        drop(lines);
        let gone = other.domain.handle_irq(66);
        drop(consumer);
        drop(line);
        drop(chip_of_lines);
        drop(parent);

        assert_eq!(early, Ok(()));
        assert_eq!(out_of_range, Err(EINVAL));
        assert_eq!(before, 0);
        assert_eq!(after, 1);
        assert_eq!(now, Ok(()));
        assert_eq!(last, 2);
        assert_eq!(gone, Err(ENODEV));
        Ok(())
    }

    #[test]
    fn a_slow_line_stops_no_other() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let chip_of_lines = register(&parent, &chip)?;
        let lines = [Line::request(0)?, Line::request(1)?];
        let irqs = [lines[0].irq()?, lines[1].irq()?];
        chip.slow.store(0, Relaxed);

        let first = spawn(move || {
            let _ = set_type(irqs[0], TriggerType::EdgeRising);
        })?;
        chip.slow_entered.wait_for_completion();
        // Would deadlock if the lock were one per chip.
        let other_line = set_type(irqs[1], TriggerType::EdgeRising);
        chip.log.used.store(0, Relaxed);
        let second = spawn(move || {
            let _ = set_type(irqs[0], TriggerType::EdgeFalling);
        })?;
        a_while();
        let waits = chip.log.was(&[]);
        chip.slow_leave.complete_all();
        first.wait_for_completion();
        second.wait_for_completion();
        let went_on = chip
            .log
            .was(&[(Op::IrqLock, 0), (Op::IrqType, 0), (Op::IrqSync, 0)]);
        drop(lines);
        drop(chip_of_lines);
        drop(parent);

        assert_eq!(other_line, Ok(()));
        assert!(waits);
        assert!(went_on);
        Ok(())
    }

    #[test]
    fn removal_waits_for_operations() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let chip_of_lines = register(&parent, &chip)?;
        let line = Line::request(0)?;
        let irq = line.irq()?;
        chip.slow.store(0, Relaxed);
        let operation = spawn(move || {
            let _ = set_type(irq, TriggerType::EdgeRising);
        })?;
        chip.slow_entered.wait_for_completion();
        drop(line);

        let removed = Arc::new(Atomic::new(0u32), GFP_KERNEL)?;
        let flag = removed.clone();
        let removal = spawn(move || {
            drop(chip_of_lines);
            flag.store(1, Relaxed);
        })?;
        // Even a removal that waits for no callback takes grace periods.
        for _ in 0..8 {
            a_while();
        }
        let too_soon = removed.load(Relaxed);
        let withdrawn = chip.domain.handle_irq(0);
        chip.slow_leave.complete_all();
        operation.wait_for_completion();
        removal.wait_for_completion();
        drop(parent);

        assert_eq!(too_soon, 0);
        assert_eq!(withdrawn, Err(ENODEV));
        assert_eq!(removed.load(Relaxed), 1);
        Ok(())
    }

    #[test]
    fn removal_frees_interrupts() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let count = Arc::new(Atomic::new(0u32), GFP_KERNEL)?;
        let chip_of_lines = register(&parent, &chip)?;
        let line = Line::request(9)?;
        let irq = line.irq()?;
        let consumer = consume(parent.device(), irq, Flags::TRIGGER_FALLING, &count, false)?;
        chip.log.used.store(0, Relaxed);

        drop(chip_of_lines);
        let freed = chip.log.was(&[
            (Op::IrqLock, 9),
            (Op::IrqShutdown, 9),
            (Op::IrqSync, 9),
            (Op::IrqLock, 9),
            (Op::IrqRelease, 9),
            (Op::IrqSync, 9),
        ]);
        let get = line.get();
        drop(line);
        // The removal has freed the interrupt.
        drop(consumer);
        drop(parent);

        assert!(freed);
        assert_eq!(get, Err(ENODEV));
        Ok(())
    }

    /// A call may be about to use an interrupt that it has just requested.
    #[test]
    fn removal_frees_no_interrupt_while_calls_run() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let chip_of_lines = register(&parent, &chip)?;
        request_for_good(Line::request(9)?.irq()?)?;
        let line = Line::request(0)?;
        chip.slow.store(0, Relaxed);
        let call = spawn(move || {
            let _ = line.get();
        })?;
        chip.slow_entered.wait_for_completion();

        let removal = spawn(move || drop(chip_of_lines))?;
        // Grace periods have to pass first.
        for _ in 0..8 {
            a_while();
        }
        let refused = chip.domain.handle_irq(9);
        let kept = chip.started.load(Relaxed);
        chip.slow_leave.complete_all();
        call.wait_for_completion();
        removal.wait_for_completion();
        drop(parent);

        assert_eq!(refused, Err(ENODEV));
        assert_eq!(kept, 1);
        assert_eq!(chip.started.load(Relaxed), 0);
        Ok(())
    }

    #[test]
    fn removal_races_with_interrupts() -> Result {
        let mut accepted = 0;
        let mut too_late = 0;
        let mut left = 0;

        for round in 0..20 {
            let parent = Parent::new()?;
            let chip = Recorder::new()?;
            let chip_of_lines = register(&parent, &chip)?;
            let line = Line::request(0)?;
            let irq = line.irq()?;
            drop(line);

            let theirs = chip.clone();
            let device = spawn(move || {
                // Fails while there is no consumer.
                while theirs.domain.handle_irq(0) != Err(ENODEV) {
                    fsleep(Delta::from_micros(20));
                }
            })?;

            // Not while the chip goes: gpiolib would free what genirq still sets up, as this is no
            // system call.
            if round % 2 == 0 {
                accepted += i32::from(request_for_good(irq).is_ok());
            }
            fsleep(Delta::from_micros(50 * round));
            drop(chip_of_lines);
            if round % 2 == 1 {
                too_late += i32::from(request_for_good(irq).is_ok());
            }
            device.wait_for_completion();
            drop(parent);
            left += chip.requested.load(Relaxed) + chip.started.load(Relaxed);
        }

        assert_eq!(accepted, 10);
        assert_eq!(too_late, 0);
        assert_eq!(left, 0);
        Ok(())
    }

    #[test]
    fn edges_are_acknowledged() -> Result {
        let parent = Parent::new()?;
        let chip = Edge::new(false)?;
        let count = Arc::new(Atomic::new(0u32), GFP_KERNEL)?;
        let chip_of_lines = Edge::register(&parent, &chip)?;
        let line = Line::request(69)?;
        let irq = line.irq()?;
        let consumer = consume(parent.device(), irq, Flags::TRIGGER_RISING, &count, false)?;
        chip.acked.store(0, Relaxed);

        let raised = chip.domain.handle_irq(69);
        let seen = (
            chip.acked.load(Relaxed),
            chip.masked.load(Relaxed),
            count.load(Relaxed),
        );
        drop(consumer);
        drop(line);
        drop(chip_of_lines);
        drop(parent);

        assert_eq!(raised, Ok(()));
        assert_eq!(seen, (1, 0, 1));
        Ok(())
    }

    /// `handle_edge_irq()` calls `irq_ack` even if it is not set.
    #[test]
    fn edges_need_no_acknowledgement() -> Result {
        let parent = Parent::new()?;
        let chip = Bare::new()?;
        let count = Arc::new(Atomic::new(0u32), GFP_KERNEL)?;
        let chip_of_lines =
            Registration::with_irq(parent.device(), chip.clone(), info(), lock_classes!())?;
        let line = Line::request(0)?;
        let irq = line.irq()?;
        let consumer = consume(parent.device(), irq, Flags::TRIGGER_RISING, &count, false)?;

        let raised = chip.domain.handle_irq(0);
        let counted = count.load(Relaxed);
        drop(consumer);
        drop(line);
        drop(chip_of_lines);
        drop(parent);

        assert_eq!(raised, Ok(()));
        assert_eq!(counted, 1);
        Ok(())
    }

    #[test]
    fn lines_are_configured() -> Result {
        let parent = Parent::new()?;
        let chip = Edge::new(false)?;
        let chip_of_lines = Edge::register(&parent, &chip)?;
        let line = Line::request(1)?;
        // SAFETY: The descriptor is valid as long as `line` lives.
        let set = unsafe { bindings::gpiod_set_debounce(line.desc, 1234) };
        let config = (bindings::pin_config_param_PIN_CONFIG_DRIVE_PUSH_PULL) as usize;
        // SAFETY: As above.
        let other = unsafe { bindings::gpiod_set_config(line.desc, config) };
        let invalid = Line::request(68).err();
        drop(line);
        drop(chip_of_lines);
        drop(parent);

        assert_eq!(set, 0);
        assert_eq!(chip.debounce.load(Relaxed), 1234);
        assert_eq!(other, ENOTSUPP.to_errno());
        assert_eq!(invalid, Some(EINVAL));
        assert_eq!(LineConfig::try_from(0xff), Err(ENOTSUPP));
        Ok(())
    }

    #[test]
    fn a_failing_registration_leaves_nothing() -> Result {
        let parent = Parent::new()?;
        let chip = Edge::new(true)?;
        let names = LineNames::new(&mut (0..LINES).map(|_| Some(c"a line")))?;
        let failed = Registration::with_irq(
            parent.device(),
            chip.clone(),
            ChipInfo {
                names: Some(names),
                ..info()
            },
            lock_classes!(),
        )
        .err();
        let raised = chip.domain.handle_irq(0);
        let again = Edge::register(&parent, &chip).err();
        drop(parent);

        assert_eq!(failed, Some(EIO));
        assert_eq!(raised, Err(ENODEV));
        assert_eq!(again, Some(EIO));
        Ok(())
    }

    /// The domain that they disconnect on drop is in the chip.
    #[test]
    fn lines_keep_their_chip() -> Result {
        let chip = Edge::new(false)?;
        let lines = irqchip::IrqLines::new(&chip, LINES.into())?;

        LAST_RAISED.store(1, Relaxed);
        drop(chip);
        let kept = LAST_RAISED.load(Relaxed);
        drop(lines);

        assert_eq!(kept, 1);
        assert_eq!(LAST_RAISED.load(Relaxed), ENODEV.to_errno());
        Ok(())
    }

    #[test]
    fn a_failing_registration_drops_the_chip_last() -> Result {
        let parent = Parent::new()?;
        let classes = lock_classes!();

        LAST_RAISED.store(0, Relaxed);
        let failed =
            Registration::with_irq(parent.device(), Edge::new(true)?, info(), classes).err();
        drop(parent);

        assert_eq!(failed, Some(EIO));
        assert_eq!(LAST_RAISED.load(Relaxed), ENODEV.to_errno());
        Ok(())
    }

    /// With one lock class for all chips, lockdep reports a recursion.
    #[test]
    fn chips_may_nest() -> Result {
        let parent = Parent::new()?;
        let inner = Recorder::new()?;
        let inner_of_lines = register(&parent, &inner)?;
        let irq = Line::request(3)?.irq()?;
        let outer = Edge::new(false)?;
        let outer_of_lines = Registration::with_irq(
            parent.device(),
            outer.clone(),
            ChipInfo {
                label: c"rust-gpio-kunit-outer",
                ..info()
            },
            lock_classes!(),
        )?;
        outer.parent.store(irq, Relaxed);
        // SAFETY: It is but read.
        let before = unsafe { ptr::addr_of!(bindings::debug_locks).read_volatile() };

        let line = Line::request_from(c"rust-gpio-kunit-outer", 3)?;
        let requested = request_for_good(line.irq()?);
        let nested = inner.requested.load(Relaxed);
        drop(line);
        // Frees the interrupt of the inner chip, too.
        drop(outer_of_lines);
        let left = inner.requested.load(Relaxed);
        // SAFETY: As above.
        let after = unsafe { ptr::addr_of!(bindings::debug_locks).read_volatile() };
        drop(inner_of_lines);
        drop(parent);

        assert_eq!(requested, Ok(()));
        assert_eq!((nested, left), (1, 0));
        assert_eq!(after, before);
        Ok(())
    }

    #[test]
    fn a_leaked_chip_ends_with_its_device() -> Result {
        let parent = Parent::new()?;
        let chip = Recorder::new()?;
        let registration = ManuallyDrop::new(register(&parent, &chip)?);
        let is_there = Line::request(0).is_ok();
        drop(parent);
        let gone = Line::request(0).err();
        let raised = chip.domain.handle_irq(0);
        // Nothing leaks.
        drop(ManuallyDrop::into_inner(registration));

        assert!(is_there);
        assert_eq!(gone, Some(ENODEV));
        assert_eq!(raised, Err(ENODEV));
        Ok(())
    }
}
