//! The keeper as its creator and wharfd see it: the static binary, started the way a creator starts it, with a
//! shell as the container's init. Needs root for a file system of its own that can be full.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use wharf_keeper::{self as wire, attach, fd, kind, size};

// --- The log ---------------------------------------------------------------------------------------------

#[test]
fn lines_are_logged_in_cri_format_with_the_time_they_were_read() {
    let before = now();
    let keeper = Setup::new("echo one; sleep 0.1; echo two >&2; sleep 0.1; echo; printf rest").start();
    let dir = keeper.finish();
    let lines = parse(&log(&dir));
    let got: Vec<(&str, char, &[u8])> =
        lines.iter().map(|line| (line.stream.as_str(), line.tag, line.content.as_slice())).collect();
    assert_eq!(
        got,
        [
            ("stdout", 'F', b"one".as_slice()),
            ("stderr", 'F', b"two"),
            ("stdout", 'F', b""),
            ("stdout", 'P', b"rest")
        ]
    );
    let after = now();
    for line in &lines {
        assert!(*before <= *line.time && *line.time <= *after, "{before} <= {} <= {after}", line.time);
    }
    assert!(lines.is_sorted_by_key(|line| line.time.clone()));
}

#[test]
fn long_line_is_logged_in_pieces() {
    let dir = Setup::new(
        "head -c 40000 /dev/zero | tr '\\0' x; echo; head -c 16384 /dev/zero | tr '\\0' y; echo; echo z",
    )
    .start()
    .finish();
    let lines = parse(&log(&dir));
    let got: Vec<(char, usize)> = lines.iter().map(|line| (line.tag, line.content.len())).collect();
    assert_eq!(got, [('P', 16384), ('P', 16384), ('F', 40000 - 2 * 16384), ('F', 16384), ('F', 1)]);
}

#[test]
fn log_is_rotated_between_lines_and_the_oldest_file_goes() {
    let mut setup = Setup::new("seq -f '%.0f: some text that makes the line a hundred bytes or so' 1 1000");
    (setup.max_size, setup.max_files) = (10_000, 3);
    fs::write(setup.dir.path().join("log.3"), "of a time when four files were kept").unwrap();
    fs::write(setup.dir.path().join("log.4"), "and five").unwrap();
    let dir = setup.start().finish();
    let mut content = Vec::new();
    for name in ["log.2", "log.1", "log"] {
        let text = fs::read(dir.join(name)).unwrap();
        assert!(text.len() <= 10_000 && text.len() > 500, "{name}: {} bytes", text.len());
        if name != "log" {
            assert!(text.len() > 9_800, "{name} was rotated early, at {} bytes", text.len());
        }
        content.extend(unframe(&text, "stdout"));
    }
    assert!(!dir.join("log.3").exists() && !dir.join("log.4").exists());
    let all = seq(1000, "some text that makes the line a hundred bytes or so");
    assert!(all.ends_with(&content), "the files are not the end of the output");
}

#[test]
fn with_one_file_the_log_begins_anew() {
    let mut setup = Setup::new("seq -f '%.0f: x' 1 1000");
    (setup.max_size, setup.max_files) = (10_000, 1);
    let dir = setup.start().finish();
    let text = log(&dir);
    assert!(text.len() <= 10_000 && !dir.join("log.1").exists());
    assert!(seq(1000, "x").ends_with(&unframe(&text, "stdout")));
}

#[test]
fn hundred_megabytes_are_logged_byte_for_byte() {
    let tail =
        "some text that makes the line a hundred bytes or so, for it is to be one hundred megabytes in all";
    let setup = Setup::new(&format!("seq -f '%.0f: {tail}' 1 960000"));
    let begun = Instant::now();
    let dir = setup.start().finish();
    let elapsed = begun.elapsed();
    let expected = seq(960_000, tail);
    assert!(expected.len() > 98_000_000);
    let content = unframe(&log(&dir), "stdout");
    assert!(content == expected, "{} bytes instead of {}", content.len(), expected.len());
    eprintln!("{} MB in {elapsed:?}, the time of seq included", expected.len() / 1_000_000);
}

#[test]
fn line_that_a_killed_keeper_left_unfinished_is_cut_off() {
    let setup = Setup::new("echo new");
    let whole = "2026-01-02T03:04:05.678901234Z stdout F old\n";
    fs::write(setup.dir.path().join("log"), format!("{whole}2026-01-02T03:04:05.678901234Z stdo")).unwrap();
    let dir = setup.start().finish();
    let text = fs::read_to_string(dir.join("log")).unwrap();
    assert!(text.starts_with(whole));
    assert_eq!(unframe(text.as_bytes(), "stdout"), b"old\nnew\n");
}

#[test]
fn symbolic_link_in_place_of_the_log_is_not_followed() {
    let setup = Setup::new("echo text");
    let victim = setup.dir.path().join("victim");
    fs::write(&victim, "").unwrap();
    std::os::unix::fs::symlink(&victim, setup.dir.path().join("log")).unwrap();
    let dir = setup.start().finish();
    assert_eq!(fs::read(&victim).unwrap(), b"");
    assert_eq!(record(&dir)["dropped_bytes"], 5);
}

