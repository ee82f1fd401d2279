//! A benchmark's score: values scaled per task between two published ends, and means over groups of tasks.

use std::collections::BTreeMap;

use serde::Deserialize;

/// How the values of some tables become scores.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Capabilities {
    /// The tables that get scores, each on its own.
    pub tables: Vec<String>,
    /// Where the ends come from.
    pub source: String,
    /// The values that become 0 and 1, by task, in the unit of the tables.
    pub ends: BTreeMap<String, [f64; 2]>,
    /// The groups of tasks, in the order of the columns.
    pub groups: Vec<CapabilityGroup>,
}

/// Tasks that ask for the same capability.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CapabilityGroup {
    /// Name of the capability.
    pub name: String,
    /// Its tasks that are measured here.
    pub tasks: Vec<String>,
    /// Data sets of the source's group that are not.
    #[serde(default)]
    pub without: Vec<String>,
}

impl Capabilities {
    /// Scales a value of a task: 0 and 1 are the source's ends; not clipped. `None` if there are none.
    pub fn scaled(&self, task: &str, value: f64) -> Option<f64> {
        let [low, high] = *self.ends.get(task)?;
        Some((value - low) / (high - low))
    }

    /// Describes an inconsistency, given the tables and tasks of the suite.
    pub(super) fn problem(&self, tables: &[&str], tasks: &[&str]) -> Option<String> {
        if let Some(table) = self.tables.iter().find(|table| !tables.contains(&table.as_str())) {
            return Some(format!("capabilities: unknown table `{table}`"));
        }
        let known = self.ends.keys().chain(self.groups.iter().flat_map(|group| &group.tasks));
        if let Some(task) = known.into_iter().find(|task| !tasks.contains(&task.as_str())) {
            return Some(format!("capabilities: unknown task `{task}`"));
        }
        let ends = |[low, high]: &[f64; 2]| low.is_finite() && high.is_finite() && low != high;
        if let Some((task, found)) = self.ends.iter().find(|(_, found)| !ends(found)) {
            return Some(format!("capabilities: expected two different ends of `{task}`, found {found:?}"));
        }
        let lacking =
            self.groups.iter().flat_map(|group| &group.tasks).find(|task| !self.ends.contains_key(*task));
        if let Some(task) = lacking {
            return Some(format!("capabilities: no ends of `{task}`"));
        }
        let empty = self.groups.iter().find(|group| group.tasks.is_empty())?;
        Some(format!("capabilities: group `{}` has no tasks", empty.name))
    }
}

/// Returns the mean of the middle half of the scores: a quarter of them, rounded down, is left out at either end
/// [scipy.stats.trim_mean, `proportiontocut` 0.25]; `None` if there are none.
pub fn interquartile_mean(scores: &[f64]) -> Option<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    let cut = sorted.len() / 4;
    let middle = sorted.get(cut..sorted.len() - cut).filter(|middle| !middle.is_empty())?;
    Some(middle.iter().sum::<f64>() / middle.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Python: `scipy.stats.trim_mean(scores, 0.25)`.
    #[test]
    fn a_quarter_is_left_out_at_either_end() {
        assert_eq!(interquartile_mean(&[]), None);
        assert_eq!(interquartile_mean(&[2.0]), Some(2.0));
        assert_eq!(interquartile_mean(&[9.0, 1.0, 2.0]), Some(4.0));
        assert_eq!(interquartile_mean(&[9.0, 1.0, 2.0, 4.0]), Some(3.0));
        assert_eq!(
            interquartile_mean(&[-5.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 77.0]),
            Some((0.2 + 0.3 + 0.4 + 0.5) / 4.0)
        );
    }

    #[test]
    fn an_error_is_scaled_from_its_greatest() {
        let capabilities = Capabilities {
            tables: Vec::new(),
            source: String::new(),
            ends: [("error".to_owned(), [60.0, 40.0]), ("share".to_owned(), [50.0, 75.0])].into(),
            groups: Vec::new(),
        };
        assert_eq!(capabilities.scaled("error", 45.0), Some(0.75));
        assert_eq!(capabilities.scaled("share", 45.0), Some(-0.2), "not clipped");
        assert_eq!(capabilities.scaled("other", 45.0), None);
    }
}
