// SPDX-License-Identifier: GPL-2.0

//! One virtio GPIO device: its queues, and what ties them to its chip.

use kernel::{
    device::Core,
    impl_has_delayed_work,
    impl_has_work,
    new_delayed_work,
    new_mutex,
    new_raw_spinlock,
    new_work,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Msecs, //
    },
    virtio::{
        self,
        AnyQueue,
        Queues, //
    },
    workqueue::{
        self,
        DelayedWork,
        Work,
        WorkItem, //
    }, //
};

use crate::{
    chip::{
        Lines,
        Usage, //
    },
    eventq::{
        EventQueue,
        Todo, //
    },
    line,
    names::Names,
    recovery::{
        Cause,
        Recovery,
        Verdict, //
    },
    requestq::{
        Each,
        Messages,
        RequestQueue, //
    },
    wire::{
        Direction,
        IrqType,
        Message, //
    }, //
};

/// Time in milliseconds after which a line whose buffers come back unused is armed again.
const RETRY_MS: u32 = 10;

/// Time in milliseconds after which a device is looked at again whose lock was held by others.
const BUSY_MS: Msecs = 20;

/// The largest block of names that the driver asks for, in bytes: what `kmalloc()` can do anywhere.
const MAX_NAMES_SIZE: usize = (4 << 20) - 1;

/// State of a device, shared by its chip and the callbacks of its queues.
#[pin_data]
pub(crate) struct VirtioGpio {
    vdev: ARef<virtio::Device>,
    binding: Arc<virtio::Binding>,
    ngpio: u16,
    has_irq: bool,
    pub(crate) requests: Arc<RequestQueue>,
    #[pin]
    pub(crate) events: EventQueue,
    #[pin]
    pub(crate) lines: Lines,
    /// Does at once what could not be done where it came up.
    #[pin]
    now: Work<Self, 0>,
    /// Lets lines try again after a while.
    #[pin]
    later: DelayedWork<Self, 1>,
    /// Looks whether the device needs a reset, and resets it.
    #[pin]
    health: DelayedWork<Self, 2>,
    /// Takes events again after a rest.
    #[pin]
    rest: DelayedWork<Self, 3>,
    #[pin]
    recovery: Mutex<Recovery>,
    /// The device has not been looked at since it has reported a change.
    changed: Atomic<bool>,
    /// Whether that was said already.
    crowded: Atomic<bool>,
    refusal: Atomic<bool>,
    reset: Atomic<bool>,
}

impl_has_work! {
    impl HasWork<Self, 0> for VirtioGpio { self.now }
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self, 1> for VirtioGpio { self.later }
    impl HasDelayedWork<Self, 2> for VirtioGpio { self.health }
    impl HasDelayedWork<Self, 3> for VirtioGpio { self.rest }
}

impl VirtioGpio {
    /// Constructs an initialiser for a device with `ngpio` lines.
    pub(crate) fn new(
        vdev: &virtio::Device<Core<'_>>,
        ngpio: u16,
        has_irq: bool,
        timeout_ms: u32,
        poll_us: u32,
    ) -> impl PinInit<Self, Error> {
        let binding = vdev.binding();
        let vdev: ARef<virtio::Device> = (&**vdev).into();

        pin_init::pin_init_scope(move || {
            let lines = KVVec::from_elem(Usage::new(Direction::None), ngpio.into(), GFP_KERNEL)?;
            let requests =
                Arc::pin_init(RequestQueue::new(ngpio, timeout_ms, poll_us), GFP_KERNEL)?;
            let irq_lines = if has_irq { ngpio } else { 0 };

            Ok(try_pin_init!(Self {
                vdev,
                binding,
                ngpio,
                has_irq,
                requests,
                events <- EventQueue::new(irq_lines),
                lines <- new_raw_spinlock!(lines, "VirtioGpio::lines"),
                now <- new_work!("VirtioGpio::now"),
                later <- new_delayed_work!("VirtioGpio::later"),
                health <- new_delayed_work!("VirtioGpio::health"),
                rest <- new_delayed_work!("VirtioGpio::rest"),
                recovery <- new_mutex!(Recovery::new(timeout_ms), "VirtioGpio::recovery"),
                changed: Atomic::new(false),
                crowded: Atomic::new(false),
                refusal: Atomic::new(false),
                reset: Atomic::new(false),
            }? Error))
        })
    }

    /// Returns the number of lines.
    pub(crate) fn ngpio(&self) -> u16 {
        self.ngpio
    }

    /// Allocates the buffers, as far as the rings that were found have room for them.
    pub(crate) fn populate(&self) -> Result {
        self.requests.populate()?;
        if self.has_irq {
            self.events.populate()?;
        }
        Ok(())
    }

