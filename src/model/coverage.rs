//! The share of a model's parameters that its weights provide, for records and tables.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::weights::{Report, Weights};

/// The share of a model's parameters that its weights provide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "state", deny_unknown_fields)]
pub enum Coverage {
    /// Every parameter comes from the file.
    Whole,
    /// Parameters that the file lacks keep random values. The counts are of named parameters, not of single numbers;
    /// records of schema 1 have no counts.
    Partial {
        /// Number of parameters found in the file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loaded: Option<usize>,
        /// Number of parameters of the model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parameters: Option<usize>,
    },
    /// Every parameter is random.
    Random,
}

impl Coverage {
    /// Determines the coverage from the report of loading `weights`.
    pub fn of(weights: &Weights, report: &Report) -> Self {
        match weights {
            Weights::Random(_) => Coverage::Random,
            Weights::File(_) if report.is_complete() => Coverage::Whole,
            // There are no parameters to cover.
            Weights::None => Coverage::Whole,
            Weights::File(_) => {
                let loaded = report.loaded.len();
                let parameters = loaded + report.missing.len() + report.mismatched.len();
                Coverage::Partial { loaded: Some(loaded), parameters: Some(parameters) }
            }
        }
    }
}

impl fmt::Display for Coverage {
    /// Formats as `whole weights`, `partial weights: 3 of 150 parameters` or `random weights`.
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
