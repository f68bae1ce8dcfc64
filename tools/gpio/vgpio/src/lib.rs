// SPDX-License-Identifier: GPL-2.0-only

//! A vhost-user GPIO device: the other end of a guest's virtio GPIO driver.

mod backend;
#[cfg(feature = "board")]
mod board;
mod chain;
pub mod cli;
mod client;
pub mod config;
pub mod control;
mod device;
mod duration;
mod eeprom;
#[doc(hidden)]
pub mod exercise;
mod fault;
mod limit;
pub mod model;
mod names;
mod outbox;
mod platform;
mod plot;
mod poll;
pub mod program;
pub mod real;
mod record;
mod replay;
mod ring;
pub mod serve;
mod server;
mod socket;
pub mod stats;
mod vanish;
mod vduse;
mod vring;
pub mod watch;
mod wave;
pub mod wire;
