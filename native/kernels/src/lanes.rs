//! Sixteen f32 in registers. The compiler finds its own way for loops over rows; where sums must stay in registers it is
//! told.

/// Lanes of a register, or of as many as make sixteen.
pub(crate) const WIDTH: usize = 16;

/// Sixteen f32. Implementations for an instruction set are used only inside functions compiled for it.
pub(crate) trait Lanes: Copy {
    /// Whether sixteen sums and what they are made of fit in the registers; if not, four do.
    const MANY: bool;

    fn splat(x: f32) -> Self;
    fn load(from: &[f32; WIDTH]) -> Self;
    fn store(self, to: &mut [f32; WIDTH]);
    /// `self · x + sum`, rounded once.
    fn mul_add(self, x: Self, sum: Self) -> Self;
}

/// Any CPU.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; WIDTH]);

impl Lanes for Portable {
    const MANY: bool = false;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; WIDTH])
    }

    #[inline(always)]
    fn load(from: &[f32; WIDTH]) -> Self {
        Self(*from)
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; WIDTH]) {
        *to = self.0;
    }

    #[inline(always)]
    fn mul_add(self, x: Self, mut sum: Self) -> Self {
        for i in 0..WIDTH {
            sum.0[i] = self.0[i].mul_add(x.0[i], sum.0[i]);
        }
        sum
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Lanes, WIDTH};

    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    // SAFETY of all blocks: values of this type are only made in functions compiled for AVX2 and FMA, which an `Isa`
    // guards; loads and stores stay within sixteen floats.
    impl Lanes for Avx2 {
        const MANY: bool = false;

        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: see above.
            let x = unsafe { _mm256_set1_ps(x) };
            Self(x, x)
        }

        #[inline(always)]
        fn load(from: &[f32; WIDTH]) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
        }

        #[inline(always)]
        fn store(self, to: &mut [f32; WIDTH]) {
            // SAFETY: see above.
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), self.0);
                _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
            }
        }

        #[inline(always)]
        fn mul_add(self, x: Self, sum: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_fmadd_ps(self.0, x.0, sum.0), _mm256_fmadd_ps(self.1, x.1, sum.1)) }
        }
    }

    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    // SAFETY of all blocks: as above, for AVX-512 F.
    impl Lanes for Avx512 {
        const MANY: bool = true;

        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_set1_ps(x) })
        }

        #[inline(always)]
        fn load(from: &[f32; WIDTH]) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_loadu_ps(from.as_ptr()) })
        }

        #[inline(always)]
        fn store(self, to: &mut [f32; WIDTH]) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
        }

        #[inline(always)]
        fn mul_add(self, x: Self, sum: Self) -> Self {
            // SAFETY: see above.
            Self(unsafe { _mm512_fmadd_ps(self.0, x.0, sum.0) })
        }
    }
}
