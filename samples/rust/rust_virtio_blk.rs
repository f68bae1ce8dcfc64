// SPDX-License-Identifier: GPL-2.0

//! Rust virtio sample: a block device.
//!
//! Reads the first and the last sector of a disk, and logs how they end. A request has three parts:
//! a header, room for a sector, and room for a status.

use core::mem::offset_of;

use kernel::{
    device::Core,
    prelude::*,
    static_lock_class,
    sync::Arc,
    time::Delta,
    uapi,
    virtio::{
        self,
        Payload,
        Requests, //
    }, //
};

use zerocopy::little_endian::{
    U32,
    U64, //
};

/// Bytes in a sector, whatever the size of the device's blocks.
const SECTOR: usize = 512;

/// What the status is before the device writes it: none that a device has.
const NO_STATUS: u8 = 0xff;

const CAPACITY: usize = offset_of!(uapi::virtio_blk_config, capacity);

const OPTIONS: virtio::Options = virtio::Options {
    slots: 1,
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
}

impl Blk {
    fn read(&self, sector: u64) -> Result<[u8; SECTOR]> {
        let header = Header {
            kind: U32::new(uapi::VIRTIO_BLK_T_IN),
            priority: U32::new(0),
            sector: U64::new(sector),
        };
        let payload = Payload::writable(SECTOR, GFP_KERNEL)?;
        let answer = self.requests.call(header, Some(payload))?;
        let ok = u32::from(answer.response) == uapi::VIRTIO_BLK_S_OK;

        // A device that has read the sector has written all of it, and the status.
        if !ok || answer.written as usize != SECTOR + 1 {
            return Err(EIO);
        }

        let mut bytes = [0; SECTOR];
        answer.payload.ok_or(EIO)?.read(0, &mut bytes);
        Ok(bytes)
    }

    /// Logs what is on the disk. The device was just set up, maybe once more.
    fn start(&self, vdev: &virtio::Device<Core<'_>>) -> Result {
        self.requests.start()?;

        let sectors = vdev.read_config(|config| config.read::<u64>(CAPACITY))?;
        dev_info!(vdev.as_ref(), "{} sectors\n", sectors);

        let Some(last) = sectors.checked_sub(1) else {
            return Ok(());
        };
        for sector in [0, last] {
            let bytes = self.read(sector)?;
            dev_info!(
                vdev.as_ref(),
                "sector {} ends with {:02x?}\n",
                sector,
                &bytes[SECTOR - 4..]
            );
        }
        Ok(())
    }
}

impl virtio::Queues for Blk {
    fn queue(&self, index: usize) -> Option<virtio::AnyQueue<'_>> {
        (index == 0).then(|| self.requests.as_any())
    }

    fn callback(&self, _index: usize) {
        self.requests.callback();
    }
}

kernel::virtio_device_table!(ID_TABLE, [virtio::DeviceId::new(uapi::VIRTIO_ID_BLOCK)]);

#[vtable]
impl virtio::Driver for Blk {
    type Data<'bound> = Arc<Self>;

    const ID_TABLE: virtio::IdTable = &ID_TABLE;
    const FEATURES: &'static [virtio::Feature] = &[];

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let blk = Arc::pin_init(
            try_pin_init!(Blk {
                requests <- Requests::new(c"requests", NO_STATUS, OPTIONS, static_lock_class!()),
            }? Error),
            GFP_KERNEL,
        )?;

        vdev.find_vqs(blk.clone())?;
        vdev.ready();
        blk.start(vdev)?;

        Ok(blk)
    }

    fn restore<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        this.start(vdev)
    }
}

kernel::module_virtio_driver! {
    type: Blk,
    name: "rust_virtio_blk",
    description: "Rust virtio sample: a block device",
    license: "GPL v2",
}