#[test]
fn files_are_private() {
    let dir = Setup::new("umask 0; echo").start().finish();
    for name in ["log", "exit.7"] {
        assert_eq!(fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

// --- A full disk -----------------------------------------------------------------------------------------

#[test]
fn full_disk_neither_blocks_the_container_nor_tears_a_line_and_is_reported() {
    let disk = small_disk(256 * 1024);
    take(&disk, 64 * 1024);
    let go = tempfile::tempdir().unwrap();
    let gate = |name: &str| format!("while [ ! -e {}/{name} ]; do sleep 0.02; done", go.path().display());
    let text = "some text that makes the line a hundred bytes or so";
    let mut setup = Setup::new(&format!(
        "seq -f '%.0f: {text}' 1 20000; touch {0}/done; {1}; echo between; touch {0}/between; {2}; echo after",
        go.path().display(),
        gate("again"),
        gate("last"),
    ));
    setup.log_dir = Some(disk.try_clone().unwrap());
    let keeper = setup.start();
    wait_for("the container, which must not be blocked by the disk", || go.path().join("done").exists());
    sleep(Duration::from_millis(200));
    let stored = read_at(&disk, "log");
    let content = unframe(&stored, "stdout");
    assert!(stored.len() > 180_000, "only {} bytes where there is room for 192 KiB", stored.len());
    assert!(seq(20_000, text).starts_with(&content));
    let lost = seq(20_000, text).len() - content.len();

    // Still full: "between" is lost, too.
    fs::write(go.path().join("again"), "").unwrap();
    wait_for("the line between", || go.path().join("between").exists());
    sleep(Duration::from_millis(100));
    unlink_at(&disk, "filler");
    fs::write(go.path().join("last"), "").unwrap();
    let dir = keeper.finish();

    let stored = parse(&read_at(&disk, "log"));
    let [.., notice, after] = stored.as_slice() else { panic!("too short") };
    let dropped = lost + b"between\n".len();
    assert_eq!((after.stream.as_str(), after.content.as_slice()), ("stdout", b"after".as_slice()));
    let said = String::from_utf8_lossy(&notice.content).into_owned();
    let expected = format!("wharf: {dropped} bytes of output were dropped: the log could not be written");
    assert_eq!((notice.stream.as_str(), notice.tag, said), ("stderr", 'F', expected));
    assert_eq!(record(&dir)["dropped_bytes"], dropped as u64);
    assert_eq!(stored.iter().filter(|line| line.stream == "stderr").count(), 1);
}

#[test]
fn record_that_does_not_fit_is_written_when_there_is_room_and_exited_does_not_wait_for_it() {
    let disk = small_disk(64 * 1024);
    take(&disk, usize::MAX);
    let mut setup = Setup::new("read x; exit 4").stdin_kept();
    setup.record_dir = Some(disk.try_clone().unwrap());
    let keeper = setup.start();
    let socket = keeper.connect();
    keeper.stdin(&socket).write_all(b"\n").unwrap();
    let (message, _) = socket.receive();
    assert_eq!(message[0], kind::EXITED);
    assert!(read_at(&disk, "exit.7").is_empty(), "there is no room for it");
    unlink_at(&disk, "filler");
    // It ends when it has written it.
    keeper.wait();
    assert!(read_at(&disk, "exit.7").starts_with(b"version 1\nstatus 1024\n"));
}

// --- The end ---------------------------------------------------------------------------------------------

#[test]
fn exit_code_is_recorded_before_exited_is_sent() {
    let before = SystemNs::now();
    let keeper = Setup::new("read x; exit 5").stdin_kept().start();
    let (one, two) = (keeper.connect(), keeper.connect());
    keeper.stdin(&one).write_all(b"\n").unwrap();
    let (message, _) = one.receive();
    let fields = record(&keeper.dir);
    assert_eq!(message.len(), size::EXITED);
    assert_eq!(message[0], kind::EXITED);
    assert_eq!(i32::from_le_bytes(message[1..5].try_into().unwrap()), 5 << 8);
    let number = |at: usize| u64::from_le_bytes(message[at..at + 8].try_into().unwrap());
    assert_eq!(fields["version"], 1);
    assert_eq!(fields["status"], 5 << 8);
    assert_eq!((fields["realtime_ns"], fields["boottime_ns"]), (number(5), number(13)));
    assert_eq!((fields["dropped_bytes"], number(21)), (0, 0));
    assert!((before.realtime..=SystemNs::now().realtime).contains(&number(5)));
    assert!((before.boottime..=SystemNs::now().boottime).contains(&number(13)));
    assert_eq!(two.receive().0, message);
    assert_eq!(one.receive().0, b"", "then the connection ends");
    assert!(!keeper.dir.join("exit.7.tmp").exists());
    keeper.wait();
}

#[test]
fn death_by_a_signal_is_recorded() {
    let dir = Setup::new("kill -9 $$").start().finish();
    assert_eq!(record(&dir)["status"], 9);
}

#[test]
fn output_that_others_hold_open_delays_the_record_a_little_only() {
    let keeper = Setup::new("sleep 8 & echo $!; exit 3").start();
    let begun = Instant::now();
    let dir = keeper.finish();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(record(&dir)["status"], 3 << 8);
    kill_logged_pid(&dir);
}

#[test]
fn output_that_others_go_on_writing_delays_the_record_for_a_bounded_time() {
    let keeper = Setup::new(
        "(while echo more; do n=0; while [ $n -lt 5000 ]; do n=$((n+1)); done; done) & echo $!; exit 3",
    )
    .start();
    let begun = Instant::now();
    let dir = keeper.finish();
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
    kill_logged_pid(&dir);
}

#[test]
fn removed_record_directory_does_not_keep_the_keeper_alive() {
    let gone = tempfile::tempdir().unwrap();
    let mut setup = Setup::new("read x; exit 1").stdin_kept();
    setup.record_dir = Some(open_dir(gone.path()));
    let keeper = setup.start();
    drop(gone);
    let socket = keeper.connect();
    keeper.stdin(&socket).write_all(b"\n").unwrap();
    assert_eq!(socket.receive().0[0], kind::EXITED);
    keeper.wait();
}

#[test]
fn signals_do_not_end_a_keeper() {
    let keeper = Setup::new("read x; exit 6").stdin_kept().start();
    let socket = keeper.connect();
    keeper.hello(&socket);
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE, libc::SIGUSR1] {
        // SAFETY: a child of ours that has not been reaped.
        unsafe { libc::kill(keeper.pid, signal) };
    }
    keeper.hello(&socket);
    keeper.stdin(&socket).write_all(b"\n").unwrap();
    assert_eq!(record(&keeper.finish())["status"], 6 << 8);
}

#[test]
fn keeper_without_arguments_or_descriptors_says_so() {
    let output = Command::new(binary("wharf-keeper")).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage"));
    let output =
        Command::new(binary("wharf-keeper")).args(["a", "1", "1", "1", "1"]).stdin(Stdio::null()).output();
    assert!(String::from_utf8_lossy(&output.unwrap().stderr).contains("pidfd"));
}

// --- wharfd ----------------------------------------------------------------------------------------------

#[test]
fn status_names_the_run_and_brings_the_pidfd() {
    let keeper = Setup::new("read x").stdin_kept().start();
    let socket = keeper.connect();
    socket.send(&[kind::HELLO], &[]);
    let (message, fds) = socket.receive();
    assert_eq!(message.len(), size::STATUS);
    assert_eq!(message[0], kind::STATUS);
    assert_eq!(u32::from_le_bytes(message[1..5].try_into().unwrap()), wire::VERSION);
    let pid = u32::from_le_bytes(message[5..9].try_into().unwrap());
    assert_eq!(u64::from_le_bytes(message[9..].try_into().unwrap()), 7);
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fds[0].as_raw_fd())).unwrap();
    assert!(info.lines().any(|line| line == format!("Pid:\t{pid}")), "{info}");
    let comm = fs::read_to_string(format!("/proc/{}/comm", keeper.pid)).unwrap();
    assert_eq!(comm, "wharf-keeper\n");
    keeper.stdin(&socket).write_all(b"\n").unwrap();
    keeper.finish();
}

