//! Real images, made with umoci and skopeo, through the store and back; and sources that are not what they should be.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use wharf_oci::image::document::{CONFIG, INDEX, LAYER, MANIFEST};
use wharf_oci::image::{
    Digest, Limits, LoadError, LoadOptions, LoadSource, Loaded, NotFound, Progress, Reference, RemoveError,
    Store,
};

use crate::tape::{Entry, Tape};
use crate::world::{assert_same, can, picture, run, sh};

fn temp() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("images-load-").tempdir().unwrap()
}

fn load(store: &Store, path: &Path) -> Result<Vec<Loaded>, LoadError> {
    store.load(LoadSource::File(File::open(path).unwrap()), &LoadOptions::default(), &mut |_| {})
}

/// The whole chain of an error, as a log line has it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(|e| e.to_string())
        .collect::<Vec<_>>()
        .join(": ")
}

fn names(loaded: &[Loaded]) -> Vec<String> {
    loaded.iter().flat_map(|image| image.info.names.iter().map(Reference::to_string)).collect()
}

/// Nothing of a failed load may be left, seen or unseen.
fn assert_empty(store: &Store) {
    assert!(store.list().unwrap().is_empty());
    for dir in ["staging", "layers", "images/blobs/sha256"] {
        let left: Vec<_> =
            std::fs::read_dir(store.state().join(dir)).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A busybox image of three layers with whiteouts, links and an opaque directory, as umoci makes it: an OCI
/// layout with the tag `latest`. Beside it `rootfs`, what umoci unpacks it to.
fn busybox(dir: &Path) -> PathBuf {
    let layout = dir.join("bb");
    sh(&format!(
        "cd {dir}
         umoci init --layout bb; umoci new --image bb:latest
         umoci unpack --image bb:latest one >/dev/null 2>&1; r=one/rootfs
         mkdir -p $r/bin $r/etc $r/tmp $r/var/lib/thing $r/var/cache/old; cp /usr/bin/busybox $r/bin/busybox
         for a in sh ls cat echo; do ln $r/bin/busybox $r/bin/$a; done; ln -s busybox $r/bin/soft
         chmod 1777 $r/tmp; echo root:x:0:0::/root:/bin/sh > $r/etc/passwd; echo one > $r/var/lib/thing/a
         echo two > $r/var/lib/thing/b; echo old > $r/var/cache/old/file; echo gone > $r/etc/gone; mkfifo $r/etc/pipe
         chown 1000:1001 $r/var/lib/thing/a; cp $r/bin/busybox $r/bin/suid; chmod 4755 $r/bin/suid
",
        dir = dir.display()
    ));
    let passwd = dir.join("one/rootfs/etc/passwd");
    rustix::fs::setxattr(passwd, c"user.note", b"hello", rustix::fs::XattrFlags::empty()).unwrap();
    sh(&format!(
        "cd {dir}
         umoci repack --image bb:latest one >/dev/null 2>&1
         umoci config --image bb:latest --config.cmd /bin/sh --config.env PATH=/bin --config.user 1000:1001
         rm -rf one; umoci unpack --image bb:latest two >/dev/null 2>&1; r=two/rootfs
         rm $r/etc/gone; rm -r $r/var/cache/old; echo changed > $r/var/lib/thing/a; mkdir $r/new; echo n > $r/new/file
         umoci repack --image bb:latest two >/dev/null 2>&1; rm -rf two
         umoci unpack --image bb:latest three >/dev/null 2>&1; r=three/rootfs
         rm -r $r/var/lib/thing; mkdir $r/var/lib/thing; echo anew > $r/var/lib/thing/c; rm $r/new/file; ln -s /etc $r/new/etc
         umoci repack --image bb:latest three >/dev/null 2>&1; rm -rf three
         umoci unpack --image bb:latest all >/dev/null 2>&1; mv all/rootfs rootfs; rm -rf all",
        dir = dir.display()
    ));
    layout
}

/// Mount the layers as a container would have them, and copy what is seen there.
fn merged(layers: &[PathBuf], to: &Path) {
    let lower: Vec<&str> = layers.iter().map(|path| path.to_str().unwrap()).collect();
    // overlayfs wants two lower directories where there is no upper one.
    let empty = to.with_extension("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::create_dir(to).unwrap();
    run(
        "unshare",
        &[
            "-m",
            "sh",
            "-euc",
            &format!(
                "m={0}.mount; mkdir $m; mount -t overlay overlay -o lowerdir={1}:{2} $m
                 cp -a --preserve=all $m/. {0}; umount $m; rmdir $m",
                to.display(),
                lower.join(":"),
                empty.display()
            ),
        ],
    );
}

const TOOLS: &[&str] = &["umoci", "skopeo", "busybox", "unshare", "gzip", "zstd"];

#[test]
fn real_images_are_loaded_from_every_form_and_read_back() {
    if !can(TOOLS) {
        return;
    }
    let dir = temp();
    let d = dir.path().to_str().unwrap();
    let layout = busybox(dir.path());
    sh(&format!(
        "cd {d}
         skopeo copy -q --insecure-policy oci:bb:latest oci-archive:bb-oci.tar:example.com/bb:1
         skopeo copy -q --insecure-policy oci:bb:latest docker-archive:bb-docker.tar:bb:2
         skopeo copy -q --insecure-policy oci:bb:latest dir:plain
         gzip -k bb-oci.tar; zstd -q bb-docker.tar
         tar -C bb -cf bb-latest.tar ."
    ));
    // skopeo writes zstd into `dir:` only; make a layout of it by hand.
    zstd_layout(&layout, &dir.path().join("bb-zstd"));
    let expected = picture(&dir.path().join("rootfs"));
    let state = dir.path().join("state");
    let store = Store::open(&state).unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for (form, name) in [
        ("bb", "localhost/bb:latest"),
        ("bb-latest.tar", "localhost/bb-latest:latest"),
        ("bb-oci.tar", "example.com/bb:1"),
        ("bb-oci.tar.gz", "example.com/bb:1"),
        ("bb-docker.tar", "docker.io/library/bb:2"),
        ("bb-docker.tar.zst", "docker.io/library/bb:2"),
        ("bb-zstd", "localhost/bb-zstd:latest"),
    ] {
        // Into a store of its own: nothing may be there already.
        let alone = Store::open(&dir.path().join(format!("state-{form}"))).unwrap();
        let loaded = load(&alone, &dir.path().join(form)).unwrap_or_else(|e| panic!("{form}: {}", chain(&e)));
        assert_eq!(names(&loaded), [name], "{form}");
        let image = alone.resolve(name).unwrap();
        assert_eq!(image.layers.len(), 3);
        ids.insert(image.id.to_string());
        let to = dir.path().join(format!("merged-{form}"));
        merged(&image.layers, &to);
        // A directory that umoci made anew has the time of that moment in one and of the layer in the other.
        assert_same(&expected, &picture(&to), form);
        // And into one that has the others.
        load(&store, &dir.path().join(form)).unwrap_or_else(|e| panic!("{form}: {}", chain(&e)));
        for state in [alone.state(), store.state()] {
            let location = format!("oci:{}/images:{name}", state.display());
            let inspected: Value = serde_json::from_str(&run("skopeo", &["inspect", &location])).unwrap();
            assert_eq!(inspected["Layers"].as_array().unwrap().len(), 3, "{form}");
            let copy = dir.path().join("copy");
            let target = format!("dir:{}", copy.display());
            run("skopeo", &["copy", "-q", "--insecure-policy", &location, &target]);
            std::fs::remove_dir_all(copy).unwrap();
        }
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    // The same three trees for all of them, and the same image under all names.
    assert_eq!(std::fs::read_dir(state.join("layers")).unwrap().count(), 3);
    let listed = store.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].names.len(), 5);
    assert!(listed[0].size > 3_000_000 && listed[0].created_us.is_some());
    assert_eq!(listed[0].platform.to_string(), "linux/amd64");
    let inspected = store.inspect("bb:2").unwrap();
    assert_eq!(inspected["Config"]["User"], "1000:1001");
    // What the store holds is a source like any other.
    let other = Store::open(&dir.path().join("other")).unwrap();
    let loaded = load(&other, &state.join("images")).unwrap();
    assert_eq!(names(&loaded).len(), 5);
    no_one_else_gets_in(&state);
}

/// umoci's layout with its layers compressed anew.
fn zstd_layout(from: &Path, to: &Path) {
    sh(&format!("cp -a {} {}", from.display(), to.display()));
    let blob = |digest: &str| to.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    let put = |bytes: &[u8]| {
        let digest = Digest::sha256(bytes).to_string();
        std::fs::write(blob(&digest), bytes).unwrap();
        (digest, bytes.len())
    };
    let mut index: Value = serde_json::from_slice(&std::fs::read(to.join("index.json")).unwrap()).unwrap();
    let descriptor = &mut index["manifests"][0];
    let path = blob(descriptor["digest"].as_str().unwrap());
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for layer in manifest["layers"].as_array_mut().unwrap() {
        let path = blob(layer["digest"].as_str().unwrap());
        let raw = std::process::Command::new("sh")
            .args([
                "-c",
                &format!(
                    "printf '\\120\\052\\115\\030\\004\\0\\0\\0skip'; zcat < {} | zstd -q -",
                    path.display()
                ),
            ])
            .output()
            .unwrap();
        assert!(raw.status.success());
        std::fs::remove_file(path).unwrap();
        let (digest, size) = put(&raw.stdout);
        *layer = json!({ "mediaType": format!("{LAYER}+zstd"), "digest": digest, "size": size });
    }
    let (digest, size) = put(&serde_json::to_vec(&manifest).unwrap());
    descriptor["digest"] = digest.into();
    descriptor["size"] = size.into();
    std::fs::write(to.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

/// setuid programs of images are out of reach for local users.
fn no_one_else_gets_in(state: &Path) {
    let find =
        format!("find {} \\( -readable -o -executable \\) -print 2>/dev/null | wc -l", state.display());
    let seen = sh(&format!(
        "chmod 755 {}; if command -v setpriv >/dev/null; then setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '{find}'; else echo 0; fi",
        state.parent().unwrap().display()
    ));
    assert_eq!(seen.trim(), "0");
}

#[test]
fn an_archive_through_a_pipe_is_loaded_like_a_file() {
    if !can(&[]) {
        return;
    }
    let dir = temp();
    let archive = Image::default().archive();
    for (compress, piece) in [("cat", 1), ("gzip -c", 3), ("zstd -qc", 1 << 16)] {
        let store = Store::open(&dir.path().join(compress.replace(' ', "-"))).unwrap();
        std::fs::write(dir.path().join("a.tar"), &archive).unwrap();
        let bytes = std::process::Command::new("sh")
            .args(["-c", &format!("{compress} < {}/a.tar", dir.path().display())])
            .output()
            .unwrap()
            .stdout;
        let (reader, writer) = std::io::pipe().unwrap();
        rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::NONBLOCK).unwrap();
        let feeder = std::thread::spawn(move || {
            let mut writer = writer;
            let (start, rest) = bytes.split_at(10);
            start.chunks(piece).chain([rest]).for_each(|piece| writer.write_all(piece).unwrap());
        });
        let source = LoadSource::File(std::os::fd::OwnedFd::from(reader).into());
        let mut seen = Vec::new();
        let loaded = store.load(source, &LoadOptions::default(), &mut |p| seen.push(p)).unwrap();
        feeder.join().unwrap();
        assert_eq!(names(&loaded), ["docker.io/library/made:here"]);
        assert!(matches!(seen[0], Progress::Reading { .. }) && seen.contains(&Progress::Storing), "{seen:?}");
        assert_eq!(
            std::fs::read(store.resolve("made:here").unwrap().layers[0].join("file")).unwrap(),
            b"content"
        );
    }
}

/// An image in pieces that a test can put together wrongly.
struct Image {
    layers: Vec<Vec<u8>>,
    name: Option<&'static str>,
    platform: (&'static str, &'static str),
    break_digest: Option<&'static str>,
    edit_manifest: fn(&mut Value),
    edit_config: fn(&mut Value),
    edit_index: fn(&mut Value),
}

impl Default for Image {
    fn default() -> Image {
        Image {
            layers: vec![Tape::of([Entry::dir("./"), Entry::file("file", "content")])],
            name: Some("made:here"),
            platform: ("linux", "amd64"),
            break_digest: None,
            edit_manifest: |_| {},
            edit_config: |_| {},
            edit_index: |_| {},
        }
    }
}

impl Image {
    fn with_layer(entries: impl IntoIterator<Item = Entry>) -> Image {
        Image { layers: vec![Tape::of(entries)], ..Image::default() }
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
        let mut put = |what: &str, bytes: &[u8]| {
            let mut stored = bytes.to_vec();
            if self.break_digest == Some(what) {
                stored[0] ^= 0x20;
            }
            files.push((format!("blobs/sha256/{}", Digest::sha256(bytes).hex()), stored));
            json!({ "digest": Digest::sha256(bytes).to_string(), "size": bytes.len() })
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| {
                let mut descriptor = put("layer", layer);
                descriptor["mediaType"] = LAYER.into();
                descriptor
            })
            .collect();
        let diff_ids: Vec<String> =
            self.layers.iter().map(|layer| Digest::sha256(layer).to_string()).collect();
        let mut config = json!({
            "os": self.platform.0, "architecture": self.platform.1, "config": { "Cmd": ["/file"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        (self.edit_config)(&mut config);
        let mut config = put("config", &serde_json::to_vec(&config).unwrap());
        config["mediaType"] = CONFIG.into();
        let mut manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        (self.edit_manifest)(&mut manifest);
        let mut descriptor = put("manifest", &serde_json::to_vec(&manifest).unwrap());
        descriptor["mediaType"] = MANIFEST.into();
        if let Some(name) = self.name {
            descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        }
        let mut index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        (self.edit_index)(&mut index);
        files.push(("index.json".to_owned(), serde_json::to_vec(&index).unwrap()));
        files
    }

    fn archive(&self) -> Vec<u8> {
        Tape::of(self.files().into_iter().map(|(name, data)| Entry::file(name, data)))
    }

    fn load(&self, store: &Store) -> Result<Vec<Loaded>, LoadError> {
        load_bytes(store, &self.archive())
    }
}

fn load_bytes(store: &Store, bytes: &[u8]) -> Result<Vec<Loaded>, LoadError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
    store.load(LoadSource::File(file), &LoadOptions::default(), &mut |_| {})
}

#[test]
fn what_is_wrong_with_a_source_is_said_and_nothing_is_kept() {
    if !can(&[]) {
        return;
    }
    let dir = temp();
    let store = Store::open(dir.path()).unwrap();
    let wrong = |what: &str, result: Result<Vec<Loaded>, LoadError>, expected: &str| {
        let error = result.expect_err(what);
        let text = chain(&error);
        assert!(text.contains(expected), "{what}: {text}");
        assert!(error.is_bad_image(), "{what}: {text}");
        assert!(text.len() < 1000, "{text}");
        assert_empty(&store);
    };
    let image = |image: Image| image.load(&store);
    let base = Image::default;
    let good = base().archive();

    wrong("text", load_bytes(&store, &b"hello, world\n".repeat(100)), "no tar archive");
    wrong("nothing", load_bytes(&store, b""), "neither an oci-layout");
    wrong(
        "a tar of something",
        load_bytes(&store, &Tape::of([Entry::file("a", "b")])),
        "neither an oci-layout",
    );
    wrong("an xz", load_bytes(&store, b"\xfd7zXZ\0\0\x04"), "compressed with xz");
    wrong("a layer in bzip2", image(compressed(b"BZh91AY&SY".to_vec())), "compressed with bzip2");
    wrong("half a header", load_bytes(&store, &good[..1500]), "truncated");
    wrong("half a file", load_bytes(&store, &good[..2000]), "truncated");
    wrong("half a gzip", load_bytes(&store, &gzip(&good)[..200]), "truncated");
    let empty = temp();
    wrong("a directory that is no layout", load(&store, empty.path()), "neither an oci-layout");
    let missing = Tape::of(base().files().into_iter().skip(2).map(|(name, data)| Entry::file(name, data)));
    wrong("no oci-layout", load_bytes(&store, &missing), "no oci-layout beside it");

    for part in ["layer", "config", "manifest"] {
        wrong(part, image(Image { break_digest: Some(part), ..base() }), "damaged");
        let absent = base().files().into_iter().filter(|(name, data)| {
            let layer = name.starts_with("blobs") && data.len() > 1000;
            !(part == "layer" && layer
                || part == "config" && String::from_utf8_lossy(data).contains("diff_ids")
                || part == "manifest" && String::from_utf8_lossy(data).contains("\"layers\":["))
        });
        let tar = Tape::of(absent.map(|(name, data)| Entry::file(name, data)));
        wrong(&format!("no {part}"), load_bytes(&store, &tar), "missing in the source");
    }
    wrong(
        "a wrong diff id",
        image(Image {
            edit_config: |c| c["rootfs"]["diff_ids"][0] = Digest::sha256(b"other").to_string().into(),
            ..base()
        }),
        "uncompressed layer 1 of 1",
    );
    wrong(
        "a diff id that is a path",
        image(Image { edit_config: |c| c["rootfs"]["diff_ids"][0] = "sha256:../../etc".into(), ..base() }),
        "rootfs.diff_ids",
    );
    wrong(
        "one diff id too few",
        image(Image { edit_config: |c| c["rootfs"]["diff_ids"] = json!([]), ..base() }),
        "0 layers, the manifest 1",
    );
    wrong(
        "a wrong size",
        image(Image { edit_manifest: |m| m["layers"][0]["size"] = 5.into(), ..base() }),
        "5 bytes long",
    );
    wrong(
        "a manifest that is an index",
        image(Image { edit_manifest: |m| m["manifests"] = json!([]), ..base() }),
        "another kind of document",
    );
    wrong(
        "a foreign layer",
        image(Image {
            edit_manifest: |m| {
                m["layers"][0]["mediaType"] =
                    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
            },
            ..base()
        }),
        "fetched from elsewhere",
    );
    wrong(
        "a chart",
        image(Image {
            edit_manifest: |m| m["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into(),
            ..base()
        }),
        "not that of a container image",
    );
    wrong("another machine", image(Image { platform: ("linux", "s390x"), ..base() }), "linux/s390x");
    wrong("another system", image(Image { platform: ("windows", "amd64"), ..base() }), "windows/amd64");
    wrong("a bad name", image(Image { name: Some("Not/A:Name"), ..base() }), "calls the image");
    wrong("our name", image(Image { name: Some("localhost/wharf/demo:latest"), ..base() }), "reserved");
    wrong("no images", image(Image { edit_index: |i| i["manifests"] = json!([]), ..base() }), "empty");

    wrong(
        "upward",
        image(Image::with_layer([Entry::file("../x", "")])),
        "entry \"../x\": the name leads upwards",
    );
    wrong("not a tar", image(Image { layers: vec![b"x".repeat(1000)], ..base() }), "layer 1 of 1");
    let mut cut = gzip(&Tape::of([Entry::file("f", vec![b'x'; 100_000])]));
    cut.truncate(cut.len() - 20);
    wrong("a truncated gzip", image(compressed(cut)), "truncated");
    let mut bad = gzip(&Tape::of([Entry::file("f", vec![b'x'; 100_000])]));
    let at = bad.len() - 6;
    bad[at] ^= 1;
    wrong("a gzip with a wrong checksum", image(compressed(bad)), "layer 1 of 1");
    let mut zstd = zstd::encode_all(&Tape::of([Entry::file("f", vec![b'x'; 100_000])])[..], 1).unwrap();
    zstd.truncate(zstd.len() - 3);
    wrong("a truncated zstd", image(compressed(zstd)), "truncated");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// With a compressed layer; its diff id is not reached.
fn compressed(layer: Vec<u8>) -> Image {
    Image { layers: vec![layer], ..Image::default() }
}

#[test]
fn gzip_members_one_after_the_other_are_one_layer() {
    if !can(&[]) {
        return;
    }
    let dir = temp();
    let store = Store::open(dir.path()).unwrap();
    let tar = Tape::of([Entry::file("f", vec![b'x'; 100_000])]);
    let (a, b) = tar.split_at(700);
    let archive = docker_archive(&tar, &[gzip(a), gzip(b)].concat(), &["two:members"]);
    load_bytes(&store, &archive).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let image = store.resolve("two:members").unwrap();
    assert_eq!(std::fs::metadata(image.layers[0].join("f")).unwrap().len(), 100_000);
}

/// `docker save` as it was: the layer is `ID/layer.tar`, and a second image has a link to it.
fn docker_archive(plain: &[u8], layer: &[u8], tags: &[&str]) -> Vec<u8> {
    let config = json!({
        "os": "linux", "architecture": "amd64", "config": { "Cmd": null, "Healthcheck": { "Test": ["CMD", "x"] } },
        "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(plain).to_string()] },
    });
    let images: Vec<Value> = tags
        .iter()
        .enumerate()
        .map(
            |(n, tag)| json!({ "Config": "c.json", "RepoTags": [tag], "Layers": [format!("{n}/layer.tar")] }),
        )
        .collect();
    let mut entries = vec![Entry::dir("0/"), Entry::file("0/layer.tar", layer)];
    for n in 1..tags.len() {
        entries.push(Entry::symlink(format!("{n}/layer.tar"), "../0/layer.tar"));
    }
    entries.push(Entry::file("c.json", serde_json::to_vec(&config).unwrap()));
    entries.push(Entry::file("manifest.json", serde_json::to_vec(&images).unwrap()));
    Tape::of(entries)
}

#[test]
fn docker_archives_share_layers_through_links() {
    if !can(&[]) {
        return;
    }
    let dir = temp();
    let store = Store::open(dir.path()).unwrap();
    let tar = Tape::of([Entry::file("f", "x"), Entry::device("null", 1, 3)]);
    let archive = docker_archive(&tar, &tar, &["one", "user/two:2"]);
    let loaded = load_bytes(&store, &archive).unwrap();
    assert_eq!(names(&loaded), ["docker.io/library/one:latest", "docker.io/user/two:2"]);
    assert!(loaded[0].notes[0].contains("1 device nodes"), "{:?}", loaded[0].notes);
    let image = store.resolve("one").unwrap();
    assert_eq!(image.raw_config["config"]["Healthcheck"]["Test"][1], "x");
    assert_eq!(image.notes.len(), 1);
}

#[test]
fn an_index_for_many_platforms_gives_the_one_of_this_host() {
    if !can(&[]) {
        return;
    }
    let dir = temp();
    let store = Store::open(dir.path()).unwrap();
    let mut files = Vec::new();
    let mut manifests = Vec::new();
    for (architecture, variant, os) in [
        ("arm64", Some("v8"), "linux"),
        ("amd64", Some("v3"), "linux"),
        ("amd64", None, "linux"),
        ("unknown", None, "unknown"),
    ] {
        let entry = Entry::file("which", format!("{architecture}{variant:?}"));
        let image = Image {
            layers: vec![Tape::of([entry])],
            platform: (os, if architecture == "arm64" { "arm64" } else { "amd64" }),
            ..Image::default()
        };
        let these = image.files();
        let index: Value = serde_json::from_slice(&these.last().unwrap().1).unwrap();
        let mut descriptor = index["manifests"][0].clone();
        descriptor["annotations"] = json!({});
        descriptor["platform"] = json!({ "os": os, "architecture": architecture, "variant": variant });
        manifests.push(descriptor);
        files.extend(these.into_iter().filter(|(name, _)| name.starts_with("blobs")));
    }
    let inner =
        serde_json::to_vec(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }))
            .unwrap();
    let digest = Digest::sha256(&inner);
    let outer = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": INDEX, "digest": digest.to_string(), "size": inner.len(),
        "annotations": { "io.containerd.image.name": "docker.io/library/many:1", "org.opencontainers.image.ref.name": "1" },
    }]});
    files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    files.push(("index.json".to_owned(), serde_json::to_vec(&outer).unwrap()));
    files.push((format!("blobs/sha256/{}", digest.hex()), inner));
    let tar = Tape::of(files.into_iter().map(|(name, data)| Entry::file(name, data)));
    let loaded = load_bytes(&store, &tar).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(names(&loaded), ["docker.io/library/many:1"]);
    let image = store.resolve("many:1").unwrap();
    assert_eq!(std::fs::read(image.layers[0].join("which")).unwrap(), b"amd64None");
}

#[test]
fn names_move_and_images_go_with_their_last_name() {
    if !can(&[]) {
        return;
    }
    let dir = temp();
    let store = Store::open(dir.path()).unwrap();
    let free = |_: &_| None;
    Image::default().load(&store).unwrap();
    let other = Image::with_layer([Entry::file("file", "newer")]);
    let newer = other.load(&store).unwrap()[0].info.id.clone();
    let listed = store.list().unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!((listed[0].names.len(), listed[1].names.len()), (1, 0));
    let older = listed[1].id.clone();
    assert_eq!(store.resolve("made:here").unwrap().id, newer);
    assert_eq!(store.resolve(&older.0.hex()[..12]).unwrap().id, older);
    assert_eq!(store.resolve(&older.to_string()).unwrap().id, older);
    let digest = &listed[0].digest;
    assert_eq!(store.resolve(&format!("made@{digest}")).unwrap().id, newer);

    store.tag("made:here", &"localhost/second".parse().unwrap()).unwrap();
    assert_eq!(store.resolve("second").unwrap().id, newer);
    let error = store.remove(newer.short(), false, &free).unwrap_err();
    assert!(matches!(error, RemoveError::SeveralNames { names, .. } if names.len() == 2));
    let used = |id: &_| (*id == newer).then(|| "web".to_owned());
    // Used or not: as long as it has another name.
    assert_eq!(store.remove("second", false, &used).unwrap().deleted, []);
    let error = store.remove("made:here", false, &used).unwrap_err();
    assert!(matches!(error, RemoveError::InUse { holder, .. } if holder == "web"));
    let removed = store.remove("made:here", false, &free).unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted), (1, vec![newer]));
    let removed = store.remove(older.short(), false, &free).unwrap();
    assert_eq!(removed.deleted, [older]);
    assert_empty(&store);

    Image::default().load(&store).unwrap();
    let error = store.resolve("maid:here").unwrap_err();
    assert!(matches!(&error, NotFound::Missing { nearest, .. } if nearest == &["made:here"]), "{error}");
    let error = store.resolve("made:there").unwrap_err();
    assert!(error.to_string().contains("did you mean made:here?"), "{error}");
    assert!(matches!(store.resolve("Made").unwrap_err(), NotFound::Name { .. }));
    assert!(matches!(store.resolve(&"0".repeat(64)).unwrap_err(), NotFound::Missing { .. }));
    assert!(store.resolve("").is_err() && store.resolve("abc").is_err());
}

