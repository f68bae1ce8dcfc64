// SPDX-License-Identifier: GPL-2.0

//! The eventq: interrupts of the lines.
//!
//! What a line does is up to its state machine, [`Line`]. This module owns the machines and the
//! event buffers, has the machines step under the lock of the queue, and does what they ask for.
//!
//! # Buffers
//!
//! A line needs a buffer only while it is armed, so there is one per line that is used for
//! interrupts, as far as the ring has room, and not one per line. A line that finds none is parked,
//! and gets its turn when a buffer comes back.
//!
//! # Notifications
//!
//! The device is notified once, after all buffers of one callback, and never under a lock: genirq
//! unmasks lines with a raw lock held. So who unmasks outside of the callback leaves the
//! notification to the unlocking of the line's bus lock, which genirq mostly does right afterwards,
//! or else to a work item. [`EventQueue::update`] tells which. After a burst on several lines whose
//! handlers are threads, the last one notifies, see [`EventQueue::try_unlock`].
//!
//! # Storms
//!
//! A device may always have another event: because a level stays, because edges come without end,
//! or because it is hostile. Events are taken for a while, and then left in the ring for as long,
//! see [`Duty`]. Lines whose events are in the ring are masked, so none is lost that the device
//! would not lose otherwise.

use kernel::{
    bitmap::BitmapVec,
    fmt,
    gpio::IrqDomain,
    prelude::*,
    sync::Raw,
    time::{
        Delta,
        Instant, //
    },
    virtio::{
        self,
        new_virtqueue,
        Access,
        AnyQueue,
        Reclaim, //
    }, //
};

use crate::{
    count::{
        self,
        Count, //
    },
    duty::Duty,
    gate::Gate,
    line::{
        Action,
        Line,
        Message,
        Outcome, //
    },
    wire, //
};

/// An event buffer; the private part is the line that it is for.
type Buffer = virtio::Message<wire::EventRequest, wire::EventResponse, u16>;

/// What a line has besides its machine.
struct Entry {
    line: Line,
    /// The bus lock of the line is held, so its unlocking will notify the device.
    bus_locked: bool,
    /// An interrupt was delivered, and the line was not armed again since: it is being handled.
    handled: bool,
}

impl Entry {
    /// The interrupt is not being handled any more. There are so many that are `handled`.
    fn end_handling(&mut self, handled: &mut usize) {
        *handled -= usize::from(core::mem::take(&mut self.handled));
    }
}

/// What has happened so far.
#[derive(Clone, Copy, Default)]
struct Counts {
    valid: Count,
    invalid: Count,
    odd: Count,
    /// Buffers that were handed to the device.
    armed: Count,
    /// Lines that found no room for one.
    parked: Count,
    /// Lines that were left alone for a while.
    retries: Count,
    callbacks: Count,
    rests: Count,
}

/// State under the lock of the queue.
struct Events {
    entries: KVVec<Entry>,
    /// Buffers at home, with room for all there can be.
    spare: KVec<Buffer>,
    /// How many buffers there are, and how many there can be.
    buffers: usize,
    capacity: usize,
    /// How many lines are used for interrupts.
    users: usize,
    /// Lines that wait for a buffer, and where to look for the next one.
    parked: Option<BitmapVec>,
    turn: usize,
    /// Unless it is set there are none, and no need to search as many bits as the chip has lines.
    any_parked: bool,
    /// Lines that wait for [`EventQueue::retry`].
    struck: Option<BitmapVec>,
    /// Callbacks in progress, which notify the device at their end. Those that a task has called
    /// may take long to come to it, if others run in its place; the rest was `interrupted` for.
    dispatching: u32,
    interrupted: u32,
    /// How many lines have interrupts that are being handled.
    handled: usize,
    /// A line was armed since the device was last notified under a bus lock.
    unnotified: bool,
    duty: Duty,
    /// Unless it is open nothing is armed: the device may not be what the machines think it is.
    gate: Gate,
    counts: Counts,
}

/// What is left to do after the lock of the queue was released.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) struct Todo {
    /// Nobody else is going to notify the device: [`EventQueue::go_on`] is to be called soon.
    pub(crate) kick: bool,
    /// [`EventQueue::retry`] is to be called after a while.
    pub(crate) retry: bool,
    /// There may be more events: [`EventQueue::go_on`] is to be called.
    pub(crate) more: bool,
    /// No event is taken before [`EventQueue::rested`] is called, after this time.
    pub(crate) rest: Option<Delta>,
}

/// What a callback does next.
enum Step {
    Deliver(u16),
    Again,
    Done,
}

