// SPDX-License-Identifier: GPL-2.0-only

//! Runs a command where GPIO chips exist: in User-Mode Linux, on the files of the host.
//!
//! One program has three roles: the launcher on the host, which also is the GPIO and socket devices
//! of the guest; the first process of the guest; and `vgpio` for commands in the guest.

mod connection;
mod copy;
mod guard;
mod guest;
mod launch;
mod message;
mod options;
mod packet;
mod streams;
mod terminal;
mod uml;
mod vsock;

use std::process::ExitCode;

use clap::Parser;

/// How the kernel starts this program in the guest.
const IN_GUEST: &str = "--in-guest";

/// The exit status if there is none of the command.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    if args
        .next()
        .is_some_and(|name| name.as_encoded_bytes().ends_with(b"vgpio"))
    {
        return vgpio::program::main();
    }
    if args.next().is_some_and(|first| first == IN_GUEST) {
        guest::main();
    }
    let options = match options::Options::try_parse() {
        Ok(options) => options,
        Err(e) => {
            let _ = e.print();
            // Help and version are errors only to the parser.
            return ExitCode::from(if e.use_stderr() { FAILED } else { 0 });
        }
    };
    match launch::run(&options) {
        Ok(status) => ExitCode::from(status),
        Err(e) => {
            eprintln!("gpio-box: {e:#}");
            ExitCode::from(FAILED)
        }
    }
}