#[test]
fn layers_are_shared_and_go_with_their_last_image() {
    if !can(&[]) {
        return;
    }
    let dir = temp();
    let store = Store::open(dir.path()).unwrap();
    let shared = Tape::of([Entry::dir("tmp/").mode(0o1777)]);
    // Names of children only: this layer looks different above different layers.
    let loose = Tape::of([Entry::file("tmp/file", "x")]);
    let other = Tape::of([Entry::dir("tmp/").mode(0o700)]);
    let image = |layers: &[&Vec<u8>], name| Image {
        layers: layers.iter().copied().cloned().collect(),
        name: Some(name),
        ..Image::default()
    };
    image(&[&shared, &loose], "a:1").load(&store).unwrap();
    image(&[&other, &loose], "b:1").load(&store).unwrap();
    image(&[&shared], "c:1").load(&store).unwrap();
    let count = || std::fs::read_dir(dir.path().join("layers")).unwrap().count();
    assert_eq!(count(), 4);
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        let top = store.resolve(name).unwrap().layers[0].join("tmp");
        std::fs::metadata(top).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!((mode("a:1"), mode("b:1")), (0o1777, 0o700));
    store.remove("a:1", false, &|_| None).unwrap();
    assert_eq!(count(), 3);
    assert!(store.resolve("c:1").unwrap().layers[0].exists());
    store.remove("b:1", false, &|_| None).unwrap();
    assert_eq!(count(), 1);
    // Without layers at all there is still a directory to start from.
    Image { layers: vec![], name: Some("none:1"), ..Image::default() }.load(&store).unwrap();
    assert!(store.resolve("none:1").unwrap().layers[0].is_dir());
}

