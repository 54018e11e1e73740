//! Bad input: a named field and a fix, nothing half-created.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use wharf_tests::e2e::image::Busybox;
use wharf_tests::e2e::{Tool, Wharf};

/// Run `ctl run --rm ARGUMENTS`: it must fail with 125 and say every word, and leave no container.
fn refused(wharf: &Wharf, arguments: &[&str], words: &[&str]) {
    // Others are being refused at the same time.
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    let label = format!("input=bad-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut all = vec!["run", "--rm", "--label", &label];
    all.extend(arguments);
    let output = wharf.output(&all);
    assert_eq!(output.status, 125, "{arguments:?}: {}{}", output.stdout, output.stderr);
    for word in words {
        assert!(
            output.stderr.to_lowercase().contains(&word.to_lowercase()),
            "{arguments:?}: no {word:?} in {:?}",
            output.stderr
        );
    }
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    assert_eq!(
        wharf.ok(["ps", "-aq", "--filter", &format!("label={label}")]),
        "",
        "{arguments:?}: nothing half-created"
    );
}

/// Ask on D-Bus for a container with this spec document: it is invalid, as this message says.
fn refused_document(wharf: &Wharf, document: &str) -> String {
    // gdbus reads escapes of its own.
    let escaped = document.replace('\\', "\\\\");
    let output = wharf.gdbus("/org/wharf1", "org.wharf1.Manager.Run", &[&escaped, "{}"]).output();
    assert_ne!(output.status, 0, "{document}: {}", output.stdout);
    let message = output.stderr.trim().strip_prefix("Error: GDBus.Error:org.wharf1.Error.InvalidSpec: ");
    message.unwrap_or_else(|| panic!("{document}: {}", output.stderr)).to_owned()
}

#[test]
fn resources_out_of_range_are_refused() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    refused(&wharf, &["-m", "10x", image, "true"], &["memory", "10x"]);
    refused(&wharf, &["-m", "1m", image, "true"], &["memory", "6"]);
    refused(&wharf, &["-m", "-5", image, "true"], &["memory"]);
    refused(&wharf, &["--cpus", "4096", image, "true"], &["cpus", "4096"]);
    refused(&wharf, &["--cpus", "-1", image, "true"], &["cpus"]);
    refused(&wharf, &["--cpus", "nan", image, "true"], &["cpus"]);
    refused(&wharf, &["--cpu-shares", "1", image, "true"], &["cpu", "shares"]);
    refused(&wharf, &["--cpuset-cpus", "4000", image, "true"], &["cpuset", "4000"]);
    refused(&wharf, &["--cpuset-cpus", "a-b", image, "true"], &["cpuset"]);
    refused(&wharf, &["--pids-limit", "many", image, "true"], &["pids"]);
    refused(&wharf, &["--blkio-weight", "5", image, "true"], &["blkio", "10"]);
    refused(&wharf, &["-m", "64m", "--memory-swap", "32m", image, "true"], &["swap"]);
    refused(&wharf, &["--ulimit", "nofile=10:5", image, "true"], &["nofile"]);
    refused(&wharf, &["--ulimit", "nothing=5", image, "true"], &["nothing"]);
}

#[test]
fn names_are_checked() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    refused(&wharf, &["--name", "a/b", image, "true"], &["name", "a/b"]);
    refused(&wharf, &["--name", "-dash", image, "true"], &["name"]);
    refused(&wharf, &["--name", "", image, "true"], &["name"]);
    refused(&wharf, &["--name", &"x".repeat(200), image, "true"], &["name"]);
    let holder = wharf.run(["--name", "input-taken", image, "sleep", "1000"]);
    refused(&wharf, &["--name", "input-taken", image, "true"], &["input-taken", &holder.id()[..12]]);
}

#[test]
fn unknown_images_are_named() {
    let wharf = Wharf::shared();
    refused(&wharf, &["no/such/image:1", "true"], &["no/such/image", "load"]);
    refused(&wharf, &["UPPER/Case", "true"], &["UPPER"]);
    refused(&wharf, &["sha256:0000", "true"], &["sha256:0000"]);
    refused(&wharf, &["", "true"], &["image"]);
}

