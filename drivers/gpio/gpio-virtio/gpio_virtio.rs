// SPDX-License-Identifier: GPL-2.0

//! Driver for virtio GPIO controllers: probe and unbind.
//!
//! - This file: probe, module parameters, work items, and what happens on unbind ([`Running`]).
//! - [`chip`]: the operations of `struct gpio_chip` and `struct irq_chip`.
//! - [`Requests`], in `rust/kernel/virtio/requests.rs`: sends requests, and waits for answers.
//! - [`events`]: takes events off the eventq, and sends what `irq_bus_sync_unlock()` has to.
//! - [`irq_line`]: the state machine of a line's interrupt; [`lines`]: all that is known of lines.
//! - [`reset`]: what resume does, and the recovery of a device that needs a reset.
//! - Suspend, in `rust/kernel/virtio/binding.rs`: the bus closes the queues. Requests in flight
//!   fail, later ones wait for the resume. If interrupts may wake the system up,
//!   then the queues stay open: [`VirtioGpio::sleep`].
//! - [`wire`] and [`names`]: the layout of messages and of the block of names.
//!
//! # Limits
//!
//! - The device has no message for bias, drive mode or debounce, so there is no `set_config`.
//! - Interrupts of more lines than the eventq has room for take turns at being armed.

use kernel::{
    device::Core,
    gpio,
    impl_has_delayed_work,
    new_delayed_work,
    new_mutex,
    new_raw_spinlock,
    prelude::*,
    static_lock_class,
    sync::{
        aref::ARef,
        atomic::Atomic,
        Arc,
        Mutex,
        RawSpinLock, //
    },
    time::Delta,
    uapi,
    virtio::{
        self,
        Requests,
        Scope, //
    },
    workqueue::{
        DelayedWork,
        WorkItem, //
    }, //
};

mod chip;
mod events;
mod irq_line;
mod lines;
mod names;
mod reset;
mod wire;

use crate::{
    chip::GpioChip,
    lines::Lines,
    reset::Resets,
    wire::{
        Direction,
        Request,
        Response, //
    }, //
};

/// The least number of requests that the device has at a time, if the ring has room for them. Those
/// of callers who have given up count.
const MIN_SLOTS: usize = 32;

/// The largest number of requests that the device has at a time.
const MAX_SLOTS: usize = 256;

/// The longest time in microseconds to poll for an answer.
const MAX_POLL_US: u32 = 1000;

/// State of a device, shared by its chip, the callbacks of its queues, and its work items.
#[pin_data]
pub(crate) struct VirtioGpio {
    vdev: ARef<virtio::Device>,
    binding: Arc<virtio::Binding>,
    ngpio: u16,
    has_irq: bool,
    #[pin]
    requests: Requests<Request, Response>,
    #[pin]
    eventq: virtio::Queue<events::Buffer, events::Events>,
    #[pin]
    domain: gpio::IrqDomain,
    /// Nests in the locks of the queues.
    #[pin]
    lines: RawSpinLock<Lines>,
    /// Hands buffers to the device for `irq_unmask()`, which runs under a raw lock, and handles
    /// events in a storm.
    #[pin]
    event_work: DelayedWork<Self, 0>,
    /// Has lines try again what has failed.
    #[pin]
    retry_work: DelayedWork<Self, 1>,
    /// Resets the device.
    #[pin]
    reset_work: DelayedWork<Self, 2>,
    /// Sends interrupt types that were not answered, or that genirq has set without the bus lock.
    #[pin]
    sync_work: DelayedWork<Self, 3>,
    #[pin]
    resets: Mutex<Resets>,
    /// The configuration has changed since the device was looked at.
    changed: Atomic<bool>,
}

macro_rules! impl_work_items {
    ($($id:literal: $field:ident => $run:ident,)*) => {$(
        impl_has_delayed_work! {
            impl HasDelayedWork<Self, $id> for VirtioGpio { self.$field }
        }

        impl WorkItem<$id> for VirtioGpio {
            type Pointer = Arc<Self>;

            fn run(this: Arc<Self>) {
                this.$run();
            }
        }
    )*};
}

