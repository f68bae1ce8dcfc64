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
    prelude::*,
    sync::{
        Completion,
        LockClassKey, //
    },
    time::{
        msecs_to_jiffies,
        timer,
        Delta,
        Jiffies,
        Msecs, //
    }, //
};
use core::{
    cell::UnsafeCell,
    mem,
    ptr::NonNull, //
};

/// The longest time until the timer looks for waits that are to end: those that have taken too
/// long, or all if the queue is broken, for which there are no callbacks.
const CHECK_MS: Msecs = 100;

/// The longest waits of [`Requests::post`], which is called when files are released, and of
/// requests with [`Scope::Replay`], which are sent with the lock of the device held: without
/// progress, and in total.
const BOUNDED_MS: Msecs = 5000;
const TOTAL_MS: Msecs = 30_000;

/// After so many unsuccessful polls in a row, one request in so many is polled for.
const MISSES: u32 = 8;

/// Parameters of [`Requests`].
pub struct Options {
    /// How many requests the device may have at a time, as far as the ring has room for them.
    pub slots: usize,
    /// How long a caller waits without progress, in milliseconds; 0: until it is killed.
    pub timeout_ms: Msecs,
    /// How long a caller polls for the answer before it sleeps, while no other task wants its
    /// processor; zero: not at all.
    pub poll: Delta,
}

/// What the device has written in answer to a request.
pub struct Answer<In> {
    /// The response. It is the device's word: see [`Message`].
    pub response: In,
    /// How many bytes the device claims to have written, not more than there is room for.
    pub written: u32,
    /// The payload that came with the request.
    pub payload: Option<Payload>,
}

/// When a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Always. While the device is suspended or reset, it waits.
    Any,
    /// Before [`Requests::start`], too: it restores the state of a device that was reset.
    Replay,
}

/// What a request or a response is made of.
///
/// Implemented by all types that can be.
pub trait Part: FromBytes + IntoBytes + Copy + Send + 'static {}

impl<T: FromBytes + IntoBytes + Copy + Send + 'static> Part for T {}

/// The message of a slot, with the number of the slot, and a copy of the request that the device
/// cannot change.
type Buffer<Out, In> = Message<Out, In, (u16, Out)>;

type Ring<'a, Out, In> = Access<'a, Buffer<Out, In>>;

type Link<Out, In> = NonNull<Waiter<Out, In>>;

/// Returns what to send next. Called under the lock of the queue.
type Next<'a, Out> = dyn FnMut() -> Option<(Out, Option<Payload>)> + Send + 'a;

/// Takes the answer to a request. Called under the lock of the queue.
type Each<'a, Out, In> = dyn FnMut(Out, Result<Answer<In>>) + Send + 'a;

type Caller<'a, Out, In> = (NonNull<Next<'a, Out>>, NonNull<Each<'a, Out, In>>);

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
    caller: Caller<'static, Out, In>,
    scope: Scope,
    posted: bool,
    timeout_ms: Msecs,
    /// How many segments a request has, with its payload and response.
    size: usize,
    /// How many requests the device has not answered.
    unanswered: usize,
    /// Nothing is left to be sent, because all was or because of the error.
    all_sent: Option<Result>,
    /// When it began, and when something was last sent or answered.
    start: Jiffies,
    progress: Jiffies,
    next: Option<Link<Out, In>>,
}

impl<Out, In> Call<Out, In> {
    /// Returns whether the wait is to end.
    fn is_overdue(&self) -> bool {
        let bounded = self.posted || self.scope == Scope::Replay;
        let is_over = |since, ms| timer::elapsed(since) > msecs_to_jiffies(ms);

        self.timeout_ms > 0 && is_over(self.progress, self.timeout_ms)
            || bounded && (is_over(self.progress, BOUNDED_MS) || is_over(self.start, TOTAL_MS))
    }
}

