// SPDX-License-Identifier: GPL-2.0

//! Requests over a virtqueue, and the waits for their answers.
//!
//! See [`Requests`].

use super::{
    Access,
    AnyQueue,
    Closed,
    Message,
    Payload,
    Queue,
    Reclaim, //
};
use crate::{
    alloc::{
        AllocError,
        Flags, //
    },
    prelude::*,
    processor::cpu_relax,
    sync::{
        Completion,
        LockClassKey, //
    },
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Jiffies,
        Monotonic,
        Msecs, //
    }, //
};
use core::{
    cell::UnsafeCell,
    ptr::NonNull, //
};

/// Creates a [`Requests`] initialiser with a newly-created lock class.
///
/// Takes the name of the queue, what responses hold before the device writes them, and [`Options`].
#[macro_export]
macro_rules! new_requests {
    ($name:expr, $blank:expr, $options:expr $(,)?) => {
        $crate::virtio::Requests::new($name, $blank, $options, $crate::static_lock_class!())
    };
}
pub use new_requests;

/// How often a wait looks whether the queue is broken. A broken queue makes no callbacks.
const BROKEN_CHECK_MS: Msecs = 250;

/// The longest wait that no signal ends: [`Requests::post`] is called in the release of files by
/// tasks that were killed, and [`Scope::Replay`] used with the lock of the device held.
const UNKILLABLE_TIMEOUT_MS: Msecs = 5000;

/// After so many polls in vain in a row, only each request of that number is polled for.
const POLL_MISSES: u32 = 8;

/// What [`Requests`] need to know.
#[derive(Clone, Copy)]
pub struct Options {
    /// How many requests the device may have at a time, as far as the ring has room for them.
    pub slots: usize,
    /// How long a caller waits without progress, in milliseconds; 0: without end, if not killed.
    pub timeout_ms: Msecs,
    /// How long a caller polls for the answer before it sleeps; zero: not at all.
    pub poll: Delta,
}

/// What the device has written in answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<In> {
    /// The response. It is the device's word: see [`Message`].
    pub response: In,
    /// How many bytes the device claims to have written, not more than there is room for.
    pub written: u32,
}

/// The time between two calls of [`Requests::start`], or two resets of the device: see
/// [`Requests::generation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u32);

/// When a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Always. While the device is suspended or reset, it waits.
    Any,
    /// In this generation only. Fails in another.
    In(Generation),
    /// Also while others wait for [`Requests::start`]: it restores the state of a device that was
    /// reset. Fails if the device is reset once more.
    Replay,
}

/// The private part of a [`Message`] that is sent by [`Requests::call_message`].
pub struct SlotNumber(u16);

/// What a request or a response is made of.
///
/// Implemented by all types that can be.
pub trait Part: FromBytes + IntoBytes + Copy + Send + 'static {}

impl<T: FromBytes + IntoBytes + Copy + Send + 'static> Part for T {}

/// A message of a slot, or of a caller.
type Buffer<Out, In> = Message<Out, In, SlotNumber>;

type Ring<'a, Out, In> = Access<'a, Buffer<Out, In>>;

type Link<Out, In> = NonNull<Waiter<Out, In>>;

/// What is sent next.
enum Next<Out, In> {
    Request(Out),
    Message(Buffer<Out, In>),
}

/// Who hears of the answers. Called under the lock of the queue.
type Each<'a, Out, In> = dyn FnMut(Out, Result<Answer<In>>) + Send + 'a;

/// A call in progress, on the stack of its caller.
#[pin_data]
struct Waiter<Out, In> {
    /// Signalled once, when there is nothing left to be sent or to be answered.
    #[pin]
    done: Completion,
    call: UnsafeCell<Call<Out, In>>,
}

/// The state of a call, under the lock of the queue.
struct Call<Out, In> {
    requests: NonNull<dyn Iterator<Item = Out> + Send>,
    each: NonNull<Each<'static, Out, In>>,
    scope: Scope,
    posted: bool,
    /// What has found no room, or is the caller's own.
    next: Option<Next<Out, In>>,
    /// The caller's own message, when it is back.
    returned: Option<Buffer<Out, In>>,
    /// How many requests the device has not answered.
    unanswered: usize,
    /// Nothing is left to be sent, because of this if not because all was.
    all_sent: bool,
    result: Result,
    /// Something was sent or answered since that was last looked at.
    progress: bool,
    behind: Option<Link<Out, In>>,
}