#[test]
fn volumes_are_checked() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    refused(&wharf, &["-v", "relative/path:/x", image, "true"], &["relative/path", "absolute"]);
    refused(&wharf, &["-v", "/no/such/dir:/x", image, "true"], &["/no/such/dir"]);
    refused(&wharf, &["-v", "/tmp:x", image, "true"], &["absolute"]);
    refused(&wharf, &["-v", "/tmp:/x:zz", image, "true"], &["zz"]);
    for target in ["/proc", "/proc/sys", "//proc", "/x/../proc", "/proc/", "/sys", "/dev"] {
        refused(&wharf, &["-v", &format!("/tmp:{target}"), image, "true"], &["volume"]);
    }
    refused(&wharf, &["-v", "/tmp:/", image, "true"], &["/"]);
    refused(&wharf, &["--tmpfs", "/proc", image, "true"], &["/proc"]);
    refused(&wharf, &["--tmpfs", "/x:size=lots", image, "true"], &["size"]);
    // A symbolic link of the image cannot smuggle one in either.
    // (Not /tmp: other tests mount below it.)
    let volume = format!("{}:/link", wharf.scratch("link-volume").display());
    let root = wharf.scratch("link-to-proc");
    wharf_tests::e2e::image::busybox_rootfs(&root);
    std::os::unix::fs::symlink("/proc", root.join("link")).unwrap();
    refused(&wharf, &["--rootfs", &root.display().to_string(), "-v", &volume, "/bin/true"], &["/link"]);
}

#[test]
fn users_are_checked() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    refused(&wharf, &["-u", "nobody-here", image, "true"], &["user", "nobody-here", "passwd"]);
    refused(&wharf, &["-u", "4294967296", image, "true"], &["user", "4294967296"]);
    refused(&wharf, &["-u", "4294967295", image, "true"], &["user"]);
    refused(&wharf, &["--user=-1", image, "true"], &["user"]);
    refused(&wharf, &["-u", "70000", image, "true"], &["70000", "65535"]);
    refused(&wharf, &["-u", "app:nogroup-here", image, "true"], &["nogroup-here"]);
    refused(&wharf, &["-u", "0x0", image, "true"], &["user"]);
}

