//! Images from files into the store: OCI layouts (directory or tar) and `docker save` archives.
//!
//! One pass over every layer: its bytes are hashed and kept as a blob, decompressed, hashed again, and unpacked,
//! all into the store's staging directory. Only when all digests are right does anything move to its place, so a
//! load that fails, is cancelled or crashes leaves nothing visible.
//!
//! # What an image is called
//!
//! 1. `LoadOptions::name`, if the source holds one image.
//! 2. A `docker save` archive's `RepoTags`.
//! 3. An OCI descriptor's annotation `io.containerd.image.name`.
//! 4. Its `org.opencontainers.image.ref.name` if that is a name (it contains `/`, `:` or `@`).
//! 5. If that is one word, it is a tag, as in the specification's examples, and the name is that of the file or
//!    directory: `app.tar` with `1.2` becomes `localhost/app:1.2`.
//! 6. An OCI layout with one image without any annotation likewise, with the tag `latest`.
//!
//! Anything else has no name and is used by its id.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use oci_spec::image::ImageConfiguration;
use rustix::fs::{Mode, OFlags};

use super::archive::ArchiveError;
use super::compression::{Compression, Decompressor};
use super::digest::{Algorithm, Digest, Digester, ImageId};
use super::document::{self, Descriptor, DocumentError, Index, Manifest, Platform, Target};
use super::layer::{self, Limits, UnpackError};
use super::reference::{Reference, ReferenceError};
pub use super::source::LoadSource;
use super::source::{Blob, Source, SourceError};
use super::store::{
    Commit, ImageInfo, LayerRecord, Staging, Store, StoreError, chain_ids, diff_ids, platform_of, private_dir,
};

/// How deep indexes may lie in indexes.
const INDEX_DEPTH_MAX: usize = 4;
/// How often progress is told, in bytes: ten times a second at the speed of a slow disk.
const PROGRESS_STEP: u64 = 4 << 20;

/// How to load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The name for the only image of the source.
    pub name: Option<Reference>,
    /// What the source is called, such as the file's name; found out if possible.
    pub source: Option<String>,
    /// Set it to give up.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// How far a load has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// An archive that cannot be read in place is being taken apart.
    Reading {
        /// Bytes of files in it so far.
        bytes: u64,
    },
    /// A layer is being unpacked.
    Layer {
        /// Which one of the image, counted from 1.
        layer: usize,
        /// How many the image has.
        layers: usize,
        /// How much of it has been read, compressed.
        bytes: u64,
        /// How much there is to read.
        total: u64,
    },
    /// A layer is in the store already.
    Known {
        /// Which one of the image, counted from 1.
        layer: usize,
        /// How many the image has.
        layers: usize,
    },
    /// Everything is being flushed and put in place.
    Storing,
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// As in a listing.
    pub info: ImageInfo,
    /// What was left out or looked odd, in words.
    pub notes: Vec<String>,
}

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Neither an OCI layout nor a docker archive.
    #[error(
        "{0}; `ctl image load` takes an OCI image layout (directory or tar) or the output of `docker save`"
    )]
    NotAnImage(String),
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A document is not acceptable.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A blob that a document refers to is not there.
    #[error("the {what} {digest} is missing in the source")]
    Missing {
        /// What it would be.
        what: &'static str,
        /// Its digest, or its path in a docker archive.
        digest: String,
    },
    /// A blob is not what its digest says.
    #[error("the {what} is damaged: it should be {expected}, but it is {found}")]
    Digest {
        /// Which blob.
        what: String,
        /// The digest or size it should have.
        expected: String,
        /// The one it has.
        found: String,
    },
    /// The configuration does not fit the manifest, or says something impossible.
    #[error("the image configuration does not fit: {0}")]
    Config(String),
    /// No image for this host.
    #[error("the image is for {}, this host is {}", .found.join(", "), Platform::host())]
    Platform {
        /// What it is for.
        found: Vec<String>,
    },
    /// A layer cannot be unpacked.
    #[error("layer {layer} of {layers} ({digest})")]
    Layer {
        /// Which one, counted from 1.
        layer: usize,
        /// Of how many.
        layers: usize,
        /// Its digest, or its path in a docker archive.
        digest: String,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// A name in the source is not in the grammar.
    #[error("the source calls the image {name:?}; give another name with --name")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: ReferenceError,
    },
    /// A name that is kept for images compiled into wharf.
    #[error("the name {0} is reserved for images that come with wharf; give another name with --name")]
    Reserved(Reference),
    /// One name for several images.
    #[error("the source holds {0} images and cannot be loaded under one name")]
    Several(usize),
    /// More than [`Limits`] allow.
    #[error("the source has more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// The disk is full.
    #[error(
        "no space left below {}: the image needs more than {} and {} were free; remove something (`ctl image rm`) \
         and load it again",
        .path.display(), megabytes(*.needed), megabytes(*.free)
    )]
    StorageFull {
        /// Where.
        path: PathBuf,
        /// Bytes it had taken, with those that were still to be read.
        needed: u64,
        /// Bytes that were free when it began.
        free: u64,
        /// Where it happened.
        #[source]
        source: Box<LoadError>,
    },
    /// [`LoadOptions::cancel`] was set.
    #[error("loading was cancelled")]
    Cancelled,
    /// Writing failed.
    #[error("{doing}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What came back.
        #[source]
        source: io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LoadError {
    /// Is it the image that is wrong (and not the host)?
    pub fn is_bad_image(&self) -> bool {
        match self {
            LoadError::NotAnImage(_)
            | LoadError::Document(_)
            | LoadError::Missing { .. }
            | LoadError::Digest { .. }
            | LoadError::Config(_)
            | LoadError::Platform { .. }
            | LoadError::Name { .. }
            | LoadError::Reserved(_)
            | LoadError::Several(_)
            | LoadError::Limit { .. } => true,
            LoadError::Source(SourceError::Io { source, .. }) => is_content(source),
            LoadError::Source(_) => true,
            LoadError::Layer { source: UnpackError::Write { .. }, .. } => false,
            LoadError::Layer { source: UnpackError::Archive(ArchiveError::Read(source)), .. } => {
                is_content(source)
            }
            LoadError::Layer { .. } => true,
            LoadError::StorageFull { .. }
            | LoadError::Cancelled
            | LoadError::Io { .. }
            | LoadError::Store(_) => false,
        }
    }
}

