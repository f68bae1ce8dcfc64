// SPDX-License-Identifier: GPL-2.0-only

//! The kernel's vDPA bus, where a VDUSE device meets its driver: what `vdpa dev add` and
//! `vdpa dev del` do, by generic netlink.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::netlink::{SocketAddrNetlink, GENERIC};
use rustix::net::{
    connect, recv, send, socket_with, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
};

// What linux/netlink.h, linux/genetlink.h and linux/vdpa.h have of it.
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLA_TYPE_MASK: u16 = 0x3fff;
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const VDPA_CMD_DEV_NEW: u8 = 3;
const VDPA_CMD_DEV_DEL: u8 = 4;
const VDPA_ATTR_MGMTDEV_DEV_NAME: u16 = 2;
const VDPA_ATTR_DEV_NAME: u16 = 4;

/// Bytes of the headers of netlink and of generic netlink.
const HEADERS: usize = 16 + 4;

/// Adds the VDUSE device `name`. Comes back when the driver has probed it, to which the device has
/// to answer meanwhile.
pub fn add(name: &str) -> io::Result<()> {
    let attributes = [
        (VDPA_ATTR_MGMTDEV_DEV_NAME, "vduse"),
        (VDPA_ATTR_DEV_NAME, name),
    ];
    order(VDPA_CMD_DEV_NEW, &attributes)
}

/// Takes the device `name` away from its driver, to which the device has to answer meanwhile.
pub fn remove(name: &str) -> io::Result<()> {
    order(VDPA_CMD_DEV_DEL, &[(VDPA_ATTR_DEV_NAME, name)])
}

/// Where sysfs has the device `name`.
pub fn place(name: &str) -> PathBuf {
    PathBuf::from("/sys/bus/vdpa/devices").join(name)
}

/// Has the kernel carry out a command, and waits until it has.
fn order(command: u8, attributes: &[(u16, &str)]) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(GENERIC),
    )?;
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    let name = [(CTRL_ATTR_FAMILY_NAME, "vdpa")];
    let family = ask(&socket, GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, &name)?;
    let family = family_id(&family).ok_or(Errno::PROTO)?;
    ask(&socket, family, NLM_F_ACK, command, attributes).map(drop)
}

/// Sends a message, and gives the first one that comes back.
fn ask(
    socket: &OwnedFd,
    kind: u16,
    flags: u16,
    command: u8,
    attributes: &[(u16, &str)],
) -> io::Result<Vec<u8>> {
    send(
        socket,
        &message(kind, flags, command, attributes),
        SendFlags::empty(),
    )?;
    let mut answer = vec![0; 8192];
    let (length, _) = rustix::io::retry_on_intr(|| recv(socket, &mut answer, RecvFlags::empty()))?;
    answer.truncate(length);
    match error(&answer) {
        None | Some(0) => Ok(answer),
        Some(number) => Err(io::Error::from_raw_os_error(-number)),
    }
}

fn message(kind: u16, flags: u16, command: u8, attributes: &[(u16, &str)]) -> Vec<u8> {
    let mut bytes = vec![0; HEADERS];
    for (kind, text) in attributes {
        let length = 4 + text.len() as u16 + 1;
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(text.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    // The version of both families.
    bytes[16..18].copy_from_slice(&[command, 1]);
    bytes
}

/// The error number in an answer, zero for success; `None` if it is of another kind.
fn error(answer: &[u8]) -> Option<i32> {
    let kind = answer.get(4..6)?.try_into().ok()?;
    if u16::from_ne_bytes(kind) != NLMSG_ERROR {
        return None;
    }
    Some(i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?))
}

/// The family's number among the attributes of an answer.
fn family_id(answer: &[u8]) -> Option<u16> {
    let mut rest = answer.get(HEADERS..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        if kind & NLA_TYPE_MASK == CTRL_ATTR_FAMILY_ID {
            return Some(u16::from_ne_bytes(value.try_into().ok()?));
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded() {
        let bytes = message(
            0x1b,
            NLM_F_ACK,
            VDPA_CMD_DEV_DEL,
            &[(4, "gpio"), (2, "abc")],
        );
        assert_eq!(bytes.len(), 20 + 12 + 8);
        assert_eq!(bytes[..4], 40_u32.to_ne_bytes());
        assert_eq!(bytes[4..6], 0x1b_u16.to_ne_bytes());
        assert_eq!(bytes[6..8], 5_u16.to_ne_bytes());
        assert_eq!(bytes[16..18], [4, 1]);
        assert_eq!(bytes[20..22], 9_u16.to_ne_bytes());
        assert_eq!(bytes[22..24], 4_u16.to_ne_bytes());
        assert_eq!(bytes[24..32], *b"gpio\0\0\0\0");
        assert_eq!(bytes[36..], *b"abc\0");
    }

    #[test]
    fn answers_are_understood() {
        let mut failure = message(NLMSG_ERROR, 0, 0, &[]);
        failure[16..20].copy_from_slice(&(-22_i32).to_ne_bytes());
        assert_eq!(error(&failure), Some(-22));
        assert_eq!(error(&failure[..18]), None);

        let mut family = message(GENL_ID_CTRL, 0, 1, &[(CTRL_ATTR_FAMILY_NAME, "vdpa")]);
        assert_eq!(error(&family), None);
        assert_eq!(family_id(&family), None);
        for word in [6, CTRL_ATTR_FAMILY_ID, 0x1b, 0] {
            family.extend(word.to_ne_bytes());
        }
        assert_eq!(family_id(&family), Some(0x1b));
        for length in 0..family.len() - 2 {
            assert_eq!(family_id(&family[..length]), None, "{length}");
        }
        // A length of zero ends the search.
        family[20..22].copy_from_slice(&[0, 0]);
        assert_eq!(family_id(&family), None);
    }

    #[test]
    fn the_kernel_answers() {
        // There is no such device, or no such bus, or one may not ask.
        remove("no-such-device").unwrap_err();
    }
}
