//! An image made and copied by other tools: busybox, built with umoci, copied with skopeo.

use super::Tool;
use serde_json::Value;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The name under which the image is loaded.
pub const NAME: &str = "localhost/busybox:test";

/// The image in three forms, in a directory of its own that goes with the last user.
#[derive(Debug)]
pub struct Busybox {
    directory: PathBuf,
}

impl Busybox {
    /// The image, built by the first who asks.
    pub fn get() -> Arc<Self> {
        static SHARED: Mutex<Weak<Busybox>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let image = Arc::new(Self::build());
            *shared = Arc::downgrade(&image);
            image
        })
    }

    /// As an OCI layout in a directory, with the reference `test`.
    pub fn oci_layout(&self) -> PathBuf {
        self.directory.join("layout")
    }

    /// As an OCI layout in a tar file.
    pub fn oci_archive(&self) -> PathBuf {
        self.directory.join("oci.tar")
    }

    /// As `docker save` writes it.
    pub fn docker_archive(&self) -> PathBuf {
        self.directory.join("docker.tar")
    }

    /// The same with a HEALTHCHECK in its configuration, as Docker writes it there: an OCI layout below `directory`.
    pub fn with_healthcheck(&self, directory: &Path, healthcheck: &Value) -> PathBuf {
        let layout = directory.join("layout");
        let from = self.oci_layout();
        Tool::with("cp", ["-r".as_ref(), from.as_os_str(), layout.as_os_str()]).ok();
        let read = |path: &Path| -> Value {
            serde_json::from_slice(&std::fs::read(path).expect("a file of the layout")).expect("JSON")
        };
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().expect("a digest");
            layout.join("blobs").join(digest.replace(':', "/"))
        };
        let describe = |descriptor: &mut Value, content: &Value| {
            let bytes = content.to_string().into_bytes();
            let size = bytes.len();
            let digest = Tool::new("sha256sum").input(bytes.clone()).ok();
            let digest = digest.split(' ').next().expect("digest and file");
            std::fs::write(layout.join("blobs/sha256").join(digest), bytes).expect("a blob");
            descriptor["digest"] = format!("sha256:{digest}").into();
            descriptor["size"] = size.into();
        };
        let mut index = read(&layout.join("index.json"));
        let mut manifest = read(&blob(&index["manifests"][0]));
        let mut config = read(&blob(&manifest["config"]));
        config["config"]["Healthcheck"] = healthcheck.clone();
        describe(&mut manifest["config"], &config);
        describe(&mut index["manifests"][0], &manifest);
        std::fs::write(layout.join("index.json"), index.to_string()).expect("the index");
        layout
    }

    /// Two layers: the second removes and replaces parts of the first.
    fn build() -> Self {
        let directory = std::env::temp_dir().join(super::unique_name());
        std::fs::create_dir(&directory).expect("a directory for the image");
        let image = Self { directory };
        let work = image.directory.join("work");
        let umoci = |arguments: &[&str]| {
            let mut tool = Tool::with("umoci", arguments);
            tool.command().current_dir(&image.directory);
            tool.ok()
        };
        umoci(&["init", "--layout", "work"]);
        umoci(&["new", "--image", "work:test"]);

        umoci(&["unpack", "--image", "work:test", "bundle"]);
        fill_first_layer(&image.directory.join("bundle/rootfs"));
        umoci(&["repack", "--image", "work:test", "bundle"]);
        std::fs::remove_dir_all(image.directory.join("bundle")).expect("removed");

        umoci(&["unpack", "--image", "work:test", "bundle"]);
        fill_second_layer(&image.directory.join("bundle/rootfs"));
        umoci(&["repack", "--image", "work:test", "bundle"]);
        std::fs::remove_dir_all(image.directory.join("bundle")).expect("removed");

        #[rustfmt::skip]
        umoci(&[
            "config", "--image", "work:test",
            "--config.env", "PATH=/bin", "--config.env", "FROM_IMAGE=yes",
            "--config.cmd", "sh", "--config.workingdir", "/home",
            "--config.label", "origin=umoci",
        ]);

        image.copy(&work, &format!("oci:{}:test", image.oci_layout().display()));
        image.copy(&work, &format!("oci-archive:{}:{NAME}", image.oci_archive().display()));
        image.copy(&work, &format!("docker-archive:{}:{NAME}", image.docker_archive().display()));
        std::fs::remove_dir_all(work).expect("removed");
        image
    }

    fn copy(&self, layout: &Path, to: &str) {
        let from = format!("oci:{}:test", layout.display());
        Tool::with("skopeo", ["--insecure-policy", "copy", "-q", &from, to]).ok();
    }
}

impl Drop for Busybox {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A root file system of busybox in this directory, for `--rootfs`.
pub fn busybox_rootfs(root: &Path) {
    fill_first_layer(root);
}

fn fill_first_layer(root: &Path) {
    for directory in
        ["bin", "etc", "proc", "sys", "dev", "tmp", "home", "home/app", "gone", "replaced", "data"]
    {
        std::fs::create_dir_all(root.join(directory)).expect("a directory of the image");
    }
    let busybox = which("busybox");
    std::fs::copy(&busybox, root.join("bin/busybox")).expect("busybox is copied");
    for applet in Tool::with(&busybox, ["--list"]).ok().lines() {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet)).expect("a link in the image");
        }
    }
    let write = |path: &str, text: &str| std::fs::write(root.join(path), text).expect("a file of the image");
    write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n");
    write("etc/group", "root:x:0:\nstaff:x:50:app\napp:x:1000:\n");
    write("gone/file", "removed by the second layer\n");
    write("replaced/old", "hidden by the second layer\n");
    write("data/linked", "one file with two names\n");
    write("bin/text", "no program\n");
    write("data/owned", "app's own\n");
    std::fs::hard_link(root.join("data/linked"), root.join("data/other")).expect("a hard link in the image");
    let mode = |path: &str, mode| {
        std::fs::set_permissions(root.join(path), PermissionsExt::from_mode(mode)).expect("permissions");
    };
    mode("tmp", 0o1777);
    mode("bin/busybox", 0o755);
    mode("bin/text", 0o644);
    let own = |path: &str| {
        std::os::unix::fs::chown(root.join(path), Some(1000), Some(1000)).expect("an owner");
    };
    own("home/app");
    own("data/owned");
}

fn fill_second_layer(root: &Path) {
    std::fs::remove_dir_all(root.join("gone")).expect("removed");
    std::fs::remove_dir_all(root.join("replaced")).expect("removed");
    std::fs::create_dir(root.join("replaced")).expect("a directory of the image");
    std::fs::write(root.join("replaced/new"), "of the second layer\n").expect("a file of the image");
}

fn which(program: &str) -> PathBuf {
    std::env::var_os("PATH")
        .and_then(|paths| {
            std::env::split_paths(&paths).map(|path| path.join(program)).find(|path| path.exists())
        })
        .unwrap_or_else(|| panic!("{program} is missing: scripts/need test"))
}
