// SPDX-License-Identifier: GPL-2.0

//! The eventq: event buffers, and the interrupts that they bring.
//!
//! The state machine of a line decides what happens to it. This module takes event buffers from the
//! ring, has the machines step, delivers interrupts, and hands buffers to the device for the lines
//! that wait for one.
//!
//! # Buffers
//!
//! A line needs a buffer only while it is armed. There is one for each line in use, as far as the
//! ring has room; lines that find none take turns.
//!
//! genirq unmasks lines under a raw lock, where a buffer cannot be mapped for the device. So that
//! only marks the line. Buffers are handed over with one notification at the end of the callback,
//! by the unlocking of the bus lock, or else by a work item.
//!
//! # Storms
//!
//! A device may have another event at any time: because a level stays, because edges come without
//! end, or because it is hostile. Callbacks have a budget, which a work item on the same processor
//! fills up. If it is spent before the work item got to run, then callbacks are turned off, and the
//! work item handles events, once per jiffy, until it finds none.

use kernel::{
    irq::TriggerType,
    prelude::*,
    sync::Arc,
    time::{
        msecs_to_jiffies,
        Jiffies,
        Msecs, //
    },
    virtio::{
        self,
        Access,
        Closed,
        Reclaim,
        Scope, //
    },
    workqueue, //
};

use crate::{
    irq_line::{
        self,
        Action, //
    },
    lines::{
        Deferred,
        Lines, //
    },
    wire::{
        self,
        Message, //
    },
    VirtioGpio, //
};

/// An event buffer; the private part is the line that it is for.
pub(crate) type Buffer = virtio::Message<wire::EventRequest, wire::EventResponse, u16>;

/// How many events callbacks handle before the work item has run.
const BUDGET: u32 = 64;

/// Time in milliseconds after which a line is tried again.
pub(crate) const RETRY_MS: Msecs = 10;

/// State under the lock of the queue. The lock of the lines nests in it.
pub(crate) struct Events {
    /// Buffers that the device does not have, with room for all.
    spare: KVec<Buffer>,
    /// How many buffers there are, and how many the ring has room for.
    buffers: usize,
    capacity: usize,
    /// How many lines are used for interrupts.
    users: usize,
    /// No buffer is handed over: the device is reset, or does not know of the lines yet.
    pub(crate) held: bool,
    /// What is left of the budget, and whether the work item handles events.
    budget: u32,
    storm: bool,
}

impl Reclaim<Buffer> for Events {
    fn reclaim(queue: &virtio::Queue<Buffer, Self>, buffer: Buffer) {
        queue.with(|_, events| events.put(buffer));
    }

    fn closed(queue: &virtio::Queue<Buffer, Self>, _why: Closed) {
        queue.with(|_, events| {
            events.held = true;
            events.budget = BUDGET;
            events.storm = false;
        });
    }
}

/// Lock of the lines, as this module gets it.
type LinesLock = kernel::sync::RawSpinLock<Lines>;

/// What the handling of events does next.
enum Step {
    Deliver(u16),
    Again,
    Done,
}

impl Events {
    pub(crate) const fn new() -> Self {
        Self {
            spare: KVec::new(),
            buffers: 0,
            capacity: 0,
            users: 0,
            held: false,
            budget: BUDGET,
            storm: false,
        }
    }

    fn put(&mut self, buffer: Buffer) {
        let _ = self.spare.push_within_capacity(buffer);
    }

    /// Hands buffers to the device for lines that wait for one, as far as there are some.
    fn arm(&mut self, ring: &mut Access<'_, Buffer>, lines: &LinesLock, deferred: &mut Deferred) {
        while !self.held {
            let Some(mut buffer) = self.spare.pop() else {
                break;
            };
            let Some(line) = lines.with(Lines::next_armed) else {
                self.put(buffer);
                break;
            };

            buffer.set_request(wire::EventRequest::new(line));
            buffer.set_response(wire::EventResponse::POISON);
            *buffer.private_mut() = line;

            if let Err((err, buffer)) = ring.add(buffer) {
                self.put(buffer);
                lines.with(|lines| lines.wait_for_buffer(line));
                // If it could not be mapped, then no buffer need come back.
                deferred.retry |= err != ENOSPC && err != ENODEV;
                break;
            }
        }
    }

    /// Takes the next event. Returns the line that it interrupts, if it does.
    fn take(
        &mut self,
        ring: &mut Access<'_, Buffer>,
        lines: &LinesLock,
        deferred: &mut Deferred,
    ) -> Option<Option<u16>> {
        let (buffer, used) = ring.pop()?;
        let line = *buffer.private();
        let event = used.map_or(wire::Event::Odd, |used| buffer.response().event(used));

        self.put(buffer);

        let (deliver, todo) = lines.with(|lines| lines.step(line, &mut |irq| irq.returned(event)));

        *deferred |= todo;
        Some(deliver.then_some(line))
    }
}

