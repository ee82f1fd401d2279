//! A restricted unpickler.
