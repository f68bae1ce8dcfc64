// SPDX-License-Identifier: GPL-2.0

//! Rust virtio sample: an entropy device.
//!
//! Reading from `/dev/rust-virtio-rng` returns random bytes of the device. A request has one part:
//! room for them.

use kernel::{
    device::Core,
    driver,
    fs::{
        File,
        Kiocb, //
    },
    iov::IovIterDest,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    new_mutex,
    prelude::*,
    static_lock_class,
    sync::{
        Arc,
        Mutex,
        SetOnce, //
    },
    time::Delta,
    uapi,
    virtio::{
        self,
        Requests, //
    }, //
};

/// How many bytes the device is asked for at a time.
const BYTES: usize = 64;

const OPTIONS: virtio::Options = virtio::Options {
    slots: 8,
    timeout_ms: 0,
    poll: Delta::ZERO,
};

#[pin_data]
struct Rng {
    #[pin]
    requests: Requests<(), [u8; BYTES]>,
}

impl virtio::Queues for Rng {
    fn queue(&self, index: usize) -> Option<virtio::AnyQueue<'_>> {
        (index == 0).then(|| self.requests.as_any())
    }

    fn callback(&self, _index: usize) {
        self.requests.callback();
    }
}

/// The device that is bound, if there is one.
type Current = Mutex<Option<Arc<Rng>>>;

static CURRENT: SetOnce<Pin<KBox<Current>>> = SetOnce::new();

#[vtable]
impl MiscDevice for Rng {
    type Ptr = Arc<Self>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Self>> {
        let current = CURRENT.as_ref().ok_or(ENODEV)?.lock();

        current.clone().ok_or(ENODEV)
    }

    fn read_iter(kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        if iov.is_empty() {
            return Ok(0);
        }

        let answer = kiocb.file().requests.call((), None)?;

        // The device has to write something. How much it claims is its own word.
        let bytes = answer.response.get(..answer.written as usize);
        let bytes = bytes.filter(|bytes| !bytes.is_empty()).ok_or(EIO)?;

        match iov.copy_to_iter(bytes) {
            0 => Err(EFAULT),
            len => Ok(len),
        }
    }
}

kernel::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(uapi::VIRTIO_ID_RNG)]);

#[vtable]
impl virtio::Driver for Rng {
    type Data<'bound> = Arc<Self>;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;
    const FEATURES: &'static [virtio::Feature] = &[];

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let rng = Arc::pin_init(
            try_pin_init!(Rng {
                requests <- Requests::new(c"input", [0; BYTES], OPTIONS, static_lock_class!()),
            }? Error),
            GFP_KERNEL,
        )?;

        vdev.find_vqs(rng.clone())?;
        vdev.ready();
        rng.requests.start()?;

        let mut current = CURRENT.as_ref().ok_or(ENODEV)?.lock();
        if current.is_some() {
            dev_err!(vdev.as_ref(), "this sample drives one device only\n");
            return Err(EBUSY);
        }
        *current = Some(rng.clone());

        Ok(rng)
    }

    // Closing the queue, which follows, ends the requests.
    fn unbind<'bound>(_vdev: &'bound virtio::Device<Core<'_>>, _this: Pin<&Self::Data<'bound>>) {
        if let Some(current) = CURRENT.as_ref() {
            *current.lock() = None;
        }
    }

    fn restore<'bound>(
        _vdev: &'bound virtio::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        this.requests.start()
    }
}

#[pin_data]
struct RngModule {
    #[pin]
    _misc: MiscDeviceRegistration<Rng>,
    #[pin]
    _driver: driver::Registration<virtio::Adapter<Rng>>,
}

impl kernel::InPlaceModule for RngModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _: { CURRENT.populate(KBox::pin_init(new_mutex!(None), GFP_KERNEL)?); },
            _misc <- MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"rust-virtio-rng",
            }),
            _driver <- driver::Registration::new(c"rust_virtio_rng", module),
        })
    }
}

module! {
    type: RngModule,
    name: "rust_virtio_rng",
    description: "Rust virtio sample: an entropy device",
    license: "GPL v2",
}
