//! Ranking over tasks: average ranks, improvability, intervals from stored predictions, what few tasks can tell apart.

use crate::made;
use terrabench::home::Home;
use terrabench::metrics::Metric;
use terrabench::record::Store;
use terrabench::report::cost::Costs;
use terrabench::report::pictures::{cost, profile, ranks};
use terrabench::report::ranking::{Ranking, rankings, text_table};
use terrabench::report::tables::published::{self, Published, PublishedValue};
use terrabench::report::tables::table::{Origin, fill};
use terrabench::task::{Suite, Table};

fn suite() -> (Home, Suite) {
    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "geobench").unwrap();
    (home, suite)
}

fn table(suite: &Suite, file: &str) -> Table {
    suite.tables.iter().find(|table| table.file == file).unwrap().clone()
}

/// Ranks published values alone.
fn of_published(suite: &Suite, table: &Table, published: &Published) -> Vec<Ranking> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let filled = fill(table, suite, published, &[], false).unwrap();
    let costs = Costs::read(&Home::find().unwrap()).unwrap();
    let mut unreadable = Vec::new();
    let found = rankings(&filled, &costs, &store, &mut unreadable);
    assert!(unreadable.is_empty(), "{unreadable:?}");
    found
}

/// Published values of models a, b, c, … on tasks, one row per model.
fn values(tasks: &[(&str, Metric)], rows: &[&[f64]]) -> Published {
    let (home, suite) = suite();
    let template = published::of_table(&home, &table(&suite, "finetune")).unwrap().values[0].clone();
    let mut values = Vec::new();
    for (model, row) in ('a'..).zip(rows) {
        for ((task, metric), value) in tasks.iter().zip(*row) {
            values.push(PublishedValue {
                model: model.into(),
                dataset: (*task).into(),
                metric: metric.to_string(),
                value: *value,
                ..template.clone()
            });
        }
    }
    Published { source: "a paper".into(), values }
}

fn names(ranking: &Ranking) -> Vec<&str> {
    ranking.standings.iter().map(|standing| standing.name.as_str()).collect()
}

#[test]
fn thirteen_published_models_on_six_tasks_are_hardly_told_apart() {
    let (home, suite) = suite();
    let table = table(&suite, "finetune");
    let published = published::of_table(&home, &table).unwrap();
    let [ranking] = of_published(&suite, &table, &published).try_into().unwrap();
    assert_eq!((ranking.standings.len(), ranking.tasks.len()), (13, 6));
    assert_eq!(format!("{:.1}", ranking.critical), "7.4");
    assert!(ranking.verdict().contains("must differ by 7.4 "), "{}", ranking.verdict());
    assert!(ranking.verdict().contains("takes 333 tasks"), "{}", ranking.verdict());
    let first = &ranking.standings[0];
    assert_eq!((first.name.as_str(), first.rank), ("TerraFM ViT-Large", 1.0));
    assert_eq!(first.improvability.unwrap(), 0.0);
    assert_eq!(first.ratios, [1.0; 6]);
    // Every rank is given once per task: 13 * 14 / 2 over 13 models.
    let mean = ranking.standings.iter().map(|standing| standing.rank).sum::<f64>() / 13.0;
    assert!((mean - 7.0).abs() < 1e-9, "{mean}");
    // Its second is TerraFM ViT-Base, as a reader computes from the table: ranks 2, 3, 2, 6, 2, 2 (five values of 98.7 share 6).
    let second = &ranking.standings[1];
    let expected = (2.0 + 3.0 + 2.0 + 6.0 + 2.0 + 2.0) / 6.0;
    assert_eq!(second.name, "TerraFM ViT-Base");
    assert!((second.rank - expected).abs() < 1e-9, "{} instead of {expected}", second.rank);
    // No prediction is stored: all values are taken as printed.
    assert_eq!(ranking.sampled, (0, 78));
    // The Nemenyi test joins the first with the second, and not with the last.
    assert!(first.nemenyi.iter().any(|group| second.nemenyi.contains(group)));
    let last = ranking.standings.last().unwrap();
    assert!(!first.nemenyi.iter().any(|group| last.nemenyi.contains(group)), "{last:?}");
}