#[test]
fn wharfd_may_come_and_go() {
    let keeper = Setup::new("for i in 1 2 3; do read x; echo $i; done; exit 2").stdin_kept().start();
    for _ in 0..3 {
        let socket = keeper.connect();
        keeper.stdin(&socket).write_all(b"\n").unwrap();
    }
    let dir = keeper.finish();
    assert_eq!(unframe(&log(&dir), "stdout"), b"1\n2\n3\n");
    assert_eq!(record(&dir)["status"], 2 << 8);
}

#[test]
fn ninth_connection_replaces_the_oldest() {
    let keeper = Setup::new("read x").stdin_kept().start();
    let mut sockets: Vec<Socket> = Vec::new();
    for _ in 0..9 {
        let socket = keeper.connect();
        keeper.hello(&socket);
        sockets.push(socket);
    }
    assert_eq!(sockets[0].receive().0, b"", "the oldest is closed");
    for socket in &sockets[1..] {
        keeper.hello(socket);
    }
    keeper.stdin(&sockets[8]).write_all(b"\n").unwrap();
    keeper.finish();
}

#[test]
fn unknown_and_malformed_messages_are_refused() {
    let keeper = Setup::new("read x").stdin_kept().start();
    let socket = keeper.connect();
    let (reader, writer) = pipe();
    let pipes = |count: usize| vec![writer.as_raw_fd(); count];
    let cases: [(&[u8], usize, i32); 13] = [
        (b"?", 0, libc::EINVAL),
        (b"HH", 0, libc::EINVAL),
        (b"H", 1, libc::EINVAL),
        (&[b'H'; 100], 0, libc::EINVAL),
        (b"R\x01\x00\x01", 0, libc::EINVAL),
        (b"R\x01\x00\x01\x00", 0, libc::ENOTTY),
        (&[kind::ATTACH], 0, libc::EINVAL),
        (&[kind::ATTACH, 0], 0, libc::EINVAL),
        (&[kind::ATTACH, attach::STDOUT], 0, libc::EINVAL),
        (&[kind::ATTACH, attach::STDOUT], 2, libc::EINVAL),
        (&[kind::ATTACH, attach::STDOUT | attach::STDERR], 5, libc::EINVAL),
        (&[kind::ATTACH, attach::TERMINAL], 1, libc::ENOTTY),
        (&[kind::ATTACH, 0x80], 0, libc::EINVAL),
    ];
    for (message, fds, errno) in cases {
        socket.send(message, &pipes(fds));
        let (answer, _) = socket.receive();
        assert_eq!(answer, refused(errno), "{message:?} with {fds} descriptors");
    }
    // Eight places for clients.
    for _ in 0..8 {
        socket.send(&[kind::ATTACH, attach::STDOUT], &pipes(1));
        assert_eq!(socket.receive().0, [kind::ATTACHED]);
    }
    socket.send(&[kind::ATTACH, attach::STDOUT], &pipes(1));
    assert_eq!(socket.receive().0, refused(libc::EUSERS));
    // They are free again when the reader has gone.
    drop(reader);
    let (mut reader, writer) = pipe();
    keeper.hello(&socket);
    socket.send(&[kind::ATTACH, attach::STDOUT], &[writer.as_raw_fd()]);
    assert_eq!(socket.receive().0, [kind::ATTACHED]);
    drop(writer);
    keeper.stdin(&socket).write_all(b"\n").unwrap();
    reader.read_to_end(&mut Vec::new()).unwrap();
    keeper.finish();
}

/// Every release's wharfd talks to the keepers of the next: `tests/fixtures` has what it said and what it was answered.
#[test]
fn earlier_releases_are_answered_as_ever() {
    let exchanges = include_str!("../../../tests/fixtures/0.1/keeper.txt");
    let keeper = Setup::new("read x").stdin_kept().start();
    let socket = keeper.connect();
    let (_reader, writer) = pipe();
    let bytes = |digits: &str| -> Vec<u8> {
        let digits = digits.as_bytes().chunks_exact(2);
        digits.map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 16).unwrap()).collect()
    };
    for name in ["hello", "attach", "attach with input", "resize of pipes", "unknown"] {
        let line = exchanges.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let [sent, fds, "->", answer, answer_fds] = words[..] else { panic!("{line}") };
        socket.send(&bytes(sent), &vec![writer.as_raw_fd(); fds.parse().unwrap()]);
        let (mut got, got_fds) = socket.receive();
        let mut expected = bytes(answer);
        if got[0] == b'S' {
            // Pid and run are others.
            expected[5..].fill(0);
            got[5..].fill(0);
        }
        // A later keeper may say more after what an earlier one said.
        assert_eq!(got.get(..expected.len()), Some(expected.as_slice()), "{name}");
        assert_eq!(got_fds.len(), answer_fds.parse::<usize>().unwrap(), "{name}");
    }
    keeper.stdin(&socket).write_all(b"\n").unwrap();
    drop(writer);
    let dir = keeper.finish();
    assert_eq!(record(&dir)["version"], 1);
}

#[test]
fn other_users_are_not_served() {
    let setup = Setup::new("read x").stdin_kept();
    let path = setup.dir.path().to_owned();
    let keeper = setup.start();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(path.join(wire::SOCKET), PermissionsExt::from_mode(0o777)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: the system call itself changes this thread only.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) }, 0);
            let socket = keeper.connect();
            socket.try_send(&[kind::HELLO]);
            assert_eq!(socket.receive().0, b"");
        });
    });
    let socket = keeper.connect();
    keeper.hello(&socket);
    keeper.stdin(&socket).write_all(b"\n").unwrap();
    keeper.finish();
}

