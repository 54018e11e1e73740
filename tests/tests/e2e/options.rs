//! What `ctl run` can be told about the inside of a container.

use wharf_tests::e2e::{Wharf, status_of};

/// `ctl run --rm OPTIONS busybox sh -c SCRIPT`; its output.
fn run(wharf: &Wharf, options: &[&str], script: &str) -> String {
    let mut all = vec!["run", "--rm"];
    all.extend(options);
    all.extend([wharf.busybox(), "sh", "-c", script]);
    wharf.ok(all)
}

#[test]
fn environment_is_the_images_then_the_files_then_the_options() {
    let wharf = Wharf::shared();
    let file = wharf.scratch("env").join("file");
    std::fs::write(&file, "# a comment\nA=file\nB=file\n").unwrap();
    let file = file.display().to_string();
    let script = "echo $FROM_IMAGE $A $B $HOME $PATH";
    assert_eq!(run(&wharf, &["--env-file", &file, "-e", "B=option"], script), "yes file option /root /bin");
    assert_eq!(run(&wharf, &["-e", "FROM_IMAGE=no"], "echo $FROM_IMAGE"), "no");
    let output =
        wharf.ctl(["run", "--rm", "-e", "PASSED_ON", wharf.busybox(), "sh", "-c", "echo $PASSED_ON"]);
    assert_eq!(output.env("PASSED_ON", "from ctl").ok(), "from ctl");
}

#[test]
fn environment_of_several_lines_is_refused_by_name() {
    let wharf = Wharf::shared();
    let output =
        wharf.output(["run", "--rm", "--name", "options-lines", "-e", "A=x\ny", "wharf/demo", "env"]);
    assert_eq!(output.status, 125, "{}", output.stdout);
    assert!(output.stderr.contains("env.A") && output.stderr.contains("newline"), "{}", output.stderr);
    assert_ne!(wharf.output(["inspect", "options-lines"]).status, 0, "nothing half-created");
}

#[test]
fn user_and_group_are_looked_up_in_the_image() {
    let wharf = Wharf::shared();
    let script = "id -u; id -g; id -G; echo $HOME";
    assert_eq!(run(&wharf, &["-u", "app"], script), "1000\n1000\n1000 50\n/home/app");
    assert_eq!(run(&wharf, &["-u", "1000"], script), "1000\n1000\n1000 50\n/home/app");
    assert_eq!(run(&wharf, &["-u", "app:staff"], script), "1000\n50\n50\n/home/app");
    assert_eq!(run(&wharf, &["-u", "4321:1234"], script), "4321\n1234\n1234\n/");
    assert_eq!(run(&wharf, &[], script), "0\n0\n0\n/root");
}

#[test]
fn working_directory_is_made_if_it_is_missing() {
    let wharf = Wharf::shared();
    assert_eq!(run(&wharf, &[], "pwd"), "/home", "of the image");
    assert_eq!(run(&wharf, &["-w", "/tmp"], "pwd"), "/tmp");
    assert_eq!(run(&wharf, &["-w", "/new/dir"], "pwd"), "/new/dir");
}

#[test]
fn host_name_is_set() {
    let wharf = Wharf::shared();
    assert_eq!(run(&wharf, &["--hostname", "harbour"], "hostname; grep -c harbour /etc/hosts"), "harbour\n1");
    let container = wharf.run([wharf.busybox(), "sleep", "1000"]);
    assert_eq!(container.exec(["hostname"]), container.id()[..12]);
}

#[test]
fn read_only_root_keeps_volumes_and_tmpfs_writable() {
    let wharf = Wharf::shared();
    let directory = wharf.scratch("ro-volume");
    let volume = format!("{}:/vol", directory.display());
    let script = "touch /x 2>/dev/null; echo $?; touch /vol/x; echo $?; touch /scratch/x; echo $?; touch /dev/shm/x; echo $?";
    let output = run(&wharf, &["--read-only", "-v", &volume, "--tmpfs", "/scratch"], script);
    assert_eq!(output, "1\n0\n0\n0");
    assert!(directory.join("x").exists());
}