#[test]
fn improvability_is_the_share_of_the_error_that_goes() {
    let (_, suite) = suite();
    let tasks = [("m-eurosat", Metric::Accuracy), ("m-so2sat", Metric::Accuracy)];
    let mut table = table(&suite, "finetune");
    table.tasks = tasks.map(|(task, _)| task.into()).into();
    let published = values(&tasks, &[&[95.0, 60.0], &[90.0, 80.0], &[80.0, 60.0]]);
    let [ranking] = of_published(&suite, &table, &published).try_into().unwrap();
    assert_eq!(ranking.standings.iter().map(|s| s.rank).collect::<Vec<_>>(), [1.5, 1.75, 2.75]);
    let shares: Vec<String> =
        ranking.standings.iter().map(|s| format!("{} {:.3}", s.name, s.improvability.unwrap())).collect();
    // b: (10 - 5) / 10 and 0; a: 0 and (40 - 20) / 40; c: (20 - 5) / 20 and (40 - 20) / 40.
    let named: Vec<&str> = shares.iter().map(|text| text.split_once(' ').unwrap().0).collect();
    assert_eq!(named, ["b", "a", "c"]);
    assert!(
        shares.iter().zip(["0.250", "0.250", "0.625"]).all(|(text, share)| text.ends_with(share)),
        "{shares:?}"
    );
}

#[test]
fn lower_errors_rank_better_and_have_no_improvability() {
    let (_, mut suite) = suite();
    for name in ["m-eurosat", "m-so2sat"] {
        suite.tasks.iter_mut().find(|task| task.name == name).unwrap().metric = Metric::Rmse;
    }
    let tasks = [("m-eurosat", Metric::Rmse), ("m-so2sat", Metric::Rmse)];
    let mut table = table(&suite, "finetune");
    table.tasks = tasks.map(|(task, _)| task.into()).into();
    let published = values(&tasks, &[&[3.0, 4.0], &[1.0, 2.0], &[2.0, 2.0]]);
    let [ranking] = of_published(&suite, &table, &published).try_into().unwrap();
    let found: Vec<(&str, f64)> =
        names(&ranking).into_iter().zip(ranking.standings.iter().map(|s| s.rank)).collect();
    assert_eq!(found, [("b ViT-Large", 1.25), ("c ViT-Large", 1.75), ("a ViT-Large", 3.0)]);
    assert!(ranking.standings.iter().all(|standing| standing.improvability.is_none()));
    assert_eq!(ranking.standings[2].ratios, [3.0, 2.0]);
}

#[test]
fn models_that_lack_a_task_are_named_and_not_ranked() {
    let (_, suite) = suite();
    let tasks = [("m-eurosat", Metric::Accuracy), ("m-so2sat", Metric::Accuracy)];
    let mut table = table(&suite, "finetune");
    table.tasks = tasks.map(|(task, _)| task.into()).into();
    let rows: &[&[f64]] = &[&[95.0, 60.0], &[90.0, 80.0], &[80.0, 60.0], &[99.0]];
    let [ranking] = of_published(&suite, &table, &values(&tasks, rows)).try_into().unwrap();
    assert_eq!(ranking.incomplete, ["d ViT-Large"]);
    assert_eq!(ranking.standings.len(), 3);
    assert!(
        text_table(&ranking).notes.iter().any(|note| note == "Not ranked, as they lack a task: d ViT-Large.")
    );
    // Two models, or one task, are no ranking.
    assert!(of_published(&suite, &table, &values(&tasks, &rows[..2])).is_empty());
    table.tasks.truncate(1);
    assert!(of_published(&suite, &table, &values(&tasks, rows)).is_empty());
}

