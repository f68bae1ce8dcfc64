// SPDX-License-Identifier: GPL-2.0

//! Rust GPIO controller sample: lines in memory, with interrupts.
//!
//! An output is looped back to the input four lines further: what drives line 0 is seen on line 4,
//! as a value and as an edge. Line 8 is no GPIO.

use kernel::{
    bitmap::Bitmap,
    faux,
    gpio,
    irq::TriggerType,
    prelude::*,
    sync::{
        new_raw_spinlock,
        Arc,
        RawSpinLock, //
    }, //
};

module! {
    type: SampleModule,
    name: "rust_gpio_memory",
    authors: ["Rust for Linux Contributors"],
    description: "Rust GPIO controller sample",
    license: "GPL",
}

/// One bit for each line.
#[derive(Default)]
struct Lines {
    outputs: u16,
    values: u16,
    pulled_up: u16,
    rising: u16,
    falling: u16,
    unmasked: u16,
}

fn assign(word: &mut u16, bit: u16, on: bool) {
    *word = if on { *word | bit } else { *word & !bit };
}

impl Lines {
    /// The levels of all lines: what drives a line, itself or the output it is looped to, else
    /// its pull-up.
    fn levels(&self) -> u16 {
        let looped = |lines: u16| lines | lines << 4;

        looped(self.values & self.outputs) | self.pulled_up & !looped(self.outputs)
    }

    /// Changes the lines; returns those whose interrupts that raises.
    fn change(&mut self, f: impl FnOnce(&mut Self)) -> u16 {
        let before = self.levels();
        f(self);
        let after = self.levels();

        (after & !before & self.rising | before & !after & self.falling) & self.unmasked
    }
}

#[pin_data]
struct Memory {
    #[pin]
    domain: gpio::IrqDomain,
    #[pin]
    lines: RawSpinLock<Lines>,
}

impl Memory {
    fn change(&self, f: impl FnOnce(&mut Lines)) {
        let due = self.lines.with(|lines| lines.change(f));

        // Without the lock, as the handlers may use the lines.
        for line in (0..9).filter(|line| due & 1 << line != 0) {
            // Fails if the line is no interrupt of a consumer.
            let _ = self.domain.handle_irq(line);
        }
    }
}

#[vtable]
impl gpio::Chip for Memory {
    fn init_valid_mask(&self, valid: &mut Bitmap) -> Result {
        valid.clear_bit(8);
        Ok(())
    }

    fn get_direction(&self, offset: u32) -> Result<gpio::LineDirection> {
        Ok(match self.lines.with(|lines| lines.outputs & 1 << offset) {
            0 => gpio::LineDirection::In,
            _ => gpio::LineDirection::Out,
        })
    }

    fn direction_input(&self, offset: u32) -> Result {
        self.change(|lines| lines.outputs &= !(1 << offset));
        Ok(())
    }

    fn direction_output(&self, offset: u32, value: bool) -> Result {
        self.set(offset, value)?;
        self.change(|lines| lines.outputs |= 1 << offset);
        Ok(())
    }

    fn get(&self, offset: u32) -> Result<bool> {
        Ok(self.lines.with(|lines| lines.levels() & 1 << offset != 0))
    }

    fn set(&self, offset: u32, value: bool) -> Result {
        self.change(|lines| assign(&mut lines.values, 1 << offset, value));
        Ok(())
    }

    fn set_config(&self, offset: u32, config: gpio::LineConfig) -> Result {
        match config {
            gpio::LineConfig::BiasPullUp => self.change(|lines| lines.pulled_up |= 1 << offset),
            gpio::LineConfig::BiasPullDown => {
                self.change(|lines| lines.pulled_up &= !(1 << offset))
            }
            _ => return Err(ENOTSUPP),
        }
        Ok(())
    }
}

#[vtable]
impl gpio::IrqChip for Memory {
    const HANDLER: gpio::FlowHandler = gpio::FlowHandler::Edge;

    fn irq_domain(&self) -> &gpio::IrqDomain {
        &self.domain
    }

    fn irq_mask(&self, offset: u32) {
        self.lines.with(|lines| lines.unmasked &= !(1 << offset));
    }

    fn irq_unmask(&self, offset: u32) {
        self.lines.with(|lines| lines.unmasked |= 1 << offset);
    }

    fn irq_set_type(&self, offset: u32, trigger: TriggerType) -> Result {
        let (rising, falling) = match trigger {
            TriggerType::EdgeRising => (true, false),
            TriggerType::EdgeFalling => (false, true),
            TriggerType::EdgeBoth => (true, true),
            _ => return Err(EINVAL),
        };

        self.lines.with(|lines| {
            assign(&mut lines.rising, 1 << offset, rising);
            assign(&mut lines.falling, 1 << offset, falling);
        });
        Ok(())
    }
}

struct SampleModule {
    // Dropped before the device is.
    _chip: gpio::Registration<Memory>,
    _device: faux::Registration,
}

impl kernel::Module for SampleModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let device = faux::Registration::new(c"rust-gpio-memory", None)?;
        let chip = Arc::pin_init(
            pin_init!(Memory {
                domain <- gpio::IrqDomain::new(),
                lines <- new_raw_spinlock!(Lines::default()),
            }),
            GFP_KERNEL,
        )?;
        let info = gpio::ChipInfo {
            label: c"rust-gpio-memory",
            ngpio: 9,
            can_sleep: false,
            names: None,
        };

        Ok(Self {
            _chip: gpio::Registration::with_irq(device.bound(), chip, info, gpio::lock_classes!())?,
            _device: device,
        })
    }
}

#[kunit_tests(rust_gpio_memory)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_looped() {
        let mut lines = Lines::default();

        assert_eq!(lines.change(|lines| lines.pulled_up = 0x10), 0);
        assert_eq!(lines.levels(), 0x10);
        assert_eq!(lines.change(|lines| lines.outputs = 0x1), 0);
        assert_eq!(lines.levels(), 0);
        assert_eq!(lines.change(|lines| lines.values = 0x1), 0);
        assert_eq!(lines.levels(), 0x11);
    }

    #[test]
    fn edges_are_raised() {
        let mut lines = Lines {
            outputs: 0x1,
            rising: 0x10,
            unmasked: 0x10,
            ..Lines::default()
        };

        assert_eq!(lines.change(|lines| lines.values = 0x1), 0x10);
        assert_eq!(lines.change(|lines| lines.values = 0), 0);
        lines.falling = 0x10;
        assert_eq!(lines.change(|lines| lines.values = 0x1), 0x10);
        assert_eq!(lines.change(|lines| lines.values = 0), 0x10);
        lines.unmasked = 0;
        assert_eq!(lines.change(|lines| lines.values = 0x1), 0);
    }
}
