// SPDX-License-Identifier: GPL-2.0-only

//! The kernel's interface for VDUSE devices, linux/vduse.h, as much of it as is used here.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use libc::c_ulong;
use rustix::fs::OFlags;
use vm_memory::{FileOffset, GuestAddress, GuestRegionMmap};
use vmm_sys_util::ioctl::{ioctl_expr, ioctl_with_mut_ref, _IOC_READ, _IOC_WRITE};

pub const CONTROL: &str = "/dev/vduse/control";

/// The alignment of rings; for those that the driver lays out by itself.
const ALIGN: u32 = 64;
const NAME_SIZE: usize = 256;
/// Bytes of a message, in either direction.
const MESSAGE: usize = 152;

const CREATE_DEV: c_ulong = number(_IOC_WRITE, 0x02, size_of::<DeviceConfig>());
const DESTROY_DEV: c_ulong = number(_IOC_WRITE, 0x03, NAME_SIZE);
const IOTLB_GET_FD: c_ulong = number(_IOC_READ | _IOC_WRITE, 0x10, size_of::<Mapping>());
const GET_FEATURES: c_ulong = number(_IOC_READ, 0x11, size_of::<u64>());
const VQ_SETUP: c_ulong = number(_IOC_WRITE, 0x14, size_of::<QueueConfig>());
const VQ_GET_INFO: c_ulong = number(_IOC_READ | _IOC_WRITE, 0x15, size_of::<QueueInfo>());
const VQ_SETUP_KICKFD: c_ulong = number(_IOC_WRITE, 0x16, size_of::<Kick>());
const VQ_INJECT_IRQ: c_ulong = number(_IOC_WRITE, 0x17, size_of::<u32>());

const fn number(direction: u32, number: u32, size: usize) -> c_ulong {
    ioctl_expr(direction, 0x81, number, size as u32)
}

#[repr(C)]
struct DeviceConfig {
    name: [u8; NAME_SIZE],
    vendor_id: u32,
    device_id: u32,
    features: u64,
    vq_num: u32,
    vq_align: u32,
    reserved: [u32; 13],
    config_size: u32,
}

/// The same with what follows it in memory. It has no holes.
#[repr(C)]
struct DeviceWithConfig<const N: usize> {
    head: DeviceConfig,
    config: [u8; N],
}

#[repr(C)]
struct QueueConfig {
    index: u32,
    max_size: u16,
    reserved: [u16; 13],
}

/// How the driver has set up a queue.
#[derive(Default)]
#[repr(C)]
pub struct QueueInfo {
    index: u32,
    pub size: u32,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    pub next_available: u16,
    packed: [u16; 3],
    pub ready: u8,
    padding: [u8; 7],
}

#[derive(Default)]
#[repr(C)]
struct Mapping {
    offset: u64,
    start: u64,
    last: u64,
    access: u8,
    padding: [u8; 7],
}

#[repr(C)]
struct Kick {
    index: u32,
    fd: i32,
}

/// What the kernel wants to know, and does not continue without an answer to.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    QueueState(u32),
    Status(u8),
    /// Mappings have changed.
    Mappings,
    Unknown(u32),
}

/// What a device is from its beginning to its end.
pub struct Description<const N: usize> {
    pub id: u32,
    pub features: u64,
    pub queues: u32,
    pub queue_size: u16,
    pub config: [u8; N],
}

/// The file that devices are made with.
pub struct Control(File);

impl Control {
    pub fn open() -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(CONTROL)?;
        Ok(Self(file))
    }

    pub fn create<const N: usize>(&self, name: &str, it: &Description<N>) -> io::Result<()> {
        let mut device = DeviceWithConfig {
            head: DeviceConfig {
                name: name_bytes(name),
                vendor_id: 0,
                device_id: it.id,
                features: it.features,
                vq_num: it.queues,
                vq_align: ALIGN,
                reserved: [0; 13],
                config_size: N as u32,
            },
            config: it.config,
        };
        // SAFETY: It reads a `DeviceConfig`, and as many bytes as that says behind it.
        unsafe { call(&self.0, CREATE_DEV, &mut device) }.map(drop)
    }

    pub fn destroy(&self, name: &str) -> io::Result<()> {
        // SAFETY: It reads a name of this size.
        unsafe { call(&self.0, DESTROY_DEV, &mut name_bytes(name)) }.map(drop)
    }
}