impl<Out, In> Call<Out, In> {
    fn end(&mut self, result: Result) {
        self.all_sent = true;
        self.result = self.result.and(result);
    }

    fn is_finished(&self) -> bool {
        self.all_sent && self.unanswered == 0
    }
}

/// What one message that the device may have is about.
struct Slot<Out, In> {
    /// Who waits for the answer to what.
    waiter: Option<Link<Out, In>>,
    request: Out,
    /// The caller has given up.
    abandoned: bool,
    /// The message of the slot, if the device has one of the caller's own.
    spare: Option<Buffer<Out, In>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Requests wait for [`Requests::start`].
    Held,
    /// Requests are sent.
    Open,
    /// Requests fail.
    Ended,
}

/// State under the lock of the queue.
///
/// # Invariants
///
/// Waiters in `slots` and in the list from `first` to `last` are alive and pinned. Their calls are
/// only accessed under the lock.
struct Slots<Out, In> {
    blank: In,
    slots: KVec<Slot<Out, In>>,
    /// Messages that the device does not have, with room for those of all slots.
    free: KVec<Buffer<Out, In>>,
    in_flight: usize,
    abandoned: usize,
    /// Calls that have more to send, in the order in which they are served.
    first: Option<Link<Out, In>>,
    last: Option<Link<Out, In>>,
    state: State,
    generation: Generation,
    /// A task polls. Callbacks may be off, then and afterwards.
    polling: bool,
    quiet: bool,
    poll_misses: u32,
}

// SAFETY: Waiters may be used from any thread under the lock: what calls refer to is `Send`.
unsafe impl<Out: Send, In: Send> Send for Slots<Out, In> {}

impl<Out: Part, In: Part> Slots<Out, In> {
    /// Returns the state of the call of `waiter`.
    ///
    /// # Safety
    ///
    /// `waiter` must be alive, and there must be no other reference to its call.
    unsafe fn call<'a>(&mut self, waiter: Link<Out, In>) -> &'a mut Call<Out, In> {
        // SAFETY: By the requirements of this function. The lock is held.
        unsafe { &mut *waiter.as_ref().call.get() }
    }

    /// Ends the wait if there is nothing to wait for. The waiter may be gone afterwards.
    ///
    /// # Safety
    ///
    /// `waiter` must be alive, and not have been finished yet.
    unsafe fn finish(&mut self, waiter: Link<Out, In>) {
        // SAFETY: By the requirements of this function.
        let call = unsafe { self.call(waiter) };

        if call.is_finished() {
            // SAFETY: By the requirements of this function.
            unsafe { waiter.as_ref() }.done.complete();
        }
    }

    /// Begins a call: sends what there is room for, and has it wait for its turn with the rest.
    ///
    /// # Safety
    ///
    /// `waiter` must be alive and pinned until it is finished, or was given up.
    unsafe fn begin(&mut self, ring: &mut Ring<'_, Out, In>, waiter: Link<Out, In>) {
        // SAFETY: By the requirements of this function.
        let call = unsafe { self.call(waiter) };
        let stale = matches!(call.scope, Scope::In(wanted) if wanted != self.generation);

        if self.state == State::Ended || stale {
            call.end(Err(ENODEV));
        } else if call.scope == Scope::Replay {
            call.behind = self.first;
            self.first = Some(waiter);
            self.last = self.last.or(self.first);
        } else {
            match self.last.replace(waiter) {
                // SAFETY: By the type invariants. It is another one than `waiter`.
                Some(last) => unsafe { self.call(last) }.behind = Some(waiter),
                None => self.first = Some(waiter),
            }
        }

        if call.all_sent {
            // SAFETY: By the requirements of this function.
            unsafe { self.finish(waiter) };
        } else {
            self.send_waiting(ring);
        }
    }

    /// Sends what waits for room, as far as there is some.
    fn send_waiting(&mut self, ring: &mut Ring<'_, Out, In>) {
        while let Some(waiter) = self.first {
            // SAFETY: By the type invariants.
            let call = unsafe { self.call(waiter) };

            if self.state != State::Open && call.scope != Scope::Replay {
                break;
            }
            self.send(ring, waiter, call);
            if !call.all_sent {
                break;
            }

            self.first = call.behind.take();
            if self.first.is_none() {
                self.last = None;
            }
            // SAFETY: By the type invariants; the waiter was in the list, so it is not finished.
            unsafe { self.finish(waiter) };
        }
    }

