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
//! Waits for answers have no timers. One work item looks at all of them now and then as long as
//! there are some, see [`Watch`]. So a wait can be longer than the timeout: by half of it, or by
//! half a second if that is less.
//!
//! # Polling
//!
//! Before it sleeps a task may look for the answer by itself for a short time, see [`Poll`]. It
//! takes the answers of others meanwhile, and the device makes no callbacks. At most one task does
//! that, one whose batch is all that the device has.
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
    impl_has_delayed_work,
    new_delayed_work,
    prelude::*,
    processor::cpu_relax,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Completion,
        SetOnce, //
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
        Payload,
        Reclaim, //
    },
    workqueue::{
        self,
        DelayedWork,
        WorkItem, //
    }, //
};

use crate::{
    count::{
        self,
        Count, //
    },
    gate::Gate,
    lost::Lost,
    poll::Poll,
    watch::{
        Left,
        Watch, //
    },
    wire, //
};

/// A message, its answer, and the slot that it belongs to.
type Buffer = virtio::Message<wire::Request, wire::Response, u16>;

/// How many slots there are at least, if the ring has room for them, and at most.
const MIN_SLOTS: usize = 32;
const MAX_SLOTS: usize = 256;

/// Time in milliseconds that a silent device gets for an answer.
const SILENT_TIMEOUT_MS: u32 = 100;

/// Time in milliseconds after which is looked whether the queue is broken, while something is
/// waited for. Nothing tells it: a queue that breaks makes no callbacks any more.
const BROKEN_POLL_MS: u32 = 250;

/// Time in microseconds that is polled for an answer at most, whatever the user says.
const MAX_POLL_US: u32 = 1000;

/// Time in microseconds that a task leaves to those who have waited for longer than it.
const YIELD_US: i64 = 50;

/// How many messages about one line the device may leave without an answer when half of the slots
/// are in use. It answers those about one line in order, so more would only keep slots from other
/// lines. As long as there are enough, the device may have lost a message and answer the next.
const MAX_ORPHANS: usize = 4;

/// How many timeouts long the device may keep half of the slots for messages that nobody waits for,
/// and give none of them back, before they are taken to be lost.
const PATIENCE: i64 = 4;

/// Returns one message after the other, each with the line that it is about.
pub(crate) type Messages<'a> = dyn FnMut() -> Option<(u16, wire::Message)> + 'a;

/// Who hears of the answers.
pub(crate) type Each<'a> = dyn FnMut(Result<u8>) + 'a;

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
    used: Result<u32>,
    /// The next slot of the same batch.
    next: Option<u16>,
    /// In the first slot of a batch: how many answers are missing until `done` is signalled; 0 when
    /// it was.
    missing: u16,
    /// In the first slot of a batch: what the wait has left, and why it has ended without all of
    /// the answers.
    left: Left,
    ended: Result,
}

/// A completion for each slot, for the batch with this first slot: signalled once, by the last
/// answer if not before.
type Dones = KVec<Pin<KBox<Completion>>>;

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
    /// Answers that were polled for, and how often that was in vain.
    polled: Count,
    missed: Count,
    resets: Count,
}

/// State under the lock of the queue.
struct Slots {
    slots: KVec<Slot>,
    /// Those of the slots, which their senders wait for without the lock.
    dones: Arc<Dones>,
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
    /// How many messages the device has.
    in_flight: usize,
    /// While it is held senders wait, while it is shut they fail.
    gate: Gate,
    epoch: Epoch,
    watch: Watch,
    poll: Poll,
    /// A task polls.
    polling: bool,
    /// Callbacks may be off although none is in progress.
    quiet: bool,
    counts: Counts,
}

/// A batch that was sent.
#[derive(Clone, Copy)]
struct Batch {
    first: u16,
    /// Whether [`RequestQueue::watchdog`] is to be started.
    unwatched: bool,
    /// Whether its task polls for the answers.
    polls: bool,
    /// Whether the device could be notified.
    notified: Result,
}

/// Why nothing was sent.
enum Refusal {
    /// There is no use in trying again.
    Final(Error),
    /// Others have waited for longer.
    Turn,
    /// There is no room. To be tried again once that is signalled, within so much time.
    Room(Arc<Completion>, Jiffies),
}