#[test]
fn kept_stdin_stays_open_when_those_who_wrote_to_it_have_gone() {
    let keeper = Setup::new("cat").stdin_kept().start();
    let socket = keeper.connect();
    keeper.stdin(&socket).write_all(b"first\n").unwrap();
    sleep(Duration::from_millis(100));
    keeper.stdin(&socket).write_all(b"second\n").unwrap();
    let dir = keeper.dir.clone();
    wait_for("both lines", || unframe(&log(&dir), "stdout") == b"first\nsecond\n");
    keeper.signal_init(libc::SIGKILL);
    assert_eq!(record(&keeper.finish())["status"], 9);
}

// --- Attached clients ------------------------------------------------------------------------------------

#[test]
fn client_attached_from_the_start_gets_every_byte_and_the_log_too() {
    let (mut out, out_writer) = pipe();
    let (mut err, err_writer) = pipe();
    let mut setup = Setup::new("printf 'first\\nrest'; printf problem >&2");
    (setup.attach_stdout, setup.attach_stderr) = (Some(out_writer), Some(err_writer));
    let keeper = setup.start();
    let (mut text, mut problem) = (String::new(), String::new());
    out.read_to_string(&mut text).unwrap();
    err.read_to_string(&mut problem).unwrap();
    assert_eq!((text.as_str(), problem.as_str()), ("first\nrest", "problem"));
    let log = fs::read(keeper.finish().join("log")).unwrap();
    assert_eq!(unframe(&log, "stdout"), b"first\nrest");
    assert_eq!(unframe(&log, "stderr"), b"problem");
}

#[test]
fn slow_reader_holds_up_the_container_and_loses_nothing() {
    let (mut out, out_writer) = pipe();
    let mut setup = Setup::new("seq -f '%.0f: some text' 1 300000");
    setup.attach_stdout = Some(out_writer);
    let keeper = setup.start();
    sleep(Duration::from_millis(500));
    let logged = fs::metadata(keeper.dir.join("log")).unwrap().len();
    assert!(logged < 1_000_000, "{logged} bytes were logged although nobody read the attached pipe");
    let socket = keeper.connect();
    keeper.hello(&socket);
    // A byte at a time at first, then fast.
    let mut text = Vec::new();
    let mut byte = [0];
    for _ in 0..1000 {
        out.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    out.read_to_end(&mut text).unwrap();
    assert!(text == seq(300_000, "some text"), "{} bytes", text.len());
    let log = fs::read(keeper.finish().join("log")).unwrap();
    assert!(unframe(&log, "stdout") == seq(300_000, "some text"));
}

#[test]
fn slow_reader_gets_the_end_of_the_output_after_the_container_has_ended() {
    let (mut out, out_writer) = pipe();
    // More than fits into the client's pipe, less than into that and the container's own: the container can end.
    let mut setup = Setup::new("head -c 100000 /dev/zero; exit 1");
    setup.attach_stdout = Some(out_writer);
    let keeper = setup.start();
    sleep(Duration::from_secs(3));
    assert!(!keeper.dir.join("exit.7").exists());
    let mut text = Vec::new();
    out.read_to_end(&mut text).unwrap();
    assert_eq!(text.len(), 100_000);
    assert_eq!(record(&keeper.finish())["status"], 1 << 8);
}

#[test]
fn client_that_takes_nothing_is_given_up_some_time_after_the_end() {
    let (out, out_writer) = pipe();
    let mut setup = Setup::new("head -c 100000 /dev/zero; exit 1");
    setup.attach_stdout = Some(out_writer);
    let begun = Instant::now();
    let dir = setup.start().finish();
    assert!(begun.elapsed() > Duration::from_secs(9) && begun.elapsed() < Duration::from_secs(35));
    assert_eq!(unframe(&log(&dir), "stdout").len(), 100_000);
    drop(out);
}

#[test]
fn dead_reader_blocks_nothing() {
    let (out, out_writer) = pipe();
    let mut setup = Setup::new("seq -f '%.0f: some text' 1 300000");
    setup.attach_stdout = Some(out_writer);
    let keeper = setup.start();
    sleep(Duration::from_millis(300));
    drop(out);
    let begun = Instant::now();
    let log = fs::read(keeper.finish().join("log")).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(unframe(&log, "stdout") == seq(300_000, "some text"));
}

#[test]
fn client_that_attaches_later_gets_what_comes_from_then_on() {
    let keeper = Setup::new("echo before; read x; echo out; echo err >&2").stdin_kept().start();
    let dir = keeper.dir.clone();
    wait_for("the first line", || log(&dir).ends_with(b"before\n"));
    let socket = keeper.connect();
    let (mut out, out_writer) = pipe();
    let (mut err, err_writer) = pipe();
    let fds = [out_writer.as_raw_fd(), err_writer.as_raw_fd()];
    socket.send(&[kind::ATTACH, attach::STDOUT | attach::STDERR | attach::STDIN], &fds);
    let (message, mut fds) = socket.receive();
    assert_eq!(message, [kind::ATTACHED]);
    drop((out_writer, err_writer));
    File::from(fds.remove(0)).write_all(b"\n").unwrap();
    let (mut text, mut problem) = (String::new(), String::new());
    out.read_to_string(&mut text).unwrap();
    err.read_to_string(&mut problem).unwrap();
    assert_eq!((text.as_str(), problem.as_str()), ("out\n", "err\n"));
    keeper.finish();
}

#[test]
fn closed_output_is_the_end_for_its_clients_while_the_container_lives() {
    let (mut out, out_writer) = pipe();
    let mut setup = Setup::new("echo text; exec >&-; read x").stdin_kept();
    setup.attach_stdout = Some(out_writer);
    let keeper = setup.start();
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "text\n");
    let socket = keeper.connect();
    let (mut late, late_writer) = pipe();
    socket.send(&[kind::ATTACH, attach::STDOUT], &[late_writer.as_raw_fd()]);
    assert_eq!(socket.receive().0, [kind::ATTACHED]);
    drop(late_writer);
    assert_eq!(late.read(&mut [0; 10]).unwrap(), 0);
    keeper.stdin(&socket).write_all(b"\n").unwrap();
    keeper.finish();
}

