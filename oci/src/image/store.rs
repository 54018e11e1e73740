//! The store: images by content, and their layers unpacked.
//!
//! ```text
//! STATE/images/            a valid OCI image layout (skopeo inspect oci:STATE/images:NAME)
//!   oci-layout
//!   index.json             one descriptor per name; an image without a name has one without a name
//!   blobs/sha256/HEX
//! STATE/layers/KEY/        one unpacked layer, shared by all images that have it
//!   tree/                  a lower directory for overlayfs
//!   layer.json             what was unpacked, see layer::Unpacked
//! STATE/staging/           what is not there yet, or no longer
//! STATE/images.lock        held for a moment by whoever changes index.json
//! STATE/images.busy        held shared while loading, exclusively while collecting garbage
//! ```
//!
//! Nothing half-done is ever visible: everything is written in `staging`, flushed with one syncfs(2), renamed
//! into place, and counts only once `index.json`, replaced in one rename, refers to it. What a crash leaves behind
//! is not referred to and is removed by the next [`Store::open`]. All directories of the store are 0700: the
//! layers hold setuid programs of strangers, which no local user may reach.
//!
//! KEY is the layer's diff id (the digest of the uncompressed tar). A layer in which directories appear only in
//! the names of their children looks different above different layers; such a tree has the chain id instead.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use oci_spec::image::ImageConfiguration;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wharf_protocol::failpoint;

use super::digest::{Digest, ImageId};
use super::document::{self, Descriptor, DocumentError, INDEX, Index, Manifest, Platform, REF_NAME};
use super::layer::{Limits, Unpacked};
use super::reference::{Reference, ReferenceError};
use super::tree;

const LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";
/// The key of the tree that an image without layers gets.
const EMPTY: &str = "empty";
/// How many names a message suggests.
const NEAREST: usize = 3;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system said no.
    #[error("{doing}")]
    Io {
        /// What was tried.
        doing: String,
        /// What came back.
        #[source]
        source: io::Error,
    },
    /// Something in the store is not what it was.
    #[error("the image store {path} is damaged")]
    Document {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// Something that must be there is not.
    #[error("the image store is damaged: {0}; remove the image and load it again")]
    Damaged(String),
}

/// No image answers to a name or id.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// The text is neither name nor id.
    #[error("{name:?} is no image name")]
    Name {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        #[source]
        source: ReferenceError,
    },
    /// There is none.
    #[error("no image {name:?}{}", suggest(.nearest))]
    Missing {
        /// What was asked for.
        name: String,
        /// Names that look like it, likeliest first.
        nearest: Vec<String>,
    },
    /// The beginning of an id fits several images.
    #[error("image id {prefix:?} is not unique: it fits {}", .matches.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// The ids it fits.
        matches: Vec<String>,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn suggest(nearest: &[String]) -> String {
    match nearest {
        [] => "; `ctl image ls` shows what is there, `ctl image load` brings one in".to_owned(),
        names => format!("; did you mean {}?", names.join(" or ")),
    }
}

/// Why an image or name was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is none.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// A container needs it.
    #[error("image {image} is used by container {holder}; remove the container first")]
    InUse {
        /// The image.
        image: String,
        /// Who needs it.
        holder: String,
    },
    /// An id was given, and the image has several names.
    #[error("image {image} has several names ({}); remove them one by one, or all with --force", .names.join(", "))]
    SeveralNames {
        /// The image.
        image: String,
        /// Its names.
        names: Vec<String>,
    },
    /// The store cannot be changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What [`Store::remove`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<String>,
    /// Images that are gone with their last name.
    pub deleted: Vec<ImageId>,
}

/// One image, for listings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageInfo {
    /// The digest of its configuration.
    pub id: ImageId,
    /// Its full names.
    pub names: Vec<Reference>,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Bytes of its files, unpacked.
    pub size: u64,
    /// Bytes of its blobs, compressed.
    pub stored: u64,
    /// When it was built, as its configuration says.
    pub created: Option<String>,
    /// The same in microseconds since 1970.
    pub created_us: Option<i64>,
    /// What it runs on.
    pub platform: Platform,
}

