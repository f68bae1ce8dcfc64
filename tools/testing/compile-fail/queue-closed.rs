// SPDX-License-Identifier: GPL-2.0

//! A driver does what the bus does with a queue.

use kernel::virtio::AnyQueue;

/// By methods.
pub fn methods(queue: AnyQueue<'_>) {
    queue.close(); //~ E0599
    queue.set_ready(); //~ E0599
}

/// By the trait object.
pub fn object(queue: AnyQueue<'_>) {
    queue.0.close(); //~ E0616
}