/// Errors of the kernel have a number; those of decompressors and limits have not.
fn is_content(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

impl Store {
    /// Load every image of a source that is for this host. Blocks; `progress` is called often.
    pub fn load(
        &self,
        source: LoadSource,
        options: &LoadOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Loaded>, LoadError> {
        self.load_as(source, options, progress, false)
    }

    pub(super) fn load_as(
        &self,
        source: LoadSource,
        options: &LoadOptions,
        progress: &mut dyn FnMut(Progress),
        reserved: bool,
    ) -> Result<Vec<Loaded>, LoadError> {
        let staging = self.staging()?;
        let free = free_space(&staging.path);
        let mut loader = Loader {
            store: self,
            staging: &staging,
            options,
            reserved,
            limits: self.limits(),
            report: Report { progress, cancel: options.cancel.clone(), next: 0 },
            commit: Commit::default(),
            blobs: HashMap::new(),
            layers: HashMap::new(),
            serial: 0,
            needed: 0,
            notes: BTreeMap::new(),
        };
        let outcome = loader.load(source);
        let needed = loader.needed;
        let cancelled = loader.report.cancelled();
        drop(staging);
        self.collect_if_wanted();
        match outcome {
            Ok(loaded) => Ok(loaded),
            Err(_) if cancelled => Err(LoadError::Cancelled),
            Err(error) if is_full(&error) => {
                let path = self.state().to_owned();
                Err(LoadError::StorageFull { path, needed, free, source: Box::new(error) })
            }
            Err(error) => Err(error),
        }
    }
}

struct Loader<'a> {
    store: &'a Store,
    staging: &'a Staging,
    options: &'a LoadOptions,
    reserved: bool,
    limits: &'a Limits,
    report: Report<'a>,
    commit: Commit,
    /// Blobs in staging, with their sizes.
    blobs: HashMap<Digest, u64>,
    /// Unpacked layers in staging, by key.
    layers: HashMap<String, (PathBuf, LayerRecord)>,
    serial: u64,
    /// Bytes that the load has taken so far or is known to take.
    needed: u64,
    /// What is to be said about each image that was staged.
    notes: BTreeMap<ImageId, Vec<String>>,
}

/// Tells how far we are, and hears whether to give up.
struct Report<'a> {
    progress: &'a mut dyn FnMut(Progress),
    cancel: Option<Arc<AtomicBool>>,
    next: u64,
}

