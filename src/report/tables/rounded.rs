//! Numbers rounded for display.

use std::fmt;

use crate::metrics::Scale;

/// A number as tables show it: rounded to the decimals of its scale, halves away from zero. Differences and ranks are
/// computed from the shown numbers, so that a reader's arithmetic agrees with the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rounded {
    /// The number in units of its last decimal.
    steps: i64,
    decimals: u8,
}

impl Rounded {
    /// Rounds `number` to the scale's decimals; saturates at the limits of i64.
    pub fn of(number: f64, scale: Scale) -> Self {
        let steps = (number * 10f64.powi(i32::from(scale.decimals))).round() as i64;
        Rounded { steps, decimals: scale.decimals }
    }
}

/// Subtracts numbers of the same scale.
impl std::ops::Sub for Rounded {
    type Output = Rounded;

    fn sub(self, other: Self) -> Self {
        Rounded { steps: self.steps.saturating_sub(other.steps), ..self }
    }
}

impl fmt::Display for Rounded {
    /// Formats as `93.4`, or with `{:+}` as `+0.3`.
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
