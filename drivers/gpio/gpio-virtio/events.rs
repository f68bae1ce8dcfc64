// SPDX-License-Identifier: GPL-2.0

//! What an event does: takes event buffers off the eventq, delivers the interrupts, and hands
//! buffers to the device for the lines that wait for one. Sends, in `irq_bus_sync_unlock()`, what
//! genirq has changed.
//!
//! The state machine of each line decides what happens to it.
//!
//! # Buffers
//!
//! A line needs a buffer only while it is armed. There are as many as the ring has room for; lines
//! that find none take turns.
//!
//! genirq unmasks lines under a raw lock, where a buffer cannot be mapped for the device. So that
//! only marks the line. Buffers are handed over with one notification at the end of the callback,
//! by the unlocking of the bus lock, or else by a work item.
//!
//! # Storms
//!
//! A device may have another event at any time: because a level stays, because edges come without
//! end, or because it is hostile. Callbacks have a budget, which a work item refills, on the same
//! processor: it cannot run while callbacks keep that busy. If the budget is spent before the work
//! item has run, then callbacks are turned off, and the work item handles events, with a pause of a
//! jiffy after each [`STORM_BUDGET`], until it finds none.

use kernel::{
    gpio::virtio_trace,
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
        Scope, //
    },
    workqueue, //
};

use crate::{
    irq_line::{
        self,
        Action, //
    },
    lines::Lines,
    wire::{
        Event,
        EventRequest,
        EventResponse,
        Request, //
    },
    VirtioGpio, //
};

/// An event buffer; the private part is the line that it is for.
pub(crate) type Buffer = virtio::Message<EventRequest, EventResponse, u16>;

/// How many events callbacks handle before the work item has run.
const BUDGET: u32 = 64;

/// How many events the work item handles before it pauses for a jiffy.
const STORM_BUDGET: u32 = 128;

/// Time in milliseconds after which a line is tried again.
const RETRY_MS: Msecs = 10;

/// State under the lock of the queue. The lock of the lines nests in it.
#[derive(Default)]
pub(crate) struct Events {
    /// How many buffers there are, once they were allocated.
    room: usize,
    /// Those that the device does not have, with room for all.
    spare: KVec<Buffer>,
    /// No buffer is handed over: the device is reset, or does not know of the lines yet.
    pub(crate) held: bool,
    /// The device does not work, and is restored if it ever does again: nothing is retried.
    ended: bool,
    /// What is left of the budget.
    budget: u32,
    /// The work item handles events, callbacks do not.
    storm: bool,
    /// There was an event since the work item began to run.
    handled: bool,
}

impl virtio::Reclaim<Buffer> for Events {
    fn reclaim(queue: &virtio::Queue<Buffer, Self>, buffer: Buffer) {
        queue.with(|_, events| events.put(buffer));
    }

    fn closed(queue: &virtio::Queue<Buffer, Self>, why: virtio::Closed) {
        queue.with(|_, events| {
            events.held = true;
            events.ended = why == virtio::Closed::Ended;
        });
    }
}

impl Events {
    fn put(&mut self, buffer: Buffer) {
        let _ = self.spare.push_within_capacity(buffer);
    }
}

impl VirtioGpio {
    /// Lets callbacks handle events, if lines can be interrupts.
    ///
    /// # Errors
    ///
    /// `EINVAL` if not even one event buffer fits into the ring.
    pub(crate) fn start_events(&self) -> Result {
        let room = self.eventq.with(|ring, events| {
            events.budget = BUDGET;
            events.room = ring.capacity(2).min(self.ngpio.into());
            events.room
        });

        (room > 0 || !self.has_irq).then_some(()).ok_or(EINVAL)
    }

    /// Allocates as many event buffers as fit into the ring, for the first interrupt that is
    /// requested.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is not enough memory.
    pub(crate) fn allocate_events(&self) -> Result {
        let needed = |events: &Events| events.room * usize::from(events.spare.capacity() == 0);
        let count = self.eventq.with(|_, events| needed(events));
        let parts = |_| (EventRequest::new(0), EventResponse::POISON, 0);
        let mut spare = Buffer::many(count, parts, GFP_KERNEL)?;

        // Another consumer may have been faster.
        (self.eventq).with(|_, events| {
            if needed(events) > 0 {
                core::mem::swap(&mut events.spare, &mut spare);
            }
        });
        Ok(())
    }

    /// Feeds an input to the state machine of a line. Returns whether the interrupt is to be
    /// delivered. Any context.
    pub(crate) fn step(
        self: &Arc<Self>,
        line: u16,
        step: &mut dyn FnMut(&mut irq_line::Line) -> Action,
    ) -> bool {
        let action = self.lines.with(|lines| lines.step(line, step));

        match action {
            Action::Retry => self.retry_soon(),
            Action::Arm => self.poll_soon(0),
            Action::Deliver | Action::None => (),
        }
        action == Action::Deliver
    }

