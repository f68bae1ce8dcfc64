// SPDX-License-Identifier: GPL-2.0-only

//! Tests of the real program: over vhost-user as a virtual machine uses it, and over its command
//! line.

#[cfg(feature = "board")]
mod board;
mod cli;
mod clients;
mod daemon;
mod driver;
mod events;
mod faults;
mod frontend;
mod hostile;
mod lifecycle;
mod poll;
mod real;
mod record;
mod requests;
mod wires;
