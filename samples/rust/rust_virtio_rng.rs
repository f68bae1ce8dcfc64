// SPDX-License-Identifier: GPL-2.0

//! Rust virtio sample: an entropy device.
//!
//! Reading from `/dev/rust-virtio-rng` returns random bytes of the device. As the bytes belong to
//! no one in particular, the device always has buffers to fill, and each reader takes one that is
//! filled and hands it back empty.

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
    new_virtqueue,
    prelude::*,
    sync::{
        Arc,
        Completion,
        Mutex,
        SetOnce, //
    },
    uapi,
    virtio::{
        self,
        AnyQueue,
        Message,
        Queue,
        Queues,
        Reclaim, //
    }, //
};

/// How many buffers there are, and how many bytes are in each.
const BUFFERS: usize = 8;
const BYTES: usize = 64;

/// A buffer, along with how many bytes the device says that it has written.
type Entropy = Message<(), [u8; BYTES], Result<u32>>;

/// The buffers that the device does not have. Both lists have room for all buffers, so nothing is
/// allocated or freed under the lock.
struct Buffers {
    empty: KVec<Entropy>,
    filled: KVec<Entropy>,
}

impl Reclaim<Entropy> for Buffers {
    fn reclaim(queue: &Queue<Entropy, Self>, buffer: Entropy) {
        let _ = queue.with(|_, buffers| buffers.empty.push_within_capacity(buffer));
    }
}

#[pin_data]
struct Rng {
    #[pin]
    queue: Queue<Entropy, Buffers>,
    /// Signalled once for each filled buffer, and for good when the driver is unbound.
    #[pin]
    filled: Completion,
}

impl Rng {
    fn new() -> Result<Arc<Self>> {
        let empty = Entropy::many(BUFFERS, |_| ((), [0; BYTES], Ok(0)), GFP_KERNEL)?;
        let filled = KVec::with_capacity(empty.len(), GFP_KERNEL)?;

        Arc::pin_init(
            pin_init!(Self {
                queue <- new_virtqueue!(c"input", Buffers { empty, filled }),
                filled <- Completion::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Hands empty buffers to the device, as many as there is room for in the ring.
    fn refill(&self) -> Result {
        let (added, notified) = self.queue.with_kick(|ring, buffers| {
            while let Some(buffer) = buffers.empty.pop() {
                if let Err((err, buffer)) = ring.add(buffer) {
                    let _ = buffers.empty.push_within_capacity(buffer);
                    return if err == ENOSPC { Ok(()) } else { Err(err) };
                }
            }
            Ok(())
        });

        added.and(notified)
    }

    /// Copies the bytes of one buffer to `iov`.
    fn read(&self, iov: &mut IovIterDest<'_>) -> Result<usize> {
        self.filled.wait_for_completion_killable()?;

        let buffer = self.queue.with(|_, buffers| buffers.filled.pop());
        let mut buffer = buffer.ok_or(ENODEV)?;
        let bytes = buffer.response();
        let written = *buffer.private();

        // Keeps a device that writes less than it says from handing out the same bytes again.
        buffer.set_response([0; BYTES]);
        let _ = self
            .queue
            .with(|_, buffers| buffers.empty.push_within_capacity(buffer));
        // If the device is suspended, `restore()` does it. Other failures show at later reads.
        let _ = self.refill();

        // The device has to write something, and no more than there is room for.
        let bytes = written.ok().and_then(|len| bytes.get(..len as usize));
        let bytes = bytes.filter(|bytes| !bytes.is_empty()).ok_or(EIO)?;

        match iov.copy_to_iter(bytes) {
            0 => Err(EFAULT),
            len => Ok(len),
        }
    }
}

impl Queues for Rng {
    fn queue(&self, index: usize) -> Option<AnyQueue<'_>> {
        (index == 0).then(|| self.queue.as_any())
    }

    fn callback(&self, _index: usize) {
        self.queue.with(|ring, buffers| {
            while let Some((mut buffer, written)) = ring.pop() {
                *buffer.private_mut() = written;
                if buffers.filled.push_within_capacity(buffer).is_ok() {
                    self.filled.complete();
                }
            }
        });
    }
}

/// The device that is bound, if there is one.
type Current = Mutex<Option<Arc<Rng>>>;

static CURRENT: SetOnce<Pin<KBox<Current>>> = SetOnce::new();

#[vtable]
impl MiscDevice for Rng {
    type Ptr = ();

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result {
        Ok(())
    }

    fn read_iter(_kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        let current = CURRENT.as_ref().ok_or(ENODEV)?.lock().clone();
        let rng = current.ok_or(ENODEV)?;

        if iov.is_empty() {
            return Ok(0);
        }
        rng.read(iov)
    }
}

struct RngDriver(Arc<Rng>);

impl Drop for RngDriver {
    fn drop(&mut self) {
        if let Some(current) = CURRENT.as_ref() {
            *current.lock() = None;
        }
        self.0.filled.complete_all();
    }
}

kernel::virtio_device_table!(
    ID_TABLE,
    MODULE_ID_TABLE,
    <RngDriver as virtio::Driver>::IdInfo,
    [(virtio::DeviceId::new(uapi::VIRTIO_ID_RNG), ())]
);

#[vtable]
impl virtio::Driver for RngDriver {
    type IdInfo = ();
    type Data<'bound> = Self;

    const ID_TABLE: virtio::IdTable<Self::IdInfo> = &ID_TABLE;
    const FEATURES: &'static [virtio::Feature] = &[];

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        _info: &'bound Self::IdInfo,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let rng = Rng::new()?;

        vdev.find_vqs(rng.clone())?;
        vdev.ready();
        rng.refill()?;

        let mut current = CURRENT.as_ref().ok_or(ENODEV)?.lock();
        if current.is_some() {
            dev_err!(vdev.as_ref(), "this sample drives one device only\n");
            return Err(EBUSY);
        }
        *current = Some(rng.clone());

        Ok(Self(rng))
    }

    fn restore<'bound>(
        _vdev: &'bound virtio::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        this.0.refill()
    }
}

#[pin_data]
struct RngModule {
    #[pin]
    _misc: MiscDeviceRegistration<Rng>,
    #[pin]
    _driver: driver::Registration<virtio::Adapter<RngDriver>>,
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