/// Ranks the made-up results, with predictions for `partition`.
fn measured(partition: &str) -> Vec<Ranking> {
    let folder = tempfile::tempdir().unwrap();
    let results = made::results(folder.path());
    let store = Store::open(results.join("geobench")).unwrap();
    for record in made::real().iter().filter(|record| record.cell.partition == partition) {
        made::predict(&store, record);
    }
    let (home, suite) = suite();
    let table = table(&suite, "knn");
    let published = published::of_table(&home, &table).unwrap();
    let records = store.usable().unwrap().records;
    let filled = fill(&table, &suite, &published, &records, false).unwrap();
    let costs = Costs::read(&home).unwrap();
    let mut unreadable = Vec::new();
    let found = rankings(&filled, &costs, &store, &mut unreadable);
    assert!(unreadable.is_empty(), "{unreadable:?}");
    found
}

#[test]
fn measured_rows_are_drawn_again_from_their_predictions() {
    let found = measured("default");
    let titles: Vec<&str> = found.iter().map(|ranking| ranking.title.as_str()).collect();
    const TITLE: &str = "k-NN classification on GEO-Bench";
    assert_eq!(
        titles,
        [format!("{TITLE}, 100 % of the training data"), format!("{TITLE}, 1 % of the training data")]
    );
    // Two measured models on four tasks have predictions, at one share of the training data.
    assert_eq!(found[0].sampled, (8, 16 * 4));
    assert_eq!(found[1].sampled, (0, 16 * 4));
    for ranking in &found {
        for standing in &ranking.standings {
            let (low, high) = (standing.interval.low, standing.interval.high);
            assert!(low <= standing.rank + 1e-9 && standing.rank <= high + 1e-9, "{standing:?}");
        }
        let measured = ranking.standings.iter().filter(|standing| standing.origin == Origin::Measured);
        assert_eq!(measured.count(), 2);
    }
    // The same draws every time, whatever the order of the threads.
    assert_eq!(format!("{found:?}"), format!("{:?}", measured("default")));
}

#[test]
fn test_samples_widen_the_intervals() {
    let width = |ranking: &Ranking| {
        let ours = ranking.standings.iter().filter(|standing| standing.origin == Origin::Measured);
        ours.map(|standing| standing.interval.high - standing.interval.low).sum::<f64>()
    };
    let (with, without) = (measured("default"), measured("none"));
    assert!(width(&with[0]) > width(&without[0]), "{} and {}", width(&with[0]), width(&without[0]));
}

#[test]
fn measured_models_have_a_cost_and_published_ones_do_not() {
    let found = measured("default");
    for standing in &found[0].standings {
        let gflops = standing.cost.map(|cost| format!("{:.1}", cost.gflops()));
        let expected = match standing.name.as_str() {
            "TerraFM ViT-Base (measured)" => Some("42.5"),
            "TerraFM ViT-Large (measured)" => Some("135.1"),
            _ => None,
        };
        assert_eq!(gflops.as_deref(), expected, "{}", standing.name);
    }
    let table = text_table(&found[0]);
    assert_eq!(table.header[6..], ["Parameters", "GFLOPs per image"]);
    let picture = cost::draw(&found[0]).unwrap();
    let texts: Vec<&str> = picture.texts().map(|text| text.text.as_str()).collect();
    assert!(
        texts.contains(&"TerraFM ViT-Base (measured)") && texts.contains(&"GFLOPs per image"),
        "{texts:?}"
    );
    assert!(!texts.contains(&"Galileo ViT-Base"), "{texts:?}");
}

#[test]
fn pictures_say_when_tasks_are_too_few() {
    let found = measured("default");
    let words = |picture: &terrabench::canvas::Picture| {
        picture.texts().map(|text| text.text.as_str()).collect::<Vec<_>>().join(" ")
    };
    let said = words(&ranks::draw(&found[0]));
    assert!(said.contains("average ranks must differ by 11.5"), "{said}");
    assert!(said.contains("longer than") || said.contains("critical difference 11.5"), "{said}");
    let said = words(&profile::draw(&found[0]));
    assert!(said.contains("Share of the 4 tasks") && said.contains("6 more models take part"), "{said}");
}
