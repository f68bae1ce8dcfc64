// SPDX-License-Identifier: GPL-2.0

//! The requestq: messages to the device, and their answers.
//!
//! # Slots
//!
//! There is a fixed number of slots, each with one message buffer, allocated when the queue is
//! found: sending a message never allocates. A slot is [`Phase::Free`] and on the free list, or
//! taken by a message. While the device has the message, the buffer is in the ring and the slot is
//! [`Phase::Sent`]; when the answer has come it is [`Phase::Answered`] until the sender has looked
//! at it. A sender that does not wait leaves the slot [`Phase::Posted`], and one that no longer
//! waits [`Phase::Orphaned`]. The answer is thrown away when it comes, and the slot is free again.
//! So the memory that a slow device may still write to is never in use for anything else.
//!
//! # Batches
//!
//! Many messages go to the device under one lock, with one notification, and their sender sleeps
//! once. The first slot of a batch counts the answers that are missing and has the completion that
//! the last one signals. A single message is a batch of one.
//!
//! # Waiting
//!
//! A full ring, or all slots being taken, is waited for. A slot that becomes free is for the one
//! who has waited for the longest time. Every wait is killable and ends after the timeout of the
//! queue; it ends early when the queue breaks or is shut down. A device that did not answer
//! several times in a row gets little time until it answers again.
//!
//! # Resets
//!
//! A reset of the device ends all messages that it has. Those that were not sent yet wait until it
//! is over, behind the messages that make the device as it was. A message that is of no use after a
//! reset is sent with the [`Epoch`] that it belongs to, and fails in the next one.
//!
//! Slots of messages that a device has lost come back only by a reset:
//! [`RequestQueue::needs_reset`] tells when it is time for one.

use kernel::{
    fmt,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Completion, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta,
        Instant,
        Jiffies,
        Monotonic, //
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
    count::Count,
    gate::Gate,
    lost::Lost,
    wire, //
};

/// A message, its answer, and the slot that it belongs to.
type Buffer = virtio::Message<wire::Request, wire::Response, u16>;

/// How many slots there are at least, if the ring has room for them, and at most.
const MIN_SLOTS: usize = 32;
const MAX_SLOTS: usize = 256;

/// How many waits in a row may time out before the device is taken to be silent.
const MAX_TIMEOUTS: i32 = 3;

/// Time in milliseconds that a silent device gets for an answer.
const SILENT_TIMEOUT_MS: u32 = 100;

/// Time in milliseconds after which a waiter looks whether the queue is broken. Nothing tells it:
/// a queue that breaks makes no callbacks any more.
const BROKEN_POLL_MS: u32 = 250;

/// Time in microseconds that a task leaves to those who have waited for longer than it.
const YIELD_US: i64 = 50;

/// How many messages about one line the device may leave without an answer when half of the slots
/// are in use. It answers those about one line in order, so more would only keep slots from other
/// lines. As long as there are enough, the device may have lost a message and answer the next.
const MAX_ORPHANS: usize = 4;

/// How many timeouts long the device may keep half of the slots for messages that nobody waits for,
/// and give none of them back, before they are taken to be lost.
const PATIENCE: i64 = 4;

/// Where messages go to.
trait Ring {
    /// Hands a message to the device, or back with the error.
    fn add(&mut self, buffer: Buffer) -> Result<(), (Error, Buffer)>;
}

impl Ring for Access<'_, Buffer> {
    fn add(&mut self, buffer: Buffer) -> Result<(), (Error, Buffer)> {
        Access::add(self, buffer)
    }
}

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// On the free list, its buffer at home.
    Free,
    /// The device has the buffer; the batch with this first slot waits for it.
    Sent { leader: u16 },
    /// The answer is in the buffer, which is at home.
    Answered,
    /// The device has the buffer and nobody waits for it.
    Posted,
    /// The device has the buffer and nobody waits for it any more.
    Orphaned,
}

/// What a slot is used for.
#[derive(Clone, Copy)]
enum Content {
    Line(wire::Message),
    Names,
}

struct Slot {
    phase: Phase,
    line: u16,
    content: Content,
    /// The buffer when it is at home.
    buffer: Option<Buffer>,
    /// How much of the answer the device says it wrote.
    used: Result<usize>,
    /// The next slot of the same batch.
    next: Option<u16>,
    /// In the first slot of a batch: how many answers are missing.
    missing: u16,
    /// In the first slot of a batch: signalled by the last answer.
    done: Arc<Completion>,
}

/// The time between two resets of the device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u32);

/// On what terms messages are sent.
#[derive(Clone, Copy, Default)]
struct Terms {
    /// The sender has waited for room, and was told to try again.
    called: bool,
    /// Nobody will wait for the answers.
    posted: bool,
    /// They make a device that was reset as it was, so they go while others are held.
    replay: bool,
    /// They are of no use in another epoch.
    epoch: Option<Epoch>,
}

/// What has happened so far.
#[derive(Clone, Copy, Default)]
struct Counts {
    /// Messages that were sent.
    sent: Count,
    /// What became of those that somebody has waited for.
    answered: Count,
    refused: Count,
    malformed: Count,
    timed_out: Count,
    killed: Count,
    failed: Count,
    /// Answers nobody has waited for any more.
    late: Count,
    callbacks: Count,
    resets: Count,
}

/// State under the lock of the queue.
struct Slots {
    slots: KVec<Slot>,
    /// Stack of free slots, with room for all of them.
    free: KVec<u16>,
    /// The slots that are [`Phase::Posted`] or [`Phase::Orphaned`].
    unclaimed: Lost,
    /// Tasks that wait for a free slot or for room in the ring.
    waiting: u32,
    /// Tasks that were told to try again, and have not done so yet. As many slots are theirs.
    called: usize,
    /// Signalled once for each of these tasks when there is something to try.
    room: Arc<Completion>,
    /// While it is held senders wait, while it is shut they fail.
    gate: Gate,
    epoch: Epoch,
    counts: Counts,
}

