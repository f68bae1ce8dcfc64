// SPDX-License-Identifier: GPL-2.0

//! Restores values, directions and interrupts of a device after a suspend or a reset.

use kernel::{
    prelude::*,
    sync::Arc,
    virtio::Scope, //
};

use crate::{
    events::RETRY_MS,
    VirtioGpio, //
};

impl VirtioGpio {
    /// Restores the state of the lines in use, and lets other requests go.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device cannot be used. One that refuses, or is slow, is no error.
    ///
    /// # Context
    ///
    /// Process context, with the lock of the device held; sleeps.
    pub(crate) fn replay(this: &Arc<Self>) -> Result {
        // Before requests of a new generation go: see `sync_line()`.
        for line in 0..this.ngpio {
            this.lines.with(|lines| lines.reset_irq(line));
        }

        let mut ret = Ok(());
        let requests = (0..2 * u32::from(this.ngpio)).filter_map(|step| {
            // CAST: The number of a line fits.
            let line = (step / 2) as u16;
            let message = this
                .lines
                .with(|lines| lines.get(line).ok()?.replay(step % 2 == 0))?;

            Some(message.request(line))
        });
        let sent = this
            .requests
            .call_all(Scope::Replay, requests, |_, answer| match answer {
                Err(err) if err == ENODEV => ret = Err(err),
                _ => (),
            });

        match sent {
            Err(err) if err == ETIMEDOUT => (),
            sent => sent.and(ret)?,
        }

        this.requests.start()?;
        this.hold_events(false);
        let mut answers = true;

        for line in 0..this.ngpio {
            // One that is not answered is enough to wait for here.
            if answers {
                answers = Self::sync_line(this, line, true);
            } else {
                this.lines.with(|lines| lines.mark_for_retry(line));
            }
        }
        if !answers {
            Self::retry_soon(this, RETRY_MS);
        }
        Self::arm_lines(this);
        Ok(())
    }
}
