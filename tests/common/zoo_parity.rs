//! How close the models are to the original code: measured while tests compare outputs, and checked against what the
//! models' files state.

use std::cell::Cell;

use terrabench::home::Home;
use terrabench::model::config::ModelConfig;

thread_local! {
    static WORST: Cell<f64> = const { Cell::new(0.0) };
}

/// Notes the largest difference of one comparison.
pub fn note(difference: f64) {
    // Not f64::max, which passes over a NaN.
    WORST.set(if difference <= WORST.get() { WORST.get() } else { difference });
}

/// The `[parity]` of the models `names` states the largest difference that `compare` finds, measured in the test file
/// `test`. Another processor adds in another order, so up to four times the stated difference is allowed here.
#[track_caller]
pub fn assert_parity(names: &[&str], test: &str, compare: impl FnOnce()) {
    WORST.set(0.0);
    compare();
    let found = WORST.get();
    assert!(found > 0.0, "{names:?}: nothing was compared");
    for name in names {
        println!("parity of {name}: {found:.2e}");
        let model = ModelConfig::load(&Home::find().unwrap(), name).unwrap();
        let parity = model.parity.unwrap_or_else(|| panic!("{name} states no parity; found {found:.2e}"));
        assert_eq!(parity.test, test, "{name}");
        let stated = parity.difference;
        assert!(found <= 4.0 * stated, "{name} differs by {found:e}; its file states {stated:e}");
    }
}
