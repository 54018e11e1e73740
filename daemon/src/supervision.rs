//! From the document's words on supervision to what the core decides by.

pub mod restart;
