//! `ctl` as a user meets it where no daemon is needed: help, mistakes on the command line, a daemon that is not there.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};

fn ctl(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctl"))
        .args(words)
        .env("WHARF_SOCKET", "/nonexistent/wharf/private")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Exit code, standard output, standard error.
fn outcome(words: &[&str]) -> (i32, String, String) {
    let output = ctl(words);
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

const COMMANDS: [&str; 24] = [
    "run",
    "create",
    "start",
    "stop",
    "kill",
    "restart",
    "reset-failed",
    "rm",
    "ps",
    "logs",
    "exec",
    "attach",
    "wait",
    "inspect",
    "pause",
    "unpause",
    "update",
    "top",
    "stats",
    "events",
    "image",
    "info",
    "version",
    "completion",
];

#[test]
fn help_lists_every_command_and_each_explains_itself() {
    let (code, help, _) = outcome(&["--help"]);
    assert_eq!(code, 0);
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        let (code, text, _) = outcome(&[command, "--help"]);
        assert_eq!(code, 0, "{command}");
        assert!(text.contains("Usage: ctl") && text.contains("--help"), "{command}: {text}");
    }
    assert!(!help.contains("  man "), "{help}");
}

#[test]
fn help_of_run_names_the_flags_of_docker_with_units_and_examples() {
    let (_, help, _) = outcome(&["run", "--help"]);
    for text in [
        "ctl run [OPTIONS] IMAGE [COMMAND [ARG]...]",
        "-d, --detach",
        "-m, --memory <SIZE>",
        "--cpus <NUMBER>",
        "-v, --volume <SOURCE:TARGET[:OPTIONS]>",
        "-h, --hostname",
        "-e, --env",
        "--security-opt",
        "suffix k, m, g",
        "Examples:",
    ] {
        assert!(help.contains(text), "{text}:\n{help}");
    }
}

#[test]
fn mistakes_are_named_with_the_remedy() {
    for (words, code, parts) in [
        (&["insepct"][..], 1, &["'inspect'"][..]),
        (&["ps", "--fitler", "a=b"], 1, &["--filter"]),
        (&["run"], 125, &["IMAGE"]),
        (&["run", "-m", "10x", "web"], 125, &["--memory", "64m"]),
        (&["run", "--memroy", "10m", "web"], 125, &["--memory"]),
        (&["run", "-d", "--standalone", "web"], 125, &["--detach", "--standalone"]),
        (&["run", "-v", "data:/data", "web"], 125, &["./data"]),
        (&["run", "--env-file", "/nonexistent", "web"], 125, &["/nonexistent", "No such file"]),
        (&["run", "-it", "web"], 125, &["terminal"]),
        (&["exec", "web"], 125, &["command is missing"]),
        (&["ps", "-q", "--format", "json"], 1, &["--format", "--quiet"]),
        (&["ps", "--filter", "colour=red"], 1, &["colour", "label"]),
        (&["ps", "--format", "{{.Name"], 1, &["}}"]),
        (&["update", "web"], 1, &["-m 128m"]),
        (&["kill", "-s", "FOO", "web"], 1, &["SIGTERM"]),
        (&["logs", "--since", "yesterday", "web"], 1, &["RFC 3339"]),
        (&["start", "-a", "one", "two"], 1, &["one container at a time"]),
        (&["rm"], 1, &["CONTAINER"]),
        (&["completion", "tcsh"], 1, &["bash", "zsh", "fish"]),
    ] {
        let (found, stdout, stderr) = outcome(words);
        assert!(stderr.starts_with("ctl: "), "{words:?}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{words:?}: {part}: {stderr}");
        }
        let expected = if words[0] == "start" { 125 } else { code };
        assert_eq!((found, stdout.as_str()), (expected, ""), "{words:?}: {stderr}");
    }
}

#[test]
fn missing_daemon_is_told_once_with_the_remedy() {
    for (words, expected) in
        [(&["ps"][..], 1), (&["run", "--rm", "web"], 125), (&["exec", "web", "true"], 125)]
    {
        let (code, _, stderr) = outcome(words);
        assert_eq!(code, expected, "{words:?}");
        assert!(stderr.starts_with("ctl: no wharfd listens at /nonexistent/wharf/private\n"), "{stderr}");
        assert!(stderr.contains("--runtime-dir /nonexistent/wharf"), "{stderr}");
    }
    let (code, stdout, _) = outcome(&["version"]);
    assert_eq!((code, stdout.starts_with("ctl ")), (1, true));
}

#[test]
fn id_file_is_not_left_behind_by_a_failure() {
    let path = std::env::temp_dir().join(format!("wharf-ctl-{}-cidfile", std::process::id()));
    let (code, _, _) = outcome(&["run", "--cidfile", path.to_str().unwrap(), "web"]);
    assert_eq!((code, path.exists()), (125, false));
}

#[test]
fn completions_and_manual_pages_are_generated() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, text, _) = outcome(&["completion", shell]);
        assert_eq!(code, 0);
        assert!(text.contains("memory-swap"), "{shell}");
    }
    let directory = std::env::temp_dir().join(format!("wharf-ctl-{}-man", std::process::id()));
    assert_eq!(outcome(&["man", directory.to_str().unwrap()]).0, 0);
    let page = std::fs::read_to_string(directory.join("ctl-run.1")).unwrap();
    assert!(page.contains(r"\-\-memory\-swap"), "{page}");
    assert!(directory.join("ctl.1").exists() && directory.join("ctl-image-load.1").exists());
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn reader_that_leaves_is_no_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ctl"))
        .args(["completion", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(141), &b""[..]));
}
