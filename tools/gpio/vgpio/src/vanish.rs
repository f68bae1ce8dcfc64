// SPDX-License-Identifier: GPL-2.0-only

//! Guest memory that vanishes: a front end may truncate the file that it shares with us.
//!
//! A look at what is gone raises SIGBUS, which would end the daemon and all its devices. Instead
//! zeroes take the place of that memory. Its rings make no sense then, and are left alone.

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::os::fd::OwnedFd;

use anyhow::{ensure, Result};
use rustix::fs::{Mode, OFlags};
use rustix::mm::{mmap_anonymous, MapFlags, ProtFlags};
use signal_hook::consts::SIGBUS;
use signal_hook::low_level::emulate_default_handler;

/// Lets this process outlive guest memory.
///
/// This takes the place of the standard library's handler, which is of use on other systems: here a
/// stack that overflows raises SIGSEGV.
pub fn survive() -> Result<()> {
    // SAFETY: All fields are integers or a function that may be missing.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_bus_error as *const () as usize;
    // On the stack of the thread, which has room. The standard library's stack for signals has not:
    // with AVX-512 the kernel takes almost half of its 8 KiB.
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: `on_bus_error` has the signature that the flags call for and is fit for a signal
    // handler: all that it does is system calls, on memory of its own stack.
    let status = unsafe { libc::sigaction(SIGBUS, &action, std::ptr::null_mut()) };
    ensure!(status == 0, "cannot catch signals");
    Ok(())
}

extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: The kernel passes valid information, with an address for this signal.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code != libc::BUS_ADRERR || replace(address).is_none() {
        // As if we had never been here.
        let _ = emulate_default_handler(signal);
    }
}

/// Puts zeroes in the place of the guest memory around `address`. `None` if there is none.
fn replace(address: usize) -> Option<()> {
    let maps = Maps::open()?;
    let range = guest_memory_around(address, maps)?;
    // SAFETY: Nothing but guest memory is mapped for sharing and writing in this process. Whatever
    // looks at that expects it to change at any time, and keeps it from being unmapped meanwhile.
    unsafe {
        mmap_anonymous(
            range.start as *mut c_void,
            range.len(),
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
        )
    }
    .ok()?;
    Some(())
}

/// The kernel's list of our mappings, byte for byte, without allocation.
struct Maps {
    file: OwnedFd,
    buffer: [u8; 512],
    rest: Range<usize>,
}

impl Maps {
    fn open() -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Some(Self {
            file: rustix::fs::open(c"/proc/self/maps", flags, Mode::empty()).ok()?,
            buffer: [0; 512],
            rest: 0..0,
        })
    }
}

impl Iterator for Maps {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.rest.is_empty() {
            self.rest = 0..rustix::io::read(&self.file, &mut self.buffer).ok()?;
        }
        self.rest.next().map(|index| self.buffer[index])
    }
}

/// Finds the mapping of `address` in lines that begin like `7f00-7f80 rw-s `, if it is one that is
/// shared and written to.
fn guest_memory_around(address: usize, mut maps: impl Iterator<Item = u8>) -> Option<Range<usize>> {
    loop {
        let start = number(&mut maps, b'-')?;
        let end = number(&mut maps, b' ')?;
        let access = [maps.next()?, maps.next()?, maps.next()?, maps.next()?];
        if (start..end).contains(&address) {
            return (access == *b"rw-s").then_some(start..end);
        }
        maps.find(|byte| *byte == b'\n')?;
    }
}

/// Reads a hexadecimal number and what ends it.
fn number(maps: &mut impl Iterator<Item = u8>, end: u8) -> Option<usize> {
    let mut number = 0_usize;
    for byte in maps {
        if byte == end {
            return Some(number);
        }
        number = (number << 4) | char::from(byte).to_digit(16)? as usize;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
        5600-5700 r-xp 00000000 fe:01 9001  /usr/bin/vgpio\n\
        7f001000-7f005000 rw-s 00001000 00:01 77  /memfd:guest (deleted)\n\
        7f006000-7f007000 rw-p 00000000 00:00 0\n";

    fn find(address: usize) -> Option<Range<usize>> {
        guest_memory_around(address, MAPS.iter().copied())
    }

    #[test]
    fn only_guest_memory_is_replaced() {
        assert_eq!(find(0x7f00_1000), Some(0x7f00_1000..0x7f00_5000));
        assert_eq!(find(0x7f00_4fff), Some(0x7f00_1000..0x7f00_5000));
        for other in [0, 0x5650, 0x7f00_5000, 0x7f00_6000, usize::MAX] {
            assert_eq!(find(other), None, "{other:#x}");
        }
    }

    #[test]
    fn the_kernels_list_is_understood() {
        let here = &MAPS as *const _ as usize;
        let mut maps = Maps::open().unwrap();
        let text: Vec<_> = maps.by_ref().collect();
        assert!(text.ends_with(b"\n"));
        // It is there, to be read only.
        assert_eq!(guest_memory_around(here, text.iter().copied()), None);
        let shared = String::from_utf8(text).unwrap().replace(" r--p ", " rw-s ");
        let range = guest_memory_around(here, shared.bytes()).unwrap();
        assert!(range.contains(&here));
    }
}
