//! The functions that the compiler calls for copying, filling and comparing memory.
//!
//! They are made of string instructions, which the compiler does not turn into calls of themselves.

use core::arch::asm;

/// `memcpy` of C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(target: *mut u8, source: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise: both have `len` bytes and don't overlap.
    unsafe {
        asm!(
            "rep movsb",
            inout("rdi") target => _,
            inout("rsi") source => _,
            inout("rcx") len => _,
            options(nostack, preserves_flags),
        );
    }
    target
}

/// `memmove` of C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(target: *mut u8, source: *const u8, len: usize) -> *mut u8 {
    if (target as usize).wrapping_sub(source as usize) >= len {
        // SAFETY: the caller's promise; the target does not begin within the source.
        return unsafe { memcpy(target, source, len) };
    }
    // SAFETY: the caller's promise; copied from the end, so that no byte is read after it was written.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rdi") target.wrapping_add(len).wrapping_sub(1) => _,
            inout("rsi") source.wrapping_add(len).wrapping_sub(1) => _,
            inout("rcx") len => _,
            options(nostack),
        );
    }
    target
}

/// `memset` of C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(target: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise: the target has `len` bytes.
    unsafe {
        asm!(
            "rep stosb",
            inout("rdi") target => _,
            inout("rcx") len => _,
            in("eax") byte,
            options(nostack, preserves_flags),
        );
    }
    target
}

/// `memcmp` of C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    for place in 0..len {
        // SAFETY: the caller's promise: both have `len` bytes.
        let (one, other) = unsafe { (one.add(place).read(), other.add(place).read()) };
        if one != other {
            return i32::from(one) - i32::from(other);
        }
    }
    0
}

/// `bcmp`, which is all that comparing for equality needs.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's promise is the same.
    unsafe { memcmp(one, other, len) }
}