impl Slots {
    /// Constructs the state of a queue without slots; the device has `timeout_ms` milliseconds for
    /// an answer, and the processor that long to poll for it.
    fn new(timeout_ms: u32, poll: Delta) -> Result<Self> {
        let ms = |ms| msecs_to_jiffies(ms).max(1);

        Ok(Self {
            slots: KVec::new(),
            dones: Arc::new(Dones::new(), GFP_KERNEL)?,
            free: KVec::new(),
            unclaimed: Lost::new(),
            waiting: 0,
            called: 0,
            room: Arc::pin_init(Completion::new(), GFP_KERNEL)?,
            in_flight: 0,
            gate: Gate::Open,
            epoch: Epoch(0),
            watch: Watch::new(ms(timeout_ms), ms(SILENT_TIMEOUT_MS), ms(BROKEN_POLL_MS)),
            poll: Poll::new(poll),
            polling: false,
            quiet: false,
            counts: Counts::default(),
        })
    }

    /// Allocates `count` slots, at most [`MAX_SLOTS`], their completions, and the stack of the
    /// free ones: all of them.
    fn allocate(count: usize) -> Result<(KVec<Slot>, Arc<Dones>, KVec<u16>)> {
        let mut slots = KVec::with_capacity(count, GFP_KERNEL)?;
        let mut dones = Dones::with_capacity(count, GFP_KERNEL)?;
        let mut free = KVec::with_capacity(count, GFP_KERNEL)?;

        while slots.len() < count {
            let from = slots.len();
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
                dones.push(KBox::pin_init(Completion::new(), GFP_KERNEL)?, GFP_KERNEL)?;
                free.push(*buffer.private(), GFP_KERNEL)?;
                slots.push(
                    Slot {
                        phase: Phase::Free,
                        line: 0,
                        content: Content::Line(wire::Message::GetValue),
                        buffer: Some(buffer),
                        used: Ok(0),
                        next: None,
                        missing: 0,
                        left: Left::default(),
                        ended: Ok(()),
                    },
                    GFP_KERNEL,
                )?;
            }
        }

