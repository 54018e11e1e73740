//! Standard streams, terminals, exec and attach.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use wharf_tests::e2e::{Wharf, binary, eventually};

#[test]
fn input_comes_back_through_cat() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    // More than a pipe holds, and no text.
    let bytes: String = (0..200_000).map(|number| format!("line {number}\n")).collect();
    let output = wharf.ctl(["run", "--rm", "-i", image, "cat"]).input(bytes.clone()).output();
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(output.stdout == bytes, "{} bytes of {}", output.stdout.len(), bytes.len());
}

#[test]
fn without_i_there_is_no_input() {
    let wharf = Wharf::shared();
    let output = wharf.ctl(["run", "--rm", wharf.busybox(), "wc", "-c"]).input("ignored").output();
    assert_eq!((output.status, output.stdout.trim()), (0, "0"), "{}", output.stderr);
}

#[test]
fn stdout_and_stderr_stay_apart() {
    let wharf = Wharf::shared();
    let output = wharf.output(["run", "--rm", wharf.busybox(), "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn output_without_a_newline_and_large_output_are_complete() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    assert_eq!(wharf.output(["run", "--rm", image, "printf", "no newline"]).stdout, "no newline");
    let large = wharf.output(["run", "--rm", image, "sh", "-c", "seq 300000"]);
    assert_eq!(large.stdout.lines().count(), 300_000);
    assert!(large.stdout.ends_with("\n300000\n"));
}

#[test]
fn exec_has_streams_and_an_exit_status() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sleep", "1000"]);
    let id = container.id();
    let output =
        wharf.ctl(["exec", "-i", id, "sh", "-c", "cat; echo err >&2; exit 9"]).input("in\n").output();
    assert_eq!((output.status, output.stdout.as_str(), output.stderr.as_str()), (9, "in\n", "err\n"));
    assert_eq!(wharf.output(["exec", id, "no-such-program"]).status, 127);
    assert_eq!(wharf.output(["exec", id, "/bin/text"]).status, 126);
    assert_eq!(wharf.output(["exec", id, "sh", "-c", "kill -9 $$"]).status, 137);
    assert_eq!(container.exec(["pwd"]), "/home");
    assert_eq!(wharf.ok(["exec", "-w", "/tmp", id, "pwd"]), "/tmp");
    assert_eq!(wharf.ok(["exec", "-e", "A=b c", id, "sh", "-c", "echo $A $FROM_IMAGE"]), "b c yes");
    assert_eq!(wharf.ok(["exec", "-u", "app", id, "sh", "-c", "id -u; echo $HOME"]), "1000\n/home/app");
    assert_eq!(wharf.ok(["exec", "-u", "1234:50", id, "sh", "-c", "id -u; id -g"]), "1234\n50");
}

#[test]
fn exec_in_the_background_goes_on() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sleep", "1000"]);
    wharf.ok(["exec", "-d", container.id(), "sh", "-c", "sleep 0.3; echo done > /tmp/done"]);
    eventually(10, "it has written its file", || {
        wharf.output(["exec", container.id(), "cat", "/tmp/done"]).stdout == "done\n"
    });
}

#[test]
fn exec_ends_with_its_container() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sleep", "1000"]);
    let exec = wharf.ctl(["exec", container.id(), "sleep", "1000"]).spawn();
    eventually(10, "it runs", || wharf.ok(["top", container.id()]).matches("sleep 1000").count() == 2);
    wharf.ok(["kill", container.id()]);
    assert_eq!(exec.finish().status, 137);
}

#[test]
fn background_container_with_input_takes_it_from_an_attach() {
    let wharf = Wharf::shared();
    let container = wharf.run(["-i", wharf.busybox(), "sh", "-c", "read line; echo got $line"]);
    let mut attach = wharf.ctl(["attach", container.id()]).spawn();
    std::thread::sleep(std::time::Duration::from_millis(300));
    attach.child().stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    let output = attach.finish();
    assert_eq!((output.status, output.stdout.as_str()), (0, "got hello\n"), "{}", output.stderr);
    assert_eq!(container.logs(), "got hello");
}

#[test]
fn attach_ends_with_the_containers_status() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sh", "-c", "sleep 1; echo late; exit 6"]);
    let output = wharf.output(["attach", container.id()]);
    assert_eq!((output.status, output.stdout.as_str()), (6, "late\n"), "{}", output.stderr);
}