#[test]
fn control_characters_are_refused() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    refused(&wharf, &["--hostname", "a\nb", image, "true"], &["hostname"]);
    refused(&wharf, &["--hostname", &"h".repeat(65), image, "true"], &["hostname", "64"]);
    refused(&wharf, &["-e", "=x", image, "true"], &["env"]);
    refused(&wharf, &["-w", "relative", image, "true"], &["absolute"]);
    // A NUL cannot be in an argument of a program, but in a document.
    for (document, word) in [
        (r#"{"image":"wharf/demo","env":{"A":"x\u0000y"},"labels":{"input":"bad"}}"#, "env"),
        (r#"{"image":"wharf/demo","env":{"A\u0000":"x"},"labels":{"input":"bad"}}"#, "env"),
        (r#"{"image":"wharf/demo","hostname":"a\u0000b","labels":{"input":"bad"}}"#, "hostname"),
        (r#"{"image":"wharf/demo","command":["a\u0000b"],"labels":{"input":"bad"}}"#, "command"),
        (r#"{"image":"wharf/demo","env":{"HOME":"/x\ny"},"labels":{"input":"bad"}}"#, "env"),
        (r#"{"image":"wharf/demo","rootfs":"/x","labels":{"input":"bad"}}"#, "rootfs"),
        (r#"{"labels":{"input":"bad"}}"#, "image"),
    ] {
        let message = refused_document(&wharf, document);
        assert!(message.contains(word), "{document}: {message}");
    }
    assert_eq!(wharf.ok(["ps", "-aq", "--filter", "label=input=bad"]), "");
}

#[test]
fn supervision_that_cannot_be_is_refused_by_field_and_range() {
    let wharf = Wharf::shared();
    for (part, expected) in [
        (
            r#""probes":{"liveness":{"tcpSocket":{"port":80},"successThreshold":2}}"#,
            "probes.liveness.successThreshold: must be 1 for liveness",
        ),
        (
            r#""probes":{"startup":{"tcpSocket":{"port":80},"successThreshold":2}}"#,
            "probes.startup.successThreshold: must be 1 for startup",
        ),
        (
            r#""probes":{"readiness":{"tcpSocket":{"port":80},"successThreshold":0}}"#,
            "probes.readiness.successThreshold: must be greater than or equal to 1",
        ),
        (
            r#""probes":{"readiness":{"tcpSocket":{"port":80},"terminationGracePeriodSeconds":5}}"#,
            "probes.readiness.terminationGracePeriodSeconds: must not be set for readinessProbes",
        ),
        (
            r#""probes":{"liveness":{"tcpSocket":{"port":80},"terminationGracePeriodSeconds":0}}"#,
            "probes.liveness.terminationGracePeriodSeconds: must be greater than 0",
        ),
        (
            r#""probes":{"liveness":{"tcpSocket":{"port":80},"periodSeconds":0}}"#,
            "probes.liveness.periodSeconds: must be greater than or equal to 0.1 (seconds)",
        ),
        (
            r#""probes":{"startup":{"tcpSocket":{"port":80},"timeoutSeconds":0}}"#,
            "probes.startup.timeoutSeconds: must be greater than or equal to 0.1 (seconds)",
        ),
        (
            r#""probes":{"readiness":{"tcpSocket":{"port":80},"failureThreshold":0}}"#,
            "probes.readiness.failureThreshold: must be greater than or equal to 1",
        ),
        (
            r#""probes":{"liveness":{"tcpSocket":{"port":80},"exec":{"command":["true"]}}}"#,
            "probes.liveness: may not specify more than 1 handler type; give one of exec, httpGet, tcpSocket or grpc",
        ),
        (
            r#""probes":{"readiness":{"periodSeconds":5}}"#,
            "probes.readiness: must specify a handler type: exec, httpGet, tcpSocket or grpc",
        ),
        (
            r#""probes":{"liveness":{"tcpSocket":{"port":0}}}"#,
            "probes.liveness.tcpSocket.port: must be between 1 and 65535, inclusive",
        ),
        (
            r#""restart":{"policy":"no","maxAttempts":3}"#,
            "restart.maxAttempts: there is nothing to limit with policy \"no\" and no rule that restarts; give a policy, or leave it out",
        ),
        (
            r#""restart":{"policy":"always","factor":0.5}"#,
            "restart.factor: 0.5 is below 1; 1 (a constant delay) to 1000 are possible",
        ),
        (
            r#""restart":{"policy":"always","initial":10,"max":1}"#,
            "restart.max: 1s is below restart.initial (10s); it must be at least that",
        ),
        (
            r#""restart":{"policy":"always","jitter":1.5}"#,
            "restart.jitter: 1.5 is not possible; give 0 to 1, 0.1 being 10 %",
        ),
        (
            r#""restart":{"policy":"always","jitter":-0.1}"#,
            "restart.jitter: -0.1 is not possible; give 0 to 1, 0.1 being 10 %",
        ),
        (
            r#""requires":[{"name":"input-nobody"}]"#,
            "requires: there is no container input-nobody; create it first",
        ),
        (
            r#""name":"input-self","requires":[{"name":"input-self"}]"#,
            "requires[0].name: a container cannot require itself; leave it out",
        ),
    ] {
        let document = format!(r#"{{"image":"wharf/demo","labels":{{"input":"bad-supervision"}},{part}}}"#);
        assert_eq!(refused_document(&wharf, &document), expected, "{part}");
    }
    assert_eq!(wharf.ok(["ps", "-aq", "--filter", "label=input=bad-supervision"]), "");
}

#[test]
fn supervision_by_flags_that_cannot_be_is_refused_by_field_and_range() {
    let wharf = Wharf::shared();
    for (flags, expected) in [
        (
            &["--restart", "no", "--restart-max-attempts", "3"][..],
            "restart.maxAttempts: there is nothing to limit with policy \"no\" and no rule that restarts; give a policy, or leave it out",
        ),
        (
            &["--restart", "always", "--restart-factor", "0.5"],
            "restart.factor: 0.5 is below 1; 1 (a constant delay) to 1000 are possible",
        ),
        (
            &["--restart", "always", "--restart-delay", "10s", "--restart-max-delay", "1s"],
            "restart.max: 1s is below restart.initial (10s); it must be at least that",
        ),
        (
            &["--restart", "always", "--restart-jitter", "150%"],
            "invalid value '150%' for '--restart-jitter <PART>': it is 0% to 100%, or 0 to 1",
        ),
        (
            &["--restart", "always", "--restart-max-attempts", "0"],
            "invalid value '0' for '--restart-max-attempts <NUMBER>': 0 is not in 1..=4294967295",
        ),
        (
            &["--restart-preset", "kubernetes"],
            "--restart-preset says nothing without --restart on-failure, always or unless-stopped; add it",
        ),
        (
            &["--liveness", "tcp://:80", "--liveness-period", "0s"],
            "probes.liveness.periodSeconds: must be greater than or equal to 0.1 (seconds)",
        ),
        (
            &["--readiness", "tcp://:80", "--readiness-timeout", "50ms"],
            "probes.readiness.timeoutSeconds: must be greater than or equal to 0.1 (seconds)",
        ),
        (
            &["--readiness", "tcp://:80", "--readiness-successes", "0"],
            "invalid value '0' for '--readiness-successes <NUMBER>': 0 is not in 1..=2147483647",
        ),
        (
            &["--startup", "tcp://:80", "--startup-grace", "0s"],
            "probes.startup.terminationGracePeriodSeconds: must be greater than 0",
        ),
        (&["--requires", "input-nobody"], "requires: there is no container input-nobody; create it first"),
        (
            &["--name", "input-self", "--requires", "input-self"],
            "requires[0].name: a container cannot require itself; leave it out",
        ),
    ] {
        // Not with --rm: it does not go with restarts, and that would be said instead.
        let begin = ["run", "-d", "--label", "input=bad-flags"];
        let output = wharf.output(begin.iter().chain(flags).chain(&["wharf/demo"]));
        assert_eq!((output.status, output.stdout.as_str()), (125, ""), "{flags:?}: {}", output.stderr);
        let first = output.stderr.lines().next().and_then(|line| line.strip_prefix("ctl: "));
        assert_eq!(first, Some(expected), "{flags:?}");
    }
    assert_eq!(wharf.ok(["ps", "-aq", "--filter", "label=input=bad-flags"]), "");
}

#[test]
fn cycle_of_requirements_is_spelled_out() {
    let wharf = Wharf::shared();
    let document = |name: &str, requires: &str| {
        format!(r#"{{"image":"wharf/demo","name":"{name}","requires":[{{"name":"{requires}"}}]}}"#)
    };
    // Whom others require can be gone by force only, and then come again with wishes of its own.
    wharf.ok(["create", "--name", "input-one", "wharf/demo"]);
    wharf.ok(["create", "--name", "input-two", "--requires", "input-one", "wharf/demo"]);
    wharf.ok(["create", "--name", "input-three", "--requires", "input-two", "wharf/demo"]);
    wharf.ok(["rm", "-f", "input-one"]);
    for (last, way) in [
        ("input-two", "input-one -> input-two -> input-one"),
        ("input-three", "input-one -> input-three -> input-two -> input-one"),
    ] {
        assert_eq!(
            refused_document(&wharf, &document("input-one", last)),
            format!("requires: {way} would never start: each waits for the next; leave one of these out")
        );
    }
    assert_eq!(wharf.ok(["ps", "-aq", "--filter", "name=input-one"]), "");
    wharf.ok(["rm", "input-three", "input-two"]);
}

#[test]
fn other_options_are_checked() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    refused(&wharf, &["--stop-signal", "SIGNOTHING", image, "true"], &["SIGNOTHING"]);
    refused(&wharf, &["--cap-add", "NOTHING", image, "true"], &["NOTHING"]);
    refused(&wharf, &["--network", "nowhere", image, "true"], &["nowhere"]);
    refused(&wharf, &["--env-file", "/no/such/file", image, "true"], &["/no/such/file"]);
    refused(&wharf, &["--security-opt", "seccomp=/no/such/profile", image, "true"], &["/no/such/profile"]);
    refused(&wharf, &["--sysctl", "kernel.core_pattern=|/x", image, "true"], &["kernel.core_pattern"]);
    refused(&wharf, &["--sysctl", "net.ipv4.ip_forward=1+2", image, "true"], &["net.ipv4.ip_forward"]);
    // -t needs a terminal.
    refused(&wharf, &["-it", image, "true"], &["terminal"]);
}

#[test]
fn directory_that_is_no_root_file_system_is_refused() {
    let wharf = Wharf::shared();
    refused(&wharf, &["--rootfs", "/no/such/dir", "true"], &["rootfs", "/no/such/dir", "correct the path"]);
    refused(&wharf, &["--rootfs", "relative", "true"], &["relative"]);
    let empty = wharf.scratch("no-rootfs");
    let output = wharf.output(["run", "--rm", "--rootfs", &empty.display().to_string(), "/bin/true"]);
    assert!([125, 127].contains(&output.status), "{}", output.stderr);
    assert!(output.stderr.contains("/bin/true") || output.stderr.contains("rootfs"), "{}", output.stderr);
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0, "nothing was made in it");
    let file = empty.join("file");
    std::fs::write(&file, "").unwrap();
    refused(&wharf, &["--rootfs", &file.display().to_string(), "true"], &["directory"]);
}

/// Load `path`: it must fail, say every word, and change nothing.
fn load_refused(wharf: &Wharf, path: &Path, words: &[&str]) {
    let before = wharf.ok(["image", "ls", "--format", "json"]);
    let output = wharf.output(["image".as_ref(), "load".as_ref(), path.as_os_str()]);
    assert_eq!(output.status, 1, "{}: {}{}", path.display(), output.stdout, output.stderr);
    for word in words {
        assert!(
            output.stderr.to_lowercase().contains(word),
            "{}: no {word:?} in {:?}",
            path.display(),
            output.stderr
        );
    }
    assert_eq!(wharf.ok(["image", "ls", "--format", "json"]), before, "no image more or less");
    let state = wharf.state_dir();
    let partial = Tool::with("find", [state.as_os_str(), "-name".as_ref(), "*.partial*".as_ref()]).ok();
    assert_eq!(partial, "");
}

#[test]
fn damaged_archives_are_refused() {
    let wharf = Wharf::start();
    let image = Busybox::get();
    let scratch = wharf.scratch("damaged");
    let good = std::fs::read(image.oci_archive()).unwrap();

    load_refused(&wharf, Path::new("/no/such/archive.tar"), &["/no/such/archive.tar"]);
    let file = |name: &str, bytes: &[u8]| {
        let path = scratch.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    load_refused(&wharf, &file("empty.tar", b""), &["empty.tar"]);
    load_refused(&wharf, &file("noise.tar", &[0x5a; 100_000]), &["noise.tar"]);
    load_refused(&wharf, &file("half.tar", &good[..good.len() / 2]), &["half.tar", "truncated", "anew"]);

    // A layout with a layer that is not what its name says.
    let copy_layout = |name: &str| {
        let target = scratch.join(name);
        Tool::with("cp", ["-r".as_ref(), image.oci_layout().as_os_str(), target.as_os_str()]).ok();
        target
    };
    let largest = |layout: &Path| {
        std::fs::read_dir(layout.join("blobs/sha256"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .max_by_key(|path| std::fs::metadata(path).unwrap().len())
            .unwrap()
    };
    let layout = copy_layout("wrong-digest");
    let blob = largest(&layout);
    let mut bytes = std::fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    load_refused(&wharf, &layout, &["digest"]);

    let layout = copy_layout("truncated");
    let blob = largest(&layout);
    let bytes = std::fs::read(&blob).unwrap();
    std::fs::write(&blob, &bytes[..bytes.len() / 2]).unwrap();
    load_refused(&wharf, &layout, &[]);

    let layout = copy_layout("missing-blob");
    std::fs::remove_file(largest(&layout)).unwrap();
    load_refused(&wharf, &layout, &["sha256"]);

    let layout = copy_layout("no-index");
    std::fs::remove_file(layout.join("index.json")).unwrap();
    load_refused(&wharf, &layout, &["index.json"]);
}

#[test]
fn hostile_layers_are_refused_and_write_nothing_outside() {
    let wharf = Wharf::start();
    let scratch = wharf.scratch("hostile");
    let canary = scratch.join("canary");
    std::fs::create_dir(&canary).unwrap();
    std::fs::write(canary.join("file"), "as it was\n").unwrap();
    let canary_text = canary.display().to_string();
    let script = project_script();
    for kind in ["dotdot", "absolute-link", "hardlink-out", "symlink-parent", "truncated-gzip", "digest-path"]
    {
        let archive = scratch.join(format!("{kind}.tar"));
        Tool::with("python3", ["-c", script, kind, &archive.display().to_string(), &canary_text]).ok();
        let output = wharf.output(["image".as_ref(), "load".as_ref(), archive.as_os_str()]);
        // A link that leads out is no crime; writing through it is.
        if kind != "absolute-link" {
            assert_eq!(output.status, 1, "{kind}: {}{}", output.stdout, output.stderr);
        }
        let entries: Vec<_> =
            std::fs::read_dir(&canary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(entries, ["file"], "{kind}");
        assert_eq!(std::fs::read_to_string(canary.join("file")).unwrap(), "as it was\n", "{kind}");
        assert!(!scratch.join("escaped").exists() && !wharf.state_dir().join("escaped").exists(), "{kind}");
    }
}

/// Writes a docker-archive with one layer of a hostile kind.
fn project_script() -> &'static str {
    r#"
import gzip, hashlib, io, json, sys, tarfile
kind, archive, canary = sys.argv[1:]

def add(tar, name, data=None, **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data or b"")
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data) if data is not None else None)

buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w") as tar:
    add(tar, "harmless", b"x")
    if kind == "dotdot":
        for depth in range(1, 12):
            add(tar, "../" * depth + "escaped", b"x")
    elif kind == "absolute-link":
        add(tar, "link", type=tarfile.SYMTYPE, linkname=canary + "/file")
    elif kind == "hardlink-out":
        add(tar, "hard", type=tarfile.LNKTYPE, linkname=canary + "/file")
        add(tar, "hard", b"overwritten")
        add(tar, "hard2", type=tarfile.LNKTYPE, linkname="../" * 10 + canary + "/file")
    elif kind == "symlink-parent":
        add(tar, "dir", type=tarfile.SYMTYPE, linkname=canary)
        add(tar, "dir/new", b"x")
        add(tar, "dir/file", b"overwritten")
layer = buffer.getvalue()
name = "layer.tar"
if kind == "truncated-gzip":
    layer = gzip.compress(layer * 50)[:-200]
if kind == "digest-path":
    name = "../escaped/layer.tar"
config = json.dumps({
    "architecture": "amd64", "os": "linux", "config": {},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
}).encode()
manifest = json.dumps([{"Config": "config.json", "RepoTags": ["hostile:" + kind], "Layers": [name if kind != "digest-path" else "../../etc/passwd"]}]).encode()
with tarfile.open(archive, "w") as tar:
    add(tar, "config.json", config)
    add(tar, name, layer)
    add(tar, "manifest.json", manifest)
"#
}

#[test]
fn full_disk_while_loading_is_said_and_leaves_nothing() {
    let image = Busybox::get();
    // A small file system of its own for the store.
    let wharf = Wharf::start();
    wharf.stop_daemon();
    let state = wharf.state_dir();
    let options = ["-t", "tmpfs", "-o", "size=12m,mode=700", "tmpfs"];
    let mut arguments: Vec<&std::ffi::OsStr> = options.iter().map(AsRef::as_ref).collect();
    arguments.push(state.as_os_str());
    Tool::with("mount", arguments).ok();
    let unmount = Unmount(state.clone());
    std::fs::remove_dir_all(state.join("x")).ok();
    wharf.launch();
    let filler = state.join("filler");
    let _ = std::fs::write(&filler, vec![0u8; 12 << 20]);
    let output = wharf.output(["image".as_ref(), "load".as_ref(), image.oci_archive().as_os_str()]);
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(output.stderr.to_lowercase().contains("space"), "{}", output.stderr);
    std::fs::remove_file(&filler).unwrap();
    assert!(!wharf.ok(["image", "ls"]).contains("busybox"));
    // The daemon is well, and with room it works.
    Tool::with("mount", ["-o".as_ref(), "remount,size=64m".as_ref(), state.as_os_str()]).ok();
    wharf.busybox();
    wharf.stop_daemon();
    drop(unmount);
    wharf.launch();
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        Tool::with("umount", ["-l".as_ref(), self.0.as_os_str()]).output();
    }
}

#[test]
fn bad_configuration_is_named() {
    let wharf = Wharf::shared();
    let path = wharf.scratch("config").join("wharf.toml");
    for (text, word) in
        [("cgrop_root = '/x'", "cgrop_root"), ("cgroup_root = 'x'", "cgroup_root"), ("[", "wharf.toml")]
    {
        std::fs::write(&path, text).unwrap();
        let mut tool = Tool::new(wharf_tests::e2e::binary("wharfd"));
        tool.command().arg("--config").arg(&path).arg("--check-config");
        let output = tool.output();
        assert_ne!(output.status, 0, "{text}");
        assert!(output.stderr.contains(word), "{text}: {}", output.stderr);
    }
    let defaults = wharf_tests::e2e::project().join("units/wharf.toml");
    let mut tool = Tool::new(wharf_tests::e2e::binary("wharfd"));
    tool.command().arg("--config").arg(defaults).arg("--check-config");
    tool.ok();
}
