//! What runs in a container, and as whom: command, environment, working directory, user, resource limits. Image and
//! user each have a say; an image is a stranger's text, so what it says is checked like the user's.

use super::config::{ExecConfig, Ulimit};
use super::{Config, Invalid, mounts, nearest};
use nix::sys::signal::Signal;
use oci_spec::image::Config as ImageConfig;
use serde_json::{Value, json};
use wharf_protocol::{IdMap, TerminalSize};

/// What most images expect, in Docker's order.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// MAX_ARG_STRLEN: the kernel refuses a longer argument or variable.
const LONGEST_STRING: usize = 128 * 1024;
/// The kernel gives a quarter of the stack limit, 2 MiB usually, to arguments and environment together; each
/// costs a pointer as well. The rest is for what the kernel and the creator add.
const LONGEST_TOTAL: usize = 2 * 1024 * 1024 - 64 * 1024;

/// A process in a container, all but its user's numbers and HOME, which are resolved in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Program and arguments, at least one.
    pub args: Vec<String>,
    /// `KEY=value`, each key once. HOME may be missing.
    pub env: Vec<String>,
    /// Absolute, inside the container.
    pub cwd: String,
    /// As written: `name`, `uid`, `name:group`, `uid:gid`; empty is root.
    pub user: String,
    /// Further groups, by name or id.
    pub groups: Vec<String>,
    /// Names such as `CAP_CHOWN`: bounding, permitted and effective alike.
    pub capabilities: Vec<String>,
    /// No program gains rights by being executed.
    pub no_new_privileges: bool,
    /// (name such as `RLIMIT_NOFILE`, soft, hard).
    pub rlimits: Vec<(String, u64, u64)>,
}

pub(super) fn process(
    config: &Config,
    image: Option<&ImageConfig>,
    hostname: &str,
    capabilities: &[String],
    warnings: &mut Vec<String>,
) -> Result<Process, Invalid> {
    let mut args = args(config, image)?;
    if config.init.is_some() {
        args.insert(0, mounts::INIT.to_owned());
    }
    let env = env(config, image, hostname, warnings)?;
    check_size(&args, &env)?;
    let user = match (&config.user, image.and_then(|image| image.user().as_ref())) {
        (Some(user), _) => checked_user("user", user, config.id_map)?,
        (None, Some(user)) => checked_user("image.user", user, config.id_map)?,
        (None, None) => String::new(),
    };
    Ok(Process {
        args,
        env: env.into_strings(),
        cwd: cwd(config, image)?,
        user,
        groups: checked_groups(&config.groups, config.id_map)?,
        capabilities: capabilities.to_vec(),
        no_new_privileges: !config.security.new_privileges,
        rlimits: rlimits(&config.ulimits)?,
    })
}

impl Process {
    /// Lower the default limit of open files to what this host gives. What the user asked for is left as it is: if
    /// it cannot be had, the creator says so.
    pub(super) fn fit_open_files(&mut self, ulimits: &[Ulimit], most: u64) {
        let asked =
            |limit: &Ulimit| limit.name.to_ascii_lowercase().trim_start_matches("rlimit_") == "nofile";
        if ulimits.iter().any(asked) {
            return;
        }
        for (name, soft, hard) in &mut self.rlimits {
            if name == "RLIMIT_NOFILE" {
                *hard = (*hard).min(most);
                *soft = (*soft).min(*hard);
            }
        }
    }

    /// One more process beside this one: the same rights, its own command.
    pub fn exec(&self, exec: &ExecConfig, id_map: Option<IdMap>) -> Result<Self, Invalid> {
        let args = checked_args("command", &exec.command)?;
        if args.is_empty() {
            return Err(Invalid::new("command", "", "is empty", "name the program to run"));
        }
        let mut env = Env::default();
        for variable in &self.env {
            if let Some((key, value)) = variable.split_once('=') {
                env.set(key, value);
            }
        }
        if exec.terminal && env.get("TERM").is_none() {
            env.set("TERM", "xterm");
        }
        if exec.user.is_some() {
            // Whose home it is depends on the user; it is resolved anew.
            env.remove("HOME");
        }
        env.add_users(&exec.env)?;
        check_size(&args, &env)?;
        let user = match &exec.user {
            Some(user) => checked_user("user", user, id_map)?,
            None => self.user.clone(),
        };
        let groups = match exec.user.is_none() && exec.groups.is_empty() {
            true => self.groups.clone(),
            false => checked_groups(&exec.groups, id_map)?,
        };
        let cwd = match &exec.working_directory {
            Some(cwd) => checked_cwd("workingDirectory", cwd)?,
            None => self.cwd.clone(),
        };
        Ok(Self { args, env: env.into_strings(), cwd, user, groups, ..self.clone() })
    }

