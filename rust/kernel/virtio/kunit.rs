// SPDX-License-Identifier: GPL-2.0

//! Tests of the bus abstraction: several drivers are bound to a device without queues, and a queue
//! is open without a driver, also one of requests that are answered while the device is notified.

use super::{
    queue::Operations,
    *, //
};
use crate::{
    container_of,
    device::Core,
    device_id::IdArray,
    driver::Registration,
    page::PAGE_SIZE,
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
    workqueue, //
};
use core::{
    pin::Pin,
    ptr, //
};

/// No device has this type, and no other driver is for it.
const ID: u32 = 0xff01;

/// The binding of the last probe, by `Arc::into_raw()`.
static KEPT: Atomic<*mut Binding> = Atomic::new(ptr::null_mut());

/// The last result that a driver has noted.
static NOTED: Atomic<i32> = Atomic::new(0);

const TABLE: IdArray<DeviceId, (), 1> = IdArray::new_without_index([(DeviceId::new(ID), ())]);

static MODULE: ThisModule = {
    // SAFETY: This is built in, where `THIS_MODULE` is NULL.
    unsafe { ThisModule::from_ptr(ptr::null_mut()) }
};

/// Takes the binding that was kept.
fn kept() -> Option<Arc<Binding>> {
    let binding = KEPT.xchg(ptr::null_mut(), Full);

    // SAFETY: If it is not NULL, `keep()` has stored it, and the exchange took it out.
    (!binding.is_null()).then(|| unsafe { Arc::from_raw(binding) })
}

/// Keeps a binding for the test.
fn keep(dev: &Device<Core<'_>>) {
    drop(kept());
    KEPT.store(Arc::into_raw(dev.binding()).cast_mut(), Relaxed);
}

/// Notes the result of a call.
fn note<T>(ret: Result<T>) {
    NOTED.store(ret.map_or_else(|err| err.to_errno(), |_| 1), Relaxed);
}

/// A driver that supports neither suspends nor resets. One of several for the same device.
struct Plain<const N: usize>;

#[vtable]
impl<const N: usize> Driver for Plain<N> {
    type Data<'bound> = Self;

    const ID_TABLE: IdTable = &TABLE;
    const FEATURES: &'static [Feature] = &[];

    fn probe<'bound>(
        dev: &'bound Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        keep(dev);
        // The lock of the device is held.
        note(dev.binding().try_lock(|_| ()));
        Ok(Self)
    }
}

/// A driver that supports resets.
struct Resettable;

#[vtable]
impl Driver for Resettable {
    type Data<'bound> = Self;

    const ID_TABLE: IdTable = &TABLE;
    const FEATURES: &'static [Feature] = &[];

    fn probe<'bound>(
        dev: &'bound Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        keep(dev);
        Ok(Self)
    }

    fn restore<'bound>(_dev: &'bound Device<Core<'_>>, _this: Pin<&Self::Data<'bound>>) -> Result {
        note(Ok(()));
        Ok(())
    }
}

/// A driver that looks for queues more than once.
struct Insistent;

struct NoQueues;

impl Queues for NoQueues {
    fn queue(&self, _index: usize) -> Option<AnyQueue<'_>> {
        None
    }

    fn callback(&self, _index: usize) {}
}

#[vtable]
impl Driver for Insistent {
    type Data<'bound> = Self;

    const ID_TABLE: IdTable = &TABLE;
    const FEATURES: &'static [Feature] = &[];

    fn probe<'bound>(
        dev: &'bound Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        // The transport fails the first call, which resets the device.
        let _ = dev.find_vqs(Arc::new(NoQueues, GFP_KERNEL)?);
        dev.ready();
        note(dev.find_vqs(Arc::new(NoQueues, GFP_KERNEL)?));
        Ok(Self)
    }
}

/// A driver that looks for queues too late.
struct Late;

#[vtable]
impl Driver for Late {
    type Data<'bound> = Self;

