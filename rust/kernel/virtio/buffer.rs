// SPDX-License-Identifier: GPL-2.0

//! Buffers that travel through a virtqueue.

use crate::{
    alloc::{
        AllocError,
        Flags, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};
use core::ptr::NonNull;

/// One part of a [`Buffer`] as the device sees it: address and length in bytes.
///
/// A length of zero means that the buffer has no such part.
#[derive(Clone, Copy)]
pub struct Segment {
    /// First byte.
    pub addr: NonNull<c_void>,
    /// Length in bytes.
    pub len: usize,
}

/// An owned buffer that can be handed to a device through a [`Queue`](super::Queue).
///
/// Most drivers use [`Message`] and need not implement this.
///
/// # Safety
///
/// Implementers must ensure that
///
/// - [`Buffer::into_raw`] gives up the ownership of one allocation, which stays valid and at its
///   address until [`Buffer::from_raw`] takes the ownership back,
/// - the memory of both segments is part of the buffer (or owned by it), physically contiguous,
///   in the kernel's linear mapping, and shares no DMA cache line with memory that the CPU may
///   write while the device owns the buffer,
/// - until [`Buffer::from_raw`] no reference to that memory exists and nobody accesses it, and
///   every bit pattern that the device leaves in the writable segment is valid,
/// - all bytes of both segments are initialised (what is not may leak kernel memory to the
///   device),
/// - the segments of a given raw buffer never change.
pub unsafe trait Buffer: Sized + Send + 'static {
    /// Gives up the ownership of the buffer in exchange for a token that identifies it.
    fn into_raw(self) -> NonNull<c_void>;

    /// Takes the ownership of a buffer back.
    ///
    /// # Safety
    ///
    /// `raw` must come from [`Buffer::into_raw`] of the same type, the device must have given the
    /// buffer back (or been reset), and `from_raw` must not be called twice for one `into_raw`.
    unsafe fn from_raw(raw: NonNull<c_void>) -> Self;

    /// Returns the device-readable and the device-writable segment.
    ///
    /// # Safety
    ///
    /// `raw` must come from [`Buffer::into_raw`] of the same type, not yet taken back.
    unsafe fn segments(raw: NonNull<c_void>) -> (Segment, Segment);

    /// Returns the length of the device-writable segment in bytes.
    fn writable_len(&self) -> usize;
}

/// A value on DMA cache lines of its own.
///
/// DMA is coherent on x86, where nothing has to be kept apart. For the others the alignment is the
/// largest `ARCH_DMA_MINALIGN` of the architectures that have Rust support.
#[cfg_attr(any(CONFIG_X86, CONFIG_UML), repr(C, align(8)))]
#[cfg_attr(not(any(CONFIG_X86, CONFIG_UML)), repr(C, align(128)))]
struct DmaAligned<T>(T);

// What DMA needs on this configuration must not exceed what `DmaAligned` gives.
static_assert!(bindings::ARCH_KMALLOC_MINALIGN <= core::mem::align_of::<DmaAligned<u8>>());

/// The parts of a message that the device sees: on a cache line if they are small, which is not
/// that of another message.
#[repr(C, align(64))]
struct Visible<Out, In> {
    output: DmaAligned<Out>,
    /// `large_input` takes its place when there.
    input: DmaAligned<In>,
}

/// A page that holds nothing but [`Visible`] parts of messages.
///
/// Behind an IOMMU a device sees, and may write, whole pages. Those of the slab allocator have
/// other objects too, with pointers and locks.
///
/// # Invariants
///
/// The address is that of a page that this value owns.
struct DmaPage(NonNull<u8>);

impl DmaPage {
    fn new(flags: Flags) -> Result<Self, AllocError> {
        // SAFETY: There are no requirements. Other pages than those of the linear mapping are not
        // returned, whatever the flags say.
        let addr = unsafe { bindings::get_free_pages_noprof(flags.as_raw(), 0) };

        // INVARIANT: The page was just allocated.
        NonNull::new(addr as *mut u8).map(Self).ok_or(AllocError)
    }
}

impl Drop for DmaPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this is a page of order 0 that is ours.
        unsafe { bindings::free_pages(self.0.as_ptr() as usize, 0) };
    }
}

// SAFETY: Pages may be freed anywhere, and nothing is accessed by way of this type.
unsafe impl Send for DmaPage {}

// SAFETY: As above; there are no methods that take a shared reference.
unsafe impl Sync for DmaPage {}

