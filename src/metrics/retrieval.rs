//! Image retrieval: where the relevant images of a gallery stand in the ranking of a query.

/// Where the relevant images stand in the ranking of one query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankedQuery {
    /// Average precision, 0 to 1; 0 without relevant images.
    pub average_precision: f64,
    /// Place of the first relevant image, counted from 1; 0 without relevant images.
    pub first: u32,
    /// Number of relevant images in the gallery.
    pub relevant: u32,
}

impl RankedQuery {
    /// Ranks a gallery by its similarities to a query, the most similar image first. `is_relevant` says which images of the
    /// gallery are relevant.
    ///
    /// Average precision is the mean over the relevant images of the precision at their place; images of equal similarity share
    /// the last of their places, as in scikit-learn's `average_precision_score`, so that the order of the gallery does not
    /// matter. For the place of the first relevant image, the lower index comes first among equal ones.
    ///
    /// ```
    /// use terrabench::metrics::retrieval::RankedQuery;
    ///
    /// // In order of similarity: relevant, not, relevant, not.
    /// let query = RankedQuery::new(&[0.1, 0.9, 0.8, 0.7], |image| [1, 3].contains(&image));
    /// assert_eq!((query.first, query.relevant), (1, 2));
    /// assert_eq!(query.average_precision, (1.0 / 1.0 + 2.0 / 3.0) / 2.0);
    /// ```
    pub fn new(similarities: &[f32], is_relevant: impl Fn(usize) -> bool) -> Self {
        let mut nearest: Option<(f32, usize)> = None;
        let mut keys: Vec<u64> = Vec::with_capacity(similarities.len());
        for (image, &similarity) in similarities.iter().enumerate() {
            let relevant = is_relevant(image);
            if relevant && nearest.is_none_or(|(best, _)| similarity > best) {
                nearest = Some((similarity, image));
            }
            keys.push(u64::from(ascending(similarity)) << 1 | u64::from(relevant));
        }
        let Some((best, place)) = nearest else {
            return RankedQuery { average_precision: 0.0, first: 0, relevant: 0 };
        };
        let earlier =
            |(image, similarity): (usize, &f32)| *similarity > best || (*similarity == best && image < place);
        let before = similarities.iter().enumerate().filter(|pair| earlier(*pair)).count();
        keys.sort_unstable_by(|a, b| b.cmp(a));
        let (mut taken, mut found, mut sum) = (0_u64, 0_u64, 0.0);
        for equal in keys.chunk_by(|a, b| a >> 1 == b >> 1) {
            let gained = equal.iter().filter(|key| *key & 1 == 1).count() as u64;
            taken += equal.len() as u64;
            found += gained;
            if gained > 0 {
                sum += gained as f64 * found as f64 / taken as f64;
            }
        }
        let average_precision = sum / found as f64;
        RankedQuery { average_precision, first: number(before + 1), relevant: number(found as usize) }
    }

    /// Whether a relevant image is among the `k` most similar ones.
    pub fn is_found_within(&self, k: usize) -> bool {
        self.first > 0 && self.first as usize <= k
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Maps a number to an integer of the same order. 0 and -0 are equal.
fn ascending(number: f32) -> u32 {
    let bits = (number + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// Mean average precision of the queries that have relevant images, in percent; `None` if no query has any.
pub fn mean_average_precision(queries: &[RankedQuery]) -> Option<f64> {
    mean(queries, |query| query.average_precision)
}

/// Recall at `k`: the percentage of queries with a relevant image among the `k` most similar ones, of those that have relevant
/// images (as in metric learning; torchmetrics calls it the hit rate). `None` if no query has any.
pub fn recall(queries: &[RankedQuery], k: usize) -> Option<f64> {
    mean(queries, |query| f64::from(u8::from(query.is_found_within(k))))
}

fn mean(queries: &[RankedQuery], of: impl Fn(&RankedQuery) -> f64) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_usize);
    for query in queries.iter().filter(|query| query.relevant > 0) {
        sum += of(query);
        count += 1;
    }
    (count > 0).then(|| 100.0 * sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_order_as_integers() {
        let numbers = [f32::MIN, -1.0, -1e-30, 0.0, 1e-30, 0.5, 1.0, f32::MAX];
        assert!(numbers.windows(2).all(|pair| ascending(pair[0]) < ascending(pair[1])));
        assert_eq!(ascending(-0.0), ascending(0.0));
    }

    #[test]
    fn images_of_equal_similarity_share_their_precision_whatever_their_order() {
        let all_equal = |relevant: usize| RankedQuery::new(&[0.5; 4], |image| image == relevant);
        for relevant in 0..4 {
            assert_eq!(all_equal(relevant).average_precision, 0.25);
            assert_eq!(all_equal(relevant).first as usize, relevant + 1);
        }
    }

    #[test]
    fn queries_without_relevant_images_do_not_count() {
        let found = RankedQuery::new(&[0.9, 0.1], |image| image == 1);
        let none = RankedQuery::new(&[0.9, 0.1], |_| false);
        assert_eq!(none, RankedQuery { average_precision: 0.0, first: 0, relevant: 0 });
        assert_eq!(mean_average_precision(&[found, none]), Some(50.0));
        assert_eq!((recall(&[found, none], 1), recall(&[found, none], 2)), (Some(0.0), Some(100.0)));
        assert_eq!(mean_average_precision(&[none]), None);
    }
}