    /// Hands buffers to the device for lines that wait for one, as far as there are some.
    fn arm(self: &Arc<Self>, ring: &mut Access<'_, Buffer>, events: &mut Events) {
        while !events.held {
            let Some(mut buffer) = events.spare.pop() else {
                if self.lines.with(|lines| lines.is_waiting()) {
                    kernel::do_once_lite! {
                        dev_warn!(
                            self.vdev.as_ref(),
                            "more interrupts in use than the eventq has room for: they take turns\n"
                        )
                    };
                }
                break;
            };
            let (Some(line), others) = self.lines.with(Lines::next_armed) else {
                events.put(buffer);
                break;
            };

            buffer.set_request(EventRequest::new(line));
            buffer.set_response(EventResponse::POISON);
            *buffer.private_mut() = line;

            if let Err((err, buffer)) = ring.add(buffer) {
                events.put(buffer);
                self.lines.with(|lines| lines.wait_for_buffer(line));
                // If it could not be mapped, then no buffer need come back.
                if err != ENOSPC && err != ENODEV {
                    self.retry_soon();
                }
                break;
            }
            virtio_trace::arm(self.vdev.as_ref(), line);
            if !others {
                break;
            }
        }
    }

    /// Hands buffers to the device for the lines that wait for one, and notifies it.
    pub(crate) fn arm_lines(self: &Arc<Self>) {
        let ((), notified) = self.eventq.with_kick(|ring, events| self.arm(ring, events));
        // No event would come, and so nobody else notice.
        let _ = notified.inspect_err(|_| self.check_device(0));
    }

    /// Hands out no buffers, and retries nothing, until the device is restored. Any context.
    pub(crate) fn end_events(&self) {
        virtio::Reclaim::closed(&self.eventq, virtio::Closed::Ended);
    }

    /// Hands out buffers again, unless `config_changed()` has run since the device was looked at.
    pub(crate) fn resume_events(self: &Arc<Self>) {
        self.eventq.with(|_, events| {
            if !self.is_changed() {
                events.held = false;
                events.ended = false;
            }
        });
        self.arm_lines();
    }

    /// Fills the budget of callbacks up, and handles events if they have spent it. The work item.
    pub(crate) fn poll_events(self: &Arc<Self>) {
        let storm = self.eventq.with(|_, events| {
            events.handled = false;
            if !events.storm {
                events.budget = BUDGET;
            } else if events.budget == 0 {
                events.budget = STORM_BUDGET;
            }
            events.storm
        });

        if storm {
            self.handle_events(true);
        } else {
            self.arm_lines();
        }
    }

    /// Handles the events that have come: the callback of the queue, in any context, or the work
    /// item.
    pub(crate) fn handle_events(self: &Arc<Self>, in_work: bool) {
        loop {
            let (next, notified) =
                (self.eventq).with_kick(|ring, events| self.next_event(ring, events, in_work));
            let _ = notified.inspect_err(|_| self.check_device(0));
            // Delivery is not under the lock: the flow handler masks and unmasks the line.
            let Some(line) = next else { break };

            // An event that is too early, or too late, for the domain has no consumer.
            if self.domain.handle_irq(line.into()).is_err() {
                self.lines.with(|lines| lines.end_delivery(line));
            }
        }
    }

    /// Takes events until one interrupts a line, which is returned.
    fn next_event(
        self: &Arc<Self>,
        ring: &mut Access<'_, Buffer>,
        events: &mut Events,
        in_work: bool,
    ) -> Option<u16> {
        while events.storm == in_work {
            ring.disable_callback();
            while events.budget > 0 {
                let Some((buffer, used)) = ring.pop() else {
                    break;
                };
                let line = *buffer.private();
                let event = used.map_or(Event::Odd, |used| buffer.response().event(used));

                virtio_trace::event(self.vdev.as_ref(), line, event as u8);
                events.put(buffer);
                events.budget -= 1;
                events.handled = true;
                // If the work item runs before the budget is spent, then callbacks stay on.
                if events.budget == BUDGET / 2 && !in_work {
                    self.poll_soon(0);
                }
                if self.step(line, &mut |irq| irq.returned(event)) {
                    return Some(line);
                }
            }

            // A line that was unmasked before this is armed below. For one that is unmasked later,
            // `irq_unmask()` queues the work item, or `irq_bus_sync_unlock()` arms it.
            let waiting = self.lines.with(|lines| {
                lines.handling = false;
                lines.is_waiting()
            });

            if waiting {
                self.arm(ring, events);
            }
            if ring.is_broken() && !events.held {
                self.check_device(0);
            }

            // The work item takes over when the budget is spent, until it finds no event.
            events.storm = events.handled && (in_work || events.budget == 0);
            if events.storm && in_work {
                self.poll_soon(Jiffies::from(events.budget == 0));
            } else if in_work {
                events.budget = BUDGET;
            }
            if events.storm || ring.enable_callback() {
                break;
            }
            // There are events already, for which no callback comes: stay in the loop.
            events.storm = in_work;
        }
        None
    }

