// SPDX-License-Identifier: GPL-2.0-only

//! The `vgpio` program; see the README for what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    vgpio::program::main()
}
