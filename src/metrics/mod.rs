//! Scores of predictions, in percent. Knows arrays only.
