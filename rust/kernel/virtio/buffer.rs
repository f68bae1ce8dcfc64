// SPDX-License-Identifier: GPL-2.0

//! Buffers for virtqueues.

use crate::{
    alloc::{
        AllocError,
        Flags, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::NonNull, //
};

/// An owned buffer for a [`Queue`](super::Queue).
///
/// Most drivers use [`Message`] and need not implement this.
///
/// # Safety
///
/// Implementers must ensure that
///
/// - [`Buffer::into_raw`] gives up the ownership of one allocation, which stays valid and at its
///   address until [`Buffer::from_raw`] takes the ownership back,
/// - the memory of all segments is owned by the buffer, physically contiguous within a segment, in
///   the kernel's linear mapping, and shares no DMA cache line with memory that the CPU may write
///   while the device owns the buffer,
/// - no reference to that memory exists while the device owns the buffer, nor afterwards: a hostile
///   device may still write to it while an IOMMU maps it, or without an IOMMU,
/// - all bytes of all segments are initialised: others would leak kernel memory to the device,
/// - the segments of a given raw buffer never change.
pub unsafe trait Buffer: Sized + Send + 'static {
    /// Gives up the ownership of the buffer. Returns a token that identifies it.
    fn into_raw(self) -> NonNull<c_void>;

    /// Takes the ownership of a buffer back.
    ///
    /// # Safety
    ///
    /// `raw` must come from [`Buffer::into_raw`] of the same type, the device must have returned
    /// the buffer or been reset, and `from_raw` must not be called twice for one `into_raw`.
    unsafe fn from_raw(raw: NonNull<c_void>) -> Self;

    /// Adds all segments to `list`: first those that the device reads, then those that it writes.
    ///
    /// # Safety
    ///
    /// `raw` must come from [`Buffer::into_raw`] of the same type, and not have been taken back.
    unsafe fn segments(raw: NonNull<c_void>, list: &mut SegmentList);

    /// Returns the length of all segments that the device writes, in bytes.
    fn writable_len(&self) -> usize;
}

/// The segments of a [`Buffer`], in order.
///
/// Only [`Buffer::segments`] gets one. So whatever is added is the memory of a buffer, which the
/// safety requirements of [`Buffer`] are about.
pub struct SegmentList {
    tables: [MaybeUninit<bindings::scatterlist>; Self::MAX],
    readable: usize,
    len: usize,
    error: Result,
}

impl SegmentList {
    /// The maximum number of segments.
    pub const MAX: usize = 4;

    pub(super) fn new() -> Self {
        Self {
            tables: [const { MaybeUninit::uninit() }; Self::MAX],
            readable: 0,
            len: 0,
            error: Ok(()),
        }
    }

    /// Adds memory that the device reads. Skips an empty segment.
    #[inline]
    pub fn readable(&mut self, addr: NonNull<c_void>, len: usize) {
        if self.readable < self.len {
            self.error = Err(EINVAL);
        }
        self.put(addr, len);
        self.readable = self.len;
    }

    /// Adds memory that the device writes. Skips an empty segment.
    #[inline]
    pub fn writable(&mut self, addr: NonNull<c_void>, len: usize) {
        self.put(addr, len);
    }

    #[inline]
    fn put(&mut self, addr: NonNull<c_void>, len: usize) {
        if len == 0 || self.error.is_err() {
            return;
        }

        let table = self.tables.get_mut(self.len);
        let (Some(table), Ok(bytes)) = (table, c_uint::try_from(len)) else {
            self.error = Err(EINVAL);
            return;
        };

        // SAFETY: `table` is valid for writes of one entry. By the requirements of `Buffer` the
        // segment is in the linear mapping and physically contiguous.
        unsafe { bindings::sg_init_one(table.as_mut_ptr(), addr.as_ptr(), bytes) };
        self.len += 1;
    }

    /// Returns the number of segments.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if there is none, if there are too many, if one has 4 GiB or more, or if they are
    /// in the wrong order.
    #[inline]
    pub(super) fn len(&self) -> Result<usize> {
        self.error?;
        match self.len {
            0 => Err(EINVAL),
            len => Ok(len),
        }
    }