#[test]
fn an_opaque_root_leaves_out_what_is_below() {
    if !can(&[]) {
        return;
    }
    let dir = temp();
    let store = Store::open(dir.path()).unwrap();
    let layers = vec![
        Tape::of([Entry::file("below", "")]),
        Tape::of([Entry::file(".wh..wh..opq", ""), Entry::file("middle", "")]),
        Tape::of([Entry::file("top", "")]),
    ];
    Image { layers, ..Image::default() }.load(&store).unwrap();
    let image = store.resolve("made:here").unwrap();
    assert_eq!(image.layers.len(), 2);
    assert!(image.layers[1].join("middle").exists());
}

#[test]
fn a_crash_in_the_middle_leaves_nothing_visible() {
    if !can(&["cp"]) {
        return;
    }
    let dir = temp();
    let state = dir.path().join("state");
    let store = Store::open(&state).unwrap();
    let big = Image::with_layer((0..50).map(|n| Entry::file(format!("{n}"), vec![n; 1 << 20])));
    let mut copies = 0;
    let mut progress = |_| {
        // What a power cut at this moment would leave.
        copies += 1;
        let copy = dir.path().join(format!("copy-{copies}"));
        run("cp", &["-a", state.to_str().unwrap(), copy.to_str().unwrap()]);
        let after = Store::open(&copy).unwrap();
        assert_empty(&after);
        std::fs::remove_dir_all(copy).unwrap();
    };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&big.archive()).unwrap();
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
    store.load(LoadSource::File(file), &LoadOptions::default(), &mut progress).unwrap();
    assert!(copies > 5, "{copies}");
    // Between the renames and the index: blobs and layers that nothing refers to.
    std::fs::write(state.join("images/index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    assert_empty(&Store::open(&state).unwrap());
}

#[test]
fn a_cancelled_load_leaves_nothing() {
    if !can(&[]) {
        return;
    }
    let dir = temp();
    let store = Store::open(dir.path()).unwrap();
    let cancel = Arc::new(AtomicBool::new(false));
    let options = LoadOptions { cancel: Some(Arc::clone(&cancel)), ..LoadOptions::default() };
    let big = Image::with_layer((0..20).map(|n| Entry::file(format!("{n}"), vec![n; 1 << 20])));
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&big.archive()).unwrap();
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
    let outcome = store.load(LoadSource::File(file), &options, &mut |progress| {
        if matches!(progress, Progress::Layer { bytes, .. } if bytes > 5 << 20) {
            cancel.store(true, Ordering::Relaxed);
        }
    });
    assert!(matches!(outcome, Err(LoadError::Cancelled)));
    assert_empty(&store);
}