impl Events {
    /// Does what the machine of `line` asks for. Returns whether an interrupt is to be delivered.
    fn perform(
        &mut self,
        ring: &mut Access<'_, Buffer>,
        line: u16,
        action: Action,
        todo: &mut Todo,
    ) -> bool {
        match action {
            Action::None => false,
            Action::Deliver => {
                if let Some(entry) = self.entries.get_mut(usize::from(line)) {
                    self.handled += usize::from(!core::mem::replace(&mut entry.handled, true));
                }
                true
            }
            Action::Arm => {
                self.arm(ring, line, todo);
                false
            }
            Action::Retry => {
                if let Some(struck) = &mut self.struck {
                    struck.set_bit(line.into());
                    todo.retry = true;
                    self.counts.retries.up();
                }
                false
            }
        }
    }

    /// Begins a callback, of the queue or else called by a task. Returns how many events it may
    /// take, [`None`] if not any.
    fn begin(&mut self, ring: &mut Access<'_, Buffer>, of_queue: bool) -> Option<usize> {
        ring.disable_callback();
        self.counts.callbacks.up();
        if self.duty.is_resting() {
            return None;
        }

        self.dispatching += 1;
        self.interrupted += u32::from(of_queue);
        Some(2 * self.capacity)
    }

    /// Takes events that have come, as long as the `budget` lasts, until there is an interrupt to
    /// be delivered. Returns its line.
    fn take(
        &mut self,
        ring: &mut Access<'_, Buffer>,
        budget: &mut usize,
        todo: &mut Todo,
    ) -> Option<u16> {
        while *budget > 0 {
            let (buffer, used) = ring.pop()?;
            let Some((line, action)) = self.returned(buffer, used) else {
                continue;
            };

            *budget -= 1;

            let deliver = self.perform(ring, line, action, todo);

            // Before the flow handler unmasks the line: others have waited for longer.
            self.unpark(ring, todo);
            if deliver {
                return Some(line);
            }
        }

        None
    }

    /// Hands a buffer for `line` to the device, or parks the line.
    fn arm(&mut self, ring: &mut Access<'_, Buffer>, line: u16, todo: &mut Todo) {
        let Some(entry) = self.entries.get_mut(usize::from(line)) else {
            return;
        };

        entry.end_handling(&mut self.handled);

        let spare = match self.gate {
            Gate::Open => self.spare.pop(),
            Gate::Held | Gate::Shut => None,
        };
        let added = spare.ok_or(ENOSPC).and_then(|mut buffer| {
            buffer.set_request(wire::EventRequest::new(line));
            buffer.set_response(wire::EventResponse::POISON);
            *buffer.private_mut() = line;

            ring.add(buffer).map_err(|(err, buffer)| {
                // There is room for all buffers.
                let _ = self.spare.push_within_capacity(buffer);
                err
            })
        });

        match (added, &mut self.parked) {
            (Ok(()), _) => {
                todo.kick |= self.dispatching == 0 && !entry.bus_locked;
                self.unnotified |= entry.bus_locked;
                self.counts.armed.up();
            }
            (Err(err), Some(parked)) => {
                self.counts.parked.up();
                entry.line.park();
                parked.set_bit(line.into());
                self.any_parked = true;
                // The return of a buffer would be the wrong thing to wait for.
                todo.retry |= err == ENOMEM;
            }
            (Err(_), None) => (),
        }
    }

    /// Gives buffers at home to the lines that wait for one, in turn.
    fn unpark(&mut self, ring: &mut Access<'_, Buffer>, todo: &mut Todo) {
        while self.any_parked && !self.spare.is_empty() {
            let Some(parked) = &mut self.parked else {
                return;
            };
            let Some(index) = parked.next_bit(self.turn).or_else(|| parked.next_bit(0)) else {
                self.any_parked = false;
                return;
            };

            parked.clear_bit(index);
            self.turn = index + 1;
            if self.turn >= parked.len() {
                self.turn = 0;
            }

            let Some(entry) = self.entries.get_mut(index) else {
                return;
            };
            let action = entry.line.unpark();
            let left = self.spare.len();

            // Lines number from 0 to 65534.
            let delivered = self.perform(ring, index as u16, action, todo);
            debug_assert!(!delivered);

            // The ring has no room although there is a buffer: it is broken or closed.
            if action == Action::Arm && self.spare.len() == left {
                return;
            }
        }
    }

