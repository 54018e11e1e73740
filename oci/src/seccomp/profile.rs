//! Profiles in Docker's JSON format: their rules, the conditions under which these apply, and their translation.

use super::bpf::{self, Prologue};
use super::capture;
use crate::bundle::{Invalid, nearest};
use libseccomp::error::SeccompErrno;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use serde::Deserialize;
use std::str::FromStr;

/// The system calls of moby's default profile: AF_ALG and AF_VSOCK blocked, no new namespaces, no io_uring, no
/// userfaultfd, `clone3` answered with ENOSYS.
pub const DEFAULT_PROFILE: &str = include_str!("default.json");

/// What the kernel is told to do with a call: SECCOMP_RET_* and its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict(pub u32);

impl Verdict {
    #[cfg(test)]
    pub const ALLOW: Self = Self(0x7fff_0000);
    pub const NO_SUCH_CALL: Self = Self(0x0005_0000 | nix::libc::ENOSYS as u32);

    /// libseccomp keeps its own translation to itself.
    fn of(action: ScmpAction) -> Self {
        match action {
            ScmpAction::KillProcess => Self(0x8000_0000),
            ScmpAction::KillThread => Self(0x0000_0000),
            ScmpAction::Trap => Self(0x0003_0000),
            ScmpAction::Errno(number) => Self(0x0005_0000 | number as u32 & 0xffff),
            ScmpAction::Log => Self(0x7ffc_0000),
            ScmpAction::Allow => Self(0x7fff_0000),
            // `action` lets neither through, nor what a later libseccomp may add; deny.
            ScmpAction::Notify | ScmpAction::Trace(_) | _ => Self(0x0005_0000 | nix::libc::EPERM as u32),
        }
    }
}

/// System calls with numbers common to all architectures that libseccomp 2.5 does not know yet.
const NEW_CALLS: [(&str, u32); 20] = [
    ("set_mempolicy_home_node", 450),
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "null_is_empty")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    arch_map: Vec<ArchMap>,
    #[serde(default, deserialize_with = "null_is_empty")]
    flags: Vec<String>,
    listener_path: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    sub_architectures: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "null_is_empty")]
    args: Vec<Arg>,
    includes: Option<Conditions>,
    excludes: Option<Conditions>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    #[serde(default, deserialize_with = "null_is_empty")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Programs written in Go write `null` for a list with nothing in it.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// What decides whether a rule applies.
struct Surroundings<'a> {
    capabilities: &'a [&'a str],
    architecture: &'static str,
    kernel: (u32, u32),
}

/// The whole filter of a profile.
pub fn compile(text: &str, capabilities: &[&str]) -> Result<Vec<u8>, Invalid> {
    let profile: Profile = serde_json::from_str(text).map_err(|error| {
        let fix = "give a profile in the format of Docker's seccomp profiles";
        Invalid::new(FIELD, "", format!("is no such profile: {error}"), fix)
    })?;
    refuse_what_needs_a_helper(&profile)?;
    let default = action("defaultAction", &profile.default_action, profile.default_errno_ret)?;
    let architectures = architectures(&profile)?;
    let surroundings = Surroundings { capabilities, architecture: NATIVE.name, kernel: kernel() };

    let mut context = ScmpFilterContext::new(default).map_err(internal)?;
    for architecture in &architectures {
        context.add_arch(*architecture).map_err(internal)?;
    }
    // A binary tree over the numbers: 9 comparisons instead of some 400 for the last one.
    context.set_ctl_optimize(2).map_err(internal)?;

    let mut verdicts: Vec<(u32, Verdict)> = Vec::new();
    let mut highest = 0;
    for (index, rule) in profile.syscalls.iter().enumerate() {
        let place = format!("syscalls[{index}]");
        let names = rule.names(&place)?;
        let action = action(&format!("{place}.action"), &rule.action, rule.errno_ret)?;
        let comparisons = comparisons(&place, &rule.args)?;
        if !applies(&place, rule, &surroundings)? {
            continue;
        }
        for name in names {
            let (number, by_us) = match ScmpSyscall::from_name(name) {
                Ok(call) => (call.as_raw_syscall(), false),
                Err(_) => match NEW_CALLS.iter().find(|(known, _)| *known == name) {
                    Some((_, number)) => (*number as i32, true),
                    // As in Docker: profiles name calls that only other kernels or libraries know.
                    None => {
                        tracing::debug!(name, "system call in a seccomp profile is unknown here, ignoring");
                        continue;
                    }
                },
            };
            // Negative numbers stand for calls that this architecture lacks, but a sub-architecture may have.
            highest = highest.max(u32::try_from(number).unwrap_or(0));
            if action == default {
                continue;
            }
            if by_us {
                if !comparisons.is_empty() {
                    let problem =
                        format!("compares arguments of {name}, which libseccomp here does not know");
                    return Err(invalid(&format!("{place}.args"), "", problem, "leave the rule out"));
                }
                let number = number.unsigned_abs();
                if !verdicts.iter().any(|(known, _)| *known == number) {
                    verdicts.push((number, Verdict::of(action)));
                }
                continue;
            }
            add(&mut context, action, number, &comparisons, &place)?;
        }
    }
    let body = capture(|fd| context.export_bpf(fd).map_err(std::io::Error::other)).map_err(internal)?;
    let prologue = Prologue {
        architectures: audit_architectures(&architectures),
        has_x32: architectures.contains(&ScmpArch::X32),
        verdicts,
        // Who kills or allows what is not named means just that.
        unknown_above: if let ScmpAction::Errno(number) = default
            && number != nix::libc::ENOSYS
            && highest >= bpf::FIRST_COMMON
        {
            Some(highest)
        } else {
            None
        },
    };
    let filter = [prologue.bytes(), body].concat();
    let length = filter.len() / bpf::INSTRUCTION;
    if length > bpf::MOST_INSTRUCTIONS {
        let problem = format!("becomes {length} instructions; the kernel takes {}", bpf::MOST_INSTRUCTIONS);
        return Err(Invalid::new(FIELD, "", problem, "use fewer rules, above all with arguments"));
    }
    Ok(filter)
}

