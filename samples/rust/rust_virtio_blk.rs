// SPDX-License-Identifier: GPL-2.0

//! Rust virtio sample: a block device.
//!
//! Reading from `/dev/rust-virtio-blk` returns what the device has at the position of the file. A
//! request has three parts: a header, room for sectors, and room for a status.

use core::mem::offset_of;

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
    sync::{
        Arc,
        Mutex,
        SetOnce, //
    },
    time::Delta,
    uapi,
    virtio::{
        self,
        AnyQueue,
        Options,
        Payload,
        Queues,
        Requests, //
    }, //
};

use zerocopy::little_endian::{
    U32,
    U64, //
};

/// Bytes in a sector, whatever the size of the device's blocks.
const SECTOR: usize = 512;

/// The most bytes that one request is for, apart from where they begin in a sector.
const MAX_LEN: usize = 4096;

/// What the status is before the device writes it: none that a device has.
const NO_STATUS: u8 = 0xff;

const CAPACITY: usize = offset_of!(uapi::virtio_blk_config, capacity);

const OPTIONS: Options = Options {
    slots: 16,
    timeout_ms: 30_000,
    poll: Delta::ZERO,
};

/// `struct virtio_blk_outhdr`.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Header {
    kind: U32,
    priority: U32,
    sector: U64,
}

#[pin_data]
struct Blk {
    #[pin]
    requests: Requests<Header, u8>,
    sectors: u64,
}

impl Blk {
    /// Reads `count` sectors, and has `f` use what is in them.
    fn with_sectors<R>(
        &self,
        sector: u64,
        count: usize,
        f: impl FnOnce(&Payload) -> R,
    ) -> Result<R> {
        let header = Header {
            kind: U32::new(uapi::VIRTIO_BLK_T_IN),
            priority: U32::new(0),
            sector: U64::new(sector),
        };
        let len = count * SECTOR;
        let payload = Payload::writable(len, GFP_KERNEL)?;
        let answer = self.requests.call(header, Some(payload)).map_err(|err| {
            // The device claims to have written more than there is room for.
            if err == EPROTO {
                EIO
            } else {
                err
            }
        })?;

        // The sectors and the status: a device that has read them has written all of that.
        if u32::from(answer.response) != uapi::VIRTIO_BLK_S_OK || answer.written as usize != len + 1
        {
            return Err(EIO);
        }
        answer.payload.as_ref().map(f).ok_or(EIO)
    }

    /// Copies bytes from `pos` on to `iov`, as far as one request goes.
    fn read(&self, pos: u64, iov: &mut IovIterDest<'_>) -> Result<usize> {
        let (sector, offset) = (pos / SECTOR as u64, (pos % SECTOR as u64) as usize);
        let wanted = iov.len().min(MAX_LEN) + offset;
        let left = self.sectors.saturating_sub(sector);
        let count = left.min(wanted.div_ceil(SECTOR) as u64) as usize;

        if count == 0 || iov.is_empty() {
            return Ok(0);
        }

        self.with_sectors(sector, count, |payload| {
            let mut bytes = [0; SECTOR];
            let mut done = 0;

            loop {
                let len = payload.read(offset + done, &mut bytes);

                match iov.copy_to_iter(&bytes[..len]) {
                    0 if done == 0 => return Err(EFAULT),
                    0 => return Ok(done),
                    copied => done += copied,
                }
            }
        })?
    }
}

impl Queues for Blk {
    fn queue(&self, index: usize) -> Option<AnyQueue<'_>> {
        (index == 0).then(|| self.requests.as_any())
    }

    fn callback(&self, _index: usize) {
        self.requests.callback();
    }
}

/// The device that is bound, if there is one.
type Current = Mutex<Option<Arc<Blk>>>;

static CURRENT: SetOnce<Pin<KBox<Current>>> = SetOnce::new();

#[vtable]
impl MiscDevice for Blk {
    type Ptr = ();

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result {
        Ok(())
    }

    fn read_iter(mut kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        let current = CURRENT.as_ref().ok_or(ENODEV)?.lock().clone();
        let pos = u64::try_from(kiocb.ki_pos()).map_err(|_| EINVAL)?;
        let read = current.ok_or(ENODEV)?.read(pos, iov)?;

        *kiocb.ki_pos_mut() += read as i64;
        Ok(read)
    }
}

struct BlkDriver(Arc<Blk>);

// Requests end by themselves when the queue is closed.
impl Drop for BlkDriver {
    fn drop(&mut self) {
        if let Some(current) = CURRENT.as_ref() {
            *current.lock() = None;
        }
    }
}

kernel::virtio_device_table!(
    ID_TABLE,
    MODULE_ID_TABLE,
    <BlkDriver as virtio::Driver>::IdInfo,
    [(virtio::DeviceId::new(uapi::VIRTIO_ID_BLOCK), ())]
);

#[vtable]
impl virtio::Driver for BlkDriver {
    type IdInfo = ();
    type Data<'bound> = Self;

    const ID_TABLE: virtio::IdTable<Self::IdInfo> = &ID_TABLE;
    const FEATURES: &'static [virtio::Feature] = &[];

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        _info: &'bound Self::IdInfo,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let sectors = vdev.read_config(|config| config.read::<u64>(CAPACITY))?;
        let blk = Arc::pin_init(
            try_pin_init!(Blk {
                requests <- Requests::new(c"requests", NO_STATUS, OPTIONS, kernel::static_lock_class!()),
                sectors,
            }? Error),
            GFP_KERNEL,
        )?;

        vdev.find_vqs(blk.clone())?;
        vdev.ready();
        blk.requests.start()?;

        let mut begin = [0; 4];
        if sectors > 0 {
            blk.with_sectors(0, 1, |payload| payload.read(0, &mut begin))?;
        }
        dev_info!(
            vdev.as_ref(),
            "{} sectors, the first begins with {:02x?}\n",
            sectors,
            begin
        );

        let mut current = CURRENT.as_ref().ok_or(ENODEV)?.lock();
        if current.is_some() {
            dev_err!(vdev.as_ref(), "this sample drives one device only\n");
            return Err(EBUSY);
        }
        *current = Some(blk.clone());

        Ok(Self(blk))
    }

    fn restore<'bound>(
        _vdev: &'bound virtio::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        this.0.requests.start()
    }
}

#[pin_data]
struct BlkModule {
    #[pin]
    _misc: MiscDeviceRegistration<Blk>,
    #[pin]
    _driver: driver::Registration<virtio::Adapter<BlkDriver>>,
}

impl kernel::InPlaceModule for BlkModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _: { CURRENT.populate(KBox::pin_init(new_mutex!(None), GFP_KERNEL)?); },
            _misc <- MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"rust-virtio-blk",
            }),
            _driver <- driver::Registration::new(c"rust_virtio_blk", module),
        })
    }
}

module! {
    type: BlkModule,
    name: "rust_virtio_blk",
    description: "Rust virtio sample: a block device",
    license: "GPL v2",
}
