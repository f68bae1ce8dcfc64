// SPDX-License-Identifier: GPL-2.0-only

//! The `vgpio` program, also for those that contain it.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::Parser;

use crate::cli::{self, Cli};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // The libraries shout about whatever a guest or a front end sends; the device says it once.
    let filter = "info,vhost=off,vhost_user_backend=off,virtio_queue=off";
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter)).init();

    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are errors only to the parser.
        Err(e) if !e.use_stderr() => e.exit(),
        Err(e) => {
            eprintln!("vgpio: {}", usage_error(&e));
            return ExitCode::from(2);
        }
    };
    match cli::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has closed the pipe.
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vgpio: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// A usage error in one line: what is wrong, and where to look.
fn usage_error(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no command given; see vgpio --help".into();
    }
    let text = error.render().to_string();
    let what = text.split("\n\n").next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(what);
    let words: Vec<_> = what.split_whitespace().collect();
    format!("{}; see vgpio --help", words.join(" "))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
