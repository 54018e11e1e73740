//! From the document's words on supervision to what the core decides by.

pub mod healthcheck;
pub mod probe;
pub mod requirement;
pub mod restart;
