// SPDX-License-Identifier: GPL-2.0

//! One virtio GPIO device: its queues, and what ties them to its chip.

use kernel::{
    impl_has_delayed_work,
    impl_has_work,
    new_delayed_work,
    new_raw_spinlock,
    new_work,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    time::msecs_to_jiffies,
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
    requestq::RequestQueue,
    wire::{
        Direction,
        IrqType,
        Message, //
    }, //
};

/// Time in milliseconds after which a line whose buffers come back unused is armed again.
const RETRY_MS: u32 = 10;

/// The largest block of names that the driver asks for, in bytes: what `kmalloc()` can do anywhere.
const MAX_NAMES_SIZE: usize = (4 << 20) - 1;

/// State of a device, shared by its chip and the callbacks of its queues.
#[pin_data]
pub(crate) struct VirtioGpio {
    vdev: ARef<virtio::Device>,
    ngpio: u16,
    has_irq: bool,
    #[pin]
    pub(crate) requests: RequestQueue,
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
    /// Looks at what the device says of itself.
    #[pin]
    status: Work<Self, 2>,
    /// Whether that was said already.
    crowded: Atomic<bool>,
    refusal: Atomic<bool>,
}

impl_has_work! {
    impl HasWork<Self, 0> for VirtioGpio { self.now }
    impl HasWork<Self, 2> for VirtioGpio { self.status }
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self, 1> for VirtioGpio { self.later }
}

impl VirtioGpio {
    /// Constructs an initialiser for a device with `ngpio` lines.
    pub(crate) fn new(
        vdev: &virtio::Device,
        ngpio: u16,
        has_irq: bool,
        timeout_ms: u32,
    ) -> impl PinInit<Self, Error> + '_ {
        pin_init::pin_init_scope(move || {
            let lines = KVVec::from_elem(Usage::new(Direction::None), ngpio.into(), GFP_KERNEL)?;
            let irq_lines = if has_irq { ngpio } else { 0 };

            Ok(try_pin_init!(Self {
                vdev: vdev.into(),
                ngpio,
                has_irq,
                requests <- RequestQueue::new(timeout_ms),
                events <- EventQueue::new(irq_lines),
                lines <- new_raw_spinlock!(lines, "VirtioGpio::lines"),
                now <- new_work!("VirtioGpio::now"),
                later <- new_delayed_work!("VirtioGpio::later"),
                status <- new_work!("VirtioGpio::status"),
                crowded: Atomic::new(false),
                refusal: Atomic::new(false),
            }? Error))
        })
    }

    /// Allocates the buffers, as far as the rings that were found have room for them.
    pub(crate) fn populate(&self) -> Result {
        self.requests.populate(self.ngpio)?;
        if self.has_irq {
            self.events.populate()?;
        }
        Ok(())
    }

    /// Sees to what is left to do after a step under the lock of the eventq. Any context.
    pub(crate) fn follow_up(this: &Arc<Self>, todo: Todo) {
        // An item that is pending already will do it, one that is disabled need not any more.
        if todo.kick || todo.more {
            let _ = workqueue::system_long().enqueue::<_, 0>(this.clone());
        }
        if todo.retry {
            let _ = workqueue::system_long()
                .enqueue_delayed::<_, 1>(this.clone(), msecs_to_jiffies(RETRY_MS));
        }
    }

    /// Ends everything that may still be going on by itself, and all waits for the device.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub(crate) fn shut_down(this: &Arc<Self>) {
        let _ = this.requests.shut_down();
        workqueue::disable_sync::<_, 0>(this);
        workqueue::disable_sync::<_, 2>(this);
        workqueue::disable_delayed_sync::<_, 1>(this);
    }

    /// The device may have something to say of itself. Any context.
    pub(crate) fn config_changed(this: &Arc<Self>) {
        // Looking may sleep. Until then nothing is sent, in case that the device needs a reset.
        this.requests.hold();
        this.events.suspend();

        // An item that is pending already has not looked yet.
        let _ = workqueue::system_long().enqueue::<_, 2>(this.clone());
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
        while let Some(message) = this.events.next_message(line, bus_unlock) {
            let kind = message.irq_type();
            let sent = Message::SetIrqType(kind);
            let answer = match message {
                // Whatever comes next for this line, the device processes it after this.
                line::Message::Disable => this.requests.post(line, sent),
                line::Message::Enable(_) => this.requests.request(line, sent).map(|_| ()),
            };
            let outcome = match answer {
                Ok(()) => line::Outcome::Accepted,
                Err(err) if err == EIO => line::Outcome::Refused,
                Err(_) => line::Outcome::Unanswered,
            };

            if outcome == line::Outcome::Refused {
                this.refused(line, kind);
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
        let mut line = 0;
        let mut ret = Ok(());

        self.requests.batch(
            (0..self.ngpio).map(|line| (line, Message::GetDirection)),
            |answer| {
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

        let block = match self.requests.names(size) {
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

    /// Makes a device that was reset as it was: values, directions, interrupts.
    ///
    /// # Errors
    ///
    /// Those of [`RequestQueue::batch`].
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub(crate) fn replay(this: &Arc<Self>) -> Result {
        this.requests.resume();
        Self::follow_up(this, this.events.resume());

        this.requests.batch(
            (0..this.ngpio).flat_map(|line| {
                let usage = this
                    .lines
                    .with(|lines| lines.get(usize::from(line)).copied());

                usage
                    .into_iter()
                    .flat_map(|usage| usage.replay())
                    .map(move |message| (line, message))
            }),
            |_| (),
        )?;

        if this.has_irq {
            for line in 0..this.ngpio {
                Self::sync_line(this, line, false);
            }
        }
        Ok(())
    }
}

impl WorkItem<0> for VirtioGpio {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // Also notifies the device.
        let todo = this.events.callback();

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
        if this.vdev.try_bound(|vdev| vdev.needs_reset()) != Some(true) {
            this.requests.release();
            Self::follow_up(&this, this.events.release());
            return;
        }

        // A suspend or a reset of the transport, or binding the driver anew, resets the device.
        if this.requests.shut_down() {
            dev_err!(
                this.vdev.as_ref(),
                "the device needs a reset: unbind and bind the driver\n"
            );
        }
    }
}

/// What the queues of a device call back.
pub(crate) struct Callbacks(pub(crate) Arc<VirtioGpio>);

impl Queues for Callbacks {
    fn queue(&self, index: usize) -> Option<&dyn AnyQueue> {
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