    /// Takes a buffer home. Returns the line that it was for, and what its machine asks for.
    fn returned(&mut self, buffer: Buffer, used: Result<u32>) -> Option<(u16, Action)> {
        let line = *buffer.private();
        let event = used.map_or(wire::Event::Odd, |used| buffer.response().event(used));

        match event {
            wire::Event::Valid => self.counts.valid.up(),
            wire::Event::Invalid => self.counts.invalid.up(),
            wire::Event::Odd => self.counts.odd.up(),
        }

        // There is room for all buffers.
        let _ = self.spare.push_within_capacity(buffer);

        let entry = self.entries.get_mut(usize::from(line))?;

        Some((line, entry.line.returned(event)))
    }
}

impl Reclaim<Buffer, Raw> for Events {
    fn reclaim(queue: &virtio::Queue<Buffer, Self, Raw>, buffer: Buffer) {
        queue.with(|_, events| {
            let _ = events.spare.push_within_capacity(buffer);
        });
    }
}

/// The eventq of one device.
#[pin_data]
pub(crate) struct EventQueue {
    #[pin]
    queue: virtio::Queue<Buffer, Events, Raw>,
    #[pin]
    domain: IrqDomain,
}

impl EventQueue {
    /// Constructs an initialiser for `ngpio` lines.
    pub(crate) fn new(ngpio: u16) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let count = usize::from(ngpio);
            let mut entries = KVVec::with_capacity(count, GFP_KERNEL)?;

            for _ in 0..count {
                entries.push(
                    Entry {
                        line: Line::new(),
                        bus_locked: false,
                        handled: false,
                    },
                    GFP_KERNEL,
                )?;
            }

            let bitmap = || match count {
                0 => Ok(None),
                count => BitmapVec::new(count, GFP_KERNEL).map(Some),
            };
            let events = Events {
                entries,
                spare: KVec::new(),
                buffers: 0,
                capacity: 0,
                users: 0,
                parked: bitmap()?,
                turn: 0,
                any_parked: false,
                struck: bitmap()?,
                dispatching: 0,
                interrupted: 0,
                handled: 0,
                unnotified: false,
                duty: Duty::new(),
                gate: Gate::Open,
                counts: Counts::default(),
            };