/// # Invariants
///
/// `visible` points to an initialised value in `page`, which belongs to this message alone.
struct Inner<Out, In, P> {
    private: P,
    // In a box of its own, because most messages have none.
    large_input: Option<KBox<KVec<u8>>>,
    visible: NonNull<Visible<Out, In>>,
    _page: Arc<DmaPage>,
}

impl<Out, In, P> Drop for Inner<Out, In, P> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the value is initialised and ours, and as the page is a
        // field it is still there.
        unsafe { self.visible.drop_in_place() };
    }
}

/// A [`Buffer`] that is one request to the device and room for one response.
///
/// It has three parts:
///
/// - `Out`, which the device reads,
/// - `In`, which the device writes. [`Message::with_large_response`] replaces it by a separate
///   allocation of any size,
/// - `P`, private to the driver, in an allocation of its own: the device gets neither its address
///   nor a page of it.
///
/// What the device sees is in pages that hold nothing else than such parts, each on DMA cache
/// lines of its own. [`Message::fill_page`] makes as many messages as there is room for in one.
///
/// As long as the device owns the message there is no `Message` value, and so no way to look at
/// its bytes. What is found in the response afterwards is the device's word: a driver must check
/// it, and how much of it was written, before it relies on it.
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
/// msg.request_mut().0[3] = b'k';
/// assert_eq!(msg.response().0, [0xff; 4]);
/// assert_eq!(*msg.private(), 7);
/// # Ok::<(), Error>(())
/// ```
pub struct Message<Out, In, P = ()>(KBox<Inner<Out, In, P>>);

// SAFETY: A message owns all that it points to.
unsafe impl<Out: Send, In: Send, P: Send> Send for Message<Out, In, P> {}

// SAFETY: A shared reference gives shared references to the parts, and no more.
unsafe impl<Out: Sync, In: Sync, P: Sync> Sync for Message<Out, In, P> {}

impl<Out, In, P> Message<Out, In, P>
where
    Out: FromBytes + IntoBytes + Send + 'static,
    In: FromBytes + IntoBytes + Send + 'static,
    P: Send + 'static,
{
    /// How many messages there is room for in a page.
    pub const PER_PAGE: usize = PAGE_SIZE / size_of::<Visible<Out, In>>();

    /// Allocates a message, with a page of its own.
    ///
    /// # Context
    ///
    /// Whatever `flags` allow.
    pub fn new(output: Out, input: In, private: P, flags: Flags) -> Result<Self, AllocError> {
        let page = Arc::new(DmaPage::new(flags)?, flags)?;

        // SAFETY: There is room for at least one message, and this is the only one of the page.
        unsafe { Self::in_page(page, 0, (output, input, private), flags) }
    }

    /// Allocates a page and as many messages as there is room for in it, [`Message::PER_PAGE`].
    ///
    /// `parts` returns the parts of each. The page is freed with the last of them.
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
    /// let pings = Ping::fill_page(|index| (*b"ping", [0xff; 4], index), GFP_KERNEL)?;
    /// assert_eq!(pings.len(), Ping::PER_PAGE);
    /// assert_eq!(pings.last().map(|ping| *ping.private()), Some(Ping::PER_PAGE - 1));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn fill_page(
        mut parts: impl FnMut(usize) -> (Out, In, P),
        flags: Flags,
    ) -> Result<KVec<Self>, AllocError> {
        let page = Arc::new(DmaPage::new(flags)?, flags)?;
        let mut messages = KVec::with_capacity(Self::PER_PAGE, flags)?;

        for index in 0..Self::PER_PAGE {
            // SAFETY: The index is in its range, and each occurs once.
            let message = unsafe { Self::in_page(page.clone(), index, parts(index), flags) }?;

            messages.push(message, flags)?;
        }
        Ok(messages)
    }

    /// Allocates the message number `index` of a page.
    ///
    /// # Safety
    ///
    /// `index` must be less than [`Message::PER_PAGE`], and there must be no other message of that
    /// number in the page.
    unsafe fn in_page(
        page: Arc<DmaPage>,
        index: usize,
        (output, input, private): (Out, In, P),
        flags: Flags,
    ) -> Result<Self, AllocError> {
        const { assert!(Self::PER_PAGE > 0, "a message has to fit into a page") };

        let inner = KBox::new_uninit(flags)?;

        // SAFETY: By the requirements of this function all of the value is within the page, which
        // is aligned to its size, so to the value's alignment, too.
        let visible = unsafe { page.0.cast::<Visible<Out, In>>().add(index) };

        // SAFETY: As above; and nobody else has this part of the page, to which `page` keeps a
        // reference.
        unsafe {
            visible.write(Visible {
                output: DmaAligned(output),
                input: DmaAligned(input),
            })
        };

        // INVARIANT: The value was just initialised, and by the requirements of this function no
        // other message has it.
        Ok(Self(KBox::write(
            inner,
            Inner {
                private,
                large_input: None,
                visible,
                _page: page,
            },
        )))
    }

    /// Makes `len` bytes, all of them `fill`, the device-writable part of the message, in place of
    /// the response.
    ///
    /// # Context
    ///
    /// Whatever `flags` allow.
    pub fn with_large_response(
        mut self,
        len: usize,
        fill: u8,
        flags: Flags,
    ) -> Result<Self, AllocError> {
        // Allocations of a page and more share their pages with nothing else.
        let mut bytes = KVec::with_capacity(len.max(PAGE_SIZE), flags)?;

        bytes.resize(len, fill, flags)?;
        self.0.large_input = Some(KBox::new(bytes, flags)?);
        Ok(self)
    }

    /// Returns the parts that the device sees.
    fn visible(&self) -> &Visible<Out, In> {
        // SAFETY: By the type invariant of `Inner` the value is there and initialised. The device
        // does not write to it while there is a `Message`, and changes take a `&mut`.
        unsafe { self.0.visible.as_ref() }
    }

    /// Returns the parts that the device sees, for changes.
    fn visible_mut(&mut self) -> &mut Visible<Out, In> {
        // SAFETY: As in `visible()`; by the type invariant it belongs to this message alone.
        unsafe { self.0.visible.as_mut() }
    }

    /// Returns the part that the device reads.
    pub fn request(&self) -> &Out {
        &self.visible().output.0
    }

    /// Returns the part that the device reads, for changes.
    pub fn request_mut(&mut self) -> &mut Out {
        &mut self.visible_mut().output.0
    }

    /// Returns the part that the device writes.
    pub fn response(&self) -> &In {
        &self.visible().input.0
    }

    /// Returns the part that the device writes, to prepare it.
    pub fn response_mut(&mut self) -> &mut In {
        &mut self.visible_mut().input.0
    }

    /// Returns the large response, if the message has one.
    pub fn large_response(&self) -> Option<&[u8]> {
        self.0.large_input.as_ref().map(|bytes| bytes.as_slice())
    }

    /// Returns the part that the device never sees.
    pub fn private(&self) -> &P {
        &self.0.private
    }

    /// Returns the part that the device never sees, for changes.
    pub fn private_mut(&mut self) -> &mut P {
        &mut self.0.private
    }
}

