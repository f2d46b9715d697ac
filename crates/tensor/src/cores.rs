//! Work on all cores, for what is as large as weights: hashing, mostly.

use std::sync::Mutex;

/// Bytes of which it is worth waking other cores.
const WORTH: usize = 1 << 22;

/// `work` on each item, in any order, the last of the list first; on all cores where the items stand for many bytes.
pub fn each<T: Send>(items: Vec<T>, bytes: usize, work: impl Fn(T) + Sync) {
    let threads = if bytes < WORTH { 1 } else { std::thread::available_parallelism().map_or(1, |n| n.get()) };
    let threads = threads.min(items.len());
    let rest = Mutex::new(items);
    let next = || rest.lock().unwrap_or_else(|e| e.into_inner()).pop();
    let run = || {
        while let Some(item) = next() {
            work(item);
        }
    };
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(run)));
        run();
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_item_is_worked_on_once() {
        for bytes in [0, usize::MAX] {
            let done = std::sync::Mutex::new(Vec::new());
            super::each((0..1000).collect(), bytes, |i| done.lock().unwrap().push(i));
            let mut done = done.into_inner().unwrap();
            done.sort();
            assert_eq!(done, (0..1000).collect::<Vec<_>>());
        }
    }
}