#[test]
fn removing_while_something_is_loaded_keeps_what_is_on_its_way() {
    if !can(&[]) {
        return;
    }
    let dir = temp();
    let store = Store::open(dir.path()).unwrap();
    Image { name: Some("old:1"), ..Image::default() }.load(&store).unwrap();
    // The same layer as the old image, and one more.
    let mut layers = Image::default().layers;
    layers.push(Tape::of([Entry::file("second", "")]));
    let archive = Image { layers, name: Some("new:1"), ..Image::default() }.archive();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&archive).unwrap();
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
    let mut removed = false;
    store
        .load(LoadSource::File(file), &LoadOptions::default(), &mut |progress| {
            if matches!(progress, Progress::Known { .. }) {
                store.remove("old:1", false, &|_| None).unwrap();
                removed = true;
            }
        })
        .unwrap();
    assert!(removed);
    let image = store.resolve("new:1").unwrap();
    assert!(image.layers.iter().all(|layer| layer.is_dir()));
    assert_eq!(std::fs::read_dir(dir.path().join("images/blobs/sha256")).unwrap().count(), 4);
}

#[test]
fn a_full_disk_is_said_and_cleaned_up_after() {
    if !can(&[]) {
        return;
    }
    // A thread with a mount namespace of its own, which goes with it.
    std::thread::spawn(|| {
        use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
        // SAFETY: only this thread's mount namespace changes (and with it, its cwd and umask are its own).
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        let dir = temp();
        rustix::mount::mount("none", dir.path(), "tmpfs", MountFlags::empty(), c"size=20m").unwrap();
        {
            let store = Store::open(dir.path()).unwrap();
            let small = Image { name: Some("small:1"), ..Image::default() };
            small.load(&store).unwrap();
            let files = |dir: &str| std::fs::read_dir(store.state().join(dir)).unwrap().count();
            let before = (files("layers"), files("images/blobs/sha256"));
            // As a blob it fits, unpacked it does not.
            let big = Image::with_layer((0..12).map(|n| Entry::file(format!("{n}"), vec![n; 1 << 20])));
            for archive in [big.archive(), gzip(&big.archive())] {
                let error = load_bytes(&store, &archive).unwrap_err();
                let text = chain(&error);
                assert!(matches!(error, LoadError::StorageFull { needed, free, .. } if needed > 12 << 20 && free > 15 << 20), "{text}");
                assert!(text.contains("no space left below") && !error.is_bad_image(), "{text}");
                assert_eq!(before, (files("layers"), files("images/blobs/sha256")));
                assert_eq!(files("staging"), 0);
                assert_eq!(store.list().unwrap().len(), 1);
            }
        }
        rustix::mount::unmount(dir.path(), UnmountFlags::DETACH).unwrap();
    })
    .join()
    .unwrap();
}