    /// `process` of a runtime spec. The user is root until the creator has looked it up.
    pub(super) fn to_spec(&self, terminal: Option<TerminalSize>) -> Value {
        let rlimits: Vec<_> = self
            .rlimits
            .iter()
            .map(|(name, soft, hard)| json!({ "type": name, "soft": soft, "hard": hard }))
            .collect();
        let mut process = json!({
            "terminal": terminal.is_some(),
            "user": { "uid": 0, "gid": 0, "umask": 0o022 },
            "args": self.args,
            "env": self.env,
            "cwd": self.cwd,
            // All five sets, explicitly: a set that is absent would not be touched.
            "capabilities": {
                "bounding": self.capabilities,
                "effective": self.capabilities,
                "permitted": self.capabilities,
                "inheritable": [],
                "ambient": [],
            },
            "rlimits": rlimits,
        });
        if let Some(size) = terminal {
            process["consoleSize"] = json!({ "height": size.rows, "width": size.columns });
        }
        // Absent rather than false: libcontainer asks whether the key is there.
        if self.no_new_privileges {
            process["noNewPrivileges"] = json!(true);
        }
        process
    }
}

/// The name that a container has for itself: what RFC 1123 allows, and `_`, which is common.
pub(super) fn hostname(config: &Config) -> Result<String, Invalid> {
    let Some(name) = &config.hostname else {
        return Ok(config.id.chars().take(12).collect());
    };
    let refuse = |problem: &str, fix: &str| Err(Invalid::new("hostname", name, problem, fix));
    if name.is_empty() {
        return refuse("is empty", "leave it out for the container's short id");
    }
    if name.len() > 64 {
        return refuse("is longer than 64 characters", "choose a shorter one");
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if !name.split('.').all(is_label) {
        let fix = "use letters, digits and -, in parts joined by dots, none beginning or ending with -";
        return refuse("is no host name", fix);
    }
    Ok(name.clone())
}

/// The number of the signal that asks the container to end.
pub(super) fn stop_signal(config: &Config, image: Option<&ImageConfig>) -> Result<i32, Invalid> {
    match (&config.stop_signal, image.and_then(|image| image.stop_signal().as_ref())) {
        (Some(written), _) => signal("stopSignal", written),
        (None, Some(written)) if !written.is_empty() => signal("image.stopSignal", written),
        (None, _) => Ok(Signal::SIGTERM as i32),
    }
}

/// A signal's number, from `SIGTERM`, `term`, `15`, `RTMIN+3`.
pub fn signal(field: &str, written: &str) -> Result<i32, Invalid> {
    /// As glibc and musl count, which keep some for themselves below.
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    let invalid = |fix: &str| Err(Invalid::new(field, written, "is no signal", fix));
    if written.bytes().all(|byte| byte.is_ascii_digit()) {
        return match written.parse() {
            Ok(number @ 1..=RTMAX) => Ok(number),
            _ => invalid("give a number from 1 to 64, or a name such as SIGTERM"),
        };
    }
    let upper = written.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign).and_then(|number| number.parse::<u8>().ok()).map(i32::from),
    };
    let realtime = if let Some(rest) = name.strip_prefix("RTMIN") {
        offset(rest, '+').map(|offset| RTMIN + offset)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        offset(rest, '-').map(|offset| RTMAX - offset)
    } else {
        None
    };
    if let Some(number) = realtime.filter(|number| (RTMIN..=RTMAX).contains(number)) {
        return Ok(number);
    }
    let short = |signal: Signal| signal.as_str().trim_start_matches("SIG");
    match Signal::iterator().find(|signal| short(*signal) == name) {
        Some(signal) => Ok(signal as i32),
        None => match nearest(name, Signal::iterator().map(short)) {
            Some(near) => invalid(&format!("did you mean SIG{near}?")),
            None => invalid("give a number from 1 to 64, or a name such as SIGTERM"),
        },
    }
}

