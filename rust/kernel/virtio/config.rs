// SPDX-License-Identifier: GPL-2.0

//! The configuration space of a virtio device.
//!
//! C header: [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h)

use super::{
    Device,
    Feature, //
};
use crate::{
    device::Bound,
    prelude::*, //
};
use core::mem::MaybeUninit;
use zerocopy::little_endian;

/// A field of the configuration space.
///
/// Integers (`__virtio16` in C) are in the byte order of the device: little-endian, except for
/// legacy devices. The types of [`zerocopy::little_endian`] are for fields that are always
/// little-endian (`__le16` in C).
///
/// # Safety
///
/// `Self` must have a size of 1, 2, 4 or 8 bytes, and all patterns of them must be valid.
pub unsafe trait ConfigField: Copy {
    /// Converts a value from the byte order of the configuration space.
    #[doc(hidden)]
    fn to_cpu(self, little_endian: bool) -> Self;
}

macro_rules! impl_config_field {
    (native: $($int:ty)*) => {$(
        // SAFETY: Integers have no invalid patterns, and the sizes are as required.
        unsafe impl ConfigField for $int {
            fn to_cpu(self, little_endian: bool) -> Self {
                if little_endian {
                    <$int>::from_le(self)
                } else {
                    self
                }
            }
        }
    )*};
    (little_endian: $($le:ty)*) => {$(
        // SAFETY: Arrays of bytes have no invalid patterns, and the sizes are as required.
        unsafe impl ConfigField for $le {
            fn to_cpu(self, _little_endian: bool) -> Self {
                self
            }
        }
    )*};
}

impl_config_field!(native: u8 u16 u32 u64);
impl_config_field!(little_endian: little_endian::U16 little_endian::U32 little_endian::U64);

/// The configuration space of a device during [`Device::read_config`].
pub struct Config<'a>(&'a Device<Bound>);

impl Config<'_> {
    /// The size in bytes of the configuration space that every transport can map. Over MMIO it is
    /// the second half of 512 bytes of registers.
    const MAX_SIZE: usize = 256;

    /// Reads a field at `offset`, in bytes.
    ///
    /// The transport determines the value of a field that the device does not have.
    ///
    /// # Errors
    ///
    /// - [`ENODEV`] if the device has no configuration space,
    /// - [`EINVAL`] if the field is not aligned to its size or not within 256 bytes.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn read<T: ConfigField>(&self, offset: usize) -> Result<T> {
        if offset % size_of::<T>() != 0 || offset >= Self::MAX_SIZE {
            return Err(EINVAL);
        }

        let vdev = self.0.as_raw();

        // SAFETY: `vdev` is valid, and so are the operations of its transport.
        let get = unsafe { (*(*vdev).config).get }.ok_or(ENODEV)?;

        let mut value = MaybeUninit::<T>::zeroed();

        // SAFETY: `value` has room for a `T`, whose size is one that transports support by the
        // requirements of `ConfigField`. The field is aligned and within `MAX_SIZE`; transports
        // whose device may have less check its end. This function may sleep, as `get` may.
        unsafe {
            get(
                vdev,
                offset as c_uint,
                value.as_mut_ptr().cast(),
                size_of::<T>() as c_uint,
            )
        };

        // SAFETY: Zeroes, or what the transport wrote: all patterns are valid.
        Ok(unsafe { value.assume_init() }.to_cpu(self.is_little_endian()))
    }

    fn is_little_endian(&self) -> bool {
        const VERSION_1: Feature = Feature::new(bindings::VIRTIO_F_VERSION_1);

        cfg!(target_endian = "little") || self.0.has_feature(VERSION_1)
    }

    /// Returns a number that the device increments with each change of its configuration.
    fn generation(&self) -> u32 {
        // SAFETY: The device is valid, and so are the operations of its transport.
        match unsafe { (*(*self.0.as_raw()).config).generation } {
            // SAFETY: As above; this function may sleep, as `generation` may.
            Some(generation) => unsafe { generation(self.0.as_raw()) },
            None => 0,
        }
    }
}

impl Device<Bound> {
    /// The maximum number of attempts of [`Device::read_config`].
    const CONFIG_RETRIES: usize = 100;

    /// Reads from the configuration space by `read`. Calls it again if the device changed the
    /// configuration during the call, so the fields read are consistent.
    ///
    /// # Errors
    ///
    /// - [`EIO`] if the configuration changes during each attempt,
    /// - those of `read`.
    ///
    /// # Context
    ///
    /// May sleep.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     device::Bound,
    ///     virtio, //
    /// };
    ///
    /// /// Returns the number of sectors of a block device and the size of a block.
    /// fn geometry(dev: &virtio::Device<Bound>) -> Result<(u64, u32)> {
    ///     dev.read_config(|config| Ok((config.read::<u64>(0)?, config.read::<u32>(20)?)))
    /// }
    /// ```
    pub fn read_config<R>(&self, mut read: impl FnMut(&Config<'_>) -> Result<R>) -> Result<R> {
        let config = Config(self);

        for _ in 0..Self::CONFIG_RETRIES {
            let generation = config.generation();
            let ret = read(&config)?;

            if generation == config.generation() {
                return Ok(ret);
            }
        }
        Err(EIO)
    }
}
