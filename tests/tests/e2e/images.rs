//! Images by other tools, and our store read by other tools.

use wharf_tests::e2e::image::{Busybox, NAME};
use wharf_tests::e2e::{Tool, Wharf, text};

/// What every form of the image must show: both layers, with what the second removed and replaced.
const CHECK: &str = "echo $FROM_IMAGE; pwd; ls /replaced; test -e /gone && echo gone; \
                     test /data/linked -ef /data/other && echo linked; stat -c %u /data/owned";
const EXPECTED: &str = "yes\n/home\nnew\nlinked\n1000";

#[test]
fn image_is_loaded_and_run_from_every_form() {
    let image = Busybox::get();
    let layout = image.oci_layout();
    let forms = [
        ("OCI layout in a directory", layout.display().to_string()),
        ("OCI layout in a tar file", image.oci_archive().display().to_string()),
        ("docker-archive", image.docker_archive().display().to_string()),
    ];
    for (form, path) in forms {
        let wharf = Wharf::start();
        wharf.ok(["image", "load", "--name", NAME, &path]);
        assert_eq!(wharf.ok(["run", "--rm", NAME, "sh", "-c", CHECK]), EXPECTED, "{form}");
        assert_eq!(wharf.ok(["run", "--rm", NAME]), "", "{form}: the image's own command, sh without input");
    }
}

#[test]
fn archives_compressed_with_gzip_and_zstd_are_loaded() {
    let image = Busybox::get();
    let wharf = Wharf::start();
    let scratch = wharf.scratch("compressed");
    let layout = image.oci_layout();
    let copy = |format: &str, name: &str| {
        let target = format!("oci-archive:{}/{name}.tar:localhost/{name}", scratch.display());
        let source = format!("oci:{}:test", layout.display());
        let arguments = [
            "--insecure-policy",
            "copy",
            "-q",
            "--dest-compress-format",
            format,
            "--dest-compress",
            &source,
            &target,
        ];
        Tool::with("skopeo", arguments).ok();
        wharf.ok(["image".to_owned(), "load".to_owned(), format!("{}/{name}.tar", scratch.display())]);
        let name = format!("localhost/{name}");
        assert_eq!(wharf.ok(["run", "--rm", &name, "sh", "-c", CHECK]), EXPECTED, "{format}");
    };
    copy("gzip", "layers-gzip");
    copy("zstd", "layers-zstd");
    let archive = scratch.join("whole.tar.gz");
    let whole = std::fs::File::create(&archive).unwrap();
    let status = std::process::Command::new("gzip")
        .arg("-c")
        .arg(image.docker_archive())
        .stdout(whole)
        .status()
        .unwrap();
    assert!(status.success());
    wharf.ok(["image".as_ref(), "load".as_ref(), archive.as_os_str()]);
    assert_eq!(wharf.ok(["run", "--rm", NAME, "sh", "-c", CHECK]), EXPECTED, "a compressed docker-archive");
}

#[test]
fn image_is_loaded_from_standard_input() {
    let image = Busybox::get();
    let wharf = Wharf::start();
    let bytes = std::fs::read(image.docker_archive()).unwrap();
    wharf.ctl(["image", "load"]).input(bytes).ok();
    assert_eq!(wharf.ok(["run", "--rm", NAME, "sh", "-c", CHECK]), EXPECTED);
}

#[test]
fn store_is_an_oci_layout_that_skopeo_reads() {
    let wharf = Wharf::start();
    wharf.busybox();
    let ours: serde_json::Value = serde_json::from_str(&wharf.ok(["image", "inspect", NAME])).unwrap();
    let store = find_layout(&wharf.state_dir());
    let index: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(store.join("index.json")).unwrap()).unwrap();
    let reference = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|manifest| manifest["annotations"]["org.opencontainers.image.ref.name"].as_str())
        .find(|name| name.contains("busybox"))
        .unwrap_or_else(|| panic!("no busybox in {index:#}"));
    let source = format!("oci:{}:{reference}", store.display());
    let theirs: serde_json::Value =
        serde_json::from_str(&Tool::with("skopeo", ["--insecure-policy", "inspect", &source]).ok()).unwrap();
    assert_eq!(theirs["Labels"]["origin"], "umoci", "{theirs:#}");
    assert_eq!(theirs["Layers"].as_array().unwrap().len(), 2);
    assert!(ours.to_string().contains(theirs["Digest"].as_str().unwrap()), "the same digest: {ours:#}");

    // And it can be copied out and come back.
    let target = wharf.scratch("copied-out").join("archive.tar");
    let copied = format!("oci-archive:{}:again", target.display());
    Tool::with("skopeo", ["--insecure-policy", "copy", "-q", &source, &copied]).ok();
    wharf.ok(["image", "load", "--name", "localhost/again", &target.display().to_string()]);
    assert_eq!(wharf.ok(["run", "--rm", "localhost/again", "sh", "-c", CHECK]), EXPECTED);
}