const FIELD: &str = "security.seccomp.profile";

fn invalid(place: &str, value: impl ToString, problem: impl Into<String>, fix: impl Into<String>) -> Invalid {
    Invalid::new(format!("{FIELD}.{place}"), value, problem, fix)
}

/// libseccomp refuses what we did not foresee; the user can only change the profile.
fn internal(error: impl std::fmt::Display) -> Invalid {
    let fix = "change the profile, or leave it out for the default";
    Invalid::new(FIELD, "", format!("cannot be compiled: {error}"), fix)
}

fn refuse_what_needs_a_helper(profile: &Profile) -> Result<(), Invalid> {
    if profile.listener_path.is_some() {
        return Err(invalid(
            "listenerPath",
            "",
            "needs a listening agent, which is not supported",
            "leave it out",
        ));
    }
    if let Some(flag) = profile.flags.first() {
        return Err(invalid("flags[0]", flag, "is not supported", "leave it out"));
    }
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(invalid("architectures", "", "stands beside archMap", "give one of them"));
    }
    Ok(())
}

fn action(place: &str, name: &str, errno: Option<u32>) -> Result<ScmpAction, Invalid> {
    const NAMES: [&str; 7] = [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_LOG",
        "SCMP_ACT_TRAP",
    ];
    /// MAX_ERRNO: the kernel clips larger ones.
    const MOST: u32 = 4095;
    let number = errno.unwrap_or(nix::libc::EPERM as u32);
    if number > MOST {
        return Err(invalid(
            &format!("{place}.errnoRet"),
            number,
            "is no error number",
            "give one up to 4095",
        ));
    }
    if NAMES.contains(&name)
        && let Ok(action) = ScmpAction::from_str(name, Some(number as i32))
    {
        return Ok(action);
    }
    let fix = match (name, nearest(name, NAMES)) {
        ("SCMP_ACT_NOTIFY" | "SCMP_ACT_TRACE", _) => "use SCMP_ACT_ERRNO: nobody is listening".to_owned(),
        (_, Some(near)) => format!("did you mean {near}?"),
        (_, None) => format!("use one of {}", NAMES.join(", ")),
    };
    Err(invalid(place, name, "is no action that can be used", fix))
}

/// The native architecture is always filtered; these besides.
fn architectures(profile: &Profile) -> Result<Vec<ScmpArch>, Invalid> {
    let native = ScmpArch::native();
    let parse = |place: &str, name: &str| {
        ScmpArch::from_str(name)
            .map(|architecture| if architecture == ScmpArch::Native { native } else { architecture })
            .map_err(|_| invalid(place, name, "is no architecture", "use a name such as SCMP_ARCH_X86_64"))
    };
    let mut architectures = vec![native];
    let mut add = |architecture| {
        if !architectures.contains(&architecture) {
            architectures.push(architecture);
        }
    };
    for (index, name) in profile.architectures.iter().enumerate() {
        add(parse(&format!("architectures[{index}]"), name)?);
    }
    for (index, entry) in profile.arch_map.iter().enumerate() {
        let place = format!("archMap[{index}]");
        if parse(&place, &entry.architecture)? != native {
            continue;
        }
        for name in &entry.sub_architectures {
            add(parse(&place, name)?);
        }
    }
    Ok(architectures)
}

/// Names of an architecture: Go's, as Docker's conditions use it.
struct Native {
    name: &'static str,
}