/// Returns the state of the call of `waiter`.
///
/// # Safety
///
/// `waiter` must be alive, the lock of its queue held or the call finished, and there must be no
/// other reference to the call.
unsafe fn call<'a, Out, In>(waiter: Link<Out, In>) -> &'a mut Call<Out, In> {
    // SAFETY: By the requirements of this function.
    unsafe { &mut *waiter.as_ref().call.get() }
}

/// State under the lock of the queue.
///
/// # Invariants
///
/// Waiters in the list that begins with `first` are alive and pinned, their calls are not finished,
/// and there are no references to these while the lock is not held. Waiters in `slots` are in the
/// list, too, except [`Slots::POSTED`].
struct Slots<Out, In> {
    blank: In,
    /// Who waits for the answer to the request of each slot. Nobody does if there is no request, or
    /// if its caller has given up.
    slots: KVec<Option<Link<Out, In>>>,
    /// Messages that the device does not have, with room for those of all slots.
    free: KVec<Buffer<Out, In>>,
    /// The first of all calls, in the order in which they are served.
    first: Option<Link<Out, In>>,
    /// Requests wait for [`Requests::start`], or fail.
    closed: Option<Closed>,
    /// The period of the timer.
    period: Jiffies,
    /// A task polls. Callbacks are off.
    polling: bool,
    misses: u32,
}

// SAFETY: Waiters may be used from any thread under the lock: what calls refer to is `Send`.
unsafe impl<Out: Send, In: Send> Send for Slots<Out, In> {}

impl<Out: Part, In: Part> Slots<Out, In> {
    /// Stands for the waiter of a posted request, whose answer is dropped. There is none at this
    /// address.
    const POSTED: Link<Out, In> = NonNull::dangling();

    /// Returns how many messages the device has.
    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Returns what refers to `waiter` in the list, or to nothing at its end.
    fn find(&mut self, waiter: Option<Link<Out, In>>) -> &mut Option<Link<Out, In>> {
        let mut place = &mut self.first;

        while let Some(next) = place.filter(|&next| waiter != Some(next)) {
            // SAFETY: By the type invariants; the lock is held, and each is in the list once.
            place = &mut unsafe { call(next) }.next;
        }
        place
    }

    /// Ends the wait if there is nothing to wait for. The waiter may be gone afterwards.
    ///
    /// # Safety
    ///
    /// `waiter` must be in the list, and the lock held.
    unsafe fn finish(&mut self, waiter: Link<Out, In>) {
        // SAFETY: By the type invariants.
        let call = unsafe { call(waiter) };

        if call.all_sent.is_some() && call.unanswered == 0 {
            *self.find(Some(waiter)) = call.next.take();
            // SAFETY: As it was in the list it is alive.
            unsafe { waiter.as_ref() }.done.complete();
        }
    }

    /// Returns whether the device holds half of the slots for callers who have given up.
    fn is_stuck(&self, ring: &Ring<'_, Out, In>) -> bool {
        let unwaited = self.slots.iter().filter(|slot| slot.is_none()).count();
        let abandoned = unwaited - self.free.len();

        abandoned > 0 && abandoned >= self.slots.len().min(ring.capacity(2)) / 2
    }

    /// Sends what waits for room, as far as there is some.
    fn send_waiting(&mut self, ring: &mut Ring<'_, Out, In>) {
        let mut next = self.first;

        while let Some(waiter) = next {
            // SAFETY: By the type invariants; the lock is held.
            let call = unsafe { call(waiter) };
            let all_sent = match (self.closed, call.scope) {
                _ if call.all_sent.is_some() => call.all_sent,
                (Some(Closed::Ended), _) => Some(Err(ENODEV)),
                // SAFETY: It is in the list; the lock is held.
                (None, _) | (_, Scope::Replay) => unsafe { self.send(ring, waiter) },
                _ => None,
            };
            if all_sent.is_none() {
                break;
            }

            // SAFETY: As above.
            let call = unsafe { self::call(waiter) };

            call.all_sent = all_sent;
            next = call.next;
            // SAFETY: It is in the list; the lock is held.
            unsafe { self.finish(waiter) };
        }
    }

