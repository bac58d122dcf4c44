//! The memory functions that compiled code calls; there is no C library here.

use core::arch::asm;

/// C `memcpy`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's promise. Short copies, the most frequent by far, are
    // not worth the start of a string instruction; the last piece overlaps the
    // one before.
    unsafe {
        if (16..=512).contains(&n) {
            asm!(
                "2:",
                "movups {v}, xmmword ptr [{from} + {i}]",
                "movups xmmword ptr [{to} + {i}], {v}",
                "add {i}, 16",
                "cmp {i}, {last}",
                "jb 2b",
                "movups {v}, xmmword ptr [{from} + {last}]",
                "movups xmmword ptr [{to} + {last}], {v}",
                v = out(xmm_reg) _, i = inout(reg) 0usize => _, last = in(reg) n - 16,
                from = in(reg) from, to = in(reg) to, options(nostack)
            );
        } else {
            forward(to, from, n);
        }
    }
    to
}

/// Copies byte by byte upwards, as far as anybody can tell.
///
/// # Safety
/// Both ranges are valid; `from` may overlap `to` from above.
unsafe fn forward(to: *mut u8, from: *const u8, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("rep movsb", inout("rcx") n => _, inout("rdi") to => _, inout("rsi") from => _,
             options(nostack, preserves_flags));
    }
}

/// C `memmove`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= n {
        // SAFETY: a forward copy cannot overwrite what is still to be read.
        unsafe { forward(to, from, n) };
        return to;
    }
    // SAFETY: backwards; the direction flag is cleared again.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") n => _,
             inout("rdi") to.wrapping_add(n).wrapping_sub(1) => _,
             inout("rsi") from.wrapping_add(n).wrapping_sub(1) => _, options(nostack));
    }
    to
}

/// C `memset`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, value: i32, n: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("rep stosb", inout("rcx") n => _, inout("rdi") to => _, in("al") value as u8,
             options(nostack, preserves_flags));
    }
    to
}

/// C `memcmp`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    let mut i = 0;
    while i < n {
        // SAFETY: within both ranges.
        let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        i += 1;
    }
    0
}

/// C `bcmp`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(a, b, n) }
}
