//! A sweep: a scenario's matrix, each cell a run of its own (or several, in rounds), each with a
//! results folder. [`layout`] says where they lie, [`state`] what `sweep.json` tells of them.

pub mod layout;
pub mod matrix;
pub mod state;