        Ok((slots, Arc::new(dones, GFP_KERNEL)?, free))
    }

    fn get(&mut self, slot: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(slot))
    }

    /// Puts a slot whose buffer is at home on the free list.
    #[inline]
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
        for (slot, done) in self.slots.iter_mut().zip(self.dones.iter()) {
            if slot.missing > 0 {
                slot.signal(done);
            }
        }
    }

    /// Returns whether there is nothing to wait for any more.
    fn is_broken(&self, ring: &Access<'_, Buffer>) -> bool {
        match self.gate {
            Gate::Open => ring.is_broken(),
            // The queue may be closed, for the device to be reset.
            Gate::Held => false,
            Gate::Shut => true,
        }
    }

    /// Looks at all waits after some time: ends those that are over, or all if the queue is
    /// `broken`.
    fn look(&mut self, broken: bool) {
        let passed = self.watch.due().unwrap_or(0);
        let mut waiting = false;

        for (slot, done) in self.slots.iter_mut().zip(self.dones.iter()) {
            if slot.missing == 0 {
                continue;
            }

            slot.ended = if broken {
                Err(ENODEV)
            } else if slot.left.pass(passed) {
                self.watch.timed_out();
                Err(ETIMEDOUT)
            } else {
                waiting = true;
                continue;
            };
            slot.signal(done);
        }

        self.watch.again(waiting);
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
    fn returned(&mut self, buffer: Buffer, used: Result<u32>) {
        let index = *buffer.private();
        let Some(slot) = self.get(index) else {
            return;
        };

        slot.buffer = Some(buffer);
        slot.used = used;

        let phase = slot.phase;

        if matches!(phase, Phase::Sent { .. }) {
            slot.phase = Phase::Answered;
        }
        self.in_flight = self.in_flight.saturating_sub(1);

        match phase {
            Phase::Sent { leader } => {
                let leader = usize::from(leader);

                match (self.slots.get_mut(leader), self.dones.get(leader)) {
                    (Some(first), _) if first.missing > 1 => first.missing -= 1,
                    (Some(first), Some(done)) if first.missing == 1 => first.signal(done),
                    _ => (),
                }
            }
            Phase::Posted | Phase::Orphaned => {
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
    /// When none was sent: `ENOSPC` or `EAGAIN` if that may be different later, else why the queue
    /// is of no use.
    fn send(
        &mut self,
        ring: &mut impl Ring,
        messages: &mut Messages<'_>,
        pending: &mut Option<(u16, wire::Message)>,
        terms: &Terms,
    ) -> Result<Batch> {
        let mut first = None;
        let mut last = None;

        let cause = self.admit(terms).err().unwrap_or_else(|| loop {
            let Some((line, message)) = pending.take().or_else(&mut *messages) else {
                break EINVAL;
            };

            match self.add(ring, line, message, first, terms) {
                Ok(index) => {
                    if let Some(previous) = last.and_then(|last| self.get(last)) {
                        previous.next = Some(index);
                    }
                    first = first.or(Some(index));
                    last = Some(index);
                }
                Err(cause) => {
                    *pending = Some((line, message));
                    break cause;
                }
            }
        });

        match first {
            Some(first) => self.begin(first, terms),
            None => Err(self.turned_away(cause, terms)),
        }
    }

    /// Sends one message, as a batch of one.
    ///
    /// # Errors
    ///
    /// Those of [`Slots::send`].
    fn send_one(
        &mut self,
        ring: &mut impl Ring,
        line: u16,
        message: wire::Message,
        terms: &Terms,
    ) -> Result<Batch> {
        let sent = self
            .admit(terms)
            .and_then(|()| self.add(ring, line, message, None, terms));

        match sent {
            Ok(first) => self.begin(first, terms),
            Err(cause) => Err(self.turned_away(cause, terms)),
        }
    }

    /// Tells whether a batch may be sent on these terms.
    #[inline]
    fn admit(&mut self, terms: &Terms) -> Result {
        if terms.called {
            self.called = self.called.saturating_sub(1);
        }

        match self.gate {
            Gate::Shut => Err(ENODEV),
            _ if terms.epoch.is_some_and(|epoch| epoch != self.epoch) => Err(ENODEV),
            Gate::Held if !terms.replay => Err(ENOSPC),
            Gate::Held | Gate::Open => Ok(()),
        }
    }

    /// Nothing was sent.
    fn turned_away(&mut self, cause: Error, terms: &Terms) -> Error {
        if terms.called && cause != ENOSPC && cause != EAGAIN {
            // The slot that the task has waited for.
            self.wake_waiting();
        }
        cause
    }

    /// Sends one message, as part of the batch with the first slot `leader` if there is one
    /// already. Returns its slot.
    fn add(
        &mut self,
        ring: &mut impl Ring,
        line: u16,
        message: wire::Message,
        leader: Option<u16>,
        terms: &Terms,
    ) -> Result<u16> {
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
        let added = self.get(index).ok_or(EINVAL).and_then(|slot| {
            let mut buffer = slot.buffer.take().ok_or(EINVAL)?;

            buffer.set_request(message.request(line));
            buffer.set_response(wire::Response::POISON);

            ring.add(buffer).map_err(|(err, buffer)| {
                slot.buffer = Some(buffer);
                // Not to be taken for a refusal by the device.
                if err == EIO {
                    ENODEV
                } else {
                    err
                }
            })?;

            slot.line = line;
            slot.content = Content::Line(message);
            slot.next = None;
            slot.phase = if terms.posted {
                Phase::Posted
            } else {
                Phase::Sent {
                    leader: leader.unwrap_or(index),
                }
            };
            // Of those that follow the first slot counts one more.
            slot.missing = u16::from(leader.is_none() && !terms.posted);
            Ok(())
        });

        if let Err(err) = added {
            let _ = self.free.push_within_capacity(index);
            return Err(err);
        }

        self.in_flight += 1;
        self.counts.sent.up();
        if terms.posted {
            self.unclaimed.add(self.slots.len(), Instant::now());
        } else if let Some(first) = leader.and_then(|leader| self.get(leader)) {
            first.missing += 1;
        }

        Ok(index)
    }

    /// Begins the wait for the batch that was sent with this first slot, if anybody will wait.
    #[inline]
    fn begin(&mut self, first: u16, terms: &Terms) -> Result<Batch> {
        let mut batch = Batch {
            first,
            unwatched: false,
            polls: false,
            notified: Ok(()),
        };

        if !terms.posted {
            let (left, unwatched) = self.watch.begin();
            let slot = self.get(first).ok_or(EINVAL)?;

            slot.left = left;
            slot.ended = Ok(());
            batch.unwatched = unwatched;
        }
        Ok(batch)
    }

    /// Takes the answers that have come.
    #[inline]
    fn collect(&mut self, ring: &mut Access<'_, Buffer>) {
        while self.in_flight > 0 {
            let Some((buffer, used)) = ring.pop() else {
                break;
            };

            self.watch.answered();
            self.returned(buffer, used);
        }
    }

    /// Decides whether the task of a batch that was just sent polls, or else has callbacks made.
    fn listen(&mut self, ring: &mut Access<'_, Buffer>, batch: &mut Batch, terms: &Terms) {
        // Who polls takes all answers.
        if self.polling {
            return;
        }

        let slot = self.get(batch.first);
        let missing = slot.map_or(0, |slot| usize::from(slot.missing));

        if !terms.posted && missing == self.in_flight && self.poll.begin() {
            batch.polls = true;
            self.polling = true;
            self.quiet = true;
            ring.disable_callback();
        } else {
            self.unmute(ring);
        }
    }

    /// Has callbacks made.
    fn unmute(&mut self, ring: &mut Access<'_, Buffer>) {
        while self.quiet {
            // When nothing is in flight, there is nothing to be taken, whatever the device says.
            self.quiet = !ring.enable_callback() && self.in_flight > 0;
            self.collect(ring);
        }
    }

    /// Looks for the answers to a batch, so long after it was sent. Returns whether to go on.
    fn look_for(&mut self, ring: &mut Access<'_, Buffer>, batch: &Batch, after: Delta) -> bool {
        self.collect(ring);

        let missing = self.get(batch.first).map_or(0, |slot| slot.missing);

        if missing == 0 {
            self.poll.hit(after);
            self.counts.polled.up();
        } else if self.poll.goes_on(after) {
            return true;
        } else {
            self.poll.missed();
            self.counts.missed.up();
        }

        self.polling = false;
        if self.in_flight > 0 {
            self.unmute(ring);
        }
        false
    }

    /// Ends a batch: hands its answers to `each`, in the order of the messages, and gives the slots
    /// back. Returns what [`Slots::end`] does.
    fn finish(&mut self, batch: &Batch, waited: Result, each: &mut Each<'_>) -> Result {
        let mut next = Some(batch.first);
        let outcome = self.end(batch, waited);

        while let Some(index) = next {
            next = self.get(index).and_then(|slot| slot.next);
            each(self.take(index, outcome));
        }

        outcome
    }

    /// Does what [`Slots::finish`] does for a batch of one. Returns its answer.
    fn finish_one(&mut self, batch: &Batch, waited: Result) -> Result<u8> {
        let outcome = self.end(batch, waited);

        self.take(batch.first, outcome)
    }

    /// The wait for a batch has ended, for its task as `waited` tells. Returns why it has ended
    /// without all answers, if not because of [`RequestQueue::end_waits`].
    #[inline]
    fn end(&mut self, batch: &Batch, waited: Result) -> Result {
        let first = usize::from(batch.first);
        let slot = self.slots.get_mut(first).ok_or(EINVAL)?;

        slot.missing = 0;
        if let (Err(_), Some(done)) = (waited, self.dones.get(first)) {
            // The signal may have come in the last moment. It is not for the next one who waits.
            let _ = done.try_wait_for_completion();
        }
        waited.and(slot.ended)
    }

    /// Returns the answer in a slot and gives the slot back. Without an answer the message has
    /// failed with the error in `outcome`, if there is one.
    fn take(&mut self, index: u16, outcome: Result) -> Result<u8> {
        let answer = match self.get(index) {
            Some(slot) if slot.phase == Phase::Answered => {
                let answer = slot.answer();

                self.release(index);
                answer
            }
            _ => {
                self.orphan(index);
                outcome.and(Err(ENODEV))
            }
        };

        self.counts.note(answer);
        answer
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
    /// Ends the wait for the batch with this first slot, which has not ended yet.
    fn signal(&mut self, done: &Completion) {
        self.missing = 0;
        done.complete();
    }

    /// Decodes the answer.
    fn answer(&self) -> Result<u8> {
        match (self.content, &self.buffer) {
            (Content::Line(message), Some(buffer)) => {
                message.answer(&buffer.response(), self.used?)
            }
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
    /// [`Slots::dones`], for who waits without the lock.
    dones: SetOnce<Arc<Dones>>,
    /// Ends waits, see [`Watch`].
    #[pin]
    watchdog: DelayedWork<Self>,
    /// For how long the device may keep many messages that nobody waits for.
    patience: Delta,
    /// It has kept them for longer, or leaves no room for others.
    needs_reset: Atomic<bool>,
    /// How many slots there are to be, if the ring has room for them.
    wanted: usize,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for RequestQueue { self.watchdog }
}

impl WorkItem for RequestQueue {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.queue.with(|ring, slots| {
            let broken = slots.is_broken(ring);

            slots.look(broken);
        });
        Self::start_watchdog(&this);
    }
}

impl RequestQueue {
    /// Constructs an initialiser for `ngpio` lines; the device has `timeout_ms` milliseconds for an
    /// answer, which is polled for during `poll_us` microseconds at most.
    pub(crate) fn new(ngpio: u16, timeout_ms: u32, poll_us: u32) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            // A line that becomes an output takes two messages.
            let wanted = (2 * usize::from(ngpio)).clamp(MIN_SLOTS, MAX_SLOTS);
            let poll = Delta::from_micros(poll_us.min(MAX_POLL_US).into());
            let slots = Slots::new(timeout_ms, poll)?;

            Ok(try_pin_init!(Self {
                queue <- new_virtqueue!(c"requestq", slots),
                dones: SetOnce::new(),
                watchdog <- new_delayed_work!("RequestQueue::watchdog"),
                patience: Delta::from_millis(PATIENCE * i64::from(timeout_ms.max(1))),
                needs_reset: Atomic::new(false),
                wanted,
            }? Error))
        })
    }

    /// Returns the virtqueue, for the bus.
    pub(crate) fn virtqueue(&self) -> AnyQueue<'_> {
        self.queue.as_any()
    }

    /// Allocates the slots, as far as the ring has room for them.
    ///
    /// To be called once, after the queue was found and before the first message.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if not even one message fits into the ring.
    /// - `ENOMEM` if there is not enough memory.
    pub(crate) fn populate(&self) -> Result {
        let capacity = self.queue.with(|ring, _| ring.capacity(2));

        if capacity == 0 {
            return Err(EINVAL);
        }

        let (new, dones, free) = Slots::allocate(capacity.min(self.wanted))?;

        self.dones.populate(dones.clone());

        let old = self.queue.with(|_, slots| {
            (
                core::mem::replace(&mut slots.slots, new),
                core::mem::replace(&mut slots.dones, dones),
                core::mem::replace(&mut slots.free, free),
            )
        });

        // Not under the lock.
        drop(old);
        Ok(())
    }

    /// Takes the answers that have come. The callback of the queue; any context.
    pub(crate) fn callback(&self) {
        self.queue.with(|ring, slots| {
            slots.counts.callbacks.up();

            // As nobody can send anything meanwhile, this comes to an end.
            loop {
                // There will not be another answer while the only one is taken.
                let several = slots.in_flight > 1;

                if several {
                    ring.disable_callback();
                }
                slots.collect(ring);
                if !several || ring.enable_callback() {
                    break;
                }
            }
        });
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
        this: &Arc<Self>,
        messages: &mut Messages<'_>,
        each: &mut Each<'_>,
    ) -> Result {
        Self::exchange(this, messages, each, Terms::default())
    }

    /// Does what [`RequestQueue::batch`] does, also between [`RequestQueue::reopen`] and
    /// [`RequestQueue::release`].
    pub(crate) fn replay(
        this: &Arc<Self>,
        messages: &mut Messages<'_>,
        each: &mut Each<'_>,
    ) -> Result {
        Self::exchange(
            this,
            messages,
            each,
            Terms {
                replay: true,
                ..Terms::default()
            },
        )
    }

    /// Sends one message about `line`, which is of no use in another epoch if there is an `epoch`.
    /// Returns what `then` makes of the answer.
    ///
    /// `then` is called under the lock of the queue and must not sleep.
    ///
    /// # Errors
    ///
    /// Those of [`RequestQueue::batch`], and `ENODEV` in another epoch.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    #[inline]
    pub(crate) fn request<R>(
        this: &Arc<Self>,
        epoch: Option<Epoch>,
        line: u16,
        message: wire::Message,
        then: impl FnOnce(u8) -> Result<R>,
    ) -> Result<R> {
        let terms = Terms {
            epoch,
            ..Terms::default()
        };
        let batch = Self::send_one(this, line, message, terms)?;
        let waited = this.wait(&batch);

        this.queue.with(|_, slots| {
            let answer = slots.finish_one(&batch, waited);

            if let Err(err) = answer {
                this.look_for_lost(slots, err);
            }
            then(answer?)
        })
    }

    fn exchange(
        this: &Arc<Self>,
        messages: &mut Messages<'_>,
        each: &mut Each<'_>,
        terms: Terms,
    ) -> Result {
        let mut pending = messages();

        while pending.is_some() {
            let batch = Self::send(this, terms, |ring, slots, terms| {
                slots.send(ring, messages, &mut pending, terms)
            })?;
            let waited = this.wait(&batch);
            let outcome = this.queue.with(|_, slots| {
                let outcome = slots.finish(&batch, waited, each);

                if let Err(err) = outcome {
                    this.look_for_lost(slots, err);
                }
                outcome
            });

            if pending.is_none() {
                pending = messages();
            }
            if pending.is_some() {
                outcome?;
            }
        }

        Ok(())
    }

    /// Sends a message about `line`, which is of no use in another epoch if there is an `epoch`,
    /// without waiting for the answer, which nobody will see.
    ///
    /// Messages about one line take effect in the order in which they were sent, so one that is
    /// sent afterwards may rely on this one. Waits when there is no room.
    ///
    /// # Errors
    ///
    /// - `ETIMEDOUT` if there was no room for too long.
    /// - `EINTR` if the task is being killed and there is no room.
    /// - `ENODEV` if the device is gone, or going, or in another epoch.
    ///
    /// # Context
    ///
    /// Process context; may sleep.
    pub(crate) fn post(
        this: &Arc<Self>,
        epoch: Option<Epoch>,
        line: u16,
        message: wire::Message,
    ) -> Result {
        let terms = Terms {
            posted: true,
            epoch,
            ..Terms::default()
        };

        Self::send_one(this, line, message, terms)?.notified
    }

    /// Sends one message.
    fn send_one(
        this: &Arc<Self>,
        line: u16,
        message: wire::Message,
        terms: Terms,
    ) -> Result<Batch> {
        Self::send(this, terms, |ring, slots, terms| {
            slots.send_one(ring, line, message, terms)
        })
    }

    /// Has `attempt` send what fits, again and again until something does.
    #[inline]
    fn send(
        this: &Arc<Self>,
        mut terms: Terms,
        mut attempt: impl FnMut(&mut Access<'_, Buffer>, &mut Slots, &Terms) -> Result<Batch>,
    ) -> Result<Batch> {
        let mut since = None;

        loop {
            let (sent, notified) = this.queue.with_kick(|ring, slots| {
                let mut batch = attempt(ring, slots, &terms)
                    .map_err(|err| this.refused(slots, err, &mut since))?;

                if slots.poll.is_on() {
                    slots.listen(ring, &mut batch, &terms);
                }
                Ok(batch)
            });

            match sent {
                Ok(mut batch) => {
                    if batch.unwatched {
                        Self::start_watchdog(this);
                    }
                    // A device that cannot be notified has not refused anything.
                    batch.notified = notified.map_err(|_| ENODEV);
                    return Ok(batch);
                }
                Err(refusal) => terms.called = this.wait_for_turn(refusal)?,
            }
        }
    }

    /// Nothing was sent, because of `err`, and the task has tried `since` then.
    #[cold]
    fn refused(
        &self,
        slots: &mut Slots,
        err: Error,
        since: &mut Option<Instant<Monotonic>>,
    ) -> Refusal {
        // However often it was told that there is room.
        let again = (err == ENOSPC || err == EAGAIN)
            && since.get_or_insert_with(Instant::now).elapsed() < self.patience;

        match err {
            err if again && err == ENOSPC => {
                slots.waiting += 1;
                Refusal::Room(slots.room.clone(), slots.watch.patience())
            }
            _ if again => Refusal::Turn,
            err => {
                let err = if err == ENOSPC || err == EAGAIN {
                    ETIMEDOUT
                } else {
                    err
                };

                self.look_for_lost(slots, err);
                Refusal::Final(err)
            }
        }
    }

    /// Waits until there may be room. Returns whether this task was told to try again.
    #[cold]
    fn wait_for_turn(&self, refusal: Refusal) -> Result<bool> {
        match refusal {
            Refusal::Final(err) => Err(err),
            // Those who have the slots now were woken, and will take them.
            Refusal::Turn => {
                fsleep(Delta::from_micros(YIELD_US));
                Ok(false)
            }
            Refusal::Room(room, patience) => self.wait_for_room(&room, patience).map(|()| true),
        }
    }

    /// Waits until this task is told by `room` to try again.
    fn wait_for_room(&self, room: &Completion, patience: Jiffies) -> Result {
        let mut left = patience;

        let err = loop {
            let slice = left.min(msecs_to_jiffies(BROKEN_POLL_MS));

            match room.wait_for_completion_killable_timeout(slice) {
                Err(err) if err == ETIMEDOUT => left -= slice,
                Err(err) => break err,
                Ok(()) => return Ok(()),
            }

            if self.queue.with(|ring, slots| slots.is_broken(ring)) {
                break ENODEV;
            }
            if left == 0 {
                break ETIMEDOUT;
            }
        };

        self.queue.with(|_, slots| {
            if err == ETIMEDOUT {
                slots.watch.timed_out();
            }

            // Either the signal for this task goes to another one, or it was not sent yet.
            if room.try_wait_for_completion() {
                slots.pass_on();
            } else {
                slots.waiting = slots.waiting.saturating_sub(1);
                self.look_for_lost(slots, err);
            }
        });
        Err(err)
    }

    /// Waits for the answers of a batch. How that has ended is up to [`Slots::end`].
    #[inline]
    fn wait(&self, batch: &Batch) -> Result {
        if batch.polls {
            self.poll_for(batch);
        }
        batch.notified?;
        self.dones
            .as_ref()
            .and_then(|dones| dones.get(usize::from(batch.first)))
            .ok_or(EINVAL)?
            .wait_for_completion_killable()
    }

    /// Looks for the answers to a batch for a while.
    fn poll_for(&self, batch: &Batch) {
        let start = Instant::<Monotonic>::now();

        loop {
            let after = start.elapsed();

            if !self
                .queue
                .with(|ring, slots| slots.look_for(ring, batch, after))
            {
                break;
            }
            cpu_relax();
        }
    }

    /// Has [`RequestQueue::watchdog`] run when it is due.
    #[cold]
    fn start_watchdog(this: &Arc<Self>) {
        if let Some(after) = this.queue.with(|_, slots| slots.watch.due()) {
            // One that is disabled has nothing to do any more.
            let _ = workqueue::system_long().enqueue_delayed::<_, 0>(this.clone(), after);
        }
    }

    /// Looks whether the device has lost messages, when something has timed out.
    #[cold]
    fn look_for_lost(&self, slots: &Slots, err: Error) {
        if err == ETIMEDOUT
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

    /// Does what [`RequestQueue::shut_down`] does, for good.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub(crate) fn end(this: &Arc<Self>) {
        let _ = this.shut_down();
        this.watchdog.disable_sync();
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
        let (counts, notified, timeouts, total, free, unclaimed, gate) =
            self.queue.with(|ring, slots| {
                (
                    slots.counts,
                    ring.notifications(),
                    slots.watch.timeouts(),
                    slots.slots.len(),
                    slots.free.len(),
                    slots.unclaimed.count(),
                    slots.gate,
                )
            });

        writeln!(f, "requestq: {gate:?}")?;
        count::show(
            f,
            &[
                ("messages sent", counts.sent.get()),
                ("answered", counts.answered.get()),
                ("refused", counts.refused.get()),
                ("malformed answers", counts.malformed.get()),
                ("timed out", counts.timed_out.get()),
                ("killed", counts.killed.get()),
                ("failed", counts.failed.get()),
                ("late answers", counts.late.get()),
                ("callbacks", counts.callbacks.get()),
                ("polled", counts.polled.get()),
                ("polled in vain", counts.missed.get()),
                ("notifications", notified),
                ("resets", counts.resets.get()),
                ("timeouts in a row", timeouts.into()),
            ],
        )?;
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
    /// - `ENOMEM` if there is not enough memory for the block, which is contiguous at first.
    /// - Those of [`RequestQueue::request`].
    ///
    /// # Context
    ///
    /// Process context; sleeps. Only during probe.
    pub(crate) fn names(this: &Arc<Self>, size: usize) -> Result<KVVec<u8>> {
        // The status comes first.
        let len = size.checked_add(1).ok_or(EINVAL)?;
        let mut block = Payload::response(len, GFP_KERNEL | __GFP_NOWARN)?;

        block.fill(wire::POISON);

        let message = Buffer::new(
            wire::Request::names(),
            wire::Response::POISON,
            0,
            GFP_KERNEL,
        )?;
        let mut buffer = Some(message.with_payload(block, GFP_KERNEL)?);

        // The message takes the place of the one that the slot has for requests about lines.
        let (sent, notified) = this.queue.with_kick(|ring, slots| {
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
                Ok(())
            });
            let sent = sent.and_then(|()| {
                slots.in_flight += 1;

                let batch = slots.begin(index, &Terms::default())?;
                let spare = slots.get(index).and_then(|slot| slot.buffer.take());

                Ok((batch, spare))
            });

            sent.inspect_err(|_| {
                let _ = slots.free.push_within_capacity(index);
            })
        });

        let (mut batch, mut spare) = sent?;

        if batch.unwatched {
            Self::start_watchdog(this);
        }
        batch.notified = notified;

        let waited = this.wait(&batch);

        let (answer, used) = this.queue.with(|_, slots| {
            let outcome = slots.end(&batch, waited);
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
        let block = answer.payload().ok_or(EIO)?;
        let mut status = [wire::POISON];

        block.read(0, &mut status);

        let written = wire::names_answer(status[0], used, size)?;
        let mut names = KVVec::from_elem(0, written, GFP_KERNEL)?;

        block.read(status.len(), &mut names);
        Ok(names)
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
            let mut slots = Slots::new(5000, Delta::ZERO)?;

            (slots.slots, slots.dones, slots.free) = Slots::allocate(count)?;
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
                .send(&mut self.device, &mut || messages.next(), &mut None, &terms)
        }

        /// Has the device answer one of the messages that it has.
        fn answer(&mut self, nth: usize, value: u8) {
            if let Ok(mut buffer) = self.device.messages.remove(nth) {
                let mut response = wire::Response::POISON;

                response.as_mut_bytes().copy_from_slice(&[0, value]);
                buffer.set_response(response);
                self.slots.returned(buffer, Ok(2));
            }
        }

        /// Takes the signal that the wait for a batch is over.
        fn is_done(&self, batch: &Batch) -> bool {
            let done = self.slots.dones.get(usize::from(batch.first));

            done.is_some_and(|done| done.try_wait_for_completion())
        }

        /// Lets time pass. Returns whether anybody is looked after.
        fn look(&mut self, broken: bool) -> bool {
            self.slots.look(broken);
            self.slots.watch.due().is_some()
        }

        fn finish(&mut self, batch: &Batch, cause: Result) -> Result<KVec<Result<u8>>> {
            let mut answers = KVec::with_capacity(self.slots.slots.len(), GFP_KERNEL)?;

            let _ = self.slots.finish(batch, cause, &mut |answer| {
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

            if self.slots.in_flight != self.device.messages.len() {
                return Some("miscounted what the device has");
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
            assert!(!pool.is_done(&batch));
            pool.answer(nth, value);
            assert_eq!(pool.fault(), None);
        }
        assert!(pool.is_done(&batch));
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
        assert!(!pool.is_done(&next));
        pool.answer(0, 0);
        assert!(pool.is_done(&next));
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
        assert!(!pool.is_done(&second));
        assert_eq!(pool.fault(), None);
        Ok(())
    }

    #[test]
    fn wait_ends_when_it_is_overdue() -> Result {
        let mut pool = Pool::new(4, 4)?;
        let batch = pool.send(0..2, WAITED_FOR)?;

        pool.answer(1, 1);
        assert!(pool.look(false));
        assert!(!pool.is_done(&batch));
        while pool.look(false) {}
        assert!(pool.is_done(&batch));
        assert_eq!(pool.slots.watch.timeouts(), 1);
        assert!(*pool.finish(&batch, Ok(()))? == [Err(ETIMEDOUT), Ok(1)]);
        assert!(!pool.look(false));
        assert_eq!(pool.fault(), None);
        Ok(())
    }

    #[test]
    fn waits_end_when_the_queue_is_broken() -> Result {
        let mut pool = Pool::new(4, 4)?;
        let first = pool.send(0..2, WAITED_FOR)?;
        let second = pool.send(2..3, WAITED_FOR)?;

        pool.look(true);
        assert!(pool.is_done(&first) && pool.is_done(&second));
        assert!(*pool.finish(&first, Ok(()))? == [Err(ENODEV), Err(ENODEV)]);
        assert!(*pool.finish(&second, Ok(()))? == [Err(ENODEV)]);
        assert_eq!(pool.slots.watch.timeouts(), 0);
        Ok(())
    }

    #[test]
    fn wait_is_signalled_once() -> Result {
        let mut pool = Pool::new(1, 1)?;
        let batch = pool.send(0..1, WAITED_FOR)?;

        pool.slots.end_waits();
        pool.look(true);
        pool.answer(0, 1);
        assert!(pool.is_done(&batch));
        assert!(!pool.is_done(&batch));
        assert!(*pool.finish(&batch, Ok(()))? == [Ok(1)]);
        Ok(())
    }

    #[test]
    fn what_nobody_waits_for_is_not_looked_after() -> Result {
        let mut pool = Pool::new(4, 4)?;

        let posted = pool.send(0..1, POSTED)?;
        assert!(!posted.unwatched);
        assert!(!pool.look(false));

        let given_up = pool.send(1..2, WAITED_FOR)?;
        assert!(given_up.unwatched);
        let _ = pool.finish(&given_up, Err(EINTR))?;
        // Once for those that might have followed.
        assert!(pool.look(false));
        assert!(!pool.look(false));
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

        let sent = pool.slots.send(
            &mut pool.device,
            &mut || messages.next(),
            &mut pending,
            &WAITED_FOR,
        );
        assert!(sent.is_ok());
        assert!(pending == Some((2, GetValue)));
        assert_eq!(pool.slots.free.len(), 6);
        assert_eq!(pool.fault(), None);

        let sent = pool.slots.send(
            &mut pool.device,
            &mut || messages.next(),
            &mut pending,
            &WAITED_FOR,
        );
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
                            let cause = if pool.is_done(&batch) {
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
                assert!(pool.is_done(&batch));
                let answers = pool.finish(&batch, Ok(()))?;
                assert!(answers.iter().all(|answer| answer.is_ok()));
            }
            assert_eq!(pool.slots.free.len(), 16);
            assert_eq!(pool.fault(), None);
        }
        Ok(())
    }
}