    const ID_TABLE: IdTable = &TABLE;
    const FEATURES: &'static [Feature] = &[];

    fn probe<'bound>(
        _dev: &'bound Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        Ok(Self)
    }

    fn unbind<'bound>(dev: &'bound Device<Core<'_>>, _this: Pin<&Self::Data<'bound>>) {
        note(
            Arc::new(NoQueues, GFP_KERNEL)
                .map_or_else(|err| Err(err.into()), |owner| dev.find_vqs(owner)),
        );
    }
}

/// A driver that reads two fields of the configuration space.
struct Reader;

#[vtable]
impl Driver for Reader {
    type Data<'bound> = Self;

    const ID_TABLE: IdTable = &TABLE;
    const FEATURES: &'static [Feature] = &[];

    fn probe<'bound>(
        dev: &'bound Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        assert_eq_or_note(dev.read_config(|config| config.read::<u32>(2)), EINVAL);
        assert_eq_or_note(dev.read_config(|config| config.read::<u32>(256)), EINVAL);

        match dev.read_config(|config| Ok((config.read::<u32>(0)?, config.read::<u32>(4)?))) {
            Ok((low, high)) if low == high => NOTED.store(low as i32, Relaxed),
            Ok(_) => NOTED.store(-1, Relaxed),
            Err(err) => NOTED.store(err.to_errno(), Relaxed),
        }
        Ok(Self)
    }
}

/// Logs an unexpected result, and notes it for the test.
fn assert_eq_or_note(ret: Result<u32>, expected: Error) {
    if ret != Err(expected) {
        pr_err!("{:?} in place of {:?}\n", ret, expected);
        NOTED.store(-2, Relaxed);
    }
}

/// A fake device and its transport.
#[repr(C)]
struct Fake {
    vdev: Opaque<bindings::virtio_device>,
    status: Atomic<i32>,
    generation: Atomic<i32>,
    /// The number of changes of the configuration left to happen during reads.
    changes: Atomic<i32>,
}

impl Fake {
    /// # Safety
    ///
    /// `vdev` must be that of a `Fake` that lives during `'a`.
    unsafe fn from_raw<'a>(vdev: *mut bindings::virtio_device) -> &'a Self {
        // SAFETY: By the requirements; it is the first field of a `repr(C)` type.
        unsafe { &*vdev.cast() }
    }

    /// # Safety
    ///
    /// Only for the virtio core, which passes a device with this transport.
    unsafe extern "C" fn get(
        vdev: *mut bindings::virtio_device,
        _offset: c_uint,
        to: *mut c_void,
        len: c_uint,
    ) {
        // SAFETY: The core passes a device with this transport.
        let fake = unsafe { Self::from_raw(vdev) };
        let value = fake.generation.load(Relaxed).to_le();

        if fake.changes.load(Relaxed) > 0 {
            fake.changes.fetch_add(-1, Relaxed);
            fake.generation.fetch_add(1, Relaxed);
        }
        // SAFETY: The caller has room for `len` bytes. The test reads four at a time.
        unsafe {
            ptr::copy_nonoverlapping(
                (&raw const value).cast(),
                to.cast::<u8>(),
                len.min(4) as usize,
            )
        };
    }

    /// # Safety
    ///
    /// Only for the virtio core, which passes a device with this transport.
    unsafe extern "C" fn generation(vdev: *mut bindings::virtio_device) -> u32 {
        // SAFETY: The core passes a device with this transport.
        unsafe { Self::from_raw(vdev) }.generation.load(Relaxed) as u32
    }

    /// # Safety
    ///
    /// Only for the virtio core, which passes a device with this transport.
    unsafe extern "C" fn get_status(vdev: *mut bindings::virtio_device) -> u8 {
        // SAFETY: The core passes a device with this transport.
        unsafe { Self::from_raw(vdev) }.status.load(Relaxed) as u8
    }

