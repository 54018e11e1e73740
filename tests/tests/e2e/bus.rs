//! The interfaces as other programs see them: gdbus peer to peer, busctl on a bus.

use nix::libc;
use std::collections::HashMap;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use wharf_tests::e2e::{Tool, Wharf, eventually, number, project, text};

#[test]
fn gdbus_starts_a_container_on_the_private_socket() {
    let wharf = Wharf::shared();
    let spec = r#"{"image":"wharf/demo","name":"bus-gdbus","resources":{"memory":67108864}}"#;
    let reply = wharf.gdbus("/org/wharf1", "org.wharf1.Manager.Run", &[spec, "{}"]).ok();
    let path = reply.split('\'').nth(1).expect("an object path").to_owned();
    let id = path.strip_prefix("/org/wharf1/container/").expect("of a container").to_owned();
    assert_eq!(text(&wharf.inspect("bus-gdbus"), "state"), "running");
    assert_eq!(text(&wharf.inspect("bus-gdbus"), "id"), id);

    let state =
        wharf.gdbus(&path, "org.freedesktop.DBus.Properties.Get", &["org.wharf1.Container", "State"]).ok();
    assert!(state.contains("'running'"), "{state}");
    let objects =
        wharf.gdbus("/org/wharf1", "org.freedesktop.DBus.ObjectManager.GetManagedObjects", &[]).ok();
    assert!(objects.contains(&path), "{objects}");
    let list = |properties| wharf.gdbus("/org/wharf1", "org.wharf1.Manager.ListContainers", &[properties]);
    let named = list("['Name', 'State']").ok();
    let own = named.split(&path).nth(1).and_then(|rest| rest.split('}').next()).expect("it is listed");
    assert!(own.contains("'Name': <'bus-gdbus'>") && own.contains("'State': <'running'>"), "{named}");
    assert_eq!(own.matches('<').count(), 2, "nothing else: {own}");
    assert!(list("@as []").ok().contains("'Cgroup': <'"), "all of them");
    let refused = list("['Nmae']").output();
    assert!(refused.stderr.contains("InvalidArgument") && refused.stderr.contains("Nmae"), "{refused:?}");
    wharf.gdbus(&path, "org.wharf1.Container.Stop", &["1000"]).ok();
    wharf.gdbus(&path, "org.wharf1.Container.Remove", &["{}"]).ok();
    assert_ne!(wharf.output(["inspect", "bus-gdbus"]).status, 0);
}

#[test]
fn introspection_shows_what_is_documented() {
    let wharf = Wharf::shared();
    let container = wharf.run(["wharf/demo"]);
    let path = format!("/org/wharf1/container/{}", container.id());
    let introspect = |path: &str| {
        let address = wharf.address();
        Tool::with(
            "gdbus",
            ["introspect", "--address", &address, "--dest", "org.wharf1", "--object-path", path, "--xml"],
        )
        .ok()
    };
    let manager = introspect("/org/wharf1");
    for word in
        ["org.wharf1.Manager", "\"Run\"", "\"Create\"", "\"LoadImage\"", "org.freedesktop.DBus.ObjectManager"]
    {
        assert!(manager.contains(word), "no {word} in\n{manager}");
    }
    let one = introspect(&path);
    for word in
        ["org.wharf1.Container", "\"Stop\"", "\"Exec\"", "\"OomKilled\"", "\"State\"", "PropertiesChanged"]
    {
        assert!(one.contains(word), "no {word} in\n{one}");
    }
    for (interface, xml) in [("org.wharf1.Manager", &manager), ("org.wharf1.Container", &one)] {
        let path = project().join("docs").join(format!("{interface}.xml"));
        let document = document(xml, interface);
        if std::env::var_os("UPDATE_INTROSPECTION").is_some() {
            std::fs::write(&path, &document).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == document,
            "{} is out of date; run UPDATE_INTROSPECTION=1 cargo test -p wharf-tests --test e2e introspection",
            path.display()
        );
    }
}

