// SPDX-License-Identifier: GPL-2.0-only

//! `vgpio board`: a page on the loopback address with switches, buttons, LEDs, digits and traces.
//!
//! It is a client of the daemon. One thread serves all browsers, others talk to the daemon.

mod connection;
mod http;
mod layout;
mod link;
mod message;
mod panel;
mod server;
mod state;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::rand::{getrandom, GetRandomFlags};

use self::http::Answer;
use self::layout::Layout;
use self::panel::Panel;
use self::server::Server;
use self::state::Shared;
use crate::control::Line;
use crate::model::{Direction, IrqType};

/// Serves the page until the process ends. Without `file`, the names of the lines make the layout.
pub fn serve(control: PathBuf, file: Option<&Path>, port: u16, out: &mut impl Write) -> Result<()> {
    let layout = file.map(Layout::read).transpose()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("cannot listen on port {port} of 127.0.0.1"))?;
    let port = listener.local_addr()?.port();
    let token = token()?;
    let shared = Arc::new(Shared::new()?);
    let orders = link::start(control, layout, shared.clone())?;
    writeln!(out, "http://127.0.0.1:{port}/{token}/")?;
    out.flush()?;
    Server::new(listener, shared, orders, token)?.run()
}

/// Unused lines with these names, or none where a name is empty.
fn lines(device: &str, names: &[&str]) -> Vec<Line> {
    let line = |(line, name): (u16, &&str)| Line {
        device: device.into(),
        line,
        name: (!name.is_empty()).then(|| name.to_string()),
        level: false,
        host: false,
        direction: Direction::None,
        irq: IrqType::None,
        armed: false,
        latched: false,
        from: None,
        wire: None,
    };
    (0..).zip(names).map(line).collect()
}

/// A user writes `text` into a board file, or a browser sends it.
pub fn exercise(text: &str) {
    let names: Vec<_> = text.lines().take(300).collect();
    let lines = lines("d", &names);
    let layout = Layout::parse(text).ok();
    let panel = Panel::new(layout.as_ref(), &[], &lines);
    assert!(panel.lines.len() <= layout::MOST);

    match http::answer(text.as_bytes(), "token") {
        Answer::Wait => assert!(text.len() <= http::LONGEST_HEAD),
        Answer::Response(bytes) => assert!(bytes.starts_with(b"HTTP/1.1 ")),
        Answer::Messages(_, length) => assert!(text[..length].contains("/token/messages")),
    }
    let _ = serde_json::from_str::<message::Order>(text);
}

/// What a browser must know to be let in.
fn token() -> Result<String> {
    let mut bytes = [0; 16];
    let count = getrandom(&mut bytes, GetRandomFlags::empty()).context("no random numbers")?;
    anyhow::ensure!(count == bytes.len(), "no random numbers");
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}