    /// # Safety
    ///
    /// Only for the virtio core, which passes a device with this transport.
    unsafe extern "C" fn set_status(vdev: *mut bindings::virtio_device, status: u8) {
        // SAFETY: The core passes a device with this transport.
        unsafe { Self::from_raw(vdev) }
            .status
            .store(status.into(), Relaxed);
    }

    /// # Safety
    ///
    /// Only for the virtio core, which passes a device with this transport.
    unsafe extern "C" fn reset(vdev: *mut bindings::virtio_device) {
        // SAFETY: The core passes a device with this transport.
        unsafe { Self::from_raw(vdev) }.status.store(0, Relaxed);
    }

    /// # Safety
    ///
    /// Only for the virtio core, which passes a device with this transport.
    unsafe extern "C" fn find_vqs(
        _vdev: *mut bindings::virtio_device,
        _count: c_uint,
        _vqs: *mut *mut bindings::virtqueue,
        _infos: *mut bindings::virtqueue_info,
        _affinity: *mut bindings::irq_affinity,
    ) -> c_int {
        EIO.to_errno()
    }

    /// # Safety
    ///
    /// Only for the virtio core, which passes a device with this transport.
    unsafe extern "C" fn get_features(_vdev: *mut bindings::virtio_device) -> u64 {
        1 << bindings::VIRTIO_F_VERSION_1
    }

    /// # Safety
    ///
    /// Only for the virtio core, which passes a device with this transport.
    unsafe extern "C" fn finalize_features(_vdev: *mut bindings::virtio_device) -> c_int {
        0
    }

    /// # Safety
    ///
    /// Only for the virtio core, which passes a device with this transport.
    unsafe extern "C" fn release(dev: *mut bindings::device) {
        // SAFETY: The core passes the device of a `Fake`.
        let vdev = unsafe { container_of!(dev, bindings::virtio_device, dev) };

        // SAFETY: It was made by `plug()`, and this was the last reference.
        drop(unsafe { KBox::from_raw(vdev.cast::<Self>()) });
    }

    /// Registers a device that changes its configuration `changes` times during reads.
    fn plug(changes: i32) -> Result<Plugged> {
        let fake = KBox::new(
            Self {
                vdev: Opaque::new(pin_init::zeroed()),
                status: Atomic::new(0),
                generation: Atomic::new(0),
                changes: Atomic::new(changes),
            },
            GFP_KERNEL,
        )?;
        let vdev = KBox::into_raw(fake).cast::<bindings::virtio_device>();

        // SAFETY: `vdev` was just allocated, and is zeroed, as the core requires.
        unsafe {
            (*vdev).id.device = ID;
            (*vdev).config = &OPS;
            (*vdev).dev.release = Some(Self::release);
        }
        // SAFETY: `vdev` is valid. On failure its last reference is dropped.
        to_result(unsafe { bindings::register_virtio_device(vdev) }).inspect_err(|_| {
            // SAFETY: As above.
            unsafe { bindings::put_device(&raw mut (*vdev).dev) }
        })?;
        Ok(Plugged(vdev))
    }
}

static OPS: bindings::virtio_config_ops = bindings::virtio_config_ops {
    get: Some(Fake::get),
    generation: Some(Fake::generation),
    get_status: Some(Fake::get_status),
    set_status: Some(Fake::set_status),
    reset: Some(Fake::reset),
    find_vqs: Some(Fake::find_vqs),
    get_features: Some(Fake::get_features),
    finalize_features: Some(Fake::finalize_features),
    ..pin_init::zeroed()
};

/// A registered device.
struct Plugged(*mut bindings::virtio_device);

impl Plugged {
    fn reset_prepare(&self) -> Result {
        // SAFETY: The device is registered until the value is dropped.
        to_result(unsafe { bindings::virtio_device_reset_prepare(self.0) })
    }

    fn reset_done(&self) -> Result {
        // SAFETY: As above.
        to_result(unsafe { bindings::virtio_device_reset_done(self.0) })
    }