    /// Sees to what is left to do after a step under the lock of the eventq. Any context.
    #[inline]
    pub(crate) fn follow_up(this: &Arc<Self>, todo: Todo) {
        if todo != Todo::default() {
            Self::enqueue(this, todo);
        }
    }

    #[cold]
    fn enqueue(this: &Arc<Self>, todo: Todo) {
        // An item that is pending already will do it, one that is disabled need not any more.
        if todo.kick || todo.more {
            let _ = workqueue::system_long().enqueue::<_, 0>(this.clone());
        }
        if todo.retry {
            let _ = workqueue::system_long()
                .enqueue_delayed::<_, 1>(this.clone(), msecs_to_jiffies(RETRY_MS));
        }
        if let Some(rest) = todo.rest {
            let _ = workqueue::system_long()
                .enqueue_delayed::<_, 3>(this.clone(), msecs_to_jiffies(to_ms(rest).max(1)));
        }
    }

    /// Ends everything that may still be going on by itself, and all waits for the device.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub(crate) fn shut_down(this: &Arc<Self>) {
        RequestQueue::end(&this.requests);
        this.now.disable_sync();
        this.later.disable_sync();
        this.health.disable_sync();
        this.rest.disable_sync();
    }

    /// The device may have something to say of itself. Any context.
    pub(crate) fn config_changed(this: &Arc<Self>) {
        // Looking may sleep. Until then nothing is sent, in case that the device needs a reset.
        this.changed.store(true, Relaxed);
        this.requests.hold();
        this.events.hold();
        Self::look_after(this, 0);
    }

    /// Has the device looked at after `delay_ms` milliseconds. Any context.
    fn look_after(this: &Arc<Self>, delay_ms: Msecs) {
        // An item that is pending already has not looked yet. One that is disabled need not any
        // more.
        let _ = workqueue::system_long()
            .enqueue_delayed::<_, 2>(this.clone(), msecs_to_jiffies(delay_ms));
    }

    /// Sends messages to the device and waits for the answers: see [`RequestQueue::batch`].
    ///
    /// # Errors
    ///
    /// Those of [`RequestQueue::batch`].
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub(crate) fn batch(
        this: &Arc<Self>,
        messages: &mut Messages<'_>,
        each: &mut Each<'_>,
    ) -> Result {
        let ret = RequestQueue::batch(&this.requests, messages, each);

        Self::look_for_lost(this);
        ret
    }

    /// Sends one message to the device and waits for the answer: see [`RequestQueue::request`].
    ///
    /// # Errors
    ///
    /// Those of [`RequestQueue::request`].
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    #[inline]
    pub(crate) fn request<R>(
        this: &Arc<Self>,
        line: u16,
        message: Message,
        then: impl FnOnce(u8) -> Result<R>,
    ) -> Result<R> {
        RequestQueue::request(&this.requests, None, line, message, then)
            .inspect_err(|_| Self::look_for_lost(this))
    }

    /// Has the device looked after if it has lost messages.
    fn look_for_lost(this: &Arc<Self>) {
        if this.requests.needs_reset() {
            Self::look_after(this, 0);
        }
    }

    /// Tells the device what genirq wants of the interrupt of a line.
    ///
    /// With `bus_unlock` the caller has the bus lock of the line and is about to release it. Others
    /// need not have it: the machine of the line keeps their messages in order.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub(crate) fn sync_line(this: &Arc<Self>, line: u16, bus_unlock: bool) {
        loop {
            let (is_synced, todo) = this.events.try_unlock(line, bus_unlock);

            Self::follow_up(this, todo);
            if is_synced {
                return;
            }

            // A message of a machine that is reset, because the device was, is not sent any more.
            let epoch = this.requests.epoch();
            let Some(message) = this.events.next_message(line) else {
                continue;
            };

            let kind = message.irq_type();
            let sent = Message::SetIrqType(kind);
            let answer = match message {
                // Whatever comes next for this line, the device processes it after this.
                line::Message::Disable => {
                    RequestQueue::post(&this.requests, Some(epoch), line, sent)
                }
                line::Message::Enable(_) => {
                    RequestQueue::request(&this.requests, Some(epoch), line, sent, |_| Ok(()))
                }
            };
            let outcome = match answer {
                Ok(()) => line::Outcome::Accepted,
                Err(err) if err == EIO => line::Outcome::Refused,
                Err(_) => line::Outcome::Unanswered,
            };

            match outcome {
                line::Outcome::Accepted => (),
                line::Outcome::Refused => this.refused(line, kind),
                line::Outcome::Unanswered => Self::look_for_lost(this),
            }

            let todo = this.events.answered(line, message, outcome);
            Self::follow_up(this, todo);
        }
    }

    /// Says, once, that the device has refused to enable an interrupt.
    ///
    /// Its consumer does not learn of it: genirq has no way to tell.
    fn refused(&self, line: u16, kind: IrqType) {
        if !self.refusal.xchg(true, Relaxed) {
            dev_warn!(
                self.vdev.as_ref(),
                "line {}: the device refuses interrupts of type {:?}\n",
                line,
                kind
            );
        }
    }

    /// Asks the device for the directions of all lines.
    ///
    /// # Errors
    ///
    /// Those of [`RequestQueue::batch`]. That a device refuses to tell is none.
    pub(crate) fn fetch_directions(&self) -> Result {
        let mut lines = 0..self.ngpio;
        let mut line = 0;
        let mut ret = Ok(());

        RequestQueue::batch(
            &self.requests,
            &mut || lines.next().map(|line| (line, Message::GetDirection)),
            &mut |answer| {
                match answer.and_then(Direction::try_from) {
                    Ok(direction) => self.lines.with(|lines| {
                        if let Some(usage) = lines.get_mut(line) {
                            *usage = Usage::new(direction);
                        }
                    }),
                    Err(err) if err == EIO || err == EPROTO => (),
                    Err(err) => ret = Err(err),
                }
                line += 1;
            },
        )?;
        ret
    }

    /// Asks the device for the names of the lines, a block of `size` bytes.
    ///
    /// # Errors
    ///
    /// Those of [`RequestQueue::names`] that say that the device does not answer. A chip can do
    /// without names, so anything else is worth a message, and no more.
    pub(crate) fn fetch_names(&self, size: u32) -> Result<Option<kernel::gpio::LineNames>> {
        let size = size as usize;

        if size == 0 {
            return Ok(None);
        }
        if size > MAX_NAMES_SIZE {
            dev_warn!(
                self.vdev.as_ref(),
                "no line names: {} bytes are too many\n",
                size
            );
            return Ok(None);
        }

        let block = match RequestQueue::names(&self.requests, size) {
            Ok(block) => block,
            Err(err) if err == EIO || err == EPROTO || err == ENOMEM => {
                dev_warn!(self.vdev.as_ref(), "no line names: {:?}\n", err);
                return Ok(None);
            }
            Err(err) => return Err(err),
        };
        let names = Names::parse(&block, self.ngpio)?;
        let report = names.report();

        if !report.is_clean() {
            dev_warn!(
                self.vdev.as_ref(),
                "lines without a name: {} missing, {} malformed, {} duplicate\n",
                report.missing,
                report.malformed,
                report.duplicate
            );
        }

        kernel::gpio::LineNames::new(names.iter()).map(Some)
    }

    /// Says, once, that not all interrupts can be armed at the same time.
    pub(crate) fn warn_crowded(&self) {
        if !self.crowded.xchg(true, Relaxed) {
            dev_warn!(
                self.vdev.as_ref(),
                "more interrupts in use than the eventq has room for: they take turns\n"
            );
        }
    }

    /// Stops to use a device that is going to be reset by somebody else.
    pub(crate) fn suspend(&self) {
        self.events.shut();
        let _ = self.requests.shut_down();
    }

    /// Makes a device that was reset by somebody else as it was. Nobody has given up on it.
    ///
    /// # Errors
    ///
    /// Those of [`VirtioGpio::replay`].
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub(crate) fn resume(this: &Arc<Self>) -> Result {
        this.recovery.lock().forget();
        this.changed.store(false, Relaxed);
        Self::replay(this)
    }

    /// Makes a device that was reset as it was: values, directions, interrupts.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT`, `EINTR` or `ENODEV` if the device did not answer.
    ///
    /// # Context
    ///
    /// Process context; sleeps. With the lock of the device held, so by one task at a time.
    fn replay(this: &Arc<Self>) -> Result {
        let mut ret = Ok(());

        // In this order: what is sent in the new epoch comes from machines that were reset.
        this.events.reopen();
        this.requests.reopen();

        let mut messages = (0..this.ngpio).flat_map(|line| {
            let usage = this
                .lines
                .with(|lines| lines.get(usize::from(line)).copied());

            usage
                .into_iter()
                .flat_map(|usage| usage.replay())
                .map(move |message| (line, message))
        });
        let sent =
            RequestQueue::replay(
                &this.requests,
                &mut || messages.next(),
                &mut |answer| match answer {
                    // That it refuses now what it has accepted before is no reason to stop.
                    Err(err) if err != EIO && err != EPROTO => ret = Err(err),
                    _ => (),
                },
            );

        let ret = sent.and(ret);

        if ret == Err(ETIMEDOUT) {
            this.requests.replay_failed();
        }
        Self::release(this);
        ret?;

        if this.has_irq {
            for line in 0..this.ngpio {
                Self::sync_line(this, line, false);
            }
        }
        Ok(())
    }

    /// Lets messages and buffers go that were held.
    fn release(this: &Arc<Self>) {
        this.requests.release();
        Self::follow_up(this, this.events.release());

        // Not those that were held since the device was looked at. It will be looked at again.
        if this.changed.load(Relaxed) {
            this.requests.hold();
            this.events.hold();
        }
    }

    /// Resets the device if it needs that. Returns the time in milliseconds after which it has to
    /// be looked at again, if it has.
    fn recover(this: &Arc<Self>, vdev: &virtio::Locked<'_>) -> Option<Msecs> {
        this.changed.store(false, Relaxed);

        let mut cause = if vdev.needs_reset() {
            Some(Cause::Demand)
        } else {
            let pending = this.recovery.lock().pending();

            pending.or_else(|| this.requests.needs_reset().then_some(Cause::Silence))
        };

        while let Some(why) = cause {
            let verdict = this.recovery.lock().needed(why, Instant::now());

            match verdict {
                Verdict::Reset => (),
                Verdict::Wait(delta) => {
                    this.hold();
                    return Some(to_ms(delta));
                }
                Verdict::Rest => break,
                Verdict::GiveUp => {
                    this.events.shut();
                    if this.requests.shut_down() {
                        dev_err!(
                            vdev.as_ref(),
                            "resets do not help the device: unbind and bind the driver\n"
                        );
                    }
                    return None;
                }
            }

            this.hold();
            if !this.reset.xchg(true, Relaxed) {
                dev_warn!(
                    vdev.as_ref(),
                    "resetting the device: it {}\n",
                    match why {
                        Cause::Demand => "asks for that",
                        Cause::Silence => "has lost messages",
                    }
                );
            }

            cause = match vdev.reset().and_then(|()| Self::replay(this)) {
                Ok(()) => {
                    this.recovery.lock().done();
                    return None;
                }
                Err(err) if err == ETIMEDOUT => Some(Cause::Silence),
                Err(_) => Some(Cause::Demand),
            };
        }

        Self::release(this);
        None
    }

    /// Ends the waits for answers, and sends nothing any more until [`VirtioGpio::release`].
    fn hold(&self) {
        self.requests.hold();
        self.events.hold();
        self.requests.end_waits();
    }
}