impl_work_items! {
    0: event_work => poll_events,
    1: retry_work => retry_lines,
    2: reset_work => recover,
    3: sync_work => sync_lines,
}

impl VirtioGpio {
    /// Constructs an initialiser for a device with `ngpio` lines.
    fn new(
        vdev: &virtio::Device<Core<'_>>,
        ngpio: u16,
        has_irq: bool,
    ) -> impl PinInit<Self, Error> {
        let binding = vdev.binding();
        let vdev: ARef<virtio::Device> = (&**vdev).into();
        let timeout_ms = *module_parameters::timeout_ms.value();
        let key = static_lock_class!();
        let poll_us = *module_parameters::poll_us.value();
        let options = virtio::Options {
            slots: usize::from(ngpio).clamp(MIN_SLOTS, MAX_SLOTS),
            timeout_ms,
            poll: Delta::from_micros(poll_us.min(MAX_POLL_US).into()),
        };

        try_pin_init!(Self {
            vdev,
            binding,
            ngpio,
            has_irq,
            requests <- Requests::new(c"requestq", Response::POISON, options, key),
            eventq <- virtio::new_virtqueue!(c"eventq", events::Events::default()),
            domain <- gpio::IrqDomain::new(),
            lines <- new_raw_spinlock!(Lines::new(*ngpio)?, "VirtioGpio::lines"),
            event_work <- new_delayed_work!("VirtioGpio::event_work"),
            retry_work <- new_delayed_work!("VirtioGpio::retry_work"),
            reset_work <- new_delayed_work!("VirtioGpio::reset_work"),
            sync_work <- new_delayed_work!("VirtioGpio::sync_work"),
            resets <- new_mutex!(Resets::new(timeout_ms), "VirtioGpio::resets"),
            changed: Atomic::new(false),
        }? Error)
    }

    /// Asks the device for the directions of all lines, and for the values of outputs. Ignores a
    /// refusal.
    fn fetch_directions(self: &Arc<Self>) -> Result {
        let is_output = |line: &u16| self.update(*line, |state| state.direction == Direction::Out);
        let mut note = |line, value| self.update(line, |state| state.value = value != 0);
        let unless_refused = |ret| match ret {
            Err(err) if err == EIO || err == EPROTO => Ok(()),
            ret => ret,
        };

        let mut requests = (0..self.ngpio).map(Request::get_direction);
        unless_refused(self.request_all(Scope::Any, &mut || requests.next(), &mut |_, _| ()))?;

        // A consumer need not set the value of an output before it has to be restored.
        let mut requests = (0..self.ngpio).filter(is_output).map(Request::get_value);
        unless_refused(self.request_all(Scope::Any, &mut || requests.next(), &mut note))
    }

    /// Asks the device for the names of the lines, a block of `size` bytes. A chip can do without
    /// names.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT`, `EINTR` or `ENODEV` if the device does not answer, or `ENOMEM`.
    fn fetch_names(&self, size: usize) -> Result<Option<gpio::LineNames>> {
        if size == 0 {
            return Ok(None);
        }

        match self.request_names(size) {
            Ok(block) => gpio::LineNames::new(&mut names::parse(&block, self.ngpio)).map(Some),
            Err(err) if err == EIO || err == EPROTO || err == ENOMEM => {
                dev_warn!(self.vdev.as_ref(), "no line names: {:?}\n", err);
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }

    fn request_names(&self, size: usize) -> Result<KVVec<u8>> {
        let mut payload =
            virtio::Payload::response(size.saturating_add(1), GFP_KERNEL | __GFP_NOWARN)?;
        payload.fill(wire::POISON);

        let answer = self.requests.call(Request::get_names(), Some(payload))?;
        let payload = answer.payload.ok_or(EINVAL)?;
        let mut status = [0];

        payload.read(0, &mut status);

        let len = wire::names_answer(status[0], answer.written, size)?;
        let mut block = KVVec::from_elem(0, len, GFP_KERNEL)?;

        payload.read(1, &mut block);
        Ok(block)
    }
}

/// What the queues of a device call back.
struct Callbacks(Arc<VirtioGpio>);

impl virtio::Queues for Callbacks {
    fn queue(&self, index: usize) -> Option<virtio::AnyQueue<'_>> {
        match index {
            0 => Some(self.0.requests.as_any()),
            1 if self.0.has_irq => Some(self.0.eventq.as_any()),
            _ => None,
        }
    }

    fn callback(&self, index: usize) {
        match index {
            0 => self.0.requests.callback(),
            _ => self.0.handle_events(false),
        }
    }
}

/// Stops requests and work items when it is dropped: on unbind, or when the probe fails.
struct Running(Arc<VirtioGpio>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.requests.end();
        self.0.event_work.disable_sync();
        self.0.retry_work.disable_sync();
        self.0.reset_work.disable_sync();
        self.0.sync_work.disable_sync();
    }
}