/// A batch that was sent.
struct Batch {
    first: u16,
    done: Arc<Completion>,
}

impl Slots {
    fn new() -> Result<Self> {
        Ok(Self {
            slots: KVec::new(),
            free: KVec::new(),
            unclaimed: Lost::new(),
            waiting: 0,
            called: 0,
            room: Arc::pin_init(Completion::new(), GFP_KERNEL)?,
            gate: Gate::Open,
            epoch: Epoch(0),
            counts: Counts::default(),
        })
    }

    /// Allocates `count` slots, at most [`MAX_SLOTS`], and the stack of the free ones: all of them.
    fn allocate(count: usize) -> Result<(KVec<Slot>, KVec<u16>)> {
        let mut new = KVec::with_capacity(count, GFP_KERNEL)?;
        let mut free = KVec::with_capacity(count, GFP_KERNEL)?;

        while new.len() < count {
            let from = new.len();
            let parts = |index| {
                (
                    wire::Message::GetValue.request(0),
                    wire::Response::POISON,
                    // Numbers end at `MAX_SLOTS` below.
                    (from + index) as u16,
                )
            };

            for buffer in Buffer::fill_page(parts, GFP_KERNEL)?
                .into_iter()
                .take(count - from)
            {
                free.push(*buffer.private(), GFP_KERNEL)?;
                new.push(
                    Slot {
                        phase: Phase::Free,
                        line: 0,
                        content: Content::Line(wire::Message::GetValue),
                        buffer: Some(buffer),
                        used: Ok(0),
                        next: None,
                        missing: 0,
                        done: Arc::pin_init(Completion::new(), GFP_KERNEL)?,
                    },
                    GFP_KERNEL,
                )?;
            }
        }

        Ok((new, free))
    }

    fn get(&mut self, slot: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(slot))
    }

    /// Puts a slot whose buffer is at home on the free list.
    fn release(&mut self, index: u16) {
        if let Some(slot) = self.get(index) {
            slot.phase = Phase::Free;
        }

        // There is room for all slots, and each is on the list at most once.
        let _ = self.free.push_within_capacity(index);

        self.wake_waiting();
    }

    /// Lets one of the tasks that wait for room try again.
    fn wake_waiting(&mut self) {
        if self.waiting > 0 {
            self.waiting -= 1;
            self.called += 1;
            self.room.complete();
        }
    }

    /// A task that was told to try again does not: the next one may.
    fn pass_on(&mut self) {
        self.called = self.called.saturating_sub(1);
        self.wake_waiting();
    }

    /// Lets all of them try again.
    fn wake_all_waiting(&mut self) {
        while self.waiting > 0 {
            self.wake_waiting();
        }
    }

    /// Ends the waits of all batches.
    fn end_waits(&mut self) {
        for slot in &self.slots {
            if slot.missing > 0 {
                slot.done.complete();
            }
        }
    }

    /// Nobody waits any more for the message that the device has of this slot.
    fn orphan(&mut self, index: u16) {
        let total = self.slots.len();

        if let Some(slot) = self.get(index) {
            slot.phase = Phase::Orphaned;
            self.unclaimed.add(total, Instant::now());
        }
    }

    /// Takes a buffer home, answered or, with an error, not.
    fn returned(&mut self, buffer: Buffer, used: Result<usize>) {
        let index = *buffer.private();
        let Some(slot) = self.get(index) else {
            return;
        };

        slot.buffer = Some(buffer);
        slot.used = used;

        match slot.phase {
            Phase::Sent { leader } => {
                slot.phase = Phase::Answered;

                if let Some(first) = self.get(leader) {
                    first.missing = first.missing.saturating_sub(1);
                    if first.missing == 0 {
                        first.done.complete();
                    }
                }
            }
            phase @ (Phase::Posted | Phase::Orphaned) => {
                // Not when the device was reset.
                if phase == Phase::Orphaned && used != Err(ENODEV) {
                    self.counts.late.up();
                }
                self.unclaimed.remove(self.slots.len(), Instant::now());
                self.release(index);
            }
            Phase::Free | Phase::Answered => (),
        }
    }

    /// Sends as many of `messages` as fit, as one batch.
    ///
    /// # Errors
    ///
    /// When none was sent: `ENOSPC` if that may be different later, else why the queue is of no
    /// use.
    fn send(
        &mut self,
        ring: &mut impl Ring,
        messages: &mut impl Iterator<Item = (u16, wire::Message)>,
        pending: &mut Option<(u16, wire::Message)>,
        terms: Terms,
    ) -> Result<Batch> {
        let mut first = None;
        let mut last = None;

        if terms.called {
            self.called = self.called.saturating_sub(1);
        }
        if self.gate == Gate::Shut || terms.epoch.is_some_and(|epoch| epoch != self.epoch) {
            if terms.called {
                self.wake_waiting();
            }
            return Err(ENODEV);
        }
        if self.gate == Gate::Held && !terms.replay {
            return Err(ENOSPC);
        }

        let cause = loop {
            let Some((line, message)) = pending.take().or_else(|| messages.next()) else {
                break EINVAL;
            };

            let Err(cause) = self.add(ring, line, message, &mut first, &mut last, terms) else {
                continue;
            };

            *pending = Some((line, message));
            break cause;
        };

        if terms.called && first.is_none() && cause != ENOSPC && cause != EAGAIN {
            // The slot that it has waited for.
            self.wake_waiting();
        }

        let first = first.ok_or(cause)?;
        let done = self.get(first).ok_or(EINVAL)?.done.clone();

        Ok(Batch { first, done })
    }

    /// Sends one message and makes it part of the batch from `first` to `last`.
    fn add(
        &mut self,
        ring: &mut impl Ring,
        line: u16,
        message: wire::Message,
        first: &mut Option<u16>,
        last: &mut Option<u16>,
        terms: Terms,
    ) -> Result {
        if self.unclaimed.count() >= MAX_ORPHANS && self.free.len() <= self.slots.len() / 2 {
            let same = |slot: &&Slot| slot.phase == Phase::Orphaned && slot.line == line;

            if self.slots.iter().filter(same).count() >= MAX_ORPHANS {
                return Err(ETIMEDOUT);
            }
        }

        // Otherwise a task that has just got its answer would always be faster than those who have
        // waited for its slot.
        if !self.free.is_empty() && self.free.len() <= self.called {
            return Err(EAGAIN);
        }

        let index = self.free.pop().ok_or(ENOSPC)?;
        let leader = first.unwrap_or(index);

        let added = self.get(index).ok_or(EINVAL).and_then(|slot| {
            let mut buffer = slot.buffer.take().ok_or(EINVAL)?;

            *buffer.request_mut() = message.request(line);
            *buffer.response_mut() = wire::Response::POISON;

            slot.line = line;
            slot.content = Content::Line(message);
            slot.next = None;
            slot.missing = 0;

            // A batch that was given up may have been answered in the last moment.
            while slot.done.try_wait() {}

            ring.add(buffer).map_err(|(err, buffer)| {
                slot.buffer = Some(buffer);
                // Not to be taken for a refusal by the device.
                if err == EIO {
                    ENODEV
                } else {
                    err
                }
            })?;

            slot.phase = if terms.posted {
                Phase::Posted
            } else {
                Phase::Sent { leader }
            };

            Ok(())
        });

        if let Err(err) = added {
            let _ = self.free.push_within_capacity(index);
            return Err(err);
        }

        self.counts.sent.up();
        if terms.posted {
            self.unclaimed.add(self.slots.len(), Instant::now());
        }
        if let Some(previous) = last.and_then(|last| self.get(last)) {
            previous.next = Some(index);
        }
        if let Some(first) = self.get(leader) {
            first.missing += 1;
        }

        *first = Some(leader);
        *last = Some(index);
        Ok(())
    }

    /// Ends a batch: hands its answers to `each`, in the order of the messages, and gives the slots
    /// back. Messages without answer have failed with `cause`, or, when the wait has ended without
    /// an error, because of [`RequestQueue::shut_down`].
    fn finish(&mut self, batch: &Batch, cause: Result, each: &mut impl FnMut(Result<u8>)) {
        let mut next = Some(batch.first);

        while let Some(index) = next {
            let Some(slot) = self.get(index) else {
                return;
            };

            next = slot.next;

            let answer = if slot.phase == Phase::Answered {
                let answer = slot.answer();

                self.release(index);
                answer
            } else {
                self.orphan(index);
                cause.and(Err(ENODEV))
            };

            self.counts.note(answer);
            each(answer);
        }
    }
}

