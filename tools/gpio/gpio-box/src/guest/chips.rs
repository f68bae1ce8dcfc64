// SPDX-License-Identifier: GPL-2.0-only

//! The GPIO chips.

use std::fs::{read_dir, set_permissions, Permissions};
use std::os::unix::fs::{chown, PermissionsExt};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};

const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for `count` chips and gives them to the user.
pub fn give(count: usize, user: u32, group: u32) -> Result<()> {
    let start = Instant::now();
    let mut chips = find()?;
    while chips.len() < count && start.elapsed() < PATIENCE {
        sleep(Duration::from_millis(1));
        chips = find()?;
    }
    ensure!(
        chips.len() >= count,
        "{} of {count} GPIO chips are there",
        chips.len()
    );
    for chip in chips {
        chown(&chip, Some(user), Some(group))?;
        set_permissions(&chip, Permissions::from_mode(0o660))?;
    }
    Ok(())
}

fn find() -> Result<Vec<PathBuf>> {
    let mut chips = Vec::new();
    for entry in read_dir("/dev")? {
        let entry = entry?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(b"gpiochip")
        {
            chips.push(entry.path());
        }
    }
    Ok(chips)
}
