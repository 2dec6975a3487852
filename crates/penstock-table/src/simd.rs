//! Which vector instructions the kernels use. Every level gives the same bits (ADR 0030).

/// From narrow to wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What the crate was compiled for (x86-64-v2).
    Baseline,
    Avx2,
    Avx512,
}

impl Level {
    /// The widest that this processor has, or what the environment's `PENSTOCK_SIMD` names if that is narrower.
    pub fn detect() -> Level {
        match std::env::var("PENSTOCK_SIMD").as_deref() {
            Ok("baseline") => Level::Baseline,
            Ok("avx2") => Level::of_processor().min(Level::Avx2),
            _ => Level::of_processor(),
        }
    }

    fn of_processor() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match (avx2, avx512) {
                (true, true) => return Level::Avx512,
                (true, false) => return Level::Avx2,
                _ => {}
            }
        }
        Level::Baseline
    }

    /// This level, or the widest below it that the processor has.
    pub fn available(self) -> Level {
        self.min(Level::of_processor())
    }

    pub fn name(self) -> &'static str {
        match self {
            Level::Baseline => "baseline",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }
}

/// Defines `$name(level, arguments)`: `$body` compiled for each level, and called for the one asked for.
///
/// `$body` is an `#[inline(always)]` unsafe function generic over a `Search`. Safety: `level` is available.
macro_rules! at_each_level {
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident $(<$($life:lifetime,)* $($generic:ident : $bound:path),*>)? ($($arg:ident : $type:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name $(<$($life,)* $($generic: $bound),*>)? (level: $crate::simd::Level, $($arg: $type),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
                #[allow(clippy::too_many_arguments)]
                unsafe fn avx2 $(<$($life,)* $($generic: $bound),*>)? ($($arg: $type),*) $(-> $ret)? {
                    // SAFETY: the caller's promise; this level has AVX2.
                    unsafe { $body::<$crate::line::Avx2 $($(, $generic)*)?>($($arg),*) }
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi1,bmi2,lzcnt")]
                #[allow(clippy::too_many_arguments)]
                unsafe fn avx512 $(<$($life,)* $($generic: $bound),*>)? ($($arg: $type),*) $(-> $ret)? {
                    // SAFETY: the caller's promise; this level has AVX-512.
                    unsafe { $body::<$crate::line::Avx512 $($(, $generic)*)?>($($arg),*) }
                }
                // SAFETY: `level` is available.
                unsafe {
                    match level {
                        $crate::simd::Level::Avx512 => return avx512 $(::<$($generic),*>)? ($($arg),*),
                        $crate::simd::Level::Avx2 => return avx2 $(::<$($generic),*>)? ($($arg),*),
                        $crate::simd::Level::Baseline => {}
                    }
                }
            }
            let _ = level;
            // SAFETY: the caller's promise; the baseline needs nothing.
            unsafe { $body::<$crate::line::Plain $($(, $generic)*)?>($($arg),*) }
        }
    };
}
pub(crate) use at_each_level;
