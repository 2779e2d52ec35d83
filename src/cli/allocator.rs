//! How the process asks the system for memory.

/// Makes the GNU C library keep the memory of an upload's pieces for the next piece. Left alone it gives each back and
/// asks for it again, page by page, in every thread: 10 % of the processor time of an upload, and twice the memory.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library has no other way in")]
pub(super) fn tune() {
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

/// Other allocators do as they see fit.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn tune() {}