/// Docker's rules: a command replaces the image's CMD; an entrypoint replaces the image's, and its CMD with it.
fn args(config: &Config, image: Option<&ImageConfig>) -> Result<Vec<String>, Invalid> {
    let of_image = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    let entrypoint = match &config.entrypoint {
        Some(own) if own.iter().all(String::is_empty) => Vec::new(),
        Some(own) => checked_args("entrypoint", own)?,
        None => {
            checked_args("image.entrypoint", &of_image(image.and_then(|image| image.entrypoint().as_ref())))?
        }
    };
    let command = match (config.command.is_empty(), &config.entrypoint) {
        (false, _) => checked_args("command", &config.command)?,
        (true, None) => checked_args("image.cmd", &of_image(image.and_then(|image| image.cmd().as_ref())))?,
        (true, Some(_)) => Vec::new(),
    };
    let args = [entrypoint, command].concat();
    match args.first() {
        Some(program) if !program.is_empty() => Ok(args),
        Some(_) => Err(Invalid::new("command", "", "begins with an empty word", "name the program to run")),
        None => {
            let whose =
                if image.is_some() { "and the image names no program" } else { "and there is no image" };
            Err(Invalid::new("command", "", format!("is empty, {whose}"), "name the program to run"))
        }
    }
}

fn checked_args(field: &str, args: &[String]) -> Result<Vec<String>, Invalid> {
    for (index, arg) in args.iter().enumerate() {
        let field = || format!("{field}[{index}]");
        if arg.contains('\0') {
            return Err(Invalid::new(field(), arg, "contains a NUL byte", "remove it"));
        }
        if arg.len() >= LONGEST_STRING {
            return Err(Invalid::new(field(), arg, "is longer than 128 KiB", "pass it in a file"));
        }
    }
    Ok(args.to_vec())
}

/// Variables in the order in which they were first named.
#[derive(Debug, Default)]
struct Env(Vec<(String, String)>);

impl Env {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, key: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((key.to_owned(), value.to_owned())),
        }
    }

    fn remove(&mut self, key: &str) {
        self.0.retain(|(known, _)| known != key);
    }

    fn add_users(&mut self, variables: &[(String, String)]) -> Result<(), Invalid> {
        for (key, value) in variables {
            if let Some(problem) = key_problem(key) {
                return Err(Invalid::new(
                    "env",
                    key,
                    problem,
                    "write KEY=value, the key without = or controls",
                ));
            }
            if let Some((problem, fix)) = value_problem(key, value) {
                return Err(Invalid::new(format!("env.{key}"), value, problem, fix));
            }
            // From a user it is nearly always an accident of quoting, and programs that write variables into files by
            // line are fooled by it; an image that has one was built so.
            if value.contains('\n') {
                let fix = "put a value of several lines into a file and mount that (volumes)";
                return Err(Invalid::new(format!("env.{key}"), value, "contains a newline", fix));
            }
            self.set(key, value);
        }
        Ok(())
    }

    fn into_strings(self) -> Vec<String> {
        self.0.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }
}

