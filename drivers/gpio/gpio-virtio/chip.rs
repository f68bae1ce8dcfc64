// SPDX-License-Identifier: GPL-2.0

//! The operations of `struct gpio_chip` and `struct irq_chip`, and the requests that they send.

use kernel::{
    bitmap::Bitmap,
    gpio::{
        self,
        virtio_trace,
        FlowHandler,
        IrqDomain,
        LineDirection, //
    },
    irq::TriggerType,
    prelude::*,
    sync::Arc,
    uapi,
    virtio::{
        Answer,
        Scope, //
    }, //
};

use crate::{
    irq_line,
    lines::Line,
    wire::{
        Direction,
        Request,
        Response, //
    },
    VirtioGpio, //
};

/// What gpiolib and genirq call.
pub(crate) struct GpioChip(pub(crate) Arc<VirtioGpio>);

/// Converts an offset, which gpiolib has checked against the number of lines.
fn line(offset: u32) -> u16 {
    // CAST: So it fits.
    offset as u16
}

impl VirtioGpio {
    /// Accesses the state of a line.
    pub(crate) fn update<R>(&self, line: u16, f: impl FnOnce(&mut Line) -> R) -> R {
        self.lines.with(|lines| f(lines.get(line)))
    }

    /// Decodes the answer to a request, and notes what the device has said or accepted.
    ///
    /// Runs under the lock of the requestq: a reset of the device either comes before that, and the
    /// request fails, or after it, and the change is replayed.
    fn answered(&self, request: &Request, answer: Result<Answer<Response>>) -> Result<u8> {
        let answer = answer?;
        let value = request.answer(&answer.response, answer.written)?;

        // Not for the one that is sent most.
        if request.kind() != uapi::VIRTIO_GPIO_MSG_GET_VALUE {
            self.update(request.line(), |state| state.note(request, value));
        }
        Ok(value)
    }

    /// Traces a request that is about to be sent, and returns it.
    pub(crate) fn traced(&self, request: Request) -> Request {
        let (line, kind) = (request.line(), request.kind());

        virtio_trace::request(self.vdev.as_ref(), line, kind, request.value());
        request
    }

    /// Sends requests and waits for the answers. Hands the values in them to `each`.
    ///
    /// # Errors
    ///
    /// For the first request that failed:
    ///
    /// - `EIO` if the device refuses it,
    /// - `EPROTO` if the answer is none,
    /// - `ETIMEDOUT`, `EINTR` or `ENODEV` as in [`Requests`](kernel::virtio::Requests).
    pub(crate) fn request_all(
        self: &Arc<Self>,
        scope: Scope,
        next: &mut (dyn FnMut() -> Option<Request> + Send),
        each: &mut (dyn FnMut(u16, u8) + Send),
    ) -> Result {
        let since = virtio_trace::response_since();
        let mut ret = Ok(());
        let requests = core::iter::from_fn(|| Some(self.traced(next()?)));
        let sent = (self.requests).call_all(scope, requests, |request, answer| {
            let (line, kind) = (request.line(), request.kind());
            let value = self.answered(&request, answer);

            virtio_trace::response(self.vdev.as_ref(), line, kind, value, since);
            match value {
                Ok(value) => each(line, value),
                Err(err) => ret = ret.and(Err(err)),
            }
        });

        // It may have failed because the device needs a reset.
        sent.and(ret).inspect_err(|_| self.check_queue())
    }
}

impl GpioChip {
    fn request_all(&self, mut requests: impl Iterator<Item = Request> + Send) -> Result {
        (self.0).request_all(Scope::Any, &mut || requests.next(), &mut |_, _| ())
    }

    /// Deactivates a line that neither gpiolib nor genirq uses any more.
    ///
    /// Does not wait for the answer: a release may run when a killed task exits, which no signal
    /// interrupts.
    fn release(&self, offset: u32, release: impl FnOnce(&mut Line)) {
        let line = line(offset);
        let is_used = self.0.update(line, |state| {
            release(state);
            state.is_used()
        });

        if !is_used {
            // A consumer that has the line by then relies on its direction.
            self.post_direction(line, Line::deactivate);
        }
    }

    /// Tells the device of a direction, if `change` sets one and returns `true`.
    fn post_direction(&self, line: u16, change: impl FnOnce(&mut Line) -> bool + Send) {
        let request = || {
            self.0.update(line, |state| {
                change(state).then(|| self.0.traced(Request::set_direction(line, state.direction)))
            })
        };

        // The callers have no use for an error, but it may be that the device needs a reset.
        let _ = (self.0.requests.post(Scope::Any, request)).inspect_err(|_| self.0.check_queue());
    }
}

#[vtable]
impl gpio::Chip for GpioChip {
    fn request(&self, offset: u32) -> Result {
        self.0.update(line(offset), |state| state.requested = true);
        Ok(())
    }