    /// Leaves a stale `priv`, as a driver in C may.
    fn set_priv(&self, value: usize) {
        // SAFETY: The device is registered until the value is dropped, and has no driver.
        unsafe { (*self.0).priv_ = value as *mut c_void };
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        // SAFETY: The device was registered by `plug()`.
        unsafe { bindings::unregister_virtio_device(self.0) };
    }
}

/// Takes two descriptors.
type Byte = Message<u8, u8>;

/// How often the core has notified [`Ring`] by itself.
static NOTIFIED: Atomic<i32> = Atomic::new(0);

/// A virtqueue of a device that has no driver.
struct Ring {
    vq: ptr::NonNull<bindings::virtqueue>,
    pages: usize,
}

impl Ring {
    const DESCRIPTORS: c_uint = 4;

    /// The ring needs two pages, as the part of the device is on one of its own.
    const ORDER: c_uint = 1;

    /// Constructs a virtqueue with the operation that notifies the device, and with a callback.
    fn new(
        device: &Plugged,
        notify: unsafe extern "C" fn(*mut bindings::virtqueue) -> bool,
        callback: bindings::vq_callback_t,
    ) -> Result<Self> {
        let flags = (GFP_KERNEL | __GFP_ZERO).as_raw();
        // SAFETY: There are no requirements.
        let pages = unsafe { bindings::get_free_pages_noprof(flags, Self::ORDER) };

        if pages == 0 {
            return Err(ENOMEM);
        }
        NOTIFIED.store(0, Relaxed);
        // SAFETY: The device is registered, and the pages have room for the ring.
        let vq = unsafe {
            bindings::vring_new_virtqueue(
                0,
                Self::DESCRIPTORS,
                PAGE_SIZE as c_uint,
                device.0,
                true,
                true,
                pages as *mut c_void,
                Some(notify),
                callback,
                c"rust-kunit".as_char_ptr(),
            )
        };

        ptr::NonNull::new(vq)
            .map(|vq| Self { vq, pages })
            .ok_or_else(|| {
                // SAFETY: They were just allocated, and nothing uses them.
                unsafe { bindings::free_pages(pages, Self::ORDER) };
                ENOMEM
            })
    }

    /// # Safety
    ///
    /// Only for the virtio core.
    unsafe extern "C" fn notify(_vq: *mut bindings::virtqueue) -> bool {
        NOTIFIED.fetch_add(1, Relaxed);
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: No queue has the virtqueue open any more, and there is no device behind it.
        unsafe {
            bindings::vring_del_virtqueue(self.vq.as_ptr());
            bindings::free_pages(self.pages, Self::ORDER);
        }
    }
}

/// Requests, and a device that answers them while it is notified.
#[pin_data(PinnedDrop)]
struct Oracle {
    #[pin]
    requests: Requests<u8, u8>,
    ring: Ring,
    /// How many requests the device was notified of.
    seen: Atomic<i32>,
    /// The next notification sends a request, before it answers what it is for.
    asks: Atomic<i32>,
    /// The result of that.
    asked: Atomic<i32>,
    /// Nothing is answered.
    silent: Atomic<bool>,
    interrupts: Atomic<i32>,
}

// The device has no features, so the ring has the byte order of the processor.
impl Oracle {
    fn new(device: &Plugged, poll: Delta) -> Result<Pin<KBox<Self>>> {
        let options = Options {
            slots: 2,
            timeout_ms: 1000,
            poll,
        };
        let this = KBox::try_pin_init(
            try_pin_init!(Self {
                requests <- Requests::new(c"rust-kunit", 0, options, crate::static_lock_class!()),
                ring: Ring::new(device, Self::notify, Some(Self::callback))?,
                seen: Atomic::new(0),
                asks: Atomic::new(0),
                asked: Atomic::new(0),
                silent: Atomic::new(false),
                interrupts: Atomic::new(0),
            }? Error),
            GFP_KERNEL,
        )?;

        // SAFETY: The virtqueue is new, and nothing else uses it until `reclaim()`.
        unsafe {
            (*this.ring.vq.as_ptr()).priv_ = ptr::from_ref(&*this).cast_mut().cast();
            this.requests.as_any().0.open(this.ring.vq)?;
        }
        this.requests.as_any().0.set_ready();
        this.requests.start()?;
        Ok(this)
    }

