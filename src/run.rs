//! One cell.