/// The bytes of a name, which the command line has limited.
fn name_bytes(name: &str) -> [u8; NAME_SIZE] {
    let mut bytes = [0; NAME_SIZE];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

/// The file of a device, which one process at a time has open.
pub struct DeviceFile(File);

impl DeviceFile {
    pub fn open(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(path(name))?;
        Ok(Self(file))
    }

    /// Sets up a queue, before the device is on the bus.
    pub fn set_up_queue(&self, index: u32, max_size: u16) -> io::Result<()> {
        let mut config = QueueConfig {
            index,
            max_size,
            reserved: [0; 13],
        };
        // SAFETY: It reads a `QueueConfig`.
        unsafe { call(&self.0, VQ_SETUP, &mut config) }.map(drop)
    }

    /// What the driver has set up.
    pub fn queue(&self, index: u32) -> io::Result<QueueInfo> {
        let mut info = QueueInfo {
            index,
            ..QueueInfo::default()
        };
        // SAFETY: It reads and writes a `QueueInfo`, which may have any values.
        unsafe { call(&self.0, VQ_GET_INFO, &mut info) }?;
        Ok(info)
    }

    /// The features that the driver has accepted.
    pub fn features(&self) -> io::Result<u64> {
        let mut features = 0_u64;
        // SAFETY: It writes a `u64`.
        unsafe { call(&self.0, GET_FEATURES, &mut features) }?;
        Ok(features)
    }

    /// Has the driver notify `kick`, an eventfd, of a queue.
    pub fn set_kick(&self, index: u32, kick: BorrowedFd<'_>) -> io::Result<()> {
        let fd = kick.as_raw_fd();
        // SAFETY: It reads a `Kick`, and takes a reference to the eventfd.
        unsafe { call(&self.0, VQ_SETUP_KICKFD, &mut Kick { index, fd }) }.map(drop)
    }

    /// Interrupts the driver.
    pub fn interrupt(&self, index: u32) -> io::Result<()> {
        let mut index = index;
        // SAFETY: It reads a `u32`.
        unsafe { call(&self.0, VQ_INJECT_IRQ, &mut index) }.map(drop)
    }

    /// Maps the region around an address of the driver's, if there is one.
    pub fn map(&self, address: u64) -> io::Result<GuestRegionMmap> {
        let mut mapping = Mapping {
            start: address,
            last: address,
            ..Mapping::default()
        };
        // SAFETY: It reads and writes a `Mapping`, which may have any values.
        let fd = unsafe { call(&self.0, IOTLB_GET_FD, &mut mapping) }?;
        // SAFETY: The kernel has opened it for us.
        let file = unsafe { File::from_raw_fd(fd) };
        let size = usize::try_from(mapping.last - mapping.start).map_err(io::Error::other)? + 1;
        let file = FileOffset::new(file, mapping.offset);
        GuestRegionMmap::from_range(GuestAddress(mapping.start), size, Some(file))
            .map_err(io::Error::other)
    }

    /// Takes a message with its number, if there is one.
    pub fn receive(&self) -> io::Result<Option<(u32, Message)>> {
        let mut bytes = [0; MESSAGE];
        match (&self.0).read(&mut bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            other => other?,
        };
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        let message = match word(0) {
            0 => Message::QueueState(word(24)),
            1 => Message::Status(bytes[24]),
            2 => Message::Mappings,
            other => Message::Unknown(other),
        };
        Ok(Some((word(4), message)))
    }

    /// Answers a message, that for [`Message::QueueState`] with where the queue stands.
    pub fn answer(&self, number: u32, answer: Option<u16>) -> io::Result<()> {
        let mut bytes = [0; MESSAGE];
        bytes[..4].copy_from_slice(&number.to_ne_bytes());
        bytes[4..8].copy_from_slice(&u32::from(answer.is_none()).to_ne_bytes());
        bytes[28..30].copy_from_slice(&answer.unwrap_or(0).to_ne_bytes());
        match (&self.0).write(&bytes) {
            // The one who wanted to know was killed.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other.map(drop),
        }
    }
}

impl AsFd for DeviceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub fn path(name: &str) -> PathBuf {
    PathBuf::from("/dev/vduse").join(name)
}

/// # Safety
///
/// `request` has to be one that takes a pointer to a `T`, and leaves a valid one there.
unsafe fn call<T>(file: &File, request: c_ulong, argument: &mut T) -> io::Result<i32> {
    // SAFETY: By the requirements of this function.
    match unsafe { ioctl_with_mut_ref(file, request, argument) } {
        -1 => Err(io::Error::last_os_error()),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_those_of_the_kernel() {
        assert_eq!(CREATE_DEV, 0x4150_8102);
        assert_eq!(DESTROY_DEV, 0x4100_8103);
        assert_eq!(IOTLB_GET_FD, 0xc020_8110);
        assert_eq!(GET_FEATURES, 0x8008_8111);
        assert_eq!(VQ_SETUP, 0x4020_8114);
        assert_eq!(VQ_GET_INFO, 0xc030_8115);
        assert_eq!(VQ_SETUP_KICKFD, 0x4008_8116);
        assert_eq!(VQ_INJECT_IRQ, 0x4004_8117);
        assert_eq!(std::mem::offset_of!(DeviceConfig, features), 264);
        assert_eq!(std::mem::offset_of!(DeviceConfig, config_size), 332);
        assert_eq!(std::mem::offset_of!(DeviceWithConfig<8>, config), 336);
        assert_eq!(std::mem::offset_of!(QueueInfo, next_available), 32);
        assert_eq!(std::mem::offset_of!(QueueInfo, ready), 40);
    }
}