#[test]
fn tmpfs_has_the_size_asked_for() {
    let wharf = Wharf::shared();
    let script = "df -k /scratch | tail -n 1 | awk '{print $2}'; stat -c %a /scratch";
    assert_eq!(run(&wharf, &["--tmpfs", "/scratch:size=2m,mode=700"], script), "2048\n700");
}

#[test]
fn file_can_be_a_volume() {
    let wharf = Wharf::shared();
    let file = wharf.scratch("file-volume").join("conf");
    std::fs::write(&file, "content\n").unwrap();
    let volume = format!("{}:/etc/deep/conf:ro", file.display());
    assert_eq!(run(&wharf, &["-v", &volume], "cat /etc/deep/conf"), "content");
}

#[test]
fn entrypoint_replaces_the_images() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    assert_eq!(wharf.ok(["run", "--rm", "--entrypoint", "/bin/echo", image, "a", "b"]), "a b");
    let demo = wharf.output(["run", "--rm", "wharf/demo", "exit", "17"]);
    assert_eq!(demo.status, 17, "the image's entrypoint with our command: {}", demo.stderr);
}

#[test]
fn sysctls_of_its_own_namespaces_are_set() {
    let wharf = Wharf::shared();
    let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    assert_eq!(run(&wharf, &["--sysctl", "net.ipv4.ip_unprivileged_port_start=80"], script), "80");
    let refused = wharf.output(["run", "--rm", "--sysctl", "kernel.panic=1", wharf.busybox(), "true"]);
    assert_eq!(refused.status, 125);
    assert!(refused.stderr.contains("kernel.panic"), "{}", refused.stderr);
}

#[test]
fn init_reaps_orphans_and_passes_signals_on() {
    let wharf = Wharf::shared();
    let script = "trap 'exit 5' TERM; (sleep 0.1 &) ; echo ready; while :; do sleep 0.1; done";
    let container = wharf.run(["--init", wharf.busybox(), "sh", "-c", script]);
    wharf_tests::e2e::eventually(10, "it runs", || container.logs().contains("ready"));
    assert_ne!(container.exec(["cat", "/proc/1/comm"]), "sh");
    // The shell's own children are zombies for a moment, orphans would stay.
    wharf_tests::e2e::eventually(10, "nobody is left unreaped", || {
        container.exec(["sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status | wc -l"]) == "0"
    });
    wharf.ok(["stop", container.id()]);
    assert_eq!(container.wait(), 5);
}

#[test]
fn rootfs_directory_runs_in_place() {
    let wharf = Wharf::shared();
    let root = wharf.scratch("rootfs");
    wharf_tests::e2e::image::busybox_rootfs(&root);
    let root_text = root.display().to_string();
    let script = "echo written > /data/by-container; stat -c %u /data/owned; id -u";
    let output = wharf.ok(["run", "--rm", "--rootfs", &root_text, "/bin/sh", "-c", script]);
    assert_eq!(output, "1000\n0");
    assert_eq!(std::fs::read_to_string(root.join("data/by-container")).unwrap(), "written\n");
    let container = wharf.run(["--rootfs", &root_text, "/bin/sleep", "1000"]);
    assert_ne!(status_of(container.pid(), "Uid").split_whitespace().next(), Some("0"));
}

#[test]
fn image_without_changes_stays_as_it_was() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    wharf.ok(["run", "--rm", image, "sh", "-c", "rm -rf /data; echo x > /etc/passwd; touch /new"]);
    assert_eq!(wharf.ok(["run", "--rm", image, "cat", "/data/linked"]), "one file with two names");
    let container = wharf.run([image, "sh", "-c", "test -e /kept && sleep 1000; touch /kept"]);
    container.wait();
    wharf.ok(["start", container.id()]);
    wharf_tests::e2e::eventually(10, "changes of a container last until it is removed", || {
        container.state() == "running"
    });
}
