// SPDX-License-Identifier: GPL-2.0

//! Driver for virtio GPIO controllers.
//!
//! - [`wire`], [`names`] and [`line`] know the device, but neither bus nor queues: what goes over
//!   the wire, the names of lines, and what the interrupt of a line may do next. Nor do [`watch`]
//!   and [`poll`], about waits, and [`gate`], [`duty`], [`lost`] and [`recovery`], about devices
//!   that misbehave.
//! - [`requestq`] and [`eventq`] are the two queues of the device.
//! - [`device`] ties them together, and [`chip`] to gpiolib and genirq. [`debugfs`] shows them.
//!
//! # Limits
//!
//! - The device has no message for bias, drive mode or debounce, so there is no `set_config`.
//! - Lines wake the system up if the transport's interrupt does; there is nothing to be set.
//! - Interrupts of more lines than the eventq has room for take turns at being armed.

use kernel::{
    device::{
        Bound,
        Core, //
    },
    gpio,
    prelude::*,
    sync::Arc,
    uapi,
    virtio, //
};

mod chip;
mod count;
mod debugfs;
mod device;
mod duty;
mod eventq;
mod gate;
mod line;
mod lost;
mod names;
mod poll;
#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
mod random;
mod recovery;
mod requestq;
mod watch;
mod wire;

use crate::{
    chip::GpioChip,
    device::{
        Callbacks,
        VirtioGpio, //
    }, //
};

/// Ends what goes on by itself when the driver is unbound, or when its probe fails.
struct Running(Arc<VirtioGpio>);

impl Drop for Running {
    fn drop(&mut self) {
        VirtioGpio::shut_down(&self.0);
    }
}

/// The driver's data of a device.
struct GpioVirtio {
    _debugfs: debugfs::Directory,
    // Dropped before the device is reset.
    _chip: gpio::Registration<GpioChip>,
    running: Running,
}

kernel::virtio_device_table!(
    ID_TABLE,
    MODULE_ID_TABLE,
    <GpioVirtio as virtio::Driver>::IdInfo,
    [(virtio::DeviceId::new(uapi::VIRTIO_ID_GPIO), ())]
);

/// Lines can be used as interrupts.
const F_IRQ: virtio::Feature = virtio::Feature::new(uapi::VIRTIO_GPIO_F_IRQ);

#[vtable]
impl virtio::Driver for GpioVirtio {
    type IdInfo = ();
    type Data<'bound> = Self;

    const ID_TABLE: virtio::IdTable<Self::IdInfo> = &ID_TABLE;
    const FEATURES: &'static [virtio::Feature] = &[F_IRQ];

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        _info: &'bound Self::IdInfo,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let dev = vdev.as_ref();
        let (ngpio, names_size) = vdev.read_config(wire::Config::read)?;
        let has_irq = vdev.has_feature(F_IRQ);

        if ngpio == 0 {
            dev_err!(dev, "the device has no lines\n");
            return Err(EINVAL);
        }

        let timeout_ms = *module_parameters::timeout_ms.value();
        let poll_us = *module_parameters::poll_us.value();
        let running = Running(Arc::pin_init(
            VirtioGpio::new(vdev, ngpio, has_irq, timeout_ms, poll_us),
            GFP_KERNEL,
        )?);
        let gpio = &running.0;

        vdev.find_vqs(Arc::new(Callbacks(gpio.clone()), GFP_KERNEL)?)
            .inspect_err(|err| dev_err!(dev, "cannot find the queues: {:?}\n", err))?;
        gpio.populate().inspect_err(|&err| {
            if err == EINVAL {
                dev_err!(dev, "a queue is too small: it has no room for a buffer\n");
            } else {
                dev_err!(dev, "cannot use the queues: {:?}\n", err);
            }
        })?;
        vdev.ready();

        let failed =
            |err: &Error| dev_err!(dev, "cannot ask for names and directions: {:?}\n", err);
        let names = gpio.fetch_names(names_size).inspect_err(failed)?;
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
            _debugfs: debugfs::Directory::new(dev, gpio)?,
            _chip: chip,
            running,
        })
    }

    fn unbind<'bound>(_vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        // gpiolib waits for operations in progress, and those for the device: not any more. What
        // the device should still be told is covered by its reset.
        VirtioGpio::shut_down(&this.running.0);
    }

    fn config_changed<'bound>(
        _vdev: &'bound virtio::Device<Bound>,
        this: Pin<&Self::Data<'bound>>,
    ) {
        VirtioGpio::config_changed(&this.running.0);
    }

    fn freeze<'bound>(
        _vdev: &'bound virtio::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        this.running.0.suspend();
        Ok(())
    }

    fn restore<'bound>(
        _vdev: &'bound virtio::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        VirtioGpio::resume(&this.running.0)
    }

    fn reset_prepare<'bound>(
        dev: &'bound virtio::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        Self::freeze(dev, this)
    }

    fn reset_done<'bound>(
        dev: &'bound virtio::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        Self::restore(dev, this)
    }
}

kernel::module_virtio_driver! {
    type: GpioVirtio,
    name: "gpio_virtio",
    description: "Driver for virtio GPIO controllers",
    license: "GPL",
    params: {
        timeout_ms: u32 {
            default: 5000,
            description: "Time in milliseconds that a device has for an answer",
        },
        poll_us: u32 {
            default: 100,
            description: "Time in microseconds that is polled for an answer at most; 0: not at all",
        },
    },
}
