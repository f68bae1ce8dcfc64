// SPDX-License-Identifier: GPL-2.0-only

//! Counters of what a device saw and did.

use serde::{Deserialize, Serialize};

use crate::wire::Message;

/// Requests by type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    pub get_line_names: u64,
    pub get_direction: u64,
    pub set_direction: u64,
    pub get_value: u64,
    pub set_value: u64,
    pub set_irq_type: u64,
    pub unknown: u64,
}

impl Requests {
    /// Counts one request.
    pub fn count(&mut self, message: Option<Message>) {
        *match message {
            Some(Message::GetLineNames) => &mut self.get_line_names,
            Some(Message::GetDirection) => &mut self.get_direction,
            Some(Message::SetDirection) => &mut self.set_direction,
            Some(Message::GetValue) => &mut self.get_value,
            Some(Message::SetValue) => &mut self.set_value,
            Some(Message::SetIrqType) => &mut self.set_irq_type,
            None => &mut self.unknown,
        } += 1;
    }
}

/// Traffic on one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Notifications from the guest, and one for each start of the ring.
    pub kicks: u64,
    /// Kicks after which there was at least one chain.
    pub batches: u64,
    /// Chains taken from the ring.
    pub chains: u64,
    /// Chains handed back.
    pub returned: u64,
    /// Interrupts sent to the guest.
    pub signals: u64,
    /// Chains that were no message.
    pub malformed: u64,
    /// Times that the front end has disabled the ring.
    pub disabled: u64,
}

/// Everything that is counted for a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Front ends that connected.
    pub connections: u64,
    /// Level changes asked for by the host.
    pub host_changes: u64,
    pub requests: Requests,
    /// Answers with status OK and with any other.
    pub answered_ok: u64,
    pub answered_err: u64,
    pub request_queue: Queue,
    pub event_queue: Queue,
    /// Event buffers handed back with an interrupt and without.
    pub events_valid: u64,
    pub events_invalid: u64,
    /// Edges kept for later, and edges that fell together with a kept one.
    pub edges_latched: u64,
    pub edges_merged: u64,
    /// Chains that were due when the guest had stopped or disabled their ring.
    pub late: u64,
    /// Messages and events that a fault was applied to.
    pub faults: u64,
    /// Level changes by wires.
    pub wire_changes: u64,
    /// Levels that another device was to have, but for a later one.
    pub wire_dropped: u64,
}

impl Stats {
    /// The counters of a queue by its index.
    pub fn queue(&mut self, index: usize) -> &mut Queue {
        if index == crate::wire::REQUEST_QUEUE {
            &mut self.request_queue
        } else {
            &mut self.event_queue
        }
    }
}
