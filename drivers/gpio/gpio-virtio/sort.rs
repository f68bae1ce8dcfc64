// SPDX-License-Identifier: GPL-2.0

//! Sorting where size matters more than speed.
//!
//! The sort of the `core` crate is as large as the rest of the queues. This one is a heap sort: in
//! place, and of order n log n whatever the order is in the beginning.

/// Sorts `items` so that none is `less` than one before it.
pub(crate) fn sort<T>(items: &mut [T], less: impl Fn(&T, &T) -> bool) {
    for root in (0..items.len() / 2).rev() {
        sift_down(items, root, &less);
    }

    // The first is the greatest of those that are not at their places yet.
    for last in (1..items.len()).rev() {
        items.swap(0, last);
        if let Some(heap) = items.get_mut(..last) {
            sift_down(heap, 0, &less);
        }
    }
}

/// Moves the item at `root` down until none below it is greater.
fn sift_down<T>(heap: &mut [T], mut root: usize, less: &impl Fn(&T, &T) -> bool) {
    loop {
        let mut child = 2 * root + 1;

        if let (Some(left), Some(right)) = (heap.get(child), heap.get(child + 1)) {
            child += usize::from(less(left, right));
        }

        match (heap.get(root), heap.get(child)) {
            (Some(above), Some(below)) if less(above, below) => heap.swap(root, child),
            _ => return,
        }
        root = child;
    }
}

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
#[kernel::prelude::kunit_tests(gpio_virtio_sort)]
mod tests {
    use super::sort;
    use crate::random::Random;
    use core::cell::Cell;
    use kernel::prelude::*;

    /// Sorts, and returns how many comparisons that took.
    fn sorted(items: &mut [u64]) -> u32 {
        let count = Cell::new(0);

        sort(items, |a, b| {
            count.set(count.get() + 1);
            a < b
        });
        count.get()
    }

    #[test]
    fn few() {
        let mut none: [u64; 0] = [];
        let mut one = [7];
        let mut two = [2, 1];
        let mut three = [3, 1, 2];

        sorted(&mut none);
        sorted(&mut one);
        sorted(&mut two);
        sorted(&mut three);
        assert_eq!((one, two, three), ([7], [1, 2], [1, 2, 3]));
    }

    #[test]
    fn whatever_the_order_is() -> Result {
        let mut random = Random(1);

        for len in 0..200 {
            let mut items = KVec::new();

            // Some are equal.
            for _ in 0..len {
                items.push(random.next() % 100, GFP_KERNEL)?;
            }

            let sum: u64 = items.iter().sum();
            sorted(&mut items);
            assert!(items.is_sorted());
            assert_eq!(items.iter().sum::<u64>(), sum);
        }
        Ok(())
    }

    #[test]
    fn effort_is_bounded() -> Result {
        const COUNT: u64 = 1 << 12;

        let orders: [fn(u64) -> u64; 4] = [|n| n, |n| COUNT - n, |n| n % 2, |_| 0];

        for order in orders {
            let mut items = KVec::new();

            for n in 0..COUNT {
                items.push(order(n), GFP_KERNEL)?;
            }
            // At most two per level for each, once and a bit.
            assert!(sorted(&mut items) <= 2 * 12 * COUNT as u32 + 4 * COUNT as u32);
            assert!(items.is_sorted());
        }
        Ok(())
    }
}
