// SPDX-License-Identifier: GPL-2.0

//! Disabling of work items.
//!
//! C source: [`kernel/workqueue.c`](srctree/kernel/workqueue.c)

use super::{
    DelayedWork,
    HasDelayedWork,
    HasWork,
    Work,
    WorkItem, //
};
#[cfg(CONFIG_RUST_WORKQUEUE_KUNIT_TEST)]
use crate::prelude::*;
use crate::sync::Arc;

impl<T, const ID: u64> Work<T, ID>
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasWork<T, ID>,
{
    /// Cancels the work item, waits until it no longer runs, and prevents it from being queued.
    ///
    /// Afterwards no workqueue holds a reference for this work, and
    /// [`Queue::enqueue`](super::Queue::enqueue) fails and returns its argument.
    ///
    /// # Context
    ///
    /// Process context; sleeps. Not from within the work item.
    pub fn disable_sync(&self) {
        // SAFETY: `self` is a valid reference.
        let work = unsafe { Self::raw_get(self) };

        // SAFETY: The work was initialised with `self`, which lives during the call.
        if unsafe { bindings::disable_work_sync(work) } {
            // SAFETY: The work was pending and has been cancelled, so the workqueue no longer uses
            // the reference that it got from `__enqueue()`.
            drop(unsafe { reference(self) });
        }
    }
}

impl<T, const ID: u64> DelayedWork<T, ID>
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID>,
{
    /// Does what [`Work::disable_sync`] does, and cancels the timer.
    ///
    /// # Context
    ///
    /// Process context; sleeps. Not from within the work item.
    pub fn disable_sync(&self) {
        // SAFETY: `self` is a valid reference.
        let work = unsafe { Self::raw_as_work(self) };

        // SAFETY: The work was initialised with `self`, which lives during the call.
        if unsafe { bindings::disable_delayed_work_sync(self.dwork.get()) } {
            // SAFETY: As in `Work::disable_sync()`.
            drop(unsafe { reference(work) });
        }
    }
}

/// Takes back the reference that `__enqueue()` gave to a workqueue by `Arc::into_raw()`.
///
/// # Safety
///
/// `work` must be that of a `T` in an `Arc`, for which the workqueue got a reference that it no
/// longer uses.
unsafe fn reference<T, const ID: u64>(work: *const Work<T, ID>) -> Arc<T>
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasWork<T, ID>,
{
    // SAFETY: By the requirements `work` is a field of a `T`, whose reference the caller takes
    // over.
    unsafe { Arc::from_raw(T::work_container_of(work.cast_mut())) }
}

#[cfg(CONFIG_RUST_WORKQUEUE_KUNIT_TEST)]
#[kunit_tests(rust_kernel_workqueue)]
mod tests {
    use super::*;
    use crate::{
        time::{
            msecs_to_jiffies,
            Delta,
            Instant,
            Monotonic, //
        },
        workqueue::{
            self,
            impl_has_delayed_work,
            impl_has_work,
            new_delayed_work,
            new_work, //
        },
    };

    #[pin_data]
    struct Item {
        #[pin]
        now: Work<Self, 0>,
        #[pin]
        later: DelayedWork<Self, 1>,
    }

    impl_has_work! {
        impl HasWork<Self, 0> for Item { self.now }
    }

    impl_has_delayed_work! {
        impl HasDelayedWork<Self, 1> for Item { self.later }
    }

    impl WorkItem<0> for Item {
        type Pointer = Arc<Self>;

        fn run(_this: Arc<Self>) {}
    }

    impl WorkItem<1> for Item {
        type Pointer = Arc<Self>;

        fn run(_this: Arc<Self>) {}
    }

    fn item() -> Result<Arc<Item>> {
        Arc::pin_init(
            pin_init!(Item {
                now <- new_work!("Item::now"),
                later <- new_delayed_work!("Item::later"),
            }),
            GFP_KERNEL,
        )
    }

    #[test]
    fn a_timer_is_not_waited_for() -> Result {
        let item = item()?;
        let start = Instant::<Monotonic>::now();
        let queued = workqueue::system_long()
            .enqueue_delayed::<_, 1>(item.clone(), msecs_to_jiffies(3000))
            .is_ok();

        item.later.disable_sync();
        assert!(queued);
        assert!(start.elapsed() < Delta::from_millis(1000));
        // The reference that the workqueue had is gone.
        assert!(Arc::into_unique_or_drop(item).is_some());
        Ok(())
    }

    #[test]
    fn an_item_that_is_disabled_is_refused() -> Result {
        let item = item()?;

        item.now.disable_sync();
        item.later.disable_sync();
        assert!(workqueue::system_long()
            .enqueue::<_, 0>(item.clone())
            .is_err());
        assert!(workqueue::system_long()
            .enqueue_delayed::<_, 1>(item.clone(), 0)
            .is_err());
        assert!(Arc::into_unique_or_drop(item).is_some());
        Ok(())
    }
}
