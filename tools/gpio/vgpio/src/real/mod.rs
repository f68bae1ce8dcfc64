// SPDX-License-Identifier: GPL-2.0-only

//! Lines of a device that are lines of the host's GPIO chips.
//!
//! A device that has such lines has a thread that carries out the requests about them, one after the
//! other, and hears of their edges. Calls to a chip may take long. The thread holds no lock
//! meanwhile, and delays neither other devices, nor the device's other lines, nor the host.

use std::os::fd::BorrowedFd;

use anyhow::Result;

use crate::model::Usage;

pub mod config;
pub mod gpiochip;
mod worker;

use config::HostLine;

pub use worker::start;

/// An edge of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Monotonic clock, nanoseconds.
    pub time: u64,
    /// The level after it.
    pub level: bool,
}

/// The lines of the host that a device may use.
pub trait Host: Send {
    /// Requests the line that stands for `line` of the device.
    fn request(&self, line: u16, usage: Usage) -> Result<Box<dyn Line>>;
}

/// Finds lines of the host for the device of this label.
pub type Find<'a> = &'a dyn Fn(&str, &[HostLine]) -> Result<Box<dyn Host>>;

/// A line that is requested, until this is dropped.
pub trait Line: Send {
    /// Changes what it is used for.
    fn change(&mut self, usage: Usage) -> Result<()>;

    /// Reads its level.
    fn level(&self) -> Result<bool>;

    /// Takes an edge if there is one.
    fn edge(&self) -> Result<Option<Edge>>;

    /// Is readable when there is an edge, and has an error when the line is gone.
    fn events(&self) -> BorrowedFd<'_>;
}
