//! The contract of wharfd and its clients.
//!
//! A container is asked for with a [`spec::Spec`], a JSON document with a published schema
//! (`docs/spec.schema.json`). Everything else is D-Bus: interfaces, objects, typed properties, signals and
//! error names, described here once for both ends. Streams travel as descriptors, never through the bus.
//!
//! Objects live below [`names::ROOT`]; wharfd serves them peer-to-peer on its private socket, where no bus
//! name is needed, and on the system bus as [`names::BUS_NAME`].

pub mod error;
pub mod names;
pub mod proxy;
pub mod spec;
pub mod types;

pub use error::Error;
pub use spec::Spec;
