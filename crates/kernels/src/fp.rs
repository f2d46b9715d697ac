//! The floating-point environment of the profile: round to nearest even, subnormals kept.

/// Runs `f` with the profile's floating-point environment on this thread and restores the previous one.
///
/// Rust assumes this environment everywhere; a host program (or a C library) may have set flush-to-zero
/// behind its back, which would change results.
pub fn with_profile_env<R>(f: impl FnOnce() -> R) -> R {
    let _restore = imp::Restore::enter();
    f()
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use std::arch::asm;

    /// All exceptions masked, round to nearest, neither flush-to-zero nor denormals-are-zero.
    static PROFILE: u32 = 0x1f80;

    pub(super) struct Restore(u32);

    impl Restore {
        pub(super) fn enter() -> Self {
            let mut before = 0u32;
            // SAFETY: stmxcsr stores 32 bits to the given address, ldmxcsr reads them; PROFILE sets no
            // reserved bit and unmasks no exception.
            unsafe {
                asm!("stmxcsr [{}]", in(reg) &raw mut before, options(nostack, preserves_flags));
                asm!("ldmxcsr [{}]", in(reg) &raw const PROFILE, options(nostack, preserves_flags, readonly));
            }
            Self(before)
        }
    }

    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: the value was in this register before.
            unsafe {
                asm!("ldmxcsr [{}]", in(reg) &raw const self.0, options(nostack, preserves_flags, readonly))
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod imp {
    use std::arch::asm;

    pub(super) struct Restore(u64);

    impl Restore {
        pub(super) fn enter() -> Self {
            let before: u64;
            // SAFETY: FPCR is readable and writable at EL0; zero is round to nearest, no flushing, no traps.
            unsafe {
                asm!("mrs {}, fpcr", out(reg) before, options(nostack, nomem));
                asm!("msr fpcr, {}", in(reg) 0u64, options(nostack, nomem));
            }
            Self(before)
        }
    }

    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: the value was in this register before.
            unsafe { asm!("msr fpcr, {}", in(reg) self.0, options(nostack, nomem)) }
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod imp {
    /// These targets have no flush-to-zero mode that a host would set.
    pub(super) struct Restore;

    impl Restore {
        pub(super) fn enter() -> Self {
            Self
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::arch::asm;
    use std::hint::black_box;

    #[test]
    fn flush_to_zero_is_undone_inside_and_restored_outside() {
        let ftz: u32 = 0x9fc0;
        // SAFETY: sets flush-to-zero and denormals-are-zero, restored below.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const ftz) };
        let half = || black_box(f32::MIN_POSITIVE) * black_box(0.5);
        let outside = half();
        let inside = super::with_profile_env(half);
        let again = half();
        let usual: u32 = 0x1f80;
        // SAFETY: the usual environment.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const usual) };
        assert_eq!((outside, again), (0.0, 0.0));
        assert!(inside > 0.0);
    }
}