/// One image, for making containers from it.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of its configuration.
    pub id: ImageId,
    /// Its full names.
    pub names: Vec<Reference>,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its configuration.
    pub config: ImageConfiguration,
    /// The same as it stands, with fields that the typed one does not know, such as `Healthcheck`.
    pub raw_config: Value,
    /// Directories for overlayfs, topmost first; at least one.
    pub layers: Vec<PathBuf>,
    /// What was left out when its layers were unpacked, in words.
    pub notes: Vec<String>,
}

/// The store. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: PathBuf,
    limits: Limits,
    serial: AtomicU64,
    /// Garbage was to be collected while something was being loaded.
    collect_later: AtomicBool,
}

/// One image of the index, with what its documents say.
struct Entry {
    id: ImageId,
    names: Vec<Reference>,
    descriptor: Descriptor,
    manifest: Manifest,
}

/// `layer.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    pub diff_id: Digest,
    pub unpacked: Unpacked,
}

/// A private directory for one load, removed on drop.
#[derive(Debug)]
pub(super) struct Staging {
    pub path: PathBuf,
    /// Held shared: as long as it lives, nobody collects what is not referred to yet.
    _busy: File,
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = tree::remove_dir(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "removing a staging directory, ignoring");
        }
    }
}

/// What [`Store::commit`] puts into the store.
#[derive(Debug, Default)]
pub(super) struct Commit {
    /// Files and the blobs they become.
    pub blobs: Vec<(PathBuf, Digest)>,
    /// Directories (with `tree` and `layer.json`) and their keys.
    pub layers: Vec<(PathBuf, String)>,
    /// Manifests and the names they get; without names they are kept under none.
    pub images: Vec<(Descriptor, Vec<Reference>)>,
}

impl Store {
    /// Open the store below a state directory, making what is missing, and remove what a crash left behind.
    pub fn open(state: &Path) -> Result<Store, StoreError> {
        Store::open_with(state, Limits::default())
    }

    /// The same with other bounds.
    pub fn open_with(state: &Path, limits: Limits) -> Result<Store, StoreError> {
        let store = Store {
            inner: Arc::new(Inner {
                state: state.to_owned(),
                limits,
                serial: AtomicU64::new(0),
                collect_later: AtomicBool::new(false),
            }),
        };
        for dir in [
            state.to_owned(),
            store.path("images"),
            store.path("images/blobs"),
            store.path("images/blobs/sha256"),
            store.path("layers"),
            store.path("staging"),
        ] {
            private_dir(&dir)?;
        }
        let layout = store.path("images/oci-layout");
        if !layout.exists() {
            store.replace(&layout, LAYOUT.as_bytes())?;
        }
        {
            let _lock = store.lock()?;
            // From a replacement that a crash has interrupted; the next one would overwrite it.
            for name in ["images/index.new", "images/oci-layout.new"] {
                let _ = std::fs::remove_file(store.path(name));
            }
            if !store.path("images/index.json").exists() {
                store.write_index(&empty_index())?;
            }
        }
        store.collect()?;
        Ok(store)
    }

    /// The bounds on what is loaded.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// The directory everything is below.
    pub fn state(&self) -> &Path {
        &self.inner.state
    }

