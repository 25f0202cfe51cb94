//! Results: as one JSON document, as text for people, as a folder, and as a page of many runs.

pub mod document;
pub mod folder;
pub mod hint;
pub mod lock;
pub mod page;
pub mod picture;
pub mod text;
