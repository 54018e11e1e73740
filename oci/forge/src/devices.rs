//! Which devices a container may open, on cgroup v2: there is no controller with files for it, but a small program
//! in the kernel that is asked at every mknod(2) and open(2) of a device, and ends with the cgroup.

use anyhow::{Context, Result};
use libcontainer::oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::io;

// The numbers are from linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const CGROUP_DEVICE_PROGRAM: u32 = 15;
const CGROUP_DEVICE_HOOK: u32 = 6;
/// Programs of the cgroups above stay in force.
const ALLOW_MULTI: u32 = 2;

const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MKNOD | READ | WRITE;

/// Let the processes in this v2 cgroup and below reach devices by these rules only; the last that fits decides, and
/// what none allows is refused.
pub fn restrict(cgroup: BorrowedFd<'_>, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let program = load(&instructions(rules)?).context("loading the program that guards devices")?;
    attach(cgroup, program.as_fd()).context("attaching the program that guards devices")
}

/// `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Source in the upper half, destination in the lower.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const COPY: u8 = 0xbc;
const SET: u8 = 0xb7;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_UNLESS_SAME: u8 = 0x5d;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
/// At first the question (`struct bpf_cgroup_dev_ctx`), later free.
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn instructions(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Instruction>> {
    let mut program = vec![
        // access << 16 | kind, major, minor
        instruction(LOAD_WORD, KIND, SCRATCH, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(LOAD_WORD, ACCESS, SCRATCH, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, SCRATCH, 4, 0),
        instruction(LOAD_WORD, MINOR, SCRATCH, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let tests = tests(rule)?;
        let answer = [instruction(SET, RESULT, 0, 0, i32::from(rule.allow())), instruction(EXIT, 0, 0, 0, 0)];
        let unconditional = tests.is_empty();
        let length = tests.len();
        for (index, mut test) in tests.into_iter().enumerate() {
            if matches!(test.code, JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL | JUMP_UNLESS_SAME) {
                test.offset = (length - index - 1 + answer.len()) as i16;
            }
            program.push(test);
        }
        program.extend(answer);
        if unconditional {
            // The kernel refuses programs with parts that cannot be reached.
            return Ok(program);
        }
    }
    program.extend([instruction(SET, RESULT, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    Ok(program)
}

/// Instructions that jump on if the rule does not fit.
fn tests(rule: &LinuxDeviceCgroup) -> Result<Vec<Instruction>> {
    let mut tests = Vec::new();
    match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A => {}
        LinuxDeviceType::B => tests.push(instruction(JUMP_UNLESS_EQUAL, KIND, 0, 0, BLOCK)),
        // An unbuffered character device is another word for one.
        LinuxDeviceType::C | LinuxDeviceType::U => {
            tests.push(instruction(JUMP_UNLESS_EQUAL, KIND, 0, 0, CHARACTER));
        }
        LinuxDeviceType::P => {
            anyhow::bail!("the device rule \"{rule}\" is about pipes, which are no devices")
        }
    }
    let access = match rule.access().as_deref() {
        None | Some("") => ALL,
        Some(letters) => letters.chars().try_fold(0, |sum, letter| match letter {
            'r' => Ok(sum | READ),
            'w' => Ok(sum | WRITE),
            'm' => Ok(sum | MKNOD),
            _ => Err(anyhow::anyhow!("the device rule \"{rule}\" has an access that is none of r, w, m")),
        })?,
    };
    if access != ALL {
        tests.push(instruction(COPY, SCRATCH, ACCESS, 0, 0));
        tests.push(instruction(AND, SCRATCH, 0, 0, access));
        tests.push(if rule.allow() {
            // All that is wanted must be allowed…
            instruction(JUMP_UNLESS_SAME, SCRATCH, ACCESS, 0, 0)
        } else {
            // … and a part of it that is denied denies it.
            instruction(JUMP_IF_EQUAL, SCRATCH, 0, 0, 0)
        });
    }
    for (register, number) in [(MAJOR, rule.major()), (MINOR, rule.minor())] {
        // Negative means all, as in other runtimes.
        if let Some(number) = number.filter(|number| *number >= 0) {
            let number = i32::try_from(number)
                .with_context(|| format!("the device rule \"{rule}\" has a number that is too large"))?;
            tests.push(instruction(JUMP_UNLESS_EQUAL, register, 0, 0, number));
        }
    }
    Ok(tests)
}

/// The part of `union bpf_attr` for BPF_PROG_LOAD that we use.
#[repr(C)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// Likewise for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    hook: u32,
    flags: u32,
}

fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let request = Load {
        program_type: CGROUP_DEVICE_PROGRAM,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"wharf_devices\0\0\0",
    };
    let fd = bpf(PROG_LOAD, &request)?;
    // SAFETY: the kernel has just given us this descriptor, with close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let request = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        hook: CGROUP_DEVICE_HOOK,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &request).map(drop)
}

fn bpf<T>(command: libc::c_int, request: &T) -> io::Result<libc::c_int> {
    // SAFETY: the structure is a prefix of `union bpf_attr` for this command, without padding; what it points to
    // outlives the call, and the kernel takes what is missing for zero.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(request), size_of::<T>()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use libcontainer::oci_spec::runtime::LinuxDeviceCgroupBuilder;

    fn rule(
        allow: bool,
        kind: LinuxDeviceType,
        major: Option<i64>,
        minor: Option<i64>,
        access: &str,
    ) -> LinuxDeviceCgroup {
        let mut builder = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
        if let Some(major) = major {
            builder = builder.major(major);
        }
        if let Some(minor) = minor {
            builder = builder.minor(minor);
        }
        builder.build().unwrap()
    }

    /// What the kernel would do with it.
    fn run(program: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0i32; 6];
        let mut at = 0usize;
        loop {
            let Instruction { code, registers: both, offset, immediate } = program[at];
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            at += 1;
            let jumps = match code {
                LOAD_WORD => {
                    registers[to] = context[offset as usize / 4];
                    continue;
                }
                AND => {
                    registers[to] &= immediate;
                    continue;
                }
                SHIFT_RIGHT => {
                    registers[to] >>= immediate;
                    continue;
                }
                COPY => {
                    registers[to] = registers[from];
                    continue;
                }
                SET => {
                    registers[to] = immediate;
                    continue;
                }
                EXIT => return registers[usize::from(RESULT)] == 1,
                JUMP_IF_EQUAL => registers[to] == immediate,
                JUMP_UNLESS_EQUAL => registers[to] != immediate,
                JUMP_UNLESS_SAME => registers[to] != registers[from],
                other => panic!("unknown instruction {other:#x}"),
            };
            if jumps {
                at += offset as usize;
            }
        }
    }

    #[test]
    fn last_fitting_rule_decides_and_nothing_is_allowed_by_itself() {
        use LinuxDeviceType::{A, C};
        let program = instructions(&[
            rule(true, C, Some(9), None, "rwm"),
            rule(false, A, None, None, "rwm"),
            rule(true, C, Some(1), Some(3), "rwm"),
            rule(true, C, Some(136), None, "rw"),
            rule(false, C, Some(136), Some(7), "w"),
        ])
        .unwrap();
        assert!(run(&program, CHARACTER, READ | WRITE, 1, 3));
        assert!(!run(&program, BLOCK, READ, 1, 3));
        assert!(!run(&program, CHARACTER, READ, 1, 1));
        assert!(!run(&program, CHARACTER, READ, 9, 1), "denied by a later rule");
        assert!(run(&program, CHARACTER, READ | WRITE, 136, 0));
        assert!(!run(&program, CHARACTER, MKNOD, 136, 0));
        assert!(run(&program, CHARACTER, READ, 136, 7));
        assert!(!run(&program, CHARACTER, READ | WRITE, 136, 7));
        assert!(!run(&instructions(&[]).unwrap(), CHARACTER, READ, 1, 3));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        assert!(instructions(&[rule(true, LinuxDeviceType::C, Some(1), None, "rx")]).is_err());
        assert!(instructions(&[rule(true, LinuxDeviceType::P, Some(1), None, "r")]).is_err());
        assert!(instructions(&[rule(true, LinuxDeviceType::C, Some(1 << 40), None, "r")]).is_err());
    }
}