/// Nothing of our own environment; what the image says, as far as it can be used; what the user says.
fn env(
    config: &Config,
    image: Option<&ImageConfig>,
    hostname: &str,
    warnings: &mut Vec<String>,
) -> Result<Env, Invalid> {
    let mut env = Env::default();
    env.set("PATH", DEFAULT_PATH);
    env.set("HOSTNAME", hostname);
    if config.terminal.is_some() {
        env.set("TERM", "xterm");
    }
    let of_image = image.and_then(|image| image.env().as_ref()).map(Vec::as_slice).unwrap_or_default();
    for (index, variable) in of_image.iter().enumerate() {
        let problem = match variable.split_once('=') {
            None => Some("has no ="),
            Some((key, value)) => match (key_problem(key), value_problem(key, value)) {
                (Some(problem), _) | (None, Some((problem, _))) => Some(problem),
                (None, None) => {
                    env.set(key, value);
                    None
                }
            },
        };
        if let Some(problem) = problem {
            // The value may be a secret or a mebibyte: the place is enough.
            warnings.push(format!("image.env[{index}] {problem}, ignoring it"));
        }
    }
    env.add_users(&config.env)?;
    Ok(env)
}

fn key_problem(key: &str) -> Option<&'static str> {
    if key.is_empty() {
        return Some("has an empty name");
    }
    if key.contains('=') {
        return Some("has a = in its name");
    }
    key.chars().any(char::is_control).then_some("has a control character in its name")
}

/// Values may have several lines (certificates do), but not where programs copy them into files by line.
fn value_problem(key: &str, value: &str) -> Option<(&'static str, &'static str)> {
    if value.contains('\0') {
        return Some(("contains a NUL byte", "remove it"));
    }
    if key.len() + 1 + value.len() >= LONGEST_STRING {
        return Some(("is longer than 128 KiB", "pass it in a file"));
    }
    let is_copied = matches!(key, "HOME" | "USER" | "LOGNAME" | "SHELL" | "HOSTNAME" | "PATH" | "TERM");
    (is_copied && value.chars().any(char::is_control))
        .then_some(("contains a control character", "remove it"))
}

fn check_size(args: &[String], env: &Env) -> Result<(), Invalid> {
    // A pointer, a NUL, and a `=` in variables.
    let args: usize = args.iter().map(|arg| arg.len() + 9).sum();
    let env: usize = env.0.iter().map(|(key, value)| key.len() + value.len() + 10).sum();
    if args + env <= LONGEST_TOTAL {
        return Ok(());
    }
    let field = if args > env { "command" } else { "env" };
    let problem = "is more than the kernel takes (2 MiB of command and environment together)";
    Err(Invalid::new(field, format!("{} bytes", args + env), problem, "pass it in a file"))
}

fn cwd(config: &Config, image: Option<&ImageConfig>) -> Result<String, Invalid> {
    if let Some(cwd) = &config.working_directory {
        return checked_cwd("workingDirectory", cwd);
    }
    match image.and_then(|image| image.working_dir().as_deref()) {
        None | Some("") => Ok("/".to_owned()),
        // Old builders wrote WORKDIR as it stood in the Dockerfile, where it is relative to the root.
        Some(cwd) if !cwd.starts_with('/') => checked_cwd("image.workingDir", &format!("/{cwd}")),
        Some(cwd) => checked_cwd("image.workingDir", cwd),
    }
}

/// /proc is full of doors to elsewhere (`/proc/self/fd/7`, CVE-2024-21626), /dev/fd leads there.
fn checked_cwd(field: &str, cwd: &str) -> Result<String, Invalid> {
    let cleaned = mounts::clean(field, cwd)?;
    if ["/proc/", "/dev/fd"].iter().any(|door| cleaned.starts_with(door)) {
        return Err(Invalid::new(
            field,
            cwd,
            "may lead out of the container",
            "choose a directory outside /proc and /dev/fd",
        ));
    }
    Ok(cleaned)
}

/// What can be said about a user without the image's /etc/passwd: numbers fit, names could be names.
fn checked_user(field: &str, user: &str, id_map: Option<IdMap>) -> Result<String, Invalid> {
    let refuse = |problem: &str| {
        let fix = "write name, uid, name:group or uid:gid";
        Err(Invalid::new(field, user, problem, fix))
    };
    let mut parts = user.split(':');
    let (name, group) = (parts.next().unwrap_or_default(), parts.next());
    if user.is_empty() {
        return Ok(String::new());
    }
    if parts.next().is_some() {
        return refuse("has more than one colon");
    }
    if name.is_empty() || group == Some("") {
        return refuse("has nothing on one side of the colon");
    }
    for part in [Some(name), group].into_iter().flatten() {
        check_id(field, part, id_map)?;
    }
    Ok(user.to_owned())
}

