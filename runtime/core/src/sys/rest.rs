//! Memory of a process that waits for long.

use std::ffi::c_void;

unsafe extern "C" {
    /// Where the program's file begins in memory; the linker's word.
    static __executable_start: u8;
    /// Where its code ends.
    static etext: u8;
}

/// As deep as a stack gets here. So near to one nothing else is mapped: the kernel keeps a gap of 1 MiB.
const STACK_BYTES: usize = 512 << 10;
/// What of it may be in use below a variable of the caller's.
const STACK_USED_BYTES: usize = 16 << 10;

/// Lets go of the code and constants that this process has mapped, of what it has freed, and of the stack that it has been
/// deeper in. What it needs again comes again, the one from the file, the other empty. For a process of one thread.
pub(crate) fn rest() {
    #[cfg(target_env = "gnu")]
    // SAFETY: only memory that was freed goes.
    unsafe {
        libc::malloc_trim(0)
    };
    let_go();
}

/// The same but for what was freed.
fn let_go() {
    let here = 0u8;
    let stack = &raw const here as usize;
    let code = (&raw const __executable_start as usize, &raw const etext as usize);
    // SAFETY: a plain question.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    for (from, to) in [code, (stack - STACK_BYTES, stack - STACK_USED_BYTES)] {
        let (from, to) = (from.next_multiple_of(page), to - to % page);
        // SAFETY: nobody writes to code and constants, so the file has them as they are; what lies that far below the
        // only thread's stack pointer is nobody's. What is not mapped is passed over.
        unsafe { libc::madvise(from as *mut c_void, to.saturating_sub(from), libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_goes_on_after_a_rest() {
        fn deep(depth: u32) -> u32 {
            let kept = std::hint::black_box([depth; 1024]);
            if depth == 0 { kept.iter().sum() } else { deep(depth - 1) + std::hint::black_box(kept)[7] }
        }
        // Its own process: a test has threads, which may hold the locks of what is freed for ever in here.
        match super::super::fork(0, None).unwrap() {
            super::super::Forked::Child => {
                let before = deep(60);
                super::let_go();
                super::super::exit_now(i32::from(deep(60) != before))
            }
            super::super::Forked::Parent { pidfd, .. } => {
                use std::os::fd::AsFd;
                let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
                let status = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).unwrap().unwrap();
                assert_eq!(status.exit_status(), Some(0));
            }
        }
    }
}
