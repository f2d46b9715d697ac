//! Work in rounds, each of which needs what all of the last one made.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};

use crate::Parallel;

/// Calls `f(round, piece)` for each piece of each round, once; a round begins when the one before it is done. A thread does the same
/// piece of every round as long as no other has nothing to do, and between two rounds threads meet without the pool: for pieces of a
/// few microseconds.
pub fn rounds(pool: &dyn Parallel, rounds: usize, pieces: usize, f: &(dyn Fn(usize, usize) + Sync)) {
    if pieces < 2 || pool.threads() == 1 {
        return (0..rounds).for_each(|round| (0..pieces).for_each(|piece| f(round, piece)));
    }
    let meeting = Meeting {
        pieces,
        claimed: (0..pieces).map(|_| Claimed(AtomicUsize::new(0))).collect(),
        done: Claimed(AtomicUsize::new(0)),
        given_up: AtomicBool::new(false),
    };
    // However many of these run at the same time: what nobody has begun, the first does.
    pool.for_each(pool.threads().min(pieces), &|me| meeting.attend(rounds, me, f));
}

struct Meeting {
    pieces: usize,
    /// For each piece the rounds that somebody does or has done.
    claimed: Vec<Claimed>,
    /// Pieces done, of all rounds.
    done: Claimed,
    /// Whether a piece has panicked: the rounds will not go on.
    given_up: AtomicBool,
}

/// In a cache line of its own, and the next, which is fetched with it.
#[repr(align(128))]
struct Claimed(AtomicUsize);

/// Says so where a piece is not done when this goes.
struct Whole<'a>(&'a AtomicBool);

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, SeqCst);
        }
    }
}

impl Meeting {
    fn attend(&self, rounds: usize, me: usize, f: &(dyn Fn(usize, usize) + Sync)) {
        let done = &self.done.0;
        loop {
            let round = done.load(Acquire) / self.pieces;
            if round >= rounds {
                return;
            }
            for piece in (me..self.pieces).chain(0..me) {
                let claimed = &self.claimed[piece].0;
                if claimed.load(Relaxed) == round
                    && claimed.compare_exchange(round, round + 1, Relaxed, Relaxed).is_ok()
                {
                    let whole = Whole(&self.given_up);
                    f(round, piece);
                    drop(whole);
                    done.fetch_add(1, AcqRel);
                }
            }
            // The others do theirs now.
            let mut spins = 0u32;
            while done.load(Acquire) < (round + 1) * self.pieces {
                if self.given_up.load(Relaxed) {
                    return;
                }
                spins += 1;
                if spins.is_multiple_of(1024) { std::thread::yield_now() } else { std::hint::spin_loop() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;

    use super::*;
    use crate::{Serial, Threads};

    /// Every piece of a round sees all of the round before.
    fn check(pool: &dyn Parallel, count: usize, pieces: usize) {
        let made: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
        rounds(pool, count, pieces, &|round, piece| {
            let of = |other: &AtomicUsize| other.load(Relaxed);
            assert_eq!(of(&made[piece]), round);
            assert!(made.iter().all(|other| (round..=round + 1).contains(&of(other))));
            made[piece].store(round + 1, Relaxed);
        });
        assert!(made.into_iter().all(|m| m.into_inner() == count));
    }

    #[test]
    fn rounds_come_one_after_the_other() {
        let pools = [1, 2, 3, 5].map(|threads| Threads::new(threads).unwrap());
        for pieces in [0, 1, 2, 3, 7] {
            for count in [0, 1, 2, 500] {
                check(&Serial, count, pieces);
                pools.iter().for_each(|pool| check(pool, count, pieces));
            }
        }
    }

    /// Within a batch of the same pool, whose threads do the work alone.
    #[test]
    fn nobody_else_need_come() {
        let pool = Threads::new(3).unwrap();
        pool.for_each(3, &|_| check(&pool, 50, 3));
    }

    #[test]
    fn a_panic_ends_it() {
        let pool = Threads::new(2).unwrap();
        let seen = Mutex::new(0);
        let run = || {
            rounds(&pool, 100, 2, &|round, piece| {
                assert!(round < 3 || piece == 0, "piece {piece}");
                *seen.lock().unwrap() += 1;
            });
        };
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        assert!(seen.into_inner().unwrap() <= 7);
        check(&pool, 10, 2);
    }
}