    /// Sends what there is room for of one call.
    fn send(
        &mut self,
        ring: &mut Ring<'_, Out, In>,
        waiter: Link<Out, In>,
        call: &mut Call<Out, In>,
    ) {
        loop {
            let next = call.next.take().or_else(|| {
                // SAFETY: The iterator lives as long as the call, and is only used under the lock.
                unsafe { call.requests.as_mut() }.next().map(Next::Request)
            });
            let Some(next) = next else {
                return call.end(Ok(()));
            };
            let Some(mut home) = self.free.pop() else {
                call.next = Some(next);
                return;
            };
            let number = home.private().0;
            let slot = &mut self.slots[usize::from(number)];

            let message = match next {
                Next::Request(request) => {
                    home.set_request(request);
                    home.set_response(self.blank);
                    slot.request = request;
                    home
                }
                Next::Message(mut own) => {
                    *own.private_mut() = SlotNumber(number);
                    slot.spare = Some(home);
                    own
                }
            };

            if let Err((err, message)) = ring.add(message) {
                let (home, next) = match slot.spare.take() {
                    Some(home) => (home, Next::Message(message)),
                    None => (message, Next::Request(slot.request)),
                };

                let _ = self.free.push_within_capacity(home);
                call.next = Some(next);
                // A message in the ring makes room when it comes back.
                if err != ENOSPC || self.in_flight == 0 {
                    // Not to be taken for a refusal by the device.
                    call.end(Err(if err == EIO { ENODEV } else { err }));
                }
                return;
            }

            slot.waiter = (!call.posted).then_some(waiter);
            self.in_flight += 1;
            call.unanswered += usize::from(!call.posted);
            call.progress = true;
        }
    }

    /// Takes all answers that have come, and sends what has waited for room.
    fn collect(&mut self, ring: &mut Ring<'_, Out, In>) {
        while self.in_flight > 0 {
            let Some((message, written)) = ring.pop() else {
                break;
            };

            self.returned(message, written);
        }
        self.send_waiting(ring);
    }

    /// Has callbacks made, unless a task polls.
    fn unmute(&mut self, ring: &mut Ring<'_, Out, In>) {
        while self.quiet && !self.polling {
            // Without a request there is no answer, whatever the device says.
            self.quiet = !ring.enable_callback() && self.in_flight > 0;
            self.collect(ring);
        }
    }

    /// Takes back a message that the device does not have any more.
    fn returned(&mut self, message: Buffer<Out, In>, written: Result<u32>) {
        let Some(slot) = self.slots.get_mut(usize::from(message.private().0)) else {
            return;
        };
        let (waiter, request) = (slot.waiter.take(), slot.request);
        let response = message.response();
        let (home, own) = match slot.spare.take() {
            Some(home) => (home, Some(message)),
            None => (message, None),
        };

        self.in_flight -= 1;
        self.abandoned -= usize::from(core::mem::take(&mut slot.abandoned));
        let _ = self.free.push_within_capacity(home);

        if let Some(waiter) = waiter {
            let answer = written.map(|written| Answer { response, written });

            // SAFETY: By the type invariants, it was in the slot.
            unsafe { self.answered(waiter, request, answer, own) };
        }
    }

    /// Hands an answer to the call that waits for it. The waiter may be gone afterwards.
    ///
    /// # Safety
    ///
    /// `waiter` must have been in a slot, and was taken out of it.
    unsafe fn answered(
        &mut self,
        waiter: Link<Out, In>,
        request: Out,
        answer: Result<Answer<In>>,
        own: Option<Buffer<Out, In>>,
    ) {
        // SAFETY: By the type invariants, as it was in a slot.
        let call = unsafe { self.call(waiter) };

        call.unanswered -= 1;
        call.progress = true;
        call.returned = own;
        // SAFETY: The closure lives as long as the call, and is only used under the lock.
        unsafe { call.each.as_mut()(request, answer) };
        // SAFETY: As an answer was missing it is not finished.
        unsafe { self.finish(waiter) };
    }

    /// Ends a generation, and calls that wait for room in it.
    fn begin_generation(&mut self) {
        self.generation.0 = self.generation.0.wrapping_add(1);
        self.give_up(ENODEV, |_, call| {
            (matches!(call.scope, Scope::In(_)), false)
        });
    }

