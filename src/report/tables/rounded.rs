//! Numbers as tables show them.

use std::fmt;

use crate::metrics::Scale;

/// A number as tables show it: to the decimals of its scale, halves away from zero. Differences and ranks are those of
/// the shown numbers, so that the reader's arithmetic on the table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rounded {
    /// Of the last decimal.
    steps: i64,
    decimals: u8,
}

impl Rounded {
    /// `number` to the scale's decimals; beyond what i64 holds, the nearest that it does.
    pub fn of(number: f64, scale: Scale) -> Self {
        let steps = (number * 10f64.powi(i32::from(scale.decimals))).round() as i64;
        Rounded { steps, decimals: scale.decimals }
    }
}

/// Of numbers of one scale.
impl std::ops::Sub for Rounded {
    type Output = Rounded;

    fn sub(self, other: Self) -> Self {
        Rounded { steps: self.steps.saturating_sub(other.steps), ..self }
    }
}

impl fmt::Display for Rounded {
    /// `93.4`; with `+`, `+0.3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (magnitude, decimals) = (self.steps.unsigned_abs(), usize::from(self.decimals));
        let unit = 10_u64.pow(u32::from(self.decimals));
        let text = match decimals {
            0 => magnitude.to_string(),
            _ => format!("{}.{:0decimals$}", magnitude / unit, magnitude % unit),
        };
        f.pad_integral(self.steps >= 0, "", &text)
    }
}