impl Counts {
    /// Notes what became of a message.
    fn note(&mut self, answer: Result<u8>) {
        let count = match answer {
            Ok(_) => &mut self.answered,
            Err(err) if err == EIO => &mut self.refused,
            Err(err) if err == EPROTO => &mut self.malformed,
            Err(err) if err == ETIMEDOUT => &mut self.timed_out,
            Err(err) if err == EINTR => &mut self.killed,
            Err(_) => &mut self.failed,
        };

        count.up();
    }
}

impl Slot {
    /// Decodes the answer.
    fn answer(&self) -> Result<u8> {
        match (self.content, &self.buffer) {
            (Content::Line(message), Some(buffer)) => message.answer(buffer.response(), self.used?),
            _ => Err(EIO),
        }
    }
}

impl Reclaim<Buffer> for Slots {
    fn reclaim(queue: &virtio::Queue<Buffer, Self>, buffer: Buffer) {
        queue.with(|_, slots| slots.returned(buffer, Err(ENODEV)));
    }
}

/// The requestq of one device.
#[pin_data]
pub(crate) struct RequestQueue {
    #[pin]
    queue: virtio::Queue<Buffer, Slots>,
    /// Time in jiffies that the device has for an answer.
    timeout: Jiffies,
    /// How many waits in a row have timed out.
    timeouts: Atomic<i32>,
    /// For how long the device may keep many messages that nobody waits for.
    patience: Delta,
    /// It has kept them for longer, or leaves no room for others.
    needs_reset: Atomic<bool>,
}

impl RequestQueue {
    /// Constructs an initialiser; the device has `timeout_ms` milliseconds for an answer.
    pub(crate) fn new(timeout_ms: u32) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let slots = Slots::new()?;