    /// # Safety
    ///
    /// `vq` must be that of an `Oracle`, which lives during `'a`.
    unsafe fn from_vq<'a>(vq: *mut bindings::virtqueue) -> &'a Self {
        // SAFETY: `new()` has set the field.
        unsafe { &*(*vq).priv_.cast() }
    }

    /// # Safety
    ///
    /// Only for the virtio core.
    unsafe extern "C" fn callback(vq: *mut bindings::virtqueue) {
        // SAFETY: By the requirements: it is called by `answer()`.
        unsafe { Self::from_vq(vq) }.requests.callback();
    }

    /// # Safety
    ///
    /// Only for the virtio core.
    unsafe extern "C" fn notify(vq: *mut bindings::virtqueue) -> bool {
        // SAFETY: By the requirements: it is called for a request.
        let this = unsafe { Self::from_vq(vq) };
        let available = this.available(1);
        let seen = this.seen.xchg(available.into(), Relaxed);

        if this.asks.xchg(0, Relaxed) != 0 {
            let ret = this.requests.call(0, None);

            this.asked
                .store(ret.map_or_else(Error::to_errno, |_| 1), Relaxed);
        }
        if !this.silent.load(Relaxed) {
            // CAST: It was stored above.
            this.answer(seen as u16..available);
        }
        true
    }

    /// Returns a field of the available ring: its flags, its index, and its entries.
    fn available(&self, field: usize) -> u16 {
        let ring = self.ring.pages + Ring::DESCRIPTORS as usize * size_of::<bindings::vring_desc>();

        // SAFETY: There are so many fields behind the descriptors.
        unsafe { (ring as *const u16).add(field).read_volatile() }
    }

    fn wants_interrupts(&self) -> bool {
        u32::from(self.available(0)) & bindings::VRING_AVAIL_F_NO_INTERRUPT == 0
    }