    /// Ends the wait for everything that the device has of the calls that `which` selects, and
    /// their wait for room.
    fn give_up(
        &mut self,
        err: Error,
        mut which: impl FnMut(Link<Out, In>, &Call<Out, In>) -> (bool, bool),
    ) {
        let (mut next, mut kept) = (self.first.take(), None);

        self.last = None;
        while let Some(waiter) = next {
            // SAFETY: By the type invariants.
            let call = unsafe { self.call(waiter) };

            next = call.behind.take();
            if which(waiter, call).0 {
                call.end(Err(err));
                // SAFETY: By the type invariants; it was in the list, so it is not finished.
                unsafe { self.finish(waiter) };
                continue;
            }
            match kept {
                // SAFETY: By the type invariants; it is another one than `waiter`.
                Some(kept) => unsafe { self.call(kept) }.behind = Some(waiter),
                None => self.first = Some(waiter),
            }
            kept = Some(waiter);
            self.last = kept;
        }

        for number in 0..self.slots.len() {
            let Some(waiter) = self.slots[number].waiter else {
                continue;
            };

            // SAFETY: By the type invariants.
            if !which(waiter, unsafe { self.call(waiter) }).1 {
                continue;
            }

            let slot = &mut self.slots[number];
            let request = slot.request;

            slot.waiter = None;
            slot.abandoned = true;
            self.abandoned += 1;
            // SAFETY: It was in the slot until now.
            unsafe { self.answered(waiter, request, Err(err), None) };
        }
    }
}

impl<Out: Part, In: Part> Reclaim<Buffer<Out, In>> for Slots<Out, In> {
    fn reclaim(queue: &Queue<Buffer<Out, In>, Self>, message: Buffer<Out, In>) {
        queue.with(|_, slots| slots.returned(message, Err(ENODEV)));
    }

    fn closed(queue: &Queue<Buffer<Out, In>, Self>, why: Closed) {
        queue.with(|_, slots| {
            let ended = why == Closed::Ended;

            slots.state = if ended { State::Ended } else { State::Held };
            slots.begin_generation();
            slots.give_up(ENODEV, |_, call| (ended || call.scope != Scope::Any, true));
        });
    }
}

/// Requests over a virtqueue, each with an answer that its caller waits for.
///
/// There is a fixed number of slots, each with a message that was allocated in advance: to send a
/// request does not allocate. Requests that find no slot, or no room in the ring, wait in the order
/// in which they came, and are sent by the callback that makes room.
///
/// # Waiting
///
/// A caller sleeps until all of its requests are answered. The wait ends early
///
/// - when the caller is killed, with [`EINTR`],
/// - when nothing was sent or answered for the timeout, with [`ETIMEDOUT`],
/// - when the queue is broken, the device was reset, or after [`Requests::end`], with [`ENODEV`].
///
/// What the device has is left with it then: no memory that it may write to is used for anything
/// else. A late answer is dropped, and its slot used again. [`Requests::is_stuck`] tells when the
/// device holds too many that way.
///
/// # Resets
///
/// When the queue is closed for a suspend or a reset, requests that the device had fail, and all
/// others wait until the driver calls [`Requests::start`]. Until then it restores the state of the
/// device by requests with [`Scope::Replay`]. A request that makes no sense after a reset has the
/// [`Generation`] that it belongs to.
///
/// # Examples
///
/// A device that answers each number with another one:
///
/// ```
/// use kernel::{
///     sync::Arc,
///     time::Delta,
///     virtio::{
///         new_requests,
///         AnyQueue,
///         Options,
///         Queues,
///         Requests, //
///     }, //
/// };
///
/// #[pin_data]
/// struct Oracle {
///     #[pin]
///     requests: Requests<[u8; 4], [u8; 4]>,
/// }
///
/// impl Oracle {
///     fn new() -> Result<Arc<Self>> {
///         let options = Options {
///             slots: 16,
///             timeout_ms: 30_000,
///             poll: Delta::ZERO,
///         };
///
///         Arc::pin_init(
///             try_pin_init!(Self {
///                 requests <- new_requests!(c"requests", [0xff; 4], options),
///             }? Error),
///             GFP_KERNEL,
///         )
///     }
///
///     fn ask(&self, question: u32) -> Result<u32> {
///         let answer = self.requests.call(question.to_le_bytes())?;
///
///         if answer.written != 4 {
///             return Err(EPROTO);
///         }
///         Ok(u32::from_le_bytes(answer.response))
///     }
/// }
///
/// /// What the driver hands to `find_vqs()`, before it calls `requests.start()`.
/// struct Callbacks(Arc<Oracle>);
///
/// impl Queues for Callbacks {
///     fn queue(&self, index: usize) -> Option<AnyQueue<'_>> {
///         (index == 0).then(|| self.0.requests.as_any())
///     }
///
///     fn callback(&self, _index: usize) {
///         self.0.requests.callback();
///     }
/// }
///
/// let oracle = Oracle::new()?;
///
/// // There is no device.
/// oracle.requests.end();
/// assert_eq!(oracle.ask(42), Err(ENODEV));
/// # Ok::<(), Error>(())
/// ```
#[pin_data]
pub struct Requests<Out: Part, In: Part> {
    #[pin]
    queue: Queue<Buffer<Out, In>, Slots<Out, In>>,
    options: Options,
}