impl Report<'_> {
    fn cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    fn check(&self) -> io::Result<()> {
        if self.cancelled() { Err(io::Error::other("cancelled")) } else { Ok(()) }
    }

    fn say(&mut self, progress: Progress) {
        self.next = 0;
        (self.progress)(progress);
    }

    fn step(&mut self, bytes: u64, progress: impl FnOnce() -> Progress) -> io::Result<()> {
        self.check()?;
        if bytes >= self.next {
            self.next = bytes + PROGRESS_STEP;
            (self.progress)(progress());
        }
        Ok(())
    }
}

/// An image of the source, before its layers are looked at.
struct Found {
    descriptor: Descriptor,
    names: Vec<Reference>,
}

/// What became of a layer.
struct StagedLayer {
    digest: Digest,
    size: u64,
    compression: Compression,
    key: String,
}

/// Where a layer comes from.
struct LayerInput<'a> {
    /// Its place in the image, counted from 1.
    layer: usize,
    layers: usize,
    /// Its path in the source.
    path: String,
    /// What the manifest says about it; a docker archive says nothing.
    expected: Option<&'a Descriptor>,
    diff_id: &'a Digest,
    chain_id: &'a Digest,
    /// Keys of the layers below, topmost first.
    below: Vec<String>,
}

impl Loader<'_> {
    fn load(&mut self, source: LoadSource) -> Result<Vec<Loaded>, LoadError> {
        let spool = self.staging.path.join("spool");
        let report = &mut self.report;
        let mut taken = 0;
        let opened = Source::open(source, &spool, self.limits, &mut |bytes| {
            taken = bytes;
            report.step(bytes, || Progress::Reading { bytes })
        });
        self.needed += taken;
        let mut source = opened.map_err(|error| match error {
            SourceError::Archive(ArchiveError::Invalid { offset: 0, reason }) => {
                LoadError::NotAnImage(format!("this is no tar archive ({reason})"))
            }
            other @ (SourceError::Archive(_)
            | SourceError::Limit { .. }
            | SourceError::Refused { .. }
            | SourceError::TooLong { .. }
            | SourceError::Io { .. }) => other.into(),
        })?;
        if let Some(name) = &self.options.source {
            source.stem = super::source::stem_of(Path::new(name));
        }
        let limit = self.limits.document_bytes;
        if let Some(bytes) = source.document("index.json", limit)? {
            let layout = source.document("oci-layout", limit)?.ok_or_else(|| {
                LoadError::NotAnImage("there is an index.json but no oci-layout beside it".to_owned())
            })?;
            check_layout(&layout)?;
            self.load_layout(&source, &document::index(&bytes, None)?)?;
        } else if let Some(bytes) = source.document("manifest.json", limit)? {
            self.load_docker(&source, &bytes)?;
        } else {
            let what = "there is neither an oci-layout with index.json nor a manifest.json in it";
            return Err(LoadError::NotAnImage(what.to_owned()));
        }
        self.report.check().map_err(|_| LoadError::Cancelled)?;
        self.report.say(Progress::Storing);
        let commit = std::mem::take(&mut self.commit);
        self.store.commit(self.staging, commit)?;
        let listed = self.store.list()?;
        let mut loaded = Vec::new();
        for (id, notes) in std::mem::take(&mut self.notes) {
            if let Some(info) = listed.iter().find(|info| info.id == id) {
                loaded.push(Loaded { info: info.clone(), notes });
            }
        }
        Ok(loaded)
    }

    fn load_layout(&mut self, source: &Source, index: &Index) -> Result<(), LoadError> {
        let mut found: Vec<Found> = Vec::new();
        let mut elsewhere = Vec::new();
        for top in index.manifests.iter().flatten().filter(|d| !is_attestation(d)) {
            let Some(descriptor) = self.choose(source, top, &mut elsewhere, 0)? else { continue };
            let names = if self.options.name.is_some() { Vec::new() } else { annotated_names(top, source)? };
            match found.iter_mut().find(|known| known.descriptor.digest == descriptor.digest) {
                Some(known) => known.names.extend(names),
                None => found.push(Found { descriptor, names }),
            }
            if found.len() > self.limits.images {
                return Err(LoadError::Limit { what: "images", limit: self.limits.images });
            }
        }
        if found.is_empty() {
            if elsewhere.is_empty() {
                return Err(LoadError::NotAnImage("the image layout is empty".to_owned()));
            }
            return Err(LoadError::Platform { found: elsewhere });
        }
        if let [only] = &mut found[..]
            && only.names.is_empty()
        {
            let stem = source.stem.as_deref().and_then(|stem| Reference::local(stem, "latest"));
            only.names.extend(stem);
        }
        self.rename(found.len(), found.iter_mut().map(|found| &mut found.names))?;
        for image in found {
            self.load_image(source, image)?;
        }
        Ok(())
    }

    /// `--name`, and whether the names may be used.
    fn rename<'n>(
        &self,
        count: usize,
        names: impl Iterator<Item = &'n mut Vec<Reference>>,
    ) -> Result<(), LoadError> {
        for names in names {
            if let Some(name) = &self.options.name {
                if count != 1 {
                    return Err(LoadError::Several(count));
                }
                *names = vec![name.without_digest()];
            }
            if let Some(name) = names.iter().find(|name| name.is_reserved() && !self.reserved) {
                return Err(LoadError::Reserved(name.clone()));
            }
        }
        Ok(())
    }

    /// The manifest that a descriptor leads to on this host.
    fn choose(
        &self,
        source: &Source,
        descriptor: &Descriptor,
        elsewhere: &mut Vec<String>,
        depth: usize,
    ) -> Result<Option<Descriptor>, LoadError> {
        if let Some(platform) = &descriptor.platform
            && !platform.runs_here()
        {
            elsewhere.push(platform.to_string());
            return Ok(None);
        }
        match document::target(descriptor)? {
            Target::Manifest => return Ok(Some(descriptor.clone())),
            Target::Index if depth >= INDEX_DEPTH_MAX => {
                return Err(LoadError::Limit { what: "indexes inside each other", limit: INDEX_DEPTH_MAX });
            }
            Target::Index => {}
        }
        let bytes = self.blob_document(source, "index", descriptor)?;
        let index = document::index(&bytes, Some(&descriptor.media_type))?;
        let mut choice: Option<(u8, Descriptor)> = None;
        for inner in index.manifests.iter().flatten().filter(|d| !is_attestation(d)) {
            let Some(chosen) = self.choose(source, inner, elsewhere, depth + 1)? else { continue };
            // The plainest variant runs everywhere.
            let rank = match &inner.platform {
                Some(Platform { variant: None, .. }) => 0,
                Some(Platform { variant: Some(variant), .. }) if variant.is_empty() || variant == "v1" => 0,
                Some(Platform { variant: Some(_), .. }) => 1,
                None => 2,
            };
            if choice.as_ref().is_none_or(|(best, _)| rank < *best) {
                choice = Some((rank, chosen));
            }
        }
        Ok(choice.map(|(_, descriptor)| descriptor))
    }

    fn load_image(&mut self, source: &Source, found: Found) -> Result<(), LoadError> {
        let bytes = self.blob_document(source, "manifest", &found.descriptor)?;
        let manifest = document::manifest(&bytes, Some(&found.descriptor.media_type))?;
        let config_bytes = self.blob_document(source, "image configuration", &manifest.config)?;
        let config = self.check_config(&config_bytes)?;
        let diff_ids = diff_ids(&config).map_err(LoadError::Config)?;
        let layers = manifest.layers.as_deref().unwrap_or_default();
        if diff_ids.len() != layers.len() {
            let reason = format!("it lists {} layers, the manifest {}", diff_ids.len(), layers.len());
            return Err(LoadError::Config(reason));
        }
        self.needed += layers.iter().map(|layer| layer.size).sum::<u64>();
        let chain = chain_ids(&diff_ids);
        let mut keys = Vec::new();
        for (at, expected) in layers.iter().enumerate() {
            let staged = self.layer(
                source,
                &LayerInput {
                    layer: at + 1,
                    layers: layers.len(),
                    path: blob_path(&expected.digest),
                    expected: Some(expected),
                    diff_id: &diff_ids[at],
                    chain_id: &chain[at],
                    below: keys.iter().rev().cloned().collect(),
                },
            )?;
            keys.push(staged.key);
        }
        self.add_image(&config, &keys, &manifest.config.digest, &config_bytes, &bytes, found)
    }

    fn load_docker(&mut self, source: &Source, bytes: &[u8]) -> Result<(), LoadError> {
        let mut images = Vec::new();
        for image in document::docker(bytes)? {
            let mut names = Vec::new();
            for tag in image.repo_tags.iter().flatten() {
                let name: Reference =
                    tag.parse().map_err(|source| LoadError::Name { name: tag.clone(), source })?;
                names.push(name.without_digest());
            }
            images.push((image, names));
        }
        if images.is_empty() {
            return Err(LoadError::NotAnImage("manifest.json lists no image".to_owned()));
        }
        if images.len() > self.limits.images {
            return Err(LoadError::Limit { what: "images", limit: self.limits.images });
        }
        self.rename(images.len(), images.iter_mut().map(|(_, names)| names))?;
        for (image, names) in images {
            self.load_docker_image(source, &image, names)?;
        }
        Ok(())
    }

    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    fn load_docker_image(
        &mut self,
        source: &Source,
        image: &document::DockerImage,
        names: Vec<Reference>,
    ) -> Result<(), LoadError> {
        let missing = |what, path: &str| LoadError::Missing { what, digest: path.to_owned() };
        let config_bytes = source
            .document(&image.config, self.limits.document_bytes)?
            .ok_or_else(|| missing("image configuration", &image.config))?;
        let config = self.check_config(&config_bytes)?;
        let diff_ids = diff_ids(&config).map_err(LoadError::Config)?;
        let paths = image.layers.as_deref().unwrap_or_default();
        if diff_ids.len() != paths.len() {
            let reason = format!("it lists {} layers, manifest.json {}", diff_ids.len(), paths.len());
            return Err(LoadError::Config(reason));
        }
        let chain = chain_ids(&diff_ids);
        let mut keys = Vec::new();
        let mut layers = Vec::new();
        for (at, path) in paths.iter().enumerate() {
            let staged = self.layer(
                source,
                &LayerInput {
                    layer: at + 1,
                    layers: paths.len(),
                    path: path.clone(),
                    expected: None,
                    diff_id: &diff_ids[at],
                    chain_id: &chain[at],
                    below: keys.iter().rev().cloned().collect(),
                },
            )?;
            keys.push(staged.key);
            layers.push(Descriptor {
                media_type: document::layer_type(staged.compression),
                digest: staged.digest,
                size: staged.size,
                platform: None,
                annotations: None,
            });
        }
        // The configuration stays as it is, byte for byte: its digest is the image's id, here as with docker.
        let config_digest = Digest::sha256(&config_bytes);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(document::MANIFEST.to_owned()),
            config: Descriptor {
                media_type: document::CONFIG.to_owned(),
                digest: config_digest.clone(),
                size: config_bytes.len() as u64,
                platform: None,
                annotations: None,
            },
            layers: Some(layers),
        };
        let bytes = serde_json::to_vec(&manifest).expect("a manifest can always be written");
        let descriptor = Descriptor {
            media_type: document::MANIFEST.to_owned(),
            digest: Digest::sha256(&bytes),
            size: bytes.len() as u64,
            platform: None,
            annotations: None,
        };
        let found = Found { descriptor, names };
        self.add_image(&config, &keys, &config_digest, &config_bytes, &bytes, found)
    }

    fn check_config(&self, bytes: &[u8]) -> Result<ImageConfiguration, LoadError> {
        let (config, _) = document::config(bytes)?;
        let platform = platform_of(&config);
        if !platform.runs_here() {
            return Err(LoadError::Platform { found: vec![platform.to_string()] });
        }
        let layers = config.rootfs().diff_ids().len();
        if layers > self.limits.layers {
            return Err(LoadError::Limit { what: "layers in an image", limit: self.limits.layers });
        }
        Ok(config)
    }

    /// Everything of an image is staged: note what has to be put in place for it.
    fn add_image(
        &mut self,
        config: &ImageConfiguration,
        keys: &[String],
        config_digest: &Digest,
        config_bytes: &[u8],
        manifest_bytes: &[u8],
        found: Found,
    ) -> Result<(), LoadError> {
        self.stage_document(config_digest, config_bytes)?;
        self.stage_document(&found.descriptor.digest, manifest_bytes)?;
        if keys.is_empty() {
            self.store.empty_layer()?;
        }
        let mut notes = Vec::new();
        for key in keys {
            if let Some((_, record)) = self.layers.get(key) {
                notes.extend(record.unpacked.notes());
            }
        }
        self.notes.entry(ImageId(config_digest.clone())).or_default().extend(notes);
        let descriptor =
            Descriptor { platform: Some(platform_of(config)), annotations: None, ..found.descriptor };
        self.commit.images.push((descriptor, found.names));
        Ok(())
    }

    /// Bring in one layer, unless it is there.
    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    fn layer(&mut self, source: &Source, input: &LayerInput<'_>) -> Result<StagedLayer, LoadError> {
        let &LayerInput { layer, layers, ref path, expected, diff_id, chain_id, .. } = input;
        let known = self.known_layer(diff_id, chain_id)?;
        if let (Some(key), Some(expected)) = (&known, expected)
            && self.known_blob(&expected.digest, Some(expected.size))
        {
            self.report.say(Progress::Known { layer, layers });
            let (digest, size) = (expected.digest.clone(), expected.size);
            // Nothing was looked at, and an OCI manifest says itself what its layers are.
            return Ok(StagedLayer { digest, size, compression: Compression::None, key: key.clone() });
        }
        let what = || format!("layer {layer} of {layers} ({path})");
        let blob =
            source.file(path)?.ok_or_else(|| LoadError::Missing { what: "layer", digest: path.clone() })?;
        let size = blob.size;
        if let (Some(key), None) = (&known, expected)
            && blob.starts_plain()?
            && self.known_blob(diff_id, Some(size))
        {
            // A docker archive gives its layers no digests, but an uncompressed one is its diff id.
            self.report.say(Progress::Known { layer, layers });
            let (digest, key) = (diff_id.clone(), key.clone());
            return Ok(StagedLayer { digest, size, compression: Compression::None, key });
        }
        if let Some(expected) = expected
            && expected.size != size
        {
            let (expected, found) = (format!("{} bytes long", expected.size), format!("{size}"));
            return Err(LoadError::Digest { what: what(), expected, found });
        }
        if let (Some(expected), Some((_, found))) = (expected, &blob.spooled)
            && expected.digest.algorithm() == Algorithm::Sha256
            && expected.digest != *found
        {
            let (expected, found) = (expected.digest.to_string(), found.to_string());
            return Err(LoadError::Digest { what: what(), expected, found });
        }
        if expected.is_none() {
            self.needed += size;
        }
        self.serial += 1;
        let dir = self.staging.path.join(format!("layer-{}", self.serial));
        let tree = if known.is_none() { Some(self.layer_dir(&dir)?) } else { None };
        let copied = self.staging.path.join(format!("blob-{}", self.serial));
        let outcome = self.read_layer(input, blob, &copied, tree.as_ref())?;
        if outcome.diff_id != *diff_id {
            return Err(LoadError::Digest {
                what: format!("uncompressed {}", what()),
                expected: diff_id.to_string(),
                found: outcome.diff_id.to_string(),
            });
        }
        if let Some(expected) = expected
            && expected.digest != outcome.digest
        {
            let (expected, found) = (expected.digest.to_string(), outcome.digest.to_string());
            return Err(LoadError::Digest { what: what(), expected, found });
        }
        if !self.known_blob(&outcome.digest, Some(size)) {
            self.blobs.insert(outcome.digest.clone(), size);
            self.commit.blobs.push((outcome.file, outcome.digest.clone()));
        }
        let key = match (known, outcome.unpacked) {
            (Some(key), _) => key,
            (None, None) => return Err(LoadError::Config("a layer was not unpacked".to_owned())),
            (None, Some(unpacked)) => {
                self.needed += unpacked.bytes;
                let key = if unpacked.inherited { chain_id.hex() } else { diff_id.hex() }.to_owned();
                let record = LayerRecord { diff_id: diff_id.clone(), unpacked };
                let json = serde_json::to_vec(&record).expect("a record can always be written");
                std::fs::write(dir.join("layer.json"), json)
                    .map_err(|source| LoadError::Io { doing: "staging a layer", source })?;
                self.commit.layers.push((dir.clone(), key.clone()));
                self.layers.insert(key.clone(), (dir, record));
                key
            }
        };
        Ok(StagedLayer { digest: outcome.digest, size, compression: outcome.compression, key })
    }

    /// The key of a layer's tree, if it is in the store or in staging.
    fn known_layer(&self, diff_id: &Digest, chain_id: &Digest) -> Result<Option<String>, LoadError> {
        if let Some((key, _)) = self.store.layer(diff_id, chain_id)? {
            return Ok(Some(key));
        }
        let staged = self.layers.get(diff_id.hex());
        if staged.is_some_and(|(_, record)| diff_id == chain_id || !record.unpacked.inherited) {
            return Ok(Some(diff_id.hex().to_owned()));
        }
        Ok(self.layers.contains_key(chain_id.hex()).then(|| chain_id.hex().to_owned()))
    }

    fn known_blob(&self, digest: &Digest, size: Option<u64>) -> bool {
        self.blobs.contains_key(digest) || self.store.has_blob(digest, size)
    }

    fn layer_dir(&self, dir: &Path) -> Result<OwnedFd, LoadError> {
        private_dir(dir)?;
        let tree = dir.join("tree");
        private_dir(&tree)?;
        open_dir(&tree)
    }

    /// The one pass over a layer: keep, hash, decompress, hash, unpack.
    fn read_layer(
        &mut self,
        input: &LayerInput<'_>,
        blob: Blob,
        copy: &Path,
        tree: Option<&OwnedFd>,
    ) -> Result<LayerOutcome, LoadError> {
        let writing = |source| LoadError::Io { doing: "staging a layer", source };
        let algorithm = input.expected.map_or(Algorithm::Sha256, |expected| expected.digest.algorithm());
        let total = blob.size;
        // What was taken out of the archive is a file of ours and hashed already.
        let (file, known, out) = match blob.spooled {
            Some((path, digest)) if algorithm == Algorithm::Sha256 => (path, Some(digest), None),
            Some((path, _)) => (path, None, None),
            None => (copy.to_owned(), None, Some(File::create_new(copy).map_err(writing)?)),
        };
        let read = Rc::new(Cell::new(0));
        let kept = Kept {
            input: blob.reader,
            digester: if known.is_some() { None } else { Some(Digester::new(algorithm)) },
            out,
            count: Rc::clone(&read),
        };
        let reading = |source: io::Error| LoadError::Layer {
            layer: input.layer,
            layers: input.layers,
            digest: input.path.clone(),
            source: ArchiveError::read(source, "in compressed data").into(),
        };
        let decompressor = Decompressor::new(kept).map_err(reading)?;
        let compression = decompressor.compression();
        let mut plain = Plain {
            input: decompressor,
            digester: Digester::new(input.diff_id.algorithm()),
            count: 0,
            read: Rc::clone(&read),
            limits: *self.limits,
        };
        let report = &mut self.report;
        let &LayerInput { layer, layers, .. } = input;
        report.say(Progress::Layer { layer, layers, bytes: 0, total });
        let mut step = |_| {
            let bytes = read.get();
            report.step(bytes, || Progress::Layer { layer, layers, bytes, total })
        };
        let unpacked = match tree {
            None => None,
            Some(tree) => {
                let trash = open_dir(&self.staging.path.join("trash"))?;
                let below = input
                    .below
                    .iter()
                    .map(|key| {
                        let path = match self.layers.get(key) {
                            Some((dir, _)) => dir.clone(),
                            None => self.store.layer_path(key),
                        };
                        open_dir(&path.join("tree"))
                    })
                    .collect::<Result<Vec<OwnedFd>, LoadError>>()?;
                let below: Vec<BorrowedFd<'_>> = below.iter().map(|fd| fd.as_fd()).collect();
                let unpacked =
                    layer::unpack(&mut plain, tree.as_fd(), trash.as_fd(), &below, self.limits, &mut step);
                Some(unpacked.map_err(|source| LoadError::Layer {
                    layer,
                    layers,
                    digest: input.path.clone(),
                    source,
                })?)
            }
        };
        // What follows the end of the archive belongs to the digests, and checksums stand at the end.
        let mut rest = vec![0; 128 << 10];
        loop {
            match plain.read(&mut rest) {
                Ok(0) => break,
                Ok(_) => step(0).map_err(reading)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(reading(error)),
            }
        }
        let Plain { input: decompressor, digester, .. } = plain;
        let mut kept = decompressor.into_inner();
        io::copy(&mut kept, &mut io::sink()).map_err(reading)?;
        let digest = match (known, kept.digester) {
            (Some(digest), _) => digest,
            (None, Some(digester)) => digester.finish(),
            (None, None) => return Err(LoadError::Config("a layer was not hashed".to_owned())),
        };
        Ok(LayerOutcome { digest, diff_id: digester.finish(), compression, unpacked, file })
    }

    /// Read a short blob and compare it with its digest.
    fn blob_document(
        &self,
        source: &Source,
        what: &'static str,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, LoadError> {
        let bytes = source
            .document(&blob_path(&descriptor.digest), self.limits.document_bytes)?
            .ok_or_else(|| LoadError::Missing { what, digest: descriptor.digest.to_string() })?;
        if bytes.len() as u64 != descriptor.size {
            return Err(LoadError::Digest {
                what: format!("{what} {}", descriptor.digest),
                expected: format!("{} bytes long", descriptor.size),
                found: bytes.len().to_string(),
            });
        }
        if !descriptor.digest.matches(&bytes) {
            return Err(LoadError::Digest {
                what: what.to_owned(),
                expected: descriptor.digest.to_string(),
                found: Digest::sha256(&bytes).to_string(),
            });
        }
        Ok(bytes)
    }

    fn stage_document(&mut self, digest: &Digest, bytes: &[u8]) -> Result<(), LoadError> {
        let size = bytes.len() as u64;
        if self.known_blob(digest, Some(size)) {
            return Ok(());
        }
        self.serial += 1;
        let path = self.staging.path.join(format!("blob-{}", self.serial));
        std::fs::write(&path, bytes)
            .map_err(|source| LoadError::Io { doing: "staging a document", source })?;
        self.blobs.insert(digest.clone(), size);
        self.commit.blobs.push((path, digest.clone()));
        Ok(())
    }
}

