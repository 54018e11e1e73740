//! What `make install` puts on a machine, and takes away again.

use std::path::Path;
use wharf_tests::e2e::{Tool, binary, project};

fn install(action: &str, destination: &Path) -> Tool {
    let mut tool = Tool::new(project().join("scripts/install"));
    let binaries = binary("ctl").parent().unwrap().to_owned();
    tool.command().arg(action).arg(binaries).arg(destination).args(["/usr/local", "/etc"]);
    tool.command().args([
        "/usr/local/lib/systemd/system",
        "/etc/dbus-1/system.d",
        "/usr/local/share/man/man1",
    ]);
    tool
}

fn files(directory: &Path) -> Vec<String> {
    let found = Tool::with("find", [directory.as_os_str(), "-type".as_ref(), "f".as_ref()]).ok();
    let prefix = format!("{}/", directory.display());
    found.lines().map(|line| line.trim_start_matches(&prefix).to_owned()).collect()
}

#[test]
fn everything_is_installed_and_taken_away() {
    let directory = tempfile::tempdir().unwrap();
    let destination = directory.path();
    install("install", destination).ok();
    let installed = files(destination);
    for file in [
        "usr/local/bin/wharfd",
        "usr/local/bin/ctl",
        "usr/local/libexec/wharf-forge",
        "usr/local/lib/systemd/system/wharfd.service",
        "usr/local/lib/systemd/system/wharf-forge.service",
        "usr/local/share/man/man1/ctl-run.1.gz",
        "usr/local/share/bash-completion/completions/ctl",
        "etc/dbus-1/system.d/org.wharf1.conf",
        "etc/wharf/wharf.toml",
    ] {
        assert!(installed.iter().any(|line| line == file), "no {file} in {installed:#?}");
    }
    let unit = destination.join("usr/local/lib/systemd/system/wharfd.service");
    let text = std::fs::read_to_string(unit).unwrap();
    assert!(text.contains("ExecStart=/usr/local/bin/wharfd") && !text.contains('@'), "{text}");
    Tool::with(destination.join("usr/local/bin/ctl"), ["--version"]).ok();
    Tool::with(destination.join("usr/local/libexec/wharf-forge"), ["--version"]).ok();

    install("uninstall", destination).ok();
    assert_eq!(files(destination), [""; 0], "all of it");
}

#[test]
fn edited_configuration_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let destination = directory.path();
    install("install", destination).ok();
    let configuration = destination.join("etc/wharf/wharf.toml");
    std::fs::write(&configuration, "cgroup_root = \"/mine\"\n").unwrap();
    install("install", destination).ok();
    assert_eq!(std::fs::read_to_string(&configuration).unwrap(), "cgroup_root = \"/mine\"\n");
    assert!(destination.join("etc/wharf/wharf.toml.new").exists());
    install("uninstall", destination).ok();
    assert_eq!(files(destination), ["etc/wharf/wharf.toml"]);
}

#[test]
fn units_are_understood_by_systemd() {
    let directory = tempfile::tempdir().unwrap();
    for unit in ["wharfd.service", "wharf-forge.service"] {
        let text = std::fs::read_to_string(project().join("units").join(unit)).unwrap();
        // Programs that exist, so that only the units are judged.
        let text = text
            .replace("@PREFIX@/bin/wharfd", "/bin/true")
            .replace("@PREFIX@/libexec/wharf-forge", "/bin/true");
        std::fs::write(directory.path().join(unit), text).unwrap();
    }
    for unit in ["wharfd.service", "wharf-forge.service"] {
        let output = Tool::with(
            "systemd-analyze",
            [
                "verify".as_ref(),
                "--man=no".as_ref(),
                "--recursive-errors=no".as_ref(),
                directory.path().join(unit).as_os_str(),
            ],
        )
        .output();
        assert_eq!(output.status, 0, "{unit}: {}", output.stderr);
        assert!(!output.stderr.contains(unit), "{unit}: {}", output.stderr);
    }
}