    /// Every image, by its first name.
    pub fn list(&self) -> Result<Vec<ImageInfo>, StoreError> {
        let mut images = Vec::new();
        for entry in self.entries()? {
            match self.info(&entry) {
                Ok(info) => images.push(info),
                // One damaged image must not hide the others.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(image = %entry.id, error, "an image cannot be read, leaving it out");
                }
            }
        }
        images.sort_by(|a, b| {
            (a.names.is_empty(), &a.names, &a.id).cmp(&(b.names.is_empty(), &b.names, &b.id))
        });
        Ok(images)
    }

    /// The image of a name, an id, or the beginning of an id.
    pub fn resolve(&self, name: &str) -> Result<Image, NotFound> {
        let entry = self.find(name)?.0;
        Ok(self.image(entry)?)
    }

    /// Everything about an image, for people and programs, shaped like `docker image inspect`.
    pub fn inspect(&self, name: &str) -> Result<Value, NotFound> {
        let (entry, _) = self.find(name)?;
        let info = self.info(&entry)?;
        let manifest: Value = self.document("manifest", &entry.descriptor.digest, |bytes| {
            serde_json::from_slice(bytes).map_err(|source| DocumentError::Shape { what: "manifest", source })
        })?;
        let image = self.image(entry)?;
        let digests: BTreeSet<String> =
            image.names.iter().map(|name| format!("{}@{}", name.name(), image.digest)).collect();
        Ok(json!({
            "Id": image.id,
            "RepoTags": image.names,
            "RepoDigests": digests,
            "Digest": image.digest,
            "Created": info.created,
            "Size": info.size,
            "StoredSize": info.stored,
            "Os": info.platform.os,
            "Architecture": info.platform.architecture,
            "Variant": info.platform.variant,
            "Author": image.raw_config.get("author"),
            "Config": image.raw_config.get("config"),
            "RootFS": image.raw_config.get("rootfs"),
            "History": image.raw_config.get("history"),
            "Manifest": manifest,
            "Layers": image.layers,
            "Notes": image.notes,
        }))
    }

    /// Give an image one more name; an image that had the name before loses it.
    pub fn tag(&self, name: &str, new: &Reference) -> Result<ImageId, NotFound> {
        let _lock = self.lock()?;
        let (entry, _) = self.find(name)?;
        let mut index = self.index()?;
        set_name(&mut index, &entry.descriptor, &new.without_digest());
        self.write_index(&index)?;
        Ok(entry.id)
    }

    /// Remove a name, and with its last name the image. An id takes the image if it has at most one name; `force`
    /// takes it with all its names. `in_use` says which container needs an image.
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        in_use: &dyn Fn(&ImageId) -> Option<String>,
    ) -> Result<Removed, RemoveError> {
        let mut removed = Removed::default();
        {
            let _lock = self.lock()?;
            let (entry, by_name) = self.find(name)?;
            let gone: Vec<Reference> = match by_name {
                Some(name) if !force => vec![name],
                Some(_) | None if force || entry.names.len() <= 1 => entry.names.clone(),
                Some(_) | None => {
                    let names = entry.names.iter().map(Reference::familiar).collect();
                    return Err(RemoveError::SeveralNames { image: entry.id.short().to_owned(), names });
                }
            };
            let last = gone.len() == entry.names.len();
            if last && let Some(holder) = in_use(&entry.id) {
                return Err(RemoveError::InUse { image: name.to_owned(), holder });
            }
            let mut index = self.index()?;
            let same = self.digests_of(&entry.id)?;
            index.manifests.get_or_insert_default().retain(|descriptor| {
                let named = reference_of(descriptor);
                let taken = named.as_ref().is_some_and(|name| gone.contains(name));
                !(taken || last && same.contains(&descriptor.digest))
            });
            self.write_index(&index)?;
            removed.untagged = gone.iter().map(Reference::to_string).collect();
            if last {
                removed.deleted.push(entry.id);
            }
        }
        failpoint::reach("image.removed");
        self.collect()?;
        Ok(removed)
    }

    /// Remove blobs and layers that no image refers to. Does nothing while something is being loaded: what is on
    /// its way in is not referred to yet. Says whether it looked.
    pub fn collect(&self) -> Result<bool, StoreError> {
        let busy = self.open_lock("images.busy")?;
        match rustix::fs::flock(&busy, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                self.inner.collect_later.store(true, Ordering::Relaxed);
                return Ok(false);
            }
            Err(error) => return Err(store_io("locking the store", error.into())),
        }
        let _lock = self.lock()?;
        let staging = rustix::fs::open(
            self.path("staging"),
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(|e| store_io("opening the staging directory", e.into()))?;
        use std::os::fd::AsFd;
        tree::clear(staging.as_fd()).map_err(|e| store_io("emptying the staging directory", e.into()))?;
        let (blobs, layers) = match self.referred() {
            Ok(referred) => referred,
            Err(error) => {
                // Whoever cannot tell what is needed must not throw anything away.
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the image store cannot be read whole, keeping everything in it");
                return Ok(false);
            }
        };
        for algorithm in list_dir(&self.path("images/blobs"))? {
            let dir = self.path("images/blobs").join(&algorithm);
            for hex in list_dir(&dir)? {
                if !blobs.contains(&format!("{algorithm}:{hex}")) {
                    let path = dir.join(&hex);
                    tracing::debug!(path = %path.display(), "removing a blob that nothing refers to");
                    std::fs::remove_file(&path)
                        .map_err(|e| store_io(format!("removing {}", path.display()), e))?;
                }
            }
        }
        for key in list_dir(&self.path("layers"))? {
            if !layers.contains(&key) {
                let doomed = self.path("staging").join(&key);
                tracing::debug!(key, "removing a layer that nothing refers to");
                std::fs::rename(self.path("layers").join(&key), &doomed)
                    .map_err(|e| store_io(format!("moving layer {key} away"), e))?;
                tree::remove_dir(&doomed).map_err(|e| store_io(format!("removing layer {key}"), e.into()))?;
            }
        }
        Ok(true)
    }

    /// After a load: what could not be collected while it ran.
    pub(super) fn collect_if_wanted(&self) {
        if self.inner.collect_later.swap(false, Ordering::Relaxed)
            && let Err(error) = self.collect()
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "collecting garbage in the image store, ignoring");
        }
    }

    pub(super) fn staging(&self) -> Result<Staging, StoreError> {
        let busy = self.open_lock("images.busy")?;
        rustix::fs::flock(&busy, FlockOperation::LockShared)
            .map_err(|e| store_io("locking the store", e.into()))?;
        let serial = self.inner.serial.fetch_add(1, Ordering::Relaxed);
        let path = self.path("staging").join(format!("{}-{serial}", std::process::id()));
        // One left by an earlier process with our pid; nobody who lives uses it.
        tree::remove_dir(&path).map_err(|e| store_io("emptying a staging directory", e.into()))?;
        let staging = Staging { path, _busy: busy };
        for dir in [staging.path.clone(), staging.path.join("spool"), staging.path.join("trash")] {
            private_dir(&dir)?;
        }
        Ok(staging)
    }

    /// Put what was staged in place, and make it count.
    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    pub(super) fn commit(&self, staging: &Staging, commit: Commit) -> Result<(), StoreError> {
        let dir = File::open(&staging.path).map_err(|e| store_io("opening the staging directory", e))?;
        rustix::fs::syncfs(&dir).map_err(|e| store_io("flushing the file system", e.into()))?;
        failpoint::reach("image.flushed");
        let mut touched = BTreeSet::new();
        for (from, digest) in commit.blobs {
            let to = self.blob_path(&digest);
            let parent = to.parent().expect("a blob has a directory").to_owned();
            private_dir(&parent)?;
            std::fs::rename(&from, &to).map_err(|e| store_io(format!("moving blob {digest} in place"), e))?;
            touched.insert(parent);
        }
        failpoint::reach("image.blobs-moved");
        for (from, key) in commit.layers {
            let to = self.layer_path(&key);
            match std::fs::rename(&from, &to) {
                Ok(()) => {}
                // Somebody loaded the same layer meanwhile.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty
                    ) => {}
                Err(error) => return Err(store_io(format!("moving layer {key} in place"), error)),
            }
            touched.insert(self.path("layers"));
        }
        touched.insert(self.path("images/blobs"));
        for dir in touched {
            sync_dir(&dir)?;
        }
        failpoint::reach("image.layers-moved");
        let _lock = self.lock()?;
        let mut index = self.index()?;
        for (descriptor, names) in &commit.images {
            if names.is_empty() {
                let manifests = index.manifests.get_or_insert_default();
                if !manifests.iter().any(|known| known.digest == descriptor.digest) {
                    manifests.push(descriptor.clone());
                }
            }
            for name in names {
                set_name(&mut index, descriptor, name);
            }
        }
        self.write_index(&index)
    }

    /// Is a blob there, whole?
    pub(super) fn has_blob(&self, digest: &Digest, size: Option<u64>) -> bool {
        let meta = std::fs::symlink_metadata(self.blob_path(digest));
        meta.is_ok_and(|meta| meta.is_file() && size.is_none_or(|size| size == meta.len()))
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path("images/blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    pub(super) fn layer_path(&self, key: &str) -> PathBuf {
        self.path("layers").join(key)
    }

    /// The tree of a layer above certain others, if it is unpacked.
    pub(super) fn layer(
        &self,
        diff_id: &Digest,
        chain_id: &Digest,
    ) -> Result<Option<(String, LayerRecord)>, StoreError> {
        for (key, above_others) in [(diff_id.hex(), diff_id != chain_id), (chain_id.hex(), false)] {
            let path = self.layer_path(key).join("layer.json");
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(store_io(format!("reading {}", path.display()), error)),
            };
            let record: LayerRecord = serde_json::from_slice(&bytes).map_err(|source| {
                StoreError::Document { path, source: DocumentError::Shape { what: "layer record", source } }
            })?;
            if !(above_others && record.unpacked.inherited) {
                return Ok(Some((key.to_owned(), record)));
            }
        }
        Ok(None)
    }

    /// The manifest that has a name, if any.
    pub(super) fn digest_of(&self, name: &Reference) -> Result<Option<Digest>, StoreError> {
        let index = self.index()?;
        let found = index.manifests.into_iter().flatten().find(|d| reference_of(d).as_ref() == Some(name));
        Ok(found.map(|descriptor| descriptor.digest))
    }

    /// The directory that an image without layers is made of.
    pub(super) fn empty_layer(&self) -> Result<(), StoreError> {
        private_dir(&self.layer_path(EMPTY))?;
        let tree = self.layer_path(EMPTY).join("tree");
        private_dir(&tree)?;
        std::fs::set_permissions(&tree, PermissionsExt::from_mode(0o755))
            .map_err(|e| store_io("making the empty layer", e))
    }

    fn find(&self, name: &str) -> Result<(Entry, Option<Reference>), NotFound> {
        let mut entries = self.entries()?;
        let references = Reference::candidates(name);
        if let Ok(candidates) = &references {
            for candidate in candidates {
                let at = entries.iter().position(|entry| match candidate.digest() {
                    // name@digest: the digest decides, the name must be one of the image's.
                    Some(digest) => {
                        entry.descriptor.digest == *digest
                            && entry.names.iter().any(|name| name.name() == candidate.name())
                    }
                    None => entry.names.contains(candidate),
                });
                if let Some(at) = at {
                    let by_name = candidate.digest().is_none().then(|| candidate.clone());
                    return Ok((entries.swap_remove(at), by_name));
                }
            }
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if (3..=128).contains(&prefix.len()) && prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            let fits = |entry: &Entry| {
                entry.id.0.hex().starts_with(prefix) || entry.descriptor.digest.hex().starts_with(prefix)
            };
            let matches: Vec<usize> =
                entries.iter().enumerate().filter(|(_, entry)| fits(entry)).map(|(at, _)| at).collect();
            match matches[..] {
                [] => {}
                [at] => return Ok((entries.swap_remove(at), None)),
                _ => {
                    let matches = matches.iter().map(|at| entries[*at].id.short().to_owned()).collect();
                    return Err(NotFound::Ambiguous { prefix: prefix.to_owned(), matches });
                }
            }
        }
        match references {
            Ok(_) => Err(NotFound::Missing { name: name.to_owned(), nearest: nearest(name, &entries) }),
            // All digits of an id, but none of ours.
            Err(ReferenceError::LooksLikeId) => {
                Err(NotFound::Missing { name: name.to_owned(), nearest: Vec::new() })
            }
            Err(source) => Err(NotFound::Name { name: name.to_owned(), source }),
        }
    }

    /// The images of the index, one per id.
    fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let mut entries: Vec<Entry> = Vec::new();
        for descriptor in self.index()?.manifests.into_iter().flatten() {
            let manifest = self.document("manifest", &descriptor.digest, |bytes| {
                document::manifest(bytes, Some(&descriptor.media_type))
            });
            let manifest = match manifest {
                Ok(manifest) => manifest,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(digest = %descriptor.digest, error, "an image cannot be read, leaving it out");
                    continue;
                }
            };
            let id = ImageId(manifest.config.digest.clone());
            let name = reference_of(&descriptor);
            match entries.iter_mut().find(|entry| entry.id == id) {
                Some(entry) => entry.names.extend(name),
                None => {
                    entries.push(Entry { id, names: name.into_iter().collect(), descriptor, manifest });
                }
            }
        }
        for entry in &mut entries {
            entry.names.sort();
        }
        Ok(entries)
    }

    /// All manifests of an image: the same image may have come with layers compressed in two ways.
    fn digests_of(&self, id: &ImageId) -> Result<HashSet<Digest>, StoreError> {
        let mut digests = HashSet::new();
        for descriptor in self.index()?.manifests.into_iter().flatten() {
            let manifest = self.document("manifest", &descriptor.digest, |bytes| {
                document::manifest(bytes, Some(&descriptor.media_type))
            });
            if manifest.is_ok_and(|manifest| manifest.config.digest == id.0) {
                digests.insert(descriptor.digest);
            }
        }
        Ok(digests)
    }

    fn info(&self, entry: &Entry) -> Result<ImageInfo, StoreError> {
        let (config, _) = self.document("image configuration", &entry.id.0, document::config)?;
        let mut size = 0;
        for (_, record) in self.trees(&config)? {
            size += record.unpacked.bytes;
        }
        let layers = entry.manifest.layers.iter().flatten();
        Ok(ImageInfo {
            id: entry.id.clone(),
            names: entry.names.clone(),
            digest: entry.descriptor.digest.clone(),
            size,
            stored: entry.manifest.config.size + layers.map(|layer| layer.size).sum::<u64>(),
            created_us: config.created().as_deref().and_then(microseconds),
            created: config.created().clone(),
            platform: platform_of(&config),
        })
    }

    fn image(&self, entry: Entry) -> Result<Image, StoreError> {
        let (config, raw_config) = self.document("image configuration", &entry.id.0, document::config)?;
        let mut layers = Vec::new();
        let mut notes = Vec::new();
        for (key, record) in self.trees(&config)?.into_iter().rev() {
            layers.push(self.layer_path(&key).join("tree"));
            notes.extend(record.unpacked.notes());
            // overlayfs does not look for the opaque attribute on a root, so the layers below are left out.
            if record.unpacked.root_opaque {
                break;
            }
        }
        if layers.is_empty() {
            layers.push(self.layer_path(EMPTY).join("tree"));
        }
        let Entry { id, names, descriptor, manifest: _ } = entry;
        Ok(Image { id, names, digest: descriptor.digest, config, raw_config, layers, notes })
    }

    /// The trees of an image's layers, lowest first.
    fn trees(&self, config: &ImageConfiguration) -> Result<Vec<(String, LayerRecord)>, StoreError> {
        let diff_ids = diff_ids(config).map_err(StoreError::Damaged)?;
        let chain = chain_ids(&diff_ids);
        diff_ids
            .iter()
            .zip(&chain)
            .map(|(diff_id, chain_id)| {
                self.layer(diff_id, chain_id)?
                    .ok_or_else(|| StoreError::Damaged(format!("layer {diff_id} is not unpacked")))
            })
            .collect()
    }

    /// Everything that the index leads to: blobs as `algorithm:hex`, and keys of layers.
    fn referred(&self) -> Result<(HashSet<String>, HashSet<String>), StoreError> {
        let mut blobs = HashSet::new();
        let mut layers = HashSet::from([EMPTY.to_owned()]);
        for descriptor in self.index()?.manifests.into_iter().flatten() {
            let manifest = self.document("manifest", &descriptor.digest, |bytes| {
                document::manifest(bytes, Some(&descriptor.media_type))
            })?;
            let (config, _) =
                self.document("image configuration", &manifest.config.digest, document::config)?;
            let diff_ids = diff_ids(&config).map_err(StoreError::Damaged)?;
            for digest in diff_ids.iter().chain(&chain_ids(&diff_ids)) {
                layers.insert(digest.hex().to_owned());
            }
            blobs.insert(descriptor.digest.to_string());
            blobs.insert(manifest.config.digest.to_string());
            blobs.extend(manifest.layers.iter().flatten().map(|layer| layer.digest.to_string()));
        }
        Ok((blobs, layers))
    }

    fn document<T>(
        &self,
        what: &str,
        digest: &Digest,
        parse: impl FnOnce(&[u8]) -> Result<T, DocumentError>,
    ) -> Result<T, StoreError> {
        let path = self.blob_path(digest);
        let bytes = read_short(&path, self.inner.limits.document_bytes)
            .map_err(|e| store_io(format!("reading the {what} {}", path.display()), e))?;
        parse(&bytes).map_err(|source| StoreError::Document { path, source })
    }

    fn index(&self) -> Result<Index, StoreError> {
        let path = self.path("images/index.json");
        // Ours to write, so it may grow with the number of images beyond what a foreign one may have.
        let bytes = std::fs::read(&path).map_err(|e| store_io(format!("reading {}", path.display()), e))?;
        document::index(&bytes, None).map_err(|source| StoreError::Document { path, source })
    }

    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    fn write_index(&self, index: &Index) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec_pretty(index).expect("an index can always be written");
        self.replace(&self.path("images/index.json"), &bytes)
    }

    /// Replace a file so that either the old or the new content is there, even after a power cut.
    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let doing = |e| store_io(format!("writing {}", path.display()), e);
        // Beside the file and not in staging: a reader of the layout ignores it, and no load can remove it.
        let new = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(doing)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        failpoint::reach("image.index-written");
        if let Err(error) = written.and_then(|()| std::fs::rename(&new, path)) {
            // Best effort: it would be overwritten the next time.
            let _ = std::fs::remove_file(&new);
            return Err(doing(error));
        }
        failpoint::reach("image.index-renamed");
        sync_dir(path.parent().expect("a file has a directory"))
    }

    /// Held while `index.json` is read, changed and replaced.
    fn lock(&self) -> Result<File, StoreError> {
        let file = self.open_lock("images.lock")?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|e| store_io("locking the image index", e.into()))?;
        Ok(file)
    }

    fn open_lock(&self, name: &str) -> Result<File, StoreError> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path(name))
            .map_err(|e| store_io(format!("opening {}", self.path(name).display()), e))
    }

    fn path(&self, below: &str) -> PathBuf {
        self.inner.state.join(below)
    }
}

