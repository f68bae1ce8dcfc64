// SPDX-License-Identifier: GPL-2.0-only

//! Wires: the host's level of a line follows the level that a guest drives on another line, of the
//! same device or of another one. What the host changes goes over no wire, so that wires in a circle
//! come to rest.
//!
//! A wire within a device acts at once. A level for another device waits in a queue of the device
//! that it comes from, and a thread of that device passes it on. So the locks of two devices are
//! never taken together, and a device that is busy delays only the wires to it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::{Device, EventBuffer, Locked};
use crate::model::{Cause, Change, Effects};

/// The most levels on their way from the lines of a device. More than that merge.
const LIMIT: u64 = 1 << 14;

/// Levels that a device takes before others get its lock.
const BATCH: usize = 64;

/// Where a wire ends.
#[derive(Clone)]
enum End {
    Here(u16),
    There(Arc<Device>, u16),
}

struct Wire {
    end: End,
    /// The level at the start of the wire.
    level: bool,
    /// There was no room for that level.
    behind: bool,
    /// The guest drives another level, unless it is only paused.
    unsure: bool,
}

/// The wires from the lines of a device.
#[derive(Default)]
pub struct Wires {
    wires: BTreeMap<u16, Wire>,
    queue: Option<Arc<Queue>>,
}

/// A level on its way.
struct Step {
    device: Arc<Device>,
    line: u16,
    level: bool,
}

#[derive(Default)]
struct Steps {
    waiting: Vec<Step>,
    /// How many there have been, and how many of them have arrived.
    added: u64,
    arrived: u64,
    /// There was no room for one.
    refused: bool,
}

/// Levels on their way to other devices, in order.
#[derive(Default)]
struct Queue {
    steps: Mutex<Steps>,
    added: Condvar,
    arrived: Condvar,
}

impl Queue {
    /// Starts the thread that passes on what the lines of a device have for others. It ends with the
    /// daemon.
    fn start(device: &Arc<Device>) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self::default());
        let (device, own) = (device.clone(), queue.clone());
        std::thread::Builder::new()
            .name("wires".into())
            .spawn(move || own.run(&device))?;
        Ok(queue)
    }

    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().expect("a thread panicked")
    }

    fn add(&self, steps: &mut Steps, step: Step) {
        steps.waiting.push(step);
        steps.added += 1;
        self.added.notify_one();
    }

    /// Adds a level for the host, who waits until it has arrived.
    fn push(&self, step: Step) {
        self.add(&mut self.lock(), step);
    }

    /// Adds a level if there is room.
    fn offer(&self, step: Step) -> bool {
        let mut steps = self.lock();
        let room = steps.added - steps.arrived < LIMIT;
        if room {
            self.add(&mut steps, step);
        } else {
            steps.refused = true;
        }
        room
    }

    /// Waits until all that was added before has arrived.
    fn flush(&self) {
        let steps = self.lock();
        let all = steps.added;
        let arrived = self.arrived.wait_while(steps, |it| it.arrived < all);
        drop(arrived.expect("a thread panicked"));
    }

    fn run(&self, device: &Device) {
        loop {
            let steps = self.lock();
            let steps = self.added.wait_while(steps, |it| it.waiting.is_empty());
            let waiting = std::mem::take(&mut steps.expect("a thread panicked").waiting);
            for steps in waiting.chunk_by(|one, other| Arc::ptr_eq(&one.device, &other.device)) {
                for steps in steps.chunks(BATCH) {
                    let levels = steps.iter().map(|it| (it.line, it.level));
                    steps[0].device.follow(levels);
                }
            }
            let mut steps = self.lock();
            steps.arrived += waiting.len() as u64;
            let refused = std::mem::take(&mut steps.refused);
            drop(steps);
            self.arrived.notify_all();
            if refused {
                device.lock_first().catch_up();
            }
        }
    }
}

impl Device {
    /// Wires a line to one of this device or another, or cuts its wire. The end of a wire that is cut
    /// is inactive. Returns when the level has arrived.
    pub fn wire(self: &Arc<Self>, from: u16, to: Option<(&Arc<Self>, u16)>) -> io::Result<()> {
        let end = to.map(|(device, line)| {
            if Arc::ptr_eq(self, device) {
                End::Here(line)
            } else {
                End::There(device.clone(), line)
            }
        });
        let mut locked = self.lock_first();
        let Some(level) = locked.state.model.view(from).map(|it| it.level) else {
            return Ok(());
        };
        if matches!(end, Some(End::There(..))) && locked.state.wires.queue.is_none() {
            locked.state.wires.queue = Some(Queue::start(self)?);
        }
        if let Some(old) = locked.state.wires.wires.remove(&from) {
            locked.set_end(&old.end, false);
        }
        if let Some(end) = end {
            locked.set_end(&end, level);
            let wire = Wire {
                end,
                level,
                behind: false,
                unsure: false,
            };
            locked.state.wires.wires.insert(from, wire);
        }
        locked.settle();
        let queue = locked.state.wires.queue.clone();
        drop(locked);
        if let Some(queue) = queue {
            queue.flush();
        }
        Ok(())
    }