    /// Sends what there is room for of a call. Returns [`None`] if there is more.
    ///
    /// # Safety
    ///
    /// `link` must be in the list, and the lock held.
    unsafe fn send(&mut self, ring: &mut Ring<'_, Out, In>, link: Link<Out, In>) -> Option<Result> {
        // SAFETY: By the type invariants, as it is in the list; the lock is held.
        let call = unsafe { call(link) };

        loop {
            // A message in the ring makes room when it comes back.
            let is_full = self.in_flight() > 0 && ring.free_descriptors() < call.size;

            if is_full || self.free.is_empty() {
                return (call.posted && self.is_stuck(ring)).then_some(Err(ETIMEDOUT));
            }
            // SAFETY: The closure lives as long as the call, and is only used under the lock.
            let Some((request, payload)) = (unsafe { call.caller.0.as_mut()() }) else {
                return Some(Ok(()));
            };
            // There is one: see above.
            let mut message = self.free.pop()?;
            let number = usize::from(message.private().0);

            message.private_mut().1 = request;
            message.set_request(request);
            message.set_response(self.blank);
            message.set_payload(payload);

            if let Err((err, mut message)) = ring.add(message) {
                message.set_payload(None);
                let _ = self.free.push_within_capacity(message);
                // Not to be taken for a refusal by the device.
                return Some(Err(if err == EIO { ENODEV } else { err }));
            }

            call.progress = timer::jiffies();
            call.unanswered += usize::from(!call.posted);
            self.slots[number] = Some(if call.posted { Self::POSTED } else { link });
        }
    }

    /// Takes all answers that have come, and sends what has waited for room.
    fn collect(&mut self, ring: &mut Ring<'_, Out, In>) {
        while let Some((message, written)) = ring.pop() {
            self.returned(message, written);
        }
        if self.first.is_some() {
            self.send_waiting(ring);
        }
    }

    /// Takes all answers that have come, and enables callbacks for the others, unless a task polls.
    fn collect_and_listen(&mut self, ring: &mut Ring<'_, Out, In>) {
        self.collect(ring);
        while !self.polling && !ring.enable_callback() {
            self.collect(ring);
        }
    }

    /// Takes back a message that the device does not have any more.
    fn returned(&mut self, mut message: Buffer<Out, In>, written: Result<u32>) {
        let (number, request) = *message.private();
        let waiter = self.slots[usize::from(number)].take();
        let payload = message.set_payload(None);
        let answer = written.map(|written| Answer {
            response: message.response(),
            written,
            payload,
        });

        let _ = self.free.push_within_capacity(message);

        if let Some(waiter) = waiter.filter(|&waiter| waiter != Self::POSTED) {
            // SAFETY: By the type invariants; the lock is held.
            let call = unsafe { call(waiter) };

            call.unanswered -= 1;
            call.progress = timer::jiffies();
            // SAFETY: The closure lives as long as the call, and is only used under the lock.
            unsafe { call.caller.1.as_mut()(request, answer) };
            // SAFETY: It is in the list; the lock is held.
            unsafe { self.finish(waiter) };
        }
    }

    /// Ends the calls for which `fate` returns an error. Returns whether there are others.
    fn end(&mut self, fate: impl Fn(Link<Out, In>, &Call<Out, In>) -> Option<Error>) -> bool {
        let mut place = &mut self.first;

        while let Some(waiter) = *place {
            // SAFETY: By the type invariants; the lock is held, and each is in the list once.
            let call = unsafe { call(waiter) };
            let Some(err) = fate(waiter, call) else {
                place = &mut call.next;
                continue;
            };

            for slot in &mut self.slots {
                // A posted one may be what the device holds back.
                let is_lost = |w| w == waiter || w == Self::POSTED && err == ETIMEDOUT;

                slot.take_if(|other| is_lost(*other));
            }
            *place = call.next.take();
            call.all_sent = Some(Err(err));
            // SAFETY: As it was in the list it is alive.
            unsafe { waiter.as_ref() }.done.complete();
        }
        self.first.is_some()
    }

