//! What of an image is not taken over is said to whoever loads it.

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use wharf_tests::e2e::image::Busybox;
use wharf_tests::e2e::{Tool, Wharf};

#[test]
fn device_nodes_of_an_image_are_left_out_and_whoever_loads_it_hears_of_it() {
    let wharf = Wharf::start();
    let scratch = wharf.scratch("devices");
    let umoci = |arguments: &[&str]| {
        let mut tool = Tool::with("umoci", arguments);
        tool.command().current_dir(&scratch);
        tool.ok()
    };
    umoci(&["init", "--layout", "layout"]);
    umoci(&["new", "--image", "layout:test"]);
    umoci(&["unpack", "--image", "layout:test", "bundle"]);
    let root = scratch.join("bundle/rootfs");
    std::fs::write(root.join("file"), "kept").unwrap();
    for (name, minor) in [("null", 3), ("zero", 5)] {
        mknod(&root.join(name), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, minor)).unwrap();
    }
    umoci(&["repack", "--image", "layout:test", "bundle"]);

    let layout = scratch.join("layout").display().to_string();
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
