//! A pool of threads for kernels: short pieces of work, one batch after another.
//!
//! A worker that has just worked looks out for the next batch for a moment and then sleeps, so that a run does not wait for
//! the operating system between two operators, and an idle pool costs nothing.

use std::cell::UnsafeCell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Parallel, fp};

/// How long a worker looks out before it sleeps.
const LOOK_OUT: Duration = Duration::from_micros(100);

/// A batch is open from when it is published until the caller has no piece left to claim. The state is its number and
/// how many workers have joined it.
const JOINED: u64 = 0xffff;
const CLOSED: u64 = 1 << 16;
const NUMBER: u64 = 1 << 17;

/// A batch: `f(0)`, ..., `f(pieces - 1)`.
#[derive(Clone, Copy)]
struct Batch {
    f: *const (dyn Fn(usize) + Sync),
    pieces: usize,
}

struct Board {
    state: AtomicU64,
    /// Written by the caller while the last batch is closed and left by all; read by workers that joined.
    batch: UnsafeCell<Option<Batch>>,
    /// For the caller and each worker how many of its share of the pieces are claimed.
    claimed: Vec<Claimed>,
    /// Workers that have left the batch.
    left: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    asleep: Mutex<usize>,
    wake: Condvar,
}

/// In a cache line of its own: everyone counts for himself most of the time.
#[repr(align(64))]
struct Claimed(AtomicUsize);

// SAFETY: `batch` is read and written in turns, as `Threads::for_each` and `work` say; what it points to is `Sync`.
unsafe impl Sync for Board {}
// SAFETY: as above; the pointer is only followed while the caller waits.
unsafe impl Send for Board {}

/// A pool: the calling thread and workers. Calls from several threads at once are served one at a time, the others
/// do their work alone.
pub struct Threads {
    board: Arc<Board>,
    workers: Vec<JoinHandle<()>>,
    turn: Mutex<()>,
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Threads({})", self.threads())
    }
}