    /// Returns a table of one entry for each segment, and how many of them the device reads and
    /// writes. There is nothing behind these.
    #[inline]
    pub(super) fn tables(
        &mut self,
    ) -> (
        [MaybeUninit<*mut bindings::scatterlist>; Self::MAX],
        c_uint,
        c_uint,
    ) {
        let mut sgs = [MaybeUninit::uninit(); Self::MAX];

        for (sg, table) in sgs.iter_mut().zip(&mut self.tables).take(self.len) {
            sg.write(table.as_mut_ptr());
        }
        // CAST: Both are at most `MAX`.
        (
            sgs,
            self.readable as c_uint,
            (self.len - self.readable) as c_uint,
        )
    }
}

/// Physically contiguous pages that only hold memory for a device.
///
/// An IOMMU maps whole pages, and pages of the slab allocator also hold other objects.
///
/// All accesses copy, as there must be no references: a hostile device may write at any time.
///
/// # Invariants
///
/// `addr` is that of `1 << order` pages that this value owns, all bytes of which are initialised.
struct DmaPages {
    addr: NonNull<u8>,
    order: c_uint,
}

impl DmaPages {
    /// Allocates zeroed pages with room for `len` bytes.
    fn new(len: usize, flags: Flags) -> Result<Self, AllocError> {
        let pages = len.div_ceil(PAGE_SIZE).max(1).next_power_of_two();
        let order = pages.trailing_zeros();

        // The page allocator would warn.
        if order > bindings::MAX_PAGE_ORDER {
            return Err(AllocError);
        }

        // SAFETY: There are no requirements. Whatever the flags, the function returns pages of the
        // linear mapping only.
        let addr = unsafe { bindings::get_free_pages_noprof((flags | __GFP_ZERO).as_raw(), order) };

        // INVARIANT: The pages were just allocated, and zeroed.
        let addr = NonNull::new(addr as *mut u8).ok_or(AllocError)?;

        Ok(Self { addr, order })
    }

    fn len(&self) -> usize {
        PAGE_SIZE << self.order
    }

    /// Returns the address at `offset`.
    ///
    /// # Safety
    ///
    /// `offset` must not be larger than the length of the pages.
    unsafe fn at<T>(&self, offset: usize) -> NonNull<T> {
        // SAFETY: By the requirements of this function.
        unsafe { self.addr.add(offset) }.cast()
    }

    /// Copies bytes out, up to the end of the pages. Returns their number.
    fn read(&self, offset: usize, to: &mut [u8]) -> usize {
        let len = to.len().min(self.len().saturating_sub(offset));

        for (index, byte) in to.iter_mut().take(len).enumerate() {
            // SAFETY: By the type invariants the byte, which is within the pages, is valid for
            // reads. If the device writes it at the same time, a volatile read returns some byte.
            *byte = unsafe { self.addr.as_ptr().add(offset + index).read_volatile() };
        }
        len
    }

    /// Sets the first `len` bytes to `byte`, up to the end of the pages.
    fn fill(&mut self, len: usize, byte: u8) {
        // SAFETY: By the type invariants the bytes are valid for writes; `self` is borrowed
        // exclusively.
        unsafe { self.addr.write_bytes(byte, len.min(self.len())) };
    }
}

impl Drop for DmaPages {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this value owns the pages, which are of that order.
        unsafe { bindings::free_pages(self.addr.as_ptr() as usize, self.order) };
    }
}

// SAFETY: Any thread may access and free the pages.
unsafe impl Send for DmaPages {}

// SAFETY: A shared reference only reads.
unsafe impl Sync for DmaPages {}

/// Memory of any length for a [`Message`], in pages of its own, which the device writes.
///
/// # Examples
///
/// ```
/// use kernel::virtio::Payload;
///
/// let mut payload = Payload::writable(4, GFP_KERNEL)?;
/// let mut bytes = [0; 4];
///
/// payload.fill(b'x');
/// assert_eq!(payload.read(2, &mut bytes), 2);
/// assert_eq!(bytes, *b"xx\0\0");
/// assert_eq!(Payload::writable(512, GFP_KERNEL)?.len(), 512);
/// # Ok::<(), Error>(())
/// ```
pub struct Payload(KBox<PayloadInner>);

struct PayloadInner {
    pages: DmaPages,
    len: usize,
    /// The payload is there instead of the response, not before it.
    is_response: bool,
}

impl Payload {
    fn new(len: usize, is_response: bool, flags: Flags) -> Result<Self, AllocError> {
        let inner = PayloadInner {
            pages: DmaPages::new(len, flags)?,
            len,
            is_response,
        };

        Ok(Self(KBox::new(inner, flags)?))
    }

