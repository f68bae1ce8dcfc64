// SPDX-License-Identifier: GPL-2.0

//! Buffers that travel through a virtqueue.

use crate::{
    alloc::{
        AllocError,
        Flags, //
    },
    prelude::*, //
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
/// The alignment is the largest `ARCH_DMA_MINALIGN` of the architectures that have Rust support.
#[repr(C, align(128))]
struct DmaAligned<T>(T);

// What DMA needs on this configuration must not exceed what `DmaAligned` gives.
static_assert!(bindings::ARCH_KMALLOC_MINALIGN <= core::mem::align_of::<DmaAligned<u8>>());

#[repr(C)]
struct Inner<Out, In, P> {
    /// Of the driver alone, on other cache lines than what follows.
    private: P,
    /// Takes the place of `input` when there.
    large_input: Option<KVec<u8>>,
    output: DmaAligned<Out>,
    input: DmaAligned<In>,
}

/// A [`Buffer`] that is one request to the device and room for one response.
///
/// It is a single heap allocation with three parts, of which no two share a DMA cache line:
///
/// - `Out`, which the device reads,
/// - `In`, which the device writes. [`Message::with_large_response`] replaces it by a separate
///   allocation of any size,
/// - `P`, private to the driver: the device gets neither its address nor a cache line of it.
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

impl<Out, In, P> Message<Out, In, P>
where
    Out: FromBytes + IntoBytes + Send + 'static,
    In: FromBytes + IntoBytes + Send + 'static,
    P: Send + 'static,
{
    /// Allocates a message.
    ///
    /// # Context
    ///
    /// Whatever `flags` allow.
    pub fn new(output: Out, input: In, private: P, flags: Flags) -> Result<Self, AllocError> {
        Ok(Self(KBox::new(
            Inner {
                private,
                large_input: None,
                output: DmaAligned(output),
                input: DmaAligned(input),
            },
            flags,
        )?))
    }

    /// Makes `bytes` the device-writable part of the message, in place of the response.
    ///
    /// The length of `bytes`, not its capacity, is what the device may write.
    pub fn with_large_response(mut self, bytes: KVec<u8>) -> Self {
        self.0.large_input = Some(bytes);
        self
    }

    /// Returns the part that the device reads.
    pub fn request(&self) -> &Out {
        &self.0.output.0
    }

    /// Returns the part that the device reads, for changes.
    pub fn request_mut(&mut self) -> &mut Out {
        &mut self.0.output.0
    }

    /// Returns the part that the device writes.
    pub fn response(&self) -> &In {
        &self.0.input.0
    }

    /// Returns the part that the device writes, to prepare it.
    pub fn response_mut(&mut self) -> &mut In {
        &mut self.0.input.0
    }

    /// Returns the large response, if the message has one.
    pub fn large_response(&self) -> Option<&[u8]> {
        self.0.large_input.as_deref()
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
// - Both segments come from `kmalloc()`: `output` and `input` lie in the box, aligned to (and
//   thereby padded to) `DmaAligned`; `large_input` is an allocation of its own, which has the
//   alignment that the slab allocator guarantees for DMA. The CPU writes neither while the
//   device has them: all methods need a `Message`, which does not exist then.
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
        // type. Only places are computed here.
        let (output, input) = unsafe { (&raw mut (*inner).output.0, &raw mut (*inner).input.0) };

        // SAFETY: As above. The field is not part of a segment, so the device does not write to
        // it, and as no `Message` exists nobody else does.
        let large = unsafe { &(*inner).large_input };

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
