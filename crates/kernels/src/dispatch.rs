//! One body, compiled once for each instruction set: the compiler vectorises it with what the set has. It may
//! not fuse or reorder floating-point operations, so every instance computes the same bits.
//! (The AVX2 instances are unsafe functions because Rust 1.85 has no others with target features.)

/// Defines `pub(crate) fn $name(set, args...)` that runs `$body`'s instance for the set.
macro_rules! multiversion {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $t:ty),* $(,)?) $(-> $r:ty)? $body:block) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(set: $crate::KernelSet, $($arg: $t),*) $(-> $r)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($arg: $t),*) $(-> $r)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx2($($arg: $t),*) $(-> $r)? { body($($arg),*) }

            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx512($($arg: $t),*) $(-> $r)? { body($($arg),*) }

            match set {
                #[cfg(all(target_arch = "x86_64", isobit_avx512))]
                // SAFETY: a set other than Scalar comes from `Exec`, which checked the machine.
                $crate::KernelSet::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::KernelSet::Avx2 => unsafe { avx2($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}
pub(crate) use multiversion;