#[cfg(target_arch = "x86_64")]
const NATIVE: Native = Native { name: "amd64" };
#[cfg(target_arch = "aarch64")]
const NATIVE: Native = Native { name: "arm64" };
#[cfg(target_arch = "riscv64")]
const NATIVE: Native = Native { name: "riscv64" };
#[cfg(target_arch = "s390x")]
const NATIVE: Native = Native { name: "s390x" };

/// AUDIT_ARCH_* of those whose new system calls have the common numbers.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "libseccomp's list is open, and most of it is not meant here"
)]
fn audit_architectures(architectures: &[ScmpArch]) -> Vec<u32> {
    let token = |architecture: &ScmpArch| match architecture {
        ScmpArch::X8664 => Some(0xc000_003e),
        ScmpArch::X86 => Some(0x4000_0003),
        ScmpArch::Aarch64 => Some(0xc000_00b7),
        ScmpArch::Arm => Some(0x4000_0028),
        ScmpArch::Riscv64 => Some(0xc000_00f3),
        ScmpArch::S390X => Some(0x8000_0016),
        ScmpArch::S390 => Some(0x0000_0016),
        ScmpArch::Ppc64Le => Some(0xc000_0015),
        ScmpArch::Loongarch64 => Some(0xc000_0102),
        // x32 has x86_64's; the others count differently or are long gone.
        _ => None,
    };
    architectures.iter().filter_map(token).collect()
}

impl Rule {
    fn names(&self, place: &str) -> Result<Vec<&str>, Invalid> {
        match (&self.name, self.names.is_empty()) {
            (Some(name), true) => Ok(vec![name]),
            (None, _) => Ok(self.names.iter().map(String::as_str).collect()),
            (Some(name), false) => Err(invalid(place, name, "has both name and names", "give one of them")),
        }
    }
}

