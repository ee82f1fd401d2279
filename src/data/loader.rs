//! Parallel, ordered, bounded prefetch.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use crate::{Result, stop};

/// Reads the items `0..count` on `threads` threads and passes them, in order, to `consume` on the calling
/// thread.
///
/// At most `ahead` items are in progress or waiting to be consumed, so memory use does not grow with `count`.
/// If `ahead` is smaller than `threads`, only `ahead` threads run. The iterator ends after the first error.
/// Once `consume` returns, whether or not it took every item, each worker stops after its current item. A
/// panic in `read` is an error that names the sample ([`stop::guarded`]); a request to stop ([`stop::check`]) is an error of the next
/// item.
pub fn ordered<T: Send, R>(
    count: usize,
    threads: usize,
    ahead: usize,
    read: impl Fn(usize) -> Result<T> + Sync,
    consume: impl FnOnce(Ordered<T>) -> R,
) -> R {
    // Worker w reads items w, w + threads, … into its own queue. Taking from the queues in turn restores the
    // order, and a full queue makes its worker wait.
    let threads = threads.min(ahead).min(count).max(1);
    // The item that a worker holds while its queue is full counts towards `ahead` too.
    let queue = (ahead / threads).saturating_sub(1);
    std::thread::scope(|scope| {
        let workers = (0..threads)
            .map(|first| Worker::start(scope, queue, (first..count).step_by(threads), &read))
            .collect();
        consume(Ordered { workers, next: 0, count })
    })
}

/// The items of [`ordered`], in order, until the first error.
#[derive(Debug)]
pub struct Ordered<T> {
    workers: Vec<Worker<T>>,
    next: usize,
    count: usize,
}

#[derive(Debug)]
struct Worker<T> {
    items: Receiver<Result<T>>,
}

impl<T: Send> Worker<T> {
    fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        queue: usize,
        indices: impl Iterator<Item = usize> + Send + 'scope,
        read: &'scope (impl Fn(usize) -> Result<T> + Sync),
    ) -> Self
    where
        T: 'scope,
    {
        let (sender, items): (SyncSender<Result<T>>, _) = sync_channel(queue);
        scope.spawn(move || {
            for index in indices {
                let item = stop::check().and_then(|()| stop::guarded(index, || read(index)));
                let failed = item.is_err();
                // Sending fails if the receiver is gone.
                if sender.send(item).is_err() || failed {
                    break;
                }
            }
        });
        Worker { items }
    }
}

impl<T> Iterator for Ordered<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        if self.next >= self.count {
            return None;
        }
        let turn = self.next % self.workers.len();
        let worker = &mut self.workers[turn];
        match worker.items.recv() {
            Ok(item) => {
                self.next = if item.is_ok() { self.next + 1 } else { self.count };
                Some(item)
            }
            // A worker sends all of its items, up to its first error.
            Err(_) => {
                self.next = self.count;
                None
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error may end the iteration sooner.
        (0, Some(self.count.saturating_sub(self.next)))
    }
}