impl<Out: Part, In: Part> Requests<Out, In> {
    /// Constructs an initialiser. `blank` is what responses hold before the device writes them: if
    /// it is no valid answer, then a device that writes none is noticed.
    ///
    /// See [`new_requests!`] for the usual way to call it.
    pub fn new(
        name: &'static CStr,
        blank: In,
        options: Options,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        let slots = Slots {
            blank,
            slots: KVec::new(),
            free: KVec::new(),
            in_flight: 0,
            abandoned: 0,
            first: None,
            last: None,
            state: State::Held,
            generation: Generation(0),
            polling: false,
            quiet: false,
            poll_misses: 0,
        };

        pin_init!(Self {
            queue <- Queue::new(name, slots, key),
            options,
        })
    }

    /// Returns the queue as the bus abstraction takes it: see [`Queues::queue`].
    ///
    /// [`Queues::queue`]: super::Queues::queue
    pub fn as_any(&self) -> AnyQueue<'_> {
        self.queue.as_any()
    }

    /// Takes the answers that have come. To be called by [`Queues::callback`].
    ///
    /// # Context
    ///
    /// Any context but NMI.
    ///
    /// [`Queues::callback`]: super::Queues::callback
    pub fn callback(&self) {
        // A notification that fails breaks the queue, which the waits find out.
        let _ = self.queue.with_kick(|ring, slots| loop {
            // A task that polls takes all answers.
            let several = slots.in_flight > 1 && !slots.polling;

            if several {
                ring.disable_callback();
            }
            slots.collect(ring);
            if !several || ring.enable_callback() {
                break;
            }
        });
    }

    /// Has requests sent. To be called after the queues were found, and after each suspend or reset
    /// of the device, when its state is restored.
    ///
    /// Allocates the slots when it is called for the first time.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if the ring has no room for a request,
    /// - [`ENOMEM`] if there is not enough memory.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub fn start(&self) -> Result {
        let (count, blank) = self.queue.with(|ring, slots| match slots.slots.len() {
            0 => (ring.capacity(2).min(self.options.slots), slots.blank),
            _ => (usize::MAX, slots.blank),
        });

        if count < usize::MAX {
            let (mut slots, mut free) = Self::allocate(count, blank)?;

            // What is replaced is empty: nothing is freed under the lock. Slots of another caller
            // may be in use already.
            self.queue.with(|_, state| {
                if state.slots.is_empty() {
                    core::mem::swap(&mut state.slots, &mut slots);
                    core::mem::swap(&mut state.free, &mut free);
                }
            });
        }

        // A notification that fails breaks the queue, which the waits find out.
        let _ = self.queue.with_kick(|ring, slots| {
            slots.begin_generation();
            slots.state = State::Open;
            slots.send_waiting(ring);
        });
        Ok(())
    }

    #[expect(clippy::type_complexity)]
    fn allocate(count: usize, blank: In) -> Result<(KVec<Slot<Out, In>>, KVec<Buffer<Out, In>>)> {
        let count = count.min(usize::from(u16::MAX));
        let mut slots = KVec::with_capacity(count, GFP_KERNEL)?;
        let mut free = KVec::with_capacity(count, GFP_KERNEL)?;

        if count == 0 {
            return Err(EINVAL);
        }
        while free.len() < count {
            let from = free.len();
            // CAST: `count` fits.
            let parts = |index| (Out::new_zeroed(), blank, SlotNumber((from + index) as u16));

            for message in Message::fill_page(parts, GFP_KERNEL)? {
                // What there is no room for is not needed.
                let _ = free.push_within_capacity(message);
            }
        }
        for _ in 0..count {
            let _ = slots.push_within_capacity(Slot {
                waiter: None,
                request: Out::new_zeroed(),
                abandoned: false,
                spare: None,
            });
        }
        Ok((slots, free))
    }

    /// Has requests wait for [`Requests::start`]. The device keeps those that it has.
    ///
    /// # Context
    ///
    /// Any context but NMI.
    pub fn hold(&self) {
        self.queue.with(|_, slots| {
            if slots.state == State::Open {
                slots.state = State::Held;
            }
        });
    }

    /// Ends all waits, and lets requests fail with [`ENODEV`] until [`Requests::start`].
    ///
    /// # Context
    ///
    /// Any context but NMI.
    pub fn end(&self) {
        self.queue.with(|_, slots| {
            slots.state = State::Ended;
            slots.give_up(ENODEV, |_, _| (true, true));
        });
    }

    /// Tells whether only a reset of the device can help, as the queue is broken.
    pub fn is_broken(&self) -> bool {
        self.queue
            .with(|ring, slots| slots.state == State::Open && ring.is_broken())
    }

    /// Tells whether the device has not answered so many requests that it holds half of the slots
    /// for callers who have given up. Only a reset gets them back, if it does not answer any more.
    pub fn is_stuck(&self) -> bool {
        self.queue
            .with(|_, slots| slots.abandoned > 0 && slots.abandoned >= slots.slots.len() / 2)
    }

    /// Returns the current generation, for [`Scope::In`].
    pub fn generation(&self) -> Generation {
        self.queue.with(|_, slots| slots.generation)
    }

    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    ///
    /// Those in the documentation of [`Requests`], [`EPROTO`] if the device claims to have written
    /// more than there is room for, and [`ENOMEM`] if the request could not be mapped for it.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub fn call(&self, request: Out) -> Result<Answer<In>> {
        let mut ret = Err(ENODEV);

        self.call_all(Scope::Any, core::iter::once(request), |_, answer| {
            ret = answer
        })?;
        ret
    }

    /// Sends many requests, with as few notifications as possible, and waits for the answers.
    ///
    /// Hands each answer to `each` as soon as it comes, in any order, with its request: the answer,
    /// or an error as [`Requests::call`] has it. Answers are handed over, and requests taken from
    /// the iterator, under the lock of the queue, in interrupt context. So they are ordered with
    /// respect to a reset of the device, and neither may sleep.
    ///
    /// # Errors
    ///
    /// Those of [`Requests::call`] when not all requests could be sent. `each` was called for those
    /// that were.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub fn call_all(
        &self,
        scope: Scope,
        mut requests: impl Iterator<Item = Out> + Send,
        mut each: impl FnMut(Out, Result<Answer<In>>) + Send,
    ) -> Result {
        self.run(scope, false, None, &mut requests, &mut each)
            .map(|_| ())
    }

    /// Sends a message of the caller's own and waits for it to come back. Returns it, and how many
    /// bytes the device claims to have written.
    ///
    /// # Errors
    ///
    /// Those of [`Requests::call`]. The message is freed then, when the device does not have it any
    /// more.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub fn call_message(&self, message: Buffer<Out, In>) -> Result<(Buffer<Out, In>, u32)> {
        let next = Some(Next::Message(message));
        let none = &mut core::iter::empty();
        let mut answer = Err(ENODEV);
        let returned = self.run(Scope::Any, false, next, none, &mut |_, it| answer = it)?;
        let written = answer?.written;

        Ok((returned.ok_or(ENODEV)?, written))
    }

    /// Makes a message for [`Requests::call_message`].
    ///
    /// # Context
    ///
    /// Whatever `flags` allow.
    pub fn message(
        &self,
        request: Out,
        payload: Payload,
        flags: Flags,
    ) -> Result<Buffer<Out, In>, AllocError> {
        let blank = self.queue.with(|_, slots| slots.blank);

        Message::new(request, blank, SlotNumber(0), flags)?.with_payload(payload, flags)
    }

    /// Sends a request. Does not wait for the answer, which is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`Requests::call`]. Waits for room for a few seconds at most, whatever the timeout.
    ///
    /// # Context
    ///
    /// Process context; may sleep.
    pub fn post(&self, scope: Scope, request: Out) -> Result {
        let mut requests = core::iter::once(request);

        self.run(scope, true, None, &mut requests, &mut |_, _| ())
            .map(|_| ())
    }

    /// Runs a call until it has ended. Returns the caller's own message if it came back.
    fn run(
        &self,
        scope: Scope,
        posted: bool,
        next: Option<Next<Out, In>>,
        requests: &mut (dyn Iterator<Item = Out> + Send),
        each: &mut Each<'_, Out, In>,
    ) -> Result<Option<Buffer<Out, In>>> {
        let requests = NonNull::from(requests);
        let each = NonNull::from(each);
        let call = UnsafeCell::new(Call {
            // SAFETY: Only the bound on the lifetime changes. The call ends within this function.
            requests: unsafe {
                core::mem::transmute::<
                    NonNull<dyn Iterator<Item = Out> + Send + '_>,
                    NonNull<dyn Iterator<Item = Out> + Send + 'static>,
                >(requests)
            },
            // SAFETY: As above.
            each: unsafe {
                core::mem::transmute::<NonNull<Each<'_, Out, In>>, NonNull<Each<'static, Out, In>>>(
                    each,
                )
            },
            scope,
            posted,
            next,
            returned: None,
            unanswered: 0,
            all_sent: false,
            result: Ok(()),
            progress: false,
            behind: None,
        });

        pin_init::stack_pin_init!(let waiter = pin_init!(Waiter {
            done <- Completion::new(),
            call,
        }));
        let waiter = NonNull::from(&*waiter);

        let (polls, notified) = self.queue.with_kick(|ring, slots| {
            // SAFETY: `waiter` is pinned on the stack, and `wait()` returns when it is finished.
            unsafe { slots.begin(ring, waiter) };
            if !posted && self.starts_to_poll(slots) {
                ring.disable_callback();
                return true;
            }
            slots.unmute(ring);
            false
        });

        if notified == Err(EIO) {
            // The queue is broken. The wait would find out later.
            self.queue.with(|_, slots| {
                slots.give_up(ENODEV, |other, _| (other == waiter, other == waiter))
            });
        }
        if !(polls && self.poll(waiter)) {
            self.wait(waiter, posted || scope == Scope::Replay);
        }

        // SAFETY: The waiter is finished, so nothing else refers to its call.
        let call = unsafe { &mut *waiter.as_ref().call.get() };

        call.result.map(|()| call.returned.take())
    }

    /// Waits until a call has ended, or ends it.
    fn wait(&self, waiter: Link<Out, In>, bounded: bool) {
        let timeout = match self.options.timeout_ms {
            0 if bounded => UNKILLABLE_TIMEOUT_MS,
            ms if bounded => ms.min(UNKILLABLE_TIMEOUT_MS),
            ms => ms,
        };
        let timeout = (timeout > 0).then(|| msecs_to_jiffies(timeout).max(1));
        let mut left = timeout;

        loop {
            let slice = left
                .unwrap_or(Jiffies::MAX)
                .min(msecs_to_jiffies(BROKEN_CHECK_MS).max(1));
            // SAFETY: The waiter is on the stack of a caller.
            let done = unsafe { &waiter.as_ref().done };
            let Err(err) = done.wait_for_completion_killable_timeout(slice) else {
                return;
            };

            let finished = self.queue.with(|ring, slots| {
                // SAFETY: The waiter is on the stack of a caller, and the lock is held.
                let call = unsafe { slots.call(waiter) };

                if call.is_finished() {
                    return true;
                }

                left = match left {
                    _ if core::mem::take(&mut call.progress) => timeout,
                    Some(left) => Some(left.saturating_sub(slice)),
                    None => None,
                };

                let err = if slots.state == State::Open && ring.is_broken() {
                    ENODEV
                } else if err != ETIMEDOUT || left == Some(0) {
                    err
                } else {
                    return false;
                };

                slots.give_up(err, |other, _| (other == waiter, other == waiter));
                true
            });

            if finished {
                return;
            }
        }
    }

    /// Decides whether the task that has just sent something polls for the answer. There is one
    /// task at a time that does, and the device has nothing else then.
    fn starts_to_poll(&self, slots: &mut Slots<Out, In>) -> bool {
        if self.options.poll.is_zero() || slots.polling || slots.in_flight != 1 {
            return false;
        }
        if slots.poll_misses >= POLL_MISSES && slots.poll_misses % POLL_MISSES != 0 {
            slots.poll_misses = slots.poll_misses.wrapping_add(1).max(POLL_MISSES);
            return false;
        }

        slots.polling = true;
        slots.quiet = true;
        true
    }

    /// Polls for the end of a call. Returns whether it has ended.
    fn poll(&self, waiter: Link<Out, In>) -> bool {
        let since = Instant::<Monotonic>::now();

        loop {
            let over = since.elapsed().as_nanos() >= self.options.poll.as_nanos();
            let (finished, _) = self.queue.with_kick(|ring, slots| {
                slots.collect(ring);

                // SAFETY: The waiter is on the stack of the caller, and the lock is held.
                let finished = unsafe { slots.call(waiter) }.is_finished();

                if finished {
                    slots.poll_misses = 0;
                } else if over {
                    slots.poll_misses = slots.poll_misses.wrapping_add(1);
                }
                slots.polling = !finished && !over;
                // Without requests callbacks stay off until the next one.
                if slots.in_flight > 0 {
                    slots.unmute(ring);
                }
                finished
            });

            if finished || over {
                return finished;
            }
            cpu_relax();
        }
    }
}

