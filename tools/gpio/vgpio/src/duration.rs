// SPDX-License-Identifier: GPL-2.0-only

//! Durations on the command line: `5s`, `20ms`, `300us`; a bare number is milliseconds.

use std::time::Duration;

use anyhow::{Context, Result};

/// Parses a duration.
pub fn parse(text: &str) -> Result<Duration> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let nanos_per_unit: u64 = match unit {
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" | "" => 1_000_000,
        "us" => 1_000,
        "ns" => 1,
        _ => anyhow::bail!("bad duration {text:?}: use a number and one of m, s, ms, us, ns"),
    };
    text[..text.len() - unit.len()]
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(nanos_per_unit))
        .map(Duration::from_nanos)
        .with_context(|| format!("bad duration {text:?}: use a number and one of m, s, ms, us, ns"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (text, nanos) in [
            ("2s", 2_000_000_000),
            ("20ms", 20_000_000),
            ("20", 20_000_000),
            ("7us", 7_000),
            ("1m", 60_000_000_000),
            ("5ns", 5),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_nanos(nanos), "{text}");
        }
    }

    #[test]
    fn nonsense() {
        for text in [
            "",
            "ms",
            "-1s",
            "1.5s",
            "3h",
            "99999999999999999999",
            "99999999999m",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