/// The diff ids of a configuration, lowest first.
pub(super) fn diff_ids(config: &ImageConfiguration) -> Result<Vec<Digest>, String> {
    config
        .rootfs()
        .diff_ids()
        .iter()
        .map(|text| text.parse().map_err(|error| format!("rootfs.diff_ids: {error}")))
        .collect()
}

/// The chain id of each layer: what it is above all the layers below it.
pub(super) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::sha256(format!("{below} {diff_id}").as_bytes()),
        });
    }
    chain
}

pub(super) fn platform_of(config: &ImageConfiguration) -> Platform {
    Platform {
        architecture: config.architecture().to_string(),
        os: config.os().to_string(),
        variant: config.variant().clone(),
    }
}

fn empty_index() -> Index {
    Index { schema_version: 2, media_type: Some(INDEX.to_owned()), manifests: Some(Vec::new()) }
}

fn reference_of(descriptor: &Descriptor) -> Option<Reference> {
    descriptor.annotation(REF_NAME)?.parse().ok()
}

/// A name belongs to one image. Who loses the last name keeps an entry without one.
fn set_name(index: &mut Index, descriptor: &Descriptor, name: &Reference) {
    let manifests = index.manifests.get_or_insert_default();
    let mut losers = Vec::new();
    manifests.retain(|known| {
        if reference_of(known).as_ref() != Some(name) {
            return true;
        }
        losers.push(known.clone());
        false
    });
    // An entry without a name is not needed beside one with a name.
    manifests.retain(|known| known.digest != descriptor.digest || reference_of(known).is_some());
    let mut named = descriptor.clone();
    named.annotations = Some(BTreeMap::from([(REF_NAME.to_owned(), name.to_string())]));
    manifests.push(named);
    for mut loser in losers {
        if !manifests.iter().any(|known| known.digest == loser.digest) {
            loser.annotations = None;
            manifests.push(loser);
        }
    }
}