    /// Decides whether the task that has just sent something polls for the answers. There is one
    /// task at a time that does, and the device has nothing else then.
    fn starts_to_poll(&mut self, ring: &mut Ring<'_, Out, In>, sent: usize) -> bool {
        let may_poll = sent > 0 && self.in_flight() == sent;

        self.polling = may_poll && (self.misses < MISSES || self.misses % MISSES == 0);
        if self.polling {
            ring.disable_callback();
        }
        self.misses = self.misses.wrapping_add(may_poll.into());
        self.polling
    }
}

impl<Out: Part, In: Part> Reclaim<Buffer<Out, In>> for Slots<Out, In> {
    fn reclaim(queue: &Queue<Buffer<Out, In>, Self>, message: Buffer<Out, In>) {
        queue.with(|_, slots| slots.returned(message, Err(ENODEV)));
    }

    fn closing(&mut self) {
        self.closed.get_or_insert(Closed::Held);
    }

    fn closed(queue: &Queue<Buffer<Out, In>, Self>, why: Closed) {
        queue.with(|ring, slots| {
            slots.closed = Some(why);
            slots.send_waiting(ring);
            // On shutdown the device keeps what it has.
            slots.end(|_, call| (call.unanswered > 0).then_some(ENODEV));
        });
    }
}

