// SPDX-License-Identifier: GPL-2.0-only

//! What the page and the server say to each other: a JSON object in each message.

use serde::{Deserialize, Serialize};

use super::panel::Panel;
use super::state::{Edge, State};

/// The longest message of a page.
pub const LONGEST: usize = 1 << 10;

/// Edges of one line in a message.
const EDGES: usize = 64;

/// A level that means: both, until the next edge.
const BOTH: u8 = 2;

/// A user works a button or a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The panel that the user saw.
    pub epoch: u64,
    pub line: usize,
    pub level: bool,
    /// The opposite level is to follow, at the latest when the page goes away.
    pub held: bool,
}

/// What a page has been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    pub version: u64,
    pub epoch: u64,
    pub edges: u64,
}

#[derive(Serialize)]
struct News<'a> {
    epoch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    panel: Option<&'a Panel>,
    trouble: Option<&'a str>,
    devices: &'a [(String, bool)],
    /// Monotonic clock, microseconds.
    now: u64,
    /// A digit for each line.
    levels: String,
    /// Whether the guest drives it, a digit for each line.
    guest: String,
    /// Times and levels in turn, by line.
    edges: Vec<(usize, Vec<(u64, u8)>)>,
}

/// Tells a page what is new; all of it if `seen` is `None`. Old edges are only for traces that have
/// begun before.
pub fn news(state: &State, seen: Option<Seen>, now: u64) -> (String, Seen) {
    let digits = |f: fn(&super::state::Wire) -> bool| -> String {
        let digit = |wire| if f(wire) { '1' } else { '0' };
        state.wires.iter().map(digit).collect()
    };
    let first = seen.map_or(state.edges(), |it| it.edges);
    let news = News {
        epoch: state.epoch,
        panel: seen
            .is_none_or(|it| it.epoch != state.epoch)
            .then_some(&state.panel),
        trouble: state.trouble.as_deref(),
        devices: &state.devices,
        now,
        levels: digits(|wire| wire.level),
        guest: digits(|wire| wire.guest),
        edges: by_line(state.wires.len(), state.edges_after(first)),
    };
    let seen = Seen {
        version: state.version,
        epoch: state.epoch,
        edges: state.edges(),
    };
    (
        serde_json::to_string(&news).expect("no map keys, no errors"),
        seen,
    )
}

/// Sorts edges by line. Of many the page learns from when to when there were some.
fn by_line<'a>(
    lines: usize,
    edges: impl Iterator<Item = &'a Edge>,
) -> Vec<(usize, Vec<(u64, u8)>)> {
    let mut sorted = vec![Vec::new(); lines];
    for edge in edges {
        sorted[edge.line].push((edge.time, u8::from(edge.level)));
    }
    let sorted = sorted.into_iter().enumerate();
    let sorted = sorted.filter(|(_, edges)| !edges.is_empty());
    sorted
        .map(|(line, edges)| (line, thin_out(edges)))
        .collect()
}

fn thin_out(edges: Vec<(u64, u8)>) -> Vec<(u64, u8)> {
    if edges.len() <= EDGES {
        return edges;
    }
    let chunks = edges.chunks(edges.len().div_ceil(EDGES / 2));
    let ends = chunks.flat_map(|it| [(it[0].0, BOTH), it[it.len() - 1]]);
    ends.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_edges_are_all_told() {
        let edges = [(1, 0, true), (2, 1, true), (3, 0, false)];
        let edges = edges.map(|(time, line, level)| Edge { time, line, level });
        let told = by_line(3, edges.iter());
        assert_eq!(told, [(0, vec![(1, 1), (3, 0)]), (1, vec![(2, 1)])]);
    }

    #[test]
    fn many_edges_are_told_with_their_ends() {
        let edges: Vec<_> = (0..1001).map(|time| (time, (time % 2) as u8)).collect();
        let told = thin_out(edges);
        assert!(told.len() <= EDGES);
        assert_eq!((told[0], told.last()), ((0, BOTH), Some(&(1000, 0))));
    }

    #[test]
    fn orders_are_exact() {
        let order = serde_json::from_str::<Order>;
        order(r#"{"epoch":1,"line":2,"level":true,"held":false}"#).unwrap();
        for text in [
            "",
            "{}",
            "[1]",
            r#"{"epoch":1,"line":-1,"level":true,"held":false}"#,
            r#"{"epoch":1,"line":2,"level":1,"held":false}"#,
            r#"{"epoch":1,"line":2,"level":true,"held":false,"x":1}"#,
        ] {
            order(text).unwrap_err();
        }
    }
}