    /// Tells the device what genirq wants of the interrupt of a line. The caller need not have the
    /// bus lock: the state machine of the line keeps messages in order.
    ///
    /// Returns `false` if a message was not answered, which is retried.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub(crate) fn sync_line(self: &Arc<Self>, line: u16, scope: Scope) -> bool {
        loop {
            // Under the lock of the eventq: no buffer is handed over after the type was taken back.
            let message =
                (self.eventq).with(|_, _| self.update(line, |state| state.irq.next_message()));
            let Some(kind) = message else {
                return true;
            };

            let mut request = Some(Request::set_irq_type(line, kind));
            let mut ret = Err(ENODEV);
            let mut next = || {
                let request = request.take()?;
                // If the device was reset since, or may have to be, then the type is for the state
                // before that.
                let sends = self.update(line, |state| state.irq.sends(kind)) && !self.is_changed();

                ret = sends.then_some(()).ok_or(ENODEV);
                sends.then_some(request)
            };
            let sent = match kind {
                // Whatever comes next for this line, the device processes it after this.
                TriggerType::None => self.requests.post(scope, || Some(self.traced(next()?))),
                _ => self.request_all(scope, &mut next, &mut |_, _| ()),
            };
            let ret = sent.and(ret);

            if ret == Err(EIO) {
                // genirq has no way to tell the consumer.
                kernel::do_once_lite! {
                    dev_warn!(
                        self.vdev.as_ref(),
                        "line {line}: the device refuses interrupts of type {kind:?}\n"
                    )
                };
            }
            self.step(line, &mut |irq| irq.answered(ret));
            if ret.is_err() && ret != Err(EIO) {
                self.check_queue();
                return false;
            }
        }
    }

    /// Completes an operation of genirq on a line: sends what the device has to be told, and hands
    /// over the buffer.
    ///
    /// Batches notifications: queues the work item instead, while the interrupts of other lines are
    /// handled, which need buffers in turn. The last of these lines to be unmasked hands over the
    /// buffers of all, with one notification.
    pub(crate) fn bus_sync_unlock(self: &Arc<Self>, line: u16) {
        let unlock = |lines: &mut Lines| {
            lines.get(line).bus_locked = false;
            let is_last = lines.end_delivery(line);

            (lines.is_waiting() && !lines.handling).then_some(is_last)
        };
        let unlocked =
            (self.lines).with(|lines| (!lines.get(line).irq.needs_sync()).then(|| unlock(lines)));
        let arms = unlocked.unwrap_or_else(|| {
            self.sync_line(line, Scope::Any);
            self.lines.with(unlock)
        });

        match arms {
            Some(true) => self.arm_lines(),
            Some(false) => self.poll_soon(0),
            None => (),
        }
    }

    /// Hands over what could not be handed over, and has another work item send what could not be
    /// sent: this one does not wait for the device, which may be slow at one line.
    pub(crate) fn retry_lines(self: &Arc<Self>) {
        if self.eventq.with(|_, events| events.ended) {
            return;
        }
        for line in 0..self.ngpio {
            let _ = (self.lines).with(|lines| lines.step(line, &mut irq_line::Line::retry));
        }
        self.arm_lines();
        // If it is pending already, then it has not started to send.
        let _ = workqueue::system_long().enqueue_delayed::<_, 3>(self.clone(), 0);
    }

    /// Sends what could not be sent. The work item.
    pub(crate) fn sync_lines(self: &Arc<Self>) {
        for line in 0..self.ngpio {
            self.sync_line(line, Scope::Any);
        }
    }

    /// Has [`VirtioGpio::retry_lines`] called after a while. Any context.
    pub(crate) fn retry_soon(self: &Arc<Self>) {
        // It may be pending already, or disabled, because the driver is unbound.
        let _ = workqueue::system_long()
            .enqueue_delayed::<_, 1>(self.clone(), msecs_to_jiffies(RETRY_MS));
    }

    /// Has [`VirtioGpio::poll_events`] called, on this processor. Any context.
    pub(crate) fn poll_soon(self: &Arc<Self>, delay: Jiffies) {
        // As above.
        let _ = workqueue::system_long().enqueue_delayed::<_, 0>(self.clone(), delay);
    }
}