fn find_layout(state: &std::path::Path) -> std::path::PathBuf {
    let found = Tool::with("find", [state.as_os_str(), "-name".as_ref(), "oci-layout".as_ref()]).ok();
    let mut lines = found.lines();
    let layout = lines.next().expect("a layout in the state directory");
    assert_eq!(lines.next(), None, "one layout");
    std::path::Path::new(layout).parent().unwrap().to_owned()
}

#[test]
fn images_are_listed_inspected_tagged_and_removed() {
    let wharf = Wharf::start();
    wharf.busybox();
    let list = wharf.ok(["image", "ls"]);
    assert!(list.contains("localhost/busybox") && list.contains("wharf/demo"), "{list}");
    let inspected = wharf.ok(["image", "inspect", NAME]);
    assert!(inspected.contains("FROM_IMAGE=yes") && inspected.contains("umoci"), "{inspected}");

    let container = wharf.run([NAME, "sleep", "1000"]);
    let refused = wharf.output(["image", "rm", NAME]);
    assert_eq!(refused.status, 1, "used by a container: {}", refused.stderr);
    assert!(refused.stderr.contains(&text(&container.inspect(), "name")), "by which: {}", refused.stderr);
    wharf.ok(["rm", "-f", container.id()]);
    wharf.ok(["image", "rm", NAME]);
    let missing = wharf.output(["run", "--rm", NAME, "true"]);
    assert_eq!(missing.status, 125);
    assert!(missing.stderr.contains(NAME), "{}", missing.stderr);
    let list = wharf.ok(["image", "ls"]);
    assert!(!list.contains("localhost/busybox"), "{list}");
}

#[test]
fn layers_are_gone_with_their_last_image() {
    let wharf = Wharf::start();
    let size = || Tool::with("du", ["-s".as_ref(), wharf.state_dir().as_os_str()]).ok();
    let kilobytes = |text: String| text.split_whitespace().next().unwrap().parse::<u64>().unwrap();
    let before = kilobytes(size());
    wharf.busybox();
    let loaded = kilobytes(size());
    assert!(loaded > before + 500, "{before} kB, then {loaded} kB");
    wharf.ok(["image", "rm", NAME]);
    let after = kilobytes(size());
    assert!(after < before + 200, "{before} kB before, {after} kB after");
}

#[test]
fn demo_image_is_there_again_after_its_removal_and_a_restart() {
    let wharf = Wharf::start();
    let id = text(&wharf_image(&wharf), "id");
    assert!(id.starts_with("sha256:"), "{id}");
    wharf.ok(["image", "rm", "wharf/demo"]);
    let missing = wharf.output(["run", "--rm", "wharf/demo", "true"]);
    assert_eq!(missing.status, 125, "{}", missing.stderr);
    wharf.stop_daemon();
    wharf.launch();
    assert_eq!(text(&wharf_image(&wharf), "id"), id);
    wharf.ok(["run", "--rm", "wharf/demo", "true"]);
}

fn wharf_image(wharf: &Wharf) -> serde_json::Value {
    let list: serde_json::Value =
        serde_json::from_str(&wharf.ok(["image", "ls", "--format", "json"])).expect("JSON");
    list.as_array()
        .expect("a list")
        .iter()
        .find(|image| image.to_string().contains("wharf/demo"))
        .unwrap_or_else(|| panic!("no wharf/demo in {list:#}"))
        .clone()
}
