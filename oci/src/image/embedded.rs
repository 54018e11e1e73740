//! The image that is compiled in: `wharf/demo`, one static program from `demo/` and the few files it wants.
//!
//! It is built in memory, the same bytes each time, and goes into the store the way any other image does. Its full
//! name is `localhost/wharf/demo:latest`, a name that nothing loaded from outside may take; `wharf/demo` finds it.

use std::io::Write;

use serde_json::json;

use super::digest::Digest;
use super::document::{self, Platform};
use super::load::{LoadError, LoadOptions, LoadSource};
use super::reference::Reference;
use super::store::Store;

/// The full name of the image.
pub const NAME: &str = "localhost/wharf/demo:latest";
/// The program, as the build made it. Empty in builds that leave it out.
static PROGRAM: &[u8] = include_bytes!(env!("WHARF_DEMO"));

impl Store {
    /// Put the compiled-in image into the store, unless it is there. Says whether there is one in this build.
    pub fn ensure_embedded(&self) -> Result<bool, LoadError> {
        if PROGRAM.is_empty() {
            return Ok(false);
        }
        self.ensure_demo(PROGRAM)?;
        Ok(true)
    }

    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    fn ensure_demo(&self, program: &[u8]) -> Result<(), LoadError> {
        let doing = |source| LoadError::Io { doing: "building the demo image", source };
        let demo = Demo::build(program).map_err(doing)?;
        let name: Reference = NAME.parse().expect("a valid name");
        if self.digest_of(&name)? == Some(demo.manifest_digest())
            && self.resolve(NAME).is_ok_and(|image| image.layers.iter().all(|layer| layer.is_dir()))
        {
            return Ok(());
        }
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let memfd = rustix::fs::memfd_create("wharf-demo-image", flags).map_err(|e| doing(e.into()))?;
        let mut file = std::fs::File::from(memfd);
        file.write_all(&demo.archive().map_err(doing)?).map_err(doing)?;
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).map_err(|e| doing(e.into()))?;
        self.load_as(LoadSource::File(file), &LoadOptions::default(), &mut |_| {}, true)?;
        Ok(())
    }
}

/// The blobs of the image.
struct Demo {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Demo {
    fn build(program: &[u8]) -> std::io::Result<Demo> {
        let layer = layer(program)?;
        // Uncompressed: it is small, and the daemon that holds it is not made smaller by it.
        let digest = Digest::sha256(&layer).to_string();
        let Platform { architecture, os, variant: _ } = Platform::host();
        let config = json!({
            "architecture": architecture,
            "os": os,
            "config": {
                "Entrypoint": ["/bin/demo"],
                "Cmd": ["serve"],
                "Env": ["PATH=/bin"],
                "ExposedPorts": { "8080/tcp": {} },
                "Labels": {
                    "org.opencontainers.image.title": "wharf/demo",
                    "org.opencontainers.image.description": "The program that wharf's tour and tests run",
                    "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                    "org.opencontainers.image.licenses": "Apache-2.0",
                },
                "WorkingDir": "/",
                "StopSignal": "SIGTERM",
            },
            "rootfs": { "type": "layers", "diff_ids": [digest] },
            "history": [{ "created_by": "wharf", "comment": "compiled into wharfd" }],
        });
        let config = serde_json::to_vec(&config).map_err(std::io::Error::other)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": document::MANIFEST,
            "config": descriptor(document::CONFIG, &config),
            "layers": [descriptor(document::LAYER, &layer)],
        });
        let manifest = serde_json::to_vec(&manifest).map_err(std::io::Error::other)?;
        Ok(Demo { layer, config, manifest })
    }

    fn manifest_digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    /// The image as an OCI layout in a tar.
    fn archive(&self) -> std::io::Result<Vec<u8>> {
        let mut manifest = descriptor(document::MANIFEST, &self.manifest);
        manifest["annotations"] = json!({ document::REF_NAME: NAME });
        let index =
            json!({ "schemaVersion": 2, "mediaType": document::INDEX, "manifests": [manifest] }).to_string();
        let mut tar = tar::Builder::new(Vec::new());
        file(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        file(&mut tar, "index.json", index.as_bytes(), 0o644)?;
        for blob in [&self.layer, &self.config, &self.manifest] {
            file(&mut tar, &format!("blobs/sha256/{}", Digest::sha256(blob).hex()), blob, 0o644)?;
        }
        tar.into_inner()
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": Digest::sha256(blob).to_string(), "size": blob.len() })
}

fn layer(program: &[u8]) -> std::io::Result<Vec<u8>> {
    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/demo\n\
        demo:x:1000:1000:demo:/home/demo:/bin/demo\n\
        nobody:x:65534:65534:nobody:/:/bin/demo\n";
    const GROUP: &[u8] = b"root:x:0:\ndemo:x:1000:\nnogroup:x:65534:\n";
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mode, owner) in [
        ("./", 0o755, 0),
        ("bin/", 0o755, 0),
        ("dev/", 0o755, 0),
        ("etc/", 0o755, 0),
        ("home/", 0o755, 0),
        ("home/demo/", 0o700, 1000),
        ("proc/", 0o755, 0),
        ("root/", 0o700, 0),
        ("run/", 0o755, 0),
        ("sys/", 0o755, 0),
        ("tmp/", 0o1777, 0),
    ] {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        header.set_uid(owner);
        header.set_gid(owner);
        append(&mut tar, &mut header, name, &[])?;
    }
    file(&mut tar, "bin/demo", program, 0o755)?;
    file(&mut tar, "etc/group", GROUP, 0o644)?;
    file(&mut tar, "etc/passwd", PASSWD, 0o644)?;
    tar.into_inner()
}

fn file(tar: &mut tar::Builder<Vec<u8>>, name: &str, data: &[u8], mode: u32) -> std::io::Result<()> {
    append(tar, &mut header(tar::EntryType::Regular, mode, data.len() as u64), name, data)
}

fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    header: &mut tar::Header,
    name: &str,
    data: &[u8],
) -> std::io::Result<()> {
    // As it is: `set_path` would drop the `./` of the root.
    let field = &mut header.as_old_mut().name;
    field[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    tar.append(header, data)
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_same_program_makes_the_same_image() {
        let a = Demo::build(b"program").unwrap();
        let b = Demo::build(b"program").unwrap();
        assert_eq!(a.manifest_digest(), b.manifest_digest());
        assert_ne!(a.manifest_digest(), Demo::build(b"other").unwrap().manifest_digest());
    }

    #[test]
    fn it_is_found_by_its_short_name_and_put_in_once() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: unpacking layers needs root");
            return;
        }
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        store.ensure_demo(b"program").unwrap();
        let image = store.resolve("wharf/demo").unwrap();
        assert_eq!(image.names[0].familiar(), "wharf/demo:latest");
        assert_eq!(std::fs::read(image.layers[0].join("bin/demo")).unwrap(), b"program");
        let before = std::fs::metadata(state.path().join("images/index.json")).unwrap().modified().unwrap();
        store.ensure_demo(b"program").unwrap();
        let after = std::fs::metadata(state.path().join("images/index.json")).unwrap().modified().unwrap();
        assert_eq!(before, after);
        store.ensure_demo(b"newer program").unwrap();
        let image = store.resolve("wharf/demo:latest").unwrap();
        assert_eq!(std::fs::read(image.layers[0].join("bin/demo")).unwrap(), b"newer program");
    }
}