            Ok(try_pin_init!(Self {
                queue <- new_virtqueue!(c"requestq", slots),
                timeout: msecs_to_jiffies(timeout_ms.max(1)),
                timeouts: Atomic::new(0),
                patience: Delta::from_millis(PATIENCE * i64::from(timeout_ms.max(1))),
                needs_reset: Atomic::new(false),
            }? Error))
        })
    }

    /// Returns the virtqueue, for the bus.
    pub(crate) fn virtqueue(&self) -> &dyn AnyQueue {
        &self.queue
    }

    /// Allocates the slots for `ngpio` lines, as far as the ring has room for them.
    ///
    /// To be called once, after the queue was found and before the first message.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if not even one message fits into the ring.
    /// - `ENOMEM` if there is not enough memory.
    pub(crate) fn populate(&self, ngpio: u16) -> Result {
        // A line that becomes an output takes two messages.
        let wanted = (2 * usize::from(ngpio)).clamp(MIN_SLOTS, MAX_SLOTS);
        let count = self.queue.with(|ring, _| ring.capacity()).min(wanted);

        if count == 0 {
            return Err(EINVAL);
        }

        let (new, free) = Slots::allocate(count)?;
        let old = self.queue.with(|_, slots| {
            (
                core::mem::replace(&mut slots.slots, new),
                core::mem::replace(&mut slots.free, free),
            )
        });

        // Not under the lock.
        drop(old);
        Ok(())
    }

    /// Takes the answers that have come. The callback of the queue; any context.
    pub(crate) fn callback(&self) {
        self.queue.with(|_, slots| slots.counts.callbacks.up());

        loop {
            let (any, done) = self.queue.with(|ring, slots| {
                let mut any = false;

                ring.disable_callback();
                while let Some((buffer, used)) = ring.pop() {
                    slots.returned(buffer, used);
                    any = true;
                }

                (any, ring.enable_callback())
            });

            if any {
                self.timeouts.store(0, Relaxed);
            }
            if done {
                break;
            }
        }
    }

    /// Sends many messages, in as few batches as they fit in, and hands the answers to `each`, in
    /// the order of the messages: a value, or
    ///
    /// - `EIO` if the device refused the message.
    /// - `EPROTO` if its answer is none.
    /// - `ETIMEDOUT` if it did not answer.
    /// - `EINTR` if the task is being killed.
    /// - `ENODEV` if the device is gone, or going, or was reset.
    ///
    /// After the last three the device may or may not have acted upon the message.
    ///
    /// `each` is called under the lock of the queue and must not sleep.
    ///
    /// # Errors
    ///
    /// The same when not all messages could be sent. `each` was called for those that were.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub(crate) fn batch(
        &self,
        messages: impl Iterator<Item = (u16, wire::Message)>,
        each: impl FnMut(Result<u8>),
    ) -> Result {
        self.exchange(messages, each, Terms::default())
    }

    /// Does what [`RequestQueue::batch`] does, also between [`RequestQueue::reopen`] and
    /// [`RequestQueue::release`].
    pub(crate) fn replay(
        &self,
        messages: impl Iterator<Item = (u16, wire::Message)>,
        each: impl FnMut(Result<u8>),
    ) -> Result {
        self.exchange(
            messages,
            each,
            Terms {
                replay: true,
                ..Terms::default()
            },
        )
    }

    /// Sends one message about `line` that is of no use in another epoch.
    ///
    /// # Errors
    ///
    /// Those of [`RequestQueue::batch`], and `ENODEV` in another epoch.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub(crate) fn request_in(&self, epoch: Epoch, line: u16, message: wire::Message) -> Result {
        let mut answer = Err(EIO);

        self.exchange(
            core::iter::once((line, message)),
            |result| answer = result,
            Terms {
                epoch: Some(epoch),
                ..Terms::default()
            },
        )?;
        answer.map(|_| ())
    }

    fn exchange(
        &self,
        messages: impl Iterator<Item = (u16, wire::Message)>,
        mut each: impl FnMut(Result<u8>),
        terms: Terms,
    ) -> Result {
        let mut messages = messages;
        let mut pending = messages.next();

        while pending.is_some() {
            let (batch, notified) = self.send(&mut messages, &mut pending, terms)?;
            let outcome = notified.and_then(|()| self.wait(&batch.done));

            self.queue.with(|_, slots| {
                slots.finish(&batch, outcome, &mut each);
                self.look_for_lost(slots, outcome.err());
            });

            if pending.is_none() {
                pending = messages.next();
            }
            if outcome.is_err() && pending.is_some() {
                return outcome;
            }
        }

        Ok(())
    }

    /// Sends a message about `line` without waiting for the answer, which nobody will see.
    ///
    /// Messages about one line take effect in the order in which they were sent, so one that is
    /// sent afterwards may rely on this one. Waits when there is no room.
    ///
    /// # Errors
    ///
    /// - `ETIMEDOUT` if there was no room for too long.
    /// - `EINTR` if the task is being killed and there is no room.
    /// - `ENODEV` if the device is gone, or going.
    ///
    /// # Context
    ///
    /// Process context; may sleep.
    pub(crate) fn post(&self, line: u16, message: wire::Message) -> Result {
        self.post_on(line, message, None)
    }

    /// Does what [`RequestQueue::post`] does for a message that is of no use in another epoch.
    ///
    /// # Errors
    ///
    /// Those of [`RequestQueue::post`], and `ENODEV` in another epoch.
    pub(crate) fn post_in(&self, epoch: Epoch, line: u16, message: wire::Message) -> Result {
        self.post_on(line, message, Some(epoch))
    }

    fn post_on(&self, line: u16, message: wire::Message, epoch: Option<Epoch>) -> Result {
        let mut pending = Some((line, message));
        let terms = Terms {
            posted: true,
            epoch,
            ..Terms::default()
        };

        self.send(&mut core::iter::empty(), &mut pending, terms)?.1
    }

    /// Sends what fits of `pending` and `messages`, waiting until something does. Returns what was
    /// sent, and whether the device could be notified.
    fn send(
        &self,
        messages: &mut impl Iterator<Item = (u16, wire::Message)>,
        pending: &mut Option<(u16, wire::Message)>,
        terms: Terms,
    ) -> Result<(Batch, Result)> {
        let mut terms = terms;
        let mut since = None::<Instant<Monotonic>>;

        loop {
            let (sent, notified) = self.queue.with_kick(|ring, slots| {
                let sent = match slots.send(ring, messages, pending, terms) {
                    Err(err) if err == ENOSPC || err == EAGAIN => {
                        let since = since.get_or_insert_with(Instant::now);

                        // However often it was told that there is room.
                        if since.elapsed() < self.patience {
                            let room = (err == ENOSPC).then(|| slots.room.clone());

                            slots.waiting += u32::from(room.is_some());
                            return Err(room);
                        }
                        Err(ETIMEDOUT)
                    }
                    sent => sent,
                };

                self.look_for_lost(slots, sent.as_ref().err().copied());
                Ok(sent)
            });

            terms.called = matches!(sent, Err(Some(_)));

            match sent {
                // A device that cannot be notified has not refused anything.
                Ok(sent) => return sent.map(|batch| (batch, notified.map_err(|_| ENODEV))),
                // Those who have the slots now were woken, and will take them.
                Err(None) => fsleep(Delta::from_micros(YIELD_US)),
                Err(Some(room)) => self.wait(&room).inspect_err(|err| {
                    self.queue.with(|_, slots| {
                        // Either the signal for this task goes to another one, or it was not sent
                        // yet.
                        if room.try_wait() {
                            slots.pass_on();
                        } else {
                            slots.waiting = slots.waiting.saturating_sub(1);
                            self.look_for_lost(slots, Some(*err));
                        }
                    });
                })?,
            }
        }
    }

    /// Looks whether the device has lost messages, when something has timed out.
    fn look_for_lost(&self, slots: &Slots, outcome: Option<Error>) {
        if outcome == Some(ETIMEDOUT)
            && slots.gate == Gate::Open
            && slots
                .unclaimed
                .are_lost(slots.slots.len(), self.patience, Instant::now())
        {
            self.needs_reset.store(true, Relaxed);
        }
    }

    /// Returns whether only a reset gives the slots back that the device has messages of.
    pub(crate) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Relaxed)
    }

    /// Waits for `completion` within the time that the device has.
    fn wait(&self, completion: &Completion) -> Result {
        let mut left = if self.timeouts.load(Relaxed) < MAX_TIMEOUTS {
            self.timeout
        } else {
            self.timeout.min(msecs_to_jiffies(SILENT_TIMEOUT_MS))
        };

        loop {
            let slice = left.min(msecs_to_jiffies(BROKEN_POLL_MS));

            match completion.wait_killable_timeout(slice) {
                Err(err) if err == ETIMEDOUT => (),
                ended => return ended,
            }

            // While messages are held the queue may be closed, for the device to be reset.
            if self.queue.with(|ring, slots| match slots.gate {
                Gate::Open => ring.is_broken(),
                Gate::Held => false,
                Gate::Shut => true,
            }) {
                return Err(ENODEV);
            }

            left -= slice;
            if left == 0 {
                self.timeouts.fetch_add(1, Relaxed);
                return Err(ETIMEDOUT);
            }
        }
    }

    /// Ends all waits with `ENODEV` and accepts no message any more.
    ///
    /// Returns whether it was not so before.
    ///
    /// # Context
    ///
    /// Any context.
    pub(crate) fn shut_down(&self) -> bool {
        self.queue.with(|_, slots| {
            slots.end_waits();
            slots.wake_all_waiting();
            slots.gate.shut()
        })
    }

    /// Ends the waits for answers with `ENODEV`. Any context.
    pub(crate) fn end_waits(&self) {
        self.queue.with(|_, slots| slots.end_waits());
    }

    /// Sends no message until [`RequestQueue::release`] or [`RequestQueue::shut_down`]. Any
    /// context.
    pub(crate) fn hold(&self) {
        self.queue.with(|_, slots| slots.gate.hold());
    }

    /// Ends [`RequestQueue::hold`]. Any context.
    pub(crate) fn release(&self) {
        self.queue.with(|_, slots| {
            slots.gate.release();
            slots.wake_all_waiting();
        });
    }

    /// Starts a new epoch, after the device was reset: messages are accepted again, and held.
    pub(crate) fn reopen(&self) {
        self.queue.with(|_, slots| {
            slots.gate = Gate::Held;
            slots.epoch.0 = slots.epoch.0.wrapping_add(1);
            slots.counts.resets.up();

            // The device has forgotten again what it has done. Whoever learns of the answer now
            // would take it for something that the messages of this epoch rely on.
            for slot in &mut slots.slots {
                if slot.phase == Phase::Answered {
                    slot.used = Err(ENODEV);
                }
            }
        });
        self.needs_reset.store(false, Relaxed);
    }

    /// Notes that the device has not answered what makes it as it was.
    pub(crate) fn replay_failed(&self) {
        self.needs_reset.store(true, Relaxed);
    }

    /// Shows what has happened so far.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (counts, notified, total, free, unclaimed, gate) = self.queue.with(|ring, slots| {
            (
                slots.counts,
                ring.notifications(),
                slots.slots.len(),
                slots.free.len(),
                slots.unclaimed.count(),
                slots.gate,
            )
        });

        writeln!(f, "requestq: {gate:?}")?;
        writeln!(f, "  messages sent: {}", counts.sent.get())?;
        writeln!(f, "  answered: {}", counts.answered.get())?;
        writeln!(f, "  refused: {}", counts.refused.get())?;
        writeln!(f, "  malformed answers: {}", counts.malformed.get())?;
        writeln!(f, "  timed out: {}", counts.timed_out.get())?;
        writeln!(f, "  killed: {}", counts.killed.get())?;
        writeln!(f, "  failed: {}", counts.failed.get())?;
        writeln!(f, "  late answers: {}", counts.late.get())?;
        writeln!(f, "  callbacks: {}", counts.callbacks.get())?;
        writeln!(f, "  notifications: {notified}")?;
        writeln!(f, "  resets: {}", counts.resets.get())?;
        writeln!(f, "  timeouts in a row: {}", self.timeouts.load(Relaxed))?;
        writeln!(
            f,
            "  slots: {total}, free {free}, nobody waits for {unclaimed}"
        )
    }

    /// Returns the current epoch.
    pub(crate) fn epoch(&self) -> Epoch {
        self.queue.with(|_, slots| slots.epoch)
    }

    /// Asks for the names of all lines, a block of `size` bytes.
    ///
    /// # Errors
    ///
    /// - `ENOMEM` if there is not enough contiguous memory for the block.
    /// - Those of [`RequestQueue::request`].
    ///
    /// # Context
    ///
    /// Process context; sleeps. Only during probe.
    pub(crate) fn names(&self, size: usize) -> Result<NamesBlock> {
        let mut buffer = Some(
            Buffer::new(
                wire::Request::names(),
                wire::Response::POISON,
                0,
                GFP_KERNEL,
            )?
            .with_large_response(
                size.checked_add(1).ok_or(EINVAL)?,
                wire::POISON,
                GFP_KERNEL | __GFP_NOWARN,
            )?,
        );

        // The message takes the place of the one that the slot has for requests about lines.
        let (sent, notified) = self.queue.with_kick(|ring, slots| {
            let index = slots.free.pop().ok_or(ENOSPC)?;
            let sent = slots.get(index).ok_or(EINVAL).and_then(|slot| {
                let mut names = buffer.take().ok_or(EINVAL)?;
                *names.private_mut() = index;

                ring.add(names).map_err(|(err, names)| {
                    buffer = Some(names);
                    err
                })?;

                slot.phase = Phase::Sent { leader: index };
                slot.content = Content::Names;
                slot.next = None;
                slot.missing = 1;

                Ok((
                    Batch {
                        first: index,
                        done: slot.done.clone(),
                    },
                    slot.buffer.take(),
                ))
            });

            sent.inspect_err(|_| {
                let _ = slots.free.push_within_capacity(index);
            })
        });

        let (batch, mut spare) = sent?;
        let outcome = notified.and_then(|()| self.wait(&batch.done));

        let (answer, used) = self.queue.with(|_, slots| {
            let Some(slot) = slots.get(batch.first) else {
                return (None, Err(EIO));
            };

            if slot.phase != Phase::Answered {
                // Without a buffer for the next message; probe fails.
                slots.orphan(batch.first);
                return (None, outcome.and(Err(ENODEV)));
            }

            let used = slot.used;
            let answer = core::mem::replace(&mut slot.buffer, spare.take());
            slots.release(batch.first);
            (answer, used)
        });

        let used = used?;
        let answer = answer.ok_or(EIO)?;
        let status = answer.large_response().and_then(<[u8]>::first);
        let written = wire::names_answer(*status.ok_or(EIO)?, used, size)?;

        Ok(NamesBlock { answer, written })
    }
}

