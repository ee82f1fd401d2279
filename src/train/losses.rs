//! The sum of a training's losses, which the program need not know at every step.

use burn::tensor::Tensor;

/// Losses that stay on the device before their sum is looked at. A training that diverges is noticed so many steps later, and
/// dropped all the same.
const AT_ONCE: usize = 16;

/// Losses of the steps of an epoch.
#[derive(Debug)]
pub struct Losses {
    /// Those that were looked at.
    total: f64,
    count: usize,
    /// Those that were not, [1] per part of a step, with their weights.
    waiting: Vec<(Vec<Tensor<1>>, f64)>,
    at_once: usize,
}

impl Losses {
    /// Starts with none. With `are_deferred` several are looked at together, so that no step waits for the device.
    pub fn new(are_deferred: bool) -> Self {
        let at_once = if are_deferred { AT_ONCE } else { 1 };
        Losses { total: 0.0, count: 0, waiting: Vec::new(), at_once }
    }

    /// Adds the loss of a step, which is the sum of its parts [1], without autodiff, times `weight`. Returns the sum of those
    /// that were looked at, not finite once the training has diverged.
    pub fn add(&mut self, parts: Vec<Tensor<1>>, weight: f64) -> f64 {
        self.waiting.push((parts, weight));
        self.count += 1;
        if self.waiting.len() >= self.at_once {
            self.look();
        }
        self.total
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The weighted sum of all.
    pub fn total(mut self) -> f64 {
        self.look();
        self.total
    }

    fn look(&mut self) {
        let waiting: Vec<(Vec<Tensor<1>>, f64)> = self.waiting.drain(..).collect();
        let parts: Vec<Tensor<1>> = waiting.iter().flat_map(|(parts, _)| parts.clone()).collect();
        if parts.is_empty() {
            return;
        }
        let losses = Tensor::cat(parts, 0).into_data().convert::<f32>().try_into_vec::<f32>();
        let mut losses = losses.expect("converted to float32").into_iter().map(f64::from);
        for (parts, weight) in waiting {
            self.total += losses.by_ref().take(parts.len()).sum::<f64>() * weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn deferred_losses_have_the_same_sum_and_are_noticed_later() {
        let loss = |value: f32| Tensor::<1>::from_floats([value], &Device::flex());
        let sum = |are_deferred| {
            let mut losses = Losses::new(are_deferred);
            let after: Vec<f64> = (0..20).map(|step| losses.add(vec![loss(step as f32)], 0.5)).collect();
            (after, losses.count(), losses.total())
        };
        let (each, count, total) = sum(false);
        assert_eq!((each[1], count, total), (0.5, 20, 95.0));
        let (deferred, count, total) = sum(true);
        assert_eq!((deferred[14], deferred[15], count, total), (0.0, 60.0, 20, 95.0));
        let mut diverged = Losses::new(true);
        assert!((0..AT_ONCE).map(|_| diverged.add(vec![loss(f32::NAN)], 1.0)).any(f64::is_nan));
    }
}