/// Docker's logic: one excluding condition that holds drops the rule, and so does one including that does not.
fn applies(place: &str, rule: &Rule, surroundings: &Surroundings<'_>) -> Result<bool, Invalid> {
    let has = |name: &String| surroundings.capabilities.contains(&name.as_str());
    let is_here = |name: &String| name == surroundings.architecture;
    let kernel = |conditions: &Conditions, place: &str| match &conditions.min_kernel {
        None => Ok(None),
        Some(text) => match version(text) {
            Some(least) => Ok(Some(surroundings.kernel >= least)),
            None => Err(invalid(place, text, "is no kernel version", "write it as 4.8")),
        },
    };
    if let Some(conditions) = &rule.excludes {
        let kernel = kernel(conditions, &format!("{place}.excludes.minKernel"))?;
        if conditions.caps.iter().any(has) || conditions.arches.iter().any(is_here) || kernel == Some(true) {
            return Ok(false);
        }
    }
    if let Some(conditions) = &rule.includes {
        let kernel = kernel(conditions, &format!("{place}.includes.minKernel"))?;
        let elsewhere = !conditions.arches.is_empty() && !conditions.arches.iter().any(is_here);
        if !conditions.caps.iter().all(has) || elsewhere || kernel == Some(false) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn comparisons(place: &str, args: &[Arg]) -> Result<Vec<(u32, ScmpArgCompare)>, Invalid> {
    const OPERATORS: [&str; 7] = [
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_LE",
        "SCMP_CMP_LT",
        "SCMP_CMP_MASKED_EQ",
        "SCMP_CMP_NE",
    ];
    let mut comparisons = Vec::with_capacity(args.len());
    for (index, arg) in args.iter().enumerate() {
        let place = format!("{place}.args[{index}]");
        if arg.index > 5 {
            return Err(invalid(&format!("{place}.index"), arg.index, "is no argument", "give 0 to 5"));
        }
        let Ok(operator) = ScmpCompareOp::from_str(&arg.op) else {
            let fix = match nearest(&arg.op, OPERATORS) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("use one of {}", OPERATORS.join(", ")),
            };
            return Err(invalid(&format!("{place}.op"), &arg.op, "is no comparison", fix));
        };
        let comparison = if matches!(operator, ScmpCompareOp::MaskedEqual(_)) {
            ScmpArgCompare::new(arg.index, ScmpCompareOp::MaskedEqual(arg.value), arg.value_two)
        } else {
            ScmpArgCompare::new(arg.index, operator, arg.value)
        };
        comparisons.push((arg.index, comparison));
    }
    Ok(comparisons)
}

fn add(
    context: &mut ScmpFilterContext,
    action: ScmpAction,
    number: i32,
    comparisons: &[(u32, ScmpArgCompare)],
    place: &str,
) -> Result<(), Invalid> {
    let repeats =
        |index: usize| comparisons[..index].iter().any(|(earlier, _)| *earlier == comparisons[index].0);
    let all: Vec<ScmpArgCompare> = comparisons.iter().map(|(_, comparison)| *comparison).collect();
    // One rule cannot compare an argument twice. As in runc, each comparison then is a rule of its own.
    let rules: Vec<&[ScmpArgCompare]> = match (0..comparisons.len()).any(repeats) {
        true => all.chunks(1).collect(),
        false => vec![&all],
    };
    for rule in rules {
        match context.add_rule_conditional(action, number, rule) {
            Ok(_) => {}
            // The same rule again, from another entry.
            Err(error) if error.errno() == Some(SeccompErrno::EEXIST) => {}
            Err(error) => {
                return Err(invalid(place, number, format!("cannot be used: {error}"), "change the rule"));
            }
        }
    }
    Ok(())
}

/// The first two numbers of the running kernel's version.
fn kernel() -> (u32, u32) {
    nix::sys::utsname::uname()
        .ok()
        .and_then(|name| {
            let release = name.release().to_str()?;
            let mut parts = release.split(|c: char| !c.is_ascii_digit());
            Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        })
        .unwrap_or((0, 0))
}

fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn error(profile: &str) -> Invalid {
        compile(profile, &[]).unwrap_err()
    }

    #[test]
    fn bad_profiles_are_refused_with_the_place() {
        for (profile, field) in [
            ("", ""),
            ("[]", ""),
            ("{}", ""),
            (r#"{"defaultAction":"SCMP_ACT_ALOW"}"#, ".defaultAction"),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, ".defaultAction"),
            (r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5000}"#, ".defaultAction.errnoRet"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"]}"#, ".flags[0]"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#, ".listenerPath"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["X"]}"#, ".architectures[0]"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_KIL"}]}"#,
                ".syscalls[0].action",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_KILL",
                    "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
                ".syscalls[0].args[0].index",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_KILL",
                    "args":[{"index":0,"value":0,"op":"SCMP_CMP_EQUAL"}]}]}"#,
                ".syscalls[0].args[0].op",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_KILL",
                    "includes":{"minKernel":"new"}}]}"#,
                ".syscalls[0].includes.minKernel",
            ),
        ] {
            assert_eq!(error(profile).field, format!("{FIELD}{field}"), "{profile}");
        }
        assert_eq!(error(r#"{"defaultAction":"SCMP_ACT_ALOW"}"#).fix, "did you mean SCMP_ACT_ALLOW?");
    }

    #[test]
    fn conditions_hold_as_in_docker() {
        let surroundings = Surroundings { capabilities: &["CAP_A"], architecture: "amd64", kernel: (6, 1) };
        let rule = |conditions: &str| -> Rule {
            serde_json::from_str(&format!(r#"{{"names":[],"action":"",{conditions}}}"#)).unwrap()
        };
        for (conditions, expected) in [
            (r#""comment":"none""#, true),
            (r#""includes":{},"excludes":null"#, true),
            (r#""includes":{"caps":["CAP_A"]}"#, true),
            (r#""includes":{"caps":["CAP_A","CAP_B"]}"#, false),
            (r#""excludes":{"caps":["CAP_B","CAP_A"]}"#, false),
            (r#""includes":{"arches":["arm64","amd64"]}"#, true),
            (r#""includes":{"arches":["arm64"]}"#, false),
            (r#""excludes":{"arches":["amd64"]}"#, false),
            (r#""includes":{"minKernel":"4.8"}"#, true),
            (r#""includes":{"minKernel":"6.2"}"#, false),
            (r#""excludes":{"minKernel":"6.1"}"#, false),
        ] {
            assert_eq!(applies("x", &rule(conditions), &surroundings).unwrap(), expected, "{conditions}");
        }
    }

    #[test]
    fn default_profile_has_docker_size_and_fits_the_kernel() {
        let profile: Profile = serde_json::from_str(DEFAULT_PROFILE).unwrap();
        let always = profile
            .syscalls
            .iter()
            .filter(|rule| rule.includes.is_none() && rule.excludes.is_none() && rule.args.is_empty());
        assert_eq!(always.map(|rule| rule.names.len()).sum::<usize>(), 361);
        let filter = compile(DEFAULT_PROFILE, &["CAP_CHOWN"]).unwrap();
        assert!(
            filter.len().is_multiple_of(bpf::INSTRUCTION) && filter.len() / bpf::INSTRUCTION < 2500,
            "{}",
            filter.len()
        );
    }

    #[test]
    fn same_argument_twice_becomes_two_rules() {
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"socket","action":"SCMP_ACT_ERRNO",
            "args":[{"index":0,"value":38,"op":"SCMP_CMP_EQ"},{"index":0,"value":40,"op":"SCMP_CMP_EQ"}]}]}"#;
        assert!(compile(profile, &[]).is_ok());
    }
}