/// The block of names, in the answer that it came with.
pub(crate) struct NamesBlock {
    answer: Buffer,
    written: usize,
}

impl NamesBlock {
    /// Returns the block, as far as the device has written it.
    pub(crate) fn bytes(&self) -> &[u8] {
        // The status comes first.
        self.answer
            .large_response()
            .and_then(|answer| answer.get(1..)?.get(..self.written))
            .unwrap_or_default()
    }
}

#[cfg(CONFIG_GPIO_VIRTIO_KUNIT_TEST)]
#[kunit_tests(gpio_virtio_requestq)]
mod tests {
    use super::*;
    use crate::random::Random;
    use core::ops::Range;
    use wire::Message::GetValue;

    const WAITED_FOR: Terms = Terms {
        called: false,
        posted: false,
        replay: false,
        epoch: None,
    };
    const POSTED: Terms = Terms {
        posted: true,
        ..WAITED_FOR
    };

    /// A device that has messages, as far as there is room for them.
    struct Device {
        messages: KVec<Buffer>,
        room: usize,
    }

    impl Ring for Device {
        fn add(&mut self, buffer: Buffer) -> Result<(), (Error, Buffer)> {
            if self.messages.len() == self.room {
                return Err((ENOSPC, buffer));
            }
            self.messages
                .push_within_capacity(buffer)
                .map_err(|err| (ENOSPC, err.0))
        }
    }