    /// Allocates a payload of `len` zero bytes, which the device writes before the response.
    ///
    /// # Context
    ///
    /// Whatever `flags` allow.
    pub fn writable(len: usize, flags: Flags) -> Result<Self, AllocError> {
        Self::new(len, false, flags)
    }

    /// Allocates a payload of `len` zero bytes, which the device writes instead of the response,
    /// for responses whose length is not known at compile time.
    ///
    /// # Context
    ///
    /// Whatever `flags` allow.
    pub fn response(len: usize, flags: Flags) -> Result<Self, AllocError> {
        Self::new(len, true, flags)
    }

    /// Adds the payload to `list`. Returns whether it replaces the response.
    fn segment(&self, list: &mut SegmentList) -> bool {
        list.writable(self.0.pages.addr.cast(), self.0.len);
        self.0.is_response
    }

    /// Returns the length in bytes.
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Sets all bytes to `byte`.
    pub fn fill(&mut self, byte: u8) {
        let len = self.0.len;

        self.0.pages.fill(len, byte);
    }

    /// Copies the bytes from `offset` on into `to`. Returns their number.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> usize {
        let len = to.len().min(self.0.len.saturating_sub(offset));

        self.0.pages.read(offset, &mut to[..len])
    }
}

/// The layout of messages that share pages.
///
/// Each part has DMA cache lines of its own. Messages do not share cache lines of the CPU either.
struct Layout<Out, In>(PhantomData<(Out, In)>);

impl<Out, In> Layout<Out, In> {
    const DMA: usize = bindings::ARCH_DMA_MINALIGN;

    /// The offset of the response.
    const INPUT: usize = Self::round_up(size_of::<Out>(), Self::max(Self::DMA, align_of::<In>()));

    /// The distance between messages.
    const STRIDE: usize = Self::round_up(
        Self::max(Self::INPUT + size_of::<In>(), 1),
        Self::max(
            Self::max(Self::DMA, 64),
            Self::max(align_of::<Out>(), align_of::<In>()),
        ),
    );

    const fn max(a: usize, b: usize) -> usize {
        if a > b {
            a
        } else {
            b
        }
    }

    const fn round_up(value: usize, to: usize) -> usize {
        value.div_ceil(to) * to
    }
}

/// # Invariants
///
/// A request is at `offset` in `pages`, and a response `Layout::INPUT` bytes further: both are
/// within the pages, and belong to this message only.
struct Inner<P> {
    private: P,
    payload: Option<Payload>,
    offset: u32,
    pages: Arc<DmaPages>,
}

/// A [`Buffer`] for one request to the device and its response.
///
/// It has these parts, each of which may be empty:
///
/// - `Out`, the request, which the device reads,
/// - a [`Payload`], which the device writes, too, or which replaces the response,
/// - `In`, the response, which the device writes,
/// - `P`, private to the driver, in an allocation that the device cannot access.
///
/// The first three are segments, in this order: a block device, for example, gets its header, the
/// sectors and the status. Their memory is in zeroed pages that only hold such parts.
///
/// [`Message::many`] makes several, with as many in a page as there is room for.
///
/// While the device owns the message there is no `Message` value, and so no access to its bytes.
/// Afterwards they are copied out, as a hostile device may still write to the memory. A driver must
/// check the length and the contents of a response before it relies on them.
///
/// # Examples
///
/// ```
/// use kernel::virtio::Message;
///
/// #[derive(FromBytes, IntoBytes)]
/// #[repr(C)]
/// struct Ping([u8; 4]);
///
/// let mut msg = Message::new(Ping(*b"ping"), Ping([0xff; 4]), 7u32, GFP_KERNEL)?;
/// msg.set_request(Ping(*b"pong"));
/// assert_eq!(msg.response().0, [0xff; 4]);
/// assert_eq!(*msg.private(), 7);
/// # Ok::<(), Error>(())
/// ```
pub struct Message<Out, In, P = ()>(KBox<Inner<P>>, PhantomData<fn(Out) -> In>);