    /// Where the wires from these lines end.
    pub fn wires(self: &Arc<Self>, lines: &[u16]) -> BTreeMap<u16, (Arc<Self>, u16)> {
        let locked = self.lock_first();
        let wires = &locked.state.wires.wires;
        let end = |line: &u16| {
            let end = match wires.get(line)?.end.clone() {
                End::Here(to) => (self.clone(), to),
                End::There(device, to) => (device, to),
            };
            Some((*line, end))
        };
        lines.iter().filter_map(end).collect()
    }

    /// Takes levels that come over wires, in order.
    fn follow(&self, levels: impl IntoIterator<Item = (u16, bool)>) {
        let mut locked = self.lock_first();
        for (line, level) in levels {
            let state = &mut *locked.state;
            state.stats.wire_changes += 1;
            state.model.set_host(line, level, &mut state.effects);
            locked.dispatch();
        }
        locked.settle();
    }
}

impl Locked<'_> {
    /// Sets the level at the end of a wire for the host.
    fn set_end(&mut self, end: &End, level: bool) {
        let state = &mut *self.state;
        match end {
            End::Here(line) => {
                state.stats.wire_changes += 1;
                state.model.set_host(*line, level, &mut state.effects);
            }
            End::There(device, line) => {
                let (device, line) = (device.clone(), *line);
                if let Some(queue) = &state.wires.queue {
                    queue.push(Step {
                        device,
                        line,
                        level,
                    });
                }
            }
        }
    }

    /// Has wires carry what the guest has changed.
    pub(super) fn carry_changes(&mut self, effects: &mut Effects<EventBuffer>) {
        if self.state.wires.wires.is_empty() {
            return;
        }
        // Those that are added meanwhile are by the host.
        for index in 0..effects.changes.len() {
            let (line, change) = effects.changes[index];
            if let Change::Driven { level }
            | Change::Level {
                level,
                by: Cause::Guest,
            } = change
            {
                self.carry(line, level, effects);
            }
        }
    }

    /// Has wires carry what has changed with a pause, which is over.
    pub(super) fn carry_unsure(&mut self) {
        let mut effects = std::mem::take(&mut self.state.effects);
        let wires = self.state.wires.wires.iter();
        let unsure = wires.filter_map(|(line, wire)| wire.unsure.then_some(*line));
        for line in unsure.collect::<Vec<_>>() {
            if let Some(view) = self.state.model.view(line) {
                self.carry(line, view.level, &mut effects);
            }
        }
        self.state.effects = effects;
    }

    fn carry(&mut self, line: u16, level: bool, effects: &mut Effects<EventBuffer>) {
        let state = &mut *self.state;
        let Some(wire) = state.wires.wires.get_mut(&line) else {
            return;
        };
        wire.unsure = state.paused.is_some();
        if wire.unsure || wire.level == level {
            return;
        }
        wire.level = level;
        if let End::Here(to) = wire.end {
            state.stats.wire_changes += 1;
            state.model.set_host(to, level, effects);
            return;
        }
        if wire.behind {
            state.stats.wire_dropped += 1;
        }
        wire.behind = !state.wires.queue.as_ref().is_some_and(|it| wire.offer(it));
        if wire.behind {
            let label = &self.device.description.label;
            let what = "wires to other devices are full: levels are dropped";
            state.limit.warn(label, format_args!("{what}"));
        }
    }

    /// Has wires carry the levels for which there was no room.
    fn catch_up(&mut self) {
        let Wires { wires, queue } = &mut self.state.wires;
        let Some(queue) = queue else {
            return;
        };
        for wire in wires.values_mut().filter(|it| it.behind) {
            wire.behind = !wire.offer(queue);
            if wire.behind {
                break;
            }
        }
    }
}

