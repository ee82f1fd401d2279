//! Adjusted mutual information of two groupings of the same samples, such as clusters and classes [Vinh, Epps and Bailey 2010,
//! Information theoretic measures for clusterings comparison], normalised by the mean of both entropies as in scikit-learn's
//! `adjusted_mutual_info_score`.

use ndarray::{Array1, Array2, Axis};

/// Logarithms of the factorials of 0 to a largest number.
#[derive(Debug, Clone)]
pub struct LogFactorials(Vec<f64>);

impl LogFactorials {
    /// Computes them up to `largest`.
    pub fn up_to(largest: usize) -> Self {
        let mut sum = 0.0;
        let rest = (1..=largest).map(|number| {
            sum += (number as f64).ln();
            sum
        });
        LogFactorials(std::iter::once(0.0).chain(rest).collect())
    }

    fn of(&self, number: u64) -> f64 {
        self.0[number as usize]
    }
}

/// Terms whose probability is below this share of the most probable one's add nothing in double precision.
const NEGLIGIBLE: f64 = 1e-18;

/// Adjusted mutual information of two groupings of samples, from the number of samples in each pair of groups: 1 if they are the
/// same, about 0 if they have nothing to do with each other; may be negative. `logarithms` must reach the number of samples.
///
/// ```
/// use ndarray::array;
/// use terrabench::metrics::mutual_information::{LogFactorials, adjusted};
///
/// let logarithms = LogFactorials::up_to(4);
/// // The same groups under other numbers.
/// assert!((adjusted(&array![[0, 2], [2, 0]], &logarithms) - 1.0).abs() < 1e-12);
/// assert!(adjusted(&array![[1, 1], [1, 1]], &logarithms) < 0.0);
/// ```
///
/// # Panics
/// If `logarithms` ends below the number of samples.
pub fn adjusted(counts: &Array2<u64>, logarithms: &LogFactorials) -> f64 {
    let rows: Array1<u64> = counts.sum_axis(Axis(1));
    let columns: Array1<u64> = counts.sum_axis(Axis(0));
    let groups = |sums: &Array1<u64>| sums.iter().filter(|sum| **sum > 0).count();
    if groups(&rows) <= 1 && groups(&columns) <= 1 {
        return 1.0;
    }
    let all = rows.sum();
    let shared = mutual(counts, &rows, &columns, all);
    let expected = expected(&rows, &columns, all, logarithms);
    let most = (entropy(&rows, all) + entropy(&columns, all)) / 2.0;
    // As in scikit-learn: rounding must not turn a difference of 0 into a sign.
    let range = match most - expected {
        range if range < 0.0 => range.min(-f64::EPSILON),
        range => range.max(f64::EPSILON),
    };
    ((shared - expected) / range).min(1.0)
}

/// Entropy of a grouping, in nats.
fn entropy(sums: &Array1<u64>, all: u64) -> f64 {
    let of = |sum: &u64| {
        let share = *sum as f64 / all as f64;
        if *sum == 0 { 0.0 } else { -share * share.ln() }
    };
    sums.iter().map(of).sum()
}

/// Mutual information, in nats.
fn mutual(counts: &Array2<u64>, rows: &Array1<u64>, columns: &Array1<u64>, all: u64) -> f64 {
    let of = |((row, column), count): ((usize, usize), &u64)| match *count {
        0 => 0.0,
        count => information(count, rows[row], columns[column], all),
    };
    counts.indexed_iter().map(of).sum::<f64>().max(0.0)
}

/// What `count` samples in a pair of groups of `row` and `column` samples add to the mutual information.
fn information(count: u64, row: u64, column: u64, all: u64) -> f64 {
    let [count, row, column, all] = [count, row, column, all].map(|number| number as f64);
    count / all * ((count.ln() + all.ln()) - (row.ln() + column.ln()))
}

/// Expected mutual information of groupings drawn at random with the same sizes of groups.
fn expected(rows: &Array1<u64>, columns: &Array1<u64>, all: u64, logarithms: &LogFactorials) -> f64 {
    let mut sum = 0.0;
    for &row in rows.iter().filter(|row| **row > 0) {
        for &column in columns.iter().filter(|column| **column > 0) {
            sum += expected_of_pair(row, column, all, logarithms);
        }
    }
    sum
}

/// Sums over the hypergeometric distribution of the number of common samples, from its most probable number to both sides.
fn expected_of_pair(row: u64, column: u64, all: u64, logarithms: &LogFactorials) -> f64 {
    let (least, most) = ((row + column).saturating_sub(all).max(1), row.min(column));
    let mode = ((row + 1) * (column + 1) / (all + 2)).clamp(least, most);
    let of = |number: u64| logarithms.of(number);
    let logarithm = of(row) + of(column) + of(all - row) + of(all - column)
        - of(all)
        - of(mode)
        - of(row - mode)
        - of(column - mode)
        - of(all + mode - row - column);
    let peak = logarithm.exp();
    // P(count + 1) / P(count).
    let ratio = |count: u64| {
        (row - count) as f64 * (column - count) as f64
            / ((count + 1) as f64 * (all + count + 1 - row - column) as f64)
    };
    let mut sum = peak * information(mode, row, column, all);
    let mut probability = peak;
    for count in mode..most {
        probability *= ratio(count);
        if probability < peak * NEGLIGIBLE {
            break;
        }
        sum += probability * information(count + 1, row, column, all);
    }
    probability = peak;
    for count in (least..mode).rev() {
        probability /= ratio(count);
        if probability < peak * NEGLIGIBLE {
            break;
        }
        sum += probability * information(count, row, column, all);
    }
    sum
}
