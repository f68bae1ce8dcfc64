// SPDX-License-Identifier: GPL-2.0-only

//! `replay`: has the host drive lines as in a VCD file.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::client::{self, Client};
use crate::control::Request;
use crate::wave::{self, Change, Signal, Value, Wave};

/// The most levels in one request.
const LEVELS: usize = 4096;

/// How many requests may go ahead of their answers.
const UNANSWERED: usize = 256;

/// A line as requests name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    device: Option<String>,
    line: String,
}

/// Replays the levels in the file `path`, `speed` times as fast as they were recorded, on `device`
/// or on the devices that the file names. No `lines` means all.
pub fn replay(
    client: &mut Client,
    path: &Path,
    device: Option<&str>,
    lines: &[String],
    speed: f64,
) -> Result<()> {
    let wave = wave::read(path)?;
    let shown = path.display();
    let targets = targets(&wave, device, lines).with_context(|| shown.to_string())?;
    check(client, &targets).with_context(|| shown.to_string())?;
    let start = Instant::now();
    let mut unanswered = 0;
    for now in wave.changes.chunk_by(|a, b| a.time == b.time) {
        let requests = requests(now, &targets);
        if requests.is_empty() {
            continue;
        }
        let time = Duration::try_from_secs_f64(now[0].time as f64 / 1e9 / speed).ok();
        let time = time.and_then(|time| start.checked_add(time));
        let time = time.with_context(|| format!("{shown}: that takes too long"))?;
        // Answers can wait while there is no time.
        if time > Instant::now() || unanswered > UNANSWERED {
            (0..unanswered).try_for_each(|_| client.done())?;
            unanswered = 0;
        }
        thread::sleep(time.saturating_duration_since(Instant::now()));
        for request in &requests {
            client.send(request)?;
            unanswered += 1;
        }
    }
    (0..unanswered).try_for_each(|_| client.done())
}

/// Finds the line for each signal that is the host's: in our recordings those that say so, in other
/// files all of one bit.
pub fn targets(wave: &Wave, device: Option<&str>, lines: &[String]) -> Result<Vec<Option<Target>>> {
    let recorded = |it: &Signal| it.line.is_some() && it.name.ends_with(".host");
    let ours = wave.signals.iter().any(recorded);
    let mut found = vec![false; lines.len()];
    let mut wanted = |names: [&str; 2]| {
        let same = lines.iter().map(|it| names.contains(&&it[..]));
        let hits = found.iter_mut().zip(same).filter(|(_, same)| *same);
        hits.map(|(found, _)| *found = true).count() > 0 || lines.is_empty()
    };
    let targets = wave.signals.iter().map(|signal| {
        let device = device.map(str::to_owned);
        match &signal.line {
            Some(line) if recorded(signal) => {
                let offset = line.line.to_string();
                // Requests take a number for an offset.
                let name = line.name.clone().filter(|it| it.parse::<u64>().is_err());
                let name = name.unwrap_or_else(|| offset.clone());
                wanted([&name, &offset]).then(|| Target {
                    device: device.or_else(|| Some(line.device.clone())),
                    line: name,
                })
            }
            None if !ours && signal.width == 1 => {
                let line = signal.name.clone();
                wanted([&line; 2]).then_some(Target { device, line })
            }
            _ => None,
        }
    });
    let targets: Vec<_> = targets.collect();
    if let Some(missing) = found.iter().position(|found| !found) {
        anyhow::bail!("no signal for a line {:?}", lines[missing]);
    }
    ensure!(
        targets.iter().any(Option::is_some),
        "no signal of one bit to replay"
    );
    Ok(targets)
}

/// Makes sure that all lines exist before any of them changes.
fn check(client: &mut Client, targets: &[Option<Target>]) -> Result<()> {
    let mut by_device: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for target in targets.iter().flatten() {
        let lines = by_device.entry(&target.device).or_default();
        lines.push(target.line.clone());
    }
    for (device, lines) in by_device {
        for lines in lines.chunks(LEVELS) {
            client::lines(client, device.clone(), lines.to_vec())?;
        }
    }
    Ok(())
}

/// Makes requests of changes at the same time, in their order.
pub fn requests(changes: &[Change], targets: &[Option<Target>]) -> Vec<Request> {
    let mut requests = Vec::new();
    for change in changes {
        let (Some(target), Value::Level(Some(level))) = (&targets[change.signal], &change.value)
        else {
            continue;
        };
        let value = (target.line.clone(), *level);
        match requests.last_mut() {
            Some(Request::Set { device, values })
                if *device == target.device && values.len() < LEVELS =>
            {
                values.push(value);
            }
            _ => requests.push(Request::Set {
                device: target.device.clone(),
                values: vec![value],
            }),
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(vars: &str, changes: &str) -> Wave {
        let text = format!("$timescale 1 ns $end {vars} $enddefinitions $end {changes}");
        wave::parse(text.as_bytes()).unwrap()
    }

    const RECORDED: &str = "\
        $comment {\"device\":\"d\",\"line\":0,\"name\":\"a\"} $end \
        $var wire 1 l0 a $end $var wire 1 h0 a.host $end \
        $comment {\"device\":\"d\",\"line\":1,\"name\":\"7\"} $end \
        $var wire 1 l1 _7 $end $var wire 1 h1 _7.host $end \
        $comment {\"device\":\"e\",\"line\":2,\"name\":null} $end \
        $var wire 1 h2 line2.host $end";

    fn set(device: Option<&str>, values: &[(&str, bool)]) -> Request {
        Request::Set {
            device: device.map(str::to_owned),
            values: values
                .iter()
                .map(|(line, it)| ((*line).to_owned(), *it))
                .collect(),
        }
    }

    #[test]
    fn a_recording_plays_what_the_host_drove() {
        let wave = parse(RECORDED, "1l0 1h0 1h2 0h2 1h1 xh0 0h0 0l1");
        let all = targets(&wave, None, &[]).unwrap();
        assert_eq!(
            requests(&wave.changes, &all),
            [
                set(Some("d"), &[("a", true)]),
                set(Some("e"), &[("2", true), ("2", false)]),
                set(Some("d"), &[("1", true), ("a", false)]),
            ]
        );
        let lines = ["1", "2"].map(str::to_owned);
        let some = targets(&wave, Some("x"), &lines).unwrap();
        assert_eq!(
            requests(&wave.changes, &some),
            [set(Some("x"), &[("2", true), ("2", false), ("1", true)])]
        );
        let error = targets(&wave, None, &["b".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "no signal for a line \"b\"");
    }

    #[test]
    fn any_other_file_plays_all_bits() {
        let wave = parse(
            "$var wire 1 ! key $end $var wire 8 w bus $end",
            "1! b1 w b0 !",
        );
        let all = targets(&wave, None, &[]).unwrap();
        assert_eq!(
            requests(&wave.changes, &all),
            [set(None, &[("key", true), ("key", false)])]
        );
        let wave = parse("$var real 64 r r $end", "r1.5 r");
        targets(&wave, None, &[]).unwrap_err();
    }
}
