//! What earlier releases said on their sockets (`tests/fixtures`) is understood, and they understand what is said today:
//! for an upgrade, wharfd, forge and keepers may be a release apart.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use wharf_oci::forge::{Forge, ForgeError};
use wharf_oci::keeper::{Attach, Ended, Keeper};
use wharf_protocol::{ExitRecord, FailureKind, Reply, Request, frame};

/// Those that must be understood.
const RELEASES: [&str; 1] = ["0.1"];

fn fixture(release: &str, name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(release).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Read each line, and write it again: all that was in it must still be there, so that its author could read it. What
/// has come later may stand beside it.
fn reads_and_writes<T: DeserializeOwned + Serialize>(name: &str) {
    for release in RELEASES {
        for line in fixture(release, name).lines() {
            let message: T = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let old: Value = serde_json::from_str(line).unwrap();
            contains(&serde_json::to_value(message).unwrap(), &old, line);
        }
    }
}

fn contains(new: &Value, old: &Value, line: &str) {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            for (key, old) in old {
                contains(new.get(key).unwrap_or_else(|| panic!("no {key} any more: {line}")), old, line);
            }
        }
        (new, old) => assert_eq!(new, old, "{line}"),
    }
}

#[test]
fn requests_of_earlier_releases_are_understood_and_understand_ours() {
    reads_and_writes::<Request>("requests.jsonl");
}

#[test]
fn replies_of_earlier_releases_are_understood_and_understand_ours() {
    reads_and_writes::<Reply>("replies.jsonl");
}

#[test]
fn exit_records_of_earlier_releases_are_read() {
    for release in RELEASES {
        let record = ExitRecord::parse(&fixture(release, "exit.1")).unwrap();
        assert_eq!((record.exit_code(), record.dropped_bytes), (137, 0));
        assert!(record.finished_realtime_ns > 0 && record.finished_boottime_ns > 0);
    }
}

#[test]
fn what_a_later_release_adds_to_a_message_is_passed_over() {
    let hello = r#"{"Hello":{"version":1,"pid":7,"mood":"good"}}"#;
    assert!(matches!(serde_json::from_str(hello), Ok(Reply::Hello { version: 1, pid: 7 })));
    let failed = r#"{"Failed":{"kind":"TooWet","message":"it rains","detail":[]}}"#;
    match serde_json::from_str(failed) {
        Ok(Reply::Failed(failure)) => assert_eq!(failure.kind, FailureKind::Failed),
        other => panic!("{other:?}"),
    }
    for release in RELEASES {
        for line in fixture(release, "requests.jsonl").lines() {
            let mut value: Value = serde_json::from_str(line).unwrap();
            let Some(fields) = value.as_object_mut().and_then(|kinds| kinds.values_mut().next()) else {
                continue;
            };
            fields.as_object_mut().unwrap().insert("later".into(), true.into());
            serde_json::from_value::<Request>(value).unwrap_or_else(|error| panic!("{error}: {line}"));
        }
    }
}

/// A forge of the first release hangs up on a request that it does not know.
#[test]
fn forge_that_does_not_know_a_request_is_named_as_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("forge.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let forge = std::thread::spawn(move || {
        let (connection, _) = listener.accept().unwrap();
        let (_, fds) = frame::receive::<Value>(&connection).unwrap();
        assert_eq!(fds.len(), 1);
    });
    let pidfd = std::fs::File::open("/dev/null").unwrap();
    let error = Forge::at(path).sockets(pidfd.as_fd(), wharf_protocol::Family::Ipv4, 1).unwrap_err();
    forge.join().unwrap();
    assert!(
        matches!(&error, ForgeError::Failed(failure) if failure.kind == FailureKind::Unsupported),
        "{error}"
    );
    assert!(error.to_string().contains("earlier release"), "{error}");
}

/// One exchange with a keeper: what was sent with how many descriptors, and what came back with how many.
struct Exchange {
    sent: Vec<u8>,
    answer: Vec<u8>,
    answer_fds: usize,
}

fn exchange(release: &str, name: &str) -> Exchange {
    let text = fixture(release, "keeper.txt");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).expect(name);
    let (sent, answer) = line.split_once(" -> ").unwrap();
    let half = |half: &str| {
        let (bytes, fds) = half.split_once(' ').unwrap();
        let digits: Vec<_> = bytes.as_bytes().chunks_exact(2).collect();
        let byte = |digits: &&[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        (digits.iter().map(byte).collect(), fds.parse().unwrap())
    };
    let ((sent, _), (answer, answer_fds)): ((Vec<u8>, usize), (Vec<u8>, usize)) = (half(sent), half(answer));
    Exchange { sent, answer, answer_fds }
}

/// A keeper of that release, which expects these messages and answers as it did.
fn keeper(release: &'static str, names: &[&'static str]) -> (tempfile::TempDir, std::thread::JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("keeper.sock");
    let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let names = names.to_vec();
    let thread = std::thread::spawn(move || {
        let socket = rustix::net::accept(&listener).unwrap();
        for name in names {
            let Exchange { sent, answer, answer_fds } = exchange(release, name);
            if !sent.is_empty() {
                let mut packet = [0; 64];
                let (length, _) =
                    rustix::net::recv(&socket, &mut packet[..], rustix::net::RecvFlags::empty()).unwrap();
                assert_eq!(packet[..length], sent, "{name}");
            }
            reply(&socket, &answer, answer_fds);
        }
    });
    (dir, thread)
}

fn reply(socket: &OwnedFd, answer: &[u8], fds: usize) {
    let null = std::fs::File::open("/dev/null").unwrap();
    let fds: Vec<_> = std::iter::repeat_n(null.as_fd(), fds).collect();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(answer)], &mut control, SendFlags::NOSIGNAL).unwrap();
}

#[tokio::test]
async fn keepers_of_earlier_releases_are_talked_to_as_ever() {
    for release in RELEASES {
        let names = ["hello", "attach with input", "resize", "resize of pipes", "exited"];
        let (dir, thread) = keeper(release, &names);
        let keeper = Keeper::connect(dir.path()).unwrap();
        let status = keeper.status().await.unwrap();
        assert_eq!((status.version, status.run), (1, 1));
        let pipe = std::io::pipe().unwrap();
        let attach = Attach::Pipes { stdout: pipe.1.as_fd(), stderr: pipe.1.as_fd(), stdin: true };
        assert!(keeper.attach(attach).await.unwrap().is_some(), "the write end of standard input");
        keeper.resize(24, 80).await.unwrap();
        let refused = keeper.resize(24, 80).await.unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(nix::libc::ENOTTY));
        match keeper.ended().await {
            Ended::Exited(record) => assert_eq!(record.exit_code(), 137),
            Ended::Lost => panic!("EXITED of {release} was not understood"),
        }
        thread.join().unwrap();
    }
}