/// What reading a layer gave.
struct LayerOutcome {
    digest: Digest,
    diff_id: Digest,
    compression: Compression,
    unpacked: Option<layer::Unpacked>,
    /// The blob in staging.
    file: PathBuf,
}

/// Hashes and keeps what is read through it.
struct Kept<R> {
    input: R,
    digester: Option<Digester>,
    out: Option<File>,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Kept<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buf)?;
        if let Some(digester) = &mut self.digester {
            digester.update(&buf[..count]);
        }
        if let Some(out) = &mut self.out {
            out.write_all(&buf[..count])?;
        }
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

/// Hashes and bounds the uncompressed bytes that are read through it.
struct Plain<R> {
    input: R,
    digester: Digester,
    count: u64,
    /// Compressed bytes so far.
    read: Rc<Cell<u64>>,
    limits: Limits,
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buf)?;
        self.digester.update(&buf[..count]);
        self.count += count as u64;
        if self.count > self.limits.bytes {
            return Err(io::Error::other(format!("it has more than {} bytes", self.limits.bytes)));
        }
        let Limits { ratio, ratio_from, .. } = self.limits;
        if self.count > ratio_from && self.count / ratio > self.read.get() {
            return Err(io::Error::other(format!("it grows to more than {ratio} times its compressed size")));
        }
        Ok(count)
    }
}

