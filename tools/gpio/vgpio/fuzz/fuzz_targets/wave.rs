// SPDX-License-Identifier: GPL-2.0-only

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| vgpio::exercise::wave(text));
