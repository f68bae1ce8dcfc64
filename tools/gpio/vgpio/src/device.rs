// SPDX-License-Identifier: GPL-2.0-only

//! One device: the lines, what the guest says on the queues, and what the host does.
//!
//! Everything is under one lock, taken before that of a ring. The guest's side calls in from the
//! thread of the connection and that of the rings, the host's side from the control socket, and a
//! thread of our own hands back what had to wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use log::Level;
use smallvec::SmallVec;
use virtio_queue::Error;

use crate::chain::{Chain, Pieces};
use crate::eeprom::Eeprom;
use crate::fault::{Faults, Verdict};
use crate::limit::Limit;
use crate::model::{Effects, Forgotten, Model, Rules, View};
use crate::names::Names;
use crate::outbox::{Completion, Outbox};
use crate::poll::Poll;
use crate::real::config::HostLine;
use crate::ring::{Position, Ring};
use crate::stats::Stats;
use crate::watch::Watchers;
use crate::wire::{
    self, Message, Request, EVENT_INVALID, EVENT_QUEUE, EVENT_REQUEST_SIZE, EVENT_RESPONSE_SIZE,
    EVENT_VALID, REQUEST_QUEUE, REQUEST_SIZE, RESPONSE_SIZE, STATUS_ERR, STATUS_OK,
};

use errand::Office;
use wiring::Wires;

pub mod errand;
mod wiring;

/// How often the guest's side lets others run who wait for the lock, between two batches.
const PATIENCE: usize = 64;

/// What a device is; never changes.
#[derive(Clone, Debug)]
pub struct Description {
    pub label: String,
    pub lines: u16,
    pub names: Names,
    /// The host's levels at the start, one per line.
    pub values: Vec<bool>,
    /// Whether interrupts are offered.
    pub irq: bool,
    /// The lines SDA and SCL of an EEPROM.
    pub i2c_eeprom: Option<(u16, u16)>,
    pub irq_needs_input: bool,
    pub strict: bool,
    /// Whether a platform may stand between the guest's memory and the device.
    pub access_platform: bool,
    /// The most entries that a ring may have.
    pub queue_size: u16,
    /// How long to look for further requests before sleeping, zero to sleep at once.
    pub poll: Duration,
    /// Lines that are those of chips of the host.
    pub host_lines: Vec<HostLine>,
}

/// A device.
pub struct Device {
    description: Description,
    state: Mutex<State>,
    /// How many of the host's side wait for the lock.
    waiting: AtomicUsize,
    /// Something waits in the outbox.
    wake: Condvar,
}

/// Ends a connection, without waiting for that.
pub type HangUp = Box<dyn Fn() + Send>;

/// A chain of the event queue that waits for an interrupt.
#[derive(Debug)]
struct EventBuffer {
    head: u16,
    pieces: Pieces,
    capacity: u32,
}

/// A guest that the front end has stopped: gone, or only paused.
struct Paused {
    position: Position,
    forgotten: Forgotten<EventBuffer>,
    outbox: Outbox,
    held: [u16; 2],
}

struct State {
    model: Model<EventBuffer>,
    effects: Effects<EventBuffer>,
    rules: Rules,
    faults: Faults,
    stats: Stats,
    watchers: Watchers,
    outbox: Outbox,
    rings: Option<[Ring; 2]>,
    /// Chains that were taken from each ring and not handed back.
    held: [u16; 2],
    /// Chains that go back with the next interrupt.
    ready: [Vec<Completion>; 2],
    /// Chains of a batch; empty but for their memory, which is used again.
    requests: Vec<Chain<REQUEST_SIZE>>,
    buffers: Vec<Chain<EVENT_REQUEST_SIZE>>,
    /// Invalid rings, ignored until they are set up again.
    broken: [bool; 2],
    poll: Poll,
    /// Where requests about lines of the host go.
    office: Option<Office>,
    wires: Wires,
    paused: Option<Paused>,
    can_disable: bool,
    connection: Option<HangUp>,
    connected: bool,
    limit: Limit,
    /// Apart from the complaints, which it would drown.
    visits: Limit,
}

