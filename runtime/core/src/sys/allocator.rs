//! Memory for a program of several roles.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

/// This process is a shim or an OCI command. Known before the first allocation, and never changed after that.
pub(super) static SMALL: AtomicBool = AtomicBool::new(false);

/// The given allocator for the roles that serve many with many threads; the C library's for shims and OCI commands, which
/// are many, have one thread and need little: it begins with one page where others lay out sizes and threads first.
#[derive(Debug)]
pub struct ByRole<A>(pub A);

// SAFETY: both keep the contract, and what one has given always goes back to the same: the role is settled where the
// program begins, before there is anything to free.
unsafe impl<A: GlobalAlloc> GlobalAlloc for ByRole<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { if is_small() { System.alloc(layout) } else { self.0.alloc(layout) } }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { if is_small() { System.dealloc(memory, layout) } else { self.0.dealloc(memory, layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { if is_small() { System.alloc_zeroed(layout) } else { self.0.alloc_zeroed(layout) } }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { if is_small() { System.realloc(memory, layout, size) } else { self.0.realloc(memory, layout, size) } }
    }
}

fn is_small() -> bool {
    SMALL.load(Ordering::Relaxed)
}
