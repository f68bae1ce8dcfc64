// SPDX-License-Identifier: GPL-2.0-only

//! The `vgpio` program; see the README for what it does.

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // The queue library shouts once per notification about a broken ring; the device says it once.
    let filter = "info,vhost_user_backend=warn,virtio_queue=off";
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter)).init();

    match vgpio::cli::run(vgpio::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vgpio: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}
