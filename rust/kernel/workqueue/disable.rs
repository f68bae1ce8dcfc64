// SPDX-License-Identifier: GPL-2.0

//! Work items that come to an end.
//!
//! C source: [`kernel/workqueue.c`](srctree/kernel/workqueue.c)

use super::{
    HasDelayedWork,
    HasWork,
    Work,
    WorkItem, //
};
use crate::{
    container_of,
    sync::Arc, //
};

/// Cancels a work item, waits until it no longer runs, and refuses it from now on.
///
/// Afterwards no workqueue holds a reference to `item` for this work, and
/// [`Queue::enqueue`](super::Queue::enqueue) fails and hands back what it was given. A driver does
/// this before it goes, so that the item does not run after that.
///
/// For a delayed work item use [`disable_delayed_sync`], which does not wait for its timer.
///
/// # Context
///
/// Process context; sleeps. Not from within the work item.
pub fn disable_sync<T, const ID: u64>(item: &Arc<T>)
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasWork<T, ID>,
{
    let ptr = Arc::as_ptr(item);

    // SAFETY: `ptr` points to a live `T`; only the address of its work is computed.
    let work = unsafe { Work::raw_get(T::raw_get_work(ptr.cast_mut())) };

    // SAFETY: The work was initialised along with `T`, and `item` keeps it alive meanwhile.
    if unsafe { bindings::disable_work_sync(work) } {
        // SAFETY: The work was pending and is not any more, so its function will not be called for
        // it: the reference that `__enqueue()` gave to the workqueue by `Arc::into_raw()` is ours.
        drop(unsafe { Arc::from_raw(ptr) });
    }
}

/// Does what [`disable_sync`] does for a delayed work item, also while its timer is running.
///
/// # Context
///
/// Process context; sleeps. Not from within the work item.
pub fn disable_delayed_sync<T, const ID: u64>(item: &Arc<T>)
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID>,
{
    let ptr = Arc::as_ptr(item);

    // SAFETY: `ptr` points to a live `T`; only the address of its work is computed.
    let work = unsafe { Work::raw_get(T::raw_get_work(ptr.cast_mut())) };

    // SAFETY: By the requirements of `HasDelayedWork` the work is part of a `delayed_work`.
    let delayed = unsafe { container_of!(work, bindings::delayed_work, work) };

    // SAFETY: The work was initialised along with `T`, and `item` keeps it alive meanwhile.
    if unsafe { bindings::disable_delayed_work_sync(delayed) } {
        // SAFETY: The work was pending and is not any more, so its function will not be called for
        // it: the reference that `__enqueue()` gave to the workqueue by `Arc::into_raw()` is ours.
        drop(unsafe { Arc::from_raw(ptr) });
    }
}