    /// Slots, and the device that their messages go to.
    struct Pool {
        slots: Slots,
        device: Device,
    }

    impl Pool {
        fn new(count: usize, room: usize) -> Result<Self> {
            let mut slots = Slots::new()?;

            (slots.slots, slots.free) = Slots::allocate(count)?;
            Ok(Self {
                slots,
                device: Device {
                    messages: KVec::with_capacity(room, GFP_KERNEL)?,
                    room,
                },
            })
        }

        /// Sends what fits of one message about each of `lines`.
        fn send(&mut self, lines: Range<u16>, terms: Terms) -> Result<Batch> {
            let mut messages = lines.map(|line| (line, GetValue));

            self.slots
                .send(&mut self.device, &mut messages, &mut None, terms)
        }

        /// Has the device answer one of the messages that it has.
        fn answer(&mut self, nth: usize, value: u8) {
            if let Ok(mut buffer) = self.device.messages.remove(nth) {
                buffer
                    .response_mut()
                    .as_mut_bytes()
                    .copy_from_slice(&[0, value]);
                self.slots.returned(buffer, Ok(2));
            }
        }

        fn finish(&mut self, batch: &Batch, cause: Result) -> Result<KVec<Result<u8>>> {
            let mut answers = KVec::with_capacity(self.slots.slots.len(), GFP_KERNEL)?;

            self.slots.finish(batch, cause, &mut |answer| {
                let _ = answers.push_within_capacity(answer);
            });
            Ok(answers)
        }

        fn phase(&self, index: usize) -> Option<Phase> {
            self.slots.slots.get(index).map(|slot| slot.phase)
        }

        /// Returns what is wrong with the books, if anything is.
        fn fault(&self) -> Option<&'static str> {
            let slots = &self.slots.slots;
            let mut unclaimed = 0;