impl Device {
    /// Creates a device that no front end has connected to.
    pub fn new(description: Description) -> std::io::Result<Arc<Self>> {
        let rules = Rules {
            irq: false,
            irq_needs_input: description.irq_needs_input,
            strict: description.strict,
        };
        let mut model = Model::new(description.values.iter().copied());
        if let Some((sda, scl)) = description.i2c_eeprom {
            model.attach_eeprom(sda, scl);
        }
        let device = Arc::new(Self {
            state: Mutex::new(State {
                model,
                effects: Effects::default(),
                rules,
                faults: Faults::default(),
                stats: Stats::default(),
                watchers: Watchers::default(),
                outbox: Outbox::default(),
                rings: None,
                held: [0; 2],
                ready: Default::default(),
                requests: Vec::new(),
                buffers: Vec::new(),
                broken: [false; 2],
                poll: Poll::new(description.poll),
                office: None,
                wires: Wires::default(),
                paused: None,
                can_disable: true,
                connection: None,
                connected: false,
                limit: Limit::default(),
                visits: Limit::default(),
            }),
            waiting: AtomicUsize::new(0),
            description,
            wake: Condvar::new(),
        });
        let courier = device.clone();
        std::thread::Builder::new()
            .name("courier".into())
            .spawn(move || courier.deliver_all())?;
        Ok(device)
    }

    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Takes the lock and says whose state it is.
    fn lock(&self) -> Locked<'_> {
        Locked {
            device: self,
            state: self.state.lock().expect("a thread panicked"),
        }
    }

    /// Takes the lock for the host, before the guest's side gets it again.
    fn lock_first(&self) -> Locked<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let locked = self.lock();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        locked
    }

    // The guest's side.

    /// A front end has connected.
    pub fn connect(&self, connection: Option<HangUp>) {
        let mut locked = self.lock();
        locked.state.stats.connections += 1;
        locked.state.connection = connection;
        locked.state.connected = true;
        locked.visit(format_args!("front end connected"));
    }

    /// The front end has gone, and its guest with it.
    pub fn disconnect(&self) {
        let mut locked = self.lock();
        locked.state.paused = None;
        locked.reset();
        locked.state.can_disable = true;
        locked.count_disabled();
        locked.state.rings = None;
        locked.state.connection = None;
        let was_connected = std::mem::take(&mut locked.state.connected);
        if was_connected {
            locked.visit(format_args!("front end disconnected"));
        }
    }

    /// The front end wants to know what features there are.
    ///
    /// User-Mode Linux asks for them when a driver has reset the device, once it has told us to
    /// disable the rings, and frees them after the answer. It has no message for the reset itself,
    /// and if it can not disable rings, this is all that we hear of it.
    pub fn offer(&self) {
        let mut locked = self.lock();
        let state = &locked.state;
        let disabled = || state.rings.iter().flatten().all(|ring| !ring.is_enabled());
        let reset = !state.can_disable || (state.paused.is_none() && disabled());
        if reset && !state.faults.is_deaf() {
            locked.stop();
        }
    }

    /// A driver has negotiated features, that is, starts from scratch, or a paused guest is on its
    /// way back. `can_disable` is whether the front end enables and disables rings one by one.
    pub fn negotiate(&self, irq: bool, can_disable: bool) {
        let mut locked = self.lock();
        if locked.state.paused.is_none() {
            locked.stop();
        }
        locked.state.rules.irq = irq;
        locked.state.can_disable = can_disable;
    }

    /// The front end has stopped a ring. That of requests stands for the guest as a whole.
    pub fn stop(&self, queue: usize) {
        let mut locked = self.lock();
        let state = &locked.state;
        if queue != REQUEST_QUEUE || state.paused.is_some() || state.faults.is_deaf() {
            return;
        }
        let Some([ring, _]) = &locked.state.rings else {
            return;
        };
        let position = ring.position();
        let state = &mut *locked.state;
        let forgotten = state.model.forget(&mut state.effects);
        let outbox = std::mem::take(&mut state.outbox);
        let held = std::mem::take(&mut state.held);
        locked.state.paused = Some(Paused {
            position,
            forgotten,
            outbox,
            held,
        });
        locked.settle();
    }

    /// The guest has notified us of `queue`, or the queue has just been started. Returns whether the
    /// guest does not notify us now, and [`Device::look`] is to be called in its place.
    pub fn kick(&self, queue: usize, rings: impl FnOnce() -> [Ring; 2]) -> bool {
        let mut locked = self.lock();
        locked.state.stats.queue(queue).kicks += 1;
        let [requests, _] = locked.state.rings.get_or_insert_with(rings);
        let may_resume = requests.is_running();
        let mut queues = [queue == REQUEST_QUEUE, queue == EVENT_QUEUE];
        if locked.state.paused.is_some() {
            if !may_resume {
                return locked.state.poll.is_on();
            }
            locked.resume();
            // A notification of the other queue may have been passed over meanwhile.
            queues = [true; 2];
        }
        for completion in locked.state.outbox.take_stalled() {
            locked.hand_back(completion);
        }
        locked.settle();
        drop(locked);
        self.drain_all(queues, true)
    }

    /// Looks for what a guest has added that does not notify us. Returns whether that remains so,
    /// and this is to be called again when the caller has seen to whatever else there is.
    pub fn look(&self) -> bool {
        self.lock().state.poll.expire(Instant::now);
        let again = self.drain_all([true; 2], false);
        // The guest may need this processor.
        std::thread::yield_now();
        self.give_way();
        again
    }

    /// Carries out what is in these queues. `first` is whether the guest has notified us of it.
    fn drain_all(&self, queues: [bool; 2], first: bool) -> bool {
        for queue in [REQUEST_QUEUE, EVENT_QUEUE] {
            let mut first = first;
            while queues[queue] && self.lock().drain(queue, std::mem::take(&mut first)) {
                self.give_way();
            }
        }
        self.lock().state.poll.is_on()
    }

    /// Keeps a busy guest from locking out the host, and a busy host from locking out the guest.
    fn give_way(&self) {
        for _ in 0..PATIENCE {
            if self.waiting.load(Ordering::Relaxed) == 0 {
                break;
            }
            std::thread::yield_now();
        }
    }

    /// Returns delayed chains in a loop. Runs until the daemon exits.
    fn deliver_all(&self) {
        let mut locked = self.lock();
        loop {
            while let Some(completion) = locked.state.outbox.due() {
                locked.hand_back(completion);
            }
            locked.flush();
            let state = locked.state;
            let state = match state.outbox.next_due() {
                None => self.wake.wait(state).expect("a thread panicked"),
                Some(due) => {
                    let patience = due.saturating_duration_since(Instant::now());
                    let woken = self.wake.wait_timeout(state, patience);
                    woken.expect("a thread panicked").0
                }
            };
            locked = Locked {
                device: self,
                state,
            };
        }
    }

    // The host's side.

    /// Whether a front end is connected.
    pub fn is_connected(&self) -> bool {
        self.lock_first().state.connected
    }

    /// Ends the connection of the front end, if there is one.
    pub fn hang_up(&self) {
        if let Some(hang_up) = &self.lock_first().state.connection {
            hang_up();
        }
    }

    /// The state of these lines, all at one moment.
    pub fn views(&self, lines: &[u16]) -> Vec<(u16, View)> {
        let locked = self.lock_first();
        let view = |&line| Some((line, locked.state.model.view(line)?));
        lines.iter().filter_map(view).collect()
    }

    /// Sets the host's levels, in order and in one go.
    pub fn set(&self, levels: impl IntoIterator<Item = (u16, bool)>) {
        let mut locked = self.lock_first();
        for (line, level) in levels {
            locked.set_host(line, level);
        }
        locked.settle();
    }

    /// Inverts the host's levels, in order and in one go.
    pub fn toggle(&self, lines: &[u16]) {
        let mut locked = self.lock_first();
        for &line in lines {
            if let Some(view) = locked.state.model.view(line) {
                locked.set_host(line, !view.host);
            }
        }
        locked.settle();
    }

    /// Inverts the host's levels `count` times, each time as soon as the guest has unmasked the
    /// line's interrupt. Does not wait for the end.
    pub fn swing(&self, lines: &[u16], count: u64) {
        let mut locked = self.lock();
        let state = &mut *locked.state;
        for &line in lines {
            state.model.swing(line, count, &mut state.effects);
        }
        locked.settle();
    }

    /// Gives access to the EEPROM, if there is one.
    pub fn eeprom<T>(&self, f: impl FnOnce(&mut Eeprom) -> T) -> Option<T> {
        self.lock_first().state.model.eeprom().map(f)
    }

    /// Gives access to the faults.
    pub fn faults<T>(&self, f: impl FnOnce(&mut Faults) -> T) -> T {
        f(&mut self.lock_first().state.faults)
    }

    /// Gives access to the observers.
    pub fn watchers<T>(&self, f: impl FnOnce(&mut Watchers) -> T) -> T {
        f(&mut self.lock_first().state.watchers)
    }

    /// The counters, which `reset` clears afterwards.
    pub fn stats(&self, reset: bool) -> Stats {
        let mut locked = self.lock_first();
        locked.count_disabled();
        let stats = &mut locked.state.stats;
        if reset {
            std::mem::take(stats)
        } else {
            stats.clone()
        }
    }
}