/// Names of the store that look like what was asked for.
fn nearest(wanted: &str, entries: &[Entry]) -> Vec<String> {
    let repository = |name: &str| name.rsplit_once(':').map_or(name.to_owned(), |(repo, _)| repo.to_owned());
    let mut scored: Vec<(usize, String)> = entries
        .iter()
        .flat_map(|entry| &entry.names)
        .map(|name| {
            let name = name.familiar();
            let (a, b) = (repository(&name), repository(wanted));
            let last = a.rsplit('/').next().unwrap_or(&a).to_owned();
            // The same repository with another tag is the likeliest mistake of all.
            (distance(&a, &b).min(distance(&last, &b) + 1), name)
        })
        .filter(|(distance, _)| *distance <= wanted.len().div_ceil(3).max(1))
        .collect();
    scored.sort();
    scored.truncate(NEAREST);
    scored.into_iter().map(|(_, name)| name).collect()
}

/// How many letters must be changed, added or left out to make one word of another.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(100).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// RFC 3339 to microseconds since 1970.
fn microseconds(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let bytes = text.as_bytes();
    let separators = [(4, b"-"), (7, b"-"), (10, b"T"), (13, b":"), (16, b":")];
    if bytes.len() < 20 || separators.iter().any(|(at, byte)| !bytes[*at].eq_ignore_ascii_case(&byte[0])) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
        None => ("", rest),
    };
    let fraction: i64 = format!("{fraction:0<6.6}").parse().ok()?;
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let digit = |b: &u8| b.is_ascii_digit().then(|| i64::from(b - b'0'));
            let minutes = (digit(h1)? * 10 + digit(h2)?) * 60 + digit(m1)? * 10 + digit(m2)?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    // Days since 1970, with years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1;
    let seconds = (days - 719_468) * 86400 + (hour * 60 + minute - offset) * 60 + second;
    Some(seconds * 1_000_000 + fraction)
}

