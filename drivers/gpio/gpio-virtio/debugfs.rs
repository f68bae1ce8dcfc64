// SPDX-License-Identifier: GPL-2.0

//! What debugfs shows of a device: counters, and the lines in use.

use kernel::{
    debugfs::Scope,
    device::Device,
    fmt,
    prelude::*,
    str::CString,
    sync::Arc, //
};

use crate::device::VirtioGpio;

/// The directory of a device. Goes when it is dropped.
pub(crate) struct Directory {
    _scope: Pin<KBox<Scope<Arc<VirtioGpio>>>>,
}

impl Directory {
    /// Makes the directory `gpio-<name of dev>`.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is not enough memory. That there is no debugfs is none.
    pub(crate) fn new(dev: &Device, gpio: &Arc<VirtioGpio>) -> Result<Self> {
        let name = CString::try_from_fmt(fmt!("gpio-{}", dev.name()))?;

        Ok(Self {
            _scope: KBox::pin_init(
                Scope::dir(gpio.clone(), &name, |gpio, dir| {
                    dir.read_callback_file(c"counters", gpio, &counters);
                    dir.read_callback_file(c"lines", gpio, &lines);
                }),
                GFP_KERNEL,
            )?,
        })
    }
}

fn counters(gpio: &Arc<VirtioGpio>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    gpio.requests.show(f)?;
    gpio.events.show(f)
}

fn lines(gpio: &Arc<VirtioGpio>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for line in 0..gpio.ngpio() {
        let usage = gpio
            .lines
            .with(|lines| lines.get(usize::from(line)).copied());

        let Some(usage) = usage.filter(|usage| usage.is_used()) else {
            continue;
        };

        write!(f, "{line}: ")?;
        usage.show(f)?;
        if let Some(irq) = gpio.events.line(line).filter(|_| usage.is_irq()) {
            write!(f, "; ")?;
            irq.show(f)?;
        }
        writeln!(f)?;
    }
    Ok(())
}