// --- A terminal ------------------------------------------------------------------------------------------

#[test]
fn terminal_is_logged_as_lines_and_copied_raw_and_takes_input_and_its_size() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut setup = Setup::new("stty -echo; echo ready; read x; echo got $x; stty size; exit 9");
    setup.terminal = true;
    setup.attach_stdout = Some(theirs.into());
    let keeper = setup.start();
    let mut ready = [0; 7];
    ours.read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\r\n");
    let socket = keeper.connect();
    socket.send(b"R\x2a\x00\x63\x00", &[]);
    assert_eq!(socket.receive().0, [kind::DONE]);
    ours.write_all(b"typed\n").unwrap();
    let mut rest = String::new();
    ours.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "got typed\r\n42 99\r\n");
    let dir = keeper.finish();
    assert_eq!(unframe(&log(&dir), "stdout"), b"ready\ngot typed\n42 99\n");
    assert_eq!(record(&dir)["status"], 9 << 8);
}

#[test]
fn terminal_survives_that_the_container_closes_it_for_a_moment() {
    let mut setup =
        Setup::new("t=$(tty); exec </dev/null >/dev/null 2>&1; sleep 0.3; echo back >$t; sleep 0.1");
    setup.terminal = true;
    let dir = setup.start().finish();
    assert_eq!(unframe(&log(&dir), "stdout"), b"back\n");
}

#[test]
fn two_terminals_see_the_same_and_either_may_go() {
    let mut setup = Setup::new("stty -echo; echo ready; read x; echo $x; read x; echo $x");
    setup.terminal = true;
    let (mut first, theirs) = UnixStream::pair().unwrap();
    setup.attach_stdout = Some(theirs.into());
    let keeper = setup.start();
    first.read_exact(&mut [0; 7]).unwrap();
    let socket = keeper.connect();
    let (mut second, theirs) = UnixStream::pair().unwrap();
    socket.send(&[kind::ATTACH, attach::TERMINAL], &[theirs.as_raw_fd()]);
    assert_eq!(socket.receive().0, [kind::ATTACHED]);
    drop(theirs);
    second.write_all(b"one\n").unwrap();
    let mut text = [0; 5];
    first.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"one\r\n");
    drop(first);
    second.write_all(b"two\n").unwrap();
    let mut all = String::new();
    second.read_to_string(&mut all).unwrap();
    assert_eq!(all, "one\r\ntwo\r\n");
    keeper.finish();
}

