//! Indices that cannot be out of range.

/// Arrays of a power of two of elements, where an index is cut to what there is.
/// Nothing is checked at run time, and where the compiler knows that the index is
/// in range, nothing is done.
pub trait Masked<T> {
    /// The element at the index.
    fn at(&self, index: usize) -> &T;
    /// The same, to be changed.
    fn at_mut(&mut self, index: usize) -> &mut T;
}

impl<T, const N: usize> Masked<T> for [T; N] {
    #[inline(always)]
    fn at(&self, index: usize) -> &T {
        const { assert!(N.is_power_of_two()) };
        // SAFETY: masked to below N, which is a power of two.
        unsafe { self.get_unchecked(index & (N - 1)) }
    }

    #[inline(always)]
    fn at_mut(&mut self, index: usize) -> &mut T {
        const { assert!(N.is_power_of_two()) };
        // SAFETY: as above.
        unsafe { self.get_unchecked_mut(index & (N - 1)) }
    }
}