fn checked_groups(groups: &[String], id_map: Option<IdMap>) -> Result<Vec<String>, Invalid> {
    /// Far below NGROUPS_MAX, far above any use.
    const MOST: usize = 1024;
    if groups.len() > MOST {
        let fix = format!("name at most {MOST}");
        return Err(Invalid::new("groups", format!("{} groups", groups.len()), "are too many", fix));
    }
    for (index, group) in groups.iter().enumerate() {
        let field = format!("groups[{index}]");
        if group.is_empty() {
            return Err(Invalid::new(field, group, "is empty", "write a group's name or number"));
        }
        check_id(&field, group, id_map)?;
    }
    Ok(groups.to_vec())
}

/// A name, or a number that the container has. All digits is a number, as everywhere.
fn check_id(field: &str, part: &str, id_map: Option<IdMap>) -> Result<(), Invalid> {
    if part.bytes().all(|byte| byte.is_ascii_digit()) {
        // The last number means "no change" to the kernel (CVE-2024-40635 made it root).
        let most = id_map.map_or(u32::MAX - 1, |map| map.size - 1);
        let fits = part.parse::<u32>().is_ok_and(|id| id <= most);
        if !fits {
            let whose = if id_map.is_some() { "the container's range of ids" } else { "the kernel's range" };
            let fix = format!("give a number from 0 to {most}");
            return Err(Invalid::new(field, part, format!("is outside {whose}"), fix));
        }
        return Ok(());
    }
    let is_name = part.len() <= 256
        && !part.starts_with(['-', '+'])
        && part.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b'/' | b':'));
    match is_name {
        true => Ok(()),
        false => Err(Invalid::new(
            field,
            part,
            "is neither a name nor a number",
            "write one without signs or spaces",
        )),
    }
}