impl Wire {
    /// Has the level of the wire carried to another device if there is room.
    fn offer(&self, queue: &Queue) -> bool {
        let End::There(device, line) = &self.end else {
            return true;
        };
        queue.offer(Step {
            device: device.clone(),
            line: *line,
            level: self.level,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config;
    use crate::model::View;
    use crate::wire::{Message, Request};

    fn device() -> Arc<Device> {
        let described = "socket=/s,lines=4".parse::<config::Device>();
        let described = described.and_then(|it| it.describe(0));
        Device::new(described.unwrap()).unwrap()
    }

    /// Two devices whose guests drive all lines.
    fn two() -> [Arc<Device>; 2] {
        let two = [device(), device()];
        for device in &two {
            for line in 0..4 {
                guest(device, Message::SetDirection, line, 1);
            }
        }
        two
    }

    fn guest(device: &Device, message: Message, line: u16, value: u32) {
        let mut locked = device.lock();
        let kind = 0;
        let done = locked.carry_out(message, Request { kind, line, value });
        assert!(done.is_some());
        locked.settle();
    }

    /// A guest drives a line, high and low in turn.
    fn drive(device: &Device, line: u16, count: u64) {
        for turn in 1..=count {
            guest(device, Message::SetValue, line, (turn % 2) as u32);
        }
    }

    fn view(device: &Device, line: u16) -> View {
        device.views(&[line])[0].1
    }

    fn flush(device: &Device) {
        let queue = device.lock().state.wires.queue.clone();
        queue.unwrap().flush();
    }

    fn eventually(mut f: impl FnMut() -> bool) {
        let start = Instant::now();
        while !f() {
            assert!(start.elapsed() < Duration::from_secs(20), "never");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_wire_carries_what_the_guest_drives() {
        let it = device();
        it.wire(0, Some((&it, 1))).unwrap();
        it.wire(1, Some((&it, 0))).unwrap();
        it.wire(7, Some((&it, 0))).unwrap();
        guest(&it, Message::SetValue, 0, 1);
        assert!(!view(&it, 1).level, "the guest does not drive yet");
        guest(&it, Message::SetDirection, 0, 1);
        assert!(view(&it, 1).level);
        it.set([(1, false)]);
        assert!(
            view(&it, 0).level,
            "what the host changes goes over no wire"
        );

        it.wire(0, Some((&it, 2))).unwrap();
        assert!(view(&it, 2).level, "the level that is there");
        drive(&it, 0, 2);
        assert!(!view(&it, 1).level, "another wire");
        it.wire(0, Some((&it, 1))).unwrap();
        drive(&it, 0, 1);
        assert!(view(&it, 1).level);
        it.wire(0, None).unwrap();
        assert!(!view(&it, 1).level, "pulled down");
        drive(&it, 0, 1);
        assert!(!view(&it, 1).level, "no wire");
        assert!(
            it.lock().state.wires.queue.is_none(),
            "a thread for nothing"
        );
    }

    #[test]
    fn what_the_host_has_changed_is_no_reason_to_miss_the_guest() {
        let it = device();
        it.wire(0, Some((&it, 1))).unwrap();
        it.set([(0, true)]);
        assert!(!view(&it, 1).level);
        guest(&it, Message::SetValue, 0, 1);
        guest(&it, Message::SetDirection, 0, 1);
        assert!(view(&it, 1).level, "the level on the wire is the same");
    }

    #[test]
    fn levels_that_have_no_room_merge_with_the_last_ones() {
        let [a, b] = two();
        for line in 0..3 {
            a.wire(line, Some((&b, line))).unwrap();
        }
        let busy = b.lock();
        let counts = [LIMIT + 101, 51, 20];
        for (line, count) in (0..).zip(counts) {
            drive(&a, line, count);
        }
        let waiting = |steps: &Steps| steps.added - steps.arrived;
        let queue = a.lock().state.wires.queue.clone().unwrap();
        assert_eq!(waiting(&queue.lock()), LIMIT);
        drop(busy);
        eventually(|| view(&b, 0).host && view(&b, 1).host);
        flush(&a);
        assert!(!view(&b, 2).host);
        let (from, to) = (a.stats(false), b.stats(false));
        assert!(from.wire_dropped > 150, "{}", from.wire_dropped);
        let all = counts.iter().sum::<u64>() + 3;
        assert_eq!(to.wire_changes + from.wire_dropped, all);

        // There is room again.
        drive(&a, 2, 11);
        flush(&a);
        assert!(view(&b, 2).host);
        assert_eq!(a.stats(false).wire_dropped, from.wire_dropped);
    }

    #[test]
    fn wires_in_a_circle_come_to_rest() {
        const COUNT: u64 = 5001;
        let [a, b] = [device(), device()];
        for line in 0..4 {
            a.wire(line, Some((&b, line))).unwrap();
            b.wire(line, Some((&a, (line + 1) % 4))).unwrap();
        }
        let driven = [(&a, 0), (&b, 2)];
        thread::scope(|scope| {
            for (device, line) in driven {
                guest(device, Message::SetDirection, line, 1);
                scope.spawn(move || drive(device, line, COUNT));
            }
        });
        for (device, _) in driven {
            flush(device);
        }
        assert!(view(&b, 0).host && view(&a, 3).host);
        assert!(!view(&a, 1).host && !view(&b, 3).host);
        for (device, _) in driven {
            // And those that the wires began with.
            assert_eq!(device.stats(false).wire_changes, COUNT + 4);
        }
        for (device, _) in driven {
            device.disconnect();
            flush(device);
        }
        assert!(!view(&b, 0).host && !view(&a, 3).host);
        for (device, _) in driven {
            assert_eq!(device.stats(false).wire_changes, COUNT + 5);
        }
    }
}