    /// Answers requests, and interrupts the driver if it wants that.
    fn answer(&self, requests: core::ops::Range<u16>) {
        // It is the part of the device, on a page of its own.
        let index = (self.ring.pages + PAGE_SIZE) as *mut u16;
        let entries = (self.ring.pages + PAGE_SIZE + 4) as *mut u32;
        let place = |number: u16| usize::from(number) % Ring::DESCRIPTORS as usize;

        for number in requests {
            let head = self.available(2 + place(number));

            // SAFETY: The page has room for the index, and for two fields of each entry.
            unsafe {
                let used = index.add(1).read_volatile();
                let entry = entries.add(2 * place(used));

                entry.write_volatile(head.into());
                entry.add(1).write_volatile(1);
                index.add(1).write_volatile(used.wrapping_add(1));
            }
        }

        if self.wants_interrupts() {
            self.interrupts.fetch_add(1, Relaxed);
            // SAFETY: It is the virtqueue that the ring was made for.
            unsafe { bindings::vring_interrupt(0, self.ring.vq.as_ptr().cast()) };
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Oracle {
    fn drop(self: Pin<&mut Self>) {
        let queue = self.requests.as_any().0;

        queue.close();
        // SAFETY: `new()` has opened the queue with it; the device answers no more.
        unsafe { queue.reclaim(self.ring.vq) };
        queue.closed(Closed::Ended);
    }
}

/// A packed virtqueue of a device to which no memory can be mapped.
struct Unmappable(ptr::NonNull<bindings::virtqueue>);

impl Unmappable {
    fn new(device: &Plugged) -> Result<Self> {
        // SAFETY: The device is registered, and has no driver and no other virtqueue.
        let vq = unsafe {
            (*device.0).map = &MAP_OPS;
            (*device.0).__bindgen_anon_1.features |=
                1 << bindings::VIRTIO_F_ACCESS_PLATFORM | 1 << bindings::VIRTIO_F_RING_PACKED;
            bindings::vring_create_virtqueue(
                0,
                Ring::DESCRIPTORS,
                PAGE_SIZE as c_uint,
                device.0,
                true,
                false,
                true,
                Some(Ring::notify),
                None,
                c"rust-kunit".as_char_ptr(),
            )
        };

        ptr::NonNull::new(vq).map(Self).ok_or(ENOMEM)
    }

    /// # Safety
    ///
    /// Only for the virtio core.
    unsafe extern "C" fn alloc(
        _map: bindings::virtio_map,
        _size: usize,
        handle: *mut bindings::dma_addr_t,
        _gfp: bindings::gfp_t,
    ) -> *mut c_void {
        let flags = (GFP_KERNEL | __GFP_ZERO).as_raw();
        // SAFETY: There are no requirements. Each part of the ring fits into a page.
        let page = unsafe { bindings::get_free_pages_noprof(flags, 0) };

        // SAFETY: The core passes a valid pointer.
        unsafe { *handle = page as bindings::dma_addr_t };
        page as *mut c_void
    }

    /// # Safety
    ///
    /// Only for the virtio core, with what [`Self::alloc`] has returned.
    unsafe extern "C" fn free(
        _map: bindings::virtio_map,
        _size: usize,
        page: *mut c_void,
        _handle: bindings::dma_addr_t,
        _attrs: c_ulong,
    ) {
        // SAFETY: By the requirements.
        unsafe { bindings::free_pages(page as usize, 0) };
    }

    /// # Safety
    ///
    /// Only for the virtio core.
    unsafe extern "C" fn map_page(
        _map: bindings::virtio_map,
        _page: *mut bindings::page,
        _offset: c_ulong,
        _size: usize,
        _dir: bindings::dma_data_direction,
        _attrs: c_ulong,
    ) -> bindings::dma_addr_t {
        0
    }

    /// # Safety
    ///
    /// Only for the virtio core.
    unsafe extern "C" fn mapping_error(
        _map: bindings::virtio_map,
        handle: bindings::dma_addr_t,
    ) -> c_int {
        if handle == 0 {
            ENOMEM.to_errno()
        } else {
            0
        }
    }
}

impl Drop for Unmappable {
    fn drop(&mut self) {
        // SAFETY: No queue has the virtqueue open any more, and there is no device behind it.
        unsafe { bindings::vring_del_virtqueue(self.0.as_ptr()) };
    }
}

static MAP_OPS: bindings::virtio_map_ops = bindings::virtio_map_ops {
    alloc: Some(Unmappable::alloc),
    free: Some(Unmappable::free),
    map_page: Some(Unmappable::map_page),
    mapping_error: Some(Unmappable::mapping_error),
    ..pin_init::zeroed()
};

/// Registers a driver, which probes the device if there is one, until the value is dropped.
fn register<T: Driver + 'static>(
    name: &'static CStr,
) -> Result<Pin<KBox<Registration<Adapter<T>>>>> {
    KBox::try_pin_init(Registration::new(name, &MODULE), GFP_KERNEL)
}

#[kunit_tests(rust_kernel_virtio)]
mod tests {
    use super::*;

    #[test]
    fn binding_is_busy_during_probe() -> Result {
        let _device = Fake::plug(0)?;
        let driver = register::<Plain<0>>(c"rust-kunit-0")?;

        drop(driver);
        assert_eq!(NOTED.load(Relaxed), EAGAIN.to_errno());
        Ok(())
    }

    #[test]
    fn binding_ends_with_the_driver() -> Result {
        let device = Fake::plug(0)?;
        let first = register::<Plain<0>>(c"rust-kunit-0")?;
        let binding = kept().ok_or(ENODEV)?;
        let bound = binding.try_lock(|_| ());

        drop(first);

        let unbound = binding.try_lock(|_| ());
        // Bind another driver.
        let second = register::<Plain<1>>(c"rust-kunit-1")?;
        let other = kept().ok_or(ENODEV)?;
        let stale = binding.try_lock(|_| ());
        let fresh = other.try_lock(|locked| locked.reset());

        drop(second);
        drop(device);
        assert_eq!(bound, Ok(()));
        assert_eq!(unbound, Err(ENODEV));
        assert_eq!(stale, Err(ENODEV));
        assert_eq!(fresh, Ok(Ok(())));
        Ok(())
    }

    #[test]
    fn what_another_driver_left_behind_is_ignored() -> Result {
        let device = Fake::plug(0)?;

        device.set_priv(8);

        let driver = register::<Plain<0>>(c"rust-kunit-0")?;
        let bound = kept().ok_or(ENODEV)?.try_lock(|_| ());

        drop(driver);
        drop(device);
        assert_eq!(bound, Ok(()));
        Ok(())
    }

    #[test]
    fn driver_without_resets_says_so() -> Result {
        let device = Fake::plug(0)?;
        let driver = register::<Plain<0>>(c"rust-kunit-0")?;
        let prepared = device.reset_prepare();

        drop(driver);
        drop(device);
        assert_eq!(
            prepared.map_err(Error::to_errno),
            Err(-(bindings::EOPNOTSUPP as c_int))
        );
        Ok(())
    }

    #[test]
    fn binding_is_closed_while_the_device_is_reset() -> Result {
        let device = Fake::plug(0)?;
        let driver = register::<Resettable>(c"rust-kunit-reset")?;
        let binding = kept().ok_or(ENODEV)?;

        NOTED.store(0, Relaxed);
        device.reset_prepare()?;

        let during = binding.try_lock(|_| ());
        let done = device.reset_done();
        let after = binding.try_lock(|_| ());

        drop(driver);
        drop(device);
        assert_eq!(during, Err(EBUSY));
        assert_eq!(done, Ok(()));
        assert_eq!(NOTED.load(Relaxed), 1);
        assert_eq!(after, Ok(()));
        Ok(())
    }

    #[test]
    fn queues_are_found_once() -> Result {
        let device = Fake::plug(0)?;
        let driver = register::<Insistent>(c"rust-kunit-insistent")?;

        drop(driver);
        drop(device);
        assert_eq!(NOTED.load(Relaxed), EBUSY.to_errno());
        Ok(())
    }

    #[test]
    fn queues_are_found_in_probe_only() -> Result {
        let device = Fake::plug(0)?;
        let driver = register::<Late>(c"rust-kunit-late")?;

        drop(driver);
        drop(device);
        assert_eq!(NOTED.load(Relaxed), EBUSY.to_errno());
        Ok(())
    }

    #[test]
    fn configuration_is_consistent() -> Result {
        // In the first attempt the configuration changes between the two fields.
        let device = Fake::plug(5)?;
        let driver = register::<Reader>(c"rust-kunit-reader")?;

        drop(driver);
        drop(device);
        assert_eq!(NOTED.load(Relaxed), 5);
        Ok(())
    }

    #[test]
    fn configuration_that_never_settles() -> Result {
        let device = Fake::plug(i32::MAX)?;
        let driver = register::<Reader>(c"rust-kunit-reader")?;

        drop(driver);
        drop(device);
        assert_eq!(NOTED.load(Relaxed), EIO.to_errno());
        Ok(())
    }

    #[test]
    fn full_ring_is_not_notified_under_the_lock() -> Result {
        let device = Fake::plug(0)?;
        let ring = Ring::new(&device, Ring::notify, None)?;
        let queue: Pin<KBox<Queue<Byte>>> =
            KBox::pin_init(new_virtqueue!(c"rust-kunit"), GFP_KERNEL)?;
        let mut rets = [Ok(()); 3];

        // SAFETY: The virtqueue is new, and nothing else uses it until `reclaim()`.
        unsafe { queue.open(ring.vq) }?;
        for ret in &mut rets {
            let message = Byte::new(0, 0, (), GFP_KERNEL)?;

            *ret = queue.with(|access, ()| access.add(message).map_err(|(err, _)| err));
        }
        queue.close();
        // SAFETY: As above; there is no device.
        unsafe { queue.reclaim(ring.vq) };
        assert_eq!(rets, [Ok(()), Ok(()), Err(ENOSPC)]);
        assert_eq!(NOTIFIED.load(Relaxed), 0);
        Ok(())
    }

    #[test]
    fn failing_to_map_is_a_lack_of_memory() -> Result {
        let device = Fake::plug(0)?;
        let ring = Unmappable::new(&device)?;
        let queue: Pin<KBox<Queue<Byte>>> =
            KBox::pin_init(new_virtqueue!(c"rust-kunit"), GFP_KERNEL)?;
        let message = Byte::new(0, 0, (), GFP_KERNEL)?;

        // SAFETY: The virtqueue is new, and nothing else uses it until `reclaim()`.
        unsafe { queue.open(ring.0) }?;
        let ret = queue.with(|access, ()| access.add(message).map_err(|(err, _)| err));
        queue.close();
        // SAFETY: As above; there is no device.
        unsafe { queue.reclaim(ring.0) };
        assert_eq!(ret, Err(ENOMEM));
        Ok(())
    }

    #[test]
    fn batch_is_polled_for_without_interrupts() -> Result {
        let device = Fake::plug(0)?;
        let oracle = Oracle::new(&device, Delta::from_millis(100))?;
        let mut answers = 0;
        let each = |_, answer: Result<Answer<u8>>| answers += i32::from(answer.is_ok());
        let polled = (oracle.requests).call_all(Scope::Any, [1, 2].into_iter(), each);
        let interrupts = oracle.interrupts.load(Relaxed);
        let afterwards = oracle.wants_interrupts();

        drop(oracle);
        drop(device);
        assert_eq!(polled, Ok(()));
        assert_eq!(answers, 2);
        assert_eq!(interrupts, 0);
        assert!(afterwards);
        Ok(())
    }

    #[test]
    fn task_that_polls_lets_others_run() -> Result {
        let device = Fake::plug(0)?;
        let oracle = Oracle::new(&device, Delta::from_millis(500))?;
        let since = Instant::<Monotonic>::now();
        let ran_after = Arc::new(Atomic::new(i64::MAX), GFP_KERNEL)?;
        let work = ran_after.clone();

        oracle.silent.store(true, Relaxed);
        // It runs on this processor.
        workqueue::system().try_spawn(GFP_KERNEL, move || {
            work.store(since.elapsed().as_millis(), Relaxed)
        })?;

        let ret = oracle.requests.call(1, None);

        drop(oracle);
        drop(device);
        assert_eq!(ret.err(), Some(ETIMEDOUT));
        assert!(ran_after.load(Relaxed) < 250);
        Ok(())
    }

    #[test]
    fn task_that_polls_may_be_preempted() -> Result {
        let device = Fake::plug(0)?;
        let oracle = Oracle::new(&device, Delta::from_millis(100))?;

        // Another call while the one that is going to poll notifies the device.
        oracle.asks.store(1, Relaxed);

        let ret = oracle.requests.call(1, None);
        let asked = oracle.asked.load(Relaxed);
        let interrupts = oracle.interrupts.load(Relaxed);

        drop(oracle);
        drop(device);
        assert_eq!(asked, 1);
        assert!(ret.is_ok());
        assert!(interrupts > 0);
        Ok(())
    }
}