            Ok(try_pin_init!(Self {
                queue <- new_virtqueue!(c"eventq", events),
                domain <- IrqDomain::new(),
            }? Error))
        })
    }

    /// Returns the virtqueue, for the bus.
    pub(crate) fn virtqueue(&self) -> AnyQueue<'_> {
        self.queue.as_any()
    }

    /// Returns the interrupt domain of the lines.
    pub(crate) fn domain(&self) -> &IrqDomain {
        &self.domain
    }

    /// Makes room for as many buffers as fit into the ring.
    ///
    /// To be called once, after the queue was found.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if not even one buffer fits into the ring.
    /// - `ENOMEM` if there is not enough memory.
    pub(crate) fn populate(&self) -> Result {
        let capacity = self
            .queue
            .with(|ring, events| ring.capacity(2).min(events.entries.len()));

        if capacity == 0 {
            return Err(EINVAL);
        }

        let spare = KVec::with_capacity(capacity, GFP_KERNEL)?;

        let old = self.queue.with(|_, events| {
            events.capacity = capacity;
            core::mem::replace(&mut events.spare, spare)
        });

        // Not under the lock.
        drop(old);
        Ok(())
    }

    /// Makes sure that there is a buffer for one more line, if the ring has room for it.
    ///
    /// Returns whether it has; without it the lines take turns.
    ///
    /// # Errors
    ///
    /// - `ENOMEM` if there is not enough memory.
    ///
    /// # Context
    ///
    /// Process context; may sleep.
    pub(crate) fn add_user(&self) -> Result<bool> {
        let (enough, room) = self.queue.with(|_, events| {
            events.users += 1;
            (
                events.buffers >= events.users.min(events.capacity),
                events.users <= events.capacity,
            )
        });

        if enough {
            return Ok(room);
        }

        // Enough for some more lines, too.
        let parts = |_| (wire::EventRequest::new(0), wire::EventResponse::POISON, 0);
        let mut new = Buffer::fill_page(parts, GFP_KERNEL).inspect_err(|_| self.remove_user())?;

        self.queue.with(|_, events| {
            while events.buffers < events.capacity {
                let Some(buffer) = new.pop() else {
                    return;
                };

                // There is room for as many as there can be.
                let _ = events.spare.push_within_capacity(buffer);
                events.buffers += 1;
            }
        });

        Ok(room)
    }

    /// Undoes [`EventQueue::add_user`]. The buffer stays, for the next one.
    pub(crate) fn remove_user(&self) {
        self.queue
            .with(|_, events| events.users = events.users.saturating_sub(1));
    }

    /// Has the machine of `line` step. Any context.
    #[must_use]
    pub(crate) fn update(&self, line: u16, step: impl FnOnce(&mut Line) -> Action) -> Todo {
        self.queue.with(|ring, events| {
            let mut todo = Todo::default();

            if let Some(entry) = events.entries.get_mut(usize::from(line)) {
                let action = step(&mut entry.line);

                // genirq mostly starts and ends interrupts under the bus lock, but need not where
                // it cannot sleep.
                if !entry.bus_locked && entry.line.needs_sync() {
                    events.perform(ring, line, Action::Retry, &mut todo);
                }
                events.perform(ring, line, action, &mut todo);
            }

            todo
        })
    }

    /// Notes that the bus lock of `line` was taken.
    pub(crate) fn bus_lock(&self, line: u16) {
        self.queue.with(|_, events| {
            if let Some(entry) = events.entries.get_mut(usize::from(line)) {
                entry.bus_locked = true;
            }
        });
    }

    /// Returns whether the device knows all that it is to know about `line`, or is about to, and
    /// what is left to do. If not, that is in [`EventQueue::next_message`].
    ///
    /// With `bus_unlock`, the bus lock of the line counts as released if so.
    ///
    /// Notifies the device of what was armed under the lock. During a callback of the queue that is
    /// left to its end. While interrupts of other lines are being handled, which will be armed in
    /// turn, that is left to the last of them, or to the work item if that comes first: a burst on
    /// many lines takes few notifications, and none of them waits for another.
    pub(crate) fn try_unlock(&self, line: u16, bus_unlock: bool) -> (bool, Todo) {
        let mut todo = Todo::default();

        let (is_synced, _) = self.queue.with_kick(|ring, events| {
            let Some(entry) = events.entries.get_mut(usize::from(line)) else {
                return true;
            };
            let is_synced = !entry.line.needs_sync();

            if bus_unlock && is_synced {
                entry.bus_locked = false;
                entry.end_handling(&mut events.handled);

                if events.interrupted > 0 {
                    ring.hold_back();
                } else if events.handled > 0 {
                    ring.hold_back();
                    todo.kick = events.unnotified;
                }
            }
            events.unnotified = false;
            is_synced
        });

        (is_synced, todo)
    }

    /// Returns the message that the device is to get about `line`, if there is one.
    pub(crate) fn next_message(&self, line: u16) -> Option<Message> {
        self.queue.with(|_, events| {
            let entry = events.entries.get_mut(usize::from(line))?;

            entry.line.next_message()
        })
    }

    /// Nobody handles an interrupt of `line`.
    #[cold]
    fn end_handling(&self, line: u16) {
        self.queue.with(|_, events| {
            if let Some(entry) = events.entries.get_mut(usize::from(line)) {
                entry.end_handling(&mut events.handled);
            }
        });
    }

    /// Tells the machine of `line` what became of a message.
    #[must_use]
    pub(crate) fn answered(&self, line: u16, message: Message, outcome: Outcome) -> Todo {
        self.update(line, |line| line.answered(message, outcome))
    }

    /// Arms parked lines, as far as there is room.
    #[must_use]
    pub(crate) fn unpark(&self) -> Todo {
        let (mut todo, _) = self.queue.with_kick(|ring, events| {
            let mut todo = Todo::default();

            events.unpark(ring, &mut todo);
            todo
        });

        todo.kick = false;
        todo
    }

    /// Lets a line that has waited for it try again.
    ///
    /// Returns the first such line from `from` on, whether the device should be sent messages about
    /// it, and what is left to do; [`None`] if there is none.
    #[must_use]
    pub(crate) fn retry(&self, from: u16) -> Option<(u16, bool, Todo)> {
        self.queue.with(|ring, events| {
            let struck = events.struck.as_mut()?;
            let index = struck.next_bit(from.into())?;
            let line = index as u16;
            let mut todo = Todo::default();

            struck.clear_bit(index);

            let action = events.entries.get_mut(index)?.line.retry();
            events.perform(ring, line, action, &mut todo);

            Some((line, events.entries.get(index)?.line.needs_sync(), todo))
        })
    }

    /// Returns the machine of `line` as it is now.
    pub(crate) fn line(&self, line: u16) -> Option<Line> {
        self.queue.with(|_, events| {
            let entry = events.entries.get(usize::from(line))?;

            Some(entry.line.clone())
        })
    }

    /// Shows what has happened so far.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (counts, notified, users, buffers, spare, capacity, gate) =
            self.queue.with(|ring, events| {
                (
                    events.counts,
                    ring.notifications(),
                    events.users,
                    events.buffers,
                    events.spare.len(),
                    events.capacity,
                    events.gate,
                )
            });

        writeln!(f, "eventq: {gate:?}")?;
        count::show(
            f,
            &[
                ("valid events", counts.valid.get()),
                ("invalid events", counts.invalid.get()),
                ("odd events", counts.odd.get()),
                ("armed", counts.armed.get()),
                ("parked", counts.parked.get()),
                ("retries", counts.retries.get()),
                ("callbacks", counts.callbacks.get()),
                ("notifications", notified),
                ("rests", counts.rests.get()),
            ],
        )?;
        writeln!(f, "  lines: {users}, room for {capacity}")?;
        writeln!(f, "  buffers: {buffers}, spare {spare}")
    }

    /// Arms nothing until [`EventQueue::release`]. Any context.
    pub(crate) fn hold(&self) {
        self.queue.with(|_, events| events.gate.hold());
    }

    /// Ends [`EventQueue::hold`]. Process context.
    #[must_use]
    pub(crate) fn release(&self) -> Todo {
        self.queue.with(|_, events| events.gate.release());
        self.unpark()
    }

    /// Arms nothing until [`EventQueue::reopen`]. Any context.
    pub(crate) fn shut(&self) {
        self.queue.with(|_, events| {
            events.gate.shut();
        });
    }

    /// Forgets what the device was told, because it was reset, and arms nothing until
    /// [`EventQueue::release`].
    pub(crate) fn reopen(&self) {
        let count = self.queue.with(|_, events| {
            events.gate = Gate::Held;
            events.entries.len()
        });

        // One by one, to keep interrupts off for a short time only.
        for index in 0..count {
            self.queue.with(|_, events| {
                if let Some(entry) = events.entries.get_mut(index) {
                    entry.line.reset();
                }
                let sets = [&mut events.parked, &mut events.struck];
                for set in sets.into_iter().flatten() {
                    set.clear_bit(index);
                }
            });
        }
    }

    /// Takes the events that have come and delivers them. The callback of the queue; any context.
    ///
    /// Ends after as many events as fit into the ring twice, so that a device that never stops does
    /// not keep the processor. No callback comes then until [`EventQueue::go_on`] was called, as
    /// [`Todo::more`] demands, or [`EventQueue::rested`], as [`Todo::rest`] does.
    #[must_use]
    pub(crate) fn callback(&self) -> Todo {
        self.dispatch(true)
    }

    /// Does what [`EventQueue::callback`] does, called by a task.
    #[must_use]
    pub(crate) fn go_on(&self) -> Todo {
        self.dispatch(false)
    }

    fn dispatch(&self, of_queue: bool) -> Todo {
        let mut start = Instant::now();
        let mut todo = Todo::default();
        let mut budget = None;

        loop {
            // Delivery is not under the lock: the flow handler masks and unmasks the line.
            let (step, _) = self.queue.with_kick(|ring, events| {
                // What was armed before does not wait for this.
                let held_back = budget.is_some();

                if !held_back {
                    budget = events.begin(ring, of_queue);
                }
                let Some(budget) = &mut budget else {
                    return Step::Done;
                };

                if let Some(line) = events.take(ring, budget, &mut todo) {
                    if held_back {
                        ring.hold_back();
                    }
                    return Step::Deliver(line);
                }

                let now = Instant::now();

                todo.rest = events.duty.worked(start, now);
                start = now;
                if todo.rest.is_some() {
                    events.counts.rests.up();
                }

                if todo.rest.is_none() && *budget > 0 && !ring.enable_callback() {
                    ring.hold_back();
                    return Step::Again;
                }

                events.dispatching -= 1;
                events.interrupted -= u32::from(of_queue);
                todo.more = *budget == 0 && todo.rest.is_none();
                todo.kick = false;
                Step::Done
            });

            match step {
                // An event that is too early, or too late, for the domain has no consumer.
                Step::Deliver(line) => {
                    if self.domain.handle_irq(line.into()).is_err() {
                        self.end_handling(line);
                    }
                }
                Step::Again => (),
                Step::Done => return todo,
            }
        }
    }

    /// Takes events again after [`Todo::rest`].
    #[must_use]
    pub(crate) fn rested(&self) -> Todo {
        self.queue.with(|_, events| events.duty.rested());
        self.go_on()
    }
}