#[test]
fn pasted_megabyte_arrives_in_the_terminal_whole() {
    let mut setup = Setup::new("stty raw -echo; echo ready; head -c 1000000 | cksum");
    setup.terminal = true;
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    setup.attach_stdout = Some(theirs.into());
    let keeper = setup.start();
    ours.read_exact(&mut [0; 6]).unwrap();
    let paste: Vec<u8> = (0..1_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    ours.write_all(&paste).unwrap();
    let mut answer = String::new();
    ours.read_to_string(&mut answer).unwrap();
    let mut cksum = Command::new("cksum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    cksum.stdin.take().unwrap().write_all(&paste).unwrap();
    let expected = cksum.wait_with_output().unwrap().stdout;
    assert_eq!(answer.trim(), String::from_utf8(expected).unwrap().trim());
    keeper.finish();
}

// --- Memory ----------------------------------------------------------------------------------------------

#[test]
fn idle_keeper_is_small_also_after_much_output() {
    let keeper = Setup::new("echo; read x; seq 1 200000; read x").stdin_kept().start();
    let socket = keeper.connect();
    let dir = keeper.dir.clone();
    wait_for("the first line", || !log(&dir).is_empty());
    keeper.hello(&socket);
    // Not Private_Dirty: the pages of a program that was just built are dirty, too.
    let (pss, fresh) = (keeper.memory("Pss:"), keeper.memory("Anonymous:"));
    keeper.stdin(&socket).write_all(b"\n").unwrap();
    wait_for("the output", || log(&dir).ends_with(b"F 200000\n"));
    sleep(Duration::from_millis(1500));
    let after = keeper.memory("Anonymous:");
    eprintln!("fresh: PSS {pss} kB, {fresh} kB its own; after much output: {after} kB");
    assert!(fresh <= 28, "{fresh} kB");
    assert!(after <= 32, "{after} kB after much output");
    keeper.stdin(&socket).write_all(b"\n").unwrap();
    keeper.finish();
}

// --- wharf-init ------------------------------------------------------------------------------------------

#[test]
fn init_ends_as_its_child_does() {
    let run =
        |args: &[&str]| Command::new(binary("wharf-init")).args(args).stdin(Stdio::null()).output().unwrap();
    assert_eq!(run(&["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(run(&["sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    assert_eq!(run(&["/bin/echo", "a b", ""]).stdout, b"a b \n");
    let missing = run(&["wharf-no-such-program"]);
    assert_eq!(missing.status.code(), Some(127));
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(said, "wharf-init: cannot execute wharf-no-such-program: no such file or directory\n");
    assert_eq!(run(&["/etc/passwd"]).status.code(), Some(126));
    assert_eq!(run(&["/etc"]).status.code(), Some(126));
    assert_eq!(run(&[]).status.code(), Some(125));
    let searched = Command::new(binary("wharf-init")).arg("true").env("PATH", "/nowhere:/etc:/bin").status();
    assert_eq!(searched.unwrap().code(), Some(0));
}

#[test]
fn init_passes_signals_on_and_gives_its_child_a_clean_mask() {
    let script = "trap 'echo term; exit 3' TERM; grep SigBlk /proc/self/status; while :; do sleep 0.05; done";
    let mut child =
        Command::new(binary("wharf-init")).args(["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut line = [0; 24];
    out.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"SigBlk:\t0000000000000000");
    sleep(Duration::from_millis(200));
    // SAFETY: a child of ours that has not been reaped.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest.trim(), "term");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn init_reaps_orphans() {
    // The inner shell ends at once and leaves an orphan, which ends a moment later.
    let script = "sh -c 'sleep 0.1 & echo $!' > $1; sleep 0.5; read orphan < $1; [ ! -e /proc/$orphan ]";
    let file = tempfile::NamedTempFile::new().unwrap();
    let status = Command::new(binary("wharf-init"))
        .args(["sh", "-c", script, "sh", file.path().to_str().unwrap()])
        .status()
        .unwrap();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}

// --- Helpers ---------------------------------------------------------------------------------------------

/// The static program, built once per run of the tests (in a target directory of its own: other flags).
fn binary(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        if let Some(dir) = std::env::var_os("WHARF_KEEPER_DIR") {
            return dir.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = root.join("target/keeper");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "wharf-keeper", "--profile", "hands"])
            .args(["--target", "x86_64-unknown-linux-gnu", "--target-dir"])
            .arg(&target)
            .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .current_dir(&root)
            .status()
            .unwrap();
        assert!(status.success(), "building the keeper");
        target.join("x86_64-unknown-linux-gnu/hands")
    })
    .join(name)
}

/// What a creator prepares.
struct Setup {
    script: String,
    dir: tempfile::TempDir,
    max_size: u64,
    max_files: u32,
    terminal: bool,
    stdin_kept: bool,
    attach_stdout: Option<OwnedFd>,
    attach_stderr: Option<OwnedFd>,
    log_dir: Option<OwnedFd>,
    record_dir: Option<OwnedFd>,
}

/// A running keeper: a child of ours.
struct Keeper {
    pid: i32,
    init: Option<OwnedFd>,
    dir: PathBuf,
    ended: AtomicBool,
    _hold: tempfile::TempDir,
}

impl Setup {
    fn new(script: &str) -> Self {
        Self {
            script: script.to_owned(),
            dir: tempfile::Builder::new().prefix("keeper-").tempdir().unwrap(),
            max_size: u64::MAX,
            max_files: 5,
            terminal: false,
            stdin_kept: false,
            attach_stdout: None,
            attach_stderr: None,
            log_dir: None,
            record_dir: None,
        }
    }

    fn stdin_kept(mut self) -> Self {
        self.stdin_kept = true;
        self
    }

    /// Fork; there start the shell and become the keeper, as a creator does.
    fn start(self) -> Keeper {
        let path = self.dir.path();
        let listener = listen(&path.join(wire::SOCKET));
        let log_dir = self.log_dir.unwrap_or_else(|| open_dir(path));
        let record_dir = self.record_dir.unwrap_or_else(|| open_dir(path));
        let null: OwnedFd = File::options().read(true).write(true).open("/dev/null").unwrap().into();
        let mut child = [null.as_raw_fd(); 3];
        let mut keep: Vec<OwnedFd> = Vec::new();
        let mut given: Vec<(RawFd, RawFd)> = vec![
            (fd::LISTEN, listener.as_raw_fd()),
            (fd::RECORD_DIR, record_dir.as_raw_fd()),
            (fd::LOG_DIR, log_dir.as_raw_fd()),
        ];
        if self.terminal {
            let (master, slave) = pty();
            child = [slave.as_raw_fd(); 3];
            given.push((fd::STDOUT, master.as_raw_fd()));
            keep.extend([master, slave]);
        } else {
            for (number, target) in [(1, fd::STDOUT), (2, fd::STDERR)] {
                let (reader, writer) = pipe();
                child[number] = writer.as_raw_fd();
                given.push((target, reader.as_raw_fd()));
                keep.extend([reader.into(), writer]);
            }
        }
        if self.stdin_kept {
            let (reader, writer) = pipe();
            child[0] = reader.as_raw_fd();
            given.push((fd::STDIN, writer.as_raw_fd()));
            keep.extend([reader.into(), writer]);
        }
        for (target, attached) in
            [(fd::ATTACH_STDOUT, &self.attach_stdout), (fd::ATTACH_STDERR, &self.attach_stderr)]
        {
            given.extend(attached.as_ref().map(|attached| (target, attached.as_raw_fd())));
        }

        let text = |text: &str| CString::new(text).unwrap();
        let shell = [text("sh"), text("-c"), text(&self.script)];
        let keeper = CString::new(binary("wharf-keeper").into_os_string().into_encoded_bytes()).unwrap();
        let (id, run) = (text("0123456789ab"), text("7"));
        let (max_size, max_files) = (text(&self.max_size.to_string()), text(&self.max_files.to_string()));
        let shell_argv = [shell[0].as_ptr(), shell[1].as_ptr(), shell[2].as_ptr(), std::ptr::null()];
        // The pid of the shell, from the fork to us.
        let (mut report, report_writer) = pipe();

        // SAFETY: between fork and execve only system calls, on memory that was prepared before.
        let pid = unsafe {
            match libc::fork() {
                0 => {
                    let init = libc::fork();
                    if init == 0 {
                        libc::setsid();
                        for (target, source) in child.iter().enumerate() {
                            libc::dup2(*source, target as i32);
                        }
                        if self.terminal {
                            libc::ioctl(0, libc::TIOCSCTTY, 0);
                        }
                        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
                        libc::execv(c"/bin/sh".as_ptr(), shell_argv.as_ptr());
                        libc::_exit(127);
                    }
                    for number in 0..3 {
                        libc::dup2(null.as_raw_fd(), number);
                    }
                    let pidfd = libc::syscall(libc::SYS_pidfd_open, init, 0) as i32;
                    libc::write(report_writer.as_raw_fd(), (&raw const init).cast(), 4);
                    // Out of the way of the fixed numbers first.
                    let mut moved = [(-1, -1); 12];
                    for (slot, (target, source)) in
                        moved.iter_mut().zip(given.iter().chain(&[(fd::INIT, pidfd)]))
                    {
                        *slot = (*target, libc::fcntl(*source, libc::F_DUPFD, 500));
                    }
                    for number in 3..500 {
                        libc::close(number);
                    }
                    for (target, source) in moved.iter().filter(|(target, _)| *target >= 0) {
                        libc::dup2(*source, *target);
                    }
                    let mut digits = [0u8; 12];
                    let (mut at, mut rest) = (digits.len() - 1, init);
                    while rest > 0 {
                        at -= 1;
                        digits[at] = b'0' + (rest % 10) as u8;
                        rest /= 10;
                    }
                    let argv = [
                        keeper.as_ptr(),
                        id.as_ptr(),
                        run.as_ptr(),
                        digits[at..].as_ptr().cast(),
                        max_size.as_ptr(),
                        max_files.as_ptr(),
                        std::ptr::null(),
                    ];
                    libc::execv(keeper.as_ptr(), argv.as_ptr());
                    libc::_exit(126)
                }
                pid => pid,
            }
        };
        assert!(pid > 0);
        let mut init = [0; 4];
        report.read_exact(&mut init).unwrap();
        let dir = path.to_owned();
        // SAFETY: a new descriptor. None if the shell has been reaped already; its pid is not another's so soon.
        let init = unsafe {
            let raw = libc::syscall(libc::SYS_pidfd_open, i32::from_ne_bytes(init), 0) as i32;
            (raw >= 0).then(|| OwnedFd::from_raw_fd(raw))
        };
        Keeper { pid, init, dir, ended: false.into(), _hold: self.dir }
    }
}

impl Keeper {
    fn connect(&self) -> Socket {
        let socket = seqpacket();
        let (address, length) = address(&self.dir.join(wire::SOCKET));
        // SAFETY: an address of that length.
        let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        Socket(socket)
    }

    fn hello(&self, socket: &Socket) {
        socket.send(&[kind::HELLO], &[]);
        assert_eq!(socket.receive().0[0], kind::STATUS);
    }

    /// The kept standard input.
    fn stdin(&self, socket: &Socket) -> File {
        socket.send(&[kind::ATTACH, attach::STDIN], &[]);
        let (message, mut fds) = socket.receive();
        assert_eq!(message, [kind::ATTACHED]);
        File::from(fds.remove(0))
    }

    fn signal_init(&self, signal: i32) {
        let Some(init) = &self.init else { return };
        let (fd, none) = (init.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: a pidfd.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, none, 0) };
    }

    /// A line of smaps_rollup, kB.
    fn memory(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    /// The keeper has to end by itself, well.
    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(40);
        let mut status = 0;
        // SAFETY: a child of ours.
        while unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) } == 0 {
            if Instant::now() > until {
                // SAFETY: a child of ours that has not been reaped.
                unsafe { libc::kill(self.pid, libc::SIGKILL) };
                panic!("the keeper does not end");
            }
            sleep(Duration::from_millis(2));
        }
        self.ended.store(true, Relaxed);
        assert_eq!(status, 0, "the keeper's wait status");
    }

    /// Wait; what is in the directory can be looked at for as long as the result lives.
    fn finish(self) -> Finished {
        self.wait();
        Finished(self)
    }
}