/// Docker's names, systemd's numbers: 1024 files for programs that use select(2), more for those that ask; no core
/// files. Processes are limited by the cgroup.
fn rlimits(ulimits: &[Ulimit]) -> Result<Vec<(String, u64, u64)>, Invalid> {
    const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let mut rlimits = vec![("RLIMIT_CORE".to_owned(), 0, 0), ("RLIMIT_NOFILE".to_owned(), 1024, 524_288)];
    let mut seen: Vec<&str> = Vec::new();
    for (index, ulimit) in ulimits.iter().enumerate() {
        let field = |part: &str| format!("ulimits[{index}].{part}");
        let lower = ulimit.name.to_ascii_lowercase();
        let short = lower.strip_prefix("rlimit_").unwrap_or(&lower);
        let Some(name) = NAMES.into_iter().find(|name| *name == short) else {
            let fix = match nearest(short, NAMES) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("use one of {}", NAMES.join(", ")),
            };
            return Err(Invalid::new(field("name"), &ulimit.name, "is no resource limit", fix));
        };
        if seen.contains(&name) {
            return Err(Invalid::new(field("name"), &ulimit.name, "is given twice", "give it once"));
        }
        seen.push(name);
        let number = |part: &str, value: i64| match value {
            -1 => Ok(u64::MAX),
            0.. => Ok(value.unsigned_abs()),
            _ => Err(Invalid::new(field(part), value, "is negative", "give a number, or -1 for no limit")),
        };
        let (soft, hard) = (number("soft", ulimit.soft)?, number("hard", ulimit.hard)?);
        if soft > hard {
            return Err(Invalid::new(
                field("soft"),
                ulimit.soft,
                format!("is above the hard limit, {}", ulimit.hard),
                "raise the hard limit or lower the soft one",
            ));
        }
        let name = format!("RLIMIT_{}", name.to_ascii_uppercase());
        rlimits.retain(|(known, _, _)| *known != name);
        rlimits.push((name, soft, hard));
    }
    rlimits.sort();
    Ok(rlimits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MAP: Option<IdMap> = Some(IdMap { host: 100_000, size: 65_536 });

    fn config() -> Config {
        Config { command: vec!["true".into()], ..Config::new("0123456789abcdef".repeat(4), MAP) }
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    fn image(json: Value) -> ImageConfig {
        serde_json::from_value(json).unwrap()
    }

    fn built(config: &Config, image: Option<&ImageConfig>) -> Result<(Process, Vec<String>), Invalid> {
        let mut warnings = Vec::new();
        let hostname = hostname(config)?;
        process(config, image, &hostname, &strings(&["CAP_CHOWN"]), &mut warnings)
            .map(|built| (built, warnings))
    }

    #[test]
    fn entrypoint_and_command_combine_as_in_docker() {
        let image = image(json!({ "Entrypoint": ["/ep", "a"], "Cmd": ["c", "d"] }));
        for (entrypoint, command, args) in [
            (None, &[][..], &["/ep", "a", "c", "d"][..]),
            (None, &["x"], &["/ep", "a", "x"]),
            (Some(&["/own"][..]), &[], &["/own"]),
            (Some(&["/own", "b"]), &["x"], &["/own", "b", "x"]),
            (Some(&[""]), &["x"], &["x"]),
            (Some(&[]), &["x"], &["x"]),
        ] {
            let config =
                Config { entrypoint: entrypoint.map(strings), command: strings(command), ..config() };
            assert_eq!(built(&config, Some(&image)).unwrap().0.args, args);
        }
        let nothing = Config { entrypoint: Some(strings(&[""])), command: vec![], ..config() };
        assert_eq!(built(&nothing, Some(&image)).unwrap_err().field, "command");
    }

    #[test]
    fn shell_form_and_empty_images() {
        let shell = image(json!({ "Cmd": ["/bin/sh", "-c", "echo $HOME"], "Entrypoint": null }));
        let config = Config { command: vec![], ..config() };
        assert_eq!(built(&config, Some(&shell)).unwrap().0.args, ["/bin/sh", "-c", "echo $HOME"]);
        let error = built(&config, Some(&image(json!({})))).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"command "" is empty, and the image names no program; name the program to run"#
        );
        assert_eq!(
            built(&Config { command: strings(&["", "x"]), ..config.clone() }, None).unwrap_err().field,
            "command"
        );
        let nul = Config { command: strings(&["a", "b\0"]), ..config };
        assert_eq!(built(&nul, None).unwrap_err().field, "command[1]");
    }

    #[test]
    fn init_goes_in_front() {
        let config = Config { init: Some("/usr/lib/wharf/wharf-init".into()), ..config() };
        assert_eq!(built(&config, None).unwrap().0.args, ["/dev/init", "true"]);
    }

    #[test]
    fn environment_is_images_then_users_and_nothing_of_ours() {
        let image = image(json!({ "Env": ["PATH=/bin", "A=1", "B=2=3", "EMPTY="] }));
        let env = vec![("A".into(), "9".into()), ("C".into(), "tab\ttab".into())];
        let config = Config { env, ..config() };
        let (process, warnings) = built(&config, Some(&image)).unwrap();
        assert_eq!(
            process.env,
            ["PATH=/bin", "HOSTNAME=0123456789ab", "A=9", "B=2=3", "EMPTY=", "C=tab\ttab"]
        );
        assert_eq!(warnings, Vec::<String>::new());
        let size = TerminalSize { rows: 24, columns: 80 };
        let with_terminal = built(&Config { terminal: Some(size), ..config }, None).unwrap().0;
        assert!(with_terminal.env.contains(&"TERM=xterm".to_owned()));
        assert!(with_terminal.env.contains(&format!("PATH={DEFAULT_PATH}")));
    }

    /// T28.
    #[test]
    fn unusable_variables_of_an_image_are_skipped_with_a_warning() {
        let long = format!("LONG={}", "x".repeat(1 << 20));
        let list = [
            "FOO",
            "FOO*",
            "=x",
            "",
            "=",
            "A\u{0}=1",
            "B=\u{0}",
            "N\nL=1",
            &long,
            "HOME=/x\nroot::0:0",
            "OK=1",
        ];
        let (process, warnings) = built(&config(), Some(&image(json!({ "Env": list })))).unwrap();
        assert_eq!(process.env[2..], ["OK=1"]);
        assert_eq!(warnings.len(), 10);
        assert_eq!(warnings[0], "image.env[0] has no =, ignoring it");
    }

    /// T28, T23.
    #[test]
    fn unusable_variables_of_the_user_are_refused_by_name() {
        let long = "x".repeat(1 << 20);
        for (key, value, field) in [
            ("", "x", "env"),
            ("C", "line\nline", "env.C"),
            ("A=B", "x", "env"),
            ("A\0", "x", "env"),
            ("A\nB", "x", "env"),
            ("A", "x\0", "env.A"),
            ("A", long.as_str(), "env.A"),
            ("HOME", "/x\nroot::0:0", "env.HOME"),
            ("USER", "\u{1b}[2J", "env.USER"),
        ] {
            let config = Config { env: vec![(key.into(), value.into())], ..config() };
            assert_eq!(built(&config, None).unwrap_err().field, field, "{key:?}");
        }
        let many = (0..40).map(|n| (format!("K{n}"), "x".repeat(100_000))).collect();
        assert_eq!(built(&Config { env: many, ..config() }, None).unwrap_err().field, "env");
    }

    /// T02.
    #[test]
    fn working_directory_is_absolute_and_leads_nowhere_else() {
        for (cwd, cleaned) in
            [("/", "/"), ("/app/", "/app"), ("//a/./b/../c", "/a/c"), ("/..", "/"), ("/proc", "/proc")]
        {
            let config = Config { working_directory: Some(cwd.into()), ..config() };
            assert_eq!(built(&config, None).unwrap().0.cwd, cleaned);
        }
        let mut doors: Vec<String> = (3..1024).map(|fd| format!("/proc/self/fd/{fd}")).collect();
        doors.extend(strings(&[
            "",
            "app",
            "./x",
            "/proc/self/cwd",
            "/proc/1/root",
            "/proc/thread-self/fd/7",
            "/x/../proc/self/fd/8",
            "//proc//self/fd/9",
            "/dev/fd/7",
            "/a\0",
            "/a\n",
        ]));
        for cwd in doors {
            let own = Config { working_directory: Some(cwd.clone()), ..config() };
            assert_eq!(built(&own, None).unwrap_err().field, "workingDirectory", "{cwd:?}");
            if cwd.starts_with('/') {
                let image = image(json!({ "WorkingDir": cwd }));
                assert_eq!(built(&config(), Some(&image)).unwrap_err().field, "image.workingDir", "{cwd:?}");
            }
        }
        assert_eq!(built(&config(), Some(&image(json!({ "WorkingDir": "app" })))).unwrap().0.cwd, "/app");
        assert_eq!(built(&config(), Some(&image(json!({ "WorkingDir": "" })))).unwrap().0.cwd, "/");
    }

    /// T21.
    #[test]
    fn users_that_cannot_be_are_refused() {
        for user in [
            "65536",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "-1",
            "+0",
            "0:65536",
            "0:-1",
            "1:2:3",
            ":",
            "1:",
            ":1",
            " ",
            " 0",
            "0 ",
            "a b",
            "a\0",
            "a\nroot",
            "root:\u{1b}",
            "0x\u{a0}",
        ] {
            let own = Config { user: Some(user.into()), ..config() };
            assert_eq!(built(&own, None).unwrap_err().field, "user", "{user:?}");
            let image = image(json!({ "User": user }));
            assert_eq!(built(&config(), Some(&image)).unwrap_err().field, "image.user", "{user:?}");
        }
        for user in ["", "0", "65535", "0:0", "root", "www-data:www-data", "1000:users", "_apt", "0x10", "00"]
        {
            let config = Config { user: Some(user.into()), ..config() };
            assert_eq!(built(&config, None).unwrap().0.user, user);
        }
        let unmapped = |user: &str| Config { user: Some(user.into()), id_map: None, ..config() };
        assert!(built(&unmapped("4294967294"), None).is_ok());
        assert!(built(&unmapped("4294967295"), None).is_err());
        let groups = Config { groups: strings(&["audio", "70000"]), ..config() };
        assert_eq!(built(&groups, None).unwrap_err().field, "groups[1]");
    }

    #[test]
    fn host_names() {
        for name in ["a", "box-1", "db.example.org", "my_host", &"x".repeat(63)] {
            assert_eq!(hostname(&Config { hostname: Some(name.into()), ..config() }).unwrap(), name);
        }
        for name in [
            "",
            "-a",
            "a-",
            "a..b",
            ".a",
            "a.",
            "a b",
            "a\n",
            "a\0",
            "ä",
            "a/b",
            &"x".repeat(64),
            &"x.".repeat(40),
        ] {
            assert!(hostname(&Config { hostname: Some(name.into()), ..config() }).is_err(), "{name:?}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (written, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("sigusr1", 10),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("64", 64),
        ] {
            assert_eq!(signal("stopSignal", written).unwrap(), number, "{written}");
        }
        for written in ["", "0", "65", "-9", "TREM", "RTMIN+31", "RTMIN-1", "SIG", "15 ", "99999999999"] {
            assert_eq!(signal("stopSignal", written).unwrap_err().field, "stopSignal", "{written:?}");
        }
        assert_eq!(signal("stopSignal", "TERN").unwrap_err().fix, "did you mean SIGTERM?");
        let image = image(json!({ "StopSignal": "SIGQUIT" }));
        assert_eq!(stop_signal(&config(), Some(&image)).unwrap(), 3);
        assert_eq!(
            stop_signal(&Config { stop_signal: Some("INT".into()), ..config() }, Some(&image)).unwrap(),
            2
        );
        assert_eq!(stop_signal(&config(), None).unwrap(), 15);
    }

    #[test]
    fn ulimits_replace_defaults() {
        let ulimit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
        let with = |list: &[Ulimit]| rlimits(list);
        assert_eq!(
            with(&[]).unwrap(),
            [("RLIMIT_CORE".to_owned(), 0, 0), ("RLIMIT_NOFILE".to_owned(), 1024, 524_288)]
        );
        let own = with(&[ulimit("nofile", 10, 20), ulimit("RLIMIT_STACK", -1, -1)]).unwrap();
        assert_eq!(
            own[1..],
            [("RLIMIT_NOFILE".to_owned(), 10, 20), ("RLIMIT_STACK".to_owned(), u64::MAX, u64::MAX)]
        );
        for (bad, field) in [
            (ulimit("nofiles", 1, 1), "ulimits[0].name"),
            (ulimit("nofile", 2, 1), "ulimits[0].soft"),
            (ulimit("nofile", -1, 1), "ulimits[0].soft"),
            (ulimit("nofile", 1, -2), "ulimits[0].hard"),
        ] {
            assert_eq!(with(&[bad]).unwrap_err().field, field);
        }
        assert!(with(&[ulimit("core", 1, 1), ulimit("core", 2, 2)]).is_err());
    }

    #[test]
    fn exec_inherits_what_it_does_not_say() {
        let config = Config { user: Some("app".into()), env: vec![("HOME".into(), "/h".into())], ..config() };
        let process = built(&config, None).unwrap().0;
        let exec =
            process.exec(&ExecConfig { command: strings(&["id"]), ..ExecConfig::default() }, MAP).unwrap();
        assert_eq!((exec.user.as_str(), exec.cwd.as_str()), ("app", "/"));
        assert!(exec.env.contains(&"HOME=/h".to_owned()));
        let other = ExecConfig {
            command: strings(&["id"]),
            user: Some("0".into()),
            terminal: true,
            ..ExecConfig::default()
        };
        let exec = process.exec(&other, MAP).unwrap();
        assert!(!exec.env.iter().any(|variable| variable.starts_with("HOME=")));
        assert!(exec.env.contains(&"TERM=xterm".to_owned()));
        assert_eq!(process.exec(&ExecConfig::default(), MAP).unwrap_err().field, "command");
        let door = ExecConfig { working_directory: Some("/proc/self/fd/3".into()), ..other };
        assert_eq!(process.exec(&door, MAP).unwrap_err().field, "workingDirectory");
    }
}
