//! Claims: one of many takes each, dead ones are taken over by one, living ones by nobody.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use terrabench::claims::{Claims, Holder, Taken};

const LONG: Duration = Duration::from_secs(60);

/// Writes the file of a claim, as a process on another machine left it.
fn forge(folder: &Path, name: &str, change: impl FnOnce(&mut Holder)) {
    let mut holder = Holder::here("a cell", Duration::from_millis(300));
    (holder.host, holder.machine) = ("elsewhere".to_owned(), "another".to_owned());
    change(&mut holder);
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(name), format!("{}\n", serde_json::to_string(&holder).unwrap())).unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Lets `count` contenders, each with its own view of the folder, take each key at once. Returns how many won each.
fn race(folder: &Path, count: usize, keys: &[String], patience: Duration) -> Vec<usize> {
    let barrier = Barrier::new(count);
    let contender = || {
        let claims = Claims::new(folder, LONG);
        let mut won = Vec::new();
        for key in keys {
            barrier.wait();
            let start = Instant::now();
            let taken = loop {
                match claims.take(key, "a cell").unwrap() {
                    Taken::Mine(claim) => break Some(claim),
                    Taken::Held(_) if start.elapsed() > patience => break None,
                    Taken::Held(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            };
            won.push(taken);
        }
        // Claims are held until all have tried.
        barrier.wait();
        won.iter().map(|claim| usize::from(claim.as_ref().is_some_and(|claim| claim.is_mine()))).collect()
    };
    let won: Vec<Vec<usize>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(contender)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    (0..keys.len()).map(|key| won.iter().map(|of_one| of_one[key]).sum()).collect()
}

#[test]
fn one_of_many_takes_each_claim() {
    let folder = tempfile::tempdir().unwrap();
    let keys: Vec<String> = (0..40).map(|key| format!("{key:032x}")).collect();
    assert_eq!(race(&folder.path().join("claims"), 12, &keys, Duration::ZERO), vec![1; 40]);
}

#[test]
fn a_silent_workers_claim_is_taken_over_by_one_of_many() {
    let folder = tempfile::tempdir().unwrap();
    let keys: Vec<String> = (0..3).map(|key| format!("{key:032x}")).collect();
    keys.iter().for_each(|key| forge(folder.path(), &format!("{key}.0"), |_| ()));
    assert_eq!(race(folder.path(), 8, &keys, Duration::from_millis(600)), vec![1; 3]);
}

#[test]
fn a_worker_that_ended_on_this_machine_is_seen_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let own = Holder::here("a cell", LONG);
    if own.started == 0 || own.machine.is_empty() {
        eprintln!("skipped: this system does not say when a process started");
        return;
    }
    let claims = Claims::new(folder.path(), LONG);
    // The id belongs to another process by now.
    forge(folder.path(), "reused.0", |holder| *holder = Holder { started: own.started + 1, ..own.clone() });
    forge(folder.path(), "living.0", |holder| *holder = Holder { nonce: 7, ..own.clone() });
    let Taken::Mine(claim) = claims.take("reused", "a cell").unwrap() else { panic!("it is dead") };
    assert!(claim.is_taken_over());
    assert!(matches!(claims.take("living", "a cell").unwrap(), Taken::Held(Some(_))));
}

#[test]
fn a_living_workers_claim_is_kept_and_its_heart_beats() {
    let folder = tempfile::tempdir().unwrap();
    let holder = Claims::new(folder.path(), Duration::from_millis(400));
    let Taken::Mine(claim) = holder.take("a", "a cell").unwrap() else { panic!("it is free") };
    // Seen from another machine, only the heartbeat tells.
    let text = std::fs::read_to_string(folder.path().join("a.0")).unwrap();
    std::fs::write(folder.path().join("a.0"), text.replace("\"machine\":\"", "\"machine\":\"other "))
        .unwrap();
    let other = Claims::new(folder.path(), LONG);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1200) {
        assert!(!other.is_open("a").unwrap(), "after {:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(claim.is_mine());
    let length = folder.path().join("a.0").metadata().unwrap().len();
    assert!(length > text.len() as u64 + 5, "no heartbeat: {length} bytes");
}

#[test]
fn a_worker_that_was_declared_dead_notices_and_leaves_the_claim_of_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let claims = Claims::new(folder.path(), LONG);
    let Taken::Mine(claim) = claims.take("a", "a cell").unwrap() else { panic!("it is free") };
    assert!(claim.is_mine());
    forge(folder.path(), "a.1", |_| ());
    assert!(!claim.is_mine());
    drop(claim);
    assert_eq!(names(folder.path()), ["a.0", "a.1"]);
    assert!(
        matches!(claims.take("a", "a cell").unwrap(), Taken::Held(Some(holder)) if holder.host == "elsewhere")
    );
}

#[test]
fn a_claim_given_back_is_free_at_once_and_a_finished_one_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (Claims::new(folder.path(), LONG), Claims::new(folder.path(), LONG));
    let Taken::Mine(claim) = one.take("a", "a cell").unwrap() else { panic!("it is free") };
    assert!(!other.is_open("a").unwrap());
    drop(claim);
    assert!(other.is_open("a").unwrap());
    let Taken::Mine(claim) = other.take("a", "a cell").unwrap() else { panic!("it was given back") };
    assert!(claim.is_taken_over());
    claim.finish();
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn a_damaged_claim_is_held_until_it_is_silent_for_long() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.0"), "{\"host\": ").unwrap();
    let claims = Claims::new(folder.path(), Duration::from_millis(200));
    assert!(matches!(claims.take("a", "a cell").unwrap(), Taken::Held(None)));
    std::thread::sleep(Duration::from_millis(300));
    assert!(matches!(claims.take("a", "a cell").unwrap(), Taken::Mine(_)));
}

#[test]
fn an_old_sighting_does_not_take_a_claim_that_was_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let claims = Claims::new(folder.path(), LONG);
    forge(folder.path(), "a.0", |holder| holder.stale_after = 0.05);
    assert!(!claims.is_open("a").unwrap());
    std::thread::sleep(Duration::from_millis(100));
    // The dead one's cell was finished, and somebody computes it anew.
    forge(folder.path(), "a.0", |_| ());
    assert!(matches!(claims.take("a", "a cell").unwrap(), Taken::Held(Some(_))));
}

#[test]
fn a_folder_that_cannot_hold_claims_is_an_error_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("claims");
    std::fs::write(&file, "").unwrap();
    let error = Claims::new(&file, LONG).take("a", "a cell").unwrap_err().to_string();
    assert!(error.contains("claims"), "{error}");
}