#[test]
fn bombs_are_refused_by_ratio_and_size() {
    if !can(&[]) {
        return;
    }
    let dir = temp();
    let limits = Limits { ratio_from: 1 << 20, ratio: 100, ..Limits::default() };
    let store = Store::open_with(dir.path(), limits).unwrap();
    let zeros = Tape::of([Entry::file("zeros", vec![0; 16 << 20])]);
    let error = load_bytes(&store, &docker_archive(&zeros, &gzip(&zeros), &["bomb"])).unwrap_err();
    assert!(chain(&error).contains("100 times its compressed size"), "{}", chain(&error));
    assert!(error.is_bad_image());
    assert_empty(&store);
    // The whole archive as a bomb.
    let error = load_bytes(&store, &gzip(&docker_archive(&zeros, &zeros, &["bomb"]))).unwrap_err();
    assert!(chain(&error).contains("100 times its compressed size"), "{}", chain(&error));
    assert_empty(&store);
    let limits = Limits { bytes: 1 << 20, layers: 1, ..Limits::default() };
    let store = Store::open_with(dir.path(), limits).unwrap();
    let error = load_bytes(&store, &docker_archive(&zeros, &gzip(&zeros), &["bomb"])).unwrap_err();
    assert!(chain(&error).contains("more than 1048576 bytes"), "{}", chain(&error));
    let layer = Image::default().layers[0].clone();
    let error = Image { layers: vec![layer.clone(), layer], ..Image::default() }.load(&store).unwrap_err();
    assert!(chain(&error).contains("more than 1 layers"), "{}", chain(&error));
    assert_empty(&store);
}