#[kunit_tests(rust_virtio_requests)]
mod tests {
    use super::*;
    use crate::sync::Arc;

    #[pin_data]
    struct Device {
        #[pin]
        requests: Requests<[u8; 2], [u8; 2]>,
    }

    fn device(timeout_ms: Msecs) -> Result<Arc<Device>> {
        let options = Options {
            slots: 4,
            timeout_ms,
            poll: Delta::ZERO,
        };

        Arc::pin_init(
            try_pin_init!(Device {
                requests <- new_requests!(c"requests", [0xff; 2], options),
            }? Error),
            GFP_KERNEL,
        )
    }

    #[test]
    fn request_waits_for_the_queue_to_be_opened() -> Result {
        let device = device(20)?;
        let since = Instant::<Monotonic>::now();

        assert_eq!(device.requests.call([1, 2]), Err(ETIMEDOUT));
        assert!(since.elapsed() >= Delta::from_millis(10));
        Ok(())
    }

    #[test]
    fn post_does_not_wait_without_end() -> Result {
        let device = device(20)?;

        assert_eq!(device.requests.post(Scope::Any, [1, 2]), Err(ETIMEDOUT));
        Ok(())
    }

    #[test]
    fn requests_fail_after_the_end() -> Result {
        let device = device(0)?;
        let mut answers = 0;

        device.requests.end();
        assert_eq!(device.requests.call([1, 2]), Err(ENODEV));
        assert_eq!(device.requests.post(Scope::Any, [1, 2]), Err(ENODEV));
        assert_eq!(
            device
                .requests
                .call_all(Scope::Replay, core::iter::once([1, 2]), |_, _| answers += 1),
            Err(ENODEV)
        );
        assert_eq!(answers, 0);
        Ok(())
    }

    #[test]
    fn message_that_was_not_sent_is_freed() -> Result {
        let device = device(20)?;
        let payload = Payload::response(64, GFP_KERNEL)?;
        let message = device.requests.message([1, 2], payload, GFP_KERNEL)?;

        assert_eq!(device.requests.call_message(message).err(), Some(ETIMEDOUT));
        Ok(())
    }

    #[test]
    fn request_of_another_generation_fails() -> Result {
        let device = device(0)?;
        let now = device.requests.generation();

        <Slots<_, _> as Reclaim<_>>::closed(&device.requests.queue, Closed::Held);
        assert_ne!(device.requests.generation(), now);
        assert_eq!(device.requests.post(Scope::In(now), [1, 2]), Err(ENODEV));
        Ok(())
    }

    #[test]
    fn ring_without_room_is_refused() -> Result {
        let device = device(0)?;

        assert_eq!(device.requests.start(), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn nothing_is_broken_before_it_is_opened() -> Result {
        let device = device(0)?;

        assert!(!device.requests.is_broken());
        assert!(!device.requests.is_stuck());
        Ok(())
    }
}