impl<Out, In, P> Message<Out, In, P>
where
    Out: FromBytes + IntoBytes + Send + 'static,
    In: FromBytes + IntoBytes + Send + 'static,
    P: Send + 'static,
{
    /// The number of messages that fit into a page, or 1 if a message is larger than a page.
    pub const PER_PAGE: usize = match PAGE_SIZE / Layout::<Out, In>::STRIDE {
        0 => 1,
        count => count,
    };

    /// Allocates a message with pages of its own.
    ///
    /// # Context
    ///
    /// Whatever `flags` allow.
    pub fn new(output: Out, input: In, private: P, flags: Flags) -> Result<Self, AllocError> {
        let pages = Arc::new(DmaPages::new(Layout::<Out, In>::STRIDE, flags)?, flags)?;

        // SAFETY: This is the only message of these pages.
        unsafe { Self::in_pages(pages, 0, (output, input, private), flags) }
    }

    /// Allocates `count` messages, with [`Message::PER_PAGE`] of them in each page. A page is freed
    /// with the last of its messages.
    ///
    /// `parts` returns the parts of each.
    ///
    /// # Context
    ///
    /// Whatever `flags` allow.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::virtio::Message;
    ///
    /// type Ping = Message<[u8; 4], [u8; 4], usize>;
    ///
    /// let pings = Ping::many(100, |index| (*b"ping", [0xff; 4], index), GFP_KERNEL)?;
    /// assert_eq!(pings.len(), 100);
    /// assert_eq!(pings.last().map(|ping| *ping.private()), Some(99));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn many(
        count: usize,
        mut parts: impl FnMut(usize) -> (Out, In, P),
        flags: Flags,
    ) -> Result<KVec<Self>, AllocError> {
        let mut messages = KVec::with_capacity(count, flags)?;

        while messages.len() < count {
            let pages = Arc::new(DmaPages::new(Layout::<Out, In>::STRIDE, flags)?, flags)?;

            for index in 0..Self::PER_PAGE.min(count - messages.len()) {
                let parts = parts(messages.len());
                // SAFETY: The index is in its range, and each occurs once for these pages.
                let message = unsafe { Self::in_pages(pages.clone(), index, parts, flags) }?;

                messages.push(message, flags)?;
            }
        }
        Ok(messages)
    }

    /// Allocates the message with number `index` in `pages`.
    ///
    /// # Safety
    ///
    /// `pages` must have room for it, and no other message with that number.
    unsafe fn in_pages(
        pages: Arc<DmaPages>,
        index: usize,
        (output, input, private): (Out, In, P),
        flags: Flags,
    ) -> Result<Self, AllocError> {
        const {
            assert!(
                Layout::<Out, In>::STRIDE <= 1 << 20,
                "too large: use a payload"
            );
            assert!(align_of::<Out>() <= PAGE_SIZE && align_of::<In>() <= PAGE_SIZE);
            assert!(!core::mem::needs_drop::<Out>() && !core::mem::needs_drop::<In>());
        }

        // INVARIANT: By the requirements of this function no other message is at this offset.
        let mut message = Self(
            KBox::new(
                Inner {
                    private,
                    payload: None,
                    // CAST: It is less than 1 MiB and a page.
                    offset: (index * Layout::<Out, In>::STRIDE) as u32,
                    pages,
                },
                flags,
            )?,
            PhantomData,
        );

        message.set_request(output);
        message.set_response(input);
        Ok(message)
    }

    /// Replaces the payload of the message. Returns the one that it had.
    pub fn set_payload(&mut self, payload: Option<Payload>) -> Option<Payload> {
        core::mem::replace(&mut self.0.payload, payload)
    }

    fn output(&self) -> NonNull<Out> {
        // SAFETY: By the type invariant of `Inner` the request is within the pages.
        unsafe { self.0.pages.at(self.0.offset as usize) }
    }

    fn input(&self) -> NonNull<In> {
        // SAFETY: By the type invariant of `Inner` the response is within the pages.
        unsafe {
            self.0
                .pages
                .at(self.0.offset as usize + Layout::<Out, In>::INPUT)
        }
    }

    /// Sets the request.
    #[inline]
    pub fn set_request(&mut self, output: Out) {
        // SAFETY: By the type invariant of `Inner` this is the request of this message only,
        // aligned by `Layout`. All bytes of an `IntoBytes` type are initialised.
        unsafe { self.output().write_volatile(output) };
    }

    /// Sets the memory of the response.
    #[inline]
    pub fn set_response(&mut self, input: In) {
        // SAFETY: As in `set_request()`.
        unsafe { self.input().write_volatile(input) };
    }

    /// Returns a copy of the response.
    #[inline]
    pub fn response(&self) -> In {
        // SAFETY: By the type invariant of `Inner` this is the response, aligned by `Layout`. Every
        // pattern of bytes is valid, even if the device changes it at the same time.
        unsafe { self.input().read_volatile() }
    }

    /// Returns the part that the device cannot access.
    pub fn private(&self) -> &P {
        &self.0.private
    }

    /// Returns the part that the device cannot access, mutably.
    pub fn private_mut(&mut self) -> &mut P {
        &mut self.0.private
    }
}

