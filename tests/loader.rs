//! Parallel, ordered, bounded prefetch.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use terrabench::data::loader::ordered;
use terrabench::{Error, Result};

/// Takes as long as the index says in its low bits, so that items finish out of order.
fn slowly(index: usize) -> Result<usize> {
    std::thread::sleep(Duration::from_micros((index as u64 * 37) % 400));
    Ok(index)
}

#[test]
fn items_come_in_order_whatever_the_threads() {
    for (threads, ahead) in [(1, 1), (2, 1), (2, 5), (3, 3), (4, 64), (0, 0), (200, 7)] {
        let items: Vec<usize> =
            ordered(100, threads, ahead, slowly, |items| items.map(Result::unwrap).collect());
        assert_eq!(items, (0..100).collect::<Vec<_>>(), "{threads} threads, {ahead} ahead");
    }
}

#[test]
fn nothing_to_read_is_nothing_read() {
    assert_eq!(ordered(0, 2, 4, slowly, |items| items.count()), 0);
}

#[test]
fn at_most_so_many_items_are_in_flight() {
    for (threads, ahead) in [(1, 1), (2, 2), (2, 7), (4, 8), (8, 3)] {
        let (begun, taken, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let read = |index| {
            let in_flight = begun.fetch_add(1, Ordering::SeqCst) + 1 - taken.load(Ordering::SeqCst);
            most.fetch_max(in_flight, Ordering::SeqCst);
            Ok(index)
        };
        ordered(60, threads, ahead, read, |items| {
            for item in items {
                item.unwrap();
                std::thread::sleep(Duration::from_millis(1));
                taken.fetch_add(1, Ordering::SeqCst);
            }
        });
        // The item that is being consumed is no longer in flight, but is counted above.
        let most = most.into_inner();
        assert!(most <= ahead + 1, "{threads} threads, {ahead} ahead: {most} in flight");
    }
}

#[test]
fn items_are_read_side_by_side() {
    let barrier = std::sync::Barrier::new(2);
    // Only two readers at once can pass.
    let read = |index| {
        barrier.wait();
        Ok(index)
    };
    let count = ordered(10, 2, 4, read, |items| items.filter(Result::is_ok).count());
    assert_eq!(count, 10);
}

#[test]
fn the_first_error_in_order_ends_it() {
    let begun = AtomicUsize::new(0);
    let read = |index: usize| {
        begun.fetch_add(1, Ordering::SeqCst);
        match index {
            // The later error is found first.
            20 => {
                std::thread::sleep(Duration::from_millis(20));
                Err(Error::request("item 20"))
            }
            21 => Err(Error::request("item 21")),
            _ => Ok(index),
        }
    };
    let items: Vec<Result<usize>> = ordered(10_000, 2, 4, read, |items| items.collect());
    assert_eq!(items.len(), 21);
    assert!(items[..20].iter().all(Result::is_ok));
    assert_eq!(items[20].as_ref().unwrap_err().to_string(), "item 20");
    assert!(begun.into_inner() < 40);
}

#[test]
fn leaving_early_stops_the_workers() {
    let begun = AtomicUsize::new(0);
    let read = |index| {
        begun.fetch_add(1, Ordering::SeqCst);
        Ok(index)
    };
    let third = ordered(1_000_000, 3, 6, read, |mut items| items.nth(2).unwrap().unwrap());
    assert_eq!(third, 2);
    assert!(begun.into_inner() < 100);
}

#[test]
fn a_panic_in_a_worker_is_the_error_of_its_sample() {
    let read = |index| {
        terrabench::stop::note_sample(format_args!("m-eurosat train Forest_{index}"));
        assert!(index != 5, "a cursed image");
        Ok(index)
    };
    let items: Vec<_> = ordered(100, 2, 4, read, |items| items.collect());
    assert_eq!(items.len(), 6, "the five before it and the error");
    let error = items[5].as_ref().unwrap_err();
    assert_eq!(error.kind(), terrabench::ErrorKind::Defect);
    assert!(error.to_string().contains("m-eurosat train Forest_5: "), "{error}");
    assert!(error.to_string().contains("a cursed image"), "{error}");
}