#[test]
fn terminal_is_a_terminal_of_the_right_size() {
    let wharf = Wharf::shared();
    let script = "test -t 0 && test -t 1 && test -t 2 && stty size && echo term=$TERM; exit 4";
    let (output, status) =
        on_a_terminal(&wharf, &["run", "--rm", "-it", wharf.busybox(), "sh", "-c", script], "", 31, 97);
    assert_eq!(status, 4, "{output}");
    assert!(output.contains("31 97"), "{output}");
    assert!(output.contains("term=xterm"), "{output}");
    assert!(output.contains("\r\n"), "a terminal turns line ends: {output:?}");
}

#[test]
fn typing_reaches_the_container() {
    let wharf = Wharf::shared();
    let (output, status) = on_a_terminal(
        &wharf,
        &["run", "--rm", "-it", wharf.busybox(), "sh"],
        "echo typed-$((40+2))\nexit 8\n",
        24,
        80,
    );
    assert_eq!(status, 8, "{output}");
    assert!(output.contains("typed-42"), "{output}");
}

#[test]
fn exec_has_a_terminal_too() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sleep", "1000"]);
    let script = "test -t 0 && stty size; tty; exit 3";
    let (output, status) =
        on_a_terminal(&wharf, &["exec", "-it", container.id(), "sh", "-c", script], "", 17, 71);
    assert_eq!(status, 3, "{output}");
    assert!(output.contains("17 71"), "{output}");
    assert!(output.contains("/dev/pts/"), "{output}");
}

#[test]
fn colours_are_for_terminals_only_and_can_be_switched_off() {
    let wharf = Wharf::shared();
    let container = wharf.run(["--name", "streams-colours", "wharf/demo", "sleep", "1000"]);
    let arguments = ["ps", "--filter", "name=streams-colours"];
    let on_a_terminal = |environment: &[(&str, &str)]| {
        let (output, status) = on_a_terminal_with(&wharf, environment, &arguments, "", 24, 120);
        assert_eq!(status, 0, "{output}");
        assert!(output.contains("running"), "{output}");
        output
    };
    let coloured = on_a_terminal(&[]);
    assert!(coloured.contains("\x1b["), "{coloured:?}");
    let empty = on_a_terminal(&[("NO_COLOR", "")]);
    assert!(empty.contains("\x1b["), "an empty value is none: {empty:?}");
    let plain = on_a_terminal(&[("NO_COLOR", "1")]);
    assert!(!plain.contains('\x1b'), "{plain:?}");
    let mut tool = wharf.ctl(arguments).env("TERM", "xterm");
    tool.command().env_remove("NO_COLOR");
    let piped = tool.ok();
    assert!(piped.contains("running") && !piped.contains('\x1b'), "{piped:?}");
    drop(container);
}

/// Run ctl on a pseudo-terminal; what it showed, and its exit status.
fn on_a_terminal(wharf: &Wharf, arguments: &[&str], typed: &str, rows: u16, columns: u16) -> (String, i32) {
    on_a_terminal_with(wharf, &[], arguments, typed, rows, columns)
}

/// Likewise, with more in its environment.
fn on_a_terminal_with(
    wharf: &Wharf,
    environment: &[(&str, &str)],
    arguments: &[&str],
    typed: &str,
    rows: u16,
    columns: u16,
) -> (String, i32) {
    let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(&size, None).expect("a pseudo-terminal");
    let stream = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor"));
    let mut child = Command::new(binary("ctl"))
        .args(arguments)
        .env("WHARF_SOCKET", wharf.socket())
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .envs(environment.iter().copied())
        .stdin(stream(&pty.slave))
        .stdout(stream(&pty.slave))
        .stderr(stream(&pty.slave))
        .spawn()
        .expect("ctl starts");
    drop(pty.slave);
    let mut master = std::fs::File::from(pty.master);
    let mut reader = master.try_clone().expect("a descriptor");
    let output = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // Ends with EIO when the last user of the terminal has gone.
        let mut chunk = [0; 4096];
        while let Ok(count) = reader.read(&mut chunk) {
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&chunk[..count]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    if !typed.is_empty() {
        // After the shell is there, as a person would.
        std::thread::sleep(std::time::Duration::from_millis(1000));
        master.write_all(typed.as_bytes()).expect("typed");
    }
    let mut status = None;
    eventually(30, "ctl ends", || {
        status = child.try_wait().expect("our child");
        status.is_some()
    });
    let output = output.join().expect("a reader");
    (output, status.and_then(|status| status.code()).unwrap_or(-1))
}