// SAFETY:
// - `into_raw()` and `from_raw()` are those of a `KBox`, whose allocation neither moves nor is
//   freed in between.
// - All segments are in `DmaPages`, hence in the linear mapping, that the box owns or shares with
//   other messages, on DMA cache lines of their own (`Layout`). The CPU writes none of them while
//   the device has them: all methods need a `Message`, which does not exist then.
// - There are no references to the memory: it is copied in and out.
// - All bytes are initialised: `DmaPages` are zeroed, and only bytes of `IntoBytes` types are
//   copied in.
// - No method changes the segments of a raw buffer.
unsafe impl<Out, In, P> Buffer for Message<Out, In, P>
where
    Out: FromBytes + IntoBytes + Send + 'static,
    In: FromBytes + IntoBytes + Send + 'static,
    P: Send + 'static,
{
    fn into_raw(self) -> NonNull<c_void> {
        let raw = KBox::into_raw(self.0);

        // SAFETY: The pointer of a box is never NULL.
        unsafe { NonNull::new_unchecked(raw.cast()) }
    }

    unsafe fn from_raw(raw: NonNull<c_void>) -> Self {
        // SAFETY: By the requirements of this function, `raw` comes from `into_raw()` above, and
        // this is the one time that its ownership is taken back.
        let inner = unsafe { KBox::from_raw(raw.as_ptr().cast()) };

        Self(inner, PhantomData)
    }

    #[inline]
    unsafe fn segments(raw: NonNull<c_void>, list: &mut SegmentList) {
        // SAFETY: By the requirements of this function `raw` points to a live value of this type.
        // It is no part of a segment, so the device does not write to it, and there is no other
        // access as no `Message` exists.
        let inner = unsafe { raw.cast::<Inner<P>>().as_ref() };
        let offset = inner.offset as usize;
        // SAFETY: By the type invariant of `Inner` both parts are within the pages.
        let (output, input) = unsafe {
            (
                inner.pages.at(offset),
                inner.pages.at(offset + Layout::<Out, In>::INPUT),
            )
        };

        list.readable(output, size_of::<Out>());
        match &inner.payload {
            Some(payload) if payload.segment(list) => (),
            _ => list.writable(input, size_of::<In>()),
        }
    }

    #[inline]
    fn writable_len(&self) -> usize {
        match &self.0.payload {
            Some(payload) if payload.0.is_response => payload.0.len,
            Some(payload) => payload.0.len + size_of::<In>(),
            None => size_of::<In>(),
        }
    }
}

#[cfg(CONFIG_RUST_VIRTIO_KUNIT_TEST)]
#[kunit_tests(rust_kernel_virtio_buffer)]
mod tests {
    use super::*;
    use crate::types::ScopeGuard;