/// After a failed test nothing stays behind.
impl Drop for Keeper {
    fn drop(&mut self) {
        if !self.ended.load(Relaxed) {
            self.signal_init(libc::SIGKILL);
            // SAFETY: a child of ours that has not been reaped.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
        }
    }
}

/// The directory of a keeper that has ended.
struct Finished(Keeper);

impl std::ops::Deref for Finished {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0.dir
    }
}

/// A connection to a keeper. Answers are waited for, but not for ever.
struct Socket(OwnedFd);

impl Socket {
    fn send(&self, bytes: &[u8], fds: &[RawFd]) {
        assert_eq!(self.message(bytes, fds), bytes.len() as isize, "{}", std::io::Error::last_os_error());
    }

    fn try_send(&self, bytes: &[u8]) {
        self.message(bytes, &[]);
    }

    fn message(&self, bytes: &[u8], fds: &[RawFd]) -> isize {
        let mut control = [0u64; 16];
        let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: a message of plain numbers and pointers to what lives until the call has returned; the
        // control data fits into its buffer.
        unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
            if !fds.is_empty() {
                message.msg_control = control.as_mut_ptr().cast();
                message.msg_controllen = libc::CMSG_SPACE(4 * fds.len() as u32) as usize;
                let header = libc::CMSG_FIRSTHDR(&message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(4 * fds.len() as u32) as usize;
                std::ptr::copy_nonoverlapping(fds.as_ptr(), libc::CMSG_DATA(header).cast(), fds.len());
            }
            libc::sendmsg(self.0.as_raw_fd(), &message, libc::MSG_NOSIGNAL)
        }
    }

    fn poll(&self, timeout_ms: i32) -> bool {
        let mut entry = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry.
        unsafe { libc::poll(&mut entry, 1, timeout_ms) == 1 }
    }

    /// A message and its descriptors; an empty one is the end.
    fn receive(&self) -> (Vec<u8>, Vec<OwnedFd>) {
        assert!(self.poll(20_000), "no answer");
        let (mut bytes, mut control) = (vec![0u8; 64], [0u64; 16]);
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut fds = Vec::new();
        // SAFETY: as above; descriptors that arrive are owned by nobody yet.
        let length = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
            (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), 128);
            let length = libc::recvmsg(self.0.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC);
            let header = libc::CMSG_FIRSTHDR(&message);
            if length > 0 && !header.is_null() {
                let count = ((*header).cmsg_len - libc::CMSG_LEN(0) as usize) / 4;
                let first: *const RawFd = libc::CMSG_DATA(header).cast();
                fds.extend((0..count).map(|at| OwnedFd::from_raw_fd(first.add(at).read_unaligned())));
            }
            length
        };
        // A connection that was closed with unread messages ends with an error.
        bytes.truncate(length.max(0) as usize);
        (bytes, fds)
    }
}

fn refused(errno: i32) -> Vec<u8> {
    [&[kind::REFUSED][..], &errno.to_le_bytes()].concat()
}

/// The current file, if there is one yet.
fn log(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("log")).unwrap_or_default()
}

/// One line of a log.
struct Line {
    time: String,
    stream: String,
    tag: char,
    content: Vec<u8>,
}

/// Strictly: everything is whole lines of the right form.
fn parse(log: &[u8]) -> Vec<Line> {
    let Some(text) = log.strip_suffix(b"\n") else {
        assert!(log.is_empty(), "the log ends inside of a line");
        return Vec::new();
    };
    text.split(|byte| *byte == b'\n')
        .map(|line| {
            let mut parts = line.splitn(4, |byte| *byte == b' ');
            let mut word = || {
                String::from_utf8(
                    parts
                        .next()
                        .unwrap_or_else(|| {
                            panic!(
                                "{:?} in {:?}",
                                String::from_utf8_lossy(line),
                                String::from_utf8_lossy(text)
                            )
                        })
                        .to_vec(),
                )
                .unwrap()
            };
            let (time, stream, tag) = (word(), word(), word());
            let digits: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            assert_eq!(digits, "0000-00-00T00:00:00.000000000Z");
            assert!(stream == "stdout" || stream == "stderr", "{stream:?}");
            assert!(tag == "F" || tag == "P", "{tag:?}");
            let content = parts
                .next()
                .unwrap_or_else(|| {
                    panic!("{:?} in {:?}", String::from_utf8_lossy(line), String::from_utf8_lossy(text))
                })
                .to_vec();
            Line { time, stream, tag: tag.remove(0), content }
        })
        .collect()
}

