//! The JSON documents of the OCI image format and of `docker save`, with the checks that keep one document from
//! meaning two things.

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest::Digest;

/// An index (a list of manifests).
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// A manifest (one image for one platform).
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An image's configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// An uncompressed layer; compressed ones have a suffix.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// An image's name, or only its tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// An image's full name, as containerd and BuildKit write it.
pub const IMAGE_NAME: &str = "io.containerd.image.name";

/// What is wrong with a document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not of this shape.
    #[error("the {what} cannot be read")]
    Shape {
        /// Which document.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Readable but not acceptable.
    #[error("the {what} {reason}")]
    Refused {
        /// Which document.
        what: &'static str,
        /// Why not.
        reason: String,
    },
}

/// A reference from one document to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default)]
    pub media_type: String,
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// For manifests in an index: what the image runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Names and more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// The value of an annotation, unless empty.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// As Go spells it: `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// Such as `v8` for arm64 or `v3` for amd64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// This host's.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        Platform { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
    }

    /// Can an image for `self` run on this host? Variants are preferences, not walls.
    pub fn runs_here(&self) -> bool {
        let host = Platform::host();
        self.os == host.os && self.architecture == host.architecture
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unknown = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
        write!(f, "{}/{}", unknown(&self.os), unknown(&self.architecture))?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// `index.json`, and indexes below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`INDEX`] if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests; null and missing are empty.
    #[serde(default)]
    pub manifests: Option<Vec<Descriptor>>,
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`MANIFEST`] if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first; null is empty.
    pub layers: Option<Vec<Descriptor>>,
}

/// One image in the `manifest.json` of `docker save`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerImage {
    /// The path of the configuration in the archive.
    pub config: String,
    /// Names.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// The paths of the layers in the archive, lowest first.
    pub layers: Option<Vec<String>>,
}

/// What a descriptor in an index points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Another index.
    Index,
    /// A manifest.
    Manifest,
}

/// By media type.
pub fn target(descriptor: &Descriptor) -> Result<Target, DocumentError> {
    match descriptor.media_type.as_str() {
        INDEX | DOCKER_LIST => Ok(Target::Index),
        MANIFEST | DOCKER_MANIFEST => Ok(Target::Manifest),
        other => {
            Err(refused("index", format!("lists {} as {other:?}, which is no image", descriptor.digest)))
        }
    }
}

/// Read an index; `expected` is the media type that its descriptor gave.
pub fn index(bytes: &[u8], expected: Option<&str>) -> Result<Index, DocumentError> {
    let index: Index = parse("index", bytes, &["config", "layers", "fslayers", "blobs"])?;
    check_head("index", index.schema_version, index.media_type.as_deref(), expected, &[INDEX, DOCKER_LIST])?;
    Ok(index)
}

/// Read a manifest of a container image.
pub fn manifest(bytes: &[u8], expected: Option<&str>) -> Result<Manifest, DocumentError> {
    let manifest: Manifest = parse("manifest", bytes, &["manifests", "fslayers", "blobs"])?;
    let known = [MANIFEST, DOCKER_MANIFEST];
    check_head("manifest", manifest.schema_version, manifest.media_type.as_deref(), expected, &known)?;
    match manifest.config.media_type.as_str() {
        CONFIG | DOCKER_CONFIG => {}
        other => {
            return Err(refused("manifest", format!("is not that of a container image but of {other:?}")));
        }
    }
    for layer in manifest.layers.iter().flatten() {
        check_layer(&layer.media_type)?;
    }
    Ok(manifest)
}

/// Read an image's configuration; also as it stands, for what the typed one does not know.
pub fn config(bytes: &[u8]) -> Result<(ImageConfiguration, Value), DocumentError> {
    let shape = |source| DocumentError::Shape { what: "image configuration", source };
    let config: ImageConfiguration = serde_json::from_slice(bytes).map_err(shape)?;
    let raw = serde_json::from_slice(bytes).map_err(shape)?;
    Ok((config, raw))
}

/// Read the `manifest.json` of `docker save`.
pub fn docker(bytes: &[u8]) -> Result<Vec<DockerImage>, DocumentError> {
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Shape { what: "manifest.json", source })
}

/// The media type of a layer that was found to be compressed so.
pub fn layer_type(compression: super::compression::Compression) -> String {
    match compression {
        super::compression::Compression::None => LAYER.to_owned(),
        super::compression::Compression::Gzip => format!("{LAYER}+gzip"),
        super::compression::Compression::Zstd => format!("{LAYER}+zstd"),
    }
}

