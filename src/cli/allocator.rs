//! How the process asks the system for memory.

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub use std::alloc::System as Allocator;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use self::linux::Allocator;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) use self::linux::tune;

/// Other allocators do as they see fit.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn tune() {}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "an allocator can't be had without, nor the C library's be told what to keep")]
mod linux {
    use std::alloc::{GlobalAlloc, Layout, System};

    use mimalloc::MiMalloc;

    /// Blocks up to this size are small.
    const SMALL: usize = 32 << 10;

    /// Small blocks come from mimalloc, which has a heap for each thread: a request needs dozens of them, and threads that share
    /// a heap wait for each other. Large ones, the pieces of uploads, come from the C library's one heap (see `tune`):
    /// threads hand them on to each other, and a heap for each thread would keep twice the memory.
    #[derive(Debug, Clone, Copy, Default)]
    pub struct Allocator;

    // SAFETY: both are allocators that keep this trait's promises. A block's size tells which of the two it came from, and its
    // layout is known whenever it is given back or resized; a block that becomes small or large is moved.
    unsafe impl GlobalAlloc for Allocator {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: what the caller promises is what both ask for.
            unsafe { if is_small(layout.size()) { MiMalloc.alloc(layout) } else { System.alloc(layout) } }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            let is_small = is_small(layout.size());
            // SAFETY: as above.
            unsafe { if is_small { MiMalloc.alloc_zeroed(layout) } else { System.alloc_zeroed(layout) } }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            let is_small = is_small(layout.size());
            // SAFETY: as above; the layout is that of the block, so this is where it came from.
            unsafe { if is_small { MiMalloc.dealloc(block, layout) } else { System.dealloc(block, layout) } }
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            match (is_small(layout.size()), is_small(size)) {
                // SAFETY: as above, and the new size is on the same side.
                (true, true) => unsafe { MiMalloc.realloc(block, layout, size) },
                // SAFETY: as above, and the new size is on the same side.
                (false, false) => unsafe { System.realloc(block, layout, size) },
                // SAFETY: the caller promises that the new size is not 0 and fits the alignment; the new block is another one
                // and both have room for what is copied. The old one is given back only if there is a new one.
                _ => unsafe {
                    let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                    if !moved.is_null() {
                        moved.copy_from_nonoverlapping(block, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    moved
                },
            }
        }
    }

    const fn is_small(size: usize) -> bool {
        size <= SMALL
    }

    /// Makes the GNU C library keep the memory of an upload's pieces for the next piece. Left alone it gives each back and
    /// asks for it again, page by page, in every thread: 10 % of the processor time of an upload, and twice the memory.
    pub(in crate::cli) fn tune() {
        /// Blocks from this size on are the system's own; no piece is as large.
        const MMAP_THRESHOLD: libc::c_int = 4 << 20;
        /// So much free memory is kept.
        const TRIM_THRESHOLD: libc::c_int = 16 << 20;
        for (parameter, value) in [
            (libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD),
            (libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD),
            // Threads hand pieces on to each other: one heap is enough, and keeps the least.
            (libc::M_ARENA_MAX, 1),
        ] {
            // SAFETY: `mallopt(3)` takes two numbers and no pointer, and is safe to call from any thread (MT-Safe init: this
            // is before there is a second one). What it does not know, it refuses.
            _ = unsafe { libc::mallopt(parameter, value) };
        }
    }

    #[cfg(test)]
    mod tests {
        use proptest::prelude::*;

        use super::*;

        fn size() -> impl Strategy<Value = usize> {
            prop_oneof![1..64_usize, SMALL - 3..SMALL + 3, 1..4 * SMALL]
        }

        proptest! {
            /// As a `Vec` that grows and shrinks across the line between the two.
            #[test]
            fn a_block_keeps_what_it_holds(sizes in prop::collection::vec(size(), 1..8), align in 0..8_u32, zeroed: bool) {
                let layout = |size| Layout::from_size_align(size, 1 << align).unwrap();
                let mut size = sizes[0];
                // SAFETY: the layouts are those that the block has at the time, none is of size 0, and only what was written,
                // or is zeroed, is read.
                unsafe {
                    let mut block =
                        if zeroed { Allocator.alloc_zeroed(layout(size)) } else { Allocator.alloc(layout(size)) };
                    prop_assert!(!block.is_null());
                    prop_assert!(!zeroed || std::slice::from_raw_parts(block, size).iter().all(|byte| *byte == 0));
                    for (round, next) in sizes[1..].iter().copied().enumerate() {
                        let mark = round as u8 + 1;
                        block.write_bytes(mark, size);
                        block = Allocator.realloc(block, layout(size), next);
                        prop_assert!(!block.is_null());
                        prop_assert_eq!(block.align_offset(1 << align), 0);
                        let kept = std::slice::from_raw_parts(block, size.min(next));
                        prop_assert!(kept.iter().all(|byte| *byte == mark));
                        size = next;
                    }
                    Allocator.dealloc(block, layout(size));
                }
            }
        }
    }
}