fn annotated_names(descriptor: &Descriptor, source: &Source) -> Result<Vec<Reference>, LoadError> {
    let full = descriptor.annotation(document::IMAGE_NAME);
    let word = descriptor.annotation(document::REF_NAME);
    let name = match (full, word) {
        (Some(full), _) => full,
        (None, Some(name)) if name.contains(['/', ':', '@']) => name,
        (None, Some(tag)) => {
            return Ok(source
                .stem
                .as_deref()
                .and_then(|stem| Reference::local(stem, tag))
                .into_iter()
                .collect());
        }
        (None, None) => return Ok(Vec::new()),
    };
    let parsed: Reference =
        name.parse().map_err(|source| LoadError::Name { name: name.to_owned(), source })?;
    Ok(vec![parsed.without_digest()])
}

/// BuildKit puts provenance beside images, as manifests of no platform.
fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.annotation("vnd.docker.reference.type").is_some()
        || descriptor.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
}

fn check_layout(bytes: &[u8]) -> Result<(), LoadError> {
    let layout: serde_json::Value = serde_json::from_slice(bytes)
        .map_err(|source| DocumentError::Shape { what: "oci-layout", source })?;
    match layout.get("imageLayoutVersion").and_then(|version| version.as_str()) {
        Some(version) if version.starts_with("1.") => Ok(()),
        Some(version) => {
            Err(LoadError::NotAnImage(format!("OCI layout version {version:?} is not supported")))
        }
        None => Err(LoadError::NotAnImage("the oci-layout has no imageLayoutVersion".to_owned())),
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn open_dir(path: &Path) -> Result<OwnedFd, LoadError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| LoadError::Io { doing: "opening a layer's directory", source: error.into() })
}

fn free_space(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Did it fail, at the bottom of it, because the disk or a quota is full?
fn is_full(error: &LoadError) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        next = error.source();
    }
    false
}
