//! Parallel, ordered, bounded prefetch.
