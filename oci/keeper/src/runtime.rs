//! What a program needs that has neither std nor libc: the entry, the memory functions that the compiler calls,
//! and an end for a panic.
//!
//! `cargo test` builds the programs with unwinding, which only std can do; then std brings the memory functions
//! and the panic handler. Such a build is linked but never run.

use core::ffi::{CStr, c_char};

use crate::sys;

core::arch::global_asm!(
    ".globl _start",
    ".type _start,@function",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {start}",
    "ud2",
    start = sym start,
);

/// The arguments and the environment, which live as long as the process.
#[derive(Clone, Copy)]
pub struct Start {
    stack: *const usize,
}

impl Start {
    /// argc.
    pub fn argc(self) -> usize {
        // SAFETY: the kernel put argc where the stack pointer was at the entry.
        unsafe { *self.stack }
    }

    /// argv, ended by a null pointer.
    pub fn argv(self) -> *const *const c_char {
        self.stack.wrapping_add(1).cast()
    }

    /// The environment, ended by a null pointer.
    pub fn envp(self) -> *const *const c_char {
        self.argv().wrapping_add(self.argc() + 1)
    }

    /// The environment's value of `NAME=`.
    pub fn variable(self, name: &[u8]) -> Option<&'static [u8]> {
        let mut entry = self.envp();
        loop {
            // SAFETY: the array ends with a null pointer; every entry before it is a string on the initial
            // stack, which is never unmapped.
            let text = unsafe {
                if (*entry).is_null() {
                    return None;
                }
                CStr::from_ptr(*entry).to_bytes()
            };
            if let Some(value) = text.strip_prefix(name) {
                return Some(value);
            }
            entry = entry.wrapping_add(1);
        }
    }

    /// One argument; the empty string if there is no such.
    pub fn argument(self, index: usize) -> &'static CStr {
        if index >= self.argc() {
            return c"";
        }
        // SAFETY: below argc every entry is a string on the initial stack, which is never unmapped.
        unsafe { CStr::from_ptr(*self.argv().add(index)) }
    }
}

unsafe extern "C" fn start(stack: *const usize) -> ! {
    sys::exit(crate::run(Start { stack }))
}

#[cfg(panic = "abort")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::exit(101)
}

/// `core` refers to it even where nothing unwinds.
#[cfg(panic = "abort")]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// The functions that compiled code may call at any place. Without loops in Rust: the compiler would make
/// calls of the same functions out of them.
#[cfg(panic = "abort")]
mod memory {
    use core::arch::asm;
    use core::ptr::{read_unaligned as get, write_unaligned as put};

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
        // SAFETY: the caller vouches for `n` bytes at both places; every access below is within them.
        // Small sizes: two overlapping halves, much faster than starting up `rep movsb`.
        unsafe {
            match n {
                0 => {}
                1 => *to = *from,
                2..4 => ends::<u16>(to, from, n),
                4..8 => ends::<u32>(to, from, n),
                8..16 => ends::<u64>(to, from, n),
                16..=32 => ends::<u128>(to, from, n),
                33..=64 => {
                    let (a, b): (u128, u128) = (get(from.cast()), get(from.add(16).cast()));
                    let (c, d): (u128, u128) = (get(from.add(n - 32).cast()), get(from.add(n - 16).cast()));
                    put(to.cast(), a);
                    put(to.add(16).cast(), b);
                    put(to.add(n - 32).cast(), c);
                    put(to.add(n - 16).cast(), d);
                }
                _ => forward(to, from, n),
            }
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
        // SAFETY: as for memcpy; upwards is right unless the target begins inside of the source, and then
        // downwards is.
        unsafe {
            if (to as usize).wrapping_sub(from as usize) >= n {
                forward(to, from, n);
            } else {
                asm!("std", "rep movsb", "cld",
                    inout("rcx") n => _, inout("rdi") to.wrapping_add(n).wrapping_sub(1) => _,
                    inout("rsi") from.wrapping_add(n).wrapping_sub(1) => _, options(nostack));
            }
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, n: usize) -> *mut u8 {
        // SAFETY: the caller vouches for `n` writable bytes.
        unsafe {
            asm!("rep stosb", inout("rcx") n => _, inout("rdi") to => _, in("al") byte as u8,
                options(nostack, preserves_flags));
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
        let mut at = 0;
        while at < n {
            // SAFETY: the caller vouches for `n` bytes at both places. Volatile, so that the loop stays one.
            let (x, y) = unsafe { (a.add(at).read_volatile(), b.add(at).read_volatile()) };
            if x != y {
                return i32::from(x) - i32::from(y);
            }
            at += 1;
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
        // SAFETY: the same contract.
        unsafe { memcmp(a, b, n) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn strlen(text: *const u8) -> usize {
        let mut n = 0;
        // SAFETY: the caller vouches for a terminating zero.
        while unsafe { text.add(n).read_volatile() } != 0 {
            n += 1;
        }
        n
    }

    /// The first and the last `T` of `n` bytes, which overlap.
    #[inline(always)]
    unsafe fn ends<T: Copy>(to: *mut u8, from: *const u8, n: usize) {
        let last = n - size_of::<T>();
        // SAFETY: `n` is at least the size of a `T`; both are read before any is written.
        unsafe {
            let (a, b): (T, T) = (get(from.cast()), get(from.add(last).cast()));
            put(to.cast(), a);
            put(to.add(last).cast(), b);
        }
    }

    #[inline(always)]
    unsafe fn forward(to: *mut u8, from: *const u8, n: usize) {
        // SAFETY: the caller vouches for `n` bytes at both places; the direction flag is clear (ABI).
        unsafe {
            asm!("rep movsb", inout("rcx") n => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags));
        }
    }
}