    /// Fills free pages, so that pages without `__GFP_ZERO` would not be zero.
    fn dirty_free_pages() -> Result {
        let mut pages = KVec::new();

        for _ in 0..64 {
            let mut page = DmaPages::new(PAGE_SIZE, GFP_KERNEL)?;

            page.fill(PAGE_SIZE, 0xaa);
            pages.push(page, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Counts the bytes of a page that are `byte`.
    fn count(pages: &DmaPages, byte: u8) -> Result<usize> {
        let mut bytes = KVec::from_elem(0, pages.len(), GFP_KERNEL)?;

        pages.read(0, &mut bytes);
        Ok(bytes.iter().filter(|&&found| found == byte).count())
    }

    #[test]
    fn nothing_of_others_is_in_a_page() -> Result {
        dirty_free_pages()?;

        let message = Message::<[u8; 8], [u8; 4]>::new([1; 8], [2; 4], (), GFP_KERNEL)?;
        let pages = &message.0.pages;
        let counts = (count(pages, 1)?, count(pages, 2)?, count(pages, 0)?);

        assert_eq!(counts, (8, 4, PAGE_SIZE - 12));
        Ok(())
    }

    #[test]
    fn nothing_of_others_is_behind_a_payload() -> Result {
        dirty_free_pages()?;

        let mut payload = Payload::writable(5, GFP_KERNEL)?;

        payload.fill(3);

        let pages = &payload.0.pages;
        let counts = (count(pages, 3)?, count(pages, 0)?);

        assert_eq!(counts, (5, PAGE_SIZE - 5));
        Ok(())
    }

    /// Returns the lengths of the segments, and how many of them the device reads.
    fn shape<B: Buffer>(buffer: B) -> Result<(KVec<u32>, u32)> {
        let raw = buffer.into_raw();
        // SAFETY: `raw` was just made, no device has the buffer, and this happens once.
        let _buffer = ScopeGuard::new(|| drop(unsafe { B::from_raw(raw) }));
        let mut list = SegmentList::new();

        // SAFETY: `raw` is not taken back before the end of this function.
        unsafe { B::segments(raw, &mut list) };

        let count = list.len()?;
        let (tables, readable, _) = list.tables();
        let mut lens = KVec::new();

        for &table in tables.iter().take(count) {
            // SAFETY: `tables()` has written `count` pointers, and `segments()` initialised as many
            // tables.
            lens.push(unsafe { (*table.assume_init()).length }, GFP_KERNEL)?;
        }
        Ok((lens, readable))
    }

    fn message(payload: Option<Payload>) -> Result<Message<[u8; 16], u8>> {
        let mut message = Message::new([0; 16], 0xff, (), GFP_KERNEL)?;

        message.set_payload(payload);
        Ok(message)
    }

    #[test]
    fn segments_are_in_order() -> Result {
        let (lens, readable) = shape(message(None)?)?;
        assert_eq!((&lens[..], readable), (&[16, 1][..], 1));

        let payload = Payload::writable(512, GFP_KERNEL)?;
        let (lens, readable) = shape(message(Some(payload))?)?;
        assert_eq!((&lens[..], readable), (&[16, 512, 1][..], 1));

        let payload = Payload::response(512, GFP_KERNEL)?;
        let (lens, readable) = shape(message(Some(payload))?)?;
        assert_eq!((&lens[..], readable), (&[16, 512][..], 1));
        Ok(())
    }

    #[test]
    fn parts_may_be_empty() -> Result {
        let payload = Payload::response(100, GFP_KERNEL)?;
        let mut message = Message::<(), ()>::new((), (), (), GFP_KERNEL)?;

        message.set_payload(Some(payload));

        let (lens, readable) = shape(message)?;

        assert_eq!((&lens[..], readable), (&[100][..], 0));
        assert_eq!(
            shape(Message::<(), ()>::new((), (), (), GFP_KERNEL)?).err(),
            Some(EINVAL)
        );
        Ok(())
    }

    // Not a whole message, which would need too much stack.
    #[test]
    fn parts_may_be_large() -> Result {
        type Parts = Layout<[u8; 10000], [u8; 3]>;

        assert_eq!(Message::<[u8; 10000], [u8; 3]>::PER_PAGE, 1);
        assert!(Parts::INPUT >= 10000);
        assert!(DmaPages::new(Parts::STRIDE, GFP_KERNEL)?.len() >= Parts::INPUT + 3);
        Ok(())
    }

    #[test]
    fn parts_share_no_cache_line() {
        type Parts = Layout<[u8; 3], [u8; 1]>;

        assert_eq!(Parts::INPUT % Parts::DMA, 0);
        assert_eq!(Parts::STRIDE % Parts::DMA, 0);
        assert!(Parts::INPUT >= 3);
        assert!(Parts::STRIDE > Parts::INPUT);
    }

    #[test]
    fn payload_is_bounded() -> Result {
        let mut payload = Payload::writable(10, GFP_KERNEL)?;
        let mut bytes = [1; 20];

        payload.fill(5);
        assert_eq!(payload.read(0, &mut bytes), 10);
        assert_eq!(bytes[..12], [5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 1, 1]);
        assert_eq!(payload.read(10, &mut bytes), 0);
        assert_eq!(payload.read(usize::MAX, &mut bytes), 0);
        Ok(())
    }
}