fn check_layer(media_type: &str) -> Result<(), DocumentError> {
    let oci = media_type.strip_prefix(LAYER).map(|suffix| matches!(suffix, "" | "+gzip" | "+zstd"));
    let docker = media_type.strip_prefix(DOCKER_LAYER).map(|suffix| matches!(suffix, "" | ".gzip" | ".zstd"));
    if oci.or(docker) == Some(true) {
        return Ok(());
    }
    let why = if media_type.contains("foreign") || media_type.contains("nondistributable") {
        "has a layer that is to be fetched from elsewhere"
    } else if media_type.contains("encrypted") {
        "has an encrypted layer"
    } else {
        "has a layer of an unknown type"
    };
    Err(refused("manifest", format!("{why} ({media_type:?}), which is not supported")))
}

/// A document that names what another kind of document would name can be read as either: CVE-2021-41190. Go's
/// JSON reader also takes keys in other case, so those are refused too.
fn parse<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    foreign: &[&str],
) -> Result<T, DocumentError> {
    let parsed = serde_json::from_slice(bytes).map_err(|source| DocumentError::Shape { what, source })?;
    let keys: BTreeMap<String, Value> =
        serde_json::from_slice(bytes).map_err(|source| DocumentError::Shape { what, source })?;
    for key in keys.keys() {
        let lower = key.to_ascii_lowercase();
        if foreign.contains(&lower.as_str()) {
            return Err(refused(
                what,
                format!("has a field {key:?} that belongs to another kind of document"),
            ));
        }
        let own = ["schemaVersion", "mediaType", "config", "layers", "manifests"];
        if own.iter().any(|own| own.to_ascii_lowercase() == lower && own != key) {
            return Err(refused(what, format!("has a field {key:?} in the wrong case")));
        }
    }
    Ok(parsed)
}

fn check_head(
    what: &'static str,
    version: u32,
    found: Option<&str>,
    expected: Option<&str>,
    known: &[&str],
) -> Result<(), DocumentError> {
    if version != 2 {
        return Err(refused(what, format!("has schema version {version}, only 2 is supported")));
    }
    match found {
        Some(found) if !known.contains(&found) => {
            Err(refused(what, format!("says it is {found:?}, which it cannot be here")))
        }
        Some(found) if expected.is_some_and(|expected| expected != found) => Err(refused(
            what,
            format!("says it is {found:?} but is listed as {:?}", expected.unwrap_or_default()),
        )),
        Some(_) | None => Ok(()),
    }
}

fn refused(what: &'static str, reason: String) -> DocumentError {
    DocumentError::Refused { what, reason }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn descriptor(media_type: &str) -> Value {
        serde_json::json!({ "mediaType": media_type, "digest": Digest::sha256(b"").to_string(), "size": 0 })
    }

    #[test]
    fn a_manifest_that_is_also_an_index_is_refused() {
        let both = serde_json::json!({
            "schemaVersion": 2,
            "config": descriptor(CONFIG),
            "layers": [],
            "manifests": [descriptor(MANIFEST)],
        });
        let bytes = serde_json::to_vec(&both).unwrap();
        assert!(matches!(manifest(&bytes, None), Err(DocumentError::Refused { .. })));
        assert!(matches!(index(&bytes, None), Err(DocumentError::Refused { .. })));
        let text = String::from_utf8(bytes).unwrap().replace("manifests", "Manifests");
        assert!(matches!(manifest(text.as_bytes(), None), Err(DocumentError::Refused { .. })));
    }

    #[test]
    fn a_manifest_listed_as_something_else_is_refused() {
        let text = serde_json::json!({
            "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": descriptor(CONFIG), "layers": null,
        });
        let bytes = serde_json::to_vec(&text).unwrap();
        assert!(manifest(&bytes, Some(DOCKER_MANIFEST)).is_ok());
        assert!(manifest(&bytes, Some(MANIFEST)).is_err());
    }

    #[test]
    fn only_known_layers_are_accepted() {
        for good in [LAYER, DOCKER_LAYER] {
            assert!(check_layer(good).is_ok());
        }
        assert!(check_layer("application/vnd.docker.image.rootfs.diff.tar.gzip").is_ok());
        for bad in [
            "",
            "application/vnd.oci.image.layer.v1.tar+lz4",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        ] {
            assert!(check_layer(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn deep_documents_and_doubled_fields_are_errors_not_crashes() {
        let deep = format!("{{\"schemaVersion\":2,\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(index(deep.as_bytes(), None).is_err());
        assert!(index(b"{\"schemaVersion\":2,\"manifests\":[],\"manifests\":[]}", None).is_err());
        assert!(index(b"", None).is_err());
        assert!(index(b"{\"schemaVersion\":1}", None).is_err());
        assert!(config(b"[]").is_err());
    }
}
