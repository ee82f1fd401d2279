//! How much of a model its weights cover: for records and tables.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::weights::{Report, Weights};

/// How much of a model its weights cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "state", deny_unknown_fields)]
pub enum Coverage {
    /// Every parameter is the file's.
    Whole,
    /// Parameters that the file lacks keep random values. Named parameters, not single numbers, are counted; records of
    /// schema 1 do not say how many.
    Partial {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loaded: Option<usize>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parameters: Option<usize>,
    },
    /// Every parameter is random.
    Random,
}

impl Coverage {
    /// What loading `weights` gave, by its report.
    pub fn of(weights: &Weights, report: &Report) -> Self {
        match weights {
            Weights::Random(_) => Coverage::Random,
            Weights::File(_) if report.is_complete() => Coverage::Whole,
            Weights::File(_) => {
                let loaded = report.loaded.len();
                let parameters = loaded + report.missing.len() + report.mismatched.len();
                Coverage::Partial { loaded: Some(loaded), parameters: Some(parameters) }
            }
        }
    }
}

impl fmt::Display for Coverage {
    /// `whole weights`, `partial weights: 3 of 150 parameters`, `random weights`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Coverage::Whole => f.write_str("whole weights"),
            Coverage::Partial { loaded: Some(loaded), parameters: Some(parameters) } => {
                write!(f, "partial weights: {loaded} of {parameters} parameters")
            }
            Coverage::Partial { .. } => f.write_str("partial weights"),
            Coverage::Random => f.write_str("random weights"),
        }
    }
}