// SAFETY:
// - `into_raw()` and `from_raw()` are those of a `KBox`, whose allocation neither moves nor is
//   freed in between.
// - Both segments are in the linear mapping: `output` and `input` lie in a page that the box keeps
//   a reference to, aligned to (and thereby padded to) `DmaAligned`; `large_input` is an allocation
//   of its own from `kmalloc()`, of at least a page. The CPU writes neither while the device has
//   them: all methods need a `Message`, which does not exist then.
// - All bytes are initialised and all bit patterns valid, because of `FromBytes` and `IntoBytes`,
//   and for `u8` in any case.
// - Nothing changes the segments of a raw buffer.
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
        Self(unsafe { KBox::from_raw(raw.as_ptr().cast()) })
    }

    unsafe fn segments(raw: NonNull<c_void>) -> (Segment, Segment) {
        let inner = raw.cast::<Inner<Out, In, P>>().as_ptr();

        // SAFETY: By the requirements of this function `inner` points to a live allocation of this
        // type. It is no part of a segment, so the device does not write to it, and as no `Message`
        // exists nobody else does.
        let (visible, large) = unsafe { ((*inner).visible.as_ptr(), &(*inner).large_input) };

        // SAFETY: By the type invariant `visible` points to a live value of this type. Only places
        // are computed here.
        let (output, input) =
            unsafe { (&raw mut (*visible).output.0, &raw mut (*visible).input.0) };

        let segment = |addr: *mut c_void, len| Segment {
            // SAFETY: All addresses below are those of fields or of a vector: not NULL.
            addr: unsafe { NonNull::new_unchecked(addr) },
            len,
        };

        (
            segment(output.cast(), size_of::<Out>()),
            match large {
                Some(bytes) => segment(bytes.as_ptr().cast_mut().cast(), bytes.len()),
                None => segment(input.cast(), size_of::<In>()),
            },
        )
    }

    fn writable_len(&self) -> usize {
        match &self.0.large_input {
            Some(bytes) => bytes.len(),
            None => size_of::<In>(),
        }
    }
}
