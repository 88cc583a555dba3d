//! Zeroed memory for weights and caches: aligned to cache lines, in huge pages where the system gives them.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use memmap2::MmapMut;

/// Types for which zeroed memory is a value.
///
/// # Safety
/// All bit patterns are valid.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: integers and floats have no invalid bit patterns.
unsafe impl Plain for i8 {}
// SAFETY: as above.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;
const HUGE_PAGE: usize = 2 << 20;

/// Bytes between the weights that are read and those that are asked for: a page. The processor's own guesses end at its
/// border, and in the time that several rows take for what they have read, memory could give more.
pub(crate) const AHEAD: usize = 4 << 10;

/// Asks for the cache line that lies so many bytes behind this one.
#[inline(always)]
pub(crate) fn ask_ahead<T>(line: *const T, bytes: usize) {
    // SAFETY: a hint; what lies at the address, and whether anything does, has no effect.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast::<i8>().wrapping_add(bytes));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (line, bytes);
}

/// A slice whose length is fixed at its making.
pub(crate) struct Memory<T> {
    start: NonNull<T>,
    len: usize,
    owner: Owner,
}

/// Whom the memory came from.
enum Owner {
    /// The allocator.
    Heap(Layout),
    /// The system, in pages.
    Pages {
        #[expect(dead_code, reason = "held until the memory is let go")]
        map: MmapMut,
    },
}

// SAFETY: it owns its memory as a boxed slice does.
unsafe impl<T: Send> Send for Memory<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Memory<T> {}

impl<T: Plain> Memory<T> {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let bytes = len.checked_mul(size_of::<T>()).expect("more memory than there are addresses").max(1);
        if bytes >= HUGE_PAGE
            && let Some((map, start)) = huge_pages(bytes)
        {
            return Self { start: start.cast(), len, owner: Owner::Pages { map } };
        }
        let layout = Layout::from_size_align(bytes, LINE).expect("more memory than there are addresses");
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start.cast::<T>()) else { handle_alloc_error(layout) };
        Self { start, len, owner: Owner::Heap(layout) }
    }

    /// Takes the length `len`, not less than before; what is new is zeros.
    pub(crate) fn grow(&mut self, len: usize) {
        let old = std::mem::replace(self, Self::zeroed(len));
        self[..old.len()].copy_from_slice(&old);
    }
}

/// Zeroed memory that begins on a huge page's border, which the system may only then give; and its start. `None` where
/// memory cannot be had from the system so.
fn huge_pages(bytes: usize) -> Option<(MmapMut, NonNull<u8>)> {
    let mut map = MmapMut::map_anon(bytes.checked_add(HUGE_PAGE)?).ok()?;
    // Without huge pages it is slower, nothing else.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    let skip = map.as_ptr().align_offset(HUGE_PAGE);
    let start = NonNull::from(map.get_mut(skip..skip + bytes)?).cast();
    Some((map, start))
}

impl<T> Drop for Memory<T> {
    fn drop(&mut self) {
        if let Owner::Heap(layout) = self.owner {
            // SAFETY: allocated in `zeroed` with this layout; T is plain and needs no drop.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) }
        }
    }
}

impl<T> Deref for Memory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` initialised values that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Memory<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}