            for (index, slot) in slots.iter().enumerate() {
                let same = |other: &&u16| usize::from(**other) == index;
                let free = self.slots.free.iter().filter(same).count();
                let away = self
                    .device
                    .messages
                    .iter()
                    .filter(|buffer| usize::from(*buffer.private()) == index)
                    .count();

                let (is_free, is_away) = match slot.phase {
                    Phase::Free => (true, false),
                    Phase::Answered => (false, false),
                    Phase::Sent { leader } => {
                        let sent = |slot: &&Slot| slot.phase == Phase::Sent { leader };
                        let missing = slots.iter().filter(sent).count();
                        let first = slots.get(usize::from(leader));

                        if first.map(|first| usize::from(first.missing)) != Some(missing) {
                            return Some("miscounted answers");
                        }
                        (false, true)
                    }
                    Phase::Posted | Phase::Orphaned => {
                        unclaimed += 1;
                        (false, true)
                    }
                };

                if free != usize::from(is_free) {
                    return Some("not as often on the free list as it is free");
                }
                if away != usize::from(is_away) || slot.buffer.is_some() == is_away {
                    return Some("buffer is not where it should be");
                }
            }

            (unclaimed != self.slots.unclaimed.count())
                .then_some("miscounted what nobody waits for")
        }
    }

    #[test]
    fn answers_are_in_the_order_of_the_messages() -> Result {
        let mut pool = Pool::new(8, 8)?;
        let batch = pool.send(0..4, WAITED_FOR)?;

        // Values 0, 1, 0, 1, in another order.
        for (nth, value) in [(3, 1), (0, 0), (1, 0), (0, 1)] {
            assert!(!batch.done.try_wait());
            pool.answer(nth, value);
            assert_eq!(pool.fault(), None);
        }
        assert!(batch.done.try_wait());
        assert!(*pool.finish(&batch, Ok(()))? == [Ok(0), Ok(1), Ok(0), Ok(1)]);
        assert_eq!(pool.slots.free.len(), 8);
        assert_eq!(pool.fault(), None);
        Ok(())
    }

    #[test]
    fn slot_is_not_free_before_its_buffer_is_back() -> Result {
        let mut pool = Pool::new(2, 2)?;
        let batch = pool.send(0..1, WAITED_FOR)?;
        let slot = usize::from(batch.first);

        assert!(*pool.finish(&batch, Err(ETIMEDOUT))? == [Err(ETIMEDOUT)]);
        assert_eq!(pool.phase(slot), Some(Phase::Orphaned));
        assert_eq!(pool.slots.free.len(), 1);
        assert_eq!(pool.fault(), None);
        pool.answer(0, 1);
        assert_eq!(pool.phase(slot), Some(Phase::Free));
        assert_eq!(pool.fault(), None);
        Ok(())
    }

    #[test]
    fn late_answer_is_not_that_of_the_next_message() -> Result {
        let mut pool = Pool::new(2, 2)?;
        let late = pool.send(7..8, WAITED_FOR)?;

        let _ = pool.finish(&late, Err(ETIMEDOUT))?;
        let next = pool.send(7..8, WAITED_FOR)?;
        pool.answer(0, 1);
        assert!(!next.done.try_wait());
        pool.answer(0, 0);
        assert!(next.done.try_wait());
        assert!(*pool.finish(&next, Ok(()))? == [Ok(0)]);
        assert_eq!(pool.fault(), None);
        Ok(())
    }

    #[test]
    fn signal_for_a_wait_that_was_given_up_wakes_nobody_else() -> Result {
        let mut pool = Pool::new(1, 1)?;
        let first = pool.send(0..1, WAITED_FOR)?;

        // The answer comes when the sender has stopped to wait, and before it says so.
        pool.answer(0, 1);
        assert!(*pool.finish(&first, Err(EINTR))? == [Ok(1)]);
        let second = pool.send(0..1, WAITED_FOR)?;
        assert!(!second.done.try_wait());
        assert_eq!(pool.fault(), None);
        Ok(())
    }

    #[test]
    fn half_of_a_batch_may_be_answered() -> Result {
        let mut pool = Pool::new(4, 4)?;
        let batch = pool.send(0..4, WAITED_FOR)?;

        pool.answer(1, 1);
        pool.answer(2, 0);
        let answers = pool.finish(&batch, Err(ETIMEDOUT))?;
        assert!(*answers == [Err(ETIMEDOUT), Ok(1), Err(ETIMEDOUT), Ok(0)]);
        assert_eq!(pool.slots.free.len(), 2);
        assert_eq!(pool.fault(), None);
        Ok(())
    }

    #[test]
    fn answer_to_a_posted_message_frees_its_slot() -> Result {
        let mut pool = Pool::new(2, 2)?;

        let _ = pool.send(0..2, POSTED)?;
        assert_eq!(pool.slots.unclaimed.count(), 2);
        assert_eq!(pool.fault(), None);
        pool.answer(0, 0);
        pool.answer(0, 0);
        assert_eq!(pool.slots.free.len(), 2);
        assert_eq!(pool.fault(), None);
        Ok(())
    }

    #[test]
    fn message_that_does_not_fit_is_sent_later() -> Result {
        let mut pool = Pool::new(8, 2)?;
        let mut messages = (0..5).map(|line| (line, GetValue));
        let mut pending = None;

        let sent = pool
            .slots
            .send(&mut pool.device, &mut messages, &mut pending, WAITED_FOR);
        assert!(sent.is_ok());
        assert!(pending == Some((2, GetValue)));
        assert_eq!(pool.slots.free.len(), 6);
        assert_eq!(pool.fault(), None);

        let sent = pool
            .slots
            .send(&mut pool.device, &mut messages, &mut pending, WAITED_FOR);
        assert_eq!(sent.err(), Some(ENOSPC));
        assert!(pending == Some((2, GetValue)));
        assert_eq!(pool.fault(), None);
        Ok(())
    }

    #[test]
    fn message_without_a_slot_is_sent_later() -> Result {
        let mut pool = Pool::new(2, 8)?;

        let _ = pool.send(0..8, WAITED_FOR)?;
        assert_eq!(pool.device.messages.len(), 2);
        assert_eq!(pool.send(0..1, WAITED_FOR).err(), Some(ENOSPC));
        assert_eq!(pool.fault(), None);
        Ok(())
    }

    #[test]
    fn slot_is_for_who_has_waited_for_it() -> Result {
        let mut pool = Pool::new(1, 1)?;
        let called = Terms {
            called: true,
            ..WAITED_FOR
        };

        let first = pool.send(0..1, WAITED_FOR)?;
        assert_eq!(pool.send(1..2, WAITED_FOR).err(), Some(ENOSPC));
        pool.slots.waiting = 1;
        pool.answer(0, 1);
        let _ = pool.finish(&first, Ok(()))?;
        assert_eq!(pool.slots.called, 1);
        // The one that has got its answer would be faster.
        assert_eq!(pool.send(0..1, WAITED_FOR).err(), Some(EAGAIN));
        assert!(pool.send(1..2, called).is_ok());
        assert_eq!(pool.slots.called, 0);
        assert_eq!(pool.fault(), None);
        Ok(())
    }

    #[test]
    fn slot_that_is_not_wanted_any_more_goes_to_the_next() -> Result {
        let mut pool = Pool::new(1, 1)?;
        let called = Terms {
            called: true,
            epoch: Some(pool.slots.epoch),
            ..WAITED_FOR
        };

        let first = pool.send(0..1, WAITED_FOR)?;
        pool.slots.waiting = 3;
        pool.answer(0, 1);
        let _ = pool.finish(&first, Ok(()))?;
        assert_eq!((pool.slots.waiting, pool.slots.called), (2, 1));
        pool.slots.pass_on();
        assert_eq!((pool.slots.waiting, pool.slots.called), (1, 1));
        pool.slots.epoch.0 += 1;
        assert_eq!(pool.send(0..1, called).err(), Some(ENODEV));
        assert_eq!((pool.slots.waiting, pool.slots.called), (0, 1));
        Ok(())
    }

    #[test]
    fn silent_line_leaves_slots_to_others() -> Result {
        let mut pool = Pool::new(8, 8)?;

        for _ in 0..4 {
            let batch = pool.send(3..4, WAITED_FOR)?;
            let _ = pool.finish(&batch, Err(ETIMEDOUT))?;
        }
        assert_eq!(pool.send(3..4, WAITED_FOR).err(), Some(ETIMEDOUT));
        assert!(pool.send(4..5, WAITED_FOR).is_ok());
        assert_eq!(pool.fault(), None);
        // A sign of life.
        pool.answer(0, 0);
        assert!(pool.send(3..4, WAITED_FOR).is_ok());
        Ok(())
    }

    #[test]
    fn nothing_is_sent_when_shut_or_held() -> Result {
        let mut pool = Pool::new(2, 2)?;
        let replay = Terms {
            replay: true,
            ..WAITED_FOR
        };

        pool.slots.gate = Gate::Held;
        assert_eq!(pool.send(0..1, WAITED_FOR).err(), Some(ENOSPC));
        assert!(pool.send(0..1, replay).is_ok());
        pool.slots.gate = Gate::Shut;
        assert_eq!(pool.send(0..1, WAITED_FOR).err(), Some(ENODEV));
        assert_eq!(pool.send(0..1, replay).err(), Some(ENODEV));
        assert_eq!(pool.device.messages.len(), 1);
        Ok(())
    }

    #[test]
    fn message_of_another_epoch_is_not_sent() -> Result {
        let mut pool = Pool::new(2, 2)?;
        let terms = Terms {
            epoch: Some(pool.slots.epoch),
            ..WAITED_FOR
        };

        assert!(pool.send(0..1, terms).is_ok());
        pool.slots.epoch.0 += 1;
        assert_eq!(pool.send(0..1, terms).err(), Some(ENODEV));
        Ok(())
    }

    #[test]
    fn books_are_right_whatever_happens() -> Result {
        for seed in 1..=20 {
            let mut random = Random(seed);
            let mut pool = Pool::new(16, 12)?;
            let mut batches = KVec::new();

            for _ in 0..500 {
                match random.next() % 4 {
                    0 => {
                        let from = (random.next() % 4) as u16;
                        let lines = from..from + 1 + (random.next() % 6) as u16;

                        if random.once_in(4) {
                            let _ = pool.send(lines, POSTED);
                        } else if let Ok(batch) = pool.send(lines, WAITED_FOR) {
                            batches.push(batch, GFP_KERNEL)?;
                        }
                    }
                    1 | 2 => {
                        let count = pool.device.messages.len().max(1) as u64;

                        pool.answer((random.next() % count) as usize, 1);
                    }
                    _ => {
                        let count = batches.len().max(1) as u64;

                        if let Ok(batch) = batches.remove((random.next() % count) as usize) {
                            let cause = if batch.done.try_wait() {
                                Ok(())
                            } else {
                                Err(ETIMEDOUT)
                            };
                            let _ = pool.finish(&batch, cause)?;
                        }
                    }
                }
                assert_eq!(pool.fault(), None);
            }

            while !pool.device.messages.is_empty() {
                pool.answer(0, 0);
            }
            while let Some(batch) = batches.pop() {
                assert!(batch.done.try_wait());
                let answers = pool.finish(&batch, Ok(()))?;
                assert!(answers.iter().all(|answer| answer.is_ok()));
            }
            assert_eq!(pool.slots.free.len(), 16);
            assert_eq!(pool.fault(), None);
        }
        Ok(())
    }
}