    fn free(&self, offset: u32) {
        self.release(offset, |state| state.requested = false);
    }

    fn get_direction(&self, offset: u32) -> Result<LineDirection> {
        // A line that is not in use drives nothing.
        match self.0.update(line(offset), |state| state.direction) {
            Direction::Out => Ok(LineDirection::Out),
            Direction::In | Direction::None => Ok(LineDirection::In),
        }
    }

    fn direction_input(&self, offset: u32) -> Result {
        self.request_all([Request::set_direction(line(offset), Direction::In)].into_iter())
    }

    fn direction_output(&self, offset: u32, value: bool) -> Result {
        let line = line(offset);
        let (before, irq_requested) =
            (self.0).update(line, |state| (state.direction, state.irq_requested));

        if irq_requested {
            // An open drain, which gpiolib lets through, or an interrupt that is masked.
            return Err(EBUSY);
        }

        // The value first, so that the line does not start with another one.
        let requests = [
            Request::set_value(line, value),
            Request::set_direction(line, Direction::Out),
        ];

        self.request_all(requests.into_iter()).inspect_err(|_| {
            // The device may have refused the value only, and drive another one.
            self.post_direction(line, |state| {
                state.direction = before;
                true
            });
        })
    }

    fn get(&self, offset: u32) -> Result<bool> {
        let mut request = Some(Request::get_value(line(offset)));
        let mut ret = false;

        (self.0).request_all(Scope::Any, &mut || request.take(), &mut |_, v| ret = v != 0)?;
        Ok(ret)
    }

    fn get_multiple(&self, mask: &Bitmap, bits: &mut Bitmap) -> Result {
        let mut requests = set_bits(mask).map(Request::get_value);
        // All are clear.
        let mut each = |line: u16, value| {
            if value != 0 {
                bits.set_bit(line.into());
            }
        };

        (self.0).request_all(Scope::Any, &mut || requests.next(), &mut each)
    }

    fn set(&self, offset: u32, value: bool) -> Result {
        self.request_all([Request::set_value(line(offset), value)].into_iter())
    }

    fn set_multiple(&self, mask: &Bitmap, bits: &Bitmap) -> Result {
        let is_set = |line: u16| bits.next_bit(line.into()) == Some(line.into());

        self.request_all(set_bits(mask).map(|line| Request::set_value(line, is_set(line))))
    }
}

/// Returns the lines whose bits are set.
fn set_bits(mask: &Bitmap) -> impl Iterator<Item = u16> + Send + '_ {
    let mut next = 0;

    core::iter::from_fn(move || {
        let index = mask.next_bit(next)?;

        next = index + 1;
        // CAST: Lines number from 0 to 65534.
        Some(index as u16)
    })
}

#[vtable]
impl gpio::IrqChip for GpioChip {
    const HANDLER: FlowHandler = FlowHandler::Level;

    fn irq_domain(&self) -> &IrqDomain {
        &self.0.domain
    }

    fn irq_request_resources(&self, offset: u32) -> Result {
        let (direction, requested) = self.0.update(line(offset), |state| {
            state.irq_requested = true;
            (state.direction, state.requested)
        });

        let ret = self.0.allocate_events().and_then(|()| match direction {
            Direction::In => Ok(()),
            // An open drain, which gpiolib lets through. Its consumer drives it low.
            Direction::Out if requested => Err(EBUSY),
            // A consumer of nothing but the interrupt has not made it an input.
            _ => gpio::Chip::direction_input(self, offset),
        });

        ret.inspect_err(|_| self.irq_release_resources(offset))
    }

    fn irq_release_resources(&self, offset: u32) {
        self.release(offset, |state| state.irq_requested = false);
    }

    fn irq_startup(&self, offset: u32) {
        self.0.step(line(offset), &mut irq_line::Line::startup);
    }

    fn irq_shutdown(&self, offset: u32) {
        self.0.step(line(offset), &mut irq_line::Line::shutdown);
    }

    fn irq_mask(&self, offset: u32) {
        self.0.update(line(offset), |state| state.irq.mask());
    }

    fn irq_unmask(&self, offset: u32) {
        self.0.step(line(offset), &mut irq_line::Line::unmask);
    }

    fn irq_set_type(&self, offset: u32, trigger: TriggerType) -> Result {
        if trigger == TriggerType::None {
            return Err(EINVAL);
        }
        self.0.step(line(offset), &mut |irq| irq.set_type(trigger));
        Ok(())
    }

    fn irq_set_wake(&self, offset: u32, on: bool) {
        self.0.update(line(offset), |state| state.irq.wakes = on);
    }

    fn irq_bus_lock(&self, offset: u32) {
        self.0.update(line(offset), |state| state.bus_locked = true);
    }

    fn irq_bus_sync_unlock(&self, offset: u32) {
        self.0.bus_sync_unlock(line(offset));
    }
}
