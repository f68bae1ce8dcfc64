// SPDX-License-Identifier: GPL-2.0

//! Abstractions for the virtio bus.

mod buffer;
// The bus opens queues.
#[expect(dead_code)]
mod queue;

pub use self::{
    buffer::{
        Buffer,
        Message,
        Payload,
        SegmentList, //
    },
    queue::{
        new_virtqueue,
        Access,
        AnyQueue,
        Closed,
        Queue,
        Reclaim, //
    }, //
};
