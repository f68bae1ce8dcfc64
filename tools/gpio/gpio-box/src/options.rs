// SPDX-License-Identifier: GPL-2.0-only

//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use vgpio::config;

/// Runs a command where GPIO chips exist, without root: in User-Mode Linux, on the files of the host.
///
/// The exit status is that of the command, 128 and the signal that ended it, 127 if it was not
/// found, 126 if it cannot be run, or 125 if gpio-box itself fails. Commands in there move the other
/// ends of the lines with `vgpio set`.
#[derive(Parser)]
#[command(name = "gpio-box", version, max_term_width = 100)]
pub struct Options {
    /// Number of lines [default: as many as there are names, or 8]
    #[arg(long, value_name = "N", conflicts_with = "devices")]
    lines: Option<u32>,
    /// Names of lines, separated by colons
    #[arg(long, value_name = "A:B:...", conflicts_with = "devices")]
    names: Option<String>,
    /// A device as for `vgpio serve`, without socket: lines=N,names=A:B,...; may be repeated
    #[arg(short = 'd', long = "device", value_name = "KEY=VALUE,...")]
    devices: Vec<config::Device>,
    /// Memory for the guest, in MiB; taken from the host when it is used
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub memory: u64,
    /// The User-Mode Linux kernel [default: `linux` beside this program]
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Keep the log of the guest's kernel in this file
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

impl Options {
    /// The devices, still without sockets.
    pub fn devices(&self) -> Vec<config::Device> {
        if !self.devices.is_empty() {
            return self.devices.clone();
        }
        let names = self.names.as_deref().unwrap_or_default();
        let names: Vec<_> = match names {
            "" => Vec::new(),
            names => names.split(':').map(str::to_owned).collect(),
        };
        let lines = match names.len() {
            0 => 8,
            count => count as u32,
        };
        vec![config::Device {
            lines: self.lines.unwrap_or(lines),
            names,
            ..config::Device::default()
        }]
    }
}