trait Remove {
    fn remove(&self, index: usize) -> char;
}

impl Remove for String {
    fn remove(&self, index: usize) -> char {
        self.chars().nth(index).unwrap()
    }
}

/// What the container wrote, from the log.
fn unframe(log: &[u8], stream: &str) -> Vec<u8> {
    let mut content = Vec::with_capacity(log.len());
    for line in parse(log).into_iter().filter(|line| line.stream == stream) {
        content.extend(line.content);
        if line.tag == 'F' {
            content.push(b'\n');
        }
    }
    content
}

fn record(dir: &Path) -> std::collections::HashMap<String, u64> {
    let text = fs::read_to_string(dir.join("exit.7")).unwrap();
    assert!(text.ends_with('\n'));
    text.lines()
        .map(|line| {
            let (key, value) = line.split_once(' ').unwrap();
            (key.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// What `seq -f '%.0f: TEXT' 1 LAST` prints.
fn seq(last: u32, text: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for number in 1..=last {
        writeln!(all, "{number}: {text}").unwrap();
    }
    all
}

struct SystemNs {
    realtime: u64,
    boottime: u64,
}

impl SystemNs {
    fn now() -> Self {
        let clock = |id| {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: a place for the answer.
            unsafe { libc::clock_gettime(id, &mut time) };
            time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
        };
        Self { realtime: clock(libc::CLOCK_REALTIME), boottime: clock(libc::CLOCK_BOOTTIME) }
    }
}

/// The time as a log has it, by another's arithmetic.
fn now() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !happened() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        sleep(Duration::from_millis(5));
    }
}

/// The first line of the log names a process that outlives the container.
fn kill_logged_pid(dir: &Path) {
    let lines = parse(&log(dir));
    let pid: i32 = lines.iter().find_map(|line| String::from_utf8_lossy(&line.content).parse().ok()).unwrap();
    // SAFETY: a process of this test.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

fn pipe() -> (File, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: room for two; they are owned by nobody else.
    unsafe {
        assert_eq!(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (File::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

fn pty() -> (OwnedFd, OwnedFd) {
    // SAFETY: plain calls; the descriptors are owned by nobody else.
    unsafe {
        let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(master >= 0 && libc::grantpt(master) == 0 && libc::unlockpt(master) == 0);
        let slave = libc::ioctl(master, libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(slave >= 0);
        (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
    }
}

fn open_dir(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn seqpacket() -> OwnedFd {
    // SAFETY: a new descriptor.
    unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
        assert!(socket >= 0);
        OwnedFd::from_raw_fd(socket)
    }
}

fn address(path: &Path) -> (libc::sockaddr_un, u32) {
    // SAFETY: plain numbers.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    for (to, from) in address.sun_path.iter_mut().zip(path.as_os_str().as_encoded_bytes()) {
        *to = *from as libc::c_char;
    }
    (address, size_of::<libc::sockaddr_un>() as u32)
}

fn listen(path: &Path) -> OwnedFd {
    let socket = seqpacket();
    let (address, length) = address(path);
    // SAFETY: an address of that length.
    unsafe {
        assert_eq!(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length), 0);
        assert_eq!(libc::listen(socket.as_raw_fd(), 16), 0);
    }
    socket
}

/// A file system of `size` bytes that is mounted nowhere: it goes with its last descriptor.
fn small_disk(size: usize) -> OwnedFd {
    let size = CString::new(size.to_string()).unwrap();
    // SAFETY: system calls with strings that live long enough; new descriptors.
    unsafe {
        let context = libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 1) as i32;
        assert!(context >= 0, "a tmpfs needs root: {}", std::io::Error::last_os_error());
        let context = OwnedFd::from_raw_fd(context);
        let (set_string, create) = (1, 6);
        let raw = context.as_raw_fd();
        assert_eq!(libc::syscall(libc::SYS_fsconfig, raw, set_string, c"size".as_ptr(), size.as_ptr(), 0), 0);
        assert_eq!(libc::syscall(libc::SYS_fsconfig, raw, create, 0, 0, 0), 0);
        let mount = libc::syscall(libc::SYS_fsmount, raw, 1, 0) as i32;
        assert!(mount >= 0, "{}", std::io::Error::last_os_error());
        let mount = OwnedFd::from_raw_fd(mount);
        let dir = libc::openat(mount.as_raw_fd(), c".".as_ptr(), libc::O_DIRECTORY | libc::O_CLOEXEC);
        assert!(dir >= 0);
        OwnedFd::from_raw_fd(dir)
    }
}

/// Take so much of a disk, or all that is left.
fn take(disk: &OwnedFd, bytes: usize) {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
    // SAFETY: a new descriptor.
    let mut file =
        unsafe { File::from_raw_fd(libc::openat(disk.as_raw_fd(), c"filler".as_ptr(), flags, 0o600)) };
    let mut taken = 0;
    while taken < bytes && file.write(&[0; 512]).is_ok_and(|written| written > 0) {
        taken += 512;
    }
}

fn unlink_at(disk: &OwnedFd, name: &str) {
    let name = CString::new(name).unwrap();
    // SAFETY: a string.
    assert_eq!(unsafe { libc::unlinkat(disk.as_raw_fd(), name.as_ptr(), 0) }, 0);
}

/// A file's content; nothing if there is none.
fn read_at(disk: &OwnedFd, name: &str) -> Vec<u8> {
    let name = CString::new(name).unwrap();
    let mut content = Vec::new();
    // SAFETY: a new descriptor.
    unsafe {
        let file = libc::openat(disk.as_raw_fd(), name.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file >= 0 {
            File::from_raw_fd(file).read_to_end(&mut content).unwrap();
        }
    }
    content
}
