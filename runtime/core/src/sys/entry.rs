//! Where the program begins, before the C library does. What [`crate::protect`] does once the program runs costs a whole
//! start of it, most of which is the C library asking the processor what it can do; done here it costs the system calls.
//! The linker is told of `trimtab_entry` by the build script of the crate whose binary it is, which must be linked to a
//! fixed address: nothing has been relocated yet.

use std::arch::{asm, global_asm};
use std::mem::MaybeUninit;
use std::ptr::read_volatile;
use std::sync::atomic::Ordering;

use super::allocator::SMALL;

// Like `_start` it is jumped to with the stack as execve(2) leaves it, and leaves it so.
global_asm!(
    ".globl trimtab_entry",
    "trimtab_entry:",
    "mov rdi, rsp",
    "push rdx",
    "push rdx",
    "call {early}",
    "pop rdx",
    "pop rdx",
    "jmp _start",
    early = sym early,
);

/// The commands of `trimtab oci` that start processes in containers.
const COMMANDS: [&[u8]; 3] = [b"create\0", b"exec\0", b"run\0"];

const EXE: &[u8] = b"/proc/self/exe\0";

/// Words of `struct statfs`, and the one that holds the flags of the mount.
const STATFS_WORDS: usize = 15;
const STATFS_FLAGS: usize = 10;

/// `struct mount_attr`: read-only, and nothing else.
static READ_ONLY: [u64; 4] = [libc::MOUNT_ATTR_RDONLY, 0, 0, 0];

/// Runs the program again from a read-only mount where its words ask for that. Comes back where they do not, where it is
/// done already, and where it cannot be: then [`crate::protect`] finds the same.
///
/// Nothing may be called here that the linker could resolve to a function of the C library, not even for filling memory:
/// which of several of these fits the processor is not known yet.
///
/// # Safety
/// `stack` is the stack of a new program: the number of arguments, pointers to them, a null pointer, pointers to the
/// environment, a null pointer.
unsafe extern "C" fn early(stack: *const usize) {
    // SAFETY: as the caller promises, all that is read is there, and strings end with a zero byte. The system calls take
    // memory that lives on the stack or for ever; execveat replaces us or changes nothing.
    unsafe {
        let count = *stack;
        let args = stack.add(1).cast::<*const u8>();
        let word = |at: usize| *args.add(at);
        if count < 3 {
            return;
        }
        let mut asked = same(word(1), b"shim\0");
        let command = same(word(1), b"oci\0");
        SMALL.store(asked || command, Ordering::Relaxed);
        let mut at = 2;
        while at < count && command {
            asked |= COMMANDS.iter().any(|command| same(word(at), command));
            at += 1;
        }
        if !asked {
            return;
        }
        let mut statfs = MaybeUninit::<[usize; STATFS_WORDS]>::uninit();
        let found = call(libc::SYS_statfs, [EXE.as_ptr() as usize, statfs.as_mut_ptr() as usize, 0, 0, 0]);
        if found != 0
            || read_volatile(statfs.as_ptr().cast::<usize>().add(STATFS_FLAGS)) & libc::ST_RDONLY as usize != 0
        {
            return;
        }
        let flags = (libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC) as usize;
        let mount = call(libc::SYS_open_tree, [libc::AT_FDCWD as usize, EXE.as_ptr() as usize, flags, 0, 0]);
        let (Ok(mount), empty) = (usize::try_from(mount), c"".as_ptr() as usize) else { return };
        let read_only = (&raw const READ_ONLY) as usize;
        let by_fd = libc::AT_EMPTY_PATH as usize;
        if call(libc::SYS_mount_setattr, [mount, empty, by_fd, read_only, size_of_val(&READ_ONLY)]) == 0 {
            let env = args.add(count + 1) as usize;
            call(libc::SYS_execveat, [mount, empty, args as usize, env, by_fd]);
        }
        call(libc::SYS_close, [mount, 0, 0, 0, 0]);
    }
}

/// Whether two strings that end with a zero byte are the same.
///
/// # Safety
/// `text` is one.
unsafe fn same(text: *const u8, wanted: &[u8]) -> bool {
    // SAFETY: reading ends at the first difference, so at the latest at the zero byte of the shorter one.
    let same_at = |(at, byte): (usize, &u8)| unsafe { read_volatile(text.add(at)) } == *byte;
    !text.is_null() && wanted.iter().enumerate().all(same_at)
}

/// A system call with up to five arguments; negative: an error.
///
/// # Safety
/// As for the call itself.
unsafe fn call(number: libc::c_long, arguments: [usize; 5]) -> isize {
    let result: isize;
    let [first, second, third, fourth, fifth] = arguments;
    // SAFETY: the kernel's convention: it keeps all registers but these.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") first, in("rsi") second, in("rdx") third, in("r10") fourth, in("r8") fifth,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use std::ptr::null;

    use super::*;

    #[test]
    fn strings_are_compared_to_their_end() {
        for (text, want) in [(c"run", true), (c"ru", false), (c"runs", false), (c"", false)] {
            // SAFETY: it ends with a zero byte.
            assert_eq!(unsafe { same(text.as_ptr().cast(), b"run\0") }, want, "{text:?}");
        }
        // SAFETY: null is allowed for.
        assert!(!unsafe { same(null(), b"run\0") });
    }
}
