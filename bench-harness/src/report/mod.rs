//! Results: as one JSON document, as text for people, as a folder.

pub mod document;
pub mod folder;
pub mod hint;
pub mod lock;
pub mod picture;
pub mod text;