pub(super) fn private_dir(path: &Path) -> Result<(), StoreError> {
    let doing = |e| store_io(format!("making {}", path.display()), e);
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) => return Err(doing(error)),
    }
    // It may have been there, or the umask may have been odd.
    let mode = std::fs::metadata(path).map_err(doing)?.permissions().mode() & 0o7777;
    if mode == 0o700 {
        return Ok(());
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o700)).map_err(doing)
}

fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| store_io(format!("flushing {}", path.display()), e))
}

fn list_dir(path: &Path) -> Result<Vec<String>, StoreError> {
    let doing = |e| store_io(format!("reading {}", path.display()), e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(doing)? {
        names.push(entry.map_err(doing)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn read_short(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the document is too long"));
    }
    Ok(bytes)
}

pub(super) fn store_io(doing: impl Into<String>, source: io::Error) -> StoreError {
    StoreError::Io { doing: doing.into(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn rfc3339_becomes_microseconds() {
        assert_eq!(microseconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(microseconds("2024-02-29T12:34:56.789Z"), Some(1_709_210_096_789_000));
        assert_eq!(microseconds("2024-02-29T12:34:56.789123456+02:00"), Some(1_709_202_896_789_123));
        assert_eq!(microseconds("0001-01-01T00:00:00Z"), Some(-62_135_596_800_000_000));
        for bad in ["", "2024-02-29", "2024-13-01T00:00:00Z", "2024-01-01T00:00:00", "2024-01-01 00:00:00Z"] {
            assert_eq!(microseconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn words_differ_by_the_letters_to_change() {
        assert_eq!(distance("busybox", "busybox"), 0);
        assert_eq!(distance("busybox", "busibox"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn chain_ids_are_those_of_the_image_specification() {
        let a = Digest::sha256(b"a");
        let b = Digest::sha256(b"b");
        let chain = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(chain[0], a);
        assert_eq!(chain[1], Digest::sha256(format!("{a} {b}").as_bytes()));
    }
}