impl Threads {
    /// A pool of `threads` threads, the caller included.
    ///
    /// # Errors
    /// What the operating system says when it refuses a thread.
    pub fn new(threads: usize) -> io::Result<Self> {
        let threads = threads.clamp(1, JOINED as usize);
        let board = Arc::new(Board {
            state: AtomicU64::new(CLOSED),
            batch: UnsafeCell::new(None),
            claimed: (0..threads).map(|_| Claimed(AtomicUsize::new(0))).collect(),
            left: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            asleep: Mutex::new(0),
            wake: Condvar::new(),
        });
        let mut pool = Self { board, workers: Vec::new(), turn: Mutex::new(()) };
        for i in 1..threads {
            let board = pool.board.clone();
            let builder = std::thread::Builder::new().name(format!("isobit-{i}"));
            pool.workers.push(builder.spawn(move || work(&board, i))?);
        }
        Ok(pool)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.board.stop.store(true, SeqCst);
        let asleep = self.board.asleep.lock().unwrap_or_else(|e| e.into_inner());
        self.board.wake.notify_all();
        drop(asleep);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Parallel for Threads {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn for_each(&self, pieces: usize, f: &(dyn Fn(usize) + Sync)) {
        // A single piece leaves the workers to what is in it.
        if pieces < 2 || self.workers.is_empty() {
            return (0..pieces).for_each(f);
        }
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
            Err(TryLockError::WouldBlock) => return (0..pieces).for_each(f),
        };
        let board = &*self.board;
        // SAFETY: erases the lifetime; nobody follows the pointer once this call has returned.
        let f: *const (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(f) };
        // SAFETY: the last batch is closed and every worker that joined it has left; new ones join open batches only.
        unsafe { *board.batch.get() = Some(Batch { f, pieces }) };
        for claimed in &board.claimed {
            claimed.0.store(0, Relaxed);
        }
        board.left.store(0, Relaxed);
        board.panicked.store(false, Relaxed);
        let number = board.state.load(Relaxed) & !(JOINED | CLOSED);
        board.state.store(number.wrapping_add(NUMBER), SeqCst);
        let asleep = board.asleep.lock().map_or_else(|e| *e.into_inner(), |n| *n);
        if asleep > 0 {
            board.wake.notify_all();
        }
        // Whatever happens to the caller's own pieces, the workers are waited for.
        let close = Close(board);
        // SAFETY: `f` is alive.
        claim(board, 0, unsafe { &*f }, pieces);
        drop(close);
        if board.panicked.swap(false, SeqCst) {
            panic!("a worker thread panicked");
        }
    }
}

/// Closes the batch and waits for those who joined it.
struct Close<'a>(&'a Board);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let joined = (self.0.state.fetch_or(CLOSED, SeqCst) & JOINED) as usize;
        let mut spins = 0u32;
        while self.0.left.load(Acquire) < joined {
            spins += 1;
            if spins.is_multiple_of(1024) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

/// Pieces are claimed one by one, so a slow thread holds up no more than its own piece. Each thread begins with a share of its own,
/// the same part of every batch, because what it made of that part before is still in its cache; then it helps the others.
fn claim(board: &Board, me: usize, f: &(dyn Fn(usize) + Sync), pieces: usize) {
    let threads = board.claimed.len();
    for share in (me..threads).chain(0..me) {
        let start = |share: usize| (share * pieces).div_ceil(threads);
        let (first, count) = (start(share), start(share + 1) - start(share));
        let claimed = &board.claimed[share].0;
        while claimed.load(Relaxed) < count {
            let piece = claimed.fetch_add(1, Relaxed);
            if piece < count {
                f(first + piece);
            }
        }
    }
}

fn work(board: &Board, me: usize) {
    let mut seen = CLOSED;
    let mut since = Instant::now();
    let mut spins = 0u32;
    while !board.stop.load(Relaxed) {
        let state = board.state.load(Acquire);
        if state & CLOSED == 0 && state & !JOINED != seen {
            if board.state.compare_exchange_weak(state, state + 1, SeqCst, Relaxed).is_err() {
                continue;
            }
            seen = state & !JOINED;
            // SAFETY: the batch was open when this worker joined: the caller waits until it has left.
            let batch = unsafe { *board.batch.get() };
            if let Some(Batch { f, pieces }) = batch {
                // SAFETY: as above.
                let f = unsafe { &*f };
                let run = || fp::with_profile_env(|| claim(board, me, f, pieces));
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
                    board.panicked.store(true, SeqCst);
                }
            }
            board.left.fetch_add(1, Release);
            since = Instant::now();
            continue;
        }
        std::hint::spin_loop();
        spins = spins.wrapping_add(1);
        if spins.is_multiple_of(64) && since.elapsed() > LOOK_OUT {
            sleep(board, state);
            since = Instant::now();
        }
    }
}

/// Sleeps until there is a batch other than the one of `state`.
fn sleep(board: &Board, state: u64) {
    let mut asleep = board.asleep.lock().unwrap_or_else(|e| e.into_inner());
    *asleep += 1;
    while board.state.load(SeqCst) & !(JOINED | CLOSED) == state & !(JOINED | CLOSED)
        && !board.stop.load(SeqCst)
    {
        asleep = board.wake.wait(asleep).unwrap_or_else(|e| e.into_inner());
    }
    *asleep -= 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Threads::new(threads).unwrap();
            for round in 0..200 {
                for pieces in [0, 1, 2, 3, 100] {
                    let counts: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                    pool.for_each(pieces, &|i| {
                        counts[i].fetch_add(1, Relaxed);
                    });
                    assert!(counts.iter().all(|c| c.load(Relaxed) == 1));
                }
                if round % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    #[test]
    fn several_callers_and_nested_calls() {
        let pool = Threads::new(3).unwrap();
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        pool.for_each(4, &|i| {
                            pool.for_each(3, &|j| {
                                sum.fetch_add(i * 3 + j, Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 300 * 66);
    }

    #[test]
    fn what_is_in_a_single_piece_is_shared() {
        let pool = Threads::new(2).unwrap();
        // Each piece waits for the other one.
        let together = std::sync::Barrier::new(2);
        pool.for_each(1, &|_| {
            pool.for_each(2, &|_| {
                together.wait();
            });
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Threads::new(2).unwrap();
        for _ in 0..50 {
            let run = || pool.for_each(2, &|i| assert_eq!(i, 2, "piece {i}"));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        }
        let done = AtomicUsize::new(0);
        pool.for_each(10, &|_| {
            done.fetch_add(1, Relaxed);
        });
        assert_eq!(done.into_inner(), 10);
    }
}