/// A device's state together with what it needs to know about the device.
struct Locked<'a> {
    device: &'a Device,
    state: MutexGuard<'a, State>,
}

impl Locked<'_> {
    /// Forgets the guest, and keeps away from its rings until they are set up again: their memory
    /// may be in other use by now.
    fn stop(&mut self) {
        self.reset();
        for ring in self.state.rings.iter().flatten() {
            ring.stop();
        }
    }

    /// Forgets the guest.
    fn reset(&mut self) {
        let state = &mut *self.state;
        state.model.forget(&mut state.effects);
        state.model.reset_bus(&mut state.effects);
        state.outbox = Outbox::default();
        state.held = [0; 2];
        state.ready.iter_mut().for_each(Vec::clear);
        state.broken = [false; 2];
        if let Some(office) = &mut state.office {
            office.release();
        }
        if self.state.paused.is_none() {
            self.carry_unsure();
        }
        self.settle();
    }

    /// Finds out whether a stopped guest was only paused, and takes up where it was if so.
    fn resume(&mut self) {
        self.state.broken = [false; 2];
        let Some(paused) = self.state.paused.take() else {
            return;
        };
        let now = self.state.rings.as_ref().map(|[ring, _]| ring.position());
        // A fresh ring starts at zero, and a used one may have come round to it.
        if now == Some(paused.position) && !paused.position.is_start() {
            let state = &mut *self.state;
            state.model.restore(paused.forgotten, &mut state.effects);
            state.outbox = paused.outbox;
            state.held = paused.held;
            if let Some(office) = &self.state.office {
                office.ring();
            }
            self.visit(format_args!("guest resumed"));
        } else {
            let state = &mut *self.state;
            state.model.reset_bus(&mut state.effects);
            if let Some(office) = &mut state.office {
                office.release();
            }
        }
        self.carry_unsure();
    }

    /// Counts what the rings have noticed by themselves.
    fn count_disabled(&mut self) {
        let state = &mut *self.state;
        for (queue, ring) in state.rings.iter().flatten().enumerate() {
            state.stats.queue(queue).disabled += ring.take_disabled();
        }
    }

    /// Logs who comes and goes.
    fn visit(&mut self, what: std::fmt::Arguments<'_>) {
        let label = &self.device.description.label;
        self.state.visits.log(Level::Info, label, what);
    }

    /// Carries out what is in a queue. Returns whether there may be more. The guest notifies us of
    /// what it adds afterwards, unless someone looks for it.
    fn drain(&mut self, queue: usize, first: bool) -> bool {
        if self.state.broken[queue] || self.state.paused.is_some() {
            return false;
        }
        let Some(rings) = self.state.rings.clone() else {
            return false;
        };
        let result = self.drain_ring(queue, &rings[queue], first);
        self.state.outbox.end_of_batch();
        self.settle();
        let looks = self.state.poll.is_on();
        match result.and_then(|()| {
            if looks {
                Ok(false)
            } else {
                rings[queue].listen()
            }
        }) {
            Ok(more) => more,
            Err(e) => {
                self.give_up(queue, &e);
                false
            }
        }
    }

    /// Takes the chains there are by now: the guest may add some all the time.
    fn drain_ring(&mut self, queue: usize, ring: &Ring, first: bool) -> Result<(), Error> {
        ring.quiet()?;
        let held = self.state.held[queue];
        let result;
        if queue == REQUEST_QUEUE {
            let names = self.device.description.names.block().len();
            let mut chains = std::mem::take(&mut self.state.requests);
            result = ring.pop(held, RESPONSE_SIZE.max(1 + names), &mut chains);
            self.count(queue, chains.len(), first);
            if !chains.is_empty() {
                self.state.poll.found(Instant::now);
            }
            for chain in chains.drain(..) {
                self.request(chain);
                self.dispatch();
            }
            self.state.requests = chains;
        } else {
            let mut chains = std::mem::take(&mut self.state.buffers);
            result = ring.pop(held, EVENT_RESPONSE_SIZE, &mut chains);
            self.count(queue, chains.len(), first);
            for chain in chains.drain(..) {
                self.event_buffer(chain);
                self.dispatch();
            }
            self.state.buffers = chains;
        }
        result
    }

    /// Counts chains that were taken, in the first batch after a notification or in a later one.
    fn count(&mut self, queue: usize, chains: usize, first: bool) {
        // There are no more than the ring has entries.
        self.state.held[queue] += chains as u16;
        let stats = self.state.stats.queue(queue);
        stats.chains += chains as u64;
        stats.batches += u64::from(first && chains > 0);
    }

    /// Leaves a queue alone until it is set up again.
    fn give_up(&mut self, queue: usize, why: &dyn std::fmt::Display) {
        self.state.broken[queue] = true;
        let label = &self.device.description.label;
        self.state.limit.log(
            Level::Error,
            label,
            format_args!(
                "queue {queue} is invalid, ignored until the driver sets it up again: {why}"
            ),
        );
    }

    fn malformed(&mut self, queue: usize, head: u16) {
        self.state.stats.queue(queue).malformed += 1;
        let label = &self.device.description.label;
        self.state.limit.warn(
            label,
            format_args!("queue {queue}: chain {head} is not a message"),
        );
    }

    /// Carries out one request.
    fn request(&mut self, chain: Chain<REQUEST_SIZE>) {
        let request = chain.request.map(Request::from_bytes);
        let message = request.and_then(|request| Message::from_wire(request.kind));
        let names = &self.device.description.names;
        let size = match message {
            Some(Message::GetLineNames) => 1 + names.block().len(),
            _ => RESPONSE_SIZE,
        }
        .max(RESPONSE_SIZE);

        let mut completion = Completion {
            queue: REQUEST_QUEUE,
            line: request.map_or(0, |request| request.line),
            head: chain.head,
            pieces: chain.writable,
            capacity: chain.capacity,
            bytes: SmallVec::from_elem(0, size),
            used: None,
        };
        let Some(request) = request.filter(|_| chain.capacity as usize >= size) else {
            self.malformed(REQUEST_QUEUE, chain.head);
            completion.bytes[0] = STATUS_ERR;
            self.state.stats.answered_err += 1;
            self.hand_back(completion);
            return;
        };
        self.state.stats.requests.count(message);
        let verdict = self.state.faults.on_request(message, request.line);
        if verdict.silent {
            self.complete(completion, verdict);
            return;
        }

        let office = self.state.office.as_ref();
        if let Some(office) = office.filter(|it| it.has(request.line)) {
            if let Some(message) = message.filter(|it| *it != Message::GetLineNames) {
                return office.carry(message, request, completion, verdict);
            }
        }

        let value = match (message, verdict.status) {
            (None, _) | (_, Some(_)) => None,
            (Some(Message::GetLineNames), _) => {
                let block = names.block();
                (!block.is_empty()).then(|| {
                    completion.bytes[1..].copy_from_slice(block);
                    block[0]
                })
            }
            (Some(message), _) => self.carry_out(message, request),
        };
        self.answer(completion, verdict, value);
    }

    /// Carries out a request about one line. `None` means that it is refused.
    fn carry_out(&mut self, message: Message, request: Request) -> Option<u8> {
        let Request { line, value, .. } = request;
        let state = &mut *self.state;
        state
            .model
            .request(message, line, value, state.rules, &mut state.effects)
    }

    /// Answers a request with this value, or with an error.
    fn answer(&mut self, mut completion: Completion, verdict: Verdict, value: Option<u8>) {
        completion.bytes[0] = match value {
            Some(_) => STATUS_OK,
            None => verdict.status.unwrap_or(STATUS_ERR),
        };
        completion.bytes[1] = verdict.value.or(value).unwrap_or(0);
        if value.is_some() {
            self.state.stats.answered_ok += 1;
        } else {
            self.state.stats.answered_err += 1;
        }
        self.complete(completion, verdict);
    }

    /// Takes one chain of the event queue.
    fn event_buffer(&mut self, chain: Chain<EVENT_REQUEST_SIZE>) {
        let line = chain.request.map(u16::from_le_bytes);
        let line = line.filter(|_| chain.capacity as usize >= EVENT_RESPONSE_SIZE);
        let buffer = EventBuffer {
            head: chain.head,
            pieces: chain.writable,
            capacity: chain.capacity,
        };
        let Some(line) = line else {
            self.malformed(EVENT_QUEUE, chain.head);
            self.hand_back(event(0, buffer, EVENT_INVALID));
            return;
        };
        if self.state.faults.refuses_buffer(line) {
            self.state.stats.faults += 1;
            self.state.stats.events_invalid += 1;
            self.hand_back(event(line, buffer, EVENT_INVALID));
            return;
        }
        let state = &mut *self.state;
        state.model.arm(line, buffer, &mut state.effects);
    }

    fn set_host(&mut self, line: u16, level: bool) {
        let state = &mut *self.state;
        state.stats.host_changes += 1;
        state.model.set_host(line, level, &mut state.effects);
        self.dispatch();
    }

    /// Passes on what the model brought about, and hands back what is ready.
    fn settle(&mut self) {
        self.dispatch();
        self.flush();
        if self.state.outbox.next_due().is_some() {
            self.device.wake.notify_one();
        }
    }

    /// Passes on what the model brought about.
    fn dispatch(&mut self) {
        self.dispatch_at(None);
    }

    /// The same, for what has happened at a time that is known, by the monotonic clock.
    fn dispatch_at(&mut self, time: Option<u64>) {
        if self.state.effects.is_empty() {
            return;
        }
        let mut effects = std::mem::take(&mut self.state.effects);
        self.carry_changes(&mut effects);
        self.state.stats.edges_latched += std::mem::take(&mut effects.latched);
        self.state.stats.edges_merged += std::mem::take(&mut effects.merged);
        for returned in effects.returned.drain(..) {
            let verdict = self.state.faults.on_event(returned.line, returned.valid);
            let status = if returned.valid {
                self.state.stats.events_valid += 1;
                EVENT_VALID
            } else {
                self.state.stats.events_invalid += 1;
                EVENT_INVALID
            };
            let status = verdict.status.unwrap_or(status);
            self.complete(event(returned.line, returned.buffer, status), verdict);
        }
        self.report(&effects, time);
        effects.changes.clear();
        self.state.effects = effects;
    }

    /// Tells the observers.
    fn report(&mut self, effects: &Effects<EventBuffer>, time: Option<u64>) {
        if self.state.watchers.is_empty() || effects.changes.is_empty() {
            return;
        }
        let time = time.unwrap_or_else(|| {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
        });
        for &(line, change) in &effects.changes {
            self.state.watchers.tell(time, line, change);
        }
    }

    /// Hands a chain back the way that the faults want it.
    fn complete(&mut self, mut completion: Completion, verdict: Verdict) {
        if verdict != Verdict::default() {
            self.state.stats.faults += 1;
        }
        if verdict.disconnect {
            if let Some(hang_up) = &self.state.connection {
                hang_up();
            }
        }
        if verdict.silent {
            return;
        }
        if verdict.stale || verdict.used_len.is_some() {
            let capacity = completion.capacity;
            let written = capacity.min(completion.bytes.len() as u32);
            let lie = verdict.used_len.map(|len| len.of(written, capacity));
            completion.used = Some(lie.unwrap_or(written));
            if verdict.stale {
                completion.bytes.clear();
            }
        }
        let Verdict { delay, reorder, .. } = verdict;
        let outbox = &mut self.state.outbox;
        if let Some(completion) = outbox.submit(completion, delay, reorder, Instant::now) {
            self.hand_back(completion);
        }
    }

    /// Hands a chain back with the others that are ready.
    fn hand_back(&mut self, completion: Completion) {
        self.state.ready[completion.queue].push(completion);
    }

    /// Hands back what is ready, or as soon as its ring runs, with at most one interrupt per queue.
    fn flush(&mut self) {
        for queue in [REQUEST_QUEUE, EVENT_QUEUE] {
            if self.state.ready[queue].is_empty() {
                continue;
            }
            let state = &mut *self.state;
            let ready = &mut state.ready[queue];
            let Some(rings) = &state.rings else {
                ready.clear();
                continue;
            };
            let handed = match rings[queue].push(ready) {
                Ok(Some(handed)) => handed,
                Ok(None) => {
                    state.stats.late += ready.len() as u64;
                    ready.drain(..).for_each(|it| state.outbox.stall(it));
                    continue;
                }
                Err(e) => {
                    self.give_up(queue, &e);
                    continue;
                }
            };
            state.held[queue] -= handed.returned + handed.beyond;
            let stats = state.stats.queue(queue);
            stats.returned += u64::from(handed.returned);
            let label = &self.device.description.label;
            if handed.beyond > 0 {
                let count = handed.beyond;
                state.limit.warn(
                    label,
                    format_args!("queue {queue}: {count} chains are beyond the ring"),
                );
            }
            match handed.signal {
                Ok(sent) => stats.signals += u64::from(sent),
                Err(e) => state.limit.warn(
                    label,
                    format_args!("queue {queue}: cannot interrupt the guest: {e}"),
                ),
            }
        }
    }
}

/// An event buffer with its answer.
fn event(line: u16, buffer: EventBuffer, status: u8) -> Completion {
    Completion {
        queue: EVENT_QUEUE,
        line,
        head: buffer.head,
        pieces: buffer.pieces,
        capacity: buffer.capacity,
        bytes: SmallVec::from_slice(&[status]),
        used: None,
    }
}

impl Description {
    /// The config space.
    pub fn config(&self) -> [u8; wire::CONFIG_SIZE] {
        wire::config(self.lines, self.names.block().len() as u32)
    }
}