#[test]
fn a_name_can_be_given_and_several_images_cannot_share_it() {
    if !can(&[]) {
        return;
    }
    let dir = temp();
    let store = Store::open(dir.path()).unwrap();
    let options = LoadOptions { name: Some("my/own:3".parse().unwrap()), ..LoadOptions::default() };
    let layout = dir.path().join("layout");
    for (name, data) in (Image { name: Some("Not Allowed:"), ..Image::default() }).files() {
        let path = layout.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
    }
    let source = LoadSource::Dir(File::open(&layout).unwrap().into());
    assert_eq!(names(&store.load(source, &options, &mut |_| {}).unwrap()), ["docker.io/my/own:3"]);
    let tar = Tape::of([Entry::file("f", "x")]);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&docker_archive(&tar, &tar, &["a", "b"])).unwrap();
    rustix::fs::seek(file.as_fd(), rustix::fs::SeekFrom::Start(0)).unwrap();
    let error = store.load(LoadSource::File(file), &options, &mut |_| {}).unwrap_err();
    assert!(matches!(error, LoadError::Several(2)));
}

/// `cargo test --release -p wharf-oci --test image -- --ignored --nocapture speed`
#[test]
#[ignore = "measures"]
fn load_speed_of_a_hundred_megabytes() {
    if !can(&["umoci", "skopeo", "tar", "gzip", "zstd"]) {
        return;
    }
    let dir = temp();
    let d = dir.path().display();
    // Programs and libraries of this host: files as they are in images.
    sh(&format!(
        "cd {d}; mkdir root; 
         find /usr/share/doc /usr/bin /usr/lib/x86_64-linux-gnu -xdev -type f -size -4M -printf '%s %p\\n' | sort -k2 |
         awk '{{ s += $1; if (s < 100000000) print $2 }}' > some
         tar -cf root.tar -T some 2>/dev/null; gzip -k root.tar; zstd -q root.tar"
    ));
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let plain = read("root.tar");
    let files = sh(&format!("wc -l < {d}/some"));
    println!("{} MB in {} files", plain.len() / 1_000_000, files.trim());
    for (name, layer) in
        [("plain", plain.clone()), ("gzip", read("root.tar.gz")), ("zstd", read("root.tar.zst"))]
    {
        let archive = dir.path().join(format!("{name}.tar"));
        std::fs::write(&archive, docker_archive(&plain, &layer, &["speed:1"])).unwrap();
        for round in 0..3 {
            let store = Store::open(&dir.path().join(format!("{name}-{round}"))).unwrap();
            let (start, before) = (std::time::Instant::now(), cpu());
            load(&store, &archive).unwrap();
            let first = start.elapsed();
            let used = cpu() - before;
            let start = std::time::Instant::now();
            load(&store, &archive).unwrap();
            println!(
                "{name} ({} MB): {first:?} ({used} ms of CPU), again {:?}",
                layer.len() / 1_000_000,
                start.elapsed()
            );
        }
    }
}

/// Milliseconds that this thread has run.
fn cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<u64>().unwrap() / 1_000_000
}

#[test]
fn the_embedded_image_has_a_program_that_runs_without_anything_else() {
    if !can(&["chroot"]) {
        return;
    }
    let dir = temp();
    let store = Store::open(dir.path()).unwrap();
    if !store.ensure_embedded().unwrap() {
        eprintln!("skipped: this build embeds nothing");
        return;
    }
    let image = store.resolve("wharf/demo").unwrap();
    let config = image.config.config().as_ref().unwrap();
    assert_eq!(config.entrypoint().as_deref().unwrap(), ["/bin/demo"]);
    assert_eq!(config.cmd().as_deref().unwrap(), ["serve"]);
    assert_eq!(config.exposed_ports().as_deref().unwrap(), ["8080/tcp"]);
    let root = image.layers[0].to_str().unwrap();
    assert_eq!(run("chroot", &[root, "/bin/demo", "echo", "it", "runs"]), "it runs\n");
    let size = std::fs::metadata(image.layers[0].join("bin/demo")).unwrap().len();
    assert!(size < 2 << 20, "{size} bytes");
    println!("the demo program has {size} bytes");
}
