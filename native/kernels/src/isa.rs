//! Which instructions this machine has. A value of [`Isa`] is a proof: it is only made where they were detected.

use std::sync::OnceLock;

use crate::product::self_check;

/// An instruction set that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Any CPU.
    Portable,
    /// AVX2, FMA and F16C: 32 int8 products an instruction.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, VL and VNNI: 64 int8 products an instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// Rust without intrinsics: the reference for all others.
    pub const PORTABLE: Self = Self(Level::Portable);

    /// All that this machine has, slowest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut found = vec![Self::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                found.push(Self(Level::Avx2));
                if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni") {
                    found.push(Self(Level::Avx512));
                }
            }
        }
        found
    }

    /// The fastest whose products equal the portable ones on random input, checked once; the names of those that did
    /// not are in [`Isa::refused`].
    pub fn best() -> Self {
        checked().0
    }

    /// Instruction sets that this machine has and that failed the check: a defect of the machine or of this crate.
    pub fn refused() -> &'static [Self] {
        &checked().1
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512-vnni",
        }
    }

    pub(crate) fn level(self) -> Level {
        self.0
    }
}

fn checked() -> &'static (Isa, Vec<Isa>) {
    static CHECKED: OnceLock<(Isa, Vec<Isa>)> = OnceLock::new();
    CHECKED.get_or_init(|| {
        let (good, bad): (Vec<_>, Vec<_>) = Isa::available().into_iter().partition(|isa| self_check(*isa));
        (good.last().copied().unwrap_or(Isa::PORTABLE), bad)
    })
}

/// Defines a function that runs a body compiled for the instruction set at hand. The body is Rust, whose float
/// operations the compiler may widen but never reorder or fuse: the bits stay the same. A body marked `lanes` takes its
/// registers as its first type parameter.
macro_rules! compiled_for_each_isa {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident;) => {
        compiled_for_each_isa!(@ $(#[$meta])* $vis $name [] ($($arg: $ty),*) ($body) ($body) ($body));
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = lanes $body:ident;) => {
        compiled_for_each_isa!(@ $(#[$meta])* $vis $name [] ($($arg: $ty),*)
            ($body::<$crate::lanes::Portable>) ($body::<$crate::lanes::Avx2>) ($body::<$crate::lanes::Avx512>));
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$g:ident: $bound:path>($($arg:ident: $ty:ty),* $(,)?) = lanes $body:ident;) => {
        compiled_for_each_isa!(@ $(#[$meta])* $vis $name [$g: $bound] ($($arg: $ty),*)
            ($body::<$crate::lanes::Portable, $g>) ($body::<$crate::lanes::Avx2, $g>) ($body::<$crate::lanes::Avx512, $g>));
    };
    (@ $(#[$meta:meta])* $vis:vis $name:ident [$($g:ident: $bound:path)?] ($($arg:ident: $ty:ty),*)
        ($portable:expr) ($avx2:expr) ($avx512:expr)) => {
        $(#[$meta])*
        $vis fn $name<$($g: $bound)?>(isa: $crate::isa::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2<$($g: $bound)?>($($arg: $ty),*) {
                    $avx2($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
                fn avx512<$($g: $bound)?>($($arg: $ty),*) {
                    $avx512($($arg),*)
                }
                match isa.level() {
                    // SAFETY: an `Isa` proves that its instructions were detected.
                    $crate::isa::Level::Avx2 => return unsafe { avx2::<$($g)?>($($arg),*) },
                    // SAFETY: as above.
                    $crate::isa::Level::Avx512 => return unsafe { avx512::<$($g)?>($($arg),*) },
                    $crate::isa::Level::Portable => {}
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = isa;
            $portable($($arg),*)
        }
    };
}
pub(crate) use compiled_for_each_isa;