impl<Out: Part, In: Part> timer::Expire for Queue<Buffer<Out, In>, Slots<Out, In>> {
    fn expired(&self) -> Option<Jiffies> {
        self.with(|ring, slots| {
            let broken = (slots.closed.is_none() && ring.is_broken()).then_some(ENODEV);
            let others =
                slots.end(|_, call| broken.or_else(|| call.is_overdue().then_some(ETIMEDOUT)));

            others.then_some(slots.period)
        })
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
/// - when nothing was sent or answered for the timeout, with [`ETIMEDOUT`], up to 100 ms later,
/// - when the queue is broken, the device was reset, or after [`Requests::end`], with [`ENODEV`].
///
/// What the device has is left with it then: no memory that it may write to is used for anything
/// else. A late answer is dropped, and its slot used again. [`Requests::needs_reset`] tells when
/// the device holds too many that way.
///
/// # Resets
///
/// When the queue is closed for a suspend or a reset, requests that the device had fail, and all
/// others wait until the driver calls [`Requests::start`]. Until then it restores the state of the
/// device by requests with [`Scope::Replay`]. A request that makes no sense after a reset can be
/// withheld by the iterator of [`Requests::call_all`], which is asked when there is room for it.
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
///                 requests <- Requests::new(
///                     c"requests",
///                     [0xff; 4],
///                     options,
///                     kernel::static_lock_class!(),
///                 ),
///             }? Error),
///             GFP_KERNEL,
///         )
///     }
///
///     fn ask(&self, question: u32) -> Result<u32> {
///         let answer = self.requests.call(question.to_le_bytes(), None)?;
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
    queue: timer::Timer<Queue<Buffer<Out, In>, Slots<Out, In>>>,
    options: Options,
}

impl<Out: Part, In: Part> Requests<Out, In> {
    /// Constructs an initialiser, which allocates the slots. `blank` is what responses hold before
    /// the device writes them: if it is no valid answer, then a device that writes none is noticed.
    /// `key` is the lock class of the queue: [`static_lock_class!`](crate::static_lock_class).
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is not enough memory.
    pub fn new(
        name: &'static CStr,
        blank: In,
        options: Options,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self, Error> {
        // Both are copied to the stack in interrupts.
        const { assert!(size_of::<(Out, In)>() <= 512, "use a payload") }

        pin_init::pin_init_scope(move || {
            let count = options.slots.clamp(1, usize::from(u16::MAX));
            // CAST: `count` fits.
            let parts = |number| (Out::new_zeroed(), blank, (number as u16, Out::new_zeroed()));
            let slots = Slots {
                blank,
                slots: KVec::from_elem(None, count, GFP_KERNEL)?,
                free: Message::many(count, parts, GFP_KERNEL)?,
                first: None,
                closed: Some(Closed::Held),
                // 0, which is no timeout, wraps around to the longest.
                period: msecs_to_jiffies((options.timeout_ms.wrapping_sub(1) / 16).min(CHECK_MS)),
                polling: false,
                misses: 0,
            };
            Ok(try_pin_init!(Self {
                queue <- timer::Timer::new(Queue::new(name, slots, key)),
                options,
            }? Error))
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
    /// Any context in which a `spinlock_t` may be taken.
    ///
    /// [`Queues::callback`]: super::Queues::callback
    pub fn callback(&self) {
        // A notification that fails breaks the queue, which the timer finds out.
        let _ = self.queue.with_kick(|ring, slots| slots.collect(ring));
    }

    /// Has requests sent. To be called after the queues were found, and after each suspend or reset
    /// of the device, when its state is restored.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the ring has no room for a request.
    ///
    /// # Context
    ///
    /// Any context in which a `spinlock_t` may be taken.
    pub fn start(&self) -> Result {
        self.start_if(|| true)
    }

    /// Does what [`Requests::start`] does if `may_start` returns `true`.
    ///
    /// Calls that under the lock of the queue: if the reason for a [`Requests::hold`] is visible
    /// before it is called, then either `may_start` sees the reason, or the hold comes later.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the ring has no room for a request.
    ///
    /// # Context
    ///
    /// Any context in which a `spinlock_t` may be taken.
    pub fn start_if(&self, may_start: impl FnOnce() -> bool) -> Result {
        // A notification that fails breaks the queue, which the timer finds out.
        let (capacity, _) = self.queue.with_kick(|ring, slots| {
            if may_start() {
                slots.closed = None;
                slots.send_waiting(ring);
            }
            ring.capacity(2)
        });

        (capacity > 0).then_some(()).ok_or(EINVAL)
    }

    /// Has requests wait for [`Requests::start`]. The device keeps those that it has.
    ///
    /// # Context
    ///
    /// Any context in which a `spinlock_t` may be taken.
    pub fn hold(&self) {
        self.queue.with(|_, slots| slots.closing());
    }

    /// Ends all waits, and lets requests fail with [`ENODEV`] until [`Requests::start`].
    ///
    /// # Context
    ///
    /// Any context in which a `spinlock_t` may be taken.
    pub fn end(&self) {
        Slots::closed(&self.queue, Closed::Ended);
    }

    /// Tells whether only a reset of the device can help: the queue is broken, or the device holds
    /// half of the slots for callers who have given up.
    pub fn needs_reset(&self) -> bool {
        self.queue
            .with(|ring, slots| slots.is_stuck(ring) || slots.closed.is_none() && ring.is_broken())
    }

    /// Sends a request, with or without a payload, and waits for the answer.
    ///
    /// # Errors
    ///
    /// Those in the documentation of [`Requests`], [`EPROTO`] if the device claims to have written
    /// more than there is room for, [`ENOMEM`] if the request could not be mapped for it, and
    /// [`ENOSPC`] if the whole ring is too small for request, payload and response. The payload is
    /// freed then, when the device does not have it any more.
    ///
    /// # Context
    ///
    /// Process context; sleeps.
    pub fn call(&self, request: Out, payload: Option<Payload>) -> Result<Answer<In>> {
        let size = 2 + usize::from(payload.is_some());
        let (mut next, mut ret) = (Some((request, payload)), Err(ENODEV));
        let mut each = |_, answer| ret = answer;

        self.run(Scope::Any, false, size, &mut || next.take(), &mut each)?;
        ret
    }

    /// Sends many requests, with as few notifications as possible, and waits for the answers.
    ///
    /// Hands each answer to `each` as soon as it comes, in any order, with its request: the answer,
    /// or an error of [`Requests::call`]. Answers are handed over, and requests taken from
    /// the iterator, under the lock of the queue, in interrupt context. So they are ordered with
    /// respect to a reset of the device. Neither may sleep, nor use the same `Requests`.
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
        let mut next = || Some((requests.next()?, None));

        self.run(scope, false, 2, &mut next, &mut each)
    }

    /// Sends a request. Does not wait for the answer, which is dropped.
    ///
    /// Calls `request` under the lock of the queue when there is room for it. If it returns
    /// [`None`], then the request is withheld.
    ///
    /// # Errors
    ///
    /// Those of [`Requests::call`]. Waits for room for a few seconds at most, whatever the timeout,
    /// and not at all if the device holds half of the slots for callers who have given up.
    ///
    /// # Context
    ///
    /// Process context; may sleep.
    pub fn post(&self, scope: Scope, request: impl FnOnce() -> Option<Out> + Send) -> Result {
        let mut request = Some(request);
        let mut next = || Some((request.take()?()?, None));

        self.run(scope, true, 2, &mut next, &mut |_, _| ())
    }

    /// Runs a call until it has ended.
    fn run(
        &self,
        scope: Scope,
        posted: bool,
        size: usize,
        next: &mut Next<'_, Out>,
        each: &mut Each<'_, Out, In>,
    ) -> Result {
        let now = timer::jiffies();

        pin_init::stack_pin_init!(let waiter = pin_init!(Waiter {
            done <- Completion::new(),
            call: UnsafeCell::new(Call {
                // SAFETY: Only the bound on the lifetimes changes. When this function returns, the
                // call is finished: nothing refers to them.
                caller: unsafe {
                    mem::transmute::<Caller<'_, _, _>, Caller<'_, _, _>>((next.into(), each.into()))
                },
                scope,
                posted,
                timeout_ms: self.options.timeout_ms,
                size,
                unanswered: 0,
                all_sent: None,
                start: now,
                progress: now,
                next: None,
            }),
        }));
        let waiter = NonNull::from(&*waiter);

        // A notification that fails breaks the queue, which the timer finds out.
        let ((polls, period), _) = self.queue.with_kick(|ring, slots| {
            let before = (scope == Scope::Replay).then_some(slots.first).flatten();

            // INVARIANT: The waiter is pinned on the stack until the call is finished, and then
            // neither in the list nor in slots.
            //
            // SAFETY: The waiter is new, and the lock is held.
            unsafe { call(waiter) }.next = slots.find(before).replace(waiter);
            slots.send_waiting(ring);
            // Who polls may be preempted, and is alone with the device no more.
            if mem::take(&mut slots.polling) {
                slots.collect_and_listen(ring);
            }

            // SAFETY: The waiter is on the stack of the caller, and the lock is held.
            let sent = unsafe { call(waiter) }.unanswered;
            let polls = !self.options.poll.is_zero() && slots.starts_to_poll(ring, sent);

            (polls, slots.period)
        });

        // SAFETY: The waiter is on the stack of the caller.
        if !polls || !unsafe { self.poll(waiter) } {
            // SAFETY: The waiter is on the stack of the caller.
            let done = unsafe { &waiter.as_ref().done };

            self.queue.start_unless_pending(period);
            if done.wait_for_completion_killable().is_err() {
                self.queue
                    .with(|_, slots| slots.end(|other, _| (other == waiter).then_some(EINTR)));
            }
        }

        // SAFETY: The waiter is finished, so nothing else refers to its call.
        unsafe { call(waiter) }.all_sent.unwrap_or(Ok(()))
    }

    /// Polls for the end of a call. Returns whether it has ended.
    ///
    /// # Safety
    ///
    /// `waiter` must be alive.
    unsafe fn poll(&self, waiter: Link<Out, In>) -> bool {
        let finished = self.queue.poll(self.options.poll, |ring, slots| {
            slots.collect(ring);
            // SAFETY: By the requirements of this function, and the lock is held.
            let call = unsafe { call(waiter) };

            call.all_sent.is_some() && call.unanswered == 0
        });

        let _ = self.queue.with_kick(|ring, slots| {
            slots.polling = false;
            slots.misses *= u32::from(!finished);
            slots.collect_and_listen(ring);
        });
        finished
    }
}

#[cfg(CONFIG_RUST_VIRTIO_KUNIT_TEST)]
#[kunit_tests(rust_virtio_requests)]
mod tests {
    use super::*;
    use crate::{
        sync::Arc,
        time::{
            Instant,
            Monotonic, //
        }, //
    };

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
                requests <- Requests::new(
                    c"requests",
                    [0xff; 2],
                    options,
                    crate::static_lock_class!(),
                ),
            }? Error),
            GFP_KERNEL,
        )
    }