impl VirtioGpio {
    /// Makes room for as many event buffers as fit into the ring.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if not even one fits.
    /// - `ENOMEM` if there is not enough memory.
    pub(crate) fn allocate_events(&self) -> Result {
        let capacity = self
            .eventq
            .with(|ring, _| ring.capacity(2))
            .min(self.ngpio.into());

        if capacity == 0 {
            return Err(EINVAL);
        }

        let spare = KVec::with_capacity(capacity, GFP_KERNEL)?;
        let old = self.eventq.with(|_, events| {
            events.capacity = capacity;
            core::mem::replace(&mut events.spare, spare)
        });

        // Not under the lock.
        drop(old);
        Ok(())
    }

    /// Makes sure that there is a buffer for one more line, if the ring has room for it. Returns
    /// whether it has.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is not enough memory.
    pub(crate) fn add_irq_user(&self) -> Result<bool> {
        let (enough, room) = self.eventq.with(|_, events| {
            events.users += 1;
            (
                events.buffers >= events.users.min(events.capacity),
                events.users <= events.capacity,
            )
        });

        if enough {
            return Ok(room);
        }

        let parts = |_| (wire::EventRequest::new(0), wire::EventResponse::POISON, 0);
        let mut new = Buffer::many(Buffer::PER_PAGE, parts, GFP_KERNEL)
            .inspect_err(|_| self.remove_irq_user())?;

        self.eventq.with(|_, events| {
            while events.buffers < events.capacity {
                let Some(buffer) = new.pop() else {
                    return;
                };

                events.put(buffer);
                events.buffers += 1;
            }
        });
        Ok(room)
    }

    /// Undoes [`VirtioGpio::add_irq_user`]. The buffer stays, for the next one.
    pub(crate) fn remove_irq_user(&self) {
        self.eventq
            .with(|_, events| events.users = events.users.saturating_sub(1));
    }

    /// Has the interrupt of a line step. Any context.
    pub(crate) fn step(
        this: &Arc<Self>,
        line: u16,
        step: &mut dyn FnMut(&mut irq_line::Line) -> Action,
    ) {
        let (_, deferred) = this.lines.with(|lines| lines.step(line, step));

        Self::defer(this, deferred);
    }

    /// Hands buffers to the device for the lines that wait for one, and notifies it.
    pub(crate) fn arm_lines(this: &Arc<Self>) {
        let mut deferred = Deferred::default();
        let _ = this
            .eventq
            .with_kick(|ring, events| events.arm(ring, &this.lines, &mut deferred));

        Self::defer(this, deferred);
    }

    /// Hands out buffers, or none until this is called again with `false`. Any context.
    pub(crate) fn hold_events(&self, held: bool) {
        self.eventq.with(|_, events| events.held = held);
    }

    /// Fills the budget of callbacks up, and handles events if they have spent it. The work item.
    ///
    /// Returns whether to call it again after a jiffy.
    pub(crate) fn poll_events(this: &Arc<Self>) -> bool {
        let storm = this.eventq.with(|_, events| {
            events.budget = BUDGET;
            events.storm
        });

        if storm {
            return Self::handle_events(this, true);
        }
        Self::arm_lines(this);
        false
    }

    /// Handles the events that have come: the callback of the queue, in any context, or the work
    /// item. Returns whether the work item is to be called again.
    pub(crate) fn handle_events(this: &Arc<Self>, in_work: bool) -> bool {
        let mut deferred = Deferred::default();
        let mut started = false;
        let mut handled = 0;
        let mut broken = false;

        loop {
            // Delivery is not under the lock: the flow handler masks and unmasks the line.
            let (step, _) = this.eventq.with_kick(|ring, events| {
                if started {
                    // Lines that were unmasked, and those that have waited for this buffer.
                    events.arm(ring, &this.lines, &mut deferred);
                } else {
                    if events.storm != in_work {
                        return Step::Done;
                    }
                    ring.disable_callback();
                    started = true;
                    this.lines.with(|lines| lines.handlers += 1);
                }

                while if in_work {
                    handled < BUDGET
                } else {
                    events.budget > 0
                } {
                    let Some(line) = events.take(ring, &this.lines, &mut deferred) else {
                        break;
                    };

                    handled += 1;
                    if !in_work {
                        events.budget -= 1;
                        deferred.arm |= events.budget == BUDGET / 2;
                    }
                    if let Some(line) = line {
                        ring.hold_back();
                        return Step::Deliver(line);
                    }
                }

                // From here on, who unmasks a line has its buffer handed over by others.
                this.lines.with(|lines| lines.handlers -= 1);
                events.arm(ring, &this.lines, &mut deferred);
                broken = ring.is_broken() && !events.held;

                events.storm = if in_work {
                    handled > 0
                } else {
                    events.budget == 0
                };
                if events.storm || ring.enable_callback() {
                    return Step::Done;
                }
                // There are events already, for which no callback comes.
                events.storm = in_work;
                started = false;
                Step::Again
            });

            match step {
                // An event that is too early, or too late, for the domain has no consumer.
                Step::Deliver(line) => {
                    if this.domain.handle_irq(line.into()).is_err() {
                        this.lines.with(|lines| lines.end_delivery(line));
                    }
                }
                Step::Again => (),
                Step::Done => break,
            }
        }

        Self::defer(this, deferred);
        if broken {
            Self::check_device(this, 0);
        }
        in_work && handled > 0
    }
}

