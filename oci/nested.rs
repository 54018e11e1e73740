//! For build scripts: builds programs that another crate carries in itself with `include_bytes!`.
//!
//! They need other flags than the crate that carries them (static, not relocated), and cargo has one set of flags for
//! one run; so they are built by a cargo of their own, into a target directory of their own, since this one's is
//! locked.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What to build.
pub struct Nested {
    /// The package.
    pub package: &'static str,
    /// What it is built from besides the workspace's manifest and lock file, relative to the workspace.
    pub directories: &'static [&'static str],
    /// The target directory's name.
    pub target: &'static str,
    /// Has it the feature `failpoints`, to be switched on together with ours?
    pub has_failpoints: bool,
    /// Programs, and the environment variable through which each one's path reaches `include_bytes!(env!(…))`.
    pub binaries: &'static [(&'static str, &'static str)],
}

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Static: nothing of the host's or an image's is loaded into them. Not relocated: a relocated page is a private one.
const FLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";

impl Nested {
    /// Build, or end the build script with the reason.
    pub fn build(&self) {
        let workspace = workspace();
        for path in ["Cargo.toml", "Cargo.lock", "oci/nested.rs"].iter().chain(self.directories) {
            println!("cargo::rerun-if-changed={}", workspace.join(path).display());
        }
        println!("cargo::rerun-if-env-changed=WHARF_HANDS_TARGET_DIR");
        println!("cargo::rerun-if-env-changed=WHARF_HANDS_SKIP");
        let out = PathBuf::from(variable("OUT_DIR"));
        if std::env::var_os("WHARF_HANDS_SKIP").is_some() {
            // For `cargo check` and editors, which run nothing: what is embedded is empty and refuses to start.
            for (name, env) in self.binaries {
                let file = out.join(name);
                assert!(std::fs::write(&file, []).is_ok(), "{} cannot be written", file.display());
                println!("cargo::rustc-env={env}={}", file.display());
            }
            return;
        }

        let target = target_directory(&workspace).join(self.target);
        let mut cargo = Command::new(variable("CARGO"));
        cargo
            .current_dir(&workspace)
            .args(["build", "--quiet", "--locked", "--profile", "hands", "--target", TRIPLE])
            .args(["--package", self.package])
            .arg("--target-dir")
            .arg(&target)
            .env("RUSTFLAGS", FLAGS);
        for (name, _) in self.binaries {
            cargo.args(["--bin", name]);
        }
        if self.has_failpoints && std::env::var_os("CARGO_FEATURE_FAILPOINTS").is_some() {
            cargo.args(["--features", "failpoints"]);
        }
        // What this run of cargo has set for us must not reach the other one: flags, wrappers such as clippy's, and
        // settings of profiles.
        for (name, _) in std::env::vars_os() {
            let Some(text) = name.to_str() else { continue };
            let ours = matches!(
                text,
                "CARGO_ENCODED_RUSTFLAGS"
                    | "RUSTC_WRAPPER"
                    | "RUSTC_WORKSPACE_WRAPPER"
                    | "CLIPPY_ARGS"
                    | "CARGO_TARGET_DIR"
                    | "CARGO_BUILD_TARGET_DIR"
                    | "CARGO_BUILD_TARGET"
                    | "CARGO_BUILD_RUSTFLAGS"
                    | "RUSTDOCFLAGS"
            ) || [
                "CARGO_PROFILE_",
                "CARGO_CFG_",
                "CARGO_FEATURE_",
                "CARGO_PKG_",
                "CARGO_MANIFEST_",
                "DEP_",
            ]
            .iter()
            .any(|prefix| text.starts_with(prefix));
            if ours {
                cargo.env_remove(&name);
            }
        }
        let status = cargo.status();
        assert!(
            status.as_ref().is_ok_and(std::process::ExitStatus::success),
            "building {} for embedding failed ({status:?}): {cargo:?}",
            self.package
        );
        for (name, env) in self.binaries {
            let built = target.join(TRIPLE).join("hands").join(name);
            // A copy of its own: the nested build may be repeated by another crate while rustc reads this one.
            let file = out.join(name);
            let copied = std::fs::copy(&built, &file);
            assert!(copied.is_ok(), "{} was not built: {copied:?}", built.display());
            println!("cargo::rustc-env={env}={}", file.display());
        }
    }
}

fn workspace() -> PathBuf {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let has_lock = |directory: &&Path| directory.join("Cargo.lock").is_file();
    let found = manifest.ancestors().find(has_lock).map(Path::to_owned);
    assert!(found.is_some(), "no Cargo.lock above {}", manifest.display());
    found.unwrap_or(manifest)
}

/// Where nested target directories lie: beside the debug and release directories of the build that we are in.
fn target_directory(workspace: &Path) -> PathBuf {
    if let Some(directory) = std::env::var_os("WHARF_HANDS_TARGET_DIR") {
        return workspace.join(directory);
    }
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => workspace.join(directory),
        None => workspace.join("target"),
    }
}

fn variable(name: &str) -> String {
    let value = std::env::var(name).unwrap_or_default();
    assert!(!value.is_empty(), "cargo sets {name} for build scripts");
    value
}
