//! Layers that try to reach outside. Nothing outside may change, whatever becomes of the layer.

use crate::corpus::{corpus, mutations};
use crate::unpack::{Place, gnu_listing, listing};
use crate::world::{assert_same, can, picture};

#[test]
fn no_layer_changes_anything_outside_its_directory() {
    if !can(&[]) {
        return;
    }
    let mut refused = 0;
    let mut variants = 0;
    let place = Place::new();
    for (name, tar) in corpus(&place.canary()) {
        // A canary each, so that no earlier layer can have helped.
        std::fs::create_dir(place.layer()).ok();
        let before = picture(&place.canary());
        let above = names(place.dir.path());
        let outcome = place.unpack(&tar);
        refused += usize::from(outcome.is_err());
        variants += 1;
        assert_same(&before, &picture(&place.canary()), &name);
        assert_eq!(above, names(place.dir.path()), "{name}");
        if let Ok(tree) = std::panic::catch_unwind(|| picture(&place.layer())) {
            for (path, file) in &tree {
                let whiteout = file.kind == 'c' && file.device == 0;
                assert!(matches!(file.kind, 'd' | 'f' | 'l' | 'p') || whiteout, "{name}: device {path:?}");
                assert!(file.content != b"untouched", "{name}: {path:?} is a file from outside");
                let opaque = |key: &String| key.starts_with("trusted.") && key != "trusted.overlay.opaque";
                assert!(!file.xattrs.keys().any(opaque), "{name}: {path:?} {:?}", file.xattrs);
            }
        }
        std::fs::remove_dir_all(place.layer()).unwrap();
        std::fs::remove_dir_all(place.dir.path().join("trash")).unwrap();
        std::fs::create_dir(place.dir.path().join("trash")).unwrap();
    }
    println!("{variants} hostile layers, {refused} refused");
    assert!(variants >= 300, "{variants}");
}

#[test]
fn damaged_layers_change_nothing_outside_and_crash_nothing() {
    if !can(&[]) {
        return;
    }
    let place = Place::new();
    let before = picture(&place.canary());
    for (name, tar) in mutations(&place.canary()) {
        std::fs::create_dir(place.layer()).ok();
        let _ = place.unpack(&tar);
        assert_same(&before, &picture(&place.canary()), &name);
        std::fs::remove_dir_all(place.layer()).unwrap();
    }
}

#[test]
fn gnu_tar_lists_what_we_list_or_we_refuse() {
    if !can(&["tar"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.tar");
    let mut differences = Vec::new();
    for (name, tar) in corpus(dir.path()).into_iter().chain(mutations(dir.path())) {
        let Some(ours) = listing(&tar) else { continue };
        std::fs::write(&file, &tar).unwrap();
        match gnu_listing(&file) {
            Some(theirs) if theirs == ours => {}
            // Refused there: nobody is told anything else than by us.
            None => {}
            Some(theirs) => {
                let show = |names: &[Vec<u8>]| {
                    names.iter().map(|n| n.escape_ascii().to_string()).collect::<Vec<_>>()
                };
                let at = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
                differences.push(format!("{name}:\n  {:?}\n  {:?}", show(&ours[at..]), show(&theirs[at..])));
            }
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

fn names(dir: &std::path::Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}