impl VirtioGpio {
    /// Tells the device what genirq wants of the interrupt of a line. The caller need not have the
    /// bus lock: the state machine of the line keeps messages in order.
    ///
    /// Returns whether the device knows it now. With `replay` the lock of the device is held, and
    /// the wait is bounded in any case.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub(crate) fn sync_line(this: &Arc<Self>, line: u16, replay: bool) -> bool {
        let scope = if replay { Scope::Replay } else { Scope::Any };

        loop {
            // Under the lock of the eventq: no buffer is handed over after the type was taken back.
            let message = this.eventq.with(|_, _| {
                this.lines
                    .with(|lines| lines.get(line).ok()?.irq.next_message())
            });
            let Some(kind) = message else {
                return true;
            };

            let sent = Message::SetIrqType(kind);
            let ret = match kind {
                // Whatever comes next for this line, the device processes it after this.
                TriggerType::None => this.requests.post(scope, sent.request(line)),
                _ => {
                    let mut ret = Err(ENODEV);
                    // A message of a machine that was reset since, as the device was, is not sent.
                    let request = core::iter::once(sent.request(line))
                        .filter(|_| this.update(line, |state| state.irq.sends(kind)) == Ok(true));

                    this.requests
                        .call_all(scope, request, |_, answer| {
                            ret = this.answered(line, sent, answer).map(|_| ());
                        })
                        .and(ret)
                }
            };

            if ret == Err(EIO) {
                // genirq has no way to tell the consumer.
                kernel::do_once_lite! {
                    dev_warn!(
                        this.vdev.as_ref(),
                        "line {}: the device refuses interrupts of type {:?}\n",
                        line,
                        kind
                    )
                };
            }
            Self::step(this, line, &mut |irq| irq.answered(ret));
            if ret.is_err() && ret != Err(EIO) {
                Self::check_queue(this);
                return false;
            }
        }
    }

    /// Completes an operation of genirq on a line: sends what the device has to be told, and hands
    /// over the buffer.
    ///
    /// While interrupts of other lines are being handled, which need buffers in turn, that is left
    /// to the last of them, or to the work item if that runs first. So a burst on many lines takes
    /// few notifications.
    pub(crate) fn bus_unlock(this: &Arc<Self>, line: u16) {
        Self::sync_line(this, line, false);

        let (last, needs_arming) = this.lines.with(|lines| {
            lines.set_bus_locked(line, false);
            (lines.end_delivery(line), lines.needs_arming())
        });

        if needs_arming && last {
            Self::arm_lines(this);
        } else if needs_arming {
            Self::poll_soon(this, 0);
        }
    }

    /// Sends what has to be sent to lines that were marked for a retry. The work item.
    pub(crate) fn retry_lines(this: &Arc<Self>) {
        let mut from = 0;

        while let Some(line) = this.lines.with(|lines| lines.next_retry(from)) {
            Self::step(this, line, &mut irq_line::Line::retry);
            Self::sync_line(this, line, false);
            from = line + 1;
        }
        Self::arm_lines(this);
    }

    /// Has work items do what could not be done here. Any context.
    pub(crate) fn defer(this: &Arc<Self>, deferred: Deferred) {
        if deferred.retry {
            Self::retry_soon(this, RETRY_MS);
        }
        if deferred.arm {
            Self::poll_soon(this, 0);
        }
    }

    /// Has lines that are marked for it tried again.
    pub(crate) fn retry_soon(this: &Arc<Self>, delay_ms: Msecs) {
        // One that is pending does it, one that is disabled need not any more.
        let _ = workqueue::system_long()
            .enqueue_delayed::<_, 1>(this.clone(), msecs_to_jiffies(delay_ms));
    }

    /// Has [`VirtioGpio::poll_events`] called, on this processor.
    pub(crate) fn poll_soon(this: &Arc<Self>, delay: Jiffies) {
        // As above.
        let _ = workqueue::system_long().enqueue_delayed::<_, 0>(this.clone(), delay);
    }
}
