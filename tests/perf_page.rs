//! The page and the pictures of `cargo xtask perf`.

#[path = "../benches/common/measured.rs"]
#[allow(dead_code, reason = "benches use all of it")]
mod measured;
#[path = "../benches/perf/page.rs"]
mod page;
#[path = "../benches/perf/pictures.rs"]
mod pictures;

use measured::{Comparison, Growth, Measured, Peer, Point, Spread};

fn comparison(unit: &str, ours: &[f64], peers: &[(&str, &[f64])]) -> Comparison {
    let peers = peers.iter().map(|(name, values)| Peer { name: (*name).to_owned(), values: values.to_vec() });
    Comparison {
        ours: ours.to_vec(),
        peers: peers.collect(),
        ..Comparison::new("Readers", "a task", unit).goal(2.0)
    }
}

fn growth() -> Growth {
    let point = |at: f64| Point { at, seconds: at * at / 1e4, memory: Some(64.0) };
    let points = vec![point(10.0), point(100.0), point(1000.0)];
    Growth { what: "squares".into(), along: "samples".into(), points, note: "held in memory".into() }
}

fn lines(measured: &[Measured]) -> Vec<String> {
    let about = page::About { command: "cargo xtask perf".into(), ..page::About::default() };
    page::page(measured, &about, &[]).lines().map(str::to_owned).collect()
}

#[test]
fn the_fastest_peer_is_that_of_the_highest_rate_or_the_least_time() {
    let peers: [(&str, &[f64]); 3] = [("a", &[10.0, 11.0]), ("b", &[20.0, 22.0]), ("not run", &[])];
    assert_eq!(comparison("tiles/s", &[40.0], &peers).best_peer().unwrap().name, "b");
    assert_eq!(comparison("s", &[40.0], &peers).best_peer().unwrap().name, "a");
    assert_eq!(comparison("s", &[40.0], &[("not run", &[])]).best_peer(), None);
}

#[test]
fn a_ratio_above_one_means_faster_for_rates_and_times() {
    let of_rates = comparison("tiles/s", &[30.0, 40.0, 50.0], &[("peer", &[20.0, 10.0, 25.0])]);
    let ratio = of_rates.ratio(&of_rates.peers[0]).unwrap();
    assert_eq!(ratio, Spread { median: 2.0, least: 1.5, most: 4.0 });
    let of_times = comparison("s", &[1.0, 2.0], &[("peer", &[3.0, 3.0])]);
    let ratio = of_times.ratio(&of_times.peers[0]).unwrap();
    assert_eq!(ratio, Spread { median: 2.0, least: 1.5, most: 3.0 });
    // Ours ran twice as often: each value meets the one of its half.
    let more_often = comparison("s", &[1.0, 1.0, 2.0, 2.0], &[("peer", &[2.0, 8.0])]);
    let ratio = more_often.ratio(&more_often.peers[0]).unwrap();
    assert_eq!((ratio.least, ratio.most), (2.0, 4.0));
}

#[test]
fn the_page_says_whether_a_goal_is_met_by_the_ratio_to_the_fastest_peer() {
    let met = comparison("tiles/s", &[50.0], &[("slow", &[1.0]), ("fast|est", &[20.0])]);
    let lines = lines(&[Measured::Comparison(met)]);
    let rows: Vec<&String> = lines.iter().filter(|line| line.starts_with("| ")).collect();
    assert_eq!(rows[1], "| a task | 50.0 tiles/s | slow | 1.00 tiles/s | 50.00 (50.00 to 50.00) |  |");
    assert_eq!(rows[2], "|  |  | fast\\|est | 20.0 tiles/s | 2.50 (2.50 to 2.50) | 2: met |");
    let missed = comparison("tiles/s", &[30.0], &[("peer", &[20.0])]);
    assert!(self::lines(&[Measured::Comparison(missed)]).iter().any(|line| line.ends_with("| 2: missed |")));
}

#[test]
fn the_page_has_what_was_not_compared_and_not_measured() {
    let alone = Comparison { note: "no peer: gone".into(), ..comparison("s", &[1.0, 3.0], &[]) };
    let why = "no small set".to_owned();
    let skipped = Measured::Skipped { group: "Readers".into(), what: "benv2".into(), why };
    let lines = lines(&[skipped, Measured::Comparison(alone), Measured::Growth(growth())]);
    for line in [
        "| a task | 2.00 (1.00 to 3.00) s | | | | |",
        "- a task: no peer: gone",
        "### squares",
        "| samples | time | most memory | time for 1,000 |",
        "| 1,000 | 100 s | 64 MiB | 100 s |",
        "Exponent 2.00. held in memory.",
        "- Readers, benv2: no small set",
    ] {
        assert!(lines.iter().any(|found| found == line), "expected {line:?} in {lines:#?}");
    }
}

#[test]
fn short_times_are_milliseconds() {
    let shown = |values: &[f64], unit| measured::with_unit(Spread::of(values).unwrap(), unit);
    assert_eq!(shown(&[0.012_34], "s"), "12.3 ms");
    assert_eq!(shown(&[0.012, 0.02, 0.5], "s"), "20.0 (12.0 to 500) ms");
    assert_eq!(shown(&[0.5], "s"), "0.500 s");
    assert_eq!(shown(&[0.012_34], "images/s"), "0.0123 images/s");
    assert_eq!(shown(&[12_345.0, 999.0], "tiles/s"), "6,672 (999 to 12,345) tiles/s");
}

#[test]
fn what_a_bench_writes_is_read_again() {
    let all =
        [Measured::Comparison(comparison("s", &[1.0], &[("peer", &[2.0])])), Measured::Growth(growth())];
    let text: String = all.iter().map(|one| serde_json::to_string(one).unwrap() + "\n").collect();
    assert_eq!(measured::read(&text).unwrap(), all);
    assert!(measured::read("{}\n").is_err());
}

#[test]
fn pictures_name_what_they_show_and_stay_within_their_edges() {
    let long = Comparison {
        what: "a very long description ".repeat(9),
        ..comparison("s", &[1.0], &[("p", &[900.0])])
    };
    let slow = comparison("tiles/s", &[1.0, 2.0], &[("peer", &[20.0, 20.0])]);
    let measured = [Measured::Comparison(long), Measured::Comparison(slow), Measured::Growth(growth())];
    for picture in [pictures::ratios(&measured).unwrap(), pictures::growth(&measured).unwrap()] {
        assert!(picture.texts().count() > 5);
        for text in picture.texts() {
            let bounds = text.bounds();
            let inside =
                bounds.left >= 0.0 && bounds.right <= picture.width && bounds.bottom <= picture.height;
            assert!(inside, "{:?} at {bounds:?} leaves the picture", text.text);
        }
    }
    assert!(pictures::ratios(&measured[2..]).is_none() && pictures::growth(&measured[..2]).is_none());
}
