//! What is said to whoever loads an image: how far it has come, and what of it is not taken over.

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::io::Read;
use std::path::Path;
use wharf_tests::e2e::image::Busybox;
use wharf_tests::e2e::{Tool, Wharf};

/// An image layout with what `fill` puts into its root file system.
fn layout(scratch: &Path, fill: impl FnOnce(&Path)) -> String {
    let umoci = |arguments: &[&str]| {
        let mut tool = Tool::with("umoci", arguments);
        tool.command().current_dir(scratch);
        tool.ok()
    };
    umoci(&["init", "--layout", "layout"]);
    umoci(&["new", "--image", "layout:test"]);
    umoci(&["unpack", "--image", "layout:test", "bundle"]);
    fill(&scratch.join("bundle/rootfs"));
    umoci(&["repack", "--image", "layout:test", "bundle"]);
    scratch.join("layout").display().to_string()
}

#[test]
fn loading_says_how_far_it_has_come_unless_it_shall_be_quiet() {
    let wharf = Wharf::start();
    // Large enough that word of it comes before the end.
    let layout = layout(&wharf.scratch("large"), |root| {
        let random = std::fs::File::open("/dev/urandom").unwrap();
        let mut file = std::fs::File::create(root.join("file")).unwrap();
        std::io::copy(&mut random.take(32 << 20), &mut file).unwrap();
    });
    let load = |quiet: &[&str], name: &str| {
        let loaded = wharf.output([&["image", "load", "--name", name, &layout], quiet].concat());
        assert_eq!((loaded.status, loaded.stdout.trim()), (0, format!("Loaded image: {name}").as_str()));
        loaded.stderr
    };
    assert_eq!(load(&[], "localhost/large:one"), format!("ctl: {layout}: layer 1 of 1\n"));
    wharf.ok(["image", "rm", "localhost/large:one"]);
    assert_eq!(load(&["--quiet"], "localhost/large:two"), "");
}

#[test]
fn device_nodes_of_an_image_are_left_out_and_whoever_loads_it_hears_of_it() {
    let wharf = Wharf::start();
    let layout = layout(&wharf.scratch("devices"), |root| {
        std::fs::write(root.join("file"), "kept").unwrap();
        for (name, minor) in [("null", 3), ("zero", 5)] {
            let mode = Mode::from_bits_truncate(0o666);
            mknod(&root.join(name), SFlag::S_IFCHR, mode, makedev(1, minor)).unwrap();
        }
    });
    let loaded = wharf.output(["image", "load", "--quiet", "--name", "localhost/devices:test", &layout]);
    assert_eq!(loaded.status, 0, "{}", loaded.stderr);
    assert_eq!(loaded.stdout.trim(), "Loaded image: localhost/devices:test");
    let note = "ctl: localhost/devices:test: 2 device nodes skipped";
    assert!(loaded.stderr.starts_with(note), "{}", loaded.stderr);
    assert_eq!(loaded.stderr.lines().count(), 1, "{}", loaded.stderr);

    // Of an image without such nodes there is nothing to say.
    let image = Busybox::get();
    let plain = image.oci_layout().display().to_string();
    let without = wharf.output(["image", "load", "--quiet", &plain]);
    assert_eq!((without.status, without.stderr.as_str()), (0, ""));
}