/// One interface as a document of its own.
fn document(xml: &str, interface: &str) -> String {
    let begin = xml.find(&format!("  <interface name=\"{interface}\"")).expect("the interface");
    let end = begin + xml[begin..].find("</interface>").expect("its end") + "</interface>".len();
    format!(
        "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
         \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n<node>\n{}\n</node>\n",
        &xml[begin..end]
    )
}

#[test]
fn errors_have_names() {
    let wharf = Wharf::shared();
    for (arguments, name) in [
        (vec!["/org/wharf1", "org.wharf1.Manager.GetContainer", "bus-nobody"], "NoSuchContainer"),
        (vec!["/org/wharf1", "org.wharf1.Manager.Run", r#"{"image":"bus/nothing"}"#, "{}"], "NoSuchImage"),
        (vec!["/org/wharf1", "org.wharf1.Manager.Run", r#"{"imgae":"x"}"#, "{}"], "InvalidSpec"),
        (vec!["/org/wharf1", "org.wharf1.Manager.Create", "no json"], "InvalidSpec"),
        (vec!["/org/wharf1", "org.wharf1.Manager.Run", "{}", "{'atach': <true>}"], "InvalidArg"),
    ] {
        let output = wharf.gdbus(arguments[0], arguments[1], &arguments[2..]).output();
        assert_ne!(output.status, 0, "{arguments:?}");
        assert!(output.stderr.contains(name), "{arguments:?}: {}", output.stderr);
    }
}

/// A bus of the test's own.
struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    fn start(wharf: &Wharf) -> Self {
        let directory = wharf.scratch("bus");
        let socket = directory.join("socket");
        let address = format!("unix:path={}", socket.display());
        let configuration = directory.join("bus.conf");
        std::fs::write(
            &configuration,
            format!(
                "<busconfig><type>system</type><listen>{address}</listen><auth>EXTERNAL</auth>\
                 <policy context=\"default\"><allow user=\"*\"/><deny own=\"*\"/><deny send_type=\"method_call\"/>\
                 <allow send_type=\"signal\"/><allow send_requested_reply=\"true\" send_type=\"method_return\"/>\
                 <allow send_requested_reply=\"true\" send_type=\"error\"/><allow receive_type=\"method_call\"/>\
                 <allow receive_type=\"method_return\"/><allow receive_type=\"error\"/><allow receive_type=\"signal\"/>\
                 <allow send_destination=\"org.freedesktop.DBus\"/></policy>\
                 <include>{}</include></busconfig>",
                project().join("units/org.wharf1.conf").display()
            ),
        )
        .unwrap();
        let daemon = Command::new("dbus-daemon")
            .arg("--nofork")
            .arg("--nopidfile")
            .arg(format!("--config-file={}", configuration.display()))
            .stdin(Stdio::null())
            .spawn()
            .expect("dbus-daemon starts");
        eventually(10, "the bus listens", || socket.exists());
        Self { daemon, address }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn busctl_sees_and_uses_the_interfaces_on_a_bus() {
    let wharf = Wharf::start();
    wharf.stop_daemon();
    let bus = Bus::start(&wharf);
    let path = wharf.directory().join("wharf.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace("system = false", "system = true");
    std::fs::write(&path, text).unwrap();
    wharf.launch_with(&[("DBUS_SYSTEM_BUS_ADDRESS", &bus.address)]);

    let busctl = |arguments: &[&str]| {
        let mut tool = Tool::new("busctl");
        tool.command().arg(format!("--address={}", bus.address)).arg("--no-pager").args(arguments);
        tool.output()
    };
    eventually(10, "the name is owned", || busctl(&["list", "--acquired"]).stdout.contains("org.wharf1"));
    let tree = busctl(&["tree", "org.wharf1"]);
    assert!(tree.stdout.contains("/org/wharf1"), "{}{}", tree.stdout, tree.stderr);
    let manager = busctl(&["introspect", "org.wharf1", "/org/wharf1"]);
    assert!(
        manager.stdout.contains("org.wharf1.Manager") && manager.stdout.contains(".Run"),
        "{}",
        manager.stdout
    );

    let spec = r#"{"image":"wharf/demo","name":"bus-busctl"}"#;
    let run =
        busctl(&["call", "org.wharf1", "/org/wharf1", "org.wharf1.Manager", "Run", "sa{sv}", spec, "0"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    let id = wharf_tests::e2e::text(&wharf.inspect("bus-busctl"), "id");
    assert!(run.stdout.contains(&id), "{}", run.stdout);
    let object = format!("/org/wharf1/container/{id}");
    let one = busctl(&["introspect", "org.wharf1", &object]);
    for word in ["org.wharf1.Container", ".State", "\"running\"", ".Stop"] {
        assert!(one.stdout.contains(word), "no {word} in {}", one.stdout);
    }
    let state = busctl(&["get-property", "org.wharf1", &object, "org.wharf1.Container", "State"]);
    assert_eq!(state.stdout.trim(), "s \"running\"");
    wharf.ok(["rm", "-f", "bus-busctl"]);
    wharf.stop_daemon();
    drop(bus);
    wharf.launch();
}

/// A client that authenticates and then does nothing at all.
fn silent_client(wharf: &Wharf) -> UnixStream {
    let mut stream = UnixStream::connect(wharf.socket()).unwrap();
    // Uid 0, in hexadecimal of its digits.
    stream.write_all(b"\0AUTH EXTERNAL 30\r\n").unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"OK");
    stream.write_all(b"BEGIN\r\n").unwrap();
    stream
}

#[test]
fn client_that_reads_nothing_holds_nobody_up() {
    let wharf = Wharf::start();
    let _clients: Vec<UnixStream> = (0..3).map(|_| silent_client(&wharf)).collect();
    // Each life is a dozen signals; a socket takes fewer than two hundred.
    for _ in 0..40 {
        wharf.ctl(["run", "--rm", "wharf/demo", "true"]).patience(10).ok();
    }
    assert_eq!(wharf.ok(["ps", "-aq"]), "");
}

#[test]
fn connections_are_bounded_and_idle_handshakes_cut_off() {
    let wharf = Wharf::start_with("[limits]\nconnections = 3");
    let mut idle: Vec<UnixStream> = (0..3).map(|_| UnixStream::connect(wharf.socket()).unwrap()).collect();
    // Those who wait at the door without a word have to go, and then there is room.
    eventually(15, "there is room again", || wharf.output(["version"]).status == 0);
    let mut byte = [0];
    assert_eq!(idle[0].read(&mut byte).unwrap_or(0), 0, "it was closed");
    let talking: Vec<UnixStream> = (0..3).map(|_| silent_client(&wharf)).collect();
    let refused = wharf.output(["ps"]);
    assert_eq!(refused.status, 1, "a fourth one: {}", refused.stdout);
    drop(talking);
    eventually(5, "there is room again", || wharf.output(["ps"]).status == 0);
}

#[test]
fn only_root_may_use_the_private_socket() {
    let wharf = Wharf::start();
    // Even if the modes of the files let others in: then only what the kernel says of the peer is left.
    for (path, mode) in
        [(wharf.directory().to_owned(), 0o755), (wharf.runtime_dir(), 0o755), (wharf.socket(), 0o666)]
    {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let socket = wharf.socket();
    let mut stream = std::thread::spawn(move || {
        // The bare system call changes this thread only, which has nothing else to do; libc's function all of them.
        let nobody = 65534;
        // SAFETY: numbers only.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody) };
        assert_eq!(changed, 0);
        UnixStream::connect(socket).expect("the modes let it connect")
    })
    .join()
    .unwrap();
    // A peer that is let in and silent is only cut off after five seconds.
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let said = stream.read(&mut [0]).expect("cut off at once");
    assert_eq!(said, 0, "nothing is said to it");
    // And nobody else is.
    silent_client(&wharf);
    wharf.ok(["ps"]);
}

#[test]
fn hosts_root_in_a_container_may_not_use_the_private_socket() {
    let wharf = Wharf::shared();
    let container = wharf.run(["wharf/demo", "sleep", "1000"]);
    let cgroup = wharf.cgroup_file(&container.cgroup(), "pids", "cgroup.procs", "cgroup.procs");
    // Such as a container without a user namespace that has the socket as a volume: to wharfd it is its cgroup.
    let ask = |before: &str| {
        let script = format!("{before}exec \"$CTL\" version");
        let tool = Tool::with("sh", ["-c", &script]).env("WHARF_SOCKET", wharf.socket());
        tool.env("CTL", wharf_tests::e2e::binary("ctl")).env("PROCS", &cgroup).output()
    };
    assert_eq!(ask("").status, 0, "outside");
    let inside = ask("echo $$ > \"$PROCS\" || exit 99; ");
    assert_eq!(inside.status, 1, "{}{}", inside.stdout, inside.stderr);
}

#[test]
fn daemon_without_a_system_bus_serves_its_private_socket() {
    let wharf = Wharf::start();
    wharf.stop_daemon();
    let path = wharf.directory().join("wharf.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace("system = false", "system = true");
    std::fs::write(&path, text).unwrap();
    wharf.launch_with(&[("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")]);
    wharf.ok(["run", "--rm", "wharf/demo", "true"]);
}

#[test]
fn containers_that_come_change_and_go_are_announced_with_their_properties() {
    use std::future::poll_fn;
    use std::pin::Pin;
    use zbus::export::futures_core::Stream;

    type Changed = (String, HashMap<String, zbus::OwnedVariant>, Vec<String>);

    let wharf = Wharf::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = UnixStream::connect(wharf.socket()).unwrap();
        let connection = zbus::connection::Builder::unix_stream(stream).p2p().build().await.unwrap();
        let mut messages = zbus::MessageStream::from(&connection);
        wharf.ok(["create", "--name", "bus-announced", "wharf/demo", "sleep", "1000"]);
        wharf.ok(["start", "bus-announced"]);
        let pid = number(&wharf.inspect("bus-announced"), "pid");
        wharf.ok(["stop", "bus-announced"]);
        wharf.ok(["rm", "bus-announced"]);
        let (mut heard, mut changes) = (Vec::new(), Vec::new());
        let listening = async {
            while !heard.iter().any(|(member, _)| member == "InterfacesRemoved") {
                let next = poll_fn(|context| Pin::new(&mut messages).poll_next(context)).await;
                let message = next.expect("connected").expect("a message");
                let Some(member) = message.header().member().map(ToString::to_string) else { continue };
                if member == "PropertiesChanged" {
                    let body = message.body();
                    let (_, changed, _) = body.deserialize::<Changed>().expect("as the standard has it");
                    changes.push(changed);
                } else if member.starts_with("Interfaces") {
                    heard.push((
                        member,
                        format!("{:?}", message.body().deserialize::<zbus::wire::Structure<'_>>()),
                    ));
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), listening).await.expect("both are announced");
        let members: Vec<_> = heard.iter().map(|(member, _)| member.as_str()).collect();
        assert_eq!(members, ["InterfacesAdded", "InterfacesRemoved"], "{heard:?}");
        for word in ["/org/wharf1/container/", "org.wharf1.Container", "bus-announced", "NextStart"] {
            assert!(heard[0].1.contains(word), "no {word} in {}", heard[0].1);
        }
        assert!(heard[1].1.contains("org.wharf1.Container"), "{}", heard[1].1);
        let texts = |name: &str| -> Vec<String> {
            let values = changes.iter().filter_map(|changed| changed.get(name));
            values.map(|value| String::try_from(value.clone()).expect("a string")).collect()
        };
        assert_eq!(texts("State"), ["starting", "running", "stopping", "exited", "removing"], "{changes:?}");
        let pids = changes.iter().filter_map(|changed| changed.get("Pid"));
        let pids: Vec<u32> = pids.map(|value| u32::try_from(value.clone()).expect("a number")).collect();
        assert_eq!(pids, [pid as u32, 0], "{changes:?}");
        let codes = changes.iter().filter_map(|changed| changed.get("ExitCode"));
        let codes: Vec<i32> = codes.map(|value| i32::try_from(value.clone()).expect("a number")).collect();
        // From -1 while nothing has ended; the demo program ends with 128 and the signal's number.
        assert_eq!(codes, [143], "{changes:?}");
    });
}