/// The driver's data of a device. On unbind the bus drops the fields, in this order, and then
/// resets the device.
struct GpioVirtio {
    /// Dropped first: ends all waits with `ENODEV`. gpiolib would wait for operations that wait for
    /// the device. Lines need not be released on a device that is reset next.
    running: Running,
    _chip: gpio::Registration<GpioChip>,
}

kernel::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(uapi::VIRTIO_ID_GPIO)]);

/// Lines can be used as interrupts.
const F_IRQ: virtio::Feature = virtio::Feature::new(uapi::VIRTIO_GPIO_F_IRQ);

#[vtable]
impl virtio::Driver for GpioVirtio {
    type Data<'bound> = Self;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;
    const FEATURES: &'static [virtio::Feature] = &[F_IRQ];

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let dev = vdev.as_ref();
        let (ngpio, names_size) = vdev.read_config(wire::read_config)?;
        let has_irq = vdev.has_feature(F_IRQ);

        if ngpio == 0 {
            dev_err!(dev, "the device has no lines\n");
            return Err(EINVAL);
        }

        let running = Running(Arc::pin_init(
            VirtioGpio::new(vdev, ngpio, has_irq),
            GFP_KERNEL,
        )?);
        let gpio = &running.0;

        vdev.find_vqs(Arc::new(Callbacks(gpio.clone()), GFP_KERNEL)?)
            .inspect_err(|err| dev_err!(dev, "cannot find the queues: {:?}\n", err))?;
        let too_small = |_: &_| dev_err!(dev, "a queue is too small, without room for a buffer\n");
        (gpio.requests.start().and_then(|()| gpio.start_events())).inspect_err(too_small)?;
        vdev.ready();

        let failed = |err: &Error| dev_err!(dev, "cannot read names and directions: {:?}\n", err);
        let names = gpio.fetch_names(names_size as usize).inspect_err(failed)?;
        gpio.fetch_directions().inspect_err(failed)?;

        let chip = Arc::new(GpioChip(gpio.clone()), GFP_KERNEL)?;
        let info = gpio::ChipInfo {
            label: dev.name(),
            ngpio,
            can_sleep: true,
            names,
        };
        let chip = if has_irq {
            gpio::Registration::with_irq(dev, chip, info, gpio::lock_classes!())
        } else {
            gpio::Registration::new(dev, chip, info)
        }
        .inspect_err(|err| dev_err!(dev, "cannot register the chip: {:?}\n", err))?;

        Ok(Self {
            running,
            _chip: chip,
        })
    }

    fn config_changed<'bound>(
        _vdev: &'bound virtio::Device<kernel::device::Bound>,
        this: Pin<&Self::Data<'bound>>,
    ) {
        this.running.0.config_changed();
    }

    fn may_wake<'bound>(
        _vdev: &'bound virtio::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> bool {
        this.running.0.sleep()
    }

    fn restore<'bound>(
        _vdev: &'bound virtio::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        this.running.0.resume()
    }
}

kernel::module_virtio_driver! {
    type: GpioVirtio,
    name: "gpio_virtio",
    description: "Driver for virtio GPIO controllers",
    license: "GPL",
    params: {
        timeout_ms: u32 {
            default: 30000,
            description: "Timeout for an answer of the device in milliseconds; 0: none",
        },
        poll_us: u32 {
            default: 100,
            description: "Time in microseconds to poll for an answer; 0: no polling",
        },
    },
}
