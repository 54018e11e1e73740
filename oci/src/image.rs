//! Images: what they are called, how they come in, and where they are kept.
//!
//! - [`mod@reference`]: names such as `docker.io/library/busybox:latest`; [`digest`]: content addresses.
//! - [`store`]: the content-addressed store, itself a valid OCI image layout, plus the unpacked layers.
//! - [`load`]: OCI layouts and docker archives into the store. [`source`] is what such an input is made of.
//! - [`archive`]: the tar format, strictly. [`layer`]: one layer's tar onto the disk, as an overlay lower
//!   directory. [`compression`]: gzip and zstd around both.
//! - [`embedded`]: the demo image that is compiled in.
//!
//! Everything here blocks and belongs on a blocking thread. Everything read from an image is hostile until
//! checked: digests and sizes of every blob, bounds on every document and layer, and no path of a layer is ever
//! resolved outside its own directory. What an image's configuration *means* (user, entrypoint, volumes) is
//! decided where a container is made from it, not here.

pub mod archive;
pub mod compression;
pub mod digest;
pub mod document;
pub mod embedded;
pub mod layer;
pub mod load;
pub mod reference;
pub mod source;
pub mod store;
mod tree;

pub use digest::{Algorithm, Digest, DigestError, ImageId};
pub use layer::{Limits, Unpacked};
pub use load::{LoadError, LoadOptions, LoadSource, Loaded, Progress};
pub use reference::{Reference, ReferenceError};
pub use store::{Image, ImageInfo, NotFound, RemoveError, Removed, Store, StoreError};