impl WorkItem<0> for VirtioGpio {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // Also notifies the device.
        let todo = this.events.go_on();

        Self::follow_up(&this, todo);
    }
}

impl WorkItem<1> for VirtioGpio {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let mut from = 0;

        Self::follow_up(&this, this.events.unpark());
        while let Some((line, needs_sync, todo)) = this.events.retry(from) {
            Self::follow_up(&this, todo);
            if needs_sync {
                Self::sync_line(&this, line, false);
            }
            from = line + 1;
        }
    }
}

impl WorkItem<2> for VirtioGpio {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let again = this.binding.try_lock(|vdev| Self::recover(&this, vdev));

        match again {
            Ok(Some(delay_ms)) => Self::look_after(&this, delay_ms),
            // Who binds, unbinds, suspends or resumes the device just now is soon done.
            Err(err) if err == EAGAIN => Self::look_after(&this, BUSY_MS),
            // A device that is suspended is looked at when it is resumed.
            Ok(None) | Err(_) => (),
        }
    }
}

impl WorkItem<3> for VirtioGpio {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let todo = this.events.rested();

        Self::follow_up(&this, todo);
    }
}

/// Converts a time that is to pass.
fn to_ms(delta: Delta) -> Msecs {
    Msecs::try_from(delta.as_millis()).unwrap_or(Msecs::MAX)
}

/// What the queues of a device call back.
pub(crate) struct Callbacks(pub(crate) Arc<VirtioGpio>);

impl Queues for Callbacks {
    fn queue(&self, index: usize) -> Option<AnyQueue<'_>> {
        match index {
            0 => Some(self.0.requests.virtqueue()),
            1 if self.0.has_irq => Some(self.0.events.virtqueue()),
            _ => None,
        }
    }

    fn callback(&self, index: usize) {
        match index {
            0 => self.0.requests.callback(),
            _ => VirtioGpio::follow_up(&self.0, self.0.events.callback()),
        }
    }
}
