//! The broker model.