    #[test]
    fn request_waits_for_the_queue_to_be_opened() -> Result {
        let device = device(20)?;
        let since = Instant::<Monotonic>::now();

        assert_eq!(device.requests.call([1, 2], None).err(), Some(ETIMEDOUT));
        assert!(since.elapsed() >= Delta::from_millis(10));
        Ok(())
    }

    #[test]
    fn post_does_not_wait_without_end() -> Result {
        let device = device(20)?;

        assert_eq!(
            device.requests.post(Scope::Any, || Some([1, 2])),
            Err(ETIMEDOUT)
        );
        Ok(())
    }

    #[test]
    fn requests_fail_after_the_end() -> Result {
        let device = device(0)?;
        let mut answers = 0;

        device.requests.end();
        assert_eq!(device.requests.call([1, 2], None).err(), Some(ENODEV));
        assert_eq!(
            device.requests.post(Scope::Any, || Some([1, 2])),
            Err(ENODEV)
        );
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
    fn payload_that_was_not_sent_is_freed() -> Result {
        let device = device(20)?;
        let payload = Payload::response(64, GFP_KERNEL)?;

        assert_eq!(
            device.requests.call([1, 2], Some(payload)).err(),
            Some(ETIMEDOUT)
        );
        Ok(())
    }

    #[test]
    fn requests_of_a_queue_that_is_not_open_fail() -> Result {
        let device = device(0)?;

        assert_eq!(device.requests.start(), Err(EINVAL));
        assert_eq!(device.requests.call([1, 2], None).err(), Some(ENODEV));
        Ok(())
    }

    #[test]
    fn timer_looks_rarely_if_there_is_no_timeout() -> Result {
        for (timeout_ms, check_ms) in [(0, CHECK_MS), (30_000, CHECK_MS), (160, 9)] {
            let period = device(timeout_ms)?
                .requests
                .queue
                .with(|_, slots| slots.period);

            assert_eq!(period, msecs_to_jiffies(check_ms));
        }
        Ok(())
    }

    /// A call that was made, and got on, so many milliseconds ago. It has no timeout.
    fn call_since(scope: Scope, posted: bool, start_ms: Msecs, progress_ms: Msecs) -> Call<u8, u8> {
        let next: &mut Next<'static, u8> = &mut || None;
        let each: &mut Each<'static, u8, u8> = &mut |_, _| ();
        let ago = |ms| timer::jiffies().wrapping_sub(msecs_to_jiffies(ms));

        Call {
            caller: (next.into(), each.into()),
            scope,
            posted,
            timeout_ms: 0,
            size: 2,
            unanswered: 1,
            all_sent: None,
            start: ago(start_ms),
            progress: ago(progress_ms),
            next: None,
        }
    }

    #[test]
    fn replay_does_not_take_long_without_progress() {
        assert!(!call_since(Scope::Replay, false, 1000, 1000).is_overdue());
        assert!(call_since(Scope::Replay, false, 5100, 5100).is_overdue());
        assert!(!call_since(Scope::Any, false, 5100, 5100).is_overdue());
        assert!(call_since(Scope::Any, true, 5100, 5100).is_overdue());
    }

    #[test]
    fn replay_ends_though_there_is_progress() {
        assert!(!call_since(Scope::Replay, false, 25_000, 0).is_overdue());
        assert!(call_since(Scope::Replay, false, 30_100, 0).is_overdue());
        assert!(!call_since(Scope::Any, false, 30_100, 0).is_overdue());
    }

    #[test]
    fn nothing_is_broken_before_it_is_opened() -> Result {
        let device = device(0)?;

        assert!(!device.requests.needs_reset());
        Ok(())
    }
}
