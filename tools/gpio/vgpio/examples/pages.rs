// SPDX-License-Identifier: GPL-2.0-only

//! Writes man pages and shell completions, as the command line is defined, into a directory.

use std::fs::File;
use std::io::{BufRead, Write};
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use vgpio::cli::Cli;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: pages DIRECTORY DATE";
    let (dir, date) = (args.next().context(usage)?, args.next().context(usage)?);
    let mut command = Cli::command().disable_help_subcommand(true);
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command, "vgpio", &dir)?;
    }
    command.build();
    pages(&command, Path::new(&dir), &date)
}

/// Writes the pages of a command and of those below it.
fn pages(command: &Command, dir: &Path, date: &str) -> Result<()> {
    for command in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        pages(command, dir, date)?;
    }
    let version = concat!("vgpio ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).date(date).source(version);
    let mut out = File::create(dir.join(man.get_filename()))?;
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut out)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    if command.get_after_help().is_some() {
        let mut extra = Vec::new();
        man.render_extra_section(&mut extra)?;
        for line in extra.lines() {
            // Its tables have one entry to a line, which is not to be filled.
            match line?.as_str() {
                line if line.starts_with(".SH") => writeln!(out, "{line}\n.ad l\n.nh")?,
                line if line.starts_with([' ', '.']) => writeln!(out, "{line}")?,
                line => writeln!(out, ".br\n{line}")?,
            }
        }
    }
    Ok(())
}
